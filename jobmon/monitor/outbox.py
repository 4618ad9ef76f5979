"""Sends what stands in the outbox: the oldest message of each channel, and when that is sent, the next."""

from __future__ import annotations

import logging
import secrets
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from jobmon.client.errors import JobmonError
from jobmon.client.requester import Requester
from jobmon.monitor import metrics
from jobmon.monitor.slack import TIMEOUT, Outcome, Slack

logger = logging.getLogger(__name__)

SENDERS = 8  # messages under way at a time, each to another channel
LEASE_SECONDS = 60  # after which another monitor sends what this one has claimed
# Slack takes about one message a second and channel: https://docs.slack.dev/apis/web-api/rate-limits
PACE_SECONDS = 1.0
IDLE_SECONDS = 2.0  # between looks while there is nothing to be sent

assert TIMEOUT < LEASE_SECONDS / 2


class Outbox:
    """Sends notifications until it is stopped; apart from the monitor's looks, which Slack can't hold up.

    Parameters:
        requester: the services.
        slack: None: there is no token, and notifications are logged.
        default_wf_channel: for those that have no channel.
        default_node_channel: for those about nodes.
        pace: seconds between two messages to one channel.
        idle: seconds between two looks while there is nothing to be sent.
    """

    def __init__(
        self,
        requester: Requester,
        slack: Slack | None,
        default_wf_channel: str | None,
        default_node_channel: str | None,
        *,
        pace: float = PACE_SECONDS,
        idle: float = IDLE_SECONDS,
    ) -> None:
        self._requester = requester
        self._slack = slack
        self._defaults = {
            "default_wf_slack_channel": default_wf_channel,
            "default_node_slack_channel": default_node_channel,
        }
        self._pace, self._idle = pace, idle
        self._stop = threading.Event()
        self._busy: set[Future[None]] = set()

    def stop(self) -> None:
        """Claim nothing more; :meth:`run` returns when what is under way has ended."""
        self._stop.set()

    def run(self) -> None:
        """Send until :meth:`stop`. Whatever goes wrong is logged, and tried again."""
        with ThreadPoolExecutor(SENDERS, thread_name_prefix="sender") as pool:
            while not self._stop.is_set():
                try:
                    sends = self.step(pool)
                except JobmonError as error:
                    logger.warning("the outbox can't be read: %s", error.message)
                    sends = False
                except Exception:
                    logger.exception("the outbox can't be read")
                    sends = False
                self._stop.wait(self._pace if sends or self._busy else self._idle)

    def step(self, pool: ThreadPoolExecutor) -> bool:
        """Claim as many as can be sent now, and send them in the pool; whether there were any."""
        self._busy = {future for future in self._busy if not future.done()}
        if len(self._busy) >= SENDERS:
            return True
        token = secrets.token_hex(16)
        claimed = self._requester.post(
            "claim_notifications",
            claim_token=token,
            lease_seconds=LEASE_SECONDS,
            max_notifications=SENDERS - len(self._busy),
            **self._defaults,
        )["notifications"]
        for notification in claimed:
            self._busy.add(pool.submit(self._tell, notification, token))
        return bool(claimed)

    def _tell(self, notification: dict[str, Any], token: str) -> None:
        number = notification["notification_id"]
        try:
            body: dict[str, Any]
            if self._slack is None or notification["channel"] is None:
                why = "no slack_token" if self._slack is None else "no channel, and no default one"
                logger.warning(
                    "notification %s (%s; %s): %s", number, notification["kind"], why, notification["message"]
                )
                metrics.NOTIFICATIONS.labels("logged").inc()
                body = {"delivery": "LOG"}
            else:
                outcome = self._slack.send(notification)
                metrics.NOTIFICATIONS.labels(outcome.word).inc()
                body = _report(outcome)
                if outcome.error is not None:
                    logger.warning(
                        "notification %s to %s: %s", number, notification["channel"], outcome.error
                    )
            self._requester.post("log_notification", notification_id=number, claim_token=token, **body)
        except JobmonError as error:
            # It is claimed until the lease is over, then sent again under the same client_msg_id.
            logger.warning("what came of notification %s can't be logged: %s", number, error.message)
        except Exception:
            logger.exception("notification %s can't be sent", number)


def _report(outcome: Outcome) -> dict[str, Any]:
    if outcome.error is None:
        return {"delivery": "SLACK", "message_ts": outcome.message_ts}
    return {
        "error_message": outcome.error,
        "retry_after_seconds": outcome.retry_after,
        "needs_help": int(outcome.needs_help),
    }
