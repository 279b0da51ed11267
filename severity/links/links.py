"""Links: from raw logits to probabilities. A loss is a link that can also be trained."""

import numpy
import torch

from severity.arrays import tree_model
from severity.arrays.tree_model import Backend
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy

# Where a loss with parameters has them in the file of weights, beside the network's.
LOSS_PREFIX = "loss."
TORCH = Backend(
    log_sigmoid=torch.nn.functional.logsigmoid,
    exp=torch.exp,
    expm1=torch.expm1,
    log=torch.log,
    maximum=torch.maximum,
    logaddexp=torch.logaddexp,
    logsumexp=lambda values: values.logsumexp(dim=0),
    like=lambda numbers, other: torch.from_numpy(numbers).to(other),
)


class Link(torch.nn.Module):
    """What every loss is: it states how many logits it wants and what they mean.

    Attributes:
        outputs: number of logits a network must give; features, for a loss with layers of its own.
        mixes: whether an image's loss depends on its own logits and targets alone, so that MixUp may weigh two targets.

    A subclass gives `log_posterior`, `node_logits` and `per_image`. Calling the loss checks shapes, leaves out the images that
    carry no information for it and takes the mean over the others. Parameters of a loss are trained and saved with the
    network; what a loss computes from tree and cost is no parameter but a buffer with ``persistent=False``.
    """

    outputs: int
    mixes = True

    def __init__(self, hierarchy: Hierarchy):
        super().__init__()
        self.hierarchy = hierarchy
        self.classes = hierarchy.classes

    def log_posterior(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, outputs) logits -> (B, K) natural logarithm of `posterior`, finite."""
        raise NotImplementedError

    def node_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, outputs) logits -> (B, n) log-odds of `nodes`; infinite where a node is certain, as a root without a label."""
        raise NotImplementedError

    def posterior(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, outputs) logits -> (B, K) share of the most specific truth that each class has; rows sum to one."""
        return self.log_posterior(self._full(logits)).exp()

    def nodes(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, outputs) logits -> (B, n) probability that each node of the tree is present, never rising downward.

        A softmax gives shares: where several labels may be true of an image they are no probabilities of presence.
        """
        return self.node_logits(self._full(logits)).sigmoid()

    def _full(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits of the right shape, at least in float32: half precision has no room for what tells labels apart."""
        if logits.ndim != 2 or logits.shape[1] != self.outputs:
            raise SeverityError(
                f"{type(self).__module__}: logits has the shape {tuple(logits.shape)}; it must be (B, {self.outputs})."
            )
        return logits if logits.dtype == torch.float64 else logits.float()

    def label_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, outputs) logits -> (B, K) log-odds that each label is present: those of the node that it stands for."""
        return self.node_logits(logits)[:, self.hierarchy.stands_for.tolist()]

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
    """Classes that exclude one another: posterior = softmax of one number a class; a node has the sum of those below it."""

    def __init__(self, hierarchy: Hierarchy):
        super().__init__(hierarchy)
        self.outputs = len(hierarchy.classes)

    def class_logits(self, logits: torch.Tensor) -> torch.Tensor:
        """(B, outputs) logits -> (B, K) numbers whose softmax is the posterior: the logits themselves."""
        return logits

    def log_posterior(self, logits: torch.Tensor) -> torch.Tensor:
        return self.class_logits(logits).log_softmax(dim=1)

    def node_logits(self, logits: torch.Tensor) -> torch.Tensor:
        scores = self.class_logits(logits).unbind(dim=1)
        return stacked(tree_model.from_classes(scores, self.hierarchy, TORCH))


class PresenceLink(Link):
    """Labels that may be present together: a probability of presence for every node, and the posterior that follows.

    A subclass gives `columns`.
    """

    def columns(self, logits: torch.Tensor) -> list[torch.Tensor | None]:
        """(B, outputs) logits -> the log-odds of each of the n nodes, (B,); None for one that is certain."""
        raise NotImplementedError

    def node_logits(self, logits: torch.Tensor) -> torch.Tensor:
        return stacked(self.columns(logits))

    def log_posterior(self, logits: torch.Tensor) -> torch.Tensor:
        return torch.stack(tree_model.log_posterior(self.columns(logits), self.hierarchy, TORCH), dim=1)


class SigmoidLink(PresenceLink):
    """One logit a label, that of its presence: a label's node is raised to its largest child, a group takes that alone."""

    def __init__(self, hierarchy: Hierarchy):
        super().__init__(hierarchy)
        self.outputs = len(hierarchy.classes)

    def columns(self, logits: torch.Tensor) -> list[torch.Tensor | None]:
        return tree_model.from_labels(logits.unbind(dim=1), self.hierarchy, TORCH)


def stacked(columns: list[torch.Tensor | None]) -> torch.Tensor:
    """(B, n) of the log-odds of n nodes, (B,) each; infinite for one that is certain (None)."""
    like = next(column for column in columns if column is not None)
    certain = torch.full_like(like, numpy.inf)
    return torch.stack([certain if column is None else column for column in columns], dim=1)
