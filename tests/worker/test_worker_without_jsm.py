"""JSM is away, slow, broken, or somebody else: the command goes on, and its end is told later."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import until
from worker_helpers import Answer, FakeJsm, Worker, alive, refusal

from jobmon.worker import jsm
from jobmon.worker.settings import Settings

Make = Callable[..., FakeJsm]
Run = Callable[..., int]
Start = Callable[..., Worker]

# What comes from something that is not JSM, or not quite.
ODD_ANSWERS: list[Answer] = [
    (500, {"error": {"code": "INTERNAL_ERROR", "message": "no", "hint": "", "request_id": "x"}}),
    (502, {}),
    (503, {"error": {"code": "DATABASE_UNAVAILABLE", "message": "no", "hint": ""}}),
    (200, ["no object"]),
    (404, {"detail": "not JSM"}),
    (302, {}),
    b"",
    b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{}",
    b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n{",
    b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
    b"HTTP/1.1\r\n\r\n{}",
    b"HTTP/1.1 " + b"2" * 5000 + b"\r\n\r\nhello",
    b"HTTP/1.1 200 OK\n\n{}",
    b"SSH-2.0-OpenSSH_9.2\r\n",
    b"\x00\xff\xfe" * 100,
]


@pytest.mark.parametrize("answer", ODD_ANSWERS, ids=range(len(ODD_ANSWERS)))
def test_a_call_is_made_again(make_fake: Make, start_worker: Start, answer: Answer) -> None:
    fake = make_fake(command="exit 3")
    fake.answers["start_job_instance"] = [answer, (200, {"job_instance": fake.instance})]
    fake.answers["log_error"] = [answer, (200, {"message": ""})]
    worker = start_worker(fake)
    assert worker.wait() == 3
    assert [route for route, _ in fake.calls] == ["start_job_instance"] * 2 + ["log_error"] * 2
    assert fake.calls[0] == fake.calls[1]
    assert fake.calls[2] == fake.calls[3]
    log = worker.log.read_text()
    assert log.count("does not answer") == 2
    assert log.count("answers again") == 2


def test_jsm_comes_later(make_fake: Make, start_worker: Start) -> None:
    fake = make_fake(started=False, command="exit 3")
    worker = start_worker(fake)
    until(lambda: "does not answer" in worker.log.read_text())
    fake.start()
    assert worker.wait() == 3
    assert fake.end["error_message"] == "exit code 3"


def test_jsm_does_not_come(make_fake: Make, start_worker: Start) -> None:
    fake = make_fake(started=False)
    began = time.monotonic()
    worker = start_worker(fake, "--patience", "2")
    assert worker.wait() == 69
    assert time.monotonic() - began >= 2
    assert "the command is not started: JSM at 127.0.0.1:" in worker.log.read_text()


def test_the_command_goes_on_without_jsm(make_fake: Make, start_worker: Start, tmp_path: Path) -> None:
    fake = make_fake(
        command=f"echo 1; while [ ! -e {tmp_path}/go_on ]; do sleep 0.05; done; echo 2; exit 3",
        stdout=str(tmp_path),
    )
    worker = start_worker(fake, "--heartbeat-seconds", "0.1", "--patience", "1000")
    until(lambda: fake.of("log_job_instance_heartbeat"))
    fake.stop()
    until(lambda: "does not answer" in worker.log.read_text())
    assert alive(fake.group)
    (tmp_path / "go_on").touch()
    until(lambda: not alive(fake.group))
    assert (tmp_path / "job.o7").read_text() == "1\n2\n"
    assert worker.process.poll() is None  # it has yet to tell the end
    fake.start()
    assert worker.wait() == 3
    assert fake.end["error_message"] == "exit code 3"


def test_patience_ends(make_fake: Make, start_worker: Start) -> None:
    fake = make_fake(command="exit 3")
    fake.answers["log_error"] = [(503, {})]
    worker = start_worker(fake, "--patience", "6")
    assert worker.wait() == 3
    assert len(fake.of("log_error")) >= 2
    assert "the end of the command is not reported: HTTP status 503" in worker.log.read_text()


def test_a_signal_shortens_the_patience(make_fake: Make, start_worker: Start, tmp_path: Path) -> None:
    program = tmp_path / "hasty.py"
    program.write_text(
        "import sys\nfrom jobmon.worker import main\nmain.SECONDS_AFTER_SIGNAL = 1.0\n"
        "sys.exit(main.main(sys.argv[1:]))\n"
    )
    fake = make_fake(command="exit 3")
    fake.answers["log_error"] = [(503, {})]
    worker = start_worker(fake, "--kill-after", "0", popen={"program": [str(program)]})
    until(lambda: len(fake.of("log_error")) >= 2)
    worker.signal(15)
    assert worker.wait() == 3  # the command's own: it had ended before


@pytest.mark.parametrize(("code", "status"), [("UNAUTHORIZED", 401), ("INVALID_PARAMETER", 422)])
def test_a_refused_report_is_not_repeated(
    make_fake: Make, start_worker: Start, code: str, status: int
) -> None:
    fake = make_fake(command="exit 3")
    fake.answers["log_error"] = [refusal(code, status)]
    worker = start_worker(fake)
    assert worker.wait() == 3
    assert len(fake.of("log_error")) == 1
    assert f"the end of the command is not reported: {code}: no" in worker.log.read_text()


def test_refused_heartbeats_do_not_end_the_command(
    make_fake: Make, start_worker: Start, tmp_path: Path
) -> None:
    fake = make_fake(command=f"while [ ! -e {tmp_path}/enough ]; do sleep 0.05; done; exit 3")
    fake.answers["log_job_instance_heartbeat"] = [refusal("UNAUTHORIZED", 401)]
    worker = start_worker(fake, "--heartbeat-seconds", "0.1")
    until(lambda: len(fake.of("log_job_instance_heartbeat")) >= 4)
    (tmp_path / "enough").touch()
    assert worker.wait() == 3
    assert worker.log.read_text().count("a heartbeat was refused: UNAUTHORIZED") == 1


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"job_instance": None},
        {"job_instance": 7},
        {"job_instance": {"command": None}},
        {"outcomes": []},
        {"outcomes": [{}]},
    ],
)
def test_answers_that_lack_what_is_needed(make_fake: Make, start_worker: Start, answer: object) -> None:
    fake = make_fake()
    fake.answers["start_job_instance"] = [(200, answer)]
    worker = start_worker(fake)
    assert worker.wait() == 69
    fake = make_fake(command="exit 3")
    fake.answers["log_error"] = [(200, answer)]
    worker = start_worker(fake)
    assert worker.wait() == 3
    assert "the end of the command is perhaps not reported" in worker.log.read_text()
    assert "this should not have happened" not in worker.log.read_text()


def test_the_token_is_sent(make_fake: Make, run_worker: Run) -> None:
    fake = make_fake()
    assert run_worker(fake, JOBMON_TOKEN="secret-token") == 0
    assert {headers["Authorization"] for headers in fake.headers} == {"Bearer secret-token"}
    fake = make_fake()
    assert run_worker(fake) == 0
    assert not any("Authorization" in headers for headers in fake.headers)


def test_an_answer_without_a_length_ends_with_its_connection(make_fake: Make) -> None:
    fake = make_fake()
    fake.answers["x"] = [b'HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\r\n{"a":\r\n\r\n1}']
    assert jsm.call(Settings("127.0.0.1", fake.port, None), "x", {}, 30) == {"a": 1}


def test_an_answer_ends_where_its_length_says() -> None:
    released = threading.Event()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-length:")
        connection.sendall(b' 8\r\n\r\n{"a": 1}')
        released.wait(60)  # it stays open
        connection.close()

    threading.Thread(target=serve, daemon=True).start()
    port = listener.getsockname()[1]
    assert jsm.call(Settings("localhost", port, None), "x", {}, 30) == {"a": 1}
    assert not released.is_set()
    released.set()
    listener.close()


def test_a_time_out_is_for_the_whole_call() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    released = threading.Event()

    def trickle() -> None:
        connection, _ = listener.accept()
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        with contextlib.suppress(OSError):
            while not released.wait(0.2):
                connection.sendall(b"X")
        connection.close()

    threading.Thread(target=trickle, daemon=True).start()
    port = listener.getsockname()[1]
    with pytest.raises(jsm.UnreachableError, match="timed out"):
        jsm.call(Settings("127.0.0.1", port, None), "x", {}, 1)
    released.set()
    listener.close()


@pytest.mark.parametrize("host", ["no.such.host.invalid", "x" * 300, "a..b", "[::1]"])
def test_a_host_that_is_not_there(host: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(jsm.UnreachableError):
        jsm.call(Settings(host, port, None), "x", {}, 30)
