"""Errors that a person can fix, and how a stage reports them."""

import difflib
import sys
from collections.abc import Callable, Iterable


class SeverityError(ValueError):
    """Wrong input. The message says what was given, what would be right, and where to change it."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A sentence naming the known word nearest to `word`, and all known words: the end of an error message."""
    known = sorted(str(each) for each in known)
    close = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(known) or 'none'}."


def run(main: Callable[[], None]) -> None:
    """Run a stage's `main`; a SeverityError ends it with exit code 1 and only its message, without a traceback."""
    try:
        main()
    except SeverityError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
