"""Fixtures of the health monitor: JSM and JQS as processes, and a stand-in for Slack."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.extend(str(Path(__file__).resolve().parents[1] / name) for name in ("client", "http", "sql"))

import service_fixtures
from slack_helpers import TOKEN, SlackStandIn
from sql_helpers import Facts, Sql

from jobmon.client.requester import Requester
from jobmon.config import Config

services, requester = service_fixtures.services, service_fixtures.requester


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlackStandIn]:
    """The stand-in, and no proxy before it."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    made = SlackStandIn()
    yield made
    with contextlib.suppress(OSError):
        made.close()


@pytest.fixture
def config(requester: Requester, slack: SlackStandIn) -> Config:
    """A monitor's, which speaks to the stand-in. It looks seldom: a pause is one on a busy machine, too."""
    return replace(
        requester.config,
        slack_token=TOKEN,
        slack_base_url=slack.url,
        default_wf_slack_channel="wf",
        default_node_slack_channel="nodes",
        monitor_poll_interval=50,
        loss_threshold=300,
    )


@pytest.fixture
def jsm(db: Any) -> Sql:
    """A connection as the JSM account, which can act in the past: see seconds_ago."""
    return Sql(db.connect("jsm"), Facts.read(db))


@pytest.fixture
def tell(db: Any) -> Callable[..., None]:
    """Puts messages into the outbox: ``tell("a", "one", "two")``."""

    def put(channel: str | None, *messages: str, kind: str = "RUN_ERROR") -> None:
        for message in messages:
            db.query(
                "INSERT INTO notification (kind, channel, message) VALUES (%s, %s, %s)",
                (kind, channel, message),
            )

    return put
