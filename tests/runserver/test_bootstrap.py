"""The set-up of the virtual environment: once, again only when something changed, never two at once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path

import pytest

from jobmon import bootstrap
from jobmon.bootstrap import BootstrapError

REPO = Path(bootstrap.__file__).resolve().parent.parent


class Installs(list[tuple[str, ...]]):
    """What was installed, instead of doing it."""

    def __call__(self, repo: Path, directory: Path, extras: Iterable[str], log: bootstrap.Log) -> None:
        self.append(tuple(sorted(extras)))


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A clone of nothing, with HOME elsewhere."""
    monkeypatch.delenv("JOBMON_VENV", raising=False)
    monkeypatch.delenv("JOBMON_STATE_DIR", raising=False)
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    made = tmp_path / "clone"
    made.mkdir()
    (made / "pyproject.toml").write_text("[project]\nname = 'x'\nversion = '1'\n")
    return made


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> Installs:
    calls = Installs()
    monkeypatch.setattr(bootstrap, "install", calls)

    def create(directory: Path, log: bootstrap.Log) -> None:
        (directory / "bin").mkdir(parents=True, exist_ok=True)
        (directory / bootstrap.STARTED).touch()
        if not bootstrap.environment_python(directory).exists():
            bootstrap.environment_python(directory).symlink_to(sys.executable)

    monkeypatch.setattr(bootstrap, "create_environment", create)
    return calls


def test_the_second_run_does_nothing(repo: Path, installs: Installs) -> None:
    said: list[str] = []
    python = bootstrap.ensure_environment(repo, log=said.append)
    assert python == repo / ".venv" / "bin" / "python"
    assert said
    said.clear()
    assert bootstrap.ensure_environment(repo, log=said.append) == python
    assert said == []
    assert installs == [()]


def test_a_changed_pyproject_is_installed_again(repo: Path, installs: Installs) -> None:
    bootstrap.ensure_environment(repo, log=str)
    (repo / "pyproject.toml").write_text("[project]\nname = 'x'\nversion = '2'\n")
    bootstrap.ensure_environment(repo, log=str)
    assert installs == [(), ()]


def test_extras_add_up(repo: Path, installs: Installs) -> None:
    bootstrap.ensure_environment(repo, log=str)
    bootstrap.ensure_environment(repo, ["test"], log=str)
    bootstrap.ensure_environment(repo, log=str)
    (repo / "pyproject.toml").write_text("changed")
    bootstrap.ensure_environment(repo, log=str)
    assert installs == [(), ("test",), ("test",)]


def test_a_moved_clone_is_installed_again(repo: Path, installs: Installs) -> None:
    bootstrap.ensure_environment(repo, log=str)
    moved = repo.rename(repo.with_name("moved"))
    bootstrap.ensure_environment(moved, log=str)
    assert len(installs) == 2


def test_an_environment_whose_python_is_gone_is_made_again(repo: Path, installs: Installs) -> None:
    python = bootstrap.ensure_environment(repo, log=str)
    python.unlink()
    python.symlink_to("/no/such/python")
    with pytest.MonkeyPatch.context() as patch:
        made: list[Path] = []
        patch.setattr(bootstrap, "create_environment", lambda directory, log: made.append(directory))
        bootstrap.ensure_environment(repo, log=str)
    assert made == [repo / ".venv"]


def test_a_failed_installation_is_done_again(
    repo: Path, installs: Installs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise BootstrapError("no network", "plug it in")

    with monkeypatch.context() as patch:
        patch.setattr(bootstrap, "install", fail)
        with pytest.raises(BootstrapError):
            bootstrap.ensure_environment(repo, log=str)
    assert not bootstrap.is_current(repo, repo / ".venv")
    bootstrap.ensure_environment(repo, log=str)
    assert installs == [()]


@pytest.mark.parametrize("stamp", ["", "{", "[]", '{"fingerprint": 3}', '{"extras": "test"}'])
def test_a_damaged_stamp_counts_as_none(repo: Path, installs: Installs, stamp: str) -> None:
    bootstrap.ensure_environment(repo, log=str)
    (repo / ".venv" / bootstrap.STAMP).write_text(stamp)
    bootstrap.ensure_environment(repo, log=str)
    assert len(installs) == 2


def test_two_at_once_install_once(repo: Path, installs: Installs, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []

    def slow(*arguments: object) -> None:
        deadline = time.monotonic() + 60
        while not any("waiting" in line for line in said) and time.monotonic() < deadline:
            time.sleep(0.01)
        installs.append(())

    monkeypatch.setattr(bootstrap, "install", slow)
    threads = [
        threading.Thread(target=bootstrap.ensure_environment, args=(repo, (), said.append)) for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(installs) == 1
    assert any("waiting" in line for line in said)


def test_jobmon_venv_names_the_place(
    repo: Path, installs: Installs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JOBMON_VENV", str(tmp_path / "elsewhere"))
    assert bootstrap.ensure_environment(repo, log=str) == tmp_path / "elsewhere" / "bin" / "python"
    assert not (repo / ".venv").exists()


def test_someone_elses_clone_gets_an_environment_of_ones_own(
    repo: Path, installs: Installs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    access = os.access
    monkeypatch.setattr(
        os, "access", lambda path, mode: not str(path).startswith(str(repo)) and access(path, mode)
    )
    python = bootstrap.ensure_environment(repo, log=str)
    assert python.is_relative_to(tmp_path / "home" / ".local" / "state" / "jobmon" / "venvs")


def test_someone_elses_environment_serves_as_it_is(
    repo: Path, installs: Installs, monkeypatch: pytest.MonkeyPatch
) -> None:
    bootstrap.ensure_environment(repo, log=str)
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and access(path, mode))
    assert bootstrap.ensure_environment(repo, log=str) == repo / ".venv" / "bin" / "python"
    assert len(installs) == 1


def test_a_place_that_cannot_be_written_to_is_named(
    repo: Path, installs: Installs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("JOBMON_VENV", str(tmp_path / "file" / "venv"))
    with pytest.raises(BootstrapError, match=r"file/venv") as caught:
        bootstrap.ensure_environment(repo, log=str)
    assert "JOBMON_VENV" in caught.value.hint


def test_a_directory_that_is_not_ours_is_left_alone(repo: Path) -> None:
    (repo / ".venv").mkdir()
    (repo / ".venv" / "precious").write_text("text")
    with pytest.raises(BootstrapError, match="was not made by Jobmon"):
        bootstrap.ensure_environment(repo, log=str)
    assert (repo / ".venv" / "precious").exists()


def test_a_real_environment_is_made_and_an_interrupted_one_is_made_anew(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "install", lambda *_: None)
    half = repo / ".venv"
    (half / "bin").mkdir(parents=True)
    (half / "rubbish").touch()
    (half / bootstrap.STARTED).touch()
    python = bootstrap.ensure_environment(repo, log=str)
    assert not (half / "rubbish").exists()
    done = subprocess.run([python, "-m", "pip", "--version"], capture_output=True, text=True, check=True)
    assert str(half) in done.stdout
    assert json.loads((half / bootstrap.STAMP).read_text())["extras"] == []


def test_without_ensurepip_another_pip_is_used(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    commands: list[list[str]] = []
    monkeypatch.setattr(bootstrap, "have", lambda module: asked.append(module) or module in ("venv", "pip"))
    monkeypatch.setattr(bootstrap, "install_debian_venv", lambda log: False)
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    monkeypatch.setattr(
        bootstrap, "run", lambda command, **_: commands.append([str(part) for part in command])
    )
    monkeypatch.setattr(bootstrap, "works", lambda command: True)
    bootstrap.create_environment(repo / ".venv", str)
    assert "ensurepip" in asked
    assert "--without-pip" in commands[0]
    assert commands[1][0] == str(repo / ".venv" / "bin" / "python")
    assert commands[1][-1] == "pip"


def test_a_foreign_pip_runs_in_the_environment(tmp_path: Path) -> None:
    import pip

    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    python = bootstrap.environment_python(tmp_path / "venv")
    source = Path(pip.__file__).parent.parent
    command = [python, *bootstrap.foreign_pip(source), "config", "debug"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "venv") in done.stdout, "it would install somewhere else"


def test_with_no_way_at_all_the_hint_says_what_to_install(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bootstrap, "have", lambda module: False)
    monkeypatch.setattr(bootstrap, "install_debian_venv", lambda log: False)
    monkeypatch.setattr(bootstrap.shutil, "which", lambda name: None)
    with pytest.raises(BootstrapError) as caught:
        bootstrap.create_environment(repo / ".venv", str)
    assert "-venv" in caught.value.hint


def test_a_failing_command_is_shown_with_the_end_of_its_output() -> None:
    with pytest.raises(BootstrapError, match="it broke") as caught:
        bootstrap.run(["/bin/sh", "-c", "echo it broke; exit 3"], fail="sh failed", hint="mend it")
    assert caught.value.hint == "mend it"
    with pytest.raises(BootstrapError, match="No such file"):
        bootstrap.run(["/no/such/program"], fail="it failed", hint="")


def test_foreign_variables_do_not_reach_pip(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in bootstrap.FOREIGN_VARIABLES:
        monkeypatch.setenv(name, "x")
    monkeypatch.setenv("PIP_INDEX_URL", "https://example.org/simple")
    environ = bootstrap.clean_environ()
    assert not bootstrap.FOREIGN_VARIABLES & environ.keys()
    assert environ["PIP_INDEX_URL"] == "https://example.org/simple"


@pytest.mark.parametrize("script", ["runserver.py", "runtests.py"])
def test_an_old_python_is_told_so(script: str, tmp_path: Path) -> None:
    code = (
        "import runpy, sys; sys.version_info = (3, 7, 1); "
        f"sys.argv = [{script!r}]; sys.path.insert(0, {str(REPO)!r}); "
        f"runpy.run_path({str(REPO / script)!r}, run_name='__main__')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PATH": str(tmp_path)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert "needs Python 3.11" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_first_steps_need_the_standard_library_only() -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(REPO)!r}); import runserver, runtests; import jobmon.bootstrap"
    )
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
