"""Fixtures of the services."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from http_helpers import RUN, Api, Service, config_for, free_port

from jobmon.db import grants, migrate
from jobmon.db.connect import ConnectionSpec
from jobmon.db.embedded import EmbeddedServer
from jobmon.thin_jqs.app import create_app as create_jqs
from jobmon.thin_jsm.app import create_app as create_jsm


@dataclass
class OwnDatabase:
    """What a service needs to know of a database."""

    admin: ConnectionSpec
    directory: Path

    def env(self) -> dict[str, str]:
        """The environment of a service on it."""
        rc = self.directory / "jobmonrc"
        rc.write_text("{}")
        return {"JOBMON_RC": str(rc), "JOBMON_ACCOUNTS_FILE": str(self.directory / "accounts.json")}


@pytest.fixture
def make_api() -> Iterator[Callable[..., Api]]:
    """Makes an in-process service: ``make_api("jsm", database, pool_size=1)``."""
    made: list[Api] = []

    def make(service: str, database: Any, **overrides: Any) -> Api:
        create = create_jsm if service == "jsm" else create_jqs
        made.append(Api(create(config_for(database, **overrides))))
        return made[-1]

    yield make
    for api in made:
        api.close()


@pytest.fixture(scope="module")
def apis(database: Any) -> Iterator[tuple[Api, Api]]:
    """JSM and JQS on the shared database."""
    jsm, jqs = Api(create_jsm(config_for(database))), Api(create_jqs(config_for(database)))
    yield jsm, jqs
    jsm.close()
    jqs.close()


@pytest.fixture
def jsm(apis: tuple[Api, Api], db: Any) -> Api:
    """JSM on the shared database with empty tables."""
    return apis[0]


@pytest.fixture
def jqs(apis: tuple[Api, Api], db: Any) -> Api:
    """JQS on the shared database with empty tables."""
    return apis[1]


@pytest.fixture
def start_service(tmp_path: Path) -> Iterator[Callable[..., Service]]:
    """Starts a service as a process: ``start_service("jsm", database, token="secret")``."""
    started: list[Service] = []

    def start(name: str, database: Any, *, wait: str | None = "/readyz", **overrides: Any) -> Service:
        port, management = overrides.pop(f"{name}_port", None) or free_port(), free_port()
        settings = {"workers": 1, f"{name}_port": port, "jsm_management_port": management, **overrides}
        script = tmp_path / "run_service.py"
        script.write_text(RUN)
        log = tmp_path / f"{name}-{port}.log"
        environment = {k: v for k, v in os.environ.items() if not k.startswith("JOBMON_")}
        environment |= database.env()
        root = str(Path(__file__).resolve().parents[2])
        environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")]).rstrip(
            os.pathsep
        )
        with log.open("wb") as output:
            process = subprocess.Popen(
                [sys.executable, str(script), name, json.dumps(settings)],
                env=environment,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        service = Service(name, port, management, process, log)
        started.append(service)
        if wait is not None:
            service.wait(wait)
        return service

    yield start
    for service in started:
        if service.process.poll() is None:
            service.process.send_signal(signal.SIGTERM)
    for service in started:
        with contextlib.suppress(subprocess.TimeoutExpired):
            service.process.wait(40)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(service.process.pid, signal.SIGKILL)


@pytest.fixture
def make_own(tmp_path: Path) -> Callable[[EmbeddedServer], OwnDatabase]:
    """Makes a migrated database with its accounts on a server of the test's own."""

    def make(embedded: EmbeddedServer) -> OwnDatabase:
        admin = embedded.root_spec.with_database("jobmon_own")
        migrate.migrate(admin, owner="own_owner")
        grants.apply_grants(admin, prefix="own_", accounts_file=tmp_path / "accounts.json")
        return OwnDatabase(admin, tmp_path)

    return make
