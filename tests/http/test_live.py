"""The services as processes behind real sockets."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
from http_helpers import Service, config_for, free_port, wait_gone
from waiting import until

from jobmon.config import ConfigError
from jobmon.db.connect import connect
from jobmon.db.embedded import EmbeddedServer
from jobmon.thin_common.serve import serve

Start = Callable[..., Service]


@contextlib.contextmanager
def slow_procedure(database: Any) -> Iterator[Callable[[], int]]:
    """A procedure ``slow`` of the JSM account, whose calls end when the context does; tells how many wait."""
    user = database.spec("jsm").user
    with contextlib.closing(connect(database.admin)) as conn, conn.cursor() as cursor:
        lock = f"'{database.name}.slow'"
        cursor.execute(
            "CREATE PROCEDURE slow() SQL SECURITY DEFINER COMMENT 'Access: JSM'"
            f" BEGIN DO GET_LOCK({lock}, 60); DO RELEASE_LOCK({lock}); SELECT '{{}}' AS document; END"
        )
        cursor.execute(f"GRANT EXECUTE ON PROCEDURE {database.name}.slow TO '{user}'@'%'")
        cursor.execute(f"DO GET_LOCK({lock}, 60)")

        def waiting() -> int:
            cursor.execute(
                "SELECT COUNT(*) FROM information_schema.PROCESSLIST"
                " WHERE DB = DATABASE() AND STATE = 'User lock'"
            )
            return int(cursor.fetchall()[0][0])

        yield waiting


def raw(port: int, data: bytes, timeout: float = 20) -> bytes:
    """What comes back for some bytes, until the other side closes or is silent."""
    with socket.create_connection(("127.0.0.1", port), timeout=timeout) as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(data)
        answer = b""
        with contextlib.suppress(TimeoutError, ConnectionError):
            while part := connection.recv(65536):
                answer += part
        return answer


def test_an_emu_clients_calls(database: Any, start_service: Start) -> None:
    jsm, jqs = start_service("jsm", database), start_service("jqs", database)
    for service in (jsm, jqs):
        response = service.get("/")
        assert (response.status_code, response.json()) == (200, {"msg": "Yes, I am alive"})
        head = requests.head(service.url + "/", timeout=30)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["Content-Type"] == "application/json"
    header = {"Content-Type": "application/json"}
    body = json.dumps({"name": "d", "user": "é", "dag_hash": "live"})
    response = requests.post(jsm.url + "/add_task_dag", data=body, headers=header, timeout=30)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    dag_id = response.json()["dag_id"]
    assert jqs.get("/get_jobs", params={"dag_id": str(dag_id)}, headers=header).json() == {"job_dcts": []}
    response = jqs.get(
        "/get_workflows_by_inputs", params={"dag_id": dag_id, "workflow_args": "a"}, headers=header
    )
    assert (response.status_code, response.content) == (204, b"")
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    for path in ("//add_task_dag", "/add_task_dag/", "/nothing"):
        answer = raw(
            jsm.port,
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{{}}".encode(),
        )
        assert answer.startswith(b"HTTP/1.1 404"), answer
        assert b'"code":"NOT_FOUND"' in answer
    assert raw(
        jqs.port, b"GET //get_jobs?dag_id=1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
    ).startswith(b"HTTP/1.1 404")


def test_one_connection_serves_many_calls(database: Any, start_service: Start) -> None:
    jsm = start_service("jsm", database)
    connection = http.client.HTTPConnection("127.0.0.1", jsm.port, timeout=30)
    for _ in range(5):
        connection.request("POST", "/log_heartbeat", body=b'{"dag_id": 1}')
        response = connection.getresponse()
        assert (response.status, response.read()) == (200, b"{}\n")
    connection.close()


def test_bodies_in_chunks_and_too_large(database: Any, start_service: Start) -> None:
    jsm = start_service("jsm", database, max_body_bytes=50_000)

    def chunks(count: int) -> Any:
        yield b'{"dag_id": 1'
        for _ in range(count):
            yield b" " * 1000
        yield b"}"

    assert jsm_post(jsm, chunks(10)).json() == {}
    # it may close before all is sent, or before all of its answer is read
    with contextlib.suppress(requests.ConnectionError, requests.exceptions.ChunkedEncodingError):
        response = jsm_post(jsm, chunks(1000))
        assert (response.status_code, response.json()["error"]["code"]) == (413, "BODY_TOO_LARGE")
    # By its length alone: no byte of it is sent, and the answer comes all the same.
    began = time.monotonic()
    answer = raw(
        jsm.port, b"POST /log_heartbeat HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", 10
    )
    assert answer.startswith(b"HTTP/1.1 413"), answer
    assert b"BODY_TOO_LARGE" in answer
    assert time.monotonic() - began < 25
    jsm.wait("/readyz")


def jsm_post(jsm: Service, data: Any) -> requests.Response:
    """POST some bytes to a harmless procedure."""
    return requests.post(jsm.url + "/log_heartbeat", data=data, timeout=20)


@pytest.mark.parametrize(
    "data",
    [
        b"\x00" * 100,
        b"nonsense\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /log_done HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n{}",
        b"POST /log_done HTTP/1.1\r\nHost: x\r\nContent-Length: abc\r\n\r\n{}",
        b"POST /log_done HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzzz\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 2_000_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"POST /log_done HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{}",  # and then nothing
    ],
    ids=range(9),
)
def test_hostile_bytes(database: Any, start_service: Start, data: bytes) -> None:
    jsm = start_service("jsm", database)
    answer = raw(jsm.port, data, 2)
    assert not answer or re.match(rb"HTTP/1.1 4\d\d", answer), answer[:200]
    assert jsm.get("/healthz").status_code == 200


def test_clients_that_stall_freeze_nobody(database: Any, start_service: Start) -> None:
    jsm = start_service("jsm", database)
    stalled = []
    for _ in range(40):
        stalled.append(socket.create_connection(("127.0.0.1", jsm.port)))
        stalled[-1].sendall(b"POST /log_done HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
    time.sleep(0.5)
    began = time.monotonic()
    assert jsm.get("/healthz").status_code == 200
    assert jsm.post("/log_heartbeat", {"dag_id": 1}).status_code == 200
    assert time.monotonic() - began < 20
    for connection in stalled:
        connection.close()


def keepalive_runs(port: int) -> bool:
    """Whether the service's side of a new connection has its keepalive timer running."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        ours = f":{connection.getsockname()[1]:04X}"
        for fields in (line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]):
            if fields[1].endswith(f":{port:04X}") and fields[2].endswith(ours):
                return fields[5].startswith("02:")
    return False


def test_connections_notice_a_dead_peer(database: Any, start_service: Start) -> None:
    jsm = start_service("jsm", database)
    until(lambda: keepalive_runs(jsm.port))


def test_management_port(database: Any, start_service: Start) -> None:
    jsm = start_service("jsm", database, workers=2, token="t")
    url = f"http://127.0.0.1:{jsm.management_port}"
    assert requests.get(url + "/healthz", timeout=30).json() == {"status": "ok"}
    assert requests.get(url + "/readyz", timeout=30).json()["status"] == "ready"
    assert requests.get(url + "/log_done", timeout=30).status_code == 404
    for _ in range(40):  # each on a connection of its own, so that both workers get some
        jsm.post("/log_heartbeat", {"dag_id": 1}, headers={"Authorization": "Bearer t"})
    pattern = r'^jobmon_http_requests_total\{route="log_heartbeat",service="jsm",status="200"\} (.*)$'
    for source in (url, jsm.url):
        found = re.findall(pattern, requests.get(source + "/metrics", timeout=30).text, re.MULTILINE)
        assert [float(number) for number in found] == [40.0]


def test_sigterm_lets_requests_in_flight_finish(make_database: Any, start_service: Start) -> None:
    database = make_database(migrated=True)
    answers: list[int] = []
    with slow_procedure(database) as waiting:
        jsm = start_service("jsm", database, workers=2)
        threads = [
            threading.Thread(target=lambda: answers.append(jsm.post("/slow").status_code)) for _ in range(6)
        ]
        for thread in threads:
            thread.start()
        until(lambda: waiting() == 6)
        jsm.process.send_signal(signal.SIGTERM)
        time.sleep(1)  # for the signal to be heeded while all are in flight
        assert answers == []
    assert jsm.process.wait(60) == 0
    for thread in threads:
        thread.join(60)
    assert answers == [200] * 6
    assert all("time" in line and "level" in line for line in jsm.lines())
    assert [line["status"] for line in jsm.lines() if line.get("route") == "slow"] == [200] * 6


def test_sighup_replaces_the_workers(database: Any, start_service: Start) -> None:
    jsm = start_service("jsm", database)
    before = jsm.workers()
    jsm.process.send_signal(signal.SIGHUP)

    def replaced() -> bool:
        # what waits at the old worker's socket when that is closed is reset, and clients call again
        with contextlib.suppress(requests.ConnectionError):
            assert jsm.get("/healthz").status_code == 200
        now = jsm.workers()
        return bool(now) and not set(now) & set(before)

    until(replaced)
    jsm.wait("/readyz")
    assert jsm.post("/log_heartbeat", {"dag_id": 1}).status_code == 200


def test_a_killed_worker_is_replaced(database: Any, start_service: Start) -> None:
    jsm = start_service("jsm", database)
    [worker] = jsm.workers()
    os.kill(worker, signal.SIGKILL)
    jsm.wait("/readyz")
    assert worker not in jsm.workers()
    assert jsm.process.poll() is None


def test_workers_leave_with_the_process_that_watches_them(database: Any, start_service: Start) -> None:
    jsm = start_service("jsm", database, workers=2)
    workers = jsm.workers()
    assert len(workers) == 2
    os.kill(jsm.process.pid, signal.SIGKILL)
    jsm.process.wait()
    wait_gone(workers)
    with socket.socket() as probe:
        # connections that have ended are no hindrance, but a listener is
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(("127.0.0.1", jsm.port))


def test_what_serve_refuses(database: Any, start_service: Start) -> None:
    with pytest.raises(ConfigError, match="token"):
        serve("jsm", config_for(database, bind="0.0.0.0"))
    with pytest.raises(ConfigError, match="token"):
        serve("jqs", config_for(database, bind="0.0.0.0"))
    with pytest.raises(ConfigError, match="no service"):
        serve("jxx", config_for(database))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=rf"port {port} \(jqs_port\)"):
            serve("jqs", config_for(database, jqs_port=port))
    jsm = start_service("jsm", database)
    with pytest.raises(ConfigError, match=rf"port {jsm.port} \(jsm_port\)"):
        serve("jsm", config_for(database, jsm_port=jsm.port))
    second = start_service("jsm", database, wait=None, bind="192.0.2.1", token="t")
    assert second.process.wait(60) != 0
    assert "cannot listen on 192.0.2.1" in second.log.read_text()


def test_sixty_four_clients(database: Any, start_service: Start) -> None:
    jsm = start_service("jsm", database, workers=2)
    seen: list[tuple[int, float]] = []

    def call() -> None:
        for _ in range(15):
            began = time.monotonic()
            status = jsm.post("/log_heartbeat", {"dag_id": 1}).status_code
            seen.append((status, time.monotonic() - began))

    threads = [threading.Thread(target=call) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {status for status, _ in seen} == {200}
    assert len(seen) == 64 * 15


def test_the_database_dies_and_comes_back(
    tmp_path: Path, server: Any, start_service: Start, make_own: Any
) -> None:
    if server.embedded is None:
        pytest.skip("the server is not ours to kill")
    with EmbeddedServer(tmp_path / "data", free_port(), durable=False) as embedded:
        database = make_own(embedded)
        jsm, jqs = start_service("jsm", database), start_service("jqs", database)
        dag_id = jsm.post("/add_task_dag", {"name": "n", "user": "u", "dag_hash": "h"}).json()["dag_id"]
        embedded.stop()
        began = time.monotonic()
        response = jsm.post("/log_heartbeat", {"dag_id": dag_id})
        assert (response.status_code, response.json()["error"]["code"]) == (503, "DATABASE_UNAVAILABLE")
        assert response.headers["Retry-After"]
        assert time.monotonic() - began < 20
        for service in (jsm, jqs):
            assert service.get("/healthz").status_code == 200
            assert service.get("/readyz").status_code == 503
        late = start_service("jsm", database, wait="/healthz")  # starts while there is no database
        assert late.post("/log_heartbeat", {"dag_id": dag_id}).status_code == 503
        embedded.start()
        for service in (jsm, jqs, late):
            service.wait("/readyz")
        assert late.post("/log_heartbeat", {"dag_id": dag_id}).status_code == 200
        assert jqs.get("/get_dag_ids_by_hash?dag_hash=h").json() == {"dag_ids": [dag_id]}


def test_large_lists(make_database: Any, start_service: Start) -> None:
    database = make_database(migrated=True)
    jsm, jqs = start_service("jsm", database), start_service("jqs", database)
    dag_id = jsm.post("/add_task_dag", {"name": "n", "user": "u", "dag_hash": "h"}).json()["dag_id"]
    with contextlib.closing(connect(database.admin)) as conn, conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO job (dag_id, job_hash, name, command) WITH RECURSIVE n AS"
            " (SELECT 1 AS i UNION ALL SELECT i + 1 FROM n WHERE i < 900)"
            " SELECT %s, i, 'name', 'command' FROM n",
            (dag_id,),
        )
    listing = jqs.get("/get_jobs", params={"dag_id": dag_id}).json()["job_dcts"]
    assert [int(job["job_hash"]) for job in listing] == list(range(1, 901))


def test_ports_are_free_again(database: Any, start_service: Start) -> None:
    port = free_port()
    for _ in range(2):
        service = start_service("jqs", database, jqs_port=port)
        service.port, service.url = port, f"http://127.0.0.1:{port}"
        assert service.stop() == 0
