"""A stand-in for Slack's Web API, over HTTP on the loopback: what arrives, and what goes wrong on the way."""

from __future__ import annotations

import json
import threading
from collections import defaultdict, deque
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "xoxb-stand-in"


@dataclass
class Answer:
    """How a request is answered.

    status, headers, body: as HTTP has it; body None: as Slack does. arrives: whether the message is posted.
    hang: the answer waits until the stand-in is told to go on. drop: the connection is closed without one.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    arrives: bool = True
    hang: bool = False
    drop: bool = False


def refusal(error: str, **more: Any) -> Answer:
    """Slack says no, by this name."""
    return Answer(body=json.dumps({"ok": False, "error": error}), arrives=False, **more)


def too_many(seconds: int | None = 1) -> Answer:
    """Slack wants to be left alone."""
    headers = {} if seconds is None else {"Retry-After": str(seconds)}
    return refusal("ratelimited", status=429, headers=headers)


class SlackStandIn:
    """``chat.postMessage`` of a workspace.

    Attributes:
        url: of the Web API.
        messages: what stands in the channels, in the order of arrival; one for each client_msg_id.
        requests: every request: what was sent, and the token it came with.
        token: the one that is valid.
        next: answers to come, by channel; then all is well.
        down: an answer for all, while it is set.
    """

    def __init__(self) -> None:
        self.messages: list[dict[str, Any]] = []
        self.requests: list[dict[str, Any]] = []
        self.token = TOKEN
        self.next: dict[str, deque[Answer]] = defaultdict(deque)
        self.down: Answer | None = None
        self.go_on = threading.Event()
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        stand_in = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                stand_in._serve(self)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/api/"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        """Nobody answers any more."""
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()

    def texts(self, channel: str) -> list[str]:
        """The messages of a channel."""
        with self._lock:
            return [message["text"] for message in self.messages if message["channel"] == channel]

    def attempts(self, channel: str) -> int:
        """How many requests came for a channel."""
        with self._lock:
            return sum(request["channel"] == channel for request in self.requests)

    def _serve(self, request: BaseHTTPRequestHandler) -> None:
        form = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        token = (request.headers.get("Authorization") or "").removeprefix("Bearer ")
        with self._lock:
            self.requests.append({**form, "token": token, "path": request.path})
            number = len(self.requests)
            queue = self.next[form.get("channel", "")]
            if self.down is not None:
                answer = self.down
            elif token != self.token:
                answer = refusal("invalid_auth")
            else:
                answer = queue.popleft() if queue else Answer()
            if answer.arrives and form["client_msg_id"] not in self._seen:
                self._seen.add(form["client_msg_id"])
                self.messages.append(form)
        if answer.hang:
            self.go_on.wait(60)
        if answer.drop:
            request.close_connection = True
            request.connection.close()
            return
        body = answer.body
        if body is None:
            body = json.dumps({"ok": True, "channel": form["channel"], "ts": f"1700000000.{number:06d}"})
        request.send_response(answer.status)
        for name, value in {"Content-Type": "application/json; charset=utf-8", **answer.headers}.items():
            request.send_header(name, value)
        request.send_header("Content-Length", str(len(body.encode())))
        request.end_headers()
        request.wfile.write(body.encode())
