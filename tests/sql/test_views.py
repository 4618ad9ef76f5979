"""What is read: the routes of the wire protocol, and what people browse."""

from __future__ import annotations

import datetime
import json
import re
from typing import Any

import pytest
from sql_helpers import (
    SQL,
    Sql,
    claim,
    clock,
    fresh,
    make_attempt,
    make_dag,
    make_instance,
    make_job,
    make_jobs,
    make_run,
    make_submitted,
    make_workflow,
    outcomes,
    seconds_ago,
)

DAY = 86400
VIEWS = {path.stem: path.read_text() for path in sorted(SQL.glob("views/*.sql"))}


# As JQS orders them: by the view's own id.
ORDER = {
    "get_jobs": "job_id",
    "get_queued": "job_id",
    "get_submitted_or_running": "job_instance_id",
    "get_timed_out": "job_instance_id",
    "get_job_instances_of_workflow_run": "job_instance_id",
    "get_dag_ids_by_hash": "dag_id",
    "get_live_job_instances": "job_instance_id",
}


def documents(jqs: Sql, view: str, **where: Any) -> list[Any]:
    """The documents of a route, as JQS asks for them."""
    columns = " AND ".join(f"{column}=%s" for column in where)
    order = f" ORDER BY {ORDER[view]}" if view in ORDER else ""
    found = jqs.raw(f"SELECT document FROM {view} WHERE {columns}{order}", *where.values())
    return [json.loads(row[0]) if isinstance(row[0], str) else row[0] for row in found]


def browse(jqs: Sql, view: str, **where: Any) -> list[dict[str, Any]]:
    """Rows of a view as dictionaries."""
    columns = " AND ".join(f"{column}=%s" for column in where)
    with jqs.conn.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {view} WHERE {columns}", list(where.values()))
        names = [column[0] for column in cursor.description]
        return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]


def later(jsm: Sql, seconds: float) -> None:
    """Let this connection's clock stand so many seconds away from the server's."""
    jsm.raw("SET timestamp = UNIX_TIMESTAMP(SYSDATE(6)) + %s", seconds)


# Routes ----------------------------------------------------------------------------------------------


def test_every_route_has_its_view(admin: Sql) -> None:
    columns: dict[str, set[str]] = {}
    for view, column in admin.raw(
        "SELECT TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA=DATABASE()"
    ):
        columns.setdefault(view, set()).add(column)
    routes = admin.raw("SELECT view_name, arguments, answer_key, cardinality, none_document FROM jqs_route")
    assert {route[0] for route in routes} == {name for name in VIEWS if name.startswith(("get_", "is_"))}
    for view, arguments, answer_key, cardinality, none_document in routes:
        assert "document" in columns[view]
        assert set(filter(None, arguments.split(","))) <= columns[view]
        assert cardinality in ("many", "first", "cursor", "page")
        assert (answer_key is None) is (cardinality == "first")
        assert none_document is None or json.loads(none_document)


@pytest.mark.parametrize("view", VIEWS)
def test_headers(jqs: Sql, admin: Sql, view: str) -> None:
    text = VIEWS[view]
    assert text.startswith("-- Description: ")
    access = re.search(r"^-- Access: (\w+)$", text, re.MULTILINE)
    assert access and access[1] in ("JQS", "internal")
    example = re.search(r"^-- Example: (.*);$", text, re.MULTILINE)
    assert example or access[1] == "internal"
    if example:
        jqs.raw(example[1])


JOB_KEYS = {
    *(
        "dag_id",
        "job_id",
        "name",
        "tag",
        "job_hash",
        "command",
        "status",
        "slots",
        "mem_free",
        "num_attempts",
    ),
    *("max_attempts", "context_args", "last_nodename", "last_process_group_id"),
}


def test_get_jobs_and_get_queued(jsm: Sql, jqs: Sql) -> None:
    dag_id = make_dag(jsm)
    jobs = [make_job(jsm, status, dag_id=dag_id) for status in "GQIRDF"]
    make_job(jsm, "Q")
    found = documents(jqs, "get_jobs", dag_id=dag_id)
    assert [document["job_id"] for document in found] == jobs
    assert "".join(document["status"] for document in found) == "GQIRDF"
    assert all(set(document) == JOB_KEYS for document in found)
    assert [document["job_id"] for document in documents(jqs, "get_queued", dag_id=dag_id)] == [jobs[1]]
    assert documents(jqs, "get_queued", dag_id=dag_id) == [found[1]]
    assert documents(jqs, "get_jobs", dag_id=10**12) == []


def test_last_nodename_is_that_of_the_newest_instance(jsm: Sql, jqs: Sql) -> None:
    job_id, first = make_instance(jsm, "R")
    jsm.call("log_nodename", job_instance_id=first, nodename="first")
    jsm.call("log_error", job_instance_id=first, error_message="x")

    def last() -> tuple[Any, Any]:
        (document,) = documents(jqs, "get_jobs", job_id=job_id)
        return document["last_nodename"], document["last_process_group_id"]

    assert last() == ("first", 11)
    second = make_attempt(jsm, job_id)
    assert last() == (None, None)
    jsm.call("log_running", job_instance_id=second, nodename="second", process_group_id=22)
    assert last() == ("second", 22)
    jsm.call("reset_job", job_id=job_id)
    assert last() == ("second", 22)


def test_ji_dct(jsm: Sql, jqs: Sql, admin: Sql) -> None:
    workflow = make_workflow(jsm)
    dag_id = admin.row("workflow", workflow)["dag_id"]
    run = make_run(jsm, workflow_id=workflow)
    job_id = make_job(jsm, "Q", dag_id=dag_id)
    instance = make_attempt(jsm, job_id, "I")
    assert documents(jqs, "get_submitted_or_running", dag_id=dag_id) == []
    assert documents(jqs, "get_job_instances_of_workflow_run", workflow_run_id=run)[0]["status"] == "I"
    jsm.call("log_executor_id", job_instance_id=instance, executor_id="4711")
    jsm.call("log_running", job_instance_id=instance, nodename="n", process_group_id=5)
    (document,) = documents(jqs, "get_submitted_or_running", dag_id=dag_id)
    status_date = admin.instance(instance)["status_date"]
    assert document == {
        "job_instance_id": instance,
        "workflow_run_id": run,
        "executor_id": 4711,
        "job_id": job_id,
        "status": "R",
        "nodename": "n",
        "process_group_id": 5,
        "status_date": status_date.strftime("%Y-%m-%dT%H:%M:%S"),
        "time_since_status_update": document["time_since_status_update"],
    }
    assert 0 <= document["time_since_status_update"] < 60
    assert documents(jqs, "get_job_instances_of_workflow_run", workflow_run_id=run)[0]["nodename"] == "n"
    assert documents(jqs, "get_job_instances_of_workflow_run", workflow_run_id=10**12) == []


@pytest.mark.parametrize(
    ("executor_id", "shown"),
    [
        ("0", 0),
        ("12", 12),
        ("012", "012"),
        ("12_3", "12_3"),
        ("12.batch", "12.batch"),
        ("9" * 18, 10**18 - 1),
        ("9" * 30, "9" * 30),
        ("-1", "-1"),
        ("true", "true"),
        ('"', '"'),
        ("", ""),
        (None, None),
    ],
)
def test_executor_ids_are_numbers_where_they_are(
    jsm: Sql, jqs: Sql, executor_id: str | None, shown: Any
) -> None:
    _, instance = make_instance(jsm, "R")
    if executor_id is not None:
        jsm.call("log_executor_id", job_instance_id=instance, executor_id=executor_id)
    (document,) = documents(jqs, "get_submitted_or_running", job_instance_id=instance)
    assert document["executor_id"] == shown and type(document["executor_id"]) is type(shown)


@pytest.mark.parametrize("status", "IBRDE")
def test_get_submitted_or_running(jsm: Sql, jqs: Sql, status: str) -> None:
    job_id, instance = make_instance(jsm, status)
    found = documents(jqs, "get_submitted_or_running", job_instance_id=instance)
    assert [document["job_id"] for document in found] == ([job_id] if status in "BR" else [])


def test_a_date_in_the_future_is_now(jsm: Sql, jqs: Sql) -> None:
    later(jsm, 3600)
    _, instance = make_instance(jsm, "R", max_runtime=5)
    (document,) = documents(jqs, "get_submitted_or_running", job_instance_id=instance)
    assert document["time_since_status_update"] == 0
    assert documents(jqs, "get_timed_out", job_instance_id=instance) == []


@pytest.mark.parametrize("days", [0, 1, 3])
def test_get_timed_out(jsm: Sql, jqs: Sql, days: int) -> None:
    dag_id = make_dag(jsm)
    later(jsm, -(days * DAY + 100))
    made = {}
    for word, seconds in (("over", days * DAY + 90), ("within", days * DAY + 500), ("unlimited", None)):
        job_id = make_job(jsm, "Q", dag_id=dag_id, max_runtime=seconds)
        made[word] = make_attempt(jsm, job_id, "R")
    # what waits with the batch executor, or has ended, is not timed out
    for status in "IBDE":
        make_attempt(jsm, make_job(jsm, "Q", dag_id=dag_id, max_runtime=1), status)
    (document,) = documents(jqs, "get_timed_out", dag_id=dag_id)
    assert document["job_instance_id"] == made["over"]
    assert days * DAY + 100 <= document["time_since_status_update"] < days * DAY + 160
    # a heartbeat, or running reported again, starts nothing anew
    later(jsm, 0)
    jsm.call("log_running", job_instance_id=made["over"])
    jsm.call("log_job_instance_heartbeat", job_instance_id=made["over"], lease_seconds=60)
    assert documents(jqs, "get_timed_out", dag_id=dag_id)[0]["job_instance_id"] == made["over"]


def test_time_with_the_batch_executor_does_not_count(jsm: Sql, jqs: Sql) -> None:
    later(jsm, -1000)
    _, instance = make_instance(jsm, "B", max_runtime=500)
    later(jsm, 0)
    jsm.call("log_running", job_instance_id=instance)
    assert documents(jqs, "get_timed_out", job_instance_id=instance) == []


def test_get_dag_ids_by_hash(jsm: Sql, jqs: Sql) -> None:
    digest = fresh()
    dags = [make_dag(jsm, dag_hash=digest) for _ in range(3)]
    assert documents(jqs, "get_dag_ids_by_hash", dag_hash=digest) == dags
    assert documents(jqs, "get_dag_ids_by_hash", dag_hash=digest + " ") == []


def test_get_workflows_by_inputs(jsm: Sql, jqs: Sql, admin: Sql) -> None:
    digest = fresh()
    workflow = make_workflow(jsm, workflow_hash=digest, description="d\N{GRINNING FACE}")
    dag_id = admin.row("workflow", workflow)["dag_id"]
    expected = {
        "id": workflow,
        "dag_id": dag_id,
        "workflow_args": "v1",
        "workflow_hash": digest,
        "description": "d\N{GRINNING FACE}",
        "name": "wf",
        "user": "ann",
        "status": "C",
    }
    found = documents(jqs, "get_workflows_by_inputs", dag_id=dag_id, workflow_args="v1")
    assert found == [{"workflow_dct": expected}]
    assert documents(jqs, "get_workflows_by_inputs", dag_id=dag_id, workflow_args="V1") == []


def test_is_workflow_running(jsm: Sql, jqs: Sql) -> None:
    workflow = make_workflow(jsm)
    assert documents(jqs, "is_workflow_running", workflow_id=workflow) == []
    make_run(jsm, workflow_id=workflow)
    run = make_run(jsm, workflow_id=workflow, working_dir="/w", slack_channel="#c", pid="000")
    expected = {
        "id": run,
        "workflow_id": workflow,
        "user": "ann",
        "hostname": "login1",
        "pid": 0,
        "stderr": None,
        "stdout": None,
        "project": None,
        "working_dir": "/w",
        "slack_channel": "#c",
        "executor_class": None,
        "status": "R",
    }
    assert documents(jqs, "is_workflow_running", workflow_id=workflow) == [
        {"is_running": True, "workflow_run_dct": expected}
    ]
    jsm.call("update_workflow_run", wfr_id=run, status="D")
    assert documents(jqs, "is_workflow_running", workflow_id=workflow) == []


def test_get_job_changes(jsm: Sql, jqs: Sql, admin: Sql) -> None:
    job_id, _ = make_instance(jsm, "E", max_attempts=1)
    dag_id = admin.job(job_id)["dag_id"]
    rows = jqs.raw(
        "SELECT shard, change_id, document FROM get_job_changes WHERE dag_id=%s ORDER BY change_id", dag_id
    )
    found = [json.loads(document) for _, _, document in rows]
    assert [(d["from_status"], d["status"], d["attempt_number"]) for d in found] == [
        (None, "G", 0),
        ("G", "Q", 0),
        ("Q", "I", 1),
        ("I", "R", 1),
        ("R", "E", 1),
        ("E", "F", 1),
    ]
    assert all(d["job_id"] == job_id and d["dag_id"] == dag_id for d in found)
    assert [d["change_id"] for d in found] == [change_id for _, change_id, _ in rows]
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}", d["status_date"]) for d in found)
    assert all(0 <= shard < 64 for shard, _, _ in rows)


def test_odd_texts_come_out_as_they_went_in(jsm: Sql, jqs: Sql) -> None:
    odd = 'a"b\\c\n\t\x01\0\N{GRINNING FACE}\u2028</script>'
    dag_id = make_dag(jsm)
    job_id = make_job(jsm, "Q", dag_id=dag_id, name=odd, command=odd, tag=odd, context_args=odd, job_hash=odd)
    make_attempt(jsm, job_id, "I")
    (document,) = documents(jqs, "get_jobs", dag_id=dag_id)
    assert {document[word] for word in ("name", "command", "tag", "context_args", "job_hash")} == {odd}


# What people browse ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "label"),
    [
        ("G", "REGISTERED"),
        ("Q", "QUEUED_FOR_INSTANTIATION"),
        ("I", "INSTANTIATED"),
        ("R", "RUNNING"),
        ("F", "ERROR_FATAL"),
        ("D", "DONE"),
    ],
)
def test_jobs(jsm: Sql, jqs: Sql, admin: Sql, status: str, label: str) -> None:
    workflow = make_workflow(jsm)
    dag_id = admin.row("workflow", workflow)["dag_id"]
    later(jsm, -100)
    job_id = make_job(jsm, status, dag_id=dag_id, tag="t", slots=3)
    (row,) = browse(jqs, "jobs", job_id=job_id)
    assert (row["status"], row["workflow_id"], row["tag"], row["slots"]) == (label, workflow, "t", 3)
    assert 100 <= row["seconds_in_status"] < 160
    assert row["num_attempts"] == (1 if status in "IRFD" else 0)
    if status == "R":
        assert 100 <= row["run_seconds"] < 160
    elif status in "DF":
        assert 0 <= row["run_seconds"] < 5
        assert (row["last_error"], row["nodename"]) == ("boom" if status == "F" else None, "node1")
    else:
        assert row["run_seconds"] is None


def test_job_instances(jsm: Sql, jqs: Sql) -> None:
    now = clock(jsm)
    with seconds_ago(jsm, 100, now):
        job_id = make_job(jsm, "Q")
        instance = make_attempt(jsm, job_id, "B")
    with seconds_ago(jsm, 70, now):
        jsm.call("log_running", job_instance_id=instance, nodename="n")
    with seconds_ago(jsm, 30, now):
        jsm.call("log_error", job_instance_id=instance, error_message="y" * 5000)
        live = make_attempt(jsm, job_id, "R")
    first, second = sorted(browse(jqs, "job_instances", job_id=job_id), key=lambda row: row["attempt_number"])
    assert (first["status"], second["status"]) == ("ERROR", "RUNNING")
    assert (first["wait_seconds"], first["run_seconds"]) == (30, 40)
    assert 30 <= second["run_seconds"] < 90
    assert first["error_message"] == "y" * 1000
    assert (second["job_instance_id"], second["attempt_number"]) == (live, 2)


def test_job_errors(jsm: Sql, jqs: Sql) -> None:
    job_id, first = make_instance(jsm, "E")
    second = make_attempt(jsm, job_id, "E")
    rows = browse(jqs, "job_errors", job_id=job_id)
    assert [(row["job_instance_id"], row["attempt_number"], row["description"]) for row in rows] == [
        (first, 1, "boom"),
        (second, 2, "boom"),
    ]


def test_job_history(jsm: Sql, jqs: Sql) -> None:
    job_id = make_job(jsm, "F")
    jsm.call("reset_job", job_id=job_id)
    rows = browse(jqs, "job_history", job_id=job_id)
    assert [row["status"] for row in rows] == [
        "REGISTERED",
        "QUEUED_FOR_INSTANTIATION",
        "INSTANTIATED",
        "RUNNING",
        "ERROR_RECOVERABLE",
        "ERROR_FATAL",
        "REGISTERED",
    ]
    assert [row["from_status"] for row in rows][1:] == [row["status"] for row in rows][:-1]
    assert rows[0]["reason"] is None and all(row["reason"] for row in rows[1:])


def test_counts(jsm: Sql, jqs: Sql, admin: Sql) -> None:
    workflow = make_workflow(jsm)
    dag_id = admin.row("workflow", workflow)["dag_id"]
    (row,) = browse(jqs, "workflows", workflow_id=workflow)
    assert (row["num_jobs"], row["newest_workflow_run_id"], row["status"]) == (0, None, "CREATED")
    run = make_run(jsm, workflow_id=workflow)
    for status, count in zip("GQIRDF", range(1, 7), strict=True):
        for _ in range(count):
            make_job(jsm, status, dag_id=dag_id)
    counts = {row["status"]: row["num_jobs"] for row in browse(jqs, "job_status_counts", dag_id=dag_id)}
    assert counts == {
        "REGISTERED": 1,
        "QUEUED_FOR_INSTANTIATION": 2,
        "INSTANTIATED": 3,
        "RUNNING": 4,
        "DONE": 5,
        "ERROR_FATAL": 6,
    }
    (row,) = browse(jqs, "workflows", workflow_id=workflow)
    assert {k: v for k, v in row.items() if k.startswith("num_")} == {
        "num_jobs": 21,
        "num_done": 5,
        "num_running": 4,
        "num_queued": 5,
        "num_fatal": 6,
    }
    assert (row["status"], row["newest_workflow_run_id"]) == ("RUNNING", run)


def test_workflow_runs(jsm: Sql, jqs: Sql, admin: Sql) -> None:
    now = clock(jsm)
    with seconds_ago(jsm, 200, now):
        workflow = make_workflow(jsm)
        run = make_run(jsm, workflow_id=workflow)
    with seconds_ago(jsm, 50, now):
        jsm.call("log_heartbeat", dag_id=admin.row("workflow", workflow)["dag_id"])
    (row,) = browse(jqs, "workflow_runs", workflow_run_id=run)
    assert (row["status"], row["name"], row["hostname"]) == ("RUNNING", "wf", "login1")
    assert 200 <= row["run_seconds"] < 260
    assert 50 <= row["seconds_since_heartbeat"] < 110
    with seconds_ago(jsm, 50, now):
        jsm.call("update_workflow_run", wfr_id=run, status="D")
    (row,) = browse(jqs, "workflow_runs", workflow_run_id=run)
    assert row["status"] == "DONE"
    assert row["run_seconds"] == 150


def test_a_view_tells_utc_whatever_the_session(jsm: Sql, jqs: Sql) -> None:
    _, instance = make_instance(jsm, "R")
    jqs.raw("SET SESSION time_zone = '-09:00'")
    (document,) = documents(jqs, "get_submitted_or_running", job_instance_id=instance)
    shown = datetime.datetime.fromisoformat(document["status_date"])
    assert abs(shown - datetime.datetime.now(datetime.UTC).replace(tzinfo=None)) < datetime.timedelta(
        minutes=5
    )
    assert document["time_since_status_update"] < 60


def test_bulk_jobs_are_seen_as_others(jsm: Sql, jqs: Sql) -> None:
    dag_id, jobs = make_jobs(jsm, 200, [(n, n + 100) for n in range(100)])
    jsm.call("queue_jobs", dag_id=dag_id)
    assert len(documents(jqs, "get_queued", dag_id=dag_id)) == 100
    live = claim(jsm, dag_id, max_jobs=50)
    assert set(outcomes(jsm, [{"event": "running", "job_instance_id": i} for i in live])) == {"OK"}
    assert [d["job_instance_id"] for d in documents(jqs, "get_submitted_or_running", dag_id=dag_id)] == live
    assert [d["job_id"] for d in documents(jqs, "get_jobs", dag_id=dag_id)] == jobs
    (row,) = browse(jqs, "jobs", job_id=jobs[150])
    assert row["upstreams_pending"] == 1


def explain(jqs: Sql, job_id: int) -> tuple[str, str]:
    """The only reason, and its explanation."""
    (row,) = browse(jqs, "job_explanations", job_id=job_id)
    return row["reason"], row["explanation"]


def test_why_a_job_waits_for_others(jsm: Sql, jqs: Sql) -> None:
    dag_id, jobs = make_jobs(jsm, 4, [(0, 3), (1, 3), (2, 3)], max_attempts=1)
    jsm.call("queue_jobs", dag_id=dag_id)
    make_attempt(jsm, jobs[0], "D")
    make_attempt(jsm, jobs[1], "E")
    rows = sorted(browse(jqs, "job_explanations", job_id=jobs[3]), key=lambda row: row["explanation"])
    assert [(row["reason"], row["status"], row["name"], row["dag_id"]) for row in rows] == [
        ("WAITS_FOR_UPSTREAM", "REGISTERED", "job3", dag_id)
    ] * 2
    assert [row["explanation"] for row in rows] == [
        f"waits for job {jobs[1]} (job1), which is ERROR_FATAL: retry it, or reset it",
        f"waits for job {jobs[2]} (job2), which is QUEUED_FOR_INSTANTIATION",
    ]
    # and the edges themselves
    edges = sorted(
        browse(jqs, "job_edges", downstream_job_id=jobs[3]), key=lambda row: row["upstream_job_id"]
    )
    assert edges[1] == {
        "dag_id": dag_id,
        "upstream_job_id": jobs[1],
        "upstream_name": "job1",
        "upstream_status": "ERROR_FATAL",
        "downstream_job_id": jobs[3],
        "downstream_name": "job3",
        "downstream_status": "REGISTERED",
    }
    assert [row["upstream_status"] for row in edges] == ["DONE", "ERROR_FATAL", "QUEUED_FOR_INSTANTIATION"]
    assert browse(jqs, "job_edges", dag_id=dag_id, upstream_job_id=jobs[0]) == edges[:1]


def test_why_a_job_is_not_queued(jsm: Sql, jqs: Sql) -> None:
    dag_id, jobs = make_jobs(jsm, 2, [(0, 1)])
    jsm.call("queue_jobs", dag_id=dag_id)
    make_attempt(jsm, jobs[0], "D")
    for job_id in (make_job(jsm), make_job(jsm, dag_id=None)):
        reason, explanation = explain(jqs, job_id)
        assert reason == "NOT_SUBMITTED" and "was the run submitted?" in explanation
    # its gate is open, and it was reset
    jsm.call("reset_job", job_id=jobs[1])
    assert explain(jqs, jobs[1])[0] == "NOT_SUBMITTED"


def test_why_a_queued_job_is_not_claimed(jsm: Sql, jqs: Sql, admin: Sql) -> None:
    dag_id, jobs = make_jobs(jsm, 3, max_concurrently_running=0)
    workflow = make_workflow(jsm, dag_id=dag_id)
    jsm.call("queue_jobs", dag_id=dag_id)

    def why() -> tuple[str, str]:
        return explain(jqs, jobs[2])

    reason, explanation = why()
    assert reason == "NO_LIVE_RUN" and f"workflow {workflow} is CREATED" in explanation
    make_run(jsm, workflow_id=workflow)
    assert why()[0] == "AT_LIMIT"
    jsm.call("set_max_concurrently_running", workflow_id=workflow, max_concurrently_running=2)
    reason, explanation = why()
    assert reason == "WAITS_FOR_DISTRIBUTOR" and "no distributor has claimed it yet" in explanation
    assert len(claim(jsm, dag_id)) == 2
    reason, explanation = why()
    assert reason == "AT_LIMIT"
    assert "2 jobs of its dag are live" in explanation and "max_concurrently_running is 2" in explanation
    jsm.call("stop_workflow", workflow_id=workflow, kill=1)
    reason, explanation = why()
    assert reason == "NO_LIVE_RUN" and f"workflow {workflow} is STOPPED" in explanation
    # the second attempt says so
    assert explain(jqs, jobs[0])[0] == "NO_LIVE_RUN"
    make_run(jsm, workflow_id=workflow)
    assert "attempt 2 of 3" in explain(jqs, jobs[0])[1]
    # nobody else's jobs stand in the way of those without a workflow or a dag
    for alone in (make_job(jsm, "Q"), make_job(jsm, "Q", dag_id=None)):
        assert explain(jqs, alone)[0] == "WAITS_FOR_DISTRIBUTOR"


def test_what_a_job_is_doing(jsm: Sql, jqs: Sql, admin: Sql) -> None:
    job_id, instance = make_instance(jsm)
    reason, explanation = explain(jqs, job_id)
    assert reason == "STARTING" and "attempt 1 was given to LocalExecutor at " in explanation
    jsm.call("log_executor_id", job_instance_id=instance, executor_id="17_3")
    assert "LocalExecutor (17_3) at " in explain(jqs, job_id)[1]
    jsm.call("log_running", job_instance_id=instance)
    reason, explanation = explain(jqs, job_id)
    assert reason == "RUNNING" and explanation.endswith(" on an unknown host")
    jsm.call("log_running", job_instance_id=instance, nodename="n7", process_group_id=4711)
    assert explain(jqs, job_id)[1].endswith(" UTC on n7, process group 4711")
    jsm.call("log_done", job_instance_id=instance)
    reason, explanation = explain(jqs, job_id)
    ended = admin.job(job_id)["status_date"].strftime("%Y-%m-%d %H:%M:%S")
    assert (reason, explanation) == ("DONE", f"ended well at {ended} UTC")
    job_id, instance = make_instance(jsm, "R", max_attempts=1)
    jsm.call("log_error", job_instance_id=instance, error_message="boom " * 500)
    reason, explanation = explain(jqs, job_id)
    assert reason == "FAILED" and explanation.startswith("failed 1 of 1 attempts; the last error: boom boom")
    assert len(explanation) < 1100


@pytest.mark.parametrize("status", "GQIRFD")
def test_every_job_is_explained(jsm: Sql, jqs: Sql, status: str) -> None:
    dag_id = make_dag(jsm)
    for dag in (dag_id, None):
        job_id = make_job(jsm, status, dag_id=dag)
        (row,) = browse(jqs, "job_explanations", job_id=job_id)
        assert row["reason"] and row["explanation"] and row["dag_id"] == dag


def test_what_people_see_of_runs(jsm: Sql, jqs: Sql) -> None:
    dag_id = make_dag(jsm, priority=4, max_concurrently_running=9)
    run = make_submitted(jsm, dag_id, executor_class="LocalExecutor", stdout="/o", stderr="/e")
    (row,) = browse(jqs, "workflow_runs", workflow_run_id=run)
    assert (row["executor_class"], row["stdout"], row["stderr"]) == ("LocalExecutor", "/o", "/e")
    assert row["submitted_date"] >= row["created_date"]
    (row,) = browse(jqs, "workflows", dag_id=dag_id)
    assert (row["priority"], row["max_concurrently_running"]) == (4, 9)
