"""How severe the decisions of each configuration are."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy
import pandas
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from severity.core.runs import Run
from severity.drawing import pictures
from severity.drawing.pictures import GREY, Picture, styled
from severity.figures.shared.panels import SEED, grid, left_out, of_one_seed, shown_configurations
from severity.figures.shared.study import ScoreStudy
from severity.summary import configurations

BINS = 10  # of severities, where there are more than these


def draw(study: ScoreStudy) -> Picture:
    """The figure of a study."""
    return draw_levels(study.common, limit=study.configurations_shown, facts=study.facts)


@styled
def draw_levels(records: Mapping[Run, dict], *, limit: int, facts: str) -> Picture:
    """Share of the images at each severity above 0, decision rules side by side: a panel a backbone and loss.

    Args:
        records: metrics of every run of the grid.
        limit: how many backbones and losses are shown, see `shown_configurations`.
        facts: data set and number of images, for the title.
    """
    shown = shown_configurations(records, limit)
    first = shown[0][0]
    rules = pictures.rule_looks(list(first["rules"]))
    losses = pictures.loss_looks(run.loss for run in records)
    table = _level_table(shown, list(rules))
    levels = [level for level in dict.fromkeys(table["severity"]) if level != "0"]
    figure, panels = grid(len(shown), 2.5, sharex=True, sharey=True)
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
    total = len({(run.backbone, run.loss) for run in records})
    rest = left_out(len(shown), total)
    pictures.title(figure, "How severe the mistakes are", pictures.sentences(f"{facts}.", rest))
    caption = pictures.sentences(
        f"Share of the images whose decision has each severity, of {facts}: bars are medians over the seeds, dots "
        "single seeds (metrics/runs); no other interval is drawn.",
        f"Severities above 0 in {BINS} bins of equal width." if any("to" in level for level in levels) else "",
        of_one_seed(shown),
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
    """A row a configuration, rule and severity (`seed` blank: median over seeds), then the seeds if several."""
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
            by_seed = [(None, {name: float(numpy.median([each[name] for each in shares])) for name in shares[0]})]
            if len(seeds) > 1:
                by_seed += [(record["seed"], each) for record, each in zip(seeds, shares, strict=True)]
            rows += [
                keys | {"seed": seed, "severity": name, "share": share}
                for seed, each in by_seed
                for name, share in each.items()
            ]
    return pandas.DataFrame(rows).astype({"seed": "Int64"})


def _images(record: Mapping, rule: str) -> Mapping[str, int]:
    return record["rules"][rule]["levels"]


def _level_names(values: Sequence[float]) -> dict[float, str]:
    """Each severity's name on the axis: itself, or its bin if there are too many; 0, no mistake, stays separate."""
    if len(values) <= BINS + 1:
        return dict(zip(values, _distinct(values), strict=True))
    edges = numpy.linspace(0, values[-1], BINS + 1)
    # Each bin with its upper edge, without its lower one; all bins are there, in order, even empty ones.
    bins = {number: f"{edges[number]:.3g} to {edges[number + 1]:.3g}" for number in range(BINS)}
    # A severity on an edge is written with six digits, and may lie on either side of it by as little.
    place = numpy.clip(numpy.ceil(numpy.array(values) / edges[1] - 1e-5) - 1, 0, BINS - 1).astype(int)
    return {value: bins[each] if value else "0" for value, each in zip(values, place, strict=True)}


def _distinct(values: Sequence[float]) -> list[str]:
    """Numbers in three digits, or in as many more as keep them apart."""
    for digits in range(3, 7):
        names = [f"{value:.{digits}g}" for value in values]
        if len(set(names)) == len(names):
            break
    return names


def _shares(record: Mapping, rule: str, names: Mapping[float, str]) -> dict[str, float]:
    counts = dict.fromkeys(names.values(), 0)
    for level, images in _images(record, rule).items():
        counts[names[float(level)]] += images
    return {name: images / sum(counts.values()) for name, images in counts.items()}
