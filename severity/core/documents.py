"""Pages for people as data: headings, paragraphs, bullets and tables.

A stage makes a document once and writes it twice: as Markdown, to be read next to its numbers, and as JSON, from which
the report renders it in HTML. A table's numbers keep their values, so that the report can sort by them.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from severity.core import files, markdown
from severity.core.errors import SeverityError

# Mark -> what Markdown puts on both sides of the words.
MARKS = {"code": "`", "emphasis": "*", "strong": "**"}


@dataclass(frozen=True)
class Marked:
    """Words that are set apart; mark: one of MARKS."""

    words: str
    mark: str

    def markdown(self) -> str:
        """The words between their marks."""
        return f"{MARKS[self.mark]}{self.words}{MARKS[self.mark]}"


@dataclass(frozen=True)
class Heading:
    """A heading. level: 1 for a section of the page, 2 for a part of a section."""

    words: str
    level: int = 1

    def markdown(self) -> str:
        """One line; the page's title has the first #."""
        return f"{'#' * (self.level + 1)} {self.words}\n"


@dataclass(frozen=True)
class Paragraph:
    """Running text: plain words and marked ones, one after the other, with the spaces between them."""

    pieces: tuple[str | Marked, ...]

    def markdown(self) -> str:
        """One line."""
        return "".join(piece if isinstance(piece, str) else piece.markdown() for piece in self.pieces) + "\n"


@dataclass(frozen=True)
class Bullets:
    """A list of plain sentences."""

    items: tuple[str, ...]

    def markdown(self) -> str:
        """One line an item."""
        return "".join(f"- {item}\n" for item in self.items)


@dataclass(frozen=True)
class Number:
    """A number in a table.

    value: to sort by, None if there is none. shown: for people. interval: shown after it, less prominently.
    verdict: what the number shows, in strong words.
    """

    value: float | None
    shown: str
    interval: str = ""
    verdict: str = ""

    def markdown(self) -> str:
        """All of it, in the order number, interval, verdict."""
        verdict = Marked(self.verdict, "strong").markdown() if self.verdict else ""
        return " ".join(part for part in (self.shown, self.interval, verdict) if part)


@dataclass(frozen=True)
class Table:
    """A table; each row has a cell for every heading. words: how many of the first columns are left-aligned."""

    headings: tuple[str, ...]
    rows: tuple[tuple[str | Number, ...], ...]
    words: int = 1

    def numeric(self, column: int) -> bool:
        """Whether a column holds numbers."""
        return any(isinstance(row[column], Number) for row in self.rows)

    def markdown(self) -> str:
        """A line a row."""
        lines = [[cell if isinstance(cell, str) else cell.markdown() for cell in row] for row in self.rows]
        return markdown.table(self.headings, lines, words=self.words)


Block = Heading | Paragraph | Bullets | Table


@dataclass(frozen=True)
class Document:
    """A page: its title and its blocks from top to bottom."""

    title: str
    blocks: tuple[Block, ...]

    def markdown(self) -> str:
        """The page as Markdown, a blank line between blocks."""
        return "\n".join([f"# {self.title}\n", *(block.markdown() for block in self.blocks)])

    def write(self, path: Path | str) -> None:
        """Write the page as JSON, to be read by `read`."""
        files.write_json(path, {"title": self.title, "blocks": [_to_json(block) for block in self.blocks]})


def number(value: float | None, form: str, interval: str = "", verdict: str = "") -> Number:
    """A number shown in the format `form`; None and NaN are n/a."""
    if value is None or math.isnan(value):
        return Number(None, "n/a", interval, verdict)
    return Number(_rounded(value), f"{value:{form}}", interval, verdict)


def count(value: int) -> Number:
    """A whole number, with separators between thousands."""
    return Number(int(value), f"{value:,}")


def share(value: float | None) -> Number:
    """A share of 1 as a percentage; None is n/a."""
    return Number(None, "n/a") if value is None else Number(_rounded(value), f"{100 * value:.1f} %")


def _rounded(value: float) -> float:
    """Ten significant digits, as in the CSV files: the last bits differ from machine to machine."""
    return float(f"{value:.10g}")


def paragraph(*pieces: str | Marked) -> Paragraph:
    """Running text of these pieces."""
    return Paragraph(pieces)


def code(words: str) -> Marked:
    """Words of a program: a file, a setting."""
    return Marked(words, "code")


def emphasis(words: str) -> Marked:
    """A term that is explained where it is used."""
    return Marked(words, "emphasis")


def table(headings: Sequence[str], rows: Sequence[Sequence[str | Number]], *, words: int = 1) -> Table:
    """A table. Raises ValueError where a row does not have one cell for each heading."""
    for row in rows:
        if len(row) != len(headings):
            raise ValueError(f"A row has {len(row)} cells for {len(headings)} headings: {list(row)}.")
    return Table(tuple(headings), tuple(map(tuple, rows)), words)


def read(path: Path | str) -> Document:
    """A page that `Document.write` wrote. Raises SeverityError where the file is missing or holds something else."""
    content = files.read_json(path)
    try:
        return Document(content["title"], tuple(map(_from_json, content["blocks"])))
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise SeverityError(
            f"{path} is not a page of this program ({error!r}). Delete it and run `dvc repro`."
        ) from None


def _to_json(block: Block) -> dict[str, Any]:
    match block:
        case Heading(words, level):
            return {"heading": words, "level": level}
        case Paragraph(pieces):
            return {"paragraph": [piece if isinstance(piece, str) else {piece.mark: piece.words} for piece in pieces]}
        case Bullets(items):
            return {"bullets": list(items)}
        case Table(headings, rows, words):
            cells = [[cell if isinstance(cell, str) else _number_to_json(cell) for cell in row] for row in rows]
            return {"table": {"headings": list(headings), "words": words, "rows": cells}}


def _number_to_json(cell: Number) -> dict[str, Any]:
    extra = {"interval": cell.interval, "verdict": cell.verdict}
    return {"value": cell.value, "shown": cell.shown, **{key: words for key, words in extra.items() if words}}


def _from_json(block: Mapping[str, Any]) -> Block:
    match block:
        case {"heading": words, "level": level}:
            return Heading(words, level)
        case {"paragraph": pieces}:
            return Paragraph(tuple(piece if isinstance(piece, str) else _marked(piece) for piece in pieces))
        case {"bullets": items}:
            return Bullets(tuple(items))
        case {"table": {"headings": headings, "words": words, "rows": rows}}:
            cells = [[cell if isinstance(cell, str) else Number(**cell) for cell in row] for row in rows]
            return table(headings, cells, words=words)
    raise ValueError(f"a block with the keys {', '.join(block)}")


def _marked(piece: Mapping[str, str]) -> Marked:
    ((mark, words),) = piece.items()
    if mark not in MARKS:
        raise ValueError(f"the mark {mark!r}")
    return Marked(words, mark)
