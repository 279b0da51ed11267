"""Speed and memory of decisions and their metrics against the loops that one would write first.

    python -m benchmarks.decisions     a minute

All are timed in the same process, the best of three. The vectorised side ranks by conditional risk (CRM) and computes all single-decision
metrics of every image. The plain loop goes image by image and class by class; the loop over rows goes image by image and
lets numpy do each row's product and sort. Both loops run on the first images alone and their time is extrapolated to
all; their numbers are compared with the vectorised ones on those images. Memory is the highest that Python and numpy hold
at a time above the inputs (tracemalloc, in a run of its own, for tracing costs time).
"""

import platform
import time
import tracemalloc
from collections.abc import Callable
from importlib.metadata import version

import numpy

from severity.core.hierarchy import Hierarchy
from severity.decisions import class_rules
from severity.metrics import class_metrics
from severity.tree import costs

# images, classes, inner nodes, images that the loops are timed on
SIZES = ((1_000_000, 14, 5, 5_000), (50_000, 1_010, 150, 500))
REPEATS = 3
METRICS = ("top1_error", "mistake_severity", *(f"hierarchical_distance_at_{k}" for k in class_metrics.DEPTHS))


def tree(classes: int, inner: int, seed: int = 0) -> Hierarchy:
    """A random tree whose classes are its leaves."""
    random = numpy.random.default_rng(seed)
    parents = [-1] + [int(random.integers(0, node)) for node in range(1, inner)]
    bare = [node for node in range(inner) if node not in parents]
    parents += bare + [int(random.integers(0, inner)) for _ in range(classes - len(bare))]
    return Hierarchy.from_parents(parents, list(range(inner, inner + classes)), [f"class {k}" for k in range(classes)])


def case(images: int, hierarchy: Hierarchy) -> tuple[numpy.ndarray, numpy.ndarray]:
    """(N, K) float32 posterior and (N, K) bool truth, one or two true classes an image."""
    random = numpy.random.default_rng(1)
    size = len(hierarchy.classes)
    posterior = random.standard_exponential((images, size), dtype=numpy.float32) ** 3
    posterior /= posterior.sum(axis=1, keepdims=True)
    truth = numpy.zeros((images, size), dtype=bool)
    rows = numpy.arange(images)
    truth[rows, random.integers(0, size, images)] = True
    truth[rows[::3], random.integers(0, size, len(rows[::3]))] = True
    return posterior, truth


def vectorised(
    posterior: numpy.ndarray, truth: numpy.ndarray, cost: numpy.ndarray, hierarchy: Hierarchy
) -> dict[str, float]:
    ranking = class_rules.rank("crm", posterior=posterior, cost=cost, hierarchy=hierarchy)
    return class_metrics.single_decision(ranking=ranking, truth=truth, cost=cost)


def plain(p: numpy.ndarray, cost: numpy.ndarray) -> list[int]:
    """The classes of one image by ascending risk, class by class."""
    risk = [numpy.dot(row, p) for row in cost]
    return sorted(range(len(cost)), key=lambda k: (round(risk[k], 9), -p[k]))


def by_row(p: numpy.ndarray, cost: numpy.ndarray) -> numpy.ndarray:
    """The classes of one image by ascending risk, the row at once."""
    return numpy.lexsort((-p, numpy.round(cost @ p, 9)))


def loop(ranked: Callable, posterior: numpy.ndarray, truth: numpy.ndarray, cost: numpy.ndarray) -> dict[str, float]:
    """The same numbers, image by image."""
    wrong, severity, at = [], [], {k: [] for k in class_metrics.DEPTHS}
    for p, true in zip(posterior.astype(numpy.float64), truth, strict=True):
        first = ranked(p, cost)[: max(class_metrics.DEPTHS)]
        nearest = cost[numpy.ix_(first, numpy.flatnonzero(true))].min(axis=1)
        wrong.append(not true[first[0]])
        severity.append(nearest[0])
        for k, values in at.items():
            values.append(nearest[:k].mean())
    mistakes = [value for value, is_wrong in zip(severity, wrong, strict=True) if is_wrong]
    means = {f"hierarchical_distance_at_{k}": sum(values) / len(values) for k, values in at.items()}
    return {"top1_error": sum(wrong) / len(wrong), "mistake_severity": sum(mistakes) / len(mistakes), **means}


def timed(function: Callable, *args: object) -> tuple[float, dict[str, float]]:
    """Seconds that a call takes, the best of REPEATS, and what it gives."""
    best = float("inf")
    for _ in range(REPEATS):
        start = time.perf_counter()
        found = function(*args)
        best = min(best, time.perf_counter() - start)
    return best, found


def peak(function: Callable, *args: object) -> float:
    """Highest memory during a call above what was held before it, GB."""
    tracemalloc.start()
    function(*args)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return most / 1e9


def measure(images: int, classes: int, inner: int, looped: int) -> list[str]:
    """One row of the table."""
    hierarchy = tree(classes, inner)
    cost = costs.lca_height(hierarchy)
    posterior, truth = case(images, hierarchy)
    fast, _ = timed(vectorised, posterior, truth, cost, hierarchy)
    same = vectorised(posterior[:looped], truth[:looped], cost, hierarchy)
    row = [f"{images:,}", f"{classes:,}", f"{fast:.2f}"]
    for ranked in (plain, by_row):
        seconds, found = timed(loop, ranked, posterior[:looped], truth[:looped], cost)
        for name in METRICS:
            assert abs(found[name] - same[name]) < 1e-6, f"{name}: {found[name]} by the loop, {same[name]} vectorised"
        slow = seconds * images / looped
        row += [f"{slow:.0f}", f"{slow / fast:.0f}"]
    return [*row, f"{looped:,}", f"{peak(vectorised, posterior, truth, cost, hierarchy):.2f}"]


def main() -> None:
    print(f"Python {platform.python_version()}, numpy {version('numpy')}, {platform.system()} {platform.machine()}\n")
    headings = ["images", "classes", "vectorised, s", "plain loop, s", "ratio", "loop over rows, s", "ratio"]
    headings += ["images looped", "GB above the inputs"]
    print(f"| {' | '.join(headings)} |")
    print("|" + " ---: |" * len(headings))
    for size in SIZES:
        print(f"| {' | '.join(measure(*size))} |", flush=True)


if __name__ == "__main__":
    main()
