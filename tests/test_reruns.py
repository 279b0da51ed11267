"""What a change reruns: the table of docs/graph.md, row by row, on the real graph with stubs for commands.

DVC says which stages a change reaches at once. What follows from them is computed from the graph that DVC resolved, as if
each stage wrote something new; `dvc repro` is really run for a few of the edits and must run exactly that.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, TextIO

import pytest
import ruamel.yaml
import yaml

from tests.study import inside
from tests.test_graph import outs, paths_in
from tests.trees import TOP

PAGE = (TOP / "docs/graph.md").read_text(encoding="utf-8")
EXTERNAL = "other-ce-0"
# What an out does not depend on although its stage does: the tree is what it is whatever a mistake costs.
APART = {"data/hierarchy": ("cost", "${cost.file}")}
# Edits that change no out of the stages that they run: another collection's tree or reader is looked through, and left.
WITHOUT_EFFECT = {"data/hierarchies/nih14.yaml", "severity/datasets/nih14.py"}
LEFT_BY_EDITORS = (
    "severity/core/runs.py~", "severity/core/.runs.py.swp", "severity/core/#runs.py#", "severity/.DS_Store",
    "severity/core/__pycache__/runs.cpython-311.pyc", "data/hierarchies/.idea/workspace.xml", "data/costs/.costs.csv.swo",
    "plots/scores/.ipynb_checkpoints/tradeoff.csv", "data/prepared/Thumbs.db",
)  # fmt: skip


# --- The table --------------------------------------------------------------------------------------------------------


def words() -> dict[str, list[str]]:
    """The words of the page that stand for several stages."""
    return {word: re.findall(r"`(.+?)`", line) for word, line in re.findall(r"^- \*(\w+)\*: (.+)$", PAGE, re.MULTILINE)}


def rows() -> dict[str, list[str]]:
    """Edit -> patterns of the stages that run."""
    found = {}
    for line in re.findall(r"^\| .+ \|$", PAGE.split("| edit |")[1], re.MULTILINE)[1:]:
        _, _, edit, runs, _ = (cell.strip() for cell in line.split("|"))
        stages = [name for word in re.findall(r"\*(\w+)\*", re.sub("`.+?`", "", runs)) for name in words()[word]]
        found[edit.strip("`")] = re.findall("`(.+?)`", runs) + stages
        assert found[edit.strip("`")] or runs == "nothing", line
    return found


# --- The workspace ----------------------------------------------------------------------------------------------------


def params_of_two_losses() -> dict[str, Any]:
    """Four runs and an external one; without the sections that nothing of it reads, for DVC reads them often."""
    params = yaml.safe_load((TOP / "params.yaml").read_text())
    params["grid"] = {"backbone": ["tiny_resnet", "resnet18"], "loss": ["ce", "hxe"], "seed": [0]}
    params["external"]["runs"] = [EXTERNAL]
    for section, names in (("backbones", params["grid"]["backbone"]), ("losses", params["grid"]["loss"])):
        params[section] = {name: params[section][name] for name in names}
    params["datasets"] = {"phantom": params["datasets"]["phantom"]}
    return params


def graph_of_stubs() -> dict[str, Any]:
    """The real dvc.yaml, with the stub for every command."""
    graph = yaml.safe_load((TOP / "dvc.yaml").read_text())
    for name, stage in graph["stages"].items():
        written = {out: APART.get(out, []) for out in sorted(outs(name))}
        reads = {"reads": sorted(paths_in(stage["deps"])), "params": stage["params"], "outs": written}
        stage["cmd"] = f"exec {sys.executable} -I -S stub.py '{json.dumps(reads)}'"
    return graph


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Iterator[Path]:
    """A workspace where every stage has run."""
    folder = tmp_path_factory.mktemp("reruns") / "project"
    for name in ("stages", "severity", "data/costs", "data/external_predictions", "data/hierarchies"):
        shutil.copytree(TOP / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", ".*"))
    shutil.copy(TOP / ".dvcignore", folder)
    shutil.copy(TOP / "tests/stub.py", folder)
    (folder / ".dvc").mkdir()
    shutil.copy(TOP / ".dvc/config", folder / ".dvc")
    (folder / "plots").mkdir()
    (folder / "plots/README.md").write_text("What each figure shows.\n")
    (folder / "dvc.yaml").write_text(json.dumps(graph_of_stubs()))
    (folder / "params.yaml").write_text(json.dumps(params_of_two_losses()))
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DVC_SITE_CACHE_DIR", str(folder.parent / "site-cache"))
        patch.setenv("DVC_NO_ANALYTICS", "1")
        patch.setattr("ruamel.yaml.YAML", Json)
        assert len(reproduced(folder)) > 20
        yield folder


@pytest.fixture
def workspace(finished, tmp_path) -> Path:
    """A copy of it, to run in."""
    return Path(shutil.copytree(finished, tmp_path / "project", symlinks=True))


class Json(ruamel.yaml.YAML):
    """The parser that DVC reads and writes all its files with, for files that are JSON: that is YAML, and far quicker."""

    def load(self, stream: str) -> Any:
        return json.loads(stream)

    def dump(self, data: Any, stream: TextIO) -> None:
        json.dump(data, stream)


@contextmanager
def dvc(folder: Path) -> Iterator[Any]:
    from dvc.repo import Repo  # Half a second, which only these tests need.

    with inside(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what DVC's own dependencies announce
        with Repo(folder) as repo:
            yield repo


def reproduced(folder: Path) -> set[str]:
    """The stages that `dvc repro` runs."""
    with dvc(folder) as repo:
        return {stage.addressing for stage in repo.reproduce()}


def would_run(folder: Path, edit: str = "") -> tuple[set[str], list[str]]:
    """The stages that run after an edit if all that they write changes, and the names of all stages."""
    with dvc(folder) as repo:
        changed = set(repo.status())
        stages = {stage.addressing: stage for stage in repo.index.stages}
        reads = {name: [str(dep) for dep in stage.deps if dep.protocol == "local"] for name, stage in stages.items()}
        writes = {name: [str(out) for out in stage.outs] for name, stage in stages.items()}
    ran: set[str] = set()
    todo = changed
    while todo:
        ran |= todo
        new = {out for name in ran for out in writes[name] if altered(out, name in changed, edit)}
        todo = {name for name in stages if any(overlap(dep, out) for dep in reads[name] for out in new)} - ran
    return ran, list(stages)


def altered(out: str, at_once: bool, edit: str) -> bool:
    """Whether an out is another after the edit, by which its stage was changed at once or by what another stage wrote."""
    apart = any(f"{edit}.".startswith(f"{each}.") for each in APART.get(out, ())) or edit.startswith("data/costs/")
    return not at_once or not (edit in WITHOUT_EFFECT or (out in APART and apart))


def overlap(dep: str, out: str) -> bool:
    return dep == out or dep.startswith(f"{out}{os.sep}") or out.startswith(f"{dep}{os.sep}")


@contextmanager
def edited(folder: Path, edit: str) -> Iterator[None]:
    """A file with a line more, or a value of params.yaml that is another, for the length of the block."""
    path = folder / edit if (folder / edit).is_file() else folder / "params.yaml"
    before = path.read_bytes()
    if path.name == "params.yaml":
        params = json.loads(before)
        *sections, key = edit.split(".")
        section = params
        for name in sections:
            section = section[name]
        section[key] = another(section[key])
        path.write_text(json.dumps(params))
    else:
        path.write_bytes(before + b"# changed\n")
    try:
        yield
    finally:
        path.write_bytes(before)


def another(value: Any) -> Any:
    """A value of the same type."""
    match value:
        case bool():
            return not value
        case int() | float():
            return value + 1
        case str():
            return f"{value}-new"
        case list():
            return [*value, "new"]
        case dict():
            return value | {"new": 1}
    raise TypeError(value)


# --- Tests ------------------------------------------------------------------------------------------------------------


def test_a_second_repro_runs_nothing(finished):
    assert would_run(finished)[0] == set()
    assert reproduced(finished) == set()


@pytest.mark.parametrize("edit", rows())
def test_a_change_reruns_what_the_table_says(finished, edit):
    with edited(finished, edit):
        ran, stages = would_run(finished, edit)
    matches = {pattern: {name for name in stages if fnmatch(name, pattern)} for pattern in rows()[edit]}
    assert not (idle := [pattern for pattern, names in matches.items() if not names]), f"no stage is {idle}"
    assert ran == set().union(*matches.values())


def test_the_table_has_every_kind_of_edit():
    assert len(rows()) >= 30
    assert set(words()) == {"networks", "scores"}
    folders = {edit.split("/")[1] for edit in rows() if edit.startswith("severity/")}
    assert {"losses", "metrics", "decisions", "figures", "datacard", "report", "summary", "comparison"} <= folders
    assert {"losses", "backbones", "cost", "compare", "explain", "machine"} <= {edit.split(".")[0] for edit in rows()}


def test_what_is_computed_is_what_dvc_runs(workspace):
    for edit in ("severity/report/templates/page.html", "cost.name"):
        with edited(workspace, edit):
            expected, _ = would_run(workspace, edit)
            assert expected and reproduced(workspace) == expected, edit


def test_what_editors_and_systems_leave_changes_nothing(workspace):
    for name in LEFT_BY_EDITORS:
        (workspace / name).parent.mkdir(parents=True, exist_ok=True)
        (workspace / name).write_text("left\n")
    (workspace / "severity/core/.#runs.py").symlink_to("somebody@somewhere.1234")
    assert would_run(workspace)[0] == set()
    (workspace / "severity/core/stray.py").write_text("# a module is no leaving\n")
    assert "evaluate" in would_run(workspace)[0]


def test_a_stray_run_is_noticed_where_runs_are_read(workspace):
    (workspace / "data/predictions/resnet18-ce-9.npz").write_bytes(b"left from another grid")
    with dvc(workspace) as repo:
        assert set(repo.status()) == {"evaluate", "compare", "explain"}
