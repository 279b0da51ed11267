"""Whether one method is better than another: would training again, and testing on other patients, show the same?

A configuration is known from a few trainings (seeds), and each of them from the same test patients. So a difference of
two configurations is unsure in two ways: other patients, whom both sides share, and other seeds, which they do not:

    difference = mean over A's seeds - mean over B's seeds
    variance   = V + s_A^2 / n_A + s_B^2 / n_B

with V the variance over patients from resamples of them, the same ones for both sides, and s^2 that of the single seeds
(n - 1). Divided by its root, the difference is held against Student's t with the degrees of freedom of Welch (1947) and
Satterthwaite (1946). Where patients do not matter, that is Welch's test of two groups of seeds.

A part of V is what single networks do differently to each patient by chance; W_A and W_B, from the resampled seeds by
themselves. It is in s^2 as well, so the variance errs on the large side. And it is known from n networks, however many
patients there are: it counts with n - 1 degrees of freedom, and only the rest of V, what one method does better than the
other for some patients, with P - 1.
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

    seeds: (n,) of each seed, and their mean is that of the configuration. drawn: (R, n) the same in each resample of the
    patients; NaN where it does not exist. patients: how many are resampled.
    """

    seeds: numpy.ndarray
    drawn: numpy.ndarray
    patients: int

    @property
    def value(self) -> float:
        """Of the configuration."""
        return float(self.seeds.mean())

    @property
    def whole(self) -> numpy.ndarray:
        """(R,) of the configuration in each resample."""
        return self.drawn.mean(axis=1)

    @property
    def chance(self) -> float:
        """The variance of the configuration that comes from what each seed does to each patient by chance, for n > 1."""
        away = self.drawn - self.whole[:, None]
        return float(resampling.variance(away, clusters=self.patients).mean()) / (len(self.seeds) - 1)


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
    each = list(dict.fromkeys((run, rule) for runs, rule in places for run in runs))
    column = {place: number for number, place in enumerate(each)}
    ratios = scored.ratio(metric, [([run], rule) for run, rule in each])
    drawn = resampling.draws(ratios, times=times)
    whole = resampling.Ratios(ratios.above.sum(axis=0, keepdims=True), ratios.below.sum(axis=0, keepdims=True))
    found = []
    for runs, rule in places:
        columns = [column[run, rule] for run in runs]
        found.append(Side(_of_seeds(whole, columns)[0], _of_seeds(drawn, columns), scored.patients))
    return found


def _of_seeds(sums: resampling.Ratios, columns: list[int]) -> numpy.ndarray:
    """(X, n) what each of n seeds is to the ratio of all of them, row by row."""
    above, below = sums.above[:, columns], sums.below[:, columns]
    mean = below.mean(axis=1, keepdims=True)
    with numpy.errstate(divide="ignore", invalid="ignore"):
        value = numpy.where(mean == 0, numpy.nan, above.mean(axis=1, keepdims=True) / mean)
        return value + (above - value * below) / mean


def difference(a: Side, b: Side, *, level: float) -> Difference:
    """Compare two configurations whose patients are the same, and were resampled alike.

    B. L. Welch, "The generalization of 'Student's' problem when several different population variances are involved",
    Biometrika 34, 1947; F. E. Satterthwaite, "An approximate distribution of estimates of variance components",
    Biometrics Bulletin 2, 1946.

    Args:
        level: of the interval, such as 0.95.

    Returns:
        without interval and p, which are NaN, where a side has fewer than `FEWEST_SEEDS` seeds, where there are fewer
        than `resampling.FEWEST_PATIENTS` patients, where a resample lacks the metric, and where neither seeds nor
        patients vary, unless the sides are equal: then p is 1.
    """
    drawn = a.whole - b.whole
    away = a.value - b.value
    undefined = int(numpy.isnan(drawn).sum())
    patients = float(resampling.variance(drawn[:, None], clusters=a.patients)[0])
    # A sum that varies in its last digits only does not vary.
    patients = 0.0 if numpy.sqrt(patients) <= resampling.TIE * max(abs(a.value), abs(b.value)) else patients
    of_seeds = total = numpy.nan
    parts: list[tuple[float, int]] = []
    if min(len(a.seeds), len(b.seeds)) > 1:
        own = [float(side.seeds.var(ddof=1)) / len(side.seeds) for side in (a, b)]
        chance = [side.chance for side in (a, b)]
        # Estimates of two parts may exceed that of their sum.
        share = min(1.0, patients / sum(chance)) if sum(chance) > 0 else 0.0
        parts = [
            (each + share * by_chance, len(side.seeds) - 1)
            for each, by_chance, side in zip(own, chance, (a, b), strict=True)
        ]
        parts.append((patients - share * sum(chance), a.patients - 1))
        of_seeds, total = float(numpy.sqrt(sum(own))), patients + sum(own)
    lower = upper = p = freedom = numpy.nan
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
