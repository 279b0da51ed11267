"""Severity metrics: by hand, against a loop image by image, and the laws they must keep."""

import math

import numpy
import pytest
import scipy.stats
from hypothesis import given, strategies

import severity
from severity.arrays import probabilities
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.decisions.class_rules import rank
from severity.metrics import catalogue, class_metrics
from severity.tree import costs
from tests.trees import chexpert_default, random_trees, six_classes


def case(tree: Hierarchy, seed: int, images: int = 30, positives: float = 0.2) -> dict:
    """A random ranking and random sets of true classes, some of them empty."""
    random = numpy.random.default_rng(seed)
    size = len(tree.classes)
    ranking = numpy.array([random.permutation(size) for _ in range(images)], dtype=numpy.int32)
    truth = random.random((images, size)) < positives
    truth[0, 0] = True
    return {"ranking": ranking, "truth": truth, "cost": costs.lca_height(tree)}


def reference(*, ranking: numpy.ndarray, truth: numpy.ndarray, cost: numpy.ndarray) -> dict:
    """Image by image, class by class, with Python's own numbers."""
    severity, wrong, at = [], [], {1: [], 5: [], 20: []}
    for order, true in zip(ranking, truth, strict=True):
        members = [k for k in range(len(true)) if true[k]]
        if not members:
            continue
        nearest = [min(float(cost[k, y]) for y in members) for k in order]
        severity.append(nearest[0])
        wrong.append(order[0] not in members)
        for depth, values in at.items():
            values.append(math.fsum(nearest[:depth]) / len(nearest[:depth]))
    mistakes = [value for value, is_wrong in zip(severity, wrong, strict=True) if is_wrong]
    return {
        "images": len(severity),
        "top1_error": sum(wrong) / len(wrong),
        "mistake_severity": math.fsum(mistakes) / len(mistakes) if mistakes else None,
        **{f"hierarchical_distance_at_{depth}": math.fsum(values) / len(values) for depth, values in at.items()},
        "severity_mean": math.fsum(severity) / len(severity),
        "severity_median": sorted(severity)[len(severity) // 2]
        if len(severity) % 2
        else sum(sorted(severity)[len(severity) // 2 - 1 : len(severity) // 2 + 1]) / 2,
        "severity_min": min(severity),
        "severity_max": max(severity),
    }


@given(random_trees(), strategies.integers(0, 1000))
def test_against_a_loop_image_by_image(tree, seed):
    inputs = case(tree, seed)
    found, wanted = class_metrics.single_decision(**inputs), reference(**inputs)
    for name, value in wanted.items():
        assert found[name] == (value if value is None else pytest.approx(value, abs=1e-12)), name


@given(random_trees(), strategies.integers(0, 1000))
def test_the_means_of_per_image_numbers_are_the_metrics(tree, seed):
    inputs = case(tree, seed)
    scored = class_metrics.has_truth(inputs["truth"])
    whole = class_metrics.single_decision(**inputs)
    each = class_metrics.per_image(
        ranking=inputs["ranking"][scored], truth=inputs["truth"][scored], cost=inputs["cost"]
    )
    assert len(catalogue.ratios()) > 4
    for metric in catalogue.ratios():
        above, below = metric.parts
        if whole[metric.name] is not None:
            total = each[below].sum() if below else scored.sum()
            assert each[above].sum() / total == pytest.approx(whole[metric.name], abs=1e-12), metric.name
    severity = class_metrics.severities(
        ranking=inputs["ranking"][scored], truth=inputs["truth"][scored], cost=inputs["cost"]
    )
    assert (each["hierarchical_distance_at_1"] == severity).all()


def test_the_order_of_the_same_classes_changes_no_digit_of_an_image():
    random = numpy.random.default_rng(0)
    cost = random.random((5, 5)) / 7
    numpy.fill_diagonal(cost, 0)
    truth = numpy.eye(5, dtype=bool)[random.integers(0, 5, 200)]
    orders = [numpy.array([random.permutation(5) for _ in truth]) for _ in range(2)]
    one, two = (class_metrics.per_image(ranking=order, truth=truth, cost=cost) for order in orders)
    assert (one["hierarchical_distance_at_5"] == two["hierarchical_distance_at_5"]).all()
    assert (one["hierarchical_distance_at_1"] != two["hierarchical_distance_at_1"]).any()


@given(random_trees(), strategies.integers(0, 1000))
def test_hd_at_1_is_error_times_mistake_severity(tree, seed):
    found = class_metrics.single_decision(**case(tree, seed))
    assert found["hierarchical_distance_at_1"] == pytest.approx(
        found["top1_error"] * (found["mistake_severity"] or 0), abs=1e-12
    )
    assert found["severity_mean"] == pytest.approx(found["hierarchical_distance_at_1"], abs=1e-12)


@given(random_trees(), strategies.integers(0, 1000))
def test_perfect_decisions_have_no_severity_and_no_mistake(tree, seed):
    inputs = case(tree, seed)
    inputs["ranking"] = numpy.argsort(~inputs["truth"], axis=1, kind="stable").astype(numpy.int32)
    found = class_metrics.single_decision(**inputs)
    assert found["top1_error"] == found["severity_mean"] == found["severity_max"] == 0
    assert found["mistake_severity"] is None
    assert found["severity_skewness"] is None
    assert found["levels"] == {"0": found["images"]}


@given(random_trees(), strategies.integers(0, 1000))
def test_order_of_images_and_chunks_do_not_matter(tree, seed):
    inputs = case(tree, seed)
    order = numpy.random.default_rng(seed).permutation(len(inputs["truth"]))
    turned = {**inputs, "ranking": inputs["ranking"][order], "truth": inputs["truth"][order]}
    found = class_metrics.single_decision(**inputs)
    others = [class_metrics.single_decision(**turned)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(probabilities, "CHUNK", 7 * len(tree.classes))
        others.append(class_metrics.single_decision(**inputs))
    for other in others:
        assert other.pop("levels") == found["levels"]
        assert other == pytest.approx({name: value for name, value in found.items() if name != "levels"})


def test_by_hand_on_the_six_class_tree():
    tree = six_classes()
    cost = costs.lca_height(tree)
    #                a  b1 b2 c1 d1 d2
    truth = numpy.array([[1, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0], [0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 0, 0]], dtype=bool)
    first = [3, 1, 5, 0]  # c1 for a: 3; b1 for b2: 1; d2 for {c1, d1}: min(2, 1) = 1; left out
    ranking = numpy.array([[k, *(other for other in range(6) if other != k)] for k in first])
    found = class_metrics.single_decision(ranking=ranking, truth=truth, cost=cost)
    assert found["images"] == 3 and found["without_truth"] == 1
    assert found["top1_error"] == 1
    assert found["mistake_severity"] == pytest.approx(5 / 3)
    assert found["severity_median"] == 1
    assert found["levels"] == {"1": 2, "3": 1}
    assert found["severity_percent"] == pytest.approx(100 * 5 / 9)
    assert class_metrics.by_label(numpy.array([3.0, 1, 1]), truth[:3], tree.classes)["d1"] == {
        "images": 1,
        "severity": 1.0,
    }
    assert class_metrics.by_label(numpy.array([3.0, 1, 1]), truth[:3], tree.classes)["d2"] == {
        "images": 0,
        "severity": None,
    }


def test_the_distribution_against_scipy():
    severity = numpy.random.default_rng(0).integers(0, 4, 501).astype(float)
    found = class_metrics.describe(severity, largest=3.0)
    assert found["severity_skewness"] == pytest.approx(scipy.stats.skew(severity))
    assert found["severity_lower_quartile"] == numpy.quantile(severity, 0.25)
    assert found["severity_upper_quartile"] == numpy.quantile(severity, 0.75)
    assert sum(found["levels"].values()) == 501


def test_batches_use_true_medians_of_sorted_values():
    severity = numpy.array([3, 0, 1, 2, 0, 0, 3, 3, 1, 3.0])
    found = class_metrics.batches(severity, size=4)
    assert found["means"] == [1.5, 1.5, 2.0]
    assert found["medians"] == [1.5, 1.5, 2.0]
    assert (found["mean_min"], found["mean_max"]) == (1.5, 1.5)  # of the whole batches
    assert found["median_of_medians"] == 1.5
    assert found["mean_of_medians"] == pytest.approx(5 / 3)
    alone = class_metrics.batches(severity[:3], size=4)
    assert (alone["mean_min"], alone["mean_max"]) == (pytest.approx(4 / 3), pytest.approx(4 / 3))
    unsorted = class_metrics.batches(numpy.array([3.0, 0, 1]), size=3)
    assert unsorted["medians"] == [1.0]  # not the middle of the list as it stands
    with pytest.raises(SeverityError, match="evaluate.batch_size is 0"):
        class_metrics.batches(severity, size=0)


def test_the_mean_over_all_images_is_no_mean_of_batch_means():
    severity = numpy.array([0, 0, 0, 0, 3.0])
    found = class_metrics.batches(severity, size=4)
    assert numpy.mean(found["means"]) != severity.mean()
    assert class_metrics.describe(severity, largest=3.0)["severity_mean"] == severity.mean()


def test_extremes_name_mistakes_only_ties_by_order():
    tree = six_classes()
    truth = numpy.eye(6, dtype=bool)[[0, 1, 2, 3, 4]]
    decided = numpy.array([3, 2, 2, 4, 5])  # severities 3, 1, 0 (right), 2, 1
    severity = costs.lca_height(tree)[decided, [0, 1, 2, 3, 4]]
    found = class_metrics.extremes(
        severity, decided=decided, truth=truth, ids=numpy.array(list("vwxyz")), classes=tree.classes, count=2
    )
    assert [each["id"] for each in found["least"]] == ["w", "z"]
    assert [each["id"] for each in found["most"]] == ["v", "y"]
    assert found["most"][0] == {"id": "v", "truth": ["a"], "decision": "c1", "severity": 3.0}


def test_set_valued_truth_is_the_nearest_member_and_counts_any_member_as_right():
    tree = chexpert_default()
    cost = costs.lca_height(tree)
    truth = numpy.zeros((2, 14), dtype=bool)
    truth[:, [tree.classes.index("Edema"), tree.classes.index("Fracture")]] = True
    decided = [tree.classes.index("Fracture"), tree.classes.index("Lung Opacity")]
    ranking = numpy.array([[k, *(other for other in range(14) if other != k)] for k in decided])
    found = class_metrics.single_decision(ranking=ranking, truth=truth, cost=cost)
    assert found["top1_error"] == 0.5
    assert found["mistake_severity"] == 2.0


@pytest.mark.parametrize(
    ("decision", "most_specific", "any_of_them"),
    [("Lung Opacity", 2.0, 0.0), ("Atelectasis", 2.0, 2.0), ("Edema", 0.0, 0.0)],
)
def test_the_vaguest_answer_is_no_longer_as_good_as_the_right_one(decision, most_specific, any_of_them):
    tree = chexpert_default()
    truth = numpy.isin(tree.classes, ["Lung Opacity", "Edema"])[None]
    first = tree.classes.index(decision)
    ranking = numpy.array([[first, *(other for other in range(14) if other != first)]])
    inputs = {"ranking": ranking, "truth": truth, "cost": costs.lca_height(tree), "hierarchy": tree}
    for reading, wanted in (("most_specific", most_specific), ("any", any_of_them)):
        found = severity.single_decision(**inputs, reading=reading)
        assert found["hierarchical_distance_at_1"] == wanted, reading
        assert found["top1_error"] == (wanted > 0)
    assert severity.single_decision(**inputs) == severity.single_decision(**inputs, reading="most_specific")


def test_the_ranking_is_capped_at_the_number_of_classes():
    tree = six_classes()
    found = class_metrics.single_decision(**case(tree, seed=1))
    mean = costs.lca_height(tree)
    inputs = case(tree, seed=1)
    kept = inputs["truth"][inputs["truth"].any(axis=1)]
    everything = numpy.mean([mean[:, true].min(axis=1).mean() for true in kept])
    assert found["hierarchical_distance_at_20"] == pytest.approx(everything)


@given(random_trees(), strategies.integers(0, 1000))
def test_nearest_is_distances_for_the_asked_classes(tree, seed):
    inputs = case(tree, seed, positives=0.4)
    truth = inputs["truth"][class_metrics.has_truth(inputs["truth"])]
    cost = numpy.random.default_rng(seed).random((len(tree.classes),) * 2)  # asymmetric
    decided = inputs["ranking"][: len(truth), :3]
    found = class_metrics.nearest(decided=decided, truth=truth, cost=cost)
    whole = class_metrics.distances(truth=truth, cost=cost)
    assert (found == numpy.take_along_axis(whole, decided.astype(int), axis=1)).all()


def test_a_better_ranking_is_never_scored_worse():
    tree = chexpert_default()
    random = numpy.random.default_rng(0)
    truth = numpy.eye(14, dtype=bool)[random.integers(0, 14, 200)]
    good = numpy.where(truth, 0.9, 0.1 / 13)
    vague = numpy.full((200, 14), 1 / 14)
    cost = costs.lca_height(tree)
    scores = [
        class_metrics.single_decision(
            ranking=rank("crm", posterior=p, cost=cost, hierarchy=tree), truth=truth, cost=cost
        )["hierarchical_distance_at_5"]
        for p in (good, vague)
    ]
    assert scores[0] < scores[1]


@given(random_trees(), strategies.integers(0, 1000))
def test_columns_of_truths_weigh_the_same_whatever_is_decided(tree, seed):
    inputs = case(tree, seed)
    scored = class_metrics.has_truth(inputs["truth"])
    decided, truth, cost = inputs["ranking"][scored, 0], inputs["truth"][scored], inputs["cost"]
    found = class_metrics.confusion(decided=decided, truth=truth, cost=cost, classes=tree.classes)
    assert all(n > 0 for row in found.values() for n in row.values())
    wanted = (truth / truth.sum(axis=1, keepdims=True)).sum(axis=0)
    columns = [sum(found.get(name, {}).values()) for name in tree.classes]
    assert columns == pytest.approx(wanted.tolist(), rel=1e-4)
    shifted = class_metrics.confusion(decided=(decided + 1) % len(cost), truth=truth, cost=cost, classes=tree.classes)
    assert [sum(shifted.get(name, {}).values()) for name in tree.classes] == pytest.approx(columns, rel=1e-4)


def test_an_image_counts_for_each_of_its_truths_with_its_share():
    cost = 1 - numpy.eye(4)
    truth = numpy.array([[0, 1, 1, 0], [1, 1, 0, 1], [1, 0, 0, 0]], dtype=bool)
    found = class_metrics.confusion(decided=numpy.array([0, 1, 0]), truth=truth, cost=cost, classes="abcd")
    third = pytest.approx(1 / 3, abs=1e-6)
    assert found == {"a": {"a": 1, "b": third}, "b": {"a": 0.5, "b": third}, "c": {"a": 0.5}, "d": {"b": third}}


@given(random_trees(), strategies.integers(0, 1000))
def test_distance_curves(tree, seed):
    inputs = case(tree, seed)
    scored = class_metrics.has_truth(inputs["truth"])
    ranking, truth, cost = inputs["ranking"][scored], inputs["truth"][scored], inputs["cost"]
    curve = class_metrics.distance_curve(ranking=ranking, truth=truth, cost=cost)
    best = class_metrics.best_distance_curve(truth=truth, cost=cost)
    assert len(curve) == len(best) == len(cost)
    whole = class_metrics.single_decision(**inputs)
    for k in class_metrics.DEPTHS:
        found = whole[f"hierarchical_distance_at_{k}"]
        assert curve[min(k, len(cost)) - 1] == pytest.approx(found, rel=1e-5)
    assert best[0] == 0 and best[-1] == curve[-1]
    assert all(low <= high * (1 + 1e-5) for low, high in zip(best, curve, strict=True))
    oracle = numpy.argsort(class_metrics.distances(truth=truth, cost=cost), axis=1, kind="stable")
    assert class_metrics.distance_curve(ranking=oracle, truth=truth, cost=cost) == best


def test_wrong_inputs_are_refused():
    inputs = case(six_classes(), seed=0)
    with pytest.raises(SeverityError, match="must be bool"):
        class_metrics.single_decision(**{**inputs, "truth": inputs["truth"].astype(float)})
    with pytest.raises(SeverityError, match="do not fit"):
        class_metrics.single_decision(**{**inputs, "ranking": inputs["ranking"][:-1]})
    with pytest.raises(SeverityError, match="None of the 30 images"):
        class_metrics.single_decision(**{**inputs, "truth": numpy.zeros_like(inputs["truth"])})


def test_the_self_check_stops_on_numbers_that_do_not_fit():
    with pytest.raises(SeverityError, match="Self-check failed"):
        class_metrics._check_identity({"top1_error": 0.5, "mistake_severity": 2.0, "hierarchical_distance_at_1": 1.1})
