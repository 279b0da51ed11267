"""Numbers that sum up numbers: over the seeds of a configuration, and over the comparisons of a table."""

from collections.abc import Sequence

import numpy
import scipy.stats

# Under this many values a quartile is a value between two runs, not a quarter of anything.
FEWEST_FOR_QUARTILES = 3
NONE_SHOWN = "no difference shown"


def over_seeds(values: Sequence[float | None], *, skewness: bool = False) -> dict[str, float | None]:
    """What one metric does over the seeds of a configuration.

    Args:
        values: one number a seed; None where a seed lacks the metric.
        skewness: whether to give it as well.

    Returns:
        n, missing: how many values there are, and how many of them are None. mean, median (a true one: of an even
        number of values the mean of the middle two), min, max. lower_quartile, upper_quartile (linear between values):
        None under three values. skewness: third standardised moment, None under three values or where all are equal.

        If any seed lacks the metric, all but n and missing are None: a median over the seeds that happen to have it
        would look better founded than it is.
    """
    summary: dict[str, float | None] = {"n": len(values), "missing": sum(value is None for value in values)}
    names = ["mean", "median", "min", "max", "lower_quartile", "upper_quartile", *(["skewness"] if skewness else [])]
    summary |= dict.fromkeys(names)
    if summary["missing"] or not len(values):
        return summary
    summary |= {"mean": float(numpy.mean(values)), "median": float(numpy.median(values))}
    summary |= {"min": float(min(values)), "max": float(max(values))}
    if len(values) >= FEWEST_FOR_QUARTILES:
        lower, upper = numpy.percentile(values, [25, 75])
        summary |= {"lower_quartile": float(lower), "upper_quartile": float(upper)}
        if skewness and summary["min"] < summary["max"]:
            summary["skewness"] = float(scipy.stats.skew(values))
    return summary


def spread(values: Sequence[float]) -> dict[str, float | None]:
    """seed_min, seed_median and seed_max of one number a seed (NaN where a seed lacks it), as columns of a table."""
    summary = over_seeds([None if numpy.isnan(value) else float(value) for value in values])
    return {f"seed_{name}": summary[name] for name in ("min", "median", "max")}


def holm(p: Sequence[float]) -> numpy.ndarray:
    """p-values corrected for being several, so that a family holds a false alarm below a level at that rate at most.

    The smallest of M is multiplied by M, the next by M - 1, and so on, each at least the one before, none above 1.
    Valid however the tests depend on each other. Holm, "A simple sequentially rejective multiple test procedure",
    Scandinavian Journal of Statistics 6, 1979.

    Args:
        p: (M,) p-values of one family; NaN is no test, stays NaN and counts for nothing.

    Returns:
        (M,) corrected p-values in the order of `p`.
    """
    corrected = numpy.array(p, dtype=numpy.float64)
    order = numpy.argsort(corrected)[: int((~numpy.isnan(corrected)).sum())]
    steps = corrected[order] * numpy.arange(len(order), 0, -1)
    corrected[order] = numpy.minimum(numpy.maximum.accumulate(steps), 1.0)
    return corrected


def verdict(
    *,
    difference: float,
    lower: float,
    upper: float,
    p: float,
    level: float,
    word: str = "milder",
    less_is_better: bool = True,
) -> str:
    """What a comparison of A with B shows, in words: 'A milder', 'B milder' or 'no difference shown', never 'equal'.

    A difference is shown where the corrected p is below 1 - level and the interval leaves out 0; a value that does not
    exist (NaN) shows none.

    Args:
        difference: A minus B. lower, upper: its interval at `level`.
        p: corrected for all comparisons of the table.
        word: what the better one is called. less_is_better: whether that is the smaller one.
    """
    if p < round(1 - level, 12) and (lower > 0 or upper < 0):  # 1 - 0.95 is a little more than 0.05.
        return f"{'A' if (difference < 0) == less_is_better else 'B'} {word}"
    return NONE_SHOWN


def is_shown(verdict: str) -> bool:
    """Whether a verdict says that A or B is better."""
    return verdict.startswith(("A ", "B "))
