"""The real graph on toy data: what runs, what a change reruns, and that the same params give the same bytes.

The tests of this file share one workspace and leave it as they found it, so each starts from a finished pipeline.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy
import pytest
import safetensors.numpy
import yaml
from PIL import Image

from severity.core.without_images import WHY
from severity.datasets import nih14
from tests import golden
from tests.trees import TOP

CELLS = ["test_resnet-ce-0", "test_resnet-hxe-0", "test_efficientnet-ce-0", "test_efficientnet-hxe-0"]
AFTER = ["evaluate", "aggregate", "compare", "plot", "illustrate", "explain", "report"]


def tiny(params: dict) -> dict:
    """The smallest study that still has everything: two backbones, two losses, one seed."""
    params["datasets"]["phantom"]["collect"] |= {"images": 160, "size": 64}
    params["decode"]["size"] = 32
    params["machine"]["workers"] = 1
    params["prepare"] |= {"min_positives": 0, "validation_fraction": 0.3}
    params["grid"] = {"backbone": ["test_resnet", "test_efficientnet"], "loss": ["ce", "hxe"], "seed": [0]}
    for name in params["grid"]["backbone"]:
        params["backbones"][name] = {"model": name, "pretrained": False}
    params["train"] |= {"epochs": 1, "warmup_epochs": 0.5}
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
        done = subprocess.run(
            command, cwd=self.folder, env=self.environment, text=True, capture_output=True, timeout=900
        )
        assert (done.returncode != 0) == fails, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout + done.stderr

    def repro(self, *arguments: str) -> list[str]:
        """The stages that `dvc repro` really ran, in order."""
        return re.findall(r"Running stage '([^']+)'", self.run("dvc", "repro", *arguments))

    def changed(self) -> set[str]:
        """The stages that DVC would run because of what is in the workspace now, without what follows from them."""
        return set(json.loads(self.run("dvc", "status", "--json").splitlines()[-1]))

    @contextmanager
    def params(self):
        """Change params.yaml for the length of the block."""
        path = self.folder / "params.yaml"
        before = path.read_text()
        params = yaml.safe_load(before)
        try:
            yield params, lambda: path.write_text(yaml.safe_dump(params, sort_keys=False))
        finally:
            path.write_text(before)

    @contextmanager
    def text(self, name: str, extra: str):
        """Append to a file for the length of the block."""
        path = self.folder / name
        before = path.read_text()
        path.write_text(before + extra)
        try:
            yield
        finally:
            path.write_text(before)


def copy_project(folder: Path) -> None:
    for name in ("dvc.yaml", "params.yaml", ".dvcignore", ".gitignore", "pyproject.toml"):
        shutil.copy(TOP / name, folder / name)
    for name in ("stages", "severity", "data/costs", "data/external_predictions", "data/hierarchies"):
        shutil.copytree(TOP / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "data/models").mkdir()
    shutil.copy(TOP / "data/models/README.md", folder / "data/models")
    (folder / ".dvc").mkdir()
    for name in (".dvc/config", ".dvc/plots.html"):
        shutil.copy(TOP / name, folder / name)


def test_predictions_alone_are_scored_without_an_image(tmp_path):
    folder = tmp_path / "project"
    folder.mkdir()
    copy_project(folder)
    shutil.copytree(golden.HERE / "external", folder / "data/external_predictions", dirs_exist_ok=True)
    (folder / "params.yaml").write_text(yaml.safe_dump(golden.settings(), sort_keys=False))
    alone = Workspace(folder)
    alone.run("git", "init", "--quiet")
    adopted = [f"external@{run}" for run in golden.RUNS]
    scored = {"evaluate", "aggregate", "compare", "plot", "report"}
    wanting = {"decode", "prepare", "describe", "illustrate", "explain"}  # images; they say so
    told = alone.run("dvc", "repro")
    assert sorted(re.findall(r"Running stage '([^']+)'", told)) == sorted(
        ["collect", "read", "hierarchy", *adopted, *scored, *wanting]
    )
    assert told.count(WHY) == len(wanting)
    table = (folder / "metrics/table.csv").read_bytes()
    assert b"softmax,ce,crm_ts" in table and (folder / "plots/tradeoff.png").stat().st_size > 1000
    page = (folder / "plots/report.html").read_text(encoding="utf-8")
    assert all(run in page for run in golden.RUNS)
    links = [link for link in re.findall(r'(?:href|src)="([^"]*)"', page) if not link.startswith(("#", "data:"))]
    assert links and all((folder / "plots" / link).exists() for link in links)
    pictures = re.findall(r"<img[^>]*>", page)
    assert pictures and not [each for each in pictures if re.search("mistakes|curves|contact_sheet|plots/data", each)]
    assert alone.repro() == [] and "up to date" in alone.run("dvc", "repro")
    with alone.params() as (params, save):
        params["evaluate"]["mistakes"] = 2
        save()
        assert "external" not in " ".join(ran := alone.repro()) and not wanting & set(ran) - {"illustrate", "explain"}
        params["external"]["runs"] = list(golden.RUNS[:1])
        save()
        assert set(alone.repro()) <= scored | {"illustrate", "explain"}
        assert b"softmax" not in (folder / "metrics/table.csv").read_bytes()
    with alone.text("data/external_predictions/README.md", "changed\n"):
        assert alone.repro()[:2] == adopted
    assert (folder / "metrics/table.csv").read_bytes() == table


@pytest.fixture(scope="module")
def workspace(tmp_path_factory) -> Workspace:
    folder = tmp_path_factory.mktemp("pipeline") / "project"
    folder.mkdir()
    copy_project(folder)
    params = tiny(yaml.safe_load((folder / "params.yaml").read_text()))
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))
    workspace = Workspace(folder)
    workspace.run("git", "init", "--quiet")
    every = ["collect", "read", "decode", "prepare", "describe", "hierarchy"]
    every += [f"{stage}@{cell}" for stage in ("train", "predict") for cell in CELLS] + AFTER
    assert sorted(workspace.repro()) == sorted(every)
    return workspace


def cells(stage: str, *names: str) -> set[str]:
    return {f"{stage}@{cell}" for cell in CELLS if any(name in cell for name in names)}


def test_a_second_repro_runs_nothing(workspace):
    assert "up to date" in workspace.run("dvc", "repro")
    assert workspace.changed() == set()


def test_what_a_run_leaves(workspace):
    assert sorted(path.stem for path in (workspace.folder / "metrics/runs").iterdir()) == sorted(CELLS)
    medians = {path.stem for path in (workspace.folder / "metrics/median").iterdir()}
    assert medians == {f"{cell[:-2]}-{rule}" for cell in CELLS for rule in ("argmax", "crm")}
    assert len(json.loads((workspace.folder / "metrics/headline.json").read_text())) < 15
    stages = yaml.safe_load((TOP / "dvc.yaml").read_text())["stages"]
    for declared in (stages["plot"], stages["illustrate"]):
        for name in [*declared["plots"], *declared["outs"]]:
            assert (workspace.folder / name).stat().st_size > 50, name
    (explained,) = (workspace.folder / "plots/explain").iterdir()
    assert explained.name in CELLS and (explained / "index.csv").stat().st_size > 50
    assert not (workspace.folder / "data/unfinished").exists() or not any(
        (workspace.folder / "data/unfinished").iterdir()
    )


def test_metrics_and_plots_are_shown(workspace):
    shown = workspace.run("dvc", "metrics", "show", "--md")
    assert "metrics/median/test_resnet-hxe-crm.json" in shown and "mistake_severity" in shown
    page = workspace.run("dvc", "plots", "show", "--out", "page").strip().splitlines()[-1]
    assert page.endswith("index.html")
    written = (workspace.folder / "page/index.html").read_text()
    assert "tradeoff.png" in written and "grid-template-columns" in written and "{" + "plot_divs}" not in written
    shutil.rmtree(workspace.folder / "page")


def test_a_losss_number_reruns_its_own_cells_and_comes_back_from_the_cache(workspace):
    with workspace.params() as (params, save):
        params["losses"]["hxe"]["alpha"] = 0.7
        save()
        assert workspace.changed() == cells("train", "hxe")  # predict takes the numbers from the network's folder
        ran = workspace.repro()
        assert set(ran) == cells("train", "hxe") | cells("predict", "hxe") | set(AFTER)
    # The run cache holds the networks of before. Metrics live in git, not in the cache, and are computed again.
    assert set(workspace.repro()) == {"evaluate", "aggregate", "compare", "report"}
    assert workspace.changed() == set()


def test_a_losss_file_reruns_its_own_cells(workspace):
    with workspace.text("severity/losses/hxe.py", "# changed\n"):
        assert workspace.changed() == cells("train", "hxe") | cells("predict", "hxe")


def test_a_backbone_or_a_seed_added_trains_new_cells_alone(workspace):
    with workspace.params() as (params, save):
        params["backbones"]["test_vit"] = {"model": "test_vit", "pretrained": False}
        params["grid"]["backbone"].insert(0, "test_vit")
        save()
        assert {stage for stage in workspace.changed() if "@" in stage} == {
            f"{stage}@test_vit-{loss}-0" for stage in ("train", "predict") for loss in ("ce", "hxe")
        }
    with workspace.params() as (params, save):
        params["grid"]["seed"] = [1, 0]
        save()
        assert {stage for stage in workspace.changed() if "@" in stage} == {
            f"{stage}@{cell[:-1]}1" for stage in ("train", "predict") for cell in CELLS
        }


def test_evaluations_and_plots_numbers_rerun_no_network(workspace):
    with workspace.params() as (params, save):
        params["evaluate"]["batch_size"] = 16
        save()
        ran = workspace.repro()
        assert "evaluate" in ran and set(ran) <= set(AFTER)
        params["plot"]["mistakes"] = 2
        save()
        assert workspace.repro() == ["illustrate", "report"]
        params["plot"]["labels"] = 5
        save()
        assert workspace.repro() == ["plot", "report"]
        params["explain"]["maps"] = 1
        save()
        assert workspace.repro() == ["explain", "report"]
        params["cost"]["name"] = "path"
        save()
        assert set(workspace.repro()) == {"hierarchy", *AFTER}
    workspace.repro()
    assert workspace.changed() == set()


def test_a_changed_cost_file_reruns_hierarchy_and_evaluation_and_no_network(workspace):
    cost = workspace.folder / "data/costs/chexpert_example.csv"
    before = cost.read_text()
    with workspace.params() as (params, save):
        params["cost"]["name"] = "file"
        save()
        assert set(workspace.repro()) == {"hierarchy", *AFTER}
        scored = (workspace.folder / "metrics/table.csv").read_bytes()
        try:
            cost.write_text(before.replace(",18", ",27"))
            assert set(workspace.repro()) == {"hierarchy", *AFTER}
            assert (workspace.folder / "metrics/table.csv").read_bytes() != scored
        finally:
            cost.write_text(before)
    workspace.repro()
    assert workspace.changed() == set()


def test_every_rule_goes_through_to_the_table_and_the_figures(workspace):
    rules = ["argmax", "crm", "hie", "top_down", "argmax_ts", "crm_ts"]
    with workspace.params() as (params, save):
        params["evaluate"]["rules"] = rules
        save()
        assert set(workspace.repro()) == set(AFTER)
        medians = {path.stem for path in (workspace.folder / "metrics/median").iterdir()}
        assert medians == {f"{cell[:-2]}-{rule}" for cell in CELLS for rule in rules}
    workspace.repro()
    assert workspace.changed() == set()


def test_the_paths_of_predictions_are_told(workspace):
    predictions = f"data/predictions/{CELLS[0]}.npz"
    command = (sys.executable, "-m", "severity.explanation.paths", "--predictions", predictions)
    workspace.run(*command, "--rule", "climb", "--out", "paths.csv")
    lines = (workspace.folder / "paths.csv").read_text().splitlines()
    image = lines[1].split(",")[0]
    assert lines[0] == "id,split,depth,node,probability,given_parent,decided"
    assert "* 1.000  Chest radiograph" in workspace.run(*command, "--rule", "crm", "--id", image)
    told = workspace.run(*command, "--id", image[:-1] + "?", fails=True)
    assert "error: " in told and f"Did you mean '{image[:8]}" in told and "Traceback" not in told
    (workspace.folder / "paths.csv").unlink()


@pytest.mark.parametrize(
    "name", ["decisions", "metrics", "statistics", "comparisons", "figures", "evaluation", "explanation", "report"]
)
def test_the_code_after_prediction_reruns_no_network(workspace, name):
    with workspace.text(f"severity/{name}.py", "# changed\n"):
        assert workspace.changed() and workspace.changed() <= set(AFTER)


def test_a_label_tree_reruns_what_depends_on_it(workspace):
    tree = workspace.folder / "data/hierarchies/chexpert_pleural.yaml"
    with workspace.text("data/hierarchies/nih14.yaml", "# another collection's tree\n"):
        assert sorted(workspace.repro()) == ["hierarchy", "prepare"]  # same tree, same bytes: nothing follows
    before = tree.read_text()
    try:
        tree.write_text(before.replace("node: Pleural finding", "node: Pleura"))
        assert workspace.repro("hierarchy") == ["hierarchy"]
        # Predicting takes the tree from the network's folder, and so waits for the training.
        assert {stage for stage in workspace.changed() if "@" in stage} == cells("train", "-")
    finally:
        tree.write_text(before)
    workspace.repro()
    assert workspace.changed() == set()


def test_the_same_params_give_the_same_bytes(workspace):
    folder = workspace.folder

    def everything() -> dict[str, bytes]:
        paths = [*folder.glob("metrics/**/*.*"), *folder.glob("data/predictions/*"), *folder.glob("plots/**/*")]
        return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.is_file()}

    before = everything()
    cell = CELLS[1]
    ran = workspace.repro("--force", "--single-item", f"train@{cell}", f"predict@{cell}", *AFTER)
    assert ran == [f"train@{cell}", f"predict@{cell}", *AFTER]
    assert everything() == before


def test_a_loss_with_weights_of_its_own_is_trained_and_predicts(workspace):
    with workspace.params() as (params, save):
        params["grid"]["loss"].append("haf")
        save()
        cell = "test_resnet-haf-0"
        assert workspace.repro(f"predict@{cell}") == [f"train@{cell}", f"predict@{cell}"]
        weights = safetensors.numpy.load_file(workspace.folder / "data/models" / cell / "weights.safetensors")
        assert {name.split(".")[0] for name in weights} == {"network", "loss"}
    # What the grid no longer names may not stay beside what it does.
    (workspace.folder / "data/predictions" / f"{cell}.npz").unlink()
    shutil.rmtree(workspace.folder / "data/models" / cell)
    assert workspace.changed() == set()


def test_a_stray_run_is_not_counted(workspace):
    stray = workspace.folder / "data/predictions/resnet18-ce-9.npz"
    stray.write_bytes(b"left from another grid")
    try:
        before = (workspace.folder / "metrics/table.csv").read_bytes()
        assert set(workspace.repro()) == {"evaluate", "compare", "explain"}
        assert (workspace.folder / "metrics/table.csv").read_bytes() == before
    finally:
        stray.unlink()
    workspace.repro()


def test_predictions_made_elsewhere_are_scored_beside_images_without_a_trained_run(workspace):
    made = numpy.load(workspace.folder / "data/predictions" / f"{CELLS[0]}.npz")
    elsewhere = workspace.folder / "data/external_predictions/other-ce-0.npz"
    given = {"id": made["ids"], "classes": made["classes"], "prob": made["posterior"]}
    numpy.savez(elsewhere, **given)
    with workspace.params() as (params, save):
        params["grid"]["seed"] = []
        params["external"]["runs"] = ["other-ce-0"]
        save()
        assert {"external@other-ce-0", "evaluate", "illustrate", "explain", "report"} <= set(workspace.repro())
        assert workspace.repro() == []
        page = (workspace.folder / "plots/report.html").read_text()
        assert "other-ce-0" in page and CELLS[0] not in page
        assert [path.name for path in (workspace.folder / "plots/explain").iterdir()] == ["left_out.txt"]
        assert "no run was trained here" in (workspace.folder / "plots/curves.caption.txt").read_text()
    elsewhere.unlink()
    workspace.repro()
    assert workspace.changed() == set()


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


def test_a_policy_or_a_split_decodes_nothing(workspace):
    with workspace.params() as (params, save):
        params["datasets"]["phantom"]["labels"]["uncertain"] = "zeros"
        params["prepare"]["seed"] = 1
        save()
        assert workspace.changed() == {"prepare", "report"}
        params["machine"] |= {"workers": 2, "devices": 2, "compile": True}
        save()
        assert workspace.changed() == {"prepare", "report"}
        params["decode"]["aspect"] = "pad"
        save()
        assert workspace.changed() == {"decode", "prepare", "report"}


def test_code_that_reads_tables_decodes_nothing(workspace):
    with workspace.text("severity/datasets/chexpert.py", "# changed\n"):
        assert workspace.changed() == {"collect", "read"}
    with workspace.text("severity/preparation/labelling.py", "# changed\n"):
        assert workspace.changed() == {"prepare"}


def test_another_collection_and_back_prepares_nothing_again(workspace):
    make_chest_xray14(workspace.folder / "data/external/ChestX-ray14")
    before = (workspace.folder / "data/prepared/summary.json").read_bytes()
    first = ["collect", "read", "decode", "prepare", "describe", "hierarchy"]
    with workspace.params() as (params, save):
        params["data"]["name"] = "nih14"
        save()
        assert sorted(workspace.repro("describe", "hierarchy")) == sorted(first)
        assert json.loads((workspace.folder / "data/prepared/summary.json").read_text())["dataset"] == "nih14"
    assert set(workspace.repro("describe", "hierarchy")) <= {"describe"}
    assert (workspace.folder / "data/prepared/summary.json").read_bytes() == before
    with workspace.params() as (params, save):
        params["data"]["name"] = "nih14"
        save()
        assert workspace.repro("prepare", "hierarchy") == []
    workspace.repro()
    assert workspace.changed() == set()


def test_a_damaged_collection_stops_with_the_reason_and_a_failed_stage_changes_nothing(workspace):
    with workspace.params() as (params, save):
        params["datasets"]["chexpert"] |= {"root": "data/external/nowhere"}
        params["data"]["name"] = "chexpert"
        save()
        told = workspace.run("dvc", "repro", "collect", fails=True)
        assert "error: There is no folder data/external/nowhere. Set datasets.chexpert.root in params.yaml" in told
        assert "Traceback" not in told
    with workspace.params() as (params, save):
        params["evaluate"]["rulse"] = []
        save()
        told = workspace.run("dvc", "repro", "evaluate", fails=True)
        assert "evaluate: unknown key 'rulse'. Did you mean 'rules'" in told
    workspace.repro()
    assert workspace.changed() == set()
