"""Leases: an instance is lost only if its time has passed at the moment it is given up."""

from __future__ import annotations

import threading
from typing import Any

from race_helpers import Database, Team, attempt, job_history, make_dag, make_live, report, rounds

ROUNDS = 20
LATE = (
    "UPDATE job_instance SET report_by_date = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND"
    " WHERE status IN ('I', 'B', 'R')"
)


def make_late(race: Database) -> None:
    """Let all leases run out."""
    with race.connect("admin").cursor() as cursor:
        cursor.execute(LATE)


def test_expiry_against_heartbeats(race: Database, sixteen: Team) -> None:
    """Whoever reported before was not given up; whoever was given up is told to stop."""
    told: set[bool] = set()
    for _ in rounds(6, told):
        live = list(make_live(race, sixteen.connections[0], 45).values())
        make_late(race)
        shares = [live[n::15] for n in range(15)]

        def beat(share: list[int]) -> Any:
            def run(conn: Any) -> dict[int, str | None]:
                return {
                    one: attempt(race, conn, "log_job_instance_heartbeat", job_instance_id=one).error
                    for one in share
                }

            return run

        def expire(conn: Any) -> list[int]:
            found: list[int] = []
            for _ in range(4):
                found += race.call(conn, "expire_job_instances", max_job_instances=12)["job_instance_ids"]
            return found

        *beats, lost = sixteen.each(*map(beat, shares), expire)
        errors = {instance: error for one in beats for instance, error in one.items()}
        assert set(errors.values()) <= {None, "JOB_INSTANCE_ENDED", "JOB_INSTANCE_SUPERSEDED"}
        refused = {instance for instance, error in errors.items() if error is not None}
        assert refused <= set(lost)
        assert len(lost) == len(set(lost))
        for instance in live:
            # One that was accepted after it had been late was not given up, for it has a lease again.
            status = race.value("SELECT status FROM job_instance WHERE job_instance_id = %s", instance)
            assert status == ("E" if instance in lost else "R")
            assert (instance in lost) == (instance in refused)
        told |= {instance in lost for instance in live}
    assert told == {True, False}, "the two never met: this shows nothing"


def test_expiry_against_ends(race: Database, sixteen: Team) -> None:
    live = list(make_live(race, sixteen.connections[0], 60).values())
    make_late(race)
    shares = [live[n::12] for n in range(12)]

    def finish(share: list[int]) -> Any:
        def run(conn: Any) -> dict[int, bool]:
            codes = report(race, conn, [{"event": "done", "job_instance_id": one} for one in share])
            assert set(codes) <= {"OK", "JOB_INSTANCE_ENDED", "JOB_INSTANCE_SUPERSEDED"}
            return {one: code == "OK" for one, code in zip(share, codes, strict=True)}

        return run

    def expire(conn: Any) -> list[int]:
        return list(race.call(conn, "expire_job_instances", max_job_instances=9)["job_instance_ids"])

    outcomes = sixteen.each(*map(finish, shares), *[expire] * 4)
    lost = [instance for found in outcomes[12:] for instance in found]
    accepted = {instance for one in outcomes[:12] for instance, ok in one.items() if ok}
    assert len(lost) == len(set(lost))
    assert accepted | set(lost) == set(live)
    assert not accepted & set(lost)


def test_two_reapers_at_once(race: Database, sixteen: Team) -> None:
    live = make_live(race, sixteen.connections[0], 50, max_attempts=1)
    make_late(race)
    outcomes = sixteen.all("expire_job_instances", max_job_instances=10)
    lost = [instance for one in outcomes for instance in one.document["job_instance_ids"]]
    while found := race.call(sixteen.connections[0], "expire_job_instances")["job_instance_ids"]:
        lost += found  # one that passed over those of the others may have had nothing left
    assert sorted(lost) == sorted(live.values())
    assert {job_history(race, job_id) for job_id in live} == {"GQIREF"}
    assert race.value("SELECT COUNT(*) FROM job_instance_error_log") == 50


def test_the_lease_is_tested_again_under_the_lock(race: Database) -> None:
    """The reaper found the instance late; it reports before the reaper has its lock."""
    conn = race.connect()
    [instance] = make_live(race, conn, 1).values()
    make_late(race)
    reporting = race.connect(autocommit=False)
    race.once(reporting, "log_job_instance_heartbeat", job_instance_id=instance)
    # While the report is in flight, the instance is passed over and holds up nobody.
    others = make_live(race, conn, 3)
    with race.connect("admin").cursor() as cursor:
        cursor.execute(LATE + " AND job_instance_id <> %s", (instance,))
    assert race.call(conn, "expire_job_instances") == {"job_instance_ids": sorted(others.values())}
    reporting.commit()
    assert race.call(conn, "expire_job_instances") == {"job_instance_ids": []}
    assert race.value("SELECT status FROM job_instance WHERE job_instance_id = %s", instance) == "R"


def test_stuck_rows_do_not_starve_the_others(race: Database) -> None:
    """Leases that can't be ended now, as many as one call takes, are passed over."""
    conn = race.connect()
    held = make_live(race, conn, 5)
    with race.connect("admin").cursor() as cursor:
        cursor.execute(LATE)
    late = make_live(race, conn, 3)
    with race.connect("admin").cursor() as cursor:
        cursor.execute(LATE + " AND job_instance_id >= %s", (min(late.values()),))
    holder = race.connect("admin", autocommit=False)
    with holder.cursor() as cursor:
        cursor.execute("SELECT 1 FROM job WHERE job_id <= %s FOR UPDATE", (max(held),))
    found = race.call(conn, "expire_job_instances", max_job_instances=5)["job_instance_ids"]
    assert sorted(found) == sorted(late.values())
    holder.rollback()
    found = race.call(conn, "expire_job_instances", max_job_instances=5)["job_instance_ids"]
    assert sorted(found) == sorted(held.values())


def test_a_reaper_waits_for_nobody(race: Database) -> None:
    conn = race.connect()
    make_live(race, conn, 4)
    make_late(race)
    first = race.connect(autocommit=False)
    assert len(race.once(first, "expire_job_instances")["job_instance_ids"]) == 4
    assert race.call(conn, "expire_job_instances") == {"job_instance_ids": []}
    first.rollback()
    assert len(race.call(conn, "expire_job_instances")["job_instance_ids"]) == 4


def test_heartbeats_while_the_dag_grows_and_runs_start(race: Database) -> None:
    """Whatever locks the dag or its workflow, all at once."""
    conn = race.connect()
    dag_id = make_dag(race, conn, 5)
    workflow_id = race.call(
        conn,
        "add_workflow",
        dag_id=dag_id,
        workflow_args="",
        workflow_hash="h",
        name="w",
        user="ann",
    )["workflow_dct"]["id"]
    run: dict[str, Any] = {"workflow_id": workflow_id, "user": "ann", "hostname": "h", "pid": 1}
    race.call(conn, "add_workflow_run", **run)

    def work(procedure: str, **arguments: Any) -> Any:
        def repeat(conn: Any) -> None:
            for n in range(ROUNDS):
                if procedure == "add_jobs":
                    arguments["jobs"] = [
                        {"name": "j", "job_hash": f"{threading.get_ident()}-{n}-{m}", "command": "true"}
                        for m in range(5)
                    ]
                attempt(race, conn, procedure, **arguments)

        return repeat

    with Team(race, 8) as team:
        team.each(
            work("log_heartbeat", dag_id=dag_id),
            work("log_heartbeat", dag_id=dag_id),
            work("add_jobs", dag_id=dag_id),
            work("add_jobs", dag_id=dag_id),
            work("add_workflow_run", **run),
            work("queue_jobs", dag_id=dag_id),
            work("claim_jobs", executor_type="Race", dag_id=dag_id),
            work("reset_incomplete_jobs", dag_id=dag_id),
        )
    assert race.value("SELECT COUNT(*) FROM job") == 10 * ROUNDS
    assert race.value("SELECT COUNT(*) FROM workflow_run WHERE status = 'R'") == 1
