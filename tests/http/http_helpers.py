"""Services for tests: in this process (quick), and as processes of their own behind real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import requests
from flask import Flask
from ports import free_port as free_port

from jobmon.config import Config, load_config

RUN = """
import sys, json
from jobmon.config import load_config, ConfigError
from jobmon.thin_common.serve import serve
if __name__ == "__main__":
    try:
        serve(sys.argv[1], load_config(overrides=json.loads(sys.argv[2])))
    except ConfigError as error:
        sys.exit(f"ConfigError: {error}")
"""


def config_for(database: Any, **overrides: Any) -> Config:
    """The configuration of a service on a test database."""
    return load_config(env={**database.env(), "HOME": str(database.directory)}, overrides=overrides)


class Api:
    """Calls of one in-process service, as an emu client makes them."""

    def __init__(self, app: Flask) -> None:
        self.app = app
        self.client = app.test_client()

    def post(self, path: str, body: Any = None, **kw: Any) -> Any:
        """POST with a JSON body; gives the response."""
        return self.client.post(path, data=json.dumps(body or {}), content_type="application/json", **kw)

    def get(self, path: str, **arguments: Any) -> Any:
        """GET with a query string; gives the response."""
        return self.client.get(path, query_string=arguments, content_type="application/json")

    def ok(self, path: str, **body: Any) -> Any:
        """POST that must succeed; gives the answer's JSON."""
        response = self.post(path, body)
        assert response.status_code == 200, response.text
        return response.json

    def read(self, path: str, **arguments: Any) -> Any:
        """GET that must succeed; gives the answer's JSON."""
        response = self.get(path, **arguments)
        assert response.status_code == 200, response.text
        return response.json

    def close(self) -> None:
        """Stop the background loads."""
        relay = self.app.extensions["jobmon_relay"]
        relay.catalog.stop()
        relay._database.close()


@dataclass
class Service:
    """A service in a process of its own."""

    name: str
    port: int
    management_port: int
    process: subprocess.Popen[bytes]
    log: Path
    url: str = field(init=False)

    def __post_init__(self) -> None:
        self.url = f"http://127.0.0.1:{self.port}"

    def post(self, path: str, body: Any = None, **kw: Any) -> requests.Response:
        """POST on a connection of its own."""
        return requests.post(self.url + path, json=body or {}, timeout=30, **kw)

    def get(self, path: str, **kw: Any) -> requests.Response:
        """GET on a connection of its own."""
        return requests.get(self.url + path, timeout=30, **kw)

    def wait(self, path: str = "/readyz", status: int = 200, seconds: float = 60) -> None:
        """Wait until ``path`` answers with ``status``."""
        deadline = time.monotonic() + seconds
        seen: object = None
        while time.monotonic() < deadline:
            with contextlib.suppress(requests.RequestException):
                seen = self.get(path).status_code
                if seen == status:
                    return
            assert self.process.poll() is None, self.log.read_text()
            time.sleep(0.05)
        raise AssertionError(f"{path} answered {seen}, not {status}:\n{self.log.read_text()[-4000:]}")

    def lines(self) -> list[dict[str, Any]]:
        """The log's lines."""
        return [json.loads(line) for line in self.log.read_text().splitlines()]

    def workers(self) -> list[int]:
        """Process ids of the workers."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with contextlib.suppress(OSError):
                    parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                    command = (entry / "cmdline").read_bytes()
                    if parent == self.process.pid and b"resource_tracker" not in command:
                        found.append(int(entry.name))
        return found

    def kill(self) -> None:
        """SIGKILL to it and its workers; returns when all of them have ended, and the port is free."""
        workers = self.workers()
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(60)
        wait_gone(workers)

    def stop(self) -> int:
        """SIGTERM; the exit status."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            return self.process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise


def wait_gone(pids: list[int], seconds: float = 60) -> None:
    """Wait until these processes have ended; one that nobody asked for its exit status has."""
    deadline = time.monotonic() + seconds
    for pid in pids:
        while psutil.pid_exists(pid):
            with contextlib.suppress(psutil.NoSuchProcess):
                if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                    break
            assert time.monotonic() < deadline, f"process {pid} is still there"
            time.sleep(0.05)


JOB_KEYS = set(
    [
        "dag_id",
        "job_id",
        "name",
        "tag",
        "job_hash",
        "command",
        "status",
        "slots",
        "mem_free",
        "num_attempts",
        "max_attempts",
        "context_args",
        "last_nodename",
        "last_process_group_id",
    ]
)
HASH = 2**159 + 12345  # as int(sha1, 16) gives it


def make_dag(jsm: Api, **more: Any) -> int:
    """A dag as the client makes it."""
    body = {
        "name": "dag",
        "user": "ann",
        "dag_hash": "ab" * 20,
        "created_date": "2018-11-01 10:00:00",
        **more,
    }
    return int(jsm.ok("/add_task_dag", **body)["dag_id"])


def make_job(jsm: Api, dag_id: Any, job_hash: Any = HASH, **more: Any) -> dict[str, Any]:
    """A job as the client makes it."""
    body = {
        "dag_id": dag_id,
        "name": "job",
        "job_hash": job_hash,
        "command": "sleep 1",
        "slots": 1,
        "mem_free": 2,
    }
    body |= {"max_attempts": 3, "max_runtime": None, "context_args": "{}", "tag": None, **more}
    document: dict[str, Any] = jsm.ok("/add_job", **body)["job_dct"]
    return document


def make_workflow(jsm: Api, dag_id: Any) -> dict[str, Any]:
    """A workflow as the client makes it."""
    body = {"dag_id": str(dag_id), "workflow_args": "v1", "workflow_hash": "h1", "name": "wf", "user": "ann"}
    document: dict[str, Any] = jsm.ok("/add_workflow", **body, description="")["workflow_dct"]
    return document


def make_run(jsm: Api, workflow_id: Any) -> int:
    """A workflow run as the client makes it."""
    body = {"workflow_id": workflow_id, "user": "ann", "hostname": "login1", "pid": "000", "stderr": "/e"}
    body |= {"stdout": "/o", "project": "p", "slack_channel": "#c", "working_dir": "/home/ann"}
    return int(jsm.ok("/add_workflow_run", **body)["workflow_run_id"])


def make_instance(jsm: Api, job_id: int) -> int:
    """A queued job's instance as the client makes it."""
    assert jsm.ok("/queue_job", job_id=job_id) == {}
    body = {"job_id": str(job_id), "executor_type": "SGEExecutor"}
    return int(jsm.ok("/add_job_instance", **body)["job_instance_id"])
