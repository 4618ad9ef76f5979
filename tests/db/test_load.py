"""Loading routines, triggers and views by checksum."""

from __future__ import annotations

from typing import Any

import pytest

from jobmon.db import catalog
from jobmon.db.connect import connect
from jobmon.db.load import LoadError, SqlFileError, read_sql_dir


@pytest.fixture
def base(own_database: Any, tree: Any) -> Any:
    """A migrated database of the tree."""
    own_database.migrate(**tree.dirs)
    return own_database


def names(database: Any) -> set[str]:
    conn = connect(database.admin)
    found = {f"{kind} {name}" for kind, name in catalog.read_objects(conn, database.name)}
    conn.close()
    return found


ALL = {"PROCEDURE add_job", "PROCEDURE helper", "TRIGGER job_a", "TRIGGER job_b", "VIEW cooked", "VIEW raw"}


def test_loads_all_views_in_dependency_order(base: Any) -> None:
    assert names(base) == ALL


def test_second_time_nothing_is_loaded(base: Any, tree: Any) -> None:
    assert not base.migrate(**tree.dirs).objects


def test_only_what_changed_is_loaded(base: Any, tree: Any) -> None:
    tree.write("procedures/helper", (tree.sql / "procedures/helper.sql").read_text().replace("DO 0", "DO 1"))
    tree.write("triggers/job_b", (tree.sql / "triggers/job_b.sql").read_text().replace("'b'", "'bb'"))
    assert base.migrate(**tree.dirs).objects.loaded == ["procedure helper", "trigger job_b"]
    base.query("INSERT INTO job (name) VALUES ('x')")
    assert base.query("SELECT mark FROM job_log ORDER BY id") == [("a",), ("bb",)]


def test_what_was_changed_by_hand_or_lost_is_loaded_again(base: Any, tree: Any) -> None:
    base.query("DROP TRIGGER job_a")
    base.query("DROP PROCEDURE helper")
    base.query("CREATE PROCEDURE helper() SQL SECURITY DEFINER COMMENT 'x' SELECT 1")
    base.query("ALTER PROCEDURE add_job SQL SECURITY INVOKER")
    base.query("CREATE OR REPLACE VIEW raw AS SELECT job_id, name, 7 AS hits FROM job")
    loaded = base.migrate(**tree.dirs).objects.loaded
    assert loaded == ["procedure add_job", "procedure helper", "view raw", "trigger job_a"]
    assert not base.migrate(**tree.dirs).objects


def test_an_object_without_a_file_is_dropped_but_not_a_foreign_one(base: Any, tree: Any) -> None:
    base.query("CREATE VIEW mine AS SELECT 1 AS one")
    tree.remove("views/cooked")
    tree.remove("triggers/job_a")
    tree.remove("procedures/helper")
    assert base.migrate(**tree.dirs).objects.dropped == ["procedure helper", "trigger job_a", "view cooked"]
    assert names(base) == {"PROCEDURE add_job", "TRIGGER job_b", "VIEW raw", "VIEW mine"}


def test_triggers_run_in_the_order_of_their_names(base: Any, tree: Any) -> None:
    tree.write("triggers/job_0", "CREATE TRIGGER job_0 AFTER INSERT ON job FOR EACH ROW\n"
               "INSERT INTO job_log (name, mark) VALUES (NEW.name, '0')")  # fmt: skip
    tree.write("triggers/job_a", (tree.sql / "triggers/job_a.sql").read_text().replace("'a'", "'A'"))
    base.migrate(**tree.dirs)
    base.query("INSERT INTO job (name) VALUES ('x')")
    assert base.query("SELECT mark FROM job_log ORDER BY id") == [("0",), ("A",), ("b",)]


def test_a_wrong_order_of_triggers_is_put_right(base: Any, tree: Any) -> None:
    [(_, _, create, *_)] = base.query("SHOW CREATE TRIGGER job_a")
    base.query("DROP TRIGGER job_a")
    base.query(create)
    assert base.query("SHOW TRIGGERS")[0][0] in ("job_a", "job_b")
    base.migrate(**tree.dirs)
    base.query("INSERT INTO job (name) VALUES ('x')")
    assert base.query("SELECT mark FROM job_log ORDER BY id") == [("a",), ("b",)]


def test_a_trigger_may_move_to_another_table(base: Any, tree: Any) -> None:
    tree.write("triggers/job_b", "CREATE TRIGGER job_b AFTER INSERT ON job_status FOR EACH ROW\n"
               "INSERT INTO job_log (mark) VALUES (NEW.status)")  # fmt: skip
    base.migrate(**tree.dirs)
    base.query("INSERT INTO job_status VALUES ('X')")
    assert base.query("SELECT mark FROM job_log") == [("X",)]
    assert names(base) == ALL


@pytest.mark.parametrize("name", ["triggers/job_a", "procedures/add_job", "views/raw"])
def test_a_file_that_the_server_refuses_leaves_the_old_object(base: Any, tree: Any, name: str) -> None:
    good = (tree.sql / f"{name}.sql").read_text()
    bad = {
        "triggers/job_a": good.replace("NEW.name", "NEW.nonsense"),
        "procedures/add_job": good.replace("SELECT JSON_OBJECT", "SELECT FROM WHERE"),
        "views/raw": good.replace("job_id", "nonsense"),
    }[name]
    tree.write(name, bad)
    with pytest.raises(LoadError, match=f"{name.split('/')[1]}.sql"):
        base.migrate(**tree.dirs)
    assert names(base) == ALL
    base.query("CALL add_job('x')")
    assert base.query("SELECT mark FROM job_log ORDER BY id") == [("a",), ("b",)]
    tree.write(name, good)
    base.migrate(**tree.dirs)
    assert not base.migrate(**tree.dirs).objects


def test_grants_survive_a_reload(base: Any, tree: Any) -> None:
    base.grant(**tree.dirs)
    base.query("GRANT EXECUTE ON PROCEDURE helper TO %s@'%%' WITH GRANT OPTION", (f"{base.prefix}reader",))
    for name in ("add_job", "helper"):
        path = tree.sql / f"procedures/{name}.sql"
        path.write_text(path.read_text().replace("Description:", "Description: now"))
    assert len(base.migrate(**tree.dirs).objects.loaded) == 2
    base.connect("jsm").cursor().execute("CALL add_job('x')")
    held = [row[0] for row in base.query(f"SHOW GRANTS FOR {base.prefix}reader@'%'")]
    assert any("EXECUTE ON PROCEDURE" in line and "GRANT OPTION" in line for line in held)


def test_session_of_routines_is_fixed(base: Any) -> None:
    collation = "utf8mb4_nopad_bin" if base.kind == "mariadb" else "utf8mb4_0900_bin"
    rows = base.query(
        "SELECT DISTINCT SQL_MODE LIKE '%%STRICT_TRANS_TABLES%%', CHARACTER_SET_CLIENT, COLLATION_CONNECTION,"
        " DATABASE_COLLATION FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA=%s",
        (base.name,),
    )
    assert rows == [(1, "utf8mb4", collation, collation)]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("procedures/p", "SELECT 1", "CREATE"),
        ("procedures/p", "CREATE OR REPLACE PROCEDURE p() SELECT 1", "OR REPLACE"),
        ("procedures/p", "CREATE DEFINER=root@localhost PROCEDURE p() SELECT 1", "DEFINER"),
        ("procedures/p", "CREATE PROCEDURE q() SELECT 1", "named p"),
        ("procedures/p", "CREATE VIEW p AS SELECT 1", "view"),
        ("procedures/p", "CREATE PROCEDURE p() COMMENT 'x' SELECT 1", "Access"),
        ("procedures/p", "CREATE PROCEDURE p() COMMENT '\nAccess: JQS\n' SELECT 1", "Access"),
        ("views/v", "-- Access: JSM\nCREATE VIEW v AS SELECT 1", "Access"),
        ("triggers/t", "CREATE TRIGGER t BEFORE INSERT ON job SET @x=1", "row trigger"),
    ],
)
def test_wrong_files_are_named(tree: Any, name: str, text: str, says: str) -> None:
    tree.write(name, text)
    with pytest.raises(SqlFileError, match=says) as error:
        read_sql_dir(tree.sql)
    assert f"{name}.sql" in str(error.value)


def test_file_that_is_not_utf8(tree: Any) -> None:
    (tree.sql / "views/v.sql").write_bytes(b"-- \xff\nCREATE VIEW v AS SELECT 1")
    with pytest.raises(SqlFileError, match="UTF-8"):
        read_sql_dir(tree.sql)
