"""All routines, triggers and views are loaded again and again while clients work: no call fails, no write
gets past a trigger.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pymysql
from pymysql.connections import Connection

from jobmon.db import load
from jobmon.db.connect import call_with_retry, connect, is_lost_connection
from jobmon.db.load import Loader, open_for_ddl, read_sql_dir

SECONDS = 4.0


class Client(threading.Thread):
    """Does one thing over and over on its own connection, through call_with_retry."""

    def __init__(
        self, spec: Any, statements: list[str], end: threading.Event, *, transaction: bool = False
    ) -> None:
        super().__init__(daemon=True)
        self.spec = spec
        self.statements = statements
        self.end = end
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
            while not self.end.is_set():
                start = time.monotonic()
                call_with_retry(unit, on_retry=lambda error, attempt: self.retries.append(error.args[0]))
                self.slowest = max(self.slowest, time.monotonic() - start)
                self.done += 1
        except BaseException as error:
            self.error = error
        finally:
            if conn is not None:
                conn.close()


def deploy_under_load(
    clients: list[Client], deploy: Callable[[], None], end: threading.Event, *, deploys: int, calls: int
) -> None:
    """Deploy over and over, for some seconds at least, until all clients have made more calls than that."""
    started = time.monotonic()
    try:
        for client in clients:
            client.start()
        done = 0
        while done < deploys or time.monotonic() < started + SECONDS or any(c.done <= calls for c in clients):
            if any(client.error for client in clients):
                break
            assert time.monotonic() < started + 90, [client.done for client in clients]
            deploy()
            done += 1
    finally:
        end.set()
        for client in clients:
            client.join(30)
    assert [client.error for client in clients] == [None] * len(clients)
    assert not any(client.is_alive() for client in clients)


def test_redeploy_under_load(own_database: Any, tree: Any) -> None:
    own_database.migrate(**tree.dirs)
    own_database.grant(**tree.dirs)
    own_database.query(f"GRANT INSERT ON {own_database.name}.job TO {own_database.prefix}jsm@'%'")
    end = threading.Event()
    jsm, jqs = own_database.spec("jsm"), own_database.spec("jqs")
    clients = [
        *[Client(jsm, ["CALL add_job('called')"], end) for _ in range(3)],
        *[Client(jsm, ["INSERT INTO job (name) VALUES ('raw')"], end) for _ in range(2)],
        Client(
            jsm,
            ["INSERT INTO job (name) VALUES ('raw')", "DO SLEEP(0.02)", "CALL add_job('called')"],
            end,
            transaction=True,
        ),
        Client(jqs, ["SELECT COUNT(*) FROM cooked"], end),
    ]
    conn = open_for_ddl(own_database.admin)
    loader = Loader(conn, own_database.name, own_database.owner)

    def deploy() -> None:
        # As if every file had changed.
        with conn.cursor() as cursor:
            cursor.execute("UPDATE schema_object SET file_checksum='' WHERE object_type<>'TABLE'")
        assert len(loader.load_all(tree.sql).loaded) == len(read_sql_dir(tree.sql))

    deploy_under_load(clients, deploy, end, deploys=2, calls=10)
    conn.close()
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
    end = threading.Event()
    jsm = database.spec("jsm")
    clients = [
        Client(jsm, _named_call(database, "add_task_dag", {"in_user": "u", "in_dag_hash": "h"}), end),
        Client(jsm, ["CALL get_schema_version()"], end),
        Client(jsm, ["INSERT INTO task_dag (dag_hash, user) VALUES ('raw', 'u')"], end),
        Client(database.spec("jqs"), ["SELECT COUNT(*) FROM get_jobs WHERE dag_id = 1"], end),
    ]
    conn = open_for_ddl(database.admin)
    loader = Loader(conn, database.name, database.owner)

    def deploy() -> None:
        with conn.cursor() as cursor:
            cursor.execute("UPDATE schema_object SET file_checksum='' WHERE object_type<>'TABLE'")
        loader.load_all()

    deploy_under_load(clients, deploy, end, deploys=1, calls=5)
    conn.close()
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
