"""What states become: label policies, closure under the tree, and what is counted."""

import re

import numpy
import pandas
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from severity.collections import splits
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.preparation import labelling

NAN = float("nan")
STATES = [1.0, 0.0, -1.0, NAN]
# chest -> Opacity (a class) -> Consolidation (a class) -> Pneumonia; Opacity -> Edema; Fracture beside.
LABELS = ("Opacity", "Consolidation", "Pneumonia", "Edema", "Fracture")
TREE = Hierarchy.from_parents([-1, 0, 1, 2, 1, 0], [1, 2, 3, 4, 5], LABELS)
FLAT = Hierarchy.from_parents([-1, 0, 0], [1, 2], ["Edema", "Fracture"])


def fails(text):
    """Expect a SeverityError whose message holds `text`."""
    return pytest.raises(SeverityError, match=re.escape(text))


def apply(split, states, uncertain, unmentioned, **options):
    raw = pandas.DataFrame({"split": split, "Edema": states, "Fracture": states})
    options = {"closure": False} | options
    return labelling.apply(raw, ["Edema", "Fracture"], FLAT, uncertain=uncertain, unmentioned=unmentioned, **options)[0]


@pytest.mark.parametrize("split", splits.SPLITS)
@pytest.mark.parametrize(("uncertain", "hedged"), [("zeros", 0.0), ("ones", 1.0), ("ignore", NAN)])
@pytest.mark.parametrize(("unmentioned", "silent"), [("zeros", 0.0), ("ignore", NAN)])
def test_policies_map_as_written_and_leave_the_test_split_alone(split, uncertain, hedged, unmentioned, silent):
    expected = [1.0, 0.0, hedged if split == "train" else NAN, NAN if split == "test" else silent]
    numpy.testing.assert_array_equal(apply(split, STATES, uncertain, unmentioned)["Edema"], expected)


def test_policies_by_label():
    table = apply("train", STATES, {"default": "zeros", "Fracture": "ignore"}, "ignore")
    numpy.testing.assert_array_equal(table["Edema"], [1, 0, 0, NAN])
    numpy.testing.assert_array_equal(table["Fracture"], [1, 0, NAN, NAN])


def smoothed(ids, seed=0, **options):
    raw = pandas.DataFrame({"id": ids, "split": "train", "Edema": -1.0, "Fracture": 1.0})
    words = {"uncertain": "smooth", "unmentioned": "zeros", "closure": False, "seed": seed}
    return labelling.apply(raw, ["Edema", "Fracture"], FLAT, **words, **options)[0]["Edema"]


def test_smooth_draws_evenly_from_its_range():
    drawn = smoothed([f"image {number}" for number in range(2000)], smooth_range=[0.2, 0.6])
    assert drawn.between(0.2, 0.6).all() and drawn.nunique() == 2000
    counts, _ = numpy.histogram(drawn, bins=8, range=(0.2, 0.6))
    assert counts.min() > 200 and counts.max() < 300  # 250 expected, standard deviation 15
    assert smoothed(["a"], smooth_range=[0.7, 0.7]).tolist() == [0.7]


def test_smooth_depends_on_seed_image_and_label_alone():
    alone, among = smoothed(["b"]), smoothed(["a", "b", "c"])
    assert among[1] == alone[0] != among[0]
    assert smoothed(["b"], seed=1)[0] != alone[0]
    raw = pandas.DataFrame({"id": ["b"], "split": "train", "Edema": -1.0, "Fracture": -1.0})
    words = {"uncertain": "smooth", "unmentioned": "zeros", "closure": False}
    both, _ = labelling.apply(raw, ["Fracture", "Edema"], FLAT, **words)
    assert both["Edema"][0] == alone[0] != both["Fracture"][0]


@pytest.mark.parametrize("split", splits.SPLITS)
def test_smooth_acts_on_uncertain_cells_of_train_rows_alone(split):
    raw = pandas.DataFrame({"id": list("abcd"), "split": split, "Edema": STATES, "Fracture": STATES})
    words = {"default": "ones", "Edema": "smooth"}
    options = {"uncertain": words, "unmentioned": "zeros", "closure": False}
    table, _ = labelling.apply(raw, ["Edema", "Fracture"], FLAT, **options)
    numpy.testing.assert_array_equal(table["Edema"][[0, 1, 3]], [1, 0, NAN if split == "test" else 0])
    assert 0.55 <= table["Edema"][2] <= 0.85 if split == "train" else numpy.isnan(table["Edema"][2])
    assert table["Fracture"][2] == 1 if split == "train" else numpy.isnan(table["Fracture"][2])


@given(st.lists(st.tuples(st.sampled_from(splits.SPLITS), st.sampled_from(STATES)), min_size=1), st.data())
@settings(deadline=None)
def test_uncertain_never_enters_the_truth_that_scores(rows, data):
    uncertain = data.draw(st.sampled_from(["zeros", "ones", "ignore", {"default": "ones", "Edema": "zeros"}]))
    unmentioned = data.draw(st.sampled_from(["zeros", "ignore"]))
    split, states = map(list, zip(*rows, strict=True))
    target = apply(split, states, uncertain, unmentioned)["Edema"]
    for part, state, value in zip(split, states, target, strict=True):
        if part != "train" and state == -1:
            assert numpy.isnan(value)
        if state in (0, 1):
            assert value == state


@pytest.mark.parametrize(
    ("uncertain", "unmentioned", "message"),
    [
        (
            {"default": "ones", "Edma": "zeros"},
            "zeros",
            "'Edma' is not a label of this data set. Did you mean 'Edema'?",
        ),
        ({"Edema": "ones"}, "zeros", "add the key 'default'"),
    ],
)
def test_unknown_policies(uncertain, unmentioned, message):
    with fails(message):
        apply("train", STATES, uncertain, unmentioned)


# Closure


def closed(split, states, closure=True, **policies):
    raw = pandas.DataFrame([dict(zip(LABELS, states, strict=True))]).assign(split=split, id="a")
    words = {"uncertain": "ignore", "unmentioned": "ignore"} | policies
    table, violations = labelling.apply(raw, LABELS, TREE, closure=closure, **words)
    return table.loc[0, list(LABELS)].tolist(), violations


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ([NAN, NAN, 1, 0, NAN], [1, 1, 1, 0, NAN]),  # a blank parent, and the parent's parent
        ([0, 0, 1, 0, 0], [1, 1, 1, 0, 0]),  # a denied one
        ([-1, 0, 0, 1, 0], [1, 0, 0, 1, 0]),  # a hedged one; what lies beside is not touched
        ([1, 0, 0, 0, 1], [1, 0, 0, 0, 1]),  # a parent says nothing about its children
        ([NAN, 0, NAN, -1, 0], [NAN, 0, NAN, NAN, 0]),  # what is masked makes nothing true
    ],
)
def test_closure_makes_what_lies_above_a_finding_true(states, expected):
    for split in ("train", "validation"):
        numpy.testing.assert_array_equal(closed(split, states)[0], expected)
        numpy.testing.assert_array_equal(
            closed(split, states, closure=False)[0], [NAN if state == -1 else state for state in states]
        )


def test_closure_never_touches_a_test_label():
    states, violations = closed("test", [0, NAN, 1, 0, 0])
    numpy.testing.assert_array_equal(states, [0, NAN, 1, 0, 0])
    assert [(entry["child"], entry["parent"], entry["before"], entry["after"]) for entry in violations] == [
        ("Pneumonia", "Opacity", 1, 1),
        ("Pneumonia", "Consolidation", 1, 1),
    ]


def test_closure_takes_soft_targets_as_the_least_that_holds_above():
    states, _ = closed("train", [0, 0, -1, 0, 0], uncertain="smooth", smooth_range=[0.6, 0.6])
    assert states == [0.6, 0.6, 0.6, 0, 0]
    states, _ = closed("train", [NAN, 1, -1, 0, 0], uncertain="smooth", smooth_range=[0.6, 0.6])
    assert states == [1, 1, 0.6, 0, 0]


@given(st.lists(st.tuples(*[st.sampled_from(STATES)] * len(LABELS)), min_size=1, max_size=20), st.booleans())
def test_after_closure_no_train_image_violates_the_tree(rows, ones):
    raw = pandas.DataFrame(rows, columns=LABELS).assign(split="train", id=[str(each) for each in range(len(rows))])
    words = {"uncertain": "ones" if ones else "ignore", "unmentioned": "zeros"}
    plain, before = labelling.apply(raw, LABELS, TREE, closure=False, **words)
    table, after = labelling.apply(raw, LABELS, TREE, closure=True, **words)
    assert [entry["before"] for entry in before] == [entry["after"] for entry in before]
    assert before == [entry | {"after": entry["before"]} for entry in after]
    assert all(entry["after"] == 0 for entry in after)
    assert labelling.violations(table, table, TREE) == []
    again, _ = labelling.apply(table, LABELS, TREE, closure=True, uncertain="ignore", unmentioned="ignore")
    pandas.testing.assert_frame_equal(again, table)  # closing twice changes nothing
    leaves = ["Pneumonia", "Edema", "Fracture"]
    pandas.testing.assert_frame_equal(table[leaves], plain[leaves])


# Counts


def test_states_and_counts_sum_to_the_images_of_a_split():
    raw = pandas.DataFrame({"split": ["train"] * 4 + ["test"] * 4, "patient": list("aabbccdd"), "id": list("abcdefgh")})
    raw = raw.assign(Edema=STATES * 2, Fracture=[1.0] * 8)
    states = labelling.states(raw, ["Edema", "Fracture"])
    assert states["train"]["Edema"] == {"positive": 1, "negative": 1, "uncertain": 1, "blank": 1}
    assert states["test"]["Fracture"] == {"positive": 4, "negative": 0, "uncertain": 0, "blank": 0}
    table, _ = labelling.apply(raw, ["Edema", "Fracture"], FLAT, uncertain="smooth", unmentioned="zeros", closure=False)
    counts = labelling.counts(table, ["Edema", "Fracture"])
    assert counts["train"]["labels"]["Edema"] == {"positives": 1, "negatives": 2, "soft": 1, "masked": 0}
    assert counts["test"]["labels"]["Edema"] == {"positives": 1, "negatives": 1, "soft": 0, "masked": 2}
    assert counts["train"]["images"] == 4 and counts["train"]["patients"] == 2 and counts["validation"]["images"] == 0
