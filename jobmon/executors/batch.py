"""The batch executor: hands job instances to a scheduler such as Slurm, and follows what becomes of them.

A worker on a node reports on each job instance; so this needs to tell only what a worker can't: that the
scheduler does not take a job, or that it is over without a last report. It holds no state that matters:
each submission's name is in the database before it is made, so another distributor finds what is on the
scheduler. All calls of the scheduler are made by a thread of its own, since any of them may hang.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shlex
import sys
import threading
import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobmon.client.errors import JobmonError
from jobmon.config import Config, write_private
from jobmon.executors.base import Event, Executor, JobInstance
from jobmon.executors.batch_options import BatchOptions, word, words
from jobmon.executors.scheduler import (
    NAME_PREFIX,
    Ended,
    Listed,
    Resources,
    Scheduler,
    SchedulerSilentError,
    Submission,
    SubmissionRejectedError,
)
from jobmon.worker.output import read_tail

logger = logging.getLogger(__name__)

MAX_WORKERS = 5000  # tasks on the scheduler; many sites allow a user no more
LONGEST_REJECTED = 300.0  # until a rejected submission is tried again
SUBMIT_SECONDS = 0.5  # between claims, so that jobs that become ready one by one share submissions
MOST_CLAIMED = 1000
EXTRA_SECONDS = 60  # of run time for the worker: its start, ending the command, its last report
# A worker is gone if the scheduler does not know its task for so long, and its lease was not renewed.
VANISHED_RUNNING_SECONDS = 45.0
NEARLY_OVER_SECONDS = 20.0  # of a lease: time to ask the scheduler why nothing is heard
TIMES_CANCELLED = 3
CANCEL_SECONDS = 2.0  # until a cancellation that was not answered is tried again
SETTLE_SECONDS = 60.0  # how long a silent scheduler keeps a stopped run from leaving
LOG_TAIL_BYTES = 2000
OLD_LOG_SECONDS = 3600.0

# A worker needs of what is installed only this package. Without the site module, PYTHONPATH and runpy Python
# starts in half the time.
_ROOT = str(Path(__file__).resolve().parents[2])
WORKER_OPTIONS = ("-I", "-S", "-c", f"import sys; sys.path.append({_ROOT!r}); import jobmon.worker.__main__")


@dataclass
class _Task:
    """A job instance that is held.

    Attributes:
        name, number: of its submission, and which task of it.
        batch: of which it is a part, until it was submitted.
        submitted: when the scheduler had it for certain, by time.monotonic.
        running: the database had it RUNNING when it was last looked at: its worker renews the lease.
        missing: in how many lists, one after the other, it was not found.
        missing_since, deadline: when it was first missed, and its lease at that time; by time.monotonic.
        stuck: in how many lists, one after the other, it was stuck.
        told: the last reason for waiting that was told.
    """

    job_instance_id: int
    dag_id: int | None
    start_until: float
    name: str = ""
    number: int = 0
    batch: _Batch | None = None
    executor_id: str | None = None
    submitted: float = 0.0
    running: bool = False
    missing: int = 0
    missing_since: float = 0.0
    deadline: float = 0.0
    stuck: int = 0
    told: str = ""

    @property
    def executor_name(self) -> str:
        return f"{self.name}.{self.number}"


@dataclass
class _Batch:
    """A submission that the scheduler has not taken yet, as far as is known.

    Attributes:
        tasks: None: one that was given up meanwhile.
        unnamed: job instances whose executor_name the database has not confirmed.
        due: not to be submitted before, by time.monotonic.
        rejections: how often it was rejected and may count as the job's failure.
        rejected: it waits since it was rejected: the scheduler's words.
        full: it was rejected for a limit on the number of tasks.
        silent_since: it was submitted then, and nobody knows whether it was taken.
        lists_without: lists made after that in which it was not found.
    """

    name: str
    resources: Resources
    tasks: list[_Task | None]
    unnamed: set[int]
    due: float = 0.0
    rejections: int = 0
    rejected: str = ""
    full: bool = False
    silent_since: float | None = None
    lists_without: int = 0

    @property
    def left(self) -> list[_Task]:
        return [task for task in self.tasks if task is not None]


@dataclass
class _Listing:
    """A list of the scheduler's tasks, by executor_name; of this database only."""

    began: float
    tasks: dict[str, Listed]


class BatchExecutor(Executor):
    """Submits job instances to a scheduler, in arrays of those that need the same.

    Parameters:
        scheduler: where.
        max_workers: tasks of this database that the user may have on the scheduler, waiting or running;
            None: 5000.
        options: see :class:`BatchOptions`.
    """

    def __init__(
        self, scheduler: Scheduler, max_workers: int | None = None, options: BatchOptions | None = None
    ) -> None:
        super().__init__()
        self.name = scheduler.name
        self.options = options or BatchOptions()
        self.max_workers = max_workers or MAX_WORKERS
        self._scheduler = scheduler
        self._scheduler_name = scheduler.label
        self._lock = threading.RLock()
        self._bell = threading.Condition(self._lock)
        self._thread = threading.Thread(target=self._work, name="scheduler", daemon=True)
        # what prepare() sets
        self._prefix = ""
        self._dag_id: int | None = None
        self._take_over_seconds = 30.0
        self._batch_dir = Path()
        self._settings_file = Path()
        self._worker: list[str] = []
        # under the lock
        self._tasks: dict[int, _Task] = {}
        self._batches: dict[str, _Batch] = {}  # not submitted yet
        self._events: list[Event] = []
        self._listing: _Listing | None = None  # the newest, until it was compared with the database
        self._next_list = 0.0
        self._probe = False  # whether to look, in the database only, if anything lives
        self._heard = False  # the last list was answered
        self._listed = 0  # tasks in the last list that are not held
        self._some_live = True
        self._live_dags: set[int] = set()
        self._left_over: set[str] = set()  # running, though no longer live, in the last list
        self._cancelled: dict[str, int] = {}  # executor ids, and how many more lists they are let be
        self._cancels: set[str] = set()
        self._lookups: dict[int, _Task] = {}
        self._submissions: dict[str, set[int]] = {}  # job instances that are still held, by name
        self._untidy: set[str] = set()  # names of submissions that are over, and have a directory of logs
        self._tidy: set[str] = set()  # those of which nothing runs any more
        self._next_room = 0.0
        self._leaving = False
        self._killing = self._killed = False
        self._closing = False
        self._settle_since: float | None = None
        self._settled = False

    # The distributor's side -------------------------------------------------------------------------------

    def prepare(
        self,
        config: Config,
        database_id: str,
        worker_host: str,
        *,
        dag_id: int | None = None,
        lease_seconds: float = 60.0,
    ) -> None:
        """What it must know before it is opened.

        Parameters:
            config: where batch_dir is, JSM's port and the token.
            database_id: of JSM's database; only tasks with it in their names are looked at.
            worker_host: host name of JSM, as nodes know it.
            dag_id: take over only job instances of this dag; None: of all.
            lease_seconds: of what distributors hold; they renew it when a third is over.

        Raises:
            JobmonError: the scheduler's commands are not here, or batch_dir can't be written.
        """
        self._scheduler.check()
        self._prefix = f"{NAME_PREFIX}{database_id}-"
        self._dag_id = dag_id
        self._take_over_seconds = lease_seconds / 2
        self._batch_dir = self.options.batch_dir or config.batch_dir
        settings: dict[str, Any] = {"host": worker_host, "jsm_port": config.jsm_port}
        if config.token:
            settings["token"] = config.token
        name = f"worker-{database_id}-{worker_host.replace(':', '_')}-{config.jsm_port}.json"
        self._settings_file = self._batch_dir / name
        text = json.dumps(settings, indent=2) + "\n"
        try:
            self._batch_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Tasks that wait find the newest token; one that is being read is not replaced without need.
            if not self._settings_file.exists() or self._settings_file.read_text() != text:
                write_private(self._settings_file, text)
            (self._batch_dir / "logs").mkdir(exist_ok=True, mode=0o700)
        except OSError as error:
            raise JobmonError(
                f"batch_dir {self._batch_dir} can't be used: {error.strerror}",
                "Set batch_dir to a directory that is yours and that the nodes see.",
            ) from None
        command = self.options.worker_command or config.worker_command
        self._worker = shlex.split(command) if command else [sys.executable, *WORKER_OPTIONS]

    def open(self, jsm: str) -> None:
        """Start the thread."""
        self._thread.start()

    def room(self) -> int:
        """None while something waits to be submitted, or the scheduler is silent."""
        with self._lock:
            waiting = any(not batch.rejected or batch.full for batch in self._batches.values())
            if waiting or not self._heard or self._leaving or time.monotonic() < self._next_room:
                return 0
            return max(0, min(MOST_CLAIMED, self.max_workers - len(self._tasks) - self._listed))

    def urgent(self) -> bool:
        """Reports are few, and submissions wait for the answers to some."""
        return bool(self._events)

    def submit(self, job_instances: Sequence[JobInstance]) -> None:
        """Take job instances: they are submitted once their names are in the database."""
        groups: dict[Resources, list[_Task]] = {}
        with self._lock:
            for instance in job_instances:
                number = instance["job_instance_id"]
                if self._killed:  # it was being claimed just then
                    self._error(number, "killed before it was submitted")
                    continue
                try:
                    resources = self._resources(instance)
                except ValueError as error:
                    self._error(number, f"not submitted: {error}", "W")
                    continue
                task = _Task(number, instance["dag_id"], instance["start_until"])
                groups.setdefault(resources, []).append(task)
            for resources, tasks in groups.items():
                for start in range(0, len(tasks), self._scheduler.max_array):
                    self._make_batch(resources, tasks[start : start + self._scheduler.max_array])
            self._next_room = time.monotonic() + SUBMIT_SECONDS
            self._bell.notify()
        self.wake.set()

    def logged(self, events: Iterable[Event]) -> None:
        """The database has taken reports: what was named may be submitted.

        Parameters:
            events: some of those that :meth:`collect` gave.
        """
        with self._lock:
            for event in events:
                if event["event"] == "executor_name":
                    batch = self._batches.get(event["executor_name"].rpartition(".")[0])
                    if batch is not None:
                        batch.unnamed.discard(event["job_instance_id"])
            self._bell.notify()

    def num_events(self) -> int:
        """Reports that wait."""
        return len(self._events)

    def collect(self) -> list[Event]:
        """The reports since the last call."""
        with self._lock:
            events, self._events = self._events, []
        return events

    def held(self) -> list[int]:
        """What waits to be submitted, and what is on the scheduler as far as is known."""
        with self._lock:
            return list(self._tasks)

    def to_renew(self) -> list[int]:
        """What has no worker yet that renews the lease."""
        with self._lock:
            return [number for number, task in self._tasks.items() if not task.running]

    def dags(self) -> set[int]:
        """Dags of which something is held, or lives on the scheduler."""
        with self._lock:
            held = {task.dag_id for task in self._tasks.values() if task.dag_id is not None}
            return held | self._live_dags

    def renew(self, job_instance_ids: Collection[int], until: float) -> None:
        """The leases of job instances last until then at least."""
        with self._lock:
            for number in job_instance_ids:
                if number in self._tasks:
                    self._tasks[number].start_until = until
            self._bell.notify()

    def stop(self, job_instance_ids: Sequence[int]) -> None:
        """Let go of job instances that were given up, or have ended.

        What of them is on the scheduler is found there, and cancelled if need be: see :meth:`reconcile`.
        """
        with self._lock:
            for number in job_instance_ids:
                self._drop(number)
            self._bell.notify()

    def drain(self) -> None:
        """Take nothing more, and try nothing again that was rejected."""
        with self._lock:
            self._leaving = True
            for batch in [batch for batch in self._batches.values() if batch.rejected]:
                self._give_up(batch)
            self._bell.notify()
        self.wake.set()

    def kill(self) -> None:
        """Cancel everything that is held."""
        with self._lock:
            self._killing = self._killed = True
            self._bell.notify()

    def submitting(self) -> bool:
        """Whether something is not yet on the scheduler."""
        with self._lock:
            return bool(self._batches)

    def settled(self) -> bool:
        """Whether nothing is held, and what was given up is cancelled, by a list made since the first call.

        It is not waited for longer than a minute if the scheduler is silent.
        """
        with self._lock:
            if self._settle_since is None:
                self._settle_since = self._next_list = time.monotonic()
                self._bell.notify()
            if not self._heard and time.monotonic() > self._settle_since + SETTLE_SECONDS:
                logger.warning(
                    "%s does not answer: what it still has of this run is left there", self._scheduler_name
                )
                return True
            return self._settled and not self._tasks and not self._cancels

    def close(self) -> None:
        """Let go of everything; what is on the scheduler lives on."""
        with self._lock:
            self._closing = True
            self._bell.notify()
        if self._thread.is_alive():
            self._thread.join(5)  # a command of the scheduler may hang: it ends by itself

    # Comparing the scheduler with the database ------------------------------------------------------------

    def wants_live(self) -> bool:
        """Whether :meth:`reconcile` should be called."""
        return self._listing is not None or self._probe

    def reconcile(self, live: Sequence[Mapping[str, Any]]) -> None:
        """Compare the scheduler's newest list with what lives according to the database.

        Parameters:
            live: rows of get_live_job_instances, read after :meth:`wants_live` said so: what is in the list
                was in the database before.
        """
        now = time.monotonic()
        rows = {row["job_instance_id"]: row for row in live}
        with self._lock:
            self._some_live = bool(rows)
            self._live_dags = {
                row["dag_id"]
                for row in live
                if row["dag_id"] is not None and self._dag_id in (None, row["dag_id"])
            }
            listing, self._listing, self._probe = self._listing, None, False
            if listing is None:
                if rows:
                    self._next_list = now
            else:
                self._find_silent(listing, rows)
                self._check_held(listing, rows, now)
                self._check_others(listing, rows, now)
                self._check_listed(listing, rows)
                if self._settle_since is not None and listing.began >= self._settle_since:
                    self._settled = not self._left_over
            self._bell.notify()
        self.wake.set()

    def _find_silent(self, listing: _Listing, rows: Mapping[int, Mapping[str, Any]]) -> None:
        """Find out whether submissions that were not answered were taken."""
        for batch in list(self._batches.values()):
            if batch.silent_since is None or listing.began <= batch.silent_since:
                continue
            taken = False
            for task in batch.left:
                found, row = listing.tasks.get(task.executor_name), rows.get(task.job_instance_id, {})
                task.executor_id = found.executor_id if found else row.get("executor_id")
                taken = taken or found is not None or row.get("status") == "R" or bool(task.executor_id)
            if taken:
                self._was_taken(batch, listing.began)
                continue
            batch.lists_without += 1
            if batch.lists_without >= 2:  # once is not enough: the scheduler may have had it in its queue
                logger.info("%s did not take %s: it is submitted again", self._scheduler_name, batch.name)
                batch.silent_since, batch.lists_without = None, 0

    def _check_held(self, listing: _Listing, rows: Mapping[int, Mapping[str, Any]], now: float) -> None:
        for number, task in list(self._tasks.items()):
            if task.batch is not None or task.submitted >= listing.began:
                continue
            row = rows.get(number)
            if row is None:
                self._drop(number)
                continue
            task.running = row["status"] == "R"
            found = listing.tasks.get(task.executor_name)
            if found is not None:
                task.missing = 0
                task.executor_id = found.executor_id
                self._check_waiting(task, found)
                continue
            deadline = now + row["lease_left_seconds"]
            if task.missing and task.running and deadline > task.deadline + 1:
                task.missing = 0  # its worker lives, whatever the scheduler says
            task.missing += 1
            if task.missing == 1:
                task.missing_since, task.deadline = now, deadline
            else:
                self._lookups[number] = task

    def _check_waiting(self, task: _Task, found: Listed) -> None:
        task.stuck = task.stuck + 1 if found.state == "stuck" else 0
        what = "Stuck" if task.stuck else "Waits"
        text = f"{what} in {self._scheduler_name}, {found.executor_id}: {found.reason}"
        if task.stuck > 1:  # it is cancelled once it is no longer live
            self._error(task.job_instance_id, text)
            self._drop(task.job_instance_id)
        elif (task.stuck or found.doubtful) and task.told != text:
            task.told = text
            self._report("warning", task.job_instance_id, error_message=text)

    def _check_others(self, listing: _Listing, rows: Mapping[int, Mapping[str, Any]], now: float) -> None:
        """Take over what nobody looks after."""
        for number, row in rows.items():
            if number in self._tasks or not row["executor_name"] or self._dag_id not in (None, row["dag_id"]):
                continue
            name, _, text = row["executor_name"].rpartition(".")
            if not name.startswith(self._prefix) or not text.isdecimal():
                continue
            found = listing.tasks.get(row["executor_name"])
            left, running = row["lease_left_seconds"], row["status"] == "R"
            task = _Task(number, row["dag_id"], now, name, int(text), executor_id=row["executor_id"])
            if found is not None and not running and left < self._take_over_seconds:
                logger.info("job instance %s: found as %s, taken over", number, found.executor_id)
                task.executor_id = found.executor_id
                self._hold(task)
                if row["executor_id"] is None:
                    self._report("executor_id", number, executor_id=found.executor_id)
                self._report("heartbeat", number)
            elif found is None and row["executor_id"] is not None and left < NEARLY_OVER_SECONDS:
                self._lookups[number] = task

    def _check_listed(self, listing: _Listing, rows: Mapping[int, Mapping[str, Any]]) -> None:
        """Cancel what is no longer live."""
        live = {row["executor_name"] for row in rows.values()}
        held = {task.executor_name for task in self._tasks.values() if task.batch is None}
        self._listed = sum(1 for name in listing.tasks if name not in held)
        self._cancelled = {number: count - 1 for number, count in self._cancelled.items() if count > 1}
        left_over = set()
        for name, found in listing.tasks.items():
            if name in live or found.executor_id in self._cancelled:
                continue
            # One that runs may just be leaving, having reported its end.
            if found.state == "running" and name not in self._left_over:
                left_over.add(name)
            else:
                logger.info("%s %s is no longer wanted: cancelled", self._scheduler_name, found.executor_id)
                self._cancels.add(found.executor_id)
                self._cancelled[found.executor_id] = 6
        self._left_over = left_over
        names = {found.name for found in listing.tasks.values()}
        self._tidy |= {name for name in self._untidy if name not in names}
        self._untidy -= self._tidy

    # Small parts, with the lock held ----------------------------------------------------------------------

    def _resources(self, instance: JobInstance) -> Resources:
        """What a job instance needs.

        Raises:
            ValueError: its context_args can't be.
        """
        context = instance["context_args"] or {}
        if isinstance(context, str):
            try:
                context = json.loads(context)
            except ValueError:
                context = {}
        if not isinstance(context, dict):
            context = {}
        try:
            queue, project = word(context.get("queue")), word(context.get("project"))
            flags = words(context.get("flags"))
        except (TypeError, ValueError) as error:
            raise ValueError(f"context_args: {error}") from None
        max_runtime = instance["max_runtime"]
        return Resources(
            slots=instance["slots"] or 1,
            mem_free=instance["mem_free"] or 0,
            max_runtime=None if max_runtime is None else max_runtime + EXTRA_SECONDS,
            queue=queue or self.options.queue,
            project=project or instance["project"] or self.options.project,
            flags=(*self.options.flags, *flags),
        )

    def _make_batch(self, resources: Resources, tasks: Sequence[_Task]) -> None:
        name = f"{self._prefix}{tasks[0].job_instance_id}"
        batch = _Batch(name, resources, list(tasks), {task.job_instance_id for task in tasks})
        self._batches[name] = batch
        for number, task in enumerate(tasks):
            task.name, task.number, task.batch = name, number, batch
            self._hold(task)
            self._report("executor_name", task.job_instance_id, executor_name=task.executor_name)

    def _hold(self, task: _Task) -> None:
        self._tasks[task.job_instance_id] = task
        self._submissions.setdefault(task.name, set()).add(task.job_instance_id)

    def _drop(self, job_instance_id: int) -> None:
        task = self._tasks.pop(job_instance_id, None)
        self._lookups.pop(job_instance_id, None)
        if task is None:
            return
        if task.batch is not None:
            task.batch.tasks[task.number] = None
            task.batch.unnamed.discard(job_instance_id)
            if not task.batch.left:
                self._batches.pop(task.batch.name, None)
        left = self._submissions.get(task.name)
        if left is not None:
            left.discard(job_instance_id)
            if not left:
                del self._submissions[task.name]
                self._untidy.add(task.name)

    def _was_taken(self, batch: _Batch, when: float) -> None:
        self._batches.pop(batch.name, None)
        for task in batch.left:
            task.batch, task.submitted = None, when
            if task.executor_id is not None:
                self._report("executor_id", task.job_instance_id, executor_id=task.executor_id)

    def _was_rejected(self, batch: _Batch, error: SubmissionRejectedError) -> None:
        # Room may come by itself only if something of ours is to end there.
        batch.full = error.full and (self._listed > 0 or any(t.batch is None for t in self._tasks.values()))
        batch.rejections += 0 if batch.full else 1
        batch.rejected = f"rejected by {self._scheduler_name}: {error}"
        if self._leaving or batch.rejections >= self.options.max_rejections:
            self._give_up(batch)
            return
        logger.warning("submission %s was %s", batch.name, batch.rejected)
        delay = self.options.rejected_seconds * 3 ** max(0, batch.rejections - 1)
        batch.due = time.monotonic() + min(delay, LONGEST_REJECTED)
        text = f"The submission was {batch.rejected}"
        for task in batch.left:
            self._report("warning", task.job_instance_id, error_message=text)
        if error.full and len(batch.left) > 1:
            # Half of it may have room; it gets names of its own, since nothing of it was taken.
            tasks, half = batch.left, len(batch.left) // 2
            del self._batches[batch.name]
            for part in (tasks[:half], tasks[half:]):
                self._submissions.get(batch.name, set()).difference_update(t.job_instance_id for t in part)
                self._make_batch(batch.resources, part)
                made = self._batches[part[0].name]
                made.due, made.rejections = batch.due, batch.rejections
                made.rejected, made.full = batch.rejected, batch.full
            if not self._submissions.get(batch.name, {0}):
                del self._submissions[batch.name]
                self._untidy.add(batch.name)

    def _give_up(self, batch: _Batch) -> None:
        for task in batch.left:
            self._error(task.job_instance_id, f"Not submitted: {batch.rejected}", "W")
            self._drop(task.job_instance_id)

    def _error(self, job_instance_id: int, text: str, status: str = "E", **fields: Any) -> None:
        if status != "E":
            fields["job_instance_status"] = status
        self._report("error", job_instance_id, error_message=text, **fields)

    def _report(self, event: str, job_instance_id: int, **fields: Any) -> None:
        self._events.append({"event": event, "job_instance_id": job_instance_id, **fields})
        self.wake.set()

    # The thread's side ------------------------------------------------------------------------------------

    def _work(self) -> None:
        self._find_old_logs()
        while True:
            try:
                with self._lock:
                    self._bell.wait(self._pause())
                    if self._closing:
                        return
                self._turn()
            except Exception:  # whatever it was: the thread must go on
                logger.exception("unexpected error in the batch executor")
                time.sleep(1)

    def _pause(self) -> float:
        """Seconds until something is due."""
        now = time.monotonic()
        if self._killing or self._cancels or self._lookups or self._tidy:
            return 0.0
        due = [self._next_list]
        if self._next_room > now:
            due.append(self._next_room)
        due += [batch.due for batch in self._batches.values() if self._is_ready(batch)]
        return max(0.0, min(due) - now)

    def _is_ready(self, batch: _Batch) -> bool:
        """Whether it may be submitted as soon as it is due: not after leases that may have passed."""
        late = any(task.start_until < time.monotonic() for task in batch.left)
        return not batch.unnamed and batch.silent_since is None and not late

    def _turn(self) -> None:
        if self._killing:
            self._kill_all()
        if self._cancels:
            self._cancel()
        if self._next_list <= time.monotonic():
            self._list()
        if self._lookups:
            self._look_up()
        with self._lock:
            ready = [batch for batch in self._batches.values() if self._is_ready(batch)]
        ready = [batch for batch in ready if batch.due <= time.monotonic()]
        if ready:
            self._submit(ready[0])
        with self._lock:
            tidy, self._tidy = self._tidy, set()
        for name in tidy:
            _remove_empty_logs(self._batch_dir / "logs" / name)
        if self._next_room <= time.monotonic():
            self.wake.set()  # it may claim again

    def _list(self) -> None:
        began = time.monotonic()
        with self._lock:
            self._next_list = began + self.options.reconcile_seconds
            idle = self._heard and not (self._tasks or self._listed or self._some_live or self._left_over)
            if idle and self._settle_since is None:
                self._probe = True
                self.wake.set()
                return
        try:
            tasks = self._scheduler.list_tasks()
        except Exception as error:
            self._note_silence("list", error)
            return
        with self._lock:
            if not self._heard:
                logger.info("%s answers", self._scheduler_name)
            self._heard = True
            own = {f"{t.name}.{t.task}": t for t in tasks if t.name.startswith(self._prefix)}
            self._listing = _Listing(began, own)
        self.wake.set()

    def _note_silence(self, what: str, error: Exception) -> None:
        if not isinstance(error, SchedulerSilentError):
            logger.error("%s, %s: unexpected error", self._scheduler_name, what, exc_info=error)
        else:
            logger.warning("%s does not answer (%s); nothing is changed: %s", self.name, what, error)
        if what == "list":
            self._heard = False

    def _submit(self, batch: _Batch) -> None:
        log_dir = self._batch_dir / "logs" / batch.name
        with self._lock:
            ids = [0 if task is None else task.job_instance_id for task in batch.tasks]
        submission = Submission(batch.name, len(ids), batch.resources, self._script(ids), log_dir)
        try:
            log_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
            executor_ids = self._scheduler.submit(submission)
            if len(executor_ids) != len(ids):
                raise SchedulerSilentError(f"{len(executor_ids)} ids for {len(ids)} tasks")
        except SubmissionRejectedError as error:
            with self._lock:
                self._was_rejected(batch, error)
        except Exception as error:
            self._note_silence("submit", error)
            with self._lock:
                batch.silent_since, batch.lists_without = time.monotonic(), 0
        else:
            with self._lock:
                for task, executor_id in zip(batch.tasks, executor_ids, strict=True):
                    if task is not None:
                        task.executor_id = executor_id
                self._was_taken(batch, time.monotonic())
        self.wake.set()

    def _script(self, ids: Sequence[int]) -> str:
        """Lines of bash that start a task's worker. The token is in the settings file, and nowhere else."""
        worker = [
            *self._worker,
            "--executor-reports-signals",
            "--heartbeat-seconds",
            f"{self.options.heartbeat_seconds:g}",
        ]
        return "\n".join(
            (
                f"job_instance_ids=({' '.join(map(str, ids))})",
                "job_instance_id=${job_instance_ids[$JOBMON_TASK]}",
                '[ "$job_instance_id" != 0 ] || exit 0  # given up before it was submitted',
                "unset JOBMON_HOST JOBMON_JSM_HOST JOBMON_JSM_PORT JOBMON_TOKEN JOBMON_CONFIG JOBMON_TASK",
                f"export JOBMON_RC={shlex.quote(str(self._settings_file))}",
                f'exec {shlex.join(worker)} "$job_instance_id"',
                "",
            )
        )

    def _look_up(self) -> None:
        """Ask what became of tasks that are not listed any more."""
        with self._lock:
            lookups, self._lookups = self._lookups, {}
        ids = {task.executor_id for task in lookups.values() if task.executor_id is not None}
        found: Mapping[str, Ended] = {}
        silent = False
        try:
            if ids:
                found = self._scheduler.ended(ids)
        except Exception as error:
            self._note_silence("what has ended", error)
            found, silent = getattr(error, "ended", {}), True
        for number, task in lookups.items():
            ended = found.get(task.executor_id or "")
            log = self._scheduler.log_file(self._batch_dir / "logs" / task.name, task.number)
            with self._lock:
                held = self._tasks.get(number) is task
                if held is False and number in self._tasks:
                    continue  # taken over meanwhile
                if ended is not None and (ended.name, ended.task) == (task.name, task.number):
                    self._report_ended(number, ended, log)
                elif held and not silent and task.missing >= 3 and self._has_vanished(task):
                    what = task.executor_id or task.executor_name
                    text = (
                        f"Vanished: {self._scheduler_name} knows nothing of {what}, and no end was reported"
                    )
                    self._error(number, _with_log(text, log), "U")
                else:
                    continue
                self._drop(number)

    def _has_vanished(self, task: _Task) -> bool:
        return not task.running or time.monotonic() > task.missing_since + VANISHED_RUNNING_SECONDS

    def _report_ended(self, number: int, ended: Ended, log: Path) -> None:
        fields: dict[str, Any] = dict(ended.usage)
        if ended.exceeded is not None:
            fields["exceeded"] = ended.exceeded
        self._error(number, _with_log(ended.message, log), ended.status, **fields)

    def _cancel(self) -> None:
        with self._lock:
            ids = set(self._cancels)
        try:
            self._scheduler.cancel(ids)
        except Exception as error:
            self._note_silence("cancel", error)
            time.sleep(CANCEL_SECONDS)
            if not isinstance(error, SchedulerSilentError):
                with self._lock:
                    self._cancels -= ids
            return
        with self._lock:
            self._cancels -= ids
        self.wake.set()

    def _kill_all(self) -> None:
        with self._lock:
            self._killing = False
            self._leaving = True
            unknown = {b.name for b in self._batches.values() if b.silent_since is not None}
            waiting = [t for b in self._batches.values() if b.silent_since is None for t in b.left]
            for task in waiting:
                self._error(task.job_instance_id, "killed before it was submitted")
                self._drop(task.job_instance_id)
            tasks = list(self._tasks.values())
        ids = {task.executor_id for task in tasks if task.executor_id is not None}
        for _ in range(TIMES_CANCELLED):
            try:
                if unknown:
                    ids |= {t.executor_id for t in self._scheduler.list_tasks() if t.name in unknown}
                if ids:
                    self._scheduler.cancel(ids)
                break
            except Exception as error:
                self._note_silence("cancel", error)
                time.sleep(CANCEL_SECONDS)
        # Even if they could not be cancelled: a worker that starts is refused, one that runs is told to stop.
        with self._lock:
            for task in tasks:
                if task.job_instance_id in self._tasks:
                    self._error(task.job_instance_id, "killed: the distributor was told to kill what runs")
                    self._drop(task.job_instance_id)
        self.wake.set()

    def _find_old_logs(self) -> None:
        """Directories of submissions that nobody looks after any more."""
        with contextlib.suppress(OSError):
            oldest = time.time() - OLD_LOG_SECONDS
            for entry in os.scandir(self._batch_dir / "logs"):
                if entry.name.startswith(self._prefix) and entry.stat().st_mtime < oldest:
                    self._untidy.add(entry.name)


def _with_log(text: str, log: Path) -> str:
    """A message, and the end of what the worker wrote, if it wrote something."""
    tail = read_tail(log, LOG_TAIL_BYTES).strip() if log.exists() else ""
    return f"{text}\n{tail}" if tail else text


def _remove_empty_logs(directory: Path) -> None:
    """Remove empty files, and the directory if nothing is left in it."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(directory)):
            if entry.is_file(follow_symlinks=False) and entry.stat().st_size == 0:
                os.unlink(entry.path)
        os.rmdir(directory)
