"""A whole Jobmon whose processes are killed and started again, and a workflow whose jobs keep records."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from client_helpers import clean_environ
from http_helpers import RUN, free_port

from jobmon.client.requester import Requester
from jobmon.config import Config, load_config
from jobmon.db import catalog, grants, migrate
from jobmon.db.connect import connect
from jobmon.db.embedded import EmbeddedServer, ServerBinaries
from jobmon.executors.leftovers import find_leftovers

SCRIPT = Path(__file__).with_name("job.sh")
MOST_ATTEMPTS = 1000  # of a job that must not fail because its attempts get lost


class Part:
    """A process that is started again whenever it was killed.

    Parameters:
        name: of its log.
        command: what is run.
        environ: its environment.
        directory: where its log is.
        may_end: whether it may end by itself, with status 0.
    """

    def __init__(
        self,
        name: str,
        command: list[str],
        environ: dict[str, str],
        directory: Path,
        *,
        may_end: bool = False,
    ) -> None:
        self.name = name
        self.log = directory / f"{name}.log"
        self.may_end = may_end
        self.process: subprocess.Popen[bytes] | None = None
        self.num_kills = 0
        self._command = command
        self._environ = environ

    def start(self) -> None:
        """Start it; it need not be ready yet."""
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, env=self._environ, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip

    def is_running(self) -> bool:
        """Whether it runs.

        Raises:
            AssertionError: it has ended, and was not killed.
        """
        if self.process is None:
            return False
        code = self.process.poll()
        assert code is None or (code == 0 and self.may_end), f"{self.name} ended with {code}:\n{self.tail()}"
        return code is None

    def has_ended(self) -> bool:
        """Whether it has ended by itself, and well."""
        return self.process is not None and not self.is_running()

    def kill(self) -> None:
        """kill -9 of all its processes; the commands that it runs have sessions of their own, and go on."""
        assert self.process is not None
        self.signal(signal.SIGKILL)
        self.process.wait(30)
        if self.process.returncode == 0 and self.may_end:  # it was faster
            return
        self.process = None
        self.num_kills += 1

    def signal(self, number: int) -> None:
        """Send a signal to all its processes, if it was not killed."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, number)

    def tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]


class World:
    """A database server, JSM and JQS, and what else a test starts.

    Parameters:
        directory: where everything is kept; its path must be short.
        binaries: the database server's program.

    Attributes:
        config: of a client.
        environ: of a program that is a client.
        parts: the processes by name, but for the database server.
    """

    def __init__(self, directory: Path, binaries: ServerBinaries) -> None:
        self.directory = directory
        self.server = EmbeddedServer(directory / "data", binaries=binaries, buffer_pool_bytes=128 << 20)
        self.parts: dict[str, Part] = {}
        self.ports = {name: free_port() for name in ("jsm_port", "jqs_port", "jsm_management_port")}
        self.config: Config = load_config(
            env={**self.env(), "HOME": str(self.directory)},
            overrides={name: self.ports[name] for name in ("jsm_port", "jqs_port")},
        )
        self.environ = clean_environ(self)
        self.environ |= {f"JOBMON_{key.upper()}": str(value) for key, value in self.ports.items()}

    def start(self) -> None:
        """Start the database and the services, and wait until they serve."""
        self.server.start()
        self.admin = self.server.root_spec.with_database("jobmon_chaos")
        migrate.migrate(self.admin, owner="chaos_owner")
        grants.apply_grants(self.admin, prefix="chaos_", accounts_file=self.directory / "accounts.json")
        script = self.directory / "run_service.py"
        script.write_text(RUN)
        settings = json.dumps({"workers": 1, **self.ports})
        for name in ("jsm", "jqs"):
            self.add(name, [str(script), name, settings])
        with contextlib.closing(Requester(self.config, patience=60)) as requester:
            requester.post("end_workflow_runs")
            requester.get("workflows")

    def env(self) -> dict[str, str]:
        """Environment variables that make any part of Jobmon use this database, as a test's Database has."""
        rc = self.directory / "jobmonrc"
        rc.write_text("{}")
        return {"JOBMON_RC": str(rc), "JOBMON_ACCOUNTS_FILE": str(self.directory / "accounts.json")}

    def add(self, name: str, arguments: list[str], *, may_end: bool = False) -> Part:
        """Start one more Python program; it is ended with the others."""
        part = Part(name, [sys.executable, *arguments], self.environ, self.directory, may_end=may_end)
        self.parts[name] = part
        part.start()
        return part

    def end(self) -> None:
        """End all processes."""
        for part in self.parts.values():
            if part.process is not None:
                part.kill()
        for pid in self.commands():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(os.getpgid(pid), signal.SIGKILL)
        self.server.stop()

    def commands(self, job_ids: range = range(1, 10_000)) -> dict[int, int]:
        """The processes of commands: process id -> job_id."""
        return find_leftovers(job_ids, f"{self.config.host}:{self.config.jsm_port}")

    def kill_command(self, randomly: random.Random) -> bool:
        """kill -9 of the process group of a command that runs; whether there was one."""
        with contextlib.suppress(ProcessLookupError, IndexError):
            os.killpg(os.getpgid(randomly.choice(sorted(self.commands()))), signal.SIGKILL)
            return True
        return False

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """The rows of a statement."""
        with contextlib.closing(connect(self.admin)) as conn:
            return catalog.query(conn, sql)

    def audits(self) -> dict[str, list[tuple[Any, ...]]]:
        """The rows of each audit view that has any."""
        views = self.query(
            "SELECT TABLE_NAME FROM information_schema.VIEWS"
            " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME LIKE 'audit\\_%%'"
        )
        assert len(views) > 5
        found = {view: self.query(f"SELECT * FROM `{view}`") for (view,) in views}
        return {view: rows for view, rows in found.items() if rows}


# Jobs -----------------------------------------------------------------------------------------------------


@dataclass
class Job:
    """A job that keeps a record of what it does.

    Attributes:
        kind: good, flaky (fails twice) or doomed.
        seconds: how long it takes.
        upstreams: names of jobs.
    """

    name: str
    kind: str
    seconds: float
    upstreams: list[str] = field(default_factory=list)

    @property
    def command(self) -> str:
        """What is run; see job.sh."""
        return f"exec /bin/bash {SCRIPT} {self.name} {self.kind} {self.seconds:.2f}"

    @property
    def max_attempts(self) -> int:
        """So many that only the doomed ones fail for good."""
        return 2 if self.kind == "doomed" else MOST_ATTEMPTS


def make_jobs(randomly: random.Random, layers: int, width: int, *, flaky: int, doomed: int) -> list[Job]:
    """Jobs in layers; each has one to three upstreams, which stand near it in the layer before.

    A third of them takes no time, a third up to 0.2 s, a third up to 2 s.

    Parameters:
        flaky: how many fail twice.
        doomed: how many always fail; none of them in the first layers, each with others behind it.
    """
    jobs: list[Job] = []
    for layer in range(layers):
        for place in range(width):
            near = [f"{layer - 1}.{other % width}" for other in range(place - 2, place + 3)]
            upstreams = randomly.sample(near, randomly.randint(1, 3)) if layer else []
            seconds = randomly.choice((0.0, randomly.uniform(0.0, 0.2), randomly.uniform(0.2, 2.0)))
            jobs.append(Job(f"{layer}.{place}", "good", seconds, sorted(upstreams)))
    waited_for = {upstream for job in jobs for upstream in job.upstreams}
    late = [job for job in jobs[len(jobs) * 2 // 5 :] if job.name in waited_for]
    for job in randomly.sample(late, doomed):
        job.kind = "doomed"
    for job in randomly.sample([job for job in jobs if job.kind == "good"], flaky):
        job.kind = "flaky"
    return jobs


def right_ends(jobs: list[Job]) -> dict[str, str]:
    """The status with which each job must end: what is behind a doomed one never starts."""
    ends: dict[str, str] = {}
    for job in jobs:
        if any(ends[upstream] != "D" for upstream in job.upstreams):
            ends[job.name] = "G"
        else:
            ends[job.name] = "F" if job.kind == "doomed" else "D"
    return ends


class Records:
    """What the jobs themselves say about their runs.

    Parameters:
        directory: in which they run.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        for name in ("records", "locks"):
            (directory / name).mkdir(parents=True)

    def read(self) -> dict[str, list[tuple[str, int, float]]]:
        """Name of a job -> what happened (start, failed, end, twice), its job instance, and when (s)."""
        found = {}
        for path in (self.directory / "records").iterdir():
            lines = [line.split() for line in path.read_text().splitlines()]
            found[path.name] = [(what, int(number), float(when)) for what, number, when in lines]
        return found

    def twice(self) -> dict[str, list[tuple[str, int, float]]]:
        """What the jobs say that ran twice at the same time."""
        return {
            name: lines for name, lines in self.read().items() if any(line[0] == "twice" for line in lines)
        }


def check_records(world: World, records: Records, jobs: list[Job]) -> None:
    """The jobs say the same as the database: nothing was left out, done too early, or made up."""
    lines = records.read()
    assert records.twice() == {}
    statuses = dict(world.query("SELECT name, status FROM job"))
    assert statuses == right_ends(jobs)
    starts: dict[str, list[float]] = defaultdict(list)
    ends: dict[str, dict[int, float]] = defaultdict(dict)
    num_failed: dict[str, int] = defaultdict(int)
    for name, some in lines.items():
        for what, number, when in some:
            if what == "start":
                starts[name].append(when)
            elif what == "end":
                ends[name][number] = when
            else:
                num_failed[name] += 1
    done = dict(
        world.query(
            "SELECT job.name, job_instance.job_instance_id FROM job_instance"
            " JOIN job ON job.job_id = job_instance.job_id WHERE job_instance.status = 'D'"
        )
    )
    assert set(done) == {name for name, status in statuses.items() if status == "D"}
    for name, number in done.items():
        assert number in ends[name], f"job instance {number} of {name} is DONE, and did not come to its end"
    for job in jobs:
        if statuses[job.name] == "G":
            assert job.name not in lines, f"{job.name} ran behind a job that has failed"
        if job.kind == "flaky" and statuses[job.name] == "D":
            assert num_failed[job.name] == 2
        if job.kind == "doomed":
            assert not ends[job.name]
        for upstream in job.upstreams:
            for start in starts[job.name]:
                first = min(ends[upstream].values(), default=float("inf"))
                assert first <= start, f"{job.name} began before {upstream} had ended"


def check_history(world: World) -> None:
    """No job ever had two live instances, and none that was DONE became anything else."""
    live: dict[int, int] = {}
    for job_id, number, status in world.query(
        "SELECT job_instance.job_id, log.job_instance_id, log.status FROM job_instance_status_log AS log"
        " JOIN job_instance ON job_instance.job_instance_id = log.job_instance_id"
        " ORDER BY log.job_instance_status_log_id"
    ):
        if status in "IBR":
            assert live.setdefault(job_id, number) == number, (
                f"job {job_id}: {live[job_id]} and {number} live"
            )
        else:
            assert live.pop(job_id) == number
    assert live == {}
    assert world.query("SELECT * FROM job_status_log WHERE from_status = 'D' AND status <> 'D'") == []


# Chaos ----------------------------------------------------------------------------------------------------


class Chaos:
    """Kills something at random moments, and starts it again after a while.

    Parameters:
        world: what is killed.
        randomly: decides; its seed makes the same sequence again.
        victims: what may be killed: ``database``, a part's name, a key of ``others``; the more often a name
            stands there, the more often it is killed.
        others: further victims, which nobody starts again: name -> kills one, and says whether there was one.
        sleepers: parts that may be halted for a while, as on a machine that is paused or that swaps.
        pauses: the shortest and the longest time between two kills, seconds.
        watch: called often; looks at what must hold at all times.
    """

    def __init__(
        self,
        world: World,
        randomly: random.Random,
        victims: list[str],
        others: dict[str, Callable[[], bool]],
        sleepers: list[str],
        pauses: tuple[float, float],
        watch: Callable[[], None],
    ) -> None:
        self.num_kills: dict[str, int] = defaultdict(int)
        self._world, self._random, self._pauses, self._watch = world, randomly, pauses, watch
        self._victims, self._others, self._sleepers = victims, others, sleepers
        # By time.monotonic: when what was killed is started again, and when what was halted goes on.
        self._restarts: dict[str, float] = {}
        self._wake_ups: dict[str, float] = {}

    def go_on(self, seconds: float, until: Callable[[], bool]) -> None:
        """Kill and start again for so long, or until something is so."""
        end = time.monotonic() + seconds
        next_kill = next_watch = 0.0
        while time.monotonic() < end and not until():
            now = time.monotonic()
            if now >= next_kill:
                for _ in range(self._random.choice((1, 1, 1, 2, 3))):
                    self._kill(self._random.choice(self._victims))
                if self._sleepers and self._random.random() < 0.2:
                    self._halt(self._random.choice(self._sleepers))
                next_kill = now + self._random.uniform(*self._pauses)
            if now >= next_watch and "database" not in self._restarts:
                self._watch()
                next_watch = now + 5
            self._start_again()
            time.sleep(0.05)

    def calm(self, until: Callable[[], bool], seconds: float) -> None:
        """Start everything that was killed, and wait until something is so."""
        end = time.monotonic() + seconds
        self._restarts = dict.fromkeys(self._restarts, 0.0)
        self._wake_ups = dict.fromkeys(self._wake_ups, 0.0)
        self._start_again()
        while not until():
            assert time.monotonic() < end, f"not ended after {seconds} s"
            for part in self._world.parts.values():
                part.is_running()
            time.sleep(0.2)

    def describe(self, records: Records) -> str:
        """How things stand, for the report of a failure."""
        text = f"killed: {dict(self.num_kills)}\n"
        if self._world.server.is_ready():
            jobs = self._world.query("SELECT status, COUNT(*) FROM job GROUP BY status")
            runs = self._world.query(
                "SELECT workflow_run_id, status, pid, created_date, heartbeat_date FROM workflow_run"
            )
            text += f"jobs: {dict(jobs)}\nruns: {runs}\n"
            for name, lines in records.twice().items():
                instances = self._world.query(
                    "SELECT job_instance_id, attempt_number, job_instance.status, job_instance.created_date,"
                    " running_date, ended_date, process_group_id, error_message"
                    f" FROM job_instance JOIN job ON job.job_id = job_instance.job_id WHERE name = '{name}'"
                )
                text += f"{name}: {lines}\n" + "".join(f"  {row}\n" for row in instances)
        return text + "".join(f"\n== {name}\n{part.tail()}" for name, part in self._world.parts.items())

    def _kill(self, victim: str) -> None:
        if victim in self._others:
            self.num_kills[victim] += self._others[victim]()
            return
        if victim in self._restarts:  # it is dead
            return
        if victim == "database":
            self._world.server.kill()
        else:
            part = self._world.parts[victim]
            if not part.is_running():
                return
            part.kill()
        self.num_kills[victim] += 1
        self._restarts[victim] = time.monotonic() + self._random.choice((0, self._random.uniform(0, 4)))

    def _halt(self, sleeper: str) -> None:
        part = self._world.parts[sleeper]
        if sleeper not in self._restarts and sleeper not in self._wake_ups and part.is_running():
            part.signal(signal.SIGSTOP)
            self.num_kills[f"{sleeper} halted"] += 1
            self._wake_ups[sleeper] = time.monotonic() + self._random.uniform(1, 8)

    def _start_again(self) -> None:
        for sleeper, when in list(self._wake_ups.items()):
            if when <= time.monotonic():
                del self._wake_ups[sleeper]
                self._world.parts[sleeper].signal(signal.SIGCONT)
        for victim, when in list(self._restarts.items()):
            if when <= time.monotonic():
                del self._restarts[victim]
                if victim == "database":
                    self._world.server.start()
                elif not self._world.parts[victim].has_ended():
                    self._world.parts[victim].start()
