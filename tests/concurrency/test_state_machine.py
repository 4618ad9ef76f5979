"""Any calls in any order against a model of the state machines; after every step the invariants hold."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pymysql
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from race_helpers import Database, Refused

JOB_TRANSITIONS = {"GQ", "QI", "IR", "IE", "RE", "RD", "EQ", "EF", "FQ", "QG", "IG", "RG", "FG", "DG"}
ERRORS = "EWZU"
INSTANCE_TRANSITIONS = {"IB", "IR", "BR", "RD", "IW", *(at + to for at in "IBR" for to in "EZU")}
LIVE = "IBR"
MAX_JOBS = 8

PICK = st.integers(0, 23)  # of what there is, modulo
UPSTREAMS = st.lists(st.lists(PICK, max_size=3), min_size=1, max_size=4)
STATE_TABLES = (
    "job_instance_error_log",
    "job_instance_status_log",
    "job_status_log",
    "job_instance",
    "job_gate",
    "job_edge",
    "job",
    "workflow_run",
    "workflow",
    "api_request",
    "task_dag",
)


class Stop(Exception):  # noqa: N818
    """The model refuses; ``names`` are the errors that say so."""

    def __init__(self, *names: str) -> None:
        super().__init__(*names)
        self.names = set(names)


@dataclass
class Job:
    """A job as the model has it."""

    job_id: int
    max_attempts: int
    status: str = "G"
    num_attempts: int = 0
    before_reset: int = 0
    history: str = "G"
    upstreams: list[Job] = field(default_factory=list)
    downstreams: list[Job] = field(default_factory=list)
    instances: list[Instance] = field(default_factory=list)

    def move(self, status: str) -> None:
        """One transition."""
        assert self.status + status in JOB_TRANSITIONS, (self, status)
        self.status = status
        self.history += status

    @property
    def pending(self) -> int:
        """How many upstreams are not DONE."""
        return sum(one.status != "D" for one in self.upstreams)

    @property
    def newest(self) -> int:
        """The number of the newest attempt."""
        return self.before_reset + self.num_attempts

    def queue(self) -> None:
        """G or F to Q, by whoever asks."""
        if self.status == "Q":
            return
        if self.status not in "GF":
            raise Stop("ILLEGAL_TRANSITION")
        if self.pending:
            raise Stop("UPSTREAM_NOT_DONE")
        if self.status == "F" and self.num_attempts >= self.max_attempts:
            raise Stop("ATTEMPTS_EXHAUSTED")
        self.move("Q")

    def instantiate(self, instance_id: int) -> Instance:
        """Q to I."""
        assert self.status == "Q"
        self.num_attempts += 1
        self.move("I")
        self.instances.append(Instance(instance_id, self, self.newest))
        return self.instances[-1]

    def reset(self) -> None:
        """Any status to G."""
        if self.status == "G":
            return
        if self.status == "D" and any(one.status != "G" for one in self.downstreams):
            raise Stop("DOWNSTREAM_NOT_REGISTERED")
        self.move("G")
        self.before_reset, self.num_attempts = self.newest, 0
        for one in self.instances:
            if one.status in LIVE:
                one.status = "E"
                one.history += "E"

    def descendants(self) -> list[Job]:
        """The job and all below it, the lowest first."""
        found, todo = {self.job_id: self}, [self]
        while todo:
            for one in todo.pop().downstreams:
                if one.job_id not in found:
                    found[one.job_id] = one
                    todo.append(one)
        return [found[job_id] for job_id in sorted(found, reverse=True)]


@dataclass
class Instance:
    """A job instance as the model has it."""

    instance_id: int
    job: Job
    attempt: int
    status: str = "I"
    history: str = "I"
    executor_id: str | None = None

    @property
    def given_up(self) -> bool:
        """Whether its job was reset or has a newer instance."""
        return self.job.status == "G" or self.attempt != self.job.newest

    def report(self, status: str) -> None:
        """A report, or an UPDATE of the status."""
        if status == self.status:
            return
        if self.status + status not in INSTANCE_TRANSITIONS:
            if self.status in LIVE:
                raise Stop("ILLEGAL_TRANSITION")
            raise Stop("JOB_INSTANCE_SUPERSEDED" if self.given_up else "JOB_INSTANCE_ENDED")
        self.status = status
        self.history += status
        if status in "RDEWZU":
            self.job.move("E" if status in ERRORS else status)
        if status in ERRORS:
            self.job.move("Q" if self.job.num_attempts < self.job.max_attempts else "F")
        if status == "D":
            for one in self.job.downstreams:
                if one.status == "G" and not one.pending:
                    one.move("Q")


@dataclass
class Run:
    """A workflow run as the model has it."""

    run_id: int
    status: str = "R"
    submitted: bool = False


class StateMachines(RuleBasedStateMachine):
    """Calls the database and the model, and compares."""

    race: Database  # set by the test
    jsm: Any
    admin: Any
    views: list[str]

    def __init__(self) -> None:
        super().__init__()
        with self.admin.cursor() as cursor:
            for table in STATE_TABLES:
                cursor.execute(f"DELETE FROM {table}")
        self.jobs: list[Job] = []
        document = self.race.once(self.jsm, "add_task_dag", user="ann", dag_hash="model")
        self.dag_id = document["dag_id"]
        workflow = {"workflow_args": "", "workflow_hash": "model", "name": "w", "user": "ann"}
        document = self.race.once(self.jsm, "add_workflow", dag_id=self.dag_id, **workflow)
        self.workflow_id = document["workflow_dct"]["id"]
        self.workflow_status = "C"
        self.runs: list[Run] = []

    # -- what there is to choose from

    def job(self, pick: int) -> Job:
        """One of the jobs."""
        return self.jobs[pick % len(self.jobs)]

    def instance(self, pick: int) -> Instance:
        """One of the instances, the newest ones for small numbers."""
        known = sorted((one for job in self.jobs for one in job.instances), key=lambda one: -one.instance_id)
        return known[pick % len(known)]

    @property
    def any_instance(self) -> bool:
        """Whether there is an instance."""
        return any(job.instances for job in self.jobs)

    def same(self, model: Callable[[], Any], database: Callable[[], Any]) -> Any:
        """Both do it, or both refuse it by the same name. Gives the database's answer, None if refused."""
        expected: set[str] = set()
        try:
            model()
        except Stop as stop:
            expected = stop.names
        try:
            answer = database()
        except Refused as refusal:
            assert refusal.name in expected, (refusal, expected)
            return None
        assert not expected, (answer, expected)
        return answer

    def raw(self, sql: str, *arguments: Any) -> None:
        """A statement of a person with a SQL prompt."""
        try:
            with self.admin.cursor() as cursor:
                cursor.execute(sql, arguments)
        except pymysql.err.MySQLError as error:
            raise Refused(*self.race.errors[error.args[0]], error.args[1]) from error

    # -- jobs

    @initialize(upstreams=UPSTREAMS, max_attempts=st.integers(1, 3))
    def begin(self, upstreams: list[list[int]], max_attempts: int) -> None:
        self.add_some(upstreams, max_attempts)

    @precondition(lambda self: len(self.jobs) < MAX_JOBS)
    @rule(upstreams=UPSTREAMS, max_attempts=st.integers(1, 3))
    def add_jobs(self, upstreams: list[list[int]], max_attempts: int) -> None:
        self.add_some(upstreams, max_attempts)

    def add_some(self, upstreams: list[list[int]], max_attempts: int) -> None:
        """Jobs, each with these of the jobs there are as its upstreams."""
        items, made = [], []
        for picks in upstreams:
            name = str(len(self.jobs))
            above = {pick % len(self.jobs) for pick in picks} if self.jobs else set()
            items.append({"name": name, "job_hash": name, "command": "true", "max_attempts": max_attempts})
            items[-1]["upstream_job_hashes"] = [str(one) for one in sorted(above)]
            job = Job(0, max_attempts)
            for n in sorted(above):
                job.upstreams.append(self.jobs[n])
                self.jobs[n].downstreams.append(job)
            self.jobs.append(job)
            made.append(job)
        for _ in range(2):  # again, as after a lost answer
            ids = self.race.once(self.jsm, "add_jobs", dag_id=self.dag_id, jobs=items)["job_ids"]
            for job, job_id in zip(made, ids, strict=True):
                assert job.job_id in (0, job_id)
                job.job_id = job_id

    @precondition(lambda self: len(self.jobs) > 1)
    @rule(first=PICK, second=PICK)
    def add_edge(self, first: int, second: int) -> None:
        above, below = sorted((first % len(self.jobs), second % len(self.jobs)))
        upstream, downstream = self.jobs[above], self.jobs[below]
        if upstream in downstream.upstreams or above == below:
            return

        def model() -> None:
            if downstream.status != "G":
                raise Stop("JOB_NOT_REGISTERED")
            downstream.upstreams.append(upstream)
            upstream.downstreams.append(downstream)
            upstream.downstreams.sort(key=lambda one: one.job_id)

        item = {"name": str(below), "job_hash": str(below), "command": "true"}
        item["upstream_job_hashes"] = [str(above)]  # type: ignore[assignment]
        self.same(model, lambda: self.race.once(self.jsm, "add_jobs", dag_id=self.dag_id, jobs=[item]))

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK, raw=st.booleans())
    def queue(self, pick: int, raw: bool) -> None:
        job = self.job(pick)
        self.same(
            job.queue,
            lambda: (
                self.raw("UPDATE job SET status = 'Q' WHERE job_id = %s", job.job_id)
                if raw
                else self.race.once(self.jsm, "queue_job", job_id=job.job_id)
            ),
        )

    @rule()
    def queue_all(self) -> None:
        ready = [job for job in self.jobs if job.status == "G" and not job.pending]
        for job in ready:
            job.move("Q")
        document = self.race.once(self.jsm, "queue_jobs", dag_id=self.dag_id)
        assert document == {"num_queued": len(ready), "num_left": 0}

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK, max_attempts=st.sampled_from([None, 1, 1, 2, 4]))
    def retry(self, pick: int, max_attempts: int | None) -> None:
        job = self.job(pick)

        def model() -> None:
            if job.status == "D":
                raise Stop("ILLEGAL_TRANSITION")
            wanted = max_attempts or (job.num_attempts + 1 if job.status == "F" else job.max_attempts)
            if job.status == "F":
                if job.num_attempts >= wanted:
                    raise Stop("ATTEMPTS_EXHAUSTED")
                job.move("Q")
            job.max_attempts = wanted

        self.same(
            model,
            lambda: self.race.once(self.jsm, "retry_job", job_id=job.job_id, max_attempts=max_attempts),
        )

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK)
    def reset(self, pick: int) -> None:
        job = self.job(pick)
        for one in job.descendants():
            one.reset()
        self.race.once(self.jsm, "reset_job", job_id=job.job_id)

    @rule()
    def reset_incomplete(self) -> None:
        for job in self.jobs:
            if job.status != "D":
                job.reset()
        self.race.once(self.jsm, "reset_incomplete_jobs", dag_id=self.dag_id)

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK, status=st.sampled_from("GGGIRDEF"))
    def update_job(self, pick: int, status: str) -> None:
        """A person sets a job's status (Q: see queue)."""
        job = self.job(pick)

        def model() -> None:
            if job.status == status:
                return
            if job.status + status not in JOB_TRANSITIONS:
                raise Stop("ILLEGAL_TRANSITION")
            if status != "G":
                raise Stop("JOB_FOLLOWS_ITS_INSTANCE")
            job.reset()

        self.same(model, lambda: self.raw("UPDATE job SET status = %s WHERE job_id = %s", status, job.job_id))

    # -- instances

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK, raw=st.booleans(), attempt=st.sampled_from([None, None, 0, 1, 2]))
    def instantiate(self, pick: int, raw: bool, attempt: int | None) -> None:
        """As an emu client does, or by INSERT; ``attempt`` is how far its key is from the newest attempt."""
        job = self.job(pick)
        number = None if attempt is None or raw else job.newest + attempt
        found = [one for one in job.instances if one.attempt == number and one.status == "I"]

        def model() -> None:
            if found:
                return
            if job.status != "Q":
                raise Stop("JOB_NOT_QUEUED")
            # 0 stands for whichever is next
            if number and number != job.newest + 1:
                raise Stop("ATTEMPT_NUMBER_CONFLICT")

        def database() -> int:
            if raw:
                self.raw("INSERT INTO job_instance (job_id, executor_type) VALUES (%s, 'Model')", job.job_id)
                return int(self.race.value("SELECT MAX(job_instance_id) FROM job_instance"))
            document = self.race.once(
                self.jsm, "add_job_instance", job_id=job.job_id, executor_type="Model", attempt_number=number
            )
            return int(document["job_instance_id"])

        instance_id = self.same(model, database)
        if instance_id is not None and found:
            assert instance_id == found[0].instance_id
        elif instance_id is not None:
            job.instantiate(instance_id)

    @rule(count=st.integers(0, 4), repeat=st.booleans(), of=st.sampled_from(["dag", "dag", "run", "any"]))
    def claim(self, count: int, repeat: bool, of: str) -> None:
        """Of the dag, of its newest run, or of any: those whose run was submitted."""
        if of == "run" and not self.runs:
            return
        newest = self.runs[-1] if self.runs else None
        queued = [job for job in self.jobs if job.status == "Q"][:count]

        def model() -> None:
            if of == "run" and newest and newest.status != "R":
                raise Stop("WORKFLOW_RUN_ENDED")

        if of == "dag" and (self.workflow_status == "S" or (newest and newest.status == "S")):
            queued = []
        if of == "any" and not (newest and newest.status == "R" and newest.submitted):
            queued = []
        arguments: dict[str, Any] = {"executor_type": "Model", "max_jobs": count}
        if of == "dag":
            arguments["dag_id"] = self.dag_id
        elif of == "run" and newest:
            arguments["workflow_run_id"] = newest.run_id
        if repeat:
            arguments["request_key"] = os.urandom(8).hex()
        document = self.same(model, lambda: self.race.once(self.jsm, "claim_jobs", **arguments))
        if document is None:
            return
        if repeat:
            assert self.race.once(self.jsm, "claim_jobs", **arguments) == document
        claimed = {one["job_id"]: one["job_instance_id"] for one in document["job_instances"]}
        assert list(claimed) == [job.job_id for job in queued]
        assert all(
            one["workflow_run_id"] == (newest.run_id if newest else None) for one in document["job_instances"]
        )
        for job in queued:
            job.instantiate(claimed[job.job_id])

    # -- runs

    @property
    def live_run(self) -> Run | None:
        """The run that is RUNNING."""
        return next((run for run in self.runs if run.status == "R"), None)

    @rule(stale=st.sampled_from([None, 0, 0, 3600]))
    def start_run(self, stale: int | None) -> None:
        def model() -> None:
            if self.live_run and stale:
                raise Stop("WORKFLOW_RUN_ALIVE")
            if self.workflow_status == "D":
                raise Stop("ILLEGAL_TRANSITION")
            if self.live_run:
                self.live_run.status = "S"
            self.workflow_status = "R"

        run = {"user": "ann", "hostname": "h", "pid": 1, "stale_after_seconds": stale}
        document = self.same(
            model,
            lambda: self.race.once(self.jsm, "add_workflow_run", workflow_id=self.workflow_id, **run),
        )
        if document is not None:
            self.runs.append(Run(document["workflow_run_id"]))

    @precondition(lambda self: self.runs)
    @rule(back=st.sampled_from([1, 1, 1, 2]), max_jobs=st.sampled_from([None, None, 0, 2]))
    def submit_run(self, back: int, max_jobs: int | None) -> None:
        run = self.runs[-min(back, len(self.runs))]
        ready = [job for job in self.jobs if job.status == "G" and not job.pending]
        chosen = ready if max_jobs is None else ready[:max_jobs]

        def model() -> None:
            if run.status != "R":
                raise Stop("WORKFLOW_RUN_ENDED")
            for job in chosen:
                job.move("Q")
            run.submitted = run.submitted or len(chosen) == len(ready)

        document = self.same(
            model,
            lambda: self.race.once(
                self.jsm, "submit_workflow_run", workflow_run_id=run.run_id, max_jobs=max_jobs
            ),
        )
        assert document in (None, {"num_queued": len(chosen), "num_left": len(ready) - len(chosen)})

    @precondition(lambda self: self.runs)
    @rule(back=st.sampled_from([1, 1, 1, 2]), of_all=st.booleans())
    def end_run(self, back: int, of_all: bool) -> None:
        run = (self.live_run or self.runs[-1]) if of_all else self.runs[-min(back, len(self.runs))]
        ended = run.status == "R" and run.submitted and self.at_its_end
        if ended:
            run.status = "D" if all(job.status == "D" for job in self.jobs) else "E"
            self.workflow_status = run.status
        if of_all:
            told = {"workflow_run_id": run.run_id, "workflow_id": self.workflow_id, "status": run.status}
            document = self.race.once(self.jsm, "end_workflow_runs")
            assert document == {"workflow_runs": [told] if ended else []}
            return
        document = self.race.once(self.jsm, "end_workflow_run", workflow_run_id=run.run_id)
        assert document == {
            "status": run.status,
            "workflow_status": self.workflow_status,
            "counts": dict(Counter(job.status for job in self.jobs)),
        }

    @rule(
        ends=st.lists(st.sampled_from("DDDDDERK"), min_size=1, max_size=30),
        then=st.sampled_from(["end", "end", "end all", "stop", "kill"]),
    )
    def work_off(self, ends: list[str], then: str) -> None:
        """A run from start to end, if the jobs get that far: chance alone seldom submits and ends one."""
        if self.workflow_status == "D":
            return
        if not self.live_run:
            self.start_run(None)
        self.submit_run(1, None)
        for end in ends:
            job = next((one for one in self.jobs if one.status in "QI"), None)
            if job is not None:
                self.live_out(job, end)
        if then in ("stop", "kill"):
            self.stop(int(then == "kill"))
        else:
            self.end_run(1, then == "end all")

    @property
    def at_its_end(self) -> bool:
        """Whether nothing is queued or live, or could be queued."""
        return all(job.status in "FD" or (job.status == "G" and job.pending) for job in self.jobs)

    @rule(kill=st.sampled_from([None, 0, 1]))
    def stop(self, kill: int | None) -> None:
        run = self.live_run
        live = [one for job in self.jobs for one in job.instances if one.status in LIVE]

        def model() -> None:
            if self.workflow_status == "D":
                raise Stop("ILLEGAL_TRANSITION")
            if run:
                run.status = "S"
            self.workflow_status = "S"
            for one in live if kill else ():
                one.report("E")

        document = self.same(
            model,
            lambda: self.race.once(self.jsm, "stop_workflow", workflow_id=self.workflow_id, kill=kill),
        )
        answer = {"workflow_run_id": run and run.run_id, "num_killed": len(live) if kill else 0}
        assert document in (None, answer)

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK)
    def kill(self, pick: int) -> None:
        self.kill_one(self.job(pick))

    def kill_one(self, job: Job) -> None:
        """By request, in whatever status it is."""

        def model() -> None:
            if job.status == "F":
                return
            if job.status not in "IR":
                raise Stop("JOB_NOT_LIVE")
            job.max_attempts = job.num_attempts
            job.instances[-1].report("E")

        self.same(model, lambda: self.race.once(self.jsm, "kill_job", job_id=job.job_id))

    # -- reports

    @precondition(lambda self: self.any_instance)
    @rule(pick=PICK, status=st.sampled_from("RRRDDDEEWZU"), twice=st.booleans(), worker=st.booleans())
    def report(self, pick: int, status: str, twice: bool, worker: bool) -> None:
        instance = self.instance(pick)
        procedure = {"R": "log_running", "D": "log_done"}.get(status, "log_error")
        if worker and status == "R":
            procedure = "start_job_instance"
        arguments: dict[str, Any] = {"job_instance_id": instance.instance_id}
        if status in ERRORS:
            arguments |= {"error_message": "no", "job_instance_status": status}
        for _ in range(1 + twice):
            self.same(
                lambda: instance.report(status), lambda: self.race.once(self.jsm, procedure, **arguments)
            )

    @precondition(lambda self: self.jobs)
    @rule(pick=PICK, end=st.sampled_from("IRRRDDDEEK"))
    def live(self, pick: int, end: str) -> None:
        """A life up to there, from wherever the job is: chance alone seldom gets that far."""
        self.live_out(self.job(pick), end)

    def live_out(self, job: Job, end: str) -> None:
        """Queued, instantiated, running, ended: what of it is still to be done, up to there."""
        if job.status == "G" and not job.pending:
            job.queue()
            self.race.once(self.jsm, "queue_job", job_id=job.job_id)
        if job.status == "Q":
            document = self.race.once(self.jsm, "add_job_instance", job_id=job.job_id, executor_type="Model")
            job.instantiate(document["job_instance_id"])
        if job.status in "IR" and end != "I":
            words = {"R": "running", "D": "done", "E": "error"}
            instance, events = job.instances[-1], []
            for status in dict.fromkeys(("R", end.replace("K", "R"))):
                events.append({"event": words[status], "job_instance_id": instance.instance_id})
                events[-1]["error_message"] = "no"
                instance.report(status)
            outcomes = self.race.once(self.jsm, "log_events", events=events)["outcomes"]
            assert outcomes == [{"code": "OK"}] * len(events)
            if end == "K":
                self.kill_one(job)

    @precondition(lambda self: self.any_instance)
    @rule(pick=PICK, number=st.integers(1, 9))
    def executor_id(self, pick: int, number: int) -> None:
        instance = self.instance(pick)

        def model() -> None:
            if instance.given_up:
                raise Stop("JOB_INSTANCE_SUPERSEDED")
            instance.executor_id = str(number)
            if instance.status == "I":
                instance.report("B")

        self.same(
            model,
            lambda: self.race.once(
                self.jsm, "log_executor_id", job_instance_id=instance.instance_id, executor_id=str(number)
            ),
        )

    @precondition(lambda self: self.any_instance)
    @rule(pick=PICK)
    def heartbeat(self, pick: int) -> None:
        instance = self.instance(pick)

        def model() -> None:
            if instance.status not in LIVE:
                raise Stop("JOB_INSTANCE_SUPERSEDED" if instance.given_up else "JOB_INSTANCE_ENDED")

        self.same(
            model,
            lambda: self.race.once(
                self.jsm, "log_job_instance_heartbeat", job_instance_id=instance.instance_id
            ),
        )

    @precondition(lambda self: self.any_instance)
    @rule(reports=st.lists(st.tuples(PICK, st.sampled_from("RRRDDDEEWZU")), min_size=1, max_size=6))
    def batch(self, reports: list[tuple[int, str]]) -> None:
        """log_events. The order of the instances decides only how a report on one that ended is refused."""
        events, expected = [], []
        for pick, status in reports:
            instance = self.instance(pick)
            event = {"R": "running", "D": "done"}.get(status, "error")
            events.append({"event": event, "job_instance_id": instance.instance_id, "error_message": "no"})
            if status in ERRORS:
                events[-1]["job_instance_status"] = status
        for (pick, status), _ in zip(reports, events, strict=True):
            try:
                self.instance(pick).report(status)
                expected.append({"OK"})
            except Stop as stop:
                ended = {"JOB_INSTANCE_SUPERSEDED", "JOB_INSTANCE_ENDED"}
                expected.append(ended if stop.names & ended else stop.names)
        outcomes = self.race.once(self.jsm, "log_events", events=events)["outcomes"]
        for outcome, names in zip(outcomes, expected, strict=True):
            assert outcome["code"] in names, (outcomes, expected)

    @precondition(lambda self: self.any_instance)
    @rule(pick=PICK, status=st.sampled_from("IBRDEWZU"))
    def update_instance(self, pick: int, status: str) -> None:
        """A person sets an instance's status."""
        instance = self.instance(pick)
        self.same(
            lambda: instance.report(status),
            lambda: self.raw(
                "UPDATE job_instance SET status = %s WHERE job_instance_id = %s", status, instance.instance_id
            ),
        )

    @precondition(lambda self: self.any_instance)
    @rule(pick=PICK)
    def lose(self, pick: int) -> None:
        """The lease of an instance runs out; the reaper comes."""
        instance = self.instance(pick)
        live = instance.status in LIVE
        if live:
            self.raw(
                "UPDATE job_instance SET report_by_date = UTC_TIMESTAMP(6) - INTERVAL 1 SECOND"
                " WHERE job_instance_id = %s",
                instance.instance_id,
            )
            instance.report("E")
        document = self.race.once(self.jsm, "expire_job_instances")
        assert document == {"job_instance_ids": [instance.instance_id] if live else []}

    # -- after every step

    @invariant()
    def no_rule_is_broken(self) -> None:
        with self.admin.cursor() as cursor:
            cursor.execute(" UNION ALL ".join(f"(SELECT '{one}' FROM {one} LIMIT 1)" for one in self.views))
            assert list(cursor.fetchall()) == []

    @invariant()
    def the_database_is_as_the_model_says(self) -> None:
        with self.admin.cursor() as cursor:
            cursor.execute("SELECT status FROM workflow")
            assert list(cursor.fetchall()) == [(self.workflow_status,)]
            cursor.execute(
                "SELECT workflow_run_id, status, submitted_date IS NOT NULL FROM workflow_run ORDER BY 1"
            )
            assert list(cursor.fetchall()) == [(run.run_id, run.status, run.submitted) for run in self.runs]
            cursor.execute(
                "SELECT job.job_id, job.status, num_attempts, attempts_before_reset, max_attempts,"
                " COALESCE(upstreams_pending, 0),"
                " (SELECT GROUP_CONCAT(log.status ORDER BY job_status_log_id SEPARATOR '')"
                " FROM job_status_log AS log WHERE log.job_id = job.job_id)"
                " FROM job LEFT JOIN job_gate ON job_gate.job_id = job.job_id ORDER BY job.job_id"
            )
            assert list(cursor.fetchall()) == [
                (j.job_id, j.status, j.num_attempts, j.before_reset, j.max_attempts, j.pending, j.history)
                for j in self.jobs
            ]
            cursor.execute(
                "SELECT job_instance_id, job_id, attempt_number, status, executor_id,"
                " (SELECT GROUP_CONCAT(log.status ORDER BY job_instance_status_log_id SEPARATOR '')"
                " FROM job_instance_status_log AS log"
                " WHERE log.job_instance_id = job_instance.job_instance_id)"
                " FROM job_instance ORDER BY job_instance_id"
            )
            known = sorted(
                (one for job in self.jobs for one in job.instances), key=lambda one: one.instance_id
            )
            assert list(cursor.fetchall()) == [
                (i.instance_id, i.job.job_id, i.attempt, i.status, i.executor_id, i.history) for i in known
            ]


def test_state_machines(race: Database) -> None:
    views = race.query(
        "SELECT TABLE_NAME FROM information_schema.VIEWS"
        " WHERE TABLE_SCHEMA = DATABASE() AND TABLE_NAME LIKE 'audit\\_%%'"
    )
    assert len(views) >= 7
    admin = race.connect("admin")
    with admin.cursor() as cursor:
        cursor.execute("SET foreign_key_checks = 0")
    machine = type(
        "Machine",
        (StateMachines,),
        {"race": race, "jsm": race.connect(), "admin": admin, "views": [view for (view,) in views]},
    )
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=100,
            stateful_step_count=50,
            deadline=None,
            # The same steps in every run of CI; elsewhere new ones each time. (A number of examples, not of
            # seconds, bounds it: about 15 s on two idle cores.)
            derandomize=os.environ.get("CI") == "true",
            database=None,
            phases=[Phase.generate, Phase.shrink],
            suppress_health_check=list(HealthCheck),
        ),
    )
