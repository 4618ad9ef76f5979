"""Jobmon in containers for real: ./runserver.py --docker, workloads while containers restart, an upgrade.

They run with JOBMON_TEST_DOCKER=1, and need a Docker engine with docker compose and the images named below.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pymysql
import pytest
import requests
from ports import free_port
from slack_auth_helpers import GOOD, FakeSlack, fake_slack
from waiting import until

from jobmon import config as configuration
from jobmon.config import load_config
from jobmon.containers.deployment import LASTING, find_engine
from jobmon.db.connect import connect
from jobmon.stack import PORTS, StackError

ROOT = Path(__file__).resolve().parents[2]
RELEASE = configuration.release_info()["release"]
LOAD = Path(__file__).with_name("load.py")
MYSQL = os.environ.get("JOBMON_TEST_DOCKER_MYSQL", "mysql:8.4")
MARIADB = os.environ.get("JOBMON_TEST_DOCKER_MARIADB", "mariadb:10.11")
# What an image is built of, and ./runserver.py run from.
SOURCE = (
    "Dockerfile", ".dockerignore", "docker-compose.yaml", "constraints.txt", "pyproject.toml", "README.md",
    "wait-for-db.sh", "wait-for-tables.sh", "jobmon", "sql", "migrations",
)  # fmt: skip

if not os.environ.get("JOBMON_TEST_DOCKER"):
    pytest.skip("JOBMON_TEST_DOCKER is not set: no containers", allow_module_level=True)


def docker(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(
        ["docker", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0 or not check, done.stderr
    return done.stdout


class Deployment:
    """./runserver.py --docker with a home, ports and a compose project of its own."""

    def __init__(self, home: Path, slack: FakeSlack) -> None:
        self.home = home
        self.project = f"jobmontest{secrets.token_hex(4)}"
        self.rc = home / ".jobmonrc"
        self.ports = {key: free_port() for key in PORTS}
        self.rc.write_text(json.dumps(self.ports))
        self.directory = home / ".local/state/jobmon" / RELEASE / "docker"
        self.source = ROOT
        self.environ = {
            key: value for key, value in os.environ.items() if not key.startswith(("JOBMON_", "XDG_"))
        }
        self.environ |= {
            "HOME": str(home),
            "JOBMON_SLACK_BASE_URL": slack.url,
            "JOBMON_PROJECT": self.project,
        }
        # Docker's own settings are in the home of who runs the tests.
        self.environ.setdefault("DOCKER_CONFIG", str(Path.home() / ".docker"))

    def __call__(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "jobmon.runserver", *arguments],
            env={**self.environ, "PYTHONPATH": str(self.source)}, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=900,
        )  # fmt: skip
        assert done.returncode == code, done.stdout[-8000:]
        assert "Traceback" not in done.stdout
        return done.stdout

    def container(self, service: str) -> str:
        return f"{self.project}_{service}_1"

    def inspect(self, service: str) -> Any:
        (found,) = json.loads(docker("inspect", self.container(service)))
        return found

    def get(self, route: str, **arguments: Any) -> Any:
        with requests.Session() as session:
            session.trust_env = False
            url = f"http://127.0.0.1:{self.ports['jqs_port']}/{route}"
            answer = session.get(url, params=arguments, timeout=30)
            answer.raise_for_status()
            return answer.json()

    def is_ready(self) -> bool:
        said = subprocess.run(
            [sys.executable, "-P", "-m", "jobmon.runserver", "status"],
            env={**self.environ, "PYTHONPATH": str(self.source)}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        return said.returncode == 0

    def audits(self) -> dict[str, Any]:
        """The rows of each audit that has any."""
        paths = self.get("openapi.json")["paths"]
        names = [path[1:] for path in paths if path.startswith("/audit_")]
        assert len(names) > 3
        found = {name: self.get(name)[name] for name in names}
        return {name: rows for name, rows in found.items() if rows}

    def secrets(self) -> dict[str, str]:
        """All that must stand in private files only."""
        accounts = json.loads((self.directory / "accounts" / "accounts.json").read_text())["accounts"]
        return {
            "token": json.loads(self.rc.read_text())["token"],
            "slack": GOOD,
            "root": (self.directory / "secrets" / "db_root_password").read_text(),
            **{role: account["password"] for role, account in accounts.items()},
        }

    def remove(self) -> None:
        if (self.directory / "compose.env").exists():
            self("compose", "--profile", "distributor", "down", "--volumes", "--timeout", "5")
        docker("rmi", "--force", f"{self.project}:{RELEASE}", check=False)


@contextlib.contextmanager
def load(deployment: Deployment, directory: Path) -> Iterator[Callable[[], None]]:
    """A workload that goes on while the body runs; afterwards all of it must have been done, once.

    Gives a function that waits until a whole workflow has begun and ended since it was called.
    """
    directory.mkdir()
    log = directory / "log"
    with log.open("wb") as out:
        process = subprocess.Popen(
            [sys.executable, LOAD, directory], env={**deployment.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL, stdout=out, stderr=out,
        )  # fmt: skip

    def results() -> list[dict[str, Any]]:
        with contextlib.suppress(OSError, ValueError):
            found: list[dict[str, Any]] = json.loads((directory / "result.json").read_text())
            return found
        return []

    def goes_on() -> None:
        before = len(results())
        until(lambda: len(results()) >= before + 2 or process.poll() is not None)
        assert process.poll() is None, log.read_text()[-4000:]

    try:
        yield goes_on
        (directory / "stop").touch()
        assert process.wait(600) == 0, log.read_text()[-4000:]
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    for result in results():
        assert result["status"] == "DONE", result
        jobs = deployment.get("jobs", dag_id=result["dag_id"])["jobs"]
        assert len(jobs) == 16
        # An attempt more would mean that a report was lost.
        assert {(job["status"], job["num_attempts"]) for job in jobs} == {("DONE", 1)}, result
    assert deployment.audits() == {}


@pytest.fixture(scope="module", autouse=True)
def engine() -> None:
    try:
        find_engine()
    except StackError as error:
        pytest.fail(f"JOBMON_TEST_DOCKER is set, but {error.message}", pytrace=False)


@pytest.fixture(scope="module")
def slack() -> Iterator[FakeSlack]:
    with fake_slack() as made:
        yield made


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, slack: FakeSlack) -> Iterator[Deployment]:
    """Jobmon in containers, on MySQL; a test that stops it starts it again."""
    made = Deployment(tmp_path_factory.mktemp("home"), slack)
    answers = made.home / "answers.json"
    answers.write_text(json.dumps({"slack_token": GOOD, "default_wf_slack_channel": "alerts"}))
    answers.chmod(0o600)
    try:
        said = made("--docker", "--db-image", MYSQL, "--answers", str(answers))
        assert f"Jobmon {RELEASE} is up." in said
        assert "bot jobmon of the workspace Lab" in said
        yield made
    finally:
        made.remove()


def test_docker_ps_shows_the_services(deployment: Deployment) -> None:
    shown = docker(
        "ps",
        "--filter",
        f"label=com.docker.compose.project={deployment.project}",
        "--format",
        "{{.Names}} {{.Status}}",
    )
    rows = dict(line.split(" ", 1) for line in shown.splitlines())
    assert set(rows) == {deployment.container(name) for name in LASTING}
    assert all(status.startswith("Up ") for status in rows.values())
    until(deployment.is_ready)  # a machine that is busy answers late
    said = deployment("status")
    assert [line.split()[0] for line in said.splitlines()[1:]] == list(LASTING)
    assert said.count("(ready)") == len(LASTING)
    until(lambda: all(deployment.inspect(n)["State"]["Health"]["Status"] == "healthy" for n in LASTING))
    for name in LASTING:
        found = deployment.inspect(name)
        assert found["Config"]["Labels"]["jobmon.release"] == RELEASE
        assert found["HostConfig"]["RestartPolicy"]["Name"] == "unless-stopped"
        assert found["HostConfig"]["LogConfig"]["Config"] == {"max-file": "5", "max-size": "10m"}
        places = (found["NetworkSettings"]["Ports"] or {}).values()
        assert {place["HostIp"] for found in places for place in found or ()} <= {"127.0.0.1"}
    image = json.loads(docker("image", "inspect", f"{deployment.project}:{RELEASE}"))[0]["Config"]
    assert image["Labels"]["org.opencontainers.image.version"] == RELEASE
    assert image["Healthcheck"]["Test"][0] == "CMD"
    assert image["User"] not in ("", "0", "root")
    for name in ("jsm", "jqs", "monitor"):
        assert docker("exec", deployment.container(name), "id", "-u").strip() != "0"
        assert deployment.inspect(name)["HostConfig"]["ReadonlyRootfs"] is True


def test_secrets_are_in_private_files_only(deployment: Deployment) -> None:
    found = deployment.secrets()
    assert len(found) == 7
    shown = {
        "compose config": deployment("compose", "config"),
        "history": docker("history", "--no-trunc", f"{deployment.project}:{RELEASE}"),
        "image": docker("image", "inspect", f"{deployment.project}:{RELEASE}"),
        "logs": deployment("logs", "--tail", "100000"),
    }
    for name in (*LASTING, "setup"):
        shown[f"inspect {name}"] = docker("inspect", deployment.container(name))
    for name in LASTING:
        container = deployment.container(name)
        shown[f"environment {name}"] = docker("exec", container, "env")
        shown[f"processes {name}"] = docker("top", container, "-eo", "pid,args")
        if os.geteuid() == 0:
            for pid in re.findall(r"^ *(\d+) ", shown[f"processes {name}"], re.MULTILINE):
                with contextlib.suppress(OSError):  # it has ended, or the engine is on another machine
                    shown[f"environment of {name} {pid}"] = Path(f"/proc/{pid}/environ").read_text()
    for place, text in shown.items():
        for what, secret in found.items():
            assert secret not in text, f"{what} is in {place}"
    for path in deployment.directory.rglob("*"):
        if path.is_file() and path.name != "runserver.lock":
            assert path.stat().st_mode & 0o077 == 0, path


def test_the_password_that_the_image_was_given_is_void(deployment: Deployment) -> None:
    root = load_config(deployment.rc, env={}).conn_spec("admin")
    connect(root).close()
    first = (deployment.directory / "secrets" / "db_first_password").read_text()
    with pytest.raises(pymysql.err.OperationalError) as caught:
        connect(root.with_account("root", first))
    assert caught.value.args[0] == 1045


def test_jobmon_commands_of_this_machine_work(deployment: Deployment) -> None:
    def jobmon(*arguments: str) -> str:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "jobmon.cli", *arguments],
            env={**deployment.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "up to date" in jobmon("db", "status")
    assert "what the files say" in jobmon("db", "validate")
    jobmon("db", "grants", "--check")
    assert "login works" in jobmon("db", "accounts")


def test_the_demo_runs(deployment: Deployment) -> None:
    assert "All 12 jobs ended as they should" in deployment("--demo")


def test_a_second_start_replaces_nothing(deployment: Deployment, slack: FakeSlack) -> None:
    before = {name: deployment.inspect(name)["Id"] for name in LASTING}
    slack.answer = (200, {"ok": False, "error": "token_revoked"})  # a start does not depend on Slack
    try:
        said = deployment()
    finally:
        slack.answer = None
    assert "Slack refuses the token: token_revoked." in said
    assert {name: deployment.inspect(name)["Id"] for name in LASTING} == before


def test_restarts_under_load_lose_nothing(deployment: Deployment, tmp_path: Path) -> None:
    with load(deployment, tmp_path / "load") as goes_on:
        goes_on()
        for name in LASTING:
            docker("restart", deployment.container(name))
            until(deployment.is_ready)
            goes_on()


def test_what_is_killed_under_load_comes_back(deployment: Deployment, tmp_path: Path) -> None:
    with load(deployment, tmp_path / "load") as goes_on:
        goes_on()
        for name in ("jsm", "jqs"):
            # docker kill would count as a wish of its operator's.
            command = ["python", "-c", "import os; os.kill(-1, 9)"]
            docker("exec", deployment.container(name), *command, check=False)
            until(lambda name=name: deployment.inspect(name)["RestartCount"] > 0)  # type: ignore[misc]
            until(deployment.is_ready)
            goes_on()
        state = deployment.inspect("db")["State"]
        with contextlib.suppress(psutil.Error):
            server = psutil.Process(state["Pid"])
            if os.geteuid() == 0 and server.name() in ("mysqld", "mariadbd"):  # the engine is on this machine
                server.send_signal(signal.SIGKILL)
                until(lambda: deployment.inspect("db")["RestartCount"] > 0)
                until(deployment.is_ready)
                goes_on()


def next_version(directory: Path) -> int:
    """Make a source tree of a Jobmon with one migration more, and one changed procedure; its version."""
    for name in SOURCE:
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, directory / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            directory.mkdir(exist_ok=True)
            shutil.copy2(path, directory / name)
    numbers = sorted(path.name for path in (directory / "migrations").glob("[0-9]*.sql"))
    number = int(numbers[-1].split(".")[0]) + 1
    name = directory / "migrations" / f"{number:04}.next_version"
    name.with_suffix(".next_version.sql").write_text(
        "ALTER TABLE job ADD COLUMN next_version INT NULL;\n\n"
        "CREATE INDEX job_next_version ON job (next_version, job_id);\n\n"
        f"UPDATE schema_info SET schema_version = {number};\n"
    )
    name.with_suffix(".next_version.rollback.sql").write_text(
        f"UPDATE schema_info SET schema_version = {number - 1};\n\n"
        "ALTER TABLE job DROP INDEX job_next_version, DROP COLUMN next_version;\n"
    )
    for procedure in ("log_running", "log_done", "log_events", "claim_jobs"):
        path = directory / "sql" / "procedures" / f"{procedure}.sql"
        text = path.read_text(encoding="utf-8")
        changed = text.replace("Description:", "Description: (next version)", 1)
        assert changed != text
        path.write_text(changed, encoding="utf-8")
    return number


def test_an_upgrade_with_migrations_under_load_loses_nothing(deployment: Deployment, tmp_path: Path) -> None:
    number = next_version(tmp_path / "next")
    before = deployment.inspect("jsm")["Id"]
    with load(deployment, tmp_path / "load") as goes_on:
        goes_on()
        deployment.source = tmp_path / "next"
        said = deployment()
        assert f"Jobmon {RELEASE} is up." in said
        goes_on()
    assert "applied 1 migrations, loaded 4 objects" in deployment("logs", "setup")
    assert deployment.inspect("jsm")["Id"] != before
    url = f"http://127.0.0.1:{deployment.ports['jsm_management_port']}/readyz"
    found = requests.get(url, timeout=30, proxies={"http": ""}).json()
    assert (found["schema_version"], found["code_version"]) == (number, number)
    # From here on it is the newer one, as a database does not go back by itself.
    deployment.source = ROOT
    said = deployment(code=1)
    assert "newer than this code" in said
    assert "Exited (exit code 1)" in deployment("status", code=3)
    # what runs is left alone
    until(lambda: deployment("status", code=3).count("(ready)") == len(LASTING))
    deployment.source = tmp_path / "next"


def test_down_and_up_keep_the_data(deployment: Deployment) -> None:
    before = deployment.get("workflows", limit=1000)["workflows"]
    assert len(before) > 5
    deployment("compose", "down")
    assert deployment("status", code=3).count("Stopped") == len(LASTING)
    deployment()
    assert deployment.get("workflows", limit=1000)["workflows"] == before
    assert deployment.audits() == {}


def test_stop_keeps_everything_and_says_so(deployment: Deployment) -> None:
    before = deployment.get("workflows", limit=1000)["workflows"]
    assert deployment("stop").rstrip().endswith("Stopped.")
    assert deployment("stop").rstrip().endswith("Jobmon is not running.")
    deployment("status", code=3)
    deployment("restart", "jsm", code=1)
    deployment()
    assert deployment.get("workflows", limit=1000)["workflows"] == before


def test_new_passwords_while_the_services_run(deployment: Deployment) -> None:
    before = deployment.secrets()
    deployment("compose", "run", "--rm", "setup", "--rotate")
    after = deployment.secrets()
    assert {name for name in before if before[name] != after[name]} == {"migrator", "jsm", "jqs", "reader"}
    deployment("restart", "jqs")
    assert "All 12 jobs ended as they should" in deployment("--demo")


def test_a_distributor_in_a_container(deployment: Deployment) -> None:
    deployment("compose", "--profile", "distributor", "up", "--detach", "--no-deps", "distributor")
    program = (
        "import sys; from jobmon import BashTask, Workflow\n"
        "workflow = Workflow('in a container', working_dir=sys.argv[1])\n"
        "workflow.add_tasks([BashTask('id -u > uid.txt')])\n"
        "print(workflow.submit())"
    )
    shared = deployment.directory / "work"
    subprocess.run(
        [sys.executable, "-c", program, shared], env={**deployment.environ, "PYTHONPATH": str(ROOT)},
        check=True, timeout=120,
    )  # fmt: skip
    until((shared / "uid.txt").exists)
    until(deployment.is_ready)
    assert "distributor" in deployment("status")
    until(lambda: (shared / "uid.txt").read_text().strip())
    uid = int((shared / "uid.txt").read_text())
    assert uid == (shared / "uid.txt").stat().st_uid != 0
    deployment("compose", "--profile", "distributor", "rm", "--stop", "--force", "distributor")


def test_a_wrong_token_without_a_terminal_is_an_error(deployment: Deployment) -> None:
    deployment.environ["JOBMON_SLACK_TOKEN"] = "xoxb-wrong"
    try:
        said = deployment(code=1)
    finally:
        del deployment.environ["JOBMON_SLACK_TOKEN"]
    assert "Error: Slack refuses the token: invalid_auth" in said
    assert "Hint:" in said


def test_mariadb_and_no_token(tmp_path: Path, slack: FakeSlack) -> None:
    other = Deployment(tmp_path, slack)
    try:
        said = other("--docker", "--db-image", MARIADB, "--no-token", "--no-input", "--demo")
        assert "All 12 jobs ended as they should" in said
        assert "(no token)" in said
        assert "MariaDB" in connect(load_config(other.rc, env={}).conn_spec("admin")).get_server_info()
        assert other.audits() == {}
        until(lambda: other.inspect("db")["State"]["Health"]["Status"] == "healthy")
    finally:
        other.remove()
