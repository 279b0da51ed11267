"""Calibration: whether probabilities are as often right as they say."""

from typing import Any

import numpy
import scipy.special

from severity.arrays.labelsets import shares, undetermined
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy

BINS = 15


def of_posterior(*, log_posterior: numpy.ndarray, labels: numpy.ndarray, hierarchy: Hierarchy) -> dict[str, Any]:
    """Calibration of distributions over classes.

    Args:
        log_posterior: (N, K) natural logarithms. labels: (N, K) 1, 0 or NaN = masked; images without a true class, and
            those of whose most probable class nobody can say whether it is right, are left out.
        hierarchy: where several classes are true, the most specific ones share the truth t, 1/|Y| each, as in the
            softmax losses.

    Returns:
        images: the number of scored images.
        ece: expected calibration error of max p against t at that class; with one true class, against being right.
        ece_any: of max p against that class being among the true ones. With several true classes no distribution can
            make it small, for each is right and all share one probability.
        classwise_ece: mean over classes of the calibration error of p_k against t_k.
        nll: mean of -sum_k t_k log p_k. brier: mean of sum_k (p_k - t_k)^2, from 0 to 2.
        bins: what `ece` sums over, see `bins`.

    Raises:
        SeverityError: no image is left.
    """
    truth = labels == 1
    most = log_posterior.argmax(axis=1)
    known = truth.any(axis=1) & ~undetermined(labels, hierarchy)[numpy.arange(len(labels)), most]
    if not known.any():
        raise SeverityError(
            f"None of the {len(truth)} images has a true class and a most probable one whose truth is known, so no probability "
            "can be scored."
        )
    logs, wanted = log_posterior[known].astype(numpy.float64), shares(truth[known], hierarchy)
    probability = numpy.exp(logs)
    images = numpy.arange(len(probability))
    first = probability.argmax(axis=1)
    columns = range(probability.shape[1])
    return {
        "images": len(probability),
        "ece": expected_error(probability[images, first], wanted[images, first]),
        "ece_any": expected_error(probability[images, first], truth[known][images, first]),
        "classwise_ece": float(numpy.mean([expected_error(probability[:, k], wanted[:, k]) for k in columns])),
        "nll": float(-numpy.where(wanted > 0, wanted * logs, 0.0).sum(axis=1).mean()),
        "brier": float(((probability - wanted) ** 2).sum(axis=1).mean()),
        "bins": bins(probability[images, first], wanted[images, first]),
    }


def of_labels(*, logits: numpy.ndarray, truth: numpy.ndarray) -> dict[str, Any]:
    """Calibration of probabilities of labels, cell by cell.

    Args:
        logits: (N, K) log-odds. truth: (N, K) 1, 0 or NaN = masked and left out.

    Returns:
        cells: the number of scored cells. ece: mean of the calibration error of each label that has a scored cell.
        nll: mean binary cross-entropy. brier: mean squared error, from 0 to 1. bins: of the cells of all labels
        together, see `bins`.

    Raises:
        SeverityError: every cell is masked.
    """
    known = ~numpy.isnan(truth)
    if not known.any():
        raise SeverityError("Every label of every image is masked, so no probability can be scored.")
    logits = logits.astype(numpy.float64)
    every = scipy.special.expit(logits)
    probability, wanted = every[known], truth[known]
    errors = [
        expected_error(every[known[:, k], k], truth[known[:, k], k]) for k in numpy.flatnonzero(known.any(axis=0))
    ]
    return {
        "cells": len(probability),
        "ece": float(numpy.mean(errors)),
        "nll": float(numpy.logaddexp(0, -logits[known] * (2 * wanted - 1)).mean()),
        "brier": float(((probability - wanted) ** 2).mean()),
        "bins": bins(probability, wanted),
    }


def expected_error(confidence: numpy.ndarray, right: numpy.ndarray) -> float:
    """Expected calibration error: sum over bins of their share x |mean right - mean confidence|.

    Naeini et al., AAAI 2015.

    Args:
        confidence: (N,) in [0, 1]. right: (N,) bool, 0 to 1.

    BINS bins of equal width, each with its lower edge and without its upper one; the last has both.
    """
    confidence = confidence.astype(numpy.float64)
    gaps = numpy.bincount(_bin(confidence), weights=right - confidence, minlength=BINS)
    return float(numpy.abs(gaps).sum() / len(confidence))


def bins(confidence: numpy.ndarray, right: numpy.ndarray) -> dict[str, list]:
    """The bins of `expected_error`, from the lowest: n, means of confidence and right (None in an empty bin)."""
    confidence = confidence.astype(numpy.float64)
    which = _bin(confidence)
    count = numpy.bincount(which, minlength=BINS)
    means = {}
    for name, values in (("confidence", confidence), ("right", right)):
        sums = numpy.bincount(which, weights=values, minlength=BINS)
        means[name] = [float(f"{total / n:.6g}") if n else None for total, n in zip(sums, count, strict=True)]
    return {"n": count.tolist(), **means}


def _bin(confidence: numpy.ndarray) -> numpy.ndarray:
    return numpy.minimum((confidence * BINS).astype(numpy.int64), BINS - 1)
