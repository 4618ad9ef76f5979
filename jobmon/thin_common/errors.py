"""Errors of the services: those that arise before the database is asked, and how the database's own are
shown.

Errors that the procedures raise are rows of the table ``api_error``. What happens outside of the database (a
body that is no JSON, a wrong token, no free connection) stands in :data:`TRANSPORT_ERRORS`. Either way the
answer is ``{"error": {"code": ..., "message": ..., "hint": ...}}``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import orjson


@dataclass(frozen=True)
class ErrorKind:
    """One kind of error: its code, the HTTP status, and the words used where there are no better ones."""

    name: str
    status: int
    message: str
    hint: str = ""


_BY_DOCUMENT = "See /openapi.json."
_AGAIN = "Try again in a moment."

TRANSPORT_ERRORS: dict[str, ErrorKind] = {
    kind.name: kind
    for kind in (
        ErrorKind("MALFORMED_JSON", 400, "The body is not JSON.", "Send one JSON object, UTF-8 encoded."),
        ErrorKind(
            "NOT_AN_OBJECT", 400, "The body is JSON, but no object.", 'Send an object: {"key": value}.'
        ),
        ErrorKind("INCOMPLETE_BODY", 400, "The body ended before its Content-Length.", "Send it again."),
        ErrorKind("MISSING_ARGUMENT", 400, "A required argument is missing.", "Give it in the query string."),
        ErrorKind("INVALID_ARGUMENT", 400, "An argument has a wrong value.", _BY_DOCUMENT),
        ErrorKind("UNKNOWN_ARGUMENT", 400, "An argument is not known.", _BY_DOCUMENT),
        ErrorKind("INVALID_CURSOR", 400, "This service never gave this cursor.", "Start without a cursor."),
        ErrorKind(
            "INVALID_POSITION",
            400,
            "This is no position, or none of this database's.",
            "Send a Jobmon-Position of JSM's as it is. See docs/scaling.md.",
        ),
        ErrorKind(
            "UNAUTHORIZED",
            401,
            "This needs a valid bearer token.",
            "Send the header 'Authorization: Bearer <token>'; the token stands in ~/.jobmonrc.",
        ),
        ErrorKind("NOT_FOUND", 404, "There is nothing at this path.", _BY_DOCUMENT),
        ErrorKind("METHOD_NOT_ALLOWED", 405, "The path does not know this method.", "See the header Allow."),
        ErrorKind("BODY_TOO_LARGE", 413, "The body is too large.", "Send fewer rows per call."),
        ErrorKind("UNKNOWN_PARAMETER", 422, "A key of the body is not known.", _BY_DOCUMENT),
        ErrorKind("INVALID_PARAMETER", 422, "A value of the body is wrong.", _BY_DOCUMENT),
        ErrorKind("INTERNAL_ERROR", 500, "Something went wrong here.", "Tell the operator the request_id."),
        ErrorKind("OVERLOADED", 503, "All database connections are in use.", _AGAIN),
        ErrorKind("DATABASE_UNAVAILABLE", 503, "The database does not answer.", _AGAIN),
        ErrorKind("DATABASE_BUSY", 503, "The call kept colliding with others.", _AGAIN),
        ErrorKind("REPLICA_BEHIND", 503, "The replica has not come to min_position yet.", _AGAIN),
        ErrorKind("NOT_READY", 503, "The schema and this code do not fit.", "Run `jobmon db migrate`."),
    )
}

RETRY_AFTER = "1"  # seconds


class RelayError(Exception):
    """An error with its answer.

    Parameters:
        kind: which error; a name in :data:`TRANSPORT_ERRORS` or a kind of one's own.
        message: what is wrong in this very case; the kind's words if None.
        hint: what to do about it; the kind's words if None.
        headers: further headers of the answer.
    """

    def __init__(
        self,
        kind: str | ErrorKind,
        message: str | None = None,
        hint: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
    ) -> None:
        if isinstance(kind, str):
            kind = TRANSPORT_ERRORS[kind]
        self.code = kind.name
        self.status = kind.status
        self.message = kind.message if message is None else message
        self.hint = kind.hint if hint is None else hint
        self.headers = list(headers)
        if self.status == 503:
            self.headers.append(("Retry-After", RETRY_AFTER))
        elif self.status == 401:
            self.headers.append(("WWW-Authenticate", "Bearer"))
        super().__init__(f"{self.code}: {self.message}")

    def body(self, request_id: str | None = None) -> bytes:
        """The answer's JSON, with the request id if one is given."""
        error: dict[str, Any] = {"code": self.code, "message": self.message, "hint": self.hint}
        if request_id is not None:
            error["request_id"] = request_id
        return orjson.dumps({"error": error}, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)
