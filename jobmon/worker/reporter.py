"""The thread that talks to JSM, so that no call, however long it takes, holds up the worker's main loop."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from jobmon.worker.jsm import RefusedError, UnreachableError, call
from jobmon.worker.log import say
from jobmon.worker.settings import Settings

TYPE_CHECKING = False  # see jobmon.worker.output
if TYPE_CHECKING:
    from typing import Any

REPORT_TIMEOUT = 30.0
# Another one comes soon; and the final report waits for one that is under way.
HEARTBEAT_TIMEOUT = 10.0
LONGEST_WAIT = 30.0


class Reporter(threading.Thread):
    """Asks JSM what to run, sends heartbeats, then the final report.

    The main loop reads the attributes after it was woken. Each changes once, from its first value.

    Attributes:
        instance: what to run, from ``start_job_instance``.
        start_error: why JSM did not give it, if it did not.
        refused: JSM refused to give it; else JSM was not reached.
        stop: a heartbeat, or the final report, was told that the instance has ended or was superseded.
        delivered: the final report was accepted.
        finished: the thread will do no more.

    Parameters:
        settings: where JSM is.
        job_instance_id: the job instance.
        about: ``nodename``, ``process_group_id`` and ``executor_id`` for the first report.
        heartbeat_seconds: time between heartbeats. A lease is four times that.
        patience: seconds for which the first and the final report are tried.
        wake: wakes the main loop.
    """

    def __init__(
        self,
        settings: Settings,
        job_instance_id: int,
        about: dict[str, Any],
        *,
        heartbeat_seconds: float,
        patience: float,
        wake: Callable[[], None],
    ) -> None:
        super().__init__(name="reporter", daemon=True)
        self.instance: dict[str, Any] | None = None
        self.start_error: str | None = None
        self.refused = False
        self.stop = False
        self.delivered = False
        self.finished = False
        self._settings = settings
        self._id = job_instance_id
        self._about = about
        self._heartbeat_seconds = heartbeat_seconds
        self._lease_seconds = max(1, round(4 * heartbeat_seconds))
        self._patience = patience
        self._wake = wake
        self._final: tuple[str, dict[str, Any]] | None = None
        self._ending = threading.Event()
        self._hurry = threading.Event()
        self._give_up = time.monotonic() + patience
        self._away = False
        self._told: set[str] = set()

    # What the main loop calls

    def finish(self, route: str, report: dict[str, Any]) -> None:
        """Send the final report instead of more heartbeats. A first report that is still tried is given up.

        Parameters:
            route: the procedure: ``log_done``, ``log_error`` or ``log_warning``.
            report: its parameters, without the instance and its node.
        """
        body = {"job_instance_id": self._id, "nodename": self._about["nodename"], **report}
        self._final = (route, body)
        if not self._hurry.is_set():
            self._give_up = time.monotonic() + self._patience
        self._ending.set()

    def hurry(self, seconds: float) -> None:
        """Give up the reports after this time, seconds: the worker has been told to end."""
        self._give_up = min(self._give_up, time.monotonic() + seconds)
        self._hurry.set()

    # The thread

    def run(self) -> None:
        """Do all of it; in the thread."""
        try:
            self._start_instance()
            if self.instance is not None:
                self._beat()
            if not self.stop and self._ending.is_set():
                self._report_end()
        finally:
            self.finished = True
            self._wake()

    def _start_instance(self) -> None:
        body = {
            "job_instance_id": self._id,
            "lease_seconds": self._lease_seconds,
            **{key: value for key, value in self._about.items() if value is not None},
        }
        try:
            answer = self._persist("start_job_instance", body, self._ending)
            if answer is not None:
                instance = answer["job_instance"]
                if not isinstance(instance["command"], str):
                    raise TypeError("command is no text")
                self.instance = instance
        except RefusedError as error:
            self.refused = True
            self.start_error = str(error)
        except UnreachableError as error:
            self.start_error = f"JSM at {self._settings.jsm} does not answer: {error}"
        except (KeyError, TypeError):
            self.start_error = "the answer to start_job_instance has no command"
        self._wake()

    def _beat(self) -> None:
        body = {"job_instance_id": self._id, "lease_seconds": self._lease_seconds}
        failures = 0
        # All workers of an array start at the same time; they need not beat at the same time.
        delay = self._heartbeat_seconds * _uniform(0.2, 1)
        while not self._ending.wait(delay):
            try:
                self._call("log_job_instance_heartbeat", body, HEARTBEAT_TIMEOUT)
                failures = 0
            except UnreachableError:
                failures += 1
            except RefusedError as error:
                failures = 0
                if error.status == 409:
                    say(f"told to stop: {error}")
                    self.stop = True
                    return
                self._say_once(f"a heartbeat was refused: {error}")
            if failures:
                delay = min(_backoff(failures), self._heartbeat_seconds)
            else:
                delay = self._heartbeat_seconds * _uniform(0.8, 1)

    def _report_end(self) -> None:
        assert self._final is not None
        route, body = self._final
        try:
            answer = self._persist(route, body, None) or {}
            self.delivered = "message" in answer
            if not self.delivered:
                say(f"the end of the command is perhaps not reported: the answer to {route} has no message")
        except (RefusedError, UnreachableError) as error:
            say(f"the end of the command is not reported: {error}")
            self.stop = getattr(error, "code", None) in ("JOB_INSTANCE_ENDED", "JOB_INSTANCE_SUPERSEDED")

    def _persist(
        self, route: str, body: dict[str, Any], until: threading.Event | None
    ) -> dict[str, Any] | None:
        """Call until there is an answer. None if ``until`` was set before.

        Raises:
            RefusedError: JSM refuses the call.
            UnreachableError: time is up.
        """
        failures = 0
        while True:
            try:
                return self._call(route, body, REPORT_TIMEOUT)
            except UnreachableError:
                failures += 1
                left = self._give_up - time.monotonic()
                if left <= 0:
                    raise
            delay = min(_backoff(failures), max(left, 0.05))
            if until is not None:
                if until.wait(delay):
                    return None
            elif not self._hurry.is_set():
                self._hurry.wait(delay)
            else:
                time.sleep(min(delay, 1))

    def _call(self, route: str, body: dict[str, Any], timeout: float) -> dict[str, Any]:
        try:
            answer = call(self._settings, route, body, timeout)
        except UnreachableError as error:
            if not self._away:
                self._away = True
                say(f"JSM at {self._settings.jsm} does not answer ({error}); it is tried again")
            raise
        except RefusedError:
            self._away = False
            raise
        except Exception as error:  # nobody thought of it; the command and its reports must go on
            self._say_once(f"this should not have happened: {type(error).__name__}: {error}")
            raise UnreachableError(str(error)) from error
        if self._away:
            self._away = False
            say(f"JSM at {self._settings.jsm} answers again")
        return answer

    def _say_once(self, text: str) -> None:
        if text not in self._told and len(self._told) < 100:
            self._told.add(text)
            say(text)


def _uniform(low: float, high: float) -> float:
    """A number between these, by chance. The module random would take 3 ms of the worker's start."""
    return low + (high - low) * int.from_bytes(os.urandom(4), "big") / 2**32


def _backoff(failures: int) -> float:
    """How long to wait after a number of failures, seconds; by chance, so that workers spread out."""
    return min(LONGEST_WAIT, 2.0 ** min(failures - 1, 10)) * _uniform(0.5, 1)
