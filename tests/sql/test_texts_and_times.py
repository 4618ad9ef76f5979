"""Texts that do not fit, and clocks that can't be trusted."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from sql_helpers import (
    Sql,
    fresh,
    make_attempt,
    make_dag,
    make_instance,
    make_job,
    make_jobs,
    make_run,
    make_workflow,
    outcomes,
)

GRIN = "\N{GRINNING FACE}"


# Over-long and odd texts: a report never fails for its text ------------------------------------------


@pytest.mark.parametrize(
    "text",
    ["x" * 65535, "x" * 65536, "x" * 70000, GRIN * 70000, "\u00e9" * 65536, "a\0b" * 30000],
    ids=["65535", "65536", "70000", "emoji", "accents", "nul"],
)
def test_a_long_error_is_cut_and_says_so(jsm: Sql, admin: Sql, text: str) -> None:
    job_id, instance = make_instance(jsm, "R")
    jsm.call("log_error", job_instance_id=instance, error_message=text)
    stored = admin.instance(instance)["error_message"]
    logged = admin.one("SELECT description FROM job_instance_error_log WHERE job_instance_id=%s", instance)
    assert stored == logged
    if len(text) <= 65535:
        assert stored == text
    else:
        assert len(stored) == 65535
        assert f"[cut: this text had {len(text)} characters]" in stored
        assert stored.startswith(text[:100]) and stored.endswith(text[-100:])
    assert admin.history(job_id).endswith("EQ"), "no status is stuck because its text did not fit"


def test_an_error_of_nearly_16_megabytes(jsm: Sql, admin: Sql) -> None:
    _, instance = make_instance(jsm, "R")
    size = min(int(admin.one("SELECT @@max_allowed_packet")), 2**24) - 2000
    jsm.call("log_error", job_instance_id=instance, error_message="x" * size)
    assert f"[cut: this text had {size} characters]" in admin.instance(instance)["error_message"]
    _, instance = make_instance(jsm, "R")
    event = {"event": "error", "job_instance_id": instance, "error_message": "x" * (size - 1000)}
    assert outcomes(jsm, [event]) == ["OK"]


@pytest.mark.parametrize(
    "text",
    ["", " ", "\0", "a\0b", GRIN, "\ufffd", "\u202e", "a\r\nb\t\x1b[31m", "'; DROP TABLE job; --", "\\"],
)
@pytest.mark.parametrize("how", ["call", "event"])
def test_odd_texts_are_kept_as_they_are(jsm: Sql, admin: Sql, text: str, how: str) -> None:
    _, instance = make_instance(jsm, "I")
    given = {"nodename": text, "executor_id": text}
    if how == "call":
        jsm.call("log_running", job_instance_id=instance, **given)
        jsm.call("log_usage", job_instance_id=instance, usage_str=text, cpu=text)
        jsm.call("log_error", job_instance_id=instance, error_message=text)
    else:
        events = [
            {"event": "running", **given},
            {"event": "usage", "usage_str": text, "cpu": text},
            {"event": "error", "error_message": text},
        ]
        assert outcomes(jsm, [{**event, "job_instance_id": instance} for event in events]) == ["OK"] * 3
    row = admin.instance(instance)
    assert row.items() >= {**given, "usage_str": text, "cpu": text, "error_message": text}.items()


@pytest.mark.parametrize(("length", "cut"), [(255, False), (256, True), (5000, True)])
def test_host_names(jsm: Sql, admin: Sql, length: int, cut: bool) -> None:
    name = "n" * length
    _, instance = make_instance(jsm, "I")
    jsm.call("log_running", job_instance_id=instance, nodename=name)
    for report, more in (
        (None, {}),
        ("log_nodename", {"nodename": name}),
        ("log_done", {"nodename": name}),
    ):
        if report:
            jsm.call(report, job_instance_id=instance, **more)
        stored = admin.instance(instance)["nodename"]
        assert len(stored) == 255
        assert ("[cut: this text had" in stored) is cut
    _, instance = make_instance(jsm, "R")
    jsm.call("log_error", job_instance_id=instance, error_message="x", nodename=name)
    assert len(admin.instance(instance)["nodename"]) == 255
    assert len(admin.row("workflow_run", make_run(jsm, hostname=name))["hostname"]) == 255


@pytest.mark.parametrize(
    ("report", "given"),
    [
        ("log_usage", {}),
        ("log_done", {}),
        ("log_error", {"error_message": "x"}),
        ("log_warning", {"error_message": "x"}),
    ],
)
def test_figures_are_cut(jsm: Sql, admin: Sql, report: str, given: dict[str, str]) -> None:
    _, instance = make_instance(jsm, "R")
    words = ("wallclock", "maxvmem", "cpu", "io")
    text = GRIN * 3000
    jsm.call(report, job_instance_id=instance, usage_str=text, **given, **dict.fromkeys(words, text))
    row = admin.instance(instance)
    assert len(row["usage_str"]) == 1000
    for word in (*words, "usage_str"):
        assert "[cut: this text had 3000 characters]" in row[word]
    for word in words:
        assert len(row[word]) == 64


def test_the_first_message_of_an_error_stays(jsm: Sql, admin: Sql) -> None:
    _, instance = make_instance(jsm, "E")
    with admin.unchanged():
        jsm.call("log_error", job_instance_id=instance, error_message="another")
        event = {"event": "error", "job_instance_id": instance, "error_message": "another"}
        assert outcomes(jsm, [event]) == ["OK"]


def test_an_error_without_words(emptied: None, jsm: Sql, admin: Sql) -> None:
    _, instance = make_instance(jsm, "R")
    jsm.raw("UPDATE job_instance SET status = 'E'")
    assert admin.instance(instance)["error_message"] == "(no error message was given)"


@pytest.mark.parametrize("raw", ["x" * 70000, GRIN * 200000])
def test_a_long_error_by_raw_sql(emptied: None, jsm: Sql, admin: Sql, raw: str) -> None:
    job_id, instance = make_instance(jsm, "R")
    jsm.raw("UPDATE job_instance SET status = 'E', error_message = %s", raw)
    assert admin.history(job_id).endswith("EQ")
    assert admin.instance(instance)["error_message"].startswith(raw[:1000])


def test_a_job_of_large_texts(jsm: Sql) -> None:
    command = "echo " + GRIN * 50000
    job_id = make_job(jsm, command=command, context_args='{"k": "' + "v" * 70000 + '"}')
    dag_id, (same,) = make_jobs(jsm, 1, command=command)
    jsm.call("queue_jobs", dag_id=dag_id)
    (made,) = jsm.call("claim_jobs", executor_type="X", dag_id=dag_id)["job_instances"]
    assert (made["job_id"], made["command"]) == (same, command)
    assert job_id < same
    workflow = jsm.call(
        "add_workflow",
        dag_id=dag_id,
        workflow_args=command,
        workflow_hash=fresh(GRIN * 40000),
        name="n",
        user="u",
    )["workflow_dct"]
    assert workflow["workflow_args"] == command


# Exact comparisons -----------------------------------------------------------------------------------

VARIANTS = ["wa", "WA", "wa ", " wa", "w\u00e1", "wa\0", "w\uff41", ""]


def test_args_and_hashes_are_compared_exactly(jsm: Sql, jqs: Sql) -> None:
    dag_id = make_dag(jsm)
    mark = fresh()
    made = {
        word: make_workflow(jsm, dag_id=dag_id, workflow_args=word, workflow_hash=mark + word)
        for word in VARIANTS
    }
    assert len(set(made.values())) == len(VARIANTS)
    for word, workflow in made.items():
        assert make_workflow(jsm, dag_id=dag_id, workflow_args=word) == workflow
        found = jqs.raw(
            "SELECT workflow_id FROM get_workflows_by_inputs WHERE dag_id=%s AND workflow_args=%s",
            dag_id,
            word,
        )
        assert found == [(workflow,)]
    dags = {word: make_dag(jsm, dag_hash=mark + word) for word in VARIANTS}
    for word, id_ in dags.items():
        assert jqs.raw("SELECT document FROM get_dag_ids_by_hash WHERE dag_hash=%s", mark + word) == [(id_,)]


@pytest.mark.parametrize("status", ["d", "D ", "DD", "", "\uff24"])
def test_statuses_are_compared_exactly(jsm: Sql, admin: Sql, status: str) -> None:
    workflow, run = make_workflow(jsm), make_run(jsm)
    with admin.unchanged():
        with jsm.refused("UNKNOWN_STATUS"):
            jsm.call("update_workflow", wf_id=workflow, status=status)
        with jsm.refused("UNKNOWN_STATUS"):
            jsm.call("update_workflow_run", wfr_id=run, status=status)


# Times -----------------------------------------------------------------------------------------------


def dates(admin: Sql, job_id: int) -> list[datetime.datetime]:
    """All dates that a job and its instances have, in the order in which they were given."""
    found = [
        date
        for (date,) in admin.raw(
            "SELECT status_date FROM job_status_log WHERE job_id=%s ORDER BY job_status_log_id", job_id
        )
    ]
    return found


@pytest.mark.parametrize("zone", ["+00:00", "-12:00", "+13:00"])
def test_dates_are_utc_whatever_the_session(jsm: Sql, admin: Sql, zone: str) -> None:
    jsm.raw("SET SESSION time_zone = %s", zone)
    before = admin.one("SELECT UTC_TIMESTAMP(6)")
    workflow = make_workflow(jsm)
    run = make_run(jsm, workflow_id=workflow)
    dag_id = admin.row("workflow", workflow)["dag_id"]
    job_id = make_job(jsm, "Q", dag_id=dag_id)
    instance = make_attempt(jsm, job_id, "B", lease_seconds=60)
    jsm.call("log_running", job_instance_id=instance)
    jsm.call("log_heartbeat", dag_id=dag_id)
    jsm.call("log_error", job_instance_id=instance, error_message="x")
    jsm.raw("INSERT INTO task_dag (dag_hash, user) VALUES ('x', 'y')")
    after = admin.one("SELECT UTC_TIMESTAMP(6)")
    rows = [
        admin.row("workflow", workflow),
        admin.row("workflow_run", run),
        admin.row("task_dag", dag_id),
        admin.row("task_dag", admin.one("SELECT MAX(dag_id) FROM task_dag")),
        admin.job(job_id),
        admin.instance(instance),
    ]
    found = [v for row in rows for k, v in row.items() if k.endswith("_date") and v is not None]
    found += dates(admin, job_id)
    found.append(
        admin.one("SELECT error_time FROM job_instance_error_log WHERE job_instance_id=%s", instance)
    )
    assert len(found) > 15
    assert all(before <= date <= after for date in found)


def test_microseconds_are_kept(jsm: Sql, admin: Sql) -> None:
    jobs = [make_job(jsm, "D") for _ in range(3)]
    assert any(date.microsecond for job_id in jobs for date in dates(admin, job_id))
    assert any(date.microsecond % 1000 for job_id in jobs for date in dates(admin, job_id))
    for job_id in jobs:
        assert sorted(dates(admin, job_id)) == dates(admin, job_id)


def test_a_clock_that_is_set_back(jsm: Sql, admin: Sql) -> None:
    """Each step runs an hour before the last: no date moves backward, and no report is refused."""
    workflow = make_workflow(jsm)
    dag_id = admin.row("workflow", workflow)["dag_id"]
    run = make_run(jsm, workflow_id=workflow)
    job_id = make_job(jsm, dag_id=dag_id, max_attempts=2)
    now = float(admin.one("SELECT UNIX_TIMESTAMP(UTC_TIMESTAMP())"))
    hours = 0

    def back() -> None:
        nonlocal hours
        hours += 1
        jsm.raw("SET timestamp = %s", now - hours * 3600)

    def seen() -> list[datetime.datetime | None]:
        return [
            admin.job(job_id)["status_date"],
            admin.row("workflow", workflow)["status_date"],
            admin.row("workflow_run", run)["status_date"],
            admin.row("workflow_run", run)["heartbeat_date"],
            admin.row("task_dag", dag_id)["heartbeat_date"],
        ]

    def step(name: str, **given: Any) -> Any:
        before = seen()
        back()
        answer = jsm.call(name, **given)
        for old, new in zip(before, seen(), strict=True):
            assert old is None or (new is not None and new >= old), name
        return answer

    step("queue_job", job_id=job_id)
    instance = make_attempt(jsm, job_id, lease_seconds=60)
    step("log_executor_id", job_instance_id=instance, executor_id="1")
    step("log_running", job_instance_id=instance)
    step("log_job_instance_heartbeat", job_instance_id=instance)
    step("log_heartbeat", dag_id=dag_id)
    step("log_error", job_instance_id=instance, error_message="x")
    step("claim_jobs", executor_type="X", dag_id=dag_id)
    step("reset_job", job_id=job_id)
    step("update_workflow_run", wfr_id=run, status="D")
    step("update_workflow", wf_id=workflow, status="D")
    found = dates(admin, job_id)
    assert sorted(found) == found
    row = admin.instance(instance)
    assert row["created_date"] <= row["status_date"] == row["ended_date"]
    assert row["submitted_date"] <= row["running_date"] <= row["ended_date"]
    assert admin.history(job_id) == "GQIREQIG"


def test_a_clock_far_ahead_is_not_waited_for(jsm: Sql, admin: Sql) -> None:
    jsm.raw("SET timestamp = UNIX_TIMESTAMP() + 7200")
    job_id, instance = make_instance(jsm, "R")
    jsm.raw("SET timestamp = DEFAULT")
    jsm.call("log_done", job_instance_id=instance)
    assert admin.history(job_id) == "GQIRD"
    assert sorted(dates(admin, job_id)) == dates(admin, job_id)


@pytest.mark.parametrize("table", ["task_dag", "workflow", "workflow_run", "job", "job_instance"])
def test_dates_are_the_databases_not_the_writers(emptied: None, jsm: Sql, admin: Sql, table: str) -> None:
    job_id = make_job(jsm, "Q")
    workflow = make_workflow(jsm)
    inserts = {
        "task_dag": "(dag_hash, user, created_date, heartbeat_date) VALUES ('x', 'y', @d, @d)",
        "workflow": "(dag_id, workflow_args, workflow_hash, name, user, created_date, status_date)"
        f" VALUES ({admin.job(job_id)['dag_id']}, 'x', 'x', 'x', 'x', @d, @d)",
        "workflow_run": "(workflow_id, user, hostname, pid, created_date, status_date, heartbeat_date)"
        f" VALUES ({workflow}, 'x', 'x', 1, @d, @d, @d)",
        "job": "(job_hash, name, command, created_date, status_date) VALUES ('x', 'x', 'x', @d, @d)",
        "job_instance": "(job_id, executor_type, created_date, status_date, submitted_date, running_date,"
        f" ended_date) VALUES ({job_id}, 'x', @d, @d, @d, @d, @d)",
    }
    jsm.raw("SET @d = '2999-12-31'")
    jsm.raw(f"INSERT INTO {table} {inserts[table]}")
    key = "dag_id" if table == "task_dag" else f"{table}_id"
    row = admin.row(table, admin.one(f"SELECT MAX({key}) FROM {table}"))
    found = {k: v for k, v in row.items() if k.endswith("_date") and v is not None}
    assert found and all(date.year < 2999 for date in found.values()), found


def test_a_status_date_is_not_for_writing(emptied: None, jsm: Sql, admin: Sql) -> None:
    _, instance = make_instance(jsm, "R")
    with admin.unchanged():
        jsm.raw("UPDATE job SET status_date = '2001-01-01'")
        jsm.raw(
            "UPDATE job_instance SET status_date = '2001-01-01', running_date = '2001-01-01',"
            " submitted_date = '2001-01-01', ended_date = '2001-01-01'"
        )
        jsm.raw("UPDATE task_dag SET heartbeat_date = '2001-01-01'")
    jsm.raw("UPDATE job_instance SET status = 'D', status_date = '2001-01-01', ended_date = '2001-01-01'")
    row = admin.instance(instance)
    assert row["status_date"] == row["ended_date"] > row["running_date"] > row["created_date"]
