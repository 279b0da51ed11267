"""Everything one run's predictions say, under every decision rule."""

from typing import Any

import numpy

from severity import decisions, discrimination, metrics
from severity.hierarchy import Hierarchy
from severity.predictions import Predictions


def evaluate(
    predictions: Predictions,
    hierarchy: Hierarchy,
    cost: numpy.ndarray,
    *,
    rules: list,
    batch_size: int,
    mistakes: int,
) -> dict[str, Any]:
    """The metrics of one run on its test images, JSON-like.

    Args:
        predictions: of validation and test images; test images are scored, in data-set order.
        cost: (K, K) cost[decision, truth].
        rules: names of decision rules.
        batch_size: consecutive images in a batch of the batch statistics.
        mistakes: how many of the least and of the most severe mistakes are named.

    Returns:
        classes, class_hash; counts: images, scored, without_truth; labels: AUROC and average precision of each; macro_auroc,
        macro_average_precision; validation: macro_auroc; rules: for each rule what `metrics.single_decision` gives,
        batches, severity by label, least and most severe mistakes.

    Raises:
        SeverityError: an unknown rule, a split without images, or a self-check that fails.
    """
    test, validation = predictions.part("test"), predictions.part("validation")
    labels = _labels(test, hierarchy)
    truth = test.truth == 1
    scored = metrics.has_truth(truth)
    return {
        "classes": list(hierarchy.classes),
        "class_hash": hierarchy.class_hash,
        "counts": {"images": len(truth), "scored": int(scored.sum()), "without_truth": int((~scored).sum())},
        "macro_auroc": discrimination.macro(labels, "auroc"),
        "macro_average_precision": discrimination.macro(labels, "average_precision"),
        "validation": {"macro_auroc": discrimination.macro(_labels(validation, hierarchy), "auroc")},
        "labels": labels,
        "rules": {
            rule: _single_decision(rule, test, truth, hierarchy, cost, batch_size=batch_size, mistakes=mistakes)
            for rule in rules
        },
    }


def _labels(predictions: Predictions, hierarchy: Hierarchy) -> dict[str, dict[str, Any]]:
    return discrimination.per_label(marginal=predictions.marginal, truth=predictions.truth, classes=hierarchy.classes)


def _single_decision(
    rule: str,
    test: Predictions,
    truth: numpy.ndarray,
    hierarchy: Hierarchy,
    cost: numpy.ndarray,
    *,
    batch_size: int,
    mistakes: int,
) -> dict[str, Any]:
    ranking = decisions.rank(rule, posterior=test.posterior, cost=cost, hierarchy=hierarchy)
    found = metrics.single_decision(ranking=ranking, truth=truth, cost=cost)
    scored = metrics.has_truth(truth)
    severity = metrics.severities(ranking=ranking[scored], truth=truth[scored], cost=cost)
    return {
        **found,
        "batches": metrics.batches(severity, size=batch_size),
        "labels": metrics.by_label(severity, truth[scored], hierarchy.classes),
        **metrics.extremes(
            severity,
            decided=ranking[scored, 0],
            truth=truth[scored],
            ids=test.ids[scored],
            classes=hierarchy.classes,
            count=mistakes,
        ),
    }
