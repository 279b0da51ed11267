"""One run's predictions, the file that everything after training is computed from.

``<run>.npz`` holds ids, patients, split (N,) text; posterior, marginal, truth (N, K) float32, truth 1, 0 or NaN =
masked; classes (K,) text; class_hash, run, dataset text; record, JSON text: what else is known of the run, such as its
validation loss. External predictions get the same form (severity/external/conversion.py).
"""

import json
import zipfile
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy

from severity.arrays.probabilities import check_posterior
from severity.core import files
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy, class_hash

PER_IMAGE = ("ids", "patients", "split", "posterior", "marginal", "truth")


@dataclass(frozen=True)
class Predictions:
    """See the module. Rows are in data-set order."""

    ids: numpy.ndarray
    patients: numpy.ndarray
    split: numpy.ndarray
    posterior: numpy.ndarray
    marginal: numpy.ndarray
    truth: numpy.ndarray
    classes: numpy.ndarray
    class_hash: numpy.ndarray
    run: numpy.ndarray
    dataset: numpy.ndarray
    record: numpy.ndarray = field(default_factory=lambda: numpy.array("{}"))

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
                fit, a posterior that is no distribution, a marginal outside [0, 1], an id twice.
        """
        path = Path(path)
        try:
            with numpy.load(path, allow_pickle=False) as archive:
                found = cls(**{each.name: archive[each.name] for each in fields(cls)})
        except FileNotFoundError:
            raise SeverityError(f"The predictions {path} are missing. Run `dvc repro predict`.") from None
        except (KeyError, ValueError, zipfile.BadZipFile) as error:
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
        for name in ("posterior", "marginal", "truth"):
            if getattr(self, name).shape != (images, size):
                raise SeverityError(f"{path}: {name} has the shape {getattr(self, name).shape}, not {(images, size)}.")
        if not (len(self.patients) == len(self.split) == images):
            raise SeverityError(f"{path}: ids, patients and split differ in length.")
        if len(set(self.ids.tolist())) < images:
            raise SeverityError(f"{path}: an image id stands twice; each image is predicted once.")
        try:
            check_posterior(self.posterior, size)
        except SeverityError as error:
            raise SeverityError(f"{path}: {error}") from None
        try:
            json.loads(str(self.record))
        except ValueError as error:
            raise SeverityError(f"{path}: the record is no JSON: {error}") from None
        if not ((self.marginal >= 0) & (self.marginal <= 1)).all():
            raise SeverityError(f"{path}: a marginal is outside [0, 1].")
