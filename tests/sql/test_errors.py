"""api_error: each row is raised by a real statement, and no other error is raised by name."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pymysql
import pytest
from sql_helpers import (
    SQL,
    Facts,
    Sql,
    fresh,
    make_attempt,
    make_dag,
    make_instance,
    make_job,
    make_jobs,
    make_run,
    make_workflow,
    without_triggers,
)

NOBODY = 10**15
# Each makes what it needs, and gives what must be refused.
CASES: dict[str, Callable[[Sql, Sql], Callable[[], Any]]] = {}


def case(name: str) -> Callable[[Callable[[Sql, Sql], Callable[[], Any]]], None]:
    def keep(function: Callable[[Sql, Sql], Callable[[], Any]]) -> None:
        CASES[name] = function

    return keep


@case("MISSING_PARAMETER")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    return lambda: jsm.call("log_done")


@case("INVALID_PARAMETER")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    dag_id = make_dag(jsm)
    jobs = [{"name": "a", "job_hash": "1", "command": "c", "upstream_job_hashes": "2"}]
    return lambda: jsm.call("add_jobs", dag_id=dag_id, jobs=jobs)


@case("INVALID_JSON_PARAMETER")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    return lambda: jsm.call("log_events", events="{}")


@case("TOO_MANY_ITEMS")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    return lambda: jsm.call("log_events", events=[1] * 10001)


@case("UNKNOWN_STATUS")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    workflow = make_workflow(jsm)
    return lambda: jsm.call("update_workflow", wf_id=workflow, status="running")


@case("UNKNOWN_ATTRIBUTE_TYPE")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    job_id = make_job(jsm)
    return lambda: jsm.call("add_job_attribute", job_id=job_id, attribute_type=99, value="1")


@case("INVALID_ATTRIBUTE_VALUE")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    job_id = make_job(jsm)
    return lambda: jsm.call("add_job_attribute", job_id=job_id, attribute_type=1, value="many")


@case("DUPLICATE_JOB_HASH")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    dag_id = make_dag(jsm)
    jobs = [{"name": name, "job_hash": "1", "command": "c"} for name in "ab"]
    return lambda: jsm.call("add_jobs", dag_id=dag_id, jobs=jobs)


@case("UNKNOWN_UPSTREAM")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    dag_id = make_dag(jsm)
    jobs = [{"name": "a", "job_hash": "1", "command": "c", "upstream_job_hashes": ["2"]}]
    return lambda: jsm.call("add_jobs", dag_id=dag_id, jobs=jobs)


@case("UPSTREAM_AFTER_DOWNSTREAM")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    _, (first, second) = make_jobs(jsm, 2)
    return lambda: jsm.raw("INSERT INTO job_edge VALUES (%s, %s)", second, first)


@case("EDGE_ACROSS_DAGS")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    first, second = make_job(jsm), make_job(jsm)
    return lambda: jsm.raw("INSERT INTO job_edge VALUES (%s, %s)", first, second)


@case("UNKNOWN_DAG")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    return lambda: jsm.call("claim_jobs", executor_type="X", dag_id=NOBODY)


@case("UNKNOWN_JOB")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    return lambda: jsm.call("queue_job", job_id=NOBODY)


@case("UNKNOWN_JOB_INSTANCE")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    return lambda: jsm.call("log_done", job_instance_id=NOBODY)


@case("UNKNOWN_WORKFLOW")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    return lambda: jsm.call("update_workflow", wf_id=NOBODY, status="D")


@case("UNKNOWN_WORKFLOW_RUN")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    return lambda: jsm.call("update_workflow_run", wfr_id=NOBODY, status="D")


@case("ILLEGAL_TRANSITION")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    _, instance = make_instance(jsm, "B")
    return lambda: jsm.call("log_done", job_instance_id=instance)


@case("JOB_NOT_QUEUED")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    job_id = make_job(jsm)
    return lambda: jsm.call("add_job_instance", job_id=job_id, executor_type="X")


@case("JOB_INSTANCE_ENDED")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    _, instance = make_instance(jsm, "D")
    return lambda: jsm.call("log_error", job_instance_id=instance, error_message="x")


@case("JOB_INSTANCE_SUPERSEDED")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    job_id, instance = make_instance(jsm, "E")
    make_attempt(jsm, job_id)
    return lambda: jsm.call("log_done", job_instance_id=instance)


@case("JOB_FOLLOWS_ITS_INSTANCE")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    job_id = make_job(jsm, "R")
    return lambda: admin.raw("UPDATE job SET status='D' WHERE job_id=%s", job_id)


@case("UPSTREAM_NOT_DONE")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    _, jobs = make_jobs(jsm, 2, [(0, 1)])
    return lambda: jsm.call("queue_job", job_id=jobs[1])


@case("ATTEMPTS_EXHAUSTED")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    job_id = make_job(jsm, "F")
    return lambda: jsm.call("queue_job", job_id=job_id)


@case("DOWNSTREAM_NOT_REGISTERED")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    _, jobs = make_jobs(jsm, 2, [(0, 1)])
    jsm.call("queue_job", job_id=jobs[0])
    make_attempt(jsm, jobs[0], "D")
    return lambda: admin.raw("UPDATE job SET status='G' WHERE job_id=%s", jobs[0])


@case("JOB_NOT_REGISTERED")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    dag_id, jobs = make_jobs(jsm, 2)
    jsm.call("queue_jobs", dag_id=dag_id)
    return lambda: jsm.raw("INSERT INTO job_edge VALUES (%s, %s)", *jobs)


@case("ATTEMPT_NUMBER_CONFLICT")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    job_id = make_job(jsm, "Q")
    return lambda: jsm.call("add_job_instance", job_id=job_id, executor_type="X", attempt_number=2)


@case("JOB_NOT_LIVE")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    job_id = make_job(jsm, "Q")
    return lambda: jsm.call("kill_job", job_id=job_id)


@case("JOB_INSTANCE_STARTED")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    _, instance = make_instance(jsm)
    jsm.call("start_job_instance", job_instance_id=instance, executor_id="7")
    return lambda: jsm.call("start_job_instance", job_instance_id=instance, executor_id="8")


@case("WORKFLOW_HASH_TAKEN")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    taken = fresh()
    make_workflow(jsm, workflow_hash=taken)
    dag_id = make_dag(jsm)
    return lambda: make_workflow(jsm, dag_id=dag_id, workflow_hash=taken)


@case("WORKFLOW_RUN_ALIVE")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    workflow = make_workflow(jsm)
    make_run(jsm, workflow_id=workflow)
    return lambda: jsm.raw(
        "INSERT INTO workflow_run (workflow_id, user, hostname, pid) VALUES (%s, 'x', 'x', 1)", workflow
    )


@case("REQUEST_KEY_CONFLICT")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    key = fresh("key")
    make_dag(jsm, request_key=key)
    return lambda: jsm.call("claim_jobs", executor_type="X", request_key=key)


@case("WORKFLOW_RUN_ENDED")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    run = make_run(jsm, "D")
    return lambda: jsm.call("update_workflow_run", wfr_id=run, status="E")


@case("DAG_PRUNED")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    job_id = make_job(jsm)
    dag_id = admin.job(job_id)["dag_id"]
    assert admin.call("start_prune", dag_id=dag_id, older_than_seconds=0, statuses="C")["started"]
    return lambda: jsm.call("queue_job", job_id=job_id)


@case("IMMUTABLE_COLUMN")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    make_dag(jsm)
    return lambda: jsm.raw("UPDATE task_dag SET dag_hash = 'x'")


@case("APPEND_ONLY")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    make_job(jsm)
    return lambda: admin.raw("UPDATE job_status_log SET status = 'D'")


@case("COUNTED_COLUMN")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    make_job(jsm)
    return lambda: jsm.raw("UPDATE job SET num_attempts = 9")


@case("WRONG_FIRST_STATUS")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    return lambda: jsm.raw("INSERT INTO job (job_hash, name, command, status) VALUES ('x', 'x', 'x', 'D')")


@case("NULL_NOT_ALLOWED")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    dag_id = make_dag(jsm)
    return lambda: jsm.call("add_jobs", dag_id=dag_id, jobs=[{"name": "a", "job_hash": "1"}])


@case("VALUE_OUT_OF_RANGE")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    return lambda: jsm.call("queue_job", job_id=-1)


@case("INVALID_VALUE")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    return lambda: jsm.call("queue_job", job_id="first")


@case("VALUE_TOO_LONG")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    return lambda: make_dag(jsm, name="x" * 151)


@case("UNKNOWN_REFERENCE")
def _(jsm: Sql, admin: Sql) -> Callable[[], Any]:
    return lambda: jsm.raw(
        "INSERT INTO job (dag_id, job_hash, name, command) VALUES (%s, 'x', 'x', 'x')", NOBODY
    )


# A job with attempts left goes from E to Q by itself, so only a job that was put to rest in E can meet this.
OUT_OF_REACH = {"ATTEMPTS_LEFT"}


@pytest.mark.parametrize("name", sorted(CASES))
def test_raised(jsm: Sql, admin: Sql, name: str) -> None:
    statement = CASES[name](jsm, admin)
    with admin.unchanged(), jsm.refused(name):
        statement()


def test_attempts_left(throwaway: Any, facts: Facts) -> None:
    jsm, admin = Sql(throwaway.connect("jsm"), facts), Sql(throwaway.connect("admin"), facts)
    make_job(jsm, "R")
    with without_triggers(admin, "job_before_update", "job_after_update"):
        admin.raw("UPDATE job SET status='E'")
    with admin.unchanged(), jsm.refused("ATTEMPTS_LEFT"):
        jsm.raw("UPDATE job SET status='F'")


def test_every_row_has_its_case(facts: Facts) -> None:
    assert set(facts.errors) == set(CASES) | OUT_OF_REACH


def test_rows_are_fit_for_http(jsm: Sql, admin: Sql) -> None:
    rows = admin.raw("SELECT errno, name, http_status, message, hint FROM api_error")
    for errno, name, http_status, message, hint in rows:
        assert re.fullmatch(r"[A-Z][A-Z_]+", name)
        # clients try again what is a 5xx, and a refusal must not be tried again
        assert 400 <= http_status < 500
        assert message.endswith(".") and hint.endswith(".")
        # PyMySQL reads it as a signed 16 bit number
        assert 1000 < errno < 2**15
    answered = {error["name"]: error for error in jsm.call("get_api_errors")}
    assert answered == {
        name: {"errno": errno, "name": name, "http_status": status, "message": message, "hint": hint}
        for errno, name, status, message, hint in rows
    }


# What the files say -------------------------------------------------------------------------------

SIGNAL = re.compile(
    r"(?:SET v_text =|DEFAULT) CONCAT\('(?P<prefix>[^']*)'|"
    r"MYSQL_ERRNO = (?P<errno>\d+),\s*MESSAGE_TEXT = (?:v_text|'(?P<text>[^']*)')"
)


@pytest.mark.parametrize("path", sorted(SQL.glob("*/*.sql")), ids=lambda path: path.stem)
def test_signals_and_headers_name_rows(facts: Facts, path: Any) -> None:
    text = path.read_text()
    names = {errno: name for name, errno in facts.errors.items()}
    prefix = None
    for found in SIGNAL.finditer(text):
        if found["errno"] is None:
            prefix = found["prefix"]
            continue
        name = names.get(int(found["errno"]))
        assert name, f"MYSQL_ERRNO {found['errno']} is no row of api_error"
        words = found["text"] if found["text"] is not None else prefix
        assert words and words.startswith(f"{name}: "), (name, words)
        assert len(words) < 128
    for errno in re.findall(r"\b32\d{3}\b", text):
        assert int(errno) in names, f"{errno} is no row of api_error"
    header = re.search(r"^Errors: (.*)$", text, re.MULTILINE)
    if header:
        for name in re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", re.sub(r"\([^)]*\)", "", header[1])):
            assert name in facts.errors, f"{name} in the header is no row of api_error"


def test_errors_are_raised_with_45000_only() -> None:
    for path in SQL.glob("*/*.sql"):
        for state in re.findall(r"SIGNAL SQLSTATE '(\w+)'", path.read_text()):
            assert state == "45000", path


def test_no_handler_swallows_deadlocks_or_timeouts() -> None:
    """1213 and 1205 are the callers' to repeat: no CONTINUE handler is for all errors."""
    for path in SQL.glob("*/*.sql"):
        for what in re.findall(r"DECLARE CONTINUE HANDLER FOR ([^\n]*)", path.read_text()):
            assert not re.search(r"SQLEXCEPTION|SQLSTATE '(40001|HY000)'|\b(1205|1213)\b", what), path


def test_every_public_procedure_takes_back_what_it_did(facts: Facts) -> None:
    for name in facts.public:
        text = (SQL / "procedures" / f"{name}.sql").read_text()
        if "MODIFIES SQL DATA" not in text:
            continue
        handler = text.index("DECLARE EXIT HANDLER FOR SQLEXCEPTION")
        assert "RESIGNAL;" in text[handler:], name
        assert "CALL begin_work(v_owns);" in text, name


def test_an_error_of_the_server_is_not_dressed_up(jsm: Sql) -> None:
    """What no rule raised comes through as it is: the shim says 500 and hides it."""
    with pytest.raises(pymysql.err.MySQLError) as caught:
        jsm.raw("CALL no_such_procedure()")
    assert caught.value.args[0] in (1305, 1370)
