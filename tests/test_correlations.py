"""Rank correlations over labels, and the AUROC of resampled patients."""

import numpy
import pytest
import scipy.stats
import sklearn.metrics
from hypothesis import given, strategies

from severity.comparison import correlations
from severity.comparison.resampling import Settings, resample

VALUES = strategies.lists(
    strategies.tuples(*[strategies.sampled_from([0.0, 0.5, 1.0, 2.0, 3.0, numpy.nan])] * 2), min_size=3, max_size=9
)


@given(VALUES)
def test_spearman_and_kendall_are_scipys_over_the_pairs_that_are_known(pairs):
    x, y = numpy.array(pairs).T
    known = ~numpy.isnan(x + y)
    found = correlations.spearman(x, y)
    if known.sum() < 3 or len(set(x[known])) == 1 or len(set(y[known])) == 1:
        assert numpy.isnan(found) and numpy.isnan(correlations.kendall(x, y))
    else:
        assert found == pytest.approx(scipy.stats.spearmanr(x[known], y[known]).statistic)
        assert correlations.kendall(x, y) == pytest.approx(scipy.stats.kendalltau(x[known], y[known]).statistic)


def test_sums_in_another_order_do_not_break_ties():
    x = numpy.array([0.1 + 0.2, 0.3, 1.0, 2.0])
    y = numpy.array([2.0, 1.0, 3.0, 4.0])
    assert x[0] != x[1]
    exact = numpy.array([0.3, 0.3, 1.0, 2.0])
    assert correlations.spearman(x, y) == pytest.approx(scipy.stats.spearmanr(exact, y).statistic)
    assert correlations.kendall(x, y) == pytest.approx(scipy.stats.kendalltau(exact, y).statistic)


def test_of_no_pairs_there_is_no_correlation():
    assert numpy.isnan(correlations.spearman(numpy.empty(0), numpy.empty(0)))


def test_the_auroc_of_a_resample_is_that_of_its_images_ties_and_masks_and_all():
    random = numpy.random.default_rng(2)
    patient = numpy.repeat(numpy.arange(30), random.integers(1, 5, 30))
    truth = (random.random((len(patient), 4)) < [0.03, 0.3, 0.9, 0.5]).astype(float)
    scores = numpy.round(random.random(truth.shape) + 0.3 * truth, 1)  # many ties
    truth[random.random(truth.shape) < 0.1] = numpy.nan
    truth[:, 3] = 0  # one kind of image only
    times = resample(patients=30, settings=Settings(resamples=200, permutations=1, level=0.95, seed=0))
    found = correlations.auroc_draws(scores=scores, truth=truth, patient=patient, times=times)
    lacking = 0
    for row, counts in enumerate(times):
        images = numpy.repeat(numpy.arange(len(patient)), counts[patient])
        for label in range(4):
            known = images[~numpy.isnan(truth[images, label])]
            if len(set(truth[known, label])) < 2:
                lacking += label < 3
                assert numpy.isnan(found[row, label])
            else:
                wanted = sklearn.metrics.roc_auc_score(truth[known, label], scores[known, label])
                assert found[row, label] == pytest.approx(wanted, abs=1e-12)
    assert lacking  # The rarest label is lacking in some resample, or this test would not see one.
