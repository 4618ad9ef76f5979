"""Waits for the database: ``wait-for-db.sh`` and ``wait-for-tables.sh`` call this in a container.

``python -m jobmon.containers.wait server`` ends when the server takes connections, ``... schema`` when the
database's schema fits this code, by the rules of ``/readyz``. The configuration is read again at each try, as
the accounts file may appear only now.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import pymysql

from jobmon.config import ROLES, Config, ConfigError, load_config
from jobmon.db.connect import connect, errno_of
from jobmon.thin_common.database import Database
from jobmon.thin_common.errors import RelayError
from jobmon.thin_jqs import app as jqs
from jobmon.thin_jsm import app as jsm

PAUSE_SECONDS = 1.0
WAIT_SECONDS = 300.0
TOLD_SECONDS = 15.0  # between two lines that say the same
# Access denied, to the account or to the database: the server is there, and does its work.
ANSWERS = frozenset({1044, 1045, 1049, 1698})


class NotYet(Exception):  # noqa: N818
    """What is waited for is not there; the message says what is missing."""


def server(config: Config, role: str) -> str:
    """See whether the database server takes connections.

    Parameters:
        config: where it is.
        role: whose account is meant; the server may refuse it.

    Returns:
        What was found, for people.

    Raises:
        NotYet: it does not.
    """
    spec = config.conn_spec(role).with_database(None)
    try:
        connect(spec, connect_timeout=config.db_connect_timeout).close()
    except pymysql.err.Error as error:
        if errno_of(error) not in ANSWERS:
            raise NotYet(str(error.args[-1])) from error
    return f"the database server at {spec.server} takes connections"


def schema(config: Config, role: str) -> str:
    """See whether the schema fits this code, as an account sees it.

    Parameters:
        config: where the database is.
        role: JSM asks its procedure, the others look into the table.

    Returns:
        What was found, for people.

    Raises:
        NotYet: it does not fit, or the account may not know.
    """
    database = Database(config, role, size=1)
    try:
        found = (jsm if role == "jsm" else jqs).readiness(database)
    except RelayError as error:
        raise NotYet(error.message) from error
    except pymysql.err.Error as error:
        raise NotYet(str(error.args[-1])) from error
    finally:
        with contextlib.suppress(Exception):
            database.close()
    return f"schema version {found['schema_version']} fits this code ({found['code_version']})"


WAYS: dict[str, Callable[[Config, str], str]] = {"server": server, "schema": schema}


def wait(way: str, role: str, seconds: float, say: Callable[[str], Any]) -> bool:
    """Wait for the server or the schema.

    Parameters:
        way: of :data:`WAYS`.
        role: whose account.
        seconds: how long.
        say: takes a line for the log.

    Returns:
        Whether it came in time.
    """
    deadline = time.monotonic() + seconds
    told, told_at = "", 0.0
    while True:
        try:
            say(WAYS[way](load_config(), role))
            return True
        except (NotYet, ConfigError) as error:
            reason = error.message if isinstance(error, ConfigError) else str(error)
        if time.monotonic() >= deadline:
            say(f"gave up after {seconds:g} s: {reason}")
            return False
        if reason != told or time.monotonic() >= told_at + TOLD_SECONDS:
            say(f"waiting for the {way}: {reason}")
            told, told_at = reason, time.monotonic()
        time.sleep(PAUSE_SECONDS)


def main() -> int:
    """What the scripts call; see the module's text."""
    role = os.environ.get("JOBMON_ROLE") or "jsm"
    seconds = os.environ.get("JOBMON_WAIT_SECONDS") or str(WAIT_SECONDS)
    try:
        if sys.argv[1:2] == [] or sys.argv[1] not in WAYS:
            raise ValueError(f"say what to wait for: {' or '.join(WAYS)}")
        if role not in ROLES:
            raise ValueError(f"JOBMON_ROLE is {role!r}, not one of {', '.join(ROLES)}")
        patience = float(seconds)
    except ValueError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 2
    name = f"wait-for-{'db' if sys.argv[1] == 'server' else 'tables'}"
    ok = wait(sys.argv[1], role, patience, lambda line: print(f"{name}: {line}", file=sys.stderr, flush=True))
    return 0 if ok else 1


if __name__ == "__main__":
    sys.exit(main())
