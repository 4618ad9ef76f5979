"""What a person is told when a command fails: what is wrong and what to do about it, never a traceback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import click
import pymysql

from jobmon.client.errors import JobmonError, RequestRefused
from jobmon.config import ConfigError
from jobmon.db.catalog import DatabaseError
from jobmon.db.connect import ConnStrError, errno_of
from jobmon.db.embedded import EmbeddedServerError
from jobmon.db.files import FilesError
from jobmon.db.load import binlog_rule_error

# errno -> (what is wrong, what to do). {message} is the server's.
_EXPLAINED: dict[int, tuple[str, str]] = {
    2003: (
        "the database can't be reached: {message}",
        "is it running, and are host and port (or socket) right?",
    ),
    2006: (
        "the connection to the database was lost: {message}",
        "run the command again; it goes on where it was",
    ),
    2013: (
        "the connection to the database was lost: {message}",
        "run the command again; it goes on where it was",
    ),
    1040: ("the database has no free connection: {message}", "wait, or raise the server's max_connections"),
    1044: (
        "the account may not use this database: {message}",
        "run this as admin, or repair it: `jobmon db grants`",
    ),
    1045: (
        "the database refuses the account: {message}",
        "check user and password in conn_str or the accounts file; `jobmon db grants` gives new ones",
    ),
    1049: ("the database does not exist: {message}", "run `jobmon initdb`, or `jobmon db migrate` as admin"),
    1130: (
        "the database refuses this machine: {message}",
        "the account must be allowed to come from this host",
    ),
    1142: ("the account lacks a privilege: {message}", "run this as admin, or repair it: `jobmon db grants`"),
    1143: ("the account lacks a privilege: {message}", "run this as admin, or repair it: `jobmon db grants`"),
    1146: ("a table is missing: {message}", "run `jobmon db status`, then `jobmon db migrate`"),
    1227: (
        "the account lacks a privilege: {message}",
        "run this as an administrator's account, such as root",
    ),
    1290: ("the database is read-only: {message}", "is this a replica? Use the primary server"),
    1370: ("the account lacks a privilege: {message}", "run this as admin, or repair it: `jobmon db grants`"),
    1698: (
        "the database refuses the account: {message}",
        "root logs in by its socket only: see `unix_socket=`",
    ),
    1819: (
        "the server's password policy refuses a password: {message}",
        "see its validate_password variables",
    ),
    2026: ("TLS failed: {message}", "see the options tls and tls_ca of the conn_str"),
    3118: ("the account is locked: {message}", "`jobmon db grants` unlocks the services' accounts"),
    3159: ("the server wants TLS: {message}", "add ?tls=required to the conn_str"),
    4151: ("the account is locked: {message}", "`jobmon db grants` unlocks the services' accounts"),
}


class HintedError(click.ClickException):
    """An error of a command: a message, and a hint about what to do."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint

    def show(self, file: IO[Any] | None = None) -> None:
        """Print both to standard error."""
        super().show(file)
        if self.hint:
            click.echo(f"Hint: {self.hint}", file=file, err=file is None)


class NotFoundError(HintedError):
    """What a command was to look at is not there; exit code 3."""

    exit_code = 3


def explain_client_error(error: JobmonError) -> HintedError:
    """What an error of the client library means for the one who ran the command."""
    not_found = (
        isinstance(error, RequestRefused) and error.status == 404 and error.code.startswith("UNKNOWN_")
    )
    return (NotFoundError if not_found else HintedError)(error.message, error.hint)


def explain_database_error(error: pymysql.err.Error) -> HintedError:
    """What a database's error means for the one who ran the command."""
    errno = errno_of(error)
    if errno in (1418, 1419):
        known = binlog_rule_error()
        return HintedError(known.message, known.hint)
    message = str(error.args[-1]) if error.args else type(error).__name__
    if errno is not None and errno in _EXPLAINED:
        what, hint = _EXPLAINED[errno]
        return HintedError(what.format(message=message), hint)
    number = f" ({errno})" if errno is not None else ""
    return HintedError(
        f"the database says: {message}{number}", "`jobmon db validate` looks for what is wrong in it"
    )


@contextmanager
def explained() -> Iterator[None]:
    """Turn everything that can go wrong into a click exception.

    With JOBMON_DEBUG set, what nobody thought of comes with its traceback.
    """
    try:
        yield
    except (click.exceptions.Exit, click.Abort, click.ClickException):
        raise
    except JobmonError as error:
        raise explain_client_error(error) from error
    except (ConfigError, DatabaseError, EmbeddedServerError) as error:
        raise HintedError(error.message, error.hint) from error
    except ConnStrError as error:
        raise HintedError(str(error), "see conn_str in ~/.jobmonrc, JOBMON_CONN_STR or --conn-str") from error
    except FilesError as error:
        raise HintedError(str(error)) from error
    except pymysql.err.Error as error:
        raise explain_database_error(error) from error
    except BrokenPipeError:
        raise  # the reader of our output has gone; click ends quietly
    except OSError as error:
        raise HintedError(f"{error.filename or 'the system'}: {error.strerror or error}") from error
    except Exception as error:
        if os.environ.get("JOBMON_DEBUG"):
            raise
        raise HintedError(
            f"this should not have happened: {type(error).__name__}: {error}",
            "please report it; JOBMON_DEBUG=1 shows where it comes from",
        ) from error


class Group(click.Group):
    """A group whose commands explain their errors."""

    def invoke(self, ctx: click.Context) -> Any:
        with explained():
            return super().invoke(ctx)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            if args[0].startswith("-"):
                raise
            commands = ", ".join(self.list_commands(ctx))
            raise click.UsageError(f"{error.format_message()} Commands: {commands}.", ctx) from None
