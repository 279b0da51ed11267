"""Label tables of a collection: CSV files from outside, read as text and checked column by column."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas

from severity.errors import SeverityError, nearest

SHOWN = 5  # how many offenders an error names


def read_text(path: Path, columns: Sequence[str], separator: str = ",") -> pandas.DataFrame:
    """Read a CSV file (gzip by its suffix); every cell is text, a blank one ''.

    Args:
        path: the file.
        columns: the columns that must be there; others are kept as they are.
        separator: what stands between two cells.

    Raises:
        SeverityError: the file is no CSV, has no row, or lacks a column.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)  # rows longer than the header
            frame = pandas.read_csv(
                path, sep=separator, dtype=str, keep_default_na=False, index_col=False, encoding="utf-8-sig"
            )
    except (ValueError, OSError, EOFError, pandas.errors.ParserWarning) as error:
        raise SeverityError(f"{path} cannot be read as a CSV table: {error}") from None
    for column in columns:
        if column not in frame.columns:
            raise SeverityError(f"{path}: the column {column!r} is missing. {nearest(column, frame.columns)}")
    if frame.empty:
        raise SeverityError(f"{path} has a header but no row.")
    return frame.fillna("")


def line(row: int) -> int:
    """The line of a file that holds data row `row` (counted from 0): the header is line 1."""
    return row + 2


def mapped(frame: pandas.DataFrame, column: str, meaning: dict[str, object], path: Path) -> pandas.Series:
    """The values of one column, each replaced by its meaning.

    Raises:
        SeverityError: a value without a meaning; the message names file, line and column, and the known values.
    """
    known = frame[column].isin(meaning.keys())
    if not known.all():
        row = int((~known).to_numpy().argmax())
        words = ", ".join(repr(word) if word else "blank" for word in meaning)
        raise SeverityError(
            f"{path}, line {line(row)}, column {column!r}: {frame[column].iloc[row]!r} is not one of {words} "
            f"({int((~known).sum())} such rows)."
        )
    return frame[column].map(meaning)


def numbers(texts: pandas.Series, column: str, path: Path) -> pandas.Series:
    """A column of text as float64; blank is NaN.

    Raises:
        SeverityError: a text that is no number; the message names file, line and column.
    """
    values = pandas.to_numeric(texts.replace("", "nan"), errors="coerce")
    bad = (values.isna() & ~texts.isin(["", "nan"])).to_numpy()
    if bad.any():
        row = int(bad.argmax())
        raise SeverityError(f"{path}, line {line(row)}, column {column!r}: {texts.iloc[row]!r} is not a number.")
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
