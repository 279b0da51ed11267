"""Tables in Markdown and the parts of a page that programs renew."""

import pytest

from severity.core import markdown
from severity.core.errors import SeverityError

PAGE = "before\n\n<!-- one: begin -->\nold\n<!-- one: end -->\nafter\n"


def test_a_table_aligns_words_left_and_numbers_right():
    assert markdown.table(["a", "b"], [["x", "1"]]) == "| a | b |\n| --- | ---: |\n| x | 1 |\n"


def test_a_cell_may_hold_what_markdown_takes_for_a_border():
    assert markdown.table(["P(a | b)"], [["x|y"]]) == "| P(a \\| b) |\n| --- |\n| x\\|y |\n"


def test_renewing_changes_the_marked_part_alone_and_again_changes_nothing(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(PAGE)
    assert markdown.marked(page, "one") == "old\n"
    for _ in range(2):
        markdown.renew(page, "one", "new\nlines\n")
        assert markdown.marked(page, "one") == "new\nlines\n"
        assert page.read_text() == "before\n\n<!-- one: begin -->\n\nnew\nlines\n\n<!-- one: end -->\nafter\n"


@pytest.mark.parametrize("page", ["", PAGE + PAGE, PAGE.replace("begin", "start")])
def test_a_page_without_its_marks_is_refused(tmp_path, page):
    (tmp_path / "page.md").write_text(page)
    with pytest.raises(SeverityError, match="once each"):
        markdown.renew(tmp_path / "page.md", "one", "new")
    with pytest.raises(SeverityError, match="no page"):
        markdown.marked(tmp_path / "none.md", "one")
