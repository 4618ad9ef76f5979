"""Finding a server program, and getting one where there is none."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
import pymysql
import pytest

import jobmon
from jobmon.db import embedded, install_server
from jobmon.db.embedded import (
    EmbeddedServerError,
    ServerBinaries,
    ServerNotFoundError,
    find_server,
    inspect_server,
)

NOBODY = 54321


def program(path: Path, version: str, status: int = 0) -> Path:
    """A make-believe server program, with what is needed beside it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\necho '{path} Ver {version} for Linux'\nexit {status}\n")
    path.chmod(0o755)
    messages = path.parent.parent / "share" / "mysql" / "english" / "errmsg.sys"
    messages.parent.mkdir(parents=True, exist_ok=True)
    messages.touch()
    return path


def search(*directories: Path, home: Path) -> dict[str, str]:
    return {"JOBMON_DB_SEARCH": ":".join(map(str, directories)), "HOME": str(home)}


# -- finding


def test_a_real_server_is_found(binaries: ServerBinaries) -> None:
    assert binaries.version[:2] >= embedded.MIN_VERSION[binaries.kind]
    assert (binaries.share_dir / "english" / "errmsg.sys").is_file()
    assert find_server(binaries.server) == binaries
    assert find_server(binaries.server.parent.parent, kind=binaries.kind).kind == binaries.kind
    assert find_server(env={"JOBMON_DB_SERVER": str(binaries.server)}) == binaries


def test_mariadb_is_taken_before_mysql_and_a_kind_can_be_asked_for(tmp_path: Path) -> None:
    mysql = program(tmp_path / "a/sbin/mysqld", "9.7.4")
    mariadb = program(tmp_path / "b/sbin/mariadbd", "11.8.2-MariaDB-1")
    env = search(mysql.parent, mariadb.parent, home=tmp_path)
    assert find_server(env=env).server == mariadb
    found = find_server(env=env, kind="mysql")
    assert (found.server, found.kind, found.version, found.version_text) == (
        mysql,
        "mysql",
        (9, 7, 4),
        "9.7.4",
    )
    assert found.product == "MySQL"


def test_an_unpacked_server_is_found(tmp_path: Path) -> None:
    root = tmp_path / ".cache/jobmon/db-server"
    program(root / "half.new/usr/sbin/mariadbd", "10.11.1-MariaDB")
    mine = program(root / "whole/usr/sbin/mariadbd", "10.11.1-MariaDB")
    assert find_server(env=search(Path("/none"), home=tmp_path)).server == mine


def test_what_was_passed_over_is_said(tmp_path: Path) -> None:
    old = program(tmp_path / "a/sbin/mariadbd", "10.6.12-MariaDB")
    broken = program(tmp_path / "b/sbin/mysqld", "9.0.0", status=1)
    bare = program(tmp_path / "c/sbin/mysqld", "9.0.0")
    shutil.rmtree(tmp_path / "c/share")
    with pytest.raises(ServerNotFoundError) as caught:
        find_server(env=search(old.parent, broken.parent, bare.parent, home=tmp_path))
    assert f"{old} is MariaDB 10.6.12-MariaDB, older than 10.11" in caught.value.message
    assert f"{broken} does not run" in caught.value.message
    assert f"{bare} lacks its messages" in caught.value.message
    assert "MariaDB 10.11 or MySQL 8.4 is needed" in caught.value.hint
    with pytest.raises(ServerNotFoundError, match=r"no usable MySQL server.*is MariaDB, not MySQL"):
        find_server(program(tmp_path / "d/sbin/mariadbd", "10.11.1-MariaDB"), kind="mysql")


def test_a_program_that_is_none_is_named(tmp_path: Path) -> None:
    path = tmp_path / "sbin" / "mysqld"
    path.parent.mkdir()
    path.write_bytes(b"\x7fELF nonsense")
    path.chmod(0o755)
    with pytest.raises(EmbeddedServerError, match=rf"^{path} does not run: "):
        inspect_server(path)


def test_the_environment_of_a_server_is_clean(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("MYSQL_TCP_PORT", "1")
    monkeypatch.setenv("LD_LIBRARY_PATH", "/x")
    binaries = ServerBinaries(
        "mysql", (9, 0, 0), "9", tmp_path, tmp_path, tmp_path, None, (), (Path("/lib1"),)
    )
    environment = binaries.environment()
    assert "MYSQL_TCP_PORT" not in environment
    assert environment["LD_LIBRARY_PATH"] == "/lib1:/x"


# -- saying what to install


@pytest.mark.parametrize(
    ("ids", "expected"),
    [
        ({"ubuntu", "debian"}, "apt-get install --no-install-recommends mariadb-server-core"),
        ({"rocky", "rhel", "centos", "fedora"}, "dnf install mariadb-server"),
        ({"opensuse-leap", "suse"}, "zypper install mariadb"),
        ({"alpine"}, "apk add mariadb"),
        ({"macos"}, "brew install mariadb"),
        (set(), "macOS: brew install mariadb; without root, any: conda install"),
    ],
)
def test_the_hint_suits_the_system(ids: set[str], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install_server, "_os_ids", lambda: ids)
    assert expected in install_server.how_to_install()


def test_where_there_is_no_apt_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(install_server, "_os_ids", lambda: {"alpine"})
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(ServerNotFoundError, match=r"Debian and its relatives.*apk add mariadb"):
        install_server.install_server()


# -- as root, with a make-believe apt-get


@pytest.fixture
def apt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An apt-get that knows packages only after an update; returns the file of its calls."""
    calls = tmp_path / "calls"
    source = program(tmp_path / "pool/sbin/mariadbd", "10.11.9-MariaDB")
    target = tmp_path / "system"
    script = tmp_path / "bin" / "apt-get"
    script.parent.mkdir()
    script.write_text(
        "#!/bin/sh\n"
        f'echo "$DEBIAN_FRONTEND $*" >> {calls}\n'
        f'case "$*" in update*) [ ! -e {tmp_path}/offline ] || {{ echo "E: no network" >&2; exit 100; }}\n'
        f"  touch {tmp_path}/lists;;\n"
        f"*mariadb-server-core) [ -e {tmp_path}/lists ] || {{ echo 'E: no candidate' >&2; exit 100; }}\n"
        f"  cp -r {source.parent.parent} {target};;\n"
        "*) echo 'E: unknown package' >&2; exit 100;; esac\n"
    )
    script.chmod(0o755)
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("JOBMON_DB_SEARCH", str(target / "sbin"))
    monkeypatch.setenv("JOBMON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.delenv("JOBMON_DB_SERVER", raising=False)
    return calls


def test_root_installs_the_core_package_after_an_update_if_need_be(apt: Path, tmp_path: Path) -> None:
    binaries = install_server.install_server(as_root=True)
    assert binaries.server == tmp_path / "system/sbin/mariadbd"
    lines = apt.read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["install"] * 3 + ["update", "install"]
    assert all(line.startswith("noninteractive ") for line in lines)
    assert all("--no-install-recommends --no-remove" in line for line in lines if " install " in line)


def test_root_without_network_is_told_what_to_do(apt: Path, tmp_path: Path) -> None:
    (tmp_path / "offline").touch()
    with pytest.raises(ServerNotFoundError, match=r"could be installed: apt-get: E: no network") as caught:
        install_server.install_server(as_root=True)
    assert "is needed" in caught.value.hint


# -- as a user who is not root, really

RUN = """
import sys
from jobmon.db.embedded import EmbeddedServer, ServerNotFoundError, find_server
from jobmon.db.install_server import install_server
try:
    print("there already", find_server().server)
except ServerNotFoundError as error:
    print("none:", error)
try:
    binaries = install_server()
except ServerNotFoundError as error:
    print("failed:", error)
    sys.exit(9)
assert install_server() == binaries
with EmbeddedServer(binaries=binaries, buffer_pool_bytes=64 << 20) as server:
    environment = open(f"/proc/{server.pid}/environ").read()
    print("ready", server.is_ready(), binaries.server, "LD_LIBRARY_PATH" in environment)
"""


@pytest.fixture
def stranger() -> Iterator[tuple[list[str], dict[str, str]]]:
    """Command and environment with which an unprivileged user, with a home of its own, runs Python."""
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip("needs Debian's apt-get")
    home = Path(tempfile.mkdtemp(prefix="jm-"))
    env = {
        "HOME": str(home),
        "PATH": "/usr/bin:/bin",
        "JOBMON_DB_SEARCH": "/nowhere",
        "PYTHONUNBUFFERED": "1",
    }
    (home / "run.py").write_text(RUN)
    if os.geteuid() != 0:
        yield [sys.executable, str(home / "run.py")], {**env, "PYTHONPATH": os.pathsep.join(sys.path)}
    else:
        # Root's virtual environment may be out of the user's reach, so the packages are copied.
        python = "/usr/bin/python3"
        recent = "import sys; sys.exit(sys.version_info < (3, 11))"
        if subprocess.run([python, "-c", recent], check=False).returncode != 0 or not shutil.which("setpriv"):
            pytest.skip("needs setpriv and a Python 3.11 for all users")
        for module in (jobmon, click, pymysql):
            assert module.__file__
            shutil.copytree(Path(module.__file__).parent, home / "lib" / module.__name__)
        for path in (home, *home.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        drop = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        yield [*drop, python, str(home / "run.py")], {**env, "PYTHONPATH": str(home / "lib")}
    shutil.rmtree(home, ignore_errors=True)


def run(command: list[str], env: dict[str, str]) -> str:
    result = subprocess.run(command, env=env, cwd="/", capture_output=True, text=True, timeout=900)
    output = result.stdout + result.stderr
    if result.returncode == 9 and ("resolve" in output or "Failed to fetch" in output):
        pytest.skip(f"no package registry: {output}")
    assert result.returncode == 0, output
    assert output.startswith("none: no usable MariaDB or MySQL server"), output
    return output


def test_a_user_unpacks_the_server_into_the_cache(stranger: tuple[list[str], dict[str, str]]) -> None:
    command, env = stranger
    assert f"ready True {env['HOME']}/.cache/jobmon/db-server/" in run(command, env)


def test_a_user_of_a_machine_without_libraries_and_package_lists(
    stranger: tuple[list[str], dict[str, str]], tmp_path: Path
) -> None:
    """In a mount namespace without server, some of its libraries, their dpkg entries, and apt's lists."""
    if os.geteuid() != 0 or subprocess.run(["unshare", "-m", "true"], check=False).returncode != 0:
        pytest.skip("needs root and mount namespaces")
    command, env = stranger
    gone = {"mariadb-server-core", "libaio1", "libaio1t64", "liburing2", "libnuma1"}
    status = tmp_path / "status"
    entries = Path("/var/lib/dpkg/status").read_text().split("\n\n")
    status.write_text(
        "\n\n".join(e for e in entries if e.split("\n", 1)[0].split()[-1:] not in [[g] for g in gone])
    )
    lists = tmp_path / "lists"
    lists.mkdir()
    for path in (status, lists, *tmp_path.parents):
        if path != Path("/"):
            path.chmod(path.stat().st_mode | 0o555)
    hidden = [
        str(path.resolve())
        for name in ("libaio.so.1*", "liburing.so.2", "libnuma.so.1")
        for path in Path("/usr/lib").glob(f"*-linux-*/{name}")
    ]
    lines = [
        "set -e",
        f"mount --bind {status} /var/lib/dpkg/status",
        f"mount --bind {lists} /var/lib/apt/lists",
        *(f"mount --bind /dev/null {path}" for path in sorted(set(hidden))),
        'exec "$@"',
    ]
    output = run(["unshare", "-m", "bash", "-c", "\n".join(lines), "bash", *command], env)
    assert f"ready True {env['HOME']}/.cache/jobmon/db-server/" in output
    assert output.rstrip().endswith("True"), output  # with libraries of its own
