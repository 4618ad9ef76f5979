"""The set-up of the database, run once in a container at each start: ``python -m jobmon.containers.setup``.

Brings tables, routines, accounts and grants to this code's version, as `jobmon initdb` does, and writes for
each service an accounts file with just its own account. May be repeated at any time, and while clients work.

The database's image is given root's first password in a file, and leaves it in the server's environment. So
it is replaced here by the one that only the set-up knows.
"""

from __future__ import annotations

import json
import os
import secrets
from contextlib import closing
from pathlib import Path
from typing import Any

import click
import pymysql

from jobmon.cli.db import echo_grants, echo_migration
from jobmon.cli.errors import explained
from jobmon.config import Config, load_config, read_accounts, write_private
from jobmon.db.catalog import execute, query
from jobmon.db.connect import ConnectionSpec, connect, errno_of
from jobmon.db.grants import apply_grants
from jobmon.db.migrate import migrate

# Which roles' accounts a service gets, in a directory of its own beside the accounts file.
SERVICES = {"jsm": "jsm", "jqs": "jqs"}
FIRST_PASSWORD_FILE = "/run/secrets/db_first_password"


def take_over(spec: ConnectionSpec, first_password: str) -> bool:
    """Give root its password, if it still has the first one.

    Parameters:
        spec: root, with the password it shall have.
        first_password: the one that the image was given.

    Returns:
        Whether it was changed.

    Raises:
        pymysql.err.Error: the server refuses both, or is not there.
    """
    try:
        connect(spec.with_database(None)).close()
        return False
    except pymysql.err.OperationalError as error:
        if errno_of(error) not in (1045, 1698):
            raise
    conn = connect(spec.with_database(None).with_account(spec.user, first_password))
    with closing(conn):
        hosts = [host for (host,) in query(conn, "SELECT Host FROM mysql.user WHERE User=%s", (spec.user,))]
        # The account by which we are connected comes last: until then this may be done again.
        for host in sorted(hosts, key=lambda host: host == "%"):
            execute(conn, "ALTER USER %s@%s IDENTIFIED BY %s", (spec.user, host, spec.password))
    return True


def share_out(accounts_file: Path) -> None:
    """Write each service's accounts file.

    Parameters:
        accounts_file: the one with all accounts.
    """
    document: dict[str, Any] = read_accounts(accounts_file)
    for service, role in SERVICES.items():
        own = {**document, "accounts": {role: document["accounts"][role]}}
        write_private(accounts_file.parent / service / accounts_file.name, json.dumps(own, indent=2) + "\n")


def set_up(config: Config, *, first_password: str, rotate: bool = False) -> None:
    """Do all of it.

    Parameters:
        config: the admin's account, and the accounts file.
        first_password: of root, as the image was given it.
        rotate: give all accounts new passwords.
    """
    spec = config.conn_spec("admin")
    if take_over(spec, first_password):
        click.echo("root has its own password now")
    echo_migration(migrate(spec, say=click.echo))
    result = apply_grants(spec, accounts_file=config.accounts_file, rotate=rotate)
    share_out(config.accounts_file)
    echo_grants(result)


@click.command()
@click.option("--rotate", is_flag=True, help="Give all accounts new passwords.")
def main(rotate: bool) -> None:
    """Bring the database to this image's version."""
    with explained():
        path = Path(os.environ.get("JOBMON_FIRST_PASSWORD_FILE") or FIRST_PASSWORD_FILE)
        # Without the file nothing but the real password is tried.
        first = path.read_text(encoding="utf-8").strip() if path.exists() else secrets.token_hex()
        set_up(load_config(), first_password=first, rotate=rotate)


if __name__ == "__main__":
    main(prog_name="python -m jobmon.containers.setup")
