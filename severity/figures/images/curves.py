"""Training curves."""

import math
from collections.abc import Mapping, Sequence

import pandas
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from severity.core import without_images
from severity.core.table_checks import listed
from severity.drawing import pictures
from severity.drawing.pictures import GREY, NOT_AVAILABLE, Picture, styled
from severity.figures.shared.panels import left_out
from severity.figures.shared.study import ImageStudy

CURVES = {
    "train_loss": {"linestyle": "-", "label": "train loss"},
    "validation_loss": {"linestyle": "--", "label": "validation loss"},
    "validation_macro_auroc": {"linestyle": "-.", "label": "validation AUROC (macro)"},
}
STAR = {"marker": "*", "markersize": 9, "markeredgecolor": "white", "markeredgewidth": 0.5, "linestyle": "none"}


def draw(study: ImageStudy) -> Picture:
    """The figure of a study; where no run was trained here, it says so."""
    if study.histories is None:
        return pictures.left_out("curves", without_images.UNTRAINED)
    return draw_curves(study.histories, study.shown, facts=study.dataset)


@styled
def draw_curves(histories: pandas.DataFrame, shown: Sequence[Sequence[Mapping]], *, facts: str) -> Picture:
    """Losses and validation AUROC by epoch: a column of two panels for each backbone and loss, a thin line a seed.

    Args:
        histories: columns backbone, loss, seed, epoch, train_loss, validation_loss, validation_macro_auroc (NaN where
            it does not exist) and best (1 at the epoch that was kept; the last one counts).
        shown: the configurations to show, as `severity.figures.run_figures.shown_configurations` gives them.
        facts: the data set, for the title.
    """
    curves, looks = list(CURVES), pictures.loss_looks(histories["loss"])
    pairs = [(seeds[0]["backbone"], seeds[0]["loss"]) for seeds in shown]
    configuration_of = pandas.MultiIndex.from_frame(histories[["backbone", "loss"]])
    table = histories.loc[configuration_of.isin(pairs), ["backbone", "loss", "seed", "epoch", *curves, "best"]]
    table = table.reset_index(drop=True)
    groups = list(table.groupby(["backbone", "loss"], sort=False))
    losses = table["loss"].nunique()
    # The grid's order, backbone then loss, puts a backbone in a row and a loss in a column.
    columns = losses if losses <= 6 and len(groups) <= 4 * losses else min(len(groups), 6)
    rows = math.ceil(len(groups) / columns)
    figure = Figure(figsize=(max(7.5, 0.6 + 2.3 * columns), 1.3 + 2.5 * rows), layout="constrained")
    panels = figure.subplots(2 * rows, columns, sharex=True, squeeze=False)
    spans = table["validation_macro_auroc"].min(), table["validation_macro_auroc"].max()
    for i, ((backbone, loss), configuration) in enumerate(groups):
        upper, lower = panels[2 * (i // columns), i % columns], panels[2 * (i // columns) + 1, i % columns]
        upper.set_title(pictures.wrap(f"{backbone}-{loss}", 2.1, 8), fontsize=8)
        _draw_curves_of_configuration(upper, lower, configuration, looks[loss]["color"])
        _limit(lower, *spans)
        if i % columns == 0:
            upper.set_ylabel("Loss")
            lower.set_ylabel("AUROC")
        if i + columns >= len(groups):
            lower.set_xlabel("Epoch")
            lower.tick_params(labelbottom=True)
            lower.xaxis.get_major_locator().set_params(integer=True)
    for i in range(len(groups), rows * columns):
        for axes in panels[2 * (i // columns) : 2 * (i // columns) + 2, i % columns]:
            axes.set_axis_off()
    figure.align_ylabels(panels[:, 0])
    runs = sum(configuration["seed"].nunique() for _, configuration in groups)
    rest = left_out(len(groups), len(configuration_of.unique()))
    pictures.title(
        figure,
        f"Training curves: {facts}",
        pictures.sentences(f"Backbones and losses: {len(groups)}; runs: {runs}, a line each.", rest),
    )
    handles = [Line2D([], [], color=GREY, **style) for style in CURVES.values()]
    handles.append(Line2D([], [], color=GREY, **STAR, label="kept epoch"))
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
    blind = [
        f"{'-'.join(names)}" for names, configuration in groups if configuration["validation_macro_auroc"].isna().all()
    ]
    caption = pictures.sentences(
        f"Losses and validation AUROC by epoch of {runs} runs on {facts}, a line each; a star marks the epoch that was "
        "kept (data/models/<run>/history.csv).",
        f"Without a validation AUROC: {listed(blind)}." if blind else "",
        rest,
    )
    return Picture(figure, table, caption)


def _draw_curves_of_configuration(upper: Axes, lower: Axes, configuration: pandas.DataFrame, colour: str) -> None:
    panels = {"train_loss": upper, "validation_loss": upper, "validation_macro_auroc": lower}
    styles = {curve: (panels[curve], {"color": colour, **style}) for curve, style in CURVES.items()}
    for _, run in configuration.groupby("seed", sort=False):
        best = run[run["best"] == 1].tail(1)
        dot = "." if len(run) == 1 else ""  # A single epoch has no line to see.
        for curve, (axes, style) in styles.items():
            axes.plot(run["epoch"], run[curve], linewidth=0.9, marker=dot, **style)
            if curve != "train_loss":
                axes.plot(best["epoch"], best[curve], **STAR, color=colour)
    for curve, (axes, style) in styles.items():
        if configuration[curve].isna().all():
            axes.text(0.5, 0.5, f"{style['label']}: n/a", transform=axes.transAxes, ha="center", **NOT_AVAILABLE)


def _limit(axes: Axes, lowest: float, highest: float) -> None:
    """The same AUROC axis in every panel; no numbers where there is no AUROC."""
    if math.isnan(lowest):
        axes.set_yticks([])
    else:
        pad = 0.06 * (highest - lowest) + 0.005
        axes.set_ylim(lowest - pad, highest + pad)
