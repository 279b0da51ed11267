"""Trivial decisions that look at no image: what any metric must be better than to mean something."""

import numpy

from severity.arrays.distances import distances
from severity.arrays.labelsets import most_specific, shares
from severity.arrays.probabilities import chunks
from severity.core.hierarchy import Hierarchy
from severity.core.runs import seed_for
from severity.decisions import class_rules
from severity.metrics import catalogue, class_metrics


def rankings(
    *, validation: numpy.ndarray, truth: numpy.ndarray, cost: numpy.ndarray, hierarchy: Hierarchy
) -> dict[str, numpy.ndarray]:
    """Rankings of classes that are the same for all images.

    Args:
        validation: (M, K) bool truth of the validation images, where frequencies come from; without a row there is only
            `best_constant`.
        truth: (N, K) bool, the most specific true classes of the images to decide for; some image has one.

    Returns:
        name -> (N, K) int32. majority: most frequent class first. least_risk: ascending mean cost to the nearest of the
        most specific true classes of the validation images: of all constant decisions the one of least mean severity
        there. best_constant: the same of the images themselves. Nobody can know it before, and nothing that does not look
        at an image can be expected to do better.
    """
    known = validation[validation.any(axis=1)]
    shape = truth.shape
    every = {}
    frequency = shares(known, hierarchy).mean(axis=0) if len(known) else numpy.full(shape[1], 1 / shape[1])
    if len(validation):
        majority = class_rules.rank("argmax", posterior=frequency[None], cost=cost, hierarchy=hierarchy)
        every["majority"] = numpy.broadcast_to(majority, shape)
        every["least_risk"] = numpy.broadcast_to(_least_risk(most_specific(known, hierarchy), frequency, cost), shape)
    here = truth[truth.any(axis=1)]
    return every | {"best_constant": numpy.broadcast_to(_least_risk(here, frequency, cost), shape)}


def _least_risk(truth: numpy.ndarray, frequency: numpy.ndarray, cost: numpy.ndarray) -> numpy.ndarray:
    """(K,) int32: the classes by ascending mean severity over images, (M, K) bool; of equal ones the more frequent first."""
    severity = distances(truth=truth, cost=cost).mean(axis=0) if len(truth) else cost.mean(axis=1)
    return numpy.lexsort((-frequency, severity)).astype(numpy.int32)


def random(*, truth: numpy.ndarray, cost: numpy.ndarray, unknown: numpy.ndarray) -> dict[str, float | None]:
    """What a random ranking gives in expectation: the `baseline` metrics of the catalogue, by name.

    Every class is as likely in every place, so that a hierarchical distance @k is the mean over all classes, whatever k.

    Args:
        truth: (N, K) bool; images without a true class are left out. cost: (K, K). unknown: (N, K) bool, classes that are
            neither right nor wrong: decisions for one are left out.
    """
    scored = truth.any(axis=1)
    truth, known = truth[scored], ~unknown[scored]
    sums = {None: float(known.sum()), "top1_error": float((~truth & known).sum())}
    far = sum(float((distances(truth=truth[rows], cost=cost) * known[rows]).sum()) for rows in chunks(*truth.shape))
    sums |= {f"hierarchical_distance_at_{k}": far for k in catalogue.DEPTHS}
    wanted = {part for metric in catalogue.baselines() for part in metric.parts if part}
    if not wanted <= set(sums):
        sums |= _sums_over_orders(truth, cost, known, sorted(wanted - set(sums)))
    return {
        metric.name: sums[metric.numerator] / sums[metric.denominator] if sums[metric.denominator] else None
        for metric in catalogue.baselines()
    }


def _sums_over_orders(
    truth: numpy.ndarray, cost: numpy.ndarray, known: numpy.ndarray, names: list[str]
) -> dict[str, float]:
    """Sums of any quantities of `class_metrics` over images and K orders, in which each class has each place once."""
    sums = dict.fromkeys(names, 0.0)
    for shift in range(len(cost)):
        ranking = numpy.broadcast_to(numpy.roll(numpy.arange(len(cost)), -shift), truth.shape)
        quantities = class_metrics.per_image(ranking=ranking, truth=truth, cost=cost)
        for name in names:
            sums[name] += float(quantities[name][known[:, shift]].sum())
    return sums


def label_sets(*, validation: numpy.ndarray, images: int, seed: int) -> dict[str, numpy.ndarray]:
    """Sets of labels by what is known without looking at an image.

    Args:
        validation: (M, K) truth of the validation images, 1, 0 or NaN = masked; without a row there are only the sets
            that no frequency is wanted for, all_positive and all_negative. images: N.

    Returns:
        name -> (N, K) bool. all_positive, all_negative; majority: the most frequent set, masked labels read as not
        true, the first of equals; random: each label by itself as often as it is true.
    """
    size = validation.shape[1]
    sets = {
        "all_positive": numpy.ones((images, size), dtype=bool),
        "all_negative": numpy.zeros((images, size), dtype=bool),
    }
    if not len(validation):
        return sets
    patterns, first, counts = numpy.unique(validation == 1, axis=0, return_index=True, return_counts=True)
    most = numpy.flatnonzero(counts == counts.max())
    majority = patterns[most[first[most].argmin()]]
    known = (~numpy.isnan(validation)).sum(axis=0)
    frequency = (validation == 1).sum(axis=0) / numpy.maximum(known, 1)
    return sets | {
        "majority": numpy.tile(majority, (images, 1)),
        "random": numpy.random.default_rng(seed_for("random labels", seed)).random((images, size)) < frequency,
    }
