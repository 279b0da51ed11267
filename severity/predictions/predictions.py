"""One run's predictions, the file that everything after training is computed from.

``<run>.npz`` holds

    ids, patients, split        (N,) text
    log_posterior               (N, K) float64, natural logarithm of the share of the most specific truth that each class has
    node_logits                 (N, n) float32, log-odds that each node of the tree is present, own leaves included; infinite
                                for a root that is no label
    truth                       (N, K) float32, 1, 0 or NaN = masked
    classes, nodes              (K,) and (n,) text: their names. label_nodes (K,): the node that each label stands for
    exclusive                   whether classes exclude one another (a softmax): nodes then have shares, which are no
                                probabilities of presence where several labels may be true
    class_hash, run, dataset    text. record: JSON text: what else is known of the run, such as its validation loss

Logarithms and log-odds, since float32 cannot tell probabilities above 1 - 6e-8 from 1: ranks and ties survive. Of several
labels that are all as good as certain, posteriors differ by less than even float64 can tell: then the order is that of their
log-odds (`tree_model.ranked`). External predictions get the same form (severity/external/conversion.py).
"""

import json
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy
import scipy.special

from severity.arrays import tree_model
from severity.arrays.probabilities import check_posterior
from severity.core import archives, files
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy, class_hash

PER_IMAGE = ("ids", "patients", "split", "log_posterior", "node_logits", "truth")


@dataclass(frozen=True)
class Predictions:
    """See the module. Rows are in data-set order."""

    ids: numpy.ndarray
    patients: numpy.ndarray
    split: numpy.ndarray
    log_posterior: numpy.ndarray
    node_logits: numpy.ndarray
    truth: numpy.ndarray
    classes: numpy.ndarray
    nodes: numpy.ndarray
    label_nodes: numpy.ndarray
    exclusive: numpy.ndarray
    class_hash: numpy.ndarray
    run: numpy.ndarray
    dataset: numpy.ndarray
    record: numpy.ndarray = field(default_factory=lambda: numpy.array("{}"))

    @classmethod
    def of(
        cls,
        hierarchy: Hierarchy,
        *,
        ids: numpy.ndarray,
        patients: numpy.ndarray,
        split: numpy.ndarray,
        truth: numpy.ndarray,
        run: str,
        dataset: str,
        log_posterior: numpy.ndarray | None = None,
        label_logits: numpy.ndarray | None = None,
        node_logits: numpy.ndarray | None = None,
        record: dict[str, Any] | None = None,
        exclusive: bool | None = None,
    ) -> "Predictions":
        """Predictions on a tree, from what is known of the N images; what is not given follows from what is.

        Args:
            log_posterior: (N, K); alone, classes exclude one another, and a node has the sum of those below it.
            label_logits: (N, K) log-odds that each label is present.
            node_logits: (N, n) log-odds of all nodes.
            exclusive: whether classes exclude one another; by default where the log posterior alone is given.

        Raises:
            SeverityError: none of the three is given.
        """
        alone = label_logits is None and node_logits is None
        if alone and log_posterior is None:
            raise SeverityError("Predictions need a log posterior, or the log-odds of labels or of nodes.")
        if node_logits is None:
            node_logits = (
                tree_model.node_logits_of_classes(log_posterior, hierarchy)
                if alone
                else tree_model.node_logits_of_labels(label_logits, hierarchy)
            )
        if log_posterior is None:
            log_posterior = tree_model.log_posterior_of_nodes(node_logits, hierarchy)
            log_posterior = tree_model.ranked(log_posterior, node_logits[:, hierarchy.class_nodes])
        return cls(
            ids=ids,
            patients=patients,
            split=split,
            log_posterior=log_posterior.astype(numpy.float64),
            node_logits=node_logits.astype(numpy.float32),
            truth=truth.astype(numpy.float32),
            classes=numpy.array(hierarchy.classes),
            nodes=numpy.array(hierarchy.names),
            label_nodes=hierarchy.stands_for,
            exclusive=numpy.array(alone if exclusive is None else exclusive),
            class_hash=numpy.array(hierarchy.class_hash),
            run=numpy.array(run),
            dataset=numpy.array(dataset),
            record=numpy.array(json.dumps(record or {}, sort_keys=True)),
        )

    @property
    def posterior(self) -> numpy.ndarray:
        """(N, K) float64, rows summing to one."""
        return scipy.special.softmax(self.log_posterior, axis=1)

    @property
    def label_logits(self) -> numpy.ndarray:
        """(N, K) log-odds that each label is present: those of the node that it stands for."""
        return self.node_logits[:, self.label_nodes]

    @property
    def known(self) -> dict[str, Any]:
        """`record`, read."""
        return json.loads(str(self.record))

    def has(self, split: str) -> bool:
        """Whether any row is of this split."""
        return bool((self.split == split).any())

    def part(self, split: str) -> "Predictions":
        """The rows of one split. Raises SeverityError when it has none."""
        rows = self.split == split
        if not rows.any():
            raise SeverityError(f"The predictions of {self.run} hold no image of the split {split!r}. Predict again.")
        return self.rows(rows)

    def rows(self, rows: numpy.ndarray) -> "Predictions":
        """Some of the rows: an index or a mask."""
        return replace(self, **{name: getattr(self, name)[rows] for name in PER_IMAGE})

    def write(self, path: Path | str) -> None:
        """Write the file whole; the same predictions give the same bytes."""
        with files.replacing(path) as beside:
            numpy.savez(beside, **{each.name: getattr(self, each.name) for each in fields(self)})

    @classmethod
    def read(cls, path: Path | str, hierarchy: Hierarchy) -> "Predictions":
        """Read and check a prediction file.

        Raises:
            SeverityError: missing or no such file, its classes are not the hierarchy's in the same order, shapes do not
                fit, a posterior that is no distribution, log-odds that are NaN, an id twice.
        """
        path = Path(path)
        try:
            arrays = archives.read_npz(path)
            found = cls(**{each.name: arrays[each.name] for each in fields(cls)})
        except FileNotFoundError:
            raise SeverityError(f"The predictions {path} are missing. Run `dvc repro predict`.") from None
        except KeyError as error:
            raise SeverityError(f"{path} is no prediction file: {error}. Run `dvc repro predict`.") from None
        found._check(path, hierarchy)
        return found

    def _check(self, path: Path, hierarchy: Hierarchy) -> None:
        classes = tuple(str(name) for name in self.classes)
        if not class_hash(classes) == str(self.class_hash) == hierarchy.class_hash:
            raise SeverityError(
                f"{path} was made for the classes {list(classes)} (hash {self.class_hash}), but the hierarchy's are "
                f"{list(hierarchy.classes)} (hash {hierarchy.class_hash}). Predict again with this hierarchy."
            )
        images, size = len(self.ids), len(classes)
        if tuple(self.nodes.tolist()) != hierarchy.names or not numpy.array_equal(
            self.label_nodes, hierarchy.stands_for
        ):
            raise SeverityError(
                f"{path} was made for another label tree of the same classes. Predict again with this one."
            )
        for name, width in (("log_posterior", size), ("truth", size), ("node_logits", len(hierarchy.names))):
            if getattr(self, name).shape != (images, width):
                raise SeverityError(f"{path}: {name} has the shape {getattr(self, name).shape}, not {(images, width)}.")
        if not (len(self.patients) == len(self.split) == images):
            raise SeverityError(f"{path}: ids, patients and split differ in length.")
        if len(set(self.ids.tolist())) < images:
            raise SeverityError(f"{path}: an image id is duplicated; each image is predicted once.")
        try:
            check_posterior(numpy.exp(self.log_posterior), size)
        except SeverityError as error:
            raise SeverityError(f"{path}: {error}") from None
        try:
            json.loads(str(self.record))
        except ValueError as error:
            raise SeverityError(f"{path}: the record is no JSON: {error}") from None
        if numpy.isnan(self.node_logits).any():
            raise SeverityError(f"{path}: the log-odds of a node are NaN.")
