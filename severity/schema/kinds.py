"""Kinds of values that more than one section has: numbers with their ranges, names, lists, mappings.

Messages about wrong values are made from the JSON Schema; a `description` replaces that, where a pattern or a rule
would not be understood.
"""

import re
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A section of params.yaml: exactly these keys, and no value is converted (true is not 1, '1' is not a number)."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class Empty(Section):
    """A section without keys."""


LARGEST = 2**31 - 1  # of whole numbers: what fits the lengths and seeds of every library
Count = Annotated[int, Field(ge=0, le=LARGEST)]
Positive = Annotated[int, Field(ge=1, le=LARGEST)]
NotNegative = Annotated[float, Field(ge=0)]
AboveZero = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
PartialShare = Annotated[float, Field(ge=0, lt=1)]
ProperShare = Annotated[float, Field(gt=0, lt=1)]


def _printable(text: str) -> str:
    if any(ord(each) < 32 or ord(each) == 127 for each in text):
        raise ValueError("holds a character that cannot be printed")
    return text


Text = Annotated[str, AfterValidator(_printable), Field(min_length=1)]


def _plain(name: str) -> str:
    if not re.fullmatch("[a-z][a-z0-9_]*", name):
        raise ValueError("is not a valid name: lower-case letters, digits and _ only, beginning with a letter")
    return name


# A key or a part of a run's name: file names and DVC allow no more.
Name = Annotated[str, AfterValidator(_plain)]
# YAML reads 007 as a number.
Id = Annotated[str, Field(min_length=1, description="a text, in quotes where it looks like a number")]

Item = TypeVar("Item")


def _distinct(items: list) -> list:
    repeated = [item for place, item in enumerate(items) if item in items[:place]]
    if repeated:
        raise ValueError(f"names {repeated[0]!r} twice")
    return items


Distinct = Annotated[list[Item], AfterValidator(_distinct), Field(json_schema_extra={"uniqueItems": True})]
