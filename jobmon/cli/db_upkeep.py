"""``jobmon db prune``, ``dump`` and ``restore``."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from jobmon.cli.db import Session, as_option, echo_migration, with_session
from jobmon.cli.errors import HintedError
from jobmon.db import dump as db_dump
from jobmon.db import prune as db_prune

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}


class Age(click.ParamType):
    """A number and a unit: 90d, 12h, 2w; converted to seconds."""

    name = "age"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        match = re.fullmatch(r"(\d{1,10})([smhdw])", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no age: write a number and s, m, h, d or w, as in 90d", param, ctx)
        return int(match[1]) * _UNITS[match[2]]


class Statuses(click.ParamType):
    """Names of workflow statuses, joined by commas; converted to their letters."""

    name = "statuses"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        names = [name.strip().upper() for name in str(value).split(",")]
        for name in names:
            if name not in db_prune.STATUSES:
                self.fail(f"{name!r} is none of {', '.join(db_prune.STATUSES)}", param, ctx)
        return "".join(sorted({db_prune.STATUSES[name] for name in names}))


@click.command()
@as_option
@click.option(
    "--older-than", type=Age(), required=True, metavar="AGE", help="Finished so long ago, as 90d, 12h or 2w."
)
@click.option(
    "--status",
    "statuses",
    type=Statuses(),
    default="DONE",
    show_default=True,
    metavar="NAME[,NAME]",
    help="Workflows in these statuses: DONE, ERROR, STOPPED, CREATED.",
)
@click.option(
    "--archive",
    metavar="tables|FILE",
    help="Keep the rows: in tables archive_..., or in a new file of JSON lines (gzip).",
)
@click.option("--dry-run", is_flag=True, help="Tell what would be deleted, and change nothing.")
@click.option(
    "--batch-rows",
    type=click.IntRange(20, 100_000),
    default=1000,
    show_default=True,
    help="About so many rows in one transaction.",
)
@click.option(
    "--pause",
    type=click.FloatRange(0, 3600),
    default=0.05,
    show_default=True,
    help="Seconds between two transactions.",
)
@click.option(
    "--requests-older-than",
    "request_seconds",
    type=Age(),
    default="1d",
    show_default=True,
    metavar="AGE",
    help="Also forget the answers kept for repeated calls after so long (1h at least).",
)
@with_session
def prune(
    session: Session,
    role: str | None,
    older_than: int,
    statuses: str,
    archive: str | None,
    dry_run: bool,
    batch_rows: int,
    pause: float,
    request_seconds: int,
) -> None:
    """Delete workflows that finished long ago, with all that belongs to them.

    May run while clients work. Never touches a workflow with a live run or a live job. Interrupted, it goes
    on with the next run; until then what it had begun to delete can't be resumed (DAG_PRUNED).
    """
    if request_seconds < 3600:
        raise click.BadParameter(
            "clients may repeat a call for an hour: 1h is the least", param_hint="--requests-older-than"
        )
    result = db_prune.prune(
        session.spec(role),
        older_than=older_than,
        statuses=statuses,
        archive=archive,
        batch_rows=batch_rows,
        pause=pause,
        request_seconds=request_seconds,
        dry_run=dry_run,
        say=click.echo,
    )
    would = "would delete" if dry_run else "deleted"
    rows = "" if dry_run else f" ({result.num_rows} rows)"
    click.echo(
        f"{would} {result.num_dags} dags, {result.num_jobs} jobs{rows}, {result.num_requests} kept answers,"
        f" {result.num_notifications} notifications"
    )


@click.command()
@as_option
@click.argument("file", required=False)
@with_session
def dump(session: Session, role: str | None, file: str | None) -> None:
    """Write all rows of the database to FILE, as they are at one moment, while clients work.

    FILE is new, of JSON lines (gzip), with mode 0600; "-" is standard output. Without it the file is named
    after database and time. `jobmon db restore` takes it back, on MariaDB or MySQL.
    """
    spec = session.spec(role)
    if file == "-":
        if sys.stdout.isatty():
            raise HintedError("a dump is not for a terminal", "name a file, or pipe it on")
        db_dump.dump(spec, sys.stdout.buffer)
        return
    name = file or f"{spec.database}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}.jsonl.gz"
    info = db_dump.dump(spec, Path(name), say=click.echo)
    click.echo(f"wrote {info.num_rows} rows of schema version {info.header['schema_version']} to {name}")


@click.command()
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--database", metavar="NAME", help="The database to make [default: the configured one].")
@click.option("--check", is_flag=True, help="Only read FILE and check it.")
@with_session
def restore(session: Session, file: Path, database: str | None, check: bool) -> None:
    """Load FILE, made by `jobmon db dump`, into a database that is new or empty.

    The file is checked before, counts and audits after; an older dump is migrated to this code's version. It
    needs an administrator's account. Interrupted, it begins anew when it is run again.
    """
    if check:
        info = db_dump.read_dump(file)
        header = info.header
        click.echo(
            f"{file} is complete: {info.num_rows} rows of {len(info.rows)} tables, schema version"
            f" {header['schema_version']}, from {header['database']} on {header['server']}, {header['date']}"
        )
        return
    spec = session.spec("admin")
    if database is not None:
        spec = spec.with_database(database)
    result = db_dump.restore(spec, file, owner=session.owner, say=click.echo)
    echo_migration(result.migrated)
    click.echo(f"restored {result.info.num_rows} rows into {spec.database}")
    click.echo("next: `jobmon db grants`, which makes the accounts, then start the services")
    if result.violations:
        views = ", ".join(f"{name} ({count} rows)" for name, count in result.violations.items())
        raise HintedError(
            f"all rows are there, but the audits found something: {views}",
            "see docs/troubleshooting.md#database",
        )
