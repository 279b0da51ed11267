"""Reading tables, CSV files and Excel sheets: every one is read here, under the same rules.

The encoding is UTF-8, with or without a byte order mark. A name of a column or a cell such as NA is text, never
"missing"; only a blank cell is blank. A required column must be there exactly once. A row longer than the header is an
error; in a table from outside one that is shorter is too, since its cells may stand under the wrong names. Messages name
the file and say what to do.

A cell in quotes may hold separators and line breaks; a quote within it is doubled. In a table from outside a quote that
is not closed so, or only rows later, is an error: it would swallow the rows between without a word.
"""

import csv
import io
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile, ZipFile

import pandas

from severity.core import inputs
from severity.core.errors import SeverityError, nearest

UTF8 = "Save it in the encoding UTF-8."
SEPARATORS = (",", ";", "\t")
SHEETS, OTHER_SHEETS = (".xlsx", ".xlsm"), (".xls", ".xlsb", ".ods", ".numbers")


def find(root: Path, names: Sequence[str]) -> Path | None:
    """The first of the files `names` that is in the folder `root`, plain or with .gz; None if none of them is there."""
    candidates = (root / (name + suffix) for name in names for suffix in ("", ".gz"))
    return next((candidate for candidate in candidates if candidate.is_file()), None)


def separator_of(path: Path | str, column: str) -> str:
    """Of SEPARATORS the first with which the first line names the `column`, else the one that gives most columns.

    Raises:
        SeverityError: the file is missing or not a table.
    """
    if _is_sheet(path):
        return SEPARATORS[0]
    names = {separator: [name.strip() for name in header(path, separator)] for separator in SEPARATORS}
    return max(SEPARATORS, key=lambda each: (column in names[each], len(names[each])))


def header(path: Path | str, separator: str = ",", fix: str = "") -> list[str]:
    """The cells of the first line of a table, as they are. Raises SeverityError when it is not a table."""
    if _is_sheet(path):
        return _read_sheet(path, fix).iloc[0].tolist()
    names = _read(path, fix, sep=separator, header=None, nrows=1, dtype=str).iloc[0].tolist()
    if names[0].strip().lower().startswith("sep="):
        raise SeverityError(
            f"{path}, line 1: {names[0]!r} is a note for Excel, not the names of the columns. Remove this line."
        )
    return names


def read_text(
    path: Path | str, columns: Sequence[str], separator: str = ",", fix: str = "", *, blank_tail: bool = False
) -> pandas.DataFrame:
    """Read a table from outside (gzip or Excel by its suffix); every cell is text, a blank one ''.

    Args:
        path: the file.
        columns: the columns that must be there; others are kept as they are.
        separator: the character between two cells, without effect on Excel sheets.
        fix: how to get the right file, for messages.
        blank_tail: whether rows may lack the cells of the last columns, where these have no name.

    Raises:
        SeverityError: the file is missing or not a table, or has no row; a row has fewer or more cells than the header;
            a quote is not closed; a column is missing or duplicated.
    """
    names = header(path, separator, fix)
    if _is_sheet(path):
        frame = _read_sheet(path, fix)[1:].set_axis(names, axis=1).reset_index(drop=True)
    else:
        _check_rows(path, separator, blank_tail)
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
        _check_rows(path, options.get("sep", SEPARATORS[0]))  # It knows the line of a row that is wrong.
        fix = UTF8 if isinstance(error, UnicodeDecodeError) else fix
        why = str(error).rstrip(".")
        raise SeverityError(_sentence(f"{path} cannot be read as a CSV table: {why}.", fix)) from None


def lines(path: Path | str) -> list[int]:
    """The line of the file, counted from 1, on which each row of a table from outside begins, the header's too.

    Blank lines are no rows. Nothing is said of a file that cannot be read: the list is empty.
    """
    try:
        if _is_sheet(path):
            return [row + 1 for row in _read_sheet(path, "").index]
        return [line for line, _ in _rows(path, separator_of(path, ""))]
    except (SeverityError, csv.Error):
        return []


def _rows(path: Path | str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """The rows of a text table that are not blank, each with the line on which it begins.

    Raises:
        csv.Error: a quote is not closed; its `args` are the words and the line on which the row begins.
    """
    try:
        with inputs.table(path) as file:
            content = file.read().decode("utf-8-sig")
    except (OSError, ValueError):  # Not readable at all: the reader says so.
        return
    rows = csv.reader(io.StringIO(content, newline=""), delimiter=separator, strict=True)
    line = 1
    try:
        for row in rows:
            if len(row) > 1 or "".join(row).strip():
                yield line, row
            line = rows.line_num + 1
    except csv.Error as error:
        raise csv.Error(str(error), line) from None


def _check_rows(path: Path | str, separator: str, blank_tail: bool = False) -> None:
    """Raise SeverityError where a row has fewer or more cells than the header, or a quote swallows rows.

    A quote does where it opens a cell and is not closed before the next separator or line end. A cell that runs over
    several lines is taken for one that was meant so, unless it holds at least as many separators as the rows that these
    lines would be.
    """
    fix = (
        "A quote at the beginning of a cell must be closed at its end, and a quote within it be doubled; remove or "
        "double it, or take the line breaks out of the cell."
    )
    most = least = 0
    try:
        for line, row in _rows(path, separator):
            if not most:
                most = len(row)
                least = max((place for place, name in enumerate(row, 1) if name.strip()), default=most)
                least = least if blank_tail else most
            start = line
            for cell in row:
                breaks = len(re.findall(r"\r\n?|\n", cell))
                if 0 < breaks * (most - 1) <= cell.count(separator):
                    raise SeverityError(
                        f"{path}, line {start}: a quote opens a cell that holds the following {breaks} lines too, which "
                        f"look like rows of their own. {fix}"
                    )
                start += breaks
            if not least <= len(row) <= most:
                raise SeverityError(_about_length(path, line, row, most, separator))
    except csv.Error as error:
        words, line = error.args
        if "NUL" in words or "field limit" in words:  # Before Python 3.11, and very long cells; pandas reads both.
            return
        raise SeverityError(f"{path}, line {line}: a quote opens a cell and is not closed ({words}). {fix}") from None


def _about_length(path: Path | str, line: int, row: list[str], columns: int, separator: str) -> str:
    told = f"{path}, line {line}: the row has {len(row)} cells, but the header {columns}"
    if len(row) < columns:
        return (
            f"{told}. Add what is missing, where it belongs: a cell that is not known is left blank, but not left out."
        )
    decimal = " (also one that is a decimal comma)" if separator == "," else ""
    return (
        f"{told}. Put a cell that holds {separator!r}{decimal} in quotes, give each column a name, and take a separator at "
        "the end of the row away."
    )


def _is_sheet(path: Path | str) -> bool:
    """Whether a file is an Excel sheet by its suffix. Raises SeverityError for sheets that cannot be read here."""
    suffix = Path(path).suffix.lower()
    if suffix in OTHER_SHEETS:
        raise SeverityError(f"{path}: sheets of the form {suffix} are not read. Save it as CSV (UTF-8) or as .xlsx.")
    return suffix in SHEETS


def _read_sheet(path: Path | str, fix: str) -> pandas.DataFrame:
    """All cells of the one sheet of an Excel file that holds something, as text, rows without any left out."""
    try:
        import openpyxl  # noqa: F401 - before the file is looked at: what is missing is told first
    except ImportError:
        raise SeverityError(
            f"{path}: Excel sheets are read through openpyxl, which is not installed. Run `pip install -r "
            "requirements-extra.txt` (or `make extra`), or save the sheet as CSV (UTF-8)."
        ) from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about styles and extensions that hold no cell
            with inputs.opened(path) as file:
                if sum(part.file_size for part in ZipFile(file).infolist()) > inputs.SMALL * 4:
                    raise SeverityError(
                        f"{path} unfolds to more than {inputs.SMALL * 4 // inputs.MIB} MiB. Save it as CSV (UTF-8)."
                    )
                file.seek(0)
                sheets = pandas.read_excel(
                    file, sheet_name=None, header=None, dtype=str, keep_default_na=False, engine="openpyxl"
                )
    except FileNotFoundError:
        raise SeverityError(_sentence(f"{path} is missing.", fix)) from None
    except SeverityError:
        raise
    except (ValueError, OSError, KeyError, TypeError, BadZipFile) as error:
        raise SeverityError(_sentence(f"{path} cannot be read as an Excel sheet: {error}.", fix)) from None
    filled = {name: sheet for name, sheet in sheets.items() if (sheet != "").any(axis=None)}
    if len(filled) != 1:
        raise SeverityError(
            f"{path} has {len(filled)} sheets that hold something ({', '.join(filled)}). Keep one of them."
        )
    (sheet,) = filled.values()
    return sheet[(sheet != "").any(axis=1)]


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
