"""Studies of external predictions alone: what they are known by, and what is left out of them.

Their truth is the collection's, `external.truth: data/collection` in params.yaml, so nothing is decoded, divided or trained. The
stages that want images then do nothing: each leaves what DVC expects of it, and in that the reason.
"""

from pathlib import Path
from typing import Any

from severity.core import files, runs
from severity.core.errors import SeverityError

WHY = "no images: external predictions are scored without them"
# Of external predictions that are scored beside images, without a run of the grid.
UNTRAINED = "no run was trained here: the grid is empty"
NOTE = "left_out.txt"


def without_images(settings: dict[str, Any]) -> bool:
    """Whether params.yaml describes such a study. `external.truth` alone says so: stages that ask have no other parameter of it.

    Raises:
        SeverityError: the grid has runs, which want images.
    """
    truth = settings["external"]["truth"]
    if truth == runs.PREPARED:
        return False
    if runs.grid(settings):
        raise SeverityError(
            f"params.yaml: external.truth is {truth!r}, so no image is decoded, but the grid has runs, which want images. Set "
            f"external.truth to {runs.PREPARED}, or empty the grid (grid.seed: [])."
        )
    return True


def leave_out(folder: Path | str, why: str = WHY) -> str:
    """Make the folder that a stage leaves, with nothing but a note of the reason in it. Returns the reason, to be printed."""
    with files.replacing(folder) as beside:
        beside.mkdir()
        files.write_text(beside / NOTE, f"{why}\n")
    return why
