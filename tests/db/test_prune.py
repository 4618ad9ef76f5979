"""jobmon db prune: what is deleted, what is archived before, and how it goes on after an interruption."""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import stat
import threading
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobmon.cli import main
from jobmon.db import prune as pruning
from jobmon.db import validate
from jobmon.db.catalog import DatabaseError, execute, query
from jobmon.db.connect import connect
from jobmon.db.migrate import BusyError
from jobmon.db.prune import PRUNED_TABLES, prune


def fill(database: Any, count: int = 3, name: str = "sims") -> int:
    """A DONE workflow of a few jobs in a chain, with attributes and an error; gives its dag_id."""
    with contextlib.closing(connect(database.spec("jsm"))) as conn, conn.cursor() as cursor:

        def call(procedure: str, *args: Any) -> Any:
            cursor.execute(f"CALL {procedure}({', '.join(['%s'] * len(args))})", args)
            return json.loads(cursor.fetchone()[0])

        dag_id = call("add_task_dag", name, "ann", "h", None, None, None, None)["dag_id"]
        jobs = [
            {"name": "żółw 🐢", "job_hash": str(n), "command": "line\n\"quoted\" \\ 'it'", "max_attempts": 2}
            | ({"upstream_job_hashes": [str(n - 1)]} if n else {})
            | {"attributes": [{"attribute_type": 8, "value": "x"}]}
            for n in range(count)
        ]
        call("add_jobs", dag_id, json.dumps(jobs))
        workflow = call("add_workflow", dag_id, "v1", f"hash {dag_id}", name, "ann", None)["workflow_dct"][
            "id"
        ]
        call("add_workflow_attribute", workflow, 8, "x", None)
        run = call("add_workflow_run", workflow, "ann", "h", 1, *[None] * 8)["workflow_run_id"]
        call("add_workflow_run_attribute", run, 8, "x", None)
        call("submit_workflow_run", run, None)
        failed = False
        while claimed := call("claim_jobs", "X", dag_id, 1000, None, None, None)["job_instances"]:
            for one in claimed:
                number = one["job_instance_id"]
                end = {"event": "done"} if failed else {"event": "error", "error_message": "boom \u0000 ü"}
                failed = True
                events = [{"event": "running"}, end]
                call("log_events", json.dumps([{**event, "job_instance_id": number} for event in events]))
        assert call("end_workflow_run", run)["workflow_status"] == "D"
    return int(dag_id)


def rows_of(database: Any, prefix: str = "") -> dict[str, list[tuple[Any, ...]]]:
    """All rows of the tables that are pruned, or of their archives, in the order of the tables' columns."""
    found = {}
    for table in PRUNED_TABLES:
        columns = ", ".join(
            name
            for (name,) in database.query(
                "SELECT COLUMN_NAME FROM information_schema.COLUMNS WHERE TABLE_SCHEMA=%s AND TABLE_NAME=%s"
                " ORDER BY ORDINAL_POSITION",
                (database.name, table),
            )
        )
        found[table] = sorted(database.query(f"SELECT {columns} FROM {prefix}{table}"), key=repr)
    return found


def test_what_is_old_goes_and_the_rest_stays(db: Any) -> None:
    first, second = fill(db), fill(db)
    said: list[str] = []
    would = prune(db.spec("migrator"), older_than=0, dry_run=True, say=said.append)
    assert (would.num_dags, would.num_jobs) == (2, 6)
    assert said == [f"would prune dag {dag_id} (sims, ann): 3 jobs" for dag_id in (first, second)]
    assert prune(db.spec("migrator"), older_than=86_400).num_dags == 0
    assert db.query("SELECT COUNT(*) FROM job") == [(6,)]
    result = prune(db.spec("migrator"), older_than=0)
    assert (result.num_dags, result.num_jobs, result.left) == (2, 6, [])
    assert not any(rows_of(db).values())
    assert db.audits() == {}
    # an id is never given again
    assert fill(db) == second + 1


def test_archive_file(db: Any, tmp_path: Path) -> None:
    fill(db)
    fill(db, count=1)
    with contextlib.closing(db.connect("jsm")) as conn, conn.cursor() as cursor:  # a job without a dag
        cursor.execute(
            "CALL add_job(NULL, 'alone', '1', 'true', NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL)"
        )
        job_id = json.loads(cursor.fetchone()[0])["job_dct"]["job_id"]
        for call in (f"queue_job({job_id})", f"add_job_instance({job_id}, 'X', NULL, NULL)"):
            cursor.execute(f"CALL {call}")
        instance = json.loads(cursor.fetchone()[0])["job_instance_id"]
        cursor.execute(f"CALL log_running({instance}, NULL, NULL, NULL)")
        cursor.execute(f"CALL log_done({instance}, NULL, NULL, NULL, NULL, NULL, NULL, NULL)")
    before = rows_of(db)
    path = tmp_path / "archive.jsonl.gz"
    result = prune(db.spec("migrator"), older_than=0, archive=str(path))
    assert result.num_dags == 2 and result.num_jobs == 5
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        documents = [json.loads(line) for line in lines]
    assert Counter(d["table"] for d in documents) == {t: len(rows) for t, rows in before.items() if rows}
    assert sum(len(rows) for rows in before.values()) == result.num_rows == len(documents)
    names = {d["row"]["name"] for d in documents if d["table"] == "job"}
    assert names == {"żółw 🐢", "alone"}
    (command,) = {d["row"]["command"] for d in documents if d["table"] == "job"} - {"true"}
    assert command == "line\n\"quoted\" \\ 'it'"
    with pytest.raises(DatabaseError, match="exists"):
        prune(db.spec("migrator"), older_than=0, archive=str(path))
    # nothing to archive leaves no file
    prune(db.spec("migrator"), older_than=0, archive=str(tmp_path / "empty.gz"))
    assert not (tmp_path / "empty.gz").exists()


def test_what_was_archived_is_not_archived_again(
    db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Interrupted while it deletes, the next run deletes the rest, and the first file has it all."""
    fill(db, count=10)
    total = sum(len(rows) for rows in rows_of(db).values())

    def stop(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(pruning.time, "sleep", stop)
    with pytest.raises(KeyboardInterrupt):
        prune(db.spec("migrator"), older_than=0, batch_rows=20, archive=str(tmp_path / "one.gz"))
    monkeypatch.undo()
    left = sum(len(rows) for rows in rows_of(db).values())
    assert 0 < left < total
    assert db.audits() == {}
    prune(db.spec("migrator"), older_than=0, archive=str(tmp_path / "two.gz"))
    assert not any(rows_of(db).values())
    with gzip.open(tmp_path / "one.gz") as lines:
        assert len(list(lines)) == total
    assert not (tmp_path / "two.gz").exists()


def test_archive_tables(make_database: Any) -> None:
    database = make_database(migrated=True)
    fill(database)
    before = rows_of(database)
    prune(database.spec("migrator"), older_than=0, archive="tables")
    assert rows_of(database, "archive_") == before
    assert not any(rows_of(database).values())
    # a migration that comes later adds a column in the middle
    with contextlib.closing(connect(database.admin)) as conn:
        execute(conn, "ALTER TABLE job ADD COLUMN extra VARCHAR(9) NOT NULL DEFAULT 'e' AFTER name")
    # the same workflow, made anew, is archived beside the old one
    fill(database)
    with contextlib.closing(connect(database.admin)) as conn:
        old = dict(query(conn, "SELECT job_id, workflow_hash FROM archive_job, archive_workflow"))
        execute(conn, "UPDATE archive_workflow SET workflow_hash = %s", ("hash 2",))
    prune(database.spec("migrator"), older_than=0, archive="tables")
    assert len(old) == 3
    assert database.query("SELECT COUNT(*), MIN(extra), MAX(extra) FROM archive_job") == [(6, "e", "e")]
    assert database.query("SELECT COUNT(DISTINCT workflow_hash) FROM archive_workflow") == [(1,)]
    findings = validate.validate(database.admin, owner=database.owner)
    assert [(finding.name, finding.problem) for finding in findings] == [("job", "changed")]


def test_one_at_a_time(db: Any) -> None:
    other = pruning._Database(db.spec("migrator"))
    with contextlib.closing(other), pytest.raises(BusyError, match="another process prunes"):
        prune(db.spec("migrator"), older_than=0)
    prune(db.spec("migrator"), older_than=0)


def test_it_waits_until_the_server_has_ended_who_has_gone(db: Any) -> None:
    """A connection outlives its client by a moment."""
    other = pruning._Database(db.spec("migrator"))
    timer = threading.Timer(0.5, other.close)
    timer.start()
    prune(db.spec("migrator"), older_than=0)
    timer.join()


def test_a_lost_connection(db: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """It goes on with another one."""
    fill(db, count=10)
    call, calls = pruning._Database.call, Counter[str]()

    def breaks(self: Any, procedure: str, *args: Any) -> Any:
        calls[procedure] += 1
        if procedure == "prune_dag" and calls[procedure] == 2:
            [(number,)] = query(self.conn, "SELECT CONNECTION_ID()")
            db.query(f"KILL {number}")
        return call(self, procedure, *args)

    monkeypatch.setattr(pruning._Database, "call", breaks)
    assert prune(db.spec("migrator"), older_than=0, batch_rows=20).num_dags == 1
    assert calls["prune_dag"] > 2


@pytest.fixture
def command(db: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command on the shared database."""
    for variable in [name for name in os.environ if name.startswith("JOBMON_")]:
        monkeypatch.delenv(variable)
    for name, value in db.env().items():
        monkeypatch.setenv(name, value)

    def run(*args: str, code: int = 0) -> Result:
        result = CliRunner().invoke(main, ["db", "prune", "--prefix", db.prefix, *args])
        assert "Traceback" not in result.output
        assert result.exit_code == code, result.output
        return result

    return run


def test_command(db: Any, command: Any, tmp_path: Path) -> None:
    dag_id = fill(db)
    shown = command("--older-than", "0s", "--dry-run").output
    assert (
        f"would prune dag {dag_id} (sims, ann): 3 jobs" in shown and "would delete 1 dags, 3 jobs," in shown
    )
    assert "deleted 0 dags" in command("--older-than", "90d").output
    shown = command("--older-than", "0s", "--status", "done,error", "--as", "migrator", "--batch-rows", "50")
    assert (
        f"pruned dag {dag_id} (sims, ann): 3 jobs" in shown.output
        and "deleted 1 dags, 3 jobs (" in shown.output
    )


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ([], "--older-than"),
        (["--older-than", "90"], "no age"),
        (["--older-than", "d"], "no age"),
        (["--older-than", "90d", "--status", "RUNNING"], "'RUNNING' is none of DONE, ERROR"),
        (["--older-than", "90d", "--batch-rows", "1"], "20"),
        (["--older-than", "90d", "--requests-older-than", "1m"], "1h is the least"),
        (["--older-than", "5000w", "--archive", "/nonexistent/a.gz"], "No such file"),
        (["--older-than", "9999999999w"], "100 years"),
    ],
)
def test_bad_input(command: Any, args: list[str], words: str) -> None:
    result = command(*args, code=1 if words in ("No such file", "100 years") else 2)
    assert words in result.output
