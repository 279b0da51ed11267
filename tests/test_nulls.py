"""Null hierarchies and trivial decisions: the laws that make them controls."""

import tempfile

import numpy
import pytest
import scipy.special
from hypothesis import given, strategies

from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.datasets import chexpert
from severity.decisions.class_rules import rank
from severity.decisions.decider import Decider
from severity.metrics import baselines, catalogue, class_metrics, null_trees, set_metrics
from severity.predictions.predictions import Predictions
from severity.tree import costs, nulls, trees
from tests.trees import TOP, chexpert_default, flat, random_trees, six_classes

SEEDS = strategies.integers(0, 1000)


@given(random_trees())
def test_the_flat_tree_has_one_distance(tree):
    made = nulls.flat(tree)
    size = len(tree.classes)
    assert made.classes == tree.classes
    assert (costs.lca_height(made) == 1 - numpy.eye(size)).all()


@given(random_trees(), SEEDS)
def test_the_shuffled_tree_has_the_same_shape_and_the_costs_move_with_the_classes(tree, seed):
    made = nulls.shuffled(tree, seed)
    assert made.classes == tree.classes
    assert sorted(zip(made.depth, made.height, strict=True)) == sorted(zip(tree.depth, tree.height, strict=True))
    for kind in (costs.lca_height, costs.path):
        _, cost = nulls.derive(tree, kind(tree), seed)["shuffled"]
        assert (cost == kind(made)).all()
        assert sorted(cost.ravel()) == sorted(kind(tree).ravel())
    assert (nulls.places_of(len(tree.classes), seed) != numpy.arange(len(tree.classes))).any()
    again = nulls.shuffled(tree, seed)
    assert (again.class_nodes == made.class_nodes).all() and again.names == made.names


def test_a_null_hierarchy_is_named_like_a_file():
    folder = TOP / "data/hierarchies"
    tree = trees.named(folder, "chexpert_pleural", chexpert.LABELS)
    assert (tree.parents == chexpert_default().parents).all()
    assert trees.named(folder, "chexpert_pleural@flat", chexpert.LABELS).height.max() == 1
    made = trees.named(folder, "chexpert_pleural@shuffled_3", chexpert.LABELS)
    assert (costs.path(made) == costs.path(nulls.shuffled(tree, 3))).all()
    for wrong in ("chexpert_pleural@flt", "chexpert_pleural@shuffled", "chexpert_pleural@shuffled_x"):
        with pytest.raises(SeverityError, match="known are chexpert_pleural@flat and"):
            trees.named(folder, wrong, chexpert.LABELS)
    with pytest.raises(SeverityError, match="There is no hierarchy"):
        trees.named(folder, "chexpert_plural@flat", chexpert.LABELS)


@given(random_trees())
def test_a_null_hierarchy_is_written_and_read_like_any_other(tree):
    with tempfile.TemporaryDirectory() as folder:
        for made in (nulls.flat(tree), nulls.shuffled(tree, 1)):
            made.write(f"{folder}/hierarchy.json")
            again = Hierarchy.read(f"{folder}/hierarchy.json")
            assert again.names == made.names and again.class_hash == tree.class_hash
            assert (again.class_nodes == made.class_nodes).all()


@given(random_trees(), SEEDS)
def test_under_the_flat_null_hd_at_1_is_the_error_times_its_cost(tree, seed):
    random = numpy.random.default_rng(seed)
    size = len(tree.classes)
    made, cost = nulls.derive(tree, costs.lca_height(tree), seed)["flat"]
    posterior = random.dirichlet(numpy.ones(size), 20)
    truth = random.random((20, size)) < 0.3
    truth[0, 0] = True
    ranking = rank("crm", posterior=posterior, cost=cost, hierarchy=made)
    found = class_metrics.single_decision(ranking=ranking, truth=truth, cost=cost)
    assert found["hierarchical_distance_at_1"] == pytest.approx(found["top1_error"] * cost.max())
    assert cost.sum() == pytest.approx(costs.lca_height(tree).sum())
    assert (ranking == rank("argmax", posterior=posterior, cost=cost, hierarchy=made)).all()


def test_constant_rankings_follow_the_frequencies():
    tree = six_classes()
    #                            a  b1 b2 c1 d1 d2
    counts = numpy.array([30, 0, 5, 15, 26, 24])
    validation = numpy.repeat(numpy.eye(6, dtype=bool), counts, axis=0)
    truth = numpy.eye(6, dtype=bool)[[3, 3, 3, 0]]
    found = baselines.rankings(validation=validation, truth=truth, cost=costs.lca_height(tree), hierarchy=tree)
    assert {name: tree.classes[ranking[0, 0]] for name, ranking in found.items()} == {
        "majority": "a",
        "least_risk": "d1",
        "best_constant": "c1",
    }
    for ranking in found.values():
        assert (numpy.sort(ranking, axis=1) == numpy.arange(6)).all()


def test_no_constant_ranking_has_a_lower_mean_severity_than_least_risk():
    tree = chexpert_default()
    cost = costs.path(tree)
    truth = numpy.eye(14, dtype=bool)[numpy.random.default_rng(0).integers(0, 14, 300) // 2]
    found = baselines.rankings(validation=truth, truth=truth, cost=cost, hierarchy=tree)
    assert (found["best_constant"] == found["least_risk"]).all()
    severity = class_metrics.severities(ranking=found["least_risk"], truth=truth, cost=cost).mean()
    every = [
        class_metrics.severities(ranking=numpy.full((300, 14), k), truth=truth, cost=cost).mean() for k in range(14)
    ]
    assert severity == min(every)


def test_without_a_true_class_in_validation_the_majority_is_the_first():
    found = baselines.rankings(
        validation=numpy.zeros((3, 4), dtype=bool),
        truth=numpy.eye(4, dtype=bool)[:2],
        cost=costs.path(flat(4)),
        hierarchy=flat(4),
    )
    assert found["majority"].tolist() == [[0, 1, 2, 3]] * 2


def test_the_random_baseline_is_the_mean_over_random_rankings():
    tree = chexpert_default()
    cost, rng = costs.lca_height(tree), numpy.random.default_rng(0)
    truth = rng.random((30, 14)) < 0.2
    truth[:, 0] |= ~truth.any(axis=1)
    truth[:3] = False
    unknown = (rng.random(truth.shape) < 0.2) & ~truth
    for hidden in (unknown & False, unknown):
        found = baselines.random(truth=truth, cost=cost, unknown=hidden)
        assert list(found) == [metric.name for metric in catalogue.baselines()]
        many = numpy.tile(truth, (400, 1)), numpy.tile(hidden, (400, 1))
        ranking = rng.permuted(numpy.tile(numpy.arange(14), (len(many[0]), 1)), axis=1)
        drawn = class_metrics.single_decision(ranking=ranking, truth=many[0], cost=cost, unknown=many[1])
        for name in ("top1_error", "mistake_severity", "hierarchical_distance_at_1"):
            assert found[name] == pytest.approx(drawn[name], rel=0.02), name
        sums = baselines._sums_over_orders(truth[3:], cost, ~hidden[3:], ["top1_error", "hierarchical_distance_at_1"])
        assert sums["hierarchical_distance_at_1"] / sums["top1_error"] == pytest.approx(found["mistake_severity"])
    plain = baselines.random(truth=truth, cost=cost, unknown=unknown & False)
    assert plain["hierarchical_distance_at_5"] == plain["hierarchical_distance_at_1"]


def test_trivial_sets():
    validation = numpy.array([[1, 0, 0], [0, 1, 1], [0, 1, 1], [numpy.nan, 0, 0]])
    found = baselines.label_sets(validation=validation, images=20_000, seed=0)
    assert found["all_positive"].all() and not found["all_negative"].any()
    assert (found["majority"] == [False, True, True]).all()
    assert found["random"].mean(axis=0) == pytest.approx([1 / 3, 1 / 2, 1 / 2], abs=0.02)
    again = baselines.label_sets(validation=validation, images=20_000, seed=0)
    assert (again["random"] == found["random"]).all()


def test_decent_decisions_beat_every_trivial_set_on_every_compared_metric():
    tree = chexpert_default()
    cost = costs.lca_height(tree)
    random = numpy.random.default_rng(0)
    truth = (random.random((500, 14)) < 0.15).astype(float)
    decided = (truth == 1) ^ (random.random((500, 14)) < 0.05)
    found, *trivial = (
        set_metrics.score(decided=each, truth=truth, cost=cost, hierarchy=tree)
        for each in (decided, *baselines.label_sets(validation=truth, images=500, seed=0).values())
    )
    assert set_metrics.not_better(found, dict(enumerate(trivial))) == []
    for other in trivial:  # and each trivial one is beaten by the others or itself
        told = set_metrics.not_better(other, dict(enumerate(trivial)))
        assert {each["metric"] for each in told} == set(set_metrics.COMPARED)


class TestManyShuffledTrees:
    RULES = ("argmax", "crm", "crm_ts", "crm_nodes", "hie", "top_down")

    @staticmethod
    def case(noise: float = 1.5, exclusive: bool = False) -> tuple[Predictions, numpy.ndarray]:
        tree, random = six_classes(), numpy.random.default_rng(0)
        truth = numpy.eye(6)[random.integers(0, 6, 200)]
        logits = 2 * truth @ numpy.exp(-costs.lca_height(tree)) + noise * random.normal(size=truth.shape)
        logits[:40] = logits[:40].round()  # Ties.
        known = {"log_posterior": scipy.special.log_softmax(logits, axis=1)} if exclusive else {"label_logits": logits}
        made = Predictions.of(
            tree,
            ids=numpy.arange(200).astype(str),
            patients=numpy.arange(200).astype(str),
            split=numpy.array(["validation"] * 60 + ["test"] * 140),
            truth=truth,
            run="net-ce-0",
            dataset="made up",
            **known,
        )
        return made, truth[60:] == 1

    @pytest.mark.parametrize("exclusive", [False, True])
    def test_the_first_class_is_that_of_the_whole_ranking(self, exclusive):
        tree, cost = six_classes(), costs.lca_height(six_classes())
        made, _ = self.case(exclusive=exclusive)
        decider, images = Decider.of(made, tree, cost), made.part("test")
        for other, its_cost in [(tree, cost), *nulls.shuffles(tree, cost, count=5, seed=3)]:
            for word in self.RULES:
                wanted = decider.rank(word, images, hierarchy=other, cost=its_cost)[:, 0]
                assert (decider.first(word, images, hierarchy=other, cost=its_cost) == wanted).all(), word

    def test_p_is_the_share_of_trees_that_do_as_well(self):
        tree, cost = six_classes(), costs.lca_height(six_classes())
        made, truth = self.case()
        decider, images = Decider.of(made, tree, cost), made.part("test")
        told = null_trees.permutation_test(
            self.RULES, images, truth, decider, unknown=~truth & False, shuffles=19, seed=5
        )
        assert set(told) == set(self.RULES) - {"argmax"}
        for word, of_rule in told.items():
            scores = [
                class_metrics.single_decision(
                    ranking=decider.rank(word, images, hierarchy=other, cost=its_cost), truth=truth, cost=cost
                )
                for other, its_cost in [(tree, cost), *nulls.shuffles(tree, cost, count=19, seed=5)]
            ]
            assert of_rule["trees"] == 19
            for metric in ("top1_error", "hierarchical_distance_at_1"):
                true, *null = [score[metric] for score in scores]
                found = of_rule[metric]
                wanted = [true, min(null), numpy.median(null), max(null)]
                assert [found[key] for key in ("value", "least", "median", "largest")] == pytest.approx(wanted)
                assert found["p"] == (1 + sum(each <= true + 1e-9 for each in null)) / 20

    def test_a_tree_that_made_the_predictions_is_better_than_most(self):
        tree, cost = six_classes(), costs.lca_height(six_classes())
        made, truth = self.case(noise=0.8)
        decider = Decider.of(made, tree, cost)
        told = null_trees.permutation_test(
            ["crm"], made.part("test"), truth, decider, unknown=~truth & False, shuffles=199, seed=0
        )
        assert told["crm"]["hierarchical_distance_at_1"]["p"] < 0.1

    def test_without_shuffles_or_rules_that_need_a_tree_there_is_nothing(self):
        made, truth = self.case()
        decider = Decider.of(made, six_classes(), costs.lca_height(six_classes()))
        for words, shuffles in ((["crm"], 0), (["argmax", "argmax_ts"], 5)):
            assert (
                null_trees.permutation_test(
                    words, made.part("test"), truth, decider, unknown=~truth & False, shuffles=shuffles, seed=0
                )
                == {}
            )
