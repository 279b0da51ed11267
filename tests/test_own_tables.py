"""Tables as people have them, for the data set `own`: odd quotes, several labels a cell, other names, sheets."""

import csv
import inspect
import io
import re
import sys
import zipfile

import numpy
import pandas
import pytest
import yaml
from PIL import Image

from severity.collections import column_names, label_cells
from severity.core import params
from severity.core.errors import SeverityError
from severity.datasets import own
from tests.test_own import OPTIONS, fails, make, states
from tests.trees import TOP


def read(root, **options):
    return own.read(root, **{**OPTIONS, **options})


def refused(root, **options) -> str:
    with pytest.raises(SeverityError) as caught:
        read(root, **options)
    return str(caught.value)


# Quotes


def spoilt(place: int, column: int, end: int | None, images: int = 9) -> str:
    """A table with a quote before one cell, and, if it is closed, after the cell of that column `end` rows later."""
    rows = [[f"{n}.png", "fine", str(n % 2), "well"] for n in range(images)]
    rows[place][column] = '"' + rows[place][column]
    if end is not None:
        rows[place + end][column] += '"'
    return "\n".join(",".join(row) for row in [["path", "note", "Edema", "remark"], *rows]) + "\n"


@pytest.mark.parametrize("column", [0, 1, 3])
@pytest.mark.parametrize("end", [None, 1, 4])
def test_a_stray_quote_swallows_no_row(tmp_path, column, end):
    """Whatever the quote closes at, the line where it opened is named."""
    make(tmp_path, spoilt(2, column, end))
    assert "labels.csv, line 4: a quote" in refused(tmp_path, ignore=["note", "remark"])


def test_a_quote_within_a_cell_that_closes_elsewhere(tmp_path):
    text = 'path,patient,A,B,note\n1.png,p,1,0,"see film\n2.png,q,0,1,fine\n3.png,r,1,0,"old\n4.png,s,0,1,fine\n'
    assert "labels.csv, line 2: a quote" in refused(make(tmp_path, text), ignore=["note"])


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_quoted_cells_with_separators_quotes_and_line_breaks_are_read(tmp_path, separator):
    notes = ["two\nlines", 'he said "ah"', f"a{separator}b", "three\r\nlines\nwith, commas", '5" tube']
    rows = [[f"{n}.png", note, str(n % 2), str(1 - n % 2)] for n, note in enumerate(notes)]
    text = io.StringIO(newline="")
    csv.writer(text, delimiter=separator).writerows([["path", "note", "A", "B"], *rows])
    make(tmp_path, "")
    (tmp_path / "labels.csv").write_bytes(text.getvalue().encode())
    found = read(tmp_path, ignore=["note"])
    assert found.table["path"].tolist() == [row[0] for row in rows] and states(found)[:, 0].tolist() == [0, 1, 0, 1, 0]


def test_a_quote_in_the_middle_of_a_cell_is_a_character(tmp_path):
    assert read(make(tmp_path, 'path,class\n1.png,5" tube\n2.png,none\n')).labels == ('5" tube', "none")


def test_the_line_is_counted_over_cells_of_several_lines(tmp_path):
    text = 'path,A,B,note\n1.png,1,0,"two\nlines"\n2.png,0,1,"open\n3.png,1,0,x\n4.png,0,1,y\n'
    assert "labels.csv, line 4: a quote" in refused(make(tmp_path, text), ignore=["note"])


# Several labels in a cell


@pytest.mark.parametrize(
    "cells",
    [
        ["Mass|Edema", "Edema|Mass", "Mass", "none"],
        ["['Mass', 'Edema']", "['Edema', 'Mass']", "['Mass']", "['none']"],
        ['["Mass", "Edema"]', '["Edema","Mass"]', '["Mass"]', '["none"]'],
        ["['Mass' 'Edema']", "['Edema' 'Mass']", "['Mass']", "['none']"],
        ["[Mass, Edema]", "[Edema, Mass]", "[Mass]", "[none]"],
        ["('Mass', 'Edema')", "{'Edema', 'Mass'}", "('Mass',)", "none"],
        [" Mass | Edema ", "Edema||Mass", "Mass|", "none"],
    ],
)
def test_several_labels_in_a_cell_are_a_set_of_labels(tmp_path, cells):
    text = io.StringIO()
    csv.writer(text).writerows([["path", "patient", "class"], *([f"{n}.png", n, cell] for n, cell in enumerate(cells))])
    found = read(make(tmp_path, text.getvalue()))
    assert found.labels == ("Edema", "Mass", "none")
    assert states(found).tolist() == [[1, 1, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1]]
    assert found.notes == {"images whose class is several labels": 2}


@pytest.mark.parametrize("mark", [";", ",", "/", "+", "&"])
def test_other_marks_are_asked_about(tmp_path, mark):
    make(tmp_path, f'path,patient,class\n1.png,1,Mass\n2.png,2,Edema\n3.png,3,"Mass{mark} Edema"\n')
    message = refused(tmp_path)
    assert "line 4, column 'class'" in message and f"label_separator in params.yaml to {mark!r}" in message
    assert states(read(tmp_path, label_separator=mark)).tolist() == [[0, 1], [1, 0], [1, 1]]
    assert read(tmp_path, label_separator="").labels == ("Edema", "Mass", f"Mass{mark} Edema")


def test_names_with_marks_are_names(tmp_path):
    names = ["Pneumonia", "Pneumonia, viral", "Head & neck", "T1/T2"]
    rows = "".join(f'{n}.png,{n},"{name}"\n' for n, name in enumerate(names))
    assert read(make(tmp_path, "path,patient,class\n" + rows)).labels == tuple(sorted(names))


def test_an_empty_list_names_no_label():
    assert label_cells.split("[]", "|") == () and label_cells.split("[]", "") == ("[]",)
    assert label_cells.looks_split_by(["a, b", "b, a"]) == ("a, b", ",")
    assert label_cells.looks_split_by(["a, b", "c"]) is None


# Words


def test_words_for_yes_and_no_and_ages_of_dicom(tmp_path):
    words = {"yes": 1, "No": 0, "Y": 1, "n": 0, "TRUE": 1, "false": 0, "Positive": 1, "absent": 0, "uncertain": -1}
    ages = ["045Y", "006M", "007W", "365D", "45", "3.5", "45 y", "", "130Y"]
    rows = "".join(f"{n}.png,{n},{word},1,{age}\n" for n, (word, age) in enumerate(zip(words, ages, strict=True)))
    found = read(make(tmp_path, "path,patient,A,B,age\n" + rows))
    assert states(found)[:, 0].tolist() == list(words.values())
    years = [45, 0.5, 49 / 365.25, 365 / 365.25, 45, 3.5, 45, numpy.nan, numpy.nan]
    numpy.testing.assert_allclose(found.table["age"], years)


@pytest.mark.parametrize("age", ["old", "45X", "Y", "4Y5"])
def test_what_is_no_age_is_refused(tmp_path, age):
    message = refused(make(tmp_path, f"path,patient,class,age\n1.png,1,a,{age}\n2.png,2,b,3\n"))
    assert f"line 2, column 'age': {age!r}" in message and "045Y" in message


# Other names of columns


@pytest.mark.parametrize(
    "name", ["PatientID", "Patient ID", "patient_id", "subject_id", "SubjectID", "MRN", "anonymous patient code", "PID"]
)
@pytest.mark.parametrize("labels", ["class", "A,B"])
def test_the_patient_under_another_name_is_asked_for_first(tmp_path, name, labels):
    """Never is the way out that each image be a patient of its own."""
    cells = ["x", "y", "x"] if labels == "class" else ["1,0", "0,1", "1,1"]
    rows = "".join(f"{n}.png,s{n // 2},{cell},hm\n" for n, cell in enumerate(cells))
    make(tmp_path, f"path,{name},{labels},Note\n" + rows)
    message = refused(tmp_path, ignore=["Note"])
    assert f"{{patient: {name}}}" in message and "ignore" not in message
    assert f"{{patient: {name}}}" in refused(tmp_path)
    found = read(tmp_path, columns={"patient": name}, ignore=["Note"])
    assert found.table["patient"].tolist() == ["s0", "s0", "s1"]


def test_a_patient_that_no_name_gives_away_is_asked_for_before_columns_are_left_out(tmp_path):
    for text in ("path,class,Fall\n1.png,a,x\n2.png,b,y\n", "path,A,B,Fall\n1.png,1,0,x\n2.png,0,1,y\n"):
        message = refused(make(tmp_path, text))
        assert 0 < message.index("{patient: ") < message.index("ignore")


def test_everything_under_another_name_is_proposed_at_once_and_the_proposal_holds(tmp_path):
    names = ["Image Index", "Finding Labels", "Patient ID", "Patient Age", "Patient Gender", "View Position"]
    make(tmp_path, f"{','.join(names)},Comment\n1.png,Mass,7,045Y,M,PA,hm\n2.png,Edema,8,3,F,AP,\n")
    message = refused(tmp_path)
    said = yaml.safe_load(re.search(r"\{.*\}", message)[0])
    assert said == dict(zip(("path", "class", "patient", "age", "sex", "view"), names, strict=True))
    assert "['Comment']" in refused(tmp_path, columns={"path": "Image Index"})
    found = read(tmp_path, columns=said, ignore=["Comment"])
    assert found.labels == ("Edema", "Mass") and found.table["patient"].tolist() == ["7", "8"]


def test_labels_with_names_of_columns_are_labels_where_their_cells_are(tmp_path):
    found = read(make(tmp_path, "path,patient,Finding,Set\n1.png,1,1,0\n2.png,2,0,1\n"))
    assert found.labels == ("Finding", "Set")
    assert column_names.proposed(["Gender", "Set"], [], {"path"}) == {"sex": "Gender"}


def test_columns_are_named_once_for_both_stages_with_the_defaults_of_params(tmp_path):
    section = params.load(TOP / "params.yaml")["datasets"]["own"]
    both = inspect.signature(own.collect).parameters.keys() & inspect.signature(own.read).parameters.keys()
    assert {"table", "columns"} <= both and set(section["collect"]["columns"]) == set(own.COLUMNS)
    make(tmp_path / "plain", "path,class\n1.png,a\n2.png,b\n")
    assert read(tmp_path / "plain", columns=section["collect"]["columns"]).labels == ("a", "b")
    make(tmp_path / "named", "file,class\n1.png,a\n2.png,b\n")
    columns = section["collect"]["columns"] | {"path": "file"}
    assert own.collect(tmp_path / "named", tmp_path / "out", table="labels.csv", columns=columns) == 2
    assert read(tmp_path / "named", columns=columns).table["id"].tolist() == ["1", "2"]


# Sheets


def sheet(path, **sheets):
    pytest.importorskip("openpyxl", reason="openpyxl of requirements-extra.txt is not installed")
    with pandas.ExcelWriter(path) as writer:
        for name, rows in sheets.items():
            pandas.DataFrame(rows).to_excel(writer, sheet_name=name, index=False, header=False)


def test_a_sheet_is_read_as_the_same_table(tmp_path):
    rows = [
        ["path", "patient", "class", "age"],
        ["1.png", "007", "a", 45],
        ["2.png", 8, "b", None],
        ["3.png", "9", 1, 3.5],
    ]
    sheet(tmp_path / "labels.xlsx", first=rows, second=[])
    found = read(tmp_path, table="labels.xlsx")
    assert found.labels == ("1", "a", "b") and found.table["patient"].tolist() == ["007", "8", "9"]
    numpy.testing.assert_array_equal(found.table["age"], [45, numpy.nan, 3.5])
    sheet(tmp_path / "two.xlsx", first=rows, second=rows)
    assert "first, second" in refused(tmp_path, table="two.xlsx")
    with zipfile.ZipFile(tmp_path / "bomb.xlsx", "w", zipfile.ZIP_DEFLATED) as bomb:
        bomb.writestr("xl/workbook.xml", bytes(300 * 2**20))
    assert "bomb.xlsx unfolds to more than" in refused(tmp_path, table="bomb.xlsx")
    (tmp_path / "broken.xlsx").write_bytes(b"PK\3\4 and nothing else")
    assert "broken.xlsx cannot be read" in refused(tmp_path, table="broken.xlsx")


def test_a_sheet_without_openpyxl_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "labels.xlsx").touch()
    monkeypatch.setitem(sys.modules, "openpyxl", None)
    message = refused(tmp_path, table="labels.xlsx")
    assert "pip install -r requirements-extra.txt" in message and "CSV" in message


@pytest.mark.parametrize("name", ["labels.xls", "labels.ods"])
def test_other_sheets_are_refused(tmp_path, name):
    (tmp_path / name).touch()
    assert "Save it as CSV (UTF-8) or as .xlsx" in refused(tmp_path, table=name)


# Folders


def draw(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(root / path)


def test_folders_that_are_classes(tmp_path):
    draw(tmp_path / "root", "ill/1.png", "ill/2.JPG", "well/3.png", ".cache/4.png", "well/._3.png")
    (tmp_path / "root/well/readme.txt").touch()
    found = read(tmp_path / "root", table=own.FOLDERS)
    assert found.labels == ("ill", "well") and states(found).tolist() == [[1, 0], [1, 0], [0, 1]]
    assert found.table["path"].tolist() == ["ill/1.png", "ill/2.JPG", "well/3.png"]
    assert own.collect(tmp_path / "root", tmp_path / "out", table=own.FOLDERS, columns={"path": "path"}) == 3


def test_folders_of_splits_and_patients(tmp_path):
    draw(
        tmp_path,
        "train/ill/p1/1.png",
        "train/ill/p1/2.png",
        "val/well/p2/3.png",
        "Test/ill/4.png",
        "Test/well/p3/5.png",
    )
    table = read(tmp_path, table=own.FOLDERS).table.sort_values("path").reset_index()
    assert table["split"].tolist() == ["test", "test", "train", "train", "validation"]
    assert table["patient"].tolist() == ["Test/ill/4.png", "p3", "p1", "p1", "p2"]


def test_folders_of_splits_by_other_words_and_of_studies(tmp_path):
    draw(tmp_path, "Training/ill/p1/s1/1.png", "training/ill/p1/s2/2.png", "TESTING/well/p2/3.png")
    found = read(tmp_path, table=own.FOLDERS)
    table = found.table.sort_values("path")
    assert found.labels == ("ill", "well") and table["split"].tolist() == ["test", "train", "train"]
    assert table["patient"].tolist() == ["p2", "p1", "p1"]


@pytest.mark.parametrize("odd", ["extra/ill/3.png", "train/3.png", "Testing/3.png"])
def test_folders_that_are_splits_only_in_part_are_refused(tmp_path, odd):
    draw(tmp_path, "train/ill/1.png", "test/well/2.png", odd)
    message = refused(tmp_path, table=own.FOLDERS)
    assert odd in message and "<split>/<class>/" in message


def test_folders_that_say_no_class_are_refused(tmp_path):
    draw(tmp_path, "1.png", "ill/2.png", "well/3.png")
    assert "1.png lies in none" in refused(tmp_path, table=own.FOLDERS)
    assert "set it to folders" in refused(tmp_path)
    (tmp_path / "empty").mkdir()
    with fails("there is no image"):
        read(tmp_path / "empty", table=own.FOLDERS)
