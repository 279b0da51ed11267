"""The report of a run in the words of the lab's log of 2022, each value taken from where it is computed.

docs/from-the-lab-log.md maps every field: name, formula, file.
"""

from collections.abc import Mapping
from typing import Any

from severity.metrics import catalogue
from severity.metrics.record import Lab, Measured

# What the log calls CRM metrics; its words for them are the short names of the catalogue.
CRM = ("top1_error", "mistake_severity", *(f"hierarchical_distance_at_{k}" for k in catalogue.DEPTHS))
# Where a word of the log means something else here than it did there.
NOTES = {
    "val_loss": "of the kept epoch, mean per image, never negative; n/a for external predictions",
    "val_acc": "1 - top-1 error on validation images, no image augmented or shuffled",
    "val_time": "times are not reproducible and so are in no metrics: see data/times/<run>.json",
    "best_auc": "over the whole validation set at once, never averaged over batches; the epoch that was kept",
    "severity_stats": "test images in data-set order, none augmented; average over images, not over batches",
    "crm_metrics": "top1_error is the error, not the accuracy; crm takes the class of least expected cost, not of most",
    "batch_wise_median": "medians of sorted values, of an even number the mean of the middle two",
    "model_median": "over all test images at once, sorted, mistakes or not",
}


def report(measured: Measured, known: Mapping[str, Any]) -> Lab:
    """The lab's fields of one run.

    Args:
        measured: what `evaluation.evaluate` returned.
        known: what the prediction file says of the run beside its predictions (`Predictions.known`).

    Returns:
        val_loss, val_time, best_auc; rules: for each rule val_acc, severity_stats, crm_metrics, batch_wise_median and
        model_median; notes: what a field means where that was corrected. None where there is no such number.
    """
    seen = measured["validation"]["top1_error"]
    return {
        "val_loss": known["training"]["kept"]["loss"] if "training" in known else None,
        "val_time": None,
        "best_auc": measured["validation"]["macro_auroc"],
        "rules": {rule: _of_rule(f"rules.{rule}", each, seen.get(rule)) for rule, each in measured["rules"].items()},
        "notes": NOTES,
    }


def _of_rule(path: str, rule: Mapping[str, Any], validation_error: float | None) -> dict[str, Any]:
    batches = rule["batches"]
    return {
        "val_acc": None if validation_error is None else 1 - validation_error,
        "severity_stats": {
            "average": rule["severity_mean"],
            "min_batch": batches["mean_min"],
            "max_batch": batches["mean_max"],
            "percent": rule["severity_percent"],
        },
        "crm_metrics": {catalogue.named(name).key: rule[name] for name in CRM},
        "batch_wise_median": {
            "median": batches["median_of_medians"],
            "batches": len(batches["medians"]),
            "each": f"{path}.batches.medians",
        },
        "model_median": rule["severity_median"],
    }
