"""A private MariaDB or MySQL server that runs as an ordinary process of the current user.

:func:`find_server` finds ``mariadbd`` or ``mysqld`` on the machine (:mod:`jobmon.db.install_server` gets one
if there is none); :class:`EmbeddedServer` initialises a data directory, starts the server and stops it. The
server listens on the loopback and on a Unix socket only; its one account is ``root@localhost`` (the socket)
with a generated password.

Beside a data directory ``DIR/data`` stand ``DIR/data.root.json`` (root's password, mode 0600),
``DIR/data.lock``, ``DIR/data.pid``, ``DIR/data.sock``, ``DIR/data.log`` and ``DIR/data.tmp``.

``python -m jobmon.db.embedded run --data-dir DIR --port PORT`` runs a server in the foreground until SIGTERM.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import glob
import hashlib
import json
import logging
import os
import random
import re
import secrets
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import click
import pymysql

from jobmon.config import cache_dir, fsync_dir, state_dir, write_private
from jobmon.db.connect import ConnectionSpec

logger = logging.getLogger(__name__)

SEARCH_DIRS = (
    "/usr/sbin",
    "/usr/local/sbin",
    "/usr/bin",
    "/usr/local/bin",
    "/usr/libexec",
    "/usr/local/mysql/bin",
    "/usr/local/mariadb/bin",
    "/opt/homebrew/bin",
)
SERVER_NAMES = ("mariadbd", "mysqld")
# JSON_TABLE, SKIP LOCKED, NO PAD collations and what else the schema needs
MIN_VERSION = {"mariadb": (10, 11), "mysql": (8, 4)}
PRODUCT = {"mariadb": "MariaDB", "mysql": "MySQL"}
MARKER = "jobmon_embedded.json"
# sun_path holds 108 bytes with the final NUL; mysqld wants to append ".lock" as well
MAX_SOCKET_PATH = 100
LOG_KEEP_BYTES = 10_000_000


class EmbeddedServerError(Exception):
    """The embedded server can't be found, initialised, started or stopped.

    Parameters:
        message: what went wrong; names the directory, port or program.
        hint: what to do about it, or "".
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} ({self.hint})" if self.hint else self.message


class ServerNotFoundError(EmbeddedServerError):
    """No usable MariaDB or MySQL server program is on this machine."""


class AlreadyRunningError(EmbeddedServerError):
    """A server (or its initialisation) is running on this data directory."""


class PortInUseError(EmbeddedServerError):
    """Something else listens on the port."""


class NotInitialisedError(EmbeddedServerError):
    """The data directory has not been initialised."""


# ----------------------------------------------------------------------------------------------------------
# The server program


@dataclass(frozen=True)
class ServerBinaries:
    """A server program and where its files are.

    Parameters:
        kind: ``mariadb`` or ``mysql``.
        version: major, minor and patch number.
        version_text: the version as the program says it.
        server: the program.
        basedir: the directory above its ``bin``, ``sbin`` or ``libexec``.
        share_dir: where its messages and (MariaDB) SQL scripts are.
        plugin_dir: where its plugins are, if anywhere.
        loader: the dynamic loader and its options, if the program needs another one than this machine's.
        library_dirs: directories of shared libraries it needs besides this machine's.
    """

    kind: str
    version: tuple[int, int, int]
    version_text: str
    server: Path
    basedir: Path
    share_dir: Path
    plugin_dir: Path | None = None
    loader: tuple[str, ...] = ()
    library_dirs: tuple[Path, ...] = ()

    @property
    def product(self) -> str:
        """``MariaDB`` or ``MySQL``."""
        return PRODUCT[self.kind]

    @property
    def command(self) -> list[str]:
        """The program, with the options that say where its files are."""
        command = [*self.loader, str(self.server), "--no-defaults", f"--basedir={self.basedir}"]
        command.append(f"--lc-messages-dir={self.share_dir}")
        if self.plugin_dir is not None:
            command.append(f"--plugin-dir={self.plugin_dir}")
        return command

    def environment(self) -> dict[str, str]:
        """The environment to run the program in."""
        return _server_environment(self.library_dirs)


def _server_environment(library_dirs: Sequence[Path]) -> dict[str, str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("MYSQL", "MARIADB"))}
    env["LC_ALL"] = "C"
    env["TZ"] = "UTC"
    if library_dirs:
        known = [p for p in env.get("LD_LIBRARY_PATH", "").split(":") if p]
        env["LD_LIBRARY_PATH"] = ":".join([*map(str, library_dirs), *known])
    return env


def unpacked_root(env: Mapping[str, str] | None = None) -> Path:
    """The directory into which :mod:`jobmon.db.install_server` unpacks servers, one directory each."""
    return cache_dir(env) / "db-server"


def find_server(
    where: str | os.PathLike[str] | None = None,
    *,
    kind: str | None = None,
    env: Mapping[str, str] | None = None,
) -> ServerBinaries:
    """Find a MariaDB (10.11 or newer) or MySQL (8.4 or newer) server program.

    Looks at ``where``, else ``$JOBMON_DB_SERVER``, else in ``$PATH``, the usual directories, and the user's
    cache; ``$JOBMON_DB_SEARCH`` (directories joined by ``:``) replaces ``$PATH`` and the usual directories.

    Parameters:
        where: the program, or the directory above its ``bin`` or ``sbin``.
        kind: ``mariadb`` or ``mysql`` if it must be that one.
        env: environment to look in; the process's own if None.

    Raises:
        ServerNotFoundError: there is none that is new enough; says what was found and why it was passed over.
    """
    env = os.environ if env is None else env
    named = where or env.get("JOBMON_DB_SERVER")
    passed_over: list[str] = []
    for program in _candidates(Path(named).expanduser() if named else None, env):
        try:
            binaries = inspect_server(program)
        except EmbeddedServerError as error:
            passed_over.append(error.message)
            continue
        if kind is not None and binaries.kind != kind:
            passed_over.append(f"{program} is {binaries.product}, not {PRODUCT[kind]}")
            continue
        return binaries
    wanted = PRODUCT[kind] if kind else "MariaDB or MySQL"
    reasons = "".join(f"; {reason}" for reason in passed_over)
    place = f" at {named}" if named else ""
    from jobmon.db.install_server import how_to_install

    raise ServerNotFoundError(f"no usable {wanted} server{place}{reasons}", how_to_install())


def _candidates(named: Path | None, env: Mapping[str, str]) -> Iterator[Path]:
    seen: set[Path] = set()

    def fresh(path: Path) -> bool:
        if not (os.path.isfile(path) and os.access(path, os.X_OK)):
            return False
        real = path.resolve()
        known = real in seen
        seen.add(real)
        return not known

    if named is not None:
        if os.path.isdir(named):
            places = [named / sub for sub in ("sbin", "bin", "libexec", "usr/sbin", "usr/bin", ".")]
            yield from (p / name for p in places for name in SERVER_NAMES if fresh(p / name))
        elif fresh(named):
            yield named.absolute()
        return
    search = env.get("JOBMON_DB_SEARCH") or ":".join([env.get("PATH", ""), *SEARCH_DIRS])
    for name in SERVER_NAMES:
        for directory in filter(None, search.split(":")):
            if fresh(Path(directory) / name):
                yield Path(directory, name).absolute()
    with contextlib.suppress(OSError):
        for tree in sorted(unpacked_root(env).iterdir(), key=lambda p: p.stat().st_mtime, reverse=True):
            for name in SERVER_NAMES:
                program = tree / "usr" / "sbin" / name
                if tree.suffix != ".new" and fresh(program):
                    yield program


def inspect_server(program: Path) -> ServerBinaries:
    """Ask a server program for its kind and version, and find its files.

    A program that was unpacked somewhere with its libraries is run with those.

    Parameters:
        program: path of ``mariadbd`` or ``mysqld``.

    Raises:
        EmbeddedServerError: it doesn't run, is too old, or its files are missing.
    """
    basedir = program.resolve().parent.parent
    attempts: list[tuple[tuple[str, ...], tuple[Path, ...]]] = [((), ())]
    root = basedir.parent
    if root != Path("/") and basedir.name == "usr":
        libraries = tuple(
            d
            for d in (*sorted(root.glob("usr/lib/*-linux-*")), *sorted(root.glob("lib/*-linux-*")))
            if d.is_dir()
        )
        if libraries:
            attempts.append(((), libraries))
        for loader in sorted(root.glob("usr/lib64/ld-linux*.so.*")) + sorted(
            root.glob("usr/lib/ld-linux*.so.*")
        ):
            attempts.append(((str(loader), "--library-path", ":".join(map(str, libraries))), ()))
    complaint = ""
    for loader_command, library_dirs in attempts:
        try:
            result = subprocess.run(
                [*loader_command, str(program), "--no-defaults", "--version"],
                env=_server_environment(library_dirs),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=60,
            )
        except (OSError, subprocess.SubprocessError) as error:
            complaint = complaint or str(error)
            continue
        match = re.search(r"Ver\s+(\S*?(\d+)\.(\d+)\.(\d+)\S*)", result.stdout)
        if result.returncode == 0 and match:
            break
        said = (result.stderr or result.stdout).strip().splitlines()
        complaint = complaint or (said[-1] if said else f"status {result.returncode}")
    else:
        raise EmbeddedServerError(f"{program} does not run: {complaint}")
    # not the whole line: it begins with the path
    kind = "mariadb" if "mariadb" in result.stdout[match.start() :].lower() else "mysql"
    version = (int(match[2]), int(match[3]), int(match[4]))
    if version[:2] < MIN_VERSION[kind]:
        least = ".".join(map(str, MIN_VERSION[kind]))
        raise EmbeddedServerError(f"{program} is {PRODUCT[kind]} {match[1]}, older than {least}")
    share = next(
        (
            d
            for d in (basedir / "share" / "mysql", basedir / "share" / "mariadb", basedir / "share")
            if (d / "english" / "errmsg.sys").is_file()
        ),
        None,
    )
    if share is None:
        raise EmbeddedServerError(
            f"{program} lacks its messages (share/mysql/english/errmsg.sys in {basedir})"
        )
    plugin_dir = next(
        (
            d
            for d in (
                basedir / sub
                for sub in (
                    "lib/mysql/plugin",
                    "lib64/mysql/plugin",
                    "lib64/mariadb/plugin",
                    "lib/mariadb/plugin",
                    "lib/plugin",
                )
            )
            if d.is_dir()
        ),
        None,
    )
    return ServerBinaries(
        kind, version, match[1], program, basedir, share, plugin_dir, loader_command, library_dirs
    )


# ----------------------------------------------------------------------------------------------------------
# Places and numbers


def default_data_dir(state: Path | None = None) -> Path:
    """The data directory of the embedded server: ``<state directory>/db/data``.

    Parameters:
        state: state directory; :func:`jobmon.config.state_dir` if None.
    """
    return (state or state_dir()) / "db" / "data"


def _root_file(data_dir: Path) -> Path:
    data_dir = Path(os.path.realpath(data_dir))
    return data_dir.with_name(data_dir.name + ".root.json")


def read_root_spec(data_dir: Path) -> ConnectionSpec:
    """How to reach the server of a data directory as root, over its socket.

    Parameters:
        data_dir: the data directory.

    Raises:
        NotInitialisedError: there is no password file, so it has not been initialised.
        EmbeddedServerError: the password file is malformed or can't be read.
    """
    path = _root_file(data_dir)
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        return ConnectionSpec(
            user=document["user"],
            password=document["password"],
            host=document["host"],
            port=document["port"],
            database=None,
            unix_socket=document["unix_socket"],
        )
    except FileNotFoundError:
        raise NotInitialisedError(f"{data_dir} has not been initialised: {path} does not exist") from None
    except OSError as error:
        raise EmbeddedServerError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise EmbeddedServerError(f"{path}: is malformed: {error!r}") from None


def socket_path(data_dir: Path) -> Path:
    """The Unix socket of a data directory: beside it, or in a private directory if that path is too long.

    Parameters:
        data_dir: the data directory.
    """
    beside = data_dir.with_name(data_dir.name + ".sock")
    if len(os.fsencode(beside)) <= MAX_SOCKET_PATH:
        return beside
    digest = hashlib.sha256(os.fsencode(data_dir)).hexdigest()[:12]
    return Path("/tmp", f"jobmon-{os.getuid()}-{digest}", "db.sock")


# What systems give away by themselves, to outgoing connections, is above.
_PORTS = range(20_000, 23_000)


def free_port() -> int:
    """A loopback TCP port that nothing uses now.

    No outgoing connection takes it either, while its server is down.

    Raises:
        PortInUseError: there is none.
    """
    for port in random.sample(_PORTS, len(_PORTS)):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise PortInUseError(
        f"all ports from {_PORTS[0]} to {_PORTS[-1]} are in use", "choose another by db_port"
    )


def default_buffer_pool() -> int:
    """Bytes of InnoDB buffer pool for this machine: an eighth of the memory, between 128 MiB and 1 GiB."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with contextlib.suppress(OSError, ValueError):
            memory = min(memory, int(Path(limit).read_text()))
    mebibyte = 1 << 20
    return max(128 * mebibyte, min(1024 * mebibyte, memory // 8)) // mebibyte * mebibyte


def _make_private(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise EmbeddedServerError(f"{directory}: cannot be made: {error.strerror}") from None


def _tail(text: str, lines: int = 12) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])


_HINTS = (
    (r"[Nn]o space left|errno: 28|error: 28", "the disk is full"),
    (r"Address already in use", "another server listens on this port: choose another"),
    (r"Unable to lock", "another server process still uses this directory"),
    (
        r"Permission denied|errno: 13|error: 13",
        "the directory must belong to the current user; a profile of AppArmor or SELinux may also forbid it: "
        "see `dmesg`",
    ),
    (r"[Cc]annot allocate memory|errno: 12|error: 12", "there is too little memory"),
    (r"corrupt", "the data may be damaged: keep a copy of the directory before you try anything"),
)


def _hint_from_log(text: str) -> str:
    return next((hint for pattern, hint in _HINTS if re.search(pattern, text)), "")


# ----------------------------------------------------------------------------------------------------------
# The server


class EmbeddedServer:
    """A database server on one data directory.

    As a context manager it starts the server and stops it at the end.

    Parameters:
        data_dir: its data directory, made at the first start; :func:`default_data_dir` if None.
        port: loopback TCP port; of the last start, or a free one at the first, if None.
        binaries: the server program; the one that :func:`find_server` finds if None.
        durable: whether a commit is on the disk before it is acknowledged. Without it (for tests) commits
            survive the death of the server, but not of the machine.
        buffer_pool_bytes: size of the InnoDB buffer pool; see :func:`default_buffer_pool` if None.
        max_connections: most connections at once.
        extra_args: further options of the server; they win.
        log_file: where :meth:`start` lets the server write its messages; ``<data_dir>.log`` if None.
    """

    def __init__(
        self,
        data_dir: str | os.PathLike[str] | None = None,
        port: int | None = None,
        *,
        binaries: ServerBinaries | None = None,
        durable: bool = True,
        buffer_pool_bytes: int | None = None,
        max_connections: int = 300,
        extra_args: Sequence[str] = (),
        log_file: str | os.PathLike[str] | None = None,
    ) -> None:
        # resolved, so that two names of one directory have one lock
        self.data_dir = Path(os.path.realpath(data_dir or default_data_dir()))
        self.durable = durable
        self.buffer_pool_bytes = buffer_pool_bytes
        self.max_connections = max_connections
        self.extra_args = tuple(extra_args)
        self.log_file = Path(log_file) if log_file else self._beside(".log")
        self.socket = socket_path(self.data_dir)
        self.pid_file = self._beside(".pid")
        self.tmp_dir = self._beside(".tmp")
        self.lock_file = self._beside(".lock")
        self.root_file = _root_file(self.data_dir)
        self._binaries = binaries
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    def __repr__(self) -> str:
        return f"EmbeddedServer({str(self.data_dir)!r}, port={self._port})"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _beside(self, suffix: str) -> Path:
        return self.data_dir.with_name(self.data_dir.name + suffix)

    # -- what it is

    @property
    def port(self) -> int:
        """Its loopback TCP port."""
        if self._port is None:
            try:
                self._port = read_root_spec(self.data_dir).port
            except NotInitialisedError:
                self._port = free_port()
        return self._port

    @property
    def binaries(self) -> ServerBinaries:
        """The server program; for an initialised directory one of the kind that made it.

        Raises:
            ServerNotFoundError: there is none.
        """
        if self._binaries is None:
            marker = self._marker()
            self._binaries = find_server(kind=marker["kind"] if marker else None)
        return self._binaries

    @property
    def root_spec(self) -> ConnectionSpec:
        """How to reach it as root, over its socket.

        Raises:
            NotInitialisedError: the directory has not been initialised.
        """
        return read_root_spec(self.data_dir)

    @property
    def pid(self) -> int | None:
        """Process id of the running server, whoever started it; None if none runs."""
        if self._process is not None and self._process.poll() is None:
            return self._process.pid
        if not self._locked():
            return None
        try:
            pid = int(self.pid_file.read_text())
            os.kill(pid, 0)
        except (OSError, ValueError):
            return None
        with contextlib.suppress(OSError):
            if os.fsencode(f"--datadir={self.data_dir}") not in Path(f"/proc/{pid}/cmdline").read_bytes():
                return None
        return pid

    def is_running(self) -> bool:
        """Whether a server process works on the directory, whoever started it; it need not be ready yet."""
        if self._process is not None and self._process.poll() is None:
            return True
        return self._locked()

    def is_ready(self) -> bool:
        """Whether the server answers a query."""
        try:
            return self._ping() is None
        except EmbeddedServerError:
            return False

    @property
    def is_initialised(self) -> bool:
        """Whether the directory holds a complete database that was made by this class."""
        return self._marker() is not None

    def _marker(self) -> dict[str, Any] | None:
        path = self.data_dir / MARKER
        try:
            document: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            if document["kind"] not in PRODUCT:
                raise ValueError(document["kind"])
            return document
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise EmbeddedServerError(f"{path}: cannot be read: {error.strerror}") from None
        except (ValueError, KeyError, TypeError) as error:
            raise EmbeddedServerError(f"{path}: is malformed: {error!r}") from None

    # -- the lock: an flock that the server process inherits, so it is held exactly as long as that lives

    def _lock(self) -> int:
        _make_private(self.data_dir.parent)
        try:
            handle = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise EmbeddedServerError(f"{self.lock_file}: cannot be opened: {error.strerror}") from None
        # a few attempts: somebody who asks by _locked() holds it for a moment
        for attempt in range(10):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return handle
            except OSError as error:
                if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                    os.close(handle)
                    raise EmbeddedServerError(
                        f"{self.lock_file}: cannot be locked: {error.strerror}"
                    ) from None
            time.sleep(0.01 * attempt)
        os.close(handle)
        pid = self.pid
        raise AlreadyRunningError(
            f"a server is already running on {self.data_dir}" + (f" (process {pid})" if pid else ""),
            "stop it first, or use another directory",
        )

    def _locked(self) -> bool:
        try:
            handle = os.open(self.lock_file, os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            return False
        try:
            # shared: two who only ask don't take each other for a server
            fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(handle)
        return False

    # -- initialising

    def ensure_initialised(self) -> bool:
        """Make the database if there is none; an interrupted attempt is made anew.

        Returns:
            Whether it was made now.

        Raises:
            AlreadyRunningError: a server is running on the directory, or somebody else is initialising it.
            EmbeddedServerError: it could not be made, or the directory holds something else.
        """
        if self.is_initialised:
            return False
        lock = self._lock()
        try:
            return self._initialise()
        finally:
            os.close(lock)

    def _initialise(self) -> bool:
        for abandoned in self.data_dir.parent.glob(f"{glob.escape(self.data_dir.name)}.new.*"):
            shutil.rmtree(abandoned, ignore_errors=True)
        if self.is_initialised:
            return False
        if self.data_dir.exists() and (not self.data_dir.is_dir() or any(self.data_dir.iterdir())):
            raise EmbeddedServerError(
                f"{self.data_dir} is not empty and was not made by jobmon", "choose another directory"
            )
        binaries = self.binaries
        # Built beside and renamed at the end: the directory is there whole or not at all. A new name each
        # time: the server program of an attempt whose parent was killed may still be writing.
        fresh = Path(tempfile.mkdtemp(prefix=f"{self.data_dir.name}.new.", dir=self.data_dir.parent))
        password = secrets.token_urlsafe(24)
        logger.info("initialising %s in %s", binaries.product, self.data_dir)
        try:
            if binaries.kind == "mariadb":
                self._bootstrap_mariadb(binaries, fresh, password)
            else:
                self._bootstrap_mysql(binaries, fresh, password)
            marker = {"kind": binaries.kind, "version": list(binaries.version)}
            write_private(fresh / MARKER, json.dumps(marker) + "\n")
            self._write_root_file(password)
            if self.data_dir.exists():
                self.data_dir.rmdir()
            os.rename(fresh, self.data_dir)
            fsync_dir(self.data_dir.parent)
        except OSError as error:
            mounted = error.errno in (errno.EBUSY, errno.EXDEV)
            hint = "it is a mount point: use a directory below it" if mounted else _hint_from_log(str(error))
            raise EmbeddedServerError(
                f"{self.data_dir} could not be made: {error.strerror or error}", hint
            ) from None
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return True

    def _write_root_file(self, password: str) -> None:
        document = {
            "user": "root",
            "password": password,
            "host": "localhost",
            "port": self.port,
            "unix_socket": str(self.socket),
        }
        write_private(self.root_file, json.dumps(document, indent=2) + "\n")

    def _bootstrap_mariadb(self, binaries: ServerBinaries, target: Path, password: str) -> None:
        # What mariadb-install-db does, without the client programs that it needs; no test database, no
        # anonymous account, no help tables.
        parts = ["CREATE DATABASE mysql;\nUSE mysql;\nSET @auth_root_socket='root';\n"]
        for name in ("system_tables", "performance_tables", "system_tables_data", "gis", "sys_schema"):
            names = (
                ["maria_add_gis_sp_bootstrap.sql"]
                if name == "gis"
                else [f"mysql_{name}.sql", f"mariadb_{name}.sql"]
            )
            path = next((binaries.share_dir / n for n in names if (binaries.share_dir / n).is_file()), None)
            if path is None:
                raise EmbeddedServerError(f"{binaries.server} lacks {binaries.share_dir / names[0]}")
            parts.append(path.read_text(encoding="utf-8"))
        # One statement a line here. The GRANT of PROXY is what root needs to hand on all of its rights.
        parts.append(
            "FLUSH PRIVILEGES;\n"
            f"ALTER USER root@localhost IDENTIFIED VIA mysql_native_password USING PASSWORD('{password}');\n"
            "DELETE FROM mysql.global_priv WHERE (user, host) NOT IN "
            "(('root', 'localhost'), ('mariadb.sys', 'localhost'));\n"
            "DELETE FROM mysql.proxies_priv;\n"
            "INSERT INTO mysql.proxies_priv VALUES ('localhost', 'root', '', '', 1, '', NOW());\n"
        )
        # Servers that share a directory for temporary tables remove each other's.
        with tempfile.TemporaryDirectory(prefix="init.", dir=self.data_dir.parent) as scratch:
            self._run_once(
                [
                    *binaries.command,
                    *self._user_args(),
                    "--bootstrap",
                    f"--datadir={target}",
                    f"--tmpdir={scratch}",
                    "--skip-log-bin",
                    "--log-warnings=0",
                    "--enforce-storage-engine=",
                    "--max-allowed-packet=64M",
                    "--innodb-buffer-pool-size=64M",
                ],
                binaries,
                "\n".join(parts),
            )

    def _bootstrap_mysql(self, binaries: ServerBinaries, target: Path, password: str) -> None:
        with tempfile.TemporaryDirectory(prefix="init.", dir=self.data_dir.parent) as scratch:
            script = Path(scratch, "init.sql")
            write_private(script, f"ALTER USER root@localhost IDENTIFIED BY '{password}';\n")
            self._run_once(
                [
                    *binaries.command,
                    *self._user_args(),
                    "--initialize-insecure",
                    f"--init-file={script}",
                    f"--datadir={target}",
                    "--performance-schema=OFF",
                    "--innodb-buffer-pool-size=64M",
                    # made whole or not at all, so it need not be durable while it is being made
                    "--innodb-flush-log-at-trx-commit=0",
                ],
                binaries,
                "",
            )

    def _run_once(self, command: Sequence[str], binaries: ServerBinaries, text: str) -> None:
        try:
            result = subprocess.run(
                command,
                env=binaries.environment(),
                cwd=self.data_dir.parent,
                input=text.encode(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                timeout=600,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise EmbeddedServerError(
                f"{binaries.server} could not initialise {self.data_dir}: {error}"
            ) from None
        output = result.stdout.decode(errors="replace")
        if result.returncode != 0:
            raise EmbeddedServerError(
                f"{binaries.server} could not initialise {self.data_dir}, status {result.returncode}:\n"
                + _tail(output),
                _hint_from_log(output),
            )

    # -- running

    @staticmethod
    def _user_args() -> list[str]:
        # mysqld refuses to run as root unless told so. No other account can be relied on (server-core makes
        # none, and it could not enter /root); the FILE privilege is confined by secure_file_priv.
        return ["--user=root"] if os.geteuid() == 0 else []

    def arguments(self) -> list[str]:
        """The command line of the server."""
        binaries = self.binaries
        pool = self.buffer_pool_bytes or default_buffer_pool()
        options = {
            "datadir": self.data_dir,
            "socket": self.socket,
            "port": self.port,
            "bind-address": "127.0.0.1",
            "pid-file": self.pid_file,
            "tmpdir": self.tmp_dir,
            "secure-file-priv": self.tmp_dir if binaries.kind == "mariadb" else "NULL",
            "local-infile": "OFF",
            "skip-name-resolve": "ON",
            "character-set-server": "utf8mb4",
            "default-time-zone": "+00:00",
            "transaction-isolation": "READ-COMMITTED",
            "max-connections": self.max_connections,
            "max-allowed-packet": "64M",
            "group-concat-max-len": 16 << 20,
            "event-scheduler": "OFF",
            # On MySQL, DROP PROCEDURE would take away the grants on it; a redeploy must not.
            "automatic-sp-privileges": "OFF",
            "log-bin-trust-function-creators": "ON",
            "sync-binlog": 1 if self.durable else 0,
            "innodb-flush-log-at-trx-commit": 1 if self.durable else 2,
            "innodb-doublewrite": "ON",
            "innodb-buffer-pool-size": pool,
            "innodb-lock-wait-timeout": 20,
            "innodb-print-all-deadlocks": "OFF",
            # 2 is MySQL's default: INSERT ... SELECT holds no table lock
            "innodb-autoinc-lock-mode": 2,
            "performance-schema": "OFF",
        }
        if binaries.kind == "mysql":
            options["mysqlx"] = "OFF"
        return [
            *binaries.command,
            *self._user_args(),
            *(f"--{name}={value}" for name, value in options.items()),
            "--skip-log-bin",
            *self.extra_args,
        ]

    def _prepare(self, lock: int) -> list[str]:
        self._initialise()
        self._check_version()
        spec = self.root_spec
        self._check_port()
        if (spec.port, spec.unix_socket) != (self.port, str(self.socket)):
            self._write_root_file(spec.password)
        self._prepare_socket_dir()
        # The lock is ours, so these are left-overs. MySQL would refuse a socket.lock whose pid lives again.
        for stale in (self.socket, Path(f"{self.socket}.lock"), self.pid_file):
            with contextlib.suppress(FileNotFoundError):
                stale.unlink()
        shutil.rmtree(self.tmp_dir, ignore_errors=True)
        _make_private(self.tmp_dir)
        os.ftruncate(lock, 0)
        return self.arguments()

    def _check_version(self) -> None:
        marker = self._marker()
        binaries = self.binaries
        if marker is None:
            return
        made_by = tuple(marker.get("version", ()))
        if marker["kind"] != binaries.kind:
            raise EmbeddedServerError(
                f"{self.data_dir} was made by {PRODUCT[marker['kind']]}, but {binaries.server} is "
                f"{binaries.product}",
                f"install {PRODUCT[marker['kind']]}, or use another directory",
            )
        if binaries.version[:2] < made_by[:2]:
            raise EmbeddedServerError(
                f"{self.data_dir} was used by {binaries.product} {'.'.join(map(str, made_by))}, which is "
                f"newer than {binaries.server} ({binaries.version_text})",
                "a database server can't go back: install the newer one",
            )
        if binaries.version > made_by:
            if binaries.kind == "mariadb" and binaries.version[:2] > made_by[:2]:
                # MySQL brings its own tables up to date by itself
                logger.warning(
                    "MariaDB is newer than it was: run `mariadb-upgrade --socket=%s` once it is up",
                    self.socket,
                )
            marker["version"] = list(binaries.version)
            write_private(self.data_dir / MARKER, json.dumps(marker) + "\n")

    def _check_port(self) -> None:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", self.port))
            except OSError as error:
                if error.errno == errno.EADDRINUSE:
                    raise PortInUseError(
                        f"port {self.port} is in use by another program",
                        "choose another by db_port in ~/.jobmonrc or JOBMON_DB_PORT",
                    ) from None
                raise EmbeddedServerError(f"port {self.port} can't be used: {error.strerror}") from None

    def _prepare_socket_dir(self) -> None:
        directory = self.socket.parent
        if directory == self.data_dir.parent:
            return
        _make_private(directory)
        found = directory.lstat()
        # It is in /tmp: another user may have made it first.
        if (
            not stat.S_ISDIR(found.st_mode)
            or found.st_uid != os.geteuid()
            or stat.S_IMODE(found.st_mode) & 0o077
        ):
            raise EmbeddedServerError(
                f"{directory} is not a private directory of this user",
                "remove it, or use a shorter data directory",
            )

    def start(self, timeout: float = 300.0) -> None:
        """Start the server (after initialising the directory, at the first time) and wait until it answers.

        It runs on when this process ends without :meth:`stop`.

        Parameters:
            timeout: seconds to wait for it; the recovery after a crash may take a while.

        Raises:
            AlreadyRunningError: a server is running on the directory.
            PortInUseError: something else listens on the port.
            ServerNotFoundError: there is no server program.
            EmbeddedServerError: it did not start; the message ends with the last lines of its log.
        """
        lock = self._lock()
        try:
            command = self._prepare(lock)
            with self._open_log() as log:
                begin = log.tell()
                self._process = subprocess.Popen(
                    command,
                    env=self.binaries.environment(),
                    cwd=self.data_dir,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    pass_fds=(lock,),
                    # Ctrl-C in a terminal is for us; we stop the server when it is time
                    start_new_session=True,
                )
        except OSError as error:
            raise EmbeddedServerError(f"{self.binaries.server} could not be started: {error}") from None
        finally:
            os.close(lock)
        try:
            self.wait_ready(timeout)
        except BaseException as error:
            self.stop()
            if isinstance(error, EmbeddedServerError):
                with open(self.log_file, "rb") as reader:
                    reader.seek(begin)
                    text = reader.read().decode(errors="replace")
                raise EmbeddedServerError(
                    f"{error.message}; the end of {self.log_file}:\n{_tail(text)}",
                    error.hint or _hint_from_log(text),
                ) from None
            raise

    def _open_log(self) -> IO[bytes]:
        with contextlib.suppress(FileNotFoundError):
            if self.log_file.stat().st_size > LOG_KEEP_BYTES:
                os.replace(self.log_file, self.log_file.with_name(self.log_file.name + ".1"))
        handle = os.open(self.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        log = os.fdopen(handle, "ab")
        log.seek(0, os.SEEK_END)
        return log

    def exec_server(self) -> None:
        """Replace this process by the server, for a supervisor; initialises the directory at the first time.

        A signal to this process is then a signal to the server: SIGTERM stops it cleanly. Its messages go to
        standard error. Returns only by an error.

        Raises:
            AlreadyRunningError, PortInUseError, ServerNotFoundError, EmbeddedServerError: as :meth:`start`.
        """
        lock = self._lock()
        try:
            command = self._prepare(lock)
            os.chdir(self.data_dir)
            os.set_inheritable(lock, True)
            sys.stdout.flush()
            sys.stderr.flush()
            os.execve(command[0], command, self.binaries.environment())
        except OSError as error:
            raise EmbeddedServerError(f"{self.binaries.server} could not be started: {error}") from None
        finally:
            os.close(lock)

    def wait_ready(self, timeout: float = 300.0) -> None:
        """Wait until the server answers a query.

        Parameters:
            timeout: seconds.

        Raises:
            EmbeddedServerError: it ended, refuses root's password, or did not answer in time.
        """
        deadline = time.monotonic() + timeout
        pause = 0.02
        while True:
            if self._process is not None and self._process.poll() is not None:
                raise EmbeddedServerError(
                    f"the database server on {self.data_dir} ended with status {self._process.returncode}"
                )
            complaint = self._ping()
            if complaint is None:
                return
            if time.monotonic() > deadline:
                raise EmbeddedServerError(
                    f"the database server on {self.data_dir} did not answer within {timeout:g} s: {complaint}"
                )
            time.sleep(pause)
            pause = min(pause * 1.5, 0.25)

    def _ping(self) -> str | None:
        try:
            spec = self.root_spec
            connection = pymysql.connect(
                user=spec.user,
                password=spec.password,
                unix_socket=str(self.socket),
                connect_timeout=5,
                read_timeout=5,
            )
            try:
                with connection.cursor() as cursor:
                    cursor.execute("SELECT 1")
            finally:
                connection.close()
        except NotInitialisedError as error:
            return error.message
        except pymysql.MySQLError as error:
            if error.args and error.args[0] == 1045:
                raise EmbeddedServerError(
                    f"the server on {self.data_dir} refuses the password in {self.root_file}",
                    "set root's password to the one in that file",
                ) from None
            return str(error)
        return None

    def stop(self, timeout: float = 120.0) -> None:
        """Stop the server cleanly, whoever started it; nothing happens if none runs.

        Parameters:
            timeout: seconds to wait before it is killed (it recovers at the next start).

        Raises:
            EmbeddedServerError: a server runs but its process can't be found or signalled.
        """
        pid = self.pid
        if pid is None:
            # perhaps it is only just starting and has not written its pid file
            deadline = time.monotonic() + min(timeout, 30)
            while pid is None and self._locked() and time.monotonic() < deadline:
                time.sleep(0.1)
                pid = self.pid
            if pid is None:
                self._process = None
                if self._locked():
                    raise EmbeddedServerError(
                        f"a server runs on {self.data_dir}, but its process is not in {self.pid_file}"
                    )
                return
        self._signal(pid, signal.SIGTERM)
        if not self._wait_gone(timeout):
            logger.warning(
                "the database server on %s did not stop within %g s: killing it", self.data_dir, timeout
            )
            self._signal(pid, signal.SIGKILL)
            self._wait_gone(30)
        self._process = None

    @staticmethod
    def _signal(pid: int, number: signal.Signals) -> None:
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:
            raise EmbeddedServerError(f"process {pid} belongs to another user") from None

    def _wait_gone(self, timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if self._process is not None:
                self._process.poll()  # reaps it
            if not self._locked() and (self._process is None or self._process.returncode is not None):
                return True
            time.sleep(0.02)
        return False

    def kill(self) -> None:
        """Kill the server at once (SIGKILL), as a crash would; the next start recovers.

        Raises:
            EmbeddedServerError: no server runs.
        """
        pid = self.pid
        if pid is None:
            raise EmbeddedServerError(f"no server runs on {self.data_dir}")
        self._signal(pid, signal.SIGKILL)
        self._wait_gone(30)
        self._process = None


# ----------------------------------------------------------------------------------------------------------
# python -m jobmon.db.embedded


@click.group(help="A private MariaDB or MySQL server.")
def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(message)s", stream=sys.stderr)


def _options(command: Any) -> Any:
    for option in (
        click.option(
            "--server", type=click.Path(), help="Server program, or the directory above its bin or sbin."
        ),
        click.option("--port", type=click.IntRange(1, 65535), help="Loopback TCP port."),
        click.option("--data-dir", type=click.Path(), help="Data directory."),
    ):
        command = option(command)
    return command


def _server(data_dir: str | None, port: int | None, server: str | None, **options: Any) -> EmbeddedServer:
    binaries = find_server(server) if server else None
    return EmbeddedServer(data_dir, port, binaries=binaries, **options)


@contextlib.contextmanager
def _click_errors() -> Iterator[None]:
    try:
        yield
    except EmbeddedServerError as error:
        raise click.ClickException(error.message + (f"\nHint: {error.hint}" if error.hint else "")) from None


@main.command(help="Run the server in the foreground until SIGTERM (or, in a terminal, Ctrl-C).")
@_options
@click.option("--install", is_flag=True, help="Install a server program if there is none.")
@click.option("--not-durable", is_flag=True, help="Don't wait for the disk at each commit (for tests).")
@click.option("--buffer-pool-mb", type=click.IntRange(8), help="InnoDB buffer pool, MiB.")
def run(
    data_dir: str | None,
    port: int | None,
    server: str | None,
    install: bool,
    not_durable: bool,
    buffer_pool_mb: int | None,
) -> None:
    with _click_errors():
        pool = buffer_pool_mb * (1 << 20) if buffer_pool_mb else None
        embedded = _server(data_dir, port, server, durable=not not_durable, buffer_pool_bytes=pool)
        if install:
            from jobmon.db.install_server import install_server

            try:
                _ = embedded.binaries
            except ServerNotFoundError:
                embedded._binaries = install_server()
        if not sys.stdin.isatty():
            embedded.exec_server()
        # mysqld ignores Ctrl-C, so a terminal gets somebody to translate it
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        with embedded:
            click.echo(f"ready on 127.0.0.1:{embedded.port} and {embedded.socket}; Ctrl-C stops it", err=True)
            with contextlib.suppress(KeyboardInterrupt):
                while embedded.is_running():
                    time.sleep(0.5)


@main.command(help="Initialise the data directory, if that has not been done.")
@_options
def init(data_dir: str | None, port: int | None, server: str | None) -> None:
    with _click_errors():
        embedded = _server(data_dir, port, server)
        done = embedded.ensure_initialised()
        click.echo(f"{embedded.data_dir}: {'initialised' if done else 'was initialised before'}")


@main.command(help="Stop the server of the data directory.")
@_options
def stop(data_dir: str | None, port: int | None, server: str | None) -> None:
    with _click_errors():
        _server(data_dir, port, server).stop()


@main.command(help="Say whether the server of the data directory runs; status 1 if it does not.")
@_options
def status(data_dir: str | None, port: int | None, server: str | None) -> None:
    with _click_errors():
        embedded = _server(data_dir, port, server)
        if not embedded.is_running():
            click.echo(f"{embedded.data_dir}: not running")
            sys.exit(1)
        ready = "ready" if embedded.is_ready() else "starting"
        click.echo(f"{embedded.data_dir}: {ready}, process {embedded.pid}, port {embedded.port}")


if __name__ == "__main__":
    main()
