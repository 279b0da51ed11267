"""Cost matrices: their laws, an independent computation, and the file a person may give."""

import numpy
import pandas
import pytest
from hypothesis import given

from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.tree import costs
from tests.trees import TOP, chexpert_default, flat, random_tree, random_trees, six_classes


def reference(tree: Hierarchy, kind: str) -> numpy.ndarray:
    """Pair by pair from the two paths to the root."""
    size = len(tree.classes)
    cost = numpy.zeros((size, size))
    for row, first in enumerate(tree.class_nodes):
        for column, second in enumerate(tree.class_nodes):
            ours, theirs = tree.ancestors(first), tree.ancestors(second)
            meeting = next(node for node in ours if node in theirs)
            edges = ours.index(meeting) + theirs.index(meeting)
            cost[row, column] = tree.height[meeting] if kind == "lca_height" else edges
    return cost


@given(random_trees())
def test_both_costs_equal_a_computation_pair_by_pair(tree):
    assert numpy.array_equal(costs.lca_height(tree), reference(tree, "lca_height"))
    assert numpy.array_equal(costs.path(tree), reference(tree, "path"))


@given(random_trees())
def test_costs_are_metrics_and_lca_height_is_ultrametric(tree):
    for cost, ultrametric in ((costs.lca_height(tree), True), (costs.path(tree), False)):
        assert cost.dtype == numpy.float64
        assert (numpy.diag(cost) == 0).all()
        assert (cost == cost.T).all()
        assert (cost[~numpy.eye(len(cost), dtype=bool)] > 0).all()
        direct = cost[:, None, :]  # [i, j, k] = cost[i, k]
        first, second = cost[:, :, None], cost[None, :, :]  # cost[i, j], cost[j, k]
        assert (direct <= first + second).all()
        if ultrametric:
            assert (direct <= numpy.maximum(first, second)).all()


@given(random_trees())
def test_what_is_a_metric_is_told_from_what_is_not(tree):
    cost = costs.lca_height(tree)
    assert costs.is_metric(cost) and costs.is_metric(costs.path(tree))
    assert not costs.is_metric(cost + numpy.triu(numpy.ones_like(cost), 1))  # not symmetric
    if len(cost) > 2:
        detour = cost.copy()
        detour[0, 1] = detour[1, 0] = cost[0, 2] + cost[2, 1] + 0.01
        assert not costs.is_metric(detour)
        twins = cost.copy()
        twins[0, 1] = twins[1, 0] = 0
        assert not costs.is_metric(twins)


def test_the_six_class_tree_by_hand():
    cost = costs.lca_height(six_classes())
    assert cost.tolist() == [
        [0, 3, 3, 3, 3, 3],
        [3, 0, 1, 3, 3, 3],
        [3, 1, 0, 3, 3, 3],
        [3, 3, 3, 0, 2, 2],
        [3, 3, 3, 2, 0, 1],
        [3, 3, 3, 2, 1, 0],
    ]


def test_the_largest_severity_of_the_default_tree_is_three():
    assert costs.lca_height(chexpert_default()).max() == 3


def test_path_separates_parent_from_sibling_where_lca_height_cannot():
    tree = chexpert_default()
    opacity, edema, pneumonia = (tree.classes.index(name) for name in ("Lung Opacity", "Edema", "Pneumonia"))
    height, path = costs.lca_height(tree), costs.path(tree)
    assert height[opacity, edema] == height[pneumonia, edema]
    assert path[opacity, edema] < path[pneumonia, edema]


def test_a_flat_tree_costs_the_same_everywhere():
    assert (costs.lca_height(flat(5)) == 1 - numpy.eye(5)).all()


def test_a_thousand_classes():
    tree = random_tree(seed=1, classes=1010, inner=150)
    cost = costs.lca_height(tree)
    assert cost.shape == (len(tree.classes),) * 2
    rows = numpy.random.default_rng(0).integers(0, len(cost), (200, 2))
    for first, second in rows:
        ours, theirs = (tree.ancestors(tree.class_nodes[index]) for index in (first, second))
        meeting = next(node for node in ours if node in theirs)
        assert cost[first, second] == tree.height[meeting]


def test_names_that_look_like_something_else_stay_names(tmp_path):
    names = ["310", "0310", "1e3", "NA", "500"]
    cost = numpy.arange(25.0).reshape(5, 5) * (1 - numpy.eye(5))
    costs.write(tmp_path / "cost.csv", cost, names)
    assert numpy.array_equal(costs.read(tmp_path / "cost.csv", names), cost)


def test_a_file_is_read_in_class_order_whatever_its_own(tmp_path):
    tree = six_classes()
    cost = costs.path(tree)
    cost[0, 3] = 7.5  # asymmetric on purpose
    costs.write(tmp_path / "cost.csv", cost, tree.classes)
    frame = pandas.read_csv(tmp_path / "cost.csv", index_col=0)
    frame.loc[tree.classes[::-1], list(reversed(tree.classes))].to_csv(tmp_path / "turned.csv")
    assert numpy.array_equal(costs.read(tmp_path / "turned.csv", tree.classes), cost)
    built = costs.build(name="file", file=str(tmp_path / "turned.csv"), hierarchy=tree)
    assert numpy.array_equal(built, cost)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda frame: frame.drop(columns="b1"), "class 'b1' is missing from the columns"),
        (lambda frame: frame.drop(index="b1"), "class 'b1' is missing from the rows"),
        (lambda frame: frame.rename(columns={"b1": "b11"}), "unknown class 'b11'. Did you mean 'b1'"),
        (lambda frame: pandas.concat([frame, frame.loc[["a"]]]), "'a' is duplicated"),
        (lambda frame: frame.replace(3.0, "x"), "not a finite number"),
        (lambda frame: frame.mask(frame == 3), "not a finite number"),
        (lambda frame: -frame, "negative"),
        (lambda frame: frame + 1, "diagonal"),
        (lambda frame: frame * 0, "all costs are 0"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path, change, told):
    tree = six_classes()
    frame = pandas.DataFrame(costs.lca_height(tree), index=list(tree.classes), columns=list(tree.classes))
    change(frame).to_csv(tmp_path / "cost.csv")
    with pytest.raises(SeverityError, match=told):
        costs.read(tmp_path / "cost.csv", tree.classes)


def test_the_example_is_valid_and_follows_the_rule_it_states():
    tree = chexpert_default()
    cost = costs.read(TOP / "data/costs/chexpert_example.csv", tree.classes)
    names = {name: k for k, name in enumerate(tree.classes)}
    urgency = {"Pneumothorax": 3, "Edema": 2, "Pneumonia": 2, "Consolidation": 2, "Pleural Effusion": 2}
    for decision, row in names.items():
        for truth, column in names.items():
            wanted = reference(tree, "lca_height")[row, column] * urgency.get(truth, 1)
            assert cost[row, column] == wanted * (2 if decision == "No Finding" else 1)
    assert not costs.is_metric(cost)
    assert cost[names["No Finding"], names["Pneumothorax"]] > cost[names["Pneumothorax"], names["No Finding"]]


def test_an_unknown_or_missing_cost_is_refused(tmp_path):
    with pytest.raises(SeverityError, match="Did you mean 'lca_height'"):
        costs.build(name="lca_hight", file="", hierarchy=six_classes())
    with pytest.raises(SeverityError, match="is missing"):
        costs.build(name="file", file=str(tmp_path / "none.csv"), hierarchy=six_classes())
