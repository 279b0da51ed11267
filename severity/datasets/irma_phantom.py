"""IRMA phantoms: a drawn collection in the form of IRMA's, because no image of IRMA may be passed on.

It has what the real one has: frequent and rare codes, images without a code, an axis of clutter, test images whose code
no training image has. `severity.phantoms.irma_drawings` draws the images, docs/data.md describes what they show.
The classes are the codes of the training table, as in IRMA.
Licence: that of this project, whose code draws every image.
"""

from pathlib import Path

import numpy
import pandas
from PIL import Image
from tqdm import tqdm

from severity.core import files
from severity.core.errors import SeverityError
from severity.core.runs import seed_for
from severity.datasets.irma import ID, NO_CODE, read
from severity.phantoms import irma_drawings

__all__ = ["collect", "read"]

# The more frequent first.
CODES = (
    "1123-110-500-000",
    "1123-127-500-000",
    "1123-210-500-000",
    "1121-110-414-700",
    "1121-110-415-700",
    "1121-120-800-700",
    "1121-127-700-500",
    "1121-120-310-700",
    "1121-210-310-700",
    "1121-120-330-700",
    "1121-210-330-700",
    "1121-120-200-700",
    "1121-220-200-700",
    "1121-120-942-700",
    "1121-120-943-700",
    "1121-210-942-700",
    "1124-310-610-625",
    "1124-310-620-625",
    "1121-120-914-700",
    "1121-120-915-700",
    "1121-127-700-400",
    "1200-120-700-400",
    "1121-120-320-700",
    "2000-000-700-500",
    "1121-210-200-C",
)
UNSEEN = ("1121-220-310-700", "1121-120-910-700")  # in the test table only
UNSEEN_SHARE, UNCODED_SHARE = 0.06, 0.01  # of the test images; of all images
TABLES = {"train": "train_codes.csv", "test": "test_codes.csv"}
IMAGES = {"train": "train", "test": "test"}


def collect(root: Path | str, out: Path | str, *, images: int, size: int, test_fraction: float, seed: int) -> int:
    """Draw a collection of IRMA phantoms into `out`, replacing what is there.

    The same options give the same bytes; a larger collection begins with the smaller one.

    Args:
        root: not used: the collection has no other source than this code.
        out: folder to hold the two tables of codes, train/ and test/, and a code table an axis, <axis>.csv.
        images: how many, train and test together.
        size: width in pixels; the height is 0.9 to 1.2 times that.
        test_fraction: expected share of the test images, except for the first image of each code.
        seed: of everything drawn at random.

    Returns:
        The number of images.

    Raises:
        SeverityError: so few images are asked for that no test image is among them.
    """
    plan = [_planned(number, test_fraction, seed) for number in range(images)]
    if "test" not in {split for split, _ in plan}:
        raise SeverityError(
            f"params.yaml: datasets.irma_phantom.collect: among {images} images none is a test image. Ask for more "
            "images or a larger test_fraction."
        )
    with files.replacing(out) as folder:
        for split in TABLES:
            (folder / IMAGES[split]).mkdir(parents=True)
        rows = {split: [] for split in TABLES}
        for number, (split, code) in enumerate(tqdm(plan, desc="drawing", unit="image", disable=None)):
            rng = numpy.random.default_rng(seed_for("irma_phantom", seed, number, "image"))
            Image.fromarray(irma_drawings.draw(code, rng, size)).save(folder / IMAGES[split] / f"{number}.png")
            uncoded = number >= len(CODES) and rng.random() < UNCODED_SHARE
            rows[split].append({ID: number, "irma_code": NO_CODE[1] if uncoded else code})
        for split, name in TABLES.items():
            _write(folder / name, pandas.DataFrame(rows[split]), header=True)
        for axis, names in irma_drawings.TABLES.items():
            _write(folder / f"{axis}.csv", pandas.DataFrame(names.items()), header=False)
    return images


def _planned(number: int, test_fraction: float, seed: int) -> tuple[str, str]:
    """Split and code of an image; the first ones are a training image of each code."""
    if number < len(CODES):
        return "train", CODES[number]
    rng = numpy.random.default_rng(seed_for("irma_phantom", seed, number, "plan"))
    split = "test" if rng.random() < test_fraction else "train"
    if split == "test" and rng.random() < UNSEEN_SHARE:
        return split, UNSEEN[rng.integers(len(UNSEEN))]
    # As frequent as the inverse of the rank, about as uneven as the real one.
    weights = 1 / numpy.arange(2, len(CODES) + 2)
    return split, CODES[rng.choice(len(CODES), p=weights / weights.sum())]


def _write(path: Path, frame: pandas.DataFrame, *, header: bool) -> None:
    frame.to_csv(path, sep=";", index=False, header=header, lineterminator="\n")
