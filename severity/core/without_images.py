"""Studies of external predictions without images: how they are recognised, and what is left out of them.

Their truth is the collection's, `external.truth: data/collection` in params.yaml, so nothing is decoded, split or
trained. The stages that need images then do nothing: each leaves the outputs that DVC expects, with the reason in them.
"""

from pathlib import Path
from typing import Any

from severity.core import files, runs
from severity.core.errors import SeverityError

WHY = "no images: external predictions are scored without them"
# For external predictions that are scored with images, without a run of the grid.
UNTRAINED = "no run was trained here: the grid is empty"
NOTE = "left_out.txt"


def without_images(settings: dict[str, Any]) -> bool:
    """Whether params.yaml describes such a study: only `external.truth` decides, and no other key.

    Raises:
        SeverityError: the grid has runs, which need images.
    """
    truth = settings["external"]["truth"]
    if truth == runs.PREPARED:
        return False
    if runs.grid(settings):
        raise SeverityError(
            f"params.yaml: external.truth is {truth!r}, so no image is decoded, but the grid has runs, which need "
            f"images. Set external.truth to {runs.PREPARED}, or empty the grid (grid.seed: [])."
        )
    return True


def leave_out(folder: Path | str, why: str = WHY) -> str:
    """Write a stage's folder with nothing in it but a note of the reason, and return the reason for printing."""
    with files.replacing(folder) as temporary:
        temporary.mkdir()
        files.write_text(temporary / NOTE, f"{why}\n")
    return why
