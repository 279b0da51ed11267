"""dvc.yaml against the code. DVC does not see imports, so `deps` must cover every module that a stage imports.

Some code is exempt, on purpose. `severity/__init__.py` and `severity/api`, the face of the package, only call the folders; no
stage asks them. `severity/schema` checks params.yaml and changes no value: a sharper check of a number would otherwise train
every network again. `stages/__init__.py` only begins a stage.
"""

import ast
import re
from functools import cache
from pathlib import Path

import pytest
import yaml

from severity.figures import catalogue
from severity.report import report
from tests.checks import every
from tests.trees import TOP

GRAPH = yaml.safe_load((TOP / "dvc.yaml").read_text())
STAGES = GRAPH["stages"]
EXEMPT = ("severity/__init__.py", "severity/api", "severity/schema", "stages/__init__.py")
# The expensive ones, which name files.
EXACT = ("train", "predict")
# Modules found by name at run time: `${...}` in deps stands for one of them.
BY_NAME = {
    "severity/losses/${item.loss}.py": "severity/losses",
}
# Folders of modules found by name that a stage depends on as a whole: `kind` of a section says which reads it.
FOUND = ("severity/datasets",)
# What lies outside the graph on purpose: unfinished work, and times, which are no results.
UNTRACKED = {"data/unfinished", "data/times"}
FOLDER = r"(data|metrics|plots|report)(/[\w.]+)+/?"


# --- What the code imports --------------------------------------------------------------------------------------------


def path_of(module: str) -> Path | None:
    """The file of a module of this project, relative to the top; None for anything else."""
    base = TOP / module.replace(".", "/")
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file() and module.split(".")[0] in ("severity", "stages"):
            return path.relative_to(TOP)
    return None


def exempt(path: Path) -> bool:
    return any(path.is_relative_to(each) for each in EXEMPT)


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse((TOP / path).read_text(encoding="utf-8"))


def modules_named(path: Path) -> list[str]:
    """Every module that an import of this file may mean: `from a import b` names a and a.b."""
    names = []
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative imports would escape this test"
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return names


@cache
def imports_of(path: Path) -> frozenset[Path]:
    """Files of this project that one file imports."""
    files: set[Path | None] = set()
    for name in modules_named(path):
        parts = name.split(".")
        # A folder's __init__.py runs before its modules; those that hold nothing but words are no dependency.
        files |= {path_of(".".join(parts[: end + 1])) for end in range(len(parts))}
    return frozenset(each for each in files if each and holds_code(each) and not exempt(each))


def holds_code(path: Path) -> bool:
    return any(not isinstance(node, ast.Expr) for node in tree_of(path).body)


def closure(paths: set[Path]) -> set[Path]:
    """The files and all that they import, directly or not."""
    done: set[Path] = set()
    todo = list(paths)
    while todo:
        path = todo.pop()
        if path not in done:
            done.add(path)
            todo += imports_of(path)
    return done


def source_files() -> list[Path]:
    files = sorted(path.relative_to(TOP) for path in (TOP / "severity").rglob("*.py"))
    assert len(files) > 60
    return files


# --- What dvc.yaml names ----------------------------------------------------------------------------------------------


def paths_in(listed: list) -> set[str]:
    """The paths of a list of dvc.yaml, where an entry may be a mapping from a path to its options."""
    return {path for each in listed for path in (each if isinstance(each, dict) else [each])}


def outs(stage: str) -> set[str]:
    """The paths of what a stage writes."""
    return set().union(*(paths_in(STAGES[stage].get(kind, [])) for kind in ("outs", "plots", "metrics")))


def is_code(dep: str) -> bool:
    return dep.startswith(("severity/", "stages/"))


def files_of(dep: str) -> set[Path]:
    """The Python files that a dep stands for: one, those of a folder, or one for each value of its `${...}`."""
    if dep in BY_NAME:
        return {path.relative_to(TOP) for path in (TOP / BY_NAME[dep]).glob("[a-z]*.py")}
    path = TOP / dep
    return {each.relative_to(TOP) for each in ([path] if path.is_file() else path.rglob("*.py"))}


def code_deps(stage: str) -> dict[str, set[Path]]:
    """The Python files of each dep of a stage that is code."""
    return {dep: files_of(dep) for dep in STAGES[stage]["deps"] if is_code(dep)}


@cache
def imports(stage: str) -> frozenset[Path]:
    """All files that a stage may import: its own, those of figures that it draws by name, those that `${...}` stands for."""
    by_name = {path for dep in STAGES[stage]["deps"] if dep in (*BY_NAME, *FOUND) for path in files_of(dep)}
    figures = {path_of(figure.drawn_by.partition(":")[0]) for figure in catalogue.of_stage(stage).values()}
    assert None not in figures, f"a figure of {stage} names a module that is not there"
    return frozenset(closure({Path(f"stages/{stage}.py")} | by_name | figures))


@pytest.mark.parametrize("stage", STAGES)
def test_deps_cover_the_imports_and_name_nothing_in_vain(stage):
    named = code_deps(stage)
    assert imports(stage) <= set().union(*named.values()), f"{imports(stage) - set().union(*named.values())}"
    assert not (idle := [dep for dep, files in named.items() if not files & imports(stage)]), f"{idle} is not imported"


@pytest.mark.parametrize("stage", EXACT)
def test_the_expensive_stages_name_exactly_what_they_import(stage):
    named = code_deps(stage)
    assert every(dep.endswith(".py") for dep in named) and len(named) > 20
    assert set().union(*named.values()) == imports(stage)


def test_every_dep_is_there_or_is_written_by_a_stage():
    written = set().union(*map(outs, STAGES))
    for stage in STAGES:
        for dep in STAGES[stage]["deps"]:
            made = any(dep == out or dep.startswith(f"{out}/") or out.startswith(f"{dep}/") for out in written)
            assert made or "${" in dep or (TOP / dep).exists(), f"{stage}: {dep}"


def strings(paths: set[Path] | frozenset[Path]) -> set[str]:
    """Every text in the code of the files, f-strings in parts, docstrings left out."""
    texts = set()
    for path in paths:
        documentation = {
            ast.get_docstring(node, clean=False)
            for node in ast.walk(tree_of(path))
            if isinstance(node, ast.Module | ast.FunctionDef | ast.ClassDef)
        }
        constants = {node.value for node in ast.walk(tree_of(path)) if isinstance(node, ast.Constant)}
        texts |= {each for each in constants if isinstance(each, str)} - documentation
    return texts


@pytest.mark.parametrize("stage", STAGES)
def test_every_dep_that_is_data_is_read(stage):
    """By a path in the code that the stage imports, or by the parameter that holds the path."""
    data = [dep for dep in STAGES[stage]["deps"] if not is_code(dep)]
    texts, params = strings(imports(stage)), STAGES[stage]["params"]
    for dep in data:
        if parameter := re.fullmatch(r"\$\{([\w.]+)\}", dep):  # The path itself is a parameter.
            read = any(f"{parameter[1]}.".startswith(f"{param}.") for param in params)
        elif dep == "data/raw/${data.name}":
            read = "datasets.${data.name}.root" in params
        else:
            stem = dep.partition("${")[0].rstrip("/")
            read = any(text.startswith(stem) or f"{stem}/".startswith(f"{text}/") for text in texts if text)
        assert read, f"{stage} names {dep} and does not read it"
    assert data or stage == "collect"  # It is where the graph begins.


@pytest.mark.parametrize("stage", STAGES)
def test_every_folder_that_a_stage_names_is_a_dependency_or_an_output(stage):
    """A folder read without being named in `deps` leaves old numbers standing when it changes."""
    used = {text for text in strings({Path(f"stages/{stage}.py")}) if re.fullmatch(FOLDER, text)}
    declared = outs(stage) | paths_in(STAGES[stage]["deps"])
    missing = {
        path
        for path in used
        if not any(path == name or path.startswith(f"{name}/") or name.startswith(f"{path}/") for name in declared)
    }
    assert missing <= UNTRACKED, f"{stage} reads or writes {missing}, which dvc.yaml does not name for it"


# --- Stages -----------------------------------------------------------------------------------------------------------


def test_dvc_yaml_is_short_and_holds_no_number():
    text = (TOP / "dvc.yaml").read_text()
    assert len(text.splitlines()) < 200
    code = re.sub(r"#.*", "", text)
    commands = " ".join(stage["cmd"] for stage in STAGES.values())
    assert not re.search(r"(?<![\w.])\d", commands), "numbers belong to params.yaml"
    assert not re.search(r"(?<![\w.}])/\w", code), "paths are relative to the top of the project"


@pytest.mark.parametrize("stage", STAGES)
def test_every_stage_runs_the_file_of_its_name(stage):
    assert f"python -m stages.{stage}" in STAGES[stage]["cmd"]


def test_every_stage_file_is_a_stage_and_imports_no_other():
    files = {path.stem for path in (TOP / "stages").glob("[a-z]*.py")}
    assert files == set(STAGES)
    for name in files:
        assert not {each for each in imports_of(Path(f"stages/{name}.py")) if each.parts[0] == "stages"}, name


def test_nothing_of_the_package_imports_a_stage_or_dvc():
    for path in source_files():
        assert not {name.split(".")[0] for name in modules_named(path)} & {"dvc", "stages"}, path
    for stage in STAGES:
        assert "dvc" not in {name.split(".")[0] for name in modules_named(Path(f"stages/{stage}.py"))}, stage


def test_only_what_runs_networks_needs_torch_and_only_what_draws_matplotlib():
    libraries = {
        stage: {name.split(".")[0] for path in imports(stage) for name in modules_named(path)} for stage in STAGES
    }
    # Grad-CAM and feature maps need the network itself, so `explain` needs both.
    assert {stage for stage in STAGES if {"torch", "timm"} & libraries[stage]} == {"train", "predict", "explain"}
    assert {stage for stage in STAGES if "matplotlib" in libraries[stage]} == {
        "plot", "illustrate", "describe", "explain",
    }  # fmt: skip


def test_explaining_and_figures_rerun_the_report_alone_and_are_read_by_no_other_stage():
    for stage in set(STAGES) - {"report"}:
        assert not [dep for dep in STAGES[stage]["deps"] if dep.startswith("plots")]
        assert stage == "explain" or "explain" not in STAGES[stage].get("params", [])
    assert {"metrics", "plots"} <= set(STAGES["report"]["deps"]) and outs("report") == {"report"}


def test_the_report_shows_exactly_the_params_that_it_depends_on():
    shown = set(report.PARAMS) | {"datasets.${data.name}"}
    assert shown == set(STAGES["report"]["params"])


def test_no_metric_decision_cost_or_figure_is_behind_training():
    behind = {path.parts[1] for stage in EXACT for path in imports(stage) if path.parts[0] == "severity"}
    assert "losses" in behind
    assert not behind & {"metrics", "decisions", "tree", "figures", "summary", "comparison", "drawing", "report"}


@pytest.mark.parametrize("stage", EXACT)
def test_each_run_depends_on_its_own_loss_alone(stage):
    deps = STAGES[stage]["deps"]
    assert "severity/losses/${item.loss}.py" in deps
    every = {str(path) for path in files_of("severity/losses/${item.loss}.py")}
    assert "severity/losses/ce.py" in every and not every & set(deps) and "severity/losses" not in deps
    # A trained network says itself what it is.
    assert {"losses.${item.loss}", "backbones.${item.backbone}"} <= set(STAGES["train"]["params"])


# --- Figures ----------------------------------------------------------------------------------------------------------


def test_figures_drawn_are_those_declared_and_each_lies_in_a_folder_of_its_stage():
    assert len(catalogue.FIGURES) > 10
    assert [f"plots/{stem}.png" for stem in catalogue.FIGURES] == GRAPH["plots"]
    for stem, figure in catalogue.FIGURES.items():
        assert f"plots/{stem.partition('/')[0]}" in outs(figure.stage), stem
        assert (TOP / path_of(figure.drawn_by.partition(":")[0])).exists()


@pytest.mark.parametrize("folder", ["scores", "images"])
def test_every_file_of_a_figure_is_in_the_catalogue(folder):
    files = {path.stem for path in (TOP / f"severity/figures/{folder}").glob("[a-z]*.py")}
    assert len(files) > 2
    assert files == {stem.partition("/")[2] for stem in catalogue.FIGURES if stem.startswith(f"{folder}/")}


def test_the_report_reads_the_figures_from_the_catalogue():
    # tests/test_report.py finds each of them on the page.
    assert Path("severity/figures/catalogue.py") in imports("report")


# --- Folders ----------------------------------------------------------------------------------------------------------


def order() -> list[str]:
    """The folders of severity/ in the order of the data, as docs/graph.md gives them."""
    text = (TOP / "docs/graph.md").read_text()
    (block,) = re.findall(r"<!-- order -->\n```text\n(.+?)```", text, re.DOTALL)
    return block.replace("→", " ").split()


def test_severity_holds_folders_only_each_with_a_sentence_and_a_place_in_the_order():
    assert [path.name for path in (TOP / "severity").glob("*.py")] == ["__init__.py"]
    folders = [path.parent for path in (TOP / "severity").glob("*/__init__.py")]
    assert sorted(path.name for path in folders if not exempt(path.relative_to(TOP))) == sorted(order())
    for folder in folders:
        sentence = ast.get_docstring(tree_of((folder / "__init__.py").relative_to(TOP)))
        assert sentence and sentence.splitlines()[0].endswith("."), folder


def test_nothing_but_the_face_imports_the_face():
    for path in source_files():
        named = {name for name in modules_named(path) if name.startswith("severity.api")}
        assert not named or exempt(path), path


def test_no_folder_imports_one_to_its_right():
    place = {folder: number for number, folder in enumerate(order())}
    for path in source_files():
        # The table of figures is a leaf that the report and the stages read.
        for other in imports_of(path) - {Path("severity/figures/catalogue.py")}:
            if not exempt(path):
                assert place[other.parts[1]] <= place[path.parts[1]], f"{path} imports {other}"
    assert not imports_of(Path("severity/figures/catalogue.py"))


def test_no_module_imports_itself_by_way_of_others():
    checked = 0
    for path in source_files():
        direct = imports_of(path) - {path}
        assert path not in closure(set(direct)), path
        checked += len(direct)
    assert checked > 100


def test_figures_share_what_stands_in_shared_and_import_no_other_figure():
    for folder in ("scores", "images"):
        for path in files_of(f"severity/figures/{folder}"):
            drawn = {each.parts[2] for each in imports_of(path) if each.parts[1] == "figures"}
            assert drawn <= {"shared"}, path
