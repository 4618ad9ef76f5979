"""Keep local processes running: a thin layer over the library `supervisor` (supervisord).

Why supervisord: it is kept, pure Python without dependencies, restarts with growing delay, rotates logs,
stops in order, and is asked over a socket of its own. Circus brings Tornado and ZeroMQ with it; honcho
restarts nothing. What supervisord lacks is in jobmon.supervised: processes that end with it when it is
killed, and the removal of what a killed one left.

All files are in one directory: `supervisord.conf`, `.log`, `.pid`, `.sock`, and `log/<name>.log` for each
process.
"""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import os
import shlex
import stat
import subprocess
import sys
import tempfile
import time
import xmlrpc.client
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from supervisor.xmlrpc import Faults, SupervisorTransport  # type: ignore[import-untyped]

from jobmon import supervised

LOG_BYTES = 10_000_000
LOG_FILES = 3
# A path of a Unix socket has at most 107 bytes (Linux), and supervisord binds one with ".<pid>" behind it
# first.
SOCKET_PATH_BYTES = 95
SUPERVISOR = "supervisor"
HOPELESS_SECONDS = 10


class SupervisorError(Exception):
    """The supervisor, or a process under it, does not do what it should.

    Args:
        message: what went wrong.
        hint: what to do about it.
    """

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class Program:
    """A process to keep running.

    Attributes:
        name: what people call it.
        command: program and arguments.
        ports: addresses (host:port) on which it listens, for people to see.
        stop_seconds: how long it may take to end after SIGTERM before it is killed.
    """

    name: str
    command: tuple[str, ...]
    ports: tuple[str, ...] = ()
    stop_seconds: int = 15


@dataclass(frozen=True)
class Status:
    """What the supervisor knows about a process.

    Attributes:
        name: the program's name.
        state: STOPPED, STARTING, RUNNING, BACKOFF (died at once, will be tried again), STOPPING, EXITED or
            FATAL.
        pid: its process id, 0 if it has none.
        seconds: how long it has been running, 0 if it is not.
        detail: what supervisord says about it.
        ports: as in Program.
    """

    name: str
    state: str
    pid: int = 0
    seconds: int = 0
    detail: str = ""
    ports: tuple[str, ...] = ()

    @property
    def is_running(self) -> bool:
        """Whether it runs (and has for a second)."""
        return self.state == "RUNNING"


class Supervisor:
    """A supervisord of one's own in `directory`, with `programs` in the order of their start; stopped in
    reverse.

    Args:
        directory: where its files are; made if missing, mode 0700.
        programs: what it runs. Nothing starts by itself: see `start_program`.
    """

    def __init__(self, directory: Path, programs: Sequence[Program] = ()) -> None:
        self.directory = directory.absolute()
        self.programs = {program.name: program for program in programs}

    @property
    def config_file(self) -> Path:
        """supervisord's configuration."""
        return self.directory / "supervisord.conf"

    @property
    def socket(self) -> Path:
        """Where supervisord listens.

        Beside the other files, or in the temporary directory if that path is too long.
        """
        near = self.directory / "supervisord.sock"
        if len(os.fsencode(near)) <= SOCKET_PATH_BYTES:
            return near
        place = hashlib.sha256(os.fsencode(self.directory)).hexdigest()[:12]
        return Path(tempfile.gettempdir()) / f"jobmon-{os.getuid()}-{place}" / "supervisord.sock"

    def log_file(self, name: str) -> Path:
        """The file with what the process `name` (or "supervisor") printed."""
        return self.directory / ("supervisord.log" if name == SUPERVISOR else f"log/{name}.log")

    def tag(self, name: str) -> str:
        """The value of JOBMON_SERVICE for the process `name`."""
        return f"{self.directory}:{name}"

    # -- supervisord itself

    def write_config(self) -> None:
        """Write supervisord's configuration and make the directories it needs.

        Raises:
            SupervisorError: a directory can't be made or used.
        """
        try:
            work = [supervised.work_directory(self.directory, name) for name in self.programs]
            for directory in (self.directory, self.directory / "log", self.socket.parent, *work):
                directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            place = self.socket.parent.stat()
            if place.st_uid != os.getuid() or stat.S_IMODE(place.st_mode) & 0o022:
                raise SupervisorError(
                    f"{self.socket.parent} can be written to by others",
                    "Remove it, or choose a shorter state directory (JOBMON_STATE_DIR, --state-dir).",
                )
            partial = self.config_file.with_suffix(f".{os.getpid()}")
            partial.write_text(self._config())
            partial.replace(self.config_file)
        except OSError as error:
            raise SupervisorError(
                f"{error.filename or self.directory}: {error.strerror}",
                "Choose another state directory (JOBMON_STATE_DIR or --state-dir).",
            ) from error

    def _config(self) -> str:
        sections: dict[str, dict[str, Any]] = {
            "unix_http_server": {"file": self.socket, "chmod": "0700"},
            "rpcinterface:supervisor": {
                "supervisor.rpcinterface_factory": "supervisor.rpcinterface:make_main_rpcinterface"
            },
            "supervisord": {
                "logfile": self.log_file(SUPERVISOR),
                "logfile_maxbytes": LOG_BYTES,
                "logfile_backups": LOG_FILES,
                "pidfile": self.directory / "supervisord.pid",
                "childlogdir": self.directory / "log",
                "identifier": "jobmon",
                "minfds": 256,
                "minprocs": 20,
            },
        }
        if os.getuid() == 0:  # says that running as root is meant
            sections["supervisord"]["user"] = "root"
        wrapper = (sys.executable, "-P", "-m", "jobmon.supervised", "--")
        for priority, program in enumerate(self.programs.values(), start=1):
            sections[f"program:{program.name}"] = {
                "command": shlex.join([*wrapper, *program.command]),
                "directory": supervised.work_directory(self.directory, program.name),
                "environment": f'{supervised.TAG}="{self.tag(program.name)}"',
                "priority": priority,
                "autostart": f"%(ENV_{supervised.AUTOSTART})s",
                "autorestart": "true",
                "startsecs": 1,
                # Never give up: each start that fails makes the next wait a second longer.
                "startretries": 1_000_000,
                "stopwaitsecs": program.stop_seconds,
                "killasgroup": "true",
                "redirect_stderr": "true",
                "stdout_logfile": self.log_file(program.name),
                "stdout_logfile_maxbytes": LOG_BYTES,
                "stdout_logfile_backups": LOG_FILES,
            }
        lines = ["# Written by runserver.py at every start: changes are lost."]
        for section, settings in sections.items():
            lines.append(f"\n[{section}]")
            for key, value in settings.items():
                text = str(value)
                # Some values are expanded once, some twice: no escape serves both.
                quotes = 2 if key == "environment" else 0
                hard = any(mark in text for mark in ("\n", "%", " ;", " #")) and key != "autostart"
                if hard or text.count('"') != quotes:
                    raise SupervisorError(
                        f"supervisord can't be told of %, quotation marks, ' ;' and ' #' in paths: {text}",
                        "Choose another state directory (--state-dir) or another place for the clone.",
                    )
                lines.append(f"{key} = {text}")
        return "\n".join(lines) + "\n"

    def launch(self, environ: Mapping[str, str], *, die_with_parent: bool) -> subprocess.Popen[bytes]:
        """Start supervisord (not the programs) in a session of its own, and wait until it answers.

        Args:
            environ: the environment of supervisord and of all programs.
            die_with_parent: whether it belongs to the calling process: it stops everything when that dies
                (Linux), and that should start it again if it is killed. Otherwise it is kept: if a signal
                kills it, it comes again and starts all programs.

        Returns:
            The process (the keeper's, if it is kept). It has nothing open of the caller's terminal.

        Raises:
            SupervisorError: it does not come up.
        """
        self.write_config()
        command = [
            sys.executable,
            "-P",
            "-m",
            "supervisor.supervisord",
            "-n",
            "-s",
            "-c",
            str(self.config_file),
        ]
        how = ["--"] if die_with_parent else ["--keep", "--"]
        command = [sys.executable, "-P", "-m", "jobmon.supervised", *how, *command]
        # What it says before its own log is open; afterwards it is silent (-s).
        start_log = self.directory / "supervisord.start.log"
        with open(start_log, "wb") as output:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self.directory,
                env={
                    **environ,
                    supervised.TAG: self.tag(SUPERVISOR),
                    supervised.AUTOSTART: "false",
                    "PYTHONUNBUFFERED": "1",
                },
                start_new_session=True,
                umask=0o077,  # supervisord sets its own only where it daemonises itself
            )
        deadline = time.monotonic() + 30
        while not self.is_up():
            if process.poll() is not None or time.monotonic() > deadline:
                said = start_log.read_text(errors="replace").strip()[-1000:]
                raise SupervisorError(
                    f"supervisord does not come up: {said or 'it says nothing'}",
                    f"Its log: {self.log_file(SUPERVISOR)}",
                )
            time.sleep(0.05)
        return process

    def _call(self, method: str, *arguments: Any) -> Any:
        """Call supervisord over its socket."""
        with xmlrpc.client.ServerProxy(
            "http://127.0.0.1", transport=SupervisorTransport(None, None, f"unix://{self.socket}")
        ) as proxy:
            return getattr(proxy, method)(*arguments)

    def is_up(self) -> bool:
        """Whether supervisord answers."""
        try:
            return bool(self._call("supervisor.getState")["statename"] in ("RUNNING", "RESTARTING"))
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return False

    # -- its programs

    def statuses(self) -> list[Status]:
        """What is known about each program, in the order of their start.

        Without a supervisor, programs whose processes are still there (on systems where they outlive it)
        are ORPHANED.
        """
        try:
            told = {info["name"]: info for info in self._call("supervisor.getAllProcessInfo")}
        except (OSError, http.client.HTTPException, xmlrpc.client.Error):
            return [self._without_supervisor(program) for program in self.programs.values()]
        statuses = []
        for name, program in self.programs.items():
            info = told.get(name)
            if info is None:
                statuses.append(Status(name, "STOPPED", ports=program.ports))
                continue
            running = info["statename"] == "RUNNING"
            statuses.append(
                Status(
                    name,
                    info["statename"],
                    info["pid"],
                    max(0, info["now"] - info["start"]) if running else 0,
                    info["spawnerr"] or info["description"],
                    program.ports,
                )
            )
        return statuses

    def _without_supervisor(self, program: Program) -> Status:
        tag = self.tag(program.name)
        left = supervised.find(lambda other: other == tag)
        if not left:
            return Status(program.name, "STOPPED", ports=program.ports)
        return Status(
            program.name, "ORPHANED", left[0].pid, detail="the supervisor is gone", ports=program.ports
        )

    def status(self, name: str) -> Status:
        """What is known about the program `name`.

        Raises:
            KeyError: there is no such program.
        """
        return next(status for status in self.statuses() if status.name == self.programs[name].name)

    def start_program(self, name: str) -> None:
        """Start the program if it is not running; does not wait for it to be of use.

        Raises:
            SupervisorError: supervisord can't start it.
        """
        try:
            self._call("supervisor.startProcess", name, False)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode != Faults.ALREADY_STARTED:
                raise SupervisorError(
                    f"{name} can't be started: {fault.faultString}", self._look(name)
                ) from fault
        except (OSError, http.client.HTTPException) as error:
            raise self._gone(error) from error

    def stop_program(self, name: str) -> None:
        """Stop the program and wait for its end; SIGKILL after its `stop_seconds`.

        Raises:
            SupervisorError: supervisord can't stop it.
        """
        try:
            self._call("supervisor.stopProcess", name, True)
        except xmlrpc.client.Fault as fault:
            if fault.faultCode not in (Faults.NOT_RUNNING, Faults.BAD_NAME):
                raise SupervisorError(
                    f"{name} can't be stopped: {fault.faultString}", self._look(name)
                ) from fault
        except (OSError, http.client.HTTPException) as error:
            raise self._gone(error) from error

    def wait_ready(
        self,
        name: str,
        is_ready: Callable[[], bool],
        seconds: float,
        while_waiting: Callable[[], None] = lambda: None,
    ) -> None:
        """Wait until the program is of use.

        Args:
            name: the program.
            is_ready: says whether it is.
            seconds: how long to wait; less if it dies at once again and again.

        Raises:
            SupervisorError: it is not ready in time; the message has the end of its log.
        """
        began = time.monotonic()
        failing_since = None
        while True:
            status = self.status(name)
            if status.state in ("RUNNING", "STARTING") and is_ready():
                return
            now = time.monotonic()
            if status.state == "BACKOFF":
                failing_since = failing_since or now
            elif status.state == "RUNNING":
                failing_since = None
            hopeless = failing_since is not None and now > failing_since + HOPELESS_SECONDS
            if hopeless or now > began + seconds or status.state in ("FATAL", "STOPPED", "ORPHANED"):
                tail = "\n".join("    " + line for line in self.tail(name, 8))
                raise SupervisorError(
                    f"{name} is not ready after {now - began:.0f} s ({status.state.lower()}: {status.detail})"
                    + (f". The end of its log:\n{tail}" if tail else ""),
                    self._look(name),
                )
            time.sleep(0.1)

    def tail(self, name: str, lines: int) -> list[str]:
        """The last `lines` lines that the process `name` printed (at most 64 KiB)."""
        try:
            with open(self.log_file(name), "rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 65536))
                return file.read().decode(errors="replace").splitlines()[-lines:] if lines else []
        except OSError:
            return []

    def shut_down(self, tell: Callable[[str], None] = lambda name: None) -> list[int]:
        """Stop all programs, the last started first, each waited for; then supervisord; then whatever was
        left behind.

        Args:
            tell: called with each program's name before it is stopped.

        Returns:
            The ids of processes that could not be ended; empty when all is well.
        """
        if self.is_up():
            with contextlib.suppress(SupervisorError):  # supervisord died meanwhile: the rest is found below
                for name in reversed(self.programs):
                    if self.status(name).pid:
                        tell(name)
                    self.stop_program(name)
            tag = self.tag(SUPERVISOR)
            supervisors = supervised.find(lambda other: other == tag)
            with contextlib.suppress(OSError, http.client.HTTPException, xmlrpc.client.Error):
                self._call("supervisor.shutdown")
                # A signal in its last moment would make it look killed to whoever watches it.
                psutil.wait_procs(supervisors, timeout=10)
        return self.sweep()

    def sweep(self) -> list[int]:
        """End all processes of this directory, whoever started them: supervisord, the services last to first.

        Returns:
            The ids of those that could not be ended.
        """
        left = []
        # supervisord first, or it would start again what is ended behind its back.
        for name in (SUPERVISOR, *reversed(self.programs)):
            tag = self.tag(name)
            program = self.programs.get(name)
            found = supervised.find(lambda other, tag=tag: other == tag)  # type: ignore[misc]
            seconds = (
                program.stop_seconds if program else 5 + sum(p.stop_seconds for p in self.programs.values())
            )
            left += [process.pid for process in supervised.end(found, seconds)]
        return left

    def _look(self, name: str) -> str:
        return f"Look at ./runserver.py logs {name}"

    def _gone(self, error: Exception) -> SupervisorError:
        return SupervisorError(f"The supervisor does not answer ({error})", "Start it again: ./runserver.py")
