"""How good the rankings of each configuration are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import pandas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter

from severity.core.runs import Run
from severity.drawing import pictures
from severity.drawing.pictures import GREY, Picture, styled
from severity.figures.shared.panels import SEED, grid, left_out, of_one_seed, shown_configurations, whole
from severity.figures.shared.study import ScoreStudy
from severity.summary import configurations

TICKS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)  # of a logarithmic axis
DOTS = 12  # places at which a curve has markers and dots
BOUNDS = {
    "random": {"color": GREY, "linestyle": (0, (1, 1)), "label": "random order (expected)"},
    "oracle": {"color": GREY, "linestyle": (0, (6, 2)), "label": "best possible order"},
}


def draw(study: ScoreStudy) -> Picture:
    """The figure of a study."""
    return draw_ranking(study.common, limit=study.configurations_shown, facts=study.facts)


@styled
def draw_ranking(records: Mapping[Run, dict], *, limit: int, facts: str) -> Picture:
    """Hierarchical distance @k for every k, between a random and the best possible order: a panel a configuration.

    Args:
        records: metrics of every run of the grid.
        limit: how many backbones and losses are shown, see `shown_configurations`.
        facts: data set and number of images, for the title.
    """
    shown = shown_configurations(records, limit)
    first = shown[0][0]
    rules = pictures.rule_looks(list(first["rules"]))
    losses = pictures.loss_looks(run.loss for run in records)
    classes = len(first["best_distance_curve"])
    marked = numpy.unique(numpy.round(numpy.geomspace(1, classes, min(DOTS, classes))).astype(int))
    table = _ranking_table(shown, list(rules), marked)
    figure, panels = grid(len(shown), 2.6, sharex=True, sharey=True)
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
            axes.xaxis.set_major_formatter(FuncFormatter(whole))
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
    rest = left_out(len(shown), len({(run.backbone, run.loss) for run in records}))
    pictures.title(
        figure, "How far off the first k classes are", pictures.sentences(f"{facts}, {classes} classes.", rest)
    )
    caption = pictures.sentences(
        f"Hierarchical distance @k (mean cost {first['cost']} of the first k ranked classes) for k = 1 to {classes}, "
        f"of {facts}: lines are medians over the seeds, bands from their minimum to their maximum, dots single seeds "
        "(metrics/runs).",
        "Between the order by true distance, which no ranking can beat, and a random order, whose mean is the same at "
        "every k.",
        of_one_seed(shown),
        rest,
    )
    return Picture(figure, table, caption)


def _rule_handle(rule: str, look: Mapping[str, Any]) -> Line2D:
    face = "white" if look["hollow"] else GREY
    style = {"marker": look["marker"], "linestyle": look["linestyle"], "markerfacecolor": face}
    return Line2D([], [], color=GREY, markersize=5, label=rule, **style)


def _ranking_table(shown: Sequence[Sequence[Mapping]], rules: Sequence[str], marked: numpy.ndarray) -> pandas.DataFrame:
    """A row a configuration, order (rule or bound) and k (`seed` blank: over seeds), then the seeds at marked k."""
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
