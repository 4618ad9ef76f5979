"""Compares WSGI servers for JSM: granian, gunicorn (gthread) and waitress in front of the same application.

It makes a database with one trivial procedure, serves JSM on each server in turn, and sends calls at 1, 16
and 64 clients. Measured are calls/s, the median and 99th percentile of the latency, and the CPU time that
server and application together use per call (from /proc, so Linux only). The load generator shares the
machine's cores.

    python benchmarks/wsgi_servers.py mysql://root@127.0.0.1:3306/ [--seconds 5] [--clients 1,16,64]
    [--new-connections]

The account must be allowed to create a database and a user; both are dropped at the end. Needs the packages
gunicorn and waitress beside Jobmon's own.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import secrets
import selectors
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from jobmon.config import Config, load_config
from jobmon.db.connect import ConnectionSpec, connect

TICK = os.sysconf("SC_CLK_TCK")
SETTING = "WSGI_BENCHMARK"  # environment variable that carries the configuration to the child processes
BODY = b'{"job_instance_id": "12", "nodename": "node-1.example.org", "process_group_id": "4711"}'


# -----------------------------------------------------------------------------------------------------------
# The servers, each in a child process


def config_of_child() -> Config:
    """The configuration the parent wrote into the environment."""
    return load_config(env={"HOME": "/nonexistent"}, overrides=json.loads(os.environ[SETTING]))


def application() -> Any:
    """JSM's application, for gunicorn."""
    from jobmon.thin_jsm.app import create_app

    return create_app(config_of_child()).wsgi_app


def run_child(name: str, workers: int, threads: int) -> None:
    """Serve in this process until SIGTERM."""
    config = config_of_child()
    if name == "granian":
        from jobmon.thin_common.serve import serve

        serve("jsm", config)
    elif name == "gunicorn":
        os.chdir(Path(__file__).parent)
        bind = f"{config.bind}:{config.jsm_port}"
        options = f"-k gthread -w {workers} --threads {threads} -b {bind} --keep-alive 60 --log-level error"
        command = [sys.executable, "-m", "gunicorn", *options.split(), "wsgi_servers:application()"]
        os.execv(sys.executable, command)
    else:
        import waitress

        address = {"host": config.bind, "port": config.jsm_port}
        waitress.serve(application(), **address, threads=threads, connection_limit=1000)


def cpu_seconds(root: int) -> float:
    """CPU time used so far by a process and its living descendants, seconds."""
    parents: dict[int, tuple[int, float]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                parents[int(entry.name)] = (int(fields[1]), (int(fields[11]) + int(fields[12])) / TICK)
    family = {root}
    while True:
        more = {pid for pid, (parent, _) in parents.items() if parent in family} - family
        if not more:
            return sum(parents[pid][1] for pid in family if pid in parents)
        family |= more


@contextlib.contextmanager
def served(name: str, settings: dict[str, Any], workers: int, threads: int) -> Iterator[int]:
    """A server in a child process; gives its process id."""
    environment = {**os.environ, SETTING: json.dumps({**settings, "workers": workers, "threads": threads})}
    command = [sys.executable, __file__, "--child", f"{name}:{workers}:{threads}"]
    with open(os.devnull, "wb") as nowhere:
        child = subprocess.Popen(command, env=environment, stderr=nowhere, start_new_session=True)
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                with urlopen(f"http://127.0.0.1:{settings['jsm_port']}/healthz", timeout=1) as answer:
                    answer.read()
                break
            except OSError:
                if time.monotonic() > deadline or child.poll() is not None:
                    raise SystemExit(f"{name} did not start") from None
                time.sleep(0.1)
        yield child.pid
    finally:
        child.send_signal(signal.SIGTERM)
        try:
            child.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


# -----------------------------------------------------------------------------------------------------------
# The load


class Client:
    """One client: sends a call, waits for its answer, sends the next."""

    def __init__(self, port: int, request: bytes, keep: bool) -> None:
        self.port, self.request, self.keep = port, request, keep
        self.socket: socket.socket | None = None
        self.began = 0.0
        self.received = b""

    def send(self) -> socket.socket:
        """Send the request; a new connection if there is none."""
        self.began = time.perf_counter()
        if self.socket is None:
            self.socket = socket.create_connection(("127.0.0.1", self.port))
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(self.request)
        self.received = b""
        return self.socket

    def receive(self) -> int | None:
        """Take what came; the status once the answer is complete."""
        assert self.socket is not None
        self.received += self.socket.recv(65536)
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator:
            return None
        lines = head.lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        if len(body) < length:
            return None
        return int(lines[0].split()[1])


def load(port: int, clients: int, seconds: float, keep: bool) -> tuple[list[float], int]:
    """Keep ``clients`` busy for ``seconds``; the latencies in seconds, and how many answers were not 200."""
    head = "POST /log_running HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    if not keep:
        head += "Connection: close\r\n"
    request = f"{head}Content-Length: {len(BODY)}\r\n\r\n".encode() + BODY
    selector = selectors.DefaultSelector()
    for _ in range(clients):
        client = Client(port, request, keep)
        selector.register(client.send(), selectors.EVENT_READ, client)
    latencies: list[float] = []
    errors = 0
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        for key, _ in selector.select(1.0):
            client = key.data
            status = client.receive()
            if status is None:
                continue
            latencies.append(time.perf_counter() - client.began)
            errors += status != 200
            if not keep:
                selector.unregister(client.socket)
                client.socket.close()
                client.socket = None
                selector.register(client.send(), selectors.EVENT_READ, client)
            else:
                client.send()
    for key in list(selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]
    return latencies, errors


# -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def toy_database(admin: ConnectionSpec) -> Iterator[ConnectionSpec]:
    """A database with one trivial procedure and an account that may execute it."""
    name = "wsgi_benchmark_" + secrets.token_hex(4)
    password = secrets.token_hex(12)
    connection = connect(admin)
    cursor = connection.cursor()
    cursor.execute(f"CREATE DATABASE {name} CHARACTER SET utf8mb4")
    try:
        cursor.execute(f"USE {name}")
        cursor.execute(
            "CREATE PROCEDURE log_running(in_job_instance_id BIGINT UNSIGNED, in_nodename VARCHAR(255),"
            " in_process_group_id BIGINT) SQL SECURITY DEFINER"
            " BEGIN SELECT JSON_OBJECT('message', '') AS document; END"
        )
        cursor.execute(f"CREATE USER '{name}'@'%%' IDENTIFIED BY %s", (password,))
        try:
            cursor.execute(f"GRANT EXECUTE ON PROCEDURE {name}.log_running TO '{name}'@'%'")
            yield admin.with_account(name, password).with_database(name)
        finally:
            cursor.execute(f"DROP USER '{name}'@'%'")
    finally:
        cursor.execute(f"DROP DATABASE {name}")
        connection.close()


def free_port() -> int:
    """A port that nobody uses right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    """Measure and print one line per server and number of clients, as a table in Markdown."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=raw)
    parser.add_argument("url", nargs="?", help="conn_str of an account that may create databases and users")
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each measurement")
    parser.add_argument("--clients", default="1,16,64", help="numbers of clients")
    parser.add_argument(
        "--servers",
        default="granian:1:12,granian:2:12,granian:2:128,gunicorn:1:12,gunicorn:2:12,waitress:1:12",
        help="name:workers:threads, comma separated",
    )
    parser.add_argument("--pool-size", type=int, default=8, help="database connections per worker")
    parser.add_argument("--new-connections", action="store_true", help="a new TCP connection for each call")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        name, workers, threads = arguments.child.split(":")
        run_child(name, int(workers), int(threads))
        return
    if not arguments.url:
        parser.error("the conn_str of a database is needed")
    print("| server | workers | threads | clients | calls/s | p50 ms | p99 ms | CPU ms per call | not 200 |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    with toy_database(ConnectionSpec.parse(arguments.url)) as spec:
        for server in arguments.servers.split(","):
            name, workers, threads = server.split(":")
            settings = {
                "jsm_conn_str": spec.conn_str(),
                "jsm_port": free_port(),
                "jsm_management_port": free_port(),
                "pool_size": arguments.pool_size,
            }
            with served(name, settings, int(workers), int(threads)) as pid:
                load(settings["jsm_port"], 16, 1.0, True)
                for clients in map(int, arguments.clients.split(",")):
                    before = cpu_seconds(pid)
                    latencies, errors = load(
                        settings["jsm_port"], clients, arguments.seconds, not arguments.new_connections
                    )
                    cpu = cpu_seconds(pid) - before
                    p50 = statistics.median(latencies) * 1e3
                    p99 = statistics.quantiles(latencies, n=100)[98] * 1e3
                    rate = len(latencies) / arguments.seconds
                    print(
                        f"| {name} | {workers} | {threads} | {clients} | {rate:.0f} | {p50:.2f} | {p99:.2f} "
                        f"| {cpu / len(latencies) * 1e3:.3f} | {errors} |",
                        flush=True,
                    )


if __name__ == "__main__":
    main()
