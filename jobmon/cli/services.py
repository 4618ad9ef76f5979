"""``jobmon start``: one service in the foreground."""

from __future__ import annotations

import logging
import queue
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from jobmon.cli.errors import Group
from jobmon.cli.options import check_executor, key_values
from jobmon.config import load_config
from jobmon.executors import EXECUTORS

if TYPE_CHECKING:
    from jobmon.distributor import Distributor

SERVICES = {"job_state_manager": "jsm", "job_query_server": "jqs"}

logger = logging.getLogger(__name__)


@click.group(cls=Group)
def start() -> None:
    """Run a service in the foreground until SIGTERM or Ctrl-C.

    What is not given comes from the configuration (see `jobmon configure --show`).
    """


def _web_service(name: str, text: str) -> None:
    @start.command(name, help=text)
    @click.option("--bind", metavar="ADDRESS", help="Address to listen on.")
    @click.option("--port", metavar="PORT", help="Port to listen on.")
    @click.option("--workers", metavar="N", help="Number of worker processes.")
    @click.option("--threads", metavar="N", help="Threads per worker process.")
    @click.pass_obj
    def command(
        config_file: str | None, bind: str | None, port: str | None, workers: str | None, threads: str | None
    ) -> None:
        # Only here: the other commands start faster without the web server.
        from jobmon.thin_common.serve import serve

        short = SERVICES[name]
        overrides = {"bind": bind, f"{short}_port": port, "workers": workers, "threads": threads}
        serve(short, load_config(config_file, overrides=overrides))


_web_service("job_state_manager", "Run the JobStateManager (JSM), which writes.")
_web_service("job_query_server", "Run the JobQueryServer (JQS), which reads.")


@start.command()
@click.option(
    "--executor",
    metavar="NAME",
    callback=check_executor,
    default="local",
    show_default=True,
    help=f"What runs the jobs: {', '.join(EXECUTORS)}, or the name of an installed one.",
)
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the executor, such as queue=long; may be repeated.",
)
@click.option(
    "--max-workers",
    type=click.IntRange(min=1),
    metavar="N",
    help="Jobs that run at a time at most [default: the executor's; local: the number of processors]."
    " On a scheduler: that wait and run.",
)
@click.option(
    "--lease-seconds",
    type=click.IntRange(min=3, max=86_400),
    metavar="SECONDS",
    default=60,
    show_default=True,
    help="A job of which nothing is heard for so long is lost, and retried.",
)
@click.pass_obj
def distributor(
    config_file: str | None,
    executor: str,
    options: tuple[str, ...],
    max_workers: int | None,
    lease_seconds: int,
) -> None:
    """Run a distributor: it claims the jobs of all submitted workflows, and runs them.

    Any number of them may run, on any machines. After SIGTERM or Ctrl-C it claims nothing more and leaves
    when what it runs has ended; after the second one it kills that. With Slurm or Grid Engine it leaves when
    what it has claimed is submitted, at the second one at once, and the jobs live on. The jobs' output and
    working directories must be reachable from here.
    """
    from jobmon.client.requester import Requester
    from jobmon.distributor import Distributor
    from jobmon.executors import make_executor
    from jobmon.executors.batch import BatchExecutor

    config = load_config(config_file)
    logging.basicConfig(level=config.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with closing(Requester(config)) as requester:
        runs_jobs = make_executor(executor, max_workers=max_workers, options=key_values(options))
        service = Distributor(requester, runs_jobs, lease_seconds=lease_seconds)
        _leave_by_signal(service, lives_on=isinstance(runs_jobs, BatchExecutor))
        logger.info("distributor of %s: JSM %s, lease %d s", runs_jobs.name, requester.jsm, lease_seconds)
        service.run()
    logger.info("distributor: left")


@start.command("health_monitor")
@click.pass_obj
def health_monitor(config_file: str | None) -> None:
    """Run a health monitor: it ends and tells what is lost, failing or wrong.

    Lost workflow runs and job instances are ended, failing nodes and violated audits found, and all of it is
    told to Slack (or logged, without a token). Any number of them may run, on any machines.
    """
    from jobmon.client.requester import Requester
    from jobmon.monitor import HealthMonitor

    config = load_config(config_file)
    logging.basicConfig(level=config.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    with closing(Requester(config, patience=20)) as requester:
        monitor = HealthMonitor(requester)
        if config.monitor_port is not None:
            from jobmon.monitor.http import start_http

            start_http(monitor, config)
        _follow_signals([("leaves", monitor.stop)])
        logger.info(
            "health monitor: JSM %s, every %d s, runs are lost after %d s, %s",
            requester.jsm,
            config.monitor_poll_interval,
            config.loss_threshold,
            f"Slack at {config.slack_base_url}"
            if config.slack_token
            else "no slack_token: messages are logged",
        )
        monitor.run()
    logger.info("health monitor: left")


def _leave_by_signal(service: Distributor, *, lives_on: bool) -> None:
    """Drain at the first SIGTERM or SIGINT, kill at the second; lives_on: what runs is not killed."""
    _follow_signals(
        [
            (
                "claims nothing more, and leaves when what runs has ended"
                if not lives_on
                else "claims nothing more, and leaves when what it has claimed is submitted",
                service.drain,
            ),
            ("kills what runs" if not lives_on else "leaves at once", service.kill),
        ]
    )


def _follow_signals(steps: Sequence[tuple[str, Callable[[], Any]]]) -> None:
    """Do a step at each SIGTERM or SIGINT; each is what it does, in words, and the call."""
    # A handler runs in the middle of anything, maybe of what the step needs; the thread does not.
    received: queue.SimpleQueue[int] = queue.SimpleQueue()

    def follow() -> None:
        for what, step in steps:
            logger.info("%s: %s", signal.Signals(received.get()).name, what)
            step()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: received.put(number))
    threading.Thread(target=follow, name="signals", daemon=True).start()
