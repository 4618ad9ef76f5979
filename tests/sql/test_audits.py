"""The audit views find what they are for: each on rows that contradict each other, with the triggers away."""

from __future__ import annotations

from typing import Any

import pytest
from sql_helpers import (
    SQL,
    Facts,
    Sql,
    differences,
    make_attempt,
    make_dag,
    make_instance,
    make_job,
    make_jobs,
    make_run,
    make_workflow,
)

AUDITS = sorted(path.stem for path in SQL.glob("views/audit_*.sql"))

# Statements that break an invariant, with ids of what was made before, and who must find it.
LOG = "INSERT INTO job_status_log (job_id, from_status, status, attempt_number, change_shard, status_date)"
INSTANCE_LOG = "INSERT INTO job_instance_status_log (job_instance_id, from_status, status, status_date)"
VIOLATIONS: dict[str, tuple[str, list[str]]] = {
    "an attempt too many": (
        "audit_num_attempts",
        ["UPDATE job SET num_attempts = 2 WHERE job_id = {running}"],
    ),
    "an attempt too few": (
        "audit_num_attempts",
        ["UPDATE job SET num_attempts = 0 WHERE job_id = {done}"],
    ),
    "a reset that lost its attempts": (
        "audit_num_attempts",
        ["UPDATE job SET attempts_before_reset = 0 WHERE job_id = {reset}"],
    ),
    "an instance that was not counted": (
        "audit_num_attempts",
        [
            "INSERT INTO job_instance (job_id, attempt_number, executor_type, status)"
            " VALUES ({done}, 2, 'x', 'E')"
        ],
    ),
    "a job that is ahead of its instance": (
        "audit_job_follows_instance",
        ["UPDATE job SET status = 'D' WHERE job_id = {running}"],
    ),
    "a job that stayed behind its instance": (
        "audit_job_follows_instance",
        ["UPDATE job_instance SET status = 'D' WHERE job_instance_id = {running_instance}"],
    ),
    "a job that rests in E": (
        "audit_job_follows_instance",
        ["UPDATE job SET status = 'E' WHERE job_id = {retried}"],
    ),
    "a live job without an instance": (
        "audit_job_follows_instance",
        ["UPDATE job SET status = 'I' WHERE job_id = {registered}"],
    ),
    "a fatal job whose instance is done": (
        "audit_job_follows_instance",
        ["UPDATE job SET status = 'F' WHERE job_id = {done}"],
    ),
    "a queued job whose instance lives": (
        "audit_job_follows_instance",
        ["UPDATE job SET status = 'Q' WHERE job_id = {running}"],
    ),
    "an old instance that lives": (
        "audit_one_live_instance",
        ["UPDATE job_instance SET status = 'R' WHERE job_instance_id = {old_instance}"],
    ),
    "an instance that lives on under a reset job": (
        "audit_one_live_instance",
        ["UPDATE job SET status = 'G' WHERE job_id = {running}"],
    ),
    "a done job after an upstream that is not": (
        "audit_done_after_upstreams",
        ["UPDATE job SET status = 'D' WHERE job_id = {waiting}"],
    ),
    "an upstream that went back": (
        "audit_queued_after_upstreams",
        ["UPDATE job SET status = 'G' WHERE job_id = {upstream_done}"],
    ),
    "a queued job whose upstream is not done": (
        "audit_queued_after_upstreams",
        ["UPDATE job SET status = 'Q' WHERE job_id = {waiting}"],
    ),
    "a failed job whose upstream is not done": (
        "audit_queued_after_upstreams",
        ["UPDATE job SET status = 'F' WHERE job_id = {waiting}"],
    ),
    "a gate that counts too many": (
        "audit_gate",
        ["UPDATE job_gate SET upstreams_pending = 2 WHERE job_id = {waiting}"],
    ),
    "a gate that counts too few": (
        "audit_gate",
        ["UPDATE job_gate SET upstreams_pending = 0 WHERE job_id = {waiting}"],
    ),
    "a gate that is not there": ("audit_gate", ["DELETE FROM job_gate WHERE job_id = {waiting}"]),
    "a gate without edges": (
        "audit_gate",
        ["DELETE FROM job_edge WHERE downstream_job_id = {waiting}"],
    ),
    "an edge that no gate counts": (
        "audit_gate",
        ["INSERT INTO job_edge VALUES ({registered}, {waiting})"],
    ),
    "a transition that is not legal": (
        "audit_job_history",
        [
            LOG + " VALUES ({registered}, 'G', 'D', 0, 0, UTC_TIMESTAMP(6))",
            "UPDATE job SET status = 'D' WHERE job_id = {registered}",
        ],
    ),
    "a state that no history tells": (
        "audit_job_history",
        ["UPDATE job SET status = 'Q' WHERE job_id = {registered}"],
    ),
    "a history that jumps": (
        "audit_job_history",
        [
            LOG + " VALUES ({registered}, 'Q', 'I', 0, 0, UTC_TIMESTAMP(6))",
            "UPDATE job SET status = 'I' WHERE job_id = {registered}",
        ],
    ),
    "a job that begins in the middle": (
        "audit_job_history",
        ["UPDATE job_status_log SET status = 'Q' WHERE job_id = {registered}"],
    ),
    "a beginning in the middle of a history": (
        "audit_job_history",
        [LOG + " VALUES ({done}, NULL, 'G', 0, 0, UTC_TIMESTAMP(6))"],
    ),
    "a history of no job": (
        "audit_job_history",
        [LOG + " VALUES (1000000, NULL, 'G', 0, 0, UTC_TIMESTAMP(6))"],
    ),
    "an instance's state that no history tells": (
        "audit_job_instance_history",
        ["UPDATE job_instance SET status = 'R' WHERE job_instance_id = {old_instance}"],
    ),
    "an instance's history that jumps": (
        "audit_job_instance_history",
        [INSTANCE_LOG + " VALUES ({done_instance}, 'R', 'E', UTC_TIMESTAMP(6))"],
    ),
    "an instance that begins in the middle": (
        "audit_job_instance_history",
        [
            "DELETE FROM job_instance_status_log WHERE job_instance_id = {running_instance}",
            INSTANCE_LOG + " VALUES ({running_instance}, NULL, 'R', UTC_TIMESTAMP(6))",
        ],
    ),
    "an instance's transition that is not legal": (
        "audit_job_instance_history",
        [
            "SET foreign_key_checks = 0",
            INSTANCE_LOG + " VALUES ({done_instance}, 'D', 'E', UTC_TIMESTAMP(6))",
            "SET foreign_key_checks = 1",
            "UPDATE job_instance SET status = 'E' WHERE job_instance_id = {done_instance}",
        ],
    ),
    "a job without a history": (
        "audit_missing_history",
        ["DELETE FROM job_status_log WHERE job_id = {registered}"],
    ),
    "an instance without a history": (
        "audit_missing_history",
        ["DELETE FROM job_instance_status_log WHERE job_instance_id = {done_instance}"],
    ),
    "two live runs": (
        "audit_one_live_run",
        ["UPDATE workflow_run SET status = 'R' WHERE workflow_run_id = {stopped_run}"],
    ),
}


@pytest.fixture(scope="module")
def untriggered(throwaway: Any, facts: Facts) -> tuple[Any, dict[str, int]]:
    """A database with jobs in every state, from which the triggers were taken: (database, ids)."""
    jsm, admin = Sql(throwaway.connect("jsm"), facts), Sql(throwaway.connect("admin"), facts)
    ids: dict[str, int] = {}
    dag_id = make_dag(jsm)
    ids["registered"] = make_job(jsm, dag_id=dag_id)
    ids["running"], ids["running_instance"] = make_instance(jsm, "R", dag_id=dag_id)
    ids["done"], ids["done_instance"] = make_instance(jsm, "D", dag_id=dag_id)
    ids["retried"], ids["old_instance"] = make_instance(jsm, "E", dag_id=dag_id)
    make_attempt(jsm, ids["retried"], "I")
    ids["reset"], _ = make_instance(jsm, "R", dag_id=dag_id)
    jsm.call("reset_job", job_id=ids["reset"])
    make_job(jsm, "F", dag_id=dag_id)
    later, (upstream, ids["upstream_done"], ids["waiting"], _) = make_jobs(jsm, 4, [(0, 2), (1, 3)])
    jsm.call("queue_jobs", dag_id=later)
    make_attempt(jsm, ids["upstream_done"], "D")
    jsm.raw("INSERT INTO job_edge VALUES (%s, %s)", ids["upstream_done"], ids["waiting"])
    assert ids["registered"] < upstream < ids["waiting"]
    workflow = make_workflow(jsm)
    ids["stopped_run"] = make_run(jsm, workflow_id=workflow)
    make_run(jsm, workflow_id=workflow)
    assert throwaway.audits() == {}
    names = admin.raw(
        "SELECT TRIGGER_NAME FROM information_schema.TRIGGERS WHERE TRIGGER_SCHEMA=%s", throwaway.name
    )
    for (name,) in names:
        admin.raw(f"DROP TRIGGER {name}")
    return throwaway, ids


@pytest.mark.parametrize("what", VIOLATIONS)
def test_finds(untriggered: tuple[Any, dict[str, int]], facts: Facts, what: str) -> None:
    database, ids = untriggered
    view, statements = VIOLATIONS[what]
    admin = Sql(database.connect("admin"), facts)
    assert database.audits() == {}
    before = admin.snapshot()
    admin.raw("START TRANSACTION")
    for statement in statements:
        admin.raw(statement.format(**ids))
    found = admin.raw(f"SELECT * FROM {view}")
    admin.raw("ROLLBACK")
    assert found, f"{view} does not find {what}"
    named = {value for row in found for value in row}
    assert named & {*ids.values(), 1000000}, "it says which row it is"
    assert differences(before, admin.snapshot()) == {}


def test_every_audit_is_tried() -> None:
    assert sorted({view for view, _ in VIOLATIONS.values()}) == AUDITS


@pytest.mark.parametrize("view", AUDITS)
def test_jqs_reads_it(jsm: Sql, jqs: Sql, view: str) -> None:
    make_instance(jsm, "R")
    assert jqs.raw(f"SELECT * FROM {view}") == []
