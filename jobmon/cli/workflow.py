"""``jobmon workflow``: see and steer workflows."""

from __future__ import annotations

import getpass
import os
import secrets
import socket
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import click

from jobmon.cli.errors import Group, HintedError
from jobmon.cli.output import (
    EXIT_FAILED,
    EXIT_INCOMPLETE,
    MAX_ROWS,
    Column,
    Report,
    Row,
    confirm,
    duration,
    find_label,
    find_workflow,
    limit_option,
    line,
    make_table,
    moment,
    newest_rows,
    one_line,
    output_option,
    print_renderables,
    print_report,
    show,
    status_line,
    watch_option,
    with_requester,
    workflow_argument,
    yes_option,
)
from jobmon.client.errors import JobmonError, RequestRefused

if TYPE_CHECKING:
    from rich.console import RenderableType

    from jobmon.client.requester import Requester

ENDED = frozenset({"DONE", "ERROR", "STOPPED"})
SHOWN_FAILED = 5  # failed jobs that `status` shows
STALE_AFTER_SECONDS = 90  # as jobmon.client.workflow has it
MERMAID_EDGES = 500  # mermaid draws no more unless told to

workflow_status_option = click.option(
    "--status", metavar="STATUS", help="Only those in this status: a label such as RUNNING, or its letter."
)
job_status_option = click.option(
    "--status",
    metavar="STATUS",
    help="Only those in this status: a label such as ERROR_FATAL, or its letter.",
)


@click.group(cls=Group)
def workflow() -> None:
    """See and steer workflows.

    Exit codes: 0 all is well, 1 something failed, 2 wrong usage, 3 there is no such workflow, 4 it has not
    ended well yet (`status --exit-code`).
    """


# ----------------------------------------------------------------------------------------------------------
# Reading


_WORKFLOWS = (
    Column("id", "workflow_id", right=True),
    Column("name", "name", folds=True),
    Column("user", "user", spare=True),
    Column("status", "status"),
    Column("jobs", "num_jobs", right=True),
    Column("done", "num_done", right=True),
    Column("running", "num_running", right=True, spare=True),
    Column("queued", "num_queued", right=True, spare=True),
    Column("failed", "num_fatal", right=True),
    Column("priority", "priority", right=True, spare=True),
    Column("created (UTC)", lambda row: moment(row["created_date"]), spare=True),
    Column("workflow_args", lambda row: one_line(row["workflow_args"], 60), folds=True, spare=True),
)


@workflow.command("list")
@click.option("--user", metavar="USER", help="Only those of this user.")
@workflow_status_option
@click.option("--name", metavar="NAME", help="Only those of this name.")
@limit_option(20, "So many at most.")
@output_option()
@watch_option
@with_requester
def list_workflows(
    requester: Requester,
    user: str | None,
    status: str | None,
    name: str | None,
    limit: int,
    output: str,
    watch: float | None,
) -> None:
    """List workflows, the newest first."""
    label = find_label(requester, "workflow", status)

    def make() -> Report:
        rows = newest_rows(requester, "workflows", limit, user=user, status=label, name=name)[::-1]
        return Report(
            rows,
            lambda: [make_table(_WORKFLOWS, rows, none="There are no such workflows.")],
            [row["workflow_id"] for row in rows],
        )

    show(make, output, watch)


_COUNTS = (Column("status", "status"), Column("jobs", "num_jobs", right=True))
_FAILED = (
    Column("job", "job_id", right=True),
    Column("name", "name", folds=True),
    Column("attempts", lambda row: f"{row['num_attempts']} of {row['max_attempts']}", spare=True),
    Column("node", "nodename", spare=True),
    Column("last error", lambda row: one_line(row["last_error"]), folds=True),
)


@workflow.command("status")
@workflow_argument
@click.option(
    "--exit-code",
    is_flag=True,
    help="Exit with 0 if it is DONE, 1 if it is in ERROR, 4 if it runs, is stopped, or never ran.",
)
@output_option(quiet="nothing")
@watch_option
@with_requester
def show_status(
    requester: Requester, workflow_id: int, exit_code: bool, output: str, watch: float | None
) -> None:
    """Show how far a workflow is: its jobs by status, its newest run, what failed."""

    def make() -> Report:
        found = find_workflow(requester, workflow_id)
        runs = requester.get("workflow_runs", workflow_run_id=found["newest_workflow_run_id"] or 0)
        counts = requester.get("job_status_counts", dag_id=found["dag_id"])["job_status_counts"]
        failed = requester.get("jobs", dag_id=found["dag_id"], status="ERROR_FATAL", limit=SHOWN_FAILED)
        document = {
            "workflow": found,
            "workflow_run": next(iter(runs["workflow_runs"]), None),
            "job_status_counts": counts,
            "failed_jobs": failed["jobs"],
        }
        return Report(document, lambda: _render_status(document), ended=found["status"] in ENDED)

    report = show(make, output, watch)
    if exit_code:
        found = report.document["workflow"]["status"]
        sys.exit({"DONE": 0, "ERROR": EXIT_FAILED}.get(found, EXIT_INCOMPLETE))


def _render_status(document: Row) -> Iterator[RenderableType]:
    found, run = document["workflow"], document["workflow_run"]
    yield status_line(f"Workflow {found['workflow_id']} {found['name']!r}: ", found["status"])
    yield line(
        f"of {found['user']}, created {moment(found['created_date'])} UTC, dag {found['dag_id']}, "
        f"priority {found['priority']}, "
        + _limit_in_words(found["max_concurrently_running"])
        + f", workflow_args {one_line(found['workflow_args'], 60)!r}"
    )
    if run is None:
        yield line("It has never been run.")
    else:
        place = f" on {run['hostname']}, process {run['pid']}" if run["executor_class"] else ""
        yield status_line(
            f"Run {run['workflow_run_id']}: ",
            run["status"],
            f", by {run['user']}{place}, for {duration(run['run_seconds'])}"
            + (
                f", heartbeat {duration(run['seconds_since_heartbeat'])} ago"
                if run["status"] not in ENDED
                else f", ended {moment(run['status_date'])} UTC"
            )
            + ("" if run["submitted_date"] else ", not submitted"),
        )
    yield line("")
    yield make_table(_COUNTS, document["job_status_counts"], none="It has no jobs.")
    if document["failed_jobs"]:
        more = found["num_fatal"] - len(document["failed_jobs"])
        yield line("")
        yield make_table(_FAILED, document["failed_jobs"], none="")
        if more > 0:
            yield line(f"... and {more} more: `jobmon workflow errors {found['workflow_id']}`")


def _limit_in_words(limit: int | None) -> str:
    return "no limit of jobs at a time" if limit is None else f"at most {limit} jobs at a time"


_JOBS = (
    Column("id", "job_id", right=True),
    Column("name", "name", folds=True),
    Column("tag", "tag", spare=True),
    Column("status", "status"),
    Column("for", lambda row: duration(row["seconds_in_status"]), right=True, spare=True),
    Column("attempts", lambda row: f"{row['num_attempts']} of {row['max_attempts']}", spare=True),
    Column("ran", lambda row: duration(row["run_seconds"]), right=True, spare=True),
    Column("node", "nodename", spare=True),
    Column("last error", lambda row: one_line(row["last_error"], 100), folds=True),
)


@workflow.command("jobs")
@workflow_argument
@job_status_option
@click.option("--name", metavar="NAME", help="Only those of this name.")
@click.option("--tag", metavar="TAG", help="Only those with this tag.")
@limit_option(1000, "So many at most, those registered first.")
@output_option()
@watch_option
@with_requester
def list_jobs(
    requester: Requester,
    workflow_id: int,
    status: str | None,
    name: str | None,
    tag: str | None,
    limit: int,
    output: str,
    watch: float | None,
) -> None:
    """List the jobs of a workflow."""
    label = find_label(requester, "job", status)

    def make() -> Report:
        found = find_workflow(requester, workflow_id)
        rows = requester.get("jobs", dag_id=found["dag_id"], status=label, name=name, tag=tag, limit=limit)
        jobs = rows["jobs"]

        def render() -> Iterator[RenderableType]:
            yield make_table(_JOBS, jobs, none="There are no such jobs.")
            if len(jobs) == limit < found["num_jobs"]:
                yield line(f"These are the first {limit}; there may be more: --limit N")

        return Report(jobs, render, [job["job_id"] for job in jobs], ended=found["status"] in ENDED)

    show(make, output, watch)


_ERRORS = (
    Column("time (UTC)", lambda row: moment(row["error_time"]), spare=True),
    Column("job", "job_id", right=True),
    Column("name", "name", folds=True),
    Column("attempt", "attempt_number", right=True),
    Column("node", "nodename", spare=True),
    Column(
        "error",
        lambda row: ("warning: " if row.get("severity") == "warning" else "") + one_line(row["description"]),
        folds=True,
    ),
)


@workflow.command("errors")
@workflow_argument
@click.option("--name", metavar="NAME", help="Only those of jobs of this name.")
@limit_option(100, "So many at most, the newest.")
@output_option(quiet="the ids of the jobs only")
@watch_option
@with_requester
def list_errors(
    requester: Requester, workflow_id: int, name: str | None, limit: int, output: str, watch: float | None
) -> None:
    """List the errors and warnings of a workflow's jobs, the newest last; those that were retried, too.

    The table has the head and the end of each; `jobmon job log JOB_ID` shows all of it.
    """

    def make() -> Report:
        found = find_workflow(requester, workflow_id)
        rows = newest_rows(requester, "job_errors", limit, dag_id=found["dag_id"], name=name)
        return Report(
            rows,
            lambda: [make_table(_ERRORS, rows, none="There are no errors.")],
            list(dict.fromkeys(row["job_id"] for row in rows)),
            ended=found["status"] in ENDED,
        )

    show(make, output, watch)


# ----------------------------------------------------------------------------------------------------------
# Steering


@workflow.command("stop")
@workflow_argument
@click.option("--kill", is_flag=True, help="Also kill its jobs that run; without it they may end.")
@yes_option
@output_option(quiet="nothing")
@with_requester
def stop_workflow(requester: Requester, workflow_id: int, kill: bool, yes: bool, output: str) -> None:
    """Stop a workflow: no job of it is started any more. It can be resumed."""
    found = find_workflow(requester, workflow_id)
    what = f"Stop workflow {workflow_id} {found['name']!r} of {found['user']}"
    confirm(what + (" and kill its jobs that run" if kill else ""), yes)
    answer = requester.post("stop_workflow", workflow_id=workflow_id, kill=int(kill))
    run = answer["workflow_run_id"]
    text = f"Workflow {workflow_id} is STOPPED" + (
        f", and so is its run {run}." if run is not None else "; it had no run that lives."
    )
    if kill:
        text += f" {answer['num_killed']} job instances were killed."
    print_report(Report(answer, lambda: [line(text)]), output)


@workflow.command("resume")
@workflow_argument
@click.option(
    "--stale-after",
    type=click.IntRange(min=0),
    metavar="SECONDS",
    default=STALE_AFTER_SECONDS,
    show_default=True,
    help="Take a run of it for dead, and supersede it, if its heartbeat is older than this.",
)
@output_option(quiet="the id of the new run")
@with_requester
def resume_workflow(requester: Requester, workflow_id: int, stale_after: int, output: str) -> None:
    """Run a workflow again: jobs that are DONE stay so, the others start anew.

    The jobs are queued for the distributors that run as services (`jobmon start distributor`), in the
    directories of its last run.
    """
    found = find_workflow(requester, workflow_id)
    if found["status"] == "DONE":
        text = f"Workflow {workflow_id} is DONE: there is nothing to resume."
        print_report(Report({"workflow_run_id": None}, lambda: [line(text)]), output)
        return
    run_id = _add_run(requester, found, stale_after)
    num_queued = 0
    try:
        requester.post("reset_incomplete_jobs", dag_id=found["dag_id"])
        answer = {"num_left": 1}
        while answer["num_left"]:
            answer = requester.post("submit_workflow_run", workflow_run_id=run_id)
            num_queued += answer["num_queued"]
    except (JobmonError, KeyboardInterrupt) as error:
        if isinstance(error, RequestRefused) and error.code == "WORKFLOW_RUN_ENDED":
            raise HintedError(
                f"workflow {workflow_id}: run {run_id} was stopped or superseded while it was made",
                f"`jobmon workflow status {workflow_id}` shows which run lives",
            ) from error
        what = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error.args[0])
        raise HintedError(
            f"run {run_id} of workflow {workflow_id} was made, but its jobs are not queued: {what}",
            f"`jobmon workflow resume {workflow_id} --stale-after 0` does it again",
        ) from error
    text = (
        f"Workflow {workflow_id} is resumed by run {run_id}: {num_queued} jobs are queued for the"
        " distributors that run as services (`jobmon start distributor`)."
    )
    document = {"workflow_run_id": run_id, "num_queued": num_queued}
    print_report(Report(document, lambda: [line(text)], [run_id]), output)


def _add_run(requester: Requester, found: Row, stale_after: int) -> int:
    """Make a new run like the workflow's last one, or in the present directory; its id."""
    last = requester.get("workflow_runs", workflow_run_id=found["newest_workflow_run_id"] or 0)
    like: Row = next(iter(last["workflow_runs"]), {"working_dir": os.getcwd()})
    kept = ("stdout", "stderr", "working_dir", "project", "slack_channel")
    answer = requester.post(
        "add_workflow_run",
        workflow_id=found["workflow_id"],
        user=_user(),
        hostname=socket.gethostname(),
        pid=os.getpid(),
        stale_after_seconds=stale_after,
        request_key=secrets.token_hex(16),
        **{key: like.get(key) for key in kept},
    )
    return int(answer["workflow_run_id"])


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


class _Limit(click.ParamType):
    """A number of jobs, or ``none``."""

    name = "limit"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        text = str(value)
        if text.lower() == "none":
            return "none"
        if not (text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 2**31):
            self.fail(f"{text!r} is neither a number of jobs nor 'none'", param, ctx)
        return int(text)


@workflow.command("concurrency")
@workflow_argument
@click.argument("limit", type=_Limit(), required=False, metavar="[N|none]")
@output_option(quiet="nothing")
@with_requester
def set_concurrency(requester: Requester, workflow_id: int, limit: int | str | None, output: str) -> None:
    """Limit how many jobs of a workflow run at a time; without N, show the limit.

    What runs already goes on. 0 lets nothing new start.
    """
    document: dict[str, Any]
    if limit is None:
        found = find_workflow(requester, workflow_id)
        document = {key: found[key] for key in ("workflow_id", "max_concurrently_running")}
    else:
        document = requester.post(
            "set_max_concurrently_running",
            workflow_id=workflow_id,
            max_concurrently_running=None if limit == "none" else limit,
        )
    text = f"Workflow {workflow_id}: {_limit_in_words(document['max_concurrently_running'])}."
    print_report(Report(document, lambda: [line(text)]), output)


# ----------------------------------------------------------------------------------------------------------
# The graph

_COLORS = {
    "DONE": "#c8e6c9",
    "RUNNING": "#b3e5fc",
    "INSTANTIATED": "#b3e5fc",
    "QUEUED_FOR_INSTANTIATION": "#fff9c4",
    "ERROR_RECOVERABLE": "#ffe0b2",
    "ERROR_FATAL": "#ffcdd2",
}


@workflow.command("graph")
@workflow_argument
@limit_option(20, "Jobs shown of each level, as text.")
@output_option("dot", "mermaid", quiet="the ids of the jobs only")
@with_requester
def show_graph(requester: Requester, workflow_id: int, limit: int, output: str) -> None:
    """Show which job waits for which.

    As text: level by level. A job's level is one more than the highest of those it waits for.
    """
    found = find_workflow(requester, workflow_id)
    jobs = requester.get_rows("jobs", dag_id=found["dag_id"])
    edges = _read_edges(requester, found["dag_id"])
    if output == "dot":
        _echo_lines(_dot(found, jobs, edges))
    elif output == "mermaid":
        if len(edges) > MERMAID_EDGES:
            note = f"Note: {len(edges)} edges; Mermaid draws {MERMAID_EDGES} unless maxEdges says more."
            click.echo(note, err=True)
        _echo_lines(_mermaid(jobs, edges))
    elif output == "table":
        print_renderables([line("\n".join(_levels_as_text(jobs, edges, limit)))])
    else:
        document = {"jobs": jobs, "edges": edges}
        print_report(Report(document, lambda: (), [job["job_id"] for job in jobs]), output)


def _read_edges(requester: Requester, dag_id: int) -> list[dict[str, Any]]:
    """The dag's edges, each once: pages are ordered by the upstream only, so they may overlap."""
    edges: dict[tuple[int, int], dict[str, Any]] = {}
    offset = 0
    while True:
        rows = requester.get("job_edges", dag_id=dag_id, limit=MAX_ROWS, offset=offset)["job_edges"]
        edges |= {(row["upstream_job_id"], row["downstream_job_id"]): row for row in rows}
        offset += len(rows)
        if len(rows) < MAX_ROWS:
            return [edges[key] for key in sorted(edges)]


def _upstreams(edges: Iterable[Row]) -> dict[int, list[int]]:
    found: dict[int, list[int]] = {}
    for edge in edges:
        found.setdefault(edge["downstream_job_id"], []).append(edge["upstream_job_id"])
    return found


def _levels(jobs: Iterable[Row], upstreams: dict[int, list[int]]) -> list[list[Row]]:
    """The jobs by level. Upstreams have smaller ids, so one pass in the order of the ids is enough."""
    level_of: dict[int, int] = {}
    levels: list[list[Row]] = []
    for job in jobs:
        level = 1 + max((level_of.get(number, -1) for number in upstreams.get(job["job_id"], ())), default=-1)
        level_of[job["job_id"]] = level
        while len(levels) <= level:
            levels.append([])
        levels[level].append(job)
    return levels


def _levels_as_text(jobs: list[dict[str, Any]], edges: list[dict[str, Any]], limit: int) -> Iterator[str]:
    if not jobs:
        yield "It has no jobs."
        return
    upstreams = _upstreams(edges)
    for number, level in enumerate(_levels(jobs, upstreams)):
        counts = Counter(job["status"] for job in level)
        summary = ", ".join(f"{count} {label}" for label, count in counts.most_common())
        yield f"level {number}: {len(level)} jobs ({summary})"
        for job in level[:limit]:
            before = upstreams.get(job["job_id"], [])
            shown = ", ".join(map(str, before[:5])) + (
                f" and {len(before) - 5} more" if len(before) > 5 else ""
            )
            name = one_line(job["name"], 80)
            yield f"  {job['job_id']} {name} {job['status']}" + (f" after {shown}" if before else "")
        if len(level) > limit:
            yield f"  ... and {len(level) - limit} more"


def _echo_lines(lines: Iterable[str]) -> None:
    click.echo("\n".join(lines))


def _dot(found: Row, jobs: Iterable[Row], edges: Iterable[Row]) -> Iterator[str]:
    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    yield f"digraph {quoted(one_line(found['name']))} {{"
    yield "  rankdir=LR;"
    yield '  node [shape=box, style="rounded,filled", fillcolor="#eeeeee"];'
    for job in jobs:
        # the line break between name and status is dot's, not the name's
        label = quoted(one_line(job["name"]))[:-1] + f'\\n{job["job_id"]} {job["status"]}"'
        color = f', fillcolor="{_COLORS[job["status"]]}"' if job["status"] in _COLORS else ""
        yield f"  {job['job_id']} [label={label}{color}];"
    for edge in edges:
        yield f"  {edge['upstream_job_id']} -> {edge['downstream_job_id']};"
    yield "}"


def _mermaid(jobs: Iterable[Row], edges: Iterable[Row]) -> Iterator[str]:
    def escaped(text: str) -> str:
        return "".join(c if c.isalnum() or c in " ._-/" else f"#{ord(c)};" for c in text)

    yield "flowchart LR"
    for job in jobs:
        label = f"{escaped(one_line(job['name']))}<br>{job['job_id']} {job['status']}"
        style = f":::{job['status']}" if job["status"] in _COLORS else ""
        yield f'  j{job["job_id"]}["{label}"]{style}'
    for edge in edges:
        yield f"  j{edge['upstream_job_id']} --> j{edge['downstream_job_id']}"
    for status, color in _COLORS.items():
        yield f"  classDef {status} fill:{color}"
