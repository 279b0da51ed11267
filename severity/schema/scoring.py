"""Costs, external predictions, metrics and comparisons."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from severity.core import runs
from severity.schema.kinds import Count, Distinct, PartialShare, Positive, ProperShare, Section, Share, Text

# The decision rules (severity/decisions), as they are and on temperature-scaled probabilities.
RULES = ("argmax", "crm", "top_down", "crm_nodes", "hie")
SET_RULES = ("threshold", "threshold_f1", "hbayes")
SCALED = "_ts"


def _words(rules: tuple[str, ...]) -> tuple[str, ...]:
    return (*rules, *(rule + SCALED for rule in rules))


class Cost(Section):
    name: Literal["lca_height", "path", "file", "irma"]
    file: Text


def _run(name: str) -> str:
    runs.named(name)
    return name


Kind = Literal["detect", "marginal", "posterior", "sigmoid_logits", "softmax_logits"]


def _with_default(kinds: dict[str, str]) -> dict[str, str]:
    if "default" not in kinds:
        raise ValueError("must have the key 'default', for the runs that it does not name")
    return kinds


class External(Section):
    runs: Distinct[Annotated[str, AfterValidator(_run)]]
    truth: Literal["data/prepared", "data/collection"]
    kind: Kind | Annotated[dict[Text, Kind], AfterValidator(_with_default)]
    missing_class: Literal["error", "complement"]
    unknown_ids: Literal["error", "leave_out"]
    incomplete: Literal["error", "allow"]
    validation_fraction: PartialShare
    seed: Count


class Evaluate(Section):
    rules: Distinct[Literal[_words(RULES)]]
    multi_label: Distinct[Literal[_words(SET_RULES)]]
    climb_threshold: Share
    batch_size: Positive
    mistakes: Count
    shuffles: Annotated[int, Field(ge=0, le=100_000)]
    seed: Count


class Compare(Section):
    resamples: Annotated[int, Field(ge=1, le=1_000_000)]
    permutations: Annotated[int, Field(ge=1, le=100_000_000)]
    level: ProperShare
    baseline_rule: Text
    correlation_labels: Count
    seed: Count
