"""Everything at once: all procedures at random from many connections, and afterwards no rule was broken."""

from __future__ import annotations

import random
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import pytest
from race_helpers import Database, Refused, Team, jobs_of, make_dag

CONNECTIONS, CALLS = 8, 250


@dataclass
class World:
    """What the callers know of, and which of their changes were acknowledged."""

    dags: list[int]
    workflows: list[int]
    jobs: list[int]
    instances: list[int] = field(default_factory=list)
    runs: list[int] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)
    acknowledged: dict[str, list[Any]] = field(default_factory=lambda: defaultdict(list))
    refused: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))


def layers(prefix: str) -> list[dict[str, Any]]:
    """Jobs in three layers, each with a few upstream jobs in the layer above."""
    chance = random.Random(prefix)
    jobs = jobs_of(24, prefix=prefix, max_attempts=2)
    for n, job in enumerate(jobs[8:], start=8):
        above = jobs[(n // 8 - 1) * 8 : n // 8 * 8]
        job["upstream_job_hashes"] = [one["job_hash"] for one in chance.sample(above, 3)]
    return jobs


class Caller:
    """One connection that calls procedures at random."""

    def __init__(self, race: Database, world: World, seed: int, *, resets: bool) -> None:
        self.race, self.world, self.chance = race, world, random.Random(seed)
        self.actions = [self.report] * 10 + [self.batch] * 6 + [self.claim] * 4 + [self.queue] * 2
        self.actions += [self.instance, self.grow, self.heartbeat, self.run, self.expire, self.retry]
        self.actions += [self.submit, self.end, self.stop, self.kill]
        if resets:
            self.actions += [self.reset, self.reset_all]
        self.conn: Any = None

    def __call__(self, conn: Any) -> None:
        self.conn = conn
        for _ in range(CALLS):
            self.chance.choice(self.actions)()

    def call(self, procedure: str, **arguments: Any) -> Any:
        """A call; what it was answered is kept. None if it was refused."""
        try:
            document = self.race.call(self.conn, procedure, **arguments)
        except Refused as refusal:
            assert 400 <= refusal.http_status < 500, refusal
            with self.world.lock:
                self.world.refused[procedure].add(refusal.name)
            return None
        with self.world.lock:
            self.world.acknowledged[procedure].append((arguments, document))
        return document

    def any_instance(self) -> int:
        """Most often a recent one."""
        known = self.world.instances
        if not known:
            return 1
        return self.chance.choice(known[-30:] if self.chance.random() < 0.8 else known)

    def report(self) -> None:
        others = ("log_usage", "log_nodename", "log_job_instance_heartbeat")
        procedure = self.chance.choice(
            [
                *["log_running", "log_done"] * 2,
                "start_job_instance",
                "log_error",
                "log_executor_id",
                "log_warning",
                *list(others),
            ]
        )
        more = {
            "log_error": {"error_message": "no", "job_instance_status": self.chance.choice("EEZU")},
            "log_warning": {"error_message": self.chance.choice("ab")},
            "log_executor_id": {"executor_id": "7"},
            "log_usage": {"cpu": "1"},
            "log_nodename": {"nodename": "node7"},
        }
        self.call(procedure, job_instance_id=self.any_instance(), **more.get(procedure, {}))

    def batch(self) -> None:
        events = []
        for _ in range(self.chance.randint(1, 12)):
            event = self.chance.choice([*["running", "done"] * 3, "error", "heartbeat", "usage", "warning"])
            one = {"event": event, "job_instance_id": self.any_instance()}
            if event in ("error", "warning"):
                one["error_message"] = "no"
            if event == "error":
                one["job_instance_status"] = self.chance.choice("EWZU")
            events.append(one)
        self.call("log_events", events=events)

    def claim(self) -> None:
        dag_id = self.chance.choice([None, *self.world.dags])
        key = f"{self.chance.getrandbits(64):x}" if self.chance.random() < 0.3 else None
        document = self.call(
            "claim_jobs",
            executor_type="Race",
            dag_id=dag_id,
            max_jobs=self.chance.randint(1, 6),
            lease_seconds=self.chance.choice([0, 1, 600]),
            request_key=key,
        )
        with self.world.lock:
            self.world.instances += [one["job_instance_id"] for one in document["job_instances"]]

    def instance(self) -> None:
        document = self.call(
            "add_job_instance", job_id=self.chance.choice(self.world.jobs), executor_type="Emu"
        )
        if document:
            with self.world.lock:
                self.world.instances.append(document["job_instance_id"])

    def queue(self) -> None:
        if self.chance.random() < 0.5:
            self.call("queue_job", job_id=self.chance.choice(self.world.jobs))
        else:
            self.call("queue_jobs", dag_id=self.chance.choice(self.world.dags), max_jobs=5)

    def grow(self) -> None:
        """Jobs that are there already for the most part: three sets for each dag."""
        dag_id = self.chance.choice(self.world.dags)
        document = self.call("add_jobs", dag_id=dag_id, jobs=layers(f"layer{self.chance.randint(0, 2)}-"))
        with self.world.lock:
            self.world.jobs += sorted(set(document["job_ids"]) - set(self.world.jobs))

    def heartbeat(self) -> None:
        self.call("log_heartbeat", dag_id=self.chance.choice(self.world.dags))

    def run(self) -> None:
        if self.world.runs and self.chance.random() < 0.5:
            run = self.chance.choice(self.world.runs[-4:])
            self.call("update_workflow_run", wfr_id=run, status=self.chance.choice("SED"))
            return
        document = self.call(
            "add_workflow_run",
            workflow_id=self.chance.choice(self.world.workflows),
            user="ann",
            hostname="h",
            pid=1,
        )
        if document:
            with self.world.lock:
                self.world.runs.append(document["workflow_run_id"])

    def submit(self) -> None:
        if self.world.runs:
            run = self.chance.choice(self.world.runs[-4:])
            self.call("submit_workflow_run", workflow_run_id=run, max_jobs=self.chance.choice([None, 3]))

    def end(self) -> None:
        if self.world.runs and self.chance.random() < 0.5:
            self.call("end_workflow_run", workflow_run_id=self.chance.choice(self.world.runs[-4:]))
        else:
            self.call("end_workflow_runs")

    def stop(self) -> None:
        if self.chance.random() < 0.3:
            workflow_id = self.chance.choice(self.world.workflows)
            self.call("stop_workflow", workflow_id=workflow_id, kill=self.chance.randint(0, 1))

    def kill(self) -> None:
        self.call("kill_job", job_id=self.chance.choice(self.world.jobs))

    def expire(self) -> None:
        self.call("expire_job_instances", max_job_instances=5)

    def retry(self) -> None:
        self.call("retry_job", job_id=self.chance.choice(self.world.jobs))

    def reset(self) -> None:
        self.call("reset_job", job_id=self.chance.choice(self.world.jobs))

    def reset_all(self) -> None:
        if self.chance.random() < 0.2:
            self.call("reset_incomplete_jobs", dag_id=self.chance.choice(self.world.dags))


def nothing_lost(race: Database, world: World) -> None:
    """Every acknowledged change is in the history."""
    had = defaultdict(set)
    for instance, status in race.query("SELECT job_instance_id, status FROM job_instance_status_log"):
        had[instance].add(status)
    letters = {"log_running": "R", "start_job_instance": "R", "log_done": "D", "log_error": ""}
    for procedure, known in letters.items():
        for arguments, _ in world.acknowledged[procedure]:
            letter = known or arguments["job_instance_status"]
            assert letter in had[arguments["job_instance_id"]], (procedure, arguments)
    for arguments, document in world.acknowledged["log_events"]:
        for event, outcome in zip(arguments["events"], document["outcomes"], strict=True):
            reached = letters.get(f"log_{event['event']}")
            if outcome["code"] == "OK" and reached is not None:
                assert (reached or event["job_instance_status"]) in had[event["job_instance_id"]], event
    expired = [document for _, document in world.acknowledged["expire_job_instances"]]
    ended = [one for document in expired for one in document["job_instance_ids"]]
    assert len(ended) == len(set(ended))
    assert all("E" in had[one] for one in ended)
    # Every instance that there is was told to exactly one caller.
    assert len(world.instances) == len(set(world.instances))
    assert set(world.instances) == {one for (one,) in race.query("SELECT job_instance_id FROM job_instance")}
    sql = "SELECT job_instance_id FROM job_instance WHERE executor_id = '7'"
    with_id = {one for (one,) in race.query(sql)}
    for arguments, _ in world.acknowledged["log_executor_id"]:
        assert arguments["job_instance_id"] in with_id
    assert set(world.runs) == {one for (one,) in race.query("SELECT workflow_run_id FROM workflow_run")}
    assert set(world.jobs) == {one for (one,) in race.query("SELECT job_id FROM job")}
    # No instance ended twice.
    twice = race.query(
        "SELECT job_instance_id FROM job_instance_status_log WHERE status IN ('D', 'E', 'W', 'Z', 'U')"
        " GROUP BY job_instance_id HAVING COUNT(*) > 1"
    )
    assert twice == []


@pytest.mark.parametrize("resets", [False, True], ids=["forward", "with resets"])
def test_everything_at_once(race: Database, resets: bool) -> None:
    conn = race.connect()
    world = World([make_dag(race, conn, limit) for limit in (None, 4, None)], [], [])
    for n, dag_id in enumerate(world.dags):
        document = race.call(
            conn, "add_workflow", dag_id=dag_id, workflow_args="", workflow_hash=f"h{n}", name="w", user="ann"
        )
        world.workflows.append(document["workflow_dct"]["id"])
        world.jobs += race.call(conn, "add_jobs", dag_id=dag_id, jobs=layers("layer0-"))["job_ids"]
        race.call(conn, "queue_jobs", dag_id=dag_id)
    with Team(race, CONNECTIONS) as team:
        team.each(*(Caller(race, world, seed, resets=resets) for seed in range(CONNECTIONS)))
    print({name: sorted(names) for name, names in sorted(world.refused.items())})
    assert len(world.acknowledged["log_done"]) > 5
    nothing_lost(race, world)

    # Nothing is stuck: what is live can be given up, what waits can be run.
    for dag_id in world.dags:
        race.call(conn, "reset_incomplete_jobs", dag_id=dag_id)
    left = {status for (status,) in race.query("SELECT DISTINCT status FROM job")}
    assert left <= {"G", "D"}
    assert race.value("SELECT COUNT(*) FROM job_instance WHERE status IN ('I', 'B', 'R')") == 0
