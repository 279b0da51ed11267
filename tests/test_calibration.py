"""Calibration against loops and scikit-learn, and on probabilities that are calibrated by construction."""

import numpy
import pytest
import scipy.special
import sklearn.metrics
from hypothesis import given, strategies

from severity.arrays.labelsets import shares
from severity.core.errors import SeverityError
from severity.metrics import calibration
from tests.trees import chexpert_default, flat, random_trees, six_classes


def loop(confidence: numpy.ndarray, right: numpy.ndarray, bins: int = 15) -> float:
    total = 0.0
    for bin_ in range(bins):
        inside = [
            i for i, c in enumerate(confidence) if bin_ / bins <= c < (bin_ + 1) / bins or (bin_ == bins - 1 and c == 1)
        ]
        if inside:
            gap = numpy.mean([right[i] for i in inside]) - numpy.mean([confidence[i] for i in inside])
            total += len(inside) / len(confidence) * abs(gap)
    return total


@given(strategies.integers(0, 1000))
def test_the_expected_error_against_a_loop(seed):
    random = numpy.random.default_rng(seed)
    confidence, right = random.random(60), random.random(60) < 0.5
    confidence[:2] = 0, 1
    assert calibration.expected_error(confidence, right) == pytest.approx(loop(confidence, right))


@given(strategies.integers(0, 1000))
def test_the_bins_are_those_of_the_expected_error(seed):
    random = numpy.random.default_rng(seed)
    confidence, right = random.random(60) ** 3, random.random(60) < 0.5
    confidence[:3] = 0, 1, 2 / 15
    found = calibration.bins(confidence, right)
    assert sum(found["n"]) == 60 and len(found["n"]) == calibration.BINS
    filled = [each for each in zip(found["n"], found["confidence"], found["right"], strict=True) if each[0]]
    assert sum(n / 60 * abs(r - c) for n, c, r in filled) == pytest.approx(loop(confidence, right), abs=1e-5)
    for place, (n, c, r) in enumerate(zip(found["n"], found["confidence"], found["right"], strict=True)):
        assert (c is None and r is None) if n == 0 else place / 15 - 1e-5 <= c <= (place + 1) / 15 + 1e-5


@given(random_trees(), strategies.integers(0, 1000))
def test_of_posteriors_against_loops(tree, seed):
    random = numpy.random.default_rng(seed)
    size = len(tree.classes)
    posterior = random.dirichlet(numpy.ones(size), 25)
    truth = random.random((25, size)) < 0.3
    truth[0, 0] = True
    found = calibration.of_posterior(log_posterior=numpy.log(posterior), labels=truth, hierarchy=tree)
    kept = truth.any(axis=1)
    posterior, truth, wanted = posterior[kept], truth[kept], shares(truth[kept], tree)
    right = [true[p.argmax()] for p, true in zip(posterior, truth, strict=True)]
    assert found["images"] == kept.sum()
    assert found["ece_any"] == pytest.approx(loop(posterior.max(axis=1), right))
    shared = [t[p.argmax()] for p, t in zip(posterior, wanted, strict=True)]
    assert found["ece"] == pytest.approx(loop(posterior.max(axis=1), shared))
    assert found["bins"] == calibration.bins(posterior.max(axis=1), numpy.array(shared))
    assert found["classwise_ece"] == pytest.approx(
        numpy.mean([loop(posterior[:, k], wanted[:, k]) for k in range(size)])
    )
    assert found["nll"] == pytest.approx(
        -numpy.mean([(t * numpy.log(p)).sum() for p, t in zip(posterior, wanted, strict=True)])
    )
    assert found["brier"] == pytest.approx(
        numpy.mean([((t - p) ** 2).sum() for p, t in zip(posterior, wanted, strict=True)])
    )


def test_with_one_true_class_nll_and_brier_are_scikit_learns():
    random = numpy.random.default_rng(0)
    posterior = random.dirichlet(numpy.ones(14), 200)
    labels = random.integers(0, 14, 200)
    truth = numpy.eye(14, dtype=bool)[labels]
    found = calibration.of_posterior(log_posterior=numpy.log(posterior), labels=truth, hierarchy=chexpert_default())
    assert found["nll"] == pytest.approx(sklearn.metrics.log_loss(labels, posterior, labels=range(14)))
    brier = sum(sklearn.metrics.brier_score_loss(truth[:, k], posterior[:, k]) for k in range(14))
    assert found["brier"] == pytest.approx(brier)
    assert found["ece"] == found["ece_any"]


def test_of_labels_against_scikit_learn_on_the_known_cells():
    random = numpy.random.default_rng(1)
    marginal = random.random((100, 6))
    truth = (random.random((100, 6)) < 0.4).astype(float)
    truth[random.random((100, 6)) < 0.3] = numpy.nan
    truth[:, 5] = numpy.nan
    found = calibration.of_labels(logits=scipy.special.logit(marginal), truth=truth)
    known = ~numpy.isnan(truth)
    assert found["cells"] == known.sum()
    assert found["nll"] == pytest.approx(sklearn.metrics.log_loss(truth[known], marginal[known]))
    assert found["brier"] == pytest.approx(sklearn.metrics.brier_score_loss(truth[known], marginal[known]))
    assert found["ece"] == pytest.approx(
        numpy.mean([loop(marginal[known[:, k], k], truth[known[:, k], k]) for k in range(5)])
    )


def test_calibrated_probabilities_have_almost_no_error_and_boasting_ones_do():
    random = numpy.random.default_rng(2)
    posterior = random.dirichlet(numpy.ones(6), 50_000)
    truth = numpy.stack([random.multinomial(1, p) for p in posterior]).astype(bool)
    honest = calibration.of_posterior(log_posterior=numpy.log(posterior), labels=truth, hierarchy=flat(6))
    boasting = posterior**3 / (posterior**3).sum(axis=1, keepdims=True)
    found = calibration.of_posterior(log_posterior=numpy.log(boasting), labels=truth, hierarchy=flat(6))
    assert honest["ece"] < 0.01 and honest["classwise_ece"] < 0.01
    for name in ("ece", "classwise_ece", "nll", "brier"):
        assert found[name] > honest[name]


def test_certainty_stays_finite_and_nothing_to_score_is_told():
    tree = six_classes()
    logits, truth = 1e3 * numpy.eye(6)[[0, 1]], numpy.eye(6, dtype=bool)[[0, 2]]
    log_posterior = scipy.special.log_softmax(logits, axis=1)
    found = calibration.of_posterior(log_posterior=log_posterior, labels=truth, hierarchy=tree)
    assert found["ece"] == 0.5 and found["brier"] == 1 and numpy.isfinite(found["nll"])
    found = calibration.of_labels(logits=2 * logits - 1e3, truth=truth.astype(float))
    assert numpy.isfinite(found["nll"])
    with pytest.raises(SeverityError, match="has a true class"):
        calibration.of_posterior(log_posterior=log_posterior, labels=truth & False, hierarchy=tree)
    with pytest.raises(SeverityError, match="is masked"):
        calibration.of_labels(logits=logits, truth=numpy.full((2, 6), numpy.nan))
