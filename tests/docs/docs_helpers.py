"""Reading the documentation: pages, code blocks, code spans, links, commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
GENERATED = "<!-- Generated"

_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INDENTED = re.compile(r"(?:^ {4}\S.*\n?)+", re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\[[^\]\n]*\]\(([^)\s]+)\)")
PROGRAMS = ("./runserver.py", "./runtests.py", "jobmon", ".venv/bin/jobmon", "python -m jobmon.")


@dataclass(frozen=True)
class Page:
    """A page of the documentation."""

    path: Path

    @property
    def name(self) -> str:
        return str(self.path.relative_to(ROOT))

    @property
    def text(self) -> str:
        return self.path.read_text(encoding="utf-8")

    @property
    def generated(self) -> bool:
        return self.text.startswith(GENERATED)

    def blocks(self, language: str) -> list[str]:
        """The fenced blocks in a language."""
        return [body for kind, body in _FENCE.findall(self.text) if kind == language]

    def prose(self) -> str:
        """The text without its fenced blocks."""
        return _FENCE.sub("", self.text)

    def spans(self) -> list[str]:
        """What stands between backticks."""
        return _SPAN.findall(self.prose())

    def links(self) -> list[str]:
        """Where the links lead."""
        return _LINK.findall(_SPAN.sub("", self.prose()))

    def anchors(self) -> set[str]:
        """The anchors of its headings, as GitHub makes them."""
        found: dict[str, int] = {}
        anchors = set()
        for heading in re.findall(r"^#+ (.*)$", self.prose(), re.MULTILINE):
            slug = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
            count = found.get(slug, 0)
            found[slug] = count + 1
            anchors.add(f"{slug}-{count}" if count else slug)
        return anchors

    def commands(self) -> Iterator[list[str]]:
        """The commands of ours that it shows, as words."""
        lines = [line.strip() for block in _INDENTED.findall(self.prose()) for line in block.splitlines()]
        for line in [*lines, *self.spans()]:
            if not any(line == program or line.startswith(program) for program in PROGRAMS):
                continue
            words = shlex.split(line, comments=True)
            if words[0] == "python":
                words = [" ".join(words[:3]), *words[3:]]
            elif words[0] == ".venv/bin/jobmon":
                words[0] = "jobmon"
            elif words[0] not in PROGRAMS:
                continue  # jobmon_owner@localhost, jobmon/config.py
            yield words


def pages() -> list[Page]:
    """All pages, generated ones too."""
    return [Page(path) for path in (*sorted(ROOT.glob("*.md")), *sorted(DOCS.glob("*.md")))]


def written() -> list[Page]:
    """The pages that people wrote."""
    return [page for page in pages() if not page.generated]


def page(name: str) -> Page:
    """One page by its path from the top."""
    return Page(ROOT / name)


def statements(block: str) -> list[str]:
    """The SQL statements of a block, each with the comment behind it."""
    return [part.strip() for part in re.findall(r"[^;]+;[ \t]*(?:--[^\n]*)?", block)]
