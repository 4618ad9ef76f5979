"""``jobmon job``: what is printed, what is changed, and how it exits."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import ROOT, Jobmon, Made, MakeWorkflow

from jobmon.cli.job import _start_of_tail

# ----------------------------------------------------------------------------------------------------------
# show and explain


def test_show(jobmon: Jobmon, make: MakeWorkflow) -> None:
    made = make(2, [(0, 1)], max_attempts=2, max_runtime=90, tag="big", command="echo 'a  b'")
    made.start_run()
    made.work("exit code 3\nwhy")
    claimed = made.claim()
    job_id = made.job_ids[0]
    output = jobmon("job", "show", job_id).output
    assert f"Job {job_id} 'job0': INSTANTIATED since 20" in output and "2 of 2 attempts made" in output
    assert "max_runtime 1 min 30 s" in output and "tag 'big'" in output and "command: echo 'a  b'" in output
    first, second = re.findall(r"^ +([12]) +(\d+) +\d+ +(\w+) ", output, re.MULTILINE)
    assert first[2] == "ERROR" and second == ("2", str(claimed[job_id]), "INSTANTIATED")
    assert "exit code 3: why" in output and "node7" in output
    document = jobmon.json("job", "show", job_id)
    assert [row["attempt_number"] for row in document["job_instances"]] == [1, 2]
    assert [row["status"] for row in document["job_history"]] == [
        "REGISTERED",
        "QUEUED_FOR_INSTANTIATION",
        "INSTANTIATED",
        "RUNNING",
        "ERROR_RECOVERABLE",
        "QUEUED_FOR_INSTANTIATION",
        "INSTANTIATED",
    ]
    assert "waits for 1 upstream jobs" in jobmon("job", "show", made.job_ids[1]).output
    assert "no attempt yet" in jobmon("job", "show", made.job_ids[1]).output
    assert jobmon("job", "show", job_id, "-o", "quiet").output == ""


def reasons(jobmon: Jobmon, job_id: int) -> dict[str, str]:
    """What ``explain`` gives: reason -> explanation; the table says the same."""
    rows = jobmon.json("job", "explain", job_id)
    output = jobmon("job", "explain", job_id).output
    for row in rows:
        assert row["reason"] in output
        assert all(part in output for part in row["explanation"].splitlines()), output
    return {row["reason"]: row["explanation"] for row in rows}


def test_explain(jobmon: Jobmon, make: MakeWorkflow) -> None:
    made = make(4, [(0, 3), (1, 3)], names=["a", "b", "c", "d"])
    a, b, c, d = made.job_ids
    assert list(reasons(jobmon, a)) == ["NOT_SUBMITTED"]
    assert f"waits for job {b} (b), which is REGISTERED" in jobmon("job", "explain", d).output
    made.start_run()
    assert list(reasons(jobmon, a)) == ["WAITS_FOR_DISTRIBUTOR"]
    jobmon("workflow", "concurrency", made.workflow_id, 1)
    claimed = made.claim()
    assert list(claimed) == [a]
    assert list(reasons(jobmon, a)) == ["STARTING"]
    assert re.search(r"max_concurrently_running\D*1", reasons(jobmon, c)["AT_LIMIT"])
    made.report([(claimed[a], "running")], nodename="node7", process_group_id=99)
    assert "on node7, process group 99" in reasons(jobmon, a)["RUNNING"]
    made.report([(claimed[a], "exit code 3\nwhy")])
    assert "exit code 3\nwhy" in reasons(jobmon, a)["FAILED"]
    assert f"waits for job {a} (a), which is ERROR_FATAL: retry it" in jobmon("job", "explain", d).output
    jobmon("workflow", "concurrency", made.workflow_id, "none")
    made.work(max_jobs=1)
    assert list(reasons(jobmon, b)) == ["DONE"]
    jobmon("workflow", "stop", made.workflow_id, "--yes")
    assert "STOPPED" in reasons(jobmon, c)["NO_LIVE_RUN"]
    assert f"Hint: jobmon workflow resume {made.workflow_id}\n" in jobmon("job", "explain", c).output


def test_explain_a_job_that_waits_for_many(jobmon: Jobmon, make: MakeWorkflow) -> None:
    made = make(31, [(number, 30) for number in range(30)])
    assert len(jobmon.json("job", "explain", made.job_ids[30])) == 30
    lines = jobmon("job", "explain", made.job_ids[30]).output.splitlines()
    assert len(lines) == 22 and lines[-1] == "... and 10 more"


def test_the_guide_has_every_reason() -> None:
    view = (ROOT / "sql" / "views" / "job_explanations.sql").read_text(encoding="utf-8")
    reasons = set(re.findall(r"'([A-Z_]{4,})'", view))
    assert len(reasons) > 5
    page = (ROOT / "docs" / "watching.md").read_text(encoding="utf-8")
    section = page.partition("## What explain says")[2].partition("\n## ")[0]
    assert {
        reason for reason in reasons if re.search(rf"^\|.*\b{reason}\b", section, re.MULTILINE)
    } == reasons


# ----------------------------------------------------------------------------------------------------------
# log


@pytest.fixture
def failed(make: MakeWorkflow, tmp_path: Path) -> Made:
    """A job with two attempts that failed, and a third one; of the second there are output files."""
    made = make(max_attempts=3, names=["my job/1"])
    made.start_run(stdout="out", stderr=str(tmp_path / "err"), working_dir=str(tmp_path))
    made.work("the first error")
    second = made.work("exit code 3\nthe second error")[made.job_ids[0]]
    for letter, directory in (("o", tmp_path / "out"), ("e", tmp_path / "err")):
        directory.mkdir()
        text = b"".join(b"%s line %d\n" % (letter.encode(), number) for number in range(100))
        (directory / f"my_job_1.{letter}{second}").write_bytes(text + b"\xff\x1b[31m no line break")
    made.claim()
    return made


def test_log(jobmon: Jobmon, failed: Made, tmp_path: Path) -> None:
    log = ("job", "log", failed.job_ids[0])
    output = jobmon(*log, "--attempt", 2).output
    assert "attempt 2, job instance" in output and ": ERROR on node7" in output
    assert "the second error" in output and "the first error" not in output
    assert f"stdout: {tmp_path}/out/my_job_1.o2" in output and f"stderr: {tmp_path}/err/" in output
    assert "o line 99\n" in output and "e line 99\n" in output
    assert "o line 51\n" in output and "o line 50\n" not in output  # the last 50 lines
    assert "\x1b" not in output and "\ufffd\ufffd[31m no line break" in output
    output = jobmon(*log, "--attempt", 2, "--tail", 2).output
    assert "o line 99\n" in output and "o line 98\n" not in output
    document = jobmon.json(*log, "--attempt", 2, "--tail", 1)
    assert document["job_errors"][0]["description"] == "exit code 3\nthe second error"
    assert document["files"]["stdout"] == {
        "path": f"{tmp_path}/out/my_job_1.o2",
        "text": "\ufffd\x1b[31m no line break",
    }
    # the newest one runs, and its files are elsewhere
    output = jobmon(*log).output
    assert "attempt 3" in output and output.count("(cannot be read on this machine)") == 2
    assert jobmon.json(*log)["files"]["stderr"]["text"] is None
    missing = jobmon(*log, "--attempt", 9, code=3).output
    assert "has no attempt 9" in missing and "1, 2, 3" in missing


def test_warnings_are_told_from_errors(jobmon: Jobmon, make: MakeWorkflow) -> None:
    made = make(max_attempts=1)
    made.start_run()
    ((job_id, instance),) = made.claim().items()
    warning = {"event": "warning", "job_instance_id": instance, "error_message": "no such queue"}
    jobmon.services.requester.post("log_events", events=[warning])
    assert "the newest warning: no such queue" in jobmon("job", "explain", job_id).output
    made.report([(instance, "too much")], job_instance_status="Z", exceeded="mem_free")
    output = jobmon("job", "log", job_id).output
    assert re.search(
        r": RESOURCE_ERROR\b.*\nwarning of .* UTC:\nno such queue\n\nerror of .* UTC:\ntoo much", output, re.S
    )
    assert "warning: no such queue" in jobmon("workflow", "errors", made.workflow_id).output


def test_log_gives_files_byte_for_byte(jobmon: Jobmon, failed: Made, tmp_path: Path) -> None:
    log = ("job", "log", failed.job_ids[0], "--attempt", 2)
    for stream, name in (("stdout", "out/my_job_1.o2"), ("stderr", "err/my_job_1.e2")):
        whole = (tmp_path / name).read_bytes()
        for form in ("table", "quiet"):
            assert jobmon(*log, f"--{stream}", "-o", form).stdout_bytes == whole
        tail = jobmon(*log, f"--{stream}", "--tail", 3).stdout_bytes
        assert tail == b"".join(whole.splitlines(keepends=True)[-3:])
        assert jobmon(*log, f"--{stream}", "--tail", 0).stdout_bytes == b""
    output = jobmon("job", "log", failed.job_ids[0], "--stdout", code=3).output
    assert "not on this machine" in output and "my_job_1.o3" in output
    output = jobmon("job", "log", failed.job_ids[0], "--attempt", 1, "--stdout", code=3).output
    assert "it ran on node7" in output


def test_log_without_directories(jobmon: Jobmon, make: MakeWorkflow) -> None:
    made = make()
    log = ("job", "log", made.job_ids[0])
    output = jobmon(*log, code=3).output
    assert "has made no attempt yet" in output and f"`jobmon job explain {made.job_ids[0]}`" in output
    made.start_run()
    made.work("the error")
    output = jobmon(*log).output
    assert "the error" in output and output.count("not kept: its run has no directory for it") == 2
    assert "was not kept" in jobmon(*log, "--stderr", code=3).output


@pytest.mark.parametrize("end", [b"", b"\n", b"\n\n", b"\r\n"])
@pytest.mark.parametrize("size", [0, 1, 3, 7, 30_000])
def test_the_tail_of_a_file(tmp_path: Path, size: int, end: bytes) -> None:
    path = tmp_path / "file"
    content = b"\n".join(b"line %d" % number for number in range(size)) + end
    path.write_bytes(content)
    lines = re.findall(rb"[^\n]*\n|[^\n]+", content)
    for tail in (0, 1, 2, 3, 8, 20_000, 40_000):
        with path.open("rb") as file:
            start = _start_of_tail(file, tail)
        assert content[start:] == b"".join(lines[len(lines) - min(tail, len(lines)) :])


# ----------------------------------------------------------------------------------------------------------
# retry and kill


def test_retry(jobmon: Jobmon, make: MakeWorkflow, db: Any) -> None:
    made = make(2)
    made.start_run()
    made.work("failed")
    first, second = made.job_ids
    output = jobmon("job", "retry", first).output
    assert "is QUEUED_FOR_INSTANTIATION, 1 of 2 attempts made" in output
    assert "no distributor has claimed it yet" in output and "resume" not in output
    answer = jobmon.json("job", "retry", first, "--max-attempts", 5)
    assert answer["job_dct"]["max_attempts"] == 5 and answer["job_dct"]["status"] == "Q"
    made.work("failed", max_jobs=1)
    made.work(max_jobs=1)
    assert made.end_run() == "E"
    output = jobmon("job", "retry", second).output
    assert f"workflow {made.workflow_id} is ERROR and has no run that lives" in output
    assert f"Hint: jobmon workflow resume {made.workflow_id}" in output
    assert jobmon("job", "retry", second, "-o", "quiet").output == ""
    assert "ILLEGAL_TRANSITION" in jobmon("job", "retry", first, code=1).output
    assert "Error" in jobmon("job", "retry", second, "--max-attempts", 0, code=2).output
    assert db.audits() == {}


def test_retry_below_the_attempts_made(jobmon: Jobmon, make: MakeWorkflow) -> None:
    made = make(max_attempts=2)
    made.start_run()
    made.work("failed")
    made.work("failed")
    output = jobmon("job", "retry", made.job_ids[0], "--max-attempts", 2, code=1).output
    assert "ATTEMPTS_EXHAUSTED" in output and "Hint:" in output


def test_kill(jobmon: Jobmon, make: MakeWorkflow, db: Any) -> None:
    made = make(2, max_attempts=5)
    made.start_run()
    claimed = made.claim(1)
    first, second = made.job_ids
    made.report([(claimed[first], "running")])
    assert "say --yes" in jobmon("job", "kill", first, code=1).output
    output = jobmon("job", "kill", first, "--yes").output
    assert "is ERROR_FATAL, 1 of 1 attempts made" in output and "Killed by request" in output
    assert jobmon.json("job", "kill", first, "--yes")["job_dct"]["status"] == "F"
    output = jobmon("job", "kill", second, "--yes", code=1).output
    assert "JOB_NOT_LIVE" in output and "Hint:" in output
    assert db.audits() == {}
