"""Many upstream jobs that finish at once: each downstream job is queued once, by whoever was the last."""

from __future__ import annotations

import random
from typing import Any

import pytest
from race_helpers import Database, Team, job_history, jobs_of, make_dag, report, shuffled

UPSTREAMS, DOWNSTREAMS = 100, 20


def running_graph(
    race: Database, conn: Any, fan_in: int, upstreams: int = UPSTREAMS, downstreams: int = DOWNSTREAMS
) -> tuple[list[int], list[int]]:
    """A bipartite dag whose upstream jobs run: their instances, and the downstream jobs."""
    chosen = random.Random(fan_in)
    dag_id = make_dag(race, conn)
    above, below = jobs_of(upstreams, prefix="up"), jobs_of(downstreams, prefix="down")
    for job in below:
        job["upstream_job_hashes"] = [one["job_hash"] for one in chosen.sample(above, fan_in)]
    ids = race.call(conn, "add_jobs", dag_id=dag_id, jobs=above + below)["job_ids"]
    assert race.call(conn, "queue_jobs", dag_id=dag_id)["num_queued"] == upstreams
    claimed = race.call(conn, "claim_jobs", executor_type="Race", dag_id=dag_id, max_jobs=1000)
    instances = [one["job_instance_id"] for one in claimed["job_instances"]]
    assert len(instances) == upstreams
    events = [{"event": "running", "job_instance_id": one} for one in instances]
    assert set(report(race, conn, events)) == {"OK"}
    return instances, ids[upstreams:]


def all_queued_once(race: Database, downstreams: list[int]) -> None:
    """Each downstream job was queued exactly once, and its gate is open."""
    assert {job_history(race, job_id) for job_id in downstreams} == {"GQ"}
    pending = race.query("SELECT upstreams_pending FROM job_gate WHERE job_id >= %s", downstreams[0])
    assert pending == [(0,)] * len(downstreams)


@pytest.mark.parametrize("fan_in", [UPSTREAMS, 7])
@pytest.mark.parametrize("how", ["log_done", "log_events", "raw"])
def test_upstreams_finish_at_once(race: Database, sixteen: Team, how: str, fan_in: int) -> None:
    instances, downstreams = running_graph(race, sixteen.connections[0], fan_in)
    shares = [shuffled(instances, fan_in)[n::16] for n in range(16)]

    def work(share: list[int]) -> Any:
        def run(conn: Any) -> None:
            if how == "log_events":
                events = [{"event": "done", "job_instance_id": one} for one in share]
                assert set(report(race, conn, events)) == {"OK"}
            for one in share if how == "log_done" else []:
                race.call(conn, "log_done", job_instance_id=one)
            for one in share if how == "raw" else []:
                raw_done(race, conn, one)

        return run

    if how == "raw":  # an account that may name rows
        with Team(race, 16, role="admin") as admins:
            admins.each(*map(work, shares))
    else:
        sixteen.each(*map(work, shares))
    all_queued_once(race, downstreams)


def raw_done(race: Database, conn: Any, instance: int) -> None:
    """The report as an UPDATE."""
    from jobmon.db.connect import call_with_retry, errno_of

    def update() -> None:
        with conn.cursor() as cursor:
            cursor.execute("UPDATE job_instance SET status = 'D' WHERE job_instance_id = %s", (instance,))

    call_with_retry(
        update,
        retryable=lambda error: errno_of(error) == 1213,
        on_retry=lambda error, _: race.count(error),
    )


def test_batches_in_a_sparse_graph_do_not_deadlock(race: Database, sixteen: Team) -> None:
    """Batches whose jobs have downstream jobs in common, in no particular order."""
    for _ in range(3):
        instances, downstreams = running_graph(race, sixteen.connections[0], 4, 160, 80)
        shares = [shuffled(instances, 1)[n::16] for n in range(16)]

        def work(share: list[int]) -> Any:
            events = [{"event": "done", "job_instance_id": one} for one in share]
            return lambda conn: report(race, conn, events)

        for codes in sixteen.each(*map(work, shares)):
            assert set(codes) == {"OK"}
        all_queued_once(race, downstreams)


def test_every_upstream_reported_twice(race: Database, sixteen: Team) -> None:
    """A gate counts a repeated report once."""
    instances, downstreams = running_graph(race, sixteen.connections[0], UPSTREAMS)

    def run(conn: Any) -> None:
        for one in shuffled(instances, id(conn)):
            race.call(conn, "log_done", job_instance_id=one)

    sixteen.each(*[run] * 4)
    all_queued_once(race, downstreams)


def test_edges_added_while_upstreams_finish(race: Database, sixteen: Team) -> None:
    """A job that is added below running jobs is queued too, whether they finish before or after."""
    conn = sixteen.connections[0]
    dag_id = make_dag(race, conn)
    above = jobs_of(40, prefix="up")
    race.call(conn, "add_jobs", dag_id=dag_id, jobs=above)
    race.call(conn, "queue_jobs", dag_id=dag_id)
    claimed = race.call(conn, "claim_jobs", executor_type="Race", dag_id=dag_id, max_jobs=100)[
        "job_instances"
    ]
    report(race, conn, [{"event": "running", "job_instance_id": one["job_instance_id"]} for one in claimed])

    def finish(share: list[dict[str, Any]]) -> Any:
        def run(conn: Any) -> None:
            for one in share:
                race.call(conn, "log_done", job_instance_id=one["job_instance_id"])

        return run

    def extend(number: int) -> Any:
        def run(conn: Any) -> None:
            for n in range(4):
                job = jobs_of(1, prefix=f"down-{number}-{n}-")[0]
                job["upstream_job_hashes"] = [one["job_hash"] for one in shuffled(above, n)[:10]]
                race.call(conn, "add_jobs", dag_id=dag_id, jobs=[job])

        return run

    sixteen.each(*(finish(claimed[n::8]) for n in range(8)), *(extend(n) for n in range(8)))
    # Those whose upstreams were all DONE when they were added wait for a queue_jobs.
    race.call(conn, "queue_jobs", dag_id=dag_id)
    left = race.query("SELECT status, COUNT(*) FROM job WHERE dag_id = %s GROUP BY status", dag_id)
    assert sorted(left) == [("D", 40), ("Q", 32)]
    assert race.value("SELECT SUM(upstreams_pending) FROM job_gate") == 0


def test_reset_of_an_upstream_while_the_others_finish(race: Database, sixteen: Team) -> None:
    instances, downstreams = running_graph(race, sixteen.connections[0], 20, 20, 10)
    first = race.value("SELECT job_id FROM job_instance WHERE job_instance_id = %s", instances[0])
    race.call(sixteen.connections[0], "log_done", job_instance_id=instances[0])
    calls: list[tuple[str, dict[str, Any]]] = [
        ("log_done", {"job_instance_id": one}) for one in instances[1:16]
    ]
    outcomes = sixteen.race(*calls, ("reset_job", {"job_id": first}))
    assert {one.error for one in outcomes} == {None}
    assert {job_history(race, job_id) for job_id in downstreams} == {"G"}
    pending = race.query("SELECT upstreams_pending FROM job_gate WHERE job_id >= %s", downstreams[0])
    assert pending == [(5,)] * 10  # four that run, and the one that was reset
