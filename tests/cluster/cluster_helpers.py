"""Database servers that belong together: a primary with a replica, and a Galera cluster of three nodes."""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from http_helpers import RUN, Api, Service, free_port
from lives_helpers import Lives
from waiting import until

from jobmon.config import Config, load_config, read_accounts
from jobmon.db import catalog, grants, migrate
from jobmon.db.connect import ConnectionSpec, connect
from jobmon.db.embedded import EmbeddedServer, ServerBinaries

NAME, PREFIX = "jobmon_cluster", "cluster_"
BUFFER_POOL = 64 << 20
PROVIDERS = (
    "/usr/lib/galera/libgalera_smm.so",
    "/usr/lib64/galera-4/libgalera_smm.so",
    "/usr/lib64/galera/libgalera_smm.so",
)


def provider() -> str | None:
    """Galera's library: what JOBMON_GALERA_PROVIDER names, or what the machine has."""
    named = os.environ.get("JOBMON_GALERA_PROVIDER")
    return named or next((path for path in PROVIDERS if Path(path).is_file()), None)


def wait_until(what: Callable[[], Any]) -> Any:
    """Wait for something to be so, and return it; errors of the database in between count as not yet."""
    problem: Exception | None = None

    def look() -> Any:
        nonlocal problem
        try:
            return what()
        except Exception as error:
            problem = error
            return None

    try:
        return until(look)
    except AssertionError as error:
        raise error from problem


class Servers:
    """Several servers that begin as copies of one data directory.

    Parameters:
        directory: where everything is kept; its path must be short.
        binaries: the servers' program.
    """

    def __init__(self, directory: Path, binaries: ServerBinaries) -> None:
        self.directory = directory
        self.binaries = binaries
        self.servers: list[EmbeddedServer] = []

    @property
    def accounts_file(self) -> Path:
        return self.directory / "accounts.json"

    def add(self, *arguments: str) -> EmbeddedServer:
        """One more server; it is not started yet."""
        place = self.directory / f"n{len(self.servers)}" / "data"
        if self.servers:
            first = self.servers[0]
            place.parent.mkdir(mode=0o700)
            shutil.copytree(first.data_dir, place)
            for own in ("auto.cnf", "galera.cache", "gvwstate.dat"):
                (place / own).unlink(missing_ok=True)
            root = json.loads(first.root_file.read_text())
            root["port"], root["unix_socket"] = free_port(), str(place.with_name("data.sock"))
            (place.with_name("data.root.json")).write_text(json.dumps(root))
        server = EmbeddedServer(
            place, binaries=self.binaries, durable=False, buffer_pool_bytes=BUFFER_POOL, extra_args=arguments
        )
        server.ensure_initialised()
        self.servers.append(server)
        return server

    def root(self, number: int) -> ConnectionSpec:
        """A server's root, with Jobmon's database."""
        return self.servers[number].root_spec.with_database(NAME)

    def query(self, number: int, sql: str, args: Any = None, database: str | None = NAME) -> list[Any]:
        """The rows of a statement on a server, as root."""
        with contextlib.closing(connect(self.root(number).with_database(database))) as conn:
            return catalog.query(conn, sql, args)

    def set_up(self) -> None:
        """Make Jobmon's database and accounts on the first server."""
        migrate.migrate(self.root(0), owner=f"{PREFIX}owner")
        grants.apply_grants(self.root(0), prefix=PREFIX, accounts_file=self.accounts_file)

    def spec(self, role: str, *numbers: int) -> ConnectionSpec:
        """How a role reaches some of the servers, the first one first."""
        account = read_accounts(self.accounts_file)["accounts"][role]
        first, *others = [("127.0.0.1", self.servers[number].port) for number in numbers]
        return ConnectionSpec(
            account["user"], account["password"], *first, database=NAME, others=tuple(others)
        )

    def config(self, jsm: Iterable[int], jqs: Iterable[int], **settings: Any) -> Config:
        """Settings of services on these servers."""
        return load_config(env=self.env(jsm, jqs), overrides={"db_connect_timeout": 5, **settings})

    def env(self, jsm: Iterable[int], jqs: Iterable[int]) -> dict[str, str]:
        """Variables of services on these servers."""
        rc = self.directory / "jobmonrc"
        rc.write_text("{}")
        return {
            "HOME": str(self.directory),
            "JOBMON_RC": str(rc),
            "JOBMON_STATE_DIR": str(self.directory),
            "JOBMON_JSM_CONN_STR": self.spec("jsm", *jsm).conn_str(),
            "JOBMON_JQS_CONN_STR": self.spec("jqs", *jqs).conn_str(),
        }

    def audits(self, number: int) -> dict[str, list[Any]]:
        """The rows of each audit view that has any, as a server shows them."""
        views = self.query(
            number,
            "SELECT TABLE_NAME FROM information_schema.VIEWS"
            " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME LIKE 'audit\\_%%'",
        )
        assert len(views) > 5
        found = {view: self.query(number, f"SELECT * FROM `{view}`") for (view,) in views}
        return {view: rows for view, rows in found.items() if rows}

    def stop(self) -> None:
        """Stop all servers: at once, since nobody needs what is in them."""
        for server in self.servers:
            if server.is_running():
                with contextlib.suppress(Exception):
                    server.kill()


class Pair(Servers):
    """A primary (0) and its replica (1), with GTIDs and appliers that work in parallel."""

    def start(self) -> None:
        mariadb = self.binaries.kind == "mariadb"
        more = ["--binlog-format=ROW"] if mariadb else ["--gtid-mode=ON", "--enforce-gtid-consistency=ON"]
        several = "--slave-parallel-threads=4" if mariadb else "--replica-parallel-workers=4"
        self.add("--log-bin=binlog", "--server-id=1", *more).ensure_initialised()
        self.add("--log-bin=binlog", "--server-id=2", "--read-only=ON", several, *more)
        for server in self.servers:
            server.start()
        password = secrets.token_hex(8)
        port = self.servers[0].port
        self.query(0, f"CREATE USER repl@'%%' IDENTIFIED BY '{password}'", (), None)
        self.query(0, "GRANT REPLICATION SLAVE ON *.* TO repl@'%%'", (), None)
        if mariadb:
            where = (
                f"MASTER_HOST='127.0.0.1', MASTER_PORT={port}, MASTER_USER='repl',"
                f" MASTER_PASSWORD='{password}', MASTER_USE_GTID=slave_pos, MASTER_CONNECT_RETRY=1"
            )
            self.query(1, f"CHANGE MASTER TO {where}", None, None)
        else:
            where = (
                f"SOURCE_HOST='127.0.0.1', SOURCE_PORT={port}, SOURCE_USER='repl',"
                f" SOURCE_PASSWORD='{password}', SOURCE_AUTO_POSITION=1, GET_SOURCE_PUBLIC_KEY=1,"
                " SOURCE_CONNECT_RETRY=1"
            )
            self.query(1, f"CHANGE REPLICATION SOURCE TO {where}", None, None)
        self.go_on(None)
        self.set_up()
        self.catch_up()

    def halt(self) -> None:
        """The replica applies nothing more."""
        self.query(1, "STOP REPLICA SQL_THREAD")

    def go_on(self, database: str | None = NAME) -> None:
        """The replica applies what comes."""
        self.query(1, "START REPLICA", None, database)

    def catch_up(self) -> None:
        """Wait until the replica has what the primary has."""
        if self.binaries.kind == "mariadb":
            [(there,)] = self.query(0, "SELECT @@gtid_binlog_pos")
            [(late,)] = self.query(1, "SELECT MASTER_GTID_WAIT(%s, 90)", (there,), None)
        else:
            [(there,)] = self.query(0, "SELECT @@GLOBAL.gtid_executed")
            [(late,)] = self.query(1, "SELECT WAIT_FOR_EXECUTED_GTID_SET(%s, 90)", (there,), None)
        assert late == 0, self.query(1, "SHOW REPLICA STATUS", None, None)

    def promote(self) -> None:
        """Make a primary of the replica."""
        self.query(1, "STOP REPLICA")
        self.query(1, "SET GLOBAL read_only=OFF")


class Group(Servers):
    """Three members of a MySQL group (InnoDB Cluster without its shell), the first one the primary."""

    def start(self) -> None:
        ports = [free_port() for _ in range(3)]
        options = {
            "group-name": str(uuid.uuid4()),
            "group-seeds": ",".join(f"127.0.0.1:{port}" for port in ports),
            "ip-allowlist": "127.0.0.1",
            "start-on-boot": "OFF",
            "recovery-get-public-key": "ON",
            "member-expel-timeout": "0",
        }
        for number, port in enumerate(ports):
            server = self.add(
                "--log-bin=binlog",
                f"--server-id={number + 1}",
                "--gtid-mode=ON",
                "--enforce-gtid-consistency=ON",
                "--performance-schema=ON",
                "--plugin-load-add=group_replication.so",
                f"--loose-group-replication-local-address=127.0.0.1:{port}",
                *(f"--loose-group-replication-{name}={value}" for name, value in options.items()),
            )
            server.extra_args = (
                *server.extra_args, "--report-host=127.0.0.1", f"--report-port={server.port}",
            )  # fmt: skip
        for number, server in enumerate(self.servers):
            server.start()
            self._join(number)
        self.set_up()

    def _join(self, number: int) -> None:
        channel = (
            "SOURCE_USER='repl', SOURCE_PASSWORD='Repl-1234567' FOR CHANNEL 'group_replication_recovery'"
        )
        statements = [
            "SET sql_log_bin=0",
            "CREATE USER repl@'%%' IDENTIFIED BY 'Repl-1234567'",
            "GRANT REPLICATION SLAVE, CONNECTION_ADMIN, BACKUP_ADMIN ON *.* TO repl@'%%'",
            "GRANT GROUP_REPLICATION_STREAM ON *.* TO repl@'%%'",
            "SET sql_log_bin=1",
            f"CHANGE REPLICATION SOURCE TO {channel}",
            f"SET GLOBAL group_replication_bootstrap_group={'OFF' if number else 'ON'}",
            "START GROUP_REPLICATION",
            "SET GLOBAL group_replication_bootstrap_group=OFF",
        ]
        with contextlib.closing(connect(self.servers[number].root_spec)) as conn:
            for statement in statements:
                catalog.query(conn, statement, ())
            state = (
                "SELECT MEMBER_STATE FROM performance_schema.replication_group_members"
                " WHERE MEMBER_ID = @@server_uuid"
            )
            wait_until(lambda: catalog.query(conn, state) == [("ONLINE",)])

    def primary(self, *numbers: int) -> int | None:
        """Which of these members takes writes."""
        writable = [number for number in numbers if not self.query(number, "SELECT @@super_read_only")[0][0]]
        return writable[0] if writable else None


# A state transfer for nodes that begin as copies: only the position is handed over.
_STATE_TRANSFER = """#!/bin/sh
while [ $# -gt 0 ]; do
    case $1 in
        --role) role=$2 ;;
        --gtid) gtid=$2 ;;
        --address) address=${2%%/*} ;;
    esac
    shift
done
place=$(dirname "$0")/position.$address
if [ "$role" = joiner ]; then
    rm -f "$place"
    echo "ready $address"
    tries=0
    until [ -s "$place" ]; do
        sleep 0.05
        tries=$((tries + 1))
        [ $tries -lt 2000 ] || exit 110
    done
    cat "$place"
else
    echo "$gtid" > "$place.new" && mv "$place.new" "$place"
    echo "done $gtid"
fi
"""


class Galera(Servers):
    """Three nodes, each of which takes writes. One that fails is noticed after some seconds: a node that
    is only starved for a moment must not be taken for one.
    """

    def start(self, library: str) -> None:
        programs = self.directory / "programs"
        programs.mkdir()
        script = programs / "wsrep_sst_copied"
        script.write_text(_STATE_TRANSFER)
        script.chmod(0o755)
        os.environ["PATH"] = f"{programs}:{os.environ['PATH']}"
        ports = [free_port() for _ in range(3)]
        for number, port in enumerate(ports):
            options = {
                "base_port": port,
                "gmcast.listen_addr": f"tcp://127.0.0.1:{port}",
                "ist.recv_addr": f"127.0.0.1:{free_port()}",
                "gcache.size": "64M",
                "pc.recovery": "false",
                "evs.suspect_timeout": "PT6S",
                "evs.inactive_timeout": "PT15S",
                "evs.inactive_check_period": "PT0.5S",
                "evs.keepalive_period": "PT0.5S",
            }
            server = self.add(
                "--wsrep-on=ON",
                f"--wsrep-provider={library}",
                "--wsrep-cluster-name=jobmon-test",
                "--wsrep-cluster-address=gcomm://" + ",".join(f"127.0.0.1:{port}" for port in ports),
                "--wsrep-provider-options=" + ";".join(f"{key}={value}" for key, value in options.items()),
                "--wsrep-sst-method=copied",
                f"--wsrep-node-name=n{number}",
                f"--wsrep-node-address=127.0.0.1:{port}",
                "--wsrep-slave-threads=4",
                "--binlog-format=ROW",
            )
            if number == 0:
                # so that its copies know the cluster and their position in it
                self._bootstrap(server)
                server.stop()
        self._bootstrap(self.servers[0])
        for number, server in enumerate(self.servers):
            if number:
                server.start()
            self.wait_synced(number)
        self.set_up()

    def _bootstrap(self, server: EmbeddedServer) -> None:
        arguments = server.extra_args
        server.extra_args = (*arguments, "--wsrep-new-cluster")
        try:
            server.start()
        finally:
            server.extra_args = arguments

    def wait_synced(self, number: int, size: int | None = None) -> None:
        """Wait until a node is part of the cluster, and the cluster has so many nodes."""

        def synced() -> bool:
            status = dict(self.query(number, "SHOW STATUS LIKE 'wsrep%%'", (), None))
            here = status["wsrep_local_state_comment"] == "Synced" and status["wsrep_ready"] == "ON"
            return here and (size is None or status["wsrep_cluster_size"] == str(size))

        wait_until(synced)

    def wait_same(self, *numbers: int) -> None:
        """Wait until nodes have applied all that was committed anywhere."""
        for number in numbers:
            with contextlib.closing(connect(self.root(number))) as conn:
                catalog.query(conn, "SET SESSION wsrep_sync_wait=1")
                catalog.query(conn, "SELECT * FROM schema_info")

    def rejoin(self, number: int) -> None:
        """Start a node that was killed: it finds its position, and gets what it missed from another one."""
        server = self.servers[number]
        arguments = server.extra_args
        done = subprocess.run(
            [*server.arguments(), "--wsrep-recover"],
            env=self.binaries.environment(), capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        found = [line for line in done.stderr.splitlines() if "Recovered position:" in line]
        assert found, done.stderr
        position = found[-1].rpartition("Recovered position:")[2].strip()
        server.extra_args = (*arguments, f"--wsrep-start-position={position}")
        try:
            server.start()
        finally:
            server.extra_args = arguments
        self.wait_synced(number, 3)


# Load ---------------------------------------------------------------------------------------------------


class Load(Lives):
    """Clients that take jobs through their lives by several JSM in turn, and repeat what is not answered.

    Parameters:
        jsms: the services; each client begins at another one and goes on to the next when one can't serve.
        clients: how many work at once.
    """

    patience = 150
    logs_executor_id = False

    def __init__(self, jsms: list[Api], clients: int = 6) -> None:
        self.jsms = jsms
        self.refusals: Counter[str] = Counter()
        super().__init__(clients)

    def _call(self, client: int, path: str, **body: Any) -> Any:
        deadline = time.monotonic() + 120
        tries = 0
        while True:
            response = self.jsms[(client + tries) % len(self.jsms)].post(path, body)
            if response.status_code == 200:
                return response.json
            if response.status_code != 503:
                raise AssertionError(f"{path} {body}: {response.status_code} {response.text}")
            if time.monotonic() > deadline:
                raise AssertionError(f"{path}: no answer for two minutes: {response.text}")
            self.refusals[response.json["error"]["code"]] += 1
            tries += 1
            time.sleep(0.05)


class Follower:
    """Reads what changed since, again and again, by several JQS in turn, and remembers what it was given."""

    def __init__(self, jqss: list[Api]) -> None:
        self.jqss = jqss
        self.cursor = ""
        self.seen: Counter[int] = Counter()
        self.problems: list[str] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)
        self._thread.start()

    def poll(self, jqs: Api) -> int:
        """One page; how many changes it had."""
        response = jqs.get("/get_job_changes", cursor=self.cursor, limit=200)
        if response.status_code == 503:
            time.sleep(0.05)
            return 0
        assert response.status_code == 200, response.text
        self.cursor = response.json["cursor"]
        changes = response.json["job_changes"]
        self.seen.update(change["change_id"] for change in changes)
        return len(changes)

    def _follow(self) -> None:
        turn = 0
        try:
            while not self._stop.is_set():
                turn += 1
                self.poll(self.jqss[turn % len(self.jqss)])
        except Exception as error:
            self.problems.append(repr(error))

    def finish(self, everything: Callable[[], set[int]]) -> None:
        """Read the rest; each change was seen, and once."""
        self._stop.set()
        self._thread.join(60)
        assert not self.problems, self.problems
        ids = everything()

        def complete() -> bool:
            while self.poll(self.jqss[0]):
                pass
            return len(self.seen) >= len(ids)

        with contextlib.suppress(AssertionError):
            wait_until(complete)
        assert set(self.seen) == ids, f"missed: {sorted(ids - set(self.seen))[:10]}"
        assert set(self.seen.values()) <= {1}


def change_ids(servers: Servers, number: int) -> set[int]:
    """The ids of the whole history, as a server shows it."""
    return {row[0] for row in servers.query(number, "SELECT job_status_log_id FROM job_status_log")}


def check_ends(servers: Servers, number: int, load: Load) -> None:
    """A server has all of a load's jobs that were acknowledged, each was done once, and the audits are
    empty.
    """
    found = dict(servers.query(number, "SELECT job_id, status FROM job WHERE name = %s", (load.name,)))
    assert found == load.ended
    paths = Counter(
        path
        for (path,) in servers.query(
            number,
            "SELECT GROUP_CONCAT(status ORDER BY job_status_log_id SEPARATOR '') FROM job_status_log"
            " WHERE job_id IN (SELECT job_id FROM job WHERE name = %s) GROUP BY job_id",
            (load.name,),
        )
    )
    ends = Counter(found.values())
    assert +paths == +Counter({"GQIRD": ends["D"], "GQIREF": ends["F"]})
    assert servers.audits(number) == {}


# Services behind a balancer -----------------------------------------------------------------------------


def start_service(name: str, servers: Servers, jsm: list[int], jqs: list[int]) -> Service:
    """A service in a process of its own, on these servers; it need not be ready yet."""
    port = free_port()
    script = servers.directory / f"run_{name}_{port}.py"  # its own: another one may just be reading another's
    script.write_text(RUN)
    settings = {
        "workers": 1,
        f"{name}_port": port,
        "jsm_management_port": free_port(),
        "position_timeout": 20,
    }
    environment = {k: v for k, v in os.environ.items() if not k.startswith("JOBMON_")}
    environment |= servers.env(jsm, jqs)
    root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join([root, environment.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    log = servers.directory / f"{name}-{port}.log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, str(script), name, json.dumps(settings)],
            env=environment, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    return Service(name, port, settings["jsm_management_port"], process, log)


class Balancer:
    """Hands each connection to the next of some ports that takes it, as any balancer for TCP does.

    Attributes:
        port: where it listens.
        taken: connections that each port has taken.
    """

    def __init__(self, ports: list[int]) -> None:
        self._ports = ports
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.taken: Counter[int] = Counter()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        turn = 0
        with contextlib.suppress(OSError):  # closed
            while True:
                client, _ = self._listener.accept()
                for _ in self._ports:
                    turn += 1
                    port = self._ports[turn % len(self._ports)]
                    with contextlib.suppress(OSError):
                        server = socket.create_connection(("127.0.0.1", port), 10)
                        server.settimeout(None)
                        self.taken[port] += 1
                        for one, other in ((client, server), (server, client)):
                            threading.Thread(target=self._pass_on, args=(one, other), daemon=True).start()
                        break
                else:
                    client.close()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
