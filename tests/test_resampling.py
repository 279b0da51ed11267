"""Bootstrap and permutation over patients: against scipy, against enumeration, and against simulated truth."""

import itertools

import numpy
import pytest
import scipy.stats

from severity.comparison import resampling
from severity.comparison.resampling import Ratios, Settings
from severity.core.errors import SeverityError
from severity.summary import statistics

SETTINGS = Settings(resamples=1000, permutations=999, level=0.95, seed=0)


def settings(**changes) -> Settings:
    return Settings(**{"resamples": 1000, "permutations": 999, "level": 0.95, "seed": 0} | changes)


def images(seed: int, patients: int, most: int = 4) -> dict:
    """Severities and mistakes of two methods on the images of a few patients, who have 1 to `most` images each."""
    random = numpy.random.default_rng(seed)
    patient = numpy.repeat(numpy.arange(patients), random.integers(1, most + 1, patients))
    wrong = random.random((2, len(patient))) < [[0.5], [0.7]]
    return {"patient": patient, "wrong": wrong, "severity": wrong * random.integers(1, 4, wrong.shape)}


def sides(case: dict) -> list[Ratios]:
    """Of each method two ratios: mean severity, and mean severity of mistakes."""
    patients = int(case["patient"].max()) + 1
    found = []
    for severity, wrong in zip(case["severity"], case["wrong"], strict=True):
        above, below = (
            resampling.per_patient(numpy.array(rows, dtype=float), patient=case["patient"], patients=patients)
            for rows in ([severity, severity], [numpy.ones(len(wrong)), wrong])
        )
        found.append(Ratios(above, below))
    return found


def one_image_each(differences: numpy.ndarray) -> list[Ratios]:
    """A and B whose differences are given, for patients of one image."""
    base = numpy.random.default_rng(9).random(len(differences))
    ones = numpy.ones((len(base), 1))
    return [Ratios((base + differences)[:, None], ones), Ratios(base[:, None], ones)]


def test_sums_of_patients_against_a_loop():
    case = images(0, 5)
    found = resampling.per_patient(case["severity"].astype(float), patient=case["patient"], patients=7)
    for patient in range(7):
        assert found[patient] == pytest.approx(case["severity"][:, case["patient"] == patient].sum(axis=1))


def test_a_resample_draws_as_many_patients_as_there_are_each_as_likely():
    times = resampling.resample(patients=7, settings=settings(resamples=20_000))
    assert (times.sum(axis=1) == 7).all()
    assert times.mean(axis=0) == pytest.approx(numpy.ones(7), abs=0.03)
    # Counts of a multinomial: variance (P - 1) / P, correlation -1 / (P - 1).
    covariance = numpy.cov(times.T.astype(float))
    assert covariance == pytest.approx(numpy.eye(7) - 1 / 7, abs=0.05)


def test_a_resample_depends_on_its_seed_and_not_on_the_size_of_blocks(monkeypatch):
    whole = resampling.resample(patients=40, settings=SETTINGS)
    assert (whole != resampling.resample(patients=40, settings=settings(seed=1))).any()
    monkeypatch.setattr("severity.arrays.probabilities.CHUNK", 400)
    assert (resampling.resample(patients=40, settings=SETTINGS) == whole).all()


def test_a_draw_is_the_ratio_of_the_drawn_patients_images():
    case = images(1, 6)
    times = resampling.resample(patients=6, settings=settings(resamples=20))
    drawn = [resampling.draws(each, times=times).each for each in sides(case)]
    for row, counts in enumerate(times):
        rows = numpy.concatenate(
            [numpy.flatnonzero(case["patient"] == patient) for patient in range(6) for _ in range(counts[patient])]
        )
        for side in (0, 1):
            severity, wrong = case["severity"][side, rows], case["wrong"][side, rows]
            assert drawn[side][row] == pytest.approx([severity.mean(), severity[wrong].mean()])


@pytest.mark.parametrize("skewed", [False, True])
def test_the_interval_against_scipys_bootstrap_where_every_patient_has_one_image(skewed):
    random = numpy.random.default_rng(2)
    differences = random.exponential(size=50) if skewed else random.normal(size=50)
    a, b = one_image_each(differences)
    found = resampling.compare(a=a, b=b, settings=settings(resamples=20_000))
    # Percentiles as far out as the t distribution asks for 50 patients.
    level = 1 - 2 * scipy.stats.norm.cdf(scipy.stats.t.ppf(0.025, 49) * (50 / 49) ** 0.5)
    assert 0.955 < level < 0.965
    wanted = scipy.stats.bootstrap(
        (differences,), numpy.mean, n_resamples=20_000, confidence_level=level, method="percentile", rng=random
    ).confidence_interval
    width = wanted.high - wanted.low
    assert (found.lower[0], found.upper[0]) == pytest.approx(tuple(wanted), abs=0.03 * width)
    assert found.difference[0] == pytest.approx(differences.mean())


def test_a_single_mean_has_the_interval_of_its_differences_from_zero():
    differences = numpy.random.default_rng(3).normal(size=30)
    ones = numpy.ones((30, 1))
    value, lower, upper, undefined = resampling.estimate(Ratios(differences[:, None], ones), settings=SETTINGS)
    assert undefined == [0]
    compared = resampling.compare(
        a=Ratios(differences[:, None], ones), b=Ratios(numpy.zeros((30, 1)), ones), settings=SETTINGS
    )
    assert (value, lower, upper) == (compared.difference, compared.lower, compared.upper)


@pytest.mark.parametrize("seed", range(4))
def test_the_exact_p_against_scipys_permutation_test_where_every_patient_has_one_image(seed):
    differences = numpy.random.default_rng(seed).normal(0.4, 1, size=9)
    a, b = one_image_each(differences)
    wanted = scipy.stats.permutation_test(
        (a.above[:, 0], b.above[:, 0]),
        lambda x, y, axis: numpy.abs(numpy.mean(x - y, axis=axis)),
        permutation_type="samples",
        alternative="greater",
        n_resamples=numpy.inf,
        vectorized=True,
    ).pvalue
    assert resampling.permutation_test(a=a, b=b, settings=SETTINGS)[0] == pytest.approx(wanted, abs=1e-12)


def ratio_and_error(severity: numpy.ndarray, below: numpy.ndarray, patient: numpy.ndarray) -> tuple[float, list[float]]:
    """A ratio, and what each patient contributes to its error, image by image and patient by patient."""
    ratio = severity.sum() / below.sum()
    return ratio, [
        sum(severity[patient == each] - ratio * below[patient == each]) / below.sum() for each in numpy.unique(patient)
    ]


@pytest.mark.parametrize("seed", range(4))
def test_the_exact_p_against_swapping_the_images_of_each_patient_by_hand(seed):
    case = images(seed, 7)
    a, b = sides(case)
    found = resampling.permutation_test(a=a, b=b, settings=SETTINGS)
    for column, below in enumerate([numpy.ones(case["wrong"].shape), case["wrong"].astype(float)]):
        statistic = []
        for swap in itertools.product([0, 1], repeat=7):
            take = numpy.array(swap)[case["patient"]]
            which = numpy.arange(len(take))
            (one, left), (two, right) = (
                ratio_and_error(case["severity"][side, which], below[side, which], case["patient"])
                for side in (take, 1 - take)
            )
            variance = sum((x - y) ** 2 for x, y in zip(left, right, strict=True))
            statistic.append(abs(one - two) / variance**0.5 if one != two else 0.0)
        assert found[column] == pytest.approx(
            numpy.mean(numpy.array(statistic) >= statistic[0] * (1 - 1e-9)), abs=1e-12
        )


def test_random_swaps_come_near_to_all_swaps():
    a, b = sides(images(3, 14))
    exact = resampling.permutation_test(a=a, b=b, settings=settings(permutations=2**14))
    random = resampling.permutation_test(a=a, b=b, settings=settings(permutations=2**14 - 1))
    assert (exact != random).any() and random == pytest.approx(exact, abs=0.012)
    assert (0.02 < exact).all() and (exact < 0.98).all()


def test_the_least_p_is_one_more_than_no_swap_among_one_more_than_all():
    a, b = one_image_each(numpy.random.default_rng(0).normal(5, 1, size=60))
    assert resampling.permutation_test(a=a, b=b, settings=SETTINGS)[0] == 1 / 1000


def test_swapping_a_and_b_turns_the_difference_around_and_nothing_else():
    a, b = sides(images(4, 40))
    one, two = resampling.compare(a=a, b=b, settings=SETTINGS), resampling.compare(a=b, b=a, settings=SETTINGS)
    assert one.difference == pytest.approx(-two.difference)
    assert one.effect == pytest.approx(-two.effect)
    assert (one.p == two.p).all()
    assert one.lower == pytest.approx(-two.upper) and one.upper == pytest.approx(-two.lower)


@pytest.mark.parametrize("value", [3.0, 0.1, 0.0])
def test_patients_who_are_all_alike_have_no_interval(value):
    """Ten who all cost 3 do not show that every other patient does: an interval from 3 to 3 would be certain of it."""
    images = numpy.random.default_rng(0).integers(1, 4, (10, 1)).astype(float)  # of each patient
    found = resampling.estimate(Ratios(value * images, images), settings=SETTINGS)
    assert found[0] == pytest.approx(value) and numpy.isnan(found[1:3]).all() and found[3] == [0]
    one_differs = numpy.where(numpy.arange(10)[:, None] == 0, value + 1, value)
    _, lower, upper, _ = resampling.estimate(Ratios(one_differs * images, images), settings=SETTINGS)
    assert lower < upper


def test_the_same_scores_show_nothing():
    a, _ = sides(images(5, 30))
    found = resampling.compare(a=a, b=a, settings=SETTINGS)
    assert (found.p == 1).all() and (found.difference == 0).all()
    assert numpy.isnan([found.lower, found.upper, found.effect]).all()


def test_the_effect_is_the_standardised_mean_of_paired_differences():
    differences = numpy.random.default_rng(6).normal(0.3, 1, size=25)
    a, b = one_image_each(differences)
    assert resampling.effect_size(a=a, b=b)[0] == pytest.approx(differences.mean() / differences.std(ddof=1))


def test_the_error_behind_the_effect_is_that_of_the_bootstrap():
    a, b = sides(images(7, 300))
    found = resampling.compare(a=a, b=b, settings=SETTINGS)
    times = resampling.resample(patients=300, settings=settings(resamples=5000))
    spread = (resampling.draws(a, times=times).each - resampling.draws(b, times=times).each).std(axis=0)
    assert found.difference / found.effect / 300**0.5 == pytest.approx(spread, rel=0.05)


def test_a_pairs_numbers_do_not_depend_on_the_pairs_beside_it(monkeypatch):
    cases = [sides(images(seed, 20, most=1)) for seed in range(30)]
    joined = [
        Ratios(*(numpy.hstack([getattr(case[side], name) for case in cases]) for name in ("above", "below")))
        for side in (0, 1)
    ]
    monkeypatch.setattr(resampling, "WIDE", 1 << 18)  # a few pairs a block
    whole = resampling.compare(a=joined[0], b=joined[1], settings=SETTINGS)
    for number in (0, 13, 29):
        alone = resampling.compare(a=cases[number][0], b=cases[number][1], settings=SETTINGS)
        columns = slice(2 * number, 2 * number + 2)
        for name in ("difference", "lower", "upper", "p", "effect"):
            assert getattr(whole, name)[columns] == pytest.approx(getattr(alone, name), nan_ok=True), name


def test_what_does_not_exist_is_nan_and_counted():
    case = images(8, 12, most=1)
    case["wrong"][0] = [True, True, *[False] * 10]
    case["severity"] = case["wrong"] * 2.0
    a, b = sides(case)
    found = resampling.compare(a=a, b=b, settings=SETTINGS)
    # Mean severity exists always, that of mistakes not where neither mistake is drawn.
    assert found.undefined[0] == 0 and 0.05 * 1000 < found.undefined[1] < 0.2 * 1000
    assert not numpy.isnan(found.lower[0]) and numpy.isnan(found.lower[1]) and numpy.isnan(found.upper[1])
    assert found.p[1] == 1  # Every mistake costs 2.
    case["wrong"][0] = False
    case["severity"] = case["wrong"] * 2.0
    a, b = sides(case)
    found = resampling.compare(a=a, b=b, settings=SETTINGS)
    assert numpy.isnan([found.a[1], found.difference[1], found.p[1], found.effect[1]]).all()
    assert found.undefined[1] == 1000 and found.a[0] == 0


def test_one_patient_has_a_difference_but_no_interval_and_no_case():
    a, b = sides(images(1, 1))
    found = resampling.compare(a=a, b=b, settings=SETTINGS)
    assert numpy.isnan(found.lower).all() and numpy.isnan(found.effect).all()
    assert found.p[0] == 1


def test_no_pairs_give_no_numbers():
    nothing = Ratios(numpy.empty((4, 0)), numpy.empty((4, 0)))
    assert len(resampling.compare(a=nothing, b=nothing, settings=SETTINGS).p) == 0


def test_sums_that_do_not_fit_are_refused():
    a, b = sides(images(0, 5))[0], sides(images(0, 6))[0]
    with pytest.raises(SeverityError, match="cannot be compared"):
        resampling.compare(a=a, b=b, settings=SETTINGS)


# Simulations. Patients have 1, 2, 3, ... images, half of them one alone (geometric, mean 2); the images of a patient share
# half of the variance; severities are skewed. Every column of a Ratios is a study of its own.

STUDIES, PATIENTS, BLOCKS = 1000, 60, 10


def study(random: numpy.random.Generator, *, methods: int, shift: float, error: tuple[float, ...]) -> tuple:
    """Severity and mistakes (methods, N) of one study, and its patients. Method m errs with probability error[m].

    What a method makes of an image is its patient's own effect on that method, one of the image itself, and chance.
    """
    patient = numpy.repeat(numpy.arange(PATIENTS), random.geometric(0.5, PATIENTS))
    effect = random.normal(size=(methods, PATIENTS))[:, patient]
    noise = 0.6 * random.normal(size=len(patient)) + 0.8 * random.normal(size=(methods, len(patient)))
    wrong = (effect + noise) / 2**0.5 < scipy.stats.norm.ppf(error)[:, None]
    depth = numpy.exp(0.5 * (random.normal(size=(methods, PATIENTS))[:, patient] + random.normal(size=wrong.shape)))
    return wrong * (depth + shift * (numpy.arange(methods) == 0)[:, None]), wrong, patient


def simulated(seed: int, count: int, **options) -> tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray]:
    """Sums of patients (count, methods, P) of severities, of mistakes and of images."""
    random = numpy.random.default_rng(seed)
    found: list[list] = [[], [], []]
    for _ in range(count):
        severity, wrong, patient = study(random, **options)
        for sums, values in zip(found, (severity, wrong.astype(float), numpy.ones(wrong.shape)), strict=True):
            sums.append(resampling.per_patient(values, patient=patient, patients=PATIENTS).T)
    return tuple(numpy.array(each) for each in found)


def differences_of_two(seed: int, count: int, **options) -> dict[str, list[Ratios]]:
    severity, wrong, every = simulated(seed, count, methods=2, **options)
    return {
        "mean": [Ratios(severity[:, side].T, every[:, side].T) for side in (0, 1)],
        "mistakes": [Ratios(severity[:, side].T, wrong[:, side].T) for side in (0, 1)],
    }


def test_a_known_difference_is_covered_at_the_level_told():
    options = {"shift": 0.3, "error": (0.4, 0.5)}
    many = {name: [] for name in ("mean", "mistakes")}
    for name, (a, b) in differences_of_two(99, 3000, **options).items():
        whole = [each.above.sum() / each.below.sum() for each in (a, b)]  # of 180,000 patients
        many[name] = whole[0] - whole[1]
    assert many["mistakes"] == pytest.approx(0.3, abs=0.01)
    hit = dict.fromkeys(many, 0)
    for block in range(BLOCKS):
        for name, (a, b) in differences_of_two(block, STUDIES // BLOCKS, **options).items():
            times = resampling.resample(patients=PATIENTS, settings=settings(seed=block))
            drawn = resampling.draws(a, times=times).each - resampling.draws(b, times=times).each
            lower, upper = resampling.interval(drawn, clusters=PATIENTS, level=0.95)
            hit[name] += int(((lower <= many[name]) & (many[name] <= upper)).sum())
    assert 0.93 <= hit["mean"] / STUDIES <= 0.97 and 0.93 <= hit["mistakes"] / STUDIES <= 0.97, hit


def test_a_bootstrap_of_images_would_not_cover_it():
    random = numpy.random.default_rng(0)
    hit = {"images": 0, "patients": 0}
    for _ in range(STUDIES):
        severity, _, patient = study(random, methods=2, shift=0.0, error=(0.5, 0.5))
        for name, cluster in (("images", numpy.arange(len(patient))), ("patients", patient)):
            count = int(cluster.max()) + 1
            above, below = (
                resampling.per_patient(rows, patient=cluster, patients=count)
                for rows in (severity, numpy.ones(severity.shape))
            )
            times = resampling.resample(patients=count, settings=settings(resamples=500))
            drawn = resampling.draws(Ratios(above, below), times=times).each
            (lower,), (upper,) = resampling.interval(drawn[:, :1] - drawn[:, 1:], clusters=count, level=0.95)
            hit[name] += lower <= 0 <= upper
    assert hit["images"] / STUDIES < 0.9 < 0.93 <= hit["patients"] / STUDIES <= 0.97, hit


@pytest.mark.parametrize("error", [(0.4, 0.4, 0.4), (0.3, 0.5, 0.7)])
def test_without_a_real_difference_few_tables_show_one(error):
    """Three methods, three comparisons of the severity of mistakes; also where they err differently often."""
    pairs = list(itertools.combinations(range(3), 2))
    alarms = {"corrected": 0, "uncorrected": 0}
    for block in range(BLOCKS):
        severity, wrong, _ = simulated(100 + block, STUDIES // BLOCKS, methods=3, shift=0.0, error=error)
        a, b = (
            Ratios(*(sums[:, [pair[side] for pair in pairs]].reshape(-1, PATIENTS).T for sums in (severity, wrong)))
            for side in (0, 1)
        )
        found = resampling.compare(a=a, b=b, settings=settings(seed=block))
        for table in range(STUDIES // BLOCKS):
            rows = slice(3 * table, 3 * table + 3)
            for name, p in (("corrected", statistics.holm(found.p[rows])), ("uncorrected", found.p[rows])):
                verdicts = [
                    statistics.verdict(difference=d, lower=low, upper=high, p=each, level=0.95)
                    for d, low, high, each in zip(
                        found.difference[rows], found.lower[rows], found.upper[rows], p, strict=True
                    )
                ]
                alarms[name] += any(verdict != "no difference shown" for verdict in verdicts)
    assert alarms["corrected"] / STUDIES <= 0.05 < alarms["uncorrected"] / STUDIES, alarms


def test_a_real_difference_is_shown_in_nearly_every_table():
    a, b = differences_of_two(7, 200, shift=1.0, error=(0.5, 0.5))["mistakes"]
    found = resampling.compare(a=a, b=b, settings=SETTINGS)
    assert ((found.p < 0.05) & (found.lower > 0)).mean() > 0.9
