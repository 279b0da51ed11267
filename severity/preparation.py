"""Making data/prepared: divide by patient, apply the label policies, decode and resize every image once."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy
import pandas
from tqdm import tqdm

from severity import decoding, files, splits, tables
from severity.errors import SeverityError, nearest
from severity.manifest import sha256
from severity.prepared import METADATA
from severity.runs import seed_for

UNCERTAIN = -1.0
MASKED = float("nan")
POLICIES = {"zeros": 0.0, "ones": 1.0, "ignore": MASKED}
SMOOTH = "smooth"
SMOOTH_RANGE = (0.55, 0.85)  # that of Pham et al. 2021
EXAMPLE_SIZE = 256


def prepare(
    out: Path | str,
    raw: pandas.DataFrame,
    *,
    dataset: str,
    labels: Sequence[str],
    root: Path | str,
    image_size: int,
    uncertain: str | dict,
    unmentioned: str,
    validation_fraction: float,
    test_fraction: float,
    seed: int,
    max_rejects: int,
    min_positives: int,
    workers: int,
    smooth_range: Sequence[float] = SMOOTH_RANGE,
) -> dict[str, Any]:
    """Divide, label and decode a collection, and write the folder `out` whole.

    The same input and options give the same bytes, whatever the number of workers.

    Args:
        out: folder to write.
        raw: one row an image, as `severity.datasets.<name>.read` gives it.
        dataset: name of the collection.
        labels: its label columns, in order.
        root: folder that the column path is relative to.
        image_size: edge of the prepared images.
        uncertain, unmentioned, smooth_range: see `apply_policies`.
        validation_fraction, test_fraction, seed: see `severity.splits.divide`; the seed is `apply_policies`' as well.
        max_rejects: how many unreadable images are put up with.
        min_positives: how many positive train images each label must have.
        workers: processes that decode; 0 is one a core.

    Returns:
        What summary.json holds.

    Raises:
        SeverityError: an option is out of range; ids repeat; a patient is in two splits, a split is empty, a label has
            too few positives in train; too many images are unreadable; the disk is too small.
    """
    for name, value, least in (
        ("image_size", image_size, 1),
        ("seed", seed, 0),
        ("max_rejects", max_rejects, 0),
        ("min_positives", min_positives, 0),
        ("workers", workers, 0),
    ):
        _check_whole(name, value, least)
    labels = tuple(labels)
    _check_raw(raw, labels)
    divided = raw.assign(
        split=splits.divide(raw, validation_fraction=validation_fraction, test_fraction=test_fraction, seed=seed)
    )
    table = apply_policies(
        divided, labels, uncertain=uncertain, unmentioned=unmentioned, smooth_range=smooth_range, seed=seed
    )
    _check_table(table, labels, min_positives)  # before the long work, and again if that drops rows
    with files.replacing(out) as folder:
        folder.mkdir()
        reasons = _write_images(folder / "images.npy", root, table["path"].tolist(), image_size, workers)
        rejects = table.loc[reasons != "", ["id", "path"]].assign(reason=reasons[reasons != ""])
        _check_rejects(rejects, len(table), max_rejects)
        readable = (reasons == "").nonzero()[0]
        divided, table = divided.iloc[readable], table.iloc[readable]
        if len(rejects):
            _check_table(table, labels, min_positives)
        files.write_csv(folder / "table.csv", table[[*METADATA, *labels]])
        files.write_csv(folder / "rejects.csv", rejects)
        _write_examples(folder, root, divided, table, labels)
        summary = {
            "dataset": dataset,
            "image_size": image_size,
            "images": len(table),
            "rejects": len(rejects),
            "counts": _counts(table, labels),
            "sha256": {name: sha256(folder / name) for name in ("images.npy", "table.csv")},
        }
        files.write_json(folder / "summary.json", summary)
    return summary


def apply_policies(
    raw: pandas.DataFrame,
    labels: Sequence[str],
    *,
    uncertain: str | dict,
    unmentioned: str,
    smooth_range: Sequence[float] = SMOOTH_RANGE,
    seed: int = 0,
) -> pandas.DataFrame:
    """Turn raw states (1, 0, -1 = uncertain, NaN = unmentioned) into targets (from 0 to 1, NaN = masked).

    Args:
        raw: columns split and `labels`; id as well where labels are smoothed.
        uncertain: what an uncertain cell of a TRAIN row becomes: 'zeros', 'ones' or 'ignore' (masked), or a mapping
            from labels to these words with a `default` (U-Zeros, U-Ones, U-Ignore of Irvin et al. 2019); or 'smooth': a
            number drawn evenly from `smooth_range` (label smoothing of uncertain cells, Pham et al. 2021, "Interpreting
            chest X-rays via CNNs that exploit hierarchical disease dependencies and uncertainty labels"). In validation
            and test rows an uncertain cell is always masked: nobody knows the truth there.
        unmentioned: what an unmentioned cell of any row becomes: 'zeros' or 'ignore'.
        smooth_range: lowest and highest target of 'smooth'. Sigmoid losses take such targets as they are; softmax
            losses take those above one half as positive.
        seed: of the draws. Each depends on it, the image's id and the label alone, not on what else is prepared.

    Raises:
        SeverityError: an unknown word or label, or a range that is none.
    """
    words = _uncertain_words(uncertain, labels)
    if unmentioned not in ("zeros", "ignore"):
        raise SeverityError(
            f"params.yaml: prepare.unmentioned is {unmentioned!r}. {nearest(unmentioned, ('zeros', 'ignore'))}"
        )
    lowest, highest = _checked_range(smooth_range)
    train = raw["split"] == "train"
    targets = {}
    for label in labels:
        state = raw[label]
        hedged = state == UNCERTAIN
        target = state.mask(state.isna(), POLICIES[unmentioned]).mask(hedged, MASKED)
        if words[label] == SMOOTH:
            shares = [_share(seed, image, label) for image in raw.loc[hedged & train, "id"]]
            target[hedged & train] = [lowest + (highest - lowest) * share for share in shares]
        else:
            target = target.mask(hedged & train, POLICIES[words[label]])
        targets[label] = target
    return raw.assign(**targets)


def _share(seed: int, image: str, label: str) -> float:
    """A number in [0, 1) that stands for one cell of the table."""
    return seed_for("smooth", seed, image, label) / 2**63


def _checked_range(smooth_range: Sequence[float]) -> tuple[float, float]:
    numbers = isinstance(smooth_range, (list, tuple)) and all(
        isinstance(each, (int, float)) and not isinstance(each, bool) for each in smooth_range
    )
    if not numbers or len(smooth_range) != 2 or not 0 <= smooth_range[0] <= smooth_range[1] <= 1:
        raise SeverityError(
            f"params.yaml: prepare.smooth_range is {smooth_range!r}; it must be two numbers from 0 to 1, the lower first."
        )
    return float(smooth_range[0]), float(smooth_range[1])


def _uncertain_words(uncertain: str | dict, labels: Sequence[str]) -> dict[str, str]:
    """One policy word a label."""
    words = uncertain if isinstance(uncertain, dict) else {"default": uncertain}
    where = "params.yaml: prepare.uncertain"
    for key, word in words.items():
        if key not in ("default", *labels):
            raise SeverityError(f"{where}: {key!r} is no label of this data set. {nearest(key, ('default', *labels))}")
        if word not in (*POLICIES, SMOOTH):
            raise SeverityError(f"{where}: {key} is {word!r}. {nearest(word, (*POLICIES, SMOOTH))}")
    if "default" not in words and not set(labels) <= words.keys():
        raise SeverityError(f"{where}: add the key 'default' for the labels that it does not name.")
    return {label: words.get(label, words.get("default")) for label in labels}


def _check_whole(name: str, value: Any, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise SeverityError(f"params.yaml: prepare.{name} is {value!r}; it must be a whole number from {least} on.")


def _check_raw(raw: pandas.DataFrame, labels: tuple[str, ...]) -> None:
    """The form that every collection must come in."""
    for column in (*METADATA, "path", *labels):
        if column not in raw.columns:
            raise SeverityError(f"The data set's `read` gives no column {column!r}. {nearest(column, raw.columns)}")
    if raw.empty:
        raise SeverityError("No image is left to prepare. Widen `views` of the data set's `read` in params.yaml.")
    for column in ("id", "patient", "path"):
        blank = raw.index[raw[column].isna() | (raw[column] == "")]
        if len(blank):
            raise SeverityError(f"{len(blank)} images have no {column}: rows {tables.listed(blank)}, counted from 0.")
    again = raw["id"][raw["id"].duplicated()]
    if len(again):
        raise SeverityError(
            f"{len(again)} images repeat the id of another: {tables.listed(again.unique())}. Ids must be unique."
        )
    for column, known in (("split", ("", *splits.SPLITS)), *((label, (1, 0, UNCERTAIN)) for label in labels)):
        odd = raw[column][~raw[column].isin(known) & raw[column].notna()]
        if len(odd):
            raise SeverityError(
                f"The data set's `read` gives {odd.iloc[0]} in column {column!r}; it may hold "
                f"{tables.listed(value if value != '' else 'blank' for value in known)}."
            )


def _check_table(table: pandas.DataFrame, labels: tuple[str, ...], min_positives: int) -> None:
    splits.check(table)
    positives = (table.loc[table["split"] == "train", list(labels)] > 0.5).sum()
    rare = positives[positives < min_positives]
    if len(rare):
        raise SeverityError(
            f"The train split has fewer than {min_positives} positive images of "
            f"{', '.join(f'{label} ({count})' for label, count in rare.items())}. Such a class cannot be learnt; lower "
            "prepare.min_positives in params.yaml to go on all the same (0 allows none at all)."
        )


def _check_rejects(rejects: pandas.DataFrame, images: int, max_rejects: int) -> None:
    if len(rejects) > max_rejects:
        told = tables.listed(
            f"{path} ({reason})" for path, reason in zip(rejects["path"], rejects["reason"], strict=True)
        )
        raise SeverityError(
            f"{len(rejects)} of {images} images cannot be read: {told}. Mend these files, or raise prepare.max_rejects "
            f"in params.yaml (now {max_rejects}) to go on without them."
        )


def _write_images(path: Path, root: Path | str, paths: list[str], size: int, workers: int) -> numpy.ndarray:
    """Write all readable images as one .npy file; return one reason a path, '' for the readable.

    Memory holds a few chunks only: images are appended in order, and the header, whose length numpy keeps fixed for a
    growing first axis, is written again when their number is known.
    """
    need = len(paths) * size * size
    free = shutil.disk_usage(path.parent).free
    if need > free:
        raise SeverityError(
            f"{path.parent.parent} has {free / 1e9:.1f} GB free, but {len(paths)} images of {size} x {size} take "
            f"{need / 1e9:.1f} GB. Make room, or lower prepare.image_size in params.yaml."
        )
    reasons: list[str] = []
    written = 0
    with open(path, "wb") as file, tqdm(total=len(paths), desc="prepare", unit="image", disable=None) as progress:
        _write_header(file, (len(paths), size, size))
        for images, chunk_reasons in decoding.decode(root, paths, size=size, workers=workers):
            file.write(images.data)
            written += len(images)
            reasons += chunk_reasons
            progress.update(len(chunk_reasons))
        file.seek(0)
        _write_header(file, (written, size, size))
    return numpy.array(reasons, dtype=object)


def _write_header(file: Any, shape: tuple[int, ...]) -> None:
    numpy.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})


def _write_examples(
    folder: Path, root: Path | str, divided: pandas.DataFrame, table: pandas.DataFrame, labels: tuple[str, ...]
) -> None:
    """For each label the image that shows it best alone."""
    images = numpy.zeros((len(labels), EXAMPLE_SIZE, EXAMPLE_SIZE), numpy.uint8)
    ids = []
    for index, label in enumerate(labels):
        row = _example(divided, table, labels, label)
        ids.append("" if row is None else table["id"].iloc[row])
        if row is not None:
            images[index] = decoding.padded(decoding.read_gray(Path(root) / table["path"].iloc[row]), EXAMPLE_SIZE)
    numpy.save(folder / "examples.npy", images)
    files.write_csv(folder / "examples.csv", pandas.DataFrame({"label": labels, "id": ids}))


def _example(divided: pandas.DataFrame, table: pandas.DataFrame, labels: tuple[str, ...], label: str) -> int | None:
    """Row of the positive image that is certain, then of the test split, then frontal, then nearly alone, then first.

    Test labels are the better ones where they were made by other means: CheXpert's by radiologists, the phantoms' without
    noise. Looking at one of them a label teaches no network anything.
    """
    rows = (table[label] == 1).to_numpy().nonzero()[0]
    if not len(rows):
        return None
    candidates = table.iloc[rows]
    uncertain = (divided[label].iloc[rows] != 1).to_numpy()
    test = (candidates["split"] == "test").to_numpy()
    lateral = (candidates["view"] == "lateral").to_numpy()
    positives = (candidates[list(labels)] == 1).sum(axis=1).to_numpy()
    return int(rows[numpy.lexsort((rows, positives, lateral, ~test, uncertain))[0]])


def _counts(table: pandas.DataFrame, labels: tuple[str, ...]) -> dict[str, Any]:
    """Split -> numbers of images and patients, and of positive, negative, soft (between) and masked cells by label."""
    counts = {}
    for split in splits.SPLITS:
        rows = table[table["split"] == split]
        counts[split] = {
            "images": len(rows),
            "patients": int(rows["patient"].nunique()),
            "labels": {
                label: {
                    "positives": int((rows[label] == 1).sum()),
                    "negatives": int((rows[label] == 0).sum()),
                    "soft": int(((rows[label] > 0) & (rows[label] < 1)).sum()),
                    "masked": int(rows[label].isna().sum()),
                }
                for label in labels
            },
        }
    return counts


def sentence(summary: dict[str, Any]) -> str:
    """One line that says what was prepared."""
    parts = ", ".join(
        f"{split} {count['images']} images of {count['patients']} patients"
        for split, count in summary["counts"].items()
    )
    size = summary["image_size"]
    return f"{summary['dataset']} at {size} x {size}: {parts}; {summary['rejects']} rejected"
