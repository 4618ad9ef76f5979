"""Fixtures of the commands for people: services as processes on a real database."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from cli_helpers import Jobmon, MakeWorkflow, Services, make_workflow
from ports import free_port

from jobmon.client.requester import Requester
from jobmon.config import load_config


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"{url}/readyz", timeout=5).status_code == 200:
                return
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    raise AssertionError(f"{url} is not ready:\n{log.read_text()[-4000:]}")


@pytest.fixture(scope="module")
def services(database: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """JSM and JQS, both of which want a token."""
    directory = tmp_path_factory.mktemp("services")
    rc = directory / "rc.json"
    ports = {key: free_port() for key in ("jsm_port", "jqs_port", "jsm_management_port")}
    tokens = {"token": secrets.token_urlsafe(16), "read_token": secrets.token_urlsafe(16)}
    rc.write_text(json.dumps({"host": "127.0.0.1", "workers": 1, **tokens, **ports}))
    rc.chmod(0o600)
    requester = Requester(load_config(rc, env={"HOME": str(directory)}))
    made = Services(rc, requester)
    accounts = {key: value for key, value in database.env().items() if key != "JOBMON_RC"}
    processes = []
    try:
        for name, port in (("job_state_manager", "jsm_port"), ("job_query_server", "jqs_port")):
            log = directory / f"{name}.log"
            with log.open("wb") as output:
                process = subprocess.Popen(
                    [sys.executable, "-m", "jobmon.cli", "start", name],
                    env=made.environment(**accounts),
                    stdout=output,
                    stderr=output,
                    start_new_session=True,
                )
            processes.append(process)
            _wait(process, f"http://127.0.0.1:{ports[port]}", log)
        yield made
    finally:
        requester.close()
        for process in processes:
            process.terminate()
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture
def jobmon(db: Any, services: Services, monkeypatch: pytest.MonkeyPatch) -> Iterator[Jobmon]:
    """The command, on services with an empty database."""
    for variable in [name for name in os.environ if name.startswith("JOBMON_")]:
        monkeypatch.delenv(variable)
    made = Jobmon(services)
    yield made
    made.end()


@pytest.fixture
def make(services: Services) -> MakeWorkflow:
    """Makes a workflow: ``make(3, [(0, 1)], name="x")``; see :func:`make_workflow`."""
    return partial(make_workflow, services.requester)
