"""The views that the JQS account may read, and the shapes in which the wire protocol wants some of them."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pymysql.connections import Connection
from pymysql.cursors import DictCursor

from jobmon.thin_common.errormap import ErrorMap
from jobmon.thin_common.errors import RelayError
from jobmon.thin_common.numerals import INTEGER, REAL, REAL_TYPES

# information_schema shows an account only the tables and views on which it holds a privilege.
_COLUMNS = """
SELECT TABLE_NAME, COLUMN_NAME, DATA_TYPE, COLUMN_TYPE, COLUMN_KEY FROM information_schema.COLUMNS
WHERE TABLE_SCHEMA = DATABASE() ORDER BY TABLE_NAME, ORDINAL_POSITION
"""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]+")
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9]{2}:[0-9]{2}(:[0-9]{2}(\.[0-9]{1,6})?)?)?Z?")

_INTEGER_TYPES = frozenset({"tinyint", "smallint", "mediumint", "int", "integer", "bigint", "year"})
_DATE_TYPES = frozenset({"datetime", "timestamp", "date"})

DOCUMENT = "document"


def _integer(text: str) -> int:
    if not INTEGER.fullmatch(text):
        raise ValueError("a whole number")
    return int(text)


def _real(text: str) -> str:
    if not REAL.fullmatch(text):
        raise ValueError("a number")
    return text


def _date(text: str) -> str:
    text, fits = text.rstrip("Z"), _DATE.fullmatch(text)
    with contextlib.suppress(ValueError):
        if fits and dt.datetime.fromisoformat(text):  # MySQL fails on a day that no month has
            return text
    raise ValueError("a time in UTC as YYYY-MM-DDTHH:MM:SS")


def _text(text: str) -> str:
    return text


@dataclass(frozen=True)
class Column:
    """A column of a view: its name, its type, and how a query string's text becomes a value of it."""

    name: str
    data_type: str
    convert: Callable[[str], Any]

    def value(self, text: str) -> Any:
        """``text`` as a value to compare the column with.

        Raises:
            RelayError: INVALID_ARGUMENT, naming the column.
        """
        try:
            return self.convert(text)
        except ValueError as error:
            raise RelayError("INVALID_ARGUMENT", f"{self.name} must be {error}.") from None

    @property
    def openapi(self) -> dict[str, Any]:
        """The column's OpenAPI schema."""
        if self.data_type in _INTEGER_TYPES:
            return {"type": "integer", "format": "int64"}
        if self.data_type in REAL_TYPES:
            return {"type": "number"}
        if self.data_type in _DATE_TYPES:
            return {"type": "string", "format": "date-time"}
        return {"type": "string"}


def make_column(name: str, data_type: str) -> Column:
    """A column by the DATA_TYPE that information_schema.COLUMNS gives."""
    data_type = data_type.lower()
    if data_type in _INTEGER_TYPES:
        return Column(name, data_type, _integer)
    if data_type in REAL_TYPES:
        return Column(name, data_type, _real)
    if data_type in _DATE_TYPES:
        return Column(name, data_type, _date)
    return Column(name, data_type, _text)


@dataclass(frozen=True)
class View:
    """A view (or table) that may be read, all its columns by name in their order."""

    name: str
    columns: dict[str, Column]


@dataclass(frozen=True)
class Route:
    """A row of ``jqs_route``: the shape the wire protocol gives to a view's answer.

    cardinality ``many``: all documents under answer_key; ``first``: the first document is the answer,
    none_status and none_document where there is none; ``cursor``: changes since a cursor; ``page``: the
    documents whose id is larger than one that is given, so many at the most.
    """

    view: View
    arguments: tuple[Column, ...]
    answer_key: str | None
    cardinality: str
    none_status: int
    none_document: str | None
    description: str

    @property
    def sql(self) -> str:
        """The SELECT, with a %s for each argument; of a page, also for the id before it and the limit."""
        sql = f"SELECT `{DOCUMENT}` FROM `{self.view.name}`"
        if self.arguments:
            sql += " WHERE " + " AND ".join(f"`{column.name}` = %s" for column in self.arguments)
        if self.cardinality == "page" and self.id_column:
            sql += f" AND `{self.id_column}` > %s" if self.arguments else f" WHERE `{self.id_column}` > %s"
            return sql + f" ORDER BY `{self.id_column}` LIMIT %s"
        if self.cardinality == "first":
            return sql + " LIMIT 1"
        return sql + f" ORDER BY `{self.id_column}`" if self.id_column else sql

    @property
    def id_column(self) -> str | None:
        """The view's own id: answers come in the order in which things were made."""
        taken = {DOCUMENT, *(column.name for column in self.arguments)}
        for column in self.view.columns.values():
            if column.name not in taken and column.data_type in _INTEGER_TYPES:
                return column.name
        return None


@dataclass(frozen=True)
class Catalog:
    """Everything JQS serves."""

    views: dict[str, View]
    routes: dict[str, Route]
    errors: ErrorMap


def load_catalog(connection: Connection) -> Catalog:
    """Read the catalog as the account of ``connection``.

    Raises:
        pymysql.err.Error: the database could not be asked.
    """
    columns: dict[str, dict[str, Column]] = {}
    with connection.cursor() as cursor:
        cursor.execute(_COLUMNS)
        for table, name, data_type, _full_type, _key in cursor.fetchall():
            if _PLAIN_NAME.fullmatch(table) and _PLAIN_NAME.fullmatch(name):
                kind = data_type.decode() if isinstance(data_type, bytes) else data_type
                columns.setdefault(table, {})[name] = make_column(name, kind)
    views = {name: View(name, found) for name, found in columns.items()}
    routes = {}
    if "jqs_route" in views:
        for row in _rows(connection, "SELECT * FROM jqs_route"):
            view = views.get(row["view_name"])
            names = [name.strip() for name in row["arguments"].split(",") if name.strip()]
            if (
                view is None
                or DOCUMENT not in view.columns
                or not all(name in view.columns for name in names)
            ):
                continue  # its view is not there yet, or this account may not read it
            routes[view.name] = Route(
                view,
                tuple(view.columns[name] for name in names),
                row["answer_key"],
                row["cardinality"],
                int(row["none_status"]),
                row["none_document"],
                row["description"] or "",
            )
    rows = _rows(connection, "SELECT * FROM api_error") if "api_error" in views else []
    return Catalog(views, routes, ErrorMap(rows))


def _rows(connection: Connection, sql: str) -> list[dict[str, Any]]:
    with connection.cursor(DictCursor) as cursor:
        cursor.execute(sql)
        return list(cursor.fetchall())
