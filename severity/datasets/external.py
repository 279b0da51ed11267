"""No images, only the labels in files of external predictions, so that published numbers can be scored without images.

Form: files as `severity.collections.external_files` describes them; all that have columns ``true:<class>`` count, and
where two know the same image they must agree. A file that cannot be read is left out and told: if it is one of the
runs, the stage `external` stops at it. There is nothing to decode, so the stages after `read` are those that
read data/collection: `hierarchy`, `external`, and what scores. docs/external-predictions.md has the commands.
Licence: that of the files.
"""

import sys
from pathlib import Path

import numpy
import pandas

from severity.collections import external_files, manifest
from severity.collections.collection import Collection
from severity.collections.external_files import Sheet
from severity.core import table_checks
from severity.core.errors import SeverityError

FORM = "docs/external-predictions.md"


def collect(root: Path | str, out: Path | str) -> int:
    """Check the files and write their manifest into the folder `out`.

    Returns:
        The number of images with labels.

    Raises:
        SeverityError: what `read` raises.
    """
    root = Path(root)
    images = len(read(root).table)
    manifest.write(out, root, images=[], label_tables=[path.name for path in external_files.listed(root)])
    return images


def read(root: Path | str) -> Collection:
    """The labels of all files, images in the order in which they occur.

    Returns:
        One row an image: id, patient (the id where no file states it), split ('' where no file states it), the labels
        as 1, 0 or NaN = not known; sex, age and view are not known. The path names no file: there is no image.

    Raises:
        SeverityError: no file with labels that can be read, other labels in another file, or two files that disagree on
            an image.
    """
    root = Path(root)
    sheets, unread = [], {}
    for path in external_files.listed(root):
        try:
            sheets += [sheet for sheet in [external_files.read(path)] if sheet.labels]
        except SeverityError as error:
            unread[path.name] = error
    if not sheets:
        why = "".join(f" {error}" for error in unread.values())
        raise SeverityError(
            f"{root} has no file of predictions with columns true:<class>. See {FORM} for the form.{why}"
        )
    for error in unread.values():
        print(f"left out: {error}", file=sys.stderr)
    labels = sheets[0].labels
    frame = pandas.concat([_frame(sheet, sheets[0]) for sheet in sheets], ignore_index=True)
    frame = frame.drop_duplicates()
    repeated = frame["id"][frame["id"].duplicated()]
    if len(repeated):
        raise SeverityError(
            f"{root}: files disagree on patient, split or labels of {len(repeated)} images: "
            f"{table_checks.listed(repeated)}. All must agree, or only one of them may have columns true:<class>."
        )
    without_patient = int((frame["patient"] == "").sum())
    table = frame.assign(
        patient=frame["patient"].mask(frame["patient"] == "", frame["id"]),
        sex="",
        age=numpy.nan,
        view="",
        path=[f"no-image/{row}" for row in range(len(frame))],
    ).reset_index(drop=True)
    notes = {
        "images without a patient, each taken as one of its own": without_patient,
        "files that cannot be read, left out": ", ".join(unread),
    }
    return Collection(table, labels, notes={words: note for words, note in notes.items() if note})


def _frame(sheet: Sheet, first: Sheet) -> pandas.DataFrame:
    if set(sheet.labels) != set(first.labels):
        odd = sorted(set(sheet.labels) ^ set(first.labels))
        raise SeverityError(
            f"{sheet.path} and {first.path.name} have labels for other classes: {table_checks.listed(odd)}."
        )
    frame = pandas.DataFrame(sheet.truth, columns=list(sheet.labels))[list(first.labels)]
    patients = numpy.full(len(frame), "") if sheet.patients is None else sheet.patients
    frame.insert(0, "split", sheet.split)
    frame.insert(0, "patient", patients)
    frame.insert(0, "id", sheet.ids)
    return frame
