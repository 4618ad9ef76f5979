"""What a node of Galera leaves behind when it ends a transaction at a bad moment, and how JSM goes on."""

from __future__ import annotations

import contextlib
import struct
from typing import Any

import pymysql
import pytest
from http_helpers import config_for
from pymysql.connections import Connection

from jobmon.thin_common.database import Database
from jobmon.thin_common.errors import RelayError


@pytest.mark.parametrize(
    "error, told",
    [
        (
            pymysql.err.ProgrammingError(1146, "Table 'jobmon.job' doesn't exist"),
            "Table 'jobmon.job' doesn't exist",
        ),
        (struct.error("unpack_from requires a buffer of at least 9 bytes"), "DATABASE_UNAVAILABLE"),
    ],
    ids=["a table that its routines can't find", "a packet out of its place"],
)
def test_a_session_that_is_spoilt_is_not_used_again(db: Any, error: Exception, told: str) -> None:
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
        assert getattr(caught.value, "code", caught.value.args[-1]) == told


def test_tables_that_were_opened_have_read_their_triggers(server: Any, db: Any) -> None:
    """Else a node of Galera may be ended while it reads one in a transaction, and keep a part of it."""
    if server.embedded is None or server.kind != "mariadb":
        pytest.skip("only MariaDB keeps triggers in files, and only an embedded server's are at hand")
    files = list((server.embedded.data_dir / db.name).glob("*.TRG"))
    whole = {file: file.read_bytes() for file in files}
    job = "INSERT INTO job (job_hash, name, command) VALUES ('1', 'a', 'true')"
    with contextlib.closing(db.connect("admin")) as conn, conn.cursor() as cursor:
        cursor.execute("FLUSH TABLES")
        with contextlib.closing(db.connect("jsm")) as jsm, jsm.cursor() as caller:
            caller.execute("CALL open_tables()")
            assert caller.fetchall() == ((f'{{"num_tables": {len(files)}}}',),)
        try:
            for file in files:
                file.write_bytes(whole[file].replace(b"BEGIN", b"XEGIN"))
            cursor.execute(job)
            cursor.execute("FLUSH TABLES")
            with pytest.raises(pymysql.err.ProgrammingError, match="has an error in its body"):
                cursor.execute(job)
        finally:
            for file in files:
                file.write_bytes(whole[file])
            cursor.execute("FLUSH TABLES")
