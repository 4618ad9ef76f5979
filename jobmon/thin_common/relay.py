"""The relay in front of Flask: answers the calls that the database defines, with as little work as possible.

Flask's way from a request to a view and back costs about as much CPU as the CALL itself
(docs/wsgi-servers.md), and the routes here are not Flask's to know: they are whatever the account may execute
or read. So the relay is WSGI middleware around the Flask application (``app.wsgi_app``, Flask's place for
such things). It takes the requests that name a procedure or a view; all others (``/``, ``/healthz``,
``/metrics``, unknown paths, wrong methods, web pages) go on to Flask. It also gives every request, Flask's
too, its id, its log line and its metrics.
"""

from __future__ import annotations

import hmac
import itertools
import logging
import re
import secrets
import time
from collections.abc import Iterable
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pymysql

from jobmon.thin_common import metrics
from jobmon.thin_common.errormap import ErrorMap
from jobmon.thin_common.errors import RelayError
from jobmon.thin_common.logs import RequestLog

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

logger = logging.getLogger(__name__)

JSON = "application/json"
# Clients of emu's release die of an answer without a Content-Type, an empty one too.
HTML = "text/html; charset=utf-8"
REQUEST_ID = "jobmon.request_id"
ERROR_CODE = "jobmon.error_code"
HEADERS = "jobmon.headers"  # a list to which a call may add headers of its answer

_STATUS_LINES = {status.value: f"{status.value} {status.phrase}" for status in HTTPStatus}
_GIVEN_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")

Answer = tuple[int, str, bytes]  # status, Content-Type, body


def status_line(status: int) -> str:
    """``200`` -> ``200 OK``; statuses that HTTP doesn't name get their number as a phrase."""
    return _STATUS_LINES.get(status) or f"{status} {status}"


class Relay:
    """WSGI middleware that answers the calls the database defines; JSM and JQS fill in how.

    Parameters:
        service: ``jsm`` or ``jqs``.
        inner: the application that gets everything else.
        tokens: the bearer tokens that are accepted; empty means that none is needed.
        log_level: see :class:`RequestLog`.
    """

    method = "POST"  # the method of all of the service's calls

    def __init__(self, service: str, inner: WSGIApplication, tokens: Iterable[str], log_level: str) -> None:
        self.service = service
        self._inner = inner
        self._tokens = [token.encode() for token in tokens]
        self.log = RequestLog(service, log_level)
        self._id_prefix = secrets.token_hex(4)
        self._id_numbers = itertools.count(1)

    # To be filled in

    def knows(self, name: str) -> bool:
        """Whether ``name`` is one of the service's calls."""
        raise NotImplementedError

    def relay(self, name: str, environ: WSGIEnvironment) -> Answer:
        """Do the call ``name``; raises RelayError or pymysql.err.Error."""
        raise NotImplementedError

    def errors(self) -> ErrorMap | None:
        """The errors of the database, as far as they are known by now."""
        raise NotImplementedError

    # The frame

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        started = time.perf_counter()
        given = environ.get("HTTP_X_REQUEST_ID")
        if given and _GIVEN_ID.fullmatch(given):
            request_id = given
        else:
            request_id = f"{self._id_prefix}-{next(self._id_numbers):x}"
        environ[REQUEST_ID] = request_id
        name = environ["PATH_INFO"][1:]
        method = environ["REQUEST_METHOD"]
        head = method == "HEAD" and self.method == "GET"
        if (method != self.method and not head) or not name or "/" in name or not self.knows(name):
            return self._pass_on(environ, start_response, started, request_id, method)

        code = None
        headers: list[tuple[str, str]] = []
        environ[HEADERS] = headers
        try:
            self.authorise(environ)
            status, content_type, body = self.relay(name, environ)
        except Exception as error:
            answer = self.answer_for(error, name, request_id)
            code, status, content_type = answer.code, answer.status, JSON
            body = answer.body(request_id if status >= 500 else None)
            headers = answer.headers
        start_response(
            status_line(status),
            [
                ("Content-Type", content_type),
                ("Content-Length", str(len(body))),
                ("X-Request-Id", request_id),
                *headers,
            ],
        )
        seconds = time.perf_counter() - started
        metrics.count_request(self.service, name, status, seconds)
        self.log.write(request_id, method, name, status, seconds, code)
        return [] if head else [body]

    def _pass_on(
        self,
        environ: WSGIEnvironment,
        start_response: StartResponse,
        started: float,
        request_id: str,
        method: str,
    ) -> Iterable[bytes]:
        seen = 500

        def remember(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            nonlocal seen
            seen = int(status[:3])
            return start_response(status, [*headers, ("X-Request-Id", request_id)], exc_info)

        try:
            return self._inner(environ, remember)
        finally:
            seconds = time.perf_counter() - started
            # Names of what isn't there come from outside: as a label they would grow without bound.
            route = environ.get("jobmon.route", "other")
            metrics.count_request(self.service, route, seen, seconds)
            self.log.write(request_id, method, route, seen, seconds, environ.get(ERROR_CODE))

    def authorise(self, environ: WSGIEnvironment) -> None:
        """Check the bearer token, in constant time.

        Raises:
            RelayError: UNAUTHORIZED.
        """
        if not self._tokens:
            return
        scheme, _, given = environ.get("HTTP_AUTHORIZATION", "").partition(" ")
        token = given.strip().encode("utf-8", "replace")
        # All are compared, so that the time does not tell which one fits.
        fits = [hmac.compare_digest(token, known) for known in self._tokens]
        if scheme.lower() != "bearer" or not any(fits):
            raise RelayError("UNAUTHORIZED")

    def answer_for(self, error: Exception, route: str, request_id: str) -> RelayError:
        """The answer to what went wrong. What is not foreseen is logged in full, shown as INTERNAL_ERROR."""
        if isinstance(error, RelayError):
            return error
        if isinstance(error, pymysql.err.Error):
            known = self.errors()
            answer = known.translate(error) if known else None
            if answer is not None:
                return answer
        logger.error(
            "unexpected error",
            exc_info=error,
            extra={"service": self.service, "route": route, "request_id": request_id},
        )
        return RelayError("INTERNAL_ERROR")


def read_body(environ: WSGIEnvironment, limit: int) -> bytes:
    """The request's body.

    Parameters:
        environ: the WSGI environment.
        limit: largest number of bytes that is accepted.

    Raises:
        RelayError: BODY_TOO_LARGE (by its Content-Length without reading any of it), INCOMPLETE_BODY.
    """
    length = environ.get("CONTENT_LENGTH")
    stream = environ["wsgi.input"]
    if length:
        size = int(length) if length.isdecimal() else 0
        if size > limit:
            raise _too_large(limit)
        body: bytes = stream.read(size) if size else b""
        while len(body) < size:
            more = stream.read(size - len(body))
            if not more:
                raise RelayError("INCOMPLETE_BODY")
            body += more
        return body
    if not environ.get("wsgi.input_terminated"):
        return b""  # without a length a server that doesn't mark the end gives nothing safe to read
    parts = []
    left = limit + 1
    while left > 0 and (part := stream.read(left)):
        parts.append(part)
        left -= len(part)
    if left <= 0:
        raise _too_large(limit)
    return b"".join(parts)


def _too_large(limit: int) -> RelayError:
    # The rest of the body stays unread, so the connection can't be used again.
    message = f"The body is larger than {limit} bytes."
    return RelayError("BODY_TOO_LARGE", message, headers=[("Connection", "close")])
