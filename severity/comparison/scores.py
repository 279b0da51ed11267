"""Per-image scores of all runs of a study on the same test images, under every decision rule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy

from severity.arrays import discrimination
from severity.comparison import resampling
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.core.runs import Run
from severity.decisions import class_rules, temperature
from severity.metrics import class_metrics
from severity.predictions.predictions import Predictions

SEVERITY = "hierarchical_distance_at_1"
# The metrics that are compared, and the per-image numbers that they take.
METRICS = (SEVERITY, "hierarchical_distance_at_5", "top1_error", "mistake_severity")
PARTS = tuple(dict.fromkeys(part for metric in METRICS for part in class_metrics.RATIOS[metric] if part))


@dataclass(frozen=True)
class Scores:
    """G runs, U rules, N test images with a true class of P patients, L labels.

    runs: those with predictions; grid: all that were asked for. values: name in `PARTS` -> (G, U, N). truth: (N, L) bool.
    patient: (N,) from 0 to P - 1. auroc: (G, L) over all test images, NaN where a label has one kind of image only.
    without_truth: test images without a true class, left out. left_out: rules that some runs cannot have, for want of
    validation images, and the names of those runs; such a rule is in no comparison.
    """

    grid: tuple[Run, ...]
    runs: tuple[Run, ...]
    rules: tuple[str, ...]
    classes: tuple[str, ...]
    values: dict[str, numpy.ndarray]
    truth: numpy.ndarray
    patient: numpy.ndarray
    auroc: numpy.ndarray
    without_truth: int
    left_out: dict[str, tuple[str, ...]]

    @property
    def missing(self) -> tuple[Run, ...]:
        """The runs without predictions."""
        return tuple(run for run in self.grid if run not in self.runs)

    @property
    def patients(self) -> int:
        """P."""
        return int(self.patient.max()) + 1

    @property
    def severity(self) -> numpy.ndarray:
        """(G, U, N)"""
        return self.values[SEVERITY]

    @cached_property
    def configurations(self) -> dict[tuple[str, str], dict[int, int]]:
        """Backbone and loss -> seed -> number of the run; a configuration of the grid without any run is empty."""
        found: dict[tuple[str, str], dict[int, int]] = {(run.backbone, run.loss): {} for run in self.grid}
        for number, run in enumerate(self.runs):
            found[run.backbone, run.loss][run.seed] = number
        return found

    @cached_property
    def sums(self) -> dict[str | None, numpy.ndarray]:
        """Sums over the images of each patient: name in `PARTS` -> (P, G, U); None -> their number, (P, 1, 1)."""
        shape = (self.patients, len(self.runs), len(self.rules))
        images = numpy.bincount(self.patient, minlength=self.patients).astype(numpy.float64)
        found: dict[str | None, numpy.ndarray] = {None: images[:, None, None]}
        for name, values in self.values.items():
            flat = values.reshape(-1, values.shape[-1])
            found[name] = resampling.per_patient(flat, patient=self.patient, patients=self.patients).reshape(shape)
        return found

    def ratio(self, metric: str, sides: Sequence[tuple[Sequence[int], int]]) -> resampling.Ratios:
        """A metric of M sides, (P, M): of each the mean over its runs of what is summed, under its rule.

        Args:
            metric: a name in `metrics.RATIOS`. sides: numbers of runs, and of a rule.
        """
        above, below = (
            numpy.stack([self._side(name, runs, rule) for runs, rule in sides], axis=1)
            for name in class_metrics.RATIOS[metric]
        )
        return resampling.Ratios(above, below)

    def _side(self, name: str | None, runs: Sequence[int], rule: int) -> numpy.ndarray:
        sums = self.sums[name]
        return sums[:, 0, 0] if name is None else sums[:, list(runs), rule].mean(axis=1)


def collect(
    read: Callable[[Run], Predictions | None],
    grid: Sequence[Run],
    hierarchy: Hierarchy,
    cost: numpy.ndarray,
    *,
    rules: Sequence[str],
) -> Scores:
    """Score the test images of every run; one run's predictions are held at a time.

    Args:
        read: the predictions of a run, None where there are none.
        grid: the runs to read. cost: (K, K) cost[decision, truth].
        rules: names in `decisions.RULES`, with `_ts` appended: on temperature-scaled probabilities.

    Raises:
        SeverityError: no run has predictions, none of the test images has a true class, or two runs are of different
            test images or truths, so that they cannot be compared image by image.
    """
    first: Predictions | None = None
    runs, found, auroc = [], [], []
    left_out: dict[str, tuple[str, ...]] = {}
    for run in grid:
        predictions = read(run)
        if predictions is None:
            continue
        test = predictions.part("test")
        first = first or test
        _check_same(first, test)
        runs.append(run)
        for word in _unavailable(predictions, rules):
            left_out[word] = (*left_out.get(word, ()), run.name)
        found.append(_score(predictions, test, hierarchy, cost, [word for word in rules if word not in left_out]))
        auroc.append(_auroc(test, hierarchy))
    if first is None:
        raise SeverityError(f"None of the {len(grid)} runs of the grid has predictions. Run `dvc repro predict`.")
    kept = tuple(word for word in rules if word not in left_out)
    truth = first.truth == 1
    scored = class_metrics.has_truth(truth)
    _, patient = numpy.unique(first.patients[scored], return_inverse=True)
    return Scores(
        grid=tuple(grid),
        runs=tuple(runs),
        rules=kept,
        classes=hierarchy.classes,
        values={name: numpy.array([[of_run[word][name] for word in kept] for of_run in found]) for name in PARTS},
        truth=truth[scored],
        patient=patient,
        auroc=numpy.array(auroc),
        without_truth=int((~scored).sum()),
        left_out=left_out,
    )


def _unavailable(predictions: Predictions, rules: Sequence[str]) -> list[str]:
    """The rules that want a temperature, where there are no validation images to fit it on."""
    if (predictions.split == "validation").any():
        return []
    return [word for word in rules if temperature.split(word)[1]]


def _check_same(first: Predictions, other: Predictions) -> None:
    for name in ("ids", "patients", "truth"):
        one, two = getattr(first, name), getattr(other, name)
        if not (one.shape == two.shape and numpy.array_equal(one, two, equal_nan=name == "truth")):
            raise SeverityError(
                f"The test images of the runs {first.run} and {other.run} differ in their {name}, so they cannot be compared "
                "image by image. Predict both again with the same data."
            )


def _score(
    predictions: Predictions, test: Predictions, hierarchy: Hierarchy, cost: numpy.ndarray, rules: Sequence[str]
) -> dict[str, dict[str, numpy.ndarray]]:
    """For each rule what `metrics.per_image` gives of the test images that have a true class."""
    truth = test.truth == 1
    scored = class_metrics.has_truth(truth)
    if not scored.any():
        raise SeverityError(f"None of the {len(truth)} test images of {test.run} has a true class to compare by.")
    posteriors = {False: test.posterior[scored]}
    found = {}
    for word in rules:
        rule, scaled = temperature.split(word)
        if scaled and True not in posteriors:
            seen = predictions.part("validation")
            heat = temperature.fit(seen.posterior, seen.truth == 1, hierarchy)
            posteriors[True] = temperature.scale(posteriors[False], heat)
        ranking = class_rules.rank(rule, posterior=posteriors[scaled], cost=cost, hierarchy=hierarchy)
        found[word] = class_metrics.per_image(ranking=ranking, truth=truth[scored], cost=cost)
    return found


def _auroc(test: Predictions, hierarchy: Hierarchy) -> list[float]:
    labels = discrimination.per_label(marginal=test.marginal, truth=test.truth, classes=hierarchy.classes)
    return [numpy.nan if each["auroc"] is None else each["auroc"] for each in labels.values()]
