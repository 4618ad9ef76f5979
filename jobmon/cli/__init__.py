"""The command ``jobmon``."""

from __future__ import annotations

from importlib import metadata

import click

from jobmon.cli.db import db
from jobmon.cli.db_upkeep import dump, prune, restore
from jobmon.cli.errors import Group
from jobmon.cli.job import job
from jobmon.cli.release import release
from jobmon.cli.run import run
from jobmon.cli.services import start
from jobmon.cli.setup import configure, initdb, test
from jobmon.cli.status import status
from jobmon.cli.workflow import workflow


def _version() -> str:
    try:
        return metadata.version("jobmon")
    except metadata.PackageNotFoundError:
        return "unknown (not installed)"


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(_version(), prog_name="jobmon")
@click.option(
    "--config",
    "config_file",
    metavar="FILE",
    type=click.Path(dir_okay=False),
    help="Configuration file [default: $JOBMON_RC, else ~/.jobmonrc].",
)
@click.pass_context
def main(ctx: click.Context, config_file: str | None) -> None:
    """Jobmon keeps the truth about batch jobs in one database."""
    ctx.obj = config_file


db.add_command(prune)
db.add_command(dump)
db.add_command(restore)
main.add_command(configure)
main.add_command(initdb)
main.add_command(start)
main.add_command(status)
main.add_command(test)
main.add_command(db)
main.add_command(release)
main.add_command(run)
main.add_command(workflow)
main.add_command(job)
