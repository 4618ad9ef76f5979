"""Ports for what tests start themselves."""

from __future__ import annotations

import fcntl
import os
import secrets
import socket
import tempfile
from pathlib import Path

# Below those that Linux gives away by itself, to listeners on port 0 and to outgoing connections.
_FIRST, _LAST = 25_000, 32_000

_given: set[int] = set()
_locks: list[int] = []


def free_port() -> int:
    """A port that nobody listens on, and that no other run of tests on this machine is given meanwhile.

    A port that was only found free may be gone when it is bound: tests run in two lanes at once.
    """
    if not _locks:
        place = Path(tempfile.gettempdir(), f"jobmon-test-ports-{os.getuid()}")
        _locks.append(os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
    while True:
        port = _FIRST + secrets.randbelow(_LAST - _FIRST)
        if port in _given:
            continue
        try:
            fcntl.lockf(_locks[0], fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
        except OSError:
            continue
        _given.add(port)
        with socket.socket() as probe:
            try:
                probe.bind(("", port))
            except OSError:
                continue
        return port
