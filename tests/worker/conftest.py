"""Fixtures of the worker: a JSM that answers as it is told, a real one, and workers as processes."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from ports import free_port
from worker_helpers import ROOT, FakeJsm, Worker, clean_environment, kill_commands


@pytest.fixture
def make_fake() -> Iterator[Callable[..., FakeJsm]]:
    """Makes a JSM of the test's own that listens: ``make_fake(command="sleep 1")``."""
    made: list[FakeJsm] = []

    def make(*, started: bool = True, **instance: Any) -> FakeJsm:
        fake = FakeJsm(**instance)
        made.append(fake)
        if started:
            fake.start()
        return fake

    yield make
    for fake in made:
        fake.stop()


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Callable[..., Worker]]:
    """Starts a worker, for instance 7 of a fake (``start_worker(fake, "--patience", "3", JOB_ID="17")``)
    or for one of a real JSM (``start_worker(jsm, job_instance_id=3, JOBMON_TOKEN=jsm.token)``).
    """
    started: list[Worker] = []
    ports: set[int] = set()

    def start(
        jsm: Any,
        *options: str,
        job_instance_id: int = 7,
        popen: dict[str, Any] | None = None,
        **env: str,
    ) -> Worker:
        environment = clean_environment(
            tmp_path, **{"JOBMON_HOST": "127.0.0.1", "JOBMON_JSM_PORT": str(jsm.port), **env}
        )
        ports.add(jsm.port)
        worker = Worker([str(job_instance_id), *options], environment, tmp_path, **(popen or {}))
        started.append(worker)
        return worker

    yield start
    for worker in started:
        worker.end()
    for port in ports:
        kill_commands(port)


@pytest.fixture
def run_worker(start_worker: Callable[..., Worker]) -> Callable[..., int]:
    """The same, and waits for its exit code."""

    def run(fake: FakeJsm, *options: str, **kw: Any) -> int:
        return start_worker(fake, *options, **kw).wait()

    return run


class RealJsm:
    """A JSM on a database, as a process, with a token."""

    def __init__(self, database: Any, directory: Path) -> None:
        self.token = secrets.token_urlsafe(16)
        self.port, management = free_port(), free_port()
        self._log = directory / "jsm.log"
        self._process: subprocess.Popen[bytes] | None = None
        rc = directory / "jsmrc"
        rc.write_text(
            json.dumps(
                {"jsm_port": self.port, "jsm_management_port": management, "token": self.token, "workers": 1}
            )
        )
        rc.chmod(0o600)
        environment = {key: value for key, value in os.environ.items() if not key.startswith("JOBMON_")}
        self._environment = environment | database.env() | {"JOBMON_RC": str(rc), "PYTHONPATH": str(ROOT)}

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "jobmon.cli", "start", "job_state_manager"],
                env=self._environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        end = time.monotonic() + 60
        while True:
            with contextlib.suppress(requests.RequestException):
                if requests.get(f"http://127.0.0.1:{self.port}/readyz", timeout=5).status_code == 200:
                    return
            assert self._process.poll() is None and time.monotonic() < end, self._log.read_text()[-4000:]
            time.sleep(0.1)

    def stop(self) -> None:
        """Stop it."""
        if self._process is not None:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(40)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process = None

    def call(self, route: str, /, **body: Any) -> Any:
        """POST that must succeed; gives the answer."""
        headers = {"Authorization": f"Bearer {self.token}"}
        url = f"http://127.0.0.1:{self.port}/{route}"
        response = requests.post(url, json=body, headers=headers, timeout=30)
        assert response.status_code == 200, response.text
        return response.json()


@pytest.fixture(scope="module")
def shared_jsm(database: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealJsm]:
    """JSM on the shared database."""
    jsm = RealJsm(database, tmp_path_factory.mktemp("jsm"))
    try:
        jsm.start()
        yield jsm
    finally:
        jsm.stop()


@pytest.fixture
def jsm(shared_jsm: RealJsm, db: Any) -> Iterator[RealJsm]:
    """JSM on the shared database with empty tables; afterwards no invariant may be violated."""
    yield shared_jsm
    assert db.audits() == {}


@pytest.fixture
def own_jsm(db: Any, tmp_path: Path) -> Iterator[RealJsm]:
    """JSM on the shared database with empty tables, which the test may stop and start."""
    jsm = RealJsm(db, tmp_path)
    try:
        jsm.start()
        yield jsm
    finally:
        jsm.stop()
    assert db.audits() == {}
