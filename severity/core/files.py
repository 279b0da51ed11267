"""Writing files whole: to a temporary name first, then renamed, so that nothing is ever half-written."""

import contextlib
import errno
import glob
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas

from severity.core import inputs
from severity.core.errors import SeverityError, refused, shown

# Of the names of files that are being written, and of folders that are being replaced.
WRITING, FORMER = ".writing-", ".former-"
# What stops the writing of any file, whichever library writes; and how libraries that hide the system's number say it.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EIO}
SAID = {
    "No space left on device": errno.ENOSPC,
    "File too large": errno.EFBIG,
    "requested and": errno.ENOSPC,  # numpy: "800 requested and 312 written"
    "failed writing file": errno.ENOSPC,  # torch
    "unexpected pos": errno.ENOSPC,  # torch
}


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """Yield a temporary path next to `path`; rename it to `path` if the block succeeds, else remove it.

    Serves files and folders: write a file at the yielded path, or make a folder there. An existing `path` is replaced.

    Raises:
        SeverityError: the system refuses to write there, for example because the disk is full; what was at `path` before
            is still there.
    """
    path = Path(path)
    # The suffix stays last because writers such as numpy.save and Pillow choose the format by it.
    temporary = path.with_name(f".{path.stem}{WRITING}{os.getpid()}{path.suffix}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _clear(path, temporary)
    except OSError as error:
        raise _not_written(error, path) from None
    try:
        yield temporary
        _exchange(temporary, path)
    except Exception as error:
        number = _number(error, temporary)
        if number is None:
            raise
        raise _not_written(OSError(number, os.strerror(number)), path) from None
    finally:
        with contextlib.suppress(OSError):  # A read-only device; what is left is cleared away by the next writer.
            _remove(temporary)


def _exchange(temporary: Path, path: Path) -> None:
    """Rename `temporary` to `path`. A folder that is there is moved aside first, and back if that fails."""
    if not path.is_dir() or path.is_symlink():
        os.replace(temporary, path)
        return
    aside = path.with_name(temporary.name.replace(WRITING, FORMER))
    os.rename(path, aside)
    try:
        os.rename(temporary, path)
    except OSError:
        os.rename(aside, path)
        raise
    with contextlib.suppress(OSError):  # As below.
        _remove(aside)


def _clear(path: Path, temporary: Path) -> None:
    """Remove what killed processes left half-written: it can be as large as a data set."""
    for mark in (WRITING, FORMER):
        for left in path.parent.glob(f".{glob.escape(path.stem)}{mark}*{glob.escape(path.suffix)}"):
            # Its number is this process's own only by reuse.
            if left == temporary or not _alive(left.name.removesuffix(path.suffix).rpartition("-")[2]):
                _remove(left)


def _number(error: Exception, temporary: Path) -> int | None:
    """The system's number for why something could not be written; None where that is not what happened."""
    if isinstance(error, SeverityError):
        return None
    if isinstance(error, OSError) and error.errno is not None:
        own = error.filename is not None and Path(os.fsdecode(error.filename)).is_relative_to(temporary)
        return error.errno if own or error.errno in FULL else None
    return next((number for words, number in SAID.items() if words in str(error)), None)


def _not_written(error: OSError, path: Path) -> SeverityError:
    # A file of a folder that is being written itself: the name that it would have got.
    final = Path(*(re.sub(rf"^\.(.+){WRITING}[0-9]+", r"\1", part) for part in path.parts))
    before = "What was there before is kept." if os.path.lexists(final) else "Nothing half-written is left."
    return SeverityError(f"{refused(error, 'written', final)} {before}")


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


def sha256(path: Path | str, size: int | None = None) -> str:
    """SHA-256 of a file or of its first `size` bytes, in hex, read block by block."""
    digest, left = hashlib.sha256(), float("inf") if size is None else size
    with open(path, "rb") as file:
        while block := file.read(int(min(left, 1 << 20))):
            digest.update(block)
            left -= len(block)
    return digest.hexdigest()


def beside_copy(path: Path | str) -> str:
    """The end of a message that `path` is missing: where it is, and how it gets into the copy of a queue.

    DVC runs --queue and --temp in a copy of the project below .dvc/tmp, with what git and DVC track and nothing else.
    '' in the project itself, and where the path is missing there as well.
    """
    here = Path.cwd()
    project = next((each.parent for each in here.parents if each.name == ".dvc"), None)
    if project is None or Path(path).is_absolute() or not (project / path).exists():
        return ""
    return (
        f" {path} is in {project}, but DVC runs --queue and --temp in a copy of what git and DVC track. Give images "
        f"an absolute root in params.yaml; `git add` a tree; add `--copy-paths {path}` to `dvc exp run` for anything "
        "else that is small."
    )


def write_json(path: Path | str, content: Any) -> None:
    """Write `content` as indented JSON. NaN and infinity are refused (ValueError): they are not JSON."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path | str, text: str) -> None:
    """Write text as UTF-8."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def read_json(path: Path | str, *keys: str) -> Any:
    """Read a JSON file; with `keys`, one that holds a mapping with at least these.

    Raises:
        SeverityError: it is missing, not JSON or has another content; the message names it.
    """
    try:
        content = json.loads(inputs.read_text(path, most=None))
    except FileNotFoundError:
        raise SeverityError(f"{shown(path)} is missing. Run `dvc repro` to create it.") from None
    except SeverityError:
        raise
    except (ValueError, RecursionError) as error:  # ValueError: JSON's own, and Python's of numbers of 5,000 digits
        raise SeverityError(f"{shown(path)} is not JSON ({error}). Delete it and run `dvc repro`.") from None
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise SeverityError(
            f"{shown(path)} is not the file of that name that a stage wrote: it has no key {missing[0]!r}. Delete it and "
            "run `dvc repro`."
        )
    return content


def write_csv(path: Path | str, frame: pandas.DataFrame) -> None:
    """Write a table without its index, byte-stable across runs and platforms (10 significant digits)."""
    with replacing(path) as temporary:
        frame.to_csv(temporary, index=False, lineterminator="\n", float_format="%.10g")
