"""Many real connections that act at once, and what they were answered."""

from __future__ import annotations

import contextlib
import functools
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import pymysql
from pymysql.connections import Connection
from waiting import until

from jobmon.db.connect import ConnectionSpec, call_with_retry, connect, errno_of

# Errors that a client repeats its call after; they are counted, so that a test can ask how many there were.
TRANSIENT = {1205: "lock wait timeout", 1213: "deadlock"}


class Refused(Exception):  # noqa: N818
    """A call was refused by name.

    name: the error's name in api_error. http_status: what HTTP makes of it. message: the words.
    """

    def __init__(self, name: str, http_status: int, message: str) -> None:
        super().__init__(f"{name} ({http_status}): {message}")
        self.name, self.http_status = name, http_status


class Database:
    """What is needed to call the procedures of a database by the names of their parameters.

    database: a Database of tests/conftest.py, or anything that has ``admin`` and ``spec(role)``.
    """

    def __init__(self, database: Any) -> None:
        self.database = database
        self.retries: Counter[str] = Counter()
        self.calls = 0
        self.connections: list[Connection] = []
        self._lock = threading.Lock()
        with contextlib.closing(connect(database.admin)) as conn, conn.cursor() as cursor:
            cursor.execute("SELECT errno, name, http_status FROM api_error")
            self.errors = {int(errno): (str(name), int(status)) for errno, name, status in cursor.fetchall()}
            cursor.execute(
                "SELECT SPECIFIC_NAME, PARAMETER_NAME FROM information_schema.PARAMETERS"
                " WHERE SPECIFIC_SCHEMA = DATABASE() AND ROUTINE_TYPE = 'PROCEDURE' ORDER BY ORDINAL_POSITION"
            )
            self.parameters: dict[str, list[str]] = {}
            for name, parameter in cursor.fetchall():
                self.parameters.setdefault(name, []).append(parameter.removeprefix("in_"))

    def spec(self, role: str = "jsm") -> ConnectionSpec:
        """Where and as whom to connect."""
        spec: ConnectionSpec = self.database.spec(role)
        return spec

    def connect(self, role: str = "jsm", **kw: Any) -> Connection:
        """A connection that does not wait for a lock for ever."""
        conn = connect(self.spec(role), session={"innodb_lock_wait_timeout": 20}, **kw)
        self.connections.append(conn)
        return conn

    def close(self) -> None:
        """Close the connections; those of a failed test would hold its locks."""
        while self.connections:
            with contextlib.suppress(Exception):
                self.connections.pop().close()

    def once(self, conn: Connection, procedure: str, **arguments: Any) -> Any:
        """CALL a procedure one time; gives its document.

        Raises Refused for an error that api_error names, pymysql.err.MySQLError for any other.
        """
        known = self.parameters.get(procedure, [])  # some have none
        if unknown := set(arguments) - set(known):
            raise TypeError(f"{procedure} has no parameter {unknown}")
        values = [arguments.get(name) for name in known]
        values = [json.dumps(value) if isinstance(value, list) else value for value in values]
        marks = ", ".join(["%s"] * len(values))
        try:
            with conn.cursor() as cursor:
                cursor.execute(f"CALL {procedure}({marks})", values)
                rows = cursor.fetchall()
                while cursor.nextset():
                    pass
        except pymysql.err.MySQLError as error:
            if errno_of(error) in self.errors:
                raise Refused(*self.errors[errno_of(error) or 0], str(error.args[1])) from error
            raise
        return json.loads(rows[0][0])

    def call(self, conn: Connection, procedure: str, **arguments: Any) -> Any:
        """As :meth:`once`, repeated after a deadlock or a lock wait timeout as every client of ours does."""
        with self._lock:
            self.calls += 1
        return call_with_retry(
            lambda: self.once(conn, procedure, **arguments),
            on_retry=lambda error, _: self.count(error),
            retryable=lambda error: errno_of(error) in TRANSIENT,
        )

    def count(self, error: BaseException) -> None:
        """Count an error after which a call was repeated."""
        with self._lock:
            self.retries[TRANSIENT.get(errno_of(error) or 0, repr(error))] += 1

    def query(self, sql: str, *arguments: Any) -> list[tuple[Any, ...]]:
        """The rows of a statement, as admin on a connection of its own."""
        with contextlib.closing(connect(self.database.admin)) as conn, conn.cursor() as cursor:
            cursor.execute(sql, arguments)
            return list(cursor.fetchall())

    def value(self, sql: str, *arguments: Any) -> Any:
        """The first column of the first row."""
        return self.query(sql, *arguments)[0][0]

    def violations(self) -> dict[str, Any]:
        """The rows of the audit views."""
        found = {}
        for (view,) in self.query(
            "SELECT TABLE_NAME FROM information_schema.VIEWS"
            " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME LIKE 'audit\\_%%'"
        ):
            if rows := self.query(f"SELECT * FROM {view}"):
                found[view] = rows
        return found


@dataclass
class Outcome:
    """What one call of several at once was answered: a document, or the name of the error."""

    document: Any = None
    refusal: Refused | None = None

    @property
    def accepted(self) -> bool:
        """Whether it was not refused."""
        return self.refusal is None

    @property
    def error(self) -> str | None:
        """The name of the error."""
        return self.refusal.name if self.refusal else None


@dataclass
class Team:
    """Connections that act at once, each in a thread of its own."""

    db: Database
    size: int
    role: str = "jsm"
    connections: list[Connection] = field(default_factory=list)

    def __enter__(self) -> Team:
        self.connections = [self.db.connect(self.role) for _ in range(self.size)]
        self.threads = ThreadPoolExecutor(self.size)
        return self

    def __exit__(self, *_: object) -> None:
        self.threads.shutdown()

    def each(self, *works: Callable[[Connection], Any]) -> list[Any]:
        """Let each do its work on its own connection, all starting together; gives their results in order."""
        assert len(works) <= self.size
        barrier = threading.Barrier(len(works))

        def run(work: Callable[[Connection], Any], conn: Connection) -> Any:
            barrier.wait(60)
            return work(conn)

        futures = [self.threads.submit(run, *pair) for pair in zip(works, self.connections, strict=False)]
        return [future.result(180) for future in futures]

    def race(self, *calls: tuple[str, dict[str, Any]]) -> list[Outcome]:
        """Call procedures at once, one on each connection; gives the outcomes in order.

        Every second time one of them is held back for a moment, so that none is always the first.
        """

        def work(procedure: str, arguments: dict[str, Any]) -> Callable[[Connection], Outcome]:
            handicap = random.choice((0.0, random.uniform(0, 0.004)))

            def call(conn: Connection) -> Outcome:
                time.sleep(handicap)
                return attempt(self.db, conn, procedure, **arguments)

            return call

        return self.each(*(work(*call) for call in calls))

    def all(self, procedure: str, **arguments: Any) -> list[Outcome]:
        """Make the same call at once on every connection."""
        return self.race(*[(procedure, arguments)] * self.size)


def attempt(db: Database, conn: Connection, procedure: str, **arguments: Any) -> Outcome:
    """A call and its outcome; a refusal must be one that tells the caller (4xx), not a 5xx."""
    try:
        return Outcome(db.call(conn, procedure, **arguments))
    except Refused as refusal:
        assert 400 <= refusal.http_status < 500, refusal
        return Outcome(refusal=refusal)


def rounds(count: int, seen: Sized) -> Iterator[int]:
    """So many rounds of a race, and more until both outcomes were seen.

    On a busy machine it may be the same one that comes first for long.
    """
    for number in range(20 * count):
        if number >= count and len(seen) > 1:
            return
        yield number


# What the tests begin with


def make_dag(db: Database, conn: Connection, limit: int | None = None) -> int:
    """A new dag."""
    document = db.call(conn, "add_task_dag", user="ann", dag_hash="race", max_concurrently_running=limit)
    return int(document["dag_id"])


def jobs_of(count: int, *, max_attempts: int = 3, prefix: str = "j") -> list[dict[str, Any]]:
    """The items of add_jobs for jobs without edges."""
    return [
        {"name": f"{prefix}{n}", "job_hash": f"{prefix}{n}", "command": "true", "max_attempts": max_attempts}
        for n in range(count)
    ]


def make_jobs(db: Database, conn: Connection, dag_id: int, count: int, **kw: Any) -> list[int]:
    """Jobs in G."""
    return list(db.call(conn, "add_jobs", dag_id=dag_id, jobs=jobs_of(count, **kw))["job_ids"])


def submit(db: Database, conn: Connection, dag_id: int) -> dict[str, int]:
    """A submitted run of a new workflow of a dag: its workflow_id and workflow_run_id."""
    workflow = {"workflow_args": "", "workflow_hash": f"of {dag_id}", "name": "w", "user": "ann"}
    workflow_id = db.call(conn, "add_workflow", dag_id=dag_id, **workflow)["workflow_dct"]["id"]
    run = {"user": "ann", "hostname": "login1", "pid": 4242}
    run_id = db.call(conn, "add_workflow_run", workflow_id=workflow_id, **run)["workflow_run_id"]
    assert db.call(conn, "submit_workflow_run", workflow_run_id=run_id)["num_left"] == 0
    return {"workflow_id": workflow_id, "workflow_run_id": run_id}


def make_queued(
    db: Database, conn: Connection, count: int, dag_id: int | None = None, **kw: Any
) -> list[int]:
    """Jobs in Q, of a new dag if none is given."""
    dag_id = dag_id or make_dag(db, conn)
    ids = make_jobs(db, conn, dag_id, count, **kw)
    db.call(conn, "queue_jobs", dag_id=dag_id, job_ids=ids)
    return ids


def make_live(
    db: Database, conn: Connection, count: int, status: str = "R", lease: int = 600, **kw: Any
) -> dict[int, int]:
    """Jobs with live instances in I, B or R: job id -> instance id."""
    ids = make_queued(db, conn, count, **kw)
    dag_id = db.value("SELECT dag_id FROM job WHERE job_id = %s", ids[0])
    instances: dict[int, int] = {}
    while len(instances) < count:
        claimed = db.call(
            conn, "claim_jobs", executor_type="Race", dag_id=dag_id, max_jobs=1000, lease_seconds=lease
        )["job_instances"]
        assert claimed
        instances |= {one["job_id"]: one["job_instance_id"] for one in claimed}
    if status in "BR":
        event = {"event": "running"} if status == "R" else {"event": "executor_id", "executor_id": "1"}
        report(db, conn, [{**event, "job_instance_id": one} for one in instances.values()])
    return instances


def report(db: Database, conn: Connection, events: Sequence[dict[str, Any]]) -> list[str]:
    """log_events; gives the code of each event's outcome."""
    document = db.call(conn, "log_events", events=list(events))
    return [outcome["code"] for outcome in document["outcomes"]]


def live_rounds(
    db: Database, conn: Connection, count: int, seen: Sized, **kw: Any
) -> Iterator[tuple[int, int]]:
    """A job with a live instance for each of :func:`rounds`: (job id, instance id)."""
    for _ in rounds(count // 10, seen):
        yield from make_live(db, conn, 10, **kw).items()


def instance_history(db: Database, job_instance_id: int) -> list[str]:
    """The statuses that an instance had."""
    rows = db.query(
        "SELECT status FROM job_instance_status_log WHERE job_instance_id = %s"
        " ORDER BY job_instance_status_log_id",
        job_instance_id,
    )
    return [status for (status,) in rows]


def job_history(db: Database, job_id: int) -> str:
    """The statuses that a job had, as one word."""
    rows = db.query("SELECT status FROM job_status_log WHERE job_id = %s ORDER BY job_status_log_id", job_id)
    return "".join(status for (status,) in rows)


def shuffled(items: Iterable[Any], seed: int) -> list[Any]:
    """The items in another order."""
    mixed = list(items)
    random.Random(seed).shuffle(mixed)
    return mixed


# Not faster: InnoDB's tables show an old picture to whoever looks again within 100 ms.
wait_until = functools.partial(until, pause=0.15)


def wait_for_lock_waits(db: Database, connections: Iterable[Connection]) -> None:
    """Wait until each of these connections waits for a lock."""
    ids = [conn.thread_id() for conn in connections]  # type: ignore[no-untyped-call]
    marks = ", ".join(["%s"] * len(ids))
    sql = (
        "SELECT COUNT(*) FROM information_schema.INNODB_TRX"
        f" WHERE trx_state = 'LOCK WAIT' AND trx_mysql_thread_id IN ({marks})"
    )
    wait_until(lambda: db.value(sql, *ids) == len(ids))
