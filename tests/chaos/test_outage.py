"""JSM and the database are away for longer than the leases last: what runs is not taken for lost."""

from __future__ import annotations

import time
from contextlib import closing
from pathlib import Path

from chaos_helpers import World
from waiting import until

from jobmon import BashTask, Requester, Workflow

LEASE_SECONDS = 15
NUM_JOBS = 4


def test_what_runs_survives_an_outage(world: World, tmp_path: Path) -> None:
    """Distributors come back to the services one after the other; the first must not bury what others run."""
    distributor = ["-m", "jobmon.cli", "start", "distributor", "--lease-seconds", str(LEASE_SECONDS)]
    world.add("busy1", [*distributor, "--max-workers", "2"])
    world.add("busy2", [*distributor, "--max-workers", "2"])
    command = "echo $JOBMON_ATTEMPT_NUMBER >> started; until test -e end; do sleep 0.1; done; : "
    with closing(Requester(world.config)) as requester:
        workflow = Workflow("outage", working_dir=tmp_path, requester=requester)
        workflow.add_tasks([BashTask(f"{command} {number}", max_attempts=9) for number in range(NUM_JOBS)])
        workflow.submit()
        until(lambda: requester.get("jobs", status="RUNNING", limit=NUM_JOBS + 1)["jobs"][NUM_JOBS - 1 :])
        world.add("idle", [*distributor, "--max-workers", "1"])
        time.sleep(1)
        world.parts["jsm"].kill()
        world.server.kill()
        time.sleep(1.3 * LEASE_SECONDS)
        world.server.start()
        world.parts["jsm"].start()
        time.sleep(2 * LEASE_SECONDS)
        (tmp_path / "end").touch()
        result = workflow.wait(60, progress=False)
    assert result.status == "DONE"
    assert (tmp_path / "started").read_text().split() == ["1"] * NUM_JOBS
    assert world.query("SELECT COUNT(*), MAX(attempt_number) FROM job_instance") == [(NUM_JOBS, 1)]
    assert world.audits() == {}
