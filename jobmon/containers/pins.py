"""Pins what the image installs: ``python -m jobmon.containers.pins --write`` (in the virtual environment).

Writes ``constraints.txt``: each package that Jobmon needs at run time, directly or not, at the version that
is installed here, which is the one that the tests ran with.
"""

from __future__ import annotations

import re
from importlib import metadata
from pathlib import Path

import click
from packaging.requirements import Requirement

FILE = Path(__file__).resolve().parents[2] / "constraints.txt"
HEAD = "# What the image installs. Written by: python -m jobmon.containers.pins --write\n"


def canonical(name: str) -> str:
    """A package's name as PEP 503 normalises it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(package: str = "jobmon") -> dict[str, str]:
    """The packages that `package` needs, and their installed versions.

    Raises:
        importlib.metadata.PackageNotFoundError: one is not installed here.
    """
    found: dict[str, str] = {}
    waiting = [Requirement(package)]
    seen: set[tuple[str, frozenset[str]]] = set()
    while waiting:
        wanted = waiting.pop()
        key = (canonical(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        distribution = metadata.distribution(wanted.name)
        found[key[0]] = distribution.version
        for line in distribution.requires or []:
            requirement = Requirement(line)
            if requirement.marker is None or any(
                requirement.marker.evaluate({"extra": extra}) for extra in (wanted.extras or {""})
            ):
                waiting.append(requirement)
    del found[canonical(package)]
    return dict(sorted(found.items()))


def text() -> str:
    """What the file should hold."""
    return HEAD + "".join(f"{name}=={version}\n" for name, version in pins().items())


@click.command()
@click.option("--write", is_flag=True, help="Write the file; else it is shown.")
def main(write: bool) -> None:
    """What the image installs: the versions that are installed here."""
    if write:
        FILE.write_text(text(), encoding="utf-8")
    else:
        click.echo(text(), nl=False)


if __name__ == "__main__":
    main()
