"""Distributors on real services: they run what is queued, share it, and survive outages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from client_helpers import Services, clean_environ, start_services
from distributor_helpers import Run
from waiting import until

from jobmon.client.errors import RequestRefused
from jobmon.client.requester import Requester
from jobmon.distributor import Distributor
from jobmon.executors.local import LocalExecutor

MakeRun = Callable[..., Run]
DISTRIBUTE = """
import json, logging, sys
from jobmon.client.requester import Requester
from jobmon.distributor import Distributor
from jobmon.executors.local import LocalExecutor
logging.basicConfig(level=logging.INFO)
options = json.loads(sys.argv[1])
print(Distributor(Requester(), LocalExecutor(options.pop("max_workers", 2)), **options).run())
"""


class Background:
    """A distributor on a thread."""

    def __init__(self, requester: Requester, max_workers: int = 2, **options: Any) -> None:
        self.distributor = Distributor(requester, LocalExecutor(max_workers, kill_after=1), **options)
        self.result: str | BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.result = self.distributor.run()
        except BaseException as error:
            self.result = error

    def end(self, seconds: float = 60) -> str:
        """Its result, as soon as it has one."""
        self.thread.join(seconds)
        assert not self.thread.is_alive(), "it does not end"
        assert isinstance(self.result, str), self.result
        return self.result


@pytest.fixture
def background(requester: Requester) -> Iterator[Callable[..., Background]]:
    """Starts distributors on threads; those that are left are killed."""
    made: list[Background] = []

    def start(**options: Any) -> Background:
        made.append(Background(requester, **options))
        return made[-1]

    yield start
    for one in made:
        one.distributor.kill()
    for one in made:
        one.thread.join(30)


@pytest.fixture
def process(services: Services) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Starts distributors as processes: ``process(workflow_run_id=1, lease_seconds=3)``."""
    made: list[subprocess.Popen[str]] = []

    def start(**options: Any) -> subprocess.Popen[str]:
        made.append(
            subprocess.Popen(
                [sys.executable, "-c", DISTRIBUTE, json.dumps(options)],
                env=services.environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
        )
        return made[-1]

    yield start
    for one in made:
        one.kill()
        one.wait()
        assert one.stdout is not None
        one.stdout.close()


def statuses(db: Any, run: Run) -> dict[str, str]:
    rows = db.query("SELECT name, status FROM job WHERE dag_id = %s", [run.dag_id])
    return dict(rows)


def status_of(db: Any, table: str, number: int) -> str:
    [(status,)] = db.query(f"SELECT status FROM {table} WHERE {table}_id = %s", [number])
    return str(status)


def distribute(requester: Requester, run: Run, **options: Any) -> str:
    """Run a workflow run to its end here."""
    options = {"workflow_run_id": run.workflow_run_id, "dag_id": run.dag_id, **options}
    return Distributor(requester, LocalExecutor(4), **options).run()


def test_jobs_run_in_the_order_of_their_edges(
    make_run: MakeRun, requester: Requester, db: Any, tmp_path: Path
) -> None:
    chain = {f"j{n}": (f"echo {n} >> log", [f"j{n - 1}"] if n else []) for n in range(12)}
    run = make_run(chain)
    assert distribute(requester, run) == "D"
    assert (tmp_path / "log").read_text().split() == [str(n) for n in range(12)]
    assert set(statuses(db, run).values()) == {"D"}
    assert (
        status_of(db, "workflow", run.workflow_id)
        == status_of(db, "workflow_run", run.workflow_run_id)
        == "D"
    )
    assert db.audits() == {}


def test_failures_are_retried_and_become_fatal(
    make_run: MakeRun, requester: Requester, db: Any, tmp_path: Path
) -> None:
    run = make_run(
        {
            "flaky": "echo x >> tries; [ $(wc -l < tries) -ge 3 ] || { echo not yet >&2; exit 4; }",
            "doomed": "echo no way >&2; exit 3",
            "behind": ("true", ["doomed"]),
            "well": "true",
        },
        max_attempts=3,
    )
    assert distribute(requester, run) == "E"
    assert statuses(db, run) == {"flaky": "D", "doomed": "F", "behind": "G", "well": "D"}
    errors = db.query("SELECT description FROM job_instance_error_log ORDER BY 1")
    assert Counter(text for (text,) in errors) == {"exit code 4\nnot yet\n": 2, "exit code 3\nno way\n": 3}
    usage = db.query("SELECT wallclock, cpu, maxvmem, io, nodename, process_group_id FROM job_instance")
    assert all(None not in row for row in usage)
    assert db.audits() == {}


def test_many_short_jobs_take_few_calls(make_run: MakeRun, requester: Requester, db: Any) -> None:
    run = make_run({f"j{n}": "true" for n in range(1000)})
    before = requester.num_calls
    assert distribute(requester, run) == "D"
    assert set(statuses(db, run).values()) == {"D"}
    # about 0.05; more where it is slow, since some come with the time; one by one it would be 3 or 4
    assert (requester.num_calls - before) / 1000 < 0.5


def test_two_distributors_share_a_run(
    make_run: MakeRun, background: Callable[..., Background], db: Any, tmp_path: Path
) -> None:
    # the first ones wait until there are more than one distributor may have
    wait = "until test $(wc -l < log) -ge 4; do sleep 0.05; done; sleep 0.05"
    run = make_run({f"j{n}": f"echo {n} >> log; {wait}" for n in range(60)})
    ids = {"workflow_run_id": run.workflow_run_id, "dag_id": run.dag_id}
    both = [background(**ids), background(**ids)]
    assert [one.end() for one in both] == ["D", "D"]
    assert Counter((tmp_path / "log").read_text().split()) == Counter(str(n) for n in range(60))
    assert all(one.distributor.num_ended > 0 for one in both)
    assert db.audits() == {}


def test_max_concurrently_running(make_run: MakeRun, requester: Requester, tmp_path: Path) -> None:
    # the first ones wait for each other
    wait = "until test $(grep -c + log) -ge 2; do sleep 0.05; done; sleep 0.1"
    run = make_run({f"j{n}": f"echo + {n} >> log; {wait}; echo - {n} >> log" for n in range(10)})
    requester.post("set_max_concurrently_running", workflow_id=run.workflow_id, max_concurrently_running=2)
    assert distribute(requester, run) == "D"
    now = most = 0
    for line in (tmp_path / "log").read_text().splitlines():
        now += 1 if line[0] == "+" else -1
        most = max(most, now)
    assert most == 2


def test_a_lease_is_renewed_while_a_command_runs(
    make_run: MakeRun, requester: Requester, db: Any, tmp_path: Path
) -> None:
    run = make_run({"long": "until test -e go; do sleep 0.1; done", "waits": ("true", ["long"])})
    stop = threading.Event()
    passed = "SELECT 1 FROM job_instance WHERE created_date < UTC_TIMESTAMP(6) - INTERVAL 12 SECOND"

    def expire() -> None:
        while not stop.wait(0.1):
            requester.post("expire_job_instances")
            if db.query(passed):
                (tmp_path / "go").touch()

    reaper = threading.Thread(target=expire)
    reaper.start()
    try:
        assert distribute(requester, run, lease_seconds=10) == "D"
    finally:
        stop.set()
        reaper.join()
    assert db.query("SELECT COUNT(*) FROM job_instance") == [(2,)]


def test_the_run_is_kept_alive(make_run: MakeRun, background: Callable[..., Background], db: Any) -> None:
    run = make_run({"long": "sleep 1000"})

    def beat() -> Any:
        return db.query(
            "SELECT heartbeat_date FROM workflow_run WHERE workflow_run_id = %s", [run.workflow_run_id]
        )

    first = beat()
    background(workflow_run_id=run.workflow_run_id, dag_id=run.dag_id, heartbeat_seconds=0.2)
    until(lambda: beat() > first)


def test_a_service_keeps_waiting_runs_alive(
    make_run: MakeRun, background: Callable[..., Background], db: Any
) -> None:
    """It has no room for the second run, of which nothing was heard for a while."""
    first, second = make_run({"long": "sleep 1000"}, priority=1), make_run({"waits": "true"})
    with db.connect("jsm").cursor() as cursor:
        cursor.execute("SET timestamp = UNIX_TIMESTAMP() - 1000")
        run = "CALL add_workflow_run(%s, 'ann', 'login1', 1, '', '', '', '', '', '', NULL, NULL)"
        cursor.execute(run, [second.workflow_id])
        run_id = json.loads(cursor.fetchone()[0])["workflow_run_id"]
        cursor.nextset()
        cursor.execute("CALL submit_workflow_run(%s, NULL)", [run_id])

    def age() -> int:
        sql = "SELECT silent_seconds FROM silent_workflow_runs WHERE workflow_run_id = %s"
        return int(db.query(sql, [run_id])[0][0])

    assert age() >= 1000
    background(max_workers=1, heartbeat_seconds=0.2)
    until(lambda: age() < 1000)
    assert "Q" in statuses(db, second).values() and "D" not in statuses(db, first).values()


def test_stopped_from_elsewhere(
    make_run: MakeRun, background: Callable[..., Background], requester: Requester, db: Any, tmp_path: Path
) -> None:
    run = make_run({f"j{n}": f"until test -e go; do sleep 0.05; done; : {n}" for n in range(8)})
    one = background(workflow_run_id=run.workflow_run_id, dag_id=run.dag_id)
    until(lambda: list(statuses(db, run).values()).count("R") == 2)
    requester.post("stop_workflow", workflow_id=run.workflow_id)
    (tmp_path / "go").touch()
    assert one.end() == "S"
    assert Counter(statuses(db, run).values()) == {"D": 2, "Q": 6}
    assert db.audits() == {}


def test_stopped_and_killed_from_elsewhere(
    make_run: MakeRun, background: Callable[..., Background], requester: Requester, db: Any, tmp_path: Path
) -> None:
    run = make_run({"long": "echo $$ > pid; sleep 1000"})
    one = background(workflow_run_id=run.workflow_run_id, dag_id=run.dag_id, lease_seconds=12)
    pid = int(until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text().strip()))
    until(lambda: statuses(db, run)["long"] == "R")
    assert requester.post("stop_workflow", workflow_id=run.workflow_id, kill=1)["num_killed"] == 1
    assert one.end() == "S"
    assert not Path(f"/proc/{pid}").exists()
    [(message,)] = db.query("SELECT error_message FROM job_instance")
    assert message == f"Killed: workflow {run.workflow_id} was stopped"


def test_a_superseded_distributor_leaves(
    make_run: MakeRun, background: Callable[..., Background], requester: Requester, db: Any, tmp_path: Path
) -> None:
    run = make_run({"long": "echo $$ >> pids; sleep 1000", "next": ("true", ["long"])})
    old = background(workflow_run_id=run.workflow_run_id, dag_id=run.dag_id, lease_seconds=12)
    until(lambda: statuses(db, run)["long"] == "R")
    until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text())
    newer = requester.post(
        "add_workflow_run", workflow_id=run.workflow_id, user="ann", hostname="login2", pid=2
    )
    requester.post("reset_incomplete_jobs", dag_id=run.dag_id)
    assert old.end() == "S"
    pid = int((tmp_path / "pids").read_text().split()[0])
    assert not Path(f"/proc/{pid}").exists()
    assert set(statuses(db, run).values()) == {"G"}
    assert status_of(db, "workflow_run", newer["workflow_run_id"]) == "R"
    assert db.audits() == {}


def test_drain_lets_running_commands_end(
    make_run: MakeRun, background: Callable[..., Background], db: Any, tmp_path: Path
) -> None:
    run = make_run({f"j{n}": f"until test -e go; do sleep 0.05; done; : {n}" for n in range(6)})
    one = background(workflow_run_id=run.workflow_run_id, dag_id=run.dag_id)
    until(lambda: "R" in statuses(db, run).values())
    one.distributor.drain()
    (tmp_path / "go").touch()
    assert one.end() == "R"  # the run goes on without it
    assert Counter(statuses(db, run).values()) == {"D": 2, "Q": 4}


def test_kill_reports_what_it_killed(
    make_run: MakeRun, background: Callable[..., Background], db: Any
) -> None:
    run = make_run({"long": "sleep 1000"}, max_attempts=2)
    one = background(workflow_run_id=run.workflow_run_id, dag_id=run.dag_id)
    until(lambda: statuses(db, run)["long"] == "R")
    one.distributor.kill()
    assert one.end() == "R"
    assert statuses(db, run)["long"] == "Q"
    [(message,)] = db.query("SELECT error_message FROM job_instance")
    assert message.startswith("killed: the distributor was told to kill")


def test_what_a_killed_distributor_ran_is_found_and_run_again(
    make_run: MakeRun,
    process: Callable[..., subprocess.Popen[str]],
    requester: Requester,
    db: Any,
    tmp_path: Path,
) -> None:
    run = make_run(
        # the second attempt looks whether the first is gone (or a zombie, which has no command line)
        {
            "long": "echo $$ >> pids; [ $(wc -l < pids) -gt 1 ] || exec sleep 1000; "
            "[ -z \"$(tr -d '\\0' < /proc/$(head -1 pids)/cmdline)\" ]"
        },
        max_attempts=3,
    )
    ids = {"workflow_run_id": run.workflow_run_id, "dag_id": run.dag_id, "lease_seconds": 10}
    first = process(**ids)
    until(lambda: statuses(db, run)["long"] == "R")
    until(lambda: (tmp_path / "pids").exists() and (tmp_path / "pids").read_text())
    first.send_signal(signal.SIGKILL)
    first.wait()
    pid = int((tmp_path / "pids").read_text())
    assert Path(f"/proc/{pid}").exists()  # the command goes on, unwatched
    second = process(**ids)
    output, _ = second.communicate(timeout=90)
    assert output.strip() == "D"
    assert statuses(db, run) == {"long": "D"}
    errors = db.query("SELECT description FROM job_instance_error_log")
    assert len(errors) == 1 and errors[0][0].startswith("Lost: no report until")
    assert db.audits() == {}


# As a service ---------------------------------------------------------------------------------------------


def test_a_service_runs_all_submitted_runs(
    make_run: MakeRun, background: Callable[..., Background], db: Any
) -> None:
    first = make_run({f"a{n}": "true" for n in range(20)})
    failing = make_run({"b": "exit 1"})
    waiting = make_run({"c": "true"}, submit=False)
    service = background()
    until(lambda: status_of(db, "workflow_run", first.workflow_run_id) == "D")
    until(lambda: status_of(db, "workflow_run", failing.workflow_run_id) == "E")
    later = make_run({"d": ("true", [])})
    until(lambda: status_of(db, "workflow", later.workflow_id) == "D")
    assert statuses(db, waiting) == {"c": "G"}
    assert status_of(db, "workflow_run", waiting.workflow_run_id) == "R"
    service.distributor.drain()
    assert service.end() == "R"


def test_an_idle_service_calls_seldom(background: Callable[..., Background], requester: Requester) -> None:
    background()
    time.sleep(4)  # its first looks follow each other quickly
    before, began = requester.num_calls, time.monotonic()
    time.sleep(20)
    # 0.4 claims, 0.2 looks and a little more in a second
    assert requester.num_calls - before < time.monotonic() - began


def test_priority(make_run: MakeRun, background: Callable[..., Background], db: Any, tmp_path: Path) -> None:
    low = make_run({f"l{n}": "echo l >> log" for n in range(10)})
    high = make_run({f"h{n}": "echo h >> log" for n in range(10)}, priority=5)
    background(max_workers=1)
    until(
        lambda: (
            status_of(db, "workflow", low.workflow_id) == status_of(db, "workflow", high.workflow_id) == "D"
        )
    )
    assert (tmp_path / "log").read_text().split()[:10] == ["h"] * 10


# When calls fail ------------------------------------------------------------------------------------------


def test_jsm_is_away_for_a_while(database: Any, db: Any, make_run: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    own = start_services(database, tmp_path / "own")
    long = "until test -e go; do sleep 0.05; done; echo ran >> log"
    run = make_run({"long": long, "next": ("echo ran >> log", ["long"])})
    requester = Requester(own.config, patience=0.5)
    one = Background(requester, workflow_run_id=run.workflow_run_id, dag_id=run.dag_id)
    try:
        until(lambda: statuses(db, run)["long"] == "R")
        jsm = own.started[0]
        os.killpg(jsm.process.pid, signal.SIGKILL)
        jsm.process.wait()
        (tmp_path / "go").touch()
        until(lambda: (tmp_path / "log").exists())  # the command ended while nobody could be told
        time.sleep(2)
        assert one.thread.is_alive()
        jsm.process = subprocess.Popen(
            jsm.process.args,
            env=clean_environ(database),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert one.end() == "D"
    finally:
        one.distributor.kill()
        own.stop()
    assert (tmp_path / "log").read_text() == "ran\nran\n"
    assert db.query("SELECT COUNT(*) FROM job_instance") == [(2,)]


def test_answers_that_get_lost(make_run: MakeRun, requester: Requester, db: Any, tmp_path: Path) -> None:
    run = make_run({f"j{n}": f"echo {n} >> log" for n in range(50)})
    post = requester.post

    def twice(route: str, **body: Any) -> dict[str, Any]:
        post(route, **body)
        return post(route, **body)

    requester.post = twice  # type: ignore[method-assign]
    assert distribute(requester, run) == "D"
    assert Counter((tmp_path / "log").read_text().split()) == Counter(str(n) for n in range(50))
    assert db.query("SELECT COUNT(*) FROM job_instance") == [(50,)]
    assert db.audits() == {}


def test_jsm_refuses(make_run: MakeRun, requester: Requester) -> None:
    make_run({"a": "true"})
    with pytest.raises(RequestRefused, match="UNKNOWN_WORKFLOW_RUN"):
        Distributor(requester, LocalExecutor(1), workflow_run_id=999).run()


def test_old_answers_are_forgotten(
    background: Callable[..., Background], db: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each claim leaves an answer; a day later some distributor deletes it."""
    monkeypatch.setattr("jobmon.distributor.distributor.FORGET_SECONDS", 0.2)
    with db.connect("admin") as conn, conn.cursor() as cursor:
        cursor.execute(
            "INSERT INTO api_request (request_key, procedure_name, created_date)"
            " VALUES ('old', 'claim_jobs', UTC_TIMESTAMP(6) - INTERVAL 25 HOUR)"
        )
    background()
    until(lambda: not db.query("SELECT 1 FROM api_request WHERE request_key = 'old'"))
    # its own are kept
    until(lambda: db.query("SELECT 1 FROM api_request"))
