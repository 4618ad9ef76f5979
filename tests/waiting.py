"""Waiting for what must come to pass, in all tests."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def until(
    condition: Callable[[], Any], what: str | None = None, *, seconds: float = 300, pause: float = 0.02
) -> Any:
    """Wait until a condition holds, and give what made it so.

    Parameters:
        condition: asked again and again; what it raises goes through.
        what: what is waited for, in words for whoever reads of a failure.
        seconds: how long at most; far more than it takes, since machines are slow at times.
        pause: seconds between two looks.

    Raises:
        AssertionError: it did not hold in time.
    """
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s in vain for {what or condition}"
        time.sleep(pause)
    return found
