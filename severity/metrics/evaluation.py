"""Everything one run's predictions say, under every decision rule."""

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy

from severity.arrays import discrimination
from severity.core.errors import SeverityError, nearest
from severity.core.hierarchy import Hierarchy
from severity.decisions import class_rules, set_rules, temperature
from severity.irma.facts import IrmaFacts
from severity.metrics import baselines, calibration, class_metrics, irma_score, node_metrics, set_metrics
from severity.predictions.predictions import Predictions
from severity.tree import nulls

# Why a rule has no numbers: external predictions may hold test images alone.
NEEDS_VALIDATION = "not available: no validation images"
# What is told of decisions that are only there to compare with.
BRIEF = ("top1_error", "mistake_severity", *(f"hierarchical_distance_at_{k}" for k in class_metrics.DEPTHS))


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
    irma: IrmaFacts | None = None,
) -> dict[str, Any]:
    """The metrics of one run on its test images, JSON-like.

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
        seed: of the random baseline and the shuffled hierarchy.
        irma: where the classes are IRMA codes, what their score is made of.

    Returns:
        classes, class_hash; counts: images, scored, without_truth; labels: AUROC and average precision of each; macro_auroc,
        macro_average_precision; validation: macro_auroc, None without such images, and top1_error of
        each rule, None where no such image has a true class; not_available: for each rule that
        cannot be had, why; rules: for each rule what `metrics.single_decision` gives,
        batches, severity by label, distance curve, confusion, least and most severe mistakes; nodes: `node_metrics.score`
        of the most probable class and of `decisions.climb`; calibration; multi_label: thresholds, rules, warnings where a
        baseline is not beaten; baselines: single_decision and multi_label; null_hierarchies: see `_null_hierarchies`;
        best_distance_curve; with `irma` what `irma_score.score` gives as well.

    Raises:
        SeverityError: an unknown rule, a split without images, or a self-check that fails.
    """
    for words, known in ((rules, class_rules.RULES), (multi_label, set_rules.RULES)):
        for word in words:
            if temperature.split(word)[0] not in known:
                raise SeverityError(f"params.yaml: evaluate: unknown decision rule {word!r}. {nearest(word, known)}")
    validation = predictions.part("validation") if predictions.has("validation") else None
    case = _Case(predictions.part("test"), validation, hierarchy, cost)
    scored = class_metrics.has_truth(case.truth)
    labels = _labels(case.test, hierarchy)
    rankings = {rule: _rank(rule, case, hierarchy, cost) for rule in rules if case.can(rule)}
    sets = {rule: _decide(rule, case, hierarchy) for rule in multi_label if case.can(rule)}
    trivial = _baselines(case, seed)
    found = {
        "classes": list(hierarchy.classes),
        "class_hash": hierarchy.class_hash,
        "counts": {"images": len(scored), "scored": int(scored.sum()), "without_truth": int((~scored).sum())},
        "macro_auroc": discrimination.macro(labels, "auroc"),
        "macro_average_precision": discrimination.macro(labels, "average_precision"),
        "validation": _validation(case, list(rankings)),
        "not_available": {rule: NEEDS_VALIDATION for rule in (*rules, *multi_label) if not case.can(rule)},
        "labels": labels,
        "rules": {
            rule: _single_decision(ranking, case, batch_size=batch_size, mistakes=mistakes)
            for rule, ranking in rankings.items()
        },
        "nodes": _nodes(case, climb_threshold),
        "calibration": _calibration(case),
        "multi_label": _multi_label(sets, case, trivial["multi_label"]),
        "baselines": trivial,
        "null_hierarchies": _null_hierarchies(rankings, sets, case, seed),
        "best_distance_curve": class_metrics.best_distance_curve(truth=case.truth[scored], cost=cost),
    }
    if irma:
        decided = {rule: ranking[:, 0] for rule, ranking in rankings.items()}
        found["irma"] = irma_score.score(case.test, decided, facts=irma, classes=hierarchy.classes)
    return found


@dataclass(frozen=True)
class _Case:
    """One run's test and validation images with what they are scored by, plain and temperature-scaled."""

    test: Predictions
    validation: Predictions | None
    hierarchy: Hierarchy
    cost: numpy.ndarray

    def can(self, word: str) -> bool:
        """Whether a rule can be had: temperatures and best thresholds want validation images."""
        rule, scaled = temperature.split(word)
        return self.validation is not None or not (scaled or rule in set_rules.FITTED)

    @cached_property
    def truth(self) -> numpy.ndarray:
        """(N, K) bool; masked counts as not true."""
        return self.test.truth == 1

    @cached_property
    def temperatures(self) -> dict[str, float]:
        """Fitted on validation images."""
        seen = self.validation
        return {
            "posterior": temperature.fit(seen.posterior, seen.truth == 1, self.hierarchy),
            "marginal": temperature.fit_marginal(seen.marginal, seen.truth),
        }

    def scale(self, part: Predictions) -> Predictions:
        return replace(
            part,
            posterior=temperature.scale(part.posterior, self.temperatures["posterior"]),
            marginal=temperature.scale_marginal(part.marginal, self.temperatures["marginal"]),
        )

    @cached_property
    def scaled(self) -> Predictions:
        """The test images with temperature-scaled probabilities."""
        return self.scale(self.test)

    @cached_property
    def thresholds(self) -> dict[bool, numpy.ndarray | None]:
        """(K,) thresholds of the plain marginals (False) and of the scaled ones (True); None without validation images."""
        if self.validation is None:
            return dict.fromkeys((False, True))
        seen = {False: self.validation, True: self.scale(self.validation)}
        return {scaled: set_rules.best_thresholds(part.marginal, part.truth) for scaled, part in seen.items()}

    def named(self, word: str) -> tuple[str, bool, Predictions]:
        """The rule that a word names, whether it wants scaled probabilities, and the test images with them."""
        rule, scaled = temperature.split(word)
        return rule, scaled, self.scaled if scaled else self.test


def _validation(case: _Case, rules: list[str]) -> dict[str, Any]:
    seen = case.validation
    if seen is None:
        return {"macro_auroc": None, "top1_error": {}}
    truth = seen.truth == 1
    known = class_metrics.has_truth(truth)
    errors: dict[str, float | None] = dict.fromkeys(rules)
    for word in rules if known.any() else ():
        rule, scaled = temperature.split(word)
        posterior = (case.scale(seen) if scaled else seen).posterior[known]
        ranking = class_rules.rank(rule, posterior=posterior, cost=case.cost, hierarchy=case.hierarchy)
        errors[word] = float((~truth[known][numpy.arange(len(ranking)), ranking[:, 0]]).mean())
    return {"macro_auroc": discrimination.macro(_labels(seen, case.hierarchy), "auroc"), "top1_error": errors}


def _labels(predictions: Predictions, hierarchy: Hierarchy) -> dict[str, dict[str, Any]]:
    return discrimination.per_label(marginal=predictions.marginal, truth=predictions.truth, classes=hierarchy.classes)


def _rank(word: str, case: _Case, hierarchy: Hierarchy, cost: numpy.ndarray) -> numpy.ndarray:
    """(N, K) ranking of the test images under any tree and cost, checked where a law is known."""
    rule, _, test = case.named(word)
    ranking = class_rules.rank(rule, posterior=test.posterior, cost=cost, hierarchy=hierarchy)
    if rule == "crm":
        class_rules.check_crm(ranking=ranking, posterior=test.posterior, cost=cost)
    return ranking


def _decide(word: str, case: _Case, hierarchy: Hierarchy) -> numpy.ndarray:
    """(N, K) bool sets of labels of the test images under any tree."""
    rule, scaled, test = case.named(word)
    return set_rules.decide(rule, marginal=test.marginal, hierarchy=hierarchy, thresholds=case.thresholds[scaled])


def _single_decision(ranking: numpy.ndarray, case: _Case, *, batch_size: int, mistakes: int) -> dict[str, Any]:
    truth, cost, classes = case.truth, case.cost, case.hierarchy.classes
    found = class_metrics.single_decision(ranking=ranking, truth=truth, cost=cost)
    scored = class_metrics.has_truth(truth)
    severity = class_metrics.severities(ranking=ranking[scored], truth=truth[scored], cost=cost)
    return {
        **found,
        "batches": class_metrics.batches(severity, size=batch_size),
        "labels": class_metrics.by_label(severity, truth[scored], classes),
        "distance_curve": class_metrics.distance_curve(ranking=ranking[scored], truth=truth[scored], cost=cost),
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


def _nodes(case: _Case, threshold: float) -> dict[str, Any]:
    def score(nodes: numpy.ndarray) -> dict[str, Any]:
        return node_metrics.score(nodes=nodes, truth=case.truth, cost=case.cost, hierarchy=case.hierarchy)

    def climb(test: Predictions) -> numpy.ndarray:
        return class_rules.climb(posterior=test.posterior, hierarchy=case.hierarchy, threshold=threshold)

    return {
        "climb_threshold": threshold,
        "argmax": score(case.hierarchy.class_nodes[case.test.posterior.argmax(axis=1)]),
        "climb": score(climb(case.test)),
        "climb_ts": score(climb(case.scaled)) if case.validation else None,
    }


def _calibration(case: _Case) -> dict[str, Any]:
    found = {}
    for suffix in ("", temperature.SUFFIX) if case.validation else ("",):
        test = case.scaled if suffix else case.test
        heat = case.temperatures if suffix else {"posterior": 1.0, "marginal": 1.0}
        found[f"posterior{suffix}"] = {
            "temperature": heat["posterior"],
            **calibration.of_posterior(posterior=test.posterior, truth=case.truth, hierarchy=case.hierarchy),
        }
        found[f"marginal{suffix}"] = {
            "temperature": heat["marginal"],
            **calibration.of_marginal(marginal=test.marginal, truth=test.truth),
        }
    return found


def _score_sets(
    sets: dict[str, numpy.ndarray], case: _Case, hierarchy: Hierarchy, cost: numpy.ndarray
) -> dict[str, dict[str, Any]]:
    return {
        name: set_metrics.score(decided=decided, truth=case.test.truth, cost=cost, hierarchy=hierarchy)
        for name, decided in sets.items()
    }


def _multi_label(sets: dict[str, numpy.ndarray], case: _Case, trivial: dict[str, dict[str, Any]]) -> dict[str, Any]:
    found = _score_sets(sets, case, case.hierarchy, case.cost)
    thresholds = case.thresholds[False].tolist() if case.validation else None
    return {
        "thresholds": thresholds and dict(zip(case.hierarchy.classes, thresholds, strict=True)),
        "rules": found,
        "warnings": [
            {"rule": rule, **warning} for rule in found for warning in set_metrics.not_better(found[rule], trivial)
        ],
    }


def _baselines(case: _Case, seed: int) -> dict[str, Any]:
    images = len(case.truth)
    seen = case.validation.truth if case.validation else case.test.truth[:0]
    orders = baselines.rankings(
        validation=seen == 1, images=images, cost=case.cost, hierarchy=case.hierarchy, seed=seed
    )
    sets = baselines.label_sets(validation=seen, images=images, seed=seed)
    return {
        "single_decision": {name: _brief(ranking, case, case.cost) for name, ranking in orders.items()},
        "multi_label": _score_sets(sets, case, case.hierarchy, case.cost),
    }


def _brief(ranking: numpy.ndarray, case: _Case, cost: numpy.ndarray) -> dict[str, Any]:
    found = class_metrics.single_decision(ranking=ranking, truth=case.truth, cost=cost)
    return {name: found[name] for name in BRIEF}


def _null_hierarchies(
    rankings: dict[str, numpy.ndarray], sets: dict[str, numpy.ndarray], case: _Case, seed: int
) -> dict[str, Any]:
    """What is left of every number under a tree that knows nothing, in the two ways there are.

    remade: decided with the null's tree and cost, scored with the true ones: what the hierarchy gives to a decision.
    rescored: the true hierarchy's decisions, scored with the null's tree and cost: what the hierarchy gives to a metric.
    """
    found: dict[str, Any] = {}
    for name, (tree, cost) in nulls.derive(case.hierarchy, case.cost, seed).items():
        remade = _score_sets({rule: _decide(rule, case, tree) for rule in sets}, case, case.hierarchy, case.cost)
        rescored = _score_sets(sets, case, tree, cost)
        found[name] = {
            "rules": {
                rule: {
                    "remade": _brief(_rank(rule, case, tree, cost), case, case.cost),
                    "rescored": _brief(ranking, case, cost),
                }
                for rule, ranking in rankings.items()
            },
            "multi_label": {rule: {"remade": remade[rule], "rescored": rescored[rule]} for rule in sets},
        }
    return found
