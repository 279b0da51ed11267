"""The installable package: what it holds, where its facts come from, and that it runs from where it was installed."""

import subprocess
import sys
from email.parser import HeaderParser

import pytest
import yaml

from tests.trees import TOP

pytest.importorskip("setuptools", reason="the package cannot be built without setuptools")
CITATION = yaml.safe_load((TOP / "CITATION.cff").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with `lib`, what would be installed, and `severity.egg-info`, its metadata."""
    folder = tmp_path_factory.mktemp("built")
    command = ["setup.py", "-q", "egg_info", "--egg-base", folder, "build", "--build-base", folder]
    done = subprocess.run([sys.executable, *command], cwd=TOP, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def paths(folder):
    return {
        path.relative_to(folder).as_posix()
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_it_holds_every_file_of_the_package_and_every_tree(built):
    wanted = {f"severity/{path}" for path in paths(TOP / "severity")}
    wanted |= {f"severity/hierarchies/{path.name}" for path in (TOP / "data/hierarchies").glob("*.yaml")}
    assert paths(built / "lib") == wanted


def test_its_facts_are_those_of_the_citation(built):
    about = HeaderParser().parsestr((built / "severity.egg-info/PKG-INFO").read_text(encoding="utf-8"))
    assert about["Version"] == CITATION["version"]
    assert about["Summary"] == CITATION["title"]
    assert CITATION["license"] in (about["License"], about["License-Expression"])
    assert about["Keywords"].split(",") == CITATION["keywords"]
    assert set(about.get_all("Provides-Extra")) == {"train", "pipeline", "dicom"}


def test_installed_it_finds_its_trees_far_from_the_checkout(built, tmp_path):
    code = "import severity; tree = severity.read_tree('chexpert'); print(severity.__file__, len(tree.classes))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env={"PYTHONPATH": str(built / "lib")},
        capture_output=True,
        text=True,
    )
    assert done.stdout.split() == [str(built / "lib/severity/__init__.py"), "14"], done.stderr
