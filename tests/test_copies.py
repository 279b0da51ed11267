"""In DVC's copy for --queue and --temp, which holds only what git and DVC track, messages say where the missing is."""

from pathlib import Path

import pytest

from severity.collections import external_files
from severity.core import files
from severity.core.errors import SeverityError
from severity.datasets import chexpert, own
from severity.networks import checkpoints
from severity.tree import trees


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project, and this process in a copy of it, as DVC makes one."""
    copy = tmp_path / ".dvc/tmp/exps/standalone/tmpabc"
    copy.mkdir(parents=True)
    monkeypatch.chdir(copy)
    return tmp_path


DOORS = {
    "data/external/own": lambda: own.collect("data/external/own", "data/raw/own", table="labels.csv", columns={}),
    "data/external/chexpert": lambda: chexpert.collect("data/external/chexpert", "data/raw/chexpert", images=0),
    "data/hierarchies/mine.yaml": lambda: trees.named("data/hierarchies", "mine", ("a", "b")),
    "data/external_predictions/net-ce-0.csv": lambda: external_files.find("data/external_predictions", "net-ce-0"),
    "weights/a.pth": lambda: checkpoints.read("weights/a.pth"),
}


@pytest.mark.parametrize("path", DOORS)
def test_what_is_in_the_project_alone_is_named_with_the_ways_into_the_copy(project, path):
    with pytest.raises(SeverityError) as caught:
        DOORS[path]()
    assert "--copy-paths" not in str(caught.value)  # it is nowhere
    there = project / path
    there.parent.mkdir(parents=True)
    there.write_text("x") if there.suffix else there.mkdir()
    with pytest.raises(SeverityError) as caught:
        DOORS[path]()
    said = str(caught.value)
    assert str(project) in said and f"--copy-paths {path}" in said and "git add" in said and "absolute" in said


def test_in_the_project_itself_and_of_absolute_paths_nothing_is_added(project, monkeypatch):
    (project / "a").mkdir()
    assert files.beside_copy("a") and files.beside_copy(Path("a"))
    assert files.beside_copy(project / "a") == ""
    monkeypatch.chdir(project)
    assert files.beside_copy("a") == ""
