"""What users pass, checked on entry: types, shapes and values, before any folder computes with them."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy

from severity.arrays.probabilities import chunks
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.tree import costs

NUMBERS = "fiub"  # numpy's kinds: floats, integers, unsigned integers, booleans
# How far probabilities of nodes may be above 1 or their parent's, or below 0: sums are exact to rounding. It is cut.
ROUNDING = 1e-6


def name(given: Any, what: str) -> str:
    """A word that names something."""
    if not isinstance(given, str):
        raise SeverityError(f"{what} is named by a word, not by {given!r}.")
    return given


def name_or_path(given: Any, what: str) -> str | Path:
    """A word, or the path of a file."""
    if isinstance(given, os.PathLike):
        return Path(given)
    if not isinstance(given, str):
        raise SeverityError(f"{what} is given by its name or the path of its file, not by {given!r}.")
    return given


def hierarchy(given: Any) -> Hierarchy:
    """A label tree."""
    if not isinstance(given, Hierarchy):
        raise SeverityError(
            f"hierarchy is a {type(given).__name__}; give one of severity.read_tree or severity.Hierarchy.from_parents."
        )
    return given


def labels(given: Any) -> Sequence[str]:
    """The names of a data set's labels, in its order."""
    names = [given] if isinstance(given, str) else list(given)
    if isinstance(given, str) or not all(isinstance(name, str) for name in names):
        raise SeverityError(f"labels is {given!r}; give a list of the labels' names.")
    return names


def _numbers(given: Any, what: str) -> numpy.ndarray:
    """An array of numbers of any shape. Raises SeverityError for what is none."""
    if hasattr(given, "detach"):  # a tensor of a network that is being trained
        given = given.detach().cpu()
    try:
        array = numpy.asarray(given)
    except (TypeError, ValueError) as error:
        raise SeverityError(f"{what} cannot be read as a table of numbers: {error}") from None
    if array.dtype.kind not in NUMBERS:
        raise SeverityError(f"{what} has the type {array.dtype}; it must hold numbers.")
    return array


def table(given: Any, what: str, columns: int, of: str, rows: int | None = None) -> numpy.ndarray:
    """A table of numbers (rows, columns), in whatever type of numbers it came.

    Args:
        what: its name. columns, of: how many it must have, and of what. rows: how many it must have; None: any number.

    Raises:
        SeverityError: it is not such a table.
    """
    array = _numbers(given, what)
    if array.ndim != 2 or array.shape[1] != columns or rows not in (None, len(array)):
        right = f"({'images' if rows is None else rows}, {columns} {of})"
        raise SeverityError(f"{what} has the shape {array.shape}; it must be {right}.")
    return array


def cost(given: Any, tree: Hierarchy) -> numpy.ndarray:
    """(K, K) float64 costs of the classes of `tree`."""
    matrix = table(given, "cost", len(tree.classes), "classes", rows=len(tree.classes)).astype(numpy.float64)
    costs.check(matrix, tree.classes, where="cost")
    return matrix


def posterior(given: Any, tree: Hierarchy) -> numpy.ndarray:
    """(N, K) numbers; that each row is a distribution is checked where it is used."""
    array = table(given, "posterior", len(tree.classes), "classes")
    return array if array.dtype.kind == "f" else array.astype(numpy.float64)


def nodes(given: Any, tree: Hierarchy, rows: int | None = None) -> numpy.ndarray:
    """(N, n) float64 in [0, 1], never rising downward."""
    array = table(given, "nodes", len(tree.parents), "nodes", rows=rows).astype(numpy.float64)
    wrong = ~((array >= -ROUNDING) & (array <= 1 + ROUNDING))
    if wrong.any():
        row, node = numpy.argwhere(wrong)[0]
        raise SeverityError(
            f"nodes is {array[row, node]} for image {row} and the node {tree.names[node]!r}; it must be 0 to 1."
        )
    array = array.clip(0, 1)
    root = tree.root
    absent = (array[:, root] < 1 - ROUNDING) & (root not in tree.stands_for)
    if absent.any():
        row = int(absent.argmax())
        raise SeverityError(
            f"nodes is {array[row, root]:g} for image {row} and the root {tree.names[root]!r}; it must be 1, since the root "
            "is no label and is present in every image."
        )
    below = list(tree.top_down[1:])
    rising = array[:, below] > array[:, tree.parents[below]] + ROUNDING
    if rising.any():
        row, place = numpy.argwhere(rising)[0]
        node, parent = below[place], tree.parents[below[place]]
        raise SeverityError(
            f"nodes: for image {row} the node {tree.names[node]!r} has {array[row, node]:g}, its parent {tree.names[parent]!r} "
            f"only {array[row, parent]:g}. A node is present whenever one below it is; a root that is no label always."
        )
    for node in below:
        array[:, node] = numpy.minimum(array[:, node], array[:, tree.parents[node]])
    return array


def truth(given: Any, tree: Hierarchy, rows: int) -> numpy.ndarray:
    """(N, K) float64, 1, 0 or NaN = masked, from booleans or numbers."""
    array = _numbers(given, "truth")
    if array.ndim == 1:
        raise SeverityError(
            "truth has one dimension; it must be (images, classes), 1 where a class is true. From the number of "
            f"the one true class of each image: numpy.eye({len(tree.classes)}, dtype=bool)[numbers]."
        )
    array = table(array, "truth", len(tree.classes), "classes", rows=rows)
    wrong = ~(numpy.isin(array, (0, 1)) | numpy.isnan(array))
    if wrong.any():
        row, column = numpy.argwhere(wrong)[0]
        raise SeverityError(
            f"truth is {array[row, column]} for image {row} and class {tree.classes[column]!r} ({int(wrong.sum())} "
            "such values); it must be 0, 1, or NaN where nobody knows. Decide what uncertain labels count as."
        )
    return array.astype(numpy.float64)


def thresholds(given: Any, tree: Hierarchy) -> numpy.ndarray:
    """(K,) float64 in [0, 1]."""
    array = _numbers(given, "thresholds").astype(numpy.float64)
    if array.shape != (len(tree.classes),):
        raise SeverityError(
            f"thresholds has the shape {array.shape}; it must be ({len(tree.classes)},), one for each class."
        )
    wrong = ~((array >= 0) & (array <= 1))
    if wrong.any():
        label = int(wrong.argmax())
        raise SeverityError(
            f"thresholds is {array[label]} for the class {tree.classes[label]!r}; it must be 0 to 1, one for each class."
        )
    return array


def ranking(given: Any, tree: Hierarchy) -> numpy.ndarray:
    """(N, K) class indices, each row a permutation of 0 to K - 1."""
    array = table(given, "ranking", len(tree.classes), "classes")
    if array.dtype.kind not in "iu":
        raise SeverityError(
            f"ranking has the type {array.dtype}; it must hold class indices, as severity.rank returns them."
        )
    for rows in chunks(*array.shape):
        wrong = (numpy.sort(array[rows], axis=1) != numpy.arange(array.shape[1])).any(axis=1)
        if wrong.any():
            row = rows.start + int(wrong.argmax())
            raise SeverityError(
                f"ranking: row {row} does not name each class from 0 to {array.shape[1] - 1} once: {array[row]}."
            )
    return array
