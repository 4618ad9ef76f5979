"""What stands around one supervised process: no orphans before it, none after it.

`python -m jobmon.supervised -- command ...` becomes `command`, after it has
- asked the kernel (Linux) for a SIGTERM when the supervisor dies, which supervisord itself does not offer:
  a supervisor killed by SIGKILL takes its services along, and they end cleanly;
- ended what an earlier, killed process of the same service left behind (a database server, HTTP workers):
  it would hold the port and the data directory.

`python -m jobmon.supervised --keep -- command ...` runs the command as a child, and again whenever a signal
killed it: that is for the supervisor itself.

Processes know each other by the environment variable JOBMON_SERVICE, `<supervisor's directory>:<name>`,
which children inherit; so nothing else is ever touched. A process that changes its title (setproctitle) loses
what others see of its environment; it is known by its working directory, `<directory>/work/<name>`.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import FrameType

import psutil

TAG = "JOBMON_SERVICE"
# "true" tells a supervisor that comes in the place of a killed one to start all programs at once.
AUTOSTART = "JOBMON_AUTOSTART"
PR_SET_PDEATHSIG = 1  # linux/prctl.h


def find(wanted: Callable[[str], bool]) -> list[psutil.Process]:
    """The processes of this user (as root: of anyone) whose JOBMON_SERVICE fits, without this one and its
    ancestors.

    Args:
        wanted: takes the variable's value and says whether it fits.
    """
    own = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        if process.pid in own:
            continue
        try:
            tag = _tag(process)
            if tag is not None and wanted(tag) and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
        except (psutil.Error, OSError):  # gone, or another user's
            continue
    return found


def work_directory(directory: Path, name: str) -> Path:
    """The working directory of the process `name` of the supervisor in `directory`."""
    return directory / "work" / name


def _tag(process: psutil.Process) -> str | None:
    environ = process.environ()
    if TAG in environ or "PATH" in environ:  # readable: a person's shell in that directory is none of ours
        return environ.get(TAG)
    place = Path(process.cwd())
    return f"{place.parent.parent}:{place.name}" if place.parent.name == "work" else None


def end(processes: Iterable[psutil.Process], seconds: float) -> list[psutil.Process]:
    """Ask the processes to end (SIGTERM), wait, and kill those that do not.

    Args:
        processes: what to end.
        seconds: how long to wait before SIGKILL.

    Returns:
        Those that are still there (another user's, or stuck in the kernel).
    """
    processes = list(processes)
    for process in processes:
        try:
            process.terminate()
        except psutil.Error:
            continue
    _, alive = psutil.wait_procs(processes, timeout=seconds)
    for process in alive:
        try:
            process.kill()
        except psutil.Error:
            continue
    _, alive = psutil.wait_procs(alive, timeout=5)
    return alive


def die_with_parent() -> None:
    """Let the kernel send SIGTERM to this process when its parent dies.

    Only Linux can; elsewhere nothing happens.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)


def keep(command: list[str]) -> int:
    """Run the command; if a signal kills it, run it again, after 1 to 30 s. SIGTERM ends both.

    Args:
        command: program and arguments.

    Returns:
        The command's exit code, when it ends by itself or is told to.
    """
    child: subprocess.Popen[bytes] | None = None
    stopping = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        stopping.set()
        if child is not None:
            child.terminate()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    delay = 1.0
    while not stopping.is_set():
        began = time.monotonic()
        child = subprocess.Popen(command)
        if stopping.is_set():  # told so in the moment before `child` was known
            child.terminate()
        code = child.wait()
        if stopping.is_set() or code >= 0:
            return max(code, 0)
        print(f"{command[0]} was killed by signal {-code}: starting it again", file=sys.stderr, flush=True)
        stopping.wait(delay)
        delay = 1.0 if time.monotonic() > began + 60 else min(2 * delay, 30.0)
        os.environ[AUTOSTART] = "true"
    return 0


def main(arguments: list[str]) -> int:
    """Become the command after `--`, or keep it; see the module's text."""
    keeping = arguments[:1] == ["--keep"]
    command = arguments[keeping:]
    command = command[1:] if command[:1] == ["--"] else command
    if not command:
        print("Usage: python -m jobmon.supervised [--keep] -- COMMAND [ARGUMENT]...", file=sys.stderr)
        return 2
    if keeping:
        return keep(command)
    parent = os.getppid()
    die_with_parent()
    if os.getppid() != parent:  # it died just before it could be watched
        return 1
    tag = os.environ.get(TAG)
    if tag is not None:
        left = find(lambda other: other == tag)
        if left:
            print(
                f"Ending {len(left)} process(es) left by an earlier start of this service",
                file=sys.stderr,
                flush=True,
            )
            end(left, seconds=60)
    try:
        os.execvp(command[0], command)
    except OSError as error:
        print(f"Error: {command[0]}: {error.strerror}", file=sys.stderr)
        return 127


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
