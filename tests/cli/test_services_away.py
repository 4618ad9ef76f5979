"""What the commands say when a service is away, is another program, or refuses the token."""

from __future__ import annotations

import http.server
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import Jobmon
from click.testing import CliRunner

from jobmon.cli import main

COMMANDS = [
    ["workflow", "list"],
    ["workflow", "status", "1"],
    ["workflow", "jobs", "1"],
    ["workflow", "errors", "1"],
    ["workflow", "stop", "1", "--yes"],
    ["workflow", "resume", "1"],
    ["workflow", "concurrency", "1"],
    ["workflow", "concurrency", "1", "2"],
    ["workflow", "graph", "1"],
    ["job", "show", "1"],
    ["job", "explain", "1"],
    ["job", "log", "1"],
    ["job", "retry", "1"],
    ["job", "kill", "1", "--yes"],
]
every_command = pytest.mark.parametrize("command", COMMANDS, ids=" ".join)


def run(rc: Path, *command: str, code: int = 1) -> str:
    """Run a command; all it printed."""
    result = CliRunner().invoke(main, ["--config", str(rc), *command])
    assert isinstance(result.exception, SystemExit)
    assert result.exit_code == code and "Traceback" not in result.output
    return result.output


def write_rc(directory: Path, **settings: Any) -> Path:
    rc = directory / "rc.json"
    rc.write_text(json.dumps(settings))
    rc.chmod(0o600)
    return rc


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that nobody listens on, nor can."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@every_command
def test_services_that_are_away(
    command: list[str], tmp_path: Path, closed_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobmon.cli.output.PATIENCE", 0.1)
    rc = write_rc(tmp_path, jsm_port=closed_port, jqs_port=closed_port)
    output = run(rc, *command)
    assert "no answer in 0.1 s" in output and "Hint: Is Jobmon running?" in output


@pytest.fixture
def stranger() -> Iterator[int]:
    """The port of a web server that is not of Jobmon."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "6")
            self.end_headers()
            self.wfile.write(b"<html>")

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_address[1]
    server.shutdown()
    server.server_close()


@every_command
def test_something_else_listens_there(command: list[str], tmp_path: Path, stranger: int) -> None:
    output = run(write_rc(tmp_path, jsm_port=stranger, jqs_port=stranger), *command)
    assert "not as Jobmon does" in output and "Hint: Is something else listening there?" in output


@every_command
def test_a_wrong_token(command: list[str], tmp_path: Path, jobmon: Jobmon) -> None:
    config = jobmon.services.requester.config
    ports = {"jsm_port": config.jsm_port, "jqs_port": config.jqs_port}
    for tokens in ({}, {"token": "geheim", "read_token": "geheim"}):
        output = run(write_rc(tmp_path, **ports, **tokens), *command)
        assert "UNAUTHORIZED" in output and "Hint:" in output and "geheim" not in output


def test_a_wrong_configuration(tmp_path: Path) -> None:
    rc = tmp_path / "rc.json"
    rc.write_text('{"jqs_prt": 1}')
    assert "did you mean jqs_port?" in run(rc, "workflow", "list")
    assert "no such file" in run(tmp_path / "none", "job", "show", "1")
