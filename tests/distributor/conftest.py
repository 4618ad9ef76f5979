"""Fixtures of the distributor: JSM and JQS as processes, and workflows registered by plain calls."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.extend(str(Path(__file__).resolve().parents[1] / name) for name in ("client", "http"))

import service_fixtures
from distributor_helpers import Run

from jobmon.client.requester import Requester

services, requester = service_fixtures.services, service_fixtures.requester


@pytest.fixture
def make_run(requester: Requester, tmp_path: Path) -> Callable[..., Run]:
    """Makes submitted runs: ``make_run({"a": "true", "b": ("true", ["a"])}, max_attempts=2)``."""

    def make(commands: dict[str, Any], *, submit: bool = True, priority: int = 0, **options: Any) -> Run:
        dag_id = requester.post("add_task_dag", name="t", user="ann", dag_hash="h", priority=priority)[
            "dag_id"
        ]
        jobs = []
        for name, given in commands.items():
            command, upstreams = given if isinstance(given, tuple) else (given, [])
            jobs.append(
                {
                    "name": name,
                    "job_hash": name,
                    "command": command,
                    "upstream_job_hashes": upstreams,
                    **options,
                }
            )
        ids = requester.post("add_jobs", dag_id=dag_id, jobs=jobs)["job_ids"]
        workflow = requester.post(
            "add_workflow",
            dag_id=dag_id,
            workflow_args="v1",
            workflow_hash=secrets.token_hex(20),
            name="wf",
            user="ann",
        )["workflow_dct"]
        run = requester.post(
            "add_workflow_run",
            workflow_id=workflow["id"],
            user="ann",
            hostname="login1",
            pid=1,
            working_dir=str(tmp_path),
        )["workflow_run_id"]
        if submit:
            assert requester.post("submit_workflow_run", workflow_run_id=run)["num_left"] == 0
        return Run(dag_id, workflow["id"], run, dict(zip(commands, ids, strict=True)))

    return make
