"""Fixtures of the client library: services as processes, and a client of them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "http"))

import service_fixtures

from jobmon.client.requester import Requester
from jobmon.client.workflow import Workflow

services, requester = service_fixtures.services, service_fixtures.requester


@pytest.fixture
def make_workflow(requester: Requester, tmp_path: Path) -> Callable[..., Workflow]:
    """Makes workflows on the services, whose commands run in the test's directory."""

    def make(workflow_args: str = "v1", **options: Any) -> Workflow:
        options.setdefault("working_dir", tmp_path)
        return Workflow(workflow_args, requester=requester, **options)

    return make
