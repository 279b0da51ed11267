"""Temperature scaling: one number, fitted on validation images, that makes probabilities sharper or softer.

Guo et al., "On calibration of modern neural networks", ICML 2017. It acts on log p (p_T proportional to p^(1/T)) and on
logit m (m_T = sigmoid(logit(m) / T)); for a softmax or sigmoid of logits this is dividing the logits by T.
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
# What float32 calls zero or one is read as the nearest number it can still tell from them, so that logs are finite.
SMALLEST = float(numpy.finfo(numpy.float32).tiny)
LARGEST_MARGINAL = 1 - 2.0**-25


def split(word: str) -> tuple[str, bool]:
    """A rule's word without the suffix `_ts`, and whether it had it: temperature-scaled probabilities are meant."""
    return word.removesuffix(SUFFIX), word.endswith(SUFFIX)


def scale(posterior: numpy.ndarray, temperature: float) -> numpy.ndarray:
    """(N, K) distributions -> (N, K) float64, proportional to p^(1/T). T = 1 gives them back, to rounding.

    Raises:
        SeverityError: the temperature is not above 0.
    """
    return scipy.special.softmax(_logs(posterior) / _checked(temperature), axis=1)


def scale_marginal(marginal: numpy.ndarray, temperature: float) -> numpy.ndarray:
    """(N, K) probabilities of labels -> (N, K) float64, sigmoid(logit(m) / T). What is above 1/2 stays so."""
    return scipy.special.expit(_logits(marginal) / _checked(temperature))


def fit(posterior: numpy.ndarray, truth: numpy.ndarray, hierarchy: Hierarchy) -> float:
    """The temperature of least negative log-likelihood; 1 where no image has a true class.

    Args:
        posterior: (N, K) of validation images. truth: (N, K) bool; images with an empty set are left out.
        hierarchy: several true classes weigh 1/|Y| each, the most specific ones only, as in the softmax losses.

    The likelihood never falls: where no temperature from COLDEST to HOTTEST betters 1, it is 1.
    """
    known = truth.any(axis=1)
    logs, wanted = _logs(posterior[known]), shares(truth[known], hierarchy)
    aim = float((wanted * logs).sum())
    return _least(lambda sharpness: float(scipy.special.logsumexp(sharpness * logs, axis=1).sum()) - sharpness * aim)


def fit_marginal(marginal: numpy.ndarray, truth: numpy.ndarray) -> float:
    """The temperature of least binary cross-entropy over the cells of `truth` (N, K) that are 1 or 0; NaN is masked."""
    known = ~numpy.isnan(truth)
    signed = _logits(marginal[known]) * (2 * truth[known] - 1)
    return _least(lambda sharpness: float(numpy.logaddexp(0, -sharpness * signed).sum()))


def _least(loss: Callable[[float], float]) -> float:
    """T = 1/sharpness of least loss. The loss is convex in the sharpness, so a bounded search finds it."""
    least = scipy.optimize.minimize_scalar(loss, bounds=(1 / HOTTEST, 1 / COLDEST), method="bounded")
    return 1 / float(least.x) if least.fun < loss(1.0) else 1.0


def _logs(posterior: numpy.ndarray) -> numpy.ndarray:
    return numpy.log(numpy.maximum(numpy.asarray(posterior, dtype=numpy.float64), SMALLEST))


def _logits(marginal: numpy.ndarray) -> numpy.ndarray:
    return scipy.special.logit(numpy.clip(numpy.asarray(marginal, dtype=numpy.float64), SMALLEST, LARGEST_MARGINAL))


def _checked(temperature: float) -> float:
    if not temperature > 0:
        raise SeverityError(f"The temperature is {temperature}; it must be above 0.")
    return temperature
