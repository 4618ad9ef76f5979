"""Clients that take jobs through their lives while something is done to the servers."""

from __future__ import annotations

import secrets
import threading
import time
from abc import ABC, abstractmethod
from typing import Any


class Lives(ABC):
    """Clients that take jobs through their lives, and repeat every call until it is answered.

    Parameters:
        clients: how many work at once.

    Attributes:
        name: of its jobs.
        ended: what was acknowledged: job and letter.
        problems: what no client may meet.
        patience: seconds that are waited for what must come.
    """

    patience: float = 120
    logs_executor_id = True

    def __init__(self, clients: int = 6) -> None:
        self.name = secrets.token_hex(4)
        self.stop = threading.Event()
        self.problems: list[str] = []
        self.ended: dict[int, str] = {}
        self._threads = [threading.Thread(target=self._live, args=(n,), daemon=True) for n in range(clients)]
        for thread in self._threads:
            thread.start()

    @abstractmethod
    def _call(self, client: int, path: str, **body: Any) -> Any:
        """The answer to a call of JSM, however often it must be sent."""

    def _live(self, client: int) -> None:
        try:
            key = f"dag {client} {secrets.token_hex(4)}"
            dag_id = self._call(client, "/add_task_dag", user="ann", dag_hash=key, request_key=key)["dag_id"]
            number = 0
            while not self.stop.is_set():
                number += 1
                job = {"dag_id": dag_id, "name": self.name, "job_hash": number, "command": "true"}
                job_id = self._call(client, "/add_job", **job)["job_dct"]["job_id"]
                self._call(client, "/queue_job", job_id=job_id)
                made = self._call(
                    client, "/add_job_instance", job_id=job_id, executor_type="E", attempt_number=1
                )
                instance = {"job_instance_id": made["job_instance_id"]}
                if self.logs_executor_id:
                    self._call(client, "/log_executor_id", **instance, executor_id=number)
                self._call(client, "/log_running", **instance, nodename="n", process_group_id=1)
                if number % 3:
                    self._call(client, "/log_done", **instance)
                else:
                    self._call(client, "/log_error", **instance, error_message="x" * 1000)
                self.ended[job_id] = "D" if number % 3 else "F"
        except Exception as error:
            self.problems.append(f"client {client}: {error!r}")

    def go_on(self, jobs: int) -> None:
        """Wait until so many more jobs have ended."""
        wanted, deadline = len(self.ended) + jobs, time.monotonic() + self.patience
        while len(self.ended) < wanted:
            assert not self.problems, self.problems
            assert time.monotonic() < deadline, f"{len(self.ended)} jobs ended, not {wanted}"
            time.sleep(0.02)

    def finish(self) -> None:
        """Let every client end the job it is at."""
        self.stop.set()
        for thread in self._threads:
            thread.join(self.patience)
            assert not thread.is_alive()
        assert not self.problems, self.problems
