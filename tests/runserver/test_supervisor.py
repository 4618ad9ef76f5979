"""The supervisor with small programs: what dies is started again, what is stopped leaves nothing behind."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from waiting import until

from jobmon import supervised
from jobmon.supervisor import Program, Supervisor, SupervisorError

# So that it works in an environment in which jobmon is not installed, too.
ENVIRON = {**os.environ, "PYTHONPATH": str(Path(supervised.__file__).parent.parent)}

# Says when it starts and when it is told to stop.
TALKER = """
import signal, sys, time
name, path = sys.argv[1:]
def tell(what):
    with open(path, "a") as file: print(name, what, file=file)
def stop(*_):
    time.sleep(0.2); tell("stopped"); sys.exit(0)
signal.signal(signal.SIGTERM, stop)
tell("started")
print("hello from", name, flush=True)
while True: time.sleep(0.1)
"""


@pytest.fixture
def talker(tmp_path: Path) -> Path:
    script = tmp_path / "talker.py"
    script.write_text(TALKER)
    return script


@pytest.fixture
def supervisor(tmp_path: Path, talker: Path) -> Iterator[Supervisor]:
    def program(name: str) -> Program:
        return Program(
            name, (sys.executable, str(talker), name, str(tmp_path / "told")), ("127.0.0.1:80",), 60
        )

    made = Supervisor(tmp_path / "run", [program("first"), program("second")])
    yield made
    made.shut_down()


def told(supervisor: Supervisor) -> str:
    """What the talkers have told so far."""
    path = supervisor.directory.with_name("told")
    return path.read_text() if path.exists() else ""


def launch(supervisor: Supervisor, *names: str, kept: bool = True) -> psutil.Process:
    process = supervisor.launch(ENVIRON, die_with_parent=not kept)
    for name in names:
        supervisor.start_program(name)
        until(lambda name=name: supervisor.status(name).is_running)  # type: ignore[misc]
        if name in ("first", "second"):
            # before it has said so, SIGTERM would end it without a word
            until(lambda name=name: f"{name} started\n" in told(supervisor))  # type: ignore[misc]
    return psutil.Process(process.pid)


def processes_of(supervisor: Supervisor) -> list[psutil.Process]:
    return supervised.find(lambda tag: tag.startswith(f"{supervisor.directory}:"))


def test_a_killed_program_is_started_again(supervisor: Supervisor) -> None:
    launch(supervisor, "first", "second")
    before, other = supervisor.status("first").pid, supervisor.status("second").pid
    os.kill(before, signal.SIGKILL)
    until(lambda: supervisor.status("first").is_running and supervisor.status("first").pid != before)
    assert supervisor.status("second").pid == other


def test_a_program_that_dies_at_once_is_tried_again_and_again(tmp_path: Path) -> None:
    counter = tmp_path / "counter"
    command = ("/bin/sh", "-c", f"echo x >> {shlex.quote(str(counter))}; echo no luck; exit 1")
    supervisor = Supervisor(tmp_path / "run", [Program("bad", command)])
    launch(supervisor)
    try:
        supervisor.start_program("bad")
        until(lambda: counter.exists() and len(counter.read_text().split()) >= 3)
        with pytest.raises(SupervisorError, match="no luck") as caught:
            supervisor.wait_ready("bad", lambda: False, seconds=0.1)
        assert "logs bad" in caught.value.hint
    finally:
        assert supervisor.shut_down() == []


def test_starting_twice_starts_once(supervisor: Supervisor) -> None:
    launch(supervisor, "first")
    pid = supervisor.status("first").pid
    supervisor.start_program("first")
    assert supervisor.status("first").pid == pid


def test_stop_is_in_reverse_order_one_after_the_other_and_leaves_nothing(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    launch(supervisor, "first", "second")
    names: list[str] = []
    assert supervisor.shut_down(names.append) == []
    assert names == ["second", "first"]
    assert told(supervisor).splitlines()[-2:] == ["second stopped", "first stopped"]
    assert processes_of(supervisor) == []
    assert not supervisor.is_up()


def test_sigterm_to_the_supervisor_stops_in_reverse_order_too(supervisor: Supervisor, tmp_path: Path) -> None:
    process = launch(supervisor, "first", "second")
    process.terminate()
    process.wait(120)
    assert told(supervisor).splitlines()[-2:] == ["second stopped", "first stopped"]
    assert processes_of(supervisor) == []


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_a_killed_supervisor_takes_its_programs_along_and_they_end_cleanly(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    process = launch(supervisor, "first", "second", kept=False)
    process.kill()
    process.wait(60)
    until(lambda: not processes_of(supervisor))
    assert sorted(told(supervisor).splitlines()[-2:]) == ["first stopped", "second stopped"]
    assert {status.state for status in supervisor.statuses()} == {"STOPPED"}
    # The stale socket and pid file are no hindrance.
    launch(supervisor, "first", "second")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_a_killed_supervisor_that_is_kept_comes_back_with_its_programs(supervisor: Supervisor) -> None:
    keeper = launch(supervisor, "first", "second")
    (process,) = keeper.children()
    pids = [status.pid for status in supervisor.statuses()]
    process.kill()
    until(lambda: all(status.is_running for status in supervisor.statuses()))
    assert not set(pids) & {status.pid for status in supervisor.statuses()}
    assert len(processes_of(supervisor)) == 4
    assert supervisor.shut_down() == []
    assert processes_of(supervisor) == []


def test_a_killed_keeper_is_no_hindrance(supervisor: Supervisor) -> None:
    keeper = launch(supervisor, "first")
    keeper.kill()
    keeper.wait(60)
    assert supervisor.status("first").is_running
    assert supervisor.shut_down() == []
    assert processes_of(supervisor) == []


def test_what_a_killed_program_left_behind_is_ended_before_the_next_start(tmp_path: Path) -> None:
    left = tmp_path / "left"
    command = f"sleep 1000 & echo $! > {shlex.quote(str(left))}; wait"
    supervisor = Supervisor(tmp_path / "run", [Program("parent", ("/bin/sh", "-c", command))])
    launch(supervisor, "parent")
    try:
        until(lambda: left.exists() and left.read_text())
        orphan = psutil.Process(int(left.read_text()))
        os.kill(supervisor.status("parent").pid, signal.SIGKILL)
        until(lambda: int(left.read_text() or orphan.pid) != orphan.pid)
        assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
    finally:
        assert supervisor.shut_down() == []
    assert processes_of(supervisor) == []


def test_without_a_supervisor_left_processes_are_shown_and_swept(
    supervisor: Supervisor, tmp_path: Path
) -> None:
    orphan = psutil.Popen(
        ["sleep", "1000"], env={**os.environ, supervised.TAG: supervisor.tag("first")}, start_new_session=True
    )
    # its environment is empty for a moment while the kernel loads the program
    until(lambda: supervisor.status("first").state != "STOPPED")
    status = supervisor.status("first")
    assert (status.state, status.pid) == ("ORPHANED", orphan.pid)
    assert supervisor.sweep() == []
    assert not orphan.is_running()
    assert supervisor.status("first").state == "STOPPED"


def test_a_process_that_changed_its_title_is_known_by_its_directory(supervisor: Supervisor) -> None:
    supervisor.write_config()
    place = supervised.work_directory(supervisor.directory, "first")
    # What is left of a process's environment when setproctitle has written over it.
    titled = psutil.Popen(["/bin/sleep", "1000"], env={}, cwd=place)
    shell = psutil.Popen(["/bin/sleep", "1000"], env={"PATH": "/bin"}, cwd=place)
    try:
        until(lambda: bool(shell.environ()))  # empty for a moment while the kernel loads the program
        assert [process.pid for process in processes_of(supervisor)] == [titled.pid]
        assert supervisor.sweep() == []
        assert not titled.is_running()
        assert shell.poll() is None
    finally:
        shell.kill()
        shell.wait()


def test_processes_of_another_directory_are_left_alone(supervisor: Supervisor, tmp_path: Path) -> None:
    other = psutil.Popen(["sleep", "1000"], env={**os.environ, supervised.TAG: f"{tmp_path}/run2:first"})
    try:
        assert supervisor.sweep() == []
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_stubborn_processes_are_killed(tmp_path: Path) -> None:
    code = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True); time.sleep(99)"
    stubborn = psutil.Popen([sys.executable, "-c", code], stdout=-1)
    stubborn.stdout.readline()
    assert supervised.end([psutil.Process(stubborn.pid)], seconds=0.3) == []
    assert not stubborn.is_running()


def test_logs_are_kept_for_each_program(supervisor: Supervisor) -> None:
    launch(supervisor, "first")
    until(lambda: supervisor.tail("first", 5))
    assert supervisor.tail("first", 5) == ["hello from first"]
    assert supervisor.tail("second", 5) == []
    assert supervisor.tail("first", 0) == []


def test_a_directory_too_deep_for_a_socket_works(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100) / "with blank"
    supervisor = Supervisor(deep, [Program("sleep", ("sleep", "1000"))])
    assert deep not in supervisor.socket.parents
    launch(supervisor, "sleep")
    assert supervisor.shut_down() == []


@pytest.mark.parametrize("name", ["50%", 'a"b', "a ;b", "a #b"])
def test_a_directory_that_supervisord_cannot_be_told_of_is_refused_by_name(tmp_path: Path, name: str) -> None:
    supervisor = Supervisor(tmp_path / name, [Program("sleep", ("sleep", "1000"))])
    with pytest.raises(SupervisorError, match="paths") as caught:
        supervisor.launch(ENVIRON, die_with_parent=False)
    assert "--state-dir" in caught.value.hint


def test_the_supervisors_files_are_private(supervisor: Supervisor) -> None:
    launch(supervisor, "first")
    assert supervisor.directory.stat().st_mode & 0o077 == 0
    assert supervisor.socket.stat().st_mode & 0o077 == 0
    assert supervisor.log_file("first").stat().st_mode & 0o077 == 0


def test_a_command_that_is_not_there_is_named(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert supervised.main(["--", str(tmp_path / "missing")]) == 127
    assert "missing: No such file" in capfd.readouterr().err
    assert supervised.main([]) == 2
