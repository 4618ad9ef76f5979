"""Dump and restore: the rows of all tables, of one moment, in a file that any supported server takes back.

A dump has rows only. Tables come from the migrations, routines, triggers and views from the code's files,
accounts from ``jobmon db grants``: so a dump of MariaDB is restored on MySQL and the other way round, no
definer and no collation of the old server comes along, and an older dump is migrated after it was loaded.

The file is gzip (mode 0600) of lines of JSON:

    {"jobmon_dump": 1, "schema_version": 5, "jobmon": "6.0.0", "database": ..., "server": ..., "date": ...}
    {"table": "job", "columns": [...], "auto_increment": 4712}
    [1, null, ...]                                           one line for each row
    {"end": "job", "rows": 4711}
    {"end_of_dump": true, "tables": 26, "rows": 123456, "sha256": of all lines before this one}
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import os
import tempfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import IO, Any

import orjson
from pymysql.connections import Connection

from jobmon.config import fsync_dir
from jobmon.db.catalog import INTERNAL_TABLES, DatabaseError, execute, query, quote_name, read_objects
from jobmon.db.connect import ConnectionSpec, connect
from jobmon.db.load import recorded_objects
from jobmon.db.migrate import (
    DEFAULT_OWNER,
    GONE_SECONDS,
    BusyError,
    MigrateResult,
    database_of,
    ensure_owner,
    half_done,
    named_lock,
    open_run,
    read_migrations,
    refuse_newer_database,
    require_initialised,
    schema_lock,
    schema_versions,
)
from jobmon.db.prune import PRUNED_TABLES, ensure_archive_tables
from jobmon.db.rows import decode, open_snapshot, stored_columns, stream, to_line

Say = Callable[[str], None]

FORMAT = 1
# They describe the database a dump is restored into, not the one it came from.
_LEFT_OUT = INTERNAL_TABLES | {"schema_object", "schema_info"}
_INSERT_ROWS = 1000
_ARCHIVES = frozenset(f"archive_{table}" for table in PRUNED_TABLES)


class DumpError(DatabaseError):
    """A file is no dump, is damaged or incomplete, or does not fit this code."""


@dataclass
class DumpInfo:
    """What a dump says about itself, after it was read to its end.

    header: its first line. rows: number of rows by table. sha256: of its lines, in hexadecimal.
    """

    header: dict[str, Any]
    rows: dict[str, int] = field(default_factory=dict)
    sha256: str = ""

    @property
    def num_rows(self) -> int:
        """Rows of all tables."""
        return sum(self.rows.values())


# Dump


def dump(spec: ConnectionSpec, path: Path | IO[bytes], *, say: Say = lambda _: None) -> DumpInfo:
    """Write all rows of a database, as they are at one moment, while clients work.

    Only migrations are kept waiting. spec: an admin or the migrator. path: a new file, which gets its name
    when it is complete and on the disk; or an open binary stream. say: told what happens, for people.

    Raises DumpError if the file exists, BusyError while somebody migrates, NewerDatabaseError, DatabaseError
    when there is no such database, OSError, and pymysql's errors.
    """
    database = database_of(spec)
    if isinstance(path, Path) and path.exists():
        raise DumpError(f"{path} exists", "name a new file for each dump")
    # The lock is another connection's than the snapshot, which must begin when nobody migrates any more.
    lock = connect(spec.with_database(None), read_timeout=None)
    with contextlib.closing(lock):
        refuse_newer_database(lock, database)
        require_initialised(lock, database)
        with schema_lock(lock, database):
            half = half_done(lock, database)
            if half:
                raise DumpError(f"{half}: this database is not complete", "finish that first")
            with contextlib.closing(open_snapshot(spec.with_database(database))) as conn:
                if not isinstance(path, Path):
                    return _write(conn, database, path, say)
                with _new_file(path) as out:
                    return _write(conn, database, out, say)


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[IO[bytes]]:
    # mkstemp makes the file with mode 0600
    handle, part = tempfile.mkstemp(dir=path.absolute().parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        os.rename(part, path)
    except BaseException:
        os.unlink(part)
        raise
    fsync_dir(path.absolute().parent)


def _write(conn: Connection, database: str, out: IO[bytes], say: Say) -> DumpInfo:
    # MySQL would tell a counter of yesterday; MariaDB ignores the comment
    execute(conn, "SET SESSION /*!80000 information_schema_stats_expiry=0, */ time_zone='+00:00'")
    tables, others = _tables_to_dump(conn, database)
    for name in others:
        say(f"left out: the table {name} is not Jobmon's")
    versions = schema_versions(conn, database)
    assert versions is not None
    header = {
        "jobmon_dump": FORMAT,
        "schema_version": versions[0],
        "jobmon": _release(),
        "database": database,
        "server": str(conn.get_server_info()).removeprefix("5.5.5-"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    info = DumpInfo(header)
    digest = hashlib.sha256()
    with gzip.GzipFile(filename="", fileobj=out, mode="wb", compresslevel=5) as zipped:

        def write(document: Any) -> None:
            line = to_line(document)
            digest.update(line)
            zipped.write(line)

        write(header)
        for table, auto_increment in tables.items():
            columns = stored_columns(conn, database, table)
            write({"table": table, "columns": columns, "auto_increment": auto_increment})
            count = 0
            for row in stream(conn, table, columns):
                write(row)
                count += 1
            write({"end": table, "rows": count})
            info.rows[table] = count
            say(f"{table}: {count} rows")
        info.sha256 = digest.hexdigest()
        write(
            {
                "end_of_dump": True,
                "tables": len(info.rows),
                "rows": info.num_rows,
                "sha256": info.sha256,
            }
        )
    return info


def _tables_to_dump(conn: Connection, database: str) -> tuple[dict[str, int | None], list[str]]:
    """The tables with their next automatic ids, and the names of those that are not Jobmon's."""
    known = {name for kind, name in recorded_objects(conn, database) if kind == "TABLE"} | _ARCHIVES
    tables: dict[str, int | None] = {}
    others = []
    for name, auto_increment in query(
        conn,
        "SELECT TABLE_NAME, AUTO_INCREMENT FROM information_schema.TABLES"
        " WHERE TABLE_SCHEMA=%s AND TABLE_TYPE='BASE TABLE' ORDER BY TABLE_NAME",
        (database,),
    ):
        if name in known and name not in _LEFT_OUT:
            tables[name] = None if auto_increment is None else int(auto_increment)
        elif name not in _LEFT_OUT:
            others.append(name)
    return tables, others


def _release() -> str:
    try:
        return metadata.version("jobmon")
    except metadata.PackageNotFoundError:
        return "unknown"


# Reading


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with gzip.open(path, "rb") as lines:
            yield from lines
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DumpError(f"{path} is damaged or incomplete: {error}", "use another dump") from error


def _documents(path: Path) -> Iterator[tuple[bytes, Any]]:
    for number, line in enumerate(_lines(path), start=1):
        try:
            yield line, orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise DumpError(f"{path} is no dump of Jobmon: line {number} can't be read") from error


def read_dump(path: Path) -> DumpInfo:
    """Read a dump to its end and check it: form, counts, checksum.

    Raises DumpError; OSError if the file can't be read.
    """
    documents = _documents(path)
    line, header = next(documents, (b"", None))
    if not isinstance(header, dict) or "jobmon_dump" not in header:
        raise DumpError(f"{path} is no dump of Jobmon", "`jobmon db dump` makes one")
    if header["jobmon_dump"] != FORMAT:
        raise DumpError(
            f"{path} has the format {header['jobmon_dump']}, this code knows {FORMAT}",
            "use the Jobmon release that made it, or a later one",
        )
    info = DumpInfo(header)
    digest = hashlib.sha256(line)
    table, count = None, 0
    for line, document in documents:
        if isinstance(document, list):
            count += 1
        elif "table" in document and table is None:
            table, count = document["table"], 0
        elif "end" in document and document["end"] == table and document["rows"] == count:
            info.rows[str(table)] = count
            table = None
        elif document.get("end_of_dump") and table is None:
            info.sha256 = digest.hexdigest()
            right = (len(info.rows), info.num_rows, info.sha256)
            if (document["tables"], document["rows"], document["sha256"]) != right:
                raise DumpError(f"{path} is damaged: its checksum is wrong", "use another dump")
            if next(documents, None) is not None:
                raise DumpError(f"{path} is damaged: something follows its end", "use another dump")
            return info
        else:
            break
        digest.update(line)
    raise DumpError(f"{path} is damaged or incomplete: its end is missing", "use another dump")


# Restore


@dataclass
class RestoreResult:
    """What :func:`restore` did.

    info: of the dump. migrated: what was done after its rows were loaded. violations: number of rows by
    audit view, of those that are not empty.
    """

    info: DumpInfo
    migrated: MigrateResult
    violations: dict[str, int] = field(default_factory=dict)


def restore(
    spec: ConnectionSpec, path: Path, *, owner: str = DEFAULT_OWNER, say: Say = lambda _: None
) -> RestoreResult:
    """Load a dump into a database that is new or empty, and migrate it to this code's version.

    The file is checked before anything is done, the rows are counted after. Until all is done the database
    says that a restore is under way: nothing migrates it, and another restore begins anew.

    spec: an admin; its database is the one to make. owner: the account, without host, that owns the routines.
    say: told what happens, for people.

    Raises DumpError, DatabaseError if the database is not empty or a count is wrong, the errors of
    :func:`jobmon.db.migrate.migrate`, and OSError.
    """
    say(f"checking {path}")
    info = read_dump(path)
    migrations = read_migrations()
    version = int(info.header["schema_version"])
    if version > len(migrations):
        raise DumpError(
            f"{path} is newer than this code: it has schema version {version}, this code knows up to"
            f" {len(migrations)}",
            "install the Jobmon release that made it, or a later one",
        )
    result = RestoreResult(info, MigrateResult())
    with _restore_lock(spec):
        _restore(spec, path, migrations, result, owner, say)
    return result


@contextlib.contextmanager
def _restore_lock(spec: ConnectionSpec) -> Iterator[None]:
    """Two at once would each take the other's work for what an interrupted restore left."""
    database = database_of(spec)
    conn = connect(spec.with_database(None), read_timeout=None)
    name = "jobmon-restore:" + hashlib.sha256(database.encode()).hexdigest()[:40]
    busy = BusyError(f"another process restores into {database}", "wait for it")
    with contextlib.closing(conn), named_lock(conn, name, GONE_SECONDS, busy):
        yield


def _restore(
    spec: ConnectionSpec, path: Path, migrations: Any, result: RestoreResult, owner: str, say: Say
) -> None:
    database, info = database_of(spec), result.info
    version = int(info.header["schema_version"])
    with open_run(spec, create=True, say=say) as (run, _):
        conn = run.conn
        _require_empty(conn, database)
        ensure_owner(conn, database, owner)
        run.prepare()
        run.note_restore(path.name[-200:])
        run.apply_pending(migrations[:version], None, MigrateResult())
    loader = connect(
        spec.with_database(database),
        read_timeout=None,
        write_timeout=None,
        # each row was right where it came from, and they come table by table
        session={"foreign_key_checks": 0, "unique_checks": 0},
    )
    with contextlib.closing(loader):
        _load(loader, spec, path, info, say)
    with open_run(spec, create=False, say=say) as (run, _):
        run.apply_pending(migrations, None, result.migrated)
        run.load_objects(owner, None, result.migrated)
        result.violations = _violations(run.conn, database)
        run.forget_restore()


def _require_empty(conn: Connection, database: str) -> None:
    """Raises DatabaseError unless nothing is in the database, or what an interrupted restore left: that is
    dropped.
    """
    half = half_done(conn, database)
    tables = [
        name
        for (name,) in query(
            conn,
            "SELECT TABLE_NAME FROM information_schema.TABLES"
            " WHERE TABLE_SCHEMA=%s AND TABLE_TYPE='BASE TABLE'",
            (database,),
        )
    ]
    objects = list(read_objects(conn, database))
    if half and half.direction == "restore":
        execute(conn, "SET SESSION foreign_key_checks = 0")
        for kind, name in objects:
            execute(conn, f"DROP {kind} IF EXISTS {quote_name(name)}")
        # the note that says so goes last
        for name in tables:
            if name not in INTERNAL_TABLES:
                execute(conn, f"DROP TABLE {quote_name(name)}")
        for name in sorted(INTERNAL_TABLES & set(tables)):
            if name.startswith("_yoyo") or name == "yoyo_lock":
                execute(conn, f"DROP TABLE {quote_name(name)}")
        execute(conn, "SET SESSION foreign_key_checks = 1")
    elif objects or set(tables) - INTERNAL_TABLES:
        raise DatabaseError(
            f"the database {database} is not empty",
            "restore into a new one by --database NAME, or drop it before",
        )


def _load(conn: Connection, spec: ConnectionSpec, path: Path, info: DumpInfo, say: Say) -> None:
    database = database_of(spec)
    if _ARCHIVES & set(info.rows):
        ensure_archive_tables(spec)
    table, insert, rows, size = "", "", [], 0  # type: str, str, list[list[Any]], int

    def flush() -> None:
        nonlocal rows, size
        if rows:
            with conn.cursor() as cursor:
                cursor.executemany(insert, rows)
        rows, size = [], 0

    for line, document in _documents(path):
        if isinstance(document, list):
            rows.append([decode(value) for value in document])
            size += len(line)
            if len(rows) >= _INSERT_ROWS or size > 1_000_000:
                flush()
        elif "table" in document:
            table, columns = document["table"], document["columns"]
            unknown = set(columns) - set(stored_columns(conn, database, table))
            if unknown:
                raise DumpError(f"{path} has {table}.{min(unknown)}, which this code does not know")
            names = ", ".join(map(quote_name, columns))
            insert = f"INSERT INTO {quote_name(table)} ({names}) VALUES ({', '.join(['%s'] * len(columns))})"
            # rows of migrations are in the dump as well, as they were there
            execute(conn, f"DELETE FROM {quote_name(table)}")
            auto_increment = document["auto_increment"]
        elif "end" in document:
            flush()
            if auto_increment is not None:
                # ids that were given and deleted are not given again: cursors and logs would mistake them
                execute(conn, f"ALTER TABLE {quote_name(table)} AUTO_INCREMENT = {int(auto_increment)}")
            [(count,)] = query(conn, f"SELECT COUNT(*) FROM {quote_name(table)}")
            if count != document["rows"]:
                raise DatabaseError(
                    f"{table} has {count} rows after loading, the dump has {document['rows']}"
                )
            say(f"{table}: {count} rows")


def _violations(conn: Connection, database: str) -> dict[str, int]:
    found = {}
    for kind, name in read_objects(conn, database):
        if kind == "VIEW" and name.startswith("audit_"):
            [(count,)] = query(conn, f"SELECT COUNT(*) FROM {quote_name(name)}")
            if count:
                found[name] = count
    return found
