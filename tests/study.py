"""A made-up study on disk, in the form that the stages leave it in: what the report reads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import pandas
import yaml
from PIL import Image

from severity.comparison import comparisons, conclusions
from severity.core import documents, files, runs, stale
from severity.core.documents import Document
from severity.core.hierarchy import Hierarchy
from severity.core.runs import Run
from severity.figures import catalogue
from severity.predictions.predictions import Predictions
from severity.summary import configurations
from severity.tree import costs
from stages import evaluate
from tests import records
from tests.trees import TOP, six_classes

VALIDATION, TEST = 30, 90
RULES = ["argmax", "crm"]
SPLITS = ("train", "validation", "test")
# Names that would break a page which did not escape them.
HOSTILE = ("</script><b>x", "R & D", 'say "ah"', "it's <i>", "50 % $5_{a}^~#\\", "d2|*e*")


def tree(classes: tuple[str, ...] = ()) -> Hierarchy:
    """The six-class tree, its classes renamed if names are given."""
    plain = six_classes()
    given = plain.given_nodes
    return Hierarchy.from_parents(plain.parents[:given].tolist(), plain.stands_for.tolist(), classes or plain.classes)


def predict(run: Run, known: Hierarchy) -> Predictions:
    """Made-up predictions; no test image shows the second class, and hxe errs most."""
    common, size = numpy.random.default_rng(0), len(known.classes)
    truth = numpy.eye(size)[common.integers(0, size, VALIDATION + TEST)]
    truth[VALIDATION:, 1] = 0
    noise = 0.6 if run.loss == "bce" else 2.0
    return records.predict(run, known, truth=truth, validation=VALIDATION, noise=noise)


def settings_of(grid: dict[str, list]) -> dict[str, Any]:
    params = yaml.safe_load((TOP / "params.yaml").read_text())
    params["grid"] = grid
    for name in grid["backbone"]:
        params["backbones"].setdefault(name, {"model": name, "pretrained": False})
    params["evaluate"] |= {"rules": RULES, "batch_size": 16, "multi_label": ["threshold"]}
    params["compare"] |= {"resamples": 50, "permutations": 199}
    return params


def make(folder: Path, *, grid: dict[str, list], classes: tuple[str, ...] = ()) -> Path:
    """Everything the report reads, in `folder`."""
    params, known = settings_of(grid), tree(classes)
    files.write_text(folder / "params.yaml", yaml.safe_dump(params, sort_keys=False))
    known.write(folder / "data/hierarchy/hierarchy.json")
    predictions = {run: predict(run, known) for run in runs.grid(params)}
    _write_metrics(folder, params, known, predictions)
    _write_data(folder, known)
    for run in predictions:
        record = runs.record(run, params, prepared={"table.csv": "0" * 64}, hierarchy={})
        files.write_json(folder / f"data/models/{run.name}/record.json", record)
    for stem in catalogue.FIGURES:
        _draw(folder / f"plots/{stem}", (300, 200))
    files.write_text(folder / "plots/scores/tradeoff.caption.txt", "Lower left is better. <Captions> are text.\n")
    explained = folder / "plots/explain" / next(iter(predictions)).name
    for case in ("least_1", "most_1"):
        _draw(explained / case, (1600, 900))
    _draw(explained / "most_1_maps", (400, 300))
    index = {"id": "image40", "split": "test", "truth": known.classes[0], "decision": known.classes[4], "severity": 3.0}
    index |= {"posterior": 0.25, "run": explained.name, "rule": "crm"}
    files.write_csv(
        explained / "index.csv", pandas.DataFrame([{"case": case, **index} for case in ("least_1", "most_1")])
    )
    return folder


def _write_metrics(folder: Path, params: dict, known: Hierarchy, predictions: dict[Run, Predictions]) -> None:
    cost = costs.lca_height(known)
    evaluated = {
        run: records.of(each, known, cost, settings=params, **params["evaluate"])
        | {"patients": evaluate.scored_patients(each)}
        for run, each in predictions.items()
    }
    for run, metrics in evaluated.items():
        files.write_json(folder / f"metrics/runs/{run.name}.json", metrics)
    files.write_csv(folder / "metrics/table.csv", configurations.whole_table(evaluated, RULES))
    files.write_json(folder / "metrics/headline.json", configurations.headline(evaluated, RULES))
    study = comparisons.compare(
        predictions.get, list(predictions), known, cost, rules=RULES, batch_size=16, **params["compare"]
    )
    for name, table in study.tables.items():
        files.write_csv(folder / f"metrics/comparisons/{name}.csv", table)
    _write_page(folder / "metrics/comparisons", "comparisons", conclusions.page(study, stale.facts(params)))
    images = documents.table(["split", "images"], [["all", documents.count(120)]])
    note = documents.paragraph("a ", documents.code("note"), " of the collection")
    card = Document("Data card: phantom", (documents.Heading("Images"), images, note))
    _write_page(folder / "metrics/data", "card", card)
    files.write_json(folder / "metrics/data/card.json", {"images": {"all": 120}})


def _write_page(folder: Path, name: str, page: Document) -> None:
    files.write_text(folder / f"{name}.md", page.markdown())
    page.write(folder / "page.json")


def _write_data(folder: Path, known: Hierarchy) -> None:
    labels = {label: {"positives": 9 + k, "negatives": 90} for k, label in enumerate(known.classes)}
    counts = {split: {"images": 99, "patients": 50, "labels": labels} for split in SPLITS}
    counts["test"] = {**counts["test"], "labels": {**labels, known.classes[1]: {"positives": 0, "negatives": 90}}}
    files.write_json(folder / "data/prepared/summary.json", {"dataset": "phantom", "images": 297, "counts": counts})
    images = VALIDATION + TEST
    summary = {"dataset": "phantom", "size": 16, "aspect": "squash", "images": images, "unreadable": 0}
    files.write_json(folder / "data/images/summary.json", summary)
    index = {"id": [f"image{i}" for i in range(images)], "path": "", "width": 16, "height": 16}
    files.write_csv(folder / "data/images/index.csv", pandas.DataFrame(index))
    pixels = numpy.random.default_rng(0).integers(0, 256, (images, 16, 16), dtype=numpy.uint8)
    numpy.save(folder / "data/images/images.npy", pixels)
    lock = {"stages": {"decode": {"outs": [{"path": "data/images", "md5": "5" * 32 + ".dir"}]}, "x": {"cmd": "y"}}}
    files.write_text(folder / "dvc.lock", yaml.safe_dump(lock))


def _draw(stem: Path, size: tuple[int, int]) -> None:
    stem.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGBA", size, "#0072B2").save(stem.with_name(f"{stem.name}.png"))
    files.write_csv(stem.with_name(f"{stem.name}.csv"), pandas.DataFrame({"x": [1]}))


@contextmanager
def inside(folder: Path) -> Iterator[None]:
    """Work in a folder for the length of the block."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
