"""Reading YAML files that people write: plain values only, no code, and limits, so that no file takes long to refuse."""

import re
import reprlib
import sys
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from severity.core import inputs
from severity.core.errors import SeverityError, shown

LARGEST = inputs.MIB  # bytes; a parser in Python takes seconds for as much
DEEPEST = 1000  # mappings and lists in each other; a level of a tree is two
MOST_BRACKETS = 600
MOST_MERGED = 10_000  # keys of one mapping with `<<`, which can multiply them
FRAMES = 3  # of Python's stack for each of these levels

_shortened = reprlib.Repr()
_shortened.maxlevel = 3
_shortened.maxstring = _shortened.maxother = _shortened.maxlong = 100


def read(path: Path | str, *, words: bool = False) -> Any:
    """What a YAML file holds: mappings, lists, text, numbers, dates, true, false, null.

    Args:
        words: everything but mappings and lists is text, as it is written: Yes, 01 and null are names.

    Raises:
        FileNotFoundError: there is none.
        SeverityError: it is no regular file, not text in UTF-8, not YAML, too large, nested too deeply, or repeats a key.
    """
    text = inputs.read_text(path, most=LARGEST)
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(max(before, 1000 + FRAMES * DEEPEST))
    try:
        return yaml.load(text, _Words if words else _Loader)  # noqa: S506 - a safe loader
    # PyYAML passes on Python's own errors about malformed numbers and dates.
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise SeverityError(f"{shown(path)} is not YAML: {_words(error)}.") from None
    finally:
        sys.setrecursionlimit(before)


def value_shown(value: Any) -> str:
    """A value for a message, shortened; aliases can make one that is endless when written out."""
    try:
        text = _shortened.repr(value)
    except ValueError:  # Python does not print numbers of more than 4,300 digits.
        return "a number of thousands of digits"
    return text if len(text) <= 100 else f"{text[:100]}..."


class _Loader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, as YAML 1.2 has it, and a repeated key an error."""

    depth = 0

    def fetch_flow_collection_start(self, token: type[yaml.Token]) -> None:
        if self.flow_level == MOST_BRACKETS:  # The scanner takes a time that grows with their square.
            raise yaml.scanner.ScannerError(
                None, None, f"more than {MOST_BRACKETS} brackets in each other", self.get_mark()
            )
        super().fetch_flow_collection_start(token)

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node:
        if self.depth == DEEPEST:
            raise yaml.composer.ComposerError(
                None, None, f"more than {DEEPEST} levels in each other", self.peek_event().start_mark
            )
        self.depth += 1
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def flatten_mapping(self, node: yaml.MappingNode) -> None:
        super().flatten_mapping(node)
        if len(node.value) > MOST_MERGED:
            raise yaml.constructor.ConstructorError(
                None, None, f"`<<` gives a mapping more than {MOST_MERGED:,} keys", node.start_mark
            )

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        seen: set[Hashable] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, Hashable):
                raise yaml.constructor.ConstructorError(
                    None, None, "a list or mapping cannot be a key", key_node.start_mark
                )
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key!r} is repeated", node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+|[0-9]+(?=[eE]))(?:[eE][-+]?[0-9]+)?\Z"),
    list("-+.0123456789"),
)


class _Words(_Loader):
    yaml_implicit_resolvers: dict = {}


def _words(error: Exception) -> str:
    """The error on one line, with its place."""
    if isinstance(error, yaml.MarkedYAMLError) and error.problem:
        mark = error.problem_mark or error.context_mark
        place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        words = f"{place}{error.problem}"
    else:
        words = " ".join(str(error).split()) or type(error).__name__
    return words.rstrip(".") if len(words) <= 300 else f"{words[:300]}…"
