#!/usr/bin/env python3
"""What running a workflow costs: jobs that do nothing, through the public client, on the local executor.

Every workload is bound and run by this process (`Workflow.run`, as many jobs at a time as there are
processors) on a private durable server with a JSM and a JQS. CPU comes from /proc and getrusage: of this
process (the client with its distributor), of JSM and JQS, of the database server, and of the commands, which
are one bash each. Each figure is taken ``--rounds`` times, the workloads in turn, and the median is printed.

    python benchmarks/workflows.py
    python benchmarks/workflows.py --only flat-1000 chain-100 --rounds 1 --json figures.json

At the end the audit views are read; the figures count only if they are empty.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from transitions import announce, audits, cpu_seconds, machine, start_database, start_service

from jobmon import BashTask, Requester, Workflow
from jobmon.config import load_config
from jobmon.db.connect import ConnectionSpec


def flat(number: int) -> list[BashTask]:
    """Jobs that wait for nothing."""
    return [BashTask(f"true {task}") for task in range(number)]


def chain(number: int) -> list[BashTask]:
    """Each job waits for the one before."""
    tasks: list[BashTask] = []
    for task in range(number):
        tasks.append(BashTask(f"true {task}", upstream_tasks=tasks[-1:]))
    return tasks


def bipartite(number: int) -> list[BashTask]:
    """Each job of the second half waits for all of the first half."""
    first = flat(number)
    return [*first, *(BashTask(f"true second {task}", upstream_tasks=first) for task in range(number))]


# name -> its tasks, its levels (0: it is flat), whether it is run, or only bound
WORKLOADS: dict[str, tuple[Callable[[], list[BashTask]], int, bool]] = {
    "flat-100": (lambda: flat(100), 0, True),
    "flat-1000": (lambda: flat(1000), 0, True),
    "flat-10000": (lambda: flat(10_000), 0, True),
    "chain-100": (lambda: chain(100), 100, True),
    "bipartite-100": (lambda: bipartite(100), 2, True),
    "bind-20000": (lambda: flat(20_000), 0, False),
}
COLUMNS = {
    "bind_seconds": ("bind s", 2),
    "run_seconds": ("run s", 2),
    "jobs_per_second": ("jobs/s", 0),
    "level_ms": ("ms a level", 1),
    "calls_per_job": ("calls a job", 4),
    "client_cpu_ms": ("client", 2),
    "services_cpu_ms": ("JSM, JQS", 2),
    "database_cpu_ms": ("database", 2),
    "commands_cpu_ms": ("commands", 2),
}


class Clock:
    """CPU seconds spent since it was made, by who spent them, and the time.

    Parameters:
        services: process ids of JSM and JQS.
        database: process id of the database server.
    """

    def __init__(self, services: list[int], database: list[int]) -> None:
        self._services, self._database = services, database
        self._began = self._read()

    def _read(self) -> dict[str, float]:
        used = os.times()
        return {
            "client_cpu_ms": used.user + used.system,
            # those of this process that have ended: while a workload runs, the commands
            "commands_cpu_ms": used.children_user + used.children_system,
            "services_cpu_ms": cpu_seconds(self._services),
            "database_cpu_ms": cpu_seconds(self._database),
            "seconds": time.perf_counter(),
        }

    def spent(self) -> dict[str, float]:
        """Seconds of each."""
        return {name: now - self._began[name] for name, now in self._read().items()}


def measure(name: str, requester: Requester, services: list[int], database: list[int]) -> dict[str, float]:
    """One figure of one workload. Raises SystemExit if a job failed."""
    make, levels, is_run = WORKLOADS[name]
    workflow = Workflow(f"{name} {secrets.token_hex(8)}", requester=requester)
    workflow.add_tasks(make())
    number, calls, clock = len(workflow), requester.num_calls, Clock(services, database)
    workflow.bind()
    figure = {"bind_seconds": clock.spent()["seconds"]}
    if is_run:
        began = time.perf_counter()
        result = workflow.run(progress=False)
        figure["run_seconds"] = time.perf_counter() - began
        if not result:
            raise SystemExit(f"{name}: {result}")
        figure["jobs_per_second"] = number / figure["run_seconds"]
        if levels:
            figure["level_ms"] = 1000 * figure["run_seconds"] / levels
    spent = clock.spent()
    figure["calls_per_job"] = (requester.num_calls - calls) / number
    for who in ("client_cpu_ms", "services_cpu_ms", "database_cpu_ms", "commands_cpu_ms"):
        figure[who] = 1000 * spent[who] / number
    return figure


def start_stack(
    stack: ExitStack, directory: Path, kind: str | None
) -> tuple[ConnectionSpec, str, Requester, list[int], int]:
    """A private durable server with a JSM and a JQS.

    Parameters:
        kind: mariadb or mysql; None: what is found.

    Returns:
        The database as its administrator, the server's version, a client of the services, the process ids of
        the services, and that of the server.
    """
    admin, accounts, server_pid = start_database(stack, directory, kind)
    ports, services = {}, []
    for name, spec in accounts.items():
        address, pid = start_service(stack, directory, name, spec)
        ports[f"{name}_port"] = int(address.rpartition(":")[2])
        services.append(pid)
    version = announce(admin)
    config = load_config(env={"HOME": str(directory)}, overrides=ports)
    return admin, version, stack.enter_context(closing(Requester(config))), services, server_pid


def show(
    head: str,
    columns: dict[str, tuple[str, int]],
    figures: dict[str, dict[str, float]],
    version: str,
    violations: dict[str, int],
    path: Path | None,
) -> None:
    """Print figures as a table, and whether the audits found something; raises SystemExit if they did.

    head: of the first column. columns: title and number of digits by figure. path: of a JSON file for the
    figures.
    """
    print(f"| {head} | {' | '.join(title for title, _ in columns.values())} |")
    print("| --- |" + " ---: |" * len(columns))
    for name, figure in figures.items():
        cells = [f"{figure[key]:.{digits}f}" if key in figure else "" for key, (_, digits) in columns.items()]
        print(f"| {name} | {' | '.join(cells)} |")
    print(f"audits: {violations or 'empty'}")
    if path:
        path.write_text(json.dumps({"machine": machine(), "server": version, "figures": figures}, indent=1))
    if violations:
        raise SystemExit(1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="how often each figure is taken")
    parser.add_argument(
        "--kind", choices=["mariadb", "mysql"], help="which embedded server (default: what is found)"
    )
    parser.add_argument("--only", nargs="*", choices=WORKLOADS, metavar="WORKLOAD", help="only these")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jobmon-benchmark-")))
        admin, version, requester, services, server_pid = start_stack(stack, directory, options.kind)
        rounds: dict[str, list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for name in options.only or WORKLOADS:
                rounds.setdefault(name, []).append(measure(name, requester, services, [server_pid]))
        violations = audits(admin)
        figures = {
            name: {key: statistics.median(figure[key] for figure in some) for key in some[0]}
            for name, some in rounds.items()
        }
        print(f"median of {options.rounds} rounds; CPU in ms a job")
        show("workload", COLUMNS, figures, version, violations, options.json)


if __name__ == "__main__":
    main()
