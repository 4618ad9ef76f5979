"""Compare a database with the files of this code: what is behind (status), and what is wrong (validate)."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pymysql
from pymysql.connections import Connection

from jobmon.db.catalog import (
    Key,
    LiveObject,
    database_exists,
    query,
    quote_name,
    read_events,
    read_objects,
    read_tables,
    table_exists,
)
from jobmon.db.connect import ConnectionSpec, connect, errno_of
from jobmon.db.load import SqlObject, misplaced_triggers, read_sql_dir, recorded_objects
from jobmon.db.migrate import (
    DEFAULT_OWNER,
    account_exists,
    applied_migrations,
    database_of,
    half_done,
    read_migrations,
    refuse_newer_database,
    require_initialised,
    schema_versions,
    should_count_changes,
)


@dataclass(frozen=True)
class Finding:
    """One thing that is not as it should be.

    kind, name: of the object (``migration``, ``account`` and ``database`` are kinds too). problem: a word
    or two: ``missing``, ``extra``, ``changed``, ``not loaded``, ``definer``, ``security``, ``order``,
    ``broken``, ``pending``, ``half done``. detail: a sentence.
    """

    kind: str
    name: str
    problem: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind.lower()} {self.name}: {self.problem}: {self.detail}"


@dataclass
class Status:
    """What :func:`status` tells.

    database: its name. server: the server's version. schema_version: None without Jobmon's tables.
    code_version: that this code belongs to. applied, pending: names of migrations. half_done: a sentence,
    or None. behind: objects that `jobmon db migrate` would load or drop.
    """

    database: str
    server: str
    schema_version: int | None
    code_version: int
    applied: list[str] = field(default_factory=list)
    pending: list[str] = field(default_factory=list)
    half_done: str | None = None
    behind: list[Finding] = field(default_factory=list)

    @property
    def current(self) -> bool:
        """Whether `jobmon db migrate` would find nothing to do."""
        return not (self.pending or self.half_done or self.behind)


def status(
    spec: ConnectionSpec,
    *,
    owner: str = DEFAULT_OWNER,
    sql_dir: Path | None = None,
    migrations_dir: Path | None = None,
) -> Status:
    """What is behind in a database: pending migrations, objects that are missing or not as in the files.

    The parameters are those of :func:`jobmon.db.migrate.migrate`; an admin or the migrator may do this.
    Raises NewerDatabaseError, DatabaseError when there is no such database.
    """
    database = database_of(spec)
    migrations = [migration.id for migration in read_migrations(migrations_dir)]
    conn = connect(spec.with_database(None))
    try:
        if not database_exists(conn, database):
            require_initialised(conn, database)
        refuse_newer_database(conn, database, migrations_dir)
        versions = schema_versions(conn, database)
        applied = applied_migrations(conn, database)
        half = half_done(conn, database)
        found = Status(
            database=database,
            server=str(conn.get_server_info()).removeprefix("5.5.5-"),
            schema_version=versions[0] if versions else None,
            code_version=len(migrations),
            applied=applied,
            pending=[name for name in migrations if name not in applied],
            half_done=str(half) if half else None,
        )
        found.behind = _behind(_Live.read(conn, database), read_sql_dir(sql_dir), owner)
        return found
    finally:
        conn.close()


@dataclass
class _Live:
    """A live schema and what was recorded about it."""

    objects: dict[Key, LiveObject]
    recorded: dict[Key, tuple[str, str]]

    @classmethod
    def read(cls, conn: Connection, database: str) -> _Live:
        known = table_exists(conn, database, "schema_object")
        return cls(read_objects(conn, database), recorded_objects(conn, database) if known else {})


def _behind(live: _Live, wanted: dict[Key, SqlObject], owner: str) -> list[Finding]:
    found = []
    for key in sorted(wanted):
        found += _compare(key, wanted[key], live.objects.get(key), live.recorded.get(key), owner)
    for file in misplaced_triggers(wanted, live.objects):
        found.append(
            Finding(
                file.kind,
                file.name,
                "order",
                "the triggers of its table run in another order than the files'",
            )
        )
    for kind, name in sorted(set(live.recorded) - set(wanted)):
        if kind != "TABLE" and (kind, name) in live.objects:
            found.append(Finding(kind, name, "extra", "was loaded by Jobmon, and has no file any more"))
    return found


def _compare(
    key: Key, file: SqlObject, now: LiveObject | None, recorded: tuple[str, str] | None, owner: str
) -> list[Finding]:
    kind, name = key
    if now is None:
        return [Finding(kind, name, "missing", "is in the files and not in the database")]
    found = []
    if recorded is None:
        found.append(Finding(kind, name, "changed", "was made by somebody else than `jobmon db migrate`"))
    else:
        if recorded[0] != file.checksum:
            found.append(Finding(kind, name, "not loaded", f"{file.path.name} is not what was loaded"))
        if recorded[1] != now.checksum:
            found.append(
                Finding(kind, name, "changed", "is not what was loaded: somebody changed it by hand")
            )
    if now.definer != f"{owner}@localhost":
        found.append(Finding(kind, name, "definer", f"belongs to {now.definer}, not to {owner}@localhost"))
    if now.security != file.security:
        found.append(Finding(kind, name, "security", f"is SQL SECURITY {now.security}, not {file.security}"))
    return found


def validate(
    spec: ConnectionSpec,
    *,
    owner: str = DEFAULT_OWNER,
    sql_dir: Path | None = None,
    migrations_dir: Path | None = None,
) -> list[Finding]:
    """Everything in which a database is not what the files say; empty when all is well.

    Looks at migrations, tables (columns, indexes, keys; compared with their state after the last migration),
    routines, triggers and views, at what is there besides, and at the definer: whether its account exists, is
    the right one, and may do what the views need.

    The parameters are those of :func:`jobmon.db.migrate.migrate`; an admin or the migrator may do this.
    Raises NewerDatabaseError, DatabaseError when there is no such database or it has no Jobmon tables.
    """
    database = database_of(spec)
    migrations = [migration.id for migration in read_migrations(migrations_dir)]
    wanted = read_sql_dir(sql_dir)
    conn = connect(spec.with_database(None))
    try:
        refuse_newer_database(conn, database, migrations_dir)
        require_initialised(conn, database)
        applied = applied_migrations(conn, database)
        found = [
            Finding("migration", name, "pending", "was not applied; run `jobmon db migrate`")
            for name in migrations
            if name not in applied
        ]
        half = half_done(conn, database)
        if half:
            found.append(Finding("migration", half.migration, "half done", str(half)))
        found += _check_owner(conn, database, owner)
        live = _Live.read(conn, database)
        found += _behind(live, wanted, owner)
        found += _check_extras(conn, database, live, wanted)
        found += _check_tables(conn, database, live)
        found += _check_views(conn, database, live)
        if should_count_changes(conn, database) is not None:
            detail = "must have rows on Galera, and nowhere else; run `jobmon db migrate`"
            found.append(Finding("TABLE", "change_shard_count", "changed", detail))
        return found
    finally:
        conn.close()


def _check_owner(conn: Connection, database: str, owner: str) -> list[Finding]:
    if account_exists(conn, owner, "localhost") is False:
        return [
            Finding(
                "account",
                f"{owner}@localhost",
                "missing",
                "routines, triggers and views belong to it, and none works without it;"
                " run `jobmon db migrate` as admin",
            )
        ]
    return []


def _check_extras(
    conn: Connection, database: str, live: _Live, wanted: dict[Key, SqlObject]
) -> list[Finding]:
    extras = [key for key in sorted(live.objects) if key not in wanted and key not in live.recorded]
    events = [(event.kind, event.name) for event in read_events(conn, database)]
    return [Finding(*key, "extra", "is not Jobmon's: somebody added it") for key in [*extras, *events]]


def _check_tables(conn: Connection, database: str, live: _Live) -> list[Finding]:
    recorded = {name: checksum for (kind, name), (_, checksum) in live.recorded.items() if kind == "TABLE"}
    tables = {table.name: table for table in read_tables(conn, database)}
    found = []
    for name in sorted(recorded.keys() | tables.keys()):
        if name not in tables:
            found.append(Finding("TABLE", name, "missing", "was there after the last migration"))
        elif name not in recorded:
            found.append(Finding("TABLE", name, "extra", "is not Jobmon's: somebody added it"))
        elif tables[name].checksum != recorded[name]:
            found.append(
                Finding(
                    "TABLE",
                    name,
                    "changed",
                    "its columns, keys or options were changed since the last migration",
                )
            )
    return found


def _check_views(conn: Connection, database: str, live: _Live) -> list[Finding]:
    found = []
    for (kind, name), now in sorted(live.objects.items()):
        if kind != "VIEW":
            continue
        try:
            query(conn, f"SELECT 1 FROM {quote_name(database)}.{quote_name(now.name)} LIMIT 0")
        except pymysql.err.Error as error:
            if errno_of(error) in (1142, 1044):
                continue  # this account may not read it; that says nothing about the view
            found.append(Finding("VIEW", name, "broken", f"can't be read: {error.args[-1]}"))
    return found
