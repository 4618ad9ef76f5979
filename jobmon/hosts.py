"""Several hosts in one conn_str: ``mysql://user:password@db1:3306,db2:3306/jobmon``.

Standard library only, as :mod:`jobmon.config` is.
"""

from __future__ import annotations

import re
from urllib.parse import urlsplit

DEFAULT_PORT = 3306

Host = tuple[str, int]  # name or address, TCP port


def split_hosts(conn_str: str) -> tuple[str, list[Host]]:
    """A conn_str with its first host only, and the further hosts in their order.

    Parameters:
        conn_str: what stands before ``://`` and after the hosts may be anything.

    Raises:
        ValueError: a further host is empty, or its port is no number.
    """
    scheme, separator, rest = conn_str.partition("://")
    netloc = re.split(r"[/?#]", rest, maxsplit=1)[0]
    account, at, places = netloc.rpartition("@")
    first, *others = places.split(",")
    if not others:
        return conn_str, []
    return f"{scheme}{separator}{account}{at}{first}{rest[len(netloc) :]}", [
        read_host(text) for text in others
    ]


def read_host(text: str) -> Host:
    """``db2:3307``, ``db2`` or ``[::1]:3307`` as a host and a port.

    Raises:
        ValueError: there is no host, or the port is no number.
    """
    parts = urlsplit(f"//{text.strip()}")
    if not parts.hostname or parts.port == 0 or parts.path or parts.username:
        raise ValueError(f"{text!r} is no host:port")
    return parts.hostname, parts.port or DEFAULT_PORT


def show_host(host: Host) -> str:
    """The text that :func:`read_host` reads back."""
    name, port = host
    return f"[{name}]:{port}" if ":" in name else f"{name}:{port}"
