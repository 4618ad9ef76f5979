"""Under which name workers on nodes look for JSM, and the commands that start a batch executor."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path
from typing import Any

import pytest
from client_helpers import Services
from play_helpers import PlayedScheduler
from waiting import until

from jobmon.client.errors import JobmonError
from jobmon.client.requester import Requester
from jobmon.client.tasks import BashTask
from jobmon.client.workflow import Workflow
from jobmon.distributor import Distributor
from jobmon.distributor.batch import find_worker_host
from jobmon.executors.batch import BatchExecutor
from jobmon.executors.batch_options import BatchOptions


def test_the_host_itself(services: Services) -> None:
    config = dataclasses.replace(services.config, host="jsm.example")
    assert find_worker_host(config, "x", None) == "jsm.example"


def test_one_that_was_chosen(services: Services) -> None:
    """Only nodes may know it, so it is not tried."""
    config = dataclasses.replace(services.config, worker_host="inside.example")
    assert find_worker_host(config, "x", None) == "inside.example"
    assert find_worker_host(config, "x", "chosen.example") == "chosen.example"


def test_the_machine_s_own_name(
    services: Services, requester: Requester, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.getfqdn", lambda: "127.0.0.1")  # a name at which JSM does answer
    database_id = requester.post("get_database_id")["database_id"]
    for host in ("127.0.0.1", "localhost"):
        config = dataclasses.replace(services.config, host=host)
        assert find_worker_host(config, database_id, None) == "127.0.0.1"
    with pytest.raises(JobmonError, match="another JSM answers"):
        find_worker_host(services.config, "ffffffff", None)


@pytest.mark.parametrize("name", ["localhost", "nowhere.invalid"])
def test_where_jsm_does_not_answer(services: Services, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("socket.getfqdn", lambda: name)
    monkeypatch.setattr("jobmon.distributor.batch.TRY_PATIENCE", 0.2)
    with pytest.raises(JobmonError, match="Nodes can't reach JSM") as raised:
        find_worker_host(services.config, "x", None)
    assert "worker_host" in raised.value.hint


def test_a_workflow_is_told_before_anything_is_claimed(
    requester: Requester, db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("socket.getfqdn", lambda: "localhost")
    executor = BatchExecutor(PlayedScheduler(), None, BatchOptions(batch_dir=tmp_path))
    workflow = Workflow(requester=requester)
    workflow.add_task(BashTask("true"))
    with pytest.raises(JobmonError, match="Nodes can't reach JSM"):
        workflow.run(executor, progress=False)
    assert db.query("SELECT COUNT(*) FROM job_instance") == [(0,)]


def test_a_service_leaves_while_tasks_wait(requester: Requester, db: Any, tmp_path: Path) -> None:
    """On a played scheduler: nothing runs there, so what was submitted is all that there is."""
    scheduler = PlayedScheduler()
    options = BatchOptions(batch_dir=tmp_path, worker_host="jsm.example", reconcile_seconds=0.2)
    executor = BatchExecutor(scheduler, None, options)
    workflow = Workflow(requester=requester)
    workflow.add_tasks([BashTask(f"true {n}") for n in range(30)])
    workflow.submit()
    service = Distributor(requester, executor)
    thread = threading.Thread(target=service.run, daemon=True)
    thread.start()
    try:
        until(lambda: db.query("SELECT COUNT(*) FROM job_instance WHERE status = 'B'") == [(30,)])
        service.drain()
        thread.join(30)
        assert not thread.is_alive()
    finally:
        service.kill()
        thread.join(30)
    assert [one.size for one in scheduler.submissions] == [30]
    assert scheduler.cancelled == []
    assert db.query("SELECT COUNT(*) FROM job_instance WHERE status = 'B'") == [(30,)]
    assert db.audits() == {}
