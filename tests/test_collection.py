"""The form in which every collection comes."""

import re

import pandas
import pytest

from severity.collections import collection
from severity.collections.collection import BOX, Collection
from severity.core.errors import SeverityError

LABELS = ("Healthy", "Edema")
NAN = float("nan")


def fails(text):
    """Expect a SeverityError whose message holds `text`."""
    return pytest.raises(SeverityError, match=re.escape(text))


def table():
    rows = [
        ["a/1", "a/1.png", "NA", "F", 50.0, "PA", "", 1.0, 0.0],
        ["a/2", "a/ü 2.png", "p", "", NAN, "", "test", -1.0, NAN],
        ["b", "stack.npy#7", "q", "M", 0.5, "AP", "train", 0.0, 1.0],
    ]
    return pandas.DataFrame(rows, columns=["id", "path", "patient", "sex", "age", "view", "split", *LABELS])


def boxes(*rows):
    return pandas.DataFrame(rows or [["b", "Edema", 0.1, 0.2, 0.3, 1.0]], columns=list(BOX))


def test_a_collection_comes_back_as_it_went_in(tmp_path):
    given = Collection(table(), LABELS, boxes(), {"ages left out": 2}, {"irma": {"x": [1, "2"]}})
    collection.check(given)
    given.write(tmp_path / "out")
    found = Collection.read(tmp_path / "out")
    columns = [*found.table.columns]
    pandas.testing.assert_frame_equal(found.table, given.table[columns])
    pandas.testing.assert_frame_equal(found.boxes, given.boxes)
    assert (found.labels, found.notes, found.facts) == (given.labels, given.notes, given.facts)
    pandas.testing.assert_frame_equal(collection.read_images(tmp_path / "out"), given.table[["id", "path"]])
    Collection(table(), LABELS).write(tmp_path / "out")
    assert Collection.read(tmp_path / "out").boxes.empty


def test_a_folder_that_is_not_whole_is_refused(tmp_path):
    with fails("collection.json is missing"):
        Collection.read(tmp_path / "out")
    Collection(table(), LABELS).write(tmp_path / "out")
    images = (tmp_path / "out/images.csv").read_text()
    (tmp_path / "out/images.csv").write_text(images.replace("a/1,", "a/3,"))
    with fails("table.csv and images.csv disagree. Remove the folder and run `dvc repro read`."):
        Collection.read(tmp_path / "out")
    (tmp_path / "out/images.csv").unlink()
    with fails("images.csv is missing. Remove the folder and run `dvc repro read`."):
        Collection.read(tmp_path / "out")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.assign(id="same"), "2 images repeat the id of another: same"),
        (lambda raw: raw.assign(patient=""), "3 images have no patient: rows 0, 1, 2"),
        (lambda raw: raw.drop(columns="Edema"), "returns no column 'Edema'"),
        (lambda raw: raw.iloc[:0], "No image is left to prepare. Widen `views`"),
        (lambda raw: raw.assign(Edema=2.0), "`read` returns 2.0 in column 'Edema'; it may hold 1.0, 0.0, -1.0."),
        (
            lambda raw: raw.assign(split="dev"),
            "`read` returns dev in column 'split'; it may hold blank, train, validation, test.",
        ),
        (lambda raw: raw.assign(path=["a.png", "../b.png", "c.png"]), "the path '../b.png' is absolute or leads out"),
        (lambda raw: raw.assign(path=["a.png", "/etc/b.png", "../c"]), "'/etc/b.png' is absolute or leads out of the"),
        (lambda raw: raw.assign(path="x/../../b.png"), "(3 such paths). Give paths relative to the root, without '..'"),
        (lambda raw: raw.assign(path="C:\\b.png"), "is absolute or leads out"),
        (lambda raw: raw.assign(path="x\\..\\..\\b.png"), "is absolute or leads out"),
    ],
)
def test_another_form_is_refused(change, message):
    with fails(message):
        collection.check(Collection(change(table()), LABELS))


@pytest.mark.parametrize("path", ["..a/b.png", "a..b/c..png", "a/.../b.png", "ä/ö.png"])
def test_dots_and_letters_in_names_are_fine(path):
    collection.check_paths([path], "x")


def test_one_label_is_no_choice():
    with fails("there must be at least two"):
        collection.check(Collection(table(), LABELS[:1]))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (["b", "Odema", 0.1, 0.2, 0.3, 1.0], "a box of 'Odema'. Did you mean 'Edema'?"),
        (["b", "Edema", 0.1, 0.2, 0.3, 1.1], "1 boxes that do not lie inside their image, the first of image 'b'"),
        (["b", "Edema", 0.3, 0.2, 0.3, 1.0], "do not lie inside"),
        (["b", "Edema", NAN, 0.2, 0.3, 1.0], "do not lie inside"),
    ],
)
def test_boxes_lie_inside_their_image(row, message):
    with fails(message):
        collection.check(Collection(table(), LABELS, boxes(row)))
