"""The tasks of a workflow and their edges: checked, put in order, digested, and cut into calls."""

from __future__ import annotations

import graphlib
import hashlib
from collections.abc import Iterable, Iterator
from typing import Any

from jobmon.client.errors import CyclicWorkflow, DuplicateTask, InvalidWorkflow, MissingUpstream
from jobmon.client.tasks import Task

BATCH_JOBS = 1000  # jobs that go in one call
BATCH_BYTES = 4_000_000  # about; the services take four times that
MAX_EDGES = 10_000  # upstreams of a job that go in one call
SHOWN = 10  # names in a message


class TaskDag:
    """A set of tasks and their edges."""

    def __init__(self) -> None:
        self.tasks: dict[int, Task] = {}

    def __len__(self) -> int:
        return len(self.tasks)

    def add_task(self, task: Task) -> None:
        """Add a task; adding the same object again changes nothing.

        Raises:
            InvalidWorkflow: it is no task.
            DuplicateTask: another task has the same command.
        """
        if not isinstance(task, Task):
            raise InvalidWorkflow(
                f"A workflow is made of tasks, not of {type(task).__name__}", "BashTask(...)"
            )
        there = self.tasks.setdefault(task.job_hash, task)
        if there is not task:
            raise DuplicateTask(
                f"{task} has the same command as {there}: {_cut(task.command)}",
                "A task's command is its identity: tell them apart by an argument, or by env_variables.",
            )

    def ordered(self) -> list[Task]:
        """The tasks, each after its upstreams; in the order in which they were added, where that allows it.

        Raises:
            InvalidWorkflow: there are no tasks.
            MissingUpstream: an upstream was not added.
            CyclicWorkflow: tasks wait for each other.
        """
        if not self.tasks:
            raise InvalidWorkflow("The workflow has no tasks", "workflow.add_tasks([...])")
        in_order = True
        seen: set[Task] = set()
        for task in self.tasks.values():
            for upstream in task._upstreams:
                if upstream not in seen:
                    in_order = False
                    if self.tasks.get(upstream.job_hash) is not upstream:
                        raise self._missing(task, upstream)
            seen.add(task)
        if in_order:
            return list(self.tasks.values())
        graph = {task: task._upstreams for task in self.tasks.values()}
        try:
            return list(graphlib.TopologicalSorter(graph).static_order())
        except graphlib.CycleError as error:
            names = [repr(task.name) for task in error.args[1]]
            if len(names) > SHOWN + 1:
                names[SHOWN:-1] = [f"... {len(names) - SHOWN - 1} more ..."]
            raise CyclicWorkflow(
                f"Tasks wait for each other in a circle: {' -> '.join(names)}",
                "Take one of these upstreams away.",
            ) from None

    def _missing(self, task: Task, upstream: Task) -> MissingUpstream:
        twin = self.tasks.get(upstream.job_hash)
        if twin is None:
            hint = f"workflow.add_task(...) it, with its own upstreams, or take it from {task.name!r}'s."
        else:
            hint = f"{twin} has the same command and is in the workflow: make that one the upstream."
        return MissingUpstream(f"{task} waits for {upstream}, which is not in the workflow", hint)

    def digest(self) -> str:
        """The dag_hash, as emu makes it: SHA-1 of the tasks' hashes in order, each with its downstreams'."""
        downstreams: dict[int, list[int]] = {job_hash: [] for job_hash in sorted(self.tasks)}
        for job_hash, task in self.tasks.items():
            for upstream in task._upstreams:
                downstreams[upstream.job_hash].append(job_hash)
        sha = hashlib.sha1()
        for job_hash, after in downstreams.items():
            sha.update(b"%x" % job_hash)
            if after:
                after.sort()
                sha.update(b"".join([b"%x" % downstream for downstream in after]))
        return sha.hexdigest()


def batches(tasks: Iterable[Task]) -> Iterator[list[dict[str, Any]]]:
    """What ``add_jobs`` takes, call by call.

    A job with very many upstreams stands in several calls, each with a part of them.

    Parameters:
        tasks: each after its upstreams.
    """
    batch: list[dict[str, Any]] = []
    size = 0
    for task in tasks:
        upstreams = [str(upstream.job_hash) for upstream in task._upstreams]
        for start in range(0, len(upstreams) or 1, MAX_EDGES):
            part = upstreams[start : start + MAX_EDGES]
            needed = 300 + len(task.command) + len(task.name) + 60 * len(part) + len(task.context_args or "")
            # a job can't stand twice in one call
            if batch and (start or len(batch) == BATCH_JOBS or size + needed > BATCH_BYTES):
                yield batch
                batch, size = [], 0
            batch.append(_job(task, part))
            size += needed
    if batch:
        yield batch


def _job(task: Task, upstream_job_hashes: list[str]) -> dict[str, Any]:
    job: dict[str, Any] = {
        "name": task.name,
        "job_hash": str(task.job_hash),
        "command": task.command,
        "slots": task.slots,
        "mem_free": task.mem_free,
        "max_attempts": task.max_attempts,
    }
    if task.max_runtime is not None:
        job["max_runtime"] = task.max_runtime
    for resource, scale in task.resource_scales.items():
        job[f"{resource}_scale"] = scale
    if task.tag is not None:
        job["tag"] = task.tag
    if task.context_args is not None:
        job["context_args"] = task.context_args
    if upstream_job_hashes:
        job["upstream_job_hashes"] = upstream_job_hashes
    if task.job_attributes:
        job["attributes"] = [
            {"attribute_type": number, "value": value} for number, value in task.job_attributes.items()
        ]
    return job


def _cut(text: str) -> str:
    return text if len(text) <= 200 else text[:197] + "..."
