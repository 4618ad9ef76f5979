"""The release: its name, its ports, and what is called after it, all of it from ``jobmon/release.json``.

Nothing else names a port: what needs one asks here (or `jobmon.config.release_info`), is rendered from here,
or is a page of the documentation that `jobmon release next` rewrites (`jobmon.release_files`).

Standard library only: this may be needed before the virtual environment exists.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

RELEASE_FILE = Path(__file__).with_name("release.json")

PORT_KEYS = ("jqs_port", "jsm_port", "jsm_management_port", "db_port")
# From one release to the next, so that two of them run beside each other on one host.
PORT_STEPS = {"jqs_port": 100, "jsm_port": 100, "jsm_management_port": 100, "db_port": 1}

_NAME = re.compile(r"(?P<line>[a-z][a-z0-9]*\.)(?P<number>0|[1-9][0-9]*)")


def project_name(release: str) -> str:
    """A release's name where no dot may be: compose project, the first part of its containers' names, and
    Kubernetes namespace.
    """
    return "jobmon" + re.sub(r"[^a-z0-9_-]", "", release.lower())


class ReleaseError(Exception):
    """The release file is wrong, or the next release can't be made.

    Parameters:
        message: what is wrong.
        hint: what to do about it.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True)
class Release:
    """A release and its ports on a host.

    name: such as emu.1. jqs_port, jsm_port: of the services. jsm_management_port: of JSM's health and
    metrics. db_port: of the database server, as the host sees it.

    Raises:
        ReleaseError: the name has no number to count on, or a port can't be one, or is there twice.
    """

    name: str
    jqs_port: int
    jsm_port: int
    jsm_management_port: int
    db_port: int

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise ReleaseError(
                f"release: {self.name!r} is no name of a release",
                "it is a word, a dot and a number, such as emu.1",
            )
        for key, port in self.ports.items():
            if isinstance(port, bool) or not isinstance(port, int) or not 1024 <= port <= 65535:
                raise ReleaseError(f"release {self.name}: {key}: {port!r} is no port from 1024 to 65535")
        for (a, port), (b, other) in combinations(self.ports.items(), 2):
            if port == other:
                raise ReleaseError(f"release {self.name}: {a} and {b} are both {port}")

    @property
    def ports(self) -> dict[str, int]:
        """The ports by key."""
        return {key: getattr(self, key) for key in PORT_KEYS}

    @property
    def project(self) -> str:
        """See `project_name`."""
        return project_name(self.name)

    @property
    def image(self) -> str:
        """The container image."""
        return f"jobmon:{self.name}"

    def next(self) -> Release:
        """The release after this one.

        Raises:
            ReleaseError: it would need a port above 65535.
        """
        found = _NAME.fullmatch(self.name)
        assert found is not None
        name = f"{found['line']}{int(found['number']) + 1}"
        return Release(name, **{key: port + PORT_STEPS[key] for key, port in self.ports.items()})

    def document(self) -> dict[str, Any]:
        """As it stands in the release file."""
        values = asdict(self)
        return {"release": values.pop("name"), **values}


@dataclass(frozen=True)
class Releases:
    """The release of this code, and the earlier ones, the newest first.

    Raises:
        ReleaseError: two of them have a name or a port in common.
    """

    current: Release
    earlier: tuple[Release, ...] = ()

    def __post_init__(self) -> None:
        for a, b in combinations((self.current, *self.earlier), 2):
            both = set(a.ports.values()) & set(b.ports.values())
            if a.name == b.name or both:
                what = f"port {min(both)}" if both else "the name"
                raise ReleaseError(f"releases {a.name} and {b.name} have {what} in common")

    def advance(self) -> Releases:
        """The next release as the current one.

        Raises:
            ReleaseError: a port of it is taken by an earlier one, or above 65535.
        """
        return Releases(self.current.next(), (self.current, *self.earlier))

    def text(self) -> str:
        """The contents of the release file; one earlier release a line."""
        head = json.dumps(self.current.document(), indent=2).removesuffix("\n}")
        lines = ",\n    ".join(json.dumps(release.document()) for release in self.earlier)
        earlier = f"[\n    {lines}\n  ]" if lines else "[]"
        return f'{head},\n  "earlier": {earlier}\n}}\n'


def _release(document: Any, where: str) -> Release:
    if not isinstance(document, Mapping):
        raise ReleaseError(f"{where}: a release is one JSON object")
    known = {"release", *PORT_KEYS}
    wrong = sorted(map(str, known ^ set(document)))
    if wrong:
        what = "unknown" if wrong[0] in document else "missing"
        raise ReleaseError(f"{where}: {what} key {wrong[0]!r}", f"keys are {', '.join(sorted(known))}")
    try:
        return Release(document["release"], **{key: document[key] for key in PORT_KEYS})
    except ReleaseError as error:
        raise ReleaseError(f"{where}: {error.message}", error.hint) from None


def parse_releases(text: str, where: str = "release.json") -> Releases:
    """Read the contents of a release file.

    Parameters:
        text: the contents.
        where: the file's name, for errors.

    Raises:
        ReleaseError: what is wrong with it, and where.
    """
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ReleaseError(f"{where}: is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise ReleaseError(f"{where}: must hold one JSON object")
    earlier = document.pop("earlier", [])
    if not isinstance(earlier, list):
        raise ReleaseError(f"{where}: earlier: expected a list of releases, the newest first")
    try:
        return Releases(
            _release(document, where), tuple(_release(each, f"{where}: earlier") for each in earlier)
        )
    except ReleaseError as error:
        message = error.message if error.message.startswith(where) else f"{where}: {error.message}"
        raise ReleaseError(message, error.hint) from None


def read_releases(path: Path = RELEASE_FILE) -> Releases:
    """The release of this code, and the earlier ones.

    Parameters:
        path: another release file.

    Raises:
        ReleaseError: the file can't be read, or is wrong.
    """
    try:
        return parse_releases(path.read_text(encoding="utf-8"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "is not UTF-8 text"
        raise ReleaseError(f"{path}: {reason}") from None
