"""The stages before training on collections of full size: seconds, memory, and what a kill costs.

    python -m benchmarks.full_size                     both, a quarter of an hour; 25 GB of disk
    python -m benchmarks.full_size chexpert            223,648 JPEGs of 390 x 320 in the form of CheXpert-v1.0-small
    python -m benchmarks.full_size nih14               112,120 PNGs of 1,024 x 1,024 in the form of ChestX-ray14

The tables have a row an image; the images are hard links to a few dozen drawn phantoms with grain. The stages are those of
the pipeline, run one after the other in a folder of their own with the params of the project, at SIZE pixels. Decoding is
killed (SIGKILL) on its way and started again. Memory is the largest sum, over the stage's processes, of what each has alone
and its share of what several have (Linux's PSS), looked at ten times a second.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy
import pandas
import yaml

from benchmarks.decoding import KINDS, Kind, link_to, processor
from severity.core import markdown
from severity.datasets import nih14, phantom

TOP = Path(__file__).resolve().parent.parent
SIZE = 224
# How long decoding runs before it is killed.
KILLED_AFTER = 25.0
SMALL, LARGE = KINDS[0], KINDS[-1]


def chexpert(root: Path, images: int = 223_648) -> None:
    """A collection in CheXpert's form: patients, studies, views and labels as the drawn phantoms have them."""
    pictures = phantom.plan(0, images, 0.02, 0.14)
    root.mkdir()
    for folder in ("train", "valid"):
        rows = phantom.table(pictures, folder, 0, 0.05)
        rows.to_csv(root / f"{folder}.csv", index=False)
    link(SMALL, root, [picture.path for picture in pictures])


def chest_xray14(root: Path, images: int = 112_120) -> None:
    """A collection in ChestX-ray14's form: three images a patient, one or two findings in half of them."""
    random = numpy.random.default_rng(0)
    findings = [label for label in nih14.LABELS if label != "No Finding"]
    named = ["|".join(random.choice(findings, count, replace=False)) for count in random.integers(0, 3, images)]
    names = [f"{number // 3 + 1:08d}_{number % 3:03d}.png" for number in range(images)]
    root.mkdir()
    pandas.DataFrame(
        {
            "Image Index": names,
            "Finding Labels": [each or "No Finding" for each in named],
            "Follow-up #": [number % 3 for number in range(images)],
            "Patient ID": [number // 3 + 1 for number in range(images)],
            "Patient Age": random.integers(20, 90, images),
            "Patient Gender": random.choice(["F", "M"], images),
            "View Position": random.choice(["PA", "AP"], images),
        }
    ).to_csv(root / "Data_Entry_2017_v2020.csv", index=False)
    link(LARGE, root, [f"images/{name}" for name in names])


COLLECTIONS = {"chexpert": (chexpert, SMALL), "nih14": (chest_xray14, LARGE)}


def link(kind: Kind, root: Path, paths: list[str]) -> None:
    """Hard-link drawn pictures of a kind to all paths."""
    drawn = root.with_name("drawn")
    kind.draw(drawn)
    link_to(kind, drawn, root, paths)


@contextmanager
def project(folder: Path) -> Iterator[dict[str, Any]]:
    """Make a project of its own in a new folder; the block may change the default params."""
    for each in ("stages", "severity", "data/hierarchies"):
        shutil.copytree(TOP / each, folder / each, ignore=shutil.ignore_patterns("__pycache__"))
    params = yaml.safe_load((TOP / "params.yaml").read_text())
    yield params
    (folder / "params.yaml").write_text(yaml.safe_dump(params, sort_keys=False))


def study(folder: Path, name: str, root: Path) -> None:
    """A project with the default params, but for the collection and the size."""
    with project(folder) as params:
        params["data"]["name"] = name
        params["datasets"][name]["root"] = str(root)
        params["decode"]["size"] = SIZE


def run(stage: str, folder: Path, killed_after: float | None = None) -> tuple[float, float]:
    """Seconds and GB of one stage, which is killed with its processes when that time is over."""
    start, peak = time.perf_counter(), 0.0
    running = subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}"], cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL
    )
    while running.poll() is None:
        peak = max(peak, memory(running.pid))
        if killed_after and time.perf_counter() - start > killed_after:
            os.killpg(running.pid, signal.SIGKILL)
        time.sleep(0.1)
    if running.returncode not in (0, -signal.SIGKILL if killed_after else 0):
        sys.exit(f"error: stages.{stage} ended with {running.returncode}")
    return time.perf_counter() - start, peak


def memory(group: int) -> float:
    """GB that the processes of a group have together."""
    total = 0
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(process.name)) == group:
                lines = (process / "smaps_rollup").read_text().splitlines()
                total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
        except (FileNotFoundError, ProcessLookupError):
            pass  # It has ended meanwhile.
    return total * 1024 / 1e9


def finished(folder: Path) -> int:
    """Images that decoding has noted as done in what it left when it was killed."""
    lines = [line for path in folder.glob("data/unfinished/*/log.jsonl") for line in path.read_text().splitlines()]
    return sum(len(json.loads(line)["outcomes"]) for line in lines)


def measure(name: str, folder: Path) -> list[list[str]]:
    """Rows of the printed table for one collection."""
    make, kind = COLLECTIONS[name]
    make(folder / "collection")
    study(folder / "study", name, folder / "collection")
    rows = []
    for stage in ("collect", "read", "decode", "prepare", "describe"):
        if stage == "decode":
            seconds, peak = run(stage, folder / "study", KILLED_AFTER)
            done = finished(folder / "study")
            rows.append([name, f"decode, killed with {done:,} images done", f"{seconds:.0f}", f"{peak:.2f}"])
        seconds, peak = run(stage, folder / "study")
        rows.append([name, stage if stage != "decode" else "decode, the rest", f"{seconds:.0f}", f"{peak:.2f}"])
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", choices=[*COLLECTIONS, []], help="which collections; default: all")
    parser.add_argument("--folder", help="where to write; default: the system's for temporary files")
    options = parser.parse_args()
    print(f"{processor()}, {SIZE} pixels\n")
    rows = []
    for name in options.names or COLLECTIONS:
        with tempfile.TemporaryDirectory(dir=options.folder) as folder:
            rows += measure(name, Path(folder))
    print(markdown.table(["collection", "stage", "seconds", "GB of memory"], rows))


if __name__ == "__main__":
    main()
