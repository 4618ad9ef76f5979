"""Get a database server program onto a machine that has none.

As root on Debian and its relatives the package ``mariadb-server-core`` is installed, which holds the program
and starts no service. As another user the package, with the libraries that the machine lacks, is downloaded
and unpacked into the user's cache, from where :func:`jobmon.db.embedded.find_server` takes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from jobmon.config import cache_dir
from jobmon.db.embedded import (
    EmbeddedServerError,
    ServerBinaries,
    ServerNotFoundError,
    find_server,
    inspect_server,
    unpacked_root,
)

logger = logging.getLogger(__name__)

# The first that exists in a new enough version is taken.
PACKAGES = ("mariadb-server-core", "mysql-server-core", "mysql-server-core-8.4")

_HOW = (
    ("Debian, Ubuntu", ("debian", "ubuntu"), "apt-get install --no-install-recommends mariadb-server-core"),
    ("Fedora, RHEL, Rocky, Alma", ("fedora", "rhel", "centos"), "dnf install mariadb-server"),
    ("SUSE", ("suse", "opensuse"), "zypper install mariadb"),
    ("Arch", ("arch",), "pacman -S mariadb"),
    ("Alpine", ("alpine",), "apk add mariadb"),
    ("macOS", ("macos",), "brew install mariadb"),
    ("without root, any", (), "conda install -c conda-forge mysql-server"),
)


def _os_ids() -> set[str]:
    if os.uname().sysname == "Darwin":
        return {"macos"}
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        with contextlib.suppress(OSError):
            text = Path(path).read_text(encoding="utf-8", errors="replace")
            return {
                word
                for value in re.findall(r"^ID(?:_LIKE)?=(.*)$", text, re.MULTILINE)
                for word in value.strip().strip("\"'").lower().split()
            }
    return set()


def how_to_install() -> str:
    """What to install on this system, or on which system what if this one is not known."""
    ids = _os_ids()
    known = [command for _, names, command in _HOW if ids.intersection(names)]
    program = "or name a server program by JOBMON_DB_SERVER"
    if known:
        return f"MariaDB 10.11 or MySQL 8.4 is needed: {known[0]}; {program}"
    ways = "; ".join(f"{system}: {command}" for system, _, command in _HOW)
    return f"MariaDB 10.11 or MySQL 8.4 is needed: {ways}; {program}"


def install_server(*, as_root: bool | None = None) -> ServerBinaries:
    """Install a database server program, and start nothing.

    Parameters:
        as_root: install the package into the system (True) or unpack it into the user's cache (False); None:
            into the system if the current user is root.

    Returns:
        The installed program.

    Raises:
        ServerNotFoundError: it can't be installed on this system; the hint says what to install by hand.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg-deb") is None:
        raise ServerNotFoundError(
            "a database server can only be installed from here on Debian and its relatives", how_to_install()
        )
    if as_root is None:
        as_root = os.geteuid() == 0
    try:
        if as_root:
            return _install_system()
        return _install_unpacked()
    except _AptError as error:
        raise ServerNotFoundError(
            f"no database server could be installed: {error}", how_to_install()
        ) from None
    except OSError as error:
        place = f"{error.filename}: " if error.filename else ""
        raise ServerNotFoundError(
            f"no database server could be installed: {place}{error.strerror}", how_to_install()
        ) from None


class _AptError(Exception):
    """apt or dpkg-deb failed; the text is the last of what it said."""


def _run(command: Sequence[str | os.PathLike[str]], *, cwd: Path | None = None, timeout: float = 900) -> str:
    env = {**os.environ, "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
    try:
        result = subprocess.run(
            command,
            cwd=cwd,
            env=env,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=timeout,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise _AptError(str(error)) from None
    if result.returncode != 0:
        said = [
            line for line in (result.stderr or result.stdout).strip().splitlines() if line.startswith("E:")
        ]
        last = said or (result.stderr or result.stdout).strip().splitlines()
        raise _AptError(f"{Path(command[0]).name}: {' '.join(last[-2:]) or f'status {result.returncode}'}")
    return result.stdout


def _install_system() -> ServerBinaries:
    def attempt() -> None:
        complaints: list[str] = []
        for package in PACKAGES:
            try:
                logger.info("installing %s", package)
                # not instead of another product; and another apt may be at work for a while
                options = ["--no-install-recommends", "--no-remove", "-o", "DPkg::Lock::Timeout=120"]
                _run(["apt-get", "install", "-y", "-q", *options, package])
                return
            except _AptError as error:
                complaints.append(str(error))
        raise _AptError(complaints[0])

    try:
        attempt()
    except _AptError:
        # images come without package lists, and old lists name files that are gone
        _run(["apt-get", "update", "-q"])
        attempt()
    return find_server()


@contextlib.contextmanager
def _only_one(directory: Path) -> Iterator[None]:
    directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle = os.open(directory / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _install_unpacked() -> ServerBinaries:
    root = unpacked_root()
    with _only_one(root):
        # another process may have done it while this one waited
        with contextlib.suppress(ServerNotFoundError):
            return find_server()
        system: list[str] = ["-o", "Debug::NoLocking=1"]
        try:
            return _unpack_any(root, system)
        except _AptError as first:
            # The system's package lists are missing or old, and only root may renew them: use our own.
            apt = cache_dir() / "apt"
            for sub in ("lists/partial", "cache/archives/partial"):
                (apt / sub).mkdir(parents=True, exist_ok=True)
            own = [
                *system,
                "-o",
                f"Dir::State::Lists={apt / 'lists'}",
                "-o",
                f"Dir::Cache={apt / 'cache'}",
                "-o",
                "Dir::State::status=/var/lib/dpkg/status",
            ]
            logger.info("fetching package lists into %s", apt)
            try:
                _run(["apt-get", "-q", *own, "update"])
                binaries = _unpack_any(root, own)
                shutil.rmtree(apt, ignore_errors=True)
                return binaries
            except _AptError as second:
                raise _AptError(f"{first}; with package lists of its own: {second}") from None


def _unpack_any(root: Path, options: Sequence[str]) -> ServerBinaries:
    complaints: list[str] = []
    for package in PACKAGES:
        try:
            return _unpack(root, package, options)
        except (_AptError, EmbeddedServerError) as error:
            complaints.append(str(error))
    raise _AptError(complaints[0])


def _unpack(root: Path, package: str, options: Sequence[str]) -> ServerBinaries:
    # What would be installed: the package and what the machine lacks of its dependencies. --reinstall,
    # because the package may be there without its program being usable.
    simulate = ["apt-get", *options, "-s", "-q", "--no-install-recommends", "--reinstall"]
    try:
        plan = _run([*simulate, "install", package])
    except _AptError:
        # Something else on the machine is broken or in the way: plan as for an empty machine.
        plan = _run([*simulate, "-o", "Dir::State::status=/dev/null", "install", package])
    wanted = re.findall(r"^Inst (\S+) (?:\[[^\]]*\] )?\((\S+)", plan, re.MULTILINE)
    version = next((v for name, v in wanted if name == package), None)
    if version is None:
        raise _AptError(f"apt-get knows no {package} to download")
    tree = root / f"{package}_{version.replace(':', '%3a')}"
    fresh = tree.with_name(tree.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    with tempfile.TemporaryDirectory(prefix="download.", dir=root) as scratch:
        logger.info("downloading %s", ", ".join(name for name, _ in wanted))
        # apt-get checks the files against the signed package lists
        _run(["apt-get", *options, "-q", "download", *(f"{n}={v}" for n, v in wanted)], cwd=Path(scratch))
        for deb in sorted(Path(scratch).glob("*.deb")):
            _run(["dpkg-deb", "-x", deb, fresh])
    program = next((p for n in ("mariadbd", "mysqld") if (p := fresh / "usr" / "sbin" / n).is_file()), None)
    if program is None:
        raise _AptError(f"{package} {version} holds no server program")
    inspect_server(program)  # it runs, and is new enough
    shutil.rmtree(tree, ignore_errors=True)
    os.rename(fresh, tree)
    return inspect_server(tree / "usr" / "sbin" / program.name)
