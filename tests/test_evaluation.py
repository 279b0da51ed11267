"""Prediction files, the metrics of a run, medians, table and headline."""

import json
from dataclasses import replace

import numpy
import pandas
import pytest
import sklearn.metrics
from scipy.special import expit

from severity.arrays import discrimination, tree_model
from severity.core.errors import SeverityError
from severity.core.runs import Run
from severity.decisions.class_rules import climb, rank
from severity.decisions.decider import Decider
from severity.metrics import catalogue, class_metrics, evaluation, node_metrics, record
from severity.predictions.predictions import Predictions
from severity.summary import configurations
from severity.tree import costs
from tests import records
from tests.trees import chexpert_default, flat, six_classes

TREE = six_classes()
OPTIONS = {
    "rules": ["argmax", "crm", "hie_ts"],
    "multi_label": ["threshold", "threshold_f1", "hbayes", "hbayes_ts"],
    "climb_threshold": 0.5,
    "batch_size": 8,
    "mistakes": 3,
    "seed": 0,
}


def predictions(seed: int = 0, images: int = 60, tree=TREE) -> Predictions:
    random = numpy.random.default_rng(seed)
    size = len(tree.classes)
    truth = (random.random((images, size)) < 0.25).astype(numpy.float32)
    truth[random.random((images, size)) < 0.1] = numpy.nan
    score = numpy.nan_to_num(truth) + random.normal(size=(images, size))
    return Predictions.of(
        tree,
        ids=numpy.array([f"image{index}" for index in range(images)]),
        patients=numpy.array([f"patient{index // 2}" for index in range(images)]),
        split=numpy.array(["validation", "test", "test"] * (images // 3)),
        truth=truth,
        run="a-b-0",
        dataset="made up",
        label_logits=score,
    )


class TestPredictions:
    def test_writing_and_reading_gives_the_same_and_the_same_bytes(self, tmp_path):
        made = predictions()
        made.write(tmp_path / "one.npz")
        made.write(tmp_path / "two.npz")
        assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
        again = Predictions.read(tmp_path / "one.npz", TREE)
        assert numpy.array_equal(again.truth, made.truth, equal_nan=True)
        for name in ("ids", "log_posterior", "node_logits", "nodes", "label_nodes", "exclusive"):
            assert (getattr(again, name) == getattr(made, name)).all(), name

    @pytest.mark.parametrize(
        ("change", "told"),
        [
            ({"log_posterior": lambda p: p + 1}, "no distribution"),
            ({"log_posterior": lambda p: p * numpy.nan}, "no distribution"),
            ({"node_logits": lambda m: m * numpy.nan}, "NaN"),
            ({"node_logits": lambda m: m[:, :6]}, "shape"),
            ({"nodes": lambda names: names[::-1]}, "another label tree of the same classes"),
            ({"label_nodes": lambda nodes: nodes[::-1]}, "another label tree of the same classes"),
            ({"truth": lambda t: t[:, :5]}, "shape"),
            ({"ids": lambda i: numpy.array(["same"] * len(i))}, "duplicated"),
            ({"split": lambda s: s[:5]}, "differ in length"),
            ({"classes": lambda c: c[::-1]}, "was made for the classes"),
        ],
    )
    def test_what_does_not_fit_is_refused(self, tmp_path, change, told):
        made = predictions()
        ((name, function),) = change.items()
        replace(made, **{name: function(getattr(made, name))}).write(tmp_path / "wrong.npz")
        with pytest.raises(SeverityError, match=told):
            Predictions.read(tmp_path / "wrong.npz", TREE)

    def test_another_tree_missing_files_and_rubbish_are_refused(self, tmp_path):
        predictions().write(tmp_path / "a.npz")
        with pytest.raises(SeverityError, match="Predict again with this hierarchy"):
            Predictions.read(tmp_path / "a.npz", flat(6))
        with pytest.raises(SeverityError, match="are missing"):
            Predictions.read(tmp_path / "none.npz", TREE)
        (tmp_path / "b.npz").write_text("rubbish")
        with pytest.raises(SeverityError, match="b.npz"):
            Predictions.read(tmp_path / "b.npz", TREE)
        numpy.savez(tmp_path / "c.npz", ids=numpy.array([{}], dtype=object))
        with pytest.raises(SeverityError, match="c.npz .*objects"):
            Predictions.read(tmp_path / "c.npz", TREE)
        with pytest.raises(SeverityError, match="no image of the split 'train'"):
            predictions().part("train")


class TestDiscrimination:
    def test_against_scikit_learn_on_the_known_cells(self):
        made = predictions().part("test")
        found = discrimination.per_label(scores=made.label_logits, truth=made.truth, classes=TREE.classes)
        for column, label in enumerate(TREE.classes):
            known = ~numpy.isnan(made.truth[:, column])
            truth, score = made.truth[known, column], made.label_logits[known, column]
            assert found[label]["auroc"] == sklearn.metrics.roc_auc_score(truth, score)
            assert found[label]["positives"] + found[label]["negatives"] + found[label]["masked"] == len(known)

    def test_auroc_is_the_share_of_pairs_in_the_right_order(self):
        made = predictions(images=30).part("test")
        found = discrimination.per_label(scores=made.label_logits, truth=made.truth, classes=TREE.classes)
        for column, label in enumerate(TREE.classes):
            positive = made.label_logits[made.truth[:, column] == 1, column]
            negative = made.label_logits[made.truth[:, column] == 0, column]
            pairs = (positive[:, None] > negative[None]).mean() + (positive[:, None] == negative[None]).mean() / 2
            assert found[label]["auroc"] == pytest.approx(pairs)

    def test_a_class_without_positives_is_null_with_its_count_and_out_of_the_mean(self):
        made = predictions().part("test")
        truth = made.truth.copy()
        truth[:, 2] = 0
        found = discrimination.per_label(scores=made.label_logits, truth=truth, classes=TREE.classes)
        assert found["b2"]["auroc"] is None and found["b2"]["average_precision"] is None
        assert found["b2"]["positives"] == 0
        rest = [found[label]["auroc"] for label in TREE.classes if label != "b2"]
        assert discrimination.macro(found, "auroc") == pytest.approx(numpy.mean(rest))

    def test_a_score_that_is_nan_is_told(self):
        with pytest.raises(SeverityError, match="diverged"):
            discrimination.per_label(scores=numpy.full((3, 6), numpy.nan), truth=numpy.zeros((3, 6)), classes="abcdef")


def test_a_run_is_scored_on_its_test_images_in_order():
    made = predictions()
    cost = costs.lca_height(TREE)
    found = evaluation.evaluate(made, TREE, cost, **OPTIONS)
    test = made.part("test")
    truth = test.truth == 1
    scored = truth.any(axis=1)
    assert found["counts"] == {"images": 40, "scored": int(scored.sum()), "without_truth": int((~scored).sum())}
    for rule in ("argmax", "crm"):
        ranking = rank(rule, posterior=test.posterior, cost=cost, hierarchy=TREE)
        severity = numpy.array(
            [min(cost[order[0], true]) for order, true in zip(ranking[scored], truth[scored], strict=True)]
        )
        assert found["rules"][rule]["severity_mean"] == pytest.approx(severity.mean())
        assert found["rules"][rule]["batches"]["means"] == pytest.approx(
            [severity[start : start + 8].mean() for start in range(0, len(severity), 8)]
        )
        most = found["rules"][rule]["most"]
        assert len(most) == 3 and most[0]["severity"] == severity.max()
        assert set(found["rules"][rule]["labels"]) == set(TREE.classes)
    json.dumps(found, allow_nan=False)


def test_evaluation_does_not_look_at_validation_to_decide():
    made = predictions()
    other = replace(made, truth=made.truth.copy())
    other.truth[other.split == "validation"] = 1 - other.truth[other.split == "validation"]
    cost = costs.lca_height(TREE)
    first, second = (evaluation.evaluate(each, TREE, cost, **OPTIONS) for each in (made, other))
    for rule in ("argmax", "crm"):
        assert first["rules"][rule] == second["rules"][rule]
    for rule in ("threshold", "hbayes"):
        assert first["multi_label"]["rules"][rule] == second["multi_label"]["rules"][rule]
    # Temperatures and thresholds come from there.
    for section in ("validation", "calibration"):
        assert first[section] != second[section]
    assert first["multi_label"]["thresholds"] != second["multi_label"]["thresholds"]


def test_the_sections_of_a_run_fit_together():
    made = predictions(images=300)
    cost = costs.lca_height(TREE)
    found = evaluation.evaluate(made, TREE, cost, **OPTIONS)
    argmax = found["rules"]["argmax"]
    assert found["nodes"]["argmax"]["worst_severity"] == pytest.approx(argmax["severity_mean"])
    nodes = climb(nodes=expit(made.part("test").node_logits), hierarchy=TREE, threshold=OPTIONS["climb_threshold"])
    wanted = node_metrics.score(nodes=nodes, labels=made.part("test").truth, cost=cost, hierarchy=TREE)
    assert found["nodes"]["climb"] == wanted
    assert found["calibration"]["posterior"]["temperature"] == 1 != found["calibration"]["posterior_ts"]["temperature"]
    assert found["calibration"]["posterior"]["ece"] > 0
    for rule in OPTIONS["rules"]:
        flat_null = found["null_hierarchies"]["flat"]["rules"][rule]
        mean = cost.sum() / 30
        assert flat_null["rescored"]["hierarchical_distance_at_1"] == pytest.approx(
            found["rules"][rule]["top1_error"] * mean
        )
        assert flat_null["remade"]["top1_error"] == argmax["top1_error"]  # without a tree, every rule is argmax
        assert argmax["top1_error"] < found["baselines"]["single_decision"]["random"]["top1_error"]
    flat_sets = found["null_hierarchies"]["flat"]["multi_label"]
    for rule in OPTIONS["multi_label"]:
        assert set(flat_sets[rule]["remade"]) == set(found["multi_label"]["rules"][rule])
    assert flat_sets["threshold"]["remade"] == found["multi_label"]["rules"]["threshold"]  # it knows no tree
    assert found == evaluation.evaluate(made, TREE, cost, **OPTIONS)


def test_the_excess_of_a_distance_is_what_another_ranking_could_spare():
    made = predictions(images=300)
    cost = costs.lca_height(TREE)
    found = evaluation.evaluate(made, TREE, cost, **OPTIONS)
    test = made.part("test")
    truth = test.truth == 1
    away = numpy.array([[cost[k, row].min() if row.any() else 0 for k in range(len(cost))] for row in truth])
    decider = Decider.of(made, TREE, cost)
    for rule in OPTIONS["rules"]:
        single = found["rules"][rule]
        masked = numpy.isnan(test.truth[numpy.arange(len(truth)), decider.rank(rule, test)[:, 0]])
        scored = truth.any(axis=1) & ~masked
        assert (single["images"], single["undetermined"]) == (scored.sum(), (truth.any(axis=1) & masked).sum())
        for k in (1, 5):
            floor, least = (numpy.sort(away[rows], axis=1)[:, :k].mean() for rows in (truth.any(axis=1), scored))
            assert found["distance_floor"][str(k)] == pytest.approx(floor, abs=1e-5)
            excess = single["distance_excess"][str(k)]
            assert excess == pytest.approx(single[f"hierarchical_distance_at_{k}"] - least, abs=1e-5) and excess > 0
        assert single["distance_excess"]["20"] == 0  # of all classes, in whatever order


def test_decent_predictions_beat_every_trivial_set_and_poor_ones_are_told():
    decent = predictions(images=300)
    wrong = numpy.random.default_rng(0).random(decent.truth.shape) < 0.1
    logits = numpy.where((decent.truth == 1) != wrong, 2.0, -2.0)
    decent = replace(decent, node_logits=tree_model.node_logits_of_labels(logits, TREE))
    cost = costs.lca_height(TREE)
    assert evaluation.evaluate(decent, TREE, cost, **OPTIONS)["multi_label"]["warnings"] == []
    poor = replace(decent, node_logits=tree_model.node_logits_of_labels(-logits, TREE))
    told = evaluation.evaluate(poor, TREE, cost, **OPTIONS)["multi_label"]["warnings"]
    assert {each["metric"] for each in told} == {"hierarchical_f1", "h_loss", "best_match_severity"}
    assert {"rule", "metric", "value", "baseline", "baseline_value"} == set(told[0])


def test_fewer_images_than_a_batch_and_an_unknown_rule():
    tree = chexpert_default()
    found = evaluation.evaluate(predictions(tree=tree, images=6), tree, costs.path(tree), **OPTIONS)
    assert len(found["rules"]["crm"]["batches"]["means"]) == 1
    with pytest.raises(SeverityError, match="Did you mean 'crm'"):
        evaluation.evaluate(predictions(), TREE, costs.path(TREE), **{**OPTIONS, "rules": ["crn"]})


@pytest.fixture
def found() -> dict[Run, dict]:
    cost = costs.lca_height(TREE)
    runs = [Run(backbone, loss, seed) for backbone in ("r", "d") for loss in ("ce", "hxe") for seed in range(3)]
    return {
        run: records.of(predictions(seed=number), TREE, cost, run=run, **OPTIONS) for number, run in enumerate(runs)
    }


class TestCells:
    def test_medians_are_of_the_seeds_of_one_cell(self, found):
        summary = configurations.medians([each for run, each in found.items() if run.name.startswith("d-hxe")], "crm")
        values = [found[Run("d", "hxe", seed)]["rules"]["crm"]["top1_error"] for seed in range(3)]
        assert summary["top1_error"] == sorted(values)[1]
        assert (summary["top1_error_min"], summary["top1_error_max"]) == (min(values), max(values))
        assert summary["runs"] == 3
        assert all(not isinstance(value, (dict, list)) for value in summary.values())

    def test_the_table_has_a_row_a_cell_and_rule_in_the_grids_order(self, found):
        table = configurations.comparison(found, ["argmax", "crm"])
        assert table[["backbone", "loss", "rule"]].agg("-".join, axis=1).tolist() == [
            "r-ce-argmax", "r-ce-crm", "r-hxe-argmax", "r-hxe-crm",
            "d-ce-argmax", "d-ce-crm", "d-hxe-argmax", "d-hxe-crm",
        ]  # fmt: skip

    def test_markdown_shows_median_and_spread_and_what_is_missing(self):
        row = {"backbone": "r", "loss": "ce", "rule": "crm", "runs": 2}
        for key in [metric.key for metric in catalogue.table() if metric.source != "irma"]:
            row |= {key: 0.5, f"{key}_min": 0.25, f"{key}_max": 0.75}
        row |= {"mistake_severity": None, "mistake_severity_min": None, "mistake_severity_max": None}
        text = configurations.markdown(pandas.DataFrame([row])).splitlines()
        assert text[0].startswith("| backbone | loss | rule | runs | top-1 error | mistake severity | hd@1 |")
        assert text[2].startswith("| r | ce | crm | 2 | 0.500 (0.250 to 0.750) | n/a | 0.500")

    def test_the_words_over_the_table_have_the_images_and_the_floors_of_its_runs(self, found):
        text = configurations.about({run: each | {"patients": 17} for run, each in found.items()})
        counts = {each["counts"]["scored"] for each in found.values()}
        floors = [each["distance_floor"]["5"] for each in found.values()]
        assert "\nCollection phantom, tree chexpert_pleural, cost lca_height: " in text
        assert (
            f": {min(counts)} to {max(counts)} test images with a true class, of 17 patients." in text
            and "not tested" in text
        )
        assert f"hd@5 {min(floors):.3f}" in text and "hd@20 is left out: with 6 classes" in text

    def test_records_of_another_study_are_refused(self, found):
        settings = records.SETTINGS
        assert record.of_study(found, settings) is found
        for changed in (
            {"cost": {"name": "path"}},
            {"datasets": {"phantom": {"hierarchy": "flat", "title": "phantom"}}},
        ):
            with pytest.raises(SeverityError, match="another study .*lca_height.*Run `dvc repro evaluate`"):
                record.of_study(found, settings | changed)

    def test_one_seed_is_shown_in_detail_the_best_on_validation(self, found):
        seeds = list(found.values())[:3]
        for score, of_seed in zip((0.6, 0.9, None), seeds, strict=True):
            of_seed["validation"]["macro_auroc"] = score
        assert configurations.best_seed(seeds) is seeds[1]

    def test_the_best_cell_is_chosen_on_validation_not_on_test(self, found):
        for run, of_run in found.items():
            of_run["validation"]["macro_auroc"] = 0.9 if run.loss == "hxe" and run.backbone == "r" else 0.5
            of_run["macro_auroc"] = 0.1 if run.loss == "hxe" and run.backbone == "r" else 0.99
        assert configurations.best(found) == ("r", "hxe")
        headline = configurations.headline(found, ["argmax", "crm"])
        assert headline["configuration"] == "r-hxe" and headline["macro_auroc"] == 0.1 and headline["runs"] == 12
        assert "crm_mistake_severity" in headline

    def test_reading_takes_the_runs_of_the_grid_and_no_other(self, tmp_path, found):
        for run, of_run in found.items():
            (tmp_path / f"{run.name}.json").write_text(json.dumps(of_run))
        wanted = [Run("r", "ce", 0), Run("d", "hxe", 2)]
        assert list(record.read_runs(tmp_path, wanted, ["crm"])) == wanted
        with pytest.raises(SeverityError, match="The run r-ce-9 has no metrics"):
            record.read_runs(tmp_path, [Run("r", "ce", 9)], ["crm"])
        with pytest.raises(SeverityError, match="no metrics for the rule 'hie'"):
            record.read_runs(tmp_path, wanted, ["hie"])


def test_the_published_predictions_have_their_published_aurocs(shared_data):
    folder = shared_data("chexnet_preds")
    frame = pandas.read_csv(folder / "preds_labels.csv.gz")
    published = pandas.read_csv(folder / "aucs.csv").set_index("label")["auc"]
    labels = list(published.index)
    stated = frame["Finding Labels"].str.get_dummies("|")
    found = discrimination.per_label(
        scores=frame[[f"prob_{label}" for label in labels]].to_numpy(),
        truth=stated[labels].to_numpy(dtype=float),
        classes=labels,
    )
    for label in labels:
        assert round(found[label]["auroc"], 4) == round(published[label], 4)


def test_severities_agree_with_the_metrics_of_the_whole_set():
    made = predictions().part("test")
    truth = made.truth == 1
    scored = truth.any(axis=1)
    cost = costs.path(TREE)
    ranking = rank("crm", posterior=made.posterior, cost=cost, hierarchy=TREE)
    severity = class_metrics.severities(ranking=ranking[scored], truth=truth[scored], cost=cost)
    whole = class_metrics.single_decision(ranking=ranking, truth=truth, cost=cost)
    assert severity.mean() == pytest.approx(whole["hierarchical_distance_at_1"])
