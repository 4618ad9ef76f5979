"""The rules are the triggers', so they hold for raw SQL too, at any isolation level and however timed."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from race_helpers import (
    Database,
    Refused,
    job_history,
    jobs_of,
    make_dag,
    make_live,
    report,
    wait_for_lock_waits,
)


class Diamond:
    """Upstream jobs ``first`` (DONE) and ``second`` (running) of one job ``last``."""

    def __init__(self, race: Database) -> None:
        self.conn = race.connect()
        dag_id = make_dag(race, self.conn)
        jobs = [*jobs_of(2), {**jobs_of(1, prefix="last")[0], "upstream_job_hashes": ["j0", "j1"]}]
        self.first, self.second, self.last = race.call(self.conn, "add_jobs", dag_id=dag_id, jobs=jobs)[
            "job_ids"
        ]
        race.call(self.conn, "queue_jobs", dag_id=dag_id)
        claimed = race.call(self.conn, "claim_jobs", executor_type="Race", dag_id=dag_id)["job_instances"]
        self.instances = {one["job_id"]: one["job_instance_id"] for one in claimed}
        report(
            race, self.conn, [{"event": "running", "job_instance_id": one} for one in self.instances.values()]
        )
        race.call(self.conn, "log_done", job_instance_id=self.instances[self.first])


def execute(conn: Any, sql: str, *arguments: Any) -> int:
    """Run a statement; gives 0, or the number of the error."""
    with conn.cursor() as cursor:
        try:
            cursor.execute(sql, arguments)
        except Exception as error:
            return int(error.args[0])
        return 0


def old_snapshot(race: Database) -> Any:
    """An admin's transaction in REPEATABLE READ that has read already, as a person's may have."""
    conn = race.connect("admin", autocommit=False)
    with conn.cursor() as cursor:
        cursor.execute("SET SESSION TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    return conn


def test_a_reset_while_the_downstream_job_is_being_queued(race: Database) -> None:
    jobs = Diamond(race)
    finishing = race.connect(autocommit=False)
    # By this the last job is in Q.
    race.once(finishing, "log_done", job_instance_id=jobs.instances[jobs.second])
    raw = race.connect("admin")
    answers: list[int] = []
    thread = threading.Thread(
        target=lambda: answers.append(
            execute(raw, "UPDATE job SET status = 'G' WHERE job_id = %s", jobs.first)
        )
    )
    thread.start()
    wait_for_lock_waits(race, [raw])
    finishing.commit()
    thread.join()
    assert answers == [32038]  # DOWNSTREAM_NOT_REGISTERED
    assert job_history(race, jobs.first) == "GQIRD"
    assert job_history(race, jobs.last) == "GQ"


def test_the_downstream_job_is_finished_while_its_upstream_is_reset(race: Database) -> None:
    jobs = Diamond(race)
    raw = race.connect("admin", autocommit=False)
    assert execute(raw, "UPDATE job SET status = 'G' WHERE job_id = %s", jobs.first) == 0
    finishing = race.connect()
    thread = threading.Thread(
        target=lambda: race.call(finishing, "log_done", job_instance_id=jobs.instances[jobs.second])
    )
    thread.start()
    thread.join(0.2)
    raw.commit()
    thread.join()
    assert job_history(race, jobs.last) == "G"
    assert race.value("SELECT upstreams_pending FROM job_gate WHERE job_id = %s", jobs.last) == 1


def test_an_old_snapshot_queues_no_job_whose_upstream_was_reset(race: Database) -> None:
    jobs = Diamond(race)
    race.call(jobs.conn, "log_done", job_instance_id=jobs.instances[jobs.second])
    race.call(jobs.conn, "reset_job", job_id=jobs.last)
    raw = old_snapshot(race)
    race.call(jobs.conn, "reset_job", job_id=jobs.first)
    # UPSTREAM_NOT_DONE
    assert execute(raw, "UPDATE job SET status = 'Q' WHERE job_id = %s", jobs.last) == 32035
    raw.rollback()


def test_an_old_snapshot_resets_no_job_whose_downstream_was_queued(race: Database) -> None:
    jobs = Diamond(race)
    raw = old_snapshot(race)
    race.call(jobs.conn, "log_done", job_instance_id=jobs.instances[jobs.second])
    assert execute(raw, "UPDATE job SET status = 'G' WHERE job_id = %s", jobs.first) == 32038
    raw.rollback()


def test_an_old_snapshot_takes_the_job_along(race: Database) -> None:
    """An instance made after the snapshot, of a job that was in G then."""
    jobs = Diamond(race)
    race.call(jobs.conn, "reset_job", job_id=jobs.second)
    raw = old_snapshot(race)
    race.call(jobs.conn, "queue_job", job_id=jobs.second)
    document = race.call(jobs.conn, "add_job_instance", job_id=jobs.second, executor_type="Race")
    sql = "UPDATE job_instance SET status = 'E' WHERE job_instance_id = %s"
    assert execute(raw, sql, document["job_instance_id"]) == 0
    raw.commit()
    assert job_history(race, jobs.second) == "GQIRGQIEQ"


def test_an_old_snapshot_starts_no_second_run(race: Database) -> None:
    conn = race.connect()
    document = race.call(
        conn,
        "add_workflow",
        dag_id=make_dag(race, conn),
        workflow_args="",
        workflow_hash="h",
        name="w",
        user="ann",
    )
    workflow_id = document["workflow_dct"]["id"]
    raw = old_snapshot(race)
    race.call(conn, "add_workflow_run", workflow_id=workflow_id, user="ann", hostname="h", pid=1)
    sql = "INSERT INTO workflow_run (workflow_id, user, hostname, pid) VALUES (%s, 'ann', 'h', 2)"
    assert execute(raw, sql, workflow_id) == 32042  # WORKFLOW_RUN_ALIVE
    raw.rollback()


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
def test_an_instance_that_ended_meanwhile(race: Database, isolation: str) -> None:
    conn = race.connect()
    [(job_id, instance)] = make_live(race, conn, 1).items()
    raw = race.connect("admin", autocommit=False)
    with raw.cursor() as cursor:
        cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {isolation}")
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    race.call(conn, "log_done", job_instance_id=instance)
    sql = "UPDATE job_instance SET status = 'E' WHERE job_instance_id = %s"
    assert execute(raw, sql, instance) == 32032  # JOB_INSTANCE_ENDED
    raw.rollback()
    assert job_history(race, job_id) == "GQIRD"


@pytest.mark.parametrize("isolation", ["READ COMMITTED", "REPEATABLE READ"])
def test_a_caller_of_procedures_with_an_old_snapshot(race: Database, isolation: str) -> None:
    """A procedure that joins the caller's transaction decides by what is true now."""
    conn = race.connect()
    [(job_id, instance)] = make_live(race, conn, 1, max_attempts=2).items()
    joined = race.connect(autocommit=False)
    with joined.cursor() as cursor:
        cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {isolation}")
        cursor.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT")
    race.call(conn, "log_error", job_instance_id=instance, error_message="no")
    newer = race.call(conn, "add_job_instance", job_id=job_id, executor_type="Race")["job_instance_id"]
    for procedure in ("log_done", "log_running", "log_job_instance_heartbeat", "log_executor_id"):
        arguments = {"executor_id": "1"} if procedure == "log_executor_id" else {}
        # An old snapshot doesn't know of the newer instance; "ended" says stop as well.
        with pytest.raises(Refused) as refusal:
            race.once(joined, procedure, job_instance_id=instance, **arguments)
        assert refusal.value.name == "JOB_INSTANCE_SUPERSEDED" or isolation == "REPEATABLE READ"
        assert refusal.value.name in ("JOB_INSTANCE_SUPERSEDED", "JOB_INSTANCE_ENDED")
    joined.rollback()
    assert instance != newer
    assert job_history(race, job_id) == "GQIREQI"
