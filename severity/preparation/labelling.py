"""What the states that a collection's tables hold become for training and scoring: label policies and closure."""

from collections.abc import Sequence
from typing import Any

import numpy
import pandas

from severity.collections.collection import UNCERTAIN
from severity.collections.splits import SPLITS
from severity.core.errors import SeverityError, nearest
from severity.core.hierarchy import Hierarchy
from severity.core.runs import seed_for

MASKED = float("nan")
POLICIES = {"zeros": 0.0, "ones": 1.0, "ignore": MASKED}
SMOOTH = "smooth"
SMOOTH_RANGE = (0.55, 0.85)  # that of Pham et al. 2021
WHERE = "params.yaml: labels of the data set"


def apply(
    table: pandas.DataFrame,
    labels: Sequence[str],
    hierarchy: Hierarchy,
    *,
    uncertain: str | dict,
    unmentioned: str,
    closure: bool,
    smooth_range: Sequence[float] = SMOOTH_RANGE,
    seed: int = 0,
) -> tuple[pandas.DataFrame, list[dict[str, Any]]]:
    """Turn states (1, 0, -1 = uncertain, NaN = unmentioned) into targets (from 0 to 1, NaN = masked).

    No policy touches a test row: there 1 and 0 stay what they are, and whatever else is masked.

    Args:
        table: columns id, split and `labels`.
        hierarchy: the tree over some of the labels, for `closure`.
        uncertain: what an uncertain cell of a TRAIN row becomes: 'zeros', 'ones' or 'ignore' (masked), or a mapping
            from labels to these words with a `default` (U-Zeros, U-Ones, U-Ignore of Irvin et al. 2019); or 'smooth': a
            number drawn evenly from `smooth_range` (label smoothing of uncertain cells, Pham et al. 2021, "Interpreting
            chest X-rays via CNNs that exploit hierarchical disease dependencies and uncertainty labels"). In validation
            rows an uncertain cell is masked: the truth is unknown there.
        unmentioned: what an unmentioned cell of a train or validation row becomes: 'zeros' or 'ignore'.
        closure: in train and validation rows, make a label that stands for an inner node of the tree at least as true
            as every label below it; what is masked only gives way to a certain positive.
        smooth_range: lowest and highest target of 'smooth'. Sigmoid losses take such targets as they are; softmax
            losses take those above one half as positive.
        seed: of the draws. Each depends only on it, the image's id and the label, not on what else is prepared.

    Returns:
        `table` with targets in the label columns, and the violations of the tree: see `violations`.

    Raises:
        SeverityError: an unknown label, or one without a policy.
    """
    words = _uncertain_words(uncertain, labels)
    lowest, highest = smooth_range
    train, test = table["split"] == "train", table["split"] == "test"
    targets = {}
    for label in labels:
        state = table[label].astype(float)
        hedged = state == UNCERTAIN
        target = state.mask(state.isna() & ~test, POLICIES[unmentioned]).mask(hedged, MASKED)
        if words[label] == SMOOTH:
            shares = [_share(seed, image, label) for image in table.loc[hedged & train, "id"]]
            target[hedged & train] = [lowest + (highest - lowest) * share for share in shares]
        else:
            target = target.mask(hedged & train, POLICIES[words[label]])
        targets[label] = target
    open_ = table.assign(**targets)
    closed = _closed(open_, hierarchy) if closure else open_
    return closed, violations(open_, closed, hierarchy)


def _closed(table: pandas.DataFrame, hierarchy: Hierarchy) -> pandas.DataFrame:
    """`table` with every general class at least as true as the classes below it, test rows left unchanged."""
    rows = (table["split"] != "test").to_numpy()
    known = table.loc[rows, list(hierarchy.classes)].to_numpy(dtype=numpy.float64)
    closed = known.copy()
    for index, below in hierarchy.general_classes.items():
        # All classes below, not only the next ones, so the order of the classes does not matter.
        highest = numpy.nan_to_num(known[:, below], nan=0.0).max(axis=1)
        closed[:, index] = numpy.where(highest == 1, 1.0, numpy.maximum(known[:, index], highest))  # NaN stays NaN
    changed = table.copy()
    changed.loc[rows, list(hierarchy.classes)] = closed
    return changed


def violations(before: pandas.DataFrame, after: pandas.DataFrame, hierarchy: Hierarchy) -> list[dict[str, Any]]:
    """Where a label is positive and one that stands for a node above it is not, by split.

    Args:
        before, after: targets without and with closure; the same rows, with the column split.

    Returns:
        One entry a split and pair of labels with any: split, child, parent, and the numbers of images before and after.
    """
    entries = []
    for split in SPLITS:
        rows = before["split"] == split
        first, last = before[rows], after[rows]
        for index, below in hierarchy.general_classes.items():
            parent = hierarchy.classes[index]
            for child in (hierarchy.classes[each] for each in below):
                counts = [int(((part[child] == 1) & (part[parent] != 1)).sum()) for part in (first, last)]
                if any(counts):
                    entries.append(
                        {"split": split, "child": child, "parent": parent, "before": counts[0], "after": counts[1]}
                    )
    return entries


def states(table: pandas.DataFrame, labels: Sequence[str]) -> dict[str, Any]:
    """Split -> label -> numbers of cells as the collection's tables have them: positive, negative, uncertain, blank."""
    by_split = {}
    for split in SPLITS:
        rows = table[table["split"] == split]
        by_split[split] = {
            label: {
                "positive": int((rows[label] == 1).sum()),
                "negative": int((rows[label] == 0).sum()),
                "uncertain": int((rows[label] == UNCERTAIN).sum()),
                "blank": int(rows[label].isna().sum()),
            }
            for label in labels
        }
    return by_split


def counts(table: pandas.DataFrame, labels: Sequence[str]) -> dict[str, Any]:
    """Split -> numbers of images and patients, and by label of positive, negative, soft and masked targets."""
    by_split = {}
    for split in SPLITS:
        rows = table[table["split"] == split]
        by_split[split] = {
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
    return by_split


def _share(seed: int, image: str, label: str) -> float:
    """A number in [0, 1) that stands for one cell of the table."""
    return seed_for("smooth", seed, image, label) / 2**63


def _uncertain_words(uncertain: str | dict, labels: Sequence[str]) -> dict[str, str]:
    """One policy word a label."""
    words = uncertain if isinstance(uncertain, dict) else {"default": uncertain}
    where = f"{WHERE}: uncertain"
    for key in words:
        if key not in ("default", *labels):
            raise SeverityError(
                f"{where}: {key!r} is not a label of this data set. {nearest(key, ('default', *labels))}"
            )
    if "default" not in words and not set(labels) <= words.keys():
        raise SeverityError(f"{where}: add the key 'default' for the labels that it does not name.")
    return {label: words.get(label, words.get("default")) for label in labels}
