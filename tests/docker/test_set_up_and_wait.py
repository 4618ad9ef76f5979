"""What runs inside the containers: waiting, the set-up, the health check; on the tests' database."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pymysql
import pytest
from ports import free_port

from jobmon.config import load_config, read_accounts
from jobmon.containers import setup, wait
from jobmon.db.connect import connect

ROOT = Path(__file__).resolve().parents[2]


def config(database: Any, **variables: str) -> Any:
    return load_config(env={**database.env(), "HOME": str(database.directory), **variables})


def script(name: str, environ: dict[str, str], *command: str) -> tuple[int, str]:
    """Run a script as in a container, whose python is the one with Jobmon."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    done = subprocess.run(
        [ROOT / name, *command], env={"PATH": path, "PYTHONPATH": str(ROOT), **environ},
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


def test_the_scripts_become_their_command(db: Any) -> None:
    environ = {**db.env(), "HOME": str(db.directory), "JOBMON_WAIT_SECONDS": "60"}
    for name, found in (("wait-for-db.sh", "takes connections"), ("wait-for-tables.sh", "fits this code")):
        for role in ("jsm", "jqs", "reader"):
            code, said = script(name, {**environ, "JOBMON_ROLE": role}, "sh", "-c", "echo ran; exit 7")
            assert (code, said.count("ran\n")) == (7, 1), said
            assert found in said
        assert script(name, environ)[0] == 0, "without a command they only wait"


def test_the_scripts_give_up_and_say_why(tmp_path: Path) -> None:
    environ = {
        "HOME": str(tmp_path),
        "JOBMON_WAIT_SECONDS": "0",
        "JOBMON_CONN_STR": f"mysql://u:secret-word@127.0.0.1:{free_port()}/jobmon",
    }
    for name in ("wait-for-db.sh", "wait-for-tables.sh"):
        code, said = script(name, environ, "echo", "ran")
        assert code == 1
        assert "ran" not in said
        assert "gave up after 0 s" in said
        assert "secret-word" not in said
        assert "Traceback" not in said
    code, said = script("wait-for-db.sh", {**environ, "JOBMON_ROLE": "king"})
    assert code == 2
    assert "JOBMON_ROLE is 'king'" in said


@pytest.mark.parametrize("role", ["jsm", "jqs"])
def test_a_schema_that_is_behind_or_too_new_is_waited_for(
    make_database: Callable[..., Any], role: str
) -> None:
    database = make_database(migrated=True)
    assert "fits this code" in wait.schema(config(database), role)
    conn = connect(database.admin)
    with contextlib.closing(conn), conn.cursor() as cursor:
        cursor.execute("SELECT schema_version FROM schema_info")
        ((version,),) = cursor.fetchall()
        for schema_version, compatible_since, told in (
            (version - 1, 1, f"at version {version - 1}, this code needs {version}"),
            (version + 2, version + 1, f"needs code of version {version + 1}"),
        ):
            cursor.execute(
                "UPDATE schema_info SET schema_version=%s, compatible_since=%s",
                (schema_version, compatible_since),
            )
            conn.commit()
            with pytest.raises(wait.NotYet, match=told):
                wait.schema(config(database), role)
        cursor.execute("UPDATE schema_info SET schema_version=%s, compatible_since=1", (version + 2,))
        conn.commit()
        assert "fits this code" in wait.schema(config(database), role), "an upgrade that serves this code"


def test_some_table_is_not_enough(make_database: Callable[..., Any]) -> None:
    database = make_database(migrated=True)
    conn = connect(database.admin)
    with contextlib.closing(conn), conn.cursor() as cursor:
        cursor.execute("DROP TABLE schema_info")
    with pytest.raises(wait.NotYet):
        wait.schema(config(database), "jqs")
    with pytest.raises(wait.NotYet):
        wait.schema(config(database), "jsm")


def test_accounts_that_appear_later_are_found(
    db: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = tmp_path / "accounts.json"
    for name, value in {**db.env(), "HOME": str(tmp_path), "JOBMON_ACCOUNTS_FILE": str(later)}.items():
        monkeypatch.setenv(name, value)
    said: list[str] = []

    def hear(line: str) -> None:
        said.append(line)
        if not later.exists():
            later.write_text(Path(db.env()["JOBMON_ACCOUNTS_FILE"]).read_text())
            later.chmod(0o600)

    assert wait.wait("schema", "jsm", 60, hear)
    assert "no database is configured for the role jsm" in said[0]
    assert "fits this code" in said[-1]


def test_a_server_that_refuses_the_account_takes_connections(db: Any) -> None:
    spec = db.admin.with_account("nobody_at_all", "wrong")
    refused = config(db, JOBMON_ADMIN_CONN_STR=spec.conn_str())
    assert "takes connections" in wait.server(refused, "admin")
    with pytest.raises(wait.NotYet):
        wait.schema(refused, "admin")


@pytest.fixture
def root(server: Any) -> Any:
    """An account like the image's root: from two hosts, with the first password."""
    name = f"root_{os.urandom(4).hex()}"
    conn = connect(server.admin)
    with contextlib.closing(conn), conn.cursor() as cursor:
        for host in ("localhost", "%"):
            cursor.execute("CREATE USER %s@%s IDENTIFIED BY 'Aa1-first'", (name, host))
            cursor.execute("GRANT ALL ON *.* TO %s@%s WITH GRANT OPTION", (name, host))
        yield server.admin.with_account(name, "Aa1-own")
        for host in ("localhost", "%"):
            cursor.execute("DROP USER %s@%s", (name, host))


def test_the_first_password_serves_once(root: Any) -> None:
    assert setup.take_over(root, "Aa1-first") is True
    connect(root).close()
    assert setup.take_over(root, "Aa1-first") is False
    with pytest.raises(pymysql.err.OperationalError):
        connect(root.with_account(root.user, "Aa1-first"))
    with pytest.raises(pymysql.err.OperationalError):
        setup.take_over(root.with_account(root.user, "another"), "wrong")


def test_each_service_gets_its_own_account_only(tmp_path: Path) -> None:
    file = tmp_path / "accounts.json"
    roles = ("migrator", "jsm", "jqs", "reader")
    document = {"accounts": {role: {"user": role, "password": f"p-{role}"} for role in roles}, "host": "db"}
    file.write_text(json.dumps(document))
    file.chmod(0o600)
    setup.share_out(file)
    for service in ("jsm", "jqs"):
        own = tmp_path / service / "accounts.json"
        assert own.stat().st_mode & 0o777 == 0o600
        found = read_accounts(own)
        assert list(found["accounts"]) == [service]
        assert found["host"] == "db"
        assert own.read_text().count("p-") == 1


def test_the_health_check_asks_the_service(tmp_path: Path) -> None:
    answers = {"/healthz": 200, "/readyz": 200}

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(answers[self.path])
            self.end_headers()
            self.wfile.write(b"so it is")

        def log_message(self, format: str, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    port = str(server.server_port)
    environ = {**os.environ, "HOME": str(tmp_path), "PYTHONPATH": str(ROOT)}
    environ = {key: value for key, value in environ.items() if not key.startswith("JOBMON_")}
    environ |= {
        f"JOBMON_{key}_PORT": port for key in ("JSM", "JSM_MANAGEMENT", "JQS", "MONITOR")
    }  # one server stands for all

    def check(role: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-m", "jobmon.containers.healthy"], env={**environ, "JOBMON_ROLE": role},
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout

    with server:
        assert [check(role)[0] for role in ("jsm", "jqs", "monitor", "distributor")] == [0, 0, 0, 0]
        answers["/readyz"] = 503
        for role in ("jsm", "jqs", "monitor"):
            code, said = check(role)
            assert code == 1
            assert "/readyz: 503 so it is" in said
        server.shutdown()
    assert check("jqs")[0] == 1
