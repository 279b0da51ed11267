"""What a run is: one backbone, one loss, one seed; its name, its random numbers, its lock."""

import argparse
import contextlib
import ctypes
import hashlib
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any, TextIO

from severity.core.errors import SeverityError, nearest

try:
    import fcntl
except ImportError:  # Windows has no flock; there two processes can train the same run, wastefully but harmlessly.
    fcntl = None

# What metrics must share to be compared, of `description`.
STUDY = ("dataset", "hierarchy", "cost")
PREPARED = "data/prepared"  # where trained runs get their truth
NAME = re.compile(r"(?P<backbone>[a-z][a-z0-9_]*)-(?P<loss>[a-z][a-z0-9_]*)-(?P<seed>0|[1-9][0-9]*)")


@dataclass(frozen=True, order=True)
class Run:
    """One run of the grid, or one of external predictions."""

    backbone: str
    loss: str
    seed: int

    @property
    def name(self) -> str:
        """The name of the run's files; equal to the key that DVC gives it in its matrix."""
        return f"{self.backbone}-{self.loss}-{self.seed}"


def grid(params: dict[str, Any]) -> list[Run]:
    """All runs that `params['grid']` names, in its order: backbone, then loss, then seed."""
    axes = params["grid"]
    return [Run(*values) for values in product(axes["backbone"], axes["loss"], axes["seed"])]


def external(params: dict[str, Any]) -> list[Run]:
    """The runs that `params['external']['runs']` names: predictions made by another program.

    Raises:
        SeverityError: a name is not of the form <backbone>-<loss>-<seed>.
    """
    return [named(name) for name in params["external"]["runs"]]


def named(name: str) -> Run:
    """The run of a name such as ``chexnet-bce-0``. Raises SeverityError where it is not of this form."""
    match = NAME.fullmatch(name)
    if not match:
        raise SeverityError(
            f"{name!r} is not the name of a run. It must be <backbone>-<loss>-<seed>, such as chexnet-bce-0: "
            "lower-case letters, digits and _ in the first two, a whole number without leading zeros as the third."
        )
    return Run(match["backbone"], match["loss"], int(match["seed"]))


def scored(params: dict[str, Any]) -> list[Run]:
    """All runs whose predictions are scored: those of the grid, then the external ones.

    Raises:
        SeverityError: an external one is not named like a run, or is named like one of the grid, or has other images.
    """
    trained, given = grid(params), external(params)
    both = [run.name for run in given if run in trained]
    if both:
        raise SeverityError(
            f"params.yaml: external.runs names {', '.join(both)}, which the grid trains as well. Rename the file and "
            "the run."
        )
    truth = params["external"]["truth"]
    if trained and given and truth != PREPARED:
        raise SeverityError(
            f"params.yaml: external.truth is {truth!r}, but the grid has runs, which are scored on {PREPARED}. Set "
            f"external.truth to {PREPARED}, or empty the grid (grid.seed: [])."
        )
    return [*trained, *given]


def from_arguments(parser: argparse.ArgumentParser) -> Run:
    """Read the run from the command line: ``--backbone NAME --loss NAME --seed N``."""
    parser.add_argument("--backbone", required=True, help="a name under `backbones` in params.yaml")
    parser.add_argument("--loss", required=True, help="a name under `losses` in params.yaml")
    parser.add_argument("--seed", required=True, type=int)
    return Run(**vars(parser.parse_args()))


def description(run: Run, settings: dict[str, Any]) -> dict[str, Any]:
    """What a run's metrics are metrics of: its name and axes, the data set's title, the tree, the cost."""
    tree = settings["datasets"][settings["data"]["name"]]["hierarchy"]
    about = {"dataset": title(settings), "hierarchy": tree, "cost": settings["cost"]["name"]}
    return {"run": run.name, **asdict(run), **about}


def title(settings: dict[str, Any]) -> str:
    """What figures, tables and the report call the data set."""
    return settings["datasets"][settings["data"]["name"]]["title"]


def record(run: Run, settings: dict[str, Any], **inputs: Any) -> dict[str, Any]:
    """Everything that determines the training of a run: its names and numbers, its inputs, the libraries' versions.

    Args:
        settings: the params. inputs: JSON-like descriptions of what training reads, by name.

    Raises:
        SeverityError: the run's backbone or loss has no section in the params.
    """
    for name, section in ((run.backbone, "backbones"), (run.loss, "losses")):
        if name not in settings[section]:
            raise SeverityError(
                f"params.yaml: {name!r} has no section under {section!r}. {nearest(name, settings[section])}"
            )
    return {
        **asdict(run),
        "data": settings["data"]["name"],
        "backbones": {run.backbone: settings["backbones"][run.backbone]},
        "losses": {run.loss: settings["losses"][run.loss]},
        "train": settings["train"],
        **inputs,
        "versions": {name: version(name) for name in ("torch", "torchvision", "timm", "numpy")},
    }


def seed_for(*names: Any) -> int:
    """A seed in [0, 2**63) that depends only on the names of things, so that adding a run changes no other run."""
    digest = hashlib.sha256("\x1f".join(str(name) for name in names).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def fingerprint(content: Any) -> str:
    """16 hex digits that stand for a JSON-like value."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def sources() -> dict[str, str]:
    """SHA-256 of every file of the project's code that is loaded so far, by its path: what a result depends on.

    The schema of params.yaml only refuses, so no result depends on it.
    """
    top = Path(__file__).resolve().parents[2]
    loaded = {getattr(module, "__file__", None) for module in list(sys.modules.values())} - {None}
    paths = {Path(file).resolve() for file in loaded}
    ours = sorted(path for path in paths if set(path.parents) & {top / "severity", top / "stages"})
    ours = [path for path in ours if top / "severity/schema" not in path.parents]
    return {str(path.relative_to(top)): hashlib.sha256(path.read_bytes()).hexdigest() for path in ours}


@contextlib.contextmanager
def scratch(run: Run, determined_by: Any, root: Path | str = "data/unfinished") -> Iterator[Path]:
    """Yield a folder for the state of an unfinished run; remove it when the block ends well.

    The folder's name holds a fingerprint of everything that determines the run, so that state is only ever resumed by
    the same run. One process at a time holds it.

    Raises:
        SeverityError: when another process is training the same run.
    """
    folder = Path(root) / f"{run.name}-{fingerprint(determined_by)}"
    with held(folder, f"Another process is training the run {run.name}", "training resumes where it was"):
        yield folder


@contextlib.contextmanager
def held(folder: Path, busy: str, comfort: str) -> Iterator[None]:
    """Make a folder for unfinished work, hold it against other processes, and remove it when the block ends well.

    Args:
        busy: what to say when another process holds it. comfort: what happens to the work if that one is stopped.

    Raises:
        SeverityError: when another process holds it.
    """
    lock = _locked(folder, busy, comfort)
    while lock is None:
        lock = _locked(folder, busy, comfort)
    with lock:
        yield
        # Moved away before it is removed: else another process could lock a new file in a folder that is vanishing.
        # One that was killed before this ended may have left such a folder, and in a container had the same number.
        for left in folder.parent.glob(f".{folder.name}.ended-*"):
            shutil.rmtree(left, ignore_errors=True)
        ended = folder.with_name(f".{folder.name}.ended-{os.getpid()}")
        os.rename(folder, ended)
        shutil.rmtree(ended, ignore_errors=True)  # The next one may be at it already.


def _locked(folder: Path, busy: str, comfort: str) -> TextIO | None:
    """The lock of a folder, which is made; None if who held it before removed folder and lock in this very moment."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = open(folder / "lock", "w")
    except (FileExistsError, FileNotFoundError):
        return None
    if fcntl is None:
        return lock
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.path.samestat(os.fstat(lock.fileno()), os.stat(lock.name)):
            return lock
    except FileNotFoundError:
        pass
    except BlockingIOError:
        lock.close()
        raise SeverityError(
            f"{busy} (it holds {folder}/lock). Wait for it, or stop it and run again: {comfort}."
        ) from None
    lock.close()
    return None


def keep_memory() -> None:
    """Ask the C library to keep the memory that is freed (glibc only).

    It would give every large block back to the kernel, and a network on the CPU frees and asks for the same large
    blocks at each step: a small network loses a quarter of its time to new, zeroed pages. No number changes.
    """
    if sys.platform != "linux":
        return
    tune = getattr(ctypes.CDLL(None), "mallopt", None)
    if tune is not None:
        trim_threshold, map_threshold = -1, -3  # M_TRIM_THRESHOLD and M_MMAP_THRESHOLD in <malloc.h>
        tune(trim_threshold, 2**31 - 1)
        tune(map_threshold, 2**30) or tune(map_threshold, 2**25)  # Older ones allow no more than 32 MiB.
