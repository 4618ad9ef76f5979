"""Rules 1 to 6, by raw SQL and by CALL. (Rule 7 is in test_accounts.py.)

The JSM account has INSERT and UPDATE without SELECT, so it can't name a row in a WHERE: its raw UPDATEs here
meet a table with the test's rows only.
"""

from __future__ import annotations

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
    make_workflow,
    outcomes,
    statuses,
)

INSERT = "INSERT INTO job_instance (job_id, executor_type) VALUES (%s, 'X')"


# Rule 1: an instance is made for a job in Q only; that counts the attempt and takes the job to I --


def test_making_an_instance_moves_its_job_in_the_same_statement(jsm: Sql, admin: Sql) -> None:
    job_id = make_job(jsm, "Q")
    jsm.raw(INSERT, job_id)
    job = admin.job(job_id)
    assert (job["status"], job["num_attempts"]) == ("I", 1)
    assert admin.history(job_id) == "GQI"
    instance = admin.one("SELECT job_instance_id FROM job_instance WHERE job_id=%s", job_id)
    assert admin.instance(instance)["attempt_number"] == 1
    assert admin.instance(instance)["status"] == "I"
    assert admin.instance_history(instance) == "I"


@pytest.mark.parametrize("status", "GIRDF")
def test_no_instance_for_a_job_that_is_not_queued(jsm: Sql, admin: Sql, status: str) -> None:
    job_id = make_job(jsm, status)
    with admin.unchanged():
        with jsm.refused("JOB_NOT_QUEUED"):
            jsm.raw(INSERT, job_id)
        with jsm.refused("JOB_NOT_QUEUED"):
            jsm.raw(INSERT.replace("INSERT", "INSERT IGNORE"), job_id)
        with jsm.refused("JOB_NOT_QUEUED"):
            jsm.call("add_job_instance", job_id=job_id, executor_type="X")


def test_two_instances_of_one_job_in_one_statement(jsm: Sql, admin: Sql) -> None:
    job_id = make_job(jsm, "Q")
    with admin.unchanged(), jsm.refused("JOB_NOT_QUEUED"):
        jsm.raw(INSERT + ", (%s, 'X')", job_id, job_id)


def test_an_instance_starts_instantiated_as_the_next_attempt(jsm: Sql, admin: Sql) -> None:
    job_id = make_job(jsm, "Q")
    with admin.unchanged():
        with jsm.refused("WRONG_FIRST_STATUS"):
            jsm.raw("INSERT INTO job_instance (job_id, executor_type, status) VALUES (%s, 'X', 'R')", job_id)
        with jsm.refused("ATTEMPT_NUMBER_CONFLICT"):
            jsm.raw(
                "INSERT INTO job_instance (job_id, executor_type, attempt_number) VALUES (%s, 'X', 2)", job_id
            )
        with jsm.refused("UNKNOWN_JOB"):
            jsm.raw(INSERT, 10**12)
    jsm.raw("INSERT INTO job_instance (job_id, executor_type, attempt_number) VALUES (%s, 'X', 1)", job_id)
    assert statuses(admin, [job_id]) == "I"


def test_attempts_are_counted_by_the_triggers_only(emptied: None, jsm: Sql, admin: Sql) -> None:
    job_id = make_job(jsm, "I")
    for statement in (
        "UPDATE job SET num_attempts = 0",
        "UPDATE job SET attempts_before_reset = 7",
        "UPDATE job SET status = 'G', num_attempts = 5",
        "INSERT INTO job (job_hash, name, command, num_attempts) VALUES ('x', 'x', 'x', 1)",
        "INSERT INTO job (job_hash, name, command, has_downstreams) VALUES ('x', 'x', 'x', 1)",
    ):
        with admin.unchanged(), jsm.refused("COUNTED_COLUMN"):
            jsm.raw(statement)
    assert admin.job(job_id)["num_attempts"] == 1


# Rule 2: RUNNING and DONE take the job along ------------------------------------------------------


def test_an_instance_takes_its_job_along(emptied: None, jsm: Sql, admin: Sql) -> None:
    job_id, instance = make_instance(jsm, "I")
    jsm.raw("UPDATE job_instance SET status = 'B', executor_id = '9'")
    assert statuses(admin, [job_id]) == "I"
    jsm.raw("UPDATE job_instance SET status = 'R', nodename = 'n1'")
    assert statuses(admin, [job_id]) == "R"
    jsm.raw("UPDATE job_instance SET status = 'D'")
    assert statuses(admin, [job_id]) == "D"
    assert admin.history(job_id) == "GQIRD"
    assert admin.instance_history(instance) == "IBRD"
    row = admin.instance(instance)
    assert row["submitted_date"] <= row["running_date"] <= row["ended_date"] == row["status_date"]


def test_many_instances_in_one_statement(emptied: None, jsm: Sql, admin: Sql) -> None:
    jobs = [make_instance(jsm, "I")[0] for _ in range(3)]
    jsm.raw("UPDATE job_instance SET status = 'R'")
    assert statuses(admin, jobs) == "RRR"
    jsm.raw("UPDATE job_instance SET status = 'D' LIMIT 2")
    assert statuses(admin, jobs) == "DDR"
    # one of them can't, so none does
    with admin.unchanged(), jsm.refused("JOB_INSTANCE_ENDED"):
        jsm.raw("UPDATE job_instance SET status = 'E'")


@pytest.mark.parametrize(("at", "to"), [("Q", "I"), ("I", "R"), ("I", "E"), ("R", "E"), ("R", "D")])
def test_a_job_follows_its_instance_and_does_not_lead(
    emptied: None, jsm: Sql, admin: Sql, at: str, to: str
) -> None:
    make_job(jsm, at)
    with admin.unchanged(), jsm.refused("JOB_FOLLOWS_ITS_INSTANCE"):
        jsm.raw("UPDATE job SET status = %s", to)


def test_lock_step_by_call(jsm: Sql, admin: Sql) -> None:
    job_id, instance = make_instance(jsm)
    assert jsm.call("log_running", job_instance_id=instance) == {"message": ""}
    assert statuses(admin, [job_id]) == "R"
    dag_id = admin.job(job_id)["dag_id"]
    assert jsm.call("log_done", job_instance_id=instance) == {"message": f'{dag_id} [{job_id}, "D"]'}
    assert statuses(admin, [job_id]) == "D"


# Rule 3: ERROR takes the job to ERROR_RECOVERABLE, and on in the same transaction -----------------


def test_an_error_queues_the_job_while_attempts_are_left(emptied: None, jsm: Sql, admin: Sql) -> None:
    job_id, first = make_instance(jsm, "R", max_attempts=2)
    jsm.raw("UPDATE job_instance SET status = 'E', error_message = 'disk full'")
    job = admin.job(job_id)
    assert (job["status"], job["num_attempts"]) == ("Q", 1)
    assert admin.history(job_id) == "GQIREQ"
    error = admin.raw(
        "SELECT description, error_time FROM job_instance_error_log WHERE job_instance_id=%s", first
    )
    assert error == [("disk full", admin.instance(first)["ended_date"])]

    jsm.raw(INSERT, job_id)
    admin.raw("UPDATE job_instance SET status = 'E' WHERE job_id=%s AND attempt_number=2", job_id)
    job = admin.job(job_id)
    assert (job["status"], job["num_attempts"]) == ("F", 2)
    assert admin.history(job_id) == "GQIREQIEF"


@pytest.mark.parametrize("at", "IBR")
def test_an_error_by_call(jsm: Sql, admin: Sql, at: str) -> None:
    job_id, instance = make_instance(jsm, at, max_attempts=2)
    answer = jsm.call("log_error", job_instance_id=instance, error_message="one")
    assert answer == {"message": ""}
    second = make_attempt(jsm, job_id, at)
    answer = jsm.call("log_error", job_instance_id=second, error_message="two")
    assert answer == {"message": f'{admin.job(job_id)["dag_id"]} [{job_id}, "F"]'}
    assert admin.history(job_id).endswith("EF")


@pytest.mark.parametrize("max_attempts", [0, 1])
def test_one_attempt_is_always_made(jsm: Sql, admin: Sql, max_attempts: int) -> None:
    job_id, _ = make_instance(jsm, "E", max_attempts=max_attempts)
    assert statuses(admin, [job_id]) == "F"


def test_the_state_between_is_never_seen(jsm: Sql, admin: Sql) -> None:
    job_id, instance = make_instance(jsm, "R", max_attempts=1)
    jsm.raw("START TRANSACTION")
    jsm.call("log_error", job_instance_id=instance, error_message="x")
    assert statuses(admin, [job_id]) == "R"
    jsm.raw("COMMIT")
    assert statuses(admin, [job_id]) == "F"


def test_attempts_left_and_exhausted_by_raw_sql(emptied: None, jsm: Sql, admin: Sql) -> None:
    make_instance(jsm, "E", max_attempts=1)
    with admin.unchanged(), jsm.refused("ATTEMPTS_EXHAUSTED"):
        jsm.raw("UPDATE job SET status = 'Q'")
    # given more, it may be queued: that is what retry_job does
    jsm.raw("UPDATE job SET max_attempts = 2, status = 'Q'")


# Rule 4: only the newest instance moves the job ---------------------------------------------------


@pytest.mark.parametrize("second", ["I", "B", "R", "D", "E"])
@pytest.mark.parametrize("late", ["log_running", "log_done"])
def test_a_superseded_instance_is_told_to_stop(jsm: Sql, admin: Sql, second: str, late: str) -> None:
    job_id, first = make_instance(jsm, "E")
    make_attempt(jsm, job_id, second)
    with admin.unchanged():
        with jsm.refused("JOB_INSTANCE_SUPERSEDED"):
            jsm.call(late, job_instance_id=first, nodename="late", executor_id="late")
        with jsm.refused("JOB_INSTANCE_SUPERSEDED"):
            jsm.call("log_executor_id", job_instance_id=first, executor_id="late")
        with jsm.refused("JOB_INSTANCE_SUPERSEDED"):
            jsm.call("log_job_instance_heartbeat", job_instance_id=first, lease_seconds=60)
        for status in "IBRD":
            with admin.refused("JOB_INSTANCE_SUPERSEDED"):
                admin.raw("UPDATE job_instance SET status=%s WHERE job_instance_id=%s", status, first)
        assert (
            outcomes(
                jsm,
                [
                    {"event": "running", "job_instance_id": first, "nodename": "late"},
                    {"event": "done", "job_instance_id": first},
                    {"event": "heartbeat", "job_instance_id": first},
                    {"event": "executor_id", "job_instance_id": first, "executor_id": "late"},
                ],
            )
            == ["JOB_INSTANCE_SUPERSEDED"] * 4
        )


@pytest.mark.parametrize("at", "IBRD")
def test_a_reset_gives_the_instance_up(jsm: Sql, admin: Sql, at: str) -> None:
    job_id, instance = make_instance(jsm, at)
    jsm.call("reset_job", job_id=job_id)
    other = "R" if at == "D" else "D"
    with admin.unchanged():
        with jsm.refused("JOB_INSTANCE_SUPERSEDED"):
            jsm.call("log_running" if other == "R" else "log_done", job_instance_id=instance)
        with jsm.refused("JOB_INSTANCE_SUPERSEDED"):
            jsm.call("log_executor_id", job_instance_id=instance, executor_id="late")
        with admin.refused("JOB_INSTANCE_SUPERSEDED"):
            admin.raw("UPDATE job_instance SET status=%s WHERE job_instance_id=%s", other, instance)
    assert statuses(admin, [job_id]) == "G"


@pytest.mark.parametrize("status", "GQIR")
def test_an_instance_that_was_given_up_stays_so_when_its_job_goes_on(
    jsm: Sql, admin: Sql, status: str
) -> None:
    job_id, first = make_instance(jsm, "R")
    jsm.call("reset_job", job_id=job_id)
    if status != "G":
        jsm.call("queue_job", job_id=job_id)
    if status in "IR":
        make_attempt(jsm, job_id, status)
    with admin.unchanged(), pytest.raises(Exception, match=": stop"):
        jsm.call("log_done", job_instance_id=first)
    with admin.unchanged(), pytest.raises(Exception, match=": stop"):
        jsm.call("log_job_instance_heartbeat", job_instance_id=first)


def test_the_loser_of_done_and_error_is_told(jsm: Sql, admin: Sql) -> None:
    for winner, loser in (("log_done", "log_error"), ("log_error", "log_done")):
        _, instance = make_instance(jsm, "R")
        more = {"error_message": "x"}
        jsm.call(winner, job_instance_id=instance, **(more if winner == "log_error" else {}))
        with admin.unchanged(), jsm.refused("JOB_INSTANCE_ENDED"):
            jsm.call(loser, job_instance_id=instance, nodename="n9", **(more if loser == "log_error" else {}))


# Rule 5 is in test_transitions.py; here with what a session can be set to -------------------------


@pytest.mark.parametrize(
    "setting",
    [
        "SET SESSION foreign_key_checks = 0",
        "SET SESSION unique_checks = 0",
        "SET SESSION sql_mode = ''",
        "SET SESSION foreign_key_checks = 0, sql_mode = '', unique_checks = 0",
        "SET SESSION time_zone = '-11:00'",
        "SET SESSION transaction_isolation = 'SERIALIZABLE'",
        "SET SESSION sql_safe_updates = 0, group_concat_max_len = 8",
        "SET autocommit = 0",
    ],
)
@pytest.mark.parametrize(
    ("at", "to"), [("R", "B"), ("R", "I"), ("I", "D"), ("R", "X"), ("D", "B"), ("E", "I")]
)
def test_no_session_setting_switches_the_rules_off(
    emptied: None, rows: Any, jsm: Sql, admin: Sql, setting: str, at: str, to: str
) -> None:
    if "transaction_isolation" in setting and rows.kind == "mariadb":
        setting = setting.replace("transaction_isolation", "tx_isolation")
    make_instance(jsm, at)
    jsm.raw(setting)
    with admin.unchanged(), pytest.raises(Exception, match=r"(ILLEGAL_TRANSITION|JOB_INSTANCE_ENDED): "):
        jsm.raw("UPDATE job_instance SET status = %s", to)
    jsm.raw("ROLLBACK")


@pytest.mark.parametrize("mode", ["STRICT_TRANS_TABLES", ""])
@pytest.mark.parametrize("value", [None, "", "XY", "d", "\N{LATIN SMALL LETTER SHARP S}"])
@pytest.mark.parametrize("table", ["job", "job_instance", "workflow", "workflow_run"])
def test_what_is_no_status_is_refused(jsm: Sql, admin: Sql, table: str, value: str | None, mode: str) -> None:
    make_instance(jsm, "R")
    make_run(jsm)
    admin.raw("SET SESSION sql_mode = %s", mode)
    # 1048: null; 1265 and 1406: too long, as a strict session says it
    with admin.unchanged(), pytest.raises(pymysql.err.MySQLError, match=r"^\((1048|1265|1406|32030|32044), "):
        admin.raw(f"UPDATE {table} SET status = %s WHERE status = 'R'", value)


def test_an_upsert_is_an_update(jsm: Sql, admin: Sql) -> None:
    """INSERT ... ON DUPLICATE KEY UPDATE names a row without SELECT where the server lets it."""
    job_id = make_job(jsm, "R")
    upsert = (
        "INSERT INTO job (job_id, job_hash, name, command) VALUES (%s, 'x', 'x', 'x')"
        " ON DUPLICATE KEY UPDATE status = 'D'"
    )
    with admin.unchanged():
        with pytest.raises(pymysql.err.MySQLError, match=r"JOB_FOLLOWS_ITS_INSTANCE|denied"):
            jsm.raw(upsert, job_id)
        with admin.refused("JOB_FOLLOWS_ITS_INSTANCE"):
            admin.raw(upsert, job_id)


@pytest.mark.parametrize(
    "setting",
    [
        "SET SESSION group_concat_max_len = 8",
        "SET SESSION sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT,NO_BACKSLASH_ESCAPES,IGNORE_SPACE'",
        "SET SESSION sql_mode = ''",
        "SET SESSION collation_connection = 'utf8mb4_general_ci'",
        "SET SESSION sql_select_limit = 1",
        "SET SESSION time_zone = '+05:00'",
        "SET SESSION foreign_key_checks = 0",
    ],
)
def test_a_whole_life_in_an_odd_session(jsm: Sql, admin: Sql, setting: str) -> None:
    jsm.raw(setting)
    dag_id, jobs = make_jobs(jsm, 30, [(n, n + 10) for n in range(20)])
    assert jsm.call("queue_jobs", dag_id=dag_id) == {"num_queued": 10, "num_left": 0}
    for _ in range(2):
        live = claim(jsm, dag_id)
        assert len(live) == 10
        words = ("running", "done")
        assert set(outcomes(jsm, [{"event": w, "job_instance_id": i} for i in live for w in words])) == {"OK"}
    assert statuses(admin, jobs) == "D" * 20 + "Q" * 10
    jsm.call("reset_job", job_id=jobs[0])
    assert statuses(admin, jobs) == "G" + "D" * 9 + "G" + "D" * 9 + "G" + "Q" * 9
    claim(jsm, dag_id, lease_seconds=0)
    assert len(jsm.call("expire_job_instances")["job_instance_ids"]) == 9
    jsm.call("reset_incomplete_jobs", dag_id=dag_id)
    assert statuses(admin, jobs) == "G" + "D" * 9 + "G" + "D" * 9 + "G" * 10


# Rule 6: the last upstream that becomes DONE queues its downstreams -------------------------------


def test_the_last_upstream_queues_its_downstream(jsm: Sql, admin: Sql) -> None:
    #   0   1
    #    \ / \
    #     2   3
    #      \ /
    #       4
    _, jobs = make_jobs(jsm, 5, [(0, 2), (1, 2), (1, 3), (2, 4), (3, 4)])
    for job_id in jobs[:2]:
        jsm.call("queue_job", job_id=job_id)
    make_attempt(jsm, jobs[0], "D")
    assert statuses(admin, jobs) == "DQGGG"
    make_attempt(jsm, jobs[1], "E")
    assert statuses(admin, jobs) == "DQGGG", "a failed upstream releases nothing"
    make_attempt(jsm, jobs[1], "D")
    assert statuses(admin, jobs) == "DDQQG"
    make_attempt(jsm, jobs[3], "D")
    assert statuses(admin, jobs) == "DDQDG"
    make_attempt(jsm, jobs[2], "D")
    assert statuses(admin, jobs) == "DDDDQ"
    assert admin.history(jobs[4]) == "GQ"


@pytest.mark.parametrize("reporter", ["jsm_raw", "admin_raw", "call", "events"])
def test_whoever_reports_it(emptied: None, jsm: Sql, admin: Sql, reporter: str) -> None:
    _, jobs = make_jobs(jsm, 2, [(0, 1)])
    jsm.call("queue_job", job_id=jobs[0])
    instance = make_attempt(jsm, jobs[0], "R")
    if reporter == "jsm_raw":
        jsm.raw("UPDATE job_instance SET status = 'D'")
    elif reporter == "admin_raw":
        admin.raw("UPDATE job_instance SET status = 'D' WHERE job_instance_id=%s", instance)
    elif reporter == "call":
        jsm.call("log_done", job_instance_id=instance)
    else:
        assert outcomes(jsm, [{"event": "done", "job_instance_id": instance}]) == ["OK"]
    assert statuses(admin, jobs) == "DQ"


def test_a_job_whose_upstreams_are_not_done_is_not_queued(emptied: None, jsm: Sql, admin: Sql) -> None:
    dag_id, jobs = make_jobs(jsm, 2, [(0, 1)])
    with admin.unchanged():
        with jsm.refused("UPSTREAM_NOT_DONE"):
            jsm.raw("UPDATE job SET status = 'Q'")
        with admin.refused("UPSTREAM_NOT_DONE"):
            admin.raw("UPDATE job SET status = 'Q' WHERE job_id=%s", jobs[1])
        with jsm.refused("UPSTREAM_NOT_DONE"):
            jsm.call("queue_job", job_id=jobs[1])
        assert jsm.call("queue_jobs", dag_id=dag_id, job_ids=[jobs[1]])["num_queued"] == 0
        with jsm.refused("JOB_NOT_QUEUED"):
            jsm.raw(INSERT, jobs[1])


def test_an_upstream_that_is_reset_counts_again(jsm: Sql, admin: Sql) -> None:
    _, jobs = make_jobs(jsm, 3, [(0, 2), (1, 2)])
    for job_id in jobs[:2]:
        jsm.call("queue_job", job_id=job_id)
    make_attempt(jsm, jobs[0], "D")
    jsm.call("reset_job", job_id=jobs[0])
    make_attempt(jsm, jobs[1], "D")
    assert statuses(admin, jobs) == "GDG"
    jsm.call("queue_job", job_id=jobs[0])
    make_attempt(jsm, jobs[0], "D")
    assert statuses(admin, jobs) == "DDQ"


def test_a_done_job_is_not_reset_under_its_downstreams(jsm: Sql, admin: Sql) -> None:
    _, jobs = make_jobs(jsm, 2, [(0, 1)])
    jsm.call("queue_job", job_id=jobs[0])
    make_attempt(jsm, jobs[0], "D")
    with admin.unchanged(), admin.refused("DOWNSTREAM_NOT_REGISTERED"):
        admin.raw("UPDATE job SET status = 'G' WHERE job_id=%s", jobs[0])


def test_edges_by_raw_sql(jsm: Sql, admin: Sql) -> None:
    dag_id = make_dag(jsm)
    first, second, queued = (make_job(jsm, dag_id=dag_id) for _ in range(3))
    elsewhere = make_job(jsm)
    jsm.call("queue_job", job_id=queued)
    edge = "INSERT INTO job_edge (upstream_job_id, downstream_job_id) VALUES (%s, %s)"
    with admin.unchanged():
        for upstream, downstream, error in (
            (second, first, "UPSTREAM_AFTER_DOWNSTREAM"),
            (first, first, "UPSTREAM_AFTER_DOWNSTREAM"),
            (first, elsewhere, "EDGE_ACROSS_DAGS"),
            (first, queued, "JOB_NOT_REGISTERED"),
            (first, 10**12, "UNKNOWN_JOB"),
        ):
            with jsm.refused(error):
                jsm.raw(edge, upstream, downstream)
    jsm.raw(edge, first, second)
    with jsm.refused("UPSTREAM_NOT_DONE"):
        jsm.call("queue_job", job_id=second)
    with admin.unchanged(), admin.refused("IMMUTABLE_COLUMN"):
        admin.raw("UPDATE job_edge SET downstream_job_id=%s WHERE upstream_job_id=%s", queued, first)


def test_an_edge_from_a_done_job_holds_nothing_up(jsm: Sql, admin: Sql) -> None:
    dag_id = make_dag(jsm)
    done, later = make_job(jsm, "D", dag_id=dag_id), make_job(jsm, dag_id=dag_id)
    jsm.raw("INSERT INTO job_edge (upstream_job_id, downstream_job_id) VALUES (%s, %s)", done, later)
    assert jsm.call("queue_jobs", dag_id=dag_id) == {"num_queued": 1, "num_left": 0}
    assert statuses(admin, [done, later]) == "DQ"


# What nobody changes ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE job SET job_id = job_id + 1000000",
        "UPDATE job SET dag_id = NULL",
        "UPDATE job SET job_hash = 'other'",
        "UPDATE job SET created_date = '2001-01-01'",
        "UPDATE job_instance SET job_instance_id = 1000000",
        "UPDATE job_instance SET attempt_number = 9",
        "UPDATE job_instance SET created_date = '2001-01-01'",
        "UPDATE task_dag SET dag_hash = 'other'",
        "UPDATE task_dag SET created_date = '2001-01-01'",
        "UPDATE workflow SET workflow_args = 'other'",
        "UPDATE workflow SET workflow_hash = 'other'",
        "UPDATE workflow SET created_date = '2001-01-01'",
        "UPDATE workflow_run SET created_date = '2001-01-01'",
    ],
)
def test_identities_and_first_dates_are_never_changed(
    emptied: None, jsm: Sql, admin: Sql, statement: str
) -> None:
    make_job(jsm, "R", dag_id=admin.row("workflow", make_workflow(jsm))["dag_id"])
    make_run(jsm, workflow_id=admin.one("SELECT workflow_id FROM workflow"))
    admin.raw("DELETE FROM workflow_attribute")
    role = admin if "+" in statement else jsm
    with admin.unchanged(), role.refused("IMMUTABLE_COLUMN"):
        role.raw(statement)


@pytest.mark.parametrize("table", ["job_status_log", "job_instance_status_log", "job_instance_error_log"])
def test_history_is_never_changed(jsm: Sql, admin: Sql, table: str) -> None:
    make_instance(jsm, "E")
    with admin.unchanged(), admin.refused("APPEND_ONLY"):
        admin.raw(
            f"UPDATE {table} SET job_instance_id = 0"
            if "instance" in table
            else f"UPDATE {table} SET job_id = 0"
        )


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO job (job_hash, name, command, status) VALUES ('x', 'x', 'x', 'Q')",
        "INSERT INTO workflow (dag_id, workflow_args, workflow_hash, name, user, status)"
        " VALUES ({dag}, 'x', 'x', 'x', 'x', 'D')",
        "INSERT INTO workflow_run (workflow_id, user, hostname, pid, status)"
        " VALUES ({workflow}, 'x', 'x', 1, 'D')",
    ],
)
def test_a_row_starts_in_its_first_status(jsm: Sql, admin: Sql, statement: str) -> None:
    workflow = make_workflow(jsm)
    dag = admin.row("workflow", workflow)["dag_id"]
    with admin.unchanged(), jsm.refused("WRONG_FIRST_STATUS"):
        jsm.raw(statement.format(dag=dag, workflow=workflow))


def test_one_live_run_of_a_workflow(jsm: Sql, admin: Sql) -> None:
    workflow = make_workflow(jsm)
    insert = "INSERT INTO workflow_run (workflow_id, user, hostname, pid) VALUES (%s, 'x', 'x', 1)"
    jsm.raw(insert, workflow)
    assert admin.row("workflow", workflow)["status"] == "R"
    with admin.unchanged(), jsm.refused("WORKFLOW_RUN_ALIVE"):
        jsm.raw(insert, workflow)
    with admin.unchanged(), jsm.refused("UNKNOWN_WORKFLOW"):
        jsm.raw(insert, 10**12)
    # by CALL the older one is stopped
    newer = make_run(jsm, workflow_id=workflow)
    assert admin.raw("SELECT status FROM workflow_run WHERE workflow_id=%s ORDER BY 1", workflow) == [
        ("R",),
        ("S",),
    ]
    assert admin.row("workflow_run", newer)["status"] == "R"


def test_a_limit_holds_for_claims(jsm: Sql) -> None:
    dag_id, _ = make_jobs(jsm, 5, max_concurrently_running=2)
    jsm.call("queue_jobs", dag_id=dag_id)
    assert len(claim(jsm, dag_id)) == 2
    assert claim(jsm, dag_id) == []
