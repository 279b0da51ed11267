"""Decision rules: from a distribution over classes to a ranking of classes, best first. One home for every rule."""

from collections.abc import Callable

import numpy

from severity import costs
from severity.errors import SeverityError, nearest
from severity.hierarchy import Hierarchy
from severity.probabilities import check_posterior, chunks

# Risks that differ by less than this share of the largest cost are ties: the sums that make them are only exact to
# rounding. A power of two, so that short binary fractions are not split by it.
TIE = 2.0**-40


def rank(rule: str, *, posterior: numpy.ndarray, cost: numpy.ndarray, hierarchy: Hierarchy) -> numpy.ndarray:
    """Rank the classes of each image by a decision rule.

    Args:
        rule: a name in `RULES`.
        posterior: (N, K) distribution over classes; rows sum to one.
        cost: (K, K) cost[decision, truth].
        hierarchy: the label tree of the K classes.

    Returns:
        (N, K) int32 class indices, best first; column 0 is the decision.

    Raises:
        SeverityError: an unknown rule, shapes that do not fit, a negative or NaN probability, a row that does not sum to
            one, a cost matrix that is not one.
    """
    if rule not in RULES:
        raise SeverityError(f"Unknown decision rule {rule!r}. {nearest(rule, RULES)}")
    posterior = numpy.asarray(posterior)
    cost = numpy.asarray(cost, dtype=numpy.float64)
    costs.check(cost, hierarchy.classes, where="rank")
    check_posterior(posterior, len(hierarchy.classes))
    ranking = numpy.empty(posterior.shape, dtype=numpy.int32)
    for rows in chunks(*posterior.shape):
        ranking[rows] = RULES[rule](posterior[rows].astype(numpy.float64), cost)
    return ranking


def _argmax(posterior: numpy.ndarray, cost: numpy.ndarray) -> numpy.ndarray:
    """Most probable first; ties by class order."""
    return numpy.argsort(-posterior, axis=1, kind="stable")


def _crm(posterior: numpy.ndarray, cost: numpy.ndarray) -> numpy.ndarray:
    """Conditional risk minimisation: ascending expected cost, R(k|x) = sum_j C[k, j] p(j|x); ties keep the order of p.

    Karthik et al., "No cost likelihood manipulation at test time for making better mistakes in deep networks",
    ICLR 2021, equation 3.
    """
    by_probability = _argmax(posterior, cost)
    risk = posterior @ (cost.T / cost.max())
    risk = numpy.rint(risk / TIE)
    by_risk = numpy.argsort(numpy.take_along_axis(risk, by_probability, axis=1), axis=1, kind="stable")
    return numpy.take_along_axis(by_probability, by_risk, axis=1)


RULES: dict[str, Callable[[numpy.ndarray, numpy.ndarray], numpy.ndarray]] = {"argmax": _argmax, "crm": _crm}
