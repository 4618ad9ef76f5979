"""The command ``jobmon`` against real services, and workflows for it to look at."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from jobmon.cli import main
from jobmon.client.requester import Requester

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Services:
    """JSM and JQS as processes; ``rc`` is the configuration of those who call them."""

    rc: Path
    requester: Requester

    def environment(self, **more: str) -> dict[str, str]:
        """For a process that calls them, and nothing of the user's."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("JOBMON_")}
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")]).rstrip(os.pathsep)
        return {**kept, "JOBMON_RC": str(self.rc), "PYTHONPATH": path, "COLUMNS": "200", **more}


@dataclass
class Jobmon:
    """Calls of the command, in this process or in one of their own."""

    services: Services
    processes: list[subprocess.Popen[str]] = field(default_factory=list)

    def __call__(self, *args: object, code: int = 0, **kw: Any) -> Result:
        """Run it here; the exit code must be ``code``, and nothing may be a traceback."""
        words = ["--config", str(self.services.rc), *map(str, args)]
        result = CliRunner().invoke(main, words, **kw)
        assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
        assert "Traceback" not in result.output
        assert result.exit_code == code, result.output
        return result

    def json(self, *args: object, code: int = 0) -> Any:
        """Run it with ``-o json``; what it printed."""
        return json.loads(self(*args, "-o", "json", code=code).stdout)

    def ids(self, *args: object) -> list[int]:
        """Run it with ``-o quiet``; the ids that it printed."""
        return [int(text) for text in self(*args, "-o", "quiet").stdout.split()]

    def start(self, *args: object, cwd: Path | None = None, **kw: Any) -> subprocess.Popen[str]:
        """Start it as a process, whose output is read from pipes unless told otherwise."""
        kw = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL, **kw}
        process = subprocess.Popen(
            [sys.executable, "-m", "jobmon.cli", *map(str, args)],
            env=self.services.environment(),
            cwd=cwd,
            text=True,
            start_new_session=True,
            **kw,
        )
        self.processes.append(process)
        return process

    def run(self, *args: object, code: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        """Run it as a process until it ends; the exit code must be ``code``."""
        process = self.start(*args, cwd=cwd)
        stdout, stderr = process.communicate(timeout=120)
        assert process.returncode == code, stdout + stderr
        return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)

    def end(self) -> None:
        """Kill what a test left."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


@dataclass
class Made:
    """A workflow in the database."""

    workflow_id: int
    dag_id: int
    job_ids: list[int]
    requester: Requester
    workflow_run_id: int | None = None

    def start_run(self, *, submit: bool = True, **more: Any) -> int:
        """Start a run of it, and queue what may start."""
        body = {"user": "ann", "hostname": "login1", "pid": 4711, **more}
        answer = self.requester.post("add_workflow_run", workflow_id=self.workflow_id, **body)
        self.workflow_run_id = answer["workflow_run_id"]
        if submit:
            self.requester.post("submit_workflow_run", workflow_run_id=self.workflow_run_id)
        return int(answer["workflow_run_id"])

    def claim(self, max_jobs: int = 1000) -> dict[int, int]:
        """Claim its queued jobs: job_id -> job_instance_id."""
        claimed = self.requester.post(
            "claim_jobs", executor_type="LocalExecutor", dag_id=self.dag_id, max_jobs=max_jobs
        )
        return {row["job_id"]: row["job_instance_id"] for row in claimed["job_instances"]}

    def report(self, events: Sequence[tuple[int, str]], **more: Any) -> None:
        """Report on job instances: (id, ``running``, ``done`` or an error's message)."""
        documents = []
        for number, word in events:
            event: dict[str, Any] = {"job_instance_id": number}
            if word in ("running", "done"):
                event["event"] = word
            else:
                event |= {"event": "error", "error_message": word}
            documents.append({**event, **more})
        outcomes = self.requester.post("log_events", events=documents)["outcomes"]
        assert {outcome["code"] for outcome in outcomes} == {"OK"}, outcomes

    def work(self, outcome: str = "done", max_jobs: int = 1000) -> dict[int, int]:
        """Claim what is queued, and let it run and end: ``done``, or in an error of this message."""
        claimed = self.claim(max_jobs)
        self.report([(number, "running") for number in claimed.values()], nodename="node7")
        self.report([(number, outcome) for number in claimed.values()])
        return claimed

    def end_run(self) -> str:
        """Let the database end the run; the run's letter."""
        return str(self.requester.post("end_workflow_run", workflow_run_id=self.workflow_run_id)["status"])


MakeWorkflow = Callable[..., Made]


def make_workflow(
    requester: Requester,
    num_jobs: int = 1,
    edges: Sequence[tuple[int, int]] = (),
    *,
    name: str = "wf",
    user: str = "ann",
    names: Sequence[str] | None = None,
    max_attempts: int = 1,
    **more: Any,
) -> Made:
    """A workflow whose jobs are registered.

    edges: pairs of positions, upstream first. names: of the jobs. more: further keys of each job.
    """
    requester_key = os.urandom(12).hex()
    dag_id = requester.post("add_task_dag", name=name, user=user, dag_hash=requester_key)["dag_id"]
    upstreams: dict[int, list[str]] = {}
    for before, after in edges:
        upstreams.setdefault(after, []).append(str(before))
    jobs = [
        {
            "name": names[number] if names else f"job{number}",
            "job_hash": str(number),
            "command": "true",
            "max_attempts": max_attempts,
            "upstream_job_hashes": upstreams.get(number, []),
            **more,
        }
        for number in range(num_jobs)
    ]
    job_ids: list[int] = []
    for start in range(0, num_jobs, 2000):
        job_ids += requester.post("add_jobs", dag_id=dag_id, jobs=jobs[start : start + 2000])["job_ids"]
    workflow = requester.post(
        "add_workflow",
        dag_id=dag_id,
        workflow_args="v1",
        workflow_hash=requester_key,
        name=name,
        user=user,
        description="",
    )["workflow_dct"]
    return Made(workflow["id"], dag_id, job_ids, requester)


def lines_of(process: subprocess.Popen[str]) -> Iterator[str]:
    """The lines that a process prints, as they come."""
    assert process.stdout is not None
    for text in process.stdout:
        yield text.rstrip("\n")
