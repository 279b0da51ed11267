"""Whether one method is better than another: would training again, and testing on other patients, show the same?

A configuration is known from a few trainings (seeds), and each of them from the same test patients. So a difference of
two configurations is unsure in two ways: other patients, whom both sides share, and other seeds, which they do not:

    difference = mean over A's seeds - mean over B's seeds
    variance   = variance over patients + s_A^2 / n_A + s_B^2 / n_B

with the variance over patients from resamples of them, the same ones for both sides, and s^2 that of the single seeds
(n - 1). Divided by its root, the difference is held against Student's t with the degrees of freedom of Welch (1947) and
Satterthwaite (1946). Where patients do not matter, that is Welch's test of two groups of seeds.

What two networks do differently on a patient by chance is in both parts, so the variance errs on the large side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy
import scipy.stats

from severity.comparison import resampling
from severity.comparison.scores import Scores

# Of fewer seeds a side nothing is said about methods: two give one degree of freedom, and one none at all.
FEWEST_SEEDS = 3


@dataclass(frozen=True)
class Side:
    """A metric of one configuration under one rule.

    seeds: (n,) of each seed, and their mean is that of the configuration. drawn: (R,) of the configuration in each
    resample of the patients; NaN where it does not exist. patients: how many are resampled.
    """

    seeds: numpy.ndarray
    drawn: numpy.ndarray
    patients: int

    @property
    def value(self) -> float:
        """Of the configuration."""
        return float(self.seeds.mean())


@dataclass(frozen=True)
class Difference:
    """A minus B, as methods. NaN where something does not exist.

    lower, upper: interval. p: two-sided. of_patients, of_seeds: standard errors, the two parts of the whole one.
    freedom: degrees of freedom. undefined: in how many resamples of the patients the difference does not exist.
    """

    difference: float
    lower: float
    upper: float
    p: float
    of_patients: float
    of_seeds: float
    freedom: float
    undefined: int


def sides(
    scored: Scores, metric: str, places: Sequence[tuple[Sequence[int], int]], *, times: numpy.ndarray
) -> list[Side]:
    """A metric of M configurations.

    A ratio over several seeds is the sum of their numerators by that of their denominators. What each seed is to it is
    r + (u - r v) / mean v, the ratio to first order, whose mean is r; for a mean over all images it is the seed's own.

    Args:
        metric: the name of one that is compared image by image. places: numbers of runs (at least one), and of a rule.
        times: what `resampling.resample` gives for the patients of `scored`.
    """
    whole = scored.ratio(metric, places)
    drawn = resampling.draws(whole, times=times).each
    found = []
    for column, (runs, rule) in enumerate(places):
        each = scored.ratio(metric, [([run], rule) for run in runs])
        above, below = each.above.sum(axis=0), each.below.sum(axis=0)
        if below.any():
            value = above.mean() / below.mean()
            seeds = value + (above - value * below) / below.mean()
        else:
            seeds = numpy.full(len(runs), numpy.nan)
        found.append(Side(seeds, drawn[:, column], scored.patients))
    return found


def difference(a: Side, b: Side, *, level: float) -> Difference:
    """Compare two configurations whose patients are the same, and were resampled alike.

    B. L. Welch, "The generalization of 'Student's' problem when several different population variances are involved",
    Biometrika 34, 1947; F. E. Satterthwaite, "An approximate distribution of estimates of variance components",
    Biometrics Bulletin 2, 1946. The patients' variance counts as one of P - 1 degrees of freedom.

    Args:
        level: of the interval, such as 0.95.

    Returns:
        without interval and p, which are NaN, where a side has fewer than `FEWEST_SEEDS` seeds, where there are fewer
        than `resampling.FEWEST_PATIENTS` patients, where a resample lacks the metric, and where neither seeds nor
        patients vary, unless the sides are equal: then p is 1.
    """
    drawn = a.drawn - b.drawn
    away = a.value - b.value
    undefined = int(numpy.isnan(drawn).sum())
    patients = float(resampling.variance(drawn[:, None], clusters=a.patients)[0])
    # A sum that varies in its last digits only does not vary.
    patients = 0.0 if numpy.sqrt(patients) <= resampling.TIE * max(abs(a.value), abs(b.value)) else patients
    parts = [(patients, a.patients - 1)]
    of_seeds = numpy.nan
    if min(len(a.seeds), len(b.seeds)) > 1:
        parts += [(float(side.seeds.var(ddof=1)) / len(side.seeds), len(side.seeds) - 1) for side in (a, b)]
        of_seeds = float(numpy.sqrt(parts[1][0] + parts[2][0]))
    lower = upper = p = freedom = numpy.nan
    total = sum(part for part, _ in parts)
    if min(len(a.seeds), len(b.seeds)) < FEWEST_SEEDS or numpy.isnan(total):
        pass
    elif total > 0:
        freedom = total**2 / sum(part**2 / free for part, free in parts)
        error = numpy.sqrt(total)
        p = float(2 * scipy.stats.t.sf(abs(away) / error, freedom))
        reach = scipy.stats.t.ppf((1 + level) / 2, freedom) * error
        lower, upper = away - reach, away + reach
    elif away == 0:
        lower, upper, p = 0.0, 0.0, 1.0
    return Difference(away, lower, upper, p, float(numpy.sqrt(patients)), of_seeds, freedom, undefined)
