#!/usr/bin/env python3
"""Builds the documentation as a web site; a warning, a dead link or a page that nothing leads to fails it.

    python docs/build.py                # to build/docs/index.html

The pages are what they are on GitHub, Markdown with relative links; README.md becomes the start page. It
needs no network, neither to be built nor to be read. Sphinx makes it (pyproject.toml, extra ``docs``).
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

DOCS = Path(__file__).resolve().parent
ROOT = DOCS.parent
TOP = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md", "CHANGELOG.md": "changelog.md"}

# The table of contents. Every page of docs/ stands in it.
SECTIONS: dict[str, list[str]] = {
    "Using": ["workflows", "attempts", "watching", "executors", "cli"],
    "How it works": [
        "architecture",
        "state-machines",
        "data-model",
        "concurrency",
        "invariants",
        "distributor",
        "worker",
        "services",
        "wsgi-servers",
        "choices",
    ],
    "Operating": [
        "deployed-services",
        "runserver",
        "deploying",
        "kubernetes",
        "releases",
        "embedded-server",
        "configuration",
        "accounts",
        "security",
        "monitoring",
        "scaling",
        "upgrade",
        "backup",
        "pruning",
        "capacity",
        "benchmarks",
        "troubleshooting",
    ],
    "Reference": ["http-reference", "sql-reference"],
    "Working on Jobmon": ["contributing", "changelog"],
}

CONF = """
from pygments.lexers.special import TextLexer

project = "Jobmon"
extensions = ["myst_parser"]
exclude_patterns = []
html_theme = "furo"
html_title = "Jobmon"
html_copy_source = False
# as GitHub makes them: links to headings are the same there
myst_heading_anchors = 4
myst_links_external_new_tab = False
# "->" in tables is no typography
smartquotes = False


def setup(app):
    # its diagrams are drawn by GitHub; here their text is shown, which needs no script from elsewhere
    app.add_lexer("mermaid", TextLexer)
"""


def prepare(source: Path) -> list[str]:
    """Put the pages where Sphinx finds them, with the links that they need there; gives what is wrong."""
    moved = {f"../{old}": new for old, new in TOP.items()}
    for path in sorted(DOCS.glob("*.md")):
        text = path.read_text(encoding="utf-8")
        for old, new in moved.items():
            text = text.replace(f"]({old}", f"]({new}")
        (source / path.name).write_text(text, encoding="utf-8")
    for path in DOCS.glob("*.svg"):
        shutil.copy(path, source)
    for old, new in TOP.items():
        text = (ROOT / old).read_text(encoding="utf-8").replace("](docs/", "](")
        for name, renamed in TOP.items():
            text = re.sub(rf"\]\((\.\./)?{re.escape(name)}", f"]({renamed}", text)
        if new == "index.md":
            text += "".join(
                f"\n```{{toctree}}\n:hidden:\n:caption: {caption}\n\n" + "\n".join(names) + "\n```\n"
                for caption, names in SECTIONS.items()
            )
        (source / new).write_text(text, encoding="utf-8")
    listed = {name for names in SECTIONS.values() for name in names} | {"index"}
    there = {path.stem for path in source.glob("*.md")}
    return [f"{name}.md stands in no section of docs/build.py" for name in sorted(there - listed)] + [
        f"docs/build.py lists {name}.md, which is not there" for name in sorted(listed - there)
    ]


def build(out: Path) -> int:
    """Build the site; gives an exit code."""
    with tempfile.TemporaryDirectory(prefix="jobmon-docs-") as directory:
        source = Path(directory) / "source"
        source.mkdir()
        (source / "conf.py").write_text(CONF, encoding="utf-8")
        problems = prepare(source)
        for problem in problems:
            print(problem, file=sys.stderr)
        if problems:
            return 1
        if out.exists():
            shutil.rmtree(out)
        # -W: a warning is an error; -n: so is a reference to what is not there
        return subprocess.call(
            [sys.executable, "-m", "sphinx", "-W", "-n", "-q", "--keep-going", "-b", "html", source, out]
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "docs", help="where the site goes")
    sys.exit(build(parser.parse_args().out))


if __name__ == "__main__":
    main()
