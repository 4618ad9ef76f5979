"""The local executor: runs commands on this machine, at most ``max_workers`` at a time."""

from __future__ import annotations

import contextlib
import errno
import heapq
import logging
import math
import os
import selectors
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import IO, Any

from jobmon.executors.base import Event, Executor, JobInstance
from jobmon.executors.leftovers import kill_leftovers, take_place
from jobmon.worker.environment import SHELL, job_environment
from jobmon.worker.output import error_text, open_output, output_path, read_tail, usage_fields

logger = logging.getLogger(__name__)

KILL_AFTER_SECONDS = 10.0  # from SIGTERM to SIGKILL
# It takes so many seconds' worth of job instances ahead: short commands need not wait for the next claim.
AHEAD_SECONDS = 0.5
MOST_AHEAD = 500
POLL_SECONDS = 0.02  # between looks at the commands where the kernel does not tell when one ends


@dataclass
class Running:
    """A command that runs.

    Attributes:
        process: the shell, leader of its process group.
        pidfd: becomes readable when it ends; None where the kernel has no such thing.
        stderr: where its standard error goes.
        stderr_start: bytes that were in there before.
        started: by time.monotonic.
        killed_for: why it is being killed; None: it is not.
        exceeded: the resource that was exceeded, if it is killed for that.
        silent: it was given up, so nothing is reported.
    """

    instance: JobInstance
    process: subprocess.Popen[bytes]
    pidfd: int | None
    stderr: IO[bytes]
    stderr_start: int
    started: float
    killed_for: str | None = None
    exceeded: str | None = None
    silent: bool = False


@dataclass(order=True)
class Deadline:
    """When something must happen to a command: it has run too long, or is still there after SIGTERM."""

    at: float
    job_instance_id: int = field(compare=False)
    what: int = field(compare=False)  # the signal


class LocalExecutor(Executor):
    """Runs each job instance's command by the shell, in a process group of its own, without a worker process.

    A thread of its own starts and reaps the commands; the distributor's calls only hand things over.

    Parameters:
        max_workers: commands that run at a time at most; None: as many as there are processors.
        kill_after: seconds from SIGTERM to SIGKILL.
    """

    name = "LocalExecutor"

    def __init__(self, max_workers: int | None = None, *, kill_after: float = KILL_AFTER_SECONDS) -> None:
        super().__init__()
        self.max_workers = max_workers or os.cpu_count() or 1
        self._kill_after = kill_after
        self._lock = threading.Lock()
        # under the lock
        self._waiting: deque[JobInstance] = deque()
        self._starting: set[int] = set()
        self._running: dict[int, Running] = {}
        self._events: list[Event] = []
        self._end_to_report = False
        self._given_up: set[int] = set()
        self._killing = False
        self._closing = False
        self._rate = 0.0  # job instances that ended a second, lately
        self._ended = 0
        self._measured = time.monotonic()
        # of the thread
        self._deadlines: list[Deadline] = []
        self._selector = selectors.DefaultSelector()
        self._bell, self._bell_end = socket.socketpair()
        self._bell.setblocking(False)
        self._bell_end.setblocking(False)
        self._thread = threading.Thread(target=self._work, name="local-executor", daemon=True)
        self._jsm = ""
        self._nodename = socket.gethostname()
        self._environment: dict[str, str] = {}

    # The distributor's side

    def open(self, jsm: str) -> None:
        """Start the thread."""
        self._jsm = jsm
        self._environment = dict(os.environ)
        self._selector.register(self._bell_end, selectors.EVENT_READ, None)
        self._thread.start()

    def room(self) -> int:
        """Free places, and some more while commands are short."""
        with self._lock:
            self._measure()
            ahead = min(int(self._rate * AHEAD_SECONDS), MOST_AHEAD)
            return max(
                0, self.max_workers + ahead - len(self._running) - len(self._starting) - len(self._waiting)
            )

    def urgent(self) -> bool:
        """Whether a place is free, nothing waits for it, and the end of a command is to be reported."""
        with self._lock:
            free = len(self._running) + len(self._starting) < self.max_workers
            return self._end_to_report and not self._waiting and free

    def submit(self, job_instances: Sequence[JobInstance]) -> None:
        """Take job instances; the first attempts at their jobs are started before others are looked at."""
        with self._lock:
            self._waiting.extend(job_instances)
        self._ring()

    def num_events(self) -> int:
        """Reports that wait."""
        return len(self._events)

    def collect(self) -> list[Event]:
        """The reports since the last call."""
        with self._lock:
            events, self._events, self._end_to_report = self._events, [], False
        return events

    def held(self) -> list[int]:
        """What waits and what runs."""
        with self._lock:
            waiting = [instance["job_instance_id"] for instance in self._waiting]
            return [*waiting, *self._starting, *self._running]

    def renew(self, job_instance_ids: Collection[int], until: float) -> None:
        """The leases of job instances last until then at least."""
        with self._lock:
            for instance in self._waiting:
                if instance["job_instance_id"] in job_instance_ids:
                    instance["start_until"] = until
        self._ring()

    def stop(self, job_instance_ids: Sequence[int]) -> None:
        """Stop job instances that were given up, without a report."""
        with self._lock:
            self._given_up.update(job_instance_ids)
        self._ring()

    def kill(self) -> None:
        """Kill everything, and take nothing more."""
        with self._lock:
            self._killing = True
        self._ring()

    def close(self) -> None:
        """Kill what is left without mercy, and end the thread."""
        with self._lock:
            self._closing = True
        self._ring()
        self._thread.join()
        self._selector.close()
        self._bell.close()
        self._bell_end.close()

    def _ring(self) -> None:
        with contextlib.suppress(OSError):  # full: it is awake already; closed: it has ended
            self._bell.send(b"x")

    def _measure(self) -> None:
        elapsed = time.monotonic() - self._measured
        if elapsed > 0.1:
            self._rate = 0.5 * self._rate + 0.5 * self._ended / elapsed
            self._ended, self._measured = 0, time.monotonic()

    # The thread's side

    def _work(self) -> None:
        while True:
            try:
                if self._turn():
                    return
            except Exception:  # whatever it was: the commands that run must be reaped
                logger.exception("unexpected error in the local executor")
                time.sleep(1)

    def _turn(self) -> bool:
        """One round of the thread; whether it was the last."""
        self._start_waiting()
        timeout = None
        if self._deadlines:
            timeout = max(0.0, self._deadlines[0].at - time.monotonic())
        unwatched = [command for command in self._running.values() if command.pidfd is None]
        if unwatched:
            timeout = POLL_SECONDS if timeout is None else min(timeout, POLL_SECONDS)
        for key, _ in self._selector.select(timeout):
            if key.data is None:
                with contextlib.suppress(BlockingIOError):
                    self._bell_end.recv(4096)
            else:
                self._reap(key.data)
        for command in unwatched:
            if _has_ended(command.process.pid):
                self._reap(command)
        now = time.monotonic()
        while self._deadlines and self._deadlines[0].at <= now:
            self._keep_deadline(heapq.heappop(self._deadlines))
        return self._obey()

    def _obey(self) -> bool:
        """Do what the distributor has asked for; whether the thread should end."""
        with self._lock:
            given_up, self._given_up = self._given_up, set()
            if given_up:
                self._waiting = deque(i for i in self._waiting if i["job_instance_id"] not in given_up)
            killing, self._killing, closing = self._killing, False, self._closing
            dropped = list(self._waiting) if killing or closing else []
            if dropped:
                self._waiting.clear()
            running = list(self._running.items())
        if killing:
            for instance in dropped:
                self._report("error", instance, error_message="killed before it was started")
        for number, command in running:
            if closing:
                command.silent = True
                self._signal(command, signal.SIGKILL)
                self._reap(command)
            elif number in given_up:
                command.silent = True
                self._kill(number, command, "given up")
            elif killing:
                self._kill(number, command, "killed: the distributor was told to kill what runs")
        return closing

    def _keep_deadline(self, deadline: Deadline) -> None:
        command = self._running.get(deadline.job_instance_id)
        if command is None:
            return
        if deadline.what == signal.SIGKILL:
            self._signal(command, signal.SIGKILL)
        else:
            limit = command.instance["max_runtime"]
            reason = f"max_runtime of {limit} s exceeded: killed"
            self._kill(deadline.job_instance_id, command, reason, exceeded="max_runtime")

    def _kill(
        self, job_instance_id: int, command: Running, reason: str, *, exceeded: str | None = None
    ) -> None:
        if command.killed_for is None:
            command.killed_for, command.exceeded = reason, exceeded
            self._signal(command, signal.SIGTERM)
            self._push(self._kill_after, job_instance_id, signal.SIGKILL)

    def _push(self, seconds: float, job_instance_id: int, what: int) -> None:
        heapq.heappush(self._deadlines, Deadline(time.monotonic() + seconds, job_instance_id, what))

    @staticmethod
    def _signal(command: Running, number: int) -> None:
        # Not reaped yet, so the number of the group is still its own.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(command.process.pid, number)

    def _start_waiting(self) -> None:
        while True:
            with self._lock:
                count = self.max_workers - len(self._running)
                if self._closing or self._killing or count <= 0 or not self._waiting:
                    return
                batch = self._pop_waiting(count)
                if not batch:
                    return
                self._starting = {instance["job_instance_id"] for instance in batch}
            again = {i["job_id"]: i["job_instance_id"] for i in batch if i["attempt_number"] > 1}
            stuck = kill_leftovers(again, self._jsm) if again else set()
            for instance in batch:
                job_id, number = instance["job_id"], instance["job_instance_id"]
                place = None if job_id in stuck else take_place(job_id, number, self._jsm)
                if place is None:
                    message = "not started: an earlier attempt still runs on this host"
                    self._report("error", instance, error_message=message)
                else:
                    with place:
                        self._start(instance, place)
                with self._lock:
                    self._starting.discard(number)

    def _pop_waiting(self, count: int) -> list[JobInstance]:
        """The next ones to be started; those whose lease may have passed stay. With the lock held."""
        ready: list[JobInstance] = []
        late: list[JobInstance] = []
        while self._waiting and len(ready) < count:
            instance = self._waiting.popleft()
            is_late = instance.get("start_until", math.inf) < time.monotonic()
            (late if is_late else ready).append(instance)
        self._waiting.extendleft(reversed(late))
        return ready

    def _start(self, instance: JobInstance, place: socket.socket) -> None:
        number, name = instance["job_instance_id"], instance["name"]
        stdout: Any = None
        stderr: Any = None
        process = None
        try:
            base = instance["working_dir"] or ""
            if instance["stdout"]:
                stdout = open_output(output_path(os.path.join(base, instance["stdout"]), name, "o", number))
            if instance["stderr"]:
                stderr = open_output(output_path(os.path.join(base, instance["stderr"]), name, "e", number))
            else:
                stderr = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 (gone when it is closed)
            start = os.fstat(stderr.fileno()).st_size
            process = subprocess.Popen(
                [SHELL, "-c", instance["command"].encode("utf-8", "replace")],
                stdin=subprocess.DEVNULL,
                stdout=stdout or subprocess.DEVNULL,
                stderr=stderr,
                cwd=instance["working_dir"] or None,
                env={**self._environment, **job_environment(instance, self._jsm)},
                start_new_session=True,
                pass_fds=(place.fileno(),),
            )
            pidfd = _open_pidfd(process.pid)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            if process is not None:  # it runs, and could not be watched
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if stderr:
                stderr.close()
            what = str(error)
            if isinstance(error, OSError) and error.filename:
                what = f"{os.fsdecode(error.filename)}: {error.strerror}"
            self._report("error", instance, error_message=f"the command cannot be started: {what}")
            return
        finally:
            if stdout:
                stdout.close()
        command = Running(instance, process, pidfd, stderr, start, time.monotonic())
        if pidfd is not None:
            self._selector.register(pidfd, selectors.EVENT_READ, command)
        with self._lock:
            self._running[number] = command
        if instance["max_runtime"] is not None:
            self._push(instance["max_runtime"], number, signal.SIGTERM)
        self._report("running", instance, process_group_id=process.pid)

    def _reap(self, command: Running) -> None:
        instance, process = command.instance, command.process
        if command.killed_for is not None:
            self._signal(command, signal.SIGKILL)  # what did not heed SIGTERM when the shell did
        try:
            _, status, rusage = os.wait4(process.pid, 0)
            code: int | str = os.waitstatus_to_exitcode(status)
        except ChildProcessError:  # somebody else in this process has waited for it
            code, rusage = (
                "its exit status is lost: something else in this process waits for all children",
                None,
            )
        process.returncode = code if isinstance(code, int) else 255  # so that Popen does not wait for it
        if command.pidfd is not None:
            self._selector.unregister(command.pidfd)
            os.close(command.pidfd)
        usage = usage_fields(time.monotonic() - command.started, rusage)
        if command.silent:
            pass
        elif code == 0 and command.killed_for is None:
            self._report("done", instance, **usage)
        else:
            tail = read_tail(command.stderr, start=command.stderr_start)
            text = error_text(command.killed_for or code, tail)
            if command.exceeded is not None:
                usage |= {"job_instance_status": "Z", "exceeded": command.exceeded}
            self._report("error", instance, error_message=text, **usage)
        command.stderr.close()
        with self._lock:
            del self._running[instance["job_instance_id"]]
            self._ended += 1
        self.wake.set()  # a place is free

    def _report(self, event: str, instance: JobInstance, **fields: Any) -> None:
        report = {
            "event": event,
            "job_instance_id": instance["job_instance_id"],
            "nodename": self._nodename,
            **fields,
        }
        with self._lock:
            self._events.append(report)
            self._end_to_report = self._end_to_report or event != "running"
        self.wake.set()


def _open_pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None before Linux 5.3 (RHEL 8 has 4.18).

    Raises:
        OSError: there are too many open files.
    """
    try:
        return os.pidfd_open(pid)
    except (AttributeError, OSError) as error:
        if isinstance(error, OSError) and error.errno != errno.ENOSYS:
            raise
        return None


def _has_ended(pid: int) -> bool:
    """Whether a child has ended; it is not reaped by that."""
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
    except ChildProcessError:  # somebody else has waited for it
        return True
