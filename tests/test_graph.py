"""dvc.yaml against the code: DVC does not see imports, so `deps` must name every module a stage imports."""

import ast
import re
from pathlib import Path

import pytest
import yaml

from severity import losses
from severity.report import contents, report

TOP = Path(__file__).resolve().parent.parent
STAGES = yaml.safe_load((TOP / "dvc.yaml").read_text())["stages"]
# Modules found by name at run time: `${...}` in deps stands for one of them.
# What lies outside the graph on purpose: unfinished work, and times, which are no results.
UNSEEN = {"data/unfinished", "data/times"}
BY_NAME = {
    "severity/losses/${item.loss}.py": "severity/losses",
    "severity/datasets/${data.name}.py": "severity/datasets",
}


def path_of(module: str) -> Path | None:
    """The file of a module of this project, relative to the top; None for anything else."""
    base = TOP / module.replace(".", "/")
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file() and module.split(".")[0] in ("severity", "stages"):
            return path.relative_to(TOP)
    return None


def imports_of(path: Path) -> set[Path]:
    """Files of this project that one file imports."""
    found: set[Path] = set()
    for node in ast.walk(ast.parse((TOP / path).read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports would escape this test"
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            parts = name.split(".")
            # A package's __init__.py runs before its modules; those that hold nothing but words are no dependency.
            found |= {path_of(".".join(parts[: end + 1])) for end in range(len(parts))} - {None}
    return {each for each in found if holds_code(each)}


def holds_code(path: Path) -> bool:
    body = ast.parse((TOP / path).read_text()).body
    return any(not isinstance(node, ast.Expr) for node in body)


def closure(paths: set[Path]) -> set[Path]:
    done: set[Path] = set()
    todo = list(paths)
    while todo:
        path = todo.pop()
        if path not in done:
            done.add(path)
            todo += imports_of(path)
    return done


def expand(dep: str) -> list[str]:
    """A dep, or one for each module that its `${...}` may stand for."""
    if dep not in BY_NAME:
        return [dep]
    return sorted(str(each.relative_to(TOP)) for each in (TOP / BY_NAME[dep]).glob("[a-z]*.py"))


def code_deps(stage: str) -> set[str]:
    """The Python files that a stage names, `${...}` expanded."""
    return {path for dep in STAGES[stage]["deps"] for path in expand(dep) if path.endswith(".py")}


@pytest.mark.parametrize("stage", STAGES)
def test_deps_are_exactly_the_imports(stage):
    file = Path(f"stages/{stage}.py")
    by_name = {Path(path) for dep in STAGES[stage]["deps"] if dep in BY_NAME for path in expand(dep)}
    wanted = {str(path) for path in closure({file} | by_name)}
    assert code_deps(stage) == wanted, f"missing {wanted - code_deps(stage)}, too many {code_deps(stage) - wanted}"


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_runs_the_file_of_its_name(stage):
    assert f"python -m stages.{stage}" in STAGES[stage]["cmd"]


def test_every_stage_file_is_a_stage_and_imports_no_other():
    files = {path.stem for path in (TOP / "stages").glob("[a-z]*.py")}
    assert files == set(STAGES)
    for path in (TOP / "stages").glob("[a-z]*.py"):
        assert not {each for each in imports_of(path.relative_to(TOP)) if each.parts[0] == "stages"}, path


def test_nothing_of_the_package_imports_a_stage_or_dvc():
    for path in [*(TOP / "severity").rglob("*.py"), *(TOP / "stages").glob("*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                forbidden = ("dvc",) if path.parent.name == "stages" else ("dvc", "stages")
                assert name.split(".")[0] not in forbidden, f"{path} imports {name}"


def heavy(stage: str) -> set[str]:
    """Which of the heavy libraries the modules of a stage import."""
    found = set()
    for path in code_deps(stage):
        for node in ast.walk(ast.parse((TOP / path).read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) else []
            found |= {name.split(".")[0] for name in names}
    return found & {"torch", "timm", "matplotlib"}


def test_only_what_runs_networks_needs_torch_and_only_what_draws_matplotlib():
    # Grad-CAM and feature maps want the network itself, so `explain` needs both.
    assert {stage for stage in STAGES if "torch" in heavy(stage)} == {"train", "predict", "explain"}
    assert {stage for stage in STAGES if "matplotlib" in heavy(stage)} == {"plot", "illustrate", "describe", "explain"}


def test_explaining_and_figures_rerun_the_report_alone_and_are_asked_by_no_other_stage():
    for stage in set(STAGES) - {"report"}:
        assert not [dep for dep in STAGES[stage]["deps"] if dep.startswith("plots")]
        assert stage == "explain" or "explain" not in STAGES[stage].get("params", [])


def outs(stage: str) -> set[str]:
    """The paths of what a stage writes."""
    listed = [out for kind in ("outs", "plots", "metrics") for out in STAGES[stage].get(kind, [])]
    return {path for out in listed for path in (out if isinstance(out, dict) else [out])}


def test_the_report_tells_every_figure_and_depends_on_each_of_its_files():
    asked = {dep for dep in STAGES["report"]["deps"] if dep.startswith("plots/") and dep != "plots/explain"}
    assert asked == {
        path for stage in ("plot", "illustrate", "describe") for path in outs(stage) if path.startswith("plots/")
    }
    told = {f"plots/{name}" for name in [*contents.FIGURES, *contents.CARD_FIGURES]}
    assert told == {path.removesuffix(".png") for path in asked if path.endswith(".png")}
    assert "severity/report/report.html" in STAGES["report"]["deps"]


def test_the_report_shows_exactly_the_params_that_it_depends_on():
    shown = set(report.PARAMS) | {"datasets.${data.name}"}
    assert shown == set(STAGES["report"]["params"])


def test_no_metric_decision_cost_or_figure_is_behind_training():
    behind = code_deps("train") | code_deps("predict")
    subjects = ("metrics", "decisions", "costs", "figures", "evaluation", "cells", "statistics", "trees")
    assert not {path for path in behind if Path(path).stem in subjects}


def test_each_cell_depends_on_its_own_loss_alone():
    for stage in ("train", "predict"):
        deps = STAGES[stage]["deps"]
        assert "severity/losses/${item.loss}.py" in deps
        assert not [dep for dep in deps if dep.removesuffix(".py").split("/")[-1] in losses.names()]
    # A trained network says itself what it is.
    assert {"losses.${item.loss}", "backbones.${item.backbone}"} <= set(STAGES["train"]["params"])


def test_the_graph_holds_no_number():
    text = re.sub(r"#.*", "", (TOP / "dvc.yaml").read_text())
    commands = " ".join(stage["cmd"] for stage in STAGES.values())
    assert not re.search(r"(?<![\w.])\d", commands), "numbers belong to params.yaml"
    assert not re.search(r"(?<![\w.}])/\w", text), "paths are relative to the top of the project"


@pytest.mark.parametrize("stage", STAGES)
def test_every_folder_that_a_stage_names_is_a_dependency_or_an_output(stage):
    """A folder read without being named in `deps` leaves old numbers standing when it changes."""
    tree = ast.parse(Path(TOP / f"stages/{stage}.py").read_text())
    docstring = ast.get_docstring(tree, clean=False)
    named = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    used = {text for text in named - {docstring} if re.fullmatch(r"(data|metrics|plots)(/[\w.]+)+/?", text)}
    spec = STAGES[stage]
    declared = [
        name
        for kind in ("deps", "outs", "metrics", "plots")
        for each in spec.get(kind, [])
        for name in (each if isinstance(each, dict) else [each])
    ]
    missing = {
        path
        for path in used
        if not any(path == name or path.startswith(f"{name}/") or name.startswith(f"{path}/") for name in declared)
    }
    assert missing <= UNSEEN, f"{stage} reads or writes {missing}, which dvc.yaml does not name for it"
