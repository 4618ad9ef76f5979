"""Load the routines, triggers and views of ``sql/`` into a database, by checksum, while clients work.

Only what differs is loaded: a file that changed since it was loaded, and an object that was changed by hand.
MariaDB replaces each object in one statement. MySQL can't replace routines and triggers:

- a trigger is dropped and created while its table is locked for writing, so that no write gets past it;
- a routine is dropped, created and granted again to all who could execute it, in one packet. For that
  moment, one or two milliseconds, a caller gets error 1305 or 1370, which
  :func:`jobmon.db.connect.call_with_retry` retries. Who writes a table by hand, and has a trigger that
  calls a function, may see it as well.

Triggers of one table and event run in the order of their names, unless a file says FOLLOWS or PRECEDES.
"""

from __future__ import annotations

import hashlib
import random
import re
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pymysql
from pymysql.connections import Connection
from pymysql.constants import CLIENT

from jobmon.db import files
from jobmon.db.catalog import (
    DatabaseError,
    Key,
    LiveObject,
    execute,
    is_mariadb,
    query,
    quote_name,
    read_objects,
    table_exists,
)
from jobmon.db.connect import ConnectionSpec, connect, errno_of

KINDS = {"functions": "FUNCTION", "procedures": "PROCEDURE", "views": "VIEW", "triggers": "TRIGGER"}

# Part of each file's checksum: raise it when what is made of a file changes, and everything is loaded again.
LOADER_VERSION = 1

# Seconds to wait for the lock of a table or routine that clients use. Clients queue up behind the one who
# waits, so it waits shortly, lets them through, and tries again.
LOCK_WAIT_S = 1

_NAME = r"(?:`(?P<quoted>[^`]+)`|(?P<plain>\w+))"
_NAME_ONLY = r"(?:`[^`]+`|\w+)"
_CREATE = re.compile(
    rf"CREATE\s+(?P<view>(?:ALGORITHM\s*=\s*\w+\s+)?(?:SQL\s+SECURITY\s+(?P<security>\w+)\s+)?)"
    rf"(?P<kind>PROCEDURE|FUNCTION|TRIGGER|VIEW)\s+{_NAME}",
    re.IGNORECASE,
)
_LEADING_COMMENTS = re.compile(r"(?:\s+|--(?=\s)[^\n]*(?:\n|$)|#[^\n]*(?:\n|$)|/\*(?!!).*?\*/)*", re.DOTALL)
_TRIGGER = re.compile(
    rf"\s+(?P<timing>BEFORE|AFTER)\s+(?P<event>INSERT|UPDATE|DELETE)\s+ON\s+{_NAME}\s+FOR\s+EACH\s+ROW\b"
    r"(?P<order>\s+(?:FOLLOWS|PRECEDES)\s+\S+)?",
    re.IGNORECASE,
)
_ACCESS = re.compile(r"^\s*(?:--\s*)?Access:\s*(\S+)\s*$", re.MULTILINE | re.IGNORECASE)
_SECURITY = re.compile(r"\bSQL\s+SECURITY\s+(DEFINER|INVOKER)\b", re.IGNORECASE)


class SqlFileError(DatabaseError):
    """A file below ``sql/`` is not what the loader expects; the message names it."""


class LoadError(DatabaseError):
    """An object could not be loaded; the message names its file and says what the server said."""


@dataclass(frozen=True)
class SqlObject:
    """One file below ``sql/``.

    kind: PROCEDURE, FUNCTION, TRIGGER or VIEW. name: of the object, which is the file's. text: the file's
    text. access: ``JSM``, ``JQS`` or ``internal`` (triggers: internal). security: DEFINER or INVOKER
    (triggers: None). table, timing, event, ordered: of a trigger; ordered if the file itself says FOLLOWS
    or PRECEDES.
    """

    kind: str
    name: str
    path: Path
    text: str
    access: str
    security: str | None = None
    table: str | None = None
    timing: str | None = None
    event: str | None = None
    ordered: bool = False

    @property
    def checksum(self) -> str:
        """SHA-256 of the text and of the loader's version, in hexadecimal."""
        return hashlib.sha256(f"{LOADER_VERSION}\n{self.text}".encode()).hexdigest()

    def statement(self, owner: str, *, replace: bool, precedes: str | None = None) -> str:
        """The statement that creates the object.

        owner: account (without host) that is made its definer. replace: say OR REPLACE.
        precedes: name of the trigger that must come right after this one, or None.
        """
        start = _LEADING_COMMENTS.match(self.text).end()  # type: ignore[union-attr]
        match = _CREATE.match(self.text, start)
        assert match is not None  # read_sql_dir has seen to it
        head = "CREATE OR REPLACE" if replace else "CREATE"
        options = match["view"]
        if self.kind == "VIEW":
            algorithm = re.match(r"ALGORITHM\s*=\s*\w+\s+", options, re.IGNORECASE)
            head += f" {algorithm[0].strip()}" if algorithm else ""
        head += f" DEFINER={quote_name(owner)}@`localhost`"
        if self.kind == "VIEW":
            head += f" SQL SECURITY {self.security}"
        rest = self.text[match.end() :]
        if precedes is not None:
            trigger = _TRIGGER.match(rest)
            assert trigger is not None
            rest = f"{rest[: trigger.end()]} PRECEDES {quote_name(precedes)}{rest[trigger.end() :]}"
        return f"{head} {self.kind} {quote_name(self.name)}{rest}"


@dataclass
class LoadResult:
    """What loading did: names as ``kind name``."""

    loaded: list[str] = field(default_factory=list)
    dropped: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.loaded or self.dropped)


def _parse_file(kind: str, path: Path) -> SqlObject:
    def refuse(what: str, hint: str = "") -> SqlFileError:
        return SqlFileError(f"{path}: {what}", hint)

    try:
        text = path.read_text(encoding="utf-8").strip().removesuffix(";").rstrip()
    except UnicodeDecodeError:
        raise refuse("is not UTF-8 text") from None
    except OSError as error:
        raise refuse(f"cannot be read: {error.strerror}") from None
    form = f"the file holds one statement, CREATE {kind} {path.stem} ..., after comment lines if any"
    start = _LEADING_COMMENTS.match(text).end()  # type: ignore[union-attr]
    match = _CREATE.match(text, start)
    if match is None:
        if re.match(r"CREATE\s+(OR\s+REPLACE|DEFINER)", text[start:], re.IGNORECASE):
            raise refuse(
                "says OR REPLACE or DEFINER", "leave both out: the loader adds what each server needs"
            )
        raise refuse("does not start with CREATE", form)
    if match["kind"].upper() != kind:
        raise refuse(f"creates a {match['kind'].lower()}, but is among the {path.parent.name}", form)
    name = match["quoted"] or match["plain"]
    if name != path.stem:
        raise refuse(f"creates {name}, but the file is named {path.stem}", form)
    access = _ACCESS.findall(text)
    if kind == "TRIGGER":
        trigger = _TRIGGER.match(text, match.end())
        if trigger is None:
            raise refuse(
                "is no row trigger", "CREATE TRIGGER name BEFORE|AFTER event ON table FOR EACH ROW ..."
            )
        return SqlObject(
            kind,
            name,
            path,
            text,
            access="internal",
            table=trigger["quoted"] or trigger["plain"],
            timing=trigger["timing"].upper(),
            event=trigger["event"].upper(),
            ordered=bool(trigger["order"]),
        )
    role = "JQS" if kind == "VIEW" else "JSM"
    if len(access) != 1 or access[0] not in (role, "internal"):
        where = "a leading comment line" if kind == "VIEW" else "the COMMENT"
        raise refuse(
            "does not say who may use it", f"write one line 'Access: {role}' or 'Access: internal' in {where}"
        )
    if kind == "VIEW":
        security = (match["security"] or "DEFINER").upper()
    else:
        found = _SECURITY.search(text)
        security = found[1].upper() if found else "DEFINER"
    return SqlObject(kind, name, path, text, access=access[0], security=security)


def read_sql_dir(sql_dir: Path | None = None) -> dict[Key, SqlObject]:
    """All files of ``functions/``, ``procedures/``, ``views/`` and ``triggers/``, by (kind, name).

    sql_dir: the directory; the one that belongs to this code if None.
    Raises SqlFileError when a file is not of the form that the loader expects.
    """
    root = files.sql_dir() if sql_dir is None else sql_dir
    found: dict[Key, SqlObject] = {}
    for directory, kind in KINDS.items():
        for path in sorted((root / directory).glob("*.sql")):
            found[kind, path.stem] = _parse_file(kind, path)
    return found


def open_for_ddl(spec: ConnectionSpec) -> Connection:
    """A connection for changing a schema: patient with slow statements, impatient with clients' locks.

    Its collation is the database's, since routines keep that of the session which created them, and
    comparisons in them must be exact whatever the server's default is.
    """
    conn = connect(
        spec,
        read_timeout=None,
        write_timeout=None,
        session={"lock_wait_timeout": LOCK_WAIT_S, "innodb_lock_wait_timeout": 5},
        client_flag=CLIENT.MULTI_STATEMENTS,
    )
    if spec.database is not None:
        use_collation(conn)
    return conn


def use_collation(conn: Connection) -> None:
    """Make the default database's collation (if it is of utf8mb4) the connection's."""
    [(collation,)] = query(conn, "SELECT @@collation_database")
    if str(collation).startswith("utf8mb4_"):
        execute(conn, f"SET NAMES utf8mb4 COLLATE {collation}")


def patiently(action: Callable[[], None], *, patience: float) -> None:
    """Do ``action`` again while it fails for locks that clients hold, for at most ``patience`` seconds."""
    deadline = time.monotonic() + patience
    while True:
        try:
            action()
            return
        except pymysql.err.Error as error:
            if errno_of(error) not in (1205, 1213) or time.monotonic() > deadline:
                raise
        time.sleep(random.uniform(0.05, 0.5))


def recorded_objects(conn: Connection, database: str) -> dict[Key, tuple[str, str]]:
    """The table schema_object: (kind, name) -> (file's checksum, live object's checksum) when it was
    loaded.
    """
    return {
        (kind, name): (file_checksum, live_checksum)
        for kind, name, file_checksum, live_checksum in query(
            conn,
            "SELECT object_type, object_name, file_checksum, live_checksum"
            f" FROM {quote_name(database)}.schema_object",
        )
    }


def record_objects(conn: Connection, database: str, rows: Iterable[tuple[str, str, str, str]]) -> None:
    """Write rows (kind, name, file's checksum, live checksum) to the table schema_object."""
    with conn.cursor() as cursor:
        for row in rows:
            cursor.execute(
                f"REPLACE INTO {quote_name(database)}.schema_object"
                " (object_type, object_name, file_checksum, live_checksum, loaded_date)"
                " VALUES (%s, %s, %s, %s, UTC_TIMESTAMP(6))",
                row,
            )


def forget_objects(conn: Connection, database: str, keys: Iterable[Key]) -> None:
    """Delete rows of the table schema_object."""
    with conn.cursor() as cursor:
        for key in keys:
            cursor.execute(
                f"DELETE FROM {quote_name(database)}.schema_object WHERE object_type=%s AND object_name=%s",
                key,
            )


class Loader:
    """Brings the routines, triggers and views of one database to the state of the files.

    conn: made by :func:`open_for_ddl`, with the database as its default. owner: the definer, without host.
    patience: seconds to go on trying to get a lock that clients hold.
    """

    def __init__(self, conn: Connection, database: str, owner: str, *, patience: float = 120.0) -> None:
        self.conn = conn
        self.database = database
        self.owner = owner
        self.patience = patience
        self.mariadb = is_mariadb(conn)

    # What is to be done

    def stale(
        self, wanted: dict[Key, SqlObject], live: dict[Key, LiveObject], recorded: dict[Key, tuple[str, str]]
    ) -> list[SqlObject]:
        """The files whose object is missing, was loaded from another text, or was changed by hand."""
        definer = f"{self.owner}@localhost"
        found = []
        for key, file in wanted.items():
            now = live.get(key)
            if (
                now is None
                or recorded.get(key) != (file.checksum, now.checksum)
                or now.definer != definer
                or now.security != file.security
            ):
                found.append(file)
        late = {(file.kind, file.name) for file in found}
        found += [file for file in misplaced_triggers(wanted, live) if (file.kind, file.name) not in late]
        return found

    def load_all(self, sql_dir: Path | None = None) -> LoadResult:
        """Load what differs, and drop what was loaded once and has no file any more.

        Raises SqlFileError, LoadError. What was replaced before an error stays; loading again goes on there.
        """
        wanted = read_sql_dir(sql_dir)
        if not table_exists(self.conn, self.database, "schema_object"):
            raise LoadError(
                f"the database {self.database} has no table schema_object", "run `jobmon db migrate` first"
            )
        live = read_objects(self.conn, self.database)
        recorded = recorded_objects(self.conn, self.database)
        todo = self.stale(wanted, live, recorded)
        result = LoadResult()
        self._check_binlog_rule(todo)
        for kind in ("FUNCTION", "PROCEDURE", "VIEW", "TRIGGER"):
            batch = [file for file in todo if file.kind == kind]
            if not batch:
                continue
            done: list[SqlObject] = []
            try:
                if kind == "VIEW":
                    self._load_views(batch, done)
                else:
                    for file in sorted(batch, key=lambda file: file.name, reverse=kind == "TRIGGER"):
                        self._load(file, live)
                        done.append(file)
            finally:
                self._record(done)
                result.loaded += [f"{file.kind.lower()} {file.name}" for file in done]
        for key in sorted(recorded):
            kind, name = key
            if kind in KINDS.values() and key not in wanted:
                if key in live:
                    self.drop(kind, name)
                    result.dropped.append(f"{kind.lower()} {name}")
                forget_objects(self.conn, self.database, [key])
        return result

    def drop_all(self) -> list[str]:
        """Drop every object that was loaded; returns their names. Triggers go last."""
        if not table_exists(self.conn, self.database, "schema_object"):
            return []
        recorded = recorded_objects(self.conn, self.database)
        dropped = []
        for kind in ("PROCEDURE", "FUNCTION", "VIEW", "TRIGGER"):
            for key in sorted(recorded):
                if key[0] == kind:
                    self.drop(*key)
                    forget_objects(self.conn, self.database, [key])
                    dropped.append(f"{kind.lower()} {key[1]}")
        return dropped

    def drop(self, kind: str, name: str) -> None:
        """Drop one object if it is there."""
        patiently(
            lambda: execute(self.conn, f"DROP {kind} IF EXISTS {quote_name(name)}"), patience=self.patience
        )

    # How it is done

    def _record(self, done: list[SqlObject]) -> None:
        if not done:
            return
        live = read_objects(self.conn, self.database)
        record_objects(
            self.conn,
            self.database,
            [
                (file.kind, file.name, file.checksum, live[file.kind, file.name].checksum)
                for file in done
                if (file.kind, file.name) in live
            ],
        )

    def _check_binlog_rule(self, todo: list[SqlObject]) -> None:
        # Found out before anything is dropped: afterwards the old trigger could not be put back either.
        if not any(file.kind in ("TRIGGER", "FUNCTION") for file in todo):
            return
        [(log_bin, trusted)] = query(self.conn, "SELECT @@log_bin, @@log_bin_trust_function_creators")
        if not log_bin or trusted:
            return
        grants = [str(grant) for (grant,) in query(self.conn, "SHOW GRANTS")]
        if not any(" ON *.* " in g and re.search(r"\bSUPER\b|^GRANT ALL PRIVILEGES", g) for g in grants):
            raise binlog_rule_error()

    def _load_views(self, batch: list[SqlObject], done: list[SqlObject]) -> None:
        # A view may use others that are not there yet: go round while that brings any further.
        waiting = batch
        while waiting:
            failed: list[tuple[SqlObject, LoadError]] = []
            for file in waiting:
                try:
                    self._load(file, {})
                    done.append(file)
                except LoadError as error:
                    failed.append((file, error))
            if len(failed) == len(waiting):
                raise failed[0][1]
            waiting = [file for file, _ in failed]

    def _load(self, file: SqlObject, live: dict[Key, LiveObject]) -> None:
        old = live.get((file.kind, file.name))
        try:
            if file.kind == "TRIGGER":
                self._load_trigger(file, old)
            elif self.mariadb or file.kind == "VIEW":
                self._patiently(file.statement(self.owner, replace=True))
            elif old is None:
                self._patiently(file.statement(self.owner, replace=False))
            else:
                self._swap_routine(file)
        except pymysql.err.Error as error:
            raise self._load_error(file, error) from error

    def _patiently(self, statement: str) -> None:
        patiently(lambda: execute(self.conn, statement), patience=self.patience)

    def _load_error(self, file: SqlObject, error: pymysql.err.Error) -> LoadError:
        errno = errno_of(error)
        message = error.args[1] if len(error.args) > 1 else str(error)
        what = f"{file.path}: the server refuses it: {message} ({errno})"
        if errno in (1418, 1419):
            return binlog_rule_error()
        if errno in (1205, 1213):
            return LoadError(
                f"{file.path}: clients held a lock on what it replaces for more than {self.patience:g} s",
                "look for a transaction that is open for long (SHOW PROCESSLIST), end it, and run this again",
            )
        if errno in (1044, 1142, 1227, 1370):
            return LoadError(what, "run this as admin, or repair the account by `jobmon db grants`")
        return LoadError(what)

    # MySQL: routines

    def _swap_routine(self, file: SqlObject) -> None:
        name = quote_name(file.name)
        grants = self._routine_grants(file)
        create = file.statement(self.owner, replace=False)
        swap = "; ".join([f"DROP {file.kind} IF EXISTS {name}", create, *grants])
        [old] = query(self.conn, f"SHOW CREATE {file.kind} {name}")

        def attempt() -> None:
            try:
                execute(self.conn, swap)
            except pymysql.err.Error:
                self._restore_routine(file, str(old[1]), str(old[2]), grants)
                raise

        patiently(attempt, patience=self.patience)

    def _restore_routine(self, file: SqlObject, sql_mode: str, create: str, grants: list[str]) -> None:
        if (file.kind, file.name) in read_objects(self.conn, self.database):
            return
        statements = ["SET @jobmon_sql_mode=@@sql_mode", f"SET sql_mode='{sql_mode}'", create]
        try:
            self._patiently("; ".join([*statements, *grants]))
        finally:
            execute(self.conn, "SET sql_mode=COALESCE(@jobmon_sql_mode, @@sql_mode)")

    def _routine_grants(self, file: SqlObject) -> list[str]:
        try:
            rows = query(
                self.conn,
                "SELECT User, Host, Proc_priv FROM mysql.procs_priv"
                " WHERE Db=%s AND Routine_name=%s AND Routine_type=%s",
                (self.database, file.name, file.kind),
            )
        except pymysql.err.Error as error:
            if errno_of(error) not in (1142, 1143):
                raise
            raise LoadError(
                f"this account may not read mysql.procs_priv, so it can't keep the grants on {file.name}",
                "run this as admin, or repair the migrator account by `jobmon db grants`",
            ) from error
        statements = []
        for user, host, privileges in rows:
            names = [part.strip() for part in str(privileges).split(",") if part.strip()]
            option = " WITH GRANT OPTION" if "Grant" in names else ""
            listed = ", ".join(part for part in names if part != "Grant") or "USAGE"
            account = "@".join("'" + pymysql.converters.escape_string(part) + "'" for part in (user, host))
            statements.append(f"GRANT {listed} ON {file.kind} {quote_name(file.name)} TO {account}{option}")
        return statements

    # Triggers

    def _load_trigger(self, file: SqlObject, old: LiveObject | None) -> None:
        precedes = None if file.ordered else self._successor(file)
        if self.mariadb and (old is None or old.table == file.table):
            self._patiently(file.statement(self.owner, replace=True, precedes=precedes))
        elif old is None:
            self._patiently(file.statement(self.owner, replace=False, precedes=precedes))
        else:
            self._swap_trigger(file, old, precedes)

    def _successor(self, file: SqlObject) -> str | None:
        names = sorted(
            row[0]
            for row in query(
                self.conn,
                "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA=%s"
                " AND EVENT_OBJECT_TABLE=%s AND ACTION_TIMING=%s AND EVENT_MANIPULATION=%s",
                (self.database, file.table, file.timing, file.event),
            )
        )
        return next((name for name in names if name > file.name), None)

    def _swap_trigger(self, file: SqlObject, old: LiveObject, precedes: str | None) -> None:
        assert old.table is not None and file.table is not None
        name = quote_name(file.name)
        create = file.statement(self.owner, replace=False, precedes=precedes)
        [shown] = query(self.conn, f"SHOW CREATE TRIGGER {name}")
        restore = _in_place(str(shown[2]), self._next_trigger(old))
        tables = ", ".join(f"{quote_name(table)} WRITE" for table in sorted({old.table, file.table}))

        def attempt() -> None:
            try:
                execute(self.conn, f"LOCK TABLES {tables}; DROP TRIGGER {name}; {create}; UNLOCK TABLES")
            except pymysql.err.Error:
                # If it came as far as the drop, the tables are still locked: nobody has missed the trigger
                # yet.
                self._restore_trigger(file, str(shown[1]), restore)
                raise
            finally:
                execute(self.conn, "UNLOCK TABLES")

        patiently(attempt, patience=self.patience)

    def _next_trigger(self, old: LiveObject) -> str | None:
        rows = query(
            self.conn,
            "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA=%s"
            " AND EVENT_OBJECT_TABLE=%s AND ACTION_TIMING=%s AND EVENT_MANIPULATION=%s AND ACTION_ORDER>%s"
            " ORDER BY ACTION_ORDER LIMIT 1",
            (self.database, old.table, old.timing, old.event, old.order),
        )
        return rows[0][0] if rows else None

    def _restore_trigger(self, file: SqlObject, sql_mode: str, create: str) -> None:
        there = query(
            self.conn,
            "SELECT 1 FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA=%s AND TRIGGER_NAME=%s",
            (self.database, file.name),
        )
        if there:
            return
        execute(self.conn, f"SET @jobmon_sql_mode=@@sql_mode; SET sql_mode='{sql_mode}'")
        try:
            self._patiently(create)
        finally:
            execute(self.conn, "SET sql_mode=@jobmon_sql_mode")


def _in_place(create: str, precedes: str | None) -> str:
    """A statement of SHOW CREATE TRIGGER, which does not tell the order, with the trigger it must precede."""
    head = re.search(rf"\sTRIGGER\s+(?:{_NAME_ONLY}\.)?{_NAME_ONLY}", create, re.IGNORECASE)
    trigger = _TRIGGER.match(create, head.end()) if head else None
    if trigger is None or trigger["order"] or precedes is None:
        return create
    return f"{create[: trigger.end()]} PRECEDES {quote_name(precedes)}{create[trigger.end() :]}"


def binlog_rule_error() -> LoadError:
    """The error of a server with a binary log that lets only SUPER accounts create triggers and functions."""
    return LoadError(
        "the server writes a binary log and does not let this account create triggers or functions (1419)",
        "start the server with log_bin_trust_function_creators=1, or run this as root (who has SUPER)",
    )


def misplaced_triggers(wanted: dict[Key, SqlObject], live: dict[Key, LiveObject]) -> list[SqlObject]:
    """The triggers to create again, so that those of one table and event run in the files' order."""
    groups: dict[tuple[str | None, str | None, str | None], list[LiveObject]] = {}
    for key, now in live.items():
        if now.kind == "TRIGGER" and key in wanted and not wanted[key].ordered:
            groups.setdefault((now.table, now.timing, now.event), []).append(now)
    found = []
    for group in groups.values():
        ordered = [now.name for now in sorted(group, key=lambda now: now.order)]
        if ordered != sorted(ordered):
            found += [wanted["TRIGGER", name] for name in ordered]
    return found


def load_all(
    conn: Connection, database: str, *, owner: str, sql_dir: Path | None = None, patience: float = 120.0
) -> LoadResult:
    """Bring the routines, triggers and views of a database to the state of the files; see :class:`Loader`.

    Nothing is locked against another loader: :func:`jobmon.db.migrate.migrate` sees to that.
    """
    return Loader(conn, database, owner, patience=patience).load_all(sql_dir)
