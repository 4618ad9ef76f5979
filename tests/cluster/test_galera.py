"""Three nodes of Galera: a node is killed under load; and what holds when JSM writes to two nodes at once."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from typing import Any

from cluster_helpers import Follower, Galera, Load, change_ids, check_ends, wait_until
from http_helpers import Api, make_dag, make_job

from jobmon.db import catalog, validate
from jobmon.db.connect import connect

Serve = Callable[..., tuple[Api, Api]]


def test_two_nodes_are_written_to_at_once(galera: Galera, serve: Serve) -> None:
    """As in the moments of a failover: conflicts are repeated, no job is instantiated twice, limits hold, no
    change is missed.
    """
    (left, on_left), (right, on_right) = serve(galera, [0], [0]), serve(galera, [1], [1])
    both = [left, right]

    # the same attempt, demanded on both nodes at the very same time
    dag_id = make_dag(left)
    for number in range(10):
        job_id = make_job(left, dag_id, number)["job_id"]
        left.ok("/queue_job", job_id=job_id)
        galera.wait_same(1)
        bodies = [{"job_id": job_id, "executor_type": "E"}] * 2
        answers = at_once(both, "/add_job_instance", bodies)
        assert sorted(answer.status_code for answer in answers) == [200, 409]
        assert {answer.json["error"]["code"] for answer in answers if answer.status_code == 409} == {
            "JOB_NOT_QUEUED"
        }

    # claims of one queue, with a limit that both nodes keep together
    limited = make_dag(left, max_concurrently_running=7, dag_hash="limited")
    jobs = [{"name": "c", "job_hash": str(n), "command": "true"} for n in range(40)]
    left.ok("/add_jobs", dag_id=limited, jobs=jobs)
    left.ok("/queue_jobs", dag_id=limited)
    galera.wait_same(1)
    claimed: list[int] = []
    while len(claimed) < 40:
        # each under a key: a node may end a call when it has done it already
        bodies = [
            {"executor_type": "E", "dag_id": limited, "max_jobs": 5, "request_key": f"{len(claimed)} {node}"}
            for node in range(2)
        ]
        made = [
            instance
            for answer in at_once(both, "/claim_jobs", bodies)
            for instance in ok(answer)["job_instances"]
        ]
        assert len(made) == min(7, 40 - len(claimed))
        claimed += [instance["job_id"] for instance in made]
        galera.wait_same(0, 1)
        for instance in made:
            right.ok("/log_running", job_instance_id=instance["job_instance_id"])
            right.ok("/log_done", job_instance_id=instance["job_instance_id"])
        galera.wait_same(0, 1)
    assert len(set(claimed)) == 40

    # two claims of different jobs, since one node passes over rows that are held there
    left.ok(
        "/add_jobs", dag_id=limited, jobs=[{**job, "job_hash": f"more {job['job_hash']}"} for job in jobs]
    )
    left.ok("/queue_jobs", dag_id=limited)
    galera.wait_same(1)
    with contextlib.closing(connect(galera.root(0), autocommit=False)) as holder:
        first_ones = (
            f"SELECT job_id FROM job WHERE dag_id = {limited} AND status = 'Q' ORDER BY job_id LIMIT 5"
        )
        held = {row[0] for row in catalog.query(holder, f"{first_ones} FOR UPDATE")}
        bodies = [{"executor_type": "E", "dag_id": limited, "max_jobs": 5}] * 2
        parts = [
            {instance["job_id"] for instance in ok(answer)["job_instances"]}
            for answer in at_once(both, "/claim_jobs", bodies)
        ]
        assert not parts[0] & held
        assert not parts[0] & parts[1]
        assert len(parts[0] | parts[1]) == 7

    # many writers on both, and a reader that jumps between nodes
    follower = Follower([on_left, on_right])
    load = Load(both)
    load.go_on(150)
    load.finish()
    galera.wait_same(0, 1, 2)
    follower.finish(lambda: change_ids(galera, 2))
    for number in range(3):
        check_ends(galera, number, load)
    counters = ("wsrep_local_cert_failures", "wsrep_local_bf_aborts")
    conflicts = [
        int(value)
        for number in (0, 1)
        for name, value in galera.query(number, "SHOW STATUS LIKE 'wsrep_local_%%'", ())
        if name in counters
    ]
    assert sum(conflicts) > 0, "the nodes were not in each other's way"


def test_a_node_is_killed_under_load(galera: Galera, serve: Serve) -> None:
    """All write to the first node, and to the next when that is lost: nothing acknowledged is lost, nothing
    done twice, no change missed. A node that comes back is written to again. Without a majority all is
    refused.
    """
    assert validate.validate(galera.root(0), owner="cluster_owner") == []
    first, on_third = serve(galera, [0, 1, 2], [2])
    second, on_second = serve(galera, [0, 1, 2], [1, 2])
    load = Load([first, second])
    follower = Follower([on_third, on_second])
    load.go_on(30)
    galera.servers[0].kill()
    load.go_on(30)
    galera.rejoin(0)
    # new connections go to the first node as soon as it takes part again
    wait_until(lambda: connections(galera, 0))
    load.go_on(30)
    galera.servers[1].kill()  # another one than is written to
    load.go_on(30)
    load.finish()
    galera.wait_same(0, 2)
    follower.finish(lambda: change_ids(galera, 0))
    for number in (0, 2):
        check_ends(galera, number, load)

    # what was written on one node shows on another
    dag_id = make_dag(first)
    for number in range(20):
        body = {"dag_id": dag_id, "name": "x", "job_hash": number, "command": "true"}
        position = first.post("/add_job", body).headers["Jobmon-Position"]
        assert len(on_third.read("/get_jobs", dag_id=dag_id, min_position=position)["job_dcts"]) == number + 1

    # one node of two: it can't know what the other one does
    galera.servers[2].kill()
    lost = wait_until(lambda: refused(first.post("/add_task_dag", {"user": "ann", "dag_hash": "y"})))
    assert lost in ("DATABASE_UNAVAILABLE", "DATABASE_BUSY")


def refused(response: Any) -> str | None:
    """The error of a 503; any other error fails."""
    if response.status_code == 200:
        return None
    assert response.status_code == 503, response.text
    code: str = response.json["error"]["code"]
    return code


def connections(galera: Galera, number: int) -> int:
    """How many connections of JSM a node has."""
    sql = "SELECT COUNT(*) FROM information_schema.PROCESSLIST WHERE USER = 'cluster_jsm'"
    return int(galera.query(number, sql)[0][0])


def ok(answer: Any) -> Any:
    assert answer.status_code == 200, answer.text
    return answer.json


def at_once(apis: list[Api], path: str, bodies: list[dict[str, Any]]) -> list[Any]:
    """One call of each service, at the same time."""
    barrier = threading.Barrier(len(apis))
    answers: list[Any] = [None] * len(apis)

    def call(place: int) -> None:
        barrier.wait(30)
        answers[place] = apis[place].post(path, bodies[place])

    threads = [threading.Thread(target=call, args=(place,)) for place in range(len(apis))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(90)
    return answers
