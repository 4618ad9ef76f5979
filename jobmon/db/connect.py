"""Connections: what to connect to, how a session is set up, and which errors are worth another try.

Every connection Jobmon makes goes through :func:`connect`, so that each session has the same character set,
isolation level, time zone and sql_mode, whatever the server's defaults are.
"""

from __future__ import annotations

import dataclasses
import random
import re
import ssl
import time
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

import pymysql
from pymysql.connections import Connection

from jobmon.hosts import Host, show_host, split_hosts

T = TypeVar("T")

SQL_MODE = (
    "STRICT_TRANS_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO,NO_ENGINE_SUBSTITUTION"
)

# Errors after which the connection is gone.
LOST_CONNECTION_ERRNOS = frozenset(
    {
        1053,  # server shutdown in progress
        1158,  # network read error
        1159,  # network read timed out
        1160,  # network write error
        1161,  # network write timed out
        1927,  # MariaDB: connection was killed
        2003,  # can't connect to the server
        2006,  # server has gone away
        2013,  # lost connection during the query
        2014,  # commands out of sync: an answer was left half read
        2055,  # lost connection, with system error
        4031,  # MySQL: disconnected because of inactivity
    }
)

# Errors of a server that does not do this work any more, though the connection to it is sound: another one
# does.
WRONG_SERVER_ERRNOS = frozenset(
    {
        1047,  # Galera: the node is not part of the cluster, or not yet
        1290,  # read-only server: a failover is going on
        1836,  # read-only mode: as 1290
    }
)

# Errors of a session that wrote and goes on to fail, though the server is sound: a new one does not.
SPOILT_ERRNOS = frozenset({1146})  # Galera: its routines remember a table that could not be opened just then

# Errors that go away when the same transaction is done again from its start.
RETRYABLE_ERRNOS = (
    LOST_CONNECTION_ERRNOS
    | WRONG_SERVER_ERRNOS
    | frozenset(
        {
            1020,  # MariaDB: the record has changed since it was read
            1040,  # too many connections
            1203,  # too many connections of this user
            1180,  # error at COMMIT: a node of Galera lost its cluster just then
            1205,  # lock wait timeout
            1213,  # deadlock; in Galera: another node's transaction was first
            1305,  # no such procedure: on MySQL a re-deploy drops and creates it
            1370,  # EXECUTE denied: on MySQL the grant goes with the drop, for the same moment
            1412,  # the table's definition has changed
            1615,  # the statement must be prepared again: a table or view it uses was replaced
            3100,  # MySQL group replication: the member can't certify just now
            3101,  # MySQL group replication: another member's transaction was first
        }
    )
)

_SCHEMES = ("mysql+pymysql", "mysql", "mariadb+pymysql", "mariadb")
_TLS_MODES = ("off", "preferred", "required", "verify")
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_QUERY_KEYS = ("unix_socket", "charset", "tls", "tls_ca")

# One statement, so that a new session costs one round trip. MySQL and MariaDB have the isolation level under
# different names; each ignores the other's comment.
_SESSION_SETUP = (
    "SET SESSION /*!80000 transaction_isolation='READ-COMMITTED', */"
    "/*M! tx_isolation='READ-COMMITTED', */"
    f" time_zone='+00:00', sql_mode='{SQL_MODE}'"
)


class ConnStrError(ValueError):
    """A conn_str can't be read. The message says what is wrong with it, and never contains the password."""


@dataclass(frozen=True)
class ConnectionSpec:
    """What is needed to connect: an account, a server, and a database on it.

    user, password: the account. host, port: the server by TCP. others: further hosts with the same account
    and database, tried in their order when a host before them can't be used. database: the default database,
    or None.
    unix_socket: path of a socket to use instead of TCP, or None. tls: ``off``, ``preferred`` (if the server
    offers it; nothing is verified), ``required`` (nothing is verified) or ``verify`` (certificate and host
    name); None means off on the loopback or a socket and preferred elsewhere. tls_ca: file with the
    certificates of the authority.
    """

    user: str
    password: str = ""
    host: str = "127.0.0.1"
    port: int = 3306
    database: str | None = None
    unix_socket: str | None = None
    tls: str | None = None
    tls_ca: str | None = None
    others: tuple[Host, ...] = ()

    def __post_init__(self) -> None:
        if self.tls is not None and self.tls not in _TLS_MODES:
            raise ConnStrError(f"tls={self.tls!r} is none of {', '.join(_TLS_MODES)}")
        if self.others and self.unix_socket:
            raise ConnStrError("a unix_socket leads to one server; several hosts can't have one")

    @classmethod
    def parse(cls, conn_str: str) -> ConnectionSpec:
        """Read ``mysql+pymysql://user:password@host:port/database?unix_socket=/path&charset=utf8mb4``.

        There may be several hosts: ``host1:port1,host2:port2``. User, password and database are URL-quoted.
        Raises ConnStrError, whose message names the faulty part.
        """
        form = "a conn_str looks like mysql+pymysql://user:password@host:port/database"
        if not isinstance(conn_str, str):
            raise ConnStrError(f"the conn_str is not a string; {form}")
        scheme, separator, _ = conn_str.partition("://")
        if not separator:
            raise ConnStrError(f"the conn_str has no '://'; {form}")
        if scheme.lower() not in _SCHEMES:
            # Not shown as it is: without a proper scheme this may be anything, a password too.
            raise ConnStrError(f"the conn_str's scheme is none of {', '.join(_SCHEMES)}; {form}")
        try:
            conn_str, others = split_hosts(conn_str)
            parts = urlsplit(conn_str)
            port = parts.port
        except ValueError:
            raise ConnStrError(
                f"the conn_str's host or port can't be read; special characters in user and password "
                f"must be URL-quoted (@ is %40, / is %2F, # is %23); {form}"
            ) from None
        if parts.fragment:
            raise ConnStrError(f"the conn_str contains '#'; in a password it must be written %23; {form}")
        if not parts.username:
            raise ConnStrError(f"the conn_str names no user; {form}")
        query: dict[str, str] = {}
        for key, value in parse_qsl(parts.query, keep_blank_values=True):
            if key not in _QUERY_KEYS:
                raise ConnStrError(
                    f"the conn_str's option {key!r} is unknown; known are {', '.join(_QUERY_KEYS)}"
                )
            query[key] = value
        if query.get("charset", "utf8mb4") != "utf8mb4":
            raise ConnStrError(f"the conn_str says charset={query['charset']}; Jobmon always speaks utf8mb4")
        database = unquote(parts.path.lstrip("/"))
        return cls(
            user=unquote(parts.username),
            password=unquote(parts.password or ""),
            host=parts.hostname or "127.0.0.1",
            port=port or 3306,
            database=database or None,
            unix_socket=query.get("unix_socket") or None,
            tls=query.get("tls") or None,
            tls_ca=query.get("tls_ca") or None,
            others=tuple(others),
        )

    def conn_str(self) -> str:
        """The conn_str that :meth:`parse` reads back to this spec. It contains the password."""
        hosts = ",".join(map(show_host, self.hosts))
        secret = f":{quote(self.password, safe='')}" if self.password else ""
        query = {"charset": "utf8mb4"}
        for key in ("unix_socket", "tls", "tls_ca"):
            value = getattr(self, key)
            if value:
                query[key] = value
        return (
            f"mysql+pymysql://{quote(self.user, safe='')}{secret}@{hosts}/"
            f"{quote(self.database or '', safe='')}?{urlencode(query)}"
        )

    def with_account(self, user: str, password: str) -> ConnectionSpec:
        """The same server and database with another account."""
        return dataclasses.replace(self, user=user, password=password)

    def with_database(self, database: str | None) -> ConnectionSpec:
        """The same server and account with another default database; None for none."""
        return dataclasses.replace(self, database=database)

    @property
    def hosts(self) -> tuple[Host, ...]:
        """All hosts, in the order in which they are tried."""
        return ((self.host, self.port), *self.others)

    def with_host(self, host: Host) -> ConnectionSpec:
        """The same account and database on one host."""
        return dataclasses.replace(self, host=host[0], port=host[1], others=())

    @property
    def server(self) -> str:
        """The server's place for messages: ``host:port`` (or several), or the socket's path."""
        return self.unix_socket or ",".join(f"{name}:{port}" for name, port in self.hosts)

    def __repr__(self) -> str:
        secret = "***" if self.password else ""
        return f"<{self.user}:{secret}@{self.server}/{self.database or ''}>"

    __str__ = __repr__


def _tls_arguments(spec: ConnectionSpec) -> dict[str, Any]:
    mode = spec.tls
    if mode is None:
        # Encrypting what never leaves the machine only costs CPU; MySQL's password exchange then uses RSA.
        mode = "off" if spec.unix_socket or spec.host in _LOOPBACK else "preferred"
    if mode == "off":
        return {"ssl_disabled": True}
    if mode == "preferred":
        return {}
    context = ssl.create_default_context(cafile=spec.tls_ca)
    if mode == "required":
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return {"ssl": context}


def connect(
    spec: ConnectionSpec,
    *,
    autocommit: bool = True,
    connect_timeout: float = 10.0,
    read_timeout: float | None = 60.0,
    write_timeout: float | None = 60.0,
    session: Mapping[str, int | str] | None = None,
    writable: bool = True,
    **kw: Any,
) -> Connection:
    """Open a connection whose session is set up the way all of Jobmon relies on.

    Of several hosts it takes the first that answers, is part of its cluster (Galera), and may be written to.
    One that failed is tried last for the next ten seconds. The session is utf8mb4, READ COMMITTED, in UTC,
    with the fixed :data:`SQL_MODE`.

    autocommit: as in PyMySQL, but on by default: procedures make their own transactions.
    connect_timeout, read_timeout, write_timeout: seconds; None waits for ever.
    session: further session variables to set, in the same round trip. writable: whether, of several hosts,
    those that are read-only are passed over. kw: passed on to ``pymysql.connect``.

    Raises pymysql.err.OperationalError (2003 when nothing answers, 1045 when the account is refused).
    """
    if spec.others:
        return _connect_to_first(
            spec,
            writable,
            autocommit=autocommit,
            connect_timeout=connect_timeout,
            read_timeout=read_timeout,
            write_timeout=write_timeout,
            session=session,
            **kw,
        )
    setup = _SESSION_SETUP
    for name, value in (session or {}).items():
        if not re.fullmatch(r"[a-z_]+", name):
            raise ValueError(f"{name!r} is no name of a session variable")
        literal = (
            str(value) if isinstance(value, int) else "'" + pymysql.converters.escape_string(value) + "'"
        )
        setup += f", {name}={literal}"
    arguments: dict[str, Any] = {
        "user": spec.user,
        "password": spec.password.encode(),  # PyMySQL would encode text as latin-1
        "host": spec.host,
        "port": spec.port,
        "database": spec.database,
        "unix_socket": spec.unix_socket,
        "charset": "utf8mb4",
        "autocommit": autocommit,
        "connect_timeout": connect_timeout,
        "read_timeout": read_timeout,
        "write_timeout": write_timeout,
        "init_command": setup,
        **_tls_arguments(spec),
        **kw,
    }
    return pymysql.connect(**arguments)


# By time.monotonic: until when a host that failed is tried after the others.
_avoided: dict[Host, float] = {}
AVOIDED_SECONDS = 10.0
_spare_hosts: weakref.WeakSet[Connection] = weakref.WeakSet()


def _connect_to_first(spec: ConnectionSpec, writable: bool, **kw: Any) -> Connection:
    now = time.monotonic()
    problems: dict[Host, str] = {}
    refused: pymysql.err.OperationalError | None = None
    for host in sorted(spec.hosts, key=lambda host: _avoided.get(host, 0.0) > now):  # else in their order
        try:
            conn = connect(spec.with_host(host), **kw)
            try:
                problem = why_unfit(conn, writable)
            except BaseException:
                conn.close()
                raise
        except (pymysql.err.Error, OSError) as error:
            problem = str(error.args[-1] if error.args else error)
            if errno_of(error) in (1044, 1045, 1049):
                refused = error  # type: ignore[assignment]
        else:
            if problem is None:
                _avoided.pop(host, None)
                if host != spec.hosts[0]:
                    _spare_hosts.add(conn)
                return conn
            conn.close()
        _avoided[host] = time.monotonic() + AVOIDED_SECONDS
        problems[host] = problem
    if refused is not None:
        raise refused
    told = "; ".join(f"{show_host(host)}: {problems[host]}" for host in spec.hosts)
    raise pymysql.err.OperationalError(2003, f"None of the database's hosts can be used: {told}")


def is_on_spare_host(conn: Connection) -> bool:
    """Whether a connection goes to another host than the first of its conn_str, as that could not be used."""
    return conn in _spare_hosts


def why_unfit(conn: Connection, writable: bool) -> str | None:
    """Why a server can't serve now, or None: it left its cluster (Galera), or is read-only.

    conn: a connection to it. writable: whether it must take writes.
    """
    with conn.cursor() as cursor:
        # The only statements that a node of Galera outside of its cluster answers.
        cursor.execute("SHOW STATUS LIKE 'wsrep_ready'")
        ready = dict(cursor.fetchall()).get("wsrep_ready")
        cursor.execute("SHOW VARIABLES WHERE Variable_name IN ('wsrep_on', 'read_only')")
        variables = dict(cursor.fetchall())
    if variables.get("wsrep_on") == "ON" and ready != "ON":
        return "it is not part of its Galera cluster"
    if writable and variables.get("read_only") not in (None, "OFF"):
        return "it is read-only"
    return None


def errno_of(error: BaseException) -> int | None:
    """The server's (or PyMySQL's) error number of a pymysql error, or None when it has none."""
    if isinstance(error, pymysql.err.MySQLError) and error.args and isinstance(error.args[0], int):
        return error.args[0]
    return None


def is_lost_connection(error: BaseException) -> bool:
    """Whether after this error the connection can't be used any more and must be thrown away."""
    if isinstance(error, pymysql.err.InterfaceError):
        return True  # PyMySQL's word for the use of a connection that it closed itself
    return isinstance(error, OSError) or errno_of(error) in LOST_CONNECTION_ERRNOS


def is_retryable(error: BaseException) -> bool:
    """Whether doing the whole transaction again, on a new connection if this one is lost, may help."""
    return is_lost_connection(error) or errno_of(error) in RETRYABLE_ERRNOS or _is_half_read_trigger(error)


def _is_half_read_trigger(error: BaseException) -> bool:
    # A node of Galera was just reading a trigger when another node's transaction went first and ended this
    # one: the table's entry in the server's cache stays spoilt until it is replaced. Other sessions may have
    # other entries.
    return errno_of(error) == 1064 and "has an error in its body" in str(error.args[-1])


def call_with_retry(
    fn: Callable[[], T],
    *,
    attempts: int = 8,
    base_delay: float = 0.02,
    max_delay: float = 1.0,
    retryable: Callable[[BaseException], bool] = is_retryable,
    on_retry: Callable[[BaseException, int], None] | None = None,
) -> T:
    """Call ``fn`` until it succeeds, fails for good, or ``attempts`` are used up; then raise its last error.

    ``fn`` must be one whole unit: it takes a good connection (a new one after a loss), does everything from
    the start of its transaction to the commit, and may be repeated after a commit whose answer was lost.

    attempts: number of calls in all. base_delay, max_delay: seconds; before try n+1 it sleeps a random time
    between 0 and min(max_delay, base_delay * 2**n) (full jitter, so that rivals don't meet again).
    retryable: which errors are worth another try. on_retry: told the error and the number of the failed try.
    """
    if attempts < 1:
        raise ValueError("attempts must be at least 1")
    for attempt in range(1, attempts + 1):
        try:
            return fn()
        except (pymysql.err.Error, OSError) as error:
            if attempt == attempts or not retryable(error):
                raise
            if on_retry is not None:
                on_retry(error, attempt)
        time.sleep(random.uniform(0, min(max_delay, base_delay * 2 ** (attempt - 1))))
    raise AssertionError("unreachable")
