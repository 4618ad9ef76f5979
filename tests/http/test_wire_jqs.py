"""JQS's side of the wire protocol."""

from __future__ import annotations

import re
from typing import Any

import pytest
from http_helpers import HASH, JOB_KEYS, Api, make_dag, make_instance, make_job, make_run, make_workflow

INSTANCE_KEYS = set(
    [
        "job_instance_id",
        "workflow_run_id",
        "executor_id",
        "job_id",
        "status",
        "nodename",
        "process_group_id",
        "status_date",
        "time_since_status_update",
    ]
)
RUN_KEYS = set(
    [
        "id",
        "workflow_id",
        "user",
        "hostname",
        "pid",
        "stderr",
        "stdout",
        "project",
        "working_dir",
        "slack_channel",
        "executor_class",
        "status",
    ]
)


def test_job_lists(jsm: Api, jqs: Api) -> None:
    dag_id, other = make_dag(jsm), make_dag(jsm)
    ids = [make_job(jsm, dag_id, HASH + n)["job_id"] for n in range(3)]
    make_job(jsm, other)
    jsm.ok("/queue_job", job_id=ids[1])
    jobs = jqs.read("/get_jobs", dag_id=str(dag_id))["job_dcts"]
    assert [job["job_id"] for job in jobs] == ids
    assert all(set(job) >= JOB_KEYS for job in jobs)
    assert [job["job_hash"] for job in jobs] == [str(HASH + n) for n in range(3)]
    queued = jqs.read("/get_queued", dag_id=dag_id)["job_dcts"]
    assert [job["job_id"] for job in queued] == [ids[1]]


def test_instance_lists(jsm: Api, jqs: Api) -> None:
    dag_id = make_dag(jsm)
    run_id = make_run(jsm, make_workflow(jsm, dag_id)["id"])
    instance_id = make_instance(jsm, make_job(jsm, dag_id)["job_id"])
    assert jqs.read("/get_submitted_or_running", dag_id=dag_id) == {"ji_dcts": []}
    jsm.ok("/log_executor_id", job_instance_id=instance_id, executor_id=5)
    [submitted] = jqs.read("/get_submitted_or_running", dag_id=dag_id)["ji_dcts"]
    assert set(submitted) >= INSTANCE_KEYS
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d", submitted["status_date"])
    assert isinstance(submitted["time_since_status_update"], int)
    assert (submitted["executor_id"], submitted["nodename"]) == (5, None)
    of_run = jqs.read("/get_job_instances_of_workflow_run", workflow_run_id=run_id)["job_instances"]
    assert [instance["job_instance_id"] for instance in of_run] == [instance_id]


def test_timed_out(jsm: Api, jqs: Api, db: Any) -> None:
    dag_id = make_dag(jsm)
    instance_id = make_instance(jsm, make_job(jsm, dag_id, max_runtime=1)["job_id"])
    jsm.ok("/log_running", job_instance_id=instance_id, nodename="n", process_group_id=1)
    assert jqs.read("/get_timed_out", dag_id=dag_id) == {"timed_out": []}
    with db.connect("admin").cursor() as cursor:
        cursor.execute("SELECT SLEEP(1.5)")
    [late] = jqs.read("/get_timed_out", dag_id=dag_id)["timed_out"]
    assert late["job_instance_id"] == instance_id


def test_dag_ids_are_plain_numbers_and_hashes_are_exact(jsm: Api, jqs: Api) -> None:
    ids = [make_dag(jsm, dag_hash="abc"), make_dag(jsm, dag_hash="abc")]
    make_dag(jsm, dag_hash="ABC")
    assert jqs.read("/get_dag_ids_by_hash", dag_hash="abc") == {"dag_ids": ids}
    assert jqs.read("/get_dag_ids_by_hash", dag_hash="abc ") == {"dag_ids": []}
    assert jqs.read("/get_dag_ids_by_hash", dag_hash="none") == {"dag_ids": []}


def test_workflow_by_inputs(jsm: Api, jqs: Api) -> None:
    dag_id = make_dag(jsm)
    workflow = make_workflow(jsm, dag_id)
    assert jqs.read("/get_workflows_by_inputs", dag_id=dag_id, workflow_args="v1") == {
        "workflow_dct": workflow
    }
    for arguments in ("V1", "v1 ", ""):
        response = jqs.get("/get_workflows_by_inputs", dag_id=dag_id, workflow_args=arguments)
        assert (response.status_code, response.data) == (204, b"")
        # Without this header emu's client dies of a TypeError.
        assert response.headers["Content-Type"] == "text/html; charset=utf-8"


def test_is_workflow_running(jsm: Api, jqs: Api) -> None:
    workflow_id = make_workflow(jsm, make_dag(jsm))["id"]
    nothing = {"is_running": False, "workflow_run_dct": {}}
    assert jqs.read("/is_workflow_running", workflow_id=workflow_id) == nothing
    run_id = make_run(jsm, workflow_id)
    answer = jqs.read("/is_workflow_running", workflow_id=workflow_id)
    assert answer["is_running"] is True
    assert set(answer["workflow_run_dct"]) >= RUN_KEYS
    assert answer["workflow_run_dct"]["id"] == run_id
    jsm.ok("/update_workflow_run", wfr_id=run_id, status="D")
    assert jqs.read("/is_workflow_running", workflow_id=workflow_id) == nothing


@pytest.mark.parametrize(
    ("path", "arguments"),
    [
        ("/get_queued", "dag_id"),
        ("/get_jobs", "dag_id"),
        ("/get_submitted_or_running", "dag_id"),
        ("/get_timed_out", "dag_id"),
        ("/get_dag_ids_by_hash", "dag_hash"),
        ("/get_workflows_by_inputs", "dag_id workflow_args"),
        ("/is_workflow_running", "workflow_id"),
        ("/get_job_instances_of_workflow_run", "workflow_run_id"),
    ],
)
def test_missing_arguments_and_unknown_ids(jqs: Api, path: str, arguments: str) -> None:
    response = jqs.get(path)
    assert (response.status_code, response.json["error"]["code"]) == (400, "MISSING_ARGUMENT")
    assert all(name in response.json["error"]["message"] for name in arguments.split())
    assert jqs.get(path, **dict.fromkeys(arguments.split(), "999999")).status_code in (200, 204)


@pytest.mark.parametrize("value", ["31 abc", "abc", "", "1.5", "0x10", "1e3", "NaN", "\u0661"])
def test_ids_that_are_no_numbers(jqs: Api, value: str) -> None:
    response = jqs.get("/get_jobs", dag_id=value)
    assert (response.status_code, response.json["error"]["code"]) == (400, "INVALID_ARGUMENT")


def test_unknown_and_repeated_arguments(jqs: Api) -> None:
    response = jqs.get("/get_jobs", dag_id=1, status="D")
    assert (response.status_code, response.json["error"]["code"]) == (400, "UNKNOWN_ARGUMENT")
    response = jqs.client.get("/get_jobs?dag_id=1&dag_id=2")
    assert (response.status_code, response.json["error"]["code"]) == (400, "INVALID_ARGUMENT")


def test_ids_beyond_the_columns_range_find_nothing(jqs: Api) -> None:
    assert jqs.read("/get_jobs", dag_id="9" * 40) == {"job_dcts": []}
    assert jqs.read("/get_jobs", dag_id="-1") == {"job_dcts": []}


def test_other_views_by_their_columns(jsm: Api, jqs: Api) -> None:
    dag_id = make_dag(jsm)
    ids = [make_job(jsm, dag_id, HASH + n)["job_id"] for n in range(5)]
    rows = jqs.read("/jobs", dag_id=dag_id)["jobs"]
    assert [row["job_id"] for row in rows] == ids
    page = jqs.read("/jobs", dag_id=dag_id, limit=2, offset=3)["jobs"]
    assert [row["job_id"] for row in page] == ids[3:]
    for bad in ({"limit": 0}, {"limit": "x"}, {"offset": -1}, {"limit": 10**9}, {"no_column": 1}):
        assert jqs.get("/jobs", **bad).status_code == 400
    assert jqs.read("/job_status")["job_status"]


def test_internal_views_are_not_there(jqs: Api, db: Any) -> None:
    served = {path[1:] for path in jqs.read("/openapi.json")["paths"]}
    readable = {
        name
        for (name,) in db.query(
            "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()", role="jqs"
        )
    }
    assert readable <= served
    assert jqs.get("/job").status_code == (200 if "job" in readable else 404)
    assert jqs.get("/schema_object").status_code == (200 if "schema_object" in readable else 404)
