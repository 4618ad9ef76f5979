"""Slurm as a scheduler: sbatch, squeue, sacct, scancel (from 20.02 on; written against 22.05).

What ends up where is written in docs/executors.md. The formats are those of the commands' manual pages.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Literal

from jobmon.executors.scheduler import (
    MOST_IDS,
    NAME_PREFIX,
    Ended,
    Listed,
    Output,
    Scheduler,
    SchedulerSilentError,
    Submission,
    SubmissionRejectedError,
    require_commands,
    run_command,
    size_text,
)

COMMANDS = ("sbatch", "squeue", "sacct", "scancel")

# What sbatch says when it does not know whether the controller has taken the job, or was not heard at all.
_SILENT = re.compile(
    r"unable to contact|timed out|zero bytes|not respond|connect failure|connection refused|authentication"
    r"|credential|communication|temporarily unable|unable to establish|persist|sleeping and retry"
    r"|in standby|controller.*(down|backup)|munge",
    re.IGNORECASE,
)
# Limits on what a user has in the queue; the same words stand for limits of a single job.
_FULL = re.compile(r"violates accounting/QOS policy|submit limit|MaxSubmit|job limit", re.IGNORECASE)
_TAKEN = re.compile(r"^(\d+)(;\S+)?\s*$", re.MULTILINE)

_WAITING = frozenset({"PENDING", "REQUEUED", "REQUEUE_HOLD", "REQUEUE_FED", "SPECIAL_EXIT", "RESV_DEL_HOLD"})
_NOT_OVER = _WAITING | frozenset(
    {"RUNNING", "COMPLETING", "CONFIGURING", "RESIZING", "SUSPENDED", "STOPPED", "SIGNALING", "STAGE_OUT"}
)
# Reasons for waiting, as squeue has them.
_STUCK = re.compile(r"launch failed|BadConstraints|DependencyNeverSatisfied|requeued held|JobArrayTaskLimit0")
_DOUBTFUL = re.compile(
    r"^(Partition(Config|NodeLimit|TimeLimit)|Invalid(Account|QOS)|JobHeld(Admin|User)"
    r"|(Assoc|QOS)(Max|Min)\w*PerJob\w*|AccountNotAllowed|QOSNotAllowed|AccountingPolicy)$"
)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40, "P": 1 << 50}
_SACCT = (
    "JobID", "JobName", "State", "ExitCode", "ElapsedRaw", "MaxRSS", "ReqMem", "AllocCPUS", "TotalCPU",
    "Timelimit", "NodeList",
)  # fmt: skip
_SQUEUE = "JobArrayID:|,State:|,exit_code:|,Name:|"


class SlurmScheduler(Scheduler):
    """Slurm, by its commands, as they are found by ``PATH``. A job of one task is no array."""

    name = "SlurmExecutor"
    label = "Slurm"

    def check(self) -> None:
        """See that the commands are there.

        Raises:
            JobmonError: one is not.
        """
        require_commands(
            COMMANDS,
            self.label,
            "Run this on a host from which jobs can be submitted; sacct needs Slurm's accounting.",
        )

    def submit(self, submission: Submission) -> Sequence[str]:
        """Submit with ``sbatch``; the script goes in by standard input."""
        output = run_command(
            ["sbatch", *self._arguments(submission)], stdin=self._script(submission), env=_environment()
        )
        if output.status != 0:
            if _SILENT.search(output.stderr):
                raise SchedulerSilentError(f"sbatch: {output.words}")
            raise SubmissionRejectedError(output.words, full=bool(_FULL.search(output.stderr)))
        taken = _TAKEN.search(output.stdout)
        if taken is None:
            raise SchedulerSilentError(f"sbatch gave no job id: {output.words}")
        if submission.size == 1:
            return [taken[1]]
        return [f"{taken[1]}_{task}" for task in range(submission.size)]

    def list_tasks(self) -> Sequence[Listed]:
        """List with ``squeue``: one line for each task, those of arrays one by one."""
        # The name is last: it may be anything.
        output = _run("squeue", "-h", "-r", "-u", str(os.getuid()), "-o", "%i|%T|%r|%j")
        found = []
        for line in output.stdout.splitlines():
            fields = line.strip().split("|", 3)
            if len(fields) != 4:
                raise SchedulerSilentError(f"squeue: not understood: {line[:200]!r}")
            executor_id, state, reason, name = fields
            if name.startswith(NAME_PREFIX):
                found.append(_listed(executor_id, state, reason, name))
        return found

    def ended(self, executor_ids: Collection[str]) -> Mapping[str, Ended]:
        """Look up with ``sacct``; what it does not have yet, in what ``squeue`` still remembers."""
        found: dict[str, Ended] = {}
        silent = None
        for part in _parts(executor_ids):
            try:
                found |= self._from_sacct(part)
            except SchedulerSilentError as error:  # the accounting is another daemon than the controller
                if "accounting storage is disabled" not in str(error).lower():
                    silent = error
        for part in _parts([executor_id for executor_id in executor_ids if executor_id not in found]):
            found |= self._from_squeue(part)
        if silent is not None and len(found) < len(set(executor_ids)):
            raise SchedulerSilentError(str(silent), ended=found)
        return found

    def cancel(self, executor_ids: Collection[str]) -> None:
        """Cancel with ``scancel``."""
        for part in _parts(executor_ids):
            output = run_command(["scancel", *part])
            # One that is over already is said to be invalid.
            if output.status != 0 and not re.search(r"invalid job id|already complet", output.stderr, re.I):
                raise SchedulerSilentError(f"scancel: {output.words}")

    # Parts --------------------------------------------------------------------------------------------------

    def _arguments(self, submission: Submission) -> list[str]:
        resources = submission.resources
        words = [
            "--parsable",
            "--no-requeue",  # a retry is another job instance
            f"--job-name={submission.name}",
            f"--output={submission.log_dir}/{'0' if submission.size == 1 else '%a'}.log",
            "--open-mode=append",
            "--ntasks=1",
            f"--cpus-per-task={resources.slots}",
        ]
        if submission.size > 1:
            words.append(f"--array=0-{submission.size - 1}")
        if resources.mem_free:
            words.append(f"--mem={resources.mem_free}G")
        if resources.max_runtime is not None:
            words.append(f"--time={-(-resources.max_runtime // 60)}")  # minutes
        if resources.queue:
            words.append(f"--partition={resources.queue}")
        if resources.project:
            words.append(f"--account={resources.project}")
        return [*words, *resources.flags]

    def _script(self, submission: Submission) -> str:
        return f"#!/bin/bash\nJOBMON_TASK=${{SLURM_ARRAY_TASK_ID:-0}}\n{submission.command}"

    def _from_sacct(self, executor_ids: Sequence[str]) -> dict[str, Ended]:
        # -X is not given: the memory stands on the lines of the steps, which follow that of their job.
        output = _run("sacct", "-n", "-P", "-j", ",".join(executor_ids), f"--format={','.join(_SACCT)}")
        wanted = set(executor_ids)
        jobs: dict[str, list[dict[str, str]]] = {}
        for line in output.stdout.splitlines():
            fields = line.split("|")
            if len(fields) != len(_SACCT):
                raise SchedulerSilentError(f"sacct: not understood: {line[:200]!r}")
            row = dict(zip(_SACCT, fields, strict=True))
            executor_id = row["JobID"].partition(".")[0]
            if executor_id in wanted:
                jobs.setdefault(executor_id, []).append(row)
        found = {}
        for executor_id, rows in jobs.items():
            if rows[0]["State"].split(" ")[0] not in _NOT_OVER:
                found[executor_id] = _ended(executor_id, rows)
        return found

    def _from_squeue(self, executor_ids: Sequence[str]) -> dict[str, Ended]:
        """Those that ended within MinJobAge (by default 5 minutes), as the controller has them."""
        output = run_command(["squeue", "-h", "-r", "-t", "all", "-j", ",".join(executor_ids), "-O", _SQUEUE])
        if output.status != 0:
            if "invalid job id" in output.stderr.lower():
                return {}
            raise SchedulerSilentError(f"squeue: {output.words}")
        found = {}
        for line in output.stdout.splitlines():
            fields = line.strip().split("|")
            if len(fields) < 4:
                raise SchedulerSilentError(f"squeue: not understood: {line[:200]!r}")
            executor_id, state, status, name = fields[:4]
            if executor_id in executor_ids and state not in _NOT_OVER:
                number = int(status) if status.isdigit() else 0
                row = dict.fromkeys(_SACCT, "")
                row |= {"JobID": executor_id, "JobName": name, "State": state}
                row["ExitCode"] = f"{number >> 8}:{number & 0x7F}"
                found[executor_id] = _ended(executor_id, [row])
        return found


def _environment() -> dict[str, str]:
    """The environment that jobs inherit (sbatch's default): without settings of Jobmon, which the worker
    reads from a file, and without those of a Slurm job that this may run in.
    """
    kept = ("SLURM_CONF", "SLURM_CLUSTERS")
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("JOBMON_") and (not name.startswith("SLURM_") or name in kept)
    }


def _run(*words: str) -> Output:
    output = run_command(words)
    if output.status != 0:
        raise SchedulerSilentError(f"{words[0]}: {output.words}")
    return output


def _parts(executor_ids: Collection[str]) -> Iterator[list[str]]:
    ids = sorted(set(executor_ids))
    for start in range(0, len(ids), MOST_IDS):
        yield ids[start : start + MOST_IDS]


def _task(executor_id: str) -> int:
    text = executor_id.partition("_")[2]
    return int(text) if text.isdigit() else 0


def _listed(executor_id: str, state: str, reason: str, name: str) -> Listed:
    kind: Literal["pending", "running", "stuck"] = "pending" if state in _WAITING else "running"
    if kind == "running" or reason in ("None", ""):
        reason = ""
    if kind == "pending" and _STUCK.search(reason):
        kind = "stuck"
    doubtful = kind == "pending" and bool(_DOUBTFUL.search(reason))
    return Listed(executor_id, name, _task(executor_id), kind, reason, doubtful)


def _ended(executor_id: str, rows: Sequence[Mapping[str, str]]) -> Ended:
    """From the lines of a job and its steps."""
    job = rows[0]
    state = job["State"].split(" ")[0]
    states = {row["State"].split(" ")[0] for row in rows}
    code, _, signal = job["ExitCode"].partition(":")
    used = max((_bytes(row["MaxRSS"]) or 0 for row in rows), default=0)
    asked = _asked(job)
    killed = signal == "9" or code == "137"
    exceeded: Literal["mem_free", "max_runtime"] | None = None
    if state == "TIMEOUT":
        exceeded = "max_runtime"
    elif state != "COMPLETED" and (
        "OUT_OF_MEMORY" in states or (killed and asked is not None and used >= asked)
    ):
        exceeded = "mem_free"
    words = [f"Slurm job {executor_id}: {job['State']}"]
    if exceeded == "mem_free":
        words.append("memory limit exceeded")
    if (code, signal) not in (("0", "0"), ("", "")):
        words.append(f"exit code {code}" if signal in ("0", "") else f"exit code {code}, signal {signal}")
    if exceeded == "mem_free" or used:
        words.append(f"memory {size_text(used)} of {size_text(asked)}")
    if job["ElapsedRaw"].isdigit():
        limit = f" of {job['Timelimit']}" if job["Timelimit"][:1].isdigit() else ""
        words.append(f"ran {job['ElapsedRaw']} s{limit}")
    if job["NodeList"] not in ("", "None assigned"):
        words.append(f"on {job['NodeList']}")
    usage = {}
    if job["ElapsedRaw"].isdigit():
        usage["wallclock"] = job["ElapsedRaw"]
    if used:
        usage["maxvmem"] = f"{used // 1024}K"
    cpu = _seconds(job["TotalCPU"])
    if cpu:
        usage["cpu"] = f"{cpu:.3f}"
    return Ended(
        name=job["JobName"],
        task=_task(executor_id),
        status="E" if exceeded is None else "Z",
        message=", ".join(words) + "; its worker did not report the end",
        exceeded=exceeded,
        usage=usage,
    )


def _bytes(text: str) -> int | None:
    """``218144K``, ``1.5G``; and ``4Gn`` or ``2Gc`` of older versions without what that is per."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTP]?)[nc]?", text)
    return int(float(found[1]) * _UNITS[found[2]]) if found else None


def _asked(job: Mapping[str, str]) -> int | None:
    """The memory that a job asked for, bytes."""
    size = _bytes(job["ReqMem"])
    if size and job["ReqMem"].endswith("c") and job["AllocCPUS"].isdigit():  # per CPU, before 21.08
        size *= max(1, int(job["AllocCPUS"]))
    return size or None


def _seconds(text: str) -> float:
    """``1-02:03:04``, ``02:03:04`` or ``00:00.401``, in seconds."""
    days, _, rest = text.rpartition("-")
    try:
        total = 0.0
        for part in rest.split(":"):
            total = total * 60 + float(part)
        return total + 86_400 * int(days or 0)
    except ValueError:
        return 0.0
