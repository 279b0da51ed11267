"""What figures do with names that are hard to draw: other scripts, and thousands of characters."""

import matplotlib
import pandas
import pytest
from matplotlib.figure import Figure

from severity.core.hierarchy import Hierarchy
from severity.drawing import fonts, pictures, short_names
from severity.drawing.pictures import Picture


def picture(text: str, **options) -> Picture:
    figure = Figure(figsize=(3, 1))
    figure.text(0.1, 0.5, text, **options)
    return Picture(figure, pandas.DataFrame({"x": [text]}), "caption")


@pytest.fixture
def untold(monkeypatch):
    monkeypatch.setattr(fonts, "_told", set())


def test_what_the_font_lacks_is_drawn_with_another(tmp_path, capsys, untold):
    pictures.write(picture("Ж and Ω", family="cmr10"), tmp_path / "other")
    assert capsys.readouterr().err == ""
    glyphs = (tmp_path / "other.svg").read_text()
    assert "Cmr10-" in glyphs and f"-{ord('Ж'):x}" in glyphs


def test_what_no_font_has_is_told_in_one_line_once(tmp_path, capsys, untold):
    for name in ("first", "second"):
        pictures.write(picture("A \U00014400\U00014401"), tmp_path / name)
    told = capsys.readouterr().err
    assert len(told.splitlines()) == 1 and "2 of the characters" in told
    assert (tmp_path / "second.svg").exists() and (tmp_path / "second.csv").read_text() == "x\nA 𔐀𔐁\n"


def test_latin_figures_do_not_ask_what_is_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(fonts, "_installed", lambda: pytest.fail("it was asked"))
    pictures.write(picture("Größe"), tmp_path / "latin")
    assert (tmp_path / "latin.png").exists()


def test_the_users_fonts_count_and_no_other_setting(tmp_path):
    drawn = pictures.styled(lambda: pictures.write(picture("words"), tmp_path / "one"))
    with matplotlib.rc_context({"font.family": "serif", "font.size": 30, "savefig.facecolor": "red"}):
        drawn()
    svg = (tmp_path / "one.svg").read_text()
    assert "DejaVuSerif" in svg and "#ff0000" not in svg
    drawn()
    assert "DejaVuSerif" not in (tmp_path / "one.svg").read_text()


def test_long_names_are_short_in_figures_and_full_in_tables():
    long, other = "x" * 5000, "x" * 4999 + "y"
    tree = Hierarchy.from_parents([-1, 0, 0, 0], [1, 2, 3], [long, other, "short"])
    given = {}

    def draw(study, tree, *, frame):
        given.update(study=study, tree=tree, frame=frame)
        return {"one": Picture(Figure(), frame.assign(label=list(tree.classes)), "")}

    frame = pandas.DataFrame({long: [1, 2, 3], "name": [other, "short", "z"]})
    drawn = short_names.drawn(draw, {"labels": {long: [other]}}, tree, frame=frame, names=tree.names)
    ((short, (also,)),) = given["study"]["labels"].items()
    assert short != also and max(map(len, (short, also, *given["tree"].names))) <= short_names.LONGEST
    assert given["tree"].classes == (short, also, "short") and given["frame"].columns[0] == short
    table = drawn["one"].table
    assert table.columns[0] == long and table["name"].tolist() == [other, "short", "z"]
    assert table["label"].tolist() == [long, other, "short"]


def test_usual_names_are_left_alone():
    study = object()
    assert short_names.drawn(lambda each: each, study, names=["Edema", "Lung Opacity"]) is study
