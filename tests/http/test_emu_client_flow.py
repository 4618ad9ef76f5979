"""The whole way of a client of the emu releases, against the services as processes.

:class:`Client` does what that client does, in its order and with its forms (numbers as strings, one-element
lists, ``Content-Type`` on GETs, a new connection per call, no retries, no look at most statuses), and hardly
more: it drives the graph itself, with a job instance factory and a reconciler as threads beside it and a
worker wrapper per job.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import requests
from http_helpers import Service

Start = Callable[..., Service]
Stack = tuple[Service, Service]


class RefusedError(Exception):
    """What the emu client raises when it finds a workflow that it will not run."""


class Requester:
    """Sends one request as the emu client's requester does."""

    def __init__(self, service: Service) -> None:
        self.url = service.url

    def send(self, route: str, message: dict[str, Any], kind: str) -> tuple[int, Any]:
        """The status, and the answer's JSON if its Content-Type says that it is JSON."""
        headers = {"Content-Type": "application/json"}
        if kind == "get":
            response = requests.get(self.url + route, params=message, headers=headers, timeout=30)
        else:
            response = requests.post(self.url + route, json=message, headers=headers, timeout=30)
        kind_of_answer = response.headers.get("Content-Type")
        assert kind_of_answer is not None, "the client dies of this"
        return (
            response.status_code,
            response.json() if "application/json" in kind_of_answer else response.content,
        )


@dataclass
class Task:
    """A call to be made, as the user of the client writes it."""

    name: str
    command: str
    upstream: list[Task] = field(default_factory=list)
    max_attempts: int = 1
    max_runtime: int | None = None

    @property
    def hash(self) -> int:
        """The job's identity in its dag: 160 bits."""
        return int(hashlib.sha1(self.command.encode(), usedforsecurity=False).hexdigest(), 16)


class Executor:
    """Runs worker wrappers in this process's threads, each with a real shell command."""

    def __init__(self, jsm: Requester, executor_class: str = "SGEExecutor") -> None:
        self.executor_class = executor_class
        self.jsm = jsm
        self.accepted: set[int] = set()
        self.commands: dict[int, subprocess.Popen[bytes]] = {}
        self.threads: list[threading.Thread] = []
        self.lost: set[int] = set()
        self.forgets = False  # takes what it is given and never runs it
        self.runs: list[tuple[str, Any]] = []
        self._next = 4000
        self._lock = threading.Lock()

    def execute(self, name: str, command: str, job_instance_id: Any) -> int:
        """Submit: gives the executor id."""
        with self._lock:
            self._next += 1
            executor_id = self._next
            self.runs.append((name, job_instance_id))
        if self.forgets:
            self.lost.add(executor_id)
            return executor_id
        if job_instance_id is not None:  # else the wrapper dies of its argument
            thread = threading.Thread(
                target=self._wrap, args=(executor_id, command, job_instance_id), daemon=True
            )
            self.threads.append(thread)
            self.accepted.add(executor_id)
            thread.start()
        return executor_id

    def _wrap(self, executor_id: int, command: str, job_instance_id: int) -> None:
        """The worker wrapper: ignores every status."""
        with subprocess.Popen(
            command, shell=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True
        ) as process:
            self.commands[executor_id] = process
            body = {"job_instance_id": str(job_instance_id), "nodename": "node1.cluster"}
            self.jsm.send("/log_running", {**body, "process_group_id": str(process.pid)}, "post")
            _, stderr = process.communicate()
        del self.commands[executor_id]
        body = {"job_instance_id": [job_instance_id], "usage_str": "cpu=00:00:01", "wallclock": 0.25}
        self.jsm.send("/log_usage", {**body, "maxvmem": "1.2G", "cpu": "00:00:01", "io": "0.1"}, "post")
        if process.returncode == 0:
            self.jsm.send("/log_done", {"job_instance_id": str(job_instance_id)}, "post")
        else:
            body = {"job_instance_id": str(job_instance_id), "error_message": stderr.decode(errors="replace")}
            self.jsm.send("/log_error", body, "post")
        self.accepted.discard(executor_id)

    def actual(self) -> set[int]:
        """What qstat would list: a job is there from its submission on, also before it has been started."""
        return set(self.accepted)

    def terminate(self, executor_id: int) -> None:
        """What qdel would do."""
        with suppress(KeyError, ProcessLookupError):
            os.killpg(self.commands[executor_id].pid, signal.SIGKILL)


class Client:
    """A workflow of an emu client."""

    def __init__(self, stack: Stack, tasks: list[Task], args: str, name: str = "flow") -> None:
        self.jsm, self.jqs = Requester(stack[0]), Requester(stack[1])
        self.tasks, self.args, self.name = tasks, args, name
        self.executor = Executor(self.jsm)
        self.dag_id = self.workflow_id = self.run_id = 0
        self.jobs: dict[int, dict[str, Any]] = {}
        self._stopped = threading.Event()
        hashes = "".join(str(task.hash) for task in sorted(tasks, key=lambda task: task.hash))
        self.dag_hash = hashlib.sha1((name + hashes).encode(), usedforsecurity=False).hexdigest()
        self.hash = hashlib.sha1((args + self.dag_hash).encode(), usedforsecurity=False).hexdigest()

    # Bind

    def bind(self) -> None:
        """Find this workflow and reset what is incomplete, or make it."""
        status, answer = self.jqs.send("/get_dag_ids_by_hash", {"dag_hash": self.dag_hash}, "get")
        found = []
        for dag_id in answer["dag_ids"]:
            message = {"dag_id": str(dag_id), "workflow_args": self.args}
            status, answer = self.jqs.send("/get_workflows_by_inputs", message, "get")
            if status == 200:
                found.append(answer["workflow_dct"])
        assert len(found) < 2
        if found:
            workflow = found[0]
            if workflow["status"] == "D":
                raise RefusedError("the workflow is done already")
            self.dag_id, self.workflow_id = workflow["dag_id"], workflow["id"]
            self._fetch()
            self.jsm.send("/reset_incomplete_jobs", {"dag_id": self.dag_id}, "post")
        else:
            message = {
                "name": None,
                "user": "ann",
                "dag_hash": self.dag_hash,
                "created_date": str(time.time()),
            }
            status, answer = self.jsm.send("/add_task_dag", message, "post")
            self.dag_id = answer["dag_id"]
        self._fetch()
        for task in self.tasks:
            if task.hash in self.jobs:
                continue
            message = {
                "dag_id": str(self.dag_id),
                "name": task.name,
                "job_hash": task.hash,
                "command": task.command,
            }
            message |= {"tag": None, "context_args": "{}", "slots": 1, "mem_free": 2}
            message |= {"max_attempts": task.max_attempts, "max_runtime": task.max_runtime}
            status, answer = self.jsm.send("/add_job", message, "post")
            assert status == 200
            job = answer["job_dct"]
            self.jobs[int(job["job_hash"])] = job
        if not found:
            message = {"dag_id": str(self.dag_id), "workflow_args": self.args, "workflow_hash": self.hash}
            message |= {"name": self.name, "user": "ann", "description": ""}
            status, answer = self.jsm.send("/add_workflow", message, "post")
            self.workflow_id = answer["workflow_dct"]["id"]

    def start_run(self) -> None:
        """Stop a run that is there, and start one."""
        status, answer = self.jqs.send("/is_workflow_running", {"workflow_id": self.workflow_id}, "get")
        assert status == 200
        if answer["is_running"]:
            message = {"workflow_run_id": answer["workflow_run_dct"]["id"], "status": "S"}
            self.jsm.send("/update_workflow_run", message, "post")
        message = {"workflow_id": self.workflow_id, "user": "ann", "hostname": "login1", "pid": "000"}
        message |= {"stderr": "/tmp/e", "stdout": "/tmp/o", "project": None, "slack_channel": "#jobs"}
        status, answer = self.jsm.send("/add_workflow_run", {**message, "working_dir": "/home/ann"}, "post")
        self.run_id = answer["workflow_run_id"]

    # Threads

    def instantiate_queued(self) -> None:
        """One round of the job instance factory."""
        _, answer = self.jqs.send("/get_queued", {"dag_id": str(self.dag_id)}, "get")
        for job in answer["job_dcts"]:
            message = {"job_id": str(job["job_id"]), "executor_type": self.executor.executor_class}
            _, made = self.jsm.send("/add_job_instance", message, "post")
            # The client swallows a refusal and executes all the same, without an id.
            instance_id = made.get("job_instance_id")
            executor_id = self.executor.execute(job["name"], job["command"], instance_id)
            if instance_id is not None:
                message = {"job_instance_id": str(instance_id), "executor_id": str(executor_id)}
                self.jsm.send("/log_executor_id", message, "post")

    def reconcile(self) -> None:
        """One round of the reconciler."""
        status, answer = self.jqs.send("/get_submitted_or_running", {"dag_id": str(self.dag_id)}, "get")
        self.jsm.send("/log_heartbeat", {"dag_id": self.dag_id}, "post")
        actual = self.executor.actual() | {None}
        for instance in answer["ji_dcts"]:
            known = instance["executor_id"] in actual or instance["time_since_status_update"] < 1
            if not known:
                message = {"job_instance_id": instance["job_instance_id"], "error_message": "it is gone"}
                self.jsm.send("/log_error", message, "post")
        status, answer = self.jqs.send("/get_timed_out", {"dag_id": str(self.dag_id)}, "get")
        assert status == 200
        for instance in answer["timed_out"]:
            self.executor.terminate(instance["executor_id"])
            message = {"job_instance_id": instance["job_instance_id"], "error_message": "Timed out"}
            self.jsm.send("/log_error", message, "post")
            message = {"job_instance_id": [instance["job_instance_id"]], "nodename": "node1.cluster"}
            self.jsm.send("/log_nodename", message, "post")

    def _forever(self, work: Callable[[], None], seconds: float) -> threading.Thread:
        def loop() -> None:
            while not self._stopped.is_set():
                work()
                self._stopped.wait(seconds)

        thread = threading.Thread(target=loop, daemon=True)
        thread.start()
        return thread

    # Run

    def _fetch(self) -> None:
        status, answer = self.jqs.send("/get_jobs", {"dag_id": str(self.dag_id)}, "get")
        assert status == 200
        self.jobs |= {int(job["job_hash"]): job for job in answer["job_dcts"]}

    def status_of(self, task: Task) -> str:
        """The letter of the task's job, as last fetched."""
        return str(self.jobs[task.hash]["status"])

    def run(self, *, seconds: float = 120) -> str:
        """Bind and run until nothing is left that can go on; gives the run's letter."""
        self.bind()
        self.start_run()
        threads = [self._forever(self.instantiate_queued, 0.1), self._forever(self.reconcile, 0.3)]
        try:
            self._drive(time.monotonic() + seconds)
        finally:
            self._stopped.set()
            for thread in [*threads, *self.executor.threads]:
                thread.join(20)
        letter = "D" if all(self.status_of(task) == "D" for task in self.tasks) else "E"
        message = {"wfr_id": self.run_id, "status": letter}
        self.jsm.send("/update_workflow_run", message, "post")
        self.jsm.send("/update_workflow", {"wf_id": str(self.workflow_id), "status": letter}, "post")
        return letter

    def _drive(self, deadline: float) -> None:
        queued: set[int] = set()
        while time.monotonic() < deadline:
            self._fetch()
            ready = [
                task
                for task in self.tasks
                if task.hash not in queued
                and self.status_of(task) != "D"
                and all(self.status_of(before) == "D" for before in task.upstream)
            ]
            for task in ready:
                status, _ = self.jsm.send("/queue_job", {"job_id": self.jobs[task.hash]["job_id"]}, "post")
                assert status == 200
                queued.add(task.hash)
            if not ready and all(job["status"] in "DFG" for job in self.jobs.values()):
                self._fetch()
                if all(self.status_of(task) in "DF" for task in self.tasks if task.hash in queued):
                    return
            time.sleep(0.1)
        raise AssertionError(f"not finished in time: {self.jobs}")


@pytest.fixture
def stack(db: Any, start_service: Start) -> Iterator[Stack]:
    """JSM and JQS as processes, without a token as old clients need it; the audits are empty at the end."""
    yield start_service("jsm", db), start_service("jqs", db)
    assert db.audits() == {}


def test_a_workflow_fails_is_resumed_and_ends(stack: Stack, db: Any, tmp_path: Path) -> None:
    tries, mended = tmp_path / "tries", tmp_path / "mended"
    first = Task("first", "true")
    flaky = Task("flaky", f"echo x >> {tries}; test $(wc -l < {tries}) -ge 3", [first], max_attempts=3)
    fatal = Task("fatal", f"test -e {mended} || {{ echo 'ü broken' >&2; exit 3; }}", [first], max_attempts=2)
    last = Task("last", "true # last", [flaky, fatal])
    tasks = [first, flaky, fatal, last]

    client = Client(stack, tasks, "v1")
    assert client.run() == "E"
    assert [client.status_of(task) for task in tasks] == ["D", "D", "F", "G"]
    assert [client.jobs[task.hash]["num_attempts"] for task in tasks] == [1, 3, 2, 0]
    assert client.jobs[flaky.hash]["last_nodename"] == "node1.cluster"
    assert client.jobs[flaky.hash]["last_process_group_id"] > 0
    errors = db.query(
        "SELECT description FROM job_instance_error_log JOIN job_instance USING (job_instance_id)"
        " WHERE job_id = %s",
        (client.jobs[fatal.hash]["job_id"],),
    )
    assert errors == [("ü broken\n",)] * 2

    mended.touch()
    again = Client(stack, tasks, "v1")
    assert again.run() == "D"
    assert (again.dag_id, again.workflow_id) == (client.dag_id, client.workflow_id)
    assert again.run_id > client.run_id
    assert [again.status_of(task) for task in tasks] == ["D", "D", "D", "D"]
    assert {name for name, _ in again.executor.runs} == {"fatal", "last"}, "what was DONE is not done again"
    assert again.jobs[fatal.hash]["num_attempts"] == 1, "a reset begins to count anew"
    assert db.query("SELECT status FROM workflow_run ORDER BY workflow_run_id") == [("E",), ("D",)]
    assert db.query("SELECT status FROM workflow") == [("D",)]
    ids = again.jqs.send("/get_job_instances_of_workflow_run", {"workflow_run_id": again.run_id}, "get")[1]
    assert len(ids["job_instances"]) == 2
    assert db.query("SELECT COUNT(*) FROM job_instance WHERE executor_id IS NULL") == [(0,)]

    with pytest.raises(RefusedError):
        Client(stack, tasks, "v1").bind()
    other = Client(stack, [first], "v2", name="other args and dag")
    assert other.run() == "D"
    assert other.dag_id != client.dag_id


def test_what_runs_too_long_and_what_is_lost(stack: Stack, db: Any) -> None:
    slow = Task("slow", "sleep 60", max_attempts=1, max_runtime=1)
    client = Client(stack, [slow], "v1")
    assert client.run() == "E"
    assert client.status_of(slow) == "F"
    # That client kills first and reports then: the killed worker's own report, with its stderr, may be first.
    assert db.query("SELECT description FROM job_instance_error_log") in ([("Timed out",)], [("",)])

    gone = Task("gone", "true # gone", max_attempts=2)
    client = Client(stack, [gone], "v1", name="gone")
    client.executor.forgets = True
    assert client.run() == "E"
    assert client.jobs[gone.hash]["num_attempts"] == 2
    assert client.executor.lost
    assert db.query(
        "SELECT DISTINCT description FROM job_instance_error_log WHERE description LIKE 'it is%%'"
    ) == [("it is gone",)]


def test_two_clients_with_two_workflows(stack: Stack) -> None:
    flows = []
    for number in (1, 2):
        heads = [Task(f"head{n}", f"true # {n}") for n in range(4)]
        tails = [Task(f"tail{n}", f"true # tail {n}", heads[n : n + 2]) for n in range(3)]
        flows.append(Client(stack, [*heads, *tails], f"v{number}", name="both"))
    letters: list[str] = []
    threads = [threading.Thread(target=lambda flow=flow: letters.append(flow.run())) for flow in flows]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(180)
    assert letters == ["D", "D"]
    assert flows[0].dag_id != flows[1].dag_id, "equal dag hashes, and a dag of its own for each workflow"
    for flow in flows:
        assert sorted(name for name, _ in flow.executor.runs) == sorted(task.name for task in flow.tasks)


def test_two_clients_with_one_workflow(stack: Stack, db: Any) -> None:
    """The second run stops the first; with both factories at work every job is run once all the same."""
    tasks = [Task(f"t{n}", f"true # {n}") for n in range(8)]
    one, two = Client(stack, tasks, "v1"), Client(stack, tasks, "v1")
    one.bind()
    one.start_run()
    two.bind()
    assert two.workflow_id == one.workflow_id
    two.start_run()
    assert db.query("SELECT status FROM workflow_run ORDER BY workflow_run_id") == [("S",), ("R",)]
    for job in two.jobs.values():
        assert two.jsm.send("/queue_job", {"job_id": job["job_id"]}, "post") == (200, {})
    threads = [threading.Thread(target=client.instantiate_queued) for client in (one, two)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for client in (one, two):
        for thread in client.executor.threads:
            thread.join(30)
    made = [instance for client in (one, two) for _, instance in client.executor.runs if instance is not None]
    assert len(made) == len(set(made)) == len(tasks)
    status, answer = one.jqs.send("/get_jobs", {"dag_id": one.dag_id}, "get")
    assert status == 200
    assert {(job["status"], job["num_attempts"]) for job in answer["job_dcts"]} == {("D", 1)}
    # The first client's farewell: refused, as it was stopped; it does not look.
    status, answer = one.jsm.send("/update_workflow_run", {"wfr_id": one.run_id, "status": "D"}, "post")
    assert (status, answer["error"]["code"]) == (409, "WORKFLOW_RUN_ENDED")
    status, answer = two.jsm.send("/update_workflow_run", {"wfr_id": two.run_id, "status": "D"}, "post")
    assert (status, answer) == (200, {"status": "D"})
