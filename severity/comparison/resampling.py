"""How sure a difference is: bootstrap and permutation over patients, for ratios of sums over images.

The images of one patient resemble each other, so patients are drawn and swapped, never images. Every metric compared
here is a sum over images divided by another: a mean by the number of images, the severity of mistakes by the number of
mistakes. Sums over the images of each patient are therefore all that resampling needs, and 2,000 resamples of hundreds
of comparisons are one product of matrices.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy
import scipy.stats

from severity.arrays.probabilities import chunks
from severity.core import runs
from severity.core.errors import SeverityError

# Blocks are cut as if there were at least an eighth as many patients, or few patients would make large blocks, of many
# pairs and many swaps.
WIDE = 1 << 13
# Statistics that differ by less than this share are ties: their sums are exact to rounding only.
TIE = 1e-9
# Of fewer patients no bootstrap interval is given: three who all cost 3 would have the interval from 3 to 3, and at two
# patients intervals called 95 % covered 31 % (docs/methods.md).
FEWEST_PATIENTS = 10
# Why there is no interval although there are patients enough.
ALIKE = "no interval: alike in every resample of the patients"
DECIMALS = 14  # of differences and the ends of their intervals


@dataclass(frozen=True)
class Settings:
    """How to resample: section `compare` of params.yaml.

    resamples: of the bootstrap. permutations: random swaps of the test. level: of intervals and verdicts, such as 0.95.
    seed: of both. One seed serves all tables, so that no comparison's numbers depend on which others are made.
    """

    resamples: int
    permutations: int
    level: float
    seed: int

    def seed_for(self, purpose: str) -> int:
        """The seed of one kind of random numbers."""
        return runs.seed_for("compare", purpose, self.seed)


@dataclass(frozen=True)
class Ratios:
    """M ratios of two sums, `above` / `below`, each (X, M): a row for each patient, or for each resample.

    The ratio is NaN where `below` is 0, such as the severity of mistakes where there are none.
    """

    above: numpy.ndarray
    below: numpy.ndarray

    @property
    def each(self) -> numpy.ndarray:
        """(X, M) the ratio of every row by itself."""
        return divide(self.above, self.below)

    @property
    def whole(self) -> numpy.ndarray:
        """(M,) the ratio of the sums over all rows."""
        return divide(self.above.sum(axis=0), self.below.sum(axis=0))

    def part(self, columns: slice) -> "Ratios":
        """Some of the M ratios."""
        return Ratios(self.above[:, columns], self.below[:, columns])


def divide(above: numpy.ndarray, below: numpy.ndarray) -> numpy.ndarray:
    """The ratio of two sums, NaN where `below` is 0."""
    with numpy.errstate(divide="ignore", invalid="ignore"):
        return numpy.where(below == 0, numpy.nan, above / below)


def per_patient(values: numpy.ndarray, *, patient: numpy.ndarray, patients: int) -> numpy.ndarray:
    """Sums over the images of each patient: (P, M) float64.

    Args:
        values: (M, N) numbers of N images. patient: (N,) the patient of each, from 0. patients: P, how many there are.
    """
    sums = numpy.empty((patients, len(values)))
    for column, row in enumerate(values):
        sums[:, column] = numpy.bincount(patient, weights=row, minlength=patients)
    return sums


def resample(*, patients: int, settings: Settings) -> numpy.ndarray:
    """How often each patient is drawn: (resamples, patients) uint16, each row `patients` draws with replacement.

    The bootstrap of whole clusters: Davison & Hinkley, "Bootstrap methods and their application" (1997), section 3.8.
    """
    random = numpy.random.default_rng(settings.seed_for("resamples"))
    times = numpy.empty((settings.resamples, patients), dtype=numpy.uint16)
    for rows in chunks(settings.resamples, patients):
        size = rows.stop - rows.start
        drawn = random.integers(0, patients, (size, patients)) + patients * numpy.arange(size)[:, None]
        times[rows] = numpy.bincount(drawn.ravel(), minlength=size * patients).reshape(size, patients)
    return times


def draws(ratios: Ratios, *, times: numpy.ndarray) -> Ratios:
    """The sums of each resample: (R, M).

    Args:
        ratios: (P, M) sums of each patient. times: (R, P) what `resample` gives.
    """
    above, below = (numpy.empty((len(times), ratios.above.shape[1])) for _ in range(2))
    for rows in chunks(*times.shape):
        drawn = times[rows].astype(numpy.float64)
        above[rows], below[rows] = drawn @ ratios.above, drawn @ ratios.below
    return Ratios(above, below)


def interval(drawn: numpy.ndarray, *, clusters: int, level: float) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Expanded percentile interval of each of M numbers.

    The percentile interval (Efron & Tibshirani, "An introduction to the bootstrap", 1993, chapter 13) is too narrow for
    few patients, as is a normal interval with the standard deviation of n instead of n - 1. Its percentiles are
    therefore moved outward to those that make a t interval of a normal one: Phi(t_(n-1) sqrt(n / (n-1))). Hesterberg,
    "What teachers should know about the bootstrap", The American Statistician 69, 2015. docs/methods.md tells the
    coverage that was measured, of this one and of others.

    Args:
        drawn: (R, M) the numbers of each resample. clusters: of how many (patients) they are resamples. level: such as
            0.95.

    Returns:
        lower, upper: (M,); NaN where a resample has no such number (NaN), where there are fewer than `FEWEST_PATIENTS`
        clusters, and where all resamples are alike (`ALIKE`): clusters that do not differ say nothing of how others would,
        and an interval of no width would claim certainty.
    """
    if clusters < FEWEST_PATIENTS:
        return numpy.full(drawn.shape[1], numpy.nan), numpy.full(drawn.shape[1], numpy.nan)
    tail = scipy.stats.t.ppf((1 - level) / 2, clusters - 1) * numpy.sqrt(clusters / (clusters - 1))
    share = float(scipy.stats.norm.cdf(tail))
    lower, upper = numpy.quantile(drawn, [share, 1 - share], axis=0)
    # Sums in another order differ in their last digits.
    alike = numpy.ptp(drawn, axis=0) <= numpy.maximum(TIE * numpy.abs(drawn).max(axis=0), 10.0**-DECIMALS)
    return numpy.where(alike, numpy.nan, lower), numpy.where(alike, numpy.nan, upper)


def variance(drawn: numpy.ndarray, *, clusters: int) -> numpy.ndarray:
    """(M,) variance of each of M numbers between samples of so many clusters (patients), from (R, M) resamples.

    That of the resamples is too small by (n - 1) / n. NaN where a resample has no such number, and where there are fewer
    than `FEWEST_PATIENTS` clusters.
    """
    if clusters < FEWEST_PATIENTS:
        return numpy.full(drawn.shape[1], numpy.nan)
    return drawn.var(axis=0, ddof=1) * clusters / (clusters - 1)


def estimate(ratios: Ratios, *, settings: Settings) -> tuple[numpy.ndarray, ...]:
    """M ratios by themselves, (P, M) sums, with intervals over resampled patients.

    Returns:
        value, lower, upper, undefined (in how many resamples there is no such ratio), each (M,).
    """
    patients = len(ratios.above)
    drawn = draws(ratios, times=resample(patients=patients, settings=settings))
    each = drawn.each
    return (
        ratios.whole,
        *interval(each, clusters=patients, level=settings.level),
        numpy.isnan(each).sum(axis=0),
    )


@dataclass(frozen=True)
class Compared:
    """M comparisons of A with B, each field (M,); NaN where something does not exist.

    a, b, difference: A's number, B's, A minus B. lower, upper: interval of the difference. p: of the permutation test.
    effect: the difference in standard deviations of the patients' contributions to it. undefined: in how many resamples
    the difference does not exist; then there is no interval. differing: how many patients have not the same on both
    sides; with d of them no p is below 2^(1 - d), since only their swaps change anything.
    """

    a: numpy.ndarray
    b: numpy.ndarray
    difference: numpy.ndarray
    lower: numpy.ndarray
    upper: numpy.ndarray
    p: numpy.ndarray
    effect: numpy.ndarray
    undefined: numpy.ndarray
    differing: numpy.ndarray


def least_p(differing: numpy.ndarray) -> numpy.ndarray:
    """The smallest p that swapping can give where so many patients differ; NaN for NaN."""
    return numpy.minimum(1.0, 2.0 ** (1 - numpy.asarray(differing, dtype=numpy.float64)))


def compare(*, a: Ratios, b: Ratios, settings: Settings) -> Compared:
    """Compare M pairs of ratios of the same images: interval over resampled patients, test over swapped patients.

    Args:
        a, b: (P, M) sums of each patient; column m of one is compared with column m of the other. Every pair sees the
            same resamples and swaps, so one pair's numbers do not depend on the others.

    Raises:
        SeverityError: shapes that do not fit, or no patient.
    """
    shapes = {each.shape for each in (a.above, a.below, b.above, b.below)}
    if len(shapes) > 1 or len(a.above) == 0:
        raise SeverityError(f"Sums of the shapes {sorted(shapes)} cannot be compared: (patients, pairs), at least one.")
    patients, pairs = a.above.shape
    times = resample(patients=patients, settings=settings)
    blocks = [
        _compare(a.part(columns), b.part(columns), times, settings)
        for columns in chunks(pairs, max(8 * patients, WIDE))
    ]
    return Compared(
        *(numpy.concatenate(each) for each in zip(*blocks, strict=True)) if blocks else [numpy.empty(0)] * 9
    )


def _compare(a: Ratios, b: Ratios, times: numpy.ndarray, settings: Settings) -> tuple[numpy.ndarray, ...]:
    drawn = draws(a, times=times).each - draws(b, times=times).each
    lower, upper = interval(drawn, clusters=len(a.above), level=settings.level)
    difference = a.whole - b.whole
    return (
        *(a.whole, b.whole, difference, lower, upper),
        permutation_test(a=a, b=b, settings=settings),
        effect_size(a=a, b=b),
        numpy.isnan(drawn).sum(axis=0),
        ((a.above != b.above) | (a.below != b.below)).sum(axis=0),
    )


def effect_size(*, a: Ratios, b: Ratios) -> numpy.ndarray:
    """(M,) the difference of A and B in standard deviations (n - 1) of what each patient contributes to it.

    A ratio is to first order a mean of contributions (above - ratio x below) / mean below (Davison & Hinkley 1997,
    section 2.7); with one image a patient these are the paired differences themselves, and the number is Cohen's d of
    them. NaN where nothing varies, and for a single patient.
    """
    patients = len(a.above)
    if patients < 2:
        return numpy.full(a.above.shape[1], numpy.nan)
    contributed = [divide(each.above - each.whole * each.below, each.below.sum(axis=0)) for each in (a, b)]
    spread = numpy.sqrt(patients**2 / (patients - 1) * ((contributed[0] - contributed[1]) ** 2).sum(axis=0))
    return divide(a.whole - b.whole, spread)


def permutation_test(*, a: Ratios, b: Ratios, settings: Settings) -> numpy.ndarray:
    """(M,) two-sided p: how often swapping A and B, patient by patient, makes as large a difference as there is.

    All 2^P swaps where these are at most `settings.permutations`, and p is their share (Good, "Permutation, parametric,
    and bootstrap tests of hypotheses", 2005); else p = (1 + count) / (1 + permutations) of random ones (Phipson & Smyth
    2010), which is never 0. The statistic is the difference over its standard error, both of the swapped data: then the
    test keeps its level also where the denominators of A and B differ (Chung & Romano, Annals of Statistics 41, 2013;
    Janssen 1997). For means over as many images of each patient it orders the swaps as the plain difference does.

    A swap without a ratio (no mistakes left on one side) counts as one of a difference as large. NaN where A or B has
    no ratio as it is.
    """
    swaps = _Swaps(a, b)
    wanted = swaps.statistic(numpy.ones((1, len(a.above))))[0]
    count = numpy.zeros(len(wanted))
    total = 0
    for signs in _signs(len(a.above), settings):
        swapped = swaps.statistic(signs)
        count += (~(swapped < wanted * (1 - TIE))).sum(axis=0)  # A NaN is not smaller.
        total += len(signs)
    exact = total == 2 ** len(a.above)
    return numpy.where(numpy.isnan(wanted), numpy.nan, count / total if exact else (1 + count) / (1 + total))


class _Swaps:
    """The difference of A and B over its standard error, for any swaps of patients.

    Everything it takes is a sum over patients of a quantity that swapping either leaves alone or exchanges between A
    and B. With s = -1 for a swapped patient and 1 else, the sum of u over A becomes half of (sum of u_A + u_B) + s (u_A
    - u_B), so all of it follows from products of the signs with six columns a pair.
    """

    def __init__(self, a: Ratios, b: Ratios):
        below = (a.below + b.below).sum(axis=0)
        pooled = divide((a.above + b.above).sum(axis=0), below)
        # Taken from the pooled ratio, which no swap changes: the squares below then lose no digits.
        left = [each.above - numpy.nan_to_num(pooled) * each.below for each in (a, b)]
        unders = [a.below, b.below]
        self._patients = len(a.above)
        products = {
            "e": left,
            "d": unders,
            "ee": [e * e for e in left],
            "ed": [e * d for e, d in zip(left, unders, strict=True)],
            "dd": [d * d for d in unders],
            "cross": [left[0] * unders[1], left[1] * unders[0]],
        }
        self._names = list(products)
        self._sums = numpy.stack([(first + second).sum(axis=0) for first, second in products.values()])  # (6, M)
        self._exchanged = numpy.stack([first - second for first, second in products.values()], axis=1)  # (P, 6, M)
        self._e_e, self._d_d = (left[0] * left[1]).sum(axis=0), (unders[0] * unders[1]).sum(axis=0)

    def statistic(self, signs: numpy.ndarray) -> numpy.ndarray:
        """(S, M) of (S, P) signs: difference^2 / (difference^2 + P x error^2), which rises with |difference| / error.

        From 0 to 1, and 0 where there is no difference at all; NaN where a side has no ratio.
        """
        exchanged = (signs @ self._exchanged.reshape(self._patients, -1)).reshape(len(signs), *self._sums.shape)
        a, b = (
            dict(zip(self._names, numpy.moveaxis((self._sums + side * exchanged) / 2, 1, 0), strict=True))
            for side in (1, -1)
        )
        ratio_a, ratio_b = divide(a["e"], a["d"]), divide(b["e"], b["d"])
        own = sum(
            divide(side["ee"] - 2 * ratio * side["ed"] + ratio**2 * side["dd"], side["d"] ** 2)
            for side, ratio in ((a, ratio_a), (b, ratio_b))
        )
        shared = divide(
            self._e_e - ratio_b * a["cross"] - ratio_a * b["cross"] + ratio_a * ratio_b * self._d_d, a["d"] * b["d"]
        )
        squared = (ratio_a - ratio_b) ** 2
        error = self._patients * numpy.maximum(own - 2 * shared, 0)
        return numpy.where(squared == 0, 0.0, divide(squared, squared + error))


def _signs(patients: int, settings: Settings) -> Iterator[numpy.ndarray]:
    """Blocks (S, P) of 1 and -1: all 2^P rows where these are at most `permutations`, else as many random ones."""
    exact = 2**patients <= settings.permutations
    random = numpy.random.default_rng(settings.seed_for("swaps"))
    for rows in chunks(2**patients if exact else settings.permutations, max(patients, WIDE // 8)):
        if exact:
            bits = numpy.arange(rows.start, rows.stop)[:, None] >> numpy.arange(patients) & 1
        else:
            size = (rows.stop - rows.start, -(-patients // 8))
            bits = numpy.unpackbits(random.integers(0, 256, size, dtype=numpy.uint8), axis=1, count=patients)
        yield 1.0 - 2.0 * bits
