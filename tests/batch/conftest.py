"""Fixtures of the batch executors: JSM and JQS as processes, runs, and the real Slurm where there is one."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.extend(str(Path(__file__).resolve().parents[1] / name) for name in ("client", "http", "distributor"))

import service_fixtures
from batch_helpers import Cluster, cannot
from client_helpers import Services, start_services

from jobmon.client.requester import Requester

requester = service_fixtures.requester
TOKEN = "a-token-that-nobody-is-to-see"


@pytest.fixture(scope="module")
def services(database: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Services]:
    """JSM and JQS as processes of their own, on the shared database."""
    started = start_services(database, tmp_path_factory.mktemp("services"), token=TOKEN)
    yield started
    started.stop()


@pytest.fixture(scope="session")
def slurm() -> None:
    """Needs a Slurm to which jobs can be submitted: JOBMON_TEST_SLURM=1 promises one."""
    reason = "no Slurm here: sbatch is not installed"
    if shutil.which("sbatch"):
        asked = subprocess.run(["squeue", "-h"], capture_output=True, text=True, timeout=60)
        reason = f"no Slurm here: {asked.stderr.strip()}" if asked.returncode else ""
    if reason:
        cannot(reason)


@pytest.fixture
def cluster(
    slurm: None, services: Services, requester: Requester, db: Any, tmp_path: Path
) -> Iterator[Cluster]:
    """Workflows and distributors on the real Slurm; what is left there is cancelled."""
    made = Cluster(services, requester, db, tmp_path)
    yield made
    made.clean()
