"""How far a workflow is, on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from jobmon.client.result import by_label

LINE_SECONDS = 10.0  # between two lines where there is no terminal

# True: show it. False: don't. A function: call it with the counts by label instead.
ProgressOption = bool | Callable[[dict[str, int]], object]


class Display:
    """Shows counts of jobs while it is entered.

    Parameters:
        option: how; see :data:`ProgressOption`.
        name: the workflow's.
        num_jobs: how many jobs there are.
        console: where to; default: standard error.
    """

    def __init__(
        self, option: ProgressOption, name: str, num_jobs: int, console: Console | None = None
    ) -> None:
        self._option = option
        self._name = name
        self._num_jobs = num_jobs
        self._console = console or Console(stderr=True)
        self._bar: Progress | None = None
        self._shown: dict[str, int] = {}
        self._next_line = 0.0
        self._last_line = ""

    def __enter__(self) -> Display:
        if self._option is True and self._console.is_terminal and not self._console.is_dumb_terminal:
            self._bar = Progress(
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("done{task.fields[others]}", markup=False),
                TimeElapsedColumn(),
                console=self._console,
            )
            self._bar.add_task(self._name, total=self._num_jobs, others="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.freeze()
        if self._option is True and self._shown:
            self._line()

    def update(self, counts: Mapping[str, int]) -> None:
        """Show these counts.

        Parameters:
            counts: status letter -> number of jobs; empty: nothing is known yet.
        """
        found = by_label(counts)
        if not found or found == self._shown:
            return
        self._shown = found
        if callable(self._option):
            self._option(dict(found))
        elif self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=found.get("DONE", 0), others=self._others())
        elif self._option and time.monotonic() >= self._next_line:
            self._line()

    def say(self, text: str) -> None:
        """Print a line, whatever the option."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def freeze(self) -> None:
        """Leave the bar as it is, and go on with lines."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
            self._last_line = self._text()

    def _others(self) -> str:
        running = self._shown.get("INSTANTIATED", 0) + self._shown.get("RUNNING", 0)
        failed = self._shown.get("ERROR_FATAL", 0)
        return (f", {running} running" if running else "") + (f", {failed} failed" if failed else "")

    def _text(self) -> str:
        return f"{self._name}: {self._shown.get('DONE', 0)} of {self._num_jobs} jobs done{self._others()}"

    def _line(self) -> None:
        self._next_line = time.monotonic() + LINE_SECONDS
        text = self._text()
        if text != self._last_line:
            self._last_line = text
            self.say(text)
