"""From an error of the database to an answer, by the rows of ``api_error``."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import pymysql

from jobmon.db.connect import errno_of
from jobmon.thin_common.errors import ErrorKind, RelayError

# From here up the numbers are Jobmon's own; below they are the server's.
FIRST_OWN_ERRNO = 32001

# The servers write 'in_name', 'name' or `schema`.`table`.`name`; only the name means something to a caller.
_NAMED = re.compile(r"\bcolumn (?:`[^`]*`\.)*['`](?:in_)?([A-Za-z0-9_]{1,64})['`]", re.IGNORECASE)


class ErrorMap:
    """The rows of ``api_error`` by number.

    Parameters:
        rows: mappings with errno, name, http_status, message and hint.
    """

    def __init__(self, rows: Iterable[Mapping[str, Any]]) -> None:
        self.kinds = {
            int(row["errno"]): ErrorKind(
                str(row["name"]), int(row["http_status"]), str(row["message"] or ""), str(row["hint"] or "")
            )
            for row in rows
        }

    def translate(self, error: pymysql.err.Error) -> RelayError | None:
        """The answer for ``error``, or None when the table does not know it.

        A text that a procedure wrote is shown. The server's own texts tell of tables, constraints and values:
        the row's words stand in for them, with the name of the parameter or key that does not fit.
        """
        errno = errno_of(error)
        kind = self.kinds.get(errno) if errno is not None else None
        if errno is None or kind is None:
            return None
        text = str(error.args[1]) if len(error.args) > 1 else ""
        if errno < FIRST_OWN_ERRNO:
            named = _NAMED.search(text)
            text = f"{named[1]}: {kind.message}" if named else ""
        return RelayError(kind, text or None)
