"""Rows of tables as JSON, exactly: what an archive and a dump are made of.

Whole numbers are JSON numbers, bytes are ``{"base64": "..."}``, everything else is the text that the server
gives and takes back (dates in UTC with their microseconds). Generated columns are left out: the server makes
them again.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from typing import Any

import orjson
from pymysql import converters
from pymysql.connections import Connection
from pymysql.constants import FIELD_TYPE
from pymysql.cursors import SSCursor

from jobmon.db.catalog import query, quote_name
from jobmon.db.connect import ConnectionSpec, connect

_INTEGERS = (FIELD_TYPE.TINY, FIELD_TYPE.SHORT, FIELD_TYPE.INT24, FIELD_TYPE.LONG, FIELD_TYPE.LONGLONG)
# As the server writes them, but for whole numbers: dates and decimals made into Python objects may lose some.
_CONVERSIONS: dict[Any, Any] = {**converters.encoders, **dict.fromkeys(_INTEGERS, int)}


def open_snapshot(spec: ConnectionSpec) -> Connection:
    """A connection that sees one moment of the whole database, in which nothing can be changed.

    The connection is as old as its snapshot: while it is open, the server keeps what others delete.
    Its values are those that :func:`encode` takes.
    """
    conn = connect(spec, read_timeout=None, conv=_CONVERSIONS)
    with conn.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
    return conn


def stored_columns(conn: Connection, database: str, table: str) -> list[str]:
    """The columns of a table that are not generated, in order."""
    rows = query(
        conn,
        "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA=%s AND TABLE_NAME=%s"
        " AND COALESCE(GENERATION_EXPRESSION, '') = '' ORDER BY ORDINAL_POSITION",
        (database, table),
    )
    return [name for (name,) in rows]


def stream(
    conn: Connection, table: str, columns: list[str], source: str = "", args: Any = None
) -> Iterator[list[Any]]:
    """The rows of a table one by one, as the server sends them; nothing else can be asked meanwhile.

    source: what follows ``FROM table``: joins and a WHERE.
    """
    names = ", ".join(f"{quote_name(table)}.{quote_name(column)}" for column in columns)
    with conn.cursor(SSCursor) as cursor:
        cursor.execute(f"SELECT {names} FROM {quote_name(table)} {source}", args)
        while rows := cursor.fetchmany(1000):
            for row in rows:
                yield [encode(value) for value in row]


def encode(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, bytes):
        return {"base64": base64.b64encode(value).decode()}
    return value


def decode(value: Any) -> Any:
    """The value that :func:`encode` was given."""
    if isinstance(value, dict):
        return base64.b64decode(value["base64"], validate=True)
    return value


def to_line(document: Any) -> bytes:
    """A JSON document as one line."""
    return orjson.dumps(document, option=orjson.OPT_APPEND_NEWLINE)
