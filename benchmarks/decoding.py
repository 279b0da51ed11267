"""Images a second of decoding a collection, against the plain loop that one would write first.

    python -m benchmarks.decoding            a few minutes

The plain loop opens each file with Pillow, converts it to gray, resizes it and takes the array; it writes nothing. Against
it stands all of `storage.decode` with two processes, from the start of the processes to the finished folder with its index
and hashes. Both take turns on the same files, ROUNDS times; the ratio of a round is of its two times, and the median of
the rounds is reported. Beside it stands what the processes' work costs of processor time, against the loop's: on idle
cores the ratio of times is their number over that; on busy ones it says what the ratio of times cannot. The pictures are
drawn phantoms with grain, so that their files are as large as published ones, hard-linked to as many images as are wanted.
"""

import argparse
import os
import platform
import resource
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy
import pandas
from PIL import Image

from severity.core import markdown
from severity.decoding import storage
from severity.prepared import decoded

ROUNDS = 3
WORKERS = 2
SIZE = 224


@dataclass(frozen=True)
class Kind:
    """A kind of image files."""

    name: str
    width: int
    height: int
    suffix: str
    grain: float  # standard deviation of the noise, gray levels
    drawn: int  # different pictures
    images: int  # of a round

    def draw(self, folder: Path) -> None:
        """Write the pictures as 0.<suffix>, 1.<suffix> and so on."""
        from severity.datasets import phantom

        folder.mkdir()
        for index, planned in enumerate(phantom.plan(0, self.drawn, 0.2, 0.17)):
            chest = Image.fromarray(phantom.picture_array(planned, 512, 0)).resize((self.width, self.height))
            noise = numpy.random.default_rng(index).normal(0, self.grain, (self.height, self.width))
            grainy = (numpy.asarray(chest) + noise).round().clip(0, 255).astype(numpy.uint8)
            Image.fromarray(grainy).save(folder / f"{index}.{self.suffix}", quality=90)


KINDS = (
    # CheXpert-v1.0-small: 223,648 files, 11 GB.
    Kind("JPEG, 390 x 320", 390, 320, "jpg", 10, 64, 38_400),
    # Of the size of radiographs as they are taken, with little and with much grain.
    Kind("JPEG, 2,000 x 2,000", 2000, 2000, "jpg", 1, 16, 1_536),
    Kind("JPEG, 2,000 x 2,000, grainy", 2000, 2000, "jpg", 4, 16, 1_536),
    # ChestX-ray14: 112,120 files, 45 GB.
    Kind("PNG, 1,024 x 1,024", 1024, 1024, "png", 2, 16, 1_536),
)


def link(kind: Kind, pictures: Path, root: Path, images: int) -> pandas.DataFrame:
    """Hard-link the pictures of a kind to as many images."""
    names = [f"{index:06d}.{kind.suffix}" for index in range(images)]
    link_to(kind, pictures, root, names)
    return pandas.DataFrame({"id": names, "path": names})


def link_to(kind: Kind, pictures: Path, root: Path, paths: list[str]) -> None:
    """Hard-link the pictures of a kind, one after the other and again, to all paths below `root`."""
    for index, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        os.link(pictures / f"{index % kind.drawn}.{kind.suffix}", root / path)


def plain(root: Path, paths: list[str], size: int) -> numpy.ndarray:
    """The last array of the loop stands for all: holding them would cost it time."""
    array = numpy.empty(0)
    for path in paths:
        with Image.open(root / path) as image:
            array = numpy.asarray(image.convert("L").resize((size, size), Image.Resampling.BILINEAR))
    return array


def decode(folder: Path, root: Path, table: pandas.DataFrame, reduced: bool) -> dict[str, Any]:
    return storage.decode(
        folder / "images",
        table,
        dataset="benchmark",
        root=root,
        size=SIZE,
        aspect="squash",
        reduced=reduced,
        max_unreadable=0,
        workers=WORKERS,
        scratch=folder / "unfinished",
    )


def timed(function: Callable, *args: object) -> tuple[numpy.ndarray, Any]:
    """Seconds, and seconds of processor time, that a call takes; and what it gives."""
    start = _clocks()
    found = function(*args)
    return _clocks() - start, found


def _clocks() -> numpy.ndarray:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return numpy.array([time.perf_counter(), sum(each.ru_utime + each.ru_stime for each in used)])


def measure(folder: Path, kind: Kind, images: int, rounds: int) -> list[list[str]]:
    """Rows of the printed table for one kind of files: decoded whole, and reduced if it is JPEG."""
    kind.draw(folder / "pictures")
    root = folder / "linked"
    table = link(kind, folder / "pictures", root, images)
    paths = table["path"].tolist()
    ways = (False, True) if kind.suffix == "jpg" else (False,)
    seconds: dict[Any, list[numpy.ndarray]] = {way: [] for way in ("plain", *ways)}
    for _ in range(rounds):
        took, last = timed(plain, root, paths, SIZE)
        seconds["plain"].append(took)
        for reduced in ways:
            seconds[reduced].append(timed(decode, folder, root, table, reduced)[0])
            if not reduced:
                assert (decoded.open_images(folder / "images")[-1] == last).all(), "not what the plain loop gives"
    bytes_ = statistics.mean(path.stat().st_size for path in (folder / "pictures").iterdir())
    loop = numpy.array(seconds["plain"])  # (rounds, 2)
    rows = []
    for reduced in ways:
        ours = numpy.array(seconds[reduced])
        ratios = loop[:, 0] / ours[:, 0]
        rows.append(
            [
                f"{kind.name}{', reduced' if reduced else ''}",
                f"{bytes_ / 1e3:,.0f}",
                *(f"{images / numpy.median(each[:, 0]):,.0f}" for each in (loop, ours)),
                f"{numpy.median(ratios):.2f}",
                f"{ratios.min():.2f} to {ratios.max():.2f}",
                f"{numpy.median(ours[:, 1] / loop[:, 1]):.2f}",
            ]
        )
    return rows


def processor() -> str:
    """What Linux calls it; elsewhere the architecture."""
    known = Path("/proc/cpuinfo")
    lines = known.read_text().splitlines() if known.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return f"{len(names)} x {names[0]}" if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--folder", help="where to write, a folder with room; default: the system's for temporary files"
    )
    arguments = parser.parse_args()
    versions = f"Python {platform.python_version()}, Pillow {version('pillow')}"
    print(f"{versions}, {processor()}, load before the start {os.getloadavg()[0]:.1f}\n")
    rows = []
    for kind in KINDS:
        with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
            rows += measure(Path(folder), kind, kind.images, ROUNDS)
    headings = [
        "files",
        "kB each",
        "plain loop, images/s",
        f"{WORKERS} processes, images/s",
        "ratio",
        "range",
        "processor time",
    ]
    print(markdown.table(headings, rows))


if __name__ == "__main__":
    main()
