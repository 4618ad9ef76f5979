"""Dockerfile, compose file, scripts and pins: what can be seen without an engine."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest

from jobmon import config as configuration
from jobmon.containers import pins

ROOT = Path(__file__).resolve().parents[2]
FILES = ("Dockerfile", "docker-compose.yaml", "wait-for-db.sh", "wait-for-tables.sh", ".dockerignore")
REFRESH = "refresh constraints.txt: python -m jobmon.containers.pins --write"


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def test_every_dependency_is_pinned() -> None:
    lines = [line for line in read("constraints.txt").splitlines() if not line.startswith("#")]
    assert all(re.fullmatch(r"[a-z0-9-]+==[^=*\s]+", line) for line in lines)
    pinned = {line.partition("==")[0] for line in lines}
    project = tomllib.loads(read("pyproject.toml"))["project"]
    wanted = {
        pins.canonical(re.match(r"[\w.-]+", requirement)[0])  # type: ignore[index]
        for requirement in project["dependencies"]
    }
    assert wanted <= pinned, REFRESH
    # Versions may differ from those installed here; that nothing is missing may not.
    assert set(pins.pins()) <= pinned, REFRESH


def test_the_image_is_pinned_slim_and_not_roots() -> None:
    text = read("Dockerfile")
    assert re.findall(r"^ARG PYTHON_IMAGE=(.*)$", text, re.MULTILINE) == ["python:3.11-slim-bookworm"]
    assert set(re.findall(r"^FROM (\S+)", text, re.MULTILINE)) == {"${PYTHON_IMAGE}"}
    last_user = re.findall(r"^USER (.*)$", text, re.MULTILINE)[-1]
    assert last_user.split(":")[0] not in ("root", "0")
    assert re.search(r"^HEALTHCHECK ", text, re.MULTILINE)
    assert not re.search(r"^# *syntax=", text, re.MULTILINE), "building must not need another image"


@pytest.mark.parametrize("name", FILES)
def test_ports_and_release_come_from_elsewhere(name: str) -> None:
    text = read(name)
    for key, value in configuration.release_info().items():
        assert not re.search(rf"(?<![\w.]){re.escape(str(value))}(?![\w.])", text), key


def test_the_context_of_a_build_holds_only_what_is_named() -> None:
    lines = [line for line in read(".dockerignore").splitlines() if line and not line.startswith("#")]
    assert lines[0] == "*"
    copied = {
        source
        for found in re.findall(r"^COPY (?:--chmod=\d+ )?(.*)$", read("Dockerfile"), re.MULTILINE)
        for source in found.split()[:-1]
    }
    assert {line[1:] for line in lines if line.startswith("!")} == copied


def test_no_password_in_the_files() -> None:
    for name in FILES:
        for line in read(name).splitlines():
            found = re.search(r"(?i)(password|token|secret)\w*\s*[:=]\s*[\"']?([\w-]{4,})", line)
            assert found is None or "/run/secrets" in line or "file:" in line, (name, line)


def test_the_release_file_is_the_only_place_of_the_release() -> None:
    assert json.loads(read("jobmon/release.json"))["release"] == configuration.release_info()["release"]
