"""The comparisons of a study: against the metrics of its runs, with everything that can be missing, and the page in words."""

from dataclasses import replace

import numpy
import pandas
import pytest
import scipy.stats

from severity.arrays import discrimination
from severity.comparison import comparisons, conclusions, methods, profiles, resampling
from severity.core import documents
from severity.core.errors import SeverityError
from severity.core.runs import Run
from severity.metrics import catalogue, evaluation
from severity.predictions.predictions import Predictions
from severity.tree import costs
from tests.renew_golden import GOLDEN, make_tables
from tests.trees import six_classes

TREE = six_classes()
COST = costs.lca_height(TREE)
OPTIONS = {
    "rules": ["argmax", "crm", "crm_ts"],
    "batch_size": 8,
    "resamples": 200,
    "permutations": 1999,
    "level": 0.95,
    "baseline_rule": "argmax",
    "correlation_labels": 100,
    "seed": 0,
}
GRID = [Run(backbone, loss, seed) for backbone in ("one", "two") for loss in ("ce", "hxe") for seed in (0, 1, 2)]
NOISE = {"ce": 3.0, "hxe": 1.4}
TABLES = ("rules", "losses", "backbones", "labels")


FACTS = {"collection": "made up", "tree": "six", "cost": "lca_height"}


def predictions(run: Run, images: int = 120, noise: float | None = None) -> Predictions:
    """A third validation, two thirds test, three images a patient; hxe sees better than ce."""
    common, own = numpy.random.default_rng(0), numpy.random.default_rng(list(run.name.encode()))
    size = len(TREE.classes)
    truth = numpy.eye(size)[common.integers(0, size, images)]
    truth[common.random(truth.shape) < 0.15] = 1
    truth[common.random(truth.shape) < 0.1] = numpy.nan
    truth[-1] = 0
    level = NOISE[run.loss] if noise is None else noise
    return Predictions.of(
        TREE,
        ids=numpy.array([f"image{index}" for index in range(images)]),
        patients=numpy.array([f"patient{index // 3}" for index in range(images)]),
        split=numpy.array(["validation"] * (images // 3) + ["test"] * (images - images // 3)),
        label_logits=3 * numpy.nan_to_num(truth) - 2 + level * own.normal(size=truth.shape),
        truth=truth,
        run=run.name,
        dataset="made up",
    )


def study(read=predictions, grid=GRID, **changes) -> comparisons.Study:
    return comparisons.compare(read, grid, TREE, COST, **OPTIONS | changes)


@pytest.fixture(scope="module")
def whole() -> comparisons.Study:
    return study()


@pytest.fixture(scope="module")
def evaluated() -> dict[Run, dict]:
    """What the stage evaluate says of the same runs."""
    options = {"multi_label": [], "climb_threshold": 0.5, "batch_size": 8, "mistakes": 0, "seed": 0}
    return {run: evaluation.evaluate(predictions(run), TREE, COST, rules=OPTIONS["rules"], **options) for run in GRID}


def pooled(found: list[dict], metric: str) -> float:
    """A metric over the images of all seeds at once."""
    above, below = sums(found, metric)
    return above.sum() / below.sum()


def sums(found: list[dict], metric: str) -> tuple[numpy.ndarray, numpy.ndarray]:
    """What a metric divides by what, of each seed; a seed scores the images whose decision is not of a masked label."""
    images = numpy.array([each["images"] for each in found])
    if metric != "mistake_severity":
        return images * [each[metric] for each in found], images
    return tuple(images * [each[name] for each in found] for name in ("hierarchical_distance_at_1", "top1_error"))


def linear(found: list[dict], metric: str) -> numpy.ndarray:
    """What each seed is to the pooled metric, to first order."""
    above, below = sums(found, metric)
    return pooled(found, metric) + (above - pooled(found, metric) * below) / below.mean()


def by_image(table: pandas.DataFrame) -> pandas.DataFrame:
    """The rows of metrics that decision rules change."""
    return table[table["metric"] != "macro_auroc"]


def rows(table: pandas.DataFrame, **where) -> pandas.DataFrame:
    for column, value in where.items():
        table = table[table[column] == value]
    assert len(table)
    return table


class TestAgainstTheMetricsOfTheRuns:
    @pytest.mark.parametrize("name", ["rules", "losses", "backbones"])
    def test_values_and_spread_over_seeds(self, whole, evaluated, name):
        for row in by_image(whole.tables[name]).to_dict("records"):
            sides = []
            for side in "AB":
                place = {**row, {"rules": "rule", "losses": "loss", "backbones": "backbone"}[name]: row[side]}
                runs = [run for run in GRID if (run.backbone, run.loss) == (place["backbone"], place["loss"])]
                sides.append([evaluated[run]["rules"][place["rule"]] for run in runs])
            metric = row["metric"]
            a, b = (pooled(found, metric) for found in sides)
            assert [row["value_A"], row["value_B"], row["difference"]] == pytest.approx([a, b, a - b], abs=1e-12)
            assert row["percent"] == pytest.approx(100 * (a - b) / b)
            assert (
                row["images"] == sides[0][0]["images"] + sides[0][0]["undetermined"]
                and row["seeds"] == 3
                and row["patients"] == 27
            )
            if name == "rules":
                each = [one[metric] - two[metric] for one, two in zip(*sides, strict=True)]
                spread = [row["seed_min"], row["seed_median"], row["seed_max"]]
                assert spread == pytest.approx([min(each), numpy.median(each), max(each)], abs=1e-12)
                continue
            assert row["seeds_A"] == row["seeds_B"] == 3
            assert row["networks_difference"] == pytest.approx(row["difference"], abs=1e-12)
            squares = [numpy.var(linear(found, metric), ddof=1) / 3 for found in sides]
            assert row["error_of_seeds"] == pytest.approx(sum(squares) ** 0.5)

    def test_labels(self, whole, evaluated):
        table = whole.tables["labels"]
        for row in table.to_dict("records"):
            runs = [run for run in GRID if (run.backbone, run.loss) == (row["backbone"], row["loss"])]
            for side in "AB":
                labels = [evaluated[run]["rules"][row[side]]["labels"][row["label"]] for run in runs]
                assert row[f"value_{side}"] == pytest.approx(pooled(labels, "severity"))
                assert row["images"] >= max(each["images"] for each in labels)
            aurocs = [evaluated[run]["labels"][row["label"]]["auroc"] for run in runs]
            assert row["auroc"] == pytest.approx(numpy.mean(aurocs))
        sums = table.groupby(["backbone", "loss", "A"])[
            ["share_of_images", "share_of_severity_A", "share_of_severity_B"]
        ].sum()
        assert (abs(sums - 1) < 1e-12).all(axis=None)

    def test_distribution(self, whole, evaluated):
        for row in whole.tables["distribution"].to_dict("records"):
            runs = [run for run in GRID if (run.backbone, run.loss) == (row["backbone"], row["loss"])]
            found = [evaluated[run]["rules"][row["rule"]] for run in runs]
            for name in ("median", "lower_quartile", "upper_quartile", "skewness"):
                assert row[name] == pytest.approx(numpy.median([each[f"severity_{name}"] for each in found])), name
            for name, key in (("batch_mean_min", "mean_min"), ("mean_of_medians", "mean_of_medians")):
                assert row[name] == pytest.approx(numpy.median([each["batches"][key] for each in found])), name
            assert row["mean"] == pytest.approx(pooled(found, "severity_mean"))
            assert row["right"] == pytest.approx(1 - pooled(found, "top1_error"))
            assert row["lower"] < row["mean"] < row["upper"]
            full = [each["batches"]["means"][: each["images"] // 8] for each in found]
            assert row["batch_mean_sd"] == pytest.approx(numpy.median([numpy.std(means, ddof=1) for means in full]))

    def test_correlation(self, whole, evaluated):
        for row in whole.tables["correlation"].to_dict("records"):
            runs = [run for run in GRID if (run.backbone, run.loss) == (row["backbone"], row["loss"])]
            auroc = numpy.mean([[each["auroc"] for each in evaluated[run]["labels"].values()] for run in runs], axis=0)
            of_runs = [evaluated[run]["rules"][row["rule"]]["labels"] for run in runs]
            severity = numpy.array([pooled([labels[label] for labels in of_runs], "severity") for label in of_runs[0]])
            auroc, severity = auroc.round(12), severity.round(12)
            assert row["spearman"] == pytest.approx(scipy.stats.spearmanr(auroc, severity).statistic)
            assert row["kendall"] == pytest.approx(scipy.stats.kendalltau(auroc, severity).statistic)
            assert row["labels"] == 6

    def test_macro_auroc(self, whole, evaluated):
        def mean(backbone, loss):
            runs = [run for run in GRID if (run.backbone, run.loss) == (backbone, loss)]
            return numpy.array([evaluated[run]["macro_auroc"] for run in runs])

        table = rows(whole.tables["losses"], metric="macro_auroc")
        assert table[["backbone", "rule", "A", "B"]].to_numpy().tolist() == [
            [backbone, "every rule", "hxe", "ce"] for backbone in ("one", "two")
        ]
        for row in table.to_dict("records"):
            a, b = mean(row["backbone"], "hxe"), mean(row["backbone"], "ce")
            assert [row["value_A"], row["value_B"]] == pytest.approx([a.mean(), b.mean()])
            assert row["error_of_seeds"] == pytest.approx((a.var(ddof=1) / 3 + b.var(ddof=1) / 3) ** 0.5)
            assert row["error_of_patients"] > 0 and row["lower"] < row["difference"] < row["upper"]
            assert row["networks_lower"] < row["difference"] < row["networks_upper"]
            assert row["verdict"] == row["networks_verdict"] == "A higher" and row["images"] == 80
        alone = rows(whole.tables["intervals"], metric="macro_auroc")
        for row in alone.to_dict("records"):
            assert row["value"] == pytest.approx(mean(row["backbone"], row["loss"]).mean())
            assert row["lower"] < row["value"] < row["upper"] and row["rule"] == "every rule"


def test_a_batch_of_images_in_random_order_has_the_spread_of_chance():
    random = numpy.random.default_rng(0)
    severity = random.choice([0.0, 1.0, 3.0], size=8000)
    found = profiles._describe(severity, COST, 8)
    assert found["batch_mean_sd"] == pytest.approx(found["batch_mean_sd_by_chance"], rel=0.05)
    alike = profiles._describe(numpy.sort(severity), COST, 8)
    assert alike["batch_mean_sd"] > 2 * alike["batch_mean_sd_by_chance"]


def test_intervals_are_of_the_values_that_the_comparisons_compare(whole):
    table = by_image(whole.tables["intervals"])
    assert len(table) == 4 * 3 * len(catalogue.compared_by_image())
    compared = whole.tables["rules"]
    for row in table.to_dict("records"):
        assert row["lower"] <= row["value"] <= row["upper"], row
        side = {"argmax": "B"}.get(row["rule"], "A")
        other = rows(compared, backbone=row["backbone"], loss=row["loss"], metric=row["metric"])
        other = other if side == "B" else rows(other, A=row["rule"])
        assert other[f"value_{side}"].to_numpy() == pytest.approx(row["value"])
    mean = rows(table, metric="hierarchical_distance_at_1").reset_index(drop=True)
    given = whole.tables["distribution"][["mean", "lower", "upper"]].set_axis(["value", "lower", "upper"], axis=1)
    pandas.testing.assert_frame_equal(mean[["value", "lower", "upper"]], given)


def test_intervals_of_labels(whole):
    table = whole.tables["label_intervals"]
    assert len(table) == 4 * 3 * len(TREE.classes)
    for row in table.to_dict("records"):
        assert row["patients"] >= resampling.FEWEST_PATIENTS, row
        alike = resampling.ALIKE in row["note"]  # Every image with the label is decided rightly.
        assert alike == (row["severity"] == 0) == numpy.isnan(row["severity_lower"]), row
        assert alike or row["severity_lower"] <= row["severity"] <= row["severity_upper"], row
        assert row["auroc_lower"] <= row["auroc"] <= row["auroc_upper"], row
        other = rows(whole.tables["labels"], backbone=row["backbone"], loss=row["loss"], label=row["label"])
        if row["rule"] != "argmax":
            other, side = rows(other, A=row["rule"]), "A"
        else:
            side = "B"
        assert other[f"value_{side}"].to_numpy() == pytest.approx(row["severity"])
        assert other[["images", "patients"]].drop_duplicates().to_numpy().tolist() == [[row["images"], row["patients"]]]
        assert alike or row["note"] == ""
    assert 0 < table["severity_lower"].isna().sum() < len(table) / 2
    drawn = profiles.draw_patients(whole.scores, predictions, whole.settings)
    again = drawn.labels([3, 4, 5])
    lower, upper = comparisons.resampling.interval(again, clusters=drawn.patients, level=0.95)
    of_cell = rows(table, backbone="one", loss="hxe", rule="crm")
    numpy.testing.assert_allclose(of_cell[["auroc_lower", "auroc_upper"]].to_numpy().T, [lower, upper])


def test_above_the_limit_of_labels_only_the_auroc_has_no_interval(whole):
    tables = study(correlation_labels=3).tables
    macro = rows(tables["losses"], metric="macro_auroc")
    assert macro["difference"].notna().all() and macro[["lower", "p", "networks_p"]].isna().all(axis=None)
    assert macro["note"].str.contains("compare.correlation_labels").all()
    table = tables["label_intervals"]
    assert table["auroc_lower"].isna().all() and table["note"].str.contains("compare.correlation_labels").all()
    kept = [column for column in table if not column.startswith("auroc_") and column != "note"]
    pandas.testing.assert_frame_equal(table[kept], whole.tables["label_intervals"][kept])


def test_the_aurocs_of_a_resample_are_those_of_its_images(whole):
    """A resample as a data set of its own, given to the function that scores a run."""
    drawn = profiles.draw_patients(whole.scores, predictions, whole.settings)
    runs = [0, 1, 2]
    times = comparisons.resampling.resample(patients=drawn.patients, settings=whole.settings)
    tests = [predictions(GRID[run]).part("test") for run in runs]
    _, patient = numpy.unique(tests[0].patients, return_inverse=True)
    for row in range(10):
        images = numpy.repeat(numpy.arange(len(patient)), times[row][patient])
        labels = [
            discrimination.per_label(scores=test.label_logits[images], truth=test.truth[images], classes=TREE.classes)
            for test in tests
        ]
        aurocs = [[each["auroc"] for each in of_run.values()] for of_run in labels]
        assert drawn.labels(runs)[row] == pytest.approx(numpy.mean(aurocs, axis=0))
        assert drawn.macro(runs)[row] == pytest.approx(numpy.mean(aurocs, axis=1))


def test_the_one_that_sees_better_is_milder_and_the_page_says_so(whole):
    losses = rows(whole.tables["losses"], metric="hierarchical_distance_at_1", rule="argmax")
    assert losses[["A", "B", "verdict"]].to_numpy().tolist() == [["hxe", "ce", "A milder"]] * 2
    assert (rows(whole.tables["losses"], metric="top1_error", rule="argmax")["verdict"] == "A errs less").all()
    backbones = rows(whole.tables["backbones"], metric="hierarchical_distance_at_1")
    assert (backbones["verdict"] == "no difference shown").all()
    page = conclusions.page(whole, FACTS).markdown()
    assert "- hd@1: of 6 comparisons A milder in 6. As these networks: A milder in 6." in page
    assert "- macro-AUROC: of 2 comparisons A higher in 2." in page
    assert page.count("Question: these methods") == 2 and page.count("Question: these networks") >= 4
    assert "**A milder**" in page and "## What is missing\n\nA test image" not in page
    assert "equal" not in page.replace("proof of equality", "")


def test_the_other_way_round_everything_is_the_same_but_the_sign(whole):
    turned = study(grid=[*GRID[3:6], *GRID[:3], *GRID[9:], *GRID[6:9]]).tables["losses"]
    given = whole.tables["losses"]
    assert (turned["A"] == given["B"]).all() and turned["p"].to_numpy() == pytest.approx(given["p"].to_numpy())
    assert turned["difference"].to_numpy() == pytest.approx(-given["difference"].to_numpy())
    assert turned["lower"].to_numpy() == pytest.approx(-given["upper"].to_numpy())
    for column in ("verdict", "networks_verdict"):
        assert (turned[column] == given[column].str.replace("^A ", "B ", regex=True)).all()
    assert (turned["networks_p"] == given["networks_p"]).all()


def test_holms_family_is_one_table_and_one_metric(whole):
    for name in TABLES:
        for _, family in whole.tables[name].groupby("metric"):
            order = family["p"].sort_values()
            wanted = (order * numpy.arange(len(order), 0, -1)).cummax().clip(upper=1)
            assert family["p_holm"].sort_values().tolist() == pytest.approx(wanted.tolist())


def test_no_number_but_the_corrected_p_depends_on_what_else_is_compared(whole):
    alone = study(grid=[run for run in GRID if run.backbone == "one"], rules=["argmax", "crm"]).tables
    for name, where in (("rules", {"backbone": "one", "A": "crm"}), ("labels", {"backbone": "one", "A": "crm"})):
        among = rows(whole.tables[name], **where).reset_index(drop=True).drop(columns=["p_holm", "verdict"])
        pandas.testing.assert_frame_equal(alone[name].drop(columns=["p_holm", "verdict"]), among)
    assert alone["backbones"].empty and len(alone["losses"]) == 8 + 1


class TestWhatIsMissing:
    def test_seeds_that_one_side_lacks_are_left_out_and_named(self, evaluated):
        lost = [Run("one", "ce", 0), Run("one", "hxe", 2)]
        found = study(lambda run: None if run in lost else predictions(run))
        row = rows(found.tables["losses"], backbone="one", rule="argmax", metric="hierarchical_distance_at_1").iloc[0]
        assert row["seeds"] == 1 and row["unmatched_seeds"] == "A: 0; B: 2"
        assert row["seeds_A"] == row["seeds_B"] == 2 and numpy.isnan([row["p"], row["lower"], row["p_holm"]]).all()
        assert row["verdict"] == comparisons.FEW_SEEDS
        assert "fewer than 3 seeds on a side" in row["note"] and "one seed in common" in row["note"]
        a, b = (
            pooled([evaluated[Run("one", loss, seed)]["rules"]["argmax"] for seed in seeds], "severity_mean")
            for loss, seeds in (("hxe", (0, 1)), ("ce", (1, 2)))
        )
        assert row["difference"] == pytest.approx(a - b)
        a, b = (evaluated[Run("one", loss, 1)]["rules"]["argmax"]["severity_mean"] for loss in ("hxe", "ce"))
        assert row["networks_difference"] == pytest.approx(a - b) and row["networks_p"] > 0
        assert (rows(found.tables["rules"], backbone="one", loss="ce")["seeds"] == 2).all()
        assert "Runs without predictions: one-ce-0, one-hxe-2." in conclusions.page(found, FACTS).markdown()

    def test_a_cell_without_runs_and_seeds_that_never_meet(self):
        found = study(
            lambda run: None if run.loss == "ce" and (run.backbone == "one" or run.seed) else predictions(run),
            grid=[run for run in GRID if run != Run("two", "hxe", 0)],
        )
        losses = found.tables["losses"]
        assert (rows(losses, backbone="one")["note"] == "no run of B").all()
        assert rows(losses, backbone="one")["difference"].isna().all()
        apart = rows(losses, backbone="two")
        assert apart["note"].str.contains("no seed in common").all() and apart["difference"].notna().all()
        assert losses["p_holm"].isna().all() and losses["networks_p_holm"].isna().all()
        assert (losses["verdict"] == comparisons.FEW_SEEDS).all()
        assert (losses["networks_verdict"] == "no difference shown").all()
        assert (apart["unmatched_seeds"] == "A: 1, 2; B: 0").all()
        assert (rows(found.tables["labels"], backbone="one", loss="ce")["note"] == "no run").all()
        for name in ("correlation", "distribution", "intervals", "label_intervals"):
            assert (rows(found.tables[name], backbone="one", loss="ce")["note"] == "no run").all()
            notes = rows(found.tables[name], backbone="two", loss="ce")["note"]
            assert notes.str.contains("one seed").all()
            assert notes.str.contains("truth is masked").any() == (name in ("distribution", "intervals"))
        page = conclusions.page(found, FACTS).markdown()
        assert "Configurations without any run: one-ce." in page
        assert "Configurations of one seed, whose spread over seeds is unknown: two-ce." in page
        assert "n/a: no run of B" in page

    def test_a_label_without_positives(self):
        def read(run):
            made = predictions(run)
            made.truth[:, 3] = 0
            return made

        found = study(read)
        label = rows(found.tables["labels"], label=TREE.classes[3])
        assert (label["note"] == "no image with this label").all() and (label["images"] == 0).all()
        assert label["p"].isna().all() and (label["verdict"] == "no difference shown").all()
        assert (label["share_of_severity_A"] == 0).all()
        alone = rows(found.tables["label_intervals"], label=TREE.classes[3])
        assert (alone["note"] == "no image with this label").all() and (alone["images"] == 0).all()
        assert alone[["severity", "severity_lower", "auroc", "auroc_upper"]].isna().all(axis=None)
        correlation = found.tables["correlation"]
        assert (correlation["left_out"] == TREE.classes[3]).all() and (correlation["labels"] == 5).all()
        page = conclusions.page(found, FACTS).markdown()
        assert f"Labels without a positive test image: {TREE.classes[3]}." in page
        assert (
            f"Labels without AUROC, left out of its mean and of its correlation with severity: {TREE.classes[3]}."
            in page
        )

    def test_decisions_that_are_all_right(self):
        found = study(lambda run: predictions(run, noise=0.0))
        mistakes = rows(found.tables["losses"], metric="mistake_severity")
        assert (
            mistakes["note"].str.startswith("A makes no mistake; B makes no mistake").all()
            and mistakes["p"].isna().all()
        )
        distances = rows(found.tables["losses"], metric="hierarchical_distance_at_1")
        assert (distances["difference"] == 0).all() and (distances["p"] == 1).all()
        assert (distances["networks_verdict"] == comparisons.FEW_DIFFER).all()
        assert distances["note"].str.contains("no patient differs: no p below 0.05 is possible").all()
        assert found.tables["labels"]["share_of_severity_A"].isna().all()
        assert found.tables["distribution"]["skewness"].isna().all()
        assert found.tables["correlation"]["spearman"].isna().all()
        assert (rows(found.tables["intervals"], metric="mistake_severity")["note"] == "no mistake").all()
        page = conclusions.page(found, FACTS).markdown()
        assert "n/a: A makes no mistake; B makes no mistake" in page and "no severity at all" in page

    def test_few_mistakes_leave_some_resamples_without_one(self):
        found = study(lambda run: predictions(run, noise=1.3 if run.loss == "ce" else 1.0))
        notes = found.tables["losses"].loc[found.tables["losses"]["lower"].isna(), "note"]
        assert len(notes) and notes.str.contains("no interval: [0-9]+ resamples have no mistake on one side").all()
        table = found.tables["intervals"]
        notes = table.loc[table["lower"].isna(), "note"]
        assert len(notes) and notes.str.startswith("no interval: resamples without a mistake").all()

    def test_a_label_of_three_patients_who_all_cost_the_same_has_no_interval(self):
        def read(run):
            made = predictions(run)
            made.truth[:, 3] = 0
            made.truth[[60, 70, 80]] = numpy.eye(6)[3]
            made.node_logits[60:] = -5
            made.log_posterior[60:] = numpy.log(numpy.where(numpy.arange(6) == 0, 0.95, 0.01))
            return made

        found = study(read)
        three = rows(found.tables["label_intervals"], label=TREE.classes[3])
        assert (three["patients"] == 3).all() and (three["severity"] == COST[0, 3]).all()
        bounds = ["severity_lower", "severity_upper", "auroc_lower", "auroc_upper"]
        assert three[bounds].isna().all(axis=None) and (three["note"] == "fewer than 10 patients").all()
        compared = rows(found.tables["labels"], label=TREE.classes[3])
        assert compared["lower"].isna().all() and (compared["verdict"] == comparisons.FEW_DIFFER).all()
        assert compared["note"].str.contains("fewer than 10 patients; no patient differs: no p below 0.05 is").all()
        page = conclusions.page(found, FACTS).markdown()
        assert f"Labels of fewer than 10 patients, without intervals: {TREE.classes[3]}." in page

    def test_two_seeds_a_side_say_nothing_of_methods(self, whole):
        found = study(grid=[run for run in GRID if run.seed < 2])
        losses = found.tables["losses"]
        assert (losses["verdict"] == comparisons.FEW_SEEDS).all()
        assert losses[["p", "p_holm", "lower", "upper", "degrees_of_freedom"]].isna().all(axis=None)
        assert losses["networks_p"].notna().all() and (losses["networks_verdict"] == "A milder").any()
        page = conclusions.page(found, FACTS).markdown()
        assert "- hd@1: of 6 comparisons not shown: too few seeds in 6. As these networks: " in page
        assert "Verdicts about methods where a configuration has fewer than 3 seeds" in page

    def test_one_rule_alone(self):
        found = study(rules=["argmax"])
        assert found.tables["rules"].empty and found.tables["labels"].empty
        page = conclusions.page(found, FACTS).markdown()
        assert "evaluate.rules names no other" in page and "There is nothing to compare" in page

    def test_one_patient(self):
        found = study(lambda run: replace(predictions(run), patients=numpy.array(["p"] * 120)))
        for name in ("losses", "rules", "intervals", "distribution", "label_intervals"):
            assert found.tables[name]["note"].str.contains("fewer than 10 patients").all(), name
        losses = found.tables["losses"]
        assert losses[["lower", "networks_lower", "p"]].isna().all(axis=None)
        assert (losses["verdict"] == "no difference shown").all()
        assert (by_image(losses)["networks_verdict"] == comparisons.FEW_DIFFER).all()

    def test_more_comparisons_than_permutations_can_tell_apart(self, whole):
        assert "to show a difference" not in conclusions.page(whole, FACTS).markdown()
        few = conclusions.page(study(permutations=19), FACTS).markdown()
        assert "losses.csv, hd@1: 6 comparisons are too many to show a difference with 19 permutations" in few


class TestWhatIsRefused:
    def test_a_baseline_that_is_no_rule_of_the_study(self):
        with pytest.raises(SeverityError, match="compare.baseline_rule is 'argmx'.*Did you mean 'argmax'"):
            study(baseline_rule="argmx")

    def test_no_run_at_all(self):
        with pytest.raises(SeverityError, match="None of the 12 runs of the grid has predictions"):
            study(lambda run: None)

    def test_no_truth_at_all(self):
        def read(run):
            made = predictions(run)
            return replace(made, truth=numpy.zeros_like(made.truth))

        with pytest.raises(SeverityError, match="None of the 80 test images of one-ce-0 has a true class"):
            study(read)

    @pytest.mark.parametrize("name", ["ids", "patients", "truth"])
    def test_runs_of_different_images(self, name):
        def read(run):
            made = predictions(run)
            if run.seed == 1:
                made = replace(made, **{name: getattr(made, name)[::-1]})
            return made

        with pytest.raises(SeverityError, match=f"of the runs one-ce-0 and one-ce-1 differ in their {name}"):
            study(read)


def test_a_rule_that_a_run_cannot_have_is_named_and_in_no_comparison():
    """Without validation images there is no temperature to fit."""

    found = study(lambda run: predictions(run).part("test"), rules=["argmax", "crm", "crm_ts"])
    assert found.scores.rules == ("argmax", "crm")
    assert set(found.tables["rules"]["A"]) == {"crm"}
    page = conclusions.page(found, FACTS).markdown()
    names = ", ".join(run.name for run in GRID)
    assert f"The rule crm_ts is in no comparison: {names} have no validation images to fit it on." in page
    with pytest.raises(SeverityError, match="compare.baseline_rule is 'crm_ts', but one-ce-0"):
        study(lambda run: predictions(run).part("test"), rules=["argmax", "crm_ts"], baseline_rule="crm_ts")


def test_the_golden_study(tmp_path, capsys):
    """All tables of stored predictions; renew with python -m tests.renew_golden."""
    found = make_tables(tmp_path / "study")
    assert "32 rules, 26 losses" in capsys.readouterr().out
    kept = GOLDEN / "tables"
    assert {path.name for path in found.iterdir()} == {path.name for path in kept.iterdir()}
    for path in sorted(kept.glob("*.csv")):
        pandas.testing.assert_frame_equal(
            pandas.read_csv(found / path.name), pandas.read_csv(path), rtol=1e-6, atol=1e-9, obj=path.name
        )
    assert (found / "comparisons.md").read_text() == (kept / "comparisons.md").read_text()
    assert documents.read(found / "page.json").markdown() == (kept / "comparisons.md").read_text()


def test_the_same_study_gives_the_same_bytes(tmp_path):
    one, two = (make_tables(tmp_path / name) for name in ("one", "two"))
    for path in one.iterdir():
        assert path.read_bytes() == (two / path.name).read_bytes(), path.name


def test_methods_without_variance_over_patients_are_welchs_test():
    """By hand: a = 1, 2, 4 and b = 4, 5, 9; means 7/3 and 6, s^2 7/3 and 7, t = (7/3 - 6) / sqrt(7/9 + 7/3) = -2.0788."""
    a, b = ([numpy.array(each), numpy.zeros((50, 3)), 40] for each in ([1.0, 2.0, 4.0], [4.0, 5.0, 9.0]))
    found = methods.difference(methods.Side(*a), methods.Side(*b), level=0.95)
    wanted = scipy.stats.ttest_ind(a[0], b[0], equal_var=False)
    assert (
        found.difference / found.of_seeds
        == pytest.approx(-2.0788, abs=1e-4)
        == pytest.approx(wanted.statistic, abs=1e-4)
    )
    freedom = (7 / 9 + 7 / 3) ** 2 / ((7 / 9) ** 2 / 2 + (7 / 3) ** 2 / 2)
    assert found.freedom == pytest.approx(freedom) == pytest.approx(wanted.df)
    assert found.p == pytest.approx(wanted.pvalue)
    assert (found.lower, found.upper) == pytest.approx(tuple(wanted.confidence_interval(0.95)))
    assert found.of_patients == 0
    four = methods.Side(numpy.array([1.0, 2.0, 4.0, 3.0]), numpy.zeros((50, 4)), 40)
    longer = methods.difference(four, methods.Side(*b), level=0.9)
    wanted = scipy.stats.ttest_ind([1.0, 2.0, 4.0, 3.0], b[0], equal_var=False)
    assert longer.p == pytest.approx(wanted.pvalue)
    assert (longer.lower, longer.upper) == pytest.approx(tuple(wanted.confidence_interval(0.9)))


def test_the_patients_variance_is_added_to_that_of_the_seeds():
    drawn = numpy.random.default_rng(0).normal(size=4000)
    a = methods.Side(numpy.array([1.0, 2.0, 4.0]), drawn[:, None].repeat(3, axis=1), 40)
    b = methods.Side(numpy.array([4.0, 5.0, 9.0]), numpy.zeros((4000, 3)), 40)
    found = methods.difference(a, b, level=0.95)
    patients = drawn.var(ddof=1) * 40 / 39
    parts = [(patients, 39), (7 / 9, 2), (7 / 3, 2)]
    total = sum(part for part, _ in parts)
    freedom = total**2 / sum(part**2 / free for part, free in parts)
    assert found.of_patients**2 == pytest.approx(patients) and found.of_seeds**2 == pytest.approx(7 / 9 + 7 / 3)
    assert found.freedom == pytest.approx(freedom)
    assert found.p == pytest.approx(2 * scipy.stats.t.sf(11 / 3 / total**0.5, freedom))
    assert found.upper - found.difference == pytest.approx(scipy.stats.t.ppf(0.975, freedom) * total**0.5)


def test_what_seeds_do_to_patients_by_chance_is_known_from_few_seeds():
    """All of the patients' variance is chance: the degrees of freedom are Welch's, and the variance is the larger one."""
    drawn = numpy.random.default_rng(1).normal(size=(2, 20_000, 3))
    a, b = (
        methods.Side(numpy.array(seeds), each, 40)
        for seeds, each in zip(([1.0, 2.0, 4.0], [4.0, 5.0, 9.0]), drawn, strict=True)
    )
    assert [a.chance, b.chance] == pytest.approx([40 / 39 / 3] * 2, rel=0.03)
    found = methods.difference(a, b, level=0.95)
    assert found.of_patients**2 == pytest.approx(a.chance + b.chance, rel=0.05)
    own = [7 / 9 + a.chance, 7 / 3 + b.chance]
    assert found.freedom == pytest.approx(sum(own) ** 2 / sum(each**2 / 2 for each in own), rel=0.05)


def test_methods_where_nothing_varies_or_too_little_is_known():
    same = methods.Side(numpy.full(3, 2.0), numpy.full((50, 3), 2.0), 40)
    assert methods.difference(same, same, level=0.95).p == 1
    other = methods.Side(numpy.full(3, 3.0), numpy.full((50, 3), 3.0), 40)
    assert numpy.isnan(methods.difference(same, other, level=0.95).p)
    for seeds in ([1.0, 3.0], [2.0]):
        few = methods.Side(numpy.array(seeds), numpy.full((50, len(seeds)), 2.0), 40)
        found = methods.difference(few, other, level=0.95)
        assert found.difference == -1 and numpy.isnan([found.p, found.lower, found.freedom]).all()
    assert numpy.isnan(methods.difference(replace(same, patients=9), other, level=0.95).p)


def test_why_the_mean_mistake_is_milder_where_hd_at_1_is_not():
    """In note and sentence the verdicts decide, whatever the signs of the differences."""
    shown, open_ = (-1.5, -0.5, 0.0001), (-1.0, 0.5, 0.5)  # lower, upper, p
    for of_mistakes, of_distance, said in ((shown, open_, True), (shown, shown, False), (open_, open_, False)):
        rows_ = [
            {"backbone": "r", "loss": "ce", "metric": metric, "difference": -1.0, "A": "a", "B": "b", "seeds": 2}
            | {"value_A": 1.0, "value_B": 2.0, "images": 90, "patients": 30, "undefined": 0, "differing": 30}
            | dict(zip(("lower", "upper", "p"), numbers, strict=True))
            for metric, numbers in (("hierarchical_distance_at_1", of_distance), ("mistake_severity", of_mistakes))
        ]
        noted = comparisons._noted(rows_, resampling.Settings(10, 99, 0.95, 0))
        table = comparisons._judged(noted, ["backbone", "loss", *comparisons.COLUMNS], level=0.95)
        assert (comparisons.APART in table["note"].iloc[1]) == said and table["note"].iloc[0] == ""
        assert conclusions._apart(table).startswith("In 1 comparisons") == said


def test_what_few_patients_can_show_at_most():
    assert resampling.least_p([0, 1, 5, 6, numpy.nan]) == pytest.approx([1, 1, 1 / 16, 1 / 32, numpy.nan], nan_ok=True)


def test_an_interval_that_ends_at_zero_but_for_rounding_shows_nothing():
    row = {"metric": "top1_error", "difference": 0.05, "lower": 2e-17, "upper": 0.1, "percent": 4.0, "p": 0.001}
    even = row | {"difference": -1e-16, "lower": -0.1, "percent": -1e-14, "p": 1.0}
    columns = [*row, "p_holm", "verdict"]
    rows_ = [each | {"differing": 30} for each in (row, even)]
    found = comparisons._judged(rows_, columns, level=0.95)
    assert found["verdict"].tolist() == ["no difference shown"] * 2
    assert found[["lower", "difference", "percent"]].to_numpy().tolist() == [[0, 0.05, 4], [-0.1, 0, 0]]
    rows_[0]["lower"] = 1e-9
    assert comparisons._judged(rows_, columns, level=0.95)["verdict"].tolist()[0] == "B errs less"
