"""Label tables of a collection: CSV files from outside, read as text and checked column by column."""

import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy
import pandas

from severity.core.errors import SeverityError, nearest

SHOWN = 5  # how many offenders an error names
OLDEST = 120  # years; whoever is older in a table was mistyped


def find(root: Path, names: Sequence[str]) -> Path | None:
    """The first of the files `names` that is in the folder `root`, plain or with .gz; None if there is none."""
    candidates = (root / (name + suffix) for name in names for suffix in ("", ".gz"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def read_text(path: Path, columns: Sequence[str], separator: str = ",") -> pandas.DataFrame:
    """Read a CSV file (gzip by its suffix); every cell is text, a blank one ''.

    Args:
        path: the file.
        columns: the columns that must be there; others are kept as they are.
        separator: the character between two cells.

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
        raise _no_table(path, error) from None
    for column in columns:
        if column not in frame.columns:
            raise SeverityError(f"{path}: the column {column!r} is missing. {nearest(column, frame.columns)}")
    if frame.empty:
        raise SeverityError(f"{path} has a header but no row.")
    return frame.fillna("")


def header(path: Path, separator: str = ",") -> list[str]:
    """The cells of the first line of a CSV file, as they are. Raises SeverityError when it is no CSV."""
    try:
        first = pandas.read_csv(
            path, sep=separator, header=None, nrows=1, dtype=str, keep_default_na=False, encoding="utf-8-sig"
        )
    except (ValueError, OSError, EOFError) as error:
        raise _no_table(path, error) from None
    return first.iloc[0].tolist()


def _no_table(path: Path, error: Exception) -> SeverityError:
    mend = " Save it in the encoding UTF-8." if isinstance(error, UnicodeDecodeError) else ""
    return SeverityError(f"{path} cannot be read as a CSV table: {str(error).rstrip('.')}.{mend}")


def read_words(path: Path) -> list[str]:
    """The words of a text file, such as a list with one file name a line.

    Raises:
        SeverityError: the file is no text.
    """
    try:
        return path.read_text(encoding="utf-8-sig").split()
    except (ValueError, OSError) as error:
        raise SeverityError(f"{path} cannot be read as a text file: {error}") from None


def line(row: int) -> int:
    """The line of a file that holds data row `row` (counted from 0): the header is line 1."""
    return row + 2


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
            f"{path}, line {line(row)}, column {column!r}: {value!r} {words} ({int(bad.sum())} such rows).{hint}"
        )


def refuse_repeats(names: pandas.Series, column: str, path: Path) -> None:
    """Raise SeverityError if two rows name the same image; the message names file and both lines.

    Args:
        names: the image of each row, as text.
        column: where they stand.
    """
    again = names.duplicated().to_numpy()
    if again.any():
        row = int(again.argmax())
        first = int((names == names.iloc[row]).to_numpy().argmax())
        raise SeverityError(
            f"{path}, column {column!r}: lines {line(first)} and {line(row)} both name {names.iloc[row]!r}; each image "
            f"has one row ({int(again.sum())} repeated rows)."
        )


def plausible(ages: pandas.Series, youngest: float = 0) -> pandas.Series:
    """Ages in years, NaN for those that nobody has: below `youngest` or above OLDEST."""
    return ages.where(ages.between(youngest, OLDEST))


def mapped(frame: pandas.DataFrame, column: str, meaning: dict[str, object], path: Path) -> pandas.Series:
    """The values of one column, each replaced by its meaning.

    Raises:
        SeverityError: a value without a meaning; the message names file, line and column, and the known values.
    """
    words = ", ".join(repr(word) if word else "blank" for word in meaning)
    refuse(~frame[column].isin(meaning.keys()), frame[column], column, path, f"is not one of {words}")
    return frame[column].map(meaning)


def numbers(texts: pandas.Series, column: str, path: Path) -> pandas.Series:
    """A column of text as float64; blank is NaN.

    Raises:
        SeverityError: a text that is no number; the message names file, line and column.
    """
    values = pandas.to_numeric(texts.replace("", "nan"), errors="coerce")
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
