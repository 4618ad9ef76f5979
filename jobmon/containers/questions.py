"""What ./runserver.py --docker wants to know of its operator: the Slack bot token and two channels.

A value comes from the first of these that has it: a variable (``JOBMON_SLACK_TOKEN`` ...), the file named by
``--answers``, the rc file, what was answered before, a question at the terminal. Enter takes the default.
"""

from __future__ import annotations

import getpass
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from slack_sdk import WebClient
from slack_sdk.errors import SlackApiError, SlackClientError

from jobmon import config as configuration
from jobmon.config import ENV_PREFIX, KEYS, Config, ConfigError

TOKEN = "slack_token"
# As the emu servers had them.
CHANNELS = {
    "default_wf_slack_channel": ("Slack channel for lost workflow runs", "jobmon-alerts"),
    "default_node_slack_channel": ("Slack channel for failing nodes", "suspicious_nodes"),
}
SLACK_SECONDS = 10
# Errors of auth.test that are about the token; ratelimited, internal_error ... say: try again.
BAD_TOKEN = frozenset(
    {"invalid_auth", "not_authed", "account_inactive", "token_revoked", "token_expired", "no_permission"}
    | {"org_login_required", "not_allowed_token_type", "access_denied"}
)
NONE = ""  # answered: there is no token

Say = Callable[[str], None]


@dataclass(frozen=True)
class Verdict:
    """What Slack says about a token.

    Attributes:
        ok: it is valid; None: Slack could not be asked.
        text: whose it is, or why not, for people.
    """

    ok: bool | None
    text: str


def check_token(token: str, base_url: str) -> Verdict:
    """Ask Slack whether a bot token is valid, by auth.test (https://api.slack.com/methods/auth.test).

    Args:
        token: such as ``xoxb-...``.
        base_url: of Slack's Web API.
    """
    # Without handlers that try again: somebody waits.
    client = WebClient(token, base_url=base_url, timeout=SLACK_SECONDS, retry_handlers=[])
    try:
        answer: Any = client.auth_test()
    except SlackApiError as error:
        code = error.response.get("error") if error.response is not None else None
        if code in BAD_TOKEN:
            return Verdict(False, str(code))
        return Verdict(None, str(code or error))
    except (OSError, SlackClientError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        return Verdict(None, str(reason))
    return Verdict(True, f"bot {answer.get('user')} of the workspace {answer.get('team')}")


def read_answers(path: Path) -> dict[str, str]:
    """The file named by ``--answers``: a JSON object with keys as in the rc file.

    Args:
        path: the file.

    Raises:
        ConfigError: it can't be read, or has a wrong key or value; the message names both.
    """
    if not path.exists():
        raise ConfigError(
            f"{path}: no such file", f'it holds {{"{TOKEN}": ..., "{next(iter(CHANNELS))}": ...}}'
        )
    found = {key: value for key, (value, _) in configuration.read_file(path).items()}
    for key in found:
        if key not in (TOKEN, *CHANNELS):
            raise ConfigError(
                f"{path}: {key} is not asked for", f"answers are {TOKEN}, {', '.join(CHANNELS)}"
            )
    return found


def given(config: Config, answers: Mapping[str, str], remembered: Mapping[str, Any]) -> dict[str, str]:
    """What need not be asked.

    Args:
        config: the user's configuration.
        answers: the contents of the file named by ``--answers``.
        remembered: what was answered at an earlier start.
    """
    found: dict[str, str] = {}
    for key in (TOKEN, *CHANNELS):
        own = getattr(config, key)
        if own and config.source(key).startswith((ENV_PREFIX, "--")):
            found[key] = own
        elif key in answers:
            found[key] = answers[key]
        elif own:
            found[key] = own
        elif key in remembered:
            found[key] = remembered[key]
    return found


class Refused(Exception):  # noqa: N818
    """Slack refuses a token that was given without a terminal; the message says why."""


def collect(
    known: Mapping[str, str],
    remembered: Mapping[str, Any],
    *,
    ask: bool,
    say: Say,
    check: Callable[[str], Verdict],
) -> dict[str, str]:
    """Have a token (or none) and the channels: what is known, and the rest by questions or defaults.

    Args:
        known: what need not be asked; see :func:`given`.
        remembered: what was answered at an earlier start.
        ask: whether somebody is there to be asked.
        say: takes a line for them.
        check: asks Slack about a token.

    Returns:
        slack_token ("" for none) and the channels.

    Raises:
        Refused: Slack refuses a new token, and nobody can be asked for another.
        click.Abort: Ctrl-C or the end of the input instead of an answer.
    """
    result = dict(known)
    token = result.get(TOKEN)
    if token:
        verdict = check(token)
        _tell(verdict, say)
        if verdict.ok is False:
            if ask:
                token = None
            elif token != remembered.get(TOKEN):
                raise Refused(verdict.text)
            # else: it was right when it was given, and a start must not depend on Slack
    if token is None:
        token = _ask_token(say, check) if ask else NONE
    result[TOKEN] = token
    for key, (what, default) in CHANNELS.items():
        if key not in result:
            result[key] = _ask_channel(what, default) if ask else default
    return result


def _tell(verdict: Verdict, say: Say) -> None:
    if verdict.ok:
        say(f"Slack takes the token: {verdict.text}.")
    elif verdict.ok is None:
        say(f"Slack could not be asked about the token ({verdict.text}): it is taken as it is.")
    else:
        say(f"Slack refuses the token: {verdict.text}.")


def _ask_token(say: Say, check: Callable[[str], Verdict]) -> str:
    while True:
        try:
            token = getpass.getpass("Slack bot token (not shown; Enter for none): ").strip()
        except (EOFError, KeyboardInterrupt):
            raise click.Abort() from None
        if not token:
            return NONE
        try:
            KEYS[TOKEN].metadata["parse"](token)
        except ValueError as error:
            say(f"That is no token: {error}.")
            continue
        verdict = check(token)
        _tell(verdict, say)
        if verdict.ok is not False:
            return token


def _ask_channel(what: str, default: str) -> str:
    return str(click.prompt(what, default=default, err=True)).strip().strip("'\"").lstrip("#") or default
