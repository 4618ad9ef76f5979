"""What comes of one message to Slack, for all that Slack and the network can do to it."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest
from slack_helpers import TOKEN, Answer, SlackStandIn, refusal, too_many

from jobmon.config import ConfigError, load_config
from jobmon.monitor.slack import Outcome, Slack, message_id

NOTIFICATION: dict[str, Any] = {
    "notification_id": 7,
    "kind": "RUN_LOST",
    "channel": "#sims",
    "message": "run 3 (<!channel> & co) is lost",
    "created_date": "2024-01-01T00:00:00.123456",
}


def send(slack: SlackStandIn, token: str = TOKEN, **more: Any) -> Outcome:
    """Send the message once."""
    return Slack(token, slack.url, **more).send(NOTIFICATION)


def test_a_message_arrives(slack: SlackStandIn) -> None:
    outcome = send(slack)
    assert outcome == Outcome(message_ts="1700000000.000001") and outcome.word == "sent"
    (request,) = slack.requests
    assert request["path"] == "/api/chat.postMessage" and request["token"] == TOKEN
    assert request["channel"] == "#sims"
    assert request["text"] == "run 3 (&lt;!channel&gt; &amp; co) is lost", (
        "nobody is called by a workflow's name"
    )
    assert not request["mrkdwn"] and not request["unfurl_links"]
    metadata = request["metadata"]
    metadata = json.loads(metadata) if isinstance(metadata, str) else metadata
    assert metadata["event_type"] == "jobmon_notification"
    assert metadata["event_payload"] == {"notification_id": 7, "kind": "RUN_LOST"}


def test_each_attempt_has_the_same_id(slack: SlackStandIn) -> None:
    slack.next["#sims"].append(Answer(drop=True))  # it arrives, and its answer is lost
    assert send(slack).word == "failed"
    assert send(slack).word == "sent"
    first, second = slack.requests
    assert first["client_msg_id"] == second["client_msg_id"] == str(uuid.UUID(first["client_msg_id"]))
    assert len(slack.messages) == 1
    others = [{**NOTIFICATION, "notification_id": 8}, {**NOTIFICATION, "created_date": "2025"}]
    assert len({message_id(one) for one in [NOTIFICATION, *others]}) == 3


@pytest.mark.parametrize(
    ("answer", "word", "text", "retry_after"),
    [
        (too_many(17), "rate_limited", "17 s", 17),
        (too_many(None), "rate_limited", "30 s", 30),
        (refusal("ratelimited"), "rate_limited", "30 s", 30),
        (refusal("channel_not_found"), "refused", "channel_not_found", None),
        (refusal("not_in_channel"), "refused", "not_in_channel", None),
        (refusal("is_archived"), "refused", "is_archived", None),
        (refusal("missing_scope"), "refused", "missing_scope", None),
        (refusal("internal_error"), "failed", "internal_error", None),
        (refusal("service_unavailable", status=503), "failed", "503", None),
        (Answer(status=500, body="<html>oops</html>", arrives=False), "failed", "500", None),
        (Answer(status=502, body="", arrives=False), "failed", "502", None),
        (Answer(status=200, body="<html>log in to the network</html>", arrives=False), "failed", "200", None),
        (Answer(status=404, body="<html>no</html>", arrives=False), "failed", "404", None),
        (Answer(drop=True, arrives=False), "failed", "no answer of Slack", None),
        (refusal("duplicate_message_not_found"), "sent", None, None),
    ],
    ids=lambda value: None,
)
def test_outcomes(
    slack: SlackStandIn, answer: Answer, word: str, text: str | None, retry_after: int | None
) -> None:
    slack.next["#sims"].append(answer)
    outcome = send(slack)
    assert outcome.word == word, outcome
    assert outcome.retry_after == retry_after
    assert (outcome.error is None) if text is None else (text in str(outcome.error))
    assert slack.attempts("#sims") == 1, "it is for the outbox to try again"


def test_a_wrong_token(slack: SlackStandIn) -> None:
    assert send(slack, "xoxb-other") == Outcome(error="invalid_auth", needs_help=True)


def test_a_slack_that_does_not_answer(slack: SlackStandIn) -> None:
    slack.next["#sims"].append(Answer(hang=True, arrives=False))
    outcome = send(slack, timeout=1)
    assert outcome.word == "failed" and "timed out" in str(outcome.error)
    slack.close()
    assert "no answer of Slack" in str(send(slack).error)


def test_where_slack_is_must_be_a_url() -> None:
    assert load_config(
        env={}, overrides={"slack_base_url": "https://slack.example.org/api"}
    ).slack_base_url == ("https://slack.example.org/api/")
    with pytest.raises(ConfigError, match="slack-base-url"):
        load_config(env={}, overrides={"slack_base_url": "slack.com"})
