"""Positions: how far a replica must be to show what a caller has written.

A server with a binary log gives each transaction a number, its GTID. JSM answers with that of the call's
transaction, in the header ``Jobmon-Position``; who sends it to JQS as ``min_position`` reads a replica only
when it has come so far. The texts are the servers' own:

=========================  ============================================================================
``0-1-4711``               MariaDB: domain, server, number in the domain
``3e11fa47-...:4711``      MySQL: the server's (or the group's) UUID, number
``galera``                 Galera without a binary log: the reading node itself asks its cluster
=========================  ============================================================================

The GTID comes in the last packet of the CALL's answer (session tracking), so it costs no round trip.
"""

from __future__ import annotations

import contextlib
import re
import threading
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, field

import pymysql
from pymysql.connections import Connection

from jobmon.db.catalog import is_mariadb, query
from jobmon.db.connect import errno_of
from jobmon.thin_common.errors import RelayError

HEADER = "Jobmon-Position"
MIN_HEADER = "Jobmon-Min-Position"
ARGUMENT = "min_position"
GALERA = "galera"

MAX_LENGTH = 2000  # characters of a position

# The client flag that asks for changes of the session in the answers; PyMySQL hands them on unread.
SESSION_TRACK = 1 << 23
# MySQL and MariaDB each ignore the other's comment.
TRACK_POSITIONS = (
    "SET SESSION /*!80000 session_track_gtids='OWN_GTID', */"
    "/*M! session_track_system_variables='last_gtid', */ autocommit=1"
)
_STATE_CHANGED = 1 << 14  # of the server's status
_SYSTEM_VARIABLE, _GTIDS = 0, 3  # kinds of changes

_MARIADB = re.compile(r"(?P<history>[0-9]{1,10})-[0-9]{1,10}-(?P<number>[0-9]{1,20})")
_MYSQL = re.compile(
    r"(?P<history>[0-9A-Fa-f]{8}(?:-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}(?::[a-z_][a-z0-9_]{0,31})?)"
    r":(?P<number>[0-9]{1,19})"
)

# Each member of a MySQL group numbers its transactions from a block of its own of the group's numbers (the
# default of group_replication_gtid_assignment_block_size): larger numbers are later inside one block only.
_BLOCK = 1_000_000
_MOST_ENDS = 20  # of intervals that are told

# A history (MariaDB: domain; MySQL: UUID and block, as uuid/block) -> the number of a transaction in it.
Position = dict[str, int]


@dataclass
class Traits:
    """What is known of a connection's server.

    galera: whether it is a node of Galera. knows: whether it keeps positions. tells: whether what it writes
    has one. reached: numbers that it is known to have reached.
    """

    mariadb: bool
    galera: bool
    knows: bool
    tells: bool
    reached: Position = field(default_factory=dict)


_traits: weakref.WeakKeyDictionary[Connection, Traits] = weakref.WeakKeyDictionary()


def traits_of(connection: Connection) -> Traits:
    """What is known of a connection's server; asked at the connection's first use only."""
    found = _traits.get(connection)
    if found is None:
        names = "'log_bin', 'gtid_mode', 'wsrep_on'"
        variables = dict(query(connection, f"SHOW VARIABLES WHERE Variable_name IN ({names})"))
        mariadb = is_mariadb(connection)
        galera = variables.get("wsrep_on") == "ON"
        # A replica of MariaDB keeps its position without a binary log, too.
        has_gtids = mariadb or variables.get("gtid_mode") == "ON"
        writes_log = variables.get("log_bin") == "ON"
        found = _traits[connection] = Traits(mariadb, galera, has_gtids, galera or (has_gtids and writes_log))
    return found


# What JSM tells -----------------------------------------------------------------------------------------


def last_position(connection: Connection) -> str | None:
    """The position at which all is that the last call on a connection has written, or found there.

    Parameters:
        connection: one that was made with :data:`SESSION_TRACK`, on which :data:`TRACK_POSITIONS` was done.

    Returns:
        The position; None where the server has none to tell.
    """
    told = _told(connection)
    if told:
        return told
    traits = traits_of(connection)
    if not traits.tells:
        return None
    # A call that is repeated after a lost answer writes nothing, but its first try has.
    if traits.mariadb:
        [(text,)] = query(connection, "SELECT @@gtid_binlog_pos")
        return str(text) or (GALERA if traits.galera else None)
    [(text,)] = query(connection, "SELECT @@GLOBAL.gtid_executed")
    return _ends_of(str(text)) or None


def _ends_of(gtid_set: str) -> str:
    """The end of each interval: ``a:1-7:9-12,b:1-3`` -> ``a:7,a:12,b:3``."""
    ends = []
    for part in re.sub(r"\s", "", gtid_set).split(","):
        uuid, *rest = part.split(":")
        history = uuid
        for interval in rest:
            if interval[:1].isdigit():
                ends.append(f"{history}:{interval.rpartition('-')[2]}")
            else:
                history = f"{uuid}:{interval}"  # a tag; its intervals follow
    return ",".join(ends[-_MOST_ENDS:])


def _told(connection: Connection) -> str | None:
    """The GTID in the packet that ended the last answer, if one is in it."""
    result = getattr(connection, "_result", None)
    if result is None or not (result.server_status or 0) & _STATE_CHANGED:
        return None
    found = None
    with contextlib.suppress(IndexError, UnicodeDecodeError):
        for kind, data in _changes(bytes(result.message or b"")):
            if kind == _GTIDS:
                text, _ = _text(data, 1)  # after a byte for the encoding
                found = text.decode("ascii") or found
            elif kind == _SYSTEM_VARIABLE:
                at = 0
                while at < len(data):
                    name, at = _text(data, at)
                    value, at = _text(data, at)
                    if name == b"last_gtid":
                        found = value.decode("ascii") or found
    return found


def _changes(message: bytes) -> Iterator[tuple[int, bytes]]:
    """The changes of the session: kind and data. https://dev.mysql.com/doc/dev/mysql-server/latest/
    page_protocol_basic_ok_packet.html
    """
    _, at = _text(message, 0)  # the human-readable part
    data, _ = _text(message, at)
    at = 0
    while at < len(data):
        kind = data[at]
        value, at = _text(data, at + 1)
        yield kind, value


def _text(data: bytes, at: int) -> tuple[bytes, int]:
    """A text with its length before it, and where it ends. Raises IndexError if it is cut off."""
    first = data[at]
    at += 1
    if first >= 0xFB:
        width = {0xFC: 2, 0xFD: 3, 0xFE: 8}.get(first, 0)
        first = int.from_bytes(data[at : at + width], "little")
        at += width
    if at + first > len(data):
        raise IndexError(at)
    return data[at : at + first], at + first


# What JQS waits for -------------------------------------------------------------------------------------


def parse(text: str) -> Position:
    """A position as numbers of histories; ``galera`` is a history without a number.

    Raises:
        RelayError: INVALID_POSITION.
    """
    found: Position = {}
    parts = text.split(",")
    if len(text) > MAX_LENGTH:
        raise RelayError("INVALID_POSITION")
    for part in parts:
        match = _MARIADB.fullmatch(part) or _MYSQL.fullmatch(part)
        if match is None and part != GALERA:
            raise RelayError("INVALID_POSITION")
        history, number = (match["history"], int(match["number"])) if match else (part, 0)
        if number >= 1 << 63:
            raise RelayError("INVALID_POSITION")
        if "-" in history:
            history = f"{history}/{number // _BLOCK}"
        found[history] = max(number, found.get(history, 0))
    return found


def wait_for(
    connection: Connection, position: Position, timeout: float, waiters: threading.Semaphore
) -> None:
    """Wait until a server has what was written up to a position.

    Parameters:
        connection: on which the reading will be done; any account may do this.
        position: as :func:`parse` gives it.
        timeout: seconds to wait at most (Galera: what ``repl.causal_read_timeout`` says).
        waiters: how many may wait at once; one more is told at once that the replica is behind.

    Raises:
        RelayError: REPLICA_BEHIND when the time was over; INVALID_POSITION when the server is of another
        kind, or can't know.
        pymysql.err.Error: as the database says.
    """
    traits = traits_of(connection)
    missing = {
        history: number for history, number in position.items() if traits.reached.get(history, -1) < number
    }
    if not missing:
        return
    if traits.galera:
        _wait_in_galera(connection, timeout, waiters)
        return
    foreign = any(history == GALERA or history.isdigit() != traits.mariadb for history in missing)
    if foreign or not traits.knows:
        raise RelayError("INVALID_POSITION", "The database behind this service has no such positions.")
    if not (_has_on_mariadb if traits.mariadb else _has_on_mysql)(connection, missing):
        if not waiters.acquire(blocking=False):
            raise RelayError("REPLICA_BEHIND", "Too many requests wait for the replica already.")
        try:
            if traits.mariadb:
                wanted = ",".join(f"{history}-0-{number}" for history, number in missing.items())
            else:
                wanted = _gtid_set(missing)
            function = "MASTER_GTID_WAIT" if traits.mariadb else "WAIT_FOR_EXECUTED_GTID_SET"
            # 0 would be for ever
            [(late,)] = query(connection, f"SELECT {function}(%s, %s)", (wanted, max(timeout, 0.001)))
        finally:
            waiters.release()
        if int(late) != 0:
            raise RelayError("REPLICA_BEHIND")
    traits.reached.update(missing)


def _wait_in_galera(connection: Connection, timeout: float, waiters: threading.Semaphore) -> None:
    # Waits until the node has applied all that its cluster had committed by now. Numbers of the nodes need
    # not agree.
    if not waiters.acquire(timeout=timeout):
        raise RelayError("REPLICA_BEHIND", "Too many requests wait for the replica already.")
    try:
        query(connection, "SET STATEMENT wsrep_sync_wait=1 FOR SELECT schema_version FROM schema_info")
    except pymysql.err.Error as error:
        if errno_of(error) != 1205:
            raise
        raise RelayError("REPLICA_BEHIND") from error
    finally:
        waiters.release()


def _has_on_mariadb(connection: Connection, missing: Position) -> bool:
    # MASTER_GTID_WAIT knows what was replicated only, not what the server wrote itself.
    [(text,)] = query(connection, "SELECT @@gtid_current_pos")
    here = parse(str(text)) if text else {}
    return all(here.get(history, -1) >= number for history, number in missing.items())


def _has_on_mysql(connection: Connection, missing: Position) -> bool:
    sql = "SELECT GTID_SUBSET(%s, @@GLOBAL.gtid_executed)"
    [(found,)] = query(connection, sql, (_gtid_set(missing),))
    return bool(found)


def _gtid_set(position: Position) -> str:
    return ",".join(f"{history.partition('/')[0]}:{number}" for history, number in position.items())
