"""What the OpenAPI documents of both services share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from jobmon.thin_common.errors import TRANSPORT_ERRORS, ErrorKind

_ERROR_SCHEMA = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "hint"],
            "properties": {
                "code": {"type": "string"},
                "message": {"type": "string"},
                "hint": {"type": "string"},
                "request_id": {"type": "string", "description": "with errors from 500 up"},
            },
        }
    },
}


def error_responses(kinds: Iterable[ErrorKind], transport: Sequence[str], secured: bool) -> dict[str, Any]:
    """The ``responses`` for errors, one per HTTP status, each naming its codes.

    Parameters:
        kinds: errors of the database that the call may raise.
        transport: names of transport errors that it may answer.
        secured: whether UNAUTHORIZED is among them.
    """
    names = (*transport, "UNAUTHORIZED") if secured else transport
    by_status: dict[int, list[ErrorKind]] = {}
    for kind in [*kinds, *(TRANSPORT_ERRORS[name] for name in names)]:
        by_status.setdefault(kind.status, []).append(kind)
    return {
        str(status): {
            "description": "; ".join(f"{kind.name}: {kind.message}" for kind in same),
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
        }
        for status, same in sorted(by_status.items())
    }


def document(title: str, description: str, paths: dict[str, Any], secured: bool) -> dict[str, Any]:
    """An OpenAPI 3.1 document around ``paths``, with the routes every service has.

    Parameters:
        title, description: for its ``info``.
        paths: the service's own paths.
        secured: whether its own paths need a bearer token.
    """
    if secured:
        for methods in paths.values():
            for operation in methods.values():
                operation["security"] = [{"bearer": []}]
    ok = {"200": {"description": "Yes."}}
    common = {
        "/": {"get": {"summary": "Says that the service is alive", "responses": ok}},
        "/healthz": {"get": {"summary": "The process is alive", "responses": ok}},
        "/readyz": {
            "get": {
                "summary": "The database answers and its schema fits",
                "responses": {**ok, **error_responses((), ("DATABASE_UNAVAILABLE", "NOT_READY"), False)},
            }
        },
        "/metrics": {"get": {"summary": "Metrics for Prometheus", "responses": ok}},
        "/openapi.json": {"get": {"summary": "This document", "responses": ok}},
    }
    components: dict[str, Any] = {"schemas": {"Error": _ERROR_SCHEMA}}
    if secured:
        components["securitySchemes"] = {"bearer": {"type": "http", "scheme": "bearer"}}
    try:
        release = version("jobmon")
    except PackageNotFoundError:
        release = "0"
    return {
        "openapi": "3.1.0",
        "info": {"title": title, "description": description, "version": release},
        "paths": {**common, **paths},
        "components": components,
    }
