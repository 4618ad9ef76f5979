"""What batch executors rely on: kinds of errors, resources that grow, warnings, names, live instances."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from typing import Any

import pytest
from sql_helpers import (
    ERRORS,
    Sql,
    claim,
    make_attempt,
    make_dag,
    make_instance,
    make_job,
    make_jobs,
    outcomes,
)

MAX = 2**32 - 1


def error(instance: int, status: str | None, exceeded: str | None = None) -> dict[str, Any]:
    """A report's keys, those that are None left out."""
    given = {"job_instance_status": status, "exceeded": exceeded}
    return {
        "job_instance_id": instance,
        "error_message": "boom",
        **{key: value for key, value in given.items() if value is not None},
    }


def fail(jsm: Sql, how: str, instance: int, status: str | None = "Z", exceeded: str | None = None) -> None:
    """Report an error, by a call of its own or by an event."""
    if how == "call":
        jsm.call("log_error", **error(instance, status, exceeded))
    else:
        assert outcomes(jsm, [{"event": "error", **error(instance, status, exceeded)}]) == ["OK"]


def log(admin: Sql, instance: int) -> list[tuple[str, str]]:
    """The errors and warnings of an instance, oldest first."""
    return admin.raw(
        "SELECT severity, description FROM job_instance_error_log WHERE job_instance_id=%s"
        " ORDER BY job_instance_error_log_id",
        instance,
    )  # type: ignore[return-value]


both = pytest.mark.parametrize("how", ["call", "event"])


# Kinds of errors ---------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("status", ERRORS)
@pytest.mark.parametrize("max_attempts", [1, 2])
def test_every_error_retries_the_job_or_ends_it(
    jsm: Sql, admin: Sql, how: str, status: str, max_attempts: int
) -> None:
    job_id, instance = make_instance(jsm, "I", max_attempts=max_attempts)
    fail(jsm, how, instance, status)
    assert admin.history(job_id) == "GQIE" + ("Q" if max_attempts == 2 else "F")
    assert admin.instance_history(instance) == "I" + status
    row = admin.instance(instance)
    assert (row["error_message"], row["report_by_date"], row["exceeded"]) == ("boom", None, None)
    assert row["ended_date"] == row["status_date"]
    assert log(admin, instance) == [("error", "boom")]


@both
@pytest.mark.parametrize("status", ERRORS)
def test_what_came_first_stays(jsm: Sql, admin: Sql, how: str, status: str) -> None:
    """A reconciler that comes after the worker, or the other way round, changes nothing."""
    _, instance = make_instance(jsm, "I")
    fail(jsm, how, instance, status, "mem_free" if status == "Z" else None)
    with admin.unchanged():
        for late in ("log_done", "log_running"):
            with jsm.refused("JOB_INSTANCE_ENDED"):
                jsm.call(late, job_instance_id=instance)
    for other in ERRORS:
        with admin.unchanged():
            report = error(instance, other) | {"error_message": "another"}
            if other == status:
                jsm.call("log_error", **report)
                assert outcomes(jsm, [{"event": "error", **report}]) == ["OK"]
            elif how == "call":
                with jsm.refused("JOB_INSTANCE_ENDED"):
                    jsm.call("log_error", **report)
            else:
                assert outcomes(jsm, [{"event": "error", **report}]) == ["JOB_INSTANCE_ENDED"]


@both
@pytest.mark.parametrize("at", "BR")
def test_what_was_submitted_has_an_executor_id(jsm: Sql, admin: Sql, how: str, at: str) -> None:
    """W of an instance that the scheduler has is refused, and leaves no message on the live instance."""
    _, instance = make_instance(jsm, at)
    with admin.unchanged():
        if how == "call":
            with jsm.refused("ILLEGAL_TRANSITION"):
                jsm.call("log_error", **error(instance, "W"))
        else:
            assert outcomes(jsm, [{"event": "error", **error(instance, "W")}]) == ["ILLEGAL_TRANSITION"]


def test_one_wrong_event_spoils_no_other(jsm: Sql, admin: Sql) -> None:
    (running,), (waiting,) = ([make_instance(jsm, at)[1]] for at in "RI")
    events = [{"event": "error", **error(one, "W")} for one in (running, waiting)]
    assert outcomes(jsm, events) == ["ILLEGAL_TRANSITION", "OK"]
    assert (admin.instance(running)["status"], admin.instance(running)["error_message"]) == ("R", None)
    assert admin.instance(waiting)["status"] == "W"


@both
@pytest.mark.parametrize(
    ("status", "exceeded"),
    [
        ("D", None),
        ("z", None),
        ("", None),
        ("ZZ", None),
        ("Z", "slots"),
        ("Z", "MEM_FREE"),
        ("Z", ""),
        ("E", "mem_free"),
        (None, "mem_free"),
        ("U", "max_runtime"),
    ],
)
def test_no_such_error(jsm: Sql, admin: Sql, how: str, status: str | None, exceeded: str | None) -> None:
    _, instance = make_instance(jsm, "R")
    with admin.unchanged():
        if how == "call":
            with jsm.refused("INVALID_PARAMETER"):
                jsm.call("log_error", **error(instance, status, exceeded))
        else:
            assert outcomes(jsm, [{"event": "error", **error(instance, status, exceeded)}]) == [
                "INVALID_PARAMETER"
            ]


@pytest.mark.parametrize("key", ["job_instance_status", "exceeded"])
def test_other_events_carry_no_kind_of_error(jsm: Sql, admin: Sql, key: str) -> None:
    _, instance = make_instance(jsm, "R")
    with admin.unchanged():
        assert outcomes(jsm, [{"event": "done", "job_instance_id": instance, key: "Z"}]) == [
            "INVALID_PARAMETER"
        ]


def test_only_a_resource_error_says_what_was_exceeded(jsm: Sql, admin: Sql) -> None:
    """By raw SQL, too; and what was said is not changed afterwards."""
    _, instance = make_instance(jsm, "R")
    update = "UPDATE job_instance SET status=%s, exceeded=%s WHERE job_instance_id=%s"
    for status, exceeded in (("E", "mem_free"), ("D", "mem_free"), ("Z", "slots")):
        with admin.unchanged(), admin.refused("INVALID_PARAMETER"):
            admin.raw(update, status, exceeded, instance)
    with admin.unchanged():
        admin.raw(update, "R", "mem_free", instance)
    admin.raw(update, "Z", "max_runtime", instance)
    with admin.unchanged():
        admin.raw(update, "Z", "mem_free", instance)
    assert admin.instance(instance)["exceeded"] == "max_runtime"


# Resources that grow -----------------------------------------------------------------------------------


def resources(admin: Sql, job_id: int) -> tuple[Any, Any]:
    row = admin.job(job_id)
    return row["mem_free"], row["max_runtime"]


@both
@pytest.mark.parametrize(
    ("exceeded", "expected"), [("mem_free", (5, 100)), ("max_runtime", (3, 125)), (None, (3, 100))]
)
def test_the_next_attempt_gets_more_of_what_was_exceeded(
    jsm: Sql, admin: Sql, how: str, exceeded: str | None, expected: tuple[int, int]
) -> None:
    given = {"mem_free": 3, "max_runtime": 100, "mem_free_scale": 0.5, "max_runtime_scale": 0.25}
    dag_id = make_dag(jsm)
    job_id, instance = make_instance(jsm, "R", dag_id=dag_id, **given)
    other = make_job(jsm, "Q", dag_id=dag_id, **given)
    fail(jsm, how, instance, "Z", exceeded)
    assert resources(admin, job_id) == expected
    assert resources(admin, other) == (3, 100)
    # the report again, and who is late with another one
    fail(jsm, how, instance, "Z", exceeded)
    fail(jsm, how, instance, "Z", "mem_free")
    assert resources(admin, job_id) == expected
    (claimed,) = [
        one
        for one in jsm.call("claim_jobs", executor_type="X", dag_id=dag_id)["job_instances"]
        if one["job_id"] == job_id
    ]
    assert (claimed["mem_free"], claimed["max_runtime"]) == expected


@pytest.mark.parametrize(
    ("given", "exceeded", "expected"),
    [
        ({}, "mem_free", (2, None)),
        ({"mem_free_scale": 0}, "mem_free", (2, None)),
        ({"max_runtime_scale": 1}, "mem_free", (2, None)),
        # there is no limit that could grow; and 0 GB is what the scheduler makes of it
        ({"max_runtime_scale": 1}, "max_runtime", (2, None)),
        ({"mem_free": 0, "mem_free_scale": 1}, "mem_free", (0, None)),
        ({"mem_free_scale": "0.001"}, "mem_free", (3, None)),
        ({"mem_free": 10, "mem_free_scale": "0.1"}, "mem_free", (11, None)),
        ({"mem_free": MAX - 1, "mem_free_scale": "0.001"}, "mem_free", (MAX, None)),
        ({"max_runtime": MAX, "max_runtime_scale": "999.999"}, "max_runtime", (2, MAX)),
    ],
)
def test_how_far_it_grows(
    jsm: Sql, admin: Sql, given: dict[str, Any], exceeded: str, expected: tuple[Any, Any]
) -> None:
    job_id, instance = make_instance(jsm, "R", **given)
    fail(jsm, "call", instance, "Z", exceeded)
    assert resources(admin, job_id) == expected


def test_it_grows_at_each_attempt_and_when_a_person_retries(jsm: Sql, admin: Sql) -> None:
    job_id, instance = make_instance(jsm, "R", mem_free=8, mem_free_scale=0.5, max_attempts=2)
    fail(jsm, "call", instance, "Z", "mem_free")
    assert resources(admin, job_id) == (12, None)
    fail(jsm, "call", make_attempt(jsm, job_id, "R"), "Z", "mem_free")
    # nobody tries it again
    assert (admin.job(job_id)["status"], admin.job(job_id)["mem_free"]) == ("F", 12)
    jsm.call("retry_job", job_id=job_id)
    jsm.call("retry_job", job_id=job_id)
    assert resources(admin, job_id) == (18, None)


def test_another_error_and_a_reset_leave_the_resources(jsm: Sql, admin: Sql) -> None:
    given = {"mem_free": 8, "mem_free_scale": 1, "max_runtime": 60, "max_runtime_scale": 1}
    job_id, instance = make_instance(jsm, "R", max_attempts=9, **given)
    fail(jsm, "call", instance, "Z", "mem_free")
    for status in "EWU":
        at = "I" if status == "W" else "R"
        fail(jsm, "call", make_attempt(jsm, job_id, at), status)
    assert resources(admin, job_id) == (16, 60)
    fail(jsm, "call", make_attempt(jsm, job_id, "R"), "Z", "mem_free")
    # what the job was found to need stays; the attempt before the reset counts no second time
    jsm.call("reset_job", job_id=job_id)
    jsm.call("queue_job", job_id=job_id)
    assert resources(admin, job_id) == (32, 60)


@pytest.mark.parametrize("scale", [-0.001, -1])
def test_nothing_shrinks(jsm: Sql, admin: Sql, scale: float) -> None:
    dag_id = make_dag(jsm)
    given = {"name": "a", "job_hash": "1", "command": "true"}
    for key in ("mem_free_scale", "max_runtime_scale"):
        with admin.unchanged():
            with jsm.refused("INVALID_PARAMETER"):
                jsm.call("add_job", dag_id=dag_id, **given, **{key: scale})
            with jsm.refused("INVALID_PARAMETER"):
                jsm.call("add_jobs", dag_id=dag_id, jobs=[{**given, key: scale}])
    job_id = make_job(jsm)
    with admin.unchanged(), admin.refused("INVALID_PARAMETER"):
        admin.raw("UPDATE job SET mem_free_scale=%s WHERE job_id=%s", scale, job_id)


@pytest.mark.parametrize(
    ("scale", "stored"),
    [(0.5, "0.500"), ("0.25", "0.250"), (2, "2.000"), (1e-1, "0.100"), (0.1 + 0.2, "0.300"), (None, None)],
)
def test_add_jobs_keeps_the_scales(jsm: Sql, admin: Sql, scale: Any, stored: str | None) -> None:
    given = {"mem_free_scale": scale, "max_runtime_scale": scale}
    _, (job_id,) = make_jobs(jsm, 1, **given)
    single = make_job(jsm, **given)
    for one in (job_id, single):
        row = admin.job(one)
        expected = None if stored is None else Decimal(stored)
        assert (row["mem_free_scale"], row["max_runtime_scale"]) == (expected, expected)


@pytest.mark.parametrize(
    ("scale", "name"),
    [
        ("much", "INVALID_VALUE"),
        ("", "INVALID_VALUE"),
        ("1x", "INVALID_VALUE"),
        (True, "INVALID_VALUE"),
        (1000, "VALUE_OUT_OF_RANGE"),
        ([0.5], "INVALID_PARAMETER"),
        ({"a": 1}, "INVALID_PARAMETER"),
    ],
)
def test_add_jobs_refuses_what_is_no_scale(jsm: Sql, admin: Sql, scale: Any, name: str) -> None:
    dag_id = make_dag(jsm)
    job = {"name": "a", "job_hash": "1", "command": "true", "mem_free_scale": scale}
    with admin.unchanged(), jsm.refused(name):
        jsm.call("add_jobs", dag_id=dag_id, jobs=[job])


# Warnings ----------------------------------------------------------------------------------------------


def warn(jsm: Sql, how: str, instance: int, text: str = "careful") -> None:
    if how == "call":
        assert jsm.call("log_warning", job_instance_id=instance, error_message=text) == {"message": None}
    else:
        event = {"event": "warning", "job_instance_id": instance, "error_message": text}
        assert outcomes(jsm, [event]) == ["OK"]


@both
@pytest.mark.parametrize("at", "IBR")
def test_a_warning_changes_nothing_else(jsm: Sql, admin: Sql, how: str, at: str) -> None:
    _, instance = make_instance(jsm, at)
    before = admin.snapshot()
    warn(jsm, how, instance)
    after = admin.snapshot()
    (row,) = [one for one in after["job_instance_error_log"] if one not in before["job_instance_error_log"]]
    assert (row["severity"], row["description"], row["job_instance_id"]) == ("warning", "careful", instance)
    del before["job_instance_error_log"], after["job_instance_error_log"]
    assert after == before


@both
def test_the_same_warning_again_is_one(jsm: Sql, admin: Sql, how: str) -> None:
    _, instance = make_instance(jsm, "I")
    _, other = make_instance(jsm, "I")
    for text in ("a", "a", "b", "b", "a"):
        warn(jsm, how, instance, text)
        warn(jsm, how, other, "a")
    assert log(admin, instance) == [("warning", text) for text in "aba"]
    assert log(admin, other) == [("warning", "a")]
    event = {"event": "warning", "job_instance_id": instance, "error_message": "c"}
    assert outcomes(jsm, [event, event, {**event, "job_instance_id": other}, event]) == ["OK"] * 4
    assert (log(admin, instance)[-1], len(log(admin, instance))) == (("warning", "c"), 4)
    assert len(log(admin, other)) == 2
    fail(jsm, how, instance, "E")
    assert log(admin, instance)[-1] == ("error", "boom")


@both
@pytest.mark.parametrize("status", "D" + ERRORS)
def test_nobody_warns_of_what_has_ended(jsm: Sql, admin: Sql, how: str, status: str) -> None:
    job_id, instance = make_instance(jsm, status)
    for error_name in ("JOB_INSTANCE_ENDED", "JOB_INSTANCE_SUPERSEDED"):
        for procedure, event, more in (
            ("log_warning", "warning", {"error_message": "late"}),
            ("log_executor_name", "executor_name", {"executor_name": "late"}),
        ):
            with admin.unchanged():
                if how == "call":
                    with jsm.refused(error_name):
                        jsm.call(procedure, job_instance_id=instance, **more)
                else:
                    events = [{"event": event, "job_instance_id": instance, **more}]
                    assert outcomes(jsm, events) == [error_name]
        if error_name == "JOB_INSTANCE_ENDED":
            jsm.call("reset_job", job_id=job_id)


@both
def test_a_long_warning_is_cut_and_still_one(jsm: Sql, admin: Sql, how: str) -> None:
    _, instance = make_instance(jsm, "I")
    for _ in range(2):
        warn(jsm, how, instance, "x" * 100_000)
    ((severity, text),) = log(admin, instance)
    assert severity == "warning" and len(text) == 65535 and "this text had 100000 characters" in text


def test_a_warning_needs_words_and_takes_usage(jsm: Sql, admin: Sql) -> None:
    _, instance = make_instance(jsm, "R")
    event = {"event": "warning", "job_instance_id": instance}
    assert outcomes(jsm, [event]) == ["MISSING_PARAMETER"]
    assert outcomes(jsm, [{**event, "error_message": "told to end", "maxvmem": "3G"}]) == ["OK"]
    assert admin.instance(instance)["maxvmem"] == "3G"


def test_people_see_warnings(jsm: Sql, jqs: Sql) -> None:
    job_id, instance = make_instance(jsm, "I")
    explain = "SELECT explanation FROM job_explanations WHERE job_id=%s"
    assert "warning" not in jqs.one(explain, job_id)
    warn(jsm, "call", instance, "old")
    warn(jsm, "call", instance, "no such partition")
    assert jqs.one(explain, job_id).endswith(
        "has not reported running yet; the newest warning: no such partition"
    )
    jsm.call("log_running", job_instance_id=instance)
    assert jqs.one(explain, job_id).endswith("; the newest warning: no such partition")
    fail(jsm, "call", instance, "E")
    second = make_attempt(jsm, job_id, "I")
    # that was the attempt before
    assert "warning" not in jqs.one(explain, job_id)
    found = jqs.raw(
        "SELECT severity, description FROM job_errors WHERE job_id=%s ORDER BY job_instance_error_log_id",
        job_id,
    )
    assert found == [("warning", "old"), ("warning", "no such partition"), ("error", "boom")]
    assert second > instance


# Names -------------------------------------------------------------------------------------------------


@both
@pytest.mark.parametrize("at", "IBR")
def test_a_name_is_kept_and_no_status_changes(jsm: Sql, admin: Sql, how: str, at: str) -> None:
    _, instance = make_instance(jsm, at)
    before = admin.instance(instance)
    given = {"job_instance_id": instance, "executor_name": "jobmon-1f2e3d4c-17.1"}
    if how == "call":
        assert jsm.call("log_executor_name", **given) == {}
    else:
        assert outcomes(jsm, [{"event": "executor_name", **given}]) == ["OK"]
    assert admin.instance(instance) == {**before, "executor_name": "jobmon-1f2e3d4c-17.1"}


def test_a_name_comes_with_any_event(jsm: Sql, admin: Sql) -> None:
    _, instance = make_instance(jsm, "I")
    events = ["executor_id", "heartbeat", "running", "usage", "nodename", "warning", "error"]
    more = {"executor_id": "7", "nodename": "n", "error_message": "x"}
    for event in events:
        name = f"of {event}"
        sent = {"event": event, "job_instance_id": instance, "executor_name": name, **more}
        assert outcomes(jsm, [sent]) == ["OK"]
        assert admin.instance(instance)["executor_name"] == name
    _, instance = make_instance(jsm, "I")
    for wrong, code in ((None, "MISSING_PARAMETER"), ("x" * 129, "INVALID_PARAMETER")):
        sent = {"event": "executor_name", "job_instance_id": instance, "executor_name": wrong}
        with admin.unchanged():
            assert outcomes(jsm, [sent]) == [code]


def test_the_database_has_an_id_of_its_own(jsm: Sql, throwaway: Any, facts: Any) -> None:
    ids = [jsm.call("get_database_id"), jsm.call("get_database_id")]
    ids.append(Sql(throwaway.connect("jsm"), facts).call("get_database_id"))
    first, again, other = (found["database_id"] for found in ids)
    assert first == again != other
    assert re.fullmatch("[0-9a-f]{8}", first) and re.fullmatch("[0-9a-f]{8}", other)


# The live instances of an executor ---------------------------------------------------------------------


def live(jqs: Sql, executor_type: str) -> list[dict[str, Any]]:
    rows = jqs.raw(
        "SELECT document FROM get_live_job_instances WHERE executor_type=%s ORDER BY job_instance_id",
        executor_type,
    )
    return [json.loads(document) for (document,) in rows]


def test_live_instances(emptied: None, jsm: Sql, jqs: Sql, admin: Sql) -> None:
    dag_id, _ = make_jobs(jsm, 8)
    jsm.call("queue_jobs", dag_id=dag_id)
    waiting, submitted, running, done, failed, late, killed = claim(
        jsm, dag_id, max_jobs=7, lease_seconds=300
    )
    jsm.call("claim_jobs", executor_type="SlurmExecutor", dag_id=dag_id, max_jobs=1)
    events = [
        {"event": "executor_name", "job_instance_id": waiting, "executor_name": "jobmon-0-1.0"},
        {"event": "executor_id", "job_instance_id": submitted, "executor_id": "77"},
        *({"event": "running", "job_instance_id": one} for one in (running, done)),
        {"event": "done", "job_instance_id": done},
        {"event": "error", **error(failed, "Z")},
    ]
    assert set(outcomes(jsm, events)) == {"OK"}
    admin.raw(
        "UPDATE job_instance SET report_by_date = UTC_TIMESTAMP(6) - INTERVAL 7200 SECOND"
        " WHERE job_instance_id=%s",
        late,
    )
    jsm.call("kill_job", job_id=admin.instance(killed)["job_id"])
    found = live(jqs, "LocalExecutor")
    assert [one["job_instance_id"] for one in found] == [waiting, submitted, running, late]
    assert [one["status"] for one in found] == list("IBRI")
    assert found[0] == {
        "dag_id": dag_id,
        "executor_id": None,
        "executor_name": "jobmon-0-1.0",
        "job_id": admin.instance(waiting)["job_id"],
        "job_instance_id": waiting,
        "lease_left_seconds": found[0]["lease_left_seconds"],
        "status": "I",
    }
    assert found[1]["executor_id"] == "77"
    for one in found[:3]:
        assert isinstance(one["lease_left_seconds"], float | int)
        assert -3600 < one["lease_left_seconds"] <= 300
    assert found[3]["lease_left_seconds"] <= -7200
    assert len(live(jqs, "SlurmExecutor")) == 1
    # a lease of NULL: nobody watches it, and no batch executor made it
    _, unleased = make_instance(jsm, "R")
    assert unleased not in [one["job_instance_id"] for one in live(jqs, "LocalExecutor")]
