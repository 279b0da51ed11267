"""params.yaml: what is read, what is refused, and how a message says it."""

import copy
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import hypothesis
import pytest
import yaml
from dvc.utils.hydra import apply_overrides
from hypothesis import strategies

from severity.core import params, runs
from severity.core.errors import SeverityError, nearest
from tests.trees import TOP

REAL = params.load(TOP / "params.yaml")


def load(folder: Path, content):
    path = folder / "params.yaml"
    path.write_text(content if isinstance(content, str) else yaml.safe_dump(content), encoding="utf-8")
    return params.load(path)


def changed(path: str | tuple, value) -> dict:
    """The project's params with one value replaced."""
    content = copy.deepcopy(REAL)
    *above, last = path.split("/") if isinstance(path, str) else path
    inner = content
    for key in above:
        inner = inner[key]
    inner[last] = value
    return content


def dotted(path: tuple) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).removeprefix(".")


def test_the_projects_own_file_is_accepted_as_it_is(tmp_path):
    assert load(tmp_path, REAL) == REAL == yaml.safe_load((TOP / "params.yaml").read_text())


def test_reading_is_quick_and_loads_neither_torch_nor_numpy():
    program = (
        "import sys; from severity.core import params; params.load(); print(sys.modules.keys() & {'torch', 'numpy'})"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=TOP, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        # Names, with the nearest known one.
        ("trian", {}, ["'trian'", "Did you mean 'train'"]),
        ("grid/backbones", ["a"], ["'grid.backbones'", "Did you mean 'backbone'"]),
        ("plot/lables", 3, ["'plot.lables'", "Did you mean 'labels'"]),
        ("losses/hxe/alpah", 3, ["'losses.hxe.alpah'", "Did you mean 'alpha'"]),
        ("losses/Hxe", {}, ["'losses.Hxe'", "Did you mean 'hxe'"]),
        ("data/name", "phantm", ["data.name is 'phantm'", "Did you mean 'phantom'"]),
        ("grid/loss", ["hxee"], ["grid.loss[0] is 'hxee'", "Did you mean 'hxe'"]),
        ("grid/backbone", ["tiny_resnt"], ["grid.backbone: 'tiny_resnt'", "Did you mean 'tiny_resnet'"]),
        ("backbones/Tiny", {"model": "x", "pretrained": False}, ["backbones.Tiny", "lower-case"]),
        ("backbones/a", {"model": "x"}, ["'backbones.a.pretrained' is missing"]),
        ("decode/aspect", "squish", ["decode.aspect is 'squish'", "Did you mean 'squash'"]),
        ("train/precision", "float16", ["train.precision is 'float16'", "bfloat16, float32"]),
        ("losses/soft_labels/divergence", "js", ["losses.soft_labels.divergence is 'js'", "cross_entropy, kl"]),
        ("datasets/irma/read/code_tables", {"anatomy": "x"}, ["datasets.irma.read.code_tables", "anatomical"]),
        ("datasets/chexpert/labels/uncertain", {"default": "one"}, ["uncertain.default", "Did you mean 'ones'"]),
        ("external/kind", {"default": "logits"}, ["external.kind.default", "sigmoid_logits"]),
        ("external/kind", {"a-b-0": "detect"}, ["external.kind", "'default'"]),
        ("external/runs", ["a-b"], ["external.runs[0]", "<backbone>-<loss>-<seed>"]),
        ("compare/baseline_rule", "cmr", ["compare.baseline_rule", "Did you mean 'crm'"]),
        ("explain/rule", "cmr", ["explain.rule", "Did you mean 'crm'"]),
        # Types: nothing is taken for another.
        ("backbones/a", {"model": "x", "pretrained": 1}, ["backbones.a.pretrained is 1", "true or false", "text"]),
        ("prepare", 3, ["prepare is 3", "a mapping"]),
        ("cost/name", 3, ["cost.name is 3", "lca_height"]),
        ("explain/ids", [17], ["explain.ids[0] is 17", "quotes"]),
        ("grid/seed", 0, ["grid.seed is 0", "a list"]),
        ("grid/seed", [True], ["grid.seed[0] is True", "a whole number"]),
        ("decode/size", 1.5, ["decode.size is 1.5", "a whole number from 1"]),
        ("decode/reduced", 1, ["decode.reduced is 1", "true or false"]),
        ("train/learning_rate", "0.1", ["train.learning_rate is '0.1'", "a number above 0"]),
        ("external/runs", "chexnet-bce-0", ["external.runs is 'chexnet-bce-0'", "a list"]),
        ("machine/devices", "two", ["machine.devices is 'two'", "a whole number from 1", "or all"]),
        ("machine/device", "gpu", ["machine.device is 'gpu'", "auto, cpu, cuda or cuda:<number>"]),
        ("machine/threads", 0, ["machine.threads is 0", "a whole number from 1"]),
        ("train/keep", "best", ["train.keep is 'best'", "validation_hd_at_1"]),
        ("losses/haf/features", "all", ["losses.haf.features is 'all'", "or null"]),
        # Ranges.
        ("decode/max_unreadable", -1, ["decode.max_unreadable is -1", "from 0"]),
        ("describe/hash_distance", 65, ["describe.hash_distance is 65", "from 0 to 64"]),
        ("compare/level", 1, ["compare.level is 1", "above 0 and below 1"]),
        ("prepare/test_fraction", 1.0, ["prepare.test_fraction is 1.0", "from 0 to below 1"]),
        ("train/layer_decay", 0, ["train.layer_decay is 0", "above 0 and at most 1"]),
        ("train/warmup_epochs", 10.0, ["train.warmup_epochs is 10.0", "below train.epochs (10)"]),
        ("train/freeze_epochs", 11, ["train.freeze_epochs is 11", "at most train.epochs (10)"]),
        ("train/augmentation/scale", 1.0, ["train.augmentation.scale is 1.0", "below 1"]),
        ("losses/hxe/alpha", float("nan"), ["losses.hxe.alpha is nan", "a finite number"]),
        ("losses/ce/class_weight", {"A": 0}, ["losses.ce.class_weight.A is 0", "above 0"]),
        ("losses/bce/pos_weight", "balance", ["losses.bce.pos_weight is 'balance'", "balanced", "a mapping"]),
        ("datasets/phantom/collect/size", 31, ["datasets.phantom.collect.size is 31", "from 32 to 1,024"]),
        ("datasets/phantom/labels/smooth_range", [0.9, 0.1], ["smooth_range is [0.9, 0.1]", "lower"]),
        ("datasets/phantom/labels/smooth_range", [0.9], ["smooth_range is [0.9]", "a list of 2"]),
        ("datasets/medmnist/collect/size", 32, ["datasets.medmnist.collect.size is 32", "28, 64, 128 or 224"]),
        ("datasets/nih14/read/views", [], ["datasets.nih14.read.views is []", "at least 1"]),
        ("explain/layers", [], ["explain.layers is []", "auto or a list"]),
        # What concerns several values.
        ("grid/seed", [0, 0], ["grid.seed", "0 twice"]),
        ("external/runs", ["tiny_resnet-ce-0"], ["external.runs", "tiny_resnet-ce-0", "which the grid trains"]),
        ("external/truth", "data/collection", ["external.truth", "the grid has runs"]),
        ("data/name", "mine", ["data.name is 'mine'", "Known:", "chexpert", "own"]),
        ("evaluate/rules", ["argmax", "crm", "cmr"], ["evaluate.rules[2] is 'cmr'", "Did you mean 'crm'"]),
        ("evaluate/multi_label", ["treshold"], ["evaluate.multi_label[0]", "Did you mean 'threshold'"]),
        ("plot/configuration", "tiny_resnet-cee", ["plot.configuration", "Did you mean 'tiny_resnet-ce'"]),
        ("explain/configuration", "resnet-ce", ["explain.configuration", "tiny_resnet-ce"]),
        ("explain/seed", 3, ["explain.seed is 3", "0, 1, 2"]),
        ("datasets/phantom/hierarchy", "flat@shuffled", ["datasets.phantom.hierarchy", "<tree>@shuffled_<seed>"]),
        ("datasets/own/read/table", "a.csv", ["datasets.own.read.table", "label_separator"]),
        ("datasets/own/collect/columns", {"paht": "x"}, ["datasets.own.collect.columns", "path"]),
        ("datasets/second", REAL["datasets"]["own"] | {"kind": "ownn"}, ["datasets.second.kind is 'ownn'", "own"]),
        ("datasets/Second", REAL["datasets"]["own"] | {"kind": "own"}, ["datasets.Second", "lower-case"]),
        ("external/runs", ["a-b-0", "a-b-0"], ["external.runs", "'a-b-0' twice"]),
        ("grid/loss", [], ["grid", "no run", "external.runs"]),
    ],
)
def test_what_is_wrong_is_named_with_what_is_right(tmp_path, path, value, said):
    with pytest.raises(SeverityError) as raised:
        load(tmp_path, changed(path, value))
    message = str(raised.value)
    assert message.startswith(f"{tmp_path / 'params.yaml'}: ")
    assert [words for words in said if words not in message] == [], message
    assert len(message.splitlines()) == 1


def test_patience_needs_a_criterion_that_can_get_worse(tmp_path):
    content = changed("train/keep", "last")
    content["train"]["patience"] = 3
    with pytest.raises(SeverityError, match="train.patience is 3, but train.keep is last"):
        load(tmp_path, content)
    content["train"]["keep"] = "validation_loss"
    assert load(tmp_path, content)["train"]["patience"] == 3


def test_every_problem_has_a_line(tmp_path):
    content = changed("decode/size", 0)
    content["train"]["epochs"] = None
    del content["cost"]
    with pytest.raises(SeverityError) as raised:
        load(tmp_path, content)
    lines = str(raised.value).splitlines()
    assert len(lines) == 3
    for line, words in zip(lines, ("decode.size is 0", "'cost' is missing", "train.epochs is None"), strict=True):
        assert words in line


def test_collections_of_ones_own_lie_side_by_side_and_have_titles(tmp_path):
    content = changed("data/name", "hospital_b")
    content["datasets"]["hospital_b"] = REAL["datasets"]["own"] | {"kind": "own", "title": "Hospital B"}
    assert runs.title(load(tmp_path, content)) == "Hospital B"
    assert runs.description(runs.Run("a", "b", 0), content)["dataset"] == "Hospital B"
    del content["datasets"]["hospital_b"]["kind"]
    with pytest.raises(SeverityError, match="'datasets.hospital_b.kind' is missing"):
        load(tmp_path, content)


def test_predictions_alone_are_explained_by_no_rule(tmp_path):
    content = changed("grid/seed", [])
    content["external"]["runs"] = ["a-b-0"]
    content["explain"]["rule"] = "hie"
    assert load(tmp_path, content) == content


WRONG = {
    "null": None,
    "empty list": [],
    "empty mapping": {},
    "mapping": {"a": 1},
    "list": [[1], [1]],
    "fraction": 1.5,
    "negative": -1,
    "text": "neither word nor number",
    "blank": "",
    "true": True,
    "huge": 10**400,
    "nan": float("nan"),
}


def values(content, above: tuple = ()):
    for key, value in content.items() if isinstance(content, dict) else enumerate(content):
        yield (*above, key), value
        if isinstance(value, (dict, list)):
            yield from values(value, (*above, key))


# What no key takes whose value in the project's file is of the type.
NO_NUMBER = {"null", "empty list", "list", "text", "blank", "true", "huge", "nan"}
NEVER = {
    bool: WRONG.keys() - {"true", "text"},  # `pretrained` may be a path.
    int: WRONG.keys() - {"null"},
    float: NO_NUMBER,
    str: WRONG.keys() - {"text", "blank", "mapping", "empty mapping"},
    list: WRONG.keys() - {"empty list", "list"},
    dict: WRONG.keys() - {"mapping", "empty mapping", "text"},
    type(None): {"fraction", "negative", "text", "true", "huge", "nan", "list", "mapping"},
}


def test_a_wrong_value_of_any_kind_anywhere_is_refused_by_its_key(monkeypatch):
    """Whatever YAML can hold, at every place of the file, is taken or refused; never another error."""
    content, refused = copy.deepcopy(REAL), 0
    monkeypatch.setattr(params, "_read", lambda path: content)
    for path, value in values(REAL):
        inner = content
        for key in path[:-1]:
            inner = inner[key]
        key = dotted(path[:-1] if isinstance(path[-1], int) else path)
        for kind, wrong in WRONG.items():
            inner[path[-1]] = wrong
            try:
                params.load()
            except SeverityError as error:
                refused += 1
                assert key in str(error) or (path[0] == "grid" and "grid: there is no run" in str(error)), (path, wrong)
            else:
                assert kind not in NEVER[type(value)], (path, wrong)
        inner[path[-1]] = copy.deepcopy(value)
    assert content == REAL and refused > 3000


@pytest.mark.parametrize("number", ["1e-3", "1e-05", "1E3", "+1e3", ".5", "1.", "1.e+3", "5"])
def test_numbers_are_numbers_as_yaml_1_2_has_them(tmp_path, number):
    content = yaml.safe_dump(changed("train/learning_rate", "PLACE")).replace("PLACE", number)
    assert load(tmp_path, content)["train"]["learning_rate"] == float(number)


@pytest.mark.parametrize("word", ["e3", "1e", "1-3", "v1e3"])
def test_words_stay_words(tmp_path, word):
    content = yaml.safe_dump(changed("datasets/own/root", "PLACE")).replace("PLACE", word)
    assert load(tmp_path, content)["datasets"]["own"]["root"] == word


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [", "not YAML"),
        ("just words", "a mapping"),
        ("", "a mapping"),
        ("- 1", "a mapping"),
        ("a: 1\na: 2", "'a' is repeated"),
        ("train: {epochs: 1, epochs: 2}", "'epochs' is repeated"),
        ("? [1]\n: 2", "not YAML"),
        ("a: 2020-13-45", "not YAML"),
        ("a: " + "9" * 5000, "not YAML"),
        ("[" * 500, "not YAML"),
        ("a: !!python/object:os.system {}", "not YAML"),
        ("1: 2", "machine"),
        ("&a [*a]", "a mapping"),
    ],
    ids=range(13),
)
def test_what_is_no_mapping_in_yaml_is_refused(tmp_path, content, said):
    with pytest.raises(SeverityError, match=said):
        load(tmp_path, content)


def test_no_file_a_folder_and_another_encoding_are_refused(tmp_path):
    with pytest.raises(SeverityError, match="top folder"):
        params.load(tmp_path / "params.yaml")
    with pytest.raises(SeverityError, match="is a folder"):
        params.load(tmp_path)
    (tmp_path / "latin.yaml").write_bytes("root: Füße".encode("latin-1"))
    with pytest.raises(SeverityError, match="UTF-8"):
        params.load(tmp_path / "latin.yaml")


def comments(path: Path) -> list[str]:
    return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip().startswith("#")]


def test_every_comment_outlives_overrides(tmp_path):
    """`dvc exp run -S` writes lists anew, and with them goes a comment that follows one directly."""
    path = tmp_path / "params.yaml"
    shutil.copy(TOP / "params.yaml", path)
    before = comments(path)
    lists = [dotted(place) for place, value in values(REAL) if isinstance(value, list)]
    assert len(lists) > 10
    apply_overrides(str(path), [f"{name}=[x, y]" for name in [*lists, "explain.layers"]])
    for workers in (1, 2):
        apply_overrides(str(path), [f"machine.workers={workers}"])
    assert comments(path) == before
    assert "workers: 2" in path.read_text()


def test_nearest_names_all_and_guesses_only_what_is_near():
    assert nearest("hxee", ["ce", "hxe"]) == "Did you mean 'hxe'? Known: ce, hxe."
    assert nearest("zzz", ["ce", "hxe"]) == "Known: ce, hxe."


# Anything that YAML can say.
ANY = strategies.recursive(
    strategies.none()
    | strategies.booleans()
    | strategies.integers()
    | strategies.floats()
    | strategies.dates()
    | strategies.binary(max_size=3)
    | strategies.text(max_size=8)
    | strategies.sampled_from(
        ["auto", "balanced", "../../etc", "1e12", "~", "0x10", "1:30", "no", "\x00", 1e12, 10**12]
    ),
    lambda inner: (
        strategies.lists(inner, max_size=3)
        | strategies.dictionaries(strategies.text(max_size=5) | strategies.integers(), inner, max_size=3)
    ),
    max_leaves=6,
)
PLACES = sorted((path for path, _ in values(REAL)), key=str)


@hypothesis.settings(max_examples=100)
@hypothesis.given(strategies.lists(strategies.tuples(strategies.sampled_from(PLACES), ANY), min_size=1, max_size=3))
def test_whatever_stands_anywhere_in_the_file_is_taken_or_named(changes):
    content = copy.deepcopy(REAL)
    for path, value in changes:
        inner = content
        try:
            for key in path[:-1]:
                inner = inner[key]
            inner[path[-1]] = value
        except (IndexError, KeyError, TypeError):  # An earlier change took its place away.
            continue
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "params.yaml"
        path.write_text(yaml.safe_dump(content, allow_unicode=False), encoding="utf-8")
        try:
            params.load(path)
        except SeverityError as error:
            assert str(path) in str(error) and len(str(error).splitlines()) <= params.SHOWN + 1


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("machine/workers", 100_000, "machine.workers is 100,000, but this machine has"),
        ("machine/threads", 100_000, "machine.threads is 100,000, but this machine has"),
        ("datasets/phantom/collect/images", 10**9, "datasets.phantom.collect.images is 1000000000"),
        ("datasets/phantom/collect/images", 1e12, "a whole number from 1 to 1,000,000"),
        ("datasets/phantom/root", "../../etc", "must be data/raw/phantom"),
        ("datasets/medmnist/root", "/etc/passwd", "must be data/raw/medmnist"),
        ("datasets/own/root", "", "datasets.own.root is ''"),
        ("datasets/own/root", "a\x00b", "datasets.own.root"),
        ("decode/size", 10**6, "decode.size is 1000000"),
        ("evaluate/shuffles", 10**9, "evaluate.shuffles"),
        ("compare/permutations", 2**31 - 1, "compare.permutations"),
    ],
)
def test_what_would_take_days_or_leave_the_folder_is_refused_at_once(tmp_path, path, value, said):
    with pytest.raises(SeverityError, match=re.escape(said)):
        load(tmp_path, changed(path, value))
