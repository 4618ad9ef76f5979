"""What follows from the release file in a checkout: rendered files, pages that show ports, and a check.

Three kinds of files may name a port or the release:

- the release file itself;
- rendered files: `NAME` from `NAME.j2` beside it (Jinja2; the variables are those of `variables`), and the
  table between two marks in docs/releases.md;
- pages: README.md and docs/*.md, with ports of the current release only. `jobmon release next` puts the new
  ones in their place, word by word.

Anywhere else `find_literals` finds them, unless ALLOWED says why they may be there.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jobmon.release import PORT_KEYS, Release, ReleaseError, Releases, parse_releases

if TYPE_CHECKING:
    from jinja2 import Environment

RELEASE_FILE = "jobmon/release.json"
HISTORY_PAGE = "docs/releases.md"
HISTORY_BEGIN = "<!-- Rendered by `jobmon release render`: do not edit. -->\n"
HISTORY_END = "<!-- End of what is rendered. -->\n"
TEMPLATE_SUFFIX = ".j2"

# Who may name ports and releases though nothing rewrites them, and why.
ALLOWED = {
    "CHANGELOG.md": "history: what is written there of a release stays",
    "docs/benchmarks.md": "figures that were measured: a number there is no port",
    "docs/wsgi-servers.md": "figures that were measured: a number there is no port",
    "tests/release/test_release_file.py": "holds the rule by which ports follow from release to release",
}


@dataclass(frozen=True)
class Finding:
    """Something in a checkout that does not follow from the release file.

    path: the file, from the top. line: its line, from 1; 0 means all of it. text: what is wrong.
    """

    path: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}" if self.line else f"{self.path}: {self.text}"


# ----------------------------------------------------------------------------------------------------------
# The checkout


class Checkout:
    """A clone of the source, as it is on disk.

    Parameters:
        root: its top.

    Raises:
        ReleaseError: that is no git checkout of Jobmon, or git is not installed.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        if not (root / RELEASE_FILE).is_file() or not (root / "pyproject.toml").is_file():
            raise ReleaseError(f"{root} is no checkout of Jobmon's source", "run this from a clone of it")
        self._git("rev-parse", "--git-dir")

    def _git(self, *arguments: str) -> str:
        # safe.directory: a clone of somebody else is read as any file is; hooks and such are not run here
        command = ["git", "-c", f"safe.directory={self.root}", "-C", str(self.root), *arguments]
        environ = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        environ["LC_ALL"] = "C"
        try:
            done = subprocess.run(
                command,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                env={**environ, "LC_ALL": "C"},
            )
        except OSError as error:
            raise ReleaseError(
                f"git: {error.strerror}", "git knows which files are the source: install it"
            ) from None
        if done.returncode:
            raise ReleaseError(
                f"{self.root}: git {arguments[0]} failed: {done.stderr.strip()}", "run this in a git clone"
            )
        return done.stdout

    def files(self) -> list[str]:
        """The files of the source: tracked ones, and new ones that git does not ignore."""
        named = self._git("ls-files", "-z", "--cached", "--others", "--exclude-standard").split("\0")
        return sorted({name for name in named if name and (self.root / name).is_file()})

    def uncommitted(self) -> list[str]:
        """The files that differ from the last commit, or are new."""
        lines = self._git("status", "--porcelain", "-z", "--untracked-files=all").split("\0")
        return [line[3:] for line in lines if len(line) > 3]

    def read(self, name: str) -> str | None:
        """The text of a file; None if it is not text, or a symbolic link."""
        path = self.root / name
        if path.is_symlink():
            return None
        try:
            content = path.read_bytes()
        except OSError as error:
            raise ReleaseError(f"{path}: {error.strerror}") from None
        if b"\0" in content:
            return None
        try:
            return content.decode("utf-8")
        except UnicodeDecodeError:
            return None

    def releases(self) -> Releases:
        """What the release file says.

        Raises:
            ReleaseError: it is wrong.
        """
        return parse_releases(self.read(RELEASE_FILE) or "", RELEASE_FILE)

    def write(self, texts: Mapping[str, str]) -> None:
        """Write files, all or none: each by a rename, in the order given.

        Raises:
            ReleaseError: a file can't be written; all are as they were.
        """
        prepared: list[tuple[Path, Path]] = []
        before: list[tuple[Path, Path]] = []
        try:
            for name, text in texts.items():
                path = self.root / name
                prepared.append((_beside(path, text.encode(), path), path))
                if path.exists():
                    before.append((_beside(path, path.read_bytes(), path), path))
            replaced: list[Path] = []
            try:
                for new, path in prepared:
                    os.replace(new, path)
                    replaced.append(path)
            except BaseException:
                kept = {path: old for old, path in before}
                for path in replaced:
                    if path in kept:
                        os.replace(kept[path], path)
                    else:
                        path.unlink()
                raise
        except OSError as error:
            raise ReleaseError(f"{error.filename}: {error.strerror}; nothing was changed") from None
        finally:
            for temporary, _ in (*prepared, *before):
                with contextlib.suppress(FileNotFoundError):
                    temporary.unlink()


def _beside(path: Path, content: bytes, like: Path) -> Path:
    """A new file beside another one, with its mode."""
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as out:
            out.write(content)
        os.chmod(temporary, stat.S_IMODE(like.stat().st_mode) if like.exists() else 0o644)
    except BaseException:
        os.unlink(temporary)
        raise
    return Path(temporary)


# ----------------------------------------------------------------------------------------------------------
# Rendering


def variables(release: Release) -> dict[str, str | int]:
    """What templates may name: `release`, `project`, `image`, and the ports by key."""
    return {"release": release.name, "project": release.project, "image": release.image, **release.ports}


def _environment() -> Environment:
    from jinja2 import Environment, StrictUndefined

    # no autoescape: what is rendered is YAML, not HTML
    return Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)


def render_template(name: str, text: str, release: Release) -> str:
    """A file from its template.

    Parameters:
        name: the template's name, for the file's first line and for errors.
        text: the template.

    Raises:
        ReleaseError: the template is wrong.
    """
    from jinja2 import TemplateError

    head = f"# Rendered from {Path(name).name} by `jobmon release render`: do not edit.\n"
    try:
        return head + _environment().from_string(text).render(variables(release))
    except TemplateError as error:
        line = f":{number}" if (number := getattr(error, "lineno", None)) else ""
        raise ReleaseError(f"{name}{line}: {error}", "templates are written for Jinja2") from None


def history(releases: Releases) -> str:
    """The table of all releases, as docs/releases.md has it."""
    lines = [
        "| release | JQS | JSM | JSM's management | database |",
        "| --- | --- | --- | --- | --- |",
    ]
    for release in (*reversed(releases.earlier), releases.current):
        name = f"**{release.name}**" if release is releases.current else release.name
        lines.append(f"| {name} | {' | '.join(str(release.ports[key]) for key in PORT_KEYS)} |")
    return "\n".join(lines) + "\n"


def _history_parts(text: str) -> tuple[str, str, str]:
    before, begin, rest = text.partition(HISTORY_BEGIN)
    table, end, after = rest.partition(HISTORY_END)
    if not begin or not end or HISTORY_BEGIN in after or HISTORY_END in after:
        raise ReleaseError(
            f"{HISTORY_PAGE}: the marks around the table of releases are gone",
            f"the table stands between {HISTORY_BEGIN.strip()} and {HISTORY_END.strip()}",
        )
    return before + begin, table, end + after


def rendered(
    checkout: Checkout, releases: Releases, texts: Mapping[str, str] | None = None
) -> dict[str, str]:
    """All rendered files, by name.

    Parameters:
        texts: files whose new text is not on disk yet.

    Raises:
        ReleaseError: a template, or the page with the table of releases, is wrong.
    """
    texts = texts or {}
    files = {}
    for name in checkout.files():
        if name.endswith(TEMPLATE_SUFFIX):
            template = texts.get(name) or checkout.read(name) or ""
            files[name.removesuffix(TEMPLATE_SUFFIX)] = render_template(name, template, releases.current)
    page = texts.get(HISTORY_PAGE) or checkout.read(HISTORY_PAGE) or ""
    before, _, after = _history_parts(page)
    files[HISTORY_PAGE] = f"{before}\n{history(releases)}\n{after}"
    return files


def stale_files(checkout: Checkout, releases: Releases) -> dict[str, str]:
    """Those rendered files that are not as they should be, by name, as they should be.

    Raises:
        ReleaseError: as `rendered`.
    """
    present = set(checkout.files())
    return {
        name: text
        for name, text in rendered(checkout, releases).items()
        if name not in present or checkout.read(name) != text
    }


# ----------------------------------------------------------------------------------------------------------
# Words that name a release


def is_page(name: str) -> bool:
    """Whether a file is a page of the documentation, in which `jobmon release next` puts the new ports."""
    path = Path(name)
    return name == "README.md" or (path.parent == Path("docs") and path.suffix == ".md")


def words(release: Release) -> dict[str, str]:
    """What names a release: its ports, its name and its project; with what it is."""
    return {
        **{str(port): key for key, port in release.ports.items()},
        release.name: "name",
        release.project: "project",
    }


def _pattern(found: Mapping[str, str]) -> re.Pattern[str]:
    # Whole words: of 80, not 180, 80a, 0.80, 80.5 or 1,80; but _80 and 80_ are, as in names of variables.
    longest_first = sorted(map(re.escape, found), key=len, reverse=True)
    return re.compile(rf"(?<![A-Za-z0-9])(?<!\d[.,])(?:{'|'.join(longest_first)})(?![A-Za-z0-9]|[.,]\d)")


def renamer(old: Release, new: Release) -> Callable[[str], str]:
    """A function that puts one release's words in the place of another's."""
    targets = dict(zip(words(old), words(new), strict=True))
    pattern = _pattern(words(old))
    return lambda text: pattern.sub(lambda match: targets[match[0]], text)


def find_literals(checkout: Checkout, releases: Releases) -> Iterator[Finding]:
    """The words of this, the earlier and the next release that nothing keeps current.

    Raises:
        ReleaseError: the page with the table of releases is wrong.
    """
    current = words(releases.current)
    others: dict[str, str] = {}
    for release in (*releases.earlier, releases.current.next()):
        others |= {word: f"the {what} of {release.name}" for word, what in words(release).items()}
        # Texts may speak of an earlier release.
        others.pop(release.name)
    pattern = _pattern({**others, **current})
    files = set(checkout.files())
    for name in sorted(files):
        if name == RELEASE_FILE or name in ALLOWED:
            continue
        text = checkout.read(name)
        if text is None:
            continue
        if name == HISTORY_PAGE:
            before, table, after = _history_parts(text)
            text = before + "\n" * table.count("\n") + after
        follows = is_page(name) or f"{name}{TEMPLATE_SUFFIX}" in files
        for number, line in enumerate(text.splitlines(), start=1):
            for match in pattern.finditer(line):
                word = match[0]
                if word in others:
                    yield Finding(name, number, f"{word} is {others[word]}, not of {releases.current.name}")
                elif not follows:
                    what = f"{word} is the {current[word]} of this release"
                    yield Finding(name, number, f"{what}, and does not follow from {RELEASE_FILE}")


def check(checkout: Checkout) -> list[Finding]:
    """Everything in the checkout that does not follow from the release file.

    Raises:
        ReleaseError: the release file, a template or the page with the table of releases is wrong.
    """
    releases = checkout.releases()
    findings = []
    if checkout.read(RELEASE_FILE) != releases.text():
        findings.append(Finding(RELEASE_FILE, 0, "is not formatted as `jobmon release next` writes it"))
    for name in stale_files(checkout, releases):
        findings.append(Finding(name, 0, f"is not as {RELEASE_FILE} and its template say"))
    files = set(checkout.files())
    for name in sorted(files):
        text = checkout.read(name) if not name.endswith(TEMPLATE_SUFFIX) else None
        if text and text.startswith("# Rendered from ") and f"{name}{TEMPLATE_SUFFIX}" not in files:
            findings.append(Finding(name, 0, "is rendered from a template that is not there any more"))
    findings += [
        Finding(name, 0, "is allowed to name ports, but is not there")
        for name in sorted(set(ALLOWED) - files)
    ]
    return [*findings, *find_literals(checkout, releases)]


# ----------------------------------------------------------------------------------------------------------
# Doing


def render(checkout: Checkout) -> list[str]:
    """Bring the rendered files up to date.

    Returns:
        Those that were written.

    Raises:
        ReleaseError: as `rendered`; or a file can't be written: nothing is changed then.
    """
    with _alone(checkout):
        stale = stale_files(checkout, checkout.releases())
        checkout.write(stale)
    return list(stale)


@contextlib.contextmanager
def _alone(checkout: Checkout) -> Iterator[None]:
    """Of several that change a checkout, one at a time."""
    handle = os.open(checkout.root / Path(RELEASE_FILE).parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def make_next(checkout: Checkout) -> tuple[Release, list[str]]:
    """Make the next release: the release file, what is rendered from it, and the pages.

    Returns:
        The new release, and the files that were written.

    Raises:
        ReleaseError: there are uncommitted changes, or something does not follow from the release file, or a
            file can't be written. Nothing is changed then.
    """
    with _alone(checkout):
        return _make_next(checkout)


def _make_next(checkout: Checkout) -> tuple[Release, list[str]]:
    uncommitted = checkout.uncommitted()
    if uncommitted:
        raise ReleaseError(
            f"the checkout has uncommitted changes: {_some(uncommitted)}",
            "commit them first: the next release is a change of its own",
        )
    findings = check(checkout)
    if findings:
        raise ReleaseError(
            f"not everything follows from {RELEASE_FILE}: {_some([str(each) for each in findings], '; ')}",
            "`jobmon release check` shows all of it; `jobmon release render` writes the rendered files",
        )
    before = checkout.releases()
    after = before.advance()
    renamed = renamer(before.current, after.current)
    pages: dict[str, str] = {}
    for name in checkout.files():
        if is_page(name) and name not in ALLOWED:
            old = checkout.read(name) or ""
            if name == HISTORY_PAGE:
                first, table, last = _history_parts(old)
                new = renamed(first) + table + renamed(last)
            else:
                new = renamed(old)
            if new != old:
                pages[name] = new
    wanted = {**pages, **rendered(checkout, after, pages)}
    changed = {name: text for name, text in wanted.items() if checkout.read(name) != text}
    # Last: until it is written, `jobmon release render` and git lead back to the release that is.
    changed[RELEASE_FILE] = after.text()
    checkout.write(changed)
    return after.current, list(changed)


def _some(names: list[str], separator: str = ", ") -> str:
    shown = separator.join(names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
