"""Per-image scores of all runs of a study on the same test images, under every decision rule."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy

from severity.arrays import discrimination
from severity.arrays.labelsets import most_specific, undetermined
from severity.comparison import resampling
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.core.runs import Run
from severity.decisions.decider import Decider
from severity.metrics import catalogue, class_metrics
from severity.predictions.predictions import Predictions

SEVERITY = "hierarchical_distance_at_1"


@dataclass(frozen=True)
class Scores:
    """G runs, U rules, N test images with a true class of P patients, L labels.

    runs: those with predictions; grid: all that were asked for. values: quantity of a compared metric -> (G, U, N), by
    the most specific true classes of each image, 0 where the decision is not determined. determined: (G, U, N) bool: whether
    it is right or wrong; not where it is of a class whose truth is masked: then no metric counts it. truth: (N, L) bool, all true labels, those above another one too.
    patient: (N,) from 0 to P - 1. auroc: (G, L) over all test images, NaN where a label has one kind of image only.
    without_truth: test images without a true class, left out. left_out: rules that some runs cannot have, for want of
    validation images, and the names of those runs; such a rule is in no comparison.
    """

    grid: tuple[Run, ...]
    runs: tuple[Run, ...]
    rules: tuple[str, ...]
    classes: tuple[str, ...]
    values: dict[str, numpy.ndarray]
    determined: numpy.ndarray
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
        """(G, U, N), 0 where not determined."""
        return self.values[SEVERITY]

    def mean_severity(self, runs: Sequence[int], rule: int) -> tuple[numpy.ndarray, numpy.ndarray]:
        """(N,) severity of each image, and how much it counts: means over runs, without decisions that are not determined."""
        return self.severity[runs, rule].mean(axis=0), self.determined[runs, rule].mean(axis=0)

    def masked(self, runs: Sequence[int], rule: int, images: numpy.ndarray | slice = slice(None)) -> float:
        """How many decisions are not determined, of some images: the mean over runs."""
        return float((~self.determined[list(runs), rule][:, images]).sum(axis=1).mean())

    @cached_property
    def configurations(self) -> dict[tuple[str, str], dict[int, int]]:
        """Backbone and loss -> seed -> number of the run; a configuration of the grid without any run is empty."""
        seeds: dict[tuple[str, str], dict[int, int]] = {(run.backbone, run.loss): {} for run in self.grid}
        for number, run in enumerate(self.runs):
            seeds[run.backbone, run.loss][run.seed] = number
        return seeds

    @cached_property
    def sums(self) -> dict[str | None, numpy.ndarray]:
        """Sums over the images of each patient, (P, G, U): quantity -> its sum; None -> the number of those that count."""
        shape = (self.patients, len(self.runs), len(self.rules))
        sums: dict[str | None, numpy.ndarray] = {}
        for name, values in {None: self.determined.astype(numpy.float64), **self.values}.items():
            flat = values.reshape(-1, values.shape[-1])
            sums[name] = resampling.per_patient(flat, patient=self.patient, patients=self.patients).reshape(shape)
        return sums

    def ratio(self, metric: str, sides: Sequence[tuple[Sequence[int], int]]) -> resampling.Ratios:
        """A metric of M sides, (P, M): of each the mean over its runs of what is summed, under its rule.

        Args:
            metric: the name of one that is compared. sides: numbers of runs, and of a rule.
        """
        above, below = (
            numpy.stack([self._side(name, runs, rule) for runs, rule in sides], axis=1)
            for name in catalogue.named(metric).parts
        )
        return resampling.Ratios(above, below)

    def macro_auroc(self, runs: Sequence[int]) -> numpy.ndarray:
        """The mean AUROC over the labels that have one, of some runs; NaN where none has. All runs have the same ones."""
        known = ~numpy.isnan(self.auroc).any(axis=0)
        return self.auroc[list(runs)][:, known].mean(axis=1) if known.any() else numpy.full(len(runs), numpy.nan)

    def _side(self, name: str | None, runs: Sequence[int], rule: int) -> numpy.ndarray:
        return self.sums[name][:, list(runs), rule].mean(axis=1)


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
        rules: words of rules that decide a class (`severity.decisions.decider`).

    Raises:
        SeverityError: no run has predictions, none of the test images has a true class, or two runs are of different
            test images or truths, so that they cannot be compared image by image.
    """
    first: Predictions | None = None
    runs, scored_runs, determined, auroc = [], [], [], []
    left_out: dict[str, tuple[str, ...]] = {}
    for run in grid:
        predictions = read(run)
        if predictions is None:
            continue
        test = predictions.part("test")
        first = first or test
        _check_same(first, test)
        runs.append(run)
        decider = Decider.of(predictions, hierarchy, cost)
        for word in decider.unavailable(rules):
            left_out[word] = (*left_out.get(word, ()), run.name)
        scored, known = _score(decider, test, [word for word in rules if word not in left_out], hierarchy)
        scored_runs.append(scored)
        determined.append(known)
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
        values={
            name: numpy.array([[of_run[word][name] for word in kept] for of_run in scored_runs])
            for name in quantities()
        },
        determined=numpy.array([[of_run[word] for word in kept] for of_run in determined]),
        truth=truth[scored],
        patient=patient,
        auroc=numpy.array(auroc),
        without_truth=int((~scored).sum()),
        left_out=left_out,
    )


def quantities() -> list[str]:
    """The quantities of each image that the compared metrics need."""
    return list(dict.fromkeys(part for metric in catalogue.compared() for part in metric.parts if part))


def _check_same(first: Predictions, other: Predictions) -> None:
    for name in ("ids", "patients", "truth"):
        one, two = getattr(first, name), getattr(other, name)
        if not (one.shape == two.shape and numpy.array_equal(one, two, equal_nan=name == "truth")):
            raise SeverityError(
                f"The test images of the runs {first.run} and {other.run} differ in their {name}, so they cannot be compared "
                "image by image. Predict both again with the same data."
            )


def _score(
    decider: Decider, test: Predictions, rules: Sequence[str], hierarchy: Hierarchy
) -> tuple[dict[str, dict[str, numpy.ndarray]], dict[str, numpy.ndarray]]:
    """For each rule what `class_metrics.per_image` returns for the test images that have a true class, by the most specific,
    and `class_metrics.determined`; 0 where that is not so."""
    scored = class_metrics.has_truth(test.truth == 1)
    if not scored.any():
        raise SeverityError(f"None of the {len(scored)} test images of {test.run} has a true class to compare by.")
    images = test.rows(scored)
    truth = most_specific(images.truth == 1, hierarchy)
    unknown = undetermined(images.truth, hierarchy)
    values, determined = {}, {}
    for word in rules:
        ranking = decider.rank(word, images)
        determined[word] = class_metrics.determined(ranking, unknown)
        each = class_metrics.per_image(ranking=ranking, truth=truth, cost=decider.cost)
        values[word] = {name: numpy.where(determined[word], of_images, 0.0) for name, of_images in each.items()}
    return values, determined


def _auroc(test: Predictions, hierarchy: Hierarchy) -> list[float]:
    labels = discrimination.per_label(scores=test.label_logits, truth=test.truth, classes=hierarchy.classes)
    return [numpy.nan if each["auroc"] is None else each["auroc"] for each in labels.values()]
