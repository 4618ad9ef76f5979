"""Ctrl-C and other signals: what is asked, what ends, and what the database knows of it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from client_helpers import Services
from waiting import until

from jobmon.client.errors import ServiceUnavailable
from jobmon.client.foreground import Foreground
from jobmon.client.progress import Display


class StubDistributor:
    """Ends when it is told to: by ``kill``, or with ``done`` after ``drain``."""

    def __init__(self) -> None:
        self.counts = {"G": 1, "R": 2, "D": 3}
        self.told: list[str] = []
        self.started = threading.Event()
        self.done = threading.Event()
        self.error: Exception | None = None

    def run(self) -> str:
        self.started.set()
        self.done.wait(60)
        if self.error:
            raise self.error
        return "D"

    def drain(self) -> None:
        self.told.append("drain")

    def kill(self) -> None:
        self.told.append("kill")
        self.done.set()


def act(distributor: StubDistributor, *actions: Any) -> None:
    """Send signals and call functions, each when the one before has had its effect."""
    distributor.started.wait(60)  # before, there are no handlers
    for number, action in enumerate(actions):
        if isinstance(action, signal.Signals):
            os.kill(os.getpid(), action)
        else:
            action()
        if action is signal.SIGINT and number < 2:
            until(lambda number=number: len(distributor.told) > number)


def run(
    distributor: StubDistributor, *actions: Any, stop: Callable[[bool], Any] = lambda kill: None
) -> Foreground:
    """Run it in the foreground while another thread does the actions: a signal to be sent, or a call."""
    foreground = Foreground(distributor, stop, Display(False, "sims", 6))
    thread = threading.Thread(target=act, args=(distributor, *actions))
    thread.start()
    try:
        foreground.run()
    finally:
        thread.join()
    return foreground


def test_without_a_signal() -> None:
    distributor = StubDistributor()
    stops: list[bool] = []
    foreground = run(distributor, distributor.done.set, stop=stops.append)
    assert not foreground.interrupted and not foreground.killed and distributor.told == stops == []


def test_one_interrupt_lets_running_jobs_end(capfd: pytest.CaptureFixture[str]) -> None:
    distributor = StubDistributor()
    stops: list[bool] = []
    foreground = run(
        distributor, signal.SIGINT, lambda: until(lambda: stops), distributor.done.set, stop=stops.append
    )
    assert foreground.interrupted and not foreground.killed
    assert distributor.told == ["drain"] and stops == [False]
    said = capfd.readouterr().err
    assert "no more jobs are started" in said and "2 jobs run and may end" in said


def test_two_interrupts_kill(capfd: pytest.CaptureFixture[str]) -> None:
    distributor = StubDistributor()
    foreground = run(distributor, signal.SIGINT, signal.SIGINT)
    assert foreground.killed and distributor.told == ["drain", "kill"]
    assert "Killing what runs" in capfd.readouterr().err


def test_a_third_interrupt_waits_no_longer() -> None:
    distributor = StubDistributor()
    distributor.kill = lambda: distributor.told.append("kill")  # type: ignore[method-assign]
    with pytest.raises(KeyboardInterrupt):
        run(distributor, signal.SIGINT, signal.SIGINT, signal.SIGINT)
    assert distributor.told == ["drain", "kill"]
    distributor.done.set()


def test_many_interrupts_at_once_kill_and_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    distributor = StubDistributor()
    noted: list[int] = []
    mashed = threading.Event()
    note = Foreground._note

    def count(self: Foreground, number: int, frame: Any) -> None:
        note(self, number, frame)
        noted.append(number)

    def mash() -> None:
        for number in range(5):
            os.kill(os.getpid(), signal.SIGINT)
            until(lambda number=number: len(noted) > number)  # else they are one
        mashed.set()

    monkeypatch.setattr(Foreground, "_note", count)
    # none is minded before all have come
    monkeypatch.setattr(Display, "update", lambda self, counts: mashed.wait(60))
    foreground = run(distributor, mash)
    assert foreground.killed and distributor.told == ["drain", "kill"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_signals_that_end_a_process_kill_at_once(number: signal.Signals) -> None:
    distributor = StubDistributor()
    foreground = run(distributor, number)
    assert foreground.killed and foreground.signal == number and distributor.told == ["drain", "kill"]


def test_handlers_are_put_back() -> None:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    distributor = StubDistributor()
    run(distributor, signal.SIGINT, signal.SIGINT)
    assert [signal.getsignal(number) for number in numbers] == before


def test_a_handler_of_the_programs_own_stays() -> None:
    seen: list[int] = []
    before = signal.signal(signal.SIGHUP, lambda number, frame: seen.append(number))
    try:
        distributor = StubDistributor()
        foreground = run(distributor, signal.SIGHUP, distributor.done.set)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert seen == [signal.SIGHUP] and not foreground.interrupted


def test_an_error_of_the_distributor_is_raised() -> None:
    distributor = StubDistributor()
    distributor.error = ServiceUnavailable("away")
    with pytest.raises(ServiceUnavailable, match="away"):
        run(distributor, distributor.done.set)


def test_in_another_thread_there_are_no_handlers() -> None:
    distributor = StubDistributor()
    outcome: list[Foreground] = []
    thread = threading.Thread(target=lambda: outcome.append(run(distributor, distributor.done.set)))
    thread.start()
    thread.join(60)
    assert not outcome[0].interrupted


def test_a_service_that_does_not_answer_does_not_hold_up_the_next_interrupt() -> None:
    distributor = StubDistributor()
    answered = threading.Event()
    began = time.monotonic()
    foreground = run(distributor, signal.SIGINT, signal.SIGINT, stop=lambda kill: answered.wait(60))
    assert foreground.killed and time.monotonic() - began < 30
    answered.set()


# ----------------------------------------------------------------------------------------------------------
# Programs, as people run them

PROGRAM = """
import sys
from jobmon import BashTask, Workflow
workflow = Workflow("interrupted", name="sims", working_dir=sys.argv[1])
slow = [
    BashTask(f"echo $$ >> pids; touch started.{n}; until test -e go; do sleep 0.05; done; touch ended.{n}",
             max_runtime=120, max_attempts=1)
    for n in range(2)
]
workflow.add_tasks(slow)
workflow.add_task(BashTask("touch last", upstream_tasks=slow))
result = workflow.run()
print(result)
print("status:", result.status)
"""


def own_terminal() -> None:
    """Make standard input the terminal from which Ctrl-C comes."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


class Program:
    """A program that runs a workflow with two jobs that wait for a file ``go``, on a terminal or not."""

    def __init__(self, services: Services, directory: Path, terminal: bool) -> None:
        self.directory = directory
        self.said = b""
        self.screen = -1
        streams: dict[str, Any] = {
            "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT,
        }  # fmt: skip
        if terminal:
            self.screen, end = pty.openpty()
            streams = {"stdin": end, "stdout": end, "stderr": end}
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(directory)], **streams, start_new_session=True,
            env={**services.environ, "TERM": "xterm", "COLUMNS": "200"},
            preexec_fn=own_terminal if terminal else None,
        )  # fmt: skip
        if terminal:
            os.close(end)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        until(lambda: len(list(directory.glob("started.*"))) == 2)
        if not (directory / "go").exists():
            self.says("2 running")  # it has heard of them, too

    def _read(self) -> None:
        descriptor = self.screen if self.screen >= 0 else self.process.stdout.fileno()  # type: ignore[union-attr]
        with contextlib.suppress(OSError):  # a terminal whose other end is closed
            while data := os.read(descriptor, 4096):
                self.said += data

    @property
    def text(self) -> str:
        return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", self.said.decode(errors="replace"))

    def interrupt(self, number: int = signal.SIGINT) -> None:
        self.process.send_signal(number)

    def type(self, text: str) -> None:
        os.write(self.screen, text.encode())

    def says(self, text: str) -> None:
        until(lambda: text in self.text or (self.process.poll() is not None and self._died(text)))

    def _died(self, text: str) -> bool:
        self._reader.join(10)
        assert text in self.text, self.text
        return True

    def let_go(self) -> None:
        (self.directory / "go").touch()

    def ends(self) -> int:
        code = self.process.wait(60)
        self._reader.join(10)
        return code

    def commands(self) -> list[int]:
        """Those of its commands that still run."""
        pids = [int(pid) for pid in (self.directory / "pids").read_text().split()]
        return [pid for pid in pids if os.path.exists(f"/proc/{pid}") and not is_zombie(pid)]

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        for pid in self.commands():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)
        if self.screen >= 0:
            os.close(self.screen)


def is_zombie(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def start(services: Services, db: Any, tmp_path: Path) -> Iterator[Any]:
    """Starts the program: ``start(terminal=True)``."""
    started: list[Program] = []

    def start(terminal: bool = False) -> Program:
        started.append(Program(services, tmp_path, terminal))
        return started[-1]

    yield start
    for program in started:
        program.close()


def statuses(db: Any) -> tuple[Any, ...]:
    return (
        db.query("SELECT status FROM workflow")[0][0],
        db.query("SELECT status FROM workflow_run ORDER BY workflow_run_id DESC LIMIT 1")[0][0],
        "".join(row[0] for row in db.query("SELECT status FROM job ORDER BY job_id")),
    )


def test_ctrl_c_without_a_terminal_lets_jobs_end(start: Any, db: Any, tmp_path: Path) -> None:
    program = start()
    program.interrupt()
    program.says("Interrupted: no more jobs are started.")
    program.says("2 jobs run and may end; a second interrupt kills them.")
    until(lambda: statuses(db)[:2] == ("S", "S"))
    program.let_go()
    assert program.ends() == 0
    assert "run it again to resume" in program.text and "status: STOPPED" in program.text
    assert "Traceback" not in program.text
    assert len(list(tmp_path.glob("ended.*"))) == 2 and not (tmp_path / "last").exists()
    # the last job is ready, and the run that would have run it has been stopped
    assert statuses(db)[2][:2] == "DD"
    again = start()
    assert again.ends() == 0 and "3 of 3 jobs DONE" in again.text
    assert (tmp_path / "last").exists() and statuses(db) == ("D", "D", "DDD")
    assert db.audits() == {}


def test_ctrl_c_twice_kills(start: Any, db: Any, tmp_path: Path) -> None:
    program = start()
    program.interrupt()
    program.says("a second interrupt kills them")
    program.interrupt()
    assert program.ends() == 0
    assert "Killing what runs" in program.text and "status: STOPPED" in program.text
    assert program.commands() == []
    assert not list(tmp_path.glob("ended.*")) and statuses(db)[:2] == ("S", "S")
    program.let_go()
    again = start()
    assert again.ends() == 0 and "status: DONE" in again.text
    assert db.audits() == {}


@pytest.mark.parametrize("answer", ["\n", "e\n"])
def test_on_a_terminal_it_asks_and_lets_jobs_end(start: Any, db: Any, tmp_path: Path, answer: str) -> None:
    program = start(terminal=True)
    program.type("\x03")
    program.says("2 jobs run. Let them end [Enter], or kill them [k and Enter, or Ctrl-C]?")
    program.type(answer)
    program.says("They may end; Ctrl-C kills them.")
    program.let_go()
    assert program.ends() == 0
    assert "status: STOPPED" in program.text and len(list(tmp_path.glob("ended.*"))) == 2


def test_on_a_terminal_it_asks_and_kills(start: Any, db: Any, tmp_path: Path) -> None:
    program = start(terminal=True)
    program.type("\x03")
    program.says("kill them")
    program.type("k\n")
    program.says("Killing what runs")
    assert program.ends() == 0
    assert "status: STOPPED" in program.text and program.commands() == []


def test_the_question_needs_no_answer(start: Any, db: Any, tmp_path: Path) -> None:
    program = start(terminal=True)
    program.type("\x03")
    program.says("kill them")
    program.let_go()
    assert program.ends() == 0
    assert "status: STOPPED" in program.text and len(list(tmp_path.glob("ended.*"))) == 2


def test_ctrl_c_twice_on_a_terminal(start: Any, tmp_path: Path) -> None:
    program = start(terminal=True)
    program.type("\x03")
    program.says("kill them")
    program.type("\x03")
    assert program.ends() == 0 and program.commands() == []


def test_a_bar_on_a_terminal(start: Any) -> None:
    program = start(terminal=True)
    program.says("2 running")
    program.let_go()
    assert program.ends() == 0
    assert "━" in program.text and "3/3" in program.text and "jobs done" not in program.text


def test_lines_where_there_is_no_terminal(start: Any) -> None:
    program = start()
    program.let_go()
    assert program.ends() == 0
    assert "sims: 3 of 3 jobs done\n" in program.text and "━" not in program.text


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_program_that_is_told_to_end_leaves_nothing_behind(
    start: Any, db: Any, tmp_path: Path, number: signal.Signals
) -> None:
    program = start()
    program.interrupt(number)
    assert program.ends() == -number
    assert program.commands() == [] and statuses(db)[:2] == ("S", "S")
    assert "status:" not in program.text
