"""Bring a database's tables to the version of this code, and back.

The migrations are yoyo's: its files, their order, its record of what was applied. Three things are done
otherwise, because MySQL and MariaDB commit at each DDL statement:

- rivals are kept out by a named lock of the server, which a dead process can't leave behind;
- how far a migration came is recorded step by step. One that stopped half-way (an error, a crash) is
  reported, and goes on at that step when ``migrate`` is run again; nothing that was done is undone behind
  anybody's back;
- statements wait shortly for locks that clients hold, let them through, and try again.
"""

from __future__ import annotations

import hashlib
import inspect
import re
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql
import yoyo  # type: ignore[import-untyped]
from pymysql.connections import Connection
from yoyo.backends.core.mysql import MySQLBackend  # type: ignore[import-untyped]
from yoyo.exceptions import BadMigration, MigrationConflict  # type: ignore[import-untyped]

from jobmon.db import files
from jobmon.db.catalog import (
    DatabaseError,
    Key,
    database_exists,
    execute,
    is_mariadb,
    query,
    quote_name,
    read_tables,
    table_exists,
)
from jobmon.db.connect import ConnectionSpec, errno_of
from jobmon.db.load import (
    Loader,
    LoadResult,
    forget_objects,
    open_for_ddl,
    patiently,
    record_objects,
    recorded_objects,
    use_collation,
)

DEFAULT_DATABASE = "jobmon"
DEFAULT_PREFIX = "jobmon_"
DEFAULT_OWNER = f"{DEFAULT_PREFIX}owner"
YOYO_TABLE = "_yoyo_migration"
STEP_TABLE = "_jobmon_migration_step"

Say = Callable[[str], None]

# What a DDL statement says that was done already: it exists, or exists no more.
_ALREADY_APPLIED = frozenset({1050, 1051, 1060, 1061, 1068, 1091, 1826})
_ALREADY_GONE = frozenset({1051, 1091, 1146})


class MigrationError(DatabaseError):
    """A migration can't be read, or stopped half-way; the message says where, the hint how to go on."""


class NewerDatabaseError(DatabaseError):
    """The database was migrated by a newer Jobmon than this one."""


class BusyError(DatabaseError):
    """Another process migrates this database or changes its accounts, and did not end in time."""


class _Backend(MySQLBackend):
    """yoyo's backend on a connection of ours. Its "URI" is a ConnectionSpec."""

    def __init__(self, spec: ConnectionSpec, migration_table: str) -> None:
        super().__init__(spec, migration_table)
        self.has_transactional_ddl = False

    def connect(self, dburi: ConnectionSpec) -> Connection:
        return open_for_ddl(dburi)

    def quote_identifier(self, s: str) -> str:
        return quote_name(s)

    @contextmanager
    def lock(self, timeout: float = 10) -> Iterator[None]:
        # yoyo's lock is a row that a killed process leaves behind. Ours is the server's, and is held already.
        yield

    # DDL ends the transaction and its savepoints; asking for them then would hide the real error.
    def savepoint(self, id: str) -> None:
        pass

    def savepoint_rollback(self, id: str) -> None:
        pass


@dataclass
class MigrateResult:
    """What :func:`migrate` did.

    applied: names of migrations. objects: what was loaded and dropped. warnings: what its operator should
    know.
    """

    created_database: bool = False
    created_owner: bool = False
    applied: list[str] = field(default_factory=list)
    objects: LoadResult = field(default_factory=LoadResult)
    warnings: list[str] = field(default_factory=list)


def database_of(spec: ConnectionSpec) -> str:
    """The database a spec means: its own, or ``jobmon`` if it names none."""
    return spec.database or DEFAULT_DATABASE


def read_migrations(migrations_dir: Path | None = None) -> Any:
    """The migrations of this code, in order (a yoyo MigrationList).

    Raises MigrationError when a file can't be read or is not named ``NNNN.what`` with numbers 1, 2, 3 ...
    """
    directory = files.migrations_dir() if migrations_dir is None else migrations_dir
    try:
        found = yoyo.read_migrations(str(directory))
        for migration in found:
            migration.load()
    except (BadMigration, MigrationConflict, OSError, UnicodeDecodeError, SyntaxError) as error:
        raise MigrationError(f"a migration in {directory} can't be read: {error}") from error
    found = found.replace(sorted(found, key=lambda migration: str(migration.id)))
    for number, migration in enumerate(found, start=1):
        match = re.match(r"(\d+)\.", migration.id + ".")
        if match is None or int(match[1]) != number:
            raise MigrationError(
                f"{migration.path}: should be number {number}",
                "migrations are named 0001.what, 0002.what ...",
            )
    return found


def schema_versions(conn: Connection, database: str) -> tuple[int, int] | None:
    """What schema_info says: (schema_version, compatible_since), or None if there is none."""
    if not table_exists(conn, database, "schema_info"):
        return None
    rows = query(
        conn, f"SELECT schema_version, compatible_since FROM {quote_name(database)}.schema_info LIMIT 1"
    )
    return (int(rows[0][0]), int(rows[0][1])) if rows else None


def applied_migrations(conn: Connection, database: str) -> list[str]:
    """Names of the migrations that were applied, in order."""
    # Without a version yoyo's tables are not complete yet, and record nothing.
    versions = f"{quote_name(database)}._yoyo_version"
    if not table_exists(conn, database, "_yoyo_version") or not query(
        conn, f"SELECT 1 FROM {versions} LIMIT 1"
    ):
        return []
    rows = query(conn, f"SELECT migration_id FROM {quote_name(database)}.{YOYO_TABLE} ORDER BY migration_id")
    return [row[0] for row in rows]


def refuse_newer_database(conn: Connection, database: str, migrations_dir: Path | None = None) -> None:
    """Raises NewerDatabaseError if the database was migrated by a newer Jobmon than this one."""
    migrations = read_migrations(migrations_dir)
    versions = schema_versions(conn, database)
    version = versions[0] if versions else 0
    known = {migration.id for migration in migrations}
    unknown = [name for name in applied_migrations(conn, database) if name not in known]
    if version <= len(migrations) and not unknown:
        return
    which = f"schema version {version}" if version > len(migrations) else f"migration {unknown[-1]}"
    raise NewerDatabaseError(
        f"the database {database} is newer than this code: it has {which}, this code knows up to version"
        f" {len(migrations)}",
        "install the Jobmon release that migrated it (or a later one); nothing was changed",
    )


def require_initialised(conn: Connection, database: str) -> None:
    """Raises DatabaseError if there is no database of this name, or none of Jobmon's tables in it."""
    if not database_exists(conn, database):
        raise DatabaseError(
            f"there is no database {database} (or this account may not see it)",
            "run `jobmon initdb`, or `jobmon db migrate` as admin",
        )
    if schema_versions(conn, database) is None:
        raise DatabaseError(
            f"the database {database} has no Jobmon tables yet", "run `jobmon initdb`, or `jobmon db migrate`"
        )


# The lock

# A lock goes with its connection, and a server ends that a moment after the client has gone: who finds a lock
# taken waits for so many seconds before it says that somebody else is at work.
GONE_SECONDS = 5.0


def _lock_name(database: str) -> str:
    # Names longer than 64 characters are refused.
    return "jobmon:" + (
        database if len(database) <= 48 else hashlib.sha256(database.encode()).hexdigest()[:48]
    )


@contextmanager
def named_lock(conn: Connection, name: str, timeout: float, busy: BusyError) -> Iterator[None]:
    """Hold a lock of the server's; it goes with the connection.

    name: at most 64 characters. timeout: seconds to wait for it. Raises ``busy`` then.
    """
    [(got,)] = query(conn, "SELECT GET_LOCK(%s, %s)", (name, timeout))
    if not got:
        raise busy
    try:
        yield
    finally:
        # the next one need not wait until the server has ended the connection; without that it is free anyway
        with suppress(pymysql.MySQLError):
            query(conn, "SELECT RELEASE_LOCK(%s)", (name,))


@contextmanager
def schema_lock(conn: Connection, database: str, *, timeout: float = 600.0) -> Iterator[None]:
    """Hold the lock of all who change a database's schema or accounts; it goes with the connection.

    timeout: seconds to wait for it. Raises BusyError then.
    """
    busy = BusyError(
        f"another process has been migrating {database} or changing its accounts for {timeout:g} s",
        "wait for it, or look who it is: SHOW PROCESSLIST",
    )
    with named_lock(conn, _lock_name(database), timeout, busy):
        yield


# The database and its owner


def _wanted_collation(conn: Connection) -> str:
    return "utf8mb4_nopad_bin" if is_mariadb(conn) else "utf8mb4_0900_bin"


def ensure_database(conn: Connection, database: str) -> bool:
    """Create the database if it is missing, with a collation in which ``=`` is exact; returns whether it was.

    An empty database with another collation gets this one. Raises DatabaseError if that is too late.
    """
    collation = _wanted_collation(conn)
    name = quote_name(database)
    rows = query(
        conn,
        "SELECT DEFAULT_COLLATION_NAME FROM information_schema.SCHEMATA WHERE SCHEMA_NAME=%s",
        (database,),
    )
    if not rows:
        try:
            execute(conn, f"CREATE DATABASE IF NOT EXISTS {name} CHARACTER SET utf8mb4 COLLATE {collation}")
        except pymysql.err.Error as error:
            if errno_of(error) not in (1044, 1045):
                raise
            raise DatabaseError(
                f"there is no database {database}, and this account may not create it",
                "run this as admin, or let an administrator create it",
            ) from error
        return True
    if rows[0][0] != collation:
        if query(conn, "SELECT 1 FROM information_schema.TABLES WHERE TABLE_SCHEMA=%s LIMIT 1", (database,)):
            raise DatabaseError(
                f"the database {database} has the collation {rows[0][0]}, in which comparisons of hashes and"
                f" arguments are not exact; Jobmon needs {collation}",
                "let Jobmon create its own database: name one in conn_str that does not exist yet",
            )
        execute(conn, f"ALTER DATABASE {name} CHARACTER SET utf8mb4 COLLATE {collation}")
    return False


def account_exists(conn: Connection, user: str, host: str) -> bool | None:
    """Whether there is an account; None if this one may not know."""
    try:
        return bool(query(conn, "SELECT 1 FROM mysql.user WHERE User=%s AND Host=%s", (user, host)))
    except pymysql.err.Error as error:
        if errno_of(error) in (1142, 1143):
            return None
        raise


def ensure_owner(conn: Connection, database: str, owner: str) -> bool:
    """Create the account that owns routines, triggers and views, if it is missing; returns whether it was.

    It is locked: nobody logs in with it. Raises DatabaseError if it is missing and this account can't
    create it.
    """
    missing = account_exists(conn, owner, "localhost") is False
    if not missing and _owner_has_grants(conn, database, owner):
        return False
    try:
        if missing:
            execute(
                conn,
                "CREATE USER IF NOT EXISTS %s@'localhost' IDENTIFIED BY %s ACCOUNT LOCK",
                (owner, f"Aa1-{secrets.token_urlsafe(32)}"),  # known to nobody
            )
        execute(
            conn, f"GRANT ALL PRIVILEGES ON {grant_pattern(conn, database)}.* TO %s@'localhost'", (owner,)
        )
    except pymysql.err.Error as error:
        if errno_of(error) not in (1044, 1227, 1396):
            raise
        if not missing:
            return False
        raise DatabaseError(
            f"the account {owner}@localhost, which owns the routines, is missing; this one can't create it",
            "run this as admin (an account that may create accounts)",
        ) from error
    return missing


def _owner_has_grants(conn: Connection, database: str, owner: str) -> bool:
    """Whether the owner holds something on the database; taken for granted if this account may not know."""
    try:
        lines = query(conn, "SHOW GRANTS FOR %s@'localhost'", (owner,))
    except pymysql.err.Error as error:
        if errno_of(error) in (1044, 1142, 1141):
            return True
        raise
    return any(f" ON {grant_pattern(conn, database)}.* TO " in str(line) for (line,) in lines)


def grant_pattern(conn: Connection, database: str) -> str:
    """The database's name as GRANT ... ON name.* takes it: there ``_`` and ``%`` are wildcards, unless the
    server has partial_revokes on."""
    if not is_mariadb(conn):
        [(partial_revokes,)] = query(conn, "SELECT @@partial_revokes")
        if partial_revokes:
            return quote_name(database)
    return quote_name(re.sub(r"([_%\\])", r"\\\1", database))


# Steps


def _step_text(step: Any) -> str:
    """What identifies a step: its SQL, or the source of its function."""
    inner = getattr(step, "step", step)
    if hasattr(inner, "steps"):
        return "\n".join(_step_text(part) for part in inner.steps)
    action = getattr(inner, "_apply", None)
    if action is None or isinstance(action, str):
        return action or ""
    try:
        return inspect.getsource(action)
    except (OSError, TypeError):
        return str(getattr(action, "__qualname__", action))


def _digest(steps: list[Any]) -> str:
    return hashlib.sha256("\0".join(_step_text(step) for step in steps).encode()).hexdigest()


@dataclass(frozen=True)
class HalfDone:
    """A migration that stopped half-way.

    direction: ``apply`` or ``rollback``. steps_done: how many of its steps are done (apply only).
    under_way: whether the next one had begun, so that it may be done too. digest: of the steps that are done.
    """

    migration: str
    direction: str
    steps_done: int
    under_way: bool
    digest: str

    def __str__(self) -> str:
        if self.direction == "rollback":
            return f"the rollback of migration {self.migration} stopped half-way"
        if self.direction == "restore":
            return f"the restore of {self.migration} has not come to its end"
        return f"migration {self.migration} stopped half-way, after {self.steps_done} of its steps"


def half_done(conn: Connection, database: str) -> HalfDone | None:
    """The migration that stopped half-way, or None."""
    if not table_exists(conn, database, STEP_TABLE):
        return None
    rows = query(
        conn,
        "SELECT migration_id, direction, steps_done, under_way, digest"
        f" FROM {quote_name(database)}.{STEP_TABLE} ORDER BY direction = 'restore' DESC LIMIT 1",
    )
    return HalfDone(rows[0][0], rows[0][1], rows[0][2], bool(rows[0][3]), rows[0][4]) if rows else None


class _Run:
    """One migrate or rollback, on one connection that holds the schema lock."""

    def __init__(self, backend: _Backend, database: str, *, patience: float, say: Say) -> None:
        self.backend = backend
        self.conn: Connection = backend.connection
        self.database = database
        self.patience = patience
        self.say = say

    def prepare(self) -> None:
        """Create the tables that record what was applied."""
        self._clear_unfinished_yoyo()
        self.backend.ensure_internal_schema_updated()
        execute(
            self.conn,
            f"CREATE TABLE IF NOT EXISTS {STEP_TABLE} ("
            " migration_id VARCHAR(255) NOT NULL PRIMARY KEY, direction VARCHAR(16) NOT NULL,"
            " steps_done INT NOT NULL, under_way TINYINT NOT NULL, digest CHAR(64) NOT NULL) ENGINE=InnoDB",
        )

    def _clear_unfinished_yoyo(self) -> None:
        # Killed while yoyo made its tables, it can't go on; as long as nothing is recorded they can be made
        # anew.
        tables = ("_yoyo_version", YOYO_TABLE, "_yoyo_log")
        there = [table for table in tables if table_exists(self.conn, self.database, table)]
        filled = [table for table in there if query(self.conn, f"SELECT 1 FROM {table} LIMIT 1")]
        if there and "_yoyo_version" not in filled and YOYO_TABLE not in filled:
            for table in there:
                execute(self.conn, f"DROP TABLE {table}")

    def _note(self, migration: Any, direction: str, steps_done: int, under_way: bool, digest: str) -> None:
        with self.conn.cursor() as cursor:
            cursor.execute(
                f"REPLACE INTO {STEP_TABLE} (migration_id, direction, steps_done, under_way, digest)"
                " VALUES (%s, %s, %s, %s, %s)",
                (migration.id, direction, steps_done, under_way, digest),
            )

    def _unnote(self, migration: Any) -> None:
        with self.conn.cursor() as cursor:
            cursor.execute(f"DELETE FROM {STEP_TABLE} WHERE migration_id=%s", (migration.id,))

    def _finish(self, migration: Any, direction: str) -> None:
        with self.backend.transaction():
            if direction == "apply":
                self.backend.mark_one(migration, log=False)
            else:
                self.backend.unmark_one(migration, log=False)
            self.backend.log_migration(migration, direction)
            self._unnote(migration)

    def apply(self, migration: Any, half: HalfDone | None) -> None:
        """Apply a migration, from where it stopped if it did."""
        # What a migration that goes on had changed before can't be told from what somebody changed by hand.
        before = {} if half else self.table_checksums()
        steps = list(migration.steps)
        start = half.steps_done if half else 0
        if half and half.digest != _digest(steps[:start]):
            raise MigrationError(
                f"{half}, and its file has been changed in these steps since",
                "put the file back and run `jobmon db migrate` again, or undo it by `jobmon db rollback`",
            )
        for number, step in enumerate(steps[start:], start=start):
            tolerated = _ALREADY_APPLIED if half and half.under_way and number == start else frozenset()
            self._note(migration, "apply", number, True, _digest(steps[:number]))
            try:
                patiently(
                    lambda number=number, step=step, tolerated=tolerated: self._apply_step(  # type: ignore[misc]
                        migration, steps, number, step, tolerated
                    ),
                    patience=self.patience,
                )
            except pymysql.err.Error as error:
                if self.conn.open:
                    self._note(migration, "apply", number, False, _digest(steps[:number]))
                raise self._stopped(migration, error, number, len(steps)) from error
        # Before it counts as applied: a crash in between must not leave the tables unrecorded.
        self.record_tables(before)
        self._finish(migration, "apply")

    def _apply_step(
        self, migration: Any, steps: list[Any], number: int, step: Any, tolerated: frozenset[int]
    ) -> None:
        # A step of data and the note of it are one transaction. DDL commits by itself; then the note says
        # "under way", and if that is the last word, the step may find itself done already.
        with self.backend.transaction():
            try:
                step.apply(self.backend)
            except pymysql.err.Error as error:
                if errno_of(error) not in tolerated:
                    raise
                self.say(f"step {number + 1} of {migration.id} had been done already")
            self._note(migration, "apply", number + 1, False, _digest(steps[: number + 1]))

    def _stopped(self, migration: Any, error: pymysql.err.Error, number: int, total: int) -> MigrationError:
        message = error.args[1] if len(error.args) > 1 else str(error)
        if errno_of(error) in (1205, 1213):
            message = f"clients held a lock on what it changes for more than {self.patience:g} s: {message}"
        return MigrationError(
            f"migration {migration.id} stopped at step {number + 1} of {total}:"
            f" {message} ({errno_of(error)})",
            "the steps before it are done; repair the cause and run `jobmon db migrate` again, which goes on"
            " at this step, or undo them by `jobmon db rollback`",
        )

    def rollback(self, migration: Any, *, complete: bool) -> None:
        """Undo a migration. complete: all of it was applied; else what it did not do may be missing."""
        before = self.table_checksums() if complete else {}
        self._note(migration, "rollback", 0, True, "")
        for step in reversed(list(migration.steps)):

            def undo(step: Any = step) -> None:
                try:
                    step.rollback(self.backend)
                except pymysql.err.Error as error:
                    if complete or errno_of(error) not in _ALREADY_GONE:
                        raise

            try:
                patiently(undo, patience=self.patience)
            except pymysql.err.Error as error:
                message = error.args[1] if len(error.args) > 1 else str(error)
                raise MigrationError(
                    f"the rollback of migration {migration.id} stopped: {message} ({errno_of(error)})",
                    "repair the cause and run `jobmon db rollback` again",
                ) from error
        self.record_tables(before)
        self._finish(migration, "rollback")

    def apply_pending(self, migrations: Any, half: HalfDone | None, result: MigrateResult) -> None:
        """Apply those of the migrations that were not applied, in order."""
        done = set(applied_migrations(self.conn, self.database))
        pending = [migration for migration in migrations if migration.id not in done]
        if pending:
            for name in [] if half else sorted(self.changed_tables()):
                result.warnings.append(f"the table {name} was changed by hand since the last migration")
            for migration in pending:
                self.say(f"applying migration {migration.id}")
                self.apply(migration, half if half and half.migration == migration.id else None)
                result.applied.append(migration.id)

    def load_objects(self, owner: str, sql_dir: Path | None, result: MigrateResult) -> None:
        """Load the routines, triggers and views that differ from the files."""
        use_collation(self.conn)
        if table_exists(self.conn, self.database, "schema_object"):
            result.objects = Loader(self.conn, self.database, owner, patience=self.patience).load_all(sql_dir)
            _count_changes(self.conn, self.database)
        for name in [*result.objects.loaded]:
            self.say(f"loaded {name}")
        for name in [*result.objects.dropped]:
            self.say(f"dropped {name}")

    def note_restore(self, name: str) -> None:
        """Record that a dump is being restored here: until that is forgotten, nothing else is done."""
        execute(
            self.conn,
            f"REPLACE INTO {STEP_TABLE} (migration_id, direction, steps_done, under_way, digest)"
            " VALUES (%s, 'restore', 0, 1, '')",
            (name,),
        )

    def forget_restore(self) -> None:
        """The restore has come to its end."""
        execute(self.conn, f"DELETE FROM {STEP_TABLE} WHERE direction = 'restore'")

    # Fingerprints of the tables, by which `jobmon db validate` finds what was changed by hand

    def changed_tables(self) -> set[str]:
        """The tables that are not as they were recorded after the last migration."""
        recorded = self._recorded_tables()
        live = {table.name: table.checksum for table in read_tables(self.conn, self.database)}
        return {name for (_, name), checksum in recorded.items() if live.get(name) != checksum}

    def _recorded_tables(self) -> dict[Key, str]:
        if not table_exists(self.conn, self.database, "schema_object"):
            return {}
        rows = recorded_objects(self.conn, self.database)
        return {key: live for key, (_, live) in rows.items() if key[0] == "TABLE"}

    def record_tables(self, before: dict[str, str]) -> None:
        """Record the tables as they are now, but for those changed by hand which no migration touched since.

        before: the checksums of all tables before the migrations.
        """
        if not table_exists(self.conn, self.database, "schema_object"):
            return
        recorded = self._recorded_tables()
        live = {table.name: table.checksum for table in read_tables(self.conn, self.database)}
        rows = []
        for name, checksum in live.items():
            if ("TABLE", name) not in recorded or before.get(name) != checksum:
                rows.append(("TABLE", name, "", checksum))
        record_objects(self.conn, self.database, rows)
        forget_objects(self.conn, self.database, [key for key in recorded if key[1] not in live])

    def table_checksums(self) -> dict[str, str]:
        return {table.name: table.checksum for table in read_tables(self.conn, self.database)}


def should_count_changes(conn: Connection, database: str) -> bool | None:
    """Whether change_shard_count should have rows and has none (on a node of Galera), or (False) should have
    none and has some; None when all is as it should be.
    """
    if not table_exists(conn, database, "change_shard_count"):
        return None
    galera = dict(query(conn, "SHOW VARIABLES LIKE 'wsrep_on'")).get("wsrep_on") == "ON"
    schema = quote_name(database)
    has_rows = bool(query(conn, f"SELECT 1 FROM {schema}.change_shard_count LIMIT 1"))
    is_counted = bool(query(conn, f"SELECT 1 FROM {schema}.change_shard WHERE is_counted LIMIT 1"))
    return None if galera == has_rows == is_counted else galera


def _count_changes(conn: Connection, database: str) -> None:
    count = should_count_changes(conn, database)
    if count is None:
        return
    schema = quote_name(database)
    if count:
        rows = f"SELECT change_shard FROM {schema}.change_shard"
        execute(conn, f"INSERT IGNORE INTO {schema}.change_shard_count (change_shard) {rows}")
        execute(conn, f"UPDATE {schema}.change_shard SET is_counted = TRUE")
    else:
        execute(conn, f"UPDATE {schema}.change_shard SET is_counted = FALSE")
        execute(conn, f"DELETE FROM {schema}.change_shard_count")


def _ignore(_: str) -> None:
    pass


@contextmanager
def open_run(
    spec: ConnectionSpec, *, create: bool, lock_timeout: float = 600.0, patience: float = 120.0, say: Say
) -> Iterator[tuple[_Run, bool]]:
    """A locked run on the database; yields it and whether the database was created."""
    database = database_of(spec)
    created = False
    if create:
        # The database must be there before a connection can have it as its default.
        conn = open_for_ddl(spec.with_database(None))
        try:
            with schema_lock(conn, database, timeout=lock_timeout):
                created = ensure_database(conn, database)
        finally:
            conn.close()
    backend = _Backend(spec.with_database(database), YOYO_TABLE)
    try:
        with schema_lock(backend.connection, database, timeout=lock_timeout):
            yield _Run(backend, database, patience=patience, say=say), created
    finally:
        if backend.connection.open:
            backend.connection.close()


def migrate(
    spec: ConnectionSpec,
    *,
    owner: str = DEFAULT_OWNER,
    migrations_dir: Path | None = None,
    sql_dir: Path | None = None,
    lock_timeout: float = 600.0,
    patience: float = 120.0,
    say: Say = _ignore,
) -> MigrateResult:
    """Create what is missing, apply what is pending, load the routines, triggers and views that differ.

    It may be run at any time and by any number of processes: they take turns, and who finds nothing to do
    changes nothing.

    spec: an admin, or the migrator once ``jobmon db grants`` has made it; its database is the one to migrate
    (``jobmon`` if it names none). owner: the account, without host, that owns the routines; created if
    missing. migrations_dir, sql_dir: other files than those of this code. lock_timeout: seconds to wait for
    others that migrate. patience: seconds to try to get a lock that clients hold. say: told what happens,
    for people.

    Raises NewerDatabaseError, MigrationError, LoadError, SqlFileError, BusyError, DatabaseError, and
    pymysql's errors if the database can't be reached.
    """
    migrations = read_migrations(migrations_dir)
    opened = open_run(spec, create=True, lock_timeout=lock_timeout, patience=patience, say=say)
    with opened as (run, created):
        conn, database = run.conn, run.database
        result = MigrateResult(created_database=created)
        refuse_newer_database(conn, database, migrations_dir)
        result.created_owner = ensure_owner(conn, database, owner)
        half = half_done(conn, database)
        if half and half.direction == "rollback":
            raise MigrationError(str(half), "finish it by `jobmon db rollback`")
        if half and half.direction == "restore":
            raise MigrationError(str(half), "begin it anew by `jobmon db restore`")
        # Only then are tables of ours made in what may be somebody else's database.
        run.prepare()
        run.apply_pending(migrations, half, result)
        run.load_objects(owner, sql_dir, result)
    return result


def rollback(
    spec: ConnectionSpec,
    *,
    to: int | None = None,
    migrations_dir: Path | None = None,
    lock_timeout: float = 600.0,
    patience: float = 120.0,
    say: Say = _ignore,
) -> list[str]:
    """Undo migrations, the last one first; returns their names.

    What was loaded is dropped first: the routines, triggers and views belong to the newer tables. The code
    that belongs to the older ones loads its own by ``jobmon db migrate``.

    to: the schema version to go back to, 0 for an empty database; None undoes one migration (one that stopped
    half-way, if there is one). The other parameters and errors are those of :func:`migrate`.
    """
    migrations = read_migrations(migrations_dir)
    with open_run(spec, create=False, lock_timeout=lock_timeout, patience=patience, say=say) as (run, _):
        conn, database = run.conn, run.database
        refuse_newer_database(conn, database, migrations_dir)
        half = half_done(conn, database)
        if half and half.direction == "restore":
            raise MigrationError(str(half), "begin it anew by `jobmon db restore`")
        done = set(applied_migrations(conn, database))
        numbered = list(enumerate(migrations, start=1))
        present = [(n, m) for n, m in numbered if m.id in done or (half and half.migration == m.id)]
        if not present:
            return []
        target = present[-1][0] - 1 if to is None else to
        if not 0 <= target <= len(migrations):
            raise MigrationError(
                f"there is no schema version {target}", f"versions are 0 to {len(migrations)}"
            )
        todo = [m for n, m in reversed(present) if n > target]
        if not todo:
            return []
        run.prepare()
        for name in Loader(conn, database, "", patience=patience).drop_all():
            say(f"dropped {name}")
        undone = []
        for migration in todo:
            say(f"rolling back migration {migration.id}")
            run.rollback(migration, complete=not (half and half.migration == migration.id))
            undone.append(migration.id)
        return undone
