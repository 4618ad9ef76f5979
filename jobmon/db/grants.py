"""The five accounts and exactly what each may do.

What an account should hold follows from the files: JSM may execute the procedures that say ``Access: JSM``,
JQS may read the views that say ``Access: JQS``. :func:`apply_grants` makes it so, gives what is missing,
and takes away everything else, whatever its kind (global, database, table, column, routine, role, proxy,
GRANT OPTION). :func:`check_grants` compares and changes nothing.
"""

from __future__ import annotations

import json
import re
import secrets
import stat
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pymysql
from pymysql.connections import Connection

from jobmon.config import others_can_read, read_accounts, write_private
from jobmon.db.catalog import DatabaseError, execute, is_mariadb, query, quote_name, server_version
from jobmon.db.connect import ConnectionSpec, connect, errno_of, is_lost_connection
from jobmon.db.load import SqlObject, open_for_ddl, read_sql_dir
from jobmon.db.migrate import (
    DEFAULT_PREFIX,
    account_exists,
    database_of,
    grant_pattern,
    refuse_newer_database,
    require_initialised,
    schema_lock,
)
from jobmon.hosts import show_host

ROLES = ("owner", "migrator", "jsm", "jqs", "reader")
LOGIN_ROLES = ("migrator", "jsm", "jqs", "reader")

# Written by the rules' own statements, and by people through the JSM account: the triggers watch over them.
INSERT_AND_UPDATE_TABLES = (
    "task_dag",
    "workflow",
    "workflow_run",
    "job",
    "job_instance",
    "workflow_attribute",
    "workflow_run_attribute",
    "job_attribute",
)
INSERT_ONLY_TABLES = ("job_edge",)

# Rows that come from migrations: the same in every database.
LOOKUP_TABLES = (
    "job_status",
    "job_instance_status",
    "workflow_status",
    "workflow_run_status",
    "job_transition",
    "job_instance_transition",
    "workflow_transition",
    "workflow_run_transition",
    "job_attribute_type",
    "workflow_attribute_type",
    "workflow_run_attribute_type",
    "api_error",
    "jqs_route",
    "change_shard",
    "schema_info",
)

_MIGRATOR_PRIVILEGES = (
    "SELECT",
    "INSERT",
    "UPDATE",
    "DELETE",
    "CREATE",
    "DROP",
    "REFERENCES",
    "INDEX",
    "ALTER",
    "LOCK TABLES",
    "EXECUTE",
    "CREATE VIEW",
    "SHOW VIEW",
    "CREATE ROUTINE",
    "ALTER ROUTINE",
    "TRIGGER",
    # to grant what it creates to those who use it
    "GRANT OPTION",
)

_PART = r"(?:\*|`(?:[^`]|``)*`)"
_ACCOUNT = r"(?:`(?:[^`]|``)*`|'(?:[^']|'')*')(?:@(?:`(?:[^`]|``)*`|'(?:[^']|'')*'))?"
_ON_OBJECT = re.compile(
    rf"GRANT (?P<privileges>.+?) ON (?:TABLE )?(?P<scope>(?:(?:PROCEDURE|FUNCTION|PACKAGE BODY|PACKAGE) )?"
    rf"{_PART}\.{_PART}) TO (?P<grantee>{_ACCOUNT})(?P<rest>.*)$",
    re.DOTALL,
)
_PROXY = re.compile(rf"GRANT PROXY ON (?P<who>{_ACCOUNT}) TO (?P<grantee>{_ACCOUNT})")
_ROLE = re.compile(rf"GRANT (?P<roles>{_ACCOUNT}(?:,\s*{_ACCOUNT})*) TO (?P<grantee>{_ACCOUNT})(?P<rest>.*)$")

_WITH_OPTION = " WITH GRANT OPTION"


class Grant(NamedTuple):
    """One privilege on one thing.

    scope: ``*.*``, ``db.*`` (as GRANT takes it, wildcards escaped), a table, ``PROCEDURE db.name``,
    ``ROLE`` or ``PROXY``. privilege: such as ``SELECT``, ``SELECT (`column`)``, ``GRANT OPTION``; of ROLE
    and PROXY: for whom.
    """

    scope: str
    privilege: str

    def __str__(self) -> str:
        if self.scope in ("ROLE", "PROXY"):
            return f"{self.scope} {self.privilege}"
        return f"{self.privilege} ON {self.scope}"


@dataclass
class AccountReport:
    """What one account holds, compared with what it should hold.

    role: of :data:`ROLES`. user, host: the account. held, missing, extra: grants. problems: what else is
    wrong.
    """

    role: str
    user: str
    host: str
    exists: bool = True
    held: set[Grant] = field(default_factory=set)
    missing: set[Grant] = field(default_factory=set)
    extra: set[Grant] = field(default_factory=set)
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether the account is as it should be."""
        return self.exists and not (self.missing or self.extra or self.problems)

    @property
    def account(self) -> str:
        """``user@host``."""
        return f"{self.user}@{self.host}"


@dataclass
class GrantsResult:
    """What :func:`apply_grants` did.

    reports: the accounts as they are now. created, changed_password: roles. granted, revoked: (role, grant).
    """

    reports: list[AccountReport]
    accounts_file: Path
    created: list[str] = field(default_factory=list)
    changed_password: list[str] = field(default_factory=list)
    granted: list[tuple[str, Grant]] = field(default_factory=list)
    revoked: list[tuple[str, Grant]] = field(default_factory=list)


def host_of(role: str) -> str:
    """The host part of a role's account: the owner never logs in, the others may from anywhere."""
    return "localhost" if role == "owner" else "%"


# What should be


def wanted_grants(
    conn: Connection, database: str, files: Iterable[SqlObject], tables: set[str]
) -> dict[str, set[Grant]]:
    """What each role should hold.

    files: the procedures, functions and views that there are. tables: the names of the tables that there are.
    """
    schema = quote_name(database)
    whole = f"{grant_pattern(conn, database)}.*"
    wanted: dict[str, set[Grant]] = {role: set() for role in ROLES}
    wanted["owner"].add(Grant(whole, "ALL PRIVILEGES"))
    wanted["reader"].add(Grant(whole, "SELECT"))
    wanted["migrator"] |= {Grant(whole, privilege) for privilege in _MIGRATOR_PRIVILEGES}
    wanted["migrator"] |= _creating_for_the_owner(conn)
    for file in files:
        name = f"{schema}.{quote_name(file.name)}"
        if file.access == "JSM":
            wanted["jsm"].add(Grant(f"{file.kind} {name}", "EXECUTE"))
        elif file.access == "JQS":
            wanted["jqs"].add(Grant(name, "SELECT"))
    for table in sorted(tables):
        name = f"{schema}.{quote_name(table)}"
        if table in INSERT_AND_UPDATE_TABLES:
            wanted["jsm"] |= {Grant(name, "INSERT"), Grant(name, "UPDATE")}
        elif table in INSERT_ONLY_TABLES:
            wanted["jsm"].add(Grant(name, "INSERT"))
        elif table in LOOKUP_TABLES:
            wanted["jqs"].add(Grant(name, "SELECT"))
    return wanted


def _creating_for_the_owner(conn: Connection) -> set[Grant]:
    """What the migrator needs beyond the schema: to create for another definer, to read routines' definitions
    and (MySQL) who may execute them, and to know whether an account exists.
    """
    accounts = {Grant("`mysql`.`user`", "SELECT (`Host`)"), Grant("`mysql`.`user`", "SELECT (`User`)")}
    if is_mariadb(conn):
        return accounts | {Grant("*.*", "SET USER"), Grant("`mysql`.`proc`", "SELECT")}
    definer = "SET_ANY_DEFINER" if server_version(conn) >= (8, 2, 0) else "SET_USER_ID"
    return accounts | {
        Grant("*.*", definer),
        Grant("*.*", "SHOW_ROUTINE"),
        Grant("`mysql`.`procs_priv`", "SELECT"),
    }


def _wanted(conn: Connection, database: str, sql_dir: Path | None) -> dict[str, set[Grant]]:
    tables = {
        name: kind
        for name, kind in query(
            conn,
            "SELECT TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA=%s",
            (database,),
        )
    }
    routines = {
        (kind, name)
        for kind, name in query(
            conn,
            "SELECT ROUTINE_TYPE, ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA=%s",
            (database,),
        )
    }
    files = read_sql_dir(sql_dir)
    absent = [
        f"{kind.lower()} {name}"
        for (kind, name), file in files.items()
        if file.access != "internal" and (kind, name) not in routines and tables.get(name) != "VIEW"
    ]
    if absent:
        raise DatabaseError(
            f"the database {database} lacks {', '.join(absent[:3])}" + (" and others" if absent[3:] else ""),
            "run `jobmon db migrate` first",
        )
    base = {name for name, kind in tables.items() if kind == "BASE TABLE"}
    return wanted_grants(conn, database, files.values(), base)


# What is


def _split_privileges(text: str) -> list[str]:
    """``SELECT (`a`, `b`), INSERT`` -> ``SELECT (`a`)``, ``SELECT (`b`)``, ``INSERT``."""
    found = []
    for part in re.findall(r"((?:[^,(`]|`(?:[^`]|``)*`)+)(\((?:[^)`]|`(?:[^`]|``)*`)*\))?", text):
        name, columns = part[0].strip(), part[1]
        if not name:
            continue
        if columns:
            found += [f"{name} ({column})" for column in re.findall(r"`(?:[^`]|``)*`|\w+", columns)]
        else:
            found.append(name)
    return found


def _same_account(quoted: str, user: str, host: str) -> bool:
    parts = re.findall(r"`((?:[^`]|``)*)`|'((?:[^']|'')*)'", quoted)
    names = [a.replace("``", "`") or b.replace("''", "'") for a, b in parts]
    return names == [user, host]


def parse_grant(line: str, user: str, host: str) -> set[Grant]:
    """The privileges in one line of SHOW GRANTS FOR user@host; none for lines that are about others.

    Raises DatabaseError for a line that can't be read: what can't be read can't be called harmless.
    """
    if line.startswith(("SET DEFAULT ROLE", "REVOKE ")):
        # A default role gives nothing that the role's own grant does not; a REVOKE line only limits.
        return set()
    proxy = _PROXY.match(line)
    if proxy:
        return {Grant("PROXY", proxy["who"])} if _same_account(proxy["grantee"], user, host) else set()
    on_object = _ON_OBJECT.match(line)
    if on_object:
        if not _same_account(on_object["grantee"], user, host):
            return set()  # MariaDB shows the grants of the account's roles as well
        privileges = [name for name in _split_privileges(on_object["privileges"]) if name != "USAGE"]
        option = _WITH_OPTION in on_object["rest"]
        if option and privileges and all("_" in name for name in privileges):
            # MySQL's dynamic privileges carry the option one by one.
            return {Grant(on_object["scope"], name + _WITH_OPTION) for name in privileges}
        if option:
            privileges.append("GRANT OPTION")
        return {Grant(on_object["scope"], name) for name in privileges}
    role = _ROLE.match(line)
    if role:
        if not _same_account(role["grantee"], user, host):
            return set()
        return {Grant("ROLE", name) for name in re.findall(_ACCOUNT, role["roles"])}
    raise DatabaseError(f"the server's grant {line!r} can't be read", "please report this line")


def read_grants(conn: Connection, user: str, host: str) -> set[Grant]:
    """What an account holds itself. Raises DatabaseError if this one may not know."""
    try:
        rows = query(conn, "SHOW GRANTS FOR %s@%s", (user, host))
    except pymysql.err.Error as error:
        if errno_of(error) in (1044, 1142):
            raise _needs_admin(f"this account may not see the grants of {user}") from error
        raise
    found: set[Grant] = set()
    for (line,) in rows:
        found |= parse_grant(str(line), user, host)
    return found


def _needs_admin(what: str) -> DatabaseError:
    return DatabaseError(what, "run this as admin (an account that may create accounts, such as root)")


def _require_admin(conn: Connection) -> None:
    try:
        query(conn, "SELECT 1 FROM mysql.db LIMIT 1")
    except pymysql.err.Error as error:
        if errno_of(error) in (1044, 1142, 1143):
            raise _needs_admin("this account may not see what other accounts hold") from error
        raise


def _is_locked(conn: Connection, user: str, host: str) -> bool:
    [(shown, *_)] = query(conn, "SHOW CREATE USER %s@%s", (user, host))
    return " ACCOUNT LOCK" in str(shown)


def _other_hosts(conn: Connection, user: str, host: str) -> list[str]:
    return [
        row[0] for row in query(conn, "SELECT Host FROM mysql.user WHERE User=%s AND Host<>%s", (user, host))
    ]


def _held_by_everybody(conn: Connection) -> list[str]:
    """Privileges that every account has besides its own."""
    if is_mariadb(conn):
        if server_version(conn) < (10, 11, 0):
            return []
        lines = [str(row[0]) for row in query(conn, "SHOW GRANTS FOR PUBLIC")]
        return [f"everybody (PUBLIC) holds: {line}" for line in lines if not line.startswith("GRANT USAGE")]
    [(roles,)] = query(conn, "SELECT @@mandatory_roles")
    return [f"the server gives everybody the roles {roles} (mandatory_roles)"] if roles else []


def _report(conn: Connection, role: str, prefix: str, wanted: set[Grant]) -> AccountReport:
    report = AccountReport(role, f"{prefix}{role}", host_of(role))
    exists = account_exists(conn, report.user, report.host)
    if exists is None:
        raise _needs_admin("this account may not read which accounts there are")
    for other in _other_hosts(conn, report.user, report.host):
        report.problems.append(
            f"there is another account {report.user}@{other}, which the server may take for this one; drop it"
        )
    if not exists:
        report.exists = False
        report.missing = set(wanted)
        return report
    report.held = read_grants(conn, report.user, report.host)
    report.missing = wanted - report.held
    report.extra = report.held - wanted
    locked = _is_locked(conn, report.user, report.host)
    if role == "owner" and not locked:
        report.problems.append("it is not locked: somebody could log in with it")
    if role != "owner" and locked:
        report.problems.append("it is locked")
    report.problems += _held_by_everybody(conn)
    return report


def check_grants(
    spec: ConnectionSpec,
    *,
    prefix: str = DEFAULT_PREFIX,
    sql_dir: Path | None = None,
    migrations_dir: Path | None = None,
    accounts_file: Path | None = None,
) -> list[AccountReport]:
    """What the five accounts hold, compared with what they should hold; changes nothing.

    spec: an admin. prefix: of the accounts' names. sql_dir, migrations_dir: other files than this code's.
    accounts_file: if given, it must be private (mode 0600) and its passwords must be right.
    Raises DatabaseError if the database is not there or this account may not know.
    """
    database = database_of(spec)
    conn = connect(spec.with_database(None))
    try:
        refuse_newer_database(conn, database, migrations_dir)
        require_initialised(conn, database)
        _require_admin(conn)
        wanted = _wanted(conn, database, sql_dir)
        reports = [_report(conn, role, prefix, wanted[role]) for role in ROLES]
    finally:
        conn.close()
    if accounts_file is not None:
        _check_accounts_file(spec, accounts_file, reports)
    return reports


def _check_accounts_file(spec: ConnectionSpec, path: Path, reports: list[AccountReport]) -> None:
    accounts = read_accounts(path).get("accounts", {})
    public = path.exists() and others_can_read(path)
    for report in reports:
        if report.role not in LOGIN_ROLES:
            continue
        if public:
            report.problems.append(f"its password stands in {path}, which other users can read: chmod 600")
        account = accounts.get(report.role)
        if account is None or account["user"] != report.user:
            report.problems.append(f"{path} has no password for it")
        elif report.exists and not login_works(spec, report.user, account["password"]):
            report.problems.append(f"the password in {path} is not its password")


def login_works(spec: ConnectionSpec, user: str, password: str) -> bool:
    """Whether one can log in on the server with an account."""
    try:
        connect(spec.with_database(None).with_account(user, password)).close()
    except pymysql.err.Error as error:
        if is_lost_connection(error):
            raise
        return False
    return True


# Making it so


def _account_sql(user: str, host: str) -> str:
    escape = pymysql.converters.escape_string
    return f"'{escape(user)}'@'{escape(host)}'"


def _grant(conn: Connection, user: str, host: str, grants: Iterable[Grant]) -> None:
    for scope, privileges in _by_scope(grants).items():
        execute(conn, f"GRANT {', '.join(privileges)} ON {scope} TO {_account_sql(user, host)}")


def _revoke(conn: Connection, user: str, host: str, grants: Iterable[Grant]) -> None:
    account = _account_sql(user, host)
    for scope, privileges in _by_scope(grants).items():
        for privilege in privileges:
            if scope == "ROLE":
                statement = f"REVOKE {privilege} FROM {account}"
            elif scope == "PROXY":
                statement = f"REVOKE PROXY ON {privilege} FROM {account}"
            else:
                statement = f"REVOKE {privilege.removesuffix(_WITH_OPTION)} ON {scope} FROM {account}"
            try:
                execute(conn, statement)
            except pymysql.err.Error as error:
                # 1141, 1147, 1403: it went with another one, such as the database's ALL PRIVILEGES
                if errno_of(error) not in (1141, 1147, 1403):
                    raise


def _by_scope(grants: Iterable[Grant]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for grant in sorted(grants):
        found.setdefault(grant.scope, []).append(grant.privilege)
    return found


def new_password() -> str:
    """A password of 192 random bits that satisfies the usual password policies."""
    return f"Aa1-{secrets.token_urlsafe(24)}"


def accounts_document(
    spec: ConnectionSpec,
    passwords: Mapping[str, str],
    *,
    prefix: str = DEFAULT_PREFIX,
) -> dict[str, Any]:
    """The contents of an accounts file.

    spec: where the services find the server and the database. passwords: by role.
    """
    return {
        "prefix": prefix,
        "host": spec.host,
        "port": spec.port,
        "unix_socket": spec.unix_socket,
        "database": database_of(spec),
        "accounts": {
            role: {"user": f"{prefix}{role}", "password": password} for role, password in passwords.items()
        },
    }


def _given_accounts(path: Path, database: str, prefix: str) -> dict[str, dict[str, str]]:
    """The accounts of a file that somebody else keeps.

    Raises DatabaseError if one is missing or can't be used, or the file is about another database.
    """
    document = read_accounts(path)
    hint = f"{path} must have them all, in the form that `jobmon db grants` writes"
    if document.get("database") not in (None, database):
        raise DatabaseError(f"{path} is about the database {document['database']}, not {database}", hint)
    accounts: dict[str, dict[str, str]] = document.get("accounts", {})
    for role in LOGIN_ROLES:
        account = accounts.get(role, {})
        if account.get("user") != f"{prefix}{role}":
            raise DatabaseError(f"{path} gives no password for {prefix}{role}", hint)
        if not re.fullmatch(r"[!#-&(-\[\]-~]{16,128}", account["password"]):
            raise DatabaseError(
                f"the password that {path} gives {prefix}{role} can't be used",
                "it must have 16 to 128 printable ASCII characters without blanks, quotes and backslashes",
            )
    return accounts


def _create_or_keep(
    conn: Connection,
    spec: ConnectionSpec,
    role: str,
    user: str,
    known: str | None,
    *,
    rotate: bool,
    given: bool,
) -> tuple[str | None, str]:
    """Make a role's account usable; returns its password (None for the owner) and what was done."""
    account = _account_sql(user, host_of(role))
    exists = account_exists(conn, user, host_of(role))
    if role == "owner":
        if exists:
            execute(conn, f"ALTER USER {account} ACCOUNT LOCK")
            return None, "kept"
        execute(conn, f"CREATE USER {account} IDENTIFIED BY '{new_password()}' ACCOUNT LOCK")
        return None, "created"
    if exists and known is not None and not rotate and login_works(spec, user, known):
        return known, "kept"
    password = known if given and known is not None else new_password()
    verb = "ALTER" if exists else "CREATE"
    how = f"IDENTIFIED BY '{password}' PASSWORD EXPIRE NEVER ACCOUNT UNLOCK"
    execute(conn, f"{verb} USER {account} {how}")
    if not login_works(spec, user, password):
        raise DatabaseError(
            f"the account {user}@{host_of(role)} was given a password, but can't log in with it",
            f"another account, such as ''@'localhost' or {user}@'localhost', may come before it: drop that",
        )
    return password, "password" if exists else "created"


def apply_grants(
    spec: ConnectionSpec,
    *,
    accounts_file: Path,
    prefix: str = DEFAULT_PREFIX,
    rotate: bool = False,
    given: bool = False,
    sql_dir: Path | None = None,
    migrations_dir: Path | None = None,
    lock_timeout: float = 600.0,
) -> GrantsResult:
    """Create the accounts, and make each hold exactly what it should.

    A password in the accounts file that still works is kept. Rivals take turns.

    spec: an admin; its host, port and socket are written to the file for the services. accounts_file:
    written at once or not at all, with mode 0600. prefix: of the accounts' names. rotate: give all new
    passwords. given: the file is somebody else's (a mounted secret): it is not written, and each account gets
    the password that stands in it. sql_dir, migrations_dir: other files than this code's. lock_timeout:
    seconds to wait for rivals. Raises DatabaseError if the database is not there yet, this account may not do
    it, or a given file lacks a password.
    """
    if not re.fullmatch(r"[A-Za-z0-9_]{1,20}", prefix):
        raise DatabaseError(
            f"{prefix!r} can't be the prefix of account names", "use 1 to 20 letters, digits and underscores"
        )
    database = database_of(spec)
    # before anything is changed
    kept = _given_accounts(accounts_file, database, prefix) if given else None
    conn = open_for_ddl(spec.with_database(None))
    try:
        with schema_lock(conn, database, timeout=lock_timeout):
            refuse_newer_database(conn, database, migrations_dir)
            require_initialised(conn, database)
            _require_admin(conn)
            wanted = _wanted(conn, database, sql_dir)
            result = GrantsResult([], accounts_file)
            _make_accounts(conn, spec, result, prefix=prefix, rotate=rotate, given=kept)
            for role in ROLES:
                result.reports.append(_reconcile(conn, role, prefix, wanted[role], result))
    except pymysql.err.Error as error:
        if errno_of(error) in (1044, 1142, 1227, 1410):
            raise _needs_admin(f"this account may not manage accounts: {error.args[1]}") from error
        raise
    finally:
        conn.close()
    _check_accounts_file(spec, accounts_file, result.reports)
    return result


def _make_accounts(
    conn: Connection,
    spec: ConnectionSpec,
    result: GrantsResult,
    *,
    prefix: str,
    rotate: bool,
    given: Mapping[str, dict[str, str]] | None,
) -> None:
    path = result.accounts_file
    before: dict[str, Any] = read_accounts(path) if given is None else {"accounts": given}
    accounts: dict[str, dict[str, str]] = {}
    try:
        for role in ROLES:
            user = f"{prefix}{role}"
            old = before.get("accounts", {}).get(role, {})
            known = old.get("password") if old.get("user") == user else None
            password, done = _create_or_keep(
                conn, spec, role, user, known, rotate=rotate, given=given is not None
            )
            if password is not None:
                accounts[role] = {"user": user, "password": password}
            if done == "created":
                result.created.append(role)
            elif done == "password":
                result.changed_password.append(role)
    finally:
        # Also after an error: a password that was set and not written down would be lost.
        document = {
            **accounts_document(spec, {}, prefix=prefix),
            "accounts": {**before.get("accounts", {}), **accounts},
        }
        if spec.others:
            document["other_hosts"] = [show_host(host) for host in spec.others]
        if given is None and (document != before or stat.S_IMODE(path.stat().st_mode) != 0o600):
            try:
                write_private(path, json.dumps(document, indent=2) + "\n")
            except OSError as error:
                raise DatabaseError(f"{path} can't be written: {error.strerror}") from error


def _reconcile(
    conn: Connection, role: str, prefix: str, wanted: set[Grant], result: GrantsResult
) -> AccountReport:
    report = _report(conn, role, prefix, wanted)
    # A second round gives back what went with a broader privilege. What is missing comes first, so that a
    # running service is not without it for a moment.
    for _ in range(3):
        if not (report.missing or report.extra):
            break
        options = {grant for grant in report.extra if grant.privilege.endswith(_WITH_OPTION)}
        _revoke(conn, report.user, report.host, options)
        _grant(conn, report.user, report.host, report.missing)
        # What shows one by one is part of an ALL PRIVILEGES that is complete again now.
        whole = {grant.scope for grant in report.missing if grant.privilege == "ALL PRIVILEGES"}
        parts = {
            grant for grant in report.extra if grant.scope in whole and grant.privilege != "GRANT OPTION"
        }
        _revoke(conn, report.user, report.host, report.extra - options - parts)
        result.granted += [(role, grant) for grant in sorted(report.missing)]
        result.revoked += [(role, grant) for grant in sorted(report.extra - parts)]
        report = _report(conn, role, prefix, wanted)
    return report


def grant_new_objects(
    spec: ConnectionSpec, *, prefix: str = DEFAULT_PREFIX, sql_dir: Path | None = None
) -> list[str]:
    """After a migration: give JSM and JQS what they should hold on new objects, and take nothing away.

    Does nothing for accounts that do not exist yet. The migrator may do this too. Returns what could not be
    given.
    """
    database = database_of(spec)
    problems: list[str] = []
    conn = open_for_ddl(spec.with_database(database))
    try:
        wanted = _wanted(conn, database, sql_dir)
        for role in ("jsm", "jqs"):
            user, host = f"{prefix}{role}", host_of(role)
            if not account_exists(conn, user, host):
                continue
            try:
                _grant(conn, user, host, wanted[role])
            except pymysql.err.Error as error:
                problems.append(f"{user} lacks privileges on new objects: {error.args[-1]}")
    finally:
        conn.close()
    return problems


def drop_accounts(spec: ConnectionSpec, *, prefix: str) -> None:
    """Drop the five accounts (for tests, and for taking Jobmon off a server)."""
    conn = connect(spec.with_database(None))
    try:
        for role in ROLES:
            execute(conn, f"DROP USER IF EXISTS {_account_sql(f'{prefix}{role}', host_of(role))}")
    finally:
        conn.close()
