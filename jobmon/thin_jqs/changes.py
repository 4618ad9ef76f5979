"""Change polling that can't miss a change: cursors over shards.

An auto-increment id is taken when a row is written, not when it is committed, so "all ids above the last one
I saw" misses a row whose transaction committed late. Writers of changes therefore hold one of some shard
locks until they commit: inside one shard the order of the ids is the order of the commits. A cursor is the
last id seen of each shard.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from pymysql.connections import Connection

from jobmon.thin_common.errors import RelayError

NOW = "now"
DEFAULT_LIMIT = 10_000
MAX_LIMIT = 100_000

_LEAST_PART = 16  # rows of a shard that are read at once, at least
_FORMAT = 1  # first byte of every cursor

Heads = dict[int, int]


def encode_cursor(heads: Heads) -> str:
    """The cursor's text: the pairs of shard and id as base64url of little-endian base-128 numbers."""
    data = bytearray([_FORMAT])
    for shard, last in sorted(heads.items()):
        for number in (shard, last):
            while number > 127:
                data.append(number & 127 | 128)
                number >>= 7
            data.append(number)
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def decode_cursor(text: str) -> Heads:
    """The shards' last ids in a cursor; an empty text means from the beginning.

    Raises:
        RelayError: INVALID_CURSOR.
    """
    if not text:
        return {}
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise RelayError("INVALID_CURSOR") from None
    if not data or data[0] != _FORMAT or len(data) > 65536:
        raise RelayError("INVALID_CURSOR")
    numbers = []
    number = shift = 0
    for byte in data[1:]:
        number |= (byte & 127) << shift
        shift += 7
        if number >> 64:
            raise RelayError("INVALID_CURSOR")
        if byte < 128:
            numbers.append(number)
            number = shift = 0
    heads = dict(zip(numbers[::2], numbers[1::2], strict=False))
    if shift or len(numbers) % 2 or len(heads) * 2 != len(numbers) or encode_cursor(heads) != text:
        raise RelayError("INVALID_CURSOR")
    return heads


@dataclass(frozen=True)
class Changes:
    """Some changes in order of change_id, the cursor after them, and whether more are there already."""

    documents: list[Any]
    cursor: Heads
    more: bool


def read_changes(
    connection: Connection, view: str, shard: str, cursor: Heads | None, dag_id: int | None, limit: int
) -> Changes:
    """The changes after a cursor.

    However long the history is, this reads no more of it than it returns (and what another dag's changes take
    between them): ranges of the index on shard and change_id.

    Parameters:
        connection: a connection in autocommit.
        view: the view of changes, with the columns ``shard``, change_id, dag_id, document.
        shard: name of the view's shard column.
        cursor: where to go on; None for no changes at all, only where things stand now.
        dag_id: changes of this dag only; None for all.
        limit: number of changes at most.

    Raises:
        pymysql.err.Error: as the database says.
    """
    with connection.cursor() as sql:
        # Heads and rows must be of one moment. A snapshot is one under REPEATABLE READ only.
        sql.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        sql.execute("START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY")
        sql.execute(f"SELECT `{shard}`, MAX(change_id) FROM `{view}` GROUP BY `{shard}`")
        heads: Heads = {int(row[0]): int(row[1]) for row in sql.fetchall()}
        if cursor is None:
            connection.commit()
            return Changes([], heads, False)
        select = f"SELECT `{shard}`, change_id, document FROM `{view}` WHERE "
        only = " AND dag_id = %s" if dag_id is not None else ""
        dag = [dag_id] if dag_id is not None else []
        after = dict(cursor)
        behind = sorted((after.get(key, 0), key) for key, head in heads.items() if head > after.get(key, 0))
        rows: list[Any] = []
        if behind and sum(heads[key] - last for last, key in behind) <= limit:
            # So few that one query can have them all. Sorted by the database, it might walk all the history.
            ranges = " OR ".join([f"(`{shard}` = %s AND change_id > %s)"] * len(behind))
            bounds = [number for last, key in behind for number in (key, last)]
            sql.execute(f"{select}({ranges}){only}", bounds + dag)
            rows += sql.fetchall()
            # not those that this server is behind in: a cursor never goes back, wherever it came from
            after.update((key, heads[key]) for _, key in behind)
            behind = []
        while behind and len(rows) < limit:
            # A job's changes may be in several shards, and come in order only if ids do: so a part of each
            # shard, and of these rows those up to the id from which on a shard has not been read.
            part = max(_LEAST_PART, (limit - len(rows)) // len(behind))
            query = f"{select}`{shard}` = %s AND change_id > %s{only} ORDER BY change_id LIMIT %s"
            parts: dict[int, Any] = {}
            for last, key in behind:
                sql.execute(query, [key, last, *dag, part])
                parts[key] = sql.fetchall()
            unread = [int(found[-1][1]) for found in parts.values() if len(found) == part]
            new = sorted((row for found in parts.values() for row in found), key=itemgetter(1))
            if unread:
                new = [row for row in new if row[1] <= min(unread)]
            cut = len(new) > limit - len(rows)
            new = new[: limit - len(rows)]
            rows += new
            if not unread and not cut:
                after.update((key, heads[key]) for key in parts)
                break
            horizon = int(new[-1][1])
            for key, found in parts.items():
                read = len(found) < part and (not found or found[-1][1] <= horizon)
                after[key] = heads[key] if read else max(after.get(key, 0), min(horizon, heads[key]))
            behind = [(after[key], key) for key in parts if heads[key] > after[key]]
        connection.commit()
    rows.sort(key=itemgetter(1))
    more = any(head > after.get(key, 0) for key, head in heads.items())
    return Changes([row[2] for row in rows], after, more)
