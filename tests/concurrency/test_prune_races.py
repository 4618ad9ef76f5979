"""Pruning beside what runs: live workflows go on, a resume wins or is refused, and pollers miss nothing."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from typing import Any

import pytest
from race_helpers import (
    Database,
    Refused,
    Team,
    attempt,
    make_dag,
    make_jobs,
    make_live,
    make_queued,
    report,
    submit,
    wait_until,
)

from jobmon.db.prune import prune
from jobmon.thin_jqs.changes import read_changes


def make_finished(race: Database, conn: Any, count: int, status: str = "D") -> dict[str, int]:
    """A workflow with jobs at rest: DONE, or STOPPED with jobs that were never run."""
    dag_id = make_dag(race, conn)
    make_jobs(race, conn, dag_id, count)
    ids = submit(race, conn, dag_id)
    done = count if status == "D" else count // 2
    while done > 0:
        given = {"executor_type": "Race", "dag_id": dag_id, "max_jobs": min(done, 1000)}
        claimed = race.call(conn, "claim_jobs", **given)["job_instances"]
        for event in ("running", "done"):
            report(race, conn, [{"event": event, "job_instance_id": o["job_instance_id"]} for o in claimed])
        done -= len(claimed)
    if status == "S":
        race.call(conn, "stop_workflow", workflow_id=ids["workflow_id"])
    else:
        race.call(conn, "end_workflow_run", workflow_run_id=ids["workflow_run_id"])
    return {"dag_id": dag_id, **ids}


def test_live_workflows_go_on(race: Database, eight: Team) -> None:
    """Jobs next to the pruned ones are added, claimed and reported, by many at once; none waits for long."""
    conn = eight.connections[0]
    # neighbours in every index: pruned, live, pruned, live
    live = []
    for _ in range(3):
        make_finished(race, conn, 60)
        dag_id = make_dag(race, conn)
        make_queued(race, conn, 60, dag_id=dag_id)
        submit(race, conn, dag_id)
        live.append(dag_id)
    pruned: list[Any] = []

    def prunes(_: Any) -> None:
        pruned.append(prune(race.spec("migrator"), older_than=0, batch_rows=60))

    def works(number: int) -> Any:
        def run(conn: Any) -> Counter[str]:
            told: Counter[str] = Counter()
            for turn in range(12):
                dag_id = live[(number + turn) % len(live)]
                name = f"n{number}-{turn}"
                job = {"name": name, "job_hash": name, "command": "true"}
                race.call(conn, "add_jobs", dag_id=dag_id, jobs=[job])
                race.call(conn, "queue_jobs", dag_id=dag_id)
                given = {"executor_type": "Race", "dag_id": dag_id, "max_jobs": 3}
                claimed = race.call(conn, "claim_jobs", **given)["job_instances"]
                for event in ("running", "done"):
                    events = [{"event": event, "job_instance_id": o["job_instance_id"]} for o in claimed]
                    told.update(report(race, conn, events) if events else ())
            return told

        return run

    results = eight.each(prunes, *(works(number) for number in range(7)))
    told = sum((result for result in results if result), Counter[str]())
    assert set(told) == {"OK"} and told["OK"] >= 3 * 60
    (result,) = pruned
    assert (result.num_dags, result.num_jobs, result.left) == (3, 180, [])
    assert race.value("SELECT COUNT(DISTINCT dag_id) FROM job") == 3
    # the fixture asserts that no lock wait timed out, and that deadlocks were few


def test_a_resume_wins_or_is_refused(race: Database, pair: Team) -> None:
    outcomes: Counter[str] = Counter()
    for _ in range(25):
        ids = make_finished(race, pair.connections[0], 6, "S")
        run = {"workflow_id": ids["workflow_id"], "user": "ann", "hostname": "h", "pid": 1}
        mark = {"dag_id": ids["dag_id"], "older_than_seconds": 0, "statuses": "S"}
        with contextlib.closing(race.connect("migrator")) as migrator:
            answers = pair.each(
                lambda conn, run=run: attempt(race, conn, "add_workflow_run", **run),
                lambda _, conn=migrator, mark=mark: attempt(race, conn, "start_prune", **mark),
            )
        resumed, marked = answers
        if resumed.accepted:
            outcomes["resumed"] += 1
            assert marked.document["started"] is False
        else:
            outcomes["pruned"] += 1
            assert (resumed.error, marked.document["started"]) == ("DAG_PRUNED", True)
        assert race.violations() == {}
    print(outcomes)
    prune(race.spec("migrator"), older_than=0, statuses="S")
    assert race.value("SELECT COUNT(*) FROM task_dag") == outcomes["resumed"]
    assert race.value("SELECT COUNT(*) FROM workflow_run WHERE status = 'R'") == outcomes["resumed"]


def test_a_retry_wins_or_is_refused(race: Database, pair: Team) -> None:
    """A job is queued again while its dag is marked: it is queued in a whole dag, or refused."""
    outcomes: Counter[str] = Counter()
    for _ in range(25):
        conn = pair.connections[0]
        live = make_live(race, conn, 3, max_attempts=1)
        job_id, instance = next(iter(live.items()))
        events = [{"event": "done", "job_instance_id": one} for one in live.values() if one != instance]
        report(race, conn, [*events, {"event": "error", "job_instance_id": instance, "error_message": "x"}])
        dag_id = race.value("SELECT dag_id FROM job WHERE job_id = %s", job_id)
        mark = {"dag_id": dag_id, "older_than_seconds": 0, "statuses": "E"}
        with contextlib.closing(race.connect("migrator")) as migrator:
            retried, marked = pair.each(
                lambda conn, job_id=job_id: attempt(race, conn, "retry_job", job_id=job_id),
                lambda _, conn=migrator, mark=mark: attempt(race, conn, "start_prune", **mark),
            )
        assert retried.accepted != marked.document["started"]
        outcomes["retried" if retried.accepted else retried.error or ""] += 1
    print(outcomes)
    assert set(outcomes) <= {"retried", "DAG_PRUNED"}


@pytest.mark.parametrize("point", ["start_prune", "prune_dag"])
def test_killed_in_between(race: Database, pair: Team, point: str) -> None:
    """The next run goes on; a resume in between is refused, and no audit finds anything."""
    conn = pair.connections[0]
    ids = make_finished(race, conn, 40)
    migrator = race.connect("migrator")
    race.call(migrator, "start_prune", dag_id=ids["dag_id"], older_than_seconds=0)
    if point == "prune_dag":
        race.call(migrator, "prune_dag", dag_id=ids["dag_id"], max_rows=100)
        # killed in the middle of a batch: nothing of it is left
        migrator.begin()
        race.once(migrator, "prune_dag", dag_id=ids["dag_id"], max_rows=100)
        killed = migrator.thread_id()  # type: ignore[no-untyped-call]
        race.query(f"KILL {killed}")
        wait_until(
            lambda: not race.query("SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = %s", killed)
        )
    assert race.violations() == {}
    with pytest.raises(Refused, match="DAG_PRUNED"):
        job_id = race.value("SELECT MIN(job_id) FROM job WHERE dag_id = %s", ids["dag_id"])
        race.call(conn, "reset_job", job_id=job_id)
    result = prune(race.spec("migrator"), older_than=10**6)
    assert result.num_dags == 1
    assert race.value("SELECT COUNT(*) FROM task_dag") == 0


def test_a_poller_misses_nothing(race: Database, eight: Team) -> None:
    """Its rows are the newest of their shards, and are deleted; what comes after them is told, once."""
    conn = eight.connections[0]
    make_finished(race, conn, 30)
    view, stop = "get_job_changes", threading.Event()
    seen: list[int] = []

    def polls(conn: Any) -> None:
        with contextlib.closing(race.connect("jqs")) as reader:
            cursor = read_changes(reader, view, "shard", None, None, 1).cursor
            ready.set()
            while True:
                last = stop.is_set()
                changes = read_changes(reader, view, "shard", cursor, None, 1000)
                cursor = changes.cursor
                for document in changes.documents:
                    seen.append(int(str(document).partition('"change_id": ')[2].partition(",")[0]))
                if last and not changes.more:
                    return

    ready = threading.Event()
    poller = threading.Thread(target=polls, args=(None,))
    poller.start()
    try:
        assert ready.wait(60)
        newest = race.value("SELECT MAX(job_status_log_id) FROM job_status_log")

        def works(dag_id: int) -> Any:
            return lambda conn: make_live(race, conn, 10, dag_id=dag_id)

        # each with its first job already: a dag that is found while it has none may be pruned
        dags = [make_dag(race, conn) for _ in range(7)]
        for dag_id in dags:
            make_jobs(race, conn, dag_id, 1)
        eight.each(lambda _: prune(race.spec("migrator"), older_than=0, batch_rows=50), *map(works, dags))
    finally:
        stop.set()
        poller.join(60)
    made = [row[0] for row in race.query("SELECT job_status_log_id FROM job_status_log ORDER BY 1")]
    assert min(made) > newest and len(made) == 7 * 10 * 4
    assert sorted(seen) == made
