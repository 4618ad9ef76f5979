"""Calls of JSM: POST with JSON, over a socket, one connection per call.

HTTP/1.0 is written out here: it is little (an answer ends with its connection, and is never in chunks), while
``http.client`` takes as long to import as all the rest of the worker. So the time-out is for a whole call,
too, and not for each piece of the answer.
"""

from __future__ import annotations

import json
import socket
import time

from jobmon.worker.settings import Settings

TYPE_CHECKING = False  # see jobmon.worker.output
if TYPE_CHECKING:
    from typing import Any

# An answer holds a command at most; what is larger does not come from JSM.
MAX_ANSWER_BYTES = 64 * 1024 * 1024


class RefusedError(Exception):
    """JSM refuses the call: 4xx with its error. The same call would be refused again.

    Parameters:
        status: the HTTP status.
        code: the error's name, such as JOB_INSTANCE_ENDED.
        message: what is wrong.
    """

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message if message.startswith(code) else f"{code}: {message}")
        self.status = status
        self.code = code


class UnreachableError(Exception):
    """There was no answer of JSM's: no connection, a time-out, 5xx, or an answer of somebody else's."""


def call(settings: Settings, route: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
    """POST a call to JSM.

    Parameters:
        settings: where JSM is.
        route: the procedure.
        body: its parameters.
        timeout: seconds for the whole call; looking up the host's name is not counted.

    Raises:
        RefusedError: JSM refuses the call.
        UnreachableError: the call may be repeated, and perhaps it will succeed then.
    """
    data = json.dumps(body).encode()
    head = [
        f"POST /{route} HTTP/1.0",
        f"Host: {settings.jsm}",
        "Content-Type: application/json",
        f"Content-Length: {len(data)}",
        "Connection: close",
    ]
    if settings.token:
        head.append(f"Authorization: Bearer {settings.token}")
    request = "\r\n".join(head).encode() + b"\r\n\r\n" + data
    address = (settings.host.strip("[]"), settings.port)
    try:
        with socket.create_connection(address, timeout) as connection:
            status, answer = _exchange(connection, request, time.monotonic() + timeout)
    # UnicodeError: a host name that cannot be one
    except (OSError, UnicodeError) as problem:
        raise UnreachableError(str(problem) or type(problem).__name__) from None
    try:
        document = json.loads(answer)
    except (ValueError, RecursionError):
        document = None
    if status == 200 and isinstance(document, dict):
        return document
    error = document.get("error") if isinstance(document, dict) else None
    if 400 <= status < 500 and isinstance(error, dict):
        raise RefusedError(status, str(error.get("code")), str(error.get("message")))
    code = f" {error.get('code')}" if isinstance(error, dict) else ""
    raise UnreachableError(f"HTTP status {status}{code}")


def _exchange(connection: socket.socket, request: bytes, deadline: float) -> tuple[int, bytes]:
    """Send a request; gives the answer's status and body."""
    connection.sendall(request)
    received = bytearray()
    end: int | None = None  # of the answer, where its head tells
    while end is None or len(received) < end:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        connection.settimeout(left)
        part = connection.recv(65536)
        if not part:
            break
        received += part
        if len(received) > MAX_ANSWER_BYTES:
            raise UnreachableError("the answer is too large")
        if end is None:
            end = _end(received)
    head, separator, body = bytes(received).partition(b"\r\n\r\n")
    version, _, rest = head.partition(b" ")
    status = rest[:3]
    if not separator or not version.startswith(b"HTTP/1.") or len(status) < 3 or not status.isdigit():
        raise UnreachableError("the answer is not HTTP" if received else "there is no answer")
    if end is not None and len(received) < end:
        raise UnreachableError("the answer is cut off")
    return int(status), body


def _end(received: bytearray) -> int | None:
    """How long the answer is, by its Content-Length; None if that is not known (yet)."""
    head_end = received.find(b"\r\n\r\n")
    for line in received[: max(head_end, 0)].lower().split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        value = value.strip()
        if name == b"content-length" and value.isdigit() and len(value) < 18:
            return head_end + 4 + int(value)
    return None
