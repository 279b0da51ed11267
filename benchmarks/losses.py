"""What a loss costs beside plain (binary) cross-entropy: forward and backward, ratios within one run.

Run     python -m benchmarks.losses [--threads N] [--device cpu|cuda] [--batch 256] [--repeats 100]     a minute
Prints  a Markdown table: microseconds of the baselines, ratios of the other losses, for trees of 14, 608 and 1,010 classes
"""

import platform
import statistics
import time
from collections.abc import Callable, Sequence

import numpy
import torch

from severity import losses
from severity.core import commands
from severity.core.hierarchy import Hierarchy
from severity.tree import costs

# The number of nodes of each level of iNaturalist 2019's tree, below the root.
INATURALIST = (3, 4, 9, 34, 57, 72, 1010)
# A loss's time is divided by that of its baseline: one class excludes the others, or each is by itself.
SOFTMAX = ("hxe", "cascade", "soft_labels", "barz_denzler", "haframe", "haf")
SIGMOID = ("hbce_conditional", "hbce", "hxe_multilabel")


def chexpert() -> Hierarchy:
    """The shape of data/hierarchies/chexpert_pleural.yaml: 14 classes, three of them at inner nodes."""
    #       root  NF EC Ca LO Ed Co Pn LL At Pl PT PE PO Fr SD
    parents = [-1, 0, 0, 2, 0, 4, 4, 6, 4, 4, 0, 10, 10, 10, 0, 0]
    nodes = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 14, 15]
    return Hierarchy.from_parents(parents, nodes, [f"class {index}" for index in range(14)])


def uneven(classes: int, inner: int, seed: int = 0) -> Hierarchy:
    """A random tree in which leaves lie at many depths, as in WordNet: tieredImageNet has 608 below 233 inner nodes."""
    random = numpy.random.default_rng(seed)
    parents = [-1] + [int(random.integers(max(0, node - 40), node)) for node in range(1, inner)]
    bare = sorted(set(range(inner)) - set(parents))
    parents += bare + [int(random.integers(0, inner)) for _ in range(classes - len(bare))]
    leaves = range(inner, inner + classes)
    return Hierarchy.from_parents(parents, leaves, [f"class {index}" for index in range(classes)])


def by_levels(sizes: Sequence[int]) -> Hierarchy:
    """A tree with `sizes` nodes at depths 1, 2, ..., the last of them the classes, shared out evenly."""
    parents, start = [-1], 0
    for above, size in zip((1, *sizes), sizes, strict=False):
        parents += [start + node * above // size for node in range(size)]
        start += above
    leaves = range(start, start + sizes[-1])
    return Hierarchy.from_parents(parents, leaves, [f"class {index}" for index in range(sizes[-1])])


def step(loss: losses.Link, batch: int, device: torch.device) -> Callable[[], None]:
    """One forward and backward pass on fixed logits and targets with one to three positives an image."""
    random = torch.Generator().manual_seed(0)
    classes = len(loss.classes)
    chosen = torch.randint(classes, (batch, 3), generator=random)
    targets = torch.zeros(batch, classes).scatter_(1, chosen, 1.0).to(device)
    logits = (2 * torch.randn(batch, loss.outputs, generator=random)).to(device).requires_grad_()
    loss = loss.to(device)

    def run() -> None:
        logits.grad = None
        loss(logits=logits, targets=targets).backward()
        if device.type == "cuda":
            torch.cuda.synchronize()

    return run


def medians(steps: dict[str, Callable[[], None]], repeats: int) -> dict[str, float]:
    """Median seconds of each step; the steps take turns, so that what else the machine does meets all alike."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for repeat in range(repeats + repeats // 10 + 3):
        for name, run in steps.items():
            run()  # What the step before left in the caches is not this one's concern.
            start = time.perf_counter()
            run()
            taken[name].append(time.perf_counter() - start)
            if repeat < repeats // 10 + 3:  # warm-up
                taken[name].clear()
    return {name: statistics.median(each) for name, each in taken.items()}


def build(name: str, tree: Hierarchy, **params) -> losses.Link:
    loss = losses.build(name, hierarchy=tree, cost=costs.lca_height(tree), **params)
    loss.at_epoch(0, 1)
    return loss


def main() -> None:
    parser = commands.parser(__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repeats", type=int, default=100)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    trees = [chexpert(), uneven(608, 233), by_levels(INATURALIST)]
    columns = [f"K = {len(tree.classes):,}, depth {tree.depth.max()}" for tree in trees]
    found = []
    for tree in trees:
        built = {name: build(name, tree) for name in ("ce", "bce", *SOFTMAX, *SIGMOID) if name != "hbce"}
        built |= {"hbce, first epochs": build("hbce", tree, finetune_epochs=0)}
        built |= {"hbce, last epochs": build("hbce", tree, finetune_epochs=1)}
        steps = {name: step(loss, options.batch, device) for name, loss in built.items()}
        found.append(medians(steps, options.repeats))
    where = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{options.threads} CPU threads"
    print(f"torch {torch.__version__}, Python {platform.python_version()}, {where}, batch {options.batch},")
    print(f"median of {options.repeats} passes forward and backward.\n")
    print(f"| Loss | against | {' | '.join(columns)} |\n|---|---|{'---:|' * len(columns)}")
    for name in found[0]:
        if name in ("ce", "bce"):
            cells = [f"{1e6 * each[name]:,.0f} µs" for each in found]
            print(f"| `{name}` | | {' | '.join(cells)} |")
        else:
            baseline = "bce" if name.split(",")[0] in SIGMOID else "ce"
            cells = [f"{each[name] / each[baseline]:.1f}" for each in found]
            print(f"| `{name}` | `{baseline}` | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
