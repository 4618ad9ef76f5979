"""Links lead somewhere; commands, files, variables and errors that the pages name exist."""

from __future__ import annotations

import re
from typing import Any

import click
import pytest
from docs_helpers import ROOT, Page, page, pages, written
from prometheus_client import Counter
from prometheus_client.metrics import MetricWrapperBase

from jobmon import reference
from jobmon.cli import main as jobmon
from jobmon.config import KEYS
from jobmon.containers import pins
from jobmon.db import embedded
from jobmon.monitor import metrics as monitor_metrics
from jobmon.runserver import main as runserver
from jobmon.thin_common import metrics
from jobmon.thin_common.errors import TRANSPORT_ERRORS

COMMANDS: dict[str, click.Command] = {
    "./runserver.py": runserver,
    "jobmon": jobmon,
    "python -m jobmon.containers.pins": pins.main,
    "python -m jobmon.db.embedded": embedded.main,
    "python -m jobmon.reference": reference.main,
}
# Upper-case words with an underscore that are neither errors nor labels.
WORDS = {
    "JSON_TABLE",
    "SQL_MODE",
    "PIP_INDEX_URL",
    "XDG_STATE_HOME",
    "XDG_CACHE_HOME",
    "MYSQL_ERRNO",
    "MESSAGE_TEXT",
    "OUT_OF_MEMORY",  # Slurm's
    "NODE_FAIL",
    "BOOT_FAIL",
    "GET_LOCK",
    "SET_ANY_DEFINER",
}

every_page = pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
every_written_page = pytest.mark.parametrize("page", written(), ids=lambda page: page.name)


@every_page
def test_links(page: Page) -> None:
    for link in page.links():
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.path.parent / name).resolve() if name else page.path
        assert target.exists(), link
        if anchor:
            assert anchor in Page(target).anchors(), link


@every_written_page
def test_files(page: Page) -> None:
    top = {path.name for path in ROOT.iterdir()}
    for span in page.spans():
        path = span.removeprefix("./").split(" ")[0]
        if path.split("/")[0] not in top or re.search(r"[*<]|NAME|NNNN", path) or "/" not in path:
            continue
        assert (ROOT / path).exists(), span


@every_written_page
def test_commands(page: Page) -> None:
    for words in page.commands():
        if words[0] == "./runtests.py":
            continue
        command, rest = COMMANDS[words[0]], words[1:]
        while rest:
            word, rest = rest[0], rest[1:]
            if word in ("...", "--"):
                break
            if word.startswith("-") and word != "-":
                options = {name for p in command.params for name in (*p.opts, *p.secondary_opts)}
                if not command.context_settings.get("ignore_unknown_options"):
                    assert word.split("=")[0] in options, words
            elif isinstance(command, click.Group):
                if word in command.commands:
                    command = command.commands[word]
                else:
                    # the value of an option, such as --state-dir /somewhere
                    assert words[words.index(word) - 1].startswith("-"), words


def test_every_command_is_explained() -> None:
    text = page("docs/cli.md").text

    def walk(name: str, command: click.Command) -> None:
        assert re.search(rf"^#+ {re.escape(name)}$", text, re.MULTILINE), name
        if isinstance(command, click.Group):
            for sub, found in command.commands.items():
                walk(f"{name} {sub}", found)

    for name, command in COMMANDS.items():
        walk(name, command)


@every_written_page
def test_error_names(page: Page, database: Any) -> None:
    known = {row[0] for row in database.query("SELECT name FROM api_error")} | set(TRANSPORT_ERRORS) | WORDS
    for machine in reference.STATE_MACHINES:
        known |= {row[0] for row in database.query(f"SELECT label FROM {machine}_status")}
    for span in page.spans():
        if re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)+", span) and not span.startswith("JOBMON_"):
            assert span in known, span


@every_written_page
def test_variables(page: Page) -> None:
    code = "".join(
        path.read_text(encoding="utf-8")
        for place in ("jobmon", "tests")
        for path in (ROOT / place).rglob("*.py")
    )
    for name in re.findall(r"\bJOBMON_[A-Z_]+\b", page.text):
        assert name.removeprefix("JOBMON_").lower() in KEYS or re.search(rf"\b{name}\b", code), name


def test_metrics() -> None:
    made = {
        f"{found.describe()[0].name}{'_total' if isinstance(found, Counter) else ''}"
        for found in vars(metrics).values()
        if isinstance(found, MetricWrapperBase)
    }
    told = set(re.findall(r"^\| `(jobmon_\w+)` \|", page("docs/services.md").text, re.MULTILINE))
    assert told == made
    for found in written():
        named = {span for span in found.spans() if re.fullmatch(r"jobmon_(http|db|catalog)_\w+", span)}
        assert named <= made, found.name


def test_metrics_of_the_monitor() -> None:
    made = {
        f"{found.describe()[0].name}{'_total' if isinstance(found, Counter) else ''}"
        for found in vars(monitor_metrics).values()
        if isinstance(found, MetricWrapperBase)
    }
    told = set(re.findall(r"^\| `(jobmon_\w+)` \|", page("docs/monitoring.md").text, re.MULTILINE))
    assert told == made


def test_every_page_is_linked_from_the_readme() -> None:
    links = {link.partition("#")[0] for link in page("README.md").links()}
    assert {found.name for found in pages()} - {"README.md"} <= links


def test_all_keys_are_explained() -> None:
    text = page("docs/configuration.md").text
    assert [key for key in KEYS if f"`{key}`" not in text] == []
