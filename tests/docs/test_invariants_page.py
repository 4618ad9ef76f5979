"""docs/invariants.md names tests that exist, and every invariant by its number."""

from __future__ import annotations

import re

from docs_helpers import ROOT

PAGE = (ROOT / "docs" / "invariants.md").read_text()


def test_the_tests_exist() -> None:
    named = re.findall(r"`(tests/[a-z_/]+\.py)`: ((?:`test_\w+`(?:, )?)+)", PAGE)
    assert sum(names.count("`test_") for _, names in named) == PAGE.count("`test_")
    for file, names in named:
        text = (ROOT / file).read_text()
        for name in re.findall(r"`(\w+)`", names):
            assert f"def {name}(" in text, f"{file} has no {name}"


def test_every_line_is_there_and_has_a_test_or_says_when() -> None:
    rows = re.findall(r"^\| (\d+) \| .+? \| (.+) \|$", PAGE, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, 34))
    for number, held in rows:
        assert "`test_" in held or "*Later*" in held, number
