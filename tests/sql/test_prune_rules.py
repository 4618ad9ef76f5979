"""What may be pruned, what a mark refuses, and that nothing is wrong between two transactions of pruning."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from sql_helpers import (
    Sql,
    fresh,
    make_attempt,
    make_dag,
    make_job,
    make_jobs,
    make_run,
    make_submitted,
    make_workflow,
)

from jobmon.db.prune import PRUNED_TABLES

YEAR = 365 * 86_400


@pytest.fixture
def migrator(open_as: Callable[..., Sql]) -> Sql:
    """Who may prune."""
    return open_as("migrator")


def count_rows(admin: Sql) -> dict[str, int]:
    """Rows of each table that pruning deletes from."""
    return {table: admin.one(f"SELECT COUNT(*) FROM {table}") for table in (*PRUNED_TABLES, "pruned_dag")}


def finished(jsm: Sql, *, failing: bool = False, fan_in: int = 3) -> int:
    """A dag with rows in every table, whose workflow has come to rest as DONE, or as ERROR; gives its id.

    A chain of five jobs, and one that waits for ``fan_in`` others. failing: the first of the chain, and one
    of those others, are ERROR_FATAL, so that what comes after them stays REGISTERED.
    """
    edges = [(n, n + 1) for n in range(4)] + [(n, fan_in + 5) for n in range(5, fan_in + 5)]
    attributes = [{"attribute_type": 8, "value": "x"}, {"attribute_type": 1, "value": "5"}]
    dag_id, jobs = make_jobs(jsm, fan_in + 6, edges, attributes=attributes, max_attempts=2)
    run = make_submitted(jsm, dag_id)
    jsm.call("add_workflow_run_attribute", workflow_run_id=run, attribute_type=1, value="7")
    bad = {jobs[0], jobs[5]}
    while made := jsm.call("claim_jobs", executor_type="X", dag_id=dag_id, max_jobs=500)["job_instances"]:
        events = []
        for one in made:
            number = one["job_instance_id"]
            fails = one["job_id"] in bad and (failing or one["attempt_number"] == 1)
            end: dict[str, Any] = {"event": "error", "error_message": "boom"} if fails else {"event": "done"}
            events += [{"event": "running", "job_instance_id": number}, {**end, "job_instance_id": number}]
        jsm.call("log_events", events=events)
    assert jsm.call("end_workflow_run", workflow_run_id=run)["status"] == ("E" if failing else "D")
    return dag_id


def with_workflow_attribute(jsm: Sql, admin: Sql, dag_id: int) -> int:
    workflow = admin.one("SELECT workflow_id FROM workflow WHERE dag_id = %s", dag_id)
    jsm.call("add_workflow_attribute", workflow_id=workflow, attribute_type=8, value="x")
    return int(workflow)


@pytest.mark.parametrize("failing", [False, True], ids=["DONE", "ERROR"])
@pytest.mark.parametrize("max_rows", [20, 1000])
def test_no_audit_finds_anything_between_two_transactions(
    emptied: None, jsm: Sql, admin: Sql, migrator: Sql, count_violations: str, failing: bool, max_rows: int
) -> None:
    other = finished(jsm, failing=failing)
    with_workflow_attribute(jsm, admin, other)
    without = count_rows(admin)
    assert all(count for table, count in without.items() if table != "pruned_dag"), without
    # more edges and attributes than go into one transaction
    dag_id = finished(jsm, failing=failing, fan_in=70)
    with_workflow_attribute(jsm, admin, dag_id)
    total = sum(count_rows(admin).values()) - sum(without.values())
    assert migrator.call("start_prune", dag_id=dag_id, older_than_seconds=0, statuses="DE") == {
        "started": True,
        "reason": None,
        "archived": False,
    }
    num_rows = num_jobs = calls = 0
    ended = False
    while not ended:
        done = migrator.call("prune_dag", dag_id=dag_id, max_rows=max_rows)
        assert done["live_job_id"] is None
        assert admin.one(count_violations) == 0, (calls, done)
        # edges and attributes are cut exactly; jobs go whole, with about ten rows an attempt at the most
        assert done["num_rows"] <= 2 * max_rows + 40
        num_rows, num_jobs, ended, calls = (
            num_rows + done["num_rows"],
            num_jobs + done["num_jobs"],
            done["ended"],
            calls + 1,
        )
    assert (num_rows, num_jobs) == (total, 76)
    assert count_rows(admin) == without
    assert calls > 20 or max_rows > 20
    with migrator.refused("UNKNOWN_DAG"):
        migrator.call("prune_dag", dag_id=dag_id)


def test_what_keeps_a_dag(jsm: Sql, admin: Sql, migrator: Sql) -> None:
    def reason(dag_id: int, statuses: str = "CDES", older: int = 0) -> Any:
        found = migrator.call("find_prunable_dags", older_than_seconds=older, statuses=statuses)["dags"]
        with migrator.unchanged():
            start = {"dag_id": dag_id, "older_than_seconds": older, "statuses": statuses}
            answer = migrator.call("start_prune", **start)
        assert answer["started"] is False and dag_id not in [dag["dag_id"] for dag in found]
        return answer["reason"]

    done = finished(jsm)
    assert "later" in reason(done, older=YEAR)
    assert " is D" in reason(done, "ES")
    assert " is E" in reason(finished(jsm, failing=True), "D")
    running = make_run(jsm)
    dag_of = "SELECT dag_id FROM workflow JOIN workflow_run USING (workflow_id) WHERE workflow_run_id = %s"
    assert " is R" in reason(admin.one(dag_of, running))
    # a workflow that somebody set to ERROR while its run goes on
    workflow = admin.one("SELECT workflow_id FROM workflow_run WHERE workflow_run_id = %s", running)
    jsm.call("update_workflow", wf_id=workflow, status="E")
    assert reason(admin.one(dag_of, running)) == f"workflow run {running} is live"
    # one of two workflows
    two = make_dag(jsm)
    make_workflow(jsm, "D", dag_id=two)
    make_run(jsm, workflow_id=make_workflow(jsm, dag_id=two, workflow_args="v2"))
    assert " is R" in reason(two)
    for status in ("I", "R"):
        dag_id = make_dag(jsm)
        make_workflow(jsm, "S", dag_id=dag_id)
        job_id = make_job(jsm, status, dag_id=dag_id)
        assert reason(dag_id) == f"job {job_id} is {status}"
    # a job of an old workflow that was retried and done since
    dag_id = finished(jsm)
    make_job(jsm, "D", dag_id=dag_id)
    admin.raw("UPDATE workflow SET status_date = status_date WHERE dag_id = %s", dag_id)
    assert "later" in reason(dag_id, older=60)


def test_a_dag_without_a_workflow_counts_by_its_jobs(jsm: Sql, migrator: Sql) -> None:
    cases = {"D": ("D", "D"), "E": ("D", "F"), "C": ("D", "G"), "": ("Q", "R")}
    for letter, states in cases.items():
        dag_id = make_dag(jsm)
        for status in states:
            make_job(jsm, status, dag_id=dag_id)
        for statuses in sorted("DEC", key=letter.__eq__):  # the right one last: it stays marked
            answer = migrator.call("start_prune", dag_id=dag_id, older_than_seconds=0, statuses=statuses)
            assert answer["started"] == (statuses == letter), (letter, statuses, answer)
    empty = make_dag(jsm)
    assert migrator.call("start_prune", dag_id=empty, older_than_seconds=0)["started"]


def test_a_marked_dag_can_not_be_changed(jsm: Sql, admin: Sql, migrator: Sql) -> None:
    dag_id, (queued, registered, fatal, done) = make_jobs(jsm, 4, max_attempts=1)
    workflow = make_workflow(jsm, dag_id=dag_id)
    jsm.call("queue_jobs", dag_id=dag_id, job_ids=[queued, fatal, done])
    for job_id, status in ((fatal, "E"), (done, "D")):
        make_attempt(jsm, job_id, status)
    run = make_run(jsm, "E", workflow_id=workflow)
    jsm.call("update_workflow", wf_id=workflow, status="E")
    assert migrator.call("start_prune", dag_id=dag_id, older_than_seconds=0, statuses="E")["started"]

    with admin.unchanged():
        for procedure, given in (
            ("add_workflow_run", {"workflow_id": workflow, "user": "a", "hostname": "h", "pid": 1}),
            ("add_workflow", {"dag_id": dag_id, "workflow_args": "2", "workflow_hash": fresh()}),
            ("add_job", {"dag_id": dag_id, "name": "n", "job_hash": "9", "command": "true"}),
            ("add_jobs", {"dag_id": dag_id, "jobs": [{"name": "n", "job_hash": "9", "command": "true"}]}),
            ("queue_job", {"job_id": registered}),
            ("queue_jobs", {"dag_id": dag_id}),
            ("retry_job", {"job_id": fatal}),
            ("reset_job", {"job_id": done}),
            ("reset_incomplete_jobs", {"dag_id": dag_id}),
            ("add_job_instance", {"job_id": queued, "executor_type": "X"}),
            ("claim_jobs", {"executor_type": "X", "dag_id": dag_id}),
        ):
            more = {"name": "w", "user": "ann"} if procedure == "add_workflow" else {}
            with jsm.refused("DAG_PRUNED"):
                jsm.call(procedure, **given, **more)
        for statement in (
            f"INSERT INTO workflow_run (workflow_id, user, hostname, pid) VALUES ({workflow}, 'a', 'h', 1)",
            f"UPDATE job SET status = 'Q' WHERE job_id = {registered}",
            f"UPDATE job SET status = 'G' WHERE job_id = {done}",
        ):
            with admin.refused("DAG_PRUNED"):
                admin.raw(statement)
    # who asks after the past is answered
    assert jsm.call("claim_jobs", executor_type="X")["job_instances"] == []
    jsm.call("update_workflow_run", wfr_id=run, status="E")
    # it is found first whatever is asked for, and marking it again changes nothing
    found = migrator.call("find_prunable_dags", older_than_seconds=YEAR, statuses="D")["dags"]
    assert [dag["num_jobs"] for dag in found if dag["dag_id"] == dag_id] == [4]
    with migrator.unchanged():
        assert migrator.call("start_prune", dag_id=dag_id, older_than_seconds=YEAR)["started"]
    while not migrator.call("prune_dag", dag_id=dag_id)["ended"]:
        pass
    with jsm.refused("UNKNOWN_WORKFLOW"):
        jsm.call("add_workflow_run", workflow_id=workflow, user="a", hostname="h", pid=1)


def test_what_comes_to_life_in_spite_of_the_mark_is_left_alone(jsm: Sql, admin: Sql, migrator: Sql) -> None:
    """By a raw INSERT, which no trigger refuses, as it would cost each claim too much."""
    dag_id, jobs = make_jobs(jsm, 3, max_attempts=1)
    make_workflow(jsm, "S", dag_id=dag_id)
    jsm.call("queue_jobs", dag_id=dag_id)
    make_attempt(jsm, jobs[1], "D")
    assert migrator.call("start_prune", dag_id=dag_id, older_than_seconds=0, statuses="S")["started"]
    jsm.raw("INSERT INTO job_instance (job_id, executor_type) VALUES (%s, 'X')", jobs[0])
    instance = admin.one("SELECT job_instance_id FROM job_instance WHERE job_id = %s", jobs[0])
    with admin.unchanged():
        done = migrator.call("prune_dag", dag_id=dag_id)
    assert done == {"num_rows": 0, "num_jobs": 0, "ended": False, "live_job_id": jobs[0]}
    jsm.call("log_running", job_instance_id=instance)
    jsm.call("log_done", job_instance_id=instance)
    while not migrator.call("prune_dag", dag_id=dag_id)["ended"]:
        pass
    assert admin.one("SELECT COUNT(*) FROM job WHERE dag_id = %s", dag_id) == 0


def test_a_snapshot_from_before_the_mark_does_not_help(
    jsm: Sql, migrator: Sql, open_as: Callable[..., Sql]
) -> None:
    dag_id, jobs = make_jobs(jsm, 2, max_attempts=1)
    jsm.call("queue_jobs", dag_id=dag_id)
    for job_id, status in zip(jobs, "ED", strict=True):
        make_attempt(jsm, job_id, status)
    old = open_as("admin")
    old.raw("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    old.raw("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    assert migrator.call("start_prune", dag_id=dag_id, older_than_seconds=0, statuses="E")["started"]
    with old.refused("DAG_PRUNED"):
        old.call("retry_job", job_id=jobs[0])
    with old.refused("DAG_PRUNED"):
        old.raw("UPDATE job SET status = 'G' WHERE job_id = %s", jobs[1])
    old.raw("ROLLBACK")


def test_jobs_without_a_dag(emptied: None, jsm: Sql, admin: Sql, migrator: Sql) -> None:
    jobs = {status: make_job(jsm, status, dag_id=None) for status in "GQIRFD"}
    upstream = make_job(jsm, "G", dag_id=None)
    downstream = make_job(jsm, "G", dag_id=None)
    admin.raw("INSERT INTO job_edge VALUES (%s, %s)", upstream, downstream)
    jsm.call("queue_job", job_id=upstream)
    make_attempt(jsm, upstream, "D")
    make_attempt(jsm, downstream, "D")
    of_a_dag = make_job(jsm, "D")

    def find(**more: Any) -> list[int]:
        return list(migrator.call("find_prunable_jobs", **{"older_than_seconds": 0, **more})["job_ids"])

    assert find(older_than_seconds=YEAR) == []
    assert find() == [downstream, upstream, jobs["D"]]
    assert find(statuses="E") == [jobs["F"]]
    assert find(statuses="DE", before_job_id=upstream) == [jobs["D"], jobs["F"]]
    asked = [*jobs.values(), upstream, downstream, of_a_dag, 10**15]
    assert migrator.call("prune_jobs", job_ids=asked, older_than_seconds=YEAR)["job_ids"] == []
    done = migrator.call("prune_jobs", job_ids=asked, older_than_seconds=0)
    # the upstream job goes when the downstream job has gone
    assert done["job_ids"] == [jobs["D"], downstream]
    assert migrator.call("prune_jobs", job_ids=asked, older_than_seconds=0)["job_ids"] == [upstream]
    assert migrator.call("prune_jobs", job_ids=asked, older_than_seconds=0, statuses="E")["job_ids"] == [
        jobs["F"]
    ]
    left = [job_id for (job_id,) in admin.raw("SELECT job_id FROM job ORDER BY 1")]
    assert left == [*(jobs[status] for status in "GQIR"), of_a_dag]
    assert admin.one("SELECT COUNT(*) FROM job_edge") == 0


def test_parameters_are_checked(migrator: Sql) -> None:
    with migrator.refused("MISSING_PARAMETER", "older_than_seconds"):
        migrator.call("find_prunable_dags")
    for statuses in ("R", "X", "", "DX"):
        with migrator.refused("UNKNOWN_STATUS"):
            migrator.call("start_prune", dag_id=1, older_than_seconds=0, statuses=statuses)
    with migrator.refused("INVALID_PARAMETER", "100 years"):
        migrator.call("find_prunable_jobs", older_than_seconds=10**12)
    with migrator.refused("UNKNOWN_DAG"):
        migrator.call("start_prune", dag_id=10**15, older_than_seconds=0)
    with migrator.refused("MISSING_PARAMETER", "dag_id"):
        migrator.call("prune_dag")


def test_a_dag_that_is_not_marked_is_not_deleted(jsm: Sql, migrator: Sql) -> None:
    dag_id = finished(jsm)
    with migrator.unchanged(), migrator.refused("INVALID_PARAMETER", "start_prune"):
        migrator.call("prune_dag", dag_id=dag_id)


def test_old_requests_are_forgotten(emptied: None, jsm: Sql, admin: Sql, open_as: Callable[..., Sql]) -> None:
    keys = [fresh("key") for _ in range(6)]
    dags = [jsm.call("add_task_dag", user="a", dag_hash="h", request_key=key)["dag_id"] for key in keys]
    admin.raw(
        "UPDATE api_request SET created_date = UTC_TIMESTAMP(6) - INTERVAL 25 HOUR WHERE request_key IN %s",
        keys[:4],
    )
    with jsm.refused("INVALID_PARAMETER", "3600"):
        jsm.call("forget_requests", older_than_seconds=3599)
    # one that is just being repeated is passed over
    repeats = open_as("jsm", autocommit=False)
    assert repeats.call("add_task_dag", user="a", dag_hash="h", request_key=keys[0])["dag_id"] == dags[0]
    assert jsm.call("forget_requests", max_rows=2) == {"num_rows": 1}
    assert jsm.call("forget_requests") == {"num_rows": 2}
    repeats.raw("ROLLBACK")
    assert jsm.call("forget_requests", older_than_seconds=90_000 + 3600) == {"num_rows": 0}
    assert jsm.call("forget_requests") == {"num_rows": 1}
    assert sorted(key for (key,) in admin.raw("SELECT request_key FROM api_request")) == sorted(keys[4:])
    # what is kept is answered as before
    assert jsm.call("add_task_dag", user="a", dag_hash="h", request_key=keys[5])["dag_id"] == dags[5]


def test_sent_notifications_are_forgotten(emptied: None, admin: Sql, migrator: Sql) -> None:
    for sent in ("NULL", "UTC_TIMESTAMP(6)", "UTC_TIMESTAMP(6) - INTERVAL 2 DAY"):
        admin.raw(f"INSERT INTO notification (message, sent_date) VALUES ('m', {sent})")
    assert migrator.call("forget_notifications", older_than_seconds=86_400) == {"num_rows": 1}
    assert migrator.call("forget_notifications", older_than_seconds=86_400) == {"num_rows": 0}
    assert admin.raw("SELECT notification_id FROM notification ORDER BY 1") == [(1,), (2,)]


def test_pruning_knows_every_table_that_belongs_to_a_dag(admin: Sql) -> None:
    """A new table with a foreign key to one of these must be pruned, too."""
    children = admin.raw(
        "SELECT DISTINCT TABLE_NAME, REFERENCED_TABLE_NAME FROM information_schema.KEY_COLUMN_USAGE"
        " WHERE TABLE_SCHEMA = DATABASE() AND REFERENCED_TABLE_NAME IS NOT NULL"
    )
    found = {child for child, parent in children if parent in PRUNED_TABLES} - {"pruned_dag"}
    assert found <= set(PRUNED_TABLES), "prune_job_rows or prune_dag must delete their rows"
    columns = admin.raw(
        "SELECT DISTINCT TABLE_NAME FROM information_schema.COLUMNS JOIN information_schema.TABLES"
        " USING (TABLE_SCHEMA, TABLE_NAME) WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'BASE TABLE'"
        " AND COLUMN_NAME IN ('dag_id', 'workflow_id', 'workflow_run_id', 'job_id', 'job_instance_id')"
    )
    assert {name for (name,) in columns} - {"pruned_dag"} <= set(PRUNED_TABLES)


def test_nobody_but_the_migrator_prunes(jsm: Sql) -> None:
    assert {"start_prune", "prune_dag", "prune_jobs", "forget_notifications"} & set(jsm.facts.public) == set()
    assert "forget_requests" in jsm.facts.public
