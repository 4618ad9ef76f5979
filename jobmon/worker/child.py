"""The two processes that a worker forks: the one that becomes the command, and its guard.

Both are forked before the worker has threads, and before it imports what the thread needs, so they are small.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time

from jobmon.worker.environment import SHELL
from jobmon.worker.output import open_output

TYPE_CHECKING = False  # see jobmon.worker.output
if TYPE_CHECKING:
    from typing import NoReturn, TypedDict

    class Plan(TypedDict):
        """What the child is to execute.

        command: text for the shell. env: the whole environment. working_dir: None for the present directory.
        stdout, stderr: paths of files, which are appended to; None throws the output away.
        """

        command: str
        env: dict[str, str]
        working_dir: str | None
        stdout: str | None
        stderr: str | None


POLL_SECONDS = 0.1


def signal_group(group: int, number: int) -> bool:
    """Send a signal to a process group; 0 only asks.

    Parameters:
        group: number of the process group.
        number: the signal.

    Returns:
        False if there is no process in the group.
    """
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # what is left in it belongs to somebody else: a setuid program
    return True


class Child:
    """A process that waits, in a session and process group of its own, for the command that it becomes.

    So the process group has its number before JSM is asked what to run. If the worker dies before it tells
    the command, the child ends without having done anything.

    Attributes:
        pid: process id, and number of the process group.
        news: file descriptor that becomes readable when :meth:`hear` has something to read.
        stderr_start: size of the file of standard error before the command began, bytes.
        failure: why the command could not be started; empty if it was.
    """

    def __init__(self) -> None:
        plan_read, self._plan_write = os.pipe()
        self.news, news_write = os.pipe()
        self.stderr_start = 0
        self.failure = ""
        self._heard = b""
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._plan_write)
            os.close(self.news)
            _become(plan_read, news_write)
        os.close(plan_read)
        os.close(news_write)

    @property
    def descriptors(self) -> tuple[int, int]:
        """The worker's ends of the pipes; no other process may hold them."""
        return self._plan_write, self.news

    def execute(self, plan: Plan) -> None:
        """Tell the child what to become; once.

        Parameters:
            plan: the command and what belongs to it.
        """
        data = json.dumps(plan).encode()
        with contextlib.suppress(BrokenPipeError):  # it was killed; who waits for it sees that
            while data:
                data = data[os.write(self._plan_write, data) :]
        os.close(self._plan_write)

    def hear(self) -> bool:
        """Read what the child says. False when it has said all: then it is the command, or has failed."""
        part = os.read(self.news, 65536)
        self._heard += part
        if part:
            return True
        os.close(self.news)
        start, _, self.failure = self._heard.decode("utf-8", "replace").partition("\n")
        self.stderr_start = int(start or 0)
        return False


class StartError(Exception):
    """The command cannot be started."""


def _become(plan_read: int, news_write: int) -> NoReturn:
    """The child's whole life until it is the command."""
    told = False
    try:
        os.setsid()
        # Python ignores the first two and catches the third; the command is to find them as usual.
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
            if number != signal.SIGINT or signal.getsignal(number) != signal.SIG_IGN:
                signal.signal(number, signal.SIG_DFL)
        data = b""
        while part := os.read(plan_read, 65536):
            data += part
        if not data:
            os._exit(0)  # the worker died
        plan: Plan = json.loads(data)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if plan["working_dir"] is not None:
            try:
                os.chdir(plan["working_dir"])
            except OSError as error:
                raise StartError(f"working directory {plan['working_dir']}: {error.strerror}") from None
        _append(plan["stdout"], 1)
        _append(plan["stderr"], 2)
        start = os.fstat(2).st_size
        # UTF-8 whatever the locale is: what the database has is what is run
        arguments = [SHELL.encode(), b"-c", plan["command"].encode()]
        os.write(news_write, f"{start}\n".encode())
        told = True
        os.execve(SHELL, arguments, plan["env"])  # closes all that is not 0, 1 or 2, the news too
    except BaseException as error:
        if isinstance(error, OSError):
            text = error.strerror or str(error)
        else:
            text = str(error) or type(error).__name__
        try:
            message = f"{'' if told else chr(10)}the command cannot be started: {text}"
            os.write(news_write, message.encode("utf-8", "replace"))
        finally:
            os._exit(1)


def _append(path: str | None, descriptor: int) -> None:
    """Make a file descriptor lead to an output file."""
    if path is None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        return
    try:
        with open_output(path) as file:
            os.dup2(file.fileno(), descriptor)
    except OSError as error:
        raise StartError(f"output file {path}: {error.strerror}") from None


class Guard:
    """A process that ends the process group if the worker is killed and cannot do it any more.

    The command is in a session of its own, so what kills the worker does not kill it; and an instance whose
    worker is silent is given up and its job run again, which must not happen twice at the same time.

    Parameters:
        child: whose process group it is.
        kill_after: seconds from SIGTERM to SIGKILL.
    """

    def __init__(self, child: Child, kill_after: float) -> None:
        life, self._life_write = os.pipe()
        self._pid = os.fork()
        if self._pid == 0:
            for descriptor in (self._life_write, *child.descriptors):
                os.close(descriptor)
            _guard(life, child.pid, kill_after)
        os.close(life)

    def dismiss(self) -> None:
        """End the guard, once nothing is to be killed any more; before the number of the group is free."""
        with contextlib.suppress(BrokenPipeError):  # somebody killed it
            os.write(self._life_write, b"dismissed")
        os.close(self._life_write)
        os.waitpid(self._pid, 0)


def _guard(life: int, group: int, kill_after: float) -> NoReturn:
    try:
        os.setsid()
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
            signal.signal(number, signal.SIG_IGN)
        null = os.open(os.devnull, os.O_RDWR)
        for descriptor in (0, 1, 2):  # a reader of the worker's output must not wait for the guard
            os.dup2(null, descriptor)
        if not os.read(life, 1):
            signal_group(group, signal.SIGTERM)
            end = time.monotonic() + kill_after
            while signal_group(group, 0) and time.monotonic() < end:
                time.sleep(POLL_SECONDS)
            signal_group(group, signal.SIGKILL)
    finally:
        os._exit(0)
