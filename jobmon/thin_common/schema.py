"""Does the database's schema fit this code?"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from jobmon.db.files import migrations_dir
from jobmon.thin_common.errors import RelayError


@lru_cache(maxsize=1)
def code_version() -> int:
    """The schema version this code was written for: the number of its last migration."""
    return max(int(file.name.split(".", 1)[0]) for file in migrations_dir().glob("[0-9]*.*"))


def check_schema(schema_version: int, compatible_since: int) -> dict[str, Any]:
    """What ``/readyz`` says about a schema that fits.

    Parameters:
        schema_version: number of the last migration that the database has seen.
        compatible_since: oldest code (by its version) that still works on that schema.

    Raises:
        RelayError: NOT_READY, saying which of the two is behind.
    """
    code = code_version()
    if schema_version < code:
        raise RelayError(
            "NOT_READY", f"The database's schema is at version {schema_version}, this code needs {code}."
        )
    if code < compatible_since:
        raise RelayError(
            "NOT_READY",
            f"The database's schema is at version {schema_version} and needs code of version "
            f"{compatible_since} or later; this code is of version {code}.",
            "Install a newer Jobmon.",
        )
    return {"status": "ready", "schema_version": schema_version, "code_version": code}
