"""A workflow run as the tests of the distributor register it."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Run:
    """A workflow run of a test. jobs: name -> job_id."""

    dag_id: int
    workflow_id: int
    workflow_run_id: int
    jobs: dict[str, int]
