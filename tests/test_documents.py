"""Pages as data: what they become in Markdown, and that they come back from their file as they were."""

import math

import pytest
from hypothesis import given, strategies

from severity.core import documents, files
from severity.core.documents import Bullets, Document, Heading, Number
from severity.core.errors import SeverityError

PAGE = Document(
    "One",
    (
        documents.paragraph("Two ", documents.emphasis("three"), ", ", documents.code("four.csv"), "."),
        Heading("Five"),
        Bullets(("six", "seven | eight")),
        Heading("Nine", level=2),
        documents.table(
            ["name", "value"],
            [["a|b", documents.number(-1234.56, ",.1f", "(-2 to +3)", "A milder")], ["c", documents.count(1000)]],
        ),
    ),
)
WORDS = strategies.text(max_size=20)
NUMBERS = strategies.builds(
    documents.number,
    strategies.none() | strategies.floats(allow_infinity=False),
    strategies.just(".3g"),
    interval=WORDS,
    verdict=WORDS,
)
BLOCKS = (
    strategies.builds(Heading, WORDS, strategies.integers(1, 3))
    | strategies.builds(
        lambda pieces: documents.paragraph(*pieces), strategies.lists(WORDS | WORDS.map(documents.code))
    )
    | strategies.builds(lambda items: Bullets(tuple(items)), strategies.lists(WORDS))
    | strategies.lists(strategies.tuples(WORDS, NUMBERS)).map(lambda rows: documents.table(["a", "b"], rows))
)


def test_a_page_in_markdown():
    assert PAGE.markdown() == (
        "# One\n\nTwo *three*, `four.csv`.\n\n## Five\n\n- six\n- seven | eight\n\n### Nine\n\n"
        "| name | value |\n| --- | ---: |\n| a\\|b | -1,234.6 (-2 to +3) **A milder** |\n| c | 1,000 |\n"
    )


@given(WORDS, strategies.lists(BLOCKS))
def test_a_page_comes_back_from_its_file(tmp_path_factory, title, blocks):
    path = tmp_path_factory.mktemp("page") / "page.json"
    page = Document(title, tuple(blocks))
    page.write(path)
    assert documents.read(path) == page


def test_numbers_keep_ten_digits_and_what_is_none_is_not_available():
    assert documents.number(1 / 3, ".2f") == Number(0.3333333333, "0.33")
    assert documents.share(0.12345) == Number(0.12345, "12.3 %")
    for nothing in (documents.number(None, ".2f"), documents.number(math.nan, ".2f"), documents.share(None)):
        assert (nothing.value, nothing.shown) == (None, "n/a")


def test_a_row_of_another_length_is_refused():
    with pytest.raises(ValueError, match="1 cells for 2 headings"):
        documents.table(["a", "b"], [["x"]])


def test_a_column_holds_numbers_where_a_row_has_one():
    table = documents.table(["a", "b"], [["x", "n/a"], ["y", documents.count(1)]])
    assert [table.numeric(column) for column in (0, 1)] == [False, True]


@pytest.mark.parametrize(
    "content",
    [
        [],
        {"title": "x"},
        {"title": "x", "blocks": [{"heading": "y"}]},
        {"title": "x", "blocks": [{"paragraph": [{"blink": "y"}]}]},
        {"title": "x", "blocks": [{"table": {"headings": ["a"], "words": 1, "rows": [["x", "y"]]}}]},
        {"title": "x", "blocks": [{"table": {"headings": ["a"], "words": 1, "rows": [[{"number": 1}]]}}]},
    ],
)
def test_a_file_that_is_no_page_is_an_error_that_names_it(tmp_path, content):
    files.write_json(tmp_path / "page.json", content)
    with pytest.raises(SeverityError, match="page.json"):
        documents.read(tmp_path / "page.json")
    with pytest.raises(SeverityError, match="none.json is missing"):
        documents.read(tmp_path / "none.json")
