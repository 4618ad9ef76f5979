"""Errors of the client library: each says what is wrong and what to do about it."""

from __future__ import annotations

# ruff: noqa: N818 (the names say what is the case: WorkflowAlreadyComplete)


class JobmonError(Exception):
    """The base of all errors of the client library.

    Parameters:
        message: what is wrong; names the workflow, task or service.
        hint: what to do about it, or "".
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\nHint: {self.hint}" if self.hint else self.message


# ----------------------------------------------------------------------------------------------------------
# Services


class ServiceUnavailable(JobmonError):
    """A service did not answer for as long as the requester's patience lasted."""


class RequestRefused(JobmonError):
    """A service answered that it will not do this; to send it again would not help.

    Parameters:
        code: the error's name, such as ``WORKFLOW_HASH_TAKEN``; the HTTP reference has them all.
        message: what is wrong.
        hint: what to do about it, or "".
        status: the HTTP status.
    """

    def __init__(self, code: str, message: str, hint: str = "", status: int = 400) -> None:
        super().__init__(message if message.startswith(code) else f"{code}: {message}", hint)
        self.code = code
        self.status = status


# ----------------------------------------------------------------------------------------------------------
# What is wrong with a task or a workflow: raised before anything is written


class InvalidTask(JobmonError, ValueError):
    """A task has an argument that can't be."""


class InvalidWorkflow(JobmonError, ValueError):
    """A workflow can't be registered as it is."""


class DuplicateTask(InvalidWorkflow):
    """Two tasks of a workflow have the same command."""


class MissingUpstream(InvalidWorkflow):
    """A task waits for a task that is not in the workflow."""


class CyclicWorkflow(InvalidWorkflow):
    """Tasks wait for each other in a circle."""


# ----------------------------------------------------------------------------------------------------------
# Why a workflow can't be run now


class WorkflowExists(JobmonError):
    """The workflow ran before, and ``resume=False`` says that it should not be resumed."""


class WorkflowAlreadyComplete(JobmonError):
    """All jobs of the workflow are DONE: there is nothing left to run."""


class WorkflowAlreadyRunning(JobmonError):
    """A run of the workflow is alive."""
