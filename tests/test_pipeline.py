"""The real graph on toy data, end to end: what a study leaves, the same bytes for the same params, other collections.

What a change reruns is tested without running anything real: tests/test_reruns.py. One study is run here; the tests that
change something do so in copies of it.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy
import pytest
import safetensors.numpy
import yaml
from PIL import Image

from severity.core.without_images import WHY
from severity.datasets import nih14
from severity.figures import catalogue
from tests import golden
from tests.trees import TOP

# A loss without weights of its own, and one with.
RUNS = [f"{backbone}-{loss}-0" for backbone in ("test_resnet", "test_efficientnet") for loss in ("ce", "haf")]
BEFORE = ["collect", "read", "decode", "prepare", "describe", "hierarchy"]
AFTER = ["evaluate", "aggregate", "compare", "plot", "illustrate", "explain", "report"]
SUFFIXES = (".png", ".svg", ".csv", ".caption.txt")


def tiny(params: dict) -> dict:
    """The smallest study that still has everything: two backbones, two losses, one seed."""
    params["datasets"]["phantom"]["collect"] |= {"images": 160, "size": 64}
    params["decode"]["size"] = 32
    params["prepare"] |= {"min_positives": 0, "validation_fraction": 0.3}
    params["grid"] = {"backbone": ["test_resnet", "test_efficientnet"], "loss": ["ce", "haf"], "seed": [0]}
    for name in params["grid"]["backbone"]:
        params["backbones"][name] = {"model": name, "pretrained": False}
    params["train"] |= {"epochs": 1, "warmup_epochs": 0.5}
    params["compare"] |= {"resamples": 100, "permutations": 999}
    params["explain"] |= {"mistakes": 1, "maps": 2}
    return params


class Workspace:
    def __init__(self, folder: Path):
        self.folder = folder
        self.environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_SITE_CACHE_DIR": str(folder.parent / "site-cache"),
            "DVC_NO_ANALYTICS": "1",
            "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2"),
        }
        for name in ("PYTHONPATH", "PYTHONWARNINGS"):
            self.environment.pop(name, None)

    def run(self, *command: str, fails: bool = False) -> str:
        done = subprocess.run(command, cwd=self.folder, env=self.environment, text=True, capture_output=True)
        assert (done.returncode != 0) == fails, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def repro(self, *arguments: str) -> list[str]:
        """The stages that `dvc repro` really ran, in order."""
        return re.findall(r"Running stage '([^']+)'", self.run("dvc", "repro", *arguments))

    def read_params(self) -> dict[str, Any]:
        return yaml.safe_load((self.folder / "params.yaml").read_text())

    def write_params(self, params: dict[str, Any]) -> None:
        (self.folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))

    def append(self, name: str, text: str) -> None:
        with open(self.folder / name, "a", encoding="utf-8") as file:
            file.write(text)

    def copy(self, folder: Path) -> "Workspace":
        return Workspace(Path(shutil.copytree(self.folder, folder, symlinks=True)))

    def contents(self) -> dict[str, bytes]:
        """Everything that a study leaves and that is not the network."""
        paths = [
            path
            for part in ("metrics", "data/predictions", "plots", "report")
            for path in (self.folder / part).rglob("*")
        ]
        return {str(path.relative_to(self.folder)): path.read_bytes() for path in paths if path.is_file()}


def new_workspace(folder: Path, params: dict[str, Any]) -> Workspace:
    """A fresh clone with these params."""
    folder.mkdir()
    for name in ("dvc.yaml", ".dvcignore", ".gitignore", "pyproject.toml"):
        shutil.copy(TOP / name, folder / name)
    for name in ("stages", "severity", "data/costs", "data/external_predictions", "data/hierarchies"):
        shutil.copytree(TOP / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data/models").mkdir()
    shutil.copy(TOP / "data/models/README.md", folder / "data/models")
    (folder / ".dvc").mkdir()
    for name in (".dvc/config", ".dvc/plots.html"):
        shutil.copy(TOP / name, folder / name)
    workspace = Workspace(folder)
    workspace.write_params(params)
    workspace.run("git", "init", "--quiet")
    return workspace


def stages_run(text: str) -> list[str]:
    return re.findall(r"Running stage '([^']+)'", text)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Workspace:
    """A fresh study, run to its report."""
    params = tiny(yaml.safe_load((TOP / "params.yaml").read_text()))
    workspace = new_workspace(tmp_path_factory.mktemp("pipeline") / "project", params)
    networks = [f"{stage}@{run}" for stage in ("train", "predict") for run in RUNS]
    assert sorted(workspace.repro()) == sorted([*BEFORE, *networks, *AFTER])
    return workspace


@pytest.fixture
def workspace(finished, tmp_path) -> Workspace:
    """A copy of the finished study."""
    return finished.copy(tmp_path / "project")


# --- The finished study -----------------------------------------------------------------------------------------------


def test_a_second_repro_runs_nothing(finished):
    assert "up to date" in (told := finished.run("dvc", "repro")) and not stages_run(told)


def test_what_a_study_leaves(finished):
    folder = finished.folder
    assert sorted(path.stem for path in (folder / "metrics/runs").iterdir()) == sorted(RUNS)
    medians = {path.stem for path in (folder / "metrics/median").iterdir()}
    assert medians == {f"{run[:-2]}-{rule}" for run in RUNS for rule in ("argmax", "crm")}
    assert 0 < len(json.loads((folder / "metrics/headline.json").read_text())) < 20
    drawn = {f"plots/{stem}{suffix}" for stem in catalogue.FIGURES for suffix in SUFFIXES}
    parts = [folder / f"plots/{part}" for part in ("scores", "images", "data")]
    there = {str(path.relative_to(folder)): path.stat().st_size for part in parts for path in part.iterdir()}
    assert {name for name in there if not name.endswith(".gitignore")} == drawn
    assert min(there[name] for name in drawn) > 0
    (explained,) = [path for path in (folder / "plots/explain").iterdir()]
    assert explained.name in RUNS and (explained / "index.csv").stat().st_size > 50
    assert (folder / "report/report.html").stat().st_size > 10_000
    assert {path.name for path in (folder / "report/tables").iterdir()} == {
        "summary.tex", "summary.md", "comparisons.tex",
    }  # fmt: skip
    assert not [path for path in (folder / "data/unfinished").glob("*")]
    weights = safetensors.numpy.load_file(folder / "data/models/test_resnet-haf-0/weights.safetensors")
    assert {name.split(".")[0] for name in weights} == {"network", "loss"}


def test_metrics_and_plots_are_shown_without_a_warning(finished, tmp_path):
    shown = finished.run("dvc", "metrics", "show", "--md")
    assert "metrics/median/test_resnet-haf-crm.json" in shown and "mistake_severity" in shown
    told = finished.run("dvc", "plots", "show", "--out", str(tmp_path / "page"))
    assert "warning" not in told.lower() and told.strip().splitlines()[-1].endswith("index.html")
    page = (tmp_path / "page/index.html").read_text()
    assert [Path(stem).name for stem in catalogue.FIGURES if f"{stem.replace('/', '_')}.png" not in page] == []
    assert "grid-template-columns" in page and "{" + "plot_divs}" not in page


def test_the_paths_of_predictions_are_printed(finished, tmp_path):
    predictions, table = f"data/predictions/{RUNS[0]}.npz", tmp_path / "paths.csv"
    command = (sys.executable, "-m", "severity.explanation.paths", "--predictions", predictions)
    finished.run(*command, "--rule", "climb", "--out", str(table))
    lines = table.read_text().splitlines()
    image = lines[1].split(",")[0]
    assert lines[0] == "id,split,depth,node,probability,given_parent,decided"
    assert "* 1.000  Chest radiograph" in finished.run(*command, "--rule", "crm", "--id", image)
    told = finished.run(*command, "--id", image[:-1] + "?", fails=True)
    assert "error: " in told and f"Did you mean '{image[:8]}" in told and "Traceback" not in told


# --- Changes, in copies -----------------------------------------------------------------------------------------------


def test_the_same_params_give_the_same_bytes_and_a_stray_run_is_not_counted(workspace):
    before, run = workspace.contents(), RUNS[1]
    assert f"data/predictions/{run}.npz" in before and "metrics/table.csv" in before and "report/report.html" in before
    stray = workspace.folder / "data/predictions/resnet18-ce-9.npz"
    stray.write_bytes(b"left from another grid")
    stages = [f"train@{run}", f"predict@{run}", *AFTER]
    assert workspace.repro("--force", "--single-item", *stages) == stages
    stray.unlink()
    assert workspace.contents() == before


def test_an_experiment_reruns_what_it_changes_and_comes_back_from_the_cache(workspace):
    params, table = workspace.read_params(), (workspace.folder / "metrics/table.csv").read_bytes()
    rules = ["argmax", "crm", "hie", "top_down", "argmax_ts", "crm_ts"]
    haf = [run for run in RUNS if "-haf-" in run]
    changed = workspace.read_params()
    changed["evaluate"]["rules"] = rules
    changed["cost"]["name"] = "file"
    changed["losses"]["haf"]["margin"] /= 2
    workspace.write_params(changed)
    networks = {f"{stage}@{run}" for stage in ("train", "predict") for run in haf}
    assert set(workspace.repro()) == {"hierarchy", *networks, *AFTER}
    medians = {path.stem for path in (workspace.folder / "metrics/median").iterdir()}
    assert medians == {f"{run[:-2]}-{rule}" for run in RUNS for rule in rules}

    scored = (workspace.folder / f"metrics/runs/{RUNS[0]}.json").read_bytes()
    cost = workspace.folder / "data/costs/chexpert_example.csv"
    cost.write_text(cost.read_text().replace(",18", ",27"))
    assert workspace.repro("aggregate") == ["hierarchy", "evaluate", "aggregate"]
    # The dearest mistake is dearer, so that every severity is a smaller percentage of it.
    assert (workspace.folder / f"metrics/runs/{RUNS[0]}.json").read_bytes() != scored

    shutil.copy(TOP / "data/costs/chexpert_example.csv", cost)
    workspace.write_params(params)
    # The run cache holds the networks of before. Metrics live in git, not in the cache, and are computed again.
    ran = set(workspace.repro("aggregate", *(f"predict@{run}" for run in RUNS)))
    assert ran == {"evaluate", "aggregate"}
    assert (workspace.folder / "metrics/table.csv").read_bytes() == table


def test_what_writes_the_same_bytes_reruns_nothing_after_it(workspace):
    workspace.append("data/hierarchies/nih14.yaml", "# another collection's tree\n")
    workspace.append("severity/report/latex.py", "# a comment\n")
    assert sorted(workspace.repro()) == ["hierarchy", "prepare", "report"]


def test_external_predictions_are_scored_beside_images_without_a_trained_run(workspace):
    made = numpy.load(workspace.folder / "data/predictions" / f"{RUNS[0]}.npz")
    given = {"id": made["ids"], "classes": made["classes"], "prob": numpy.exp(made["log_posterior"])}
    numpy.savez(workspace.folder / "data/external_predictions/other-ce-0.npz", **given)
    params = workspace.read_params()
    params["grid"]["seed"] = []
    params["external"]["runs"] = ["other-ce-0"]
    workspace.write_params(params)
    assert set(workspace.repro()) == {"external@other-ce-0", *AFTER}
    page = (workspace.folder / "report/report.html").read_text(encoding="utf-8")
    assert "other-ce-0" in page and RUNS[0] not in page
    assert [path.name for path in (workspace.folder / "plots/explain").iterdir()] == ["left_out.txt"]
    assert "no run was trained here" in (workspace.folder / "plots/images/curves.caption.txt").read_text()


def test_another_collection_and_back_prepares_nothing_again(workspace):
    make_chest_xray14(workspace.folder / "data/external/ChestX-ray14")
    before = (workspace.folder / "data/prepared/summary.json").read_bytes()
    phantom, nih = workspace.read_params(), workspace.read_params()
    nih["data"]["name"] = "nih14"
    workspace.write_params(nih)
    assert sorted(workspace.repro("describe", "hierarchy")) == sorted(BEFORE)
    assert json.loads((workspace.folder / "data/prepared/summary.json").read_text())["dataset"] == "nih14"
    workspace.write_params(phantom)
    assert set(workspace.repro("describe", "hierarchy")) <= {"describe"}
    assert (workspace.folder / "data/prepared/summary.json").read_bytes() == before
    workspace.write_params(nih)
    assert workspace.repro("prepare", "hierarchy") == []


def test_what_is_damaged_stops_with_the_reason_and_changes_nothing(workspace):
    good, params = workspace.read_params(), workspace.read_params()
    params["datasets"]["chexpert"] |= {"root": "data/external/nowhere"}
    params["data"]["name"] = "chexpert"
    workspace.write_params(params)
    told = workspace.run("dvc", "repro", "collect", fails=True)
    assert all(word in told for word in ("error: ", "data/external/nowhere", "datasets.chexpert.root"))
    assert "Traceback" not in told
    params = workspace.read_params() | {"data": good["data"]}
    params["evaluate"]["rulse"] = []
    workspace.write_params(params)
    told = workspace.run("dvc", "repro", "evaluate", fails=True)
    assert all(word in told for word in ("'evaluate.rulse'", "Did you mean 'rules'"))
    workspace.write_params(good)
    workspace.run("dvc", "checkout", "--force")
    # Its metrics are in git, not in the cache; headline and table were marked as another study's meanwhile.
    assert set(workspace.repro()) <= {"evaluate", "aggregate", "report"}


def make_chest_xray14(folder: Path) -> None:
    """Sixty images of noise in ChestX-ray14's form."""
    (folder / "images").mkdir(parents=True)
    names = [each for each in nih14.LABELS if each != "No Finding"]
    lines = ["Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,Patient Gender,View Position"]
    for number in range(60):
        name = f"{number:08d}_000.png"
        levels = numpy.random.default_rng(number).integers(0, 256, (24, 20), dtype=numpy.uint8)
        Image.fromarray(levels).save(folder / "images" / name)
        lines.append(f"{name},{names[number % len(names)]},0,{number},50,F,PA")
    (folder / "Data_Entry_2017_v2020.csv").write_text("\n".join(lines) + "\n")


# --- Predictions alone ------------------------------------------------------------------------------------------------


def test_external_predictions_alone_are_scored_without_an_image(tmp_path):
    alone = new_workspace(tmp_path / "project", golden.settings())
    shutil.copytree(golden.EXTERNAL, alone.folder / "data/external_predictions", dirs_exist_ok=True)
    external = [f"external@{run}" for run in golden.RUNS]
    scored = {"evaluate", "aggregate", "compare", "plot", "report"}
    without = {"decode", "prepare", "describe", "illustrate", "explain"}  # They need images, and say so.
    told = alone.run("dvc", "repro")
    assert sorted(stages_run(told)) == sorted(["collect", "read", "hierarchy", *external, *scored, *without])
    assert told.count(WHY) == len(without)
    table = (alone.folder / "metrics/table.csv").read_bytes()
    assert b"softmax,ce,crm_ts" in table and (alone.folder / "plots/scores/tradeoff.png").stat().st_size > 1000
    page = (alone.folder / "report/report.html").read_text(encoding="utf-8")
    assert not [run for run in golden.RUNS if run not in page]
    links = [link for link in re.findall(r'(?:href|src)="([^"]*)"', page) if not link.startswith(("#", "data:"))]
    assert links and not [link for link in links if not (alone.folder / "report" / link).exists()]
    pictures = re.findall(r"<img[^>]*>", page)
    assert pictures and not [each for each in pictures if re.search("plots/images|plots/data", each)]
    assert alone.repro() == []
    params = alone.read_params()
    params["external"]["runs"] = list(golden.RUNS[:1])
    alone.write_params(params)
    assert set(alone.repro()) <= scored | {"illustrate", "explain"}
    assert b"softmax" not in (alone.folder / "metrics/table.csv").read_bytes()
