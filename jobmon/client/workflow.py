"""Workflows: tasks that are registered together, run, and resumed."""

from __future__ import annotations

import getpass
import hashlib
import logging
import os
import secrets
import signal
import socket
import threading
import time
import uuid
from collections.abc import Iterable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from jobmon.client.attributes import make_attribute
from jobmon.client.dag import TaskDag, batches
from jobmon.client.errors import (
    InvalidWorkflow,
    RequestRefused,
    WorkflowAlreadyComplete,
    WorkflowAlreadyRunning,
    WorkflowExists,
)
from jobmon.client.foreground import Foreground
from jobmon.client.progress import Display, ProgressOption
from jobmon.client.requester import Requester
from jobmon.client.result import RUN_LABELS, WorkflowResult, by_label, read_errors
from jobmon.client.tasks import MAX_INT, Task, whole_number

if TYPE_CHECKING:
    from jobmon.executors.base import Executor

logger = logging.getLogger(__name__)

STALE_AFTER_SECONDS = 90  # a run whose heartbeat is older is taken for dead
POLL_SECONDS = 1.0
MAX_SHORT, MAX_PATH = 150, 1000  # characters, as the database has them

# The runs that this process works on now; one that carries our process id and is not here was given up.
_own_live_runs: set[int] = set()
# Held while one is started: before it is in there, another thread would take it for given up.
_starting = threading.Lock()


class Workflow:
    """Tasks that are registered together, run, and resumed.

    The same tasks (commands and edges) with the same workflow_args are the same workflow: to run it again is
    to resume it. Other workflow_args make another one.

    Parameters:
        workflow_args: what tells this workflow from others with the same tasks, such as a version. None: a
            name that nobody else has, so that it can't be resumed from another program.
        name: for people; default: the workflow_args.
        description: for people.
        stdout: directory for the jobs' standard output; None: it is not kept.
        stderr: directory for the jobs' standard error; None: only its end is kept, with the error.
        working_dir: directory in which the commands run; default: the current one.
        project: the batch system's project, or account, that pays.
        slack_channel: where to tell about the workflow.
        priority: where distributors serve several workflows, jobs of a higher one are taken first.
        requester: calls the services; default: one as ``~/.jobmonrc`` says.

    Attributes:
        workflow_id, dag_id: known once it is bound; None before.
        workflow_run_id: the newest run that this object started, or None.

    Raises:
        InvalidWorkflow: an argument can't be.
    """

    def __init__(
        self,
        workflow_args: str | None = None,
        name: str = "",
        description: str = "",
        *,
        stdout: str | os.PathLike[str] | None = None,
        stderr: str | os.PathLike[str] | None = None,
        working_dir: str | os.PathLike[str] | None = None,
        project: str | None = None,
        slack_channel: str | None = None,
        priority: int = 0,
        requester: Requester | None = None,
    ) -> None:
        if workflow_args is None or workflow_args == "":
            workflow_args = str(uuid.uuid4())
        if not isinstance(workflow_args, str):
            raise InvalidWorkflow(f"workflow_args must be a text, not {workflow_args!r}")
        try:
            workflow_args.encode()
        except UnicodeEncodeError:
            raise InvalidWorkflow(f"workflow_args is no valid Unicode text: {workflow_args!a}") from None
        self.workflow_args = workflow_args
        self.name = _text("name", name or workflow_args[:MAX_SHORT])
        self.description = description
        self.stdout = None if stdout is None else _directory("stdout", stdout)
        self.stderr = None if stderr is None else _directory("stderr", stderr)
        self.working_dir = _directory("working_dir", working_dir or os.getcwd())
        self.project = None if project is None else _text("project", project)
        self.slack_channel = None if slack_channel is None else _text("slack_channel", slack_channel)
        self.priority = _number("priority", priority, -MAX_INT)
        self.workflow_id: int | None = None
        self.dag_id: int | None = None
        self.workflow_run_id: int | None = None
        self._requester = requester
        self._dag = TaskDag()
        self._attributes: list[tuple[int, str]] = []
        self._bound_hash = ""  # the dag's, when it was bound
        self._bound_attributes = 0

    # What is in it ----------------------------------------------------------------------------------------

    @property
    def tasks(self) -> list[Task]:
        """The tasks, in the order in which they were added."""
        return list(self._dag.tasks.values())

    def __len__(self) -> int:
        return len(self._dag)

    def __repr__(self) -> str:
        known = f", workflow_id={self.workflow_id}" if self.workflow_id is not None else ""
        return f"Workflow({self.workflow_args!r}, name={self.name!r}, {len(self)} tasks{known})"

    def add_task(self, task: Task) -> Task:
        """Add a task; its upstreams must be added, too, before or after it.

        Parameters:
            task: adding the same object again changes nothing.

        Returns:
            The task.

        Raises:
            DuplicateTask: another task has the same command.
            InvalidWorkflow: it is no task.
        """
        self._dag.add_task(task)
        return task

    def add_tasks(self, tasks: Iterable[Task]) -> None:
        """Add tasks; as :meth:`add_task` for each.

        Raises:
            DuplicateTask, InvalidWorkflow: as :meth:`add_task`.
        """
        for task in tasks:
            self._dag.add_task(task)

    def add_workflow_attribute(self, attribute_type: int | str, value: Any) -> None:
        """Keep a number or a tag with the workflow; it is registered with it, each one once.

        Parameters:
            attribute_type: its name or number; see :class:`AttributeType`.
            value: a whole number, or a text for TAG.

        Raises:
            InvalidTask: the type is unknown or the value does not fit.
        """
        self._attributes.append(make_attribute(attribute_type, value))

    @property
    def requester(self) -> Requester:
        """What calls the services; the configuration is read when it is first needed.

        Raises:
            ConfigError: the configuration is wrong.
        """
        if self._requester is None:
            self._requester = Requester()
        return self._requester

    # Registering ------------------------------------------------------------------------------------------

    def bind(self) -> int:
        """Register the workflow with its jobs and edges, or find it if it is registered already.

        Nothing runs yet. To bind it again is harmless, as long as its tasks are the same.

        Returns:
            The workflow_id.

        Raises:
            InvalidWorkflow: a task is missing, tasks wait for each other, there are none, or they are others
                than when it was bound. Nothing was written.
            RequestRefused, ServiceUnavailable: as in :meth:`Requester.post`. To call again continues.
        """
        tasks = self._dag.ordered()
        dag_hash = self._dag.digest()
        if self.workflow_id is None:
            workflow_hash = hashlib.sha1((self.workflow_args + dag_hash).encode()).hexdigest()
            found = self._find(dag_hash)
            if found is None:
                found = self._register(tasks, dag_hash, workflow_hash)
            self.workflow_id, self.dag_id = found["id"], found["dag_id"]
            self._bound_hash = dag_hash
            logger.info("%r is bound: %d jobs in dag %s", self, len(tasks), self.dag_id)
        elif dag_hash != self._bound_hash:
            raise InvalidWorkflow(
                f"The tasks of workflow {self.workflow_id} {self.name!r} have changed since it was bound",
                "Another set of tasks is another workflow: make a new Workflow.",
            )
        assert self.workflow_id is not None
        for attribute_type, value in self._attributes[self._bound_attributes :]:
            self._add_attribute(attribute_type, value)
        return self.workflow_id

    def _find(self, dag_hash: str) -> dict[str, Any] | None:
        """The workflow with these tasks and workflow_args, if it is registered."""
        matches = []
        for dag_id in self.requester.get("get_dag_ids_by_hash", dag_hash=dag_hash)["dag_ids"]:
            found = self._look(dag_id)
            if found is not None:
                matches.append(found)
        if len(matches) > 1:
            ids = ", ".join(str(match["id"]) for match in matches)
            raise InvalidWorkflow(
                f"Several workflows have these tasks and workflow_args {self.workflow_args!r}: {ids}",
                "Use other workflow_args.",
            )
        return matches[0] if matches else None

    def _look(self, dag_id: int | None) -> dict[str, Any] | None:
        answer = self.requester.get(
            "get_workflows_by_inputs", dag_id=dag_id, workflow_args=self.workflow_args
        )
        return answer.get("workflow_dct")

    def _register(self, tasks: list[Task], dag_hash: str, workflow_hash: str) -> dict[str, Any]:
        # The key is the workflow's own: who was interrupted here, or does the same at the same time, goes on
        # with the same dag. Should that dag have been deleted since, a new one is made.
        key = f"dag {workflow_hash}"
        try:
            return self._fill(tasks, dag_hash, workflow_hash, key)
        except RequestRefused as error:
            if error.code != "UNKNOWN_DAG":
                raise
            return self._fill(tasks, dag_hash, workflow_hash, secrets.token_hex(16))

    def _fill(self, tasks: list[Task], dag_hash: str, workflow_hash: str, key: str) -> dict[str, Any]:
        user = _user()
        dag_id = self.requester.post(
            "add_task_dag",
            name=self.name,
            user=user,
            dag_hash=dag_hash,
            priority=self.priority,
            request_key=key,
        )["dag_id"]
        for batch in batches(tasks):
            self._add_jobs(dag_id, batch)
        try:
            answer = self.requester.post(
                "add_workflow",
                dag_id=dag_id,
                workflow_args=self.workflow_args,
                workflow_hash=workflow_hash,
                name=self.name,
                user=user,
                description=self.description,
            )
        except RequestRefused as error:
            if error.code != "WORKFLOW_HASH_TAKEN":
                raise
            # Another client, with a dag of its own, was faster.
            found = self._find(dag_hash)
            if found is None:
                raise
            return found
        return dict(answer["workflow_dct"])

    def _add_jobs(self, dag_id: int, batch: list[dict[str, Any]]) -> None:
        try:
            self.requester.post("add_jobs", dag_id=dag_id, jobs=batch)
        except RequestRefused as error:
            if error.status != 413 or len(batch) == 1:
                raise
            half = len(batch) // 2
            self._add_jobs(dag_id, batch[:half])
            self._add_jobs(dag_id, batch[half:])

    def _add_attribute(self, attribute_type: int, value: str) -> None:
        # The key makes it one attribute, however often the workflow is bound.
        content = f"{self.workflow_id} {attribute_type} {value}".encode()
        self.requester.post(
            "add_workflow_attribute",
            workflow_id=self.workflow_id,
            attribute_type=attribute_type,
            value=value,
            request_key=f"attribute {hashlib.sha1(content).hexdigest()}",
        )
        self._bound_attributes += 1

    # Running ----------------------------------------------------------------------------------------------

    def run(
        self,
        executor: str | Executor = "local",
        *,
        executor_options: Mapping[str, Any] | None = None,
        max_concurrently_running: int | None = None,
        resume: bool = True,
        stale_after_seconds: int = STALE_AFTER_SECONDS,
        progress: ProgressOption = True,
    ) -> WorkflowResult:
        """Register the workflow, run its jobs from this process, and wait until all have ended.

        If it ran before it is resumed: jobs that are DONE stay so, the others start anew.

        Ctrl-C once: no more jobs are started; you are asked what to do with those that run, and without a
        terminal they may end. Twice: they are killed. The workflow is then STOPPED and can be resumed.
        SIGTERM and SIGHUP kill what runs, and end the program after that.

        Parameters:
            executor: where the jobs run: ``"local"`` for this machine (as many at a time as it has CPUs, or
                max_concurrently_running), ``"slurm"``, ``"sge"``, the name of an installed one, or a new
                executor object.
            executor_options: options of the executor by name, such as ``{"queue": "long"}``; they stand in
                docs/executors.md.
            max_concurrently_running: jobs of this workflow that run at a time; None: as it was set before,
                at first no limit.
            resume: False: refuse to run it if it ran before.
            stale_after_seconds: a run of it whose heartbeat is older than this is taken for dead.
            progress: True: a bar on a terminal, lines elsewhere, on standard error. False: nothing. Or a
                function: it is called with the counts of jobs by status when they have changed.

        Returns:
            What came of it; true if all jobs are DONE.

        Raises:
            WorkflowAlreadyComplete: all its jobs are DONE.
            WorkflowAlreadyRunning: a run of it is alive.
            WorkflowExists: it ran before, and resume is False.
            InvalidWorkflow, RequestRefused, ServiceUnavailable: as in :meth:`bind`.
            JobmonError: there is no such executor or option, or it can't be used here.
            KeyboardInterrupt: Ctrl-C was pressed a third time, while it waited for what it killed.
        """
        from jobmon.distributor import Distributor

        began = time.monotonic()
        runs_jobs = _make_executor(executor, max_concurrently_running, executor_options)
        run_id = self._start(runs_jobs.name, max_concurrently_running, resume, stale_after_seconds)
        try:
            distributor = Distributor(self.requester, runs_jobs, workflow_run_id=run_id, dag_id=self.dag_id)
            foreground = Foreground(
                distributor, partial(self._stop, run_id), Display(progress, self.name, len(self))
            )
            foreground.run()
            if foreground.interrupted:
                self._stop(run_id, foreground.killed)
        finally:
            _own_live_runs.discard(run_id)
        if foreground.signal is not None:
            signal.raise_signal(foreground.signal)  # what it does by default, now that all is in order
        note = "interrupted; run it again to resume" if foreground.interrupted else ""
        return self._result(run_id, began, note)

    def submit(
        self,
        *,
        max_concurrently_running: int | None = None,
        resume: bool = True,
        stale_after_seconds: int = STALE_AFTER_SECONDS,
    ) -> int:
        """Register the workflow and queue its jobs for a distributor that runs elsewhere; don't wait.

        This process may end: :meth:`wait`, here or in another program, tells how it went.

        Parameters:
            max_concurrently_running, resume, stale_after_seconds: as for :meth:`run`.

        Returns:
            The workflow_run_id.

        Raises:
            WorkflowAlreadyComplete, WorkflowAlreadyRunning, WorkflowExists, InvalidWorkflow, RequestRefused,
            ServiceUnavailable: as in :meth:`run`.
        """
        return self._start(None, max_concurrently_running, resume, stale_after_seconds)

    def wait(self, timeout: float | None = None, *, progress: ProgressOption = True) -> WorkflowResult:
        """Wait until a submitted run has ended. Ctrl-C ends the waiting only.

        Parameters:
            timeout: seconds after which it returns, with status RUNNING; None: never.
            progress: as for :meth:`run`.

        Raises:
            InvalidWorkflow: this object has not submitted a run.
            RequestRefused, ServiceUnavailable: as in :meth:`Requester.post`.
        """
        run_id = self.workflow_run_id
        if run_id is None:
            raise InvalidWorkflow(f"Workflow {self.name!r} was not submitted", "workflow.submit()")
        began = time.monotonic()
        with Display(progress, self.name, len(self)) as display:
            while True:
                state = self.requester.post("end_workflow_run", workflow_run_id=run_id)
                display.update(state["counts"])
                waited = time.monotonic() - began
                if state["status"] != "R" or (timeout is not None and waited >= timeout):
                    break
                left = POLL_SECONDS if timeout is None else timeout - waited
                time.sleep(min(POLL_SECONDS, left))
        return self._result(run_id, began, "")

    def _start(
        self, executor_class: str | None, max_concurrently_running: int | None, resume: bool, stale: int
    ) -> int:
        """Bind, start a run, and queue what may start; the workflow_run_id."""
        if max_concurrently_running is not None:
            max_concurrently_running = _number("max_concurrently_running", max_concurrently_running, 1)
        stale = _number("stale_after_seconds", stale, 0)
        self.bind()
        found = self._look(self.dag_id) or {}
        status = found.get("status")
        who = f"Workflow {self.workflow_id} {self.name!r}"
        if status == "D":
            raise WorkflowAlreadyComplete(
                f"{who}: all its jobs are DONE since a former run",
                "Other workflow_args make another workflow.",
            )
        ran_before = status != "C"
        if ran_before and not resume:
            raise WorkflowExists(
                f"{who} ran before, and is {RUN_LABELS.get(str(status), status)}",
                "resume=True continues it; other workflow_args make another workflow.",
            )
        with _starting:
            run_id = self._add_run(executor_class, stale)
            if executor_class is not None:
                _own_live_runs.add(run_id)
        self.workflow_run_id = run_id
        try:
            if ran_before:
                self.requester.post("reset_incomplete_jobs", dag_id=self.dag_id)
            if max_concurrently_running is not None:
                self.requester.post(
                    "set_max_concurrently_running",
                    workflow_id=self.workflow_id,
                    max_concurrently_running=max_concurrently_running,
                )
            while self.requester.post("submit_workflow_run", workflow_run_id=run_id)["num_left"]:
                pass
        except BaseException as error:
            _own_live_runs.discard(run_id)
            if isinstance(error, RequestRefused) and error.code == "WORKFLOW_RUN_ENDED":
                raise WorkflowAlreadyRunning(
                    f"{who}: another run of it was started while run {run_id} was", "Let that one run."
                ) from error
            if isinstance(error, RequestRefused | KeyboardInterrupt):
                self._stop(run_id, False)  # nobody would work on it
            raise
        return run_id

    def _add_run(self, executor_class: str | None, stale: int) -> int:
        key = secrets.token_hex(16)
        body = {
            "workflow_id": self.workflow_id,
            "user": _user(),
            "hostname": socket.gethostname(),
            "pid": os.getpid(),
            "stderr": self.stderr,
            "stdout": self.stdout,
            "working_dir": self.working_dir,
            "project": self.project,
            "slack_channel": self.slack_channel,
            "executor_class": executor_class,
            "request_key": key,
        }
        for stale_after_seconds in (stale, 0):
            try:
                answer = self.requester.post(
                    "add_workflow_run", **body, stale_after_seconds=stale_after_seconds
                )
                return int(answer["workflow_run_id"])
            except RequestRefused as error:
                who = f"Workflow {self.workflow_id} {self.name!r}"
                if error.code == "ILLEGAL_TRANSITION":
                    raise WorkflowAlreadyComplete(
                        f"{who} was completed by another run", "Other workflow_args make another workflow."
                    ) from error
                if error.code != "WORKFLOW_RUN_ALIVE":
                    raise
                rows = self.requester.get("workflow_runs", workflow_id=self.workflow_id, status="RUNNING")
                run = next(iter(rows["workflow_runs"]), None)
                if run is not None and not (stale_after_seconds and _has_died(run)):
                    raise _already_running(who, run, stale) from error
        raise WorkflowAlreadyRunning(f"{who}: other runs of it start at the same time", "Try again.")

    def _stop(self, run_id: int, kill: bool) -> None:
        try:
            self.requester.post(
                "stop_workflow", workflow_id=self.workflow_id, workflow_run_id=run_id, kill=int(kill)
            )
        except RequestRefused as error:
            # It was DONE first; or another run has superseded this one, which is not to be stopped for it.
            if error.code not in ("ILLEGAL_TRANSITION", "WORKFLOW_RUN_ENDED"):
                raise

    def _result(self, run_id: int, began: float, note: str) -> WorkflowResult:
        state = self.requester.post("end_workflow_run", workflow_run_id=run_id)
        if state["status"] == "S" and not note:
            newest = self.requester.get("workflows", workflow_id=self.workflow_id)["workflows"]
            newest_id = newest[0]["newest_workflow_run_id"] if newest else run_id
            note = f"superseded by run {newest_id}" if newest_id != run_id else "by another program"
        assert self.workflow_id is not None and self.dag_id is not None
        return WorkflowResult(
            status=RUN_LABELS.get(state["status"], state["status"]),
            counts=by_label(state["counts"]),
            errors=read_errors(self.requester, self.dag_id) if state["counts"].get("F") else [],
            workflow_id=self.workflow_id,
            workflow_run_id=run_id,
            dag_id=self.dag_id,
            name=self.name,
            seconds=time.monotonic() - began,
            note=note if state["status"] == "S" else "",
        )


def _make_executor(
    executor: str | Executor, max_concurrently_running: int | None, options: Mapping[str, Any] | None
) -> Executor:
    if not isinstance(executor, str):
        if options:
            raise InvalidWorkflow("executor_options are for an executor that is given by its name")
        return executor
    from jobmon.executors import make_executor

    # Elsewhere the database sees to that limit alone: the executor's own is for all that a user has there.
    max_workers = max_concurrently_running if executor == "local" else None
    return make_executor(executor, max_workers=max_workers, options=options)


def _has_died(run: dict[str, Any]) -> bool:
    """Whether a run that seems alive is not: its process was on this machine, did the work, and is gone."""
    if run["executor_class"] is None or run["hostname"] != socket.gethostname():
        return False  # a distributor elsewhere works on it, or did; or we can't see that process
    if run["pid"] == os.getpid():
        return run["workflow_run_id"] not in _own_live_runs
    try:
        os.kill(run["pid"], 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass
    return False


def _already_running(who: str, run: dict[str, Any], stale: int) -> WorkflowAlreadyRunning:
    age = float(run["seconds_since_heartbeat"] or 0)
    return WorkflowAlreadyRunning(
        f"{who}: run {run['workflow_run_id']} is alive: user {run['user']}, host {run['hostname']}, "
        f"process {run['pid']}; last heartbeat {age:.0f} s ago",
        f"Let it end, or stop it. If it is dead, try again {max(stale - age, 0):.0f} s from now.",
    )


def _user() -> str:
    try:
        return getpass.getuser()[:MAX_SHORT]
    except (KeyError, OSError):  # a container's user without a name
        return str(os.getuid())


def _text(what: str, value: Any) -> str:
    if not isinstance(value, str) or len(value) > MAX_SHORT:
        raise InvalidWorkflow(f"{what} must be a text of at most {MAX_SHORT} characters, not {value!r}")
    return value


def _number(what: str, value: Any, low: int) -> int:
    number = whole_number(value)
    if number is None or not low <= number <= MAX_INT:
        raise InvalidWorkflow(f"{what} must be a whole number from {low} on, not {value!r}")
    return number


def _directory(what: str, path: str | os.PathLike[str]) -> str:
    try:
        text = os.path.abspath(os.path.expanduser(os.fspath(path)))
    except TypeError:
        raise InvalidWorkflow(f"{what} must be the path of a directory, not {path!r}") from None
    if len(text) > MAX_PATH:
        raise InvalidWorkflow(f"{what} has {len(text)} characters", f"{MAX_PATH} are the most.")
    return text
