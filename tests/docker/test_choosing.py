"""In containers or not, and what is written for them: without an engine."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from jobmon import runserver
from jobmon.config import load_config, read_accounts
from jobmon.containers import deployment
from jobmon.containers.deployment import (
    IMAGE_USER,
    Containers,
    Engine,
    container_status,
    product,
)
from jobmon.release import project_name
from jobmon.runserver import choose_kind, kind_in_use
from jobmon.stack import Stack, StackError, release_directory

ENGINE = Engine("28.0", "2.40", rootless=False)


@pytest.fixture(autouse=True)
def engine(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine answers, and has no container."""
    monkeypatch.setattr(runserver, "find_engine", lambda: ENGINE)
    monkeypatch.setattr(deployment, "run_docker", lambda *arguments, timeout=0: "")


def no_engine() -> Engine:
    raise StackError("there is no docker command")


def chosen(**flags: Any) -> type[Stack]:
    return choose_kind(load_config(), {"docker": False, "embedded": False, "demo": False, **flags})


def embedded_was_started() -> None:
    stack = Stack(load_config())
    stack.directory.mkdir(parents=True, exist_ok=True)
    stack._write_services_file()


def containers_were_started() -> Containers:
    stack = Containers(load_config())
    stack.record["answers"] = {"slack_token": "xoxb-1", "default_wf_slack_channel": "a"}
    stack.directory.mkdir(parents=True, exist_ok=True)
    stack.write_files(ENGINE)
    return stack


def test_at_the_first_start_an_engine_decides(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert chosen() is Containers
    assert "Docker 28.0 answers" in capsys.readouterr().err
    monkeypatch.setattr(runserver, "find_engine", no_engine)
    assert chosen() is Stack
    assert "Without containers: there is no docker command." in capsys.readouterr().err


def test_flags_decide_and_the_demo_needs_no_image() -> None:
    assert chosen(embedded=True) is Stack
    assert chosen(docker=True) is Containers
    assert chosen(demo=True) is Stack
    assert chosen(demo=True, docker=True) is Containers


def test_an_embedded_deployment_stays_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    embedded_was_started()
    assert chosen() is Stack
    assert "--docker" in capsys.readouterr().err
    assert chosen(docker=True) is Containers
    assert "in another database" in capsys.readouterr().err


def test_containers_stay_in_use(capsys: pytest.CaptureFixture[str]) -> None:
    containers_were_started()
    assert chosen() is Containers
    assert chosen(demo=True) is Containers
    assert chosen(embedded=True) is Stack
    assert "in another database" in capsys.readouterr().err


def test_the_last_way_is_in_use_where_both_were() -> None:
    embedded_was_started()
    containers_were_started()
    config = load_config()
    for text, kind in (("docker\n", Containers), ("embedded\n", Stack)):
        runserver.kind_file(config).write_text(text)
        assert kind_in_use(config) is kind
        assert chosen() is kind


def test_two_databases_do_not_run_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    embedded_was_started()
    monkeypatch.setattr(Stack, "is_up", lambda self: True)
    with pytest.raises(StackError, match="is running without containers"):
        chosen(docker=True)


def test_secrets_are_private_and_in_no_variable(home: Path) -> None:
    stack = containers_were_started()
    for path in stack.directory.rglob("*"):
        assert path.stat().st_mode & 0o077 == 0 or path.name == "runserver.lock", path
    assert stack.token is not None
    secrets = {
        stack.token,
        "xoxb-1",
        (stack.secrets / "db_root_password").read_text(),
        (stack.secrets / "db_first_password").read_text(),
    }
    assert len(secrets) == 4
    variables = stack.env_file.read_text()
    assert not any(secret in variables for secret in secrets)
    owner = IMAGE_USER if os.geteuid() == 0 else os.geteuid()
    assert {path.stat().st_uid for path in stack.secrets.iterdir()} == {owner}


def test_each_service_is_told_what_it_needs_and_no_more() -> None:
    stack = containers_were_started()
    told = {
        name: json.loads((stack.secrets / f"{name}.json").read_text()) for name in stack.service_settings()
    }
    assert [name for name in told if "admin_conn_str" in told[name]] == ["setup"]
    assert [name for name in told if "slack_token" in told[name]] == ["monitor"]
    assert "token" not in told["setup"]
    assert (told["monitor"]["host"], told["monitor"]["query_host"]) == ("jsm", "jqs")
    for name, settings in told.items():
        path = stack.secrets / f"{name}.json"
        if os.geteuid() == 0:
            os.chown(path, 0, 0)
        assert load_config(path, env={}).jsm_port == stack.ports["jsm_port"], settings


def test_changed_settings_replace_the_containers_they_are_for() -> None:
    before = containers_were_started().record["settings"]
    assert set(before.values()) == {1}
    stack = Containers(load_config())
    stack.record["answers"]["default_wf_slack_channel"] = "b"
    stack.write_files(ENGINE)
    assert stack.record["settings"] == {**before, "monitor": 2}
    assert "JOBMON_MONITOR_SETTINGS='2'\n" in stack.env_file.read_text()


def test_what_was_chosen_once_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    first = Containers(
        load_config(overrides={"workers": 3, "bind": "0.0.0.0", "jqs_port": 7001}), project="mine"
    )
    first.directory.mkdir(parents=True)
    first.write_files(ENGINE)
    first.tell_clients()
    again = Containers(load_config())
    assert (again.config.workers, again.config.bind, again.ports["jqs_port"]) == (3, "0.0.0.0", 7001)
    assert (again.project, again.token) == ("mine", first.token)
    monkeypatch.setenv("JOBMON_WORKERS", "4")
    assert Containers(load_config()).config.workers == 4


def test_clients_of_containers_find_the_same_directory_again() -> None:
    stack = containers_were_started()
    stack.tell_clients()
    config = load_config()
    assert config.state_dir == stack.directory
    assert release_directory(config.state_dir, config.release) == stack.release_directory
    assert Stack(config).directory == stack.release_directory
    assert release_directory(stack.directory, "emu.99") == stack.release_directory.parent / "emu.99"


def test_without_a_token_only_the_loopback_will_do() -> None:
    stack = Containers(load_config(), token=False)
    settings = stack.service_settings()["jsm"]
    assert "token" not in settings
    assert settings["published_on_loopback"] is True
    stack._check_settings()
    with pytest.raises(StackError, match="needs a token"):
        Containers(load_config(overrides={"bind": "0.0.0.0"}), token=False)._check_settings()


def test_this_machine_reaches_the_database_as_root_and_by_the_accounts() -> None:
    stack = containers_were_started()
    accounts = {"accounts": {"jsm": {"user": "u", "password": "p"}}, "host": "db", "port": 1}
    (stack.directory / "accounts" / "accounts.json").write_text(json.dumps(accounts))
    (stack.directory / "accounts" / "accounts.json").chmod(0o600)
    stack.write_host_accounts()
    stack.tell_clients()
    assert read_accounts(stack.accounts_file)["host"] == "127.0.0.1"
    root = load_config().conn_spec("admin")
    assert (root.user, root.host, root.port) == ("root", "127.0.0.1", stack.ports["db_port"])
    assert root.password == (stack.secrets / "db_root_password").read_text()


def test_another_product_cannot_read_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    containers_were_started()
    monkeypatch.setattr(deployment, "find_engine", lambda: ENGINE)
    with pytest.raises(StackError, match=r"mariadb:10\.11 can't read them"):
        Containers(load_config(), db_image="mariadb:10.11").start(print)


@pytest.mark.parametrize(
    ("image", "name"),
    [
        ("mysql:8.4", "mysql"),
        ("registry.example.org:5000/library/mariadb:10.11", "mariadb"),
        ("mysql@sha256:00", "mysql"),
    ],
)
def test_products(image: str, name: str) -> None:
    assert product(image) == name


def test_projects_are_named_after_the_release() -> None:
    assert project_name("emu.1") == "jobmonemu1"


def test_states_read_like_those_of_processes() -> None:
    state = {"Status": "running", "StartedAt": "2020-01-01T00:00:00.123456789Z", "Pid": 7, "ExitCode": 0}
    ports = {"1/tcp": [{"HostIp": "127.0.0.1", "HostPort": "9"}], "2/tcp": None}
    status = container_status("jsm", {"State": state, "NetworkSettings": {"Ports": ports}})
    assert (status.state, status.ports, status.pid) == ("RUNNING", ("127.0.0.1:9",), 7)
    assert status.seconds > 86400
    state = {"Status": "restarting", "ExitCode": 3, "StartedAt": "", "Pid": 0}
    status = container_status("jsm", {"State": state, "NetworkSettings": {}})
    assert (status.state, status.detail) == ("BACKOFF", "exit code 3")
