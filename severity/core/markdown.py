"""Tables in Markdown, and the marked parts of a page that a program renews."""

from collections.abc import Sequence
from pathlib import Path

from severity.core import files
from severity.core.errors import SeverityError


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """A Markdown table; the first `words` columns are left-aligned, the others right-aligned. A cell may hold a |."""
    rule = ["---"] * words + ["---:"] * (len(headings) - words)
    lines = ([cell.replace("|", "\\|") for cell in line] for line in [headings, rule, *rows])
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def marked(path: Path | str, name: str) -> str:
    """The part of a page between ``<!-- name: begin -->`` and ``<!-- name: end -->``, without the blank lines around
    it.

    Raises:
        SeverityError: the page or its marks are missing.
    """
    _, part, _ = _cut(path, name)
    return part.strip("\n") + "\n"


def renew(path: Path | str, name: str, text: str) -> None:
    """Put `text` between the marks `name` of a page. Raises SeverityError as `marked` does."""
    before, _, after = _cut(path, name)
    text = text.strip("\n")
    files.write_text(path, f"{before}\n\n{text}\n\n{after}")


def _cut(path: Path | str, name: str) -> tuple[str, str, str]:
    path = Path(path)
    if not path.is_file():
        raise SeverityError(f"There is no page {path} to read or update; run this from the top of the project.")
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    page = path.read_text(encoding="utf-8")
    if page.count(begin) != 1 or page.count(end) != 1 or page.index(end) < page.index(begin):
        raise SeverityError(f"{path} must hold the lines {begin} and, after it, {end}, once each.")
    before, rest = page.split(begin)
    part, after = rest.split(end)
    return before + begin, part, end + after
