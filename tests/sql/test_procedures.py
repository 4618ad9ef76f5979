"""What holds for each public procedure: answers, repeats, what is left out, unknown ids, transactions."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from sql_helpers import (
    LEASES,
    Facts,
    Sql,
    fresh,
    make_attempt,
    make_dag,
    make_instance,
    make_job,
    make_jobs,
    make_run,
    make_submitted,
    make_workflow,
    seconds_ago,
    statuses,
    watch,
)

NOBODY = 10**15
LONG = 86_400  # seconds: a lease that does not end while these tests run


@dataclass
class Case:
    """How to try a procedure.

    arguments: makes what a good call needs and gives its arguments. answer: keys of the answer. needed: what
    may not be left out. unknown: the error for an id that is not there, by parameter; None: not an error.
    again: how the same call is answered once more: "same", or that there was "nothing" left to do. keyed: it
    takes a request_key, and would do its work anew without. reads: it changes nothing.
    """

    arguments: Callable[[Sql], dict[str, Any]]
    answer: set[str]
    needed: tuple[str, ...] = ()
    unknown: dict[str, str | None] = field(default_factory=dict)
    again: str = "same"
    keyed: bool = False
    reads: bool = False


def _instance(status: str, **more: Any) -> Callable[[Sql], dict[str, Any]]:
    return lambda jsm: {"job_instance_id": make_instance(jsm, status)[1], **more}


def _job(status: str, **more: Any) -> Callable[[Sql], dict[str, Any]]:
    return lambda jsm: {"job_id": make_job(jsm, status), **more}


def _attribute(kind: str, make: Callable[[Sql], int]) -> Case:
    return Case(
        lambda jsm: {f"{kind}_id": make(jsm), "attribute_type": 1, "value": "17"},
        {f"{kind}_attribute_id"},
        needed=(f"{kind}_id", "attribute_type", "value"),
        unknown={f"{kind}_id": f"UNKNOWN_{kind.upper()}", "attribute_type": "UNKNOWN_ATTRIBUTE_TYPE"},
        keyed=True,
    )


_REPORT: dict[str, Any] = {
    "needed": ("job_instance_id",),
    "unknown": {"job_instance_id": "UNKNOWN_JOB_INSTANCE"},
}
_JOB: dict[str, Any] = {"needed": ("job_id",), "unknown": {"job_id": "UNKNOWN_JOB"}}


def _queued_dag(jsm: Sql) -> int:
    dag_id, _ = make_jobs(jsm, 3)
    jsm.call("queue_jobs", dag_id=dag_id)
    return dag_id


def _failing_dag(jsm: Sql) -> int:
    dag_id = make_dag(jsm)
    for status in "GQIRFD":
        make_job(jsm, status, dag_id=dag_id)
    return dag_id


def _old_request(jsm: Sql) -> dict[str, Any]:
    jsm.raw("SET timestamp = UNIX_TIMESTAMP() - 90000")
    make_dag(jsm, request_key=fresh("key"))
    jsm.raw("SET timestamp = DEFAULT")
    return {}


def _lost(jsm: Sql) -> dict[str, Any]:
    make_attempt(jsm, make_job(jsm, "Q"), lease_seconds=0)
    return {}


def _finished(jsm: Sql) -> int:
    dag_id = make_dag(jsm)
    make_job(jsm, "D", dag_id=dag_id)
    return make_submitted(jsm, dag_id)


def _live_workflow(jsm: Sql) -> int:
    dag_id = make_dag(jsm)
    make_job(jsm, "R", dag_id=dag_id)
    workflow = make_workflow(jsm, dag_id=dag_id)
    make_run(jsm, workflow_id=workflow)
    return workflow


def _finished_somewhere(jsm: Sql) -> dict[str, Any]:
    _finished(jsm)
    return {}


def _lost_run(jsm: Sql) -> dict[str, Any]:
    with seconds_ago(jsm, 60):
        make_run(jsm)
    watch(jsm, 60)
    return {"loss_threshold_seconds": 30}


def _waiting_run(jsm: Sql) -> dict[str, Any]:
    with seconds_ago(jsm, 60):
        make_submitted(jsm, make_jobs(jsm, 1)[0])
    return {}


def _notification(jsm: Sql) -> dict[str, Any]:
    """One that is due, and the only one of its channel. (A claim that ended between two calls would change
    the answer.)
    """
    make_run(jsm, "E", slack_channel=fresh("channel"))
    return {"claim_token": fresh("token"), "max_notifications": 1000, "lease_seconds": LONG}


def _claimed(jsm: Sql, **outcome: Any) -> dict[str, Any]:
    asked = _notification(jsm)
    newest = jsm.call("claim_notifications", **asked)["notifications"][-1]
    return {
        "notification_id": newest["notification_id"],
        "claim_token": asked["claim_token"],
        **outcome,
    }


def _failed_notification(jsm: Sql) -> dict[str, Any]:
    jsm.call("log_notification", **_claimed(jsm, error_message="invalid_auth", needs_help=1))
    return {}


def _after_a_second(jsm: Sql) -> dict[str, Any]:
    time.sleep(1)  # it does nothing sooner
    return {}


CASES = {
    "add_task_dag": Case(
        lambda jsm: {
            "user": "ann",
            "dag_hash": fresh(),
            "name": "n",
            "created_date": "2018-11-01 10:00:00",
            "priority": -3,
        },
        {"dag_id"},
        needed=("user", "dag_hash"),
        keyed=True,
    ),
    "add_job": Case(
        lambda jsm: {"dag_id": make_dag(jsm), "name": "j", "job_hash": fresh(), "command": "true"},
        {"job_dct"},
        needed=("name", "job_hash", "command"),
        unknown={"dag_id": "UNKNOWN_DAG"},
    ),
    "add_jobs": Case(
        lambda jsm: {
            "dag_id": make_dag(jsm),
            "jobs": [
                {"name": "a", "job_hash": "1", "command": "true"},
                {
                    "name": "b",
                    "job_hash": "2",
                    "command": "true",
                    "upstream_job_hashes": ["1"],
                    "attributes": [{"attribute_type": 8, "value": "blue"}],
                },
            ],
        },
        {"job_ids"},
        needed=("dag_id", "jobs"),
        unknown={"dag_id": "UNKNOWN_DAG"},
    ),
    "queue_job": Case(_job("G"), set(), **_JOB),
    "queue_jobs": Case(
        lambda jsm: {"dag_id": make_jobs(jsm, 3, [(0, 2)])[0]},
        {"num_queued", "num_left"},
        needed=("dag_id",),
        unknown={"dag_id": "UNKNOWN_DAG"},
        again="nothing",
    ),
    "add_job_instance": Case(
        _job("Q", executor_type="LocalExecutor", attempt_number=1),
        {"job_instance_id"},
        needed=("job_id", "executor_type"),
        unknown={"job_id": "UNKNOWN_JOB"},
    ),
    "claim_jobs": Case(
        lambda jsm: {"executor_type": "LocalExecutor", "dag_id": _queued_dag(jsm), "max_jobs": 2},
        {"job_instances"},
        needed=("executor_type",),
        unknown={"dag_id": "UNKNOWN_DAG", "workflow_run_id": "UNKNOWN_WORKFLOW_RUN"},
        keyed=True,
    ),
    "log_executor_id": Case(
        _instance("I", executor_id="4711"),
        {"message"},
        needed=("job_instance_id", "executor_id"),
        unknown=_REPORT["unknown"],
    ),
    "log_running": Case(_instance("I", nodename="n", process_group_id=4), {"message"}, **_REPORT),
    "log_done": Case(_instance("R"), {"message"}, **_REPORT),
    "log_error": Case(
        _instance("R", error_message="x"),
        {"message"},
        needed=("job_instance_id", "error_message"),
        unknown=_REPORT["unknown"],
    ),
    "log_warning": Case(
        _instance("R", error_message="x"),
        {"message"},
        needed=("job_instance_id", "error_message"),
        unknown=_REPORT["unknown"],
    ),
    "log_executor_name": Case(
        _instance("I", executor_name="jobmon-1f2e3d4c-1.0"),
        set(),
        needed=("job_instance_id", "executor_name"),
        unknown=_REPORT["unknown"],
    ),
    "log_nodename": Case(
        _instance("R", nodename="n"),
        {"message"},
        needed=("job_instance_id", "nodename"),
        unknown=_REPORT["unknown"],
    ),
    "log_usage": Case(_instance("R", usage_str="u", wallclock="1.5"), {"message"}, **_REPORT),
    "log_job_instance_heartbeat": Case(_instance("R", lease_seconds=LONG), set(), **_REPORT),
    "log_heartbeat": Case(
        lambda jsm: {"dag_id": make_dag(jsm)}, set(), needed=("dag_id",), unknown={"dag_id": None}
    ),
    "log_events": Case(
        lambda jsm: {
            "events": [
                {"event": "running", "job_instance_id": make_instance(jsm)[1]},
                {"event": "error", "job_instance_id": make_instance(jsm)[1], "error_message": "x"},
            ]
        },
        {"outcomes"},
        needed=("events",),
    ),
    "expire_job_instances": Case(_lost, {"job_instance_ids"}, again="nothing"),
    "end_lost_workflow_runs": Case(_lost_run, {"workflow_runs"}, again="nothing"),
    "log_monitor_heartbeat": Case(lambda jsm: {"poll_seconds": 10}, set()),
    "log_distributor_heartbeat": Case(_waiting_run, {"num_workflow_runs"}, again="nothing"),
    "report_failing_nodes": Case(lambda jsm: {}, {"nodes"}),
    "log_audit": Case(
        lambda jsm: {"audit": "audit_gate", "num_violations": 0},
        {"violated_since"},
        needed=("audit", "num_violations"),
    ),
    "claim_notifications": Case(_notification, {"notifications"}, needed=("claim_token",)),
    "log_notification": Case(
        lambda jsm: _claimed(jsm, delivery="SLACK", message_ts="1.2"),
        {"accepted"},
        needed=("notification_id", "claim_token"),
    ),
    "retry_notifications": Case(_failed_notification, {"num_notifications"}, again="nothing"),
    "forget_requests": Case(_old_request, {"num_rows"}, again="nothing"),
    "reset_job": Case(_job("R"), set(), **_JOB),
    "reset_incomplete_jobs": Case(
        lambda jsm: {"dag_id": _failing_dag(jsm)}, set(), needed=("dag_id",), unknown={"dag_id": None}
    ),
    "retry_job": Case(_job("F"), {"job_dct"}, **_JOB),
    "add_workflow": Case(
        lambda jsm: {
            "dag_id": make_dag(jsm),
            "workflow_args": "v1",
            "workflow_hash": fresh(),
            "name": "wf",
            "user": "ann",
        },
        {"workflow_dct"},
        needed=("dag_id", "workflow_args", "workflow_hash", "name", "user"),
        unknown={"dag_id": "UNKNOWN_DAG"},
    ),
    "update_workflow": Case(
        lambda jsm: {"wf_id": make_workflow(jsm), "status": "R"},
        {"workflow_dct"},
        needed=("wf_id", "status"),
        unknown={"wf_id": "UNKNOWN_WORKFLOW"},
    ),
    "add_workflow_run": Case(
        lambda jsm: {"workflow_id": make_workflow(jsm), "user": "ann", "hostname": "h", "pid": 1},
        {"workflow_run_id"},
        needed=("workflow_id", "user", "hostname", "pid"),
        unknown={"workflow_id": "UNKNOWN_WORKFLOW"},
        keyed=True,
    ),
    "update_workflow_run": Case(
        lambda jsm: {"wfr_id": make_run(jsm), "status": "D"},
        {"status"},
        needed=("wfr_id", "status"),
        unknown={"wfr_id": "UNKNOWN_WORKFLOW_RUN"},
    ),
    "submit_workflow_run": Case(
        lambda jsm: {
            "workflow_run_id": make_run(
                jsm, workflow_id=make_workflow(jsm, dag_id=make_jobs(jsm, 3, [(0, 2)])[0])
            )
        },
        {"num_queued", "num_left"},
        needed=("workflow_run_id",),
        unknown={"workflow_run_id": "UNKNOWN_WORKFLOW_RUN"},
        again="nothing",
    ),
    "end_workflow_run": Case(
        lambda jsm: {"workflow_run_id": _finished(jsm)},
        {"status", "workflow_status", "counts"},
        needed=("workflow_run_id",),
        unknown={"workflow_run_id": "UNKNOWN_WORKFLOW_RUN"},
    ),
    "end_workflow_runs": Case(_finished_somewhere, {"workflow_runs"}, again="nothing"),
    "stop_workflow": Case(
        lambda jsm: {"workflow_id": _live_workflow(jsm), "kill": 1},
        {"workflow_run_id", "num_killed"},
        needed=("workflow_id",),
        unknown={"workflow_id": "UNKNOWN_WORKFLOW"},
        again="nothing",
    ),
    "set_max_concurrently_running": Case(
        lambda jsm: {"workflow_id": make_workflow(jsm), "max_concurrently_running": 7},
        {"workflow_id", "max_concurrently_running"},
        needed=("workflow_id",),
        unknown={"workflow_id": "UNKNOWN_WORKFLOW"},
    ),
    "kill_job": Case(_job("R"), {"job_dct"}, **_JOB),
    "start_job_instance": Case(
        _instance("B", nodename="n", process_group_id=4, executor_id="4711", lease_seconds=LONG),
        {"job_instance"},
        **_REPORT,
    ),
    "add_job_attribute": _attribute("job", make_job),
    "add_workflow_attribute": _attribute("workflow", make_workflow),
    "add_workflow_run_attribute": _attribute("workflow_run", make_run),
    "get_api_errors": Case(lambda jsm: {}, set(), reads=True),
    "get_database_id": Case(lambda jsm: {}, {"database_id"}, reads=True),
    "open_tables": Case(lambda jsm: {}, {"num_tables"}, reads=True),
    "log_replication_heartbeat": Case(_after_a_second, set()),
    "get_schema_version": Case(lambda jsm: {}, {"schema_version", "compatible_since"}, reads=True),
}
WRITING = sorted(name for name, case in CASES.items() if not case.reads)

each = pytest.mark.parametrize("name", sorted(CASES))
each_writing = pytest.mark.parametrize("name", WRITING)


def test_every_public_procedure_is_tried(facts: Facts) -> None:
    assert facts.public == sorted(CASES)


@each
def test_answer(jsm: Sql, admin: Sql, name: str) -> None:
    case = CASES[name]
    arguments = case.arguments(jsm)
    before = admin.snapshot()
    answer = jsm.call(name, **arguments)
    if isinstance(answer, dict):
        assert set(answer) == case.answer
    assert (admin.snapshot() == before) is case.reads, "its work is committed"


@each_writing
def test_repeated(jsm: Sql, admin: Sql, name: str) -> None:
    """The same call again, as after a lost answer: one effect, two successes."""
    case = CASES[name]
    arguments = case.arguments(jsm)
    if case.keyed:
        arguments["request_key"] = fresh("key")
    first = jsm.call(name, **arguments)
    # a report is a sign of life, so a lease may move on; nothing else may
    with admin.unchanged(ignoring=LEASES):
        second = jsm.call(name, **arguments)
    if case.again == "nothing":
        for key, value in first.items():
            assert second[key] == ([] if isinstance(value, list) else None if key.endswith("_id") else 0)
    else:
        assert second == first


@pytest.mark.parametrize("name", sorted(name for name, case in CASES.items() if case.keyed))
def test_request_keys(jsm: Sql, admin: Sql, name: str) -> None:
    case = CASES[name]
    arguments = case.arguments(jsm)
    key = fresh("key")
    first = jsm.call(name, **arguments, request_key=key)
    others = jsm.call(name, **arguments, request_key=fresh("key"))
    assert others != first, "another key is another thing to be done"
    assert jsm.call(name, **arguments, request_key=key) == first
    # keys are compared exactly
    assert jsm.call(name, **arguments, request_key=key + " ") != first
    assert jsm.call(name, **arguments, request_key=key.upper()) != first
    with admin.unchanged(), jsm.refused("REQUEST_KEY_CONFLICT"):
        if name == "add_task_dag":
            jsm.call("claim_jobs", executor_type="X", request_key=key)
        else:
            make_dag(jsm, request_key=key)
    with admin.unchanged(), jsm.refused("VALUE_TOO_LONG"):
        jsm.call(name, **arguments, request_key="k" * 65)


@pytest.mark.parametrize("name", sorted(name for name, case in CASES.items() if case.keyed and case.unknown))
def test_a_refused_call_leaves_its_key_free(jsm: Sql, admin: Sql, name: str) -> None:
    case = CASES[name]
    arguments, key = case.arguments(jsm), fresh("key")
    wrong = {**arguments, next(iter(case.unknown)): NOBODY}
    with admin.unchanged(), jsm.refused(next(iter(case.unknown.values())) or ""):
        jsm.call(name, **wrong, request_key=key)
    assert set(jsm.call(name, **arguments, request_key=key)) == case.answer


@pytest.mark.parametrize(
    ("name", "parameter"), [(name, word) for name in sorted(CASES) for word in CASES[name].needed]
)
def test_a_needed_parameter_left_out(jsm: Sql, admin: Sql, name: str, parameter: str) -> None:
    arguments = CASES[name].arguments(jsm)
    del arguments[parameter]
    with admin.unchanged(), jsm.refused("MISSING_PARAMETER", parameter):
        jsm.call(name, **arguments)


@each
def test_all_parameters_left_out(jsm: Sql, admin: Sql, name: str) -> None:
    case = CASES[name]
    if case.needed:
        with admin.unchanged(), jsm.refused("MISSING_PARAMETER"):
            jsm.call(name)
    else:
        jsm.call(name)


@pytest.mark.parametrize(
    ("name", "parameter"), [(name, word) for name in sorted(CASES) for word in CASES[name].unknown]
)
def test_an_unknown_id(jsm: Sql, admin: Sql, name: str, parameter: str) -> None:
    case = CASES[name]
    unknown = NOBODY if parameter != "attribute_type" else 99
    error = case.unknown[parameter]
    arguments = {**case.arguments(jsm), parameter: unknown}
    with admin.unchanged():
        if error is None:
            assert jsm.call(name, **arguments) == {}
            return
        with jsm.refused(error, str(unknown)):
            jsm.call(name, **arguments)


# Transactions -------------------------------------------------------------------------------------


def _wrong(case: Case, jsm: Sql) -> dict[str, Any] | None:
    """Arguments that are refused once the procedure has begun its work, if it has any."""
    for parameter, error in case.unknown.items():
        if error is not None:
            return {**case.arguments(jsm), parameter: NOBODY if parameter != "attribute_type" else 99}
    return None


_REFUSABLE = sorted(
    {name for name in WRITING if any(CASES[name].unknown.values())}
    | {"log_events", "log_running", "log_done"}
)


@each_writing
@pytest.mark.parametrize("autocommit", [True, False])
def test_joins_its_callers_transaction(
    open_as: Callable[..., Sql], jsm: Sql, admin: Sql, name: str, autocommit: bool
) -> None:
    arguments = CASES[name].arguments(jsm)
    caller = open_as("jsm", autocommit=autocommit)
    with admin.unchanged():
        if autocommit:
            caller.raw("START TRANSACTION")
        with admin.unchanged():
            make_dag(caller)
            caller.call(name, **arguments)
        caller.raw("ROLLBACK")
    if autocommit:
        caller.raw("START TRANSACTION")
    caller.call(name, **arguments)
    caller.raw("COMMIT")


@pytest.mark.parametrize("name", _REFUSABLE)
def test_an_error_inside_keeps_its_callers_earlier_work(jsm: Sql, admin: Sql, name: str) -> None:
    case = CASES[name]
    good = case.arguments(jsm)
    wrong = _wrong(case, jsm) or {**good, next(iter(good)): [1] * 10001}
    mark = fresh("mark")
    before = admin.snapshot()
    jsm.raw("START TRANSACTION")
    make_dag(jsm, dag_hash=mark)
    with pytest.raises(Exception, match=r"[A-Z_]+: "):
        jsm.call(name, **wrong)
    assert admin.snapshot() == before, "the caller's work was not committed"
    # and the transaction goes on
    jsm.call(name, **good)
    make_dag(jsm, dag_hash=mark)
    jsm.raw("COMMIT")
    assert admin.one("SELECT COUNT(*) FROM task_dag WHERE dag_hash=%s", mark) == 2


@pytest.mark.parametrize("name", _REFUSABLE)
def test_leaves_no_transaction_open_after_an_error(jsm: Sql, admin: Sql, name: str) -> None:
    case = CASES[name]
    good = case.arguments(jsm)
    wrong = _wrong(case, jsm) or {**good, next(iter(good)): [1] * 10001}
    with admin.unchanged(), pytest.raises(Exception, match=r"[A-Z_]+: "):
        jsm.call(name, **wrong)
    # what comes next is committed at once, and no row is locked
    mark = fresh("mark")
    jsm.raw("INSERT INTO task_dag (dag_hash, user) VALUES (%s, 'ann')", mark)
    assert admin.one("SELECT COUNT(*) FROM task_dag WHERE dag_hash=%s", mark) == 1
    for table in ("task_dag", "workflow", "workflow_run", "job", "job_instance", "change_shard"):
        admin.raw(f"SELECT 1 FROM {table} FOR UPDATE NOWAIT")


@each_writing
def test_leaves_no_lock_after_its_work(jsm: Sql, admin: Sql, name: str) -> None:
    jsm.call(name, **CASES[name].arguments(jsm))
    for table in ("task_dag", "workflow", "workflow_run", "job", "job_instance", "change_shard"):
        admin.raw(f"SELECT 1 FROM {table} FOR UPDATE NOWAIT")


def test_a_callers_savepoints_stay(jsm: Sql, admin: Sql) -> None:
    job_id, other = make_job(jsm), make_job(jsm)
    jsm.raw("START TRANSACTION")
    jsm.raw("SAVEPOINT mine")
    jsm.call("queue_job", job_id=job_id)
    with jsm.refused("UNKNOWN_JOB"):
        jsm.call("queue_job", job_id=NOBODY)
    jsm.raw("ROLLBACK TO SAVEPOINT mine")
    jsm.call("queue_job", job_id=other)
    jsm.raw("COMMIT")
    assert statuses(admin, [job_id, other]) == "GQ"


def test_many_calls_in_one_transaction(jsm: Sql, admin: Sql) -> None:
    with admin.unchanged():
        jsm.raw("START TRANSACTION")
        dag_id, jobs = make_jobs(jsm, 3, [(0, 1), (1, 2)])
        jsm.call("queue_jobs", dag_id=dag_id)
        for job_id in jobs:
            make_attempt(jsm, job_id, "D")
        jsm.raw("ROLLBACK")


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
@pytest.mark.parametrize("name", WRITING)
def test_whatever_the_sessions_isolation_level(jsm: Sql, admin: Sql, name: str, level: str) -> None:
    arguments = CASES[name].arguments(jsm)
    jsm.raw(f"SET SESSION TRANSACTION ISOLATION LEVEL {level}")
    answer = jsm.call(name, **arguments)
    if isinstance(answer, dict):
        assert set(answer) == CASES[name].answer


# Parameters left out keep what is stored ----------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "at", "given"),
    [
        ("log_running", "R", {}),
        ("log_running", "R", {"nodename": "new"}),
        ("log_running", "R", {"process_group_id": 99}),
        ("log_running", "R", {"executor_id": "new"}),
        ("log_done", "R", {}),
        ("log_done", "R", {"nodename": "new"}),
        ("log_done", "R", {"executor_id": "new"}),
        ("log_error", "R", {"error_message": "x"}),
        ("log_error", "R", {"error_message": "x", "nodename": "new"}),
        ("log_error", "R", {"error_message": "x", "executor_id": "new"}),
        ("log_done", "R", {"wallclock": "new", "cpu": "new"}),
        ("log_done", "D", {"usage_str": "new"}),
        ("log_error", "R", {"error_message": "x", "maxvmem": "new", "io": "new"}),
        ("log_warning", "R", {"error_message": "x"}),
        ("log_warning", "R", {"error_message": "x", "nodename": "new", "usage_str": "new"}),
        ("log_usage", "R", {}),
        ("log_usage", "R", {"usage_str": "new"}),
        ("log_usage", "D", {"wallclock": "new"}),
        ("log_usage", "E", {"maxvmem": "new"}),
        ("log_usage", "R", {"cpu": "new"}),
        ("log_usage", "R", {"io": "new"}),
        ("log_executor_id", "R", {"executor_id": "new"}),
        ("log_nodename", "D", {"nodename": "new"}),
        ("log_job_instance_heartbeat", "R", {}),
        ("log_job_instance_heartbeat", "R", {"lease_seconds": 99}),
    ],
)
@pytest.mark.parametrize("how", ["call", "event"])
def test_what_is_left_out_stays(
    jsm: Sql, admin: Sql, name: str, at: str, given: dict[str, Any], how: str
) -> None:
    job_id = make_job(jsm, "Q")
    instance = make_attempt(jsm, job_id, "B", lease_seconds=50)
    jsm.call("log_running", job_instance_id=instance, nodename="old", process_group_id=7, executor_id="old")
    figures = dict.fromkeys(("usage_str", "wallclock", "maxvmem", "cpu", "io"), "old")
    jsm.call("log_usage", job_instance_id=instance, **figures)
    if at == "D":
        jsm.call("log_done", job_instance_id=instance)
    elif at == "E":
        jsm.call("log_error", job_instance_id=instance, error_message="x")
    before = admin.instance(instance)
    if how == "call":
        jsm.call(name, job_instance_id=instance, **given)
    else:
        event = {"log_job_instance_heartbeat": "heartbeat"}.get(name, name.removeprefix("log_"))
        (outcome,) = jsm.call("log_events", events=[{"event": event, "job_instance_id": instance, **given}])[
            "outcomes"
        ]
        assert outcome == {"code": "OK"}
    after = admin.instance(instance)
    moved = {"status", "status_date", "ended_date", "report_by_date", "error_message"}
    expected = {k: v for k, v in {**before, **given}.items() if k not in moved}
    assert {k: v for k, v in after.items() if k not in moved} == expected


def test_add_job_defaults(jsm: Sql, admin: Sql) -> None:
    dag_id = make_dag(jsm)
    job = jsm.call("add_job", dag_id=dag_id, name="j", job_hash="1", command="c")["job_dct"]
    assert job == {
        "dag_id": dag_id,
        "job_id": job["job_id"],
        "name": "j",
        "tag": None,
        "job_hash": "1",
        "command": "c",
        "status": "G",
        "slots": 1,
        "mem_free": 2,
        "num_attempts": 0,
        "max_attempts": 1,
        "context_args": "{}",
        "last_nodename": None,
        "last_process_group_id": None,
    }
    # found again, whatever else is said about it
    again = jsm.call("add_job", dag_id=dag_id, name="k", job_hash="1", command="d", slots=9)["job_dct"]
    assert again == job
    # and of another dag, another job
    other = jsm.call("add_job", dag_id=make_dag(jsm), name="j", job_hash="1", command="c")["job_dct"]
    assert other["job_id"] != job["job_id"]


def test_a_job_without_a_dag(jsm: Sql, admin: Sql) -> None:
    key = fresh("key")
    given = {"name": "j", "job_hash": "1", "command": "c", "request_key": key}
    job = jsm.call("add_job", **given)["job_dct"]
    assert job["dag_id"] is None
    assert jsm.call("add_job", **given)["job_dct"] == job
    jsm.call("queue_job", job_id=job["job_id"])
    instance = make_attempt(jsm, job["job_id"], "R")
    answer = jsm.call("log_done", job_instance_id=instance)
    assert answer["message"].endswith(f'[{job["job_id"]}, "D"]')


def test_an_attempts_number_is_the_key_of_the_call(jsm: Sql, admin: Sql) -> None:
    job_id = make_job(jsm, "Q")
    given = {"job_id": job_id, "executor_type": "X"}
    first = jsm.call("add_job_instance", **given, attempt_number=1)
    assert jsm.call("add_job_instance", **given, attempt_number=1) == first
    with admin.unchanged():
        with jsm.refused("JOB_NOT_QUEUED"):
            jsm.call("add_job_instance", **given)
        with jsm.refused("JOB_NOT_QUEUED"):
            jsm.call("add_job_instance", **given, attempt_number=2)
    jsm.call("log_error", job_instance_id=first["job_instance_id"], error_message="x")
    with admin.unchanged(), jsm.refused("ATTEMPT_NUMBER_CONFLICT"):
        jsm.call("add_job_instance", **given, attempt_number=1)
    second = jsm.call("add_job_instance", **given, attempt_number=2)
    assert admin.instance(second["job_instance_id"])["attempt_number"] == 2
    # the count goes on over a reset, so a late repeat never makes an attempt of a new life
    jsm.call("reset_job", job_id=job_id)
    jsm.call("queue_job", job_id=job_id)
    with jsm.refused("ATTEMPT_NUMBER_CONFLICT"):
        jsm.call("add_job_instance", **given, attempt_number=1)
    third = jsm.call("add_job_instance", **given, attempt_number=3)
    assert admin.job(job_id)["num_attempts"] == 1
    assert admin.instance(third["job_instance_id"])["attempt_number"] == 3


def test_an_instance_belongs_to_the_newest_run(jsm: Sql, admin: Sql) -> None:
    workflow = make_workflow(jsm)
    dag_id = admin.row("workflow", workflow)["dag_id"]
    first = make_attempt(jsm, make_job(jsm, "Q", dag_id=dag_id))
    assert admin.instance(first)["workflow_run_id"] is None
    run = make_run(jsm, workflow_id=workflow)
    assert admin.instance(make_attempt(jsm, make_job(jsm, "Q", dag_id=dag_id)))["workflow_run_id"] == run
    run = make_run(jsm, workflow_id=workflow)
    make_job(jsm, "Q", dag_id=dag_id)
    (claimed,) = jsm.call("claim_jobs", executor_type="X", dag_id=dag_id)["job_instances"]
    assert claimed["workflow_run_id"] == run


# retry_job, reset_job, reset_incomplete_jobs ------------------------------------------------------


def test_retry_job(jsm: Sql, admin: Sql) -> None:
    job_id = make_job(jsm, "F")
    history = admin.history(job_id)
    job = jsm.call("retry_job", job_id=job_id)["job_dct"]
    assert (job["status"], job["num_attempts"], job["max_attempts"]) == ("Q", 1, 2)
    assert admin.history(job_id) == history + "Q"
    make_attempt(jsm, job_id, "E")
    with admin.unchanged(), jsm.refused("ATTEMPTS_EXHAUSTED"):
        jsm.call("retry_job", job_id=job_id, max_attempts=2)
    job = jsm.call("retry_job", job_id=job_id, max_attempts=5)["job_dct"]
    assert (job["status"], job["num_attempts"], job["max_attempts"]) == ("Q", 2, 5)
    make_attempt(jsm, job_id, "D")
    assert admin.history(job_id) == "GQIREFQIREFQIRD"
    with admin.unchanged(), jsm.refused("ILLEGAL_TRANSITION"):
        jsm.call("retry_job", job_id=job_id)


def test_a_retried_job_releases_its_downstreams(jsm: Sql, admin: Sql) -> None:
    _, jobs = make_jobs(jsm, 2, [(0, 1)], max_attempts=1)
    jsm.call("queue_job", job_id=jobs[0])
    make_attempt(jsm, jobs[0], "E")
    assert statuses(admin, jobs) == "FG"
    jsm.call("retry_job", job_id=jobs[0])
    make_attempt(jsm, jobs[0], "D")
    assert statuses(admin, jobs) == "DQ"


@pytest.mark.parametrize("at", "GQIRFD")
def test_reset_job(jsm: Sql, admin: Sql, at: str) -> None:
    job_id = make_job(jsm, at)
    before = admin.job(job_id)
    jsm.call("reset_job", job_id=job_id)
    job = admin.job(job_id)
    assert (job["status"], job["num_attempts"]) == ("G", 0)
    assert (job["status_date"] > before["status_date"]) is (at != "G"), "a reset is a change like others"
    assert job["attempts_before_reset"] == before["num_attempts"]
    rows = admin.raw(
        "SELECT status, error_message, ended_date IS NULL, report_by_date FROM job_instance WHERE job_id=%s",
        job_id,
    )
    if at in "IR":
        assert rows == [("E", "Job RESET requested", 0, None)]
    elif at == "D":
        assert rows[0][0] == "D", "what was done stays in its history as done"
    errors = admin.one(
        "SELECT COUNT(*) FROM job_instance_error_log JOIN job_instance USING (job_instance_id)"
        " WHERE job_id=%s",
        job_id,
    )
    assert errors == (1 if at in "IRF" else 0)
    # it can be run again, with all of its attempts
    jsm.call("queue_job", job_id=job_id)
    make_attempt(jsm, job_id, "D")
    assert statuses(admin, [job_id]) == "D"


def test_reset_job_resets_what_is_downstream_first(jsm: Sql, admin: Sql) -> None:
    # 0 - 1 - 3, 0 - 2 - 3 - 4, 5 apart
    dag_id, jobs = make_jobs(jsm, 6, [(0, 1), (0, 2), (1, 3), (2, 3), (3, 4)])
    jsm.call("queue_jobs", dag_id=dag_id)
    for job_id in jobs[:4]:
        make_attempt(jsm, job_id, "D")
    live = make_attempt(jsm, jobs[4], "R")
    apart = make_attempt(jsm, jobs[5], "R")
    assert statuses(admin, jobs) == "DDDDRR"
    jsm.call("reset_job", job_id=jobs[1])
    assert statuses(admin, jobs) == "DGDGGR"
    assert admin.instance(live)["status"] == "E"
    assert admin.instance(apart)["status"] == "R"
    assert admin.raw("SELECT upstreams_pending FROM job_gate ORDER BY job_id DESC LIMIT 4") == [
        (1,),
        (1,),
        (0,),
        (0,),
    ]
    assert jsm.call("queue_jobs", dag_id=dag_id) == {"num_queued": 1, "num_left": 0}
    make_attempt(jsm, jobs[1], "D")
    assert statuses(admin, jobs) == "DDDQGR"


def test_reset_incomplete_jobs(jsm: Sql, admin: Sql) -> None:
    dag_id = _failing_dag(jsm)
    jobs = [job_id for (job_id,) in admin.raw("SELECT job_id FROM job WHERE dag_id=%s ORDER BY 1", dag_id)]
    other = make_job(jsm, "R")
    done = admin.job(jobs[-1])
    jsm.call("reset_incomplete_jobs", dag_id=dag_id)
    assert statuses(admin, jobs) == "GGGGGD"
    assert admin.job(jobs[-1]) == done
    assert statuses(admin, [other]) == "R"
    rows = admin.raw(
        "SELECT job_instance.status, COUNT(*) FROM job JOIN job_instance USING (job_id)"
        " WHERE dag_id=%s GROUP BY 1 ORDER BY 1",
        dag_id,
    )
    assert rows == [("D", 1), ("E", 3)]
    assert all(admin.job(job_id)["num_attempts"] == 0 for job_id in jobs[:-1])


def test_reset_incomplete_jobs_with_edges(jsm: Sql, admin: Sql) -> None:
    dag_id, jobs = make_jobs(jsm, 4, [(0, 1), (1, 2), (2, 3)])
    jsm.call("queue_jobs", dag_id=dag_id)
    make_attempt(jsm, jobs[0], "D")
    make_attempt(jsm, jobs[1], "R")
    jsm.call("reset_incomplete_jobs", dag_id=dag_id)
    assert statuses(admin, jobs) == "DGGG"
    assert jsm.call("queue_jobs", dag_id=dag_id) == {"num_queued": 1, "num_left": 0}
    for job_id in jobs[1:]:
        make_attempt(jsm, job_id, "D")
    assert statuses(admin, jobs) == "DDDD"


# Workflows and runs -------------------------------------------------------------------------------


def test_add_workflow(jsm: Sql, admin: Sql) -> None:
    dag_id, hashed = make_dag(jsm), fresh()
    given = {"dag_id": dag_id, "workflow_args": "v1", "name": "wf", "user": "ann"}
    made = jsm.call("add_workflow", **given, workflow_hash=hashed)["workflow_dct"]
    assert made == {
        "id": made["id"],
        "dag_id": dag_id,
        "workflow_args": "v1",
        "workflow_hash": hashed,
        "description": "",
        "name": "wf",
        "user": "ann",
        "status": "C",
    }
    # the same dag and args: what is already there
    assert (
        jsm.call("add_workflow", **{**given, "workflow_hash": fresh(), "name": "x"})["workflow_dct"] == made
    )
    with admin.unchanged(), jsm.refused("WORKFLOW_HASH_TAKEN"):
        jsm.call("add_workflow", **{**given, "workflow_args": "v2"}, workflow_hash=hashed)
    # a transaction goes on after that refusal
    jsm.raw("START TRANSACTION")
    other = make_dag(jsm)
    with jsm.refused("WORKFLOW_HASH_TAKEN"):
        jsm.call("add_workflow", **{**given, "dag_id": other}, workflow_hash=hashed)
    kept = make_workflow(jsm, dag_id=other)
    jsm.raw("COMMIT")
    assert admin.row("workflow", kept)["dag_id"] == other


def test_update_workflow_run_takes_either_name(jsm: Sql, admin: Sql) -> None:
    first, second = make_run(jsm), make_run(jsm)
    assert jsm.call("update_workflow_run", wfr_id=first, status="D") == {"status": "D"}
    assert jsm.call("update_workflow_run", workflow_run_id=second, status="E") == {"status": "E"}
    assert admin.row("workflow_run", second)["status"] == "E"


def test_add_workflow_run_keeps_what_it_is_told(jsm: Sql, admin: Sql) -> None:
    given = {
        "user": "ann",
        "hostname": "login1",
        "pid": "000",
        "stderr": "/e",
        "stdout": "/o",
        "working_dir": "/w",
        "project": "p",
        "slack_channel": "#c",
        "executor_class": "SGEExecutor",
    }
    run = make_run(jsm, **given)
    row = admin.row("workflow_run", run)
    assert row.items() >= {**given, "pid": 0, "status": "R"}.items()
    assert row["created_date"] == row["status_date"] == row["heartbeat_date"], "fresh when it starts"


def test_log_heartbeat(jsm: Sql, admin: Sql) -> None:
    workflow = make_workflow(jsm)
    dag_id = admin.row("workflow", workflow)["dag_id"]
    old, run = make_run(jsm, workflow_id=workflow), make_run(jsm, workflow_id=workflow)
    other = make_run(jsm)
    before = {r: admin.row("workflow_run", r) for r in (old, run, other)}
    dag = admin.row("task_dag", dag_id)
    assert jsm.call("log_heartbeat", dag_id=dag_id) == {}
    after = {r: admin.row("workflow_run", r) for r in (old, run, other)}
    assert after[old] == before[old] and after[other] == before[other]
    assert after[run]["heartbeat_date"] > before[run]["heartbeat_date"]
    assert {**after[run], "heartbeat_date": 0} == {**before[run], "heartbeat_date": 0}
    assert admin.row("task_dag", dag_id)["heartbeat_date"] > dag["heartbeat_date"]


@pytest.mark.parametrize("value", ["12", "-3", "+4", "007"])
def test_whole_numbers(jsm: Sql, value: str) -> None:
    jsm.call("add_job_attribute", job_id=make_job(jsm), attribute_type=1, value=value)


@pytest.mark.parametrize("kind", ["job", "workflow", "workflow_run"])
@pytest.mark.parametrize(
    "value", ["", " ", "1.5", "1e3", "0x1f", "one", "1 2", "12a", "\N{FULLWIDTH DIGIT ONE}"]
)
def test_no_whole_numbers(jsm: Sql, admin: Sql, kind: str, value: str) -> None:
    id_ = {"job": make_job, "workflow": make_workflow, "workflow_run": make_run}[kind](jsm)
    with admin.unchanged(), jsm.refused("INVALID_ATTRIBUTE_VALUE"):
        jsm.call(f"add_{kind}_attribute", **{f"{kind}_id": id_, "attribute_type": 1, "value": value})
    with admin.unchanged(), jsm.refused("INVALID_ATTRIBUTE_VALUE"):
        jsm.raw(
            f"INSERT INTO {kind}_attribute ({kind}_id, attribute_type, value) VALUES (%s, 1, %s)", id_, value
        )
    made = jsm.call(f"add_{kind}_attribute", **{f"{kind}_id": id_, "attribute_type": 8, "value": value})
    stored = admin.row(f"{kind}_attribute", made[f"{kind}_attribute_id"])
    assert stored["value"] == value
    with admin.unchanged(), admin.refused("INVALID_ATTRIBUTE_VALUE"):
        admin.raw(
            f"UPDATE {kind}_attribute SET attribute_type=1 WHERE {kind}_attribute_id=%s",
            made[f"{kind}_attribute_id"],
        )
    with admin.unchanged(), admin.refused("UNKNOWN_ATTRIBUTE_TYPE"):
        admin.raw(
            f"UPDATE {kind}_attribute SET attribute_type=99 WHERE {kind}_attribute_id=%s",
            made[f"{kind}_attribute_id"],
        )


def test_the_same_twelve_attribute_types(admin: Sql) -> None:
    rows = admin.raw("SELECT attribute_type, name, value_type FROM job_attribute_type ORDER BY 1")
    assert len(rows) == 12 and rows[7] == (8, "TAG", "string")
    for kind in ("workflow", "workflow_run"):
        assert (
            admin.raw(f"SELECT attribute_type, name, value_type FROM {kind}_attribute_type ORDER BY 1")
            == rows
        )
