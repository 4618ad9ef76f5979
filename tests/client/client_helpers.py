"""Services as processes for the tests of the client library, and programs that use it."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from http_helpers import RUN, Service, free_port

from jobmon.config import Config, load_config

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Services:
    """JSM and JQS as processes.

    Attributes:
        config: of a client.
        environ: of a program that is a client.
    """

    config: Config
    environ: dict[str, str]
    started: list[Service]

    def stop(self) -> None:
        """End both."""
        for service in self.started:
            if service.process.poll() is None:
                service.process.send_signal(signal.SIGTERM)
        for service in self.started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                service.process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(service.process.pid, signal.SIGKILL)


def clean_environ(database: Any) -> dict[str, str]:
    """The environment of a process that uses this database, and nothing of the user's settings."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("JOBMON_")}
    return {**environ, **database.env(), "PYTHONPATH": str(ROOT), "HOME": str(database.directory)}


def start_services(database: Any, directory: Path, **settings: Any) -> Services:
    """Start JSM and JQS, and wait until they are ready."""
    ports = {"jsm_port": free_port(), "jqs_port": free_port(), "jsm_management_port": free_port()}
    script = directory / "run_service.py"
    script.write_text(RUN)
    started = []
    for name in ("jsm", "jqs"):
        log = directory / f"{name}.log"
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, str(script), name, json.dumps({"workers": 1, **ports, **settings})],
                env=clean_environ(database), stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        started.append(Service(name, ports[f"{name}_port"], ports["jsm_management_port"], process, log))
    for service in started:
        service.wait("/readyz", seconds=60)
    token = {"token": settings["token"]} if "token" in settings else {}
    config = load_config(
        env={**database.env(), "HOME": str(database.directory)},
        overrides={"jsm_port": ports["jsm_port"], "jqs_port": ports["jqs_port"], **token},
    )
    environ = clean_environ(database)
    environ |= {f"JOBMON_{key.upper()}": str(value) for key, value in ports.items()}
    return Services(config, environ, started)
