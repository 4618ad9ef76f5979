#!/usr/bin/env python3
"""What a transition costs: whole lifecycles by direct CALL, over HTTP, and in bulk, on one server in one run.

A lifecycle is add, queue, instantiate, executor id, running, done: six transitions of one job. Each figure
is taken ``--rounds`` times, the ways in turn (machines are noisy, ratios within a round less so), and the
median is printed. CPU milliseconds come from /proc: those of the database server's and the JSM's processes,
not the clients'.

    python benchmarks/transitions.py                    # a private server, durable settings, its own port
    python benchmarks/transitions.py --seconds 3 --rounds 1 --json figures.json
    JOBMON_DB_SERVER=/usr/local/mysql python benchmarks/transitions.py --kind mysql
    python benchmarks/transitions.py --url mysql+pymysql://root@127.0.0.1:3306 --pid 4711   # a running server

At the end the audit views are read; the figures count only if they are empty.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing as mp
import os
import platform
import secrets
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from jobmon.config import read_accounts
from jobmon.db import grants, migrate
from jobmon.db.connect import ConnectionSpec, call_with_retry, connect
from jobmon.db.embedded import EmbeddedServer, find_server, free_port

TICKS = os.sysconf("SC_CLK_TCK")
TRANSITIONS = 6
BULK_CHUNK = 1000  # jobs in a bulk call
CLIENT_PROCESSES = 2  # the clients' threads are shared out to so many processes


def cpu_seconds(pids: list[int]) -> float:
    """User and system time of the processes and of all their descendants, in seconds."""
    children: dict[int, list[int]] = {}
    ticks: dict[int, int] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except OSError:
                continue
            children.setdefault(int(fields[1]), []).append(int(entry.name))
            ticks[int(entry.name)] = int(fields[11]) + int(fields[12])
    todo, total = list(pids), 0
    while todo:
        pid = todo.pop()
        total += ticks.get(pid, 0)
        todo.extend(children.get(pid, []))
    return total / TICKS


# Clients -------------------------------------------------------------------------------------------


class DirectClient:
    """Calls the procedures as the JSM account."""

    def __init__(self, conn_str: str) -> None:
        self.connection = connect(ConnectionSpec.parse(conn_str))

    def call(self, procedure: str, /, **body: Any) -> Any:
        arguments = ", ".join(["%s"] * len(SIGNATURES[procedure]))
        values = [body.get(name) for name in SIGNATURES[procedure]]
        return call_with_retry(lambda: self._call(f"CALL {procedure}({arguments})", values))

    def _call(self, statement: str, values: list[Any]) -> Any:
        with self.connection.cursor() as cursor:
            cursor.execute(statement, values)
            document = cursor.fetchall()[0][0]
            while cursor.nextset():
                pass
        return json.loads(document)


class HttpClient:
    """Speaks HTTP/1.1 on a bare socket, so that the load costs little beside what it measures."""

    def __init__(self, address: str, keep_alive: bool = True) -> None:
        host, port = address.split(":")
        self.address = (host, int(port))
        self.keep_alive = keep_alive
        self.socket: socket.socket | None = None

    def call(self, procedure: str, /, **body: Any) -> Any:
        content = json.dumps(body).encode()
        connection = "keep-alive" if self.keep_alive else "close"
        request = (
            f"POST /{procedure} HTTP/1.1\r\nHost: jobmon\r\nContent-Type: application/json\r\n"
            f"Connection: {connection}\r\nContent-Length: {len(content)}\r\n\r\n"
        ).encode() + content
        if self.socket is None:
            self.socket = socket.create_connection(self.address, timeout=60)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data:
            data += self._receive()
        head, _, answer = data.partition(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        while len(answer) < length:
            answer += self._receive()
        if not self.keep_alive:
            self.socket.close()
            self.socket = None
        if not head.startswith(b"HTTP/1.1 200"):
            raise RuntimeError(f"{procedure}: {head.splitlines()[0]!r} {answer!r}")
        return json.loads(answer)

    def _receive(self) -> bytes:
        assert self.socket is not None
        chunk = self.socket.recv(65536)
        if not chunk:
            raise RuntimeError("the server closed the connection")
        return chunk


SIGNATURES: dict[str, list[str]] = {}


def read_signatures(spec: ConnectionSpec) -> None:
    """The procedures' parameters, for DirectClient."""
    with connect(spec) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT SPECIFIC_NAME, PARAMETER_NAME FROM information_schema.PARAMETERS"
            " WHERE SPECIFIC_SCHEMA = DATABASE() AND ROUTINE_TYPE = 'PROCEDURE'"
            " ORDER BY SPECIFIC_NAME, ORDINAL_POSITION"
        )
        for procedure, parameter in cursor.fetchall():
            SIGNATURES.setdefault(procedure, []).append(parameter.removeprefix("in_"))


def make_client(way: str, target: str) -> DirectClient | HttpClient:
    if way in ("direct", "bulk"):
        return DirectClient(target)
    return HttpClient(target, keep_alive=way == "http")


def lifecycles(
    client: DirectClient | HttpClient, dag_id: int, stop: Callable[[], bool], latencies: list[float]
) -> None:
    """One lifecycle after the other until stop() says so. latencies: seconds of each call."""

    def call(procedure: str, /, **body: Any) -> Any:
        started = time.perf_counter()
        answer = client.call(procedure, **body)
        latencies.append(time.perf_counter() - started)
        return answer

    number = 0
    while not stop():
        number += 1
        job = call(
            "add_job", dag_id=dag_id, name="benchmark", job_hash=str(number), command="true", max_attempts=3
        )
        job_id = job["job_dct"]["job_id"]
        call("queue_job", job_id=job_id)
        job_instance_id = call("add_job_instance", job_id=job_id, executor_type="Benchmark")[
            "job_instance_id"
        ]
        call("log_executor_id", job_instance_id=job_instance_id, executor_id=str(number))
        call("log_running", job_instance_id=job_instance_id, nodename="node", process_group_id=number)
        call("log_done", job_instance_id=job_instance_id)


def bulk_lifecycles(
    client: DirectClient, dag_id: int, stop: Callable[[], bool], latencies: list[float]
) -> None:
    """The same for BULK_CHUNK jobs at a time. latencies: one entry a transition, its share of a chunk."""
    first = 0
    while not stop():
        started = time.perf_counter()
        jobs = [
            {"name": "benchmark", "job_hash": str(number), "command": "true", "max_attempts": 3}
            for number in range(first, first + BULK_CHUNK)
        ]
        first += BULK_CHUNK
        client.call("add_jobs", dag_id=dag_id, jobs=json.dumps(jobs))
        client.call("queue_jobs", dag_id=dag_id)
        claimed = client.call(
            "claim_jobs", executor_type="Benchmark", dag_id=dag_id, max_jobs=BULK_CHUNK, lease_seconds=300
        )
        ids = [job_instance["job_instance_id"] for job_instance in claimed["job_instances"]]
        assert len(ids) == BULK_CHUNK
        for event, fields in (
            ("executor_id", {"executor_id": "1"}),
            ("running", {"nodename": "node", "process_group_id": 1}),
            ("done", {}),
        ):
            events = [{"event": event, "job_instance_id": number, **fields} for number in ids]
            outcomes = client.call("log_events", events=json.dumps(events))["outcomes"]
            assert len(outcomes) == BULK_CHUNK and all(outcome["code"] == "OK" for outcome in outcomes)
        share = (time.perf_counter() - started) / (BULK_CHUNK * TRANSITIONS)
        latencies.extend([share] * (BULK_CHUNK * TRANSITIONS))


def client_process(
    way: str,
    target: str,
    clients: int,
    seconds: float,
    signatures: dict[str, list[str]],
    barrier: Any,
    results: Any,
) -> None:
    """Runs some of the clients, one thread each; puts (latencies, errors) into results."""
    SIGNATURES.update(signatures)
    latencies: list[list[float]] = [[] for _ in range(clients)]
    errors: list[str] = []
    connected = threading.Barrier(clients + 1)
    deadline = [0.0]

    def run(number: int) -> None:
        try:
            client = make_client(way, target)
            dag_id = client.call(
                "add_task_dag", name="benchmark", user="benchmark", dag_hash=secrets.token_hex(20)
            )["dag_id"]
            connected.wait()
            connected.wait()
            work: Callable[..., None] = bulk_lifecycles if way == "bulk" else lifecycles
            work(client, dag_id, lambda: time.perf_counter() >= deadline[0], latencies[number])
        except Exception as error:
            errors.append(f"{type(error).__name__}: {error}"[:300])
            connected.abort()

    threads = [threading.Thread(target=run, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    try:
        connected.wait()
        barrier.wait()
        deadline[0] = time.perf_counter() + seconds
        connected.wait()
    except threading.BrokenBarrierError:
        barrier.abort()
    for thread in threads:
        thread.join()
    results.put(([value for part in latencies for value in part], errors))


def measure(
    way: str, target: str, clients: int, seconds: float, database_pids: list[int], shim_pids: list[int]
) -> dict[str, float]:
    """One figure of one way. Raises RuntimeError if a client failed."""
    processes = min(CLIENT_PROCESSES, clients)
    shares = [clients // processes + (number < clients % processes) for number in range(processes)]
    context = mp.get_context("spawn")
    barrier, results = context.Barrier(processes + 1), context.Queue()
    workers = [
        context.Process(
            target=client_process, args=(way, target, share, seconds, SIGNATURES, barrier, results)
        )
        for share in shares
    ]
    for worker in workers:
        worker.start()
    with suppress(threading.BrokenBarrierError):
        barrier.wait(timeout=60)
    database, shim, started = cpu_seconds(database_pids), cpu_seconds(shim_pids), time.perf_counter()
    gathered = [results.get() for _ in workers]
    elapsed = time.perf_counter() - started
    database, shim = cpu_seconds(database_pids) - database, cpu_seconds(shim_pids) - shim
    for worker in workers:
        worker.join()
    errors = [error for _, some in gathered for error in some]
    if errors:
        raise RuntimeError(f"{way} with {clients} clients: {len(errors)} errors, the first: {errors[0]}")
    latencies = sorted(value for some, _ in gathered for value in some)
    count = len(latencies)
    return {
        "transitions_per_second": count / elapsed,
        "p50_ms": 1000 * latencies[count // 2],
        "p99_ms": 1000 * latencies[min(count - 1, count * 99 // 100)],
        "database_cpu_ms": 1000 * database / count,
        "shim_cpu_ms": 1000 * shim / count,
        "transitions": count,
    }


# The parts under test ------------------------------------------------------------------------------


def start_service(stack: ExitStack, directory: Path, name: str, spec: ConnectionSpec) -> tuple[str, int]:
    """Starts a service without token on a free loopback port.

    Parameters:
        name: ``jsm`` or ``jqs``.
        spec: the database, as that service's account.

    Returns:
        Its address and process id.
    """
    port = free_port()
    environment = {
        **os.environ,
        "HOME": str(directory),
        f"JOBMON_{name.upper()}_CONN_STR": spec.conn_str(),
        f"JOBMON_{name.upper()}_PORT": str(port),
        "JOBMON_JSM_MANAGEMENT_PORT": str(free_port()),
        "JOBMON_BIND": "127.0.0.1",
    }
    command = {"jsm": "job_state_manager", "jqs": "job_query_server"}[name]
    log = stack.enter_context((directory / f"{name}.log").open("wb"))
    process = subprocess.Popen(
        [sys.executable, "-m", "jobmon.cli", "start", command], env=environment, stdout=log, stderr=log
    )

    def stop() -> None:
        process.send_signal(signal.SIGTERM)
        process.wait(30)

    stack.callback(stop)
    deadline = time.monotonic() + 60
    while True:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(b"GET /readyz HTTP/1.1\r\nHost: jobmon\r\nConnection: close\r\n\r\n")
                if connection.recv(100).startswith(b"HTTP/1.1 200"):
                    return f"127.0.0.1:{port}", process.pid
        except OSError:
            pass
        if process.poll() is not None or time.monotonic() > deadline:
            raise SystemExit(f"{name} did not start:\n{Path(log.name).read_bytes().decode()[-2000:]}")
        time.sleep(0.1)


def start_database(
    stack: ExitStack, directory: Path, kind: str | None
) -> tuple[ConnectionSpec, dict[str, ConnectionSpec], int]:
    """A private durable server with a migrated database.

    Parameters:
        kind: mariadb or mysql; None: what is found.

    Returns:
        The database as its administrator, and as the accounts jsm and jqs; the server's process id.
    """
    server = EmbeddedServer(directory / "db", free_port(), binaries=find_server(kind=kind))
    stack.enter_context(server)
    assert server.pid is not None
    admin = server.root_spec.with_database("jobmon_benchmark")
    migrate.migrate(admin, owner="benchmark_owner")
    accounts_file = directory / "accounts.json"
    grants.apply_grants(admin, accounts_file=accounts_file, prefix="benchmark_")
    accounts = read_accounts(accounts_file)["accounts"]
    specs = {
        name: admin.with_account(accounts[name]["user"], accounts[name]["password"])
        for name in ("jsm", "jqs")
    }
    return admin, specs, server.pid


def announce(admin: ConnectionSpec) -> str:
    """Print what the figures are taken on; gives the server's version."""
    with connect(admin) as connection, connection.cursor() as cursor:
        cursor.execute("SELECT VERSION(), @@innodb_flush_log_at_trx_commit")
        version, durable = cursor.fetchall()[0]
    print(f"{machine()}; {version}, innodb_flush_log_at_trx_commit={durable}", flush=True)
    return str(version)


def audits(spec: ConnectionSpec) -> dict[str, int]:
    """The number of rows of each audit view that is not empty."""
    with connect(spec) as connection, connection.cursor() as cursor:
        cursor.execute(
            "SELECT TABLE_NAME FROM information_schema.VIEWS"
            " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME LIKE 'audit%'"
        )
        found = {}
        for (view,) in cursor.fetchall():
            cursor.execute(f"SELECT COUNT(*) FROM {view}")
            found[view] = cursor.fetchall()[0][0]
    return {view: count for view, count in found.items() if count}


def machine() -> str:
    model = next(
        (
            line.split(":")[1].strip()
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if "model name" in line
        ),
        "?",
    )
    return f"{os.cpu_count()} cores ({model}), Python {platform.python_version()}"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=6, help="length of one figure")
    parser.add_argument("--rounds", type=int, default=3, help="how often each figure is taken")
    parser.add_argument(
        "--kind", choices=["mariadb", "mysql"], help="which embedded server (default: what is found)"
    )
    parser.add_argument(
        "--server-option", action="append", default=[], help="one more option for the embedded server"
    )
    parser.add_argument(
        "--url", help="an admin conn_str of a server that runs already, instead of an embedded one"
    )
    parser.add_argument("--pid", type=int, help="that server's process id, if it is on this machine")
    parser.add_argument(
        "--only", nargs="*", metavar="WAY,CLIENTS", help="only these figures, for example http,16"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jobmon-benchmark-")))
        name = f"jobmon_benchmark_{secrets.token_hex(3)}"
        if options.url:
            admin, database_pids = ConnectionSpec.parse(options.url), [options.pid] if options.pid else []
        else:
            server = EmbeddedServer(
                directory / "db",
                free_port(),
                binaries=find_server(kind=options.kind),
                extra_args=options.server_option,
            )
            stack.enter_context(server)
            assert server.pid is not None
            admin, database_pids = server.root_spec, [server.pid]
        admin = admin.with_database(name)
        prefix = f"{name[-6:]}_"
        migrate.migrate(admin, owner=f"{prefix}owner")
        accounts_file = directory / "accounts.json"
        grants.apply_grants(admin, accounts_file=accounts_file, prefix=prefix)
        if options.url:
            stack.callback(grants.drop_accounts, admin, prefix=prefix)
            stack.callback(lambda: connect(admin).cursor().execute(f"DROP DATABASE {name}"))
        account = read_accounts(accounts_file)["accounts"]["jsm"]
        jsm = admin.with_account(account["user"], account["password"])
        read_signatures(admin)
        address, shim_pid = start_service(stack, directory, "jsm", jsm)
        version = announce(admin)
        ways = [
            *[(way, clients) for clients in (1, 16, 64) for way in ("direct", "http")],
            ("http new connections", 16),
            ("bulk", 1),
            ("bulk", 2),
        ]
        if options.only:
            ways = [(way, clients) for way, clients in ways if f"{way},{clients}" in options.only]
        rounds: dict[str, list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for way, clients in ways:
                target = address if way.startswith("http") else jsm.conn_str()
                figure = measure(
                    way,
                    target,
                    clients,
                    options.seconds,
                    database_pids,
                    [shim_pid] if way.startswith("http") else [],
                )
                rounds.setdefault(f"{way}, {clients}", []).append(figure)
        violations = audits(admin)
        figures = {
            key: {name: statistics.median(f[name] for f in some) for name in some[0]}
            for key, some in rounds.items()
        }
        print(f"median of {options.rounds} rounds of {options.seconds:g} s")
        print("| way, clients | transitions/s | p50 ms | p99 ms | database CPU ms | shim CPU ms | both |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        for key, figure in figures.items():
            both = figure["database_cpu_ms"] + figure["shim_cpu_ms"]
            print(
                f"| {key} | {figure['transitions_per_second']:.0f}"
                f" | {figure['p50_ms']:.2f} | {figure['p99_ms']:.2f} |"
                f" {figure['database_cpu_ms']:.3f} | {figure['shim_cpu_ms']:.3f} | {both:.3f} |"
            )
        if {"http, 16", "direct, 16"} <= rounds.keys():
            ratio = statistics.median(
                http["transitions_per_second"] / direct["transitions_per_second"]
                for http, direct in zip(rounds["http, 16"], rounds["direct, 16"], strict=True)
            )
            print(f"HTTP at 16 clients: {100 * ratio:.0f} % of direct CALL at 16 clients")
        if "http, 64" in figures:
            spread = figures["http, 64"]["p99_ms"] / figures["http, 64"]["p50_ms"]
            print(f"HTTP at 64 clients: p99 is {spread:.1f} times p50, no errors")
        for key in figures:
            if key.startswith("bulk"):
                print(f"{key}: {figures[key]['transitions_per_second'] / TRANSITIONS:.0f} lifecycles/s")
        print(f"audits: {violations or 'empty'}")
        if options.json:
            options.json.write_text(
                json.dumps({"machine": machine(), "server": version, "figures": figures}, indent=1)
            )
        if violations:
            raise SystemExit(1)


if __name__ == "__main__":
    main()
