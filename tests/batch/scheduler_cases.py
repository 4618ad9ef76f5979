"""What holds on each real scheduler: the tests of Slurm and of Grid Engine run these."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence

from batch_helpers import Cluster

from jobmon.client.tasks import BashTask


def run_a_dag_of_300(cluster: Cluster) -> None:
    """Three layers of 100, each job after two of the layer above."""
    layers: list[list[BashTask]] = []
    for layer in range(3):
        layers.append([])
        for n in range(100):
            above = [layers[-2][n], layers[-2][(n + 1) % 100]] if layer else []
            layers[-1].append(BashTask(f"echo {layer} {n} >> log", upstream_tasks=above))
    result = cluster.run(cluster.workflow(*[task for layer_tasks in layers for task in layer_tasks]))
    assert result.status == "DONE"
    lines = (cluster.directory / "log").read_text().splitlines()
    assert Counter(lines) == Counter(f"{layer} {n}" for layer in range(3) for n in range(100))
    place = {line: at for at, line in enumerate(lines)}
    for layer in (1, 2):
        for n in range(100):
            assert place[f"{layer} {n}"] > place[f"{layer - 1} {n}"]
            assert place[f"{layer} {n}"] > place[f"{layer - 1} {(n + 1) % 100}"]
    assert cluster.instances("COUNT(*)") == [(300,)]
    assert cluster.db.audits() == {}


def stop_and_kill(cluster: Cluster, tasks: Sequence[BashTask]) -> None:
    """Of three tasks one runs and two wait: what is killed or stopped is cancelled on the scheduler."""
    cluster.serve()
    workflow = cluster.workflow(*tasks)
    workflow.submit()
    cluster.patiently(lambda: Counter(cluster.statuses().values()) == {"R": 1, "I": 2})
    cluster.patiently(lambda: len(cluster.jobs()) == 3)
    [(waiting,)] = cluster.db.query("SELECT job_id FROM job WHERE status = 'I' ORDER BY job_id LIMIT 1")
    cluster.requester.post("kill_job", job_id=waiting)
    cluster.patiently(lambda: len(cluster.jobs()) == 2)
    cluster.patiently(lambda: len(cluster.running()) == 1)
    cluster.requester.post("stop_workflow", workflow_id=workflow.workflow_id, kill=1)
    cluster.patiently(lambda: cluster.jobs() == [])
    assert cluster.db.audits() == {}


def leave_and_live_on(cluster: Cluster) -> None:
    """A service is told to leave: what runs on the scheduler goes on without it."""
    workflow = cluster.workflow("until [ -e go ]; do sleep 0.2; done; echo ran >> log")
    workflow.submit()
    service = cluster.process()
    cluster.patiently(lambda: set(cluster.statuses().values()) == {"R"})
    service.send_signal(signal.SIGTERM)
    assert service.wait(60) == 0
    cluster.patiently(lambda: len(cluster.running()) == 1)
    (cluster.directory / "go").touch()
    cluster.patiently(lambda: set(cluster.statuses().values()) == {"D"})
    assert (cluster.directory / "log").read_text() == "ran\n"
    assert cluster.errors() == []
