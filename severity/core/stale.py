"""Results of another study, marked as such where params.yaml no longer names it.

What a study wrote under metrics and report stays there until the last stages run again. Where a run with another collection,
tree or cost fails before that, the old numbers would look like its own. So the first stages write into them whose they are.
A result that is marked is another one to DVC, which makes it anew.
"""

import html
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from severity.core import files, runs
from severity.core.errors import SeverityError

HEADLINE, TABLE, PAGE = Path("metrics/headline.json"), Path("metrics/table.md"), Path("report/report.html")
# The key of the mark in the headline, and the words with which every mark begins.
KEY, WORDS = "stale", "Results of another study:"
# The facts of a headline that make a study.
FACTS = ("collection", "tree", "cost")


def facts(settings: Mapping[str, Any]) -> dict[str, str]:
    """What makes the study of params.yaml, by the names that the headline has for it."""
    tree = settings["datasets"][settings["data"]["name"]]["hierarchy"]
    return dict(zip(FACTS, (runs.title(settings), tree, settings["cost"]["name"]), strict=True))


def difference(headline: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    """A sentence where a headline is of another study than params.yaml names; '' where it is of this one."""
    known, wanted = {name: headline.get(name) for name in FACTS}, facts(settings)
    if known == wanted:
        return ""
    return f"{WORDS} {_words(known)}; params.yaml now names {_words(wanted)}."


def _words(known: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value or 'unknown'}" for name, value in known.items())


def mark(settings: Mapping[str, Any]) -> str:
    """Write into headline, table and report that they are of another study, where they are.

    Returns:
        the sentence that they now have; '' where they are of this study, or are not there.
    """
    try:
        headline = files.read_json(HEADLINE)
        words = difference(headline, settings)
    except (SeverityError, AttributeError):  # None, or none that was ever made whole: there is nothing to mistake.
        return ""
    if not words or headline.get(KEY) == words:
        return words
    _mark(TABLE, "**{}** `dvc repro` makes this table anew.", words)
    _mark(PAGE, '<p class="warning">{}</p>', html.escape(words))
    # Last: a stage that is stopped before this leaves it to the next one.
    files.write_json(HEADLINE, {KEY: words} | {name: value for name, value in headline.items() if name != KEY})
    print(f"{HEADLINE}, {TABLE} and {PAGE} say from now on: {words}")
    return words


def _mark(path: Path, form: str, words: str) -> None:
    """Put the words into a page, in place of those of an earlier mark: below the heading of an HTML page, else on top."""
    if not path.is_file():
        return
    begin = form.partition("{}")[0] + WORDS
    lines = [line for line in path.read_text(encoding="utf-8").split("\n") if not line.startswith(begin)]
    top = next((place + 1 for place, line in enumerate(lines) if line.startswith("<h1>")), 0)
    added = [form.format(words)] if top else [form.format(words), ""]
    files.write_text(path, "\n".join([*lines[:top], *added, *lines[top:]]))
