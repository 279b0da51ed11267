"""What is milder than what: rules, losses and backbones, image by image, and labels within a configuration.

Every comparison is of A with B on the same images; where a configuration has several seeds, of the means over the seeds
that both sides have. Beside it is what `resampling` says of it: interval, corrected p, effect, and the verdict in
words.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Any

import numpy
import pandas

from severity.comparison import profiles, resampling, scores
from severity.comparison.resampling import Settings
from severity.comparison.scores import Scores
from severity.core.errors import SeverityError, nearest
from severity.core.hierarchy import Hierarchy
from severity.core.runs import Run
from severity.metrics import catalogue
from severity.predictions.predictions import Predictions
from severity.summary import statistics

# The columns of every comparison, after those that say where it is made.
COLUMNS = (
    *("A", "B", "metric", "images", "patients", "seeds", "value_A", "value_B", "difference", "lower", "upper"),
    *("percent", "effect_size", "p", "p_holm", "verdict", "seed_min", "seed_median", "seed_max", "unmatched_seeds"),
    "note",
)
WORDS = ("backbone", "loss", "rule", "label", "A", "B", "metric", "verdict", "unmatched_seeds", "note")
# What the table of labels has besides.
SHARES = ("auroc", "share_of_images", "share_of_severity_A", "share_of_severity_B")


@dataclass(frozen=True)
class Study:
    """Everything that the stage `compare` writes.

    tables: by name (rules, losses, backbones, labels, correlation, distribution, intervals, label_intervals). scores:
    what they were made from. settings: how. baseline: the rule that the others are compared with.
    """

    tables: dict[str, pandas.DataFrame]
    scores: Scores
    settings: Settings
    baseline: str


def compare(
    read: Callable[[Run], Predictions | None],
    grid: Sequence[Run],
    hierarchy: Hierarchy,
    cost: numpy.ndarray,
    *,
    rules: Sequence[str],
    batch_size: int,
    resamples: int,
    permutations: int,
    level: float,
    baseline_rule: str,
    correlation_labels: int,
    seed: int,
) -> Study:
    """All comparisons of a study.

    Args:
        read, grid, hierarchy, cost, rules: as for `scores.collect`.
        batch_size: consecutive test images in a batch of the batch statistics.
        resamples, permutations, level, seed: see `resampling.Settings`.
        baseline_rule: the rule that every other is compared with; one of `rules`.
        correlation_labels: up to this many labels AUROCs are resampled, for their intervals and their correlation with
            severity; above, that correlation resamples labels.

    Returns:
        tables: rules (each rule against the baseline, in each configuration), losses (same backbone and rule),
        backbones (same loss and rule), labels (severity where a label is true, each rule against the baseline), all
        with `COLUMNS`; correlation (AUROC against severity over the labels of a configuration), distribution (severity
        over the images of a configuration), intervals (every metric of a configuration), label_intervals (severity and
        AUROC of each label of a configuration).

    Raises:
        SeverityError: the baseline is not among the rules, a number is out of range, or as `scores.collect`.
    """
    if baseline_rule not in rules:
        raise SeverityError(
            f"params.yaml: compare.baseline_rule is {baseline_rule!r}, which evaluate.rules does not name. "
            f"{nearest(baseline_rule, rules)}"
        )
    settings = Settings(resamples, permutations, level, seed)
    scored = scores.collect(read, grid, hierarchy, cost, rules=rules)
    if baseline_rule not in scored.rules:
        raise SeverityError(
            f"params.yaml: compare.baseline_rule is {baseline_rule!r}, but {', '.join(scored.left_out[baseline_rule])} cannot have "
            f"it for want of validation images. {nearest(baseline_rule, scored.rules)}"
        )
    base = scored.rules.index(baseline_rule)
    drawn = profiles.draw_patients(scored, read, settings) if len(scored.classes) <= correlation_labels else None
    tables = {
        "rules": compared(scored, list(_rule_pairs(scored, base)), settings, keys=["backbone", "loss"]),
        "losses": compared(scored, list(_axis_pairs(scored, "loss")), settings, keys=["backbone", "rule"]),
        "backbones": compared(scored, list(_axis_pairs(scored, "backbone")), settings, keys=["loss", "rule"]),
        "labels": by_label(scored, base, settings),
        "correlation": profiles.correlation(scored, drawn, settings),
        "distribution": profiles.distribution(scored, cost, settings, batch_size=batch_size),
        "intervals": profiles.intervals(scored, settings),
        "label_intervals": profiles.label_intervals(scored, drawn, settings),
    }
    return Study(tables, scored, settings, baseline_rule)


@dataclass(frozen=True)
class Pair:
    """A comparison of A with B: where it is made (keys), names, seed -> run of each side, rule of each side."""

    keys: dict[str, str]
    names: tuple[str, str]
    seeds: tuple[dict[int, int], dict[int, int]]
    rules: tuple[int, int]

    @property
    def matched(self) -> list[int]:
        """The seeds that both sides have."""
        return sorted(self.seeds[0].keys() & self.seeds[1].keys())

    @property
    def sides(self) -> list[tuple[list[int], int]]:
        """Runs of the matched seeds, and rule, of A and of B."""
        return [
            ([runs[seed] for seed in self.matched], rule) for runs, rule in zip(self.seeds, self.rules, strict=True)
        ]

    @property
    def described(self) -> dict[str, Any]:
        """The columns that are known before any image is looked at."""
        words = {"A": self.names[0], "B": self.names[1], "unmatched_seeds": self.unmatched}
        return self.keys | words | {"seeds": len(self.matched)}

    @property
    def unmatched(self) -> str:
        """The seeds that one side lacks, in words; '' where there are none."""
        extra = [sorted(self.seeds[side].keys() - self.seeds[1 - side].keys()) for side in (0, 1)]
        return "; ".join(f"{side}: {', '.join(map(str, each))}" for side, each in zip("AB", extra, strict=True) if each)


def _rule_pairs(scored: Scores, base: int) -> Iterator[Pair]:
    for (backbone, loss), seeds in scored.configurations.items():
        for rule, name in enumerate(scored.rules):
            if rule != base:
                keys = {"backbone": backbone, "loss": loss}
                yield Pair(keys, (name, scored.rules[base]), (seeds, seeds), (rule, base))


def _axis_pairs(scored: Scores, axis: str) -> Iterator[Pair]:
    """Later names of the axis against earlier ones, the rest being equal."""
    other = {"loss": "backbone", "backbone": "loss"}[axis]
    names = {each: list(dict.fromkeys(getattr(run, each) for run in scored.grid)) for each in (axis, other)}
    for fixed in names[other]:
        for rule, rule_name in enumerate(scored.rules):
            for b, a in combinations(names[axis], 2):
                configurations = [(fixed, each) if axis == "loss" else (each, fixed) for each in (a, b)]
                seeds = tuple(scored.configurations.get(configuration, {}) for configuration in configurations)
                yield Pair({other: fixed, "rule": rule_name}, (a, b), seeds, (rule, rule))


def compared(scored: Scores, pairs: Sequence[Pair], settings: Settings, *, keys: Sequence[str]) -> pandas.DataFrame:
    """A table of comparisons: a row for each pair and metric, over all images."""
    tested = [pair for pair in pairs if pair.matched]
    results = {}
    metrics = [metric.name for metric in catalogue.compared()]
    for metric in metrics if tested else ():
        a, b = (scored.ratio(metric, [pair.sides[side] for pair in tested]) for side in (0, 1))
        results[metric] = _columns(resampling.compare(a=a, b=b, settings=settings))
    rows = []
    for pair in pairs:
        for metric in metrics:
            row = pair.described | {"metric": metric}
            if pair.matched:
                alone = [scored.ratio(metric, [([run], rule) for run in runs]).whole for runs, rule in pair.sides]
                row |= {"images": len(scored.truth), "patients": scored.patients} | statistics.spread(
                    alone[0] - alone[1]
                )
                row |= results[metric][tested.index(pair)]
            rows.append(row | {"note": _note(row)})
    return _judged(rows, [*keys, *COLUMNS], settings.level)


def by_label(scored: Scores, base: int, settings: Settings) -> pandas.DataFrame:
    """Severity over the images on which a label is true, each rule against the baseline, in each configuration.

    Resampled and swapped are the patients with such an image. An image with several true labels counts for each. In the
    shares of all images and of all severity it is divided among them, so that the shares of all labels sum to one.
    """
    pairs = list(_rule_pairs(scored, base))
    tested = [pair for pair in pairs if pair.matched]
    rows_of = [numpy.flatnonzero(column) for column in scored.truth.T]
    patients = [len(set(scored.patient[rows])) for rows in rows_of]
    results = [_columns(_severity_on(scored, tested, rows, settings)) if len(rows) else [] for rows in rows_of]
    part = scored.truth / scored.truth.sum(axis=1, keepdims=True)
    rows = []
    for pair in pairs:
        each = [scored.severity[runs, rule] for runs, rule in pair.sides]  # (seeds, N)
        for column, label in enumerate(scored.classes):
            images = rows_of[column]
            row = pair.described | {"label": label, "metric": "severity", "images": len(images)}
            row |= {"patients": patients[column], "share_of_images": part[:, column].mean()}
            if pair.matched:
                row["auroc"] = scored.auroc[pair.sides[0][0], column].mean()
                for name, severity in zip("AB", each, strict=True):
                    mean = severity.mean(axis=0)
                    row[f"share_of_severity_{name}"] = mean @ part[:, column] / mean.sum() if mean.any() else numpy.nan
            if pair.matched and len(images):
                row |= statistics.spread(each[0][:, images].mean(axis=1) - each[1][:, images].mean(axis=1))
                row |= results[column][tested.index(pair)]
            rows.append(row | {"note": _note(row)})
    return _judged(rows, ["backbone", "loss", "label", *COLUMNS, *SHARES], settings.level)


def _severity_on(
    scored: Scores, pairs: Sequence[Pair], images: numpy.ndarray, settings: Settings
) -> resampling.Compared:
    """The comparison of mean severities over some images, of the patients who have them."""
    names, patient = numpy.unique(scored.patient[images], return_inverse=True)
    sides = []
    for side in (0, 1):
        severity = [
            scored.severity[runs, rule][:, images].mean(axis=0) for runs, rule in (pair.sides[side] for pair in pairs)
        ]
        above = resampling.per_patient(numpy.array(severity), patient=patient, patients=len(names))
        count = numpy.bincount(patient).astype(numpy.float64)
        sides.append(resampling.Ratios(above, numpy.repeat(count[:, None], len(pairs), axis=1)))
    return resampling.compare(a=sides[0], b=sides[1], settings=settings)


def _columns(result: resampling.Compared) -> list[dict[str, Any]]:
    """The result of each pair, by the names of the columns."""
    return [
        {
            "value_A": a,
            "value_B": b,
            "difference": difference,
            "lower": lower,
            "upper": upper,
            "percent": 100 * difference / b if b else numpy.nan,
            "effect_size": effect,
            "p": p,
            "undefined": int(undefined),
        }
        for a, b, difference, lower, upper, p, effect, undefined in zip(
            *(getattr(result, field.name) for field in fields(result)), strict=True
        )
    ]


def _note(row: dict[str, Any]) -> str:
    """What keeps a row from saying more, in words."""
    if not row["seeds"]:
        return "no seed in common"
    if not row["images"]:
        return "no image with this label"
    notes = [f"{name} makes no mistake" for name in "AB" if numpy.isnan(row[f"value_{name}"])]
    if not notes and row["undefined"]:
        notes.append(f"no interval: {row['undefined']} resamples have no mistake on one side")
    if row["patients"] == 1:
        notes.append("one patient")
    if row["seeds"] == 1:
        notes.append("one seed")
    return "; ".join(notes)


def _judged(rows: Sequence[dict[str, Any]], columns: Sequence[str], level: float) -> pandas.DataFrame:
    """The table of `rows` with corrected p and verdict. A family is the comparisons of one table in one metric."""
    table = pandas.DataFrame(rows, columns=columns)
    numbers = [column for column in columns if column not in WORDS]
    table = table.astype(dict.fromkeys(numbers, "float64")).astype({"seeds": int})
    table["p_holm"] = table.groupby("metric")["p"].transform(statistics.holm)
    table["verdict"] = [
        statistics.verdict(
            difference=row.difference,
            lower=row.lower,
            upper=row.upper,
            p=row.p_holm,
            level=level,
            **_better(row.metric),
        )
        for row in table.itertuples()
    ]
    return table


def _better(metric: str) -> dict[str, Any]:
    """What the better side is called in a metric, and which that is; the severity of labels is not in the catalogue."""
    known = {each.name: each for each in catalogue.compared()}
    return {"word": known[metric].milder, "less_is_better": known[metric].better == "less"} if metric in known else {}
