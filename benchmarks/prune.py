#!/usr/bin/env python3
"""What pruning costs, what it does to those who work meanwhile, and how large a database is.

On a private durable server finished workflows of ``--jobs`` jobs are made in bulk (with ``--edges`` edges a
job), and the tables' size is read. Then clients run lifecycles by direct CALL (one connection each): for
``--seconds`` alone, and then while the workflows are pruned, for each size of transaction in turn, with and
without archive tables. Printed: rows a second, and the clients' transitions a second and latencies in each
case. Last a dump and a restore of what is left are timed.

    python benchmarks/prune.py                        # a private server, durable settings, its own port
    python benchmarks/prune.py --jobs 5000 --seconds 3
    python benchmarks/prune.py --kind mysql

At the end the audit views are read; the figures count only if they are empty.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

from transitions import (
    BULK_CHUNK,
    DirectClient,
    announce,
    audits,
    cpu_seconds,
    lifecycles,
    read_signatures,
    start_database,
)

from jobmon.db.catalog import execute, query
from jobmon.db.connect import ConnectionSpec, connect
from jobmon.db.dump import dump, restore
from jobmon.db.prune import PRUNED_TABLES, prune

WAYS: dict[str, dict[str, Any]] = {
    "alone": {},
    "1000 rows": {"batch_rows": 1000},
    "200 rows": {"batch_rows": 200},
    "5000 rows": {"batch_rows": 5000},
    "1000 rows, pause 0.05 s": {"batch_rows": 1000, "pause": 0.05},
    "1000 rows, to tables": {"batch_rows": 1000, "archive": "tables"},
    "1000 rows, to a file": {"batch_rows": 1000, "archive": "file"},
}


def make_finished(client: DirectClient, name: str, count: int, edges: int) -> None:
    """A DONE workflow: each job waits for so many of the chunk before."""
    dag = client.call("add_task_dag", name=name, user="benchmark", dag_hash=name)["dag_id"]
    for first in range(0, count, BULK_CHUNK):
        jobs = [
            {
                "name": "benchmark",
                "job_hash": str(number),
                "command": f"/usr/bin/env python /home/ann/model/run.py --location {number} --year 2026",
                "max_attempts": 3,
                "upstream_job_hashes": [str(number - BULK_CHUNK - n) for n in range(edges) if first],
            }
            for number in range(first, min(first + BULK_CHUNK, count))
        ]
        for job in jobs:
            job["upstream_job_hashes"] = [h for h in job["upstream_job_hashes"] if int(h) >= 0]
        client.call("add_jobs", dag_id=dag, jobs=json.dumps(jobs))
    workflow = client.call(
        "add_workflow", dag_id=dag, workflow_args=name, workflow_hash=name, name=name, user="benchmark"
    )["workflow_dct"]["id"]
    run = client.call("add_workflow_run", workflow_id=workflow, user="benchmark", hostname="node", pid=1)[
        "workflow_run_id"
    ]
    while client.call("submit_workflow_run", workflow_run_id=run)["num_left"]:
        pass
    while True:
        claimed = client.call("claim_jobs", executor_type="B", dag_id=dag, max_jobs=BULK_CHUNK)[
            "job_instances"
        ]
        if not claimed:
            break
        ids = [one["job_instance_id"] for one in claimed]
        for event, fields in (("running", {"nodename": "node.example.org"}), ("done", {})):
            events = [{"event": event, "job_instance_id": number, **fields} for number in ids]
            client.call("log_events", events=json.dumps(events))
    assert client.call("end_workflow_run", workflow_run_id=run)["status"] == "D"


def table_sizes(admin: ConnectionSpec) -> list[tuple[str, int, int]]:
    """(table, rows, bytes with indexes) of the tables that are pruned, by the server's statistics."""
    with closing(connect(admin)) as conn:
        execute(conn, "SET SESSION /*!80000 information_schema_stats_expiry=0, */ time_zone='+00:00'")
        for table in PRUNED_TABLES:
            query(conn, f"ANALYZE TABLE {table}")
        sizes = dict(
            query(
                conn,
                "SELECT TABLE_NAME, DATA_LENGTH + INDEX_LENGTH FROM information_schema.TABLES"
                " WHERE TABLE_SCHEMA = DATABASE()",
            )
        )
        counts = {table: query(conn, f"SELECT COUNT(*) FROM {table}")[0][0] for table in PRUNED_TABLES}
    return [(table, counts[table], int(sizes[table])) for table in PRUNED_TABLES if counts[table]]


class Load:
    """Clients that run lifecycles on dags of their own until they are told to stop."""

    def __init__(self, jsm: ConnectionSpec, clients: int) -> None:
        self.latencies: list[list[float]] = [[] for _ in range(clients)]
        self.stop = threading.Event()
        self.started = time.perf_counter()
        self.threads = [
            threading.Thread(target=self._run, args=(jsm.conn_str(), number)) for number in range(clients)
        ]
        for thread in self.threads:
            thread.start()

    def _run(self, target: str, number: int) -> None:
        client = DirectClient(target)
        name = f"load {number} {time.time()}"
        dag = client.call("add_task_dag", name=name, user="benchmark", dag_hash=name)["dag_id"]
        given = {"workflow_args": name, "workflow_hash": name, "name": name, "user": "benchmark"}
        workflow = client.call("add_workflow", dag_id=dag, **given)["workflow_dct"]["id"]
        # a live run: whatever age is pruned, this is not
        client.call("add_workflow_run", workflow_id=workflow, user="benchmark", hostname="node", pid=1)
        lifecycles(client, dag, self.stop.is_set, self.latencies[number])

    def end(self) -> dict[str, float]:
        """Transitions a second, and milliseconds."""
        self.stop.set()
        for thread in self.threads:
            thread.join()
        seconds = time.perf_counter() - self.started
        ms = sorted(1000 * latency for some in self.latencies for latency in some)
        return {
            "transitions": len(ms) / seconds,
            "p50": statistics.median(ms),
            "p99": ms[int(len(ms) * 0.99)],
            "most": ms[-1],
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=20_000, help="jobs of each pruned workflow")
    parser.add_argument("--edges", type=int, default=2, help="upstreams of a job")
    parser.add_argument("--clients", type=int, default=4, help="connections that work meanwhile")
    parser.add_argument("--seconds", type=float, default=10, help="of the load alone")
    parser.add_argument("--only", nargs="*", choices=WAYS, metavar="WAY", help="only these")
    parser.add_argument("--kind", choices=["mariadb", "mysql"], help="which embedded server")
    options = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jobmon-benchmark-")))
        admin, accounts, server_pid = start_database(stack, directory, options.kind)
        jsm = accounts["jsm"]
        read_signatures(admin)
        announce(admin)
        client = DirectClient(jsm.conn_str())
        print("| while | rows/s | jobs/s | server CPU ms a job | transitions/s | p50 ms | p99 ms | most ms |")
        print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
        sized = False
        for way, arguments in WAYS.items():
            if options.only and way not in (*options.only, "alone"):
                continue
            if way != "alone":
                make_finished(client, way, options.jobs, options.edges)
                if not sized:
                    sizes, sized = table_sizes(admin), True
            arguments = dict(arguments)
            if arguments.get("archive") == "file":
                arguments["archive"] = str(directory / "archive.gz")
            # the load alone for the server's part in the CPU, too
            load = Load(jsm, options.clients)
            began, before = time.perf_counter(), cpu_seconds([server_pid])
            if way == "alone":
                time.sleep(options.seconds)
                per_second = (cpu_seconds([server_pid]) - before) / (time.perf_counter() - began)
                figures = load.end()
                per_transition = per_second / figures["transitions"]
                rows = jobs = cpu = ""
            else:
                result = prune(admin, older_than=0, **arguments)
                seconds = time.perf_counter() - began
                used = cpu_seconds([server_pid]) - before
                figures = load.end()
                assert (result.num_dags, result.num_jobs) == (1, options.jobs), result
                rows, jobs = f"{result.num_rows / seconds:.0f}", f"{result.num_jobs / seconds:.0f}"
                own = used - per_transition * figures["transitions"] * seconds
                cpu = f"{1000 * own / result.num_jobs:.2f}"
            print(
                f"| {way} | {rows} | {jobs} | {cpu} | {figures['transitions']:.0f} | {figures['p50']:.2f}"
                f" | {figures['p99']:.1f} | {figures['most']:.0f} |",
                flush=True,
            )
        if sized:
            print(f"\nsize with {options.jobs} finished jobs of {options.edges} edges (and the load's jobs)")
            print("| table | rows | bytes | bytes a row |\n| --- | ---: | ---: | ---: |")
            for table, count, size in sizes:
                print(f"| {table} | {count} | {size} | {size / count:.0f} |")
        make_finished(client, "to dump", options.jobs, options.edges)
        path = directory / "dump.gz"
        began = time.perf_counter()
        info = dump(admin, path)
        dumped = time.perf_counter() - began
        began = time.perf_counter()
        restored = restore(admin.with_database("jobmon_restored"), path, owner="benchmark_owner")
        took = time.perf_counter() - began
        print(
            f"\ndump: {info.num_rows} rows, {path.stat().st_size} bytes, {info.num_rows / dumped:.0f} rows/s;"
            f" restore: {info.num_rows / took:.0f} rows/s"
        )
        violations = audits(admin) | restored.violations
        print(f"audits: {violations or 'empty'}")
        if violations:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
