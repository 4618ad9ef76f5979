"""Where JSM is: ``host``, ``jsm_port`` and ``token``, by the names and the precedence of ``jobmon.config``.

That module takes longer to import than a worker may take to start; so these three are read here once more.
Other keys are not looked at: those who start workers have checked the file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping

TYPE_CHECKING = False  # see jobmon.worker.output
if TYPE_CHECKING:
    from typing import Any


class SettingsError(Exception):
    """The settings are wrong; the message names the file or variable, and the key."""


class Settings:
    """How to reach JSM.

    Parameters:
        host: name or address.
        port: of JSM.
        token: bearer token; None if there is none.
    """

    def __init__(self, host: str, port: int, token: str | None) -> None:
        self.host = host
        self.port = port
        self.token = token

    @property
    def jsm(self) -> str:
        """``host:port``."""
        return f"{self.host}:{self.port}"


def read_settings(env: Mapping[str, str]) -> Settings:
    """Read the settings: from variables, else the rc file, else ``jobmon/release.json``.

    Parameters:
        env: environment to look in.

    Raises:
        SettingsError: a wrong value, or an rc file that is no JSON object, or is named and not there.
    """
    named = env.get("JOBMON_RC") or env.get("JOBMON_CONFIG")
    path = os.path.expanduser(named) if named else os.path.join(_home(env), ".jobmonrc")
    rc = _read_object(path, needed=bool(named))

    def find(key: str, *names: str) -> tuple[Any, str]:
        for name in names:
            variable = f"JOBMON_{name.upper()}"
            if env.get(variable):  # set but empty is as good as not set
                return env[variable], variable
        for name in names:
            if rc.get(name) is not None:
                return rc[name], f"{path}: {name}"
        return None, key

    host, where = find("host", "host", "jsm_host")
    host = _host("127.0.0.1" if host is None else host, where)
    port, where = find("jsm_port", "jsm_port")
    if port is None:
        where = os.path.join(os.path.dirname(os.path.dirname(__file__)), "release.json")
        port = _read_object(where, needed=True).get("jsm_port")
    token, token_from = find("token", "token")
    return Settings(host, _port(port, where), None if token is None else _token(token, token_from))


def _home(env: Mapping[str, str]) -> str:
    return env.get("HOME") or os.path.expanduser("~")


def _read_object(path: str, *, needed: bool) -> dict[str, Any]:
    try:
        with open(path, encoding="utf-8") as file:
            document = json.load(file)
    except FileNotFoundError:
        if needed:
            raise SettingsError(f"{path}: no such file") from None
        return {}
    except OSError as error:
        raise SettingsError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError) as error:
        raise SettingsError(f"{path}: is not valid JSON: {error}") from None
    if not isinstance(document, dict):
        raise SettingsError(f'{path}: must hold one JSON object such as {{"host": "127.0.0.1"}}')
    return document


def _host(value: Any, where: str) -> str:
    text = value.strip() if isinstance(value, str) else ""
    if not text or "/" in text or " " in text or "\0" in text:
        raise SettingsError(f"{where}: expected a host name or an IP address, without scheme and port")
    return text


def _port(value: Any, where: str) -> int:
    try:
        number = int(value.strip(), 10) if isinstance(value, str) else value
        if isinstance(number, float) and number.is_integer():
            number = int(number)
    except ValueError:
        number = None
    if not isinstance(number, int) or isinstance(number, bool) or not 1 <= number <= 65535:
        raise SettingsError(f"{where}: expected a whole number from 1 to 65535, not {value!r}")
    return number


def _token(value: Any, where: str) -> str:
    # It goes into a header; what is wrong with it is not shown.
    if not isinstance(value, str) or not value.isprintable() or not value.isascii() or " " in value:
        raise SettingsError(f"{where}: expected printable ASCII characters without blanks")
    return value
