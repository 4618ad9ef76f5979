"""Fixtures that several conftest files take over: services as processes, and a client of them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from client_helpers import Services, start_services

from jobmon.client.requester import Requester


@pytest.fixture(scope="module")
def services(database: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """JSM and JQS as processes of their own, on the shared database, on which others count connections."""
    started = start_services(database, tmp_path_factory.mktemp("services"))
    yield started
    started.stop()


@pytest.fixture
def requester(services: Services, db: Any) -> Iterator[Requester]:
    """A client of the services; the tables are empty."""
    made = Requester(services.config, patience=20)
    yield made
    made.close()
