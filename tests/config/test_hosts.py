"""Several hosts in one conn_str."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ports import free_port

from jobmon.config import ConfigError, load_config
from jobmon.db import connect as c
from jobmon.db.connect import ConnectionSpec, ConnStrError
from jobmon.hosts import read_host, show_host, split_hosts


def test_split() -> None:
    one = "mysql://u:p,w@h:1/d?tls=off"
    assert split_hosts(one) == (one, [])
    first, others = split_hosts("mysql://u:p,w@h:1,i,[::1]:3/d?tls=off")
    assert (first, others) == (one, [("i", 3306), ("::1", 3)])
    for host in others:
        assert read_host(show_host(host)) == host


def test_round_trip() -> None:
    spec = ConnectionSpec.parse("mysql://u:secretpw@h:1,[::1]:2,i/d")
    assert spec.hosts == (("h", 1), ("::1", 2), ("i", 3306))
    assert ConnectionSpec.parse(spec.conn_str()) == spec
    assert spec.with_host(("i", 3306)).hosts == (("i", 3306),)
    assert spec.server == "h:1,::1:2,i:3306"
    assert "secretpw" not in repr(spec)


@pytest.mark.parametrize(
    "text",
    ["mysql://u:secretpw@h,/d", "mysql://u:secretpw@h,i:port/d", "mysql://u:secretpw@h:1,i:0/d",
     "mysql://u:secretpw@h,i/d?unix_socket=/s"],
)  # fmt: skip
def test_a_wrong_host_is_told_without_the_password(text: str) -> None:
    with pytest.raises(ConnStrError) as error:
        ConnectionSpec.parse(text)
    assert "secretpw" not in str(error.value)
    if "unix_socket" not in text:
        with pytest.raises(ConfigError) as wrong:
            load_config(env={"HOME": "/nowhere", "JOBMON_CONN_STR": text})
        assert "secretpw" not in str(wrong.value)


def test_configuration(tmp_path: Path) -> None:
    text = "mysql://u:secretpw@h:1,i:2/d"
    config = load_config(env={"HOME": str(tmp_path), "JOBMON_JSM_CONN_STR": text})
    assert config.conn_spec("jsm").hosts == (("h", 1), ("i", 2))
    assert "secretpw" not in repr(config)
    document = {"host": "h", "port": 1, "database": "d", "other_hosts": ["i:2"]}
    document["accounts"] = {"jsm": {"user": "u", "password": "p"}}  # type: ignore[assignment]
    path = tmp_path / "accounts.json"
    path.touch(0o600)
    path.write_text(json.dumps(document))
    config = load_config(env={"HOME": str(tmp_path), "JOBMON_ACCOUNTS_FILE": str(path)})
    assert config.conn_spec("jsm").hosts == (("h", 1), ("i", 2))
    for wrong in (["i:x"], [7], "i:2", 7):
        path.write_text(json.dumps({**document, "other_hosts": wrong}))
        with pytest.raises(ConfigError, match="other_hosts"):
            config.conn_spec("jsm")


def test_none_can_be_used() -> None:
    spec = ConnectionSpec("u", "secretpw", "127.0.0.1", free_port(), others=(("127.0.0.1", free_port()),))
    with pytest.raises(c.pymysql.err.OperationalError) as error:
        c.connect(spec)
    assert error.value.args[0] == 2003
    for host in spec.hosts:
        assert show_host(host) in error.value.args[1]
    assert "secretpw" not in error.value.args[1]
