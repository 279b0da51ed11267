"""Which configuration has the best median of a column, and whether the comparisons confirm that."""

from collections.abc import Mapping
from dataclasses import dataclass

import pandas

from severity.metrics import catalogue

# Columns of which more is better; of all others less is.
MORE = tuple(metric.key for metric in catalogue.table() if metric.better == "more")
AXES = ("backbone", "loss", "rule")
# Which axis the two sides of a table of comparisons differ in.
COMPARED = {"rules": "rule", "losses": "loss", "backbones": "backbone"}


@dataclass(frozen=True)
class BestRow:
    """The row with the best median of a column.

    comparisons: how many comparisons there are of it with another row in this metric. open: the rows among them, in
    words, from which no difference in its favour is shown.
    """

    comparisons: int
    open: tuple[str, ...]

    @property
    def shown(self) -> bool:
        """Whether every row that it was compared with is shown to be worse."""
        return self.comparisons > 0 and not self.open

    @property
    def words(self) -> str:
        """The standing of the row in a sentence."""
        if not self.comparisons:
            return "Best median of the column; compared with no other row."
        if self.shown:
            return f"Best median of the column, and shown to be better in each of its {self.comparisons} comparisons."
        others = ", ".join(self.open)
        return (
            f"Best median of the column, but in {len(self.open)} of its {self.comparisons} comparisons no difference "
            f"in its favour is shown: {others}."
        )


def columns(table: pandas.DataFrame) -> dict[str, str]:
    """Key -> heading of the metrics that the table of configurations has, in its order."""
    return {metric.key: metric.heading for metric in catalogue.table() if metric.key in table}


def find(table: pandas.DataFrame, compared: Mapping[str, pandas.DataFrame]) -> dict[tuple[int, str], BestRow]:
    """The best row of each column that has one: (row number, key) -> BestRow. A tie has no best row, and no baseline is one.

    Args:
        table: one row a configuration and rule, as `configurations.whole_table` makes it.
        compared: the tables rules, losses and backbones that the stage `compare` wrote, by name; any may be missing.
    """
    best_rows = {}
    networks = table[table["backbone"] != catalogue.NO_IMAGE]
    for metric in catalogue.table():
        if metric.key not in table:
            continue
        key, values = metric.key, networks[metric.key].dropna()
        best = values.max() if metric.better == "more" else values.min()
        rows = values.index[values == best]
        if len(rows) == 1 and len(values) > 1:
            best_rows[int(rows[0]), key] = _best_row(table.loc[rows[0]], metric.name, compared)
    return best_rows


def _best_row(row: pandas.Series, metric: str, compared: Mapping[str, pandas.DataFrame]) -> BestRow:
    comparisons, unshown = 0, []
    for name, axis in COMPARED.items():
        if name not in compared:
            continue
        pairs = compared[name][compared[name]["metric"] == metric]
        for place in AXES:
            if place != axis:
                pairs = pairs[pairs[place].isin([row[place], catalogue.EVERY_RULE])]
        for side, other in (("A", "B"), ("B", "A")):
            for pair in pairs[pairs[side] == row[axis]].to_dict("records"):
                comparisons += 1
                if not pair["verdict"].startswith(f"{side} "):
                    unshown.append("-".join(pair[other] if place == axis else row[place] for place in AXES))
    return BestRow(comparisons, tuple(unshown))
