"""``jobmon run``: run a workflow from a script, a TOML file, or a single command."""

from __future__ import annotations

import dataclasses
import datetime as dt
import difflib
import os
import runpy
import shlex
import sys
import tomllib
import traceback
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from jobmon.cli.errors import HintedError
from jobmon.cli.options import check_executor, key_values
from jobmon.cli.output import (
    EXIT_FAILED,
    EXIT_INCOMPLETE,
    PATIENCE,
    Report,
    line,
    output_option,
    print_report,
)
from jobmon.client.errors import InvalidTask, InvalidWorkflow, JobmonError, WorkflowAlreadyComplete
from jobmon.config import load_config, rc_path
from jobmon.executors import EXECUTORS, executor_names

if TYPE_CHECKING:
    from jobmon.client.requester import Requester
    from jobmon.client.tasks import Task
    from jobmon.client.workflow import Workflow

RUN_PATIENCE = 60.0  # seconds that a service may be away while a workflow runs

# The keys of a TOML file, and what each takes.
_WORKFLOW_KEYS: Mapping[str, type] = {
    "name": str,
    "workflow_args": str,
    "description": str,
    "stdout": str,
    "stderr": str,
    "working_dir": str,
    "project": str,
    "slack_channel": str,
    "priority": int,
    "run": dict,
    "task": list,
}
_RUN_KEYS: Mapping[str, type] = {"executor": str, "executor_options": dict, "max_concurrently_running": int}
_TASK_KEYS: Mapping[str, type] = {
    "name": str,
    "command": str,
    "upstream": list,
    "max_attempts": int,
    "max_runtime": int,
    "slots": int,
    "mem_free": int,
    "tag": str,
    "env": dict,
    "resource_scales": dict,
    "context_args": dict,
}
_TYPES = {str: "a text", int: "a whole number", dict: "a table", list: "a list"}
_EXAMPLE = 'a file is such as:\n[[task]]\nname = "hello"\ncommand = "echo hello"'


class _RunCommand(click.Command):
    """Keeps what stands behind the first ``--`` apart: click itself drops the dashes."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if "--" in args:
            at = args.index("--")
            ctx.meta["jobmon.command"] = tuple(args[at + 1 :])
            args = args[:at]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: click.Context) -> list[str]:
        return ["[OPTIONS]", "FILE.py [ARGS]... | FILE.toml | -- COMMAND..."]


@click.command(cls=_RunCommand, context_settings={"allow_interspersed_args": False})
@click.option("--name", metavar="NAME", help="Name of the workflow; for people.")
@click.option(
    "--workflow-args",
    metavar="TEXT",
    help="What tells this workflow from others with the same tasks [default: of a FILE.toml its"
    " workflow_args, else its name; of a COMMAND the present time].",
)
@click.option(
    "--executor",
    metavar="NAME",
    callback=check_executor,
    help=f"What runs the jobs: {', '.join(EXECUTORS)}, or an installed one [default: that of the FILE.toml,"
    " else local].",
)
@click.option(
    "--option",
    multiple=True,
    metavar="KEY=VALUE",
    help="Option of the executor, such as queue=long; may be repeated.",
)
@click.option(
    "--max-concurrently-running",
    type=click.IntRange(min=1),
    metavar="N",
    help="Jobs that run at a time at most.",
)
@click.option(
    "-d", "--detach", is_flag=True, help="Leave the jobs to `jobmon start distributor`; don't wait."
)
@click.option(
    "--max-attempts",
    type=click.IntRange(min=1),
    metavar="N",
    help="Of a COMMAND: how often it is tried [default: 1].",
)
@click.option(
    "--max-runtime",
    type=click.IntRange(min=1),
    metavar="SECONDS",
    help="Of a COMMAND: after so many seconds it is killed.",
)
@click.option("--stdout", metavar="DIR", help="Of a COMMAND: directory for its standard output.")
@click.option("--stderr", metavar="DIR", help="Of a COMMAND: directory for its standard error.")
@output_option(quiet="the id of the workflow only")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def run(ctx: click.Context, arguments: tuple[str, ...], output: str, **options: Any) -> None:
    """Run a workflow and wait for it; a second time resumes it.

    FILE.py is executed as by Python, with the arguments behind it, and without options before it: it makes
    its own workflow and runs it.

    FILE.toml describes a workflow. `name`, `workflow_args`, `description`, `stdout`, `stderr`, `working_dir`,
    `project`, `slack_channel`, `priority` are those of Workflow; `[run]` has `executor`,
    `executor_options` (a table) and `max_concurrently_running`; each `[[task]]` has `command`, and may have
    `name`, `upstream` (a list of names), `max_attempts`, `max_runtime`, `slots`, `mem_free`, `tag`, `env`,
    `resource_scales` and `context_args` (tables). Paths start from the present directory.

    COMMAND becomes a workflow of one job. A single word is a line of bash; of several words, each is passed
    to the command as it is.

    Exit codes: 0 it is DONE (or was already, or was handed over by --detach), 1 it is in ERROR or could not
    be run, 2 wrong usage, 4 it was stopped. Of a FILE.py: its own.
    """
    command: tuple[str, ...] | None = ctx.meta.get("jobmon.command")
    config_file = ctx.find_object(str)
    given = {key for key, value in options.items() if value not in (None, False, ())}
    kind = Path(arguments[0]).suffix if arguments else ""
    if options["detach"]:
        _refuse(given & {"executor", "option"}, "{} goes with `jobmon start distributor`, not with --detach")
    if kind == ".py":
        _refuse(given, "a FILE.py makes its own workflow: {} would have no effect")
        _run_script(
            arguments[0], [*arguments[1:], *(("--", *command) if command is not None else ())], config_file
        )
        return
    if kind == ".toml":
        if len(arguments) > 1 or command is not None:
            raise click.UsageError("A FILE.toml takes no arguments.")
        _refuse(
            given & {"name", "max_attempts", "max_runtime", "stdout", "stderr"},
            "{} is for a COMMAND; set it in the FILE.toml",
        )
        plan = _from_toml(Path(arguments[0]), options)
    elif arguments:
        raise click.UsageError(
            f"{arguments[0]!r} ends neither with .py nor with .toml. A command comes after two dashes:"
            f" jobmon run -- {shlex.join(arguments)}"
        )
    elif command:
        plan = _from_command(command, options)
    else:
        raise click.UsageError("Say what to run: FILE.py, FILE.toml, or -- COMMAND.")
    from jobmon.client.requester import Requester

    with closing(Requester(load_config(config_file), patience=PATIENCE)) as requester:
        requester.get("workflow_status")  # tells soon if nobody is there; what runs has more patience
        requester.patience = RUN_PATIENCE
        _run_workflow(plan, requester, options["detach"], output)


def _refuse(given: Iterable[str], message: str) -> None:
    flags = ", ".join(sorted("--" + key.replace("_", "-") for key in given))
    if flags:
        raise click.UsageError(message.format(flags) + ".")


# ----------------------------------------------------------------------------------------------------------
# A workflow of ours


@dataclass(frozen=True)
class _Plan:
    """A workflow that can be made, once the services are known, and how to run it."""

    make: Callable[[Requester], Workflow]
    executor: str | None
    max_concurrently_running: int | None
    executor_options: Mapping[str, Any]


def _run_workflow(plan: _Plan, requester: Requester, detach: bool, output: str) -> None:
    """Run a workflow, print what came of it, and exit with its code."""
    workflow, limit = plan.make(requester), plan.max_concurrently_running
    document: dict[str, Any]
    try:
        if detach:
            run_id = workflow.submit(max_concurrently_running=limit)
            document = {"workflow_id": workflow.workflow_id, "workflow_run_id": run_id}
            text = f"Workflow {workflow.workflow_id} {workflow.name!r}, run {run_id}: submitted"
            _print(workflow, document, text, output)
            return
        result = workflow.run(
            plan.executor or "local",
            executor_options=plan.executor_options,
            max_concurrently_running=limit,
            progress=output == "table",
        )
    except WorkflowAlreadyComplete as error:
        document = {"workflow_id": workflow.workflow_id, "workflow_run_id": None, "status": "DONE"}
        text = f"{error.message}.\nHint: --workflow-args TEXT makes another workflow, which runs again"
        _print(workflow, document, text, output)
        return
    _print(workflow, dataclasses.asdict(result), str(result), output)
    sys.exit({"DONE": 0, "ERROR": EXIT_FAILED}.get(result.status, EXIT_INCOMPLETE))


def _print(workflow: Workflow, document: Mapping[str, Any], text: str, output: str) -> None:
    ids = [workflow.workflow_id] if workflow.workflow_id is not None else []
    print_report(Report(document, lambda: [line(text)], ids), output)


def _from_command(words: tuple[str, ...], options: Mapping[str, Any]) -> _Plan:
    """A workflow of one job."""
    from jobmon.client.tasks import BashTask
    from jobmon.client.workflow import Workflow

    command = words[0] if len(words) == 1 else shlex.join(words)
    if not command.strip():
        raise click.UsageError("The command is empty.")
    task = BashTask(command, max_attempts=options["max_attempts"] or 1, max_runtime=options["max_runtime"])
    now = dt.datetime.now(dt.UTC).isoformat(timespec="microseconds")

    def make(requester: Requester) -> Workflow:
        workflow = Workflow(
            options["workflow_args"] or f"{command} at {now} by process {os.getpid()}",
            options["name"] or task.name,
            stdout=options["stdout"],
            stderr=options["stderr"],
            requester=requester,
        )
        workflow.add_task(task)
        return workflow

    return _Plan(
        make,
        options["executor"],
        options["max_concurrently_running"],
        key_values(options["option"]),
    )


# ----------------------------------------------------------------------------------------------------------
# A TOML file


class _Checked:
    """Tables of a TOML file, whose errors name the file and the place.

    path: the file. place: the table, in words; "" for the top.
    """

    def __init__(self, path: Path, place: str, table: Any, keys: Mapping[str, type]) -> None:
        self.where = f"{path}: {place}: " if place else f"{path}: "
        if not isinstance(table, dict):
            raise HintedError(f"{self.where}expected a table", _EXAMPLE)
        for key, value in table.items():
            if key not in keys:
                close = difflib.get_close_matches(key, keys, n=1)
                known = f"did you mean {close[0]}?" if close else f"keys are {', '.join(keys)}"
                raise HintedError(f"{self.where}unknown key {key!r}", known)
            kind = keys[key]
            if not isinstance(value, kind) or isinstance(value, bool):
                raise HintedError(f"{self.where}{key}: expected {_TYPES[kind]}, not {value!r}")
        self.table: dict[str, Any] = table

    def take(self, *keys: str) -> dict[str, Any]:
        """Those of these keys that are there."""
        return {key: self.table[key] for key in keys if key in self.table}


def _from_toml(path: Path, options: Mapping[str, Any]) -> _Plan:
    """The workflow that a file describes, and how to run it; flags win over what its ``[run]`` says.

    Raises:
        HintedError: the file is wrong; names the place.
    """
    from jobmon.client.workflow import Workflow

    try:
        document = tomllib.loads(path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise HintedError(f"{path}: is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise HintedError(f"{path}: is no TOML: {error}", _EXAMPLE) from None
    top = _Checked(path, "", document, _WORKFLOW_KEYS)
    how = _Checked(path, "run", document.get("run", {}), _RUN_KEYS)
    tasks = _make_tasks(path, document.get("task", []))
    _check_run(how)
    name = top.table.get("name") or path.stem
    workflow_args = options["workflow_args"] or top.table.get("workflow_args") or name
    kept = ("description", "stdout", "stderr", "working_dir", "project", "slack_channel", "priority")

    def make(requester: Requester) -> Workflow:
        try:
            workflow = Workflow(workflow_args, name, **top.take(*kept), requester=requester)
            workflow.add_tasks(tasks)
        except (InvalidWorkflow, InvalidTask) as error:
            raise HintedError(f"{path}: {error.message}", error.hint) from error
        return workflow

    return _Plan(
        make,
        options["executor"] or how.table.get("executor"),
        options["max_concurrently_running"] or how.table.get("max_concurrently_running"),
        {**how.table.get("executor_options", {}), **key_values(options["option"])},
    )


def _check_run(how: _Checked) -> None:
    executor = how.table.get("executor")
    if executor is not None and executor not in (names := executor_names()):
        raise HintedError(f"{how.where}there is no executor {executor!r}", f"there is {', '.join(names)}")
    limit = how.table.get("max_concurrently_running")
    if limit is not None and limit < 1:
        raise HintedError(f"{how.where}max_concurrently_running: expected a number from 1 on, not {limit}")


def _make_tasks(path: Path, entries: list[Any]) -> list[Task]:
    """The tasks of the file, with their upstreams, wherever in it these stand."""
    from jobmon.client.tasks import BashTask

    if not entries:
        raise HintedError(f"{path}: there is no task", _EXAMPLE)
    checked = [_Checked(path, _place(n, entry), entry, _TASK_KEYS) for n, entry in enumerate(entries, 1)]
    tasks: list[Task] = []
    task: Task
    by_name: dict[str, Task] = {}
    for entry in checked:
        if not entry.table.get("command", "").strip():
            raise HintedError(f"{entry.where}the command is missing or empty", _EXAMPLE)
        numbers = ("max_attempts", "max_runtime", "slots", "mem_free")
        try:
            task = BashTask(
                entry.table["command"],
                env_variables=_environment(entry),
                **entry.take("name", "tag", "resource_scales", "context_args", *numbers),
            )
        except InvalidTask as error:
            raise HintedError(f"{entry.where}{error.message}", error.hint) from error
        tasks.append(task)
        name = entry.table.get("name")
        if name is not None and by_name.setdefault(name, task) is not task:
            raise HintedError(f"{entry.where}another task has this name", "upstream needs one name for each")
    for entry, task in zip(checked, tasks, strict=True):
        for name in entry.table.get("upstream", ()):
            if not isinstance(name, str) or name not in by_name:
                close = difflib.get_close_matches(str(name), by_name, n=1)
                hint = f"did you mean {close[0]}?" if close else "upstream is a list of names of tasks"
                raise HintedError(f"{entry.where}upstream: there is no task {name!r}", hint)
            task.add_upstream(by_name[name])
    return tasks


def _place(number: int, entry: Any) -> str:
    name = entry.get("name") if isinstance(entry, dict) else None
    return f"task {name!r}" if isinstance(name, str) else f"task {number}"


def _environment(entry: _Checked) -> dict[str, str]:
    found = {}
    for key, value in entry.table.get("env", {}).items():
        if isinstance(value, bool) or not isinstance(value, str | int | float):
            raise HintedError(f"{entry.where}env.{key}: expected a text or a number, not {value!r}")
        found[key] = str(value)
    return found


# ----------------------------------------------------------------------------------------------------------
# A script


def _run_script(file: str, arguments: list[str], config_file: str | None) -> None:
    """Execute a script as Python would. Its exit code is ours."""
    path = os.path.abspath(file)
    if not os.path.isfile(path):
        raise HintedError(f"{file}: no such file")
    if config_file is not None:
        os.environ["JOBMON_RC"] = str(rc_path(config_file))
    sys.argv = [file, *arguments]
    sys.path.insert(0, os.path.dirname(path))
    try:
        runpy.run_path(path, run_name="__main__")
    except JobmonError as error:
        where = _line_of(path, error)
        raise HintedError(f"{file}{where}: {error.message}", error.hint) from error
    except Exception as error:
        # As Python shows it: what stands above the script's own frames is ours.
        shown = error.__traceback__
        while shown is not None and shown.tb_frame.f_code.co_filename != path:
            shown = shown.tb_next
        traceback.print_exception(type(error), error, shown)
        sys.exit(EXIT_FAILED)


def _line_of(path: str, error: Exception) -> str:
    lines = [
        number for frame, number in traceback.walk_tb(error.__traceback__) if frame.f_code.co_filename == path
    ]
    return f":{lines[-1]}" if lines else ""
