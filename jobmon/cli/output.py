"""What the commands print: tables for people, JSON and bare ids for scripts; and how they go on watching."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import dataclass
from functools import wraps
from typing import IO, TYPE_CHECKING, Any

import click

from jobmon.cli.errors import HintedError, NotFoundError
from jobmon.client.errors import ServiceUnavailable
from jobmon.config import load_config

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.live import Live
    from rich.text import Text

    from jobmon.client.requester import Requester

Row = Mapping[str, Any]

EXIT_FAILED = 1
EXIT_INCOMPLETE = 4
# The others stand where they are raised: 2 in click, 3 in jobmon.cli.errors.

PATIENCE = 5.0  # seconds that a person waits for a service that does not answer
MAX_ROWS = 100_000  # that JQS gives in one answer
WIDE = 1_000_000  # columns of a page that is no terminal
FOLDED_WIDTH = 16  # columns that a text which may fold should have
GAP = 2  # blanks between the columns of a table
MAX_ID = 2**64 - 1

_STYLES = {
    "DONE": "green",
    "RUNNING": "cyan",
    "INSTANTIATED": "cyan",
    "SUBMITTED_TO_BATCH_EXECUTOR": "cyan",
    "ERROR": "red",
    "NO_EXECUTOR_ID": "red",
    "RESOURCE_ERROR": "red",
    "UNKNOWN_ERROR": "red",
    "ERROR_FATAL": "red",
    "ERROR_RECOVERABLE": "yellow",
    "STOPPED": "yellow",
}


# ----------------------------------------------------------------------------------------------------------
# Options and arguments


class _Id(click.ParamType):
    """The number of a row."""

    name = "id"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        text = str(value)
        if not (text.isascii() and text.isdigit() and len(text) <= 20 and 0 < int(text) <= MAX_ID):
            self.fail(f"{text!r} is no id: ids are numbers from 1 on", param, ctx)
        return int(text)


ID = _Id()
workflow_argument = click.argument("workflow_id", type=ID)
job_argument = click.argument("job_id", type=ID)
watch_option = click.option(
    "--watch",
    metavar="[SECONDS]",
    type=click.FloatRange(min=0.1),
    is_flag=False,
    flag_value=2.0,
    help="Show it again every so many seconds (2 if not said) until it has ended, or Ctrl-C. Without SECONDS"
    " it must come last.",
)
yes_option = click.option("--yes", is_flag=True, help="Do not ask.")


def limit_option(default: int, what: str) -> Callable[..., Any]:
    """The option ``--limit``."""
    return click.option(
        "--limit",
        type=click.IntRange(min=1, max=MAX_ROWS),
        metavar="N",
        default=default,
        show_default=True,
        help=what,
    )


def output_option(*more: str, quiet: str = "the ids only") -> Callable[..., Any]:
    """The option ``-o``.

    Parameters:
        more: further choices.
        quiet: what ``-o quiet`` prints, in words.
    """
    return click.option(
        "-o",
        "--output",
        type=click.Choice(["table", "json", "quiet", *more]),
        default="table",
        show_default=True,
        help=f"How it is printed; quiet: {quiet}.",
    )


def with_requester(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command a :class:`Requester` as its first argument."""

    @click.pass_context
    @wraps(command)
    def wrapped(ctx: click.Context, /, *args: Any, **kw: Any) -> Any:
        # Only here: the other commands start faster without the HTTP client.
        from jobmon.client.requester import Requester

        config = load_config(ctx.find_object(str))
        with closing(Requester(config, patience=PATIENCE)) as requester:
            return command(requester, *args, **kw)

    return wrapped


def confirm(question: str, yes: bool) -> None:
    """Ask before something that can't be undone.

    Parameters:
        question: without its question mark.
        yes: it was answered on the command line.

    Raises:
        HintedError: nobody is there to be asked. click.Abort: the answer is no.
    """
    if yes:
        return
    if not _is_terminal(sys.stdin):
        raise HintedError(f"{question}? Nobody is there to be asked", "say --yes")
    click.confirm(f"{question}?", abort=True, err=True)


def _is_terminal(stream: IO[Any]) -> bool:
    return stream.isatty()


# ----------------------------------------------------------------------------------------------------------
# Reading


def find_row(requester: Requester, view: str, what: str, hint: str, **filters: Any) -> dict[str, Any]:
    """The one row of a view.

    Parameters:
        what: it, in words, for the error.
        hint: what to do if there is none.
        filters: columns and the value that each must have.

    Raises:
        NotFoundError: there is none.
    """
    rows: list[dict[str, Any]] = requester.get(view, **filters, limit=1)[view]
    if not rows:
        raise NotFoundError(f"there is no {what}", hint)
    return rows[0]


def find_workflow(requester: Requester, workflow_id: int) -> dict[str, Any]:
    """The workflow's row.

    Raises:
        NotFoundError: there is none.
    """
    hint = "`jobmon workflow list` shows them"
    return find_row(requester, "workflows", f"workflow {workflow_id}", hint, workflow_id=workflow_id)


def find_job(requester: Requester, job_id: int) -> dict[str, Any]:
    """The job's row.

    Raises:
        NotFoundError: there is none.
    """
    hint = "`jobmon workflow jobs WORKFLOW_ID` shows those of a workflow"
    return find_row(requester, "jobs", f"job {job_id}", hint, job_id=job_id)


def newest_rows(requester: Requester, view: str, limit: int, **filters: Any) -> list[dict[str, Any]]:
    """The last rows of a view that match, in its order (JQS gives a view's rows from its beginning only).

    Parameters:
        limit: rows at most.
        filters: columns and the value that each must have.
    """
    newest: list[dict[str, Any]] = []
    offset, page = 0, 1000
    while True:
        rows = requester.get(view, **filters, limit=page, offset=offset)[view]
        newest = (newest + rows)[-limit:]
        if len(rows) < page:
            return newest
        offset += page
        page = 10_000


def find_label(requester: Requester, machine: str, text: str | None) -> str | None:
    """The label of a status that somebody gave as a label or a letter, in whatever case.

    Parameters:
        machine: ``job``, ``workflow`` ...
        text: what was given; None is left as it is.

    Raises:
        click.UsageError: there is no such status.
    """
    if text is None:
        return None
    view = f"{machine}_status"
    rows = requester.get(view)[view]
    for row in rows:
        if text.upper() in (row["status"], row["label"]):
            return str(row["label"])
    labels = ", ".join(row["label"] for row in rows)
    raise click.UsageError(f"{text!r} is no status of a {machine}. There are {labels}.")


# ----------------------------------------------------------------------------------------------------------
# Printing


@dataclass(frozen=True)
class Report:
    """What a command found, in all forms.

    document: as JSON. render: as things that rich prints. ids: for ``-o quiet``. ended: whether there is
    nothing more to watch for.
    """

    document: Any
    render: Callable[[], Iterable[RenderableType]]
    ids: Sequence[int | str] = ()
    ended: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table.

    title: its heading. value: a key of the row, or a function of it. right: numbers stand right. folds: may
    be broken into several lines on a terminal. spare: left out of a terminal that is too narrow.
    """

    title: str
    value: str | Callable[[Row], Any]
    right: bool = False
    folds: bool = False
    spare: bool = False

    def of(self, row: Row) -> Any:
        """The cell of a row."""
        return row[self.value] if isinstance(self.value, str) else self.value(row)


def show(make: Callable[[], Report], output: str, watch: float | None = None) -> Report:
    """Print a report; watching, print it again and again until it has ended or Ctrl-C is pressed.

    While it is watched, a service that does not answer for a while is told of and asked again.

    Parameters:
        make: asks the services.
        output: ``table``, ``json`` or ``quiet``.
        watch: seconds between two looks; None: look once.

    Returns:
        The last report.
    """
    report = make()
    if watch is None:
        print_report(report, output)
        return report
    screen = _screen() if output == "table" and _is_terminal(sys.stdout) else None
    note = ""
    try:
        with screen or nullcontext():
            while True:
                if screen is not None:
                    _redraw(screen, report, note)
                elif note:
                    click.echo(note, err=True)
                else:
                    print_report(report, output, compact=True)
                if report.ended:
                    break
                time.sleep(watch)
                try:
                    report, note = make(), ""
                except ServiceUnavailable as error:
                    note = error.message
    except KeyboardInterrupt:
        pass
    if screen is not None:
        print_report(report, output)
    return report


def _screen() -> Live:
    from rich.live import Live

    return Live(console=_console(), screen=True, auto_refresh=False)


def _redraw(screen: Live, report: Report, note: str) -> None:
    from rich.console import Group

    screen.update(Group(*report.render(), *([line(note, "red")] if note else [])), refresh=True)


def print_report(report: Report, output: str, *, compact: bool = False) -> None:
    """Print a report once.

    Parameters:
        output: ``table``, ``json`` or ``quiet``.
        compact: JSON on one line, and a blank line after a table, for what comes after it.
    """
    if output == "json":
        click.echo(json.dumps(report.document, indent=None if compact else 2, ensure_ascii=False))
    elif output == "quiet":
        for number in report.ids:
            click.echo(number)
    else:
        print_renderables(report.render())
        if compact:
            click.echo()


def print_renderables(parts: Iterable[RenderableType]) -> None:
    """Print for people: as wide as the terminal; elsewhere unbroken, without colours and trailing blanks."""
    terminal = _is_terminal(sys.stdout)
    console = _console() if terminal else _console(file=io.StringIO(), width=WIDE)
    # All at once: what rich imports on its way is there before anything is seen, and can be interrupted.
    with console.capture() as captured:
        for part in parts:
            console.print(part)
    text = captured.get()
    click.echo(
        text if terminal else "".join(f"{part.rstrip()}\n" for part in text.split("\n")[:-1]), nl=False
    )


def _console(**options: Any) -> Console:
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False, **options)


def line(text: str, style: str = "") -> Text:
    """A line of text for people."""
    from rich.text import Text

    return Text(plain(text), style=style)


def status_line(before: str, status: str, after: str = "") -> Text:
    """A line with a status in its colour."""
    text = line(before)
    text.append(status, style=_STYLES.get(status, ""))
    return text.append(plain(after))


def make_table(columns: Sequence[Column], rows: Iterable[Row], *, none: str) -> RenderableType:
    """A table for people.

    Parameters:
        none: what is said if there are no rows.
    """
    texts = [[_text_of(column.of(row)) for column in columns] for row in rows]
    return _Table(columns, texts) if texts else line(none)


def _text_of(cell: Any) -> Text:
    text = plain(cell).replace("\n", " ").replace("\t", " ")
    return line(text, _STYLES.get(cell, "") if isinstance(cell, str) else "")


@dataclass(frozen=True)
class _Table:
    """A table that leaves out columns which can be spared, the last first, until it is narrow enough.

    rich would rather squeeze the columns that may fold to nothing.
    """

    columns: Sequence[Column]
    texts: Sequence[Sequence[Text]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.table import Table

        chosen = self._choose(options.max_width)
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in (self.columns[number] for number in chosen):
            table.add_column(
                column.title,
                justify="right" if column.right else "left",
                no_wrap=not column.folds,
                overflow="fold" if column.folds else "ellipsis",
            )
        for cells in self.texts:
            table.add_row(*[cells[number] for number in chosen])
        yield table

    def _choose(self, width: int) -> list[int]:
        needed = []
        for number, column in enumerate(self.columns):
            widest = max(len(column.title), *(cells[number].cell_len for cells in self.texts))
            needed.append(GAP + (min(widest, FOLDED_WIDTH) if column.folds else widest))
        chosen = list(range(len(self.columns)))
        for number in reversed(range(len(self.columns))):
            if sum(needed[kept] for kept in chosen) - GAP > width and self.columns[number].spare:
                chosen.remove(number)
        return chosen


# ----------------------------------------------------------------------------------------------------------
# Values in words


def plain(value: Any) -> str:
    """A value as text without control characters, which could make a terminal do anything."""
    if value is None:
        return ""
    text = str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text.replace("\r\n", "\n"))


def moment(text: str | None) -> str:
    """A time of JQS's (UTC) to the second."""
    return "" if text is None else text[:19].replace("T", " ")


def duration(seconds: float | None) -> str:
    """Seconds in words: ``0.4 s``, ``12 s``, ``3 min 5 s``, ``2 h 14 min``, ``3 d 4 h``."""
    if seconds is None:
        return ""
    if seconds < 10:
        return f"{max(seconds, 0):.1f} s"
    whole = round(seconds)
    for size, unit, smaller, name in ((86400, "d", 3600, "h"), (3600, "h", 60, "min"), (60, "min", 1, "s")):
        if whole >= size:
            return f"{whole // size} {unit} {whole % size // smaller} {name}"
    return f"{whole} s"


def one_line(text: str | None, limit: int = 200) -> str:
    """An error on one line: how it ended stands at its head, and why at its end."""
    lines = [part.strip() for part in (text or "").splitlines() if part.strip()]
    short = ": ".join(dict.fromkeys((lines[0], lines[-1]))) if lines else ""
    return short if len(short) <= limit else short[: limit - 3] + "..."
