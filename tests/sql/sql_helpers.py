"""Statements as a person or a shim sends them, and rows in whatever state a test needs."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pymysql
import pytest

from jobmon.db.files import migrations_dir, sql_dir

SQL = sql_dir()
MIGRATIONS = migrations_dir()

# What every test may change: the tables that are compared before and after.
TABLES = (
    "task_dag",
    "workflow",
    "workflow_run",
    "job",
    "job_edge",
    "job_gate",
    "job_instance",
    "workflow_attribute",
    "workflow_run_attribute",
    "job_attribute",
    "job_status_log",
    "job_instance_status_log",
    "job_instance_error_log",
    "api_request",
    "notification",
    "monitor_check",
    "failing_node",
    "audit_state",
    "replication_heartbeat",
)
# A repeated report is a sign of life: these may move on, and nothing else.
LEASES = ("report_by_date", "heartbeat_date", "check_date")

JOB_STATUSES = "GQIREFD"
JOB_INSTANCE_STATUSES = "IBREDWZU"
ERRORS = "EWZU"  # those of an instance; to its job they are one
WORKFLOW_STATUSES = "CRSED"
WORKFLOW_RUN_STATUSES = "RSED"

_numbers = itertools.count(1)


def fresh(word: str = "h") -> str:
    """A text that no other row has."""
    return f"{word}{os.getpid()}-{next(_numbers)}"


@dataclass
class Facts:
    """What a database says about itself, read once."""

    errors: dict[str, int]
    parameters: dict[str, list[str]]
    access: dict[str, str] = field(default_factory=dict)

    @classmethod
    def read(cls, database: Any) -> Facts:
        """errors: errno by name; parameters: names (without in_) by procedure; access: the header's word."""
        parameters: dict[str, list[str]] = {}
        access: dict[str, str] = {}
        for name, comment in database.query(
            "SELECT ROUTINE_NAME, ROUTINE_COMMENT FROM information_schema.ROUTINES"
            " WHERE ROUTINE_SCHEMA=%s AND ROUTINE_TYPE='PROCEDURE'",
            (database.name,),
        ):
            found = re.search(r"^Access: (\w+)$", comment, re.MULTILINE)
            assert found, f"{name} does not say who may call it"
            access[name], parameters[name] = found[1], []
        for name, parameter in database.query(
            "SELECT SPECIFIC_NAME, PARAMETER_NAME FROM information_schema.PARAMETERS"
            " WHERE SPECIFIC_SCHEMA=%s AND ROUTINE_TYPE='PROCEDURE' ORDER BY SPECIFIC_NAME, ORDINAL_POSITION",
            (database.name,),
        ):
            parameters[name].append(parameter.removeprefix("in_"))
        errors = {name: errno for errno, name in database.query("SELECT errno, name FROM api_error")}
        return cls(errors, parameters, access)

    @property
    def public(self) -> list[str]:
        """The procedures that JSM serves."""
        return sorted(name for name, word in self.access.items() if word == "JSM")


class Sql:
    """One connection as a role."""

    def __init__(self, conn: Any, facts: Facts) -> None:
        self.conn = conn
        self.facts = facts

    def raw(self, sql: str, *args: Any) -> list[tuple[Any, ...]]:
        """The rows of one statement."""
        with self.conn.cursor() as cursor:
            cursor.execute(sql, args or None)
            rows = list(cursor.fetchall())
            while cursor.nextset():
                pass
            return rows

    def one(self, sql: str, *args: Any) -> Any:
        """The only value of the only row."""
        ((value,),) = self.raw(sql, *args)
        return value

    def call(self, procedure: str, /, **given: Any) -> Any:
        """CALL with parameters by name, the others NULL; the answer: one row with one document."""
        names = self.facts.parameters[procedure]
        unknown = set(given) - set(names)
        assert not unknown, f"{procedure} has no {unknown}"
        values = [
            json.dumps(value) if isinstance(value, list | dict) else value
            for value in (given.get(name) for name in names)
        ]
        with self.conn.cursor() as cursor:
            cursor.execute(f"CALL {procedure}({', '.join(['%s'] * len(values))})", values)
            assert [column[0] for column in cursor.description] == ["document"]
            rows = list(cursor.fetchall())
            while cursor.nextset():
                assert cursor.description is None, f"{procedure} gives a second result set"
        ((document,),) = rows
        return json.loads(document)

    @contextlib.contextmanager
    def refused(self, name: str, word: str = "") -> Iterator[None]:
        """What happens inside must be refused with this row of api_error, in a message with this word."""
        with pytest.raises(pymysql.err.MySQLError) as caught:
            yield
        errno, message = caught.value.args
        assert errno == self.facts.errors[name], (name, errno, message)
        if errno > 32000:
            assert message.startswith(f"{name}: "), message
            assert len(message) < 128
        assert word in message

    @contextlib.contextmanager
    def unchanged(self, ignoring: Iterable[str] = ()) -> Iterator[None]:
        """No table may differ afterwards, as this connection sees them, but for columns that are ignored."""
        if ignoring:
            before = self.snapshot(ignoring)
            yield
            assert differences(before, self.snapshot(ignoring)) == {}
        else:
            checksums = self.raw(f"CHECKSUM TABLE {', '.join(TABLES)}")
            yield
            assert self.raw(f"CHECKSUM TABLE {', '.join(TABLES)}") == checksums

    def snapshot(self, ignoring: Iterable[str] = ()) -> dict[str, list[dict[str, Any]]]:
        """All rows of all tables that a statement may change."""
        skip = set(ignoring)
        taken = {}
        for table in TABLES:
            with self.conn.cursor(pymysql.cursors.DictCursor) as cursor:
                cursor.execute(f"SELECT * FROM {table} ORDER BY 1, 2")
                taken[table] = [{k: v for k, v in row.items() if k not in skip} for row in cursor.fetchall()]
        return taken

    def history(self, job_id: int) -> str:
        """A job's states, oldest first, as letters."""
        rows = self.raw(
            "SELECT status FROM job_status_log WHERE job_id=%s ORDER BY job_status_log_id", job_id
        )
        return "".join(status for (status,) in rows)

    def instance_history(self, job_instance_id: int) -> str:
        """A job instance's states, oldest first, as letters."""
        rows = self.raw(
            "SELECT status FROM job_instance_status_log WHERE job_instance_id=%s"
            " ORDER BY job_instance_status_log_id",
            job_instance_id,
        )
        return "".join(status for (status,) in rows)

    def job(self, job_id: int) -> dict[str, Any]:
        """A job's row."""
        return self.row("job", job_id)

    def instance(self, job_instance_id: int) -> dict[str, Any]:
        """A job instance's row."""
        return self.row("job_instance", job_instance_id)

    def row(self, table: str, id_: int) -> dict[str, Any]:
        """A row by its id."""
        key = "dag_id" if table == "task_dag" else f"{table}_id"
        with self.conn.cursor(pymysql.cursors.DictCursor) as cursor:
            cursor.execute(f"SELECT * FROM {table} WHERE {key}=%s", (id_,))
            (row,) = cursor.fetchall()
        return dict(row)


def differences(before: dict[str, list[Any]], after: dict[str, list[Any]]) -> dict[str, list[Any]]:
    """What two snapshots do not share, table by table."""
    found = {}
    for table, rows in before.items():
        if rows != after[table]:
            gone = [("-", row) for row in rows if row not in after[table]]
            found[table] = gone + [("+", row) for row in after[table] if row not in rows]
    return found


# Rows in a given state, by CALLs only -------------------------------------------------------------


def make_dag(jsm: Sql, **more: Any) -> int:
    """A dag."""
    return int(
        jsm.call("add_task_dag", **{"user": "ann", "dag_hash": fresh(), "name": "sims", **more})["dag_id"]
    )


def make_job(jsm: Sql, status: str = "G", **more: Any) -> int:
    """A job of the dag ``dag_id``, else of a new one, in a status (any but E, which no job rests in).

    It gets the attempts it needs: 3, or 1 if it is to be F.
    """
    more.setdefault("max_attempts", 1 if status == "F" else 3)
    if "dag_id" not in more:
        more["dag_id"] = make_dag(jsm)
    given = {"name": "job", "job_hash": fresh(), "command": "true", **more}
    job_id = int(jsm.call("add_job", **given)["job_dct"]["job_id"])
    if status != "G":
        jsm.call("queue_job", job_id=job_id)
    if status in "IRDF":
        make_attempt(jsm, job_id, {"I": "I", "R": "R", "D": "D", "F": "E"}[status])
    return job_id


def make_attempt(jsm: Sql, job_id: int, status: str = "I", **more: Any) -> int:
    """The next instance of a queued job, in a status."""
    given = {"job_id": job_id, "executor_type": "LocalExecutor", **more}
    instance = int(jsm.call("add_job_instance", **given)["job_instance_id"])
    if status == "B":
        jsm.call("log_executor_id", job_instance_id=instance, executor_id="77")
    if status in "RDEZU":
        jsm.call("log_running", job_instance_id=instance, nodename="node1", process_group_id=11)
    if status == "D":
        jsm.call("log_done", job_instance_id=instance)
    if status in ERRORS:
        letter = {} if status == "E" else {"job_instance_status": status}
        jsm.call("log_error", job_instance_id=instance, error_message="boom", **letter)
    return instance


def make_instance(jsm: Sql, status: str = "I", **more: Any) -> tuple[int, int]:
    """A new job with one instance in a status: (job_id, job_instance_id)."""
    job_id = make_job(jsm, "Q", **more)
    return job_id, make_attempt(jsm, job_id, status)


def make_workflow(jsm: Sql, status: str = "C", **more: Any) -> int:
    """A workflow of the dag ``dag_id``, else of a new one, in a status."""
    if "dag_id" not in more:
        more["dag_id"] = make_dag(jsm)
    given = {"workflow_args": "v1", "workflow_hash": fresh(), "name": "wf", "user": "ann", **more}
    workflow_id = int(jsm.call("add_workflow", **given)["workflow_dct"]["id"])
    if status != "C":
        jsm.call("update_workflow", wf_id=workflow_id, status=status)
    return workflow_id


def make_run(jsm: Sql, status: str = "R", **more: Any) -> int:
    """A run of the workflow ``workflow_id``, else of a new one, in a status."""
    if "workflow_id" not in more:
        more["workflow_id"] = make_workflow(jsm)
    given = {"user": "ann", "hostname": "login1", "pid": 4242, **more}
    run = int(jsm.call("add_workflow_run", **given)["workflow_run_id"])
    if status != "R":
        jsm.call("update_workflow_run", wfr_id=run, status=status)
    return run


def make_submitted(jsm: Sql, dag_id: int, **more: Any) -> int:
    """A submitted run of a new workflow of a dag."""
    run = make_run(jsm, workflow_id=make_workflow(jsm, dag_id=dag_id), **more)
    assert jsm.call("submit_workflow_run", workflow_run_id=run)["num_left"] == 0
    return run


@contextlib.contextmanager
def seconds_ago(jsm: Sql, seconds: float, now: int | None = None) -> Iterator[None]:
    """What happens inside happens so long ago, by the database's clock as this connection sees it.

    now: of :func:`clock`, for times that are exactly so far apart, however long this machine is held up.
    """
    jsm.raw("SET timestamp = DEFAULT")
    since = float(jsm.one("SELECT UNIX_TIMESTAMP(NOW(6))")) if now is None else now
    jsm.raw(f"SET timestamp = {since - seconds:.6f}")
    try:
        yield
    finally:
        jsm.raw("SET timestamp = DEFAULT")


def clock(jsm: Sql) -> int:
    """The database's clock, in whole seconds: a fraction would be rounded when the clock is set."""
    return int(jsm.one("SELECT UNIX_TIMESTAMP(SYSDATE())"))


def watch(jsm: Sql, seconds: int) -> None:
    """A health monitor has watched for so long without a pause."""
    with seconds_ago(jsm, seconds):
        jsm.call("log_monitor_heartbeat", poll_seconds=seconds)
    jsm.call("log_monitor_heartbeat", poll_seconds=seconds)


def make_jobs(
    jsm: Sql, count: int, edges: Iterable[tuple[int, int]] = (), **more: Any
) -> tuple[int, list[int]]:
    """A dag with many jobs, and edges by their positions (upstream, downstream): (dag_id, job_ids)."""
    of_the_dag = ("max_concurrently_running", "priority")
    dag_id = make_dag(jsm, **{k: more.pop(k) for k in of_the_dag if k in more})
    jobs = [
        {"name": f"job{n}", "job_hash": f"{n}", "command": f"run {n}", "max_attempts": 3, **more}
        for n in range(count)
    ]
    for upstream, downstream in edges:
        jobs[downstream].setdefault("upstream_job_hashes", []).append(str(upstream))
    return dag_id, jsm.call("add_jobs", dag_id=dag_id, jobs=jobs)["job_ids"]


def statuses(admin: Sql, job_ids: Iterable[int]) -> str:
    """The states of jobs, as letters, in the order asked for."""
    return "".join(admin.job(job_id)["status"] for job_id in job_ids)


def claim(jsm: Sql, dag_id: int, **more: Any) -> list[int]:
    """Ids of the instances claimed from a dag."""
    answer = jsm.call("claim_jobs", executor_type="LocalExecutor", dag_id=dag_id, **more)
    return [made["job_instance_id"] for made in answer["job_instances"]]


def outcomes(jsm: Sql, events: list[Any]) -> list[str]:
    """The codes of log_events."""
    answer = jsm.call("log_events", events=events)["outcomes"]
    assert len(answer) == len(events)
    return [outcome["code"] for outcome in answer]


@contextlib.contextmanager
def without_triggers(admin: Sql, *names: str) -> Iterator[None]:
    """Triggers are away inside, and as they were afterwards. For throw-away databases only."""
    texts = [admin.raw(f"SHOW CREATE TRIGGER {name}")[0] for name in names]
    for name in names:
        admin.raw(f"DROP TRIGGER {name}")
    try:
        yield
    finally:
        for text in texts:
            admin.raw(text[2])


def sql_files() -> list[Path]:
    """Every file of sql/ and migrations/."""
    return sorted([*SQL.glob("*/*.sql"), *MIGRATIONS.glob("*.sql")])
