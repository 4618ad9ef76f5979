"""A stand-in for Slack's Web API, over HTTP."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

GOOD = "xoxb-good-token"


@dataclass
class FakeSlack:
    """Knows one token, GOOD.

    Attributes:
        url: base URL of its API.
        asked: (path, Authorization header) of each call.
        answer: what it says to any token instead: (status, body).
    """

    url: str = ""
    asked: list[tuple[str, str]] = field(default_factory=list)
    answer: tuple[int, dict[str, object] | str] | None = None


@contextlib.contextmanager
def fake_slack() -> Iterator[FakeSlack]:
    """A running one."""
    slack = FakeSlack()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            token = self.headers.get("Authorization", "")
            slack.asked.append((self.path, token))
            if slack.answer is not None:
                status, body = slack.answer
            elif token == f"Bearer {GOOD}":
                status, body = 200, {"ok": True, "team": "Lab", "user": "jobmon"}
            else:
                status, body = 200, {"ok": False, "error": "invalid_auth"}
            data = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json; charset=utf-8")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    slack.url = f"http://127.0.0.1:{server.server_port}/api/"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield slack
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
