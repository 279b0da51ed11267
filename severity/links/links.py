"""Links: from raw logits to probabilities. A loss is a link that can also be trained."""

import torch

from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy

# Where a loss with parameters has them in the file of weights, beside the network's.
LOSS_PREFIX = "loss."


class Link(torch.nn.Module):
    """What every loss is: it states how many logits it wants and what they mean.

    Attributes:
        outputs: number of logits a network must give; features, for a loss with layers of its own.
        mixes: whether an image's loss depends on its own logits and targets alone, so that MixUp may weigh two targets.

    A subclass gives `posterior`, `marginal` and `per_image`. Calling the loss checks shapes, leaves out the images that
    carry no information for it and takes the mean over the others. Parameters of a loss are trained and saved with the
    network; what a loss computes from tree and cost is no parameter but a buffer with ``persistent=False``.
    """

    outputs: int
    mixes = True

    def __init__(self, hierarchy: Hierarchy):
        super().__init__()
        self.classes = hierarchy.classes

    def posterior(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, outputs) logits -> (B, K) distribution over classes; rows sum to one."""
        raise NotImplementedError

    def marginal(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, outputs) logits -> (B, K) probability of each label by itself, in [0, 1]."""
        raise NotImplementedError

    def per_image(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(B,) loss of each image, and (B,) bool: False where the targets say nothing for this loss."""
        raise NotImplementedError

    def observe(self, targets: torch.Tensor) -> None:
        """Called once before training with (N, K) targets, all of the training images: for weights that are counted."""

    def at_epoch(self, epoch: int, epochs: int) -> None:
        """Called before each of `epochs` epochs, the first of which is 0: for a loss that changes on the way.

        It must depend on its arguments alone, so that a resumed training goes on as it would have.
        """

    def forward(self, *, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Mean loss over the images that count.

        Args:
            logits: (B, outputs), raw.
            targets: (B, K) multi-hot; 1, 0, or NaN = masked; sigmoid losses also take values between.

        Returns:
            scalar; 0 with a zero gradient when no image of the batch counts.

        Raises:
            SeverityError: shapes do not fit.
        """
        counted, count = self._sums(logits, targets, None)
        return counted / count.clamp(min=1)

    def mixed(
        self, *, logits: torch.Tensor, targets: torch.Tensor, others: torch.Tensor, shares: torch.Tensor
    ) -> torch.Tensor:
        """Mean loss where an image has two targets, one with the share s, the other with 1 - s (MixUp).

        It is s times the loss for the one and 1 - s times that for the other; for a loss that is linear in its target,
        cross-entropy for one, that is the loss for the mixed target.

        Args:
            logits: (B, outputs), raw. targets, others: (B, K), as for `forward`. shares: (B,) in [0, 1].
        """
        first, first_count = self._sums(logits, targets, shares)
        second, second_count = self._sums(logits, others, 1 - shares)
        # With 1 in the place of what may be a fraction of an image, only a batch without any would differ.
        count = first_count + second_count
        return (first + second) / torch.where(count > 0, count, 1)

    def _sums(
        self, logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Weighted sum of the losses of the images that count, and of their weights."""
        if logits.shape != (len(targets), self.outputs) or targets.shape[1:] != (len(self.classes),):
            raise SeverityError(
                f"{type(self).__module__}: logits {tuple(logits.shape)} and targets {tuple(targets.shape)} do not fit; "
                f"they must be (B, {self.outputs}) and (B, {len(self.classes)})."
            )
        # Autocast would turn the sums over classes into half precision; a loss is cheap and stays in full.
        with torch.autocast(logits.device.type, enabled=False):
            full = logits if logits.dtype == torch.float64 else logits.float()
            losses, counts = self.per_image(full, targets.to(full.dtype))
            losses = torch.where(counts, losses, torch.zeros_like(losses))
            if weights is None:
                return losses.sum(), counts.sum()
            return (losses * weights).sum(), (counts * weights).sum()


class SoftmaxLink(Link):
    """One logit a class; posterior = marginal = softmax."""

    def __init__(self, hierarchy: Hierarchy):
        super().__init__(hierarchy)
        self.outputs = len(hierarchy.classes)

    def posterior(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.softmax(dim=1)

    def marginal(self, logits: torch.Tensor) -> torch.Tensor:
        return self.posterior(logits)


class SigmoidLink(Link):
    """One logit a class; marginal = sigmoid, posterior = marginal / sum of marginals."""

    def __init__(self, hierarchy: Hierarchy):
        super().__init__(hierarchy)
        self.outputs = len(hierarchy.classes)

    def posterior(self, logits: torch.Tensor) -> torch.Tensor:
        # The ratio in log space: it stays a distribution where every sigmoid underflows to 0.
        return torch.nn.functional.logsigmoid(logits).softmax(dim=1)

    def marginal(self, logits: torch.Tensor) -> torch.Tensor:
        return logits.sigmoid()
