"""Migrations: up, down, up; at once from many processes; stopped half-way; newer than the code."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pymysql
import pytest

from jobmon.db import grants, migrate, validate
from jobmon.db.catalog import DatabaseError
from jobmon.db.connect import connect
from jobmon.db.migrate import BusyError, MigrationError, NewerDatabaseError

INTERNAL = {"_yoyo_log", "_yoyo_migration", "_yoyo_version", "_jobmon_migration_step"}


def tables(database: Any) -> set[str]:
    rows = database.query(
        "SELECT TABLE_NAME FROM information_schema.TABLES WHERE TABLE_SCHEMA=%s", (database.name,)
    )
    return {row[0] for row in rows}


def routines(database: Any) -> list[Any]:
    return database.query(
        "SELECT ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA=%s", (database.name,)
    )


def test_first_migration(own_database: Any, tree: Any) -> None:
    said: list[str] = []
    result = own_database.migrate(**tree.dirs, say=said.append)
    assert result.created_database and result.created_owner
    assert result.applied == ["0001.first"] and len(result.objects.loaded) == 6
    assert "applying migration 0001.first" in said and "loaded view cooked" in said
    again = own_database.migrate(**tree.dirs)
    assert not (again.applied or again.objects or again.created_database or again.created_owner)


def test_comparison_is_exact(own_database: Any, tree: Any) -> None:
    own_database.migrate(**tree.dirs)
    own_database.query("INSERT INTO job (name) VALUES ('a'), ('A'), ('a ')")
    assert own_database.query("SELECT COUNT(*) FROM job WHERE name='a'") == [(1,)]


def test_up_down_up(own_database: Any, tree: Any) -> None:
    tree.second()
    own_database.migrate(**tree.dirs)
    own_database.query("CALL add_job('x')")
    undone = migrate.rollback(own_database.admin, to=0, migrations_dir=tree.migrations)
    assert undone == ["0002.second", "0001.first"]
    assert tables(own_database) <= INTERNAL and not routines(own_database)
    assert own_database.migrate(**tree.dirs).applied == ["0001.first", "0002.second"]
    own_database.query("CALL add_job('x')")
    assert not validate.validate(own_database.admin, owner=own_database.owner, **tree.dirs)


def test_rollback_undoes_one_by_default_and_drops_what_was_loaded(own_database: Any, tree: Any) -> None:
    tree.second()
    own_database.migrate(**tree.dirs)
    assert migrate.rollback(own_database.admin, migrations_dir=tree.migrations) == ["0002.second"]
    assert "note" not in tables(own_database) and "job" in tables(own_database)
    assert not routines(own_database)
    found = validate.status(own_database.admin, owner=own_database.owner, **tree.dirs)
    assert found.schema_version == 1 and found.pending == ["0002.second"]
    own_database.migrate(**tree.dirs)
    assert validate.status(own_database.admin, owner=own_database.owner, **tree.dirs).current


def test_rollback_with_nothing_to_do(own_database: Any, tree: Any) -> None:
    own_database.migrate(**tree.dirs)
    assert migrate.rollback(own_database.admin, to=1, migrations_dir=tree.migrations) == []
    migrate.rollback(own_database.admin, migrations_dir=tree.migrations)
    assert migrate.rollback(own_database.admin, migrations_dir=tree.migrations) == []
    with pytest.raises(MigrationError, match="no schema version 9"):
        own_database.migrate(**tree.dirs)
        migrate.rollback(own_database.admin, to=9, migrations_dir=tree.migrations)


def test_the_project_s_own_migrations_up_down_up(own_database: Any) -> None:
    own_database.migrate()
    first = tables(own_database)
    migrate.rollback(own_database.admin, to=0)
    assert tables(own_database) <= INTERNAL and not routines(own_database)
    own_database.migrate()
    assert tables(own_database) == first
    assert not validate.validate(own_database.admin, owner=own_database.owner)


def test_rows_outlive_a_migration_that_is_undone_and_done_again(own_database: Any) -> None:
    """0004, with what the old code and the new one have written."""
    own_database.migrate()
    own_database.query("INSERT INTO task_dag (dag_hash, user, priority) VALUES ('d', 'ann', 7)")
    own_database.query(
        "INSERT INTO workflow (dag_id, workflow_args, workflow_hash, name, user)"
        " VALUES (1, '', 'h', 'w', 'ann')"
    )
    own_database.query(
        "INSERT INTO workflow_run (workflow_id, user, hostname, pid, submitted_date)"
        " VALUES (1, 'ann', 'login1', 1, UTC_TIMESTAMP(6))"
    )
    migrate.rollback(own_database.admin, to=3)
    assert own_database.query("SELECT schema_version FROM schema_info") == [(3,)]
    hints = "SELECT name, hint FROM api_error WHERE name LIKE '%%_ALIVE' OR name LIKE '%%_LIVE'"
    ((name, hint),) = own_database.query(hints)
    assert name == "WORKFLOW_RUN_ALIVE" and "add_workflow_run does" in hint
    own_database.query("INSERT INTO task_dag (dag_hash, user) VALUES ('old', 'ann')")
    own_database.query("UPDATE workflow_run SET status = 'S'")
    assert "0004.submitted_runs" in own_database.migrate().applied
    assert dict(own_database.query(hints)).keys() == {"WORKFLOW_RUN_ALIVE", "JOB_NOT_LIVE"}
    # a run that was made before, or by old code, is its client's to end
    assert own_database.query("SELECT status, submitted_date FROM workflow_run") == [("S", None)]
    assert own_database.query("SELECT dag_hash, priority FROM task_dag ORDER BY dag_id") == [
        ("d", 0),
        ("old", 0),
    ]
    assert not validate.validate(own_database.admin, owner=own_database.owner)


def test_errors_of_batch_executors_are_plain_ones_to_older_code(own_database: Any) -> None:
    """0005, undone and done again."""
    own_database.migrate()
    own_database.query("INSERT INTO task_dag (dag_hash, user) VALUES ('d', 'ann')")
    ends = {"W": "no such queue", "Z": "out of memory", "U": "vanished", "E": "exit code 1"}
    for n, (status, text) in enumerate(ends.items(), 1):
        own_database.query(
            "INSERT INTO job (dag_id, job_hash, name, command, mem_free_scale, max_attempts)"
            " VALUES (1, %s, 'j', 'true', 0.5, 9)",
            (status,),
        )
        own_database.query("UPDATE job SET status = 'Q' WHERE job_id = %s", (n,))
        own_database.query("INSERT INTO job_instance (job_id, executor_type) VALUES (%s, 'X')", (n,))
        own_database.query(f"CALL log_warning({n}, 'careful'{', NULL' * 6})")
        own_database.query(f"CALL log_error({n}, '{text}', NULL, NULL, '{status}'{', NULL' * 6})")
    before = own_database.query("SELECT job_id, status, num_attempts FROM job")
    assert own_database.audits() == {}
    ((id_before,),) = own_database.query("SELECT database_id FROM schema_info")
    own_database.migrate()
    assert own_database.query("SELECT database_id FROM schema_info") == [(id_before,)]
    migrate.rollback(own_database.admin, to=4)
    assert own_database.query("SELECT status, COUNT(*) FROM job_instance GROUP BY status") == [("E", 4)]
    assert own_database.query("SELECT job_id, status, num_attempts FROM job") == before
    assert own_database.query("SELECT description FROM job_instance_error_log ORDER BY 1") == sorted(
        (text,) for text in ends.values()
    )
    own_database.migrate()
    assert own_database.audits() == {}
    assert not validate.validate(own_database.admin, owner=own_database.owner)


def test_twenty_at_once(own_database: Any, tree: Any) -> None:
    tree.second()

    def run(_: int) -> migrate.MigrateResult:
        return own_database.migrate(**tree.dirs)

    with ThreadPoolExecutor(20) as pool:
        results = list(pool.map(run, range(20)))
    assert sorted(len(result.applied) for result in results) == [0] * 19 + [2]
    assert sorted(len(result.objects.loaded) for result in results) == [0] * 19 + [6]
    assert not validate.validate(own_database.admin, owner=own_database.owner, **tree.dirs)


def test_lock_that_is_not_given_up(own_database: Any, tree: Any) -> None:
    own_database.migrate(**tree.dirs)
    conn = connect(own_database.admin)
    with migrate.schema_lock(conn, own_database.name), pytest.raises(BusyError, match="another process"):
        own_database.migrate(**tree.dirs, lock_timeout=0.1)
    conn.close()
    own_database.migrate(**tree.dirs, lock_timeout=0.1)


def _forever(spec: Any, owner: str, dirs: dict[str, Path]) -> None:
    while True:
        migrate.migrate(spec, owner=owner, **dirs)
        migrate.rollback(spec, to=0, migrations_dir=dirs["migrations_dir"])


def _migrated_in_spite_of_all(database: Any, dirs: dict[str, Path]) -> None:
    """What a person would do: run migrate, and finish a rollback if it says so."""
    try:
        database.migrate(**dirs)
    except MigrationError as error:
        assert "rollback" in error.hint
        migrate.rollback(database.admin, migrations_dir=dirs["migrations_dir"])
        database.migrate(**dirs)


@pytest.mark.parametrize("delay", [0.01, 0.05, 0.1, 0.17, 0.25, 0.35, 0.5, 0.7])
def test_killed_anywhere_it_can_be_repeated(own_database: Any, tree: Any, delay: float) -> None:
    tree.second()
    # spawned: a copy of this process would share its connections
    process = multiprocessing.get_context("spawn").Process(
        target=_forever, args=(own_database.admin, own_database.owner, tree.dirs)
    )
    process.start()
    while not _exists(own_database):
        assert process.is_alive()
        time.sleep(0.005)
    time.sleep(delay)
    assert process.pid is not None
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    _migrated_in_spite_of_all(own_database, tree.dirs)
    assert not validate.validate(own_database.admin, owner=own_database.owner, **tree.dirs)


def _exists(database: Any) -> bool:
    conn = connect(database.server.admin)
    try:
        with conn.cursor() as cursor:
            cursor.execute("SHOW DATABASES LIKE %s", (database.name,))
            return cursor.fetchone() is not None
    finally:
        conn.close()


def test_a_step_that_fails_is_reported_kept_and_gone_on_with(own_database: Any, tree: Any) -> None:
    tree.second()
    path = tree.migrations / "0002.second.sql"
    good = path.read_text()
    path.write_text(good.replace("CREATE TABLE note (id INT", "CREATE TABLE note (id NONSENSE"))
    with pytest.raises(MigrationError, match=r"0002.second stopped at step 2 of 3") as error:
        own_database.migrate(**tree.dirs)
    assert "`jobmon db migrate` again" in error.value.hint
    found = validate.status(own_database.admin, owner=own_database.owner, **tree.dirs)
    assert found.half_done and "after 1 of its steps" in found.half_done
    path.write_text(good)
    assert own_database.migrate(**tree.dirs).applied == ["0002.second"]
    assert not validate.validate(own_database.admin, owner=own_database.owner, **tree.dirs)


def test_a_half_done_migration_can_be_rolled_back(own_database: Any, tree: Any) -> None:
    tree.second()
    path = tree.migrations / "0002.second.sql"
    good = path.read_text()
    path.write_text(good.replace("CREATE TABLE note (id INT", "CREATE TABLE note (id NONSENSE"))
    with pytest.raises(MigrationError):
        own_database.migrate(**tree.dirs)
    assert migrate.rollback(own_database.admin, migrations_dir=tree.migrations) == ["0002.second"]
    assert not own_database.query("SHOW COLUMNS FROM job LIKE 'tag'")
    path.write_text(good)
    own_database.migrate(**tree.dirs)
    assert not validate.validate(own_database.admin, owner=own_database.owner, **tree.dirs)


def test_done_steps_that_changed_since_are_not_gone_on_with(own_database: Any, tree: Any) -> None:
    tree.second()
    path = tree.migrations / "0002.second.sql"
    path.write_text(path.read_text().replace("(id INT", "(id NONSENSE"))
    with pytest.raises(MigrationError):
        own_database.migrate(**tree.dirs)
    path.write_text(path.read_text().replace("VARCHAR(20)", "VARCHAR(30)").replace("NONSENSE", "INT"))
    with pytest.raises(MigrationError, match="its file has been changed"):
        own_database.migrate(**tree.dirs)


def test_a_data_step_is_not_done_twice_after_a_crash(own_database: Any, tree: Any) -> None:
    tree.migration("0002.second", "UPDATE job SET hits = hits + 1; CREATE TABLE note (id NONSENSE);")
    own_database.migrate(sql_dir=tree.sql, migrations_dir=_only_first(tree))
    own_database.query("INSERT INTO job (name) VALUES ('x')")
    for _ in range(3):
        with pytest.raises(MigrationError, match="step 2 of 2"):
            own_database.migrate(**tree.dirs)
    assert own_database.query("SELECT hits FROM job") == [(1,)]


def _only_first(tree: Any) -> Path:
    directory = tree.migrations.parent / "first"
    directory.mkdir()
    for path in tree.migrations.glob("0001*"):
        (directory / path.name).write_text(path.read_text())
    return directory


def test_waits_for_a_transaction_without_blocking_others_for_long(own_database: Any, tree: Any) -> None:
    own_database.migrate(sql_dir=tree.sql, migrations_dir=_only_first(tree))
    tree.second()
    holder = own_database.connect("admin", autocommit=False)
    holder.cursor().execute("INSERT INTO job (name) VALUES ('held')")
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(own_database.migrate, **tree.dirs)
        other = own_database.connect("admin")
        slowest = 0.0
        until = time.monotonic() + 3
        while time.monotonic() < until:
            start = time.monotonic()
            other.cursor().execute("SELECT COUNT(*) FROM job")
            slowest = max(slowest, time.monotonic() - start)
            time.sleep(0.02)
        assert not future.done()
        holder.commit()
        assert future.result(timeout=30).applied == ["0002.second"]
    # an attempt waits for a second; a busy machine takes its time
    assert slowest < 20


def test_gives_up_with_a_hint_when_a_transaction_stays(own_database: Any, tree: Any) -> None:
    own_database.migrate(sql_dir=tree.sql, migrations_dir=_only_first(tree))
    tree.second()
    holder = own_database.connect("admin", autocommit=False)
    holder.cursor().execute("INSERT INTO job (name) VALUES ('held')")
    with pytest.raises(MigrationError, match="clients held a lock"):
        own_database.migrate(**tree.dirs, patience=0.1)
    holder.rollback()
    own_database.migrate(**tree.dirs)


def newer(database: Any) -> None:
    database.query("UPDATE schema_info SET schema_version = 99")


def unknown_migration(database: Any) -> None:
    database.query(
        "INSERT INTO _yoyo_migration (migration_hash, migration_id, applied_at_utc)"
        " VALUES ('x', '0009.future', UTC_TIMESTAMP())"
    )


@pytest.mark.parametrize("make_newer", [newer, unknown_migration])
def test_newer_database_is_refused_by_all(
    own_database: Any, tree: Any, make_newer: Callable[[Any], None]
) -> None:
    own_database.migrate(**tree.dirs)
    make_newer(own_database)
    spec, owner, file = own_database.admin, own_database.owner, own_database.accounts_file
    for refused in (
        lambda: own_database.migrate(**tree.dirs),
        lambda: migrate.rollback(spec, migrations_dir=tree.migrations),
        lambda: validate.status(spec, owner=owner, **tree.dirs),
        lambda: validate.validate(spec, owner=owner, **tree.dirs),
        lambda: own_database.grant(**tree.dirs),
        lambda: grants.check_grants(spec, prefix=own_database.prefix, accounts_file=file, **tree.dirs),
    ):
        with pytest.raises(NewerDatabaseError, match="newer than this code") as error:
            refused()
        assert "release" in error.value.hint


def test_database_that_is_not_initialised(own_database: Any, tree: Any) -> None:
    spec, owner = own_database.admin, own_database.owner
    with pytest.raises(DatabaseError, match="no database"):
        validate.validate(spec, owner=owner, **tree.dirs)
    with pytest.raises(DatabaseError, match="no database"):
        validate.status(spec, owner=owner, **tree.dirs)
    conn = connect(own_database.server.admin)
    conn.cursor().execute(f"CREATE DATABASE {own_database.name}")
    conn.close()
    with pytest.raises(DatabaseError, match="no Jobmon tables"):
        validate.validate(spec, owner=owner, **tree.dirs)
    assert validate.status(spec, owner=owner, **tree.dirs).pending == ["0001.first"]


def test_collation_of_an_existing_database(own_database: Any, tree: Any) -> None:
    conn = connect(own_database.server.admin)
    cursor = conn.cursor()
    cursor.execute(f"CREATE DATABASE {own_database.name} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
    own_database.migrate(**tree.dirs)  # it was empty
    own_database.query("INSERT INTO job (name) VALUES ('a'), ('A')")
    assert own_database.query("SELECT COUNT(*) FROM job WHERE name='a'") == [(1,)]
    own_database.drop()
    own_database.directory.mkdir()
    cursor.execute(f"CREATE DATABASE {own_database.name} CHARACTER SET utf8mb4 COLLATE utf8mb4_general_ci")
    cursor.execute(f"CREATE TABLE {own_database.name}.t (a INT)")
    with pytest.raises(DatabaseError, match="not exact"):
        own_database.migrate(**tree.dirs)
    conn.close()


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("0003.gap.sql", "SELECT 1;", "should be number 2"),
        ("0002.bad.py", "this is no python", "can't be read"),
        ("second.sql", "SELECT 1;", "should be number 2"),
    ],
)
def test_wrong_migration_files_are_named(tree: Any, name: str, text: str, says: str) -> None:
    (tree.migrations / name).write_text(text)
    with pytest.raises(MigrationError, match=says):
        migrate.read_migrations(tree.migrations)


def test_python_migrations_work(own_database: Any, tree: Any) -> None:
    (tree.migrations / "0002.second.py").write_text(
        "from yoyo import step\n"
        "def fill(conn):\n"
        "    conn.cursor().execute(\"INSERT INTO job_status VALUES ('X')\")\n"
        "def empty(conn):\n"
        "    conn.cursor().execute(\"DELETE FROM job_status WHERE status = 'X'\")\n"
        'steps = [step(fill, empty), step("UPDATE schema_info SET schema_version=2",'
        ' "UPDATE schema_info SET schema_version=1")]\n'
    )
    own_database.migrate(**tree.dirs)
    assert own_database.query("SELECT COUNT(*) FROM job_status") == [(3,)]
    migrate.rollback(own_database.admin, migrations_dir=tree.migrations)
    assert own_database.query("SELECT COUNT(*) FROM job_status") == [(2,)]


def test_migrator_account_is_enough(own_database: Any, tree: Any) -> None:
    own_database.migrate(sql_dir=tree.sql, migrations_dir=_only_first(tree))
    own_database.grant(sql_dir=tree.sql, migrations_dir=_only_first_again(tree))
    tree.second()
    path = tree.sql / "procedures/add_job.sql"
    path.write_text(path.read_text().replace("Description: adds", "Description: really adds"))
    spec = own_database.spec("migrator")
    migrate.migrate(spec, owner=own_database.owner, **tree.dirs)
    assert not validate.validate(spec, owner=own_database.owner, **tree.dirs)
    assert grants.grant_new_objects(spec, prefix=own_database.prefix, sql_dir=tree.sql) == []
    own_database.connect("jsm").cursor().execute("CALL add_job('x')")


def _only_first_again(tree: Any) -> Path:
    return tree.migrations.parent / "first"


def test_binlog_rule_is_explained_before_anything_is_touched(own_database: Any, tree: Any) -> None:
    own_database.migrate(**tree.dirs)
    own_database.grant(**tree.dirs)
    [(log_bin, trusted)] = own_database.query("SELECT @@log_bin, @@log_bin_trust_function_creators")
    if not log_bin or trusted:
        pytest.skip("the server has no binary log, or trusts those who create functions")
    path = tree.sql / "triggers/job_a.sql"
    path.write_text(path.read_text().replace("'a'", "'A'"))
    with pytest.raises(DatabaseError, match="binary log") as error:
        migrate.migrate(own_database.spec("migrator"), owner=own_database.owner, **tree.dirs)
    assert "log_bin_trust_function_creators" in error.value.hint
    assert len(own_database.query("SHOW TRIGGERS")) == 2


def test_missing_owner_can_only_be_made_by_an_admin(own_database: Any, tree: Any) -> None:
    own_database.migrate(**tree.dirs)
    own_database.grant(**tree.dirs)
    own_database.query(f"DROP USER {own_database.owner}@localhost")
    with pytest.raises(DatabaseError, match="can't create it"):
        migrate.migrate(own_database.spec("migrator"), owner=own_database.owner, **tree.dirs)
    assert own_database.migrate(**tree.dirs).created_owner
    own_database.query("CALL add_job('x')")


def test_lost_connection_is_an_error_of_pymysql(own_database: Any, tree: Any) -> None:
    import dataclasses

    with pytest.raises(pymysql.err.OperationalError):
        migrate.migrate(dataclasses.replace(own_database.admin, port=1, unix_socket=None), **tree.dirs)
