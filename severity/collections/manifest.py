"""The manifest of a collection that lives outside the project: what DVC sees of it.

The images stay where they are. The manifest lists each with its size, and the SHA-256 of the label tables, so that a
changed collection gives a changed manifest, and everything that depends on it runs again.
"""

import os
from collections.abc import Iterable
from pathlib import Path

import pandas

from severity.core import files, table_checks
from severity.core.errors import SeverityError


def write(out: Path | str, root: Path, *, images: Iterable[str], label_tables: Iterable[str]) -> None:
    """Write ``manifest.csv`` (path, bytes) and ``tables.csv`` (path, sha256) into the folder `out`, sorted by path.

    Args:
        out: folder to write; replaced if it is there.
        root: folder of the collection.
        images: paths of the images, relative to `root`, with forward slashes.
        label_tables: paths of the label tables, relative to `root`.

    Raises:
        SeverityError: an image is not there; the message counts and names some.
    """
    images = sorted(images)
    sizes = [_size(root / path) for path in images]
    missing = [path for path, size in zip(images, sizes, strict=True) if size is None]
    if missing:
        raise SeverityError(
            f"{root}: {len(missing)} of {len(images)} images named by the label tables are not there: "
            f"{table_checks.listed(missing)}. Unpack the collection again, or take their rows out of the tables."
        )
    label_tables = sorted(label_tables)
    with files.replacing(out) as folder:
        folder.mkdir()
        files.write_csv(folder / "manifest.csv", pandas.DataFrame({"path": images, "bytes": sizes}))
        files.write_csv(
            folder / "tables.csv",
            pandas.DataFrame({"path": label_tables, "sha256": [files.sha256(root / path) for path in label_tables]}),
        )


def below(root: Path, suffixes: tuple[str, ...]) -> list[str]:
    """Paths relative to `root`, with forward slashes, of all files below it that have one of the suffixes, sorted."""
    paths = [
        Path(folder, name).relative_to(root).as_posix()
        for folder, _, names in os.walk(root)
        for name in names
        if name.lower().endswith(suffixes)
    ]
    return sorted(paths)


def _size(path: Path) -> int | None:
    try:
        return os.stat(path).st_size
    except (FileNotFoundError, NotADirectoryError):
        return None


def check_root(root: Path, name: str, link: str) -> None:
    """Raise SeverityError unless the folder of the collection `name` is there."""
    if not root.is_dir():
        raise SeverityError(
            f"There is no folder {root}. Set datasets.{name}.root in params.yaml to the folder of the collection; "
            f"it is available at {link}.{files.beside_copy(root)}"
        )


def check_count(images: int, expected: int, name: str) -> None:
    """Raise SeverityError unless `images` is ``datasets.<name>.collect.images`` or that is 0 (any number)."""
    if expected and images != expected:
        raise SeverityError(
            f"The collection {name} has {images} images, but datasets.{name}.collect.images in params.yaml says "
            f"{expected}. If a part of the collection is meant, set it to {images}, or to 0 for any number."
        )
