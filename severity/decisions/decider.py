"""The words that name decision rules, and what they decide: a rule is fitted once and means the same everywhere.

A word is a rule of `class_rules.RULES` (a class), of `set_rules.RULES` (a set of labels) or `climb` (a node of the
tree). With `_ts` appended, the rule is given temperature-scaled probabilities.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

import numpy
import scipy.special

from severity.arrays import subtrees, tree_model
from severity.core.errors import SeverityError, nearest
from severity.core.hierarchy import Hierarchy
from severity.decisions import class_rules, set_rules, temperature
from severity.predictions.predictions import Predictions

CLIMB = "climb"
# Why a rule has no decisions: external predictions may hold test images alone.
NEEDS_VALIDATION = "not available: no validation images"
NEEDS_ANCESTOR_COST = "not available: the cost is no function of the lowest common ancestor"


def is_scaled(word: str) -> bool:
    """Whether a word asks for temperature-scaled probabilities."""
    return temperature.split(word)[1]


def check(words: Iterable[str], rules: Iterable[str], where: str) -> None:
    """Raise SeverityError, naming the nearest known one, unless each word is one of `rules`, with or without `_ts`."""
    rules = list(rules)
    for word in words:
        if temperature.split(word)[0] not in rules:
            raise SeverityError(f"{where}: unknown decision rule {word!r}. {nearest(word, rules)}")


@dataclass(frozen=True, eq=False)
class Decider:
    """The decision rules of one run.

    validation: the run's validation images, on which temperatures and thresholds are fitted, each when it is first
    needed; None where there are none. hierarchy, cost: the tree, and its (K, K) cost[decision, truth], that a rule
    uses.
    """

    validation: Predictions | None
    hierarchy: Hierarchy
    cost: numpy.ndarray
    # Scaled probabilities by kind and images; the images are kept, so that their id stays theirs.
    _scaled: dict[tuple[str, int], tuple[Predictions, numpy.ndarray]] = field(
        default_factory=dict, init=False, repr=False
    )

    @classmethod
    def of(cls, predictions: Predictions, hierarchy: Hierarchy, cost: numpy.ndarray) -> "Decider":
        """The rules of the run whose predictions these are."""
        validation = predictions.part("validation") if predictions.has("validation") else None
        return cls(validation, hierarchy, cost)

    def unavailable(self, words: Iterable[str]) -> dict[str, str]:
        """Of some words those that cannot decide, and why: temperatures and thresholds need validation images, and the rule
        crm_nodes a cost that depends on the lowest common ancestor alone."""
        missing = {}
        for word in words:
            rule, scaled = temperature.split(word)
            if self.validation is None and (scaled or rule in set_rules.FITTED):
                missing[word] = NEEDS_VALIDATION
            elif rule == "crm_nodes" and not self._ancestral:
                missing[word] = NEEDS_ANCESTOR_COST
        return missing

    @cached_property
    def _ancestral(self) -> bool:
        try:
            class_rules.ancestor_costs(self.cost, self.hierarchy)
        except SeverityError:
            return False
        return True

    def available(self, words: Iterable[str]) -> list[str]:
        """Of some words those that can decide."""
        words = list(words)
        missing = self.unavailable(words)
        return [word for word in words if word not in missing]

    @cached_property
    def posterior_temperature(self) -> float:
        """Of distributions over classes."""
        seen = self._seen()
        return temperature.fit(seen.log_posterior, seen.truth == 1, self.hierarchy)

    @cached_property
    def node_temperature(self) -> float:
        """Of the log-odds of nodes, fitted on those of labels."""
        seen = self._seen()
        return temperature.fit_logits(seen.label_logits, seen.truth)

    @cached_property
    def thresholds(self) -> numpy.ndarray:
        """(K,) of largest F1, of the probabilities of labels as they are."""
        return self._thresholds(scaled=False)

    @cached_property
    def scaled_thresholds(self) -> numpy.ndarray:
        """(K,) of largest F1, of temperature-scaled probabilities of labels."""
        return self._thresholds(scaled=True)

    def _thresholds(self, *, scaled: bool) -> numpy.ndarray:
        seen = self._seen()
        return set_rules.best_thresholds(self.labels(seen, scaled=scaled), seen.truth)

    def posterior(self, images: Predictions, *, scaled: bool) -> numpy.ndarray:
        """(N, K) distributions over classes, temperature-scaled or as they are."""
        if not scaled:
            return self._once("posterior", images, lambda: images.posterior)
        return self._once(
            "posterior_ts", images, lambda: temperature.scale(images.log_posterior, self.posterior_temperature)
        )

    def nodes(self, images: Predictions, *, scaled: bool) -> numpy.ndarray:
        """(N, n) probability that each node is present, temperature-scaled or as it is."""
        if not scaled:
            return self._once("nodes", images, lambda: scipy.special.expit(images.node_logits.astype(numpy.float64)))
        return self._once(
            "nodes_ts",
            images,
            lambda: scipy.special.expit(temperature.scale_logits(images.node_logits, self.node_temperature)),
        )

    def labels(self, images: Predictions, *, scaled: bool) -> numpy.ndarray:
        """(N, K) probability that each label is present."""
        return self.nodes(images, scaled=scaled)[:, self.hierarchy.stands_for]

    def rank(
        self,
        word: str,
        images: Predictions,
        *,
        hierarchy: Hierarchy | None = None,
        cost: numpy.ndarray | None = None,
    ) -> numpy.ndarray:
        """(N, K) classes, best first, by a rule that decides a class.

        Args:
            hierarchy, cost: to decide by in place of the run's own.

        Raises:
            SeverityError: an unknown rule, one that needs validation images where there are none, or a violated law:
                see `class_rules.check_crm`.
        """
        rule, scaled = temperature.split(word)
        posterior, cost = self.posterior(images, scaled=scaled), self.cost if cost is None else cost
        nodes = self._nodes_of(images, hierarchy, scaled=scaled) if class_rules.needs_nodes(rule) else None
        ranking = class_rules.rank(
            rule, posterior=posterior, nodes=nodes, cost=cost, hierarchy=hierarchy or self.hierarchy
        )
        if rule == "crm":
            class_rules.check_crm(ranking=ranking, posterior=posterior, cost=cost)
        return ranking

    def first(self, word: str, images: Predictions, *, hierarchy: Hierarchy, cost: numpy.ndarray) -> numpy.ndarray:
        """(N,) the decisions alone, `rank(...)[:, 0]`, by another tree and cost; quick, and nothing is checked."""
        rule, scaled = temperature.split(word)
        nodes = self._nodes_of(images, hierarchy, scaled=scaled) if class_rules.needs_nodes(rule) else None
        posterior = self.posterior(images, scaled=scaled)
        return class_rules.first(rule, posterior=posterior, nodes=nodes, cost=cost, hierarchy=hierarchy)

    def decide_sets(self, word: str, images: Predictions, *, hierarchy: Hierarchy | None = None) -> numpy.ndarray:
        """(N, K) bool sets of labels by a rule that decides sets.

        Args:
            hierarchy: to decide by in place of the run's own.

        Raises:
            SeverityError: an unknown rule, or one that needs validation images where there are none.
        """
        rule, scaled = temperature.split(word)
        fitted = rule in set_rules.FITTED
        thresholds = (self.scaled_thresholds if scaled else self.thresholds) if fitted else None
        nodes = self._nodes_of(images, hierarchy, scaled=scaled)
        return set_rules.decide(rule, nodes=nodes, hierarchy=hierarchy or self.hierarchy, thresholds=thresholds)

    def _nodes_of(self, images: Predictions, hierarchy: Hierarchy | None, *, scaled: bool) -> numpy.ndarray:
        """(N, n) as `nodes`; on another tree of the same classes what the labels, or exclusive classes, say of its nodes."""
        if hierarchy is None:
            return self.nodes(images, scaled=scaled)
        if images.exclusive:
            # A sum of all classes may exceed 1 by rounding.
            return numpy.minimum(subtrees.probabilities(self.posterior(images, scaled=scaled), hierarchy), 1)
        logits = images.label_logits
        if scaled:
            logits = temperature.scale_logits(logits, self.node_temperature)
        return scipy.special.expit(tree_model.node_logits_of_labels(logits, hierarchy))

    def decide_nodes(self, word: str, images: Predictions, *, threshold: float) -> numpy.ndarray:
        """(N,) nodes: the leaf of the class that a rule decides, or where `climb` stops.

        Args:
            threshold: of `climb`.

        Raises:
            SeverityError: as `rank`, or a threshold outside [0, 1].
        """
        rule, scaled = temperature.split(word)
        if rule != CLIMB:
            return self.hierarchy.class_nodes[self.rank(word, images)[:, 0]]
        nodes = self.nodes(images, scaled=scaled)
        return class_rules.climb(nodes=nodes, hierarchy=self.hierarchy, threshold=threshold)

    def _once(self, kind: str, images: Predictions, scale: Callable[[], numpy.ndarray]) -> numpy.ndarray:
        """What `scale` returns, computed once for the same images."""
        if (kind, id(images)) not in self._scaled:
            self._scaled[kind, id(images)] = images, scale()
        return self._scaled[kind, id(images)][1]

    def _seen(self) -> Predictions:
        if self.validation is None:
            raise SeverityError(
                "There are no validation images to fit a temperature or thresholds on. Choose a rule that needs neither."
            )
        return self.validation
