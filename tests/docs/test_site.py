"""The documentation as a web site: it is built without a warning, and what is wrong is noticed."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
from docs_helpers import DOCS


def load_builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("build_docs", DOCS / "build.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def sphinx() -> None:
    if importlib.util.find_spec("sphinx") is None or importlib.util.find_spec("myst_parser") is None:
        if os.environ.get("CI") == "true":
            pytest.fail("the site can't be built: pip install -e '.[docs]'")
        pytest.skip("the site can't be built: pip install -e '.[docs]'")


def test_it_is_built(sphinx: None, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, DOCS / "build.py", "--out", tmp_path / "site"],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    start = (tmp_path / "site" / "index.html").read_text()
    for path in DOCS.glob("*.md"):
        assert f'href="{path.stem}.html' in start, path
    # nothing is fetched from elsewhere when it is read
    for page in (tmp_path / "site").glob("*.html"):
        text = page.read_text()
        assert 'src="http' not in text and 'rel="stylesheet" href="http' not in text, page


@pytest.mark.parametrize(
    ("line", "word"),
    [
        ("[gone](gone.md)", "gone.md"),
        ("[anchor](backup.md#no-such-heading)", "no-such-heading"),
        ("![picture](gone.svg)", "gone.svg"),
    ],
)
def test_a_dead_link_fails_it(
    sphinx: None, tmp_path: Path, capfd: pytest.CaptureFixture[str], line: str, word: str
) -> None:
    builder = load_builder()
    prepare = builder.prepare

    def few(source: Path) -> list[str]:
        """Two pages only, one of them wrong."""
        problems = prepare(source)
        assert problems == []
        for path in source.glob("*.md"):
            if path.name not in ("index.md", "backup.md"):
                path.unlink()
        (source / "index.md").write_text(f"# Start\n\n{line}\n\n```{{toctree}}\nbackup\n```\n")
        (source / "backup.md").write_text("# Backup\n")
        return []

    builder.prepare = few
    assert builder.build(tmp_path / "site") != 0
    assert word in capfd.readouterr().err


def test_a_page_that_is_listed_nowhere_fails_it(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    builder = load_builder()
    builder.SECTIONS = {**builder.SECTIONS, "Using": ["workflows", "no-such-page"]}
    assert builder.build(tmp_path / "site") == 1
    told = capfd.readouterr().err
    assert "docs/build.py lists no-such-page.md" in told
    assert "cli.md stands in no section of docs/build.py" in told
