"""The bulk procedures: add_jobs, queue_jobs, claim_jobs, log_events, expire_job_instances."""

from __future__ import annotations

import datetime
import json
from typing import Any

import pytest
from sql_helpers import (
    Sql,
    claim,
    fresh,
    make_attempt,
    make_dag,
    make_instance,
    make_job,
    make_jobs,
    make_run,
    make_workflow,
    outcomes,
    statuses,
)

BIG_HASH = 2**159 + 12345  # as int(sha1, 16) gives it


def job(n: Any, *upstreams: Any, **more: Any) -> dict[str, Any]:
    made = {"name": f"job {n}", "job_hash": str(n), "command": f"run {n}", **more}
    if upstreams:
        made["upstream_job_hashes"] = [str(upstream) for upstream in upstreams]
    return made


# add_jobs --------------------------------------------------------------------------------------------


def test_add_jobs_stores_everything(jsm: Sql, admin: Sql) -> None:
    dag_id = make_dag(jsm)
    given = {
        "slots": 3,
        "mem_free": 4,
        "max_attempts": 5,
        "max_runtime": 6,
        "context_args": '{"a": 1}',
        "tag": "blue",
    }
    ids = jsm.call("add_jobs", dag_id=dag_id, jobs=[job(1, **given), job(2)])["job_ids"]
    assert admin.job(ids[0]).items() >= {**given, "name": "job 1", "command": "run 1", "status": "G"}.items()
    defaults = {
        "slots": 1,
        "mem_free": 2,
        "max_attempts": 1,
        "max_runtime": None,
        "context_args": "{}",
        "tag": None,
    }
    assert admin.job(ids[1]).items() >= defaults.items()
    # the same as add_job makes
    single = jsm.call("add_job", dag_id=dag_id, **job(3))["job_dct"]["job_id"]
    skip = {"job_id", "job_hash", "name", "command", "created_date", "status_date"}
    assert {k: v for k, v in admin.job(single).items() if k not in skip} == {
        k: v for k, v in admin.job(ids[1]).items() if k not in skip
    }
    assert admin.history(ids[0]) == "G"


def test_a_thousand_jobs_with_edges(jsm: Sql, admin: Sql) -> None:
    dag_id = make_dag(jsm)
    jobs = [job(n, *range(max(0, n - 100), n - 97)) if n >= 100 else job(n) for n in range(1000)]
    ids = jsm.call("add_jobs", dag_id=dag_id, jobs=jobs)["job_ids"]
    assert len(set(ids)) == 1000 and ids == sorted(ids)
    with admin.unchanged():
        assert jsm.call("add_jobs", dag_id=dag_id, jobs=jobs)["job_ids"] == ids
        # in another order, and in part
        assert jsm.call("add_jobs", dag_id=dag_id, jobs=jobs[::-1])["job_ids"] == ids[::-1]
        assert jsm.call("add_jobs", dag_id=dag_id, jobs=jobs[500:510])["job_ids"] == ids[500:510]
    edges = admin.one(
        "SELECT COUNT(*) FROM job_edge JOIN job ON job_id = downstream_job_id WHERE dag_id=%s", dag_id
    )
    assert edges == 900 * 3
    assert jsm.call("queue_jobs", dag_id=dag_id) == {"num_queued": 100, "num_left": 0}

    instances = claim(jsm, dag_id, max_jobs=1000)
    assert len(instances) == 100
    done = [{"event": word, "job_instance_id": i} for i in instances for word in ("running", "done")]
    assert set(outcomes(jsm, done)) == {"OK"}
    # job n >= 100 waits for n - 100, n - 99 and n - 98, which may be of the second hundred
    assert admin.one("SELECT COUNT(*) FROM job WHERE dag_id=%s AND status='Q'", dag_id) == 98
    rounds = 0
    while instances := claim(jsm, dag_id, max_jobs=1000):
        done = [{"event": word, "job_instance_id": i} for i in instances for word in ("running", "done")]
        assert set(outcomes(jsm, done)) == {"OK"}
        rounds += 1
        assert rounds < 40
    assert admin.one("SELECT COUNT(*) FROM job WHERE dag_id=%s AND status='D'", dag_id) == 1000
    counts = admin.raw(
        "SELECT job_status_log.status, COUNT(*) FROM job_status_log JOIN job USING (job_id)"
        " WHERE job.dag_id=%s GROUP BY 1 ORDER BY 1",
        dag_id,
    )
    assert counts == [(status, 1000) for status in "DGIQR"]


def test_edges_to_jobs_of_earlier_calls(jsm: Sql, admin: Sql) -> None:
    dag_id = make_dag(jsm)
    (first,) = jsm.call("add_jobs", dag_id=dag_id, jobs=[job(1)])["job_ids"]
    (second,) = jsm.call("add_jobs", dag_id=dag_id, jobs=[job(2, 1, 1)])["job_ids"]
    assert admin.raw("SELECT upstream_job_id FROM job_edge WHERE downstream_job_id=%s", second) == [(first,)]
    assert admin.one("SELECT upstreams_pending FROM job_gate WHERE job_id=%s", second) == 1
    # an edge more, while the job is still in G
    (third,) = jsm.call("add_jobs", dag_id=dag_id, jobs=[job(3)])["job_ids"]
    with admin.unchanged(), jsm.refused("UPSTREAM_AFTER_DOWNSTREAM"):
        jsm.call("add_jobs", dag_id=dag_id, jobs=[job(2, 3)])
    jsm.call("add_jobs", dag_id=dag_id, jobs=[job(3, 1)])
    with jsm.refused("UPSTREAM_NOT_DONE"):
        jsm.call("queue_job", job_id=third)
    jsm.call("queue_job", job_id=first)
    make_attempt(jsm, first, "D")
    assert statuses(admin, [first, second, third]) == "DQQ"
    with admin.unchanged(), jsm.refused("JOB_NOT_REGISTERED"):
        jsm.call("add_jobs", dag_id=dag_id, jobs=[job(4), job(3, 2)])
    # to a job that is done already
    (fifth,) = jsm.call("add_jobs", dag_id=dag_id, jobs=[job(5, 1)])["job_ids"]
    assert jsm.call("queue_jobs", dag_id=dag_id)["num_queued"] == 1
    assert statuses(admin, [fifth]) == "Q"


def test_a_resumed_bind_adds_nothing_to_a_dag_that_has_begun(jsm: Sql, admin: Sql) -> None:
    dag_id = make_dag(jsm)
    jobs = [job(1), job(2, 1), job(3, 1, 2)]
    ids = jsm.call("add_jobs", dag_id=dag_id, jobs=jobs)["job_ids"]
    jsm.call("queue_jobs", dag_id=dag_id)
    make_attempt(jsm, ids[0], "D")
    make_attempt(jsm, ids[1], "R")
    with admin.unchanged():
        assert jsm.call("add_jobs", dag_id=dag_id, jobs=jobs)["job_ids"] == ids


def test_hashes_are_compared_exactly(jsm: Sql, admin: Sql) -> None:
    dag_id = make_dag(jsm)
    hashes = ["a", "A", "a ", " a", "\N{LATIN SMALL LETTER A WITH ACUTE}", "a\u0301", "\N{GRINNING FACE}", ""]
    jobs = [{"name": "n", "job_hash": word, "command": "c"} for word in hashes]
    ids = jsm.call("add_jobs", dag_id=dag_id, jobs=jobs)["job_ids"]
    assert len(set(ids)) == len(hashes)
    assert jsm.call("add_jobs", dag_id=dag_id, jobs=jobs)["job_ids"] == ids
    for word, job_id in zip(hashes, ids, strict=True):
        found = jsm.call("add_job", dag_id=dag_id, name="n", job_hash=word, command="c")["job_dct"]
        assert (found["job_id"], found["job_hash"]) == (job_id, word)
    downstream = {"name": "n", "job_hash": "z", "command": "c", "upstream_job_hashes": ["a "]}
    (last,) = jsm.call("add_jobs", dag_id=dag_id, jobs=[downstream])["job_ids"]
    assert admin.raw("SELECT upstream_job_id FROM job_edge WHERE downstream_job_id=%s", last) == [(ids[2],)]


def test_a_hash_of_160_bits(jsm: Sql, admin: Sql) -> None:
    dag_id = make_dag(jsm)
    (as_text,) = jsm.call("add_jobs", dag_id=dag_id, jobs=[job(BIG_HASH)])["job_ids"]
    assert admin.job(as_text)["job_hash"] == str(BIG_HASH)
    single = jsm.call("add_job", dag_id=dag_id, name="n", job_hash=BIG_HASH, command="c")["job_dct"]
    assert single["job_id"] == as_text
    # as a JSON number it is kept, or refused where the server can't read it; never another hash
    jobs = [{"name": "n", "job_hash": BIG_HASH, "command": "c"}]
    try:
        assert jsm.call("add_jobs", dag_id=dag_id, jobs=jobs)["job_ids"] == [as_text]
    except Exception as error:
        assert "INVALID_PARAMETER" in str(error)


@pytest.mark.parametrize(
    ("jobs", "error"),
    [
        ("", "INVALID_JSON_PARAMETER"),
        ("{}", "INVALID_JSON_PARAMETER"),
        ('"a"', "INVALID_JSON_PARAMETER"),
        ("null", "INVALID_JSON_PARAMETER"),
        ("[", "INVALID_JSON_PARAMETER"),
        ("[NaN]", "INVALID_JSON_PARAMETER"),
        ('["\\ud800"]', "INVALID_JSON_PARAMETER"),
        ("[" * 300 + "]" * 300, "INVALID_JSON_PARAMETER"),
        ("[" + "1," * 10000 + "1]", "TOO_MANY_ITEMS"),
        ("[5]", "NULL_NOT_ALLOWED"),
        ("[null]", "NULL_NOT_ALLOWED"),
        ("[[]]", "NULL_NOT_ALLOWED"),
        ("[{}]", "NULL_NOT_ALLOWED"),
        ([job(1, name=None)], "NULL_NOT_ALLOWED"),
        ([job(1, command=None)], "NULL_NOT_ALLOWED"),
        ([job(1, command=["c"])], "INVALID_PARAMETER"),
        ([job(1, name={"a": 1})], "INVALID_PARAMETER"),
        ([job(1, context_args={"a": 1})], "INVALID_PARAMETER"),
        ([job(1, slots=[1])], "INVALID_PARAMETER"),
        ([job(1, upstream_job_hashes="2")], "INVALID_PARAMETER"),
        ([job(1), job(2, upstream_job_hashes={"a": "1"})], "INVALID_PARAMETER"),
        ([job(1), job(2, upstream_job_hashes=1)], "INVALID_PARAMETER"),
        ([job(1, slots="many")], "INVALID_VALUE"),
        ([job(1, slots=True)], "INVALID_VALUE"),
        ([job(1, slots="")], "INVALID_VALUE"),
        ([job(1, max_attempts=-1)], "VALUE_OUT_OF_RANGE"),
        ([job(1, max_runtime=2**32)], "VALUE_OUT_OF_RANGE"),
        ([job(1, mem_free="9" * 100)], "VALUE_OUT_OF_RANGE"),
        ([job(1, name="n" * 256)], "VALUE_TOO_LONG"),
        ([job(1, name="n" * 5000)], "VALUE_TOO_LONG"),
        ([job("h" * 256)], "VALUE_TOO_LONG"),
        ([job("h" * 5000)], "VALUE_TOO_LONG"),
        ([job(1, tag="t" * 256)], "VALUE_TOO_LONG"),
        ([job(1, tag="t" * 5000)], "VALUE_TOO_LONG"),
        ([job(1, slots=1.5)], "INVALID_VALUE"),
        ([job(1, max_attempts="1e3")], "INVALID_VALUE"),
        ([job(1), job(2, upstream_job_hash=["1"])], "INVALID_PARAMETER"),
        ([job(1), job(2, upstreams=["1"])], "INVALID_PARAMETER"),
        ([job(1, Slots=2)], "INVALID_PARAMETER"),
        ([job(1, **{"slots ": 2})], "INVALID_PARAMETER"),
        ([job(1, **{"": 2})], "INVALID_PARAMETER"),
        ([job(1, **{"k" * 200: 2})], "INVALID_PARAMETER"),
        ([job(1), job(1)], "DUPLICATE_JOB_HASH"),
        ([job(1), job(2, 3)], "UNKNOWN_UPSTREAM"),
        ([job(2, 1), job(1)], "UPSTREAM_AFTER_DOWNSTREAM"),
        ([job(1, 1)], "UPSTREAM_AFTER_DOWNSTREAM"),
        ([job(1, 2), job(2, 1)], "UPSTREAM_AFTER_DOWNSTREAM"),
    ],
)
def test_bad_jobs(jsm: Sql, admin: Sql, jobs: Any, error: str) -> None:
    dag_id = make_dag(jsm)
    with admin.unchanged(), jsm.refused(error):
        jsm.call("add_jobs", dag_id=dag_id, jobs=jobs)


@pytest.mark.parametrize("upstreams", [[["1"]], [{"a": "1"}], [None], [""], [" 1"], ["01"]])
def test_an_edge_is_never_lost(jsm: Sql, admin: Sql, upstreams: Any) -> None:
    dag_id = make_dag(jsm)
    with (
        admin.unchanged(),
        pytest.raises(Exception, match=r"UNKNOWN_UPSTREAM|INVALID_PARAMETER|cannot be null"),
    ):
        jsm.call("add_jobs", dag_id=dag_id, jobs=[job(1), job(2, upstream_job_hashes=upstreams)])


@pytest.mark.parametrize("upstreams", [None, []])
def test_no_upstreams(jsm: Sql, upstreams: Any) -> None:
    jobs = [job(1), job(2, upstream_job_hashes=upstreams)]
    assert len(jsm.call("add_jobs", dag_id=make_dag(jsm), jobs=jobs)["job_ids"]) == 2


def test_no_jobs(jsm: Sql, admin: Sql) -> None:
    dag_id = make_dag(jsm)
    with admin.unchanged():
        assert jsm.call("add_jobs", dag_id=dag_id, jobs=[]) == {"job_ids": []}


def attributes(admin: Sql, job_id: int) -> list[tuple[int, str]]:
    return admin.raw(
        "SELECT attribute_type, value FROM job_attribute WHERE job_id=%s ORDER BY job_attribute_id", job_id
    )


def test_attributes_of_jobs(jsm: Sql, admin: Sql) -> None:
    dag_id = make_dag(jsm)
    given = [
        {"attribute_type": 8, "value": "blue"},
        {"attribute_type": 1, "value": "17"},
        {"attribute_type": "8", "value": "green"},
        {"attribute_type": 8, "value": "blue"},
        {"attribute_type": 1, "value": 5},
    ]
    evil = "\N{GRINNING FACE} '\"\\ "
    jobs = [
        job(1, attributes=given),
        job(2, 1, attributes=[{"attribute_type": 8, "value": evil}]),
        job(3, attributes=[]),
        job(4, attributes=None),
    ]
    first, second, third, fourth = jsm.call("add_jobs", dag_id=dag_id, jobs=jobs)["job_ids"]
    assert attributes(admin, first) == [(1, "17"), (1, "5"), (8, "blue"), (8, "green")]
    assert attributes(admin, second) == [(8, evil)]
    assert attributes(admin, third) == attributes(admin, fourth) == []
    with admin.unchanged():
        jsm.call("add_jobs", dag_id=dag_id, jobs=jobs)
    # a job that is there gets what it has not, and keeps what it has
    more = [{"attribute_type": 8, "value": "Blue"}, {"attribute_type": 8, "value": "blue"}]
    jsm.call("add_jobs", dag_id=dag_id, jobs=[job(1, attributes=more)])
    assert attributes(admin, first)[4:] == [(8, "Blue")]


@pytest.mark.parametrize(
    ("attribute", "error"),
    [
        ("blue", "INVALID_PARAMETER"),
        (None, "INVALID_PARAMETER"),
        (8, "INVALID_PARAMETER"),
        ([], "INVALID_PARAMETER"),
        ({}, "INVALID_PARAMETER"),
        ({"attribute_type": 8}, "INVALID_PARAMETER"),
        ({"value": "x"}, "INVALID_PARAMETER"),
        ({"attribute_type": 8, "value": None}, "INVALID_PARAMETER"),
        ({"attribute_type": 8, "value": ["x"]}, "INVALID_PARAMETER"),
        ({"attribute_type": 8, "value": {"x": 1}}, "INVALID_PARAMETER"),
        ({"attribute_type": [8], "value": "x"}, "INVALID_PARAMETER"),
        ({"attribute_type": "TAG", "value": "x"}, "INVALID_PARAMETER"),
        ({"attribute_type": -1, "value": "x"}, "INVALID_PARAMETER"),
        ({"attribute_type": 1.5, "value": "x"}, "INVALID_PARAMETER"),
        ({"attribute_type": 10**12, "value": "x"}, "INVALID_PARAMETER"),
        ({"attribute_type": 99, "value": "x"}, "UNKNOWN_ATTRIBUTE_TYPE"),
        ({"attribute_type": 1, "value": "many"}, "INVALID_ATTRIBUTE_VALUE"),
        ({"attribute_type": 8, "value": "x" * 256}, "VALUE_TOO_LONG"),
        ({"attribute_type": 8, "value": "x" * 70000}, "VALUE_TOO_LONG"),
    ],
)
def test_bad_attributes(jsm: Sql, admin: Sql, attribute: Any, error: str) -> None:
    dag_id = make_dag(jsm)
    good = {"attribute_type": 8, "value": "blue"}
    jobs = [job(1, attributes=[good]), job(2, attributes=[good, attribute])]
    with admin.unchanged(), jsm.refused(error, "job 2" if error == "INVALID_PARAMETER" else ""):
        jsm.call("add_jobs", dag_id=dag_id, jobs=jobs)


@pytest.mark.parametrize("given", ["blue", {"attribute_type": 8, "value": "x"}, 8, True])
def test_attributes_that_are_no_array(jsm: Sql, admin: Sql, given: Any) -> None:
    dag_id = make_dag(jsm)
    with admin.unchanged(), jsm.refused("INVALID_PARAMETER", "attributes must be arrays"):
        jsm.call("add_jobs", dag_id=dag_id, jobs=[job(1), job(2, attributes=given)])


# queue_jobs ------------------------------------------------------------------------------------------


def test_queue_jobs(jsm: Sql, admin: Sql) -> None:
    dag_id, jobs = make_jobs(jsm, 8, [(0, 7)])
    elsewhere = make_job(jsm)
    assert jsm.call("queue_jobs", dag_id=dag_id, max_jobs=2) == {"num_queued": 2, "num_left": 5}
    assert statuses(admin, jobs) == "QQGGGGGG"
    asked = [jobs[3], jobs[5], jobs[5], jobs[7], jobs[0], elsewhere, 10**12]
    assert jsm.call("queue_jobs", dag_id=dag_id, job_ids=asked)["num_queued"] == 2
    assert statuses(admin, jobs) == "QQGQGQGG"
    with admin.unchanged():
        assert jsm.call("queue_jobs", dag_id=dag_id, job_ids=asked) == {"num_queued": 0, "num_left": 3}
        assert jsm.call("queue_jobs", dag_id=dag_id, job_ids=[]) == {"num_queued": 0, "num_left": 3}
        assert jsm.call("queue_jobs", dag_id=dag_id, max_jobs=0) == {"num_queued": 0, "num_left": 3}
        for bad in ("{}", "1", "["):
            with jsm.refused("INVALID_JSON_PARAMETER"):
                jsm.call("queue_jobs", dag_id=dag_id, job_ids=bad)
        odd_ids: list[Any] = [1.5, "x", None, -1, {}, [1], True, 2**70, "", " 1"]
        for odd in odd_ids:
            with jsm.refused("INVALID_PARAMETER", "item 2 "):
                jsm.call("queue_jobs", dag_id=dag_id, job_ids=[jobs[2], odd])
    assert jsm.call("queue_jobs", dag_id=dag_id, job_ids=jobs, max_jobs=1)["num_queued"] <= 1
    jsm.call("queue_jobs", dag_id=dag_id)
    assert statuses(admin, jobs) == "QQQQQQQG"
    assert statuses(admin, [elsewhere]) == "G"


def test_queue_jobs_leaves_others_alone(jsm: Sql, admin: Sql) -> None:
    dag_id = make_dag(jsm)
    jobs = [make_job(jsm, status, dag_id=dag_id) for status in "IRDFQ"]
    with admin.unchanged():
        assert jsm.call("queue_jobs", dag_id=dag_id) == {"num_queued": 0, "num_left": 0}
        assert jsm.call("queue_jobs", dag_id=dag_id, job_ids=jobs) == {"num_queued": 0, "num_left": 0}


# claim_jobs ------------------------------------------------------------------------------------------


def test_claim_jobs_gives_what_a_worker_needs(jsm: Sql, admin: Sql) -> None:
    dag_id = make_dag(jsm)
    run_has = {"working_dir": "/w", "stdout": "/o", "stderr": "/e", "project": "p"}
    run = make_run(jsm, workflow_id=make_workflow(jsm, dag_id=dag_id), **run_has)
    more = {
        "slots": 3,
        "mem_free": 4,
        "max_runtime": 60,
        "max_attempts": 2,
        "context_args": '{"k": "v"}',
        "tag": "t",
    }
    (job_id,) = jsm.call("add_jobs", dag_id=dag_id, jobs=[job("\N{GRINNING FACE}", **more)])["job_ids"]
    jsm.call("queue_jobs", dag_id=dag_id)
    (made,) = jsm.call("claim_jobs", executor_type="LocalExecutor", dag_id=dag_id)["job_instances"]
    assert made == {
        **more,
        "job_instance_id": made["job_instance_id"],
        "job_id": job_id,
        "dag_id": dag_id,
        "workflow_run_id": run,
        "attempt_number": 1,
        "name": "job \N{GRINNING FACE}",
        "command": "run \N{GRINNING FACE}",
        "lease_seconds": 300,
        **run_has,
    }
    row = admin.instance(made["job_instance_id"])
    assert (row["status"], row["executor_type"], row["workflow_run_id"]) == ("I", "LocalExecutor", run)
    assert row["report_by_date"] - row["created_date"] == pytest.approx(
        datetime.timedelta(seconds=300), abs=datetime.timedelta(seconds=2)
    )
    assert admin.history(job_id) == "GQI"


def test_claims_share_the_queue(jsm: Sql, admin: Sql) -> None:
    dag_id, jobs = make_jobs(jsm, 10)
    jsm.call("queue_jobs", dag_id=dag_id)
    first = claim(jsm, dag_id, max_jobs=4)
    second = claim(jsm, dag_id, max_jobs=100)
    assert (len(first), len(second)) == (4, 6)
    assert claim(jsm, dag_id) == []
    claimed = [admin.instance(i)["job_id"] for i in first + second]
    assert claimed == jobs, "oldest first"
    with admin.unchanged():
        assert claim(jsm, dag_id, max_jobs=0) == []


def test_claim_jobs_without_a_workflow(emptied: None, jsm: Sql, admin: Sql) -> None:
    """Jobs without a dag are for whoever asks for any; those of a dag without a workflow for who names it."""
    dag_id, _ = make_jobs(jsm, 2)
    jsm.call("queue_jobs", dag_id=dag_id)
    alone = make_job(jsm, "Q", dag_id=None)
    (made,) = jsm.call("claim_jobs", executor_type="X")["job_instances"]
    assert (made["job_id"], made["dag_id"], made["workflow_run_id"]) == (alone, None, None)
    assert [made[word] for word in ("working_dir", "stdout", "stderr", "project")] == [None] * 4
    with admin.unchanged():
        assert jsm.call("claim_jobs", executor_type="X") == {"job_instances": []}
    assert len(claim(jsm, dag_id)) == 2


def test_max_concurrently_running(jsm: Sql, admin: Sql) -> None:
    dag_id, jobs = make_jobs(jsm, 6, max_concurrently_running=3)
    jsm.call("queue_jobs", dag_id=dag_id)
    live = claim(jsm, dag_id)
    assert len(live) == 3
    for n, instance in enumerate(live):
        jsm.call("log_executor_id", job_instance_id=instance, executor_id=str(n))
    assert claim(jsm, dag_id) == []
    jsm.call("log_running", job_instance_id=live[0])
    assert claim(jsm, dag_id) == []
    jsm.call("log_done", job_instance_id=live[0])
    jsm.call("log_error", job_instance_id=live[1], error_message="x")
    assert statuses(admin, jobs) == "DQIQQQ"
    again = claim(jsm, dag_id)
    assert len(again) == 2
    assert admin.one("SELECT COUNT(*) FROM job WHERE dag_id=%s AND status IN ('I', 'R')", dag_id) == 3
    # the limit is no constant
    admin.raw("UPDATE task_dag SET max_concurrently_running=4 WHERE dag_id=%s", dag_id)
    assert len(claim(jsm, dag_id)) == 1


def test_a_claim_repeated_under_its_key(jsm: Sql, admin: Sql) -> None:
    dag_id, _ = make_jobs(jsm, 5)
    jsm.call("queue_jobs", dag_id=dag_id)
    given = {"executor_type": "X", "dag_id": dag_id, "max_jobs": 2, "request_key": fresh("key")}
    first = jsm.call("claim_jobs", **given)
    assert len(first["job_instances"]) == 2
    with admin.unchanged():
        assert jsm.call("claim_jobs", **given) == first
    # an empty answer is one too
    empty = {**given, "max_jobs": 0, "request_key": fresh("key")}
    assert jsm.call("claim_jobs", **empty) == {"job_instances": []}
    assert jsm.call("claim_jobs", **{**empty, "max_jobs": 2}) == {"job_instances": []}
    others = jsm.call("claim_jobs", **{**given, "request_key": fresh("key")})
    assert len(others["job_instances"]) == 2
    assert others != first


def test_a_second_attempt_is_claimed_as_such(jsm: Sql, admin: Sql) -> None:
    dag_id, (job_id,) = make_jobs(jsm, 1)
    jsm.call("queue_jobs", dag_id=dag_id)
    for attempt in (1, 2, 3):
        (made,) = jsm.call("claim_jobs", executor_type="X", dag_id=dag_id)["job_instances"]
        assert made["attempt_number"] == attempt
        jsm.call("log_error", job_instance_id=made["job_instance_id"], error_message=f"{attempt}")
    assert claim(jsm, dag_id) == []
    assert statuses(admin, [job_id]) == "F"


def test_a_claim_of_a_thousand(jsm: Sql, admin: Sql) -> None:
    dag_id, _ = make_jobs(jsm, 1200, max_attempts=2)
    assert jsm.call("queue_jobs", dag_id=dag_id) == {"num_queued": 1200, "num_left": 0}
    live = claim(jsm, dag_id, max_jobs=5000)
    assert len(live) == 1000, "the most of one call"
    events: list[dict[str, Any]] = []
    for n, instance in enumerate(live):
        events.append({"event": "running", "job_instance_id": instance, "nodename": f"node{n}"})
    assert outcomes(jsm, events) == ["OK"] * 1000
    ends = [
        {"event": "done", "job_instance_id": i}
        if n % 2
        else {"event": "error", "job_instance_id": i, "error_message": f"e{n}"}
        for n, i in enumerate(live)
    ]
    assert outcomes(jsm, ends) == ["OK"] * 1000
    with admin.unchanged():
        assert outcomes(jsm, ends) == ["OK"] * 1000
    counts = admin.raw("SELECT status, COUNT(*) FROM job WHERE dag_id=%s GROUP BY 1 ORDER BY 1", dag_id)
    assert counts == [("D", 500), ("Q", 700)]
    assert admin.instance(live[6])["error_message"] == "e6"


# log_events ------------------------------------------------------------------------------------------


def test_mixed_events(jsm: Sql, admin: Sql) -> None:
    jobs, instances = zip(*(make_instance(jsm, "R") for _ in range(4)), strict=True)
    fresh_job, fresh_instance = make_instance(jsm, "I")
    ended = make_instance(jsm, "D")[1]
    events: list[Any] = [
        {"event": "done", "job_instance_id": instances[0]},
        {"event": "done", "job_instance_id": ended},
        {"event": "error", "job_instance_id": ended, "error_message": "late"},
        {"event": "error", "job_instance_id": instances[1], "error_message": "boom", "nodename": "n7"},
        {"event": "done", "job_instance_id": instances[1]},
        {"event": "heartbeat", "job_instance_id": instances[2], "lease_seconds": 60},
        {"event": "usage", "job_instance_id": instances[2], "wallclock": 12.5, "maxvmem": "1G"},
        {"event": "executor_id", "job_instance_id": fresh_instance, "executor_id": 4711},
        {"event": "done", "job_instance_id": fresh_instance},
        {"event": "nodename", "job_instance_id": ended, "nodename": "n8"},
        {"event": "running", "job_instance_id": 10**15},
        {"event": "heartbeat", "job_instance_id": ended},
        {"event": "dance", "job_instance_id": instances[3]},
        {"event": "RUNNING", "job_instance_id": instances[3]},
        {"event": "error", "job_instance_id": instances[3]},
        {"event": "nodename", "job_instance_id": instances[3]},
        {"event": "executor_id", "job_instance_id": instances[3]},
        {"event": "running"},
        {"job_instance_id": instances[3]},
        {"event": "running", "job_instance_id": "first"},
        {"event": "running", "job_instance_id": -1},
        {"event": "running", "job_instance_id": f"{instances[3]} OR 1=1"},
        {"event": "running", "job_instance_id": instances[3], "process_group_id": "x"},
        {"event": "heartbeat", "job_instance_id": instances[3], "lease_seconds": -5},
        {"event": "running", "job_instance_id": instances[3], "executor_id": "e" * 65},
        {"event": "running", "job_instance_id": instances[3], "executor_id": "e" * 5000},
        {},
        None,
        17,
        "running",
        [],
        {"event": "done", "job_instance_id": str(instances[3])},
    ]
    ok, missing, invalid = "OK", "MISSING_PARAMETER", "INVALID_PARAMETER"
    assert outcomes(jsm, events) == [
        *(ok, ok, "JOB_INSTANCE_ENDED", ok, "JOB_INSTANCE_ENDED", ok, ok, ok, "ILLEGAL_TRANSITION", ok),
        *("UNKNOWN_JOB_INSTANCE", "JOB_INSTANCE_ENDED", invalid, invalid, missing, missing, missing),
        *(missing, missing, invalid, invalid, invalid, invalid, invalid, invalid, invalid),
        *(missing, missing, missing, missing, missing, ok),
    ]
    assert statuses(admin, [*jobs, fresh_job]) == "DQRDI"
    assert admin.instance(instances[1]).items() >= {"nodename": "n7", "error_message": "boom"}.items()
    assert admin.instance(instances[2]).items() >= {"wallclock": "12.5", "maxvmem": "1G"}.items()
    assert admin.instance(instances[2])["lease_seconds"] == 60
    assert admin.instance(fresh_instance).items() >= {"status": "B", "executor_id": "4711"}.items()
    assert admin.instance(ended).items() >= {"status": "D", "nodename": "n8"}.items()
    assert admin.instance(instances[3])["executor_id"] is None


def test_a_refused_event_says_why(jsm: Sql, admin: Sql) -> None:
    _, instance = make_instance(jsm, "R")
    events: dict[str, dict[str, Any]] = {
        "event is needed": {"job_instance_id": instance},
        "job_instance_id is needed": {"event": "done"},
        "error_message is needed": {"event": "error", "job_instance_id": instance},
        "nodename is needed": {"event": "nodename", "job_instance_id": instance},
        "executor_id is needed": {"event": "executor_id", "job_instance_id": instance},
        "process_group_id": {"event": "running", "job_instance_id": instance, "process_group_id": 1.5},
        "lease_seconds": {"event": "heartbeat", "job_instance_id": instance, "lease_seconds": -1},
        "unknown key: node_name": {"event": "running", "job_instance_id": instance, "node_name": "n"},
        "no job instance 999": {"event": "done", "job_instance_id": 999000999},
    }
    with admin.unchanged():
        answer = jsm.call("log_events", events=list(events.values()))["outcomes"]
    for words, outcome in zip(events, answer, strict=True):
        assert outcome["code"] != "OK" and words in outcome["message"]


def test_events_of_one_instance_take_effect_in_their_order(jsm: Sql, admin: Sql) -> None:
    job_id, instance = make_instance(jsm)
    words = [
        "executor_id",
        "running",
        "heartbeat",
        "running",
        "usage",
        "done",
        "done",
        "error",
        "running",
        "nodename",
    ]
    more = {"executor_id": "7", "error_message": "x", "wallclock": "1", "nodename": "n"}
    events = [{"event": word, "job_instance_id": instance, **more} for word in words]
    ended = "JOB_INSTANCE_ENDED"
    assert outcomes(jsm, events) == ["OK"] * 7 + [ended, ended, "OK"]
    assert admin.instance_history(instance) == "IBRD"
    assert admin.history(job_id) == "GQIRD"
    # the other way round nothing is accepted that may not be
    job_id, instance = make_instance(jsm)
    events = [
        {"event": word, "job_instance_id": instance, "error_message": "x"}
        for word in ("done", "error", "running")
    ]
    assert outcomes(jsm, events) == ["ILLEGAL_TRANSITION", "OK", ended]
    assert admin.history(job_id) == "GQIEQ"


def test_events_of_two_attempts_of_one_job(jsm: Sql, admin: Sql) -> None:
    job_id, first = make_instance(jsm, "E")
    second = make_attempt(jsm, job_id, "R")
    events = [
        {"event": "done", "job_instance_id": first},
        {"event": "done", "job_instance_id": second},
        {"event": "error", "job_instance_id": first, "error_message": "again"},
    ]
    assert outcomes(jsm, events)[:2] == ["JOB_INSTANCE_SUPERSEDED", "OK"]
    assert admin.history(job_id)[-1] == "D"
    assert admin.instance(first)["error_message"] == "boom"


def test_events_queue_what_waited(jsm: Sql, admin: Sql) -> None:
    dag_id, jobs = make_jobs(jsm, 5, [(0, 3), (1, 3), (2, 4), (3, 4)])
    jsm.call("queue_jobs", dag_id=dag_id)
    live = claim(jsm, dag_id)
    events = [{"event": "running", "job_instance_id": i} for i in live]
    events += [{"event": "done", "job_instance_id": i} for i in live]
    # one bad event among them spoils no release
    events.insert(4, {"event": "done", "job_instance_id": 10**15})
    events.append({"event": "error", "job_instance_id": live[0], "error_message": "late"})
    assert outcomes(jsm, events).count("OK") == 6
    assert statuses(admin, jobs) == "DDDQG"


def test_events_repeated_have_one_effect(jsm: Sql, admin: Sql) -> None:
    dag_id, jobs = make_jobs(jsm, 3, [(0, 2)], max_attempts=1)
    jsm.call("queue_jobs", dag_id=dag_id)
    live = claim(jsm, dag_id)
    events = [
        {"event": "executor_id", "job_instance_id": live[0], "executor_id": "1"},
        {"event": "running", "job_instance_id": live[0], "nodename": "n", "process_group_id": 3},
        {"event": "done", "job_instance_id": live[0]},
        {"event": "error", "job_instance_id": live[1], "error_message": "x"},
    ]
    assert outcomes(jsm, events) == ["OK"] * 4
    with admin.unchanged():
        # what is already past is told, what is the present state succeeds
        assert outcomes(jsm, events) == ["OK", "JOB_INSTANCE_ENDED", "OK", "OK"]
    assert statuses(admin, jobs) == "DFQ"


def test_an_event_may_bring_what_belongs_to_others(jsm: Sql, admin: Sql) -> None:
    _, instance = make_instance(jsm)
    figures = {"usage_str": "all", "wallclock": "1", "maxvmem": "2", "cpu": "3", "io": "4"}
    more = {"nodename": "n", "process_group_id": "12", "executor_id": "e1", **figures}
    assert outcomes(
        jsm,
        [
            {"event": "running", "job_instance_id": instance},
            {"event": "done", "job_instance_id": instance, **more},
        ],
    ) == ["OK", "OK"]
    assert admin.instance(instance).items() >= {**more, "process_group_id": 12, "status": "D"}.items()


def test_refused_events_bring_nothing(jsm: Sql, admin: Sql) -> None:
    _, instance = make_instance(jsm, "D")
    with admin.unchanged():
        events = [
            {
                "event": word,
                "job_instance_id": instance,
                "nodename": "late",
                "executor_id": "late",
                "cpu": "9",
            }
            for word in ("running", "heartbeat")
        ]
        assert outcomes(jsm, events) == ["JOB_INSTANCE_ENDED"] * 2


def test_a_refusal_is_told_even_without_diagnostics(jsm: Sql, admin: Sql) -> None:
    """A session or server may keep no diagnostics (max_error_count): still nothing refused is called OK."""
    _, instance = make_instance(jsm, "D")
    # as admin: MySQL does not let JSM
    admin.raw("SET SESSION max_error_count = 0")
    events = [
        {"event": "error", "job_instance_id": instance, "error_message": "x"},
        {"event": "done", "job_instance_id": instance},
    ]
    with admin.unchanged():
        refused, accepted = outcomes(admin, events)
    assert refused != "OK" and accepted == "OK"


@pytest.mark.parametrize("events", ["", "{}", "null", "[", '"x"', "[" * 300 + "]" * 300, '["\\ud800"]'])
def test_what_is_no_array_of_events(jsm: Sql, admin: Sql, events: str) -> None:
    with admin.unchanged(), jsm.refused("INVALID_JSON_PARAMETER"):
        jsm.call("log_events", events=events)


def test_no_events(jsm: Sql, admin: Sql) -> None:
    with admin.unchanged():
        assert jsm.call("log_events", events=[]) == {"outcomes": []}
        with jsm.refused("TOO_MANY_ITEMS"):
            jsm.call("log_events", events=[{}] * 10001)


def test_ten_thousand_events(jsm: Sql, admin: Sql) -> None:
    _, instance = make_instance(jsm, "D")
    with admin.unchanged():
        assert set(outcomes(jsm, [{"event": "dance", "job_instance_id": instance}] * 10000)) == {
            "INVALID_PARAMETER"
        }


def test_long_texts_in_events(jsm: Sql, admin: Sql) -> None:
    _, instance = make_instance(jsm)
    words = ("usage_str", "wallclock", "maxvmem", "cpu", "io")
    text = "a\N{GRINNING FACE}" * 40000
    events = [
        {"event": "usage", "job_instance_id": instance, **dict.fromkeys(words, text)},
        {"event": "error", "job_instance_id": instance, "error_message": text, "nodename": text},
    ]
    assert outcomes(jsm, events) == ["OK", "OK"]
    row = admin.instance(instance)
    for word in (*words, "error_message", "nodename"):
        assert "[cut: this text had " in row[word], word
    assert len(row["nodename"]) == 255 and len(row["cpu"]) == 64 and len(row["usage_str"]) == 1000
    assert "had 80000 characters" in row["error_message"]
    assert len(row["error_message"]) == 65535


# expire_job_instances --------------------------------------------------------------------------------


def test_lost_instances_end(emptied: None, jsm: Sql, admin: Sql) -> None:
    lost = []
    for status in "IBR":
        instance = make_attempt(jsm, make_job(jsm, "Q"), lease_seconds=0)
        if status != "I":
            jsm.call("log_executor_id", job_instance_id=instance, executor_id="1")
        if status == "R":
            jsm.call("log_running", job_instance_id=instance)
        lost.append(instance)
    renewed = make_attempt(jsm, make_job(jsm, "Q"), lease_seconds=0)
    jsm.call("log_job_instance_heartbeat", job_instance_id=renewed, lease_seconds=600)
    watched = make_attempt(jsm, make_job(jsm, "Q"), lease_seconds=600)
    unwatched = make_attempt(jsm, make_job(jsm, "Q"), "R")
    ended = make_attempt(jsm, make_job(jsm, "Q"), "D", lease_seconds=0)
    assert admin.instance(unwatched)["report_by_date"] is None
    assert admin.instance(ended)["report_by_date"] is None
    assert jsm.call("expire_job_instances") == {"job_instance_ids": lost}
    for instance in lost:
        row = admin.instance(instance)
        assert row["status"] == "E" and row["error_message"].startswith("Lost: no report until ")
        assert admin.history(row["job_id"]).endswith("EQ")
        with admin.unchanged(), jsm.refused("JOB_INSTANCE_ENDED"):
            jsm.call("log_done", job_instance_id=instance)
    live = [admin.instance(i)["status"] for i in (renewed, watched, unwatched, ended)]
    assert live == ["I", "I", "R", "D"]
    with admin.unchanged():
        assert jsm.call("expire_job_instances") == {"job_instance_ids": []}


def test_expiry_a_few_at_a_time(emptied: None, jsm: Sql, admin: Sql) -> None:
    dag_id, jobs = make_jobs(jsm, 5, max_attempts=1)
    jsm.call("queue_jobs", dag_id=dag_id)
    live = claim(jsm, dag_id, lease_seconds=0)
    found: list[int] = []
    for expected in (2, 2, 1, 0):
        answer = jsm.call("expire_job_instances", max_job_instances=2)["job_instance_ids"]
        assert len(answer) == expected
        found += answer
    assert sorted(found) == live
    assert statuses(admin, jobs) == "FFFFF"


def test_expiry_passes_over_what_somebody_reports_on(
    emptied: None, open_as: Any, jsm: Sql, admin: Sql
) -> None:
    dag_id, _ = make_jobs(jsm, 3)
    jsm.call("queue_jobs", dag_id=dag_id)
    live = claim(jsm, dag_id, lease_seconds=0)
    reporter = open_as("jsm")
    reporter.raw("START TRANSACTION")
    reporter.call("log_running", job_instance_id=live[1])
    assert jsm.call("expire_job_instances", max_job_instances=3)["job_instance_ids"] == [live[0], live[2]]
    reporter.raw("COMMIT")
    assert admin.instance(live[1])["status"] == "R"


def test_reports_renew_a_lease(jsm: Sql, admin: Sql) -> None:
    def left(instance: int) -> float:
        seconds = admin.one(
            "SELECT TIMESTAMPDIFF(MICROSECOND, UTC_TIMESTAMP(6), report_by_date) / 1000000"
            " FROM job_instance WHERE job_instance_id=%s",
            instance,
        )
        return float(seconds)

    instance = make_attempt(jsm, make_job(jsm, "Q"), lease_seconds=1000)
    assert 990 < left(instance) <= 1000
    past = (
        "UPDATE job_instance SET report_by_date = UTC_TIMESTAMP(6) - INTERVAL 1 HOUR WHERE job_instance_id=%s"
    )
    for name, more in (
        ("log_executor_id", {"executor_id": "1"}),
        ("log_running", {}),
        ("log_job_instance_heartbeat", {}),
    ):
        admin.raw(past, instance)
        jsm.call(name, job_instance_id=instance, **more)
        assert 990 < left(instance) <= 1000, name
    jsm.call("log_job_instance_heartbeat", job_instance_id=instance, lease_seconds=50)
    assert 40 < left(instance) <= 50
    admin.raw(past, instance)
    assert outcomes(jsm, [{"event": "heartbeat", "job_instance_id": instance}]) == ["OK"]
    assert 40 < left(instance) <= 50
    assert outcomes(jsm, [{"event": "heartbeat", "job_instance_id": instance, "lease_seconds": "99"}]) == [
        "OK"
    ]
    assert 90 < left(instance) <= 99
    jsm.call("log_done", job_instance_id=instance)
    assert admin.instance(instance)["report_by_date"] is None


@pytest.mark.parametrize("how", ["call", "event"])
def test_a_heartbeat_without_a_lease_takes_no_watch_away(jsm: Sql, admin: Sql, how: str) -> None:
    """Nothing stays in I for ever: a client that renews no lease has its day, heartbeat or not."""
    _, instance = make_instance(jsm)
    before = admin.instance(instance)["report_by_date"]
    if how == "call":
        jsm.call("log_job_instance_heartbeat", job_instance_id=instance)
    else:
        assert outcomes(jsm, [{"event": "heartbeat", "job_instance_id": instance}]) == ["OK"]
    after = admin.instance(instance)["report_by_date"]
    assert after is not None and after >= before


def test_an_instance_of_an_old_client_is_given_a_day_to_start(jsm: Sql, admin: Sql) -> None:
    _, instance = make_instance(jsm)
    row = admin.instance(instance)
    assert row["lease_seconds"] is None
    assert row["report_by_date"] - row["created_date"] > datetime.timedelta(hours=23)
    jsm.call("log_running", job_instance_id=instance)
    assert admin.instance(instance)["report_by_date"] is None, "it renews no lease, so it is not watched"


def test_what_json_comes_in_comes_out(jsm: Sql) -> None:
    """SQL in every field stays text."""
    evil = """'); DROP TABLE job; -- " \\ % _ {"a": [1]} \n\t\x7f"""
    dag_id = make_dag(jsm, name=evil[:100], user=evil[:100])
    given = {"name": evil, "command": evil, "tag": evil, "context_args": json.dumps({"e": evil})}
    jobs = [{**given, "job_hash": evil}]
    (job_id,) = jsm.call("add_jobs", dag_id=dag_id, jobs=jobs)["job_ids"]
    jsm.call("queue_job", job_id=job_id)
    (made,) = jsm.call("claim_jobs", executor_type=evil, dag_id=dag_id)["job_instances"]
    assert made.items() >= given.items()
