"""The hot reads use the index that is meant for them, on tables with a thousand rows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from sql_helpers import (
    Facts,
    Sql,
    claim,
    make_jobs,
    make_run,
    make_submitted,
    make_workflow,
    outcomes,
)

JOBS = 600


@pytest.fixture(scope="module")
def filled(throwaway: Any, facts: Facts) -> tuple[Sql, int]:
    """Two dags, one of them done; of the other a hundred jobs are queued and as many run."""
    jsm, admin = Sql(throwaway.connect("jsm"), facts), Sql(throwaway.connect("admin"), facts)
    dag_id = 0
    for number in range(2):
        dag_id, jobs = make_jobs(jsm, JOBS, [(n, n + 1) for n in range(0, JOBS - 1, 50)])
        limit = {"job_ids": jobs[100:300]} if number == 1 else {}
        jsm.call("queue_jobs", dag_id=dag_id, **limit)
        while live := claim(jsm, dag_id, max_jobs=100 if number == 1 else 1000):
            words = ("running",) if number == 1 else ("running", "done")
            events = [{"event": word, "job_instance_id": i} for i in live for word in words]
            assert set(outcomes(jsm, events)) == {"OK"}
            if number == 1:
                break
    for table in ("job", "job_instance", "job_edge", "job_gate", "job_status_log", "task_dag"):
        admin.raw(f"ANALYZE TABLE {table}")
    return admin, dag_id


def keys(admin: Sql, statement: str, *args: Any) -> dict[str, str | None]:
    """The index that EXPLAIN names for each table."""
    with admin.conn.cursor() as cursor:
        cursor.execute("EXPLAIN FORMAT=TRADITIONAL " + statement, args or None)
        names = [column[0] for column in cursor.description]
        rows = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
    return {row["table"]: row["key"] for row in rows}


PLANS = [
    (
        "the queue",
        "SELECT job_id FROM job FORCE INDEX (status) WHERE status='Q' AND dag_id <=> {dag}"
        " ORDER BY job_id LIMIT 100 FOR UPDATE SKIP LOCKED",
        {"job": "status"},
    ),
    (
        "the runs that have ended",
        "SELECT workflow_run_id, outcome FROM finished_runs",
        {"workflow": "PRIMARY", "job": "status"},
    ),
    (
        "how many are live",
        "SELECT COUNT(*) FROM job WHERE dag_id={dag} AND status IN ('I', 'R')",
        {"job": "status"},
    ),
    (
        "get_queued",
        "SELECT document FROM get_queued WHERE dag_id={dag}",
        {"job": "status", "newest": "attempt_once"},
    ),
    (
        "the change cursor",
        "SELECT * FROM get_job_changes WHERE shard={shard} AND change_id > 100 ORDER BY change_id LIMIT 100",
        {"job_status_log": "change_shard"},
    ),
    (
        "the heads of the cursor",
        "SELECT shard, MAX(change_id) FROM get_job_changes GROUP BY shard",
        {"job_status_log": "change_shard"},
    ),
    (
        "a job by its hash",
        "SELECT job_id FROM job WHERE dag_id={dag} AND job_hash='17'",
        {"job": "job_hash_once"},
    ),
    (
        "what is late",
        "SELECT job_id FROM job_instance WHERE report_by_date < UTC_TIMESTAMP(6) - INTERVAL 1 DAY"
        " ORDER BY report_by_date LIMIT 20000",
        {"job_instance": "report_by_date"},
    ),
    (
        "the live instances of an executor",
        "SELECT document FROM get_live_job_instances WHERE executor_type='LocalExecutor'"
        " AND job_instance_id > 0 ORDER BY job_instance_id LIMIT 1000",
        {"job_instance": "report_by_date", "job": "PRIMARY"},
    ),
    (
        "the downstreams of a job",
        "SELECT downstream_job_id FROM job_edge WHERE upstream_job_id=1",
        {"job_edge": "PRIMARY"},
    ),
    (
        "counts of a workflow",
        "SELECT COUNT(*) FROM job WHERE dag_id={dag} AND status='D'",
        {"job": "status"},
    ),
]


@pytest.mark.parametrize(
    ("statement", "expected"), [plan[1:] for plan in PLANS], ids=[plan[0] for plan in PLANS]
)
def test_uses_its_index(filled: tuple[Sql, int], statement: str, expected: dict[str, str]) -> None:
    admin, dag_id = filled
    # not the one that the only writer was given: there, the primary key would do as well
    shard = admin.one(
        "SELECT change_shard.change_shard FROM change_shard LEFT JOIN job_status_log USING (change_shard)"
        " GROUP BY change_shard.change_shard ORDER BY COUNT(job_id), 1 LIMIT 1"
    )
    found = keys(admin, statement.format(dag=dag_id, shard=shard))
    assert {table: found.get(table) for table in expected} == expected, found


def test_a_claim_locks_no_more_than_it_takes(filled: tuple[Sql, int], throwaway: Any, facts: Facts) -> None:
    """Two claims at once in one dag: neither waits, and they share the queue."""
    _, dag_id = filled
    first, second = (Sql(throwaway.connect("jsm", autocommit=False), facts) for _ in range(2))
    one = set(claim(first, dag_id, max_jobs=30))
    two = set(claim(second, dag_id, max_jobs=30))
    assert (len(one), len(two), one & two) == (30, 30, set())
    first.raw("ROLLBACK")
    second.raw("ROLLBACK")


def test_a_report_locks_no_other_job(filled: tuple[Sql, int], throwaway: Any, facts: Facts) -> None:
    admin, dag_id = filled
    live = [
        instance
        for (instance,) in admin.raw(
            "SELECT job_instance_id FROM job JOIN job_instance USING (job_id)"
            " WHERE dag_id=%s AND job_instance.status='R' ORDER BY 1",
            dag_id,
        )
    ]
    first, second = (Sql(throwaway.connect("jsm", autocommit=False), facts) for _ in range(2))
    second.raw("SET SESSION innodb_lock_wait_timeout = 10")
    first.call("log_done", job_instance_id=live[1])
    assert outcomes(first, [{"event": "done", "job_instance_id": i} for i in live[3:60:2]])
    # the neighbours of each, one by one and together
    second.call("log_error", job_instance_id=live[2], error_message="x")
    assert outcomes(second, [{"event": "done", "job_instance_id": i} for i in live[4:60:2]])
    assert json.dumps(second.call("expire_job_instances"))
    second.call("queue_jobs", dag_id=dag_id, max_jobs=50)
    first.raw("ROLLBACK")
    second.raw("ROLLBACK")


# Runs that are submitted -----------------------------------------------------------------------------


@dataclass
class Crowd:
    """Dags of submitted runs, with many jobs queued or few."""

    open: Callable[..., Sql]
    jsm: Sql
    admin: Sql
    dags: list[int]
    runs: list[int]


@pytest.fixture(params=[20, 1500], ids=["few", "many"])
def crowd(
    request: pytest.FixtureRequest, filled: tuple[Sql, int], throwaway: Any, facts: Facts
) -> Iterator[Crowd]:
    """Four such dags; of the first 5 jobs are live. Beside them are those of ``filled``."""
    opened: list[Sql] = []

    def open_(role: str = "jsm", **kw: Any) -> Sql:
        opened.append(Sql(throwaway.connect(role, **kw), facts))
        return opened[-1]

    jsm, admin = open_(), open_("admin")
    for (workflow_id,) in admin.raw("SELECT workflow_id FROM workflow WHERE status = 'R'"):
        jsm.call("stop_workflow", workflow_id=workflow_id, kill=1)
    dags = [make_jobs(jsm, request.param)[0] for _ in range(4)]
    runs = [make_submitted(jsm, dag_id) for dag_id in dags]
    claim(jsm, dags[0], max_jobs=5)
    for table in ("job", "job_instance", "workflow", "workflow_run", "task_dag"):
        admin.raw(f"ANALYZE TABLE {table}")
    yield Crowd(open_, jsm, admin, dags, runs)
    for one in opened:
        one.conn.close()


def rows_read(jsm: Sql, procedure: str, **given: Any) -> int:
    """How many rows or index entries a CALL reads, in tables of any kind."""

    def read() -> int:
        return sum(int(number) for _, number in jsm.raw("SHOW SESSION STATUS LIKE 'Handler_read%%'"))

    # once before, for what is read of the routines themselves
    jsm.call(procedure, **given)
    before, looked = read(), read()
    jsm.call(procedure, **given)
    return read() - looked - (looked - before)


def rows_locked(crowd: Crowd, locker: Sql) -> int:
    """How many rows and index entries a transaction has locked."""
    sql = "SELECT trx_rows_locked FROM information_schema.INNODB_TRX WHERE trx_mysql_thread_id = %s"
    deadline = time.monotonic() + 30
    # it shows an old picture to whoever looks again within 100 ms
    time.sleep(0.15)
    while not (rows := crowd.admin.raw(sql, locker.conn.thread_id())):
        assert time.monotonic() < deadline
        time.sleep(0.15)
    return int(rows[0][0])


@pytest.mark.parametrize("of", ["a run", "a dag", "any"])
def test_a_claim_reads_what_it_takes_however_many_are_queued(crowd: Crowd, of: str) -> None:
    given = {"a run": {"workflow_run_id": crowd.runs[1]}, "a dag": {"dag_id": crowd.dags[1]}, "any": {}}[of]
    assert rows_read(crowd.jsm, "claim_jobs", executor_type="X", max_jobs=4, **given) < 300


@pytest.mark.parametrize("of", ["a run", "a dag", "any"])
def test_a_claim_locks_what_it_takes_however_many_are_queued(crowd: Crowd, of: str) -> None:
    given = {"a run": {"workflow_run_id": crowd.runs[1]}, "a dag": {"dag_id": crowd.dags[1]}, "any": {}}[of]
    claimer = crowd.open(autocommit=False)
    assert len(claimer.call("claim_jobs", executor_type="X", max_jobs=4, **given)["job_instances"]) == 4
    assert rows_locked(crowd, claimer) < 50


def test_a_heartbeat_locks_the_dag_and_its_run(crowd: Crowd) -> None:
    """And no entry of an index, which others lock after the run."""
    client = crowd.open(autocommit=False)
    client.call("log_heartbeat", dag_id=crowd.dags[1])
    assert rows_locked(crowd, client) == 2


def test_ends_are_looked_for_without_a_scan(crowd: Crowd) -> None:
    """Neither of the jobs that are queued, nor of those that have ended."""
    assert rows_read(crowd.jsm, "end_workflow_runs") < 300


def test_an_end_reads_no_other_dag(crowd: Crowd) -> None:
    # it counts the jobs of its own
    own = crowd.admin.one("SELECT COUNT(*) FROM job WHERE dag_id = %s", crowd.dags[1])
    assert rows_read(crowd.jsm, "end_workflow_run", workflow_run_id=crowd.runs[1]) < own + 200


def test_an_explanation_reads_no_other_job(crowd: Crowd) -> None:
    job_id = crowd.admin.one("SELECT MAX(job_id) FROM job WHERE dag_id = %s", crowd.dags[1])
    before = crowd.admin.raw("SHOW SESSION STATUS LIKE 'Handler_read%%'")
    crowd.admin.raw("SELECT * FROM job_explanations WHERE job_id = %s", job_id)
    after = crowd.admin.raw("SHOW SESSION STATUS LIKE 'Handler_read%%'")
    # but for those that are live anywhere, which are counted by their dags
    live = crowd.admin.one("SELECT COUNT(*) FROM job WHERE status IN ('I', 'R')")
    assert sum(int(number) for _, number in after) - sum(int(number) for _, number in before) < 300 + 3 * live


def test_runs_of_two_workflows_do_not_wait_for_each_other(crowd: Crowd) -> None:
    """Runs are found by their workflow, not by the index of all live ones."""
    workflows = [make_workflow(crowd.jsm) for _ in range(6)]
    runs = [make_run(crowd.jsm, workflow_id=workflow_id) for workflow_id in workflows]
    crowd.admin.raw("ANALYZE TABLE workflow_run")
    first, second = (crowd.open(autocommit=False) for _ in range(2))
    second.raw("SET SESSION innodb_lock_wait_timeout = 10")
    for team, (superseded, stopped, ended) in ((first, (0, 2, 4)), (second, (1, 3, 5))):
        make_run(team, workflow_id=workflows[superseded], stale_after_seconds=0)
        make_run(team, workflow_id=workflows[superseded])
        team.call("stop_workflow", workflow_id=workflows[stopped], kill=1)
        team.call("submit_workflow_run", workflow_run_id=runs[ended])
        assert team.call("end_workflow_run", workflow_run_id=runs[ended])["status"] == "D"
        # that of the other one is passed over
        team.call("end_workflow_runs")
