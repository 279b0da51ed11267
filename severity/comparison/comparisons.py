"""What is milder than what: rules, losses and backbones, image by image, and labels within a configuration.

Every comparison is of A with B on the same images, and answers one of two questions, which are never mixed:

*these networks*: given the networks as they were trained, would other patients show the same? Rules within a
configuration, over all images and on those with a label; what `resampling` says.
*these methods*: would training again show the same as well? Losses and backbones; what `methods` says. The answer to the
first question stands beside it, in columns named networks_*, of the means over the seeds that both sides have.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import combinations
from typing import Any

import numpy
import pandas
import scipy.stats

from severity.comparison import methods, profiles, resampling, scores
from severity.comparison.resampling import Settings
from severity.comparison.scores import Scores
from severity.core.errors import SeverityError, nearest
from severity.core.hierarchy import Hierarchy
from severity.core.runs import Run
from severity.metrics import catalogue
from severity.predictions.predictions import Predictions
from severity.summary import statistics

# The columns of a comparison of rules, after those that say where it is made.
COLUMNS = (
    *("A", "B", "metric", "images", "patients", "seeds", "value_A", "value_B", "difference", "lower", "upper"),
    *("percent", "effect_size", "p", "p_holm", "verdict", "seed_min", "seed_median", "seed_max", "unmatched_seeds"),
    "note",
)
# The columns of a comparison of losses or backbones. seeds: those that both sides have; standard errors: of the patients'
# and of the seeds' part.
BETWEEN = (
    *("A", "B", "metric", "images", "patients", "seeds_A", "seeds_B", "value_A", "value_B", "difference", "lower"),
    *(
        "upper",
        "percent",
        "p",
        "p_holm",
        "verdict",
        "error_of_patients",
        "error_of_seeds",
        "degrees_of_freedom",
        "seeds",
    ),
    *("unmatched_seeds", "networks_difference", "networks_lower", "networks_upper", "networks_p", "networks_p_holm"),
    *("networks_verdict", "note"),
)
WORDS = (
    "backbone",
    "loss",
    "rule",
    "label",
    "A",
    "B",
    "metric",
    "verdict",
    "networks_verdict",
    "unmatched_seeds",
    "note",
)
# Verdicts where nothing can be shown, whatever the difference.
FEW_SEEDS = "not shown: too few seeds"
FEW_DIFFER = "not shown: too few patients differ"
# Why a side may be shown to be milder per mistake, and hd@1 not show it to be milder.
APART = "hd@1 does not show it: more, easier mistakes make the mean mistake milder"
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
        correlation_labels: up to this many labels AUROCs are resampled, for their intervals and comparisons; above, they
            have none.

    Returns:
        tables: rules (each rule against the baseline, in each configuration) and labels (severity where a label is true,
        likewise), with `COLUMNS`; losses (same backbone and rule) and backbones (same loss and rule), with `BETWEEN`;
        correlation (AUROC against severity over the labels of a configuration), distribution (severity
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
        "losses": between(scored, "loss", drawn, settings),
        "backbones": between(scored, "backbone", drawn, settings),
        "labels": by_label(scored, base, settings),
        "correlation": profiles.correlation(scored),
        "distribution": profiles.distribution(scored, cost, settings, batch_size=batch_size),
        "intervals": profiles.intervals(scored, drawn, settings),
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

    def masked(self, scored: Scores, images: numpy.ndarray | slice = slice(None)) -> str:
        """How many decisions of each side nobody can call right or wrong, in words; '' where there are none."""
        counts = [scored.masked(runs, rule, images) if runs else 0.0 for runs, rule in self.whole]
        each = ", ".join(f"{count:.4g} of {name}" for name, count in zip("AB", counts, strict=True))
        return f"without decisions whose truth is masked: {each}" if any(counts) else ""

    @property
    def whole(self) -> list[tuple[list[int], int]]:
        """All runs, and the rule, of A and of B."""
        return [(list(runs.values()), rule) for runs, rule in zip(self.seeds, self.rules, strict=True)]

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
    """A table of comparisons of these networks: a row for each pair and metric, over all images."""
    tested = [pair for pair in pairs if pair.matched]
    results = {}
    metrics = [metric.name for metric in catalogue.compared_by_image()]
    for metric in metrics if tested else ():
        a, b = (scored.ratio(metric, [pair.sides[side] for pair in tested]) for side in (0, 1))
        results[metric] = _columns(resampling.compare(a=a, b=b, settings=settings))
    rows = []
    for pair in pairs:
        for metric in metrics:
            row = pair.described | {"metric": metric, "masked": pair.masked(scored)}
            if pair.matched:
                alone = [scored.ratio(metric, [([run], rule) for run in runs]).whole for runs, rule in pair.sides]
                row |= {"images": len(scored.truth), "patients": scored.patients} | statistics.spread(
                    alone[0] - alone[1]
                )
                row |= results[metric][tested.index(pair)]
            rows.append(row)
    return _judged(_noted(rows, settings), [*keys, *COLUMNS], settings.level)


def between(scored: Scores, axis: str, drawn: profiles.Draw | None, settings: Settings) -> pandas.DataFrame:
    """A table of comparisons of methods, losses or backbones: a row for each pair, rule and metric.

    Metrics that no decision rule changes have one row a pair, with `catalogue.EVERY_RULE`.

    Args:
        drawn: how to resample AUROCs; None leaves what needs it out.
    """
    other = {"loss": "backbone", "backbone": "loss"}[axis]
    pairs = list(_axis_pairs(scored, axis))
    rows = _methods_by_image(scored, pairs, settings)
    for metric in catalogue.compared_by_run():
        rows += _methods_by_run(scored, [pair for pair in pairs if pair.rules == (0, 0)], metric.name, drawn, settings)
    # Pairs in their order, the metrics of each beside one another.
    order = {key: place for place, key in enumerate(dict.fromkeys(row[other] for row in rows))}
    rows.sort(key=lambda row: order[row[other]])
    columns = [other, "rule", *BETWEEN]
    return _judged(_noted(rows, settings), columns, settings.level)


def _methods_by_image(scored: Scores, pairs: Sequence[Pair], settings: Settings) -> list[dict[str, Any]]:
    """Rows of metrics that are one sum over images by another."""
    places = list(dict.fromkeys((tuple(runs), rule) for pair in pairs for runs, rule in pair.whole if runs))
    times = resampling.resample(patients=scored.patients, settings=settings)
    tested = [pair for pair in pairs if pair.matched]
    metrics = [metric.name for metric in catalogue.compared_by_image()]
    of_methods, of_networks = {}, {}
    for metric in metrics if places else ():
        known = methods.sides(scored, metric, places, times=times)
        of_methods[metric] = dict(zip(places, known, strict=True))
        if tested:
            a, b = (scored.ratio(metric, [pair.sides[side] for pair in tested]) for side in (0, 1))
            compared_ones = _columns(resampling.compare(a=a, b=b, settings=settings))
            of_networks[metric] = dict(zip(map(id, tested), compared_ones, strict=True))
    rows = []
    for pair in pairs:
        for metric in metrics:
            row = _between_row(pair, metric) | {"images": len(scored.truth), "patients": scored.patients}
            row["masked"] = pair.masked(scored)
            a, b = (of_methods[metric].get((tuple(runs), rule)) for runs, rule in pair.whole)
            row |= _methods_columns(a, b, settings)
            if pair.matched:
                row |= _networks_columns(of_networks[metric][id(pair)])
            rows.append(row)
    return rows


def _methods_by_run(
    scored: Scores, pairs: Sequence[Pair], metric: str, drawn: profiles.Draw | None, settings: Settings
) -> list[dict[str, Any]]:
    """Rows of the macro-AUROC."""
    rows = []
    for pair in pairs:
        row = _between_row(pair, metric) | {"rule": catalogue.EVERY_RULE}
        runs = [members for members, _ in pair.whole]
        if drawn is None:
            values = [scored.macro_auroc(each).mean() if each else numpy.nan for each in runs]
            row |= dict(zip(("value_A", "value_B"), values, strict=True)) | {"difference": values[0] - values[1]}
            row["not_resampled"] = True
        else:
            row |= {"images": drawn.images, "patients": drawn.patients}
            row |= _methods_columns(*(drawn.side(scored, each) if each else None for each in runs), settings)
            if pair.matched:
                row |= _networks_by_draws(*(drawn.side(scored, members) for members, _ in pair.sides), settings)
        rows.append(row)
    return rows


def _between_row(pair: Pair, metric: str) -> dict[str, Any]:
    counts = {f"seeds_{name}": len(seeds) for name, seeds in zip("AB", pair.seeds, strict=True)}
    return pair.described | counts | {"metric": metric}


def _methods_columns(a: methods.Side | None, b: methods.Side | None, settings: Settings) -> dict[str, Any]:
    """What `methods.difference` says, by the names of the columns; the values alone where a side has no run."""
    row = {f"value_{name}": side.value for name, side in zip("AB", (a, b), strict=True) if side}
    if a is None or b is None:
        return row
    result = methods.difference(a, b, level=settings.level)
    return row | {
        "difference": result.difference,
        "lower": result.lower,
        "upper": result.upper,
        "percent": 100 * result.difference / b.value if b.value else numpy.nan,
        "p": result.p,
        "error_of_patients": result.of_patients,
        "error_of_seeds": result.of_seeds,
        "degrees_of_freedom": result.freedom,
        "undefined": result.undefined,
    }


def _networks_columns(result: dict[str, Any]) -> dict[str, Any]:
    kept = {f"networks_{name}": result[name] for name in ("difference", "lower", "upper", "p")}
    return kept | {"differing": result["differing"]}


def _networks_by_draws(a: methods.Side, b: methods.Side, settings: Settings) -> dict[str, Any]:
    """The answer for these networks where patients are resampled but not swapped; p from the resamples' standard error."""
    drawn = (a.whole - b.whole)[:, None]
    difference = a.value - b.value
    (lower,), (upper,) = resampling.interval(drawn, clusters=a.patients, level=settings.level)
    (variance,) = resampling.variance(drawn, clusters=a.patients)
    p = 2 * scipy.stats.t.sf(abs(difference) / numpy.sqrt(variance), a.patients - 1) if variance > 0 else numpy.nan
    if difference == 0 and not numpy.isnan(variance):
        p = 1.0
    return {"networks_difference": difference, "networks_lower": lower, "networks_upper": upper, "networks_p": p}


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
        each = [(scored.severity[runs, rule], scored.determined[runs, rule]) for runs, rule in pair.sides]  # (seeds, N)
        for column, label in enumerate(scored.classes):
            images = rows_of[column]
            row = pair.described | {"label": label, "metric": "severity", "images": len(images)}
            row["masked"] = pair.masked(scored, images)
            row |= {"patients": patients[column], "share_of_images": part[:, column].mean()}
            if pair.matched:
                row["auroc"] = scored.auroc[pair.sides[0][0], column].mean()
                for name, (severity, _) in zip("AB", each, strict=True):
                    mean = severity.mean(axis=0)
                    row[f"share_of_severity_{name}"] = mean @ part[:, column] / mean.sum() if mean.any() else numpy.nan
            if pair.matched and len(images):
                alone = [
                    resampling.divide(severity[:, images].sum(axis=1), count[:, images].sum(axis=1))
                    for severity, count in each
                ]
                row |= statistics.spread(alone[0] - alone[1])
                row |= results[column][tested.index(pair)]
            rows.append(row)
    keys = ["backbone", "loss", "label"]
    return _judged(_noted(rows, settings), [*keys, *COLUMNS, *SHARES], settings.level)


def _severity_on(
    scored: Scores, pairs: Sequence[Pair], images: numpy.ndarray, settings: Settings
) -> resampling.Compared:
    """The comparison of mean severities over some images, of the patients who have them."""
    names, patient = numpy.unique(scored.patient[images], return_inverse=True)
    sides = []
    for side in (0, 1):
        means = [scored.mean_severity(*pair.sides[side]) for pair in pairs]
        sums = (
            resampling.per_patient(each[:, images], patient=patient, patients=len(names))
            for each in numpy.array(means).reshape(len(pairs), 2, scored.truth.shape[0]).swapaxes(0, 1)
        )
        sides.append(resampling.Ratios(*sums))
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
            "differing": int(differing),
        }
        for a, b, difference, lower, upper, p, effect, undefined, differing in zip(
            *(getattr(result, field.name) for field in fields(result)), strict=True
        )
    ]


def _noted(rows: Sequence[dict[str, Any]], settings: Settings) -> list[dict[str, Any]]:
    """The rows with what keeps each from saying more, in words."""
    return [row | {"note": "; ".join(_notes(row, settings))} for row in rows]


def _notes(row: dict[str, Any], settings: Settings) -> Iterator[str]:
    """The notes of a row, but `APART`, which follows from its verdict."""
    of_methods = "seeds_A" in row
    if of_methods and not (row["seeds_A"] and row["seeds_B"]):
        yield "no run of " + " and ".join(name for name in "AB" if not row[f"seeds_{name}"])
        return
    if not of_methods and not row["seeds"]:
        yield "no run"
        return
    if not row.get("images", 1):
        yield "no image with this label"
        return
    if row.get("masked"):
        yield row["masked"]
    missing = [name for name in "AB" if numpy.isnan(row[f"value_{name}"])]
    if missing and row["metric"] in {metric.name for metric in catalogue.compared_by_run()}:
        yield "no label has an AUROC"
    else:
        what = (
            "makes no mistake" if row["metric"] == "mistake_severity" else "decides for no label whose truth is known"
        )
        yield from (f"{name} {what}" for name in missing)
    if row.get("not_resampled"):
        yield "no interval: more labels than compare.correlation_labels"
    elif row["patients"] < resampling.FEWEST_PATIENTS:
        yield profiles.few_patients(row["patients"])
    elif not missing and row["undefined"]:
        yield f"no interval: {row['undefined']} resamples have no mistake on one side"
    elif not missing and numpy.isnan(row.get("networks_lower" if of_methods else "lower", 0.0)):
        yield f"as these networks {resampling.ALIKE}" if of_methods else resampling.ALIKE
    if hopeless(row, settings):
        differing = row["differing"]
        yield f"{differing or 'no'} {'patient differs' if differing < 2 else 'patients differ'}: no p below {_alpha(settings)} is possible"
    if of_methods and min(row["seeds_A"], row["seeds_B"]) < methods.FEWEST_SEEDS:
        yield f"fewer than {methods.FEWEST_SEEDS} seeds on a side"
    if of_methods and not row["seeds"]:
        yield "no seed in common, nothing about these networks"
    if row["seeds"] == 1:
        yield "one seed" if not of_methods else "one seed in common"


def hopeless(row: dict[str, Any], settings: Settings) -> bool:
    """Whether so few patients differ that no p of swapping them is below 1 - level."""
    return "differing" in row and resampling.least_p(row["differing"]) >= _alpha(settings)


def _alpha(settings: Settings) -> float:
    return round(1 - settings.level, 12)


def _judged(rows: Sequence[dict[str, Any]], columns: Sequence[str], level: float) -> pandas.DataFrame:
    """The table of `rows` with corrected p and verdict. A family is the comparisons of one table in one metric."""
    table = pandas.DataFrame(rows, columns=list(dict.fromkeys([*columns, "differing"])))
    numbers = [column for column in table if column not in WORDS]
    table = table.astype(dict.fromkeys(numbers, "float64"))
    table = table.astype({name: int for name in ("seeds", "seeds_A", "seeds_B") if name in table})
    # Sums in another order differ in their last digits, and an interval's end that is 0 but for these must not leave out 0.
    sums = [f"{prefix}{name}" for prefix in ("", "networks_") for name in ("difference", "lower", "upper")]
    sums = [name for name in [*sums, "seed_min", "seed_median", "seed_max"] if name in table]
    table[sums] = table[sums].round(resampling.DECIMALS) + 0.0  # no -0
    for relative in {"percent", "effect_size"} & set(table):
        table[relative] = table[relative].where(table["difference"].ne(0) | table[relative].isna(), 0.0)
    few = resampling.least_p(table["differing"]) >= round(1 - level, 12)
    for prefix in ("", "networks_") if "networks_p" in table else ("",):
        table[f"{prefix}p_holm"] = table.groupby("metric")[f"{prefix}p"].transform(statistics.holm)
        verdicts = [
            statistics.verdict(difference=difference, lower=lower, upper=upper, p=p, level=level, **_better(metric))
            for metric, difference, lower, upper, p in zip(
                table["metric"],
                *(table[f"{prefix}{name}"] for name in ("difference", "lower", "upper", "p_holm")),
                strict=True,
            )
        ]
        table[f"{prefix}verdict"] = pandas.Series(verdicts, index=table.index, dtype=object)
        if prefix or "networks_p" not in table:
            table.loc[few, f"{prefix}verdict"] = FEW_DIFFER
        else:
            table.loc[table[["seeds_A", "seeds_B"]].min(axis=1) < methods.FEWEST_SEEDS, "verdict"] = FEW_SEEDS
    if "note" in columns:
        for column, words in (("verdict", APART), ("networks_verdict", f"as these networks {APART}")):
            if column in columns:
                noted = table["note"].where(table["note"] == "", table["note"] + "; ") + words
                table["note"] = table["note"].mask(apart(table, column), noted)
    return table[list(columns)]


def apart(table: pandas.DataFrame, column: str) -> pandas.Series:
    """The rows of mistake severity in which a side is shown to be milder, while hd@1 does not show it for the same pair.

    Args:
        table: of comparisons. column: of it that has the verdicts.

    Returns:
        a bool for each row of the table.
    """
    pairs = [name for name in ("backbone", "loss", "rule", "A", "B") if name in table]
    side = table[column].str.extract("^([AB]) ", expand=False)
    of_metric = table["metric"] == "mistake_severity"
    distance = table[pairs].assign(side=side)[table["metric"] == scores.SEVERITY]
    beside = table[pairs].merge(distance, on=pairs, how="left")["side"].set_axis(table.index)
    return of_metric & side.notna() & (side != beside)


def _better(metric: str) -> dict[str, Any]:
    """What the better side is called in a metric, and which that is; the severity of labels is not in the catalogue."""
    known = {each.name: each for each in catalogue.compared()}
    return {"word": known[metric].milder, "less_is_better": known[metric].better == "less"} if metric in known else {}
