"""The installable package: what it holds, where its facts come from, and that it runs from where it was installed."""

import ast
import re
import subprocess
import sys
from email.parser import HeaderParser

import pytest
import yaml

from tests.trees import TOP

pytest.importorskip("setuptools", reason="the package cannot be built without setuptools")
IMPORTED_AS = {"PIL": "pillow", "yaml": "pyyaml", "sklearn": "scikit-learn"}  # where it is not the package's name
ON_THEIR_OWN = {"medmnist", "openpyxl"}  # requirements-extra.txt; what needs one says so when it is missing
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


def test_every_library_that_is_imported_is_a_dependency_or_in_an_extra(built):
    lines = (built / "severity.egg-info/requires.txt").read_text(encoding="utf-8").splitlines()
    declared = {re.match(r"[\w-]+", line)[0].lower() for line in lines if line and not line.startswith("[")}
    imported = set()
    for path in (TOP / "severity").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            imported |= {name.partition(".")[0] for name in names}
    outside = imported - set(sys.stdlib_module_names) - {"severity"}
    assert {"numpy", "torch", "matplotlib"} <= outside
    assert {IMPORTED_AS.get(name, name).lower() for name in outside} - ON_THEIR_OWN <= declared


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
