"""Which cases are explained, and what is said of their decision before any network runs."""

import numpy
import pytest
import scipy.special

from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.decisions import class_rules
from severity.explanation import explained_images
from severity.predictions.predictions import Predictions
from severity.tree import costs
from tests import records
from tests.trees import six_classes

TREE = six_classes()
COST = costs.lca_height(TREE)
OPTIONS = {
    "rules": ["argmax", "crm", "crm_ts"], "multi_label": ["threshold"], "climb_threshold": 0.5, "batch_size": 8,
    "mistakes": 3, "seed": 0,
}  # fmt: skip


def predictions(seed: int = 0) -> Predictions:
    """Forty validation and forty test images with one to three true classes; the last test image has none known."""
    random = numpy.random.default_rng(seed)
    images, size = 80, len(TREE.classes)
    truth = (random.random((images, size)) < 0.25).astype(numpy.float32)
    truth[numpy.arange(images), random.integers(0, size, images)] = 1
    truth[-1] = numpy.nan
    return Predictions.of(
        TREE,
        ids=numpy.array([f"image {row}" for row in range(images)]),
        patients=numpy.array([f"patient {row}" for row in range(images)]),
        split=numpy.repeat(["validation", "test"], images // 2),
        truth=truth,
        run="net-ce-0",
        dataset="made up",
        log_posterior=numpy.log(random.dirichlet(numpy.full(size, 0.7), images)),
        label_logits=random.normal(size=(images, size)),
    )


@pytest.fixture(scope="module")
def run():
    made = predictions()
    return made, records.of(made, TREE, COST, **OPTIONS)


def find(run, **changes):
    return explained_images.find(*run, TREE, COST, **{"rule": "crm", "mistakes": 3, "ids": [], **changes})


@pytest.mark.parametrize("rule", OPTIONS["rules"])
def test_mistakes_are_those_of_the_metrics(run, rule):
    made, record = run
    found = find(run, rule=rule)
    assert [case.name for case in found] == [f"{end}_{place}" for end in ("least", "most") for place in (1, 2, 3)]
    wanted = [*record["rules"][rule]["least"], *record["rules"][rule]["most"]]
    for case, mistake in zip(found, wanted, strict=True):
        assert (case.id, case.severity) == (mistake["id"], mistake["severity"])
        assert TREE.classes[case.decision] == mistake["decision"]
        assert {TREE.classes[label] for label in case.truth} == set(mistake["truth"])
        assert made.ids[case.row] == case.id


def test_the_nearest_truth_comes_first_then_the_more_probable(run):
    made, _ = run
    several = 0
    for case in find(run, ids=made.ids[40:79].tolist()):
        assert case.severity == COST[case.decision, list(case.truth)].min()
        keys = [(COST[case.decision, label], -made.posterior[case.row, label]) for label in case.truth]
        assert keys == sorted(keys)
        several += len(keys) > 1
    assert several > 10


def test_fewer_mistakes_than_the_metrics_name_and_images_by_id(run):
    made, _ = run
    found = find(run, mistakes=1, ids=["image 3", "image 60"])
    assert [case.name for case in found] == ["least_1", "most_1", "chosen_1", "chosen_2"]
    assert [case.row for case in found[2:]] == [3, 60]
    ranked = class_rules.rank("crm", posterior=made.posterior[[3, 60]], cost=COST, hierarchy=TREE)
    assert [case.decision for case in found[2:]] == ranked[:, 0].tolist()
    assert [case.name for case in find(run, mistakes=0, ids=["image 3"])] == ["chosen_1"]
    assert find(run, mistakes=0) == []


def test_what_was_right_and_what_has_no_truth(run):
    made, _ = run
    (unknown,) = find(run, mistakes=0, ids=["image 79"])
    assert (unknown.truth, unknown.severity) == ((), None)
    assert unknown.classes == (unknown.decision,)
    assert unknown.role(unknown.decision) == "decision"
    right = [case for case in find(run, mistakes=0, ids=made.ids[:40].tolist()) if case.decision in case.truth]
    assert right
    for case in right:
        assert case.severity == 0 and case.truth[0] == case.decision
        assert case.classes == case.truth
        assert case.role(case.decision) == "decision and truth"
        assert all(case.role(label) == "truth" for label in case.classes[1:])


def test_the_index_has_a_row_a_case(run):
    made, record = run
    found = find(run, ids=["image 79"])
    table = explained_images.index(found, made, TREE)
    assert table["case"].tolist() == [case.name for case in found]
    assert (
        table["severity"].tolist()[:-1] == [case.severity for case in found[:-1]] and table["severity"].isna().iloc[-1]
    )
    assert set(table["truth"].iloc[0].split("; ")) == set(record["rules"]["crm"]["least"][0]["truth"])
    assert table["truth"].iloc[-1] == ""
    assert table["posterior"].tolist() == [made.posterior[case.row, case.decision] for case in found]


def test_steps_go_from_the_root_to_each_class(run):
    made, _ = run
    for case in find(run):
        table = explained_images.steps(case, made, TREE)
        assert list(dict.fromkeys(table["label"])) == [TREE.classes[label] for label in case.classes]
        for label, steps in table.groupby("label", sort=False):
            index = TREE.classes.index(label)
            path = TREE.ancestors(TREE.class_nodes[index])[::-1]
            assert steps["node"].tolist() == [TREE.names[node] for node in path]
            assert steps["depth"].tolist() == list(range(len(path)))
            assert steps["role"].tolist() == [case.role(index)] * len(path)
            wanted = scipy.special.expit(made.node_logits[case.row, path])
            assert steps["probability"].tolist() == pytest.approx(wanted.tolist())
            # The share of each node in the one above multiplies to the class's own probability.
            assert steps["given_parent"].prod() == pytest.approx(wanted[-1], rel=1e-5)


def test_a_label_above_another_true_one_is_shown_but_does_not_make_the_severity_zero():
    tree = Hierarchy.from_parents([-1, 0, 0, 2, 2], [1, 2, 3, 4], ["a", "B", "b1", "b2"])
    cost = costs.lca_height(tree)
    truth = numpy.array([[0, 1, 1, 0]] * 4)
    logits = 5.0 * (numpy.eye(4)[[1, 1, 2, 2]] - 0.5)  # decides B, B, b1, b1
    made = Predictions.of(
        tree, ids=numpy.array(["v", "x", "y", "z"]), patients=numpy.array(list("vxyz")),
        split=numpy.array(["validation", "test", "test", "test"]), truth=truth, run="a-b-0", dataset="made up",
        log_posterior=logits,
    )  # fmt: skip
    record = records.of(made, tree, cost)
    general, right = explained_images.find(made, record, tree, cost, rule="argmax", mistakes=0, ids=["x", "y"])
    assert [tree.classes[label] for label in general.truth] == ["b1", "B"] and general.severity == 1
    assert tree.classes[general.decision] == "B" and general.role(general.decision) == "decision and truth"
    assert [tree.classes[label] for label in right.truth] == ["b1", "B"] and right.severity == 0
    (mistake,) = record["rules"]["argmax"]["most"]
    assert (mistake["id"], mistake["severity"]) == ("x", general.severity)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"rule": "hie"}, r"explain.rule is 'hie'. .*Known: argmax, crm, crm_ts"),
        ({"ids": ["imag 3"]}, "hold no image 'imag 3'. Did you mean 'image 3'"),
    ],
)
def test_options_that_do_not_fit_are_refused(run, changes, told):
    with pytest.raises(SeverityError, match=told):
        find(run, **changes)


def test_metrics_of_other_predictions_are_refused(run):
    _, record = run
    with pytest.raises(SeverityError, match="The metrics of net-ce-0 say that crm decided"):
        find((predictions(seed=1), record))
