"""The command jobmon: what it prints, how it exits, and that no error is a traceback."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result

from jobmon.cli import main
from jobmon.cli.db import client_options
from jobmon.db.connect import ConnectionSpec


class Jobmon:
    """Runs the command on one database."""

    def __init__(self, database: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        self.database = database
        for variable in [name for name in os.environ if name.startswith("JOBMON_")]:
            monkeypatch.delenv(variable)
        for name, value in database.env().items():
            monkeypatch.setenv(name, value)

    def __call__(self, *args: str, code: int = 0, **kw: Any) -> Result:
        result = CliRunner().invoke(main, list(args), **kw)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.output
        assert "Traceback" not in result.output
        assert result.exit_code == code, result.output
        return result

    def db(self, command: str, *args: str, **kw: Any) -> Result:
        return self("db", command, "--prefix", self.database.prefix, *args, **kw)


@pytest.fixture
def jobmon(own_database: Any, monkeypatch: pytest.MonkeyPatch) -> Jobmon:
    """The command on a database that does not exist yet."""
    return Jobmon(own_database, monkeypatch)


@pytest.fixture
def shared(database: Any, monkeypatch: pytest.MonkeyPatch) -> Jobmon:
    """The command on the shared database; only what leaves it as it is."""
    return Jobmon(database, monkeypatch)


def test_life_of_a_database(jobmon: Jobmon) -> None:
    assert "no database" in jobmon.db("status", code=1).output
    out = jobmon("initdb", "--prefix", jobmon.database.prefix).output
    assert "loaded" in out and "created the account of jsm" in out
    assert "up to date" in jobmon.db("migrate").output
    assert "up to date" in jobmon.db("status", "--check").output
    assert "is what the files say" in jobmon.db("validate").output
    assert "exactly what they should" in jobmon.db("grants", "--check").output
    assert jobmon.db("accounts").output.count("login works") == 4
    # from here the prefix is known from the accounts file
    assert "up to date" in jobmon("db", "migrate", "--as", "migrator").output
    document = json.loads(jobmon("db", "status", "--json").output)
    assert document["current"] and document["pending"] == []
    assert json.loads(jobmon("db", "validate", "--json").output) == []
    assert "say --yes" in jobmon("db", "rollback", "--all", code=1).output
    assert "rolled back" in jobmon("db", "rollback", "--all", "--yes").output
    assert "nothing to roll back" in jobmon("db", "rollback", "--yes").output
    assert "no Jobmon tables" in jobmon("db", "validate", code=1).output
    assert "pending: migration 0001" in jobmon("db", "status").output
    jobmon("db", "status", "--check", code=1)
    jobmon("initdb")
    jobmon("db", "validate")


def test_findings_make_it_exit_with_1(jobmon: Jobmon) -> None:
    jobmon("initdb", "--prefix", jobmon.database.prefix)
    jobmon.database.query("DROP VIEW get_jobs")
    jobmon.database.query(f"GRANT DELETE ON {jobmon.database.name}.job TO {jobmon.database.prefix}jsm@'%'")
    assert "view get_jobs: missing" in jobmon("db", "validate", code=1).output
    assert "view get_jobs: missing" in jobmon("db", "status").output
    assert "lacks view get_jobs" in jobmon("db", "grants", "--check", code=1).output
    jobmon("db", "migrate")
    checked = jobmon("db", "grants", "--check", code=1).output
    assert "EXTRA DELETE ON" in checked and "not as they should be" in checked
    assert "took from jsm: DELETE ON" in jobmon("db", "grants").output
    jobmon("db", "grants", "--check")
    document = json.loads(jobmon("db", "grants", "--json").stdout)
    assert [report["role"] for report in document] == ["owner", "migrator", "jsm", "jqs", "reader"]
    assert all(report["ok"] for report in document)


DB_COMMANDS = [
    ["migrate"],
    ["rollback", "--yes"],
    ["status"],
    ["validate"],
    ["grants"],
    ["grants", "--check"],
    ["accounts"],
    ["shell", "-e", "SELECT 1"],
]


def test_a_newer_database_is_refused_by_every_command(jobmon: Jobmon) -> None:
    jobmon("initdb", "--prefix", jobmon.database.prefix)
    jobmon.database.query("UPDATE schema_info SET schema_version = 4711")
    for command in [*(["db", *arguments] for arguments in DB_COMMANDS), ["initdb"]]:
        output = jobmon(*command, code=1).output
        assert "newer than this code" in output and "4711" in output and "Hint: install" in output, command


@pytest.mark.parametrize("command", DB_COMMANDS, ids=" ".join)
def test_database_that_does_not_answer(shared: Jobmon, command: list[str]) -> None:
    name, *rest = command
    output = shared("db", name, "--conn-str", "mysql://root:geheim@127.0.0.1:1/jobmon", *rest, code=1).output
    assert "can't be reached" in output and "Hint:" in output and "geheim" not in output


@pytest.mark.parametrize("command", DB_COMMANDS, ids=" ".join)
def test_wrong_password(shared: Jobmon, command: list[str]) -> None:
    spec = shared.database.spec("reader").with_account(f"{shared.database.prefix}reader", "geheim")
    name, *rest = command
    output = shared("db", name, "--conn-str", spec.conn_str(), *rest, code=1).output
    assert "refuses the account" in output and "Hint:" in output and "geheim" not in output


@pytest.mark.parametrize("command", [c for c in DB_COMMANDS if c[0] != "shell"], ids=" ".join)
@pytest.mark.parametrize("role", ["jsm", "jqs", "reader"])
def test_account_that_may_not(shared: Jobmon, command: list[str], role: str) -> None:
    if command[0] == "accounts":
        pytest.skip("may list what it can see")
    name, *rest = command
    output = shared("db", name, "--conn-str", shared.database.spec(role).conn_str(), *rest, code=1).output
    assert "Error:" in output and "should not have happened" not in output
    assert "Hint:" in output


def test_wrong_conn_str_and_configuration(shared: Jobmon, tmp_path: Path) -> None:
    assert "://" in shared("db", "status", "--conn-str", "nonsense", code=1).output
    rc = tmp_path / "rc"
    rc.write_text('{"jsm_prt": 1}')
    output = shared("--config", str(rc), "db", "status", code=1).output
    assert str(rc) in output and "did you mean jsm_port?" in output
    assert "no such file" in shared("--config", str(tmp_path / "none"), "db", "status", code=1).output


def test_nothing_is_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for variable in [name for name in os.environ if name.startswith("JOBMON_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JOBMON_STATE_DIR", str(tmp_path))
    for command in (["db", "status"], ["initdb"], ["db", "shell"], ["start", "job_state_manager"]):
        result = CliRunner().invoke(main, command)
        assert result.exit_code == 1 and "Error: no database is configured" in result.output
        assert "Traceback" not in result.output and "Hint:" in result.output


def test_a_defect_is_no_traceback(shared: Jobmon, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **kw: Any) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("jobmon.db.validate.status", broken)
    output = shared("db", "status", code=1).output
    assert "should not have happened: ZeroDivisionError: oops" in output and "JOBMON_DEBUG" in output


def test_accounts_show(shared: Jobmon) -> None:
    shown = shared("db", "accounts", "--show", "reader").output.strip()
    assert ConnectionSpec.parse(shown).user == f"{shared.database.prefix}reader"


CLIENT = shutil.which("mariadb") or shutil.which("mysql")


@pytest.mark.skipif(CLIENT is None, reason="neither the mariadb nor the mysql client is installed")
def test_shell(shared: Jobmon) -> None:
    command = [
        sys.executable,
        "-m",
        "jobmon.cli",
        "db",
        "shell",
        "-N",
        "-B",
        "-e",
        "SELECT CURRENT_USER(), DATABASE()",
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == [f"{shared.database.prefix}reader@%", shared.database.name]
    assert done.stderr == "" and done.returncode == 0
    done = subprocess.run([*command[:-1], "DROP TABLE job"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and "denied" in done.stderr


@pytest.mark.skipif(CLIENT is None, reason="neither the mariadb nor the mysql client is installed")
def test_shell_shows_no_password_and_leaves_no_file(shared: Jobmon, tmp_path: Path) -> None:
    # a client that tells how it was called
    program = "import sys, os, stat, pathlib\n"
    program += "f = pathlib.Path(sys.argv[1].partition('=')[2])\n"
    program += "print(sys.argv, oct(stat.S_IMODE(f.stat().st_mode)), f, f.read_text())\n"
    for name in ("mariadb", "mysql"):
        path = tmp_path / name
        path.write_text(f"#!{sys.executable}\nimport sys\nif '--version' in sys.argv: sys.exit()\n{program}")
        path.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    done = subprocess.run(
        [sys.executable, "-m", "jobmon.cli", "db", "shell", "--account", "jsm"],
        capture_output=True, text=True, timeout=60, env=env,
    )  # fmt: skip
    argv, _, rest = done.stdout.partition("]")
    password = shared.database.spec("jsm").password
    assert password not in argv and password in rest and "0o600" in rest
    assert not Path(rest.split()[1]).exists()


def test_shell_without_a_client(shared: Jobmon, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name: None)
    output = shared("db", "shell", code=1).output
    assert "client is installed" in output and "accounts --show reader" in output


def test_client_options_are_quoted() -> None:
    text = client_options(ConnectionSpec('a"b', 'p\\w"# x', "h", 1, "d b"), mariadb=False)
    assert 'user="a\\"b"' in text and 'password="p\\\\w\\"# x"' in text and 'database="d b"' in text


def test_configure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rc = tmp_path / "rc"
    rc.write_text('{"host": "old", "slack_token": "xoxb"}')
    for variable in [name for name in os.environ if name.startswith("JOBMON_")]:
        monkeypatch.delenv(variable)

    def run(*args: str, code: int = 0, **kw: Any) -> str:
        result = CliRunner().invoke(main, ["--config", str(rc), "configure", *args], **kw)
        assert result.exit_code == code, result.output
        return result.output

    assert "jsm_port" in run("--jsm-port", "6000", "--host", "new")
    assert json.loads(rc.read_text()) == {"host": "new", "slack_token": "xoxb", "jsm_port": 6000}
    assert stat.S_IMODE(rc.stat().st_mode) == 0o600
    run("--unset", "slack_token")
    assert "slack_token" not in json.loads(rc.read_text())
    assert "from 1 to 65535" in run("--jsm-port", "99999", code=1)
    assert "unknown key" in run("--unset", "colour", code=1)
    assert json.loads(rc.read_text()) == {"host": "new", "jsm_port": 6000}
    run("--token", "-", input="geheim123\n")
    assert json.loads(rc.read_text())["token"] == "geheim123"
    shown = run("--show")
    assert '"new"' in shown and str(rc) in shown and "geheim123" not in shown
    assert "nothing to configure" in run(code=1)


def test_configure_asks_at_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rc = tmp_path / "rc"
    monkeypatch.setattr("jobmon.cli.setup._is_terminal", lambda: True)
    result = CliRunner().invoke(main, ["--config", str(rc), "configure"], input="example.org\n\n7000\n\n")
    assert result.exit_code == 0, result.output
    written = json.loads(rc.read_text())
    assert written["host"] == "example.org" and written["jqs_port"] == 7000 and "conn_str" not in written


def test_every_command_has_help() -> None:
    def walk(command: click.Command, path: list[str]) -> None:
        result = CliRunner().invoke(main, [*path, "--help"])
        assert result.exit_code == 0 and command.help
        if isinstance(command, click.Group):
            for name, child in command.commands.items():
                walk(child, [*path, name])

    walk(main, [])


def test_unknown_service_and_version() -> None:
    result = CliRunner().invoke(main, ["start", "nonsense"])
    assert result.exit_code == 2 and "job_state_manager" in result.output
    assert CliRunner().invoke(main, ["--version"]).exit_code == 0


def test_test_runs_pytest() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobmon.cli", "test", "--collect-only", "-q", "tests/db/test_connect.py"],
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0 and "test_conn_str_round_trip" in done.stdout
