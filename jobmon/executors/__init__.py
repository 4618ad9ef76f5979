"""Executors: what runs the commands of job instances. Which there are: :func:`make_executor`."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from jobmon.client.errors import JobmonError
from jobmon.executors.base import Executor

GROUP = "jobmon.executors"
# Modules and classes of Jobmon's own; the others are found by their entry points.
_BATCH = {
    "slurm": ("jobmon.executors.slurm", "SlurmScheduler"),
    "sge": ("jobmon.executors.sge", "SgeScheduler"),
}
EXECUTORS = ("local", *_BATCH)


def make_executor(
    name: str, *, max_workers: int | None = None, options: Mapping[str, Any] | None = None
) -> Executor:
    """An executor by its name on the command line.

    Parameters:
        name: ``local``, ``slurm``, ``sge``, or that of an entry point of the group ``jobmon.executors``.
        max_workers: job instances that it takes at a time at most; None: the executor's own default.
        options: of that executor, by name; see docs/executors.md.

    Raises:
        JobmonError: there is no executor of that name, or it has no such option.
    """
    given = dict(options or {})
    if name == "local":
        from jobmon.executors.local import LocalExecutor

        if given:
            raise JobmonError(f"the local executor has no option {next(iter(given))!r}", "It has none.")
        return LocalExecutor(max_workers)
    found: Any
    if name in _BATCH:
        module, attribute = _BATCH[name]
        found = getattr(importlib.import_module(module), attribute)
    else:
        found = _load(name)
    from jobmon.executors.scheduler import Scheduler

    if not (isinstance(found, type) and issubclass(found, Scheduler)):
        made = found(max_workers=max_workers, options=given)
        if not isinstance(made, Executor):
            raise JobmonError(f"executor {name!r}: {found!r} made no Executor", _HOW)
        return made
    from jobmon.executors.batch import BatchExecutor
    from jobmon.executors.batch_options import BatchOptions

    own = [key for key in inspect.signature(found).parameters if key in given]
    scheduler = found(**{key: given.pop(key) for key in own})
    return BatchExecutor(scheduler, max_workers, BatchOptions.parse(given))


def executor_names() -> list[str]:
    """What :func:`make_executor` knows, with the installed ones."""
    return [*EXECUTORS, *sorted({entry.name for entry in entry_points(group=GROUP)} - set(EXECUTORS))]


_HOW = "docs/executors.md says how to write one."


def _load(name: str) -> Any:
    others: dict[str, EntryPoint] = {entry.name: entry for entry in entry_points(group=GROUP)}
    if name not in others:
        raise JobmonError(f"there is no executor {name!r}", f"Executors: {', '.join(executor_names())}.")
    try:
        return others[name].load()
    except (ImportError, AttributeError) as error:
        raise JobmonError(f"executor {name!r} can't be loaded: {error}", _HOW) from None
