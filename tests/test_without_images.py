"""Studies of external predictions alone: how they are known, and what the stages that want images leave."""

import importlib
from xml.etree import ElementTree

import pandas
import pytest
import yaml
from PIL import Image

from severity.core import runs, without_images
from severity.core.errors import SeverityError
from severity.drawing import pictures
from severity.figures import catalogue
from tests import golden, study
from tests.test_graph import STAGES, outs

SUFFIXES = (".png", ".svg", ".csv", ".caption.txt")
WANTING = ("decode", "prepare", "describe", "illustrate", "explain")


@pytest.fixture
def folder(tmp_path):
    """Nothing but the params of such a study."""
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(golden.settings()))
    with study.inside(tmp_path):
        yield tmp_path


def run(stage: str) -> None:
    importlib.import_module(f"stages.{stage}").main()


def test_the_truth_says_which_study_it_is():
    assert without_images.without_images(golden.settings())
    assert not without_images.without_images(golden.settings(truth=runs.PREPARED))
    assert not without_images.without_images(study.settings_of({"backbone": ["resnet18"], "loss": ["ce"], "seed": [0]}))


@pytest.mark.parametrize("external", [[], ["sigmoids-bce-0"]])
def test_a_grid_wants_images_and_is_refused(external):
    settings = golden.settings(runs=external)
    settings["grid"]["seed"] = [0]
    with pytest.raises(
        SeverityError, match=r"external.truth is 'data/collection'.*Set external.truth to data/prepared, or empty"
    ):
        without_images.without_images(settings)


@pytest.mark.parametrize("stage", WANTING)
def test_a_stage_that_wants_images_says_why_not_and_leaves_all_that_the_graph_expects_and_no_more(
    stage, folder, capsys
):
    run(stage)
    assert capsys.readouterr().out == f"{without_images.WHY}\n"
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {"params.yaml"}
    figures = {f"plots/{stem}" for stem, figure in catalogue.FIGURES.items() if figure.stage == stage}
    notes = {f"{out}/{without_images.NOTE}" for out in outs(stage) if not any(each.startswith(out) for each in figures)}
    assert there and there == notes | {f"{stem}{suffix}" for stem in figures for suffix in SUFFIXES}
    for path in there:  # Each can be read as what it is.
        if path.endswith(".png"):
            with Image.open(path) as picture:
                assert min(picture.size) > 100
        elif path.endswith(".csv"):
            assert pandas.read_csv(path).to_numpy().tolist() == [[without_images.WHY]]
        elif path.endswith(".svg"):
            assert ElementTree.parse(path).getroot().tag.endswith("svg")
        else:
            assert (folder / path).read_text() == f"{without_images.WHY}\n"


@pytest.mark.parametrize("stage", WANTING)
def test_nothing_stays_of_the_study_before(stage, folder):
    before = [folder / out / "old.csv" for out in outs(stage)]
    assert before
    for path in before:
        path.parent.mkdir(parents=True)
        path.write_text("old")
    run(stage)
    assert not [path for path in before if path.exists()]


@pytest.mark.parametrize("stage", WANTING)
def test_what_is_trained_does_not_go_without_images(stage, folder):
    settings = study.settings_of({"backbone": ["resnet18"], "loss": ["ce"], "seed": [0]})
    settings["external"]["runs"] = ["sigmoids-bce-0"]
    (folder / "params.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(SeverityError, match="is missing"):
        run(stage)


@pytest.mark.parametrize("stage", [*WANTING, "report"])
def test_a_stage_runs_again_when_the_truth_changes(stage):
    assert {"external", "external.truth"} & set(STAGES[stage]["params"])


def test_a_figure_that_is_left_out_has_the_reason_for_its_caption_and_the_same_bytes_each_time(tmp_path):
    for name in ("a", "b"):
        pictures.write(pictures.left_out("mistakes", without_images.WHY), tmp_path / name)
    assert (tmp_path / "a.caption.txt").read_text() == f"{without_images.WHY}\n"
    for suffix in ("png", "svg"):
        assert (tmp_path / f"a.{suffix}").read_bytes() == (tmp_path / f"b.{suffix}").read_bytes()
