"""Workflows on the real Grid Engine: what runs there runs once, and what it says becomes the right state."""

from __future__ import annotations

import functools
import os
import shutil
import signal
import stat
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from batch_helpers import PATIENCE, patiently
from client_helpers import Services
from scheduler_cases import leave_and_live_on, run_a_dag_of_300, stop_and_kill
from sge_helpers import SgeCluster, find_qmaster

from jobmon.client.requester import Requester
from jobmon.client.tasks import BashTask
from jobmon.executors import sge
from jobmon.executors.scheduler import run_command

EATS = "python3 -c 'import time; x = bytearray(100 << 20); time.sleep(600)'"
ONE_AT_A_TIME = {"flags": "-tc 1"}


@pytest.fixture(scope="session")
def grid_engine() -> None:
    """Needs a Grid Engine to which jobs can be submitted: JOBMON_TEST_SGE=1 promises one."""
    reason = "no Grid Engine here: qsub is not installed"
    if shutil.which("qsub"):
        asked = subprocess.run(["qstat"], capture_output=True, text=True, timeout=60)
        reason = f"no Grid Engine here: {asked.stderr.strip()}" if asked.returncode else ""
    if reason and os.environ.get("JOBMON_TEST_SGE") == "1":
        pytest.fail(f"JOBMON_TEST_SGE=1, but {reason}", pytrace=False)
    if reason:
        pytest.skip(reason)


@pytest.fixture
def cluster(
    grid_engine: None, services: Services, requester: Requester, db: Any, tmp_path: Path
) -> Iterator[SgeCluster]:
    """Workflows and distributors on the real Grid Engine; what is left there is deleted."""
    made = SgeCluster(services, requester, db, tmp_path)
    yield made
    made.clean()


def statuses_by_job(cluster: SgeCluster) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, status in cluster.db.query(
        "SELECT job.name, job_instance.status FROM job_instance JOIN job USING (job_id)"
        " ORDER BY job_instance_id"
    ):
        found.setdefault(name, []).append(status)
    return found


def test_an_array_of_200(cluster: SgeCluster) -> None:
    result = cluster.run(cluster.workflow(*[f"echo {n} >> log" for n in range(200)]))
    assert result.status == "DONE"
    lines = (cluster.directory / "log").read_text().split()
    assert Counter(lines) == Counter(str(n) for n in range(200))
    rows = cluster.instances("executor_name, executor_id, status")
    [(first,)] = cluster.instances("MIN(job_instance_id)")
    number = rows[0][1].partition(".")[0]
    name = f"jobmon-{cluster.database_id}-{first}"
    assert Counter(rows) == Counter((f"{name}.{n}", f"{number}.{n + 1}", "D") for n in range(200))
    assert cluster.errors() == []
    assert cluster.db.audits() == {}


def test_a_dag_of_300(cluster: SgeCluster) -> None:
    run_a_dag_of_300(cluster)


def test_what_grid_engine_says_becomes_the_right_state(cluster: SgeCluster) -> None:
    """At once, since each takes its time."""

    def once(name: str, command: str, **options: Any) -> BashTask:
        """The command at the first attempt only."""
        return BashTask(f"[ -e {name} ] || {{ touch {name}; {command}; }}", name=name, **options)

    tasks = [
        once(
            "eats",
            f"for n in 1 2 3 4; do {EATS} & done; wait",
            mem_free=2,
            context_args={"flags": "-l h_vmem=400M"},
            resource_scales={"mem_free": 0.5},
        ),
        once(
            "slow",
            "sleep 600",
            max_runtime=1000,
            context_args={"flags": "-l h_rt=15"},
            resource_scales={"max_runtime": 1.0},
        ),
        once("deleted", "sleep 600", slots=2),
        once("worker_killed", "kill -9 $PPID; sleep 600"),
        once("too_long", "sleep 600", max_runtime=10, resource_scales={"max_runtime": 4}),
        BashTask(
            "echo x >> tries; [ $(wc -l < tries) -ge 3 ] || { echo not yet >&2; exit 4; }", name="flaky"
        ),
        BashTask("echo no way >&2; exit 3", name="doomed", max_attempts=2),
        # codes that mean something to Grid Engine
        BashTask("exit 99", name="code_99", max_attempts=1),
        BashTask("exit 100", name="code_100", max_attempts=1),
    ]
    tasks.append(BashTask("true", name="behind", upstream_tasks=[tasks[6]]))
    cluster.serve()
    workflow = cluster.workflow(*tasks)
    workflow.submit()
    patiently(lambda: (cluster.directory / "deleted").exists())
    [(number,)] = cluster.db.query(
        "SELECT executor_id FROM job_instance JOIN job USING (job_id) WHERE name = 'deleted'"
    )
    subprocess.run(["qdel", number], check=True, capture_output=True, timeout=60)
    result = workflow.wait(timeout=PATIENCE, progress=False)
    assert result.status == "ERROR"
    assert statuses_by_job(cluster) == {
        "eats": ["Z", "D"], "slow": ["Z", "D"], "deleted": ["E", "D"], "worker_killed": ["E", "D"],
        "too_long": ["Z", "D"], "flaky": ["E", "E", "D"], "doomed": ["E", "E"],
        "code_99": ["E"], "code_100": ["E"],
    }  # fmt: skip
    assert cluster.statuses() == {
        "eats": "D", "slow": "D", "deleted": "D", "worker_killed": "D", "too_long": "D", "flaky": "D",
        "doomed": "F", "code_99": "F", "code_100": "F", "behind": "G",
    }  # fmt: skip
    said = dict(
        cluster.db.query(
            "SELECT job.name, MIN(error_message) FROM job_instance JOIN job USING (job_id)"
            " WHERE error_message IS NOT NULL GROUP BY job.name"
        )
    )
    assert "memory limit exceeded" in said["eats"] and "of 400 MiB" in said["eats"]
    assert "time limit exceeded" in said["slow"] and "of 15 s" in said["slow"]
    assert "killed by somebody" in said["deleted"]
    assert f"Grid Engine job {number}: " in said["deleted"]
    assert said["too_long"].startswith("max_runtime of 10 s exceeded: killed")
    assert said["doomed"] == "exit code 3\nno way\n"
    assert (said["code_99"], said["code_100"]) == ("exit code 99", "exit code 100")
    resources = cluster.db.query(
        "SELECT name, mem_free, max_runtime FROM job WHERE mem_free_scale IS NOT NULL"
    )
    assert set(resources) == {("eats", 3, None)}
    resources = cluster.db.query("SELECT name, max_runtime FROM job WHERE max_runtime_scale IS NOT NULL")
    assert set(resources) == {("slow", 2000), ("too_long", 50)}
    patiently(lambda: cluster.jobs() == [])
    assert cluster.db.audits() == {}


def test_killed_between_submission_and_report(cluster: SgeCluster) -> None:
    """No job is lost and none is started twice: what waits is taken over, what runs reports by itself."""
    commands = [f"echo {n} >> log; sleep 4" for n in range(5)]
    workflow = cluster.workflow(*[BashTask(c, context_args=ONE_AT_A_TIME) for c in commands])
    workflow.submit()
    first = cluster.process(die_after_submit=True)
    assert first.wait(90) == -signal.SIGKILL
    assert all(name is not None for (name,) in cluster.instances("executor_name"))
    cluster.serve()
    result = workflow.wait(timeout=PATIENCE, progress=False)
    assert result.status == "DONE"
    assert Counter((cluster.directory / "log").read_text().split()) == Counter(str(n) for n in range(5))
    assert cluster.instances("COUNT(*), COUNT(DISTINCT executor_id)") == [(5, 5)]
    assert cluster.errors() == []
    assert cluster.db.audits() == {}


def test_the_qmaster_is_away_for_a_while(cluster: SgeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    qmaster = find_qmaster()
    monkeypatch.setattr(sge, "run_command", functools.partial(run_command, seconds=5))
    service = cluster.serve()
    wait = "until [ -e go ]; do sleep 0.2; done"
    workflow = cluster.workflow(f"{wait}; echo a >> log", f"{wait}; echo b >> log")
    workflow.submit()
    batch = service._batch
    assert batch is not None
    patiently(lambda: set(cluster.statuses().values()) == {"R"})
    os.kill(qmaster, signal.SIGSTOP)
    try:
        patiently(lambda: not batch._heard)
        cluster.workflow("echo c >> log").submit()  # it is not even claimed now
        (cluster.directory / "go").touch()
        patiently(lambda: Counter(cluster.statuses().values()) == {"D": 2, "Q": 1})  # workers need no qmaster
    finally:
        os.kill(qmaster, signal.SIGCONT)
    patiently(lambda: set(cluster.statuses().values()) == {"D"})
    assert sorted((cluster.directory / "log").read_text().split()) == ["a", "b", "c"]
    assert cluster.errors() == []
    assert cluster.instances("COUNT(*)") == [(3,)]


def test_submissions_that_are_rejected(cluster: SgeCluster) -> None:
    nowhere = BashTask("true", name="nowhere", max_attempts=1, context_args={"queue": "no-such.q"})
    large = BashTask("echo large", name="large", max_attempts=1, slots=10_000)
    result = cluster.run(cluster.workflow(nowhere, large, "echo fine >> log"), max_rejections=2)
    assert result.status == "ERROR"
    assert statuses_by_job(cluster) == {"nowhere": ["W"], "large": ["W"], "echo fine >> log": ["D"]}
    errors = cluster.errors()
    words = 'Job was rejected because job requests unknown queue "no-such.q"'
    assert f"The submission was rejected by Grid Engine: {words}" in errors
    assert f"Not submitted: rejected by Grid Engine: {words}" in errors
    assert "Not submitted: rejected by Grid Engine: error: no suitable queues" in errors
    assert cluster.db.audits() == {}


def test_what_cannot_be_started_is_told(cluster: SgeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """Grid Engine keeps such a task, in error, until somebody deletes it."""
    gone = cluster.directory / "gone"
    monkeypatch.setattr(sge, "_directory", lambda: str(gone))
    cluster.serve()
    workflow = cluster.workflow(BashTask("true", name="lost", max_attempts=1))
    workflow.submit()
    assert workflow.wait(timeout=PATIENCE, progress=False).status == "ERROR"
    assert statuses_by_job(cluster) == {"lost": ["E"]}
    assert any(f"can't chdir to {gone}" in text for text in cluster.errors())
    patiently(lambda: cluster.jobs() == [])


def test_stop_and_kill_cancel_on_the_scheduler(cluster: SgeCluster) -> None:
    stop_and_kill(
        cluster,
        [BashTask(f"sleep 60{n}", name=f"j{n}", context_args=ONE_AT_A_TIME) for n in range(3)],
    )


def test_nobody_sees_the_token(cluster: SgeCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    """All users can read a job's description, and often its script and the list of processes."""
    secret = cluster.services.config.token or "none"
    monkeypatch.setenv("JOBMON_TOKEN", secret)
    cluster.serve(flags="-V")
    cluster.workflow("sleep 600").submit()
    patiently(lambda: set(cluster.statuses().values()) == {"R"})
    [number] = patiently(cluster.running)
    shown = subprocess.run(["qstat", "-j", number.partition(".")[0]], capture_output=True, text=True).stdout
    assert "env_list" in shown
    assert secret not in shown or secret == "none"
    assert "JOBMON_" not in shown
    [group] = cluster.instances("process_group_id")
    stat_line = Path(f"/proc/{group[0]}/stat").read_text()
    worker = Path(f"/proc/{stat_line.rpartition(')')[2].split()[1]}/cmdline").read_bytes()
    assert b"jobmon.worker" in worker
    assert secret.encode() not in worker
    [settings] = (cluster.directory / "batch").glob("worker-*.json")
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600


def test_a_service_leaves_and_its_jobs_live_on(cluster: SgeCluster) -> None:
    leave_and_live_on(cluster)
