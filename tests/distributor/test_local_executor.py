"""The local executor by itself: what it runs, how it ends things, and what it reports."""

from __future__ import annotations

import contextlib
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from waiting import until

from jobmon.executors import make_executor
from jobmon.executors.leftovers import find_leftovers, kill_leftovers
from jobmon.executors.local import LocalExecutor
from jobmon.worker.environment import job_environment

JSM = "127.0.0.1:7056"
Make = Callable[..., LocalExecutor]


def instance(number: int, command: str, **more: Any) -> dict[str, Any]:
    """A job instance as claim_jobs gives it."""
    return {
        "job_instance_id": number, "job_id": 1000 + number, "dag_id": 3, "workflow_run_id": 4,
        "attempt_number": 1,
        "name": f"job {number}", "command": command, "max_runtime": None, "working_dir": None, "stdout": None,
        "stderr": None, **more,
    }  # fmt: skip


@pytest.fixture
def make() -> Iterator[Make]:
    """Makes open executors: ``make(max_workers=2)``."""
    made: list[LocalExecutor] = []

    def start(max_workers: int = 2, **options: Any) -> LocalExecutor:
        executor = LocalExecutor(max_workers, **options)
        executor.open(JSM)
        made.append(executor)
        return executor

    yield start
    for executor in made:
        executor.close()


def events_until_idle(executor: LocalExecutor, seconds: float = 30) -> list[dict[str, Any]]:
    """All reports until nothing is held any more."""
    deadline = time.monotonic() + seconds
    events: list[dict[str, Any]] = []
    while executor.held() or executor.num_events():
        assert time.monotonic() < deadline, events
        executor.wake.wait(0.05)
        events += executor.collect()
    return events


def run_one(executor: LocalExecutor, command: str, **more: Any) -> list[dict[str, Any]]:
    executor.submit([instance(7, command, **more)])
    return events_until_idle(executor)


def alive(pid: int) -> bool:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def test_a_command_that_ends_well(make: Make) -> None:
    running, done = run_one(make(), "true")
    assert running["event"] == "running" and done["event"] == "done"
    assert running["job_instance_id"] == done["job_instance_id"] == 7
    assert running["process_group_id"] > 1
    assert running["nodename"] == os.uname().nodename
    assert float(done["wallclock"]) >= 0 and float(done["cpu"]) >= 0
    assert done["maxvmem"].endswith("K") and "+" in done["io"]


def test_its_surroundings(make: Make, tmp_path: Path) -> None:
    command = "env > env; echo $$ > pid; ps -o pgid= -p $$ > pgid; cat - > stdin"
    running, done = run_one(make(), command, working_dir=str(tmp_path))
    assert done["event"] == "done"
    variables = dict(
        line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines() if "=" in line
    )
    wanted = job_environment(instance(7, ""), JSM)
    assert {name: variables.get(name) for name in wanted} == wanted
    assert wanted["JOBMON_JOB_ID"] == "1007" and wanted["JOBMON_JSM"] == JSM
    assert int((tmp_path / "pid").read_text()) == running["process_group_id"]
    assert int((tmp_path / "pgid").read_text()) == running["process_group_id"]
    assert (tmp_path / "stdin").read_text() == ""


def test_a_command_that_fails(make: Make) -> None:
    _, error = run_one(make(), "echo this went wrong >&2; exit 3")
    assert error["event"] == "error"
    assert error["error_message"] == "exit code 3\nthis went wrong\n"
    assert "wallclock" in error


def test_a_command_that_is_killed_from_outside(make: Make) -> None:
    _, error = run_one(make(), "kill -9 $$")
    assert error["error_message"].startswith("killed by signal 9 (SIGKILL)")


def test_output_is_kept_byte_for_byte(make: Make, tmp_path: Path) -> None:
    script = "import os; os.write(1, bytes(range(256)) * 5000); os.write(2, bytes(range(256)) * 5000)"
    command = f"{sys.executable} -c '{script}'"
    directory = tmp_path / "not" / "there" / "yet"
    _, done = run_one(make(), command, name="a/b c", stdout=str(directory), stderr=str(directory))
    assert done["event"] == "done"
    assert (directory / "a_b_c.o7").read_bytes() == bytes(range(256)) * 5000
    assert (directory / "a_b_c.e7").read_bytes() == bytes(range(256)) * 5000


def test_the_tail_of_long_output(make: Make, tmp_path: Path) -> None:
    command = 'for i in $(seq 20000); do echo "line $i ä"; done >&2; exit 1'
    (tmp_path / "job_7.e7").write_text("what another attempt wrote\n")
    _, error = run_one(make(), command, stderr=str(tmp_path))
    assert error["error_message"].endswith("line 20000 ä\n")
    assert "�" not in error["error_message"]
    assert len(error["error_message"].encode()) < 10_200
    assert (tmp_path / "job_7.e7").read_text().startswith("what another attempt wrote\nline 1 ä\n")


def test_output_without_a_reader_blocks_nobody(make: Make) -> None:
    _, done = run_one(make(), "head -c 30000000 /dev/zero; head -c 30000000 /dev/zero >&2")
    assert done["event"] == "done"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({"working_dir": "/does/not/exist"}, "/does/not/exist"),
        ({"stdout": "/proc/no"}, "/proc/no"),
        ({"stderr": "/proc/no"}, "/proc/no"),
        ({"command": "x" * 3_000_000}, "too long"),
        ({"command": "a\0b"}, "null"),
    ],
)
def test_a_command_that_cannot_be_started(make: Make, more: dict[str, Any], words: str) -> None:
    executor = make()
    executor.submit([instance(7, "true") | more, instance(8, "true")])
    events = events_until_idle(executor)
    assert [e["event"] for e in events if e["job_instance_id"] == 7] == ["error"]
    [error] = [e["error_message"] for e in events if e["job_instance_id"] == 7]
    assert error.startswith("the command cannot be started: ") and words in error
    assert [e["event"] for e in events if e["job_instance_id"] == 8] == ["running", "done"]


@pytest.fixture
def make_once(make: Make, monkeypatch: pytest.MonkeyPatch) -> Callable[[Path], LocalExecutor]:
    """Makes executors that mind a max_runtime only once a file is there: ``make_once(path)``.

    However slow the machine is, the command has come so far when its time is over.
    """

    def start(path: Path) -> LocalExecutor:
        executor = make()
        keep = executor._keep_deadline

        def later(deadline: Any) -> None:
            until(path.exists)
            keep(deadline)

        monkeypatch.setattr(executor, "_keep_deadline", later)
        return executor

    return start


MakeOnce = Callable[[Path], LocalExecutor]


def test_max_runtime_ends_the_whole_group(make_once: MakeOnce, tmp_path: Path) -> None:
    command = "sleep 1000 & echo $! > child; echo begun >&2; touch begun; wait"
    executor = make_once(tmp_path / "begun")
    _, error = run_one(executor, command, max_runtime=1, working_dir=str(tmp_path))
    assert error["error_message"] == "max_runtime of 1 s exceeded: killed\nbegun\n"
    assert (error["job_instance_status"], error["exceeded"]) == ("Z", "max_runtime")
    until(lambda: not alive(int((tmp_path / "child").read_text())))


def test_a_command_that_ignores_sigterm(make: Make) -> None:
    executor = make(kill_after=0.5)
    _, error = run_one(executor, "trap '' TERM; while :; do sleep 0.1; done", max_runtime=1)
    assert error["error_message"].startswith("max_runtime of 1 s exceeded")


def test_a_child_that_outlives_sigterm_is_killed_with_the_shell(make_once: MakeOnce, tmp_path: Path) -> None:
    command = "(trap '' TERM; touch trapped; while :; do sleep 0.1; done) & echo $! > child; wait"
    run_one(make_once(tmp_path / "trapped"), command, max_runtime=1, working_dir=str(tmp_path))
    until(lambda: not alive(int((tmp_path / "child").read_text())))


def test_what_a_command_leaves_behind_at_its_end_is_left_alone(make: Make, tmp_path: Path) -> None:
    _, done = run_one(make(), "sleep 1000 & echo $! > child", working_dir=str(tmp_path))
    child = int((tmp_path / "child").read_text())
    assert done["event"] == "done" and alive(child)
    os.kill(child, signal.SIGKILL)


def test_never_more_than_max_workers(make: Make, tmp_path: Path) -> None:
    executor = make(max_workers=3)
    # the first ones wait for each other
    command = (
        "echo + >> log; until test $(grep -c + log) -ge 3; do sleep 0.05; done; sleep 0.1; echo - >> log"
    )
    executor.submit([instance(n, command, working_dir=str(tmp_path)) for n in range(1, 16)])
    events_until_idle(executor)
    running, most = 0, 0
    for line in (tmp_path / "log").read_text().split():
        running += 1 if line == "+" else -1
        most = max(most, running)
    assert most == 3


def test_room(make: Make) -> None:
    executor = make(max_workers=3)
    assert executor.room() == 3
    executor.submit([instance(1, "sleep 1000"), instance(2, "sleep 1000")])
    assert executor.room() == 1
    until(lambda: executor.num_events() == 2)
    assert not executor.urgent()  # nothing has ended
    executor.submit([instance(3, "true")])
    until(executor.urgent)
    assert executor.room() >= 1
    assert sorted(executor.held()) == [1, 2]


def test_short_commands_are_taken_ahead(make: Make) -> None:
    executor = make(max_workers=1)
    for number in range(1, 60):
        executor.submit([instance(number, "true")])
    events_until_idle(executor)
    until(lambda: executor.room() > 1)


def test_given_up_instances_end_without_a_report(make: Make, tmp_path: Path) -> None:
    executor = make(max_workers=1)
    executor.submit(
        [instance(1, "echo $$ > pid; sleep 1000", working_dir=str(tmp_path)), instance(2, "touch never")]
    )
    pid = int(until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip()))
    until(executor.num_events)
    assert [event["event"] for event in executor.collect()] == ["running"]
    executor.stop([1, 2, 99])
    assert events_until_idle(executor) == []
    assert not alive(pid)


def test_kill(make: Make) -> None:
    executor = make(max_workers=1)
    executor.submit([instance(1, "sleep 1000"), instance(2, "sleep 1000")])
    until(executor.num_events)
    executor.kill()
    events = {event["job_instance_id"]: event for event in events_until_idle(executor)}
    assert events[1]["event"] == events[2]["event"] == "error"
    assert "killed" in events[1]["error_message"]
    assert events[2]["error_message"] == "killed before it was started"


def test_close_leaves_no_process(make: Make, tmp_path: Path) -> None:
    executor = LocalExecutor(2)
    executor.open(JSM)
    command = "trap '' TERM; echo $$ > pid; sleep 1000"
    executor.submit([instance(1, command, working_dir=str(tmp_path))])
    pid = int(until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip()))
    executor.close()
    assert not alive(pid)


def test_somebody_else_waits_for_the_child(make: Make) -> None:
    executor = make()
    executor.submit([instance(1, "sleep 0.5; exit 0")])
    until(executor.num_events)
    [running] = executor.collect()
    stolen = False
    with contextlib.suppress(ChildProcessError):
        os.waitpid(running["process_group_id"], 0)
        stolen = True
    [event] = events_until_idle(executor)
    assert event["event"] == ("error" if stolen else "done")
    assert not stolen or "exit status is lost" in event["error_message"]


def test_a_kernel_that_does_not_tell_when_a_process_ends(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(pid: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    executor = make()
    executor.submit([instance(1, "exit 3"), instance(2, "sleep 1000", max_runtime=1), instance(3, "true")])
    ends = {event["job_instance_id"]: event for event in events_until_idle(executor)}
    assert ends[1]["error_message"] == "exit code 3"
    assert ends[2]["error_message"].startswith("max_runtime")
    assert ends[3]["event"] == "done"


def test_a_command_that_cannot_be_watched_is_not_left_running(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def refuse(pid: int) -> int:
        started.append(pid)
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    [error] = run_one(make(), "sleep 1000")
    assert error["error_message"] == "the command cannot be started: [Errno 24] Too many open files"
    assert not alive(started[0])


# What earlier attempts left ------------------------------------------------------------------------------


@pytest.fixture
def leftover() -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Starts what an earlier attempt might have left: ``leftover(job_id=1007)``."""
    made: list[subprocess.Popen[bytes]] = []

    def start(job_id: int, jsm: str = JSM, command: str = "sleep 1000") -> subprocess.Popen[bytes]:
        environ = {**os.environ, "JOBMON_JOB_ID": str(job_id), "JOBMON_JSM": jsm}
        made.append(subprocess.Popen(["/bin/sh", "-c", command], env=environ, start_new_session=True))
        # its environment is its own once it has become the shell
        until(lambda: made[-1].pid in find_leftovers([job_id], jsm))
        threading.Thread(target=made[-1].wait, daemon=True).start()
        return made[-1]

    yield start
    for process in made:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def test_the_next_attempt_starts_when_the_last_is_gone(
    make: Make, leftover: Callable[..., subprocess.Popen[bytes]], tmp_path: Path
) -> None:
    old = leftover(1007, command="sleep 1000 & sleep 1000")
    other_job, other_jsm = leftover(1008), leftover(1007, jsm="127.0.0.1:7156")
    # gone, or a zombie, which has no command line
    command = f"[ -z \"$(tr -d '\\0' < /proc/{old.pid}/cmdline)\" ] || exit 9"
    executor = make()
    executor.submit([instance(7, command, attempt_number=2)])
    assert [event["event"] for event in events_until_idle(executor)] == ["running", "done"]
    assert not alive(old.pid)
    assert find_leftovers([1007], JSM) == {}
    assert alive(other_job.pid) and alive(other_jsm.pid)


def test_a_first_attempt_looks_for_nothing(
    make: Make, leftover: Callable[..., subprocess.Popen[bytes]]
) -> None:
    other = leftover(1007)
    assert run_one(make(), "true")[-1]["event"] == "done"
    assert alive(other.pid)


def test_an_attempt_does_not_start_beside_one_that_cannot_be_killed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobmon.executors.local.kill_leftovers", lambda job_ids, jsm: set(job_ids))
    [error] = run_one(make(), "true", attempt_number=2)
    assert error["error_message"] == "not started: an earlier attempt still runs on this host"


def test_the_killer_spares_itself() -> None:
    assert kill_leftovers([], JSM) == set()
    assert os.getpid() not in find_leftovers([int(os.environ.get("JOBMON_JOB_ID", "1"))], JSM)


def test_executors_by_name() -> None:
    assert make_executor("local", max_workers=3).max_workers == 3  # type: ignore[attr-defined]
    with pytest.raises(Exception, match="there is no executor 'lokal'"):
        make_executor("lokal")
