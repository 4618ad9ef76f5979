"""Commands that are made to end: by max_runtime, by a signal to the worker, by JSM, by the worker's death."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import until
from worker_helpers import PATIENCE, Answer, FakeJsm, Worker, alive, program_once, refusal

Make = Callable[..., FakeJsm]
Run = Callable[..., int]
Start = Callable[..., Worker]

# Two processes; the first dies of SIGTERM at once, the second takes its time to save.
SAVES = """
sh -c 'trap "sleep 0.5; echo saved; exit 0" TERM; echo ready; while :; do sleep 0.05; done' & wait
"""
# The same, but the second does not heed SIGTERM.
OUTLIVES = "(trap '' TERM; echo ready; while :; do sleep 0.05; done) & wait"
# Neither heeds SIGTERM.
STUBBORN = "trap '' TERM; echo last words >&2; (echo ready; while :; do sleep 0.05; done) & wait; sleep 300"


def ready(tmp_path: Path) -> Path:
    """The output file, once the command has written that it is ready."""
    out = tmp_path / "job.o7"
    until(lambda: out.exists() and out.read_text() == "ready\n")
    return out


def group_is_gone(group: int) -> None:
    def gone() -> bool:
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                except OSError:
                    continue
                if int(fields[2]) == group and fields[0] not in "ZX":
                    return False
        return True

    until(gone)


def test_max_runtime(make_fake: Make, run_worker: Run, tmp_path: Path) -> None:
    busy = tmp_path / "busy"
    fake = make_fake(command=f"echo still busy >&2; touch {busy}; sleep 300", max_runtime=1)
    assert run_worker(fake, popen=program_once(tmp_path, busy)) == 124
    group_is_gone(fake.group)
    assert fake.end["event"] == "error"
    assert fake.end["error_message"] == "max_runtime of 1 s exceeded: killed\nstill busy\n"
    assert (fake.end["job_instance_status"], fake.end["exceeded"]) == ("Z", "max_runtime")
    assert 1 <= float(fake.end["wallclock"]) < 60


def test_max_runtime_is_kept_while_jsm_hangs(make_fake: Make, start_worker: Start, tmp_path: Path) -> None:
    fake = make_fake(command="sleep 300", max_runtime=1)
    answered = threading.Event()

    def hang(body: dict[str, object]) -> tuple[int, dict[str, object]]:
        (tmp_path / "hangs").touch()
        answered.wait(60)
        return 200, {}

    fake.answers["log_job_instance_heartbeat"] = hang
    program = program_once(tmp_path, tmp_path / "hangs")
    worker = start_worker(fake, "--heartbeat-seconds", "0.1", popen=program)
    until(lambda: fake.of("log_job_instance_heartbeat"))
    group_is_gone(fake.group)
    answered.set()
    assert worker.wait() == 124
    assert fake.end["error_message"] == "max_runtime of 1 s exceeded: killed"


def test_a_command_may_save_before_it_is_killed(make_fake: Make, run_worker: Run, tmp_path: Path) -> None:
    fake = make_fake(command=SAVES, max_runtime=1, stdout=str(tmp_path))
    assert (
        run_worker(fake, "--kill-after", "60", popen=program_once(tmp_path, tmp_path / "job.o7", "ready"))
        == 124
    )
    group_is_gone(fake.group)
    assert (tmp_path / "job.o7").read_text() == "ready\nsaved\n"
    assert float(fake.end["wallclock"]) < 60


def test_a_command_that_does_not_heed_sigterm(make_fake: Make, run_worker: Run, tmp_path: Path) -> None:
    fake = make_fake(command=STUBBORN, max_runtime=1, stdout=str(tmp_path))
    program = program_once(tmp_path, tmp_path / "job.o7", "ready")
    assert run_worker(fake, "--kill-after", "1", popen=program) == 124
    group_is_gone(fake.group)
    assert (tmp_path / "job.o7").read_text() == "ready\n"
    assert fake.end["error_message"] == "max_runtime of 1 s exceeded: killed\nlast words\n"


def test_what_outlives_a_command_that_is_made_to_end_is_killed(
    make_fake: Make, run_worker: Run, tmp_path: Path
) -> None:
    fake = make_fake(command=OUTLIVES, max_runtime=1, stdout=str(tmp_path))
    program = program_once(tmp_path, tmp_path / "job.o7", "ready")
    assert run_worker(fake, "--kill-after", "1", popen=program) == 124
    assert (tmp_path / "job.o7").read_text() == "ready\n"
    group_is_gone(fake.group)


def test_a_command_that_ends_well_when_told_to_end_is_still_too_late(
    make_fake: Make, run_worker: Run, tmp_path: Path
) -> None:
    trapped = tmp_path / "trapped"
    command = f"trap 'exit 0' TERM; touch {trapped}; while :; do sleep 0.05; done"
    fake = make_fake(command=command, max_runtime=1)
    assert run_worker(fake, popen=program_once(tmp_path, trapped)) == 124
    assert fake.end["event"] == "error"


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGTERM, "SIGTERM"), (signal.SIGINT, "SIGINT"), (signal.SIGHUP, "SIGHUP")]
)
def test_a_signal_to_the_worker(
    make_fake: Make, start_worker: Start, tmp_path: Path, number: signal.Signals, name: str
) -> None:
    fake = make_fake(command="echo words >&2; " + SAVES, stdout=str(tmp_path))
    worker = start_worker(fake, "--kill-after", "60")
    out = ready(tmp_path)
    worker.signal(number)
    assert worker.wait() == 128 + number
    group_is_gone(fake.group)
    assert out.read_text() == "ready\nsaved\n"
    assert fake.end["event"] == "error"
    assert fake.end["error_message"].startswith(
        f"the worker received signal {number:d} ({name}): killed\nwords\n"
    )


def test_ctrl_c_twice(make_fake: Make, start_worker: Start, tmp_path: Path) -> None:
    fake = make_fake(command=STUBBORN, stdout=str(tmp_path))
    worker = start_worker(fake, "--kill-after", "3600")
    ready(tmp_path)
    worker.signal(signal.SIGINT)
    until(lambda: "received signal 2" in worker.log.read_text())
    worker.signal(signal.SIGTERM)  # may come twice from a scheduler; the command keeps its time
    until(lambda: "received signal 15" in worker.log.read_text())
    assert alive(fake.group)
    worker.signal(signal.SIGINT)
    assert worker.wait() == 130
    group_is_gone(fake.group)


def test_what_nohup_makes_ignored_stays_so(make_fake: Make, start_worker: Start, tmp_path: Path) -> None:
    fake = make_fake(command="echo ready; sleep 1; exit 3", stdout=str(tmp_path))

    def nohup() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    worker = start_worker(fake, popen={"preexec_fn": nohup})
    ready(tmp_path)
    worker.signal(signal.SIGHUP)
    assert worker.wait() == 3


@pytest.mark.parametrize("code", ["JOB_INSTANCE_SUPERSEDED", "JOB_INSTANCE_ENDED"])
def test_jsm_says_stop(make_fake: Make, run_worker: Run, code: str, tmp_path: Path) -> None:
    fake = make_fake(command=SAVES, stdout=str(tmp_path))

    def answer(body: dict[str, object]) -> Answer:
        if len(fake.of("log_job_instance_heartbeat")) < 2:
            return 200, {}
        ready(tmp_path)
        return refusal(code)

    fake.answers["log_job_instance_heartbeat"] = answer
    assert run_worker(fake, "--heartbeat-seconds", "1") == 76
    group_is_gone(fake.group)
    assert (tmp_path / "job.o7").read_text() == "ready\nsaved\n"
    assert len(fake.of("log_job_instance_heartbeat")) == 2
    assert fake.of("log_error") == fake.of("log_done") == []


def test_jsm_says_stop_to_the_last_report(make_fake: Make, run_worker: Run) -> None:
    fake = make_fake(command="true")
    fake.answers["log_done"] = [refusal("JOB_INSTANCE_ENDED")]
    assert run_worker(fake) == 76
    assert len(fake.of("log_done")) == 1


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (refusal("JOB_INSTANCE_SUPERSEDED"), 75),
        (refusal("JOB_INSTANCE_ENDED"), 75),
        (refusal("UNKNOWN_JOB_INSTANCE", 404), 75),
        (refusal("UNAUTHORIZED", 401), 75),
    ],
)
def test_jsm_does_not_let_it_start(
    make_fake: Make, start_worker: Start, tmp_path: Path, answer: tuple[int, object], code: int
) -> None:
    fake = make_fake(command=f"touch {tmp_path}/ran")
    fake.answers["start_job_instance"] = [answer]
    worker = start_worker(fake)
    assert worker.wait() == code
    assert [route for route, _ in fake.calls] == ["start_job_instance"]
    group_is_gone(fake.group)
    assert not (tmp_path / "ran").exists()
    assert "the command is not started: " in worker.log.read_text()


def test_a_signal_before_the_command_is_started(make_fake: Make, start_worker: Start, tmp_path: Path) -> None:
    fake = make_fake(command=f"touch {tmp_path}/ran")
    fake.answers["start_job_instance"] = [(503, {})]
    worker = start_worker(fake, "--kill-after", "3600")
    group = fake.group
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 143
    group_is_gone(group)
    assert not (tmp_path / "ran").exists()
    assert fake.end == {
        "event": "error",
        "job_instance_id": 7,
        "nodename": os.uname().nodename,
        "error_message": "the worker received signal 15 (SIGTERM) before the command was started",
    }


def test_a_killed_workers_command_is_ended(make_fake: Make, start_worker: Start, tmp_path: Path) -> None:
    fake = make_fake(command=STUBBORN, stdout=str(tmp_path))
    worker = start_worker(fake, "--kill-after", "0.5")
    ready(tmp_path)
    worker.signal(signal.SIGKILL)
    assert worker.wait() == -9
    group_is_gone(fake.group)


def test_a_killed_workers_guard_does_not_hold_its_output_open(
    make_fake: Make, start_worker: Start, tmp_path: Path
) -> None:
    read, write = os.pipe()
    fake = make_fake(command=STUBBORN, stdout=str(tmp_path))
    worker = start_worker(fake, "--kill-after", "3600", popen={"stdout": write, "stderr": write})
    os.close(write)
    ready(tmp_path)
    worker.signal(signal.SIGKILL)
    assert select.select([read], [], [], PATIENCE)[0]
    assert os.read(read, 1000) == b""
    os.close(read)
    assert alive(fake.group)


def test_a_worker_that_is_killed_before_the_start_leaves_nothing(
    make_fake: Make, start_worker: Start, tmp_path: Path
) -> None:
    fake = make_fake(command=f"touch {tmp_path}/ran")
    fake.answers["start_job_instance"] = [(503, {})]
    worker = start_worker(fake)
    group = fake.group
    worker.signal(signal.SIGKILL)
    group_is_gone(group)
    assert not (tmp_path / "ran").exists()


def test_nothing_is_left_after_the_end(make_fake: Make, start_worker: Start) -> None:
    """Neither the guard nor a zombie: whoever waits for the output's end gets it with the worker's end."""
    read, write = os.pipe()
    fake = make_fake(command="true")
    worker = start_worker(fake, popen={"stdout": write, "stderr": write})
    os.close(write)
    assert os.read(read, 1000) == b""
    os.close(read)
    assert worker.wait() == 0


def test_much_standard_error_without_a_directory_does_not_fill_the_disk(
    make_fake: Make, start_worker: Start, tmp_path: Path
) -> None:
    program = tmp_path / "small.py"
    program.write_text(
        "import sys\nfrom jobmon.worker import main\n"
        "main.SCRATCH_BYTES = 100_000\nmain.SCRATCH_SECONDS = 0.1\n"
        "sys.exit(main.main(sys.argv[1:]))\n"
    )
    command = (
        "i=0; while [ $i -lt 40 ]; do head -c 100000 /dev/zero | tr '\\0' x >&2; sleep 0.1; i=$((i+1)); done;"
        f" stat -L -c %s /proc/self/fd/2 > {tmp_path}/size; echo the end >&2; exit 1"
    )
    fake = make_fake(command=command)
    assert start_worker(fake, popen={"program": [str(program)]}).wait() == 1
    assert int((tmp_path / "size").read_text()) < 40 * 100_000
    assert fake.end["error_message"].endswith("xxx" + "the end\n")
    assert len(fake.end["error_message"]) > 10_000
