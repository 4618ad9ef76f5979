"""What is really in a database: its tables, routines, triggers and views, in a form that can be compared."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any

import pymysql
from pymysql.connections import Connection

Key = tuple[str, str]

# Tables of the migration tool, not of the schema.
INTERNAL_TABLES = frozenset(
    {"_yoyo_log", "_yoyo_migration", "_yoyo_version", "yoyo_lock", "_jobmon_migration_step"}
)


class DatabaseError(Exception):
    """Something about the database that its operator must know or do.

    message: what is wrong. hint: what to do about it, or "".
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


@dataclass(frozen=True)
class LiveObject:
    """One object of a live schema.

    kind: TABLE, PROCEDURE, FUNCTION, TRIGGER, VIEW or EVENT. text: all that defines it, normalised and
    without the database's name, definer and security, which are apart. table, timing, event, order: of a
    trigger.
    """

    kind: str
    name: str
    text: str
    definer: str | None = None
    security: str | None = None
    table: str | None = None
    timing: str | None = None
    event: str | None = None
    order: int = 0

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hexadecimal."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def quote_name(name: str) -> str:
    """An identifier in backticks."""
    return "`" + name.replace("`", "``") + "`"


def query(conn: Connection, sql: str, args: Any = None) -> list[tuple[Any, ...]]:
    """All rows of one statement."""
    with conn.cursor() as cursor:
        cursor.execute(sql, args)
        return list(cursor.fetchall())


def execute(conn: Connection, sql: str, args: Any = None) -> None:
    """Run a statement, or several in one packet if the connection allows it, and see every error of them."""
    with conn.cursor() as cursor:
        cursor.execute(sql, args)
        while cursor.nextset():
            pass


def is_mariadb(conn: Connection) -> bool:
    """Whether the server is MariaDB (else MySQL)."""
    return "mariadb" in str(conn.get_server_info()).lower()


def server_version(conn: Connection) -> tuple[int, ...]:
    """The server's version as numbers, such as (10, 11, 19)."""
    # MariaDB may put "5.5.5-" in front, for clients that know no two-digit version.
    text = str(conn.get_server_info()).removeprefix("5.5.5-")
    match = re.match(r"(\d+)\.(\d+)\.(\d+)", text)
    return tuple(int(part) for part in match.groups()) if match else (0, 0, 0)


def database_exists(conn: Connection, database: str) -> bool:
    """Whether the account can see a database of this name."""
    return bool(query(conn, "SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME=%s", (database,)))


def table_exists(conn: Connection, database: str, table: str) -> bool:
    """Whether there is a table (or view) of this name.

    Raises pymysql's error 1142 if this account may not know: that must not be taken for "no".
    """
    try:
        query(conn, f"SELECT 1 FROM {quote_name(database)}.{quote_name(table)} LIMIT 0")
    except pymysql.err.Error as error:
        if error.args[0] in (1049, 1146):
            return False
        raise
    return True


def _unreadable(kind: str, name: str) -> DatabaseError:
    return DatabaseError(
        f"this account may not read the definition of the {kind.lower()} {name}",
        "use the admin or the migrator account; `jobmon db grants` gives the latter what it needs",
    )


def _parameters(conn: Connection, database: str) -> dict[Key, list[str]]:
    found: dict[Key, list[str]] = {}
    for kind, name, mode, parameter, datatype, collation in query(
        conn,
        "SELECT ROUTINE_TYPE, SPECIFIC_NAME, PARAMETER_MODE, PARAMETER_NAME, DTD_IDENTIFIER, COLLATION_NAME"
        " FROM information_schema.PARAMETERS WHERE SPECIFIC_SCHEMA=%s"
        " ORDER BY SPECIFIC_NAME, ROUTINE_TYPE, ORDINAL_POSITION",
        (database,),
    ):
        found.setdefault((kind, name), []).append(f"{mode} {parameter} {datatype} {collation}")
    return found


def read_routines(conn: Connection, database: str) -> list[LiveObject]:
    """The procedures and functions. Raises DatabaseError if the account may not read their definitions."""
    rows = query(
        conn,
        "SELECT ROUTINE_TYPE, ROUTINE_NAME, ROUTINE_DEFINITION, ROUTINE_COMMENT, SQL_DATA_ACCESS,"
        " IS_DETERMINISTIC, SQL_MODE, CHARACTER_SET_CLIENT, COLLATION_CONNECTION, DATABASE_COLLATION,"
        " DEFINER, SECURITY_TYPE FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA=%s",
        (database,),
    )
    parameters = _parameters(conn, database) if rows else {}
    found = []
    for kind, name, body, comment, *rest, definer, security in rows:
        if body is None:
            raise _unreadable(kind, name)
        text = "\n".join([*parameters.get((kind, name), []), comment or "", *map(str, rest), body])
        found.append(LiveObject(kind, name, text, definer=definer, security=security))
    return found


def read_triggers(conn: Connection, database: str) -> list[LiveObject]:
    """The triggers, in the order in which they run."""
    found = []
    for name, table, timing, event, order, definer, *rest in query(
        conn,
        "SELECT TRIGGER_NAME, EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER, DEFINER,"
        " SQL_MODE, CHARACTER_SET_CLIENT, COLLATION_CONNECTION, DATABASE_COLLATION, ACTION_STATEMENT"
        " FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA=%s"
        " ORDER BY EVENT_OBJECT_TABLE, ACTION_TIMING, EVENT_MANIPULATION, ACTION_ORDER",
        (database,),
    ):
        text = "\n".join(map(str, [table, timing, event, *rest]))
        found.append(LiveObject("TRIGGER", name, text, definer, None, table, timing, event, order))
    return found


def read_views(conn: Connection, database: str) -> list[LiveObject]:
    """The views. Raises DatabaseError if the account may not read their definitions."""
    found = []
    for name, definition, check, charset, collation, definer, security in query(
        conn,
        "SELECT TABLE_NAME, VIEW_DEFINITION, CHECK_OPTION, CHARACTER_SET_CLIENT, COLLATION_CONNECTION,"
        " DEFINER, SECURITY_TYPE FROM information_schema.VIEWS WHERE TABLE_SCHEMA=%s",
        (database,),
    ):
        if not definition:
            raise _unreadable("VIEW", name)
        # The server writes every name with its database: the same view has the same text in any database.
        definition = definition.replace(f"{quote_name(database)}.", "")
        text = "\n".join([check, charset, collation, definition])
        found.append(LiveObject("VIEW", name, text, definer=definer, security=security))
    return found


def read_tables(conn: Connection, database: str) -> list[LiveObject]:
    """The tables, but for the migration tool's own."""
    found = []
    for (name,) in query(
        conn,
        "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA=%s AND TABLE_TYPE='BASE TABLE'",
        (database,),
    ):
        if name in INTERNAL_TABLES:
            continue
        try:
            rows = query(conn, f"SHOW CREATE TABLE {quote_name(database)}.{quote_name(name)}")
        except pymysql.err.ProgrammingError as error:
            if error.args[0] == 1146:  # dropped meanwhile
                continue
            raise
        text = re.sub(r" AUTO_INCREMENT=\d+", "", rows[0][1])
        found.append(LiveObject("TABLE", name, text))
    return found


def read_events(conn: Connection, database: str) -> list[LiveObject]:
    """The events (none belongs to Jobmon, so each is somebody's addition)."""
    return [
        LiveObject("EVENT", name, body or "", definer=definer)
        for name, body, definer in query(
            conn,
            "SELECT EVENT_NAME, EVENT_DEFINITION, DEFINER FROM information_schema.EVENTS"
            " WHERE EVENT_SCHEMA=%s",
            (database,),
        )
    ]


def read_objects(conn: Connection, database: str) -> dict[Key, LiveObject]:
    """All routines, triggers and views of a database, by (kind, name)."""
    objects = [*read_routines(conn, database), *read_triggers(conn, database), *read_views(conn, database)]
    return {(live.kind, live.name): live for live in objects}
