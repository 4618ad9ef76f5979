"""Four jobs: a file is written, copied by two jobs that run side by side, and the copies are compared.

Start the services first: `./runserver.py --detach`. Then: `python examples/quickstart.py`
"""

import datetime
import sys
import tempfile
from pathlib import Path

from jobmon import BashTask, PythonTask, Workflow

scratch = Path(tempfile.mkdtemp(prefix="jobmon-quickstart-"))
(scratch / "compare.py").write_text(
    "import pathlib, sys\n"
    "texts = {pathlib.Path(name).read_text() for name in sys.argv[1:]}\n"
    "print(f'{len(sys.argv) - 1} files, {len(texts)} text')\n"
    "sys.exit(len(texts) != 1)\n"
)

# The same tasks with the same workflow_args are the same workflow: to run that again is to resume it.
workflow = Workflow(
    workflow_args=f"quickstart {datetime.datetime.now().isoformat()}",
    name="quickstart",
    description="Write, copy, compare",
    working_dir=scratch,
    stdout=scratch,
    stderr=scratch,
)

write = BashTask("date > original.txt", name="write", slots=1, mem_free=1, max_runtime=60)
copies = [
    BashTask(f"cp original.txt copy_{number}.txt", name=f"copy_{number}", upstream_tasks=[write])
    for number in (1, 2)
]
compare = PythonTask(
    script=scratch / "compare.py",
    args=["original.txt", "copy_1.txt", "copy_2.txt"],
    name="compare",
    env_variables={"PYTHONDONTWRITEBYTECODE": 1},
    max_attempts=2,
    job_attributes={"TAG": "example"},
)
for copy in copies:
    compare.add_upstream(copy)

workflow.add_tasks([write, *copies, compare])
result = workflow.run()

print(result)
print(f"Output of the jobs: {scratch}")
sys.exit(0 if result else 1)
