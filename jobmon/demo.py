"""A small real workload through the services, over HTTP, as `./runserver.py --demo` runs it.

It is a client like any other: a workflow of twelve tasks, run from this process. One job fails twice and then
succeeds, one fails until its attempts are used up. The database decides what is next; afterwards this program
shows what the database knows.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from jobmon.client.requester import Requester
from jobmon.client.result import WorkflowResult
from jobmon.client.tasks import BashTask
from jobmon.client.workflow import Workflow
from jobmon.config import Config
from jobmon.executors.local import LocalExecutor

SLOTS = 4
MAX_RUNTIME = 60  # seconds


@dataclass(frozen=True)
class Work:
    """A job of the demo.

    Attributes:
        name: for people.
        command: run in the demo's scratch directory.
        after: names of the jobs that must be done before.
        max_attempts: how often it is tried.
    """

    name: str
    command: str
    after: tuple[str, ...] = ()
    max_attempts: int = 2


PARTS = tuple(f"part_{number}" for number in range(1, 5))
WORK = (
    Work("prepare", "mkdir -p parts && uname -a > machine.txt"),
    *(
        Work(
            name,
            f"awk 'BEGIN {{ srand({number}); for (i = 0; i < 20000; i++) print int(rand() * 1000) }}' "
            f"| sort -n > parts/{number}.txt && sleep 0.{2 * number}",
            ("prepare",),
        )
        for number, name in enumerate(PARTS, start=1)
    ),
    Work("merge", "sort -n -m parts/*.txt > all.txt && sleep 0.4", PARTS),
    Work("count", "test $(wc -l < all.txt) -eq 80000", ("merge",)),
    Work("checksum", "cksum all.txt > all.cksum && sleep 0.3", ("merge",)),
    Work("compress", "gzip -c all.txt > all.gz && gzip -t all.gz && sleep 0.5", ("merge",)),
    Work(
        "flaky",
        "sleep 0.5; echo x >> tries; n=$(wc -l < tries); "
        "test $n -gt 2 || { echo try $n: not yet >&2; exit 1; }",
        ("prepare",),
        max_attempts=3,
    ),
    Work("doomed", "sleep 0.3; echo this can not work >&2; exit 3", ("prepare",), max_attempts=2),
    Work(
        "report",
        "{ cat machine.txt all.cksum; ls -l; } > report.txt",
        ("count", "checksum", "compress", "flaky"),
    ),
)
EXPECTED = {work.name: ("ERROR_FATAL" if work.name == "doomed" else "DONE") for work in WORK}
MAX_ATTEMPTS = {work.name: work.max_attempts for work in WORK}


def make_workflow(requester: Requester, scratch: Path) -> Workflow:
    """The demo's workflow, a new one each time."""
    tasks: dict[str, BashTask] = {}
    for work in WORK:
        tasks[work.name] = BashTask(
            work.command,
            name=work.name,
            max_attempts=work.max_attempts,
            max_runtime=MAX_RUNTIME,
            upstream_tasks=[tasks[name] for name in work.after],
        )
    workflow = Workflow(
        f"demo {time.strftime('%Y-%m-%d %H:%M:%S')} {secrets.token_hex(4)}",
        name="demo",
        description="A small workload to see Jobmon at work",
        working_dir=scratch,
        project="demo",
        requester=requester,
    )
    workflow.add_tasks(tasks.values())
    return workflow


class Storyteller:
    """Tells of each attempt that has ended, in the order of their ends.

    Parameters:
        workflow: the demo's.
        tell: takes a line for people, and the number of finished jobs.
    """

    def __init__(self, workflow: Workflow, tell: Callable[[str, int], None]) -> None:
        self._workflow = workflow
        self._tell = tell
        self._told: set[int] = set()
        self._finished = 0

    def look(self, counts: object = None) -> None:
        """Tell what has ended since the last look."""
        rows = self._workflow.requester.get_rows("job_instances", dag_id=self._workflow.dag_id)
        ended = [
            row
            for row in rows
            if row["status"] in ("DONE", "ERROR") and row["job_instance_id"] not in self._told
        ]
        for row in sorted(ended, key=lambda row: str(row["status_date"])):
            self._told.add(row["job_instance_id"])
            number, most = row["attempt_number"], MAX_ATTEMPTS[row["name"]]
            if row["status"] == "DONE":
                how = f"done in {float(row['run_seconds'] or 0):.2f} s"
            else:
                lines = (row["error_message"] or "").strip().splitlines() or ["no message"]
                how = f"failed, {': '.join(dict.fromkeys((lines[0], lines[-1])))}"
            self._finished += row["status"] == "DONE" or number == most
            self._tell(f"{row['name']} (attempt {number} of {most}): {how}", self._finished)


def run_workflow(console: Console, workflow: Workflow) -> WorkflowResult:
    """Run it, and tell how it goes."""
    executor = LocalExecutor(max_workers=SLOTS)
    if not console.is_terminal:
        story = Storyteller(
            workflow,
            lambda line, finished: console.print(
                f"[{finished}/{len(WORK)} finished] {line}", markup=False, highlight=False, soft_wrap=True
            ),
        )
        result = workflow.run(executor, progress=story.look)
        story.look()
        return result
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("jobs finished", total=len(WORK))

        def tell(line: str, finished: int) -> None:
            progress.console.print(line, markup=False, highlight=False)
            progress.update(bar, completed=finished)

        story = Storyteller(workflow, tell)
        result = workflow.run(executor, progress=story.look)
        story.look()
    return result


def cell(column: str, value: Any) -> str:
    """A value as people read it: nothing for NULL, seconds with two digits, times without date and zone."""
    if value is None:
        return ""
    if column.endswith("seconds"):
        return f"{float(value):.2f}"
    if column.endswith("_date"):
        return str(value)[11:23]
    return str(value).strip()


def show(console: Console, title: str, rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> None:
    """Print rows of a view as a table.

    Args:
        console: where to.
        title: above the table.
        rows: column -> value.
        columns: which columns, in which order, and their headings.
    """
    console.print(title, style="bold", highlight=False, soft_wrap=True)
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    for heading in columns.values():
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*(cell(column, row.get(column)) for column in columns))
    console.print(table)


def run_demo(jsm: str, jqs: str, token: str | None, console: Console | None = None) -> int:
    """Run the demo and show what came of it.

    Args:
        jsm: base URL of the JobStateManager.
        jqs: base URL of the JobQueryServer.
        token: bearer token, if they want one.
        console: where to print; default: standard output.

    Returns:
        0 if every job ended as it should, else 1.

    Raises:
        JobmonError: a service does not answer, or refuses what it should take.
    """
    if console is None:
        console = Console()
        if not console.is_terminal:  # a file or a pipe has no width: let the tables be as wide as they are
            console = Console(width=140)
    places = urlsplit(jsm), urlsplit(jqs)
    config = Config(
        host=places[0].hostname or "127.0.0.1",
        jsm_port=places[0].port or 80,
        jqs_port=places[1].port or 80,
        token=token,
    )
    requester = Requester(config)
    scratch = Path(tempfile.mkdtemp(prefix="jobmon-demo-"))
    try:
        workflow = make_workflow(requester, scratch)
        number = workflow.bind()
        console.print(
            f"\nDemo: workflow {number} with {len(WORK)} jobs. [bold]flaky[/] fails twice and "
            "then succeeds, [bold]doomed[/] fails for good."
        )
        result = run_workflow(console, workflow)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    show_results(console, workflow)
    statuses = {row["name"]: row["status"] for row in requester.get_rows("jobs", dag_id=result.dag_id)}
    requester.close()
    if statuses != EXPECTED:
        console.print(f"These jobs did not end as they should: {statuses}", style="red")
        return 1
    console.print(f"All {len(WORK)} jobs ended as they should, in {result.seconds:.1f} s.\n")
    return 0


def show_results(console: Console, workflow: Workflow) -> None:
    """Print what the database knows of the workflow, as anybody can read it from the JQS."""
    services = workflow.requester
    dag = {"dag_id": workflow.dag_id}
    jobs = services.get("jobs", **dag)["jobs"]
    places = {job["job_id"]: number for number, job in enumerate(jobs)}
    console.print()
    show(
        console,
        f"The workflow's jobs ({services.jqs}/jobs?dag_id={workflow.dag_id})",
        jobs,
        {
            "job_id": "job",
            "name": "name",
            "status": "status",
            "num_attempts": "attempts",
            "max_attempts": "of",
            "run_seconds": "ran, s",
            "last_error": "last error",
        },
    )
    attempts = services.get("job_instances", **dag)["job_instances"]
    attempts.sort(key=lambda row: (places.get(row["job_id"], 0), row["attempt_number"]))
    show(
        console,
        f"Attempts at flaky and doomed ({services.jqs}/job_instances?dag_id={workflow.dag_id})",
        [row for row in attempts if row["name"] in ("flaky", "doomed")],
        {
            "job_instance_id": "instance",
            "name": "name",
            "attempt_number": "attempt",
            "status": "status",
            "nodename": "node",
            "wait_seconds": "waited, s",
            "run_seconds": "ran, s",
        },
    )
    flaky = next((job["job_id"] for job in jobs if job["name"] == "flaky"), 0)
    show(
        console,
        f"All that happened to flaky ({services.jqs}/job_history?job_id={flaky})",
        services.get("job_history", job_id=flaky)["job_history"],
        {"status_date": "time (UTC)", "from_status": "from", "status": "to", "reason": "why"},
    )
    show(
        console,
        f"The workflow ({services.jqs}/workflows?workflow_id={workflow.workflow_id})",
        services.get("workflows", workflow_id=workflow.workflow_id)["workflows"],
        {
            "workflow_id": "workflow",
            "name": "name",
            "workflow_args": "arguments",
            "status": "status",
            "num_jobs": "jobs",
            "num_done": "done",
            "num_fatal": "fatal",
        },
    )
