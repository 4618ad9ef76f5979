"""Fixtures of the chaos: a server program of each kind, and a whole Jobmon of the test's own."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.extend(str(Path(__file__).resolve().parents[1] / name) for name in ("client", "http"))

from chaos_helpers import World

from jobmon.db.embedded import ServerBinaries, ServerNotFoundError, find_server


@pytest.fixture(scope="session", params=["mariadb", "mysql"])
def binaries(request: pytest.FixtureRequest) -> ServerBinaries:
    """A server program of each kind; JOBMON_MYSQL_BASEDIR names a MySQL that is not in the PATH."""
    kind: str = request.param
    try:
        return find_server(os.environ.get("JOBMON_MYSQL_BASEDIR") if kind == "mysql" else None, kind=kind)
    except ServerNotFoundError as error:
        pytest.skip(error.message)


@pytest.fixture
def world(binaries: ServerBinaries) -> Iterator[World]:
    """A durable database server, JSM and JQS; nothing else runs yet."""
    # Not pytest's directory: a socket's path must be short.
    directory = Path(tempfile.mkdtemp(prefix="jobmon-chaos-"))
    made = World(directory, binaries)
    try:
        made.start()
        yield made
    finally:
        made.end()
        shutil.rmtree(directory, ignore_errors=True)
