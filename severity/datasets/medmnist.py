"""MedMNIST: small standardised medical images; any of its 2-D sets, among them ChestMNIST and PneumoniaMNIST.

Yang et al., "MedMNIST v2 - A large-scale lightweight benchmark for 2D and 3D biomedical image classification",
Scientific Data 10:41, 2023, https://doi.org/10.1038/s41597-022-01721-8; the sizes above 28 came with version 3 of the
package. Available at https://medmnist.com/ and https://doi.org/10.5281/zenodo.10519652. Names of labels, counts,
addresses and checksums are those of the ``medmnist`` package.
Licence: CC BY 4.0, DermaMNIST CC BY-NC 4.0; the images come from other collections, which are to be cited as well.

Form of what is downloaded, ``<flag>.npz`` for 28 pixels, else ``<flag>_<size>.npz``; n differs between the three
parts::

    train_images, val_images, test_images    (n, size, size) uint8, or (n, size, size, 3) for colour
    train_labels, val_labels, test_labels    (n, 1): the number of the class; multi-label sets (n, K): 1 or 0 a label

An .npz file is packed and can be many times as large as memory, so `collect` unpacks it once, block by block, into what
`read` and the pipeline read row by row::

    <out>/train_images.npy, val_images.npy, test_images.npy    as above
    <out>/labels.csv    one row an image: id (train/0 is the first of train), split, one column a label: 1 or 0
    <out>/info.json     the set and its size, task, labels, counts, checksums, licence

What a value becomes: single-label sets are one-hot. RetinaMNIST's five grades are an order; here they are five classes,
and a tree or a cost file has to say which of them are near. There is no blank and no uncertain state. Patients are not
identified.
"""

import dataclasses
import errno
import http.client
import lzma
import shutil
import sys
import urllib.error
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy
import pandas
from numpy.lib import format as npy
from tqdm import tqdm

from severity.collections.collection import Collection
from severity.core import files, tables
from severity.core.errors import SeverityError, nearest

SIZES = (28, 64, 128, 224)
PARTS = {"train": "train", "val": "validation", "test": "test"}  # MedMNIST's word -> the split of its images
NO_FINDING = "No Finding"
BLOCK = 1 << 20  # bytes held while unpacking
# What Python's and numpy's readers raise on files that are damaged or compressed in ways they do not know.
DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, ValueError, RuntimeError, OSError)


@dataclasses.dataclass(frozen=True)
class Published:
    """What the medmnist package knows about one set at one size."""

    flag: str
    size: int
    task: str  # 'binary-class', 'multi-class', 'multi-label, binary-class' or 'ordinal-regression'
    channels: int
    labels: tuple[str, ...]
    counts: dict[str, int]  # images of train, val, test
    url: str
    md5: str
    licence: str
    homepage: str
    description: str

    @property
    def file(self) -> str:
        """Name of the .npz file."""
        return f"{self.flag}{_suffix(self.size)}.npz"

    @property
    def multi_label(self) -> bool:
        """Whether an image may have any number of the labels."""
        return self.task.startswith("multi-label")


def collect(root: Path | str, out: Path | str, *, flag: str, size: int, folder: str, download: bool) -> int:
    """Check one set and unpack it into the folder `out`, replacing what is there.

    Memory holds one block of the images at a time, whatever the size of the set.

    Args:
        root: not used: what `read` reads is what this writes.
        out: folder to write; as large as the set unpacked (28 px ChestMNIST 88 MB, 224 px 5.6 GB).
        flag: name of the set, as MedMNIST writes it: 'chestmnist', 'pneumoniamnist', ...
        size: edge of the images: 28, 64, 128 or 224.
        folder: where the .npz file is, or is put.
        download: whether to download the file when it is not there.

    Returns:
        The number of images.

    Raises:
        SeverityError: the package medmnist is missing; the set or size is unknown, or three-dimensional; the file is
            not there and may not or cannot be downloaded; it is damaged or not of the form above; the disk is too
            small.
    """
    published = _published(flag, size)
    path = Path(folder) / published.file
    if not path.is_file():
        _download(published, path, download)
    with files.replacing(out) as target:
        target.mkdir()
        labels = _unpack(path, published, target)
        counts = {part: len(rows) for part, rows in labels.items()}
        files.write_csv(target / "labels.csv", _table(labels, published))
        md5 = _md5(path)
        files.write_json(
            target / "info.json",
            dataclasses.asdict(published) | {"counts": counts, "counts_published": published.counts, "md5_found": md5},
        )
    if md5 != published.md5:
        print(f"{path}: its md5 is {md5}, the published file's {published.md5}. Read all the same.", file=sys.stderr)
    return sum(counts.values())


def read(root: Path | str, *, no_finding: bool) -> Collection:
    """Read what `collect` has unpacked. The medmnist package is not needed for it.

    Args:
        root: the folder that `collect` wrote.
        no_finding: for multi-label sets, put before the labels one more, 'No Finding', positive where none of the
            others is: a decision must name one class, and without this one nothing can be right for a healthy image.
            Without effect for single-label sets.

    Returns:
        One row an image, in the order train, val, test; id ``train/<row>``, path ``train_images.npy#<row>``; each image
        is a patient of its own, and sex, age and view are blank. Labels are 1 or 0.

    Raises:
        SeverityError: a file that `collect` wrote is not there.
    """
    root = Path(root)
    info = files.read_json(root / "info.json", "labels")
    labels = tuple(info["labels"])
    raw = tables.read_text(root / "labels.csv", ["id", "split", *labels])
    names = {split: f"{part}_images.npy" for part, split in PARTS.items()}
    for name in names.values():
        if not (root / name).is_file():
            raise SeverityError(f"{root / name} is missing. Remove the folder {root} and run `dvc repro` to create it.")
    table = pandas.DataFrame(
        {
            "id": raw["id"],
            "path": raw["split"].map(names) + "#" + raw.groupby("split").cumcount().astype(str),
            "patient": raw["id"],
            "sex": "",
            "age": float("nan"),
            "view": "",
            "split": raw["split"],
        }
    )
    states = raw[list(labels)].astype(float)
    notes = _notes(info, len(table))
    if info["task"].startswith("multi-label") and no_finding:
        healthy = (states == 0).all(axis=1)
        states.insert(0, NO_FINDING, healthy.astype(float))
        notes[f"images without any of the {len(labels)} labels, here the class {NO_FINDING!r}"] = int(healthy.sum())
    facts = {key: info[key] for key in ("flag", "size", "task", "licence", "homepage", "description", "counts")}
    return Collection(
        table=pandas.concat([table, states], axis=1), labels=tuple(states), notes=notes, facts={"medmnist": facts}
    )


def _suffix(size: int) -> str:
    return "" if size == SIZES[0] else f"_{size}"


def _published(flag: str, size: int) -> Published:
    try:
        # Here and not above: the package imports torch, and nothing else of this file needs either.
        from medmnist.info import HOMEPAGE, INFO
    except ImportError as error:
        raise SeverityError(
            f"The package medmnist, which knows MedMNIST's labels and addresses, cannot be imported ({error}). Install "
            "it: python -m pip install medmnist"
        ) from None
    where = "params.yaml: datasets.medmnist.collect"
    flat = [name for name in INFO if not name.endswith("3d")]
    if flag in INFO and flag not in flat:
        raise SeverityError(f"{where}.flag: {flag!r} is a set of volumes; only 2-D sets are read. {nearest('', flat)}")
    if flag not in flat:
        raise SeverityError(f"{where}.flag: {flag!r} is unknown. {nearest(flag, flat)}")
    info = INFO[flag]
    return Published(
        flag=flag,
        size=size,
        task=info["task"],
        channels=info["n_channels"],
        labels=tuple(info["label"][str(number)] for number in range(len(info["label"]))),
        counts={part: info["n_samples"][part] for part in PARTS},
        url=info[f"url{_suffix(size)}"],
        md5=info[f"MD5{_suffix(size)}"],
        licence=info["license"],
        homepage=HOMEPAGE,
        description=info["description"],
    )


def _download(published: Published, path: Path, allowed: bool) -> None:
    by_hand = f"download {published.url} (md5 {published.md5}) by hand and put it there"
    if not allowed:
        raise SeverityError(
            f"{path} is missing. Set datasets.medmnist.collect.download in params.yaml to true, or {by_hand}."
        )
    # The function that the package itself downloads with. Its own classes would then load a whole part into
    # memory, and hide why a download failed.
    from torchvision.datasets.utils import download_url

    try:
        with files.replacing(path) as temporary:
            download_url(published.url, str(temporary.parent), filename=temporary.name, md5=published.md5)
    # No network, no such page, no space; a broken connection; a wrong checksum.
    except (OSError, http.client.HTTPException, RuntimeError) as error:
        if isinstance(error, urllib.error.HTTPError):
            error.close()  # It holds the connection.
        raise SeverityError(
            f"{path} is missing, and downloading it failed ({error}). Try again where there is a network, or {by_hand}."
        ) from None


def _md5(path: Path) -> str:
    from torchvision.datasets.utils import calculate_md5

    return calculate_md5(str(path))


def _unpack(path: Path, published: Published, target: Path) -> dict[str, numpy.ndarray]:
    """Check the whole file, write its images to `target`, and give the labels of each part."""
    try:
        with zipfile.ZipFile(path) as archive:
            images = {part: _check_images(archive, part, path, published) for part in PARTS}
            labels = {part: _labels(archive, part, path, published, images=images[part]) for part in PARTS}
            _check_space(archive, target)
            for part in PARTS:
                _copy(archive, f"{part}_images.npy", target)
    except SeverityError:
        raise
    except DAMAGE as error:
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise  # The disk's fault; EINVAL comes of a wrong place in the file.
        raise SeverityError(
            f"{path} cannot be read as an .npz file ({str(error) or type(error).__name__}). Remove it to have it "
            "downloaded again, or put a whole copy there."
        ) from None
    return labels


def _check_images(archive: zipfile.ZipFile, part: str, path: Path, published: Published) -> int:
    """The number of images of a part whose header is right."""
    name = f"{part}_images"
    with _member(archive, name, path) as file:
        shape, dtype = _header(file, name, path)
    size = published.size
    right = (size, size) if published.channels == 1 else (size, size, published.channels)
    if dtype != numpy.uint8:
        raise SeverityError(f"{path}: {name} is of type {dtype}; images are uint8, grey levels from 0 to 255.")
    if len(shape) == 1 + len(right) and shape[1] == shape[2] != size and shape[1] in SIZES:
        raise SeverityError(
            f"{path}: {name} holds images of {shape[1]} x {shape[2]} pixels, but datasets.medmnist.collect.size in "
            f"params.yaml is {size}. Set it to {shape[1]} and name the file {published.flag}{_suffix(shape[1])}.npz, "
            "or put the right file there."
        )
    if shape[1:] != right or shape[0] < 1:
        raise SeverityError(
            f"{path}: {name} has the shape {shape}; {published.flag} at size {size} has "
            f"({', '.join(map(str, ('n', *right)))}), n above 0. Put the published file there."
        )
    return shape[0]


def _labels(archive: zipfile.ZipFile, part: str, path: Path, published: Published, images: int) -> numpy.ndarray:
    """(n, K) 1 or 0 of a part, checked."""
    name = f"{part}_labels"
    columns = len(published.labels) if published.multi_label else 1
    with _member(archive, name, path) as file:
        shape, dtype = _header(file, name, path)
    if dtype.kind not in "ui":
        raise SeverityError(f"{path}: {name} is of type {dtype}; labels are whole numbers.")
    if shape[:1] != (images,):
        raise SeverityError(
            f"{path}: {name} has the shape {shape}, but {part}_images holds {images} images; each has one row of "
            "labels."
        )
    if shape != (images, columns):
        raise SeverityError(
            f"{path}: {name} has the shape {shape}; {published.flag} ({published.task}) has ({images}, {columns})."
        )
    with _member(archive, name, path) as file:
        values = npy.read_array(file, allow_pickle=False)
    largest = 1 if published.multi_label else len(published.labels) - 1
    wrong = ((values < 0) | (values > largest)).any(axis=1)
    if wrong.any():
        row = int(wrong.argmax())
        raise SeverityError(
            f"{path}: {name}, row {row} (from 0), is {values[row].tolist()}; {published.flag} ({published.task}) has "
            f"whole numbers from 0 to {largest} ({int(wrong.sum())} such rows). Put the published file there."
        )
    return values if published.multi_label else numpy.eye(len(published.labels), dtype=numpy.uint8)[values[:, 0]]


def _member(archive: zipfile.ZipFile, name: str, path: Path) -> IO[bytes]:
    known = [each.removesuffix(".npy") for each in archive.namelist()]
    if name not in known:
        raise SeverityError(
            f"{path} has no array {name!r}. {nearest(name, known)} A file of MedMNIST has images and labels of train, "
            "val and test."
        )
    return archive.open(f"{name}.npy")


def _header(file: IO[bytes], name: str, path: Path) -> tuple[tuple[int, ...], numpy.dtype]:
    """Shape and type of the array in an open .npy file; whatever could not be copied as it is, is refused."""
    version = npy.read_magic(file)
    read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}.get(version)
    if read is None:
        raise SeverityError(f"{path}: {name} is in version {version} of the .npy format; right: 1.0 or 2.0.")
    shape, columns_first, dtype = read(file)
    if dtype.hasobject:
        raise SeverityError(
            f"{path}: {name} holds pickled objects, which are not opened: they can run code. Save plain numbers."
        )
    if columns_first and len(shape) > 1:
        raise SeverityError(
            f"{path}: {name} is stored columns first. Save numpy.ascontiguousarray of it, so that images lie one after "
            "another."
        )
    return shape, dtype


def _check_space(archive: zipfile.ZipFile, target: Path) -> None:
    need = sum(archive.getinfo(f"{part}_images.npy").file_size for part in PARTS)
    free = shutil.disk_usage(target).free
    if need > free:
        raise SeverityError(
            f"{target.parent} has {free / 1e9:.1f} GB free, but the unpacked images take {need / 1e9:.1f} GB. Make "
            "room, or lower datasets.medmnist.collect.size in params.yaml."
        )


def _copy(archive: zipfile.ZipFile, member: str, target: Path) -> None:
    """Write a member as it is: it is an .npy file already. The zip's checksum is held against it on the way."""
    size = archive.getinfo(member).file_size
    with archive.open(member) as packed, open(target / member, "wb") as file:
        with tqdm.wrapattr(packed, "read", total=size, desc=member, disable=None) as source:
            shutil.copyfileobj(source, file, BLOCK)
    # Mapping it proves that header and length agree: otherwise a stack that is too short would be noticed only when its
    # end is read.
    numpy.load(target / member, mmap_mode="r", allow_pickle=False)


def _table(labels: dict[str, numpy.ndarray], published: Published) -> pandas.DataFrame:
    parts = []
    for part, values in labels.items():
        names = pandas.DataFrame({"id": [f"{part}/{row}" for row in range(len(values))], "split": PARTS[part]})
        parts.append(pandas.concat([names, pandas.DataFrame(values, columns=list(published.labels))], axis=1))
    return pandas.concat(parts, ignore_index=True)


def _notes(info: dict[str, Any], images: int) -> dict[str, Any]:
    notes: dict[str, Any] = {"images whose patient is not told, each taken as a patient of its own": images}
    if info["md5_found"] != info["md5"]:
        notes["md5 of the file, which is not the published one"] = info["md5_found"]
    if info["counts"] != info["counts_published"]:
        notes["images by part, which are not as many as published"] = info["counts"]
    if info["channels"] > 1:
        notes["colour images, taken as grey"] = images
    if info["task"] == "ordinal-regression":
        notes["grades in an order, taken as classes without one"] = len(info["labels"])
    return notes
