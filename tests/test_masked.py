"""Decisions for labels whose truth is masked: neither right nor wrong, and bounded by what the masked labels may be."""

import itertools

import numpy
import pytest
from hypothesis import given, strategies

import severity
from severity.arrays import distances
from severity.arrays.labelsets import most_specific, undetermined
from severity.core.hierarchy import Hierarchy
from severity.metrics import class_metrics, masked, node_metrics
from severity.tree import costs
from tests.trees import chexpert_default, random_tree

SEEDS = strategies.integers(0, 2**32 - 1)
COSTS = {"lca_height": costs.lca_height, "path": costs.path}


def completions(labels):
    """Every row of labels that the masked ones may stand for."""
    places = numpy.flatnonzero(numpy.isnan(labels))
    for values in itertools.product((0.0, 1.0), repeat=len(places)):
        whole = labels.copy()
        whole[places] = values
        yield whole


def right_and_severity(decision, labels, tree, cost):
    """By hand: whether a decision is right for one image whose labels are all known, and what it costs."""
    true = most_specific(labels[None] == 1, tree)[0]
    return bool(true[decision]), float(cost[decision, true].min())


@given(
    seed=SEEDS,
    classes=strategies.integers(2, 5),
    inner=strategies.integers(1, 3),
    name=strategies.sampled_from(sorted(COSTS)),
)
def test_bounds_are_what_masked_labels_can_do(seed, classes, inner, name):
    tree = random_tree(seed=seed, classes=classes, inner=inner)
    rng = numpy.random.default_rng(seed)
    cost = COSTS[name](tree)
    labels = rng.choice([0.0, 1.0, numpy.nan], (6, len(tree.classes)), p=[0.4, 0.3, 0.3])
    labels[:, 0] = numpy.where((labels == 1).any(axis=1), labels[:, 0], 1.0)
    decided = rng.integers(0, len(tree.classes), len(labels))
    unknown = undetermined(labels, tree)
    everything = [
        [right_and_severity(decision, whole, tree, cost) for whole in completions(row)]
        for decision, row in zip(decided, labels, strict=True)
    ]
    for row, outcomes in enumerate(everything):
        assert unknown[row, decided[row]] == (len({right for right, _ in outcomes}) == 2)
    found = masked.bounds(decided=decided, labels=labels, cost=cost, hierarchy=tree)
    errors = [[not right for right, _ in each] for each in everything]
    severities = [[severity for _, severity in each] for each in everything]
    assert found["images"] == unknown[numpy.arange(len(labels)), decided].sum()
    for key, each in (("top1_error", errors), ("hierarchical_distance_at_1", severities)):
        ends = [numpy.mean([end(values) for values in each]) for end in (min, max)]
        assert found[key] == pytest.approx(ends)


@given(seed=SEEDS, classes=strategies.integers(2, 5), inner=strategies.integers(1, 3))
def test_a_node_is_undetermined_where_masked_labels_change_whether_it_is_right(seed, classes, inner):
    tree = random_tree(seed=seed, classes=classes, inner=inner)
    rng = numpy.random.default_rng(seed)
    labels = rng.choice([0.0, 1.0, numpy.nan], (4, len(tree.classes)), p=[0.4, 0.3, 0.3])
    labels[:, 0] = numpy.where((labels == 1).any(axis=1), labels[:, 0], 1.0)
    nodes = rng.integers(0, len(tree.parents), len(labels))
    for node, row, found in zip(nodes, labels, node_metrics.unknown(nodes, labels, tree), strict=True):
        below = tree.classes_below[node]
        right = {bool(most_specific(whole[None] == 1, tree)[0, below].any()) for whole in completions(row)}
        assert found == (len(right) == 2)


CHEXPERT = chexpert_default()
PLACE = {name: place for place, name in enumerate(CHEXPERT.classes)}


def one_image(**states):
    labels = numpy.zeros((1, len(CHEXPERT.classes)))
    for name, state in states.items():
        labels[0, PLACE[name.replace("_", " ")]] = state
    return labels


def decision(name):
    first = PLACE[name]
    return numpy.array([[first, *(k for k in range(len(CHEXPERT.classes)) if k != first)]])


@pytest.mark.parametrize(
    ("states", "decided", "is_known"),
    [
        ({"Edema": 1, "Fracture": numpy.nan}, "Fracture", False),
        ({"Edema": 1, "Fracture": numpy.nan}, "Edema", True),
        ({"Edema": 1, "Fracture": numpy.nan}, "Pneumothorax", True),
        # What the opacity is, nobody knows: an edema, or nothing that has a name.
        ({"Lung_Opacity": 1, "Edema": numpy.nan}, "Lung Opacity", False),
        # Something more specific is known to be true, so the opacity by itself is the wrong answer.
        ({"Lung_Opacity": numpy.nan, "Edema": 1}, "Lung Opacity", True),
    ],
)
def test_what_is_neither_right_nor_wrong_is_left_out_and_counted(states, decided, is_known):
    cost = severity.cost("lca_height", CHEXPERT)
    labels = numpy.concatenate([one_image(**states), one_image(Edema=1)])
    ranking = numpy.concatenate([decision(decided), decision("Edema")])
    found = severity.single_decision(ranking=ranking, truth=labels, cost=cost, hierarchy=CHEXPERT)
    assert found["images"] == 1 + is_known and found["undetermined"] == found["masked"]["images"] == 1 - is_known
    assert found["top1_error"] == (0.5 if is_known and decided != "Edema" else 0)
    if not is_known:
        assert found["masked"]["top1_error"] == [0, 0.5]
        assert found["masked"]["hierarchical_distance_at_1"][0] == 0 < found["masked"]["hierarchical_distance_at_1"][1]


def test_under_any_a_true_label_is_right_whatever_is_masked_below_it():
    cost = severity.cost("lca_height", CHEXPERT)
    labels = one_image(Lung_Opacity=1, Edema=numpy.nan)
    found = severity.single_decision(
        ranking=decision("Lung Opacity"), truth=labels, cost=cost, hierarchy=CHEXPERT, reading="any"
    )
    assert (found["images"], found["undetermined"], found["top1_error"]) == (1, 0, 0)


def test_nothing_that_can_be_scored_gives_no_number():
    tree = Hierarchy.from_parents([-1, 0, 0], [1, 2], ["a", "b"])
    found = severity.single_decision(
        ranking=[[1, 0]], truth=[[1, float("nan")]], cost=severity.cost("lca_height", tree), hierarchy=tree
    )
    assert (found["images"], found["undetermined"], found["top1_error"], found["severity_mean"]) == (0, 1, None, None)
    assert found["masked"] == {"images": 1, "top1_error": [0, 1], "hierarchical_distance_at_1": [0, 1]}


def test_masking_at_random_leaves_the_error_where_it_was_and_counting_masked_as_wrong_does_not():
    """Known answer: half of the decisions are right; a third of all labels is then hidden."""
    tree = Hierarchy.from_parents([-1, *[0] * 10], list(range(1, 11)), [f"c{k}" for k in range(10)])
    rng = numpy.random.default_rng(0)
    images = 20_000
    truth = numpy.zeros((images, 10))
    truth[numpy.arange(images)[:, None], rng.permuted(numpy.tile(numpy.arange(10), (images, 1)), axis=1)[:, :3]] = 1
    first = numpy.where(rng.random(images) < 0.5, truth.argmax(axis=1), truth.argmin(axis=1))
    ranking = numpy.argsort(-numpy.eye(10)[first], axis=1, kind="stable")
    hidden = numpy.where(rng.random(truth.shape) < 1 / 3, numpy.nan, truth)
    found = severity.single_decision(
        ranking=ranking, truth=hidden, cost=severity.cost("lca_height", tree), hierarchy=tree
    )
    whole = numpy.mean(truth[numpy.arange(images), first] == 0)
    # Images whose true labels are all hidden are left out besides: right decisions are a little rarer among these.
    assert found["top1_error"] == pytest.approx(whole, abs=0.03)
    least, largest = found["masked"]["top1_error"]
    assert least < whole < largest and largest > whole + 0.1


def test_the_history_of_a_training_leaves_them_out_too():
    tree = Hierarchy.from_parents([-1, 0, 0], [1, 2], ["a", "b"])
    labels = numpy.array([[1, numpy.nan], [1, 0], [0, 1.0]])
    cost = costs.lca_height(tree)
    decided = numpy.array([1, 1, 1])
    assert distances.mean_distance(decided=decided, labels=labels, cost=cost, hierarchy=tree) == 0.5
    assert distances.mean_distance(decided=decided[:1], labels=labels[:1], cost=cost, hierarchy=tree) is None


def test_determined_without_masks_is_everything():
    ranking = numpy.array([[1, 0], [0, 1]])
    assert class_metrics.determined(ranking, None).all()
    assert class_metrics.determined(ranking, numpy.array([[False, True], [False, True]])).tolist() == [False, True]
