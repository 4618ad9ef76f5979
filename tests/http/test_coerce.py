"""From JSON values to parameters, without a database."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobmon.thin_common.errors import RelayError
from jobmon.thin_jsm.app import render
from jobmon.thin_jsm.coerce import MAX_JSON_DEPTH, UnfitError, coercion, parse_body

INT = coercion("int", "int(11)")
TEXT = coercion("varchar", "varchar(255)")
JSON = coercion("longtext", "longtext")


@pytest.mark.parametrize(
    ("full_type", "low", "high"),
    [
        ("tinyint(4)", -128, 127),
        ("smallint unsigned", 0, 65535),
        ("int", -(2**31), 2**31 - 1),
        ("bigint(20) unsigned", 0, 2**64 - 1),
        ("bigint", -(2**63), 2**63 - 1),
    ],
)
def test_ranges_of_integers(full_type: str, low: int, high: int) -> None:
    coerce = coercion(full_type.split("(")[0].split()[0], full_type)
    assert (coerce(low), coerce(str(high))) == (low, high)
    for beyond in (low - 1, high + 1):
        with pytest.raises(UnfitError, match=f"a whole number from {low} to {high}"):
            coerce(beyond)


def test_booleans_are_numbers_only_where_the_parameter_is_one() -> None:
    boolean = coercion("tinyint", "tinyint(1)")
    assert (boolean(True), boolean(False), boolean(1), boolean(None)) == (1, 0, 1, None)
    with pytest.raises(UnfitError):
        INT(True)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a", "a"),
        (5, "5"),
        (2**159, str(2**159)),
        (1.5, "1.5"),
        (["x"], "x"),
        (None, None),
        ("\ud83d!", "\ufffd!"),
    ],
)
def test_texts(value: Any, text: str | None) -> None:
    assert TEXT(value) == text


@pytest.mark.parametrize("value", [True, {}, {"a": 1}, [], ["a", "b"], [["a"]], float("inf"), float("nan")])
def test_what_is_no_text(value: Any) -> None:
    with pytest.raises(UnfitError, match="a string"):
        TEXT(value)


def test_json_values_become_compact_text() -> None:
    assert JSON([{"a": 1, "b": "é"}]) == '[{"a":1,"b":"é"}]'
    assert JSON('{"as": "it is"}') == '{"as": "it is"}'
    assert JSON({}) == "{}"
    assert JSON(False) == "false"
    assert JSON(["\udc00"]) == '["\ufffd"]'
    assert JSON(None) is None


def nested(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_depth_of_json_is_bounded() -> None:
    assert JSON(nested(MAX_JSON_DEPTH))
    with pytest.raises(UnfitError, match="levels"):
        JSON(nested(MAX_JSON_DEPTH + 1))


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"nonsense",
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"a": ' + b"9" * 5000,
    ],
)
def test_bodies_that_are_no_json(body: bytes) -> None:
    with pytest.raises(RelayError) as caught:
        parse_body(body)
    assert (caught.value.code, caught.value.status) == ("MALFORMED_JSON", 400)


@pytest.mark.parametrize("body", [b"[]", b"1", b'"a"', b"null", b"true"])
def test_bodies_that_are_no_object(body: bytes) -> None:
    with pytest.raises(RelayError) as caught:
        parse_body(body)
    assert (caught.value.code, caught.value.status) == ("NOT_AN_OBJECT", 400)


def test_odd_bodies() -> None:
    assert parse_body(b"") == {}
    assert parse_body(b'\xef\xbb\xbf{"a": 1}') == {"a": 1}
    assert parse_body(b'{"a": "\xff"}') == {"a": "\ufffd"}
    assert parse_body(b'{"a": 1, "a": 2}') == {"a": 2}
    assert parse_body(b'{"h": %d, "n": %d}' % (2**159, 2**64 - 1)) == {"h": str(2**159), "n": 2**64 - 1}
    with pytest.raises(UnfitError):
        JSON(parse_body(b'{"a": [1e999]}')["a"])


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists, max_leaves=20)
)
def test_every_value_is_taken_or_refused(value: Any) -> None:
    for coerce in (INT, TEXT, JSON, coercion("double", "double"), coercion("datetime", "datetime(6)")):
        try:
            taken = coerce(value)
        except UnfitError:
            continue
        if isinstance(taken, str):
            taken.encode()
        else:
            assert taken is None or isinstance(taken, int | float)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text("aé\x00\u2028"), st.lists))
def test_documents_are_passed_on_as_they_are(value: Any) -> None:
    text = json.dumps({"b": value, "a": 1})
    body = render(text)
    assert json.loads(body) == {"b": value, "a": 1}
    assert body.startswith(b'{"a":') or body.startswith(b'{"a": ')
    assert body.endswith(b"\n")
    assert render(None) == b"{}\n"
