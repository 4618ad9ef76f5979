"""`jobmon release next | render | check` on a checkout: everything that names a port follows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner
from release_helpers import git

from jobmon.cli import main
from jobmon.release import ReleaseError, parse_releases, read_releases
from jobmon.release_files import (
    ALLOWED,
    HISTORY_PAGE,
    RELEASE_FILE,
    Checkout,
    _pattern,
    check,
    is_page,
    make_next,
    words,
)

ROOT = Path(__file__).resolve().parents[2]
CURRENT = read_releases().current


def commit(root: Path) -> None:
    git(root, "add", "--all")
    git(root, "commit", "--quiet", "--message", "a change")


def run(*arguments: str, code: int = 0) -> str:
    result = CliRunner().invoke(main, ["release", *arguments])
    assert result.exit_code == code, result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.output


def contents(root: Path) -> dict[str, bytes]:
    """All files but git's own."""
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in root.rglob("*")
        if path.is_file() and ".git" not in path.relative_to(root).parts
    }


def test_in_this_checkout_everything_follows() -> None:
    assert [str(finding) for finding in check(Checkout(ROOT))] == []


def test_next_changes_everything_that_names_a_port(clone: Path) -> None:
    before = contents(clone)
    output = run("next", "--checkout", str(clone))
    following = CURRENT.next()
    assert f"The release is now {following.name}: jqs_port {following.jqs_port}," in output
    assert run("check", "--checkout", str(clone)).strip().endswith(following.name)
    after = contents(clone)
    releases = parse_releases(after[RELEASE_FILE].decode())
    assert releases.current == following
    assert releases.earlier == (CURRENT, *read_releases().earlier)
    changed = {name for name in after if before.get(name) != after[name]}
    assert set(before) == set(after)
    told = {line.removeprefix("wrote ") for line in output.splitlines() if line.startswith("wrote ")}
    assert changed == told == set(git(clone, "diff", "--name-only").split())
    assert {RELEASE_FILE, HISTORY_PAGE, "docs/configuration.md", "docs/accounts.md"} <= changed
    for name in changed - {RELEASE_FILE, HISTORY_PAGE}:
        old, new = before[name].decode(), after[name].decode()
        assert not _pattern(words(CURRENT)).search(new), name
        # word by word, and nothing else
        assert len(old.splitlines()) == len(new.splitlines())
        for mine, other in zip(words(CURRENT), words(following), strict=True):
            assert len(_pattern({mine: ""}).findall(old)) == len(_pattern({other: ""}).findall(new)), name


def test_the_code_of_the_next_release_has_its_ports(clone: Path) -> None:
    run("next", "--checkout", str(clone))
    program = "from jobmon.config import load_config as c; c = c(); print(c.release, c.jsm_port, c.db_port)"
    home = {"HOME": str(clone.parent), "PATH": os.environ["PATH"], "PYTHONPATH": str(clone)}
    said = subprocess.check_output([sys.executable, "-P", "-c", program], env=home, text=True)
    following = CURRENT.next()
    assert said.split() == [following.name, str(following.jsm_port), str(following.db_port)]


def test_next_twice_keeps_the_history(clone: Path) -> None:
    run("next", "--checkout", str(clone))
    assert "uncommitted changes" in run("next", "--checkout", str(clone), code=1)
    commit(clone)
    run("next", "--checkout", str(clone))
    table = (clone / HISTORY_PAGE).read_text()
    release = CURRENT.next().next()
    assert f"| **{release.name}** | {release.jqs_port} | {release.jsm_port} |" in table
    for earlier in (*read_releases().earlier, CURRENT, CURRENT.next()):
        assert f"| {earlier.name} | {earlier.jqs_port} |" in table


@pytest.fixture
def unchanged(clone: Path) -> Iterator[Path]:
    """A clone to which the test adds something, after which a refused `next` must change nothing."""
    yield clone
    before = contents(clone)
    run("next", "--checkout", str(clone), code=1)
    assert contents(clone) == before


def test_uncommitted_changes_are_refused(unchanged: Path) -> None:
    (unchanged / "new.py").write_text("x = 1\n")
    assert "uncommitted changes: new.py" in run("next", "--checkout", str(unchanged), code=1)


@pytest.mark.parametrize(
    ("name", "text", "found"),
    [
        ("jobmon/x.py", f"PORT = {CURRENT.jsm_port}", "the jsm_port of this release"),
        ("tests/x.sh", f"curl 127.0.0.1:{CURRENT.jqs_port}/", "the jqs_port of this release"),
        ("compose.yaml", f"container_name: {CURRENT.project}_jsm_1", "the project of this release"),
        ("x.env", f"TAG={CURRENT.name}", "the name of this release"),
        ("Dockerfile", f"EXPOSE {CURRENT.next().jqs_port}", f"the jqs_port of {CURRENT.next().name}"),
        ("docs/x.md", f"port {CURRENT.next().db_port}", f"the db_port of {CURRENT.next().name}"),
        ("README.md", f"port {CURRENT.jsm_port - 100}", "the jsm_port of "),
    ],
)
def test_what_does_not_follow_is_found(unchanged: Path, name: str, text: str, found: str) -> None:
    (unchanged / name).write_text(f"first\n{text}\n")
    commit(unchanged)
    assert f"{name}:2: " in (said := run("check", "--checkout", str(unchanged), code=1))
    assert found in said
    assert "not everything follows" in run("next", "--checkout", str(unchanged), code=1)


@pytest.mark.parametrize(
    "text",
    ["1{}", "{}1", "0.{}", "{}.5", "1,{}", "{},000", "x{}", "{}x", "db{}", "\0 {}", "é{}".encode("latin-1")],
)
def test_what_is_no_such_word_is_not_found(clone: Path, text: str | bytes) -> None:
    content = text if isinstance(text, bytes) else text.encode()
    (clone / "x.txt").write_bytes(content.replace(b"{}", b"%d" % CURRENT.jsm_port))
    assert check(Checkout(clone)) == []


def test_rendered_files_are_brought_up_to_date(clone: Path) -> None:
    (clone / "x.env.j2").write_text("JSM={{ jsm_port }} {{ release }} {{ project }} {{ image }}\n")
    page = (clone / HISTORY_PAGE).read_text()
    (clone / HISTORY_PAGE).write_text(page.replace("| emu.4 |", "| emu.3 |"))
    said = run("check", "--checkout", str(clone), code=1)
    assert "x.env: is not as" in said and f"{HISTORY_PAGE}: is not as" in said
    assert run("render", "--checkout", str(clone)).splitlines() == ["wrote x.env", f"wrote {HISTORY_PAGE}"]
    assert (clone / HISTORY_PAGE).read_text() == page
    assert (clone / "x.env").read_text().splitlines() == [
        "# Rendered from x.env.j2 by `jobmon release render`: do not edit.",
        f"JSM={CURRENT.jsm_port} {CURRENT.name} {CURRENT.project} {CURRENT.image}",
    ]
    assert run("render", "--checkout", str(clone)).strip() == "all rendered files are current"
    run("check", "--checkout", str(clone))
    (clone / "x.env").write_text((clone / "x.env").read_text() + "more\n")
    assert "x.env: is not as" in run("check", "--checkout", str(clone), code=1)
    (clone / "x.env.j2").unlink()
    assert "x.env: is rendered from a template that is not there" in run(
        "check", "--checkout", str(clone), code=1
    )


@pytest.mark.parametrize(("text", "line"), [("{{ jms_port }}", ""), ("a\n{% if %}", ":2"), ("{{", ":1")])
def test_a_wrong_template_is_named(clone: Path, text: str, line: str) -> None:
    (clone / "x.yaml.j2").write_text(text)
    for command in ("render", "check"):
        assert f"x.yaml.j2{line}: " in run(command, "--checkout", str(clone), code=1)
    assert not (clone / "x.yaml").exists()


def test_the_marks_of_the_table_are_needed(clone: Path) -> None:
    (clone / HISTORY_PAGE).write_text("# Releases\n")
    assert "the marks around the table" in run("render", "--checkout", str(clone), code=1)


def test_a_wrong_release_file_is_refused(unchanged: Path) -> None:
    document = json.loads((unchanged / RELEASE_FILE).read_text())
    (unchanged / RELEASE_FILE).write_text(json.dumps({**document, "jsm_port": document["jqs_port"]}))
    commit(unchanged)
    for command in ("check", "render", "next"):
        assert "jqs_port and jsm_port are both" in run(command, "--checkout", str(unchanged), code=1)


def test_a_file_that_can_not_be_written_leaves_all_as_it_was(
    clone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(clone)
    replace, done = os.replace, []

    def full(old: str, new: str) -> None:
        if Path(new).name == "release.json":
            raise OSError(28, "No space left on device", str(new))
        done.append(new)
        replace(old, new)

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(ReleaseError, match="No space left on device; nothing was changed"):
        make_next(Checkout(clone))
    assert len(done) > 4, "it is written last"
    assert contents(clone) == before
    assert git(clone, "status", "--porcelain") == ""


def test_no_checkout_is_told(tmp_path: Path) -> None:
    said = run("check", "--checkout", str(tmp_path), code=1)
    assert "is no checkout" in said and "Hint:" in said
    (tmp_path / "jobmon").mkdir()
    (tmp_path / RELEASE_FILE).write_text((ROOT / RELEASE_FILE).read_text())
    (tmp_path / "pyproject.toml").touch()
    assert "run this in a git clone" in run("check", "--checkout", str(tmp_path), code=1)


def test_show_tells_this_the_earlier_and_the_next_release() -> None:
    document = json.loads(run("show", "-o", "json"))
    assert document["release"] == CURRENT.name and document["jsm_port"] == CURRENT.jsm_port
    assert document["next"] == CURRENT.next().document()
    assert document["project"] == CURRENT.project and document["image"] == CURRENT.image
    assert run("show", "-o", "quiet").strip() == CURRENT.name
    table = run("show")
    for release in (*read_releases().earlier, CURRENT, CURRENT.next()):
        assert release.name in table and str(release.jsm_port) in table


def test_what_is_allowed_to_name_ports_is_no_page_that_is_rewritten_in_vain() -> None:
    assert all(reason for reason in ALLOWED.values())
    assert not is_page("CHANGELOG.md") and not is_page("docs/sub/x.md") and is_page("docs/releases.md")
