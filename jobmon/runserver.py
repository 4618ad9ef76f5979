"""The command line of ./runserver.py, which runs this module in the project's environment."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from subprocess import Popen
from types import FrameType
from typing import Any, BinaryIO

import click

from jobmon.bootstrap import locked
from jobmon.cli.errors import HintedError, explained
from jobmon.config import KEYS, Config, load_config, write_private
from jobmon.containers.deployment import SERVICES as CONTAINER_NAMES
from jobmon.containers.deployment import Containers, docker_environ, find_engine
from jobmon.stack import SERVICES, Stack, StackError, release_directory
from jobmon.supervisor import SUPERVISOR, Status, SupervisorError

NAMES = ("db", *SERVICES)
STOPPING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def say(line: str) -> None:
    """A line for the person who waits; standard output is for what was asked for."""
    click.echo(line, err=True)


@contextlib.contextmanager
def clear_errors() -> Iterator[None]:
    """Turn the errors of Jobmon's parts into a message, a hint and exit code 1."""
    with explained():
        try:
            yield
        except (StackError, SupervisorError) as error:
            raise HintedError(error.message, error.hint) from error
        except PermissionError as error:
            raise HintedError(
                f"{error.filename}: {error.strerror}",
                "Does it belong to another user (root, by sudo)? Give it back, or use another --state-dir.",
            ) from error


def uptime(seconds: int) -> str:
    """A duration as `docker ps` says it, such as "3 minutes"."""
    for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
        if seconds >= 2 * length or (unit == "minute" and seconds >= length):
            count = seconds // length
            return f"{count} {unit}{'s' if count != 1 else ''}"
    return f"{seconds} second{'s' if seconds != 1 else ''}"


def state_text(status: Status, ready: bool) -> str:
    """The state of a process as `docker ps` says it."""
    if status.is_running:
        return f"Up {uptime(status.seconds)} ({'ready' if ready else 'not ready'})"
    words = {
        "STOPPED": "Stopped",
        "STARTING": "Starting",
        "BACKOFF": f"Restarting ({status.detail})",
        "STOPPING": "Stopping",
        "EXITED": f"Exited ({status.detail})",
        "FATAL": f"Failed ({status.detail})",
        "ORPHANED": f"Left behind ({status.detail})",
    }
    return words.get(status.state, status.state.capitalize())


def status_table(statuses: Sequence[tuple[Status, bool]]) -> str:
    """The processes as a table: name, state and uptime, ports, process id."""
    rows = [("NAME", "STATUS", "PORTS", "PID")]
    for status, ready in statuses:
        pid = str(status.pid) if status.pid else "-"
        rows.append((status.name, state_text(status, ready), ", ".join(status.ports), pid))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    return "\n".join(
        "   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


class Follower:
    """Prints what is added to log files, also when a file is rotated or appears later.

    Args:
        files: label -> file; labels are printed before the lines if there is more than one.
        tail: how many last lines to begin with.
    """

    def __init__(self, files: dict[str, Path], tail: int = 0) -> None:
        self.files = files
        self.open: dict[str, BinaryIO] = {}
        self.partial: dict[str, bytes] = {}
        self.width = max(map(len, files)) if len(files) > 1 else 0
        for label in files:
            if self._open(label):
                for line in deque(self.open[label], maxlen=tail):
                    self._print(label, line)

    def _open(self, label: str) -> bool:
        try:
            # It stays open until it is rotated: what was added just before is read from it.
            self.open[label] = open(self.files[label], "rb")  # noqa: SIM115
        except FileNotFoundError:
            return False
        self.partial[label] = b""
        return True

    def _print(self, label: str, line: bytes) -> None:
        text = line.decode(errors="replace").rstrip("\r\n")
        click.echo(f"{click.style(label.ljust(self.width), fg='cyan')} | {text}" if self.width else text)

    def _rest(self, label: str) -> None:
        file = self.open[label]
        if os.fstat(file.fileno()).st_size < file.tell():  # it was emptied
            file.seek(0)
        *lines, self.partial[label] = (self.partial[label] + file.read()).split(b"\n")
        for line in lines:
            self._print(label, line)

    def step(self) -> None:
        """Print what came since the last time."""
        for label, path in self.files.items():
            if label not in self.open and not self._open(label):
                continue
            self._rest(label)
            with contextlib.suppress(FileNotFoundError):
                if path.stat().st_ino != os.fstat(self.open[label].fileno()).st_ino:
                    self.open.pop(label).close()
                    if self._open(label):
                        self._rest(label)


class Stopped(Exception):  # noqa: N818
    """Somebody wants this process to end: Ctrl-C, SIGTERM, or the terminal was closed."""


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Inside, signals that mean an end raise Stopped (once: the work of stopping is not interrupted by a
    second).
    """

    def stop(number: int, frame: FrameType | None) -> None:
        for each in STOPPING_SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(signal.Signals(number).name)

    before = {number: signal.signal(number, stop) for number in STOPPING_SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def read_config(settings: dict[str, Any]) -> Config:
    """The user's configuration with the flags over it."""
    flags = {key: value for key, value in settings.items() if key in KEYS}
    return load_config(settings.get("config"), overrides=flags)


def rc_of(settings: dict[str, Any]) -> Path | None:
    """The rc file that was named by --config, if any."""
    return Path(settings["config"]) if settings.get("config") else None


def started_stack(settings: dict[str, Any]) -> Stack:
    """The stack as it was started.

    Raises:
        StackError: it never was.
    """
    config = read_config(settings)
    stack = kind_in_use(config).started(config, rc=rc_of(settings))
    if stack is None:
        raise StackError(f"Jobmon {config.release} has not been started here.", "Start it: ./runserver.py")
    return stack


def kind_file(config: Config) -> Path:
    """Says whether the release was last started in containers (docker) or without (embedded)."""
    return release_directory(config.state_dir, config.release) / "deployment"


def kind_in_use(config: Config) -> type[Stack]:
    """How the release was last started on this machine; without containers if it never was."""
    with contextlib.suppress(OSError):
        return Containers if kind_file(config).read_text(encoding="utf-8").strip() == "docker" else Stack
    # Started before there were two ways, or its files were copied.
    if Stack.started(config) is None and Containers.started(config) is not None:
        return Containers
    return Stack


def choose_kind(config: Config, settings: dict[str, Any]) -> type[Stack]:
    """Whether to start Jobmon in containers: as the flags say, else as before, else if an engine answers.

    Raises:
        StackError: it runs the other way.
    """
    before = kind_in_use(config)
    other = {Stack: Containers, Containers: Stack}
    if settings.get("docker"):
        kind: type[Stack] = Containers
    elif settings.get("embedded"):
        kind = Stack
    elif before.started(config) is not None:
        if before is Stack and not settings.get("demo"):
            say("Using the embedded deployment that is here (--docker: another one, with its own database).")
        return before
    elif settings.get("demo"):  # of use without an image from a registry
        return Stack
    else:
        try:
            engine = find_engine()
        except StackError as error:
            say(f"Without containers: {error.message}.")
            return Stack
        say(f"Docker {engine.version} answers: Jobmon will run in containers (--embedded: without).")
        return Containers
    rival = other[kind].started(config)
    if rival is not None:
        names = {Stack: "without containers", Containers: "in containers"}
        if rival.is_up():
            raise StackError(
                f"Jobmon {config.release} is running {names[other[kind]]}, with another database",
                "Stop it first: ./runserver.py stop",
            )
        say(f"Mind: what was stored {names[other[kind]]} is in another database, in {rival.directory}.")
    return kind


def exclusive(stack: Stack) -> contextlib.AbstractContextManager[None]:
    """Of several runserver.py for one release, one at a time starts or stops."""
    busy = "Another runserver.py is starting or stopping Jobmon: waiting ..."
    return locked(stack.directory / "runserver.lock", say, busy)


def endpoints(stack: Stack, rc: Path) -> str:
    """What people want to know once everything is up."""
    lines = [
        f"Jobmon {stack.config.release} is up.",
        f"  JobStateManager  {stack.url('jsm')}   (POST; documentation: {stack.url('jsm')}/openapi.json)",
        f"  JobQueryServer   {stack.url('jqs')}   (GET; documentation: {stack.url('jqs')}/openapi.json)",
        f"  management       {stack.url('jsm_management')}   (/healthz /readyz /metrics)",
        f"  database         127.0.0.1:{stack.ports['db_port']}   (accounts: {stack.accounts_file})",
        f"  clients find them in {rc}" + (", with the token" if stack.token else " (no token)"),
    ]
    return "\n".join(lines)


def bring_up(settings: dict[str, Any], *, die_with_parent: bool) -> tuple[Stack, Popen[bytes] | None]:
    """Start what is not running.

    Returns:
        The stack, and the supervisor's process if it was started now.
    """
    config = read_config(settings)
    rc = rc_of(settings)
    wanted = Stack(config, token=not settings["no_token"], rc=rc)
    with exclusive(wanted):
        began = time.monotonic()
        if wanted.is_up():
            differences = wanted.differences([key for key in settings if settings[key] is not None])
            if differences:
                raise StackError(
                    f"Jobmon is running with other settings: {'; '.join(differences)}",
                    "Stop it first (./runserver.py stop), then start it with the new ones.",
                )
            stack = Stack.started(config, rc=rc) or wanted
            say("Jobmon is already running.")
        else:
            stack = wanted
        launched = stack.start(say, die_with_parent=die_with_parent)
        path = stack.tell_clients()
        write_private(kind_file(config), "embedded\n")
    say(f"Ready after {time.monotonic() - began:.1f} s.")
    click.echo(endpoints(stack, path))
    return stack, launched


def bring_up_containers(config: Config, settings: dict[str, Any]) -> Containers:
    """Start Jobmon in containers, or bring what runs to this code's version and these settings."""
    find_engine()  # before anybody is asked for anything
    stack = Containers(
        config,
        token=not settings["no_token"],
        rc=rc_of(settings),
        project=settings.get("project"),
        db_image=settings.get("db_image"),
    )
    answers = settings.get("answers")
    stack.answer(
        ask=not settings.get("no_input") and sys.stdin.isatty(),
        again=bool(settings.get("ask")),
        answers=Path(answers) if answers else None,
        log=say,
    )
    with exclusive(stack):
        began = time.monotonic()
        stack.start(say)
        path = stack.tell_clients()
        write_private(kind_file(config), "docker\n")
    say(f"Ready after {time.monotonic() - began:.1f} s.")
    click.echo(endpoints(stack, path))
    return stack


def stay(settings: dict[str, Any], stack: Stack, supervisor: Popen[bytes]) -> None:
    """Show what the services say until somebody stops us; start the supervisor again if it is killed."""
    names = (*NAMES, SUPERVISOR)
    follower = Follower({name: stack.supervisor.log_file(name) for name in names})
    click.echo("Ctrl-C stops everything. What the services say:")
    while True:
        follower.step()
        code = supervisor.poll()
        if code is None:
            time.sleep(0.3)
        elif code >= 0:
            follower.step()
            say("Jobmon was stopped by another command.")
            return
        else:
            say(f"The supervisor was killed (signal {-code}): starting everything again ...")
            _, again = bring_up(settings, die_with_parent=True)
            if again is None:
                say("Another runserver.py has done it.")
                return
            supervisor = again


def common_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """--config and --state-dir, which all commands have."""
    for option in (
        click.option("--state-dir", type=click.Path(file_okay=False), metavar="DIR",
                     help="Directory of databases, accounts and logs; each release has its own in it."),
        click.option("--config", type=click.Path(dir_okay=False), metavar="FILE",
                     help="The rc file instead of ~/.jobmonrc."),
    ):  # fmt: skip
        command = option(command)
    return command


def settings_of(context: click.Context, **options: Any) -> dict[str, Any]:
    """The flags of a subcommand over those given before it."""
    before: dict[str, Any] = context.obj or {}
    return {
        "config": options.get("config") or before.get("config"),
        "state_dir": options.get("state_dir") or before.get("state_dir"),
    }


PORT = click.IntRange(1, 65535)


@click.group(invoke_without_command=True, context_settings={"help_option_names": ["-h", "--help"]})
@common_options
@click.option("--embedded", is_flag=True, help="Run a private database server and local processes.")
@click.option("--docker", is_flag=True, help="Run containers, by docker compose.")
@click.option("--no-input", is_flag=True, help="Ask nothing, also at a terminal.")
@click.option("--ask", is_flag=True, help="Ask again what was answered at an earlier start.")
@click.option(
    "--answers",
    type=click.Path(dir_okay=False),
    metavar="FILE",
    help="JSON file with slack_token and the channels, instead of questions.",
)
@click.option("--db-image", metavar="IMAGE", help="Image of the database for --docker; default mysql:8.4.")
@click.option(
    "--project",
    envvar="JOBMON_PROJECT",
    metavar="NAME",
    help="Compose project for --docker; default jobmon<release>.",
)
@click.option("--detach", "-d", is_flag=True, help="Return when everything is up, and leave it running.")
@click.option(
    "--demo", is_flag=True, help="Then run a small workload through the services (implies --detach)."
)
@click.option("--no-token", is_flag=True, help="Take calls without a token, on the loopback only.")
@click.option("--bind", metavar="ADDRESS", help="Address the services listen on; default 127.0.0.1.")
@click.option("--host", metavar="NAME", help="Name of this machine for clients, if it listens for others.")
@click.option("--jsm-port", type=PORT, metavar="N", help="Port of the JobStateManager.")
@click.option(
    "--jsm-management-port", type=PORT, metavar="N", help="Port of its /healthz, /readyz, /metrics."
)
@click.option("--jqs-port", type=PORT, metavar="N", help="Port of the JobQueryServer.")
@click.option("--db-port", type=PORT, metavar="N", help="Port of the database server (on the loopback).")
@click.pass_context
def main(context: click.Context, detach: bool, **settings: Any) -> None:
    """Set Jobmon up and start it: database, JobStateManager (JSM), JobQueryServer (JQS), health monitor.

    Without a command: start what is not running, show what the services say, and stop everything at Ctrl-C. A
    second start finds everything running and says so. What dies is restarted. Once up, ~/.jobmonrc names
    host, ports and token.

    With --docker they run in containers, which go on when this ends; the operator is asked for the Slack
    token and channels at the first start. Without --docker or --embedded it is done as at the last start; at
    the first one in containers if a Docker engine answers (with --demo: not).

    Ports come from jobmon/release.json, ~/.jobmonrc (jsm_port ...), JOBMON_JSM_PORT ... or the flags, the
    later the stronger.
    """
    context.obj = settings
    if context.invoked_subcommand:
        return
    if settings["docker"] and settings["embedded"]:
        raise click.UsageError("--docker and --embedded exclude each other.")
    demo = settings["demo"]
    with clear_errors():
        config = read_config(settings)
        kind = choose_kind(config, settings)
    if not (detach or demo or kind is Containers):
        run_in_foreground(settings)
        return
    with clear_errors():
        stack: Stack
        if kind is Containers:
            stack = bring_up_containers(config, settings)
        else:
            stack, _ = bring_up(settings, die_with_parent=False)
        code = 0
        if demo:
            from jobmon.demo import run_demo

            code = run_demo(stack.url("jsm"), stack.url("jqs"), stack.token)
        click.echo(
            "Stop it: ./runserver.py stop    See: ./runserver.py status, ./runserver.py logs jsm --tail 10"
        )
    context.exit(code)


def run_in_foreground(settings: dict[str, Any]) -> None:
    """Start, stay, and stop everything at the end, however it comes."""
    stack: Stack | None = None
    with clear_errors():
        try:
            with stoppable():
                stack, supervisor = bring_up(settings, die_with_parent=True)
                if supervisor is None:  # it was running: it belongs to whoever started it
                    return
                stay(settings, stack, supervisor)
        except Stopped as reason:
            say(f"Stopping ({reason}) ...")
            if stack is not None:
                with exclusive(stack):
                    stack.stop(say)
            say("Stopped.")


@main.command()
@common_options
@click.pass_context
def stop(context: click.Context, **options: Any) -> None:
    """Stop everything: the services first, then the database, cleanly. The data stay."""
    with clear_errors():
        config = read_config(settings_of(context, **options))
        stack = kind_in_use(config).started(config)
        if stack is None:
            say("Jobmon is not running.")
            return
        with exclusive(stack):
            say("Stopped." if stack.stop(say) else "Jobmon is not running.")


@main.command()
@common_options
@click.pass_context
def status(context: click.Context, **options: Any) -> None:
    """Show the processes: name, state and uptime, ports. Exit code 0 if all are ready, else 3."""
    with clear_errors():
        statuses = started_stack(settings_of(context, **options)).statuses()
        click.echo(status_table(statuses))
        context.exit(0 if all(ready for _, ready in statuses) else 3)


@main.command()
@click.argument(
    "names",
    nargs=-1,
    type=click.Choice(dict.fromkeys([*NAMES, SUPERVISOR, *CONTAINER_NAMES])),
    metavar="[NAME]...",
)
@click.option(
    "--tail", "-n", type=click.IntRange(0), default=100, show_default=True, help="How many last lines."
)
@click.option("--follow", "-f", is_flag=True, help="Go on showing what is added, until Ctrl-C.")
@common_options
@click.pass_context
def logs(context: click.Context, names: tuple[str, ...], tail: int, follow: bool, **options: Any) -> None:
    """Show what a process or container printed: db, jsm, jqs, monitor ...; without NAME all of them."""
    with clear_errors():
        stack = started_stack(settings_of(context, **options))
        require_known(stack, names)
        if isinstance(stack, Containers):
            context.exit(stack.show_logs(names, tail=tail, follow=follow))
        follower = Follower(
            {name: stack.supervisor.log_file(name) for name in names or (*NAMES, SUPERVISOR)}, tail=tail
        )
        with contextlib.suppress(KeyboardInterrupt):
            while follow:
                follower.step()
                time.sleep(0.3)


@main.command()
@click.argument(
    "names",
    nargs=-1,
    required=True,
    type=click.Choice(dict.fromkeys([*NAMES, *CONTAINER_NAMES])),
    metavar="NAME...",
)
@common_options
@click.pass_context
def restart(context: click.Context, names: tuple[str, ...], **options: Any) -> None:
    """Stop one process or container (db, jsm, jqs, monitor ...) and start it again."""
    with clear_errors():
        stack = started_stack(settings_of(context, **options))
        require_known(stack, names)
        with exclusive(stack):
            for name in names:
                stack.restart(name, say)
        click.echo(status_table(stack.statuses()))


@main.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@common_options
@click.pass_context
def compose(context: click.Context, arguments: tuple[str, ...], **options: Any) -> None:
    """Run docker compose with this deployment's files, such as: compose exec db bash."""
    with clear_errors():
        stack = started_stack(settings_of(context, **options))
        if not isinstance(stack, Containers):
            raise StackError(
                "Jobmon does not run in containers here.", "Start it so: ./runserver.py --docker"
            )
        command = stack.compose_command(*arguments)
        os.execvpe(command[0], command, docker_environ())


def require_known(stack: Stack, names: Sequence[str]) -> None:
    """See that each name is one of this deployment's parts.

    Raises:
        StackError: one is not.
    """
    known = CONTAINER_NAMES if isinstance(stack, Containers) else (*NAMES, SUPERVISOR)
    for name in names:
        if name not in known:
            raise StackError(f"there is no {name} here", f"There are {', '.join(known)}.")


if __name__ == "__main__":
    sys.exit(main(prog_name="./runserver.py"))
