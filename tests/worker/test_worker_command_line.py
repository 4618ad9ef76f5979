"""Options, settings and what is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from worker_helpers import clean_environment

from jobmon.config import ConfigError, load_config
from jobmon.worker.settings import SettingsError, read_settings

# What would make the worker slow to start.
HEAVY = {
    "http",
    "email",
    "ssl",
    "urllib",
    "logging",
    "subprocess",
    "asyncio",
    "dataclasses",
    "typing",
    "tempfile",
    "random",
}


def invoke(tmp_path: Path, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobmon.worker", *arguments],
        env=clean_environment(tmp_path, **env),
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: JOB_INSTANCE_ID"),
        (["x"], "argument JOB_INSTANCE_ID: expected a number from 1 to"),
        (["0"], "argument JOB_INSTANCE_ID: expected a number from 1 to"),
        (["1.5"], "argument JOB_INSTANCE_ID: expected a number from 1 to"),
        (["7", "--patience", "-1"], "argument --patience: expected a number from 0 to"),
        (["7", "--heartbeat-seconds", "0"], "argument --heartbeat-seconds: expected a number from 0.1 to"),
        (["7", "--heartbeat-seconds", "nan"], "argument --heartbeat-seconds: expected a number from 0.1 to"),
        (
            ["7", "--kill-after", "soon"],
            "argument --kill-after: expected a number from 0 to 86400, not 'soon'",
        ),
        (["7", "--executor-id", ""], "argument --executor-id: expected 1 to 64 characters"),
        (["7", "--pat", "3"], "unrecognized arguments: --pat"),
    ],
)
def test_wrong_use(tmp_path: Path, arguments: list[str], said: str) -> None:
    done = invoke(tmp_path, *arguments)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_help(tmp_path: Path) -> None:
    done = invoke(tmp_path, "--help")
    assert done.returncode == 0
    assert "--kill-after" in done.stdout


def test_wrong_settings(tmp_path: Path) -> None:
    done = invoke(tmp_path, "7", JOBMON_JSM_PORT="many")
    assert done.returncode == 2
    assert "JOBMON_JSM_PORT: expected a whole number from 1 to 65535, not 'many'" in done.stderr
    assert "Traceback" not in done.stderr


SETTINGS: list[tuple[dict[str, str], Any]] = [
    ({}, None),
    ({}, {}),
    ({}, {"host": "db1", "jsm_port": 6000, "token": "t"}),
    ({}, {"jsm_host": "db1", "jsm_port": "6000"}),
    ({}, {"jsm_host": "db1", "host": "db2", "token": None, "jsm_port": 6000.0}),
    ({}, {"jsm_host": "db1", "host": None, "jqs_host": "x", "jqs_port": 1, "verbose": True}),
    ({"JOBMON_HOST": "h", "JOBMON_JSM_PORT": " 7000 ", "JOBMON_TOKEN": "e"}, {"host": "db1", "token": "t"}),
    ({"JOBMON_JSM_HOST": "h"}, {"host": "db1"}),
    ({"JOBMON_JSM_HOST": "h", "JOBMON_HOST": "g"}, None),
    ({"JOBMON_JSM_HOST": "h", "JOBMON_HOST": ""}, None),
    ({"JOBMON_HOST": "", "JOBMON_TOKEN": "", "JOBMON_JSM_PORT": ""}, {"host": " db1 ", "token": "t"}),
    ({"JOBMON_JSM_PORT": "0"}, None),
    ({"JOBMON_JSM_PORT": "tcp://10.0.0.1:7056"}, None),
    ({"JOBMON_HOST": "http://h"}, None),
    ({"JOBMON_TOKEN": "a b"}, None),
    ({"JOBMON_TOKEN": "a\nb"}, None),
    ({}, {"token": 5}),
    ({}, {"jsm_port": True}),
    ({}, {"jsm_port": 1.5}),
    ({}, {"host": ["x"]}),
    ({}, ["no object"]),
    ({}, "broken"),
    ({"JOBMON_RC": "other"}, {"host": "home"}),
    ({"JOBMON_RC": "missing"}, {"host": "home"}),
    ({"JOBMON_CONFIG": "other"}, {"host": "home"}),
    ({"JOBMON_CONFIG": "missing", "JOBMON_RC": "other"}, {"host": "home"}),
]


@pytest.mark.parametrize(("env", "rc"), SETTINGS)
def test_settings_are_those_of_jobmon_config(tmp_path: Path, env: dict[str, str], rc: Any) -> None:
    if rc is not None:
        text = "{" if rc == "broken" else json.dumps(rc)
        (tmp_path / ".jobmonrc").write_text(text)
        (tmp_path / ".jobmonrc").chmod(0o600)
    (tmp_path / "other").write_text('{"host": "elsewhere"}')
    for variable in ("JOBMON_RC", "JOBMON_CONFIG"):
        if variable in env:
            env = {**env, variable: str(tmp_path / env[variable])}
    env = {**env, "HOME": str(tmp_path)}
    try:
        config = load_config(env=env)
    except ConfigError as error:
        with pytest.raises(SettingsError) as found:
            read_settings(env)
        # the same place is to blame
        assert str(found.value).split(": ")[0] == str(error).split(": ")[0]
    else:
        settings = read_settings(env)
        assert (settings.host, settings.port, settings.token) == (config.host, config.jsm_port, config.token)


def test_what_is_imported(tmp_path: Path) -> None:
    """For a whole life: from the standard library, little of it, and of jobmon only the worker."""
    program = (
        "import sys\nbefore = set(sys.modules)\n"
        "import jobmon.worker.main, jobmon.worker.reporter\n"
        "print(*sorted(set(sys.modules) - before))"
    )
    # without site, so that nothing but the standard library and the clone can be found
    done = subprocess.run(
        [sys.executable, "-S", "-c", program],
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    modules = set(done.stdout.split())
    own = {name for name in modules if name.split(".")[0] == "jobmon"}
    assert own == {"jobmon", "jobmon.worker"} | {
        f"jobmon.worker.{path.stem}"
        for path in (Path(__file__).parents[2] / "jobmon" / "worker").glob("*.py")
        if not path.stem.startswith("__")
    }
    others = {name.split(".")[0] for name in modules - own}
    assert others <= sys.stdlib_module_names
    assert modules & HEAVY == set()
    assert len(modules) < 80


def test_what_is_imported_before_the_forks(tmp_path: Path) -> None:
    program = (
        "import sys; from jobmon.worker import main; main.make_parser().parse_args(['7'])\n"
        "print(*({'socket', 'threading', 'shutil', 'tempfile'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env=clean_environment(tmp_path),
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.split() == []
