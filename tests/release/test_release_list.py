"""`jobmon release list`: what is found, without starting anything."""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from jobmon import release_list
from jobmon.cli import main
from jobmon.release_list import EngineError, compose_services, embedded_services


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, without settings and Docker."""
    for name in list(os.environ):
        if name.startswith(("JOBMON_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    (tmp_path / "bin").mkdir()
    return tmp_path


def run(*arguments: str) -> Result:
    result = CliRunner().invoke(main, ["release", "list", *arguments])
    assert result.exit_code == 0, result.output
    return result


def add_release(home: Path, name: str, **settings: Any) -> Path:
    """The files of an embedded release that is not running."""
    directory = home / ".local/state/jobmon" / name
    (directory / "run").mkdir(parents=True)
    (directory / "services.json").write_text(json.dumps(settings))
    (directory / "run/supervisord.conf").write_text(
        "[supervisord]\nlogfile = %(x)s\n[program:db]\ncommand = a\n[program:jsm]\ncommand = b\n"
        "[program:later]\ncommand = c\n"
    )
    return directory


PORTS = {"jsm_port": 7056, "jqs_port": 7058, "jsm_management_port": 7057, "db_port": 7012}


def test_without_anything_it_says_so() -> None:
    assert run().output == "No release is up on this host.\n"
    assert run("--all").output == "No release is known on this host.\n"
    assert run("-o", "json").output == "[]\n" and run("-o", "quiet").output == ""


def test_stopped_releases_are_shown_on_request(home: Path) -> None:
    directory = add_release(home, "emu.99", **PORTS, unknown_key_of_a_newer_release=1)
    add_release(home, "emu.98", bind="::", jsm_port="x")
    (home / ".local/state/jobmon/venvs").mkdir()
    assert "No release is up" in run().output
    rows = json.loads(run("--all", "-o", "json").output)
    assert [(row["release"], row["name"], row["status"], row["ports"]) for row in rows] == [
        ("emu.99", "db", "Stopped", ["127.0.0.1:7012"]),
        ("emu.99", "jsm", "Stopped", ["127.0.0.1:7056", "127.0.0.1:7057"]),
        ("emu.99", "later", "Stopped", []),
    ]
    assert {row["where"] for row in rows} == {str(directory)}
    assert run("--all", "-o", "quiet").output == "emu.99\n"
    assert "emu.99" in run("--all").output


def test_the_state_directory_may_be_that_of_one_release(home: Path) -> None:
    """As ~/.jobmonrc names it after a start."""
    directory = add_release(home, "emu.99", **PORTS)
    add_release(home, "emu.97", **PORTS)
    (home / ".jobmonrc").write_text(json.dumps({"state_dir": str(directory)}))
    for arguments in ((), ("--state-dir", str(directory)), ("--state-dir", str(directory.parent))):
        assert run("--all", "-o", "quiet", *arguments).output.split() == ["emu.97", "emu.99"]


def test_a_wrong_rc_file_hides_nothing(home: Path) -> None:
    add_release(home, "emu.99", **PORTS)
    (home / ".jobmonrc").write_text('{"key_of_a_newer_release": 1}')
    result = run("--all", "-o", "quiet")
    assert result.stdout == "emu.99\n"
    assert "unknown key 'key_of_a_newer_release'" in result.stderr


def test_half_a_file_is_no_release(home: Path) -> None:
    directory = add_release(home, "emu.99")
    (directory / "services.json").write_text('{"jsm_port": 70')
    assert embedded_services(directory.parent) == []


@pytest.fixture
def silent() -> Iterator[int]:
    """A port that takes connections and says nothing, then closes."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def accept() -> None:
            try:
                while True:
                    listener.accept()[0].close()
            except OSError:
                return

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_who_listens_and_does_not_greet_is_not_ready(silent: int) -> None:
    assert not release_list._listens(silent)
    assert not release_list._says_ready("127.0.0.1", silent)


def container(
    name: str, status: str = "running", health: str | None = "healthy", **more: Any
) -> dict[str, Any]:
    """What `docker inspect` says, in short."""
    started = (datetime.now(UTC) - timedelta(hours=2)).strftime("%Y-%m-%dT%H:%M:%S.%f123Z")
    labels = {
        "jobmon.release": "emu.99",
        "com.docker.compose.project": "jobmonemu99",
        "com.docker.compose.service": name,
    }
    state = {"Status": status, "StartedAt": started, "ExitCode": 0}
    return {
        "Name": f"/jobmonemu99_{name}_1",
        "Config": {"Labels": labels},
        "State": state | ({"Health": {"Status": health}} if health else {}),
        "NetworkSettings": {"Ports": more.get("ports", {})},
    }


def test_containers_are_known_by_their_labels() -> None:
    both = [{"HostIp": "0.0.0.0", "HostPort": "7056"}, {"HostIp": "::", "HostPort": "7056"}]
    documents = {
        "1": container("jsm", ports={"7056/tcp": both, "9/tcp": None}),
        "2": container("jqs", health="starting", ports={"7058/tcp": both[:1]}),
        "3": container("setup", status="exited", health=None),
        "4": container("monitor", health=None),
    }

    def docker(*arguments: str) -> str:
        if arguments[0] == "ps":
            assert "label=jobmon.release" in arguments
            return "\n".join([*documents, "gone"])
        if arguments[-1] == "gone":
            raise EngineError("no such container")
        return json.dumps([documents[arguments[-1]]])

    found = {service.name: service for service in compose_services(docker)}
    assert {(service.release, service.how, service.where) for service in found.values()} == {
        ("emu.99", "compose", "jobmonemu99")
    }
    assert found["jsm"].ready is True and found["jsm"].ports == ("0.0.0.0:7056", "[::]:7056")
    assert found["jsm"].seconds is not None and found["jsm"].seconds >= 7200
    assert (found["jqs"].up, found["jqs"].ready) == (True, False)
    assert (found["setup"].up, found["setup"].ready, found["setup"].state) == (False, False, "exited (0)")
    assert (found["monitor"].up, found["monitor"].ready) == (True, None)


def fake_docker(home: Path, script: str) -> None:
    program = home / "bin" / "docker"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


def test_an_engine_that_does_not_answer_hides_nothing(home: Path) -> None:
    add_release(home, "emu.99", **PORTS)
    fake_docker(home, "echo first >&2; echo 'Cannot connect to the daemon' >&2; exit 1")
    result = run("--all", "-o", "quiet")
    assert result.stdout == "emu.99\n"
    assert "Note: compose projects are not shown" in result.stderr
    assert "Cannot connect to the daemon" in result.stderr and "first" not in result.stderr


def test_an_engine_that_hangs_is_not_waited_for(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(release_list, "DOCKER_SECONDS", 0.3)
    fake_docker(home, "exec /bin/sleep 100")
    assert "no answer within" in run().stderr


def test_compose_projects_are_listed_by_the_command(home: Path) -> None:
    (home / "one.json").write_text(json.dumps([container("jsm", ports={})]))
    fake_docker(home, f'if [ "$1" = ps ]; then echo 1; else /bin/cat {home}/one.json; fi')
    row = run().output.splitlines()[1].split()
    assert row[:3] == ["emu.99", "compose", "jsm"] and row[-1] == "jobmonemu99"
    assert "Up 2 h 0 min (ready)" in run().output
