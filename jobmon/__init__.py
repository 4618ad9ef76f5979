"""Jobmon keeps the truth about batch jobs: state machines in MySQL or MariaDB, thin services in front.

The names of the client library are loaded when they are first used: the worker on a node imports this
package, too, and must start fast.
"""

from __future__ import annotations

# As typing has it, which takes a while to load.
TYPE_CHECKING = False

if TYPE_CHECKING:
    from jobmon.client.attributes import AttributeType as AttributeType
    from jobmon.client.errors import JobmonError as JobmonError
    from jobmon.client.requester import Requester as Requester
    from jobmon.client.result import FailedJob as FailedJob
    from jobmon.client.result import WorkflowResult as WorkflowResult
    from jobmon.client.tasks import BashTask as BashTask
    from jobmon.client.tasks import PythonTask as PythonTask
    from jobmon.client.tasks import RTask as RTask
    from jobmon.client.tasks import StataTask as StataTask
    from jobmon.client.tasks import Task as Task
    from jobmon.client.workflow import Workflow as Workflow

_PLACES = {
    "AttributeType": "attributes",
    "BashTask": "tasks",
    "FailedJob": "result",
    "JobmonError": "errors",
    "PythonTask": "tasks",
    "RTask": "tasks",
    "Requester": "requester",
    "StataTask": "tasks",
    "Task": "tasks",
    "Workflow": "workflow",
    "WorkflowResult": "result",
}

__all__ = [
    "AttributeType",
    "BashTask",
    "FailedJob",
    "JobmonError",
    "PythonTask",
    "RTask",
    "Requester",
    "StataTask",
    "Task",
    "Workflow",
    "WorkflowResult",
]


if not TYPE_CHECKING:  # else a type checker would take any name for one of ours

    def __getattr__(name: str) -> object:
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        import importlib

        value = getattr(importlib.import_module(f"jobmon.client.{_PLACES[name]}"), name)
        globals()[name] = value
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
