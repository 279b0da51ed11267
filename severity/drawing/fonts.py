"""Fonts of figures: the user's choice counts, and where it lacks a character, whatever font is installed that has it.

matplotlib draws a box for what a font lacks and warns of each. Here the fonts of the machine are looked through once a
figure lacks something, so figures in Latin letters take no longer, and their bytes do not depend on what is installed.
"""

import functools
import re
import sys
import warnings
from collections.abc import Callable, Iterable

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

from severity.core.errors import printable

# The settings of a matplotlibrc that say which fonts are used; their sizes belong to the figures.
CHOICE = ("font.family", "font.serif", "font.sans-serif", "font.cursive", "font.fantasy", "font.monospace")
GLYPH = re.compile(r"Glyph (\d+) .*missing from")


def with_fallback(figure: Figure, save: Callable[[], None]) -> None:
    """Save a figure; where its fonts lack characters, again with the installed ones that have them.

    What no font has is told in one line on stderr, once for each character.
    """
    missing = quietly(save)
    if not missing:
        return
    more = holding(missing)
    if more:
        for text in figure.findobj(Text):
            text.set_fontfamily([*text.get_fontfamily(), *more])
        missing = quietly(save)
    if missing:
        _tell(missing)


def quietly(save: Callable[[], None]) -> frozenset[str]:
    """Save without matplotlib's warnings of each missing character; returns these. Other warnings are passed on."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        save()
    missing = set()
    for warning in caught:
        match = GLYPH.match(str(warning.message))
        if match:
            missing.add(chr(int(match[1])))
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)
    return frozenset(missing)


@functools.cache
def holding(characters: frozenset[str]) -> tuple[str, ...]:
    """Families of installed fonts that together have as many of the characters as there are fonts for, the best first."""
    found, left = [], {ord(each) for each in characters}
    held = _installed()
    while left and held:
        # Of equals the first by name, so that the same machine always draws the same.
        best = max(sorted(held), key=lambda family: len(held[family] & left))
        if not held[best] & left:
            break
        found.append(best)
        left -= held[best]
    return tuple(found)


@functools.cache
def _installed() -> dict[str, frozenset[int]]:
    """Each upright font of usual weight -> the characters that it has."""
    manager = font_manager.fontManager
    known = {entry.fname for entry in manager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - known):
        try:
            manager.addfont(path)
        except (OSError, RuntimeError):  # FreeType cannot read every file that is called a font.
            continue
    families: dict[str, frozenset[int]] = {}
    for entry in sorted(manager.ttflist, key=lambda entry: (entry.name, str(entry.fname))):
        if entry.style == "normal" and entry.name not in families and entry.weight in (400, "normal", "regular"):
            try:
                families[entry.name] = frozenset(font_manager.get_font(entry.fname).get_charmap())
            except (OSError, RuntimeError):
                continue
    return families


_told: set[str] = set()


def _tell(characters: Iterable[str]) -> None:
    new = sorted(set(characters) - _told)
    if new:
        _told.update(new)
        shown = printable("".join(new[:20])) + ("…" if len(new) > 20 else "")
        print(
            f"No installed font has {len(new)} of the characters of the figures ({shown}), which show boxes instead; the "
            "tables beside them have the names. Install a font that does, such as Noto Sans CJK.",
            file=sys.stderr,
        )
