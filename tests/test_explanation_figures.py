"""The pictures of a case: what is drawn is what was found, and the same data give the same bytes."""

import numpy
import pandas
import pytest
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from severity.core import tables
from severity.drawing import pictures
from severity.explanation import figures as explanation_figures
from severity.explanation.explained_images import Case
from severity.explanation.explanation import Explanation, Maps
from tests.trees import six_classes

TREE = six_classes()
SIDE = 16
BOXES = pandas.DataFrame([("x", "b1", 0.25, 0.5, 0.75, 1.0)], columns=["id", "label", "left", "top", "right", "bottom"])


def case(decision: str, *truth: str, name: str = "most_2", severity: float | None = 3.0) -> Case:
    return Case(name, "x", 0, TREE.classes.index(decision), tuple(TREE.classes.index(each) for each in truth), severity)


def steps_of(chosen: Case) -> pandas.DataFrame:
    rows = []
    for label in chosen.classes:
        path = TREE.ancestors(TREE.class_nodes[label])[::-1]
        for depth, node in enumerate(path):
            # What a node holds is its share of the classes: any numbers that fall down each path will do.
            probability = len(TREE.classes_below[node]) / 6
            rows.append((TREE.classes[label], chosen.role(label), depth, TREE.names[node], probability, 0.5))
    return pandas.DataFrame(rows, columns=["label", "role", "depth", "node", "probability", "given_parent"])


def explained(chosen: Case, *, cold: int = 0, boxes: pandas.DataFrame = BOXES) -> Explanation:
    """Made-up heat; the last `cold` classes have none."""
    random = numpy.random.default_rng(0)
    labels = [TREE.classes[label] for label in chosen.classes]
    heat = random.random((len(labels), SIDE, SIDE)).astype(numpy.float32)
    heat[len(labels) - cold :] = 0
    cams = pandas.DataFrame({"case": chosen.name, "id": chosen.id, "label": labels})
    inside = [("most_2", "x", label, box, 0.25, 0.4321, 1.0) for label in labels for box in boxes["label"]]
    maps = [
        Maps(f"layer{places}", 9, numpy.arange(3), numpy.ones(3), random.random((3, places, places)))
        for places in (8, 4)
    ]
    return Explanation(
        cams=cams.assign(
            role=[chosen.role(label) for label in chosen.classes],
            log_posterior=[-0.5 - place for place in range(len(labels))],
            layer="layer4.1",
            places=4,
            largest=heat.max(axis=(1, 2)),
        ),
        weighed=heat[:, ::4, ::4],
        heatmaps=heat,
        inside=pandas.DataFrame(inside, columns=["case", "id", "label", "box", "box_area", "energy", "hit"]),
        maps=maps,
    )


def draw(chosen: Case, boxes: pandas.DataFrame = BOXES, **changes) -> tuple[pictures.Picture, Explanation]:
    found = explained(chosen, boxes=boxes, **changes)
    image = numpy.arange(SIDE * SIDE, dtype=numpy.uint8).reshape(SIDE, SIDE)
    picture = explanation_figures.draw_case(
        chosen, image=image, boxes=boxes, steps=steps_of(chosen), explained=found, hierarchy=TREE,
        facts="net-ce-0 under crm, made up", unit="lca_height",
    )  # fmt: skip
    return picture, found


def words(picture: pictures.Picture) -> list[str]:
    return [" ".join(text.get_text().split()) for text in picture.figure.findobj(Text) if text.get_text().strip()]


def panels(picture: pictures.Picture) -> list:
    """The axes with images, in the order in which they are read, without the scale."""
    return [axes for axes in picture.figure.findobj(lambda each: hasattr(each, "get_images")) if axes.get_images()]


def test_a_case_shows_the_image_and_the_heat_of_each_class():
    chosen = case("b1", "d1", "b2")
    picture, found = draw(chosen)
    first, *rest = panels(picture)
    assert [" ".join(axes.get_title().split()) for axes in rest] == ["decision: b1", "truth: d1", "truth: b2"]
    for axes, warm, score in zip(rest, found.heatmaps, found.cams["log_posterior"], strict=True):
        image, heat = axes.get_images()
        assert (image.get_array() == first.get_images()[0].get_array()).all()
        numpy.testing.assert_allclose(heat.get_array(), warm / warm.max())
        colours = heat.cmap(numpy.linspace(0, 1, 5))
        assert colours[0, 3] == 0 and (numpy.diff(colours[:, 3]) > 0).all()  # Where it is cold the image shows.
        told = " ".join(axes.get_xlabel().split())
        assert f"log p = {score:.3g} (p = {numpy.exp(score):.3g})" in told
        assert "in box b1: 0.432 of heat, 0.25 of image, hottest place inside" in told
    told = words(picture)
    assert any("Most severe mistake 2: x" in each for each in told)
    assert any("decision: b1; severity 3 (lca_height); truth: d1, b2" in each for each in told)
    assert any("layer4.1 (4 x 4 places)" in each for each in told)


def test_lines_say_what_colours_say():
    picture, found = draw(case("b1", "d1"))
    for axes, warm in zip(panels(picture)[1:], found.heatmaps, strict=True):
        (lines,) = [each for each in axes.collections if hasattr(each, "levels")]
        assert lines.levels.tolist() == [0.25, 0.5, 0.75] and warm.min() < 0.25 * warm.max()
        assert len(set(map(str, lines.get_linestyle()))) == 3


def test_boxes_lie_where_they_should():
    picture, _ = draw(case("b1", "d1"))
    for axes in panels(picture):
        (box,) = [each for each in axes.patches if isinstance(each, Rectangle)]
        # A quarter of 16 pixels from the left: the edge between the pixels 3 and 4, whose centres are at 3 and 4.
        assert (box.get_x(), box.get_y(), box.get_width(), box.get_height()) == (3.5, 7.5, 8, 8)
        assert "b1" in [text.get_text() for text in axes.texts]


def test_nodes_are_told_once_each_below_its_parent():
    chosen = case("d1", "d2", "a")
    picture, _ = draw(chosen)
    axes = next(each for each in picture.figure.findobj(lambda each: hasattr(each, "get_images")) if each.patches)
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert [name.strip() for name in names] == ["node 0", "a", "node 5", "node 7", "d1", "d2"]
    indents = [len(name) - len(name.lstrip()) for name in names]
    assert indents == [2 * depth for depth in (0, 1, 1, 2, 3, 3)]
    bars = {round(bar.get_y() + bar.get_height() / 2): bar for bar in axes.patches}
    assert [bars[row].get_width() for row in range(6)] == pytest.approx([1, 1 / 6, 3 / 6, 2 / 6, 1 / 6, 1 / 6])
    looks = [bars[row].get_hatch() for row in range(6)]
    assert looks == [None, "..", None, None, "//", ".."]  # both paths, truth, both, both, decision, truth


def test_the_table_is_the_paths(tmp_path):
    chosen = case("b1", "d1")
    picture, _ = draw(chosen)
    pictures.write(picture, tmp_path / "case")
    table = pandas.read_csv(tmp_path / "case.csv")
    pandas.testing.assert_frame_equal(table, steps_of(chosen), rtol=1e-9)


@pytest.mark.parametrize(
    ("chosen", "told"),
    [
        (case("b1", name="chosen_1", severity=None), ["Chosen image 1: x", "severity n/a (lca_height); truth: n/a"]),
        (
            case("b1", "b1", name="chosen_3", severity=0.0),
            ["decision and truth: b1", "severity 0 (lca_height); truth: b1"],
        ),
        (case("b1", *TREE.classes[::-1], name="least_1"), ["Least severe mistake 1: x", "truth: a"]),
    ],
)
def test_cases_of_every_kind_are_drawn(chosen, told, tmp_path):
    picture, found = draw(chosen, BOXES[:0])
    assert len(panels(picture)) == 1 + len(found.cams)
    for each in told:
        assert any(each in text for text in words(picture)), each
    pictures.write(picture, tmp_path / "case")


def test_where_there_is_no_heat_it_is_said():
    picture, _ = draw(case("b1", "d1"), cold=1)
    _, warm, cold = panels(picture)
    assert len(warm.get_images()) == 2 and len(cold.get_images()) == 1
    assert "n/a: no heat" in [text.get_text() for text in cold.texts]
    assert "largest heat 0" in cold.get_xlabel()


def test_even_heat_has_no_lines_to_draw(tmp_path):
    chosen = case("b1", "d1")
    found = explained(chosen)
    found.heatmaps[:] = 0.5
    picture = explanation_figures.draw_case(
        chosen, image=numpy.zeros((SIDE, SIDE), numpy.uint8), boxes=BOXES, steps=steps_of(chosen), explained=found,
        hierarchy=TREE, facts="", unit="path",
    )  # fmt: skip
    pictures.write(picture, tmp_path / "case")
    assert all(len(axes.get_images()) == 2 for axes in panels(picture)[1:])


def test_maps_are_drawn_each_on_its_own_scale(tmp_path):
    chosen = case("b1", "d1")
    found = explained(chosen)
    picture = explanation_figures.draw_maps(chosen, maps=found.maps, facts="net-ce-0")
    images = picture.figure.findobj(AxesImage)
    wanted = [values for each in found.maps for values in each.values]
    for image, values in zip(images, wanted, strict=True):
        assert (image.get_array() == values).all()
        assert image.get_clim() == (values.min(), values.max())
    assert picture.table["layer"].tolist() == ["layer8"] * 3 + ["layer4"] * 3
    assert picture.table["largest"].tolist() == [values.max() for values in wanted]
    assert any("largest mean absolute value" in each for each in words(picture))
    pictures.write(picture, tmp_path / "maps")


def test_a_layer_with_fewer_maps_leaves_places_free(tmp_path):
    found = explained(case("b1", "d1"))
    few = Maps("stem", 1, numpy.array([0]), numpy.array([2.0]), numpy.ones((1, 8, 8)))
    picture = explanation_figures.draw_maps(case("b1", "d1"), maps=[few, *found.maps], facts="")
    assert len(picture.figure.findobj(AxesImage)) == 1 + 6
    pictures.write(picture, tmp_path / "maps")


def test_the_same_data_give_the_same_bytes(tmp_path):
    for name in ("first", "second"):
        picture, found = draw(case("b1", "d1", "a"))
        pictures.write(picture, tmp_path / name / "case")
        maps = explanation_figures.draw_maps(case("b1", "d1"), maps=found.maps, facts="")
        pictures.write(maps, tmp_path / name / "maps")
    for path in (tmp_path / "first").iterdir():
        assert path.read_bytes() == (tmp_path / "second" / path.name).read_bytes()
    assert tables.read(tmp_path / "first/maps.csv", ("layer",), ("strength",), "")["strength"].tolist() == [1.0] * 6
