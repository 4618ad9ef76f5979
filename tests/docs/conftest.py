"""Both services as processes on the shared database, as the README's examples want them."""

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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests
from docs_helpers import ROOT
from ports import free_port


@dataclass
class Services:
    """JSM and JQS, and a home directory whose .jobmonrc names them."""

    jsm: str
    jqs: str
    token: str
    home: Path

    def call(self, name: str, **body: Any) -> Any:
        """POST that must succeed; gives the answer."""
        headers = {"Authorization": f"Bearer {self.token}"}
        response = requests.post(f"{self.jsm}/{name}", json=body, headers=headers, timeout=30)
        assert response.status_code == 200, response.text
        return response.json()


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
    """JSM and JQS with a token."""
    home = tmp_path_factory.mktemp("home")
    ports = {key: free_port() for key in ("jsm_port", "jqs_port", "jsm_management_port")}
    token = secrets.token_urlsafe(16)
    rc = home / ".jobmonrc"
    rc.write_text(json.dumps({"host": "127.0.0.1", "token": token, "workers": 1, **ports}))
    rc.chmod(0o600)
    environment = {key: value for key, value in os.environ.items() if not key.startswith("JOBMON_")}
    environment |= database.env() | {"JOBMON_RC": str(rc)}
    environment["PYTHONPATH"] = str(ROOT)
    urls = [f"http://127.0.0.1:{ports[key]}" for key in ("jsm_port", "jqs_port")]
    processes = []
    try:
        for name in ("job_state_manager", "job_query_server"):
            with (home / f"{name}.log").open("wb") as output:
                command = [sys.executable, "-m", "jobmon.cli", "start", name]
                processes.append(
                    subprocess.Popen(
                        command, env=environment, stdout=output, stderr=output, start_new_session=True
                    )
                )
        for process, url, name in zip(
            processes, urls, ("job_state_manager", "job_query_server"), strict=True
        ):
            _wait(process, url, home / f"{name}.log")
        yield Services(*urls, token, home)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
