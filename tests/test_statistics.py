"""Numbers over seeds, Holm's correction, verdicts."""

import itertools
import math

import numpy
import pytest
import scipy.stats
from hypothesis import given, strategies

from severity.summary import statistics


def test_medians_over_seeds_are_true_medians_and_do_not_hide_a_missing_value():
    found = statistics.over_seeds([3.0, 1.0, 2.0, 7.0])
    assert found == {
        "n": 4,
        "missing": 0,
        "mean": 3.25,
        "median": 2.5,
        "min": 1.0,
        "max": 7.0,
        "lower_quartile": 1.75,
        "upper_quartile": 4.0,
    }
    nothing = dict.fromkeys(("mean", "median", "min", "max", "lower_quartile", "upper_quartile"))
    assert statistics.over_seeds([1.0, None, 2.0]) == {"n": 3, "missing": 1, **nothing}
    assert statistics.over_seeds([]) == {"n": 0, "missing": 0, **nothing}


@pytest.mark.parametrize("values", [[4.0], [4.0, 1.0]])
def test_under_three_seeds_there_are_no_quartiles_and_no_skewness(values):
    found = statistics.over_seeds(values, skewness=True)
    assert found["lower_quartile"] is None and found["upper_quartile"] is None and found["skewness"] is None
    assert found["median"] == found["mean"] == sum(values) / len(values)


def test_skewness_is_told_where_it_is_asked_for():
    values = [0.0, 0.0, 1.0, 5.0]
    mean = sum(values) / 4
    moments = [sum((value - mean) ** power for value in values) / 4 for power in (2, 3)]
    assert statistics.over_seeds(values, skewness=True)["skewness"] == pytest.approx(moments[1] / moments[0] ** 1.5)
    assert statistics.over_seeds([2.0, 2.0, 2.0], skewness=True)["skewness"] is None
    assert "skewness" not in statistics.over_seeds(values)


def test_the_spread_of_a_number_that_a_seed_lacks_is_not_told():
    assert statistics.spread([0.5, -1.0]) == {"seed_min": -1.0, "seed_median": -0.25, "seed_max": 0.5}
    assert set(statistics.spread([0.5, math.nan]).values()) == {None}


def test_holm_on_published_examples():
    # The worked example of Holm's method in the documentation of pingouin, and that of Wikipedia's article on it.
    assert statistics.holm([0.50, 0.003, 0.32, 0.054, 0.0003]) == pytest.approx([0.64, 0.012, 0.64, 0.162, 0.0015])
    assert statistics.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


@given(strategies.lists(strategies.sampled_from([0.0, 0.001, 0.01, 0.02, 0.04, 0.2, 0.9, 1.0]), max_size=7))
def test_holm_is_the_closure_of_bonferronis_test(p):
    """A hypothesis falls when every intersection that holds it falls, each tested at the least p times its size."""
    found = statistics.holm(p)
    for i in range(len(p)):
        sets = (
            each for size in range(1, len(p) + 1) for each in itertools.combinations(range(len(p)), size) if i in each
        )
        assert found[i] == pytest.approx(max(min(1.0, len(each) * min(p[j] for j in each)) for each in sets))


def test_holm_leaves_out_what_is_no_test():
    found = statistics.holm([0.01, numpy.nan, 0.02])
    assert found[[0, 2]] == pytest.approx([0.02, 0.02]) and numpy.isnan(found[1])
    assert len(statistics.holm([])) == 0


def test_holm_keeps_the_family_where_uncorrected_tests_do_not():
    p = numpy.random.default_rng(0).random((4000, 10))
    share = (numpy.array([statistics.holm(row) for row in p]) < 0.05).any(axis=1).mean()
    allowed = scipy.stats.binom.ppf(0.999, 4000, 0.05) / 4000
    assert share <= allowed < (p < 0.05).any(axis=1).mean()


@pytest.mark.parametrize(
    ("difference", "lower", "upper", "p", "told"),
    [
        (-0.1, -0.2, -0.01, 0.01, "A milder"),
        (0.1, 0.01, 0.2, 0.01, "B milder"),
        (-0.1, -0.2, -0.01, 0.05, "no difference shown"),
        (-0.1, -0.2, 0.0, 0.01, "no difference shown"),
        (0.0, 0.0, 0.0, 1.0, "no difference shown"),
        (-0.1, numpy.nan, numpy.nan, 0.01, "no difference shown"),
        (numpy.nan, numpy.nan, numpy.nan, numpy.nan, "no difference shown"),
    ],
)
def test_a_difference_is_shown_by_p_and_interval_together(difference, lower, upper, p, told):
    assert statistics.verdict(difference=difference, lower=lower, upper=upper, p=p, level=0.95) == told


def test_the_word_of_a_verdict_is_that_of_the_metric():
    given = {"difference": -1.0, "lower": -2.0, "upper": -0.5, "p": 0.001, "level": 0.95}
    assert statistics.verdict(**given, word="errs less") == "A errs less"
