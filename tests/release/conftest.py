"""A checkout of the source to change, and waiting."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from release_helpers import copy_source, git


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clean git checkout of the source as it is on disk."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    root = copy_source(tmp_path / "clone")
    git(root, "init", "--quiet")
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "as it is")
    return root
