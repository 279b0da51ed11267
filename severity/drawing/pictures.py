"""What all figures share: their style, text that fits, and writing them byte for byte the same for the same data.

Figures use only matplotlib's object-oriented interface: no window, no global state. Markers, fills and line
styles say what colours say, so that a grey print can be read; the colours are those of Okabe and Ito (2008), made for
colour-blind readers. A loss has the same colour and a decision rule the same marker in every figure of every study. A
value that does not exist is written as n/a in the figure, named in its caption and left blank in the table.
"""

import functools
import math
import textwrap
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib.colors
import matplotlib.style
import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from severity.core import files
from severity.drawing import fonts

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
    "svg.hashsalt": "severity",  # Names inside an SVG are else random.
    "text.parse_math": False,  # A dollar sign in a label is a dollar sign.
}
DPI = 150
NOT_AVAILABLE = {"style": "italic", "color": GREY}
FILLS = ("full", "left", "bottom", "right", "top")
LINES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 2, 1, 2)), (0, (8, 2, 1, 2, 1, 2)))
# The names with a look of their own, the same in every study; others get what is left.
LOSSES = ("ce", "bce", "hxe", "soft_labels", "cascade", "barz_denzler", "haf")
RULES = ("argmax", "crm", "hie", "top_down", "argmax_ts", "crm_ts", "hie_ts", "top_down_ts")
MARKERS = ("o", "D", "^", "v", "s", "P", "<", ">", "X", "p", "h", "8")
HATCHES = ("", None, "//////", "....", "xxxx", "++++")  # None: filled with the colour.


@dataclass(frozen=True)
class Picture:
    """A figure, the table of the data drawn in it, and plain sentences that say what is shown.

    The caption says of how much, what intervals are, which file the numbers are from, and what is missing or left out.
    """

    figure: Figure
    table: pandas.DataFrame
    caption: str


def loss_looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Colour, fillstyle and linestyle of each loss: three differences, so that two losses never look alike in grey.

    Args:
        names: all losses of the study. Those in `LOSSES` look the same in every study, the others have what these
            leave.
    """
    looks = {}
    for name, place in _places(names, LOSSES).items():
        looks[name] = {
            "color": COLOURS[place % len(COLOURS)],
            # One further with each round of lines, so that a line comes back with another filling.
            "fillstyle": FILLS[(place + place // len(LINES)) % len(FILLS)],
            "linestyle": LINES[place % len(LINES)],
        }
    return looks


def rule_looks(names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Marker, linestyle, hatch (None: filled) and whether its marker is hollow, of each decision rule.

    For figures of a single loss, whose colour all rules share.
    """
    looks = {}
    for name, place in _places(names, RULES).items():
        looks[name] = {
            "marker": MARKERS[place % len(MARKERS)],
            "linestyle": (LINES[1], LINES[0], *LINES[2:])[place % len(LINES)],
            "hatch": HATCHES[place % len(HATCHES)],
            "hollow": place % len(HATCHES) != 1,
        }
    return looks


def _places(names: Iterable[str], known: Sequence[str]) -> dict[str, int]:
    """A number for each name: its place among the known ones, else the first that no name of the study has."""
    names = list(dict.fromkeys(names))
    places = {name: known.index(name) for name in names if name in known}
    free = (place for place in range(len(known) + len(names)) if place not in places.values())
    return {name: places[name] if name in places else next(free) for name in names}


def luminance(colour: str) -> float:
    """How bright a colour is on a grey print, from 0 (black) to 1 (white)."""
    return float(numpy.dot(matplotlib.colors.to_rgb(colour), (0.299, 0.587, 0.114)))


def styled(function: Callable) -> Callable:
    """Make `function` independent of the matplotlib settings of whoever runs it, but for the choice of fonts."""

    @functools.wraps(function)
    def within_style(*args: Any, **kwargs: Any) -> Any:
        chosen = {key: matplotlib.rcParams[key] for key in fonts.CHOICE}
        with matplotlib.style.context(["default", STYLE, chosen]):
            return function(*args, **kwargs)

    return within_style


@styled
def write(picture: Picture, stem: Path | str) -> None:
    """Write `<stem>.png`, `.svg`, `.csv` and `.caption.txt`, byte for byte the same for the same data."""
    with files.replacing(f"{stem}.png") as temporary:
        # The version of matplotlib, its default for Software, would change the bytes.
        fonts.with_fallback(
            picture.figure, lambda: picture.figure.savefig(temporary, dpi=DPI, metadata={"Software": None})
        )
    # Laid out once: everything is at the same place in both files, and many panels take long to lay out.
    picture.figure.set_layout_engine("none")
    with files.replacing(f"{stem}.svg") as temporary:
        fonts.quietly(lambda: picture.figure.savefig(temporary, dpi=DPI, metadata={"Date": None, "Creator": None}))
    files.write_csv(f"{stem}.csv", picture.table)
    files.write_text(f"{stem}.caption.txt", picture.caption + "\n")


def write_all(pictures: Mapping[str, Picture], folder: Path | str) -> None:
    """Write pictures, by the stem of their files, as the whole of a folder: what was in it before is gone."""
    with files.replacing(folder) as temporary:
        temporary.mkdir()
        for name, picture in pictures.items():
            write(picture, temporary / name)


def bare(axes: Axes) -> None:
    """An axis for an image: nothing but the image."""
    axes.set_xticks([])
    axes.set_yticks([])
    axes.grid(False)
    for spine in axes.spines.values():
        spine.set_visible(False)


def sentences(*parts: str) -> str:
    """A caption: the sentences that are not empty, one after another."""
    return " ".join(part for part in parts if part)


def runs(count: int) -> str:
    """What a number or a marker of a configuration is of."""
    return "1 seed" if count == 1 else f"median of {count} seeds"


def summed(count: int) -> str:
    """What counts of a configuration are of."""
    return "1 seed" if count == 1 else f"{count} seeds together"


def text_figure(headline: str, facts: str, text: str) -> Figure:
    """A figure of words, where there is nothing to draw."""
    figure = Figure(figsize=(7.5, 1.6), layout="constrained")
    title(figure, headline, facts)
    figure.text(0.5, 0.2, wrap(text, 7, 8), ha="center")
    return figure


@styled
def left_out(name: str, why: str) -> Picture:
    """A picture that says why the figure of this name is not drawn; its caption is only the reason."""
    return Picture(text_figure(f"{name}: not drawn", "", why), pandas.DataFrame({"left_out": [why]}), why)


def number(value: float | None) -> str:
    """Three digits, or n/a."""
    return "n/a" if value is None or math.isnan(value) else f"{value:.3g}"


def width(text: str, size: float) -> float:
    """Inches that a line of text needs at most, in the figures' font."""
    return len(text) * size * 0.62 / 72


def wrap(text: str, inches: float, size: float) -> str:
    """The text in lines of at most this many inches."""
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
