"""Every door against bad input of every kind: a named error within seconds, nothing run, nothing taken silently."""

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy
import pytest

from severity.collections import collection, external_files
from severity.core import archives, documents, params, tables
from severity.core.errors import SeverityError, told
from severity.core.hierarchy import Hierarchy
from severity.datasets import own
from severity.irma.facts import IrmaFacts
from severity.metrics import record
from severity.predictions.predictions import Predictions
from severity.prepared import decoded, prepared
from severity.tree import costs, trees
from tests import hostile
from tests.checks import every
from tests.trees import six_classes

LIMIT = 20  # seconds before a hang is called one; everything here takes a fraction of a second
TREE = six_classes()

# Door -> the name of its file, how it is read, and the contents that only it must refuse.
DOORS: dict[str, tuple[str, Callable[[Path], object], dict[str, hostile.Made]]] = {
    "params.yaml": ("params.yaml", params.load, hostile.YAML),
    "label tree": ("tree.yaml", lambda path: trees.read(path, ["a", "b"]), hostile.YAML),
    "table": ("labels.csv", lambda path: tables.read_text(path, ["id", "path"]), hostile.CSV),
    "packed table": ("labels.csv.gz", lambda path: tables.read_text(path, ["id", "path"]), hostile.PACKED),
    "own images": (
        "labels.csv",
        lambda path: own.read(path.parent, table="labels.csv", columns={}, ignore=[], views=[]),
        hostile.CSV,
    ),
    "costs": ("costs.csv", lambda path: costs.read(path, ["a", "b"]), hostile.CSV),
    "external predictions": ("a-b-0.csv", external_files.read, hostile.CSV),
    "packed external predictions": ("a-b-0.csv.gz", external_files.read, hostile.PACKED),
    "external arrays": ("a-b-0.npz", external_files.read, hostile.NPZ),
    "predictions": ("a-b-0.npz", lambda path: Predictions.read(path, TREE), hostile.NPZ),
    "images": ("images.npy", archives.read_npy, hostile.NPY),
    "mapped images": ("images.npy", lambda path: archives.read_npy(path, mapped=True), hostile.NPY),
    "hierarchy.json": ("hierarchy.json", Hierarchy.read, hostile.JSON),
    "page.json": ("page.json", documents.read, hostile.JSON),
    "record of a run": ("a-b-0.json", record.read, hostile.JSON),
    "irma.json": ("irma.json", IrmaFacts.read, hostile.JSON),
    "summary of images": ("summary.json", lambda path: decoded.read_summary(path.parent), hostile.JSON),
    "summary of the table": ("summary.json", lambda path: prepared.read_summary(path.parent), hostile.JSON),
    "collection.json": ("collection.json", lambda path: collection.Collection.read(path.parent), hostile.JSON),
}
# What is right, or none of this reader's business, at a door.
RIGHT = {
    ("images", "link to nowhere"), ("mapped images", "link to nowhere"),  # FileNotFoundError, told by who asks for them
    ("summary of images", "keys that hold nothing"),  # What disagrees with it is refused when the images are opened.
}  # fmt: skip


@contextmanager
def soon() -> Iterator[None]:
    """Raise TimeoutError in the block after LIMIT seconds, so that a hang is a failure and not the end of all tests."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"longer than {LIMIT} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(LIMIT)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("door", DOORS)
def test_whatever_comes_ends_in_a_named_error_soon(door, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name, read, own_kinds = DOORS[door]
    kinds = {**hostile.EVERYWHERE, **own_kinds}
    wrong = {}
    for number, (kind, made) in enumerate(kinds.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        hostile.put(folder / name, made)
        problem = fault(read, folder / name)
        if problem and (door, kind) not in RIGHT:
            wrong[kind] = problem
    assert wrong == {} and len(kinds) >= 50
    assert not (tmp_path / "trapped").exists()


def fault(read: Callable[[Path], object], path: Path) -> str:
    """What is wrong with how bad input is met; blank if nothing is."""
    try:
        with soon():
            taken = read(path)
    except SeverityError as error:
        message = str(error)
        return "" if path.name in message and len(message) < 2000 else f"the message is {message[:300]}"
    except Exception as error:
        return f"{type(error).__name__}: {error}"[:300]
    return f"taken as {taken!r}"[:300]


@pytest.mark.parametrize("kind", hostile.ARRAYS)
def test_arrays_of_external_predictions_of_a_wrong_kind_are_named(kind, tmp_path):
    arrays = {"id": numpy.array(["a", "b", "c"]), "classes": numpy.array(["x", "y"]), "prob": numpy.full((3, 2), 0.5)}
    numpy.savez(tmp_path / "a-b-0.npz", **arrays)
    assert len(external_files.read(tmp_path / "a-b-0.npz").ids) == 3
    numpy.savez(tmp_path / "a-b-0.npz", **arrays | hostile.ARRAYS[kind])
    assert fault(external_files.read, tmp_path / "a-b-0.npz") == ""


NAMES = {
    "longer than the system allows": "x" * 300,
    "a path longer than the system allows": "/".join(["folder"] * 1000),
    "not UTF-8": os.fsdecode(b"caf\xe9"),
    "a line end": "a\nb",
    "escapes of a terminal": "\x1b[2Ja",
    "a zero byte": "a\x00b",
    "right to left": "\u202egnp",
    "up and away": "../../../nowhere",
    "blank": " ",
    "quotes and braces": "'{path}' %s \"",
}


@pytest.mark.parametrize("name", NAMES)
def test_names_of_files_that_cannot_be_shown_or_opened(name, tmp_path):
    """The message is one that any terminal shows, whether the file is missing, wrong or cannot be named at all."""
    for read, suffix in (
        (params.load, ".yaml"),
        (lambda path: trees.read(path, None), ".yaml"),
        (lambda path: tables.read_text(path, ["id"]), ".csv"),
        (lambda path: costs.read(path, ["a", "b"]), ".csv"),
        (external_files.read, ".csv"),
        (external_files.read, ".npz"),
        (Hierarchy.read, ".json"),
        (lambda path: Predictions.read(path, TREE), ".npz"),
    ):
        path = tmp_path / f"{NAMES[name]}{suffix}"
        for content in (None, b"\x00"):
            if content is not None and name != "up and away":
                try:
                    path.write_bytes(content)
                except (OSError, ValueError):  # No such file can be made.
                    continue
            with soon(), pytest.raises(SeverityError) as raised:
                read(path)
            message = told(raised.value)
            assert len(message) < 1500
            assert every(each.isprintable() or each == "\n" for each in message), (read, message)


@pytest.mark.parametrize(("levels", "said"), [(3, None), (450, None), (700, "more than 1000 levels"), (5000, "bytes")])
def test_a_chain_of_nodes_is_read_or_its_limit_is_named(levels, said, tmp_path):
    path = tmp_path / "chain.yaml"
    lines = ["source: made up", "tree:"]
    for level in range(levels):
        end = " " * level
        lines += [
            f"{end} node: n{level}",
            f"{end} children:",
            f"{end} - {{node: l{level}, label: L{level}}}",
            f"{end} -",
        ]
    path.write_text("\n".join([*lines, f"{' ' * levels} {{node: end, label: End}}", ""]), encoding="utf-8")
    if said is None:
        tree = trees.read(path, None)
        assert tree.depth.max() == levels and len(tree.classes) == levels + 1
        return
    with soon(), pytest.raises(SeverityError, match=said):
        trees.read(path, None)
