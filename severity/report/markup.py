"""HTML that is right by construction: whatever is not marked as HTML is text and gets escaped."""

import html
import re
from collections.abc import Iterable, Iterator
from typing import Any

LONGEST = 40  # rows of a table in a page that are shown without being asked for
VOID = ("img", "input", "wbr")
INLINE = re.compile(r"`([^`]+)`|\*\*([^*]+)\*\*|\*([^*\s][^*]*)\*|\[([^\]]+)\]\([^)\s]*\)")
NUMBER = re.compile(r"([+−-]?)(\d[\d,]*(?:\.\d+)?)")
# A number, its interval in brackets, and what is said of it.
INTERVAL = re.compile(r"([^()]+) (\([^()]*\))(.*)")


class Html(str):
    """Text that is HTML already."""


def escape(text: Any) -> Html:
    """Anything as HTML: what is Html stays, all else is text."""
    return text if isinstance(text, Html) else Html(html.escape(str(text)))


def join(parts: Iterable[Any], between: str = "") -> Html:
    """Parts one after the other."""
    return Html(escape(between).join(map(escape, parts)))


def tag(name: str, *children: Any, **attributes: Any) -> Html:
    """One element.

    Args:
        name: of the element.
        children: text, escaped, or Html.
        attributes: `class_` and `for_` stand for class and for, another `_` for a hyphen. True: an attribute without a
            value; None and False: no attribute.
    """
    told = "".join(
        f" {key.rstrip('_').replace('_', '-')}" + ("" if value is True else f'="{html.escape(str(value))}"')
        for key, value in attributes.items()
        if value is not None and value is not False
    )
    return Html(f"<{name}{told}>") if name in VOID else Html(f"<{name}{told}>{join(children)}</{name}>")


def from_markdown(text: str, *, level: int, source: str) -> Html:
    """The pages that stages write, in HTML: headings, paragraphs, lists, tables, emphasis, code. Links become their words.

    Args:
        text: a page.
        level: of the page's first headings (those with one #).
        source: where it comes from, told with every table.
    """
    return join(_blocks(text.splitlines(), level, source), "\n")


def _blocks(lines: list[str], level: int, source: str) -> Iterator[Html]:
    start = 0
    while start < len(lines):
        kind = _kind(lines[start])
        end = start + 1
        while kind not in ("", "heading") and end < len(lines) and _kind(lines[end]) == kind:
            end += 1
        block, start = lines[start:end], end
        if kind == "heading":
            marks, _, words = block[0].partition(" ")
            yield tag(f"h{min(level + len(marks) - 1, 6)}", _inline(words))
        elif kind == "item":
            yield tag("ul", *(tag("li", _inline(line[2:])) for line in block))
        elif kind == "table" and len(block) > 1:
            yield _table(block, source)
        elif kind:
            yield tag("p", _inline(" ".join(block)))


def _kind(line: str) -> str:
    if not line.strip():
        return ""
    if re.match(r"#+ ", line):
        return "heading"
    return "item" if line.startswith("- ") else "table" if line.startswith("|") else "text"


def _inline(text: str) -> Html:
    parts, last = [], 0
    for found in INLINE.finditer(text):
        code, strong, emphasis, link = found.groups()
        parts.append(text[last : found.start()])
        parts.append(
            tag("code", code)
            if code
            else tag("strong", strong)
            if strong
            else tag("em", emphasis)
            if emphasis
            else link
        )
        last = found.end()
    return join([*parts, text[last:]])


def _table(lines: list[str], source: str) -> Html:
    headings, rule, *rows = ([cell.strip() for cell in _cells(line)] for line in lines)
    # A column may be set on the right and hold words all the same.
    right = [
        each.endswith(":") and any(NUMBER.match(row[column]) for row in rows if column < len(row))
        for column, each in enumerate(rule)
    ]
    body = [
        tag("tr", *(_cell(cell, column < len(right) and right[column]) for column, cell in enumerate(row)))
        for row in rows
    ]
    whole = table([(_inline(words), right[column]) for column, words in enumerate(headings)], body, about=source)
    return whole if len(rows) <= LONGEST else tag("details", tag("summary", f"{len(rows):,} rows"), whole)


def _cells(line: str) -> list[str]:
    return [cell.replace("\\|", "|") for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]


def _cell(text: str, right: bool) -> Html:
    number = NUMBER.match(text) if right else None
    if not number:
        return tag("td", _inline(text), class_="n" if right else None)
    told = INTERVAL.fullmatch(text)
    words = join([_inline(told[1] + told[3]), tag("small", told[2])]) if told else _inline(text)
    value = f"{'' if number[1] in ('', '+') else '-'}{number[2].replace(',', '')}"
    return tag("td", words, class_="n", data_v=value)


def table(headings: Iterable[tuple[Any, bool]], rows: Iterable[Html], *, about: str, **attributes: Any) -> Html:
    """A table that can be sorted, in a box of its own that scrolls sideways where the page is narrow.

    Args:
        headings: of each column its words (or a whole th element) and whether it holds numbers.
        rows: tr elements.
        about: what it holds, for those who do not see it.
        attributes: of the table.
    """
    heads = [
        words if words.startswith("<th") else tag("th", words, scope="col", class_="n" if number else None)
        for words, number in headings
    ]
    whole = tag("table", tag("thead", tag("tr", *heads)), tag("tbody", *rows), class_="sortable", **attributes)
    return scrolling(whole, about)


def scrolling(content: Html, about: str) -> Html:
    """A box that scrolls sideways by itself, with a hint that is hidden where nothing is cut off."""
    hint = tag("p", "Wider than this window: scroll it sideways.", class_="hint")
    return tag("div", hint, tag("div", content, class_="scroll", tabindex="0", role="region", aria_label=about))
