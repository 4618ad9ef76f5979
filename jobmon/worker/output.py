"""A command's output files, and what is told about its end. Shared with the local executor."""

from __future__ import annotations

import os
import signal

# mypy knows the name. The module typing would take a tenth of the time that a worker may need to start.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from io import FileIO
    from resource import struct_rusage
    from typing import IO

TAIL_BYTES = 10_000
MAX_NAME = 100

# A set and not a regular expression: this is imported where every millisecond counts.
_SAFE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-")


def output_path(
    directory: str | os.PathLike[str], name: str | None, letter: str, job_instance_id: int
) -> str:
    """The file that takes an output of a job instance: ``<directory>/<safe name>.<letter><id>``.

    Parameters:
        directory: where it is to be.
        name: the job's name; characters other than letters, digits, ``.``, ``_`` and ``-`` become ``_``, and
            what is over 100 characters is cut. Without a name it is ``job``.
        letter: ``o`` for standard output, ``e`` for standard error.
        job_instance_id: keeps the files of a job's attempts apart.
    """
    safe = "".join(c if c in _SAFE else "_" for c in name or "job")[:MAX_NAME]
    return os.path.join(directory, f"{safe}.{letter}{job_instance_id}")


def open_output(path: str | os.PathLike[str]) -> FileIO:
    """Open an output file, for a command to append to and to read its tail from.

    What is in it stays: ids begin again in a new database, and its instances are not to overwrite what others
    wrote. The directory is made if need be.

    Parameters:
        path: the file.

    Raises:
        OSError: it cannot be opened or made; ``filename`` says what.
    """
    try:
        return open(path, "a+b", buffering=0)
    except FileNotFoundError:
        os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
        return open(path, "a+b", buffering=0)


def read_tail(
    file: str | os.PathLike[str] | int | IO[bytes], limit: int = TAIL_BYTES, *, start: int = 0
) -> str:
    """The end of a file as text, cut at a character, with a first line that says so if it was cut.

    Bytes that are no UTF-8 become U+FFFD. A file that cannot be read gives a line that says why.

    Parameters:
        file: its path, a file descriptor or a binary file; the position of an open one stays.
        limit: bytes at most.
        start: what stands before this offset (bytes) is not looked at.
    """
    if isinstance(file, int):
        return _read_tail(file, limit, start)
    if not isinstance(file, str | os.PathLike):
        return _read_tail(file.fileno(), limit, start)
    try:
        # not to wait for a writer, should somebody have put a FIFO there
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:  # ValueError: the path holds a NUL
        return f"[{os.fspath(file)} cannot be read: {getattr(error, 'strerror', error)}]"
    try:
        return _read_tail(descriptor, limit, start)
    finally:
        os.close(descriptor)


def _read_tail(descriptor: int, limit: int, start: int) -> str:
    try:
        end = os.fstat(descriptor).st_size
        first = max(start, end - limit)
        data = b""
        while len(data) < end - first:
            part = os.pread(descriptor, end - first - len(data), first + len(data))
            if not part:  # it was made shorter meanwhile
                break
            data += part
    except OSError as error:
        return f"[the output cannot be read: {error.strerror}]"
    if first <= start:
        return data.decode("utf-8", "replace")
    # A character has at most 3 bytes that continue it: skip those of the one that was cut.
    skipped = 0
    while skipped < min(3, len(data)) and data[skipped] & 0xC0 == 0x80:
        skipped += 1
    text = data[skipped:].decode("utf-8", "replace")
    return f"[the last {len(data) - skipped} bytes]\n{text}"


def trim(descriptor: int, limit: int) -> None:
    """Make a file that only its end is read of shorter, if it is long; who appends to it need not know.

    What is written in this very moment may be lost.

    Parameters:
        descriptor: the file, opened for reading and appending.
        limit: size in bytes from which on it is done; twice the tail is kept.
    """
    size = os.fstat(descriptor).st_size
    if size > limit:
        kept = os.pread(descriptor, 2 * TAIL_BYTES, size - 2 * TAIL_BYTES)
        os.ftruncate(descriptor, 0)
        os.write(descriptor, kept)


def error_text(reason: int | str, tail: str = "") -> str:
    """What the error log keeps of a command that failed.

    Parameters:
        reason: how it ended: its return code (-n if signal n killed it), or words.
        tail: the end of its standard error.
    """
    if isinstance(reason, int):
        reason = f"killed by {signal_name(-reason)}" if reason < 0 else f"exit code {reason}"
    return f"{reason}\n{tail}" if tail else reason


def signal_name(number: int) -> str:
    """A signal for people: ``signal 9 (SIGKILL)``."""
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:  # real-time signals have no names
        return f"signal {number}"


def usage_fields(wall_seconds: float, rusage: struct_rusage | None) -> dict[str, str]:
    """What a command used, as ``log_usage``, ``log_done`` and the others take it.

    Parameters:
        wall_seconds: time from its start to its end, seconds.
        rusage: of ``os.wait4``; counts the processes that the command waited for, too. None if there is none.

    Returns:
        ``wallclock`` and ``cpu`` (user and system) in seconds, ``maxvmem`` (largest resident set of one
        process) in KiB as ``2048K``, ``io`` in blocks read and written as ``8+16``.
    """
    fields = {"wallclock": f"{wall_seconds:.3f}"}
    if rusage is not None:
        fields["cpu"] = f"{rusage.ru_utime + rusage.ru_stime:.3f}"
        fields["maxvmem"] = f"{rusage.ru_maxrss}K"
        fields["io"] = f"{rusage.ru_inblock}+{rusage.ru_oublock}"
    return fields
