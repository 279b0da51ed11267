"""Writing files whole: to a temporary name first, then renamed, so that nothing is ever half-written."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas

from severity.core.errors import SeverityError


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename it to `path` if the block succeeds, else remove it.

    Serves files and folders: write a file at the yielded path, or make a folder there. An existing `path` is replaced.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix stays last because writers such as numpy.save and Pillow choose the format by it.
    temporary = path.with_name(f".{path.stem}.writing-{os.getpid()}{path.suffix}")
    for left in path.parent.glob(f".{path.stem}.writing-*{path.suffix}"):
        # What a killed process left behind can be as large as a data set. Its number is this one's only by reuse.
        if left == temporary or not _alive(left.name.removesuffix(path.suffix).rpartition("-")[2]):
            _remove(left)
    try:
        yield temporary
        if path.is_dir() and not path.is_symlink():
            _remove(path)
        os.replace(temporary, path)
    finally:
        _remove(temporary)


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:  # It lives, under another user.
        return True
    return True


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def write_json(path: Path | str, content: Any) -> None:
    """Write `content` as indented JSON. NaN and infinity are refused (ValueError): they are not JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path | str, text: str) -> None:
    """Write text as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file. Raises SeverityError naming the file when it is missing or not JSON."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SeverityError(f"{path} is missing. Run `dvc repro` to create it.") from None
    except json.JSONDecodeError as error:
        raise SeverityError(f"{path} is not JSON ({error}). Delete it and run `dvc repro`.") from None


def write_csv(path: Path | str, frame: pandas.DataFrame) -> None:
    """Write a table without its index, byte-stable across runs and platforms (10 significant digits)."""
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n", float_format="%.10g")
