"""What a distributor asks of an executor."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Collection, Sequence
from typing import Any

# A job instance as claim_jobs gives it, and a report as log_events takes it.
JobInstance = dict[str, Any]
Event = dict[str, Any]


class Executor(ABC):
    """Runs job instances. Its methods are called by one distributor, :meth:`kill` by any thread.

    Attributes:
        name: what the database keeps as ``executor_type``.
        wake: set by the executor when the distributor should look at it again.
    """

    name: str

    def __init__(self) -> None:
        self.wake = threading.Event()

    @abstractmethod
    def open(self, jsm: str) -> None:
        """Get ready.

        Parameters:
            jsm: where JSM is, ``host:port``.
        """

    @abstractmethod
    def room(self) -> int:
        """How many more job instances it would take now."""

    @abstractmethod
    def urgent(self) -> bool:
        """Whether a place is free, and the report of an end, which may bring work for it, should not wait."""

    @abstractmethod
    def submit(self, job_instances: Sequence[JobInstance]) -> None:
        """Take job instances, to be run as soon as there is a place.

        Parameters:
            job_instances: as of claim_jobs, and each with ``start_until``: time of the monotonic clock after
                which it must not be started, since its lease may have passed and somebody else have its job.
        """

    def to_renew(self) -> list[int]:
        """The ids of the held job instances whose leases the distributor must renew: by default all."""
        return self.held()

    def renew(self, job_instance_ids: Collection[int], until: float) -> None:  # noqa: B027 (few need it)
        """The leases of job instances were renewed.

        Parameters:
            job_instance_ids: some of those that are held.
            until: their new ``start_until``.
        """

    @abstractmethod
    def num_events(self) -> int:
        """How many reports wait to be collected."""

    @abstractmethod
    def collect(self) -> list[Event]:
        """The reports since the last call, in the order in which things happened."""

    @abstractmethod
    def held(self) -> list[int]:
        """The ids of the job instances it has taken and not yet reported as ended."""

    @abstractmethod
    def stop(self, job_instance_ids: Sequence[int]) -> None:
        """Stop job instances that were given up: they are not reported on any more."""

    @abstractmethod
    def kill(self) -> None:
        """Kill everything; each job instance that this ends is reported as an error."""

    @abstractmethod
    def close(self) -> None:
        """Let go of everything. What still runs is killed."""
