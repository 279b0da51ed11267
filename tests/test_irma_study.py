"""From IRMA codes to tree, cost and score, and the whole way from a collection to its metrics without a network."""

import json
import shutil
from dataclasses import replace

import numpy
import pandas
import pytest
import scipy.special
import yaml

from severity.arrays import tree_model
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.core.runs import Run
from severity.datasets import irma_phantom
from severity.irma import codes as irma_codes
from severity.irma import facts as irma_facts
from severity.irma.facts import IrmaFacts
from severity.metrics import catalogue, class_metrics, evaluation, irma_score
from severity.predictions.predictions import Predictions
from severity.preparation import preparation
from severity.prepared import prepared
from severity.summary import configurations
from severity.tree import costs, nulls, trees
from stages import aggregate, evaluate, hierarchy
from tests import records
from tests.trees import TOP, six_classes

CODES = [
    "1121-120-200-700",
    "1121-127-200-C00",
    "1121-127-310-700",
    "1122-127-31a-500",
    "1210-4b0-31b-500",
    "2000-4b1-460-51a",
]
NAMES = {"technical": {"1": "x-ray", "11": "plain", "120": "nothing said"}, "anatomical": {"31": "neck"}}
UNSEEN = "1121-120-310-700"
OPTIONS = {
    "rules": ["argmax", "crm", "crm_ts"],
    "multi_label": ["threshold", "hbayes"],
    "climb_threshold": 0.5,
    "batch_size": 8,
    "mistakes": 3,
    "seed": 0,
}


def make_facts(codes=CODES, axis="all", names=NAMES, truth=None) -> IrmaFacts:
    scheme = irma_codes.Scheme.from_codes(codes, irma_codes.axes_of(axis))
    return IrmaFacts(axis, irma_facts.CODES, scheme, truth or {}, names)


FACTS = make_facts()
TREE = FACTS.tree(CODES)


def random_codes(number: int, seed: int, alphabet: str = "123ab") -> list[str]:
    """Different well-formed codes, some axes ended early, some clutter."""
    random = numpy.random.default_rng(seed)
    found: dict[str, None] = {}
    while len(found) < number:
        axes = []
        for length in irma_codes.AXES.values():
            said = int(random.integers(0, length + 1))
            text = "".join(random.choice(list(alphabet), said)).ljust(length, "0")
            axes.append("C".ljust(length, "0") if random.random() < 0.05 else text)
        if not all(irma_codes.is_clutter(axis) for axis in axes):
            found["-".join(axes)] = None
    return list(found)


class TestFacts:
    def test_they_come_back_from_a_collections_facts_and_from_a_file(self, tmp_path):
        given = make_facts(truth={"7": UNSEEN})
        again = IrmaFacts.find({"irma": json.loads(json.dumps(given.to_json())), "other": 1})
        assert again.to_json() == given.to_json()
        given.write(tmp_path / "irma.json")
        assert IrmaFacts.read(tmp_path / "irma.json").to_json() == given.to_json()
        assert IrmaFacts.find({}) is None and IrmaFacts.read(tmp_path / "none.json") is None


class TestTree:
    def test_a_path_has_a_node_for_each_beginning_and_the_whole_axis_where_it_ends_early(self):
        def path(code: str) -> list[str]:
            leaf = TREE.class_nodes[TREE.classes.index(code)]
            return [TREE.names[node] for node in TREE.ancestors(leaf)][::-1]

        assert path("1210-4b0-31b-500") == [
            "IRMA", "1 x-ray", "12", "121", "1210 unspecified",
            "1210-4", "1210-4b", "1210-4b0",
            "1210-4b0-3", "1210-4b0-31 neck", "1210-4b0-31b",
            "1210-4b0-31b-5", "1210-4b0-31b-500",
        ]  # fmt: skip
        assert path("1121-127-200-C00")[-3:] == ["1121-127-2", "1121-127-200 unspecified", "1121-127-200-C00"]
        assert path("2000-4b1-460-51a")[1:3] == ["2", "2000 unspecified"]

    def test_names_that_the_code_tables_have_for_what_is_unspecified(self):
        names = {axis: {} for axis in irma_codes.AXES} | {"technical": {"1": "x-ray", "120": "nothing said"}}
        found = make_facts(["1200-C00-000-000", "1000-100-100-100"], names=names).tree(
            ["1200-C00-000-000", "1000-100-100-100"]
        )
        assert "1200 nothing said" in found.names and "1000 unspecified" in found.names
        assert "1200-C00 clutter" in found.names and "1200-C00-000 unspecified" in found.names

    @pytest.mark.parametrize("seed", range(5))
    def test_codes_meet_where_their_steps_part(self, seed):
        codes = random_codes(60, seed)
        found = make_facts(codes, names={}).tree(codes)
        assert found.classes == tuple(codes) and not found.general_classes
        cost = costs.path(found)

        def steps(code: str) -> list[tuple[int, str]]:
            taken = []
            for axis, text in enumerate(code.split("-")):
                ended = "0" in text and text[0] != "C"
                taken += [(axis, character) for character in (text.rstrip("0") if text[0] != "C" else "C")]
                taken += [(axis, "end")] * ended
            return taken

        for row, one in enumerate(codes[:15]):
            for column, other in enumerate(codes[:15]):
                ours, theirs = steps(one), steps(other)
                shared = next(
                    (i for i, pair in enumerate(zip(ours, theirs, strict=False)) if pair[0] != pair[1]), len(ours)
                )
                assert cost[row, column] == len(ours) + len(theirs) - 2 * shared, (one, other)

    def test_as_many_codes_as_2009_had(self):
        codes = random_codes(193, 9)
        found = make_facts(codes).tree(codes)
        assert len(found.classes) == 193 and len(set(found.names)) == len(found.names)
        costs.check(make_facts(codes).cost(codes), codes, where="irma")

    def test_one_axis_alone(self):
        codes = ["200", "310", "31a", "31b", "460"]
        found = make_facts(codes, "anatomical").tree(codes)
        assert found.names[:6] == ("IRMA", "2", "200 unspecified", "3", "31 neck", "310 unspecified")
        assert found.names[6] == "31a" and costs.lca_height(found)[1, 2] == 1

    def test_it_is_had_by_name_and_by_its_null_hierarchies(self):
        facts = {"irma": FACTS.to_json()}
        assert trees.named("nowhere", "irma", CODES, facts).names == TREE.names
        assert trees.named("nowhere", "irma@flat", CODES, facts).names == nulls.flat(TREE).names
        shuffled = trees.named("nowhere", "irma@shuffled_3", CODES, facts)
        assert (shuffled.class_nodes == nulls.shuffled(TREE, 3).class_nodes).all()

    def test_other_collections_have_no_such_tree_or_cost(self):
        for facts in (None, {}, {"other": {}}):
            with pytest.raises(SeverityError, match="the hierarchy 'irma' is made of the IRMA codes .* has none"):
                trees.named("nowhere", "irma", ["Edema", "Healthy"], facts)
        with pytest.raises(
            SeverityError, match="cost.name is 'irma' but the classes of the data set are not IRMA codes"
        ):
            costs.build(name="irma", file=None, hierarchy=six_classes())
        with pytest.raises(SeverityError, match="Did you mean 'irma'"):
            costs.build(name="irmaa", file=None, hierarchy=TREE, irma=FACTS.cost)


def test_the_cost_is_the_error_of_one_code_where_another_is_true():
    cost = costs.build(name="irma", file=None, hierarchy=TREE, irma=FACTS.cost)
    for row, answer in enumerate(CODES):
        for column, truth in enumerate(CODES):
            total = 0.0
            for axis, said, true in zip(irma_codes.AXES, answer.split("-"), truth.split("-"), strict=True):
                if true[0] != "C":
                    total += irma_codes.axis_error(said, true, FACTS.scheme.branching(axis, true)) / 4
            assert cost[row, column] == pytest.approx(total)
    # Where a clutter axis is true nothing is wrong on it, but clutter is a wrong answer elsewhere.
    assert not numpy.allclose(cost, cost.T) and not costs.is_metric(cost)


def predictions(tree: Hierarchy, seed: int = 0, images: int = 90, sure: float = 1.0) -> Predictions:
    """Single-label predictions whose truth is drawn from their posterior: calibrated by construction."""
    random = numpy.random.default_rng(seed)
    size = len(tree.classes)
    posterior = random.dirichlet(numpy.full(size, 1 / sure), images).astype(numpy.float32)
    posterior /= posterior.sum(axis=1, keepdims=True)
    true = [
        random.choice(size, p=numpy.asarray(row, dtype=float) / float(row.sum())) for row in posterior.astype(float)
    ]
    return Predictions.of(
        tree,
        ids=numpy.array([str(index) for index in range(images)]),
        patients=numpy.array([str(index) for index in range(images)]),
        split=numpy.array(["validation", "test", "test"] * (images // 3)),
        truth=numpy.eye(size)[true],
        run="a-b-0",
        dataset="made up",
        log_posterior=numpy.log(numpy.maximum(posterior, tree_model.SMALLEST)),
    )


def with_unseen(made: Predictions, rows: list[int]) -> tuple[Predictions, IrmaFacts]:
    """Some test images lose their class; the facts tell their code."""
    truth = made.truth.copy()
    images = numpy.flatnonzero(made.split == "test")[rows]
    truth[images] = 0
    return replace(made, truth=truth), make_facts(truth={made.ids[image]: UNSEEN for image in images})


class TestScore:
    def test_against_axis_errors_image_by_image(self):
        made, facts = with_unseen(predictions(TREE), [0, 5, 6])
        test = made.part("test")
        decided = {"argmax": test.posterior.argmax(axis=1), "worst": test.posterior.argmin(axis=1)}
        found = irma_score.score(test, decided, facts=facts, classes=CODES)
        assert (found["axis"], found["branching"], found["images"], found["unseen"]) == ("all", "codes", 60, 3)
        truth = [CODES[row.argmax()] if row.any() else UNSEEN for row in test.truth == 1]
        stars, expected = irma_codes.truncate(test.posterior, CODES, facts.scheme)
        answers = {rule: [CODES[index] for index in each] for rule, each in decided.items()} | {"irma_star": stars}
        assert list(found["rules"]) == ["argmax", "worst", "irma_star"]
        for rule, given in answers.items():
            by_axis = {axis: [] for axis in irma_codes.AXES}
            for answer, true in zip(given, truth, strict=True):
                for axis, said, text in zip(irma_codes.AXES, answer.split("-"), true.split("-"), strict=True):
                    if text[0] != "C":
                        by_axis[axis].append(irma_codes.axis_error(said, text, facts.scheme.branching(axis, text)))
            told = found["rules"][rule]
            assert told["sum"] == pytest.approx(sum(sum(each) for each in by_axis.values()) / 4)
            assert told["mean"] == pytest.approx(told["sum"] / 60)
            for axis, each in by_axis.items():
                assert told["axes"][axis] == {"images": len(each), "mean": pytest.approx(numpy.mean(each))}
        assert found["rules"]["irma_star"]["axes"]["biological"]["images"] < 60
        assert found["rules"]["irma_star"]["expected_sum"] == pytest.approx(expected.sum())
        assert found["rules"]["irma_star"]["expected_mean"] == pytest.approx(expected.mean())
        json.dumps(found, allow_nan=False)

    def test_calibrated_predictions_keep_what_they_promise(self):
        made = predictions(TREE, images=12000)
        found = irma_score.score(made, {"argmax": made.posterior.argmax(axis=1)}, facts=FACTS, classes=CODES)
        star, argmax = found["rules"]["irma_star"], found["rules"]["argmax"]
        assert star["mean"] == pytest.approx(star["expected_mean"], abs=0.005)  # some four standard deviations
        assert star["mean"] < argmax["mean"] - 0.01

    def test_axes_are_cut_where_less_is_said_than_the_most_probable_class_says(self):
        test = predictions(TREE, images=3)
        sure, torn = numpy.eye(6)[2], numpy.zeros(6)
        torn[[2, 3]] = 0.55, 0.45  # 1121-127-310-700 or 1122-127-31a-500: three axes in doubt
        test = replace(
            test, log_posterior=numpy.log(numpy.maximum([sure, torn, sure], tree_model.SMALLEST)).astype(numpy.float32)
        )
        found = irma_score.score(test, {}, facts=FACTS, classes=CODES)["rules"]["irma_star"]
        answers, _ = irma_codes.truncate(test.posterior, CODES, FACTS.scheme)
        # Silence costs half and a last character alone is right by more than half: it is said. A wrong first one spoils
        # all that follows.
        assert answers[1] == "1121-127-31*-***"
        # On the anatomical axis '*' stands for the '0' of the most probable class: no less is said.
        assert found["axes_cut"] == pytest.approx(1 / 12)

    def test_an_image_without_a_code_or_with_two_is_told(self):
        test = predictions(TREE, images=6)
        truth = test.truth.copy()
        truth[4] = 0
        with pytest.raises(
            SeverityError, match="image '4' has 0 true IRMA codes; it must have one. Does the tree hold"
        ):
            irma_score.score(replace(test, truth=truth), {}, facts=FACTS, classes=CODES)
        truth[4] = [1, 1, 0, 0, 0, 0]
        with pytest.raises(SeverityError, match="image '4' has 2 true IRMA codes"):
            irma_score.score(replace(test, truth=truth), {}, facts=FACTS, classes=CODES)

    def test_one_axis_alone(self):
        codes = ["200", "310", "31a", "31b", "460"]
        facts = make_facts(codes, "anatomical", truth={"1": "320"})
        test = predictions(facts.tree(codes), images=30)
        test.truth[1] = 0
        found = irma_score.score(test, {"argmax": test.posterior.argmax(axis=1)}, facts=facts, classes=codes)
        assert found["axis"] == "anatomical" and list(found["rules"]["argmax"]["axes"]) == ["anatomical"]
        assert found["unseen"] == 1
        for rule in found["rules"].values():
            assert rule["mean"] == rule["axes"]["anatomical"]["mean"]


class TestEvaluation:
    def test_only_runs_on_irma_codes_have_the_section_and_nothing_else_changes(self):
        made, facts = with_unseen(predictions(TREE), [3])
        cost = facts.cost(CODES)
        plain = evaluation.evaluate(made, TREE, cost, **OPTIONS)
        scored = evaluation.evaluate(made, TREE, cost, **OPTIONS, irma=facts)
        assert "irma" not in plain and list(scored)[-1] == "irma"
        assert {key: value for key, value in scored.items() if key != "irma"} == plain
        assert plain["counts"]["without_truth"] == scored["irma"]["unseen"] == 1
        assert list(scored["irma"]["rules"]) == ["argmax", "crm", "crm_ts", "irma_star"]
        json.dumps(scored, allow_nan=False)

    def test_under_its_own_cost_the_score_is_the_hierarchical_distance(self):
        made = predictions(TREE)
        found = evaluation.evaluate(made, TREE, FACTS.cost(CODES), **OPTIONS, irma=FACTS)
        for rule in OPTIONS["rules"]:
            distance = found["rules"][rule]["hierarchical_distance_at_1"]
            assert found["irma"]["rules"][rule]["mean"] == pytest.approx(distance)
        means = {rule: each["mean"] for rule, each in found["irma"]["rules"].items()}
        assert means["crm"] < means["argmax"]

    def test_levels_that_print_alike_are_counted_together(self):
        severity = numpy.array([0.1234561, 0.1234562, 0.25, 0.1 + 0.15, 0.0])
        assert class_metrics.describe(severity, largest=1.0)["levels"] == {"0": 1, "0.123456": 2, "0.25": 2}


class TestCells:
    @pytest.fixture
    def found(self) -> dict[Run, dict]:
        runs = [Run("r", loss, seed) for loss in ("ce", "hxe") for seed in range(3)]
        return {
            run: records.of(predictions(TREE, seed), TREE, costs.path(TREE), run=run, **OPTIONS, irma=FACTS)
            for seed, run in enumerate(runs)
        }

    def test_medians_of_the_score_are_told_of_every_rule_and_of_the_star(self, found):
        rules = configurations.all_rules(found, OPTIONS["rules"])
        assert rules == [*OPTIONS["rules"], "irma_star"]
        seeds = [metrics for run, metrics in found.items() if run.loss == "hxe"]
        for rule in rules:
            record = configurations.medians(seeds, rule)
            sums = sorted(each["irma"]["rules"][rule]["sum"] for each in seeds)
            assert (record["irma_sum_min"], record["irma_sum"], record["irma_sum_max"]) == tuple(sums)
            assert record["irma_mean"] == pytest.approx(record["irma_sum"] / 60)
            assert ("top1_error" in record) == (rule != "irma_star")
            assert record["macro_auroc"] is not None

    def test_table_and_headline_show_them(self, found):
        rules = configurations.all_rules(found, OPTIONS["rules"])
        table = configurations.comparison(found, rules)
        text = configurations.markdown(table).splitlines()
        assert text[0].endswith("| macro-AUROC | IRMA score | IRMA error |")
        star = next(line for line in text if "irma_star" in line)
        assert star.count("n/a") == 4 and star.count(" to ") == 3
        headline = configurations.headline(found, rules)
        assert {"argmax_irma_mean", "crm_irma_sum", "irma_star_irma_mean", "argmax_top1_error"} <= set(headline)
        assert "irma_star_top1_error" not in headline and None not in headline.values()

    def test_other_runs_have_the_columns_of_ever(self):
        tree = six_classes()
        runs = {
            run: records.of(predictions(tree, run.seed), tree, costs.path(tree), run=run, **OPTIONS)
            for run in (Run("r", "ce", seed) for seed in range(2))
        }
        assert configurations.all_rules(runs, OPTIONS["rules"]) == OPTIONS["rules"]
        known = [each.key for each in catalogue.telling(catalogue.table(), 6) if each.source != "irma"]
        columns = [f"{key}{end}" for key in known for end in ("", "_min", "_max")]
        assert list(configurations.medians(list(runs.values()), "crm")) == ["runs", *columns]
        assert "IRMA" not in configurations.markdown(configurations.comparison(runs, OPTIONS["rules"]))


# The whole way


@pytest.fixture(scope="module")
def phantoms(tmp_path_factory):
    out = tmp_path_factory.mktemp("study") / "out"
    irma_phantom.collect("", out, images=450, size=32, test_fraction=0.3, seed=0)
    return out


@pytest.mark.parametrize("axis", ["all", "anatomical"])
def test_from_a_collection_to_its_metrics(phantoms, tmp_path, monkeypatch, axis):
    """read -> prepare -> hierarchy -> (made-up predictions) -> evaluate -> aggregate, by the stages' own code."""
    settings = yaml.safe_load((TOP / "params.yaml").read_text())
    section = settings["datasets"]["irma_phantom"]
    section["read"]["axis"] = axis
    settings["data"]["name"] = "irma_phantom"
    settings["cost"]["name"] = "irma"
    settings["grid"] = {"backbone": ["tiny_resnet"], "loss": ["ce", "hxe"], "seed": [0, 1]}
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    (tmp_path / "data").mkdir()
    shutil.copytree(TOP / "data/hierarchies", "data/hierarchies")
    collection = irma_phantom.read(phantoms, **section["read"])
    collection.write("data/collection")
    preparation.prepare(
        "data/prepared",
        collection,
        collection.table["id"].tolist(),
        trees.named("data/hierarchies", section["hierarchy"], collection.labels, collection.facts),
        dataset="irma_phantom",
        root=phantoms,
        policies=section["labels"],
        **settings["prepare"],
    )
    hierarchy.main()
    tree = Hierarchy.read("data/hierarchy/hierarchy.json")
    assert tree.classes == collection.labels == prepared.labels("data/prepared")
    table = prepared.read_table("data/prepared")
    rows, truth = prepared.part(table, ["validation", "test"], tree.classes)
    assert (truth.sum(axis=1) == 0).sum() == len(collection.facts["irma"]["truth"]) > 0
    for number, name in enumerate(["ce-0", "ce-1", "hxe-0", "hxe-1"]):
        random = numpy.random.default_rng(number)
        # The softmax is the posterior of this noise among equal classes.
        score = 2 * (2 * truth + random.normal(size=truth.shape))
        frame = table.frame.iloc[rows]
        Predictions.of(
            tree,
            ids=frame["id"].to_numpy(dtype=str),
            patients=frame["patient"].to_numpy(dtype=str),
            split=frame["split"].to_numpy(dtype=str),
            truth=truth,
            run=f"tiny_resnet-{name}",
            dataset="irma_phantom",
            log_posterior=score - scipy.special.logsumexp(score, axis=1, keepdims=True),
        ).write(f"data/predictions/tiny_resnet-{name}.npz")
    evaluate.main()
    aggregate.main()
    run = json.loads((tmp_path / "metrics/runs/tiny_resnet-hxe-1.json").read_text())
    assert (run["cost"], run["hierarchy"]) == ("irma", "irma")
    assert run["irma"]["axis"] == axis and run["irma"]["branching"] == "code tables"
    assert run["irma"]["images"] == run["counts"]["images"]
    assert run["irma"]["unseen"] == run["counts"]["without_truth"] == len(collection.facts["irma"]["truth"])
    rules = run["irma"]["rules"]
    assert 0 < rules["irma_star"]["mean"] < rules["argmax"]["mean"] < 0.5
    assert list(rules["crm"]["axes"]) == list(irma_codes.axes_of(axis))
    medians = json.loads((tmp_path / "metrics/median/tiny_resnet-ce-irma_star.json").read_text())
    pair = [json.loads((tmp_path / f"metrics/runs/tiny_resnet-ce-{seed}.json").read_text()) for seed in (0, 1)]
    sums = [each["irma"]["rules"]["irma_star"]["sum"] for each in pair]
    assert medians["irma_sum"] == pytest.approx(numpy.median(sums))
    table = pandas.read_csv(tmp_path / "metrics/table.csv")
    table = table[table["runs"] > 0]  # below them the baselines
    assert table["rule"].tolist() == ["argmax", "crm", "irma_star"] * 2
    assert table["irma_mean"].notna().all() and table["top1_error"].isna().tolist() == [False, False, True] * 2
    assert "irma_star_irma_mean" in json.loads((tmp_path / "metrics/headline.json").read_text())
    # Another collection leaves nothing of this one behind.
    about = json.loads((tmp_path / "data/collection/collection.json").read_text())
    about["facts"] = {}
    (tmp_path / "data/collection/collection.json").write_text(json.dumps(about))
    with pytest.raises(SeverityError, match="made of the IRMA codes"):
        hierarchy.main()
    section["hierarchy"], settings["cost"]["name"] = "written", "path"
    leaves = [{"node": label, "label": label} for label in collection.labels]
    (tmp_path / "data/hierarchies/written.yaml").write_text(
        yaml.safe_dump({"source": "test", "tree": {"node": "all", "children": leaves}})
    )
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    hierarchy.main()
    assert sorted(path.name for path in (tmp_path / "data/cost").iterdir()) == ["cost.csv"]
