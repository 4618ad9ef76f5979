"""``jobmon run``: scripts, TOML files and single commands, run for real."""

from __future__ import annotations

import json
import re
import signal
from pathlib import Path
from typing import Any

import pytest
from cli_helpers import ROOT, Jobmon
from waiting import until

# ----------------------------------------------------------------------------------------------------------
# FILE.toml

WORKFLOW = """
name = "burden"
workflow_args = "2026-11"
description = "an example"
stdout = "out"
stderr = "err"
priority = 3

[run]
executor = "local"
max_concurrently_running = 2

[[task]]
name = "sum"
command = "cat a b > sum"
upstream = ["a", "b"]

[[task]]
name = "a"
command = "echo $NAME > a"
max_attempts = 2
max_runtime = 60
slots = 2
mem_free = 3
tag = "small"
env = {NAME = "it's a", NUMBER = 7}
resource_scales = {mem_free = 0.5}

[[task]]
name = "b"
command = "echo b > b; echo seen; echo why >&2"
"""


def test_a_toml_file(jobmon: Jobmon, tmp_path: Path, db: Any) -> None:
    (tmp_path / "wf.toml").write_text(WORKFLOW)
    for name in ("out", "err"):
        (tmp_path / name).mkdir()
    done = jobmon.run("run", "wf.toml", cwd=tmp_path)
    assert re.search(r"Workflow \d+ 'burden', run \d+: DONE\n3 of 3 jobs DONE", done.stdout), done.stdout
    assert (tmp_path / "sum").read_text() == "it's a\nb\n"
    [workflow] = jobmon.services.requester.get_rows("workflows")
    assert workflow["workflow_args"] == "2026-11" and workflow["priority"] == 3
    assert workflow["max_concurrently_running"] == 2
    jobs = {job["name"]: job for job in jobmon.services.requester.get_rows("jobs")}
    kept = {key: jobs["a"][key] for key in ("max_attempts", "max_runtime", "slots", "mem_free", "tag")}
    assert kept == {"max_attempts": 2, "max_runtime": 60, "slots": 2, "mem_free": 3, "tag": "small"}
    assert (jobs["a"]["mem_free_scale"], jobs["a"]["max_runtime_scale"]) == (0.5, None)
    # the output is found where the file put it
    for stream, text in (("stdout", "seen\n"), ("stderr", "why\n")):
        assert jobmon("job", "log", jobs["b"]["job_id"], f"--{stream}").output == text
    again = jobmon.run("run", "wf.toml", cwd=tmp_path)
    assert "all its jobs are DONE" in again.stdout and "--workflow-args" in again.stdout
    assert json.loads(jobmon.run("run", "-o", "json", "wf.toml", cwd=tmp_path).stdout) == {
        "workflow_id": workflow["workflow_id"],
        "workflow_run_id": None,
        "status": "DONE",
    }
    other = jobmon.run("run", "--workflow-args", "x", "-o", "quiet", "wf.toml", cwd=tmp_path)
    assert int(other.stdout) == workflow["workflow_id"] + 1 and other.stderr == ""
    assert db.audits() == {}


def test_a_toml_file_whose_jobs_fail(jobmon: Jobmon, tmp_path: Path) -> None:
    (tmp_path / "wf.toml").write_text(
        '[[task]]\nname = "bad"\ncommand = "test -e there || { echo why >&2; exit 3; }"\nmax_attempts = 2\n'
        '[[task]]\ncommand = "true"\nupstream = ["bad"]\n'
    )
    failed = jobmon.run("run", "wf.toml", code=1, cwd=tmp_path)
    assert "'wf', run 1: ERROR" in failed.stdout
    assert "bad (attempt 2): exit code 3: why" in failed.stdout
    document = json.loads(jobmon.run("run", "-o", "json", "wf.toml", code=1, cwd=tmp_path).stdout)
    assert document["status"] == "ERROR" and document["counts"] == {"REGISTERED": 1, "ERROR_FATAL": 1}
    assert document["errors"][0]["message"] == "exit code 3\nwhy\n"
    # the second time resumed the first one's workflow; so does the third
    (tmp_path / "there").touch()
    document = json.loads(jobmon.run("run", "-o", "json", "wf.toml", cwd=tmp_path).stdout)
    assert document["workflow_id"] == 1 and document["workflow_run_id"] == 3
    jobmon("workflow", "status", 1, "--exit-code")


def test_the_example_of_the_documentation(jobmon: Jobmon, tmp_path: Path) -> None:
    page = (ROOT / "docs" / "watching.md").read_text(encoding="utf-8")
    [example] = re.findall(r"^```toml\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "workflow.toml").write_text(example)
    assert "'example', run 1: DONE" in jobmon.run("run", "workflow.toml", cwd=tmp_path).stdout
    assert (tmp_path / "count.txt").read_text() == "1000 numbers.txt\n"


TASK = '[[task]]\nname = "a"\ncommand = "true"\n'
WRONG = [
    ("", "there is no task"),
    ("name = ", "is no TOML"),
    (b"name = '\xff'", "is not UTF-8"),
    ('nme = "x"\n' + TASK, "unknown key 'nme'.*did you mean name?"),
    ("name = 3\n" + TASK, "name: expected a text, not 3"),
    ("priority = true\n" + TASK, "priority: expected a whole number, not True"),
    ("task = 3", "task: expected a list, not 3"),
    ("task = [3]", "task 1: expected a table"),
    ('run = "local"\n' + TASK, "run: expected a table, not 'local'"),
    (TASK + '[run]\nexecutr = "local"\n', "run: unknown key 'executr'.*did you mean executor?"),
    (TASK + '[run]\nexecutor = "cloud"\n', "run: there is no executor 'cloud'.*local"),
    (TASK + "[run]\nmax_concurrently_running = 0\n", "run: max_concurrently_running: expected .* not 0"),
    (TASK + "colour = 3\n", "task 'a': unknown key 'colour'.*keys are name, command"),
    (TASK + "comand = 3\n", "task 'a': unknown key 'comand'.*did you mean command?"),
    ('[[task]]\nname = "a"\n', "task 'a': the command is missing or empty"),
    ("[[task]]\ncommand = 3\n", "task 1: command: expected a text, not 3"),
    ('[[task]]\ncommand = ""\n', "task 1: the command is missing or empty"),
    (TASK + "max_attempts = 0\n", "task 'a': .*max_attempts must be"),
    (TASK + "max_runtime = 1.5\n", "task 'a': max_runtime: expected a whole number, not 1.5"),
    (TASK + "mem_free = 99999999999\n", "task 'a': .*mem_free must be"),
    (TASK + 'upstream = "a"\n', "task 'a': upstream: expected a list"),
    (TASK + "upstream = [3]\n", "task 'a': upstream: there is no task 3"),
    (
        TASK + '[[task]]\nname = "b"\ncommand = "false"\nupstream = ["aa"]\n',
        "task 'b': upstream: there is no task 'aa'.*did you mean a?",
    ),
    (TASK + 'upstream = ["a"]\n', "circle"),
    (TASK + '[[task]]\nname = "a"\ncommand = "false"\n', "task 'a': another task has this name"),
    (TASK + '[[task]]\nname = "b"\ncommand = "true"\n', "same command"),
    (TASK + "env = {A = true}\n", "task 'a': env.A: expected a text or a number, not True"),
    (TASK + 'env = {"A-B" = 1}\n', "task 'a': .*'A-B' can't be the name"),
    ('name = "' + "x" * 200 + '"\n' + TASK, "wf.toml: name must be"),
]


@pytest.mark.parametrize(("text", "expected"), WRONG, ids=[expected for _, expected in WRONG])
def test_a_wrong_toml_file(jobmon: Jobmon, tmp_path: Path, db: Any, text: str | bytes, expected: str) -> None:
    path = tmp_path / "wf.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    output = jobmon("run", path, code=1).output
    assert re.search(expected, output, re.DOTALL), output
    assert "Error: " in output and "should not have happened" not in output
    # nothing was written
    assert db.query("SELECT COUNT(*) FROM task_dag") == [(0,)]


# ----------------------------------------------------------------------------------------------------------
# -- COMMAND


def test_a_command(jobmon: Jobmon, tmp_path: Path) -> None:
    done = jobmon.run(
        "run", "--stdout", "out", "--name", "hello", "--", "echo", "a  b", "$HOME", cwd=tmp_path
    )
    assert "'hello', run 1: DONE" in done.stdout
    [job] = jobmon.services.requester.get_rows("jobs")
    # each word is passed on as it is; the directory was made
    assert jobmon("job", "log", job["job_id"], "--stdout").output == "a  b $HOME\n"
    assert job["max_attempts"] == 1
    # the same command again is another workflow
    jobmon.run("run", "--", "echo", "a  b", "$HOME", cwd=tmp_path)
    assert len(jobmon.ids("workflow", "list")) == 2


def test_a_line_of_bash(jobmon: Jobmon, tmp_path: Path) -> None:
    jobmon.run("run", "--", "echo a | tr a b > file; echo -- >> file", cwd=tmp_path)
    assert (tmp_path / "file").read_text() == "b\n--\n"


def test_a_command_that_fails(jobmon: Jobmon, tmp_path: Path) -> None:
    failed = jobmon.run("run", "--max-attempts", 3, "--", "exit 7", code=1, cwd=tmp_path)
    assert "ERROR" in failed.stdout and "(attempt 3): exit code 7" in failed.stdout
    slow = jobmon.run("run", "--max-runtime", 1, "-o", "json", "--", "sleep", 600, code=1, cwd=tmp_path)
    assert "max_runtime of 1 s exceeded" in json.loads(slow.stdout)["errors"][0]["message"]


def test_an_interrupted_command_is_stopped(jobmon: Jobmon, tmp_path: Path) -> None:
    log = tmp_path / "log"
    command = ("run", "-o", "json", "--", "touch started; sleep 600")
    process = jobmon.start(*command, cwd=tmp_path, stderr=log.open("w"))
    until((tmp_path / "started").exists, "the start of the command")
    process.send_signal(signal.SIGINT)
    until(lambda: "a second interrupt kills them" in log.read_text(), "what it says to the first one")
    process.send_signal(signal.SIGINT)
    stdout, _ = process.communicate(timeout=60)
    assert process.returncode == 4, log.read_text()
    assert json.loads(stdout)["status"] == "STOPPED"
    jobmon("workflow", "status", 1, "--exit-code", code=4)


# ----------------------------------------------------------------------------------------------------------
# FILE.py

SCRIPT = """
import sys
from jobmon import BashTask, Workflow

workflow = Workflow("v1", "script")
workflow.add_task(BashTask("exit " + sys.argv[1]))
if __name__ == "__main__":
    result = workflow.run(progress=False)
    print(sys.argv, result.status)
    import beside
    sys.exit(beside.code(result))
"""


def test_a_script(jobmon: Jobmon, tmp_path: Path) -> None:
    directory = tmp_path / "scripts"
    directory.mkdir()
    (directory / "wf.py").write_text(SCRIPT)
    (directory / "beside.py").write_text("def code(result):\n    return 0 if result else 17\n")
    done = jobmon.run("run", "scripts/wf.py", 0, "--", "--name", cwd=tmp_path)
    assert done.stdout == f"['{directory}/wf.py', '0', '--', '--name'] DONE\n"
    failed = jobmon.run("run", "scripts/wf.py", 1, code=17, cwd=tmp_path)
    assert failed.stdout == f"['{directory}/wf.py', '1'] ERROR\n"


def test_the_configuration_is_the_scripts(jobmon: Jobmon, tmp_path: Path) -> None:
    (tmp_path / "wf.py").write_text("import jobmon\nprint(jobmon.Requester().config.jsm_port)\n")
    (tmp_path / "rc").write_text('{"jsm_port": 4711}')
    done = jobmon.run("--config", "rc", "run", "wf.py", cwd=tmp_path)
    assert done.stdout == "4711\n"


def test_a_script_that_fails(jobmon: Jobmon, tmp_path: Path) -> None:
    path = tmp_path / "wf.py"
    path.write_text("def f():\n    return 1 / 0\n\nf()\n")
    failed = jobmon.run("run", "wf.py", code=1, cwd=tmp_path)
    first, *lines = failed.stderr.splitlines()
    assert first == "Traceback (most recent call last):"
    assert re.search(r"^ZeroDivisionError", lines[-1])
    # as Python shows it: with the script's frames only
    assert [text.rsplit(", in ", 1)[1] for text in lines if text.startswith("  File")] == ["<module>", "f"]
    path.write_text("x = = 3\n")
    assert "SyntaxError" in jobmon.run("run", "wf.py", code=1, cwd=tmp_path).stderr
    path.write_text("import sys\nsys.exit('a message')\n")
    assert jobmon.run("run", "wf.py", code=1, cwd=tmp_path).stderr == "a message\n"
    path.write_text("from jobmon import BashTask\n\nBashTask('true', max_attempts=0)\n")
    failed = jobmon.run("run", "wf.py", code=1, cwd=tmp_path)
    assert re.match(r"Error: wf\.py:3: .*max_attempts must be", failed.stderr)
    assert "Traceback" not in failed.stderr


# ----------------------------------------------------------------------------------------------------------
# Usage


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ([], "Say what to run"),
        (["--"], "Say what to run"),
        (["echo", "a b"], "jobmon run -- echo 'a b'"),
        (["wf.toml", "x"], "takes no arguments"),
        (["wf.toml", "--", "x"], "takes no arguments"),
        (["--name", "x", "--max-runtime", "3", "wf.toml"], "--max-runtime, --name is for a COMMAND"),
        (["--executor", "local", "wf.py"], "--executor would have no effect"),
        (["--detach", "wf.py"], "--detach would have no effect"),
        (["--detach", "--executor", "local", "--", "true"], "not with --detach"),
        (["--executor", "cloud", "--", "true"], "cloud"),
        (["--max-attempts", "0", "--", "true"], "--max-attempts"),
        (["--nme", "x", "--", "true"], "--nme"),
    ],
)
def test_usage(jobmon: Jobmon, arguments: list[str], expected: str) -> None:
    assert expected in jobmon("run", *arguments, code=2).output


@pytest.mark.parametrize("name", ["none.py", "none.toml", "none/x.toml"])
def test_a_file_that_is_not_there(jobmon: Jobmon, tmp_path: Path, name: str) -> None:
    output = jobmon("run", tmp_path / name, code=1).output
    assert name in output and "no such file" in output.lower()


def test_a_command_that_cannot_be(jobmon: Jobmon) -> None:
    assert "The command is empty" in jobmon("run", "--", " ", code=2).output
    assert "bytes are the most" in jobmon("run", "--", "x" * 200_000, code=1).output


def test_nothing_runs_while_the_services_are_away(jobmon: Jobmon, tmp_path: Path) -> None:
    (tmp_path / "rc").write_text('{"jsm_port": 1, "jqs_port": 1}')
    process = jobmon.start("--config", "rc", "run", "--", "touch ran", cwd=tmp_path)
    _, stderr = process.communicate(timeout=120)
    assert process.returncode == 1
    assert "no answer" in stderr and "Hint: Is Jobmon running?" in stderr and "Traceback" not in stderr
    assert not (tmp_path / "ran").exists()
