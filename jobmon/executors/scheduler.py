"""What the batch executor asks of a scheduler such as Slurm or Grid Engine: submit, list, look up, cancel.

Another scheduler needs one class that implements :class:`Scheduler`; see docs/executors.md.
"""

from __future__ import annotations

import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from jobmon.client.errors import JobmonError

NAME_PREFIX = "jobmon-"  # of the names of all submissions
MOST_IDS = 200  # in one command line


class SubmissionRejectedError(Exception):
    """The scheduler does not take a submission; nothing of it was taken. The text is the scheduler's own.

    Parameters:
        message: the scheduler's words.
        full: it may take it once other tasks have ended: a limit on their number was reached.
    """

    def __init__(self, message: str, *, full: bool = False) -> None:
        super().__init__(message)
        self.full = full


class SchedulerSilentError(Exception):
    """The scheduler does not answer, or not with anything that can be understood: nothing is known.

    After :meth:`Scheduler.submit` that means that the submission may or may not have been taken.

    Parameters:
        message: what is known of it.
        ended: what :meth:`Scheduler.ended` has found all the same, from another source.
    """

    def __init__(self, message: str, *, ended: Mapping[str, Ended] | None = None) -> None:
        super().__init__(message)
        self.ended = ended or {}


@dataclass(frozen=True)
class Resources:
    """What each task of a submission gets; equal for all of them.

    Attributes:
        slots: CPUs.
        mem_free: memory, GB; 0: as the scheduler has it.
        max_runtime: seconds that the scheduler is to allow, with what the worker needs beside the command;
            None: as the scheduler has it.
        queue: queue or partition; None: the scheduler's default.
        project: project or account; None: the user's default.
        flags: further words for the submit command.
    """

    slots: int
    mem_free: int
    max_runtime: int | None
    queue: str | None = None
    project: str | None = None
    flags: tuple[str, ...] = ()


@dataclass(frozen=True)
class Submission:
    """Job instances that are submitted together, as one job or one array.

    Attributes:
        name: of the job: letters, digits and ``-``; unique, so that it can be found again.
        size: number of tasks, from 1 on.
        resources: of each task.
        command: lines of bash that run one task; in them ``$JOBMON_TASK`` is its number, from 0 on. The
            scheduler's script sets that variable from its own.
        log_dir: directory for what the workers themselves write; it exists. See :meth:`Scheduler.log_file`.
    """

    name: str
    size: int
    resources: Resources
    command: str
    log_dir: Path


@dataclass(frozen=True)
class Listed:
    """A task that the scheduler still has.

    Attributes:
        executor_id: as find_executor_id of jobmon.worker.environment gives it in the task itself.
        name: of its submission.
        task: its number in the submission, from 0 on.
        state: ``pending``; ``running``, which includes starting and ending; ``stuck``: it will not run unless
            somebody intervenes (Grid Engine's Eqw, Slurm's held after a failed start).
        reason: why it is pending or stuck, in the scheduler's words; or "".
        doubtful: it is pending for a reason that does not go away by itself (it asks for more than the queue
            allows): that is told as a warning.
    """

    executor_id: str
    name: str
    task: int
    state: Literal["pending", "running", "stuck"]
    reason: str = ""
    doubtful: bool = False


@dataclass(frozen=True)
class Ended:
    """What the scheduler remembers of a task that is over.

    Attributes:
        name: of its submission: ids are used again.
        task: its number in the submission, from 0 on.
        status: of the job instance, should it not have reported: E, or Z if it has exceeded a resource.
        message: what happened, with the scheduler's own words and figures.
        exceeded: which resource, if status is Z.
        usage: wallclock, maxvmem, cpu, io as log_usage takes them; what is not known is left out.
    """

    name: str
    task: int
    status: Literal["E", "Z"]
    message: str
    exceeded: Literal["mem_free", "max_runtime"] | None = None
    usage: Mapping[str, str] = field(default_factory=dict)


class Scheduler(ABC):
    """One scheduler, as its commands show it. Used by one thread at a time.

    The parameters of ``__init__``, all of them texts by keyword and optional, are options of the executor
    (``--option NAME=VALUE``) beside those of :class:`jobmon.executors.batch.BatchExecutor`.

    No call may take longer than about a minute: a command that does not end is killed, and the scheduler
    taken for silent.

    Attributes:
        name: what the database keeps as ``executor_type``, such as SlurmExecutor.
        label: what people call it, for messages.
        max_array: tasks that one submission can have.
    """

    name: str
    label: str = "the scheduler"
    max_array: int = 500

    def check(self) -> None:  # noqa: B027 (few need it)
        """Called once, before anything else.

        Raises:
            JobmonError: it can't be used here, such as when its commands are not installed.
        """

    def log_file(self, log_dir: Path, task: int) -> Path:
        """Where :meth:`submit` sends what the worker of a task writes, standard output and standard error.

        Parameters:
            log_dir: as of the submission.
            task: its number, from 0 on.
        """
        return log_dir / f"{task}.log"

    @abstractmethod
    def submit(self, submission: Submission) -> Sequence[str]:
        """Submit.

        Returns:
            The executor ids, one for each task.

        Raises:
            SubmissionRejectedError: the scheduler refuses it.
            SchedulerSilentError: it may or may not have been taken.
        """

    @abstractmethod
    def list_tasks(self) -> Sequence[Listed]:
        """All tasks of this user that the scheduler has and whose names begin with ``jobmon-``, by one call.

        Raises:
            SchedulerSilentError: nothing is known.
        """

    @abstractmethod
    def ended(self, executor_ids: Collection[str]) -> Mapping[str, Ended]:
        """What became of tasks; those of which there is no record (yet) are left out.

        Raises:
            SchedulerSilentError: nothing is known.
        """

    @abstractmethod
    def cancel(self, executor_ids: Collection[str]) -> None:
        """End tasks; those that are over already are passed over.

        Raises:
            SchedulerSilentError: nothing is known; it may be tried again.
        """


# ----------------------------------------------------------------------------------------------------------
# Running the scheduler's commands

COMMAND_SECONDS = 60.0


def require_commands(commands: Collection[str], label: str, hint: str) -> None:
    """See that a scheduler's commands are installed here.

    Parameters:
        commands: their names.
        label: what people call the scheduler.
        hint: what to do where they are not.

    Raises:
        JobmonError: one is not.
    """
    missing = [command for command in commands if shutil.which(command) is None]
    if missing:
        raise JobmonError(f"{label}'s commands are not here: {', '.join(missing)}", hint)


def size_text(number: float | None) -> str:
    """A number of bytes, for messages; ``?`` if it is not known."""
    if not number:
        return "?"
    return f"{number / (1 << 30):.2f} GiB" if number >= 1 << 30 else f"{number / (1 << 20):.0f} MiB"


@dataclass(frozen=True)
class Output:
    """What a command of the scheduler has said."""

    status: int
    stdout: str
    stderr: str

    @property
    def words(self) -> str:
        """The error in the command's words, in one line."""
        lines = [line.strip() for line in (self.stderr or self.stdout).splitlines()]
        return "; ".join(line for line in lines if line)[:1000] or f"exit code {self.status}"


def run_command(
    words: Sequence[str],
    *,
    stdin: str = "",
    env: Mapping[str, str] | None = None,
    seconds: float = COMMAND_SECONDS,
) -> Output:
    """Run a command of the scheduler to its end.

    Parameters:
        words: the command.
        stdin: what it reads.
        env: its environment; None: that of this process.
        seconds: after which it is killed.

    Raises:
        SchedulerSilentError: it could not be started, was killed, or took too long.
    """
    try:
        # Of a session of its own: Ctrl-C at the terminal must not end a submission half way.
        done = subprocess.run(
            words,
            input=stdin,
            env=None if env is None else dict(env),
            capture_output=True,
            timeout=seconds,
            encoding="utf-8",
            errors="replace",
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise SchedulerSilentError(f"{words[0]}: no answer in {seconds:g} s") from None
    except OSError as error:
        raise SchedulerSilentError(f"{words[0]} can't be started: {error.strerror}") from None
    output = Output(done.returncode, done.stdout, done.stderr)
    if done.returncode < 0:
        raise SchedulerSilentError(f"{words[0]} was killed by signal {-done.returncode}: {output.words}")
    return output
