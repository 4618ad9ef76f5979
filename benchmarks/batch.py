#!/usr/bin/env python3
"""What running jobs on Slurm or Grid Engine by Jobmon costs, against the same commands in a plain array.

Plain: one array of ``--jobs`` tasks (``sbatch --array``, ``qsub -t``), from its submission until the
scheduler has none of them left, which is looked for four times a second. Jobmon: the same commands as a
workflow that is bound already, from `Workflow.run` until it returns: its distributor claims, submits arrays
and follows them; a worker runs each job and reports to a JSM on a private durable server. Both ask for the
same memory and time, and write logs to the same file system. They take turns; the median of ``--rounds`` is
printed.

    python benchmarks/batch.py
    python benchmarks/batch.py --scheduler slurm --commands sleep --rounds 1 --json figures.json

The scheduler is the one that the environment's commands talk to; it should run nothing else meanwhile. Its
nodes must be this machine, or `--worker-host` a name by which they reach it. At the end the audit views are
read; the figures count only if they are empty.
"""

from __future__ import annotations

import argparse
import secrets
import shlex
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from transitions import audits
from workflows import Clock, show, start_stack

from jobmon import BashTask, Requester, Workflow

MEM_FREE, MAX_RUNTIME = 1, 600
POLL_SECONDS = 0.25

COMMANDS: dict[str, Callable[[int], str]] = {
    "true": lambda task: f"true {task}",
    "sleep": lambda task: f"sleep {1 + task % 11 / 10:.1f}; true {task}",  # 1 to 2 s, 1.5 on average
}
COLUMNS = {
    "plain_seconds": ("plain s", 1),
    "jobmon_seconds": ("Jobmon s", 1),
    "plain_rate": ("plain jobs/s", 1),
    "jobmon_rate": ("Jobmon jobs/s", 1),
    "overhead": ("overhead %", 0),
    "client_cpu_ms": ("client", 2),
    "services_cpu_ms": ("JSM, JQS", 2),
    "database_cpu_ms": ("database", 2),
}


def run(*words: str, stdin: str = "") -> str:
    """What a command says. Raises SystemExit if it fails."""
    done = subprocess.run(words, input=stdin, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{words[0]}: {done.stderr or done.stdout}")
    return done.stdout


def slurm(commands: Sequence[str], directory: Path) -> float:
    """Seconds for an array of Slurm's own."""
    script = (
        f'#!/bin/bash\ncommands=({shlex.join(commands)})\nbash -c "${{commands[$SLURM_ARRAY_TASK_ID]}}"\n'
    )
    began = time.perf_counter()
    words = ["sbatch", "--parsable", f"--array=0-{len(commands) - 1}", f"--mem={MEM_FREE}G"]
    words += [f"--time={MAX_RUNTIME // 60}", f"--output={directory}/%a.log", "--job-name=plain"]
    number = run(*words, stdin=script).strip().partition(";")[0]
    while run("squeue", "-h", "-j", number).strip():
        time.sleep(POLL_SECONDS)
    return time.perf_counter() - began


def sge(commands: Sequence[str], directory: Path) -> float:
    """Seconds for an array of Grid Engine's own."""
    script = f'commands=({shlex.join(commands)})\nbash -c "${{commands[$SGE_TASK_ID - 1]}}"\n'
    began = time.perf_counter()
    words = ["qsub", "-terse", "-t", f"1-{len(commands)}", "-l", f"h_vmem={MEM_FREE}G,h_rt={MAX_RUNTIME}"]
    words += ["-S", "/bin/bash", "-wd", "/", "-j", "y", "-o", f"{directory}/$TASK_ID.log", "-N", "plain"]
    run(*words, stdin=script)
    while "plain" in run("qstat"):
        time.sleep(POLL_SECONDS)
    return time.perf_counter() - began


PLAIN = {"slurm": slurm, "sge": sge}
LABELS = {"slurm": "Slurm", "sge": "Grid Engine"}


def by_jobmon(
    scheduler: str, commands: Sequence[str], requester: Requester, executor_options: dict[str, str]
) -> float:
    """Seconds for a workflow. Raises SystemExit if a job failed."""
    workflow = Workflow(f"{scheduler} {secrets.token_hex(8)}", requester=requester)
    workflow.add_tasks(
        [BashTask(command, mem_free=MEM_FREE, max_runtime=MAX_RUNTIME - 60) for command in commands]
    )
    workflow.bind()
    began = time.perf_counter()
    result = workflow.run(scheduler, executor_options=executor_options, progress=False)
    seconds = time.perf_counter() - began
    if not result:
        raise SystemExit(f"{scheduler}: {result}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=500, help="tasks of an array, jobs of a workflow")
    parser.add_argument("--rounds", type=int, default=3, help="how often each figure is taken")
    parser.add_argument("--scheduler", nargs="*", choices=PLAIN, default=list(PLAIN), help="only these")
    parser.add_argument("--commands", nargs="*", choices=COMMANDS, default=list(COMMANDS), help="only these")
    parser.add_argument("--worker-host", default="127.0.0.1", help="this machine, as nodes know it")
    parser.add_argument(
        "--kind", choices=["mariadb", "mysql"], help="which embedded server (default: what is found)"
    )
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="jobmon-benchmark-")))
        admin, version, requester, services, server_pid = start_stack(stack, directory, options.kind)
        executor_options = {"batch_dir": str(directory / "batch"), "worker_host": options.worker_host}
        logs = directory / "plain"
        logs.mkdir()
        rounds: dict[tuple[str, str], list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for scheduler in options.scheduler:
                for kind in options.commands:
                    commands = [COMMANDS[kind](task) for task in range(options.jobs)]
                    figure = {"plain_seconds": PLAIN[scheduler](commands, logs)}
                    clock = Clock(services, [server_pid])
                    figure["jobmon_seconds"] = by_jobmon(scheduler, commands, requester, executor_options)
                    for who, seconds in clock.spent().items():
                        figure[who] = 1000 * seconds / options.jobs
                    for way in ("plain", "jobmon"):
                        figure[f"{way}_rate"] = options.jobs / figure[f"{way}_seconds"]
                    figure["overhead"] = 100 * (figure["jobmon_seconds"] / figure["plain_seconds"] - 1)
                    rounds.setdefault((scheduler, kind), []).append(figure)
                    print(
                        f"{scheduler}, {kind}: plain {figure['plain_seconds']:.1f} s,"
                        f" Jobmon {figure['jobmon_seconds']:.1f} s",
                        flush=True,
                    )
        violations = audits(admin)
        figures = {
            f"{LABELS[scheduler]}, {kind}": {
                key: statistics.median(figure[key] for figure in some) for key in some[0]
            }
            for (scheduler, kind), some in rounds.items()
        }
        print(f"{options.jobs} jobs, median of {options.rounds} rounds; CPU in ms a job")
        show("scheduler, command", COLUMNS, figures, version, violations, options.json)


if __name__ == "__main__":
    main()
