"""A workflow in which a job fails for good, and that is resumed after what was wrong has been put right.

Start the services first: `./runserver.py --detach`. Then: `python examples/resume.py`
"""

import datetime
import sys
import tempfile
from pathlib import Path

from jobmon import BashTask, Workflow

scratch = Path(tempfile.mkdtemp(prefix="jobmon-resume-"))
workflow_args = f"resume {datetime.datetime.now().isoformat()}"


def make_workflow() -> Workflow:
    """The same tasks and workflow_args each time, as if the program were started again."""
    extract = BashTask("echo extracted >> log; seq 10 > numbers", name="extract")
    # Fails until somebody provides the factor. max_attempts: twice is enough to see that.
    scale = BashTask(
        'echo scaled >> log; read factor < factor.txt; awk "{ print \\$1 * $factor }" numbers > scaled',
        name="scale",
        upstream_tasks=[extract],
        max_attempts=2,
    )
    add = BashTask("awk '{ n += $1 } END { print n }' scaled > sum", name="add", upstream_tasks=[scale])
    workflow = Workflow(workflow_args, name="resume", working_dir=scratch)
    workflow.add_tasks([extract, scale, add])
    return workflow


first = make_workflow().run()
print(first)
for failed in first.errors:
    print(f"--- {failed.name} said:\n{failed.message}\n---")

(scratch / "factor.txt").write_text("100\n")

second = make_workflow().run()
print(second)

# extract was DONE and stayed so; scale was tried twice in the first run, and once in the second.
log = (scratch / "log").read_text().split()
ok = not first and second and log == ["extracted", "scaled", "scaled", "scaled"]
print(f"The sum is {(scratch / 'sum').read_text().strip()}." if second else "It failed again.")
sys.exit(0 if ok else 1)
