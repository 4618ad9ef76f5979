"""Rule 7 and the accounts, tried for real: what an account may not do, the server refuses."""

from __future__ import annotations

from typing import Any

import pymysql
import pytest
from sql_helpers import SQL, Facts, Sql, make_dag, make_instance, make_jobs, make_run

from jobmon.db import grants
from jobmon.db.connect import connect

STATE = grants.INSERT_AND_UPDATE_TABLES
LOOKUP = grants.LOOKUP_TABLES
HISTORY = ("job_status_log", "job_instance_status_log", "job_instance_error_log")
KEPT_BY_TRIGGERS = (
    "job_gate",
    "api_request",
    "notification",
    "schema_object",
    "replication_heartbeat",
    "change_shard_count",
    "pruned_dag",
)
MONITORS = ("monitor_check", "failing_node", "audit_state")
DENIED = {
    1044,  # access denied to the database
    1045,  # access denied at login
    1142,  # command denied for a table
    1143,  # command denied for a column
    1227,  # a privilege of the whole server is needed
    1370,  # EXECUTE denied
    1410,  # may not create an account by GRANT
    1419,  # MySQL: a trigger needs SUPER
}


def denied(who: Sql, statement: str) -> None:
    """The server must refuse a statement for want of a privilege."""
    with pytest.raises(pymysql.err.MySQLError) as caught:
        who.raw(statement)
    assert caught.value.args[0] in DENIED, (statement, caught.value.args)


def tables(admin: Sql, kind: str) -> list[str]:
    return [
        name
        for (name,) in admin.raw(
            "SELECT TABLE_NAME FROM information_schema.TABLES"
            " WHERE TABLE_SCHEMA=DATABASE() AND TABLE_TYPE=%s ORDER BY 1",
            kind,
        )
    ]


def test_every_table_is_of_some_kind(admin: Sql) -> None:
    """A new table must be thought of here: who may write it?"""
    known = {*STATE, *grants.INSERT_ONLY_TABLES, *LOOKUP, *HISTORY, *KEPT_BY_TRIGGERS, *MONITORS}
    found = {name for name in tables(admin, "BASE TABLE") if "yoyo" not in name and not name.startswith("_")}
    assert found == known


def test_jsm_reads_no_table_and_no_view(jsm: Sql, admin: Sql) -> None:
    make_instance(jsm, "R")
    for kind in ("BASE TABLE", "VIEW"):
        for name in tables(admin, kind):
            denied(jsm, f"SELECT * FROM {name}")
            denied(jsm, f"SELECT COUNT(*) FROM {name}")
            denied(jsm, f"SELECT 1 FROM {name} FOR UPDATE")
    denied(jsm, "UPDATE job SET name = 'x' WHERE job_id = 1")
    denied(jsm, "UPDATE job SET max_attempts = num_attempts + 1")
    denied(jsm, "INSERT INTO task_dag (dag_hash, user) SELECT dag_hash, user FROM task_dag")


def test_jsm_writes_state_tables_only(jsm: Sql, admin: Sql) -> None:
    make_run(jsm)
    make_jobs(jsm, 2, [(0, 1)])
    with admin.unchanged():
        for name in tables(admin, "BASE TABLE"):
            column = admin.raw(f"SHOW COLUMNS FROM {name}")[0][0]
            denied(jsm, f"DELETE FROM {name}")
            denied(jsm, f"TRUNCATE TABLE {name}")
            denied(jsm, f"DROP TABLE {name}")
            denied(jsm, f"ALTER TABLE {name} ADD COLUMN x INT")
            denied(jsm, f"LOCK TABLES {name} WRITE")
            if name not in STATE:
                denied(jsm, f"UPDATE {name} SET {column} = 1")
                if name not in grants.INSERT_ONLY_TABLES:
                    denied(jsm, f"INSERT INTO {name} ({column}) VALUES (1)")
        for name in (*HISTORY, *LOOKUP):
            denied(jsm, f"REPLACE INTO {name} VALUES ()")


@pytest.mark.parametrize("role", ["jsm", "jqs", "reader"])
def test_no_ddl(open_as: Any, role: str) -> None:
    who = open_as(role)
    for statement in (
        "CREATE TABLE mine (a INT)",
        "CREATE VIEW mine AS SELECT 1",
        "CREATE PROCEDURE mine() SELECT 1",
        "CREATE FUNCTION mine() RETURNS INT DETERMINISTIC RETURN 1",
        "CREATE TRIGGER mine BEFORE INSERT ON job FOR EACH ROW SET @a = 1",
        "CREATE EVENT mine ON SCHEDULE EVERY 1 DAY DO SELECT 1",
        "CREATE INDEX mine ON job (name)",
        "ALTER TABLE job DROP COLUMN name",
        "DROP TABLE job",
        "DROP VIEW get_jobs",
        "DROP PROCEDURE log_done",
        "DROP TRIGGER job_before_update",
        "ALTER PROCEDURE log_done COMMENT 'x'",
        "CREATE USER mine",
        "SET GLOBAL max_connections = 1",
        "SET GLOBAL event_scheduler = ON",
        "CREATE DATABASE jobmon_not_mine",
        "SELECT user FROM mysql.user",
    ):
        denied(who, statement)
    database = who.one("SELECT DATABASE()")
    denied(who, f"DROP DATABASE `{database}`")
    name = who.one("SELECT SUBSTRING_INDEX(USER(), '@', 1)")
    for privilege in ("ALL", "SELECT", "INSERT", "EXECUTE"):
        denied(who, f"GRANT {privilege} ON `{database}`.* TO `{name}`@`%`")


def test_jqs_and_reader_write_nothing_and_call_nothing(open_as: Any, admin: Sql, facts: Facts) -> None:
    for role in ("jqs", "reader"):
        who = open_as(role)
        with admin.unchanged():
            for name in [*tables(admin, "BASE TABLE"), *tables(admin, "VIEW")]:
                column = admin.raw(f"SHOW COLUMNS FROM {name}")[0][0]
                denied(who, f"UPDATE {name} SET {column} = 1")
                denied(who, f"INSERT INTO {name} ({column}) VALUES (1)")
                denied(who, f"DELETE FROM {name}")
            for name, parameters in facts.parameters.items():
                nulls = ", ".join(["NULL"] * len(parameters))
                denied(who, f"CALL {name}({nulls})")


def test_jqs_reads_what_says_so_and_no_more(jsm: Sql, jqs: Sql, admin: Sql) -> None:
    make_instance(jsm, "R")
    allowed = {
        path.stem for path in SQL.glob("views/*.sql") if "\n-- Access: JQS\n" in f"\n{path.read_text()}"
    }
    assert len(allowed) > 20
    for name in tables(admin, "VIEW"):
        if name in allowed:
            jqs.raw(f"SELECT * FROM {name} LIMIT 1")
        else:
            denied(jqs, f"SELECT * FROM {name} LIMIT 1")
    for name in tables(admin, "BASE TABLE"):
        if name in LOOKUP:
            assert jqs.raw(f"SELECT * FROM {name} LIMIT 1")
        else:
            denied(jqs, f"SELECT * FROM {name} LIMIT 1")


def test_reader_reads_everything(open_as: Any, admin: Sql) -> None:
    reader = open_as("reader")
    for name in [*tables(admin, "BASE TABLE"), *tables(admin, "VIEW")]:
        reader.raw(f"SELECT * FROM {name} LIMIT 1")


def test_jsm_calls_public_procedures_only(jsm: Sql, facts: Facts) -> None:
    internal = sorted(set(facts.parameters) - set(facts.public))
    assert len(internal) > 8
    for name in internal:
        marks = ", ".join(["@x"] * len(facts.parameters[name]))
        denied(jsm, f"CALL {name}({marks})")
    for path in SQL.glob("functions/*.sql"):
        text = path.read_text()
        count = text.split("(", 1)[1].split("\n)")[0].count(" in_") if "()" not in text.split("\n")[0] else 0
        denied(jsm, f"SELECT {path.stem}({', '.join(['1'] * count)})")


def test_history_is_written_by_triggers_only(jsm: Sql, admin: Sql) -> None:
    make_instance(jsm, "E")
    with admin.unchanged():
        for name in (*HISTORY, "job_gate"):
            column = admin.raw(f"SHOW COLUMNS FROM {name}")[0][0]
            denied(jsm, f"INSERT INTO {name} ({column}) VALUES (1)")
            denied(jsm, f"UPDATE {name} SET {column} = 1")
            denied(jsm, f"DELETE FROM {name}")


def test_state_machines_are_not_for_writing(jsm: Sql, admin: Sql) -> None:
    before = admin.raw("SELECT * FROM job_instance_transition ORDER BY 1, 2")
    denied(jsm, "INSERT INTO job_instance_transition VALUES ('D', 'R', 'because')")
    denied(jsm, "UPDATE job_transition SET to_status = 'D'")
    assert admin.raw("SELECT * FROM job_instance_transition ORDER BY 1, 2") == before


@pytest.mark.parametrize("password", ["", "jobmon", "docker"])
def test_nobody_logs_in_as_the_owner(rows: Any, password: str) -> None:
    spec = rows.admin.with_account(rows.owner, password)
    with pytest.raises(pymysql.err.MySQLError) as caught:
        connect(spec)
    # 3118 MySQL, 4151 MariaDB: the account is locked
    assert caught.value.args[0] in (1045, 1130, 1698, 3118, 4151)


def test_the_owner_is_locked(rows: Any, admin: Sql) -> None:
    text = admin.one(f"SHOW CREATE USER `{rows.owner}`@`localhost`")
    assert "ACCOUNT LOCK" in text


@pytest.mark.parametrize("role", ["jsm", "jqs", "reader", "migrator"])
def test_passwords_are_needed(rows: Any, role: str) -> None:
    spec = rows.spec(role)
    assert len(spec.password) >= 16
    for password in ("", spec.user, "docker", spec.password[:-1], spec.password.swapcase()):
        with pytest.raises(pymysql.err.MySQLError):
            connect(spec.with_account(spec.user, password))


def test_definers_and_security(rows: Any, admin: Sql) -> None:
    wanted = f"{rows.owner}@localhost"
    for column, table, schema in (
        ("DEFINER", "ROUTINES", "ROUTINE_SCHEMA"),
        ("DEFINER", "TRIGGERS", "TRIGGER_SCHEMA"),
        ("DEFINER", "VIEWS", "TABLE_SCHEMA"),
    ):
        found = admin.raw(
            f"SELECT DISTINCT {column} FROM information_schema.{table} WHERE {schema}=DATABASE()"
        )
        assert found == [(wanted,)], table
    for table, schema in (("ROUTINES", "ROUTINE_SCHEMA"), ("VIEWS", "TABLE_SCHEMA")):
        found = admin.raw(
            f"SELECT DISTINCT SECURITY_TYPE FROM information_schema.{table} WHERE {schema}=DATABASE()"
        )
        assert found == [("DEFINER",)], table


def test_an_error_tells_jsm_nothing_of_other_rows(jsm: Sql) -> None:
    dag_id = make_dag(jsm, name="secret name")
    for statement in (
        f"UPDATE task_dag SET dag_id = {dag_id + 1}",
        f"INSERT INTO task_dag (dag_id, dag_hash, user) VALUES ({dag_id}, 'x', 'x')",
    ):
        with pytest.raises(pymysql.err.MySQLError) as caught:
            jsm.raw(statement)
        assert "secret" not in str(caught.value.args[1])
