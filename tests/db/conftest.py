"""A small schema of its own for the tests of the database layer, so that they do not depend on Jobmon's."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

MIGRATION_1 = """
CREATE TABLE schema_info (id TINYINT PRIMARY KEY, schema_version INT NOT NULL, compatible_since INT NOT NULL)
    ENGINE=InnoDB;
CREATE TABLE schema_object (
    object_type VARCHAR(16) NOT NULL, object_name VARCHAR(64) NOT NULL, file_checksum CHAR(64) NOT NULL,
    live_checksum CHAR(64) NOT NULL, loaded_date DATETIME(6) NOT NULL, PRIMARY KEY (object_type, object_name)
) ENGINE=InnoDB;
CREATE TABLE job (job_id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50) NOT NULL, hits INT NOT
NULL
    DEFAULT 0, KEY (name)) ENGINE=InnoDB;
CREATE TABLE job_status (status CHAR(1) PRIMARY KEY) ENGINE=InnoDB;
CREATE TABLE job_log (id BIGINT UNSIGNED AUTO_INCREMENT PRIMARY KEY, name VARCHAR(50), mark VARCHAR(50))
    ENGINE=InnoDB;
INSERT INTO job_status VALUES ('G'), ('D');
INSERT INTO schema_info VALUES (1, 1, 1);
"""
ROLLBACK_1 = """
DROP TABLE job_log;
DROP TABLE job_status;
DROP TABLE job;
DROP TABLE schema_object;
DROP TABLE schema_info;
"""
MIGRATION_2 = """
ALTER TABLE job ADD COLUMN tag VARCHAR(20) NULL;
CREATE TABLE note (id INT PRIMARY KEY) ENGINE=InnoDB;
UPDATE schema_info SET schema_version = 2;
"""
ROLLBACK_2 = """
UPDATE schema_info SET schema_version = 1;
DROP TABLE note;
ALTER TABLE job DROP COLUMN tag;
"""

ADD_JOB = """CREATE PROCEDURE add_job(
    in_name VARCHAR(50)
)
    SQL SECURITY DEFINER
    MODIFIES SQL DATA
    COMMENT '
Description: adds a job
Access: JSM
'
BEGIN
    INSERT INTO job (name) VALUES (in_name);
    SELECT JSON_OBJECT('job_id', LAST_INSERT_ID()) AS document;
END
"""
HELPER = """CREATE PROCEDURE helper()
    SQL SECURITY DEFINER
    COMMENT '
Description: for other procedures
Access: internal
'
BEGIN
    DO 0;
END;
"""
TRIGGER_A = """-- Description: logs each job
CREATE TRIGGER job_a AFTER INSERT ON job FOR EACH ROW
BEGIN
    INSERT INTO job_log (name, mark) VALUES (NEW.name, 'a');
END
"""
TRIGGER_B = """CREATE TRIGGER job_b AFTER INSERT ON job FOR EACH ROW
    INSERT INTO job_log (name, mark) VALUES (NEW.name, 'b')
"""
# cooked comes before raw in the alphabet and needs it
VIEW_COOKED = """-- Description: jobs for people
-- Access: JQS
CREATE VIEW cooked AS
SELECT name, hits FROM raw
"""
VIEW_RAW = """-- Description: jobs
-- Access: internal
CREATE VIEW raw AS SELECT job_id, name, hits FROM job
"""


class Tree:
    """SQL files and migrations in a directory."""

    def __init__(self, root: Path) -> None:
        self.sql = root / "sql"
        self.migrations = root / "migrations"
        self.migrations.mkdir(parents=True)
        for name in ("procedures", "functions", "triggers", "views"):
            (self.sql / name).mkdir(parents=True)
        self.migration("0001.first", MIGRATION_1, ROLLBACK_1)
        self.write("procedures/add_job", ADD_JOB)
        self.write("procedures/helper", HELPER)
        self.write("triggers/job_a", TRIGGER_A)
        self.write("triggers/job_b", TRIGGER_B)
        self.write("views/cooked", VIEW_COOKED)
        self.write("views/raw", VIEW_RAW)

    @property
    def dirs(self) -> dict[str, Path]:
        """The arguments that make the database layer use this tree."""
        return {"sql_dir": self.sql, "migrations_dir": self.migrations}

    def write(self, name: str, text: str) -> None:
        (self.sql / f"{name}.sql").write_text(text)

    def remove(self, name: str) -> None:
        (self.sql / f"{name}.sql").unlink()

    def migration(self, name: str, text: str, rollback: str = "") -> None:
        (self.migrations / f"{name}.sql").write_text(text)
        (self.migrations / f"{name}.rollback.sql").write_text(rollback)

    def second(self) -> None:
        self.migration("0002.second", MIGRATION_2, ROLLBACK_2)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.fixture(scope="module")
def granted(new_database: Callable[[], Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One database of the small schema, with its accounts, for all tests of a module."""
    tree = Tree(tmp_path_factory.mktemp("tree"))
    database = new_database()
    try:
        database.migrate(**tree.dirs)
        database.grant(**tree.dirs)
        yield database
    finally:
        database.drop()
