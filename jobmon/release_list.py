"""Which releases of Jobmon are on this host: embedded ones by state directory, compose projects by label.

Both are only looked at: nothing of a release's own code runs, so releases older or newer than this code
are found as well. Embedded releases are those below the user's own state directory.
"""

from __future__ import annotations

import configparser
import contextlib
import http.client
import json
import shutil
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobmon.containers.deployment import run_docker
from jobmon.release import PORT_KEYS
from jobmon.stack import StackError, read_settings, release_directory
from jobmon.supervisor import Program, Status, Supervisor

RELEASE_LABEL = "jobmon.release"
PROJECT_LABEL = "com.docker.compose.project"
SERVICE_LABEL = "com.docker.compose.service"
# Which ports a process of an embedded release listens on, by the keys of its services.json.
PORTS_OF = {"db": ("db_port",), "jsm": ("jsm_port", "jsm_management_port"), "jqs": ("jqs_port",)}
READY_SECONDS = 3.0  # that a service has for its /readyz
DOCKER_SECONDS = 20.0  # that the container engine has for an answer


@dataclass(frozen=True)
class Service:
    """One process or container of a release.

    release: its name. how: ``embedded`` or ``compose``. where: the release's state directory, or the
    compose project. name: such as ``jsm``. up: whether it runs. state: what it does, in words, if it is not
    up. ready: whether it does its work; None if nothing tells. seconds: how long it has been up. ports:
    ``host:port``.
    """

    release: str
    how: str
    where: str
    name: str
    up: bool
    state: str
    ready: bool | None
    seconds: float | None
    ports: tuple[str, ...] = ()


# ----------------------------------------------------------------------------------------------------------
# Embedded


def _host_of(settings: Mapping[str, Any]) -> str:
    bind = str(settings.get("bind") or "127.0.0.1").strip("[]")
    if bind in ("0.0.0.0", "localhost"):
        return "127.0.0.1"
    return "::1" if bind == "::" else bind


def _port_of(settings: Mapping[str, Any], key: str) -> int | None:
    port = settings.get(key)
    return port if isinstance(port, int) and not isinstance(port, bool) and 0 < port < 65536 else None


def _says_ready(host: str, port: int) -> bool:
    """Whether the service's /readyz is 200."""
    url = f"http://[{host}]:{port}/readyz" if ":" in host else f"http://{host}:{port}/readyz"
    # No proxy: the service is on this host.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=READY_SECONDS) as answer:
            return bool(answer.status == 200)
    except (OSError, urllib.error.URLError, http.client.HTTPException):
        return False


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), READY_SECONDS) as conn:
        # A database server that greets is not one that still recovers.
        return bool(conn.recv(1))
    return False


def _readiness(status: Status, settings: Mapping[str, Any]) -> bool | None:
    if not status.is_running:
        return False
    keys = PORTS_OF.get(status.name)
    port = _port_of(settings, keys[0]) if keys else None
    if port is None:
        return None
    return _listens(port) if status.name == "db" else _says_ready(_host_of(settings), port)


def _programs(directory: Path) -> list[Program]:
    """The processes that the supervisor of a release was told of."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    with contextlib.suppress(configparser.Error, UnicodeDecodeError, OSError):
        parser.read(directory / "run" / "supervisord.conf", encoding="utf-8")
    names = [section.partition(":")[2] for section in parser.sections() if section.startswith("program:")]
    return [Program(name, ()) for name in names]


def _addresses(name: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    host = "127.0.0.1" if name == "db" else str(settings.get("bind") or "127.0.0.1")
    ports = [_port_of(settings, key) for key in PORTS_OF.get(name, ())]
    return tuple(f"{host}:{port}" for port in ports if port is not None)


def embedded_services(state: Path) -> list[Service]:
    """The processes of all embedded releases in a state directory, those that are stopped as well.

    Parameters:
        state: the configured state directory.
    """
    base = release_directory(state, "any").parent
    found: list[tuple[Path, Mapping[str, Any], Status]] = []
    for file in sorted(base.glob("*/services.json")):
        settings = read_settings(file)
        if not any(_port_of(settings, key) for key in PORT_KEYS):
            continue  # half written, or not ours
        statuses = Supervisor(file.parent / "run", _programs(file.parent)).statuses()
        found += [(file.parent, settings, status) for status in statuses]
    with ThreadPoolExecutor(max_workers=max(1, min(len(found), 16))) as pool:
        readiness = list(pool.map(lambda one: _readiness(one[2], one[1]), found))
    return [
        Service(
            release=directory.name,
            how="embedded",
            where=str(directory),
            name=status.name,
            up=status.is_running,
            state=status.state.lower(),
            ready=ready if status.is_running else False,
            seconds=status.seconds if status.is_running else None,
            ports=_addresses(status.name, settings),
        )
        for (directory, settings, status), ready in zip(found, readiness, strict=True)
    ]


# ----------------------------------------------------------------------------------------------------------
# Compose


class EngineError(Exception):
    """The container engine does not answer; its text says why."""


def _docker(*arguments: str) -> str:
    try:
        return run_docker(*arguments, timeout=DOCKER_SECONDS)
    except StackError as error:
        raise EngineError(error.message) from None


def compose_services(docker: Callable[..., str] = _docker) -> list[Service]:
    """The containers that have a release's label, those that are stopped as well; empty without Docker.

    Parameters:
        docker: runs a docker command, for tests.

    Raises:
        EngineError: Docker is installed, but its engine does not answer.
    """
    if docker is _docker and shutil.which("docker") is None:
        return []
    ids = docker("ps", "--all", "--quiet", "--no-trunc", "--filter", f"label={RELEASE_LABEL}").split()
    found: list[Service] = []
    for number in ids:
        try:
            documents = json.loads(docker("inspect", "--type", "container", number))
        except EngineError:
            continue  # it was removed meanwhile
        except ValueError as error:
            raise EngineError(f"docker inspect: {error}") from None
        found += [_container(document) for document in documents]
    return sorted(found, key=lambda service: (service.release, service.where, service.name))


def _container(document: Mapping[str, Any]) -> Service:
    labels: Mapping[str, str] = document["Config"].get("Labels") or {}
    state: Mapping[str, Any] = document["State"]
    up = state["Status"] in ("running", "paused")
    health = (state.get("Health") or {}).get("Status")
    name = document["Name"].removeprefix("/")
    return Service(
        release=labels.get(RELEASE_LABEL, ""),
        how="compose",
        where=labels.get(PROJECT_LABEL, name),
        name=labels.get(SERVICE_LABEL, name),
        up=up,
        state=f"exited ({state.get('ExitCode')})" if state["Status"] == "exited" else state["Status"],
        ready=(health == "healthy" if health not in (None, "none") else None) if up else False,
        seconds=_since(state.get("StartedAt")) if up else None,
        ports=tuple(_published(document.get("NetworkSettings", {}).get("Ports") or {})),
    )


def _published(ports: Mapping[str, Iterable[Mapping[str, str]] | None]) -> Iterator[str]:
    seen = {
        f"{'[' + place['HostIp'] + ']' if ':' in place['HostIp'] else place['HostIp']}:{place['HostPort']}"
        for places in ports.values()
        for place in places or ()
    }
    yield from sorted(seen)


def _since(text: str | None) -> float | None:
    try:
        started = datetime.fromisoformat(text or "")
        return max(0.0, (datetime.now(UTC) - started).total_seconds())
    except (ValueError, TypeError):
        return None
