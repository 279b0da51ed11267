"""Which cases are explained, and what is said of their decision before any network runs."""

import numpy
import pytest

from severity.core.errors import SeverityError
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
    return Predictions(
        ids=numpy.array([f"image {row}" for row in range(images)]),
        patients=numpy.array([f"patient {row}" for row in range(images)]),
        split=numpy.repeat(["validation", "test"], images // 2),
        posterior=random.dirichlet(numpy.full(size, 0.7), images).astype(numpy.float32),
        marginal=random.random((images, size)).astype(numpy.float32),
        truth=truth,
        classes=numpy.array(TREE.classes),
        class_hash=numpy.array(TREE.class_hash),
        run=numpy.array("net-ce-0"),
        dataset=numpy.array("made up"),
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
            wanted = [made.posterior[case.row, TREE.classes_below[node]].sum(dtype=float) for node in path]
            assert steps["probability"].tolist() == pytest.approx(wanted)
            # The share of each node in the one above multiplies to the class's own probability.
            assert steps["given_parent"].prod() == pytest.approx(made.posterior[case.row, index], rel=1e-5)


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
