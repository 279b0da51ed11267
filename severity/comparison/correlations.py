"""Whether labels that are told apart badly have severe mistakes: rank correlation over labels, and AUROCs of resamples."""

from collections.abc import Callable, Sequence

import numpy
import scipy.sparse
import scipy.stats

from severity.arrays.probabilities import chunks

# Means that differ in later digits differ by rounding only: they are ties, and may not be ranked by chance.
DIGITS = 12
# Of two labels every correlation is 1 or -1.
FEWEST = 3


def spearman(x: Sequence[float], y: Sequence[float]) -> float:
    """Spearman's rank correlation of the pairs that are known on both sides; NaN for fewer than three, or a constant side."""
    return _correlate(scipy.stats.spearmanr, x, y)


def kendall(x: Sequence[float], y: Sequence[float]) -> float:
    """Kendall's tau-b of the pairs that are known on both sides; NaN for fewer than three, or a constant side."""
    return _correlate(scipy.stats.kendalltau, x, y)


def _correlate(measure: Callable, x: Sequence[float], y: Sequence[float]) -> float:
    x, y = numpy.round(x, DIGITS), numpy.round(y, DIGITS)
    known = ~(numpy.isnan(x) | numpy.isnan(y))
    if known.sum() < FEWEST or min(numpy.ptp(each[known]) for each in (x, y)) == 0:
        return float("nan")
    return float(measure(x[known], y[known]).statistic)


def auroc_draws(
    *, scores: numpy.ndarray, truth: numpy.ndarray, patient: numpy.ndarray, times: numpy.ndarray
) -> numpy.ndarray:
    """The AUROC of each label in each resample of the patients, computed anew, ties counted half.

    Args:
        scores: (N, L) score of each label. truth: (N, L) 1, 0 or NaN = masked, left out label by label.
        patient: (N,) numbers from 0. times: (R, P) how often each patient is drawn (`resampling.resample`).

    Returns:
        (R, L); NaN where a resample lacks images of one kind.
    """
    labels = [_Label(scores[:, column], truth[:, column], patient, times.shape[1]) for column in range(scores.shape[1])]
    aurocs = numpy.empty((len(times), len(labels)))
    # A twenty-fourth of the usual block stays in a processor's cache, which is four times as fast.
    for rows in chunks(len(times), 24 * times.shape[1]):
        weights = numpy.ascontiguousarray(times[rows].T, dtype=numpy.float64)
        for column, label in enumerate(labels):
            aurocs[rows, column] = label.auroc(weights)
    return aurocs


class _Label:
    """The images of a label in order of its score, in the form of two sparse matrices from patients to levels of score.

    The AUROC is the share of pairs, one image of the rarer kind and one of the other, that are in the right order. Of
    the rarer kind each level of score is kept; of the other only how many lie between two levels. So a resample takes
    one pass over the images and no sorting.
    """

    def __init__(self, score: numpy.ndarray, truth: numpy.ndarray, patient: numpy.ndarray, patients: int):
        known = ~numpy.isnan(truth)
        score, patient, rare = score[known], patient[known], truth[known] == 1
        if 2 * rare.sum() > len(rare):
            score, rare = -score, ~rare
        levels, level = numpy.unique(score[rare], return_inverse=True)
        # Half an image at the first level that it is not above and half at the first that it is below: its place, and
        # half on either side of a tie.
        ends = [numpy.searchsorted(levels, score[~rare], side=side) for side in ("left", "right")]
        shape = (len(levels) + 1, patients)
        halves = numpy.full(2 * len(ends[0]), 0.5)
        others = scipy.sparse.csr_array((halves, (numpy.concatenate(ends), numpy.tile(patient[~rare], 2))), shape=shape)
        self._below = others[:-1]
        self._rare = scipy.sparse.csr_array((numpy.ones(len(level)), (level, patient[rare])), shape=shape)[:-1]
        self._count = numpy.bincount(patient[~rare], minlength=patients).astype(numpy.float64)

    def auroc(self, weights: numpy.ndarray) -> numpy.ndarray:
        """(R,) of (P, R) weights of the patients."""
        rare = self._rare @ weights
        right = (numpy.cumsum(self._below @ weights, axis=0) * rare).sum(axis=0)
        pairs = rare.sum(axis=0) * (self._count @ weights)
        with numpy.errstate(invalid="ignore"):
            return numpy.where(pairs > 0, right / pairs, numpy.nan)
