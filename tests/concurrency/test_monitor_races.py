"""Health monitors against those who come back, against each other, and against those whose ends they tell."""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import count
from typing import Any

from race_helpers import (
    Connection,
    Database,
    Team,
    make_dag,
    make_jobs,
    make_live,
    report,
    submit,
    wait_for_lock_waits,
)

THRESHOLD = 300


@contextlib.contextmanager
def seconds_ago(db: Database, conn: Connection, seconds: float) -> Iterator[None]:
    """What happens inside happens so long ago, by the database's clock as this connection sees it."""
    now = db.value("SELECT UNIX_TIMESTAMP(NOW(6))")
    with conn.cursor() as cursor:
        cursor.execute(f"SET timestamp = {float(now) - seconds:.6f}")
        try:
            yield
        finally:
            cursor.execute("SET timestamp = DEFAULT")


def watch(db: Database, conn: Connection) -> None:
    """A health monitor has watched for longer than the threshold."""
    with seconds_ago(db, conn, THRESHOLD + 100):
        db.call(conn, "log_monitor_heartbeat", poll_seconds=THRESHOLD)
    db.call(conn, "log_monitor_heartbeat", poll_seconds=THRESHOLD)


def make_silent(db: Database, conn: Connection, count: int) -> list[dict[str, int]]:
    """Runs of which nothing was heard for long: their dag_id, workflow_id and workflow_run_id."""
    made = []
    with seconds_ago(db, conn, THRESHOLD + 60):
        for _ in range(count):
            dag_id = make_dag(db, conn)
            workflow = {"workflow_args": "", "workflow_hash": f"of {dag_id}", "name": "w", "user": "ann"}
            workflow_id = db.call(conn, "add_workflow", dag_id=dag_id, **workflow)["workflow_dct"]["id"]
            run = {"user": "ann", "hostname": "login1", "pid": 4242}
            run_id = db.call(conn, "add_workflow_run", workflow_id=workflow_id, **run)["workflow_run_id"]
            made.append({"dag_id": dag_id, "workflow_id": workflow_id, "workflow_run_id": run_id})
    watch(db, conn)
    return made


def lost_at_once(db: Database, conn: Connection) -> list[int]:
    found = db.call(conn, "end_lost_workflow_runs", loss_threshold_seconds=THRESHOLD)["workflow_runs"]
    return [run["workflow_run_id"] for run in found]


SEEN = """SELECT status, lost_date IS NOT NULL, heartbeat_date > UTC_TIMESTAMP(6) - INTERVAL 100 SECOND,
    (SELECT COUNT(*) FROM notification WHERE dedup_key = CONCAT('RUN_LOST ', workflow_run_id))
    FROM workflow_run WHERE workflow_run_id = %s"""
LOST, HEARD = ("E", 1, 0, 1), ("R", 0, 1, 0)


def test_a_heartbeat_against_the_loss(race: Database, eight: Team) -> None:
    """Exactly one of them wins: a run that was heard of is not lost, one that is lost is not heard of."""
    conn = race.connect()
    seen: Counter[tuple[Any, ...]] = Counter()
    for _ in range(6):
        runs = make_silent(race, conn, 12)

        def beat(own: Connection, dags: list[int]) -> None:
            for dag_id in dags:
                race.call(own, "log_heartbeat", dag_id=dag_id)

        dags = [run["dag_id"] for run in runs]
        clients = [partial(beat, dags=dags[part::6]) for part in range(6)]

        monitors = [lambda own: lost_at_once(race, own)] * 2
        ended = [number for answer in eight.each(*monitors, *clients)[:2] for number in answer]
        assert len(ended) == len(set(ended)), "two monitors have ended one run"
        for run in runs:
            (found,) = race.query(SEEN, run["workflow_run_id"])
            assert found in (LOST, HEARD)
            assert (found == LOST) is (run["workflow_run_id"] in ended)
            seen[found] += 1
    print(seen)


def test_a_heartbeat_that_is_not_committed_yet_saves_a_run(race: Database, pair: Team) -> None:
    first, second = pair.connections
    (run,) = make_silent(race, first, 1)
    first.begin()
    race.once(first, "log_heartbeat", dag_id=run["dag_id"])
    assert lost_at_once(race, second) == [], "it does not wait either"
    first.commit()
    assert lost_at_once(race, second) == []
    assert race.query(SEEN, run["workflow_run_id"]) == [HEARD]


def test_a_heartbeat_that_comes_while_a_run_is_ended_is_too_late(race: Database, pair: Team) -> None:
    first, second = pair.connections
    (run,) = make_silent(race, first, 1)
    first.begin()
    assert lost_at_once(race, first) == [run["workflow_run_id"]]
    waiting = pair.threads.submit(race.call, second, "log_heartbeat", dag_id=run["dag_id"])
    wait_for_lock_waits(race, [second])
    first.commit()
    assert waiting.result(60) == {}
    assert race.query(SEEN, run["workflow_run_id"]) == [LOST]


def test_the_loss_against_a_resume_and_an_end(race: Database, eight: Team) -> None:
    """A run ends once: lost, superseded or by itself; and the next one lives."""
    conn = race.connect()
    runs = make_silent(race, conn, 12)
    new = {"user": "ann", "hostname": "login1", "pid": 1}

    def resume(part: int) -> Any:
        return lambda own: [
            race.call(own, "add_workflow_run", workflow_id=run["workflow_id"], **new) for run in runs[part::3]
        ]

    def end(own: Connection) -> None:
        for run in runs[::2]:
            with contextlib.suppress(Exception):  # it was superseded
                race.call(own, "update_workflow_run", wfr_id=run["workflow_run_id"], status="D")

    monitors = [lambda own: lost_at_once(race, own)] * 3
    eight.each(
        *monitors, *map(resume, range(3)), end, lambda own: race.call(own, "log_distributor_heartbeat")
    )
    for run in runs:
        (found,) = race.query(SEEN, run["workflow_run_id"])
        assert found[0] in "ESD" and found[1] == found[3]
        assert (found[0] == "E") <= (found[1] == 1)
        live = race.query(
            "SELECT workflow_run.status, workflow.status FROM workflow_run JOIN workflow USING (workflow_id)"
            " WHERE workflow_id = %s AND workflow_run_id <> %s",
            run["workflow_id"],
            run["workflow_run_id"],
        )
        assert live == [("R", "R")], "the loss of the old one has not ended the workflow"


def test_monitors_tell_everything_once(race: Database, eight: Team) -> None:
    conn = race.connect()
    make_silent(race, conn, 10)
    dag_id = make_dag(race, conn)
    submit(race, conn, dag_id)
    make_live(race, conn, 40, dag_id=dag_id, max_attempts=1)
    rows = race.query("SELECT job_instance_id FROM job_instance ORDER BY job_instance_id")
    events = []
    for position, (number,) in enumerate(rows):
        bad = {"nodename": "bad", "event": "error", "error_message": "boom"}
        events.append(
            {"job_instance_id": number, **(bad if position < 20 else {"nodename": "good", "event": "done"})}
        )
    assert set(report(race, conn, events)) == {"OK"}

    def monitor(own: Connection) -> None:
        for _ in range(3):
            race.call(own, "log_monitor_heartbeat", poll_seconds=THRESHOLD)
            race.call(own, "end_lost_workflow_runs", loss_threshold_seconds=THRESHOLD)
            race.call(own, "expire_job_instances", watched_only=1)
            race.call(own, "end_workflow_runs")
            race.call(own, "report_failing_nodes", min_job_instances=10)
            race.call(own, "log_audit", audit="audit_gate", num_violations=2, sample="[]")

    eight.each(*[monitor] * 8)
    kinds = Counter(kind for (kind,) in race.query("SELECT kind FROM notification"))
    assert kinds == {"RUN_LOST": 10, "RUN_ERROR": 1, "NODE_FAILING": 1, "AUDIT_VIOLATED": 1}
    race.call(conn, "log_audit", audit="audit_gate", num_violations=0)


def test_each_message_is_sent_by_one_monitor_and_in_order(race: Database, eight: Team) -> None:
    channels = [f"c{number}" for number in range(5)]
    for number in range(60):
        race.query(
            "INSERT INTO notification (channel, message) VALUES (%s, %s)", channels[number * number % 5], "x"
        )
    sent: list[tuple[str, int]] = []
    deadline = time.monotonic() + 120

    def monitor(name: int) -> Any:
        def work(own: Connection) -> None:
            for turn in count():
                assert time.monotonic() < deadline
                token = f"{name} {turn}"
                found = race.call(own, "claim_notifications", claim_token=token, max_notifications=3)[
                    "notifications"
                ]
                for one in found:
                    body = {"notification_id": one["notification_id"], "claim_token": token}
                    if one["notification_id"] % 7 == 0 and one["num_attempts"] == 1:
                        race.call(own, "log_notification", **body, error_message="x", retry_after_seconds=0)
                    else:
                        sent.append((one["channel"], one["notification_id"]))
                        race.call(own, "log_notification", **body, delivery="SLACK")
                if not found and not race.value("SELECT COUNT(*) FROM notification WHERE sent_date IS NULL"):
                    break

        return work

    eight.each(*map(monitor, range(8)))
    assert len(sent) == len(set(sent)) == 60
    for channel in channels:
        ids = [number for name, number in sent if name == channel]
        assert ids == sorted(ids)


def test_the_outbox_is_in_nobodys_way(race: Database, pair: Team) -> None:
    """A monitor that hangs in the middle of its work keeps no run from ending, or from being told of."""
    first, second = pair.connections
    runs = make_silent(race, first, 3)
    race.call(first, "update_workflow_run", wfr_id=runs[0]["workflow_run_id"], status="E")
    first.begin()
    (claimed,) = race.once(first, "claim_notifications", claim_token="t")["notifications"]
    race.once(
        first, "log_notification", notification_id=claimed["notification_id"], claim_token="t", delivery="LOG"
    )
    # lock waits are an error here, see the fixture
    race.call(second, "update_workflow_run", wfr_id=runs[1]["workflow_run_id"], status="E")
    assert lost_at_once(race, second) == [runs[2]["workflow_run_id"]]
    assert race.call(second, "claim_notifications", claim_token="u")["notifications"] == [], "its turn"
    first.rollback()
    assert race.value("SELECT COUNT(*) FROM notification WHERE sent_date IS NULL") == 3


def test_distributors_keep_runs_alive_without_waiting(race: Database, eight: Team) -> None:
    conn = race.connect()
    with seconds_ago(race, conn, 1000):
        runs = [submit(race, conn, make_dag_with_job(race, conn)) for _ in range(20)]
    held = race.connect()
    held.begin()
    race.once(held, "update_workflow_run", wfr_id=runs[0]["workflow_run_id"], status="R")
    moved = eight.each(*[lambda own: race.call(own, "log_distributor_heartbeat")["num_workflow_runs"]] * 8)
    assert sum(moved) == 19
    held.rollback()
    assert race.call(conn, "log_distributor_heartbeat") == {"num_workflow_runs": 1}


def make_dag_with_job(db: Database, conn: Connection) -> int:
    dag_id = make_dag(db, conn)
    make_jobs(db, conn, dag_id, 1)
    return dag_id
