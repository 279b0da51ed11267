"""The figures of the data card: each function draws one and returns it with the table of exactly what is drawn."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from severity.collections.splits import SPLITS
from severity.core.table_checks import listed
from severity.datacard.datacard import ALL, STATES, UNKNOWN
from severity.datacard.duplicates import NearDuplicates
from severity.drawing import pictures
from severity.drawing.pictures import BLUE, GREY, NOT_AVAILABLE, ORANGE, SKY, VERMILLION, Picture, styled
from severity.prepared.prepared import Table

LABELS = 60  # how many labels a figure shows
NUMBERED = 20  # up to this many labels, the matrix has numbers
VIEWS = 8
PAIRS = 8
YEARS = 5  # width of an age group
# Dark, hatched, white, grey: distinguishable without colour.
STATE_LOOKS = {
    "positive": {"facecolor": BLUE},
    "uncertain": {"facecolor": ORANGE, "hatch": "//////"},
    "negative": {"facecolor": "white"},
    "blank": {"facecolor": "#D0D0D0", "hatch": "..."},
}
SEX_COLOURS = (VERMILLION, BLUE, "black", SKY)
SEX_LINES = ("-", (0, (5, 2)), (0, (1, 1)), (0, (5, 2, 1, 2)))
SEX_HATCHES = ("", "//////", "....", "xxxx")


@dataclass(frozen=True)
class Card:
    """What the figures of the data card are drawn from.

    table: of data/prepared. images: (N, size, size) uint8, the images of its rows. by_label, together: what
    `label_table` and `cooccurrence` of severity.datacard.datacard give. duplicates: near-duplicates across splits.
    """

    table: Table
    by_label: pandas.DataFrame
    together: pandas.DataFrame
    duplicates: NearDuplicates
    images: numpy.ndarray
    dataset: str

    @property
    def facts(self) -> str:
        """What titles say of the data."""
        counts = self.table.frame["split"].value_counts()
        return f"{self.dataset}: {', '.join(f'{counts[split]:,} {split}' for split in SPLITS)} images"


def labels(card: Card) -> Picture:
    """The figure `labels` of the card."""
    return draw_labels(card.by_label, facts=card.facts)


def cooccurrence(card: Card) -> Picture:
    """The figure `cooccurrence` of the card."""
    return draw_cooccurrence(card.together, facts=f"{card.dataset}: {len(card.table.frame):,} images of all splits")


def ages(card: Card) -> Picture:
    """The figure `ages` of the card."""
    return draw_ages(card.table.frame, facts=card.facts)


def near_duplicates(card: Card) -> Picture:
    """The figure `near_duplicates` of the card."""
    return draw_near_duplicates(card.duplicates, card.images, card.table.frame["id"], facts=card.facts)


# --- 1. The labels


@styled
def draw_labels(labels: pandas.DataFrame, *, facts: str) -> Picture:
    """The states of each label as shares of the images, a panel a split, most positive training images first.

    Args:
        labels: what `datacard.label_table` gives.
        facts: data set and numbers of images, for the title.
    """
    train = labels[labels["split"] == "train"].sort_values("state_positive", ascending=False, kind="stable")
    names = train["label"].head(LABELS).tolist()
    table = labels[labels["label"].isin(names)][["split", "label", *(f"state_{state}" for state in STATES)]]
    table = table.assign(row=table["label"].map({name: row for row, name in enumerate(names)}))
    table = table.sort_values("row", kind="stable").drop(columns="row").reset_index(drop=True)

    figure = Figure(figsize=(11, 1.7 + 0.19 * len(names)), layout="constrained")
    for axes, split in zip(figure.subplots(1, len(SPLITS), sharey=True), SPLITS, strict=True):
        _draw_states(axes, table[table["split"] == split])
        axes.set_xlabel(f"Share of the {split} images (%)")
        axes.set_title(f"{split}; at the right: positive images", loc="left", fontsize=8)
    figure.axes[0].set_yticks(range(len(names)), names)
    figure.axes[0].set_ylim(len(names) - 0.4, -0.6)
    figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    note = "; states as the collection's tables have them" + _left_out(
        len(names), len(train), "positive training images"
    )
    pictures.title(figure, "States of the labels", facts + note)
    return Picture(
        figure, table, f"State of each label as a share of the images of {facts}{note} (metrics/data/labels.csv)."
    )


def _draw_states(axes: Axes, rows: pandas.DataFrame) -> None:
    images = rows[[f"state_{state}" for state in STATES]].sum(axis=1).to_numpy()
    left = numpy.zeros(len(rows))
    for state, look in STATE_LOOKS.items():
        share = 100 * rows[f"state_{state}"].to_numpy() / images
        axes.barh(range(len(rows)), share, left=left, height=0.8, edgecolor=GREY, linewidth=0.4, label=state, **look)
        left += share
    for row, positive in enumerate(rows["state_positive"]):
        axes.text(101, row, f"{positive:,}", va="center", fontsize=7)
    axes.set_xlim(0, 100)
    axes.grid(False)


def _left_out(shown: int, labels: int, order: str) -> str:
    return "" if shown == labels else f"; the {shown} labels with most {order}, {labels - shown:,} are left out"


# --- 2. Labels that occur together


@styled
def draw_cooccurrence(together: pandas.DataFrame, *, facts: str) -> Picture:
    """Of the images positive for the label of a row, the share that is positive for the label of a column.

    Args:
        together: what `datacard.cooccurrence` gives.
        facts: data set and number of images, for the title.
    """
    labels = together["label"].drop_duplicates().to_numpy()
    place = {label: row for row, label in enumerate(labels)}
    counts = numpy.zeros((len(labels), len(labels)), int)
    counts[together["label"].map(place), together["other"].map(place)] = together[ALL]
    several = counts.sum() > counts.trace()
    kept = numpy.sort(numpy.argsort(-counts.diagonal(), kind="stable")[:LABELS])
    names, counts = labels[kept], counts[numpy.ix_(kept, kept)]
    positive = counts.diagonal()[:, None]
    share = numpy.divide(counts, positive, out=numpy.full(counts.shape, numpy.nan), where=positive > 0)
    table = pandas.DataFrame(
        {
            "label": numpy.repeat(names, len(names)),
            "other": numpy.tile(names, len(names)),
            "images": counts.ravel(),
            "share_of_label": share.ravel(),
        }
    )
    headline = "Labels that occur together"
    if not several:
        return Picture(
            pictures.text_figure(headline, facts, "No image is positive for two labels."),
            table,
            f"{headline}: of {facts} no image is positive for two (metrics/data/cooccurrence.csv).",
        )

    numbered = len(names) <= NUMBERED
    side, size = (0.42 * len(names), 8) if numbered else (0.16 * len(names), 6)
    ticks = [f"{name} (n = {count:,})" for name, count in zip(names, counts.diagonal(), strict=True)]
    left, below = (pictures.width(max(texts, key=len), size) for texts in (ticks, names))
    figure = Figure(figsize=(max(side, 2.5) + left + 1.8, max(side, 2.5) + below + 1.3), layout="constrained")
    axes = figure.subplots()
    _draw_shares(figure, axes, share, counts if numbered else None)
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=size)
    axes.set_yticks(range(len(names)), ticks, fontsize=size)
    axes.set_xlabel("... that are positive for this label too")
    axes.set_ylabel("Of the images positive for this label, the share ...")
    note = "; in the cells: images positive for both" if numbered else ""
    note += "; grey: no share (n = 0, or the label itself)"
    rest = _left_out(len(names), len(labels), "positive images")
    pictures.title(figure, headline, facts + note + rest)
    empty = [name for name, count in zip(names, counts.diagonal(), strict=True) if not count]
    caption = pictures.sentences(
        "Of the images positive for the label of a row, the share that is positive for that of a column, of "
        f"{facts}{rest} (metrics/data/cooccurrence.csv).",
        f"Without a positive image: {listed(empty)}." if empty else "",
    )
    return Picture(figure, table, caption)


def _draw_shares(figure: Figure, axes: Axes, share: numpy.ndarray, counts: numpy.ndarray | None) -> None:
    between = numpy.where(numpy.eye(len(share), dtype=bool), numpy.nan, share)
    most = numpy.nanmax(between, initial=0.0) or 1.0
    image = axes.imshow(between, cmap="YlGnBu", vmin=0, vmax=most)
    axes.set_facecolor("#DDDDDD")
    axes.grid(False)
    if counts is not None:
        for (row, column), count in numpy.ndenumerate(counts):
            colour = "white" if between[row, column] > 0.55 * most else "black"
            axes.text(column, row, f"{count:,}", ha="center", va="center", color=colour, fontsize=6)
    figure.colorbar(image, ax=axes, label="Share: P(column | row)", shrink=0.7)


# --- 3. Ages, sexes, views


@styled
def draw_ages(frame: pandas.DataFrame, *, facts: str) -> Picture:
    """Ages and views of the images by sex, a column of panels a split.

    Args:
        frame: the table of data/prepared.
        facts: data set and numbers of images, for the title.
    """
    frame = frame.assign(sex=frame["sex"].replace("", UNKNOWN), view=frame["view"].replace("", UNKNOWN))
    sexes = sorted(frame["sex"].unique(), key=lambda sex: (sex == UNKNOWN, sex))
    views = frame["view"].value_counts().index.tolist()
    if len(views) > VIEWS:
        frame = frame.assign(view=frame["view"].where(frame["view"].isin(views[: VIEWS - 1]), "other"))
        views = [*views[: VIEWS - 1], "other"]
    oldest = frame["age"].max()
    starts = numpy.arange(0, (0 if math.isnan(oldest) else oldest) + 1, YEARS)
    table = pandas.concat(
        [_people(frame[frame["split"] == split], split, sexes, views, starts) for split in SPLITS], ignore_index=True
    )

    figure = Figure(figsize=(11, 4.6 + 0.22 * len(views)), layout="constrained")
    upper, lower = figure.subplots(
        2, len(SPLITS), sharex="row", sharey="row", height_ratios=[3, 0.4 + 0.24 * len(views)]
    )
    for i, split in enumerate(SPLITS):
        rows = table[table["split"] == split]
        total = int((frame["split"] == split).sum())
        _draw_ages(upper[i], rows[rows["what"] == "age"], sexes, starts, total)
        _draw_views(lower[i], rows[rows["what"] == "view"], sexes, views, total)
        unknown = int(frame.loc[frame["split"] == split, "age"].isna().sum())
        upper[i].set_title(f"{split}: n = {total:,}, {unknown:,} of unknown age")
    if math.isnan(oldest):
        upper[0].set_xticks([])  # of all three, which share it
        upper[0].set_yticks([])
    upper[0].set_ylabel(f"Share of the split's images (%)\nin {YEARS} years of age")
    lower[0].set_yticks(range(len(views)), views)
    lower[0].set_ylim(len(views) - 0.4, -0.6)
    lower[0].set_ylabel("View")
    entries = [(Line2D([], [], **_sex_line(i)), Patch(**_sex_fill(i))) for i in range(len(sexes))]
    figure.legend(
        entries,
        [f"sex: {sex}" for sex in sexes],
        handler_map={tuple: HandlerTuple(ndivide=None)},
        handlelength=6,
        loc="outside lower center",
        ncols=len(sexes),
        frameon=False,
    )
    pictures.title(figure, "Ages and views by sex", facts)
    ageless = int(frame["age"].isna().sum())
    caption = (
        f"Ages (in groups of {YEARS} years) and views of the images by sex and split, of {facts}; {ageless:,} of "
        "unknown age. From data/prepared/table.csv."
    )
    return Picture(figure, table, caption)


def _people(
    part: pandas.DataFrame, split: str, sexes: Sequence[str], views: Sequence[str], starts: numpy.ndarray
) -> pandas.DataFrame:
    """Numbers of images of one split by sex and age group, and by sex and view."""
    rows = []
    for sex in sexes:
        of_sex = part[part["sex"] == sex]
        groups = numpy.floor(of_sex["age"].dropna() / YEARS).value_counts()
        rows += [
            (split, sex, "age", f"{start:g} to {start + YEARS - 1:g}", int(groups.get(start / YEARS, 0)))
            for start in starts
        ]
        rows += [(split, sex, "view", view, int((of_sex["view"] == view).sum())) for view in views]
    return pandas.DataFrame(rows, columns=["split", "sex", "what", "value", "images"])


def _draw_ages(axes: Axes, rows: pandas.DataFrame, sexes: Sequence[str], starts: numpy.ndarray, total: int) -> None:
    edges = numpy.append(starts, starts[-1] + YEARS)
    for i, sex in enumerate(sexes):
        counts = rows.loc[rows["sex"] == sex, "images"].to_numpy()
        if counts.any():
            axes.stairs(100 * counts / total, edges, **_sex_line(i))
    axes.set_xlabel("Age (years)")
    axes.set_axisbelow(True)
    if not rows["images"].any():
        axes.text(0.5, 0.5, "n/a: no age is known", transform=axes.transAxes, ha="center", **NOT_AVAILABLE)


def _draw_views(axes: Axes, rows: pandas.DataFrame, sexes: Sequence[str], views: Sequence[str], total: int) -> None:
    left = numpy.zeros(len(views))
    for i, sex in enumerate(sexes):
        share = 100 * rows.loc[rows["sex"] == sex, "images"].to_numpy() / total
        axes.barh(range(len(views)), share, left=left, height=0.7, **_sex_fill(i))
        left += share
    axes.set_xlabel("Share of the split's images (%)")
    axes.set_axisbelow(True)
    axes.grid(axis="y", visible=False)


def _sex_line(i: int) -> dict[str, Any]:
    """The line of the i-th sex; line style and hatching say what colour says."""
    return {"color": SEX_COLOURS[i % 4], "linestyle": SEX_LINES[i % 4], "linewidth": 1.5}


def _sex_fill(i: int) -> dict[str, Any]:
    colour, hatch = SEX_COLOURS[i % 4], SEX_HATCHES[i % 4]
    return {"facecolor": "white" if hatch else colour, "edgecolor": colour, "hatch": hatch, "linewidth": 0.6}


# --- 4. Near-duplicates


@styled
def draw_near_duplicates(
    duplicates: NearDuplicates, images: numpy.ndarray, ids: Sequence[str], *, facts: str
) -> Picture:
    """Pairs of images of different splits that show the same picture, side by side.

    Of more than PAIRS, the most alike and the least alike: if something is not a duplicate, it is among the latter.

    Args:
        duplicates: what `duplicates.find` gives.
        images, ids: the prepared images (N, H, W) uint8 and the id of each.
        facts: data set and numbers of images, for the title.
    """
    pairs, total = duplicates.pairs, sum(duplicates.counts.values())
    half = PAIRS // 2
    table = pairs if len(pairs) <= PAIRS else pandas.concat([pairs.head(half), pairs.tail(half)], ignore_index=True)
    limits = f"hash distance at most {duplicates.hash_distance} of 64, correlation at least {duplicates.correlation:g}"
    headline = f"Near-duplicates across splits: {total:,} pairs ({limits})"
    if table.empty:
        caption = f"{headline}: none among {facts} (metrics/data/near_duplicates.csv)."
        return Picture(pictures.text_figure(headline, facts, "None found."), table, caption)

    row_of = {name: row for row, name in enumerate(ids)}
    lines = math.ceil(len(table) / 2)
    width = 2.2
    figure = Figure(figsize=(0.6 + 4 * width, 1.1 + 2.9 * lines), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.08, w_pad=0.03)
    panels = figure.subplots(lines, 4).reshape(-1, 2)
    for axes in panels.ravel():
        pictures.bare(axes)
    for (left, right), pair in zip(panels, table.itertuples(), strict=False):
        sides = (
            (left, pair.id, pair.split, pair.patient),
            (right, pair.other_id, pair.other_split, pair.other_patient),
        )
        for axes, name, split, patient in sides:
            axes.imshow(images[row_of[name]], cmap="gray", vmin=0, vmax=255)
            axes.set_title(
                f"{split}\n{pictures.middle(name, width, 6.5)}\npatient {pictures.middle(patient, width - 0.5, 6.5)}",
                fontsize=6.5,
                loc="left",
            )
        left.set_xlabel(f"correlation {pair.correlation:.4f}", fontsize=7, loc="left")
        right.set_xlabel(f"hash distance {pair.hash_distance}", fontsize=7, loc="left")
    shown = (
        ""
        if len(table) == total
        else f"; shown: the {half} most and the {half} least alike of the {len(pairs):,} listed"
    )
    pictures.title(figure, headline, facts + shown)
    caption = f"{headline}, among {facts}{shown}; from metrics/data/near_duplicates.csv."
    return Picture(figure, table, caption)
