"""Hostile input: whatever is sent to whichever route, the answer is no 5xx, says in JSON what is wrong, and
what was refused changed nothing.

The routes and their fields are those of the services' catalogs: a new procedure or view is covered by itself.
"""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

import pytest
from http_helpers import Api, make_dag, make_instance, make_job, make_run

from jobmon.db.files import sql_dir
from jobmon.thin_common.errors import TRANSPORT_ERRORS

SQL = "x'); DROP TABLE job; -- \\' \" ` %s %(a)s /*!50000 SLEEP(9) */ 1 OR 1=1"
TEXTS = [
    "",
    " ",
    SQL,
    "' UNION SELECT password FROM mysql.user -- ",
    "a\x00b",
    "\U0001f4a5 \u202e \u0301",
    "\ud800",
    "x" * 300,
    "\u00fc" * 70_000,
    "-1",
    "1e309",
    "0x10",
    "17xyz",
    "null",
    "[[[[",
    '["\\ud800"]',
    "[" * 200 + "]" * 200,
    "9" * 40,
]
NUMBERS = [-1, 0, 1.5, -0.0, 1e300, 2**31, 2**63, 2**64, -(2**63) - 1, 2**160, 10**300]
OTHERS: list[Any] = [
    True,
    False,
    [],
    {},
    [1, 2],
    [None],
    [[1]],
    [{}, 1, "a", None, [], True],
    {"a": 1},
    [{"name": "a", "job_hash": {"a": 1}, "command": [SQL]}],
    [{"event": SQL, "job_instance_id": SQL}, {"event": "done", "job_instance_id": -1}],
]
VALUES = [*TEXTS, *NUMBERS, *OTHERS]
BODIES = [
    b"",
    b" ",
    b"\x00",
    b"null",
    b"[]",
    b"1",
    b'"text"',
    b"true",
    b"{",
    b"}",
    b'{"a":}',
    b'{"a":1,}',
    b"{'a': 1}",
    b'{"a": 01}',
    b"\xff\xfe\x00",
    b'{"\xff": "\xc3\x28"}',
    '{"a": 1}'.encode("utf-16"),
    b'{"job_id": NaN}',
    b'{"job_id": Infinity}',
    b'{"job_id": -Infinity}',
    b'{"job_id": 1e999}',
    b'{"job_id": ' + b"9" * 100_000 + b"}",
    b'{"jobs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"jobs": ' + b'{"a":' * 50_000,
    b'{"unheard_of": 1, "unheard_of": 2}',
    b'{"' + b"k" * 70_000 + b'": 1}',
    b'{"": ""}',
    b'{"job_id` = 1; DROP TABLE job; --": 1}',
]
PROCEDURES = sorted(
    file.stem
    for file in (sql_dir() / "procedures").glob("*.sql")
    if re.search(r"^Access: JSM$", file.read_text(), re.MULTILINE)
)
INSIDE = re.compile(r"Traceback|pymysql|sqlalchemy|SQL syntax|/jobmon/|File \\\"|at line \d", re.IGNORECASE)


def fit_body(jsm: Api) -> dict[str, Any]:
    """A value for each key that any procedure takes, of rows that are there."""
    dag_id = make_dag(jsm)
    workflow = {
        "dag_id": dag_id,
        "workflow_args": "v1",
        "workflow_hash": f"of {dag_id}",
        "name": "w",
        "user": "ann",
    }
    workflow_id = jsm.ok("/add_workflow", **workflow)["workflow_dct"]["id"]
    run_id = make_run(jsm, workflow_id)
    job_id = make_job(jsm, dag_id, "live")["job_id"]
    instance_id = make_instance(jsm, job_id)
    return {
        "dag_id": dag_id,
        "job_id": job_id,
        "job_instance_id": instance_id,
        "workflow_id": workflow_id,
        "wf_id": workflow_id,
        "wfr_id": run_id,
        "workflow_run_id": run_id,
        "attribute_type": 8,
        "status": "S",
        "jobs": [{"name": "n", "job_hash": "new", "command": "true", "upstream_job_hashes": ["live"]}],
        "job_ids": [job_id],
        "events": [{"event": "running", "job_instance_id": instance_id}],
        "workflow_args": "other",
        "workflow_hash": f"other {dag_id}",
    }


def checksums(db: Any) -> dict[str, Any]:
    """A number for each table that changes with its rows."""
    tables = db.query(
        "SELECT TABLE_NAME FROM information_schema.TABLES"
        " WHERE TABLE_SCHEMA = %s AND TABLE_TYPE = 'BASE TABLE'"
        # JSM writes it by itself where there is a binary log
        " AND TABLE_NAME <> 'replication_heartbeat'",
        (db.name,),
    )
    names = ", ".join(f"`{name}`" for (name,) in tables)
    return {str(name): number for name, number in db.query(f"CHECKSUM TABLE {names}")}


def check(response: Any, db: Any, what: str) -> bool:
    """Test one answer's form; gives whether the call was refused."""
    assert response.status_code < 500, (what, response.text[:500])
    assert response.headers["Content-Type"], what
    if response.status_code == 204:
        return False
    assert response.headers["Content-Type"] == "application/json", what
    document = response.json
    assert response.data.endswith(b"\n"), what
    assert not response.data.endswith(b"\n\n"), what
    if response.status_code < 400:
        return False
    error = document["error"]
    assert set(error) == {"code", "message", "hint"}, what
    assert re.fullmatch(r"[A-Z_]+", error["code"]), what
    assert error["message"], what
    assert len(error["message"]) < 1000, what
    assert not INSIDE.search(response.text), (what, response.text)
    for secret in (db.name, db.prefix):
        assert secret not in response.text, (what, response.text)
    return True


def reached_the_database(error: dict[str, str]) -> bool:
    """Whether it was the database that refused a call."""
    kind = TRANSPORT_ERRORS.get(error["code"])
    return kind is None or kind.hint != error["hint"] or error["message"].startswith(error["code"])


def assert_healthy(jsm: Api, jqs: Api, db: Any) -> None:
    """Both services still do their work, and no rule was broken."""
    assert jsm.read("/readyz")["status"] == "ready"
    assert jqs.read("/readyz")["status"] == "ready"
    dag_id = make_dag(jsm)
    instance_id = make_instance(jsm, make_job(jsm, dag_id)["job_id"])
    jsm.ok("/log_running", job_instance_id=instance_id)
    jsm.ok("/log_done", job_instance_id=instance_id)
    assert [job["status"] for job in jqs.read("/get_jobs", dag_id=dag_id)["job_dcts"]] == ["D"]
    assert db.audits() == {}


def test_the_catalog_is_what_the_files_say(jsm: Api) -> None:
    assert sorted(jsm.app.extensions["jobmon_relay"].catalog.require().procedures) == PROCEDURES


@pytest.mark.parametrize("name", PROCEDURES)
def test_every_field_of_every_procedure(jsm: Api, jqs: Api, db: Any, name: str) -> None:
    procedure = jsm.app.extensions["jobmon_relay"].catalog.require().procedures[name]
    good: dict[str, Any] | None = None
    before: dict[str, Any] = {}
    for parameter in procedure.parameters:
        large = ["x" * 3_000_000] if "text" in parameter.data_type else []
        for value in [*VALUES, *large]:
            if good is None:
                good, before = fit_body(jsm), {}
            before = before or checksums(db)
            body = {p.key: good.get(p.key, "1") for p in procedure.parameters}
            # optional, and would give an earlier call's answer or clash with it
            for key in ("request_key", "attempt_number", "executor_id"):
                body.pop(key, None)
            body[parameter.key] = value
            what = f"{name} {parameter.key}={ascii(value)[:80]}"
            response = jsm.post(f"/{name}", body)
            if not check(response, db, what):
                good = None
            elif reached_the_database(response.json["error"]):
                assert checksums(db) == before, f"{what} was refused and changed something"
    assert_healthy(jsm, jqs, db)


@pytest.mark.parametrize("name", PROCEDURES)
def test_every_body_of_every_procedure(jsm: Api, jqs: Api, db: Any, name: str) -> None:
    fit_body(jsm)
    needs_nothing = not check(jsm.post(f"/{name}", {}), db, name)
    before = checksums(db)
    for body in BODIES:
        what = f"{name} {body[:60]!r}"
        response = jsm.client.post(f"/{name}", data=body, content_type="application/json")
        refused = check(response, db, what)
        # an empty body is an empty object
        assert refused or (needs_nothing and not body.strip()), what
        assert not refused or response.status_code in (400, 404, 422), what
    assert needs_nothing or checksums(db) == before
    assert_healthy(jsm, jqs, db)


def test_every_argument_of_every_view(jsm: Api, jqs: Api, db: Any) -> None:
    good = fit_body(jsm)
    catalog = jqs.app.extensions["jobmon_relay"].catalog.require()
    before = checksums(db)
    values = [
        *(text for text in TEXTS if len(text) < 1000),
        "x" * 8000,
        "2026-99-99",
        "2026-02-31T25:61:61",
        "1e999",
    ]
    for name, view in catalog.views.items():
        route = catalog.routes.get(name)
        needed = [column.name for column in route.arguments] if route else []
        known = ["cursor", "dag_id", "limit"] if route and route.cardinality == "cursor" else needed
        for argument in known if route else [*view.columns, "limit", "offset"]:
            for value in values:
                given = {key: str(good[key]) if key in good else "1" for key in needed}
                given[argument] = value
                query = "&".join(f"{key}={quote(text, errors='replace')}" for key, text in given.items())
                response = jqs.client.get(f"/{name}?{query}")
                what = f"{name} {argument}={ascii(value)[:80]}"
                assert not check(response, db, what) or response.status_code == 400, what
        for query in ("%00=1", "a%ff=%ff", "=", "&&&", "x;y", "%", "a=1&" * 200, f"{quote(SQL)}=1"):
            check(jqs.client.get(f"/{name}?{query}"), db, f"{name}?{query}")
    assert checksums(db) == before
    assert_healthy(jsm, jqs, db)


@pytest.mark.parametrize(
    "path", ["/%00", "/..%2f..%2fetc%2fpasswd", "/get_jobs%00", "/job;DROP", "/" + "x" * 5000]
)
def test_paths(jsm: Api, jqs: Api, db: Any, path: str) -> None:
    for api in (jsm, jqs):
        for method in ("GET", "POST", "PUT", "DELETE", "PATCH"):
            response = api.client.open(path, method=method, data=b"{}")
            assert check(response, db, f"{method} {path}")
            assert response.status_code in (404, 405)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\u2028", "\x0b", " "], ids=ascii)
def test_a_number_ends_where_the_text_ends(jsm: Api, jqs: Api, db: Any, end: str) -> None:
    """To a regular expression's ``$`` it would end before a line break, too, and MySQL's cast then fails."""
    good = fit_body(jsm)
    job_id, instance_id = good["job_id"], good["job_instance_id"]
    before = checksums(db)
    events = [
        {"event": "running", "job_instance_id": f"{instance_id}{end}"},
        {"event": "running", "job_instance_id": instance_id, "process_group_id": f"5{end}"},
        {"event": "heartbeat", "job_instance_id": instance_id, "lease_seconds": f"5{end}"},
    ]
    outcomes = jsm.ok("/log_events", events=events)["outcomes"]
    assert [outcome["code"] for outcome in outcomes] == ["INVALID_PARAMETER"] * 3
    job = {"name": "n", "job_hash": "new", "command": "true", "slots": f"3{end}"}
    for path, body in (
        ("/add_jobs", {"dag_id": good["dag_id"], "jobs": [job]}),
        ("/queue_jobs", {"dag_id": good["dag_id"], "job_ids": [f"{job_id}{end}"]}),
        ("/add_job_attribute", {"job_id": job_id, "attribute_type": 1, "value": f"3{end}"}),
        ("/log_running", {"job_instance_id": f"{instance_id}{end}"}),
    ):
        assert check(jsm.post(path, body), db, f"{path} {end!a}")
    assert checksums(db) == before
    # an id of the batch executor is any text, and is shown as it is
    jsm.ok("/log_executor_id", job_instance_id=instance_id, executor_id=f"17{end}")
    [shown] = jqs.read("/get_submitted_or_running", dag_id=good["dag_id"])["ji_dcts"]
    assert shown["executor_id"] == f"17{end}"


def test_a_refused_list_changes_nothing(jsm: Api, jqs: Api, db: Any) -> None:
    """The last of many items is bad: none of the others is stored."""
    good = fit_body(jsm)
    jobs = [{"name": "n", "job_hash": f"h{n}", "command": "true"} for n in range(50)]
    before = checksums(db)
    for bad in (
        {"name": "n"},
        {**jobs[0]},
        {**jobs[0], "job_hash": "z", "slots": "zwei"},
        {**jobs[0], "tag": "x" * 300},
    ):
        response = jsm.post("/add_jobs", {"dag_id": good["dag_id"], "jobs": [*jobs, bad]})
        assert check(response, db, json.dumps(bad))
        assert checksums(db) == before
    assert_healthy(jsm, jqs, db)
