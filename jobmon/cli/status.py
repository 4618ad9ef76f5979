"""``jobmon status``: whether all of Jobmon is well, and what needs somebody's attention."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from jobmon.cli.output import (
    EXIT_FAILED,
    Column,
    Report,
    duration,
    line,
    make_table,
    moment,
    one_line,
    show,
    watch_option,
    with_requester,
)
from jobmon.client.errors import JobmonError, RequestRefused

if TYPE_CHECKING:
    from rich.console import RenderableType

    from jobmon.client.requester import Requester

TIMEOUT = 3  # seconds for a service to say that it is ready
LATE_SECONDS = 600  # a notification that waits for so long is a problem, whatever the reason


@click.command()
@click.option(
    "-o",
    "--output",
    type=click.Choice(["table", "json"]),
    default="table",
    show_default=True,
    help="How it is printed.",
)
@watch_option
@with_requester
@click.pass_context
def status(ctx: click.Context, requester: Requester, output: str, watch: float | None) -> None:
    """Show whether all is well: services, schema, health monitor, notifications, audits, nodes.

    Exit code 0 if there is no problem, else 1.
    """
    report = show(lambda: _look(requester), output, watch)
    if report.document["problems"]:
        ctx.exit(EXIT_FAILED)


def _look(requester: Requester) -> Report:
    """Ask the services, which may be away."""
    services = [_service("jsm", requester.jsm), _service("jqs", requester.jqs)]
    problems = [f"{one['name']} is not ready: {one['error']}" for one in services if not one["ready"]]
    document: dict[str, Any] = {"services": services, "problems": problems}
    for view in ("monitor_state", "pending_notifications", "audits", "failing_nodes"):
        document[view] = None
        if services[1]["answers"]:
            try:
                document[view] = requester.get_rows(view)
            except RequestRefused as error:
                if error.status == 401:
                    raise
                problems.append(f"{view} can't be read: {error.message}")
            except JobmonError as error:
                problems.append(f"{view} can't be read: {error.message}")
    document["monitor_state"] = (document["monitor_state"] or [None])[0]
    problems += _problems(document)
    return Report(document, lambda: _render(document))


def _service(name: str, url: str) -> dict[str, Any]:
    """What a service's /readyz says."""
    import requests

    found: dict[str, Any] = {"name": name, "url": url, "answers": False, "ready": False, "error": None}
    found |= {"schema_version": None, "code_version": None}
    try:
        with closing(requests.Session()) as session:
            session.trust_env = False
            response = session.get(f"{url}/readyz", timeout=TIMEOUT, allow_redirects=False)
            answer = response.json()
        found["answers"] = True
        found["ready"] = response.status_code == 200
        if found["ready"]:
            found |= {key: answer.get(key) for key in ("schema_version", "code_version")}
        else:
            error = answer["error"]
            found["error"] = f"{error['code']}: {error['message']}"
    except requests.RequestException as error:
        found["error"] = "no answer" if not isinstance(error, ValueError) else "this is not Jobmon"
    except (ValueError, KeyError, TypeError, AttributeError):
        found["error"] = "this is not Jobmon"
    return found


def _problems(document: dict[str, Any]) -> Iterator[str]:
    state = document["monitor_state"]
    if state is not None:
        since = state["seconds_since_check"]
        if since is None:
            yield "no health monitor has ever looked: jobmon start health_monitor"
        elif since > state["max_pause_seconds"]:
            yield f"no health monitor has looked for {duration(since)}: jobmon start health_monitor"
        if state["num_lost_leases"]:
            yield f"{state['num_lost_leases']} job instances are lost, and nobody has ended them"
    for row in document["pending_notifications"] or ():
        channel = row["channel"] or "the default channel"
        what = f"{row['num_pending']} notifications to {channel} wait for {duration(row['oldest_seconds'])}"
        if row["error_message"]:
            yield f"{what}: {one_line(row['error_message'])}"
        elif row["oldest_seconds"] > LATE_SECONDS:
            yield what
    for row in document["audits"] or ():
        if row["violated_since"]:
            yield f"{row['audit']} is violated since {moment(row['violated_since'])} UTC"
    for row in document["failing_nodes"] or ():
        yield f"node {row['nodename']} is failing since {moment(row['failing_since'])} UTC"


_SERVICES = (
    Column("service", "name"),
    Column("url", "url"),
    Column("state", lambda row: "ready" if row["ready"] else row["error"], folds=True),
    Column("schema", lambda row: row["schema_version"], right=True),
    Column("code", lambda row: row["code_version"], right=True),
)
_PENDING = (
    Column("channel", lambda row: row["channel"] or "(default)"),
    Column("waiting", "num_pending", right=True),
    Column("for", lambda row: duration(row["oldest_seconds"]), right=True),
    Column("attempts", "num_attempts", right=True),
    Column("next attempt (UTC)", lambda row: moment(row["next_attempt_date"]), spare=True),
    Column("last error", lambda row: one_line(row["error_message"]), folds=True),
)
_NODES = (
    Column("node", "nodename"),
    Column("failing since (UTC)", lambda row: moment(row["failing_since"])),
    Column("failed", "num_failed", right=True),
    Column("of", "num_job_instances", right=True),
)
_AUDITS = (
    Column("audit", "audit"),
    Column("violated since (UTC)", lambda row: moment(row["violated_since"])),
    Column("rows", "num_violations", right=True),
    Column("the first of them", lambda row: one_line(row["sample"]), folds=True),
)


def _render(document: dict[str, Any]) -> Iterator[RenderableType]:
    yield make_table(_SERVICES, document["services"], none="")
    state = document["monitor_state"]
    if state is not None:
        since = state["seconds_since_check"]
        yield line("")
        yield line(
            "health monitor: none has ever looked"
            if since is None
            else f"health monitor: looked {duration(since)} ago,"
            f" has been watching for {duration(state['watched_seconds'])}"
        )
    pending, nodes, audits = (document[key] for key in ("pending_notifications", "failing_nodes", "audits"))
    if pending is not None:
        yield make_table(_PENDING, pending, none="notifications: none is waiting")
    if nodes is not None:
        yield make_table(_NODES, nodes, none="nodes: none is failing")
    if audits is not None:
        violated = [row for row in audits if row["violated_since"]]
        oldest = max((row["seconds_since_check"] for row in audits), default=None)
        fine = "audits: none has been read yet" if oldest is None else (
            f"audits: all {len(audits)} are empty, read {duration(oldest)} ago or later"
        )  # fmt: skip
        yield make_table(_AUDITS, violated, none=fine)
    yield line("")
    if document["problems"]:
        yield line(f"{len(document['problems'])} problems:", "red")
        for problem in document["problems"]:
            yield line(f"  {problem}")
    else:
        yield line("All is well.", "green")
