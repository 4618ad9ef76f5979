"""Two releases of one user at once on one host, without containers: neither notices the other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from ports import free_port
from release_helpers import Deployment, end, listed
from waiting import until

from jobmon.release import PORT_KEYS, Release, read_releases

SERVICES = {"db", "jsm", "jqs"}


@pytest.fixture
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Deployment, Deployment]]:
    home = tmp_path_factory.mktemp("home")
    current = read_releases().current
    releases = [
        Release(name, **{key: free_port() for key in PORT_KEYS})
        for name in (current.name, current.next().name)
    ]
    made = [Deployment(home, release) for release in releases]
    try:
        yield made[0], made[1]
    finally:
        for deployment in made:
            deployment("stop")
            assert deployment.pids() == set()


def test_two_releases_run_side_by_side(two: tuple[Deployment, Deployment]) -> None:
    old, new = two
    for process in [each.begin("jobmon.runserver", "--embedded", "--demo") for each in two]:
        assert "All 12 jobs ended as they should" in end(process)

    for asked in two:
        until(lambda asked=asked: all(
            row["ready"] for rows in listed(asked, "embedded").values() for row in rows.values()
            if row["name"] in SERVICES
        ))  # fmt: skip
        found = listed(asked, "embedded")
        assert set(found) == {old.release.name, new.release.name}
        for each in two:
            rows = found[each.release.name]
            assert set(rows) >= SERVICES
            assert all(row["up"] and row["seconds"] >= 0 for row in rows.values())
            ports = {port for row in rows.values() for port in row["ports"]}
            assert ports == {f"127.0.0.1:{port}" for port in each.release.ports.values()}
            assert {row["where"] for row in rows.values()} == {str(each.directory)}

    # Each has a database of its own, with what was done by its own services.
    for each in two:
        each.post("add_task_dag", name=f"of {each.release.name}", user="ann", dag_hash="0a")
    before = {each.release.name: each.workflows() for each in two}
    assert not set(before[old.release.name]) & set(before[new.release.name])
    assert all(before.values())

    # While one is stopped, the other works, and goes on with the same processes.
    kept, processes = new.main_pids(), new.pids()
    working = new.begin("jobmon.runserver", "--embedded", "--demo")
    old("stop")
    assert "All 12 jobs ended as they should" in end(working)
    assert new.main_pids() == kept and processes <= new.pids()
    assert old.pids() == set()
    assert set(listed(new, "embedded")) == {new.release.name}
    stopped = listed(new, "embedded", "--all")[old.release.name]
    assert set(stopped) >= SERVICES and not any(row["up"] or row["ready"] for row in stopped.values())

    # It comes back with what it had, and again the other does not notice.
    assert "is up" in old("--embedded", "--detach")
    assert old.workflows() == before[old.release.name]
    assert new.main_pids() == kept and len(new.workflows()) > len(before[new.release.name])
