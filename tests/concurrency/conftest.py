"""Fixtures of the races."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from race_helpers import Database, Team


@pytest.fixture
def race(db: Any, request: pytest.FixtureRequest) -> Iterator[Database]:
    """The shared database, empty; afterwards no invariant may be violated."""
    database = Database(db)
    yield database
    database.close()
    print(f"{request.node.name}: {database.calls} calls, repeated after {dict(database.retries)}")
    assert database.violations() == {}
    # A deadlock now and then is no fault; many of them are a lock order that is not kept.
    assert database.retries["deadlock"] <= max(5, database.calls // 50)
    assert database.retries["lock wait timeout"] == 0


@pytest.fixture
def pair(race: Database) -> Iterator[Team]:
    """Two connections."""
    with Team(race, 2) as team:
        yield team


@pytest.fixture
def eight(race: Database) -> Iterator[Team]:
    """Eight connections."""
    with Team(race, 8) as team:
        yield team


@pytest.fixture
def sixteen(race: Database) -> Iterator[Team]:
    """Sixteen connections."""
    with Team(race, 16) as team:
        yield team
