"""Workflows on the real Slurm: each job runs once, and what Slurm says of it becomes the right state."""

from __future__ import annotations

import os
import re
import signal
import stat
import subprocess
import threading
from collections import Counter
from pathlib import Path

from batch_helpers import PATIENCE, Cluster, cannot, patiently
from scheduler_cases import leave_and_live_on, run_a_dag_of_300, stop_and_kill

from jobmon.client.tasks import BashTask

EATS_MEMORY = "python3 -c 'import time; x = bytearray(300 << 20); time.sleep(600)'"


def test_an_array_of_200(cluster: Cluster) -> None:
    result = cluster.run(cluster.workflow(*[f"echo {n} >> log" for n in range(200)]))
    assert result.status == "DONE"
    lines = (cluster.directory / "log").read_text().split()
    assert Counter(lines) == Counter(str(n) for n in range(200))
    names = cluster.instances("executor_name, executor_id, status")
    first = cluster.instances("MIN(job_instance_id)")[0][0]
    prefix = f"jobmon-{cluster.database_id}-{first}"
    assert {name for name, _, _ in names} == {f"{prefix}.{n}" for n in range(200)}
    array = names[0][1].partition("_")[0]
    assert Counter(names) == Counter((f"{prefix}.{n}", f"{array}_{n}", "D") for n in range(200))
    assert cluster.db.audits() == {}


def test_the_token_reaches_the_workers_only(cluster: Cluster) -> None:
    """Without it no report would be taken; and it is neither in the script nor in the job's description."""
    cluster.serve()
    cluster.workflow("sleep 600").submit()
    patiently(lambda: set(cluster.statuses().values()) == {"R"})
    [number] = patiently(cluster.running)
    token = cluster.services.config.token
    assert token
    shown = subprocess.run(["scontrol", "show", "job", number], capture_output=True, text=True).stdout
    script = subprocess.run(
        ["scontrol", "write", "batch_script", number, "-"], capture_output=True, text=True
    )
    assert "JOBMON_RC=" in script.stdout
    assert token not in shown and token not in script.stdout
    [settings] = (cluster.directory / "batch").glob("worker-*.json")
    assert token in settings.read_text()
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600
    for directory in (settings.parent, settings.parent / "logs"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    [nodes] = cluster.instances("process_group_id")
    [parent] = re.findall(r"^PPid:\s*(\d+)", Path(f"/proc/{nodes[0]}/status").read_text(), re.MULTILINE)
    worker = Path(f"/proc/{parent}/cmdline").read_bytes()
    assert b"jobmon.worker" in worker and token.encode() not in worker


def test_what_slurm_says_becomes_the_right_state(cluster: Cluster) -> None:
    """At once, since each takes its time: exit codes, out of memory, the time limit, scancel."""
    eats = BashTask(
        f"[ -e eaten ] || {{ touch eaten; {EATS_MEMORY}; }}",
        name="eats",
        mem_free=2,
        context_args={"flags": "--mem=60M"},
        resource_scales={"mem_free": 0.5},
    )
    slow = BashTask(
        "[ -e slow ] || { touch slow; sleep 600; }",
        name="slow",
        max_runtime=1000,
        resource_scales={"max_runtime": 1.0},
    )
    cancelled = BashTask("[ -e cancelled ] || { touch cancelled; sleep 600; }", name="cancelled")
    flaky = BashTask(
        "echo x >> tries; [ $(wc -l < tries) -ge 3 ] || { echo not yet >&2; exit 4; }", name="flaky"
    )
    doomed = BashTask("echo no way >&2; exit 3", name="doomed", max_attempts=2)
    behind = BashTask("true", name="behind", upstream_tasks=[doomed])
    cluster.serve()
    workflow = cluster.workflow(eats, slow, cancelled, flaky, doomed, behind)
    workflow.submit()
    for name, command in (
        ("slow", ["scontrol", "update", "job={}", "EndTime=now+1"]),
        ("cancelled", ["scancel", "{}"]),
    ):
        patiently(lambda name=name: (cluster.directory / name).exists())  # type: ignore[misc]
        [(number,)] = cluster.db.query(
            "SELECT executor_id FROM job_instance JOIN job USING (job_id) WHERE name = %s", [name]
        )
        subprocess.run([word.format(number) for word in command], check=True, timeout=60)
    result = workflow.wait(timeout=PATIENCE, progress=False)
    assert result.status == "ERROR"
    assert cluster.statuses() == {
        "eats": "D", "slow": "D", "cancelled": "D", "flaky": "D", "doomed": "F", "behind": "G",
    }  # fmt: skip
    rows = cluster.db.query(
        "SELECT job.name, job_instance.status, error_message FROM job_instance JOIN job USING (job_id)"
        " ORDER BY job_instance_id"
    )
    found: dict[str, list[str]] = {}
    for name, status, _ in rows:
        found.setdefault(name, []).append(status)
    assert found == {
        "eats": ["Z", "D"], "slow": ["Z", "D"], "cancelled": ["E", "D"], "flaky": ["E", "E", "D"],
        "doomed": ["E", "E"],
    }  # fmt: skip
    said = {name: message for name, status, message in reversed(rows) if status != "D"}
    assert "memory limit exceeded" in said["eats"]
    assert "TIMEOUT" in said["slow"]
    assert "CANCELLED" in said["cancelled"]
    assert said["doomed"] == "exit code 3\nno way\n"
    resources = cluster.db.query("SELECT name, mem_free, max_runtime FROM job WHERE name IN ('eats', 'slow')")
    assert set(resources) == {("eats", 3, None), ("slow", 2, 2000)}
    assert cluster.db.audits() == {}


def test_a_dag_of_300(cluster: Cluster) -> None:
    run_a_dag_of_300(cluster)


def test_killed_between_submission_and_report(cluster: Cluster) -> None:
    """No job is lost and none is started twice: what waits is taken over, what runs reports by itself."""
    size = 5
    command = "until [ -e go ]; do sleep 0.2; done; sleep 4"
    # one at a time
    tasks = [BashTask(f"echo {n} >> log; {command}", slots=cluster.cpus) for n in range(size)]
    workflow = cluster.workflow(*tasks)
    workflow.submit()
    first = cluster.process(die_after_submit=True)
    assert first.wait(90) == -signal.SIGKILL
    assert len(cluster.jobs()) == size
    (cluster.directory / "go").touch()
    ids = cluster.instances("executor_id, executor_name")
    assert all(name is not None for _, name in ids)
    cluster.serve()
    result = workflow.wait(timeout=PATIENCE, progress=False)
    assert result.status == "DONE"
    assert Counter((cluster.directory / "log").read_text().split()) == Counter(str(n) for n in range(size))
    assert cluster.instances("COUNT(*), COUNT(DISTINCT executor_id)") == [(size, size)]
    assert cluster.errors() == []
    assert cluster.db.audits() == {}


def test_the_controller_is_away_for_a_while(cluster: Cluster) -> None:
    config = subprocess.run(["scontrol", "show", "config"], capture_output=True, text=True, timeout=60).stdout
    found = re.search(r"^SlurmctldPidFile\s*=\s*(\S+)", config, re.MULTILINE)
    assert found is not None
    try:
        pid = int(Path(found[1]).read_text())
        os.kill(pid, 0)
    except (OSError, ValueError) as error:
        cannot(f"slurmctld can't be stopped from here: {error}")
    service = cluster.serve()
    wait = "until [ -e go ]; do sleep 0.2; done"
    cluster.workflow(f"{wait}; echo a >> log", f"{wait}; echo b >> log").submit()
    batch = service._batch
    assert batch is not None
    patiently(lambda: set(cluster.statuses().values()) == {"R"})
    os.kill(pid, signal.SIGSTOP)
    try:
        patiently(lambda: not batch._heard)
        cluster.workflow("echo c >> log").submit()  # it is not even claimed now
        (cluster.directory / "go").touch()  # workers need no scheduler
        patiently(lambda: Counter(cluster.statuses().values()) == {"D": 2, "Q": 1})
    finally:
        os.kill(pid, signal.SIGCONT)
    patiently(lambda: set(cluster.statuses().values()) == {"D"})
    assert sorted((cluster.directory / "log").read_text().split()) == ["a", "b", "c"]
    assert cluster.errors() == []
    assert cluster.instances("COUNT(*)") == [(3,)]


def test_a_submission_that_is_rejected(cluster: Cluster) -> None:
    task = BashTask("true", name="nowhere", max_attempts=1, context_args={"queue": "no-such-partition"})
    result = cluster.run(cluster.workflow(task, "echo fine >> log"), max_rejections=2)
    assert result.status == "ERROR"
    rows = cluster.db.query("SELECT name, job_instance.status FROM job_instance JOIN job USING (job_id)")
    assert set(rows) == {("nowhere", "W"), ("echo fine >> log", "D")}
    words = "sbatch: error: Batch job submission failed: Invalid partition name specified"
    warning, error = sorted(cluster.errors(), reverse=True)
    assert warning.startswith("The submission was rejected by Slurm: ") and words in warning
    assert error.startswith("Not submitted: rejected by Slurm: ") and words in error
    assert cluster.db.audits() == {}


def test_stop_and_kill_cancel_on_the_scheduler(cluster: Cluster) -> None:
    stop_and_kill(cluster, [BashTask(f"sleep 60{n}", name=f"j{n}", slots=cluster.cpus) for n in range(3)])


def test_a_stopped_run_leaves_nothing_on_the_scheduler(cluster: Cluster) -> None:
    tasks = [BashTask(f"sleep 60{n}", slots=cluster.cpus) for n in range(3)]
    workflow = cluster.workflow(*tasks)

    def stopper() -> None:
        patiently(lambda: len(cluster.jobs()) == 3)
        cluster.requester.post("stop_workflow", workflow_id=workflow.workflow_id, kill=1)

    thread = threading.Thread(target=stopper)
    thread.start()
    result = cluster.run(workflow)
    thread.join()
    assert result.status == "STOPPED"
    patiently(lambda: cluster.jobs() == [])


def test_a_service_leaves_and_its_jobs_live_on(cluster: Cluster) -> None:
    leave_and_live_on(cluster)
