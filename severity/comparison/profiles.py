"""Severity within a configuration: over images and batches, of each label, and over labels against AUROC.

All intervals here are of these networks, as they were trained: what other patients would show.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy
import pandas

from severity.comparison import correlations, methods, resampling, scores
from severity.comparison.resampling import Settings
from severity.comparison.scores import Scores
from severity.core.runs import Run
from severity.metrics import catalogue, class_metrics
from severity.predictions.predictions import Predictions
from severity.summary import statistics

DISTRIBUTION = (
    *("backbone", "loss", "rule", "images", "patients", "seeds", "mean", "lower", "upper", "median", "lower_quartile"),
    *("upper_quartile", "skewness", "right", "seed_min", "seed_median", "seed_max", "batch_size", "batches"),
    *("batch_mean_min", "batch_mean_max", "batch_mean_sd", "batch_mean_sd_by_chance", "median_of_medians"),
    *("mean_of_medians", "note"),
)
CORRELATION = ("backbone", "loss", "rule", "labels", "seeds", "spearman", "kendall", "left_out", "note")
INTERVALS = ("backbone", "loss", "rule", "metric", "images", "patients", "seeds", "value", "lower", "upper", "note")
LABEL_INTERVALS = (
    *("backbone", "loss", "rule", "label", "images", "patients", "seeds", "severity", "severity_lower"),
    *("severity_upper", "auroc", "auroc_lower", "auroc_upper", "note"),
)


@dataclass(frozen=True)
class Draw:
    """The AUROC of each label in every resample of the patients of all test images.

    aurocs: (G, R, L), NaN where a resample lacks one kind of image of a label. images, patients: how many there are.
    rarer: (L,) how many patients have an image with the label, or one without it, whichever are fewer.
    """

    aurocs: numpy.ndarray
    images: int
    patients: int
    rarer: numpy.ndarray

    def labels(self, chosen: Sequence[int]) -> numpy.ndarray:
        """(R, L) the mean over some runs."""
        return self.aurocs[list(chosen)].mean(axis=0)

    def macro(self, chosen: Sequence[int]) -> numpy.ndarray:
        """(R, n) of n runs the mean over the labels that each resample has; NaN where it has none."""
        aurocs = self.aurocs[list(chosen)]
        known = ~numpy.isnan(aurocs)
        with numpy.errstate(invalid="ignore"):
            return (numpy.where(known, aurocs, 0).sum(axis=2) / known.sum(axis=2)).T

    def side(self, scored: Scores, chosen: Sequence[int]) -> methods.Side:
        """The macro-AUROC of some runs, to compare."""
        return methods.Side(scored.macro_auroc(chosen), self.macro(chosen), self.patients)


def few_patients(patients: float) -> str:
    """Why there is no interval, '' where there are patients enough."""
    return f"fewer than {resampling.FEWEST_PATIENTS} patients" if patients < resampling.FEWEST_PATIENTS else ""


def masked(scored: Scores, runs: Sequence[int], rule: int) -> str:
    """How many decisions nobody can call right or wrong, in words; '' where there are none."""
    count = scored.masked(runs, rule)
    return f"without {count:.4g} decision{'' if count == 1 else 's'} whose truth is masked" if count else ""


def draw_patients(scored: Scores, read: Callable[[Run], Predictions | None], settings: Settings) -> Draw:
    """Resample the patients of all test images, those without a true class too, which count for AUROC."""
    aurocs, times = [], None
    for run in scored.runs:
        test = read(run).part("test")
        names, patient = numpy.unique(test.patients, return_inverse=True)
        if times is None:
            times = resampling.resample(patients=len(names), settings=settings)
        aurocs.append(
            correlations.auroc_draws(scores=test.label_logits, truth=test.truth, patient=patient, times=times)
        )
    # Every run has the same images and truth (`scores.collect`).
    kinds = [[len(numpy.unique(patient[column == value])) for column in test.truth.T] for value in (0, 1)]
    return Draw(numpy.array(aurocs), len(test.ids), len(names), numpy.min(kinds, axis=0))


def distribution(scored: Scores, cost: numpy.ndarray, settings: Settings, *, batch_size: int) -> pandas.DataFrame:
    """Severity over the images of each configuration under each rule: mean, interval, median, skewness, batches.

    mean, lower and upper are of the means over seeds of each image; right is the share of right decisions over all
    seeds; seed_* the means of the single seeds; everything else the median over seeds. batch_mean_sd_by_chance: the
    standard deviation that batch means would have if the images came in random order, that of the images over the root
    of the batch size.
    """
    configurations = {configuration: list(seeds.values()) for configuration, seeds in scored.configurations.items()}
    sides = [(members, rule) for members in configurations.values() if members for rule in range(len(scored.rules))]
    certain = resampling.estimate(scored.ratio(scores.SEVERITY, sides), settings=settings)
    estimates = iter(zip(*certain, strict=True))
    rows = []
    for (backbone, loss), members in configurations.items():
        for rule, name in enumerate(scored.rules):
            row = {"backbone": backbone, "loss": loss, "rule": name, "seeds": len(members)}
            row |= {"note": {0: "no run", 1: "one seed"}.get(len(members), "")}
            if members:
                each = [
                    _describe(scored.severity[run, rule][scored.determined[run, rule]], cost, batch_size)
                    for run in members
                ]
                row |= {key: statistics.over_seeds([one[key] for one in each])["median"] for key in each[0]}
                row |= dict(zip(("mean", "lower", "upper", "undefined"), next(estimates), strict=True))
                count = scored.determined[members, rule]
                row |= statistics.spread(
                    resampling.divide(scored.severity[members, rule].sum(axis=1), count.sum(axis=1))
                )
                row |= {"images": len(scored.truth), "patients": scored.patients}
                few = few_patients(scored.patients)
                alike = resampling.ALIKE if numpy.isnan(row["lower"]) and not (few or row["undefined"]) else ""
                row["note"] = "; ".join(filter(None, (few, alike, masked(scored, members, rule), row["note"])))
                row["right"] = 1 - scored.values["top1_error"][members, rule].sum() / count.sum()
            rows.append(row)
    return pandas.DataFrame(rows, columns=DISTRIBUTION)


def _describe(severity: numpy.ndarray, cost: numpy.ndarray, batch_size: int) -> dict[str, float | None]:
    described = class_metrics.describe(severity, largest=float(cost.max()))
    batches = class_metrics.batches(severity, size=batch_size)
    full = batches["means"][: len(severity) // batch_size]
    several = len(full) > 1
    return {
        **{name: described[f"severity_{name}"] for name in ("median", "lower_quartile", "upper_quartile", "skewness")},
        "batch_size": batch_size,
        "batches": len(batches["means"]),
        "batch_mean_min": batches["mean_min"],
        "batch_mean_max": batches["mean_max"],
        "batch_mean_sd": float(numpy.std(full, ddof=1)) if several else None,
        "batch_mean_sd_by_chance": float(numpy.std(severity, ddof=1)) / batch_size**0.5 if several else None,
        "median_of_medians": batches["median_of_medians"],
        "mean_of_medians": batches["mean_of_medians"],
    }


def _sides(scored: Scores) -> list[tuple]:
    """Each configuration under each rule: the configuration, its runs, the place of the rule."""
    return [
        (configuration, list(seeds.values()), rule)
        for configuration, seeds in scored.configurations.items()
        for rule in range(len(scored.rules))
    ]


def intervals(scored: Scores, drawn: Draw | None, settings: Settings) -> pandas.DataFrame:
    """Every compared metric of each configuration under each rule, of the means over its seeds, with its interval.

    The interval is of these networks, over other patients. The macro-AUROC has one row a configuration.

    Args:
        drawn: how to resample AUROCs; None leaves their interval out.
    """
    configurations = _sides(scored)
    sides = [(members, rule) for _, members, rule in configurations if members]
    metrics = [metric.name for metric in catalogue.compared_by_image()]
    certain = {
        metric: iter(zip(*resampling.estimate(scored.ratio(metric, sides), settings=settings), strict=True))
        for metric in metrics
    }
    rows = []
    for (backbone, loss), members, rule in configurations:
        for metric in metrics:
            row = {"backbone": backbone, "loss": loss, "rule": scored.rules[rule], "metric": metric}
            row |= {"images": len(scored.truth), "patients": scored.patients, "seeds": len(members)}
            if members:
                row |= dict(zip(("value", "lower", "upper", "undefined"), next(certain[metric]), strict=True))
            notes = _interval_note(row), masked(scored, members, rule) if members else ""
            rows.append(row | {"note": "; ".join(filter(None, notes))})
    rows += [_macro_interval(scored, drawn, *each, settings) for each in scored.configurations.items()]
    return pandas.DataFrame(rows, columns=INTERVALS)


def _macro_interval(
    scored: Scores, drawn: Draw | None, configuration: tuple[str, str], seeds: dict[int, int], settings: Settings
) -> dict[str, Any]:
    """The row of a configuration's macro-AUROC."""
    row = dict(zip(("backbone", "loss"), configuration, strict=True))
    row |= {"rule": catalogue.EVERY_RULE, "metric": "macro_auroc", "seeds": len(seeds)}
    if not seeds:
        return row | {"note": "no run"}
    members = list(seeds.values())
    row["value"] = scored.macro_auroc(members).mean()
    notes = [] if drawn else ["no interval: more labels than compare.correlation_labels"]
    if drawn:
        (lower,), (upper,) = resampling.interval(
            drawn.macro(members).mean(axis=1, keepdims=True), clusters=drawn.patients, level=settings.level
        )
        row |= {"images": drawn.images, "patients": drawn.patients, "lower": lower, "upper": upper}
        notes += filter(None, [few_patients(drawn.patients)])
        if numpy.isnan(lower) and not notes and not numpy.isnan(row["value"]):
            undefined = numpy.isnan(drawn.macro(members)).any()
            notes.append("no interval: resamples without an AUROC" if undefined else resampling.ALIKE)
    if numpy.isnan(row["value"]):
        notes.append("no label has an AUROC")
    return row | {"note": "; ".join([*notes, *(["one seed"] if len(seeds) == 1 else [])])}


def _interval_note(row: dict[str, Any]) -> str:
    """What keeps a row from saying more, in words."""
    if not row["seeds"]:
        return "no run"
    notes = list(filter(None, [few_patients(row["patients"])]))
    if numpy.isnan(row["value"]):
        notes.append("no mistake")
    elif numpy.isnan(row["lower"]) and not notes:
        notes.append("no interval: resamples without a mistake" if row["undefined"] else resampling.ALIKE)
    if row["seeds"] == 1:
        notes.append("one seed")
    return "; ".join(notes)


def label_intervals(scored: Scores, drawn: Draw | None, settings: Settings) -> pandas.DataFrame:
    """Severity where a label is true, and the label's AUROC, of each configuration and rule, with their intervals.

    Both are means over the seeds. For the severity the patients with such an image are resampled, as for the comparison
    of labels; for the AUROC all patients. It has no interval where a resample lacks one kind of image, and none of both
    has one where fewer than `resampling.FEWEST_PATIENTS` patients have the label (for the AUROC also: have an image
    without it).

    Args:
        drawn: how to resample AUROCs; None leaves their intervals out.
    """
    configurations = _sides(scored)
    sides = [(members, rule) for _, members, rule in configurations if members]
    severities = [_label_severity(scored, sides, column, settings) for column in range(len(scored.classes))]
    rows, tested, aurocs = [], 0, {}
    for configuration, members, rule in configurations:
        if members and configuration not in aurocs:
            aurocs[configuration] = _label_auroc(scored, members, drawn, settings)
        for column, label in enumerate(scored.classes):
            row = dict(zip(("backbone", "loss"), configuration, strict=True)) | {
                "rule": scored.rules[rule],
                "label": label,
            }
            patients, estimates = severities[column]
            row |= {"images": int(scored.truth[:, column].sum()), "patients": patients, "seeds": len(members)}
            if members:
                row |= dict(zip(("severity", "severity_lower", "severity_upper"), estimates[:3, tested], strict=True))
                row |= dict(zip(("auroc", "auroc_lower", "auroc_upper"), aurocs[configuration][:, column], strict=True))
            rows.append(row | {"note": _label_note(row, drawn.rarer[column] if drawn else None)})
        tested += bool(members)
    return pandas.DataFrame(rows, columns=LABEL_INTERVALS)


def _label_severity(
    scored: Scores, sides: list[tuple[list[int], int]], column: int, settings: Settings
) -> tuple[int, numpy.ndarray]:
    """Number of patients with a label, and (4, M) its severity for M configurations and rules: as `resampling.estimate`."""
    images = numpy.flatnonzero(scored.truth[:, column])
    if not len(images):
        return 0, numpy.full((4, len(sides)), numpy.nan)
    names, patient = numpy.unique(scored.patient[images], return_inverse=True)
    above, below = (
        resampling.per_patient(numpy.array(each)[:, images], patient=patient, patients=len(names))
        for each in zip(*(scored.mean_severity(members, rule) for members, rule in sides), strict=True)
    )
    return len(names), numpy.array(resampling.estimate(resampling.Ratios(above, below), settings=settings))


def _label_auroc(scored: Scores, members: list[int], drawn: Draw | None, settings: Settings) -> numpy.ndarray:
    """(3, L) AUROC of the labels: value, lower, upper."""
    value = scored.auroc[members].mean(axis=0)
    if drawn is None:
        return numpy.array([value, *numpy.full((2, len(value)), numpy.nan)])
    bounds = numpy.array(resampling.interval(drawn.labels(members), clusters=drawn.patients, level=settings.level))
    bounds[:, drawn.rarer < resampling.FEWEST_PATIENTS] = numpy.nan
    return numpy.array([value, *bounds])


def _label_note(row: dict[str, Any], rarer: int | None) -> str:
    """What keeps a row from saying more, in words.

    Args:
        rarer: as in `Draw`; None where AUROCs are not resampled.
    """
    if not row["seeds"]:
        return "no run"
    if not row["images"]:
        return "no image with this label"
    notes = list(filter(None, [few_patients(row["patients"])]))
    if rarer is None:
        notes.append("no interval of the AUROC: more labels than compare.correlation_labels")
    elif rarer < resampling.FEWEST_PATIENTS and not notes:
        notes.append(
            f"no interval of the AUROC: fewer than {resampling.FEWEST_PATIENTS} patients with one kind of image"
        )
    elif not notes and not numpy.isnan(row["auroc"]) and numpy.isnan(row["auroc_lower"]):
        why = "alike in every resample" if row["auroc"] in (0, 1) else "resamples lack one kind of image"
        notes.append(f"no interval of the AUROC: {why}")
    if row["patients"] >= resampling.FEWEST_PATIENTS and numpy.isnan(row["severity_lower"]):
        notes.append(f"severity: {resampling.ALIKE}")
    if row["seeds"] == 1:
        notes.append("one seed")
    return "; ".join(notes)


def correlation(scored: Scores) -> pandas.DataFrame:
    """Spearman's and Kendall's correlation, over the labels, of AUROC and severity where the label is true.

    One row a configuration and rule; both are means over the seeds. They describe these labels and no more: neither
    patients nor labels are resampled, for of labels drawn at random many a study shows a relation that is none.
    """
    rows = []
    for (backbone, loss), seeds in scored.configurations.items():
        members = list(seeds.values())
        for rule, name in enumerate(scored.rules):
            row = {"backbone": backbone, "loss": loss, "rule": name, "seeds": len(seeds)}
            row |= {"note": {0: "no run", 1: "one seed"}.get(len(seeds), "")}
            if members:
                severity, count = (each @ scored.truth for each in scored.mean_severity(members, rule))
                severity = resampling.divide(severity, count)
                auroc = scored.auroc[members].mean(axis=0)
                known = ~numpy.isnan(auroc + severity)
                row |= {
                    "labels": int(known.sum()),
                    "spearman": correlations.spearman(auroc, severity),
                    "kendall": correlations.kendall(auroc, severity),
                    "left_out": ", ".join(numpy.array(scored.classes)[~known]),
                }
            rows.append(row)
    return pandas.DataFrame(rows, columns=CORRELATION)
