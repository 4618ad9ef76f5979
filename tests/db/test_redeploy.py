"""All routines, triggers and views are loaded again and again while clients work: no call fails, no write
gets past a trigger.
"""

from __future__ import annotations

import threading
import time
from typing import Any

import pymysql
from pymysql.connections import Connection

from jobmon.db import load
from jobmon.db.connect import call_with_retry, connect, is_lost_connection
from jobmon.db.load import Loader, open_for_ddl, read_sql_dir

SECONDS = 4.0


class Client(threading.Thread):
    """Does one thing over and over on its own connection, through call_with_retry."""

    def __init__(self, spec: Any, statements: list[str], until: float, *, transaction: bool = False) -> None:
        super().__init__(daemon=True)
        self.spec = spec
        self.statements = statements
        self.until = until
        self.transaction = transaction
        self.done = 0
        self.retries: list[int] = []
        self.slowest = 0.0
        self.error: BaseException | None = None

    def run(self) -> None:
        conn: Connection | None = None

        def unit() -> None:
            nonlocal conn
            if conn is None:
                conn = connect(self.spec, autocommit=not self.transaction)
            try:
                with conn.cursor() as cursor:
                    for statement in self.statements:
                        cursor.execute(statement)
                        while cursor.nextset():
                            pass
                conn.commit()
            except pymysql.err.Error as error:
                if is_lost_connection(error):
                    conn = None
                else:
                    conn.rollback()
                raise

        try:
            while time.monotonic() < self.until:
                start = time.monotonic()
                call_with_retry(unit, on_retry=lambda error, attempt: self.retries.append(error.args[0]))
                self.slowest = max(self.slowest, time.monotonic() - start)
                self.done += 1
        except BaseException as error:
            self.error = error
        finally:
            if conn is not None:
                conn.close()


def test_redeploy_under_load(own_database: Any, tree: Any) -> None:
    own_database.migrate(**tree.dirs)
    own_database.grant(**tree.dirs)
    own_database.query(f"GRANT INSERT ON {own_database.name}.job TO {own_database.prefix}jsm@'%'")
    until = time.monotonic() + SECONDS
    jsm, jqs = own_database.spec("jsm"), own_database.spec("jqs")
    clients = [
        *[Client(jsm, ["CALL add_job('called')"], until) for _ in range(3)],
        *[Client(jsm, ["INSERT INTO job (name) VALUES ('raw')"], until) for _ in range(2)],
        Client(
            jsm,
            ["INSERT INTO job (name) VALUES ('raw')", "DO SLEEP(0.02)", "CALL add_job('called')"],
            until,
            transaction=True,
        ),
        Client(jqs, ["SELECT COUNT(*) FROM cooked"], until),
    ]
    for client in clients:
        client.start()
    deploys = 0
    conn = open_for_ddl(own_database.admin)
    loader = Loader(conn, own_database.name, own_database.owner)
    while time.monotonic() < until - 0.5:
        # As if every file had changed.
        with conn.cursor() as cursor:
            cursor.execute("UPDATE schema_object SET file_checksum='' WHERE object_type<>'TABLE'")
        assert len(loader.load_all(tree.sql).loaded) == len(read_sql_dir(tree.sql))
        deploys += 1
    for client in clients:
        client.join(30)
    conn.close()
    assert [client.error for client in clients] == [None] * len(clients)
    assert deploys >= 2
    assert all(client.done > 10 for client in clients)
    assert max(client.slowest for client in clients) < 15
    # Both triggers have seen every row.
    [(jobs,)] = own_database.query("SELECT COUNT(*) FROM job")
    marks = dict(own_database.query("SELECT mark, COUNT(*) FROM job_log GROUP BY mark"))
    assert marks == {"a": jobs, "b": jobs}
    assert jobs >= sum(client.done for client in clients[:-1])
    if own_database.kind == "mariadb":
        assert not any({1305, 1370} & set(client.retries) for client in clients), "OR REPLACE has no gap"


def test_redeploy_of_the_project_s_own_sql_under_load(make_database: Any) -> None:
    database = make_database(migrated=True)
    until = time.monotonic() + SECONDS
    jsm = database.spec("jsm")
    clients = [
        Client(jsm, _named_call(database, "add_task_dag", {"in_user": "u", "in_dag_hash": "h"}), until),
        Client(jsm, ["CALL get_schema_version()"], until),
        Client(jsm, ["INSERT INTO task_dag (dag_hash, user) VALUES ('raw', 'u')"], until),
        Client(database.spec("jqs"), ["SELECT COUNT(*) FROM get_jobs WHERE dag_id = 1"], until),
    ]
    for client in clients:
        client.start()
    conn = open_for_ddl(database.admin)
    loader = Loader(conn, database.name, database.owner)
    deploys = 0
    while time.monotonic() < until - 0.5:
        with conn.cursor() as cursor:
            cursor.execute("UPDATE schema_object SET file_checksum='' WHERE object_type<>'TABLE'")
        loader.load_all()
        deploys += 1
    for client in clients:
        client.join(30)
    conn.close()
    assert [client.error for client in clients] == [None] * len(clients)
    assert deploys >= 1 and all(client.done > 5 for client in clients)
    assert not database.audits()


def _named_call(database: Any, procedure: str, values: dict[str, str]) -> list[str]:
    names = database.query(
        "SELECT PARAMETER_NAME FROM information_schema.PARAMETERS WHERE SPECIFIC_SCHEMA=%s"
        " AND SPECIFIC_NAME=%s ORDER BY ORDINAL_POSITION",
        (database.name, procedure),
    )
    arguments = [f"'{values[name]}'" if name in values else "NULL" for (name,) in names]
    return [f"CALL {procedure}({', '.join(arguments)})"]


def test_many_loaders_and_a_held_lock_do_not_hang(own_database: Any, tree: Any) -> None:
    own_database.migrate(**tree.dirs)
    holder = own_database.connect("admin", autocommit=False)
    holder.cursor().execute("INSERT INTO job (name) VALUES ('held')")
    path = tree.sql / "triggers/job_a.sql"
    path.write_text(path.read_text().replace("'a'", "'A'"))
    try:
        own_database.migrate(**tree.dirs, patience=0.5)
        raise AssertionError("it can't have been loaded")
    except load.LoadError as error:
        assert "held a lock" in str(error)
    # The old one is still there, and works.
    own_database.query("SELECT 1")
    holder.cursor().execute("INSERT INTO job (name) VALUES ('again')")
    holder.commit()
    assert own_database.query("SELECT mark FROM job_log ORDER BY id") == [("a",), ("b",)] * 2
    own_database.migrate(**tree.dirs)
