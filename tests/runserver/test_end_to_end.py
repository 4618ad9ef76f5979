"""./runserver.py for real: a database server, both services, and what happens to them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import requests
from ports import free_port
from waiting import until

from jobmon import config as configuration
from jobmon import runserver, supervised

PORTS = ("jsm_port", "jsm_management_port", "jqs_port", "db_port")


class Runserver:
    """./runserver.py with a home and ports of its own (without its first step, the virtual environment)."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.rc = home / ".jobmonrc"
        self.ports = {key: free_port() for key in PORTS}
        self.directory = home / ".local/state/jobmon" / configuration.release_info()["release"]
        foreign = ("JOBMON_", "XDG_")
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        self.environ |= {
            "HOME": str(home),
            "PYTHONPATH": str(Path(runserver.__file__).parent.parent),
            # A server that was found or installed for the tests serves here, too.
            "JOBMON_CACHE_DIR": str(configuration.cache_dir()),
        }
        self.rc.write_text(json.dumps(self.ports))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-P", "-m", "jobmon.runserver", *arguments]

    def __call__(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            self.command(*arguments), env=self.environ, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=300,
        )  # fmt: skip
        assert done.returncode == code, done.stdout
        assert "Traceback" not in done.stdout
        return done.stdout

    def pid(self, name: str) -> int:
        if name == "supervisor":
            try:
                return int((self.directory / "run/supervisord.pid").read_text())
            except (FileNotFoundError, ValueError):
                return 0
        found = re.search(rf"^{name} .* (\d+)$", self.shown(), re.MULTILINE)
        return int(found[1]) if found else 0

    def shown(self) -> str:
        """What status shows, whether all are ready or not."""
        done = subprocess.run(
            self.command("status"), env=self.environ, capture_output=True, text=True, timeout=120
        )
        return done.stdout

    def ready(self) -> int:
        """How many processes do their work."""
        return self.shown().count("(ready)")

    def call(self, method: str, service: str, route: str, **content: Any) -> requests.Response:
        with requests.Session() as session:
            session.trust_env = False
            token = json.loads(self.rc.read_text()).get("token")
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            url = f"http://127.0.0.1:{self.ports[f'{service}_port']}/{route}"
            return session.request(method, url, headers=headers, timeout=30, **content)

    def works(self) -> bool:
        try:
            body = {"name": "x", "user": "y", "dag_hash": "z"}
            return (
                self.call("POST", "jsm", "add_task_dag", json=body).status_code == 200
                and self.call("GET", "jqs", "get_jobs", params={"dag_id": 1}).status_code == 200
            )
        except requests.RequestException:
            return False

    def processes(self) -> list[psutil.Process]:
        return supervised.find(lambda tag: tag.startswith(str(self.directory)))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runserver]:
    """Jobmon, running detached; a test that stops it starts it again."""
    made = Runserver(tmp_path_factory.mktemp("home"))
    try:
        said = made("--embedded", "--detach")
        assert "is up" in said
        yield made
    finally:
        made("stop")


def test_it_is_up_and_the_rc_file_says_where(server: Runserver) -> None:
    document = json.loads(server.rc.read_text())
    assert server.rc.stat().st_mode & 0o777 == 0o600
    assert document["host"] == "127.0.0.1"
    assert {key: document[key] for key in PORTS} == server.ports
    assert server.works()
    response = requests.post(f"http://127.0.0.1:{server.ports['jsm_port']}/add_task_dag", json={}, timeout=30)
    assert response.status_code == 401
    assert server.call("GET", "jsm_management", "readyz").status_code == 200


def test_passwords_and_tokens_stand_in_private_files_only(server: Runserver) -> None:
    secrets = [json.loads(server.rc.read_text())["token"]]
    accounts = json.loads((server.directory / "accounts.json").read_text())["accounts"]
    secrets += [account["password"] for account in accounts.values()]
    assert len(secrets) >= 5
    for path in server.directory.rglob("*"):
        if path.is_file() and "db" not in path.relative_to(server.directory).parts[:1]:
            text = path.read_text(errors="replace")
            private = path.stat().st_mode & 0o077 == 0
            assert private or not any(secret in text for secret in secrets), path
    for process in server.processes():
        assert not any(secret in " ".join(process.cmdline()) for secret in secrets)


def test_status_lists_names_uptimes_and_ports(server: Runserver) -> None:
    deadline = time.monotonic() + 180
    while (shown := server.shown()).count("(ready)") < 4:  # a machine that is busy answers late
        assert time.monotonic() < deadline, shown
    head, *rows = shown.splitlines()
    assert head.split() == ["NAME", "STATUS", "PORTS", "PID"]
    assert [row.split()[0] for row in rows] == ["db", "jsm", "jqs", "monitor"]
    ports = (["db_port"], ["jsm_port", "jsm_management_port"], ["jqs_port"], [])
    for row, keys in zip(rows, ports, strict=True):
        assert re.search(r"Up \d+ (second|minute)s? \(ready\)", row)
        assert all(f"127.0.0.1:{server.ports[key]}" in row for key in keys)


def test_a_second_start_says_so_and_changes_nothing(server: Runserver) -> None:
    names = ("db", "jsm", "jqs", "monitor", "supervisor")
    pids = [server.pid(name) for name in names]
    began = time.monotonic()
    assert "already running" in server("--detach")
    assert "already running" in server()  # in the foreground: it belongs to the first one
    assert time.monotonic() - began < 60
    assert [server.pid(name) for name in names] == pids


def test_other_settings_than_the_running_ones_are_refused(server: Runserver) -> None:
    said = server("--detach", "--jsm-port", "1", code=1)
    assert f"jsm_port is {server.ports['jsm_port']}, not 1" in said
    assert "it wants a token" in server("--detach", "--no-token", code=1)
    assert server.works()


@pytest.mark.parametrize("name", ["db", "jsm", "jqs", "monitor"])
def test_what_is_killed_comes_back(server: Runserver, name: str) -> None:
    pid = server.pid(name)
    os.kill(pid, signal.SIGKILL)
    until(lambda: server.pid(name) not in (0, pid))
    until(server.works)
    until(lambda: server.ready() == 4)


def test_restart_restarts_one(server: Runserver) -> None:
    before = {name: server.pid(name) for name in ("db", "jsm", "jqs")}
    server("restart", "jqs")
    after = {name: server.pid(name) for name in ("db", "jsm", "jqs")}
    assert [name for name in before if before[name] != after[name]] == ["jqs"]
    server("restart", "db", "jsm")
    assert server.works()


def test_logs_show_the_end_of_what_was_printed(server: Runserver) -> None:
    server.works()
    assert len(server("logs", "jsm", "--tail", "2").splitlines()) == 2
    assert server("logs", "db", "--tail", "0") == ""
    assert "spawned: 'jsm'" in server("logs", "supervisor", "--tail", "1000")
    assert all(
        re.match(r"(db|jsm|jqs|monitor|supervisor) +\| ", line)
        for line in server("logs", "-n", "1").splitlines()
    )


def test_logs_follow(server: Runserver) -> None:
    with subprocess.Popen(
        server.command("logs", "supervisor", "--tail", "1", "-f"), env=server.environ,
        stdout=subprocess.PIPE, text=True,
    ) as follower:  # fmt: skip
        assert follower.stdout is not None
        assert follower.stdout.readline()  # it follows from here on
        server("restart", "jqs")
        line = follower.stdout.readline()
        follower.send_signal(signal.SIGINT)
        assert follower.wait(60) in (0, 130)
    assert "jqs" in line


def test_the_jobmon_command_finds_the_database(server: Runserver) -> None:
    done = subprocess.run(
        [sys.executable, "-P", "-m", "jobmon.cli", "db", "status"],
        env=server.environ, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_monitor_watches(server: Runserver) -> None:
    until(lambda: server.ready() == 4)
    done = subprocess.run(
        [sys.executable, "-P", "-m", "jobmon.cli", "status"],
        env=server.environ, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert "health monitor: looked" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout


def test_the_demo_runs_any_number_of_times(server: Runserver) -> None:
    for _ in range(2):
        said = server("--demo")
        assert "All 12 jobs ended as they should" in said
        assert "flaky (attempt 3 of 3): done" in said
        assert "doomed (attempt 2 of 2): failed, exit code 3" in said
        assert "[12/12 finished]" in said
        assert re.search(r"doomed +ERROR_FATAL +2 +2", said)
        assert "Stop it: ./runserver.py stop" in said
    assert server.works()
    workflows = server.call("GET", "jqs", "workflows").json()["workflows"]
    assert len({row["workflow_args"] for row in workflows}) == len(workflows) >= 2


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_a_killed_supervisor_comes_back_with_everything(server: Runserver) -> None:
    pid = server.pid("supervisor")
    os.kill(pid, signal.SIGKILL)
    until(lambda: server.pid("supervisor") not in (0, pid) and server.works())
    until(lambda: server.ready() == 4)


def test_everything_killed_at_once_is_no_hindrance(server: Runserver) -> None:
    def kill() -> list[psutil.Process]:
        found = server.processes()
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):  # it went with its parent
                process.kill()
        psutil.wait_procs(found, 60)
        return found

    until(lambda: not kill())  # what was killed first may have been started again by what was killed last
    said = server("status", code=3)
    assert said.count("Stopped") == 4
    assert "is up" in server("--detach")
    assert server.works()


def test_stop_leaves_no_process_and_frees_the_ports(server: Runserver) -> None:
    began = time.monotonic()
    said = server("stop")
    assert time.monotonic() - began < 60
    assert [line.split()[1] for line in said.splitlines() if line.startswith("Stopping")] == [
        "monitor",
        "jqs",
        "jsm",
        "db",
    ]
    assert server.processes() == []
    for port in server.ports.values():
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(("127.0.0.1", port))
    assert "Shutdown complete" in server("logs", "db", "--tail", "20"), "the database was not stopped cleanly"
    assert "not running" in server("stop")
    server("status", code=3)
    server("restart", "jsm", code=1)
    assert "is up" in server("--detach")


def test_no_token_serves_without_one(server: Runserver) -> None:
    server("stop")
    try:
        server("--detach", "--no-token")
        assert "token" not in json.loads(server.rc.read_text())
        assert server.works()
    finally:
        server("stop")
        server("--detach")
    assert "token" in json.loads(server.rc.read_text())


def test_a_taken_port_stops_nothing_and_starts_nothing(server: Runserver) -> None:
    server("stop")
    try:
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", server.ports["jqs_port"]))
            other.listen()
            said = server("--detach", code=1)
            assert f"jqs_port {server.ports['jqs_port']} is in use" in said
            assert server.processes() == []
    finally:
        server("--detach")


def start_in_foreground(server: Runserver) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        server.command(), env=server.environ, stdin=subprocess.DEVNULL, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("Ctrl-C stops everything"):
            return process
    raise AssertionError("it did not start")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_in_the_foreground_a_signal_stops_everything(server: Runserver, number: signal.Signals) -> None:
    server("stop")
    try:
        process = start_in_foreground(server)
        assert server.works()
        process.send_signal(number)
        said, _ = process.communicate(timeout=180)
        assert process.returncode == 0, said
        assert said.splitlines()[-1] == "Stopped."
        assert server.processes() == []
    finally:
        server("--detach")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_in_the_foreground_a_killed_supervisor_is_started_again(server: Runserver) -> None:
    server("stop")
    try:
        process = start_in_foreground(server)
        pid = server.pid("supervisor")
        os.kill(pid, signal.SIGKILL)
        until(lambda: server.pid("supervisor") not in (0, pid))
        until(server.works)
        server("stop")
        said, _ = process.communicate(timeout=180)
        assert "The supervisor was killed (signal 9)" in said
        assert "stopped by another command" in said
        assert process.returncode == 0
    finally:
        server("--detach")


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process that its parent died")
def test_in_the_foreground_killed_everything_ends(server: Runserver) -> None:
    server("stop")
    try:
        process = start_in_foreground(server)
        process.kill()
        process.communicate(timeout=60)
        until(lambda: not server.processes())
    finally:
        server("--detach")


def test_two_starts_at_once_start_once(server: Runserver) -> None:
    server("stop")
    starts = [
        subprocess.Popen(
            server.command("--detach"), env=server.environ, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for _ in range(3)
    ]  # fmt: skip
    said = [start.communicate(timeout=300)[0] for start in starts]
    assert [start.returncode for start in starts] == [0, 0, 0], said
    assert sum("already running" in text for text in said) == 2
    assert server.works()
