"""Cost matrices C[decision, truth]: how bad it is to decide one class where another is true."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy
import pandas

from severity.core import files, tables
from severity.core.errors import SeverityError, nearest
from severity.core.hierarchy import Hierarchy


def lca_height(hierarchy: Hierarchy) -> numpy.ndarray:
    """(K, K) float64: height of the lowest common ancestor of two classes, 0 on the diagonal.

    Height is the longest path down to a leaf. Symmetric and ultrametric. The severity of Bertinetto et al., "Making
    better mistakes" (CVPR 2020), and of Karthik et al., "No cost likelihood manipulation at test time" (ICLR 2021).
    """
    return hierarchy.height[_lowest_common_ancestor(hierarchy)].astype(numpy.float64)


def path(hierarchy: Hierarchy) -> numpy.ndarray:
    """(K, K) float64: number of edges on the way from one class to the other, 0 on the diagonal. Symmetric."""
    depth = hierarchy.depth
    own = depth[hierarchy.class_nodes]
    meeting = depth[_lowest_common_ancestor(hierarchy)]
    return (own[:, None] + own[None, :] - 2 * meeting).astype(numpy.float64)


def _lowest_common_ancestor(hierarchy: Hierarchy) -> numpy.ndarray:
    """(K, K) node index. From the root downward each node overwrites the pairs below it, so the lowest one stays."""
    classes = len(hierarchy.classes)
    ancestor = numpy.empty((classes, classes), dtype=numpy.int64)
    for node in hierarchy.top_down:
        below = hierarchy.classes_below[node]
        ancestor[numpy.ix_(below, below)] = node
    return ancestor


DERIVED = {"lca_height": lca_height, "path": path}
FIX = "Set cost.file in params.yaml to a table of costs (data/costs/README.md)."


def build(
    *,
    name: str,
    file: str | None,
    hierarchy: Hierarchy,
    irma: Callable[[Sequence[str]], numpy.ndarray] | None = None,
) -> numpy.ndarray:
    """The cost matrix that params name: derived from the tree, read from a file, or the error of IRMA codes.

    Args:
        name: a key of `DERIVED`, ``file`` or ``irma``.
        file: path of the CSV of ``file``.
        irma: from classes to their cost matrix, where the collection has IRMA codes.

    Raises:
        SeverityError: an unknown name, ``file`` without a path, a file that is not a cost matrix for these classes, or
            ``irma`` for a collection without IRMA codes.
    """
    if name == "file":
        return read(file, hierarchy.classes)
    if name == "irma":
        if irma is None:
            raise SeverityError(
                "params.yaml: cost.name is 'irma' but the classes of the data set are not IRMA codes. Choose "
                f"{', '.join(DERIVED)} or file, or set data.name to irma or irma_phantom."
            )
        return irma(hierarchy.classes)
    if name not in DERIVED:
        raise SeverityError(f"params.yaml: cost.name is {name!r}. {nearest(name, [*DERIVED, 'file', 'irma'])}")
    return DERIVED[name](hierarchy)


def is_metric(cost: numpy.ndarray) -> bool:
    """Whether a (K, K) cost matrix is a metric: above zero off the diagonal, symmetric, no detour shorter than the way.

    Rounding of a file's decimals is forgiven.
    """
    slack = 1e-9 * cost.max()
    if not ((cost > 0) | numpy.eye(len(cost), dtype=bool)).all() or (numpy.abs(cost - cost.T) > slack).any():
        return False
    return all((cost <= cost[:, [via]] + cost[[via], :] + slack).all() for via in range(len(cost)))


def write(path: Path | str, cost: numpy.ndarray, classes: Sequence[str]) -> None:
    """Write a cost matrix as CSV: one row a decision, one column a truth, class names on both axes."""
    frame = pandas.DataFrame(cost, columns=list(classes))
    frame.insert(0, "decision", list(classes))
    files.write_csv(path, frame)


def read(path: Path | str, classes: Sequence[str]) -> numpy.ndarray:
    """Read a cost matrix, in the order of `classes` whatever the file's order.

    Returns:
        (K, K) float64, rows decisions and columns truths. It may be asymmetric.

    Raises:
        SeverityError: a class that is missing, unknown or duplicated, a value that is not a number or negative, a
            diagonal that is not zero.
    """
    path = Path(path)
    names = tables.header(path, fix=FIX)
    frame = tables.read_text(path, [], fix=FIX)
    decisions = frame.iloc[:, 0]
    for axis, given in (("rows", decisions.tolist()), ("columns", names[1:])):
        for name in given:
            if name not in classes:
                raise SeverityError(f"{path}: the {axis} name the unknown class {name!r}. {nearest(name, classes)}")
            if given.count(name) > 1:
                raise SeverityError(f"{path}: the class {name!r} is duplicated in the {axis}.")
        for name in classes:
            if name not in given:
                raise SeverityError(f"{path}: the class {name!r} is missing from the {axis}.")
    costs = frame.iloc[:, 1:].set_axis(names[1:], axis=1).set_axis(decisions, axis=0)
    cost = costs.loc[list(classes), list(classes)].apply(pandas.to_numeric, errors="coerce").to_numpy(numpy.float64)
    check(cost, classes, where=str(path))
    return cost


def check(cost: numpy.ndarray, classes: Sequence[str], where: str) -> None:
    """Raise SeverityError unless `cost` is (K, K), finite, at least 0, zero on the diagonal and not zero everywhere."""
    size = len(classes)
    if cost.shape != (size, size):
        raise SeverityError(f"{where}: the cost matrix has the shape {cost.shape}; {size} classes need {(size, size)}.")
    for wrong, what in (
        (~numpy.isfinite(cost), "is not a finite number"),
        (cost < 0, "is negative; a cost is 0 or more"),
        ((cost != 0) & numpy.eye(size, dtype=bool), "is on the diagonal and must be 0: a right decision costs nothing"),
    ):
        if wrong.any():
            row, column = numpy.argwhere(wrong)[0]
            raise SeverityError(
                f"{where}: the cost of deciding {classes[row]!r} where {classes[column]!r} is true, "
                f"{cost[row, column]}, {what}."
            )
    if not cost.any():
        raise SeverityError(f"{where}: all costs are 0, so no mistake would count. Give at least one above 0.")
