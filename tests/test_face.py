"""import severity: what it loads, what it offers, and what it refuses."""

import ast
import subprocess
import sys

import numpy
import pytest
import torch
import yaml
from scipy.special import expit

import severity
from severity.arrays import tree_model
from severity.decisions import class_rules, set_rules
from severity.metrics import class_metrics
from severity.tree import costs
from tests.trees import TOP, chexpert_default, six_classes

HEAVY = ("torch", "torchvision", "timm", "dvc", "matplotlib", "pydantic", "sklearn", "PIL", "tqdm")
SCORING = ("arrays", "irma", "tree", "predictions", "decisions", "metrics", "summary", "comparison", "api")


def fails(text):
    """Expect a SeverityError whose message matches `text`."""
    return pytest.raises(severity.SeverityError, match=text)


def python(code: str) -> str:
    """What a fresh interpreter prints."""
    done = subprocess.run([sys.executable, "-c", code], cwd=TOP, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded(code: str, names: tuple[str, ...]) -> set[str]:
    """Which of `names` a fresh interpreter has loaded after some code."""
    return set(python(f"{code}\nimport sys\nprint(*[name for name in {names!r} if name in sys.modules])").split())


def tables(tree, images=40, seed=0):
    """A posterior and the truth of some images."""
    random = numpy.random.default_rng(seed)
    posterior = random.dirichlet(numpy.ones(len(tree.classes)), size=images)
    return posterior, numpy.eye(len(tree.classes), dtype=bool)[random.integers(len(tree.classes), size=images)]


class TestImport:
    def test_it_loads_nothing(self):
        assert loaded("import severity; dir(severity)", (*HEAVY, "numpy", "pandas", "scipy", "yaml")) == set()

    def test_scoring_loads_nothing_heavy(self):
        code = """
import severity
tree = severity.read_tree("chexpert")
cost = severity.cost("path", tree)
ranking = severity.rank("crm", posterior=[[1 / 14] * 14], cost=cost, hierarchy=tree)
severity.single_decision(ranking=ranking, truth=[[1] * 14], cost=cost, hierarchy=tree)
"""
        assert loaded(code, (*HEAVY, "numpy")) == {"numpy"}

    def test_a_loss_loads_torch(self):
        code = 'import severity; severity.loss("ce", hierarchy=severity.read_tree("chexpert"))'
        assert loaded(code, ("torch", "timm", "matplotlib")) == {"torch"}

    def test_scoring_needs_only_what_the_package_depends_on(self):
        """All modules of the folders of scoring are imported while every other library is out of reach."""
        code = f"""
import importlib, pathlib, sys
for name in {sorted(set(HEAVY) - {"sklearn"})!r}:
    sys.modules[name] = None
files = [file for folder in {SCORING!r} for file in sorted(pathlib.Path("severity", folder).rglob("[a-z]*.py"))]
for file in files:
    importlib.import_module(".".join(file.with_suffix("").parts))
print(len(files))
"""
        assert int(python(code)) > 20

    def test_every_name_of_the_face_is_there_and_documented(self):
        assert dir(severity) == sorted(severity.__all__)
        for name in severity.__all__:
            assert len(getattr(severity, name).__doc__) > 40, name
        with pytest.raises(AttributeError, match="no attribute 'colour'"):
            severity.colour  # noqa: B018

    def test_the_names_for_type_checkers_are_those_of_the_face(self):
        tree = ast.parse((TOP / "severity/__init__.py").read_text(encoding="utf-8"))
        (block,) = [node for node in tree.body if isinstance(node, ast.If)]
        assert sorted(alias.name for line in block.body for alias in line.names) == severity.__all__

    def test_no_folder_imports_the_face(self):
        for path in (TOP / "severity").rglob("*.py"):
            if path.parent.name != "api" and path != TOP / "severity/__init__.py":
                text = path.read_text(encoding="utf-8")
                assert "severity.api" not in text and "import severity\n" not in text, path


class TestReadTree:
    @pytest.mark.parametrize("path", sorted((TOP / "data/hierarchies").glob("*.yaml")), ids=lambda path: path.stem)
    def test_every_tree_is_read_by_name_and_by_path(self, path):
        tree = severity.read_tree(path.stem)
        assert tree.names == severity.read_tree(path).names == severity.read_tree(str(path)).names
        excluded = yaml.safe_load(path.read_text(encoding="utf-8")).get("excluded", [])
        assert severity.read_tree(path.stem, labels=[*excluded, *tree.classes]).class_hash == tree.class_hash

    def test_null_hierarchies(self):
        tree = severity.read_tree("chexpert_pleural")
        assert severity.read_tree("chexpert_pleural@flat").height.max() == 1
        shuffled = severity.read_tree("chexpert_pleural@shuffled_3")
        assert shuffled.classes == tree.classes and (shuffled.class_nodes != tree.class_nodes).any()
        assert severity.read_tree("flat", labels=["b", "a"]).classes == ("b", "a")

    def test_what_is_refused(self, tmp_path):
        with fails("Did you mean 'chexpert'"):
            severity.read_tree("chexpart")
        with fails("none.yaml"):
            severity.read_tree(tmp_path / "none.yaml")
        with fails("labels="):
            severity.read_tree("flat")
        with fails("IRMA"):
            severity.read_tree("irma")
        with fails("'Hernia'"):
            severity.read_tree("chexpert", labels=[*severity.read_tree("chexpert").classes, "Hernia"])
        for wrong in ("No Finding", [1, 2]):
            with fails("list of the labels"):
                severity.read_tree("chexpert", labels=wrong)
        with fails("not by 3"):
            severity.read_tree(3)

    def test_a_label_that_is_also_excluded_is_refused_without_a_data_set(self, tmp_path):
        children = [{"node": name, "label": name} for name in "ab"]
        content = {"source": "-", "tree": {"node": "all", "children": children}, "excluded": ["a"]}
        (tmp_path / "tree.yaml").write_text(yaml.safe_dump(content))
        with fails("'a' is both in the tree and in 'excluded'"):
            severity.read_tree(tmp_path / "tree.yaml")


class TestCost:
    def test_derived_costs_and_a_file(self, tmp_path):
        tree = chexpert_default()
        for name, function in costs.DERIVED.items():
            assert (severity.cost(name, tree) == function(tree)).all()
        costs.write(tmp_path / "my.csv", costs.path(tree), tree.classes)
        assert (severity.cost(tmp_path / "my.csv", tree) == severity.cost("path", tree)).all()
        assert (severity.cost(str(tmp_path / "my.csv"), tree) == severity.cost("path", tree)).all()

    def test_what_is_refused(self, tmp_path):
        tree = six_classes()
        with fails("Did you mean 'lca_height'"):
            severity.cost("lca_hight", tree)
        with fails("none.csv is missing"):
            severity.cost(tmp_path / "none.csv", tree)
        with fails("hierarchy is a list"):
            severity.cost("path", [-1, 0, 0])
        with fails("not by None"):
            severity.cost(None, tree)


class TestRank:
    @pytest.mark.parametrize("rule", class_rules.RULES)
    def test_it_is_the_rule(self, rule):
        tree = six_classes()
        posterior, _ = tables(tree)
        cost = costs.lca_height(tree)
        nodes = numpy.random.default_rng(1).random((len(posterior), len(tree.parents)))
        for node in tree.top_down:
            nodes[:, node] = nodes[:, node] * nodes[:, tree.parents[node]] if node != tree.root else 1
        wanted = class_rules.rank(rule, posterior=posterior, nodes=nodes, cost=cost, hierarchy=tree)
        for given in (posterior, posterior.tolist()):
            ranked = severity.rank(rule, posterior=given, cost=cost.tolist(), hierarchy=tree, nodes=nodes)
            assert (ranked == wanted).all() and ranked.dtype == numpy.int32

    def test_without_nodes_they_are_sums_of_the_posterior(self):
        tree = chexpert_default()
        posterior, _ = tables(tree)
        sums = numpy.stack([posterior[:, below].sum(axis=1) for below in tree.classes_below], axis=1)
        given = {"posterior": posterior, "cost": costs.lca_height(tree), "hierarchy": tree}
        for rule in class_rules.RULES:
            assert (severity.rank(rule, **given) == severity.rank(rule, **given, nodes=sums)).all(), rule

    def test_whole_numbers_are_probabilities_too(self):
        tree = six_classes()
        ranked = severity.rank("argmax", posterior=numpy.eye(6, dtype=int), cost=costs.path(tree), hierarchy=tree)
        assert ranked[:, 0].tolist() == list(range(6))

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"rule": "argmin"}, "Did you mean 'argmax'"),
            ({"rule": 1}, "not by 1"),
            ({"posterior": numpy.ones(6)}, r"posterior has the shape \(6,\)"),
            ({"posterior": numpy.ones((2, 5)) / 5}, r"must be \(images, 6 classes\)"),
            ({"posterior": [["a"] * 6]}, "must hold numbers"),
            ({"posterior": [[1.0], [1.0, 2.0]]}, "posterior cannot be read"),
            ({"posterior": numpy.ones((2, 6))}, "no distribution"),
            ({"cost": numpy.ones((6, 6))}, "on the diagonal"),
            ({"cost": numpy.ones((5, 5))}, r"cost has the shape \(5, 5\)"),
            ({"nodes": numpy.ones((40, 6))}, r"nodes has the shape \(40, 6\); it must be \(40, 10 nodes\)"),
            ({"nodes": numpy.full((40, 10), 1.1)}, "nodes is 1.1 for image 0 and the node 'node 0'"),
            ({"nodes": numpy.full((40, 10), numpy.nan)}, "nodes is nan for image 0"),
            (
                {"nodes": numpy.hstack([numpy.ones((40, 1)), numpy.arange(360).reshape(40, 9) / 400])},
                "its parent .* only",
            ),
            ({"rule": "crm_nodes"}, "crm_nodes needs a cost that depends on the lowest common ancestor"),
            ({"hierarchy": None}, "hierarchy is a NoneType"),
        ],
    )
    def test_what_is_refused(self, change, message):
        tree = six_classes()
        right = {"posterior": tables(tree)[0], "cost": costs.path(tree), "hierarchy": tree, "rule": "crm"}
        with fails(message):
            given = right | change
            severity.rank(given.pop("rule"), **given)


class TestSets:
    @pytest.mark.parametrize("rule", set_rules.RULES)
    def test_it_is_the_rule(self, rule):
        tree = chexpert_default()
        labels = numpy.random.default_rng(0).normal(size=(40, 14))
        nodes, thresholds = expit(tree_model.node_logits_of_labels(labels, tree)), numpy.linspace(0.2, 0.8, 14)
        wanted = set_rules.decide(rule, nodes=nodes, hierarchy=tree, thresholds=thresholds)
        for given in (nodes, nodes.tolist(), nodes + 1e-9):
            decided = severity.sets(rule, nodes=given, hierarchy=tree, thresholds=thresholds.tolist())
            assert decided.dtype == bool and decided.shape == (40, 14) and (decided == wanted).all()
        assert 0 < wanted.sum() < wanted.size

    def test_devices_beside_a_group_of_three(self):
        """Of three equal chances in a group none is named, the group is; see tests/test_tree_model.py for the numbers."""
        tree = severity.Hierarchy.from_parents(
            [-1, 0, 0, 2, 2, 2], [1, 2, 3, 4, 5], ["Devices", "Group", "a", "b", "c"]
        )
        decided = severity.sets("hbayes", nodes=[[1, 0.98, 0.9, 0.3, 0.3, 0.3, 0.1]], hierarchy=tree)
        assert decided.tolist() == [[True, True, False, False, False]]

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"rule": "hbayse"}, "Did you mean 'hbayes'"),
            ({"rule": None}, "not by None"),
            ({"rule": "threshold_f1"}, "needs thresholds"),
            ({"thresholds": [0.5] * 5}, "thresholds has the shape"),
            ({"nodes": numpy.ones((2, 6))}, r"it must be \(images, 10 nodes\)"),
            ({"nodes": numpy.ones((2, 10)) * 2}, "nodes is 2.0 for image 0"),
            ({"hierarchy": "tree"}, "hierarchy is a str"),
        ],
    )
    def test_what_is_refused(self, change, message):
        right = {"rule": "hbayes", "nodes": numpy.ones((2, 10)), "hierarchy": six_classes()}
        with fails(message):
            given = right | change
            severity.sets(given.pop("rule"), **given)


class TestSingleDecision:
    def given(self, tree):
        posterior, truth = tables(tree)
        cost = costs.lca_height(tree)
        return {
            "ranking": severity.rank("crm", posterior=posterior, cost=cost, hierarchy=tree),
            "truth": truth,
            "cost": cost,
        }

    def test_truth_may_be_booleans_or_numbers(self):
        tree = six_classes()
        right = self.given(tree)
        wanted = class_metrics.single_decision(**right)
        for kind in (bool, numpy.int64, numpy.uint8, numpy.float32):
            given = right | {"truth": right["truth"].astype(kind)}
            for reading in ("any", "most_specific"):  # without inner labels they are the same
                found = severity.single_decision(**given, hierarchy=tree, reading=reading)
                bounds = found.pop("masked", {"top1_error": [wanted["top1_error"]] * 2, "images": 0})
                assert found == wanted
                assert (bounds["top1_error"], bounds["images"]) == ([pytest.approx(wanted["top1_error"])] * 2, 0)
        assert wanted["images"] == 40 and wanted["top1_error"] > 0

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"reading": "all"}, "Unknown reading 'all'.*Known: any, most_specific"),
            ({"truth": numpy.zeros(40, dtype=int)}, r"numpy.eye\(6, dtype=bool\)"),
            ({"truth": numpy.full((40, 6), numpy.nan)}, "None of the 40 images"),
            ({"truth": numpy.full((40, 6), 0.5)}, "truth is 0.5 for image 0"),
            ({"truth": numpy.full((40, 6), -1)}, "truth is -1 for image 0 and class 'a'"),
            ({"truth": numpy.zeros((40, 6))}, "None of the 40 images"),
            ({"truth": numpy.ones((39, 6))}, r"\(39, 6\); it must be \(40, 6 classes\)"),
            ({"ranking": numpy.zeros((40, 6), dtype=int)}, "row 0 does not name each class"),
            ({"ranking": numpy.ones((40, 6))}, "class indices"),
            ({"cost": -numpy.ones((6, 6))}, "negative"),
        ],
    )
    def test_what_is_refused(self, change, message):
        tree = six_classes()
        with fails(message):
            severity.single_decision(**(self.given(tree) | {"hierarchy": tree} | change))


class TestLossAndLoad:
    def test_a_loss_of_the_tree(self):
        torch = pytest.importorskip("torch")
        tree = six_classes()
        built = severity.loss("soft_labels", hierarchy=tree, beta=3.0)
        same = severity.loss("soft_labels", hierarchy=tree, beta=3.0, cost=severity.cost("lca_height", tree))
        logits, targets = torch.randn(8, built.outputs), torch.eye(6)[torch.arange(8) % 6]
        assert built(logits=logits, targets=targets) == same(logits=logits, targets=targets) > 0
        assert built.posterior(logits).shape == (8, 6) and built.nodes(logits).shape == (8, len(tree.parents))

    def test_what_is_refused(self):
        pytest.importorskip("torch")
        tree = six_classes()
        with fails("Did you mean 'hxe'"):
            severity.loss("hxee", hierarchy=tree)
        with fails(r"losses\.hxe\.alfa.*Did you mean .*alpha"):
            severity.loss("hxe", hierarchy=tree, alfa=0.1)
        with fails(r"^losses\.ce\.gamma"):
            severity.loss("ce", hierarchy=tree, gamma=-1.0)
        with fails("cost has the shape"):
            severity.loss("ce", hierarchy=tree, cost=numpy.ones((2, 2)))

    def test_without_torch_the_extra_is_named(self):
        code = """
import sys
sys.modules["torch"] = None
import severity
try:
    severity.loss("ce", hierarchy=severity.read_tree("chexpert"))
except ModuleNotFoundError as error:
    print(error)
"""
        assert "severity[train]" in python(code)

    def test_a_folder_that_is_no_run_is_refused(self, tmp_path):
        pytest.importorskip("torch")
        with fails("record.json is missing"):
            severity.load(tmp_path)


THREE = [[0, 1, 2], [1, 0, 2], [2, 2, 0]]


class TestRefusals:
    """What came from outside and cannot be meant."""

    def tree(self):
        return severity.Hierarchy.from_parents(
            [-1, 0, 1, 1, 0], [2, 3, 4], ["a", "b", "c"], ["root", "g", "a", "b", "c"]
        )

    @pytest.mark.parametrize(
        "limits", [[numpy.nan, 0.5, 0.5], [0.5, 2, 0.5], [0.5, -1, 0.5], [0.5, 0.5], [[0.5] * 3], [[1], [1, 2]]]
    )
    def test_thresholds_are_one_probability_for_each_class(self, limits):
        with pytest.raises(severity.SeverityError, match="thresholds"):
            severity.sets("threshold_f1", nodes=[[1, 0.6, 0.5, 0.2, 0.4]], hierarchy=self.tree(), thresholds=limits)

    def test_a_root_that_is_no_label_is_always_present(self):
        with pytest.raises(severity.SeverityError, match="root"):
            severity.sets("threshold", nodes=[[0.6, 0.6, 0.5, 0.2, 0.4]], hierarchy=self.tree())

    def test_a_truth_of_rows_of_different_length_is_told(self):
        with pytest.raises(severity.SeverityError, match="truth"):
            severity.single_decision(ranking=[[0, 1, 2]] * 2, truth=[[1], [0, 1]], cost=THREE, hierarchy=self.tree())

    def test_a_tensor_that_has_a_gradient_is_taken(self):
        posterior = torch.tensor([[0.2, 0.5, 0.3]], requires_grad=True)
        assert severity.rank("argmax", posterior=posterior, cost=THREE, hierarchy=self.tree()).tolist() == [[1, 2, 0]]
