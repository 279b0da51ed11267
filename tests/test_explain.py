"""The stage from files to files, on a collection and a network made here."""

import json
import shutil
from pathlib import Path

import numpy
import pandas
import pytest
import torch
import yaml
from PIL import Image

from severity import losses
from severity.core import files
from severity.core.errors import SeverityError
from severity.explanation import explanation
from severity.networks import backbones, models
from severity.predictions.predictions import Predictions
from severity.tree import costs
from stages import explain
from tests import records
from tests.test_cases import OPTIONS as EVALUATE
from tests.trees import TOP, six_classes

TREE = six_classes()
COST = costs.lca_height(TREE)
SIDE, IMAGES = 32, 60
SETTINGS = {
    "configuration": "best", "seed": None, "rule": "crm", "mistakes": 2, "ids": [], "cam": "auto", "layers": "auto", "maps": 2,
}  # fmt: skip
BOXES = [
    # id, label, left, top, right, bottom of an original of 40 x 20 pixels, whose middle 20 x 20 are prepared
    ("image 59", "b1", 0.25, 0.0, 0.5, 0.5),
    ("image 59", "b1", 0.0, 0.0, 0.2, 1.0),  # cropped away
    ("image 59", "d1", 0.5, 0.25, 1.0, 0.75),  # half of it cropped away
    ("image 3", "b1", 0.0, 0.0, 1.0, 1.0),  # not explained
]


def write_inputs(seeds=(0, 1), loss="hxe") -> None:
    """All that the stage reads, below the current folder; predictions are the networks' own."""
    random = numpy.random.default_rng(0)
    images = random.integers(0, 256, (IMAGES, SIDE, SIDE), dtype=numpy.uint8)
    truth = (random.random((IMAGES, 6)) < 0.2).astype(numpy.float32)
    truth[numpy.arange(IMAGES), random.integers(0, 6, IMAGES)] = 1
    ids = [f"image {row}" for row in range(IMAGES)]
    params = yaml.safe_load((TOP / "params.yaml").read_text())
    options = params["losses"][loss]
    grid = {"backbone": ["net"], "loss": [loss], "seed": list(seeds)}
    record = {"backbones": {"net": {"model": "test_resnet", "pretrained": False}}, "losses": {loss: options}}
    TREE.write("data/hierarchy/hierarchy.json")
    numpy.save("data/hierarchy/lca_height.npy", COST)
    costs.write("data/cost/cost.csv", COST, TREE.classes)
    Path("data/images").mkdir()
    numpy.save("data/images/images.npy", images)
    index = pandas.DataFrame({"id": ids, "path": ids, "width": 40, "height": 20})
    files.write_csv("data/images/index.csv", index)
    files.write_json("data/images/summary.json", {"images": IMAGES, "size": SIDE, "aspect": "crop"})
    boxes = pandas.DataFrame(BOXES, columns=["id", "label", "left", "top", "right", "bottom"])
    files.write_csv("data/prepared/boxes.csv", boxes)
    for seed in seeds:
        run = f"net-{loss}-{seed}"
        torch.manual_seed(seed)
        link = losses.build(loss, hierarchy=TREE, cost=COST, **options).eval()
        network = backbones.build(model="test_resnet", pretrained=False, outputs=link.outputs).eval()
        weights = network.state_dict() | {f"loss.{name}": value for name, value in link.state_dict().items()}
        models.write(
            f"data/models/{run}", network=network, weights=weights, history=pandas.DataFrame({"epoch": [1]}),
            record=record, hierarchy=TREE, cost=COST, size=(SIDE, SIDE), outputs=link.outputs,
        )  # fmt: skip
        with torch.no_grad():
            logits = network(torch.from_numpy(images)[:, None] / 255).double()
            log_posterior, node_logits = (each(logits).numpy() for each in (link.log_posterior, link.node_logits))
        made = Predictions.of(
            TREE,
            ids=numpy.array(ids),
            patients=numpy.array(ids),
            split=numpy.repeat(["validation", "test"], IMAGES // 2),
            truth=truth,
            run=run,
            dataset="made up",
            log_posterior=log_posterior,
            node_logits=node_logits,
        )
        made.write(f"data/predictions/{run}.npz")
        files.write_json(f"metrics/runs/{run}.json", records.of(made, TREE, COST, **EVALUATE))
    params["grid"] = grid
    params["backbones"] = {"net": {"model": "test_resnet", "pretrained": False}}
    params["evaluate"]["rules"] = EVALUATE["rules"]
    params["explain"] = SETTINGS
    Path("params.yaml").write_text(yaml.safe_dump(params))


def change(**changes) -> None:
    """Change options of explain in params.yaml."""
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["explain"] |= changes
    Path("params.yaml").write_text(yaml.safe_dump(params))


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("inputs")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        write_inputs()
    return folder


@pytest.fixture
def study(inputs, tmp_path, monkeypatch):
    shutil.copytree(inputs, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return Path("plots/explain")


def everything(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_writes_pictures_and_all_that_is_in_them_twice_alike(study, capsys):
    change(mistakes=1, ids=["image 59"])
    explain.main()
    told = capsys.readouterr().out
    (folder,) = study.iterdir()
    assert told == f"{folder.name}: explained 3 images\n" and folder.name == "net-hxe-0"
    names = ["least_1", "most_1", "chosen_1"]
    drawn = [".png", ".svg", ".csv", ".caption.txt"]
    kinds = [*drawn, *(f"_maps{kind}" for kind in drawn), "_maps.npz"]
    tables = ["index.csv", "cams.csv", "cams.npy", "boxes.csv"]
    assert sorted(path.name for path in folder.iterdir()) == sorted([*(n + k for n in names for k in kinds), *tables])
    metrics = json.loads(Path("metrics/runs/net-hxe-0.json").read_text())["rules"]["crm"]
    index = pandas.read_csv(folder / "index.csv")
    assert index["case"].tolist() == names
    wanted = [each["id"] for end in ("least", "most") for each in metrics[end][:1]]
    assert index["id"].tolist() == [*wanted, "image 59"]
    cams, maps = pandas.read_csv(folder / "cams.csv"), numpy.load(folder / "cams.npy")
    assert len(cams) == len(maps) and set(cams["places"]) == set(maps.shape[1:]) == {4}
    assert cams["largest"].tolist() == pytest.approx(explanation.upsampled(maps, SIDE).max(axis=(1, 2)).tolist())
    predictions = Predictions.read("data/predictions/net-hxe-0.npz", TREE)
    for row in cams.itertuples():
        here = predictions.posterior[predictions.ids == row.id, TREE.classes.index(row.label)]
        assert numpy.exp(row.log_posterior) == pytest.approx(here.item(), rel=1e-4)
    with numpy.load(folder / "most_1_maps.npz") as stored:
        table = pandas.read_csv(folder / "most_1_maps.csv")
        for layer, rows in table.groupby("layer"):
            assert stored[layer].shape == (2, *rows["places"])
            assert stored[layer].max(axis=(1, 2)).tolist() == pytest.approx(rows["largest"].tolist())
    first = everything(study)
    Path(study / "stale.txt").write_text("of another run")
    explain.main()
    assert everything(study) == first
    with Image.open(folder / "most_1.png") as picture:
        assert picture.width > 1000


def test_boxes_follow_the_image_into_the_square(study):
    change(mistakes=0, ids=["image 59"], maps=0)
    explain.main()
    table = pandas.read_csv(study / "net-hxe-0/boxes.csv")
    assert set(table["id"]) == {"image 59"}
    for _, rows in table.groupby("label"):
        # 10 to 20 of 40 pixels are the left half of the middle 20; 20 to 40 its right half, the rest is cropped away.
        assert rows.set_index("box")["box_area"].to_dict() == {"b1": 0.25, "d1": 0.25}
    assert not list(study.rglob("*_maps*"))


def test_images_without_boxes_leave_an_empty_table(study):
    change(mistakes=0, ids=["image 7"])
    explain.main()
    assert (study / "net-hxe-0/boxes.csv").read_text() == "case,id,label,box,box_area,energy,hit\n"


def test_without_mistakes_and_ids_there_is_nothing_but_an_empty_index(study):
    change(mistakes=0)
    explain.main()
    assert [path.name for path in (study / "net-hxe-0").iterdir()] == ["index.csv"]
    assert len(pandas.read_csv(study / "net-hxe-0/index.csv")) == 0


def test_cell_seed_rule_and_layers_are_chosen_by_params(study):
    change(configuration="net-hxe", seed=1, rule="crm_ts", mistakes=1, cam="layer1.0", layers=["layer2.0"])
    explain.main()
    folder = study / "net-hxe-1"
    assert set(pandas.read_csv(folder / "cams.csv")["layer"]) == {"layer1.0"}
    assert set(pandas.read_csv(folder / "least_1_maps.csv")["layer"]) == {"layer2.0"}
    assert set(pandas.read_csv(folder / "index.csv")["rule"]) == {"crm_ts"}


def test_a_loss_with_weights_of_its_own_is_loaded_with_them(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_inputs(seeds=(3,), loss="haf")
    change(mistakes=1, maps=0)
    explain.main()
    predictions = Predictions.read("data/predictions/net-haf-3.npz", TREE)
    for row in pandas.read_csv("plots/explain/net-haf-3/cams.csv").itertuples():
        here = predictions.posterior[predictions.ids == row.id, TREE.classes.index(row.label)]
        assert numpy.exp(row.log_posterior) == pytest.approx(here.item(), rel=1e-4)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"configuration": "net-ce"}, "explain.configuration is 'net-ce'. Did you mean 'net-hxe'"),
        ({"seed": 2}, "explain.seed is 2. Known: 0, 1"),
        ({"cam": "layer9"}, "explain.cam: the network has no layer 'layer9'"),
        ({"ids": ["image 99"]}, "no image 'image 99'"),
        ({"mistaken": 1}, "'explain.mistaken'. Did you mean 'mistakes'"),
    ],
)
def test_what_does_not_fit_is_told_and_leaves_nothing(study, changes, told):
    change(**changes)
    with pytest.raises(SeverityError, match=told):
        explain.main()
    assert not study.exists()


def test_a_wrong_id_takes_no_earlier_picture_away(study):
    """Neither by the stage nor by DVC, which removes what a stage is about to write unless it is told to persist."""
    (study / "net-hxe-0").mkdir(parents=True)
    (study / "net-hxe-0/most_1.png").write_bytes(b"earlier")
    change(ids=["image 99"])
    with pytest.raises(SeverityError, match="no image 'image 99'"):
        explain.main()
    assert everything(study) == {"net-hxe-0/most_1.png": b"earlier"}
    (out,) = yaml.safe_load((TOP / "dvc.yaml").read_text())["stages"]["explain"]["outs"]
    assert out["plots/explain"]["persist"]


def test_images_of_another_collection_are_told(study):
    index = pandas.read_csv("data/images/index.csv")
    files.write_csv("data/images/index.csv", index.assign(id="other " + index["id"]))
    with pytest.raises(SeverityError, match="data/images holds no image 'image"):
        explain.main()
