"""The IRMA loader: every form and every odd case; and the drawn phantoms that stand in for the collection."""

import hashlib
import re

import numpy
import pytest
from PIL import Image

from severity.collections import collection
from severity.collections.collection import Collection
from severity.core.errors import SeverityError
from severity.datasets import irma as loader
from severity.datasets import irma_phantom as phantom
from severity.irma import codes as irma_codes
from severity.irma.facts import IrmaFacts
from severity.phantoms import irma_drawings

OPTIONS = {
    "axis": "all",
    "train_table": "train.csv",
    "test_table": "test.csv",
    "code_column": "irma_code",
    "code_tables": {},
}
TRAIN = {
    "10": "1121-127-700-500",
    "11": "1123-110-500-000",
    "12": "1121-127-700-500",
    "13": "1121-120-310-C",
    "14": "1123-110-500-000",
}
TEST = {"20": "1123-110-500-000", "21": "1121-120-320-700"}
TABLES = {
    "technical": "1;x-ray\n11;plain radiography\n112;analog\n1121;overview image\n1123;high energy\n",
    "directional": "1;coronal\n11;PA\n110;unspecified\n12;AP\n120;unspecified\n127;supine\n",
    "anatomical": "3;spine\n31;cervical spine\n32;thoracic spine\n5;chest\n7;abdomen\n",
    "biological": "0;unspecified\n5;uropoietic system\n7;musculoskeletal system\n",
}
OPTION_PHANTOM = {
    "axis": "all",
    "train_table": "train_codes.csv",
    "test_table": "test_codes.csv",
    "code_column": "irma_code",
    "code_tables": {axis: f"{axis}.csv" for axis in irma_codes.AXES},
}


def fails(text):
    """Expect a SeverityError whose message holds `text`."""
    return pytest.raises(SeverityError, match=re.escape(text))


def make(root, train=TRAIN, test=TEST, *, header="image_id;irma_code", tables=None, images=None):
    """Write a collection; `train` and `test` are id -> the other cells of its row. No test table where test is None."""
    root.mkdir(parents=True, exist_ok=True)
    for name, rows in (("train", train), ("test", test)):
        if rows is not None:
            lines = [header, *(f"{image};{cells}" for image, cells in rows.items())]
            (root / f"{name}.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    for image in images if images is not None else [*train, *(test or {})]:
        path = root / ("tests" if image in (test or {}) else "images/inner") / f"{image}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(image.encode())
    for axis, text in (tables or {}).items():
        (root / f"{axis}.csv").write_text(text, encoding="utf-8")
    return root


def read(root, **options) -> Collection:
    found = loader.read(root, **(OPTIONS | options))
    collection.check(found)
    return found


def facts(found: Collection) -> IrmaFacts:
    return IrmaFacts.find(found.facts)


def classes_of(found: Collection) -> dict[str, str | None]:
    """id -> its class."""
    states = found.table.set_index("id")[list(found.labels)]
    return {image: next((label for label in found.labels if row[label] == 1), None) for image, row in states.iterrows()}


class TestRead:
    def test_each_row_as_written(self, tmp_path):
        found = read(make(tmp_path))
        assert found.labels == ("1121-120-310-C00", "1121-127-700-500", "1123-110-500-000")
        assert found.table["id"].tolist() == [*TRAIN, *TEST] == found.table["patient"].tolist()
        assert found.table["path"].tolist()[:1] == ["images/inner/10.png"]
        assert found.table["path"].tolist()[-1] == "tests/21.png"
        assert classes_of(found) == {
            "10": "1121-127-700-500", "11": "1123-110-500-000", "12": "1121-127-700-500", "13": "1121-120-310-C00",
            "14": "1123-110-500-000", "20": "1123-110-500-000", "21": None,
        }  # fmt: skip
        assert (found.table[list(found.labels)].sum(axis=1) == [1] * 6 + [0]).all()
        assert (found.table[["sex", "view"]] == "").all(axis=None) and found.table["age"].isna().all()
        assert found.boxes.empty

    def test_the_first_image_of_each_code_stays_in_train(self, tmp_path):
        splits = read(make(tmp_path)).table["split"].tolist()
        assert splits == ["train", "train", "", "train", "", "test", "test"]

    def test_a_code_that_only_the_test_table_has_is_told_and_no_class(self, tmp_path):
        found = read(make(tmp_path))
        assert facts(found).truth == {"21": "1121-120-320-700"}
        assert found.notes["test images whose code no training image has: they have no class"] == 1
        assert facts(found).branching == "codes"
        # Branching factors do not look at the test table either: after 3 only 1 is known, and the true 2 counts.
        assert facts(found).scheme.branching("anatomical", "320") == [3, 2, 1]

    def test_without_a_test_table_all_is_to_be_divided(self, tmp_path):
        found = read(make(tmp_path, test=None), test_table="")
        assert set(found.table["split"]) == {"train", ""} and facts(found).truth == {}

    def test_rows_without_a_code_or_image_are_left_out_and_counted(self, tmp_path):
        train = TRAIN | {"15": "\\N", "16": "", "17": "C", "18": "C-Cxx-C00-C"}
        make(tmp_path, train, images=[*TRAIN, *TEST, "15", "17", "99"])
        found = read(tmp_path)
        assert found.table["id"].tolist() == [*TRAIN, *TEST]
        assert found.notes == {
            "patients": "not told; each image is taken for a patient of its own",
            "images without a code, left out": 2,
            "images whose code says nothing (C), left out": 2,
            "images that have no row, left out": 1,
            "test images whose code no training image has: they have no class": 1,
        }

    @pytest.mark.parametrize(
        ("axis", "labels", "left_out"),
        [
            ("technical", ("1121", "1123"), 0),
            ("directional", ("110", "120", "127"), 0),
            ("anatomical", ("310", "500", "700"), 0),
            ("biological", ("000", "500"), 1),
        ],
    )
    def test_one_axis_alone(self, tmp_path, axis, labels, left_out):
        found = read(make(tmp_path, tables=TABLES), axis=axis, code_tables={axis: f"{axis}.csv"})
        assert found.labels == labels
        assert found.notes.get("images whose code says nothing (C), left out", 0) == left_out
        assert len(found.table) == len(TRAIN) + len(TEST) - left_out
        assert facts(found).axis == axis and facts(found).scheme.axes == (axis,)
        unseen = {"anatomical": {"21": "320"}, "biological": {"21": "700"}}
        assert facts(found).truth == unseen.get(axis, {})

    def test_the_columns_of_2009_and_the_choice_among_them(self, tmp_path):
        header = "image_id;irma_code;05_class;05_irma_code_submask;06_class;06_irma_code;07_irma_code;08_irma_code"
        rest = ";12;1121-1**-***-***;\\N;\\N;{};1121-127-700-500"
        train = {image: code + rest.format(code if image in ("10", "11") else "\\N") for image, code in TRAIN.items()}
        test = {image: code + rest.format(code) for image, code in TEST.items()}
        make(tmp_path, train, test, header=header)
        assert len(read(tmp_path).labels) == 3
        found = read(tmp_path, code_column="07_irma_code")
        assert found.labels == ("1121-127-700-500", "1123-110-500-000")
        assert found.notes["images without a code, left out"] == 3
        with fails("train.csv, line 2, column '05_irma_code_submask': The IRMA code '1121-1**-***-***'"):
            read(tmp_path, code_column="05_irma_code_submask")
        with fails("belongs in answers, not in the truth"):
            read(tmp_path, code_column="05_irma_code_submask")
        with fails("train.csv: the column '08_code' is missing. Did you mean '08_irma_code'?"):
            read(tmp_path, code_column="08_code")
        with fails("train.csv, column '06_irma_code': no image has a code to learn"):
            read(tmp_path, code_column="06_irma_code")

    def test_other_endings_of_images(self, tmp_path):
        make(tmp_path, images=[*list(TRAIN)[2:], *TEST])
        (tmp_path / "10.JPG").write_bytes(b"x")
        (tmp_path / "11.tif").write_bytes(b"x")
        assert read(tmp_path).table["path"].tolist()[:2] == ["10.JPG", "11.tif"]

    @pytest.mark.parametrize(
        ("code", "told"),
        [
            ("1121-127-700", "The IRMA code '1121-127-700' has 3 axes; it must have 4"),
            ("1121-12-700-500", "directional axis '12': it has 2 characters and must have 3"),
            ("1121-12F-700-500", "the character 'F' is not one of 0-9 and a-z"),
            ("1121-127-7*0-500", "'*' stands for \"don't know\" and belongs in answers, not in the truth"),
            ("1121-127-705-500", "a character follows '0'"),
        ],
    )
    def test_a_malformed_code_is_told_with_file_line_and_column(self, tmp_path, code, told):
        for table, rows in (("train", {"train": TRAIN | {"15": code}}), ("test", {"test": TEST | {"22": code}})):
            make(tmp_path, **rows)
            line = {"train": 7, "test": 4}[table]
            with fails(f"{table}.csv, line {line}, column 'irma_code': The IRMA code {code!r}"):
                read(tmp_path)
            with fails(told):
                read(tmp_path)
            make(tmp_path)

    def test_an_image_twice_or_nowhere(self, tmp_path):
        make(tmp_path, test=TEST | {"12": "1123-110-500-000"})
        with fails("test.csv, line 4: the image '12' has a row already: "):
            read(tmp_path)
        with fails("train.csv, line 4 (1 repeated rows). Keep one."):
            read(tmp_path)
        make(tmp_path / "b", images=["10", "12", "13", "14", "20"])
        with fails("train.csv, line 3: there is no image '11' below"):
            read(tmp_path / "b")
        with fails("(2 such rows); its file would be named 11.png, or end in .jpg, .jpeg, .tif, .tiff"):
            read(tmp_path / "b")
        make(tmp_path / "c", train=TRAIN | {" ": "1123-110-500-000"}, images=[])
        with fails("train.csv, line 7, column 'image_id': it is blank"):
            read(tmp_path / "c")
        make(tmp_path / "d")
        (tmp_path / "d/10.jpeg").write_bytes(b"x")
        with fails("the image 10 is duplicated: 10.jpeg and images/inner/10.png. Remove one."):
            read(tmp_path / "d")

    def test_missing_parts(self, tmp_path):
        make(tmp_path, images=[])
        with fails("There is no image below"):
            read(tmp_path)
        with fails(
            "absent.csv is missing. Name the table of the collection in params.yaml: the data set's read.test_table"
        ):
            read(tmp_path, test_table="absent.csv")
        (tmp_path / "train.csv").write_text("image_id,irma_code\n10,1121-127-700-500\n")
        with fails("the column 'image_id' is missing"):
            read(tmp_path)


class TestCodeTables:
    NAMES = {axis: f"{axis}.csv" for axis in irma_codes.AXES}

    def test_they_give_names_and_branching_factors(self, tmp_path):
        found = facts(read(make(tmp_path, tables=TABLES), code_tables=self.NAMES))
        assert found.branching == "code tables"
        assert found.names["anatomical"]["31"] == "cervical spine"
        assert found.scheme.branching("directional", "127") == [1, 2, 2]
        assert found.scheme.branching("directional", "110") == [1, 2, 1]

    @pytest.mark.parametrize(
        "header", ["prefix;name\n", "code;description\n", "T;technical\n", "\ufeffprefix;name\n\n"]
    )
    def test_with_a_header_or_without(self, tmp_path, header):
        plain = read(make(tmp_path / "a", tables=TABLES), code_tables=self.NAMES)
        tables = {axis: header + text for axis, text in TABLES.items()}
        assert read(make(tmp_path / "b", tables=tables), code_tables=self.NAMES).facts == plain.facts

    def test_the_one_file_of_the_organisers(self, tmp_path):
        plain = read(make(tmp_path, tables=TABLES), code_tables=self.NAMES)
        text = ""
        for axis, table in TABLES.items():
            text += f"** {axis}\n\n" + re.sub(r"^(\w+);", r"[\1] ", table, flags=re.MULTILINE) + "\n"
        (tmp_path / "code.txt").write_text(text)
        assert read(tmp_path, code_tables="code.txt").facts == plain.facts
        assert read(tmp_path, axis="biological", code_tables="code.txt").labels == ("000", "500")
        (tmp_path / "code.txt").write_text(text.replace("[31]", "31;"))
        with fails("code.txt, line 21: '31; cervical spine' is neither '** <axis>' nor '[prefix] name' below one"):
            read(tmp_path, code_tables="code.txt")
        (tmp_path / "code.txt").write_text(text.partition("** biological")[0])
        with fails("code.txt has 3 lines '** <axis>'; there must be one for each of technical"):
            read(tmp_path, code_tables="code.txt")
        (tmp_path / "code.txt").write_text("[1] x-ray\n" + text)
        with fails("code.txt, line 1: '[1] x-ray' is neither"):
            read(tmp_path, code_tables="code.txt")

    def test_names_may_hold_any_letter_and_sign(self, tmp_path):
        text = TABLES["anatomical"].replace("cervical spine", "\u201eHalswirbels\u00e4ule\u201c; C1, C2")
        found = facts(read(make(tmp_path, tables=TABLES | {"anatomical": text}), code_tables=self.NAMES))
        assert found.names["anatomical"]["31"] == "\u201eHalswirbels\u00e4ule\u201c; C1, C2"
        (tmp_path / "anatomical.csv").write_bytes(text.replace("\u201e", "").replace("\u201c", "").encode("latin-1"))
        with fails("anatomical.csv, line 2: b'31;Halswirbels\\xe4ule; C1, C2' is not UTF-8. Save the file as UTF-8."):
            read(tmp_path, code_tables=self.NAMES)

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("3;spine\n31;cervical\n31;neck\n", "line 3: the prefix '31' is duplicated, see line 2."),
            ("3;spine\n31\n", "line 2: '31' is not of the form prefix;name"),
            ("3;spine\n5;chest\n51a;x\n", "line 3: '51a' is not a prefix of the anatomical axis"),
            ("3;spine\n301;x\n", "line 2: '301' is not a prefix"),
            (
                "3;spine\n3100;x\n",
                "line 2: '3100' is not a prefix of the anatomical axis: a prefix has 1 to 3 characters",
            ),
            ("3;spine\n3A;x\n", "line 2: '3A' is not a prefix"),
            ("prefix;name\n", "anatomical.csv names no prefix of the anatomical axis"),
            ("\n", "anatomical.csv names no prefix of the anatomical axis"),
        ],
    )
    def test_a_wrong_table_is_told_with_file_and_line(self, tmp_path, text, told):
        make(tmp_path, tables=TABLES | {"anatomical": text})
        with fails(told):
            read(tmp_path, code_tables=self.NAMES)

    def test_a_table_too_few_or_missing(self, tmp_path):
        make(tmp_path, tables=TABLES)
        with fails("read.code_tables has no table for the axis 'directional'. Name a table for each of technical"):
            read(tmp_path, code_tables={"technical": "technical.csv"})
        with fails("x.csv is missing. Name the code tables in params.yaml: the data set's read.code_tables"):
            read(tmp_path, code_tables=self.NAMES | {"anatomical": "x.csv"})

    def test_codes_that_the_tables_do_not_have_are_counted_and_used(self, tmp_path):
        tables = TABLES | {
            "anatomical": TABLES["anatomical"].replace("32;thoracic spine\n", "").replace("7;abdomen\n", "")
        }
        found = read(make(tmp_path, tables=tables), code_tables=self.NAMES)
        assert found.notes["codes that the code tables do not have"] == 2  # 700 in train, 320 in test
        assert "1121-127-700-500" in found.labels
        assert facts(found).scheme.branching("anatomical", "700") == [3, 1, 1]


class TestCollect:
    def test_the_manifest_names_every_image_and_table(self, tmp_path):
        root = make(tmp_path / "root", tables=TABLES)
        (root / "inner").mkdir()
        (root / "inner/code.txt").write_text("** T\n")
        (root / "README.md").write_text("not part of it")
        assert loader.collect(root, tmp_path / "out", images=7) == 7
        listed = (tmp_path / "out/manifest.csv").read_text().split()
        assert listed[1] == "images/inner/10.png,2" and len(listed) == 8
        hashed = dict(line.split(",") for line in (tmp_path / "out/tables.csv").read_text().split()[1:])
        assert set(hashed) == {"train.csv", "test.csv", "inner/code.txt", *(f"{axis}.csv" for axis in TABLES)}
        assert hashed["train.csv"] == hashlib.sha256((root / "train.csv").read_bytes()).hexdigest()

    def test_missing_root_and_wrong_count(self, tmp_path):
        with fails(f"There is no folder {tmp_path}/absent. Set datasets.irma.root in params.yaml"):
            loader.collect(tmp_path / "absent", tmp_path / "out", images=0)
        with fails("has 7 images, but datasets.irma.collect.images in params.yaml says 14410"):
            loader.collect(make(tmp_path / "root"), tmp_path / "out", images=14410)


# The phantoms


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    out = tmp_path_factory.mktemp("irma_phantom") / "out"
    assert phantom.collect("unused", out, images=150, size=32, test_fraction=0.4, seed=0) == 150
    return out


class TestPhantom:
    def test_they_are_read_like_the_collection_they_stand_in_for(self, drawn):
        found = phantom.read(drawn, **OPTION_PHANTOM)
        collection.check(found)
        assert len(found.labels) == len(phantom.CODES) == 25
        assert found.notes["images without a code, left out"] >= 1
        assert set(facts(found).truth.values()) <= set(phantom.UNSEEN) and facts(found).truth
        assert "1121-210-200-C00" in found.labels
        assert (found.table["split"] == "train").sum() == 25
        assert 40 < (found.table["split"] == "test").sum() < 70
        assert "codes that the code tables do not have" not in found.notes

    def test_the_same_options_give_the_same_bytes_and_a_larger_collection_begins_with_the_smaller(
        self, drawn, tmp_path
    ):
        phantom.collect("", tmp_path / "again", images=150, size=32, test_fraction=0.4, seed=0)
        phantom.collect("", tmp_path / "fewer", images=120, size=32, test_fraction=0.4, seed=0)
        phantom.collect("", tmp_path / "other", images=30, size=32, test_fraction=0.4, seed=1)
        files = {path.relative_to(drawn) for path in drawn.rglob("*.*")}
        assert files == {path.relative_to(tmp_path / "again") for path in (tmp_path / "again").rglob("*.*")}
        for path in files:
            assert (drawn / path).read_bytes() == (tmp_path / "again" / path).read_bytes(), path
        for path in (tmp_path / "fewer").rglob("*.png"):
            assert path.read_bytes() == (drawn / path.relative_to(tmp_path / "fewer")).read_bytes()
        assert (tmp_path / "other/train/0.png").read_bytes() != (drawn / "train/0.png").read_bytes()

    def test_every_code_is_in_the_code_tables_and_drawn_in_grey_with_contrast(self):
        scheme = irma_codes.Scheme.from_tables(irma_drawings.TABLES)
        for code in (*phantom.CODES, *phantom.UNSEEN):
            picture = irma_drawings.draw(code, numpy.random.default_rng(0), 48)
            assert picture.dtype == numpy.uint8 and picture.shape[1] == 48 and 43 <= picture.shape[0] <= 58
            assert picture.std() > 20, code
            for axis, text in zip(irma_codes.AXES, irma_codes.parse(code), strict=True):
                if not irma_codes.is_clutter(text):
                    for place, character in enumerate(text.rstrip("0")):
                        assert character in scheme.following[axis][text[:place]], (code, axis)

    @pytest.mark.parametrize(
        ("one", "other"),
        [
            ("1121-127-700-500", "1123-127-700-500"),
            ("1121-127-700-500", "1200-127-700-500"),
            ("1121-127-700-500", "2000-127-700-500"),
            ("1123-110-500-000", "1123-120-500-000"),
            ("1123-120-500-000", "1123-127-500-000"),
            ("1121-210-200-700", "1121-220-200-700"),
            ("1121-120-200-700", "1121-210-200-700"),
            ("1121-120-310-700", "1121-120-330-700"),
            ("1121-110-414-700", "1121-110-415-700"),
            ("1121-127-700-400", "1121-127-700-500"),
            ("1121-127-700-000", "1121-127-700-500"),
            ("1121-120-310-700", "1121-120-310-000"),
        ],
    )
    def test_each_axis_shows(self, one, other):
        """With the same dice only the code can make a difference."""

        def film(code, seed):
            picture = Image.fromarray(irma_drawings.draw(code, numpy.random.default_rng(seed), 64)).resize((64, 64))
            return numpy.asarray(picture, dtype=float)

        # Not every film has a lead mark.
        assert max(numpy.abs(film(one, seed) - film(other, seed)).mean() for seed in range(4)) > 1
        assert numpy.array_equal(film(one, 0), film(one, 0)) and not numpy.array_equal(film(one, 0), film(one, 1))

    def test_too_few_images_for_a_test_image(self, tmp_path):
        with fails("among 25 images none is a test image"):
            phantom.collect("", tmp_path / "out", images=25, size=32, test_fraction=0.3, seed=0)
