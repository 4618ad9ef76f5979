"""The services' way to the database: a bounded pool, and retries outside of the transaction."""

from __future__ import annotations

import contextlib
import logging
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, TypeVar, cast

import pymysql
from pymysql.connections import Connection
from pymysql.constants import SERVER_STATUS
from sqlalchemy.pool import PoolProxiedConnection, QueuePool

from jobmon.config import Config, ConfigError
from jobmon.db.connect import (
    AVOIDED_SECONDS,
    SPOILT_ERRNOS,
    WRONG_SERVER_ERRNOS,
    call_with_retry,
    connect,
    errno_of,
    is_lost_connection,
    is_on_spare_host,
    is_retryable,
)
from jobmon.thin_common import metrics, positions
from jobmon.thin_common.errors import RelayError

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Errors of connecting that mean: not (yet) set up. To a client that is the same as a database that is away.
_REFUSED_ERRNOS = frozenset({1044, 1045, 1049, 1129, 1130, 1698, 3118})
# A connection is replaced after this many seconds: before servers, proxies and firewalls drop it.
_MAX_AGE = 1800


class Place:
    """One of a gate's places, and the connection that stays with it from one user to the next."""

    __slots__ = ("born", "proxy")

    def __init__(self) -> None:
        self.proxy: PoolProxiedConnection | None = None
        self.born = 0.0  # when the connection was made, by time.monotonic


class FairGate:
    """Hands out ``size`` places, strictly in the order in which threads ask, each waiting a bounded time.

    ``threading.Semaphore`` lets a newcomer overtake those who wait, which shows as a long tail of latencies
    as soon as there are more clients than connections. And when nobody leaves any more (all connections wait
    for one lock, say), only the first ones wait their time; whoever comes later is refused at once, until
    somebody leaves. So a few threads more than there are places keep the service responsive.

    Parameters:
        size: number of places.
        timeout: seconds to wait at most.
    """

    def __init__(self, size: int, timeout: float) -> None:
        self.places = [Place() for _ in range(size)]
        self._free = list(self.places)  # the one left last is taken first: those not needed stay idle
        self._timeout = timeout
        self._lock = threading.Lock()
        self._waiting: deque[tuple[threading.Lock, list[Place]]] = deque()
        self._left = 0  # how often somebody left
        self._stuck_at = -1  # the value of _left at which somebody waited the whole time in vain

    def enter(self) -> Place | None:
        """Wait for a place; None when none became free in time."""
        with self._lock:
            if self._free:
                return self._free.pop()
            before = self._left
            if self._stuck_at == before:
                return None
            turn = threading.Lock()
            turn.acquire()
            given: list[Place] = []
            waiter = (turn, given)
            self._waiting.append(waiter)
        if turn.acquire(timeout=self._timeout):
            return given[0]
        with self._lock:
            if given:
                return given[0]  # it was handed over just when the time was up
            self._waiting.remove(waiter)
            if self._left == before:
                self._stuck_at = before
            return None

    def leave(self, place: Place) -> None:
        """Give a place back: to whoever waits longest, if anybody does."""
        with self._lock:
            self._left += 1
            if self._waiting:
                turn, given = self._waiting.popleft()
                given.append(place)
                turn.release()
            else:
                self._free.append(place)


class Database:
    """A pool of connections in one role, and the bounded retry around what is done with them.

    The connections are SQLAlchemy's QueuePool's: it makes, counts and closes them. Between requests they stay
    with the places of a :class:`FairGate`, as the pool's check-out and check-in cost half as much as a CALL.

    Parameters:
        config: where the database is, and the pool's size and time-outs.
        role: ``jsm`` or ``jqs``.
        size: number of connections; ``config.pool_size`` if None.
        warm_up: what to do in each new session before it is used.

    Raises:
        ConfigError: nothing says how to reach the database in this role.
    """

    def __init__(
        self,
        config: Config,
        role: str,
        size: int | None = None,
        warm_up: Callable[[Connection], object] | None = None,
    ) -> None:
        self.role = role
        self._config = config
        self._spec = config.conn_spec(role)
        size = size or config.pool_size
        self._gate = FairGate(size, config.pool_timeout)
        self._pool = QueuePool(
            cast(Callable[[], Any], self._connect),
            pool_size=size,
            max_overflow=0,
            timeout=config.pool_timeout,
            reset_on_return=None,  # sessions are in autocommit; `connection` cleans up after errors
        )
        self._suspect_before = 0.0
        self._warm_up = warm_up

    def _connect(self) -> Connection:
        timeouts: dict[str, Any] = {
            "connect_timeout": self._config.db_connect_timeout,
            # Equal ones: PyMySQL would else set the socket's time-out twice in every call.
            "read_timeout": self._config.db_read_timeout,
            "write_timeout": self._config.db_read_timeout,
        }
        writes = self.role != "jqs"
        more: dict[str, Any] = {"writable": writes, "client_flag": positions.SESSION_TRACK if writes else 0}
        try:
            connection = connect(self._spec, **timeouts, **more)
        except pymysql.err.OperationalError as error:
            if errno_of(error) != 1045:
                raise
            # `jobmon db grants` may have given the account a new password since.
            with contextlib.suppress(ConfigError):
                self._spec = self._config.conn_spec(self.role)
            connection = connect(self._spec, **timeouts, **more)
        try:
            if writes:
                connection.query(positions.TRACK_POSITIONS)
            if self._warm_up is not None:
                self._warm_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _enter(self) -> Place:
        place = self._gate.enter()
        if place is None:
            metrics.POOL_TIMEOUTS.labels(self.role).inc()
            raise RelayError("OVERLOADED")
        return place

    def _connection_of(self, place: Place) -> Connection:
        now = time.monotonic()
        if (
            place.proxy is None
            or place.born
            < self._suspect_before  # as old as one that broke: the server was restarted, most likely
            or place.born < now - _MAX_AGE
            # back to the first host as soon as it can be used again: all services should write to the same
            # one
            or (
                place.born < now - AVOIDED_SECONDS
                and is_on_spare_host(cast(Connection, place.proxy.dbapi_connection))
            )
        ):
            self._discard(place)
            place.proxy = self._pool.connect()
            place.born = now
        return cast(Connection, place.proxy.dbapi_connection)

    @staticmethod
    def _discard(place: Place) -> None:
        proxy, place.proxy = place.proxy, None
        if proxy is not None:
            proxy.invalidate()

    def _clean_up(self, place: Place, error: BaseException) -> None:
        """Leave no transaction and no unread results to the next user, whatever went wrong."""
        if place.proxy is None:
            return
        lost = is_lost_connection(error) or errno_of(error) in WRONG_SERVER_ERRNOS
        if isinstance(error, Exception) and not lost and errno_of(error) not in SPOILT_ERRNOS:
            try:
                cast(Connection, place.proxy.dbapi_connection).rollback()
                return
            except Exception as again:
                lost = is_lost_connection(again)
        if lost:
            self._suspect_before = time.monotonic()
        self._discard(place)

    def run(self, work: Callable[[Connection], T], attempts: int = 8) -> T:
        """Do one unit of work, again if the database says that this may help.

        Parameters:
            work: one whole transaction or one CALL, safe to repeat.
            attempts: tries in all; with 8 the waits between them add up to about one second.

        Raises:
            RelayError: OVERLOADED, DATABASE_UNAVAILABLE or DATABASE_BUSY (all 503).
            RuntimeError: the work left a transaction open. It has been rolled back.
            pymysql.err.Error: any other error of the database.
        """

        def once() -> T:
            place = self._enter()
            try:
                connection = self._connection_of(place)
                try:
                    result = work(connection)
                except struct.error as error:  # Galera, when it ends a call: a packet out of its place
                    raise pymysql.err.OperationalError(2014, f"an answer can't be read: {error}") from error
                if cast(Any, connection).server_status & SERVER_STATUS.SERVER_STATUS_IN_TRANS:
                    raise RuntimeError("a transaction was left open; it has been rolled back")
                return result
            except BaseException as error:
                self._clean_up(place, error)
                raise
            finally:
                self._gate.leave(place)

        try:
            return call_with_retry(
                once, attempts=attempts, retryable=self._is_retryable, on_retry=self._count_retry
            )
        except (pymysql.err.Error, OSError) as error:
            if is_lost_connection(error) or errno_of(error) in _REFUSED_ERRNOS | WRONG_SERVER_ERRNOS:
                logger.warning("database unavailable", extra={"role": self.role, "error": str(error)})
                raise RelayError("DATABASE_UNAVAILABLE") from error
            if is_retryable(error) and errno_of(error) not in (1305, 1370):
                logger.warning("gave up after retries", extra={"role": self.role, "error": str(error)})
                raise RelayError("DATABASE_BUSY") from error
            raise

    def _is_retryable(self, error: BaseException) -> bool:
        return is_retryable(error) or (self.role == "jsm" and errno_of(error) in SPOILT_ERRNOS)

    def _count_retry(self, error: BaseException, attempt: int) -> None:
        metrics.RETRIES.labels(self.role, str(errno_of(error))).inc()

    def close(self) -> None:
        """Close all connections; nothing may be at work any more."""
        for place in self._gate.places:
            self._discard(place)
        self._pool.dispose()
