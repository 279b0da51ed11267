"""Checks of tables from outside: what a cell may hold, and messages that name file, line and column."""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy
import pandas

from severity.core import tables
from severity.core.errors import SeverityError, nearest

SHOWN = 5  # how many offenders an error names
OLDEST = 120  # years; an older age in a table is a typing error
# An age as DICOM writes it, 045Y, 011M, 006W, 003D, or a bare number of years.
AGE = r"^(.*?)\s*([YMWD])?$"
YEARS = {"Y": 1.0, "M": 1 / 12, "W": 7 / 365.25, "D": 1 / 365.25}


def line(path: Path, row: int) -> int:
    """The line of a file that holds data row `row` (counted from 0): blank lines and those within cells count."""
    known = tables.lines(path)
    return known[row + 1] if row + 1 < len(known) else row + 2


def refuse(
    bad: Sequence[bool], values: pandas.Series, column: str, path: Path, words: str, known: Iterable[str] = ()
) -> None:
    """Raise SeverityError if a row is `bad`: file, line, column, the value of the first such row, and what is wrong.

    Args:
        bad: one a row of the table.
        values: what the rows hold.
        words: how the sentence goes on after the value.
        known: what would have been right, to name the nearest; none by default.
    """
    bad = numpy.asarray(bad, dtype=bool)
    if bad.any():
        row = int(bad.argmax())
        value = values.iloc[row]
        hint = f" {nearest(value, known)}" if known else ""
        raise SeverityError(
            f"{path}, line {line(path, row)}, column {column!r}: {value!r} {words} ({int(bad.sum())} such rows).{hint}"
        )


def refuse_repeats(names: pandas.Series, column: str, path: Path) -> None:
    """Raise SeverityError if two rows name the same image; the message names file and both lines.

    Args:
        names: the image of each row, as text.
        column: the column that holds them.
    """
    again = names.duplicated().to_numpy()
    if again.any():
        row = int(again.argmax())
        first = int((names == names.iloc[row]).to_numpy().argmax())
        raise SeverityError(
            f"{path}, column {column!r}: lines {line(path, first)} and {line(path, row)} both name {names.iloc[row]!r}; each image "
            f"has one row ({int(again.sum())} repeated rows)."
        )


def plausible(ages: pandas.Series, youngest: float = 0) -> pandas.Series:
    """Ages in years, NaN for impossible ones: below `youngest` or above OLDEST."""
    return ages.where(ages.between(youngest, OLDEST))


def ages(texts: pandas.Series, column: str, path: Path) -> pandas.Series:
    """A column of ages as float64 years: 45, 045Y, 11M, 6W, 3D (years, months, weeks, days); blank is NaN.

    Raises:
        SeverityError: a text that is no age; the message names file, line and column.
    """
    parts = texts.str.upper().str.extract(AGE)
    values = pandas.to_numeric(parts[0].replace("", "nan"), errors="coerce")
    bad = values.isna() & ~(texts.isin(["", "nan"]))
    refuse(bad, texts, column, path, "is not a number of years, nor of the form 045Y, 011M, 006W or 003D")
    return values.astype("float64") * parts[1].map(YEARS).fillna(1.0)


def mapped(frame: pandas.DataFrame, column: str, meaning: dict[str, object], path: Path) -> pandas.Series:
    """The values of one column, each replaced by its meaning.

    Raises:
        SeverityError: a value without a meaning; the message names file, line and column, and the known values.
    """
    words = ", ".join(repr(word) if word else "blank" for word in meaning)
    refuse(~frame[column].isin(meaning.keys()), frame[column], column, path, f"is not one of {words}")
    return frame[column].map(meaning)


def numbers(texts: pandas.Series, column: str, path: Path, *, separator: str = ",") -> pandas.Series:
    """A column of text as float64; blank is NaN.

    Args:
        separator: what parts the table's cells. Where it is no comma, a comma within a number is the decimal point of
            programs that write both so.

    Raises:
        SeverityError: a text that is not a number; the message names file, line and column.
    """
    plain = texts if separator == "," else texts.str.replace(r"^([^,.]*),([^,.]*)$", r"\1.\2", regex=True)
    values = pandas.to_numeric(plain.replace("", "nan"), errors="coerce")
    refuse(values.isna() & ~texts.isin(["", "nan"]), texts, column, path, "is not a number")
    return values.astype("float64")


def listed(names: Iterable[object]) -> str:
    """The first few of `names` for an error message, and how many more there are."""
    names = [str(name) for name in names]
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest


def check_words(words: Sequence[str], known: Sequence[str], where: str) -> None:
    """Raise SeverityError unless `words` is a list of some of the `known` words (an option of params.yaml)."""
    if not isinstance(words, list) or not words:
        raise SeverityError(f"{where} must be a list of at least one of {', '.join(known)}, but is {words!r}.")
    for word in words:
        if word not in known:
            raise SeverityError(f"{where}: {word!r} is unknown. {nearest(word, known)}")
