"""JSM's application: the relay from POST to CALL."""

from __future__ import annotations

import json
import logging
import re
import threading
import time
from typing import TYPE_CHECKING, Any

import orjson
import pymysql
from flask import Flask
from pymysql.connections import Connection

from jobmon.config import Config
from jobmon.db.connect import errno_of, is_lost_connection
from jobmon.thin_common import positions
from jobmon.thin_common.app import COMMON_ROUTES, make_app
from jobmon.thin_common.catalog import CatalogKeeper
from jobmon.thin_common.database import Database
from jobmon.thin_common.errormap import ErrorMap
from jobmon.thin_common.errors import RelayError
from jobmon.thin_common.relay import HEADERS, JSON, Answer, Relay, read_body
from jobmon.thin_common.schema import check_schema
from jobmon.thin_jsm import openapi
from jobmon.thin_jsm.catalog import Catalog, call, load_catalog
from jobmon.thin_jsm.coerce import parse_body

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

logger = logging.getLogger(__name__)

_BEAT_SECONDS = 1.0  # between two heartbeats for readers of replicas
_ABSENT_SECONDS = 10.0  # before looking again whether there can be replicas

WRONG_NUMBER_OF_ARGUMENTS = 1318
NO_SUCH_PROCEDURE = (1305, 1370)
PACKET_TOO_LARGE = 1153

_SORTED = orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE
# A float where the database wrote an integer of more than 64 bits would be another number.
_LONG_NUMBER = re.compile(r"[\[:,]\s*-?[0-9]{19}")


class JsmRelay(Relay):
    """POST /<procedure> with a JSON object becomes CALL <procedure>; its document is the answer.

    Parameters:
        inner: the Flask application.
        config: tokens, limits, log level.
        database: the pool in the role ``jsm``.
    """

    method = "POST"

    def __init__(self, inner: WSGIApplication, config: Config, database: Database) -> None:
        super().__init__("jsm", inner, [config.token] if config.token else [], config.log_level)
        self._database = database
        self._limit = config.max_body_bytes
        self.catalog: CatalogKeeper[Catalog] = CatalogKeeper(
            "jsm", lambda: database.run(load_catalog, attempts=3)
        )

    def knows(self, name: str) -> bool:
        """Whether ``name`` is a procedure; while there is no catalog, everything may be one."""
        catalog = self.catalog.current
        if catalog is None:
            return name not in COMMON_ROUTES
        if name in catalog.procedures:
            return True
        catalog = self.catalog.refresh()
        return catalog is not None and name in catalog.procedures

    def errors(self) -> ErrorMap | None:
        """The rows of ``api_error``."""
        catalog = self.catalog.current
        return catalog.errors if catalog else None

    def relay(self, name: str, environ: WSGIEnvironment) -> Answer:
        """Do the CALL. Raises RelayError or pymysql.err.Error."""
        body = parse_body(read_body(environ, self._limit))
        procedure = self.catalog.require().procedures[name]
        try:
            document, position = self._call(procedure.sql, procedure.arguments(body))
        except pymysql.err.Error as error:
            errno = errno_of(error)
            if errno == PACKET_TOO_LARGE:
                raise RelayError("BODY_TOO_LARGE", "The database's max_allowed_packet is smaller.") from error
            if errno != WRONG_NUMBER_OF_ARGUMENTS and errno not in NO_SUCH_PROCEDURE:
                raise
            # A re-deploy changed the procedure or took it away, and this process has not noticed yet.
            catalog = self.catalog.refresh_since(time.monotonic())
            changed = catalog.procedures.get(name) if catalog else None
            if changed is None:
                raise RelayError("NOT_FOUND", f"There is no procedure {name} any more.") from None
            if changed.sql == procedure.sql:
                raise RelayError("DATABASE_BUSY", "The procedure is being replaced.") from error
            document, position = self._call(changed.sql, changed.arguments(body))
        if position:
            environ[HEADERS].append((positions.HEADER, position))
        return 200, JSON, render(document)

    def _call(self, sql: str, arguments: list[Any]) -> tuple[str | None, str | None]:
        def work(connection: Connection) -> tuple[str | None, str | None]:
            document = call(connection, sql, arguments)
            return document, positions.last_position(connection)

        return self._database.run(work)


def render(document: str | None) -> bytes:
    """A document as the answer's body: keys sorted, one newline at the end; ``{}`` for none."""
    if document is None:
        return b"{}\n"
    if _LONG_NUMBER.search(document):
        return json.dumps(json.loads(document), sort_keys=True, ensure_ascii=False).encode() + b"\n"
    return orjson.dumps(orjson.loads(document), option=_SORTED)


def readiness(database: Database) -> dict[str, Any]:
    """What ``/readyz`` answers.

    Raises:
        RelayError: DATABASE_UNAVAILABLE, OVERLOADED, NOT_READY.
    """
    try:
        document = database.run(
            lambda connection: call(connection, "CALL get_schema_version()", []), attempts=2
        )
        found = orjson.loads(document or "{}")
        return check_schema(int(found["schema_version"]), int(found["compatible_since"]))
    except pymysql.err.Error as error:
        if errno_of(error) in NO_SUCH_PROCEDURE:
            raise RelayError("NOT_READY", "The database has no schema of Jobmon's yet.") from error
        raise
    except (KeyError, TypeError, ValueError) as error:
        raise RelayError("NOT_READY", "The database does not say which schema it has.") from error


def _beat(database: Database, catalog: CatalogKeeper[Catalog]) -> None:
    """Write the time for those who read replicas, as long as the catalog is kept up to date."""

    def work(connection: Connection) -> bool:
        if not positions.traits_of(connection).tells:
            return False
        call(connection, "CALL log_replication_heartbeat()", [])
        return True

    pause = _BEAT_SECONDS
    while not catalog.wait_stopped(pause):
        try:
            pause = _BEAT_SECONDS if database.run(work, attempts=1) else _ABSENT_SECONDS
        except (RelayError, pymysql.err.Error, OSError) as error:
            # an older schema has no such procedure; else the next one may succeed
            logger.debug("no heartbeat", extra={"service": "jsm", "error": str(error)})


def open_tables(connection: Connection) -> None:
    """Make a node of Galera read the triggers now, since it may spoil one that it reads in a transaction."""
    if positions.traits_of(connection).galera:
        try:
            call(connection, "CALL open_tables()", [])
        except pymysql.err.Error as error:
            if is_lost_connection(error):
                raise
            # the service works without; an older schema has no such procedure
            logger.warning("tables not opened", extra={"service": "jsm", "error": str(error)})


def create_app(config: Config) -> Flask:
    """JSM's WSGI application.

    Parameters:
        config: where the database is, the token, the limits.

    Raises:
        ConfigError: nothing says how to reach the database as JSM.
    """
    database = Database(config, "jsm", warm_up=open_tables)

    def ready() -> dict[str, Any]:
        answer = readiness(database)
        relay.catalog.ensure()  # without it every call would be answered 503 yet
        return answer

    app = make_app(
        "jobmon.thin_jsm",
        "jsm",
        ready=ready,
        openapi=lambda: openapi.document(relay.catalog.require(), bool(config.token)),
        call_method="POST",
        knows=lambda path: relay.catalog.current is not None and path in relay.catalog.current.procedures,
    )
    relay = JsmRelay(app.wsgi_app, config, database)
    app.wsgi_app = relay  # type: ignore[method-assign]
    app.extensions["jobmon_relay"] = relay
    relay.catalog.start()
    threading.Thread(target=_beat, args=(database, relay.catalog), name="heartbeat", daemon=True).start()
    return app
