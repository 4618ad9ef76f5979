"""Two attempts at one job, one of which was given up: they never run at the same time on one host."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from jobmon.executors.leftovers import find_leftovers, kill_leftovers, take_place
from jobmon.executors.local import LocalExecutor

JSM = "127.0.0.1:7056"
JOB = 4_000_001
Make = Callable[..., LocalExecutor]


def attempt(number: int, command: str = "true", *, job_id: int = JOB, **more: Any) -> dict[str, Any]:
    """A job instance as claim_jobs gives it; the job's first attempt is job instance 1."""
    return {
        "job_instance_id": number, "job_id": job_id, "dag_id": 3, "workflow_run_id": 4,
        "attempt_number": number, "name": "job", "command": command, "max_runtime": None, "working_dir": None,
        "stdout": None, "stderr": None,
        **more,
    }  # fmt: skip


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes open executors: ``make(max_workers=2)``."""
    made: list[LocalExecutor] = []

    def start(max_workers: int = 2) -> LocalExecutor:
        executor = LocalExecutor(max_workers)
        executor.open(JSM)
        made.append(executor)
        return executor

    yield start
    for executor in made:
        executor.close()


def ends(executor: LocalExecutor) -> dict[int, str]:
    """Wait until nothing is held: job instance -> how it ended."""
    until(lambda: not executor.held())
    events = [event for event in executor.collect() if event["event"] != "running"]
    return {event["job_instance_id"]: event.get("error_message", event["event"]) for event in events}


def runs(job_id: int = JOB) -> bool:
    """Whether a command of the job runs here."""
    return bool(find_leftovers([job_id], JSM))


NOT_STARTED = "not started: an earlier attempt still runs on this host"


@pytest.mark.parametrize("stale", [1, 2])
def test_an_attempt_that_was_given_up_does_not_start_beside_a_later_one(
    make: Make, tmp_path: Path, stale: int
) -> None:
    """It was claimed and waits for a place; meanwhile its job was reset, and another distributor has it."""
    first, second = make(1), make(1)
    first.submit([attempt(90, f"until test -e {tmp_path}/go; do sleep 0.01; done", job_id=JOB + 1)])
    first.submit([attempt(stale, f"touch {tmp_path}/twice")])
    second.submit([attempt(3, f"until test -e {tmp_path}/end; do sleep 0.01; done")])
    until(runs)
    (tmp_path / "go").touch()
    assert ends(first) == {90: "done", stale: NOT_STARTED}
    (tmp_path / "end").touch()
    assert ends(second) == {3: "done"}
    assert not (tmp_path / "twice").exists()


def test_two_attempts_that_are_started_together(make: Make, tmp_path: Path) -> None:
    """The later one runs, after the earlier one was killed."""
    executor = make(2)
    executor.submit([attempt(1, "sleep 1000"), attempt(2, f"touch {tmp_path}/ran")])
    assert ends(executor) == {1: "killed by signal 9 (SIGKILL)", 2: "done"}
    assert (tmp_path / "ran").exists()


def test_one_attempt_at_a_time_however_many_executors(make: Make, tmp_path: Path) -> None:
    """Each attempt finds the place empty, is killed by a later one, or gives way to it."""
    command = f"""
        mkdir {tmp_path}/$JOBMON_JOB_INSTANCE_ID
        for other in {tmp_path}/*/pid; do
          read -r pid 2>/dev/null <$other && read -r stat 2>/dev/null </proc/$pid/stat || continue
          [[ $stat == *") "[ZX]" "* ]] || echo $pid >> {tmp_path}.twice
        done
        echo $$ > {tmp_path}/$JOBMON_JOB_INSTANCE_ID/pid; sleep 0.02"""
    executors = [make(2) for _ in range(3)]
    for number in range(1, 61):
        executors[number % 3].submit([attempt(number, command)])
        time.sleep(0.01)
    found = {number: how for executor in executors for number, how in ends(executor).items()}
    assert len(found) == 60
    assert found[60] == "done"
    assert not Path(f"{tmp_path}.twice").exists()


def test_the_place_is_kept_by_the_command_and_by_nothing_else(make: Make, tmp_path: Path) -> None:
    """A distributor that is halted must not keep a place for a command that was killed."""
    script = f"""
import sys, time
sys.path[:0] = {sys.path!r}
from jobmon.executors.local import LocalExecutor
executor = LocalExecutor(1)
executor.open({JSM!r})
executor.submit([{attempt(1, "sleep 1000")!r}])
time.sleep(1000)
"""
    process = subprocess.Popen([sys.executable, "-c", script])
    try:
        until(runs)
        process.send_signal(signal.SIGSTOP)
        executor = make(1)
        executor.submit([attempt(2)])
        assert ends(executor) == {2: "done"}
    finally:
        process.kill()
        process.wait()
    assert not runs()


def test_a_place_is_free_when_its_holder_is_gone() -> None:
    place = take_place(JOB, 1, JSM)
    assert place is not None
    elsewhere = take_place(JOB, 1, "127.0.0.1:7156")
    other = take_place(JOB + 1, 1, JSM)
    assert elsewhere is not None and other is not None
    place.close()
    again = take_place(JOB, 2, JSM)
    assert again is not None
    for one in (elsewhere, other, again):
        one.close()


def test_a_place_that_nobody_seen_holds_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("jobmon.executors.leftovers.WAIT_SECONDS", 0.1)
    with take_place(JOB, 1, JSM) as place:  # type: ignore[union-attr]
        assert place is not None
        assert take_place(JOB, 2, JSM) is None


def test_what_a_later_attempt_runs_is_left_alone(make: Make, tmp_path: Path) -> None:
    executor = make(1)
    executor.submit([attempt(5, f"until test -e {tmp_path}/end; do sleep 0.01; done")])
    until(runs)
    assert kill_leftovers({JOB: 4}, JSM) == {JOB}
    (tmp_path / "end").touch()
    assert ends(executor) == {5: "done"}


def test_nothing_is_started_after_its_lease(make: Make) -> None:
    """It waits until the lease is renewed, or until it is given up."""
    executor = make(2)
    now = time.monotonic()
    late = [attempt(number, job_id=JOB + number, start_until=now - 1) for number in (1, 2, 3)]
    executor.submit([*late, attempt(4, start_until=now + 1000)])
    until(lambda: executor.held() == [1, 2, 3])
    assert {event["job_instance_id"] for event in executor.collect()} == {4}
    executor.renew({2}, time.monotonic() + 1000)
    until(lambda: executor.held() == [1, 3])
    executor.stop([1])
    executor.renew({3}, time.monotonic() + 1000)
    assert ends(executor) == {2: "done", 3: "done"}
