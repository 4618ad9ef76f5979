"""`validate` finds whatever is not what the files say; `status` tells what is behind."""

from __future__ import annotations

from typing import Any

import pytest

from jobmon.db import validate
from jobmon.db.load import open_for_ddl
from jobmon.db.validate import Finding


@pytest.fixture
def base(own_database: Any, tree: Any) -> Any:
    own_database.migrate(**tree.dirs)
    return own_database


def by_hand(database: Any, statement: str) -> None:
    """Do what somebody does by hand, in a session like the loader's (others are found too)."""
    conn = open_for_ddl(database.admin)
    with conn.cursor() as cursor:
        cursor.execute(statement.replace("OWNER", f"`{database.owner}`@`localhost`"))
    conn.close()


def findings(database: Any, tree: Any, role: str = "admin") -> set[tuple[str, str, str]]:
    found = validate.validate(database.spec(role), owner=database.owner, **tree.dirs)
    assert all(isinstance(finding, Finding) and finding.detail for finding in found)
    return {(finding.kind, finding.name, finding.problem) for finding in found}


def test_nothing_is_found_in_a_good_database(base: Any, tree: Any) -> None:
    assert findings(base, tree) == set()


def test_the_project_s_own_database_is_good(database: Any) -> None:
    assert validate.validate(database.admin, owner=database.owner) == []
    assert validate.status(database.admin, owner=database.owner).current


def test_the_migrator_finds_the_same(base: Any, tree: Any) -> None:
    base.grant(**tree.dirs)
    assert findings(base, tree, "migrator") == set()
    base.query("ALTER TABLE job ADD COLUMN x INT")
    base.query("DROP VIEW cooked")
    assert findings(base, tree, "migrator") == findings(base, tree)


def other_trigger(definer: str, mark: str = "a") -> str:
    return (
        f"CREATE DEFINER={definer} TRIGGER job_a AFTER INSERT ON job FOR EACH ROW PRECEDES job_b\n"
        f"BEGIN\n    INSERT INTO job_log (name, mark) VALUES (NEW.name, '{mark}');\nEND"
    )


@pytest.mark.parametrize(
    ("statements", "expected"),
    [
        (["ALTER PROCEDURE helper COMMENT 'mine'"], {("PROCEDURE", "helper", "changed")}),
        (["DROP PROCEDURE helper"], {("PROCEDURE", "helper", "missing")}),
        (["DROP TRIGGER job_a", other_trigger("OWNER", "z")], {("TRIGGER", "job_a", "changed")}),
        (["DROP TRIGGER job_a"], {("TRIGGER", "job_a", "missing")}),
        (["DROP VIEW cooked"], {("VIEW", "cooked", "missing")}),
        (
            ["CREATE OR REPLACE DEFINER=OWNER VIEW cooked AS SELECT name, 1 AS hits FROM raw"],
            {("VIEW", "cooked", "changed")},
        ),
        (["CREATE PROCEDURE extra() SELECT 1"], {("PROCEDURE", "extra", "extra")}),
        (["CREATE VIEW extra AS SELECT 1 AS one"], {("VIEW", "extra", "extra")}),
        (
            ["CREATE TRIGGER extra BEFORE DELETE ON job FOR EACH ROW SET @x = 1"],
            {("TRIGGER", "extra", "extra")},
        ),
        (["CREATE EVENT extra ON SCHEDULE EVERY 1 YEAR DO SELECT 1"], {("EVENT", "extra", "extra")}),
        (["CREATE TABLE extra (a INT)"], {("TABLE", "extra", "extra")}),
        (["ALTER TABLE job ADD COLUMN extra INT"], {("TABLE", "job", "changed")}),
        (["ALTER TABLE job DROP KEY name"], {("TABLE", "job", "changed")}),
        (["ALTER TABLE job MODIFY hits BIGINT NOT NULL DEFAULT 0"], {("TABLE", "job", "changed")}),
        (
            ["ALTER TABLE job MODIFY name VARCHAR(50) COLLATE utf8mb4_general_ci"],
            {("TABLE", "job", "changed")},
        ),
        (["DROP TABLE job_status"], {("TABLE", "job_status", "missing")}),
        (["ALTER PROCEDURE helper SQL SECURITY INVOKER"], {("PROCEDURE", "helper", "security")}),
        (
            ["ALTER DEFINER=OWNER SQL SECURITY INVOKER VIEW raw AS SELECT job_id, name, hits FROM job"],
            {("VIEW", "raw", "security")},
        ),
        (
            ["DROP TRIGGER job_a", other_trigger("'root'@'localhost'")],
            {("TRIGGER", "job_a", "definer")},
        ),
        (
            ["ALTER DEFINER='gone'@'nowhere' VIEW raw AS SELECT job_id, name, hits FROM job"],
            {("VIEW", "raw", "definer"), ("VIEW", "raw", "broken"), ("VIEW", "cooked", "broken")},
        ),
    ],
)
def test_what_was_changed_by_hand(
    base: Any, tree: Any, statements: list[str], expected: set[tuple[str, str, str]]
) -> None:
    for statement in statements:
        by_hand(base, statement)
    assert findings(base, tree) == expected
    if not any(kind in ("TABLE", "EVENT") or problem == "extra" for kind, _, problem in expected):
        base.migrate(**tree.dirs)
        assert findings(base, tree) == set(), "loading again heals it"


def test_rows_and_use_are_no_change(base: Any, tree: Any) -> None:
    for _ in range(5):
        base.query("CALL add_job('x')")
    base.query("ANALYZE TABLE job")
    assert findings(base, tree) == set()


def test_dropped_definer(base: Any, tree: Any) -> None:
    base.query(f"DROP USER {base.owner}@localhost")
    found = findings(base, tree)
    assert ("account", f"{base.owner}@localhost", "missing") in found
    assert ("VIEW", "raw", "broken") in found
    base.migrate(**tree.dirs)
    assert findings(base, tree) == set()


def test_renamed_definer(base: Any, tree: Any) -> None:
    base.query(f"RENAME USER {base.owner}@localhost TO {base.prefix}other@localhost")
    try:
        assert ("account", f"{base.owner}@localhost", "missing") in findings(base, tree)
    finally:
        base.query(f"DROP USER {base.prefix}other@localhost")


def test_definer_without_privileges(base: Any, tree: Any) -> None:
    base.query(f"REVOKE ALL PRIVILEGES, GRANT OPTION FROM {base.owner}@localhost")
    assert ("VIEW", "raw", "broken") in findings(base, tree)
    base.migrate(**tree.dirs)
    assert findings(base, tree) == set()


def test_another_owner_is_a_finding_and_loading_moves_all(base: Any, tree: Any) -> None:
    other = f"{base.prefix}reader"  # dropped with the other accounts
    found = validate.validate(base.admin, owner=other, **tree.dirs)
    assert {finding.problem for finding in found} == {"missing", "definer"}


def test_a_file_that_was_not_loaded(base: Any, tree: Any) -> None:
    path = tree.sql / "views/raw.sql"
    path.write_text(path.read_text().replace("jobs", "all jobs"))
    tree.write("views/more", "-- Access: internal\nCREATE VIEW more AS SELECT 1 AS one")
    tree.remove("procedures/helper")
    tree.second()
    expected = {
        ("VIEW", "raw", "not loaded"),
        ("VIEW", "more", "missing"),
        ("PROCEDURE", "helper", "extra"),
    }
    assert findings(base, tree) == expected | {("migration", "0002.second", "pending")}
    status = validate.status(base.admin, owner=base.owner, **tree.dirs)
    assert not status.current and status.pending == ["0002.second"] and len(status.behind) == 3


def test_a_migration_does_not_hide_what_was_changed_by_hand(base: Any, tree: Any) -> None:
    base.query("ALTER TABLE job_log ADD COLUMN extra INT")
    tree.second()  # changes job, not job_log
    result = base.migrate(**tree.dirs)
    assert result.warnings == ["the table job_log was changed by hand since the last migration"]
    assert findings(base, tree) == {("TABLE", "job_log", "changed")}


def test_order_of_triggers(base: Any, tree: Any) -> None:
    [row] = base.query("SHOW CREATE TRIGGER job_a")
    by_hand(base, "DROP TRIGGER job_a")
    by_hand(base, row[2])
    assert {problem for _, _, problem in findings(base, tree)} == {"order"}
    base.migrate(**tree.dirs)
    assert findings(base, tree) == set()
