"""The data card: what a prepared collection holds, in numbers (card.json, tables) and on a page for people (card.md,
page.json).

A positive is a target of exactly 1 throughout: a soft target (between 0 and 1) and a masked one (blank) are neither
positive nor negative. States are what the collection's own tables say; targets are what the label policies made of
them.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import numpy
import pandas

from severity.collections.splits import SPLITS
from severity.core import documents
from severity.core.documents import Block, Bullets, Document, Heading, Number, code, count, paragraph
from severity.datacard.duplicates import LISTED, NearDuplicates
from severity.prepared.prepared import Table

STATES = ("positive", "negative", "uncertain", "blank")
TARGETS = ("positives", "negatives", "soft", "masked")
UNKNOWN = "unknown"
ALL = "all"
VIOLATION = ("split", "child", "parent", "before", "after")
SHOWN = 40  # rows of a table on the page; the CSV files hold all
QUARTILES = {"min": 0, "lower_quartile": 0.25, "median": 0.5, "upper_quartile": 0.75, "max": 1}


def label_table(summary: Mapping[str, Any]) -> pandas.DataFrame:
    """One row a split and label.

    Args:
        summary: of data/prepared.

    Returns:
        Columns split, label, state_<state> for STATES, target_<target> for TARGETS, and prevalence: positives among
        positives and negatives (NaN where there is neither).
    """
    rows = []
    for split in SPLITS:
        for label, counts in summary["counts"][split]["labels"].items():
            states = summary["states"][split][label]
            known = counts["positives"] + counts["negatives"]
            rows.append(
                {
                    "split": split,
                    "label": label,
                    **{f"state_{state}": states[state] for state in STATES},
                    **{f"target_{target}": counts[target] for target in TARGETS},
                    "prevalence": counts["positives"] / known if known else numpy.nan,
                }
            )
    return pandas.DataFrame(rows)


def cooccurrence(table: Table) -> pandas.DataFrame:
    """How many images are positive for two labels at once.

    Returns:
        Columns label, other, all (of any split), and one a split; one row an ordered pair that some image shows, and
        one for each label with itself. Of 193 classes that exclude each other, 193 rows and not 37,249.
    """
    labels = numpy.array(table.labels)
    counts = {}
    for split in SPLITS:
        rows = table.frame.loc[table.frame["split"] == split, list(labels)]
        positive = (rows == 1).to_numpy(dtype=numpy.float64)  # whole numbers: exact, and fast to multiply
        counts[split] = (positive.T @ positive).astype(int).ravel()
    pairs = {"label": numpy.repeat(labels, len(labels)), "other": numpy.tile(labels, len(labels))}
    every = pandas.DataFrame({**pairs, ALL: sum(counts.values()), **counts})
    return every[(every[ALL] > 0) | (every["label"] == every["other"])].reset_index(drop=True)


def violations(summary: Mapping[str, Any]) -> pandas.DataFrame:
    """The violations of the label tree, columns VIOLATION: in how many images the child is positive and the parent not,
    before and after closure."""
    return pandas.DataFrame(summary["violations"], columns=list(VIOLATION))


def card(
    table: Table,
    summary: Mapping[str, Any],
    decoded: Mapping[str, Any],
    boxes: pandas.DataFrame,
    duplicates: NearDuplicates,
) -> dict[str, Any]:
    """The content of card.json: nested by subject, then split; every leaf but those of `notes` a number, a word or
    null.

    Args:
        table: of data/prepared. summary: its summary.json. boxes: its boxes.csv.
        decoded: summary.json of data/images.
        duplicates: near-duplicates across splits.
    """
    frame, labels = table.frame, list(table.labels)
    parts = {ALL: frame, **{split: frame[frame["split"] == split] for split in SPLITS}}
    positives = {name: (part[labels] == 1).sum(axis=1) for name, part in parts.items()}
    by_label = label_table(summary)
    broken = violations(summary).groupby("split")[["before", "after"]].sum().reindex(SPLITS, fill_value=0)
    return {
        "dataset": summary["dataset"],
        "images": {name: len(part) for name, part in parts.items()},
        "unreadable": decoded["unreadable"],
        "image_size": decoded["size"],
        **({"sixteen_bits": decoded["sixteen_bits"]} if "sixteen_bits" in decoded else {}),
        "patients": {name: int(part["patient"].nunique()) for name, part in parts.items()},
        "sex": {name: counted(part["sex"]) for name, part in parts.items()},
        "views": {name: counted(part["view"]) for name, part in parts.items()},
        "ages": {name: ages(part["age"]) for name, part in parts.items()},
        "labels_per_image": {
            name: {"mean": float(each.mean()), **_whole(each.value_counts().sort_index())}
            for name, each in positives.items()
        },
        "violations": {split: _whole(broken.loc[split]) for split in SPLITS},
        "near_duplicates": {
            "hash_distance": duplicates.hash_distance,
            "correlation": duplicates.correlation,
            "pairs": {ALL: sum(duplicates.counts.values()), **duplicates.counts},
        },
        "boxes": {ALL: len(boxes), "images": int(boxes["id"].nunique()), "labels": counted(boxes["label"])},
        "labels": {
            split: {
                row.pop("label"): {key: _leaf(value) for key, value in row.items()}
                for row in by_label[by_label["split"] == split].drop(columns="split").to_dict("records")
            }
            for split in SPLITS
        },
        "notes": summary["notes"],
    }


def counted(column: pandas.Series) -> dict[str, int]:
    """How often each word occurs, in alphabetical order; blank ones count as unknown, which comes last."""
    counts = column.replace("", UNKNOWN).value_counts()
    return _whole(counts.loc[sorted(counts.index, key=lambda word: (word == UNKNOWN, word))])


def ages(column: pandas.Series) -> dict[str, float | int | None]:
    """QUARTILES of the known ages in years (None where none is known), and the number of unknown ones."""
    known = column.dropna()
    levels = known.quantile(list(QUARTILES.values()))
    return {
        **{name: _leaf(value) for name, value in zip(QUARTILES, levels, strict=True)},
        UNKNOWN: int(column.isna().sum()),
    }


def _whole(counts: pandas.Series) -> dict[str, int]:
    return {str(key): int(value) for key, value in counts.items()}


def _leaf(value: float) -> float | int | None:
    """A number for JSON: NaN becomes null."""
    return None if pandas.isna(value) else value


# --- The page


def page(content: Mapping[str, Any], broken: pandas.DataFrame, pairs: pandas.DataFrame) -> Document:
    """The data card as a page.

    Args:
        content: what `card` gives. broken: what `violations` gives. pairs: near-duplicates (`NearDuplicates.pairs`).
    """
    blocks = [
        paragraph(
            "Numbers of ",
            code("metrics/data/card.json"),
            ", for reading; the CSV files beside it hold the long tables whole.",
        ),
        Heading("Images and patients"),
        *_images(content),
        Heading("Sex, view and age"),
        paragraph("Images of each sex and view, ages in years."),
        _people(content),
        Heading("Labels"),
        paragraph(
            "States are what the collection's tables say, targets what the label policies made of them. A soft target "
            "lies between 0 and 1, a masked one counts for nothing; prevalence is positives / (positives + negatives)."
        ),
        *_labels(content),
        Heading("Labels of an image"),
        paragraph("Images by their number of positive targets."),
        _labels_per_image(content),
        Heading("Violations of the label tree"),
        *_violations(content, broken),
        Heading("Near-duplicates across splits"),
        *_near_duplicates(content, pairs),
        Heading("Boxes"),
        *_boxes(content),
        Heading("Notes on the collection"),
        _notes(content),
    ]
    return Document(f"Data card: {content['dataset']}", tuple(blocks))


def _images(content: Mapping[str, Any]) -> Iterable[Block]:
    total = content["images"][ALL]
    rows = [
        [name, count(images), documents.share(images / total), count(content["patients"][name])]
        for name, images in content["images"].items()
    ]
    yield documents.table(["split", "images", "share", "patients"], rows)
    size = content["image_size"]
    yield paragraph(f"Prepared at {size} x {size} pixels; {content['unreadable']:,} more images could not be read.")
    if "sixteen_bits" in content:
        yield from _sixteen_bits(content["sixteen_bits"])


def _sixteen_bits(files: Mapping[str, Any]) -> Iterable[Block]:
    yield paragraph(
        f"Files of 16-bit levels were read with decode.sixteen_bits: {files['range']}. How many of the 16 bits their "
        "largest level needs; with `whole` a file that needs 12 keeps 16 gray levels of 256, one that needs 10 keeps 4."
    )
    yield documents.table(["bits", "images"], [[bits, count(images)] for bits, images in files["bits"].items()])


def _people(content: Mapping[str, Any]) -> documents.Table:
    rows = []
    for subject in ("sex", "views"):
        for word in content[subject][ALL]:
            counts = [content[subject][name].get(word, 0) for name in (ALL, *SPLITS)]
            rows.append([f"{subject.removesuffix('s')}: {word}", *map(count, counts)])
    for level in (*QUARTILES, UNKNOWN):
        years = [content["ages"][name][level] for name in (ALL, *SPLITS)]
        rows.append([f"age: {level.replace('_', ' ')}", *(documents.number(each, ",g") for each in years)])
    return documents.table(["", ALL, *SPLITS], rows)


def _labels(content: Mapping[str, Any]) -> Iterable[Block]:
    train = content["labels"]["train"]
    names = sorted(train, key=lambda label: -train[label]["target_positives"])[:SHOWN]
    names = [label for label in train if label in set(names)]
    if len(names) < len(train):
        yield paragraph(
            f"The {len(names)} labels with most positive training images of {len(train):,}; all are in ",
            code("labels.csv"),
            ".",
        )
    keys = [*(f"state_{state}" for state in STATES), *(f"target_{target}" for target in TARGETS)]
    states, targets = [f"state: {state}" for state in STATES], [f"target: {target}" for target in TARGETS]
    for split in SPLITS:
        of_label = content["labels"][split]
        rows = [
            [label, *(count(of_label[label][key]) for key in keys), documents.share(of_label[label]["prevalence"])]
            for label in names
        ]
        yield Heading(split.capitalize(), level=2)
        yield documents.table(["label", *states, *targets, "prevalence"], rows)


def _labels_per_image(content: Mapping[str, Any]) -> documents.Table:
    by_split = [content["labels_per_image"][name] for name in (ALL, *SPLITS)]
    numbers = [key for key in by_split[0] if key != "mean"]
    rows = [[number, *(count(each.get(number, 0)) for each in by_split)] for number in numbers]
    rows.append(["mean", *(documents.number(each["mean"], ".2f") for each in by_split)])
    return documents.table(["labels", ALL, *SPLITS], rows)


def _violations(content: Mapping[str, Any], broken: pandas.DataFrame) -> Iterable[Block]:
    if broken.empty:
        yield paragraph("None: wherever a label is positive, so is every label above it.")
        return
    yield paragraph(
        "Images in which a label is positive and one above it in the tree is not, before and after closure (",
        code("datasets.<name>.labels.closure"),
        " in params.yaml), summed over pairs of labels.",
    )
    counts = [[split, *(count(content["violations"][split][when]) for when in ("before", "after"))] for split in SPLITS]
    yield documents.table(["split", "before", "after"], counts)
    most = broken.sort_values("before", ascending=False, kind="stable").head(SHOWN)
    if len(most) < len(broken):
        yield paragraph(f"The {len(most)} most frequent of {len(broken):,}; all are in ", code("violations.csv"), ".")
    rows = [[row.split, row.child, row.parent, count(row.before), count(row.after)] for row in most.itertuples()]
    yield documents.table(["split", "positive", "not positive", "before", "after"], rows, words=3)


def _near_duplicates(content: Mapping[str, Any], pairs: pandas.DataFrame) -> Iterable[Block]:
    about = content["near_duplicates"]
    yield paragraph(
        "Pairs of images of different splits that show the same picture: their perceptual hashes differ in at most "
        f"{about['hash_distance']} of 64 bits and their thumbnails correlate at least {about['correlation']:g}. "
        "Mirrored, turned, inverted or strongly cropped copies are not found."
    )
    yield documents.table(["splits", "pairs"], [[name, count(number)] for name, number in about["pairs"].items()])
    if not pairs.empty:
        whole = f"the {LISTED:,} most alike" if about["pairs"][ALL] > len(pairs) else "all"
        yield paragraph(f"The most alike ({whole} are in ", code("near_duplicates.csv"), "):")
        rows = [
            [
                *(row.id, row.split, row.other_id, row.other_split),
                Number(int(row.hash_distance), str(row.hash_distance)),
                documents.number(row.correlation, ".4f"),
            ]
            for row in pairs.head(SHOWN).itertuples()
        ]
        yield documents.table(["image", "split", "other image", "split", "bits", "correlation"], rows, words=4)


def _boxes(content: Mapping[str, Any]) -> Iterable[Block]:
    boxes = content["boxes"]
    yield paragraph(f"{boxes[ALL]:,} boxes in {boxes['images']:,} images.")
    if boxes["labels"]:
        yield documents.table(["label", "boxes"], [[label, count(number)] for label, number in boxes["labels"].items()])


def _notes(content: Mapping[str, Any]) -> Block:
    notes = [
        f"{note}: {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}"
        for note, value in content["notes"].items()
    ]
    return Bullets(tuple(notes)) if notes else paragraph("None.")


def sentence(content: Mapping[str, Any]) -> str:
    """One line that says what was described."""
    images, pairs = content["images"], content["near_duplicates"]["pairs"]
    return f"{content['dataset']}: {images[ALL]} images, {pairs[ALL]} near-duplicates across splits"
