"""Grid Engine as a scheduler: qsub, qstat, qacct, qdel (written against 8.1.9, the Son of Grid Engine).

What ends up where is written in docs/executors.md. The formats are those of the manual pages qsub(1),
qstat(1), qacct(1), accounting(5) and of qstat's XML schema.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from jobmon.client.errors import JobmonError
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

COMMANDS = ("qsub", "qstat", "qacct", "qdel")
# qacct reads the whole accounting file for each number; for more of them it is read once.
MOST_LOOKUPS = 20
LOOKUP_DAYS = 3
# Virtual memory of the worker, its guard and the shells, beside that of the command. Most of it is the
# address space that the C library reserves for a thread.
WORKER_MEGABYTES = 128

# What the commands say when they have not heard from the qmaster.
_SILENT = re.compile(
    r"commlib|unable to (contact|send|receive|initialize)|error reading answer|can't (connect|resolve|get)"
    r"|communication|timed? ?out|not reachable|\bgdi (request|error)|qmaster (is|not)|no such cell"
    r"|doesn't exist$|shut ?down|temporar",
    re.IGNORECASE | re.MULTILINE,
)
# What qsub says when it, or the qmaster, takes no such job. Anything else may mean that it was taken. In the
# words of the first kind names may be anything.
_REFUSED = re.compile(
    r"Unable to run job: .*(rejected|unknown (resource|queue)|denied|no suitable)", re.IGNORECASE
)
_REJECTED = re.compile(r"Unable to run job|^qsub: |^ERROR! |^error: |denied:|rejected", re.MULTILINE)
_FULL = re.compile(
    r"only \d+ jobs are allowed|max_u_jobs|max_jobs|exceeds? .*limit|limit .*exceeded", re.IGNORECASE
)
_TAKEN = re.compile(r"^(\d+)\.1-(\d+):1$", re.MULTILINE)
# What qdel says of tasks that it has told to end, or that are over.
_DELETED = re.compile(
    r"has (deleted|registered)|does not exist|do not exist|already in deletion|is already|^\s*$",
    re.IGNORECASE,
)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_RESCHEDULED = frozenset({24, 25})  # codes of failed of a task that begins again
_OVER_A_LIMIT = 37
_KILLED = frozenset({"137", "143"})

# Signals are for the worker, and go to the shell as well: it must outlive them, or Grid Engine takes the task
# for ended. Exit code 99 would have it run again for ever, and 100 make it wait in error; a worker ends with
# them if its command did, which the database knows.
_SCRIPT = """\
JOBMON_TASK=$((SGE_TASK_ID - 1))
trap : HUP INT TERM USR1 USR2 XCPU
(
trap - HUP INT TERM USR1 USR2 XCPU
{command}
)
code=$?
case $code in 99 | 100) exit 1 ;; esac
exit $code
"""


class SgeScheduler(Scheduler):
    """Grid Engine, by its commands, as they are found by ``PATH``. Each submission is an array.

    Parameters:
        parallel_environment: of tasks with several slots; None: the only one whose slots are on one host.
        memory: names, with commas between them, of the resources that ask for memory; "" asks for none.
        memory_per: ``slot``: they count for each slot; ``job``: they don't.
        run_time: names of the resources that limit the run time; "" limits nothing.

    Raises:
        JobmonError: an option can't be.
    """

    name = "SgeExecutor"
    label = "Grid Engine"

    def __init__(
        self,
        *,
        parallel_environment: str | None = None,
        memory: str = "h_vmem",
        memory_per: str = "slot",
        run_time: str = "h_rt",
    ) -> None:
        if memory_per not in ("slot", "job"):
            raise JobmonError(f"option memory_per: expected slot or job, not {memory_per!r}")
        self._parallel_environment = parallel_environment
        self._memory = _names("memory", memory)
        self._memory_per_slot = memory_per == "slot"
        self._run_time = _names("run_time", run_time)
        self._reasons: dict[str, str] = {}  # of tasks that are stuck

    def check(self) -> None:
        """See that the commands are there.

        Raises:
            JobmonError: one is not.
        """
        require_commands(
            COMMANDS,
            self.label,
            "Run this on a host from which jobs can be submitted, with the cell's settings.sh read.",
        )

    def log_file(self, log_dir: Path, task: int) -> Path:
        """Grid Engine numbers tasks from 1 on."""
        return log_dir / f"{task + 1}.log"

    def submit(self, submission: Submission) -> Sequence[str]:
        """Submit with ``qsub``; the script goes in by standard input.

        The task's environment is that of the cell, with nothing of this process's: ``-v`` can be read by all.
        """
        output = run_command(
            ["qsub", *self._arguments(submission)],
            stdin=_SCRIPT.format(command=submission.command.rstrip("\n")),
            env={name: value for name, value in os.environ.items() if not name.startswith("JOBMON_")},
        )
        taken = _TAKEN.search(output.stdout)
        if output.status == 0 and taken is not None and int(taken[2]) == submission.size:
            return [f"{taken[1]}.{task}" for task in range(1, submission.size + 1)]
        said = f"{output.stderr}\n{output.stdout}"
        rejected = _REFUSED.search(said) or (_REJECTED.search(said) and not _SILENT.search(said))
        if output.status != 0 and rejected:
            raise SubmissionRejectedError(_words(output), full=bool(_FULL.search(said)))
        raise SchedulerSilentError(f"qsub: {_words(output)}")

    def list_tasks(self) -> Sequence[Listed]:
        """List with ``qstat``; for tasks that are newly in error another call asks for the reason."""
        output = _run("qstat", "-xml", "-g", "d", "-u", pwd.getpwuid(os.geteuid()).pw_name)
        try:
            found = list(_listed(output.stdout))
        except (ElementTree.ParseError, ValueError) as error:
            raise SchedulerSilentError(f"qstat: not understood: {error}") from None
        return self._with_reasons(found)

    def ended(self, executor_ids: Collection[str]) -> Mapping[str, Ended]:
        """Look up with ``qacct``. Tasks that never began have no record, and the others' may come late."""
        wanted = set(executor_ids)
        numbers = sorted({executor_id.partition(".")[0] for executor_id in wanted})
        found: dict[str, Ended] = {}
        if len(numbers) > MOST_LOOKUPS:
            user = pwd.getpwuid(os.geteuid()).pw_name
            calls = [["-d", str(LOOKUP_DAYS), "-o", user, "-j"]]
        else:
            calls = [["-j", number] for number in numbers]
        for words in calls:
            output = run_command(["qacct", *words])
            if output.status != 0:
                if "not found" in output.stderr:
                    continue
                raise SchedulerSilentError(f"qacct: {_words(output)}", ended=found)
            for record in _records(output.stdout):
                executor_id = _executor_id(record)
                if executor_id in wanted and _code(record) not in _RESCHEDULED:
                    found[executor_id] = self._ended(executor_id, record)  # the newest one is the last
        return found

    def cancel(self, executor_ids: Collection[str]) -> None:
        """Cancel with ``qdel``."""
        words = list(_ranges(executor_ids))
        for start in range(0, len(words), MOST_IDS):
            output = run_command(["qdel", *words[start : start + MOST_IDS]])
            lines = f"{output.stdout}\n{output.stderr}".splitlines()
            if output.status != 0 and not all(_DELETED.search(line) for line in lines):
                raise SchedulerSilentError(f"qdel: {_words(output)}")

    # Parts --------------------------------------------------------------------------------------------------

    def _arguments(self, submission: Submission) -> list[str]:
        resources = submission.resources
        words = ["-terse", "-C", "", "-b", "n", "-sync", "n", "-S", "/bin/bash"]
        words += ["-r", "n"]  # a retry is another job instance
        words += ["-w", "e"]  # what no host could ever run is refused, and does not wait for ever
        words += ["-N", submission.name, "-t", f"1-{submission.size}"]
        words += ["-wd", _directory()]  # else it would be the home directory
        words += ["-j", "y", "-o", f"{submission.log_dir}/$TASK_ID.log"]
        requests = []
        if resources.mem_free:
            megabytes = resources.mem_free * 1024 + WORKER_MEGABYTES
            if self._memory_per_slot:
                megabytes = -(-megabytes // resources.slots)
            requests += [f"{name}={megabytes}M" for name in self._memory]
        if resources.max_runtime is not None:
            requests += [f"{name}={resources.max_runtime}" for name in self._run_time]
        if requests:
            words += ["-l", ",".join(requests)]
        if resources.slots > 1:
            words += ["-pe", self._find_parallel_environment(), str(resources.slots)]
        if resources.queue:
            words += ["-q", resources.queue]
        if resources.project:
            words += ["-P", resources.project]
        return [*words, *resources.flags]

    def _find_parallel_environment(self) -> str:
        """The one that is set, or the only one that gives all slots on one host."""
        if self._parallel_environment is None:
            names = [
                name
                for name in _run("qconf", "-spl").stdout.split()
                if re.search(r"^allocation_rule\s+\$pe_slots\s*$", _run("qconf", "-sp", name).stdout, re.M)
            ]
            if len(names) != 1:
                found = f"there are {', '.join(names)}" if names else "there is none"
                raise SubmissionRejectedError(
                    "several slots need a parallel environment with all slots on one host, and"
                    f" {found}: set the option parallel_environment"
                )
            self._parallel_environment = names[0]
        return self._parallel_environment

    def _with_reasons(self, tasks: Sequence[Listed]) -> list[Listed]:
        stuck = {task.executor_id for task in tasks if task.state == "stuck"}
        unknown = sorted({executor_id.partition(".")[0] for executor_id in stuck - set(self._reasons)})
        if unknown:
            try:
                output = run_command(["qstat", "-j", ",".join(unknown[:MOST_IDS])])
                told = dict(_errors(output.stdout))
            except SchedulerSilentError:
                told = {}
            self._reasons |= {executor_id: told.get(executor_id, "") for executor_id in stuck if told}
        self._reasons = {key: value for key, value in self._reasons.items() if key in stuck}
        return [replace(task, reason=self._reasons.get(task.executor_id) or task.reason) for task in tasks]

    def _ended(self, executor_id: str, record: Mapping[str, str]) -> Ended:
        """From a record of the accounting. ``failed`` 37 is any limit; the figures tell which."""
        category = record.get("category", "")
        slots = int(record["slots"]) if record.get("slots", "").isdigit() else 1
        code, exit_code = _code(record), record.get("exit_status", "").partition(" ")[0]
        ran, used = _number(record.get("ru_wallclock", "")), _number(record.get("maxvmem", ""))
        limit = _seconds(_request(category, (*self._run_time, "h_rt")))
        asked = _number(_request(category, (*self._memory, "h_vmem")) or "")
        asked = asked * slots if asked and self._memory_per_slot else asked
        exceeded: Literal["mem_free", "max_runtime"] | None = None
        if code == _OVER_A_LIMIT or exit_code in _KILLED:
            if limit and ran is not None and ran >= limit:
                exceeded = "max_runtime"
            # The figure is taken now and then; at the limit nobody else has ended it.
            elif asked and used is not None and used >= asked * (0.9 if code == _OVER_A_LIMIT else 1):
                exceeded = "mem_free"
        words = [f"Grid Engine job {executor_id}: {_what(code, record, exit_code, exceeded)}"]
        if used:
            words.append(
                f"virtual memory {size_text(used)} of {size_text(asked)}"
                if asked
                else f"memory {size_text(used)}"
            )
        if ran is not None:
            words.append(f"ran {ran:.0f} s of {limit:.0f} s" if limit else f"ran {ran:.0f} s")
        if record.get("hostname"):
            words.append(f"on {record['hostname']}")
        usage = {}
        if ran is not None:
            usage["wallclock"] = f"{ran:.3f}"
        if used:
            usage["maxvmem"] = f"{used / 1024:.0f}K"
        cpu = _number(record.get("cpu", ""))
        if cpu is not None:
            usage["cpu"] = f"{cpu:.3f}"
        return Ended(
            name=record.get("jobname", ""),
            task=int(executor_id.partition(".")[2] or 1) - 1,
            status="E" if exceeded is None else "Z",
            message=", ".join(words) + "; its worker did not report the end",
            exceeded=exceeded,
            usage=usage,
        )


def _what(code: int | None, record: Mapping[str, str], exit_code: str, exceeded: str | None) -> str:
    if exceeded == "max_runtime":
        return "time limit exceeded"
    if exceeded == "mem_free":
        return "memory limit exceeded"
    if code == 100 and exit_code in _KILLED:
        return f"killed by somebody (qdel, or a signal), exit code {exit_code}"
    if code:
        words = record["failed"].partition(":")[2].strip()
        return f"failed {code}{f' ({words})' if words else ''}, exit code {exit_code or '?'}"
    return f"exit code {exit_code or '?'}"


def _directory() -> str:
    """Where the worker is to be started: where this process is, by the name that the user's shell has for it.

    Raises:
        SubmissionRejectedError: the directory has been removed.
    """
    name = os.environ.get("PWD", "")
    with contextlib.suppress(OSError):
        if os.path.isabs(name) and os.path.samefile(name, "."):
            return name
    try:
        return os.getcwd()
    except OSError as error:
        raise SubmissionRejectedError(f"the present directory is gone: {error.strerror}") from None


def _names(option: str, text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(",") if name.strip())
    if not all(re.fullmatch(r"[A-Za-z_][\w.-]*", name) for name in names):
        raise JobmonError(f"option {option}: expected names of resources, not {text!r}")
    return names


def _run(*words: str) -> Output:
    output = run_command(words)
    if output.status != 0:
        raise SchedulerSilentError(f"{words[0]}: {_words(output)}")
    return output


def _words(output: Output) -> str:
    """Without what qsub says in addition to each refusal."""
    return re.sub(r"(^|; )(Unable to run job: |Exiting\.)", r"\1", output.words).strip("; ")


def _listed(text: str) -> Iterator[Listed]:
    for job in ElementTree.fromstring(text).iter("job_list"):
        number, name = job.findtext("JB_job_number", "").strip(), job.findtext("JB_name", "")
        if not number.isdigit():
            raise ValueError(f"a job has the number {number!r}")
        if not name.startswith(NAME_PREFIX):
            continue
        letters, reason = job.findtext("state", "").strip(), ""
        state: Literal["pending", "running", "stuck"] = "running"
        if "E" in letters:
            state, reason = "stuck", f"error state {letters}"
        elif "q" in letters and not set("rtdsST") & set(letters):
            state, reason = "pending", f"on hold ({letters})" if "h" in letters else ""
        tasks = (job.findtext("tasks") or "").strip()
        for task in _expand(tasks):
            yield Listed(f"{number}.{task}" if tasks else number, name, task - 1, state, reason)


def _expand(tasks: str) -> Iterator[int]:
    """``3``, or ``1,4-9:1`` of versions that show the waiting ones of an array together."""
    for part in (tasks or "1").split(","):
        found = re.fullmatch(r"(\d+)(?:-(\d+)(?::(\d+))?)?", part)
        if found is None:
            raise ValueError(f"tasks {tasks!r}")
        yield from range(int(found[1]), int(found[2] or found[1]) + 1, int(found[3] or 1))


def _errors(text: str) -> Iterator[tuple[str, str]]:
    """Executor ids and reasons, of what ``qstat -j`` says."""
    number = ""
    for line in text.splitlines():
        found = re.match(r"job_number:\s+(\d+)", line)
        number = found[1] if found else number
        found = re.match(
            r"error reason\s+(\d+):\s+(?:[\d/]+ [\d:]+ )?(?:\[[\d:]+\]: )?(?:error: )?(.*)", line
        )
        if found:
            yield f"{number}.{found[1]}", found[2].strip()


def _ranges(executor_ids: Collection[str]) -> Iterator[str]:
    """Words for qdel: ``17.3``, or ``17.3-9:1`` for tasks that follow each other."""
    jobs: dict[str, list[int]] = {}
    for executor_id in executor_ids:
        number, _, task = executor_id.partition(".")
        jobs.setdefault(number, []).extend([int(task)] if task else [])
    for number, tasks in sorted(jobs.items()):
        if not tasks:
            yield number
        ordered = sorted(set(tasks))
        while ordered:
            length = 1
            while length < len(ordered) and ordered[length] == ordered[0] + length:
                length += 1
            last = f"-{ordered[length - 1]}:1" if length > 1 else ""
            yield f"{number}.{ordered[0]}{last}"
            ordered = ordered[length:]


def _records(text: str) -> Iterator[dict[str, str]]:
    record: dict[str, str] = {}
    for line in text.splitlines():
        if line.startswith("======"):
            if record:
                yield record
            record = {}
        else:
            key, _, value = line.partition(" ")
            record[key] = value.strip()
    if record:
        yield record


def _executor_id(record: Mapping[str, str]) -> str:
    number, task = record.get("jobnumber", ""), record.get("taskid", "undefined")
    return f"{number}.{task}" if task.isdigit() else number


def _code(record: Mapping[str, str]) -> int | None:
    found = re.match(r"\d+", record.get("failed", ""))
    return int(found[0]) if found else None


def _request(category: str, names: Sequence[str]) -> str | None:
    """What was asked for of the first of these resources that was asked for."""
    for name in names:
        found = re.search(rf"(?:^|[\s,]){re.escape(name)}=([^\s,]+)", category)
        if found:
            return found[1]
    return None


def _number(text: str) -> float | None:
    """``206.129MB``, ``4s``, ``0.106``; in older versions ``206.129M``. Bytes or seconds."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGTkmgt]?)(?:B|s)?", text)
    return float(found[1]) * _UNITS[found[2].upper()] if found else None


def _seconds(text: str | None) -> float | None:
    """``300``, ``0:5:0``."""
    if text is None or not re.fullmatch(r"\d+(:\d+){0,2}", text):
        return None
    total = 0
    for part in text.split(":"):
        total = total * 60 + int(part)
    return float(total)
