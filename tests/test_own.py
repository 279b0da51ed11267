"""Your own images: a CSV table and a tree. Every odd table that a person may bring, and what is said of it."""

import csv
import gzip
import os
import re

import numpy
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as some
from PIL import Image

from severity.collections import collection, splits
from severity.core import files
from severity.core.errors import SeverityError
from severity.datasets import own
from severity.decoding import decoding
from severity.tree import trees
from tests.trees import TOP

OPTIONS = {"table": "labels.csv", "columns": {}, "ignore": [], "views": [], "label_separator": "|"}
SINGLE = "path,class\na/1.png,Pneumonia\na/2.png,Normal\nb/1.png,Pneumonia\n"
MULTI = """path,id,patient,split,view,sex,age,Effusion,Edema
a/1.png,one,p1,train,PA,F,61,1,0
a/2.png,two,p1,train,AP,female,61.5,-1,
b/1.png,three,p2,val,,M,,0.0,1.0
b/2.png,four,p3,test,PA,,3,-1.0,TRUE
b/3.png,five,p4,,PA,male,40,False,0
"""
NO_PATIENT = (
    "images without a column 'patient', each taken as a patient of its own, though images of one patient may then stand in "
    "two splits"
)


def fails(text):
    """Expect a SeverityError whose message holds `text`."""
    return pytest.raises(SeverityError, match=re.escape(text))


def make(root, text, name="labels.csv", encoding="utf-8"):
    """A folder with a table, and an image for each path that it names (by forward slashes) and that can be one."""
    root.mkdir(parents=True, exist_ok=True)
    (root / name).write_bytes(text.encode(encoding))
    for path in re.findall(r"[\w./ -]+\.png", text.replace("\\", "/")):
        file = root / path.strip()
        if not path.startswith("/") and ".." not in path:
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(numpy.full((9, 7), 100, numpy.uint8)).save(file)
    return root


def read(root, **options):
    found = own.read(root, **{**OPTIONS, **options})
    collection.check(found)
    return found


def states(found):
    return found.table[list(found.labels)].to_numpy()


def test_three_params_and_no_code(tmp_path, monkeypatch):
    """A set that nobody has seen before: name, root and tree are set, all else is as params.yaml comes."""
    make(tmp_path / "mine", SINGLE)
    (tmp_path / "hierarchies").mkdir()
    (tmp_path / "hierarchies/lungs.yaml").write_text(
        "source: ours\ntree:\n  node: chest\n  children:\n    - {node: ok, label: Normal}\n    - {node: ill, label: Pneumonia}\n"
    )
    section = {"root": str(tmp_path / "mine"), "hierarchy": "lungs"}
    written = {"collect": {"table": "labels.csv", "columns": {}}, "read": OPTIONS}
    assert own.collect(section["root"], tmp_path / "out", **written["collect"]) == 3
    found = own.read(section["root"], **written["read"])
    collection.check(found)
    assert trees.named(tmp_path / "hierarchies", section["hierarchy"], found.labels).classes == ("Normal", "Pneumonia")
    for path in found.table["path"]:
        assert decoding.read_gray(tmp_path / "mine" / path).size == (7, 9)
    folder = tmp_path / "collection"
    found.write(folder)
    pandas.testing.assert_frame_equal(collection.Collection.read(folder).table, found.table, check_like=True)


def test_one_class_an_image(tmp_path):
    found = read(make(tmp_path, SINGLE))
    assert found.labels == ("Normal", "Pneumonia")
    assert states(found).tolist() == [[0, 1], [1, 0], [0, 1]]
    assert found.table["path"].tolist() == ["a/1.png", "a/2.png", "b/1.png"]
    assert found.table["id"].tolist() == ["a/1", "a/2", "b/1"] == found.table["patient"].tolist()
    assert set(found.table["split"]) == set(found.table["view"]) == set(found.table["sex"]) == {""}
    assert found.table["age"].isna().all()
    assert found.notes == {NO_PATIENT: 3}


def test_every_column_and_every_state(tmp_path):
    found = read(make(tmp_path, MULTI))
    table = found.table
    assert found.labels == ("Effusion", "Edema")
    numpy.testing.assert_array_equal(states(found), [[1, 0], [-1, numpy.nan], [0, 1], [-1, 1], [0, 0]])
    assert table["id"].tolist() == ["one", "two", "three", "four", "five"]
    assert table["patient"].tolist() == ["p1", "p1", "p2", "p3", "p4"]
    assert table["split"].tolist() == ["train", "train", "validation", "test", ""]
    assert table["view"].tolist() == ["PA", "AP", "", "PA", "PA"]
    assert table["sex"].tolist() == ["F", "F", "M", "", "M"]
    numpy.testing.assert_array_equal(table["age"], [61, 61.5, numpy.nan, 3, 40])
    assert found.notes == {"images without a positive label, for which no single decision is right": 2}


@pytest.mark.parametrize("word", ["train", "Train", "validation", "valid", "val", "VAL", "test", ""])
def test_words_of_splits(tmp_path, word):
    found = read(make(tmp_path, f"path,class,split\n1.png,a,{word}\n2.png,b,\n"))
    right = {"": "", "t": word.lower(), "v": "validation"}[word[:1].lower()]
    assert found.table["split"].tolist() == [right, ""]


def test_rows_without_a_split_are_divided_by_patient(tmp_path):
    rows = "".join(f"{n}.png,{'ab'[n % 2]},p{n // 3}\n" for n in range(90))
    table = read(make(tmp_path, "path,class,patient\n" + rows)).table
    table["split"] = splits.divide(table, validation_fraction=0.3, test_fraction=0.3, seed=0)
    splits.check(table)


# Names of columns


def test_other_names_of_columns(tmp_path):
    text = "file name;Diagnosis;Patient;Notes\n1.png;ill;7;sneezes\n2.png;well;8;\n"
    root = make(tmp_path, text, name="Befunde.csv")
    options = {
        "table": "Befunde.csv",
        "columns": {"path": "file name", "class": "Diagnosis", "patient": "Patient"},
        "ignore": ["Notes"],
    }
    found = read(root, **options)
    assert found.labels == ("ill", "well") and found.table["patient"].tolist() == ["7", "8"]
    assert found.notes == {"columns that are no labels, left out": "Notes"}
    assert own.collect(root, tmp_path / "out", table=options["table"], columns=options["columns"]) == 2


def test_one_column_may_serve_twice(tmp_path):
    root = make(tmp_path, "path,class\n1.png,a\n2.png,b\n")
    assert read(root, columns={"id": "path"}).table["id"].tolist() == ["1.png", "2.png"]


def test_a_column_that_is_ignored_is_not_there(tmp_path):
    found = read(make(tmp_path, MULTI), ignore=["patient", "split"])
    assert found.table["patient"].equals(found.table["id"]) and set(found.table["split"]) == {""}
    assert found.notes["columns that are no labels, left out"] == "patient, split"
    with fails("the column 'path' is missing"):
        read(tmp_path, ignore=["path"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"columns": {"path": "file"}}, "the column 'file' is missing."),
        ({"columns": {"patient": "case"}}, "the column 'case' is missing. Did you mean 'class'?"),
        ({"columns": {"paht": "path"}}, "`columns` of datasets.own has the unknown key 'paht'. Did you mean 'path'?"),
        (
            {"ignore": ["clas"]},
            "has no column 'clas', which `ignore` of datasets.own in params.yaml names. Did you mean",
        ),
        ({"table": "lables.csv"}, "There is no table"),
        ({"table": "lables.csv"}, "Did you mean 'labels.csv'?"),
        ({"table": "../labels.csv"}, "the path '../labels.csv' is absolute or leads out"),
        ({"views": ["PA"]}, "datasets.own.read.views: 'PA' is unknown. Known: none."),
    ],
)
def test_options_that_do_not_fit_the_table(tmp_path, options, message):
    with fails(message):
        read(make(tmp_path, SINGLE), **options)


def test_views_select_rows(tmp_path):
    make(tmp_path, MULTI)
    assert read(tmp_path, views=["PA"]).table["id"].tolist() == ["one", "four", "five"]
    assert read(tmp_path, views=[]).table["id"].tolist() == ["one", "two", "three", "four", "five"]
    with fails("views: 'pa' is unknown. Known: AP, PA."):
        read(tmp_path, views=["pa"])


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("Path", "is the column 'Path' the path? 'path' is taken for it."),
        (" SEX", "is the column 'SEX' the sex? 'sex' is taken for it."),
        (
            "Class",
            "is the column 'Class' the class? Say so in params.yaml: `columns` of datasets.own.collect, {class: Class}",
        ),
    ],
)
def test_a_column_that_is_all_but_called_right_is_no_label(tmp_path, name, told):
    header, rows = MULTI.split("\n", 1)
    with fails(told):
        read(make(tmp_path, f"{header},{name}\n" + rows.replace("\n", ",1\n")))


def test_a_missing_path_column_names_the_nearest(tmp_path):
    with fails("the column 'path' is missing. Did you mean 'Path'?") as caught:
        read(make(tmp_path, SINGLE.replace("path", "Path")))
    assert "`columns` of datasets.own.collect, {path: Path}" in str(caught.value)


# Cells


def spoilt(column, value, text=MULTI):
    """The table with the cell of its third image, on line 4, replaced."""
    rows = list(csv.reader(text.splitlines()))
    rows[3][rows[0].index(column)] = value
    return "\n".join(",".join(row) for row in rows) + "\n"


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("Edema", "2", "line 4, column 'Edema': '2' is not one of blank, '1', '0', '-1', '1.0', '0.0', '-1.0', 'true', 'false'"),
        ("Edema", "2", "If these are not labels, list them under `ignore` of datasets.own in params.yaml: ['Edema']"),
        ("Edema", "perhaps", "line 4, column 'Edema': 'perhaps' is not one of"),
        ("sex", "women", "line 4, column 'sex': 'women' is not one of blank, 'f', 'm', 'female', 'male', 'unknown'"),
        ("split", "dev", "line 4, column 'split': 'dev' is not one of blank, 'train', 'validation'"),
        ("age", "old", "line 4, column 'age': 'old' is not a number"),
        ("patient", "", "line 4, column 'patient': '' is blank; every image must have its patient"),
        ("id", "", "line 4, column 'id': '' is blank; every image must have its id"),
        ("id", "one", "line 4, column 'id': 'one' is duplicated; ids must be unique"),
        ("path", "", "line 4, column 'path': '' is blank; every image must have its path"),
        ("path", " ", "line 4, column 'path': '' is blank; every image must have its path"),
        ("path", "/a/1.png", "line 4, column 'path': '/a/1.png' is absolute or leads out of the folder"),
        ("path", "C:\\a\\1.png", "line 4, column 'path': 'C:\\\\a\\\\1.png' is absolute or leads out of the folder"),
        ("path", "a/../../1.png", "line 4, column 'path': 'a/../../1.png' is absolute or leads out of the folder"),
        ("path", "..\\1.png", "line 4, column 'path': '..\\\\1.png' is absolute or leads out of the folder"),
        ("path", "a/1.png", "column 'path': lines 2 and 4 both name 'a/1.png'; each image has one row"),
        ("path", "./a//1.png", "column 'path': lines 2 and 4 both name 'a/1.png'"),
        ("path", "a\\1.png", "column 'path': lines 2 and 4 both name 'a/1.png'"),
    ],
)  # fmt: skip
def test_the_cell_that_is_wrong_is_named(tmp_path, column, value, message):
    with fails(message) as caught:
        read(make(tmp_path, spoilt(column, value)))
    assert "labels.csv" in str(caught.value)


def test_columns_that_are_no_labels_are_named_together(tmp_path):
    text = "path,Note,Edema,Mass,Follow-up\n1.png,hm,1,0,0\n2.png,,0,1,7\n"
    with fails("line 2, column 'Note': 'hm' is not one of") as caught:
        read(make(tmp_path, text))
    assert str(caught.value).endswith("list them under `ignore` of datasets.own in params.yaml: ['Note', 'Follow-up']")
    assert read(tmp_path, ignore=["Note", "Follow-up"]).labels == ("Edema", "Mass")


def test_the_same_row_twice(tmp_path):
    with fails("column 'path': lines 2 and 5 both name 'a/1.png'; each image has one row (1 repeated rows)"):
        read(make(tmp_path, SINGLE + "a/1.png,Pneumonia\n"))


def test_a_blank_class(tmp_path):
    with fails("line 3, column 'class': '' is blank; every image must have its class (1 such rows)"):
        read(make(tmp_path, SINGLE.replace("Normal", "")))


def test_a_column_of_labels_that_is_all_blank(tmp_path):
    with fails("column 'Mass': every cell is blank, so there is nothing to learn. If it is not a label, list it under"):
        read(make(tmp_path, "path,Mass,Edema\n1.png,,1\n2.png,,0\n"))


def test_both_a_class_and_labels(tmp_path):
    text = "path,class,Edema\n1.png,a,1\n2.png,b,0\n"
    with fails("has the column 'class' as well as Edema. If the column 'class' has all classes, list the others under"):
        read(make(tmp_path, text))
    assert read(tmp_path, ignore=["Edema"]).labels == ("a", "b")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,class\n1.png,a\n2.png,a\n", "column 'class': one class, 'a'. There must be at least two"),
        ("path,Edema\n1.png,1\n2.png,0\n", "columns of labels: Edema. There must be at least two"),
        ("path\n1.png\n2.png\n", "columns of labels: none. There must be at least two"),
        ("path,class\n1.png,view\n2.png,b\n", "a class cannot be called 'view', the name of a column. Rename it."),
        ("path,class\n1.png,Mass\n2.png,mass\n", "the labels 'Mass' and 'mass' differ only in case or spaces"),
        (
            "path,Lung  mass,lung mass\n1.png,1,0\n2.png,0,1\n",
            "the labels 'Lung  mass' and 'lung mass' differ only in case",
        ),
        ("path,Edema,Edema\n1.png,1,0\n", "more than one column is called 'Edema'. Rename all but one."),
        ("path,Edema , Edema\n1.png,1,0\n", "more than one column is called 'Edema'"),
    ],
)
def test_labels_that_cannot_be_told_apart(tmp_path, text, message):
    with fails(message):
        read(make(tmp_path, text))


def test_a_class_that_is_not_in_the_tree_is_named_there(tmp_path):
    found = read(make(tmp_path, SINGLE.replace("Normal", "Norma")))
    tree = tmp_path / "lungs.yaml"
    tree.write_text(
        "source: x\ntree:\n  node: t\n  children: [{node: n, label: Normal}, {node: p, label: Pneumonia}]\n"
    )
    with fails("the label 'Normal' is not one of the data set's. Did you mean 'Norma'?"):
        trees.named(tmp_path, "lungs", found.labels)


def test_classes_may_be_numbers(tmp_path):
    found = read(make(tmp_path, "path,class\n1.png,2\n2.png,10\n3.png,-1\n"))
    assert found.labels == ("-1", "10", "2") and states(found).argmax(axis=1).tolist() == [2, 1, 0]


def test_impossible_ages_are_unknown_and_counted(tmp_path):
    found = read(make(tmp_path, "path,class,age\n1.png,a,155\n2.png,b,-1\n3.png,b,inf\n4.png,b,120\n5.png,b,\n"))
    assert found.table["age"].isna().tolist() == [True, True, True, False, True]
    assert found.notes["ages outside 0 to 120 years, taken as unknown"] == 3


# Ids


def test_the_suffix_is_kept_where_the_id_would_repeat_without(tmp_path):
    found = read(make(tmp_path, "path,class\na/1.png,x\na/1.jpg,y\nb/1.png,x\n"))
    assert found.table["id"].tolist() == ["a/1.png", "a/1.jpg", "b/1.png"]


def test_ids_of_odd_file_names(tmp_path):
    found = read(make(tmp_path, "path,class\n.png,x\na.b/c,y\na/.hidden,x\nx.tar.gz,y\n"))
    assert found.table["id"].tolist() == [".png", "a.b/c", "a/.hidden", "x.tar"]


# Files


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
@pytest.mark.parametrize("line_end", ["\n", "\r\n"])
def test_whatever_a_spreadsheet_writes(tmp_path, separator, encoding, line_end):
    plain = read(make(tmp_path / "plain", MULTI))
    text = MULTI.replace(",", separator).replace("\n", line_end)
    found = read(make(tmp_path / "other", text, encoding=encoding))
    pandas.testing.assert_frame_equal(found.table, plain.table)
    assert found.notes == plain.notes


def test_separators_inside_quotes_are_none(tmp_path):
    text = 'path;"Effusion, left";"Effusion, right"\n1.png;1;0\n2.png;0;1\n'
    assert read(make(tmp_path, text)).labels == ("Effusion, left", "Effusion, right")


def test_spaces_around_cells_do_not_count(tmp_path):
    found = read(make(tmp_path, " path , class \n a/1.png , x \na/2.png,y\n"))
    assert found.labels == ("x", "y") and found.table["path"].tolist() == ["a/1.png", "a/2.png"]


def test_a_column_without_a_name_is_left_out_and_told(tmp_path):
    found = read(make(tmp_path, ",path,class\n0,1.png,a\n1,2.png,b\n"))
    assert found.labels == ("a", "b")
    assert found.notes["columns that are no labels, left out"] == "one without a name"


def test_a_packed_table(tmp_path):
    plain = read(make(tmp_path, SINGLE))
    (tmp_path / "labels.csv.gz").write_bytes(gzip.compress((tmp_path / "labels.csv").read_bytes()))
    assert read(tmp_path, table="labels.csv.gz").table.equals(plain.table)


def test_windows_paths_and_names_beyond_ascii(tmp_path):
    names = ["bilder\\Röntgen\\Thorax 1.png", "胸部/x線.png"]
    for name in names:
        file = tmp_path / name.replace("\\", "/")
        file.parent.mkdir(parents=True)
        Image.new("L", (5, 5)).save(file)
    (tmp_path / "labels.csv").write_text(f"path,class\n{names[0]},Müller\n{names[1]},肺炎\n", encoding="utf-8")
    found = read(tmp_path)
    assert found.table["path"].tolist() == ["bilder/Röntgen/Thorax 1.png", "胸部/x線.png"]
    assert found.labels == ("Müller", "肺炎")
    assert found.notes["paths with backslashes, read as slashes"] == 1
    assert own.collect(tmp_path, tmp_path / "out", table="labels.csv", columns={}) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "cannot be read as a CSV table"),
        (b"path,class\n", "has a header but no row"),
        (b"path,class\n1.png,a,b,c\n", "labels.csv, line 2: the row has 4 cells"),
        ("path,class\nRöntgen.png,a\n".encode("latin-1"), "Save it in the encoding UTF-8."),
        ("path,class\n1.png,a\n".encode("utf-16"), "in UTF-8."),
    ],
)
def test_tables_that_are_no_tables(tmp_path, content, message):
    (tmp_path / "labels.csv").write_bytes(content)
    with fails(message):
        read(tmp_path)


def test_a_missing_folder_says_where_it_is_set(tmp_path):
    with fails(f"There is no folder {tmp_path / 'absent'}. Set datasets.own.root in params.yaml"):
        read(tmp_path / "absent")


# The manifest


def test_collect_writes_sizes_and_hashes(tmp_path):
    root = make(tmp_path / "root", MULTI)
    (root / "a/other.png").write_bytes(b"not named by the table")
    assert own.collect(root, tmp_path / "out", table="labels.csv", columns={}) == 5
    listed = pandas.read_csv(tmp_path / "out/manifest.csv")
    assert listed["path"].tolist() == ["a/1.png", "a/2.png", "b/1.png", "b/2.png", "b/3.png"]
    assert listed["bytes"].tolist() == [os.path.getsize(root / path) for path in listed["path"]]
    hashed = pandas.read_csv(tmp_path / "out/tables.csv")
    assert hashed.to_numpy().tolist() == [["labels.csv", files.sha256(root / "labels.csv")]]


def test_collect_asks_nothing_of_labels(tmp_path):
    """What is a label is decided in `read`, and may change without the images being looked at again."""
    root = make(tmp_path / "root", "path,class,Note\n1.png,a,hm\n")
    assert own.collect(root, tmp_path / "out", table="labels.csv", columns={}) == 1


def test_missing_images_are_counted_and_named(tmp_path):
    root = make(tmp_path / "root", MULTI)
    (root / "a/2.png").unlink()
    (root / "b/2.png").unlink()
    with fails("2 of 5 images named by the label tables are not there: a/2.png, b/2.png."):
        own.collect(root, tmp_path / "out", table="labels.csv", columns={})
    assert not (tmp_path / "out").exists()


# The page


def blocks(language, beginning):
    """The code blocks of the pages on data that begin so."""
    text = "".join(path.read_text(encoding="utf-8") for path in sorted((TOP / "docs").glob("data*.md")))
    return [block for block in re.findall(rf"```{language}\n(.*?)```", text, re.S) if block.startswith(beginning)]


def test_the_examples_of_the_page(tmp_path):
    (tree,) = blocks("yaml", "source: the radiology department")
    (tmp_path / "mine.yaml").write_text(tree)
    single, multi = blocks("csv", "path,patient")
    for name, text in (("single", single), ("multi", multi)):
        found = read(make(tmp_path / name, text))
        own.collect(tmp_path / name, tmp_path / "out", table="labels.csv", columns={})
        assert set(trees.named(tmp_path, "mine", found.labels).classes) == {"Normal", "Effusion", "Pneumonia"}
    assert states(found).tolist() == [[0, 1, -1], [1, 0, 0], [0, 1, 1]]


# Any table, against another reader


WORDS = {"1": 1, "1.0": 1, "TRUE": 1, "0": 0, "0.0": 0, "false": 0, "-1": -1, "-1.0": -1, "": None}
NAMES = some.text(some.characters(categories=("L", "N")), min_size=1, max_size=6)


@given(
    rows=some.lists(some.lists(some.sampled_from(sorted(WORDS)), min_size=3, max_size=3), min_size=1, max_size=8),
    labels=some.lists(NAMES, min_size=3, max_size=3, unique_by=lambda name: name.lower()),
    separator=some.sampled_from([",", ";", "\t"]),
)
def test_any_table_of_labels_comes_out_as_it_stands(tmp_path_factory, rows, labels, separator):
    labels = [f"label {name}" for name in labels]
    rows = [["1", "0", "-1"], *rows]  # no column all blank
    root = tmp_path_factory.mktemp("any")
    with open(root / "labels.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=separator).writerows(
            [["path", *labels], *([f"{number}.png", *row] for number, row in enumerate(rows))]
        )
    found = read(root)
    assert list(found.labels) == labels
    expected = [[WORDS[word] for word in row] for row in rows]
    assert [[None if pandas.isna(state) else state for state in row] for row in states(found)] == expected
