"""A real scheduler with workflows and distributors on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from client_helpers import Services
from waiting import until

from jobmon.client.requester import Requester
from jobmon.client.tasks import BashTask
from jobmon.client.workflow import Workflow
from jobmon.distributor import Distributor
from jobmon.executors import make_executor

PATIENCE = 400.0  # seconds: others may use the scheduler, too


def patiently(condition: Callable[[], Any]) -> Any:
    """Wait until it is true; what it gave."""
    return until(condition, seconds=PATIENCE)


def cannot(reason: str) -> None:
    """Skip a test, or fail where JOBMON_TEST_SLURM=1 promises a Slurm."""
    if os.environ.get("JOBMON_TEST_SLURM") == "1":
        pytest.fail(f"JOBMON_TEST_SLURM=1, but {reason}", pytrace=False)
    pytest.skip(reason)


DISTRIBUTE = """
import json, logging, os, signal, sys
from jobmon.client.requester import Requester
from jobmon.distributor import Distributor
from jobmon.executors import make_executor
logging.basicConfig(level=logging.INFO)
given = json.loads(sys.argv[1])
executor = make_executor(given.pop("executor"), options=given.pop("options"))
scheduler = type(executor._scheduler)
if given.pop("die_after_submit", False):
    submit = scheduler.submit
    def die(self, submission):
        submit(self, submission)
        os.kill(os.getpid(), signal.SIGKILL)
    scheduler.submit = die
signal.signal(signal.SIGTERM, lambda *_: distributor.drain())
distributor = Distributor(Requester(), executor, **given)
print(distributor.run())
"""


class Cluster:
    """Workflows and distributors on the real Slurm."""

    executor = "slurm"
    patiently = staticmethod(patiently)

    def __init__(self, services: Services, requester: Requester, db: Any, directory: Path) -> None:
        self.services, self.requester, self.db, self.directory = services, requester, db, directory
        self.database_id = requester.post("get_database_id")["database_id"]
        self.options = {
            "batch_dir": str(directory / "batch"),
            "worker_host": "127.0.0.1",
            "reconcile_seconds": 2,
            "rejected_seconds": 0.2,
            "heartbeat_seconds": 10,  # a lease is four times that: there is time to ask why a task is over
        }
        self.processes: list[subprocess.Popen[str]] = []
        self.background: list[tuple[Distributor, threading.Thread]] = []

    @property
    def cpus(self) -> int:
        """CPUs of the node: a task that needs all runs alone."""
        return int(
            subprocess.run(["sinfo", "-h", "-o", "%c"], capture_output=True, text=True).stdout.split()[0]
        )

    def workflow(self, *tasks: Any, **options: Any) -> Workflow:
        """A workflow of tasks, or of commands."""
        made = Workflow(working_dir=self.directory, requester=self.requester, **options)
        made.add_tasks([task if isinstance(task, BashTask) else BashTask(task) for task in tasks])
        return made

    def run(self, workflow: Workflow, **options: Any) -> Any:
        """Run it from here, to its end."""
        options = {**self.options, **options}
        return workflow.run(self.executor, executor_options=options, progress=False)

    def serve(self, lease_seconds: int = 30, **options: Any) -> Distributor:
        """A service on a thread."""
        executor = make_executor(self.executor, options={**self.options, **options})
        made = Distributor(self.requester, executor, lease_seconds=lease_seconds)
        thread = threading.Thread(target=made.run, daemon=True)
        thread.start()
        self.background.append((made, thread))
        return made

    def process(self, lease_seconds: int = 30, **given: Any) -> subprocess.Popen[str]:
        """A service as a process."""
        given = {
            "executor": self.executor,
            "lease_seconds": lease_seconds,
            "options": self.options,
            **given,
        }
        environ = {**self.services.environ, "JOBMON_TOKEN": str(self.services.config.token)}
        log = (self.directory / f"distributor{len(self.processes)}.log").open("w")
        with log:
            made = subprocess.Popen(
                [sys.executable, "-c", DISTRIBUTE, json.dumps(given)],
                env=environ, stdout=log, stderr=log, text=True,
            )  # fmt: skip
        self.processes.append(made)
        return made

    def jobs(self) -> list[tuple[str, str]]:
        """Ids and states of this database's tasks in squeue."""
        out = subprocess.run(
            ["squeue", "-h", "-r", "-o", "%i %T %j"], capture_output=True, text=True, timeout=60
        )
        rows = [line.split(" ", 2) for line in out.stdout.splitlines()]
        return [(number, state) for number, state, name in rows if f"-{self.database_id}-" in name]

    def running(self) -> list[str]:
        return [number for number, state in self.jobs() if state == "RUNNING"]

    def statuses(self) -> dict[str, str]:
        return dict(self.db.query("SELECT name, status FROM job"))

    def instances(self, columns: str) -> list[tuple[Any, ...]]:
        rows: list[tuple[Any, ...]] = self.db.query(
            f"SELECT {columns} FROM job_instance ORDER BY job_instance_id"
        )
        return rows

    def errors(self) -> list[str]:
        rows = self.db.query("SELECT description FROM job_instance_error_log ORDER BY 1")
        return [text for (text,) in rows]

    def clean(self) -> None:
        for distributor, _ in self.background:
            distributor.kill()
        for process in self.processes:
            process.kill()
            process.wait()
        for _, thread in self.background:
            thread.join(30)
        ids = [number for number, _ in self.jobs()]
        if ids:
            self.cancel(ids)
            self.patiently(lambda: not self.jobs())

    def cancel(self, ids: list[str]) -> None:
        subprocess.run(["scancel", *ids], capture_output=True, timeout=60)
