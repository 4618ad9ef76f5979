"""JSM on the primary, JQS on a replica: what it shows, how far behind it is, what is missed, and a
failover.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from cluster_helpers import (
    Balancer,
    Follower,
    Load,
    Pair,
    change_ids,
    check_ends,
    start_service,
    wait_until,
)
from http_helpers import Api, make_dag

from jobmon.client.requester import Requester
from jobmon.config import load_config, read_accounts
from jobmon.db import catalog, grants, migrate, validate
from jobmon.db.connect import ConnectionSpec, connect
from jobmon.db.load import LoadError

Serve = Callable[..., tuple[Api, Api]]


def test_what_a_replica_shows(pair: Pair, serve: Serve) -> None:
    jsm, jqs = serve(pair, [0], [1], position_timeout=0.2)
    _, patient = serve(pair, [0], [1], position_timeout=60)
    dag_id = make_dag(jsm)
    body = {"dag_id": dag_id, "name": "j", "job_hash": 1, "command": "true"}

    # who gives the position of what he wrote sees it, at once or a little later
    for number in range(20):
        written = jsm.post("/add_job", {**body, "job_hash": number})
        position = written.headers["Jobmon-Position"]
        seen = patient.read("/get_jobs", dag_id=dag_id, min_position=position)["job_dcts"]
        assert len(seen) == number + 1

    wait_until(lambda: "replica_lag_seconds" in jqs.read("/readyz"))  # the first heartbeat
    pair.halt()
    written = jsm.post("/add_job", {**body, "job_hash": 20})
    position = written.headers["Jobmon-Position"]
    assert len(jqs.read("/get_jobs", dag_id=dag_id)["job_dcts"]) == 20
    for route, arguments in (("get_jobs", {"dag_id": dag_id}), ("jobs", {}), ("get_job_changes", {})):
        refused = jqs.get(f"/{route}", **arguments, min_position=position)
        assert (refused.status_code, refused.json["error"]["code"]) == (503, "REPLICA_BEHIND")
        assert refused.headers["Retry-After"]
    as_header = jqs.client.get(f"/get_jobs?dag_id={dag_id}", headers={"Jobmon-Min-Position": position})
    assert as_header.status_code == 503
    # the same call again writes nothing; its position is where the first one's work is
    again = jsm.post("/add_job", {**body, "job_hash": 20})
    assert again.json == written.json
    assert jqs.get("/jobs", min_position=again.headers["Jobmon-Position"]).status_code == 503

    # a cursor that comes from a database that is ahead stays where it is
    _, on_primary = serve(pair, [0], [0])
    ahead = on_primary.read("/get_job_changes")["cursor"]
    here = jqs.read("/get_job_changes", cursor=ahead)
    assert (here["job_changes"], here["cursor"], here["more"]) == ([], ahead, False)

    # it says how far behind it is
    wait_until(lambda: jqs.read("/readyz")["replica_lag_seconds"] > 1.5)
    answers: list[int] = []
    waiter = threading.Thread(
        target=lambda: answers.append(
            len(patient.read("/get_jobs", dag_id=dag_id, min_position=position)["job_dcts"])
        )
    )
    waiter.start()
    pair.go_on()
    waiter.join(90)
    assert answers == [21]
    wait_until(lambda: jqs.read("/readyz")["replica_lag_seconds"] < 1.5)
    wait_until(lambda: 'jobmon_replica_lag_seconds{service="jqs"}' in jqs.get("/metrics").text)

    # positions work on the primary as well
    position = jsm.post("/queue_job", {"job_id": written.json["job_dct"]["job_id"]}).headers[
        "Jobmon-Position"
    ]
    assert on_primary.read("/get_queued", dag_id=dag_id, min_position=position)["job_dcts"]
    foreign = "0-1-1" if pair.binaries.kind == "mysql" else "3e11fa47-71ca-11e1-9e33-c80aa9429562:1"
    for wrong in ("x", "1", "0-1", foreign, "galera", "0-1-99999999999999999999", "0-1-1," * 1000):
        refused = jqs.get("/jobs", min_position=wrong)
        assert (refused.status_code, refused.json["error"]["code"]) == (400, "INVALID_POSITION"), wrong

    # a schema that has not come to the replica yet
    pair.halt()
    pair.query(1, "UPDATE schema_info SET schema_version = 1, compatible_since = 1")
    not_yet = jqs.get("/readyz")
    assert (not_yet.status_code, not_yet.json["error"]["code"]) == (503, "NOT_READY")
    [versions] = pair.query(0, "SELECT schema_version, compatible_since FROM schema_info")
    pair.query(1, "UPDATE schema_info SET schema_version = %s, compatible_since = %s", versions)
    pair.go_on()


# What the administrator of a managed server may need: no SUPER. docs/scaling.md lists the same.
MANAGED = (
    "SELECT, INSERT, UPDATE, DELETE, CREATE, DROP, RELOAD, PROCESS, REFERENCES, INDEX, ALTER, SHOW DATABASES,"
    " CREATE TEMPORARY TABLES, LOCK TABLES, EXECUTE, CREATE VIEW, SHOW VIEW, CREATE ROUTINE, ALTER ROUTINE,"
    " CREATE USER, EVENT, TRIGGER"
)
MANAGED_TOO = {"mysql": "SET_ANY_DEFINER, SHOW_ROUTINE", "mariadb": "SET USER, DELETE HISTORY"}


def test_an_administrator_without_super(pair: Pair) -> None:
    kind = pair.binaries.kind
    pair.query(0, "CREATE USER managed@'%%' IDENTIFIED BY 'Managed-1234567'", ())
    pair.query(0, f"GRANT {MANAGED}, {MANAGED_TOO[kind]} ON *.* TO managed@'%%' WITH GRANT OPTION", ())
    spec = ConnectionSpec("managed", "Managed-1234567", port=pair.servers[0].port, database="managed")
    pair.query(0, "SET GLOBAL log_bin_trust_function_creators = 0")
    with pytest.raises(LoadError, match="1419") as error:
        migrate.migrate(spec, owner="managed_owner")
    assert "log_bin_trust_function_creators" in error.value.hint
    pair.query(0, "SET GLOBAL log_bin_trust_function_creators = 1")
    migrate.migrate(spec, owner="managed_owner")
    accounts = pair.directory / "managed.json"
    grants.apply_grants(spec, prefix="managed_", accounts_file=accounts)
    assert validate.validate(spec, owner="managed_owner") == []
    jsm = read_accounts(accounts)["accounts"]["jsm"]
    with contextlib.closing(connect(spec.with_account(jsm["user"], jsm["password"]))) as conn:
        assert catalog.query(conn, "CALL log_heartbeat(1)")

    # group replication refuses to write a table without a primary key
    keyless = pair.query(
        0,
        "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE ="
        " 'BASE TABLE' AND TABLE_NAME NOT IN (SELECT TABLE_NAME FROM information_schema.TABLE_CONSTRAINTS"
        " WHERE TABLE_SCHEMA = DATABASE() AND CONSTRAINT_TYPE = 'PRIMARY KEY')",
    )
    assert keyless == []


def test_several_services_behind_balancers(pair: Pair) -> None:
    """Users of the client library write by either JSM, read a replica by either JQS, and see what they have
    written, while services are killed.
    """
    services = [start_service(name, pair, [0], [1]) for name in ("jsm", "jsm", "jqs", "jqs")]
    balancers = [Balancer([service.port for service in services[at : at + 2]]) for at in (0, 2)]
    problems: list[str] = []
    added: Counter[int] = Counter()
    stop = threading.Event()

    def use(user: int) -> None:
        try:
            config = load_config(
                env={"HOME": str(pair.directory), "JOBMON_RC": str(pair.directory / "jobmonrc")},
                overrides={"jsm_port": balancers[0].port, "jqs_port": balancers[1].port},
            )
            with contextlib.closing(Requester(config, patience=90)) as requester:
                dag_id = requester.post("add_task_dag", user="ann", dag_hash=f"user {user}")["dag_id"]
                while not stop.is_set():
                    number = added[user]
                    requester.post("add_job", dag_id=dag_id, name="x", job_hash=number, command="true")
                    found = len(requester.get("get_jobs", dag_id=dag_id)["job_dcts"])
                    assert found == number + 1, f"{found} of {number + 1} jobs"
                    added[user] += 1
        except Exception as error:
            problems.append(f"user {user}: {error!r}")

    users = [threading.Thread(target=use, args=(user,), daemon=True) for user in range(4)]
    try:
        for service in services:
            service.wait(seconds=90)
        for user in users:
            user.start()
        wait_until(lambda: problems or min(added[user] for user in range(4)) >= 10)
        for killed in (services[0], services[3]):
            os.killpg(killed.process.pid, signal.SIGKILL)
        so_far = added.copy()
        wait_until(lambda: problems or min(added[user] - so_far[user] for user in range(4)) >= 10)
    finally:
        stop.set()
        for user in users:
            if user.ident:
                user.join(100)
        for service in services:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(service.process.pid, signal.SIGKILL)
            service.process.wait(20)
        for balancer in balancers:
            balancer.close()
    assert problems == []
    assert all(len(balancer.taken) == 2 for balancer in balancers)


def test_under_load(pair: Pair, serve: Serve) -> None:
    """The replica's appliers work in parallel: no change is missed there; and when the primary is lost, the
    replica takes its place.
    """
    first, on_replica = serve(pair, [0, 1], [1])
    second, on_both = serve(pair, [0, 1], [1, 0])
    load = Load([first, second])
    follower = Follower([on_replica, on_both])
    load.go_on(60)
    load.finish()
    follower.finish(lambda: change_ids(pair, 0))
    pair.catch_up()
    check_ends(pair, 1, load)

    pair.servers[0].kill()
    body = {"dag_id": make_dag_of(load, pair), "name": load.name, "job_hash": "after", "command": "true"}
    refused = first.post("/add_job", body)
    # the replica is not taken for a primary as long as it is none
    assert (refused.status_code, refused.json["error"]["code"]) == (503, "DATABASE_UNAVAILABLE")
    assert on_both.get("/jobs").status_code == 200
    pair.promote()
    position = wait_until(lambda: first.post("/add_job", body).headers.get("Jobmon-Position"))
    found = on_replica.read("/jobs", min_position=position, name=load.name, limit=10_000)["jobs"]
    assert len(found) == len(load.ended) + 1
    assert pair.audits(1) == {}


def make_dag_of(load: Load, pair: Pair) -> Any:
    """The dag of one of the jobs."""
    return pair.query(1, "SELECT dag_id FROM job WHERE job_id = %s", (min(load.ended),))[0][0]
