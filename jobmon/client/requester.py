"""Calls of the services over HTTP: time-outs, a bounded retry with jitter, errors with a name and a hint."""

from __future__ import annotations

import json
import random
import re
import threading
import time
from typing import Any

import orjson
import requests
from requests.adapters import HTTPAdapter

from jobmon.client.errors import RequestRefused, ServiceUnavailable
from jobmon.config import Config, load_config

# What a service of Jobmon's writes, and where it wants it back: how far a replica must be that is read.
POSITION, MIN_POSITION = "Jobmon-Position", "Jobmon-Min-Position"
# Larger numbers are later inside one history: MariaDB's domain-server-number, MySQL's uuid:number, where each
# member of a group has blocks of numbers of its own.
_HISTORY = re.compile(r"(?:([0-9]+)-[0-9]+-|(.+):)([0-9]+)")
_BLOCK = 1_000_000
_MOST_HISTORIES = 8

PAGE = 10_000  # rows of a view that one call of get_rows reads
POOL_SIZE = 64  # connections that are kept to each service
FIRST_PAUSE, LONGEST_PAUSE = 0.1, 5.0  # seconds between tries
RETRIED = frozenset({502, 503, 504})
_ANSWERS = "Is something else listening there? See host, jsm_port and jqs_port in ~/.jobmonrc."


def base_url(host: str, port: int) -> str:
    """The URL of a service, without a slash at the end."""
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


class Requester:
    """JSM (write) and JQS (read) over HTTP; for use by any number of threads.

    What fails for a moment (no connection, a lost answer, 502, 503, 504) is sent again until ``patience`` is
    over. No procedure has a second effect when repeated, if the calls that make something carry a
    ``request_key``.

    What is read shows what was written before through the same object, even where JQS reads a replica: each
    answer of JSM's tells a position, and JQS is told the last one.

    Parameters:
        config: where the services are, and the token; read from ``~/.jobmonrc`` and ``JOBMON_*`` if None.
        timeout: seconds to wait for a connection, and for each answer.
        patience: seconds from the first try after which a call is given up.

    Attributes:
        config: the configuration.
        jsm: base URL of the JobStateManager.
        jqs: base URL of the JobQueryServer.
        num_calls: requests sent so far, with those that were sent again.

    Raises:
        ConfigError: the configuration is wrong.
    """

    def __init__(
        self, config: Config | None = None, *, timeout: tuple[float, float] = (5, 60), patience: float = 60.0
    ) -> None:
        self.config = load_config() if config is None else config
        self.jsm = base_url(self.config.host, self.config.jsm_port)
        self.jqs = base_url(self.config.query_host or self.config.host, self.config.jqs_port)
        self.timeout = timeout
        self.patience = patience
        self.num_calls = 0
        self._positions: dict[str, tuple[int, str]] = {}  # by history: the last number, and its position
        self._lock = threading.Lock()
        self._session = requests.Session()
        self._session.trust_env = False  # no proxy, and no password of a ~/.netrc, goes to the services
        adapter = HTTPAdapter(pool_connections=4, pool_maxsize=POOL_SIZE)
        self._session.mount("http://", adapter)

    def post(self, route: str, **body: Any) -> dict[str, Any]:
        """Call a procedure: POST /route on the JSM.

        Parameters:
            route: the procedure's name.
            body: its parameters; None is the same as left out.

        Returns:
            The answer's JSON object.

        Raises:
            RequestRefused: the service says no; ``code`` tells why.
            ServiceUnavailable: nobody answered while ``patience`` lasted.
        """
        try:
            data = orjson.dumps(body)
        except TypeError:  # an int of more than 64 bits, or a text that is no UTF-8: the service will judge
            data = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        return self._call("POST", f"{self.jsm}/{route}", self.config.token, headers, data=data)

    def get(self, route: str, **arguments: Any) -> dict[str, Any]:
        """Read: GET /route on the JQS.

        Parameters:
            route: the view's name.
            arguments: columns and their values, ``limit``, ``offset``; None is left out.

        Returns:
            The answer's JSON object; {} for an empty answer.

        Raises:
            RequestRefused: the service says no; ``code`` tells why.
            ServiceUnavailable: nobody answered while ``patience`` lasted.
        """
        token = self.config.read_token or self.config.token
        headers = {MIN_POSITION: position} if (position := self.position) else {}
        return self._call("GET", f"{self.jqs}/{route}", token, headers, params=arguments)

    def get_rows(self, view: str, **filters: Any) -> list[dict[str, Any]]:
        """All rows of a view that match, however many.

        More than 10,000 rows come in several calls, so they are not of one moment.

        Parameters:
            view: the view's name.
            filters: columns and the value that each must have.

        Raises:
            RequestRefused, ServiceUnavailable: as in :meth:`get`.
        """
        rows: list[dict[str, Any]] = []
        while True:
            page = self.get(view, **filters, limit=PAGE, offset=len(rows))[view]
            rows += page
            if len(page) < PAGE:
                return rows

    @property
    def position(self) -> str:
        """How far a database must be to show all that was written through this object; "" if that is unknown.

        May be handed to another process, which sends it as ``min_position``.
        """
        with self._lock:
            return ",".join(text for _, text in self._positions.values())

    def _remember(self, position: str) -> None:
        with self._lock:
            for text in position.split(","):
                match = _HISTORY.fullmatch(text)
                history, number = (match[1] or match[2], int(match[3])) if match else (text, 0)
                if match and match[2]:
                    history = f"{history}/{number // _BLOCK}"
                if number >= self._positions.get(history, (0, ""))[0]:
                    # the newest history comes last: after a failover there may be another one
                    self._positions.pop(history, None)
                    self._positions[history] = (number, text)
            while len(self._positions) > _MOST_HISTORIES:
                del self._positions[next(iter(self._positions))]

    def close(self) -> None:
        """Close the kept connections; a later call opens new ones."""
        self._session.close()

    def _call(
        self, method: str, url: str, token: str | None, headers: dict[str, str], **content: Any
    ) -> dict[str, Any]:
        if token:
            headers["Authorization"] = f"Bearer {token}"
        give_up = time.monotonic() + self.patience
        pause = FIRST_PAUSE
        while True:
            with self._lock:
                self.num_calls += 1
            response = None
            try:
                response = self._session.request(
                    method, url, headers=headers, timeout=self.timeout, allow_redirects=False, **content
                )
            except (
                requests.ConnectionError,
                requests.Timeout,
                requests.exceptions.ChunkedEncodingError,
            ) as e:
                failure = _plain_words(e)
            except requests.RequestException as error:  # such as a host name that can't be one
                raise RequestRefused("INVALID_REQUEST", f"{method} {url}: {error}", _ANSWERS, 0) from error
            if response is not None:
                if position := response.headers.get(POSITION):
                    self._remember(position)
                if response.status_code not in RETRIED:
                    return _read(method, url, response)
                failure = _said(response)
            # Many clients wait for the same service: their next tries must not fall together.
            wait = pause * random.uniform(0.5, 1.5)
            if time.monotonic() + wait > give_up:
                raise ServiceUnavailable(
                    f"{method} {url}: no answer in {self.patience:g} s: {failure}",
                    "Is Jobmon running? See `./runserver.py status`, and host and ports in ~/.jobmonrc.",
                )
            time.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)


def _plain_words(error: requests.RequestException) -> str:
    """What a connection's failure means, without the layers of libraries around it."""
    if isinstance(error, requests.ConnectTimeout):
        return "the connection timed out"
    if isinstance(error, requests.Timeout):
        return "the answer took too long"
    reason: Any = error.args[0] if error.args else error
    reason = getattr(reason, "reason", reason)
    return str(reason).rpartition(": ")[2] or type(error).__name__


def _error_of(response: requests.Response) -> dict[str, Any] | None:
    """The error object of an answer, if it is one of Jobmon's."""
    try:
        document = response.json()
    except ValueError:
        return None
    error = document.get("error") if isinstance(document, dict) else None
    return error if isinstance(error, dict) and isinstance(error.get("code"), str) else None


def _said(response: requests.Response) -> str:
    error = _error_of(response)
    return (
        f"{response.status_code} {error['code']}: {error.get('message')}"
        if error
        else (f"{response.status_code} {response.reason}")
    )


def _read(method: str, url: str, response: requests.Response) -> dict[str, Any]:
    """The JSON object of an answer.

    Raises:
        RequestRefused: it is an error, or not from a service of Jobmon.
    """
    if response.status_code >= 400:
        error = _error_of(response)
        if error is not None:
            hint = str(error.get("hint") or "")
            if error.get("request_id"):
                hint = f"{hint} (request_id {error['request_id']})".strip()
            raise RequestRefused(error["code"], str(error.get("message")), hint, response.status_code)
    elif response.status_code < 300:
        try:
            document = orjson.loads(response.content) if response.content else {}
        except ValueError:
            document = None
        if isinstance(document, dict):
            return document
    raise RequestRefused(
        "NOT_JOBMON",
        f"{method} {url}: answered {response.status_code} {response.reason}, and not as Jobmon does",
        _ANSWERS,
        response.status_code,
    )
