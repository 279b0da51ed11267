"""Medians over the seeds of a cell."""

from collections.abc import Sequence

import numpy


def over_seeds(values: Sequence[float | None]) -> dict[str, float | None]:
    """Median, min and max of one metric over the seeds of a cell.

    A true median: of an even number of values the mean of the middle two. If any seed lacks the metric (None), all
    three are None, for a median over the seeds that happen to have it would look better founded than it is.
    """
    if any(value is None for value in values):
        return {"median": None, "min": None, "max": None}
    return {"median": float(numpy.median(values)), "min": float(min(values)), "max": float(max(values))}
