"""Who asks the scheduler reports beside the workers: one opinion wins, and resources grow once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pymysql
from race_helpers import (
    Database,
    Refused,
    Team,
    attempt,
    instance_history,
    job_history,
    live_rounds,
    make_live,
    report,
    wait_for_lock_waits,
)

ROUNDS = 30
OUT_OF_MEMORY = {"error_message": "OUT_OF_MEMORY", "job_instance_status": "Z", "exceeded": "mem_free"}


def growing(race: Database, jobs: Any) -> None:
    """4 GB, and as much again each time."""
    for job_id in jobs:
        race.query("UPDATE job SET mem_free = 4, mem_free_scale = 1 WHERE job_id = %s", job_id)


def mem_free(race: Database, job_id: int) -> int:
    return int(race.value("SELECT mem_free FROM job WHERE job_id = %s", job_id))


def errors(race: Database, instance: int) -> list[tuple[Any, ...]]:
    return race.query(
        "SELECT severity, description FROM job_instance_error_log WHERE job_instance_id = %s"
        " ORDER BY job_instance_error_log_id",
        instance,
    )


def test_the_workers_done_against_the_reconcilers_error(race: Database, pair: Team) -> None:
    """The loser is told, and a job that is DONE asks for no more memory."""
    winners: set[bool] = set()
    for job_id, instance in live_rounds(race, pair.connections[0], ROUNDS, winners):
        growing(race, [job_id])
        done, error = pair.race(
            ("log_done", {"job_instance_id": instance}),
            ("log_error", {"job_instance_id": instance, **OUT_OF_MEMORY}),
        )
        assert done.accepted is not error.accepted
        assert (done.error or error.error) == "JOB_INSTANCE_ENDED"
        assert "".join(instance_history(race, instance)) == ("IRD" if done.accepted else "IRZ")
        assert job_history(race, job_id) == ("GQIRD" if done.accepted else "GQIREQ")
        assert mem_free(race, job_id) == (4 if done.accepted else 8)
        assert len(errors(race, instance)) == (0 if done.accepted else 1)
        winners.add(done.accepted)
    assert winners == {True, False}, "the two never met: this shows nothing"


def test_two_resource_errors_at_once(race: Database, pair: Team) -> None:
    """Worker and reconciler both saw it, one of them by log_events: it grows once, and both are content."""
    live = make_live(race, pair.connections[0], ROUNDS)
    growing(race, live)
    for job_id, instance in live.items():
        given = {"job_instance_id": instance, **OUT_OF_MEMORY}

        def by_event(conn: Any, given: dict[str, Any] = given) -> str | None:
            (code,) = report(race, conn, [{"event": "error", **given}])
            return None if code == "OK" else code

        def by_call(conn: Any, given: dict[str, Any] = given) -> str | None:
            return attempt(race, conn, "log_error", **given).error

        assert pair.each(by_call, by_event) == [None, None]
        assert "".join(instance_history(race, instance)) == "IRZ"
        assert job_history(race, job_id) == "GQIREQ"
        assert mem_free(race, job_id) == 8
        assert errors(race, instance) == [("error", "OUT_OF_MEMORY")]


def test_sixteen_kinds_of_error_at_once(race: Database, sixteen: Team) -> None:
    live = make_live(race, sixteen.connections[0], 8, "I")
    growing(race, live)
    for job_id, instance in live.items():
        kinds: list[dict[str, Any]] = [
            {"error_message": "E"},
            {"error_message": "W", "job_instance_status": "W"},
            {"error_message": "U", "job_instance_status": "U"},
            OUT_OF_MEMORY,
        ]
        outcomes = sixteen.race(*[("log_error", {"job_instance_id": instance, **one}) for one in kinds * 4])
        accepted = [number % 4 for number, one in enumerate(outcomes) if one.accepted]
        assert len(accepted) == 4 and len(set(accepted)) == 1
        assert {one.error for one in outcomes if not one.accepted} == {"JOB_INSTANCE_ENDED"}
        assert instance_history(race, instance) == ["I", "EWUZ"[accepted[0]]]
        assert job_history(race, job_id) == "GQIEQ"
        assert mem_free(race, job_id) == (8 if accepted[0] == 3 else 4)
        assert len(errors(race, instance)) == 1


def meet(
    race: Database, pair: Team, first: Callable[[Any], Any], second: Callable[[Any], Any]
) -> tuple[Any, Any]:
    """The second comes while the first one's transaction is open."""
    one, two = pair.connections
    race_one = pair.threads
    one.begin()
    answered = first(one)
    waiting = race_one.submit(second, two)
    wait_for_lock_waits(race, [two])
    one.commit()
    return answered, waiting.result(60)


def test_the_same_warning_at_once_is_one(race: Database, pair: Team) -> None:
    """By a call and by an event, each after the other, both beginning before the other has committed."""
    live = list(make_live(race, pair.connections[0], 2, "I").values())

    def by_call(instance: int) -> Callable[[Any], Any]:
        given = {"job_instance_id": instance, "error_message": "no such queue"}
        return lambda conn: race.once(conn, "log_warning", **given)

    def by_event(instance: int) -> Callable[[Any], Any]:
        event = {"event": "warning", "job_instance_id": instance, "error_message": "no such queue"}
        return lambda conn: race.once(conn, "log_events", events=[event])["outcomes"]

    called, reported = {"message": None}, [{"code": "OK"}]
    assert meet(race, pair, by_call(live[0]), by_event(live[0])) == (called, reported)
    assert meet(race, pair, by_event(live[1]), by_call(live[1])) == (reported, called)
    for instance in live:
        assert errors(race, instance) == [("warning", "no such queue")]


def test_what_is_killed_is_not_submitted(race: Database, pair: Team) -> None:
    """A name is recorded before the submission: who kills in between is seen there."""
    ((job_id, instance), *_) = make_live(race, pair.connections[0], 1, "I").items()

    def record(conn: Any) -> str:
        try:
            race.once(conn, "log_executor_name", job_instance_id=instance, executor_name="jobmon-0-1.0")
        except Refused as refusal:
            return refusal.name
        return "recorded"

    _, answer = meet(race, pair, lambda conn: race.once(conn, "kill_job", job_id=job_id), record)
    assert answer == "JOB_INSTANCE_ENDED"
    assert race.query("SELECT status, executor_name FROM job_instance") == [("E", None)]


def test_live_instances_are_read_without_a_lock(race: Database, pair: Team) -> None:
    """The list is not held up by reports, nor are they by it."""
    live = make_live(race, pair.connections[0], 3)
    one, two = pair.connections
    one.begin()
    race.once(one, "log_done", job_instance_id=min(live.values()))
    reader = race.connect("jqs", autocommit=False)
    with reader.cursor(pymysql.cursors.Cursor) as cursor:
        cursor.execute("SELECT job_instance_id FROM get_live_job_instances WHERE executor_type = 'Race'")
        # that end is not committed
        assert {found for (found,) in cursor.fetchall()} == set(live.values())
    assert report(race, two, [{"event": "done", "job_instance_id": max(live.values())}]) == ["OK"]
    one.commit()
    reader.rollback()
