"""``jobmon release``: the release's name and ports, what follows from them, and which releases are up."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobmon.cli.errors import Group, HintedError
from jobmon.cli.output import Column, Report, duration, line, make_table, output_option, print_report
from jobmon.config import ConfigError, load_config, state_dir
from jobmon.db.files import PACKAGE_DIR
from jobmon.release import PORT_KEYS, Release, ReleaseError, read_releases

if TYPE_CHECKING:
    from rich.console import RenderableType

    from jobmon.release_files import Checkout
    from jobmon.release_list import Service


@contextmanager
def _told() -> Iterator[None]:
    """Turn what is wrong with the release into a message and a hint."""
    try:
        yield
    except ReleaseError as error:
        raise HintedError(error.message, error.hint) from error


def _checkout(directory: Path | None) -> Checkout:
    from jobmon.release_files import Checkout

    return Checkout((directory or PACKAGE_DIR.parent).resolve())


def _directory_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--checkout",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        metavar="DIR",
        help="The clone of the source [default: the one this runs from].",
    )(command)


@click.group(cls=Group)
def release() -> None:
    """Show, make and check the release: its ports, and everything that follows from them."""


# ----------------------------------------------------------------------------------------------------------
# The release of this code

_RELEASES = (
    Column("release", "release"),
    Column("JQS", "jqs_port", right=True),
    Column("JSM", "jsm_port", right=True),
    Column("JSM's management", "jsm_management_port", right=True),
    Column("database", "db_port", right=True),
    Column("", "note"),
)


@release.command()
@output_option(quiet="the name only")
def show(output: str) -> None:
    """Show this code's release, those before it, and the next one."""
    with _told():
        releases = read_releases()
        following = releases.current.next()
    current = releases.current
    document = {
        **current.document(),
        "project": current.project,
        "image": current.image,
        "earlier": [each.document() for each in releases.earlier],
        "next": following.document(),
    }

    def noted(each: Release, note: str) -> dict[str, Any]:
        return {**each.document(), "note": note}

    def render() -> Iterator[RenderableType]:
        rows = [
            *(noted(each, "") for each in reversed(releases.earlier)),
            noted(current, "this code"),
            noted(following, "`jobmon release next`"),
        ]
        yield make_table(_RELEASES, rows, none="")
        yield line(f"Compose project and Kubernetes namespace: {current.project}")
        yield line(f"Image: {current.image}")

    print_report(Report(document, render, [current.name]), output)


# ----------------------------------------------------------------------------------------------------------
# A checkout


@release.command("next")
@_directory_option
def make_next(checkout: Path | None) -> None:
    """Make the next release: its name, its ports, and everything that names them.

    Changes files of a clean checkout, all or none; look at them with git diff, and commit them.
    """
    from jobmon import release_files

    with _told():
        made, files = release_files.make_next(_checkout(checkout))
    for name in sorted(files):
        click.echo(f"wrote {name}")
    ports = ", ".join(f"{key} {made.ports[key]}" for key in PORT_KEYS)
    click.echo(f"The release is now {made.name}: {ports}")
    click.echo("Look at it with `git diff`, then commit it.")


@release.command()
@_directory_option
def render(checkout: Path | None) -> None:
    """Write the files that are rendered from the release file and their templates."""
    from jobmon import release_files

    with _told():
        written = release_files.render(_checkout(checkout))
    for name in written:
        click.echo(f"wrote {name}")
    if not written:
        click.echo("all rendered files are current")


@release.command()
@_directory_option
def check(checkout: Path | None) -> None:
    """Find what names a port or the release and does not follow from the release file; exit code 1 then."""
    from jobmon import release_files

    with _told():
        clone = _checkout(checkout)
        findings = release_files.check(clone)
        name = clone.releases().current.name
    for finding in findings:
        click.echo(str(finding))
    if findings:
        click.echo(
            "Hint: rendered files: `jobmon release render`. Ports: take them from the configuration, or make"
            " the file a template; see docs/releases.md",
            err=True,
        )
        sys.exit(1)
    click.echo(f"everything follows from {release_files.RELEASE_FILE}: release {name}")


# ----------------------------------------------------------------------------------------------------------
# Kubernetes


@release.command()
@click.argument("directory", type=click.Path(file_okay=False, path_type=Path), metavar="DIRECTORY")
@click.option(
    "--external",
    is_flag=True,
    help="For a database elsewhere: reads its administrator's conn_str from standard input.",
)
def secrets(directory: Path, external: bool) -> None:
    """Generate passwords and a token for Kubernetes, and print the commands that make secrets of them.

    Writes files (mode 0600) into DIRECTORY, a directory for each secret. Files that are there stay.
    """
    from jobmon.release_secrets import SECRETS, make_secrets

    conn_str = None
    if external:
        conn_str = (
            click.prompt("admin_conn_str", hide_input=True, err=True)
            if sys.stdin.isatty()
            else sys.stdin.readline().strip()
        )
    with _told():
        current = read_releases().current
        written = make_secrets(directory, current, conn_str)
    for path in written:
        click.echo(f"wrote {path}", err=True)
    for name in SECRETS:
        place = shlex.quote(str(directory / name))
        click.echo(f"kubectl --namespace {current.project} create secret generic {name} --from-file={place}")


# ----------------------------------------------------------------------------------------------------------
# This host


def _status(service: Service) -> str:
    """What a service does, as `docker ps` says it."""
    if not service.up:
        return service.state.capitalize()
    how_long = f"Up {duration(service.seconds)}" if service.seconds is not None else "Up"
    return how_long + ("" if service.ready is None else " (ready)" if service.ready else " (not ready)")


_SERVICES = (
    Column("release", lambda row: row["release"]),
    Column("how", "how"),
    Column("service", "name"),
    Column("status", "status"),
    Column("ports", lambda row: ", ".join(row["ports"]), folds=True),
    Column("where", "where", spare=True),
)


@release.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that are stopped.")
@click.option("--state-dir", type=click.Path(file_okay=False), metavar="DIR", help="Look in this directory.")
@output_option(quiet="the names of the releases only")
@click.pass_obj
def list_releases(config_file: str | None, everything: bool, state_dir: str | None, output: str) -> None:
    """List the releases that are up on this host: embedded ones, and compose projects.

    Embedded ones are those in your state directory; compose projects are those of the container engine that
    `docker` reaches, if there is one.
    """
    from jobmon import release_list

    services = release_list.embedded_services(_state_directory(config_file, state_dir))
    try:
        services += release_list.compose_services()
    except release_list.EngineError as error:
        click.echo(f"Note: compose projects are not shown, Docker does not answer: {error}", err=True)
    shown = [service for service in services if everything or service.up]
    rows = [{**dataclasses.asdict(service), "status": _status(service)} for service in shown]
    none = "No release is known on this host." if everything else "No release is up on this host."

    def render() -> Iterator[RenderableType]:
        yield make_table(_SERVICES, rows, none=none)

    names = list(dict.fromkeys(service.release for service in shown))
    print_report(Report(rows, render, names), output)


def _state_directory(config_file: str | None, given: str | None) -> Path:
    if given is not None:
        return Path(given).absolute()
    if config_file is None:
        # A wrong ~/.jobmonrc of one release must not hide the others.
        try:
            return load_config().state_dir
        except ConfigError as error:
            click.echo(f"Note: {error}", err=True)
            return state_dir()
    return load_config(config_file).state_dir
