"""What a node of Galera leaves behind when it ends a transaction at a bad moment: JSM mends it."""

from __future__ import annotations

import contextlib
import struct
import threading
from collections.abc import Callable
from typing import Any

import pymysql
import pytest
from http_helpers import Api, config_for, make_dag, make_job
from pymysql.connections import Connection

from jobmon.thin_common.database import Database
from jobmon.thin_common.errors import RelayError


def test_a_trigger_that_the_server_has_read_in_part(
    server: Any, db: Any, make_api: Callable[..., Api]
) -> None:
    """The cached copy is spoilt as Galera does it, by a file that is cut short while it is read."""
    if server.embedded is None or server.kind != "mariadb":
        pytest.skip("only MariaDB keeps triggers in files, and only an embedded server's are at hand")
    jsm = make_api("jsm", db)
    dag_id = make_dag(jsm)
    file = server.embedded.data_dir / db.name / "job.TRG"
    whole = file.read_bytes()
    body = b"BEGIN"
    assert body in whole
    with contextlib.closing(db.connect("admin")) as conn, conn.cursor() as cursor:
        try:
            file.write_bytes(whole.replace(body, b"XEGIN", 1))
            cursor.execute("FLUSH TABLES job")
            cursor.execute("SELECT COUNT(*) FROM job")
        finally:
            file.write_bytes(whole)
        with pytest.raises(pymysql.err.ProgrammingError, match="has an error in its body") as caught:
            cursor.execute("INSERT INTO job (job_hash, name, command) VALUES ('1', 'a', 'true')")
    assert caught.value.args[0] == 1064

    # some at once: the tables are opened anew once for all of them, most likely
    answers: list[Any] = []
    threads = [
        threading.Thread(target=lambda number=number: answers.append(make_job(jsm, dag_id, number)))
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({answer["job_id"] for answer in answers}) == 4
    assert db.query("SELECT COUNT(*) FROM job") == [(4,)]


@pytest.mark.parametrize(
    "error",
    [
        pymysql.err.ProgrammingError(1146, "Table 'jobmon.job' doesn't exist"),
        struct.error("unpack_from requires a buffer of at least 9 bytes"),
    ],
    ids=["a table that its routines can't find", "a packet out of its place"],
)
def test_a_session_that_is_spoilt_is_not_used_again(db: Any, error: Exception) -> None:
    database = Database(config_for(db), "jsm", size=1)
    with contextlib.closing(database):
        used: list[int] = []

        def work(connection: Connection) -> str:
            used.append(connection.thread_id())
            if len(used) < 3:
                raise error
            return "done"

        assert database.run(work) == "done"
        assert len(set(used)) == 3

        def fail(connection: Connection) -> None:
            raise error

        # what does not pass is told as what it is
        with pytest.raises((RelayError, pymysql.err.ProgrammingError)) as caught:
            database.run(fail, attempts=2)
        if isinstance(caught.value, RelayError):
            assert caught.value.code == "DATABASE_UNAVAILABLE"


def test_reopen_tables_leaves_a_transaction_alone(db: Any) -> None:
    with contextlib.closing(db.connect("jsm")) as conn, conn.cursor() as cursor:
        cursor.execute("CALL reopen_tables()")
        [(document,)] = cursor.fetchall()
        tables = db.query(
            "SELECT COUNT(*) FROM information_schema.TABLES"
            " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_TYPE = 'BASE TABLE'"
        )
        assert document == f'{{"num_tables": {tables[0][0]}}}'
        cursor.execute("BEGIN")
        cursor.execute("CALL add_task_dag('dag', 'ann', 'hash', NULL, NULL, NULL, NULL)")
        cursor.execute("CALL reopen_tables()")
        assert cursor.fetchall() == (('{"num_tables": 0}',),)
        conn.rollback()
    assert db.query("SELECT COUNT(*) FROM task_dag") == [(0,)]


def test_a_trigger_that_stays_broken_costs_the_others_little(db: Any) -> None:
    opened: list[Connection] = []
    database = Database(config_for(db), "jsm", size=1, reopen=opened.append)
    with contextlib.closing(database):

        def fail(connection: Connection) -> None:
            raise pymysql.err.ProgrammingError(1064, "Trigger 'a' has an error in its body: 'Near'")

        with pytest.raises(RelayError) as caught:
            database.run(fail, attempts=4)
    assert caught.value.code == "DATABASE_BUSY"
    assert 1 <= len(opened) < 3
