"""Readers that poll what changed since, while writers commit late and out of the order of their ids."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from race_helpers import Database, Team, jobs_of, make_dag, make_jobs, wait_for_lock_waits

from jobmon.config import load_config
from jobmon.thin_jqs.app import create_app

WRITERS, SECONDS = 14, 4.0


@pytest.fixture
def jqs(race: Database) -> Iterator[Any]:
    """A test client of JQS."""
    config = load_config(env={**race.database.env(), "HOME": str(race.database.directory)})
    app = create_app(config)
    with app.test_client() as client:
        yield client
    relay = app.extensions["jobmon_relay"]
    relay.catalog.stop()
    relay._database.close()


class Reader:
    """Polls the changes by the cursor of JQS, a page at a time, and remembers what it was given."""

    def __init__(self, client: Any, limit: int, dag_id: int | None = None) -> None:
        self.client, self.cursor = client, ""
        self.arguments: dict[str, Any] = {"limit": limit}
        if dag_id is not None:
            self.arguments["dag_id"] = dag_id
        self.seen: Counter[int] = Counter()
        self.polls = 0

    def poll(self) -> int:
        """One page; gives the number of changes in it."""
        response = self.client.get("/get_job_changes", query_string={"cursor": self.cursor, **self.arguments})
        assert response.status_code == 200, response.text
        document = response.json
        self.cursor = document["cursor"]
        self.seen.update(change["change_id"] for change in document["job_changes"])
        self.polls += 1
        return len(document["job_changes"])

    def catch_up(self) -> None:
        """Poll until there is nothing more."""
        while self.poll():
            pass


class Naive:
    """What "all ids above the last one seen" would have got of the same changes."""

    def __init__(self, race: Database) -> None:
        self.conn = race.connect("admin")
        self.last = 0
        self.seen: set[int] = set()

    def poll(self) -> None:
        with self.conn.cursor() as cursor:
            cursor.execute(
                "SELECT job_status_log_id FROM job_status_log WHERE job_status_log_id > %s", (self.last,)
            )
            found = [int(row[0]) for row in cursor.fetchall()]
        self.seen.update(found)
        self.last = max([self.last, *found])


def everything(race: Database) -> set[int]:
    """The ids of the whole history."""
    return {int(row[0]) for row in race.query("SELECT job_status_log_id FROM job_status_log")}


def writer(race: Database, seed: int, end: threading.Event) -> Any:
    """Makes changes in transactions of one to four calls, some held open for a while, some rolled back."""

    def run() -> None:
        chance = random.Random(seed)
        conn = race.connect(autocommit=False)
        dag_id = make_dag(race, conn)
        conn.commit()
        number = 0
        while not end.is_set():
            for _ in range(chance.randint(1, 4)):
                number += 1
                document = race.once(
                    conn, "add_jobs", dag_id=dag_id, jobs=jobs_of(chance.randint(1, 3), prefix=f"{number}-")
                )
                race.once(conn, "queue_jobs", dag_id=dag_id, job_ids=document["job_ids"])
            if chance.random() < 0.5:
                time.sleep(chance.random() * 0.05)
            if chance.random() < 0.15:
                conn.rollback()
            else:
                conn.commit()

    return run


def test_late_commits_are_not_missed(race: Database, jqs: Any) -> None:
    end = threading.Event()
    failures: list[BaseException] = []

    def guarded(work: Any) -> Any:
        def run() -> None:
            try:
                work()
            except BaseException as error:
                failures.append(error)

        return run

    threads = [threading.Thread(target=guarded(writer(race, n, end))) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    small, large, naive = Reader(jqs, 5), Reader(jqs, 10_000), Naive(race)
    started = time.monotonic()

    def enough() -> bool:
        """Whether much was written, and some of it committed too late for the usual way."""
        written = everything(race)
        return len(written) > 500 and any(one <= naive.last for one in written - naive.seen)

    try:
        while any(thread.is_alive() for thread in threads):
            naive.poll()
            large.poll()
            small.poll()
            waited = time.monotonic() - started
            if waited > 60 or (waited > SECONDS and (failures or enough())):
                end.set()
    finally:
        end.set()
        for thread in threads:
            thread.join()
    assert failures == []
    small.catch_up()
    large.catch_up()
    naive.poll()
    written = everything(race)
    assert len(written) > 500
    for reader in (small, large):
        assert reader.seen == Counter(dict.fromkeys(written, 1))
    # This run would have shown it: the usual way misses changes in it.
    assert naive.seen < written


def test_one_late_commit(race: Database, jqs: Any) -> None:
    """The same in slow motion: the lower id is committed after the higher one was read."""
    conn = race.connect()
    dag_id = make_dag(race, conn)
    first, second = make_jobs(race, conn, dag_id, 2)
    late = race.connect(autocommit=False)
    reader, naive = Reader(jqs, 100), Naive(race)
    race.once(late, "queue_job", job_id=first)
    race.call(conn, "queue_job", job_id=second)
    reader.catch_up()
    naive.poll()
    late.commit()
    reader.catch_up()
    naive.poll()
    assert reader.seen == Counter(dict.fromkeys(everything(race), 1))
    assert len(naive.seen) == len(everything(race)) - 1


def test_all_shards_held(race: Database, jqs: Any) -> None:
    """64 transactions hold a shard each: the 65th writer waits for its shard, and nothing is missed."""
    conn = race.connect()
    dag_id = make_dag(race, conn)
    jobs = make_jobs(race, conn, dag_id, 72)
    reader, naive = Reader(jqs, 7), Naive(race)
    reader.catch_up()
    held = [race.connect(autocommit=False) for _ in range(64)]
    for holder, job_id in zip(held, jobs, strict=False):
        race.once(holder, "queue_job", job_id=job_id)
    done: list[int] = []

    def late(conn: Any, job_id: int) -> None:
        race.call(conn, "queue_job", job_id=job_id)
        done.append(job_id)

    late_ones = [race.connect() for _ in jobs[64:]]
    threads = [threading.Thread(target=late, args=pair) for pair in zip(late_ones, jobs[64:], strict=True)]
    for thread in threads:
        thread.start()
    wait_for_lock_waits(race, late_ones)
    assert done == []
    assert reader.poll() == 0
    random.Random(1).shuffle(held)
    for holder in held:
        holder.commit()
        reader.poll()
        naive.poll()
    for thread in threads:
        thread.join(60)
    assert sorted(done) == jobs[64:]
    reader.catch_up()
    naive.poll()
    assert race.value("SELECT COUNT(DISTINCT change_shard) FROM job_status_log WHERE status = 'Q'") == 64
    assert reader.seen == Counter(dict.fromkeys(everything(race), 1))
    assert naive.seen < everything(race)


def test_a_cursor_of_one_dag(race: Database, jqs: Any) -> None:
    """Changes of other dags neither come nor hold the cursor up, whoever writes them when."""
    with Team(race, 4) as team:
        conn = team.connections[0]
        mine, other = make_dag(race, conn), make_dag(race, conn)
        reader = Reader(jqs, 3, mine)

        def work(number: int) -> Any:
            def run(conn: Any) -> None:
                for n in range(15):
                    dag_id = mine if (n + number) % 3 == 0 else other
                    race.call(conn, "add_jobs", dag_id=dag_id, jobs=jobs_of(2, prefix=f"{number}-{n}-"))
                    race.call(conn, "queue_jobs", dag_id=dag_id)

            return run

        stop = threading.Event()

        def poll() -> None:
            while not stop.is_set():
                reader.poll()

        polling = threading.Thread(target=poll)
        polling.start()
        try:
            team.each(*map(work, range(4)))
        finally:
            stop.set()
            polling.join()
    reader.catch_up()
    mine_ids = race.query("SELECT job_status_log_id FROM job_status_log WHERE dag_id = %s", mine)
    assert reader.seen == Counter({int(row[0]): 1 for row in mine_ids})
    assert len(mine_ids) == 20 * 2 * 2
