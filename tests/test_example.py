"""docs/example.md: its blocks run in their order and print what the page shows."""

import contextlib
import io
import re

from tests.trees import TOP

PAGE = TOP / "docs" / "example.md"
BLOCK = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def run(code: str, names: dict) -> str:
    """What a block prints; `names` holds what the blocks before it defined."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, str(PAGE), "exec"), names)
    return printed.getvalue()


def test_every_block_prints_what_the_page_shows():
    names, shown, printed = {}, [], []
    for kind, content in BLOCK.findall(PAGE.read_text(encoding="utf-8")):
        if kind == "python":
            printed.append(run(content, names))
        else:
            shown.append(content)
    assert len(printed) > 10 and printed == shown, "a block that prints is followed by what it prints"
