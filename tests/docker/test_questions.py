"""What the operator is asked, where answers come from, and what Slack says about the token."""

from __future__ import annotations

import codecs
import json
import os
import pty
import sys
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen

import pytest
from ports import free_port
from slack_auth_helpers import GOOD, FakeSlack, fake_slack

from jobmon.config import ConfigError, load_config
from jobmon.containers import questions
from jobmon.containers.questions import CHANNELS, Refused, Verdict, check_token, collect, given, read_answers

ROOT = Path(__file__).resolve().parents[2]
DEFAULTS = {key: default for key, (_, default) in CHANNELS.items()}
# What bring_up does with a terminal, without an engine.
PROGRAM = """
import json, sys
from jobmon.config import load_config
from jobmon.containers.deployment import Containers
stack = Containers(load_config())
stack.answer(ask=sys.stdin.isatty(), again=False, answers=None, log=lambda line: print(line, file=sys.stderr))
print("ANSWERS", json.dumps(stack.record["answers"], sort_keys=True))
"""


@pytest.fixture
def slack() -> Iterator[FakeSlack]:
    with fake_slack() as made:
        yield made


def at_terminal(home: Path, slack: FakeSlack, *lines: str) -> tuple[int, str]:
    """Run the questions at a real terminal and answer them; exit code and all that the terminal showed."""
    master, slave = pty.openpty()
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "JOBMON_SLACK_BASE_URL": slack.url, "TERM": "dumb"}
    process = Popen(
        [sys.executable, "-c", PROGRAM], env=environ, cwd=home, start_new_session=True,
        stdin=slave, stdout=slave, stderr=slave,
    )  # fmt: skip
    os.close(slave)
    shown, waiting = "", list(lines)
    decoder = codecs.getincrementaldecoder("utf-8")()
    while True:
        try:
            data = os.read(master, 4096)
        except OSError:  # the terminal's other side was closed
            break
        if not data:
            break
        shown += decoder.decode(data)
        # A question ends without a new line; echo is off by then.
        if waiting and shown.endswith((": ", "]: ")):
            os.write(master, waiting.pop(0).encode() + b"\n")
    os.close(master)
    return process.wait(60), shown.replace("\r", "")


def answers_in(shown: str) -> dict[str, str]:
    (line,) = [line for line in shown.splitlines() if line.startswith("ANSWERS ")]
    answers: dict[str, str] = json.loads(line.removeprefix("ANSWERS "))
    return answers


def test_enter_takes_the_defaults(home: Path, slack: FakeSlack) -> None:
    code, shown = at_terminal(home, slack, "", "", "")
    assert code == 0, shown
    assert answers_in(shown) == {"slack_token": "", **DEFAULTS}
    assert all(f"[{default}]" in shown for default in DEFAULTS.values())
    assert slack.asked == []


def test_the_token_is_not_shown_and_is_checked(home: Path, slack: FakeSlack) -> None:
    code, shown = at_terminal(home, slack, GOOD, "#alerts", "'nodes'")
    assert code == 0, shown
    before, _, _ = shown.partition("ANSWERS ")
    assert GOOD not in before
    assert "bot jobmon of the workspace Lab" in shown
    assert slack.asked == [("/api/auth.test", f"Bearer {GOOD}")]
    assert answers_in(shown) == {
        "slack_token": GOOD,
        "default_wf_slack_channel": "alerts",
        "default_node_slack_channel": "nodes",
    }


def test_a_wrong_token_is_told_and_asked_for_again(home: Path, slack: FakeSlack) -> None:
    code, shown = at_terminal(home, slack, "xoxb-bad", "not a token", GOOD, "", "")
    assert code == 0, shown
    assert "Slack refuses the token: invalid_auth." in shown
    assert "That is no token" in shown
    assert shown.count("Slack bot token") == 3
    assert answers_in(shown)["slack_token"] == GOOD


def test_what_is_known_is_not_asked(home: Path, slack: FakeSlack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JOBMON_SLACK_TOKEN", GOOD)
    (home / ".jobmonrc").write_text('{"default_wf_slack_channel": "mine"}')
    (home / ".jobmonrc").chmod(0o600)
    code, shown = at_terminal(home, slack, "")
    assert code == 0, shown
    assert "Slack bot token" not in shown
    assert answers_in(shown) == {"slack_token": GOOD, **DEFAULTS, "default_wf_slack_channel": "mine"}


@pytest.mark.parametrize(
    ("answer", "ok"),
    [
        ((200, {"ok": False, "error": "token_revoked"}), False),
        ((200, {"ok": False, "error": "fatal_error"}), None),
        ((429, {"ok": False, "error": "ratelimited"}), None),
        ((503, "<html>proxy</html>"), None),
        ((200, {"ok": True, "team": "T", "user": "u"}), True),
    ],
)
def test_only_what_slack_says_of_the_token_counts(
    slack: FakeSlack, answer: tuple[int, dict[str, object] | str], ok: bool | None
) -> None:
    slack.answer = answer
    assert check_token("xoxb-1", slack.url).ok is ok


def test_no_network_is_a_note_and_no_failure() -> None:
    url = f"http://127.0.0.1:{free_port()}/api/"
    assert check_token("xoxb-1", url).ok is None
    said: list[str] = []
    answers = collect(
        {"slack_token": "xoxb-1"}, {}, ask=False, say=said.append, check=lambda t: check_token(t, url)
    )
    assert answers == {"slack_token": "xoxb-1", **DEFAULTS}
    assert "could not be asked" in said[0]


def test_without_a_terminal_defaults_are_taken() -> None:
    answers = collect({}, {}, ask=False, say=print, check=lambda token: pytest.fail("there is no token"))
    assert answers == {"slack_token": "", **DEFAULTS}


def test_without_a_terminal_a_wrong_token_is_an_error_only_if_it_is_new() -> None:
    def refuse(token: str) -> Verdict:
        return Verdict(False, "invalid_auth")

    known = {"slack_token": "xoxb-old"}
    with pytest.raises(Refused, match="invalid_auth"):
        collect(known, {}, ask=False, say=print, check=refuse)
    said: list[str] = []
    assert collect(known, known, ask=False, say=said.append, check=refuse)["slack_token"] == "xoxb-old"
    assert said == ["Slack refuses the token: invalid_auth."]


def test_where_answers_come_from(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rc, file = home / ".jobmonrc", home / "answers.json"
    rc.write_text(json.dumps(dict.fromkeys(("slack_token", *CHANNELS), "rc")))
    rc.chmod(0o600)
    file.write_text('{"default_notification_channel": "file", "slack_token": "file"}')
    monkeypatch.setenv("JOBMON_SLACK_TOKEN", "variable")
    remembered = dict.fromkeys(("slack_token", *CHANNELS), "remembered")
    assert given(load_config(), read_answers(file), remembered) == {
        "slack_token": "variable",
        "default_wf_slack_channel": "file",
        "default_node_slack_channel": "rc",
    }
    rc.write_text("{}")
    assert given(load_config(), {}, remembered)["default_wf_slack_channel"] == "remembered"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"slack_tokn": "x"}', "slack_tokn"),
        ('{"jsm_port": 7000}', "jsm_port is not asked for"),
        ('{"slack_token": 7}', "slack_token: expected a string"),
        ("[]", "must hold one JSON object"),
        (None, "no such file"),
    ],
)
def test_a_wrong_file_of_answers_is_named(home: Path, text: str | None, told: str) -> None:
    file = home / "answers.json"
    if text is not None:
        file.write_text(text)
    with pytest.raises(ConfigError, match=told) as caught:
        read_answers(file)
    assert str(file) in caught.value.message


def test_the_end_of_the_input_is_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    import click

    def nobody(prompt: str) -> str:
        raise EOFError

    monkeypatch.setattr(questions.getpass, "getpass", nobody)
    with pytest.raises(click.Abort):
        collect({}, {}, ask=True, say=print, check=lambda token: Verdict(True, ""))
