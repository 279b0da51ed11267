"""Near-duplicates: an image of one split that shows the same picture as an image of another split.

A test image that a network has seen in training, under another name or patient, makes its scores too good, and
splitting by patient does not help. Two steps find such pairs:

1. a perceptual hash of every image (pHash of ImageHash: which of the 64 lowest cosine frequencies of the 32 x 32
   thumbnail lie above their median); pairs that differ in few bits are candidates;
2. Pearson's correlation of the two thumbnails confirms them, because radiographs of one body part all look alike: of 64
   bits at most 10 differ in 1 of 400 pairs of ChestX-ray14 images of different patients.

With `hash_distance` 10 and `correlation` 0.985, on ChestX-ray14: 13 of 13 pictures stored twice are found, and none of
2,537,075 pairs of different patients (their largest correlation is 0.962) nor of 8,725 pairs of follow-ups of one
patient (0.983). docs/data.md has tables by threshold and by kind of change, and lists what is not found: mirrored,
turned or inverted copies, histogram equalisation, crops and frames of more than one percent.
"""

import mmap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import imagehash
import numpy
import pandas
from PIL import Image
from tqdm import tqdm

from severity.collections.splits import SPLITS
from severity.core.errors import SeverityError

SIDE = 32  # of a thumbnail; what pHash reduces an image to
BITS = 64
CHUNK = 256  # images a task
ROWS, COLUMNS = 256, 4096  # pairs a step: their distances stay in the processor's cache
CANDIDATES = 2**15  # pairs whose thumbnails are held at once: 64 MiB
LISTED = 10_000
IMAGE = ("id", "split", "patient")
HEADER = (*IMAGE, *(f"other_{name}" for name in IMAGE), "hash_distance", "correlation")


@dataclass(frozen=True)
class Thumbnails:
    """Small copies of n images: `pixels` (n, 1024) uint8 and `hashes` (n,) uint64. A KiB an image."""

    pixels: numpy.ndarray
    hashes: numpy.ndarray

    def __getitem__(self, rows: Any) -> "Thumbnails":
        return Thumbnails(self.pixels[rows], self.hashes[rows])

    def __len__(self) -> int:
        return len(self.hashes)


@dataclass(frozen=True)
class NearDuplicates:
    """Near-duplicates: `pairs` has the columns HEADER, most alike first, at most LISTED rows; `counts` is of all."""

    pairs: pandas.DataFrame
    counts: dict[str, int]  # "train-validation", "train-test", "validation-test"
    hash_distance: int
    correlation: float


class Pictures:
    """Rows of thumbnails by the picture they show: one that is stored many times is compared once.

    `first` (u,) is the first row of each distinct picture, `copies` (u,) how many rows show it.
    """

    def __init__(self, thumbnails: Thumbnails, rows: numpy.ndarray):
        seen: dict[bytes, int] = {}
        number = [seen.setdefault(thumbnails.pixels[row].tobytes(), len(seen)) for row in rows]
        self.copies = numpy.bincount(number, minlength=len(seen)).astype(numpy.int64)
        self._rows = rows[numpy.argsort(number, kind="stable")]
        self._starts = numpy.cumsum(self.copies) - self.copies
        self.first = self._rows[self._starts]

    def rows(self, picture: int) -> numpy.ndarray:
        """All rows that show it, ascending."""
        start = self._starts[picture]
        return self._rows[start : start + self.copies[picture]]


def find(
    images: numpy.ndarray, table: pandas.DataFrame, *, hash_distance: int, correlation: float, workers: int
) -> NearDuplicates:
    """Find the pairs of images of different splits that show the same picture.

    Args:
        images: (N, size, size) uint8; may be mapped from a file, and is only read.
        table: N rows, those of `images`, with the columns id, split and patient.
        hash_distance: how many of the 64 bits of two hashes may differ.
        correlation: the least Pearson correlation of two thumbnails. An image of one gray level throughout has none;
            two such images count as alike (1), one of them and any other as unlike (0).
        workers: threads that make thumbnails; 0 is Python's own choice for this machine. The result is the same.

    Raises:
        SeverityError: table and images differ in length.
    """
    if len(images) != len(table):
        raise SeverityError(
            f"data/images holds {len(images)} images, but the table of data/prepared {len(table)} rows. Run `dvc "
            "repro`."
        )
    thumbnails = shrink(images, workers)
    pictures = {split: Pictures(thumbnails, numpy.flatnonzero(table["split"] == split)) for split in SPLITS}
    counts, pairs = {}, numpy.empty((0, 4))
    for one, other in combinations(SPLITS, 2):
        some, others = pictures[one], pictures[other]
        counts[f"{one}-{other}"] = 0
        for i, j, distance, likeness in search(
            thumbnails[some.first], thumbnails[others.first], hash_distance=hash_distance, correlation=correlation
        ):
            counts[f"{one}-{other}"] += int((some.copies[i] * others.copies[j]).sum())
            for rows in _rows(some, others, i, j, distance, likeness):
                pairs = _most_alike(numpy.vstack([pairs, rows]))
    first, second = (table[list(IMAGE)].iloc[pairs[:, side].astype(int)].reset_index(drop=True) for side in (0, 1))
    listed = pandas.concat([first, second.add_prefix("other_")], axis=1)
    return NearDuplicates(
        listed.assign(hash_distance=pairs[:, 2].astype(int), correlation=pairs[:, 3]),
        counts,
        hash_distance,
        correlation,
    )


def shrink(images: numpy.ndarray, workers: int) -> Thumbnails:
    """The thumbnails of (N, size, size) uint8 images.

    Threads, not processes: most of the time goes into resizing, where Pillow lets other threads run, and nothing has to
    be copied to another process. One core makes 4,000 thumbnails a second of images of 224 x 224, so that 223,414 take
    a minute.
    """
    pixels = numpy.empty((len(images), SIDE * SIDE), numpy.uint8)
    hashes = numpy.empty(len(images), numpy.uint64)
    starts = range(0, len(images), CHUNK)

    def part(start: int) -> Thumbnails:
        return _shrink(_read(images, start, min(start + CHUNK, len(images))))

    with (
        ThreadPoolExecutor(workers or None) as pool,
        tqdm(total=len(images), desc="describe", unit="image", disable=None) as progress,
    ):
        for start, made in zip(starts, pool.map(part, starts), strict=True):
            pixels[start : start + len(made)] = made.pixels
            hashes[start : start + len(made)] = made.hashes
            progress.update(len(made))
    return Thumbnails(pixels, hashes)


def _read(images: numpy.ndarray, start: int, stop: int) -> numpy.ndarray:
    """Some images; those of a map read from its file, for what is read through a map stays in this process's memory."""
    if not (
        isinstance(images, numpy.memmap) and isinstance(images.base, mmap.mmap)
    ):  # A part of a map has other offsets.
        return images[start:stop]
    pixels = images[0].size
    flat = numpy.fromfile(images.filename, numpy.uint8, (stop - start) * pixels, offset=images.offset + start * pixels)
    return flat.reshape(stop - start, *images.shape[1:])


def _shrink(images: numpy.ndarray) -> Thumbnails:
    pixels = numpy.empty((len(images), SIDE, SIDE), numpy.uint8)
    bits = numpy.empty((len(images), BITS), bool)
    for row, image in enumerate(images):
        small = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.LANCZOS)
        pixels[row] = small
        bits[row] = imagehash.phash(small).hash.ravel()
    return Thumbnails(pixels.reshape(len(images), -1), numpy.packbits(bits, axis=1).view(">u8")[:, 0])


def search(
    first: Thumbnails, second: Thumbnails, *, hash_distance: int, correlation: float
) -> Iterator[tuple[numpy.ndarray, numpy.ndarray, numpy.ndarray, numpy.ndarray]]:
    """Yield the near-duplicates step by step: rows of `first`, rows of `second`, distance, correlation.

    All len(first) x len(second) hashes are compared, ROWS x COLUMNS at a time, and the thumbnails of at most CANDIDATES
    pairs are held at once. On one core a billion pairs take 2 s where none is a candidate, 5 s of chest radiographs.
    """
    total = len(first) * len(second)
    with tqdm(total=total, desc="near-duplicates", unit="pair", unit_scale=True, disable=None) as progress:
        for top in range(0, len(first), ROWS):
            for left in range(0, len(second), COLUMNS):
                some, others = first.hashes[top : top + ROWS], second.hashes[left : left + COLUMNS]
                distance = numpy.bitwise_count(some[:, None] ^ others[None])
                row, column = numpy.nonzero(distance <= hash_distance)
                for start in range(0, len(row), CANDIDATES):
                    i, j = row[start : start + CANDIDATES], column[start : start + CANDIDATES]
                    likeness = correlations(first.pixels[top + i], second.pixels[left + j])
                    alike = likeness >= correlation
                    yield top + i[alike], left + j[alike], distance[i[alike], j[alike]], likeness[alike]
                progress.update(distance.size)


def correlations(first: numpy.ndarray, second: numpy.ndarray) -> numpy.ndarray:
    """Pearson correlation of each picture with its partner: twice (n, P) uint8, P <= 2**15, to (n,) float64.

    All sums are whole numbers: whatever the order in which a library adds, the same pictures give the same bits. What
    pictures of one gray level give, `find` says.
    """

    def product(one: numpy.ndarray, other: numpy.ndarray) -> numpy.ndarray:
        return numpy.einsum("np,np->n", one, other, dtype=numpy.int32).astype(numpy.int64)

    pixels = first.shape[1]
    totals = [each.sum(axis=1, dtype=numpy.int64) for each in (first, second)]
    spreads = [pixels * product(each, each) - total**2 for each, total in zip((first, second), totals, strict=True)]
    covariance = pixels * product(first, second) - totals[0] * totals[1]
    flat = [spread == 0 for spread in spreads]
    scale = numpy.sqrt(spreads[0].astype(numpy.float64) * spreads[1])  # The product can pass 2**63.
    alike = (flat[0] & flat[1]).astype(numpy.float64)
    return numpy.divide(covariance, scale, out=alike, where=scale > 0)


def _rows(
    some: Pictures,
    others: Pictures,
    i: numpy.ndarray,
    j: numpy.ndarray,
    distance: numpy.ndarray,
    likeness: numpy.ndarray,
) -> Iterator[numpy.ndarray]:
    """(n, 4) row, other row, distance, correlation of pairs of pictures; of copies at most as many as can be listed."""
    # Row numbers are exact in float64.
    single = (some.copies[i] == 1) & (others.copies[j] == 1)
    yield numpy.column_stack([some.first[i], others.first[j], distance, likeness])[single]
    for picture, other, bits, alike in zip(*(each[~single] for each in (i, j, distance, likeness)), strict=True):
        rows, columns = some.rows(picture), others.rows(other)[:LISTED]
        rows = rows[: -(-LISTED // len(columns))]  # the first ones in the order of the list
        each = numpy.stack(numpy.meshgrid(rows, columns, indexing="ij"), axis=-1).reshape(-1, 2)
        yield numpy.column_stack([each, numpy.full(len(each), bits), numpy.full(len(each), alike)])


def _most_alike(pairs: numpy.ndarray) -> numpy.ndarray:
    """The LISTED pairs of highest correlation, then of least distance, then in the order of the data set."""
    return pairs[numpy.lexsort((pairs[:, 1], pairs[:, 0], pairs[:, 2], -pairs[:, 3]))[:LISTED]]
