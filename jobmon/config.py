"""Configuration: ``~/.jobmonrc``, ``JOBMON_*`` variables and flags, read once into a frozen :class:`Config`.

Precedence, highest first: flags (the ``overrides`` of :func:`load_config`), ``JOBMON_<KEY>`` environment
variables, the rc file (JSON object, by default ``~/.jobmonrc``), and the defaults, whose ports come from
``jobmon/release.json``.

Standard library only: ``runserver.py`` uses this module before its virtual environment exists.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import fcntl
import ipaddress
import json
import logging
import os
import stat
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

from jobmon.hosts import read_host, split_hosts

if TYPE_CHECKING:
    from jobmon.db.connect import ConnectionSpec

logger = logging.getLogger(__name__)

ENV_PREFIX = "JOBMON_"
DEFAULT_RC = "~/.jobmonrc"
# Roles that have an account of their own; "admin" is whoever may create databases and accounts.
ROLES = ("jsm", "jqs", "migrator", "reader", "admin")


class ConfigError(Exception):
    """A wrong key or value in the configuration.

    Parameters:
        message: what is wrong; names the file or variable and the key.
        hint: what to do about it, or "".
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


# ----------------------------------------------------------------------------------------------------------
# Places


def _xdg(env: Mapping[str, str], own: str, variable: str, fallback: str) -> Path:
    if env.get(own):
        return Path(env[own]).expanduser().absolute()
    base = env.get(variable, "")
    # The XDG specification: a relative path is invalid and must be ignored.
    root = Path(base) if os.path.isabs(base) else Path(env.get("HOME") or "~").expanduser() / fallback
    return root / "jobmon"


def state_dir(env: Mapping[str, str] | None = None) -> Path:
    """The directory of what must survive a restart: databases, accounts, logs (it need not exist yet).

    ``$JOBMON_STATE_DIR``, else ``$XDG_STATE_HOME/jobmon``, else ``~/.local/state/jobmon``.

    Parameters:
        env: environment to look in; the process's own if None.
    """
    return _xdg(os.environ if env is None else env, "JOBMON_STATE_DIR", "XDG_STATE_HOME", ".local/state")


def cache_dir(env: Mapping[str, str] | None = None) -> Path:
    """The directory of what can be fetched again, as an unpacked database server (it need not exist yet).

    ``$JOBMON_CACHE_DIR``, else ``$XDG_CACHE_HOME/jobmon``, else ``~/.cache/jobmon``.

    Parameters:
        env: environment to look in; the process's own if None.
    """
    return _xdg(os.environ if env is None else env, "JOBMON_CACHE_DIR", "XDG_CACHE_HOME", ".cache")


def rc_path(path: str | os.PathLike[str] | None = None, env: Mapping[str, str] | None = None) -> Path:
    """The rc file: ``path``, ``$JOBMON_RC``, ``$JOBMON_CONFIG`` (emu's name) or ``~/.jobmonrc``."""
    env = os.environ if env is None else env
    chosen = path or env.get("JOBMON_RC") or env.get("JOBMON_CONFIG")
    if chosen:
        return Path(chosen).expanduser().absolute()
    return Path(env.get("HOME") or "~").expanduser() / DEFAULT_RC[2:]


def release_info() -> dict[str, Any]:
    """The contents of ``jobmon/release.json``: ``release`` (name) and the default ports.

    Raises:
        ConfigError: the file is missing or no JSON object.
    """
    return _read_json(Path(__file__).with_name("release.json"))


# ----------------------------------------------------------------------------------------------------------
# Parsers of single values: each takes a JSON value or a string and raises ValueError with what is expected


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError("expected a string")
    if "\0" in value:
        raise ValueError("must not contain a NUL character")
    return value


def _secret(value: Any) -> str:
    text = _text(value)
    if not text.isprintable() or not text.isascii() or " " in text:
        raise ValueError("expected printable ASCII characters without blanks")
    return text


def _integer(low: int, high: int) -> Callable[[Any], int]:
    def parse(value: Any) -> int:
        number: Any = value
        if isinstance(value, str):
            try:
                number = int(value.strip(), 10)
            except ValueError:
                number = None
        elif isinstance(value, float) and value.is_integer():
            number = int(value)
        if isinstance(number, bool) or not isinstance(number, int):
            raise ValueError(f"expected a whole number from {low} to {high}")
        if not low <= number <= high:
            raise ValueError(f"expected a number from {low} to {high}")
        return number

    return parse


def _seconds(low: float, high: float) -> Callable[[Any], float]:
    def parse(value: Any) -> float:
        try:
            number = float("nan") if isinstance(value, bool) else float(value)
        except (TypeError, ValueError):
            number = float("nan")
        if not low <= number <= high:
            raise ValueError(f"expected a number of seconds from {low:g} to {high:g}")
        return number

    return parse


_BOOLEANS = {
    **dict.fromkeys(("1", "true", "yes", "on"), True),
    **dict.fromkeys(("0", "false", "no", "off"), False),
}


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    parsed = _BOOLEANS.get(str(value).strip().lower())
    if parsed is None:
        raise ValueError("expected true or false")
    return parsed


def _path(value: Any) -> Path:
    return Path(value if isinstance(value, os.PathLike) else _text(value)).expanduser().absolute()


_SCHEMES = ("mysql", "mysql+pymysql", "mariadb", "mariadb+pymysql")


def _conn_str(value: Any) -> str:
    text = _text(value)
    try:
        parts = urlsplit(split_hosts(text)[0])
        valid = parts.scheme in _SCHEMES and (parts.port is None or parts.port > 0)
    except ValueError:
        valid = False
    if not valid:
        raise ValueError("expected mysql://user:password@host:port/database")
    return text


def _host(value: Any) -> str:
    text = _text(value).strip()
    if not text or "/" in text or " " in text:
        raise ValueError("expected a host name or an IP address, without scheme and port")
    return text


def _url(value: Any) -> str:
    text = _text(value).strip()
    if not text.startswith(("https://", "http://")) or not urlsplit(text).hostname:
        raise ValueError("expected a URL such as https://slack.com/api/")
    return text.rstrip("/") + "/"


def _share(value: Any) -> float:
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        number = float("nan")
    if not 0.01 <= number <= 1:
        raise ValueError("expected a number from 0.01 to 1")
    return number


_LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _log_level(value: Any) -> str:
    text = _text(value).strip().upper()
    if text not in _LOG_LEVELS:
        raise ValueError(f"expected one of {', '.join(_LOG_LEVELS)}")
    return text


_port = _integer(1, 65535)


def _key(parse: Callable[[Any], Any], doc: str, default: Any = None, *, secret: bool = False) -> Any:
    return field(default=default, metadata={"parse": parse, "doc": doc, "secret": secret})


@dataclass(frozen=True, repr=False)
class Config:
    """All settings of Jobmon; made by :func:`load_config`. Its ``repr`` shows no password and no token."""

    # where the services are
    host: str = _key(_host, "host of JSM and JQS, as clients reach it", "127.0.0.1")
    jsm_port: int = _key(_port, "port of the JobStateManager")
    jqs_port: int = _key(_port, "port of the JobQueryServer")
    jsm_management_port: int = _key(_port, "port of JSM's /healthz, /readyz and /metrics")
    query_host: str | None = _key(_host, "host of JQS, if it is another one than JSM's")
    token: str | None = _key(_secret, "bearer token that guards writing", secret=True)
    read_token: str | None = _key(_secret, "bearer token that guards reading, if any", secret=True)

    # the database
    db_port: int = _key(_port, "port of the embedded database server")
    conn_str: str | None = _key(_conn_str, "database, mysql://user:password@host:port/database", secret=True)
    jsm_conn_str: str | None = _key(_conn_str, "database as the JSM account", secret=True)
    jqs_conn_str: str | None = _key(_conn_str, "database as the JQS account", secret=True)
    migrator_conn_str: str | None = _key(_conn_str, "database as the migrator account", secret=True)
    reader_conn_str: str | None = _key(_conn_str, "database as the reader account", secret=True)
    admin_conn_str: str | None = _key(
        _conn_str, "database as one who may create databases and accounts", secret=True
    )
    accounts_file: Path = _key(_path, "JSON file with the accounts' passwords (mode 0600)")  # noqa: RUF009
    state_dir: Path = _key(_path, "directory of databases, accounts and logs")  # noqa: RUF009

    # how the services run
    bind: str = _key(_host, "address the services listen on", "127.0.0.1")
    published_on_loopback: bool = _key(
        _boolean, "in a container whose ports only its own machine reaches: needs no token", False
    )
    workers: int = _key(_integer(1, 256), "worker processes per service", 2)
    threads: int = _key(_integer(1, 1024), "threads per worker process", 128)
    pool_size: int = _key(_integer(1, 1024), "database connections per worker process", 8)
    pool_timeout: float = _key(
        _seconds(0, 600), "seconds to wait for a free database connection before answering 503", 2.0
    )
    db_connect_timeout: float = _key(_seconds(0.1, 600), "seconds to wait for a database connection", 5.0)
    db_read_timeout: float = _key(_seconds(0.1, 86400), "seconds to wait for an answer of the database", 60.0)
    position_timeout: float = _key(
        _seconds(0, 600),
        "seconds JQS waits for its replica to reach a min_position before answering 503",
        2.0,
    )
    max_body_bytes: int = _key(_integer(1024, 1 << 30), "largest request body, bytes", 16 * 1024 * 1024)
    log_level: str = _key(_log_level, "DEBUG, INFO, WARNING, ERROR or CRITICAL", "INFO")

    # batch executors
    batch_dir: Path = _key(  # noqa: RUF009
        _path, "directory of workers' settings and logs; on a file system that the nodes see"
    )
    worker_host: str | None = _key(
        _host, "host of JSM as nodes reach it; default: host, or this machine's name"
    )
    worker_command: str | None = _key(
        _text, "command that runs jobmon-worker on a node; default: this Python"
    )

    # messages to people
    slack_token: str | None = _key(_secret, "bot token of the Slack app", secret=True)
    default_wf_slack_channel: str | None = _key(_text, "Slack channel for lost workflow runs")
    default_node_slack_channel: str | None = _key(_text, "Slack channel for failing nodes")
    slack_base_url: str = _key(_url, "base URL of Slack's Web API", "https://slack.com/api/")

    # the health monitor
    loss_threshold: int = _key(
        _integer(6, 86400), "seconds of silence after which a workflow run is lost", 300
    )
    monitor_poll_interval: int = _key(
        _integer(1, 3600), "seconds between two looks of the health monitor", 10
    )
    monitor_port: int | None = _key(_port, "port of the health monitor's /healthz, /readyz and /metrics")
    node_window: int = _key(_integer(60, 604800), "seconds back that job instances count for a node", 3600)
    node_min_job_instances: int = _key(_integer(1, 1_000_000), "job instances that a node is judged by", 10)
    node_failure_rate: float = _key(_share, "share of failures from which on a node is failing", 0.5)

    # from emu; kept so that existing files load
    verbose: bool = _key(_boolean, "log more (as log_level DEBUG)", False)
    jobmon_command: str | None = _key(_text, "command that runs jobmon on a node")

    # not keys: what release.json says, and where each value came from
    release: str = ""
    sources: Mapping[str, str] = field(default_factory=dict)

    def as_dict(self, *, redact: bool = True) -> dict[str, Any]:
        """The settings by key.

        Parameters:
            redact: replace tokens and passwords by ``***``; turn off only to pass them on.
        """
        values: dict[str, Any] = {}
        for key, spec in KEYS.items():
            value = getattr(self, key)
            if redact and spec.metadata["secret"] and value is not None:
                value = _hide_password(value) if spec.metadata["parse"] is _conn_str else "***"
            values[key] = str(value) if isinstance(value, Path) else value
        return values

    def __repr__(self) -> str:
        shown = ", ".join(f"{k}={v!r}" for k, v in self.as_dict().items() if v is not None)
        return f"Config(release={self.release!r}, {shown})"

    def source(self, key: str) -> str:
        """Where the value of ``key`` came from: a file, a variable, ``flag`` or ``default``."""
        return self.sources.get(key, "default")

    @property
    def listen_address(self) -> str:
        """``bind`` as a socket takes it: a plain IP address."""
        return "127.0.0.1" if self.bind == "localhost" else self.bind.strip("[]")

    @property
    def listens_on_loopback(self) -> bool:
        """Whether ``bind`` is reachable from this machine only."""
        try:
            return ipaddress.ip_address(self.listen_address).is_loopback
        except ValueError:
            return False

    def require_safe_bind(self) -> None:
        """Refuse to serve other machines without a token.

        Raises:
            ConfigError: ``bind`` is no loopback address and there is no ``token``.
        """
        if not (self.token or self.listens_on_loopback or self.published_on_loopback):
            raise ConfigError(
                f"{self.source('bind')}: bind is {self.bind}, reachable from elsewhere, without a token",
                "set token (or JOBMON_TOKEN), or bind to 127.0.0.1",
            )

    def accounts(self) -> dict[str, Any]:
        """The contents of ``accounts_file``; ``{}`` if there is none.

        Raises:
            ConfigError: the file is unreadable, no JSON, or not of the form that ``jobmon db grants`` writes.
        """
        return read_accounts(self.accounts_file)

    def conn_spec(self, role: str) -> ConnectionSpec:
        """How to reach the database in a role.

        ``<role>_conn_str`` if given, else the role's account in ``accounts_file``, else ``conn_str``. For
        ``admin``: ``admin_conn_str``, else ``conn_str``, else root of the embedded server.

        Parameters:
            role: ``jsm``, ``jqs``, ``migrator``, ``reader`` or ``admin``.

        Raises:
            ConfigError: nothing says how to reach the database in this role, or what says it is malformed.
        """
        from jobmon.db.connect import ConnectionSpec

        if role not in ROLES:
            raise ConfigError(f"no such database role: {role!r}", f"roles are {', '.join(ROLES)}")
        own = f"{role}_conn_str"
        account: ConnectionSpec | None = None
        if getattr(self, own) is None and role != "admin":
            account = self._account_spec(role)
        if account is not None:
            return account
        key = own if getattr(self, own) is not None else "conn_str"
        text: str | None = getattr(self, key)
        if text is not None:
            try:
                return ConnectionSpec.parse(text)
            except ValueError as error:
                raise ConfigError(f"{self.source(key)}: {key}: {error}") from None
        if role == "admin":
            spec = self._embedded_root_spec()
            if spec is not None:
                return spec
            raise ConfigError(
                "no database is configured for the role admin",
                f"set conn_str in {rc_path()} (or JOBMON_CONN_STR), or run ./runserver.py",
            )
        raise ConfigError(
            f"no database is configured for the role {role}",
            f"{self.accounts_file} has no such account: run `jobmon db grants`, "
            f"or set {own} or conn_str in {rc_path()}",
        )

    def _account_spec(self, role: str) -> ConnectionSpec | None:
        from jobmon.db.connect import ConnectionSpec

        document = self.accounts()
        account = document.get("accounts", {}).get(role)
        if account is None:
            return None
        return ConnectionSpec(
            user=account["user"],
            password=account["password"],
            host=document.get("host") or "127.0.0.1",
            port=document.get("port") or self.db_port,
            database=document.get("database"),
            unix_socket=document.get("unix_socket"),
            others=tuple(read_host(text) for text in document.get("other_hosts") or ()),
        )

    def _embedded_root_spec(self) -> ConnectionSpec | None:
        from jobmon.db.embedded import EmbeddedServerError, default_data_dir, read_root_spec

        # ./runserver.py keeps each release in a directory of its own
        for directory in (self.state_dir, self.state_dir / self.release):
            with contextlib.suppress(EmbeddedServerError):
                return read_root_spec(default_data_dir(directory))
        return None


KEYS: Mapping[str, dataclasses.Field[Any]] = MappingProxyType(
    {f.name: f for f in dataclasses.fields(Config) if "parse" in f.metadata}
)

# Other names under which a key is known, from emu and from before it.
ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "jsm_host": "host",
        "default_notification_channel": "default_wf_slack_channel",
        "node_notification_channel": "default_node_slack_channel",
        "default_slack_channel": "default_wf_slack_channel",
    }
)

# Keys of existing files that mean nothing any more (zmq ports, a second host): accepted, ignored.
IGNORED = frozenset({"jqs_host", "jsm_rep_port", "jsm_pub_port", "jobmon_version"})


def _hide_password(conn_str: str) -> str:
    parts = urlsplit(conn_str)
    user, at, host = parts.netloc.rpartition("@")
    name, colon, _ = user.partition(":")
    return urlunsplit(parts._replace(netloc=f"{name}{colon}{'***' if colon else ''}{at}{host}"))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError(f"{path}: is not UTF-8 text") from None
    try:
        document = json.loads(text)
    except RecursionError:
        raise ConfigError(f"{path}: is nested too deeply") from None
    except ValueError as error:
        where = (
            f"line {error.lineno}, column {error.colno}: {error.msg}"
            if isinstance(error, json.JSONDecodeError)
            else str(error)
        )
        raise ConfigError(
            f"{path}: is not valid JSON: {where}", 'it must be one JSON object such as {"host": "127.0.0.1"}'
        ) from None
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: must hold one JSON object", 'such as {"host": "127.0.0.1"}')
    return document


def _did_you_mean(word: str) -> str:
    close = difflib.get_close_matches(word.lower(), [*KEYS, *ALIASES], n=1, cutoff=0.6)
    return f"did you mean {close[0]}?" if close else f"keys are {', '.join(KEYS)}"


def _parse(key: str, value: Any, where: str) -> Any:
    parse: Callable[[Any], Any] = KEYS[key].metadata["parse"]
    try:
        return parse(value)
    except ValueError as error:
        shown = "" if KEYS[key].metadata["secret"] else f", not {_shorten(value)}"
        # Kubernetes sets such variables for a service named jobmon-jsm.
        hint = "set enableServiceLinks: false in the pod" if str(value).startswith("tcp://") else ""
        raise ConfigError(f"{where}: {error}{shown}", hint) from None


def _shorten(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def others_can_read(path: Path) -> bool:
    """Whether a file with secrets is open to other users.

    Parameters:
        path: the file, which must be there.
    """
    info = path.stat()
    mode = stat.S_IMODE(info.st_mode)
    # Kubernetes mounts a pod's secrets as root's, readable for the group of the pod, which is its user's own.
    mounted = mode == 0o440 and info.st_uid != os.geteuid()
    return bool(mode & 0o077) and not mounted


def _warn_if_readable(path: Path, what: str) -> None:
    with contextlib.suppress(OSError):
        if others_can_read(path):
            mode = stat.S_IMODE(path.stat().st_mode)
            logger.warning("%s holds %s and others can read it (mode %04o): chmod 600 it", path, what, mode)


def _from_file(path: Path) -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    document = _read_json(path)
    for name, value in document.items():
        if name in IGNORED or value is None:
            continue
        key = ALIASES.get(name, name)
        if key not in KEYS:
            raise ConfigError(f"{path}: unknown key {name!r}", _did_you_mean(name))
        if key != name and document.get(key) is not None:
            continue  # the proper name wins over its alias
        found[key] = (_parse(key, value, f"{path}: {name}"), str(path))
    if any(KEYS[key].metadata["secret"] and "conn_str" not in key for key in found):
        _warn_if_readable(path, "a token")
    return found


def read_file(path: Path) -> dict[str, tuple[Any, str]]:
    """Settings in a file like the rc file: key -> (value, where it stands); aliases have their proper names.

    Parameters:
        path: the file, which must be there.

    Raises:
        ConfigError: it is unreadable, no JSON object, or has a wrong key or value.
    """
    return _from_file(path)


def _from_env(env: Mapping[str, str]) -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    for variable in sorted(env):
        if not variable.startswith(ENV_PREFIX) or variable in ("JOBMON_RC", "JOBMON_CONFIG"):
            continue
        name = variable[len(ENV_PREFIX) :].lower()
        key = ALIASES.get(name, name)
        if key in KEYS:
            if key != name and env.get(ENV_PREFIX + key.upper()):
                continue
            if env[variable]:  # set but empty (as compose files do) is as good as not set
                found[key] = (_parse(key, env[variable], variable), variable)
            continue
        # Other JOBMON_ variables are none of ours, unless they look like a slip of the pen.
        close = difflib.get_close_matches(name, KEYS, n=1, cutoff=0.86)
        if close and name not in IGNORED:
            raise ConfigError(f"unknown variable {variable}", f"did you mean JOBMON_{close[0].upper()}?")
    return found


def _from_overrides(overrides: Mapping[str, Any]) -> dict[str, tuple[Any, str]]:
    found: dict[str, tuple[Any, str]] = {}
    for name, value in overrides.items():
        if value is None:
            continue  # a flag that was not given
        flag = "--" + name.replace("_", "-")
        if name not in KEYS:
            raise ConfigError(f"unknown setting {flag}", _did_you_mean(name))
        found[name] = (_parse(name, value, flag), flag)
    return found


def load_config(
    path: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Config:
    """Read the configuration; to be called once per process.

    Parameters:
        path: rc file (as given by ``--config``); if None see :func:`rc_path`, and the file may be missing.
        env: environment to look in; the process's own if None.
        overrides: flags by key; None means that the flag was not given.

    Raises:
        ConfigError: a wrong key or value; the message names the file, variable or flag, and the key.
    """
    env = os.environ if env is None else env
    file = rc_path(path, env)
    named = bool(path or env.get("JOBMON_RC") or env.get("JOBMON_CONFIG"))
    release = release_info()
    values: dict[str, tuple[Any, str]] = {
        key: (value, "default") for key, value in release.items() if key in KEYS
    }
    if file.exists():
        values.update(_from_file(file))
    elif named:
        raise ConfigError(
            f"{file}: no such file",
            "it was named by --config, JOBMON_RC or JOBMON_CONFIG; `jobmon configure` makes one",
        )
    values.update(_from_env(env))
    values.update(_from_overrides(overrides or {}))
    values.setdefault("state_dir", (state_dir(env), "default"))
    values.setdefault("accounts_file", (values["state_dir"][0] / "accounts.json", "default"))
    values.setdefault("batch_dir", (values["state_dir"][0] / "batch", "default"))
    if values.get("verbose", (False, ""))[0]:
        values.setdefault("log_level", ("DEBUG", values["verbose"][1]))
    return Config(
        **{key: value for key, (value, _) in values.items()},
        release=str(release.get("release", "")),
        sources={key: source for key, (_, source) in values.items()},
    )


def read_accounts(path: Path) -> dict[str, Any]:
    """The accounts file, checked; ``{}`` if there is none.

    Parameters:
        path: the file.

    Raises:
        ConfigError: the file is unreadable or malformed; the message names it and the key.
    """
    if not path.exists():
        return {}
    document = _read_json(path)
    hint = "it is written by `jobmon db grants`"
    accounts = document.get("accounts")
    if not isinstance(accounts, dict):
        raise ConfigError(f"{path}: accounts: expected an object", hint)
    for role, account in accounts.items():
        if not isinstance(account, dict) or not all(
            isinstance(account.get(k), str) for k in ("user", "password")
        ):
            raise ConfigError(f"{path}: accounts.{role}: expected an object with user and password", hint)
    port = document.get("port")
    if port is not None and (isinstance(port, bool) or not isinstance(port, int) or not 0 < port < 65536):
        raise ConfigError(f"{path}: port: expected a number from 1 to 65535", hint)
    for key in ("host", "unix_socket", "database"):
        if not isinstance(document.get(key), str | None):
            raise ConfigError(f"{path}: {key}: expected a string", hint)
    try:
        for text in document.get("other_hosts") or ():
            read_host(text)
    except (AttributeError, TypeError, ValueError):
        raise ConfigError(f"{path}: other_hosts: expected a list of host:port", hint) from None
    _warn_if_readable(path, "passwords")
    return document


# ----------------------------------------------------------------------------------------------------------
# Writing


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read (mode 0600), at once or not at all.

    Parameters:
        path: the file; replaced if it exists. A symbolic link is followed.
        text: its whole contents, written as UTF-8.

    Raises:
        OSError: the file or its directory can't be written.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # mkstemp makes the file with mode 0600
    handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            out.write(text)
            out.flush()
            os.fsync(out.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    fsync_dir(target.parent)


def fsync_dir(path: Path) -> None:
    """Make renames in a directory durable, as far as its file system can.

    Parameters:
        path: the directory.
    """
    with contextlib.suppress(OSError):
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def _locked_directory(path: Path) -> Iterator[None]:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        # Some network file systems can't; there the last writer wins, as everywhere.
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def write_rc(
    values: Mapping[str, Any],
    path: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
) -> Path:
    """Merge settings into the rc file, keeping its other keys; afterwards its mode is 0600.

    Parameters:
        values: settings by key; None removes the key.
        path: rc file; if None see :func:`rc_path`.
        env: environment to look in; the process's own if None.

    Returns:
        The file that was written.

    Raises:
        ConfigError: an unknown key or a wrong value, a present file that is no JSON object, or a file that
            can't be written. The file is then as it was.
    """
    file = rc_path(path, env)
    for key, value in values.items():
        if key not in KEYS:
            raise ConfigError(f"{file}: unknown key {key!r}", _did_you_mean(key))
        if value is not None:
            _parse(key, value, f"{file}: {key}")
    target = Path(os.path.realpath(file))
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _locked_directory(target.parent):
            document = _read_json(target) if target.exists() else {}
            for key, value in values.items():
                if value is None:
                    document.pop(key, None)
                else:
                    document[key] = str(value) if isinstance(value, os.PathLike) else value
            write_private(target, json.dumps(document, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise ConfigError(f"{file}: cannot be written: {error.strerror}") from None
    return file
