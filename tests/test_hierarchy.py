"""The label tree: what it computes, what it refuses, and the trees that come with the project."""

import numpy
import pytest
import yaml
from hypothesis import given

from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.datasets import chexpert, nih14
from severity.tree import trees
from tests.checks import every
from tests.trees import MEDMNIST, TOP, chexpert_default, random_trees, six_classes

SHIPPED = {
    "chexpert": chexpert.LABELS,
    "chexpert_pleural": chexpert.LABELS,
    "chexpert_competition": chexpert.LABELS,
    "nih14": nih14.LABELS,
    "nih14_findings": nih14.LABELS,
}


def test_depth_and_height_of_the_six_class_tree():
    tree = six_classes()
    assert tree.root == 0
    assert tree.depth.tolist() == [0, 1, 1, 2, 2, 1, 2, 2, 3, 3]
    assert tree.height.tolist() == [3, 0, 1, 0, 0, 2, 0, 1, 0, 0]
    assert [tree.classes[index] for index in tree.classes_below[5]] == ["c1", "d1", "d2"]
    assert tree.ancestors(9) == [9, 7, 5, 0]


def test_a_class_at_an_inner_node_gets_a_leaf_of_its_own():
    tree = Hierarchy.from_parents([-1, 0, 0, 1], [1, 3, 2], ["Consolidation", "Pneumonia", "Fracture"])
    leaf = tree.class_nodes[0]
    assert tree.names[leaf] == "Consolidation, not further specified"
    assert tree.parents[leaf] == 1 == tree.stands_for[0]
    assert tree.height[tree.class_nodes].tolist() == [0, 0, 0]


@given(random_trees())
def test_every_class_is_a_leaf_and_every_leaf_a_class(tree):
    leaves = set(range(len(tree.parents))) - set(tree.parents.tolist())
    assert leaves == set(tree.class_nodes.tolist())
    assert len(tree.class_nodes) == len(tree.classes)


@given(random_trees())
def test_depth_and_height_against_their_definitions(tree):
    for node in range(len(tree.parents)):
        assert tree.depth[node] == len(tree.ancestors(node)) - 1
        longest = max(
            tree.ancestors(leaf).index(node) for leaf in tree.class_nodes.tolist() if node in tree.ancestors(leaf)
        )
        assert tree.height[node] == longest
        below = [index for index, leaf in enumerate(tree.class_nodes.tolist()) if node in tree.ancestors(leaf)]
        assert tree.classes_below[node].tolist() == below


@given(random_trees())
def test_top_down_names_each_node_once_after_its_parent(tree):
    order = list(tree.top_down)
    assert sorted(order) == list(range(len(tree.parents)))
    assert every(order.index(tree.parents[node]) < order.index(node) for node in order if tree.parents[node] >= 0)


def test_writing_and_reading_gives_the_same_tree(tmp_path):
    tree = chexpert_default()
    tree.write(tmp_path / "tree.json")
    again = Hierarchy.read(tmp_path / "tree.json")
    assert again.names == tree.names and again.classes == tree.classes
    for name in ("parents", "class_nodes", "stands_for"):
        assert numpy.array_equal(getattr(again, name), getattr(tree, name))


def test_the_class_hash_depends_on_names_and_order_alone():
    tree = six_classes()
    other = Hierarchy.from_parents([-1] + [0] * 6, range(1, 7), tree.classes)
    swapped = Hierarchy.from_parents([-1] + [0] * 6, range(1, 7), tree.classes[::-1])
    assert tree.class_hash == other.class_hash != swapped.class_hash


@pytest.mark.parametrize(
    ("parents", "class_nodes", "classes", "told"),
    [
        ([-1, 0, -1], [1, 2], ["a", "b"], "one root"),
        ([-1, 0, 3, 2], [1, 2], ["a", "b"], "cycle"),
        ([1, 0], [0, 1], ["a", "b"], "cycle"),
        ([-1, 0, 7], [1, 2], ["a", "b"], "parent 7"),
        ([-1, 0], [1], ["a"], "at least two"),
        ([-1, 0, 0], [1, 2], ["a", "a"], "duplicated"),
        ([-1, 0, 0], [1, 1], ["a", "b"], "share the node"),
        ([-1, 0, 0, 0], [1, 2], ["a", "b"], "carries no class"),
        ([-1, 0, 0], [1, 9], ["a", "b"], "node 9"),
        ([-1, 0, 0], [1, 2], ["a", "b", "c"], "one each"),
        ([-1.5, 0, 0], [1, 2], ["a", "b"], "integers"),
    ],
)
def test_what_is_no_tree_is_refused_with_the_reason(parents, class_nodes, classes, told):
    with pytest.raises(SeverityError, match=told):
        Hierarchy.from_parents(parents, class_nodes, classes)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_trees_hold_every_label_and_name_their_source(name):
    path = TOP / f"data/hierarchies/{name}.yaml"
    tree = trees.read(path, SHIPPED[name])
    content = yaml.safe_load(path.read_text())
    assert len(content["source"]) > 20
    assert set(tree.classes) | set(content.get("excluded", [])) == set(SHIPPED[name])


def test_every_tree_file_is_tested_here_or_with_medmnist():
    assert {path.stem for path in (TOP / "data/hierarchies").glob("*.yaml")} == {*SHIPPED, *MEDMNIST}


def test_the_heights_of_the_default_tree():
    tree = chexpert_default()
    height = dict(zip(tree.names, tree.height.tolist(), strict=True))
    assert height["Consolidation"] == 1
    assert height["Lung Opacity"] == 2
    assert height["Pleural finding"] == 1
    assert height["Chest radiograph"] == 3


GOOD = """
source: here
tree:
  node: top
  children:
    - {node: one, label: one}
    - node: more
      label: more
      children:
        - {node: two, label: two}
"""


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (GOOD.replace("node: two, label: two", "node: one, label: two"), "'one' has two parents"),
        (GOOD.replace("label: two", "label: one"), "'one' is duplicated"),
        (GOOD.replace("label: two", "label: twoo"), "Did you mean 'two'"),
        (GOOD.replace("      children:\n        - {node: two, label: two}\n", ""), "'two' is not in the tree"),
        (GOOD.replace("label: two", "lable: two"), "Did you mean 'label'"),
        (GOOD.replace("{node: two, label: two}", "{node: two}"), "leaf 'two' has no label"),
        (GOOD.replace("source: here", "sauce: here"), "unknown key 'sauce'"),
        (GOOD.replace("tree:\n", "tree: &top\n").replace("{node: two, label: two}", "*top"), "cycle"),
        (GOOD.replace("{node: two, label: two}", "[]"), "must be a mapping"),
        (GOOD + "excluded: [two]\n", "both in the tree and in 'excluded'"),
        (GOOD.replace("tree:", "tree: ]"), "not YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_file_and_mend(tmp_path, text, told):
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(SeverityError, match=told) as caught:
        trees.read(path, ["one", "two", "more"])
    assert "wrong.yaml" in str(caught.value)


def test_the_good_file_is_accepted(tmp_path):
    path = tmp_path / "good.yaml"
    path.write_text(GOOD)
    assert trees.read(path, ["one", "two", "more"]).classes == ("one", "more", "two")


def test_a_missing_file_names_the_nearest_one():
    with pytest.raises(SeverityError, match="Did you mean 'chexpert_pleural'"):
        trees.read(TOP / "data/hierarchies/chexpert_plural.yaml", chexpert.LABELS)


def test_the_name_flat_needs_no_file(tmp_path):
    """Whatever the labels, odd ones too: every two classes meet at the root."""
    labels = ["b, c", "a", "0", "flat"]
    tree = trees.named(tmp_path, "flat", labels)
    assert tree.classes == tuple(labels)
    assert tree.parents[tree.class_nodes].tolist() == [tree.root] * 4 and len(tree.parents) == 5
    (tmp_path / "good.yaml").write_text(GOOD)
    derived = trees.named(tmp_path, "good@flat", ["one", "two", "more"])
    direct = trees.named(tmp_path, "flat", derived.classes)
    assert (derived.classes, derived.names) == (direct.classes, direct.names)
    assert derived.parents.tolist() == direct.parents.tolist()


def test_a_file_called_flat_would_be_ambiguous(tmp_path):
    (tmp_path / "flat.yaml").write_text(GOOD)
    with pytest.raises(SeverityError, match="flat.yaml: the name 'flat' stands for the tree without levels.*Rename"):
        trees.named(tmp_path, "flat", ["one", "two", "more"])


def test_flat_is_among_the_names_that_are_told(tmp_path):
    with pytest.raises(SeverityError, match="Did you mean 'flat'"):
        trees.named(tmp_path, "flatt", ["one", "two"])
