"""Runs a service in the foreground, on granian (docs/wsgi-servers.md says why that one).

The process that calls :func:`serve` watches over the worker processes: it starts another one in the place of
one that died, passes SIGTERM on (requests in flight are finished first) and on SIGHUP replaces the workers
one by one.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import logging
import logging.config
import multiprocessing
import multiprocessing.connection
import os
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from granian import Granian
from granian.constants import HTTPModes, Interfaces, RuntimeModes
from granian.http import HTTP1Settings

from jobmon.config import Config, ConfigError
from jobmon.thin_common.logs import log_config

logger = logging.getLogger(__name__)

# A silent connection is asked after 60 s, and given up after four times 15 s without an answer.
_KEEPALIVE = [
    (getattr(socket, name), value)
    for name, value in (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 15), ("TCP_KEEPCNT", 4))
    if hasattr(socket, name)
]

SERVICES = {"jsm": "jobmon.thin_jsm.app", "jqs": "jobmon.thin_jqs.app"}

_DIRECTORY_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"
_DRAIN_SECONDS = 30  # for requests in flight at SIGTERM
_SPARE_THREADS = 4  # at least so many more than connections
_HEADER_SECONDS = 30  # for a client to send its request's head


def serve(service: str, config: Config) -> None:
    """Serve until SIGTERM or SIGINT; returns when every request in flight has been answered.

    Parameters:
        service: ``jsm`` or ``jqs``.
        config: ports, address, tokens, workers, threads, pool.

    Raises:
        ConfigError: a service of that name does not exist, nothing says where the database is, the address is
            open to other machines without a token, or the port is in use.
        SystemExit: with a status other than 0, when the workers die again and again.
    """
    if service not in SERVICES:
        raise ConfigError(f"there is no service {service!r}", f"services: {', '.join(SERVICES)}")
    config.require_safe_bind()
    config.conn_spec(service)
    port = config.jsm_port if service == "jsm" else config.jqs_port
    require_free_port(config, port, f"{service}_port")
    logging.config.dictConfig(log_config(config.log_level))
    # Not forked: this process has threads, and a worker that dies later is replaced while they run.
    multiprocessing.set_start_method("spawn", force=True)

    # What is handed to the workers must be plain.
    config = dataclasses.replace(config, sources=dict(config.sources))
    directory = tempfile.mkdtemp(prefix=f"jobmon-{service}-metrics-")
    # Before the first import of prometheus_client, in this process and its workers.
    os.environ[_DIRECTORY_VARIABLE] = directory
    try:
        if service == "jsm":
            require_free_port(config, config.jsm_management_port, "jsm_management_port")
            from jobmon.thin_common.management import start_management

            start_management(service, config)
        server = Granian(
            SERVICES[service],
            address=config.listen_address,
            port=port,
            interface=Interfaces.WSGI,
            workers=config.workers,
            runtime_mode=RuntimeModes.st,  # a request changes hands once less than in its other mode
            # Some threads more than connections: they say so when all are in use, and that all is well.
            blocking_threads=max(config.threads, config.pool_size + _SPARE_THREADS),
            http=HTTPModes.http1,
            http1_settings=HTTP1Settings(header_read_timeout=_HEADER_SECONDS * 1000),
            websockets=False,
            backlog=2048,
            backpressure=2048,
            log_dictconfig=log_config(config.log_level),
            respawn_failed_workers=True,
            respawn_interval=1.0,
            workers_kill_timeout=_DRAIN_SECONDS,
            process_name=None,
        )
        server.serve(target_loader=partial(load_application, service, config), wrap_loader=False)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def require_free_port(config: Config, port: int, key: str) -> None:
    """Refuse to share a port.

    The workers listen with SO_REUSEPORT, with which a second service on the same port would start without an
    error and take half of the requests.

    Parameters:
        config: the address to listen on.
        port: the port.
        key: the configuration's key of the port, for the message.

    Raises:
        ConfigError: something listens there, or the address is none of this machine's.
    """
    address = config.listen_address
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    f"port {port} ({key}) on {address} is in use",
                    f"stop what listens there, or set {key} to another port",
                ) from None
            raise ConfigError(f"cannot listen on {address}, port {port} ({key}): {error.strerror}") from None


def load_application(service: str, config: Config) -> Callable[..., Any]:
    """Make a service's WSGI application; runs in each worker process."""
    _leave_with_parent()
    port: int = getattr(config, f"{service}_port")
    threading.Thread(target=_notice_dead_peers, args=(port,), name="keepalive", daemon=True).start()
    app = import_module(SERVICES[service]).create_app(config)
    return app.wsgi_app


def _leave_with_parent() -> None:
    """End this worker when the process that watches over it was killed: it would go on and hold the port."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return
    sentinel = parent.sentinel

    def watch() -> None:
        multiprocessing.connection.wait([sentinel])
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_DRAIN_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()


def _notice_dead_peers(port: int) -> None:
    """Make TCP find out when a client's machine died: a thread would wait for the rest of a request for ever.

    granian has no setting for it, but on Linux connections inherit the listening socket's options.
    """
    for _ in range(300):
        for entry in Path("/proc/self/fd").glob("*"):
            with contextlib.suppress(OSError):
                descriptor = os.dup(int(entry.name))
                try:
                    candidate = socket.socket(fileno=descriptor)
                except OSError:  # not a socket
                    os.close(descriptor)
                    continue
                with candidate:
                    listens = candidate.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
                    if listens and candidate.getsockname()[1] == port:
                        candidate.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                        for option, seconds in _KEEPALIVE:
                            candidate.setsockopt(socket.IPPROTO_TCP, option, seconds)
                        return
        time.sleep(0.1)
