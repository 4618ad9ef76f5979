"""How things are printed: for people at a terminal, for pipes, again and again."""

from __future__ import annotations

import codecs
import errno
import fcntl
import json
import os
import pty
import subprocess
import termios
import time
from typing import Any

import click
import pytest
from cli_helpers import Jobmon, MakeWorkflow
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from jobmon.cli.output import Column, Report, duration, line, make_table, moment, one_line, plain, show
from jobmon.client.errors import ServiceUnavailable

# ----------------------------------------------------------------------------------------------------------
# Values


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (None, ""),
        (-0.001, "0.0 s"),
        (0.44, "0.4 s"),
        (9.94, "9.9 s"),
        (12.4, "12 s"),
        (59.9, "1 min 0 s"),
        (185, "3 min 5 s"),
        (3600, "1 h 0 min"),
        (8075, "2 h 14 min"),
        (86_399, "23 h 59 min"),
        (273_700, "3 d 4 h"),
    ],
)
def test_duration(seconds: float | None, words: str) -> None:
    assert duration(seconds) == words


def test_moment() -> None:
    assert moment("2026-11-24T15:28:00.123456Z") == "2026-11-24 15:28:00"
    assert moment(None) == ""


def test_one_line() -> None:
    assert one_line("exit code 3\nTraceback:\n\n  ValueError: x \n") == "exit code 3: ValueError: x"
    assert one_line("same\nsame") == "same"
    assert one_line(None) == one_line("\n \n") == ""
    assert one_line("x" * 300) == "x" * 197 + "..."


@given(st.text())
def test_nothing_that_could_steer_a_terminal_is_printed(text: str) -> None:
    assert all(c.isprintable() or c in "\n\t" for c in plain(text))
    assert plain(text) == text or not text.isprintable()


# ----------------------------------------------------------------------------------------------------------
# Pages


def printed(report: Report, output: str = "table") -> str:
    """What ``show`` prints into a pipe."""

    @click.command()
    def command() -> None:
        show(lambda: report, output)

    result = CliRunner().invoke(command)
    assert result.exception is None
    return result.output


def test_a_pipe_gets_each_row_on_one_line() -> None:
    rows = [
        {"id": 7, "text": "x y " * 200 + "[bold]\nend[/bold] :smile: \x1b]0;title\x07"},
        {"id": 12, "text": ""},
    ]
    columns = [Column("id", "id", right=True), Column("text", "text", folds=True)]
    output = printed(Report(rows, lambda: [make_table(columns, rows, none="")]))
    heading, first, second = output.splitlines()
    assert heading == "id  text"
    assert first == " 7  " + "x y " * 200 + "[bold] end[/bold] :smile: \ufffd]0;title\ufffd"
    assert second == "12"


def test_forms() -> None:
    report = Report([{"a": "\u00fc"}], lambda: [line("for people")], [3, 5])
    assert printed(report) == "for people\n"
    assert printed(report, "quiet") == "3\n5\n"
    assert json.loads(printed(report, "json")) == [{"a": "\u00fc"}]


def test_watching_outlives_a_service(capsys: pytest.CaptureFixture[str]) -> None:
    answers: list[Any] = [1, ServiceUnavailable("JQS is away", "hint"), 2]

    def make() -> Report:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return Report({"n": answer}, lambda: (), ended=answer == 2)

    assert show(make, "json", 0.01).document == {"n": 2}
    captured = capsys.readouterr()
    assert [json.loads(text) for text in captured.out.splitlines()] == [{"n": 1}, {"n": 2}]
    assert captured.err == "JQS is away\n"


def test_a_service_that_is_away_from_the_start(capsys: pytest.CaptureFixture[str]) -> None:
    def make() -> Report:
        raise ServiceUnavailable("JQS is away")

    with pytest.raises(ServiceUnavailable):
        show(make, "table", 0.01)


# ----------------------------------------------------------------------------------------------------------
# A terminal


class Terminal:
    """A command at a terminal of 60 columns."""

    def __init__(self, jobmon: Jobmon, *args: object) -> None:
        self.end, ours = pty.openpty()
        os.set_blocking(self.end, False)
        self.process: subprocess.Popen[str] = jobmon.start(
            *args,
            stdin=ours,
            stdout=ours,
            stderr=ours,
            # so that Ctrl-C is a signal
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(ours)
        self.seen = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")()

    def read_until(self, *texts: str, seconds: float = 60) -> str:
        """All that was printed so far, once all these texts were; without texts, once it has ended."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if texts and all(text in self.seen for text in texts):
                return self.seen
            try:
                self.seen += self._decoder.decode(os.read(self.end, 65536))
            except BlockingIOError:
                time.sleep(0.05)
            except OSError as error:  # nobody has the other end any more
                assert error.errno == errno.EIO
                if not texts:
                    return self.seen
                raise AssertionError(f"it ended: {self.seen!r}") from None
        raise AssertionError(f"{texts} not in {self.seen!r}")

    def write(self, text: str) -> None:
        os.write(self.end, text.encode())


@pytest.fixture
def make_terminal(jobmon: Jobmon, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Runs a command at a terminal."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    environment = jobmon.services.environment
    monkeypatch.setattr(type(jobmon.services), "environment", lambda self: environment(COLUMNS="60"))
    made: list[Terminal] = []

    def start(*args: object) -> Terminal:
        made.append(Terminal(jobmon, *args))
        return made[-1]

    yield start
    for terminal in made:
        os.close(terminal.end)


def test_a_terminal_gets_colours_and_its_width(make_terminal: Any, make: MakeWorkflow) -> None:
    name = "a-long-name-" * 10
    made = make(names=[name])
    made.start_run()
    terminal = make_terminal("workflow", "jobs", made.workflow_id)
    output = terminal.read_until()
    assert terminal.process.wait(60) == 0
    assert "\x1b[1m" in output
    lines = [click.unstyle(text) for text in output.splitlines()]
    assert max(map(len, lines)) <= 60
    # columns that can be spared are left out, the others are whole
    heading, first, *rest = lines
    assert heading.split() == ["id", "name", "status", "last", "error"]
    number, *_, status = first.split()
    assert (number, status) == (str(made.job_ids[0]), "QUEUED_FOR_INSTANTIATION")
    assert "".join(text[3:] for text in [first.replace(status, ""), *rest]).replace(" ", "") == name


def test_watching_at_a_terminal(make_terminal: Any, make: MakeWorkflow) -> None:
    made = make(name="burden")
    made.start_run()
    terminal = make_terminal("workflow", "status", made.workflow_id, "--watch", "0.2")
    terminal.read_until("'burden'", "RUNNING")
    made.work()
    assert made.end_run() == "D"
    output = terminal.read_until()
    assert terminal.process.wait(60) == 0
    # redrawn on a screen of its own; what was last is left on the usual one
    before, _, after = output.partition("\x1b[?1049l")
    assert "\x1b[?1049h" in before
    assert "'burden'" in after and "DONE" in after


def test_leaving_the_watch_by_ctrl_c(make_terminal: Any, make: MakeWorkflow) -> None:
    make(name="burden")
    terminal = make_terminal("workflow", "list", "--watch", "0.2")
    terminal.read_until("burden")
    terminal.write("\x03")
    output = terminal.read_until()
    assert terminal.process.wait(60) == 0
    assert "Traceback" not in output and "burden" in output.partition("\x1b[?1049l")[2]
