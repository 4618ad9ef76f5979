"""The batch executor on a scheduler that is only played: each rule by which the two are compared."""

from __future__ import annotations

import json
import stat
import subprocess
from collections.abc import Callable
from importlib.metadata import EntryPoint
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from play_helpers import DATABASE, PREFIX, Play

from jobmon.client.errors import JobmonError
from jobmon.executors import make_executor
from jobmon.executors.batch import BatchExecutor
from jobmon.executors.batch_options import BatchOptions
from jobmon.executors.scheduler import Listed, SchedulerSilentError, SubmissionRejectedError

MakePlay = Callable[..., Play]
SILENT = SchedulerSilentError("no answer")


@pytest.fixture
def make_play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MakePlay:
    """Makes a :class:`Play`: ``make_play(max_rejections=2)``."""

    def make(**options: Any) -> Play:
        return Play(tmp_path, monkeypatch, **options)

    return make


@pytest.fixture
def play(make_play: MakePlay) -> Play:
    return make_play()


# Submitting -----------------------------------------------------------------------------------------------


def test_equal_resources_are_one_submission(play: Play) -> None:
    play.claim(*range(1, 4))
    play.claim(4, 5, slots=2)
    play.claim(
        6, max_runtime=100, mem_free=7, context_args={"queue": "long", "flags": "--x --y"}, project="p"
    )
    play.go()
    found = [(one.name, one.size, one.resources) for one in play.scheduler.submissions]
    assert [(name, size) for name, size, _ in found] == [
        (PREFIX + "1", 3),
        (PREFIX + "4", 2),
        (PREFIX + "6", 1),
    ]
    assert found[1][2].slots == 2
    last = found[2][2]
    assert (last.max_runtime, last.mem_free, last.queue, last.project) == (160, 7, "long", "p")
    assert last.flags == ("--x", "--y")
    assert [play.rows[n]["executor_name"] for n in (1, 3, 5)] == [
        PREFIX + "1.0",
        PREFIX + "1.2",
        PREFIX + "4.1",
    ]
    assert [play.rows[n]["executor_id"] for n in (1, 3, 5)] == ["100_0", "100_2", "101_1"]


def test_at_most_500_in_a_submission(play: Play) -> None:
    play.claim(*range(1, 1001))
    play.go()
    assert [one.size for one in play.scheduler.submissions] == [500, 500]


def test_the_name_is_in_the_database_before_the_submission(play: Play) -> None:
    play.claim(1, 2)
    for _ in range(5):
        play.executor._turn()
    assert play.scheduler.submissions == []
    events = play.executor.collect()
    assert {event["event"] for event in events} == {"executor_name"}
    play.executor.logged(events[:1])
    play.executor._turn()
    assert play.scheduler.submissions == []
    play.executor.logged(events[1:])
    play.executor._turn()
    assert len(play.scheduler.submissions) == 1


def test_what_was_given_up_is_not_submitted(play: Play) -> None:
    play.claim(1, 2, 3)
    play.claim(4, slots=9)
    play.refuse = {2, 4}
    play.go()
    [only] = play.scheduler.submissions
    assert only.size == 3 and "job_instance_ids=(1 0 3)" in only.command
    assert sorted(play.executor.held()) == [1, 3]
    assert not play.executor.submitting()


def test_nothing_is_submitted_after_its_lease(play: Play) -> None:
    play.claim(1, start_until=play.now - 1)
    play.go()
    assert play.scheduler.submissions == []
    play.executor.renew([1], play.now + 60)
    play.go()
    assert len(play.scheduler.submissions) == 1


def test_a_task_starts_its_worker(make_play: MakePlay, tmp_path: Path) -> None:
    worker = tmp_path / "a worker"
    worker.write_text('#!/bin/bash\necho "$@"; env | grep ^JOBMON_\n')
    worker.chmod(0o755)
    play = make_play(worker_command=f"'{worker}'")
    play.submitted(7, 8)
    [only] = play.scheduler.submissions
    environment = {"PATH": "/usr/bin:/bin", "JOBMON_TOKEN": "other", "JOBMON_HOST": "other"}
    ran = subprocess.run(
        ["bash"], input=f"JOBMON_TASK=1\n{only.command}", env=environment, capture_output=True, text=True
    )
    settings = tmp_path / f"worker-{DATABASE}-jsm.example-{play.config.jsm_port}.json"
    assert ran.stdout.splitlines() == [
        "--executor-reports-signals --heartbeat-seconds 30 8", f"JOBMON_RC={settings}",
    ]  # fmt: skip
    assert "s3cret" not in only.command
    told = json.loads(settings.read_text())
    assert told == {"host": "jsm.example", "jsm_port": play.config.jsm_port, "token": "s3cret"}
    assert stat.S_IMODE(settings.stat().st_mode) == 0o600


def test_wrong_context_args(play: Play) -> None:
    play.claim(1, context_args={"queue": ["no", "text"]})
    play.claim(2)
    play.go()
    assert play.errors[1]["job_instance_status"] == "W"
    assert "context_args" in play.errors[1]["error_message"]
    assert play.rows[2]["executor_id"] is not None


def test_context_args_may_be_text(play: Play) -> None:
    play.claim(1, context_args='{"queue": "long"}')
    play.go()
    assert play.scheduler.submissions[0].resources.queue == "long"


# Room -----------------------------------------------------------------------------------------------------


def test_room(make_play: MakePlay) -> None:
    play = make_play(max_workers=10)
    assert play.executor.room() == 10
    play.claim(1, 2, 3)
    assert play.executor.room() == 0  # until these are submitted
    play.go()
    play.now += 1
    assert play.executor.room() == 7


def test_room_counts_what_others_have_there(make_play: MakePlay) -> None:
    play = make_play(max_workers=10)
    for number in (1, 2):
        play.add(number)
        play.scheduler.listed[f"9_{number}"] = Listed(f"9_{number}", PREFIX + str(number), 0, "pending")
    play.scheduler.listed["8"] = Listed("8", "jobmon-ffffffff-1", 0, "pending")
    play.executor._some_live = True
    play.look()
    assert play.executor.room() == 8


def test_no_room_while_the_scheduler_is_silent(play: Play) -> None:
    play.submitted(1)
    play.scheduler.fail["list"] = [SILENT, SILENT]
    play.look()
    assert play.executor.room() == 0
    play.look()
    play.look()
    assert play.executor.room() > 0


# Reconcile ------------------------------------------------------------------------------------------------


def test_one_list_in_an_interval(play: Play) -> None:
    play.submitted(*range(1, 301))
    play.scheduler.calls.clear()
    for _ in range(50):
        play.look(1.0)
    assert play.scheduler.calls == ["list"] * 5


def test_no_list_while_nothing_lives(play: Play) -> None:
    for _ in range(5):
        play.look()
    play.scheduler.calls.clear()
    for _ in range(10):
        play.look()
    assert play.scheduler.calls == []
    play.add(5)  # of somebody who died
    play.look()
    play.look()
    assert "list" in play.scheduler.calls


def test_missing_once_is_nothing(play: Play) -> None:
    [number] = play.submitted(1)
    play.look()
    gone = play.scheduler.listed.pop(number)
    play.look()
    play.scheduler.listed[number] = gone
    for _ in range(3):
        play.look()
    assert "ended" not in play.scheduler.calls and play.errors == {}


def test_missing_twice_is_looked_up(play: Play) -> None:
    [number] = play.submitted(1)
    play.scheduler.forget(
        number, status="Z", message="killed: memory", exceeded="mem_free", usage={"maxvmem": "5K"}
    )
    play.look()
    assert play.errors == {} and "ended" not in play.scheduler.calls
    play.look()
    assert play.errors[1] == {
        "event": "error", "job_instance_id": 1, "error_message": "killed: memory", "job_instance_status": "Z",
        "exceeded": "mem_free", "maxvmem": "5K",
    }  # fmt: skip
    assert play.executor.held() == []


def test_what_its_worker_has_reported_is_let_go(play: Play) -> None:
    [number] = play.submitted(1)
    play.scheduler.forget(number, status="E")
    del play.rows[1]
    for _ in range(3):
        play.look()
    assert play.errors == {} and play.executor.held() == [] and "ended" not in play.scheduler.calls


def test_submitted_after_the_list(play: Play) -> None:
    """A list that was made before the submission says nothing about it."""
    play.submitted(9)
    play.now += 10
    play.executor._turn()  # lists
    play.submitted(1)
    play.executor.reconcile(list(play.rows.values()))
    assert play.executor._tasks[1].missing == 0


def test_vanished(play: Play) -> None:
    [number] = play.submitted(1)
    play.scheduler.forget(number)
    play.look()
    play.look()
    assert play.errors == {}
    play.look()
    assert play.errors[1]["job_instance_status"] == "U"
    assert "Vanished" in play.errors[1]["error_message"]


def test_an_id_that_was_used_again(play: Play) -> None:
    """The record is of another job with the same id: it says nothing about ours."""
    [number] = play.submitted(1)
    play.scheduler.forget(number, status="Z", name=PREFIX + "77", exceeded="mem_free")
    play.look()
    play.look()
    assert play.errors == {}
    play.look()
    assert play.errors[1]["job_instance_status"] == "U"


def test_an_id_that_is_used_by_another_job_now(play: Play) -> None:
    [number] = play.submitted(1)
    play.scheduler.listed[number] = Listed(number, PREFIX + "55", 0, "running")
    play.add(55)
    for _ in range(3):
        play.look()
    assert play.errors[1]["job_instance_status"] == "U"
    assert play.scheduler.cancelled == []


def test_a_worker_that_lives_has_not_vanished(play: Play) -> None:
    play.submitted(1)
    play.run(1)
    play.look()
    play.scheduler.listed.clear()
    for _ in range(10):
        play.rows[1]["lease_left_seconds"] = 115.0  # renewed
        play.look()
    assert play.errors == {}
    looks = 0
    while 1 in play.rows:
        looks += 1
        play.rows[1]["lease_left_seconds"] = 115.0 - 10 * looks
        play.look()
    assert 4 <= looks <= 6
    assert play.errors[1]["job_instance_status"] == "U"


def test_silence_changes_nothing(play: Play) -> None:
    [number] = play.submitted(1)
    play.scheduler.forget(number, status="E")
    play.scheduler.fail["list"] = [SILENT] * 5
    for _ in range(5):
        play.look()
    assert play.errors == {} and play.executor._tasks[1].missing == 0
    assert play.executor.to_renew() == [1]  # it may wait there for hours
    play.scheduler.fail["ended"] = [SILENT] * 5
    for _ in range(6):
        play.look()
    assert play.errors == {}
    play.look()
    assert 1 in play.errors


def test_half_an_answer(play: Play) -> None:
    """What another source has said counts; that it has nothing on the others does not."""
    first, second = play.submitted(1, 2)
    play.scheduler.forget(first, status="E")
    play.scheduler.forget(second)
    found = {first: play.scheduler.records[first]}
    play.scheduler.fail["ended"] = [SchedulerSilentError("no accounting", ended=found)] * 3
    for _ in range(4):
        play.look()
    assert list(play.errors) == [1]


def test_an_unexpected_error_of_the_scheduler_is_silence(play: Play) -> None:
    [number] = play.submitted(1)
    play.scheduler.forget(number, status="E")
    play.scheduler.fail["list"] = [RuntimeError("a defect")]
    play.scheduler.fail["ended"] = [KeyError("a defect")]
    for _ in range(3):
        play.look()
    assert play.errors == {}
    play.look()
    assert 1 in play.errors


def test_leases_of_what_waits(play: Play) -> None:
    play.submitted(1, 2)
    play.run(1)
    assert sorted(play.executor.to_renew()) == [1, 2]
    play.look()
    assert play.executor.to_renew() == [2]
    assert sorted(play.executor.held()) == [1, 2]


def test_stuck(play: Play) -> None:
    [number] = play.submitted(1)
    play.scheduler.listed[number] = Listed(number, PREFIX + "1", 0, "stuck", "launch failed")
    play.look()
    assert play.warnings == [(1, f"Stuck in Play, {number}: launch failed")] and play.errors == {}
    play.look()
    assert play.errors[1]["error_message"] == f"Stuck in Play, {number}: launch failed"
    play.look()
    assert play.scheduler.cancelled == [number]


def test_a_doubtful_reason_is_told_once(play: Play) -> None:
    [number] = play.submitted(1)
    play.scheduler.listed[number] = Listed(number, PREFIX + "1", 0, "pending", "TooMany", doubtful=True)
    for _ in range(4):
        play.look()
    assert play.warnings == [(1, f"Waits in Play, {number}: TooMany")]
    assert play.errors == {} and play.scheduler.cancelled == []


def test_the_worker_s_log_is_told(play: Play) -> None:
    [number] = play.submitted(1)
    log_dir = play.directory / "logs" / (PREFIX + "1")
    (log_dir / "0.log").write_text("no such python\n")
    play.scheduler.forget(number, message="exit code 127")
    play.look()
    play.look()
    assert play.errors[1]["error_message"] == "exit code 127\nno such python"


def test_empty_logs_are_removed(play: Play) -> None:
    first, second = play.submitted(1, 2)
    play.submitted(3)
    logs = play.directory / "logs"
    for name, text in (("1/0", ""), ("1/1", "words"), ("3/0", "")):
        (logs / f"{PREFIX}{name}.log").write_text(text)
    for number in (first, second):
        play.scheduler.start(number)
    del play.rows[1], play.rows[2], play.rows[3]
    play.scheduler.listed.pop("101_0")
    play.look()
    assert sorted(path.name for path in logs.iterdir()) == [PREFIX + "1"]  # these may yet write
    play.scheduler.listed.clear()
    play.look()
    play.look()
    assert [path.name for path in (logs / (PREFIX + "1")).iterdir()] == ["1.log"]


# Submissions that are rejected, or not answered -----------------------------------------------------------


def rejected(**kw: Any) -> SubmissionRejectedError:
    return SubmissionRejectedError("no such partition", **kw)


def test_a_rejected_submission_is_tried_again(play: Play) -> None:
    play.scheduler.fail["submit"] = [rejected()]
    play.claim(1, 2)
    play.go()
    text = "The submission was rejected by Play: no such partition"
    assert play.warnings == [(1, text), (2, text)] and play.errors == {}
    play.now += 5
    play.go()
    assert play.scheduler.submissions == []
    play.now += 6
    play.go()
    assert [one.size for one in play.scheduler.submissions] == [2]


def test_rejected_too_often(play: Play) -> None:
    play.scheduler.fail["submit"] = [rejected()] * 4
    play.claim(1)
    times = []
    for _ in range(200):
        before = len(play.scheduler.calls)
        play.executor.renew([1], play.now + 60)
        play.go()
        times += [play.now] * play.scheduler.calls[before:].count("submit")
        play.now += 1
    assert [later - earlier for earlier, later in pairwise(times)] == [10, 30, 90]
    assert play.errors[1]["job_instance_status"] == "W"
    assert play.errors[1]["error_message"] == "Not submitted: rejected by Play: no such partition"
    assert play.executor.held() == []


def test_a_rejected_submission_holds_up_no_other(play: Play) -> None:
    play.scheduler.fail["submit"] = [rejected()]
    play.claim(1)
    play.go()
    play.now += 1
    assert play.executor.room() > 0
    play.claim(2)
    play.go()
    assert [one.name for one in play.scheduler.submissions] == [PREFIX + "2"]


def test_full(play: Play) -> None:
    """A limit on the number of tasks: it is waited for, in smaller parts, as long as others are there."""
    play.submitted(1)
    play.scheduler.fail["submit"] = [rejected(full=True)] * 20
    play.claim(2, 3, 4, 5)
    for _ in range(4):
        play.go()
        play.now += 10
    assert play.executor.room() == 0  # nothing more is claimed
    assert play.errors == {}
    assert play.rows[4]["executor_name"] != PREFIX + "2.2"
    play.scheduler.fail.clear()
    for _ in range(4):
        play.now += 400
        play.executor.renew(play.executor.held(), play.now + 60)
        play.go()
    assert sorted(one.size for one in play.scheduler.submissions[1:]) == [1, 1, 1, 1]
    ids = [play.rows[number]["executor_id"] for number in (2, 3, 4, 5)]
    assert len(set(ids)) == 4 and None not in ids
    names = {f"{one.name}.{one.task}" for one in play.scheduler.listed.values()}
    assert {play.rows[number]["executor_name"] for number in (2, 3, 4, 5)} <= names


def test_full_without_others_counts(make_play: MakePlay) -> None:
    play = make_play(max_rejections=1)
    play.scheduler.fail["submit"] = [rejected(full=True)] * 9
    play.claim(1)
    play.go()
    assert play.errors[1]["job_instance_status"] == "W"


def test_leaving_gives_up_what_was_rejected(play: Play) -> None:
    play.scheduler.fail["submit"] = [rejected()]
    play.claim(1)
    play.go()
    assert play.executor.submitting()
    play.executor.drain()
    play.go()
    assert play.errors[1]["job_instance_status"] == "W"
    assert not play.executor.submitting()


def test_a_submission_that_was_taken_without_an_answer(play: Play) -> None:
    play.scheduler.fail["submit"] = [SILENT]
    play.scheduler.takes_silently = True
    play.claim(1, 2)
    play.go()
    assert play.rows[1]["executor_id"] is None and play.executor.room() == 0
    play.look()
    assert [play.rows[number]["executor_id"] for number in (1, 2)] == ["100_0", "100_1"]
    for _ in range(5):
        play.look()
    assert len(play.scheduler.submissions) == 1 and play.errors == {}


def test_one_that_was_not_taken_is_submitted_after_two_lists(play: Play) -> None:
    play.scheduler.fail["submit"] = [SILENT]
    play.claim(1)
    play.go()
    play.look()
    assert play.scheduler.submissions == []
    play.look()
    assert len(play.scheduler.submissions) == 1
    assert play.rows[1]["executor_id"] == "100_0"


def test_one_whose_worker_has_reported_was_taken(play: Play) -> None:
    """It may be over before it was ever listed."""
    play.scheduler.fail["submit"] = [SILENT]
    play.claim(1, 2)
    play.go()
    play.rows[1].update(status="R", executor_id="55_0")
    for _ in range(4):
        play.look()
    assert play.scheduler.submissions == []
    assert play.errors[2]["job_instance_status"] == "U"  # the other has vanished


def test_silence_does_not_lead_to_a_second_submission(play: Play) -> None:
    play.scheduler.fail["submit"] = [SILENT]
    play.claim(1)
    play.go()
    play.scheduler.fail["list"] = [SILENT] * 10
    for _ in range(10):
        play.look()
        play.executor.renew([1], play.now + 60)
    assert play.scheduler.submissions == []


# What others have left there ------------------------------------------------------------------------------


def listed(play: Play, number: int, state: Any = "pending", executor_id: str | None = None) -> str:
    found = executor_id or f"9_{number}"
    play.scheduler.listed[found] = Listed(found, PREFIX + str(number), 0, state)
    return found


def test_what_nobody_looks_after_is_taken_over(play: Play) -> None:
    play.add(1, lease_left_seconds=20.0)
    number = listed(play, 1)
    play.look()
    play.look()
    assert play.executor.held() == [1]
    assert play.rows[1]["executor_id"] == number
    assert play.rows[1]["lease_left_seconds"] == 60.0
    assert play.executor.to_renew() == [1]
    play.scheduler.forget(number, message="cancelled")
    play.look()
    play.look()
    assert play.errors[1]["error_message"] == "cancelled"


@pytest.mark.parametrize(
    "row",
    [
        {"lease_left_seconds": 50.0},  # somebody renews it
        {"status": "R", "lease_left_seconds": 20.0},  # its worker does
        {"executor_name": None},
        {"executor_name": "jobmon-ffffffff-1.0"},
        {"executor_name": PREFIX + "1"},
        {"executor_name": PREFIX + "1.x"},
    ],
)
def test_what_is_not_taken_over(play: Play, row: dict[str, Any]) -> None:
    play.add(1, **{"lease_left_seconds": 20.0, **row})
    listed(play, 1)
    play.look()
    play.look()
    assert play.executor.held() == []


def test_only_of_its_own_dag(play: Play) -> None:
    play.executor._dag_id = 7
    for number, dag_id in ((1, 1), (2, 7)):
        play.add(number, dag_id=dag_id, lease_left_seconds=20.0)
        listed(play, number)
    play.look()
    play.look()
    assert play.executor.held() == [2]
    assert play.executor.dags() == {7}
    assert play.scheduler.cancelled == []


def test_why_nothing_is_heard_of_another_s_worker(play: Play) -> None:
    """Nobody holds it and its lease is nearly over: the scheduler may know more than `Lost`."""
    play.add(1, status="R", executor_id="9_1", lease_left_seconds=60.0)
    number = listed(play, 1, "running")
    play.look()
    play.scheduler.forget(number, status="Z", exceeded="mem_free", message="memory")
    play.look()
    assert play.errors == {}
    play.rows[1]["lease_left_seconds"] = 15.0
    play.look()
    assert play.errors[1]["exceeded"] == "mem_free"


def test_without_a_record_it_is_left_to_its_lease(play: Play) -> None:
    play.add(1, status="R", executor_id="9_1", lease_left_seconds=5.0)
    for _ in range(4):
        play.look()
    assert play.errors == {} and 1 in play.rows


def test_what_is_no_longer_wanted_is_cancelled(play: Play) -> None:
    waits, runs = play.submitted(1, 2)
    play.run(2)
    play.look()
    del play.rows[1], play.rows[2]  # stopped by somebody
    play.look()
    assert play.scheduler.cancelled == [waits]
    play.scheduler.listed.pop(waits)
    play.look()
    assert play.scheduler.cancelled == [waits, runs]
    play.look()
    assert play.scheduler.cancelled == [waits, runs]  # it takes its time to end


def test_a_worker_that_is_leaving_is_not_cancelled(play: Play) -> None:
    [number] = play.submitted(1)
    play.run(1)
    play.look()
    del play.rows[1]  # done
    play.look()
    play.scheduler.listed.pop(number)
    play.look()
    assert play.scheduler.cancelled == []


def test_jobs_of_others_are_not_touched(play: Play) -> None:
    play.submitted(1)
    for name in ("jobmon-ffffffff-1", "jobmon-" + DATABASE, "jobmon-x", "mine"):
        play.scheduler.listed[name] = Listed(name, name, 0, "pending")
    for _ in range(4):
        play.look()
    assert play.scheduler.cancelled == []


def test_a_cancellation_that_was_not_answered(play: Play) -> None:
    [number] = play.submitted(1)
    play.scheduler.fail["cancel"] = [SILENT, SILENT]
    del play.rows[1]
    for _ in range(4):
        play.look()
    assert play.scheduler.cancelled == [number]


# The end --------------------------------------------------------------------------------------------------


def test_kill(play: Play) -> None:
    play.submitted(1, 2)
    play.scheduler.fail["submit"] = [rejected()]
    play.claim(3)
    play.go()
    play.executor.kill()
    play.go()
    assert play.scheduler.cancelled == ["100_0", "100_1"]
    assert "the distributor was told to kill" in play.errors[1]["error_message"]
    assert play.errors[3]["error_message"] == "killed before it was submitted"
    assert play.executor.held() == [] and not play.executor.submitting()


def test_what_is_claimed_while_it_is_killed(play: Play) -> None:
    play.executor.kill()
    play.go()
    play.claim(1)
    play.go()
    assert play.errors[1]["error_message"] == "killed before it was submitted"
    assert play.scheduler.submissions == []


def test_kill_finds_what_was_taken_without_an_answer(play: Play) -> None:
    play.scheduler.fail["submit"] = [SILENT]
    play.scheduler.takes_silently = True
    play.claim(1)
    play.go()
    play.executor.kill()
    play.go()
    assert play.scheduler.cancelled == ["100_0"]
    assert 1 in play.errors


def test_a_stopped_run_waits_for_its_cancellations(play: Play) -> None:
    play.submitted(1, 2)
    play.run(2)
    play.look()
    del play.rows[1], play.rows[2]
    assert not play.executor.settled()
    play.look(0.0)
    assert play.scheduler.cancelled == ["100_0"]
    play.scheduler.listed.pop("100_0")
    assert not play.executor.settled()  # 100_1 still runs
    play.look()
    assert play.scheduler.cancelled == ["100_0", "100_1"]
    assert play.executor.settled()


def test_a_silent_scheduler_does_not_keep_a_stopped_run(play: Play) -> None:
    play.submitted(1)
    play.scheduler.fail["list"] = [SILENT] * 100
    assert not play.executor.settled()
    play.look()
    assert not play.executor.settled()
    play.now += 61
    assert play.executor.settled()


def test_the_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of it with the real clock and the real thread."""
    play = Play(tmp_path, monkeypatch)
    monkeypatch.undo()
    play.executor._next_list = play.executor._next_room = 0.0
    play.executor.open("")
    try:
        play.claim(1, 2, start_until=1e12)
        deadline = 100
        while play.rows[1]["executor_id"] is None and deadline:
            play.executor.wake.wait(1)
            play.executor.wake.clear()
            play.report()
            deadline -= 1
        assert play.rows[2]["executor_id"] == "100_1"
    finally:
        play.executor.close()
    assert not play.executor._thread.is_alive()


# Options --------------------------------------------------------------------------------------------------


def test_options() -> None:
    found = make_executor(
        "slurm", max_workers=7, options={"queue": "long", "flags": "--qos=x '--comment=a b'"}
    )
    assert isinstance(found, BatchExecutor)
    assert found.name == "SlurmExecutor" and found.max_workers == 7
    assert found.options.queue == "long" and found.options.flags == ("--qos=x", "--comment=a b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"color": "red"}, "there is no option 'color'"),
        ({"reconcile_seconds": "often"}, "option reconcile_seconds"),
        ({"reconcile_seconds": 0}, "from 0.1 to 86400"),
        ({"max_rejections": 0}, "from 1 on"),
        ({"flags": "'open"}, "option flags"),
        ({"queue": ""}, "option queue"),
        ({"batch_dir": 5}, "option batch_dir"),
    ],
)
def test_wrong_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(JobmonError, match=message):
        make_executor("slurm", options=options)


def test_the_local_executor_has_no_options() -> None:
    with pytest.raises(JobmonError, match="no option 'queue'"):
        make_executor("local", options={"queue": "x"})


def test_an_installed_executor(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [
        EntryPoint("play", "play_helpers:PlayedScheduler", "jobmon.executors"),
        EntryPoint("broken", "play_helpers:NoSuchThing", "jobmon.executors"),
    ]
    monkeypatch.setattr("jobmon.executors.entry_points", lambda group: entries)
    found = make_executor("play", options={"reconcile_seconds": "3"})
    assert isinstance(found, BatchExecutor) and found.name == "PlayedExecutor"
    with pytest.raises(JobmonError, match="can't be loaded"):
        make_executor("broken")
    with pytest.raises(JobmonError, match="no executor 'bogus'") as raised:
        make_executor("bogus")
    assert "play" in raised.value.hint


def test_a_batch_dir_that_can_not_be_used(play: Play, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    executor = BatchExecutor(play.scheduler, None, BatchOptions(batch_dir=tmp_path / "file" / "dir"))
    with pytest.raises(JobmonError, match="batch_dir"):
        executor.prepare(play.config, DATABASE, "h")
