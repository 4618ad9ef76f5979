"""JQS's application: the relay from GET to SELECT."""

from __future__ import annotations

import datetime as dt
import decimal
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import parse_qsl

import orjson
import pymysql
from flask import Flask
from pymysql.connections import Connection

from jobmon.config import Config
from jobmon.db.connect import errno_of
from jobmon.thin_common import metrics, positions
from jobmon.thin_common.app import COMMON_ROUTES, make_app
from jobmon.thin_common.catalog import CatalogKeeper
from jobmon.thin_common.database import Database
from jobmon.thin_common.errormap import ErrorMap
from jobmon.thin_common.errors import RelayError
from jobmon.thin_common.relay import HTML, JSON, Answer, Relay
from jobmon.thin_common.schema import check_schema
from jobmon.thin_jqs import changes, openapi
from jobmon.thin_jqs.catalog import Catalog, Column, Route, View, load_catalog, make_column

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

T = TypeVar("T")

DEFAULT_LIMIT = 1000
MAX_LIMIT = 100_000
_CHUNK = 1000  # documents that are put in order at once; other requests get their turn in between

# No such table, no such column, no right, a view that doesn't fit its tables: the catalog may be out of date.
_CHANGED_ERRNOS = frozenset({1054, 1142, 1143, 1146, 1356})
_SORTED = orjson.OPT_SORT_KEYS
_ROW = orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE | orjson.OPT_NAIVE_UTC | orjson.OPT_UTC_Z

_LIMIT = make_column("limit", "int")
_OFFSET = make_column("offset", "int")
_AFTER = make_column("after", "bigint")
_DAG_ID = make_column("dag_id", "bigint")
_MIN_POSITION = "HTTP_" + positions.MIN_HEADER.upper().replace("-", "_")


class JqsRelay(Relay):
    """GET /<view> becomes a SELECT on the view.

    Parameters:
        inner: the Flask application.
        config: tokens, log level.
        database: the pool in the role ``jqs``.
    """

    method = "GET"

    def __init__(self, inner: WSGIApplication, config: Config, database: Database) -> None:
        # Who may write may read.
        tokens = [token for token in (config.read_token, config.token) if token] if config.read_token else []
        super().__init__("jqs", inner, tokens, config.log_level)
        self._database = database
        self._position_timeout = config.position_timeout
        # Who waits for a replica holds a connection: some must be left for others.
        self._waiters = threading.BoundedSemaphore((config.pool_size + 1) // 2)
        self.catalog: CatalogKeeper[Catalog] = CatalogKeeper("jqs", self._load)

    def _load(self) -> Catalog:
        catalog = self._database.run(load_catalog, attempts=3)
        lag = self._database.run(replica_lag, attempts=3)
        if lag is not None:
            metrics.REPLICA_LAG.labels("jqs").set(lag)
        return catalog

    def knows(self, name: str) -> bool:
        """Whether ``name`` is a view; while there is no catalog, everything may be one."""
        if name in COMMON_ROUTES:
            return False
        catalog = self.catalog.current
        if catalog is None:
            return True
        if name in catalog.views:
            return True
        catalog = self.catalog.refresh()
        return catalog is not None and name in catalog.views

    def errors(self) -> ErrorMap | None:
        """The rows of ``api_error``."""
        catalog = self.catalog.current
        return catalog.errors if catalog else None

    def relay(self, name: str, environ: WSGIEnvironment) -> Answer:
        """Do the SELECT. Raises RelayError or pymysql.err.Error."""
        arguments = parse_arguments(environ.get("QUERY_STRING", ""))
        text = arguments.pop(positions.ARGUMENT, None) or environ.get(_MIN_POSITION)
        position = positions.parse(text) if text else {}
        try:
            return self._select(self.catalog.require(), name, arguments, position)
        except pymysql.err.Error as error:
            if errno_of(error) not in _CHANGED_ERRNOS:
                raise
            # A re-deploy changed the view or took it away, and this process has not noticed yet.
            catalog = self.catalog.refresh_since(time.monotonic())
            if catalog is None or name not in catalog.views:
                raise RelayError("NOT_FOUND", f"There is no view {name} any more.") from None
            return self._select(catalog, name, arguments, position)

    def _select(
        self, catalog: Catalog, name: str, arguments: dict[str, str], position: positions.Position
    ) -> Answer:
        route = catalog.routes.get(name)
        if route is None:
            return self._rows(catalog.views[name], arguments, position)
        if route.cardinality == "cursor":
            return self._changes(route, arguments, position)
        return self._documents(route, arguments, position)

    def _run(self, work: Callable[[Connection], T], position: positions.Position) -> T:
        """Do the work as soon as the database has come to a position, on the same connection."""
        if not position:
            return self._database.run(work)

        def later(connection: Connection) -> T:
            positions.wait_for(connection, position, self._position_timeout, self._waiters)
            return work(connection)

        return self._database.run(later)

    def _documents(self, route: Route, given: dict[str, str], position: positions.Position) -> Answer:
        known = [column.name for column in route.arguments]
        paged = route.cardinality == "page"
        _refuse_unknown(given, [*known, "after", "limit"] if paged else known)
        missing = [name for name in known if name not in given]
        if missing:
            raise RelayError("MISSING_ARGUMENT", f"{route.view.name} needs {' and '.join(missing)}.")
        values = [column.value(given[column.name]) for column in route.arguments]
        if paged:
            values.append(_number(given.get("after"), _AFTER, 0, 0, 1 << 62))
            values.append(_number(given.get("limit"), _LIMIT, DEFAULT_LIMIT, 1, MAX_LIMIT))
        rows = self._run(lambda connection: _fetch(connection, route.sql, values), position)
        if paged or route.cardinality == "many":
            return 200, JSON, wrap(route.answer_key or route.view.name, [row[0] for row in rows])
        document = rows[0][0] if rows else route.none_document
        status = 200 if rows else route.none_status
        if document is None:
            return status, HTML, b""
        return status, JSON, orjson.dumps(orjson.loads(document), option=_SORTED | orjson.OPT_APPEND_NEWLINE)

    def _changes(self, route: Route, given: dict[str, str], position: positions.Position) -> Answer:
        _refuse_unknown(given, ["cursor", "dag_id", "limit"])
        text = given.get("cursor", "")
        cursor = None if text == changes.NOW else changes.decode_cursor(text)
        dag_id = _DAG_ID.value(given["dag_id"]) if "dag_id" in given else None
        limit = _number(given.get("limit"), _LIMIT, changes.DEFAULT_LIMIT, 1, changes.MAX_LIMIT)
        view = route.view
        shard = next(iter(view.columns))
        found = self._run(
            lambda connection: changes.read_changes(connection, view.name, shard, cursor, dag_id, limit),
            position,
        )
        key = route.answer_key or view.name
        more = {"cursor": changes.encode_cursor(found.cursor), "more": found.more}
        return 200, JSON, wrap(key, found.documents, **more)

    def _rows(self, view: View, given: dict[str, str], position: positions.Position) -> Answer:
        given = dict(given)
        limit = offset = None
        if "limit" not in view.columns:
            limit = given.pop("limit", None)
        if "offset" not in view.columns:
            offset = given.pop("offset", None)
        _refuse_unknown(given, [*view.columns, "limit", "offset"])
        values = [view.columns[name].value(text) for name, text in given.items()]
        sql = f"SELECT {', '.join(f'`{name}`' for name in view.columns)} FROM `{view.name}`"
        if given:
            sql += " WHERE " + " AND ".join(f"`{name}` = %s" for name in given)
        sql += " ORDER BY 1 LIMIT %s OFFSET %s"
        values.append(_number(limit, _LIMIT, DEFAULT_LIMIT, 1, MAX_LIMIT))
        values.append(_number(offset, _OFFSET, 0, 0, 1 << 62))
        rows = self._run(lambda connection: _fetch(connection, sql, values), position)
        names = list(view.columns)
        found = [dict(zip(names, row, strict=True)) for row in rows]
        return 200, JSON, orjson.dumps({view.name: found}, default=_plain, option=_ROW)


def parse_arguments(query: str) -> dict[str, str]:
    """The arguments of a query string.

    Raises:
        RelayError: INVALID_ARGUMENT, when one is given twice or there are too many.
    """
    try:
        pairs = parse_qsl(query, keep_blank_values=True, max_num_fields=100)
    except ValueError:
        raise RelayError("INVALID_ARGUMENT", "The query string has too many arguments.") from None
    arguments = dict(pairs)
    if len(arguments) != len(pairs):
        raise RelayError("INVALID_ARGUMENT", "An argument is given more than once.")
    return arguments


def _refuse_unknown(given: dict[str, str], known: Sequence[str]) -> None:
    for name in given:
        if name not in known:
            shown = ascii(name if len(name) <= 60 else name[:60] + "...")
            hint = f"Known: {', '.join(known) or 'none'}."
            raise RelayError("UNKNOWN_ARGUMENT", f"{shown} is not known here.", hint)


def _number(text: str | None, column: Column, default: int, low: int, high: int) -> int:
    number: int = default if text is None else column.value(text)
    if not low <= number <= high:
        raise RelayError("INVALID_ARGUMENT", f"{column.name} must be from {low} to {high}.")
    return number


def _fetch(connection: Connection, sql: str, values: list[Any]) -> Sequence[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return cursor.fetchall()


def wrap(key: str, documents: Sequence[Any], **more: Any) -> bytes:
    """``{key: [documents...], **more}`` as the answer's body; documents are JSON texts (or numbers)."""
    parts = []
    for start in range(0, len(documents), _CHUNK):
        chunk = orjson.loads("[" + ",".join(map(str, documents[start : start + _CHUNK])) + "]")
        parts.append(orjson.dumps(chunk, option=_SORTED)[1:-1])
    fields = {name: orjson.dumps(value) for name, value in more.items()}
    fields[key] = b"[" + b",".join(parts) + b"]"
    pairs = [orjson.dumps(name) + b":" + value for name, value in sorted(fields.items())]
    return b"{" + b",".join(pairs) + b"}\n"


def _plain(value: Any) -> Any:
    """What orjson doesn't know by itself, as something it knows."""
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() and abs(value) < 1 << 63 else float(value)
    if isinstance(value, dt.timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return int.from_bytes(value, "big") if len(value) == 1 else value.decode("utf-8", "replace")
    return str(value)


def replica_lag(connection: Connection) -> float | None:
    """How far the server is behind the one that takes the writes, seconds; None if nothing tells."""
    try:
        rows = _fetch(connection, "SELECT lag_seconds FROM replication_status", [])
    except pymysql.err.Error as error:
        if errno_of(error) not in _CHANGED_ERRNOS:  # an older schema has no such view
            raise
        return None
    return float(rows[0][0]) if rows else None


def readiness(database: Database) -> dict[str, Any]:
    """What ``/readyz`` answers.

    Raises:
        RelayError: DATABASE_UNAVAILABLE, OVERLOADED, NOT_READY.
    """
    try:
        rows = database.run(
            lambda connection: _fetch(
                connection, "SELECT schema_version, compatible_since FROM schema_info", []
            ),
            attempts=2,
        )
    except pymysql.err.Error as error:
        if errno_of(error) in _CHANGED_ERRNOS:
            raise RelayError("NOT_READY", "The database has no schema of Jobmon's yet.") from error
        raise
    if not rows:
        raise RelayError("NOT_READY", "The database does not say which schema it has.")
    answer = check_schema(int(rows[0][0]), int(rows[0][1]))
    lag = database.run(replica_lag, attempts=2)
    return answer if lag is None else {**answer, "replica_lag_seconds": lag}


def create_app(config: Config) -> Flask:
    """JQS's WSGI application.

    Parameters:
        config: where the database is, the tokens.

    Raises:
        ConfigError: nothing says how to reach the database as JQS.
    """
    database = Database(config, "jqs")

    def ready() -> dict[str, Any]:
        answer = readiness(database)
        relay.catalog.ensure()  # without it every call would be answered 503 yet
        return answer

    app = make_app(
        "jobmon.thin_jqs",
        "jqs",
        ready=ready,
        openapi=lambda: openapi.document(relay.catalog.require(), bool(config.read_token)),
        call_method="GET",
        knows=lambda path: relay.catalog.current is not None and path in relay.catalog.current.views,
    )
    relay = JqsRelay(app.wsgi_app, config, database)
    app.wsgi_app = relay  # type: ignore[method-assign]
    app.extensions["jobmon_relay"] = relay
    relay.catalog.start()
    return app
