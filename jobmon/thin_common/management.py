"""A service's management port: ``/``, ``/healthz``, ``/readyz`` and ``/metrics``, apart from its work.

It answers when the service itself is too busy to, and needs no token.
"""

from __future__ import annotations

import logging
import threading
from importlib import import_module
from wsgiref.simple_server import WSGIRequestHandler, make_server

from prometheus_client.exposition import ThreadingWSGIServer

from jobmon.config import Config
from jobmon.thin_common.app import make_app
from jobmon.thin_common.database import Database

logger = logging.getLogger(__name__)


class QuietHandler(WSGIRequestHandler):
    """Logs no request."""

    timeout = 10  # seconds for a client to say what it wants

    def log_message(self, format: str, *args: object) -> None:
        logger.debug("management request: " + format, *args)


def start_management(service: str, config: Config) -> None:
    """Serve the management port in a background thread of this process.

    Parameters:
        service: ``jsm`` or ``jqs``.
        config: the address and ``jsm_management_port``.

    Raises:
        OSError: the port is in use.
    """
    database = Database(config, service, size=1)
    readiness = import_module(f"jobmon.thin_{service}.app").readiness
    app = make_app(f"jobmon.thin_{service}.management", service, ready=lambda: readiness(database))
    server = make_server(
        config.listen_address,
        config.jsm_management_port,
        app,
        server_class=ThreadingWSGIServer,
        handler_class=QuietHandler,
    )
    threading.Thread(target=server.serve_forever, name="management", daemon=True).start()
