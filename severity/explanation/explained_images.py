"""The images that are explained: the least and the most severe mistakes of one run, and images chosen by their id."""

from dataclasses import dataclass

import numpy
import pandas

from severity.arrays.labelsets import most_specific, undetermined
from severity.core.errors import SeverityError, nearest
from severity.core.hierarchy import Hierarchy
from severity.decisions.decider import Decider
from severity.explanation import paths
from severity.metrics.record import Record
from severity.predictions.predictions import Predictions


@dataclass(frozen=True)
class Case:
    """One image, what was decided, and what is true."""

    name: str  # least_1, most_2, chosen_1: the stem of its files
    id: str
    row: int  # of the predictions
    decision: int  # class index
    # Class indices, the most specific ones first, and of these the nearest to the decision: the least costly, of equals the
    # most probable. A label above another true one is shown, but is not what a decision is scored by.
    truth: tuple[int, ...]
    severity: float | None  # to the first of them; None where no class is known to be true

    @property
    def classes(self) -> tuple[int, ...]:
        """The classes to explain: the decision, then those that are true."""
        return self.decision, *(label for label in self.truth if label != self.decision)

    def role(self, label: int) -> str:
        """What one of its classes is: decision, truth, or both."""
        if label not in self.truth:
            return "decision"
        return "decision and truth" if label == self.decision else "truth"


def find(
    predictions: Predictions,
    record: Record,
    hierarchy: Hierarchy,
    cost: numpy.ndarray,
    *,
    rule: str,
    mistakes: int,
    ids: list,
) -> list[Case]:
    """The cases of one run under one decision rule.

    Args:
        predictions: of the run.
        record: its record, which names the mistakes.
        cost: (K, K) cost[decision, truth].
        rule: one that the record has.
        mistakes: how many of the least and of the most severe ones; as many as the record names, where these are fewer.
        ids: images of validation or test.

    Raises:
        SeverityError: an unknown rule or image, or a record of other predictions.
    """
    if rule not in record["rules"]:
        raise SeverityError(f"params.yaml: explain.rule is {rule!r}. {nearest(rule, record['rules'])}")
    named = {
        f"{end}_{place}": mistake
        for end in ("least", "most")
        for place, mistake in enumerate(record["rules"][rule][end][:mistakes], start=1)
    }
    ids_of_cases = {name: mistake["id"] for name, mistake in named.items()}
    ids_of_cases |= {f"chosen_{place}": image for place, image in enumerate(ids, start=1)}
    rows = [paths.index(predictions, image) for image in ids_of_cases.values()]
    decided = Decider.of(predictions, hierarchy, cost).rank(rule, predictions.rows(rows))[:, 0]
    for (name, mistake), label in zip(named.items(), decided, strict=False):
        if hierarchy.classes[label] != mistake["decision"]:
            raise SeverityError(
                f"The metrics of {record['run']} say that {rule} decided {mistake['decision']!r} for {mistake['id']} "
                f"({name}), its predictions say {hierarchy.classes[label]!r}. Run `dvc repro evaluate`."
            )
    return [
        _case(name, row, int(label), predictions, hierarchy, cost)
        for name, row, label in zip(ids_of_cases, rows, decided, strict=True)
    ]


def _case(
    name: str, row: int, decision: int, predictions: Predictions, hierarchy: Hierarchy, cost: numpy.ndarray
) -> Case:
    labels = predictions.truth[[row]] == 1
    true = numpy.flatnonzero(labels)
    general = ~most_specific(labels, hierarchy)[0, true]
    order = numpy.lexsort((-predictions.log_posterior[row, true], cost[decision, true], general))
    truth = tuple(true[order].tolist())
    known = bool(truth) and not undetermined(predictions.truth[[row]], hierarchy)[0, decision]
    severity = float(cost[decision, truth[0]]) if known else None
    return Case(name, str(predictions.ids[row]), row, decision, truth, severity)


def index(cases: list[Case], predictions: Predictions, hierarchy: Hierarchy) -> pandas.DataFrame:
    """One row a case: case, id, split, truth (labels joined by ;), decision, severity, posterior of the decision."""
    columns = ["case", "id", "split", "truth", "decision", "severity", "posterior"]
    rows = [
        (
            case.name,
            case.id,
            predictions.split[case.row],
            "; ".join(hierarchy.classes[label] for label in case.truth),
            hierarchy.classes[case.decision],
            case.severity,
            predictions.posterior[case.row, case.decision],
        )
        for case in cases
    ]
    return pandas.DataFrame(rows, columns=columns)


def steps(case: Case, predictions: Predictions, hierarchy: Hierarchy) -> pandas.DataFrame:
    """The path from the root to each class of a case.

    Returns:
        one row a class and step: label, role, depth, node, probability (of the node, before any temperature) and
        given_parent (its share of the parent's).
    """
    labels = numpy.array(case.classes)
    copies = predictions.rows(numpy.full(len(labels), case.row))
    nodes = hierarchy.class_nodes[labels]
    path = paths.table(copies, hierarchy, nodes)
    label = numpy.repeat(labels, hierarchy.depth[nodes] + 1)
    path.insert(0, "label", [hierarchy.classes[each] for each in label])
    path.insert(1, "role", [case.role(each) for each in label])
    return path[["label", "role", "depth", "node", "probability", "given_parent"]]
