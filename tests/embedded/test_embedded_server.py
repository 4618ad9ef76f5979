"""Real servers: how they are set up, that they run once per directory, and that nothing committed is lost."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pymysql
import pytest
from ports import free_port
from waiting import until

from jobmon.config import load_config
from jobmon.db.connect import ConnectionSpec, connect
from jobmon.db.embedded import (
    MARKER,
    MAX_SOCKET_PATH,
    AlreadyRunningError,
    EmbeddedServer,
    EmbeddedServerError,
    NotInitialisedError,
    PortInUseError,
    ServerBinaries,
    default_buffer_pool,
    default_data_dir,
    read_root_spec,
    socket_path,
)

Make = Callable[..., EmbeddedServer]
Command = Callable[..., "subprocess.Popen[str]"]


def query(spec: ConnectionSpec, *statements: str) -> list[tuple[object, ...]]:
    """The rows of the last statement."""
    connection = connect(spec)
    try:
        with connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return list(cursor.fetchall())
    finally:
        connection.close()


# -- one running server for the tests that only look at it


@pytest.fixture(scope="module")
def running(binaries: ServerBinaries, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedServer]:
    directory = tmp_path_factory.mktemp("db")
    with EmbeddedServer(directory / "data", binaries=binaries, buffer_pool_bytes=64 << 20) as server:
        yield server


def test_settings(running: EmbeddedServer) -> None:
    rows = query(running.root_spec, "SHOW GLOBAL VARIABLES")
    variables = {str(name): str(value) for name, value in rows}
    wanted = {
        "innodb_flush_log_at_trx_commit": "1",
        "sync_binlog": "1",
        "innodb_doublewrite": "ON",
        "log_bin": "OFF",
        "log_bin_trust_function_creators": "ON",
        "skip_name_resolve": "ON",
        "bind_address": "127.0.0.1",
        "character_set_server": "utf8mb4",
        "group_concat_max_len": str(16 << 20),
        "max_allowed_packet": str(64 << 20),
        "max_connections": "300",
        "innodb_lock_wait_timeout": "20",
        "innodb_print_all_deadlocks": "OFF",
        "innodb_autoinc_lock_mode": "2",
        "innodb_buffer_pool_size": str(64 << 20),
        "event_scheduler": "OFF",
        "automatic_sp_privileges": "OFF",
        "local_infile": "OFF",
        "time_zone": "+00:00",
        "port": str(running.port),
        "socket": str(running.socket),
    }
    assert {name: variables[name] for name in wanted} == wanted
    assert variables.get("transaction_isolation", variables.get("tx_isolation")) == "READ-COMMITTED"
    if running.binaries.kind == "mariadb":
        assert variables["secure_file_priv"] == f"{running.tmp_dir}/"
    else:
        assert variables["secure_file_priv"] == "NULL"
        assert "mysqlx_port" not in variables


def test_root_by_the_socket_with_a_password_is_the_only_way_in(running: EmbeddedServer) -> None:
    accounts = query(running.root_spec, "SELECT user, host FROM mysql.user")
    assert [row for row in accounts if not re.match(r"(mysql|mariadb)\.", str(row[0]))] == [
        ("root", "localhost")
    ]
    assert all(host == "localhost" for _, host in accounts)
    databases = {name for (name,) in query(running.root_spec, "SHOW DATABASES")}
    assert databases == {"information_schema", "mysql", "performance_schema", "sys"}
    assert query(running.root_spec, "SELECT * FROM mysql.db WHERE user = '' OR db LIKE 'test%'") == []
    spec = running.root_spec
    assert len(spec.password) >= 24
    for options in (
        {"unix_socket": str(running.socket), "user": "root", "password": ""},
        {"unix_socket": str(running.socket), "user": "root", "password": "wrong"},
        {"unix_socket": str(running.socket), "user": "", "password": ""},
        {"host": "127.0.0.1", "port": running.port, "user": "root", "password": spec.password},
    ):
        with pytest.raises(pymysql.OperationalError) as caught:
            pymysql.connect(**options)  # type: ignore[call-overload]
        assert caught.value.args[0] in (1045, 1130, 1698, 2003)


def test_it_listens_on_the_loopback_only(running: EmbeddedServer) -> None:
    socket.create_connection(("127.0.0.1", running.port), timeout=30).close()
    with pytest.raises(OSError, match=r"."):
        socket.create_connection(("127.0.0.2", running.port), timeout=30)
    inodes = set()
    for descriptor in Path(f"/proc/{running.pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a server that works opens and closes files meanwhile
            if match := re.fullmatch(r"socket:\[(\d+)\]", os.readlink(descriptor)):
                inodes.add(match[1])
    listening = [
        fields[1]
        for name in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        if (fields := line.split())[3] == "0A" and fields[9] in inodes
    ]
    assert listening == [f"0100007F:{running.port:04X}"]


def test_files_are_private(running: EmbeddedServer) -> None:
    assert stat.S_IMODE(running.root_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(running.log_file.stat().st_mode) == 0o600
    assert stat.S_IMODE(running.tmp_dir.stat().st_mode) == 0o700
    assert stat.S_IMODE(running.data_dir.stat().st_mode) & 0o007 == 0
    assert running.root_spec.password not in Path(f"/proc/{running.pid}/cmdline").read_text()
    assert running.root_spec.password not in running.log_file.read_text()


def test_root_may_hand_on_its_rights(running: EmbeddedServer) -> None:
    query(
        running.root_spec,
        "CREATE USER et_dba@'%' IDENTIFIED BY 'Secret-1'",
        "GRANT ALL ON *.* TO et_dba@'%' WITH GRANT OPTION",
    )
    spec = ConnectionSpec(user="et_dba", password="Secret-1", host="127.0.0.1", port=running.port)
    assert query(spec, "SELECT SUBSTRING_INDEX(CURRENT_USER(), '@', 1)") == [("et_dba",)]
    query(running.root_spec, "DROP USER et_dba@'%'")


def test_dropping_a_procedure_leaves_its_grants(running: EmbeddedServer) -> None:
    query(
        running.root_spec,
        "CREATE DATABASE et_sp",
        "CREATE PROCEDURE et_sp.p() SELECT 1",
        "CREATE USER et_sp@'%' IDENTIFIED BY 'Secret-1'",
        "GRANT EXECUTE ON PROCEDURE et_sp.p TO et_sp@'%'",
        "DROP PROCEDURE et_sp.p",
        "CREATE PROCEDURE et_sp.p() SELECT 2",
    )
    spec = ConnectionSpec(user="et_sp", password="Secret-1", host="127.0.0.1", port=running.port)
    assert query(spec, "CALL et_sp.p()") == [(2,)]
    query(running.root_spec, "DROP DATABASE et_sp", "DROP USER et_sp@'%'")


def test_a_second_start_is_refused(running: EmbeddedServer, command: Command, tmp_path: Path) -> None:
    other = EmbeddedServer(running.data_dir, free_port())
    with pytest.raises(AlreadyRunningError, match=rf"already running on .*process {running.pid}"):
        other.start()
    # by another name, by another process, and by one that only wants to initialise
    link = tmp_path / "link"
    link.symlink_to(running.data_dir)
    with pytest.raises(AlreadyRunningError):
        EmbeddedServer(link, free_port()).start()
    process = command("run", "--data-dir", running.data_dir, "--port", free_port())
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"already running on {running.data_dir} (process {running.pid})" in output
    assert "Traceback" not in output
    assert running.is_ready()


def test_others_see_it(running: EmbeddedServer, command: Command) -> None:
    other = EmbeddedServer(running.data_dir)
    assert other.is_running()
    assert other.is_ready()
    assert other.is_initialised
    assert (other.pid, other.port) == (running.pid, running.port)
    assert other.binaries.kind == running.binaries.kind if running.binaries.loader == () else True
    output, _ = command("status", "--data-dir", running.data_dir).communicate(timeout=120)
    assert f"ready, process {running.pid}, port {running.port}" in output


# -- starting and stopping


def test_its_port_is_none_that_outgoing_connections_get(tmp_path: Path) -> None:
    """Else one might have it when the server is started again."""
    given_away = Path("/proc/sys/net/ipv4/ip_local_port_range")
    if not given_away.exists() or int(given_away.read_text().split()[0]) < 25_000:
        pytest.skip("this system gives away other ports than Linux does by default")
    ports = {EmbeddedServer(tmp_path / str(number)).port for number in range(50)}
    assert len(ports) > 40  # chosen at random, so that two at once seldom meet
    assert max(ports) < int(given_away.read_text().split()[0])


def test_a_life(make: Make, place: Path, binaries: ServerBinaries) -> None:
    server = make()
    assert (server.is_initialised, server.is_running(), server.pid, server.is_ready()) == (
        False,
        False,
        None,
        False,
    )
    with pytest.raises(NotInitialisedError, match=r"has not been initialised"):
        _ = server.root_spec
    server.stop()  # nothing to stop
    assert server.ensure_initialised() is True
    assert server.ensure_initialised() is False
    password = server.root_spec.password
    assert not server.is_running()

    server.start()
    assert server.is_running()
    assert server.is_ready()
    with pytest.raises(AlreadyRunningError):
        server.start()
    query(server.root_spec, "CREATE DATABASE a", "CREATE TABLE a.t(i INT)", "INSERT INTO a.t VALUES (1)")
    server.stop()
    assert (server.is_running(), server.pid) == (False, None)
    assert re.search("Shutdown complete", server.log_file.read_text())
    assert not server.socket.exists()

    # another port, and durability off
    moved = make(port=free_port(), durable=False)
    moved.start()
    assert moved.port != server.port
    assert read_root_spec(moved.data_dir).port == moved.port
    assert moved.root_spec.password == password
    assert query(moved.root_spec, "SELECT i, @@innodb_flush_log_at_trx_commit FROM a.t") == [(1, 2)]
    # stopped by one who did not start it
    make().stop()
    assert moved._process is not None
    assert moved._process.wait(60) == 0
    assert not moved.is_running()
    assert not list(place.glob("data.new.*"))
    assert json.loads((moved.data_dir / MARKER).read_text())["kind"] == binaries.kind


@pytest.mark.usefixtures("initialised")
def test_nothing_committed_is_lost_by_kill_9(make: Make) -> None:
    server = make()
    server.start()
    query(
        server.root_spec, "CREATE DATABASE a", "CREATE TABLE a.t(writer INT, i INT, PRIMARY KEY (writer, i))"
    )
    acknowledged: dict[int, int] = {}

    def write(writer: int) -> None:
        connection = connect(server.root_spec)
        cursor = connection.cursor()
        try:
            for i in range(1_000_000):
                cursor.execute("INSERT INTO a.t VALUES (%s, %s)", (writer, i))
                acknowledged[writer] = i
        except pymysql.MySQLError:
            pass

    for _ in range(2):
        query(server.root_spec, "DELETE FROM a.t")
        acknowledged.clear()
        writers = [threading.Thread(target=write, args=(n,)) for n in range(4)]
        for writer in writers:
            writer.start()
        until(lambda: len(acknowledged) == 4 and min(acknowledged.values()) > 20)
        server.kill()
        assert not server.is_running()
        for writer in writers:
            writer.join(60)
        server.start()
        counted = dict(query(server.root_spec, "SELECT writer, COUNT(*) - 1 FROM a.t GROUP BY writer"))
        for number, last in acknowledged.items():
            # the one that was on its way may be there too
            assert counted[number] in (last, last + 1)
    assert query(server.root_spec, "CHECK TABLE a.t")[-1][-1] == "OK"


@pytest.mark.usefixtures("initialised")
def test_left_overs_of_a_crash_are_no_hindrance(make: Make) -> None:
    server = make()
    server.start()
    server.kill()
    # its process id lives again as something else
    server.pid_file.write_text(str(os.getpid()))
    Path(f"{server.socket}.lock").write_text(f"{os.getpid()}\n")
    (server.tmp_dir / "left").write_text("x")
    assert (server.is_running(), server.pid) == (False, None)
    server.stop()  # must not touch that process
    server.start()
    assert not (server.tmp_dir / "left").exists()
    assert server.is_ready()


@pytest.mark.usefixtures("initialised")
def test_the_server_outlives_its_parent_and_keeps_the_lock(make: Make) -> None:
    server = make()
    program = (
        "import os, sys, jobmon.db.embedded as e\n"
        "e.EmbeddedServer(sys.argv[1], binaries=e.inspect_server(e.Path(sys.argv[2]))).start()\n"
        "os._exit(0)"
    )
    subprocess.run(
        [sys.executable, "-c", program, server.data_dir, server.binaries.server], check=True, timeout=120
    )
    assert server.is_running()
    assert server.is_ready()
    with pytest.raises(AlreadyRunningError, match=str(server.pid)):
        server.start()
    server.stop()
    assert not server.is_running()


def test_twenty_starts_at_once_make_one_server(make: Make) -> None:
    servers = [make(port=free_port()) for _ in range(20)]
    outcomes: list[str] = []

    def start(server: EmbeddedServer) -> None:
        try:
            server.start()
            outcomes.append("started")
        except AlreadyRunningError:
            outcomes.append("refused")

    threads = [threading.Thread(target=start, args=(server,)) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(300)
    assert sorted(outcomes) == ["refused"] * 19 + ["started"]
    assert servers[0].is_ready()


# -- initialising


@pytest.mark.parametrize("moment", ["begin", "middle", "end"])
def test_an_interrupted_initialisation_is_made_anew(
    make: Make, place: Path, command: Command, moment: str
) -> None:
    server = make()

    def reached() -> bool:
        fresh = next(place.glob("data.new.*"), None)
        if fresh is None:
            return False
        if moment == "begin":
            return True
        if moment == "middle":
            return (fresh / "mysql").exists() or (fresh / "mysql.ibd").exists()
        return server.root_file.exists()

    for _ in range(20):
        process = command("init", "--data-dir", server.data_dir, "--server", server.binaries.server)
        until(lambda: reached() or server.is_initialised)
        process.kill()
        process.wait(60)
        if moment == "end" or not server.is_initialised:  # the end may be too quick to be caught
            break
        # this process came too late: once more
        shutil.rmtree(server.data_dir)
        server.root_file.unlink()
    if moment != "end":
        assert not server.is_initialised
    assert server.ensure_initialised() in ((True, False) if moment == "end" else (True,))
    server.start()
    assert query(server.root_spec, "SELECT 1") == [(1,)]
    server.stop()
    # what the orphaned program may have left is gone after a later start
    server.start()
    assert not list(place.glob("data.new.*"))


def test_a_foreign_directory_is_left_alone(make: Make, place: Path) -> None:
    (place / "data").mkdir()
    (place / "data" / "thesis.txt").write_text("precious")
    server = make()
    with pytest.raises(EmbeddedServerError, match=r"not empty and was not made by jobmon.*choose another"):
        server.start()
    assert (place / "data" / "thesis.txt").read_text() == "precious"
    assert not server.root_file.exists()


def test_an_empty_directory_is_used(make: Make, place: Path) -> None:
    (place / "data").mkdir()
    assert make().ensure_initialised() is True


def test_it_says_why_it_could_not_initialise(make: Make, binaries: ServerBinaries, tmp_path: Path) -> None:
    broken = tmp_path / "mysqld"
    broken.write_text("#!/bin/sh\necho 'errno: 28 No space left on device' >&2\nexit 3\n")
    broken.chmod(0o755)
    server = make(
        binaries=ServerBinaries(
            binaries.kind, binaries.version, "x", broken, binaries.basedir, binaries.share_dir
        )
    )
    with pytest.raises(EmbeddedServerError, match=r"status 3:\nerrno: 28") as caught:
        server.start()
    assert caught.value.hint == "the disk is full"
    assert not server.is_initialised
    assert not server.is_running()


# -- what can be wrong at a start


@pytest.mark.usefixtures("initialised")
def test_a_port_in_use_is_named(make: Make) -> None:
    server = make()
    server.ensure_initialised()
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        taken = make(port=port)
        with pytest.raises(PortInUseError, match=rf"port {port} is in use.*JOBMON_DB_PORT"):
            taken.start()
    assert not taken.is_running()
    assert server.root_spec.port == server.port


@pytest.mark.usefixtures("initialised")
def test_the_log_is_quoted_if_it_does_not_start(make: Make) -> None:
    server = make(extra_args=["--no-such-option=1"])
    with pytest.raises(EmbeddedServerError, match=r"(?s)ended with status.*no-such-option"):
        server.start()
    assert not server.is_running()


@pytest.mark.usefixtures("initialised")
def test_a_wrong_password_file_is_named(make: Make) -> None:
    server = make()
    server.ensure_initialised()
    document = json.loads(server.root_file.read_text())
    server.root_file.write_text(json.dumps({**document, "password": "wrong"}))
    with pytest.raises(EmbeddedServerError, match=r"refuses the password in .*data\.root\.json"):
        server.start()
    assert not server.is_running()
    server.root_file.write_text("{}")
    with pytest.raises(EmbeddedServerError, match=r"data\.root\.json: is malformed"):
        server.start()
    server.root_file.unlink()
    with pytest.raises(NotInitialisedError, match=r"data\.root\.json does not exist"):
        server.start()


@pytest.mark.usefixtures("initialised")
def test_data_of_another_product_or_of_a_newer_version_is_refused(make: Make) -> None:
    server = make()
    server.ensure_initialised()
    marker = server.data_dir / MARKER
    document = json.loads(marker.read_text())
    other = "mysql" if document["kind"] == "mariadb" else "mariadb"
    marker.write_text(json.dumps({**document, "kind": other}))
    with pytest.raises(EmbeddedServerError, match=r"was made by M\w+, but .* is M\w+"):
        server.start()
    marker.write_text(json.dumps({**document, "version": [99, 1, 0]}))
    with pytest.raises(EmbeddedServerError, match=r"used by M\w+ 99\.1\.0, which is newer than"):
        server.start()
    marker.write_text("{}")
    with pytest.raises(EmbeddedServerError, match=rf"{MARKER}: is malformed"):
        server.start()
    marker.write_text(json.dumps({**document, "version": [*document["version"][:2], 0]}))
    server.start()
    assert json.loads(marker.read_text()) == document


def test_a_long_path_gets_a_short_socket(make: Make, place: Path) -> None:
    server = make(place / ("long" * 30) / "data")
    assert len(os.fsencode(server.socket)) <= MAX_SOCKET_PATH
    server.start()
    assert server.is_ready()
    directory = server.socket.parent
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    server.stop()
    directory.chmod(0o755)
    try:
        with pytest.raises(EmbeddedServerError, match=r"is not a private directory"):
            server.start()
    finally:
        directory.rmdir()


# -- python -m jobmon.db.embedded


def test_run_becomes_the_server_and_sigterm_stops_it_cleanly(make: Make, command: Command) -> None:
    server = make()
    port = free_port()
    process = command(
        "run", "--data-dir", server.data_dir, "--port", port, "--server", server.binaries.server,
        "--buffer-pool-mb", 64,
    )  # fmt: skip
    until(server.is_ready)
    assert server.pid == process.pid
    assert query(server.root_spec, "SELECT @@port, @@innodb_buffer_pool_size") == [(port, 64 << 20)]
    with pytest.raises(AlreadyRunningError):
        server.start()
    query(server.root_spec, "CREATE DATABASE a", "CREATE TABLE a.t(i INT)", "INSERT INTO a.t VALUES (1)")
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert "hutdown complete" in output
    assert not server.is_running()

    # and after kill -9 it is back with its data
    process = command(
        "run", "--data-dir", server.data_dir, "--port", port, "--server", server.binaries.server
    )
    until(server.is_ready)
    query(server.root_spec, "INSERT INTO a.t VALUES (2)")
    process.kill()
    process.communicate(timeout=120)
    process = command(
        "run", "--data-dir", server.data_dir, "--port", port, "--server", server.binaries.server
    )
    until(server.is_ready)
    assert query(server.root_spec, "SELECT COUNT(*) FROM a.t") == [(2,)]
    stopper = command("stop", "--data-dir", server.data_dir)
    stopper.communicate(timeout=120)
    assert stopper.returncode == 0
    process.communicate(timeout=120)
    assert process.returncode == 0


@pytest.mark.parametrize("of_a_release", [False, True])
def test_the_configuration_finds_root_of_the_default_directory(
    make: Make, place: Path, of_a_release: bool
) -> None:
    env = {"HOME": str(place), "JOBMON_STATE_DIR": str(place / "state")}
    config = load_config(env=env)
    directory = place / "state" / config.release if of_a_release else place / "state"
    server = make(default_data_dir(directory))
    server.ensure_initialised()
    assert config.conn_spec("admin") == server.root_spec


# -- without a server


def test_status_of_nothing(command: Command, place: Path) -> None:
    process = command("status", "--data-dir", place / "none")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert output == f"{place / 'none'}: not running\n"


def test_a_wrong_server_is_named(command: Command, place: Path) -> None:
    process = command("run", "--data-dir", place / "data", "--server", place / "none")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert f"no usable MariaDB or MySQL server at {place / 'none'}" in output
    assert "Hint: " in output
    assert "Traceback" not in output


def test_a_directory_that_can_not_be_made_is_named(command: Command, place: Path) -> None:
    (place / "file").write_text("")
    process = command("init", "--data-dir", place / "file" / "data")
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "cannot be made: " in output
    assert "Traceback" not in output


def test_socket_path_depends_on_the_length_only() -> None:
    assert socket_path(Path("/a/data")) == Path("/a/data.sock")
    deep = Path("/" + "é" * 60) / "data"
    assert len(os.fsencode(socket_path(deep))) <= MAX_SOCKET_PATH
    assert socket_path(deep) != socket_path(deep / "data")


def test_the_buffer_pool_suits_the_machine() -> None:
    assert 128 << 20 <= default_buffer_pool() <= 1 << 30
    assert default_buffer_pool() % (1 << 20) == 0
