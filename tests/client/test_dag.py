"""The tasks of a workflow: their order, their digest, and the calls that register them."""

from __future__ import annotations

import hashlib
import random

import pytest

from jobmon import BashTask, Task
from jobmon.client import dag
from jobmon.client.dag import TaskDag, batches
from jobmon.client.errors import CyclicWorkflow, DuplicateTask, InvalidWorkflow, MissingUpstream


def make_dag(tasks: list[Task]) -> TaskDag:
    made = TaskDag()
    for task in tasks:
        made.add_task(task)
    return made


def chain(length: int) -> list[Task]:
    tasks: list[Task] = []
    for number in range(length):
        tasks.append(BashTask(f"echo {number}", upstream_tasks=tasks[-1:]))
    return tasks


def emu_digest(tasks: list[Task]) -> str:
    """The dag_hash, word for word as emu's clients make it."""
    downstreams: dict[int, set[int]] = {task.job_hash: set() for task in tasks}
    for task in tasks:
        for upstream in task.upstream_tasks:
            downstreams[upstream.job_hash].add(task.job_hash)
    sha = hashlib.sha1()
    for job_hash in sorted(downstreams):
        sha.update(f"{job_hash:x}".encode())
        for downstream in sorted(downstreams[job_hash]):
            sha.update(f"{downstream:x}".encode())
    return sha.hexdigest()


def test_the_order_in_which_tasks_were_added_is_kept() -> None:
    a, b, c, d = (BashTask(f"echo {name}") for name in "abcd")
    d.add_upstream(a)
    assert make_dag([c, a, d, b]).ordered() == [c, a, d, b]


def test_upstreams_come_first_whatever_the_order() -> None:
    randomly = random.Random(1)
    for _ in range(50):
        tasks = [BashTask(f"echo {number}") for number in range(30)]
        for number, task in enumerate(tasks):
            for upstream in randomly.sample(tasks[:number], min(number, randomly.randrange(4))):
                task.add_upstream(upstream)
        randomly.shuffle(tasks)
        ordered = make_dag(tasks).ordered()
        assert sorted(task.job_hash for task in ordered) == sorted(task.job_hash for task in tasks)
        for number, task in enumerate(ordered):
            assert set(task.upstream_tasks) <= set(ordered[:number])


def test_a_circle_is_named() -> None:
    a, b, c = (BashTask(f"echo {name}", name=name) for name in "abc")
    a.add_upstream(c)
    b.add_upstream(a)
    c.add_upstream(b)
    with pytest.raises(CyclicWorkflow) as caught:
        make_dag([BashTask("true"), a, b, c]).ordered()
    names = caught.value.message.partition(": ")[2].split(" -> ")
    assert len(names) == 4 and names[0] == names[3] and set(names) == {"'a'", "'b'", "'c'"}


def test_a_task_that_waits_for_itself_is_a_circle() -> None:
    task = BashTask("true")
    task.add_upstream(task)
    with pytest.raises(CyclicWorkflow, match="'true' -> 'true'"):
        make_dag([task]).ordered()


def test_a_large_circle_is_cut() -> None:
    tasks = chain(1000)
    tasks[0].add_upstream(tasks[-1])
    with pytest.raises(CyclicWorkflow, match="more") as caught:
        make_dag(tasks).ordered()
    assert len(caught.value.message) < 1000


def test_two_tasks_with_one_command_are_refused_by_name() -> None:
    made = make_dag([BashTask("echo 1", name="first")])
    with pytest.raises(
        DuplicateTask, match=r"'second' has the same command as BashTask 'first': echo 1"
    ) as caught:
        made.add_task(BashTask("echo 1", name="second"))
    assert "env_variables" in caught.value.hint
    made.add_task(BashTask("echo 1", name="third", env_variables={"PART": 3}))
    assert len(made) == 2


def test_the_same_object_twice_is_one_task() -> None:
    task = BashTask("true")
    assert make_dag([task, task]).ordered() == [task]


def test_a_missing_upstream_is_named() -> None:
    missing = BashTask("echo up", name="up")
    with pytest.raises(MissingUpstream, match="'down' waits for BashTask 'up', which is not"):
        make_dag([BashTask("echo down", name="down", upstream_tasks=[missing])]).ordered()


def test_a_twin_of_an_upstream_is_no_upstream() -> None:
    tasks = [BashTask("echo up"), BashTask("echo down", upstream_tasks=[BashTask("echo up")])]
    with pytest.raises(MissingUpstream) as caught:
        make_dag(tasks).ordered()
    assert "same command" in caught.value.hint


def test_no_tasks_and_no_task_are_refused() -> None:
    with pytest.raises(InvalidWorkflow, match="no tasks"):
        TaskDag().ordered()
    with pytest.raises(InvalidWorkflow, match="not of str"):
        TaskDag().add_task("true")  # type: ignore[arg-type]


def test_the_digest_is_that_of_emu() -> None:
    randomly = random.Random(2)
    tasks = [BashTask(f"echo {number}") for number in range(200)]
    for number, task in enumerate(tasks):
        for upstream in randomly.sample(tasks[:number], min(number, randomly.randrange(5))):
            task.add_upstream(upstream)
    digest = make_dag(tasks).digest()
    assert digest == emu_digest(tasks)
    randomly.shuffle(tasks)
    assert make_dag(tasks).digest() == digest
    tasks[0].add_upstream(next(t for t in tasks if t is not tasks[0] and t not in tasks[0].upstream_tasks))
    assert make_dag(tasks).digest() != digest


def test_the_digest_is_that_of_the_commands_and_edges_alone() -> None:
    a = make_dag([BashTask("true", name="a", slots=1, max_attempts=2)])
    b = make_dag([BashTask("true", name="b", slots=9, max_attempts=1, tag="t")])
    assert a.digest() == b.digest() == hashlib.sha1(f"{BashTask('true').job_hash:x}".encode()).hexdigest()


def test_a_chain_of_100_000_tasks_in_any_order() -> None:
    tasks = chain(100_000)
    assert make_dag(tasks).ordered() == tasks
    backwards = make_dag(tasks[::-1])
    assert backwards.ordered() == tasks
    assert backwards.digest() == make_dag(tasks).digest()


def test_calls_have_a_thousand_jobs_each() -> None:
    made = list(batches(chain(2500)))
    assert [len(batch) for batch in made] == [1000, 1000, 500]
    assert [job["command"] for batch in made for job in batch] == [f"echo {n}" for n in range(2500)]
    assert made[1][0]["upstream_job_hashes"] == [made[0][-1]["job_hash"]]


def test_calls_are_not_too_large() -> None:
    tasks = [BashTask(f"echo {number} {'x' * 100_000}") for number in range(100)]
    made = list(batches(tasks))
    assert sum(map(len, made)) == 100
    assert all(sum(len(job["command"]) for job in batch) <= dag.BATCH_BYTES for batch in made)


def test_a_job_with_very_many_upstreams_stands_in_several_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dag, "MAX_EDGES", 10)
    tasks: list[Task] = [BashTask(f"echo {number}") for number in range(25)]
    last = BashTask("echo last", upstream_tasks=tasks)
    made = list(batches([*tasks, last]))
    parts = [job["upstream_job_hashes"] for batch in made for job in batch if job["command"] == "echo last"]
    assert [len(part) for part in parts] == [10, 10, 5]
    assert [number for part in parts for number in part] == [str(task.job_hash) for task in tasks]
    for batch in made:
        hashes = [job["job_hash"] for job in batch]
        assert len(set(hashes)) == len(hashes)


def test_what_is_said_of_a_job() -> None:
    up = BashTask("echo up")
    down = BashTask(
        "echo down", name="d", slots=2, mem_free=3, max_attempts=4, max_runtime=5, tag="t",
        upstream_tasks=[up], job_attributes={"TAG": "x"}, context_args={"queue": "long"},
    )  # fmt: skip
    ((first, second),) = batches([up, down])
    assert first == {
        "name": "echo up", "job_hash": str(up.job_hash), "command": "echo up", "slots": 1, "mem_free": 2,
        "max_attempts": 3,
    }  # fmt: skip
    assert second == {
        "name": "d", "job_hash": str(down.job_hash), "command": "echo down", "slots": 2, "mem_free": 3,
        "max_attempts": 4, "max_runtime": 5, "tag": "t", "context_args": '{"queue": "long"}',
        "upstream_job_hashes": [str(up.job_hash)], "attributes": [{"attribute_type": 8, "value": "x"}],
    }  # fmt: skip
