"""What a distributor asks the services for its batch executor."""

from __future__ import annotations

import dataclasses
import ipaddress
import socket
from typing import Any

from jobmon.client.errors import JobmonError, RequestRefused, ServiceUnavailable
from jobmon.client.requester import PAGE, Requester
from jobmon.config import Config

# The loop waits for these answers, and must renew leases in time.
READ_TIMEOUT, READ_PATIENCE = (2.0, 20.0), 5.0
TRY_TIMEOUT, TRY_PATIENCE = (5.0, 10.0), 5.0


def make_reader(config: Config) -> Requester:
    """A requester that gives up soon."""
    return Requester(config, timeout=READ_TIMEOUT, patience=READ_PATIENCE)


def read_live(reader: Requester, executor_type: str) -> list[dict[str, Any]]:
    """The job instances that live, of an executor.

    They come in pages by their ids, so that none that lives all the time is missed.

    Parameters:
        reader: the services.
        executor_type: the executor's name.

    Raises:
        RequestRefused, ServiceUnavailable: as in :meth:`Requester.get`.
    """
    rows: list[dict[str, Any]] = []
    after = 0
    while True:
        page = reader.get("get_live_job_instances", executor_type=executor_type, after=after, limit=PAGE)
        rows += page["job_instances"]
        if len(page["job_instances"]) < PAGE:
            return rows
        after = rows[-1]["job_instance_id"]


def find_worker_host(config: Config, database_id: str, chosen: str | None) -> str:
    """The host name by which workers on nodes find JSM.

    That is ``host``; if that is this machine's loopback, the machine's own name, if JSM answers there.

    Parameters:
        config: the configuration.
        database_id: of the JSM that is meant.
        chosen: the name that was given for it; it is taken as it is, since only nodes may know it.

    Raises:
        JobmonError: JSM does not answer at the machine's name.
    """
    chosen = chosen or config.worker_host
    if chosen:
        return chosen
    if not _is_loopback(config.host):
        return config.host
    host = socket.getfqdn()
    failure = "that is this machine only"
    if host != "localhost":
        failure = _try_host(config, host, database_id)
    if not failure:
        return host
    raise JobmonError(
        f"Nodes can't reach JSM: its host is {config.host}, and at {host}:{config.jsm_port} {failure}",
        "Let JSM listen there (bind 0.0.0.0 and a token), or set worker_host to the name by which nodes"
        " reach it; worker_host 127.0.0.1 if this machine is the only node.",
    )


def _try_host(config: Config, host: str, database_id: str) -> str:
    """What is wrong with a host as JSM's; "" if nothing is."""
    there = dataclasses.replace(config, host=host)
    requester = Requester(there, timeout=TRY_TIMEOUT, patience=TRY_PATIENCE)
    try:
        answer = requester.post("get_database_id")
    except (RequestRefused, ServiceUnavailable) as error:
        return f"it does not answer: {error.message}"
    finally:
        requester.close()
    return "" if answer.get("database_id") == database_id else "another JSM answers"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() in ("localhost", "localhost.localdomain", "ip6-localhost")
