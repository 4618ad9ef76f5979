"""The health monitor's own port, if one is configured: ``/healthz``, ``/readyz`` and ``/metrics``."""

from __future__ import annotations

import threading
from typing import Any
from wsgiref.simple_server import make_server

from prometheus_client.exposition import ThreadingWSGIServer

from jobmon.config import Config, ConfigError
from jobmon.monitor.monitor import HealthMonitor
from jobmon.thin_common.app import make_app
from jobmon.thin_common.errors import RelayError
from jobmon.thin_common.management import QuietHandler


def start_http(monitor: HealthMonitor, config: Config) -> None:
    """Serve ``monitor_port`` in a background thread.

    Raises:
        ConfigError: the port can't be used.
    """
    late = 3 * config.monitor_poll_interval + 60

    def ready() -> dict[str, Any]:
        since = monitor.seconds_since_look
        if since > late:
            raise RelayError("NOT_READY", "There was no look lately that went well.")
        return {"status": "ready", "seconds_since_look": round(since, 1)}

    app = make_app("jobmon.monitor", "monitor", ready=ready)
    port = config.monitor_port or 0
    try:
        server = make_server(
            config.listen_address, port, app, server_class=ThreadingWSGIServer, handler_class=QuietHandler
        )
    except OSError as error:
        raise ConfigError(
            f"{config.source('monitor_port')}: monitor_port {port} can't be used: {error.strerror}",
            "choose another, or leave it out",
        ) from error
    threading.Thread(target=server.serve_forever, name="http", daemon=True).start()
