"""Reading CheXpert and ChestX-ray14 in their own forms, complaining well, and the manifest of what is outside."""

import csv
import gzip
import hashlib
import itertools
import os
import re
from pathlib import Path

import numpy
import pandas
import pytest
from PIL import Image

from severity import datasets
from severity.arrays import labelsets
from severity.collections import collection, splits
from severity.core import files
from severity.core.errors import SeverityError
from severity.datasets import chexpert, nih14
from severity.decoding import decoding
from severity.tree import trees

SHARED = Path(os.environ.get("SEVERITY_SHARED_DATA", Path(__file__).parents[2] / "shared" / "data"))
COLLECTIONS = ("chexpert", "nih14")


def fails(text):
    """Expect a SeverityError whose message holds `text`."""
    return pytest.raises(SeverityError, match=re.escape(text))


def write_rows(path, header, rows):
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows([header, *rows])


def touch(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"image" * len(path.name))


CHEXPERT_HEADER = [*chexpert.COLUMNS, *chexpert.LABELS]
FRONTAL = "CheXpert-v1.0-small/train/patient00001/study1/view1_frontal.jpg"
LATERAL = "CheXpert-v1.0-small/train/patient00001/study1/view2_lateral.jpg"
SECOND = "CheXpert-v1.0-small/train/patient00002/study3/view1_frontal.jpg"
EXPERT = "CheXpert-v1.0-small/valid/patient64541/study1/view1_frontal.jpg"


def chexpert_rows():
    """Rows of train.csv and valid.csv; the states of the first image's labels go through all four."""
    first = ["1.0", "0.0", "-1.0", ""] + [""] * 10
    return {
        "train.csv": [
            [FRONTAL, "Female", "68", "Frontal", "PA", *first],
            [LATERAL, "Female", "68", "Lateral", "", *first],
            [SECOND, "Unknown", "", "Frontal", "", *["0.0"] * 14],
        ],
        "valid.csv": [[EXPERT, "Male", "73", "Frontal", "AP", *["0.0"] * 13, "1.0"]],
    }


def make_chexpert(root, rows=None, header=None):
    root.mkdir(parents=True, exist_ok=True)
    for name, table in (rows or chexpert_rows()).items():
        write_rows(root / name, header or CHEXPERT_HEADER, table)
        for row in table:
            touch(root / row[0].removeprefix("CheXpert-v1.0-small/"))
    return root


NIH_HEADER = [
    "Image Index",
    "Finding Labels",
    "Follow-up #",
    "Patient ID",
    "Patient Age",
    "Patient Gender",
    "View Position",
]
NIH_ROWS = [
    ["00000001_000.png", "Cardiomegaly|Emphysema", "0", "1", "58", "M", "PA"],
    ["00000001_001.png", "No Finding", "1", "1", "59", "M", "AP"],
    ["00000002_000.png", "Hernia", "0", "2", "81", "F", "PA"],
]


def make_nih(root, rows=NIH_ROWS, header=NIH_HEADER, table="Data_Entry_2017_v2020.csv", folders=("images",)):
    root.mkdir(parents=True, exist_ok=True)
    write_rows(root / table, header, rows)
    for index, row in enumerate(rows):
        touch(root / folders[index % len(folders)] / row[0])
    return root


# CheXpert


def test_chexpert_reads_each_cell_as_written(tmp_path):
    found = chexpert.read(make_chexpert(tmp_path), views=["frontal", "lateral"])
    collection.check(found)
    assert found.labels == chexpert.LABELS and found.boxes.empty
    table = found.table
    assert table["id"].tolist() == [
        "train/patient00001/study1/view1_frontal",
        "train/patient00001/study1/view2_lateral",
        "train/patient00002/study3/view1_frontal",
        "valid/patient64541/study1/view1_frontal",
    ]
    assert all((tmp_path / path).is_file() for path in table["path"])
    assert table["patient"].tolist() == ["patient00001", "patient00001", "patient00002", "patient64541"]
    assert table["sex"].tolist() == ["F", "F", "", "M"]
    assert table["age"].isna().tolist() == [False, False, True, False]
    assert table["view"].tolist() == ["PA", "lateral", "frontal", "AP"]
    assert table["split"].tolist() == ["", "", "", "test"]
    states = table.loc[0, list(chexpert.LABELS)].tolist()
    assert states[:3] == [1.0, 0.0, -1.0] and pandas.isna(states[3:]).all()
    assert table.loc[3, "Support Devices"] == 1.0 and table.loc[3, "No Finding"] == 0.0


@pytest.mark.parametrize(("views", "rows"), [(["frontal"], 3), (["lateral"], 1)])
def test_chexpert_views_select_rows(tmp_path, views, rows):
    assert len(chexpert.read(make_chexpert(tmp_path), views=views).table) == rows


@pytest.mark.parametrize("top", ["CheXpert-v1.0/", "anything/", ""])
def test_chexpert_strips_one_top_folder(tmp_path, top):
    rows = chexpert_rows()
    for table in rows.values():
        for row in table:
            row[0] = row[0].replace("CheXpert-v1.0-small/", top)
    for name, table in rows.items():
        write_rows(tmp_path / name, CHEXPERT_HEADER, table)
    expected = chexpert.read(make_chexpert(tmp_path / "original"), views=["frontal"])
    pandas.testing.assert_frame_equal(chexpert.read(tmp_path, views=["frontal"]).table, expected.table)


def spoil(column, value):
    """Train rows with one cell of the second row replaced."""
    rows = chexpert_rows()
    rows["train.csv"][1][CHEXPERT_HEADER.index(column)] = value
    return rows


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("Edema", "2.0", "train.csv, line 3, column 'Edema': '2.0' is not one of blank, '1.0'"),
        ("Edema", "yes", "train.csv, line 3, column 'Edema': 'yes' is not one of"),
        ("Sex", "female", "train.csv, line 3, column 'Sex': 'female' is not one of 'Female'"),
        ("Age", "old", "train.csv, line 3, column 'Age': 'old' is not a number"),
        ("AP/PA", "AX", "train.csv, line 3, column 'AP/PA': 'AX' is not one of"),
        ("Frontal/Lateral", "", "train.csv, line 3, column 'Frontal/Lateral': '' is not one of"),
        ("Path", "a/b/train/patient1/x.jpg", "train.csv, line 3, column 'Path': 'a/b/train/patient1/x.jpg' is not of"),
        ("Path", "/train/patient1/x.jpg", "train.csv, line 3, column 'Path': '/train/patient1/x.jpg' is not of"),
        (
            "Path",
            "a/train/patient1/../../../x.jpg",
            "train.csv, line 3, column 'Path': 'a/train/patient1/../../../x.jpg'",
        ),
        ("Path", "train/patient1/..\\..\\x.jpg", "train.csv, line 3, column 'Path': 'train/patient1/"),
        (
            "Path",
            FRONTAL,
            "train.csv, column 'Path': lines 2 and 3 both name 'train/patient00001/study1/view1_frontal'",
        ),
        # The same image by another way: another top folder, another suffix.
        ("Path", FRONTAL.replace("-small", ""), "lines 2 and 3 both name 'train/patient00001/study1/view1_frontal'"),
        ("Path", FRONTAL.replace(".jpg", ".png"), "lines 2 and 3 both name 'train/patient00001/study1/view1_frontal'"),
    ],
)
def test_chexpert_names_the_cell_that_is_wrong(tmp_path, column, value, message):
    with fails(message):
        chexpert.read(make_chexpert(tmp_path, spoil(column, value)), views=["frontal"])


def test_chexpert_missing_column_names_the_nearest(tmp_path):
    header = ["Pleural effusion" if name == "Pleural Effusion" else name for name in CHEXPERT_HEADER]
    with fails("train.csv: the column 'Pleural Effusion' is missing. Did you mean 'Pleural effusion'?"):
        chexpert.read(make_chexpert(tmp_path, header=header), views=["frontal"])


def test_chexpert_root_one_folder_too_high(tmp_path):
    make_chexpert(tmp_path / "CheXpert-v1.0-small")
    with fails(f"is {tmp_path}/CheXpert-v1.0-small meant?"):
        chexpert.read(tmp_path, views=["frontal"])


def test_chexpert_missing_image_is_no_secret(tmp_path):
    make_chexpert(tmp_path / "root")
    (tmp_path / "root/train/patient00002/study3/view1_frontal.jpg").unlink()
    with fails("1 of 4 images named by the label tables are not there: train/patient00002/study3/view1_frontal.jpg."):
        chexpert.collect(tmp_path / "root", tmp_path / "out", images=0)
    assert not (tmp_path / "out").exists()


# CheXpert: every oddity of the release in one small collection, and its test set


def save_image(path, mode="L", size=(40, 32)):
    """A picture of noise; its pixels do not matter, its form does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (size[1], size[0], len(Image.new(mode, (1, 1)).getbands()))
    pixels = numpy.random.default_rng(len(path.name)).integers(0, 256, shape, dtype=numpy.uint8)
    Image.fromarray(pixels.squeeze(), mode).save(path)


TOP = "CheXpert-v1.0"
ODD_TRAIN = [
    (f"{TOP}/train/patient00001/study1/view1_frontal.jpg", "Female", "68", "Frontal", "AP", {"Edema": "-1.0"}),
    (f"{TOP}/train/patient00001/study1/view2_lateral.jpg", "Female", "68", "Lateral", "", {"Edema": "-1.0"}),
    (f"{TOP}/train/patient00002/study1/view1_frontal.jpg", "Unknown", "0", "Frontal", "PA", {"No Finding": "1.0"}),
    (f"{TOP}/train/patient00003/study1/view1_frontal.jpg", "Male", "90", "Frontal", "LL", {"Fracture": "0.0"}),
    (f"{TOP}/train/patient00004/study1/view1_frontal.jpg", "Male", "41", "Frontal", "RL", {}),
    (
        f"{TOP}/train/patient0000é/stüdy 2/view1_frontal.jpg",
        "Male",
        "41",
        "Frontal",
        "",
        {"Edema": "1", "Fracture": "1"},
    ),
]
ODD_VALID = [(f"{TOP}/valid/patient64541/study1/view1_frontal.jpg", "Male", "73", "Frontal", "AP", {"Edema": "1.0"})]
TEST_HEADER = ["Path", *reversed(chexpert.LABELS)]  # Columns are found by name.
ODD_TEST = [
    ["test/patient64741/study1/view1_frontal.jpg", *"00000000000110"],
    ["test/patient64741/study1/view2_lateral.jpg", *"00000000000110"],
    ["test/patient64742/study1/view1_frontal.jpg", *"00000000000001"],
]


def odd_chexpert(root, test="test_labels.csv"):
    """A collection in the release's form, as Windows saves its tables, with real pictures."""
    root.mkdir(parents=True, exist_ok=True)
    for name, table in (("train.csv", ODD_TRAIN), ("valid.csv", ODD_VALID)):
        rows = [[*row[:5], *(row[5].get(label, "") for label in chexpert.LABELS)] for row in table]
        text = "\r\n".join(",".join(row) for row in [CHEXPERT_HEADER, *rows]) + "\r\n"
        (root / name).write_bytes(b"\xef\xbb\xbf" + text.encode())
        for row in rows:
            save_image(root / row[0].removeprefix(f"{TOP}/"))
    save_image(root / "train/patient00002/study1/view1_frontal.jpg", mode="RGB", size=(9, 64))
    if test:
        write_rows(root / test, TEST_HEADER, ODD_TEST)
        for row in ODD_TEST:
            save_image(root / row[0])
    return root


def test_chexpert_every_oddity_of_the_release(tmp_path):
    root = odd_chexpert(tmp_path)
    found = chexpert.read(root, views=["frontal", "lateral"])
    collection.check(found)
    table = found.table
    assert table["patient"].tolist()[:6] == [f"patient0000{who}" for who in "11234é"]
    assert table["sex"].tolist() == ["F", "F", "", "M", "M", "M", "M", "", "", ""]
    assert table["age"].fillna(-1).tolist() == [68, 68, -1, 90, 41, 41, 73, -1, -1, -1]
    views = ["AP", "lateral", "PA", "frontal", "frontal", "frontal", "AP", "frontal", "lateral", "frontal"]
    assert table["view"].tolist() == views
    assert table["split"].tolist() == [""] * 6 + ["validation"] + ["test"] * 3
    assert table["Edema"].fillna(9).tolist() == [-1, -1, 9, 9, 9, 1, 1, 0, 0, 0]
    assert table["Fracture"].fillna(9).tolist()[:6] == [9, 9, 9, 0, 9, 1]
    assert table["No Finding"].tolist()[7:] == [0, 0, 1]
    assert table["Enlarged Cardiomediastinum"].tolist()[7:] == [1, 1, 0]
    assert found.notes == {
        "official splits": {"valid.csv": "validation", "test_labels.csv": "test"},
        "ages of 0 or above 120 years, taken as unknown": 1,
        "images of patients of unknown sex": 1,
        "frontal images with LL or RL in AP/PA, taken as frontal": 2,
    }
    for path in table["path"]:
        assert min(decoding.read_gray(root / path).size) >= 9


def test_chexpert_counts_only_what_it_gives(tmp_path):
    found = chexpert.read(odd_chexpert(tmp_path), views=["lateral"])
    assert found.table["id"].tolist() == [
        "train/patient00001/study1/view2_lateral",
        "test/patient64741/study1/view2_lateral",
    ]
    assert found.notes == {"official splits": {"valid.csv": "validation", "test_labels.csv": "test"}}


@pytest.mark.parametrize(
    ("valid", "with_test", "without"),
    [
        ("auto", {"": 6, "validation": 1, "test": 3}, {"": 6, "test": 1}),
        ("validation", {"": 6, "validation": 1, "test": 3}, {"": 6, "validation": 1}),
        ("test", {"": 6, "test": 1}, {"": 6, "test": 1}),
    ],
)
def test_chexpert_what_valid_csv_is(tmp_path, valid, with_test, without):
    for name, expected in (("test_labels.csv", with_test), ("test.csv", with_test), (None, without)):
        found = chexpert.read(odd_chexpert(tmp_path / str(name), name), views=["frontal", "lateral"], valid=valid)
        assert found.table["split"].value_counts().to_dict() == expected
        # No patient of one split is in another, however the rest is divided.
        divided = splits.divide(found.table, validation_fraction=0.3, test_fraction=0.3, seed=0)
        assert found.table.assign(split=divided).groupby("patient")["split"].nunique().max() == 1


def test_chexpert_two_test_tables(tmp_path):
    write_rows(odd_chexpert(tmp_path) / "test.csv", TEST_HEADER, ODD_TEST)
    with fails("has test_labels.csv and test.csv, two tables of one test set: keep one"):
        chexpert.read(tmp_path, views=["frontal"])


def test_chexpert_test_table_may_tell_more(tmp_path):
    """Where it has sex, age and view, they count; the file name does not."""
    odd_chexpert(tmp_path, test=None)
    row = ["test/patient64741/study1/view1_frontal.jpg", "Male", "60", "Lateral", "", *["0"] * 14]
    write_rows(tmp_path / "test.csv", CHEXPERT_HEADER, [row])
    last = chexpert.read(tmp_path, views=["lateral"]).table.iloc[-1]
    assert (last["sex"], last["age"], last["view"], last["split"]) == ("M", 60, "lateral", "test")


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (
            TEST_HEADER,
            ["test/p1/x.jpg", *"0" * 14],
            "test_labels.csv, line 2, column 'Path': 'test/p1/x.jpg' is not of",
        ),
        (
            TEST_HEADER,
            ["test/patient1/x.jpg", *"0" * 14],
            "column 'Path': 'test/patient1/x.jpg' does not state the side",
        ),
        (TEST_HEADER, ["test/patient1/a_frontal.jpg", *"2" * 14], "column 'No Finding': '2' is not one of"),
        (TEST_HEADER[:-1], ["test/patient1/a_frontal.jpg", *"0" * 13], "the column 'No Finding' is missing"),
        (["Study", *TEST_HEADER[1:]], ["test/patient1/study1", *"0" * 14], "the column 'Path' is missing"),
    ],
)
def test_chexpert_test_table_names_what_is_wrong(tmp_path, header, row, message):
    write_rows(odd_chexpert(tmp_path) / "test_labels.csv", header, [row])
    with fails(message):
        chexpert.read(tmp_path, views=["frontal"])


def test_chexpert_collects_the_test_set(tmp_path):
    root = odd_chexpert(tmp_path / "röntgen")
    assert chexpert.collect(root, tmp_path / "out", images=10) == 10
    assert pandas.read_csv(tmp_path / "out/tables.csv")["path"].tolist() == [
        "test_labels.csv",
        "train.csv",
        "valid.csv",
    ]
    with fails("has 10 images, but datasets.chexpert.collect.images in params.yaml says 7"):
        chexpert.collect(root, tmp_path / "out", images=7)
    (root / "test/patient64742/study1/view1_frontal.jpg").unlink()
    with fails("1 of 10 images named by the label tables are not there: test/patient64742/study1/view1_frontal.jpg."):
        chexpert.collect(root, tmp_path / "out", images=10)


def test_chexpert_the_five_labels_of_the_competition(tmp_path):
    """The tree leaves the other nine out; an image with none of the five has no truth, whatever else it shows."""
    odd_chexpert(tmp_path)
    found = chexpert.read(tmp_path, views=["frontal", "lateral"])
    tree = trees.read(Path(__file__).parents[1] / "data/hierarchies/chexpert_competition.yaml", found.labels)
    assert sorted(tree.classes) == ["Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Pleural Effusion"]
    shares = pandas.DataFrame(labelsets.shares(found.table[list(tree.classes)].to_numpy() == 1, tree))
    told = shares.set_axis(tree.classes, axis=1).apply(lambda row: row.index[row > 0].tolist(), axis=1)
    assert told.tolist() == [[]] * 5 + [["Edema"]] * 2 + [["Cardiomegaly"]] * 2 + [[]]


# ChestX-ray14


def test_nih_reads_each_cell_as_written(tmp_path):
    found = nih14.read(make_nih(tmp_path), views=["PA", "AP"])
    collection.check(found)
    assert found.labels == nih14.LABELS and found.boxes.empty and found.notes == {}
    table = found.table
    assert table["id"].tolist() == ["00000001_000", "00000001_001", "00000002_000"]
    assert table["patient"].tolist() == ["1", "1", "2"]
    assert table["sex"].tolist() == ["M", "M", "F"]
    assert table["age"].tolist() == [58, 59, 81]
    assert table["view"].tolist() == ["PA", "AP", "PA"]
    assert table["split"].tolist() == ["", "", ""]
    named = [{label for label in nih14.LABELS if row[label] == 1} for _, row in table.iterrows()]
    assert named == [{"Cardiomegaly", "Emphysema"}, {"No Finding"}, {"Hernia"}]
    assert (table[list(nih14.LABELS)].isin([0.0, 1.0])).all(axis=None)
    assert nih14.read(tmp_path, views=["AP"]).table["id"].tolist() == ["00000001_001"]


@pytest.mark.parametrize(
    "folders", [("images",), ("",), ("images_001/images", "images_002/images", "images_012/images")]
)
def test_nih_finds_images_in_each_layout(tmp_path, folders):
    table = nih14.read(make_nih(tmp_path, folders=folders), views=["PA", "AP"]).table
    assert len(table) == 3 and all((tmp_path / path).is_file() for path in table["path"])


@pytest.mark.parametrize("name", nih14.TABLES)
def test_nih_finds_each_table_plain_or_packed(tmp_path, name):
    make_nih(tmp_path, table=name)
    plain = nih14.read(tmp_path, views=["PA", "AP"]).table
    packed = gzip.compress((tmp_path / name).read_bytes())
    (tmp_path / name).unlink()
    (tmp_path / f"{name}.gz").write_bytes(packed)
    pandas.testing.assert_frame_equal(nih14.read(tmp_path, views=["PA", "AP"]).table, plain)


def test_nih_first_release_form(tmp_path):
    """Ages with units, a bracketed column name that holds a comma, a comma at the end of each line."""
    (tmp_path / "Data_Entry_2017.csv").write_text(
        "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Sex,View Position,"
        "OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y],\n"
        "00000001_000.png,Mass,0,1,058Y,M,PA,2682,2749,0.143,0.143,\n"
        "00000003_000.png,Mass,0,3,006M,F,AP,2682,2749,0.143,0.143,\n",
        encoding="utf-8",
    )
    touch(tmp_path / "images/00000001_000.png")
    touch(tmp_path / "images/00000003_000.png")
    table = nih14.read(tmp_path, views=["PA", "AP"]).table
    assert table["age"].tolist() == [58.0, 0.5] and table["sex"].tolist() == ["M", "F"]
    assert table["view"].tolist() == ["PA", "AP"]


def test_nih_official_lists_give_the_test_split(tmp_path):
    make_nih(tmp_path)
    (tmp_path / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
    (tmp_path / "test_list.txt").write_text("00000002_000.png\n00009999_000.png\n")
    found = nih14.read(tmp_path, views=["PA", "AP"])
    assert found.table["split"].tolist() == ["", "", "test"]
    assert found.notes == {"official splits": {"test_list.txt": "test"}}


def test_nih_lists_of_another_editor(tmp_path):
    """A byte-order mark, Windows line ends, no line end at the end."""
    make_nih(tmp_path)
    (tmp_path / "train_val_list.txt").write_bytes(b"\xef\xbb\xbf00000001_000.png\r\n00000001_001.png\r\n")
    (tmp_path / "test_list.txt").write_bytes(b"\xef\xbb\xbf00000002_000.png")
    assert nih14.read(tmp_path, views=["PA", "AP"]).table["split"].tolist() == ["", "", "test"]
    (tmp_path / "test_list.txt").write_bytes(b"\xff\xfe00")
    with fails("test_list.txt is not text in UTF-8"):
        nih14.read(tmp_path, views=["PA", "AP"])


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ("00000001_000.png", None, "has train_val_list.txt but not test_list.txt"),
        ("00000001_000.png", "00000002_000.png", "1 images of the label table are in neither of"),
        (
            "00000001_000.png 00000001_001.png 00000002_000.png",
            "00000002_000.png",
            "1 images of the label table are in both",
        ),
    ],
)
def test_nih_lists_that_do_not_fit(tmp_path, train, test, message):
    make_nih(tmp_path)
    for name, text in (("train_val_list.txt", train), ("test_list.txt", test)):
        if text:
            (tmp_path / name).write_text(text.replace(" ", "\n"))
    with fails(message):
        nih14.read(tmp_path, views=["PA", "AP"])


def test_nih_rows_without_image_are_left_out_and_told(tmp_path, capsys):
    make_nih(tmp_path)
    (tmp_path / "images/00000001_001.png").unlink()
    found = nih14.read(tmp_path, views=["PA", "AP"])
    assert found.table["id"].tolist() == ["00000001_000", "00000002_000"]
    assert found.notes == {"rows of Data_Entry_2017_v2020.csv without an image, left out": 1}
    assert "1 of 3 rows of Data_Entry_2017_v2020.csv have no image there and are left out." in capsys.readouterr().err
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    with fails("none of the 3 images named by Data_Entry_2017_v2020.csv is there. They were looked for in"):
        nih14.read(tmp_path, views=["PA", "AP"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            ["x.png", "Effusions", "0", "3", "9", "M", "PA"],
            "line 5, column 'Finding Labels': 'Effusions' is not a finding",
        ),
        (["x.png", "Effusions", "0", "3", "9", "M", "PA"], "Did you mean 'Effusion'?"),
        (["x.png", "", "0", "3", "9", "M", "PA"], "line 5, column 'Finding Labels': '' is not a finding"),
        (
            ["x.png", "No Finding|Mass", "0", "3", "9", "M", "PA"],
            "'No Finding|Mass' says both 'No Finding' and a finding",
        ),
        (["x.png", "Mass", "0", "3", "9", "X", "PA"], "line 5, column 'Patient Gender': 'X' is not one of"),
        (["x.png", "Mass", "0", "3", "nine", "M", "PA"], "line 5, column 'Patient Age': 'nine' is not a number"),
        (["x.png", "Mass", "0", "3", "9", "M", "LL"], "line 5, column 'View Position': 'LL' is not one of 'PA', 'AP'"),
        (["00000002_000.png", "Mass", "0", "2", "9", "M", "PA"], "lines 4 and 5 both name '00000002_000.png'"),
        (
            ["../../x.png", "Mass", "0", "2", "9", "M", "PA"],
            "line 5, column 'Image Index': '../../x.png' is not a file name",
        ),
        (["a\\x.png", "Mass", "0", "2", "9", "M", "PA"], "line 5, column 'Image Index': 'a"),
        (["", "Mass", "0", "2", "9", "M", "PA"], "line 5, column 'Image Index': '' is not a file name"),
    ],
)
def test_nih_names_the_cell_that_is_wrong(tmp_path, row, message):
    make_nih(tmp_path)
    write_rows(tmp_path / "Data_Entry_2017_v2020.csv", NIH_HEADER, [*NIH_ROWS, row])
    with fails(message):
        nih14.read(tmp_path, views=["PA", "AP"])


def test_nih_missing_parts(tmp_path):
    with fails("has no label table. Looked for Data_Entry_2017_v2020.csv, Data_Entry_2017.csv, labels.csv"):
        nih14.read(tmp_path, views=["PA"])
    make_nih(tmp_path, header=["Patient id" if name == "Patient ID" else name for name in NIH_HEADER])
    with fails("the column 'Patient ID' is missing. Did you mean 'Patient id'?"):
        nih14.read(tmp_path, views=["PA"])
    make_nih(tmp_path, header=["Gender" if name == "Patient Gender" else name for name in NIH_HEADER])
    with fails("the column 'Patient Sex' or 'Patient Gender' is missing"):
        nih14.read(tmp_path, views=["PA"])
    make_nih(tmp_path, folders=("images_001/images",))
    with fails("00000001_000.png is duplicated: images/00000001_000.png and images_001/images/00000001_000.png"):
        nih14.read(tmp_path, views=["PA"])


# ChestX-ray14: oddities and boxes


def test_nih_pictures_of_any_form(tmp_path):
    """The release holds gray pictures and some with colour and transparency; copies come in other sizes."""
    make_nih(tmp_path)
    for row, mode, size in zip(NIH_ROWS, ("L", "RGBA", "RGB"), ((64, 64), (64, 64), (30, 17)), strict=True):
        save_image(tmp_path / "images" / row[0], mode, size)
    table = nih14.read(tmp_path, views=["PA", "AP"]).table
    assert [decoding.read_gray(tmp_path / path).size for path in table["path"]] == [(64, 64), (64, 64), (30, 17)]


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("058Y", 58.0),
        ("011M", 11 / 12),
        ("003D", 3 / 365.25),
        ("0", 0.0),
        ("95", 95.0),
        ("120", 120.0),
        ("148", None),
        ("155", None),
        ("411", None),
        ("414Y", None),
        ("-1", None),
        ("", None),
    ],
)
def test_nih_ages(tmp_path, text, age):
    """Ages that nobody has, as the first release's table holds some, are unknown and counted; a blank is no mistake."""
    rows = [[*row[:4], text if row[0] == "00000002_000.png" else row[4], *row[5:]] for row in NIH_ROWS]
    found = nih14.read(make_nih(tmp_path, rows), views=["PA"])
    given = found.table["age"].iloc[-1]
    assert numpy.isnan(given) if age is None else given == pytest.approx(age)
    mistyped = age is None and text != ""
    assert found.notes == ({"ages outside 0 to 120 years, taken as unknown": 1} if mistyped else {})
    assert nih14.read(tmp_path, views=["AP"]).notes == {}


def test_nih_states_are_what_the_text_names(tmp_path):
    """Against a computation row by row, over random sets of findings in random order."""
    rng = numpy.random.default_rng(0)
    rows = []
    for index in range(200):
        findings = rng.permutation(nih14.LABELS[1:])[: rng.integers(0, 5)]
        rows.append([f"{index:08d}_000.png", "|".join(findings) or "No Finding", "0", str(index), "40", "F", "PA"])
    table = nih14.read(make_nih(tmp_path, rows), views=["PA"]).table
    for row, (_, states) in zip(rows, table.iterrows(), strict=True):
        assert {label: states[label] for label in nih14.LABELS} == {
            label: float(label in row[1].split("|")) for label in nih14.LABELS
        }


BOX_HEADER = "Image Index,Finding Label,Bbox [x,y,w,h],,,"  # as released: one name with commas, three without a name
BOX_LINES = [
    "00000001_000.png,Cardiomegaly,256,512,512,256",
    "00000001_000.png,Infiltrate,0,0,1024,1024",
    "00000001_001.png,Nodule,100.5,200.25,10.75,20",
]


def write_boxes(root, lines, header=BOX_HEADER):
    (root / "BBox_List_2017.csv").write_text("\n".join([header, *lines]) + "\n")


def test_nih_boxes_are_shares_of_the_image(tmp_path):
    write_boxes(make_nih(tmp_path), BOX_LINES)
    found = nih14.read(tmp_path, views=["PA", "AP"])
    collection.check(found)
    assert found.boxes.values.tolist() == [
        ["00000001_000", "Cardiomegaly", 0.25, 0.5, 0.75, 0.75],
        ["00000001_000", "Infiltration", 0.0, 0.0, 1.0, 1.0],
        ["00000001_001", "Nodule", 100.5 / 1024, 200.25 / 1024, 111.25 / 1024, 220.25 / 1024],
    ]
    assert found.notes == {}
    packed = gzip.compress((tmp_path / "BBox_List_2017.csv").read_bytes())
    (tmp_path / "BBox_List_2017.csv").unlink()
    (tmp_path / "BBox_List_2017.csv.gz").write_bytes(packed)
    pandas.testing.assert_frame_equal(nih14.read(tmp_path, views=["PA", "AP"]).boxes, found.boxes)


def test_nih_boxes_of_images_that_are_not_given_are_left_out(tmp_path, capsys):
    write_boxes(make_nih(tmp_path), [*BOX_LINES, "00099999_000.png,Mass,1,1,1,1"])
    found = nih14.read(tmp_path, views=["AP"])
    assert found.boxes["label"].tolist() == ["Nodule"]
    assert found.notes == {"bounding boxes of images that are not here, left out": 3}
    (tmp_path / "images/00000001_000.png").unlink()
    found = nih14.read(tmp_path, views=["PA", "AP"])
    assert found.boxes["id"].tolist() == ["00000001_001"]
    assert found.notes["bounding boxes of images that are not here, left out"] == 3
    assert "left out" in capsys.readouterr().err


def test_nih_boxes_are_cut_off_at_the_edge(tmp_path):
    lines = ["00000001_000.png,Mass,-10,-10,266,522", "00000001_001.png,Mass,768,1000,512,25", BOX_LINES[0]]
    write_boxes(make_nih(tmp_path), lines)
    found = nih14.read(tmp_path, views=["PA", "AP"])
    collection.check(found)
    edges = found.boxes[["left", "top", "right", "bottom"]].values.tolist()
    assert edges[:2] == [[0, 0, 0.25, 0.5], [0.75, 1000 / 1024, 1, 1]]
    assert found.notes == {"bounding boxes cut off at the edge of their image": 2}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("00000001_000.png,Infiltrates,1,1,1,1", "line 5, column 'Finding Label': 'Infiltrates' is not a finding"),
        ("00000001_000.png,No Finding,1,1,1,1", "line 5, column 'Finding Label': 'No Finding' is not a finding"),
        ("00000001_000.png,Mass,1,1,0,1", "line 5, column 'Bbox [x,y,w,h]': '1,1,0,1' is not a box"),
        (
            "00000001_000.png,Mass,1,1,1,-4",
            "'1,1,1,-4' is not a box within an image of 1024 x 1024 pixels (1 such rows).",
        ),
        ("00000001_000.png,Mass,1024,1,9,9", "'1024,1,9,9' is not a box"),
        ("00000001_000.png,Mass,1,1,inf,9", "'1,1,inf,9' is not a box"),
        ("00000001_000.png,Mass,1,1,,9", "'1,1,,9' is not a box"),
        ("00000001_000.png,Mass,1,one,9,9", "line 5, column 'y': 'one' is not a number"),
        ("00099999_000.png,Mass,1,1,-1,9", "'1,1,-1,9' is not a box"),
    ],
)
def test_nih_a_box_that_is_none(tmp_path, line, message):
    write_boxes(make_nih(tmp_path), [*BOX_LINES, line])
    with fails(message):
        nih14.read(tmp_path, views=["PA", "AP"])


def test_nih_a_box_file_of_another_form(tmp_path):
    write_boxes(make_nih(tmp_path), BOX_LINES, header="Image Index,Finding Label,x,y,w,h")
    with fails("BBox_List_2017.csv: the column 'Bbox [x' is missing"):
        nih14.read(tmp_path, views=["PA", "AP"])


def test_nih_collects_lists_and_boxes(tmp_path):
    root = make_nih(tmp_path / "röntgen", folders=("images_001/images", "images_012/images"))
    write_boxes(root, BOX_LINES)
    (root / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
    (root / "test_list.txt").write_text("00000002_000.png\n")
    assert nih14.collect(root, tmp_path / "out", images=3) == 3
    before = pandas.read_csv(tmp_path / "out/tables.csv").set_index("path")["sha256"]
    assert before.index.tolist() == [
        "BBox_List_2017.csv",
        "Data_Entry_2017_v2020.csv",
        "test_list.txt",
        "train_val_list.txt",
    ]
    write_boxes(root, BOX_LINES[:1])
    nih14.collect(root, tmp_path / "out", images=3)
    after = pandas.read_csv(tmp_path / "out/tables.csv").set_index("path")["sha256"]
    assert before.index[before != after].tolist() == ["BBox_List_2017.csv"]


# Both, and what they share


@pytest.mark.parametrize("name", COLLECTIONS)
def test_collect_writes_sizes_and_hashes(tmp_path, name):
    root = {"chexpert": make_chexpert, "nih14": make_nih}[name](tmp_path / "root")
    (root / "notes.txt").write_text("not part of the collection")
    assert datasets.find(name).collect(root, tmp_path / "out", images=0) == len(
        pandas.read_csv(tmp_path / "out/manifest.csv")
    )
    listed = pandas.read_csv(tmp_path / "out/manifest.csv")
    assert listed["path"].is_monotonic_increasing and listed["path"].is_unique
    for path, size in zip(listed["path"], listed["bytes"], strict=True):
        assert os.path.getsize(root / path) == size
    hashed = pandas.read_csv(tmp_path / "out/tables.csv")
    assert set(hashed["path"]) == {path.name for path in root.glob("*.csv")}
    for path, sha256 in zip(hashed["path"], hashed["sha256"], strict=True):
        assert hashlib.sha256((root / path).read_bytes()).hexdigest() == sha256
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    datasets.find(name).collect(root, tmp_path / "out", images=len(listed))
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    (root / listed["path"][0]).write_bytes(b"changed")
    datasets.find(name).collect(root, tmp_path / "out", images=0)
    assert before["manifest.csv"] != (tmp_path / "out/manifest.csv").read_bytes()
    assert before["tables.csv"] == (tmp_path / "out/tables.csv").read_bytes()


@pytest.mark.parametrize("name", COLLECTIONS)
def test_collect_says_where_root_is_set_and_where_to_get_it(tmp_path, name):
    module = datasets.find(name)
    with fails(f"There is no folder {tmp_path}/absent. Set datasets.{name}.root in params.yaml"):
        module.collect(tmp_path / "absent", tmp_path / "out", images=0)
    with fails(module.LINK):
        module.collect(tmp_path / "absent", tmp_path / "out", images=0)


@pytest.mark.parametrize(("name", "found"), [("chexpert", 4), ("nih14", 3)])
def test_collect_counts(tmp_path, name, found):
    root = {"chexpert": make_chexpert, "nih14": make_nih}[name](tmp_path / "root")
    with fails(f"has {found} images, but datasets.{name}.collect.images in params.yaml says 112120"):
        datasets.find(name).collect(root, tmp_path / "out", images=112120)


def test_find_names_the_nearest_data_set():
    assert datasets.find("chexpert") is chexpert
    with fails("there is no severity/datasets/chexprt.py. Did you mean 'chexpert'?"):
        datasets.find("chexprt")


@pytest.mark.parametrize("name", COLLECTIONS)
def test_labels_do_not_repeat(name):
    labels = datasets.find(name).LABELS
    assert len(set(labels)) == len(labels) == {"chexpert": 14, "nih14": 15}[name]


def test_sha256_of_a_file_longer_than_a_block(tmp_path):
    content = os.urandom((1 << 20) + 17)
    (tmp_path / "file").write_bytes(content)
    assert files.sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


# Real images and labels


@pytest.mark.parametrize(
    ("folder", "images", "patients"),
    [("nih_cxr14_256", 1287, 972), ("nih_cxr14_64", 970, 260), ("nih_cxr14_1024", 7, None)],
)
def test_real_parts_of_chest_xray14(folder, images, patients):
    """Counts as their SOURCE.md tells; the states agree with the 0/1 columns that came with the pick."""
    root = SHARED / folder
    if not root.is_dir():
        pytest.skip(f"no {root}; name the folder of shared data in SEVERITY_SHARED_DATA")
    found = nih14.read(root, views=["PA", "AP"])
    collection.check(found)
    table = found.table
    assert len(table) == images
    assert patients is None or table["patient"].nunique() == patients
    given = pandas.read_csv(root / "labels.csv", dtype={"Image Index": str})
    assert table["path"].tolist() == [f"images/{name}" for name in given["Image Index"]]
    findings = [label for label in nih14.LABELS if label != "No Finding"]
    assert (table[findings].to_numpy() == given[findings].to_numpy()).all()
    assert (table["No Finding"] == (given[findings].sum(axis=1) == 0)).all()
    if folder == "nih_cxr14_256":
        assert table["No Finding"].sum() == 494 + 50


@pytest.fixture
def whole_labels(tmp_path):
    """A root with the whole label table and the boxes, and an empty file for each image that has a box."""
    source = SHARED / "nih_labels"
    if not source.is_dir():
        pytest.skip(f"no {source}; name the folder of shared data in SEVERITY_SHARED_DATA")
    for path in source.glob("*.csv.gz"):
        (tmp_path / path.name).symlink_to(path)
    (tmp_path / "images").mkdir()
    with gzip.open(source / "BBox_List_2017.csv.gz", "rt") as lines:
        for row in itertools.islice(csv.reader(lines), 1, None):
            (tmp_path / "images" / row[0]).touch()
    return tmp_path


def test_the_whole_label_table_of_chest_xray14(whole_labels, capsys):
    """112,120 rows hold nothing that `read` does not know; states and boxes as a reader without pandas finds them."""
    found = nih14.read(whole_labels, views=["PA", "AP"])
    collection.check(found)
    assert len(found.table) == 880
    assert found.notes == {"rows of Data_Entry_2017_v2020.csv.gz without an image, left out": 112120 - 880}
    assert "111240 of 112120 rows" in capsys.readouterr().err
    with gzip.open(whole_labels / "Data_Entry_2017_v2020.csv.gz", "rt") as lines:
        named = {row["Image Index"]: set(row["Finding Labels"].split("|")) for row in csv.DictReader(lines)}
    for _, row in found.table.iterrows():
        assert {label for label in nih14.LABELS if row[label] == 1} == named[Path(row["path"]).name]
    with gzip.open(whole_labels / "BBox_List_2017.csv.gz", "rt") as lines:
        given = list(csv.reader(lines))[1:]
    assert len(found.boxes) == len(given) == 984
    corners = numpy.array([row[2:6] for row in given], dtype=float)
    corners[:, 2:] += corners[:, :2]
    numpy.testing.assert_allclose(found.boxes[["left", "top", "right", "bottom"]] * 1024, corners, rtol=0, atol=1e-9)
    assert found.boxes["id"].tolist() == [row[0].removesuffix(".png") for row in given]
    assert (found.boxes["label"] == "Infiltration").sum() == sum(row[1] == "Infiltrate" for row in given) == 123
    states = found.table.set_index("id")
    assert all(states.at[box.id, box.label] == 1 for box in found.boxes.itertuples())


def test_ages_of_the_whole_label_table_are_those_of_people(whole_labels, capsys):
    """The table of 2020 has no mistyped age; a unit is nowhere, and infants are 0."""
    ages = nih14.read(whole_labels, views=["PA", "AP"]).table["age"]
    assert ages.notna().all() and ages.between(0, 95).all()
    assert "left out" in capsys.readouterr().err
