"""Images a second of decoding a collection, against the plain loop that one would write first.

    python -m benchmarks.decoding            a few minutes
    python -m benchmarks.decoding --full     also 112,120 and 223,414 images, with memory; half an hour

The plain loop opens each file with Pillow, converts it to gray, resizes it and takes the array; it writes nothing. Against
it stands all of `storage.decode` with two processes, from the start of the processes to the finished folder with its index
and hashes. Both take turns on the same files, ROUNDS times; the ratio of a round is of its two times, and the median of
the rounds is reported. The pictures are drawn phantoms with grain, so that their files are as large as published ones,
hard-linked to as many images as are wanted.
"""

import argparse
import os
import platform
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy
import pandas
from PIL import Image

from severity import decoded, markdown, storage

ROUNDS = 5
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
        from severity.datasets import phantom  # here, for every worker imports this module

        folder.mkdir()
        for index, planned in enumerate(phantom.plan(0, self.drawn, 0.2, 0.17)):
            chest = Image.fromarray(phantom.picture_array(planned, 512, 0)).resize((self.width, self.height))
            noise = numpy.random.default_rng(index).normal(0, self.grain, (self.height, self.width))
            grainy = (numpy.asarray(chest) + noise).round().clip(0, 255).astype(numpy.uint8)
            Image.fromarray(grainy).save(folder / f"{index}.{self.suffix}", quality=90)


KINDS = (
    # CheXpert-v1.0-small: 223,648 files, 11 GB.
    Kind("JPEG, 390 x 320", 390, 320, "jpg", 10, 64, 25_600),
    # CheXpert as it was taken: about 2,300 x 2,800.
    Kind("JPEG, 2,000 x 2,000", 2000, 2000, "jpg", 4, 16, 384),
    # ChestX-ray14: 112,120 files, 45 GB.
    Kind("PNG, 1,024 x 1,024", 1024, 1024, "png", 2, 16, 768),
)
FULL = ((KINDS[2], 112_120), (KINDS[0], 223_414))


def link(kind: Kind, pictures: Path, root: Path, images: int) -> pandas.DataFrame:
    """Hard-link the pictures of a kind to as many images."""
    root.mkdir()
    names = [f"{index:06d}.{kind.suffix}" for index in range(images)]
    for index, name in enumerate(names):
        os.link(pictures / f"{index % kind.drawn}.{kind.suffix}", root / name)
    return pandas.DataFrame({"id": names, "path": names})


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
        max_rejects=0,
        workers=WORKERS,
        scratch=folder / "unfinished",
    )


def timed(function: Callable, *args: object) -> tuple[float, Any]:
    start = time.perf_counter()
    found = function(*args)
    return time.perf_counter() - start, found


def measure(folder: Path, kind: Kind, images: int, rounds: int) -> list[list[str]]:
    """Rows of the printed table for one kind of files: decoded whole, and reduced if it is JPEG."""
    kind.draw(folder / "pictures")
    root = folder / "linked"
    table = link(kind, folder / "pictures", root, images)
    paths = table["path"].tolist()
    ways = (False, True) if kind.suffix == "jpg" else (False,)
    seconds: dict[Any, list[float]] = {way: [] for way in ("plain", *ways)}
    for _ in range(rounds):
        took, last = timed(plain, root, paths, SIZE)
        seconds["plain"].append(took)
        for reduced in ways:
            seconds[reduced].append(timed(decode, folder, root, table, reduced)[0])
            if not reduced:
                assert (decoded.open_images(folder / "images")[-1] == last).all(), "not what the plain loop gives"
    bytes_ = statistics.mean(path.stat().st_size for path in (folder / "pictures").iterdir())
    rows = []
    for reduced in ways:
        ratios = [slow / fast for slow, fast in zip(seconds["plain"], seconds[reduced], strict=True)]
        rows.append(
            [
                f"{kind.name}{', reduced' if reduced else ''}",
                f"{bytes_ / 1e3:,.0f}",
                f"{images / statistics.median(seconds['plain']):,.0f}",
                f"{images / statistics.median(seconds[reduced]):,.0f}",
                f"{statistics.median(ratios):.2f}",
                f"{min(ratios):.2f} to {max(ratios):.2f}",
            ]
        )
    return rows


class Memory:
    """The most memory (resident, GB) that this process and those it has started held together; Linux only.

    Pages that several processes share are counted for each, so it is an upper bound.
    """

    def __init__(self) -> None:
        self.peak = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> "Memory":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.2):
            self.peak = max(self.peak, sum(map(_resident, ["self", *_children()])) / 1e9)


def _children() -> list[str]:
    tasks = Path("/proc/self/task").glob("*/children")
    return [child for task in tasks for child in _text(task).split()]


def _resident(process: str) -> int:
    """Bytes; 0 of a process that has ended."""
    return int((_text(Path(f"/proc/{process}/statm")) or "0 0").split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def full(folder: Path, kind: Kind, images: int) -> list[str]:
    """One row of the table of whole data sets."""
    kind.draw(folder / "pictures")
    table = link(kind, folder / "pictures", folder / "linked", images)
    with Memory() as memory:
        seconds, _ = timed(decode, folder, folder / "linked", table, False)
    return [kind.name, f"{images:,}", f"{seconds / 60:.1f}", f"{images / seconds:,.0f}", f"{memory.peak:.2f}"]


def processor() -> str:
    """What Linux calls it; elsewhere the architecture."""
    names = [line.split(":")[1].strip() for line in _text(Path("/proc/cpuinfo")).splitlines() if "model name" in line]
    return f"{len(names)} x {names[0]}" if names else platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="also whole data sets; wants 20 GB of disk")
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
    headings = ["files", "kB each", "plain loop, images/s", f"{WORKERS} processes, images/s", "ratio", "range"]
    print(markdown.table(headings, rows))
    if arguments.full:
        rows = []
        for kind, images in FULL:
            with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
                rows.append(full(Path(folder), kind, images))
        print(markdown.table(["files", "images", "minutes", "images/s", "GB of memory"], rows))


if __name__ == "__main__":
    main()
