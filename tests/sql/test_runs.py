"""Runs that are handed to distributors: submitted, shared out, stopped, ended."""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from typing import Any

import pymysql
import pytest
from sql_helpers import (
    Sql,
    claim,
    make_attempt,
    make_dag,
    make_instance,
    make_job,
    make_jobs,
    make_run,
    make_submitted,
    make_workflow,
    outcomes,
    statuses,
)

HOUR_AGO = "UTC_TIMESTAMP(6) - INTERVAL 1 HOUR"


def make_stage(jsm: Sql, job_statuses: str, **more: Any) -> tuple[int, int, list[int]]:
    """A submitted run of a new workflow whose jobs then get these statuses: (run, workflow_id, job_ids)."""
    dag_id, jobs = make_jobs(jsm, len(job_statuses), **more)
    workflow_id = make_workflow(jsm, dag_id=dag_id)
    run = make_run(jsm, workflow_id=workflow_id)
    assert jsm.call("submit_workflow_run", workflow_run_id=run)["num_left"] == 0
    for job_id, status in zip(jobs, job_statuses, strict=True):
        if status in "IRD":
            make_attempt(jsm, job_id, status)
        elif status == "F":
            make_attempt(jsm, job_id, "I")
            jsm.call("kill_job", job_id=job_id)
        elif status == "G":
            jsm.call("reset_job", job_id=job_id)
    return run, workflow_id, jobs


def stand(admin: Sql, run: int) -> str:
    """The letters of a run and of its workflow."""
    row = admin.row("workflow_run", run)
    return str(row["status"] + admin.row("workflow", row["workflow_id"])["status"])


def claim_any(jsm: Sql, **more: Any) -> list[dict[str, Any]]:
    """What a distributor gets that asks for any dag."""
    return list(jsm.call("claim_jobs", executor_type="LocalExecutor", **more)["job_instances"])


def count(claimed: Iterable[dict[str, Any]], *dags: int | None) -> list[int]:
    """How many of the claimed ones are of each dag."""
    found = [one["dag_id"] for one in claimed]
    return [found.count(dag_id) for dag_id in dags]


# submit_workflow_run ---------------------------------------------------------------------------------


def test_submit(jsm: Sql, admin: Sql) -> None:
    dag_id, jobs = make_jobs(jsm, 6, [(0, 3), (1, 3), (3, 4)])
    other = make_job(jsm)
    run = make_run(jsm, workflow_id=make_workflow(jsm, dag_id=dag_id))
    admin.raw(f"UPDATE workflow_run SET heartbeat_date = {HOUR_AGO} WHERE workflow_run_id = %s", run)
    assert admin.row("workflow_run", run)["submitted_date"] is None
    assert jsm.call("submit_workflow_run", workflow_run_id=run, max_jobs=0) == {
        "num_queued": 0,
        "num_left": 4,
    }
    assert jsm.call("submit_workflow_run", workflow_run_id=run, max_jobs=3) == {
        "num_queued": 3,
        "num_left": 1,
    }
    assert statuses(admin, jobs) == "QQQGGG"
    # not before all of them are queued
    assert admin.row("workflow_run", run)["submitted_date"] is None
    assert jsm.call("submit_workflow_run", workflow_run_id=run, max_jobs=3) == {
        "num_queued": 1,
        "num_left": 0,
    }
    assert statuses(admin, [*jobs, other]) == "QQQGGQG"
    row = admin.row("workflow_run", run)
    assert row["submitted_date"] - row["created_date"] < datetime.timedelta(minutes=1)
    with admin.unchanged(ignoring=["heartbeat_date"]):
        assert jsm.call("submit_workflow_run", workflow_run_id=run) == {"num_queued": 0, "num_left": 0}
    # a job that comes later is queued by the next call
    jsm.call("add_job", dag_id=dag_id, name="late", job_hash="late", command="true")
    assert jsm.call("submit_workflow_run", workflow_run_id=run) == {"num_queued": 1, "num_left": 0}
    assert admin.row("workflow_run", run)["submitted_date"] == row["submitted_date"]


def test_a_submission_is_a_heartbeat(jsm: Sql, admin: Sql) -> None:
    run = make_run(jsm, workflow_id=make_workflow(jsm, dag_id=make_jobs(jsm, 2)[0]))
    before = admin.row("workflow_run", run)["heartbeat_date"]
    jsm.call("submit_workflow_run", workflow_run_id=run, max_jobs=1)
    assert admin.row("workflow_run", run)["heartbeat_date"] > before


def test_submitting_continues_what_was_done(jsm: Sql, admin: Sql) -> None:
    """A resumed run: what is DONE stays so, and what it has released is queued."""
    dag_id, jobs = make_jobs(jsm, 4, [(0, 1), (1, 2)], max_attempts=1)
    jsm.call("queue_jobs", dag_id=dag_id)
    make_attempt(jsm, jobs[0], "D")
    make_attempt(jsm, jobs[1], "E")
    assert statuses(admin, jobs) == "DFGQ"
    run = make_run(jsm, workflow_id=make_workflow(jsm, dag_id=dag_id))
    jsm.call("reset_incomplete_jobs", dag_id=dag_id)
    assert jsm.call("submit_workflow_run", workflow_run_id=run) == {"num_queued": 2, "num_left": 0}
    assert statuses(admin, jobs) == "DQGQ"


@pytest.mark.parametrize("status", "SED")
def test_an_ended_run_is_not_submitted(jsm: Sql, admin: Sql, status: str) -> None:
    workflow_id = make_workflow(jsm, dag_id=make_jobs(jsm, 2)[0])
    run = make_run(jsm, status, workflow_id=workflow_id)
    with admin.unchanged(), jsm.refused("WORKFLOW_RUN_ENDED", f"as {status}"):
        jsm.call("submit_workflow_run", workflow_run_id=run)


def test_a_superseded_run_is_told_by_everything_it_asks(jsm: Sql, admin: Sql) -> None:
    dag_id, _ = make_jobs(jsm, 2)
    workflow_id = make_workflow(jsm, dag_id=dag_id)
    old = make_run(jsm, workflow_id=workflow_id)
    jsm.call("submit_workflow_run", workflow_run_id=old)
    new = make_run(jsm, workflow_id=workflow_id)
    with admin.unchanged():
        with jsm.refused("WORKFLOW_RUN_ENDED"):
            jsm.call("submit_workflow_run", workflow_run_id=old)
        for max_jobs in (None, 0):
            with jsm.refused("WORKFLOW_RUN_ENDED"):
                claim_any(jsm, workflow_run_id=old, max_jobs=max_jobs)
        assert jsm.call("end_workflow_run", workflow_run_id=old)["status"] == "S"
    # the new one was not submitted yet: no service runs its jobs, its own distributor may
    assert count(claim_any(jsm), dag_id) == [0]
    assert {one["workflow_run_id"] for one in claim_any(jsm, workflow_run_id=new)} == {new}


# end_workflow_run ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("job_statuses", "ends_as"),
    [
        ("", "D"),
        ("D", "D"),
        ("DDD", "D"),
        ("F", "E"),
        ("DFD", "E"),
        ("Q", None),
        ("I", None),
        ("R", None),
        ("DQ", None),
        ("DFI", None),
        ("DFR", None),
        ("DG", None),  # a reset job that could be queued
        ("FG", None),
    ],
)
@pytest.mark.parametrize("procedure", ["end_workflow_run", "end_workflow_runs"])
def test_end(jsm: Sql, admin: Sql, job_statuses: str, ends_as: str | None, procedure: str) -> None:
    run, workflow_id, jobs = make_stage(jsm, job_statuses)
    assert statuses(admin, jobs) == job_statuses
    before = admin.snapshot()
    if procedure == "end_workflow_run":
        answer = jsm.call(procedure, workflow_run_id=run)
        assert answer == {
            "status": ends_as or "R",
            "workflow_status": ends_as or "R",
            "counts": {status: job_statuses.count(status) for status in sorted(set(job_statuses))},
        }
    else:
        ended = {"workflow_run_id": run, "workflow_id": workflow_id, "status": ends_as}
        assert (ended in jsm.call(procedure)["workflow_runs"]) is (ends_as is not None)
    assert stand(admin, run) == (ends_as or "R") * 2
    if ends_as is None:
        assert admin.snapshot() == before
        return
    for table in ("workflow_run", "workflow"):
        (changed,) = [row for row in admin.snapshot()[table] if row not in before[table]]
        assert changed["status_date"] > changed["created_date"]
    with admin.unchanged():
        assert jsm.call("end_workflow_run", workflow_run_id=run)["status"] == ends_as
        assert jsm.call("end_workflow_runs") == {"workflow_runs": []}


def test_jobs_behind_a_fatal_one_keep_no_run_alive(jsm: Sql, admin: Sql) -> None:
    dag_id, jobs = make_jobs(jsm, 4, [(0, 1), (1, 2), (2, 3)], max_attempts=1)
    run = make_submitted(jsm, dag_id)
    make_attempt(jsm, jobs[0], "D")
    assert jsm.call("end_workflow_run", workflow_run_id=run)["status"] == "R"
    make_attempt(jsm, jobs[1], "E")
    assert statuses(admin, jobs) == "DFGG"
    assert jsm.call("end_workflow_run", workflow_run_id=run) == {
        "status": "E",
        "workflow_status": "E",
        "counts": {"D": 1, "F": 1, "G": 2},
    }
    # it can be resumed, and then it ends well
    workflow_id = admin.row("workflow_run", run)["workflow_id"]
    again = make_run(jsm, workflow_id=workflow_id)
    jsm.call("reset_incomplete_jobs", dag_id=dag_id)
    jsm.call("submit_workflow_run", workflow_run_id=again)
    for job_id in jobs[1:]:
        make_attempt(jsm, job_id, "D")
    assert jsm.call("end_workflow_run", workflow_run_id=again)["status"] == "D"
    assert stand(admin, run) == "ED" and stand(admin, again) == "DD"


def test_what_was_not_submitted_is_not_ended(jsm: Sql, admin: Sql) -> None:
    """The emu flow: the client ends its run, the database does not."""
    dag_id, (job_id,) = make_jobs(jsm, 1)
    run = make_run(jsm, workflow_id=make_workflow(jsm, dag_id=dag_id))
    jsm.call("queue_jobs", dag_id=dag_id)
    # nor is its job handed to a distributor that asks for any
    assert count(claim_any(jsm), dag_id) == [0]
    make_attempt(jsm, job_id, "D")
    with admin.unchanged():
        answer = jsm.call("end_workflow_run", workflow_run_id=run)
        assert answer == {"status": "R", "workflow_status": "R", "counts": {"D": 1}}
        jsm.call("end_workflow_runs")
    assert jsm.call("update_workflow_run", wfr_id=run, status="D") == {"status": "D"}


def test_a_run_half_submitted_is_not_ended(jsm: Sql, admin: Sql) -> None:
    dag_id, _ = make_jobs(jsm, 2)
    run = make_run(jsm, workflow_id=make_workflow(jsm, dag_id=dag_id))
    jsm.call("submit_workflow_run", workflow_run_id=run, max_jobs=1)
    (instance,) = claim(jsm, dag_id)
    assert set(outcomes(jsm, [{"event": e, "job_instance_id": instance} for e in ("running", "done")])) == {
        "OK"
    }
    assert jsm.call("end_workflow_run", workflow_run_id=run)["status"] == "R"


def test_a_workflow_that_somebody_has_set_to_done(jsm: Sql, admin: Sql) -> None:
    """It is final; its run ends all the same, and keeps no other from ending."""
    bad, workflow_id, _ = make_stage(jsm, "DF")
    good, _, _ = make_stage(jsm, "D")
    jsm.call("update_workflow", wf_id=workflow_id, status="D")
    ended = {one["workflow_run_id"]: one["status"] for one in jsm.call("end_workflow_runs")["workflow_runs"]}
    assert ended == {bad: "E", good: "D"}
    assert stand(admin, bad) == "ED" and stand(admin, good) == "DD"


def test_all_that_ended_are_told_once(jsm: Sql, admin: Sql) -> None:
    done, live, failed = (make_stage(jsm, word)[0] for word in ("DD", "DQ", "DF"))
    ended = {one["workflow_run_id"]: one["status"] for one in jsm.call("end_workflow_runs")["workflow_runs"]}
    assert ended == {done: "D", failed: "E"}
    assert [stand(admin, run) for run in (done, live, failed)] == ["DD", "RR", "EE"]


def test_a_run_that_is_locked_holds_up_no_other(open_as: Any, jsm: Sql, admin: Sql) -> None:
    held, free = make_stage(jsm, "D")[0], make_stage(jsm, "D")[0]
    holder = open_as("admin", autocommit=False)
    holder.raw("SELECT 1 FROM workflow_run WHERE workflow_run_id = %s LOCK IN SHARE MODE", held)
    assert [one["workflow_run_id"] for one in jsm.call("end_workflow_runs")["workflow_runs"]] == [free]
    # who polls a run that goes on waits for nobody, whoever holds it
    going_on = make_stage(jsm, "DR")[0]
    holder.raw("SELECT 1 FROM workflow_run WHERE workflow_run_id = %s FOR UPDATE", going_on)
    jsm.raw("SET SESSION innodb_lock_wait_timeout = 10")
    assert jsm.call("end_workflow_run", workflow_run_id=going_on)["status"] == "R"
    holder.raw("ROLLBACK")
    assert [one["workflow_run_id"] for one in jsm.call("end_workflow_runs")["workflow_runs"]] == [held]


@pytest.mark.parametrize("change", ["reset", "retry"])
def test_an_old_picture_ends_nothing_as_done(open_as: Any, jsm: Sql, admin: Sql, change: str) -> None:
    """A caller's own transaction may show it jobs as they were; a DONE workflow would be final."""
    run, _, jobs = make_stage(jsm, "DF" if change == "retry" else "DD")
    caller = open_as("jsm")
    caller.raw("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    caller.raw("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    if change == "reset":
        jsm.call("reset_job", job_id=jobs[1])
    else:
        jsm.call("retry_job", job_id=jobs[1])
    # MariaDB's newer versions refuse such a read with an error of their own: then it has not ended either
    try:
        assert caller.call("end_workflow_run", workflow_run_id=run)["status"] == "R"
    except pymysql.err.MySQLError as error:
        assert error.args[0] == 1020, error
    caller.raw("COMMIT")
    assert stand(admin, run) == "RR"


# stop_workflow ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kill", [None, 0, 1])
def test_stop(jsm: Sql, admin: Sql, kill: int | None) -> None:
    run, workflow_id, jobs = make_stage(jsm, "DIRQ")
    dag_id = admin.job(jobs[0])["dag_id"]
    instances = {
        job_id: instance for instance, job_id in admin.raw("SELECT job_instance_id, job_id FROM job_instance")
    }
    answer = jsm.call("stop_workflow", workflow_id=workflow_id, kill=kill)
    assert answer == {"workflow_run_id": run, "num_killed": 2 if kill else 0}
    assert stand(admin, run) == "SS"
    assert statuses(admin, jobs) == ("DQQQ" if kill else "DIRQ")
    # nobody gets a job of it
    assert claim(jsm, dag_id) == []
    assert count(claim_any(jsm), dag_id) == [0]
    with jsm.refused("WORKFLOW_RUN_ENDED"):
        claim_any(jsm, workflow_run_id=run)
    if kill:
        for job_id in jobs[1:3]:
            row = admin.instance(instances[job_id])
            assert (row["status"], row["error_message"]) == (
                "E",
                f"Killed: workflow {workflow_id} was stopped",
            )
            with admin.unchanged(), jsm.refused("JOB_INSTANCE_ENDED"):
                jsm.call("log_job_instance_heartbeat", job_instance_id=instances[job_id])
    else:
        # what runs may end as it will
        jsm.call("log_done", job_instance_id=instances[jobs[2]])
        assert admin.job(jobs[2])["status"] == "D"
    with admin.unchanged():
        assert jsm.call("stop_workflow", workflow_id=workflow_id, kill=kill) == {
            "workflow_run_id": None,
            "num_killed": 0,
        }
        assert jsm.call("end_workflow_run", workflow_run_id=run)["status"] == "S"
    # and then it is resumed
    again = make_run(jsm, workflow_id=workflow_id)
    jsm.call("reset_incomplete_jobs", dag_id=dag_id)
    jsm.call("submit_workflow_run", workflow_run_id=again)
    assert len(claim(jsm, dag_id)) == (3 if kill else 2)


def test_a_stop_with_kill_after_one_without(jsm: Sql, admin: Sql) -> None:
    _, workflow_id, jobs = make_stage(jsm, "RR", max_attempts=1)
    other = make_job(jsm, "R")
    jsm.call("stop_workflow", workflow_id=workflow_id)
    answer = jsm.call("stop_workflow", workflow_id=workflow_id, kill=1)
    assert answer == {"workflow_run_id": None, "num_killed": 2}
    assert statuses(admin, [*jobs, other]) == "FFR"


def test_stop_a_workflow_that_has_no_live_run(jsm: Sql, admin: Sql) -> None:
    for ended in ("", "E", "S"):
        dag_id, _ = make_jobs(jsm, 2)
        workflow_id = make_workflow(jsm, dag_id=dag_id)
        if ended:
            make_run(jsm, ended, workflow_id=workflow_id)
        jsm.call("queue_jobs", dag_id=dag_id)
        answer = jsm.call("stop_workflow", workflow_id=workflow_id)
        assert answer == {"workflow_run_id": None, "num_killed": 0}
        assert admin.row("workflow", workflow_id)["status"] == "S"
        assert claim(jsm, dag_id) == []
        make_run(jsm, workflow_id=workflow_id)
        assert len(claim(jsm, dag_id)) == 2


def test_a_done_workflow_is_not_stopped(jsm: Sql, admin: Sql) -> None:
    run, workflow_id, _ = make_stage(jsm, "DD")
    jsm.call("end_workflow_run", workflow_run_id=run)
    with admin.unchanged(), jsm.refused("ILLEGAL_TRANSITION"):
        jsm.call("stop_workflow", workflow_id=workflow_id, kill=1)


@pytest.mark.parametrize("newest", ["", "E"])
@pytest.mark.parametrize("kill", [0, 1])
def test_a_superseded_run_does_not_stop_the_newer_one(jsm: Sql, admin: Sql, newest: str, kill: int) -> None:
    run, workflow_id, jobs = make_stage(jsm, "RQ")
    again = make_run(jsm, *newest, workflow_id=workflow_id)
    with admin.unchanged(), jsm.refused("WORKFLOW_RUN_ENDED"):
        jsm.call("stop_workflow", workflow_id=workflow_id, kill=kill, workflow_run_id=run)
    assert stand(admin, again)[0] == (newest or "R")
    answer = jsm.call("stop_workflow", workflow_id=workflow_id, kill=kill, workflow_run_id=again)
    assert answer == {"workflow_run_id": None if newest else again, "num_killed": kill}
    assert statuses(admin, jobs) == ("QQ" if kill else "RQ")
    # the same client asks for more
    assert (
        jsm.call("stop_workflow", workflow_id=workflow_id, kill=1, workflow_run_id=again)["num_killed"]
        == 1 - kill
    )


# kill_job, start_job_instance, set_max_concurrently_running ------------------------------------------


@pytest.mark.parametrize("at", "IBR")
def test_kill_job(jsm: Sql, admin: Sql, at: str) -> None:
    job_id, instance = make_instance(jsm, at)
    answer = jsm.call("kill_job", job_id=job_id)["job_dct"]
    assert (answer["status"], answer["num_attempts"], answer["max_attempts"]) == ("F", 1, 1)
    assert admin.instance(instance).items() >= {"status": "E", "error_message": "Killed by request"}.items()
    assert admin.history(job_id).endswith("EF")
    with admin.unchanged():
        assert jsm.call("kill_job", job_id=job_id)["job_dct"] == answer
        with jsm.refused("JOB_INSTANCE_ENDED"):
            jsm.call("log_job_instance_heartbeat", job_instance_id=instance)
        with jsm.refused("JOB_INSTANCE_ENDED"):
            jsm.call("log_done", job_instance_id=instance)
    # it can be given another attempt
    assert jsm.call("retry_job", job_id=job_id)["job_dct"]["status"] == "Q"
    make_attempt(jsm, job_id, "D")
    assert admin.job(job_id)["status"] == "D"


@pytest.mark.parametrize("at", "GQD")
def test_what_is_not_live_is_not_killed(jsm: Sql, admin: Sql, at: str) -> None:
    job_id = make_job(jsm, at)
    with admin.unchanged(), jsm.refused("JOB_NOT_LIVE", f"is {at}"):
        jsm.call("kill_job", job_id=job_id)


def test_a_killed_job_holds_back_its_downstreams(jsm: Sql, admin: Sql) -> None:
    dag_id, jobs = make_jobs(jsm, 2, [(0, 1)])
    run = make_submitted(jsm, dag_id)
    make_attempt(jsm, jobs[0], "R")
    jsm.call("kill_job", job_id=jobs[0])
    assert statuses(admin, jobs) == "FG"
    assert jsm.call("end_workflow_run", workflow_run_id=run)["status"] == "E"


@pytest.mark.parametrize("at", "IB")
def test_start_job_instance(jsm: Sql, admin: Sql, at: str) -> None:
    dag_id, (job_id,) = make_jobs(jsm, 1, max_runtime=60, slots=3)
    run = make_submitted(jsm, dag_id, working_dir="/w", stderr="/e")
    (claimed,) = claim_any(jsm, workflow_run_id=run, lease_seconds=600)
    instance = claimed["job_instance_id"]
    if at == "B":
        jsm.call("log_executor_id", job_instance_id=instance, executor_id="17_3")
    given = {"nodename": "n" * 300, "process_group_id": 4711, "lease_seconds": 90}
    if at == "I":
        given["executor_id"] = "17_3"
    answer = jsm.call("start_job_instance", job_instance_id=instance, **given)
    assert answer == {"job_instance": {**claimed, "lease_seconds": 90}}
    row = admin.instance(instance)
    assert (row["status"], row["process_group_id"], row["executor_id"]) == ("R", 4711, "17_3")
    assert len(row["nodename"]) == 255 and "[cut: " in row["nodename"]
    assert row["report_by_date"] - row["running_date"] == pytest.approx(
        datetime.timedelta(seconds=90), abs=datetime.timedelta(seconds=2)
    )
    assert admin.history(job_id) == "GQIR"
    # what is left out stays; each report renews the lease
    admin.raw(f"UPDATE job_instance SET report_by_date = {HOUR_AGO} WHERE job_instance_id = %s", instance)
    with admin.unchanged(ignoring=["report_by_date"]):
        assert jsm.call("start_job_instance", job_instance_id=instance, lease_seconds=90) == answer
    assert admin.instance(instance)["report_by_date"] > row["report_by_date"]
    with admin.unchanged():
        assert jsm.call("start_job_instance", job_instance_id=instance) == answer


def test_an_instance_without_a_lease_gets_the_one_that_its_worker_asks_for(jsm: Sql, admin: Sql) -> None:
    _, instance = make_instance(jsm)
    assert jsm.call("start_job_instance", job_instance_id=instance)["job_instance"]["lease_seconds"] is None
    assert admin.instance(instance)["report_by_date"] is None
    _, instance = make_instance(jsm)
    jsm.call("start_job_instance", job_instance_id=instance, lease_seconds=60)
    assert admin.instance(instance)["report_by_date"] is not None


@pytest.mark.parametrize("at", "DE")
def test_an_ended_instance_is_not_started(jsm: Sql, admin: Sql, at: str) -> None:
    job_id, instance = make_instance(jsm, at)
    with admin.unchanged(), jsm.refused("JOB_INSTANCE_ENDED"):
        jsm.call("start_job_instance", job_instance_id=instance, lease_seconds=90)
    if at == "E":
        make_attempt(jsm, job_id)
        with admin.unchanged(), jsm.refused("JOB_INSTANCE_SUPERSEDED"):
            jsm.call("start_job_instance", job_instance_id=instance, nodename="late")


def test_an_instance_of_a_job_that_was_reset_is_not_started(jsm: Sql, admin: Sql) -> None:
    job_id, instance = make_instance(jsm, "B")
    jsm.call("reset_job", job_id=job_id)
    with admin.unchanged(), jsm.refused("JOB_INSTANCE_SUPERSEDED"):
        jsm.call("start_job_instance", job_instance_id=instance)


def test_set_max_concurrently_running(jsm: Sql, admin: Sql) -> None:
    run, workflow_id, _ = make_stage(jsm, "Q" * 8)
    for limit, live in ((0, 0), (2, 2), (1, 2), (5, 5), (None, 8)):
        answer = jsm.call(
            "set_max_concurrently_running", workflow_id=workflow_id, max_concurrently_running=limit
        )
        assert answer == {"workflow_id": workflow_id, "max_concurrently_running": limit}
        claim_any(jsm, workflow_run_id=run)
        assert jsm.call("end_workflow_run", workflow_run_id=run)["counts"].get("I", 0) == live
    with admin.unchanged(), jsm.refused("VALUE_OUT_OF_RANGE"):
        jsm.call("set_max_concurrently_running", workflow_id=workflow_id, max_concurrently_running=-1)


# claim_jobs ------------------------------------------------------------------------------------------


def make_share(jsm: Sql, queued: int, live: int = 0, **more: Any) -> int:
    """A dag of a submitted run, with so many jobs queued and so many live."""
    dag_id, _ = make_jobs(jsm, queued + live, **more)
    make_submitted(jsm, dag_id)
    if live:
        assert len(claim(jsm, dag_id, max_jobs=live)) == live
    return dag_id


def test_claims_of_a_run(jsm: Sql, admin: Sql) -> None:
    dag_id = make_share(jsm, 3)
    other = make_share(jsm, 3)
    run = admin.one(
        "SELECT workflow_run_id FROM workflow_run JOIN workflow USING (workflow_id) WHERE dag_id=%s", dag_id
    )
    given = {"workflow_run_id": run, "max_jobs": 2, "request_key": "of-a-run"}
    claimed = claim_any(jsm, **given)
    assert count(claimed, dag_id, other) == [2, 0]
    assert {one["workflow_run_id"] for one in claimed} == {run}
    assert count(claim_any(jsm, workflow_run_id=run, dag_id=dag_id), dag_id) == [1]
    with admin.unchanged():
        assert claim_any(jsm, workflow_run_id=run) == []
        assert claim_any(jsm, workflow_run_id=run, max_jobs=0) == []
        with jsm.refused("INVALID_PARAMETER", "dag_id"):
            claim_any(jsm, workflow_run_id=run, dag_id=other)
    jsm.call("stop_workflow", workflow_id=admin.row("workflow_run", run)["workflow_id"])
    with admin.unchanged():
        # the answer that was given is given again, and nothing new
        assert claim_any(jsm, **given) == claimed
        with jsm.refused("WORKFLOW_RUN_ENDED"):
            claim_any(jsm, **{**given, "request_key": "another"})


def test_equal_shares(emptied: None, jsm: Sql) -> None:
    dags = [make_share(jsm, 40) for _ in range(3)]
    assert count(claim_any(jsm, max_jobs=30), *dags) == [10, 10, 10]
    # what can't be divided goes to the first ones
    assert sorted(count(claim_any(jsm, max_jobs=10), *dags)) == [3, 3, 4]
    assert sorted(count(claim_any(jsm, max_jobs=2), *dags)) == [0, 1, 1]
    assert sum(count(claim_any(jsm, max_jobs=1000), *dags)) == 120 - 42


def test_many_small_claims_are_shared_out(emptied: None, jsm: Sql, admin: Sql) -> None:
    dags = [make_share(jsm, 20) for _ in range(4)]
    for _ in range(10):
        assert len(claim_any(jsm, max_jobs=2)) == 2
    live = dict(admin.raw("SELECT dag_id, COUNT(*) FROM job WHERE status = 'I' GROUP BY dag_id"))
    assert live == dict.fromkeys(dags, 5)


def test_those_with_the_fewest_live_ones_are_first(emptied: None, jsm: Sql) -> None:
    many, none, few = make_share(jsm, 9, 6), make_share(jsm, 9), make_share(jsm, 9, 2)
    assert count(claim_any(jsm, max_jobs=1), many, none, few) == [0, 1, 0]
    assert count(claim_any(jsm, max_jobs=2), many, none, few) == [0, 1, 1]


def test_left_overs_go_to_those_who_have_more(emptied: None, jsm: Sql) -> None:
    small, large, limited = (
        make_share(jsm, 2),
        make_share(jsm, 50),
        make_share(jsm, 50, max_concurrently_running=3),
    )
    assert count(claim_any(jsm, max_jobs=30), small, large, limited) == [2, 25, 3]
    assert claim(jsm, limited) == []


def test_priorities(emptied: None, jsm: Sql) -> None:
    low, usual, high, also_high = (make_share(jsm, 5, priority=p) for p in (-1, None, 7, 7))
    assert count(claim_any(jsm, max_jobs=4), low, usual, high, also_high) == [0, 0, 2, 2]
    assert count(claim_any(jsm, max_jobs=8), low, usual, high, also_high) == [0, 2, 3, 3]
    assert count(claim_any(jsm), low, usual, high, also_high) == [5, 3, 0, 0]


def test_jobs_without_a_dag_have_their_share(emptied: None, jsm: Sql) -> None:
    dag_id = make_share(jsm, 20)
    for _ in range(20):
        make_job(jsm, "Q", dag_id=None)
    assert count(claim_any(jsm, max_jobs=10), dag_id, None) == [5, 5]
    # and no more than that, though they have no run that could be looked at
    claimed = [one for _ in range(6) for one in claim_any(jsm, max_jobs=1)]
    assert count(claimed, dag_id, None) == [3, 3]


def test_dags_of_no_submitted_live_run_are_left_alone(emptied: None, jsm: Sql, admin: Sql) -> None:
    """Whoever asks for any gets nothing of them, whatever is queued."""
    dags = {}
    for word in ("no workflow", "no run", "not submitted", "stopped", "ended", "superseded"):
        dags[word], _ = make_jobs(jsm, 2, max_attempts=1)
        if word == "no workflow":
            jsm.call("queue_jobs", dag_id=dags[word])
            continue
        workflow_id = make_workflow(jsm, dag_id=dags[word])
        if word != "no run":
            run = make_run(jsm, workflow_id=workflow_id)
        if word in ("stopped", "ended", "superseded"):
            jsm.call("submit_workflow_run", workflow_run_id=run)
        if word == "stopped":
            jsm.call("stop_workflow", workflow_id=workflow_id)
        elif word == "superseded":
            make_run(jsm, workflow_id=workflow_id)
        elif word == "ended":
            for instance in claim(jsm, dags[word]):
                jsm.call("log_error", job_instance_id=instance, error_message="x")
            assert jsm.call("end_workflow_run", workflow_run_id=run)["status"] == "E"
            for (job_id,) in admin.raw("SELECT job_id FROM job WHERE dag_id=%s", dags[word]):
                jsm.call("retry_job", job_id=job_id)
        else:
            jsm.call("queue_jobs", dag_id=dags[word])
    assert admin.one("SELECT COUNT(*) FROM job WHERE status = 'Q'") == 2 * len(dags)
    with admin.unchanged():
        assert claim_any(jsm) == []
    # but for the stopped one they are given to who asks for them by name
    assert {word: len(claim(jsm, dag_id)) for word, dag_id in dags.items()} == {
        **dict.fromkeys(dags, 2),
        "stopped": 0,
    }


def test_a_limit_that_others_hold_is_passed_over(emptied: None, open_as: Any, jsm: Sql) -> None:
    """Whoever asks for any waits for no dag: two that wait for each other's would never end."""
    held, free = (
        make_share(jsm, 3, max_concurrently_running=2),
        make_share(jsm, 3, max_concurrently_running=2),
    )
    holder = open_as("jsm", autocommit=False)
    holder.call("log_heartbeat", dag_id=held)
    jsm.raw("SET SESSION innodb_lock_wait_timeout = 10")
    assert count(claim_any(jsm), held, free) == [0, 2]
    holder.raw("ROLLBACK")
    assert count(claim_any(jsm), held, free) == [2, 0]


# add_workflow_run ------------------------------------------------------------------------------------


def test_a_run_that_is_alive_is_not_superseded(jsm: Sql, admin: Sql) -> None:
    workflow_id = make_workflow(jsm)
    first = make_run(
        jsm, workflow_id=workflow_id, stale_after_seconds=60, user="a" * 60, hostname="h" * 200, pid=10**18
    )
    with admin.unchanged(), jsm.refused("WORKFLOW_RUN_ALIVE", f"run {first} of aaaa"):
        make_run(jsm, workflow_id=workflow_id, stale_after_seconds=60)
    second = make_run(jsm, workflow_id=workflow_id)
    assert stand(admin, first) == "SR", "without it a live run is superseded always"
    with (
        admin.unchanged(),
        jsm.refused("WORKFLOW_RUN_ALIVE", f"run {second} of ann lives on login1, process 4242"),
    ):
        make_run(jsm, workflow_id=workflow_id, stale_after_seconds=3600)
    assert make_run(jsm, workflow_id=workflow_id, stale_after_seconds=0) > second
    assert stand(admin, second) == "SR"


def test_a_run_that_is_silent_is_superseded(jsm: Sql, admin: Sql) -> None:
    workflow_id = make_workflow(jsm)
    silent = make_run(jsm, workflow_id=workflow_id)
    # the trigger lets no heartbeat go back; a clock that was behind does
    jsm.raw("SET timestamp = UNIX_TIMESTAMP(SYSDATE(6)) + 3600")
    with admin.unchanged(), jsm.refused("WORKFLOW_RUN_ALIVE"):
        make_run(jsm, workflow_id=workflow_id, stale_after_seconds=3700)
    new = make_run(jsm, workflow_id=workflow_id, stale_after_seconds=3500)
    assert [stand(admin, run) for run in (silent, new)] == ["SR", "RR"]
    # a run of another workflow is nobody's business
    make_run(jsm, stale_after_seconds=10**6)


def test_a_repeated_start_finds_its_own_run(jsm: Sql, admin: Sql) -> None:
    workflow_id = make_workflow(jsm)
    given = {"workflow_id": workflow_id, "stale_after_seconds": 60, "request_key": "start"}
    run = make_run(jsm, **given)
    with admin.unchanged():
        assert make_run(jsm, **given) == run


def test_a_done_workflow_is_final(jsm: Sql, admin: Sql) -> None:
    run, workflow_id, _ = make_stage(jsm, "D")
    jsm.call("end_workflow_run", workflow_run_id=run)
    with admin.unchanged(), jsm.refused("ILLEGAL_TRANSITION"):
        make_run(jsm, workflow_id=workflow_id, stale_after_seconds=60)


def test_the_priority_of_a_dag(jsm: Sql, jqs: Sql, admin: Sql) -> None:
    dags = {p: make_dag(jsm, priority=p) for p in (None, 0, -5, 2**31 - 1)}
    for given, dag_id in dags.items():
        assert admin.row("task_dag", dag_id)["priority"] == (given or 0)
    with admin.unchanged(), jsm.refused("VALUE_OUT_OF_RANGE"):
        make_dag(jsm, priority=2**31)
