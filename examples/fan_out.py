"""1,000 jobs that count the primes in a thousand numbers each, and one that adds up what they found.

Start the services first: `./runserver.py --detach`. Then: `python examples/fan_out.py`
"""

import datetime
import sys
import tempfile
from pathlib import Path

from jobmon import BashTask, Workflow

PRIMES_BELOW_1_000_000 = 78_498
scratch = Path(tempfile.mkdtemp(prefix="jobmon-fan-out-"))

prepare = BashTask("mkdir parts", name="prepare")
parts = [
    BashTask(
        # factor prints a prime as "7: 7"
        f"factor $(seq {first} {first + 999}) | awk 'NF == 2' | wc -l > parts/{first}",
        name=f"primes_from_{first}",
        upstream_tasks=[prepare],
        tag="part",
        max_runtime=60,
    )
    for first in range(0, 1_000_000, 1000)
]
total = BashTask(
    "cat parts/* | awk '{ n += $1 } END { print n }' > total", name="total", upstream_tasks=parts
)

workflow = Workflow(
    workflow_args=f"fan out {datetime.datetime.now().isoformat()}", name="primes", working_dir=scratch
)
workflow.add_tasks([prepare, *parts, total])
result = workflow.run()
print(result)
if not result:
    sys.exit(1)

found = int((scratch / "total").read_text())
print(f"There are {found} primes below 1,000,000.")
sys.exit(0 if found == PRIMES_BELOW_1_000_000 else "That is wrong.")
