"""``jobmon configure``, ``initdb`` and ``test``."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import click

from jobmon import config as configuration
from jobmon.cli.db import Session, echo_grants, echo_migration, given_option, with_session
from jobmon.cli.errors import HintedError
from jobmon.config import KEYS, load_config, rc_path, write_rc
from jobmon.db import files, grants, migrate

# What is asked for at a terminal when `jobmon configure` is given nothing.
_ASKED = ("host", "jsm_port", "jqs_port", "conn_str")


def _one_option_per_key(command: Callable[..., None]) -> Callable[..., None]:
    for key, spec in reversed(list(KEYS.items())):
        flag = "--" + key.replace("_", "-")
        command = click.option(flag, key, metavar="VALUE", help=f"{spec.metadata['doc'].capitalize()}.")(
            command
        )
    return command


@click.command()
@click.option(
    "--show", is_flag=True, help="Show the settings in force and where each comes from; change nothing."
)
@click.option("--unset", metavar="KEY", multiple=True, help="Remove a key from the file.")
@_one_option_per_key
@click.pass_obj
def configure(config_file: str | None, show: bool, unset: tuple[str, ...], **values: str | None) -> None:
    """Write settings to the configuration file (mode 0600), keeping its other keys.

    Without options it asks for the most important ones, at a terminal. An option whose value is "-" is
    asked for as well, unseen if it is a secret, so that it does not show in the process list.
    """
    if show:
        _show(config_file)
        return
    path = rc_path(config_file)
    given: dict[str, Any] = {key: value for key, value in values.items() if value is not None}
    if not given and not unset:
        if not _is_terminal():
            raise HintedError("nothing to configure", "give options, such as --host HOST --jsm-port PORT")
        given = _ask(path)
    for key, value in given.items():
        if value == "-":
            given[key] = click.prompt(key, hide_input=KEYS[key].metadata["secret"])
    changes: dict[str, Any] = {key: None for key in unset}
    for key, value in given.items():
        parsed = KEYS[key].metadata["parse"]
        # Numbers shall be numbers in the file; what is wrong with a value write_rc says, naming the file
        # and key.
        try:
            changes[key] = parsed(value)
        except ValueError:
            changes[key] = value
    write_rc(changes, config_file)
    click.echo(f"wrote {', '.join(sorted(changes))} to {path}")


def _is_terminal() -> bool:
    return sys.stdin.isatty()


def _ask(path: Any) -> dict[str, Any]:
    known: dict[str, Any] = {}
    if path.exists():
        known = load_config(path, env={}).as_dict(redact=False)
    defaults = {**configuration.release_info(), "host": "127.0.0.1", **{k: v for k, v in known.items() if v}}
    click.echo(f"Settings for {path} (Enter keeps what stands in brackets)")
    answers: dict[str, Any] = {}
    for key in _ASKED:
        secret = KEYS[key].metadata["secret"]
        shown = False if secret else defaults.get(key)
        hint = " (empty: as it is)" if secret else ""
        answer = click.prompt(
            f"{KEYS[key].metadata['doc']}{hint}", default="" if secret else shown, show_default=not secret
        )
        if answer != "":
            answers[key] = answer
    return answers


def _show(config_file: str | None) -> None:
    config = load_config(config_file)
    rows = [
        (key, json.dumps(value, ensure_ascii=False), config.source(key))
        for key, value in config.as_dict().items()
        if value is not None
    ]
    width = max(len(key) for key, _, _ in rows)
    for key, value, source in rows:
        click.echo(f"{key:<{width}}  {value}  ({source})")


@click.command()
@given_option
@with_session
def initdb(session: Session, given: bool) -> None:
    """Create the database, its tables and routines, and the five accounts; may be repeated at any time."""
    spec = session.spec("admin")
    echo_migration(migrate.migrate(spec, owner=session.owner, say=click.echo))
    result = grants.apply_grants(
        spec, prefix=session.prefix, accounts_file=session.accounts_file, given=given
    )
    echo_grants(result)


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("pytest_args", nargs=-1, type=click.UNPROCESSED)
def test(pytest_args: tuple[str, ...]) -> None:
    """Run Jobmon's tests (of a checkout); arguments go to pytest."""
    root = files.PACKAGE_DIR.parent
    if not (root / "tests" / "conftest.py").is_file():
        raise HintedError(
            "the tests are not part of an installed jobmon", "run this from a checkout of its source"
        )
    if importlib.util.find_spec("pytest") is None:
        raise HintedError("pytest is not installed", "run ./runtests.py, or `pip install 'jobmon[test]'`")
    sys.exit(subprocess.call([sys.executable, "-m", "pytest", *pytest_args], cwd=root))
