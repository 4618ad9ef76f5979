"""Calls of the services: what is sent again, what is refused, and how that is told."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from client_helpers import Services
from http_helpers import free_port

from jobmon import JobmonError
from jobmon.client import requester as module
from jobmon.client.errors import RequestRefused, ServiceUnavailable
from jobmon.client.requester import Requester
from jobmon.config import Config, load_config

Answer = tuple[int, Any] | str


class StubService:
    """A service that answers what it is told, one answer after the other, and the last one for ever.

    An answer is a status and a JSON value (or bytes), or ``"hang up"`` or ``"cut"``.
    """

    def __init__(self, port: int = 0) -> None:
        self.answers: list[Answer] = [(200, {})]
        self.seen: list[tuple[str, str, dict[str, str], Any]] = []
        self._lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
                with outer._lock:
                    content = json.loads(body) if body else None
                    outer.seen.append((self.command, self.path, dict(self.headers), content))
                    answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                if isinstance(answer, str):
                    if answer == "cut":
                        self.send_response(200)
                        self.send_header("Content-Length", "1000")
                        self.end_headers()
                        self.wfile.write(b'{"half": ')
                    self.close_connection = True
                    return
                status, document = answer
                data = document if isinstance(document, bytes) else json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            do_GET = do_POST  # noqa: N815

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def stub() -> Iterator[StubService]:
    service = StubService()
    yield service
    service.close()


@pytest.fixture
def make_requester(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Requester]:
    """Makes requesters that talk to one port, and don't wait long between tries."""
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.01)

    def make(port: int, patience: float = 20, **settings: Any) -> Requester:
        rc = tmp_path / "rc"
        rc.write_text("{}")
        overrides = {"jsm_port": port, "jqs_port": port, **settings}
        return Requester(load_config(rc, env={}, overrides=overrides), patience=patience)

    return make


Make = Callable[..., Requester]


def test_a_call_and_its_answer(stub: StubService, make_requester: Make) -> None:
    stub.answers = [(200, {"dag_id": 7})]
    requester = make_requester(stub.port)
    assert requester.post("add_task_dag", name="ä", user=None) == {"dag_id": 7}
    method, path, headers, body = stub.seen[0]
    assert (method, path, body) == ("POST", "/add_task_dag", {"name": "ä", "user": None})
    assert headers["Content-Type"] == "application/json" and "Authorization" not in headers
    assert requester.num_calls == 1


def test_arguments_of_a_view(stub: StubService, make_requester: Make) -> None:
    make_requester(stub.port).get("jobs", name="a b&c", dag_id=None, job_id=3)
    assert stub.seen[0][:2] == ("GET", "/jobs?name=a+b%26c&job_id=3")


def test_an_empty_answer_is_an_empty_document(stub: StubService, make_requester: Make) -> None:
    stub.answers = [(204, b"")]
    assert make_requester(stub.port).get("get_workflows_by_inputs") == {}


def test_large_numbers_and_odd_texts_are_sent(stub: StubService, make_requester: Make) -> None:
    make_requester(stub.port).post("add_job", job_hash=2**159, name="\udcff")
    assert stub.seen[0][3] == {"job_hash": 2**159, "name": "\udcff"}


@pytest.mark.parametrize(
    "failure", [(502, b"<html>"), (503, {"error": {"code": "X"}}), (504, b""), "hang up", "cut"]
)
def test_what_passes_is_tried_again(stub: StubService, make_requester: Make, failure: Answer) -> None:
    stub.answers = [failure, failure, (200, {"dag_id": 1})]
    requester = make_requester(stub.port)
    assert requester.post("add_task_dag", request_key="k") == {"dag_id": 1}
    assert requester.num_calls == len(stub.seen) == 3
    assert [seen[3] for seen in stub.seen] == 3 * [{"request_key": "k"}]


def test_nobody_there_is_told_when_the_patience_is_over(make_requester: Make) -> None:
    port = free_port()
    began = time.monotonic()
    with pytest.raises(ServiceUnavailable) as caught:
        make_requester(port, patience=0.5).post("add_job")
    assert time.monotonic() - began < 20
    assert f"POST http://127.0.0.1:{port}/add_job" in caught.value.message
    assert "Connection refused" in caught.value.message and "urllib3" not in caught.value.message
    assert "runserver.py" in caught.value.hint
    assert isinstance(caught.value, JobmonError)


def test_a_service_that_comes_back_is_found(make_requester: Make) -> None:
    port = free_port()
    late: list[StubService] = []
    starter = threading.Timer(0.5, lambda: late.append(StubService(port)))
    starter.start()
    try:
        assert make_requester(port, patience=60).post("x") == {}
    finally:
        starter.join()
        late[0].close()


def test_what_the_service_says_when_it_is_away_is_told(stub: StubService, make_requester: Make) -> None:
    stub.answers = [(503, {"error": {"code": "DATABASE_UNAVAILABLE", "message": "no answer", "hint": ""}})]
    with pytest.raises(ServiceUnavailable, match="503 DATABASE_UNAVAILABLE: no answer"):
        make_requester(stub.port, patience=0.2).post("x")


def test_an_answer_that_does_not_come_is_given_up(make_requester: Make) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        requester = make_requester(silent.getsockname()[1], patience=0.3)
        requester.timeout = (0.2, 0.2)
        with pytest.raises(ServiceUnavailable, match="the answer took too long"):
            requester.get("jobs")


@pytest.mark.parametrize("status", [400, 401, 404, 409, 413, 422, 500])
def test_a_refusal_is_not_tried_again(stub: StubService, make_requester: Make, status: int) -> None:
    stub.answers = [(status, {"error": {"code": "NO_SUCH", "message": "NO_SUCH: not here", "hint": "Look."}})]
    with pytest.raises(RequestRefused) as caught:
        make_requester(stub.port).post("x")
    error = caught.value
    assert (error.code, error.message, error.hint) == ("NO_SUCH", "NO_SUCH: not here", "Look.")
    assert error.status == status and len(stub.seen) == 1
    assert str(error) == "NO_SUCH: not here\nHint: Look."


def test_a_refusal_names_its_code_and_its_request(stub: StubService, make_requester: Make) -> None:
    said = {"code": "INTERNAL_ERROR", "message": "Something went wrong.", "hint": "", "request_id": "r7"}
    stub.answers = [(500, {"error": said})]
    with pytest.raises(RequestRefused) as caught:
        make_requester(stub.port).post("x")
    assert caught.value.message == "INTERNAL_ERROR: Something went wrong."
    assert "r7" in caught.value.hint


@pytest.mark.parametrize(
    "answer",
    [(200, b"<html>"), (200, b"[]"), (404, b"<html>"), (302, b""), (400, {"error": "x"}), (500, b"[]")],
)
def test_what_is_no_service_of_jobmon_is_told(
    stub: StubService, make_requester: Make, answer: Answer
) -> None:
    stub.answers = [answer]
    with pytest.raises(RequestRefused) as caught:
        make_requester(stub.port).get("jobs")
    assert caught.value.code == "NOT_JOBMON" and "jsm_port" in caught.value.hint
    assert len(stub.seen) == 1


def test_tokens(stub: StubService, make_requester: Make) -> None:
    requester = make_requester(stub.port, token="writing")
    requester.post("x")
    requester.get("x")
    requester = make_requester(stub.port, token="writing", read_token="reading")
    requester.post("x")
    requester.get("x")
    sent = [seen[2]["Authorization"] for seen in stub.seen]
    assert sent == ["Bearer writing", "Bearer writing", "Bearer writing", "Bearer reading"]


def test_settings_of_the_environment_do_not_matter(
    stub: StubService, make_requester: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    make_requester(stub.port, patience=1).post("x")
    assert "Authorization" not in stub.seen[0][2]


def test_an_ipv6_host(make_requester: Make) -> None:
    assert make_requester(5, host="::1").jsm == "http://[::1]:5"


def test_many_threads_share_one(stub: StubService, make_requester: Make) -> None:
    requester = make_requester(stub.port)
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda number: requester.post("x", number=number), range(300)))
    assert requester.num_calls == len(stub.seen) == 300
    assert {seen[3]["number"] for seen in stub.seen} == set(range(300))


def test_rows_come_page_by_page(requester: Requester, monkeypatch: pytest.MonkeyPatch) -> None:
    dag_id = requester.post("add_task_dag", user="u", dag_hash="h")["dag_id"]
    other = requester.post("add_task_dag", user="u", dag_hash="h")["dag_id"]
    for number in range(7):
        requester.post("add_job", dag_id=dag_id, name=f"j{number}", job_hash=str(number), command="true")
    requester.post("add_job", dag_id=other, name="other", job_hash="1", command="true")
    monkeypatch.setattr(module, "PAGE", 3)
    calls = requester.num_calls
    assert [row["name"] for row in requester.get_rows("jobs", dag_id=dag_id)] == [f"j{n}" for n in range(7)]
    assert requester.num_calls - calls == 3
    assert requester.get_rows("jobs", dag_id=0) == []


def test_the_real_services_refuse_by_name(requester: Requester) -> None:
    with pytest.raises(RequestRefused) as caught:
        requester.post("add_jobs", dag_id=4711, jobs=[])
    assert (caught.value.code, caught.value.status) == ("UNKNOWN_DAG", 404)
    assert caught.value.hint
    with pytest.raises(RequestRefused, match="NOT_FOUND"):
        requester.get("no_such_view")


def test_the_configuration_is_read_if_none_is_given(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in services.environ.items():
        monkeypatch.setenv(name, value)
    requester = Requester()
    assert isinstance(requester.config, Config)
    assert requester.jsm == f"http://127.0.0.1:{services.config.jsm_port}"
