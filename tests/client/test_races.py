"""Clients that get no answer, that die, and that do the same at the same time."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests
from client_helpers import Services
from waiting import until

from jobmon import BashTask, Requester, Workflow
from jobmon.client import requester as module
from jobmon.client.dag import TaskDag
from jobmon.client.errors import RequestRefused, WorkflowAlreadyComplete, WorkflowAlreadyRunning

Make = Callable[..., Workflow]


def fan(number: int = 20) -> list[BashTask]:
    first = BashTask("echo first >> log")
    middle = [BashTask(f"echo {part} >> log", upstream_tasks=[first]) for part in range(number)]
    return [first, *middle, BashTask("echo last >> log", upstream_tasks=middle)]


def counts(db: Any) -> dict[str, int]:
    tables = (
        "task_dag",
        "job",
        "job_edge",
        "workflow",
        "workflow_run",
        "workflow_attribute",
        "job_attribute",
    )
    return {table: int(db.query(f"SELECT COUNT(*) FROM {table}")[0][0]) for table in tables}


def lose_answers(requester: Requester, lose: Callable[[], bool]) -> list[str]:
    """Let a call take effect and its answer get lost, if ``lose`` says so; the calls that suffered it."""
    send, lost = requester._session.request, []

    def request(method: str, url: str, **content: Any) -> requests.Response:
        response = send(method, url, **content)
        if lose():
            lost.append(url.rpartition("/")[2])
            raise requests.ConnectionError("the connection was lost")
        return response

    requester._session.request = request  # type: ignore[assignment, method-assign]
    return lost


def test_every_answer_is_lost_once(
    services: Services, db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.001)
    requester = Requester(services.config)
    turn = iter(range(10**9))
    lost = lose_answers(requester, lambda: next(turn) % 2 == 0)
    workflow = Workflow("v1", working_dir=tmp_path, requester=requester)
    tasks = fan()
    tasks[0].add_job_attribute("NUM_DRAWS", 10)
    workflow.add_tasks(tasks)
    workflow.add_workflow_attribute("TAG", "x")
    result = workflow.run(max_concurrently_running=4, progress=False)
    assert result and result.counts == {"DONE": 22}
    assert counts(db) == {
        "task_dag": 1, "job": 22, "job_edge": 40, "workflow": 1, "workflow_run": 1, "workflow_attribute": 1,
        "job_attribute": 1,
    }  # fmt: skip
    lines = (tmp_path / "log").read_text().split()
    assert len(lines) == len(set(lines)) == 22, "a job ran twice"
    made = {"add_task_dag", "add_jobs", "add_workflow", "add_workflow_attribute", "add_workflow_run"}
    assert made | {"set_max_concurrently_running", "submit_workflow_run", "end_workflow_run"} <= set(lost)
    assert db.audits() == {}


@pytest.mark.parametrize("seed", range(3))
def test_bind_given_up_anywhere_is_carried_on(make_workflow: Make, db: Any, seed: int) -> None:
    """The client dies after any of its calls; the next one finishes what it began, in the same dag."""
    randomly = random.Random(seed)

    class Died(Exception):  # noqa: N818
        pass

    for _ in range(8):
        workflow = make_workflow()
        workflow.add_tasks(fan())
        post = workflow.requester.post

        def dying(route: str, post: Callable[..., Any] = post, **body: Any) -> dict[str, Any]:
            answer = post(route, **body)
            if randomly.random() < 0.5:
                raise Died
            return dict(answer)

        workflow.requester.post = dying  # type: ignore[method-assign]
        try:
            workflow.bind()
        except Died:
            pass
        finally:
            workflow.requester.post = post  # type: ignore[method-assign]
    workflow.bind()
    assert counts(db) | {"workflow_run": 0} == {
        "task_dag": 1, "job": 22, "job_edge": 40, "workflow": 1, "workflow_run": 0, "workflow_attribute": 0,
        "job_attribute": 0,
    }  # fmt: skip
    assert workflow.run(progress=False)


def test_a_dag_that_was_deleted_is_made_anew(make_workflow: Make, db: Any) -> None:
    tasks = fan(2)
    workflow = make_workflow()
    workflow.add_tasks(tasks)
    workflow.bind()
    for table in ("job_gate", "job_edge", "job_status_log", "job", "workflow", "task_dag"):
        db.query(f"DELETE FROM {table}")
    again = make_workflow()
    again.add_tasks(tasks)
    assert again.run(progress=False)


def test_two_binds_of_one_new_workflow_at_once(services: Services, db: Any, tmp_path: Path) -> None:
    for number in range(5):
        barrier = threading.Barrier(4)

        def bind(_: int, number: int = number, barrier: threading.Barrier = barrier) -> int | None:
            workflow = Workflow(f"v{number}", working_dir=tmp_path, requester=Requester(services.config))
            workflow.add_tasks(fan(200))
            barrier.wait()
            return workflow.bind()

        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(bind, range(4)))) == 1
    found = counts(db)
    assert (found["workflow"], found["task_dag"], found["job"], found["job_edge"]) == (5, 5, 5 * 202, 5 * 400)
    assert db.audits() == {}


def test_of_two_runs_at_once_one_is_told_that_the_other_lives(
    services: Services, db: Any, tmp_path: Path
) -> None:
    barrier = threading.Barrier(3)

    def run(_: int) -> str:
        workflow = Workflow("v1", working_dir=tmp_path, requester=Requester(services.config))
        workflow.add_tasks(fan())
        barrier.wait()
        try:
            return workflow.run(progress=False).status
        except (WorkflowAlreadyRunning, WorkflowAlreadyComplete) as error:
            return type(error).__name__

    with ThreadPoolExecutor(3) as pool:
        outcomes = sorted(pool.map(run, range(3)))
    assert outcomes.count("DONE") == 1, outcomes
    lines = (tmp_path / "log").read_text().split()
    assert len(lines) == len(set(lines)) == 22, "a job ran twice"
    assert db.query("SELECT status FROM workflow") == [("D",)]
    assert db.audits() == {}


def test_a_workflow_that_another_client_registered_meanwhile(make_workflow: Make, db: Any) -> None:
    """As an emu client does it: with a dag of its own, and the same hash."""
    workflow = make_workflow()
    workflow.add_tasks(fan())
    post = workflow.requester.post
    theirs: list[int] = []

    def overtaken(route: str, **body: Any) -> dict[str, Any]:
        if route == "add_workflow" and not theirs:
            dag = TaskDag()
            for task in fan():
                dag.add_task(task)
            dag_id = post("add_task_dag", name="", user="emu", dag_hash=dag.digest())["dag_id"]
            theirs.append(post(route, **{**body, "dag_id": dag_id, "user": "emu"})["workflow_dct"]["id"])
        return post(route, **body)

    workflow.requester.post = overtaken  # type: ignore[method-assign]
    assert workflow.bind() == theirs[0]
    assert db.query("SELECT workflow_id, dag_id FROM workflow") == [(theirs[0], workflow.dag_id)]
    assert db.query("SELECT user FROM workflow") == [("emu",)]


def test_a_hash_that_belongs_to_something_else_is_an_error(make_workflow: Make) -> None:
    workflow = make_workflow()
    workflow.add_tasks(fan())
    post = workflow.requester.post

    def taken(route: str, **body: Any) -> dict[str, Any]:
        if route == "add_workflow":
            raise RequestRefused("WORKFLOW_HASH_TAKEN", "taken", "", 409)
        return post(route, **body)

    workflow.requester.post = taken  # type: ignore[method-assign]
    with pytest.raises(RequestRefused, match="WORKFLOW_HASH_TAKEN"):
        workflow.bind()


def test_a_run_that_is_superseded_while_it_starts(make_workflow: Make, requester: Requester, db: Any) -> None:
    workflow = make_workflow()
    workflow.add_tasks(fan())
    post = requester.post

    def overtaken(route: str, **body: Any) -> dict[str, Any]:
        if route == "submit_workflow_run":
            post("add_workflow_run", workflow_id=workflow.workflow_id, user="u", hostname="h", pid=1)
        return post(route, **body)

    requester.post = overtaken  # type: ignore[method-assign]
    with pytest.raises(WorkflowAlreadyRunning, match="another run of it was started"):
        workflow.run(progress=False)
    assert db.query("SELECT status FROM workflow_run ORDER BY workflow_run_id") == [("S",), ("R",)]


def test_a_run_that_is_just_being_started_here_is_alive(
    make_workflow: Make, requester: Requester, db: Any
) -> None:
    """Another thread of this process must not take it for one that was given up."""
    workflow, again = make_workflow(), make_workflow()
    for one in (workflow, again):
        one.add_tasks(fan())
    post = requester.post

    def overtaken(route: str, **body: Any) -> dict[str, Any]:
        if route == "submit_workflow_run":
            requester.post = post  # type: ignore[method-assign]
            with pytest.raises(WorkflowAlreadyRunning, match="is alive"):
                again.run(progress=False)
        return post(route, **body)

    requester.post = overtaken  # type: ignore[method-assign]
    assert workflow.run(progress=False)
    assert db.query("SELECT status FROM workflow_run") == [("D",)]


@pytest.mark.parametrize(
    "error",
    [RequestRefused("INTERNAL_ERROR", "INTERNAL_ERROR: broken", "", 500), KeyboardInterrupt("broken")],
)
def test_a_run_that_can_not_be_started_is_not_left_alive(
    make_workflow: Make, requester: Requester, db: Any, error: BaseException
) -> None:
    workflow = make_workflow()
    workflow.add_tasks(fan())
    post = requester.post

    def refusing(route: str, **body: Any) -> dict[str, Any]:
        if route == "submit_workflow_run":
            raise error
        return post(route, **body)

    requester.post = refusing  # type: ignore[method-assign]
    with pytest.raises(type(error), match="broken"):
        workflow.submit()
    assert db.query("SELECT status FROM workflow_run") == [("S",)]
    requester.post = post  # type: ignore[method-assign]
    assert workflow.run(progress=False)


PROGRAM = """
import sys
from jobmon import BashTask, Workflow
workflow = Workflow("crashes", working_dir=sys.argv[1])
tasks = []
for number in range(12):
    # the last two wait: it does not come to its end before it may, however late it is killed
    gate = "until test -e go; do sleep 0.05; done; " if number >= 10 else ""
    command = f"echo {number} >> log; sleep 0.3; {gate}echo {number} >> ended"
    tasks.append(BashTask(command, upstream_tasks=tasks[-2:-1], max_attempts=9))
workflow.add_tasks(tasks)
workflow.add_task(BashTask("cat ended > all", upstream_tasks=tasks))
print(workflow.run(max_concurrently_running=2))
"""


def test_a_client_that_is_killed_again_and_again(services: Services, db: Any, tmp_path: Path) -> None:
    program = [sys.executable, "-c", PROGRAM, str(tmp_path)]
    log = tmp_path / "log"
    log.touch()
    for _ in range(4):
        seen = len(log.read_text().split())
        process = subprocess.Popen(
            program, env=services.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        until(lambda seen=seen: len(log.read_text().split()) >= seen + 2)
        process.send_signal(signal.SIGKILL)
        process.wait()
    (tmp_path / "go").touch()
    done = subprocess.run(program, env=services.environ, capture_output=True, text=True, timeout=120)
    assert "13 of 13 jobs DONE" in done.stdout, done.stderr
    ended = (tmp_path / "ended").read_text().split()
    assert set(ended) == {str(number) for number in range(12)}
    found = counts(db)
    assert (found["task_dag"], found["job"], found["workflow"]) == (1, 13, 1)
    statuses = db.query("SELECT status FROM workflow_run ORDER BY workflow_run_id")
    assert statuses == [("S",), ("S",), ("S",), ("S",), ("D",)]
    assert db.audits() == {}
    assert os.path.exists(tmp_path / "all")
