"""Severity within a configuration: over images and batches, of each label, and over labels against AUROC."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy
import pandas

from severity.comparison import correlations, resampling, scores
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
CORRELATION = (
    *("backbone", "loss", "rule", "labels", "seeds", "spearman", "lower", "upper", "kendall", "resampled", "reading"),
    *("left_out", "note"),
)
INTERVALS = ("backbone", "loss", "rule", "metric", "images", "patients", "seeds", "value", "lower", "upper", "note")
LABEL_INTERVALS = (
    *("backbone", "loss", "rule", "label", "images", "patients", "seeds", "severity", "severity_lower"),
    *("severity_upper", "auroc", "auroc_lower", "auroc_upper", "note"),
)
# How the correlation of AUROC and severity is read.
LOW_SEVERE, HIGH_SEVERE, NO_RELATION = "low AUROC, high severity", "high AUROC, high severity", "no relation shown"


@dataclass(frozen=True)
class Draw:
    """AUROC and severity of each label in every resample of the patients.

    scored: the scores. aurocs: (G, R, L). patient: (N,) the patient of each image of `scored`, from 0. patients: how
    many. times: (R, patients) how often each is drawn.
    """

    scored: Scores
    aurocs: numpy.ndarray
    patient: numpy.ndarray
    patients: int
    times: numpy.ndarray

    def of(self, chosen: list[int], rule: int) -> tuple[numpy.ndarray, numpy.ndarray]:
        """AUROC and severity of the labels, (R, L) each, means over some runs; the severity under a rule."""
        truth = self.scored.truth
        severity = self.scored.severity[chosen, rule].mean(axis=0)
        sums = resampling.Ratios(self._of_labels(severity[:, None] * truth), self._of_labels(truth))
        return numpy.mean(self.aurocs[chosen], axis=0), resampling.draws(sums, times=self.times).each

    def _of_labels(self, values: numpy.ndarray) -> numpy.ndarray:
        return resampling.per_patient(values.T, patient=self.patient, patients=self.patients)


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
    patient = patient[class_metrics.has_truth(test.truth == 1)]
    return Draw(scored, numpy.array(aurocs), patient, len(names), times)


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
                each = [_describe(scored.severity[run, rule], cost, batch_size) for run in members]
                row |= {key: statistics.over_seeds([one[key] for one in each])["median"] for key in each[0]}
                row |= dict(zip(("mean", "lower", "upper"), next(estimates), strict=True))
                row |= statistics.spread(scored.severity[members, rule].mean(axis=1))
                row |= {"images": len(scored.truth), "patients": scored.patients}
                row["right"] = 1 - scored.values["top1_error"][members, rule].mean()
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


def intervals(scored: Scores, settings: Settings) -> pandas.DataFrame:
    """Every compared metric of each configuration under each rule, of the means over its seeds, with its interval."""
    configurations = [
        (configuration, list(seeds.values()), rule)
        for configuration, seeds in scored.configurations.items()
        for rule in range(len(scored.rules))
    ]
    sides = [(members, rule) for _, members, rule in configurations if members]
    metrics = [metric.name for metric in catalogue.compared()]
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
                row |= dict(zip(("value", "lower", "upper"), next(certain[metric]), strict=True))
            rows.append(row | {"note": _interval_note(row)})
    return pandas.DataFrame(rows, columns=INTERVALS)


def _interval_note(row: dict[str, Any]) -> str:
    """What keeps a row from saying more, in words."""
    if not row["seeds"]:
        return "no run"
    notes = ["one patient"] if row["patients"] == 1 else []
    if numpy.isnan(row["value"]):
        notes.append("no mistake")
    elif numpy.isnan(row["lower"]) and not notes:
        notes.append("no interval: resamples without a mistake")
    if row["seeds"] == 1:
        notes.append("one seed")
    return "; ".join(notes)


def label_intervals(scored: Scores, drawn: Draw | None, settings: Settings) -> pandas.DataFrame:
    """Severity where a label is true, and the label's AUROC, of each configuration and rule, with their intervals.

    Both are means over the seeds. For the severity the patients with such an image are resampled, as for the comparison
    of labels; for the AUROC all patients, as for the correlation, and it has no interval where a resample lacks one
    kind of image.

    Args:
        drawn: how to resample AUROCs; None leaves their intervals out.
    """
    configurations = [
        (configuration, list(seeds.values()), rule)
        for configuration, seeds in scored.configurations.items()
        for rule in range(len(scored.rules))
    ]
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
                row |= dict(zip(("severity", "severity_lower", "severity_upper"), estimates[:, tested], strict=True))
                row |= dict(zip(("auroc", "auroc_lower", "auroc_upper"), aurocs[configuration][:, column], strict=True))
            rows.append(row | {"note": _label_note(row, several=drawn is not None)})
        tested += bool(members)
    return pandas.DataFrame(rows, columns=LABEL_INTERVALS)


def _label_severity(
    scored: Scores, sides: list[tuple[list[int], int]], column: int, settings: Settings
) -> tuple[int, numpy.ndarray]:
    """Number of patients with a label, and (3, M) its severity for M configurations and rules: value, lower, upper."""
    images = numpy.flatnonzero(scored.truth[:, column])
    if not len(images):
        return 0, numpy.full((3, len(sides)), numpy.nan)
    names, patient = numpy.unique(scored.patient[images], return_inverse=True)
    severity = numpy.array([scored.severity[members, rule][:, images].mean(axis=0) for members, rule in sides])
    above = resampling.per_patient(severity, patient=patient, patients=len(names))
    below = numpy.repeat(numpy.bincount(patient).astype(numpy.float64)[:, None], len(sides), axis=1)
    return len(names), numpy.array(resampling.estimate(resampling.Ratios(above, below), settings=settings))


def _label_auroc(scored: Scores, members: list[int], drawn: Draw | None, settings: Settings) -> numpy.ndarray:
    """(3, L) AUROC of the labels: value, lower, upper."""
    value = scored.auroc[members].mean(axis=0)
    if drawn is None:
        return numpy.array([value, *numpy.full((2, len(value)), numpy.nan)])
    again, _ = drawn.of(members, 0)
    return numpy.array([value, *resampling.interval(again, clusters=drawn.patients, level=settings.level)])


def _label_note(row: dict[str, Any], *, several: bool) -> str:
    """What keeps a row from saying more, in words."""
    if not row["seeds"]:
        return "no run"
    if not row["images"]:
        return "no image with this label"
    notes = ["one patient"] if row["patients"] == 1 else []
    if not several:
        notes.append("no interval of the AUROC: more labels than compare.correlation_labels")
    elif not numpy.isnan(row["auroc"]) and numpy.isnan(row["auroc_lower"]):
        notes.append("no interval of the AUROC: resamples lack one kind of image")
    if row["seeds"] == 1:
        notes.append("one seed")
    return "; ".join(notes)


def correlation(scored: Scores, drawn: Draw | None, settings: Settings) -> pandas.DataFrame:
    """Spearman's correlation, over the labels, of AUROC and severity where the label is true.

    One row a configuration and rule. Both are means over the seeds. Patients are resampled and every AUROC and severity
    computed again; then the labels are taken as given, and one that a resample lacks is left out of it. Kendall's tau-b
    is given as a check.

    Args:
        drawn: how to resample patients; None resamples labels instead.
    """
    images = scored.truth.sum(axis=0)
    rows = []
    for (backbone, loss), seeds in scored.configurations.items():
        members = list(seeds.values())
        for rule, name in enumerate(scored.rules):
            row = {"backbone": backbone, "loss": loss, "rule": name, "seeds": len(seeds)}
            if members:
                severity = scored.severity[members, rule].mean(axis=0) @ scored.truth
                severity = numpy.where(images > 0, severity / numpy.maximum(images, 1), numpy.nan)
                auroc = scored.auroc[members].mean(axis=0)
                known = ~numpy.isnan(auroc + severity)
                again = drawn.of(members, rule) if drawn else _draw_labels(auroc[known], severity[known], settings)
                row |= _correlate(auroc, severity, again, drawn.patients if drawn else int(known.sum()), settings)
                row["left_out"] = ", ".join(numpy.array(scored.classes)[~known])
                row["resampled"] = "patients" if drawn else "labels"
                row["note"] = "; ".join(each for each in (row["note"], "one seed" * (len(seeds) == 1)) if each)
            else:
                row |= {"reading": NO_RELATION, "note": "no run"}
            rows.append(row)
    return pandas.DataFrame(rows, columns=CORRELATION)


def _correlate(
    auroc: numpy.ndarray,
    severity: numpy.ndarray,
    again: tuple[numpy.ndarray, numpy.ndarray],
    units: int,
    settings: Settings,
) -> dict[str, float | int | str]:
    """The correlation of (L,) AUROCs and severities with its interval from both drawn `again`, (R, L), of `units`."""
    drawn = correlations.spearman(*again)
    (lower,), (upper,) = resampling.interval(drawn[:, None], clusters=units, level=settings.level)
    lacking = int(numpy.isnan(drawn).sum())
    return {
        "labels": int((~numpy.isnan(auroc + severity)).sum()),
        "spearman": correlations.spearman(auroc[None], severity[None])[0],
        "lower": lower,
        "upper": upper,
        "kendall": correlations.kendall(auroc, severity),
        "reading": LOW_SEVERE if upper < 0 else HIGH_SEVERE if lower > 0 else NO_RELATION,
        "note": f"no interval: nothing varies in {lacking} resamples" if lacking else "",
    }


def _draw_labels(
    auroc: numpy.ndarray, severity: numpy.ndarray, settings: Settings
) -> tuple[numpy.ndarray, numpy.ndarray]:
    """AUROC and severity of resampled labels, (R, L) each."""
    random = numpy.random.default_rng(settings.seed_for("labels"))
    chosen = random.integers(0, max(len(auroc), 1), (settings.resamples, len(auroc)))
    return auroc[chosen], severity[chosen]
