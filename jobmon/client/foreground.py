"""A distributor in this process, until its workflow run has ended: with its progress, and with Ctrl-C.

The distributor works in a thread. The main thread shows how far it is and minds the signals: a handler only
notes that one came, since it may interrupt any statement, and the loop does the rest.
"""

from __future__ import annotations

import contextlib
import select
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Protocol

from jobmon.client.errors import JobmonError
from jobmon.client.progress import Display

TICK_SECONDS = 0.2
_PROMPT = "{}. Let them end [Enter], or kill them [k and Enter, or Ctrl-C]?"


class RunsJobs(Protocol):
    """What is needed of a distributor; see jobmon/distributor."""

    counts: dict[str, int]

    def run(self) -> str:
        """Work until the run has ended; its status."""

    def drain(self) -> None:
        """Claim nothing more."""

    def kill(self) -> None:
        """Claim nothing more, and kill what runs."""


class Foreground:
    """Runs a distributor until its workflow run has ended.

    Parameters:
        distributor: not yet running.
        stop: tells the database that the run is stopped; True: and that its jobs are killed.
        display: where progress is shown.

    Attributes:
        interrupted: somebody pressed Ctrl-C or sent a signal.
        killed: what ran was killed.
        signal: SIGTERM or SIGHUP, if this process was told to end; what called must see to it.
    """

    def __init__(self, distributor: RunsJobs, stop: Callable[[bool], None], display: Display) -> None:
        self.interrupted = False
        self.killed = False
        self.signal: int | None = None
        self._distributor = distributor
        self._stop = stop
        self._display = display
        self._asking = False
        self._num_interrupts = 0
        self._num_before_kill = 0
        self._error: BaseException | None = None

    def run(self) -> None:
        """Work until the run has ended.

        Raises:
            JobmonError: the distributor can't go on, as when the services are away for too long.
            KeyboardInterrupt: Ctrl-C was pressed a third time, while it waited for what it killed.
        """
        worker = threading.Thread(target=self._work, name="distributor", daemon=True)
        with self._display, self._minding_signals():
            worker.start()
            while worker.is_alive():
                worker.join(TICK_SECONDS)
                self._display.update(self._distributor.counts)
                self._mind()
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            self._distributor.run()
        except BaseException as error:  # raised again where somebody sees it
            self._error = error

    # Signals ----------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _minding_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():  # others can't have handlers
            yield
            return
        before = {}
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            handler = signal.getsignal(number)
            # Someone who ignores it (nohup), or has a handler of their own, knows why.
            if handler is signal.SIG_DFL or handler is signal.default_int_handler:
                before[number] = handler
                signal.signal(number, self._note)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._num_interrupts += 1
        if number != signal.SIGINT:
            self.signal = number

    def _mind(self) -> None:
        """Do what the signals since the last time, or the answer to the question, ask for."""
        if self.killed and self._num_interrupts > self._num_before_kill and self.signal is None:
            raise KeyboardInterrupt
        if self._num_interrupts and not self.interrupted:
            self._drain()
        if not self.killed and (self._num_interrupts > 1 or self.signal or self._answered_kill()):
            self.killed = True
            self._num_before_kill = self._num_interrupts
            self._asking = False
            self._display.say("Killing what runs ...")
            self._distributor.kill()

    def _drain(self) -> None:
        self.interrupted = True
        self._distributor.drain()
        # In a thread: a service that does not answer must not keep us from the next Ctrl-C.
        threading.Thread(target=self._tell_stopped, name="stop", daemon=True).start()
        counts = self._distributor.counts
        number = counts.get("I", 0) + counts.get("R", 0)
        jobs = "1 job runs" if number == 1 else f"{number} jobs run"
        self._display.freeze()
        self._display.say("Interrupted: no more jobs are started.")
        if self.signal is not None:
            return
        self._asking = _is_terminal()
        if self._asking:
            self._display.say(_PROMPT.format(jobs))
        else:
            self._display.say(f"{jobs} and may end; a second interrupt kills them.")

    def _tell_stopped(self) -> None:
        with contextlib.suppress(JobmonError):  # whoever called tells it again at the end
            self._stop(False)

    def _answered_kill(self) -> bool:
        # Not input(): it would wait for an answer after everything has ended.
        if not self._asking or not select.select([sys.stdin], [], [], 0)[0]:
            return False
        self._asking = False
        kill = sys.stdin.readline().strip().lower() in ("k", "kill")
        if not kill:
            self._display.say("They may end; Ctrl-C kills them.")
        return kill


def _is_terminal() -> bool:
    try:
        return sys.stdin.isatty() and sys.stderr.isatty() and sys.stdin.fileno() >= 0
    except (AttributeError, OSError, ValueError):  # a notebook's, a closed one
        return False
