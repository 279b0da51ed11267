"""Records of runs for tests: small made-up predictions, evaluated as the stage `evaluate` does."""

from collections.abc import Sequence
from typing import Any

import numpy
import scipy.special

from severity.core import runs
from severity.core.hierarchy import Hierarchy
from severity.core.runs import Run
from severity.irma.facts import IrmaFacts
from severity.metrics import evaluation
from severity.metrics.record import Record
from severity.predictions.predictions import Predictions
from severity.tree import costs

OPTIONS = {
    "rules": ["argmax", "crm"],
    "multi_label": ["threshold"],
    "climb_threshold": 0.5,
    "batch_size": 16,
    "mistakes": 3,
    "seed": 0,
}
# What params.yaml says of the data of a record.
SETTINGS = {
    "data": {"name": "phantom"},
    "datasets": {"phantom": {"title": "phantom", "hierarchy": "chexpert_pleural"}},
    "cost": {"name": "lca_height"},
}


def predict(
    run: Run,
    tree: Hierarchy,
    *,
    truth: numpy.ndarray,
    validation: int,
    noise: float = 2.0,
    ids: Sequence[str] = (),
    record: dict[str, Any] | None = None,
) -> Predictions:
    """Made-up predictions of a network that knows the tree: near classes look alike to it.

    Args:
        truth: (N, K) of all images, 1, 0 or NaN. validation: how many of them, the first, are validation images; the
            others are test images. noise: standard deviation of the logits. ids: of the images. record: see
                `Predictions`.
    """
    own = numpy.random.default_rng(runs.seed_for(run.name))
    logits = 2 * numpy.nan_to_num(truth) @ numpy.exp(-costs.lca_height(tree)) + noise * own.normal(size=truth.shape)
    return Predictions.of(
        tree,
        ids=numpy.array(list(ids) or [f"image{row}" for row in range(len(truth))]),
        patients=numpy.array([f"patient{row // 2}" for row in range(len(truth))]),
        split=numpy.array(["validation"] * validation + ["test"] * (len(truth) - validation)),
        truth=truth,
        run=run.name,
        dataset="phantom",
        log_posterior=scipy.special.log_softmax(logits, axis=1),
        label_logits=logits,
        record=record,
    )


def of(
    predictions: Predictions,
    tree: Hierarchy,
    cost: numpy.ndarray,
    *,
    run: Run | None = None,
    settings: dict[str, Any] = SETTINGS,
    irma: IrmaFacts | None = None,
    **options: Any,
) -> Record:
    """The record of the run that made some predictions, or of `run`; `options` in place of those of OPTIONS."""
    measured = evaluation.evaluate(predictions, tree, cost, **OPTIONS | options, irma=irma)
    about = runs.description(run or runs.named(str(predictions.run)), settings)
    return evaluation.complete(about, measured, predictions.known)
