"""Workflows and distributors on the real Grid Engine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from batch_helpers import Cluster

from jobmon.executors.sge import SgeScheduler


class SgeCluster(Cluster):
    """The same as on Slurm."""

    executor = "sge"
    scheduler = SgeScheduler()

    def jobs(self) -> list[tuple[str, str]]:
        """Ids and states of this database's tasks in qstat."""
        found = self.scheduler.list_tasks()
        return [(t.executor_id, t.state.upper()) for t in found if f"-{self.database_id}-" in t.name]

    def cancel(self, ids: list[str]) -> None:
        """qdel."""
        self.scheduler.cancel(ids)


def find_qmaster() -> int:
    """The process id of the qmaster; the test is skipped if it is on another host, or somebody else's."""
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and (entry / "comm").read_text() == "sge_qmaster\n":
                os.kill(int(entry.name), 0)
                return int(entry.name)
        except OSError:
            continue
    pytest.skip("sge_qmaster is no process of ours on this host: it can't be stopped")
