"""The examples in curl and SQL run, on real services and a real database."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from typing import Any

import pymysql
import pytest
import requests
from docs_helpers import page, statements, written

from jobmon.thin_common.errors import TRANSPORT_ERRORS

curl = pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")


def run_shell(blocks: list[str], home: Any) -> list[str]:
    """Run blocks one after the other in one bash, as a person would; gives what each printed."""
    mark = "=== end of block ==="
    script = "\n".join(f"{block}\necho; echo '{mark}'" for block in blocks)
    done = subprocess.run(
        ["bash", "-eu", "-o", "pipefail", "-c", script],
        env={"HOME": str(home), "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.split(mark)[:-1]


def documents(output: str) -> list[Any]:
    """The JSON lines of an output."""
    return [json.loads(line) for line in output.splitlines() if line.startswith("{")]


@curl
def test_the_readme_in_curl(db: Any, services: Any) -> None:
    first, late = run_shell(page("README.md").blocks("sh"), services.home)
    answers = documents(first)
    assert not [answer for answer in answers if "error" in answer]
    assert {"num_left": 0, "num_queued": 1} in answers
    assert {row["status"]: row["num_jobs"] for row in answers[-1]["job_status_counts"]} == {
        "DONE": 1,
        "QUEUED_FOR_INSTANTIATION": 1,
    }
    [refusal] = documents(late)
    assert refusal["error"]["code"] == "JOB_INSTANCE_ENDED"
    assert db.audits() == {}
    # The statements in SQL go on from there.
    for block in page("README.md").blocks("sql"):
        run_sql(db, block)
    assert db.audits() == {}


@curl
@pytest.mark.parametrize("name", ["docs/services.md", "docs/troubleshooting.md"])
def test_shell_examples(name: str, db: Any, services: Any) -> None:
    base = f"JSM={services.jsm} JQS={services.jqs} TOKEN={services.token}"
    _, *outputs = run_shell([base, *page(name).blocks("sh")], services.home)
    assert outputs
    for output in outputs:
        answers = documents(output)
        assert answers
        assert not [answer for answer in answers if "error" in answer]


def run_sql(db: Any, block: str) -> None:
    """Run a block's statements, each as the account for it; `-- ERROR n` says that a rule refuses it."""
    for statement in statements(block):
        text = re.sub(r"--[^\n]*", "", statement)
        if re.match(r"\s*(CALL|UPDATE|INSERT)\b", text):
            role = "jsm"
        else:
            role = "admin" if "information_schema" in text else "reader"
        expected = [
            int(number)
            for number in re.findall(r"\d+", (re.search(r"-- ERROR ([^:]*)", statement) or [""])[0])
        ]
        try:
            db.query(text.rstrip().rstrip(";").replace("%", "%%"), role=role)
        except pymysql.err.Error as error:
            assert error.args[0] in expected, (statement, error)
        else:
            assert not expected, f"{statement} was not refused"


@pytest.mark.parametrize(
    "name", [found.name for found in written() if found.blocks("sql") and found.name != "README.md"]
)
def test_sql_examples(name: str, db: Any) -> None:
    for block in page(name).blocks("sql"):
        run_sql(db, block)


def test_the_http_reference_in_curl(db: Any, services: Any) -> None:
    """Each call is one that the services know, and is refused by a rule at most."""
    blocks = page("docs/http-reference.md").blocks("sh")
    commands = [line for block in blocks for line in block.splitlines()]
    assert len(commands) > 40
    for command in commands:
        filled = command.replace("$JSM", services.jsm).replace("$JQS", services.jqs)
        *options, url = shlex.split(filled.replace("$TOKEN", services.token))[1:]
        if "-d" in options:
            header = dict([options[options.index("-H") + 1].split(": ", 1)])
            response = requests.post(url, data=options[options.index("-d") + 1], headers=header, timeout=30)
        else:
            response = requests.get(url, timeout=30)
        if response.status_code not in (200, 204):
            assert response.status_code < 500, command
            assert response.json()["error"]["code"] not in TRANSPORT_ERRORS, command


def test_openapi_and_the_http_reference_name_the_same(services: Any) -> None:
    text = page("docs/http-reference.md").text
    for url, pattern in ((services.jsm, "\n### POST {}\n"), (services.jqs, "\n### GET {}\n")):
        paths = requests.get(f"{url}/openapi.json", timeout=30).json()["paths"]
        for path, methods in paths.items():
            shown = pattern.format(path) in text or f"\n| `{path}` |" in text or f"\n| `GET {path}` |" in text
            assert shown, (path, methods)
