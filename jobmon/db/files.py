"""Where the SQL files are: inside the package when installed, at the repository's top in a checkout."""

from __future__ import annotations

from pathlib import Path

PACKAGE_DIR = Path(__file__).resolve().parent.parent


class FilesError(Exception):
    """The SQL files that belong to this code were not found; the message says where they were looked for."""


def _find(name: str) -> Path:
    candidates = [PACKAGE_DIR / name, PACKAGE_DIR.parent / name]
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    raise FilesError(
        f"the directory {name!r} of Jobmon's SQL files was not found (looked at "
        f"{' and '.join(str(c) for c in candidates)}); reinstall jobmon, or run from a complete checkout"
    )


def sql_dir() -> Path:
    """The directory with ``procedures/``, ``triggers/``, ``views/`` and ``functions/``.

    Raises FilesError when it is missing.
    """
    return _find("sql")


def migrations_dir() -> Path:
    """The directory with the yoyo migrations. Raises FilesError when it is missing."""
    return _find("migrations")
