"""A run that is handed to distributors, over HTTP: what client, distributor, worker and people call."""

from __future__ import annotations

from typing import Any

import pytest
from http_helpers import Api, make_dag, make_instance, make_job, make_run, make_workflow


def refusal(api: Api, path: str, **body: Any) -> tuple[int, str]:
    """The status and the code of a POST that must be refused."""
    response = api.post(path, body)
    assert response.status_code >= 400, response.text
    assert set(response.json["error"]) == {"code", "message", "hint"}
    return response.status_code, response.json["error"]["code"]


def make_submitted(jsm: Api, count: int, **more: Any) -> dict[str, Any]:
    """A submitted run: its dag_id, workflow_id, workflow_run_id and job_ids."""
    dag_id = make_dag(jsm, **more)
    jobs = [
        {"name": f"j{n}", "job_hash": str(n), "command": f"echo {n}", "max_attempts": 2} for n in range(count)
    ]
    job_ids = jsm.ok("/add_jobs", dag_id=dag_id, jobs=jobs)["job_ids"]
    workflow = {"workflow_args": "v1", "workflow_hash": f"of {dag_id}", "name": "w", "user": "ann"}
    workflow_id = jsm.ok("/add_workflow", dag_id=dag_id, **workflow)["workflow_dct"]["id"]
    run_id = make_run(jsm, workflow_id)
    answer = jsm.ok("/submit_workflow_run", workflow_run_id=run_id)
    assert answer == {"num_queued": count, "num_left": 0}
    return {"dag_id": dag_id, "workflow_id": workflow_id, "workflow_run_id": run_id, "job_ids": job_ids}


def test_from_start_to_end(jsm: Api, jqs: Api) -> None:
    dag_id = make_dag(jsm, priority=5, max_concurrently_running=10)
    jobs = [
        {
            "name": "first",
            "job_hash": "1",
            "command": "echo 1",
            "attributes": [{"attribute_type": 8, "value": "blue"}, {"attribute_type": "1", "value": 17}],
        },
        {"name": "second", "job_hash": "2", "command": "echo 2", "upstream_job_hashes": ["1"]},
    ]
    first, second = jsm.ok("/add_jobs", dag_id=dag_id, jobs=jobs)["job_ids"]
    workflow_id = make_workflow(jsm, dag_id)["id"]
    run_id = make_run(jsm, workflow_id)
    assert jsm.ok("/submit_workflow_run", workflow_run_id=str(run_id)) == {"num_queued": 1, "num_left": 0}
    assert (
        jqs.read("/job_explanations", job_id=second)["job_explanations"][0]["reason"] == "WAITS_FOR_UPSTREAM"
    )
    [edge] = jqs.read("/job_edges", downstream_job_id=second)["job_edges"]
    assert (edge["upstream_name"], edge["upstream_status"]) == ("first", "QUEUED_FOR_INSTANTIATION")

    claim = {"executor_type": "LocalExecutor", "max_jobs": 5, "lease_seconds": 60}
    [claimed] = jsm.ok("/claim_jobs", **claim, workflow_run_id=run_id)["job_instances"]
    assert claimed.items() >= {"job_id": first, "workflow_run_id": run_id, "working_dir": "/home/ann"}.items()
    start = {"job_instance_id": claimed["job_instance_id"], "nodename": "n7", "process_group_id": "4711"}
    for _ in range(2):
        assert jsm.ok("/start_job_instance", **start) == {"job_instance": claimed}
    [why] = jqs.read("/job_explanations", job_id=first)["job_explanations"]
    assert why["reason"] == "RUNNING" and "on n7" in why["explanation"]
    answer = jsm.ok("/end_workflow_run", workflow_run_id=run_id)
    assert answer == {"status": "R", "workflow_status": "R", "counts": {"R": 1, "G": 1}}
    jsm.ok("/log_done", job_instance_id=claimed["job_instance_id"])

    # a service asks for any
    [claimed] = jsm.ok("/claim_jobs", **claim)["job_instances"]
    assert claimed["job_id"] == second
    events = [
        {"event": event, "job_instance_id": claimed["job_instance_id"]} for event in ("running", "done")
    ]
    jsm.ok("/log_events", events=events)
    ended = {"workflow_run_id": run_id, "workflow_id": workflow_id, "status": "D"}
    assert jsm.ok("/end_workflow_runs") == {"workflow_runs": [ended]}
    assert jsm.ok("/end_workflow_runs") == {"workflow_runs": []}
    [run] = jqs.read("/workflow_runs", workflow_run_id=run_id)["workflow_runs"]
    assert run["status"] == "DONE" and run["submitted_date"]
    [workflow] = jqs.read("/workflows", workflow_id=workflow_id)["workflows"]
    shown = (workflow["status"], workflow["priority"], workflow["max_concurrently_running"])
    assert shown == ("DONE", 5, 10)
    assert refusal(jsm, "/stop_workflow", workflow_id=workflow_id) == (409, "ILLEGAL_TRANSITION")


@pytest.mark.parametrize("kill", [True, 1, "1"])
def test_stopped_and_killed(jsm: Api, kill: Any) -> None:
    made = make_submitted(jsm, 3)
    run_id = made["workflow_run_id"]
    [claimed] = jsm.ok("/claim_jobs", executor_type="X", max_jobs=1, workflow_run_id=run_id)["job_instances"]
    answer = jsm.ok("/stop_workflow", workflow_id=made["workflow_id"], kill=kill)
    assert answer == {"workflow_run_id": run_id, "num_killed": 1}
    # the worker is told by its heartbeat, the distributor by its next claim
    instance = claimed["job_instance_id"]
    assert refusal(jsm, "/log_job_instance_heartbeat", job_instance_id=instance) == (
        409,
        "JOB_INSTANCE_ENDED",
    )
    assert refusal(jsm, "/start_job_instance", job_instance_id=instance) == (409, "JOB_INSTANCE_ENDED")
    assert refusal(jsm, "/claim_jobs", executor_type="X", workflow_run_id=run_id) == (
        409,
        "WORKFLOW_RUN_ENDED",
    )
    assert refusal(jsm, "/submit_workflow_run", workflow_run_id=run_id) == (409, "WORKFLOW_RUN_ENDED")
    assert jsm.ok("/claim_jobs", executor_type="X", dag_id=made["dag_id"]) == {"job_instances": []}
    assert jsm.ok("/end_workflow_run", workflow_run_id=run_id)["status"] == "S"


@pytest.mark.parametrize("kill", [False, 0, None])
def test_stopped_and_not_killed(jsm: Api, kill: Any) -> None:
    made = make_submitted(jsm, 2)
    [claimed] = jsm.ok("/claim_jobs", executor_type="X", max_jobs=1)["job_instances"]
    answer = jsm.ok("/stop_workflow", workflow_id=made["workflow_id"], kill=kill)
    assert answer == {"workflow_run_id": made["workflow_run_id"], "num_killed": 0}
    for route in ("/start_job_instance", "/log_job_instance_heartbeat", "/log_done"):
        jsm.ok(route, job_instance_id=claimed["job_instance_id"])


def test_a_killed_job(jsm: Api, jqs: Api) -> None:
    job_id = make_job(jsm, make_dag(jsm))["job_id"]
    assert refusal(jsm, "/kill_job", job_id=job_id) == (409, "JOB_NOT_LIVE")
    instance = make_instance(jsm, job_id)
    for _ in range(2):
        assert jsm.ok("/kill_job", job_id=str(job_id))["job_dct"]["status"] == "F"
    assert refusal(jsm, "/log_done", job_instance_id=instance) == (409, "JOB_INSTANCE_ENDED")
    [why] = jqs.read("/job_explanations", job_id=job_id)["job_explanations"]
    assert why["reason"] == "FAILED" and why["explanation"].endswith("Killed by request")


def test_a_live_run_is_in_the_way(jsm: Api) -> None:
    workflow_id = make_workflow(jsm, make_dag(jsm))["id"]
    run_id = make_run(jsm, workflow_id)
    start = {"workflow_id": workflow_id, "user": "bea", "hostname": "login2", "pid": 7}
    response = jsm.post("/add_workflow_run", {**start, "stale_after_seconds": 60})
    assert response.status_code == 409
    error = response.json["error"]
    assert error["code"] == "WORKFLOW_RUN_ALIVE" and f"run {run_id} of " in error["message"]
    assert jsm.ok("/add_workflow_run", **start, stale_after_seconds="0")["workflow_run_id"] > run_id


def test_limits(jsm: Api) -> None:
    made = make_submitted(jsm, 6)
    workflow_id = made["workflow_id"]
    limit = {"workflow_id": workflow_id, "max_concurrently_running": 2}
    assert jsm.ok("/set_max_concurrently_running", **limit) == limit
    assert len(jsm.ok("/claim_jobs", executor_type="X")["job_instances"]) == 2
    none = {"workflow_id": workflow_id, "max_concurrently_running": None}
    assert jsm.ok("/set_max_concurrently_running", **none) == none
    assert len(jsm.ok("/claim_jobs", executor_type="X")["job_instances"]) == 4


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        ("/submit_workflow_run", {"workflow_run_id": 10**12}, (404, "UNKNOWN_WORKFLOW_RUN")),
        ("/end_workflow_run", {"workflow_run_id": 10**12}, (404, "UNKNOWN_WORKFLOW_RUN")),
        ("/claim_jobs", {"executor_type": "X", "workflow_run_id": 10**12}, (404, "UNKNOWN_WORKFLOW_RUN")),
        ("/stop_workflow", {"workflow_id": 10**12}, (404, "UNKNOWN_WORKFLOW")),
        ("/set_max_concurrently_running", {"workflow_id": 10**12}, (404, "UNKNOWN_WORKFLOW")),
        ("/kill_job", {"job_id": 10**12}, (404, "UNKNOWN_JOB")),
        ("/start_job_instance", {"job_instance_id": 10**12}, (404, "UNKNOWN_JOB_INSTANCE")),
        ("/submit_workflow_run", {}, (422, "MISSING_PARAMETER")),
        ("/stop_workflow", {"workflow_id": 1, "force": 1}, (422, "UNKNOWN_PARAMETER")),
        ("/end_workflow_runs", {"workflow_run_id": 1}, (422, "UNKNOWN_PARAMETER")),
        ("/set_max_concurrently_running", {"workflow_id": 1, "max_concurrently_running": "x"}, (422, None)),
    ],
)
def test_refusals(jsm: Api, path: str, body: dict[str, Any], expected: tuple[int, str | None]) -> None:
    status, code = refusal(jsm, path, **body)
    assert status == expected[0] and expected[1] in (None, code)
