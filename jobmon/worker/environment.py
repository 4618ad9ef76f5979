"""What a command finds around it, and what the worker finds around itself. Shared with the local executor."""

from __future__ import annotations

import os
from collections.abc import Mapping

TYPE_CHECKING = False  # see jobmon.worker.output
if TYPE_CHECKING:
    from typing import Any

# Commands run by bash; by sh where there is none.
SHELL = "/bin/bash" if os.path.exists("/bin/bash") else "/bin/sh"

_KEYS = ("job_id", "job_instance_id", "dag_id", "workflow_run_id", "attempt_number")


def job_environment(instance: Mapping[str, Any], jsm: str) -> dict[str, str]:
    """The variables that tell a command what it is; to be added to those it inherits.

    Parameters:
        instance: the job instance as ``claim_jobs`` and ``start_job_instance`` give it. What it has not, or
            has as None, gets no variable.
        jsm: where JSM is, ``host:port``.
    """
    found = {f"JOBMON_{key.upper()}": instance.get(key) for key in _KEYS}
    return {"JOBMON_JSM": jsm, **{name: str(value) for name, value in found.items() if value is not None}}


def find_executor_id(env: Mapping[str, str]) -> str | None:
    """The scheduler's id of the job that this process belongs to: ``17``, ``17_3`` in a Slurm array, ``17.3``
    in a Grid Engine array; None outside of both.

    Parameters:
        env: environment to look in.
    """
    array, task = env.get("SLURM_ARRAY_JOB_ID"), env.get("SLURM_ARRAY_TASK_ID")
    if array and task:
        return f"{array}_{task}"
    if env.get("SLURM_JOB_ID"):
        return env["SLURM_JOB_ID"]
    # JOB_ID alone may be anybody's; Grid Engine always sets both.
    job, task = env.get("JOB_ID"), env.get("SGE_TASK_ID")
    if job and task:
        return job if task == "undefined" else f"{job}.{task}"
    return None
