"""``jobmon job``: see and steer single jobs."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from jobmon.cli.errors import Group, NotFoundError
from jobmon.cli.output import (
    Column,
    Report,
    Row,
    confirm,
    duration,
    find_job,
    job_argument,
    line,
    make_table,
    moment,
    one_line,
    output_option,
    print_report,
    show,
    status_line,
    watch_option,
    with_requester,
    yes_option,
)

if TYPE_CHECKING:
    from rich.console import RenderableType

    from jobmon.client.requester import Requester

ENDED = frozenset({"DONE", "ERROR_FATAL"})
SHOWN_REASONS = 20
TAIL_LINES = 50  # of an output file that `log` shows with the errors
_BLOCK = 65536  # bytes
_LETTERS = {"stdout": "o", "stderr": "e"}


@click.group(cls=Group)
def job() -> None:
    """See and steer single jobs.

    Exit codes: 0 all is well, 1 it was refused, 2 wrong usage, 3 there is no such job, attempt or file.
    """


# ----------------------------------------------------------------------------------------------------------
# Reading

_INSTANCES = (
    Column("attempt", "attempt_number", right=True),
    Column("instance", "job_instance_id", right=True),
    Column("run", "workflow_run_id", right=True, spare=True),
    Column("status", "status"),
    Column("waited", lambda row: duration(row["wait_seconds"]), right=True, spare=True),
    Column("ran", lambda row: duration(row["run_seconds"]), right=True),
    Column(
        "executor",
        lambda row: " ".join(str(x) for x in (row["executor_type"], row["executor_id"]) if x),
        spare=True,
    ),
    Column("node", "nodename", spare=True),
    Column("maxvmem", "maxvmem", right=True, spare=True),
    Column("cpu", "cpu", right=True, spare=True),
    Column("error", lambda row: one_line(row["error_message"]), folds=True),
)
_HISTORY = (
    Column("time (UTC)", lambda row: moment(row["status_date"])),
    Column("status", "status"),
    Column("attempt", "attempt_number", right=True),
    Column("why", "reason", folds=True),
)


@job.command("show")
@job_argument
@output_option(quiet="nothing")
@watch_option
@with_requester
def show_job(requester: Requester, job_id: int, output: str, watch: float | None) -> None:
    """Show a job, its attempts, and every status it had."""

    def make() -> Report:
        document: dict[str, Any] = {
            "job": find_job(requester, job_id),
            "job_instances": requester.get_rows("job_instances", job_id=job_id),
            "job_history": requester.get_rows("job_history", job_id=job_id),
        }
        return Report(document, lambda: _render_job(document), ended=document["job"]["status"] in ENDED)

    show(make, output, watch)


def _render_job(document: Row) -> Iterator[RenderableType]:
    found = document["job"]
    yield status_line(
        f"Job {found['job_id']} {found['name']!r}: ",
        found["status"],
        f" since {moment(found['status_date'])} UTC, {found['num_attempts']} of {found['max_attempts']}"
        " attempts made",
    )
    facts = [
        f"workflow {found['workflow_id']}" if found["workflow_id"] is not None else "no workflow",
        f"dag {found['dag_id']}" if found["dag_id"] is not None else "no dag",
        f"slots {found['slots']}",
        f"mem_free {found['mem_free']} GB",
    ]
    if found["max_runtime"] is not None:
        facts.append(f"max_runtime {duration(found['max_runtime'])}")
    if found["tag"] is not None:
        facts.append(f"tag {found['tag']!r}")
    if found["upstreams_pending"]:
        facts.append(f"waits for {found['upstreams_pending']} upstream jobs")
    yield line(", ".join(facts))
    yield line(f"command: {found['command']}")
    yield line("")
    yield make_table(_INSTANCES, document["job_instances"], none="It has made no attempt yet.")
    yield line("")
    yield make_table(_HISTORY, document["job_history"], none="")


@job.command("explain")
@job_argument
@output_option(quiet="nothing")
@watch_option
@with_requester
def explain_job(requester: Requester, job_id: int, output: str, watch: float | None) -> None:
    """Say why a job is not running, or what it is doing: which upstreams, which limit, which error."""

    def make() -> Report:
        found = find_job(requester, job_id)
        rows = requester.get_rows("job_explanations", job_id=job_id)

        def render() -> Iterator[RenderableType]:
            yield status_line(f"Job {job_id} {found['name']!r}: ", found["status"])
            for row in rows[:SHOWN_REASONS]:
                yield line(f"{row['reason']}: {row['explanation']}")
            if len(rows) > SHOWN_REASONS:
                yield line(f"... and {len(rows) - SHOWN_REASONS} more")
            yield from _how_to_resume(found, rows)

        return Report(rows, render, ended=found["status"] in ENDED)

    show(make, output, watch)


@job.command("log")
@job_argument
@click.option(
    "--attempt", type=click.IntRange(min=1), metavar="N", help="This attempt [default: the newest]."
)
@click.option("--stdout", "stream", flag_value="stdout", help="Only its standard output, byte for byte.")
@click.option("--stderr", "stream", flag_value="stderr", help="Only its standard error, byte for byte.")
@click.option("--tail", type=click.IntRange(min=0), metavar="N", help="Only the last N lines of each file.")
@output_option(quiet="only what --stdout or --stderr ask for")
@with_requester
def show_log(
    requester: Requester, job_id: int, attempt: int | None, stream: str | None, tail: int | None, output: str
) -> None:
    """Show what an attempt at a job said: its error in the database, and its output files.

    The files are shown if they can be read on this machine; without --tail, of each the last 50 lines, and
    with --stdout or --stderr the whole file.
    """
    found = find_job(requester, job_id)
    instance = _find_instance(requester, job_id, attempt)
    files = _output_files(requester, found, instance)
    if stream is not None:
        _copy(files[stream], stream, instance, tail)
        return
    errors = requester.get_rows("job_errors", job_instance_id=instance["job_instance_id"])
    texts = {name: _read_text(path, TAIL_LINES if tail is None else tail) for name, path in files.items()}
    document = {
        "job_instance": instance,
        "job_errors": errors,
        "files": {name: {"path": path, "text": texts[name]} for name, path in files.items()},
    }

    def render() -> Iterator[RenderableType]:
        yield status_line(
            f"Job {job_id} {found['name']!r}, attempt {instance['attempt_number']}, job instance"
            f" {instance['job_instance_id']}: ",
            instance["status"],
            f" on {instance['nodename']}" if instance["nodename"] else "",
        )
        for error in errors:
            yield line(f"\n{error.get('severity', 'error')} of {moment(error['error_time'])} UTC:")
            yield line(error["description"])
        for name, path in files.items():
            yield line(f"\n{name}: {path or 'not kept: its run has no directory for it'}")
            if path is not None:
                text = texts[name]
                yield line("(cannot be read on this machine)" if text is None else text.rstrip("\n"))

    print_report(Report(document, render), output)


def _find_instance(requester: Requester, job_id: int, attempt: int | None) -> Row:
    """The newest attempt, or the one of that number."""
    rows = requester.get_rows("job_instances", job_id=job_id)
    if not rows:
        raise NotFoundError(
            f"job {job_id} has made no attempt yet", f"`jobmon job explain {job_id}` says why not"
        )
    by_number = {row["attempt_number"]: row for row in rows}
    number = max(by_number) if attempt is None else attempt
    if number not in by_number:
        raise NotFoundError(
            f"job {job_id} has no attempt {number}",
            f"attempts made: {', '.join(map(str, sorted(by_number)))}",
        )
    return by_number[number]


def _output_files(requester: Requester, found: Row, instance: Row) -> dict[str, str | None]:
    """The paths of an attempt's standard output and error; None for what is not kept."""
    from jobmon.worker.output import output_path

    run_id = instance["workflow_run_id"]
    rows = (
        requester.get("workflow_runs", workflow_run_id=run_id)["workflow_runs"] if run_id is not None else []
    )
    run = rows[0] if rows else {}
    return {
        name: output_path(
            os.path.join(run.get("working_dir") or "", run[name]),
            found["name"],
            letter,
            instance["job_instance_id"],
        )
        if run.get(name)
        else None
        for name, letter in _LETTERS.items()
    }


def _copy(path: str | None, stream: str, instance: Row, tail: int | None) -> None:
    """Copy an output file, or its end, to standard output."""
    who = f"attempt {instance['attempt_number']} of job {instance['job_id']}"
    if path is None:
        raise NotFoundError(
            f"{stream} of {who} was not kept", f"its run has no directory for it: Workflow({stream}=...)"
        )
    if not Path(path).is_file():
        raise NotFoundError(
            f"{stream} of {who} is not on this machine: {path}",
            f"it ran on {instance['nodename']}" if instance["nodename"] else "it may not have started yet",
        )
    with open(path, "rb") as file:
        if tail is not None:
            file.seek(_start_of_tail(file, tail))
        shutil.copyfileobj(file, sys.stdout.buffer)
        sys.stdout.buffer.flush()


def _read_text(path: str | None, tail: int) -> str | None:
    """The last lines of a file; None if it cannot be read here."""
    if path is None or not Path(path).is_file():
        return None
    try:
        with open(path, "rb") as file:
            file.seek(_start_of_tail(file, tail))
            return file.read().decode("utf-8", "replace")
    except OSError:
        return None


def _start_of_tail(file: IO[bytes], lines: int) -> int:
    """Where the last lines of a file begin; read from its end, since it may be large.

    Parameters:
        lines: how many.
    """
    end = position = file.seek(0, os.SEEK_END)
    if lines == 0:
        return end
    breaks = 0
    while position > 0:
        size = min(_BLOCK, position)
        position -= size
        file.seek(position)
        block = file.read(size)
        at = len(block)
        while (at := block.rfind(b"\n", 0, at)) >= 0:
            # the break that ends the last line begins none
            if position + at + 1 < end:
                breaks += 1
                if breaks == lines:
                    return position + at + 1
    return 0


# ----------------------------------------------------------------------------------------------------------
# Steering


@job.command("retry")
@job_argument
@click.option(
    "--max-attempts",
    type=click.IntRange(min=1, max=2**31 - 1),
    metavar="N",
    help="Try until so many attempts are made [default: one more than those made].",
)
@output_option(quiet="nothing")
@with_requester
def retry_job(requester: Requester, job_id: int, max_attempts: int | None, output: str) -> None:
    """Give a job more attempts, and queue it again if it is ERROR_FATAL."""
    answer = requester.post("retry_job", job_id=job_id, max_attempts=max_attempts)
    print_report(Report(answer, lambda: _render_change(requester, job_id)), output)


@job.command("kill")
@job_argument
@yes_option
@output_option(quiet="nothing")
@with_requester
def kill_job(requester: Requester, job_id: int, yes: bool, output: str) -> None:
    """Kill a job that runs; it is ERROR_FATAL then, and not retried.

    The process ends when its worker next hears from the database, which takes a heartbeat at most.
    """
    found = find_job(requester, job_id)
    confirm(f"Kill job {job_id} {found['name']!r}, which is {found['status']}", yes)
    answer = requester.post("kill_job", job_id=job_id)
    print_report(Report(answer, lambda: _render_change(requester, job_id)), output)


def _render_change(requester: Requester, job_id: int) -> Iterator[RenderableType]:
    """What became of a job: its status, and what the database says about it (such as that its run ended)."""
    found = find_job(requester, job_id)
    yield status_line(
        f"Job {job_id} {found['name']!r} is ",
        found["status"],
        f", {found['num_attempts']} of {found['max_attempts']} attempts made.",
    )
    rows: list[dict[str, Any]] = requester.get("job_explanations", job_id=job_id)["job_explanations"]
    for row in rows:
        yield line(row["explanation"])
    yield from _how_to_resume(found, rows)


def _how_to_resume(found: Row, explanations: list[dict[str, Any]]) -> Iterator[RenderableType]:
    if any(row["reason"] == "NO_LIVE_RUN" for row in explanations):
        yield line(f"Hint: jobmon workflow resume {found['workflow_id']}")
