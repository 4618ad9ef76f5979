"""The distributor: claims queued jobs for an executor, passes on its reports, renews leases and heartbeats.

It holds no state that matters. Killed at any moment, it leaves job instances whose leases run out; another
distributor, on this host or not, ends them and claims the jobs again.
"""

from __future__ import annotations

import logging
import random
import secrets
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from jobmon.client.errors import RequestRefused, ServiceUnavailable
from jobmon.client.requester import Requester
from jobmon.distributor.batch import find_worker_host, make_reader, read_live
from jobmon.executors.base import Event, Executor
from jobmon.executors.batch import BatchExecutor

logger = logging.getLogger(__name__)

MOST_EVENTS = 1000  # reports in one call
ENOUGH_EVENTS = 250  # so many are not kept waiting for more
REPORT_SECONDS = 0.2  # how long reports wait for others, unless a place is free
SHORTEST_POLL, LONGEST_POLL = 0.05, 2.5  # between claims in vain; short after something happened
LOOK_SECONDS, IDLE_LOOK_SECONDS = 1.0, 5.0  # between looks at the run; long while nothing changes
EXPIRE_SECONDS = 15.0  # between looks for job instances that are lost
FORGET_SECONDS = 60.0  # between calls that forget old answers, of which each claim leaves one
MOST_CLAIMED = 1000  # by one call
INFINITY = float("inf")
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 30.0  # until a call that failed at JSM is made again
# What says that a job instance is no longer this distributor's.
GIVEN_UP = frozenset({"JOB_INSTANCE_ENDED", "JOB_INSTANCE_SUPERSEDED", "UNKNOWN_JOB_INSTANCE"})


@dataclass
class _Failure:
    """A call that fails: since when, how often in a row, and when it is made again; by time.monotonic."""

    since: float
    count: int
    again: float


class Distributor:
    """Runs the jobs of one workflow run until it ends, or those of all submitted runs until told to leave.

    When JSM is away, what runs goes on, and reports are kept until it is back. A call at which JSM fails
    (5xx) is made again later, and keeps no other from being made.

    Parameters:
        requester: the services.
        executor: what runs the job instances; it is opened and closed here.
        workflow_run_id: the run; None: all submitted runs.
        dag_id: the run's dag.
        lease_seconds: a job instance of which nothing is heard for so long is lost, and its job retried.
        heartbeat_seconds: seconds between heartbeats of the run, or of the runs whose jobs run here.
        patience: seconds that JSM may be away before this gives up.

    Attributes:
        counts: numbers of the run's jobs by the letter of their status, about a second old.
        num_ended: job instances whose end was reported, for progress.
    """

    def __init__(
        self,
        requester: Requester,
        executor: Executor,
        *,
        workflow_run_id: int | None = None,
        dag_id: int | None = None,
        lease_seconds: int = 60,
        heartbeat_seconds: float = 20.0,
        patience: float = 86_400.0,
    ) -> None:
        self.counts: dict[str, int] = {}
        self.num_ended = 0
        self._requester = requester
        self._executor = executor
        self._batch = executor if isinstance(executor, BatchExecutor) else None
        self._reader: Requester | None = None
        self._workflow_run_id = workflow_run_id
        self._own_dag_id = dag_id
        self._lease_seconds = lease_seconds
        self._heartbeat_seconds = heartbeat_seconds
        self._patience = patience
        self._expire_seconds = min(EXPIRE_SECONDS, float(lease_seconds))
        self._draining = threading.Event()
        self._killed = threading.Event()
        self._status = "R"
        self._dag_of: dict[int, int | None] = {}  # job instances that are held
        self._events: list[Event] = []  # collected, and not yet taken by JSM
        self._first_event: float | None = None  # since when something is to be reported
        self._ended = False  # whether a job instance ended since the last look
        self._claim_key = ""  # of a claim whose answer is not known yet
        self._claim_began = 0.0
        self._failures: dict[str, _Failure] = {}
        self._refusal: RequestRefused | None = None  # why a service leaves
        # When what is due next, by time.monotonic.
        now = time.monotonic()
        self._poll = SHORTEST_POLL
        self._next_claim = self._next_look = now
        self._next_beat = now + lease_seconds / 3
        self._next_run_beat = now + heartbeat_seconds
        self._next_expire = now + random.uniform(0, self._expire_seconds)  # not all distributors at once
        self._next_forget = now + random.uniform(0.1, 1.0) * FORGET_SECONDS

    # What others tell it

    def drain(self) -> None:
        """Claim nothing more; :meth:`run` returns when what was claimed has ended.

        A service of a batch executor returns when what was claimed is on the scheduler, where it lives on.
        """
        if self._batch is not None:
            self._batch.drain()
        self._draining.set()
        self._executor.wake.set()

    def kill(self) -> None:
        """As :meth:`drain`, and kill what runs. A service of a batch executor returns at once."""
        self._killed.set()
        if not self._leaves_jobs:
            self._executor.kill()
        self.drain()

    # The loop

    def run(self) -> str:
        """Work until the workflow run has ended; as a service, until :meth:`drain` or :meth:`kill`.

        Returns:
            The last status of the workflow run, a letter; ``R`` if it goes on without this distributor.

        Raises:
            ServiceUnavailable: JSM was away for longer than ``patience``.
            RequestRefused: JSM does not take a call, as with a wrong token. A service lets what runs end.
            JobmonError: the executor can't be used here.
        """
        config = self._requester.config
        if self._batch is not None:
            database_id = self._post("get_database_id")["database_id"]
            host = find_worker_host(config, database_id, self._batch.options.worker_host)
            self._batch.prepare(
                config, database_id, host, dag_id=self._own_dag_id, lease_seconds=self._lease_seconds
            )
            self._reader = make_reader(config)
        self._executor.open(f"{config.host}:{config.jsm_port}")
        try:
            while True:
                self._executor.wake.clear()
                self._turn()
                if self._finished():
                    break
                self._executor.wake.wait(max(0.0, self._next_due() - time.monotonic()))
            if self._workflow_run_id is not None and self._status == "R":  # it was told to leave
                self._attempt("look", self._look)
        finally:
            self._executor.close()
            if self._reader is not None:
                self._reader.close()
        if self._refusal is not None:
            raise self._refusal
        return self._status

    def _leaving(self) -> bool:
        return self._draining.is_set() or self._status != "R"

    @property
    def _leaves_jobs(self) -> bool:
        """Whether what runs lives on when this has left, and may."""
        return self._batch is not None and self._workflow_run_id is None

    def _finished(self) -> bool:
        if not self._leaving():
            return False
        if self._leaves_jobs and self._killed.is_set():
            return True
        if self._num_events() and not (self._refusal is not None and "report" in self._failures):
            return False
        if self._batch is None:
            return not self._executor.held()
        if self._workflow_run_id is None:
            return self._refusal is not None or not self._batch.submitting()
        if self._status == "R":
            return not self._batch.held()
        # DONE or ERROR: its jobs have ended. STOPPED: what was killed is to be cancelled.
        return self._status != "S" or self._batch.settled()

    def _num_events(self) -> int:
        return len(self._events) + self._executor.num_events()

    def _report_due(self) -> float:
        """When what is to be reported must be: at once if a place is free, else a moment later, with more."""
        if not self._num_events():
            self._first_event = None
            return INFINITY
        if "report" in self._failures:
            return self._failures["report"].again
        if self._first_event is None:
            self._first_event = time.monotonic()
        if self._num_events() >= ENOUGH_EVENTS or self._executor.urgent():
            return self._first_event
        return self._first_event + REPORT_SECONDS

    def _next_due(self) -> float:
        """When the next turn must be, if nothing happens before; by time.monotonic."""
        due = {
            "report": self._report_due(),
            "look": self._next_look,
            "run_beat": self._next_run_beat,
            "expire": self._next_expire,
            "forget": self._next_forget,
        }
        if self._executor.to_renew():
            due["report"] = min(due["report"], self._next_beat)
        if not self._leaving() and self._executor.room() > 0:
            due["claim"] = self._next_claim
        if self._batch is not None and self._batch.wants_live():
            due["live"] = 0.0
        for call, failure in self._failures.items():
            if call in due:
                due[call] = max(due[call], failure.again)
        return min(due.values())

    def _turn(self) -> None:
        """Do what is due."""
        self._attempt("report", self._report_if_due)
        self._attempt("live", self._reconcile)
        self._attempt("claim", self._claim_if_due)
        self._attempt("look", self._look_if_due)
        self._attempt("run_beat", self._heartbeat_runs_if_due)
        self._attempt("expire", self._expire_if_due)
        self._attempt("forget", self._forget_if_due)

    def _report_if_due(self) -> None:
        now = time.monotonic()
        beat = now >= self._next_beat and bool(self._executor.to_renew())
        if beat or self._report_due() <= now:
            if self._report(beat):  # what waited for a job that ended is queued now
                self._poll, self._next_claim, self._ended = SHORTEST_POLL, now, True
            self._first_event = None
        if beat:
            self._next_beat = time.monotonic() + self._lease_seconds / 3

    def _reconcile(self) -> None:
        if self._batch is None or self._reader is None or not self._batch.wants_live():
            return
        try:
            self._batch.reconcile(read_live(self._reader, self._batch.name))
        except ServiceUnavailable as error:
            logger.warning("nothing is reconciled: %s", error.message)
            self._put_off("live")

    def _claim_if_due(self) -> None:
        now = time.monotonic()
        if self._next_claim > now or self._leaving() or self._executor.room() == 0:
            return
        if self._claim():
            self._poll, self._next_claim = SHORTEST_POLL, time.monotonic() + REPORT_SECONDS
        else:
            if self._ended and not self._executor.held():  # nothing left to run: was that all?
                self._next_look = now
            self._next_claim = time.monotonic() + self._poll
            self._poll = min(2 * self._poll, LONGEST_POLL)

    def _look_if_due(self) -> None:
        if self._next_look > time.monotonic():
            return
        # Of a batch executor's jobs the ends are not heard here.
        soon = self._look() or (
            self._workflow_run_id is not None and (self._batch is not None or not self._executor.held())
        )
        self._next_look = time.monotonic() + (LOOK_SECONDS if soon else IDLE_LOOK_SECONDS)
        self._ended = False

    def _heartbeat_runs_if_due(self) -> None:
        if self._next_run_beat <= time.monotonic():
            self._heartbeat_runs()
            self._next_run_beat = time.monotonic() + self._heartbeat_seconds

    def _expire_if_due(self) -> None:
        if self._next_expire <= time.monotonic():
            # If JSM is away, another call must find that out: this one would be sent again until it is back,
            # and be the first that it gets.
            self._look()
            pause = IDLE_LOOK_SECONDS if self._workflow_run_id is None else LOOK_SECONDS
            self._next_look = max(self._next_look, time.monotonic() + pause)
        if self._next_expire <= time.monotonic():
            self._next_expire = time.monotonic() + self._expire_seconds
            self._post("expire_job_instances")

    def _forget_if_due(self) -> None:
        if self._next_forget <= time.monotonic():
            self._next_forget = time.monotonic() + FORGET_SECONDS
            self._post("forget_requests")

    # Its calls

    def _attempt(self, call: str, step: Callable[[], Any]) -> None:
        """Do a step, unless its call failed a moment ago.

        Raises:
            RequestRefused: JSM refuses the call, and this is no service; or has failed at it for too long.
        """
        failure = self._failures.get(call)
        if failure is not None and failure.again > time.monotonic():
            return
        try:
            step()
        except RequestRefused as error:
            failure = self._put_off(call)
            if error.status >= 500:
                if self._killed.is_set() or time.monotonic() - failure.since > self._patience:
                    raise
                logger.warning("JSM fails, it is asked again: %s", error.message)
                return
            if self._workflow_run_id is not None:
                raise
            if self._refusal is None:
                logger.error("leaves when what runs has ended, since JSM refuses a call: %s", error)
                self._refusal = error
                self.drain()
            return
        if failure is self._failures.get(call):
            self._failures.pop(call, None)

    def _put_off(self, call: str) -> _Failure:
        """A call failed: it is made again later."""
        now = time.monotonic()
        failure = self._failures.get(call)
        if failure is None:
            failure = _Failure(now, 0, now)
        pause = min(LONGEST_PAUSE, FIRST_PAUSE * 2 ** min(failure.count, 10)) * random.uniform(0.7, 1)
        self._failures[call] = _Failure(failure.since, failure.count + 1, now + pause)
        return failure

    def _post(self, route: str, **body: Any) -> dict[str, Any]:
        """Call JSM, however long it is away; every call here may be repeated."""
        began = time.monotonic()
        give_up = began + self._patience
        while True:
            try:
                answer = self._requester.post(route, **body)
                break
            except ServiceUnavailable as error:
                if self._killed.is_set() or time.monotonic() > give_up:
                    raise
                logger.warning("JSM is away, what runs goes on: %s", error.message)
        if time.monotonic() - began > self._lease_seconds / 3:
            # Leases of everybody may have passed meanwhile. Those who hold them get time to renew them.
            self._next_expire = time.monotonic() + self._lease_seconds
        return answer

    def _report(self, beat: bool) -> bool:
        """Send reports, and heartbeats of what is held; whether a job instance ended."""
        # Kept until JSM has them: this call may raise.
        self._events += self._executor.collect()
        events, ended = self._events, False
        if beat:
            reported = {event["job_instance_id"] for event in events}
            held = [number for number in self._executor.to_renew() if number not in reported]
            events = events + [{"event": "heartbeat", "job_instance_id": number} for number in held]
        for start in range(0, len(events), MOST_EVENTS):
            part = events[start : start + MOST_EVENTS]
            began = time.monotonic()
            outcomes = self._post("log_events", events=part)["outcomes"]
            given_up: list[int] = []
            renewed: set[int] = set()
            for event, outcome in zip(part, outcomes, strict=True):
                number = event["job_instance_id"]
                if event["event"] in ("done", "error"):
                    ended = True
                    self.num_ended += 1
                    self._dag_of.pop(number, None)
                elif outcome["code"] in GIVEN_UP or (
                    outcome["code"] != "OK" and event["event"] == "executor_name"  # it can't be submitted
                ):
                    given_up.append(number)
                    self._dag_of.pop(number, None)
                if outcome["code"] == "OK":
                    renewed.add(number)
                else:
                    # A batch executor learns of an end by such an answer.
                    level = logging.INFO if self._batch is None else logging.DEBUG
                    what, message = event["event"], outcome["message"]
                    logger.log(level, "job instance %s, %s: %s", number, what, message)
            if given_up:
                self._executor.stop(given_up)
            if self._batch is not None:
                self._batch.logged(event for event in part if event["job_instance_id"] in renewed)
            if beat:
                self._executor.renew(renewed, began + self._lease_seconds)
        self._events = []
        return ended

    def _claim(self) -> bool:
        """Claim as many job instances as the executor has room for; whether there were any."""
        if not self._claim_key:
            self._claim_key, self._claim_began = secrets.token_hex(16), time.monotonic()
        began = self._claim_began
        body: dict[str, Any] = {
            "executor_type": self._executor.name,
            "max_jobs": min(self._executor.room(), MOST_CLAIMED),
            "lease_seconds": self._lease_seconds,
            "request_key": self._claim_key,  # the answer may be lost
        }
        if self._workflow_run_id is not None:
            body["workflow_run_id"] = self._workflow_run_id
        try:
            claimed = self._post("claim_jobs", **body)["job_instances"]
        except RequestRefused as error:
            if error.status < 500:
                self._claim_key = ""
            if error.code != "WORKFLOW_RUN_ENDED":
                raise
            self._look()
            return False
        self._claim_key = ""
        for instance in claimed:
            if self._batch is None:
                self._dag_of[instance["job_instance_id"]] = instance["dag_id"]
            instance["start_until"] = began + self._lease_seconds
        if time.monotonic() - began > self._lease_seconds / 3:
            self._next_beat = time.monotonic()  # the call took long: they are renewed before they are started
        if claimed:
            self._executor.submit(claimed)
        return bool(claimed)

    def _look(self) -> bool:
        """End the run if its jobs have ended, and see how it stands; whether something changed."""
        if self._workflow_run_id is None:
            for run in self._post("end_workflow_runs")["workflow_runs"]:
                logger.info("workflow run %s has ended: %s", run["workflow_run_id"], run["status"])
            return False
        found = self._post("end_workflow_run", workflow_run_id=self._workflow_run_id)
        before, self.counts, self._status = self.counts, found["counts"], found["status"]
        return bool(before != self.counts)

    def _heartbeat_runs(self) -> None:
        if self._workflow_run_id is None and not self._leaving():  # whose jobs wait for a place here
            self._post("log_distributor_heartbeat")
        dags = {dag_id for dag_id in self._dag_of.values() if dag_id is not None}
        if self._batch is not None:
            dags |= self._batch.dags()
        if self._own_dag_id is not None:
            dags.add(self._own_dag_id)
        for dag_id in sorted(dags):
            self._post("log_heartbeat", dag_id=dag_id)
