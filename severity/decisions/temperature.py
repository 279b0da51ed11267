"""Temperature scaling: one number, fitted on validation images, that makes probabilities sharper or softer.

Guo et al., "On calibration of modern neural networks", ICML 2017. It acts on log p (p_T proportional to p^(1/T)) and on
logit M (M_T = sigmoid(logit(M) / T)), M that of a node being present; for a softmax or sigmoid of logits this is dividing
the logits by T.
"""

from collections.abc import Callable

import numpy
import scipy.optimize
import scipy.special

from severity.arrays.labelsets import shares
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy

SUFFIX = "_ts"
# Beyond these a fit says that the probabilities carry no information (or all of it), not how to scale them.
COLDEST, HOTTEST = 0.1, 10.0
# A temperature must better the likelihood by more than this, in nats per probability that is scored: where all are certain
# and right nothing is to be learnt from them, and rounding would choose.
LEAST_GAIN = 1e-6


def split(word: str) -> tuple[str, bool]:
    """A rule's word without the suffix `_ts`, and whether it had it: temperature-scaled probabilities are meant."""
    return word.removesuffix(SUFFIX), word.endswith(SUFFIX)


def scale(log_posterior: numpy.ndarray, temperature: float) -> numpy.ndarray:
    """(N, K) log distributions -> (N, K) float64 distributions proportional to p^(1/T).

    Raises:
        SeverityError: the temperature is not above 0.
    """
    return scipy.special.softmax(log_posterior.astype(numpy.float64) / _checked(temperature), axis=1)


def scale_logits(logits: numpy.ndarray, temperature: float) -> numpy.ndarray:
    """Log-odds -> float64 log-odds / T. What is above one half stays above it, and a child below its parent."""
    return logits.astype(numpy.float64) / _checked(temperature)


def fit(log_posterior: numpy.ndarray, truth: numpy.ndarray, hierarchy: Hierarchy) -> float:
    """The temperature of least negative log-likelihood; 1 where no image has a true class.

    Args:
        log_posterior: (N, K) of validation images. truth: (N, K) bool; images with an empty set are left out.
        hierarchy: several true classes weigh 1/|Y| each, the most specific ones only, as in the softmax losses.

    The likelihood never falls: where no temperature from COLDEST to HOTTEST betters 1, it is 1.
    """
    known = truth.any(axis=1)
    logs, wanted = log_posterior[known].astype(numpy.float64), shares(truth[known], hierarchy)
    aim = float((wanted * logs).sum())
    return _least(
        lambda sharpness: float(scipy.special.logsumexp(sharpness * logs, axis=1).sum()) - sharpness * aim, len(logs)
    )


def fit_logits(logits: numpy.ndarray, truth: numpy.ndarray) -> float:
    """The temperature of least binary cross-entropy over the cells of `truth` (N, K) that are 1 or 0; NaN is masked."""
    known = ~numpy.isnan(truth)
    signed = logits[known].astype(numpy.float64) * (2 * truth[known] - 1)
    return _least(lambda sharpness: float(numpy.logaddexp(0, -sharpness * signed).sum()), len(signed))


def _least(loss: Callable[[float], float], count: int) -> float:
    """T = 1/sharpness of least loss over `count` terms. The loss is convex in the sharpness, so a bounded search finds it."""
    best = scipy.optimize.minimize_scalar(loss, bounds=(1 / HOTTEST, 1 / COLDEST), method="bounded")
    return 1 / float(best.x) if best.fun < loss(1.0) - LEAST_GAIN * count else 1.0


def _checked(temperature: float) -> float:
    if not temperature > 0:
        raise SeverityError(f"The temperature is {temperature}; it must be above 0.")
    return temperature
