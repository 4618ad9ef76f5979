"""A scheduler that is only played, with a batch executor on it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from jobmon.config import load_config
from jobmon.executors.batch import BatchExecutor
from jobmon.executors.batch_options import BatchOptions
from jobmon.executors.scheduler import Ended, Listed, Scheduler, Submission

DATABASE = "0a1b2c3d"
PREFIX = f"jobmon-{DATABASE}-"


class PlayedScheduler(Scheduler):
    """A scheduler in memory: ``listed`` and ``records`` is what it has, ``fail`` errors of next calls."""

    name = "PlayedExecutor"
    label = "Play"

    def __init__(self) -> None:
        self.listed: dict[str, Listed] = {}
        self.records: dict[str, Ended] = {}
        self.submissions: list[Submission] = []
        self.cancelled: list[str] = []
        self.calls: list[str] = []
        self.fail: dict[str, list[Exception]] = {}
        self.takes_silently = False
        self.next_id = 100

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.fail.get(name):
            raise self.fail[name].pop(0)

    def submit(self, submission: Submission) -> Sequence[str]:
        if not self.takes_silently:
            self._call("submit")
        self.submissions.append(submission)
        array = self.next_id
        self.next_id += 1
        ids = [f"{array}_{task}" for task in range(submission.size)]
        for task, number in enumerate(ids):
            self.listed[number] = Listed(number, submission.name, task, "pending")
        if self.takes_silently:
            self._call("submit")
        return ids

    def list_tasks(self) -> Sequence[Listed]:
        self._call("list")
        return list(self.listed.values())

    def ended(self, executor_ids: Collection[str]) -> Mapping[str, Ended]:
        self._call("ended")
        return {number: self.records[number] for number in executor_ids if number in self.records}

    def cancel(self, executor_ids: Collection[str]) -> None:
        self._call("cancel")
        self.cancelled += sorted(executor_ids)

    def start(self, number: str) -> None:
        self.listed[number] = dataclasses.replace(self.listed[number], state="running")

    def forget(self, number: str, **record: Any) -> None:
        """A task is over; with a record: what is remembered of it."""
        gone = self.listed.pop(number)
        if record:
            given = {"name": gone.name, "task": gone.task, "status": "E", "message": "over", **record}
            self.records[number] = Ended(**given)


class Play:
    """A batch executor on a played scheduler, its distributor, database and clock; all on one thread."""

    def __init__(
        self, directory: Path, monkeypatch: Any, max_workers: int | None = None, **options: Any
    ) -> None:
        self.now = 1000.0
        clock = SimpleNamespace(monotonic=lambda: self.now, time=time.time, sleep=self.sleep)
        monkeypatch.setattr("jobmon.executors.batch.time", clock)
        self.scheduler = PlayedScheduler()
        self.directory = directory
        options = {"batch_dir": directory, "worker_command": "worker", **options}
        self.executor = BatchExecutor(self.scheduler, max_workers, BatchOptions.parse(options))
        self.config = dataclasses.replace(load_config(env={"HOME": str(directory)}), token="s3cret")
        self.executor.prepare(self.config, DATABASE, "jsm.example", dag_id=None)
        self.rows: dict[int, dict[str, Any]] = {}
        self.errors: dict[int, dict[str, Any]] = {}
        self.warnings: list[tuple[int, str]] = []
        self.refuse: set[int] = set()
        self.look()

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def add(self, number: int, **fields: Any) -> dict[str, Any]:
        """A row of get_live_job_instances."""
        row = {
            "job_instance_id": number, "dag_id": 1, "status": "I", "executor_id": None,
            "executor_name": f"{PREFIX}{number}.0", "lease_left_seconds": 50.0, **fields,
        }  # fmt: skip
        self.rows[number] = row
        return row

    def claim(self, *numbers: int, **fields: Any) -> None:
        """The distributor claims job instances."""
        instances = []
        for number in numbers:
            self.add(number, executor_name=None)
            instances.append(
                {
                    "job_instance_id": number, "dag_id": 1, "slots": 1, "mem_free": 2, "max_runtime": None,
                    "context_args": None, "project": None, "start_until": self.now + 60, **fields,
                }
            )  # fmt: skip
        self.executor.submit(instances)

    def report(self) -> None:
        """The distributor sends the reports."""
        accepted, given_up = [], []
        for event in self.executor.collect():
            number = event["job_instance_id"]
            if number in self.refuse or number not in self.rows:
                given_up.append(number)
                continue
            accepted.append(event)
            row = self.rows[number]
            row.update({key: event[key] for key in ("executor_id", "executor_name") if key in event})
            if event["event"] == "error":
                self.errors[number] = event
                del self.rows[number]
            elif event["event"] == "warning":
                self.warnings.append((number, event["error_message"]))
            elif event["event"] == "heartbeat":
                row["lease_left_seconds"] = 60.0
        self.executor.stop(given_up)
        self.executor.logged(accepted)

    def go(self) -> None:
        """Let the thread and the distributor do what is due."""
        for _ in range(20):
            self.report()
            self.executor._turn()
        self.report()

    def look(self, seconds: float = 10.0) -> None:
        """Time goes on until the next list, and it is compared with the database."""
        self.now += seconds
        self.go()
        if self.executor.wants_live():
            self.executor.reconcile([self.rows[number] for number in sorted(self.rows)])
        self.go()

    def submitted(self, *numbers: int, **fields: Any) -> list[str]:
        """Job instances that are on the scheduler, and their executor ids."""
        self.claim(*numbers, **fields)
        self.go()
        return [self.rows[number]["executor_id"] for number in numbers]

    def run(self, number: int) -> None:
        """A worker has started."""
        self.rows[number]["status"] = "R"
        self.scheduler.start(self.rows[number]["executor_id"])
