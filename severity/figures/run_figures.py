"""Figures of what the runs' records say: how severe decisions are, how good their rankings, how honest their probabilities."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import pandas
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from severity.core.runs import Run
from severity.core.tables import listed
from severity.drawing import pictures
from severity.drawing.pictures import GREY, Picture, styled
from severity.summary import configurations

BINS = 10  # of severities that are more than these
COLUMNS = 4  # panels a row
TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # of a logarithmic axis
DOTS = 12  # places at which a curve has markers and dots
SEED = {"marker": ".", "markersize": 4.5, "linestyle": "none", "color": "black", "markeredgecolor": "white"}
SEED |= {"markeredgewidth": 0.4}
BOUNDS = {
    "random": {"color": GREY, "linestyle": (0, (1, 1)), "label": "random order (expected)"},
    "oracle": {"color": GREY, "linestyle": (0, (6, 2)), "label": "best possible order"},
}
# Before temperature scaling, and after it: suffix of the section in metrics/runs, look.
SCALED = {
    "before": ("", {"linestyle": (0, (5, 2)), "marker": "o", "markerfacecolor": "white"}),
    "after": ("_ts", {"linestyle": "-", "marker": "D"}),
}
KINDS = {
    "posterior": ("most probable class", "Share of images with that class"),
    "marginal": ("every label", "Share of positive images"),
}


def shown_configurations(found: Mapping[Run, dict], limit: int) -> list[list[dict]]:
    """The configurations that figures with a panel a configuration show, in the order of the grid.

    Where there are more than `limit`, those of the highest median validation macro-AUROC; configurations without one come last.
    """
    every = [seeds for _, _, seeds in configurations.by_configuration(found)]
    scores = [_validation(seeds) for seeds in every]
    order = sorted(
        range(len(every)), key=lambda place: -math.inf if math.isnan(scores[place]) else scores[place], reverse=True
    )
    return [every[place] for place in sorted(order[:limit])]


def _validation(seeds: Sequence[Mapping]) -> float:
    values = [(record.get("validation") or {}).get("macro_auroc") for record in seeds]
    return math.nan if None in values else float(numpy.median(values))


def left_out(shown: int, total: int) -> str:
    """How many configurations a figure does not show, as a sentence; '' for none."""
    if shown == total:
        return ""
    return f"Left out: {total - shown} of {total} backbones and losses, those of the lowest validation AUROC."


def _panels(count: int, height: float, **shared: Any) -> tuple[Figure, numpy.ndarray]:
    """A figure and its panels, as many as `count`, row by row."""
    columns = next((each for each in (COLUMNS, COLUMNS - 1) if count % each == 0), min(count, COLUMNS))
    lines = math.ceil(count / columns)
    width = {1: 6.5, 2: 4.4, 3: 3.5}.get(columns, 3.0)
    figure = Figure(figsize=(0.8 + width * columns, 1.5 + height * lines), layout="constrained")
    panels = figure.subplots(lines, columns, squeeze=False, **shared).ravel()
    for axes in panels[count:]:
        axes.set_axis_off()
    for number, axes in enumerate(panels[:count]):
        axes.tick_params(labelbottom=number + columns >= count, labelleft=number % columns == 0)
    return figure, panels[:count]


def _of_one_seed(shown: Sequence[Sequence[Mapping]]) -> str:
    single = [configurations.name(seeds[0]) for seeds in shown if len(seeds) == 1]
    return f"One seed only, no spread over seeds: {listed(single)}." if single else ""


# --- 1. How severe


@styled
def draw_levels(found: Mapping[Run, dict], *, limit: int, facts: str) -> Picture:
    """Share of the images at each severity above 0, decision rules side by side: a panel a backbone and loss.

    Args:
        found: metrics of every run of the grid.
        limit: how many backbones and losses are shown, see `shown_configurations`.
        facts: data set and number of images, for the title.
    """
    shown = shown_configurations(found, limit)
    first = shown[0][0]
    rules = pictures.rule_looks(list(first["rules"]))
    losses = pictures.loss_looks(run.loss for run in found)
    table = _level_table(shown, list(rules))
    levels = [level for level in dict.fromkeys(table["severity"]) if level != "0"]
    figure, panels = _panels(len(shown), 2.5, sharex=True, sharey=True)
    width = 0.84 / len(rules)
    for axes, seeds in zip(panels, shown, strict=True):
        name = configurations.name(seeds[0])
        of_configuration = configurations.rows(table, seeds[0])
        right = []
        for place, (rule, look) in enumerate(rules.items()):
            rows = of_configuration[of_configuration["rule"] == rule]
            x = numpy.arange(len(levels)) + (place - (len(rules) - 1) / 2) * width
            median = rows[rows["seed"].isna()].set_index("severity")["share"]
            axes.bar(x, 100 * median.reindex(levels), width, **_bar(losses[seeds[0]["loss"]]["color"], look["hatch"]))
            for _, of_seed in rows[rows["seed"].notna()].groupby("seed"):
                axes.plot(x, 100 * of_seed.set_index("severity")["share"].reindex(levels), **SEED)
            right.append(f"{rule} {100 * median['0']:.1f} %")
        title = f"{pictures.wrap(name, 2.8, 8)}\n{pictures.wrap('right: ' + ', '.join(right), 2.9, 7)}"
        axes.set_title(title, fontsize=7.5)
        axes.set_xticks(range(len(levels)), levels, rotation=0 if max(map(len, levels), default=0) < 5 else 60)
        axes.grid(axis="x", visible=False)
        axes.set_axisbelow(True)
    for axes in panels:
        if axes.xaxis.get_tick_params()["labelbottom"]:
            axes.set_xlabel(f"Severity of the mistake (cost {first['cost']})")
        if axes.yaxis.get_tick_params()["labelleft"]:
            axes.set_ylabel("Share of the images (%)")
    several = any(len(seeds) > 1 for seeds in shown)
    handles = [Patch(**_bar(GREY, look["hatch"]), label=rule) for rule, look in rules.items()]
    handles += [Line2D([], [], **SEED, label="one seed")] if several else []
    figure.legend(handles=handles, loc="outside lower center", ncols=5, frameon=False)
    total = len({(run.backbone, run.loss) for run in found})
    rest = left_out(len(shown), total)
    pictures.title(figure, "How severe the mistakes are", pictures.sentences(f"{facts}.", rest))
    caption = pictures.sentences(
        f"Share of the images whose decision has each severity, of {facts}: bars are medians over the seeds, dots single seeds "
        "(metrics/runs); no other interval is drawn.",
        f"Severities above 0 in {BINS} bins of equal width." if any("to" in level for level in levels) else "",
        _of_one_seed(shown),
        rest,
    )
    return Picture(figure, table, caption)


def _bar(colour: str, hatch: str | None) -> dict[str, Any]:
    return {
        "facecolor": colour if hatch is None else "white",
        "edgecolor": colour,
        "hatch": hatch or "",
        "linewidth": 1,
    }


def _level_table(shown: Sequence[Sequence[Mapping]], rules: Sequence[str]) -> pandas.DataFrame:
    """A row a configuration, rule and severity (`seed` blank: median over the seeds), then, of several seeds, each of them."""
    values = sorted(
        {float(level) for seeds in shown for record in seeds for rule in rules for level in _images(record, rule)}
        | {0.0}
    )
    names = _level_names(values)
    rows = []
    for seeds in shown:
        for rule in rules:
            shares = [_shares(record, rule, names) for record in seeds]
            keys = {"backbone": seeds[0]["backbone"], "loss": seeds[0]["loss"], "rule": rule}
            told = [(None, {name: float(numpy.median([each[name] for each in shares])) for name in shares[0]})]
            if len(seeds) > 1:
                told += [(record["seed"], each) for record, each in zip(seeds, shares, strict=True)]
            rows += [
                keys | {"seed": seed, "severity": name, "share": share}
                for seed, each in told
                for name, share in each.items()
            ]
    return pandas.DataFrame(rows).astype({"seed": "Int64"})


def _images(record: Mapping, rule: str) -> Mapping[str, int]:
    return record["rules"][rule]["levels"]


def _level_names(values: Sequence[float]) -> dict[float, str]:
    """Each severity's name on the axis: itself, or, where there are too many, its bin; 0 is no mistake and by itself."""
    if len(values) <= BINS + 1:
        return {value: f"{value:g}" for value in values}
    edges = numpy.linspace(0, values[-1], BINS + 1)
    # Each bin with its upper edge, without its lower one; all bins are there, in order, even empty ones.
    bins = {number: f"{edges[number]:.3g} to {edges[number + 1]:.3g}" for number in range(BINS)}
    # A severity on an edge is told with six digits, and may lie on either side of it by as little.
    place = numpy.clip(numpy.ceil(numpy.array(values) / edges[1] - 1e-5) - 1, 0, BINS - 1).astype(int)
    return {value: bins[each] if value else "0" for value, each in zip(values, place, strict=True)}


def _shares(record: Mapping, rule: str, names: Mapping[float, str]) -> dict[str, float]:
    counts = dict.fromkeys(names.values(), 0)
    for level, images in _images(record, rule).items():
        counts[names[float(level)]] += images
    return {name: images / sum(counts.values()) for name, images in counts.items()}


# --- 2. How good the rankings


@styled
def draw_ranking(found: Mapping[Run, dict], *, limit: int, facts: str) -> Picture:
    """Hierarchical distance @k for every k, between what a random and what the best possible order has: a panel a configuration.

    Args:
        found: metrics of every run of the grid.
        limit: how many backbones and losses are shown, see `shown_configurations`.
        facts: data set and number of images, for the title.
    """
    shown = shown_configurations(found, limit)
    first = shown[0][0]
    rules = pictures.rule_looks(list(first["rules"]))
    losses = pictures.loss_looks(run.loss for run in found)
    classes = len(first["best_distance_curve"])
    marked = numpy.unique(numpy.round(numpy.geomspace(1, classes, min(DOTS, classes))).astype(int))
    table = _ranking_table(shown, list(rules), marked)
    figure, panels = _panels(len(shown), 2.6, sharex=True, sharey=True)
    for axes, seeds in zip(panels, shown, strict=True):
        colour = losses[seeds[0]["loss"]]["color"]
        of_configuration = configurations.rows(table, seeds[0])
        for bound, look in BOUNDS.items():
            rows = of_configuration[of_configuration["order"] == bound]
            axes.plot(rows["k"], rows["distance"], linewidth=1.3, **look)
        for rule, look in rules.items():
            rows = of_configuration[(of_configuration["order"] == rule) & of_configuration["seed"].isna()]
            axes.fill_between(rows["k"], rows["min"], rows["max"], color=colour, alpha=0.2, linewidth=0)
            face = "white" if look["hollow"] else colour
            style = {
                "marker": look["marker"],
                "markersize": 4.5,
                "markerfacecolor": face,
                "linestyle": look["linestyle"],
            }
            axes.plot(
                rows["k"], rows["distance"], color=colour, linewidth=1.1, markevery=(marked - 1).tolist(), **style
            )
            dots = of_configuration[(of_configuration["order"] == rule) & of_configuration["seed"].notna()]
            axes.plot(dots["k"], dots["distance"], **SEED)
        axes.set_title(pictures.wrap(configurations.name(seeds[0]), 2.8, 8))
        if classes > 30:
            axes.set_xscale("log")
            axes.set_xticks([k for k in TICKS if k <= classes], minor=False)
            axes.xaxis.set_major_formatter(FuncFormatter(_whole))
            axes.xaxis.set_minor_formatter(NullFormatter())
        else:
            axes.xaxis.get_major_locator().set_params(integer=True)
    for axes in panels:
        if axes.xaxis.get_tick_params()["labelbottom"]:
            axes.set_xlabel("k: how many classes, best first")
        if axes.yaxis.get_tick_params()["labelleft"]:
            axes.set_ylabel(f"Hierarchical distance @k\n(cost {first['cost']})")
    handles = [_rule_handle(rule, look) for rule, look in rules.items()]
    handles += [Line2D([], [], linewidth=1.3, **look) for look in reversed(BOUNDS.values())]
    if any(len(seeds) > 1 for seeds in shown):
        handles += [
            Patch(facecolor=GREY, alpha=0.2, label="min to max of the seeds"),
            Line2D([], [], **SEED, label="one seed"),
        ]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    rest = left_out(len(shown), len({(run.backbone, run.loss) for run in found}))
    pictures.title(
        figure, "How far off the first k classes are", pictures.sentences(f"{facts}, {classes} classes.", rest)
    )
    caption = pictures.sentences(
        f"Hierarchical distance @k (mean cost {first['cost']} of the first k ranked classes) for k = 1 to {classes}, of {facts}: "
        "lines are medians over the seeds, bands from their minimum to their maximum, dots single seeds (metrics/runs).",
        "Between the order by true distance, which no ranking can beat, and a random order, whose mean is the same at every k.",
        _of_one_seed(shown),
        rest,
    )
    return Picture(figure, table, caption)


def _rule_handle(rule: str, look: Mapping[str, Any]) -> Line2D:
    face = "white" if look["hollow"] else GREY
    style = {"marker": look["marker"], "linestyle": look["linestyle"], "markerfacecolor": face}
    return Line2D([], [], color=GREY, markersize=5, label=rule, **style)


def _ranking_table(shown: Sequence[Sequence[Mapping]], rules: Sequence[str], marked: numpy.ndarray) -> pandas.DataFrame:
    """A row a configuration, order (a rule or a bound) and k (`seed` blank: median, min, max over seeds), then seeds at marked k."""
    parts = []
    for seeds in shown:
        keys = {"backbone": seeds[0]["backbone"], "loss": seeds[0]["loss"]}
        best = numpy.median([record["best_distance_curve"] for record in seeds], axis=0)
        k = numpy.arange(1, len(best) + 1)
        for bound, curve in (("oracle", best), ("random", numpy.full(len(best), best[-1]))):
            parts.append(pandas.DataFrame({**keys, "order": bound, "seed": None, "k": k, "distance": curve}))
        for rule in rules:
            curves = numpy.array([record["rules"][rule]["distance_curve"] for record in seeds])
            spread = {"distance": numpy.median(curves, axis=0), "min": curves.min(axis=0), "max": curves.max(axis=0)}
            parts.append(pandas.DataFrame({**keys, "order": rule, "seed": None, "k": k, **spread}))
            if len(seeds) > 1:
                parts += [
                    pandas.DataFrame(
                        {**keys, "order": rule, "seed": record["seed"], "k": marked, "distance": curve[marked - 1]}
                    )
                    for record, curve in zip(seeds, curves, strict=True)
                ]
    columns = ["backbone", "loss", "order", "seed", "k", "distance", "min", "max"]
    rows = [row for part in parts for row in part.to_dict("records")]
    return pandas.DataFrame(rows, columns=columns).astype({"seed": "Int64"})


# --- 3. How honest the probabilities


@styled
def draw_reliability(records: Sequence[Mapping], *, colour: str, facts: str) -> Picture:
    """How often what is said with a probability is so, before and after temperature scaling, and in how many cases.

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
        upper.plot([0, 1], [0, 1], color=GREY, linewidth=1, label="as often as said")
        rows_of_kind = table[table["probabilities"] == kind]
        for when, (suffix, look) in SCALED.items():
            rows = rows_of_kind[rows_of_kind["when"] == when]
            told = _ece(records, kind + suffix)
            if rows.empty:
                upper.plot([], [], " ", label=f"{when}: n/a, no temperature was fitted")
                continue
            pooled, dots = rows[rows["seed"].isna()], rows[rows["seed"].notna()]
            style = {"color": colour, "linewidth": 1.2, "markersize": 5, **look}
            dot = SEED if when == "after" else SEED | {"markerfacecolor": "white", "markeredgecolor": "black"}
            upper.plot(dots["confidence"], dots["right"], **dot)
            upper.plot(pooled["confidence"], pooled["right"], label=f"{when}: {told}", **style)
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
        lower.yaxis.set_major_formatter(FuncFormatter(_whole))
        lower.set_ylabel("n in the bin, all seeds" if len(records) > 1 else "n in the bin")
        lower.set_xlabel("Probability (mean of the bin)")
    pictures.title(figure, f"Are probabilities as often right as they say? {configurations.name(first)}", facts)
    unscaled = [record["run"] for record in records if not record["calibration"].get("posterior_ts")]
    caption = pictures.sentences(
        f"Reliability of {configurations.name(first)}, of {facts}, {pictures.summed(len(records))}: share that is so against mean probability in "
        "bins of equal width, before and after temperature scaling; below it the number in each bin (metrics/runs).",
        "Dots: single seeds; ECE: median over the seeds, in brackets minimum and maximum. Posterior: the most probable class; "
        "marginal: bins of all labels together, its ECE the mean over labels.",
        f"Without temperature, for want of validation images: {listed(unscaled)}." if unscaled else "",
        "One seed only: no spread over seeds." if len(records) == 1 else "",
    )
    return Picture(figure, table, caption)


def _whole(value: float, _: int) -> str:
    """The label of a tick on a logarithmic axis."""
    return f"{value:,.0f}" if value >= 1 else ""


def _reliability_table(records: Sequence[Mapping]) -> pandas.DataFrame:
    """A row a kind of probabilities, before or after, and bin that is not empty: of all seeds together, then of each."""
    rows = []
    for kind in KINDS:
        for when, (suffix, _) in SCALED.items():
            known = [record for record in records if record["calibration"].get(kind + suffix)]
            bins = [_bins(record["calibration"][kind + suffix]["bins"]) for record in known]
            told = [(None, _pooled(bins))] if known else []
            if len(records) > 1:
                told += [(record["seed"], each) for record, each in zip(known, bins, strict=True)]
            for seed, each in told:
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
    found = {"n": n}
    for name in ("confidence", "right"):
        total = numpy.sum([each["n"] * numpy.nan_to_num(each[name]) for each in bins], axis=0)
        found[name] = total / numpy.maximum(n, 1)
    return found


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
