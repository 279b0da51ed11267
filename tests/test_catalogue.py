"""The catalogue of metrics: one entry and one function, and everything that follows knows the metric."""

import ast
from dataclasses import replace

import numpy
import pytest

from severity.comparison import comparisons
from severity.core.runs import Run
from severity.figures.scores import tradeoff
from severity.metrics import catalogue, class_metrics, evaluation
from severity.metrics.catalogue import Metric
from severity.report import best_rows
from severity.summary import configurations
from severity.tree import costs
from tests import records
from tests.trees import TOP, six_classes

TREE = six_classes()
COST = costs.lca_height(TREE)
RULES = ("argmax", "crm")
RUNS = [Run("net", loss, seed) for loss in ("ce", "hxe") for seed in (0, 1, 2)]
FAR = Metric(
    name="far_error",
    key="far",
    heading="far error",
    unit="share",
    numerator="far_error",
    denominator="top1_error",
    headline=True,
    baseline=True,
    per_run=True,
    compared=6,
    milder="errs nearer",
    axis="Far errors",
    over="mistakes",
)
COMPARE = {
    "resamples": 50,
    "permutations": 199,
    "level": 0.95,
    "baseline_rule": "argmax",
    "correlation_labels": 0,
    "seed": 0,
}


def far_error(decisions: class_metrics.Decisions) -> numpy.ndarray:
    """1 where the decision is as far from the truth as can be."""
    return (decisions.ranked[:, 0] == decisions.cost.max()).astype(float)


def predictions(run: Run):
    truth = numpy.eye(6)[numpy.random.default_rng(0).integers(0, 6, 90)]
    return records.predict(run, TREE, truth=truth, validation=30, noise=1.0 if run.loss == "hxe" else 2.0)


@pytest.fixture(params=["less", "more"])
def added(request, monkeypatch) -> Metric:
    """A metric that is added to the catalogue, once as one of which less is better and once the other way round."""
    metric = replace(FAR, better=request.param)
    monkeypatch.setattr(catalogue, "METRICS", (*catalogue.METRICS, metric))
    monkeypatch.setitem(class_metrics.QUANTITIES, "far_error", far_error)
    return metric


def test_an_added_metric_is_in_records_table_headline_comparisons_figure_and_report(added):
    study = {run: records.of(predictions(run), TREE, COST, rules=list(RULES)) for run in RUNS}
    for run, record in study.items():
        test = predictions(run).part("test")
        for rule in RULES:
            decided = evaluation.Decider.of(predictions(run), TREE, COST).rank(rule, test)[:, 0]
            severity = COST[decided, test.truth.argmax(axis=1)]
            assert record["rules"][rule]["far_error"] == (severity == COST.max()).sum() / (severity > 0).sum()
        assert record["baselines"]["single_decision"]["random"]["far_error"] > 0

    table = configurations.comparison(study, RULES)
    seeds = [study[Run("net", "hxe", seed)]["rules"]["crm"]["far_error"] for seed in (0, 1, 2)]
    row = table[(table["loss"] == "hxe") & (table["rule"] == "crm")].iloc[0]
    assert [row["far"], row["far_min"], row["far_max"]] == pytest.approx([sorted(seeds)[1], min(seeds), max(seeds)])
    assert configurations.markdown(table).splitlines()[0].endswith("| far error |")
    assert {"argmax_far", "crm_far"} <= set(configurations.headline(study, RULES))

    compared = comparisons.compare(predictions, RUNS, TREE, COST, rules=RULES, batch_size=16, **COMPARE).tables
    for name in ("rules", "losses"):
        rows = compared[name][compared[name]["metric"] == "far_error"]
        assert len(rows) > 0 and rows["difference"].notna().all()
    of_losses = compared["losses"][compared["losses"]["metric"] == "far_error"]
    for column, difference in (("verdict", "difference"), ("networks_verdict", "networks_difference")):
        for row in of_losses[of_losses[column] != "no difference shown"].to_dict("records"):
            better = "A" if (row[difference] < 0) == (added.better == "less") else "B"
            assert row[column] == f"{better} errs nearer"
    known = compared["intervals"][compared["intervals"]["metric"] == "far_error"]
    assert len(known) == len(table) and known["lower"].notna().all()

    picture = tradeoff.draw_tradeoff(study, RULES, compared["intervals"], level=0.95, facts="made up", unit="cost")
    drawn = picture.table[picture.table["seed"].isna() & (picture.table["runs"] > 0)]
    assert drawn["far"].tolist() == pytest.approx(table["far"].tolist()) and drawn["far_lower"].notna().all()
    front = drawn[drawn["far_front"] == 1]
    best = front["far"].max() if added.better == "more" else front["far"].min()
    assert best == (table["far"].max() if added.better == "more" else table["far"].min())
    assert [axes.get_ylabel().split("\n")[0] for axes in picture.figure.axes][-1] == "Far errors"
    assert "far errors" in picture.caption

    assert best_rows.columns(table)["far"] == "far error"
    (leader,) = [number for number, key in best_rows.find(table, compared) if key == "far"]
    assert table.loc[leader, "far"] == best
    assert added in catalogue.per_run()


def test_entries_fit_together():
    keys = [metric.key for metric in catalogue.METRICS]
    names = [(metric.source, metric.name) for metric in catalogue.METRICS]
    assert len(set(keys)) == len(keys) and len(set(names)) == len(names)
    places = [metric.compared for metric in catalogue.compared()]
    assert places == sorted(set(places)) and len(places) > 1
    for metric in catalogue.METRICS:
        assert metric.table or not metric.headline
        assert metric.compared or not metric.axis
        assert metric.numerator or metric.denominator is None
        assert metric.compared is None or metric.numerator or metric.source == "run"
        assert metric.source == "rule" or not (metric.baseline or metric.per_run or metric.numerator)
    assert {part for metric in catalogue.ratios() for part in metric.parts} - {None} == set(class_metrics.QUANTITIES)


def test_the_catalogue_imports_nothing_that_takes_time():
    tree = ast.parse((TOP / "severity/metrics/catalogue.py").read_text())
    modules = {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert modules == {"collections.abc", "dataclasses", "typing"} and not [
        n for n in ast.walk(tree) if isinstance(n, ast.Import)
    ]
