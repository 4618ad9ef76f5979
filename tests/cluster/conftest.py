"""Fixtures of the clusters. Where a program is missing the tests are skipped and say which; if its variable
promises it, they fail.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "http"))

from cluster_helpers import Galera, Group, Pair, Servers, provider
from http_helpers import Api

from jobmon.db.embedded import ServerBinaries, ServerNotFoundError, find_server
from jobmon.thin_jqs.app import create_app as create_jqs
from jobmon.thin_jsm.app import create_app as create_jsm


def _binaries(kind: str) -> ServerBinaries:
    try:
        return find_server(os.environ.get("JOBMON_MYSQL_BASEDIR") if kind == "mysql" else None, kind=kind)
    except ServerNotFoundError as error:
        pytest.skip(error.message)


@contextlib.contextmanager
def _place() -> Iterator[Path]:
    """A directory with a short path, as sockets need it."""
    directory = Path(tempfile.mkdtemp(prefix="jobmon-cl-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


@pytest.fixture(scope="module", params=["mariadb", "mysql"])
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A primary and its replica, for all tests of a module."""
    binaries = _binaries(request.param)
    with _place() as place:
        made = Pair(place, binaries)
        try:
            made.start()
            yield made
        finally:
            made.stop()


@pytest.fixture
def group() -> Iterator[Group]:
    """Three members of a MySQL group."""
    binaries = _binaries("mysql")
    plugin = (binaries.plugin_dir or Path("/nowhere")) / "group_replication.so"
    if not plugin.is_file():
        pytest.skip(f"this MySQL has no group replication: there is no {plugin}")
    with _place() as place:
        made = Group(place, binaries)
        try:
            made.start()
            yield made
        finally:
            made.stop()


@pytest.fixture(scope="module")
def galera() -> Iterator[Galera]:
    """Three nodes of Galera, for all tests of a module."""
    library = provider()
    if library is None:
        pytest.skip("no Galera on this machine (Debian: galera-4), and JOBMON_GALERA_PROVIDER names none")
    if not Path(library).is_file():
        pytest.fail(f"JOBMON_GALERA_PROVIDER: there is no {library}", pytrace=False)
    binaries = _binaries("mariadb")
    with _place() as place, pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", os.environ["PATH"])  # put back afterwards
        made = Galera(place, binaries)
        try:
            made.start(library)
            yield made
        finally:
            made.stop()


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[Api, Api]]]:
    """Makes a JSM and a JQS in this process: ``serve(servers, [0, 1], [1])``, numbers of the servers of
    each.
    """
    made: list[Api] = []

    def make(servers: Servers, jsm: list[int], jqs: list[int], **settings: Any) -> tuple[Api, Api]:
        config = servers.config(jsm, jqs, **settings)
        both = Api(create_jsm(config)), Api(create_jqs(config))
        made.extend(both)
        return both

    yield make
    for api in made:
        api.close()
