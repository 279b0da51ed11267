"""How honest the probabilities of one configuration are."""

from collections.abc import Mapping, Sequence

import numpy
import pandas
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter

from severity.core.table_checks import listed
from severity.drawing import pictures
from severity.drawing.pictures import GREY, Picture, styled
from severity.figures.shared.panels import SEED, whole
from severity.figures.shared.study import ScoreStudy
from severity.summary import configurations

# Before temperature scaling, and after it: suffix of the section in metrics/runs, look.
SCALED = {
    "before": ("", {"linestyle": (0, (5, 2)), "marker": "o", "markerfacecolor": "white"}),
    "after": ("_ts", {"linestyle": "-", "marker": "D"}),
}
KINDS = {
    "posterior": ("most probable class", "Share of images with that class"),
    "labels": ("every label", "Share of positive images"),
}


def draw(study: ScoreStudy) -> Picture:
    """The figure of a study."""
    return draw_reliability(study.chosen, colour=study.colour, facts=study.facts)


@styled
def draw_reliability(records: Sequence[Mapping], *, colour: str, facts: str) -> Picture:
    """How often predictions of a given probability are right, before and after temperature scaling.

    Args:
        records: metrics of the runs (seeds) of one backbone and loss.
        colour: of the loss.
        facts: data set and number of images, for the title.
    """
    first = records[0]
    table = _reliability_table(records)
    figure = Figure(figsize=(10.5, 7.2), layout="constrained")
    panels = figure.subplots(2, 2, sharex=True, height_ratios=(2.6, 1))
    for column, (kind, (of_what, right)) in enumerate(KINDS.items()):
        upper, lower = panels[:, column]
        upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="perfect calibration")
        rows_of_kind = table[table["probabilities"] == kind]
        for when, (suffix, look) in SCALED.items():
            rows = rows_of_kind[rows_of_kind["when"] == when]
            scores = _ece(records, kind + suffix)
            if rows.empty:
                upper.plot([], [], " ", label=f"{when}: n/a, no temperature was fitted")
                continue
            pooled, dots = rows[rows["seed"].isna()], rows[rows["seed"].notna()]
            style = {"color": colour, "linewidth": 1.2, "markersize": 5, **look}
            dot = SEED if when == "after" else SEED | {"markerfacecolor": "white", "markeredgecolor": "black"}
            upper.plot(dots["confidence"], dots["right"], **dot)
            upper.plot(pooled["confidence"], pooled["right"], label=f"{when}: {scores}", **style)
            lower.plot(pooled["confidence"], pooled["n"], **style)
        upper.set_title(f"{kind}: probability of {'the ' if kind == 'posterior' else ''}{of_what}")
        upper.set_ylabel(right)
        upper.set_xlim(-0.02, 1.02)
        upper.set_ylim(-0.02, 1.02)
        handles, names = upper.get_legend_handles_labels()
        if len(records) > 1:
            handles, names = [*handles, Line2D([], [], **SEED)], [*names, "one seed (before: hollow)"]
        lower.legend(handles, names, loc="upper center", bbox_to_anchor=(0.5, -0.34), frameon=False)
        lower.set_yscale("log")
        lower.set_ylim(bottom=0.7)
        lower.yaxis.set_major_formatter(FuncFormatter(whole))
        lower.set_ylabel("n in the bin, all seeds" if len(records) > 1 else "n in the bin")
        lower.set_xlabel("Probability (mean of the bin)")
    pictures.title(figure, f"Are probabilities as often right as they say? {configurations.name(first)}", facts)
    unscaled = [record["run"] for record in records if not record["calibration"].get("posterior_ts")]
    caption = pictures.sentences(
        f"Reliability of {configurations.name(first)}, of {facts}, {pictures.summed(len(records))}: share that is so "
        "against mean probability in bins of equal width, before and after temperature scaling; below it the number in "
        "each bin (metrics/runs).",
        "Dots: single seeds; ECE: median over the seeds, in brackets minimum and maximum. Posterior: the most probable "
        "class; labels: bins of all labels together, its ECE the mean over labels.",
        f"Without temperature, because there are no validation images: {listed(unscaled)}." if unscaled else "",
        "One seed only: no spread over seeds." if len(records) == 1 else "",
    )
    return Picture(figure, table, caption)


def _reliability_table(records: Sequence[Mapping]) -> pandas.DataFrame:
    """A row a kind of probabilities, before or after, and bin with images: of all seeds together, then of each."""
    rows = []
    for kind in KINDS:
        for when, (suffix, _) in SCALED.items():
            known = [record for record in records if record["calibration"].get(kind + suffix)]
            bins = [_bins(record["calibration"][kind + suffix]["bins"]) for record in known]
            by_seed = [(None, _pooled(bins))] if known else []
            if len(records) > 1:
                by_seed += [(record["seed"], each) for record, each in zip(known, bins, strict=True)]
            for seed, each in by_seed:
                for number in numpy.flatnonzero(each["n"]):
                    row = {"probabilities": kind, "when": when, "seed": seed, "bin": int(number) + 1}
                    rows.append(row | {name: values[number] for name, values in each.items()})
    columns = ["probabilities", "when", "seed", "bin", "n", "confidence", "right"]
    return pandas.DataFrame(rows, columns=columns).astype({"seed": "Int64", "n": int})


def _bins(bins: Mapping[str, list]) -> dict[str, numpy.ndarray]:
    return {name: numpy.array(values, dtype=float) for name, values in bins.items()}


def _pooled(bins: Sequence[Mapping[str, numpy.ndarray]]) -> dict[str, numpy.ndarray]:
    """The bins of several runs together."""
    n = numpy.sum([each["n"] for each in bins], axis=0)
    pooled = {"n": n}
    for name in ("confidence", "right"):
        total = numpy.sum([each["n"] * numpy.nan_to_num(each[name]) for each in bins], axis=0)
        pooled[name] = total / numpy.maximum(n, 1)
    return pooled


def _ece(records: Sequence[Mapping], section: str) -> str:
    """ECE and temperature for the legend."""
    known = [record["calibration"][section] for record in records if record["calibration"].get(section)]
    if not known:
        return "n/a"
    parts = []
    for name, key in (("ECE", "ece"), ("T", "temperature")):
        values = [each[key] for each in known]
        spread = f" ({min(values):.3f} to {max(values):.3f})" if len(set(values)) > 1 else ""
        parts.append(f"{name} {numpy.median(values):.3f}{spread}")
    return ", ".join(parts)
