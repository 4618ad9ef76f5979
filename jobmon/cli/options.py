"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Iterable

import click

from jobmon.executors import executor_names


def key_values(options: Iterable[str]) -> dict[str, str]:
    """What ``--option KEY=VALUE`` says; a dash in a key is an underscore.

    Raises:
        click.UsageError: one is not of that form.
    """
    found = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not key or not equals:
            raise click.UsageError(f"--option {option}: expected KEY=VALUE")
        found[key.strip().replace("-", "_")] = value
    return found


def check_executor(ctx: click.Context, param: click.Parameter, value: str | None) -> str | None:
    """The value of ``--executor``, if there is such an executor.

    Raises:
        click.BadParameter: there is none.
    """
    if value is not None and value not in (names := executor_names()):
        raise click.BadParameter(f"there is no executor {value!r}; there is {', '.join(names)}.")
    return value
