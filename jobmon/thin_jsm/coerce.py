"""From JSON values to the values of a procedure's parameters, by the parameters' types.

Clients send ids as numbers, as decimal strings and, in two calls, as lists of one element; hashes as integers
of 160 bits. All of these are taken; what is not meant (true for a number, 17xyz for 17) is refused by name.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

from jobmon.thin_common.errors import RelayError
from jobmon.thin_common.numerals import INTEGER, REAL, REAL_TYPES

# MariaDB's JSON functions know 32 levels, MySQL's 100.
MAX_JSON_DEPTH = 24

_SIGNED_BITS = {"tinyint": 8, "smallint": 16, "mediumint": 24, "int": 32, "integer": 32, "bigint": 64}
_JSON_TYPES = frozenset({"json", "longtext"})  # MariaDB says longtext for JSON

_SURROGATE = re.compile("[\ud800-\udfff]")
_LONG_DIGITS = re.compile(rb"[0-9]{19}")

Coerce = Callable[[Any], Any]


class UnfitError(ValueError):
    """A value that is not of the parameter's type; the message says what is expected."""


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _keep_long(digits: str) -> int | str:
    # Databases keep integers of JSON documents up to 64 bits; MySQL makes longer ones floats. As text nothing
    # is lost.
    number = int(digits)
    return number if -(1 << 63) <= number < (1 << 64) else digits


_decoder = json.JSONDecoder(parse_constant=_refuse_constant)
_long_decoder = json.JSONDecoder(parse_constant=_refuse_constant, parse_int=_keep_long)
_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), check_circular=False)


def parse_body(body: bytes) -> dict[str, Any]:
    """The JSON object in a request's body; an empty body is an empty object.

    Bytes that are no UTF-8 become U+FFFD, as the report they stand in must not be lost. Integers of more than
    64 bits become decimal strings.

    Raises:
        RelayError: MALFORMED_JSON, NOT_AN_OBJECT.
    """
    if not body:
        return {}
    decoder = _long_decoder if _LONG_DIGITS.search(body) else _decoder
    try:
        document = decoder.decode(body.decode("utf-8", "replace").removeprefix("\ufeff"))
    except RecursionError:
        raise RelayError("MALFORMED_JSON", "The body is nested too deeply.") from None
    except ValueError as error:
        text = str(error)
        if "digits" in text:
            text = "a number has too many digits"
        raise RelayError("MALFORMED_JSON", f"The body is not JSON: {text[:200]}.") from None
    if not isinstance(document, dict):
        raise RelayError("NOT_AN_OBJECT")
    return document


def clean_text(text: str) -> str:
    """``text`` without lone surrogates, which no character set can hold."""
    return text if text.isascii() else _SURROGATE.sub("\ufffd", text)


def _single(value: Any) -> Any:
    return value[0] if type(value) is list and len(value) == 1 else value


def _integer(low: int, high: int, *, boolean: bool) -> Coerce:
    expected = f"a whole number from {low} to {high}"

    def coerce(value: Any) -> int | None:
        kind = type(value)
        if kind is list:
            value = _single(value)
            kind = type(value)
        if kind is int:
            number = value
        elif value is None:
            return None
        elif (
            (kind is str and INTEGER.fullmatch(value))
            or (kind is float and value.is_integer())
            or (kind is bool and boolean)
        ):
            number = int(value)
        else:
            raise UnfitError(expected)
        if not low <= number <= high:
            raise UnfitError(expected)
        return number

    return coerce


def _real(value: Any) -> int | float | str | None:
    value = _single(value)
    kind = type(value)
    if value is None or kind is int or (kind is float and math.isfinite(value)):
        return value
    if kind is str and REAL.fullmatch(value):
        return value  # as text, so that a DECIMAL loses no digit
    raise UnfitError("a number")


def _text(value: Any) -> str | None:
    value = _single(value)
    kind = type(value)
    if kind is str:
        return clean_text(value)
    if value is None:
        return None
    if kind is int or (kind is float and math.isfinite(value)):
        return str(value)
    raise UnfitError("a string")


def _json(value: Any) -> str | None:
    if type(value) is str:
        return clean_text(value)
    if value is None:
        return None
    level = [value]
    for _ in range(MAX_JSON_DEPTH):
        level = [
            child
            for container in level
            if type(container) is dict or type(container) is list
            for child in (container.values() if type(container) is dict else container)
            if type(child) is dict or type(child) is list
        ]
        if not level:
            break
    else:
        raise UnfitError(f"JSON of at most {MAX_JSON_DEPTH} levels")
    try:
        return clean_text(_encoder.encode(value))
    except ValueError:
        raise UnfitError("JSON without infinite numbers") from None


def coercion(data_type: str, full_type: str) -> Coerce:
    """How values for a parameter are made.

    Parameters:
        data_type: DATA_TYPE of information_schema.PARAMETERS, such as ``bigint``.
        full_type: DTD_IDENTIFIER, such as ``bigint(20) unsigned``.

    Returns:
        A function from a JSON value to the parameter's value; it raises :class:`UnfitError`.
    """
    data_type = data_type.lower()
    bits = _SIGNED_BITS.get(data_type)
    if bits is not None:
        boolean = full_type.lower().startswith("tinyint(1)")
        if "unsigned" in full_type.lower():
            return _integer(0, (1 << bits) - 1, boolean=boolean)
        return _integer(-(1 << (bits - 1)), (1 << (bits - 1)) - 1, boolean=boolean)
    if data_type in _JSON_TYPES:
        return _json
    if data_type in REAL_TYPES:
        return _real
    return _text


def openapi_schema(data_type: str, full_type: str) -> dict[str, Any]:
    """The OpenAPI schema of what :func:`coercion` takes for such a parameter."""
    data_type = data_type.lower()
    bits = _SIGNED_BITS.get(data_type)
    if bits is not None:
        unsigned = "unsigned" in full_type.lower()
        low, high = (0, (1 << bits) - 1) if unsigned else (-(1 << (bits - 1)), (1 << (bits - 1)) - 1)
        return {
            "type": "integer",
            "format": "int64" if bits > 32 else "int32",
            "minimum": low,
            "maximum": high,
        }
    if data_type in _JSON_TYPES:
        return {"description": "any JSON value"}
    if data_type in REAL_TYPES:
        return {"type": "number"}
    schema: dict[str, Any] = {"type": "string"}
    if match := re.search(r"\((\d+)\)", full_type):
        schema["maxLength"] = int(match[1])
    if data_type in ("datetime", "timestamp"):
        schema["format"] = "date-time"
    return schema
