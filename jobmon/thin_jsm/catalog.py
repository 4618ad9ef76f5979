"""The procedures that the JSM account may execute, read from information_schema."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import Any

from pymysql.connections import Connection

from jobmon.thin_common.errormap import ErrorMap
from jobmon.thin_common.errors import RelayError
from jobmon.thin_jsm.coerce import Coerce, UnfitError, coercion

# information_schema shows an account only the routines on which it holds a privilege: for the JSM account
# that is what it may execute.
_ROUTINES = """
SELECT ROUTINE_NAME, ROUTINE_COMMENT FROM information_schema.ROUTINES
WHERE ROUTINE_SCHEMA = DATABASE() AND ROUTINE_TYPE = 'PROCEDURE'
"""
_PARAMETERS = """
SELECT SPECIFIC_NAME, PARAMETER_NAME, PARAMETER_MODE, DATA_TYPE, DTD_IDENTIFIER FROM
information_schema.PARAMETERS WHERE SPECIFIC_SCHEMA = DATABASE() AND ROUTINE_TYPE = 'PROCEDURE' AND
ORDINAL_POSITION > 0 ORDER BY SPECIFIC_NAME, ORDINAL_POSITION
"""
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_]+")
# An administrator's account sees the helpers as well. They are no calls: some leave transactions open.
_INTERNAL = re.compile(r"^[ \t]*Access:[ \t]*internal\b", re.MULTILINE | re.IGNORECASE)
_SECTION = re.compile(r"^[ \t]*(Description|Access|Parameters|Returns|Errors|Example)s?:[ \t]*", re.MULTILINE)


@dataclass(frozen=True)
class Parameter:
    """One parameter: its name in the database and on the wire, and how its values are made."""

    name: str
    key: str
    data_type: str
    full_type: str
    coerce: Coerce


@dataclass(frozen=True)
class Procedure:
    """One public procedure."""

    name: str
    parameters: tuple[Parameter, ...]
    comment: str
    sql: str = field(init=False)
    places: dict[str, tuple[int, Coerce]] = field(init=False)

    def __post_init__(self) -> None:
        marks = ", ".join(["%s"] * len(self.parameters))
        object.__setattr__(self, "sql", f"CALL `{self.name}`({marks})")
        object.__setattr__(self, "places", {p.key: (i, p.coerce) for i, p in enumerate(self.parameters)})

    def arguments(self, body: dict[str, Any]) -> list[Any]:
        """The CALL's arguments: body key ``x`` is parameter ``in_x``, a missing one is NULL.

        Raises:
            RelayError: UNKNOWN_PARAMETER or INVALID_PARAMETER, naming the key.
        """
        values: list[Any] = [None] * len(self.parameters)
        for key, value in body.items():
            place = self.places.get(key)
            if place is None:
                known = ", ".join(self.places) or "none"
                raise RelayError(
                    "UNKNOWN_PARAMETER", f"{self.name} knows no key {_shown(key)}.", f"Known keys: {known}."
                )
            try:
                values[place[0]] = place[1](value)
            except UnfitError as error:
                raise RelayError("INVALID_PARAMETER", f"{key} must be {error}.") from None
        return values

    @property
    def sections(self) -> dict[str, str]:
        """The parts of the COMMENT by their title: Description, Parameters, Returns, Errors, Example."""
        pieces = _SECTION.split(self.comment)
        return {title: _dedent(text) for title, text in zip(pieces[1::2], pieces[2::2], strict=True)}


@dataclass(frozen=True)
class Catalog:
    """All public procedures, and the errors they may raise."""

    procedures: dict[str, Procedure]
    errors: ErrorMap


def _shown(key: str) -> str:
    return ascii(key if len(key) <= 60 else key[:60] + "...")


def _dedent(text: str) -> str:
    return "\n".join(line.strip() for line in text.strip().splitlines())


def load_catalog(connection: Connection) -> Catalog:
    """Read the catalog as the account of ``connection``.

    Raises:
        pymysql.err.Error: the database could not be asked.
    """
    with connection.cursor() as cursor:
        cursor.execute(_ROUTINES)
        comments = {
            name: text
            for name, text in ((name, _text(comment)) for name, comment in cursor.fetchall())
            if _PLAIN_NAME.fullmatch(name) and not _INTERNAL.search(text)
        }
        parameters: dict[str, list[Parameter]] = {name: [] for name in comments}
        cursor.execute(_PARAMETERS)
        for routine, name, mode, data_type, full_type in cursor.fetchall():
            if routine not in parameters:
                continue
            full_type = _text(full_type)
            if mode != "IN":
                # An OUT parameter has no place in an answer of one document.
                del parameters[routine]
                continue
            key = name.removeprefix("in_")
            parameters[routine].append(
                Parameter(name, key, data_type, full_type, coercion(data_type, full_type))
            )
    procedures = {name: Procedure(name, tuple(found), comments[name]) for name, found in parameters.items()}
    rows = []
    if "get_api_errors" in procedures:
        rows = json.loads(call(connection, procedures["get_api_errors"].sql, []) or "[]")
    return Catalog(procedures, ErrorMap(rows))


def _text(value: Any) -> str:
    # MySQL gives some columns of information_schema as bytes.
    return value.decode() if isinstance(value, bytes) else str(value or "")


def call(connection: Connection, sql: str, arguments: list[Any]) -> str | None:
    """Execute a CALL and return its document: the one column of the one row of its one result set; None
    without one.

    Everything the server sends is read before anything is believed: an error that comes after a result set
    shows only there.

    Raises:
        pymysql.err.Error: whatever the procedure raised.
        RuntimeError: the procedure returned something else than one document.
    """
    document: str | None = None
    found = 0
    with connection.cursor() as cursor:
        cursor.execute(sql, arguments)
        while True:
            if cursor.description is not None:
                rows = cursor.fetchall()
                found += 1
                if found > 1 or len(rows) != 1 or len(rows[0]) != 1:
                    _drain(cursor)
                    raise RuntimeError(f"{sql.split('(')[0]} did not return one document")
                document = rows[0][0]
            if not cursor.nextset():
                return document


def _drain(cursor: Any) -> None:
    while cursor.nextset():
        pass
