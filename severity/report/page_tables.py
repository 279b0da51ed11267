"""The tables of the page: which columns and cells they have, what they sort by and what they can be filtered by."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas

from severity.core import documents
from severity.core.documents import Bullets, Document, Heading, Number, Paragraph
from severity.report import best_rows, contents
from severity.report.best_rows import AXES, BestRow

LONGEST = 40  # rows of a table that are shown without being asked for
# How the columns of the comparisons are headed.
HEADINGS = {
    "value_A": "value of A",
    "value_B": "value of B",
    "difference": "A − B",
    "lower": "from",
    "upper": "to",
    "percent": "%",
    "effect_size": "effect size",
    "p_holm": "corrected p",
    "error_of_patients": "error of patients",
    "error_of_seeds": "error of seeds",
    "networks_difference": "networks: A − B",
    "networks_lower": "networks: from",
    "networks_upper": "networks: to",
    "networks_p": "networks: p",
    "networks_p_holm": "networks: corrected p",
    "networks_verdict": "networks: verdict",
    "seed_min": "seeds from",
    "seed_median": "seeds, median",
    "seed_max": "seeds to",
}
# The columns of a CSV file that the page can be filtered by.
CHOICES = ("backbone", "loss", "rule", "label", "metric", "verdict", "networks_verdict")


@dataclass(frozen=True)
class Column:
    """The head of a column. number: whether it heads numbers. title: shown on hover."""

    words: str
    number: bool = False
    title: str = ""


@dataclass(frozen=True)
class Cell:
    """One cell.

    words: what is shown. number: whether it belongs to a column of numbers. value: to sort by, None where there is
    none. mark: of the best median of a column, `shown` or `open` (`best_rows.BestRow.shown`). verdict: strong words
    behind the number. below: less prominent words below it. title: shown on hover. head: whether it heads its
    row.
    """

    words: str
    number: bool = False
    value: float | None = None
    mark: str = ""
    verdict: str = ""
    below: str = ""
    title: str = ""
    head: bool = False

    @property
    def sort_key(self) -> str:
        """The whole number, not the digits shown; '' where there is none."""
        return "" if self.value is None or pandas.isna(self.value) else f"{self.value:.10g}"


@dataclass(frozen=True)
class Row:
    """One line. title: shown where one points at it."""

    cells: Sequence[Cell]
    title: str = ""


@dataclass(frozen=True)
class Choice:
    """Words that a column can be filtered by. column: its place, from 0. chosen: those chosen at first, '' for all."""

    heading: str
    column: int
    words: Sequence[str]
    chosen: str = ""


@dataclass(frozen=True)
class Table:
    """A table. about: what it holds, for screen readers. id: in the page, '' for none."""

    about: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    id: str = ""
    choices: Sequence[Choice] = ()


def digits(value: Any, significant: int = 4) -> str:
    """A number for people: whole ones with separators, others with this many significant digits, n/a for none."""
    if value is None or pandas.isna(value):
        return "n/a"
    if float(value).is_integer():
        return f"{int(value):,}"
    return f"{value:.{significant}g}".replace("e-0", "e-")


def number(value: float | None, words: str = "", **more: Any) -> Cell:
    """A cell with a number, in words or else in four significant digits."""
    return Cell(words or digits(value), number=True, value=value, **more)


def splits(counts: Mapping[str, Mapping[str, Any]]) -> Table:
    """How many images and patients each split has."""
    rows = [
        Row([Cell(split, head=True), number(each["images"]), number(each["patients"])])
        for split, each in counts.items()
    ]
    columns = [Column("split"), Column("images", number=True), Column("patients", number=True)]
    return Table("Images of each split", columns, rows)


def summary(table: pandas.DataFrame, best: Mapping[tuple[int, str], BestRow]) -> Table:
    """The configurations, a row each, with the smallest and the largest value over the seeds below each median.

    Args:
        table: of configurations. best: of `best_rows.find`.
    """
    headings = best_rows.columns(table)
    columns = [
        *map(Column, AXES),
        Column("runs", number=True),
        *(Column(each, number=True) for each in headings.values()),
    ]
    rows = []
    for place, row in enumerate(table.to_dict("records")):
        medians = [_median(row, place, key, best.get((place, key))) for key in headings]
        first, *others = (row[axis] for axis in AXES)
        rows.append(Row([Cell(first, head=True), *map(Cell, others), number(row["runs"]), *medians]))
    choices = [Choice(axis, place, _distinct(filter(None, table[axis]))) for place, axis in enumerate(AXES)]
    return Table("Summary of all configurations", columns, rows, id="summary-table", choices=choices)


def _median(row: Mapping[str, Any], place: int, key: str, best: BestRow | None) -> Cell:
    title = f"{contents.TABLE}, line {place + 2}, column {key}"
    if pandas.isna(row[key]):
        return number(None, title=title)
    mark = "" if best is None else "shown" if best.shown else "open"
    spread = f"{row[f'{key}_min']:.3f} to {row[f'{key}_max']:.3f}" if row["runs"] > 1 else ""
    return number(row[key], f"{row[key]:.3f}", mark=mark, below=spread, title=title)


def of_csv(frame: pandas.DataFrame, path: Path, name: str) -> Table:
    """A whole CSV file, each row with its line in the file. Columns that are empty throughout are left out.

    Args:
        frame: its content. path: of the file. name: of the table in the page.
    """
    shown = [column for column in frame if not (frame[column].isna() | (frame[column] == "")).all()]
    numeric = [column not in contents.WORDS for column in shown]
    columns = [
        Column(HEADINGS.get(column, column.replace("_", " ")), number=is_number, title=column)
        for column, is_number in zip(shown, numeric, strict=True)
    ]
    rows = [
        Row(
            [number(value) if is_number else Cell(value) for value, is_number in zip(line, numeric, strict=True)],
            title=f"{path}, line {place + 2}",
        )
        for place, line in enumerate(frame[shown].itertuples(index=False, name=None))
    ]
    # Of many rows those of one metric are enough at first.
    chosen = {"metric": frame["metric"].iloc[0]} if "metric" in shown and len(frame) > LONGEST else {}
    choices = [
        Choice(column, shown.index(column), _distinct(frame[column]), chosen.get(column, ""))
        for column in CHOICES
        if column in shown
    ]
    return Table(str(path), columns, rows, id=name, choices=choices)


def _distinct(words: Iterable[str]) -> list[str]:
    """Each once, in the order in which they come."""
    return list(dict.fromkeys(words))


def of_document(document: Document, source: Path) -> list[dict[str, Any]]:
    """The blocks of a page that a stage wrote: of each its kind and what that kind has.

    Args:
        document: the page. source: where it comes from, named at every table.
    """
    blocks = []
    for block in document.blocks:
        match block:
            case Heading(words, level):
                blocks.append({"kind": "heading", "words": words, "level": level})
            case Paragraph(pieces):
                blocks.append({"kind": "paragraph", "pieces": pieces})
            case Bullets(items):
                blocks.append({"kind": "bullets", "entries": items})
            case documents.Table():
                table = _of_document(block, str(source))
                blocks.append({"kind": "table", "table": table, "folded": len(table.rows) > LONGEST})
    return blocks


def _of_document(table: documents.Table, about: str) -> Table:
    columns = [Column(words, number=table.numeric(place)) for place, words in enumerate(table.headings)]
    rows = []
    for line in table.rows:
        rows.append(
            Row(
                [
                    number(each.value, each.shown, verdict=each.verdict, below=each.interval)
                    if isinstance(each, Number)
                    else Cell(each)
                    for each in line
                ]
            )
        )
    return Table(about, columns, rows)
