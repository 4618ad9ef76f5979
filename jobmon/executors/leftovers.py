"""One attempt at a job at a time on this host: what another attempt runs here, and how it is ended.

An attempt that was given up may still run: what watched over it was killed, or has not heard of it yet. Its
processes are told by their environment: the job, the attempt's job instance, and the JSM they belong to. A
process group's number alone says nothing, since numbers are used again.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import signal
import socket
import time
from collections.abc import Collection, Mapping
from pathlib import Path

WAIT_SECONDS = 5.0


def find_leftovers(job_ids: Collection[int], jsm: str) -> dict[int, int]:
    """The processes on this host that run for one of these jobs: process id -> job_id.

    Those of other users are seen by root only.

    Parameters:
        job_ids: the jobs.
        jsm: where their JSM is, ``host:port``: another release on this host has jobs of the same number.
    """
    return {pid: job_id for pid, job_id, _ in _find(job_ids, jsm)}


def _find(job_ids: Collection[int], jsm: str) -> list[tuple[int, int, int]]:
    """Process id, job_id and job_instance_id (0: it does not say) of each."""
    wanted = {b"%d" % job_id: job_id for job_id in job_ids}
    found = []
    for entry in os.listdir("/proc") if os.path.isdir("/proc") else []:
        if not entry.isdigit() or int(entry) == os.getpid():
            continue
        with contextlib.suppress(OSError):  # it has ended, or is somebody else's
            variables = Path(f"/proc/{entry}/environ").read_bytes().split(b"\0")
            if b"JOBMON_JSM=" + jsm.encode() not in variables:
                continue
            environ = dict(variable.split(b"=", 1) for variable in variables if b"=" in variable)
            job_id, number = environ.get(b"JOBMON_JOB_ID"), environ.get(b"JOBMON_JOB_INSTANCE_ID", b"0")
            if job_id in wanted:
                found.append((int(entry), wanted[job_id], int(number) if number.isdigit() else 0))
    return found


def kill_leftovers(attempts: Mapping[int, int], jsm: str) -> set[int]:
    """Kill what earlier attempts at these jobs have left on this host, with its process groups.

    Parameters:
        attempts: job_id -> job_instance_id of the attempt that is about to start here.
        jsm: where their JSM is, ``host:port``.

    Returns:
        The jobs that must not be started: an earlier attempt has a process after some seconds, or a later one
        runs, and it is ours that was given up.
    """
    deadline = time.monotonic() + WAIT_SECONDS
    attempts, later = dict(attempts), set()
    while leftovers := _find(attempts, jsm):
        for pid, job_id, number in leftovers:
            if number >= attempts.get(job_id, 0):
                later.add(job_id)
                attempts.pop(job_id, None)
                continue
            with contextlib.suppress(OSError):
                group = os.getpgid(pid)
                # A command that did not get a group of its own is in ours, which is not to be ended.
                if group in (0, os.getpgrp()):
                    os.kill(pid, signal.SIGKILL)
                else:
                    os.killpg(group, signal.SIGKILL)
        if time.monotonic() > deadline:
            return later | {job_id for _, job_id, _ in leftovers}
        time.sleep(0.01)
    return later


def take_place(job_id: int, job_instance_id: int, jsm: str) -> socket.socket | None:
    """Take the one place that a job has on this host; earlier attempts that are in it are killed.

    The place is a name that the kernel gives to one socket at a time, and takes back when the last process
    that has the socket open is gone. So the command must inherit it, and whoever starts the command let go of
    it: it may be halted or killed and must not keep the place for a command that is gone.

    Parameters:
        job_id: the job.
        job_instance_id: the attempt that is about to start.
        jsm: where its JSM is, ``host:port``.

    Returns:
        The socket; None: another attempt is in the place, and the job must not be started.
    """
    name = b"\0jobmon-" + hashlib.sha1(f"{jsm} {job_id}".encode()).hexdigest().encode()
    place = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    deadline = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            place.bind(name)
            return place
        except OSError as error:
            if error.errno != errno.EADDRINUSE:  # such names are Linux's own
                return place
        # Somebody who is about to become a command has the place and cannot be seen yet.
        if job_id in kill_leftovers({job_id: job_instance_id}, jsm) or time.monotonic() > deadline:
            place.close()
            return None
        time.sleep(0.01)
