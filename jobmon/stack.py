"""Jobmon on one machine without containers: a database server and all services as supervised processes.

All of a release is in `<state directory>/<release>/`: the database (`db/`), the accounts (`accounts.json`),
the services' configuration (`services.json`), logs and the supervisor's files (`run/`). So releases live
side by side.

The services read only `services.json`. It is written at each start from the user's configuration
(`~/.jobmonrc`, `JOBMON_*`, flags) and what is decided here; afterwards `~/.jobmonrc` tells clients where
the services are.
"""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import secrets
import socket
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from subprocess import Popen
from typing import TYPE_CHECKING, Any

import psutil

from jobmon import config as configuration
from jobmon.config import Config, load_config, write_rc
from jobmon.supervisor import Program, Status, Supervisor

if TYPE_CHECKING:
    from jobmon.db.embedded import ServerBinaries

# In a release's directory: what is kept of its containers, if it is deployed so (jobmon/containers).
CONTAINERS = "docker"
PORTS = ("db_port", "jsm_port", "jsm_management_port", "jqs_port")
SERVICES = {"jsm": "job_state_manager", "jqs": "job_query_server", "monitor": "health_monitor"}
# What stands in services.json only if it was decided here: the services have accounts of their own.
NOT_PASSED_ON = frozenset(key for key in configuration.KEYS if key.endswith("conn_str"))
DATABASE_SECONDS = 300.0  # the recovery after a crash may take that long
SERVICE_SECONDS = 60.0
DRAIN_SECONDS = 40  # a service finishes the requests in flight first, for at most 30 s

Log = Callable[[str], None]


class StackError(Exception):
    """Jobmon can't be set up or started.

    Args:
        message: what went wrong.
        hint: what to do about it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


def release_directory(state: Path, release: str) -> Path:
    """Where everything of a release is kept.

    Args:
        state: the configured state directory. ~/.jobmonrc may name the release's own directory there (that
            is what `Stack.tell_clients` writes, for `jobmon db`): its parent is meant then.
        release: the release's name.
    """
    base = state
    if state.name == CONTAINERS and (state.parent.name == release or (state / "services.json").exists()):
        base = state.parent.parent
    elif (state / "services.json").exists():
        base = state.parent
    return base / release


class Stack:
    """One release of Jobmon on this machine.

    Args:
        config: the user's configuration with the flags over it.
        token: whether the services want a bearer token.
        rc: the user's rc file, which will name the services; None for the usual one.
    """

    within = ""  # the release's directory, in which everything is

    def __init__(self, config: Config, *, token: bool = True, rc: Path | None = None) -> None:
        self.config = config
        self.rc = configuration.rc_path(rc)
        self.release_directory = release_directory(config.state_dir, config.release)
        self.directory = self.release_directory / self.within
        self.services_file = self.directory / "services.json"
        self.accounts_file = self.directory / "accounts.json"
        self.data_dir = self.directory / "db" / "data"
        self.ports = self._choose_ports()
        self.token = self._choose_token() if token else None
        self.supervisor = Supervisor(self.directory / "run", self._programs())

    # -- what is wanted

    @classmethod
    def started(cls, config: Config, *, rc: Path | None = None) -> Stack | None:
        """The release as it was last started, whatever the configuration says by now; None if it never was.

        Args:
            config: the user's configuration, for the state directory.
            rc: as in `Stack`.
        """
        services_file = release_directory(config.state_dir, config.release) / cls.within / "services.json"
        if not services_file.exists():
            return None
        last = load_config(services_file, env={})
        return cls(last, token=last.token is not None, rc=rc)

    def _choose_ports(self) -> dict[str, int]:
        """The configured ports; but a port that is in the rc file because another release was started is
        not meant.
        """
        own = read_settings(self.services_file)
        neighbours = [
            read_settings(path)
            for pattern in ("*/services.json", f"*/{CONTAINERS}/services.json")
            for path in self.release_directory.parent.glob(pattern)
            if not path.is_relative_to(self.release_directory)
        ]
        defaults = configuration.release_info()
        ports: dict[str, int] = {}
        for key in PORTS:
            ports[key] = getattr(self.config, key)
            from_rc = (
                self.config.source(key) == str(self.rc) and self.config.accounts_file != self.accounts_file
            )
            if from_rc and any(settings.get(key) == ports[key] for settings in neighbours):
                ports[key] = own.get(key, defaults[key])
        return ports

    def _choose_token(self) -> str:
        own = read_settings(self.services_file).get("token")
        return self.config.token or (own if isinstance(own, str) else None) or secrets.token_urlsafe(32)

    def _programs(self) -> list[Program]:
        python = (sys.executable, "-P")
        command = (*python, "-m", "jobmon.cli", "start")
        bind = self.config.bind
        ports = self.ports
        database = ("--data-dir", str(self.data_dir), "--port", str(ports["db_port"]))
        return [
            Program(
                "db",
                (*python, "-m", "jobmon.db.embedded", "run", *database),
                (f"127.0.0.1:{ports['db_port']}",),
                stop_seconds=120,
            ),
            Program(
                "jsm",
                (*command, SERVICES["jsm"]),
                (f"{bind}:{ports['jsm_port']}", f"{bind}:{ports['jsm_management_port']}"),
                stop_seconds=DRAIN_SECONDS,
            ),
            Program(
                "jqs",
                (*command, SERVICES["jqs"]),
                (f"{bind}:{ports['jqs_port']}",),
                stop_seconds=DRAIN_SECONDS,
            ),
            Program(
                "monitor",
                (*command, SERVICES["monitor"]),
                (f"{bind}:{self.config.monitor_port}",) if self.config.monitor_port else (),
                stop_seconds=DRAIN_SECONDS,  # a message that is under way to Slack is waited for
            ),
        ]

    def settings(self) -> dict[str, Any]:
        """What the services' configuration says: the user's, and over it what is decided here."""
        values = {key: value for key, value in self.config.as_dict(redact=False).items() if value is not None}
        for key in NOT_PASSED_ON:
            values.pop(key, None)
        values |= self.ports
        values |= {"state_dir": str(self.directory), "accounts_file": str(self.accounts_file)}
        values.pop("token", None)
        if self.token:
            values["token"] = self.token
        else:
            values.pop("read_token", None)
        return values

    @property
    def host(self) -> str:
        """The address under which this machine reaches the services."""
        bind = self.config.bind
        return "127.0.0.1" if bind in ("0.0.0.0", "::", "localhost") else bind

    def url(self, service: str) -> str:
        """The base URL of "jsm", "jqs" or "jsm_management", from this machine."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.ports[service + '_port']}"

    @property
    def client_host(self) -> str:
        """The host that clients are told: the configured one if others may reach it, else this machine's
        loopback.
        """
        if self.config.listens_on_loopback:
            return self.host
        if self.config.source("host") != "default" and self.config.host not in ("localhost", "127.0.0.1"):
            return self.config.host
        return self.host if self.host != "127.0.0.1" else socket.getfqdn()

    # -- starting

    def is_up(self) -> bool:
        """Whether the supervisor runs (its services may be stopped or failing)."""
        return self.supervisor.is_up()

    def differences(self, keys: list[str]) -> list[str]:
        """What of `keys` (those given as flags) the running services have otherwise, for people to read."""
        running = read_settings(self.services_file)
        wanted = self.settings()
        found = [
            f"{key} is {running.get(key)}, not {wanted[key]}"
            for key in keys
            if key in wanted and key not in ("token", "state_dir") and running.get(key) != wanted[key]
        ]
        if bool(running.get("token")) != bool(self.token):
            found.append("it wants a token" if running.get("token") else "it wants no token")
        return found

    def start(self, log: Log, *, die_with_parent: bool) -> Popen[bytes] | None:
        """Start everything that is not running and wait until it is of use.

        Args:
            log: takes a line for the person who waits.
            die_with_parent: whether a supervisor that is started here ends with this process (Linux).

        Returns:
            The supervisor's process if it was started here.

        Raises:
            StackError, SupervisorError, jobmon.config.ConfigError, and those of the database: what is wrong.
        """
        launched = None
        try:
            if not self.is_up():
                self._check_settings()
                left = self.supervisor.sweep()
                if left:
                    raise StackError(
                        f"processes of an earlier start can't be ended: {', '.join(map(str, left))}",
                        "They may belong to another user; end them, then start again.",
                    )
                self.check_ports()
                self._find_database_server(log)
                self._write_services_file()
                launched = self.supervisor.launch(self._environ(), die_with_parent=die_with_parent)
            self._start_database(log)
            for name in SERVICES:
                self._start_service(name, log)
        except BaseException:
            if launched is not None:
                self.supervisor.shut_down()
            raise
        return launched

    def _check_settings(self) -> None:
        if not self.token and not self.config.listens_on_loopback:
            raise StackError(
                f"bind is {self.config.bind}, which other machines reach: that needs a token",
                "Leave --no-token out, or bind to 127.0.0.1.",
            )
        try:
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StackError(
                f"{self.directory}: {error.strerror}", "Choose another state directory by --state-dir."
            ) from error

    def check_ports(self, ours: Collection[int] = ()) -> None:
        """See that nobody uses the ports.

        Args:
            ours: ports that are in use by what is to be started.

        Raises:
            StackError: names each port that is taken, by whom if that can be seen, and how to choose another.
        """
        taken = []
        for key in PORTS:
            address = "127.0.0.1" if key == "db_port" else self.config.bind
            complaint = None if self.ports[key] in ours else port_complaint(address, self.ports[key])
            if complaint:
                taken.append(f"{key} {self.ports[key]} {complaint}")
        if len({self.ports[key] for key in PORTS}) < len(PORTS):
            taken.append("two of them are the same: " + ", ".join(f"{k} {v}" for k, v in self.ports.items()))
        if taken:
            flags = " ".join(f"--{key.replace('_', '-')} N" for key in PORTS if f"{key} " in " ".join(taken))
            raise StackError(
                "ports can't be used: " + "; ".join(taken),
                f"Choose others: ./runserver.py {flags}, or the same keys in {self.rc}.",
            )

    def _find_database_server(self, log: Log) -> None:
        from jobmon.db.embedded import EmbeddedServer

        server = EmbeddedServer(self.data_dir, self.ports["db_port"])
        # An initialised directory wants its own kind of server: any other would not do.
        binaries = server.binaries if server.is_initialised else find_database_server(log)
        log(f"Database server: {binaries.product} {binaries.version_text} ({binaries.server})")

    def _write_services_file(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            self.services_file.unlink()
        write_rc(self.settings(), self.services_file)

    def _environ(self) -> dict[str, str]:
        """The services' environment: everything about Jobmon is in their file, so no JOBMON_* setting goes
        along.
        """
        names = {
            configuration.ENV_PREFIX + key.upper() for key in (*configuration.KEYS, *configuration.ALIASES)
        }
        environ = {key: value for key, value in os.environ.items() if key not in names | {"JOBMON_CONFIG"}}
        return environ | {"JOBMON_RC": str(self.services_file)}

    def _start_database(self, log: Log) -> None:
        from jobmon.db.embedded import EmbeddedServer

        server = EmbeddedServer(self.data_dir, self.ports["db_port"])
        if not (self.supervisor.status("db").is_running and server.is_ready()):
            log(
                "Starting the database ..."
                if server.is_initialised
                else "Making and starting the database ..."
            )
            self.supervisor.start_program("db")
            self.supervisor.wait_ready("db", server.is_ready, DATABASE_SECONDS)
        self._prepare_database(log)

    def _prepare_database(self, log: Log) -> None:
        """Bring tables, routines and accounts to this code's state; does little if they are."""
        from jobmon.db.embedded import read_root_spec
        from jobmon.db.grants import apply_grants
        from jobmon.db.migrate import DEFAULT_DATABASE, migrate

        spec = read_root_spec(self.data_dir).with_database(DEFAULT_DATABASE)
        log("Bringing its tables, routines and accounts up to date ...")
        result = migrate(spec, say=lambda line: None if line.startswith("loaded ") else log(line))
        if result.objects:
            log(f"loaded {len(result.objects.loaded)} routines, triggers and views")
        for warning in result.warnings:
            log(f"Warning: {warning}")
        apply_grants(spec, accounts_file=self.accounts_file)

    def _start_service(self, name: str, log: Log) -> None:
        if self.supervisor.status(name).is_running and self.is_ready(name):
            return
        log(f"Starting {name} ...")
        self.supervisor.start_program(name)
        self.supervisor.wait_ready(name, lambda: self.is_ready(name), SERVICE_SECONDS)

    def is_ready(self, name: str) -> bool:
        """Whether the process does its work: the service's /readyz says so, the database answers, or the
        monitor has looked at everything lately.
        """
        if name == "db":
            from jobmon.db.embedded import EmbeddedServer

            return EmbeddedServer(self.data_dir, self.ports["db_port"]).is_ready()
        if name == "monitor":
            return self._monitor_watches()
        try:
            with self._open(f"{self.url(name)}/readyz") as answer:
                return bool(answer.status == 200)
        except (OSError, urllib.error.URLError, http.client.HTTPException):
            return False

    def _monitor_watches(self) -> bool:
        """Whether JQS knows of a look that is not longer ago than a pause lasts."""
        try:
            with self._open(f"{self.url('jqs')}/monitor_state") as answer:
                (row,) = json.loads(answer.read())["monitor_state"]
            return float(row["seconds_since_check"]) <= float(row["max_pause_seconds"])
        except (OSError, urllib.error.URLError, http.client.HTTPException, ValueError, TypeError, KeyError):
            return False

    def _open(self, url: str) -> Any:
        # No proxy: these are our own processes.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        token = self.config.read_token or self.token
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return opener.open(urllib.request.Request(url, headers=headers), timeout=3)

    def tell_clients(self) -> Path:
        """Write into the user's rc file where the services are, and the token.

        Returns:
            The file.
        """
        return write_rc(
            {
                "host": self.client_host,
                "jsm_port": self.ports["jsm_port"],
                "jqs_port": self.ports["jqs_port"],
                "jsm_management_port": self.ports["jsm_management_port"],
                "db_port": self.ports["db_port"],
                "token": self.token,
                # For `jobmon db ...` at a shell.
                "state_dir": str(self.directory),
                "accounts_file": str(self.accounts_file),
            },
            self.rc,
        )

    # -- running

    def statuses(self) -> list[tuple[Status, bool]]:
        """Each process, and whether it does its work."""
        return [
            (status, status.pid > 0 and self.is_ready(status.name)) for status in self.supervisor.statuses()
        ]

    def restart(self, name: str, log: Log) -> None:
        """Stop one process and start it again, and wait until it is of use.

        Raises:
            StackError: nothing is running. SupervisorError: it does not come up.
        """
        if not self.is_up():
            raise StackError("Jobmon is not running.", "Start it: ./runserver.py")
        log(f"Stopping {name} ...")
        self.supervisor.stop_program(name)
        if name == "db":
            self._start_database(log)
            return
        self._start_service(name, log)

    def stop(self, log: Log) -> bool:
        """Stop the services, then the database (cleanly), then the supervisor, and whatever else is left.

        Returns:
            Whether anything was running.

        Raises:
            StackError: a process can't be ended.
        """
        running = self.is_up() or any(status.pid for status in self.supervisor.statuses())
        left = self.supervisor.shut_down(lambda name: log(f"Stopping {name} ..."))
        if left:
            raise StackError(
                f"processes can't be ended: {', '.join(map(str, left))}", "Do they belong to another user?"
            )
        return running


def find_database_server(log: Log) -> ServerBinaries:
    """Find a database server program on this machine, or install one.

    Raises:
        jobmon.db.embedded.ServerNotFoundError: there is none and it can't be installed; a hint says more.
    """
    from jobmon.db.embedded import ServerNotFoundError, find_server
    from jobmon.db.install_server import install_server

    try:
        return find_server()
    except ServerNotFoundError as error:
        log(f"There is {error.message}: installing one ...")
        return install_server()


def main_find_server() -> None:
    """For ./runtests.py: have a database server program, or end with a message and exit code 1."""
    from jobmon.db.embedded import EmbeddedServerError

    try:
        find_database_server(lambda line: print(line, file=sys.stderr, flush=True))
    except EmbeddedServerError as error:
        sys.exit(f"Error: {error.message}\nHint: {error.hint}")


def read_settings(path: Path) -> Mapping[str, Any]:
    """The contents of a services.json; empty if it is not there or not whole."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return document if isinstance(document, dict) else {}


def port_complaint(address: str, port: int) -> str | None:
    """Why this process can't listen on the port; None if it can.

    Args:
        address: the address to listen on.
        port: the TCP port.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address, port))
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                return "is in use" + listener(port)
            return f"is refused: {error.strerror}"
    return None


def listener(port: int) -> str:
    """ " by PROGRAM (process N)" for whoever listens on the port; empty if that can't be seen."""
    with contextlib.suppress(psutil.Error, OSError):
        for connection in psutil.net_connections("tcp"):
            listens = connection.status == psutil.CONN_LISTEN and getattr(connection.laddr, "port", 0) == port
            if listens and connection.pid:
                return f" by {psutil.Process(connection.pid).name()} (process {connection.pid})"
    return ""
