"""What the relay does around a CALL, shown with procedures made for it."""

from __future__ import annotations

import contextlib
import json
import secrets
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from http_helpers import Api
from waiting import until

from jobmon.db.connect import connect
from jobmon.thin_common.logs import RequestLog

OUTSIDE = "Access: JSM"
# MariaDB's JSON_OBJECT makes strings of a routine's variables.
ONE = """SELECT CONCAT('{"a": ', in_a, '}') AS document;"""
TWO = """SELECT CONCAT('{"a": ', in_a, ', "b": ', COALESCE(in_b, 'null'), '}') AS document;"""


class Toy:
    """A database with hand-made procedures that the JSM account may execute."""

    def __init__(self, database: Any) -> None:
        self.database = database
        self.conn = connect(database.admin)
        self.jsm_user = database.spec("jsm").user
        self.execute("CREATE TABLE memo (id INT PRIMARY KEY, n INT NOT NULL DEFAULT 0)")
        self.execute("INSERT INTO memo (id) VALUES (1)")
        self.versions = self.execute("SELECT schema_version, compatible_since FROM schema_info")[0]

    def reset(self) -> None:
        """As it was at the beginning."""
        self.execute("UPDATE memo SET n = 0")
        self.execute("UPDATE schema_info SET schema_version = %s, compatible_since = %s", self.versions)

    def execute(self, sql: str, arguments: Any = None) -> Any:
        with self.conn.cursor() as cursor:
            cursor.execute(sql, arguments)
            return cursor.fetchall()

    def procedure(self, name: str, parameters: str, body: str, comment: str = OUTSIDE) -> None:
        """Make or replace a procedure."""
        self.execute(f"DROP PROCEDURE IF EXISTS {name}")
        self.execute(
            f"CREATE PROCEDURE {name}({parameters}) SQL SECURITY DEFINER COMMENT '{comment}' BEGIN {body} END"
        )
        self.execute(f"GRANT EXECUTE ON PROCEDURE {self.database.name}.{name} TO '{self.jsm_user}'@'%'")

    def connections(self, state: str = "%") -> list[int]:
        """The services' connections that are in a state."""
        # not by the account: inside a procedure it is the definer's
        found = self.execute(
            "SELECT ID FROM information_schema.PROCESSLIST"
            " WHERE DB = DATABASE() AND ID <> CONNECTION_ID() AND COALESCE(STATE, '') LIKE %s",
            (state,),
        )
        return [number for (number,) in found]

    @contextlib.contextmanager
    def nap(self) -> Iterator[Callable[[], int]]:
        """A procedure ``nap``, whose calls end when the context does; tells how many wait for that."""
        lock = f"'{self.database.name}.nap'"
        wait = f"DO GET_LOCK({lock}, 60); DO RELEASE_LOCK({lock});"
        self.procedure("nap", "", f"{wait} SELECT '{{}}' AS document;")
        self.execute(f"DO GET_LOCK({lock}, 60)")
        try:
            yield lambda: len(self.connections("User lock"))
        finally:
            self.execute(f"DO RELEASE_LOCK({lock})")


@pytest.fixture(scope="module")
def toy_database(server: Any, database: Any) -> Iterator[Toy]:
    token = secrets.token_hex(4)
    directory = Path(tempfile.mkdtemp(prefix="jobmon-test-"))
    own = type(database)(server, f"jobmon_test_{token}", f"t{token}_", directory)
    try:
        own.migrate()
        own.grant()
        toy = Toy(own)
        yield toy
        toy.conn.close()
    finally:
        own.drop()


@pytest.fixture
def toy(toy_database: Toy) -> Toy:
    toy_database.reset()
    # a server ends a connection a moment after its client has closed it
    until(lambda: not toy_database.connections())
    return toy_database


@pytest.fixture
def make_jsm(make_api: Callable[..., Api], toy: Toy) -> Callable[..., Api]:
    return lambda **overrides: make_api("jsm", toy.database, **overrides)


def code(response: Any) -> tuple[int, str]:
    """An error's status and code."""
    return response.status_code, response.json["error"]["code"]


def test_an_error_after_the_result_set_is_seen(toy: Toy, make_jsm: Callable[..., Api]) -> None:
    toy.procedure(
        "late",
        "",
        "SELECT '{}' AS document; SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 31999, MESSAGE_TEXT = 'x';",
    )
    assert code(make_jsm().post("/late")) == (500, "INTERNAL_ERROR")


def test_unknown_failures_show_nothing_of_the_inside(
    toy: Toy, make_jsm: Callable[..., Api], caplog: pytest.LogCaptureFixture
) -> None:
    toy.procedure("broken", "", "SELECT secret_column FROM memo;")
    response = make_jsm().post("/broken")
    error = response.json["error"]
    assert code(response) == (500, "INTERNAL_ERROR")
    assert "secret" not in response.text
    assert error["request_id"] == response.headers["X-Request-Id"]
    [record] = [record for record in caplog.records if record.getMessage() == "unexpected error"]
    assert record.request_id == error["request_id"]  # type: ignore[attr-defined]
    assert record.exc_info is not None
    assert "secret_column" in str(record.exc_info[1])


def test_more_than_one_document_is_an_error(toy: Toy, make_jsm: Callable[..., Api]) -> None:
    toy.procedure("two_sets", "", "SELECT 1 AS document; SELECT 2 AS document;")
    toy.procedure("two_rows", "", "SELECT 1 AS document UNION ALL SELECT 2;")
    toy.procedure("none", "", "DO 1;")
    jsm = make_jsm(pool_size=1)
    assert code(jsm.post("/two_sets")) == (500, "INTERNAL_ERROR")
    assert code(jsm.post("/two_rows")) == (500, "INTERNAL_ERROR")
    assert jsm.ok("/none") == {}


def test_a_transaction_left_open_is_rolled_back_and_told(toy: Toy, make_jsm: Callable[..., Api]) -> None:
    toy.procedure("leaky", "", "START TRANSACTION; UPDATE memo SET n = n + 1; SELECT '{}' AS document;")
    toy.procedure(
        "leaky_error",
        "",
        "START TRANSACTION; UPDATE memo SET n = n + 1;"
        " SIGNAL SQLSTATE '45000' SET MYSQL_ERRNO = 31999, MESSAGE_TEXT = 'x';",
    )
    jsm = make_jsm(pool_size=1)
    for path in ("/leaky", "/leaky_error"):
        assert code(jsm.post(path)) == (500, "INTERNAL_ERROR")
        toy.execute("UPDATE memo SET id = 1")  # waits for nobody
        assert toy.execute("SELECT n FROM memo") == ((0,),)


@pytest.mark.parametrize("errno", [1205, 1213, 1412])
def test_collisions_are_done_again(toy: Toy, make_jsm: Callable[..., Api], errno: int) -> None:
    toy.procedure(
        "unlucky",
        "in_times INT",
        "DECLARE v_n INT; UPDATE memo SET n = n + 1; SELECT n INTO v_n FROM memo;"
        f" IF v_n < in_times THEN"
        f" SIGNAL SQLSTATE '40001' SET MYSQL_ERRNO = {errno}, MESSAGE_TEXT = 'again'; END IF;"
        " SELECT CONCAT('{\"n\": ', v_n, '}') AS document;",
    )
    jsm = make_jsm()
    assert jsm.ok("/unlucky", times=4) == {"n": 4}
    began = time.monotonic()
    response = jsm.post("/unlucky", {"times": 1_000_000})
    assert code(response) == (503, "DATABASE_BUSY")
    assert response.headers["Retry-After"]
    assert time.monotonic() - began < 20
    assert toy.execute("SELECT n FROM memo")[0][0] < 20


def kill_all(toy: Toy) -> int:
    """Kill the service's connections; how many there were."""
    found = toy.connections()
    for number in found:
        with contextlib.suppress(Exception):
            toy.execute("KILL %s", (number,))
    return len(found)


def test_lost_connections_are_replaced(toy: Toy, make_jsm: Callable[..., Api]) -> None:
    with toy.nap() as waiting:
        jsm = make_jsm(pool_size=12)
        threads = [threading.Thread(target=jsm.app.test_client().post, args=("/nap",)) for _ in range(12)]
        for thread in threads:
            thread.start()
        until(lambda: waiting() == 12)
    for thread in threads:
        thread.join()
    assert kill_all(toy) == 12
    # More dead connections than there are tries: all of the same age are thrown away at once.
    assert jsm.ok("/nap") == {}
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(jsm.app.test_client().post("/nap").status_code))
        for _ in range(12)
    ]
    with toy.nap() as waiting:
        for thread in threads:
            thread.start()
        until(lambda: waiting() == 12)
        assert kill_all(toy) == 12  # in the midst of the calls
    for thread in threads:
        thread.join()
    assert answers == [200] * 12


def test_an_exhausted_pool_answers_503_quickly(toy: Toy, make_jsm: Callable[..., Api]) -> None:
    slow: list[int] = []
    with toy.nap() as waiting:
        jsm = make_jsm(pool_size=2, pool_timeout=1)
        threads = [
            threading.Thread(target=lambda: slow.append(jsm.app.test_client().post("/nap").status_code))
            for _ in range(2)
        ]
        for thread in threads:
            thread.start()
        until(lambda: waiting() == 2)
        began = time.monotonic()
        response = jsm.post("/nap")
        assert code(response) == (503, "OVERLOADED")
        assert response.headers["Retry-After"] == "1"
        assert jsm.get("/healthz").status_code == 200
        assert code(jsm.get("/readyz")) == (503, "OVERLOADED")
        for _ in range(20):
            assert jsm.post("/nap").status_code == 503
        assert time.monotonic() - began < 12  # not 22 times 1 s
    for thread in threads:
        thread.join()
    assert slow == [200, 200]
    assert jsm.ok("/nap") == {}


def test_a_new_procedure_is_served_and_an_old_one_not(toy: Toy, make_jsm: Callable[..., Api]) -> None:
    jsm = make_jsm()
    assert code(jsm.post("/fresh")) == (404, "NOT_FOUND")
    toy.procedure("fresh", "", 'SELECT JSON_OBJECT("a", 1) AS document;')
    until(lambda: jsm.post("/fresh").status_code == 200)  # the catalog is read once a second at most
    assert jsm.ok("/fresh") == {"a": 1}
    toy.execute("DROP PROCEDURE fresh")
    assert code(jsm.post("/fresh")) == (404, "NOT_FOUND")


def test_a_changed_list_of_parameters_is_noticed(toy: Toy, make_jsm: Callable[..., Api]) -> None:
    toy.procedure("grows", "in_a INT", ONE)
    jsm = make_jsm()
    assert jsm.ok("/grows", a=1) == {"a": 1}
    time.sleep(1.1)
    toy.procedure("grows", "in_b INT, in_a INT", TWO)
    assert jsm.ok("/grows", a=1) == {"a": 1, "b": None}
    assert jsm.ok("/grows", a=1, b=2) == {"a": 1, "b": 2}


def test_procedures_replaced_under_load_fail_no_call(toy: Toy, make_jsm: Callable[..., Api]) -> None:
    toy.procedure("busy", "in_a INT", ONE)
    jsm = make_jsm()
    stop = threading.Event()
    seen: list[int] = []

    def call() -> None:
        client = jsm.app.test_client()
        while not stop.is_set():
            seen.append(client.post("/busy", json={"a": 1}).status_code)

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for _ in range(40):
        toy.procedure("busy", "in_a INT", ONE)
        time.sleep(0.02)
    until(lambda: len(seen) >= 40)
    stop.set()
    for thread in threads:
        thread.join()
    assert set(seen) == {200}


def test_an_administrators_account_is_not_served_the_helpers(toy: Toy, make_jsm: Callable[..., Api]) -> None:
    jsm = make_jsm(jsm_conn_str=toy.database.admin.conn_str())
    assert jsm.post("/log_heartbeat", {"dag_id": 1}).status_code == 200
    for name in ("begin_work", "undo_work", "lock_job"):
        assert code(jsm.post(f"/{name}")) == (404, "NOT_FOUND")


def test_native_errors_keep_the_servers_words_inside(toy: Toy, make_jsm: Callable[..., Api]) -> None:
    rows = {row[0]: row[1:] for row in toy.execute("SELECT errno, http_status, name, message FROM api_error")}
    toy.procedure("long_text", "in_a VARCHAR(5)", "SELECT '{}' AS document;")
    response = make_jsm().post("/long_text", {"a": "123456"})
    status, name, message = rows[1406]
    assert code(response) == (status, name)
    assert response.json["error"]["message"] == f"a: {message}"
    assert "in_a" not in response.text


def test_tokens(toy: Toy, make_jsm: Callable[..., Api], make_api: Callable[..., Api]) -> None:
    jsm = make_jsm(token="right", read_token="reading")
    jqs = make_api("jqs", toy.database, token="right", read_token="reading")

    def post(value: str | None) -> Any:
        return jsm.post("/log_heartbeat", {"dag_id": 1}, headers={"Authorization": value} if value else {})

    def get(value: str | None) -> Any:
        return jqs.client.get("/get_jobs?dag_id=1", headers={"Authorization": value} if value else {})

    for call, good in ((post, ["right"]), (get, ["right", "reading"])):
        for token in good:
            assert call(f"Bearer {token}").status_code == 200
            assert call(f"bearer  {token}").status_code == 200
        for value in (None, "Bearer", "Bearer wrong", "Bearer rightt", "Basic right", "right", "Bearer \xff"):
            response = call(value)
            assert code(response) == (401, "UNAUTHORIZED")
            assert response.headers["WWW-Authenticate"] == "Bearer"
    assert code(post("Bearer reading")) == (401, "UNAUTHORIZED")
    for path in ("/", "/healthz", "/readyz", "/metrics"):
        assert jsm.get(path).status_code == jqs.get(path).status_code == 200
    free = make_api("jqs", toy.database, token="right")
    assert free.get("/get_jobs", dag_id=1).status_code == 200


def test_readyz_wants_the_schema_to_fit(
    toy: Toy, make_jsm: Callable[..., Api], make_api: Callable[..., Api]
) -> None:
    services = [make_jsm(), make_api("jqs", toy.database)]
    [(version, since)] = toy.execute("SELECT schema_version, compatible_since FROM schema_info")
    for service in services:
        answer = service.read("/readyz")
        assert (answer["status"], answer["schema_version"], answer["code_version"]) == (
            "ready",
            version,
            version,
        )
    for changed, words in (
        ((version - 1, since), "this code needs"),
        ((version + 5, version + 4), "or later"),
    ):
        toy.execute("UPDATE schema_info SET schema_version = %s, compatible_since = %s", changed)
        for service in services:
            response = service.get("/readyz")
            assert code(response) == (503, "NOT_READY")
            assert words in response.json["error"]["message"]
    toy.execute("UPDATE schema_info SET schema_version = %s, compatible_since = %s", (version + 1, since))
    assert [service.get("/readyz").status_code for service in services] == [200, 200]


def test_methods_and_paths(toy: Toy, make_jsm: Callable[..., Api], make_api: Callable[..., Api]) -> None:
    jsm, jqs = make_jsm(), make_api("jqs", toy.database)
    for path in (
        "/log_done/",
        "//log_done",
        "/no_such",
        "/log_done/x",
        "/%2e%2e/etc",
        "/log_done%00",
        "/" + "a" * 5000,
    ):
        assert code(jsm.post(path)) == (404, "NOT_FOUND")
    for path in ("/get_jobs/", "/no_such", "/job_status_log;--"):
        assert code(jqs.get(path, dag_id=1)) == (404, "NOT_FOUND")
    for method in ("get", "put", "delete", "patch", "head"):
        response = getattr(jsm.client, method)("/log_done")
        assert response.status_code == 405
        assert response.headers["Allow"] == "POST"
        assert response.headers["Content-Type"] == "application/json"
    response = jqs.client.post("/get_jobs?dag_id=1")
    assert code(response) == (405, "METHOD_NOT_ALLOWED")
    head = jqs.client.head("/get_jobs?dag_id=1")
    assert (head.status_code, head.data) == (200, b"")
    assert code(jsm.post("/")) == (405, "METHOD_NOT_ALLOWED")


def test_request_ids(toy: Toy, make_jsm: Callable[..., Api]) -> None:
    jsm = make_jsm()
    ids = [jsm.post("/log_heartbeat", {"dag_id": 1}).headers["X-Request-Id"] for _ in range(3)]
    assert len(set(ids)) == 3
    given = jsm.post("/log_heartbeat", {"dag_id": 1}, headers={"X-Request-Id": "from.client-1"})
    assert given.headers["X-Request-Id"] == "from.client-1"
    forged = jsm.post("/log_heartbeat", {"dag_id": 1}, headers={"X-Request-Id": "x" * 65})
    assert forged.headers["X-Request-Id"] != "x" * 65


def test_log_lines(toy: Toy, make_jsm: Callable[..., Api], capsys: pytest.CaptureFixture[str]) -> None:
    jsm = make_jsm(token="tok-en")
    jsm.app.extensions["jobmon_relay"].log.flush()
    capsys.readouterr()
    ids = ["first-of-test", "second-of-test"]
    headers = [{"Authorization": "Bearer tok-en", "X-Request-Id": number} for number in ids]
    jsm.post("/log_heartbeat", {"dag_id": "secret-body"}, headers=headers[0])
    jsm.client.get("/no_such_secret-path", headers=headers[1])
    jsm.app.extensions["jobmon_relay"].log.flush()
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    # the log of another test's service may be late
    refused, unknown = (line for line in lines if line.get("request_id") in ids)
    assert (refused["route"], refused["status"], refused["code"]) == (
        "log_heartbeat",
        422,
        "INVALID_PARAMETER",
    )
    assert set(refused) == {
        *("time", "level", "service", "request_id", "method", "route", "status", "duration_ms", "code"),
    }
    assert (unknown["route"], unknown["status"], unknown["level"]) == ("other", 404, "WARNING")
    assert "secret" not in json.dumps(lines)
    assert "tok-en" not in json.dumps(lines)


def test_a_flush_waits_for_the_lines_on_their_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """At the end of the process it would else be over before the log's thread has written what it took."""
    begun, go = threading.Event(), threading.Event()
    written: list[str] = []

    def write(text: str) -> None:
        if text:
            begun.set()
            go.wait(60)
            written.append(text)

    monkeypatch.setattr(
        "jobmon.thin_common.logs.sys",
        SimpleNamespace(stderr=SimpleNamespace(write=write, flush=lambda: None)),
    )
    log = RequestLog("jsm", "INFO")
    log.write("one", "POST", "log_done", 200, 0.1)
    assert begun.wait(60)
    flush = threading.Thread(target=log.flush)
    flush.start()
    flush.join(0.5)
    assert flush.is_alive()
    go.set()
    flush.join(60)
    assert '"request_id":"one"' in "".join(written)


def test_metrics(toy: Toy, make_jsm: Callable[..., Api]) -> None:
    jsm = make_jsm()

    def count() -> float:
        text = jsm.get("/metrics").text
        line = 'jobmon_http_requests_total{route="log_heartbeat",service="jsm",status="200"} '
        return sum(float(found[len(line) :]) for found in text.splitlines() if found.startswith(line))

    before = count()
    for _ in range(3):
        jsm.ok("/log_heartbeat", dag_id=1)
    assert count() == before + 3
    text = jsm.get("/metrics").text
    assert "jobmon_http_request_duration_seconds_bucket" in text
    assert jsm.get("/metrics").headers["Content-Type"].startswith("text/plain")


def test_openapi(toy: Toy, make_jsm: Callable[..., Api], make_api: Callable[..., Api]) -> None:
    document = make_jsm(token="t").read("/openapi.json")
    assert document["openapi"].startswith("3.")
    operation = document["paths"]["/log_done"]["post"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert schema["properties"]["job_instance_id"]["type"] == "integer"
    assert schema["properties"]["job_instance_id"]["description"]
    assert "DONE" in operation["description"]
    assert any(
        "JOB_INSTANCE_SUPERSEDED" in answer["description"] for answer in operation["responses"].values()
    )
    assert operation["security"] == [{"bearer": []}]
    assert "/begin_work" not in document["paths"]
    document = make_api("jqs", toy.database).read("/openapi.json")
    operation = document["paths"]["/get_jobs"]["get"]
    assert operation["parameters"][0]["name"] == "dag_id"
    assert operation["parameters"][0]["required"] is True
    assert operation["summary"]


def test_sql_in_every_field_stays_text(
    toy: Toy, make_jsm: Callable[..., Api], make_api: Callable[..., Api]
) -> None:
    jsm, jqs = make_jsm(), make_api("jqs", toy.database)
    hostile = "x'); DROP TABLE job; -- \\' \" ` %s %(a)s \x00 \U0001f4a5"
    dag_id = jsm.ok("/add_task_dag", name=hostile, user=hostile, dag_hash=hostile)["dag_id"]
    assert jqs.read("/get_dag_ids_by_hash", dag_hash=hostile) == {"dag_ids": [dag_id]}
    job = jsm.ok("/add_job", dag_id=dag_id, name=hostile, job_hash=1, command=hostile)["job_dct"]
    assert job["command"] == hostile
    assert jqs.read("/get_jobs", dag_id=dag_id)["job_dcts"][0]["name"] == hostile
    assert jqs.get("/get_jobs", **{"dag_id": 1, "1=1; --": 2}).status_code == 400
    assert jqs.get("/jobs", **{"`dag_id` = 1 OR 1": 2}).status_code == 400


def test_large_bodies(toy: Toy, make_jsm: Callable[..., Api]) -> None:
    toy.procedure("size_of", "in_text LONGTEXT", "SELECT JSON_OBJECT('n', LENGTH(in_text)) AS document;")
    jsm = make_jsm(max_body_bytes=1_000_000)
    assert jsm.ok("/size_of", text="x" * 900_000) == {"n": 900_000}
    response = jsm.post("/size_of", {"text": "x" * 1_000_000})
    assert code(response) == (413, "BODY_TOO_LARGE")


def test_what_the_database_takes_no_more_is_too_large(toy: Toy, make_jsm: Callable[..., Api]) -> None:
    """A server's default may be smaller than the body's bound."""
    toy.procedure("full", "", "SIGNAL SQLSTATE '08S01' SET MYSQL_ERRNO = 1153, MESSAGE_TEXT = 'too big';")
    assert code(make_jsm().post("/full")) == (413, "BODY_TOO_LARGE")


def test_a_service_without_its_database_comes_up_and_heals(
    make_api: Callable[..., Api], make_database: Callable[..., Any]
) -> None:
    database = make_database(migrated=True)
    spec = database.spec("jsm")
    away = spec.with_database(database.name + "_not_yet").conn_str()
    jsm = make_api("jsm", database, jsm_conn_str=away)
    assert jsm.get("/healthz").status_code == 200
    assert code(jsm.get("/readyz")) == (503, "DATABASE_UNAVAILABLE")
    response = jsm.post("/log_heartbeat", {"dag_id": 1})
    assert code(response) == (503, "DATABASE_UNAVAILABLE")
    assert response.headers["Retry-After"]
    assert code(jsm.get("/openapi.json")) == (503, "DATABASE_UNAVAILABLE")
    jsm.app.extensions["jobmon_relay"]._database._spec = spec  # now it is there
    until(lambda: jsm.post("/log_heartbeat", {"dag_id": 1}).status_code == 200)
