"""Attributes: numbers and tags that are kept with workflows, workflow runs and jobs."""

from __future__ import annotations

from enum import IntEnum
from typing import Any

from jobmon.client.errors import InvalidTask

MAX_VALUE = 255  # characters


class AttributeType(IntEnum):
    """The attribute types that every database has. All take whole numbers, TAG takes a text."""

    NUM_LOCATIONS = 1
    NUM_DRAWS = 2
    NUM_AGE_GROUPS = 3
    NUM_YEARS = 4
    NUM_RISKS = 5
    NUM_CAUSES = 6
    NUM_SEXES = 7
    TAG = 8
    NUM_MEASURES = 9
    NUM_METRICS = 10
    NUM_MOST_DETAILED_LOCATIONS = 11
    NUM_AGGREGATE_LOCATIONS = 12


def make_attribute(attribute_type: int | str, value: Any) -> tuple[int, str]:
    """An attribute as the services take it.

    Parameters:
        attribute_type: its name in :class:`AttributeType`, or its number; the database judges other numbers.
        value: a whole number, or a text for TAG.

    Returns:
        The type's number, and the value as text.

    Raises:
        InvalidTask: the name is unknown, or the value does not fit.
    """
    if isinstance(attribute_type, str):
        try:
            number = int(AttributeType[attribute_type.upper()])
        except KeyError:
            names = ", ".join(AttributeType.__members__)
            raise InvalidTask(
                f"There is no attribute type {attribute_type!r}", f"Types are {names}."
            ) from None
    else:
        number = int(attribute_type)
    text = str(value)
    is_known = number in AttributeType.__members__.values()
    if is_known and number != AttributeType.TAG:
        try:
            text = str(int(value))
        except (TypeError, ValueError):
            name = AttributeType(number).name
            raise InvalidTask(f"Attribute {name} takes a whole number, not {value!r}") from None
    if len(text) > MAX_VALUE:
        raise InvalidTask(
            f"The value of attribute {attribute_type} has {len(text)} characters",
            f"{MAX_VALUE} are the most.",
        )
    return number, text
