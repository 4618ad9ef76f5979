"""The five accounts: what they hold, what is taken away, and that it is so when one tries."""

from __future__ import annotations

import json
import os
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pymysql
import pytest

from jobmon.db import grants
from jobmon.db.catalog import DatabaseError
from jobmon.db.connect import connect
from jobmon.db.grants import Grant, parse_grant


@pytest.fixture
def base(own_database: Any, tree: Any) -> Any:
    own_database.migrate(**tree.dirs)
    own_database.grant(**tree.dirs)
    return own_database


def check(database: Any, tree: Any) -> dict[str, grants.AccountReport]:
    reports = grants.check_grants(
        database.admin, prefix=database.prefix, accounts_file=database.accounts_file, **tree.dirs
    )
    return {report.role: report for report in reports}


def held(database: Any, tree: Any, role: str) -> set[str]:
    schema = f"`{database.name}`"
    return {str(grant).replace(schema, "DB").replace(schema.replace("_", "\\_"), "DB")
            for grant in check(database, tree)[role].held}  # fmt: skip


def test_exactly_what_each_holds(base: Any, tree: Any) -> None:
    assert held(base, tree, "jsm") == {
        "EXECUTE ON PROCEDURE DB.`add_job`",
        "INSERT ON DB.`job`",
        "UPDATE ON DB.`job`",
    }
    assert held(base, tree, "jqs") == {
        "SELECT ON DB.`cooked`",
        "SELECT ON DB.`job_status`",
        "SELECT ON DB.`schema_info`",
    }
    assert held(base, tree, "reader") == {"SELECT ON DB.*"}
    assert held(base, tree, "owner") == {"ALL PRIVILEGES ON DB.*"}
    assert {"GRANT OPTION ON DB.*", "TRIGGER ON DB.*"} < held(base, tree, "migrator")
    assert not any(grant.endswith("*.*") and "DEFINER" not in grant and "SET USER" not in grant
                   and "SHOW_ROUTINE" not in grant for grant in held(base, tree, "migrator"))  # fmt: skip
    assert all(report.ok for report in check(base, tree).values())


@pytest.mark.parametrize(
    ("role", "statement", "allowed"),
    [
        ("jsm", "CALL add_job('x')", True),
        ("jsm", "INSERT INTO job (name) VALUES ('x')", True),
        ("jsm", "UPDATE job SET hits = 1", True),
        ("jsm", "CALL helper()", False),
        ("jsm", "SELECT * FROM job", False),
        ("jsm", "SELECT * FROM cooked", False),
        ("jsm", "DELETE FROM job", False),
        ("jsm", "INSERT INTO job_log (name) VALUES ('x')", False),
        ("jsm", "UPDATE job_status SET status = 'X'", False),
        ("jsm", "DROP TABLE job", False),
        ("jsm", "TRUNCATE TABLE job", False),
        ("jsm", "CREATE TABLE t (a INT)", False),
        ("jsm", "DROP TRIGGER job_a", False),
        ("jqs", "SELECT * FROM cooked", True),
        ("jqs", "SELECT * FROM job_status", True),
        ("jqs", "SELECT * FROM raw", False),
        ("jqs", "SELECT * FROM job", False),
        ("jqs", "UPDATE job SET hits = 1", False),
        ("jqs", "CALL add_job('x')", False),
        ("jqs", "DROP VIEW cooked", False),
        ("reader", "SELECT * FROM job", True),
        ("reader", "SELECT * FROM raw", True),
        ("reader", "DELETE FROM job", False),
        ("reader", "CALL add_job('x')", False),
        ("migrator", "CREATE TABLE t (a INT)", True),
        ("migrator", "CREATE USER somebody@localhost", False),
        ("migrator", "SELECT authentication_string FROM mysql.user", False),
    ],
)
def test_tried_for_real(granted: Any, role: str, statement: str, allowed: bool) -> None:
    conn = granted.connect(role, autocommit=False)
    try:
        with conn.cursor() as cursor:
            if allowed:
                cursor.execute(statement)
            else:
                with pytest.raises(pymysql.err.OperationalError) as error:
                    cursor.execute(statement)
                assert error.value.args[0] in (1142, 1143, 1227, 1370)
    finally:
        conn.rollback()
        conn.close()


def test_nobody_logs_in_as_owner(base: Any) -> None:
    base.query(f"ALTER USER {base.owner}@localhost IDENTIFIED BY 'Aa1-known-now'")
    with pytest.raises(pymysql.err.OperationalError):
        connect(base.admin.with_account(base.owner, "Aa1-known-now"))


def test_accounts_file(base: Any) -> None:
    document = json.loads(base.accounts_file.read_text())
    assert stat.S_IMODE(base.accounts_file.stat().st_mode) == 0o600
    assert set(document) == {"prefix", "host", "port", "unix_socket", "database", "accounts"}
    assert document["database"] == base.name and document["prefix"] == base.prefix
    passwords = {account["password"] for account in document["accounts"].values()}
    assert set(document["accounts"]) == {"migrator", "jsm", "jqs", "reader"} and len(passwords) == 4
    assert all(len(password) >= 32 for password in passwords)


def passwords(database: Any) -> dict[str, str]:
    accounts = json.loads(database.accounts_file.read_text())["accounts"]
    return {role: account["password"] for role, account in accounts.items()}


def test_passwords_are_kept_rotated_and_repaired(base: Any, tree: Any) -> None:
    before = passwords(base)
    again = base.grant(**tree.dirs)
    assert passwords(base) == before
    assert not (again.created or again.changed_password or again.granted or again.revoked)
    base.query(f"ALTER USER {base.prefix}jsm@'%' IDENTIFIED BY 'Aa1-other'")
    assert base.grant(**tree.dirs).changed_password == ["jsm"]
    after = passwords(base)
    assert after["jsm"] != before["jsm"] and after["jqs"] == before["jqs"]
    rotated = base.grant(**tree.dirs, rotate=True)
    assert rotated.changed_password == ["migrator", "jsm", "jqs", "reader"]
    assert not set(passwords(base).values()) & set(after.values())
    base.connect("jsm")


def test_lost_accounts_file_gives_new_passwords(base: Any, tree: Any) -> None:
    base.accounts_file.unlink()
    assert len(base.grant(**tree.dirs).changed_password) == 4
    base.connect("jqs")


def test_passwords_that_are_given_are_set_and_the_file_is_left_alone(base: Any, tree: Any) -> None:
    document = json.loads(base.accounts_file.read_text())
    for role in document["accounts"]:
        document["accounts"][role]["password"] = f"Aa1-given-to-{role}-{'x' * 20}"
    document["host"] = "as.the.services.know.it"
    base.accounts_file.write_text(text := json.dumps(document))
    given = base.grant(**tree.dirs, given=True)
    assert given.changed_password == ["migrator", "jsm", "jqs", "reader"]
    assert base.accounts_file.read_text() == text
    base.connect("jsm")
    assert not base.grant(**tree.dirs, given=True).changed_password
    grants.drop_accounts(base.server.admin, prefix=base.prefix)
    assert len(base.grant(**tree.dirs, given=True).created) == 5
    base.connect("reader")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"accounts": {}}, "gives no password for"),
        ({"database": "another"}, "is about the database another"),
        ({"password": "short"}, "can't be used"),
        ({"password": "x' REQUIRE NONE; -- 12345"}, "can't be used"),
        ({"password": "backslash\\" * 4}, "can't be used"),
        ({"user": "root"}, "gives no password for"),
    ],
)
def test_a_given_file_that_will_not_do_changes_nothing(
    base: Any, tree: Any, change: dict[str, Any], message: str
) -> None:
    before = passwords(base)
    document = json.loads(base.accounts_file.read_text())
    if change.keys() & {"user", "password"}:
        document["accounts"]["jqs"] |= change
        document["accounts"]["jsm"]["password"] = "Aa1-another-password"
    else:
        document |= change
    original = base.accounts_file.read_text()
    base.accounts_file.write_text(json.dumps(document))
    with pytest.raises(DatabaseError, match=message):
        base.grant(**tree.dirs, given=True)
    base.accounts_file.write_text(original)
    assert not base.grant(**tree.dirs).changed_password
    assert passwords(base) == before


def test_check_looks_at_the_accounts_file(base: Any, tree: Any) -> None:
    os.chmod(base.accounts_file, 0o644)
    base.query(f"ALTER USER {base.prefix}jsm@'%' IDENTIFIED BY 'Aa1-other'")
    reports = check(base, tree)
    assert any("other users can read" in problem for problem in reports["jqs"].problems)
    assert any("not its password" in problem for problem in reports["jsm"].problems)
    base.grant(**tree.dirs)
    assert stat.S_IMODE(base.accounts_file.stat().st_mode) == 0o600
    assert all(report.ok for report in check(base, tree).values())


EXTRAS = [
    ("jsm", "GRANT PROCESS, RELOAD ON *.* TO {account}"),
    ("jsm", "GRANT ALL PRIVILEGES ON *.* TO {account} WITH GRANT OPTION"),
    ("jsm", "GRANT SELECT (name), UPDATE (tag) ON {db}.job TO {account}"),
    ("jsm", "GRANT EXECUTE ON PROCEDURE {db}.helper TO {account} WITH GRANT OPTION"),
    ("jsm", "GRANT DELETE ON {db}.* TO {account}"),
    ("jsm", "GRANT SELECT ON `%`.* TO {account}"),
    ("jqs", "GRANT {prefix}role TO {account} WITH ADMIN OPTION"),
    ("jqs", "GRANT SELECT ON {db}.cooked TO {account} WITH GRANT OPTION"),
    ("jqs", "GRANT PROXY ON {proxied} TO {account}"),
    ("reader", "GRANT ALL PRIVILEGES ON `{escaped}`.* TO {account} WITH GRANT OPTION"),
    ("reader", "GRANT EXECUTE ON {db}.* TO {account}"),
    ("migrator", "GRANT CREATE USER ON *.* TO {account} WITH GRANT OPTION"),
    ("owner", "GRANT SELECT ON mysql.* TO {account}"),
]


@pytest.mark.parametrize(("role", "statement"), EXTRAS)
def test_extra_grants_are_found_and_taken_away(base: Any, tree: Any, role: str, statement: str) -> None:
    account = f"{base.prefix}{role}@'{grants.host_of(role)}'"
    if "role TO" in statement:
        base.query(f"CREATE ROLE {base.prefix}role")
    base.query("ALTER TABLE job ADD COLUMN tag INT")
    names = {
        "account": account,
        "db": base.name,
        "escaped": base.name.replace("_", "\\_"),
        "prefix": base.prefix,
        "proxied": f"{base.prefix}reader@'%'",
    }
    try:
        try:
            base.query(statement.format(**names))
        except pymysql.err.OperationalError as error:
            if error.args[0] == 1698:
                pytest.skip("this admin may not grant PROXY")
            raise
        report = check(base, tree)[role]
        assert not report.ok and report.extra
        result = base.grant(**tree.dirs)
        assert any(revoked == role for revoked, _ in result.revoked)
        assert all(report.ok for report in check(base, tree).values())
    finally:
        if "role TO" in statement:
            base.query(f"DROP ROLE {base.prefix}role")


def test_dynamic_privilege_with_grant_option(base: Any, tree: Any) -> None:
    if base.kind == "mariadb":
        pytest.skip("MariaDB has no dynamic privileges")
    base.query(f"GRANT SET_ANY_DEFINER ON *.* TO {base.prefix}migrator@'%' WITH GRANT OPTION")
    base.query(f"GRANT CONNECTION_ADMIN ON *.* TO {base.prefix}jsm@'%'")
    assert not check(base, tree)["migrator"].ok and not check(base, tree)["jsm"].ok
    base.grant(**tree.dirs)
    assert all(report.ok for report in check(base, tree).values())


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("jsm", "REVOKE EXECUTE ON PROCEDURE {db}.add_job FROM {account}"),
        ("jqs", "REVOKE SELECT ON {db}.cooked FROM {account}"),
        ("owner", "REVOKE DELETE ON `{escaped}`.* FROM {account}"),
        ("owner", "ALTER USER {account} ACCOUNT UNLOCK"),
        ("jsm", "ALTER USER {account} ACCOUNT LOCK"),
        ("reader", "DROP USER {account}"),
        ("owner", "DROP USER {account}"),
    ],
)
def test_what_is_missing_is_found_and_given(base: Any, tree: Any, role: str, statement: str) -> None:
    account = f"{base.prefix}{role}@'{grants.host_of(role)}'"
    base.query(statement.format(account=account, db=base.name, escaped=base.name.replace("_", "\\_")))
    assert not check(base, tree)[role].ok
    base.grant(**tree.dirs)
    assert all(report.ok for report in check(base, tree).values())
    base.connect("jsm").cursor().execute("CALL add_job('x')")


def test_a_second_account_of_the_same_name_is_reported(base: Any, tree: Any) -> None:
    other = f"{base.prefix}jsm@'localhost'"
    base.query(f"CREATE USER {other} IDENTIFIED BY 'Aa1-x'")
    try:
        assert any("another account" in problem for problem in check(base, tree)["jsm"].problems)
    finally:
        base.query(f"DROP USER {other}")


def test_twenty_at_once_end_with_one_set_of_passwords(base: Any, tree: Any) -> None:
    base.accounts_file.unlink()
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(lambda _: base.grant(**tree.dirs), range(20)))
    assert all(report.ok for report in check(base, tree).values())


def test_before_the_migration(own_database: Any, tree: Any) -> None:
    with pytest.raises(DatabaseError, match="no database"):
        own_database.grant(**tree.dirs)
    own_database.migrate(**tree.dirs)
    own_database.query("DROP PROCEDURE add_job")
    with pytest.raises(DatabaseError, match="lacks procedure add_job") as error:
        own_database.grant(**tree.dirs)
    assert "migrate" in error.value.hint


def test_who_may_not_do_it_is_told(base: Any, tree: Any) -> None:
    for role in ("migrator", "reader"):
        with pytest.raises(DatabaseError) as error:
            grants.apply_grants(
                base.spec(role), prefix=base.prefix, accounts_file=base.accounts_file, **tree.dirs
            )
        assert "admin" in error.value.hint


def test_bad_prefix(base: Any, tree: Any) -> None:
    for prefix in ("", "a b", "x" * 30, "p'"):
        with pytest.raises(DatabaseError, match="prefix"):
            grants.apply_grants(base.admin, prefix=prefix, accounts_file=base.accounts_file, **tree.dirs)


def test_new_objects_are_granted_without_an_admin(base: Any, tree: Any) -> None:
    text = (tree.sql / "procedures/add_job.sql").read_text()
    tree.write("procedures/add_more", text.replace("add_job", "add_more"))
    base.migrate(**tree.dirs)
    assert grants.grant_new_objects(base.spec("migrator"), prefix=base.prefix, sql_dir=tree.sql) == []
    base.connect("jsm").cursor().execute("CALL add_more('x')")
    assert all(report.ok for report in check(base, tree).values())


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GRANT USAGE ON *.* TO `u`@`%` IDENTIFIED BY PASSWORD '*AB'", set()),
        ("GRANT SELECT, CREATE TEMPORARY TABLES ON `d\\_b`.* TO `u`@`%` WITH GRANT OPTION",
         {Grant("`d\\_b`.*", p) for p in ("SELECT", "CREATE TEMPORARY TABLES", "GRANT OPTION")}),
        ("GRANT SELECT (`a`, `b, c`), INSERT ON `d`.`t` TO `u`@`%`",
         {Grant("`d`.`t`", p) for p in ("SELECT (`a`)", "SELECT (`b, c`)", "INSERT")}),
        ("GRANT EXECUTE ON FUNCTION `d`.`f` TO 'u'@'%'", {Grant("FUNCTION `d`.`f`", "EXECUTE")}),
        ("GRANT `r`@`%`,`s`@`%` TO `u`@`%` WITH ADMIN OPTION",
         {Grant("ROLE", "`r`@`%`"), Grant("ROLE", "`s`@`%`")}),
        ("GRANT PROXY ON `root`@`localhost` TO `u`@`%`", {Grant("PROXY", "`root`@`localhost`")}),
        ("GRANT SELECT ON `d`.* TO `some_role`", set()),
        ("SET DEFAULT ROLE `r` FOR `u`@`%`", set()),
        ("GRANT A_B,C_D ON *.* TO `u`@`%` WITH GRANT OPTION",
         {Grant("*.*", "A_B WITH GRANT OPTION"), Grant("*.*", "C_D WITH GRANT OPTION")}),
        ("GRANT SELECT ON `we``ird TO`.`x ON y` TO `u`@`%`", {Grant("`we``ird TO`.`x ON y`", "SELECT")}),
    ],
)  # fmt: skip
def test_lines_of_show_grants(line: str, expected: set[Grant]) -> None:
    assert parse_grant(line, "u", "%") == expected


def test_a_line_that_cannot_be_read_is_not_passed_over() -> None:
    with pytest.raises(DatabaseError, match="can't be read"):
        parse_grant("GIVE EVERYTHING TO u", "u", "%")
