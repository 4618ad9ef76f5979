"""The programs in examples/ do what they say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from client_helpers import ROOT, Services

EXAMPLES = ROOT / "examples"


@pytest.fixture
def environ(services: Services, db: Any, tmp_path: Path) -> dict[str, str]:
    """What a user's program sees: a configuration in ~/.jobmonrc, nothing in variables."""
    rc = tmp_path / ".jobmonrc"
    config = services.config
    rc.write_text(
        json.dumps(
            {"host": config.host, "jsm_port": config.jsm_port, "jqs_port": config.jqs_port, "token": "t"}
        )
    )
    rc.chmod(0o600)
    found = {name: value for name, value in services.environ.items() if not name.startswith("JOBMON_")}
    return {**found, "HOME": str(tmp_path), "TMPDIR": str(tmp_path)}


def run(environ: dict[str, str], *command: str | Path) -> str:
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_every_example_is_tested() -> None:
    tested = {"quickstart.py", "fan_out.py", "resume.py", "curl.sh", "jobmon.R"}
    assert {path.name for path in EXAMPLES.iterdir() if path.is_file()} == tested


def test_quickstart(environ: dict[str, str], db: Any, tmp_path: Path) -> None:
    said = run(environ, sys.executable, EXAMPLES / "quickstart.py")
    assert "4 of 4 jobs DONE" in said
    (printed,) = tmp_path.glob("jobmon-quickstart-*/compare.o*")
    assert printed.read_text() == "3 files, 1 text\n"
    run(environ, sys.executable, EXAMPLES / "quickstart.py")
    assert db.query("SELECT COUNT(*), MIN(status) FROM workflow") == [(2, "D")]


def test_fan_out(environ: dict[str, str], db: Any) -> None:
    said = run(environ, sys.executable, EXAMPLES / "fan_out.py")
    assert "1002 of 1002 jobs DONE" in said
    assert "There are 78498 primes below 1,000,000." in said
    assert db.query("SELECT COUNT(*) FROM job_instance") == [(1002,)]
    assert db.audits() == {}


def test_resume(environ: dict[str, str], db: Any) -> None:
    said = run(environ, sys.executable, EXAMPLES / "resume.py")
    assert "1 of 3 jobs DONE" in said and "3 of 3 jobs DONE" in said
    assert "factor.txt: No such file or directory" in said
    assert "The sum is 5500." in said
    assert db.query("SELECT COUNT(*) FROM workflow") == [(1,)]


@pytest.mark.skipif(not (shutil.which("curl") and shutil.which("jq")), reason="needs curl and jq")
def test_curl(environ: dict[str, str], db: Any, tmp_path: Path) -> None:
    said = run(environ, "bash", EXAMPLES / "curl.sh")
    lines = said.splitlines()
    assert [line for line in lines if line.isdigit()] == ["1", "2"]
    assert lines[-3:] == [
        "one DONE attempts=1 ", "two DONE attempts=1 ", "fail ERROR_FATAL attempts=2 exit code 3: no",
    ]  # fmt: skip
    assert db.query("SELECT status FROM workflow") == [("E",)]
    assert db.audits() == {}
    assert [path for path in os.listdir(tmp_path) if path.startswith("tmp.")] == []


@pytest.mark.skipif(not shutil.which("Rscript"), reason="needs R with httr2 and jsonlite")
def test_r(environ: dict[str, str], db: Any) -> None:
    said = run(environ, "Rscript", EXAMPLES / "jobmon.R")
    assert said.splitlines()[-3:] == ["one DONE 1 ", "two DONE 1 ", "fail ERROR_FATAL 2 "]
