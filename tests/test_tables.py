"""The one reader of CSV tables, and the checks of what comes from outside."""

import ast
import gzip
import os
import re
from pathlib import Path

import numpy
import pandas
import pytest

from severity.core import files, table_checks, tables
from severity.core.errors import SeverityError
from tests.trees import TOP

READERS = {"pandas.read_csv", "pandas.read_table", "pandas.read_fwf", "numpy.genfromtxt", "numpy.loadtxt"}


def fails(text):
    """Expect a SeverityError whose message holds `text`."""
    return pytest.raises(SeverityError, match=re.escape(text))


def reads_tables(path: Path) -> bool:
    """Whether a file calls what turns a text file into a table."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Attribute) and ast.unparse(node) in READERS:
            return True
        if isinstance(node, ast.Import) and "csv" in (alias.name for alias in node.names):
            return True
    return False


def test_every_table_is_read_by_the_one_reader():
    sources = {path for top in ("severity", "stages", "tools", "benchmarks") for path in (TOP / top).rglob("*.py")}
    reading = {path.relative_to(TOP).as_posix() for path in sources if reads_tables(path)}
    assert reading == {"severity/core/tables.py"}


def written(folder: Path, content: bytes) -> Path:
    path = folder / "table.csv"
    path.write_bytes(content)
    return path


READ = {
    "read_text": lambda path: tables.read_text(path, ["a"], fix="Fix it."),
    "read": lambda path: tables.read(path, ["a"], ["b"], "Fix it."),
    "read_numbers": lambda path: tables.read_numbers(path, ["a"], "Fix it."),
}


@pytest.mark.parametrize("reader", READ)
class TestEveryReader:
    def test_text_is_text_and_blank_is_blank(self, reader, tmp_path):
        frame = READ[reader](written(tmp_path, b'\xef\xbb\xbfa,b\r\nNA,1\r\nnull,\r\n"0,1",2.5\r\n'))
        assert frame["a"].tolist() == ["NA", "null", "0,1"] and frame.columns.tolist() == ["a", "b"]
        numbers = pytest.approx([1.0, numpy.nan, 2.5], nan_ok=True)
        assert frame["b"].tolist() == (["1", "", "2.5"] if reader == "read_text" else numbers)

    @pytest.mark.parametrize("content", [b"a,b\n1,2,3\n", b"a,b\n1,2,3,4\n", b"a,b\n\n1,2\n1,2,3\n"])
    def test_a_row_longer_than_the_header_is_refused_with_its_line(self, reader, content, tmp_path):
        with pytest.raises(SeverityError, match=rf"table\.csv, line {content.count(10)}: .* cells, but the header 2"):
            READ[reader](written(tmp_path, content))

    def test_a_sheet_that_is_called_a_table_is_called_a_sheet(self, reader, tmp_path):
        with fails("an Excel or ZIP file"):
            READ[reader](written(tmp_path, b"PK\x03\x04\x14\x00\x06\x00"))

    @pytest.mark.parametrize("content", [b"", b"a,b\n\xff\xfe,2\n"])
    def test_what_is_no_table_is_refused_with_its_name(self, reader, content, tmp_path):
        with pytest.raises(SeverityError, match=r"table\.csv cannot be read as a CSV table") as refusal:
            READ[reader](written(tmp_path, content))
        assert ("encoding UTF-8" if b"\xff" in content else "Fix it.") in str(refusal.value)

    def test_a_missing_file_is_called_missing(self, reader, tmp_path):
        with fails("none.csv is missing. Fix it."):
            READ[reader](tmp_path / "none.csv")


@pytest.mark.parametrize("content", [b"b,a,c\n1,x,2\n\n2,y\n", b'b,a,c\n1,"x\nz",2\n2\n', b"b,a,\n1,x,\n\n1,x\n"])
def test_a_row_shorter_than_the_header_is_refused_with_its_line(content, tmp_path):
    """One cell lost in the middle would put all behind it under the name before."""
    with pytest.raises(SeverityError, match=r"table\.csv, line 4: .* cells, but the header 3"):
        tables.read_text(written(tmp_path, content), ["a"])


def test_cells_under_no_name_may_be_missing_where_a_release_lacks_them(tmp_path):
    path = written(tmp_path, b"b,a,,\n1,x\n2,y,,\n")
    assert tables.read_text(path, ["a"], blank_tail=True)["a"].tolist() == ["x", "y"]
    with fails("line 2"):
        tables.read_text(written(tmp_path, b"b,a,,\n1\n"), ["a"], blank_tail=True)


@pytest.mark.parametrize(
    ("content", "words"), [(b"sep=;\na;b\n1;2\n", "Remove this line"), (b"a,b\n0,5,1\n", "quotes")]
)
def test_what_programs_write_beside_the_table_is_told(content, words, tmp_path):
    with pytest.raises(SeverityError, match=rf"table\.csv, line [12]: .*{words}"):
        tables.read_text(written(tmp_path, content), ["a"], tables.separator_of(tmp_path / "table.csv", "a"))


@pytest.mark.parametrize("reader", ["read_text", "read"])
@pytest.mark.parametrize(
    ("content", "message"), [(b"A,b\n1,2\n", "'a' is missing"), (b"a,b,a\n1,2,3\n", "'a' is duplicated")]
)
def test_a_column_that_is_asked_for_must_be_there_once(reader, content, message, tmp_path):
    with fails(f"table.csv: the column {message}"):
        READ[reader](written(tmp_path, content))


def test_columns_that_nobody_asks_for_may_have_any_name(tmp_path):
    frame = tables.read_text(written(tmp_path, b"a,x,x,\n1,2,3,4\n"), ["a"])
    assert frame["a"].tolist() == ["1"] and len(frame.columns) == 4


def test_the_header_is_told_as_it_is(tmp_path):
    assert tables.header(written(tmp_path, b"a;NA;a;\n1;2;3;4\n"), ";") == ["a", "NA", "a", ""]


def test_what_is_written_is_read_again(tmp_path):
    frame = pandas.DataFrame({"id": ["001", "NA", ""], "age": [1.25, numpy.nan, 3e-9], "count": [1, 2, 3]})
    files.write_csv(tmp_path / "table.csv", frame)
    pandas.testing.assert_frame_equal(tables.read_numbers(tmp_path / "table.csv", ["id"], ""), frame)
    again = tables.read(tmp_path / "table.csv", ["id"], ["age", "count"], "")
    pandas.testing.assert_frame_equal(again, frame.astype({"count": "float64"}))
    assert tables.read_text(tmp_path / "table.csv", ["id"])["age"].tolist() == ["1.25", "", "3e-09"]


def test_a_table_of_a_stage_may_have_no_row_one_from_outside_may_not(tmp_path):
    path = written(tmp_path, b"a,b\n")
    assert len(tables.read(path, ["a"], ["b"], "")) == len(tables.read_numbers(path, ["a"], "")) == 0
    with fails("has a header but no row"):
        tables.read_text(path, ["a"])


def test_packed_table_that_is_cut_off(tmp_path):
    (tmp_path / "table.csv.gz").write_bytes(gzip.compress(b"a,b\n" + os.urandom(5000).hex().encode())[:800])
    with fails("cannot be read as a CSV table"):
        tables.read_text(tmp_path / "table.csv.gz", ["a"])


def test_find_takes_the_first_name_and_plain_before_packed(tmp_path):
    assert tables.find(tmp_path, ["a.csv", "b.csv"]) is None
    for name, first in (("b.csv.gz", "b.csv.gz"), ("b.csv", "b.csv"), ("a.csv.gz", "a.csv.gz"), ("a.csv", "a.csv")):
        (tmp_path / name).touch()
        assert tables.find(tmp_path, ["a.csv", "b.csv"]) == tmp_path / first
    (tmp_path / "c.csv").mkdir()
    assert tables.find(tmp_path, ["c.csv"]) is None


def test_refuse_names_the_first_of_the_bad_rows():
    values = pandas.Series(["x", "y", "z"])
    table_checks.refuse([False] * 3, values, "letter", Path("t.csv"), "is wrong")
    with fails("t.csv, line 3, column 'letter': 'y' is wrong (2 such rows). Did you mean 'yy'? Known: yy, zz."):
        table_checks.refuse([False, True, True], values, "letter", Path("t.csv"), "is wrong", ["zz", "yy"])


def test_lines_are_those_of_the_file(tmp_path):
    path = written(tmp_path, b'a,b\n\nx,1\n"y\nz",2\n  \nw,3\n')
    assert tables.lines(path) == [1, 3, 4, 7] and table_checks.line(path, 2) == 7
    assert table_checks.line(tmp_path / "none.csv", 2) == 4


def test_refuse_repeats_names_both_lines():
    table_checks.refuse_repeats(pandas.Series(["a", "b"]), "Image", Path("t.csv"))
    with fails("t.csv, column 'Image': lines 3 and 5 both name 'b'; each image has one row (2 repeated rows)."):
        table_checks.refuse_repeats(pandas.Series(["a", "b", "c", "b", "b"]), "Image", Path("t.csv"))


def test_listed_tells_how_many_more():
    assert table_checks.listed("abc") == "a, b, c"
    assert table_checks.listed(range(9)) == "0, 1, 2, 3, 4 and 4 more"
