"""Where settings come from, how wrong ones are named, and that secrets don't show."""

from __future__ import annotations

import dataclasses
import json
import logging
import multiprocessing
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from jobmon import config as config_module
from jobmon.config import (
    ALIASES,
    IGNORED,
    KEYS,
    Config,
    ConfigError,
    cache_dir,
    load_config,
    rc_path,
    release_info,
    state_dir,
    write_private,
    write_rc,
)


@pytest.fixture
def home(tmp_path: Path) -> dict[str, str]:
    """An environment with a home of its own."""
    return {"HOME": str(tmp_path)}


def rc(home: dict[str, str], **values: Any) -> Path:
    path = Path(home["HOME"], ".jobmonrc")
    path.write_text(json.dumps(values))
    path.chmod(0o600)
    return path


def test_defaults_come_from_release_json(home: dict[str, str]) -> None:
    config = load_config(env=home)
    release = json.loads(Path(config_module.__file__).with_name("release.json").read_text())
    assert release == release_info()
    for key in ("jqs_port", "jsm_port", "jsm_management_port", "db_port", "release"):
        assert getattr(config, key) == release[key]
    assert config.host == config.bind == "127.0.0.1"
    assert config.token is None
    assert config.accounts_file == Path(home["HOME"], ".local/state/jobmon/accounts.json")
    assert config.source("jsm_port") == "default"


def test_precedence_flags_variables_file_defaults(home: dict[str, str]) -> None:
    path = rc(home, jsm_port=1001, jqs_port=1002, db_port=1003)
    env = {**home, "JOBMON_JSM_PORT": "2001", "JOBMON_JQS_PORT": "2002"}
    config = load_config(env=env, overrides={"jsm_port": 3001, "bind": None})
    assert (config.jsm_port, config.jqs_port, config.db_port, config.jsm_management_port) == (
        3001,
        2002,
        1003,
        release_info()["jsm_management_port"],
    )
    assert config.source("jsm_port") == "--jsm-port"
    assert config.source("jqs_port") == "JOBMON_JQS_PORT"
    assert config.source("db_port") == str(path)


def test_config_is_frozen(home: dict[str, str]) -> None:
    config = load_config(env=home)
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.jsm_port = 1  # type: ignore[misc]


def test_a_file_of_emu_loads(home: dict[str, str]) -> None:
    rc(
        home,
        conn_str="mysql://docker:docker@db:3306/docker",
        jsm_host="jobmon.example.org",
        jqs_host="jobmon.example.org",
        jsm_rep_port=3456,
        jsm_pub_port=3457,
        jqs_port=3458,
        verbose=False,
        slack_token=None,
        default_wf_slack_channel="jobmon-alerts",
        default_node_slack_channel="suspicious_nodes",
        jobmon_command=None,
    )
    config = load_config(env=home)
    assert config.host == "jobmon.example.org"
    assert config.jqs_port == 3458
    assert config.jsm_port == release_info()["jsm_port"]
    assert config.conn_str == "mysql://docker:docker@db:3306/docker"
    assert config.default_wf_slack_channel == "jobmon-alerts"


def test_aliases_lead_to_keys_and_a_proper_name_wins(home: dict[str, str]) -> None:
    assert set(ALIASES.values()) <= set(KEYS)
    assert not (set(ALIASES) | IGNORED) & set(KEYS)
    rc(home, host="b", jsm_host="a", default_notification_channel="c", node_notification_channel="d")
    config = load_config(env={**home, "JOBMON_JSM_HOST": "e", "JOBMON_HOST": "f"})
    assert (config.host, config.default_wf_slack_channel, config.default_node_slack_channel) == (
        "f",
        "c",
        "d",
    )
    assert load_config(env=home).host == "b"


def test_verbose_means_debug_unless_log_level_says_else(home: dict[str, str]) -> None:
    assert load_config(env={**home, "JOBMON_VERBOSE": "yes"}).log_level == "DEBUG"
    assert load_config(env={**home, "JOBMON_VERBOSE": "1", "JOBMON_LOG_LEVEL": "error"}).log_level == "ERROR"
    assert load_config(env=home).log_level == "INFO"


def test_an_empty_variable_is_as_good_as_none(home: dict[str, str]) -> None:
    assert load_config(env={**home, "JOBMON_TOKEN": "", "JOBMON_JSM_PORT": ""}).token is None


@pytest.mark.parametrize(
    ("key", "hint"),
    [
        ("jsm_prot", "did you mean jsm_port?"),
        ("con_str", "did you mean conn_str?"),
        ("Token", "did you mean token?"),
        ("zzzzzzzz", "keys are host, jsm_port"),
    ],
)
def test_an_unknown_key_is_named_with_its_file_and_a_hint(home: dict[str, str], key: str, hint: str) -> None:
    path = rc(home, **{key: 1})
    with pytest.raises(ConfigError) as caught:
        load_config(env=home)
    assert f"{path}: unknown key {key!r}" in caught.value.message
    assert hint in caught.value.hint
    assert str(caught.value) == f"{caught.value.message} ({caught.value.hint})"


def test_a_misspelt_variable_is_named_with_a_hint(home: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"JOBMON_JSM_PROT.*did you mean JOBMON_JSM_PORT\?"):
        load_config(env={**home, "JOBMON_JSM_PROT": "1"})


def test_other_variables_of_that_prefix_are_left_alone(home: dict[str, str]) -> None:
    load_config(
        env={
            **home,
            "JOBMON_TEST_DB_URL": "mysql://x",
            "JOBMON_MYSQL_BASEDIR": "/x",
            "JOBMON_DB_SEARCH": "/x",
            "JOBMON_DB_SERVER": "/x",
            "JOBMON_CACHE_DIR": "/x",
            "JOBMON_SERVICE_HOST": "10.0.0.1",
            "JOBMON_PORT_7056_TCP_ADDR": "10.0.0.1",
        }
    )


def test_an_unknown_override_is_refused(home: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"--jsm-prt.*jsm_port"):
        load_config(env=home, overrides={"jsm_prt": 1})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("jsm_port", "7056x", "expected a whole number from 1 to 65535"),
        ("jsm_port", True, "expected a whole number"),
        ("jsm_port", 1.5, "expected a whole number"),
        ("jsm_port", [7056], "expected a whole number"),
        ("jsm_port", 0, "expected a number from 1 to 65535"),
        ("jsm_port", 65536, "expected a number from 1 to 65535"),
        ("jsm_port", "9" * 5000, "expected a"),
        ("max_body_bytes", -1, "expected a number from 1024"),
        ("pool_timeout", "soon", "expected a number of seconds"),
        ("pool_timeout", float("inf"), "expected a number of seconds"),
        ("pool_timeout", True, "expected a number of seconds"),
        ("verbose", "perhaps", "expected true or false"),
        ("log_level", "LOUD", "expected one of DEBUG, INFO"),
        ("host", "http://x/", "expected a host name"),
        ("host", "", "expected a host name"),
        ("host", 5, "expected a string"),
        ("conn_str", "sqlite://", "expected mysql://user:password@host:port/database"),
        ("conn_str", "mysql://u:hunter2@h:99999/d", "expected mysql://user:password@host:port/database"),
        ("token", "two words hunter2", "expected printable ASCII"),
        ("token", "hunter2\u00fc", "expected printable ASCII"),
        ("accounts_file", "a\0b", "NUL"),
    ],
)
def test_a_wrong_value_is_named_with_its_file_and_key(
    home: dict[str, str], key: str, value: Any, expected: str
) -> None:
    path = rc(home, **{key: value})
    with pytest.raises(ConfigError) as caught:
        load_config(env=home)
    assert caught.value.message.startswith(f"{path}: {key}: ")
    assert expected in caught.value.message
    assert "hunter2" not in str(caught.value)
    assert len(caught.value.message) < 300 + len(str(path))


def test_a_wrong_variable_is_named(home: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"^JOBMON_JSM_PORT: expected a whole number.*'many'"):
        load_config(env={**home, "JOBMON_JSM_PORT": "many"})
    with pytest.raises(ConfigError, match=r"^--jsm-port: expected"):
        load_config(env=home, overrides={"jsm_port": 0})


def test_the_variable_that_kubernetes_makes_is_explained(home: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match=r"JOBMON_JSM_PORT.*enableServiceLinks: false"):
        load_config(env={**home, "JOBMON_JSM_PORT": "tcp://10.0.0.1:7056"})


@pytest.mark.parametrize("value", ["7056", 7056, 7056.0, " 7056 "])
def test_numbers_may_be_strings(home: dict[str, str], value: Any) -> None:
    rc(home, jsm_port=value)
    assert load_config(env=home).jsm_port == 7056


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"{", "is not valid JSON: line 1"),
        (b"", "is not valid JSON"),
        (b'{"host": "x",}', "is not valid JSON: line 1"),
        (b"[1]", "must hold one JSON object"),
        (b"null", "must hold one JSON object"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"jsm_port": ' + b"9" * 5000 + b"}", "is not valid JSON"),
    ],
)
def test_a_broken_file_is_named(home: dict[str, str], text: bytes, expected: str) -> None:
    path = Path(home["HOME"], ".jobmonrc")
    path.write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        load_config(env=home)
    assert caught.value.message.startswith(f"{path}: ")
    assert expected in caught.value.message


def test_a_file_that_was_named_must_exist(home: dict[str, str]) -> None:
    missing = Path(home["HOME"], "none")
    for arguments in (
        {"path": missing, "env": home},
        {"env": {**home, "JOBMON_RC": str(missing)}},
        {"env": {**home, "JOBMON_CONFIG": str(missing)}},
    ):
        with pytest.raises(ConfigError, match="none: no such file"):
            load_config(**arguments)  # type: ignore[arg-type]
    directory = Path(home["HOME"], "dir")
    directory.mkdir()
    with pytest.raises(ConfigError, match="dir: cannot be read"):
        load_config(directory, env=home)


def test_places(tmp_path: Path) -> None:
    home = {"HOME": "/h"}
    assert state_dir(home) == Path("/h/.local/state/jobmon")
    assert state_dir({**home, "XDG_STATE_HOME": "/s"}) == Path("/s/jobmon")
    assert state_dir({**home, "XDG_STATE_HOME": "relative"}) == Path("/h/.local/state/jobmon")
    assert state_dir({**home, "XDG_STATE_HOME": "/s", "JOBMON_STATE_DIR": "/j"}) == Path("/j")
    assert cache_dir({**home, "XDG_CACHE_HOME": "/c"}) == Path("/c/jobmon")
    assert cache_dir(home) == Path("/h/.cache/jobmon")
    assert rc_path(env=home) == Path("/h/.jobmonrc")
    assert rc_path(env={**home, "JOBMON_CONFIG": "/b", "JOBMON_RC": "/a"}) == Path("/a")
    assert rc_path("/c", env={**home, "JOBMON_RC": "/a"}) == Path("/c")
    config = load_config(env={"HOME": str(tmp_path), "JOBMON_STATE_DIR": "/j"})
    assert (config.state_dir, config.accounts_file) == (Path("/j"), Path("/j/accounts.json"))


SECRETS = {
    "token": "tok-hunter2",
    "read_token": "read-hunter2",
    "slack_token": "xoxb-hunter2",
    "conn_str": "mysql://u:hunter2@h:1/d",
    "jsm_conn_str": "mysql+pymysql://u:hunter2@h/d",
}


def test_secrets_do_not_show(home: dict[str, str]) -> None:
    rc(home, **SECRETS)
    config = load_config(env=home)
    assert "hunter2" not in repr(config) + str(config) + str(config.as_dict())
    assert config.as_dict()["conn_str"] == "mysql://u:***@h:1/d"
    assert config.as_dict()["token"] == "***"
    assert config.as_dict(redact=False)["token"] == "tok-hunter2"
    json.dumps(config.as_dict())
    secret = {key for key, spec in KEYS.items() if spec.metadata["secret"]}
    assert secret == {k for k in KEYS if k.endswith(("token", "conn_str"))}


def test_a_readable_file_with_a_token_is_warned_of(
    home: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    path = rc(home, token="hunter2")
    path.chmod(0o644)
    with caplog.at_level(logging.WARNING):
        load_config(env=home)
    assert f"{path} holds a token and others can read it (mode 0644)" in caplog.text
    assert "hunter2" not in caplog.text
    caplog.clear()
    path.chmod(0o600)
    load_config(env=home)
    assert not caplog.records


def test_a_secret_that_is_mounted_for_the_group_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "accounts.json"
    path.touch()
    path.chmod(0o440)
    assert config_module.others_can_read(path), "our own file would be 0600"
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    assert not config_module.others_can_read(path)
    path.chmod(0o444)
    assert config_module.others_can_read(path)


@pytest.mark.parametrize(
    ("bind", "loopback"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("login1.example.org", False),
    ],
)
def test_without_a_token_only_the_loopback_is_safe(home: dict[str, str], bind: str, loopback: bool) -> None:
    config = load_config(env={**home, "JOBMON_BIND": bind})
    assert config.listens_on_loopback is loopback
    load_config(env={**home, "JOBMON_BIND": bind, "JOBMON_TOKEN": "t"}).require_safe_bind()
    if loopback:
        config.require_safe_bind()
    else:
        with pytest.raises(ConfigError, match=r"^JOBMON_BIND: bind is .*without a token"):
            config.require_safe_bind()


def accounts(home: dict[str, str], **changes: Any) -> Path:
    document = {
        "prefix": "jobmon_",
        "host": "127.0.0.1",
        "port": 3399,
        "unix_socket": "/run/db.sock",
        "database": "jobmon",
        "accounts": {"jsm": {"user": "jobmon_jsm", "password": "p/@:"}},
        **changes,
    }
    path = state_dir(home) / "accounts.json"
    write_private(path, json.dumps(document))
    return path


def test_conn_spec_takes_the_role_then_the_accounts_then_conn_str(home: dict[str, str]) -> None:
    accounts(home)
    env = {**home, "JOBMON_CONN_STR": "mysql://root:x@h:3306/db"}
    jsm = load_config(env=env).conn_spec("jsm")
    assert (jsm.user, jsm.password, jsm.port, jsm.database, jsm.unix_socket) == (
        "jobmon_jsm",
        "p/@:",
        3399,
        "jobmon",
        "/run/db.sock",
    )
    own = load_config(env={**env, "JOBMON_JSM_CONN_STR": "mysql://me:y@h/db"}).conn_spec("jsm")
    assert (own.user, own.host) == ("me", "h")
    assert load_config(env=env).conn_spec("jqs").user == "root"
    assert load_config(env=env).conn_spec("admin").user == "root"
    admin = load_config(env={**env, "JOBMON_ADMIN_CONN_STR": "mysql://dba:y@h/db"}).conn_spec("admin")
    assert admin.user == "dba"


def test_conn_spec_says_what_is_missing(home: dict[str, str]) -> None:
    config = load_config(env=home)
    with pytest.raises(ConfigError, match=r"role jsm.*jobmon db grants.*jsm_conn_str or conn_str"):
        config.conn_spec("jsm")
    with pytest.raises(ConfigError, match=r"role admin.*runserver\.py"):
        config.conn_spec("admin")
    with pytest.raises(ConfigError, match="no such database role: 'root'"):
        config.conn_spec("root")
    with pytest.raises(ConfigError) as caught:
        load_config(env={**home, "JOBMON_CONN_STR": "mysql://:hunter2@h/d"}).conn_spec("jsm")
    assert caught.value.message.startswith("JOBMON_CONN_STR: conn_str: ")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"accounts": []}, "accounts: expected an object"),
        ({"accounts": {"jsm": {"user": "x"}}}, "accounts.jsm: expected an object with user and password"),
        ({"port": "3306"}, "port: expected a number"),
        ({"port": 0}, "port: expected a number"),
        ({"host": 1}, "host: expected a string"),
        ({"database": []}, "database: expected a string"),
    ],
)
def test_a_wrong_accounts_file_is_named(home: dict[str, str], changes: dict[str, Any], expected: str) -> None:
    path = accounts(home, **changes)
    with pytest.raises(ConfigError) as caught:
        load_config(env=home).conn_spec("jsm")
    assert caught.value.message.startswith(f"{path}: {expected}")


def test_write_rc_keeps_other_keys_and_makes_the_file_private(home: dict[str, str]) -> None:
    path = rc(home, conn_str="mysql://u:p@h/d", jqs_host="old", jsm_port=1, slack_token="s")
    path.chmod(0o644)
    assert write_rc({"jsm_port": 2, "token": "t", "slack_token": None}, env=home) == path
    assert json.loads(path.read_text()) == {
        "conn_str": "mysql://u:p@h/d",
        "jqs_host": "old",
        "jsm_port": 2,
        "token": "t",
    }
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert os.listdir(home["HOME"]) == [".jobmonrc"]
    assert load_config(env=home).token == "t"


def test_write_rc_makes_the_file_and_its_directory(home: dict[str, str]) -> None:
    path = Path(home["HOME"], "sub", "rc.json")
    write_rc({"accounts_file": Path("/a")}, path)
    assert json.loads(path.read_text()) == {"accounts_file": "/a"}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_write_rc_follows_a_link(home: dict[str, str], tmp_path: Path) -> None:
    target = tmp_path / "dotfiles" / "jobmonrc"
    target.parent.mkdir()
    target.write_text('{"host": "a"}')
    link = Path(home["HOME"], ".jobmonrc")
    link.symlink_to(target)
    write_rc({"jsm_port": 3}, env=home)
    assert link.is_symlink()
    assert json.loads(target.read_text()) == {"host": "a", "jsm_port": 3}


def test_write_rc_refuses_what_load_would_refuse(home: dict[str, str]) -> None:
    path = rc(home, host="a")
    before = path.read_bytes()
    with pytest.raises(ConfigError, match=r"unknown key 'jsm_prot'.*jsm_port"):
        write_rc({"jsm_prot": 1}, env=home)
    with pytest.raises(ConfigError, match="jsm_port: expected"):
        write_rc({"jsm_port": "x"}, env=home)
    assert path.read_bytes() == before
    path.write_text("{broken")
    with pytest.raises(ConfigError, match="is not valid JSON"):
        write_rc({"jsm_port": 1}, env=home)
    assert path.read_text() == "{broken"


def test_write_rc_says_that_it_can_not_write(home: dict[str, str]) -> None:
    blocker = Path(home["HOME"], "file")
    blocker.write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        write_rc({"jsm_port": 1}, blocker / "rc")


def _write_many(path: str, key: str) -> None:
    for number in range(1, 31):
        write_rc({key: number}, path)


def test_concurrent_writers_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rc"
    keys = ["jsm_port", "jqs_port", "db_port", "jsm_management_port"]
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_many, args=(str(path), key)) for key in keys]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert json.loads(path.read_text()) == dict.fromkeys(keys, 30)


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_private(path, "old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="No space left"):
        write_private(path, "new")
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["f"]


def test_every_key_has_a_description() -> None:
    assert isinstance(Config.__doc__, str)
    for key, spec in KEYS.items():
        assert spec.metadata["doc"], key


def test_the_documentation_lists_every_key_with_its_default(home: dict[str, str]) -> None:
    text = Path(config_module.__file__).parents[1].joinpath("docs/configuration.md").read_text()
    rows = [line.split("|")[1:4] for line in text.split("## Keys")[1].splitlines() if line.startswith("| `")]
    documented = {key.strip(" `"): row[1].strip() for row in rows for key in row[0].split(",")}
    keys = {key: documented[key] for key in KEYS}  # none is missing
    config = load_config(env=home)
    for key, shown in keys.items():
        default = getattr(config, key)
        if isinstance(default, Path):
            continue
        expected = "none" if default is None else f"{default:g}" if type(default) is float else str(default)
        assert shown.lower() == expected.lower(), key
    for name in (*ALIASES, *IGNORED):
        assert f"`{name}`" in text or name == "default_slack_channel", name
