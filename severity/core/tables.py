"""Reading CSV tables: every one is read here, under the same rules.

The encoding is UTF-8, with or without a byte order mark. A name of a column or a cell such as NA is text, never
"missing"; only a blank cell is blank. A row longer than the header is an error, not a column of its own, and a required
column must be there exactly once. Messages name the file and say what to do.
"""

import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas

from severity.core import inputs
from severity.core.errors import SeverityError, nearest

UTF8 = "Save it in the encoding UTF-8."


def find(root: Path, names: Sequence[str]) -> Path | None:
    """The first of the files `names` that is in the folder `root`, plain or with .gz; None if none of them is there."""
    candidates = (root / (name + suffix) for name in names for suffix in ("", ".gz"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def header(path: Path | str, separator: str = ",", fix: str = "") -> list[str]:
    """The cells of the first line of a CSV file, as they are. Raises SeverityError when it is not a CSV file."""
    return _read(path, fix, sep=separator, header=None, nrows=1, dtype=str).iloc[0].tolist()


def read_text(path: Path | str, columns: Sequence[str], separator: str = ",", fix: str = "") -> pandas.DataFrame:
    """Read a table from outside (gzip by its suffix); every cell is text, a blank one ''.

    Args:
        path: the file.
        columns: the columns that must be there; others are kept as they are.
        separator: the character between two cells.
        fix: how to get the right file, for messages.

    Raises:
        SeverityError: the file is missing or not a CSV file, or has no row; a column is missing or duplicated.
    """
    names = header(path, separator, fix)
    frame = _read(path, fix, sep=separator, dtype=str)
    _check_columns(path, columns, names, lambda column: nearest(column, names))
    if frame.empty:
        raise SeverityError(_sentence(f"{path} has a header but no row.", fix))
    return frame.fillna("")


def read(path: Path | str, columns: Sequence[str], floats: Sequence[str], fix: str) -> pandas.DataFrame:
    """Read a table that a stage wrote: columns `floats` as float64 (blank is NaN), all others as text (blank is '').

    Args:
        path: the file.
        columns: the columns that must be there, `floats` too.
        fix: how to have it regenerated, for messages.

    Raises:
        SeverityError: the file is missing or another table.
    """
    names = header(path, fix=fix)
    _check_columns(path, (*columns, *floats), names, lambda column: fix)
    kinds = {column: "float64" if column in floats else str for column in names}
    frame = _read(path, fix, dtype=kinds, na_values={column: [""] for column in floats})
    return _blank(frame, [column for column in names if column not in floats])


def read_numbers(path: Path | str, words: Sequence[str], fix: str) -> pandas.DataFrame:
    """Read a table that a stage wrote: columns `words` as text (blank is ''), all others as the numbers that they hold.

    Args:
        path: the file.
        words: columns of text; those that the table does not have are ignored.
        fix: how to have it regenerated, for messages.

    Returns:
        Columns of whole numbers are int64, others float64 (blank is NaN).

    Raises:
        SeverityError: the file is missing or not a CSV file.
    """
    frame = _read(path, fix, dtype=dict.fromkeys(words, str), na_values=[""])
    return _blank(frame, [column for column in words if column in frame])


def _read(path: Path | str, fix: str, **options: Any) -> pandas.DataFrame:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", pandas.errors.ParserWarning)  # rows longer than the header
            with inputs.table(path) as file:
                return pandas.read_csv(file, keep_default_na=False, index_col=False, encoding="utf-8-sig", **options)
    except FileNotFoundError:
        raise SeverityError(_sentence(f"{path} is missing.", fix)) from None
    except SeverityError:
        raise
    except (ValueError, OSError, pandas.errors.ParserWarning) as error:
        fix = UTF8 if isinstance(error, UnicodeDecodeError) else fix
        why = str(error).rstrip(".")
        raise SeverityError(_sentence(f"{path} cannot be read as a CSV table: {why}.", fix)) from None


def _check_columns(path: Path | str, columns: Sequence[str], names: Sequence[str], fix: Callable[[str], str]) -> None:
    for column in columns:
        if column not in names:
            raise SeverityError(_sentence(f"{path}: the column {column!r} is missing.", fix(column)))
        if names.count(column) > 1:
            raise SeverityError(f"{path}: the column {column!r} is duplicated. Keep one of them.")


def _blank(frame: pandas.DataFrame, texts: Sequence[str]) -> pandas.DataFrame:
    """The frame with '' where a column of text has no cell."""
    return frame.fillna(dict.fromkeys(texts, ""))


def _sentence(message: str, fix: str) -> str:
    return f"{message} {fix}".rstrip()


def read_words(path: Path) -> list[str]:
    """The words of a text file, such as a list with one file name a line.

    Raises:
        SeverityError: the file is not a text file.
    """
    try:
        return inputs.read_text(path, most=None).split()
    except FileNotFoundError:
        raise SeverityError(f"{path} is missing.") from None
