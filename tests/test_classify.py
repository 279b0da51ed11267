"""Single images by a trained network, labelled or not."""

import sys

import numpy
import pandas
import pytest
import torch
from PIL import Image

from severity.core.errors import SeverityError
from severity.networks import models
from tests.test_explain import SIDE, write_inputs
from tools import classify

RUN = "data/models/net-hxe-0"


@pytest.fixture
def workspace(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_inputs(seeds=(0,))
    random = numpy.random.default_rng(3)
    for name in ("new/a/1.png", "new/2.PNG", "3.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (SIDE, SIDE), dtype=numpy.uint8)).save(tmp_path / name)
    return tmp_path


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["classify", *arguments])
    classify.main()


def test_probabilities_are_the_networks_and_heat_lies_beside_the_image(workspace, monkeypatch, capsys):
    run(monkeypatch, RUN, "new", "3.jpg", "--out", "out")
    table = pandas.read_csv("out/probabilities.csv")
    assert table["id"].tolist() == ["2", "a/1", "3"] and "3 images" in capsys.readouterr().out
    model = models.read(RUN)
    pixels = numpy.array(Image.open("new/a/1.png"))
    with torch.no_grad():
        right = model.loss.log_posterior(model.network(torch.from_numpy(pixels)[None, None] / 255).double()).exp()[0]
    numpy.testing.assert_allclose(table.iloc[1, 2:].to_numpy(dtype=float), right, rtol=1e-5)
    assert table["decision"][1] == model.hierarchy.classes[int(right.argmax())]
    heat = numpy.asarray(Image.open("out/heat/a/1.png"))
    assert heat.shape == (SIDE, 2 * SIDE, 3) and (heat[:, :SIDE] == pixels[:, :, None]).all()
    run(monkeypatch, RUN, "new", "--out", "out", "--no-heat", "--aspect", "crop")
    assert sorted(path.name for path in (workspace / "out").iterdir()) == ["probabilities.csv"]


def test_what_cannot_be_classified_is_named_and_nothing_is_replaced(workspace, monkeypatch):
    (workspace / "out").mkdir()
    (workspace / "new/bad.png").write_bytes(b"no image")
    (workspace / "none").mkdir()
    for given, said in ((["new"], "bad.png cannot be read"), (["none"], "no image below none"), (["4.png"], "4.png")):
        with pytest.raises(SeverityError, match=said):
            run(monkeypatch, RUN, *given, "--out", "out")
    with pytest.raises(SeverityError, match="would both be '3'"):
        run(monkeypatch, RUN, "3.jpg", "3.jpg", "--out", "out")
    assert (workspace / "out").is_dir() and not list((workspace / "out").iterdir())
