"""External predictions: their form, what is refused, what becomes of them, and studies of them alone."""

import gzip
import json
import shutil
from dataclasses import replace

import numpy
import pandas
import pytest
import scipy.special
from hypothesis import given, strategies
from scipy.special import expit

from benchmarks import chexnet
from docs import chexnet_predictions
from severity.arrays import subtrees, tree_model
from severity.collections import external_files
from severity.core import files, runs
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.core.runs import Run
from severity.datasets import external as labels_alone
from severity.external import conversion
from severity.external.conversion import Truth
from severity.figures import catalogue
from severity.figures.shared.study import ScoreStudy
from severity.metrics import evaluation, record
from severity.metrics.record import Record
from severity.predictions.predictions import Predictions
from severity.summary import configurations
from severity.tree import costs
from stages import plot
from tests import golden, records
from tests.test_evaluation import OPTIONS as EVALUATE
from tests.test_evaluation import predictions
from tests.trees import TOP, six_classes

TREE = six_classes()
IMAGES = 12
OPTIONS = {
    "kind": "detect",
    "missing_class": "error",
    "unknown_ids": "error",
    "incomplete": "error",
    "validation_fraction": 0.0,
    "seed": 0,
}


def known(split: str = "test") -> Truth:
    """A data set of 12 test images of 6 patients; every third has no second label."""
    random = numpy.random.default_rng(1)
    frame = pandas.DataFrame(
        {
            "id": [f"image{number}" for number in range(IMAGES)],
            "patient": [f"patient{number // 2}" for number in range(IMAGES)],
            "split": split,
        }
    )
    states = (random.random((IMAGES, 6)) < 0.4).astype(float)
    states[::3, 1] = numpy.nan
    return Truth(frame.assign(**dict(zip(TREE.classes, states.T, strict=True))), TREE.classes, "data/prepared")


def table(columns: dict | None = None) -> pandas.DataFrame:
    """A file's content: marginals for the images of `known`, some columns replaced (None: left out)."""
    random = numpy.random.default_rng(2)
    content = {"id": known().frame["id"].tolist()}
    content |= {f"prob:{name}": random.uniform(0.05, 0.6, IMAGES) for name in TREE.classes}
    content |= columns or {}
    return pandas.DataFrame({name: values for name, values in content.items() if values is not None})


def sheet_of(tmp_path, columns: dict | None = None) -> external_files.Sheet:
    table(columns).to_csv(tmp_path / "a-b-0.csv", index=False)
    return external_files.read(tmp_path / "a-b-0.csv")


def converted(tmp_path, columns: dict | None = None, truth: Truth | None = None, **options) -> Predictions:
    return conversion.convert(
        "a-b-0", sheet_of(tmp_path, columns), truth or known(), TREE, "made up", **(OPTIONS | options)
    )


class TestForm:
    @pytest.mark.parametrize(("separator", "decimal"), [(";", "."), (";", ","), ("\t", ","), ("\t", "."), (",", ".")])
    def test_other_separators_and_decimal_commas(self, tmp_path, separator, decimal):
        content = table({"true:a": [1.0, 0, numpy.nan] * 4})
        content.to_csv(tmp_path / "a-b-0.csv", index=False)
        plain = external_files.read(tmp_path / "a-b-0.csv")
        content["true:a"] = content["true:a"].map({1: "1", 0: "0"})
        content.to_csv(tmp_path / "c-d-0.csv", index=False, sep=separator, decimal=decimal)
        found = external_files.read(tmp_path / "c-d-0.csv")
        assert found.classes == plain.classes and found.ids.tolist() == plain.ids.tolist()
        assert numpy.array_equal(found.numbers, plain.numbers)
        assert numpy.array_equal(found.truth, plain.truth, equal_nan=True)

    def test_csv_gzip_and_arrays_say_the_same(self, tmp_path):
        truth = numpy.array([1.0, 0, numpy.nan] * 4)
        content = table({"patient": [f"p{n}" for n in range(IMAGES)], "split": ["validation", ""] * 6, "true:a": truth})
        content = content.assign(**{"node:node 5": numpy.linspace(0.7, 0.9, IMAGES), "node:node 2": 0.8})
        content = content[numpy.random.default_rng(0).permutation(content.columns)]
        content.to_csv(tmp_path / "a-b-0.csv", index=False)
        with gzip.open(tmp_path / "a-b-0.csv.gz", "wt") as file:
            content.assign(**{"true:a": content["true:a"].fillna(-1)}).to_csv(file, index=False)
        classes, nodes = ([name for name in content if name.startswith(kind)] for kind in ("prob:", "node:"))
        assert nodes == ["node:node 2", "node:node 5"]
        numpy.savez(
            tmp_path / "a-b-0.npz",
            id=content["id"].to_numpy(dtype=str),
            patient=content["patient"].to_numpy(dtype=str),
            split=content["split"].to_numpy(dtype=str),
            classes=numpy.array([name[5:] for name in classes]),
            prob=content[classes].to_numpy(),
            nodes=numpy.array([name[5:] for name in nodes]),
            node=content[nodes].to_numpy(),
            labels=numpy.array(["a"]),
            true=truth[:, None],
        )
        first, *others = [external_files.read(tmp_path / f"a-b-0{suffix}") for suffix in external_files.SUFFIXES]
        assert first.ids.tolist() == content["id"].tolist() and first.labels == ("a",)
        assert numpy.array_equal(first.truth[:, 0], truth, equal_nan=True)
        for other in others:
            assert (other.classes, other.labels) == (first.classes, first.labels)
            for name in ("ids", "patients", "split"):
                assert (getattr(other, name) == getattr(first, name)).all(), name
            assert other.numbers == pytest.approx(first.numbers, rel=1e-15)
            assert other.nodes == first.nodes == ("node 2", "node 5")
            assert other.node_numbers == pytest.approx(first.node_numbers, rel=1e-15)
            assert numpy.array_equal(other.truth, first.truth, equal_nan=True)

    @pytest.mark.parametrize(
        ("columns", "told"),
        [
            ({"prob:a": None}, r"no numbers for a of the tree"),
            ({"prob:b3": 0.1}, r"'b3' is no class here. Did you mean 'b2'"),
            (
                {"a": 0.1},
                r"the column 'a' is not known. Known: id, patient, split, prob:<class>, node:<name>, true:<class>",
            ),
            ({"node:b11": 0.9}, r"'b11' is no node of the tree. Did you mean 'b1'"),
            ({"node:node 2": 1.5}, r"the image 'image0' has 1.5 for the node 'node 2', which is no probability"),
            ({"node:node 2": [0.9] * 11 + [None]}, r"the image 'image11' has no finite number for the node 'node 2'"),
            ({"node:node 2": ["x"] * 12}, r"line 2, column 'node:node 2': 'x' is not a number"),
            ({"true:b3": 1}, r"the label 'b3' is not the data set's. Did you mean 'b2'"),
            ({"prob:a": [0.1] * 11 + [1.5]}, r"no probabilities. If they are logits, set external.kind"),
            ({"prob:a": [0.1] * 11 + [None]}, r"the image 'image11' has no finite number for the class 'a'"),
            ({"prob:a": [0.1] * 11 + ["inf"]}, r"the image 'image11' has no finite number for the class 'a', but inf"),
            ({"prob:a": ["x"] * 12}, r"line 2, column 'prob:a': 'x' is not a number"),
            ({"id": ["image0"] * 12}, r"lines 2 and 3 both name 'image0'"),
            ({"id": [""] + ["image0"] * 11}, r"is not an id"),
            ({"split": ["tset"] * 12}, r"'tset' is not one of blank, train, validation, test"),
            ({"true:a": [2] * 12}, r"'2' is not one of '1'"),
            ({"id": None}, r"the column 'id' is missing"),
            (dict.fromkeys(f"prob:{name}" for name in TREE.classes), r"has no column prob:<class>"),
        ],
    )
    def test_what_is_wrong_is_named(self, tmp_path, columns, told):
        with pytest.raises(SeverityError, match=told):
            converted(tmp_path, columns)

    def test_a_column_twice_no_row_and_no_table(self, tmp_path):
        path = tmp_path / "a.csv"
        for text, told in (
            ("id,prob:a,prob:a\nx,0.1,0.2\n", "the column 'prob:a' is duplicated"),
            ("id,prob:a,node:B,node:B\nx,0.1,0.2,0.2\n", "the column 'node:B' is duplicated"),
            ("id,prob:a\n", "no row"),
            ("", "cannot be read as a CSV table"),
        ):
            path.write_text(text)
            with pytest.raises(SeverityError, match=told):
                external_files.read(path)
        (tmp_path / "b.csv.gz").write_text("no gzip")
        with pytest.raises(SeverityError, match="cannot be read"):
            external_files.read(tmp_path / "b.csv.gz")

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"prob": numpy.zeros((2, 3))}, r"'prob' is float64 of the shape \(2, 3\); it must be numbers"),
            ({"prob": numpy.array([["a", "b"]] * 2)}, "must be numbers"),
            ({"id": numpy.array([1, 2])}, "'id' is int64 .* must be text"),
            ({"id": numpy.array([{}, {}], dtype=object)}, "cannot be read as arrays of numbers and text"),
            ({"id": numpy.array(["x", "x"])}, "both name 'x'"),
            ({"id": numpy.array(["x", ""])}, "'id' holds ''"),
            ({"classes": numpy.array(["a", "a"])}, "the class 'a' is duplicated"),
            ({"split": numpy.array(["", "tset"])}, "'split' holds 'tset'"),
            ({"probs": numpy.zeros(2)}, "'probs' is not known. Did you mean 'prob'"),
            ({"labels": numpy.array(["a"])}, "labels and true; it must have both or neither"),
            ({"node": numpy.ones((2, 1))}, "nodes and node; it must have both or neither"),
            ({"nodes": numpy.array(["B"]), "node": numpy.ones((2, 2))}, r"must be numbers of the shape \(2, 1\)"),
            ({"nodes": numpy.array(["B", "B"]), "node": numpy.ones((2, 2))}, "the node 'B' is duplicated"),
            ({"nodes": numpy.array(["B"]), "node": numpy.full((2, 1), numpy.inf)}, "for the node 'B', but inf"),
            ({"labels": numpy.array(["a"]), "true": numpy.array([[0.5], [1]])}, "'true' holds '0.5'"),
            ({"classes": None}, "the array 'classes' is missing"),
            ({"id": numpy.empty(0, dtype=str), "prob": numpy.empty((0, 2))}, "holds no image"),
        ],
    )
    def test_arrays_that_are_not_of_the_form(self, tmp_path, change, told):
        arrays = {"id": numpy.array(["x", "y"]), "classes": numpy.array(["a", "b1"]), "prob": numpy.full((2, 2), 0.5)}
        arrays = {name: array for name, array in (arrays | change).items() if array is not None}
        numpy.savez(tmp_path / "a-b-0.npz", **arrays)
        with pytest.raises(SeverityError, match=told):
            external_files.read(tmp_path / "a-b-0.npz")

    def test_the_file_of_a_run_is_found_once(self, tmp_path):
        for name in ("chexnet-bce-0.csv.gz", "README.md"):
            (tmp_path / name).touch()
        assert external_files.find(tmp_path, "chexnet-bce-0").name == "chexnet-bce-0.csv.gz"
        assert [path.name for path in external_files.listed(tmp_path)] == ["chexnet-bce-0.csv.gz"]
        with pytest.raises(
            SeverityError, match="no predictions of the run 'chexnet-bce-1'.*Did you mean 'chexnet-bce-0'"
        ):
            external_files.find(tmp_path, "chexnet-bce-1")
        (tmp_path / "chexnet-bce-0.npz").touch()
        with pytest.raises(SeverityError, match=r"chexnet-bce-0.csv.gz, chexnet-bce-0.npz. Keep one"):
            external_files.find(tmp_path, "chexnet-bce-0")


class TestNumbers:
    def numbers(self, tmp_path, values: numpy.ndarray, **options) -> Predictions:
        return converted(tmp_path, {f"prob:{name}": values[:, k] for k, name in enumerate(TREE.classes)}, **options)

    def test_columns_go_by_name_whatever_their_order(self, tmp_path):
        plain = converted(tmp_path)
        content = table()
        content[content.columns[::-1]].iloc[::-1].to_csv(tmp_path / "a-b-0.csv", index=False)
        other = conversion.convert(
            "a-b-0", external_files.read(tmp_path / "a-b-0.csv"), known(), TREE, "made up", **OPTIONS
        )
        for name in ("ids", "node_logits", "log_posterior", "patients"):
            assert (getattr(plain, name) == getattr(other, name)).all()
        assert plain.ids.tolist() == known().frame["id"].tolist()

    def test_marginals_are_those_of_labels_and_distributions_exclude(self, tmp_path):
        random = numpy.random.default_rng(0)
        marginal = random.uniform(0.1, 0.9, (IMAGES, 6))
        found = self.numbers(tmp_path, marginal)
        assert found.known["external"]["kind"] == "marginal" and found.known["external"]["detected"]
        assert not found.exclusive and expit(found.label_logits) == pytest.approx(marginal, rel=1e-6)
        nodes = tree_model.node_logits_of_labels(scipy.special.logit(marginal), TREE)
        assert found.node_logits == pytest.approx(nodes, rel=1e-6)
        assert found.log_posterior == pytest.approx(tree_model.log_posterior_of_nodes(nodes, TREE), rel=1e-5)
        posterior = numpy.round(random.dirichlet(numpy.ones(6), IMAGES), 3)
        found = self.numbers(tmp_path, posterior)
        assert found.known["external"]["kind"] == "posterior"
        assert found.posterior == pytest.approx(posterior / posterior.sum(axis=1, keepdims=True), rel=1e-6)
        assert found.exclusive
        assert expit(found.node_logits) == pytest.approx(subtrees.probabilities(found.posterior, TREE), rel=1e-5)
        told = conversion.statement(found)
        assert (
            told == "a-b-0: 12 test and 0 validation images; posterior (found out: set external.kind if that is wrong)"
        )
        # Told, not found out: the same numbers are marginals that happen to sum to one.
        found = self.numbers(tmp_path, posterior.clip(1e-3), kind="marginal")
        assert expit(found.label_logits) == pytest.approx(posterior.clip(1e-3), rel=1e-5)

    def test_logits(self, tmp_path):
        logits = numpy.random.default_rng(0).normal(size=(IMAGES, 6)) * 4
        found = self.numbers(tmp_path, logits, kind="sigmoid_logits")
        assert (found.label_logits == logits.astype(numpy.float32)).all()
        found = self.numbers(tmp_path, logits, kind={"default": "marginal", "a-b-0": "softmax_logits"})
        assert found.posterior == pytest.approx(scipy.special.softmax(logits, axis=1), rel=1e-6)
        assert not found.known["external"]["detected"]

    def test_logits_whose_probabilities_are_lost_to_rounding_keep_their_ranks(self, tmp_path):
        for far in (-900.0, 900.0):
            logits = far - numpy.random.default_rng(0).random((IMAGES, 6))
            found = self.numbers(tmp_path, logits, kind="sigmoid_logits")
            assert (found.label_logits.argsort(axis=1) == logits.argsort(axis=1)).all()
            assert numpy.isfinite(found.log_posterior).all()
            found = self.numbers(tmp_path, logits * 100, kind="softmax_logits")
            assert (found.log_posterior.argsort(axis=1) == logits.argsort(axis=1)).all()

    def test_probabilities_of_0_and_1_stay_finite(self, tmp_path):
        numbers = numpy.eye(6)[numpy.arange(IMAGES) % 6]
        for kind in ("marginal", "posterior"):
            found = self.numbers(tmp_path, numbers, kind=kind)
            inner = numpy.delete(found.node_logits, TREE.root, axis=1)
            assert numpy.isfinite(found.log_posterior).all() and numpy.isfinite(inner).all()
            assert (found.log_posterior.argmax(axis=1) == numbers.argmax(axis=1)).all()
            assert expit(found.label_logits) == pytest.approx(numbers)
        found = self.numbers(tmp_path, 1 - numbers, kind="marginal")
        assert numpy.isfinite(found.log_posterior).all() and expit(found.label_logits) == pytest.approx(1 - numbers)

    @pytest.mark.parametrize(
        ("value", "options", "told"),
        [
            (0.0, {}, "all probabilities of the image 'image0' are 0"),
            (0.5, {"kind": "posterior"}, "with the sum 3; a posterior has numbers from 0 to 1 that sum to one"),
            (1.5, {"kind": "marginal"}, "from 1.5 to 1.5 .* a marginal has numbers from 0 to 1"),
        ],
    )
    def test_numbers_that_are_not_of_their_kind(self, tmp_path, value, options, told):
        with pytest.raises(SeverityError, match=told):
            self.numbers(tmp_path, numpy.full((IMAGES, 6), value), **options)

    def test_a_missing_class_is_the_complement_where_that_is_said(self, tmp_path):
        with pytest.raises(SeverityError, match="set external.missing_class to complement"):
            converted(tmp_path, {"prob:b2": None})
        found = converted(tmp_path, {"prob:b2": None}, missing_class="complement")
        others = table()[[f"prob:{name}" for name in TREE.classes if name != "b2"]].to_numpy()
        a, b1, c1, d1, d2 = others.T
        deep = numpy.max([c1, d1, d2], axis=0)  # of C, a group that is no label
        nothing = (1 - a) * (1 - b1) * (1 - deep)
        place = TREE.classes.index("b2")
        assert expit(found.label_logits[:, place]) == pytest.approx(nothing, rel=1e-5)
        assert found.posterior[:, place] == pytest.approx(nothing, rel=1e-5)
        # The others are as on a tree without the class.
        without = Hierarchy.from_parents([-1, 0, 0, 2, 0, 4, 4, 6, 6], [1, 3, 5, 7, 8], ["a", "b1", "c1", "d1", "d2"])
        nodes = tree_model.node_logits_of_labels(scipy.special.logit(others), without)
        rest = numpy.exp(tree_model.log_posterior_of_nodes(nodes, without))
        assert numpy.delete(found.posterior, place, axis=1) == pytest.approx((1 - nothing)[:, None] * rest, rel=1e-5)
        # It excludes them, so that the group above both has the sum.
        assert expit(found.node_logits[:, TREE.names.index("node 2")]) == pytest.approx(b1 + nothing, rel=1e-5)
        assert not found.exclusive
        assert found.known["external"]["complement"] == "b2" and "b2 is the complement" in conversion.statement(found)
        with pytest.raises(SeverityError, match="serves a single class"):
            converted(tmp_path, {"prob:b2": None, "prob:a": None}, missing_class="complement")
        with pytest.raises(SeverityError, match="A distribution over classes must have all of them"):
            converted(tmp_path, {"prob:b2": None}, missing_class="complement", kind="softmax_logits")

    def test_an_image_of_nothing_is_wholly_the_complement_and_one_of_everything_not_at_all(self, tmp_path):
        place = TREE.classes.index("b2")
        for value in (0.0, 1.0):
            columns = {f"prob:{name}": value for name in TREE.classes} | {"prob:b2": None}
            found = converted(tmp_path, columns, missing_class="complement", kind="marginal")
            assert found.posterior[:, place] == pytest.approx(numpy.full(IMAGES, 1 - value), abs=1e-9)
            assert numpy.isfinite(found.log_posterior).all() and found.posterior.sum(axis=1) == pytest.approx(1)
            assert not numpy.isnan(found.node_logits).any()

    def test_the_node_of_the_complement_cannot_be_given(self, tmp_path):
        with pytest.raises(SeverityError, match="gives the node of 'b2'.*prob:b2"):
            converted(tmp_path, {"prob:b2": None, "node:b2": 0.1}, missing_class="complement")

    def test_a_label_that_the_tree_leaves_out_is_left_out_of_the_file(self, tmp_path):
        truth = known()
        truth = Truth(truth.frame.assign(beside=0.0), (*truth.labels, "beside"), truth.folder)
        found = converted(tmp_path, {"prob:beside": [0.9] * IMAGES}, truth)
        assert (found.posterior == converted(tmp_path).posterior).all()
        assert found.known["external"]["classes_left_out"] == ["beside"]
        assert "without the classes beside" in conversion.statement(found)


class TestNodes:
    def test_a_group_has_the_number_of_its_column_and_the_posterior_follows(self, tmp_path):
        plain, found = converted(tmp_path), converted(tmp_path, {"node:node 2": 0.9})
        group = TREE.names.index("node 2")
        assert expit(found.node_logits[:, group]) == pytest.approx(numpy.full(IMAGES, 0.9))
        others = [node for node in range(len(TREE.names)) if node != group]
        assert (found.node_logits[:, others] == plain.node_logits[:, others]).all()
        wanted = tree_model.log_posterior_of_nodes(found.node_logits, TREE)
        assert found.log_posterior == pytest.approx(wanted, rel=1e-5)
        # b1 and b2 no longer have to be there together.
        assert (found.posterior[:, 1:3].sum(axis=1) > plain.posterior[:, 1:3].sum(axis=1)).all()
        assert found.known["external"]["nodes_given"] == ["node 2"]
        assert "with the nodes node 2" in conversion.statement(found)

    def test_a_node_that_is_not_given_is_raised_to_its_largest_child(self, tmp_path):
        found = converted(tmp_path, {"node:node 7": 0.9})
        for name in ("node 7", "node 5"):
            assert expit(found.node_logits[:, TREE.names.index(name)]) == pytest.approx(numpy.full(IMAGES, 0.9))

    def test_a_number_of_a_labels_node_is_the_labels(self, tmp_path):
        found = converted(tmp_path, {"node:b1": 0.03})
        assert expit(found.label_logits[:, 1]) == pytest.approx(numpy.full(IMAGES, 0.03))
        assert (found.log_posterior == converted(tmp_path, {"prob:b1": 0.03}).log_posterior).all()

    def test_log_odds_beside_sigmoid_logits(self, tmp_path):
        columns = {f"prob:{name}": -1.0 for name in TREE.classes} | {"node:node 5": 2.5, "node:node 0": 0.0}
        found = converted(tmp_path, columns, kind="sigmoid_logits")
        assert (found.node_logits[:, TREE.names.index("node 5")] == 2.5).all()
        assert (found.node_logits[:, TREE.root] == numpy.inf).all()  # always there, whatever the file has

    def test_a_posterior_of_the_file_stays(self, tmp_path):
        columns = {f"prob:{name}": 1 / 8 for name in TREE.classes} | {"prob:a": 3 / 8}
        plain, found = converted(tmp_path, columns), converted(tmp_path, columns | {"node:node 2": 0.6})
        assert plain.exclusive and not found.exclusive
        assert (found.log_posterior == plain.log_posterior).all()
        assert expit(found.node_logits[:, TREE.names.index("node 2")]) == pytest.approx(numpy.full(IMAGES, 0.6))
        assert expit(found.label_logits) == pytest.approx(plain.posterior, rel=1e-5)

    @pytest.mark.parametrize("columns", [{"node:node 2": 0.01}, {"node:node 7": 0.7, "node:node 5": 0.69}])
    def test_a_child_above_its_parent_is_refused_with_image_and_nodes(self, tmp_path, columns):
        told = r"for the image 'image\d+' the node '(b1|b2|node 7)' has the probability .* its parent '(node 2|node 5)' only"
        with pytest.raises(SeverityError, match=told):
            converted(tmp_path, columns)

    def test_a_rise_as_small_as_rounding_is_cut(self, tmp_path):
        found = converted(tmp_path, {"node:node 7": 0.7000005, "node:node 5": 0.7})
        deep, above = (found.node_logits[:, TREE.names.index(name)] for name in ("node 7", "node 5"))
        assert (deep == above).all() and expit(above) == pytest.approx(numpy.full(IMAGES, 0.7))

    def test_own_leaves_follow_from_their_node_and_its_children_unless_they_are_given(self, tmp_path):
        tree = Hierarchy.from_parents([-1, 0, 0, 2, 2], [1, 2, 3, 4], ["a", "B", "b1", "b2"])
        own = tree.names[tree.class_nodes[1]]
        truth = Truth(known().frame.assign(B=0.0), tree.classes, "data/prepared")
        columns = dict.fromkeys([f"prob:{name}" for name in TREE.classes])
        columns |= {"prob:a": 0.2, "prob:B": 0.3, "prob:b1": 0.2, "prob:b2": 0.1}

        def leaf(extra: dict) -> numpy.ndarray:
            sheet = sheet_of(tmp_path, columns | extra)
            found = conversion.convert("a-b-0", sheet, truth, tree, "made up", **(OPTIONS | {"kind": "marginal"}))
            return expit(found.node_logits[:, tree.class_nodes[1]])

        assert leaf({}) == pytest.approx(numpy.full(IMAGES, 0.3 * (1 - 2 / 3) * (1 - 1 / 3)))
        assert leaf({"node:B": 0.6}) == pytest.approx(numpy.full(IMAGES, 0.6 * (1 - 1 / 3) * (1 - 1 / 6)))
        assert leaf({"node:b1": 0.1}) == pytest.approx(numpy.full(IMAGES, 0.3 * (1 - 1 / 3) ** 2))
        assert leaf({f"node:{own}": 0.05}) == pytest.approx(numpy.full(IMAGES, 0.05))


class TestImages:
    def test_truth_and_patients_are_those_of_the_data_set(self, tmp_path):
        found = converted(tmp_path, {"patient": ["other"] * IMAGES})
        truth = known().frame
        assert found.patients.tolist() == truth["patient"].tolist()
        assert numpy.array_equal(found.truth, truth[list(TREE.classes)].to_numpy(dtype="float32"), equal_nan=True)
        assert set(found.split) == {"test"} and str(found.dataset) == "made up" and str(found.run) == "a-b-0"

    def test_truth_that_differs_is_refused_and_what_is_not_known_does_not_differ(self, tmp_path):
        said = known().frame["b1"].to_numpy().copy()
        converted(tmp_path, {"true:b1": numpy.nan_to_num(said, nan=1)})
        said[1] = 1 - said[1]
        with pytest.raises(SeverityError, match=r"for the image 'image1' 'b1' is .* \(1 such images\)"):
            converted(tmp_path, {"true:b1": said})

    def test_unknown_images_are_refused_or_counted(self, tmp_path):
        columns = {"id": [*known().frame["id"][:-1], "image99"]}
        with pytest.raises(
            SeverityError, match="1 of 12 images are not in data/prepared: image99. Ids must be written"
        ):
            converted(tmp_path, columns)
        with pytest.raises(SeverityError, match="lacks 1 of the images .*: image11"):
            converted(tmp_path, columns, unknown_ids="leave_out")
        found = converted(tmp_path, columns, unknown_ids="leave_out", incomplete="allow")
        assert len(found.ids) == 11 and found.known["external"]["unknown_ids_left_out"] == 1
        assert found.known["external"]["images_without_prediction"] == 1
        assert "; 1 images without prediction; 1 unknown ids left out" in conversion.statement(found)
        with pytest.raises(SeverityError, match="no test image"):
            converted(tmp_path, {"id": [f"x{n}" for n in range(IMAGES)]}, unknown_ids="leave_out", incomplete="allow")

    @pytest.mark.parametrize("suffix", [".png", ".JPG", ".dcm"])
    @pytest.mark.parametrize("theirs", [True, False])
    def test_ids_are_joined_with_and_without_the_suffix_of_a_file(self, tmp_path, suffix, theirs):
        named = [f"{image}{suffix}" for image in known().frame["id"]]
        truth = known()
        truth.frame["id"] = truth.frame["id"] if theirs else named
        found = converted(tmp_path, {"id": [*named[:-2], "image10", "image11"]} if theirs else None, truth)
        plain = converted(tmp_path)
        assert numpy.array_equal(found.label_logits, plain.label_logits)
        assert found.ids.tolist() == truth.frame["id"].tolist()
        told = found.known["external"]
        assert told["ids_matched_without_suffix"] == (10 if theirs else 12) and told["unknown_ids_left_out"] == 0
        assert "ids matched without suffix" in conversion.statement(found)

    def test_ids_that_two_files_may_be_are_refused(self, tmp_path):
        twice = [*known().frame["id"][:-1], "image0.png"]
        with pytest.raises(SeverityError, match="more than one image is called 'image0'"):
            converted(tmp_path, {"id": twice})
        truth = known()
        truth.frame["id"] = ["image0.png", "image0.jpg", *truth.frame["id"][2:]]
        with pytest.raises(SeverityError, match="more than one image is called 'image0'"):
            converted(tmp_path, None, truth, unknown_ids="leave_out", incomplete="allow")

    def test_splits_are_the_data_sets_and_training_images_do_not_count(self, tmp_path):
        truth = known()
        truth.frame["split"] = ["train"] * 4 + ["validation"] * 4 + ["test"] * 4
        found = converted(tmp_path, truth=truth)
        assert found.split.tolist() == ["validation"] * 4 + ["test"] * 4
        assert found.known["external"]["train_images_left_out"] == 4
        with pytest.raises(SeverityError, match="'image0' is in the split 'test', but the data set has it in 'train'"):
            converted(tmp_path, {"split": ["test"] * IMAGES}, truth)
        # Test images alone are no gap in the validation images; a part of the validation images is one.
        part = table().iloc[8:]
        part.to_csv(tmp_path / "a-b-0.csv", index=False)
        alone = conversion.convert(
            "a-b-0", external_files.read(tmp_path / "a-b-0.csv"), truth, TREE, "made up", **OPTIONS
        )
        assert not alone.has("validation") and alone.known["external"]["images_without_prediction"] == 0
        table().iloc[7:].to_csv(tmp_path / "a-b-0.csv", index=False)
        with pytest.raises(SeverityError, match="lacks 3 of the images"):
            conversion.convert("a-b-0", external_files.read(tmp_path / "a-b-0.csv"), truth, TREE, "made up", **OPTIONS)

    def test_where_the_data_set_says_no_split_the_file_does(self, tmp_path):
        found = converted(tmp_path, {"split": ["validation", "validation", *[""] * 10]}, known(split=""))
        assert found.split.tolist() == ["validation"] * 2 + ["test"] * 10

    def test_validation_images_are_divided_off_by_patient(self, tmp_path):
        found = converted(tmp_path, validation_fraction=0.5)
        of = pandas.DataFrame({"patient": found.patients, "split": found.split})
        assert (of.groupby("patient")["split"].nunique() == 1).all() and set(of["split"]) == {"validation", "test"}
        assert found.known["external"]["divided"]
        again = converted(tmp_path, validation_fraction=0.5)
        assert (again.split == found.split).all()
        others = [converted(tmp_path, validation_fraction=0.5, seed=seed).split.tolist() for seed in range(1, 4)]
        assert any(other != found.split.tolist() for other in others)
        with_some = converted(tmp_path, {"split": ["validation"] * 2 + [""] * 10}, known(""), validation_fraction=0.5)
        assert (with_some.split == "validation").sum() == 2 and not with_some.known["external"]["divided"]

    def test_the_file_is_the_form_of_a_trained_runs_and_the_same_bytes(self, tmp_path):
        for name in ("one", "two"):
            converted(tmp_path).write(tmp_path / f"{name}.npz")
        assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
        assert Predictions.read(tmp_path / "one.npz", TREE).known["external"]["file"] == "a-b-0.csv"

    def test_a_trained_runs_own_predictions_come_back_with_its_own_metrics(self, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        trained = predictions(images=90)
        # From log-odds in float32, as the file of external predictions has them.
        logits = tree_model.node_logits_of_labels(trained.label_logits, TREE)
        posterior = tree_model.log_posterior_of_nodes(logits, TREE)
        trained = replace(trained, log_posterior=posterior)
        names = list(TREE.classes)
        frame = pandas.DataFrame(trained.truth, columns=names).assign(
            id=trained.ids, patient=trained.patients, split=trained.split, sex="", age=numpy.nan, view=""
        )
        files.write_csv("data/prepared/table.csv", frame[["id", "patient", "sex", "age", "view", "split", *names]])
        counts = {"train": {"labels": dict.fromkeys(names, {})}}
        files.write_json("data/prepared/summary.json", {"images": len(frame), "counts": counts})
        content = pandas.DataFrame(trained.label_logits.astype(float), columns=[f"prob:{name}" for name in names])
        content.assign(id=trained.ids).sample(frac=1, random_state=0).to_csv("a-b-0.csv", index=False)
        sheet, truth = external_files.read("a-b-0.csv"), conversion.read_truth("data/prepared")
        found = conversion.convert("a-b-0", sheet, truth, TREE, "made up", **OPTIONS | {"kind": "sigmoid_logits"})
        for name in ("ids", "patients", "split", "node_logits"):
            assert (getattr(found, name) == getattr(trained, name)).all(), name
        assert found.log_posterior == pytest.approx(posterior, abs=1e-12)  # sums over the images in another order
        trained = replace(trained, log_posterior=found.log_posterior)
        assert numpy.array_equal(found.truth, trained.truth, equal_nan=True)
        cost = costs.lca_height(TREE)
        again, before = (evaluation.evaluate(each, TREE, cost, **EVALUATE) for each in (found, trained))
        for section in ("rules", "labels", "counts", "macro_auroc", "validation", "baselines"):
            assert again[section] == before[section], section

    def test_the_truth_is_one_of_two_folders(self):
        with pytest.raises(SeverityError, match="external.truth is 'data/prepard'. Did you mean 'data/prepared'"):
            conversion.read_truth("data/prepard")


class TestWithoutValidation:
    def found(self, tmp_path, run: Run | None = None) -> Record:
        options = EVALUATE | {"rules": ["argmax", "crm", "crm_ts"]}
        return records.of(converted(tmp_path), TREE, costs.lca_height(TREE), run=run, **options)

    def test_what_needs_validation_images_is_named_and_the_rest_is_there(self, tmp_path):
        found = self.found(tmp_path)
        reason = "not available: no validation images"
        assert found["not_available"] == dict.fromkeys(("crm_ts", "threshold_f1", "hbayes_ts"), reason)
        assert list(found["rules"]) == ["argmax", "crm"]
        assert list(found["multi_label"]["rules"]) == ["threshold", "hbayes"]
        assert found["validation"] == {"macro_auroc": None, "top1_error": {}}
        assert found["nodes"]["climb_ts"] is None and set(found["calibration"]) == {"posterior", "labels"}
        assert set(found["baselines"]["single_decision"]) == {"best_constant", "random"}
        assert set(found["baselines"]["multi_label"]) == {"all_positive", "all_negative"}
        json.dumps(found, allow_nan=False)

    def test_the_rules_that_need_none_have_the_numbers_that_they_have_with_them(self, tmp_path):
        alone = self.found(tmp_path)
        content = table()
        more = content.assign(id=[f"extra{n}" for n in range(IMAGES)])
        pandas.concat([content, more]).to_csv(tmp_path / "a-b-0.csv", index=False)
        truth = known()
        extra = known("validation").frame.assign(id=more["id"])
        truth = Truth(pandas.concat([truth.frame, extra], ignore_index=True), truth.labels, truth.folder)
        both = conversion.convert(
            "a-b-0", external_files.read(tmp_path / "a-b-0.csv"), truth, TREE, "made up", **OPTIONS
        )
        found = evaluation.evaluate(both, TREE, costs.lca_height(TREE), **EVALUATE)
        assert found["not_available"] == {}
        for rule in ("argmax", "crm"):
            assert found["rules"][rule] == alone["rules"][rule]
        for rule in ("threshold", "hbayes"):
            assert found["multi_label"]["rules"][rule] == alone["multi_label"]["rules"][rule]
        assert found["labels"] == alone["labels"]

    def test_a_misspelt_rule_is_no_rule_that_cannot_be_had(self, tmp_path):
        for options in ({"rules": ["crn_ts"]}, {"multi_label": ["hbayse_ts"]}):
            with pytest.raises(SeverityError, match="unknown decision rule"):
                evaluation.evaluate(converted(tmp_path), TREE, costs.lca_height(TREE), **(EVALUATE | options))

    def test_medians_headline_and_figures_cope(self, tmp_path):
        study = {run: self.found(tmp_path, run) for run in (Run("a", "b", seed) for seed in range(2))}
        summary = configurations.medians(list(study.values()), "crm_ts")
        assert summary["top1_error"] is None and summary["macro_auroc"] is not None
        files.write_json(tmp_path / "metrics/a-b-0.json", study[Run("a", "b", 0)])
        assert record.read_runs(tmp_path / "metrics", [Run("a", "b", 0)], ["argmax", "crm_ts"])
        rules = ["argmax", "crm", "crm_ts"]
        row = configurations.markdown(configurations.comparison(study, rules)).splitlines()[4]
        assert row.startswith("| a | b | crm_ts | 2 | n/a | n/a |")
        headline = configurations.headline(study, rules)
        assert headline["configuration"] == "a-b" and "no run has a validation macro-AUROC" in headline["chosen"]
        assert headline["crm_ts_hd_at_1"] is None
        drawn = draw(study)
        table = drawn["tradeoff"].table
        assert set(table.loc[table["runs"] > 0, "rule"]) == {"argmax", "crm"}
        assert drawn["labels"].table["severity_crm"].notna().any()

    def test_beside_runs_with_validation_images_what_is_missing_is_named_in_the_figure(self, tmp_path):
        whole = converted(tmp_path, validation_fraction=0.7)
        options = EVALUATE | {"rules": ["argmax", "crm", "crm_ts"]}
        trained = records.of(whole, TREE, costs.lca_height(TREE), run=Run("c", "d", 0), **options)
        study = {Run("a", "b", 0): self.found(tmp_path), Run("c", "d", 0): trained}
        assert configurations.best(study) == ("c", "d") and "chosen" not in configurations.headline(study, ["argmax"])
        drawn = draw(study)
        for name in ("tradeoff", "levels", "ranking"):
            assert "without crm_ts, which a-b-0 cannot have" in drawn[name].caption, name
        table = drawn["tradeoff"].table
        assert set(table.loc[table["runs"] > 0, "rule"]) == {"argmax", "crm"}


def draw(study):
    """The figures of the scores, of comparisons without a row."""
    comparisons = {
        name: pandas.DataFrame(columns=[*words, *numbers]).astype(dict.fromkeys(numbers, float))
        for name, (words, numbers) in plot.COMPARISONS.items()
    }
    drawn_from = ScoreStudy(
        records=study, comparisons=comparisons, level=0.95, hierarchy=TREE, cost=costs.lca_height(TREE),
        configuration="best", configurations_shown=12, labels=6, classes=60,
    )  # fmt: skip
    return catalogue.draw("plot", drawn_from)


class TestRuns:
    def params(self, adopt: list, truth: str = "data/prepared", seeds: tuple = (0,)) -> dict:
        grid = {"backbone": ["r"], "loss": ["ce"], "seed": list(seeds)}
        return {"grid": grid, "external": {"runs": adopt, "truth": truth}}

    def test_adopted_runs_come_after_the_grids(self):
        both = runs.scored(self.params(["chexnet-bce-10"]))
        assert both == [Run("r", "ce", 0), Run("chexnet", "bce", 10)]
        assert runs.scored(self.params(["chexnet-bce-10"], "data/collection", ())) == [Run("chexnet", "bce", 10)]

    @pytest.mark.parametrize(
        "name", ["chexnet", "chexnet-bce", "CheXNet-bce-0", "a-b-c-0", "a-b-01", "a-b-x", "a-b-0.csv"]
    )
    def test_a_name_is_backbone_loss_seed(self, name):
        with pytest.raises(SeverityError, match="is not the name of a run. It must be <backbone>-<loss>-<seed>"):
            runs.scored(self.params([name]))

    def test_names_and_images_of_the_grid_are_kept_apart(self):
        with pytest.raises(SeverityError, match="external.runs names r-ce-0, which the grid trains as well"):
            runs.scored(self.params(["r-ce-0"]))
        with pytest.raises(SeverityError, match="the grid has runs, which are scored on data/prepared"):
            runs.scored(self.params(["a-b-0"], "data/collection"))
        assert runs.scored(self.params([], "data/collection")) == [Run("r", "ce", 0)]

    @given(strategies.from_regex(runs.NAME, fullmatch=True))
    def test_a_run_has_the_name_that_it_came_from(self, name):
        assert runs.named(name).name == name


class TestLabelsAlone:
    def test_labels_of_several_files_are_joined(self, tmp_path):
        shutil.copytree(golden.EXTERNAL, tmp_path / "all")
        found = labels_alone.read(tmp_path / "all")
        assert len(found.table) == 60 and len(found.labels) == 15 and found.notes == {}
        first = pandas.read_csv(tmp_path / "all/sigmoids-bce-0.csv", dtype=str)
        for name, rows in (("one", slice(0, 40)), ("two", slice(30, 60))):
            (tmp_path / "parts").mkdir(exist_ok=True)
            first.iloc[rows].to_csv(tmp_path / f"parts/{name}-b-0.csv", index=False)
        again = labels_alone.read(tmp_path / "parts")
        pandas.testing.assert_frame_equal(found.table, again.table)

    def test_without_patients_each_image_is_one_and_that_is_told(self, tmp_path):
        sheet_of(tmp_path, {"true:a": [0, 1] * 6, "true:b1": 1})
        found = labels_alone.read(tmp_path)
        assert found.table["patient"].tolist() == found.table["id"].tolist()
        assert found.notes == {"images without a patient, each taken as one of its own": IMAGES}

    def test_a_file_that_cannot_be_read_is_left_out_and_told(self, tmp_path, capsys):
        table({"true:a": [1.0] * IMAGES, "true:b1": [0.0] * IMAGES}).to_csv(tmp_path / "a-b-0.csv", index=False)
        for name in ("notes.csv", "open.csv", "other.npz"):
            (tmp_path / name).write_text('id,prob:a\nx,"0.5\n')
        assert labels_alone.collect(tmp_path, tmp_path / "out") == IMAGES
        found = labels_alone.read(tmp_path)
        assert found.notes["files that cannot be read, left out"] == "notes.csv, open.csv, other.npz"
        assert "left out: " in (told := capsys.readouterr().err) and "notes.csv, line 2: a quote" in told
        (tmp_path / "a-b-0.csv").write_text("id;prob:a\nx;half\n")
        with pytest.raises(
            SeverityError, match="no file of predictions with columns true:<class>.*'half' is not a num"
        ):
            labels_alone.read(tmp_path)

    def test_files_that_disagree_or_have_no_labels_are_refused(self, tmp_path):
        sheet_of(tmp_path)
        with pytest.raises(SeverityError, match="no file of predictions with columns true:<class>"):
            labels_alone.read(tmp_path)
        sheet_of(tmp_path, {"true:a": [0, 1] * 6, "true:b1": 1})
        table({"true:a": [1, 1] * 6, "true:b1": 1}).to_csv(tmp_path / "c-d-0.csv", index=False)
        with pytest.raises(SeverityError, match="files disagree on patient, split or labels of 6 images: image0"):
            labels_alone.read(tmp_path)
        table({"true:a": 1, "true:b2": 1}).to_csv(tmp_path / "c-d-0.csv", index=False)
        with pytest.raises(SeverityError, match="labels for other classes: b1, b2"):
            labels_alone.read(tmp_path)


class TestGolden:
    @pytest.fixture(scope="class")
    def study(self, tmp_path_factory):
        folder = tmp_path_factory.mktemp("golden")
        golden.study(folder, golden.settings())
        return folder

    def test_the_table_is_the_stored_one(self, study):
        stored = pandas.read_csv(golden.HERE / "table.csv")
        pandas.testing.assert_frame_equal(
            pandas.read_csv(study / "metrics/table.csv"), stored, rtol=1e-6, obj="renew with python -m tests.golden"
        )

    def test_the_lab_report_is_the_stored_one(self, study):
        def numbers(value):
            if isinstance(value, dict):
                return {key: numbers(each) for key, each in value.items()}
            return pytest.approx(value, rel=1e-6) if isinstance(value, float) else value

        assert golden.lab(study) == numbers(files.read_json(golden.HERE / "lab.json")), "python -m tests.golden renews"

    def test_the_stored_numbers_are_right_by_hand(self, study):
        """Top-1 error under argmax, from the file itself, for the images that were not divided off."""
        frame = pandas.read_csv(golden.EXTERNAL / "softmax-ce-0.csv").set_index("id")
        said = pandas.read_csv(golden.EXTERNAL / "sigmoids-bce-0.csv").set_index("id")
        with numpy.load(study / "data/predictions/softmax-ce-0.npz") as made:
            test = made["ids"][made["split"] == "test"]
        decided = frame.loc[test].idxmax(axis=1).str.removeprefix("prob:")
        wrong = [said.loc[image, f"true:{name}"] == 0 for image, name in decided.items()]
        row = pandas.read_csv(golden.HERE / "table.csv").query("backbone == 'softmax' and rule == 'argmax'")
        assert row["top1_error"].item() == pytest.approx(numpy.mean(wrong))

    def test_a_truth_that_was_changed_after_collect_is_noticed(self, study, tmp_path, monkeypatch):
        shutil.copytree(study, tmp_path / "study")
        path = tmp_path / "study/data/external_predictions/sigmoids-bce-0.csv"
        frame = pandas.read_csv(path, dtype=str)
        frame.loc[0, "true:Hernia"] = "1" if frame.loc[0, "true:Hernia"] == "0" else "0"
        frame.to_csv(path, index=False)
        monkeypatch.chdir(tmp_path / "study")
        monkeypatch.setattr("sys.argv", ["external", "--run", "sigmoids-bce-0"])
        with pytest.raises(SeverityError, match="dvc repro --single-item --force collect"):
            golden.external.main()


def test_the_published_predictions_give_the_numbers_of_the_benchmark(shared_data, tmp_path):
    folder = shared_data("chexnet_preds")
    (tmp_path / "in").mkdir()
    chexnet_predictions.convert(str(folder / "preds_labels.csv.gz"), str(tmp_path / "in/chexnet-bce-0.csv.gz"))
    (tmp_path / "out").mkdir()
    params = golden.settings(runs=["chexnet-bce-0"], validation_fraction=0.0)
    params["evaluate"]["rules"] = ["argmax", "crm"]
    golden.study(tmp_path / "out", params, external_files=tmp_path / "in")
    found = files.read_json(tmp_path / "out/metrics/runs/chexnet-bce-0.json")
    marginal, truth, patients = chexnet.read(folder)
    case = chexnet.with_no_finding(marginal, truth, patients)
    cost = costs.lca_height(case.tree)
    for rule in ("argmax", "crm"):
        ranking = chexnet.class_rules.rank(rule, posterior=case.posterior, cost=cost, hierarchy=case.tree)
        wanted = chexnet.class_metrics.single_decision(ranking=ranking, truth=case.truth, cost=cost)
        for metric in chexnet.COMPARED:
            assert found["rules"][rule][metric] == pytest.approx(wanted[metric], abs=1e-6)
    published = pandas.read_csv(folder / "aucs.csv").set_index("label")["auc"]
    # Consolidation is raised to Pneumonia, which lies below it.
    alone = [name for name in published.index if name != "Consolidation"]
    assert {name: round(found["labels"][name]["auroc"], 4) for name in alone} == published[alone].round(4).to_dict()
    page = (TOP / "docs/external-predictions.md").read_text()
    for name in found["classes"]:
        scores = [f"{found['labels'][name]['auroc']:.4f}", f"{published[name]:.4f}" if name in published else "—"]
        severities = [f"{found['rules'][rule]['labels'][name]['severity']:.3f}" for rule in ("argmax", "crm")]
        line = [name, f"{found['labels'][name]['positives']:,}", *scores, *severities]
        assert f"| {' | '.join(line)} |" in page, line
    row = pandas.read_csv(tmp_path / "out/metrics/table.csv").set_index("rule").loc["crm"]
    columns = ("top1_error", "mistake_severity", "hd_at_1", "hd_at_5")
    assert f"| crm | {' | '.join(f'{row[column]:.3f}' for column in columns)} |" in page
