"""Callers, the database and JSM die at any moment: what was acknowledged stays, nothing is stuck."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pymysql
import pytest
import requests
from ports import free_port
from race_helpers import Database, Refused, job_history, make_dag, make_jobs, wait_until

from jobmon.config import load_config, read_accounts
from jobmon.db import grants, migrate
from jobmon.db.connect import ConnectionSpec, connect, is_lost_connection
from jobmon.db.embedded import EmbeddedServer, ServerNotFoundError, find_server

# A caller that dies ---------------------------------------------------------------------------------------

STEPS = ["queued", "instantiated", "submitted", "running", "done"]


def live_until(race: Database, conn: Any, job_id: int, last: str, *, leased: bool) -> None:
    """Take a job through its life, one call after the other, and stop after the step ``last``."""
    for step in STEPS[: STEPS.index(last) + 1]:
        if step == "queued":
            race.once(conn, "queue_job", job_id=job_id)
        elif step == "instantiated":
            lease = 600 if leased else None
            document = race.once(
                conn, "add_job_instance", job_id=job_id, executor_type="Crash", lease_seconds=lease
            )
            instance = document["job_instance_id"]
        elif step == "submitted":
            race.once(conn, "log_executor_id", job_instance_id=instance, executor_id="1")
        elif step == "running":
            race.once(conn, "log_running", job_instance_id=instance)
        else:
            race.once(conn, "log_done", job_instance_id=instance)


@pytest.mark.parametrize("leased", [True, False], ids=["leased", "emu client"])
@pytest.mark.parametrize("committed", [True, False], ids=["between calls", "within a transaction"])
@pytest.mark.parametrize("last", STEPS)
def test_the_caller_dies(race: Database, last: str, committed: bool, leased: bool) -> None:
    """After any of its calls, or with none of them committed; somebody else can carry on."""
    conn = race.connect()
    dag_id = make_dag(race, conn)
    [job_id] = make_jobs(race, conn, dag_id, 1)
    dying = race.connect(autocommit=False)
    live_until(race, dying, job_id, last, leased=leased)
    if committed:
        dying.commit()
    thread_id = dying.thread_id()  # type: ignore[no-untyped-call]
    dying._force_close()  # type: ignore[attr-defined]  # no farewell: the server sees the socket close
    wait_until(
        lambda: not race.query("SELECT 1 FROM information_schema.PROCESSLIST WHERE ID = %s", thread_id)
    )
    assert race.violations() == {}
    histories = dict(zip(STEPS, ["GQ", "GQI", "GQI", "GQIR", "GQIRD"], strict=True))
    assert job_history(race, job_id) == (histories[last] if committed else "G")
    rescue(race, conn, dag_id)
    status, attempts = race.query("SELECT status, num_attempts FROM job WHERE job_id = %s", job_id)[0]
    assert status == "D"
    assert attempts <= 2
    assert race.value("SELECT COUNT(*) FROM job_instance WHERE status IN ('I', 'B', 'R')") == 0


def rescue(race: Database, conn: Any, dag_id: int) -> None:
    """What others do when a caller is gone: the reaper after the lease, a resuming client for the rest."""
    with race.connect("admin").cursor() as cursor:
        cursor.execute(
            "UPDATE job_instance SET report_by_date = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND"
            " WHERE report_by_date IS NOT NULL"
        )
    race.call(conn, "expire_job_instances")
    # Until it is submitted an instance is always watched.
    assert race.value("SELECT COUNT(*) FROM job_instance WHERE status = 'I'") == 0
    if race.value("SELECT COUNT(*) FROM job_instance WHERE status IN ('B', 'R')"):
        race.call(conn, "reset_incomplete_jobs", dag_id=dag_id)
    race.call(conn, "queue_jobs", dag_id=dag_id)
    claimed = race.call(conn, "claim_jobs", executor_type="Rescue", dag_id=dag_id)["job_instances"]
    for one in claimed:
        race.call(conn, "log_running", job_instance_id=one["job_instance_id"])
        race.call(conn, "log_done", job_instance_id=one["job_instance_id"])


# A database that dies -------------------------------------------------------------------------------------


class OwnDatabase:
    """A database on a server of the test's own."""

    def __init__(self, embedded: EmbeddedServer, directory: Path) -> None:
        self.admin = embedded.root_spec.with_database("jobmon_crash")
        self.directory = directory
        migrate.migrate(self.admin, owner="crash_owner")
        grants.apply_grants(self.admin, prefix="crash_", accounts_file=directory / "accounts.json")

    def spec(self, role: str) -> ConnectionSpec:
        """Where and as whom to connect."""
        if role == "admin":
            return self.admin
        account = read_accounts(self.directory / "accounts.json")["accounts"][role]
        return self.admin.with_account(account["user"], account["password"])


@pytest.fixture
def embedded() -> Iterator[EmbeddedServer]:
    """A durable server, for the test to kill."""
    try:
        find_server()
    except ServerNotFoundError as error:
        if os.environ.get("CI") == "true":
            pytest.fail(str(error), pytrace=False)
        pytest.skip(f"there is no database server to kill: {error}")
    # Not pytest's directory: a socket's path must be short.
    directory = Path(tempfile.mkdtemp(prefix="jobmon-crash-"))
    server = EmbeddedServer(directory / "data", durable=True)
    try:
        server.start()
        yield server
    finally:
        with contextlib.suppress(Exception):
            server.stop()
        shutil.rmtree(directory, ignore_errors=True)


class Lives:
    """Callers that take jobs through their lives and repeat every call until it is answered."""

    def __init__(self, call: Callable[..., Any], clients: int) -> None:
        self.call, self.stop = call, threading.Event()
        self.acknowledged: list[tuple[int, str]] = []  # job and letter
        self.failures: list[BaseException] = []
        self.threads = [threading.Thread(target=self.live, args=(n,)) for n in range(clients)]
        for thread in self.threads:
            thread.start()

    def live(self, client: int) -> None:
        """Jobs without end."""
        try:
            document = self.call(
                client, "add_task_dag", user="ann", dag_hash="x", request_key=f"dag-{client}"
            )
            number = 0
            while not self.stop.is_set():
                number += 1
                self.one(client, document["dag_id"], number)
        except BaseException as error:
            self.failures.append(error)

    def one(self, client: int, dag_id: int, number: int) -> None:
        """One life; every third job fails."""
        document = self.call(
            client, "add_job", dag_id=dag_id, name="j", job_hash=str(number), command="true", max_attempts=1
        )
        job_id = document["job_dct"]["job_id"]
        self.acknowledged.append((job_id, "G"))
        self.call(client, "queue_job", job_id=job_id)
        self.acknowledged.append((job_id, "Q"))
        document = self.call(
            client, "add_job_instance", job_id=job_id, executor_type="Crash", attempt_number=1
        )
        self.acknowledged.append((job_id, "I"))
        instance = {"job_instance_id": document["job_instance_id"]}
        self.call(client, "log_running", **instance)
        self.acknowledged.append((job_id, "R"))
        if number % 3:
            self.call(client, "log_done", **instance)
        else:
            self.call(client, "log_error", error_message="no", **instance)
        self.acknowledged.append((job_id, "D" if number % 3 else "F"))

    def some_more(self, count: int) -> None:
        """Wait until so many more changes were acknowledged."""
        enough = len(self.acknowledged) + count
        wait_until(lambda: len(self.acknowledged) > enough or self.failures)

    def end(self) -> None:
        """Let each finish the life it is at."""
        self.stop.set()
        for thread in self.threads:
            thread.join(90)
        assert self.failures == []
        assert not any(thread.is_alive() for thread in self.threads)

    def check(self, race: Database) -> None:
        """Every acknowledged change is there, and none was done twice."""
        acknowledged = list(self.acknowledged)
        assert race.violations() == {}
        histories: dict[int, str] = {}
        for job_id, status in race.query(
            "SELECT job_id, status FROM job_status_log ORDER BY job_status_log_id"
        ):
            histories[job_id] = histories.get(job_id, "") + status
        for job_id, letter in acknowledged:
            assert letter in histories[job_id], (job_id, letter)
        assert {one for one in histories.values() if one[-1] in "DF"} <= {"GQIRD", "GQIREF"}
        assert race.value("SELECT COALESCE(MAX(attempt_number), 1) FROM job_instance") == 1


def test_the_database_is_killed_under_load(embedded: EmbeddedServer) -> None:
    race = Database(OwnDatabase(embedded, embedded.data_dir.parent))
    clients = 6
    connections: dict[int, Any] = {}
    lost = 0

    def call(client: int, procedure: str, **arguments: Any) -> Any:
        nonlocal lost
        deadline = time.monotonic() + 60
        while True:
            try:
                if client not in connections:
                    connections[client] = connect(race.spec())
                return race.call(connections[client], procedure, **arguments)
            except (pymysql.err.Error, OSError) as error:
                if not is_lost_connection(error) or time.monotonic() > deadline:
                    raise
                lost += 1
                connections.pop(client, None)
                time.sleep(0.05)

    lives = Lives(call, clients)
    try:
        for _ in range(3):
            lives.some_more(300)
            embedded.kill()
            assert not embedded.is_running()
            embedded.start()
            lives.check(race)
    finally:
        lives.end()
    lives.check(race)
    assert lost >= 3
    # Of those who died with their transaction open nothing is left. (The server's own work passes.)
    wait_until(lambda: race.value("SELECT COUNT(*) FROM information_schema.INNODB_TRX") == 0)


# A service that dies --------------------------------------------------------------------------------------

RUN = """
import json, sys
from jobmon.config import load_config
from jobmon.thin_common.serve import serve
if __name__ == "__main__":
    serve("jsm", load_config(overrides=json.loads(sys.argv[1])))
"""


@contextlib.contextmanager
def jsm_process(database: Any, directory: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """JSM as a process (and its workers) in a group of their own."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JOBMON_")} | database.env()
    environment["PYTHONPATH"] = str(Path(__file__).resolve().parents[2])
    settings = {"jsm_port": port, "jsm_management_port": free_port(), "workers": 2}
    script = directory / "run_jsm.py"
    script.write_text(RUN)
    with (directory / "jsm.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, str(script), json.dumps(settings)],
            env=environment,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(30)


def test_jsm_is_killed_under_load(race: Database, tmp_path: Path) -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    lost = 0

    def call(_: int, procedure: str, **arguments: Any) -> Any:
        nonlocal lost
        deadline = time.monotonic() + 60
        while True:
            try:
                response = requests.post(f"{url}/{procedure}", json=arguments, timeout=20)
            except requests.RequestException:
                assert time.monotonic() < deadline
                lost += 1
                time.sleep(0.05)
                continue
            if response.status_code == 200:
                return response.json()
            if response.status_code != 503:
                raise Refused(response.json()["error"]["code"], response.status_code, response.text)
            assert time.monotonic() < deadline
            time.sleep(0.05)

    lives: Lives | None = None
    user = load_config(env={**race.database.env(), "HOME": str(tmp_path)}).conn_spec("jsm").user
    for _ in range(3):
        with jsm_process(race.database, tmp_path, port) as process:
            lives = lives or Lives(call, 6)
            lives.some_more(150)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait(30)
        # What it was at is rolled back by the server as soon as that sees the sockets close.
        wait_until(
            lambda: not race.query("SELECT 1 FROM information_schema.PROCESSLIST WHERE USER = %s", user)
        )
        lives.check(race)
    assert lives is not None
    with jsm_process(race.database, tmp_path, port):
        lives.end()
    lives.check(race)
    assert lost >= 3
