"""A workload until a file says stop: workflows, one after the other, run from here as by any client.

Arguments: the directory of the files `stop` and `result.json`.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from jobmon import BashTask, Workflow
from jobmon.client.requester import Requester
from jobmon.config import load_config
from jobmon.executors.local import LocalExecutor

PATIENCE = 300  # seconds; a busy machine takes its time to start a database again


def main() -> None:
    """See the module's text."""
    directory = Path(sys.argv[1])
    requester = Requester(load_config(), patience=PATIENCE)
    done: list[dict[str, object]] = []
    while not (directory / "stop").exists():
        number = len(done)
        workflow = Workflow(
            f"load {directory} {number}", name="load", working_dir=directory, requester=requester
        )
        first = [BashTask(f"sleep 0.{i % 3 + 1}; echo {number} {i}", name=f"first {i}") for i in range(8)]
        then = [
            BashTask(f"sleep 0.{i % 4 + 1}; echo {number} {i} then", name=f"then {i}", upstream_tasks=first)
            for i in range(8)
        ]
        workflow.add_tasks([*first, *then])
        result = workflow.run(LocalExecutor(max_workers=4))
        done.append({"dag_id": result.dag_id, "text": str(result), "status": result.status})
        (directory / "result.json").write_text(json.dumps(done))
        (directory / "going").touch()


if __name__ == "__main__":
    main()
