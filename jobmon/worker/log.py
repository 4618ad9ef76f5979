"""The worker's own messages, on its standard error."""

from __future__ import annotations

import os
import select
import time

# A pipe takes this much at once, if it takes anything (POSIX promises 512 bytes).
_MAX_BYTES = 512


def say(text: str) -> None:
    """Write one line. Never waits and never fails: nobody may read it, and the command matters more.

    Parameters:
        text: the message.
    """
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    line = f"{now} jobmon-worker: {' '.join(text.split())}"
    data = line.encode("utf-8", "replace")[: _MAX_BYTES - 1] + b"\n"
    try:
        if select.select((), (2,), (), 0)[1]:
            os.write(2, data)
    except (OSError, ValueError):
        pass
