"""What SlurmScheduler asks Slurm's commands, and what it makes of their answers; the commands are played."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobmon.client.errors import JobmonError
from jobmon.executors.scheduler import (
    Resources,
    SchedulerSilentError,
    Submission,
    SubmissionRejectedError,
    run_command,
)
from jobmon.executors.slurm import COMMANDS, SlurmScheduler

Fake = Callable[..., Path]


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """Makes a command that says something: ``fake("sacct", "out", "err", status=1)``; gives its log."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")

    def make(command: str, stdout: str = "", stderr: str = "", status: int = 0) -> Path:
        for name, text in (("out", stdout), ("err", stderr)):
            (tmp_path / f"{command}.{name}").write_text(text)
        log = tmp_path / f"{command}.log"
        script = tmp_path / command
        script.write_text(
            f'#!/bin/bash\nprintf "%s\\n" "$@" >> {log}\n[ -t 0 ] || cat > {tmp_path}/{command}.in\n'
            f"env > {tmp_path}/{command}.env\n"
            f"cat {tmp_path}/{command}.out; cat {tmp_path}/{command}.err >&2; exit {status}\n"
        )
        script.chmod(0o755)
        return log

    return make


def submission(size: int = 1, **resources: Any) -> Submission:
    given = Resources(**{"slots": 1, "mem_free": 0, "max_runtime": None, **resources})
    return Submission("jobmon-x-1", size, given, "echo $JOBMON_TASK\n", Path("/logs"))


def words(log: Path) -> list[str]:
    return log.read_text().splitlines()


# sbatch ---------------------------------------------------------------------------------------------------


def test_submit(fake: Fake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("JOBMON_TOKEN", "t"), ("SLURM_JOB_ID", "5"), ("SLURM_CONF", "/c"), ("MINE", "m")):
        monkeypatch.setenv(name, value)
    log = fake("sbatch", "sbatch: a word of the site\n4711\n")
    ids = SlurmScheduler().submit(submission())
    assert ids == ["4711"]
    assert words(log) == [
        "--parsable", "--no-requeue", "--job-name=jobmon-x-1", "--output=/logs/0.log", "--open-mode=append",
        "--ntasks=1", "--cpus-per-task=1",
    ]  # fmt: skip
    script = (tmp_path / "sbatch.in").read_text()
    assert script == "#!/bin/bash\nJOBMON_TASK=${SLURM_ARRAY_TASK_ID:-0}\necho $JOBMON_TASK\n"
    environment = (tmp_path / "sbatch.env").read_text().splitlines()
    assert {"SLURM_CONF=/c", "MINE=m"} <= set(environment)
    assert not [line for line in environment if line.startswith(("JOBMON_", "SLURM_JOB_ID"))]


def test_submit_an_array_with_all_resources(fake: Fake) -> None:
    log = fake("sbatch", "88;cluster\n")
    given = submission(
        3, slots=4, mem_free=7, max_runtime=61, queue="long", project="acc", flags=("--qos=x", "--mem=9M")
    )
    assert SlurmScheduler().submit(given) == ["88_0", "88_1", "88_2"]
    assert words(log)[3:] == [
        "--output=/logs/%a.log", "--open-mode=append", "--ntasks=1", "--cpus-per-task=4", "--array=0-2",
        "--mem=7G", "--time=2", "--partition=long", "--account=acc", "--qos=x", "--mem=9M",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("stderr", "full"),
    [
        ("sbatch: error: Batch job submission failed: Invalid partition name specified", False),
        ("sbatch: unrecognized option '--bad'\nTry \"sbatch --help\" for more information", False),
        ("sbatch: error: Batch job submission failed: Requested time limit is invalid", False),
        (
            "sbatch: error: Batch job submission failed: Job violates accounting/QOS policy"
            " (job submit limit, user's size and/or time limits)",
            True,
        ),
    ],
)
def test_rejected(fake: Fake, stderr: str, full: bool) -> None:
    fake("sbatch", "", stderr, status=1)
    with pytest.raises(SubmissionRejectedError) as raised:
        SlurmScheduler().submit(submission())
    assert raised.value.full is full
    assert str(raised.value) == "; ".join(stderr.splitlines())


@pytest.mark.parametrize(
    ("stdout", "stderr", "status"),
    [
        ("", "sbatch: error: Batch job submission failed: Socket timed out on send/recv operation", 1),
        ("", "sbatch: error: Batch job submission failed: Unable to contact slurm controller", 1),
        ("", "sbatch: error: Batch job submission failed: Zero Bytes were transmitted or received", 1),
        ("", "sbatch: error: Batch job submission failed: Protocol authentication error", 1),
        ("", "sbatch: error: If munged is up, restart with --num-threads=10", 1),
        ("nothing that could be an id", "", 0),
        ("", "", 0),
    ],
)
def test_submitted_or_not(fake: Fake, stdout: str, stderr: str, status: int) -> None:
    fake("sbatch", stdout, stderr, status)
    with pytest.raises(SchedulerSilentError):
        SlurmScheduler().submit(submission())


# squeue ---------------------------------------------------------------------------------------------------


def test_list(fake: Fake) -> None:
    fake(
        "squeue",
        "7_0|RUNNING|None|jobmon-x-1\n7_1|PENDING|Resources|jobmon-x-1\n"
        "8|PENDING|launch failed requeued held|jobmon-x-2\n9|COMPLETING|None|jobmon-x-3\n"
        "10|PENDING|PartitionTimeLimit|jobmon-x-4\n11|PENDING|Priority|an|other\n12|RUNNING|None|jobmon\n"
        "13|SUSPENDED|None|jobmon-x-5\n",
    )
    found = {one.executor_id: one for one in SlurmScheduler().list_tasks()}
    assert {number: one.state for number, one in found.items()} == {
        "7_0": "running", "7_1": "pending", "8": "stuck", "9": "running", "10": "pending", "13": "running",
    }  # fmt: skip
    assert (found["7_1"].name, found["7_1"].task, found["7_1"].reason) == ("jobmon-x-1", 1, "Resources")
    assert [number for number, one in found.items() if one.doubtful] == ["10"]
    assert found["8"].reason == "launch failed requeued held"


@pytest.mark.parametrize(
    ("stdout", "stderr", "status"),
    [
        ("", "slurm_load_jobs error: Unable to contact slurm controller (connect failure)", 1),
        ("half a li", "", 0),
    ],
)
def test_no_list(fake: Fake, stdout: str, stderr: str, status: int) -> None:
    fake("squeue", stdout, stderr, status)
    with pytest.raises(SchedulerSilentError):
        SlurmScheduler().list_tasks()


def test_nothing_listed(fake: Fake) -> None:
    fake("squeue", "")
    assert SlurmScheduler().list_tasks() == []


# sacct ----------------------------------------------------------------------------------------------------


def row(**fields: str) -> str:
    """A line of sacct."""
    given = {
        "JobID": "7", "JobName": "jobmon-x-1", "State": "FAILED", "ExitCode": "1:0", "ElapsedRaw": "12",
        "MaxRSS": "", "ReqMem": "2G", "AllocCPUS": "1", "TotalCPU": "00:01.500", "Timelimit": "00:05:00",
        "NodeList": "n1", **fields,
    }  # fmt: skip
    return "|".join(given.values()) + "\n"


def batch_row(**fields: str) -> str:
    return row(**{"JobID": "7.batch", "JobName": "batch", "ReqMem": "", "Timelimit": "", **fields})


@pytest.mark.parametrize(
    ("lines", "status", "exceeded", "words"),
    [
        (row(), "E", None, "FAILED, exit code 1, ran 12 s of 00:05:00, on n1"),
        (row(State="COMPLETED", ExitCode="0:0"), "E", None, "COMPLETED"),
        (row(State="CANCELLED by 1000", ExitCode="0:0"), "E", None, "CANCELLED by 1000"),
        (row(State="NODE_FAIL", ExitCode="0:0"), "E", None, "NODE_FAIL"),
        (row(State="PREEMPTED", ExitCode="0:0"), "E", None, "PREEMPTED"),
        (row(State="TIMEOUT", ExitCode="0:0"), "Z", "max_runtime", "TIMEOUT"),
        # with cgroups Slurm says it
        (
            row(State="OUT_OF_MEMORY", ExitCode="0:125")
            + batch_row(State="OUT_OF_MEMORY", MaxRSS="2097000K"),
            "Z", "mem_free", "OUT_OF_MEMORY, memory limit exceeded, exit code 0, signal 125, memory 2.0",
        ),
        (row(State="FAILED", ExitCode="137:0") + batch_row(State="OUT_OF_MEMORY"), "Z", "mem_free", "FAILED"),
        # without, the figures do
        (row(ExitCode="0:9") + batch_row(MaxRSS="3G"), "Z", "mem_free", "3.00 GiB of 2.00 GiB"),
        (row(ExitCode="0:9") + batch_row(State="CANCELLED", MaxRSS="1G"), "E", None, "signal 9"),
        (row(ExitCode="1:0") + batch_row(MaxRSS="3G"), "E", None, "exit code 1"),
        (row(ExitCode="0:9", ReqMem="1Gc", AllocCPUS="4") + batch_row(MaxRSS="3G"), "E", None, "signal 9"),
        (row(ExitCode="0:9", ReqMem="1Gc", AllocCPUS="2") + batch_row(MaxRSS="3G"), "Z", "mem_free", "9"),
        (row(ExitCode="0:9", ReqMem="1Gn") + batch_row(MaxRSS="1.5G"), "Z", "mem_free", "signal 9"),
        (row(State="COMPLETED", ExitCode="0:0") + batch_row(State="OUT_OF_MEMORY"), "E", None, "COMPLETED"),
    ],
)  # fmt: skip
def test_ended(fake: Fake, lines: str, status: str, exceeded: str | None, words: str) -> None:
    fake("sacct", lines)
    fake("squeue", "")
    found = SlurmScheduler().ended(["7"])["7"]
    assert (found.name, found.task, found.status, found.exceeded) == ("jobmon-x-1", 0, status, exceeded)
    assert words in found.message
    assert found.usage["wallclock"] == "12" and found.usage["cpu"] == "1.500"


def test_tasks_of_arrays(fake: Fake) -> None:
    fake(
        "sacct",
        row(JobID="7_0") + row(JobID="7_12", State="TIMEOUT") + row(JobID="7_[13-20]", State="PENDING"),
    )
    fake("squeue", "")
    found = SlurmScheduler().ended(["7_0", "7_12", "7_13"])
    assert {number: (one.task, one.status) for number, one in found.items()} == {
        "7_0": (0, "E"), "7_12": (12, "Z"),
    }  # fmt: skip


@pytest.mark.parametrize("state", ["PENDING", "RUNNING", "COMPLETING", "REQUEUED", "SUSPENDED"])
def test_not_over(fake: Fake, state: str) -> None:
    fake("sacct", row(State=state))
    fake("squeue", "")
    assert SlurmScheduler().ended(["7"]) == {}


def test_what_the_accounting_does_not_have_yet(fake: Fake) -> None:
    fake("sacct", "")
    fake("squeue", "7|TIMEOUT|0|jobmon-x-1|\n8_1|FAILED|768|jobmon-x-2|\n9|RUNNING|0|jobmon-x-3|\n")
    found = SlurmScheduler().ended(["7", "8_1", "9"])
    assert {n: (one.name, one.task, one.status) for n, one in found.items()} == {
        "7": ("jobmon-x-1", 0, "Z"), "8_1": ("jobmon-x-2", 1, "E"),
    }  # fmt: skip
    assert "exit code 3" in found["8_1"].message


def test_a_job_that_the_controller_has_forgotten(fake: Fake) -> None:
    fake("sacct", "")
    fake("squeue", "", "slurm_load_jobs error: Invalid job id specified", 1)
    assert SlurmScheduler().ended(["7"]) == {}


def test_without_accounting(fake: Fake) -> None:
    fake("sacct", "", "Slurm accounting storage is disabled", 1)
    fake("squeue", "7|TIMEOUT|0|jobmon-x-1|\n")
    assert list(SlurmScheduler().ended(["7", "8"])) == ["7"]


def test_the_accounting_is_silent(fake: Fake) -> None:
    fake("sacct", "", "sacct: error: slurm_persist_conn_open_without_init: failed to open connection", 1)
    fake("squeue", "7|TIMEOUT|0|jobmon-x-1|\n")
    assert list(SlurmScheduler().ended(["7"])) == ["7"]
    with pytest.raises(SchedulerSilentError) as raised:
        SlurmScheduler().ended(["7", "8"])
    assert list(raised.value.ended) == ["7"]


def test_many_ids_are_few_calls(fake: Fake) -> None:
    log = fake("sacct", "")
    fake("squeue", "")
    SlurmScheduler().ended([str(number) for number in range(1000)])
    assert words(log).count("-j") == 5


# scancel, and all of them ---------------------------------------------------------------------------------


def test_cancel(fake: Fake) -> None:
    log = fake("scancel")
    SlurmScheduler().cancel(["7_1", "5", "5"])
    assert words(log) == ["5", "7_1"]


def test_cancel_what_is_over(fake: Fake) -> None:
    fake("scancel", "", "scancel: error: Kill job error on job id 5: Invalid job id specified", 1)
    SlurmScheduler().cancel(["5"])
    fake(
        "scancel",
        "",
        "scancel: error: Kill job error on job id 5: Job/step already completing or completed",
        1,
    )
    SlurmScheduler().cancel(["5"])
    fake("scancel", "", "scancel: error: Unable to contact slurm controller (connect failure)", 1)
    with pytest.raises(SchedulerSilentError):
        SlurmScheduler().cancel(["5"])


def test_commands_that_are_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(JobmonError, match="sbatch, squeue, sacct, scancel"):
        SlurmScheduler().check()
    with pytest.raises(SchedulerSilentError, match="can't be started"):
        SlurmScheduler().list_tasks()
    for command in COMMANDS:
        (tmp_path / command).write_text("")
        (tmp_path / command).chmod(0o755)
    SlurmScheduler().check()


def test_a_command_that_hangs() -> None:
    with pytest.raises(SchedulerSilentError, match=r"no answer in 0\.2 s"):
        run_command(["sleep", "600"], seconds=0.2)


def test_a_command_that_is_killed() -> None:
    with pytest.raises(SchedulerSilentError, match="killed by signal 9"):
        run_command(["bash", "-c", "kill -9 $$"])
