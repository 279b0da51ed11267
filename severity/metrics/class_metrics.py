"""Severity metrics of single decisions. Per image first, then one division; never a mean of batch means."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy

from severity.arrays.distances import distances, nearest
from severity.arrays.probabilities import chunks
from severity.core.errors import SeverityError
from severity.metrics import catalogue
from severity.metrics.catalogue import DEPTHS, Metric

# What `describe` says of severities, besides their levels.
DESCRIBED = ("mean", "median", "lower_quartile", "upper_quartile", "min", "max", "skewness", "percent")
# hd@1 = top-1 error x mistake severity holds exactly in real numbers; float64 sums of N terms stay far inside this.
IDENTITY_TOLERANCE = 1e-9


def has_truth(truth: numpy.ndarray) -> numpy.ndarray:
    """(N,) bool: the images with at least one true class. Of the others no decision can be called right or wrong."""
    return truth.any(axis=1)


def severities(*, ranking: numpy.ndarray, truth: numpy.ndarray, cost: numpy.ndarray) -> numpy.ndarray:
    """(N,) cost of each image's decision, `ranking[:, 0]`. Every row of `truth` (N, K) bool must hold a true class."""
    severity = numpy.empty(len(truth))
    for rows in chunks(*truth.shape):
        severity[rows] = nearest(decided=ranking[rows, :1], truth=truth[rows], cost=cost)[:, 0]
    return severity


@dataclass(frozen=True)
class Decisions:
    """What a quantity is computed from: rankings and truths of some images, (N, K) each, and the (K, K) cost."""

    ranking: numpy.ndarray
    truth: numpy.ndarray
    cost: numpy.ndarray

    @cached_property
    def ranked(self) -> numpy.ndarray:
        """(N, D) severity of each of the first classes of the ranking, as many as the largest of `DEPTHS`."""
        return nearest(decided=self.ranking[:, : max(DEPTHS)], truth=self.truth, cost=self.cost)


def _wrong(decisions: Decisions) -> numpy.ndarray:
    """1 for a wrong decision, else 0."""
    first = decisions.ranking[:, :1].astype(numpy.intp)
    return (~numpy.take_along_axis(decisions.truth, first, axis=1)[:, 0]).astype(numpy.float64)


def _mean_severity(k: int) -> Callable[[Decisions], numpy.ndarray]:
    """Mean severity of the first k classes, k capped at K; k = 1 is the severity of the decision."""
    # Sorted, so that the same classes in another order give the same number to the last digit.
    return lambda decisions: numpy.sort(decisions.ranked[:, :k], axis=1).mean(axis=1)


# What each image gives to the metrics of the catalogue: a quantity's name there -> a function to (N,) numbers.
QUANTITIES: dict[str, Callable[[Decisions], numpy.ndarray]] = {
    "top1_error": _wrong,
    **{f"hierarchical_distance_at_{k}": _mean_severity(k) for k in DEPTHS},
}


def per_image(*, ranking: numpy.ndarray, truth: numpy.ndarray, cost: numpy.ndarray) -> dict[str, numpy.ndarray]:
    """Each of `QUANTITIES` of each image, by name: (N,) float64.

    Args:
        ranking: (N, K) class indices, best first. truth: (N, K) bool, at least one true class in each row.
        cost: (K, K).
    """
    _check(ranking, truth, cost)
    quantities = {name: numpy.empty(len(truth)) for name in QUANTITIES}
    for rows in chunks(*truth.shape):
        decisions = Decisions(ranking[rows], truth[rows], cost)
        for name, values in quantities.items():
            values[rows] = QUANTITIES[name](decisions)
    return quantities


def determined(ranking: numpy.ndarray, unknown: numpy.ndarray | None) -> numpy.ndarray:
    """(N,) bool: the images whose decision, `ranking[:, 0]`, is right or wrong.

    Args:
        unknown: (N, K) bool, the classes of which that cannot be said (`labelsets.undetermined`); None: of none.
    """
    if unknown is None:
        return numpy.ones(len(ranking), dtype=bool)
    return ~numpy.take_along_axis(unknown, ranking[:, :1].astype(numpy.intp), axis=1)[:, 0]


def single_decision(
    *, ranking: numpy.ndarray, truth: numpy.ndarray, cost: numpy.ndarray, unknown: numpy.ndarray | None = None
) -> dict[str, Any]:
    """How often the first-ranked class is wrong and how far off it is.

    Args:
        ranking: (N, K) class indices, best first (`decisions.rank`).
        truth: (N, K) bool; several true classes are allowed. Images with none are left out and counted.
        cost: (K, K) cost[decision, truth].
        unknown: (N, K) bool, the classes of which nobody can say whether they are right; an image for which one is decided
            is left out and counted. None: there are none.

    Returns:
        images, without_truth, undetermined: counts of scored images, of those without a true class, and of the others that
            are left out. Where no image is scored, all that follows is None, and levels is empty.
        top1_error: share of images whose decision is no true class.
        mistake_severity: mean severity over mistakes only; None when there are none.
        hierarchical_distance_at_k, k = 1, 5, 20: mean over images of the mean severity of the first k classes, k capped
            at K (Bertinetto et al., CVPR 2020).
        severity_mean, _median, _lower_quartile, _upper_quartile, _min, _max: of the severity over all scored images,
            mistakes or not. severity_skewness: third standardised moment, None when all severities are equal.
        severity_percent: 100 x mean / largest cost.
        levels: for each severity that occurs, the number of images.
        Every other metric of the catalogue that has a numerator: its sum over images by that of its denominator, None
            where the latter is 0.

    Raises:
        SeverityError: shapes or types do not fit, no image has a true class, or hd@1 = top1_error x mistake_severity
            does not hold (which would be a defect here, not of the data).
    """
    _check(ranking, truth, cost)
    known = has_truth(truth)
    if not known.any():
        raise SeverityError(f"None of the {len(truth)} images has a true class, so no decision can be scored.")
    scored = known & determined(ranking, unknown)
    counts = {
        "images": int(scored.sum()),
        "without_truth": int((~known).sum()),
        "undetermined": int((known & ~scored).sum()),
    }
    if not scored.any():
        nothing = [metric.name for metric in catalogue.ratios()] + [f"severity_{name}" for name in DESCRIBED]
        return counts | dict.fromkeys(nothing) | {"levels": {}}
    depths = {k: min(k, len(cost)) for k in DEPTHS}
    totals = dict.fromkeys(DEPTHS, 0.0)
    severity = numpy.empty(int(scored.sum()))
    wrong = numpy.empty(len(severity), dtype=bool)
    rows_scored = numpy.flatnonzero(scored)
    for rows in chunks(len(rows_scored), len(cost)):
        index = rows_scored[rows]
        first, true = ranking[index, : max(depths.values())], truth[index]
        ranked = nearest(decided=first, truth=true, cost=cost)
        severity[rows] = ranked[:, 0]
        wrong[rows] = ~true[numpy.arange(len(true)), first[:, 0]]
        for k, depth in depths.items():
            totals[k] += float(ranked[:, :depth].sum()) / depth
    metrics = {
        **counts,
        "top1_error": float(wrong.mean()),
        "mistake_severity": float(severity[wrong].mean()) if wrong.any() else None,
        **{f"hierarchical_distance_at_{k}": totals[k] / len(severity) for k in DEPTHS},
        **describe(severity, largest=float(cost.max())),
    }
    _check_identity(metrics)
    others = [metric for metric in catalogue.ratios() if metric.name not in metrics]
    # The rows are copied only where there is something left to compute: rankings can be large.
    return (
        metrics | _ratios(others, per_image(ranking=ranking[scored], truth=truth[scored], cost=cost))
        if others
        else metrics
    )


def _ratios(metrics: Sequence[Metric], quantities: dict[str, numpy.ndarray]) -> dict[str, float | None]:
    """Metrics of the catalogue, each the sum over images of one quantity divided by that of another."""
    images = len(next(iter(quantities.values())))
    sums = {None: float(images), **{name: float(values.sum()) for name, values in quantities.items()}}
    return {
        metric.name: sums[metric.numerator] / sums[metric.denominator] if sums[metric.denominator] else None
        for metric in metrics
    }


def describe(severity: numpy.ndarray, *, largest: float) -> dict[str, Any]:
    """Distribution of (N,) severities; `largest` is the largest cost there is."""
    lower, median, upper = numpy.percentile(severity, [25, 50, 75])
    deviation = severity - severity.mean()
    variance = float(numpy.mean(deviation**2))
    levels: dict[str, int] = {}
    for level, count in zip(*numpy.unique(severity, return_counts=True), strict=True):
        # Costs that are no whole numbers may differ by less than six digits tell.
        levels[f"{level:g}"] = levels.get(f"{level:g}", 0) + int(count)
    return {
        "severity_mean": float(severity.mean()),
        "severity_median": float(median),
        "severity_lower_quartile": float(lower),
        "severity_upper_quartile": float(upper),
        "severity_min": float(severity.min()),
        "severity_max": float(severity.max()),
        "severity_skewness": float(numpy.mean(deviation**3) / variance**1.5) if variance > 0 else None,
        "severity_percent": 100 * float(severity.mean()) / largest,
        "levels": levels,
    }


def batches(severity: numpy.ndarray, *, size: int) -> dict[str, Any]:
    """Severity in batches of `size` consecutive images, in data-set order; the last batch may be smaller.

    Returns:
        size; means, medians: one number a batch; mean_min, mean_max: the least and largest mean of the whole batches, since a
        smaller one spreads more (of the only one, where none is whole); median_of_medians, mean_of_medians: over the batch
        medians.

    Raises:
        SeverityError: `size` is below 1.
    """
    if size < 1:
        raise SeverityError(f"params.yaml: evaluate.batch_size is {size}; a batch has at least 1 image.")
    parts = [severity[start : start + size] for start in range(0, len(severity), size)]
    means = [float(part.mean()) for part in parts]
    medians = [float(numpy.median(part)) for part in parts]
    whole = means[: len(severity) // size] or means
    return {
        "size": size,
        "means": means,
        "medians": medians,
        "mean_min": min(whole),
        "mean_max": max(whole),
        "median_of_medians": float(numpy.median(medians)),
        "mean_of_medians": float(numpy.mean(medians)),
    }


def by_label(severity: numpy.ndarray, truth: numpy.ndarray, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Mean severity over the images for which a label is true (None where it never is), and their number."""
    labels = {}
    for column, label in enumerate(classes):
        values = severity[truth[:, column]]
        labels[label] = {"images": len(values), "severity": float(values.mean()) if len(values) else None}
    return labels


def confusion(
    *, decided: numpy.ndarray, truth: numpy.ndarray, cost: numpy.ndarray, classes: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Images of each truth (a class name) and decision: truth -> decision -> images, six digits, no zeros.

    Args:
        decided: (N,) class index. truth: (N, K) bool, at least one true class in each row. cost: (K, K).

    An image with n true classes counts 1/n for each of them, whatever was decided: the sums over the decisions are the same
    for every rule, and over everything the sum is N.
    """
    size = len(cost)
    shares = numpy.zeros((size, size))  # rows truths, columns decisions
    for rows in chunks(*truth.shape):
        true = truth[rows].astype(numpy.float64)
        numpy.add.at(shares.T, decided[rows], true / true.sum(axis=1, keepdims=True))
    return {
        classes[true]: {classes[k]: float(f"{row[k]:.6g}") for k in numpy.flatnonzero(row)}
        for true, row in enumerate(shares)
        if row.any()
    }


def distance_curve(*, ranking: numpy.ndarray, truth: numpy.ndarray, cost: numpy.ndarray) -> list[float]:
    """Hierarchical distance @k for k = 1 to K, to six digits.

    Args:
        ranking: (N, K) class indices, best first. truth: (N, K) bool, at least one true class in each row.
        cost: (K, K).
    """
    total = numpy.zeros(len(cost))
    for rows in chunks(*truth.shape):
        total += nearest(decided=ranking[rows], truth=truth[rows], cost=cost).sum(axis=0)
    return _curve(total / len(truth))


def best_distance_curve(*, truth: numpy.ndarray, cost: numpy.ndarray) -> list[float]:
    """What no ranking can be below: `distance_curve` of the classes by ascending distance from the truth.

    Its last number, the mean over all classes, is every ranking's, and that of a random ranking at every k.
    """
    total = numpy.zeros(len(cost))
    for rows in chunks(*truth.shape):
        total += numpy.sort(distances(truth=truth[rows], cost=cost), axis=1).sum(axis=0)
    return _curve(total / len(truth))


def _curve(at_rank: numpy.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in numpy.cumsum(at_rank) / numpy.arange(1, len(at_rank) + 1)]


def extremes(
    severity: numpy.ndarray,
    *,
    decided: numpy.ndarray,
    truth: numpy.ndarray,
    ids: numpy.ndarray,
    classes: Sequence[str],
    count: int,
) -> dict[str, list[dict[str, Any]]]:
    """The `count` least and most severe mistakes, ties by data-set order.

    Args:
        severity: (N,) cost of each decision. decided: (N,) class index. truth: (N, K) bool. ids: (N,) image names.

    Returns:
        least and most: lists of id, truth (label names), decision (label name), severity.
    """
    mistakes = numpy.flatnonzero(~numpy.take_along_axis(truth, decided[:, None].astype(numpy.intp), axis=1)[:, 0])
    ascending = mistakes[numpy.argsort(severity[mistakes], kind="stable")]
    descending = mistakes[numpy.argsort(-severity[mistakes], kind="stable")]
    return {
        which: [
            {
                "id": str(ids[image]),
                "truth": [classes[k] for k in numpy.flatnonzero(truth[image])],
                "decision": classes[decided[image]],
                "severity": float(severity[image]),
            }
            for image in order[:count]
        ]
        for which, order in (("least", ascending), ("most", descending))
    }


def _check(ranking: numpy.ndarray, truth: numpy.ndarray, cost: numpy.ndarray) -> None:
    if truth.dtype != bool:
        raise SeverityError(f"truth has the type {truth.dtype}; it must be bool, with masked labels already decided.")
    if ranking.shape != truth.shape or cost.shape != (truth.shape[1], truth.shape[1]):
        raise SeverityError(
            f"ranking {ranking.shape}, truth {truth.shape} and cost {cost.shape} do not fit: (N, K), (N, K), (K, K)."
        )


def _check_identity(metrics: dict[str, Any]) -> None:
    product = metrics["top1_error"] * (metrics["mistake_severity"] or 0.0)
    distance = metrics["hierarchical_distance_at_1"]
    if abs(distance - product) > IDENTITY_TOLERANCE * max(1.0, distance):
        raise SeverityError(
            f"Self-check failed: hierarchical distance @1 is {distance}, but top-1 error x mistake severity is {product}. "
            "These numbers cannot be trusted; please report it with the cost matrix."
        )
