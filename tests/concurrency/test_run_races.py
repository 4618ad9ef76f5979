"""Runs that are handed to distributors, while many act on them at once."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from race_helpers import (
    Database,
    Team,
    attempt,
    instance_history,
    job_history,
    jobs_of,
    live_rounds,
    make_dag,
    make_jobs,
    report,
    rounds,
    submit,
    wait_for_lock_waits,
)

RUN: dict[str, Any] = {"user": "ann", "hostname": "login1", "pid": 4242}
ENDED = {"JOB_INSTANCE_ENDED", "JOB_INSTANCE_SUPERSEDED"}


def make_workflow(
    race: Database, conn: Any, count: int, limit: int | None = None, **kw: Any
) -> dict[str, Any]:
    """A workflow with a run that was not submitted: its dag_id, workflow_id, workflow_run_id and job_ids."""
    dag_id = make_dag(race, conn, limit)
    jobs = make_jobs(race, conn, dag_id, count, **kw)
    workflow = {"workflow_args": "", "workflow_hash": f"of {dag_id}", "name": "w", "user": "ann"}
    workflow_id = race.call(conn, "add_workflow", dag_id=dag_id, **workflow)["workflow_dct"]["id"]
    run = race.call(conn, "add_workflow_run", workflow_id=workflow_id, **RUN)["workflow_run_id"]
    return {"dag_id": dag_id, "workflow_id": workflow_id, "workflow_run_id": run, "job_ids": jobs}


def make_submitted(
    race: Database, conn: Any, count: int, limit: int | None = None, **kw: Any
) -> dict[str, Any]:
    """The same, submitted."""
    dag_id = make_dag(race, conn, limit)
    jobs = make_jobs(race, conn, dag_id, count, **kw)
    return {"dag_id": dag_id, "job_ids": jobs, **submit(race, conn, dag_id)}


def claim(race: Database, conn: Any, **arguments: Any) -> list[int]:
    """The ids of the instances that are claimed."""
    document = race.call(conn, "claim_jobs", executor_type="Race", lease_seconds=600, **arguments)
    return [one["job_instance_id"] for one in document["job_instances"]]


def stand(race: Database, run: int) -> str:
    """The letters of a run and of its workflow."""
    sql = (
        "SELECT CONCAT(workflow_run.status, workflow.status) FROM workflow_run"
        " JOIN workflow USING (workflow_id) WHERE workflow_run_id = %s"
    )
    return str(race.value(sql, run))


def job_letters(race: Database, dag_id: int) -> str:
    """The statuses of a dag's jobs, in the order of their ids."""
    rows = race.query("SELECT status FROM job WHERE dag_id = %s ORDER BY job_id", dag_id)
    return "".join(status for (status,) in rows)


# The end ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("events", [("done", "done"), ("done", "error"), ("error", "error")])
def test_the_last_two_jobs_end_at_once(race: Database, eight: Team, events: tuple[str, str]) -> None:
    """Of two last reports at once neither sees the other; who looks afterwards sees both, and ends once."""
    expected = "E" if "error" in events else "D"
    for n in range(12):
        made = make_submitted(race, eight.connections[0], 2, max_attempts=1)
        run = made["workflow_run_id"]
        live = claim(race, eight.connections[0], workflow_run_id=run)
        report(race, eight.connections[0], [{"event": "running", "job_instance_id": one} for one in live])
        calls: list[tuple[str, dict[str, Any]]] = []
        for event, instance in zip(events, live, strict=True):
            more = {"error_message": "no"} if event == "error" else {}
            calls.append((f"log_{event}", {"job_instance_id": instance, **more}))
        # those who look meanwhile see it live or ended, never ended too early
        for outcome in eight.race(*calls, *[("end_workflow_run", {"workflow_run_id": run})] * 6)[2:]:
            assert outcome.document["status"] in ("R", expected)
            if outcome.document["status"] != "R":
                assert set(outcome.document["counts"]) <= {"D", "F"}
        if n % 2:
            documents = [one.document for one in eight.all("end_workflow_run", workflow_run_id=run)]
            letters = Counter({"done": "D", "error": "F"}[event] for event in events)
            ended = {"status": expected, "workflow_status": expected, "counts": dict(letters)}
            assert documents == [ended] * 8
        else:
            eight.all("end_workflow_runs")
        assert stand(race, run) == expected * 2


def test_an_end_is_told_to_one(race: Database, eight: Team) -> None:
    runs = set()
    for _ in range(10):
        made = make_submitted(race, eight.connections[0], 2)
        instances = claim(race, eight.connections[0], workflow_run_id=made["workflow_run_id"])
        events = [{"event": e, "job_instance_id": one} for one in instances for e in ("running", "done")]
        assert set(report(race, eight.connections[0], events)) == {"OK"}
        runs.add(made["workflow_run_id"])
    found = [one for outcome in eight.all("end_workflow_runs") for one in outcome.document["workflow_runs"]]
    # what one had locked the others passed over
    found += race.call(eight.connections[0], "end_workflow_runs")["workflow_runs"]
    assert sorted(one["workflow_run_id"] for one in found) == sorted(runs)
    assert {one["status"] for one in found} == {"D"}
    assert {stand(race, run) for run in runs} == {"DD"}


def test_no_workflow_is_done_whose_job_is_retried_or_reset(race: Database, eight: Team) -> None:
    """DONE is final, so it must not come from a job that was looked for in one status and was in another."""
    seen: set[str] = set()
    for n in range(25):
        made = make_submitted(race, eight.connections[0], 2, max_attempts=1)
        run, jobs = made["workflow_run_id"], made["job_ids"]
        instances = claim(race, eight.connections[0], workflow_run_id=run)
        events: list[dict[str, Any]] = [{"event": "running", "job_instance_id": one} for one in instances]
        last = {"event": "error", "error_message": "no"} if n % 2 else {"event": "done"}
        events.append({"event": "done", "job_instance_id": instances[0]})
        events.append({**last, "job_instance_id": instances[1]})
        assert set(report(race, eight.connections[0], events)) == {"OK"}
        change = ("retry_job", {"job_id": jobs[1]}) if n % 2 else ("reset_job", {"job_id": jobs[1]})
        ends = [("end_workflow_run", {"workflow_run_id": run})] * 5 + [("end_workflow_runs", {})] * 2
        changed, *_ = eight.race(change, *ends)
        assert changed.accepted
        status = stand(race, run)
        seen.add(status + str(n % 2))
        if n % 2:
            # the job failed and is queued again: whichever came first, it was never all done
            assert status in ("RR", "EE"), status
        else:
            # ended before the reset, or going on after it
            assert status in ("RR", "DD"), status
    assert len(seen) >= 2, "the two never met: this shows nothing"


# The start -------------------------------------------------------------------------------------------


def test_submitted_by_all_at_once(race: Database, eight: Team) -> None:
    for max_jobs in (None, 7):
        made = make_workflow(race, eight.connections[0], 60)

        def submit(conn: Any, run: int = made["workflow_run_id"], max_jobs: int | None = max_jobs) -> int:
            queued = 0
            while True:
                document = race.call(conn, "submit_workflow_run", workflow_run_id=run, max_jobs=max_jobs)
                queued += document["num_queued"]
                if not document["num_left"]:
                    return queued

        assert sum(eight.each(*[submit] * 8)) == 60
        assert {job_history(race, job_id) for job_id in made["job_ids"]} == {"GQ"}


def test_submitting_while_jobs_end_and_are_claimed(race: Database, eight: Team) -> None:
    """Chains of jobs: the end of one queues the next, while others queue what is ready."""
    conn = eight.connections[0]
    for _ in range(3):
        dag_id = make_dag(race, conn)
        jobs = jobs_of(40)
        for n, job in enumerate(jobs[8:], start=8):
            job["upstream_job_hashes"] = [jobs[n - 8]["job_hash"]]
        ids = race.call(conn, "add_jobs", dag_id=dag_id, jobs=jobs)["job_ids"]
        workflow = {"workflow_args": "", "workflow_hash": f"of {dag_id}", "name": "w", "user": "ann"}
        workflow_id = race.call(conn, "add_workflow", dag_id=dag_id, **workflow)["workflow_dct"]["id"]
        run = race.call(conn, "add_workflow_run", workflow_id=workflow_id, **RUN)["workflow_run_id"]

        def submit(conn: Any, run: int = run) -> None:
            for _ in range(15):
                race.call(conn, "submit_workflow_run", workflow_run_id=run, max_jobs=3)

        def work(conn: Any, run: int = run) -> None:
            for _ in range(3000):
                for one in claim(race, conn, workflow_run_id=run, max_jobs=3):
                    events = [{"event": event, "job_instance_id": one} for event in ("running", "done")]
                    assert set(report(race, conn, events)) == {"OK"}
                if race.call(conn, "end_workflow_run", workflow_run_id=run)["status"] != "R":
                    return
                if attempt(
                    race, conn, "claim_jobs", executor_type="Race", workflow_run_id=run, max_jobs=0
                ).error:
                    return
            raise AssertionError("the run does not end")

        def until_ended(conn: Any, work: Callable[[Any], None] = work) -> None:
            try:
                work(conn)
            except Exception as error:
                # another one has ended the run between two calls
                assert "WORKFLOW_RUN_ENDED" in str(error), error

        def submit_until_ended(conn: Any, submit: Callable[[Any], None] = submit) -> None:
            try:
                submit(conn)
            except Exception as error:
                assert "WORKFLOW_RUN_ENDED" in str(error), error

        eight.each(*[submit_until_ended] * 3, *[until_ended] * 5)
        assert stand(race, run) == "DD"
        assert {job_history(race, job_id) for job_id in ids} == {"GQIRD"}


def test_runs_that_wait_for_a_silent_one_start_at_once(race: Database, eight: Team) -> None:
    """Whoever wants to supersede nobody alive: one is first, and the others are told of it."""
    for _ in range(8):
        made = make_workflow(race, eight.connections[0], 1)
        workflow_id = made["workflow_id"]
        race.call(eight.connections[0], "stop_workflow", workflow_id=workflow_id)
        calls = [
            ("add_workflow_run", {**RUN, "workflow_id": workflow_id, "pid": n, "stale_after_seconds": 60})
            for n in range(8)
        ]
        outcomes = eight.race(*calls)
        (won,) = [n for n, one in enumerate(outcomes) if one.accepted]
        assert {one.error for one in outcomes} == {None, "WORKFLOW_RUN_ALIVE"}
        run = outcomes[won].document["workflow_run_id"]
        told = {str(one.refusal) for one in outcomes if one.refusal}
        assert len(told) == 1 and f"run {run} of ann lives on login1, process {won}" in told.pop()
        rows = race.query(
            "SELECT workflow_run_id, status FROM workflow_run WHERE workflow_id = %s", workflow_id
        )
        assert sorted(rows) == [(made["workflow_run_id"], "S"), (run, "R")]


def test_a_heartbeat_saves_a_run(race: Database, pair: Team) -> None:
    """Its heartbeat was late when another run wanted to start: one of the two learns of the other."""
    ends: set[str | None] = set()
    for _ in rounds(30, ends):
        made = make_workflow(race, pair.connections[0], 1)
        run = made["workflow_run_id"]
        with pair.connections[1].cursor() as cursor:
            # the starter's clock is a minute ahead of the run's last heartbeat
            cursor.execute("SET timestamp = UNIX_TIMESTAMP(SYSDATE(6)) + 60")
            pair.connections[0].cursor().execute("SET timestamp = UNIX_TIMESTAMP(SYSDATE(6)) + 60")
        _, started = pair.race(
            ("log_heartbeat", {"dag_id": made["dag_id"]}),
            ("add_workflow_run", {**RUN, "workflow_id": made["workflow_id"], "stale_after_seconds": 30}),
        )
        for conn in pair.connections:
            conn.cursor().execute("SET timestamp = DEFAULT")
        assert started.error in (None, "WORKFLOW_RUN_ALIVE")
        assert stand(race, run) == ("SR" if started.accepted else "RR")
        ends.add(started.error)
    assert len(ends) == 2, "the two never met: this shows nothing"


# Stops -----------------------------------------------------------------------------------------------


def stop_a_run(race: Database, team: Team, made: dict[str, Any], kill: int, of: str) -> None:
    """Seven claim and report, one stops.

    None of the seven claims more than its share before that: jobs are left, however late the stop comes.
    """
    share = len(made["job_ids"]) // 8
    given = {
        "a run": {"workflow_run_id": made["workflow_run_id"]},
        "a dag": {"dag_id": made["dag_id"]},
        "any": {},
    }[of]
    stopped, begun = threading.Event(), threading.Semaphore(0)

    def work(conn: Any) -> int:
        got = 0
        for _ in range(3000):
            was_stopped = stopped.is_set()
            outcome = attempt(race, conn, "claim_jobs", executor_type="Race", max_jobs=3, **given)
            assert outcome.error in (None, "WORKFLOW_RUN_ENDED")
            claimed = outcome.document["job_instances"] if outcome.accepted else []
            mine = [one["job_instance_id"] for one in claimed if one["dag_id"] == made["dag_id"]]
            got += len(mine)
            if mine:
                begun.release()
            if was_stopped:
                assert mine == [], "claimed after the stop"
                return got
            events = [
                {"event": event, "job_instance_id": one} for one in mine for event in ("running", "done")
            ]
            assert set(report(race, conn, events)) <= {"OK", *ENDED}
            if got >= share:
                stopped.wait(60)
        raise AssertionError("it was not stopped")

    def stop(conn: Any) -> Any:
        for _ in range(12):
            assert begun.acquire(timeout=60)
        answer = race.call(conn, "stop_workflow", workflow_id=made["workflow_id"], kill=kill)
        stopped.set()
        return answer

    *got, answer = team.each(*[work] * 7, stop)
    assert sum(got) > 9
    run = made["workflow_run_id"]
    assert answer["workflow_run_id"] == run
    assert stand(race, run) == "SS"
    # those that were claimed are the ones that there are, and none is left alive by a kill
    assert race.value("SELECT COUNT(*) FROM job_instance WHERE workflow_run_id = %s", run) == sum(got)
    letters = Counter(job_letters(race, made["dag_id"]))
    assert letters["Q"] == len(made["job_ids"]) - sum(got) > 0
    if kill:
        assert set(letters) <= {"Q", "D", "F"} and letters["F"] == answer["num_killed"]


@pytest.mark.parametrize("of", ["a run", "a dag", "any"])
@pytest.mark.parametrize("kill", [0, 1])
def test_a_stop_against_claimers_and_reporters(race: Database, eight: Team, kill: int, of: str) -> None:
    conn = eight.connections[0]
    for _ in range(3):
        others = make_submitted(race, conn, 10, max_attempts=1)
        stop_a_run(race, eight, make_submitted(race, conn, 600, max_attempts=1), kill, of)
        assert stand(race, others["workflow_run_id"]) == "RR"
        race.call(conn, "stop_workflow", workflow_id=others["workflow_id"], kill=1)


def test_stopped_by_all_at_once(race: Database, eight: Team) -> None:
    for _ in range(4):
        made = make_submitted(race, eight.connections[0], 20, max_attempts=1)
        live = claim(race, eight.connections[0], workflow_run_id=made["workflow_run_id"], max_jobs=12)
        outcomes = eight.all("stop_workflow", workflow_id=made["workflow_id"], kill=1)
        assert {one.error for one in outcomes} == {None}
        assert sum(one.document["num_killed"] for one in outcomes) == 12
        stopped = [one.document["workflow_run_id"] for one in outcomes if one.document["workflow_run_id"]]
        assert stopped == [made["workflow_run_id"]]
        assert {tuple(instance_history(race, one)) for one in live} == {("I", "E")}


def test_a_stop_against_the_end(race: Database, pair: Team) -> None:
    """Ended as DONE, or stopped: never half of both."""
    seen: set[str | None] = set()
    for _ in rounds(30, seen):
        made = make_submitted(race, pair.connections[0], 0)
        run = made["workflow_run_id"]
        stopped, ended = pair.race(
            ("stop_workflow", {"workflow_id": made["workflow_id"], "kill": 1}),
            ("end_workflow_run", {"workflow_run_id": run}),
        )
        assert stopped.error in (None, "ILLEGAL_TRANSITION")
        assert stand(race, run) == ("SS" if stopped.accepted else "DD")
        assert ended.document["status"] == ("S" if stopped.accepted else "D")
        seen.add(stopped.error)
    assert len(seen) == 2, "the two never met: this shows nothing"


@pytest.mark.parametrize("event", ["done", "error"])
def test_a_kill_against_an_end(race: Database, pair: Team, event: str) -> None:
    """One of the two wins, and the other is told."""
    letters = Counter[str]()
    more = {"error_message": "no"} if event == "error" else {}
    for job_id, instance in live_rounds(race, pair.connections[0], 40, letters, max_attempts=2):
        killed, ended = pair.race(
            ("kill_job", {"job_id": job_id}), (f"log_{event}", {"job_instance_id": instance, **more})
        )
        letter = "F" if killed.accepted else {"done": "D", "error": "Q"}[event]
        if killed.accepted:
            # to report an error of what is in ERROR is a repeat, which changes nothing
            assert ended.error == ("JOB_INSTANCE_ENDED" if event == "done" else None)
            assert killed.document["job_dct"]["status"] == "F"
            assert race.value("SELECT max_attempts FROM job WHERE job_id = %s", job_id) == 1
            sql = "SELECT description FROM job_instance_error_log WHERE job_instance_id = %s"
            assert race.query(sql, instance) == [("Killed by request",)]
        else:
            assert killed.error == "JOB_NOT_LIVE" and ended.accepted
        assert race.value("SELECT status FROM job WHERE job_id = %s", job_id) == letter
        assert len(instance_history(race, instance)) == 3
        letters[letter] += 1
    assert len(letters) == 2, "the two never met: this shows nothing"


@pytest.mark.parametrize("how", ["one by one", "a run", "a dag", "any"])
def test_an_instance_is_made_under_the_lock_of_its_run(race: Database, pair: Team, how: str) -> None:
    """The run before its jobs: whoever holds the run (to stop it, to submit it) can have the jobs, too."""
    made = make_submitted(race, pair.connections[0], 1)
    procedure, arguments = {
        "one by one": ("add_job_instance", {"job_id": made["job_ids"][0]}),
        "a run": ("claim_jobs", {"workflow_run_id": made["workflow_run_id"]}),
        "a dag": ("claim_jobs", {"dag_id": made["dag_id"]}),
        "any": ("claim_jobs", {}),
    }[how]
    holder = race.connect("admin", autocommit=False)
    holder.cursor().execute(
        "SELECT 1 FROM workflow_run WHERE workflow_run_id = %s FOR UPDATE", (made["workflow_run_id"],)
    )
    waiting = pair.threads.submit(
        race.once, pair.connections[0], procedure, executor_type="Race", **arguments
    )
    wait_for_lock_waits(race, pair.connections[:1])
    holder.cursor().execute("SELECT 1 FROM job WHERE dag_id = %s FOR UPDATE NOWAIT", (made["dag_id"],))
    holder.rollback()
    waiting.result(60)
    assert job_letters(race, made["dag_id"]) == "I"


# Everything at once ----------------------------------------------------------------------------------


def test_claims_of_many_dags_with_limits_wait_for_no_end(race: Database, eight: Team) -> None:
    """Distributors ask for any, in an order of dags that changes from call to call; runs end meanwhile."""
    conn = eight.connections[0]
    limits = [None, 1, 2, 5, None, 3, 1, 4]
    made = [make_submitted(race, conn, 25, limit) for limit in limits]
    of_dag = {one["dag_id"]: limit for one, limit in zip(made, limits, strict=True)}
    told = Counter[int]()
    lock = threading.Lock()
    live: Counter[int] = Counter()
    too_many: list[int] = []

    def work(conn: Any) -> None:
        for _ in range(3000):
            document = race.call(conn, "claim_jobs", executor_type="Race", lease_seconds=600, max_jobs=6)
            claimed = document["job_instances"]
            with lock:
                told.update(one["job_id"] for one in claimed)
                live.update(one["dag_id"] for one in claimed)
                # counted down before they end, so never fewer than there are
                too_many.extend(d for d, limit in of_dag.items() if limit is not None and live[d] > limit)
            report(
                race,
                conn,
                [{"event": "running", "job_instance_id": one["job_instance_id"]} for one in claimed],
            )
            with lock:
                live.subtract(one["dag_id"] for one in claimed)
            report(
                race, conn, [{"event": "done", "job_instance_id": one["job_instance_id"]} for one in claimed]
            )
            if sum(told.values()) == 25 * len(made) and not claimed:
                return
        raise AssertionError("jobs are left over that nobody gets")

    def end(conn: Any) -> list[int]:
        ended: list[int] = []
        while len(ended) < len(made):
            ended += [one["workflow_run_id"] for one in race.call(conn, "end_workflow_runs")["workflow_runs"]]
        return ended

    *_, ended = eight.each(*[work] * 7, end)
    assert told == Counter(job_id for one in made for job_id in one["job_ids"])
    assert too_many == []
    assert sorted(ended) == sorted(one["workflow_run_id"] for one in made)


def test_all_that_locks_dags_and_runs_at_once(race: Database) -> None:
    """Heartbeats, starts, submissions, claims, limits, stops and ends of the same few workflows."""
    conn = race.connect()
    made = [make_workflow(race, conn, 30, limit, max_attempts=2) for limit in (None, 4, None)]

    def work(seed: int) -> Callable[[Any], None]:
        def run(conn: Any) -> None:
            for n in range(40):
                one = made[(n + seed) % 3]
                dag_id, workflow_id = one["dag_id"], one["workflow_id"]
                (newest,) = race.query(
                    "SELECT MAX(workflow_run_id) FROM workflow_run WHERE workflow_id = %s", workflow_id
                )[0]
                calls: list[tuple[str, dict[str, Any]]] = [
                    ("log_heartbeat", {"dag_id": dag_id}),
                    ("submit_workflow_run", {"workflow_run_id": newest, "max_jobs": 10}),
                    ("claim_jobs", {"executor_type": "Race", "max_jobs": 5}),
                    ("claim_jobs", {"executor_type": "Race", "max_jobs": 3, "workflow_run_id": newest}),
                    ("end_workflow_runs", {}),
                    ("log_heartbeat", {"dag_id": dag_id}),
                    ("claim_jobs", {"executor_type": "Race", "max_jobs": 3, "dag_id": dag_id}),
                    ("end_workflow_run", {"workflow_run_id": newest}),
                    (
                        "set_max_concurrently_running",
                        {"workflow_id": workflow_id, "max_concurrently_running": n % 9},
                    ),
                    ("add_workflow_run", {**RUN, "workflow_id": workflow_id, "stale_after_seconds": n % 2}),
                    ("reset_incomplete_jobs", {"dag_id": dag_id}),
                    ("stop_workflow", {"workflow_id": workflow_id, "kill": n % 2}),
                    ("queue_jobs", {"dag_id": dag_id}),
                    ("add_job_instance", {"job_id": one["job_ids"][n % 30], "executor_type": "Emu"}),
                ]
                for procedure, arguments in calls[seed % 5 :: 2] if n % 3 else calls:
                    attempt(race, conn, procedure, **arguments)

        return run

    with Team(race, 8) as team:
        team.each(*(work(seed) for seed in range(8)))
    live = race.query(
        "SELECT workflow_id, COUNT(*) FROM workflow_run WHERE status = 'R' GROUP BY workflow_id"
    )
    assert all(count == 1 for _, count in live)
    # nothing is stuck: each can be started anew, submitted, and worked off
    for one in made:
        if race.value("SELECT status FROM workflow WHERE workflow_id = %s", one["workflow_id"]) == "D":
            continue
        run = race.call(conn, "add_workflow_run", workflow_id=one["workflow_id"], **RUN)["workflow_run_id"]
        race.call(conn, "set_max_concurrently_running", workflow_id=one["workflow_id"])
        race.call(conn, "reset_incomplete_jobs", dag_id=one["dag_id"])
        assert race.call(conn, "submit_workflow_run", workflow_run_id=run)["num_left"] == 0
        instances = claim(race, conn, max_jobs=1000)
        events = [{"event": event, "job_instance_id": i} for i in instances for event in ("running", "done")]
        assert set(report(race, conn, events)) == {"OK"}
        assert race.call(conn, "end_workflow_run", workflow_run_id=run)["status"] == "D"
