"""Errors that a person can fix, and how a stage reports them."""

import difflib
import errno
import os
import sys
from collections.abc import Callable, Iterable

# What the system says no to, and what is needed then. Others are told in the system's own words.
NEEDED = {
    errno.EACCES: "permission denied. This user needs the right to it: see chmod and chown",
    errno.EPERM: "operation not permitted. This user needs the right to it: see chmod and chown",
    errno.EROFS: "the file system is read-only. Work in a folder that can be written to",
    errno.ENOSPC: "no space is left on the device. Free some, or work on another device",
    errno.EDQUOT: "this user's quota of disk space is used up. Free some, or work on another device",
    errno.EFBIG: "the file would be larger than is allowed here. Raise the limit (ulimit -f), or use another device",
    errno.ENOENT: "there is no such file or folder. Run `dvc repro` if a stage makes it",
    errno.ELOOP: "its symbolic links lead in a circle. Replace them by one that leads to the file",
    errno.ENAMETOOLONG: "the path is longer than the system allows. Use shorter names",
    errno.EMFILE: "too many files are open. Raise the limit (ulimit -n)",
    errno.EISDIR: "it is a folder, and a file is needed. Move it away",
    errno.ENOTDIR: "a part of the path is a file, and a folder is needed. Move it away",
    errno.EIO: "the device failed to read or write it. Look after the disk",
}
LONGEST = 300  # characters of a path in a message


class SeverityError(ValueError):
    """Wrong input. The message says what was given, what would be right, and where to change it."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A sentence naming the known word nearest to `word`, and all known words: the end of an error message."""
    known = sorted(str(each) for each in known)
    close = difflib.get_close_matches(str(word), known, n=1, cutoff=0.5)
    hint = f"Did you mean {close[0]!r}? " if close else ""
    return f"{hint}Known: {', '.join(known) or 'none'}."


def printable(text: str) -> str:
    """The text with whatever is neither printable nor a line end escaped: names of files may hold anything."""
    return "".join(
        each if each.isprintable() or each == "\n" else each.encode("unicode_escape", "backslashreplace").decode()
        for each in text
    )


def shown(path: object) -> str:
    """A path for a message: what cannot be printed is escaped, the middle of a very long one left out."""
    text = printable(os.fsdecode(path) if isinstance(path, bytes) else str(path)).replace("\n", "\\n")
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]}…{text[-LONGEST // 2 :]}"


def refused(error: OSError, doing: str, path: object = None) -> SeverityError:
    """What the system refused, in a sentence: the file, what was being done with it, what is needed.

    Args:
        doing: "read", "written".
        path: of the file, where the error itself does not name it.
    """
    file = path if path is not None else error.filename
    why = NEEDED.get(error.errno, str(error.strerror or error).rstrip(".").strip() or type(error).__name__)
    return SeverityError(f"{shown(file) if file is not None else 'A file'} cannot be {doing}: {why}.")


def told(error: BaseException) -> str | None:
    """The message for an error that a person can fix; None for any other, which needs its traceback."""
    if isinstance(error, SeverityError):
        return printable(str(error))
    if isinstance(error, OSError) and error.filename is not None:
        return str(refused(error, "opened, read or written"))
    if isinstance(error, OSError) and error.errno in NEEDED:
        return str(refused(error, "read or written"))
    if isinstance(error, MemoryError):
        return f"Memory ran out ({error or 'of this process'}). A smaller batch_size, fewer machine.workers or a larger machine helps."
    return None


def run(main: Callable[[], object]) -> None:
    """Run a stage's `main`; an error that a person can fix ends it with exit code 1 and only its message."""
    try:
        main()
    except Exception as error:
        message = told(error)
        if message is None:
            raise
        print(f"error: {message}", file=sys.stderr)
        sys.exit(1)
