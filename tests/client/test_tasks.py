"""Tasks: the commands they make, and the arguments they refuse."""

from __future__ import annotations

import hashlib
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from jobmon import AttributeType, BashTask, JobmonError, PythonTask, RTask, StataTask, Task
from jobmon.client.errors import InvalidTask


def shell(command: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["/bin/bash", "-c", command], capture_output=True, text=True, timeout=60, **options)


def test_the_hash_is_the_sha1_of_the_command() -> None:
    task = BashTask("echo 'grüße'")
    assert task.job_hash == int(hashlib.sha1("echo 'grüße'".encode()).hexdigest(), 16)
    assert f"{BashTask('true').job_hash:040x}" == "5ffe533b830f08a0326348a9160afafc8ada44db"


def test_what_a_task_has_when_nothing_is_said() -> None:
    task = BashTask("true")
    assert (task.name, task.slots, task.mem_free, task.max_attempts) == ("true", 1, 2, 3)
    assert (task.max_runtime, task.tag, task.context_args) == (None, None, None)
    assert task.upstream_tasks == [] and task.job_attributes == {} and task.resource_scales == {}
    assert repr(task) == "BashTask 'true'"


def test_names_come_from_the_command() -> None:
    assert BashTask("echo  a\n  b").name == "echo a b"
    assert BashTask("true", name="x").name == "x"
    assert BashTask("true", env_variables={"A": 1}).name == "true"
    long = BashTask("echo " + "x" * 500)
    assert len(long.name) == 60 and long.name.endswith("...")
    assert PythonTask(script="/some/where/model.py", args=["--draws", 10]).name == "model.py --draws 10"
    assert PythonTask(script="/some/where/model.py", name="fit").name == "fit"


def test_environment_variables_are_part_of_the_command() -> None:
    values = {"TEXT": "a 'b' $HOME; \"c\"", "A_1": 5, "EMPTY": ""}
    task = BashTask('echo "$TEXT|$A_1|$EMPTY|"', env_variables=values)
    assert shell(task.command).stdout == "a 'b' $HOME; \"c\"|5||\n"
    assert task.job_hash == BashTask(task.command).job_hash
    assert task.job_hash != BashTask('echo "$TEXT|$A_1|$EMPTY|"').job_hash
    backwards = BashTask('echo "$TEXT|$A_1|$EMPTY|"', env_variables=dict(reversed(values.items())))
    assert backwards.job_hash == task.job_hash


def test_environment_variables_hold_for_every_part_of_the_command() -> None:
    assert shell(BashTask("true && echo $A", env_variables={"A": "x"}).command).stdout == "x\n"


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A B", "A=B", "A;ls", "JOBMON_JOB_ID", "Ä"])
def test_names_of_variables_are_checked(name: str) -> None:
    with pytest.raises(InvalidTask, match="environment variable"):
        BashTask("true", env_variables={name: "x"})


def test_arguments_of_scripts_arrive_as_they_are(tmp_path: Path) -> None:
    script = tmp_path / "a script.py"
    script.write_text("import sys, json; print(json.dumps(sys.argv[1:]))")
    args = ["a b", "'", '"', "$HOME", "*", "", "ä", 3, 0.5, Path("/x y")]
    task = PythonTask(script=script, args=args)
    assert task.command.startswith(sys.executable)
    assert json.loads(shell(task.command).stdout) == [str(arg) for arg in args]


def test_a_home_directory_is_filled_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert PythonTask(script="~/x.py", path_to_python_binary="~/py/bin/python").command == (
        f"{tmp_path}/py/bin/python {tmp_path}/x.py"
    )


def test_r_scripts() -> None:
    assert RTask(script="/a/fit.R", args=["x y", 2]).command == "Rscript /a/fit.R 'x y' 2"
    assert RTask(script="/a/fit.R", path_to_R_binary="/opt/R/Rscript").command == "/opt/R/Rscript /a/fit.R"


def fake_stata(directory: Path, body: str) -> Path:
    """A program that is called as Stata is."""
    path = directory / "stata-mp"
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)
    return path


def test_stata_scripts_get_their_arguments(tmp_path: Path) -> None:
    stata = fake_stata(tmp_path, 'for word in "$@"; do echo "[$word]"; done; cat')
    done = shell(StataTask(script="/a/fit.do", args=["x y", 2], path_to_stata_binary=stata).command)
    assert done.stdout.split("\n") == ["[-q]", "[do]", "[/a/fit.do]", "[x y]", "[2]", ""]
    assert done.returncode == 0


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ("echo fine; exit 0", 0),
        # Stata ends with 0 after an error in a do-file
        ("echo 'variable x not found'; echo 'r(111);'; echo 'end of do-file'; echo 'r(111);'; exit 0", 1),
        ("echo 'see r(111); for it'; exit 0", 0),
        ("exit 9", 9),  # exit 9, STATA clear
    ],
)
def test_errors_of_stata_are_seen(tmp_path: Path, body: str, code: int) -> None:
    task = StataTask(script="/a/fit.do", path_to_stata_binary=fake_stata(tmp_path, body))
    assert shell(task.command).returncode == code


def test_upstreams() -> None:
    first, second = BashTask("echo 1"), BashTask("echo 2")
    task = BashTask("echo 3", upstream_tasks=[first])
    task.add_upstream(second)
    task.add_upstream(first)
    assert task.upstream_tasks == [first, second]
    last = BashTask("echo 4")
    task.add_downstream(last)
    assert last.upstream_tasks == [task]


def test_attributes() -> None:
    task = BashTask("true", job_attributes={"NUM_DRAWS": 1000, AttributeType.TAG: "x", 4: "5", 99: "y"})
    task.add_job_attribute("num_draws", 500)
    assert task.job_attributes == {2: "500", 8: "x", 4: "5", 99: "y"}
    for attribute_type, value in (("NUM_DRAWS", "many"), ("NUM_DRAFTS", 1), ("TAG", "x" * 256)):
        with pytest.raises(InvalidTask):
            task.add_job_attribute(attribute_type, value)


def test_numbers_of_any_kind_are_taken() -> None:
    class Index:
        def __index__(self) -> int:
            return 7

    task = BashTask("true", slots=4.0, max_runtime=Index(), mem_free=0)  # type: ignore[arg-type]
    assert (task.slots, task.max_runtime, task.mem_free) == (4, 7, 0)


@pytest.mark.parametrize(
    "options",
    [
        {"slots": 0},
        {"slots": 1.5},
        {"slots": "2"},
        {"slots": True},
        {"slots": 2**31},
        {"mem_free": -1},
        {"mem_free": None},
        {"max_attempts": 0},
        {"max_runtime": 0},
        {"max_runtime": float("inf")},
        {"name": ""},
        {"name": "x" * 256},
        {"name": 5},
        {"tag": "x" * 256},
        {"tag": 5},
        {"context_args": {"x": object()}},
        {"resource_scales": [("mem_free", 0.5)]},
        {"resource_scales": {"slots": 0.5}},
        *({"resource_scales": {"mem_free": scale}} for scale in (-0.1, 1000, True, "0.5", None, math.nan)),
        {"upstream_tasks": ["true"]},
        {"upstream_tasks": BashTask("echo up")},
        {"env_variables": {"A": "\0"}},
    ],
)
def test_arguments_that_can_not_be_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidTask) as caught:
        BashTask("true", **options)
    assert isinstance(caught.value, JobmonError) and isinstance(caught.value, ValueError)


@pytest.mark.parametrize("command", ["", " \n", ["echo", "1"], None, "a\0b", "echo \udcff", "x" * 131_001])
def test_commands_that_can_not_be_are_refused(command: Any) -> None:
    with pytest.raises(InvalidTask):
        BashTask(command)


def test_the_longest_command_can_be_started() -> None:
    task = BashTask("true " + "x" * 130_995)
    assert shell(task.command).returncode == 0


@pytest.mark.parametrize("options", [{"script": ""}, {"script": None}, {"script": "x.py", "args": "a b"}])
def test_script_tasks_refuse_what_can_not_be(options: dict[str, Any]) -> None:
    for kind in (PythonTask, RTask, StataTask):
        with pytest.raises(InvalidTask):
            kind(**options)


def test_all_kinds_take_the_options_of_a_task() -> None:
    first = BashTask("true")
    options: dict[str, Any] = {
        "upstream_tasks": [first], "name": "n", "slots": 2, "mem_free": 3, "max_attempts": 4,
        "max_runtime": 5, "env_variables": {"A": "b"}, "tag": "t", "job_attributes": {1: 2},
        "context_args": {"queue": "long"}, "resource_scales": {"mem_free": 0.5, "max_runtime": 1},
    }  # fmt: skip
    made: list[Task] = [BashTask("x", **options)]
    made += [kind(script="x", **options) for kind in (PythonTask, RTask, StataTask)]
    for task in made:
        assert task.upstream_tasks == [first] and task.command.startswith("export A=b; ")
        assert (task.name, task.slots, task.mem_free, task.max_attempts) == ("n", 2, 3, 4)
        assert (task.max_runtime, task.tag, task.job_attributes) == (5, "t", {1: "2"})
        assert json.loads(task.context_args or "") == {"queue": "long"}
        assert task.resource_scales == {"mem_free": 0.5, "max_runtime": 1.0}


def test_the_package_itself_is_light() -> None:
    """The worker imports the package; what it does not need must not be loaded."""
    program = (
        "import sys, jobmon; heavy = {'requests', 'rich', 'orjson', 'pymysql', 'flask', 'jobmon.client'};"
        "print(sorted(heavy & set(sys.modules)));"
        "jobmon.BashTask('true'); print('jobmon.client' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60,
        cwd=Path(__file__).resolve().parents[2], env={**os.environ, "PYTHONPATH": ""},
    )  # fmt: skip
    assert done.stdout.split("\n") == ["[]", "True", ""], done.stderr


def test_the_package_names_what_it_has() -> None:
    import jobmon

    assert set(jobmon.__all__) <= set(dir(jobmon))
    for name in jobmon.__all__:
        assert getattr(jobmon, name).__name__ == name
    with pytest.raises(AttributeError, match="Worklow"):
        _ = jobmon.Worklow  # type: ignore[attr-defined]
