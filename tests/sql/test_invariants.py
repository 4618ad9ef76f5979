"""Invariants of docs/invariants.md that no other test holds."""

from __future__ import annotations

from typing import Any

from sql_helpers import Sql, claim, make_dag, make_job, make_jobs, make_run, make_workflow, outcomes

# History before what it tells of, children before their parents.
PRUNE = """
DELETE FROM job_status_log WHERE dag_id = {dag}
DELETE FROM job_instance_status_log WHERE job_instance_id IN ({instances})
DELETE FROM job_instance_error_log WHERE job_instance_id IN ({instances})
DELETE FROM job_instance WHERE job_id IN ({jobs})
DELETE FROM job_edge WHERE downstream_job_id IN ({jobs})
DELETE FROM job_gate WHERE job_id IN ({jobs})
DELETE FROM job_attribute WHERE job_id IN ({jobs})
DELETE FROM job WHERE dag_id = {dag}
DELETE FROM workflow_run WHERE workflow_id IN (SELECT workflow_id FROM workflow WHERE dag_id = {dag})
DELETE FROM workflow WHERE dag_id = {dag}
DELETE FROM task_dag WHERE dag_id = {dag}
"""


def test_finished_history_can_be_purged_by_plain_statements(jsm: Sql, admin: Sql) -> None:
    """No trigger or key makes a purge of an old dag impossible, and the others stay as they are."""
    ended: list[tuple[int, list[int]]] = []
    for _ in range(2):
        dag_id, jobs = make_jobs(jsm, 4, [(0, 2), (1, 2), (2, 3)])
        make_run(jsm, workflow_id=make_workflow(jsm, dag_id=dag_id))
        jsm.call("add_job_attribute", job_id=jobs[0], attribute_type=8, value="x")
        jsm.call("queue_jobs", dag_id=dag_id)
        while live := claim(jsm, dag_id):
            events = [{"event": word, "job_instance_id": i} for i in live for word in ("running", "done")]
            assert set(outcomes(jsm, events)) == {"OK"}
        ended.append((dag_id, jobs))
    (old, old_jobs), (_, kept_jobs) = ended
    ids = ", ".join(map(str, old_jobs))
    found = admin.raw(f"SELECT job_instance_id FROM job_instance WHERE job_id IN ({ids})")
    instances = ", ".join(str(row[0]) for row in found)
    kept = [admin.history(job_id) for job_id in kept_jobs]
    for statement in PRUNE.strip().splitlines():
        admin.raw(statement.format(dag=old, jobs=ids, instances=instances))
    assert [admin.history(job_id) for job_id in kept_jobs] == kept
    assert admin.one("SELECT COUNT(*) FROM job WHERE dag_id = %s", old) == 0


def test_one_jobs_resources_are_its_own(jsm: Sql, admin: Sql) -> None:
    dag_id = make_dag(jsm)
    first, second = (make_job(jsm, dag_id=dag_id, slots=2, mem_free=4, max_runtime=60) for _ in range(2))
    before = admin.job(second)
    admin.raw("UPDATE job SET slots = 8, mem_free = 64, max_runtime = 7200 WHERE job_id = %s", first)
    changed: dict[str, Any] = admin.job(first)
    assert (changed["slots"], changed["mem_free"], changed["max_runtime"]) == (8, 64, 7200)
    assert admin.job(second) == before
