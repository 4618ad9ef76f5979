"""The generated pages are current, and what they tell is what the database says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pymysql
import pytest
from click.testing import CliRunner
from docs_helpers import DOCS, Page, page

from jobmon import reference
from jobmon.db.load import read_sql_dir
from jobmon.thin_common.errors import TRANSPORT_ERRORS


@pytest.fixture(scope="module")
def sources(database: Any) -> reference.Sources:
    return reference.read_sources(database.admin)


@pytest.fixture(scope="module")
def made(database: Any) -> dict[str, str]:
    return reference.pages(database.admin)


def test_current(made: dict[str, str]) -> None:
    stale = reference.stale_pages(DOCS, made)
    assert not stale, f"{', '.join(stale)}: run `python -m jobmon.reference --write`"


def test_every_generated_page_is_made(made: dict[str, str]) -> None:
    generated = {path.name for path in DOCS.glob("*.md") if Page(path).generated}
    assert generated == set(made)


def test_diagrams_are_the_transition_rows(database: Any) -> None:
    blocks = page("docs/state-machines.md").blocks("mermaid")
    assert len(blocks) == len(reference.STATE_MACHINES)
    for machine, block in zip(reference.STATE_MACHINES, blocks, strict=True):
        drawn = set(re.findall(r"^ +(\w) --> (\w): (.*)$", block, re.MULTILINE))
        rows = database.query(f"SELECT from_status, to_status, reason FROM {machine}_transition")
        assert {(a, b) for a, b, _ in drawn} == {(a, b) for a, b, _ in rows}
        assert len(drawn) == len(rows)
        labels = dict(database.query(f"SELECT status, label FROM {machine}_status"))
        assert dict(re.findall(r'state "\w (\w+)" as (\w)', block)) == {v: k for k, v in labels.items()}
        # What would end a label in mermaid.
        assert not [reason for _, _, reason in drawn if re.search("[:;]", reason)]


def test_public_procedures_are_in_both_references(database: Any) -> None:
    sql, http = page("docs/sql-reference.md").text, page("docs/http-reference.md").text
    names = [
        row[0]
        for row in database.query(
            "SELECT ROUTINE_NAME FROM information_schema.ROUTINES WHERE ROUTINE_SCHEMA = DATABASE()"
            " AND ROUTINE_TYPE = 'PROCEDURE'",
            role="jsm",
        )
    ]
    assert len(names) > 20
    for name in names:
        assert f"\n### {name}\n" in sql
        assert f"\n### POST /{name}\n" in http


def test_what_jqs_may_read_is_in_the_references(database: Any) -> None:
    sql, http = page("docs/sql-reference.md").text, page("docs/http-reference.md").text
    found = database.query(
        "SELECT TABLE_NAME, TABLE_TYPE FROM information_schema.TABLES WHERE TABLE_SCHEMA = DATABASE()",
        role="jqs",
    )
    assert len(found) > 20
    for name, kind in found:
        assert f"\n### GET /{name}\n" in http or f"\n| `/{name}` |" in http
        if kind == "VIEW":
            assert f"\n### {name}\n" in sql or f"\n| `{name}` |" in sql


def test_internal_objects_are_in_the_sql_reference() -> None:
    text = page("docs/sql-reference.md").text
    for (kind, name), file in read_sql_dir().items():
        if file.access == "internal" and kind in ("PROCEDURE", "FUNCTION"):
            assert f"\n#### {name}\n" in text
        elif file.access == "internal" and kind == "VIEW":
            assert f"\n| `{name}` |" in text


def test_tables_and_columns_are_in_the_data_model(database: Any) -> None:
    text = page("docs/data-model.md").text
    for name, column in database.query(
        "SELECT columns.TABLE_NAME, COLUMN_NAME FROM information_schema.COLUMNS AS columns"
        " JOIN information_schema.TABLES AS tables ON tables.TABLE_SCHEMA = columns.TABLE_SCHEMA"
        " AND tables.TABLE_NAME = columns.TABLE_NAME AND TABLE_TYPE = 'BASE TABLE'"
        " WHERE columns.TABLE_SCHEMA = DATABASE() AND columns.TABLE_NAME NOT LIKE '%yoyo%'"
        " AND columns.TABLE_NAME NOT LIKE '\\_jobmon%'"
    ):
        section = text.partition(f"\n### {name}\n")[2].partition("\n#")[0]
        assert re.search(rf"^\| \*?\*?{column}\*?\*? \|", section, re.MULTILINE), (name, column)


def test_errors_are_in_the_http_reference(database: Any) -> None:
    text = page("docs/http-reference.md").text
    rows = database.query("SELECT name, http_status FROM api_error")
    for name, status in [*rows, *((kind.name, kind.status) for kind in TRANSPORT_ERRORS.values())]:
        assert f"\n| {status} | `{name}` |" in text


def test_headers_name_known_errors(sources: reference.Sources) -> None:
    known = {row["name"] for row in sources.errors} | set(TRANSPORT_ERRORS)
    for header in sources.headers:
        # What stands in brackets explains.
        errors = re.sub(r"\(.*?\)", "", header.sections.get("Errors", ""))
        assert set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)+\b", errors)) <= known, header.name


def test_examples_run(db: Any, sources: reference.Sources) -> None:
    """Each example of a public header is right, and refused by a rule at most: its ids are not there."""
    own = {row["errno"] for row in sources.errors if row["errno"] > 32000}
    for kind, access, role in (("PROCEDURE", "JSM", "jsm"), ("VIEW", "JQS", "jqs")):
        conn = db.connect(role)
        for header in sources.of(kind, access):
            example = header.sections["Example"]
            assert re.search(rf"\b{header.name}\b", example)
            with conn.cursor() as cursor:
                try:
                    cursor.execute(example)
                    while cursor.nextset():
                        pass
                except pymysql.err.Error as error:
                    assert error.args[0] in own, (header.name, error)


def test_check_finds_what_is_not_current(database: Any, made: dict[str, str], tmp_path: Path) -> None:
    arguments = ["--docs", str(tmp_path), "--conn-str", database.admin.conn_str()]
    missing = CliRunner().invoke(reference.main, ["--check", *arguments])
    assert missing.exit_code == 1
    assert "python -m jobmon.reference --write" in missing.output
    assert CliRunner().invoke(reference.main, ["--write", *arguments]).exit_code == 0
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == made
    assert CliRunner().invoke(reference.main, ["--check", *arguments]).exit_code == 0
    (tmp_path / "cli.md").write_text("something else")
    stale = CliRunner().invoke(reference.main, ["--check", *arguments])
    assert stale.exit_code == 1
    assert "cli.md" in stale.output
    assert "data-model.md" not in stale.output


def test_wrong_use_is_told() -> None:
    neither = CliRunner().invoke(reference.main, [])
    assert neither.exit_code == 2
    nowhere = CliRunner().invoke(reference.main, ["--check", "--docs", "/nowhere"])
    assert nowhere.exit_code == 1
    assert "is no directory" in nowhere.output


def test_a_header_must_explain_each_parameter(tmp_path: Path) -> None:
    (tmp_path / "procedures").mkdir()
    (tmp_path / "procedures" / "f.sql").write_text(
        "CREATE PROCEDURE f(\n    in_a INT,\n    in_b DECIMAL(5, 2)\n)\n    SQL SECURITY DEFINER\n"
        "    COMMENT '\nDescription: it''s one.\nAccess: JSM\nParameters:\n  in_a: one,\n    and more\n'\n"
        "BEGIN END\n"
    )
    [file] = read_sql_dir(tmp_path).values()
    with pytest.raises(reference.DatabaseError, match="in_b"):
        reference.parse_header(file)
    path = tmp_path / "procedures" / "f.sql"
    path.write_text(path.read_text().replace("and more\n", "and more\n  in_b: two\n"))
    [file] = read_sql_dir(tmp_path).values()
    header = reference.parse_header(file)
    assert header.description == "it's one."
    assert [(p.key, p.type, p.meaning) for p in header.parameters] == [
        ("a", "INT", "one, and more"),
        ("b", "DECIMAL(5, 2)", "two"),
    ]
