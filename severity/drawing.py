"""What all figures share: their style, text that fits, and writing them byte for byte the same for the same data.

Figures are made through matplotlib's object-oriented interface alone: no window, no global state. Markers, fills and line
styles say what colours say, so that a grey print can be read; the colours are those of Okabe and Ito (2008), made for
colour-blind readers. A value that does not exist is written as n/a in the figure and left blank in the table.
"""

import functools
import math
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.style
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from severity import files

BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, SKY, ORANGE, "#000000")
GREY = "#555555"
STYLE = {
    "axes.grid": True,
    "axes.labelsize": 9,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlesize": 9,
    "figure.titlesize": 11,
    "font.size": 8,
    "grid.color": "#DDDDDD",
    "legend.fontsize": 8,
    "text.parse_math": False,  # A dollar sign in a label is a dollar sign.
}
DPI = 150
NOT_AVAILABLE = {"style": "italic", "color": GREY}


@dataclass(frozen=True)
class Picture:
    """A figure and the table of the data drawn in it."""

    figure: Figure
    table: pandas.DataFrame


def styled(function: Callable) -> Callable:
    """Make `function` independent of the matplotlib settings of whoever runs it."""

    @functools.wraps(function)
    def within_style(*args: Any, **kwargs: Any) -> Any:
        with matplotlib.style.context(["default", STYLE]):
            return function(*args, **kwargs)

    return within_style


@styled
def write(picture: Picture, stem: Path | str) -> None:
    """Write `<stem>.png` and `<stem>.csv`, byte for byte the same for the same data."""
    with files.replacing(f"{stem}.png") as beside:
        # The version of matplotlib, its default for Software, would change the bytes.
        picture.figure.savefig(beside, dpi=DPI, metadata={"Software": None})
    files.write_csv(f"{stem}.csv", picture.table)


def bare(axes: Axes) -> None:
    """An axis for an image: nothing but the image."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def number(value: float | None) -> str:
    """Three digits, or n/a."""
    return "n/a" if value is None or math.isnan(value) else f"{value:.3g}"


def width(text: str, size: float) -> float:
    """Inches that a line of text needs at most, in the figures' font."""
    return len(text) * size * 0.62 / 72


def wrap(text: str, inches: float, size: float) -> str:
    """The text in lines that are no longer than so many inches."""
    return textwrap.fill(text, max(8, int(inches * 72 / (size * 0.6))))


def middle(text: str, inches: float, size: float) -> str:
    """The text on one line, its middle left out where it is too long."""
    most = max(8, int(inches * 72 / (size * 0.62)))
    half = (most - 1) // 2
    return text if len(text) <= most else f"{text[:half]}…{text[-half:]}"


def title(figure: Figure, headline: str, facts: str) -> None:
    """What the figure shows, and of what."""
    inches = figure.get_figwidth() - 0.3
    figure.suptitle(f"{wrap(headline, inches, 11)}\n{wrap(facts, inches, 11)}")
