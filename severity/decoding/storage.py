"""Making data/images: decode every image of a collection once, chunk by chunk, so that a stopped run can resume."""

import hashlib
import io
import json
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from importlib import metadata
from pathlib import Path
from typing import Any, BinaryIO

import numpy
import pandas
from PIL import features
from tqdm import tqdm

from severity.core import files, runs, table_checks
from severity.core.errors import SeverityError
from severity.decoding import decoding, dicom, levels

# What reads DICOM: an image that could not be read without one of these is tried again with it.
OPTIONAL = ("pydicom", "python-gdcm", "pylibjpeg", "pylibjpeg-libjpeg", "pylibjpeg-openjpeg", "pyjpegls")
NARROW = 14  # bits: an image whose largest level needs no more is at most a quarter of white


def decode(
    out: Path | str,
    table: pandas.DataFrame,
    *,
    dataset: str,
    root: Path | str,
    size: int,
    aspect: str,
    reduced: bool,
    max_unreadable: int,
    workers: int,
    sixteen_bits: decoding.Range = "whole",
    scratch: Path | str = "data/unfinished",
) -> dict[str, Any]:
    """Decode the images of a collection and write the folder `out` whole; severity/prepared/decoded.py describes it.

    The same images and options give the same bytes, whatever the number of workers and however often it was stopped on
    the way: what is decoded is kept in a folder of `scratch` until `out` is there, and the next call resumes from it,
    as far as the files have not changed in size or time since. A call that is killed loses the chunks in progress, 2 a
    worker, of 64 images or 4 MB. One that is never repeated leaves its folder behind; while nothing is decoded or
    trained, `scratch` may be emptied.

    Args:
        out: folder to write, replaced if it is there.
        table: columns id and path, of all images of the collection.
        dataset: name of the collection.
        root: folder that the paths are relative to.
        size, aspect: of the squares, see `severity.decoding.decoding.layout`.
        reduced, sixteen_bits, workers: see `severity.decoding.decoding.decode`.
        max_unreadable: how many unreadable images are tolerated; one more ends the work.
        scratch: folder for unfinished work, best on the disk of `out`.

    Returns:
        What summary.json holds.

    Raises:
        SeverityError: too many images are unreadable; the disk is too small; another process is decoding the same.
    """
    paths = table["path"].tolist()
    options = {"size": size, "aspect": aspect, "reduced": reduced, "sixteen_bits": sixteen_bits}
    determined_by = {"root": str(Path(root).resolve()), "paths": paths, "versions": _versions(), **options}
    folder = Path(scratch) / f"decode-{dataset}-{runs.fingerprint(determined_by)}"
    _check_room(folder, len(paths), size)
    with runs.held(folder, "Another process is decoding these images", "decoding resumes where it was"):
        outcomes, digest = _decode_all(folder, root, paths, max_unreadable, workers=workers, **options)
        return _publish(
            out, folder, table, outcomes, digest, {"dataset": dataset, "size": size, "aspect": aspect}, sixteen_bits
        )


def _versions() -> dict[str, str | None]:
    """What, besides the files and the options, determines the gray levels."""
    return {
        **{each.__name__: files.sha256(each.__file__) for each in (decoding, dicom, levels)},
        "pillow": metadata.version("pillow"),
        "jpeg": features.version("libjpeg_turbo") or features.version("jpg"),
        "numpy": numpy.__version__,
        **{name: _version(name) for name in OPTIONAL},
    }


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _check_room(folder: Path, images: int, size: int) -> None:
    done = folder / "images.npy"
    need = images * size * size - (done.stat().st_size if done.exists() else 0)
    disk = next(each for each in (folder, *folder.parents) if each.exists())
    free = shutil.disk_usage(disk).free
    if need > free:
        raise SeverityError(
            f"{disk} has {free / 1e6:,.1f} MB free, but {images} images of {size} x {size} take {need / 1e6:,.1f} MB"
            f"{' more' if done.exists() else ''}. Make room ({folder.parent} may hold work that nobody will finish), "
            "or lower decode.size in params.yaml."
        )


def _decode_all(
    folder: Path, root: Path | str, paths: list[str], max_unreadable: int, **options: Any
) -> tuple[list[decoding.Outcome], Any]:
    """Bring images.npy of the folder of unfinished work to its end.

    images.npy grows by a chunk at a time, in the order of the paths, and log.jsonl by a line after it; so whatever
    the lines describe is there, and what is beyond them is cut off when work resumes. Pixels are hashed as they come,
    while the workers decode: thanks to the hash of all of them the data set need not be read again, and the hash of
    those so far shows whether anything before a line was lost, as may happen when the power fails.

    Returns:
        `Chunk.outcomes` of all paths, and the SHA-256 of images.npy if every image was readable.
    """
    for left in folder.glob("buffer-*"):
        left.unlink()  # A new one each time: a worker that has not yet noticed its parent's end may still write to it.
    for name in ("images.npy", "log.jsonl"):
        (folder / name).touch()
    with open(folder / "images.npy", "r+b") as images, open(folder / "log.jsonl", "r+b") as log:
        outcomes, digest = _resume(images, log, root, paths, options["size"])
        unreadable = _unreadable(outcomes, 0)
        _check_unreadable(unreadable, outcomes, paths, max_unreadable)
        chunks = decoding.decode(root, paths[len(outcomes) :], buffer=folder / f"buffer-{os.getpid()}", **options)
        with (
            closing(chunks),
            tqdm(total=len(paths), initial=len(outcomes), desc="decode", unit="image", disable=None) as progress,
        ):
            for chunk in chunks:
                images.write(chunk.images.data)
                images.flush()
                digest.update(chunk.images.data)
                record = {"files": chunk.files, "outcomes": chunk.outcomes, "sha256": digest.hexdigest()}
                log.write(json.dumps(record | {"check": runs.fingerprint(record)}).encode() + b"\n")
                log.flush()
                unreadable += _unreadable(chunk.outcomes, len(outcomes))
                outcomes += chunk.outcomes
                progress.update(len(chunk.outcomes))
                _check_unreadable(unreadable, outcomes, paths, max_unreadable)
    return outcomes, digest


def _resume(
    images: BinaryIO, log: BinaryIO, root: Path | str, paths: list[str], size: int
) -> tuple[list[decoding.Outcome], Any]:
    """What is decoded already, up to the first chunk that is incomplete or whose files changed; cut off the rest."""
    outcomes: list[decoding.Outcome] = []
    header = _header(len(paths), size)
    digest, end, logged = hashlib.sha256(header), len(header), 0
    images.seek(end)
    for line in log:
        record = _record(line)
        if record is None:
            break
        pixels = images.read(sum(not isinstance(each, str) for each in record["outcomes"]) * size * size)
        part = paths[len(outcomes) : len(outcomes) + len(record["outcomes"])]
        longer = digest.copy()
        longer.update(pixels)
        if record["sha256"] != longer.hexdigest() or record["files"] != decoding.fingerprint(root, part):
            break
        outcomes += [each if isinstance(each, str) else tuple(each) for each in record["outcomes"]]
        digest, end = longer, end + len(pixels)
        logged += len(line)
    for file, length in ((images, end), (log, logged)):
        file.seek(length)
        file.truncate()
    return outcomes, digest


def _record(line: bytes) -> dict[str, Any] | None:
    """A line of log.jsonl; None if it is not as it was written."""
    try:
        record = json.loads(line)
        check = record.pop("check")
    except (AttributeError, KeyError, TypeError, ValueError):
        return None
    return record if line.endswith(b"\n") and check == runs.fingerprint(record) else None


def _shown(name: str) -> str:
    """A name that may not be UTF-8, so that it can be written."""
    return name.encode(errors="backslashreplace").decode()


def _unreadable(outcomes: Sequence[decoding.Outcome], first: int) -> list[int]:
    """The rows that could not be read, the first of `outcomes` being row `first`."""
    return [row for row, each in enumerate(outcomes, start=first) if isinstance(each, str)]


def _check_unreadable(unreadable: list[int], outcomes: Sequence, paths: list[str], max_unreadable: int) -> None:
    if len(unreadable) > max_unreadable:
        raise SeverityError(
            f"{len(unreadable)} of the first {len(outcomes)} images cannot be read ({len(paths)} in all): "
            f"{table_checks.listed(f'{_shown(paths[row])} ({outcomes[row]})' for row in unreadable)}. Fix these files, or "
            f"raise decode.max_unreadable in params.yaml (now {max_unreadable}) to go on without them; what is decoded "
            "is kept."
        )
    if len(unreadable) == len(paths):
        raise SeverityError(
            f"None of the {len(paths)} images can be read; the first: {_shown(paths[0])} ({outcomes[0]})."
        )


def _publish(
    out: Path | str,
    folder: Path,
    table: pandas.DataFrame,
    outcomes: list[decoding.Outcome],
    digest: Any,
    about: dict[str, Any],
    sixteen_bits: decoding.Range,
) -> dict[str, Any]:
    unread = numpy.array([isinstance(each, str) for each in outcomes])
    widths, heights, bits = zip(*(each for each in outcomes if not isinstance(each, str)), strict=True)
    with open(folder / "images.npy", "r+b") as images:
        images.write(_header(len(widths), about["size"]))
    with files.replacing(out) as temporary:
        temporary.mkdir()
        files.write_csv(temporary / "index.csv", table[~unread].assign(width=widths, height=heights))
        reasons = [each for each in outcomes if isinstance(each, str)]
        files.write_csv(temporary / "unreadable.csv", table[unread].map(_shown).assign(reason=reasons))
        _share(folder / "images.npy", temporary / "images.npy")
        summary = {
            **about,
            "images": len(widths),
            "unreadable": len(reasons),
            "sha256": {
                # Images left out are missing in the header too, with which `digest` began.
                "images.npy": files.sha256(temporary / "images.npy") if reasons else digest.hexdigest(),
                "index.csv": files.sha256(temporary / "index.csv"),
            },
        }
        needed = Counter(each for each in bits if each is not None)
        if needed:
            summary["sixteen_bits"] = {"range": sixteen_bits, "bits": {str(n): needed[n] for n in sorted(needed)}}
        files.write_json(temporary / "summary.json", summary)
    return summary


def _share(source: Path, target: Path) -> None:
    """Give a file a second name, so that it is at the old one until the new one is in place; else move it."""
    try:
        os.link(source, target)
    except OSError:  # Another disk, or one without hard links.
        shutil.move(source, target)


def _header(images: int, size: int) -> bytes:
    """The head of images.npy. Its length does not depend on the number of images: numpy leaves room for it to grow."""
    head = io.BytesIO()
    numpy.lib.format.write_array_header_1_0(
        head, {"descr": "|u1", "fortran_order": False, "shape": (images, size, size)}
    )
    return head.getvalue()


def sentence(summary: dict[str, Any]) -> str:
    """What was decoded, in one line; and a second one where 16-bit images do not fill their range."""
    said = "{dataset}: {images} images at {size} x {size} ({aspect}); {unreadable} unreadable".format(**summary)
    deep = summary.get("sixteen_bits", {"range": None})
    narrow = (
        sum(images for bits, images in deep["bits"].items() if int(bits) <= NARROW) if deep["range"] == "whole" else 0
    )
    if not narrow:
        return said
    return (
        f"{said}\n{narrow} images of 16-bit levels fill {NARROW} bits or fewer, so they are dark and lose gray levels: "
        "see decode.sixteen_bits in params.yaml"
    )
