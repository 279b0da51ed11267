"""data/images: every image decoded and resized once; written by `decode`, read by all after it.

The folder holds

    images.npy     (N, size, size) uint8, C order: numpy.load can map it into memory
    index.csv      N rows, those of images.npy, in the order of the collection's table: id, path, width, height (pixels
                   of the original)
    unreadable.csv    id, path, reason: the images that could not be read; they are in none of the other files
    summary.json   data set, size and aspect of the squares, counts, SHA-256 of images.npy and index.csv; of files of
                   16-bit levels, if there are any, the option `range` and how many need so many `bits`
"""

from pathlib import Path
from typing import Any

import numpy
import pandas

from severity.core import archives, files, tables
from severity.core.errors import SeverityError

INDEX = ("id", "path", "width", "height")
REMAKE = "Remove the folder and run `dvc repro decode`."


def read_summary(folder: Path | str) -> dict[str, Any]:
    """Read summary.json of a decoded folder. Raises SeverityError when it is not there."""
    return files.read_json(Path(folder) / "summary.json", "images", "size")


def read_index(folder: Path | str) -> pandas.DataFrame:
    """Read index.csv of a decoded folder: id and path are text, width and height int64; row i belongs to image i.

    Raises:
        SeverityError: the folder is not there or not whole.
    """
    path = Path(folder) / "index.csv"
    summary = read_summary(folder)
    frame = tables.read_numbers(path, ("id", "path"), REMAKE)
    if tuple(frame.columns) != INDEX or len(frame) != summary["images"]:
        raise SeverityError(f"{path} and summary.json next to it disagree in rows or columns. {REMAKE}")
    return frame


def open_images(folder: Path | str) -> numpy.ndarray:
    """Map images.npy of a decoded folder into memory, read-only: (N, size, size) uint8, row i belonging to index row i.

    Raises:
        SeverityError: the folder is not there or not whole.
    """
    path = Path(folder) / "images.npy"
    summary = read_summary(folder)
    try:
        images = archives.read_npy(path, mapped=True)
    except FileNotFoundError:
        raise SeverityError(f"{path} is missing. {REMAKE}") from None
    except SeverityError as error:
        raise SeverityError(f"{error} {REMAKE}") from None
    if images.dtype != numpy.uint8 or images.shape != (summary["images"], summary["size"], summary["size"]):
        raise SeverityError(f"{path} and summary.json next to it disagree in shape. {REMAKE}")
    return images
