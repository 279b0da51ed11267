"""Explain single decisions of one network: the paths to truth and decision, Grad-CAM of both, feature maps.

Reads   params.yaml; metrics/runs/<run>.json of the runs that the grid names; of the one that is explained
        data/predictions/<run>.npz and data/models/<run>; data/cost/cost.csv, data/hierarchy, data/images,
        data/prepared/boxes.csv
Writes  plots/explain/<run>/: index.csv, a row a case; of each case <case>.png with <case>.csv (the paths) and
        <case>_maps.png with <case>_maps.csv and <case>_maps.npz (layer -> its maps); cams.csv, a row a case and class,
        and cams.npy (rows, places, places), what Grad-CAM gives before zero cuts it; boxes.csv, a row for each of these
        and each label that has boxes in the image. Without images (severity/core/without_images.py): plots/explain with
        a note of that
Run     python -m stages.explain     20 seconds for the default on two cores
"""

from pathlib import Path

import numpy
import pandas
from tqdm import tqdm

from severity.collections.collection import BOX
from severity.core import errors, files, params, runs, tables, without_images
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.decoding import decoding
from severity.drawing import pictures, short_names
from severity.explanation import explained_images, explanation
from severity.explanation import figures as explanation_figures
from severity.metrics import record
from severity.metrics.record import Record
from severity.networks import inference, models
from severity.predictions.predictions import Predictions
from severity.prepared import decoded
from severity.summary import configurations
from severity.tree import costs

EDGES = list(BOX[2:])


def main() -> None:
    settings = params.load()
    if without_images.without_images(settings):
        print(without_images.leave_out("plots/explain"))
        return
    if not runs.grid(settings):
        print(without_images.leave_out("plots/explain", without_images.UNTRAINED))
        return
    records = record.of_study(record.read_runs("metrics/runs", runs.grid(settings), []), settings)
    with files.replacing("plots/explain") as out:
        summary = explain(records, out, threads=settings["machine"]["threads"], **settings["explain"])
    print(summary)


def explain(
    records: dict[runs.Run, Record],
    out: Path,
    *,
    configuration: str,
    seed: int | None,
    rule: str,
    mistakes: int,
    ids: list,
    cam: str,
    layers: str | list,
    maps: int,
    threads: int = 1,
) -> str:
    """Write what the module says into the folder `out`, and report it in one line.

    Args:
        records: of every run of the grid.
        configuration, seed: the run: see `configurations.choose`; one of the configuration's seeds, None for the one that
            `configurations.best_seed` chooses.
        rule, mistakes, ids: see `explained_images.find`.
        cam, layers: see `explanation.choose`.
        maps: how many feature maps of each layer are shown; 0 leaves these pictures out.
        threads: of a CPU.

    Raises:
        SeverityError: an option that does not fit what is there, or a file that is missing.
    """
    of_run = choose_run(records, configuration, seed)
    run = runs.Run(of_run["backbone"], of_run["loss"], of_run["seed"])
    hierarchy = Hierarchy.read("data/hierarchy/hierarchy.json")
    predictions = Predictions.read(Path("data/predictions") / f"{run.name}.npz", hierarchy)
    cost = costs.read("data/cost/cost.csv", hierarchy.classes)
    chosen = explained_images.find(predictions, of_run, hierarchy, cost, rule=rule, mistakes=mistakes, ids=ids)
    inference.deterministic(runs.seed_for(run.name), threads)
    model = models.read(Path("data/models") / run.name)
    network, loss = model.network, model.loss
    images, boxes = read_images([case.id for case in chosen])
    cam, layers = explanation.choose(network, images.shape[1], cam=cam, layers=layers)

    folder, facts = out / run.name, f"{run.name} under {rule}, {of_run['dataset']}"
    explanations = []
    for case, image in zip(tqdm(chosen, desc="explain", unit="image", disable=None), images, strict=True):
        own = boxes[boxes["id"] == case.id]
        each = explanation.explain(
            case, network, loss, image=image, boxes=own, hierarchy=hierarchy, cam=cam, layers=layers, maps=maps
        )
        steps = explained_images.steps(case, predictions, hierarchy)
        picture = short_names.drawn(
            explanation_figures.draw_case,
            case,
            names=[*hierarchy.names, *hierarchy.classes],
            image=image,
            boxes=own,
            steps=steps,
            explained=each,
            hierarchy=hierarchy,
            facts=facts,
            unit=of_run["cost"],
        )
        pictures.write(picture, folder / case.name)
        if maps:
            pictures.write(
                explanation_figures.draw_maps(case, maps=each.maps, facts=facts), folder / f"{case.name}_maps"
            )
            write_maps(folder / f"{case.name}_maps.npz", each.maps)
        explanations.append(each)
    index = explained_images.index(chosen, predictions, hierarchy)
    files.write_csv(folder / "index.csv", index.assign(run=run.name, rule=rule))
    write_cams(folder, explanations)
    return f"{run.name}: explained {len(chosen)} images"


def choose_run(records: dict[runs.Run, Record], configuration: str, seed: int | None) -> Record:
    """The record of one seed of a configuration. Raises SeverityError when the grid has no such run."""
    seeds = {each["seed"]: each for each in configurations.choose(records, configuration, "explain.configuration")}
    if seed is None:
        return configurations.best_seed(list(seeds.values()))
    if seed not in seeds:
        raise SeverityError(f"params.yaml: explain.seed is {seed!r}. {errors.nearest(seed, seeds)}")
    return seeds[seed]


def read_images(ids: list[str]) -> tuple[numpy.ndarray, pandas.DataFrame]:
    """(n, S, S) uint8 prepared images, and all boxes of them: columns BOX, edges as shares of the prepared square.

    Raises:
        SeverityError: an image is not there: the predictions are of other data.
    """
    index, summary = decoded.read_index("data/images"), decoded.read_summary("data/images")
    rows = pandas.Index(index["id"]).get_indexer(ids)
    if (rows < 0).any():
        raise SeverityError(f"data/images holds no image {ids[int(rows.argmin())]!r}. Run `dvc repro predict`.")
    boxes = tables.read("data/prepared/boxes.csv", BOX, EDGES, "Run `dvc repro prepare`.")
    boxes = boxes[boxes["id"].isin(ids)].merge(index[["id", "width", "height"]], on="id")
    boxes[EDGES] = decoding.on_square(
        boxes[EDGES].to_numpy(), boxes["width"], boxes["height"], size=summary["size"], aspect=summary["aspect"]
    )
    there = (boxes["left"] < boxes["right"]) & (boxes["top"] < boxes["bottom"])  # A crop may leave nothing of a box.
    return decoded.open_images("data/images")[rows], boxes.loc[there, list(BOX)]


def write_maps(path: Path, maps: list[explanation.Maps]) -> None:
    """Layer -> (m, h, w) float32, the maps in the order of the picture."""
    with files.replacing(path) as temporary:
        numpy.savez(temporary, **{each.layer: each.values for each in maps})


def write_cams(folder: Path, explanations: list[explanation.Explanation]) -> None:
    """cams.csv and cams.npy, whose rows belong together, and boxes.csv; nothing where there is no case."""
    if explanations:
        files.write_csv(folder / "cams.csv", pandas.concat([each.cams for each in explanations]))
        files.write_csv(folder / "boxes.csv", pandas.concat([each.inside for each in explanations]))
        with files.replacing(folder / "cams.npy") as temporary:
            numpy.save(temporary, numpy.concatenate([each.weighed for each in explanations]))


if __name__ == "__main__":
    errors.run(main)
