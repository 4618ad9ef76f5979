"""Tasks: what a workflow is made of. Registered, a task is a job."""

from __future__ import annotations

import hashlib
import json
import math
import operator
import os
import re
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from jobmon.client.attributes import make_attribute
from jobmon.client.errors import InvalidTask

MAX_NAME = 255  # characters, as the database has them
MAX_COMMAND = 131_000  # bytes of UTF-8: Linux takes 128 KiB as one argument of bash
MAX_INT = 2**31 - 1
MAX_SCALE = 999.999
SCALED_RESOURCES = ("mem_free", "max_runtime")
NAME_LENGTH = 60  # characters of a name that is made from the command
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OWN_VARIABLES = "JOBMON_"

# Stata ends with 0 whatever happens in a do-file; an error shows only as a line such as r(111);
_STATA_ERROR = r"{ print; fflush() } /^r\([0-9]+\);$/ { failed = 1 } END { exit failed }"


class TaskOptions(TypedDict, total=False):
    """What every kind of task takes; see :class:`Task`."""

    upstream_tasks: Iterable[Task] | None
    name: str | None
    slots: int
    mem_free: int
    max_attempts: int
    max_runtime: int | None
    env_variables: Mapping[str, Any] | None
    tag: str | None
    job_attributes: Mapping[int | str, Any] | None
    context_args: Mapping[str, Any] | None
    resource_scales: Mapping[str, float] | None


class Task:
    """A command, what it needs, and the tasks that must be done before it.

    The command is the task's identity in its workflow (its SHA-1 is the job_hash), so no two tasks of a
    workflow may have the same. All else can change without making it another task.

    Parameters:
        command: run by bash in the workflow's working_dir.
        upstream_tasks: tasks that must be DONE before this one starts.
        name: for people; default: the beginning of the command.
        slots: CPUs that it needs.
        mem_free: memory that it needs, GB.
        max_attempts: how often it is tried before it has failed for good.
        max_runtime: seconds after which an attempt is killed; None: no limit.
        env_variables: environment variables for the command; part of it, and so of the task's identity.
        tag: a word for grouping tasks.
        job_attributes: attribute type (name or number) -> value; see :class:`AttributeType`.
        context_args: further arguments for the executor, by name.
        resource_scales: ``mem_free`` and ``max_runtime`` -> the part by which it grows, rounded up, when an
            attempt that ran out of it is retried: ``{"mem_free": 0.5}`` makes 8 GB 12, then 18. What is
            left out never grows.

    Raises:
        InvalidTask: an argument can't be.
    """

    __slots__ = (
        "_upstreams", "command", "context_args", "job_attributes", "job_hash", "max_attempts", "max_runtime",
        "mem_free", "name", "resource_scales", "slots", "tag",
    )  # fmt: skip

    def __init__(
        self,
        command: str,
        *,
        upstream_tasks: Iterable[Task] | None = None,
        name: str | None = None,
        slots: int = 1,
        mem_free: int = 2,
        max_attempts: int = 3,
        max_runtime: int | None = None,
        env_variables: Mapping[str, Any] | None = None,
        tag: str | None = None,
        job_attributes: Mapping[int | str, Any] | None = None,
        context_args: Mapping[str, Any] | None = None,
        resource_scales: Mapping[str, float] | None = None,
    ) -> None:
        if not isinstance(command, str):
            raise InvalidTask(
                f"A task's command must be a text, not {type(command).__name__}",
                "For a list: shlex.join(list).",
            )
        if not command.strip():
            raise InvalidTask(
                "A task's command is empty" if name is None else f"Task {name!r}: the command is empty"
            )
        self.name = _shorten(command) if name is None else name
        if not isinstance(self.name, str) or not 0 < len(self.name) <= MAX_NAME:
            raise InvalidTask(f"A task's name must be a text of 1 to {MAX_NAME} characters, not {name!r}")
        self.command = self._exports(env_variables) + command
        try:
            encoded = self.command.encode()
        except UnicodeEncodeError:
            raise InvalidTask(f"{self}: the command is no valid Unicode text: {command[:200]!a}") from None
        if len(encoded) > MAX_COMMAND or b"\0" in encoded:
            raise InvalidTask(
                f"{self}: the command has {len(encoded)} bytes, or a NUL character",
                f"{MAX_COMMAND} bytes are the most; put it into a script.",
            )
        self.job_hash = int.from_bytes(hashlib.sha1(encoded).digest(), "big")
        self.slots = self._number("slots", slots, 1)
        self.mem_free = self._number("mem_free", mem_free, 0)
        self.max_attempts = self._number("max_attempts", max_attempts, 1)
        self.max_runtime = None if max_runtime is None else self._number("max_runtime", max_runtime, 1)
        if tag is not None and (not isinstance(tag, str) or len(tag) > MAX_NAME):
            raise InvalidTask(f"{self}: tag must be a text of at most {MAX_NAME} characters")
        self.tag = tag
        try:
            self.context_args = None if context_args is None else json.dumps(dict(context_args))
        except (TypeError, ValueError) as error:
            raise InvalidTask(f"{self}: context_args can't be written as JSON: {error}") from None
        self.resource_scales = self._scales(resource_scales)
        self.job_attributes: dict[int, str] = {}
        for attribute_type, value in (job_attributes or {}).items():
            self.add_job_attribute(attribute_type, value)
        self._upstreams: dict[Task, None] = {}
        if isinstance(upstream_tasks, Task):
            raise InvalidTask(f"{self}: upstream_tasks must be a list of tasks", "upstream_tasks=[task]")
        for task in upstream_tasks or ():
            self.add_upstream(task)

    @property
    def upstream_tasks(self) -> list[Task]:
        """The tasks that must be DONE before this one starts, in the order in which they were given."""
        return list(self._upstreams)

    def add_upstream(self, task: Task) -> None:
        """Let this task wait for another one; to say so twice is harmless.

        Parameters:
            task: must be DONE before this one starts.

        Raises:
            InvalidTask: it is no task.
        """
        if not isinstance(task, Task):
            raise InvalidTask(f"{self}: an upstream must be a task, not {type(task).__name__}")
        self._upstreams[task] = None

    def add_downstream(self, task: Task) -> None:
        """Let another task wait for this one; as ``task.add_upstream(self)``."""
        task.add_upstream(self)

    def add_job_attribute(self, attribute_type: int | str, value: Any) -> None:
        """Keep a number or a tag with the job; of each type the last value counts.

        Parameters:
            attribute_type: its name or number; see :class:`AttributeType`.
            value: a whole number, or a text for TAG.

        Raises:
            InvalidTask: the type is unknown or the value does not fit.
        """
        number, text = make_attribute(attribute_type, value)
        self.job_attributes[number] = text

    def __repr__(self) -> str:
        return f"{type(self).__name__} {self.name!r}"

    def _number(self, what: str, value: Any, low: int) -> int:
        number = whole_number(value)
        if number is None or not low <= number <= MAX_INT:
            raise InvalidTask(f"{self}: {what} must be a whole number from {low} on, not {value!r}")
        return number

    def _scales(self, given: Any) -> dict[str, float]:
        if given is None:
            return {}
        if not isinstance(given, Mapping):
            raise InvalidTask(
                f"{self}: resource_scales must be a mapping, not {given!r}", '{"mem_free": 0.5}'
            )
        scales = {}
        for resource, scale in given.items():
            if resource not in SCALED_RESOURCES:
                raise InvalidTask(
                    f"{self}: resource_scales: {resource!r} does not grow",
                    f"What may grow: {' and '.join(SCALED_RESOURCES)}.",
                )
            try:
                scales[resource] = math.nan if isinstance(scale, bool | str) else round(float(scale), 3)
            except (TypeError, ValueError):
                scales[resource] = math.nan
            if not 0 <= scales[resource] <= MAX_SCALE:
                raise InvalidTask(
                    f"{self}: resource_scales: {resource} takes 0 to {MAX_SCALE}, not {scale!r}",
                    "0.5 is half as much again.",
                )
        return scales

    def _exports(self, env_variables: Mapping[str, Any] | None) -> str:
        """The command's prefix that sets its environment; sorted, so that the order makes no other task."""
        parts = []
        for name, value in sorted((env_variables or {}).items()):
            if not _VARIABLE.fullmatch(name) or name.startswith(_OWN_VARIABLES):
                raise InvalidTask(
                    f"{self}: {name!r} can't be the name of an environment variable",
                    f"Letters, digits and _, not beginning with a digit or with {_OWN_VARIABLES}.",
                )
            parts.append(f"export {name}={shlex.quote(str(value))}; ")
        return "".join(parts)


class BashTask(Task):
    """A task that is a line of bash; see :class:`Task`."""

    __slots__ = ()


class ScriptTask(Task):
    """A task that runs a script by its interpreter; use one of the subclasses."""

    __slots__ = ()

    def __init__(
        self,
        script: str | os.PathLike[str],
        command: str,
        args: Sequence[Any],
        **options: Unpack[TaskOptions],
    ) -> None:
        if options.get("name") is None:
            options["name"] = _shorten(" ".join([os.path.basename(_path(script)), *map(str, args)]))
        super().__init__(command, **options)


class PythonTask(ScriptTask):
    """A task that is a Python script.

    Parameters:
        script: path of the script; ``~`` is your home directory.
        args: its arguments, each passed as it is: blanks and quotes need no care.
        path_to_python_binary: the Python that runs it; default: the one that runs this.
        options: as for :class:`Task`, by name.

    Raises:
        InvalidTask: an argument can't be.
    """

    __slots__ = ()

    def __init__(
        self,
        *,
        script: str | os.PathLike[str],
        args: Sequence[Any] | None = None,
        path_to_python_binary: str | os.PathLike[str] | None = None,
        **options: Unpack[TaskOptions],
    ) -> None:
        binary = sys.executable if path_to_python_binary is None else path_to_python_binary
        words = _words(args)
        super().__init__(script, shlex.join([_path(binary), _path(script), *words]), words, **options)


class RTask(ScriptTask):
    """A task that is an R script.

    Parameters:
        script: path of the script; ``~`` is your home directory.
        args: its arguments (see commandArgs), each passed as it is.
        path_to_R_binary: what runs it.
        options: as for :class:`Task`, by name.

    Raises:
        InvalidTask: an argument can't be.
    """

    __slots__ = ()

    def __init__(
        self,
        *,
        script: str | os.PathLike[str],
        args: Sequence[Any] | None = None,
        path_to_R_binary: str | os.PathLike[str] = "Rscript",  # noqa: N803 (emu's name)
        **options: Unpack[TaskOptions],
    ) -> None:
        words = _words(args)
        command = shlex.join([_path(path_to_R_binary), _path(script), *words])
        super().__init__(script, command, words, **options)


class StataTask(ScriptTask):
    """A task that is a Stata do-file. It has failed if Stata shows an error such as ``r(111);``.

    Stata's output goes to the job's output file, not to a log in the working directory, where jobs that run
    the same do-file would overwrite each other's.

    Parameters:
        script: path of the do-file; ``~`` is your home directory.
        args: its arguments (see args), each passed as it is.
        path_to_stata_binary: what runs it.
        options: as for :class:`Task`, by name.

    Raises:
        InvalidTask: an argument can't be.
    """

    __slots__ = ()

    def __init__(
        self,
        *,
        script: str | os.PathLike[str],
        args: Sequence[Any] | None = None,
        path_to_stata_binary: str | os.PathLike[str] = "stata-mp",
        **options: Unpack[TaskOptions],
    ) -> None:
        words = _words(args)
        stata = shlex.join([_path(path_to_stata_binary), "-q", "do", _path(script), *words])
        # The end of its input ends Stata after the do-file, and after an error in it.
        command = f"set -o pipefail; {stata} </dev/null | awk {shlex.quote(_STATA_ERROR)}"
        super().__init__(script, command, words, **options)


def whole_number(value: Any) -> int | None:
    """A number of any kind as an int, if it is a whole one: numpy's, too, and 60.0, but not 60.5."""
    if isinstance(value, bool):
        return None
    if isinstance(value, float):
        return int(value) if value.is_integer() else None
    try:
        return operator.index(value)
    except TypeError:
        return None


def _path(path: str | os.PathLike[str]) -> str:
    if not isinstance(path, str | os.PathLike) or not os.fspath(path):
        raise InvalidTask(f"A path must be a text, not {path!r}")
    return os.path.expanduser(os.fspath(path))


def _words(args: Sequence[Any] | None) -> list[str]:
    if isinstance(args, str | bytes):
        raise InvalidTask(f"args must be a list, not {args!r}", 'args=["a", "b"]')
    return [str(word) for word in args or ()]


def _shorten(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= NAME_LENGTH else text[: NAME_LENGTH - 3] + "..."
