"""``jobmon db``: migrations, routines, accounts and grants."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click

from jobmon.cli.errors import Group, HintedError
from jobmon.config import Config, ConfigError, load_config, read_accounts
from jobmon.db import grants as db_grants
from jobmon.db import migrate as db_migrate
from jobmon.db import validate as db_validate
from jobmon.db.catalog import is_mariadb
from jobmon.db.connect import ConnectionSpec, connect

_ROLES = ("admin", *db_grants.LOGIN_ROLES)


@dataclass
class Session:
    """What the commands share: the configuration, and the options about which database and which accounts."""

    config: Config
    conn_str: str | None
    prefix_option: str | None

    @property
    def accounts_file(self) -> Path:
        return self.config.accounts_file

    @property
    def _known(self) -> dict[str, Any]:
        return read_accounts(self.accounts_file)

    @property
    def prefix(self) -> str:
        """The prefix of the accounts' names: of the option, the accounts file, or the default."""
        prefix = self.prefix_option or self._known.get("prefix") or db_migrate.DEFAULT_PREFIX
        return str(prefix)

    @property
    def owner(self) -> str:
        return f"{self.prefix}owner"

    def spec(self, role: str | None = None) -> ConnectionSpec:
        """How to connect in a role; None: as admin if one is configured, else as the migrator."""
        if self.conn_str is not None:
            spec = ConnectionSpec.parse(self.conn_str)
        elif role is not None:
            spec = self.config.conn_spec(role)
        else:
            try:
                spec = self.config.conn_spec("admin")
            except ConfigError:
                if "migrator" not in self._known.get("accounts", {}) and not self.config.migrator_conn_str:
                    raise
                spec = self.config.conn_spec("migrator")
        if spec.database is None:
            spec = spec.with_database(self._known.get("database") or db_migrate.DEFAULT_DATABASE)
        return spec


def with_session(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options about the database, and a :class:`Session` as its first argument."""

    @click.option("--conn-str", metavar="URL", help="Database and account [default: from the configuration].")
    @click.option("--prefix", metavar="PREFIX", help="Prefix of the accounts' names [default: jobmon_].")
    @click.option("--accounts-file", metavar="FILE", help="File with the accounts' passwords.")
    @click.pass_context
    @wraps(command)
    def wrapped(
        ctx: click.Context,
        conn_str: str | None,
        prefix: str | None,
        accounts_file: str | None,
        **kw: Any,
    ) -> Any:
        config = load_config(ctx.find_object(str), overrides={"accounts_file": accounts_file})
        return command(Session(config, conn_str, prefix), **kw)

    return wrapped


as_option = click.option(
    "--as",
    "role",
    type=click.Choice(["admin", "migrator"]),
    help="Account to use [default: admin if configured, else migrator].",
)
given_option = click.option(
    "--given-passwords",
    "given",
    is_flag=True,
    help="Give the accounts the passwords that stand in the accounts file, and do not write it.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group(cls=Group)
def db() -> None:
    """Migrate, check and open the database."""


def echo_migration(result: db_migrate.MigrateResult) -> None:
    """Tell what a migration did."""
    for warning in result.warnings:
        click.echo(f"Warning: {warning}", err=True)
    if not (result.applied or result.objects or result.created_owner or result.created_database):
        click.echo("the database is up to date")
        return
    click.echo(
        f"applied {len(result.applied)} migrations, loaded {len(result.objects.loaded)} objects,"
        f" dropped {len(result.objects.dropped)}"
    )


@db.command()
@as_option
@with_session
def migrate(session: Session, role: str | None) -> None:
    """Bring tables, routines, triggers and views to the version of this code.

    Safe to repeat, and while clients work; several at once take turns.
    """
    spec = session.spec(role)
    result = db_migrate.migrate(spec, owner=session.owner, say=click.echo)
    if result.applied or result.objects.loaded:
        result.warnings += db_grants.grant_new_objects(spec, prefix=session.prefix)
    echo_migration(result)


@db.command()
@as_option
@click.option("--to", type=click.IntRange(min=0), metavar="VERSION", help="Schema version to go back to.")
@click.option("--all", "everything", is_flag=True, help="Undo all migrations. All data is lost.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@with_session
def rollback(session: Session, role: str | None, to: int | None, everything: bool, yes: bool) -> None:
    """Undo the last migration (or more), and drop the routines, triggers and views.

    Stop the services first. Data in what the migrations had created is lost.
    """
    if everything and to is not None:
        raise click.UsageError("--all and --to exclude each other.")
    spec = session.spec(role)
    target = 0 if everything else to
    if not yes:
        if not sys.stdin.isatty():
            raise HintedError("this may lose data, and nobody is there to be asked", "say --yes")
        what = "the last migration" if target is None else f"all migrations after version {target}"
        click.confirm(f"Undo {what} of {spec.database} on {spec.server}? Data may be lost", abort=True)
    undone = db_migrate.rollback(spec, to=target, say=click.echo)
    click.echo(f"rolled back {len(undone)} migrations" if undone else "there is nothing to roll back")


@db.command()
@as_option
@json_option
@click.option("--check", is_flag=True, help="Exit with 1 when something is behind.")
@with_session
def status(session: Session, role: str | None, as_json: bool, check: bool) -> None:
    """Show what is behind: pending migrations, objects that are missing or changed."""
    found = db_validate.status(session.spec(role), owner=session.owner)
    if as_json:
        document = {**dataclasses.asdict(found), "current": found.current}
        click.echo(json.dumps(document, indent=2))
    else:
        version = "none" if found.schema_version is None else str(found.schema_version)
        click.echo(f"database {found.database} on {found.server}")
        click.echo(f"schema version {version}, this code {found.code_version}")
        for name in found.pending:
            click.echo(f"pending: migration {name}")
        if found.half_done:
            click.echo(f"half done: {found.half_done}")
        for finding in found.behind:
            click.echo(str(finding))
        click.echo("up to date" if found.current else "run `jobmon db migrate`")
    if check and not found.current:
        sys.exit(1)


@db.command()
@as_option
@json_option
@with_session
def validate(session: Session, role: str | None, as_json: bool) -> None:
    """Compare the live database with the files; exits with 1 if they differ."""
    findings = db_validate.validate(session.spec(role), owner=session.owner)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    elif findings:
        for finding in findings:
            click.echo(str(finding))
        click.echo(f"{len(findings)} findings")
    else:
        click.echo("the database is what the files say")
    if findings:
        sys.exit(1)


def _grants_document(reports: list[db_grants.AccountReport]) -> list[dict[str, Any]]:
    return [
        {
            "role": report.role,
            "account": report.account,
            "exists": report.exists,
            "ok": report.ok,
            "held": sorted(map(str, report.held)),
            "missing": sorted(map(str, report.missing)),
            "extra": sorted(map(str, report.extra)),
            "problems": report.problems,
        }
        for report in reports
    ]


def _echo_reports(reports: list[db_grants.AccountReport]) -> None:
    for report in reports:
        click.echo(f"{report.account} ({report.role})" + ("" if report.exists else ": does not exist"))
        by_privileges: dict[str, list[str]] = {}
        scopes: dict[str, list[str]] = {}
        for grant in sorted(report.held):
            scopes.setdefault(grant.scope, []).append(grant.privilege)
        for scope, privileges in scopes.items():
            by_privileges.setdefault(", ".join(privileges), []).append(scope)
        for privileges_text, names in by_privileges.items():
            click.echo(f"  {privileges_text}")
            for name in names:
                click.echo(f"    on {name}")
        for grant in sorted(report.missing):
            click.echo(f"  MISSING {grant}")
        for grant in sorted(report.extra):
            click.echo(f"  EXTRA {grant}")
        for problem in report.problems:
            click.echo(f"  PROBLEM {problem}")


def echo_grants(result: db_grants.GrantsResult) -> None:
    """Tell what was done to the accounts, in short."""
    for role in result.created:
        click.echo(f"created the account of {role}")
    for role in result.changed_password:
        click.echo(f"gave {role} a new password")
    for role, grant in result.revoked:
        click.echo(f"took from {role}: {grant}")
    click.echo(f"the passwords are in {result.accounts_file}")


@db.command()
@click.option(
    "--check", is_flag=True, help="Change nothing; exit with 1 if an account is not as it should be."
)
@click.option("--rotate", is_flag=True, help="Give all accounts new passwords.")
@given_option
@json_option
@with_session
def grants(session: Session, check: bool, rotate: bool, given: bool, as_json: bool) -> None:
    """Create the five accounts, give each exactly what it should hold, and print it.

    Takes away whatever else they hold. Passwords are generated and kept in the accounts file (mode 0600).
    """
    if check and rotate:
        raise click.UsageError("--check and --rotate exclude each other.")
    if given and (check or rotate):
        raise click.UsageError("--given-passwords excludes --check and --rotate.")
    spec = session.spec("admin")
    if check:
        reports = db_grants.check_grants(spec, prefix=session.prefix, accounts_file=session.accounts_file)
    else:
        result = db_grants.apply_grants(
            spec, prefix=session.prefix, accounts_file=session.accounts_file, rotate=rotate, given=given
        )
        reports = result.reports
    if as_json:
        click.echo(json.dumps(_grants_document(reports), indent=2))
    else:
        _echo_reports(reports)
        if not check:
            echo_grants(result)
    wrong = [report.account for report in reports if not report.ok]
    if wrong:
        click.echo(f"not as they should be: {', '.join(wrong)}", err=True)
        sys.exit(1)
    if check:
        click.echo("all accounts hold exactly what they should", err=as_json)


@db.command()
@click.option(
    "--show",
    type=click.Choice(db_grants.LOGIN_ROLES),
    help="Print this account's conn_str, password included.",
)
@with_session
def accounts(session: Session, show: str | None) -> None:
    """List the accounts and whether one can log in with them."""
    known = read_accounts(session.accounts_file).get("accounts", {})
    if show is not None:
        if session.conn_str is None:
            click.echo(session.config.conn_spec(show).conn_str())
            return
        if show not in known:
            raise HintedError(f"{session.accounts_file} has no account for {show}", "run `jobmon db grants`")
        spec = session.spec("admin").with_account(known[show]["user"], known[show]["password"])
        click.echo(spec.conn_str())
        return
    spec = session.spec("admin" if session.conn_str is None and not known else None)
    conn = connect(spec.with_database(None))
    try:
        db_migrate.refuse_newer_database(conn, db_migrate.database_of(spec))
        for role in db_grants.ROLES:
            name = f"{session.prefix}{role}"
            exists = db_migrate.account_exists(conn, name, db_grants.host_of(role))
            click.echo(
                f"{role:<9} {name}@{db_grants.host_of(role):<10} {_login_state(spec, role, exists, known)}"
            )
    finally:
        conn.close()
    click.echo(f"passwords: {session.accounts_file}")


def _login_state(spec: ConnectionSpec, role: str, exists: bool | None, known: dict[str, Any]) -> str:
    if exists is False:
        return "does not exist; run `jobmon db grants`"
    if role == "owner":
        return "owns the routines, nobody logs in"
    if role not in known:
        return "its password is not in the file"
    works = db_grants.login_works(spec, known[role]["user"], known[role]["password"])
    return "login works" if works else "login FAILS; `jobmon db grants` gives it a new password"


@db.command(context_settings={"ignore_unknown_options": True})
@click.option(
    "--account", type=click.Choice(_ROLES), default="reader", show_default=True, help="Whose account to use."
)
@click.argument("client_args", nargs=-1, type=click.UNPROCESSED)
@with_session
def shell(session: Session, account: str, client_args: tuple[str, ...]) -> None:
    """Open the database in the mariadb or mysql client; further arguments go to it.

    For example: jobmon db shell -e 'SELECT * FROM jobs LIMIT 10'
    """
    spec = session.spec(account)
    conn = connect(spec)
    try:
        if account in ("admin", "migrator", "reader"):
            db_migrate.refuse_newer_database(conn, db_migrate.database_of(spec))
        names = ("mariadb", "mysql") if is_mariadb(conn) else ("mysql", "mariadb")
    finally:
        conn.close()
    client = next((path for name in names if (path := shutil.which(name))), None)
    if client is None:
        raise HintedError(
            "neither the mariadb nor the mysql client is installed",
            "Debian: apt-get install mariadb-client; or use any other client with"
            f" `jobmon db accounts --show {account}`",
        )
    with tempfile.TemporaryDirectory(prefix="jobmon-shell-") as directory:
        options = Path(directory) / "client.cnf"
        # The password stands in a private file: arguments are seen by everybody on the machine.
        handle = os.open(options, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(client_options(spec, mariadb=_is_mariadb_client(client)))
        # Ctrl-C is for the client, which cancels the statement.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            code = subprocess.call(
                [client, f"--defaults-file={options}", *client_args],
                preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
            )
        finally:
            signal.signal(signal.SIGINT, before)
    sys.exit(code)


def _is_mariadb_client(client: str) -> bool:
    shown = subprocess.run([client, "--version"], capture_output=True, text=True, check=False).stdout
    return "mariadb" in shown.lower()


def client_options(spec: ConnectionSpec, *, mariadb: bool) -> str:
    """An option file for the mariadb client (mariadb) or the mysql client. It contains the password."""

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    lines = ["[client]", f"user={quoted(spec.user)}", f"password={quoted(spec.password)}"]
    if spec.unix_socket:
        lines.append(f"socket={quoted(spec.unix_socket)}")
    else:
        lines += [f"host={quoted(spec.host)}", f"port={spec.port}", "protocol=TCP"]
    lines.append("default-character-set=utf8mb4")
    if not mariadb:
        # for caching_sha2_password without TLS; MariaDB's client does not know the option
        lines.append("get-server-public-key")
    lines += ["[mysql]", f"database={quoted(spec.database or '')}"]
    lines += ["init-command=\"SET time_zone='+00:00'\"", ""]
    return "\n".join(lines)
