"""What came of a workflow run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from jobmon.client.requester import Requester

JOB_LABELS: Mapping[str, str] = {
    "G": "REGISTERED",
    "Q": "QUEUED_FOR_INSTANTIATION",
    "I": "INSTANTIATED",
    "R": "RUNNING",
    "E": "ERROR_RECOVERABLE",
    "F": "ERROR_FATAL",
    "D": "DONE",
}
RUN_LABELS: Mapping[str, str] = {"R": "RUNNING", "S": "STOPPED", "E": "ERROR", "D": "DONE"}
MAX_ERRORS = 1000  # failed jobs that a result lists
MAX_WHOLE = 20  # of these, how many with their whole message
CUT_AT = 1000  # characters of a message in the view of jobs
SHOWN = 10  # failed jobs that a result shows as text


@dataclass(frozen=True)
class FailedJob:
    """A job that has failed for good.

    Attributes:
        job_id: the job.
        name: its task's name.
        num_attempts: how often it was tried in this run.
        message: the last attempt's error. Of the first 20 failed jobs it is whole, of others it is cut to its
            first 1,000 characters.
    """

    job_id: int
    name: str
    num_attempts: int
    message: str

    def __str__(self) -> str:
        lines = [line.strip() for line in self.message.splitlines() if line.strip()]
        # the head says how it ended, the end is where programs say why
        short = ": ".join(dict.fromkeys((lines[0], lines[-1]))) if lines else "no message"
        return f"{self.name} (attempt {self.num_attempts}): {short}"


@dataclass(frozen=True)
class WorkflowResult:
    """What came of a workflow run; true if it succeeded.

    Attributes:
        status: DONE (every job is), ERROR (at least one is not), STOPPED (by somebody), or RUNNING.
        counts: label of a job status -> number of jobs in it, where there are any.
        errors: the jobs that failed for good, the first 1,000.
        workflow_id: the workflow.
        workflow_run_id: this run of it.
        dag_id: its jobs' dag.
        name: the workflow's name.
        seconds: from the call to its end.
        note: more about the status, or "".
    """

    status: str
    counts: dict[str, int]
    errors: list[FailedJob] = field(repr=False)
    workflow_id: int
    workflow_run_id: int
    dag_id: int
    name: str
    seconds: float
    note: str = ""

    def __bool__(self) -> bool:
        return self.status == "DONE"

    def __str__(self) -> str:
        total = sum(self.counts.values())
        others = "".join(f", {number} {label}" for label, number in self.counts.items() if label != "DONE")
        lines = [
            f"Workflow {self.workflow_id} {self.name!r}, run {self.workflow_run_id}: {self.status}"
            + (f" ({self.note})" if self.note else ""),
            f"{self.counts.get('DONE', 0)} of {total} jobs DONE{others}; {self.seconds:.1f} s",
        ]
        lines += [f"  {failed}" for failed in self.errors[:SHOWN]]
        rest = self.counts.get("ERROR_FATAL", 0) - SHOWN
        if rest > 0:
            lines.append(f"  ... and {rest} more")
        return "\n".join(lines)


def by_label(counts: Mapping[str, int]) -> dict[str, int]:
    """Counts by letter as counts by label, in the order of a job's life."""
    return {label: counts[letter] for letter, label in JOB_LABELS.items() if counts.get(letter)}


def read_errors(requester: Requester, dag_id: int) -> list[FailedJob]:
    """The jobs of a dag that failed for good.

    Raises:
        RequestRefused, ServiceUnavailable: as in :meth:`Requester.get`.
    """
    rows = requester.get("jobs", dag_id=dag_id, status="ERROR_FATAL", limit=MAX_ERRORS)["jobs"]
    return [
        FailedJob(
            job_id=row["job_id"],
            name=row["name"],
            num_attempts=row["num_attempts"],
            message=_message(requester, row, number < MAX_WHOLE),
        )
        for number, row in enumerate(rows)
    ]


def _message(requester: Requester, row: dict[str, Any], whole: bool) -> str:
    message: str = row["last_error"] or ""
    if whole and len(message) >= CUT_AT:
        found = requester.get("job_errors", job_instance_id=row["newest_job_instance_id"])["job_errors"]
        # an older service knows no severity, and no warnings
        errors = [error for error in found if error.get("severity") != "warning"]
        if errors:
            message = errors[0]["description"]
    return message
