"""kill -9 of everything while a workflow runs: every job comes to its right end, and no command runs twice at
the same time.

The sequence of kills is random; a failed test tells its seed, and JOBMON_CHAOS_SEED makes it again.
"""

from __future__ import annotations

import json
import os
import random
import secrets
import subprocess
import sys
import threading
import time
from contextlib import closing
from pathlib import Path

from chaos_helpers import (
    Chaos,
    Job,
    Records,
    World,
    check_history,
    check_records,
    make_jobs,
    right_ends,
)

from jobmon import BashTask, Requester, Workflow

CHAOS_SECONDS = 50.0
WORKER_CHAOS_SECONDS = 20.0
CALM_SECONDS = 240.0
LEASE_SECONDS = 4
WORKER_LEASE_SECONDS = 6
MAX_WORKERS = 6
MIN_KILLS = 10

CLIENT = """
import functools, json, sys, time
import jobmon.distributor
from jobmon import BashTask, Workflow
from jobmon.client.errors import WorkflowAlreadyRunning
plan = json.load(open(sys.argv[1]))
jobmon.distributor.Distributor = functools.partial(
    jobmon.distributor.Distributor, lease_seconds=plan["lease_seconds"], heartbeat_seconds=1)
workflow, tasks = Workflow("chaos", working_dir=plan["working_dir"]), {}
for job in plan["jobs"]:
    upstreams = [tasks[name] for name in job.pop("upstreams")]
    tasks[job["name"]] = workflow.add_task(BashTask(**job, upstream_tasks=upstreams))
while True:
    try:
        result = workflow.run(stale_after_seconds=3, progress=False)
    except WorkflowAlreadyRunning as error:
        print(error, flush=True)
        time.sleep(0.5)
        continue
    print(result, flush=True)
    if result.status in ("DONE", "ERROR"):
        break
"""


def chaos_random() -> random.Random:
    """What decides; its seed is printed, so that it stands in the report of a failure."""
    seed = int(os.environ.get("JOBMON_CHAOS_SEED") or (1 if os.environ.get("CI") else secrets.randbits(32)))
    print(f"JOBMON_CHAOS_SEED={seed}")
    return random.Random(seed)


def check_all(world: World, records: Records, jobs: list[Job]) -> None:
    """Every job has its right end, the workflow too, and nothing happened on the way that must not."""
    check_records(world, records, jobs)
    check_history(world)
    assert world.audits() == {}
    assert set(right_ends(jobs).values()) == {"D", "F", "G"}
    runs = [status for (status,) in world.query("SELECT status FROM workflow_run ORDER BY workflow_run_id")]
    assert world.query("SELECT status FROM workflow") == [("E",)]
    assert runs[-1] == "E" and set(runs) <= {"E", "S"}
    assert world.commands() == {}, "commands that nobody watches over"


def test_a_workflow_survives(world: World, tmp_path: Path) -> None:
    """A client, two distributors, the services and the database; 300 jobs."""
    randomly = chaos_random()
    jobs = make_jobs(randomly, 10, 30, flaky=30, doomed=6)
    records = Records(tmp_path / "work")
    plan = {
        "lease_seconds": LEASE_SECONDS,
        "working_dir": str(records.directory),
        "jobs": [
            {"name": j.name, "command": j.command, "max_attempts": j.max_attempts, "upstreams": j.upstreams}
            for j in jobs
        ],
    }
    (tmp_path / "plan.json").write_text(json.dumps(plan))
    (tmp_path / "client.py").write_text(CLIENT)
    client = world.add("client", [str(tmp_path / "client.py"), str(tmp_path / "plan.json")], may_end=True)
    service = ["-m", "jobmon.cli", "start", "distributor", "--max-workers", "2"]
    for name in ("distributor1", "distributor2"):
        world.add(name, [*service, "--lease-seconds", str(LEASE_SECONDS)])

    def watch() -> None:
        assert world.audits() == {}
        assert records.twice() == {}

    chaos = Chaos(
        world,
        randomly,
        victims=["client", "client", "distributor1", "distributor2", "command", "jsm", "jqs", "database"],
        others={"command": lambda: world.kill_command(randomly)},
        sleepers=["client", "distributor1", "distributor2"],
        pauses=(0.3, 3),
        watch=watch,
    )
    try:
        chaos.go_on(CHAOS_SECONDS, until=client.has_ended)
        chaos.calm(client.has_ended, CALM_SECONDS)
    finally:
        print(chaos.describe(records))
    check_all(world, records, jobs)
    assert sum(chaos.num_kills.values()) >= MIN_KILLS


class Workers:
    """What a batch system does: starts a worker for each job instance of a run, and forgets it.

    Parameters:
        workflow_run_id: the run.
    """

    def __init__(self, world: World, requester: Requester, workflow_run_id: int) -> None:
        self.status = "R"
        self.error: Exception | None = None
        self._world, self._requester, self._workflow_run_id = world, requester, workflow_run_id
        self._live: list[subprocess.Popen[bytes]] = []
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def kill_one(self, randomly: random.Random) -> bool:
        """kill -9 of a worker, not of its guard; whether there was one."""
        with self._lock:
            live = [worker for worker in self._live if worker.poll() is None]
            if live:
                randomly.choice(live).kill()
        return bool(live)

    def end(self) -> None:
        """Start no more, and kill those that are left."""
        self.status = "ended"
        self._thread.join(120)
        for worker in self._live:
            worker.kill()
            worker.wait()

    def have_ended(self) -> bool:
        """Whether the run has ended."""
        assert self.error is None, self.error
        return self.status != "R" and not self._thread.is_alive()

    def _work(self) -> None:
        try:
            while self.status == "R":
                self._turn()
                time.sleep(0.1)
        except Exception as error:
            self.error = error

    def _turn(self) -> None:
        post, run = self._requester.post, self._workflow_run_id
        with self._lock:
            self._live = [worker for worker in self._live if worker.poll() is None]
        room = MAX_WORKERS - len(self._live)
        if room:
            claim = {"executor_type": "Workers", "max_jobs": room, "lease_seconds": WORKER_LEASE_SECONDS}
            key = secrets.token_hex(16)
            for instance in post("claim_jobs", **claim, workflow_run_id=run, request_key=key)[
                "job_instances"
            ]:
                self._start(instance["job_instance_id"])
        post("expire_job_instances")
        status = post("end_workflow_run", workflow_run_id=run)["status"]
        if self.status == "R":
            self.status = status

    def _start(self, job_instance_id: int) -> None:
        # Leases last four times that, so that no command outlives its lease, or that of its killed worker.
        options = ["--heartbeat-seconds", "1.5", "--kill-after", "1"]
        with self._lock, (self._world.directory / "worker.log").open("ab") as log:
            self._live.append(
                subprocess.Popen(
                    [sys.executable, "-m", "jobmon.worker", str(job_instance_id), *options],
                    env=self._world.environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True,
                )
            )  # fmt: skip


def test_workers_are_killed(world: World, tmp_path: Path) -> None:
    """Every job instance has a worker process, as on a cluster; 60 jobs."""
    randomly = chaos_random()
    jobs = make_jobs(randomly, 5, 12, flaky=8, doomed=2)
    records = Records(tmp_path / "work")
    with closing(Requester(world.config)) as requester:
        workflow, tasks = Workflow("chaos", working_dir=records.directory, requester=requester), {}
        for job in jobs:
            upstreams = [tasks[name] for name in job.upstreams]
            task = BashTask(
                job.command, name=job.name, max_attempts=job.max_attempts, upstream_tasks=upstreams
            )
            tasks[job.name] = workflow.add_task(task)
        workers = Workers(world, requester, workflow.submit())

        def watch() -> None:
            assert world.audits() == {}
            assert records.twice() == {}

        chaos = Chaos(
            world,
            randomly,
            victims=["worker"] * 10 + ["jsm", "database"],
            others={"worker": lambda: workers.kill_one(randomly)},
            sleepers=[],
            pauses=(0.2, 1),
            watch=watch,
        )
        try:
            chaos.go_on(WORKER_CHAOS_SECONDS, until=workers.have_ended)
            chaos.calm(workers.have_ended, CALM_SECONDS)
        finally:
            print(chaos.describe(records))
            workers.end()
    check_all(world, records, jobs)
    assert chaos.num_kills["worker"] >= 3
