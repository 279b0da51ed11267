"""What each mistake costs."""

from collections.abc import Sequence

import numpy
import pandas
from matplotlib.figure import Figure

from severity.drawing import pictures
from severity.drawing.pictures import Picture, styled
from severity.figures.shared.study import ScoreStudy
from severity.figures.shared.trees import too_many, too_many_caption


def draw(study: ScoreStudy) -> Picture:
    """The figure of a study."""
    facts = f"{study.tree_facts}, cost {study.unit}"
    return draw_cost(study.cost, study.hierarchy.classes, limit=study.classes, facts=facts)


@styled
def draw_cost(cost: numpy.ndarray, classes: Sequence[str], *, limit: int, facts: str) -> Picture:
    """The cost matrix as a heat map with its numbers: rows are decisions, columns the truth.

    Args:
        cost: (K, K) floats.
        classes: (K) their names.
        limit: the largest number of classes that is drawn.
        facts: data set, hierarchy and cost, for the title.
    """
    table = pandas.DataFrame(cost, columns=list(classes))
    table.insert(0, "decision", list(classes))
    headline = f"Cost matrix: {facts}"
    if len(classes) > limit:
        return Picture(too_many(headline, len(classes), limit), table, too_many_caption(headline, len(classes), limit))

    side = max(0.31 * len(cost), 2.5)
    margin = pictures.width(max(classes, key=len), 8)
    figure = Figure(figsize=(max(side + margin + 1.6, 5.5), side + margin + 1.2), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(cost, cmap="YlGnBu", vmin=0)
    axes.set_xticks(range(len(classes)), classes, rotation=90)
    axes.set_yticks(range(len(classes)), classes)
    axes.set_xlabel("Truth")
    axes.set_ylabel("Decision")
    axes.grid(False)
    for (decision, truth), value in numpy.ndenumerate(cost):
        colour = "white" if value > 0.55 * cost.max() else "black"
        axes.text(truth, decision, f"{value:.2g}", ha="center", va="center", color=colour, fontsize=7)
    figure.colorbar(image, ax=axes, label="Cost of the decision", shrink=0.8)
    pictures.title(figure, headline, f"{len(classes)} classes")
    caption = f"{headline}: what deciding the class of a row costs where that of a column is true (data/cost/cost.csv)."
    return Picture(figure, table, caption)
