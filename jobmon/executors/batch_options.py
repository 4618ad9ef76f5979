"""Options of batch executors, and how they are read."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobmon.client.errors import JobmonError

RECONCILE_SECONDS = 10.0
MAX_REJECTIONS = 4
REJECTED_SECONDS = 10.0


@dataclass
class BatchOptions:
    """What can be set; as ``--option KEY=VALUE`` of ``jobmon start distributor``.

    Attributes:
        queue: queue or partition of tasks that name none themselves.
        project: project or account of workflows that name none themselves.
        flags: further words for the submit command.
        reconcile_seconds: seconds between lists of the scheduler's tasks.
        max_rejections: how often a submission may be rejected before its job instances are in error.
        rejected_seconds: until a rejected submission is tried again; then three times that, and so on.
        heartbeat_seconds: of the workers; a lease is four times that.
        batch_dir, worker_host, worker_command: instead of those of the configuration.
    """

    queue: str | None = None
    project: str | None = None
    flags: tuple[str, ...] = ()
    reconcile_seconds: float = RECONCILE_SECONDS
    max_rejections: int = MAX_REJECTIONS
    rejected_seconds: float = REJECTED_SECONDS
    heartbeat_seconds: float = 30.0
    batch_dir: Path | None = None
    worker_host: str | None = None
    worker_command: str | None = None

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> BatchOptions:
        """From texts, as they come from the command line, or values of the right type.

        Raises:
            JobmonError: there is no such option, or its value can't be.
        """
        found = cls()
        for key, value in options.items():
            if key not in cls.__dataclass_fields__:
                known = ", ".join(cls.__dataclass_fields__)
                raise JobmonError(f"there is no option {key!r}", f"Options of a batch executor: {known}.")
            try:
                setattr(found, key, _PARSERS[key](value))
            except (TypeError, ValueError) as error:
                raise JobmonError(f"option {key}: {error}") from None
        return found


def word(value: Any) -> str | None:
    """A text, or None.

    Raises:
        ValueError: it is none.
    """
    if value is None:
        return None
    if not isinstance(value, str) or not value.strip() or not value.isprintable():
        raise ValueError(f"expected a text, not {value!r}")
    return value.strip()


def words(value: Any) -> tuple[str, ...]:
    """Words, from a list or as in a shell.

    Raises:
        ValueError: they are none.
    """
    words = shlex.split(value) if isinstance(value, str) else list(value or ())
    if not all(isinstance(word, str) and word and word.isprintable() for word in words):
        raise ValueError(f"expected words for the submit command, not {value!r}")
    return tuple(words)


def _seconds(value: Any) -> float:
    number = float(value)
    if not 0.1 <= number <= 86_400:
        raise ValueError(f"expected a number of seconds from 0.1 to 86400, not {value!r}")
    return number


def _count(value: Any) -> int:
    number = int(value)
    if number < 1:
        raise ValueError(f"expected a whole number from 1 on, not {value!r}")
    return number


_PARSERS: Mapping[str, Any] = {
    "queue": word,
    "project": word,
    "flags": words,
    "reconcile_seconds": _seconds,
    "max_rejections": _count,
    "rejected_seconds": _seconds,
    "heartbeat_seconds": _seconds,
    "batch_dir": lambda value: Path(os.path.expanduser(value)).absolute(),
    "worker_host": word,
    "worker_command": word,
}
