"""The secrets of a deployment on Kubernetes: files, from which `kubectl create secret` makes them.

One directory for each secret, one file for each key:

- `jobmon`: `token` (and `read_token`, `slack_token`, if somebody puts them there);
- `jobmon-accounts`: `accounts.json`, in the form that `jobmon db grants` writes, with all accounts;
  `jsm.json` and `jqs.json` with that account only, for the services;
- `jobmon-database`: `admin_conn_str`, and `root_password` of a server in the cluster or, for a database
  elsewhere, `jsm_conn_str` and `jqs_conn_str`, with the options (TLS) of the administrator's.
"""

from __future__ import annotations

import json
import secrets
from pathlib import Path

from jobmon.config import read_accounts, write_private
from jobmon.db.connect import ConnectionSpec
from jobmon.db.grants import LOGIN_ROLES, accounts_document, new_password
from jobmon.db.migrate import DEFAULT_DATABASE
from jobmon.release import Release, ReleaseError

SECRETS = ("jobmon", "jobmon-accounts", "jobmon-database")
DATABASE_HOST = "jobmon-db"  # the service in k8s/overlays/embedded-db
SERVICE_ROLES = ("jsm", "jqs")


def make_secrets(directory: Path, release: Release, admin_conn_str: str | None = None) -> list[Path]:
    """Write the files that are not there yet, each with mode 0600; those that are there stay as they are.

    Parameters:
        directory: where; made with mode 0700.
        release: whose database in the cluster is meant.
        admin_conn_str: of a database elsewhere, as one who may create databases and accounts there.

    Returns:
        The files that were written.

    Raises:
        jobmon.db.connect.ConnStrError: of the conn_str. ReleaseError: the database can't be reached from a
            cluster, or is another one than that of the files there. OSError: a file can't be written.
    """
    accounts_file = directory / "jobmon-accounts" / "accounts.json"
    root_file = directory / "jobmon-database" / "root_password"
    if admin_conn_str is None:
        root = root_file.read_text(encoding="utf-8") if root_file.exists() else new_password()
        admin = ConnectionSpec("root", root, DATABASE_HOST, release.db_port)
    else:
        admin = ConnectionSpec.parse(admin_conn_str.strip())
        if admin.unix_socket or admin.host in ("127.0.0.1", "localhost", "::1"):
            raise ReleaseError(
                f"{admin.server} is not reached from a cluster",
                "name the database's host as the pods know it",
            )
    if admin.database is None:
        admin = admin.with_database(DEFAULT_DATABASE)
    present = read_accounts(accounts_file)
    if present:
        there = (present.get("host"), present.get("port"), present.get("database"))
        if there != (admin.host, admin.port, admin.database):
            found = "{}:{}/{}".format(*there)
            raise ReleaseError(
                f"{accounts_file} is about {found}, not {admin.server}/{admin.database}",
                "choose another directory, or correct the file",
            )
    known = present.get("accounts", {})
    passwords = {role: known[role]["password"] if role in known else new_password() for role in LOGIN_ROLES}
    document = accounts_document(admin, passwords)
    accounts = document["accounts"]
    files = {
        "jobmon/token": secrets.token_urlsafe(32),
        "jobmon-accounts/accounts.json": _json(document),
        "jobmon-database/admin_conn_str": admin.conn_str(),
    }
    for role in SERVICE_ROLES:
        files[f"jobmon-accounts/{role}.json"] = _json({**document, "accounts": {role: accounts[role]}})
        if admin_conn_str is not None:
            own = admin.with_account(accounts[role]["user"], accounts[role]["password"])
            files[f"jobmon-database/{role}_conn_str"] = own.conn_str()
    if admin_conn_str is None:
        files["jobmon-database/root_password"] = admin.password
    written = []
    for name, text in files.items():
        path = directory / name
        if not path.exists():
            write_private(path, text)
            written.append(path)
    return written


def _json(document: object) -> str:
    return json.dumps(document, indent=2) + "\n"
