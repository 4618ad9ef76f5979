"""What ./runserver.py shows, chooses and refuses, without starting anything."""

from __future__ import annotations

import json
import os
import signal
import socket
from pathlib import Path

import pytest
from click.testing import CliRunner

from jobmon import config as configuration
from jobmon.config import load_config
from jobmon.runserver import Follower, Stopped, main, state_text, status_table, stoppable, uptime
from jobmon.stack import Stack, StackError, port_complaint
from jobmon.supervisor import Status

DEFAULTS = configuration.release_info()


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home of its own, and no settings from outside."""
    for name in list(os.environ):
        if name.startswith(("JOBMON_", "XDG_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def invoke(*arguments: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, arguments)
    return result.exit_code, result.stdout, result.stderr


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 seconds"),
        (1, "1 second"),
        (59, "59 seconds"),
        (60, "1 minute"),
        (119, "1 minute"),
        (120, "2 minutes"),
        (7199, "119 minutes"),
        (7200, "2 hours"),
        (86400 * 2 - 1, "47 hours"),
        (86400 * 3, "3 days"),
    ],
)
def test_uptimes_read_like_those_of_docker(seconds: int, text: str) -> None:
    assert uptime(seconds) == text


def test_the_status_is_a_table_like_docker_ps() -> None:
    table = status_table(
        [
            (Status("db", "RUNNING", 12, 300, "", ("127.0.0.1:7014",)), True),
            (Status("jsm", "RUNNING", 13, 5, "", ("127.0.0.1:7056", "127.0.0.1:7057")), False),
            (Status("jqs", "BACKOFF", 0, 0, "Exited too quickly", ("127.0.0.1:7058",)), False),
        ]
    )
    assert table.splitlines() == [
        "NAME   STATUS                            PORTS                            PID",
        "db     Up 5 minutes (ready)              127.0.0.1:7014                   12",
        "jsm    Up 5 seconds (not ready)          127.0.0.1:7056, 127.0.0.1:7057   13",
        "jqs    Restarting (Exited too quickly)   127.0.0.1:7058                   -",
    ]


@pytest.mark.parametrize(
    "state", ["STOPPED", "STARTING", "STOPPING", "EXITED", "FATAL", "ORPHANED", "UNKNOWN"]
)
def test_every_state_has_words(state: str) -> None:
    text = state_text(Status("db", state), ready=False)
    assert text[0].isupper()
    assert "_" not in text


def test_before_the_first_start_everything_says_so() -> None:
    for command in (["status"], ["logs", "jsm"], ["restart", "jqs"]):
        code, _, stderr = invoke(*command)
        assert code == 1
        assert "has not been started here" in stderr
        assert "Hint: Start it: ./runserver.py" in stderr
    assert invoke("stop")[0] == 0


def test_unknown_names_are_refused() -> None:
    code, _, stderr = invoke("logs", "jsn")
    assert code == 2
    assert "'jsn' is not one of" in stderr


def test_a_wrong_rc_file_is_named(home: Path) -> None:
    (home / ".jobmonrc").write_text('{"jsm_prot": 1}')
    code, _, stderr = invoke("--embedded", "--detach")
    assert code == 1
    assert ".jobmonrc" in stderr
    assert "jsm_prot" in stderr
    assert "Traceback" not in stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_state_directory_of_somebody_else_is_named(home: Path) -> None:
    state = home / "state"
    state.mkdir(mode=0o500)
    code, _, stderr = invoke("--embedded", "--detach", "--state-dir", str(state))
    assert code == 1
    assert f"{state}" in stderr
    assert "another user" in stderr


def test_a_taken_port_is_named_with_the_flag_to_choose_another(home: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert port_complaint("127.0.0.1", port)
        code, _, stderr = invoke(
            "--embedded", "--detach", "--jqs-port", str(port), "--state-dir", str(home / "state")
        )
    assert code == 1
    assert f"jqs_port {port} is in use" in stderr
    assert f"(process {os.getpid()})" in stderr
    assert "--jqs-port N" in stderr
    assert "--jsm-port N" not in stderr.split("Hint:")[1] or "jsm_port" in stderr


def test_one_port_for_two_is_refused() -> None:
    config = load_config(overrides={"jsm_port": 7001, "jqs_port": 7001})
    with pytest.raises(StackError, match="two of them are the same"):
        Stack(config).check_ports()


def test_without_a_token_only_the_loopback_will_do() -> None:
    code, _, stderr = invoke("--embedded", "--detach", "--no-token", "--bind", "0.0.0.0")
    assert code == 1
    assert "needs a token" in stderr


def test_everything_of_a_release_is_in_its_directory(home: Path) -> None:
    stack = Stack(load_config())
    own = home / ".local" / "state" / "jobmon" / DEFAULTS["release"]
    assert stack.directory == own
    for path in (stack.data_dir, stack.accounts_file, stack.services_file, stack.supervisor.directory):
        assert path.is_relative_to(own)
    assert stack.ports == {key: DEFAULTS[key] for key in stack.ports}


def test_ports_come_from_flags_then_variables_then_the_rc_file(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".jobmonrc").write_text('{"jsm_port": 7001, "jqs_port": 7002, "db_port": 7003}')
    monkeypatch.setenv("JOBMON_JQS_PORT", "7012")
    monkeypatch.setenv("JOBMON_DB_PORT", "7013")
    ports = Stack(load_config(overrides={"db_port": 7023})).ports
    assert ports["jsm_port"] == 7001
    assert ports["jqs_port"] == 7012
    assert ports["db_port"] == 7023
    assert ports["jsm_management_port"] == DEFAULTS["jsm_management_port"]


def written(stack: Stack) -> None:
    """Do what a start leaves in files."""
    stack.directory.mkdir(parents=True)
    stack._write_services_file()
    stack.tell_clients()


def test_ports_that_another_release_left_in_the_rc_file_are_not_taken_over(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written(Stack(load_config(overrides={"jsm_port": 7001, "jqs_port": 7002})))
    assert Stack(load_config()).ports["jsm_port"] == 7001, "its own are"
    newer = {**DEFAULTS, "release": "emu.99", "jsm_port": 7101}
    monkeypatch.setattr(configuration, "release_info", lambda: newer)
    stack = Stack(load_config())
    assert stack.directory == home / ".local" / "state" / "jobmon" / "emu.99"
    assert stack.ports["jsm_port"] == 7101
    assert stack.ports["jqs_port"] == DEFAULTS["jqs_port"]


def test_clients_are_told_privately_and_other_keys_stay(home: Path) -> None:
    rc = home / ".jobmonrc"
    rc.write_text('{"slack_token": "xoxb-1", "jsm_port": 7001}')
    stack = Stack(load_config())
    written(stack)
    document = json.loads(rc.read_text())
    assert rc.stat().st_mode & 0o777 == 0o600
    assert document["slack_token"] == "xoxb-1"
    assert (document["host"], document["jsm_port"]) == ("127.0.0.1", 7001)
    assert len(document["token"]) >= 32
    assert document["token"] == json.loads(stack.services_file.read_text())["token"]
    assert stack.services_file.stat().st_mode & 0o777 == 0o600


def test_the_token_stays_the_same(home: Path) -> None:
    first = Stack(load_config())
    written(first)
    assert Stack(load_config()).token == first.token
    (home / ".jobmonrc").unlink()
    assert Stack(load_config()).token == first.token


def test_no_token_takes_it_out_of_the_files(home: Path) -> None:
    written(Stack(load_config()))
    stack = Stack(load_config(), token=False)
    stack._write_services_file()
    stack.tell_clients()
    assert "token" not in json.loads((home / ".jobmonrc").read_text())
    assert "token" not in json.loads(stack.services_file.read_text())


def test_the_database_of_the_rc_file_is_not_handed_to_the_services(home: Path) -> None:
    (home / ".jobmonrc").write_text('{"conn_str": "mysql://u:secret@db.example.org/x"}')
    stack = Stack(load_config())
    written(stack)
    assert "secret" not in stack.services_file.read_text()


def test_jobmon_variables_do_not_reach_the_services(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBMON_JSM_PORT", "7001")
    monkeypatch.setenv("JOBMON_TOKEN", "t")
    monkeypatch.setenv("JOBMON_DB_SERVER", "/usr/sbin/mariadbd")
    stack = Stack(load_config())
    environ = stack._environ()
    assert environ["JOBMON_RC"] == str(stack.services_file)
    assert "JOBMON_JSM_PORT" not in environ
    assert "JOBMON_TOKEN" not in environ
    assert environ["JOBMON_DB_SERVER"] == "/usr/sbin/mariadbd"
    assert stack.settings()["jsm_port"] == 7001


@pytest.mark.parametrize(
    ("bind", "host", "url"),
    [
        ("127.0.0.1", "127.0.0.1", "http://127.0.0.1:5000"),
        ("0.0.0.0", "127.0.0.1", "http://127.0.0.1:5000"),
        ("localhost", "127.0.0.1", "http://127.0.0.1:5000"),
        ("::1", "::1", "http://[::1]:5000"),
    ],
)
def test_the_services_address_as_seen_from_here(bind: str, host: str, url: str) -> None:
    stack = Stack(load_config(overrides={"bind": bind, "jsm_port": 5000}))
    assert stack.host == host
    assert stack.url("jsm") == url


def test_a_host_for_others_is_told_to_clients_only_if_they_can_reach_it() -> None:
    assert Stack(load_config(overrides={"host": "login1"})).client_host == "127.0.0.1"
    assert Stack(load_config(overrides={"host": "login1", "bind": "0.0.0.0"})).client_host == "login1"
    assert Stack(load_config(overrides={"bind": "0.0.0.0"})).client_host == socket.getfqdn()


def test_a_log_is_followed_across_its_rotation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    log = tmp_path / "a.log"
    log.write_text("one\ntwo\nthree\n")
    follower = Follower({"a": log}, tail=2)
    assert capsys.readouterr().out == "two\nthree\n"
    with log.open("a") as file:
        file.write("four\nfi")
    follower.step()
    assert capsys.readouterr().out == "four\n"
    with log.open("a") as file:
        file.write("ve\n")
    log.rename(tmp_path / "a.log.1")
    log.write_text("six\n")
    follower.step()
    assert capsys.readouterr().out == "five\nsix\n"
    log.write_text("7\n")
    follower.step()
    assert capsys.readouterr().out == "7\n"


def test_several_logs_are_told_apart_and_may_appear_later(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").write_text("old\n")
    follower = Follower({"a": tmp_path / "a", "long": tmp_path / "b"})
    (tmp_path / "b").write_bytes(b"\xff new\n")
    follower.step()
    assert capsys.readouterr().out == "long | \ufffd new\n"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_stop_once(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match=number.name), stoppable():
        try:
            os.kill(os.getpid(), number)
            signal.pause()
        finally:
            os.kill(os.getpid(), number)  # while it is being stopped
    assert signal.getsignal(number) == before
