"""Pruning: finished workflows that are old enough are deleted, in small transactions, beside what runs.

What may be deleted, and in which order, is decided in the database: ``start_prune`` marks a dag under its
locks, ``prune_dag`` deletes a part of it. This module only calls them until all is done. Killed at any
moment, it leaves a marked dag, of which nothing can be started, and the next run goes on with it.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pymysql.connections import Connection
from pymysql.err import MySQLError

from jobmon.config import fsync_dir
from jobmon.db.catalog import DatabaseError, execute, query, quote_name, read_tables, table_exists
from jobmon.db.connect import ConnectionSpec, call_with_retry, connect, is_lost_connection
from jobmon.db.load import record_objects
from jobmon.db.migrate import (
    GONE_SECONDS,
    BusyError,
    database_of,
    read_migrations,
    refuse_newer_database,
    require_initialised,
    schema_lock,
    schema_versions,
)
from jobmon.db.rows import open_snapshot, stored_columns, stream, to_line

Say = Callable[[str], None]

STATUSES = {"DONE": "D", "ERROR": "E", "STOPPED": "S", "CREATED": "C"}
REQUEST_SECONDS = 86_400  # for so long the answer to a call with a request_key is kept

# Every table that pruning deletes from, and how its rows belong to a dag (what follows FROM table). They are
# written to an archive in this order.
_OF_JOB = "JOIN job ON job.job_id = {table}.job_id WHERE job.dag_id = %s"
_OF_INSTANCE = (
    "JOIN job_instance ON job_instance.job_instance_id = {table}.job_instance_id"
    " JOIN job ON job.job_id = job_instance.job_id WHERE job.dag_id = %s"
)
_OF_WORKFLOW = "JOIN workflow ON workflow.workflow_id = {table}.workflow_id WHERE workflow.dag_id = %s"
PRUNED_TABLES = {
    "task_dag": "WHERE dag_id = %s",
    "workflow": "WHERE dag_id = %s",
    "workflow_attribute": _OF_WORKFLOW,
    "workflow_run": _OF_WORKFLOW,
    "workflow_run_attribute": (
        "JOIN workflow_run ON workflow_run.workflow_run_id = workflow_run_attribute.workflow_run_id"
        " JOIN workflow ON workflow.workflow_id = workflow_run.workflow_id WHERE workflow.dag_id = %s"
    ),
    "job": "WHERE dag_id = %s",
    "job_attribute": _OF_JOB,
    "job_edge": "JOIN job ON job.job_id = job_edge.downstream_job_id WHERE job.dag_id = %s",
    "job_gate": _OF_JOB,
    "job_instance": _OF_JOB,
    "job_status_log": _OF_JOB,
    "job_instance_status_log": _OF_INSTANCE,
    "job_instance_error_log": _OF_INSTANCE,
}


@dataclass
class PruneResult:
    """What :func:`prune` did, or with dry_run would do.

    num_dags, num_jobs: deleted. num_rows: of all tables. num_requests, num_notifications: forgotten.
    left: (dag_id, why) of those that were left though they had been found.
    """

    num_dags: int = 0
    num_jobs: int = 0
    num_rows: int = 0
    num_requests: int = 0
    num_notifications: int = 0
    left: list[tuple[int, str]] = field(default_factory=list)


class _Database:
    """Calls procedures, each again after what goes away, on a new connection if this one was lost."""

    def __init__(self, spec: ConnectionSpec) -> None:
        self.spec = spec.with_database(database_of(spec))
        self.conn = self._open()

    def _open(self) -> Connection:
        # The lock goes with the connection, so that nobody waits for one who was killed.
        conn = connect(self.spec, read_timeout=None)
        try:
            [(got,)] = query(
                conn,
                "SELECT GET_LOCK(CONCAT('jobmon-prune:', LEFT(SHA2(DATABASE(), 256), 40)), %s)",
                (GONE_SECONDS,),
            )
            if not got:
                raise BusyError(f"another process prunes {self.spec.database}", "wait for it")
        except BaseException:
            conn.close()
            raise
        return conn

    def call(self, procedure: str, *args: Any) -> Any:
        def once() -> Any:
            if not self.conn.open:
                self.conn = self._open()
            try:
                with self.conn.cursor() as cursor:
                    cursor.execute(f"CALL {procedure}({', '.join(['%s'] * len(args))})", args)
                    rows = cursor.fetchall()
                    while cursor.nextset():
                        pass
            except Exception as error:
                if is_lost_connection(error):
                    self.conn.close()
                raise
            return json.loads(rows[0][0])

        return call_with_retry(once)

    def close(self) -> None:
        if self.conn.open:
            # the next one need not wait until the server has ended the connection
            with contextlib.suppress(MySQLError):
                query(self.conn, "SELECT RELEASE_ALL_LOCKS()")
            self.conn.close()


class ArchiveFile:
    """A new file (gzip, mode 0600) of JSON lines ``{"table": ..., "row": {...}}``.

    Each :meth:`part` is a gzip member of its own and is on the disk when it is left. What a crash leaves
    incomplete is the last part, of which nothing has been deleted then.

    Raises DatabaseError if the file exists.
    """

    def __init__(self, path: Path) -> None:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        except FileExistsError:
            raise DatabaseError(f"{path} exists", "name a new file for each archive") from None
        self.path = path
        self._file = os.fdopen(handle, "wb")
        fsync_dir(path.absolute().parent)

    @contextlib.contextmanager
    def part(self) -> Iterator[Callable[[bytes], Any]]:
        """Gives what writes lines; they are on the disk afterwards."""
        with gzip.GzipFile(filename="", fileobj=self._file, mode="wb", compresslevel=6) as member:
            yield member.write
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close it; without a part it goes away."""
        empty = self._file.tell() == 0
        self._file.close()
        if empty:
            self.path.unlink()


def prune(
    spec: ConnectionSpec,
    *,
    older_than: float,
    statuses: str = "D",
    archive: str | None = None,
    batch_rows: int = 1000,
    pause: float = 0.0,
    request_seconds: float = REQUEST_SECONDS,
    dry_run: bool = False,
    say: Say = lambda _: None,
) -> PruneResult:
    """Delete the workflows (and dags and jobs without one) that came to rest long ago, and old requests.

    spec: an admin or the migrator. older_than: seconds since they came to rest. statuses: letters of
    workflow_status, of D, E, S and C. archive: ``"tables"`` copies the rows to the tables ``archive_...`` as
    they are deleted; the name of a new file has them written there before; None: they are lost. batch_rows:
    about so many rows in one transaction. pause: seconds between transactions. request_seconds: answers to
    calls with a request_key are kept for so long, at least 3600. dry_run: count and change nothing. say: told
    what happens, for people.

    Raises BusyError while another process prunes this database, NewerDatabaseError, DatabaseError when the
    database has no such tables yet or the file exists, and pymysql's errors.
    """
    database = _Database(spec)
    try:
        _require_current(database.conn, database_of(spec))
        if dry_run:
            return _dry_run(database, older_than, statuses, request_seconds, say)
        work = _Prune(database, int(older_than), statuses, archive, batch_rows, pause, say)
        try:
            work.dags()
            work.jobs()
            work.repeat("num_requests", "forget_requests", int(request_seconds), batch_rows)
            work.repeat("num_notifications", "forget_notifications", int(older_than), batch_rows)
        finally:
            if work.file is not None:
                work.file.close()
        return work.result
    finally:
        database.close()


def _require_current(conn: Connection, name: str) -> None:
    refuse_newer_database(conn, name)
    require_initialised(conn, name)
    versions = schema_versions(conn, name)
    if versions is None or versions[0] < len(read_migrations()):
        raise DatabaseError(f"the database {name} is older than this code", "run `jobmon db migrate` first")


def _pages(database: _Database, older_than: int, statuses: str) -> Iterator[dict[str, Any]]:
    after = 0
    while dags := database.call("find_prunable_dags", older_than, statuses, after, 100)["dags"]:
        yield from dags
        after = dags[-1]["dag_id"]


def _dry_run(
    database: _Database, older_than: float, statuses: str, request_seconds: float, say: Say
) -> PruneResult:
    result = PruneResult()
    for dag in _pages(database, int(older_than), statuses):
        say(f"would prune {_name(dag)}: {dag['num_jobs']} jobs")
        result.num_dags += 1
        result.num_jobs += dag["num_jobs"]
    before: int | None = None
    while ids := database.call("find_prunable_jobs", int(older_than), statuses, before, 1000)["job_ids"]:
        result.num_jobs += len(ids)
        before = ids[-1]
    [(result.num_requests,)] = query(
        database.conn,
        "SELECT COUNT(*) FROM api_request WHERE created_date < UTC_TIMESTAMP(6) - INTERVAL %s SECOND",
        (int(request_seconds),),
    )
    [(result.num_notifications,)] = query(
        database.conn,
        "SELECT COUNT(*) FROM notification WHERE sent_date < UTC_TIMESTAMP(6) - INTERVAL %s SECOND",
        (int(older_than),),
    )
    return result


def _name(dag: dict[str, Any]) -> str:
    return f"dag {dag['dag_id']} ({dag['name'] or 'without a name'}, {dag['user']})"


class _Prune:
    """One run."""

    def __init__(
        self,
        database: _Database,
        older_than: int,
        statuses: str,
        archive: str | None,
        batch_rows: int,
        pause: float,
        say: Say,
    ) -> None:
        self.database = database
        self.older_than = older_than
        self.statuses = statuses
        self.batch_rows = batch_rows
        self.pause = pause
        self.say = say
        self.result = PruneResult()
        self.to_tables = archive == "tables"
        self.file = None if archive in (None, "tables") else ArchiveFile(Path(str(archive)))
        if self.to_tables:
            ensure_archive_tables(database.spec)

    def dags(self) -> None:
        for dag in _pages(self.database, self.older_than, self.statuses):
            dag_id = dag["dag_id"]
            start = self.database.call("start_prune", dag_id, self.older_than, self.statuses)
            if not start["started"]:
                self._leave(dag_id, start["reason"])
                continue
            if self.file is not None and not start["archived"]:
                self._write_dag(dag_id)
            before = self.result.num_rows, self.result.num_jobs
            if self._delete_dag(dag_id):
                self.result.num_dags += 1
                rows, jobs = self.result.num_rows - before[0], self.result.num_jobs - before[1]
                self.say(f"pruned {_name(dag)}: {jobs} jobs, {rows} rows")

    def _leave(self, dag_id: int, why: str) -> None:
        self.result.left.append((dag_id, why))
        self.say(f"left dag {dag_id}: {why}")

    def _delete_dag(self, dag_id: int) -> bool:
        while True:
            done = self.database.call("prune_dag", dag_id, self.batch_rows, self.to_tables)
            self.result.num_rows += done["num_rows"]
            self.result.num_jobs += done["num_jobs"]
            if done["live_job_id"] is not None:
                self._leave(dag_id, f"job {done['live_job_id']} is live; the next run goes on")
                return False
            if done["ended"]:
                return True
            time.sleep(self.pause)

    def _write_dag(self, dag_id: int) -> None:
        assert self.file is not None
        with contextlib.closing(open_snapshot(self.database.spec)) as conn, self.file.part() as write:
            for table, source in PRUNED_TABLES.items():
                _write(conn, self.database.spec, table, source.format(table=table), (dag_id,), write)
        # What it says holds from here on, whoever goes on: nothing of a marked dag is changed any more.
        execute(
            self.database.conn,
            "UPDATE pruned_dag SET archived_date = UTC_TIMESTAMP(6) WHERE dag_id = %s",
            (dag_id,),
        )

    def jobs(self) -> None:
        """The jobs without a dag; in another round those whose downstream jobs are gone."""
        while self._round_of_jobs():
            pass

    def _round_of_jobs(self) -> bool:
        """Whether another round may find more."""
        before: int | None = None
        deleted = kept = 0
        find = lambda: self.database.call(  # noqa: E731
            "find_prunable_jobs", self.older_than, self.statuses, before, max(self.batch_rows // 13, 1)
        )["job_ids"]
        while ids := find():
            if self.file is not None:
                self._write_jobs(ids)
            done = self.database.call(
                "prune_jobs", json.dumps(ids), self.older_than, self.statuses, self.batch_rows, self.to_tables
            )
            self.result.num_rows += done["num_rows"]
            self.result.num_jobs += len(done["job_ids"])
            deleted += done["num_rows"]
            kept += len(ids) - len(done["job_ids"])
            before = ids[-1]
            time.sleep(self.pause)
        return bool(deleted and kept)

    def _write_jobs(self, ids: list[int]) -> None:
        assert self.file is not None
        marks = ", ".join(["%s"] * len(ids))
        with contextlib.closing(open_snapshot(self.database.spec)) as conn, self.file.part() as write:
            for table, source in PRUNED_TABLES.items():
                if "job.dag_id = %s" in source or table == "job":
                    of_these = (
                        source.format(table=table).partition("WHERE")[0] + f"WHERE job.job_id IN ({marks})"
                    )
                    _write(conn, self.database.spec, table, of_these, ids, write)

    def repeat(self, counter: str, procedure: str, *args: Any) -> None:
        """Call what forgets in batches until a batch is not full."""
        while True:
            num_rows = self.database.call(procedure, *args)["num_rows"]
            setattr(self.result, counter, getattr(self.result, counter) + num_rows)
            if num_rows < min(self.batch_rows, 10_000):
                return
            time.sleep(self.pause)


def _write(
    conn: Connection, spec: ConnectionSpec, table: str, source: str, args: Any, write: Callable[[bytes], Any]
) -> None:
    columns = stored_columns(conn, database_of(spec), table)
    for row in stream(conn, table, columns, source, args):
        write(to_line({"table": table, "row": dict(zip(columns, row, strict=True))}))


# Archive tables


def _column_lines(conn: Connection, table: str) -> dict[str, str]:
    """The definition of each column, as SHOW CREATE TABLE writes it, with where it stands."""
    text = query(conn, f"SHOW CREATE TABLE {quote_name(table)}")[0][1]
    found = {}
    for line in text.splitlines():
        match = re.match(r"\s+`((?:[^`]|``)+)` (.+?),?$", line)
        if match:
            found[match[1].replace("``", "`")] = match[2]
    return found


def _is_archive(conn: Connection, database: str, table: str) -> bool:
    [(comment,)] = query(
        conn,
        "SELECT TABLE_COMMENT FROM information_schema.TABLES WHERE TABLE_SCHEMA=%s AND TABLE_NAME=%s",
        (database, table),
    )
    return str(comment).endswith("that were pruned")


def ensure_archive_tables(spec: ConnectionSpec) -> None:
    """Make the tables ``archive_...``, or give them the columns that migrations have added since.

    They have the columns of the tables they are named after and no unique key but the primary one, since the
    same workflow may be pruned and made anew. They are recorded, so that ``jobmon db validate`` knows them.
    """
    database = database_of(spec)
    conn = connect(spec.with_database(database), read_timeout=None)
    with contextlib.closing(conn), schema_lock(conn, database):
        changed = False
        for table in PRUNED_TABLES:
            archive = f"archive_{table}"
            if not table_exists(conn, database, archive):
                execute(conn, f"CREATE TABLE {archive} LIKE {table}")
            # found by looking, so that a crash in between is made up for
            changes = []
            unique: dict[str, list[str]] = {}
            for _, non_unique, key, _, column in (
                row[:5] for row in query(conn, f"SHOW INDEX FROM {archive} WHERE Key_name <> 'PRIMARY'")
            ):
                if not int(non_unique):
                    unique.setdefault(quote_name(key), []).append(quote_name(column))
            for index, columns in unique.items():
                changes += [f"DROP INDEX {index}", f"ADD INDEX {index} ({', '.join(columns)})"]
            have = _column_lines(conn, archive)
            for column, line in _column_lines(conn, table).items():
                if have.get(column) != line:
                    verb = "MODIFY" if column in have else "ADD"
                    changes.append(f"{verb} COLUMN {quote_name(column)} {line}")
            if changes or not _is_archive(conn, database, archive):
                comment = f"COMMENT = 'Rows of {table} that were pruned'"
                execute(conn, f"ALTER TABLE {archive} {', '.join([*changes, comment])}")
                changed = True
        if changed:
            rows = [
                ("TABLE", table.name, "", table.checksum)
                for table in read_tables(conn, database)
                if table.name.startswith("archive_")
            ]
            record_objects(conn, database, rows)
