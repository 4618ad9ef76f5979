"""Calls at which JSM fails (5xx), and calls that it refuses: what runs is not killed for that."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from distributor_helpers import Run
from waiting import until

from jobmon.client.errors import RequestRefused
from jobmon.client.requester import Requester
from jobmon.distributor import Distributor
from jobmon.distributor import distributor as module
from jobmon.executors.local import LocalExecutor

MakeRun = Callable[..., Run]


class Failing:
    """A requester whose calls fail when told to; ``before``: without having had an effect."""

    def __init__(self, requester: Requester) -> None:
        self.config = requester.config
        self._requester = requester
        self.failures: dict[str, list[int]] = {}
        self.bodies: list[tuple[str, dict[str, Any]]] = []
        self.before = True

    def post(self, route: str, **body: Any) -> dict[str, Any]:
        self.bodies.append((route, body))
        status = self.failures[route].pop(0) if self.failures.get(route) else 0
        if not (status and self.before):
            answer = self._requester.post(route, **body)
        if status:
            raise RequestRefused("INTERNAL_ERROR" if status >= 500 else "FORBIDDEN", "told to", "", status)
        return answer


@pytest.fixture
def failing(requester: Requester, monkeypatch: pytest.MonkeyPatch) -> Failing:
    monkeypatch.setattr(module, "FIRST_PAUSE", 0.1)
    monkeypatch.setattr(module, "EXPIRE_SECONDS", 1.0)
    return Failing(requester)


@pytest.fixture
def start(failing: Failing) -> Iterator[Callable[..., tuple[Distributor, list[Any], threading.Thread]]]:
    """Starts a distributor on a thread; gives it, what it ends with, and the thread."""
    made: list[tuple[Distributor, threading.Thread]] = []

    def begin(**options: Any) -> tuple[Distributor, list[Any], threading.Thread]:
        distributor = Distributor(failing, LocalExecutor(2, kill_after=1), **options)  # type: ignore[arg-type]
        ended: list[Any] = []

        def work() -> None:
            try:
                ended.append(distributor.run())
            except Exception as error:
                ended.append(error)

        thread = threading.Thread(target=work, daemon=True)
        thread.start()
        made.append((distributor, thread))
        return distributor, ended, thread

    yield begin
    failing.failures.clear()
    for distributor, thread in made:
        distributor.kill()
        thread.join(30)


def statuses(db: Any) -> set[str]:
    return {status for (status,) in db.query("SELECT status FROM job")}


@pytest.mark.parametrize("before", [True, False])
@pytest.mark.parametrize(
    "route", ["claim_jobs", "log_events", "end_workflow_run", "log_heartbeat", "expire_job_instances"]
)
def test_a_call_at_which_jsm_fails_is_made_again(
    make_run: MakeRun, failing: Failing, db: Any, tmp_path: Path, route: str, before: bool, start: Any
) -> None:
    wait = "until [ -e go ]; do sleep 0.1; done"
    run = make_run({"a": f"echo a >> log; {wait}", "b": ("echo b >> log", ["a"])})
    failing.before = before
    failing.failures[route] = [500, 500, 501]
    _, ended, thread = start(
        workflow_run_id=run.workflow_run_id, dag_id=run.dag_id, heartbeat_seconds=0.2, lease_seconds=12
    )
    until(lambda: failing.failures[route] == [])
    (tmp_path / "go").touch()
    thread.join(60)
    assert ended == ["D"]
    assert (tmp_path / "log").read_text() == "a\nb\n"
    assert db.query("SELECT COUNT(*) FROM job_instance") == [(2,)]
    assert db.audits() == {}


def test_a_claim_is_repeated_under_its_key(make_run: MakeRun, failing: Failing, db: Any, start: Any) -> None:
    """What was claimed although JSM said otherwise must not wait for its lease to run out."""
    run = make_run({f"j{n}": "true" for n in range(4)})
    failing.before = False
    failing.failures["claim_jobs"] = [500, 500]
    _, ended, thread = start(workflow_run_id=run.workflow_run_id, dag_id=run.dag_id)
    thread.join(60)
    assert ended == ["D"]
    keys = [body["request_key"] for route, body in failing.bodies if route == "claim_jobs"]
    assert keys[0] == keys[1] == keys[2] and len(set(keys)) == len(keys) - 2
    assert db.query("SELECT COUNT(*) FROM job_instance") == [(4,)]


def test_others_are_made_while_one_fails(make_run: MakeRun, failing: Failing, db: Any, start: Any) -> None:
    make_run({f"j{n}": "true" for n in range(4)})
    failing.failures["end_workflow_runs"] = [500] * 10_000
    start()
    until(lambda: statuses(db) == {"D"})


def test_a_service_that_is_refused_lets_end_what_runs(
    make_run: MakeRun, failing: Failing, db: Any, tmp_path: Path, start: Any
) -> None:
    make_run({"long": "until [ -e go ]; do sleep 0.1; done; echo ran >> log", "next": ("true", ["long"])})
    _, ended, thread = start()
    until(lambda: "R" in statuses(db))
    failing.failures["end_workflow_runs"] = [403] * 10_000
    failing.failures["claim_jobs"] = [403] * 10_000
    until(lambda: len(failing.failures["end_workflow_runs"]) < 10_000)
    assert thread.is_alive()
    (tmp_path / "go").touch()
    thread.join(60)
    assert isinstance(ended[0], RequestRefused) and ended[0].status == 403
    assert (tmp_path / "log").read_text() == "ran\n"
    assert db.query("SELECT status FROM job_instance") == [("D",)]


def test_even_if_its_reports_are_refused(
    make_run: MakeRun, failing: Failing, db: Any, tmp_path: Path, start: Any
) -> None:
    """As when the token was changed."""
    make_run({"long": "until [ -e go ]; do sleep 0.1; done; echo ran >> log"})
    _, ended, thread = start()
    until(lambda: "R" in statuses(db))
    for route in ("log_events", "end_workflow_runs", "claim_jobs", "log_heartbeat"):
        failing.failures[route] = [401] * 10_000
    until(lambda: len(failing.failures["end_workflow_runs"]) < 10_000)
    (tmp_path / "go").touch()
    thread.join(60)
    assert isinstance(ended[0], RequestRefused) and ended[0].status == 401
    assert (tmp_path / "log").read_text() == "ran\n"


def test_a_run_that_is_refused_ends(make_run: MakeRun, failing: Failing, db: Any, start: Any) -> None:
    run = make_run({"long": "sleep 600"})
    _, ended, thread = start(workflow_run_id=run.workflow_run_id, dag_id=run.dag_id)
    until(lambda: "R" in statuses(db))
    failing.failures["end_workflow_run"] = [403]
    thread.join(60)
    assert isinstance(ended[0], RequestRefused)
