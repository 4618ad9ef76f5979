"""Workers against a real JSM and database."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from waiting import until
from worker_helpers import Worker, alive

Start = Callable[..., Worker]


class Flow:
    """A submitted workflow run with jobs, on a JSM.

    jobs: command by name, or all of the job's fields.
    """

    def __init__(self, jsm: Any, jobs: dict[str, Any], **run: Any) -> None:
        self.jsm = jsm
        self.dag_id = jsm.call("add_task_dag", name="dag", user="ann", dag_hash="ab" * 20)["dag_id"]
        items = [
            {"name": name, "job_hash": str(number), **(job if isinstance(job, dict) else {"command": job})}
            for number, (name, job) in enumerate(jobs.items())
        ]
        jsm.call("add_jobs", dag_id=self.dag_id, jobs=items)
        workflow = {"workflow_args": "a", "workflow_hash": "h", "name": "wf", "user": "ann"}
        made = jsm.call("add_workflow", dag_id=self.dag_id, **workflow)
        self.workflow_id = made["workflow_dct"]["id"]
        body = {"user": "ann", "hostname": "login1", "pid": 1, "slack_channel": "", "project": None}
        body |= {"stdout": None, "stderr": None, "working_dir": None, **run}
        self.run_id = jsm.call("add_workflow_run", workflow_id=self.workflow_id, **body)["workflow_run_id"]
        jsm.call("submit_workflow_run", workflow_run_id=self.run_id)

    def claim(self) -> list[dict[str, Any]]:
        """Claim all that can be claimed."""
        answer = self.jsm.call("claim_jobs", executor_type="SlurmExecutor", workflow_run_id=self.run_id)
        instances: list[dict[str, Any]] = answer["job_instances"]
        return instances

    def end(self) -> dict[str, Any]:
        """What end_workflow_run says."""
        answer: dict[str, Any] = self.jsm.call("end_workflow_run", workflow_run_id=self.run_id)
        return answer


def start(start_worker: Start, jsm: Any, instance: dict[str, Any], *options: str, **env: str) -> Worker:
    options = ("--heartbeat-seconds", "0.5", *options)
    return start_worker(
        jsm, *options, job_instance_id=instance["job_instance_id"], **{"JOBMON_TOKEN": jsm.token, **env}
    )


def test_a_workflow_is_run(jsm: Any, db: Any, start_worker: Start, tmp_path: Path) -> None:
    flow = Flow(
        jsm,
        {
            "first": 'echo "$JOBMON_JOB_ID $JOBMON_ATTEMPT_NUMBER"; echo told >&2; pwd',
            "second": {"command": "true", "upstream_job_hashes": ["0"]},
        },
        stdout=str(tmp_path / "out"),
        stderr=str(tmp_path / "err"),
        working_dir=str(tmp_path),
    )
    [first] = flow.claim()
    worker = start(start_worker, jsm, first, SLURM_ARRAY_JOB_ID="17", SLURM_ARRAY_TASK_ID="3")
    assert worker.wait() == 0
    assert worker.log.read_text() == ""
    [second] = flow.claim()
    assert start(start_worker, jsm, second, JOB_ID="17", SGE_TASK_ID="undefined").wait() == 0
    assert flow.end() == {"counts": {"D": 2}, "status": "D", "workflow_status": "D"}
    out = tmp_path / "out" / f"first.o{first['job_instance_id']}"
    assert out.read_text() == f"{first['job_id']} 1\n{tmp_path}\n"
    assert (tmp_path / "err" / f"first.e{first['job_instance_id']}").read_text() == "told\n"
    rows = db.query(
        "SELECT status, nodename, executor_id, process_group_id > 0, wallclock, cpu, maxvmem, io"
        " FROM job_instance ORDER BY job_instance_id"
    )
    for row, executor_id in zip(rows, ("17_3", "17"), strict=True):
        assert row[:4] == ("D", os.uname().nodename, executor_id, 1)
        assert re.fullmatch(r"[\d.]+ [\d.]+ \d+K \d+\+\d+", " ".join(row[4:]))


def test_attempts_and_their_errors(jsm: Any, db: Any, start_worker: Start, tmp_path: Path) -> None:
    program = tmp_path / "say.py"
    program.write_text(
        "import os, sys\n"
        "os.write(2, 'größer 𝄞'.encode() + b' \\0 \\xff\\xfe \\x80 \\x1b[1m ' + b'x' * int(sys.argv[1]))\n"
        "os._exit(3)\n"
    )
    flow = Flow(jsm, {"job": {"command": f"{sys.executable} {program} 20", "max_attempts": 2}})
    for attempt in (1, 2):
        [instance] = flow.claim()
        assert instance["attempt_number"] == attempt
        assert start(start_worker, jsm, instance).wait() == 3
    assert flow.claim() == []
    assert flow.end() == {"counts": {"F": 1}, "status": "E", "workflow_status": "E"}
    texts = [row[0] for row in db.query("SELECT description FROM job_instance_error_log ORDER BY 1")]
    assert len(texts) == 2
    for text in texts:
        assert text.startswith("exit code 3\ngrößer 𝄞 ")
        assert text.endswith("x" * 20)
        assert "\ufffd\ufffd \ufffd \x1b[1m" in text


def test_a_killed_jobs_worker_stops(jsm: Any, db: Any, start_worker: Start) -> None:
    flow = Flow(jsm, {"job": {"command": "sleep 300", "max_attempts": 3}})
    [instance] = flow.claim()
    worker = start(start_worker, jsm, instance)
    until(lambda: db.query("SELECT 1 FROM job_instance WHERE status = 'R'"))
    [(group,)] = db.query("SELECT process_group_id FROM job_instance")
    assert alive(group)
    jsm.call("kill_job", job_id=instance["job_id"])
    assert worker.wait() == 76
    assert not alive(group)
    [(text,)] = db.query("SELECT description FROM job_instance_error_log")
    assert text.startswith("Killed by request")
    assert flow.end()["status"] == "E"


def test_a_superseded_workers_command_does_not_run_beside_the_next(
    jsm: Any, db: Any, start_worker: Start, tmp_path: Path
) -> None:
    flow = Flow(jsm, {"job": {"command": f"touch {tmp_path}/$$; sleep 300", "max_attempts": 3}})
    [first] = flow.claim()
    old = start(start_worker, jsm, first)
    until(lambda: db.query("SELECT 1 FROM job_instance WHERE status = 'R'"))
    jsm.call("reset_job", job_id=first["job_id"])
    jsm.call("submit_workflow_run", workflow_run_id=flow.run_id)
    [second] = flow.claim()
    new = start(start_worker, jsm, second)
    assert old.wait() == 76
    assert "told to stop: JOB_INSTANCE_" in old.log.read_text()
    until(lambda: db.query("SELECT 1 FROM job_instance WHERE status = 'R'"))
    # the old one, started late, or once more by a scheduler
    again = start(start_worker, jsm, first)
    assert again.wait() == 75
    assert new.process.poll() is None
    new.signal(signal.SIGTERM)
    assert new.wait() == 143
    until(lambda: db.query("SELECT 1 FROM job WHERE status = 'Q'"))
    texts = [row[0] for row in db.query("SELECT description FROM job_instance_error_log")]
    assert "the worker received signal 15 (SIGTERM): killed" in texts


def test_an_instance_that_never_ran_may_end_in_error(jsm: Any, db: Any, start_worker: Start) -> None:
    """The report of a worker that got a signal before its command was started is accepted."""
    flow = Flow(jsm, {"job": "true"})
    [instance] = flow.claim()
    report = {"job_instance_id": instance["job_instance_id"], "nodename": "node7", "wallclock": "0.000"}
    report["error_message"] = "the worker received signal 15 (SIGTERM) before the command was started"
    message = jsm.call("log_error", **report)["message"]
    assert message == f'{flow.dag_id} [{instance["job_id"]}, "F"]'
    assert start(start_worker, jsm, instance).wait() == 75


def test_a_token_that_is_wrong(jsm: Any, db: Any, start_worker: Start) -> None:
    flow = Flow(jsm, {"job": "true"})
    [instance] = flow.claim()
    worker = start(start_worker, jsm, instance, JOBMON_TOKEN="wrong")
    assert worker.wait() == 75
    assert "UNAUTHORIZED" in worker.log.read_text()
    assert [row[0] for row in db.query("SELECT status FROM job_instance")] == ["I"]


def test_jsm_is_restarted_while_a_command_runs(
    own_jsm: Any, db: Any, start_worker: Start, tmp_path: Path
) -> None:
    flow = Flow(own_jsm, {"job": f"while [ ! -e {tmp_path}/go_on ]; do sleep 0.05; done"})
    [instance] = flow.claim()
    worker = start(start_worker, own_jsm, instance, "--heartbeat-seconds", "30")
    until(lambda: db.query("SELECT 1 FROM job_instance WHERE status = 'R'"))
    [(group,)] = db.query("SELECT process_group_id FROM job_instance")
    own_jsm.stop()
    (tmp_path / "go_on").touch()
    until(lambda: not alive(group))
    until(lambda: "does not answer" in worker.log.read_text())
    own_jsm.start()
    assert worker.wait() == 0
    assert flow.end()["status"] == "D"


def test_many_workers_at_once(jsm: Any, db: Any, start_worker: Start) -> None:
    number = 16
    flow = Flow(jsm, {f"job{i}": "sleep 0.2" for i in range(number)})
    workers = [start(start_worker, jsm, instance) for instance in flow.claim()]
    assert [worker.wait() for worker in workers] == [0] * number
    assert flow.end() == {"counts": {"D": number}, "status": "D", "workflow_status": "D"}


def test_a_stopped_workflows_commands_may_end(jsm: Any, db: Any, start_worker: Start, tmp_path: Path) -> None:
    flow = Flow(jsm, {"job": f"while [ ! -e {tmp_path}/go_on ]; do sleep 0.05; done", "other": "exit 3"})
    first, second = flow.claim()
    worker = start(start_worker, jsm, first)
    until(lambda: db.query("SELECT 1 FROM job_instance WHERE status = 'R'"))
    jsm.call("stop_workflow", workflow_id=flow.workflow_id, kill=0)
    (tmp_path / "go_on").touch()
    assert worker.wait() == 0
    assert start(start_worker, jsm, second).wait() == 3


def test_a_stopped_workflows_commands_are_killed(jsm: Any, db: Any, start_worker: Start) -> None:
    flow = Flow(jsm, {"job": "sleep 300", "other": "sleep 300"})
    first, second = flow.claim()
    worker = start(start_worker, jsm, first)
    until(lambda: db.query("SELECT 1 FROM job_instance WHERE status = 'R'"))
    assert jsm.call("stop_workflow", workflow_id=flow.workflow_id, kill=1)["num_killed"] == 2
    assert worker.wait() == 76
    # the one that the scheduler starts only now
    assert start(start_worker, jsm, second).wait() == 75
