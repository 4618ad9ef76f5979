"""Reports at once: one is accepted, the others are told; a repeated one has one effect."""

from __future__ import annotations

from typing import Any

import pytest
from race_helpers import (
    Database,
    Team,
    instance_history,
    job_history,
    live_rounds,
    make_dag,
    make_live,
    report,
    rounds,
)

ROUNDS = 60


def ends(db: Database, job_instance_id: int) -> list[str]:
    """The final statuses in an instance's history: one, if the rules hold."""
    return [status for status in instance_history(db, job_instance_id) if status in "DE"]


def test_done_and_error_at_once(race: Database, pair: Team) -> None:
    winners: set[bool] = set()
    for job_id, instance in live_rounds(race, pair.connections[0], ROUNDS, winners):
        done, error = pair.race(
            ("log_done", {"job_instance_id": instance}),
            ("log_error", {"job_instance_id": instance, "error_message": "exit 1"}),
        )
        assert done.accepted is not error.accepted
        assert (done.error or error.error) == "JOB_INSTANCE_ENDED"
        assert ends(race, instance) == (["D"] if done.accepted else ["E"])
        assert job_history(race, job_id) == ("GQIRD" if done.accepted else "GQIREQ")
        errors = race.value(
            "SELECT COUNT(*) FROM job_instance_error_log WHERE job_instance_id = %s", instance
        )
        assert errors == (0 if done.accepted else 1)
        winners.add(done.accepted)
    assert winners == {True, False}, "the two never met: this shows nothing"


def test_sixteen_opinions_of_one_instance(race: Database, sixteen: Team) -> None:
    for job_id, instance in make_live(race, sixteen.connections[0], 15, max_attempts=1).items():
        calls: list[tuple[str, dict[str, Any]]] = [("log_done", {"job_instance_id": instance})] * 8
        calls += [("log_error", {"job_instance_id": instance, "error_message": "no"})] * 8
        outcomes = sixteen.race(*calls)
        # Those of the winning opinion are repetitions, and succeed.
        assert {one.accepted for one in outcomes[:8]} != {one.accepted for one in outcomes[8:]}
        assert len({one.accepted for one in outcomes[:8]}) == 1
        assert len({one.accepted for one in outcomes[8:]}) == 1
        assert {one.error for one in outcomes if not one.accepted} == {"JOB_INSTANCE_ENDED"}
        assert len(ends(race, instance)) == 1
        assert job_history(race, job_id) in ("GQIRD", "GQIREF")
        # All who are accepted get the same message.
        assert len({str(one.document) for one in outcomes if one.accepted}) == 1


@pytest.mark.parametrize(
    ("procedure", "more"),
    [
        ("log_done", {}),
        ("log_error", {"error_message": "exit 1"}),
    ],
)
def test_the_same_end_twice_at_once(race: Database, pair: Team, procedure: str, more: dict[str, Any]) -> None:
    live = make_live(race, pair.connections[0], 25)
    for instance in live.values():
        outcomes = pair.all(procedure, job_instance_id=instance, **more)
        assert [one.error for one in outcomes] == [None, None]
        assert outcomes[0].document == outcomes[1].document
        assert len(ends(race, instance)) == 1
    errors = race.value("SELECT COUNT(*) FROM job_instance_error_log")
    assert errors == (25 if procedure == "log_error" else 0)


def test_running_and_executor_id_in_any_order(race: Database, sixteen: Team) -> None:
    for instance in make_live(race, sixteen.connections[0], 20, "I").values():
        calls: list[tuple[str, dict[str, Any]]] = []
        for n in range(5):
            calls.append(("log_running", {"job_instance_id": instance, "nodename": "node7"}))
            calls.append(("log_executor_id", {"job_instance_id": instance, "executor_id": "4711"}))
            calls.append(("log_usage", {"job_instance_id": instance, "cpu": str(n)}))
        assert [one.error for one in sixteen.race(*calls)] == [None] * 15
        assert "".join(instance_history(race, instance)) in ("IR", "IBR")
        assert race.query(
            "SELECT status, executor_id, nodename FROM job_instance WHERE job_instance_id = %s", instance
        ) == [("R", "4711", "node7")]


def test_single_reports_against_batches(race: Database, pair: Team) -> None:
    """log_events and log_done / log_error at once over the same instances."""
    live: list[int] = []

    def batch(conn: Any) -> list[bool]:
        codes: list[str] = []
        for first in range(0, 120, 20):
            events = [{"event": "done", "job_instance_id": one} for one in live[first : first + 20]]
            codes += report(race, conn, events)
        assert set(codes) <= {"OK", "JOB_INSTANCE_ENDED"}
        return [code == "OK" for code in codes]

    def single(conn: Any) -> list[bool]:
        accepted = {}
        for one in reversed(live):
            try:
                race.call(conn, "log_error", job_instance_id=one, error_message="no")
                accepted[one] = True
            except Exception as error:
                assert getattr(error, "name", error) == "JOB_INSTANCE_ENDED"
                accepted[one] = False
        return [accepted[one] for one in live]

    accepted: set[bool] = set()
    for number in rounds(1, accepted):
        live = list(make_live(race, pair.connections[0], 120).values())
        done, failed = pair.each(batch, single)
        assert [a is not b for a, b in zip(done, failed, strict=True)] == [True] * 120
        accepted |= set(done)
        ended = race.value("SELECT COUNT(*) FROM job_instance_status_log WHERE status IN ('D', 'E')")
        assert ended == 120 * (number + 1)
    assert accepted == {True, False}, "the two never met: this shows nothing"


def test_a_report_against_a_reset(race: Database, pair: Team) -> None:
    """The reset always takes effect; the report before it was accepted, the one after it is told to stop."""
    accepted: set[bool] = set()
    for job_id, instance in live_rounds(race, pair.connections[0], ROUNDS, accepted):
        done, reset = pair.race(
            ("log_done", {"job_instance_id": instance}), ("reset_job", {"job_id": job_id})
        )
        assert reset.accepted
        assert done.error in (None, "JOB_INSTANCE_SUPERSEDED")
        assert job_history(race, job_id) == ("GQIRDG" if done.accepted else "GQIRG")
        assert ends(race, instance) == (["D"] if done.accepted else ["E"])
        accepted.add(done.accepted)
    assert accepted == {True, False}, "the two never met: this shows nothing"


def test_reports_in_flight_while_a_dag_is_reset(race: Database, sixteen: Team) -> None:
    conn = sixteen.connections[0]
    dag_id = make_dag(race, conn)
    live = make_live(race, conn, 150, dag_id=dag_id)
    shares = [list(live.items())[n::15] for n in range(15)]

    def work(share: list[tuple[int, int]], number: int) -> Any:
        def run(conn: Any) -> dict[int, str]:
            told = {}
            for job_id, instance in share:
                event = {"event": "done" if number % 2 else "error", "job_instance_id": instance}
                told[job_id] = report(race, conn, [{**event, "error_message": "no"}])[0]
            return told

        return run

    def reset(conn: Any) -> None:
        for _ in range(3):
            race.call(conn, "reset_incomplete_jobs", dag_id=dag_id)

    *told, _ = sixteen.each(*(work(share, n) for n, share in enumerate(shares)), reset)
    codes = {job_id: code for one in told for job_id, code in one.items()}
    assert set(codes.values()) <= {"OK", "JOB_INSTANCE_SUPERSEDED"}
    # Now and then a job that failed after the last reset is queued again; nothing is left live.
    race.call(conn, "reset_incomplete_jobs", dag_id=dag_id)
    for job_id, code in codes.items():
        number = next(n for n, share in enumerate(shares) if job_id in dict(share))
        status = race.value("SELECT status FROM job WHERE job_id = %s", job_id)
        assert status == ("D" if number % 2 and code == "OK" else "G")
    assert race.value("SELECT COUNT(*) FROM job_instance WHERE status IN ('I', 'B', 'R')") == 0
