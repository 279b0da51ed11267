"""Probabilities and heat maps of images by a trained network: images that no table names, with or without labels.

Reads   data/models/<run>, the images; how they become squares: decode.aspect and decode.reduced of params.yaml, unless
        --aspect says it
Writes  <out>/probabilities.csv, a row an image: id (its path without the suffix), decision (the most probable class)
        and prob:<class>; <out>/heat/<id>.png, the square beside Grad-CAM of the decision
Run     python -m tools.classify data/models/tiny_resnet-ce-0 /data/new another/film.dcm --out data/classified
        about five seconds, and a tenth of a second an image; --no-heat leaves the pictures out
"""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy
import pandas
import torch
from PIL import Image

from severity.collections import manifest
from severity.collections.external_files import IMAGE_SUFFIXES, PROBABILITY, stem
from severity.core import commands, errors, files, params, runs
from severity.core.errors import SeverityError
from severity.decoding import decoding
from severity.explanation import explanation
from severity.networks import inference, models
from severity.networks.images import batch

SUFFIXES = tuple(suffix for suffix in IMAGE_SUFFIXES if suffix != ".npy")
HEAT = (213, 94, 0)  # the colour of full heat


def main() -> None:
    parser = commands.parser(__doc__)
    parser.add_argument("model", type=Path, help="a folder data/models/<run>")
    parser.add_argument("images", type=Path, nargs="+", help="images, or folders of images")
    parser.add_argument("--out", type=Path, default=Path("data/classified"))
    parser.add_argument("--aspect", choices=["squash", "crop", "pad"], help="default: decode.aspect of params.yaml")
    parser.add_argument("--no-heat", action="store_true")
    given = parser.parse_args()
    decode = {"aspect": given.aspect, "reduced": True} if given.aspect else params.load()["decode"]
    model = models.read(given.model)
    inference.deterministic(runs.seed_for(given.model.name))
    paths = found(given.images)
    images = squares(list(paths.values()), size=model.size[0], aspect=decode["aspect"], reduced=decode["reduced"])
    posterior = classified(model, images)
    with files.replacing(given.out) as out:
        out.mkdir()
        files.write_csv(out / "probabilities.csv", table(list(paths), posterior, model.hierarchy.classes))
        if not given.no_heat:
            for name, picture in zip(paths, heat(model, images, posterior.argmax(axis=1)), strict=True):
                path = out / "heat" / f"{name}.png"
                path.parent.mkdir(parents=True, exist_ok=True)
                picture.save(path)
    print(f"{given.out}: {len(paths)} images by {given.model.name}")


def found(given: Sequence[Path]) -> dict[str, Path]:
    """Id -> path of each image given, by itself or below a folder. Raises SeverityError: none, or two of one id."""
    paths: dict[str, Path] = {}
    for path in given:
        if path.is_dir():
            below = {stem(name): path / name for name in manifest.below(path, SUFFIXES)}
        else:
            below = {stem(path.name): path}
        again = sorted(below.keys() & paths.keys())
        if again:
            raise SeverityError(f"{paths[again[0]]} and {below[again[0]]} would both be {again[0]!r}. Give them apart.")
        paths |= below
    if not paths:
        raise SeverityError(f"There is no image below {given[0]}; names of images end in {', '.join(SUFFIXES)}.")
    return paths


def squares(paths: Sequence[Path], *, size: int, aspect: str, reduced: bool) -> numpy.ndarray:
    """(N, size, size) uint8. Raises SeverityError, naming the first image that cannot be read."""
    names = [str(path.resolve()) for path in paths]
    decoded = decoding.decode("/", names, size=size, aspect=aspect, reduced=reduced, workers=1, buffer=Path())
    chunks = [(chunk.images.copy(), chunk.outcomes) for chunk in decoded]
    outcomes = [outcome for _, outcomes in chunks for outcome in outcomes]
    for path, outcome in zip(paths, outcomes, strict=True):
        if isinstance(outcome, str):
            raise SeverityError(f"{path} cannot be read: {outcome}.")
    return numpy.concatenate([images for images, _ in chunks])


def classified(model: models.Model, images: numpy.ndarray) -> numpy.ndarray:
    """(N, K) the posterior, in the order of the classes."""
    on, rows = torch.device("cpu"), numpy.arange(len(images))
    logits = inference.logits(model.network, images, rows, batch_size=64, on=on).double()
    return model.loss.log_posterior(logits).exp().detach().numpy()


def table(ids: Sequence[str], posterior: numpy.ndarray, classes: Sequence[str]) -> pandas.DataFrame:
    """A row an image: id, decision, and the probability of each class."""
    decisions = [classes[k] for k in posterior.argmax(axis=1)]
    columns = {f"{PROBABILITY}{name}": posterior[:, k] for k, name in enumerate(classes)}
    return pandas.DataFrame({"id": ids, "decision": decisions, **columns})


def heat(model: models.Model, images: numpy.ndarray, decisions: Sequence[int]) -> Iterator[Image.Image]:
    """Of each image the square, and beside it the square under Grad-CAM of the decision, from none to its largest."""
    side = images.shape[1]
    layer, _ = explanation.choose(model.network, side, cam=explanation.AUTO, layers=[])
    for row, decision in enumerate(decisions):
        pixels = batch(images, numpy.array([row]), torch.device("cpu"))
        weighed, _ = explanation.grad_cam(model.network, model.loss, pixels, layer, [int(decision)])
        heatmap = explanation.upsampled(weighed, side)[0]
        share = (0.6 * heatmap / heatmap.max() if heatmap.max() > 0 else heatmap)[:, :, None]
        gray = numpy.repeat(images[row][:, :, None], 3, axis=2)
        pair = numpy.concatenate([gray, (1 - share) * gray + share * numpy.array(HEAT)], axis=1)
        yield Image.fromarray(pair.round().astype(numpy.uint8))


if __name__ == "__main__":
    errors.run(main)
