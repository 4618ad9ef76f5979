"""Logs: one JSON object a line, on stderr. No bodies and no tokens are ever written."""

from __future__ import annotations

import atexit
import contextlib
import datetime as dt
import logging
import sys
import threading
import time
from collections import deque
from typing import Any

import orjson

_OPTIONS = orjson.OPT_APPEND_NEWLINE | orjson.OPT_UTC_Z
_MOST_LINES = 100_000
_GATHER_SECONDS = 0.1
_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def _line(fields: dict[str, Any]) -> bytes:
    try:
        return orjson.dumps(fields, default=repr, option=_OPTIONS)
    except (TypeError, ValueError):  # a lone surrogate, say: a log line must never be the reason of a failure
        return orjson.dumps({key: ascii(value) for key, value in fields.items()}, option=_OPTIONS)


class JsonFormatter(logging.Formatter):
    """Turns a log record into a JSON line; what was given as ``extra`` becomes keys."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": dt.datetime.fromtimestamp(record.created, dt.UTC),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for key, value in record.__dict__.items():
            if key not in _STANDARD and not key.startswith("_"):
                fields[key] = value
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return _line(fields).decode().rstrip("\n")


class NoAdvice(logging.Filter):
    """Drops granian's advice on the number of threads: ours wait for the database, which it can't know."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.name == "_granian" and str(record.msg).startswith("Configuration allows"))


def log_config(level: str) -> dict[str, Any]:
    """The ``logging.config`` dictionary of a service: everything from ``level`` up, as JSON on stderr."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"facts": {"()": "jobmon.thin_common.logs.NoAdvice"}},
        "formatters": {"json": {"()": "jobmon.thin_common.logs.JsonFormatter"}},
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "json",
                "filters": ["facts"],
            }
        },
        "root": {"level": level, "handlers": ["stderr"]},
        "loggers": {"_granian": {"level": level, "handlers": ["stderr"], "propagate": False}},
    }


class RequestLog:
    """Writes the line of each request: time, level, service, request_id, method, route, status, duration_ms.

    It goes past the logging module, whose records cost more CPU than all the rest of a small request's log,
    and a thread of its own does the writing: no request waits for a full pipe. Lines come up to 0.1 s late;
    if the reader of stderr lags behind by :data:`_MOST_LINES`, the oldest are dropped.

    Parameters:
        service: ``jsm`` or ``jqs``.
        level: the service's log level. From WARNING up only answers of 500 and more are written.
    """

    def __init__(self, service: str, level: str) -> None:
        self._service = service
        self._least = 200 if logging.getLevelName(level) <= logging.INFO else 500
        self._lines: deque[bytes] = deque(maxlen=_MOST_LINES)
        self._some = threading.Event()
        self._flushing = threading.Lock()
        threading.Thread(target=self._write_on, name="request-log", daemon=True).start()
        atexit.register(self.flush)

    def write(
        self, request_id: str, method: str, route: str, status: int, seconds: float, code: str | None = None
    ) -> None:
        """Note one line. ``code`` is the error's code, if it was one."""
        if status < self._least:
            return
        fields: dict[str, Any] = {
            "time": dt.datetime.now(dt.UTC),
            "level": "INFO" if status < 400 else "WARNING" if status < 500 else "ERROR",
            "service": self._service,
            "request_id": request_id,
            "method": method,
            "route": route,
            "status": status,
            "duration_ms": round(seconds * 1e3, 3),
        }
        if code is not None:
            fields["code"] = code
        self._lines.append(_line(fields))
        if not self._some.is_set():
            self._some.set()

    def _write_on(self) -> None:
        while True:
            self._some.wait()
            time.sleep(_GATHER_SECONDS)
            self._some.clear()
            self.flush()

    def flush(self) -> None:
        """Write what was noted so far."""
        # Who flushes at the end of the process waits for the lines that the other thread is about to write.
        with self._flushing:
            lines = []
            with contextlib.suppress(IndexError):
                while True:
                    lines.append(self._lines.popleft())
            # If stderr is gone, the service is worth more than its lines.
            with contextlib.suppress(OSError, ValueError):
                sys.stderr.write(b"".join(lines).decode())
                sys.stderr.flush()
