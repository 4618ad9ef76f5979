"""Connection strings, the session that every connection has, and retries."""

from __future__ import annotations

from typing import Any

import pymysql
import pytest

from jobmon.db import connect as c
from jobmon.db.connect import ConnectionSpec, ConnStrError


def test_conn_str_round_trip() -> None:
    spec = ConnectionSpec("a@b:c/d", "p#w/d@:é%", "db.example.org", 3307, "my db", "/run/x.sock", "required")
    assert ConnectionSpec.parse(spec.conn_str()) == spec
    assert ConnectionSpec.parse("mysql://u@[::1]:33/db").host == "::1"
    assert ConnectionSpec.parse(ConnectionSpec("u", host="::1").conn_str()).host == "::1"
    assert ConnectionSpec.parse("mysql://u@h").port == 3306
    assert ConnectionSpec.parse("mysql://u@h/").database is None


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("secretpw", "://"),
        ("postgres://u:secretpw@h/d", "scheme"),
        ("mysql://u:secretpw@h:port/d", "port"),
        ("mysql://u:secret#pw@h/d", "%23"),
        ("mysql://h/d", "user"),
        ("mysql://u:secretpw@h/d?colour=red", "colour"),
        ("mysql://u:secretpw@h/d?charset=latin1", "utf8mb4"),
        ("mysql://u:secretpw@h/d?tls=maybe", "tls"),
    ],
)
def test_bad_conn_str_is_named_without_the_password(text: str, says: str) -> None:
    with pytest.raises(ConnStrError) as error:
        ConnectionSpec.parse(text)
    assert says in str(error.value)
    assert "secretpw" not in str(error.value)


def test_repr_hides_the_password() -> None:
    spec = ConnectionSpec("u", "geheim")
    assert "geheim" not in repr(spec) + str(spec) + f"{spec}"


def test_session(server: Any) -> None:
    conn = c.connect(server.admin, session={"lock_wait_timeout": 7, "sql_mode": c.SQL_MODE + ",ANSI_QUOTES"})
    isolation = "tx_isolation" if server.kind == "mariadb" else "transaction_isolation"
    with conn.cursor() as cursor:
        cursor.execute(
            f"SELECT @@autocommit, @@{isolation}, @@time_zone, @@character_set_client, @@lock_wait_timeout,"
            " @@sql_mode"
        )
        *values, sql_mode = cursor.fetchone()
    conn.close()
    assert values == [1, "READ-COMMITTED", "+00:00", "utf8mb4", 7]
    assert {*c.SQL_MODE.split(",")} < {*sql_mode.split(",")}


def test_session_variable_names_are_checked(server: Any) -> None:
    with pytest.raises(ValueError, match="session variable"):
        c.connect(server.admin, session={"x=1, y": 2})


def test_password_beyond_latin_1(server: Any) -> None:
    admin = c.connect(server.admin)
    name, password = "t_unicode_pw", "pä ßwörd'\"\\🙂%"
    with admin.cursor() as cursor:
        cursor.execute(f"DROP USER IF EXISTS {name}@'%'")
        cursor.execute(f"CREATE USER {name}@'%%' IDENTIFIED BY %s", (password,))
        try:
            spec = server.admin.with_account(name, password)
            c.connect(ConnectionSpec.parse(spec.conn_str())).close()
        finally:
            cursor.execute(f"DROP USER {name}@'%'")
    admin.close()


class Failing:
    def __init__(self, *errors: BaseException) -> None:
        self.errors = list(errors)
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        if self.errors:
            raise self.errors.pop(0)
        return "done"


def test_retries_what_passes() -> None:
    fn = Failing(
        pymysql.err.OperationalError(1213, "deadlock"),
        pymysql.err.OperationalError(2006, "gone"),
        pymysql.err.InterfaceError(0, ""),
        ConnectionResetError(),
    )
    seen: list[int] = []
    result = c.call_with_retry(fn, base_delay=0.001, on_retry=lambda error, attempt: seen.append(attempt))
    assert (result, seen) == ("done", [1, 2, 3, 4])


def test_does_not_retry_what_stays() -> None:
    fn = Failing(pymysql.err.IntegrityError(1062, "duplicate"))
    with pytest.raises(pymysql.err.IntegrityError):
        c.call_with_retry(fn)
    assert fn.calls == 1


def test_retries_are_bounded_and_the_last_error_comes_out() -> None:
    fn = Failing(*[pymysql.err.OperationalError(1205, f"try {n}") for n in range(1, 9)])
    with pytest.raises(pymysql.err.OperationalError, match="try 3"):
        c.call_with_retry(fn, attempts=3, base_delay=0.001)
    assert fn.calls == 3


def test_a_real_deadlock_and_a_killed_connection_are_retryable(server: Any) -> None:
    victim, killer = c.connect(server.admin), c.connect(server.admin)
    with killer.cursor() as cursor:
        cursor.execute(f"KILL {victim.thread_id()}")
    with pytest.raises(pymysql.err.Error) as error:
        victim.cursor().execute("SELECT 1")
    assert c.is_lost_connection(error.value)
    with pytest.raises(pymysql.err.Error) as error:
        victim.cursor().execute("SELECT 1")
    assert c.is_retryable(error.value)
    killer.close()
