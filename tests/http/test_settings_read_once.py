"""The configuration is read when a service starts, not per request."""

from __future__ import annotations

import builtins
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from http_helpers import Api, make_dag, make_instance, make_job


def test_requests_open_no_file(
    db: Any, make_api: Callable[..., Api], monkeypatch: pytest.MonkeyPatch
) -> None:
    jsm, jqs = make_api("jsm", db, token="t"), make_api("jqs", db)
    for api in (jsm, jqs):
        assert api.read("/readyz")["status"] == "ready"

    def refuse(*args: Any, **kw: Any) -> Any:
        raise AssertionError(f"a request opened {args[0]}")

    for owner, name in ((builtins, "open"), (io, "open"), (Path, "read_text"), (Path, "read_bytes")):
        monkeypatch.setattr(owner, name, refuse)
    jsm.client.environ_base["HTTP_AUTHORIZATION"] = "Bearer t"
    dag_id = make_dag(jsm)
    instance_id = make_instance(jsm, make_job(jsm, dag_id)["job_id"])
    jsm.ok("/log_error", job_instance_id=instance_id, error_message="no")
    assert len(jqs.read("/get_jobs", dag_id=dag_id)["job_dcts"]) == 1
    assert jqs.read("/jobs", dag_id=dag_id)["jobs"]
    assert jsm.post("/log_done", {"job_instance_id": -1}).status_code == 422
