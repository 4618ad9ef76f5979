"""``jobmon-worker``: runs one job instance and reports on it.

The main thread starts the command, waits for it, and ends it where need be. It never waits for JSM: a thread
(:mod:`jobmon.worker.reporter`) does. Signals, the thread and the command's end all wake one ``select``.
"""

from __future__ import annotations

import argparse
import contextlib
import math
import os
import select
import signal
import sys
import time
from collections.abc import Callable

from jobmon.worker.cgroup import OomKills
from jobmon.worker.child import POLL_SECONDS, Child, Guard, signal_group
from jobmon.worker.environment import find_executor_id, job_environment
from jobmon.worker.log import say
from jobmon.worker.output import error_text, output_path, read_tail, signal_name, trim, usage_fields
from jobmon.worker.settings import Settings, SettingsError, read_settings

TYPE_CHECKING = False  # see jobmon.worker.output
if TYPE_CHECKING:
    from resource import struct_rusage

    from jobmon.worker.child import Plan
    from jobmon.worker.reporter import Reporter

# Exit codes for what is not the command's own doing; those of sysexits.h where it has one.
EXIT_USAGE = 2
EXIT_UNREACHABLE = 69  # EX_UNAVAILABLE
EXIT_NOT_STARTED = 71  # EX_OSERR
EXIT_REFUSED = 75  # EX_TEMPFAIL
EXIT_STOPPED = 76
EXIT_MAX_RUNTIME = 124  # as of timeout(1)

# What is left for the last report after a signal: schedulers kill soon after it (Slurm: 30 s).
SECONDS_AFTER_SIGNAL = 15.0
# A process that SIGKILL does not end (it waits for a file server) will run no more of its program.
SECONDS_AFTER_KILL = 30.0
# A command that was ended by a signal tells of its end so much later, where the executor reports signals.
SECONDS_FOR_OWN_SIGNAL = 1.0
SCRATCH_BYTES = 16 * 1024 * 1024
SCRATCH_SECONDS = 10.0

ENDING_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
PASSED_SIGNALS = (signal.SIGUSR1, signal.SIGUSR2)


class Stop:
    """Why a command is not to go on.

    Parameters:
        exit_code: of the worker.
        reason: what the error log is to say; None if JSM is told nothing more.
        exceeded: the resource that was exceeded, if that is why.
        signal: the signal, if the worker was told to end by one.
    """

    def __init__(
        self, exit_code: int, reason: str | None, *, exceeded: str | None = None, signal: int | None = None
    ) -> None:
        self.exit_code = exit_code
        self.reason = reason
        self.exceeded = exceeded
        self.signal = signal


class Worker:
    """One job instance, from the start of the worker to its exit code.

    Parameters:
        settings: where JSM is.
        options: of the command line.
    """

    def __init__(self, settings: Settings, options: argparse.Namespace) -> None:
        self._settings = settings
        self._id: int = options.job_instance_id
        self._kill_after: float = options.kill_after
        self._executor_reports_signals: bool = options.executor_reports_signals
        self._child = Child()
        self._guard = Guard(self._child, self._kill_after)
        self._received: list[int] = []
        self._wake_read, self._wake_write = os.pipe()
        self._catch_signals()
        self._reporter = self._make_reporter(options)
        self._hearing = True  # whether the child may yet say something
        self._stderr: str | int | None = None  # what the tail is read from
        self._scratch: int | None = None  # takes standard error that has no directory
        self._scratch_path: str | None = None
        self._started = 0.0
        self._deadline = math.inf
        self._max_runtime: float | None = None
        self._wall_seconds = 0.0
        self._returncode: int | None = None
        self._rusage: struct_rusage | None = None
        self._oom_kills: OomKills | None = None

    def _make_reporter(self, options: argparse.Namespace) -> Reporter:
        # Only now, after the forks: what it imports would make the forked processes larger.
        from jobmon.worker.reporter import Reporter

        about = {
            "nodename": os.uname().nodename,
            "process_group_id": self._child.pid,
            "executor_id": options.executor_id or find_executor_id(os.environ),
        }
        return Reporter(
            self._settings,
            self._id,
            about,
            heartbeat_seconds=options.heartbeat_seconds,
            patience=options.patience,
            wake=self._wake,
        )

    def run(self) -> int:
        """Run the job instance; gives the exit code."""
        self._reporter.start()
        stop = self._ask()
        if stop is None:
            self._execute()
            stop = self._watch()
        if stop is not None:
            self._end_group()
        self._guard.dismiss()
        return self._report(stop)

    # What wakes the main thread

    def _catch_signals(self) -> None:
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        signal.set_wakeup_fd(self._wake_write, warn_on_full_buffer=False)
        for number in (*ENDING_SIGNALS, *PASSED_SIGNALS, signal.SIGCHLD):
            # What was ignored from the start (as by nohup) stays ignored.
            if number == signal.SIGCHLD or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, self._receive)

    def _receive(self, number: int, frame: object) -> None:
        if number != signal.SIGCHLD:
            self._received.append(number)

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError):  # a full pipe wakes as well
            os.write(self._wake_write, b"\0")

    def _wait(self, until: float = math.inf) -> None:
        """Wait until something happens, or until a time of the monotonic clock."""
        timeout = None if until == math.inf else max(0.0, until - time.monotonic())
        sources = [self._wake_read, self._child.news] if self._hearing else [self._wake_read]
        ready = select.select(sources, (), (), timeout)[0]
        if self._wake_read in ready:
            with contextlib.suppress(BlockingIOError):
                os.read(self._wake_read, 4096)
        if self._hearing and self._child.news in ready:
            self._hear()

    def _hear(self) -> None:
        self._hearing = self._child.hear()
        if not self._hearing and self._scratch_path is not None:
            with contextlib.suppress(OSError):
                os.unlink(self._scratch_path)
            self._scratch_path = None

    def _take_signal(self) -> int | None:
        """The next signal that tells the worker to end; those for the command are passed on."""
        while self._received:
            number = self._received.pop(0)
            if number not in PASSED_SIGNALS:
                say(f"received {signal_name(number)}")
                self._reporter.hurry(self._kill_after + SECONDS_AFTER_SIGNAL)
                return number
            if self._started and self._returncode is None:
                signal_group(self._child.pid, number)
        return None

    def _reap(self) -> bool:
        """Whether the command has ended."""
        if self._returncode is None:
            pid, status, rusage = os.wait4(self._child.pid, os.WNOHANG)
            if pid:
                self._returncode = os.waitstatus_to_exitcode(status)
                self._rusage = rusage
                self._wall_seconds = time.monotonic() - self._started
                while self._hearing:
                    self._hear()
        return self._returncode is not None

    # The parts of a worker's life

    def _ask(self) -> Stop | None:
        """Wait for JSM to say what to run; None if it has."""
        reporter = self._reporter
        while True:
            number = self._take_signal()
            if number is not None:
                reason = f"the worker received {signal_name(number)} before the command was started"
                return Stop(128 + number, reason, signal=number)
            if reporter.instance is not None:
                return None
            if reporter.start_error is not None:
                say(f"the command is not started: {reporter.start_error}")
                return Stop(EXIT_REFUSED if reporter.refused else EXIT_UNREACHABLE, None)
            if reporter.finished:  # a defect: its traceback is on standard error
                return Stop(EXIT_UNREACHABLE, None)
            self._wait()

    def _execute(self) -> None:
        """Tell the child the command."""
        instance = self._reporter.instance or {}
        working_dir = instance.get("working_dir") or None

        def output(key: str) -> str | None:
            if not instance.get(key):
                return None
            directory = os.path.join(working_dir or "", instance[key])
            letter = "o" if key == "stdout" else "e"
            return os.path.abspath(output_path(directory, instance.get("name"), letter, self._id))

        stderr = output("stderr")
        self._stderr = stderr
        if stderr is None:
            stderr = self._make_scratch()
        self._max_runtime = instance.get("max_runtime")
        self._oom_kills = OomKills(os.environ.get("SLURM_JOB_ID"))
        self._started = time.monotonic()
        if self._max_runtime is not None:
            self._deadline = self._started + self._max_runtime
        plan: Plan = {
            "command": instance["command"],
            "env": {**os.environ, **job_environment(instance, self._settings.jsm)},
            "working_dir": working_dir,
            "stdout": output("stdout"),
            "stderr": stderr,
        }
        self._child.execute(plan)

    def _make_scratch(self) -> str | None:
        """A file for standard error that has no directory. It loses its name once the child has it open."""
        # Not with tempfile, whose import would be a sixth of the worker's work.
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        name = f"jobmon-worker-{os.urandom(8).hex()}"
        problem = ""
        for directory in filter(None, (os.environ.get("TMPDIR"), "/tmp", "/var/tmp")):
            path = os.path.abspath(os.path.join(directory, name))
            try:
                self._scratch = self._stderr = os.open(path, flags, 0o600)
            except OSError as error:
                problem = problem or f"{directory}: {error.strerror}"
                continue
            self._scratch_path = path
            return path
        say(f"standard error is thrown away, since there is no place for it: {problem}")
        return None

    def _watch(self) -> Stop | None:
        """Wait for the end of the command; None if it ended by itself."""
        look_at_scratch = time.monotonic() + SCRATCH_SECONDS if self._scratch is not None else math.inf
        while not self._reap():
            number = self._take_signal()
            if number is not None:
                return Stop(128 + number, f"the worker received {signal_name(number)}: killed", signal=number)
            if self._reporter.stop:
                return Stop(EXIT_STOPPED, None)
            now = time.monotonic()
            if now >= self._deadline:
                say(f"max_runtime of {self._max_runtime} s exceeded")
                reason = f"max_runtime of {self._max_runtime} s exceeded: killed"
                return Stop(EXIT_MAX_RUNTIME, reason, exceeded="max_runtime")
            if now >= look_at_scratch and self._scratch is not None:
                look_at_scratch = now + SCRATCH_SECONDS
                with contextlib.suppress(OSError):
                    trim(self._scratch, SCRATCH_BYTES)
            self._wait(min(self._deadline, look_at_scratch))
        return self._find_own_signal()

    def _find_own_signal(self) -> Stop | None:
        """The signal that ended the command, if the worker got it, too.

        Slurm sends it to all processes of a job, and which of them has it first is left to chance.
        """
        code = self._returncode or 0
        if not self._executor_reports_signals or code == 0:
            return None
        signalled = -code in ENDING_SIGNALS or code - 128 in ENDING_SIGNALS
        until = time.monotonic() + (SECONDS_FOR_OWN_SIGNAL if signalled else 0.0)
        while True:
            number = self._take_signal()
            if number is not None:
                return Stop(128 + number, f"the worker received {signal_name(number)}: killed", signal=number)
            if time.monotonic() >= until:
                return None
            self._wait(until)

    def _end_group(self) -> None:
        """End all that is in the process group, at first gently."""
        group = self._child.pid
        signal_group(group, signal.SIGTERM)
        kill_at = time.monotonic() + self._kill_after
        while self._reap() is False or signal_group(group, 0):
            if self._take_signal() == signal.SIGINT:
                kill_at = 0.0  # a person who presses Ctrl-C again; schedulers may send SIGTERM twice
            now = time.monotonic()
            if now >= kill_at:
                break
            # Nothing tells when the last process of a group has ended, so it is looked for.
            self._wait(min(kill_at, now + POLL_SECONDS))
        else:
            return
        signal_group(group, signal.SIGKILL)
        give_up_at = time.monotonic() + SECONDS_AFTER_KILL
        while not self._reap() and time.monotonic() < give_up_at:
            self._take_signal()
            self._wait(give_up_at)

    def _report(self, stop: Stop | None) -> int:
        """Tell JSM how it ended; gives the exit code."""
        exit_code, reason = self._outcome(stop)
        if stop is not None and stop.reason is None:
            return exit_code
        route, report = "log_done", {}
        if reason is not None:
            tail = "" if self._stderr is None else read_tail(self._stderr, start=self._child.stderr_start)
            exceeded = stop.exceeded if stop is not None else self._exceeded()
            if exceeded == "mem_free":
                reason = f"out of memory: {error_text(reason)}"
            route, report = "log_error", {"error_message": error_text(reason, tail)}
            if stop is not None and stop.signal is not None and self._executor_reports_signals:
                route = "log_warning"
            elif exceeded is not None:
                report |= {"job_instance_status": "Z", "exceeded": exceeded}
        if self._started:
            if self._returncode is None:
                self._wall_seconds = time.monotonic() - self._started
            report |= usage_fields(self._wall_seconds, self._rusage)
        self._reporter.finish(route, report)
        while not self._reporter.finished:
            self._take_signal()
            self._wait()
        return EXIT_STOPPED if self._reporter.stop else exit_code

    def _exceeded(self) -> str | None:
        """The resource for which the kernel has ended the command, if it has."""
        kills = self._oom_kills
        if kills is None or not self._returncode or not kills.rose():
            return None
        # The shell gives 137 for a command of its own that was killed. Where other jobs are in the group as
        # well, another code says nothing: the kill may have been for one of them.
        killed = self._returncode in (-signal.SIGKILL, 128 + signal.SIGKILL)
        return "mem_free" if killed or kills.of_this_job else None

    def _outcome(self, stop: Stop | None) -> tuple[int, int | str | None]:
        """The exit code, and the error if there is one: a return code or words."""
        if stop is not None:
            lives = self._returncode is None
            return stop.exit_code, f"{stop.reason}, but it does not end" if lives else stop.reason
        if self._child.failure:
            return EXIT_NOT_STARTED, self._child.failure
        returncode = self._returncode or 0
        if returncode < 0:
            return 128 - returncode, returncode
        return returncode, returncode or None


def _number(low: float, high: float, kind: type[int] | type[float]) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            number = kind(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"expected a number from {low:g} to {high:g}, not {text!r}")
        return number

    return parse


def make_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="jobmon-worker",
        description="Runs one job instance on this node and reports on it to JSM.",
        epilog="JSM is found by JOBMON_HOST, JOBMON_JSM_PORT and JOBMON_TOKEN,"
        " or by host, jsm_port and token in ~/.jobmonrc.",
        allow_abbrev=False,
        # The terminal's width would cost the import of shutil, whether there is something to show or not.
        formatter_class=lambda prog: argparse.HelpFormatter(prog, width=100),
    )
    parser.add_argument(
        "job_instance_id", metavar="JOB_INSTANCE_ID", type=_number(1, 2**63 - 1, int), help="what to run"
    )
    parser.add_argument(
        "--executor-id",
        metavar="ID",
        type=_executor_id,
        help="the scheduler's id of this job; default: from the environment that Slurm or Grid Engine made",
    )
    parser.add_argument(
        "--heartbeat-seconds",
        metavar="SECONDS",
        type=_number(0.1, 86400, float),
        default=30.0,
        help="time between heartbeats; after four times that without one the instance is lost (default 30)",
    )
    parser.add_argument(
        "--patience",
        metavar="SECONDS",
        type=_number(0, 1e9, float),
        default=86400.0,
        help="how long the first and the last report are tried when JSM is away (default 86400, a day)",
    )
    parser.add_argument(
        "--kill-after",
        metavar="SECONDS",
        type=_number(0, 86400, float),
        default=10.0,
        help="time from SIGTERM to SIGKILL when the command is made to end (default 10)",
    )
    parser.add_argument(
        "--executor-reports-signals",
        action="store_true",
        help="after SIGTERM, SIGINT or SIGHUP leave the report of the end to the executor, which asks the"
        " scheduler why",
    )
    return parser


def _executor_id(text: str) -> str:
    if not 1 <= len(text) <= 64:
        raise argparse.ArgumentTypeError("expected 1 to 64 characters")
    return text


def main(arguments: list[str] | None = None) -> int:
    """Entry point of ``jobmon-worker``.

    Parameters:
        arguments: of the command line; the process's own if None.

    Returns:
        The exit code.
    """
    # Files would take the numbers of standard streams that are closed.
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
    options = make_parser().parse_args(arguments)
    try:
        settings = read_settings(os.environ)
    except SettingsError as error:
        say(str(error))
        return EXIT_USAGE
    return Worker(settings, options).run()


if __name__ == "__main__":
    sys.exit(main())
