"""``jobmon start distributor``: a service that runs what was submitted, and leaves when told to."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import Jobmon
from click.testing import CliRunner
from waiting import until

from jobmon.cli import main


@pytest.fixture
def submitted(jobmon: Jobmon, tmp_path: Path) -> dict[str, Any]:
    """A workflow of one job that waits for the file ``go``, handed over to the services."""
    script = "touch started; while ! test -e go; do sleep 0.05; done; touch ended"
    done = jobmon.run("run", "--detach", "-o", "json", "--", script, cwd=tmp_path)
    document: dict[str, Any] = json.loads(done.stdout)
    return document


def status_of(jobmon: Jobmon) -> str:
    [row] = jobmon.services.requester.get_rows("workflows")
    return str(row["status"])


def test_runs_what_is_submitted(jobmon: Jobmon, submitted: dict[str, Any], tmp_path: Path) -> None:
    assert status_of(jobmon) == "RUNNING" and not (tmp_path / "started").exists()
    service = jobmon.start("start", "distributor", "--max-workers", 2, "--lease-seconds", 30)
    until((tmp_path / "started").exists, "the job's start")
    (tmp_path / "go").touch()
    until(lambda: status_of(jobmon) == "DONE", "the workflow's end")
    # it goes on with what comes after
    jobmon.run("run", "--detach", "-o", "quiet", "--", "touch second", cwd=tmp_path)
    until((tmp_path / "second").exists, "the second workflow's job")
    service.send_signal(signal.SIGTERM)
    _, stderr = service.communicate(timeout=60)
    assert service.returncode == 0, stderr
    assert "SIGTERM: claims nothing more" in stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda number: number.name)
def test_lets_what_runs_end(
    jobmon: Jobmon, submitted: dict[str, Any], tmp_path: Path, number: signal.Signals, db: Any
) -> None:
    service = jobmon.start("start", "distributor", stderr=(tmp_path / "log").open("w"))
    until((tmp_path / "started").exists, "the job's start")
    service.send_signal(number)
    until(lambda: "claims nothing more" in (tmp_path / "log").read_text(), "the drain")
    jobmon.run("run", "--detach", "--", "touch second", cwd=tmp_path)
    assert service.poll() is None
    (tmp_path / "go").touch()
    assert service.wait(60) == 0
    assert (tmp_path / "ended").exists() and not (tmp_path / "second").exists()
    [job, second] = jobmon.services.requester.get_rows("jobs")
    assert job["status"] == "DONE" and second["status"] == "QUEUED_FOR_INSTANTIATION"
    assert db.audits() == {}


def test_kills_what_runs_at_the_second_signal(
    jobmon: Jobmon, submitted: dict[str, Any], tmp_path: Path, db: Any
) -> None:
    service = jobmon.start("start", "distributor", stderr=(tmp_path / "log").open("w"))
    until((tmp_path / "started").exists, "the job's start")
    service.send_signal(signal.SIGTERM)
    until(lambda: "claims nothing more" in (tmp_path / "log").read_text(), "the drain")
    service.send_signal(signal.SIGTERM)
    assert service.wait(60) == 0
    assert "kills what runs" in (tmp_path / "log").read_text()
    assert not (tmp_path / "ended").exists()
    [job] = jobmon.services.requester.get_rows("jobs")
    assert job["status"] == "ERROR_FATAL"
    assert db.audits() == {}


def test_resumed_workflows_are_run(jobmon: Jobmon, submitted: dict[str, Any], tmp_path: Path) -> None:
    workflow_id = submitted["workflow_id"]
    jobmon("workflow", "stop", workflow_id, "--yes")
    (tmp_path / "go").touch()
    jobmon("workflow", "resume", workflow_id)
    jobmon.start("start", "distributor")
    watch = jobmon.run("workflow", "status", workflow_id, "--watch", "0.2", "--exit-code", "-o", "quiet")
    assert watch.stdout == ""
    # in the directory of the first run
    assert (tmp_path / "ended").exists()


def test_usage() -> None:
    for arguments in (
        ["--executor", "cloud"],
        ["--option", "queue"],
        ["--max-workers", "0"],
        ["--lease-seconds", "0"],
        ["x"],
    ):
        result = CliRunner().invoke(main, ["start", "distributor", *arguments])
        assert result.exit_code == 2


def test_a_wrong_token(jobmon: Jobmon, tmp_path: Path) -> None:
    config = jobmon.services.requester.config
    (tmp_path / "rc").write_text(json.dumps({"jsm_port": config.jsm_port, "jqs_port": config.jqs_port}))
    service = jobmon.start("--config", tmp_path / "rc", "start", "distributor")
    _, stderr = service.communicate(timeout=60)
    assert service.returncode == 1
    assert "UNAUTHORIZED" in stderr and "Hint:" in stderr and "Traceback" not in stderr
