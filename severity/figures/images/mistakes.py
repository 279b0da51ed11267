"""The least and the most severe mistakes of one run."""

from collections.abc import Mapping, Sequence

import numpy
import pandas
from matplotlib.figure import Figure

from severity.core.errors import SeverityError
from severity.core.table_checks import listed
from severity.drawing import pictures
from severity.drawing.pictures import NOT_AVAILABLE, Picture, styled
from severity.figures.shared.study import ImageStudy
from severity.metrics.record import tied

ENDS = ("least", "most")


def draw(study: ImageStudy) -> Picture:
    """The figure of a study."""
    return draw_mistakes(study.best_run, study.images, study.ids, count=study.mistakes, facts=study.facts)


@styled
def draw_mistakes(record: Mapping, images: numpy.ndarray, ids: Sequence[str], *, count: int, facts: str) -> Picture:
    """The least and the most severe mistakes of one run as images, with truth, decision and severity.

    Args:
        record: metrics of the run.
        images: (N, H, W) uint8.
        ids: (N) the id of each image.
        count: how many mistakes a row.
        facts: data set and number of images, for the title.

    Raises:
        SeverityError: a mistake names an image that is not among `ids`.
    """
    rows = [(rule, end, record["rules"][rule][end][:count]) for rule in record["rules"] for end in ENDS]
    columns = ["rule", "end", "place", "id", "truth", "decision", "severity"]
    table = pandas.DataFrame(
        [
            (rule, end, place + 1, each["id"], "; ".join(each["truth"]), each["decision"], each["severity"])
            for rule, end, wrong in rows
            for place, each in enumerate(wrong)
        ],
        columns=columns,
    )
    row_of = {name: row for row, name in enumerate(ids)}
    width = 2.1
    figure = Figure(figsize=(max(7.5, 0.6 + width * count), 0.9 + 2.75 * len(rows)), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.06, w_pad=0.06)
    for panels, (rule, end, wrong) in zip(figure.subplots(len(rows), count, squeeze=False), rows, strict=True):
        for axes in panels:
            pictures.bare(axes)
        many = _tied(record["rules"][rule], rule, end, count)
        name = f"{rule}\n{end} severe" + (f"\n({many.partition(': ')[2]})" if many else "")
        panels[0].set_ylabel(name, fontsize=9, weight="bold")
        if not wrong:
            panels[0].text(0.5, 0.5, "n/a: no mistakes", transform=panels[0].transAxes, ha="center", **NOT_AVAILABLE)
        for axes, each in zip(panels, wrong, strict=False):
            if each["id"] not in row_of:
                raise SeverityError(
                    f"The image {each['id']!r} of the run {record['run']} is not in data/prepared/table.csv. "
                    "Predictions and prepared images belong to different data; run `dvc repro`."
                )
            axes.imshow(images[row_of[each["id"]]], cmap="gray", vmin=0, vmax=255)
            axes.set_xlabel(_caption(each, width), fontsize=7, loc="left")
    pictures.title(figure, f"Least and most severe mistakes: {record['run']}", f"{facts}; {_mistake_counts(record)}")
    ties = [
        words for rule in record["rules"] for end in ENDS if (words := _tied(record["rules"][rule], rule, end, count))
    ]
    faultless = [rule for rule in record["rules"] if not record["rules"][rule]["least"]]
    caption = pictures.sentences(
        f"The least and the most severe mistakes of the run {record['run']} on {facts}, with truth, decision and "
        f"severity (cost {record['cost']}; metrics/runs/{record['run']}.json); {_mistake_counts(record)}.",
        f"Chosen by their place in the data set among mistakes as severe: {'; '.join(ties)}." if ties else "",
        f"No mistake under {listed(faultless)}." if faultless else "",
    )
    return Picture(figure, table, caption)


def _tied(decision: Mapping, rule: str, end: str, count: int) -> str:
    """How many mistakes are as severe as the first one shown, where these are more than are shown; else ''."""
    many, severity = tied(decision, end) or (0, 0)
    return f"{end} severe by {rule}: {many:,} of severity {pictures.number(severity)}" if many > count else ""


def _mistake_counts(record: Mapping) -> str:
    counts = []
    for rule in record["rules"]:
        wrong = record["rules"][rule]["top1_error"] * record["counts"]["scored"]
        counts.append(f"{round(wrong):,} by {rule}")
    return f"mistakes: {', '.join(counts)}"


def _caption(mistake: Mapping, width: float) -> str:
    # No-break spaces keep a label on one line.
    truth = ", ".join(label.replace(" ", "\u00a0") for label in mistake["truth"])
    lines = pictures.wrap(f"truth: {truth}", width, 7).split("\n")
    if len(lines) > 4:
        lines = [*lines[:3], "… (all in the CSV)"]
    lines += pictures.wrap(f"decision: {mistake['decision']}", width, 7).split("\n")
    return "\n".join([*lines, f"severity: {pictures.number(mistake['severity'])}"])
