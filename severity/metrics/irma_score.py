"""The error score of ImageCLEF's medical annotation tasks, of a run's decisions and of answers that may stop early."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy

from severity.core.errors import SeverityError
from severity.irma import codes as irma_codes
from severity.irma.facts import IrmaFacts
from severity.predictions.predictions import Predictions

STAR = "irma_star"


def score(
    test: Predictions, decided: Mapping[str, numpy.ndarray], *, facts: IrmaFacts, classes: Sequence[str]
) -> dict[str, Any]:
    """The IRMA score of a run on its test images, those included whose code is no class; JSON-like.

    Args:
        test: ids, truth and posterior of the test images.
        decided: for each decision rule the (N,) index of the class that it decides.
        classes: the K codes.

    Returns:
        axis, branching: as in `IrmaFacts`. images: how many are scored, all; unseen: of those, the ones whose code no
        training image has: their score shows what a class near the truth is worth.
        rules: for each rule of `decided`, and for STAR, the answer of least expected error that may hold ``*``: sum,
        mean, and for each axis images (those where the truth is not clutter) and their mean error.
        STAR also: expected_sum and expected_mean, the error that the posterior promised; axes_cut: the share of axes
        that it answers with less than the most probable class says (``*`` for a ``0`` is no less).

    Raises:
        SeverityError: an image has no true code, or several.
    """
    codes = numpy.array(classes)
    truth = _true_codes(test, facts, codes)
    answers = {rule: codes[index].tolist() for rule, index in decided.items()}
    answers[STAR], expected = irma_codes.truncate(test.posterior, classes, facts.scheme)
    rules = {rule: _of_answers(given, truth, facts.scheme) for rule, given in answers.items()}
    rules[STAR] |= {
        "expected_sum": float(expected.sum()),
        "expected_mean": float(expected.mean()),
        "axes_cut": _share_cut(answers[STAR], codes[test.posterior.argmax(axis=1)].tolist(), facts.scheme.axes),
    }
    known = set(classes)
    return {
        "axis": facts.axis,
        "branching": facts.branching,
        "images": len(truth),
        "unseen": sum(code not in known for code in truth),
        "rules": rules,
    }


def _true_codes(test: Predictions, facts: IrmaFacts, codes: numpy.ndarray) -> list[str]:
    """The code of each image: its true class, or what the collection says of those that have none."""
    true_codes = []
    for image, row in zip(test.ids.tolist(), test.truth == 1, strict=True):
        true = codes[row].tolist()
        if not true and image in facts.truth:
            true = [facts.truth[image]]
        if len(true) != 1:
            raise SeverityError(
                f"The test image {image!r} has {len(true)} true IRMA codes; it must have one. Does the tree hold every "
                "class? datasets.<name>.hierarchy in params.yaml should be irma, or a null hierarchy of it."
            )
        true_codes += true
    return true_codes


def _of_answers(answers: Sequence[str], truth: Sequence[str], scheme: irma_codes.Scheme) -> dict[str, Any]:
    errors = scheme.errors(answers, truth)
    on_axes = scheme.axis_errors(answers, truth)
    axes = {}
    for column, axis in enumerate(scheme.axes):
        counted = on_axes[~numpy.isnan(on_axes[:, column]), column]
        axes[axis] = {"images": len(counted), "mean": float(counted.mean()) if len(counted) else None}
    return {"sum": float(errors.sum()), "mean": float(errors.mean()), "axes": axes}


def _share_cut(answers: Sequence[str], probable: Sequence[str], axes: Sequence[str]) -> float:
    """Share of the axes of all images where the answer is silent although the most probable class says something."""
    cut = 0
    for answer, code in zip(answers, probable, strict=True):
        for said, whole in zip(irma_codes.parse(answer, axes, answer=True), irma_codes.parse(code, axes), strict=True):
            silent = said.find(irma_codes.UNSAID)
            cut += silent >= 0 and not irma_codes.is_clutter(whole) and whole[silent] != irma_codes.UNSPECIFIED
    return cut / (len(answers) * len(axes))
