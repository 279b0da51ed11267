"""The processes that train or predict together, one device each; a single process communicates with nobody."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed

Value = TypeVar("Value")


@dataclass(frozen=True)
class Group:
    """One of `size` processes, the `rank`-th of all and the `local`-th on its machine.

    All of them do the same with the same numbers; only the images of a batch are divided among them.
    `severity.networks.processes` starts them and brings them together.
    """

    rank: int = 0
    size: int = 1
    local: int = 0

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, and reports."""
        return self.rank == 0

    def share(self, images: int, rank: int | None = None) -> slice:
        """Which of this many images are this process's (or another's): in order, and shares differ by at most one."""
        rank = self.rank if rank is None else rank
        return slice(images * rank // self.size, images * (rank + 1) // self.size)

    def gathered(self, own: torch.Tensor, images: int) -> torch.Tensor:
        """What every process has of its share of `images`, (own, ...), joined in order: (images, ...).

        A gradient flows back to this process's own rows. So if all of them compute the same loss of what is gathered,
        the gradients of their weights add up to that of one process. Half precision becomes float32.
        """
        if self.size == 1:
            return own
        own = own.float() if own.dtype in (torch.bfloat16, torch.float16) else own
        padded = own.new_zeros(-(-images // self.size), *own.shape[1:])
        padded[: len(own)] = own.detach()
        everyone = [torch.empty_like(padded) for _ in range(self.size)]
        torch.distributed.all_gather(everyone, padded)
        shares = [self.share(images, rank) for rank in range(self.size)]
        parts = [each[: share.stop - share.start] for each, share in zip(everyone, shares, strict=True)]
        parts[self.rank] = own
        return torch.cat(parts)

    def agreed(self, value: Value) -> Value:
        """The first process's value, for all of them; of plain values and tensors on the CPU."""
        if self.size == 1:
            return value
        values = [value]
        torch.distributed.broadcast_object_list(values, src=0)
        return values[0]

    def sum_gradients(self, trained: torch.nn.ModuleDict) -> None:
        """Add up the network's gradients over all processes; the loss's own, which all have whole, stay as they are.

        One message for all weights, once a step: torch's DistributedDataParallel would send while it still computes,
        but knows neither weights that are frozen for some epochs nor those that only the loss has.
        """
        if self.size == 1:
            return
        partial = [value.grad for value in trained["network"].parameters() if value.grad is not None]
        whole = [value.grad for value in trained["loss"].parameters() if value.grad is not None]
        # Sums in another order on another device could let the copies of the loss drift apart.
        for value in whole:
            value.div_(self.size)
        self._sum([*partial, *whole])

    def average_buffers(self, module: torch.nn.Module) -> None:
        """Give all processes the mean of their buffers: the running statistics of batch norms, which differ."""
        if self.size == 1:
            return
        floats = [value for value in module.buffers() if value.is_floating_point()]
        # In double precision the mean of equal numbers is that number.
        doubles = [value.double() for value in floats]
        self._sum(doubles)
        for value, double in zip(floats, doubles, strict=True):
            value.copy_(double / self.size)

    def _sum(self, tensors: Iterable[torch.Tensor]) -> None:
        """Replace tensors, of one type, by their sums over all processes."""
        tensors = list(tensors)
        if not tensors:
            return
        flat = torch.cat([each.reshape(-1) for each in tensors])
        torch.distributed.all_reduce(flat)
        for each, summed in zip(tensors, flat.split([each.numel() for each in tensors]), strict=True):
            each.copy_(summed.view(each.shape))
