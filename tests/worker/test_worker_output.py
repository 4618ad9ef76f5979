"""Output files, tails, error texts and figures."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from jobmon.worker.environment import SHELL, find_executor_id, job_environment
from jobmon.worker.output import error_text, open_output, output_path, read_tail, trim, usage_fields


def test_output_path() -> None:
    assert output_path("/logs", "align", "o", 12) == "/logs/align.o12"
    assert output_path("/logs", "a/b c:é\n..x-Y_9", "e", 1) == "/logs/a_b_c___..x-Y_9.e1"
    assert output_path("/logs", "../../etc", "o", 3) == "/logs/.._.._etc.o3"
    assert output_path("/logs", "n" * 300, "o", 3) == f"/logs/{'n' * 100}.o3"
    assert output_path("/logs", None, "o", 3) == "/logs/job.o3"


def test_a_short_file_is_its_own_tail(tmp_path: Path) -> None:
    file = tmp_path / "e"
    file.write_text("größer\n")
    assert read_tail(file) == "größer\n"
    with file.open("rb") as opened:
        assert read_tail(opened) == "größer\n"
        assert read_tail(opened.fileno()) == "größer\n"
    exact = "x" * 10_000
    file.write_text(exact)
    assert read_tail(str(file)) == exact


@pytest.mark.parametrize("letter", ["a", "é", "€", "𝄞"])
def test_a_tail_is_cut_at_a_character_and_says_so(tmp_path: Path, letter: str) -> None:
    file = tmp_path / "e"
    file.write_text(letter * 1000)
    width = len(letter.encode())
    for limit in range(100, 108):
        whole = limit // width
        assert read_tail(file, limit) == f"[the last {whole * width} bytes]\n{letter * whole}"


def test_bytes_that_are_no_utf_8_are_replaced(tmp_path: Path) -> None:
    file = tmp_path / "e"
    file.write_bytes(b"\x80\x80\x80\x80a\xff")
    assert read_tail(file) == "\ufffd" * 4 + "a\ufffd"
    # Cut inside of what looks like the middle of a character: three bytes at most belong to one.
    assert read_tail(file, 5) == "[the last 2 bytes]\na\ufffd"


def test_what_was_there_before_is_no_part_of_the_tail(tmp_path: Path) -> None:
    file = tmp_path / "e"
    file.write_text("of another attempt\nmine\n")
    start = len("of another attempt\n")
    assert read_tail(file, start=start) == "mine\n"
    assert read_tail(file, 3, start=start) == "[the last 3 bytes]\nne\n"
    file.write_text("")  # made shorter meanwhile
    assert read_tail(file, start=start) == ""


def test_a_file_that_cannot_be_read_says_why(tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    assert read_tail(missing) == f"[{missing} cannot be read: No such file or directory]"
    assert read_tail(tmp_path) == "[the output cannot be read: Is a directory]"
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    assert read_tail(fifo) == ""


def test_trim_keeps_the_tail(tmp_path: Path) -> None:
    file = tmp_path / "scratch"
    file.write_bytes(b"".join(b"%06d\n" % number for number in range(10_000)))
    descriptor = os.open(file, os.O_RDWR | os.O_APPEND)
    tail = read_tail(descriptor)
    trim(descriptor, 1_000_000)
    assert file.stat().st_size == 70_000
    trim(descriptor, 50_000)
    assert file.stat().st_size == 20_000
    assert read_tail(descriptor) == tail
    os.close(descriptor)


def test_error_text() -> None:
    assert error_text(3, "no such gene\n") == "exit code 3\nno such gene\n"
    assert error_text(-9, "x") == "killed by signal 9 (SIGKILL)\nx"
    assert error_text(-36) == "killed by signal 36"
    assert (
        error_text("max_runtime of 60 s exceeded: killed", "x") == "max_runtime of 60 s exceeded: killed\nx"
    )


def test_usage_fields() -> None:
    figures = resource.struct_rusage((1.25, 0.5, 2048, 0, 0, 0, 0, 0, 0, 8, 16, 0, 0, 0, 0, 0))
    assert usage_fields(12.3456, figures) == {
        "wallclock": "12.346",
        "cpu": "1.750",
        "maxvmem": "2048K",
        "io": "8+16",
    }
    assert usage_fields(1, None) == {"wallclock": "1.000"}


def test_job_environment() -> None:
    instance = {
        "job_instance_id": 12,
        "job_id": 3,
        "dag_id": None,
        "workflow_run_id": 4,
        "attempt_number": 2,
        "name": "align",
    }
    assert job_environment(instance, "node1:7056") == {
        "JOBMON_JOB_ID": "3",
        "JOBMON_JOB_INSTANCE_ID": "12",
        "JOBMON_WORKFLOW_RUN_ID": "4",
        "JOBMON_ATTEMPT_NUMBER": "2",
        "JOBMON_JSM": "node1:7056",
    }
    assert os.access(SHELL, os.X_OK)


def test_executor_id() -> None:
    assert find_executor_id({"SLURM_JOB_ID": "17"}) == "17"
    array = {"SLURM_JOB_ID": "20", "SLURM_ARRAY_JOB_ID": "17", "SLURM_ARRAY_TASK_ID": "3"}
    assert find_executor_id(array) == "17_3"
    assert find_executor_id({"JOB_ID": "17", "SGE_TASK_ID": "3"}) == "17.3"
    assert find_executor_id({"JOB_ID": "17", "SGE_TASK_ID": "undefined"}) == "17"
    assert find_executor_id({"JOB_ID": "of something else"}) is None
    assert find_executor_id({}) is None


def test_open_output(tmp_path: Path) -> None:
    path = tmp_path / "new" / "logs" / "a.o1"
    with open_output(path) as first, open_output(path) as second:
        first.write(b"one\n")
        second.write(b"two\n")
        first.write(b"three\n")
        assert read_tail(second) == "one\ntwo\nthree\n"
    with pytest.raises(NotADirectoryError):
        open_output(path / "under_a_file")
