"""Fixtures of the tests of the database's rules.

One shared database, emptied when a module begins: tests make the rows they need and look at those only.
After each test the audit views of that database must be empty.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from sql_helpers import Facts, Sql


@pytest.fixture(scope="session")
def facts(database: Any) -> Facts:
    """The errors and procedures of the shared database."""
    return Facts.read(database)


@pytest.fixture(scope="module")
def rows(database: Any) -> Any:
    """The shared database, empty when the module begins."""
    database.clear()
    return database


@pytest.fixture
def open_as(rows: Any, facts: Facts) -> Iterator[Callable[..., Sql]]:
    """Opens connections: ``open_as("jsm", autocommit=False)``."""

    def open_(role: str, **kw: Any) -> Sql:
        return Sql(rows.connect(role, **kw), facts)

    yield open_
    rows.close_connections()


@pytest.fixture
def jsm(open_as: Callable[..., Sql]) -> Sql:
    """A connection as the JSM account."""
    return open_as("jsm")


@pytest.fixture
def admin(open_as: Callable[..., Sql]) -> Sql:
    """A connection that may do everything."""
    return open_as("admin")


@pytest.fixture
def jqs(open_as: Callable[..., Sql]) -> Sql:
    """A connection as the JQS account."""
    return open_as("jqs")


@pytest.fixture
def emptied(rows: Any) -> None:
    """An empty database: a statement without WHERE meets only what the test makes. Ask for it first."""
    rows.clear()


@pytest.fixture(scope="module")
def throwaway(database: Any) -> Iterator[Any]:
    """A migrated database whose triggers a test may drop and whose audits need not be empty."""
    name = f"{database.name}_sql"
    directory = Path(tempfile.mkdtemp(prefix="jobmon-test-"))
    made = type(database)(database.server, name, f"s{database.prefix}", directory)
    try:
        made.migrate()
        made.grant()
        yield made
    finally:
        made.drop()


@pytest.fixture(scope="session")
def count_violations(database: Any) -> str:
    """One statement that counts the rows of all audit views: quicker than to read each."""
    views = database.query(
        "SELECT TABLE_NAME FROM information_schema.VIEWS"
        " WHERE TABLE_SCHEMA=%s AND TABLE_NAME LIKE 'audit\\_%%'",
        (database.name,),
    )
    assert len(views) >= 8
    return "SELECT " + " + ".join(f"(SELECT COUNT(*) FROM {name})" for (name,) in views)


@pytest.fixture(autouse=True)
def audits_are_empty(request: pytest.FixtureRequest) -> Iterator[None]:
    """No test leaves a violated invariant behind."""
    if "rows" not in request.fixturenames:
        yield
        return
    database = request.getfixturevalue("database")
    count = request.getfixturevalue("count_violations")
    yield
    if database.query(count) != [(0,)]:
        assert database.audits() == {}
