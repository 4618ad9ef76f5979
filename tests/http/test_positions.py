"""Positions: how they are read from the server's packets, from texts, and how the client library keeps
them.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from jobmon.client.requester import Requester
from jobmon.config import load_config
from jobmon.thin_common import positions
from jobmon.thin_common.errors import RelayError

UUID = "3e11fa47-71ca-11e1-9e33-c80aa9429562"


def told(message: bytes, status: int = 0x4002) -> str | None:
    """What is told by the packet that ended an answer."""
    result = SimpleNamespace(server_status=status, message=message)
    return positions._told(cast(Any, SimpleNamespace(_result=result)))


def test_packets() -> None:
    # as MariaDB and MySQL send them
    assert told(b"\x00\x14\x00\x12\tlast_gtid\x070-1-542") == "0-1-542"
    gtid = f"{UUID}:543".encode()
    assert told(b"\x00,\x03*\x00(" + gtid) == f"{UUID}:543"
    # with other changes before it, and a long text
    other = b"\x00\x0f\x0aautocommit\x03OFF"
    assert told(b"\x00" + bytes([len(other) + 0x14]) + other + b"\x00\x12\tlast_gtid\x070-1-542") == "0-1-542"
    assert told(b"\x03xyz\x14\x00\x12\tlast_gtid\x070-1-542") == "0-1-542"
    assert told(b"\x00\xfc\x14\x00\x00\x12\tlast_gtid\x070-1-542") == "0-1-542"
    # nothing of the kind, or cut off
    assert told(b"\x00\x14\x00\x12\tlast_gtid\x070-1-542", status=2) is None
    for message in (b"", b"\x00", b"Rows matched: 1", b"\x00\x14\x00\x12\tlast_gtid\x07", b"\x00\x00"):
        assert told(message) is None


def test_texts() -> None:
    assert positions.parse(f"0-1-7,1-2-9,{UUID}:3,{UUID}:tag:4,galera") == {
        "0": 7, "1": 9, f"{UUID}/0": 3, f"{UUID}:tag/0": 4, "galera": 0,
    }  # fmt: skip
    assert positions.parse("0-1-7,0-2-5") == {"0": 7}
    for text in ("", "x", "0-1", "0-1-7,", f"{UUID}:1-3", f"0-1-{1 << 64}", "0-1-1," * 999, "0-1-\u0661"):
        with pytest.raises(RelayError, match="INVALID_POSITION"):
            positions.parse(text)
    # members of a group have blocks of numbers of their own
    assert positions.parse(f"{UUID}:1000001,{UUID}:7") == {f"{UUID}/1": 1000001, f"{UUID}/0": 7}
    other = f"{UUID[:-1]}3"
    executed = f"{UUID}:1-5:1000000-1000009,\n{other}:1:tag:1-4"
    assert positions._ends_of(executed) == f"{UUID}:5,{UUID}:1000009,{other}:1,{other}:tag:4"
    assert positions.parse(positions._ends_of(executed))
    assert positions._gtid_set({f"{UUID}/1": 1000001, f"{other}:tag/0": 4}) == f"{UUID}:1000001,{other}:tag:4"
    assert positions._ends_of("") == ""


def test_the_client_keeps_the_newest_of_each_history() -> None:
    requester = Requester(load_config(env={"HOME": "/nowhere"}))
    assert requester.position == ""
    for text in ("0-1-5", "0-1-9", "0-1-7"):
        requester._remember(text)
    assert requester.position == "0-1-9"
    requester._remember(f"{UUID}:3")
    requester._remember("0-2-10,galera")
    assert requester.position == f"{UUID}:3,0-2-10,galera"
    assert positions.parse(requester.position)
    requester._remember(f"{UUID}:1000001")
    requester._remember(f"{UUID}:4")  # later, by another member of the group
    assert requester.position == f"0-2-10,galera,{UUID}:1000001,{UUID}:4"
    for number in range(20):
        requester._remember(f"{number}-1-1")
    assert requester.position.count(",") == 7
    requester.close()
