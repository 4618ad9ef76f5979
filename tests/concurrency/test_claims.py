"""Distributors that claim at once: no job twice, none lost, never more live ones than a dag allows."""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import Any

from race_helpers import (
    Database,
    Team,
    attempt,
    make_dag,
    make_jobs,
    make_queued,
    report,
    submit,
    wait_until,
)


def work_off(race: Database, told: Counter[int], lock: threading.Lock, total: int, **arguments: Any) -> Any:
    """A distributor that claims, runs and ends jobs until the team has ended ``total``."""

    def run(conn: Any) -> None:
        last = time.monotonic()
        while sum(told.values()) < total:
            document = race.call(conn, "claim_jobs", executor_type="Race", lease_seconds=600, **arguments)
            claimed = document["job_instances"]
            last = time.monotonic() if claimed else last
            assert time.monotonic() - last < 60, "jobs are left over that nobody gets"
            for event in ("running", "done") if claimed else ():
                events = [{"event": event, "job_instance_id": one["job_instance_id"]} for one in claimed]
                assert set(report(race, conn, events)) == {"OK"}
            with lock:
                told.update(one["job_id"] for one in claimed)

    return run


def watch(race: Database, dag_id: int, limit: int, done: threading.Event, seen: list[int]) -> Any:
    """Counts the live instances of a dag, over and over."""

    def run() -> None:
        conn = race.connect("admin")
        with conn.cursor() as cursor:
            while not done.is_set():
                cursor.execute(
                    "SELECT COUNT(*) FROM job_instance JOIN job USING (job_id)"
                    " WHERE dag_id = %s AND job_instance.status IN ('I', 'B', 'R')",
                    (dag_id,),
                )
                seen.extend(int(row[0]) for row in cursor.fetchall())
                if seen[-1] > limit:
                    return

    return run


def test_one_dag_with_a_limit(race: Database, sixteen: Team) -> None:
    conn = sixteen.connections[0]
    limit, total = 7, 150
    dag_id = make_dag(race, conn, limit)
    ids = make_queued(race, conn, total, dag_id=dag_id)
    told: Counter[int] = Counter()
    lock, done, seen = threading.Lock(), threading.Event(), list[int]()
    watcher = threading.Thread(target=watch(race, dag_id, limit, done, seen))
    watcher.start()
    wait_until(lambda: seen)
    run = work_off(race, told, lock, total, dag_id=dag_id, max_jobs=3)
    try:
        sixteen.each(*[run] * 16)
    finally:
        done.set()
        watcher.join()
    assert told == Counter(ids)
    assert 0 < max(seen) <= limit
    assert race.value("SELECT COUNT(*) FROM job_instance") == total
    assert race.value("SELECT COUNT(*) FROM job WHERE status = 'D'") == total


def test_all_claim_at_once_under_a_limit(race: Database, sixteen: Team) -> None:
    conn = sixteen.connections[0]
    for limit in (0, 1, 10, 100):
        dag_id = make_dag(race, conn, limit)
        make_queued(race, conn, 40, dag_id=dag_id)
        outcomes = sixteen.all("claim_jobs", executor_type="Race", dag_id=dag_id, max_jobs=4)
        claimed = [one["job_id"] for outcome in outcomes for one in outcome.document["job_instances"]]
        assert len(claimed) == len(set(claimed)) == min(limit, 40)


def test_many_dags(race: Database, sixteen: Team) -> None:
    conn = sixteen.connections[0]
    limits = {make_dag(race, conn, limit): limit for limit in (None, 3, None, 5, 1, None)}
    ids = [one for dag_id in limits for one in make_jobs(race, conn, dag_id, 30)]
    for dag_id in limits:
        submit(race, conn, dag_id)
    told: Counter[int] = Counter()
    run = work_off(race, told, threading.Lock(), len(ids), max_jobs=8)
    sixteen.each(*[run] * 16)
    assert told == Counter(ids)
    # whoever asks for any waits for no dag while it holds another
    assert race.retries["deadlock"] <= 3
    assert race.value("SELECT COUNT(*) FROM job_instance") == len(ids)
    for dag_id, limit in limits.items():
        # What was live at any moment, from the history.
        changes = race.query(
            "SELECT log.status FROM job_instance_status_log AS log JOIN job_instance USING (job_instance_id)"
            " JOIN job USING (job_id) WHERE dag_id = %s AND log.status IN ('I', 'D')"
            " ORDER BY log.status_date, log.job_instance_status_log_id",
            dag_id,
        )
        assert len(changes) == 60
        if limit == 1:
            # One row after the other, whatever the clock says about two of the same instant.
            assert [status for (status,) in changes] == ["I", "D"] * 30


def test_claims_against_single_instances(race: Database, sixteen: Team) -> None:
    """An emu client makes instances one by one while distributors claim."""
    conn = sixteen.connections[0]
    dag_id = make_dag(race, conn)
    ids = make_queued(race, conn, 120, dag_id=dag_id)

    def claim(conn: Any) -> list[int]:
        got: list[int] = []
        while True:
            document = race.call(conn, "claim_jobs", executor_type="Race", dag_id=dag_id, max_jobs=2)
            if not document["job_instances"]:
                return got
            got += [one["job_id"] for one in document["job_instances"]]

    def single(conn: Any) -> list[int]:
        outcomes = {
            job_id: attempt(race, conn, "add_job_instance", job_id=job_id, executor_type="Emu")
            for job_id in reversed(ids)
        }
        assert {one.error for one in outcomes.values()} <= {None, "JOB_NOT_QUEUED"}
        return [job_id for job_id, one in outcomes.items() if one.accepted]

    got = sixteen.each(*[claim] * 4, *[single] * 4)
    assert sorted(job_id for one in got for job_id in one) == ids
    assert race.value("SELECT COUNT(*) FROM job_instance") == 120


def test_claims_while_jobs_are_queued_and_reset(race: Database, sixteen: Team) -> None:
    conn = sixteen.connections[0]
    dag_id = make_dag(race, conn)
    ids = make_queued(race, conn, 60, dag_id=dag_id)

    def claim(conn: Any) -> None:
        for _ in range(15):
            race.call(conn, "claim_jobs", executor_type="Race", dag_id=dag_id, max_jobs=5)

    def reset(conn: Any) -> None:
        for n in range(10):
            race.call(conn, "reset_job", job_id=ids[n * 6])

    def queue(conn: Any) -> None:
        for _ in range(10):
            race.call(conn, "queue_jobs", dag_id=dag_id)

    sixteen.each(*[claim] * 4, *[reset] * 2, *[queue] * 2)
    race.call(conn, "reset_incomplete_jobs", dag_id=dag_id)
    assert race.value("SELECT COUNT(*) FROM job WHERE status = 'G'") == 60
    assert race.value("SELECT COUNT(*) FROM job_instance WHERE status = 'I'") == 0
