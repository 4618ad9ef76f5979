"""The Flask application both services share: what is served beside the database's own calls."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import orjson
import pymysql
from flask import Flask, Response, request
from werkzeug.exceptions import HTTPException

from jobmon.thin_common import metrics
from jobmon.thin_common.errors import RelayError
from jobmon.thin_common.relay import ERROR_CODE, JSON, REQUEST_ID

logger = logging.getLogger(__name__)

# What every service serves beside its calls.
COMMON_ROUTES = ("healthz", "readyz", "metrics", "openapi.json")


def json_response(document: Any, status: int = 200) -> Response:
    """A Flask answer with ``document`` as JSON: keys sorted, one newline at the end."""
    body = orjson.dumps(document, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
    return Response(body, status=status, content_type=JSON)


def make_app(
    name: str,
    service: str,
    *,
    ready: Callable[[], dict[str, Any]],
    openapi: Callable[[], dict[str, Any]] | None = None,
    call_method: str | None = None,
    knows: Callable[[str], bool] = lambda path: False,
) -> Flask:
    """A Flask application with ``/``, ``/healthz``, ``/readyz``, ``/metrics``, ``/openapi.json`` and JSON
    errors.

    Parameters:
        name: import name of the application.
        service: ``jsm`` or ``jqs``, for the logs.
        ready: returns what ``/readyz`` answers; raises RelayError when the service is not ready.
        openapi: makes the OpenAPI document; None if there is no such route.
        call_method: the method of the service's own calls, for the answer to another one.
        knows: whether a name is one of the service's own calls.
    """
    app = Flask(name, static_folder=None)
    app.url_map.merge_slashes = False  # `//x` is no `/x`
    app.url_map.strict_slashes = True

    def route(path: str, view: Callable[[], Response]) -> None:
        def marked() -> Response:
            request.environ["jobmon.route"] = path
            return view()

        app.add_url_rule(path, path, marked, methods=["GET"])

    route("/", lambda: json_response({"msg": "Yes, I am alive"}))
    route("/healthz", lambda: json_response({"status": "ok"}))
    route("/readyz", lambda: json_response(ready()))
    route("/metrics", lambda: Response(metrics.render(), content_type=metrics.CONTENT_TYPE))
    if openapi is not None:
        route("/openapi.json", lambda: json_response(openapi()))

    def refuse(error: RelayError) -> Response:
        request.environ[ERROR_CODE] = error.code
        request_id = request.environ.get(REQUEST_ID) if error.status >= 500 else None
        response = Response(error.body(request_id), status=error.status, content_type=JSON)
        for key, value in error.headers:
            response.headers[key] = value
        return response

    app.register_error_handler(RelayError, refuse)

    @app.errorhandler(HTTPException)
    def on_http_exception(error: HTTPException) -> Response:
        if error.code == 404 and call_method is not None and knows(request.environ["PATH_INFO"][1:]):
            allow = "GET, HEAD, OPTIONS" if call_method == "GET" else call_method
            return refuse(
                RelayError(
                    "METHOD_NOT_ALLOWED",
                    f"{request.path} knows {call_method} only.",
                    headers=[("Allow", allow)],
                )
            )
        if error.code == 404:
            return refuse(RelayError("NOT_FOUND", f"There is nothing at {request.path[:200]!r}."))
        if error.code == 405:
            allow = dict(error.get_headers()).get("Allow", "GET")
            return refuse(
                RelayError(
                    "METHOD_NOT_ALLOWED", f"{request.path} knows {allow} only.", headers=[("Allow", allow)]
                )
            )
        if error.code == 413:
            return refuse(RelayError("BODY_TOO_LARGE"))
        if error.code is not None and 400 <= error.code < 500:
            return json_response(
                {
                    "error": {
                        "code": (error.name or "BAD_REQUEST").upper().replace(" ", "_"),
                        "message": str(error.description),
                        "hint": "",
                    }
                },
                error.code,
            )
        return on_exception(error)

    @app.errorhandler(Exception)
    def on_exception(error: Exception) -> Response:
        logger.error(
            "unexpected error",
            exc_info=error,
            extra={
                "service": service,
                "route": request.path[:200],
                "request_id": request.environ.get(REQUEST_ID),
            },
        )
        kind = "DATABASE_UNAVAILABLE" if isinstance(error, pymysql.err.Error) else "INTERNAL_ERROR"
        return refuse(RelayError(kind))

    return app
