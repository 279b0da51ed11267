"""What one GPU trains: the real loop against one resident batch, for nine backbones. Needs neither DVC nor data.

Run     python -m benchmarks.gpu [--images 223648] [--size 224] [--precision bfloat16] [--compile]     ten minutes
Writes  docs/benchmarks/<card>.md; on a CPU nothing, unless --out FILE names a file
"""

import argparse
import platform
import re
import shutil
import sys
import tempfile
from pathlib import Path

import timm
import torch

from benchmarks import training as benchmark
from severity.core import commands, runs
from severity.networks import inference

NINE = (
    "densenet121", "resnet18", "resnet50", "resnet152", "wide_resnet50_2", "efficientnet_b4", "mobilenet_v3_small",
    "shufflenet_v2_x1_0", "googlenet",
)  # fmt: skip


def row(model: str, images, options: argparse.Namespace, on: torch.device) -> str:
    """One line of the table: what was measured of a backbone, or that it does not fit on the card."""
    inference.deterministic(0)
    made = benchmark.engine(
        model, batch_size=options.batch, precision=options.precision, on=on, compile=options.compile
    )
    try:
        (loop, alone, ratio), _ = benchmark.compared(
            benchmark.real(made, images, options.batches),
            benchmark.resident(made, options.size, options.batches),
            options.repeats,
            on,
        )
    except torch.OutOfMemoryError:
        return f"| `{model}` | out of memory | | | |"
    count = options.batches * options.batch
    peak = f"{torch.cuda.max_memory_allocated(on) / 1e9:.1f}" if on.type == "cuda" else ""
    return f"| `{model}` | {count / loop:,.0f} | {count / alone:,.0f} | {ratio:.2f} | {peak} |"


def page(options: argparse.Namespace, on: torch.device, folder: Path) -> str:
    """The whole page; prints each line as soon as it is measured."""
    images = benchmark.mapped(folder, options.images, options.size)
    card = torch.cuda.get_device_name(on) if on.type == "cuda" else "CPU"
    lines = [
        f"# {card}",
        "",
        f"`{' '.join(['python -m benchmarks.gpu', *sys.argv[1:]])}`: torch {torch.__version__}, timm {timm.__version__}, "
        f"Python {platform.python_version()}. {options.images:,} random images of {options.size} px in a memory map, "
        f"{options.precision}{', torch.compile' if options.compile else ''}, batch {options.batch}, loss `bce` on 14 "
        f"labels, the default augmentation. The real loop reads, augments and steps; the resident batch is the arithmetic "
        f"alone, with the same network, loss, optimiser and precision. They take turns, {options.batches} batches each; "
        f"medians of {options.repeats}.",
        "",
        "| Backbone | real loop, images/s | resident batch, images/s | ratio | peak memory, GB |",
        "|---|---:|---:|---:|---:|",
    ]
    print("\n".join(lines), flush=True)
    for model in options.models:
        if on.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(on)
        lines.append(row(model, images, options, on))
        print(lines[-1], flush=True)
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> None:
    parser = commands.parser(__doc__)
    parser.add_argument("--images", type=int, default=223_648, help="as many as CheXpert has; 11 GB of disk at 224 px")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--batches", type=int, default=60)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--models", nargs="+", default=NINE)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--scratch", help="folder for the images, removed afterwards; by default the system's")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args(arguments)
    runs.keep_memory()  # as the stage does
    on = inference.device(options.device)
    folder = Path(tempfile.mkdtemp(dir=options.scratch))
    try:
        found = page(options, on, folder)
    finally:
        shutil.rmtree(folder)
    out = options.out
    if out is None and on.type == "cuda":
        name = re.sub(r"\W+", "-", torch.cuda.get_device_name(on)).strip("-").lower()
        out = benchmark.TOP / "docs/benchmarks" / f"{name}.md"
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(found, encoding="utf-8")
        print(f"written: {out}")


if __name__ == "__main__":
    main()
