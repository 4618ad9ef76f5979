"""Sends one message to Slack, and says what came of it: what to do then is for the database to decide."""

from __future__ import annotations

import http.client
import logging
import re
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError

TIMEOUT = 10  # seconds for an answer of Slack
RETRY_AFTER = 30  # seconds, where Slack says "too much" and not for how long

# https://docs.slack.dev/reference/methods/chat.postMessage, its table of errors.
RATE_LIMITED = frozenset({"ratelimited", "rate_limited", "message_limit_exceeded"})
# It knows the client_msg_id: an earlier attempt, whose answer was lost, has arrived.
ARRIVED = frozenset({"duplicate_message_not_found", "duplicate_channel_not_found"})
PASSING = frozenset(
    {"fatal_error", "internal_error", "request_timeout", "service_unavailable", "team_added_to_org"}
)
_ERROR_NAME = re.compile(r"[a-z][a-z0-9_]*")


@dataclass(frozen=True)
class Outcome:
    """What came of an attempt.

    Attributes:
        error: why it failed; None: it was sent.
        message_ts: Slack's id of the message.
        retry_after: seconds that Slack wants to be left alone.
        needs_help: nothing will change before somebody corrects the token, the channel or the like.
    """

    error: str | None = None
    message_ts: str | None = None
    retry_after: int | None = None
    needs_help: bool = False

    @property
    def word(self) -> str:
        """For metrics: sent, rate_limited, refused (needs_help) or failed."""
        if self.error is None:
            return "sent"
        return "rate_limited" if self.retry_after is not None else "refused" if self.needs_help else "failed"


class Slack:
    """Slack's Web API, for use by any number of threads.

    Parameters:
        token: the bot token.
        base_url: of the Web API.
        timeout: seconds to wait for an answer.
    """

    def __init__(self, token: str, base_url: str, timeout: int = TIMEOUT) -> None:
        # No handlers of its own that try again: the outbox does, and nobody waits for it.
        quiet = logging.getLogger("jobmon.monitor.slack_sdk")
        quiet.setLevel(logging.CRITICAL)  # what it has to say is in the outcome
        self._client = WebClient(token, base_url=base_url, timeout=timeout, retry_handlers=[], logger=quiet)

    def send(self, notification: Mapping[str, Any]) -> Outcome:
        """Post a message to its channel.

        Parameters:
            notification: as claim_notifications gives it.

        Returns:
            What came of it; nothing is raised for what Slack or the network does.
        """
        try:
            answer = self._client.chat_postMessage(
                channel=notification["channel"],
                text=escape(notification["message"]),
                mrkdwn=False,
                unfurl_links=False,
                # The same at each attempt: where Slack heeds it, what had arrived is not shown twice.
                client_msg_id=message_id(notification),
                metadata={
                    "event_type": "jobmon_notification",
                    "event_payload": {
                        "notification_id": notification["notification_id"],
                        "kind": notification["kind"],
                    },
                },
            )
        except SlackApiError as error:
            return _failure(error)
        except (SlackClientError, OSError, http.client.HTTPException, ValueError) as error:
            return Outcome(error=f"no answer of Slack: {getattr(error, 'reason', None) or error}"[:500])
        return Outcome(message_ts=str(answer.get("ts") or "") or None)


def _failure(error: SlackApiError) -> Outcome:
    response = error.response
    name = str(response.get("error") or "no reason given")
    status = response.status_code
    if status == 429 or name in RATE_LIMITED:
        headers = {key.lower(): value for key, value in response.headers.items()}
        text = str(headers.get("retry-after") or "")
        seconds = int(text) if text.isascii() and text.isdigit() else RETRY_AFTER
        return Outcome(
            error=f"ratelimited: Slack wants to be left alone for {seconds} s", retry_after=seconds
        )
    if name in ARRIVED:
        return Outcome()
    # A text that is no name of an error is a page of some proxy.
    if status >= 500 or name in PASSING or not _ERROR_NAME.fullmatch(name):
        return Outcome(error=f"{status}: {name}"[:500])
    return Outcome(error=name, needs_help=True)


def message_id(notification: Mapping[str, Any]) -> str:
    """The message's ``client_msg_id``: one for each notification, whoever sends it."""
    name = f"jobmon:{notification['notification_id']}:{notification['created_date']}"
    return str(uuid.uuid5(uuid.NAMESPACE_URL, name))


def escape(text: str) -> str:
    """A text as Slack shows it: a workflow may be named ``<!channel>``."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
