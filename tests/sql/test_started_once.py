"""A job instance that was submitted twice is started by one of the two tasks."""

from __future__ import annotations

import pytest
from sql_helpers import Sql, make_instance


def test_another_task_is_refused(jsm: Sql, admin: Sql) -> None:
    _, instance = make_instance(jsm)
    jsm.call("log_executor_id", job_instance_id=instance, executor_id="99_0")
    jsm.call("start_job_instance", job_instance_id=instance, executor_id="77_0")  # which one, is no matter
    with admin.unchanged(), jsm.refused("JOB_INSTANCE_STARTED", "77_0"):
        jsm.call("start_job_instance", job_instance_id=instance, executor_id="99_0", nodename="n2")
    assert admin.instance(instance)["executor_id"] == "77_0"


@pytest.mark.parametrize("again", ["77_0", None])
def test_the_same_task_may_start_again(jsm: Sql, again: str | None) -> None:
    """A lost answer, or a scheduler that requeues."""
    _, instance = make_instance(jsm)
    jsm.call("start_job_instance", job_instance_id=instance, executor_id="77_0")
    answer = jsm.call("start_job_instance", job_instance_id=instance, executor_id=again)
    assert answer["job_instance"]["job_instance_id"] == instance
