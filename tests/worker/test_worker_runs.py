"""Commands that end by themselves: what they find, what is kept of them, and what is told."""

from __future__ import annotations

import hashlib
import json
import os
import re
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import until
from worker_helpers import FakeJsm, Worker, alive

Make = Callable[..., FakeJsm]
Run = Callable[..., int]
Start = Callable[..., Worker]


def test_a_command_that_succeeds(make_fake: Make, run_worker: Run) -> None:
    fake = make_fake(command="exit 0")
    assert run_worker(fake, "--heartbeat-seconds", "200", SLURM_JOB_ID="17") == 0
    assert [route for route, _ in fake.calls] == ["start_job_instance", "log_done"]
    started = fake.of("start_job_instance")[0]
    assert started == {
        "job_instance_id": 7,
        "nodename": os.uname().nodename,
        "process_group_id": fake.group,
        "executor_id": "17",
        "lease_seconds": 800,
    }
    assert fake.end.keys() == {
        *("event", "job_instance_id", "nodename", "wallclock", "cpu", "maxvmem", "io"),
    }
    assert (fake.end["event"], fake.end["job_instance_id"]) == ("done", 7)


@pytest.mark.parametrize("code", [1, 3, 75, 255])
def test_a_command_that_fails(make_fake: Make, run_worker: Run, code: int) -> None:
    fake = make_fake(command=f"echo nothing of this is kept; echo 'no such gene: ä' >&2; exit {code}")
    assert run_worker(fake) == code
    assert fake.end["event"] == "error"
    assert fake.end["error_message"] == f"exit code {code}\nno such gene: ä\n"


def test_a_command_that_a_signal_kills(make_fake: Make, run_worker: Run) -> None:
    fake = make_fake(command="echo last words >&2; kill -9 $$")
    assert run_worker(fake) == 128 + 9
    assert fake.end["error_message"] == "killed by signal 9 (SIGKILL)\nlast words\n"


def test_a_command_that_is_not_there(make_fake: Make, run_worker: Run) -> None:
    fake = make_fake(command="no_such_program_at_all")
    assert run_worker(fake) == 127
    assert re.fullmatch(r"exit code 127\n.*no_such_program_at_all.*not found\n", fake.end["error_message"])


def test_figures(make_fake: Make, run_worker: Run, tmp_path: Path) -> None:
    program = tmp_path / "use.py"
    program.write_text(
        "import time\nx = b'x' * 60_000_000\nend = time.process_time() + 0.3\n"
        "while time.process_time() < end: pass\n"
    )
    fake = make_fake(command=f"sleep 0.2; {sys.executable} {program}; exit 3")
    assert run_worker(fake) == 3
    end = fake.end
    assert 0.5 <= float(end["wallclock"]) < 60
    assert 0.3 <= float(end["cpu"]) < 30
    assert re.fullmatch(r"\d+K", end["maxvmem"])
    assert 60_000_000 / 1024 < int(end["maxvmem"][:-1]) < 600_000
    assert re.fullmatch(r"\d+\+\d+", end["io"])


def test_what_a_command_finds(make_fake: Make, run_worker: Run, tmp_path: Path) -> None:
    seen = tmp_path / "seen.json"
    program = tmp_path / "look.py"
    program.write_text(
        "import json, os, sys\n"
        "files = sorted(f for f in os.listdir('/proc/self/fd') if os.path.exists(f'/proc/self/fd/{f}'))\n"
        "json.dump({'env': dict(os.environ), 'cwd': os.getcwd(), 'stdin': sys.stdin.read(), 'files': files,\n"
        "  'group': os.getpgid(0), 'session': os.getsid(0)}, open(sys.argv[1], 'w'))\n"
    )
    directory = tmp_path / "work"
    directory.mkdir()
    # Python ignores some signals itself, so something else looks at that.
    command = f"{sys.executable} {program} {seen}; grep SigIgn /proc/self/status > {tmp_path}/ignored"
    fake = make_fake(command=command, working_dir=str(directory))
    assert run_worker(fake, OWN_VARIABLE="kept ä") == 0
    found = json.loads(seen.read_text())
    expected = {
        "JOBMON_JOB_ID": "5",
        "JOBMON_JOB_INSTANCE_ID": "7",
        "JOBMON_DAG_ID": "3",
        "JOBMON_WORKFLOW_RUN_ID": "2",
        "JOBMON_ATTEMPT_NUMBER": "1",
        "JOBMON_JSM": f"127.0.0.1:{fake.port}",
        "OWN_VARIABLE": "kept ä",
    }
    assert {key: found["env"].get(key) for key in expected} == expected
    assert found["cwd"] == str(directory)
    assert found["stdin"] == ""
    assert found["files"] == ["0", "1", "2"]
    assert found["group"] == found["session"] == fake.group
    assert int((tmp_path / "ignored").read_text().split()[1], 16) == 0


def test_output_files_are_byte_exact(make_fake: Make, run_worker: Run, tmp_path: Path) -> None:
    program = tmp_path / "write.py"
    program.write_text(
        "import hashlib, os, random, sys, threading\n"
        "def write(descriptor, seed):\n"
        "    numbers, digest = random.Random(seed), hashlib.sha256()\n"
        "    for _ in range(640):\n"
        "        data = numbers.randbytes(65536)\n"
        "        digest.update(data)\n"
        "        while data: data = data[os.write(descriptor, data):]\n"
        "    open(f'{sys.argv[1]}/digest{descriptor}', 'w').write(digest.hexdigest())\n"
        "threads = [threading.Thread(target=write, args=(fd, fd)) for fd in (1, 2)]\n"
        "[t.start() for t in threads]; [t.join() for t in threads]; sys.exit(4)\n"
    )
    fake = make_fake(
        command=f"{sys.executable} {program} {tmp_path}",
        name="write / much",
        stdout=str(tmp_path / "out"),
        stderr=str(tmp_path / "new" / "err"),
    )
    assert run_worker(fake) == 4
    for descriptor, path in ((1, "out/write___much.o7"), (2, "new/err/write___much.e7")):
        data = (tmp_path / path).read_bytes()
        assert len(data) == 640 * 65536
        assert hashlib.sha256(data).hexdigest() == (tmp_path / f"digest{descriptor}").read_text()
    assert re.match(r"exit code 4\n\[the last (9999|999[78]|10000) bytes\]\n", fake.end["error_message"])


def test_much_output_without_directories(make_fake: Make, run_worker: Run, tmp_path: Path) -> None:
    spool = tmp_path / "tmp"
    spool.mkdir()
    command = (
        f"head -c 30000000 /dev/zero; head -c 3000000 /dev/zero | tr '\\0' x >&2; ls {spool} >&2; exit 1"
    )
    fake = make_fake(command=command)
    assert run_worker(fake, TMPDIR=str(spool)) == 1
    assert fake.end["error_message"] == f"exit code 1\n[the last 10000 bytes]\n{'x' * 10000}"
    assert list(spool.iterdir()) == []


def test_a_relative_directory_is_in_the_working_directory(
    make_fake: Make, run_worker: Run, tmp_path: Path
) -> None:
    work = tmp_path / "work"  # the worker itself runs in tmp_path
    work.mkdir()
    command = "pwd; echo told >&2; false"
    fake = make_fake(command=command, working_dir=str(work), stdout="logs", stderr="logs")
    assert run_worker(fake) == 1
    assert (work / "logs" / "job.o7").read_text() == f"{work}\n"
    assert (work / "logs" / "job.e7").read_text() == "told\n"
    assert fake.end["error_message"] == "exit code 1\ntold\n"


def test_what_is_in_an_output_file_stays(make_fake: Make, run_worker: Run, tmp_path: Path) -> None:
    (tmp_path / "job.o7").write_text("of another database's instance 7\n")
    (tmp_path / "job.e7").write_text("its errors\n")
    fake = make_fake(command="echo out; echo err >&2; false", stdout=str(tmp_path), stderr=str(tmp_path))
    assert run_worker(fake) == 1
    assert (tmp_path / "job.o7").read_text() == "of another database's instance 7\nout\n"
    assert (tmp_path / "job.e7").read_text() == "its errors\nerr\n"
    assert fake.end["error_message"] == "exit code 1\nerr\n"


def test_a_working_directory_that_is_not_there(make_fake: Make, run_worker: Run, tmp_path: Path) -> None:
    fake = make_fake(command="true", working_dir=str(tmp_path / "gone"))
    assert run_worker(fake) == 71
    assert fake.end["event"] == "error"
    assert fake.end["error_message"] == (
        f"the command cannot be started: working directory {tmp_path}/gone: No such file or directory"
    )


def test_an_output_file_that_cannot_be_made(make_fake: Make, run_worker: Run, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    fake = make_fake(command="true", stdout=str(tmp_path / "file"))
    assert run_worker(fake) == 71
    assert fake.end["error_message"] == (
        f"the command cannot be started: output file {tmp_path}/file/job.o7: Not a directory"
    )


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("true " + "x" * 200_000, "Argument list too long"),
        ("true \0", "embedded null byte"),
        ("true \ud800", "surrogates not allowed"),
    ],
)
def test_a_command_that_no_system_takes(make_fake: Make, run_worker: Run, command: str, reason: str) -> None:
    fake = make_fake(command=command)
    assert run_worker(fake) == 71
    assert fake.end["error_message"].startswith("the command cannot be started: ")
    assert fake.end["error_message"].endswith(reason)


def test_a_command_is_utf_8_in_any_locale(make_fake: Make, run_worker: Run, tmp_path: Path) -> None:
    fake = make_fake(command=f"printf %s 'größer €' > {tmp_path}/said; false")
    assert run_worker(fake, LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0") == 1
    assert (tmp_path / "said").read_bytes() == "größer €".encode()


def test_processes_that_a_command_leaves_are_left_alone(
    make_fake: Make, run_worker: Run, tmp_path: Path
) -> None:
    fake = make_fake(command="sleep 300 & echo $!", stdout=str(tmp_path))
    assert run_worker(fake) == 0
    left = int((tmp_path / "job.o7").read_text())
    try:
        assert fake.end["event"] == "done"
        assert alive(left)
        assert os.getpgid(left) == fake.group
    finally:
        os.kill(left, signal.SIGKILL)


def test_heartbeats(make_fake: Make, start_worker: Start, tmp_path: Path) -> None:
    fake = make_fake(command=f"while [ ! -e {tmp_path}/enough ]; do sleep 0.05; done")
    worker = start_worker(fake, "--heartbeat-seconds", "0.3")
    until(lambda: len(fake.of("log_job_instance_heartbeat")) >= 4)
    (tmp_path / "enough").touch()
    assert worker.wait() == 0
    assert fake.calls[-1][0] == "log_done"
    beats = fake.of("log_job_instance_heartbeat")
    assert all(beat == {"job_instance_id": 7, "lease_seconds": 1} for beat in beats)


def test_signals_for_the_command_are_passed_on(make_fake: Make, start_worker: Start, tmp_path: Path) -> None:
    fake = make_fake(
        command="trap 'echo saved; exit 5' USR1; echo ready; while :; do sleep 0.05; done",
        stdout=str(tmp_path),
    )
    worker = start_worker(fake)
    out = tmp_path / "job.o7"
    until(lambda: out.exists() and out.read_text() == "ready\n")
    worker.signal(signal.SIGUSR1)
    assert worker.wait() == 5
    assert out.read_text() == "ready\nsaved\n"


def test_an_executor_id_that_is_given(make_fake: Make, run_worker: Run) -> None:
    fake = make_fake()
    assert run_worker(fake, "--executor-id", "99_1", SLURM_JOB_ID="17") == 0
    assert fake.of("start_job_instance")[0]["executor_id"] == "99_1"
    fake = make_fake()
    assert run_worker(fake) == 0
    assert "executor_id" not in fake.of("start_job_instance")[0]


def test_standard_streams_that_are_closed(make_fake: Make, start_worker: Start, tmp_path: Path) -> None:
    fake = make_fake(
        command="cat; echo out; echo err >&2; exit 6", stdout=str(tmp_path), stderr=str(tmp_path)
    )

    def close() -> None:
        for descriptor in (0, 1, 2):
            os.close(descriptor)

    worker = start_worker(fake, popen={"stdin": None, "stdout": None, "stderr": None, "preexec_fn": close})
    assert worker.wait() == 6
    assert (tmp_path / "job.o7").read_text() == "out\n"
    assert (tmp_path / "job.e7").read_text() == "err\n"


def test_nobody_reads_the_workers_own_messages(make_fake: Make, start_worker: Start) -> None:
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(write, True)
    fake = make_fake(command="true")
    fake.answers["start_job_instance"] = [(503, {}), (200, {"job_instance": fake.instance})]
    worker = start_worker(fake, popen={"stderr": write, "stdout": write})
    assert worker.wait() == 0
    assert fake.end["event"] == "done"
    os.close(read)
    os.close(write)


def test_odd_instances(make_fake: Make, run_worker: Run, tmp_path: Path) -> None:
    """A longest max_runtime, no name, empty directories, a path that no system takes."""
    fake = make_fake(command="exit 3", max_runtime=2**32 - 1, name=None, stdout="", stderr="", working_dir="")
    assert run_worker(fake) == 3
    fake = make_fake(command="exit 3", stderr=f"{tmp_path}/a\0b")
    assert run_worker(fake) == 71
    assert fake.end["error_message"].startswith("the command cannot be started: embedded null byte\n[")
