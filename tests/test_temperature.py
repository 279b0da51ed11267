"""Temperature scaling: it stays a distribution, changes no argmax, never worsens validation, and undoes a known T."""

import numpy
import pytest
import scipy.special
import sklearn.metrics
from hypothesis import given, strategies

from severity.arrays.labelsets import most_specific, shares
from severity.core.errors import SeverityError
from severity.decisions import class_rules, temperature
from severity.decisions.class_rules import rank
from severity.tree import costs
from tests.trees import chexpert_default, flat, random_trees, six_classes

TEMPERATURES = strategies.floats(0.2, 5)


def logits(images: int, classes: int, seed: int) -> numpy.ndarray:
    return 2 * numpy.random.default_rng(seed).normal(size=(images, classes))


def single(images: int, classes: int, seed: int) -> numpy.ndarray:
    """(images, classes) bool, one true class each."""
    return numpy.eye(classes, dtype=bool)[numpy.random.default_rng(seed).integers(0, classes, images)]


@given(TEMPERATURES, strategies.integers(0, 1000))
def test_scaling_is_dividing_the_logits(value, seed):
    raw = logits(6, 5, seed)
    scaled = temperature.scale(scipy.special.log_softmax(raw, axis=1), value)
    assert scaled == pytest.approx(scipy.special.softmax(raw / value, axis=1), abs=1e-9)
    assert temperature.scale_logits(raw, value) == pytest.approx(raw / value)


@given(TEMPERATURES, strategies.integers(0, 1000))
def test_a_scaled_posterior_is_a_distribution_with_the_same_argmax(value, seed):
    log_posterior = scipy.special.log_softmax(logits(20, 7, seed), axis=1).astype(numpy.float32)
    log_posterior[0] = numpy.where(numpy.eye(7)[3] == 1, 0, -1e4)  # as good as zeros and a one
    posterior, scaled = numpy.exp(log_posterior), temperature.scale(log_posterior, value)
    assert (scaled >= 0).all() and scaled.sum(axis=1) == pytest.approx(1)
    tree = flat(7)
    before, after = (rank("argmax", posterior=p, cost=costs.path(tree), hierarchy=tree) for p in (posterior, scaled))
    assert (before == after).all()


@pytest.mark.parametrize("rule", class_rules.RULES)
def test_a_temperature_of_one_changes_no_ranking(rule):
    tree = chexpert_default()
    log_posterior = scipy.special.log_softmax(logits(200, 14, seed=1), axis=1)
    before, after = (
        rank(rule, posterior=p, cost=costs.lca_height(tree), hierarchy=tree)
        for p in (numpy.exp(log_posterior), temperature.scale(log_posterior, 1.0))
    )
    assert (before == after).all()


@given(random_trees(), strategies.integers(0, 1000))
def test_the_fit_never_raises_the_loss_it_fits(tree, seed):
    size = len(tree.classes)
    log_posterior = scipy.special.log_softmax(logits(15, size, seed), axis=1)
    random = numpy.random.default_rng(seed)
    truth = random.random((15, size)) < 0.3
    value = temperature.fit(log_posterior, truth, tree)
    wanted = shares(truth, tree)
    losses = [-(wanted * numpy.log(temperature.scale(log_posterior, each))).sum() for each in (1.0, value)]
    assert losses[1] <= losses[0] + 1e-9
    for other in (0.1, 0.5, 2.0, 10.0):  # and no other temperature is better
        assert losses[1] <= -(wanted * numpy.log(temperature.scale(log_posterior, other))).sum() + 1e-4
    cells = truth.astype(float)
    cells[random.random(cells.shape) < 0.2] = numpy.nan
    raw = logits(15, size, seed)
    value = temperature.fit_logits(raw, cells)
    known = ~numpy.isnan(cells)
    losses = [
        sklearn.metrics.log_loss(
            cells[known], scipy.special.expit(temperature.scale_logits(raw, each))[known], labels=[0, 1]
        )
        for each in (1.0, value)
    ]
    assert losses[1] <= losses[0] + 1e-9


def test_the_fit_finds_the_temperature_that_made_the_data():
    random = numpy.random.default_rng(0)
    raw = 1.5 * random.normal(size=(20_000, 6))
    truth = numpy.stack([random.multinomial(1, p) for p in scipy.special.softmax(raw, axis=1)]).astype(bool)
    overconfident = scipy.special.log_softmax(2.5 * raw, axis=1)
    assert temperature.fit(overconfident, truth, flat(6)) == pytest.approx(2.5, rel=0.03)
    cells = (random.random(raw.shape) < scipy.special.expit(raw)).astype(float)
    assert temperature.fit_logits(0.5 * raw, cells) == pytest.approx(0.5, rel=0.03)


def test_where_nothing_can_be_fitted_it_is_one():
    raw = logits(5, 6, seed=0)
    assert temperature.fit(scipy.special.log_softmax(raw, axis=1), numpy.zeros((5, 6), dtype=bool), six_classes()) == 1
    assert temperature.fit_logits(raw, numpy.full((5, 6), numpy.nan)) == 1


def test_words_and_wrong_temperatures():
    assert temperature.split("crm_ts") == ("crm", True)
    assert temperature.split("top_down") == ("top_down", False)
    with pytest.raises(SeverityError, match="must be above 0"):
        temperature.scale(numpy.eye(2), 0.0)


def test_the_most_specific_labels_by_hand():
    tree = chexpert_default()
    truth = numpy.zeros((1, 14), dtype=bool)
    named = ["Lung Opacity", "Consolidation", "Pneumonia", "Fracture"]
    truth[0, [tree.classes.index(name) for name in named]] = True
    kept = most_specific(truth, tree)[0]
    assert [tree.classes[k] for k in numpy.flatnonzero(kept)] == ["Pneumonia", "Fracture"]
    assert shares(truth, tree).sum() == 1 and shares(truth, tree).max() == 0.5
