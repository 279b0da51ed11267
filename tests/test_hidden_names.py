"""Keyed hashes in the place of the names of images and patients."""

import sys

import numpy
import pandas
import pytest
import yaml

from severity.collections import hidden_names
from severity.collections.collection import BOX, Collection, check
from severity.core import params
from severity.core.errors import SeverityError
from severity.predictions.predictions import Predictions
from severity.tree import trees
from stages import external, read
from tests.test_own import OPTIONS, make
from tests.trees import TOP

KEY = b"0123456789abcdef" * 2


def test_a_collection_keeps_everything_but_the_names():
    names = {"id": ["doe/1", "doe/2", "roe/1"], "patient": ["Doe 1950", "Doe 1950", "Roe 1961"]}
    table = pandas.DataFrame({**names, "path": ["a.png", "b.png", "c.png"], "sex": "", "age": [1.0, 2, 3], "view": ""})
    table = table.assign(split="", one=[1.0, 0, 1], two=0.0)
    boxes = pandas.DataFrame([["roe/1", "one", 0.1, 0.1, 0.5, 0.5]], columns=list(BOX))
    given = Collection(table, ("one", "two"), boxes)
    found = hidden_names.collection(given, KEY)
    check(found)
    assert found.table.drop(columns=list(names)).equals(table.drop(columns=list(names)))
    assert found.table["patient"].nunique() == 2 and found.table["patient"][0] == found.table["patient"][1]
    assert found.boxes["id"].tolist() == [found.table["id"][2]]
    shown = found.table[list(names)].to_csv() + found.boxes.to_csv()
    assert not [word for word in ("doe", "Doe", "roe", "1950") if word in shown]


def test_hashes_depend_on_the_key_and_on_what_is_named():
    first = hidden_names.hidden("7", "image", KEY)
    assert first == hidden_names.hidden("7", "image", KEY) and len(first) == hidden_names.LENGTH
    others = [("7", "image", KEY[::-1]), ("7", "patient", KEY), ("8", "image", KEY)]
    assert len({first, *(hidden_names.hidden(*other) for other in others)}) == 4


@pytest.mark.parametrize("content", [None, b"", b"short"])
def test_without_a_key_nothing_is_hidden_and_the_message_makes_one(tmp_path, content):
    if content is not None:
        (tmp_path / "ids.key").write_bytes(content)
    with pytest.raises(SeverityError, match=r"data.hidden_names.*ids\.key.*secrets\.token_hex"):
        hidden_names.read_key(tmp_path / "ids.key")


def test_the_stage_hides_names_and_external_predictions_find_them(tmp_path, monkeypatch, capsys):
    """From the table and the file to the prediction file: no name is left, and every image is found."""
    monkeypatch.chdir(tmp_path)
    make(
        tmp_path / "mine",
        "path,patient,split,class\nDoe_1.png,Doe,test,a\nRoe_2.png,Roe,test,b\nRoe_3.png,Roe,train,a\n",
    )
    settings = params.load(TOP / "params.yaml")
    settings["data"] = {"name": "own", "hidden_names": True}
    settings["datasets"]["own"] |= {"root": str(tmp_path / "mine"), "hierarchy": "flat"}
    settings["datasets"]["own"]["read"] = {key: OPTIONS[key] for key in ("ignore", "views", "label_separator")}
    settings["external"] |= {"truth": "data/collection", "runs": ["x-ce-0"]}
    settings["grid"]["seed"] = []
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(settings))
    with pytest.raises(SeverityError, match="ids.key"):
        read.main()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/ids.key").write_bytes(KEY)
    read.main()
    table = (tmp_path / "data/collection/table.csv").read_text()
    assert "Doe" not in table and "Roe" not in table and len(table.splitlines()) == 4
    sheet = "id,prob:a,prob:b\nDoe_1.png,0.9,0.1\nRoe_2,0.2,0.8\n"
    (tmp_path / "data/external_predictions").mkdir()
    (tmp_path / "data/external_predictions/x-ce-0.csv").write_text(sheet)
    tree = trees.named(tmp_path, "flat", ["a", "b"])
    tree.write("data/hierarchy/hierarchy.json")
    monkeypatch.setattr(sys, "argv", ["external", "--run", "x-ce-0"])
    external.main()
    found = Predictions.read("data/predictions/x-ce-0.npz", tree)
    assert set(found.ids.tolist()) < set(table.replace("\n", ",").split(",")) and len(found.ids) == 2
    numpy.testing.assert_allclose(numpy.exp(found.log_posterior), [[0.9, 0.1], [0.2, 0.8]], rtol=1e-6)
    assert "own: 3 images" in capsys.readouterr().out
