"""Server programs for the tests of the embedded server: MariaDB and, where there is one, MySQL."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from ports import free_port

from jobmon.db.embedded import EmbeddedServer, ServerBinaries, ServerNotFoundError, find_server

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session", params=["mariadb", "mysql"])
def binaries(request: pytest.FixtureRequest) -> ServerBinaries:
    """A server program of each kind; JOBMON_MYSQL_BASEDIR names a MySQL that is not in the PATH."""
    kind: str = request.param
    try:
        return find_server(os.environ.get("JOBMON_MYSQL_BASEDIR") if kind == "mysql" else None, kind=kind)
    except ServerNotFoundError as error:
        pytest.skip(error.message)


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short name, so that its socket lies beside the data."""
    path = Path(tempfile.mkdtemp(prefix="jm-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def make(place: Path, binaries: ServerBinaries) -> Iterator[Callable[..., EmbeddedServer]]:
    """Makes servers, by default on one data directory; they are stopped at the end."""
    made: list[EmbeddedServer] = []

    def factory(data_dir: Path | None = None, port: int | None = None, **options: object) -> EmbeddedServer:
        options.setdefault("buffer_pool_bytes", 64 << 20)
        options.setdefault("binaries", binaries)
        server = EmbeddedServer(data_dir or place / "data", port, **options)  # type: ignore[arg-type]
        made.append(server)
        return server

    yield factory
    for server in made:
        server.stop()


@pytest.fixture(scope="session")
def pattern(binaries: ServerBinaries) -> Iterator[Path]:
    """An initialised data directory."""
    directory = Path(tempfile.mkdtemp(prefix="jm-"))
    # its copies are started on this port, all through the session
    EmbeddedServer(directory / "data", free_port(), binaries=binaries).ensure_initialised()
    yield directory / "data"
    shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture
def initialised(pattern: Path, place: Path) -> Path:
    """The data directory of ``make``, initialised before."""
    shutil.copytree(pattern, place / "data")
    shutil.copy2(pattern.with_name("data.root.json"), place)
    return place / "data"


@pytest.fixture
def command() -> Callable[..., subprocess.Popen[str]]:
    """Starts ``python -m jobmon.db.embedded``."""

    def start(*arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "jobmon.db.embedded", *map(str, arguments)],
            cwd=REPO,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    return start
