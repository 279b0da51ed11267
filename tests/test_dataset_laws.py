"""Laws over all data sets: every file of severity/datasets, whatever it reads."""

import inspect
import pkgutil
import re

import pytest
import yaml

from severity import datasets
from severity.collections.collection import Collection
from severity.preparation import labelling
from severity.tree import trees
from tests.trees import TOP

NAMES = sorted(module.name for module in pkgutil.iter_modules(datasets.__path__))
PARAMS = yaml.safe_load((TOP / "params.yaml").read_text(encoding="utf-8"))
SECTIONS, MACHINE = PARAMS["datasets"], set(PARAMS["machine"])
FIRST = {"collect": ["root", "out"], "read": ["root"]}
RETURNED = {"collect": int, "read": Collection}


def test_every_data_set_has_a_section_and_every_section_a_data_set():
    assert len(NAMES) >= 8 and sorted(SECTIONS) == NAMES


@pytest.mark.parametrize("name", NAMES)
class TestEveryDataSet:
    def test_its_section_is_whole(self, name):
        section = SECTIONS[name]
        assert set(section) == {"title", "root", "hierarchy", "collect", "read", "labels"}
        assert set(section["labels"]) == set(options(labelling.apply)) - {"seed"}  # prepare.seed
        file = section["hierarchy"].partition("@")[0]
        assert file in (trees.FLAT, trees.IRMA) or (TOP / "data/hierarchies" / f"{file}.yaml").is_file()

    @pytest.mark.parametrize("function", FIRST)
    def test_its_functions_take_what_its_section_says(self, name, function):
        called = getattr(datasets.find(name), function)
        parameters = inspect.signature(called).parameters
        first = [each for each, parameter in parameters.items() if parameter.kind is not parameter.KEYWORD_ONLY]
        assert first == FIRST[function]
        required = {each for each, parameter in options(called).items() if parameter.default is parameter.empty}
        if name == "own" and function == "read":
            required -= {"table", "columns"}  # Both stages have them; they are said once, under collect.
        assert required - MACHINE <= set(SECTIONS[name][function]) <= set(options(called)) - MACHINE
        assert inspect.signature(called).return_annotation is RETURNED[function]

    @pytest.mark.parametrize("function", FIRST)
    def test_its_functions_explain_every_option(self, name, function):
        called = getattr(datasets.find(name), function)
        text = inspect.getdoc(called)
        explained = {
            word for words in re.findall(r"^ +((?:\w+, )*\w+):", text, re.MULTILINE) for word in words.split(", ")
        }
        assert set(options(called)) <= explained

    def test_its_docstring_says_what_it_holds_and_who_may_use_it(self, name):
        text = datasets.find(name).__doc__
        assert re.search(r"^Licence: \w", text, re.MULTILINE), "a line `Licence: ...`"
        assert "image" in text and re.search(r"label|class", text)


def options(function) -> dict[str, inspect.Parameter]:
    """The keyword-only parameters of a function or class."""
    parameters = inspect.signature(function).parameters
    return {name: each for name, each in parameters.items() if each.kind is each.KEYWORD_ONLY}
