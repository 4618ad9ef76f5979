"""Fixtures for tests that need a database.

Where the server comes from:

- by default an embedded server of the machine's MariaDB or MySQL, started once per session on a directory of
  its own (not durable, so faster);
- ``JOBMON_TEST_DB_URL=mysql+pymysql://root:secret@127.0.0.1:3306``: that server, as an account that may
  create databases and accounts;
- ``JOBMON_TEST_DB=testcontainers:mysql:9.7``: a container of that image. Without a container engine the
  tests are skipped with the reason; with ``CI=true`` they fail.

Fixtures:

- ``server`` (session): the :class:`Server`.
- ``database`` (session): a :class:`Database` that is migrated and has its accounts, shared by all tests.
  Tests leave its tables, routines and grants as they are; what rows it has is undefined.
- ``db`` (function): the same database with empty state tables (lookup rows stay, ids begin at 1).
- ``own_database`` (function): a new :class:`Database` of the test's own, not migrated; dropped afterwards.
- ``make_database`` (function): makes any number of these: ``make_database(migrated=True)``.
- ``new_database`` (session): makes one without dropping it, for fixtures of a wider scope.

A :class:`Database` has ``name``, ``prefix`` (of its accounts), ``owner``, ``admin`` (ConnectionSpec),
``spec(role)``, ``connect(role, **kw)`` (admin, migrator, jsm, jqs or reader; autocommit, READ COMMITTED),
``query(sql, args, role)``, ``migrate()``, ``grant()``, ``accounts_file``,
``env()`` (for processes and load_config), ``clear()``, ``audits()`` (rows of the audit views).
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pymysql.connections import Connection

from jobmon.config import read_accounts
from jobmon.db import catalog, grants, migrate
from jobmon.db.connect import ConnectionSpec, connect
from jobmon.db.embedded import EmbeddedServer, EmbeddedServerError


@dataclass
class Server:
    """A database server to test on.

    admin: an account that may do everything, without a database. kind: ``mariadb`` or ``mysql``.
    embedded: the server's process, if it is ours.
    """

    admin: ConnectionSpec
    kind: str
    embedded: EmbeddedServer | None = None


@dataclass
class Database:
    """A database of Jobmon on a server, with accounts of its own; see the module's text."""

    server: Server
    name: str
    prefix: str
    directory: Path
    connections: list[Connection] = field(default_factory=list)

    @property
    def kind(self) -> str:
        return self.server.kind

    @property
    def owner(self) -> str:
        return f"{self.prefix}owner"

    @property
    def admin(self) -> ConnectionSpec:
        return self.server.admin.with_database(self.name)

    @property
    def accounts_file(self) -> Path:
        return self.directory / "accounts.json"

    def spec(self, role: str) -> ConnectionSpec:
        if role == "admin":
            return self.admin
        account = read_accounts(self.accounts_file)["accounts"][role]
        return self.admin.with_account(account["user"], account["password"])

    def connect(self, role: str = "jsm", **kw: Any) -> Connection:
        """A connection as a role; it is closed after the test at the latest."""
        conn = connect(self.spec(role), **kw)
        self.connections.append(conn)
        return conn

    def query(self, sql: str, args: Any = None, role: str = "admin") -> list[tuple[Any, ...]]:
        """The rows of one statement on a connection of its own."""
        conn = connect(self.spec(role))
        with contextlib.closing(conn):
            return catalog.query(conn, sql, args)

    def migrate(self, **kw: Any) -> migrate.MigrateResult:
        return migrate.migrate(self.admin, owner=self.owner, **kw)

    def grant(self, **kw: Any) -> grants.GrantsResult:
        return grants.apply_grants(self.admin, prefix=self.prefix, accounts_file=self.accounts_file, **kw)

    def env(self) -> dict[str, str]:
        """Environment variables that make any part of Jobmon use this database and nothing of the user's."""
        rc = self.directory / "jobmonrc"
        if not rc.exists():
            rc.write_text(json.dumps({}))
        return {
            "JOBMON_RC": str(rc),
            "JOBMON_STATE_DIR": str(self.directory),
            "JOBMON_ACCOUNTS_FILE": str(self.accounts_file),
            "JOBMON_ADMIN_CONN_STR": self.admin.conn_str(),
        }

    def close_connections(self) -> None:
        while self.connections:
            conn = self.connections.pop()
            if conn.open:
                with contextlib.suppress(Exception):
                    conn.close()

    def clear(self) -> None:
        """Empty the state and history tables; lookup rows stay. Open connections of tests are closed
        before.
        """
        self.close_connections()
        # Rather an error than a test that hangs because another one left a transaction open.
        conn = connect(self.admin, session={"foreign_key_checks": 0, "lock_wait_timeout": 20})
        with contextlib.closing(conn):
            kept = {*grants.LOOKUP_TABLES, "schema_object", *catalog.INTERNAL_TABLES}
            tables = catalog.query(
                conn,
                "SELECT TABLE_NAME FROM information_schema.TABLES"
                " WHERE TABLE_SCHEMA=%s AND TABLE_TYPE='BASE TABLE'",
                (self.name,),
            )
            for (table,) in tables:
                # Most tables are empty, and to look is faster than to truncate.
                if table not in kept and catalog.query(conn, f"SELECT 1 FROM `{table}` LIMIT 1"):
                    catalog.execute(conn, f"TRUNCATE TABLE `{table}`")

    def audits(self) -> dict[str, list[tuple[Any, ...]]]:
        """The rows of each audit view that has any: the violated invariants."""
        conn = connect(self.admin)
        with contextlib.closing(conn):
            views = catalog.query(
                conn,
                "SELECT TABLE_NAME FROM information_schema.VIEWS"
                " WHERE TABLE_SCHEMA=%s AND TABLE_NAME LIKE 'audit\\_%%'",
                (self.name,),
            )
            found = {name: catalog.query(conn, f"SELECT * FROM `{name}`") for (name,) in views}
        return {name: rows for name, rows in found.items() if rows}

    def drop(self) -> None:
        """Drop the database and its accounts."""
        self.close_connections()
        conn = connect(self.server.admin)
        with contextlib.closing(conn):
            catalog.execute(conn, f"DROP DATABASE IF EXISTS `{self.name}`")
        grants.drop_accounts(self.server.admin, prefix=self.prefix)
        shutil.rmtree(self.directory, ignore_errors=True)


def _cannot(reason: str) -> None:
    if os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)


@contextlib.contextmanager
def _testcontainer(image: str) -> Iterator[ConnectionSpec]:
    from testcontainers.community.mysql import MySqlContainer  # needs the engine's variables at import

    try:
        import docker

        docker.from_env().ping()
    except Exception as error:  # whatever the client says, there is no engine
        _cannot(f"JOBMON_TEST_DB asks for testcontainers, but no container engine answers: {error}")
    container = MySqlContainer(image, dialect="pymysql", root_password=secrets.token_urlsafe(16))
    with container:
        yield ConnectionSpec(
            "root",
            container.root_password,
            host=container.get_container_host_ip().replace("localhost", "127.0.0.1"),
            port=int(container.get_exposed_port(3306)),
        )


def _server(admin: ConnectionSpec, embedded: EmbeddedServer | None = None) -> Server:
    conn = connect(admin)
    with contextlib.closing(conn):
        return Server(admin, "mariadb" if catalog.is_mariadb(conn) else "mysql", embedded)


@pytest.fixture(scope="session", autouse=True)
def heeded_signals() -> None:
    """Under nohup, or in a shell's background, these are ignored, and so by all that the tests start."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    signal.signal(signal.SIGQUIT, signal.SIG_DFL)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The server that all tests of this session use."""
    url, wanted = os.environ.get("JOBMON_TEST_DB_URL"), os.environ.get("JOBMON_TEST_DB", "embedded")
    if url:
        yield _server(ConnectionSpec.parse(url).with_database(None))
    elif wanted.startswith("testcontainers:"):
        with _testcontainer(wanted.partition(":")[2]) as admin:
            yield _server(admin)
    elif wanted == "embedded":
        # Not pytest's directory: a socket's path must be short.
        directory = Path(tempfile.mkdtemp(prefix="jobmon-test-"))
        try:
            with EmbeddedServer(directory / "data", durable=False) as embedded:
                yield _server(embedded.root_spec.with_database(None), embedded)
        except EmbeddedServerError as error:
            _cannot(f"no embedded database server: {error}")
        finally:
            shutil.rmtree(directory, ignore_errors=True)
    else:
        pytest.fail(f"JOBMON_TEST_DB={wanted!r}: expected embedded or testcontainers:IMAGE", pytrace=False)


@pytest.fixture(scope="session")
def new_database(server: Server) -> Callable[[], Database]:
    """Makes a Database that does not exist yet on the server; who calls it must drop it."""

    def make() -> Database:
        token = secrets.token_hex(4)
        directory = Path(tempfile.mkdtemp(prefix="jobmon-test-"))
        return Database(server, f"jobmon_test_{token}", f"t{token}_", directory)

    return make


@pytest.fixture(scope="session")
def database(new_database: Callable[[], Database]) -> Iterator[Database]:
    """A migrated database with its accounts, shared by all tests; see the module's text."""
    made = new_database()
    try:
        made.migrate()
        made.grant()
        yield made
    finally:
        made.drop()


@pytest.fixture
def db(database: Database) -> Iterator[Database]:
    """The shared database with empty state tables."""
    database.clear()
    yield database
    database.close_connections()


@pytest.fixture
def make_database(new_database: Callable[[], Database]) -> Iterator[Callable[..., Database]]:
    """Makes databases of the test's own: ``make_database(migrated=True)``."""
    made: list[Database] = []

    def make(*, migrated: bool = False) -> Database:
        database = new_database()
        made.append(database)
        if migrated:
            database.migrate()
            database.grant()
        return database

    yield make
    for database in made:
        database.drop()


@pytest.fixture
def own_database(make_database: Callable[..., Database]) -> Database:
    """A database of the test's own, which does not exist yet."""
    return make_database()
