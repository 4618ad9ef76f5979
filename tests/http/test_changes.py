"""Polling what changed since: nothing is missed, nothing comes twice."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from http_helpers import HASH, Api, make_dag, make_job
from hypothesis import given
from hypothesis import strategies as st

from jobmon.thin_common.errors import RelayError
from jobmon.thin_jqs.changes import decode_cursor, encode_cursor


def poll(jqs: Api, cursor: str = "", **arguments: Any) -> tuple[list[tuple[int, str]], str]:
    """The changes after a cursor as (job_id, status), and the next cursor."""
    answer = jqs.read("/get_job_changes", cursor=cursor, **arguments)
    return [(change["job_id"], change["status"]) for change in answer["job_changes"]], answer["cursor"]


def test_changes_come_once_each(jsm: Api, jqs: Api) -> None:
    dag_id = make_dag(jsm)
    _, start = poll(jqs, "now")
    assert poll(jqs, start) == ([], start)
    job_id = make_job(jsm, dag_id)["job_id"]
    jsm.ok("/queue_job", job_id=job_id)
    changes, cursor = poll(jqs, start)
    assert changes == [(job_id, "G"), (job_id, "Q")]
    assert poll(jqs, cursor) == ([], cursor)
    assert poll(jqs, start)[0] == changes
    assert poll(jqs)[0] == changes


@pytest.mark.parametrize("limit", [1, 3, 7, 1000])
def test_pages_together_are_everything(jsm: Api, jqs: Api, limit: int) -> None:
    dag_id, other = make_dag(jsm), make_dag(jsm)
    ids = [make_job(jsm, dag_id, HASH + n)["job_id"] for n in range(10)]
    elsewhere = make_job(jsm, other)["job_id"]
    for job_id in ids:
        jsm.ok("/queue_job", job_id=job_id)
    seen, cursor, calls, more = [], "", 0, True
    while more:
        answer = jqs.read("/get_job_changes", cursor=cursor, limit=limit, dag_id=dag_id)
        ids_of_page = [change["change_id"] for change in answer["job_changes"]]
        assert ids_of_page == sorted(ids_of_page)
        assert len(ids_of_page) <= limit
        seen += [(change["job_id"], change["status"]) for change in answer["job_changes"]]
        cursor, more = answer["cursor"], answer["more"]
        calls += 1
    assert sorted(seen) == sorted([(job_id, status) for job_id in ids for status in "GQ"])
    assert calls >= 20 // limit
    assert [status for job_id, status in seen if job_id == ids[-1]] == ["G", "Q"]
    assert poll(jqs, cursor, limit=limit)[0] == []
    assert (elsewhere, "G") in poll(jqs)[0]


def test_a_late_commit_is_not_missed(jsm: Api, jqs: Api, db: Any) -> None:
    dag_id = make_dag(jsm)
    first = make_job(jsm, dag_id, 1)["job_id"]
    others = [make_job(jsm, dag_id, n)["job_id"] for n in range(2, 30)]
    _, cursor = poll(jqs, "now")
    late = db.connect("admin", autocommit=False)
    with late.cursor() as sql:
        sql.execute("CALL queue_job(%s)", (first,))  # it has its change_id now, and commits later
    seen = []
    for job_id in others:
        # one that has the late one's shard by its number takes another, and does not wait
        with db.connect("jsm", session={"innodb_lock_wait_timeout": 1}).cursor() as sql:
            sql.execute("CALL queue_job(%s)", (job_id,))
        changes, cursor = poll(jqs, cursor)
        seen += changes
    assert seen
    assert (first, "Q") not in seen
    late.commit()
    changes, cursor = poll(jqs, cursor)
    assert changes == [(first, "Q")]
    assert poll(jqs, cursor)[0] == []


@given(st.dictionaries(st.integers(0, 255), st.integers(0, 2**64 - 1), max_size=64))
def test_cursors_are_read_back(heads: dict[int, int]) -> None:
    assert decode_cursor(encode_cursor(heads)) == heads


@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda data: b"\x01" + data))
def test_foreign_cursors_are_refused_or_read(data: bytes) -> None:
    text = base64.urlsafe_b64encode(data).decode().rstrip("=")
    try:
        heads = decode_cursor(text)
    except RelayError as error:
        assert (error.code, error.status) == ("INVALID_CURSOR", 400)
    else:
        assert not text or encode_cursor(heads) == text


@pytest.mark.parametrize(
    "cursor", ["x", "NOW", "-1", "AA", "AQ===", "\u00e9", "A" * 100_000, "'; DROP TABLE job"]
)
def test_bad_cursors(jqs: Api, cursor: str) -> None:
    response = jqs.get("/get_job_changes", cursor=cursor)
    assert (response.status_code, response.json["error"]["code"]) == (400, "INVALID_CURSOR")


@pytest.mark.parametrize("limit", ["0", "-1", "x", str(10**9)])
def test_bad_limits(jqs: Api, limit: str) -> None:
    response = jqs.get("/get_job_changes", limit=limit)
    assert (response.status_code, response.json["error"]["code"]) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize("limit", [1, 5, 40, 100, 500, 5000])
def test_order_holds_across_shards_and_pages(jqs: Api, db: Any, limit: int) -> None:
    # Five jobs, each with its changes strewn over shards of very different size.
    shards = [0, 0, 0, 0, 0, 1, 1, 2, 3, 0, 0, 5, 63]
    rows = [(n % 5 + 1, 7 if n % 5 else 8, shards[n * n % len(shards)]) for n in range(700)]
    with db.connect("admin", session={"foreign_key_checks": 0}).cursor() as sql:
        sql.executemany(
            "INSERT INTO job_status_log (job_id, dag_id, status, attempt_number, change_shard, status_date)"
            " VALUES (%s, %s, 'G', 0, %s, UTC_TIMESTAMP(6))",
            rows,
        )
    for dag_id in (None, 7, 8):
        arguments = {"limit": limit} | ({"dag_id": dag_id} if dag_id else {})
        seen: list[tuple[int, int]] = []
        cursor, more = "", True
        while more:
            answer = jqs.read("/get_job_changes", cursor=cursor, **arguments)
            seen += [(change["change_id"], change["job_id"]) for change in answer["job_changes"]]
            cursor, more = answer["cursor"], answer["more"]
            assert len(answer["job_changes"]) <= limit
            assert answer["job_changes"] or not more
        assert seen == sorted(seen)  # so each job's are in order
        assert [job for _, job in seen] == [job for job, dag, _ in rows if dag_id in (None, dag)]
