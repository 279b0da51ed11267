"""params.yaml at the door."""

import copy

import pytest
import yaml

from severity.core import params
from severity.core.errors import SeverityError, nearest
from tests.trees import TOP


@pytest.fixture
def content() -> dict:
    return yaml.safe_load((TOP / "params.yaml").read_text())


def load(tmp_path, content):
    (tmp_path / "params.yaml").write_text(content if isinstance(content, str) else yaml.safe_dump(content))
    return params.load(tmp_path / "params.yaml")


def test_the_projects_own_file_is_accepted(content, tmp_path):
    assert load(tmp_path, content) == content


def changed(content: dict, path: str, value) -> dict:
    content = copy.deepcopy(content)
    *above, last = path.split("/")
    inner = content
    for key in above:
        inner = inner[key]
    inner[last] = value
    return content


@pytest.mark.parametrize(
    ("path", "value", "told"),
    [
        ("trian", {}, "unknown key 'trian'. Did you mean 'train'"),
        ("grid/backbones", ["a"], "unknown key 'backbones'. Did you mean 'backbone'"),
        ("data/name", "phantm", "'phantm' has no section under 'datasets'. Did you mean 'phantom'"),
        ("grid/backbone", ["tiny_resnt"], "'tiny_resnt' has no section under 'backbones'. Did you mean 'tiny_resnet'"),
        ("grid/loss", ["hxee"], "'hxee' has no section under 'losses'. Did you mean 'hxe'"),
        ("grid/seed", [0, 0], "twice"),
        ("grid/seed", [True], "of type int"),
        ("grid/seed", 0, "must be a list"),
        (
            "grid/loss",
            [],
            "there is no run. Each list of the grid needs at least one entry, unless external.runs has one",
        ),
        ("adopt/runs", "chexnet-bce-0", "must be a list"),
        ("adopt/runs", ["a-b-0", "a-b-0"], "twice"),
        ("adopt/truht", "data/prepared", "unknown key 'truht'. Did you mean 'truth'"),
        ("plot/lables", 3, "unknown key 'lables'. Did you mean 'labels'"),
        ("losses/Hxe", {}, "lower-case"),
        ("backbones/a", {"model": "x"}, "'pretrained' is missing"),
        ("backbones/a", {"model": "x", "pretrained": 1}, "of type bool or str"),
        ("prepare", 3, "must be a mapping"),
        ("cost/name", 3, "of type str"),
    ],
)
def test_what_is_wrong_is_named(content, tmp_path, path, value, told):
    with pytest.raises(SeverityError, match=told):
        load(tmp_path, changed(content, path, value))


def test_a_missing_section_is_named(content, tmp_path):
    del content["cost"]
    with pytest.raises(SeverityError, match="'cost' is missing"):
        load(tmp_path, content)


def test_no_yaml_and_no_file_are_told(tmp_path):
    with pytest.raises(SeverityError, match="top folder"):
        params.load(tmp_path / "params.yaml")
    with pytest.raises(SeverityError, match="not YAML"):
        load(tmp_path, "a: [")
    with pytest.raises(SeverityError, match="must be a mapping"):
        load(tmp_path, "just words")


def example(given: int, *, rate: float, name: str = "x") -> tuple:
    return given, rate, name


def test_call_passes_options_and_refuses_unknown_missing_and_textual_ones():
    assert params.call(example, 1, values={"rate": 0.5}, where="here") == (1, 0.5, "x")
    with pytest.raises(SeverityError, match="here: unknown key 'rat'. Did you mean 'rate'"):
        params.call(example, 1, values={"rat": 0.5}, where="here")
    with pytest.raises(SeverityError, match="here: the key 'rate' is missing"):
        params.call(example, 1, values={}, where="here")
    with pytest.raises(SeverityError, match="1e-3 as text"):
        params.call(example, 1, values={"rate": "1e-3"}, where="here")
    with pytest.raises(SeverityError, match="unknown key 'given'"):
        params.call(example, 1, values={"rate": 0.5, "given": 2}, where="here")


def test_nearest_names_all_and_guesses_only_what_is_near():
    assert nearest("hxee", ["ce", "hxe"]) == "Did you mean 'hxe'? Known: ce, hxe."
    assert nearest("zzz", ["ce", "hxe"]) == "Known: ce, hxe."
