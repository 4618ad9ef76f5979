"""One release of Jobmon in containers on this machine, by docker compose.

Everything but the data is in `<state directory>/<release>/docker/`: the variables for `docker-compose.yaml`
(`compose.env`), each service's settings (`secrets/`), the accounts (`accounts/`), what was answered
(`deployment.json`), and what this machine's commands use (`services.json`, `accounts.json`). The data are in
a named volume.

Files with secrets have mode 0600 and belong to the user whom the containers run as: the operator, or if that
is root, a user of the image (10001).
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from subprocess import Popen
from typing import Any, NoReturn

from jobmon.config import KEYS, Config, read_accounts, write_private
from jobmon.containers import questions
from jobmon.db.connect import ConnectionSpec
from jobmon.db.embedded import default_buffer_pool
from jobmon.db.grants import new_password
from jobmon.db.migrate import DEFAULT_DATABASE
from jobmon.release import project_name
from jobmon.stack import CONTAINERS, Log, Stack, StackError, read_settings, release_directory
from jobmon.supervisor import Status

SOURCE = Path(__file__).resolve().parents[2]
COMPOSE_FILE = SOURCE / "docker-compose.yaml"
DEFAULT_DB_IMAGE = "mysql:8.4"
IMAGE_USER = 10001  # USER of the Dockerfile
OLDEST_COMPOSE = (2, 20)
MAX_CONNECTIONS = 300
READY_SECONDS = 300.0
ENGINE_SECONDS = 20.0
# In the order in which people look at them.
SERVICES = ("db", "setup", "jsm", "jqs", "monitor", "distributor")
# What must run and be ready; the set-up ends, a distributor runs on request.
LASTING = ("db", "jsm", "jqs", "monitor")
# The user's settings that a service in a container has as well.
PASSED_ON = (
    "workers", "threads", "pool_size", "pool_timeout", "db_connect_timeout", "db_read_timeout",
    "max_body_bytes", "log_level", "verbose",
)  # fmt: skip
# Those that the health monitor has besides.
OF_MONITOR = (
    "slack_base_url", "loss_threshold", "monitor_poll_interval", "node_window", "node_min_job_instances",
    "node_failure_rate",
)  # fmt: skip
# Kept from start to start, unless the configuration says otherwise by now.
REMEMBERED = ("bind", "host", "read_token", *PASSED_ON, *OF_MONITOR)
ACCOUNTS = "/run/jobmon/accounts/accounts.json"  # in a container
STATES = {"running": "RUNNING", "restarting": "BACKOFF", "created": "STOPPED", "removing": "STOPPING"}


@dataclass(frozen=True)
class Engine:
    """The Docker engine that answers here.

    Attributes:
        version: of the engine. compose: of docker compose.
        rootless: whether its root is the user who runs it.
    """

    version: str
    compose: str
    rootless: bool


def run_docker(*arguments: str, timeout: float | None = ENGINE_SECONDS) -> str:
    """The output of a docker command.

    Raises:
        StackError: there is no such program, it fails, or it takes longer than `timeout` seconds.
    """
    try:
        done = subprocess.run(
            ["docker", *arguments], stdin=subprocess.DEVNULL, capture_output=True, text=True,
            errors="replace", timeout=timeout, env=docker_environ(), check=False,
        )  # fmt: skip
    except FileNotFoundError:
        raise StackError("there is no docker command", "Install Docker, or use --embedded.") from None
    except OSError as error:
        raise StackError(f"docker: {error.strerror}", "Mend or remove it, or use --embedded.") from None
    except subprocess.TimeoutExpired:
        raise StackError(
            f"docker {arguments[0]} gave no answer within {timeout:g} s", "Is the engine well?"
        ) from None
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        hint = "May this user talk to the engine (group docker)? Is it running (docker info)?"
        raise StackError(f"docker {arguments[0]}: {reason}", hint)
    return done.stdout


def docker_environ() -> dict[str, str]:
    """The environment of docker commands.

    Variables of the shell would win over those of the file: JOBMON_* settings have been read by now, and what
    comes of them is in it.
    """
    return {
        key: value
        for key, value in os.environ.items()
        if not key.startswith("JOBMON_")
        and key not in ("COMPOSE_FILE", "COMPOSE_PROJECT_NAME", "COMPOSE_ENV_FILES")
    }


def find_engine() -> Engine:
    """The engine, if one answers and docker compose is there.

    Raises:
        StackError: says what is missing.
    """
    version = run_docker("version", "--format", "{{.Server.Version}}").strip()
    compose = run_docker("compose", "version", "--short").strip()
    numbers = tuple(int(part) for part in re.findall(r"\d+", compose)[:2])
    if numbers < OLDEST_COMPOSE:
        wanted = ".".join(map(str, OLDEST_COMPOSE))
        raise StackError(f"docker compose is {compose}, too old", f"Jobmon needs {wanted} or newer.")
    options = run_docker("info", "--format", "{{json .SecurityOptions}}")
    if "name=userns" in options:
        raise StackError(
            "the engine maps users to others (userns-remap): containers could not read files of mode 0600",
            "Use an engine without it, or a rootless one, or --embedded.",
        )
    return Engine(version, compose, "name=rootless" in options)


class Containers(Stack):
    """One release of Jobmon in containers.

    Args:
        config: the user's configuration with the flags over it.
        token: whether the services want a bearer token.
        rc: the user's rc file, which will name the services; None for the usual one.
        project: the compose project; None: as before, or that of the release.
        db_image: the database's image; None: as before, or `DEFAULT_DB_IMAGE`.
    """

    within = CONTAINERS

    def __init__(
        self,
        config: Config,
        *,
        token: bool = True,
        rc: Path | None = None,
        project: str | None = None,
        db_image: str | None = None,
    ) -> None:
        directory = release_directory(config.state_dir, config.release) / self.within
        remembered = read_settings(directory / "services.json")
        values = {
            key: KEYS[key].metadata["parse"](remembered[key])
            for key in REMEMBERED
            if config.source(key) == "default" and remembered.get(key) is not None
        }
        sources = {**config.sources, **dict.fromkeys(values, str(directory / "services.json"))}
        super().__init__(dataclasses.replace(config, **values, sources=sources), token=token, rc=rc)
        self.record_file = self.directory / "deployment.json"
        self.env_file = self.directory / "compose.env"
        self.secrets = self.directory / "secrets"
        self.record: dict[str, Any] = dict(read_settings(self.record_file))
        self.project = project or self.record.get("project") or project_name(config.release)
        self.db_image = db_image or self.record.get("db_image") or DEFAULT_DB_IMAGE

    # -- what is wanted

    def answer(self, *, ask: bool, again: bool, answers: Path | None, log: Log) -> None:
        """Have the answers to what the operator is asked.

        Args:
            ask: whether somebody is there to be asked.
            again: ask also what was answered at an earlier start.
            answers: the file named by --answers.
            log: takes a line for people.

        Raises:
            ConfigError: of the file. StackError: Slack refuses the token. click.Abort: no answer.
        """
        remembered = self.record.get("answers", {})
        told = questions.read_answers(answers) if answers else {}
        known = questions.given(self.config, told, {} if again and ask else remembered)
        try:
            self.record["answers"] = questions.collect(
                known,
                remembered,
                ask=ask,
                say=log,
                check=lambda token: questions.check_token(token, self.config.slack_base_url),
            )
        except questions.Refused as error:
            raise StackError(
                f"Slack refuses the token: {error}",
                "Correct slack_token (JOBMON_SLACK_TOKEN, --answers, ~/.jobmonrc), or leave it out.",
            ) from error

    def owner(self, engine: Engine) -> tuple[int, int]:
        """The user and group as whom the containers run, and whose the files are."""
        if engine.rootless:
            return 0, 0  # which is the engine's user outside, and nobody else
        return (IMAGE_USER, IMAGE_USER) if os.geteuid() == 0 else (os.geteuid(), os.getegid())

    def variables(self, engine: Engine) -> dict[str, str]:
        """What `docker-compose.yaml` is told."""
        uid, gid = self.owner(engine)
        image = (
            f"jobmon:{self.config.release}"
            if self.project == project_name(self.config.release)
            else f"{self.project}:{self.config.release}"
        )
        bind = self.config.listen_address
        return {
            "JOBMON_PROJECT": self.project,
            "JOBMON_RELEASE": self.config.release,
            "JOBMON_REVISION": revision(),
            "JOBMON_IMAGE": image,
            "JOBMON_DB_IMAGE": self.db_image,
            "JOBMON_DB_BUFFER_POOL": str(default_buffer_pool()),
            "JOBMON_DB_MAX_CONNECTIONS": str(MAX_CONNECTIONS),
            "JOBMON_DEPLOYMENT": str(self.directory),
            "JOBMON_SHARED_DIR": str(self.shared_dir),
            "JOBMON_UID": str(uid),
            "JOBMON_GID": str(gid),
            "JOBMON_BIND": f"[{bind}]" if ":" in bind else bind,
            **{f"JOBMON_{key.upper()}": str(port) for key, port in self.ports.items()},
            **{
                f"JOBMON_{name.upper()}_SETTINGS": str(number)
                for name, number in self.record.get("settings", {}).items()
            },
        }

    @property
    def shared_dir(self) -> Path:
        """The directory that a distributor in a container has in common with this machine."""
        wanted = os.environ.get("JOBMON_SHARED_DIR") or self.record.get("shared_dir")
        return Path(wanted).expanduser().absolute() if wanted else self.directory / "work"

    def service_settings(self) -> dict[str, dict[str, Any]]:
        """The configuration of each service, as its container reads it."""
        passed = {key: getattr(self.config, key) for key in PASSED_ON if self.config.source(key) != "default"}
        tokens = {"token": self.token, "read_token": self.config.read_token} if self.token else {}
        common = {
            key: value for key, value in {**passed, **self.ports, **tokens}.items() if value is not None
        }
        server = {**common, "bind": "0.0.0.0", "accounts_file": ACCOUNTS}
        if not self.token:
            server["published_on_loopback"] = True
        client = {**common, "host": "jsm", "query_host": "jqs"}
        slack = {key: value for key, value in self.record.get("answers", {}).items() if value}
        return {
            "setup": {
                "admin_conn_str": self.admin("db").conn_str(),
                "accounts_file": ACCOUNTS,
                "db_port": self.ports["db_port"],
            },
            "jsm": server,
            "jqs": server,
            # Only inside its container, where that port is free: for the health check.
            "monitor": {
                **client,
                **slack,
                **self._own(OF_MONITOR),
                "monitor_port": self.ports["jsm_management_port"],
            },
            "distributor": client,
        }

    def _own(self, keys: Sequence[str]) -> dict[str, Any]:
        """Those of the settings that the user has chosen."""
        return {key: getattr(self.config, key) for key in keys if self.config.source(key) != "default"}

    def admin(self, host: str) -> ConnectionSpec:
        """How to reach the database as root, from where it is called `host`."""
        password = self._secret("db_root_password")
        return ConnectionSpec(
            "root", password, host=host, port=self.ports["db_port"], database=DEFAULT_DATABASE
        )

    def _secret(self, name: str) -> str:
        """A password of ours, generated when it is first wanted."""
        path = self.secrets / name
        if not path.exists():
            write_private(path, new_password())
        return path.read_text(encoding="utf-8").strip()

    # -- files

    def write_files(self, engine: Engine) -> None:
        """Write what the containers and compose read."""
        uid, gid = self.owner(engine)
        accounts = self.directory / "accounts"
        for directory in (self.secrets, accounts, accounts / "jsm", accounts / "jqs", self.shared_dir):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._secret("db_first_password")
        numbers = self.record.setdefault("settings", {})
        for name, settings in self.service_settings().items():
            path = self.secrets / f"{name}.json"
            text = json.dumps(settings, indent=2) + "\n"
            # Compose looks at the number: it knows nothing of a file's contents.
            if name not in numbers or not path.exists() or path.read_text(encoding="utf-8") != text:
                numbers[name] = numbers.get(name, 0) + 1
                write_private(path, text)
        if os.geteuid() == 0:
            for path in (*self.secrets.iterdir(), accounts, *accounts.rglob("*"), self.directory / "work"):
                if path.exists():
                    os.chown(path, uid, gid)
        self.record |= {
            "project": self.project,
            "db_image": self.db_image,
            "shared_dir": str(self.shared_dir),
        }
        write_private(self.record_file, json.dumps(self.record, indent=2) + "\n")
        lines = []
        for name, value in self.variables(engine).items():
            if "'" in value or "\n" in value:
                raise StackError(
                    f"{value!r} can't be used in {self.env_file}", "Use a directory without quotes."
                )
            lines.append(f"{name}='{value}'\n")
        write_private(self.env_file, "".join(lines))
        write_private(self.services_file, json.dumps(self.settings(), indent=2) + "\n")

    def settings(self) -> dict[str, Any]:
        """What is remembered until the next start, and tells this machine's commands where everything is."""
        values = {**self._own(REMEMBERED), **self.ports}
        values |= {"state_dir": str(self.directory), "accounts_file": str(self.accounts_file)}
        if self.token:
            values["token"] = self.token
        else:
            values.pop("read_token", None)
        return {key: value for key, value in values.items() if value is not None}

    def write_host_accounts(self) -> None:
        """Tell `jobmon db ...` on this machine the set-up's accounts, at this end of the port."""
        document = read_accounts(self.directory / "accounts" / "accounts.json")
        document |= {"host": "127.0.0.1", "port": self.ports["db_port"], "unix_socket": None}
        write_private(self.accounts_file, json.dumps(document, indent=2) + "\n")
        root = self.admin("127.0.0.1")
        place = {"user": root.user, "password": root.password, "host": root.host, "port": root.port}
        path = self.data_dir.with_name(self.data_dir.name + ".root.json")
        write_private(path, json.dumps({**place, "unix_socket": None}, indent=2) + "\n")

    # -- docker

    def compose_command(self, *arguments: str) -> list[str]:
        """docker compose for this deployment."""
        return [
            "docker", "compose", "--project-name", self.project, "--file", str(COMPOSE_FILE),
            "--env-file", str(self.env_file), *arguments,
        ]  # fmt: skip

    def compose(self, *arguments: str, quiet: bool = False) -> int:
        """Run docker compose; its output goes to standard error.

        Returns:
            Its exit code.
        """
        output = subprocess.DEVNULL if quiet else 2
        return subprocess.run(
            self.compose_command(*arguments), stdin=subprocess.DEVNULL, stdout=output, stderr=output,
            env=docker_environ(), check=False,
        ).returncode  # fmt: skip

    def inspect(self) -> dict[str, dict[str, Any]]:
        """What the engine knows of our containers, by service.

        Raises:
            StackError: the engine does not answer.
        """
        label = f"label=com.docker.compose.project={self.project}"
        ids = run_docker("ps", "--all", "--no-trunc", "--quiet", "--filter", label).split()
        if not ids:
            return {}
        try:
            found = json.loads(run_docker("inspect", *ids))
        except StackError:  # one of them went just now
            return {}
        by_service: dict[str, dict[str, Any]] = {}
        for container in found:
            labels = container["Config"]["Labels"]
            if labels.get("com.docker.compose.oneoff") != "True":
                by_service[labels["com.docker.compose.service"]] = container
        return by_service

    def is_up(self) -> bool:
        """Whether any of the containers runs, or is being restarted."""
        with contextlib.suppress(StackError):
            found = self.inspect().values()
            return any(container["State"]["Status"] in ("running", "restarting") for container in found)
        return False

    # -- starting

    def start(self, log: Log, *, die_with_parent: bool = False) -> Popen[bytes] | None:
        """Build the image, start or replace what is not as it should be, and wait until it is of use.

        Args:
            log: takes a line for the person who waits.
            die_with_parent: has no meaning here: the engine keeps the containers running.

        Raises:
            StackError: what is wrong; what the containers said has been shown.
        """
        engine = find_engine()
        if not COMPOSE_FILE.exists():
            raise StackError(
                f"{COMPOSE_FILE} is missing", "Start ./runserver.py in a clone of Jobmon's source."
            )
        self._check_settings()
        before = self.record.get("db_image")
        if before and product(before) != product(self.db_image):
            raise StackError(
                f"the data were made by {before}; {self.db_image} can't read them",
                "Leave --db-image out, or use another --state-dir and --project for a new database.",
            )
        containers = self.inspect()
        self.check_ports({port for container in containers.values() for port in published(container)})
        self.write_files(engine)
        log(f"Docker {engine.version}, compose {engine.compose}: building and starting {self.project} ...")
        # First the database and its set-up: what runs goes on serving while tables change.
        self._up(log, "--build", "setup")
        log("Bringing tables, routines and accounts up to date ...")
        if run_docker("wait", f"{self.project}_setup_1", timeout=None).strip() != "0":
            self._fail(log, "the set-up of the database failed")
        services = [name for name in SERVICES if name in LASTING or name in containers]
        self._up(log, "--no-deps", "--remove-orphans", *(set(services) - {"db", "setup"}))
        for name in LASTING:
            self._wait_ready(name, log)
        self.write_host_accounts()
        return None

    def _up(self, log: Log, *arguments: str) -> None:
        if self.compose("--profile", "distributor", "up", "--detach", *arguments):
            self._fail(log, "docker compose up failed")

    def _fail(self, log: Log, message: str, about: str = "") -> NoReturn:
        self._show_trouble(log, about)
        hint = "The lines above say why. ./runserver.py logs shows more; --embedded needs no containers."
        raise StackError(message, hint)

    def _wait_ready(self, name: str, log: Log) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not self.is_ready(name):
            if time.monotonic() > deadline:
                self._fail(log, f"{name} is not ready after {READY_SECONDS:g} s", name)
            time.sleep(0.5)

    def _show_trouble(self, log: Log, about: str) -> None:
        """Show the last words of containers that are not well, and of the service `about`."""
        with contextlib.suppress(StackError):
            for name, container in self.inspect().items():
                state = container["State"]
                ended = state["Status"] in ("exited", "restarting", "dead") and state["ExitCode"] != 0
                if ended or name == about or state.get("Health", {}).get("Status") == "unhealthy":
                    log(f"What {name} said last:")
                    self.compose("logs", "--no-log-prefix", "--tail", "20", name)

    def is_ready(self, name: str) -> bool:
        """Whether a service does its work, as this machine sees it, or the engine's health check."""
        if name in ("jsm", "jqs", "monitor"):
            return super().is_ready(name)
        return self._is_well(self.inspect().get(name))

    @staticmethod
    def _is_well(container: dict[str, Any] | None) -> bool:
        if container is None or container["State"]["Status"] != "running":
            return False
        return container["State"].get("Health", {}).get("Status", "healthy") == "healthy"

    # -- running

    def statuses(self) -> list[tuple[Status, bool]]:
        """Each container, and whether it does its work; the set-up only if it failed or runs."""
        containers = self.inspect()
        found = []
        for name in SERVICES:
            container = containers.get(name)
            if container is None:
                if name in LASTING:
                    found.append((Status(name, "STOPPED"), False))
                continue
            status = container_status(name, container)
            if name == "setup" and status.state == "EXITED" and container["State"]["ExitCode"] == 0:
                continue
            found.append((status, status.state == "RUNNING" and self.is_ready(name)))
        return found

    def restart(self, name: str, log: Log) -> None:
        """Stop one container and start it again, and wait until it is of use.

        Raises:
            StackError: nothing is running, or it does not come up.
        """
        if not self.is_up():
            raise StackError("Jobmon is not running.", "Start it: ./runserver.py")
        log(f"Restarting {name} ...")
        if self.compose("--profile", "distributor", "restart", name):
            raise StackError(f"{name} could not be restarted", "The lines above say why.")
        self._wait_ready(name, log)

    def show_logs(self, names: Sequence[str], *, tail: int, follow: bool) -> int:
        """Print what containers said.

        Args:
            names: services; none: all.
            tail: how many last lines of each. follow: go on until Ctrl-C.

        Returns:
            docker compose's exit code.
        """
        more = ["--follow"] if follow else []
        command = self.compose_command("--profile", "distributor", "logs", "--tail", str(tail), *more, *names)
        with contextlib.suppress(KeyboardInterrupt):
            return subprocess.run(
                command, stdin=subprocess.DEVNULL, env=docker_environ(), check=False
            ).returncode
        return 0

    def stop(self, log: Log) -> bool:
        """Stop the containers, the database last; containers and data stay.

        Returns:
            Whether anything was running.

        Raises:
            StackError: the engine does not answer, or a container can't be stopped.
        """
        containers = self.inspect().values()
        running = any(container["State"]["Status"] in ("running", "restarting") for container in containers)
        if running and self.compose("--profile", "distributor", "stop"):
            raise StackError("docker compose stop failed", "The lines above say why.")
        return running


def product(image: str) -> str:
    """An image's name without registry, tag and digest."""
    return image.partition("@")[0].rpartition("/")[2].partition(":")[0]


def published(container: dict[str, Any]) -> list[int]:
    """The ports of this machine that a running container has."""
    places = (container["NetworkSettings"].get("Ports") or {}).values()
    return [int(place["HostPort"]) for found in places for place in found or ()]


def container_status(name: str, container: dict[str, Any]) -> Status:
    """What the engine knows of a container, as the supervisor says it of a process."""
    state = container["State"]
    word = STATES.get(state["Status"], state["Status"].upper())
    seconds, detail = 0, f"exit code {state['ExitCode']}"
    ports: tuple[str, ...] = ()
    if word == "RUNNING":
        # Nanoseconds are more than Python reads.
        began = datetime.fromisoformat(
            re.sub(r"(\.\d{6})\d*Z?$", r"\1", state["StartedAt"]).removesuffix("Z")
        )
        seconds = max(0, int((datetime.now(UTC) - began.replace(tzinfo=UTC)).total_seconds()))
        detail = state.get("Health", {}).get("Status", "")
        found = (container["NetworkSettings"].get("Ports") or {}).values()
        ports = tuple(sorted({f"{p['HostIp']}:{p['HostPort']}" for places in found for p in places or ()}))
    return Status(name, word, state.get("Pid", 0), seconds, detail, ports)


def revision() -> str:
    """The commit of the clone, for the image's label."""
    try:
        done = subprocess.run(
            ["git", "-C", str(SOURCE), "rev-parse", "HEAD"], stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=10, check=False,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return "unknown"
    return done.stdout.strip() if done.returncode == 0 else "unknown"
