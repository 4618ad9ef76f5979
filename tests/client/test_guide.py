"""The guide in docs/workflows.md does what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from client_helpers import ROOT, Services

import jobmon
from jobmon.client import errors

GUIDE = (ROOT / "docs" / "workflows.md").read_text()


def test_its_programs_run(
    services: Services,
    db: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, value in services.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "logs").mkdir()
    (tmp_path / "count.py").write_text("import sys; print(len(sys.argv))")
    first, sims, again, refused = re.findall(r"```python\n(.*?)```", GUIDE, re.DOTALL)
    names: dict[str, Any] = {}
    exec(first, names)
    (shown,) = re.findall(r"```text\n(.*?)```", GUIDE, re.DOTALL)
    assert re.sub(r"[\d.]+", "N", capfd.readouterr().out) == re.sub(r"[\d.]+", "N", shown)
    assert names["result"]
    exec(sims, names)
    said = capfd.readouterr().out
    assert "ERROR {'ERROR_FATAL': 1, 'DONE': 20}" in said and "hopeless exit code 1\nno luck" in said
    exec(again, names)
    assert names["result"].counts == {"ERROR_FATAL": 1, "DONE": 20}
    assert names["result"].errors[0].num_attempts == 2
    exec(refused, names)
    said = capfd.readouterr().out
    assert "'example': all its jobs are DONE since a former run\nOther workflow_args" in said
    assert len(list((tmp_path / "logs").iterdir())) == 6


def test_it_names_every_error_and_every_argument() -> None:
    for name, error in vars(errors).items():
        if isinstance(error, type) and issubclass(error, errors.JobmonError):
            assert f"`{name}`" in GUIDE, name
    for kind in (jobmon.BashTask, jobmon.Workflow, jobmon.Workflow.run):
        function = kind.__init__ if isinstance(kind, type) else kind
        code = function.__code__
        for name in code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]:
            assert f"`{name}`" in GUIDE, name
    for member in jobmon.AttributeType:
        assert re.search(rf"\b{member.name}\b", GUIDE), member


def test_the_readme_s_program_runs(
    services: Services,
    db: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    for name, value in services.environ.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    (program,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    exec(program, {})
    assert "12 of 12 jobs DONE" in capfd.readouterr().out
    counts = [sum(str(digit) in str(number) for number in range(1, 1001)) for digit in range(10)]
    assert int((tmp_path / "total.txt").read_text()) == sum(counts)
