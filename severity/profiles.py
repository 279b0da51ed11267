"""What severity looks like within a cell: over its images, over their batches, and over labels against AUROC."""

from collections.abc import Callable

import numpy
import pandas

from severity import correlations, metrics, resampling, scores, statistics
from severity.predictions import Predictions
from severity.resampling import Settings
from severity.runs import Run
from severity.scores import Scores

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
# How the correlation of AUROC and severity is read.
LOW_SEVERE, HIGH_SEVERE, NO_RELATION = "low AUROC, high severity", "high AUROC, high severity", "no relation shown"


def distribution(found: Scores, cost: numpy.ndarray, settings: Settings, *, batch_size: int) -> pandas.DataFrame:
    """Severity over the images of each cell under each rule: mean with its interval, median, skewness, batches.

    mean, lower and upper are of the means over seeds of each image; right is the share of right decisions over all seeds;
    seed_* the means of the single seeds; everything else the median over seeds. batch_mean_sd_by_chance: the standard deviation that batch means would have if the images came in
    random order, that of the images over the root of the batch size.
    """
    cells = {cell: list(seeds.values()) for cell, seeds in found.cells.items()}
    sides = [(of_cell, rule) for of_cell in cells.values() if of_cell for rule in range(len(found.rules))]
    certain = resampling.estimate(found.ratio(scores.SEVERITY, sides), settings=settings)
    estimates = iter(zip(*certain, strict=True))
    rows = []
    for (backbone, loss), of_cell in cells.items():
        for rule, name in enumerate(found.rules):
            row = {"backbone": backbone, "loss": loss, "rule": name, "seeds": len(of_cell)}
            row |= {"note": {0: "no run", 1: "one seed"}.get(len(of_cell), "")}
            if of_cell:
                each = [_describe(found.severity[run, rule], cost, batch_size) for run in of_cell]
                row |= {key: statistics.over_seeds([one[key] for one in each])["median"] for key in each[0]}
                row |= dict(zip(("mean", "lower", "upper"), next(estimates), strict=True))
                row |= statistics.spread(found.severity[of_cell, rule].mean(axis=1))
                row |= {"images": len(found.truth), "patients": found.patients}
                row["right"] = 1 - found.values["top1_error"][of_cell, rule].mean()
            rows.append(row)
    return pandas.DataFrame(rows, columns=DISTRIBUTION)


def _describe(severity: numpy.ndarray, cost: numpy.ndarray, batch_size: int) -> dict[str, float | None]:
    described = metrics.describe(severity, largest=float(cost.max()))
    batches = metrics.batches(severity, size=batch_size)
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


def correlation(
    found: Scores, read: Callable[[Run], Predictions | None], settings: Settings, *, most_labels: int
) -> pandas.DataFrame:
    """Spearman's correlation, over the labels, of AUROC and severity where the label is true, in each cell under each rule.

    Both are means over the seeds. Up to `most_labels` labels, patients are resampled and every AUROC and severity computed
    anew; then the labels are taken as given, and one that a resample lacks is left out of it. Above, labels are resampled.
    Kendall's tau-b stands beside as a check.
    """
    if len(found.classes) <= most_labels:
        drawn, units = _draw_patients(found, read, settings)
    else:
        drawn, units = None, None
    images = found.truth.sum(axis=0)
    rows = []
    for (backbone, loss), seeds in found.cells.items():
        of_cell = list(seeds.values())
        for rule, name in enumerate(found.rules):
            row = {"backbone": backbone, "loss": loss, "rule": name, "seeds": len(seeds)}
            if of_cell:
                severity = found.severity[of_cell, rule].mean(axis=0) @ found.truth
                severity = numpy.where(images > 0, severity / numpy.maximum(images, 1), numpy.nan)
                auroc = found.auroc[of_cell].mean(axis=0)
                known = ~numpy.isnan(auroc + severity)
                again = drawn(of_cell, rule) if drawn else _draw_labels(auroc[known], severity[known], settings)
                row |= _correlate(auroc, severity, again, units or int(known.sum()), settings)
                row["left_out"] = ", ".join(numpy.array(found.classes)[~known])
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


def _draw_patients(
    found: Scores, read: Callable[[Run], Predictions | None], settings: Settings
) -> tuple[Callable[[list[int], int], tuple[numpy.ndarray, numpy.ndarray]], int]:
    """How to draw AUROC and severity of each label, (R, L) each, for some runs and a rule; and of how many patients."""
    aurocs, times = [], None
    for run in found.runs:
        test = read(run).part("test")
        names, patient = numpy.unique(test.patients, return_inverse=True)
        if times is None:
            times = resampling.resample(patients=len(names), settings=settings)
        aurocs.append(correlations.auroc_draws(scores=test.marginal, truth=test.truth, patient=patient, times=times))
    patient = patient[metrics.has_truth(test.truth == 1)]

    def of_labels(values: numpy.ndarray) -> numpy.ndarray:
        return resampling.per_patient(values.T, patient=patient, patients=len(names))

    def drawn(chosen: list[int], rule: int) -> tuple[numpy.ndarray, numpy.ndarray]:
        severity = found.severity[chosen, rule].mean(axis=0)
        sums = resampling.Ratios(of_labels(severity[:, None] * found.truth), of_labels(found.truth))
        return numpy.mean([aurocs[run] for run in chosen], axis=0), resampling.draws(sums, times=times).each

    return drawn, len(names)
