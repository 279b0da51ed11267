"""Several labels in one cell of a table: ``Effusion|Mass``, or a list in a program's form, ``['Effusion', 'Mass']``."""

import ast
import re
from collections import Counter
from collections.abc import Iterable

# Marks between labels in tables that we have seen; of the last ones a single name may hold one as well.
MARKS = ("|", ";", ",", "/", "+", "&")
NEVER_IN_A_NAME = ("|", ";")
BRACKETS = ("[]", "()", "{}")


def split(cell: str, separator: str) -> tuple[str, ...]:
    """The labels that one cell names, in its order, each once; none where it is an empty list.

    Args:
        cell: without spaces around it.
        separator: what stands between two labels; '' where each cell is one label, whatever it holds.
    """
    if not separator:
        return (cell,)
    parts = _listed(cell)
    parts = cell.split(separator) if parts is None else parts
    return tuple(dict.fromkeys(part.strip() for part in parts if part.strip()))


def _listed(cell: str) -> list[str] | None:
    """The entries of a list in Python's, JSON's or numpy's form; None for any other text."""
    if len(cell) < 2 or cell[0] + cell[-1] not in BRACKETS:
        return None
    if re.search(r"""(['"])\s+\1""", cell):  # numpy prints no commas, and Python would join such texts.
        return [second or first for first, second in re.findall(r"""'([^']*)'|"([^"]*)\"""", cell)]
    try:
        entries = ast.literal_eval(cell)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return [part.strip(" '\"") for part in cell[1:-1].split(",")] if cell[0] == "[" else None
    if isinstance(entries, (list, tuple, set)) and all(isinstance(entry, str) for entry in entries):
        return sorted(entries) if isinstance(entries, set) else list(entries)
    return [str(entry) for entry in entries] if isinstance(entries, list) else None


def looks_split_by(names: Iterable[str]) -> tuple[str, str] | None:
    """A name that looks like several labels, and the mark between them; None where none does.

    A name does where it holds a bar or semicolon, where each of its parts is a name as well, or where another name has
    the same parts in another order.

    Args:
        names: all names of classes, as cells hold them after `split`.
    """
    known = set(names)
    for mark in MARKS:
        several = {name: {part.strip() for part in name.split(mark)} - {""} for name in sorted(known) if mark in name}
        orders = Counter(map(frozenset, several.values()))
        for name, parts in several.items():
            again = orders[frozenset(parts)] > 1 or parts <= known
            if len(parts) > 1 and (again or mark in NEVER_IN_A_NAME):
                return name, mark
    return None
