"""Two releases at once on one host, in containers: neither notices the other.

Runs with JOBMON_TEST_DOCKER=1, and needs a Docker engine, docker compose, and the images of the Dockerfile
and of docker-compose.yaml.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ports import free_port
from release_helpers import Deployment, end, listed
from waiting import until

from jobmon.release import PORT_KEYS, Release

BUILT_OF = (
    "Dockerfile", ".dockerignore", "docker-compose.yaml", "constraints.txt", "pyproject.toml", "README.md",
    "wait-for-db.sh", "wait-for-tables.sh",
)  # fmt: skip
LASTING = {"db", "jsm", "jqs", "monitor"}

if not os.environ.get("JOBMON_TEST_DOCKER"):
    pytest.skip("JOBMON_TEST_DOCKER is not set: no containers", allow_module_level=True)


def docker(*arguments: str) -> str:
    return subprocess.run(
        ["docker", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    ).stdout


def containers(deployment: Deployment) -> dict[str, tuple[str, str]]:
    """The running containers of a release's project: name -> id and time of its start."""
    label = f"label=com.docker.compose.project={deployment.release.project}"
    found = {}
    for number in docker("ps", "--quiet", "--filter", label).split():
        [document] = json.loads(docker("inspect", number))
        found[document["Name"].lstrip("/")] = (document["Id"], document["State"]["StartedAt"])
    return found


def ours(rows: dict[str, dict[str, Any]], both: tuple[Deployment, Deployment]) -> dict[str, dict[str, Any]]:
    """Without what others run on this engine."""
    return {name: found for name, found in rows.items() if name in {each.release.name for each in both}}


@pytest.fixture
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Deployment, Deployment]]:
    home: Path = tmp_path_factory.mktemp("home")
    line = f"t{secrets.token_hex(3)}"
    releases = [Release(f"{line}.{number}", **{key: free_port() for key in PORT_KEYS}) for number in (1, 2)]
    made = [Deployment(home, release, *BUILT_OF) for release in releases]
    for deployment in made:
        # Docker's own settings are in the home of who runs the tests.
        deployment.environ.setdefault("DOCKER_CONFIG", str(Path.home() / ".docker"))
    try:
        yield made[0], made[1]
    finally:
        for deployment in made:
            if (deployment.directory / "docker" / "compose.env").exists():
                deployment("compose", "down", "--volumes", "--timeout", "5")
            subprocess.run(["docker", "rmi", "--force", deployment.release.image], capture_output=True)


def test_two_compose_projects_run_side_by_side(two: tuple[Deployment, Deployment]) -> None:
    old, new = two
    for each in two:
        assert "All 12 jobs ended as they should" in each("--docker", "--demo")
        names = {f"{each.release.project}_{name}_1" for name in LASTING}
        assert set(containers(each)) == names
    until(lambda: all(
        rows[name]["ready"] for rows in ours(listed(new, "compose"), two).values()
        for name in ("db", "jsm", "jqs")
    ))  # fmt: skip
    found = ours(listed(new, "compose"), two)
    for each in two:
        rows = found[each.release.name]
        assert set(rows) == LASTING
        assert all(row["up"] and row["where"] == each.release.project for row in rows.values())
        assert all(rows[name]["ready"] for name in ("db", "jsm", "jqs"))
        ports = {port for row in rows.values() for port in row["ports"]}
        assert ports == {f"127.0.0.1:{port}" for port in each.release.ports.values()}
        each.post("add_task_dag", name=f"of {each.release.name}", user="ann", dag_hash="0a")

    before = {each.release.name: each.workflows() for each in two}
    assert not set(before[old.release.name]) & set(before[new.release.name])
    volumes = {f"{each.release.project}_db" for each in two}
    assert volumes <= set(docker("volume", "ls", "--quiet").split())

    kept = containers(new)
    working = new.begin("jobmon.runserver", "--demo")
    old("stop")
    assert "All 12 jobs ended as they should" in end(working)
    assert containers(new) == kept and containers(old) == {}
    assert set(ours(listed(old, "compose"), two)) == {new.release.name}

    old("--docker")
    assert old.workflows() == before[old.release.name]
    assert containers(new) == kept
