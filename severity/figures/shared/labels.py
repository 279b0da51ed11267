"""What figures with a row for each label share."""

import math
from collections.abc import Mapping, Sequence

import pandas

from severity.summary import statistics

SEED = {"marker": ".", "markersize": 5, "linestyle": "none", "markeredgewidth": 0}


def label_order(records: Sequence[Mapping]) -> list[str]:
    """The labels in the order of all figures: most severe under the first rule first, those without severity last."""
    first = next(iter(records[0]["rules"]))
    severity = pandas.Series(
        {
            label: spread("", [each["rules"][first]["labels"][label]["severity"] for each in records])[""]
            for label in records[0]["labels"]
        },
        dtype=float,
    )
    return severity.sort_values(ascending=False, kind="stable", na_position="last").index.tolist()


def how_many(shown: int, labels: int) -> str:
    """In words how many of the labels are shown."""
    rest = labels - shown
    return f"all {labels} labels" if not rest else f"the {shown} most severe labels, {rest:,} of {labels:,} left out"


def spread(name: str, values: Sequence[float | None]) -> dict[str, float]:
    """Median, min and max over runs as three columns, NaN where a run has no value."""
    over_seeds = statistics.over_seeds(values)
    columns = {name: over_seeds["median"], f"{name}_min": over_seeds["min"], f"{name}_max": over_seeds["max"]}
    return {column: math.nan if value is None else value for column, value in columns.items()}
