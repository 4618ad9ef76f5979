"""jobmon db dump and restore: all comes back, wherever it is restored; nothing half is taken for whole."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest
from click.testing import CliRunner

from jobmon.cli import main
from jobmon.db import dump as dumping
from jobmon.db import validate
from jobmon.db.catalog import DatabaseError, execute, query
from jobmon.db.connect import ConnectionSpec, connect
from jobmon.db.dump import DumpError, dump, read_dump, restore
from jobmon.db.migrate import BusyError, migrate, rollback
from jobmon.db.prune import prune

HISTORY_TABLES = ("job_status_log", "job_instance_status_log", "job_instance_error_log")


def call(conn: Any, procedure: str, *args: Any) -> Any:
    with conn.cursor() as cursor:
        cursor.execute(f"CALL {procedure}({', '.join(['%s'] * len(args))})", args)
        document = cursor.fetchone()[0]
        while cursor.nextset():
            pass
    return json.loads(document)


def add_dag(conn: Any, count: int) -> int:
    """A dag with queued jobs, whose texts are hard to carry."""
    dag_id = call(conn, "add_task_dag", None, "ann\\'\"", "żółw 🐢\n", None, None, None, None)["dag_id"]
    jobs = [
        {"name": f"j{n}", "job_hash": str(n), "command": "a\\nb\t'\"%s%%\r\n\x1a 🐢"} for n in range(count)
    ]
    call(conn, "add_jobs", dag_id, json.dumps(jobs))
    call(conn, "queue_jobs", dag_id, None, None)
    return int(dag_id)


def work_off(conn: Any, dag_id: int, max_jobs: int = 1000) -> Iterator[list[int]]:
    """Claims and ends jobs; gives the ids of each claim once they are DONE."""
    while claimed := call(conn, "claim_jobs", "X", dag_id, max_jobs, None, None, None)["job_instances"]:
        for event in ("running", "done"):
            events = [{"event": event, "job_instance_id": one["job_instance_id"]} for one in claimed]
            call(conn, "log_events", json.dumps(events))
        yield [one["job_id"] for one in claimed]


def contents(spec: ConnectionSpec) -> dict[str, Any]:
    """All rows of all tables, the generated columns too, and where the automatic ids stand."""
    with contextlib.closing(connect(spec)) as conn:
        execute(conn, "SET SESSION /*!80000 information_schema_stats_expiry=0, */ time_zone='+00:00'")
        tables = query(
            conn,
            "SELECT TABLE_NAME, AUTO_INCREMENT FROM information_schema.TABLES"
            " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'BASE TABLE' ORDER BY 1",
        )
        return {
            name: (auto_increment, sorted(query(conn, f"SELECT * FROM `{name}`"), key=repr))
            for name, auto_increment in tables
            if name not in dumping._LEFT_OUT
        }


@pytest.fixture
def target(make_database: Callable[..., Any], new_database: Callable[..., Any]) -> Any:
    """A database that does not exist yet."""
    return make_database()


@pytest.fixture
def filled(db: Any) -> Any:
    """The shared database with a bit of everything."""
    conn = db.connect("jsm")
    for _ in work_off(conn, add_dag(conn, 20)):
        pass
    add_dag(conn, 3)
    with contextlib.closing(connect(db.admin)) as admin:
        execute(admin, "INSERT INTO api_request (request_key, procedure_name) VALUES ('k', 'p')")
        # ids that were given and deleted
        execute(admin, "INSERT INTO notification (message) VALUES ('a'), ('b')")
        execute(admin, "DELETE FROM notification WHERE message = 'b'")
        execute(admin, "INSERT INTO job_attribute_type VALUES (999, 'OUR_OWN', 'string')")
    yield db
    with contextlib.closing(connect(db.admin)) as admin:
        execute(admin, "DELETE FROM job_attribute_type WHERE attribute_type = 999")


def test_everything_comes_back(filled: Any, target: Any, tmp_path: Path) -> None:
    path = tmp_path / "dump.gz"
    info = dump(filled.spec("migrator"), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    assert read_dump(path) == info
    said: list[str] = []
    result = restore(target.admin, path, owner=target.owner, say=said.append)
    assert "job: 23 rows" in said
    assert contents(target.admin) == contents(filled.admin)
    assert (result.violations, target.audits()) == ({}, {})
    assert validate.validate(target.admin, owner=target.owner) == []
    target.grant()
    # work goes on, by the rules, with the ids that would have come there
    conn = target.connect("jsm")
    dag_id = add_dag(conn, 2)
    assert sum(len(ids) for ids in work_off(conn, dag_id)) == 2
    assert dag_id == add_dag(filled.connect("jsm"), 2) and target.audits() == {}
    with pytest.raises(DatabaseError, match="is not empty"):
        restore(target.admin, path, owner=target.owner)
    with pytest.raises(DumpError, match="exists"):
        dump(filled.spec("migrator"), path)


def test_dump_under_load(db: Any, target: Any, tmp_path: Path) -> None:
    """What was DONE before the dump began is in it, and what is in it is one moment: the audits are empty."""
    done: list[int] = []
    began, stop = threading.Event(), threading.Event()

    def works() -> None:
        conn = db.connect("jsm")
        while not stop.is_set():
            for ids in work_off(conn, add_dag(conn, 40), max_jobs=4):
                done.extend(ids)
                if len(done) > 80:
                    began.set()
                if stop.is_set():
                    break

    threads = [threading.Thread(target=works) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        assert began.wait(120)
        before = set(done)
        dump(db.spec("migrator"), tmp_path / "dump.gz")
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)
    result = restore(target.admin, tmp_path / "dump.gz", owner=target.owner)
    assert result.violations == {}
    found = {job_id for (job_id,) in target.query("SELECT job_id FROM job WHERE status = 'D'")}
    assert before <= found
    for table in HISTORY_TABLES[:2]:
        assert target.query(f"SELECT COUNT(*) FROM {table}")[0][0] >= 3 * len(before)


def test_from_one_product_to_the_other(filled: Any, tmp_path: Path) -> None:
    """To a server of the other product, named by JOBMON_TEST_OTHER_DB_URL."""
    url = os.environ.get("JOBMON_TEST_OTHER_DB_URL")
    if not url:
        pytest.skip("JOBMON_TEST_OTHER_DB_URL names no server of the other product")
    spec = ConnectionSpec.parse(url).with_database(f"{filled.name}_other")
    owner = f"o{filled.owner}"[:30]
    dump(filled.spec("migrator"), tmp_path / "dump.gz")
    with contextlib.closing(connect(spec.with_database(None))) as conn:
        try:
            result = restore(spec, tmp_path / "dump.gz", owner=owner)
            assert result.violations == {}
            assert contents(spec) == contents(filled.admin)
            assert validate.validate(spec, owner=owner) == []
        finally:
            execute(conn, f"DROP DATABASE IF EXISTS `{spec.database}`")
            execute(conn, f"DROP USER IF EXISTS '{owner}'@'localhost'")


def lines_of(path: Path) -> list[bytes]:
    with gzip.open(path) as lines:
        return list(lines)


def rewritten(path: Path, lines: list[bytes], *, sign: bool = False) -> Path:
    """A dump with other lines; sign: with the checksum that they should have."""
    if sign:
        end = json.loads(lines[-1])
        end["sha256"] = hashlib.sha256(b"".join(lines[:-1])).hexdigest()
        lines = [*lines[:-1], orjson.dumps(end) + b"\n"]
    path.write_bytes(gzip.compress(b"".join(lines)))
    return path


def test_damage_is_found_before_anything_is_done(filled: Any, target: Any, tmp_path: Path) -> None:
    whole = tmp_path / "whole.gz"
    dump(filled.spec("migrator"), whole)
    lines, bad = lines_of(whole), tmp_path / "bad.gz"
    command = next(n for n, line in enumerate(lines) if b"\\r\\n\\u001a" in line)
    cases: dict[str, Callable[[], Any]] = {
        "incomplete": lambda: bad.write_bytes(whole.read_bytes()[:-100]),
        "its end is missing": lambda: rewritten(bad, lines[:-1]),
        "checksum": lambda: rewritten(
            bad, [*lines[:command], lines[command].replace(b"j0", b"j9"), *lines[command + 1 :]]
        ),
        "something follows": lambda: rewritten(bad, [*lines, b"[1]\n"]),
        "no dump of Jobmon": lambda: bad.write_bytes(gzip.compress(b'{"a": 1}\n')),
        "can't be read": lambda: bad.write_bytes(gzip.compress(b"INSERT INTO job\n")),
        "damaged": lambda: bad.write_bytes(b"INSERT INTO job"),
        "has the format 2": lambda: rewritten(bad, [b'{"jobmon_dump": 2}\n', *lines[1:]], sign=True),
        "newer than this code": lambda: rewritten(
            bad, [lines[0].replace(b'"schema_version":', b'"schema_version":99'), *lines[1:]], sign=True
        ),
    }
    missing_row = [line for n, line in enumerate(lines) if n != command]
    cases["its end is missing "] = lambda: rewritten(bad, missing_row, sign=True)
    for words, damage in cases.items():
        damage()
        with pytest.raises(DumpError, match=words.strip()):
            restore(target.admin, bad, owner=target.owner)
    assert target.server.admin and not db_exists(target)


def db_exists(target: Any) -> bool:
    with contextlib.closing(connect(target.server.admin)) as conn:
        return bool(
            query(conn, "SELECT 1 FROM information_schema.SCHEMATA WHERE SCHEMA_NAME=%s", (target.name,))
        )


def test_an_older_dump_is_migrated(filled: Any, target: Any, tmp_path: Path, make_database: Any) -> None:
    """A dump of an older schema: its rows are loaded into its own tables, then migrated."""
    old = make_database(migrated=True)
    conn = old.connect("jsm")
    for _ in work_off(conn, add_dag(conn, 4)):
        pass
    old.close_connections()
    dump(old.admin, tmp_path / "new.gz")
    rollback(old.admin, to=3)
    dump_of = tmp_path / "old.gz"
    info = dump(old.admin, dump_of)
    assert info.header["schema_version"] == 3
    result = restore(target.admin, dump_of, owner=target.owner)
    assert len(result.migrated.applied) >= 1 and result.violations == {}
    assert target.query(
        "SELECT COUNT(*), MAX(status), MAX(priority) FROM job JOIN task_dag USING (dag_id)"
    ) == [(4, "D", 0)]
    assert validate.validate(target.admin, owner=target.owner) == []


def test_an_interrupted_restore_begins_anew(
    filled: Any, target: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "dump.gz"
    dump(filled.spec("migrator"), path)

    def stop(word: str) -> None:
        if word.startswith("job_instance: "):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        restore(target.admin, path, owner=target.owner, say=stop)
    # nobody takes it for whole
    for attempt in (
        lambda: migrate(target.admin, owner=target.owner),
        lambda: rollback(target.admin),
        lambda: dump(target.admin, tmp_path / "half.gz"),
    ):
        with pytest.raises(DatabaseError, match=r"restore of dump\.gz has not come to its end"):
            attempt()
    status = validate.status(target.admin, owner=target.owner)
    assert status.half_done == "the restore of dump.gz has not come to its end" and not status.current
    result = restore(target.admin, path, owner=target.owner)
    assert result.violations == {}
    assert contents(target.admin) == contents(filled.admin)
    assert migrate(target.admin, owner=target.owner).applied == []


def test_two_restores_at_once(filled: Any, target: Any, tmp_path: Path) -> None:
    path = tmp_path / "dump.gz"
    dump(filled.spec("migrator"), path)
    with dumping._restore_lock(target.admin), pytest.raises(BusyError, match="another process restores"):
        restore(target.admin, path, owner=target.owner)


def test_a_dump_that_fails_leaves_no_file(filled: Any, tmp_path: Path) -> None:
    def stop(word: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        dump(filled.spec("migrator"), tmp_path / "dump.gz", say=stop)
    assert list(tmp_path.iterdir()) == []


def test_commands(filled: Any, target: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in filled.env().items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)

    def run(*args: str, code: int = 0) -> str:
        result = CliRunner().invoke(main, ["db", *args])
        assert result.exit_code == code and "Traceback" not in result.output, result.output
        return result.output

    assert "wrote " in run("dump")
    (path,) = tmp_path.glob(f"{filled.name}-*Z.jsonl.gz")
    assert "is complete" in run("restore", "--check", str(path))
    shown = run("restore", "--prefix", target.prefix, "--database", target.name, str(path))
    assert "next: `jobmon db grants`" in shown
    assert contents(target.admin) == contents(filled.admin)
    assert "is not empty" in run("restore", "--database", target.name, str(path), code=1)
    assert "exists" in run("dump", str(path), code=1)
    assert "No such file" in run("restore", "nowhere.gz", code=1)
    # to a pipe, by the program itself
    piped = subprocess.run(
        [sys.executable, "-m", "jobmon.cli", "db", "dump", "-"], capture_output=True, check=True, timeout=120
    )
    (tmp_path / "piped.gz").write_bytes(piped.stdout)
    assert read_dump(tmp_path / "piped.gz").num_rows == read_dump(path).num_rows


def test_archives_are_dumped_too(make_database: Any, target: Any, tmp_path: Path) -> None:
    source = make_database(migrated=True)
    conn = source.connect("jsm")
    dag_id = add_dag(conn, 5)
    for _ in work_off(conn, dag_id):
        pass
    source.close_connections()
    assert prune(source.admin, older_than=0, archive="tables").num_jobs == 5
    with contextlib.closing(connect(source.admin)) as admin:
        execute(admin, "CREATE TABLE somebody_elses (a INT)")
    said: list[str] = []
    dump(source.admin, tmp_path / "dump.gz", say=said.append)
    assert "left out: the table somebody_elses is not Jobmon's" in said
    restore(target.admin, tmp_path / "dump.gz", owner=target.owner)
    there = contents(source.admin)
    del there["somebody_elses"]
    assert contents(target.admin) == there
    assert validate.validate(target.admin, owner=target.owner) == []
