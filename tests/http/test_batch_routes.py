"""What batch executors ask the services."""

from __future__ import annotations

import re
from typing import Any

import pytest
from http_helpers import HASH, Api, make_dag, make_instance, make_job


def test_live_job_instances_page_by_page(jsm: Api, jqs: Api) -> None:
    dag_id = make_dag(jsm)
    for n in range(5):
        jsm.ok("/queue_job", job_id=make_job(jsm, dag_id, HASH + n)["job_id"])
    claimed = jsm.ok("/claim_jobs", executor_type="SlurmExecutor", dag_id=dag_id, lease_seconds=300)
    ids = [one["job_instance_id"] for one in claimed["job_instances"]]
    of_another = make_instance(jsm, make_job(jsm, make_dag(jsm))["job_id"])

    def read(executor_type: str = "SlurmExecutor", **more: Any) -> list[int]:
        answer = jqs.read("/get_live_job_instances", executor_type=executor_type, **more)
        assert set(answer) == {"job_instances"}
        for one in answer["job_instances"]:
            assert one["status"] == "I" and -3600 < one["lease_left_seconds"] <= 86400
        return [one["job_instance_id"] for one in answer["job_instances"]]

    assert read() == ids
    seen: list[int] = []
    while page := read(after=seen[-1] if seen else 0, limit=2):
        assert len(page) <= 2
        seen += page
    assert seen == ids
    assert read("SGEExecutor") == [of_another]
    jsm.ok("/log_error", job_instance_id=ids[0], error_message="gone", job_instance_status="U")
    assert read() == ids[1:]


@pytest.mark.parametrize(
    ("given", "code"),
    [
        ({}, "MISSING_ARGUMENT"),
        ({"executor_type": "x", "offset": 1}, "UNKNOWN_ARGUMENT"),
        ({"executor_type": "x", "limit": 0}, "INVALID_ARGUMENT"),
        ({"executor_type": "x", "after": -1}, "INVALID_ARGUMENT"),
        ({"executor_type": "x", "after": "one"}, "INVALID_ARGUMENT"),
    ],
)
def test_a_wrong_page(jqs: Api, given: dict[str, Any], code: str) -> None:
    response = jqs.get("/get_live_job_instances", **given)
    assert response.status_code == 400 and response.json["error"]["code"] == code


def test_other_routes_have_no_pages(jsm: Api, jqs: Api) -> None:
    for more in ({"after": 1}, {"limit": 1}):
        response = jqs.get("/get_jobs", dag_id=make_dag(jsm), **more)
        assert response.json["error"]["code"] == "UNKNOWN_ARGUMENT"


def test_names_warnings_and_resource_errors(jsm: Api, jqs: Api) -> None:
    scales = {"mem_free_scale": 0.5, "max_runtime_scale": "0.25"}
    job_id = make_job(jsm, make_dag(jsm), mem_free=4, max_runtime=60, **scales)["job_id"]
    instance = make_instance(jsm, job_id)
    database_id = jsm.ok("/get_database_id")["database_id"]
    assert re.fullmatch("[0-9a-f]{8}", database_id)
    name = f"jobmon-{database_id}-{instance}.0"
    assert jsm.ok("/log_executor_name", job_instance_id=instance, executor_name=name) == {}
    for _ in range(2):
        answer = jsm.ok("/log_warning", job_instance_id=instance, error_message="no such queue")
        assert answer == {"message": None}
    wrong = {"job_instance_id": instance, "error_message": "x", "job_instance_status": "D"}
    response = jsm.post("/log_error", wrong)
    assert response.status_code == 422 and response.json["error"]["code"] == "INVALID_PARAMETER"
    end = {"job_instance_status": "Z", "exceeded": "max_runtime"}
    assert jsm.ok("/log_error", job_instance_id=instance, error_message="TIMEOUT", **end) == {"message": ""}
    [job] = jqs.read("/jobs", job_id=job_id)["jobs"]
    assert (job["mem_free"], job["max_runtime"]) == (4, 75)
    assert (job["mem_free_scale"], job["max_runtime_scale"]) == (0.5, 0.25)
    [row] = jqs.read("/job_instances", job_id=job_id)["job_instances"]
    kept = {"status": "RESOURCE_ERROR", "executor_name": name, "exceeded": "max_runtime"}
    assert row.items() >= kept.items()
    found = jqs.read("/job_errors", job_id=job_id)["job_errors"]
    assert [(one["severity"], one["description"]) for one in found] == [
        ("warning", "no such queue"),
        ("error", "TIMEOUT"),
    ]
    late = jsm.post("/log_warning", {"job_instance_id": instance, "error_message": "late"})
    assert late.status_code == 409 and late.json["error"]["code"] == "JOB_INSTANCE_ENDED"


@pytest.mark.parametrize("scale", ["much", -1, 1000, True])
def test_no_scale(jsm: Api, scale: Any) -> None:
    body = {"dag_id": make_dag(jsm), "name": "n", "job_hash": "1", "command": "true", "mem_free_scale": scale}
    response = jsm.post("/add_job", body)
    assert response.status_code == 422, response.json


def test_the_pages_are_in_the_description(jqs: Api) -> None:
    route = jqs.get("/openapi.json").json["paths"]["/get_live_job_instances"]["get"]
    assert [one["name"] for one in route["parameters"]] == [
        "executor_type",
        "after",
        "limit",
        "min_position",
    ]
