"""Reading CheXpert and ChestX-ray14 in their own forms, complaining well, and the manifest of what is outside."""

import csv
import gzip
import hashlib
import os
import re
from pathlib import Path

import pandas
import pytest

from severity import datasets, manifest, tables
from severity.datasets import chexpert, nih14
from severity.errors import SeverityError

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
    table = chexpert.read(make_chexpert(tmp_path), views=["frontal", "lateral"])
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
    assert len(chexpert.read(make_chexpert(tmp_path), views=views)) == rows


@pytest.mark.parametrize("top", ["CheXpert-v1.0/", "anything/", ""])
def test_chexpert_strips_one_top_folder(tmp_path, top):
    rows = chexpert_rows()
    for table in rows.values():
        for row in table:
            row[0] = row[0].replace("CheXpert-v1.0-small/", top)
    for name, table in rows.items():
        write_rows(tmp_path / name, CHEXPERT_HEADER, table)
    expected = chexpert.read(make_chexpert(tmp_path / "original"), views=["frontal"])
    assert chexpert.read(tmp_path, views=["frontal"])["id"].tolist() == expected["id"].tolist()


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
        ("Path", FRONTAL, f"train.csv: lines 2 and 3 both name '{FRONTAL}'"),
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


# ChestX-ray14


def test_nih_reads_each_cell_as_written(tmp_path):
    table = nih14.read(make_nih(tmp_path), views=["PA", "AP"])
    assert table["id"].tolist() == ["00000001_000", "00000001_001", "00000002_000"]
    assert table["patient"].tolist() == ["1", "1", "2"]
    assert table["sex"].tolist() == ["M", "M", "F"]
    assert table["age"].tolist() == [58, 59, 81]
    assert table["view"].tolist() == ["PA", "AP", "PA"]
    assert table["split"].tolist() == ["", "", ""]
    named = [{label for label in nih14.LABELS if row[label] == 1} for _, row in table.iterrows()]
    assert named == [{"Cardiomegaly", "Emphysema"}, {"No Finding"}, {"Hernia"}]
    assert (table[list(nih14.LABELS)].isin([0.0, 1.0])).all(axis=None)
    assert nih14.read(tmp_path, views=["AP"])["id"].tolist() == ["00000001_001"]


@pytest.mark.parametrize(
    "folders", [("images",), ("",), ("images_001/images", "images_002/images", "images_012/images")]
)
def test_nih_finds_images_in_each_layout(tmp_path, folders):
    table = nih14.read(make_nih(tmp_path, folders=folders), views=["PA", "AP"])
    assert len(table) == 3 and all((tmp_path / path).is_file() for path in table["path"])


@pytest.mark.parametrize("name", nih14.TABLES)
def test_nih_finds_each_table_plain_or_packed(tmp_path, name):
    make_nih(tmp_path, table=name)
    plain = nih14.read(tmp_path, views=["PA", "AP"])
    packed = gzip.compress((tmp_path / name).read_bytes())
    (tmp_path / name).unlink()
    (tmp_path / f"{name}.gz").write_bytes(packed)
    pandas.testing.assert_frame_equal(nih14.read(tmp_path, views=["PA", "AP"]), plain)


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
    table = nih14.read(tmp_path, views=["PA", "AP"])
    assert table["age"].tolist() == [58.0, 0.5] and table["sex"].tolist() == ["M", "F"]
    assert table["view"].tolist() == ["PA", "AP"]


def test_nih_official_lists_give_the_test_split(tmp_path):
    make_nih(tmp_path)
    (tmp_path / "train_val_list.txt").write_text("00000001_000.png\n00000001_001.png\n")
    (tmp_path / "test_list.txt").write_text("00000002_000.png\n00009999_000.png\n")
    assert nih14.read(tmp_path, views=["PA", "AP"])["split"].tolist() == ["", "", "test"]


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
    assert len(nih14.read(tmp_path, views=["PA", "AP"])) == 2
    assert "1 of 3 rows of Data_Entry_2017_v2020.csv have no image there and are left out." in capsys.readouterr().err
    for path in (tmp_path / "images").iterdir():
        path.unlink()
    with fails("none of the 3 images named by Data_Entry_2017_v2020.csv is there. They are looked for in"):
        nih14.read(tmp_path, views=["PA", "AP"])


@pytest.mark.parametrize(
    ("row", "message"),
    [
        (
            ["x.png", "Effusions", "0", "3", "9", "M", "PA"],
            "line 5, column 'Finding Labels': 'Effusions' is no finding",
        ),
        (["x.png", "Effusions", "0", "3", "9", "M", "PA"], "Did you mean 'Effusion'?"),
        (["x.png", "", "0", "3", "9", "M", "PA"], "line 5, column 'Finding Labels': '' is no finding"),
        (
            ["x.png", "No Finding|Mass", "0", "3", "9", "M", "PA"],
            "'No Finding|Mass' says both 'No Finding' and a finding",
        ),
        (["x.png", "Mass", "0", "3", "9", "X", "PA"], "line 5, column 'Patient Gender': 'X' is not one of"),
        (["x.png", "Mass", "0", "3", "nine", "M", "PA"], "line 5, column 'Patient Age': 'nine' is not a number"),
        (["x.png", "Mass", "0", "3", "9", "M", "LL"], "line 5, column 'View Position': 'LL' is not one of 'PA', 'AP'"),
        (["00000002_000.png", "Mass", "0", "2", "9", "M", "PA"], "1 images have more than one row: 00000002_000.png"),
    ],
)
def test_nih_names_the_cell_that_is_wrong(tmp_path, row, message):
    with fails(message):
        nih14.read(make_nih(tmp_path, [*NIH_ROWS, row]), views=["PA", "AP"])


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
    with fails("00000001_000.png is there twice: images/00000001_000.png and images_001/images/00000001_000.png"):
        nih14.read(tmp_path, views=["PA"])


# Both, and what they share


@pytest.mark.parametrize("name", COLLECTIONS)
def test_read_refuses_unknown_views(tmp_path, name):
    module = datasets.find(name)
    with fails("views: 'oblique' is unknown"):
        module.read(tmp_path, views=["oblique"])
    for wrong in ([], "frontal"):
        with fails("views must be a list of at least one of"):
            module.read(tmp_path, views=wrong)


@pytest.mark.parametrize("name", COLLECTIONS)
def test_collect_writes_sizes_and_hashes(tmp_path, name):
    root = {"chexpert": make_chexpert, "nih14": make_nih}[name](tmp_path / "root")
    (root / "notes.txt").write_text("not part of the collection")
    assert datasets.find(name).collect(root, tmp_path / "out", images=0) == len(
        pandas.read_csv(tmp_path / "out/manifest.csv")
    )
    listed = pandas.read_csv(tmp_path / "out/manifest.csv")
    assert listed["path"].is_monotonic_increasing
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


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a CSV table"),
        (b"a,b\n", "has a header but no row"),
        (b"a,b\n1,2,3,4\n", "cannot be read as a CSV table"),
        (b"a,b\n\xff\xfe,2\n", "cannot be read as a CSV table"),
    ],
)
def test_tables_that_are_no_tables(tmp_path, content, message):
    (tmp_path / "table.csv").write_bytes(content)
    with fails(message):
        tables.read_text(tmp_path / "table.csv", ["a"])


def test_packed_table_that_is_cut_off(tmp_path):
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress(b"a,b\n" + os.urandom(5000).hex().encode())[:800])
    with fails("cannot be read as a CSV table"):
        tables.read_text(tmp_path / "table.csv.gz", ["a"])


def test_text_stays_text(tmp_path):
    """Words that pandas takes for missing, numbers with leading zeros, a byte order mark, blank cells."""
    (tmp_path / "table.csv").write_bytes(b"\xef\xbb\xbfa,b\nNA,001\nnull,\n")
    assert tables.read_text(tmp_path / "table.csv", ["a", "b"]).values.tolist() == [["NA", "001"], ["null", ""]]


def test_listed_tells_how_many_more():
    assert tables.listed("abc") == "a, b, c"
    assert tables.listed(range(9)) == "0, 1, 2, 3, 4 and 4 more"


def test_sha256_of_a_file_longer_than_a_block(tmp_path):
    content = os.urandom((1 << 20) + 17)
    (tmp_path / "file").write_bytes(content)
    assert manifest.sha256(tmp_path / "file") == hashlib.sha256(content).hexdigest()


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
    table = nih14.read(root, views=["PA", "AP"])
    assert len(table) == images
    assert patients is None or table["patient"].nunique() == patients
    given = pandas.read_csv(root / "labels.csv", dtype={"Image Index": str})
    assert table["path"].tolist() == [f"images/{name}" for name in given["Image Index"]]
    findings = [label for label in nih14.LABELS if label != "No Finding"]
    assert (table[findings].to_numpy() == given[findings].to_numpy()).all()
    assert (table["No Finding"] == (given[findings].sum(axis=1) == 0)).all()
    if folder == "nih_cxr14_256":
        assert table["No Finding"].sum() == 494 + 50


def test_the_whole_label_table_of_chest_xray14(tmp_path, capsys):
    """112,120 rows of 30,805 patients hold nothing that `read` does not know."""
    source = SHARED / "nih_labels" / "Data_Entry_2017_v2020.csv.gz"
    if not source.is_file():
        pytest.skip(f"no {source}; name the folder of shared data in SEVERITY_SHARED_DATA")
    (tmp_path / source.name).symlink_to(source)
    touch(tmp_path / "images/00000001_000.png")
    table = nih14.read(tmp_path, views=["PA"])
    assert table["id"].tolist() == ["00000001_000"] and table["Cardiomegaly"].tolist() == [1.0]
    assert "112119 of 112120 rows" in capsys.readouterr().err
