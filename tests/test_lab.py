"""The lab's report: every field is the number that is told elsewhere of the same run, and the page maps all of them."""

import json

import numpy
import pandas
import pytest

from severity.core import files
from severity.core.errors import SeverityError
from severity.core.runs import Run
from severity.decisions.class_rules import rank
from severity.metrics import evaluation, lab
from severity.tree import costs
from stages import predict
from tests.test_evaluation import OPTIONS, TREE, predictions
from tests.trees import TOP

PAGE = TOP / "docs/from-the-lab-log.md"


@pytest.fixture(scope="module")
def found() -> dict:
    return evaluation.evaluate(predictions(images=90), TREE, costs.lca_height(TREE), **OPTIONS)


def test_every_field_is_the_number_of_the_rule(found):
    report = lab.report(found, {"training": {"kept": {"loss": 0.25}, "last": {"loss": 0.5}}})
    assert report["val_loss"] == 0.25 and report["best_auc"] == found["validation"]["macro_auroc"]
    assert list(report["rules"]) == list(found["rules"]) == OPTIONS["rules"]
    for rule, fields in report["rules"].items():
        all_of = found["rules"][rule]
        means, medians = all_of["batches"]["means"], all_of["batches"]["medians"]
        whole = means[: all_of["images"] // OPTIONS["batch_size"]]
        assert fields["severity_stats"] == {
            "average": all_of["severity_mean"],
            "min_batch": min(whole),
            "max_batch": max(whole),
            "percent": 100 * all_of["severity_mean"] / 3,  # The largest cost of this tree.
        }
        assert fields["crm_metrics"]["hd_at_20"] == all_of["hierarchical_distance_at_20"]
        assert fields["crm_metrics"]["top1_error"] * fields["crm_metrics"]["mistake_severity"] == pytest.approx(
            fields["crm_metrics"]["hd_at_1"]
        )
        assert fields["batch_wise_median"]["median"] == numpy.median(medians)
        place = found
        for key in fields["batch_wise_median"]["each"].split("."):
            place = place[key]
        assert place == medians and len(medians) == fields["batch_wise_median"]["batches"]
        assert fields["model_median"] == all_of["severity_median"]
    json.dumps(report, allow_nan=False)


def test_the_accuracy_is_that_of_the_validation_images(found):
    report = lab.report(found, {})
    seen = predictions(images=90).part("validation")
    truth = seen.truth == 1
    for rule in ("argmax", "crm"):
        decided = rank(rule, posterior=seen.posterior, cost=costs.lca_height(TREE), hierarchy=TREE)[:, 0]
        scored = truth.any(axis=1) & ~numpy.isnan(seen.truth[numpy.arange(len(truth)), decided])
        right = [truth[image, decided[image]] for image in numpy.flatnonzero(scored)]
        assert report["rules"][rule]["val_acc"] == pytest.approx(numpy.mean(right))
    assert report["rules"]["hie_ts"]["val_acc"] is not None
    assert report["val_loss"] is None and report["val_time"] is None


def test_without_validation_images_there_is_no_accuracy():
    alone = predictions(images=90)
    alone.split[:] = "test"
    found = evaluation.evaluate(alone, TREE, costs.lca_height(TREE), **OPTIONS)
    report = lab.report(found, alone.known)
    assert list(report["rules"]) == ["argmax", "crm"]
    assert report["best_auc"] is None and report["rules"]["crm"]["val_acc"] is None


def test_a_validation_set_without_a_true_label_has_no_accuracy():
    made = predictions(images=90)
    made.truth[made.split == "validation"] = 0
    found = evaluation.evaluate(made, TREE, costs.lca_height(TREE), **OPTIONS)
    assert set(found["validation"]["top1_error"].values()) == {None}
    assert lab.report(found, {})["rules"]["argmax"]["val_acc"] is None


def test_the_loss_is_that_of_the_epoch_that_was_kept(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    numbers = {
        "validation_loss": [0.5, 0.25, numpy.inf],
        "validation_macro_auroc": [0.5, 0.75, numpy.nan],
        "validation_hd_at_1": [2.0, 1.5, 1.25],
    }
    history = pandas.DataFrame({"epoch": [1, 2, 3], **numbers, "best": [0, 1, 0]})
    files.write_csv("data/models/a-b-0/history.csv", history)
    assert predict.epochs(Run("a", "b", 0)) == {
        "kept": {"epoch": 2, "loss": 0.25, "macro_auroc": 0.75, "hd_at_1": 1.5},
        "last": {"epoch": 3, "loss": None, "macro_auroc": None, "hd_at_1": 1.25},
    }
    with pytest.raises(SeverityError, match="data/models/a-b-1/history.csv is missing"):
        predict.epochs(Run("a", "b", 1))


def test_every_field_and_every_note_is_on_the_page(found):
    page = PAGE.read_text()
    report = lab.report(found, {})
    rule = report["rules"]["crm"]
    fields = {*report, *rule, *rule["severity_stats"], *rule["crm_metrics"]} - {"rules", "notes"}
    for field in fields:
        assert f"{field}`" in page, field
    assert set(lab.NOTES) == {*report, *rule} - {"rules", "notes"}
