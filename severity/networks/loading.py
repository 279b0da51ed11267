"""From the memory map to the device: which images make up the batches of an epoch, and batches read ahead."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy
import torch

from severity.core.runs import Run, seed_for

# How many batches are read before they are asked for.
AHEAD = 2


@dataclass(frozen=True)
class Epoch:
    """The order of an epoch's images, and the random numbers that follow from it.

    `steps` holds, for each step of the optimiser, the batches whose gradients are summed: places among the training
    images. `generator` is a CPU generator; augmentation draws from it, batch after batch.
    """

    steps: list[list[numpy.ndarray]]
    generator: torch.Generator

    @property
    def batches(self) -> list[numpy.ndarray]:
        """All batches, in order."""
        return [batch for step in self.steps for batch in step]


def steps_in_epoch(images: int, *, batch_size: int, accumulate: int) -> int:
    """How often the optimiser steps in an epoch of this many images."""
    # Never so many that a batch has a single image: that would break batch normalisation.
    return max(1, min(-(-images // (batch_size * accumulate)), images // 2))


def epoch(run: Run, number: int, images: int, *, batch_size: int, accumulate: int) -> Epoch:
    """The batches of one epoch: a new order of all images, cut into batches of nearly equal size.

    Everything random in an epoch depends only on the run's name and the epoch's number, so that a resumed training
    continues as it would have. Torch's own random numbers, for dropout and the like, are seeded here as well.
    """
    seed = seed_for(run.name, "epoch", number)
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    order = torch.randperm(images, generator=generator).numpy()
    steps = numpy.array_split(order, steps_in_epoch(images, batch_size=batch_size, accumulate=accumulate))
    return Epoch([numpy.array_split(step, _parts(len(step), batch_size, accumulate)) for step in steps], generator)


def _parts(images: int, batch_size: int, accumulate: int) -> int:
    return max(1, min(accumulate, -(-images // batch_size), images // 2))


def read_ahead(
    arrays: Sequence[numpy.ndarray], picks: Sequence[Sequence[numpy.ndarray]], on: torch.device
) -> Iterator[tuple[torch.Tensor, ...]]:
    """Rows of arrays as tensors on the device, read by a thread while the batches before are worked on.

    The thread copies straight from the arrays, memory-mapped or not, into a few buffers that are used again and again
    (page-locked for a GPU, so that the copy there overlaps with the arithmetic).

    Args:
        arrays: A arrays that share nothing but being indexed by rows.
        picks: one entry a batch: A arrays of row numbers, one for each array.

    Yields:
        one tuple a batch: A tensors with the rows picked. On the CPU they are the buffers themselves: good until the
        next batch is asked for.

    Raises:
        IndexError: a row that is not there.
    """
    largest = [max((len(pick[place]) for pick in picks), default=0) for place in range(len(arrays))]
    buffers = [_Buffers(arrays, largest, on) for _ in range(AHEAD + 1)]
    with ThreadPoolExecutor(max_workers=1) as reader:
        waiting = deque(reader.submit(buffer.fill, pick) for buffer, pick in zip(buffers[:AHEAD], picks, strict=False))
        for number in range(len(picks)):
            if number + AHEAD < len(picks):
                waiting.append(reader.submit(buffers[(number + AHEAD) % len(buffers)].fill, picks[number + AHEAD]))
            yield waiting.popleft().result().on_device()


class _Buffers:
    """Room for one batch of each array."""

    def __init__(self, arrays: Sequence[numpy.ndarray], largest: Sequence[int], on: torch.device):
        self.arrays, self.on = arrays, on
        self.room = [
            torch.empty((size, *array.shape[1:]), dtype=_torch_type(array.dtype), pin_memory=on.type == "cuda")
            for array, size in zip(arrays, largest, strict=True)
        ]
        self.filled: list[torch.Tensor] = []
        self.copied = torch.cuda.Event() if on.type == "cuda" else None

    def fill(self, pick: Sequence[numpy.ndarray]) -> "_Buffers":
        if self.copied is not None:
            self.copied.synchronize()  # The copy of what was here before may still be under way.
        self.filled = [room[: len(rows)] for room, rows in zip(self.room, pick, strict=True)]
        for array, rows, part in zip(self.arrays, pick, self.filled, strict=True):
            if len(rows) and not (0 <= rows.min() and rows.max() < len(array)):
                raise IndexError(f"rows {rows.min()} to {rows.max()} of an array that has {len(array)}")
            # Any other mode than clip would copy twice; the rows were checked.
            numpy.take(array, rows, axis=0, out=part.numpy(), mode="clip")
        return self

    def on_device(self) -> tuple[torch.Tensor, ...]:
        if self.copied is None:
            return tuple(self.filled)
        moved = tuple(part.to(self.on, non_blocking=True) for part in self.filled)
        self.copied.record(torch.cuda.current_stream(self.on))
        return moved


def _torch_type(dtype: numpy.dtype) -> torch.dtype:
    return torch.from_numpy(numpy.empty(0, dtype)).dtype
