"""What figures along the label tree share: in which row a class is drawn, what is written where there are too many."""

import numpy
from matplotlib.figure import Figure

from severity.core.hierarchy import Hierarchy
from severity.drawing import pictures


def drawn_rows(hierarchy: Hierarchy) -> numpy.ndarray:
    """(n,) where each node is drawn: leaves one below another, an inner node midway between its outer children.

    Siblings are in the order of their first classes, so that the leaves follow the class order as far as they can
    without crossing lines.
    """
    rows = numpy.zeros(len(hierarchy.names))
    order, waiting = [], [hierarchy.root]
    while waiting:
        order.append(waiting.pop())
        children = hierarchy.children[order[-1]]
        waiting += sorted(children, key=lambda node: hierarchy.classes_below[node][0], reverse=True)
    for row, leaf in enumerate(node for node in order if not hierarchy.children[node]):
        rows[leaf] = row
    for node in reversed(order):
        if hierarchy.children[node]:
            below = rows[list(hierarchy.children[node])]
            rows[node] = (below.min() + below.max()) / 2
    return rows


def tree_order(hierarchy: Hierarchy) -> list[int]:
    """The classes as the drawn tree has them from top to bottom, so that those of a group are together."""
    return numpy.argsort(drawn_rows(hierarchy)[hierarchy.class_nodes], kind="stable").tolist()


def too_many(headline: str, count: int, limit: int) -> Figure:
    """A figure of words in place of one with more classes than are drawn."""
    note = f"too many classes to draw: {count:,}, more than plot.classes = {limit:,}"
    return pictures.text_figure(headline, note, "The CSV file next to this one holds all.")


def too_many_caption(headline: str, count: int, limit: int) -> str:
    """Its caption."""
    return (
        f"{headline}. Not drawn: {count:,} classes are more than plot.classes = {limit:,}; the CSV file next to it "
        "holds all."
    )
