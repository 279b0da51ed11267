"""Running a network over images, in order, without any random transform."""

import os
import warnings
from collections.abc import Callable

import numpy
import torch
from tqdm import tqdm

from severity.core.errors import SeverityError
from severity.networks import loading
from severity.networks.group import Group
from severity.networks.images import scaled


def device(name: str, group: Group | None = None) -> torch.device:
    """The device that params name: ``auto`` takes a GPU when there is one. Raises SeverityError when it is not there.

    With a group of several processes, this process's own among the visible GPUs, which becomes torch's current one.
    """
    on = _named(name)
    if group is None or group.size == 1 or on.type == "cpu":
        return on
    visible = torch.cuda.device_count()
    # Slurm may show each process only its own GPU, or show all to all.
    number = 0 if visible == 1 else group.local
    if on.index is not None or number >= visible:
        raise SeverityError(
            f"params.yaml: {group.size} processes need a GPU each, but the device is {name} and process "
            f"{group.local + 1} of this machine sees {visible}. Set device to auto and start no more processes than "
            "there are GPUs."
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def _named(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name.startswith("cuda") and not torch.cuda.is_available():
        raise SeverityError(
            f"params.yaml: machine.device is {name!r}, but no GPU is usable here. Set it to auto or cpu."
        )
    return torch.device(name)


def deterministic(seed: int, threads: int = 1) -> None:
    """Seed torch and ask for kernels that give the same bytes every time on the same machine.

    Threads of a CPU share a sum, so its last digits depend on their number: it is `threads`, however many cores there are.
    """
    torch.manual_seed(seed)
    torch.set_num_threads(threads)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS repeats its sums only with a fixed workspace.
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.backends.cudnn.benchmark = False


def placed(network: torch.nn.Module, on: torch.device) -> torch.nn.Module:
    """The network on the device, its convolutions laid out channels-last, which is faster on CPU and GPU alike."""
    return network.to(on, memory_format=torch.channels_last)


def compiled(network: torch.nn.Module, on: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
    """torch.compile of the network, which shares its weights; where that fails, a warning and the network itself.

    Compiling waits for the first batch, so a failure shows up there.
    """
    chosen = torch.compile(network)

    def forward(images: torch.Tensor) -> torch.Tensor:
        nonlocal chosen
        try:
            return chosen(images)
        except Exception as error:  # Compilers fail in as many ways as there are compilers.
            if chosen is network:
                raise
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            warnings.warn(f"torch.compile fails on {on} ({reason}); going on without it.", stacklevel=2)
            chosen = network
            return network(images)

    return forward


@torch.inference_mode()
def logits(
    network: torch.nn.Module,
    images: numpy.ndarray,
    rows: numpy.ndarray,
    *,
    batch_size: int,
    on: torch.device,
    description: str | None = None,
    group: Group | None = None,
) -> torch.Tensor:
    """Raw logits of the given rows of (N, H, W) uint8 images, (len(rows), outputs) float32 on the CPU, in order.

    `description` names the progress bar; without one there is none. The processes of a `group` divide the rows among
    them, and each gets all logits.
    """
    group = group or Group()
    network.eval()
    own = rows[group.share(len(rows))]
    # One row at least is run: only the network knows how many logits it gives.
    run = own if len(own) else rows[:1]
    picks = [(run[start : start + batch_size],) for start in range(0, len(run), batch_size)]
    batches = loading.read_ahead((images,), picks, on)
    if description:
        hidden = None if group.first else True
        batches = tqdm(batches, total=len(picks), desc=description, unit="batch", disable=hidden)
    own_logits = torch.cat([network(scaled(block)).float().cpu() for (block,) in batches])
    return group.gathered(own_logits[: len(own)], len(rows))
