"""The four state machines: each pair that is a row is reached, each other is refused and changes nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sql_helpers import (
    ERRORS,
    JOB_INSTANCE_STATUSES,
    JOB_STATUSES,
    LEASES,
    WORKFLOW_RUN_STATUSES,
    WORKFLOW_STATUSES,
    Facts,
    Sql,
    make_attempt,
    make_instance,
    make_job,
    make_run,
    make_workflow,
    outcomes,
    without_triggers,
)

MACHINES = {
    "job": JOB_STATUSES,
    "job_instance": JOB_INSTANCE_STATUSES,
    "workflow": WORKFLOW_STATUSES,
    "workflow_run": WORKFLOW_RUN_STATUSES,
}
# What is no state must be no way out either.
NOWHERE = "X"
ENDED = "D" + ERRORS


def pairs(letters: str) -> list[tuple[str, str]]:
    return [(at, to) for at in letters for to in letters + NOWHERE]


def transitions(admin: Sql, machine: str) -> set[tuple[str, str]]:
    return {(at, to) for at, to in admin.raw(f"SELECT from_status, to_status FROM {machine}_transition")}


@pytest.mark.parametrize("machine", MACHINES)
def test_the_letters_are_those_of_the_lookup_tables(admin: Sql, machine: str) -> None:
    rows = admin.raw(f"SELECT status, label FROM {machine}_status")
    assert {status for status, _ in rows} == set(MACHINES[machine])
    assert len({label for _, label in rows}) == len(rows)
    assert all(reason for (reason,) in admin.raw(f"SELECT reason FROM {machine}_transition"))
    assert all(at != to for at, to in transitions(admin, machine)), "repeating a state is never a transition"


# Job ----------------------------------------------------------------------------------------------

# How a job gets from one state to another, by the calls that are meant for it.
JOB_WAYS: dict[tuple[str, str], Callable[[Sql, Sql], int]] = {}


def _way(at: str, to: str) -> Callable[[Callable[[Sql, Sql], int]], Callable[[Sql, Sql], int]]:
    def keep(function: Callable[[Sql, Sql], int]) -> Callable[[Sql, Sql], int]:
        JOB_WAYS[at, to] = function
        return function

    return keep


@_way("G", "Q")
def _queue(jsm: Sql, admin: Sql) -> int:
    return make_job(jsm, "Q")


@_way("Q", "I")
def _instantiate(jsm: Sql, admin: Sql) -> int:
    return make_job(jsm, "I")


@_way("I", "R")
def _run(jsm: Sql, admin: Sql) -> int:
    return make_job(jsm, "R")


@_way("R", "D")
def _finish(jsm: Sql, admin: Sql) -> int:
    return make_job(jsm, "D")


@_way("I", "E")
def _fail_before_running(jsm: Sql, admin: Sql) -> int:
    job_id, instance = make_instance(jsm, "I")
    jsm.call("log_error", job_instance_id=instance, error_message="x")
    return job_id


@_way("R", "E")
@_way("E", "Q")
def _fail(jsm: Sql, admin: Sql) -> int:
    return make_instance(jsm, "E")[0]


@_way("E", "F")
def _fail_for_good(jsm: Sql, admin: Sql) -> int:
    return make_job(jsm, "F")


@_way("F", "Q")
def _retry(jsm: Sql, admin: Sql) -> int:
    job_id = make_job(jsm, "F")
    jsm.call("retry_job", job_id=job_id)
    return job_id


def _reset_from(status: str) -> Callable[[Sql, Sql], int]:
    def reset(jsm: Sql, admin: Sql) -> int:
        job_id = make_job(jsm, status)
        jsm.call("reset_job", job_id=job_id)
        return job_id

    return reset


for _status in "QIRFD":
    JOB_WAYS[_status, "G"] = _reset_from(_status)


def test_every_job_transition_has_a_way(admin: Sql) -> None:
    assert set(JOB_WAYS) == transitions(admin, "job")


@pytest.mark.parametrize(("at", "to"), sorted(JOB_WAYS))
def test_job_reaches(jsm: Sql, admin: Sql, at: str, to: str) -> None:
    job_id = JOB_WAYS[at, to](jsm, admin)
    rows = admin.raw(
        "SELECT status_date, attempt_number FROM job_status_log"
        " WHERE job_id=%s AND from_status=%s AND status=%s",
        job_id,
        at,
        to,
    )
    assert len(rows) == 1
    assert rows[0][0] is not None
    job = admin.job(job_id)
    last = admin.raw(
        "SELECT status, status_date, attempt_number, dag_id FROM job_status_log WHERE job_id=%s"
        " ORDER BY job_status_log_id DESC LIMIT 1",
        job_id,
    )[0]
    attempts = job["attempts_before_reset"] + job["num_attempts"]
    assert last == (job["status"], job["status_date"], attempts, job["dag_id"])


# What raw SQL on the job itself answers; the other pairs that are rows are accepted.
FOLLOWS = {("Q", "I"), ("I", "R"), ("I", "E"), ("R", "E"), ("R", "D")}


@pytest.mark.parametrize(("at", "to"), [pair for pair in pairs(JOB_STATUSES) if pair[0] != "E"])
def test_job_by_raw_sql(jsm: Sql, admin: Sql, at: str, to: str) -> None:
    job_id = make_job(jsm, at)
    update = "UPDATE job SET status=%s WHERE job_id=%s"
    if at == to:
        with admin.unchanged():
            admin.raw(update, to, job_id)
    elif (at, to) in FOLLOWS:
        with admin.unchanged(), admin.refused("JOB_FOLLOWS_ITS_INSTANCE"):
            admin.raw(update, to, job_id)
    elif (at, to) == ("F", "Q"):
        with admin.unchanged(), admin.refused("ATTEMPTS_EXHAUSTED"):
            admin.raw(update, to, job_id)
    elif (at, to) in transitions(admin, "job"):
        before = admin.job(job_id)
        admin.raw(update, to, job_id)
        job = admin.job(job_id)
        assert job["status"] == to
        assert job["status_date"] > before["status_date"]
        assert admin.history(job_id)[-2:] == at + to
        if to == "G":
            assert (job["num_attempts"], job["attempts_before_reset"]) == (0, before["num_attempts"])
    else:
        with admin.unchanged(), admin.refused("ILLEGAL_TRANSITION"):
            admin.raw(update, to, job_id)


@pytest.mark.parametrize(("at", "to"), [(at, to) for at in "GQIRFD" for to in "QG" if at != to])
def test_job_by_call(jsm: Sql, admin: Sql, at: str, to: str) -> None:
    """queue_job, retry_job and reset_job from every state."""
    job_id = make_job(jsm, at)
    if to == "G":
        assert jsm.call("reset_job", job_id=job_id) == {}
        assert admin.history(job_id)[-1] == "G"
        return
    if at == "G":
        assert jsm.call("queue_job", job_id=job_id) == {}
        return
    with admin.unchanged():
        with jsm.refused("ATTEMPTS_EXHAUSTED" if at == "F" else "ILLEGAL_TRANSITION"):
            jsm.call("queue_job", job_id=job_id)
        if at == "D":
            with jsm.refused("ILLEGAL_TRANSITION"):
                jsm.call("retry_job", job_id=job_id)
        elif at in "IR":
            assert jsm.call("retry_job", job_id=job_id)["job_dct"]["status"] == at


def test_job_out_of_the_state_it_never_rests_in(throwaway: Any, facts: Facts) -> None:
    jsm, admin = Sql(throwaway.connect("jsm"), facts), Sql(throwaway.connect("admin"), facts)
    with_attempts, without = make_job(jsm, "R"), make_job(jsm, "R", max_attempts=1)
    with without_triggers(admin, "job_before_update", "job_after_update"):
        admin.raw("UPDATE job SET status='E'")
    update = "UPDATE job SET status=%s WHERE job_id=%s"
    with admin.unchanged():
        for to in "GIRDX":
            with admin.refused("ILLEGAL_TRANSITION"):
                admin.raw(update, to, with_attempts)
        admin.raw(update, "E", with_attempts)
        with admin.refused("ATTEMPTS_LEFT"):
            admin.raw(update, "F", with_attempts)
        with admin.refused("ATTEMPTS_EXHAUSTED"):
            admin.raw(update, "Q", without)
    admin.raw(update, "Q", with_attempts)
    admin.raw(update, "F", without)
    assert (admin.job(with_attempts)["status"], admin.job(without)["status"]) == ("Q", "F")


# Job instance -------------------------------------------------------------------------------------

JOB_OF = {"I": "I", "B": "I", "R": "R", "D": "D", **dict.fromkeys(ERRORS, "Q")}


@pytest.mark.parametrize(("at", "to"), pairs(JOB_INSTANCE_STATUSES))
def test_job_instance_by_raw_sql(jsm: Sql, admin: Sql, at: str, to: str) -> None:
    job_id, instance = make_instance(jsm, at)
    update = "UPDATE job_instance SET status=%s WHERE job_instance_id=%s"
    if at == to:
        with admin.unchanged():
            admin.raw(update, to, instance)
    elif (at, to) in transitions(admin, "job_instance"):
        before = admin.instance(instance)
        admin.raw(update, to, instance)
        after = admin.instance(instance)
        assert (after["status"], admin.job(job_id)["status"]) == (to, JOB_OF[to])
        assert after["status_date"] > before["status_date"]
        assert admin.instance_history(instance)[-2:] == at + to
    else:
        error = "JOB_INSTANCE_ENDED" if at in ENDED and to != NOWHERE else "ILLEGAL_TRANSITION"
        for verb in ("UPDATE", "UPDATE IGNORE"):
            with admin.unchanged(), admin.refused(error):
                admin.raw(update.replace("UPDATE", verb), to, instance)


REPORTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "R": ("running", "log_running", {"nodename": "other", "process_group_id": 99}),
    "D": ("done", "log_done", {"nodename": "other"}),
    "E": ("error", "log_error", {"error_message": "again"}),
    "B": ("executor_id", "log_executor_id", {"executor_id": "78"}),
    **{
        letter: ("error", "log_error", {"error_message": "again", "job_instance_status": letter})
        for letter in "WZU"
    },
}


@pytest.mark.parametrize("how", ["call", "event"])
@pytest.mark.parametrize(("at", "to"), [(at, to) for at in JOB_INSTANCE_STATUSES for to in REPORTS])
def test_job_instance_by_report(jsm: Sql, admin: Sql, at: str, to: str, how: str) -> None:
    job_id, instance = make_instance(jsm, at)
    event, procedure, more = REPORTS[to]

    def report() -> None:
        if how == "call":
            jsm.call(procedure, job_instance_id=instance, **more)
        else:
            assert outcomes(jsm, [{"event": event, "job_instance_id": instance, **more}]) == ["OK"]

    if at == to:
        before = admin.snapshot()
        report()
        row = admin.instance(instance)
        kept = {"nodename", "process_group_id", "executor_id", *LEASES}
        assert {k: v for k, v in row.items() if k not in kept}.items() <= before["job_instance"][-1].items()
        assert admin.instance_history(instance)[-1] == at
        assert admin.snapshot()["job_status_log"] == before["job_status_log"]
        assert admin.snapshot()["job_instance_status_log"] == before["job_instance_status_log"]
        assert admin.snapshot()["job_instance_error_log"] == before["job_instance_error_log"]
    elif (at, to) in transitions(admin, "job_instance"):
        report()
        assert (admin.instance(instance)["status"], admin.job(job_id)["status"]) == (to, JOB_OF[to])
    elif to == "B":
        # the id may come late: it is kept, and no state moves back
        report()
        assert (admin.instance(instance)["status"], admin.instance(instance)["executor_id"]) == (at, "78")
        assert admin.instance_history(instance)[-1] == at
    else:
        error = "JOB_INSTANCE_ENDED" if at in ENDED else "ILLEGAL_TRANSITION"
        with admin.unchanged():
            if how == "call":
                with jsm.refused(error):
                    jsm.call(procedure, job_instance_id=instance, **more)
            else:
                events = [{"event": event, "job_instance_id": instance, **more}]
                (outcome,) = jsm.call("log_events", events=events)["outcomes"]
                assert outcome["code"] == error
                assert outcome["message"].startswith(f"{error}: ")


@pytest.mark.parametrize("to", "BREWZU")
def test_job_instance_as_jsm_without_where(emptied: None, jsm: Sql, admin: Sql, to: str) -> None:
    _, instance = make_instance(jsm, "I")
    jsm.raw("UPDATE job_instance SET status=%s", to)
    assert admin.instance_history(instance) == "I" + to
    with admin.unchanged(), pytest.raises(Exception, match=r"ILLEGAL_TRANSITION|JOB_INSTANCE_ENDED"):
        jsm.raw("UPDATE job_instance SET status='I'")


# Workflow and workflow run ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "to", "how"),
    [(at, to, how) for at, to in pairs(WORKFLOW_STATUSES) for how in ("raw", "call")]
    + [("D", to, "jsm") for to in WORKFLOW_STATUSES + NOWHERE],
)
def test_workflow(jsm: Sql, admin: Sql, at: str, to: str, how: str) -> None:
    if how == "jsm":
        admin.raw("DELETE FROM workflow_run")
        admin.raw("DELETE FROM workflow")
    workflow = make_workflow(jsm, at)

    def update() -> Any:
        if how == "raw":
            return admin.raw("UPDATE workflow SET status=%s WHERE workflow_id=%s", to, workflow)
        if how == "jsm":
            return jsm.raw("UPDATE workflow SET status=%s", to)
        return jsm.call("update_workflow", wf_id=workflow, status=to)

    role = admin if how == "raw" else jsm
    if at == to:
        with admin.unchanged():
            answer = update()
            assert how != "call" or answer["workflow_dct"]["status"] == to
    elif (at, to) in transitions(admin, "workflow"):
        before = admin.row("workflow", workflow)
        update()
        after = admin.row("workflow", workflow)
        assert after["status"] == to
        assert after["status_date"] > before["status_date"]
        unmoved = {k: v for k, v in after.items() if k not in ("status", "status_date")}
        assert unmoved.items() <= before.items()
    else:
        error = "UNKNOWN_STATUS" if how == "call" and to == NOWHERE else "ILLEGAL_TRANSITION"
        with admin.unchanged(), role.refused(error):
            update()


@pytest.mark.parametrize("how", ["raw", "call"])
@pytest.mark.parametrize(("at", "to"), pairs(WORKFLOW_RUN_STATUSES))
def test_workflow_run(jsm: Sql, admin: Sql, at: str, to: str, how: str) -> None:
    run = make_run(jsm, at)

    def update() -> Any:
        if how == "raw":
            return admin.raw("UPDATE workflow_run SET status=%s WHERE workflow_run_id=%s", to, run)
        return jsm.call("update_workflow_run", wfr_id=run, status=to)

    role = admin if how == "raw" else jsm
    ended = not any(pair[0] == at for pair in transitions(admin, "workflow_run"))
    if at == to:
        with admin.unchanged():
            assert update() in ([], {"status": to})
    elif (at, to) in transitions(admin, "workflow_run"):
        before = admin.row("workflow_run", run)
        update()
        after = admin.row("workflow_run", run)
        assert after["status"] == to
        assert after["status_date"] > before["status_date"]
    else:
        error = "WORKFLOW_RUN_ENDED" if ended and to != NOWHERE else "ILLEGAL_TRANSITION"
        if how == "call" and to == NOWHERE:
            error = "UNKNOWN_STATUS"
        with admin.unchanged(), role.refused(error):
            update()


def test_a_run_takes_its_workflow_to_running(jsm: Sql, admin: Sql) -> None:
    for at in "CRSE":
        workflow = make_workflow(jsm, at)
        make_run(jsm, workflow_id=workflow)
        assert admin.row("workflow", workflow)["status"] == "R"
    workflow = make_workflow(jsm, "D")
    with admin.unchanged(), jsm.refused("ILLEGAL_TRANSITION"):
        make_run(jsm, workflow_id=workflow)


def test_a_superseded_run_is_told(jsm: Sql, admin: Sql) -> None:
    workflow = make_workflow(jsm)
    old = make_run(jsm, workflow_id=workflow)
    make_run(jsm, workflow_id=workflow)
    assert admin.row("workflow_run", old)["status"] == "S"
    with admin.unchanged(), jsm.refused("WORKFLOW_RUN_ENDED"):
        jsm.call("update_workflow_run", workflow_run_id=old, status="D")


def test_runs_that_had_ended_stay_as_they_were(jsm: Sql, admin: Sql) -> None:
    workflow = make_workflow(jsm)
    for status in "DES":
        run = make_run(jsm, workflow_id=workflow)
        jsm.call("update_workflow_run", wfr_id=run, status=status)
        before = admin.row("workflow_run", run)
        make_run(jsm, workflow_id=workflow)
        assert admin.row("workflow_run", run) == before


def test_repeats_write_no_history(jsm: Sql, admin: Sql) -> None:
    job_id, instance = make_instance(jsm, "R")
    with admin.unchanged():
        for _ in range(2):
            admin.raw("UPDATE job SET status='R' WHERE job_id=%s", job_id)
            admin.raw("UPDATE job_instance SET status='R' WHERE job_instance_id=%s", instance)
    jsm.call("log_error", job_instance_id=instance, error_message="x")
    make_attempt(jsm, job_id, "D")
    assert admin.history(job_id) == "GQIREQIRD"
