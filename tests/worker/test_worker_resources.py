"""Resources that were exceeded, and ends that the executor reports: what JSM is told of them."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from waiting import until
from worker_helpers import FakeJsm, Worker

from jobmon.worker import cgroup

Make = Callable[..., FakeJsm]
Run = Callable[..., int]
Start = Callable[..., Worker]

V1 = "4:memory:/slurm/uid_0/job_17/step_batch\n0::/\n"
V2 = "0::/system.slice/slurmstepd.scope/job_17/step_batch/user/task_0\n"


class FakeKernel:
    """Files as the kernel shows them."""

    def __init__(self, root: Path, groups: str, counter: str) -> None:
        self.root = root
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/self/cgroup").write_text(groups)
        self.counter = root / "sys/fs/cgroup" / counter
        self.counter.parent.mkdir(parents=True, exist_ok=True)
        self.count(2)

    def count(self, kills: int) -> None:
        self.counter.write_text(f"oom_kill_disable 0\noom 9\noom_kill {kills}\n")


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], FakeKernel]:
    def make(groups: str, counter: str) -> FakeKernel:
        monkeypatch.setattr(cgroup, "ROOT", str(tmp_path))
        return FakeKernel(tmp_path, groups, counter)

    return make


@pytest.mark.parametrize(
    ("groups", "counter"),
    [
        (V1, "memory/slurm/uid_0/job_17/step_batch/memory.oom_control"),
        (V1, "memory/memory.oom_control"),  # in a container that sees its own group only
        (V2, V2[4:].strip() + "/memory.events"),
        (V2, "memory.events"),
        ("5:cpu,memory:/\n0::/\n", "memory/memory.oom_control"),
    ],
)
def test_kills_are_counted(kernel: Callable[[str, str], FakeKernel], groups: str, counter: str) -> None:
    fake = kernel(groups, counter)
    kills = cgroup.OomKills("17")
    assert not kills.rose()
    fake.count(3)
    assert kills.rose()
    assert kills.of_this_job == ("job_17" in groups)
    assert not cgroup.OomKills("7").of_this_job
    assert not cgroup.OomKills(None).of_this_job


@pytest.mark.parametrize("groups", ["", "nonsense\n::\n", "0::/a/b\n", "4:memory:/gone\n", "1:cpu:/\n"])
def test_nobody_counts(kernel: Callable[[str, str], FakeKernel], groups: str) -> None:
    fake = kernel(groups, "elsewhere/memory.events")
    kills = cgroup.OomKills("17")
    fake.count(3)
    assert not kills.rose()
    assert not kills.of_this_job


def test_a_counter_that_goes_away_or_is_damaged(kernel: Callable[[str, str], FakeKernel]) -> None:
    fake = kernel("0::/\n", "memory.events")
    kills = cgroup.OomKills()
    fake.counter.write_bytes(b"oom_kill \xff\noom_kill many\n")
    assert not kills.rose()
    fake.counter.unlink()
    assert not kills.rose()


def worker_on(kernel: FakeKernel) -> dict[str, list[str]]:
    """A worker that sees this kernel's files."""
    program = kernel.root / "worker.py"
    program.write_text(
        "import sys\nfrom jobmon.worker import cgroup, main\n"
        f"cgroup.ROOT = {str(kernel.root)!r}\n"
        "sys.exit(main.main(sys.argv[1:]))\n"
    )
    return {"program": [str(program)]}


KILLED = "kill -9 $$"
CHILD_KILLED = "sh -c 'kill -9 $$'; exit $?"
NOT_KILLED = "echo broken pool >&2; exit 1"


@pytest.mark.parametrize(
    ("groups", "command", "rises", "message"),
    [
        ("0::/\n", KILLED, True, "out of memory: killed by signal 9 (SIGKILL)"),
        ("0::/\n", CHILD_KILLED, True, "out of memory: exit code 137"),
        (V2, NOT_KILLED, True, "out of memory: exit code 1\nbroken pool\n"),
        # it may have been somebody else's process
        ("0::/\n", NOT_KILLED, True, None),
        (V2, KILLED, False, None),
        (V2, "true", True, None),
    ],
)
def test_what_the_kernel_has_killed_for_memory(
    make_fake: Make,
    start_worker: Start,
    kernel: Callable[[str, str], FakeKernel],
    groups: str,
    command: str,
    rises: bool,
    message: str | None,
) -> None:
    files = kernel(groups, "memory.events")
    rise = f"echo oom_kill 3 > {files.counter}; " if rises else ""
    fake = make_fake(command=rise + command)
    code = start_worker(fake, popen=worker_on(files), SLURM_JOB_ID="17").wait()
    assert code == {KILLED: 137, CHILD_KILLED: 137, NOT_KILLED: 1, "true": 0}[command]
    if message is None:
        assert "exceeded" not in fake.end and "job_instance_status" not in fake.end
        assert fake.end["event"] == ("done" if command == "true" else "error")
    else:
        assert fake.end["event"] == "error"
        assert (fake.end["job_instance_status"], fake.end["exceeded"]) == ("Z", "mem_free")
        assert fake.end["error_message"].startswith(message)


@pytest.fixture
def small_group() -> Iterator[Path]:
    """A control group of 48 MB, made where this process's own one is."""
    name = f"jobmon-test-{secrets.token_hex(4)}"
    groups = dict(line.split(":")[1:] for line in Path("/proc/self/cgroup").read_text().splitlines())
    version_1 = Path("/sys/fs/cgroup/memory")
    limit = "memory.limit_in_bytes" if version_1.is_dir() else "memory.max"
    mount = version_1 if version_1.is_dir() else Path("/sys/fs/cgroup")
    # beside its own: in version 2 a group with processes has no groups with a limit below it
    path = (mount / groups.get("memory" if version_1.is_dir() else "", "/").strip("/")).parent / name
    try:
        path.mkdir()
        (path / limit).write_text(str(48 << 20))
        swap = path / "memory.swap.max"
        if swap.exists():
            swap.write_text("0")
    except OSError as error:
        with contextlib.suppress(OSError):
            path.rmdir()
        pytest.skip(f"no control group with a limit of memory can be made here: {error}")
    yield path

    def removed() -> bool:
        with contextlib.suppress(OSError):
            path.rmdir()
        return not path.exists()

    until(removed)


def test_the_kernel_kills_for_memory(make_fake: Make, start_worker: Start, small_group: Path) -> None:
    eats = f"{sys.executable} -c 'x = bytearray(200 << 20)'"
    fake = make_fake(command=f"echo begins >&2; {eats}")

    def enter() -> None:
        (small_group / "cgroup.procs").write_text(str(os.getpid()))

    worker = start_worker(fake, popen={"preexec_fn": enter})
    assert worker.wait() == 137
    assert (fake.end["job_instance_status"], fake.end["exceeded"]) == ("Z", "mem_free")
    assert fake.end["error_message"].startswith("out of memory: ")
    assert "begins" in fake.end["error_message"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_the_executor_reports_signals(
    make_fake: Make, start_worker: Start, tmp_path: Path, number: signal.Signals
) -> None:
    command = "trap 'echo saved; exit 0' TERM; echo words >&2; echo ready; while :; do sleep 0.05; done"
    fake = make_fake(command=command, stdout=str(tmp_path))
    worker = start_worker(fake, "--executor-reports-signals")
    out = tmp_path / "job.o7"
    until(lambda: out.exists() and out.read_text() == "ready\n")
    worker.signal(number)
    assert worker.wait() == 128 + number
    assert out.read_text() == "ready\nsaved\n"
    assert fake.end["event"] == "warning"
    begin = f"the worker received signal {number:d} ({number.name}): killed\nwords\n"
    assert fake.end["error_message"].startswith(begin)
    assert float(fake.end["wallclock"]) > 0
    assert "job_instance_status" not in fake.end


def test_the_executor_reports_a_signal_before_the_start(make_fake: Make, start_worker: Start) -> None:
    fake = make_fake(command="true")
    fake.answers["start_job_instance"] = [(503, {})]
    worker = start_worker(fake, "--executor-reports-signals")
    assert fake.group
    worker.signal(signal.SIGTERM)
    assert worker.wait() == 143
    assert fake.end["event"] == "warning"
    assert fake.end["error_message"] == (
        "the worker received signal 15 (SIGTERM) before the command was started"
    )


def test_the_command_has_the_signal_before_the_worker(
    make_fake: Make, run_worker: Run, tmp_path: Path
) -> None:
    """As under Slurm, which sends it to all processes of a job."""
    program = tmp_path / "patient.py"
    program.write_text(
        "import sys\nfrom jobmon.worker import main\nmain.SECONDS_FOR_OWN_SIGNAL = 60.0\n"
        "sys.exit(main.main(sys.argv[1:]))\n"
    )
    fake = make_fake(command="(sleep 0.2; kill -15 $PPID) & kill -15 $$")
    assert run_worker(fake, "--executor-reports-signals", popen={"program": [str(program)]}) == 143
    assert fake.end["event"] == "warning"


@pytest.mark.parametrize(
    ("command", "code", "end"), [("true", 0, "done"), ("exit 3", 3, "error"), ("kill -15 $$", 143, "error")]
)
def test_other_ends_are_the_workers_to_report(
    make_fake: Make, run_worker: Run, command: str, code: int, end: str
) -> None:
    fake = make_fake(command=command)
    assert run_worker(fake, "--executor-reports-signals") == code
    assert fake.end["event"] == end


def test_max_runtime_is_the_workers_to_report(make_fake: Make, run_worker: Run) -> None:
    fake = make_fake(command="sleep 300", max_runtime=1)
    assert run_worker(fake, "--executor-reports-signals") == 124
    assert fake.end["event"] == "error"
    assert (fake.end["job_instance_status"], fake.end["exceeded"]) == ("Z", "max_runtime")
