"""The health monitor: calls, again and again, what the database has for finding and telling what is wrong.

It knows no rule and holds no state: any number of them may run.
"""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Callable
from functools import partial

from jobmon.client.errors import JobmonError, RequestRefused
from jobmon.client.requester import Requester
from jobmon.config import Config, ConfigError
from jobmon.monitor import metrics
from jobmon.monitor.outbox import Outbox
from jobmon.monitor.slack import Slack

logger = logging.getLogger(__name__)

NODE_SECONDS = 60.0  # between looks at nodes
NAMES_SECONDS = 60.0  # between looks at which audits there are
AUDIT_SHARE = 0.05  # of the time at the most an audit is being read
AUDIT_ROWS = 100  # of a violated audit are counted
SAMPLE_ROWS = 3  # of them are told
TELL_SECONDS = 60.0  # after which an audit that is still empty is logged again
MOST_EXPIRED = 1000  # job instances ended by one call


class HealthMonitor:
    """Looks for what is lost, failing or wrong every ``monitor_poll_interval`` seconds; sends notifications.

    Parameters:
        requester: the services.
        config: thresholds, Slack's token and channels; the requester's if None.

    Raises:
        ConfigError: the thresholds contradict each other.
    """

    def __init__(self, requester: Requester, config: Config | None = None) -> None:
        self._requester = requester
        self.config = config = config or requester.config
        require_sane(config)
        self._stop = threading.Event()
        self._audits: dict[str, _Audit] = {}
        self._names: list[str] = []  # of the audits
        self._next_nodes = self._next_names = 0.0
        self._last_look = 0.0
        slack = Slack(config.slack_token, config.slack_base_url) if config.slack_token else None
        self.outbox = Outbox(
            requester, slack, config.default_wf_slack_channel, config.default_node_slack_channel
        )

    def stop(self) -> None:
        """Let :meth:`run` return."""
        self._stop.set()
        self.outbox.stop()

    def run(self) -> None:
        """Work until :meth:`stop`.

        Raises:
            RequestRefused: the services do not take the token.
        """
        # Apart from the looks, which must come regularly: Slack, JQS and large tables may take their time.
        threads = [
            threading.Thread(target=self.outbox.run, name="outbox"),
            threading.Thread(target=self._repeat, args=(self.examine,), name="examiner"),
        ]
        try:
            self._step("the outbox", lambda: self._requester.post("retry_notifications"))
            for thread in threads:
                thread.start()
            self._repeat(self.look)
        finally:
            self.stop()
            for thread in threads:
                if thread.ident is not None:
                    thread.join()

    def _repeat(self, work: Callable[[], object]) -> None:
        while not self._stop.is_set():
            began = time.monotonic()
            work()
            self._stop.wait(max(0.0, began + self.config.monitor_poll_interval - time.monotonic()))

    @property
    def seconds_since_look(self) -> float:
        """Since the last look of which nothing failed."""
        return time.monotonic() - self._last_look if self._last_look else float("inf")

    def look(self) -> bool:
        """Look for what is lost once; whether all of it went well.

        Raises:
            RequestRefused: the services do not take the token.
        """
        began = time.monotonic()
        # All of them, whatever has become of the one before.
        well = all(
            [
                self._step("lost workflow runs", self._look_at_runs),
                self._step("lost job instances", self._look_at_instances),
            ]
        )
        metrics.LOOKS.labels("well" if well else "failed").inc()
        metrics.LOOK_SECONDS.set(time.monotonic() - began)
        if well:
            self._last_look = time.monotonic()
            metrics.LAST_LOOK.set_to_current_time()
        return well

    def examine(self) -> bool:
        """Read the figures, look at nodes and audits, as far as they are due; whether all of it went well."""
        if time.monotonic() >= self._next_names and self._step("audits", self._find_audits, patient=True):
            self._next_names = time.monotonic() + NAMES_SECONDS
        steps: list[tuple[str, Callable[[], object]]] = [
            ("figures", self._read_figures),
            ("failing nodes", self._look_at_nodes),
        ]
        steps += [(name, partial(self._look_at_audit, name)) for name in self._names]
        well = all([self._step(*step, patient=True) for step in steps])
        metrics.EXAMINATIONS.labels("well" if well else "failed").inc()
        return well

    def _step(self, what: str, step: Callable[[], object], *, patient: bool = False) -> bool:
        if self._stop.is_set():
            return True
        try:
            step()
        except JobmonError as error:
            if isinstance(error, RequestRefused) and error.status == 401 and not patient:
                raise
            logger.warning("%s: %s", what, error.message)
            return False
        except Exception:
            logger.exception("%s", what)
            return False
        return True

    def _look_at_runs(self) -> None:
        post = self._requester.post
        post("log_monitor_heartbeat", poll_seconds=self.config.monitor_poll_interval)
        found = post("end_lost_workflow_runs", loss_threshold_seconds=self.config.loss_threshold)
        for run in found["workflow_runs"]:
            logger.warning("workflow run %s is lost", run["workflow_run_id"])
        metrics.LOST_RUNS.inc(len(found["workflow_runs"]))

    def _look_at_instances(self) -> None:
        while not self._stop.is_set():
            found = self._requester.post(
                "expire_job_instances", max_job_instances=MOST_EXPIRED, watched_only=1
            )["job_instance_ids"]
            if found:
                logger.warning("%d job instances are lost: %s ...", len(found), found[:10])
            metrics.LOST_INSTANCES.inc(len(found))
            if len(found) < MOST_EXPIRED:
                break
        # The last of a run's job instances may have been among them, and no distributor there to end it.
        self._requester.post("end_workflow_runs")

    def _look_at_nodes(self) -> None:
        if time.monotonic() < self._next_nodes:
            return
        found = self._requester.post(
            "report_failing_nodes",
            window_seconds=self.config.node_window,
            min_job_instances=self.config.node_min_job_instances,
            failure_rate=self.config.node_failure_rate,
        )["nodes"]
        for node in found:
            logger.warning("node %s is failing since %s UTC", node["nodename"], node["failing_since"])
        self._next_nodes = time.monotonic() + NODE_SECONDS

    def _find_audits(self) -> None:
        paths = self._requester.get("openapi.json")["paths"]
        self._names = sorted(path[1:] for path in paths if path.startswith("/audit_"))

    def _look_at_audit(self, name: str) -> None:
        audit = self._audits.setdefault(name, _Audit())
        began = time.monotonic()
        if began < audit.next_read:
            return
        try:
            rows = self._requester.get(name, limit=AUDIT_ROWS)[name]
        finally:
            # On large tables this takes its time, or too long: never most of the database's.
            audit.next_read = time.monotonic() + (time.monotonic() - began) / AUDIT_SHARE
        if rows or audit.violated or began >= audit.next_tell:
            if rows:
                logger.error("%s has %d violations: %s ...", name, len(rows), rows[:SAMPLE_ROWS])
            sample = json.dumps(rows[:SAMPLE_ROWS], ensure_ascii=False) if rows else None
            self._requester.post("log_audit", audit=name, num_violations=len(rows), sample=sample)
            audit.violated, audit.next_tell = bool(rows), began + TELL_SECONDS

    def _read_figures(self) -> None:
        for row in self._requester.get("monitor_state", limit=1)["monitor_state"]:
            for column, gauge in metrics.FROM_STATE.items():
                gauge.set(float(row[column] or 0))


class _Audit:
    """When an audit is to be read, and to be logged, by time.monotonic; whether it had violations."""

    def __init__(self) -> None:
        self.next_read = self.next_tell = 0.0
        self.violated = False


def require_sane(config: Config) -> None:
    """Refuse thresholds under which nothing could ever be found lost.

    Raises:
        ConfigError: the monitor looks too seldom for the threshold.
    """
    if config.loss_threshold < 6 * config.monitor_poll_interval:
        raise ConfigError(
            f"{config.source('loss_threshold')}: loss_threshold is {config.loss_threshold} s, and must be at"
            f" least six times monitor_poll_interval, which is {config.monitor_poll_interval} s",
            "else a short pause of the monitor could not be told from silence",
        )
