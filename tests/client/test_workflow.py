"""Workflows against real services: registered, run, resumed, and refused."""

from __future__ import annotations

import hashlib
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from jobmon import AttributeType, BashTask, PythonTask, Requester, Workflow, WorkflowResult
from jobmon.client import workflow as module
from jobmon.client.errors import (
    CyclicWorkflow,
    InvalidTask,
    InvalidWorkflow,
    JobmonError,
    MissingUpstream,
    RequestRefused,
    WorkflowAlreadyComplete,
    WorkflowAlreadyRunning,
    WorkflowExists,
)
from jobmon.client.result import JOB_LABELS, RUN_LABELS
from jobmon.executors.local import LocalExecutor

Make = Callable[..., Workflow]
TABLES = ("task_dag", "job", "job_edge", "workflow", "workflow_run", "job_instance", "job_attribute")


def count(db: Any, table: str) -> int:
    return int(db.query(f"SELECT COUNT(*) FROM {table}")[0][0])


def counts(db: Any) -> dict[str, int]:
    return {table: count(db, table) for table in TABLES}


def diamond() -> list[BashTask]:
    top = BashTask("echo top >> log", name="top")
    left = BashTask("echo left >> log", name="left", upstream_tasks=[top])
    right = BashTask("echo right >> log", name="right", upstream_tasks=[top])
    return [top, left, right, BashTask("echo end >> log", name="end", upstream_tasks=[left, right])]


def gated(directory: Path, max_attempts: int = 1) -> list[BashTask]:
    """A job that is done, one that fails as long as there is no file `open`, and one after it."""
    first = BashTask(f"echo first >> {directory}/log", name="first")
    gate = BashTask(
        f"echo gate >> {directory}/log; test -e {directory}/open || {{ echo the gate is shut >&2; exit 3; }}",
        name="gate", upstream_tasks=[first], max_attempts=max_attempts,
    )  # fmt: skip
    return [first, gate, BashTask(f"echo last >> {directory}/log", name="last", upstream_tasks=[gate])]


def log(directory: Path) -> list[str]:
    return (directory / "log").read_text().split()


# ----------------------------------------------------------------------------------------------------------
# Registering


def test_bind_registers_jobs_and_edges_and_runs_nothing(make_workflow: Make, db: Any) -> None:
    workflow = make_workflow("v1", name="sims", description="what it does", priority=3)
    workflow.add_tasks(diamond())
    workflow_id = workflow.bind()
    assert db.query("SELECT name, workflow_args, description, status FROM workflow") == [
        ("sims", "v1", "what it does", "C")
    ]
    assert (workflow.workflow_id, workflow.dag_id) == (
        workflow_id,
        db.query("SELECT dag_id FROM task_dag")[0][0],
    )
    assert db.query("SELECT priority FROM task_dag") == [(3,)]
    assert db.query("SELECT name, status, max_attempts FROM job ORDER BY job_id") == [
        (name, "G", 3) for name in ("top", "left", "right", "end")
    ]
    assert sorted(
        db.query(
            "SELECT up.name, down.name FROM job_edge JOIN job AS up ON up.job_id = upstream_job_id"
            " JOIN job AS down ON down.job_id = downstream_job_id"
        )
    ) == [("left", "end"), ("right", "end"), ("top", "left"), ("top", "right")]
    assert count(db, "workflow_run") == 0


def test_hashes_are_those_of_emu(make_workflow: Make, db: Any) -> None:
    workflow = make_workflow("v1")
    workflow.add_tasks([BashTask("true")])
    workflow.bind()
    job_hash = hashlib.sha1(b"true").hexdigest()
    dag_hash = hashlib.sha1(job_hash.encode()).hexdigest()
    assert db.query("SELECT job_hash FROM job") == [(str(int(job_hash, 16)),)]
    assert db.query("SELECT dag_hash FROM task_dag") == [(dag_hash,)]
    expected = hashlib.sha1(b"v1" + dag_hash.encode()).hexdigest()
    assert db.query("SELECT workflow_hash FROM workflow") == [(expected,)]


def test_bind_finds_what_is_there(make_workflow: Make, db: Any) -> None:
    ids = set()
    for _ in range(2):
        workflow = make_workflow("v1")
        workflow.add_tasks(diamond())
        ids.add(workflow.bind())
        ids.add(workflow.bind())
    assert len(ids) == 1
    before = counts(db)
    for args, tasks in (("v2", diamond()), ("v1", diamond()[:3])):
        workflow = make_workflow(args)
        workflow.add_tasks(tasks)
        ids.add(workflow.bind())
    assert len(ids) == 3
    assert count(db, "task_dag") == before["task_dag"] + 2


def test_workflow_args_are_compared_exactly(make_workflow: Make) -> None:
    ids = []
    for args in ("v1", "V1", "v1 ", "v1ä", "v1a"):
        workflow = make_workflow(args)
        workflow.add_tasks(diamond())
        ids.append(workflow.bind())
    assert len(set(ids)) == 5


def test_bind_takes_few_calls(make_workflow: Make, requester: Requester) -> None:
    workflow = make_workflow("v1")
    workflow.add_tasks(BashTask(f"echo {number}") for number in range(2500))
    workflow.bind()
    assert requester.num_calls == 1 + 1 + 3 + 1  # looks, add_task_dag, add_jobs, add_workflow


def test_without_workflow_args_each_workflow_is_a_new_one(make_workflow: Make, db: Any) -> None:
    for workflow_args in (None, None, ""):
        workflow = make_workflow(workflow_args)
        workflow.add_tasks(diamond())
        workflow.bind()
    assert count(db, "workflow") == 3


def test_what_can_not_be_is_refused_before_anything_is_written(make_workflow: Make, db: Any) -> None:
    a, b = BashTask("echo a", name="a"), BashTask("echo b", name="b")
    circle = make_workflow("circle")
    a.add_upstream(b)
    b.add_upstream(a)
    circle.add_tasks([a, b])
    missing = make_workflow("missing")
    missing.add_task(BashTask("echo c", upstream_tasks=[BashTask("echo d", name="d")]))
    for workflow, error in ((circle, CyclicWorkflow), (missing, MissingUpstream)):
        for call in (workflow.bind, workflow.run, workflow.submit):
            with pytest.raises(error):
                call()
    with pytest.raises(InvalidWorkflow, match="no tasks"):
        make_workflow("empty").run()
    assert set(counts(db).values()) == {0}


@pytest.mark.parametrize(
    "options",
    [
        {"workflow_args": 5},
        {"workflow_args": "\udcff"},
        {"name": "x" * 151},
        {"project": 5},
        {"slack_channel": "x" * 151},
        {"stdout": 5},
        {"stderr": "x" * 1001},
        {"priority": "high"},
    ],
)
def test_arguments_that_can_not_be_are_refused(make_workflow: Make, options: dict[str, Any]) -> None:
    with pytest.raises(InvalidWorkflow):
        make_workflow(**options)


@pytest.mark.parametrize("options", [{"max_concurrently_running": 0}, {"stale_after_seconds": "soon"}])
def test_options_of_a_run_are_checked(make_workflow: Make, db: Any, options: dict[str, Any]) -> None:
    workflow = make_workflow()
    workflow.add_tasks(diamond())
    with pytest.raises(InvalidWorkflow, match=next(iter(options))):
        workflow.submit(**options)
    assert count(db, "task_dag") == 0


def test_an_unknown_executor_is_refused(make_workflow: Make, db: Any) -> None:
    workflow = make_workflow()
    workflow.add_tasks(diamond())
    with pytest.raises(JobmonError, match="no executor 'cloud'"):
        workflow.run("cloud")
    assert count(db, "task_dag") == 0


def test_tasks_that_change_after_bind_are_refused(make_workflow: Make) -> None:
    tasks = diamond()
    workflow = make_workflow()
    workflow.add_tasks(tasks)
    workflow.bind()
    workflow.add_task(BashTask("true"))
    with pytest.raises(InvalidWorkflow, match="changed since it was bound"):
        workflow.run()
    other = make_workflow("v2")
    other.add_tasks(tasks)
    other.bind()
    tasks[2].add_upstream(tasks[1])
    with pytest.raises(InvalidWorkflow, match="changed since it was bound"):
        other.bind()


def test_tasks_may_be_in_several_workflows(make_workflow: Make, tmp_path: Path) -> None:
    tasks = diamond()
    for args in ("v1", "v2"):
        workflow = make_workflow(args)
        workflow.add_tasks(tasks)
        assert workflow.run(progress=False)
    assert len(log(tmp_path)) == 8


def test_attributes(make_workflow: Make, db: Any) -> None:
    for _ in range(2):
        workflow = make_workflow()
        workflow.add_workflow_attribute("NUM_DRAWS", 1000)
        workflow.add_workflow_attribute(AttributeType.TAG, "blue")
        workflow.add_workflow_attribute(AttributeType.TAG, "green")
        workflow.add_task(BashTask("true", job_attributes={"NUM_YEARS": 30, "TAG": "x"}))
        workflow.bind()
        workflow.bind()
    found = db.query("SELECT attribute_type, value FROM workflow_attribute ORDER BY workflow_attribute_id")
    assert found == [(2, "1000"), (8, "blue"), (8, "green")]
    assert sorted(db.query("SELECT attribute_type, value FROM job_attribute")) == [(4, "30"), (8, "x")]
    workflow.add_workflow_attribute("NUM_YEARS", 3)
    workflow.bind()
    assert count(db, "workflow_attribute") == 4
    with pytest.raises(InvalidTask, match="NUM_DRAWS takes a whole number"):
        workflow.add_workflow_attribute("NUM_DRAWS", "many")


def test_resource_scales(make_workflow: Make, db: Any) -> None:
    workflow = make_workflow()
    workflow.add_task(BashTask("echo 1", resource_scales={"mem_free": 0.1 + 0.2, "max_runtime": 999.999}))
    workflow.add_task(BashTask("echo 2"))
    workflow.bind()
    found = db.query("SELECT mem_free_scale, max_runtime_scale FROM job ORDER BY job_id")
    assert [tuple(map(str, row)) for row in found] == [("0.300", "999.999"), ("None", "None")]


def test_an_attribute_type_that_the_database_does_not_know(make_workflow: Make) -> None:
    workflow = make_workflow()
    workflow.add_task(BashTask("true", job_attributes={77: "x"}))
    with pytest.raises(RequestRefused, match="UNKNOWN_ATTRIBUTE_TYPE"):
        workflow.bind()


def test_names_and_labels_are_those_of_the_database(db: Any) -> None:
    types = [(int(member), member.name) for member in AttributeType]
    for owner in ("job", "workflow", "workflow_run"):
        found = db.query(f"SELECT attribute_type, name FROM {owner}_attribute_type ORDER BY attribute_type")
        assert found == types
    texts = db.query("SELECT name FROM job_attribute_type WHERE value_type <> 'int'")
    assert texts == [("TAG",)]
    assert dict(db.query("SELECT status, label FROM job_status")) == JOB_LABELS
    assert dict(db.query("SELECT status, label FROM workflow_run_status")) == RUN_LABELS


def test_a_call_that_is_too_large_is_divided(make_workflow: Make, db: Any) -> None:
    workflow = make_workflow()
    post, sizes = workflow.requester.post, []

    def small(route: str, **body: Any) -> dict[str, Any]:
        if route == "add_jobs":
            sizes.append(len(body["jobs"]))
            if len(body["jobs"]) > 3:
                raise RequestRefused("BODY_TOO_LARGE", "too large", "", 413)
        return post(route, **body)

    workflow.requester.post = small  # type: ignore[method-assign]
    tasks = diamond()
    workflow.add_tasks([*tasks, *(BashTask(f"echo {n}", upstream_tasks=tasks[:1]) for n in range(6))])
    workflow.bind()
    assert count(db, "job") == 10 and count(db, "job_edge") == 10
    assert sizes == [10, 5, 2, 3, 5, 2, 3]


def test_a_job_with_many_upstreams(make_workflow: Make, db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobmon.client.dag.MAX_EDGES", 100)
    tasks = [BashTask(f"echo {number}") for number in range(350)]
    workflow = make_workflow()
    workflow.add_tasks([*tasks, BashTask("echo last", upstream_tasks=tasks)])
    workflow.bind()
    assert count(db, "job") == 351 and count(db, "job_edge") == 350
    assert db.query("SELECT upstreams_pending FROM job_gate") == [(350,)]


def test_20_000_tasks_are_bound(make_workflow: Make, db: Any) -> None:
    first = BashTask("echo first")
    tasks = [BashTask(f"echo {number}", upstream_tasks=[first]) for number in range(20_000)]
    workflow = make_workflow()
    workflow.add_tasks([first, *tasks])
    cpu = time.process_time()
    workflow.bind()
    assert time.process_time() - cpu < 20  # a few tenths where nothing else runs
    assert count(db, "job") == 20_001 and count(db, "job_edge") == 20_000


# ----------------------------------------------------------------------------------------------------------
# Running


def test_a_run(make_workflow: Make, db: Any, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    workflow = make_workflow("v1", name="sims", stdout=out, stderr=out, project="proj", slack_channel="#sims")
    workflow.add_tasks(diamond())
    workflow.add_task(PythonTask(script=write_script(tmp_path), args=["a b"], name="script"))
    result = workflow.run(progress=False)
    assert result and result.status == "DONE" and result.counts == {"DONE": 5} and result.errors == []
    assert (result.workflow_id, result.dag_id) == (workflow.workflow_id, workflow.dag_id)
    assert result.workflow_run_id == workflow.workflow_run_id
    assert result.name == "sims" and 0 < result.seconds < 60 and result.note == ""
    lines = log(tmp_path)
    assert lines[0] == "top" and lines[-1] == "end" and sorted(lines) == ["end", "left", "right", "top"]
    assert db.query("SELECT status FROM workflow") == db.query("SELECT status FROM workflow_run") == [("D",)]
    columns = "hostname, pid, stdout, stderr, working_dir, project, slack_channel, executor_class"
    assert db.query(f"SELECT {columns} FROM workflow_run") == [
        (
            socket.gethostname(),
            os.getpid(),
            str(out),
            str(out),
            str(tmp_path),
            "proj",
            "#sims",
            "LocalExecutor",
        )
    ]
    (printed,) = out.glob("script.o*")
    assert printed.read_text() == f"a b in {tmp_path}\n"
    assert db.audits() == {}


def write_script(directory: Path) -> Path:
    script = directory / "script.py"
    script.write_text("import os, sys; print(sys.argv[1], 'in', os.getcwd())")
    return script


def test_commands_run_where_the_program_runs(
    requester: Requester, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    workflow = Workflow("v1", requester=requester)
    workflow.add_task(BashTask("pwd > where"))
    assert workflow.run(progress=False)
    assert (tmp_path / "where").read_text() == f"{tmp_path}\n"


def test_a_run_that_fails(make_workflow: Make, db: Any, tmp_path: Path) -> None:
    workflow = make_workflow(name="gated")
    workflow.add_tasks(gated(tmp_path, max_attempts=2))
    result = workflow.run(progress=False)
    assert not result and result.status == "ERROR"
    assert result.counts == {"REGISTERED": 1, "ERROR_FATAL": 1, "DONE": 1}
    (failed,) = result.errors
    assert (failed.name, failed.num_attempts) == ("gate", 2)
    assert "exit code 3" in failed.message and "the gate is shut" in failed.message
    assert str(failed) == "gate (attempt 2): exit code 3: the gate is shut"
    text = str(result)
    assert f"Workflow {result.workflow_id} 'gated', run {result.workflow_run_id}: ERROR\n" in text
    assert "1 of 3 jobs DONE, 1 REGISTERED, 1 ERROR_FATAL" in text
    assert "  gate (attempt 2): exit code 3: the gate is shut" in text
    assert "gate is shut" not in repr(result) and "status='ERROR'" in repr(result)
    assert db.query("SELECT status FROM workflow") == [("E",)]


def test_long_messages_of_the_first_failed_jobs_are_whole(
    make_workflow: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobmon.client.result.MAX_WHOLE", 1)
    workflow = make_workflow()
    for number in range(2):
        workflow.add_task(
            BashTask(
                f"for i in $(seq 500); do echo line $i >&2; done; echo the reason >&2; exit {number + 1}",
                max_attempts=1,
            )
        )
    first, second = workflow.run(progress=False).errors
    assert first.message.endswith("the reason") or first.message.endswith("the reason\n")
    assert len(second.message) == 1000
    assert str(first).endswith("exit code 1: the reason")


def test_what_a_result_shows_is_bounded() -> None:
    from jobmon import FailedJob

    errors = [FailedJob(n, f"job_{n}", 1, "") for n in range(30)]
    result = WorkflowResult("ERROR", {"ERROR_FATAL": 30}, errors, 1, 2, 3, "many", 0.5)
    lines = str(result).splitlines()
    assert len(lines) == 2 + 10 + 1 and lines[-1] == "  ... and 20 more"
    assert lines[2] == "  job_0 (attempt 1): no message"


def test_max_concurrently_running(make_workflow: Make, db: Any, tmp_path: Path) -> None:
    workflow = make_workflow()
    workflow.add_tasks(
        BashTask(f"echo + >> log; sleep 0.2; echo - >> log; : {number}") for number in range(8)
    )
    assert workflow.run(LocalExecutor(max_workers=8), max_concurrently_running=2, progress=False)
    running, most = 0, 0
    for sign in log(tmp_path):
        running += 1 if sign == "+" else -1
        most = max(most, running)
    assert most <= 2
    assert db.query("SELECT max_concurrently_running FROM task_dag") == [(2,)]


def test_the_local_executor_runs_as_many_as_may_run(make_workflow: Make, tmp_path: Path) -> None:
    # each waits until all five have started
    command = "touch started.{0}; until test $(ls started.* | wc -l) -ge 5; do sleep 0.05; done"
    workflow = make_workflow()
    workflow.add_tasks(BashTask(command.format(number), max_runtime=60) for number in range(5))
    assert workflow.run(max_concurrently_running=5, progress=False)


def test_progress_as_a_function(make_workflow: Make, tmp_path: Path) -> None:
    seen: list[dict[str, int]] = []

    def see(counts: dict[str, int]) -> None:
        seen.append(counts)
        if counts.get("RUNNING"):
            (tmp_path / "seen").touch()

    workflow = make_workflow()
    workflow.add_tasks(diamond())
    workflow.add_task(BashTask("until test -e seen; do sleep 0.05; done", max_runtime=60, max_attempts=1))
    assert workflow.run(progress=see)
    assert all(sum(counts.values()) == 5 and set(counts) <= set(JOB_LABELS.values()) for counts in seen)
    assert any(counts.get("RUNNING") for counts in seen)


def test_progress_takes_few_calls(make_workflow: Make, requester: Requester) -> None:
    workflow = make_workflow()
    workflow.add_task(BashTask("sleep 3"))
    before = requester.num_calls
    workflow.run(progress=lambda counts: None)
    assert requester.num_calls - before < 60


# ----------------------------------------------------------------------------------------------------------
# Resuming


def test_resume_leaves_what_is_done_and_starts_the_rest_anew(
    make_workflow: Make, db: Any, tmp_path: Path
) -> None:
    first = make_workflow()
    first.add_tasks(gated(tmp_path))
    assert first.run(progress=False).status == "ERROR"
    assert log(tmp_path) == ["first", "gate"]
    (tmp_path / "open").touch()
    again = make_workflow()
    again.add_tasks(gated(tmp_path))
    result = again.run(progress=False)
    assert result and result.workflow_id == first.workflow_id
    assert result.workflow_run_id != first.workflow_run_id
    assert log(tmp_path) == ["first", "gate", "gate", "last"]
    assert count(db, "workflow") == 1 and count(db, "job") == 3
    assert db.query("SELECT status FROM workflow_run ORDER BY workflow_run_id") == [("E",), ("D",)]
    assert db.audits() == {}


def test_resume_by_the_same_object(make_workflow: Make, tmp_path: Path) -> None:
    workflow = make_workflow()
    workflow.add_tasks(gated(tmp_path))
    assert not workflow.run(progress=False)
    result = workflow.run(progress=False)
    assert result.status == "ERROR" and result.errors[0].num_attempts == 1
    (tmp_path / "open").touch()
    assert workflow.run(progress=False)
    with pytest.raises(WorkflowAlreadyComplete):
        workflow.run(progress=False)


def test_a_complete_workflow_is_refused_whatever_resume_says(make_workflow: Make, db: Any) -> None:
    workflow = make_workflow(name="sims")
    workflow.add_tasks(diamond())
    workflow.run(progress=False)
    again = make_workflow(name="sims")
    again.add_tasks(diamond())
    for resume in (True, False):
        for call in (again.run, again.submit):
            with pytest.raises(
                WorkflowAlreadyComplete, match=rf"Workflow {workflow.workflow_id} 'sims'.*DONE"
            ) as caught:
                call(resume=resume)
            assert "workflow_args" in caught.value.hint
    assert count(db, "workflow_run") == 1


def test_no_resume(make_workflow: Make, db: Any, tmp_path: Path) -> None:
    workflow = make_workflow(name="gated")
    workflow.add_tasks(gated(tmp_path))
    workflow.bind()  # registered, never run: nothing to resume
    assert workflow.run(resume=False, progress=False).status == "ERROR"
    with pytest.raises(WorkflowExists, match="'gated' ran before, and is ERROR") as caught:
        workflow.run(resume=False)
    assert "resume=True" in caught.value.hint
    assert count(db, "workflow_run") == 1


def test_a_living_run_is_named(make_workflow: Make, db: Any) -> None:
    workflow = make_workflow(name="sims")
    workflow.add_tasks(diamond())
    run_id = workflow.submit()  # nobody works on it
    again = make_workflow(name="sims")
    again.add_tasks(diamond())
    with pytest.raises(WorkflowAlreadyRunning) as caught:
        again.run()
    assert f"run {run_id} is alive" in caught.value.message
    assert f"host {socket.gethostname()}, process {os.getpid()}" in caught.value.message
    assert "try again" in caught.value.hint
    assert db.query("SELECT status FROM workflow_run") == [("R",)]


def test_a_stale_run_is_superseded(make_workflow: Make, db: Any) -> None:
    workflow = make_workflow()
    workflow.add_tasks(diamond())
    workflow.submit()
    again = make_workflow()
    again.add_tasks(diamond())
    until(lambda: age(db) > 1.2)
    with pytest.raises(WorkflowAlreadyRunning):
        again.run(stale_after_seconds=3600)
    assert again.run(stale_after_seconds=1, progress=False)
    assert db.query("SELECT status FROM workflow_run ORDER BY workflow_run_id") == [("S",), ("D",)]
    assert workflow.wait(progress=False).note == f"superseded by run {again.workflow_run_id}"


def age(db: Any) -> float:
    ((seconds,),) = db.query("SELECT seconds_since_heartbeat FROM workflow_runs")
    return float(seconds)


def fake_run(requester: Requester, workflow: Workflow, **changes: Any) -> int:
    """A live run of another process."""
    body = {
        "user": "ann",
        "hostname": socket.gethostname(),
        "pid": 1,
        "executor_class": "LocalExecutor",
        **changes,
    }
    answer = requester.post("add_workflow_run", workflow_id=workflow.bind(), **body)
    return int(answer["workflow_run_id"])


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_a_run_whose_process_is_gone_is_superseded_at_once(make_workflow: Make, requester: Requester) -> None:
    workflow = make_workflow()
    workflow.add_tasks(diamond())
    fake_run(requester, workflow, pid=dead_pid())
    assert workflow.run(progress=False)


def test_a_run_that_this_process_gave_up_is_superseded_at_once(
    make_workflow: Make, requester: Requester
) -> None:
    workflow = make_workflow()
    workflow.add_tasks(diamond())
    fake_run(requester, workflow, pid=os.getpid())
    assert workflow.run(progress=False)


@pytest.mark.parametrize(
    "changes",
    [
        {"pid": os.getppid()},  # lives
        {"pid": 2**40},  # can't be seen
        {"hostname": "elsewhere", "pid": "dead"},  # no process of ours
        {"executor_class": None, "pid": "dead"},  # a distributor elsewhere does the work
    ],
)
def test_a_run_that_may_live_is_left_alone(
    make_workflow: Make, requester: Requester, db: Any, changes: dict[str, Any]
) -> None:
    if changes["pid"] == "dead":
        changes = {**changes, "pid": dead_pid()}
    workflow = make_workflow()
    workflow.add_tasks(diamond())
    fake_run(requester, workflow, **changes)
    with pytest.raises(WorkflowAlreadyRunning):
        workflow.run(progress=False)
    assert db.query("SELECT status FROM workflow_run") == [("R",)]


def test_another_thread_of_this_process_is_alive(make_workflow: Make, tmp_path: Path) -> None:
    tasks = [BashTask("until test -e go; do sleep 0.05; done", max_runtime=60)]
    workflow = make_workflow()
    workflow.add_tasks(tasks)
    results: list[WorkflowResult] = []
    thread = threading.Thread(target=lambda: results.append(workflow.run(progress=False)))
    thread.start()
    until(lambda: workflow.workflow_run_id in module._own_live_runs)
    again = make_workflow()
    again.add_tasks(tasks)
    with pytest.raises(WorkflowAlreadyRunning):
        again.run(progress=False)
    (tmp_path / "go").touch()
    thread.join(60)
    assert results[0].status == "DONE"
    assert not module._own_live_runs


# ----------------------------------------------------------------------------------------------------------
# Submitting


def test_submit_queues_and_wait_waits(make_workflow: Make, requester: Requester, db: Any) -> None:
    from jobmon.distributor import Distributor

    workflow = make_workflow()
    workflow.add_tasks(diamond())
    run_id = workflow.submit(max_concurrently_running=7)
    assert run_id == workflow.workflow_run_id
    assert db.query("SELECT name FROM job WHERE status = 'Q'") == [("top",)]
    assert db.query("SELECT executor_class, submitted_date IS NOT NULL FROM workflow_run") == [(None, 1)]
    assert db.query("SELECT max_concurrently_running FROM task_dag") == [(7,)]
    waited = workflow.wait(timeout=0.3, progress=False)
    assert not waited and waited.status == "RUNNING" and waited.note == ""
    service = Distributor(requester, LocalExecutor(2))
    thread = threading.Thread(target=service.run)
    thread.start()
    try:
        result = workflow.wait(timeout=120, progress=False)
    finally:
        service.drain()
        thread.join(60)
    assert result and result.counts == {"DONE": 4}


def test_wait_needs_a_run(make_workflow: Make) -> None:
    with pytest.raises(InvalidWorkflow, match="not submitted"):
        make_workflow().wait()


def test_a_run_that_somebody_stops(make_workflow: Make, requester: Requester, tmp_path: Path) -> None:
    workflow = make_workflow()
    workflow.add_tasks([BashTask("touch started; until test -e go; do sleep 0.05; done", max_runtime=60)])
    workflow.add_task(BashTask("true", upstream_tasks=workflow.tasks))
    results: list[WorkflowResult] = []
    thread = threading.Thread(target=lambda: results.append(workflow.run(progress=False)))
    thread.start()
    until((tmp_path / "started").exists)
    requester.post("stop_workflow", workflow_id=workflow.workflow_id)
    (tmp_path / "go").touch()
    thread.join(60)
    (result,) = results
    assert result.status == "STOPPED" and result.note == "by another program" and not result
    assert "STOPPED (by another program)" in str(result)
    assert workflow.run(progress=False)
