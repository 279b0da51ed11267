"""The schema of params.yaml against the code whose arguments it describes."""

import importlib
import inspect
import json
from typing import get_args

import pytest
import yaml

from severity import losses, schema
from severity.comparison import comparisons
from severity.datacard import duplicates
from severity.datasets import irma_phantom, medmnist, own
from severity.decisions import class_rules, set_rules, temperature
from severity.decoding import storage
from severity.external import conversion
from severity.irma import codes
from severity.metrics import evaluation
from severity.networks import backbones, images
from severity.preparation import labelling, preparation
from severity.schema.data import DATASETS, Axis, IrmaPhantomCollect, MedmnistCollect, Policy
from severity.schema.losses import LOSSES
from severity.training import training
from severity.tree import costs
from stages import explain, predict
from tests.trees import TOP

# A section -> the function whose keyword-only arguments it holds, but for those that come from elsewhere.
SECTIONS = {
    "decode": (storage.decode, {"dataset", "root", "workers", "scratch"}),
    "prepare": (preparation.prepare, {"dataset", "root", "policies", "sixteen_bits"}),
    "describe": (duplicates.find, {"workers"}),
    "cost": (costs.build, {"hierarchy", "irma"}),
    "train": (training.fit, {"device", "compile", "cost", "after_epoch"}),
    "predict": (predict.predict, {"device"}),
    "evaluate": (evaluation.evaluate, {"irma"}),
    "compare": (comparisons.compare, {"rules", "batch_size"}),
    "explain": (explain.explain, {"threads"}),
}


def section(name: str) -> set[str]:
    return set(schema.Params.model_fields[name].annotation.model_fields)


def keywords(function) -> set[str]:
    parameters = inspect.signature(function).parameters.values()
    return {each.name for each in parameters if each.kind is inspect.Parameter.KEYWORD_ONLY}


@pytest.mark.parametrize("name", SECTIONS)
def test_a_section_is_what_its_function_takes(name):
    function, given = SECTIONS[name]
    assert section(name) | given == keywords(function) and not section(name) & given


def test_parts_of_sections_are_what_their_functions_take():
    assert section("external") - {"runs", "truth"} == keywords(conversion.convert)
    train = schema.Params.model_fields["train"].annotation
    assert set(train.model_fields["augmentation"].annotation.model_fields) == keywords(images.Augmentation)
    assert set(schema.training.Backbone.model_fields) == keywords(backbones.build) - {"outputs", "size"}
    assert set(schema.data.Labels.model_fields) == keywords(labelling.apply) - {"seed"}


def test_every_loss_has_a_schema():
    assert sorted(LOSSES) == losses.names()


@pytest.mark.parametrize("name", LOSSES)
def test_a_losss_section_is_what_it_takes(name):
    loss = importlib.import_module(f"severity.losses.{name}").Loss
    assert set(LOSSES[name].model_fields) == keywords(loss) - {"hierarchy", "cost"}


def test_every_data_set_has_a_schema():
    assert set(DATASETS) == {path.stem for path in (TOP / "severity/datasets").glob("[a-z]*.py")}


@pytest.mark.parametrize("name", DATASETS)
def test_a_data_sets_sections_are_what_it_takes(name):
    module, fields = importlib.import_module(f"severity.datasets.{name}"), DATASETS[name].model_fields
    given = {"workers", "section"}  # by the stage
    collect, read = (set(fields[part].annotation.model_fields) for part in ("collect", "read"))
    assert collect == keywords(module.collect) - given
    # Of the phantom, read as CheXpert is, valid.csv is always the test set, which is what the default says.
    default = {"valid"} if name == "phantom" else set()
    # What `collect` and `read` both take is said under `collect`.
    assert read == keywords(module.read) - given - default - collect and not read & collect & keywords(module.read)


def test_no_key_has_a_default():
    """Values have one home, params.yaml."""
    optional = []

    def visit(model: dict, name: str) -> None:
        optional.extend(f"{name}.{key}" for key in model.get("properties", {}) if key not in model.get("required", []))

    content = schema.json_schema()
    for name, model in {"": content, **content["$defs"]}.items():
        visit(model, name)
    assert len(content["$defs"]) > 30 and optional == []


def test_words_and_bounds_that_the_code_has_too_are_the_same():
    assert set(get_args(Policy)) == {*labelling.POLICIES, labelling.SMOOTH}
    assert set(get_args(schema.scoring.Cost.model_fields["name"].annotation)) == {*costs.DERIVED, "file", "irma"}
    assert set(schema.scoring.RULES) == set(class_rules.RULES) and temperature.split(f"crm{schema.scoring.SCALED}")[1]
    assert set(schema.scoring.SET_RULES) == set(set_rules.RULES)
    unmixed = [name for name in LOSSES if not importlib.import_module(f"severity.losses.{name}").Loss.mixes]
    assert unmixed == ["haf"]
    assert get_args(Axis) == tuple(codes.AXES)
    assert get_args(MedmnistCollect.model_fields["size"].annotation) == medmnist.SIZES
    least = next(each.ge for each in IrmaPhantomCollect.model_fields["images"].metadata if hasattr(each, "ge"))
    assert least == len(irma_phantom.CODES)
    bits = next(each.le for each in schema.data.Describe.model_fields["hash_distance"].metadata if hasattr(each, "le"))
    assert bits == duplicates.BITS
    assert set(section("datasets")) == set(DATASETS) and own.SECTION.removeprefix("datasets.") in DATASETS


def test_the_json_schema_for_editors_is_current():
    """Regenerate it with ``python -m severity.schema``."""
    assert json.loads((TOP / "params.schema.json").read_text()) == schema.json_schema()
    assert (TOP / "params.yaml").read_text().startswith("# yaml-language-server: $schema=params.schema.json\n")


def test_no_stage_tracks_the_settings_of_the_machine():
    stages = yaml.safe_load((TOP / "dvc.yaml").read_text())["stages"]
    tracked = [name for stage in stages.values() for name in stage.get("params", [])]
    assert "train" in tracked and not [name for name in tracked if name.split(".")[0] == "machine"]
