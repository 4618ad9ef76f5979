"""Copies of the source, and releases that are started from them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import requests

from jobmon import supervised
from jobmon.config import cache_dir
from jobmon.release import Release, Releases

ROOT = Path(__file__).resolve().parents[2]


def git(root: Path, *arguments: str) -> str:
    """Run git in a checkout, whatever the user's own settings are."""
    who = {
        "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.org",
        "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@example.org",
        "GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull,
    }  # fmt: skip
    environ = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    done = subprocess.run(
        ["git", "-C", str(root), *arguments], env=environ | who, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def copy_source(target: Path, *places: str) -> Path:
    """The files of the source (those git knows, and new ones) as they are on disk."""
    named = git(ROOT, "-c", f"safe.directory={ROOT}", "ls-files", "-z", "--cached", "--others",
                "--exclude-standard", "--", *places).split("\0")  # fmt: skip
    for name in named:
        if name and (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


class Deployment:
    """A clone of one release, started by ./runserver.py (without its first step, the virtual environment)."""

    def __init__(self, home: Path, release: Release, *more: str) -> None:
        self.release = release
        places = ("jobmon", "sql", "migrations", *more)
        self.clone = copy_source(home / "clones" / release.name, *places)
        (self.clone / "jobmon/release.json").write_text(Releases(release).text())
        self.directory = home / ".local/state/jobmon" / release.name
        foreign = ("JOBMON_", "XDG_")
        self.environ = {key: value for key, value in os.environ.items() if not key.startswith(foreign)}
        self.environ |= {
            "HOME": str(home),
            "PYTHONPATH": str(self.clone),
            # A server that was found or installed for the tests serves here, too.
            "JOBMON_CACHE_DIR": str(cache_dir()),
        }

    def begin(self, module: str, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", module, *arguments], env=self.environ, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    def __call__(self, *arguments: str) -> str:
        return end(self.begin("jobmon.runserver", *arguments))

    @property
    def token(self) -> str:
        """Of the services, in containers or not."""
        [file] = [*self.directory.glob("services.json"), *self.directory.glob("docker/services.json")]
        return str(json.loads(file.read_text())["token"])

    def post(self, route: str, **body: Any) -> Any:
        return self._answer("POST", self.release.jsm_port, route, json=body)

    def get(self, route: str, **arguments: Any) -> Any:
        return self._answer("GET", self.release.jqs_port, route, params=arguments)

    def _answer(self, method: str, port: int, route: str, **content: Any) -> Any:
        with requests.Session() as session:
            session.trust_env = False
            headers = {"Authorization": f"Bearer {self.token}"}
            url = f"http://127.0.0.1:{port}/{route}"
            answer = session.request(method, url, headers=headers, timeout=60, **content)
            assert answer.status_code == 200, answer.text
            return answer.json()

    def workflows(self) -> list[str]:
        return [str(row["workflow_args"]) for row in self.get("workflows")["workflows"]]

    def pids(self) -> set[int]:
        return {process.pid for process in supervised.find(lambda tag: tag.startswith(f"{self.directory}/"))}

    def main_pids(self) -> dict[str, int]:
        """The processes that the supervisor started."""
        lines = self("status").splitlines()[1:]
        return {line.split()[0]: int(line.split()[-1]) for line in lines}


def end(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=600)
    assert process.returncode == 0, said
    assert "Traceback" not in said
    return said


def listed(deployment: Deployment, how: str, *arguments: str) -> dict[str, dict[str, Any]]:
    """All embedded or compose services, by release and name, as `jobmon release list` of one clone says."""
    process = subprocess.run(
        [sys.executable, "-P", "-m", "jobmon.cli", "release", "list", "-o", "json", *arguments],
        env=deployment.environ, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    found: dict[str, dict[str, Any]] = {}
    for row in json.loads(process.stdout):
        if row["how"] == how:
            found.setdefault(row["release"], {})[row["name"]] = row
    return found
