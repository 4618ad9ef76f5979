"""From the outbox to Slack: at least once, in order, and nothing holds up what it should not."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from slack_helpers import TOKEN, Answer, SlackStandIn, refusal, too_many
from waiting import until

from jobmon.client.requester import Requester
from jobmon.config import Config
from jobmon.monitor.outbox import Outbox
from jobmon.monitor.slack import Slack


@contextmanager
def sending(requester: Requester, config: Config, count: int = 1, timeout: int = 10) -> Iterator[None]:
    """So many outboxes work, and hurry."""
    outboxes = []
    for _ in range(count):
        slack = Slack(config.slack_token, config.slack_base_url, timeout) if config.slack_token else None
        channels = (config.default_wf_slack_channel, config.default_node_slack_channel)
        outboxes.append(Outbox(requester, slack, *channels, pace=0.02, idle=0.05))
    threads = [threading.Thread(target=outbox.run) for outbox in outboxes]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for outbox in outboxes:
            outbox.stop()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()


def pending(db: Any) -> int:
    return int(db.query("SELECT COUNT(*) FROM notification WHERE sent_date IS NULL")[0][0])


def hurry(db: Any) -> None:
    """What waits for its next attempt after an error is due now."""
    db.query("UPDATE notification SET next_attempt_date = NULL WHERE sent_date IS NULL")


def test_channels_are_told_in_order(
    requester: Requester, config: Config, slack: SlackStandIn, db: Any, tell: Callable[..., None]
) -> None:
    for n in range(6):
        tell("a", f"a{n}")
        tell("b", f"b{n}")
    tell(None, "to wf")
    tell(None, "to nodes", kind="NODE_FAILING")
    with sending(requester, config):
        until(lambda: pending(db) == 0)
    assert slack.texts("a") == [f"a{n}" for n in range(6)]
    assert slack.texts("b") == [f"b{n}" for n in range(6)]
    assert (slack.texts("wf"), slack.texts("nodes")) == (["to wf"], ["to nodes"])
    assert len(slack.requests) == 14
    rows = set(db.query("SELECT delivery, num_attempts, error_message FROM notification"))
    assert rows == {("SLACK", 1, None)}
    assert all(ts for (ts,) in db.query("SELECT message_ts FROM notification"))


def test_what_fails_is_tried_again_and_stays_in_order(
    requester: Requester, config: Config, slack: SlackStandIn, db: Any, tell: Callable[..., None]
) -> None:
    slack.next["a"].extend(
        [too_many(0), Answer(status=500, body="oops", arrives=False), too_many(0), Answer()]
    )
    slack.next["a"].append(Answer(drop=True))  # arrives; its answer is lost
    tell("a", "1", "2", "3")
    with sending(requester, config):

        def done() -> bool:
            hurry(db)
            return pending(db) == 0

        until(done)
    assert slack.texts("a") == ["1", "2", "3"], "once each: Slack heeds the id"
    assert slack.attempts("a") == 7
    assert db.query("SELECT num_attempts FROM notification ORDER BY notification_id") == [(4,), (2,), (1,)]


def test_retry_after_is_respected_for_the_channel(
    requester: Requester, config: Config, slack: SlackStandIn, db: Any, tell: Callable[..., None]
) -> None:
    slack.next["a"].append(too_many(3600))
    tell("a", "first")
    tell("b", *[f"b{n}" for n in range(5)])
    with sending(requester, config):
        until(lambda: pending(db) == 1)
        tell("b", "more")
        until(lambda: len(slack.texts("b")) == 6)
        tell("a", "second")
        tell("b", "last")
        until(lambda: len(slack.texts("b")) == 7)
        assert slack.attempts("a") == 1

        def of_a() -> dict[str, Any]:
            (row,) = [one for one in requester.get_rows("pending_notifications") if one["channel"] == "a"]
            return row

        until(lambda: of_a()["error_message"])  # what came of it is logged
        assert of_a()["num_pending"] == 2 and "left alone for 3600 s" in of_a()["error_message"]
        hurry(db)
        until(lambda: slack.texts("a") == ["first", "second"])


def test_a_channel_that_hangs_holds_up_no_other(
    requester: Requester, config: Config, slack: SlackStandIn, db: Any, tell: Callable[..., None]
) -> None:
    slack.next["slow"].append(Answer(hang=True, arrives=False))
    tell("slow", "late")
    with sending(requester, config, timeout=60):
        until(lambda: slack.attempts("slow") == 1)
        tell("b", "1", "2", "3")
        until(lambda: slack.texts("b") == ["1", "2", "3"])
        assert slack.texts("slow") == [] and slack.attempts("slow") == 1
        slack.next["slow"].append(Answer())
        slack.go_on.set()
        # that one was answered well in the end, as far as this client knows
        until(lambda: pending(db) == 0)


@pytest.mark.parametrize("trouble", ["invalid_auth", "outage"])
def test_trouble_delays_and_loses_nothing(
    requester: Requester,
    config: Config,
    slack: SlackStandIn,
    db: Any,
    tell: Callable[..., None],
    trouble: str,
) -> None:
    tell("a", "1", "2")
    tell("b", "1")
    if trouble == "outage":
        slack.down = Answer(status=503, body="down", arrives=False)
    wrong = replace(config, slack_token="xoxb-old") if trouble == "invalid_auth" else config
    with sending(requester, wrong):
        until(lambda: len(requester.get_rows("pending_notifications")) == 2 and all(
            row["error_message"] for row in requester.get_rows("pending_notifications")
        ))  # fmt: skip
    assert pending(db) == 3 and slack.messages == []
    (state,) = requester.get_rows("monitor_state")
    assert (state["num_pending_notifications"], state["num_refused_notifications"]) == (3, 2)
    slack.down = None
    requester.post("retry_notifications")  # as a monitor does that starts with another token
    with sending(requester, config):
        until(lambda: pending(db) == 0)
    assert (slack.texts("a"), slack.texts("b")) == (["1", "2"], ["1"])


def test_a_wrong_channel_is_shown_and_holds_up_no_other(
    requester: Requester, config: Config, slack: SlackStandIn, db: Any, tell: Callable[..., None]
) -> None:
    slack.next["typo"].extend([refusal("channel_not_found")] * 5)
    tell("typo", "1")
    tell("b", "1", "2")
    with sending(requester, config):
        until(lambda: pending(db) == 1)
    ((error, wait),) = db.query(
        "SELECT error_message, TIMESTAMPDIFF(SECOND, UTC_TIMESTAMP(6), next_attempt_date) FROM notification"
        " WHERE sent_date IS NULL"
    )
    assert error == "channel_not_found" and wait > 600
    assert slack.attempts("typo") == 1


def test_without_a_token_messages_are_logged(
    requester: Requester,
    config: Config,
    slack: SlackStandIn,
    db: Any,
    tell: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    tell("a", "to nobody", "in particular")
    with caplog.at_level(logging.WARNING), sending(requester, replace(config, slack_token=None)):
        until(lambda: pending(db) == 0)
    assert "to nobody" in caplog.text and "in particular" in caplog.text and "no slack_token" in caplog.text
    assert slack.requests == []
    assert set(db.query("SELECT delivery FROM notification")) == {("LOG",)}
    tell(None, "where to?")
    nowhere = replace(config, default_wf_slack_channel=None, default_node_slack_channel=None)
    with caplog.at_level(logging.WARNING), sending(requester, nowhere):
        until(lambda: pending(db) == 0)
    assert "no channel, and no default one" in caplog.text


def test_several_monitors_send_each_message_once(
    requester: Requester, config: Config, slack: SlackStandIn, db: Any, tell: Callable[..., None]
) -> None:
    for n in range(8):
        for channel in "abc":
            tell(channel, f"{n}")
    with sending(requester, config, count=3):
        until(lambda: pending(db) == 0)
    assert len(slack.requests) == 24
    for channel in "abc":
        assert slack.texts(channel) == [f"{n}" for n in range(8)]


def test_the_token_is_in_no_log(
    requester: Requester,
    config: Config,
    slack: SlackStandIn,
    db: Any,
    tell: Callable[..., None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    slack.next["a"].extend(
        [refusal("invalid_auth"), too_many(0), Answer(status=500, body="x", arrives=False)]
    )
    tell("a", "1")
    with caplog.at_level(logging.DEBUG), sending(requester, config):

        def done() -> bool:
            hurry(db)
            return pending(db) == 0

        until(done)
    assert TOKEN not in caplog.text
