"""MySQL group replication, as in InnoDB Cluster: its primary is killed under load."""

from __future__ import annotations

from collections.abc import Callable

from cluster_helpers import Follower, Group, Load, change_ids, check_ends, wait_until
from http_helpers import Api, make_dag

Serve = Callable[..., tuple[Api, Api]]


def test_the_primary_is_killed_under_load(group: Group, serve: Serve) -> None:
    first, on_second = serve(group, [0, 1, 2], [1, 2], position_timeout=60)
    second, on_third = serve(group, [0, 1, 2], [2, 1], position_timeout=60)
    dag_id = make_dag(first)
    body = {"dag_id": dag_id, "name": "x", "command": "true"}
    for number in range(10):
        position = first.post("/add_job", {**body, "job_hash": number}).headers["Jobmon-Position"]
        found = on_third.read("/get_jobs", dag_id=dag_id, min_position=position)["job_dcts"]
        assert len(found) == number + 1

    load = Load([first, second])
    follower = Follower([on_second, on_third])
    load.go_on(30)
    group.servers[0].kill()
    load.go_on(30)
    load.finish()
    new = wait_until(lambda: group.primary(1, 2))
    follower.finish(lambda: change_ids(group, new))

    # its numbers are of another block than those of the old one
    position = second.post("/add_job", {**body, "job_hash": "after"}).headers["Jobmon-Position"]
    for jqs in (on_second, on_third):
        assert len(jqs.read("/get_jobs", dag_id=dag_id, min_position=position)["job_dcts"]) == 11
    for number in (1, 2):
        check_ends(group, number, load)
