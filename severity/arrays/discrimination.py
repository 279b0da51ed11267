"""How well each label is told apart: area under the ROC curve and average precision, over the whole set at once."""

from collections.abc import Sequence
from typing import Any

import numpy
from sklearn.metrics import average_precision_score, roc_auc_score

from severity.core.errors import SeverityError


def per_label(*, scores: numpy.ndarray, truth: numpy.ndarray, classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """AUROC and average precision of every label over all images at once (never averaged over batches).

    Args:
        scores: (N, K) of each label; any monotone one gives the same figures.
        truth: (N, K) 1, 0 or NaN = masked (uncertain or unmentioned); masked cells are left out label by label.
        classes: (K,) label names.

    Returns:
        label -> positives, negatives, masked (counts), auroc, average_precision; the two scores are None where the
        label has no positive or no negative image.

    Raises:
        SeverityError: shapes differ, or a score is NaN.
    """
    if scores.shape != truth.shape or scores.shape[1] != len(classes):
        raise SeverityError(f"Scores {scores.shape}, truth {truth.shape} and {len(classes)} labels do not fit.")
    if numpy.isnan(scores).any():
        raise SeverityError("A score is NaN; the network has diverged. Lower train.learning_rate in params.yaml.")
    found = {}
    for column, label in enumerate(classes):
        known = ~numpy.isnan(truth[:, column])
        positive = truth[known, column] == 1
        both = bool(positive.any() and not positive.all())
        score = scores[known, column]
        found[label] = {
            "positives": int(positive.sum()),
            "negatives": int((~positive).sum()),
            "masked": int((~known).sum()),
            "auroc": float(roc_auc_score(positive, score)) if both else None,
            "average_precision": float(average_precision_score(positive, score)) if both else None,
        }
    return found


def macro(labels: dict[str, dict[str, Any]], score: str) -> float | None:
    """Unweighted mean of `score` over the labels where it exists; None where it exists for none."""
    values = [each[score] for each in labels.values() if each[score] is not None]
    return float(numpy.mean(values)) if values else None
