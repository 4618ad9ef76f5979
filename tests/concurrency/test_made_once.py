"""What is made or found by several calls at once is made once, and all are told the same."""

from __future__ import annotations

from typing import Any

import pytest
from race_helpers import (
    Database,
    Team,
    job_history,
    jobs_of,
    make_dag,
    make_jobs,
    make_queued,
    rounds,
)

RUN: dict[str, Any] = {"user": "ann", "hostname": "login1", "pid": 4242}


def workflow(dag_id: int, args: str = "v1", workflow_hash: str = "h1") -> dict[str, Any]:
    """The arguments of add_workflow."""
    return {
        "dag_id": dag_id,
        "workflow_args": args,
        "workflow_hash": workflow_hash,
        "name": "w",
        "user": "ann",
    }


def test_two_instances_of_one_job(race: Database, pair: Team) -> None:
    for job_id in make_queued(race, pair.connections[0], 40):
        outcomes = pair.all("add_job_instance", job_id=job_id, executor_type="Race")
        assert sorted(str(one.error) for one in outcomes) == ["JOB_NOT_QUEUED", "None"]
        assert race.value("SELECT COUNT(*) FROM job_instance WHERE job_id = %s", job_id) == 1
        assert job_history(race, job_id) == "GQI"


def test_sixteen_instances_of_one_job(race: Database, sixteen: Team) -> None:
    for job_id in make_queued(race, sixteen.connections[0], 8):
        outcomes = sixteen.all("add_job_instance", job_id=job_id, executor_type="Race")
        assert sorted(str(one.error) for one in outcomes) == ["JOB_NOT_QUEUED"] * 15 + ["None"]
        assert race.value("SELECT COUNT(*) FROM job_instance WHERE job_id = %s", job_id) == 1


def test_an_instance_asked_for_under_its_attempt_number(race: Database, sixteen: Team) -> None:
    """The attempt number makes the call repeatable: everybody gets the one instance."""
    for job_id in make_queued(race, sixteen.connections[0], 8):
        outcomes = sixteen.all("add_job_instance", job_id=job_id, executor_type="Race", attempt_number=1)
        assert {one.error for one in outcomes} == {None}
        assert len({one.document["job_instance_id"] for one in outcomes}) == 1
        assert job_history(race, job_id) == "GQI"


def test_raw_inserts_of_instances(race: Database, sixteen: Team) -> None:
    """The rule is the trigger's, so it holds for writers that call no procedure."""
    for job_id in make_queued(race, sixteen.connections[0], 8):

        def insert(conn: Any, job_id: int = job_id) -> int:
            with conn.cursor() as cursor:
                try:
                    cursor.execute(
                        "INSERT INTO job_instance (job_id, executor_type) VALUES (%s, 'Raw')", (job_id,)
                    )
                except Exception as error:
                    return int(error.args[0])
                return 0

        answers = sorted(sixteen.each(*[insert] * 16))
        assert answers == [0, *[32031] * 15]  # JOB_NOT_QUEUED
        assert job_history(race, job_id) == "GQI"


def test_queued_twice_at_once(race: Database, sixteen: Team) -> None:
    conn = sixteen.connections[0]
    for job_id in make_jobs(race, conn, make_dag(race, conn), 8):
        assert {one.error for one in sixteen.all("queue_job", job_id=job_id)} == {None}
        assert job_history(race, job_id) == "GQ"


def test_many_queued_at_once(race: Database, sixteen: Team) -> None:
    conn = sixteen.connections[0]
    for _ in range(3):
        dag_id = make_dag(race, conn)
        ids = make_jobs(race, conn, dag_id, 100)
        outcomes = sixteen.all("queue_jobs", dag_id=dag_id)
        assert sum(one.document["num_queued"] for one in outcomes) == 100
        histories = race.query(
            "SELECT job_id, COUNT(*) FROM job_status_log WHERE dag_id = %s AND status = 'Q' GROUP BY job_id",
            dag_id,
        )
        assert sorted(histories) == [(job_id, 1) for job_id in ids]


def test_the_same_jobs_added_at_once(race: Database, sixteen: Team) -> None:
    conn = sixteen.connections[0]
    for _ in range(3):
        dag_id = make_dag(race, conn)
        jobs = jobs_of(40)
        for upstream, downstream in zip(jobs[:20], jobs[20:], strict=True):
            downstream["upstream_job_hashes"] = [upstream["job_hash"], jobs[0]["job_hash"]]
        outcomes = sixteen.all("add_jobs", dag_id=dag_id, jobs=jobs)
        assert {one.error for one in outcomes} == {None}
        assert len({str(one.document) for one in outcomes}) == 1
        ids = outcomes[0].document["job_ids"]
        assert race.value("SELECT COUNT(*) FROM job WHERE dag_id = %s", dag_id) == 40
        assert ids == sorted(set(ids))
        assert race.value("SELECT COUNT(*) FROM job_edge WHERE upstream_job_id >= %s", ids[0]) == 39
        # Each once: a gate that were counted twice would never open.
        pending = race.query("SELECT job_id, upstreams_pending FROM job_gate WHERE job_id >= %s", ids[0])
        assert sorted(pending) == [(job_id, 1 if n == 0 else 2) for n, job_id in enumerate(ids[20:])]


def test_the_same_job_added_at_once(race: Database, sixteen: Team) -> None:
    conn = sixteen.connections[0]
    dag_id = make_dag(race, conn)
    for n in range(6):
        job = {"dag_id": dag_id, "name": "j", "job_hash": str(n), "command": "true"}
        outcomes = sixteen.all("add_job", **job)
        assert {one.error for one in outcomes} == {None}
        assert len({str(one.document) for one in outcomes}) == 1
    assert race.value("SELECT COUNT(*) FROM job") == 6


def test_the_same_workflow_added_at_once(race: Database, sixteen: Team) -> None:
    for n in range(6):
        dag_id = make_dag(race, sixteen.connections[0])
        outcomes = sixteen.all("add_workflow", **workflow(dag_id, workflow_hash=f"h{n}"))
        assert {one.error for one in outcomes} == {None}
        assert len({str(one.document) for one in outcomes}) == 1
    assert race.value("SELECT COUNT(*) FROM workflow") == 6


def test_two_binds_at_once(race: Database, pair: Team) -> None:
    """One workflow_hash, two dags: one is refused by name."""
    conn = pair.connections[0]
    for n in range(15):
        first, second = make_dag(race, conn), make_dag(race, conn)
        outcomes = pair.race(
            ("add_workflow", workflow(first, workflow_hash=f"h{n}")),
            ("add_workflow", workflow(second, workflow_hash=f"h{n}")),
        )
        assert sorted(str(one.error) for one in outcomes) == ["None", "WORKFLOW_HASH_TAKEN"]
        assert race.value("SELECT COUNT(*) FROM workflow WHERE workflow_hash = %s", f"h{n}") == 1


def test_runs_started_at_once(race: Database, sixteen: Team) -> None:
    """Each gets a run of its own; the one that came last is the live one, the others are superseded."""
    for n in range(4):
        dag_id = make_dag(race, sixteen.connections[0])
        document = race.call(
            sixteen.connections[0], "add_workflow", **workflow(dag_id, workflow_hash=f"h{n}")
        )
        workflow_id = document["workflow_dct"]["id"]
        outcomes = sixteen.all("add_workflow_run", workflow_id=workflow_id, **RUN)
        assert {one.error for one in outcomes} == {None}
        runs = race.query(
            "SELECT workflow_run_id, status FROM workflow_run WHERE workflow_id = %s ORDER BY 1", workflow_id
        )
        assert [run for run, _ in runs] == sorted(one.document["workflow_run_id"] for one in outcomes)
        assert [status for _, status in runs] == ["S"] * 15 + ["R"]


def test_raw_inserts_of_runs(race: Database, sixteen: Team) -> None:
    dag_id = make_dag(race, sixteen.connections[0])
    document = race.call(sixteen.connections[0], "add_workflow", **workflow(dag_id))

    def insert(conn: Any) -> int:
        with conn.cursor() as cursor:
            try:
                cursor.execute(
                    "INSERT INTO workflow_run (workflow_id, user, hostname, pid) VALUES (%s, 'ann', 'h', 1)",
                    (document["workflow_dct"]["id"],),
                )
            except Exception as error:
                return int(error.args[0])
            return 0

    assert sorted(sixteen.each(*[insert] * 16)) == [0, *[32042] * 15]  # WORKFLOW_RUN_ALIVE


def test_a_run_that_ends_while_another_starts(race: Database, pair: Team) -> None:
    conn = pair.connections[0]
    document = race.call(conn, "add_workflow", **workflow(make_dag(race, conn)))
    workflow_id = document["workflow_dct"]["id"]
    ends: set[str] = set()
    for _ in rounds(40, ends):
        run = race.call(conn, "add_workflow_run", workflow_id=workflow_id, **RUN)["workflow_run_id"]
        ended, started = pair.race(
            ("update_workflow_run", {"wfr_id": run, "status": "E"}),
            ("add_workflow_run", {"workflow_id": workflow_id, **RUN}),
        )
        assert started.accepted
        assert ended.error in (None, "WORKFLOW_RUN_ENDED")
        status = race.value("SELECT status FROM workflow_run WHERE workflow_run_id = %s", run)
        assert status == ("E" if ended.accepted else "S")
        ends.add(status)
    assert ends == {"E", "S"}, "the two never met: this shows nothing"


@pytest.mark.parametrize("procedure", ["add_task_dag", "add_workflow_run", "claim_jobs"])
def test_one_request_key_many_calls(race: Database, sixteen: Team, procedure: str) -> None:
    conn = sixteen.connections[0]
    for n in range(5):
        before = race.value("SELECT COUNT(*) FROM task_dag")
        arguments: dict[str, Any] = {"user": "ann", "dag_hash": "x"}
        if procedure == "add_workflow_run":
            document = race.call(
                conn, "add_workflow", **workflow(make_dag(race, conn), workflow_hash=f"h{n}")
            )
            arguments = {"workflow_id": document["workflow_dct"]["id"], **RUN}
        elif procedure == "claim_jobs":
            dag_id = make_dag(race, conn)
            make_queued(race, conn, 30, dag_id=dag_id)
            arguments = {"executor_type": "Race", "dag_id": dag_id, "max_jobs": 10}
        outcomes = sixteen.all(procedure, request_key=f"key-{n}", **arguments)
        assert {one.error for one in outcomes} == {None}
        assert len({str(one.document) for one in outcomes}) == 1
        if procedure == "add_task_dag":
            assert race.value("SELECT COUNT(*) FROM task_dag") == before + 1
        elif procedure == "add_workflow_run":
            assert race.value("SELECT COUNT(*) FROM workflow_run") == n + 1
        else:
            assert len(outcomes[0].document["job_instances"]) == 10
            assert race.value("SELECT COUNT(*) FROM job_instance") == 10 * (n + 1)


def test_one_request_key_for_two_things(race: Database, pair: Team) -> None:
    conn = pair.connections[0]
    workflow_id = race.call(conn, "add_workflow", **workflow(make_dag(race, conn)))["workflow_dct"]["id"]
    for n in range(10):
        outcomes = pair.race(
            ("add_task_dag", {"user": "ann", "dag_hash": "x", "request_key": f"k{n}"}),
            ("add_workflow_run", {"workflow_id": workflow_id, **RUN, "request_key": f"k{n}"}),
        )
        assert sorted(str(one.error) for one in outcomes) == ["None", "REQUEST_KEY_CONFLICT"]


def test_a_fatal_job_retried_at_once(race: Database, sixteen: Team) -> None:
    for job_id in make_queued(race, sixteen.connections[0], 6, max_attempts=1):
        document = race.call(sixteen.connections[0], "add_job_instance", job_id=job_id, executor_type="Race")
        race.call(
            sixteen.connections[0],
            "log_error",
            job_instance_id=document["job_instance_id"],
            error_message="no",
        )
        outcomes = sixteen.all("retry_job", job_id=job_id)
        assert {one.error for one in outcomes} == {None}
        assert {one.document["job_dct"]["max_attempts"] for one in outcomes} == {2}
        assert job_history(race, job_id) == "GQIEFQ"
