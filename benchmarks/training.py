"""What training costs beside its arithmetic: reading, augmentation, starting; ratios within one run.

Run     python -m benchmarks.training [--threads N] [--repeats 7]     two minutes
Prints  three Markdown tables: the real loop against one resident batch; reading and augmentation against the usual chain
        image by image; the fixed cost of a run
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy
import torch
import torchvision
import yaml
from PIL import Image
from tqdm import tqdm

from benchmarks.losses import chexpert
from severity import losses
from severity.core import commands, runs
from severity.networks import backbones, inference, loading
from severity.networks.images import Augmentation, scaled
from severity.training import training
from severity.training.optimisation import Optimiser, Schedule
from severity.tree import costs

TOP = Path(__file__).resolve().parent.parent
SETTINGS = yaml.safe_load((TOP / "params.yaml").read_text())["train"]
SMALL = ("test_resnet", "mobilenetv3_small_050")
# The forms in which radiographs are handed out: width and height, file type, how many are read one by one.
FORMS = {
    "CheXpert-small": ((390, 320), "jpg", 128),
    "ChestX-ray14": ((1024, 1024), "png", 24),
    "CheXpert": ((2828, 2320), "jpg", 12),
}


def mapped(folder: Path, images: int, size: int) -> numpy.ndarray:
    """(images, size, size) random grey levels, memory-mapped as prepared images are."""
    random = numpy.random.default_rng(0)
    path = folder / f"{images}x{size}.npy"
    array = numpy.lib.format.open_memmap(path, "w+", numpy.uint8, (images, size, size))
    block = random.integers(0, 256, (min(images, 2048), size, size), dtype=numpy.uint8)
    for start in range(0, images, len(block)):
        array[start : start + len(block)] = block[: images - start]
    array.flush()
    return numpy.load(path, mmap_mode="r")


def engine(model: str, *, batch_size: int, precision: str, on: torch.device, compile: bool) -> training.Engine:
    """As `severity.training.training.fit` makes it for the default study's loss bce on 14 labels."""
    tree = chexpert()
    torch.manual_seed(0)
    loss = losses.build("bce", hierarchy=tree, cost=costs.lca_height(tree)).to(on)
    network = inference.placed(backbones.build(model=model, pretrained=False, outputs=loss.outputs), on)
    trained = torch.nn.ModuleDict({"network": network, "loss": loss})
    optimiser = Optimiser(
        trained, Schedule(1e-3, 0, 10**9), weight_decay=SETTINGS["weight_decay"], layer_decay=1.0,
        gradient_clip=SETTINGS["gradient_clip"],
    )  # fmt: skip
    return training.Engine(
        runs.Run(model, "bce", 0), on, trained, inference.compiled(network, on) if compile else network, optimiser,
        None, Augmentation(**SETTINGS["augmentation"]), batch_size, 1, 0.0, precision,
    )  # fmt: skip


def real(made: training.Engine, images: numpy.ndarray, batches: int) -> Callable[[int], None]:
    """`batches` steps of the real loop on images anywhere in the map; the argument numbers the epoch."""
    random = numpy.random.default_rng(0)
    rows = random.permutation(len(images))[: batches * made.batch_size]
    targets = random.integers(0, 2, (len(rows), 14)).astype(numpy.float32)
    split = training.Split(rows, targets)

    def run(epoch: int) -> None:
        made.trained["network"].train()
        training.train_epoch(made, images, split, epoch=epoch, progress=tqdm(disable=True))

    return run


def resident(made: training.Engine, size: int, batches: int) -> Callable[[int], None]:
    """The same number of steps on one random batch that lies on the device: the arithmetic alone."""
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(made.batch_size, 1, size, size, generator=generator).to(made.on)
    targets = torch.randint(2, (made.batch_size, 14), generator=generator).float().to(made.on)

    def run(_: int) -> None:
        made.trained["network"].train()
        for step in range(batches):
            training.gradient(made, inputs, targets, generator, 1)
            made.optimiser.step(step)

    return run


def compared(first: Callable[[int], None], second: Callable[[int], None], repeats: int, on: torch.device):
    """Median seconds of each, and the median of their ratios second / first, by the clock and by the processor.

    They take turns, warm-up left out. Others on the machine add to the clock's seconds and not to the processor's, which
    say nothing of a GPU.
    """
    taken = []
    for repeat in range(repeats + 1):
        seconds = []
        for run in (first, second):
            start = time.perf_counter(), time.process_time()
            run(repeat)
            if on.type == "cuda":
                torch.cuda.synchronize()
            seconds.append((time.perf_counter() - start[0], time.process_time() - start[1]))
        taken.append(seconds)
    found = []
    for clock in (0, 1):
        columns = [[turn[each][clock] for turn in taken[1:]] for each in (0, 1)]
        ratio = statistics.median(after / before for before, after in zip(*columns, strict=True))
        found.append((*(statistics.median(column) for column in columns), ratio))
    return found


def efficiency(folder: Path, repeats: int, size: int = 64, batches: int = 12) -> str:
    """Images a second of the real loop over those of the arithmetic alone."""
    on, images = torch.device("cpu"), mapped(folder, 4096, size)
    lines = [
        f"| Backbone, {size} px | real loop, images a second | resident batch | ratio | ratio of processor time |",
        "|---|---:|---:|---:|---:|",
    ]
    for model in SMALL:
        made = engine(model, batch_size=SETTINGS["batch_size"], precision="float32", on=on, compile=False)
        (loop, alone, ratio), (*_, spent) = compared(
            real(made, images, batches), resident(made, size, batches), repeats, on
        )
        count = batches * made.batch_size
        lines.append(f"| `{model}` | {count / loop:,.0f} | {count / alone:,.0f} | {ratio:.2f} | {spent:.2f} |")
    return "\n".join(lines)


def per_second(work: dict[str, Callable[[], int]], repeats: int) -> dict[str, list[float]]:
    """Images a second of processor time, which does not count others' work, of every run in every round.

    They take turns, warm-up left out; each returns how many images it has done.
    """
    rates = {name: [] for name in work}
    for _ in range(repeats + 1):
        for name, run in work.items():
            start = time.process_time()
            count = run()
            rates[name].append(count / (time.process_time() - start))
    return {name: each[1:] for name, each in rates.items()}


def files(folder: Path, form: str) -> list[Path]:
    """Smooth grey pictures with grain, about as large as the form's radiographs."""
    random = numpy.random.default_rng(0)
    size, ending, count = FORMS[form]
    paths = []
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (16, 16), dtype=numpy.uint8))
        levels = numpy.asarray(coarse.resize(size, Image.Resampling.BICUBIC)) + random.normal(0, 6, size[::-1])
        paths.append(folder / f"{form}-{number}.{ending}")
        Image.fromarray(levels.clip(0, 255).astype(numpy.uint8)).save(paths[-1], quality=85)
    return paths


def image_by_image(paths: list[Path], size: int, mode: str) -> Callable[[], int]:
    """Open, resize, mirror, jitter, to tensor, normalise: the chain that a data set of files usually runs for each image.

    `mode` is Pillow's: L, one channel as ours, or RGB, the three of pretrained networks.
    """
    transforms = torchvision.transforms
    chain = transforms.Compose(
        [
            transforms.Resize((size, size)),
            transforms.RandomHorizontalFlip(),
            transforms.ColorJitter(brightness=0.1, contrast=0.15),
            transforms.ToTensor(),
            transforms.Normalize((0.449,) * len(mode), (0.226,) * len(mode)),
        ]
    )

    def run() -> int:
        tensors = []
        for path in paths:
            with Image.open(path) as image:
                tensors.append(chain(image.convert(mode)))
        torch.stack(tensors)
        return len(paths)

    return run


def from_map(images: numpy.ndarray, work: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[], int]:
    """Random batches out of the map, `work` done on each."""
    random = numpy.random.default_rng(0)

    def run() -> int:
        picks = [(random.integers(0, len(images), SETTINGS["batch_size"]),) for _ in range(16)]
        for (block,) in loading.read_ahead((images,), picks, torch.device("cpu")):
            work(block)
        return len(picks) * SETTINGS["batch_size"]

    return run


def inputs(folder: Path, repeats: int, size: int = 224) -> str:
    """Images a second before any network, against the chain image by image."""
    images, generator = mapped(folder, 4096, size), torch.Generator().manual_seed(0)
    none = dict.fromkeys(SETTINGS["augmentation"], 0.0)
    geometry = {name: SETTINGS["augmentation"][name] for name in ("rotation", "translation", "scale")}
    exposure = {name: SETTINGS["augmentation"][name] for name in ("brightness", "contrast")}
    steps = {
        "read": lambda block: block,
        "read, to floats": scaled,
        "read, mirrored, exposure (what the chain does)": exposure | {"flip": 0.5},
        "read, exposure": exposure,
        "read, geometry": geometry,
        "read, geometry, exposure (the default)": geometry | exposure,
    }
    work = {(form, mode): image_by_image(files(folder, form), size, mode) for form in FORMS for mode in ("RGB", "L")}
    for name, step in steps.items():
        if isinstance(step, dict):
            augment = Augmentation(**{**none, **step})
            step = lambda block, augment=augment: augment(block, generator)  # noqa: E731
        work[name] = from_map(images, step)
    rates = per_second(work, repeats)

    def ratio(name: str, form: str, mode: str) -> str:
        return f"{statistics.median(a / b for a, b in zip(rates[name], rates[form, mode], strict=True)):.0f}"

    lines = [f"| {size} px | images a second of one core | " + " | ".join(f"against {form}" for form in FORMS) + " |"]
    lines.append("|---|---:|" + "---:|" * len(FORMS))
    for mode, name in {"RGB": "RGB", "L": "grey"}.items():
        each = " / ".join(f"{statistics.median(rates[form, mode]):,.0f}" for form in FORMS)
        lines.append(f"| image by image, {name} | {each} | " + "1 | " * len(FORMS))
    for name in steps:
        ratios = [f"{ratio(name, form, 'RGB')} / {ratio(name, form, 'L')}" for form in FORMS]
        lines.append(f"| {name} | {statistics.median(rates[name]):,.0f} | {' | '.join(ratios)} |")
    return "\n".join(lines)


STARTING = """
import json, time
marks = {"start": (time.perf_counter(), time.process_time())}
def mark(name): marks[name] = (time.perf_counter(), time.process_time())
import torch
mark("import torch")
import torch._dynamo, torchvision, timm, timm.optim, timm.utils
mark("import torchvision, timm")
import pandas, sklearn.metrics
mark("import pandas, scikit-learn")
import stages.train
stages.train.runs.keep_memory()
mark("import the stage")
from benchmarks import training as benchmark
made = benchmark.engine("test_resnet", batch_size=64, precision="float32", on=torch.device("cpu"), compile=False)
mark("build network, loss, optimiser")
benchmark.resident(made, 64, 1)(0)
mark("first step")
print(json.dumps(marks))
"""


def start_up(repeats: int) -> str:
    """Seconds from the start of a process to the end of its first step, part by part."""
    taken = []
    for _ in range(repeats):
        found = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", STARTING], capture_output=True, text=True, check=True, cwd=TOP
        )
        marks = json.loads(found.stdout)
        names = list(marks)
        taken.append(
            {
                name: [after - before for before, after in zip(marks[last], marks[name], strict=True)]
                for last, name in zip(names, names[1:], strict=False)
            }
        )
    lines = ["| Fixed cost of a run | seconds | of a processor |", "|---|---:|---:|"]
    sums = [0.0, 0.0]
    for name in taken[0]:
        middle = [statistics.median(each[name][kind] for each in taken) for kind in (0, 1)]
        sums = [total + value for total, value in zip(sums, middle, strict=True)]
        lines.append(f"| {name} | {middle[0]:.2f} | {middle[1]:.2f} |")
    return "\n".join([*lines, f"| all | {sums[0]:.2f} | {sums[1]:.2f} |"])


def main() -> None:
    parser = commands.parser(__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    runs.keep_memory()  # as the stage does
    print(f"torch {torch.__version__}, {options.threads} CPU threads, medians of {options.repeats}.\n")
    with tempfile.TemporaryDirectory() as folder:
        print(efficiency(Path(folder), options.repeats), "\n")
        torch.set_num_threads(1)  # a core against a core: the chain image by image has one
        print(inputs(Path(folder), options.repeats), "\n")
    print(start_up(min(options.repeats, 3)))


if __name__ == "__main__":
    main()
