"""Everything one run's predictions say, under every decision rule."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy

from severity.arrays import discrimination
from severity.arrays.labelsets import most_specific, undetermined
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.decisions import class_rules, decider, set_rules, temperature
from severity.decisions.decider import Decider
from severity.irma.facts import IrmaFacts
from severity.metrics import (
    baselines,
    calibration,
    catalogue,
    class_metrics,
    irma_score,
    lab,
    masked,
    node_metrics,
    null_trees,
    record,
    set_metrics,
)
from severity.metrics.record import Measured, Record
from severity.predictions.predictions import Predictions
from severity.tree import nulls


def complete(about: Mapping[str, Any], measured: Measured, known: Mapping[str, Any]) -> Record:
    """The record of a run, what metrics/runs/<run>.json holds.

    Args:
        about: `runs.description` of the run.
        measured: what `evaluate` returned.
        known: what the prediction file says of the run beside its predictions (`Predictions.known`).
    """
    external = {"external": known["external"]} if "external" in known else {}
    return {
        "version": record.VERSION,
        **about,
        **external,
        "training": known.get("training"),
        **measured,
        "lab": lab.report(measured, known),
    }


def evaluate(
    predictions: Predictions,
    hierarchy: Hierarchy,
    cost: numpy.ndarray,
    *,
    rules: list,
    multi_label: list,
    climb_threshold: float,
    batch_size: int,
    mistakes: int,
    seed: int,
    shuffles: int = 0,
    irma: IrmaFacts | None = None,
) -> Measured:
    """The metrics of one run on its test images.

    Args:
        predictions: of validation and test images; test images are scored, in data-set order. Temperatures, thresholds
            and the frequencies of the baselines come from validation images; without any, what needs them is left out
            and, where it is a rule, named under not_available.
        cost: (K, K) cost[decision, truth].
        rules: names in `decisions.RULES`, with `_ts` appended: on temperature-scaled probabilities.
        multi_label: names in `set_rules.RULES`, likewise.
        climb_threshold: the probability at which `decisions.climb` stops.
        batch_size: consecutive images in a batch of the batch statistics.
        mistakes: how many of the least and of the most severe mistakes are named.
        seed: of the random baseline and the shuffled hierarchies.
        shuffles: how many shuffled trees each rule that needs one is held against; 0 for none.
        irma: where the classes are IRMA codes, what their score is made of.

    Returns:
        see `severity.metrics.record.Measured`.

    Raises:
        SeverityError: an unknown rule, a split without images, or a self-check that fails.
    """
    for words, known in ((rules, class_rules.RULES), (multi_label, set_rules.RULES)):
        decider.check(words, known, "params.yaml: evaluate")
    case = _Case(predictions.part("test"), Decider.of(predictions, hierarchy, cost))
    scored = class_metrics.has_truth(case.truth)
    labels = _labels(case.test, hierarchy)
    rankings = {rule: case.decider.rank(rule, case.test) for rule in case.decider.available(rules)}
    sets = {rule: case.decider.decide_sets(rule, case.test) for rule in case.decider.available(multi_label)}
    trivial = _baselines(case, seed)
    measured: Measured = {
        "classes": list(hierarchy.classes),
        "class_hash": hierarchy.class_hash,
        "counts": {"images": len(scored), "scored": int(scored.sum()), "without_truth": int((~scored).sum())},
        "macro_auroc": discrimination.macro(labels, "auroc"),
        "macro_average_precision": discrimination.macro(labels, "average_precision"),
        "validation": _validation(case, list(rankings)),
        "not_available": case.decider.unavailable([*rules, *multi_label]),
        "labels": labels,
        "rules": {
            rule: _single_decision(rule, ranking, case, batch_size=batch_size, mistakes=mistakes)
            for rule, ranking in rankings.items()
        },
        "nodes": _nodes(case, climb_threshold),
        "calibration": _calibration(case),
        "multi_label": _multi_label(sets, case, trivial["multi_label"]),
        "baselines": trivial,
        "null_hierarchies": _null_hierarchies(rankings, sets, case, shuffles, seed),
        "best_distance_curve": case.floor,
        "distance_floor": {k: case.floor[at] for k, at in case.depths.items()},
    }
    if irma:
        decided = {rule: ranking[:, 0] for rule, ranking in rankings.items()}
        measured["irma"] = irma_score.score(case.test, decided, facts=irma, classes=hierarchy.classes)
    return measured


@dataclass(frozen=True)
class _Case:
    """One run's test images, and what decides and scores them."""

    test: Predictions
    decider: Decider

    @property
    def validation(self) -> Predictions | None:
        return self.decider.validation

    @property
    def hierarchy(self) -> Hierarchy:
        return self.decider.hierarchy

    @property
    def cost(self) -> numpy.ndarray:
        return self.decider.cost

    @cached_property
    def labels(self) -> numpy.ndarray:
        """(N, K) bool: the labels that are true; masked counts as not true."""
        return self.test.truth == 1

    @cached_property
    def truth(self) -> numpy.ndarray:
        """(N, K) bool: the most specific of them, which single decisions are scored by."""
        return most_specific(self.labels, self.hierarchy)

    @cached_property
    def unknown(self) -> numpy.ndarray:
        """(N, K) bool: the classes of which nobody can say whether deciding them is right, for the truth is masked."""
        return undetermined(self.test.truth, self.hierarchy)

    @cached_property
    def floor(self) -> list[float]:
        """(K) what no ranking's distance curve can be below."""
        return class_metrics.best_distance_curve(truth=self.truth[class_metrics.has_truth(self.truth)], cost=self.cost)

    @property
    def depths(self) -> dict[str, int]:
        """The k of distance @k -> its place in a distance curve."""
        return {str(k): min(k, len(self.cost)) - 1 for k in catalogue.DEPTHS}


def _validation(case: _Case, rules: list[str]) -> dict[str, Any]:
    seen = case.validation
    if seen is None:
        return {"macro_auroc": None, "top1_error": {}}
    truth, unknown = most_specific(seen.truth == 1, case.hierarchy), undetermined(seen.truth, case.hierarchy)
    errors: dict[str, float | None] = dict.fromkeys(rules)
    for word in rules if truth.any() else ():
        ranking = case.decider.rank(word, seen)
        errors[word] = class_metrics.single_decision(ranking=ranking, truth=truth, cost=case.cost, unknown=unknown)[
            "top1_error"
        ]
    return {"macro_auroc": discrimination.macro(_labels(seen, case.hierarchy), "auroc"), "top1_error": errors}


def _labels(predictions: Predictions, hierarchy: Hierarchy) -> dict[str, dict[str, Any]]:
    return discrimination.per_label(scores=predictions.label_logits, truth=predictions.truth, classes=hierarchy.classes)


def _single_decision(
    rule: str, ranking: numpy.ndarray, case: _Case, *, batch_size: int, mistakes: int
) -> dict[str, Any]:
    truth, cost, classes = case.truth, case.cost, case.hierarchy.classes
    scored = class_metrics.has_truth(truth) & class_metrics.determined(ranking, case.unknown)
    if not scored.any():
        raise SeverityError(
            f"Every decision of {case.test.run} by {rule} is for a class whose truth is masked, so none can be scored. Of test "
            "images more must be known: 0 where a label is absent (docs/data.md)."
        )
    floor = class_metrics.best_distance_curve(truth=truth[scored], cost=cost)
    severity = class_metrics.severities(ranking=ranking[scored], truth=truth[scored], cost=cost)
    curve = class_metrics.distance_curve(ranking=ranking[scored], truth=truth[scored], cost=cost)
    return {
        **class_metrics.single_decision(ranking=ranking, truth=truth, cost=cost, unknown=case.unknown),
        "masked": masked.bounds(decided=ranking[:, 0], labels=case.test.truth, cost=cost, hierarchy=case.hierarchy),
        "distance_excess": {k: round(curve[at] - floor[at], 6) for k, at in case.depths.items()},
        "any": _brief(ranking, case.labels, cost, numpy.isnan(case.test.truth)),
        "by_truths": _by_truths(ranking, case),
        "batches": class_metrics.batches(severity, size=batch_size),
        "labels": class_metrics.by_label(severity, case.labels[scored], classes),
        "distance_curve": curve,
        "confusion": class_metrics.confusion(
            decided=ranking[scored, 0], truth=truth[scored], cost=cost, classes=classes
        ),
        **class_metrics.extremes(
            severity,
            decided=ranking[scored, 0],
            truth=truth[scored],
            ids=case.test.ids[scored],
            classes=classes,
            count=mistakes,
        ),
    }


def _by_truths(ranking: numpy.ndarray, case: _Case) -> dict[str, dict[str, Any]]:
    """The metrics on images with one, two, and three or more most specific labels: a set is easier to hit the larger it is."""
    count, determined = case.truth.sum(axis=1), class_metrics.determined(ranking, case.unknown)
    groups = {"1": count == 1, "2": count == 2, "3+": count >= 3}
    return {
        name: {
            "images": int((rows & determined).sum()),
            **_brief(ranking[rows], case.truth[rows], case.cost, case.unknown[rows]),
        }
        for name, rows in groups.items()
        if rows.any()
    }


def _nodes(case: _Case, threshold: float) -> dict[str, Any]:
    def score(nodes: numpy.ndarray) -> dict[str, Any]:
        return node_metrics.score(nodes=nodes, labels=case.test.truth, cost=case.cost, hierarchy=case.hierarchy)

    def climb(word: str) -> dict[str, Any]:
        return score(case.decider.decide_nodes(word, case.test, threshold=threshold))

    return {
        "climb_threshold": threshold,
        "argmax": score(case.hierarchy.class_nodes[case.test.posterior.argmax(axis=1)]),
        "climb": climb("climb"),
        "climb_ts": climb("climb_ts") if case.validation else None,
    }


def _calibration(case: _Case) -> dict[str, Any]:
    sections: dict[str, Any] = {}
    for suffix in ("", temperature.SUFFIX) if case.validation else ("",):
        scaled = suffix == temperature.SUFFIX
        log_posterior, logits = case.test.log_posterior, case.test.label_logits
        if scaled:
            log_posterior = numpy.log(case.decider.posterior(case.test, scaled=True))
            logits = temperature.scale_logits(logits, case.decider.node_temperature)
        sections[f"posterior{suffix}"] = {
            "temperature": case.decider.posterior_temperature if scaled else 1.0,
            **calibration.of_posterior(log_posterior=log_posterior, labels=case.test.truth, hierarchy=case.hierarchy),
        }
        sections[f"labels{suffix}"] = {
            "temperature": case.decider.node_temperature if scaled else 1.0,
            **calibration.of_labels(logits=logits, truth=case.test.truth),
        }
    return sections


def _score_sets(
    sets: dict[str, numpy.ndarray], case: _Case, hierarchy: Hierarchy, cost: numpy.ndarray
) -> dict[str, dict[str, Any]]:
    return {
        name: set_metrics.score(decided=decided, truth=case.test.truth, cost=cost, hierarchy=hierarchy)
        for name, decided in sets.items()
    }


def _multi_label(sets: dict[str, numpy.ndarray], case: _Case, trivial: dict[str, dict[str, Any]]) -> dict[str, Any]:
    scores = _score_sets(sets, case, case.hierarchy, case.cost)
    thresholds = case.decider.thresholds.tolist() if case.validation else None
    return {
        "thresholds": thresholds and dict(zip(case.hierarchy.classes, thresholds, strict=True)),
        "rules": scores,
        "warnings": [
            {"rule": rule, **warning} for rule in scores for warning in set_metrics.not_better(scores[rule], trivial)
        ],
    }


def _baselines(case: _Case, seed: int) -> dict[str, Any]:
    images = len(case.truth)
    seen = case.validation.truth if case.validation else case.test.truth[:0]
    orders = baselines.rankings(validation=seen == 1, truth=case.truth, cost=case.cost, hierarchy=case.hierarchy)
    sets = baselines.label_sets(validation=seen, images=images, seed=seed)
    return {
        "single_decision": {
            **{name: _brief(ranking, case.truth, case.cost, case.unknown) for name, ranking in orders.items()},
            "random": baselines.random(truth=case.truth, cost=case.cost, unknown=case.unknown),
        },
        "multi_label": _score_sets(sets, case, case.hierarchy, case.cost),
    }


def _brief(ranking: numpy.ndarray, truth: numpy.ndarray, cost: numpy.ndarray, unknown: numpy.ndarray) -> dict[str, Any]:
    metrics = class_metrics.single_decision(ranking=ranking, truth=truth, cost=cost, unknown=unknown)
    return {metric.name: metrics[metric.name] for metric in catalogue.baselines()}


def _null_hierarchies(
    rankings: dict[str, numpy.ndarray], sets: dict[str, numpy.ndarray], case: _Case, shuffles: int, seed: int
) -> dict[str, Any]:
    """What is left of every number under a tree that knows nothing, in the two ways there are.

    remade: decided with the null's tree and cost, scored with the true ones: what the hierarchy gives to a decision.
    rescored: the true hierarchy's decisions, scored with the null's tree and cost: what the hierarchy gives to a
    metric.

    permutation: the same of many shuffled trees, since one says little (`null_trees.permutation_test`).
    """
    without_knowledge: dict[str, Any] = {}
    for name, (tree, cost) in nulls.derive(case.hierarchy, case.cost, seed).items():
        remade = {rule: case.decider.decide_sets(rule, case.test, hierarchy=tree) for rule in sets}
        remade = _score_sets(remade, case, case.hierarchy, case.cost)
        rescored = _score_sets(sets, case, tree, cost)
        without_knowledge[name] = {
            "rules": {
                rule: {
                    "remade": _brief(
                        case.decider.rank(rule, case.test, hierarchy=tree, cost=cost),
                        case.truth,
                        case.cost,
                        case.unknown,
                    ),
                    "rescored": _brief(ranking, case.truth, cost, case.unknown),
                }
                for rule, ranking in rankings.items()
            },
            "multi_label": {rule: {"remade": remade[rule], "rescored": rescored[rule]} for rule in sets},
        }
    scored = class_metrics.has_truth(case.truth)
    without_knowledge["shuffled"]["permutation"] = null_trees.permutation_test(
        list(rankings),
        case.test.rows(scored),
        case.truth[scored],
        case.decider,
        unknown=case.unknown[scored],
        shuffles=shuffles,
        seed=seed,
    )
    return without_knowledge
