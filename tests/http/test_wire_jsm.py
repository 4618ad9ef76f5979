"""JSM's side of the wire protocol: each route, in each form in which existing clients send it."""

from __future__ import annotations

from typing import Any

import pytest
from http_helpers import HASH, JOB_KEYS, Api, make_dag, make_instance, make_job, make_run, make_workflow


def test_alive(jsm: Api, jqs: Api) -> None:
    for api in (jsm, jqs):
        response = api.get("/")
        assert response.json == {"msg": "Yes, I am alive"}
        assert response.headers["Content-Type"] == "application/json"
        assert response.data.endswith(b"\n")
        assert api.client.head("/").status_code == 200


def test_add_task_dag_always_makes_a_new_one(jsm: Api) -> None:
    assert make_dag(jsm) != make_dag(jsm)
    assert make_dag(jsm, name=None)


def test_add_job_answers_all_keys(jsm: Api) -> None:
    dag_id = make_dag(jsm)
    job = make_job(jsm, str(dag_id))
    assert set(job) >= JOB_KEYS
    assert job["job_hash"] == str(HASH)
    assert (job["dag_id"], job["status"], job["num_attempts"], job["max_attempts"]) == (dag_id, "G", 0, 3)
    assert (job["context_args"], job["tag"], job["last_nodename"]) == ("{}", None, None)


@pytest.mark.parametrize("form", [HASH, str(HASH)], ids=["number", "string"])
def test_job_hash_of_160_bits_is_kept_and_finds_the_job_again(jsm: Api, form: Any) -> None:
    dag_id = make_dag(jsm)
    first = make_job(jsm, dag_id, HASH)
    assert make_job(jsm, dag_id, form)["job_id"] == first["job_id"]


def test_the_way_of_a_job(jsm: Api, jqs: Api) -> None:
    dag_id = make_dag(jsm)
    run_id = make_run(jsm, make_workflow(jsm, dag_id)["id"])
    job_id = make_job(jsm, dag_id)["job_id"]
    instance_id = make_instance(jsm, job_id)
    assert jsm.ok("/log_executor_id", job_instance_id=str(instance_id), executor_id="777") == {"message": ""}
    [instance] = jqs.read("/get_submitted_or_running", dag_id=dag_id)["ji_dcts"]
    assert (instance["status"], instance["executor_id"], instance["workflow_run_id"]) == ("B", 777, run_id)
    running = {"job_instance_id": str(instance_id), "nodename": "n1", "process_group_id": "4711"}
    assert jsm.ok("/log_running", **running) == {"message": ""}
    assert jsm.ok("/log_running", **running) == {"message": ""}
    assert jsm.ok("/log_nodename", job_instance_id=[instance_id], nodename="n2") == {"message": None}
    usage = {"usage_str": "u", "wallclock": 12.5, "maxvmem": "1G", "cpu": "3", "io": "4"}
    assert jsm.ok("/log_usage", job_instance_id=[instance_id], **usage) == {"message": None}
    assert jsm.ok("/log_usage", job_instance_id=str(instance_id)) == {"message": None}
    message = f'{dag_id} [{job_id}, "D"]'
    assert jsm.ok("/log_done", job_instance_id=str(instance_id)) == {"message": message}
    assert jsm.ok("/log_done", job_instance_id=instance_id) == {"message": message}
    [job] = jqs.read("/get_jobs", dag_id=dag_id)["job_dcts"]
    assert (job["status"], job["last_nodename"], job["last_process_group_id"]) == ("D", "n2", 4711)


def test_log_error_requeues_and_then_fails(jsm: Api) -> None:
    dag_id = make_dag(jsm)
    job_id = make_job(jsm, dag_id, max_attempts=2)["job_id"]
    first = make_instance(jsm, job_id)
    assert jsm.ok("/log_error", job_instance_id=first, error_message="no luck") == {"message": ""}
    second = jsm.ok("/add_job_instance", job_id=job_id, executor_type="X")["job_instance_id"]
    message = jsm.ok("/log_error", job_instance_id=str(second), error_message="x" * 100_000)["message"]
    assert message == f'{dag_id} [{job_id}, "F"]'


def test_log_error_takes_broken_text(jsm: Api, db: Any) -> None:
    job_id = make_job(jsm, make_dag(jsm))["job_id"]
    body = (
        b'{"job_instance_id": %d, "error_message": "nul \\u0000, half \\ud83d, \xff bytes, \xf0\x9f\x92\xa5"}'
    )
    response = jsm.client.post("/log_error", data=body % make_instance(jsm, job_id))
    assert response.status_code == 200, response.text
    [(text,)] = db.query("SELECT description FROM job_instance_error_log")
    assert "half \ufffd, \ufffd bytes, \U0001f4a5" in text


def test_heartbeat_of_a_dag(jsm: Api) -> None:
    assert jsm.ok("/log_heartbeat", dag_id=make_dag(jsm)) == {}
    assert jsm.ok("/log_heartbeat", dag_id=999_999) == {}


def test_resets(jsm: Api, jqs: Api) -> None:
    dag_id = make_dag(jsm)
    job_id = make_job(jsm, dag_id)["job_id"]
    make_instance(jsm, job_id)
    assert jsm.ok("/reset_job", job_id=str(job_id)) == {}
    [job] = jqs.read("/get_jobs", dag_id=dag_id)["job_dcts"]
    assert (job["status"], job["num_attempts"]) == ("G", 0)
    assert jsm.ok("/queue_job", job_id=job_id) == {}
    assert jsm.ok("/reset_incomplete_jobs", dag_id=dag_id) == {}
    assert jsm.ok("/reset_incomplete_jobs", dag_id=999_999) == {}
    assert jqs.read("/get_queued", dag_id=dag_id) == {"job_dcts": []}


def test_workflows(jsm: Api) -> None:
    dag_id = make_dag(jsm)
    workflow = make_workflow(jsm, dag_id)
    assert workflow == {
        "id": workflow["id"],
        "dag_id": dag_id,
        "workflow_args": "v1",
        "workflow_hash": "h1",
        "description": "",
        "name": "wf",
        "user": "ann",
        "status": "C",
    }
    assert make_workflow(jsm, dag_id)["id"] == workflow["id"]
    changed = jsm.ok("/update_workflow", wf_id=str(workflow["id"]), status="D")["workflow_dct"]
    assert changed["status"] == "D"


def test_workflow_runs(jsm: Api, db: Any) -> None:
    workflow_id = make_workflow(jsm, make_dag(jsm))["id"]
    done, live = make_run(jsm, workflow_id), None
    assert jsm.ok("/update_workflow_run", wfr_id=done, status="D") == {"status": "D"}
    live = make_run(jsm, workflow_id)
    last = make_run(jsm, workflow_id)
    rows = dict(db.query("SELECT workflow_run_id, status FROM workflow_run"))
    assert rows == {done: "D", live: "S", last: "R"}
    assert jsm.ok("/update_workflow_run", workflow_run_id=last, status="S") == {"status": "S"}
    assert db.query("SELECT working_dir FROM workflow_run WHERE workflow_run_id = %s", (last,)) == [
        ("/home/ann",)
    ]


@pytest.mark.parametrize("what", ["job", "workflow", "workflow_run"])
def test_attributes(jsm: Api, what: str) -> None:
    dag_id = make_dag(jsm)
    workflow_id = make_workflow(jsm, dag_id)["id"]
    ids = {
        "job": make_job(jsm, dag_id)["job_id"],
        "workflow": workflow_id,
        "workflow_run": make_run(jsm, workflow_id),
    }
    path, key = f"/add_{what}_attribute", f"{what}_id"
    first = jsm.ok(path, **{key: str(ids[what])}, attribute_type="1", value="17")[f"{what}_attribute_id"]
    assert isinstance(first, int)
    assert jsm.ok(path, **{key: ids[what]}, attribute_type=8, value="tag")
    refused = jsm.post(path, {key: ids[what], "attribute_type": 1, "value": "many"})
    assert 400 <= refused.status_code < 500
    assert refused.json["error"]["code"]


@pytest.mark.parametrize("form", [17, "17", [17], ["17"], 17.0], ids=repr)
def test_ids_in_every_form(jsm: Api, form: Any) -> None:
    response = jsm.post("/log_heartbeat", {"dag_id": form})
    assert (response.status_code, response.json) == (200, {})


@pytest.mark.parametrize(
    "form",
    ["17xyz", "", " ", "1e1", [], [1, 2], [[1]], {}, {"a": 1}, True, 1.5, -1, 2**64, "9" * 300],
    ids=repr,
)
def test_ids_in_no_form(jsm: Api, form: Any) -> None:
    response = jsm.post("/log_heartbeat", {"dag_id": form})
    assert response.status_code == 422
    error = response.json["error"]
    assert error["code"] == "INVALID_PARAMETER"
    assert error["message"].startswith("dag_id must be a whole number from 0 to ")


def test_an_unknown_key_is_refused_by_name(jsm: Api) -> None:
    response = jsm.post("/log_heartbeat", {"dag_id": 1, "dagid": 2})
    assert response.status_code == 422
    assert response.json["error"]["code"] == "UNKNOWN_PARAMETER"
    assert "'dagid'" in response.json["error"]["message"]
    assert "dag_id" in response.json["error"]["hint"]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/queue_job", {}),
        ("/queue_job", {"job_id": 999_999}),
        ("/log_done", {"job_instance_id": 999_999}),
        ("/add_job", {"dag_id": 999_999, "name": "n", "job_hash": 1, "command": "c"}),
        ("/add_workflow", {}),
        ("/update_workflow_run", {"wfr_id": 1, "status": "nonsense"}),
    ],
)
def test_refusals_are_4xx_with_a_name(jsm: Api, path: str, body: dict[str, Any]) -> None:
    response = jsm.post(path, body)
    assert 400 <= response.status_code < 500, response.text
    assert set(response.json["error"]) == {"code", "message", "hint"}
    assert response.headers["Content-Type"] == "application/json"


def test_illegal_transitions_are_refused_and_change_nothing(jsm: Api, jqs: Api) -> None:
    dag_id = make_dag(jsm)
    job_id = make_job(jsm, dag_id)["job_id"]
    instance_id = make_instance(jsm, job_id)
    again = jsm.post("/queue_job", {"job_id": job_id})
    assert 400 <= again.status_code < 500
    assert jqs.read("/get_jobs", dag_id=dag_id)["job_dcts"][0]["status"] == "I"
    jsm.ok("/log_running", job_instance_id=instance_id, nodename="n", process_group_id=1)
    jsm.ok("/log_done", job_instance_id=instance_id)
    refused = jsm.post("/log_error", {"job_instance_id": instance_id, "error_message": "late"})
    assert refused.status_code == 409, refused.text
    assert jqs.read("/get_jobs", dag_id=dag_id)["job_dcts"][0]["status"] == "D"


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "", None])
def test_any_content_type_is_json(jsm: Api, content_type: str | None) -> None:
    response = jsm.client.post("/log_heartbeat", data=b'{"dag_id": 1}', content_type=content_type)
    assert (response.status_code, response.json) == (200, {})
