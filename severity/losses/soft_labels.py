"""Soft labels: the target mass is spread over the classes, the more the less a confusion with them costs."""

import numpy
import torch

from severity.core.hierarchy import Hierarchy
from severity.links.links import SoftmaxLink
from severity.links.targets import MostSpecific


class Loss(SoftmaxLink):
    """Divergence of p = softmax(z) from q_y(j) = exp(-beta C[j, y] / max C) / normaliser, y the true class.

    Bertinetto et al., "Making better mistakes: leveraging class hierarchies with deep networks", CVPR 2020, equation 6.
    The mean over the images of a batch; their code divides by the number of classes as well. As beta grows q_y becomes
    one-hot and the loss cross-entropy. For several most specific positives: the mean of their divergences.

    Args:
        hierarchy: the label tree; it only decides which positives are most specific.
        cost: (K, K) cost[decision, truth].
        beta: how fast a label's share falls with its cost, 0 or more.
        divergence: ``kl``, KL(q, p), which is 0 when p = q, or ``cross_entropy``, -sum_j q_j log p_j, which is larger
            by the entropy of q; their gradients are equal.

    Raises:
        SeverityError: beta is negative or not finite, an unknown divergence.
    """

    def __init__(self, *, hierarchy: Hierarchy, cost: numpy.ndarray, beta: float = 10.0, divergence: str = "kl"):
        super().__init__(hierarchy)
        log_q = (torch.from_numpy(-beta * cost / cost.max()).double().T).log_softmax(dim=1)  # row y: log q_y
        entropy = -(log_q.exp() * log_q).sum(dim=1)
        self.most_specific = MostSpecific(hierarchy)
        self.register_buffer("soft", log_q.exp(), persistent=False)
        self.register_buffer("offset", entropy if divergence == "kl" else 0 * entropy, persistent=False)

    def per_image(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        truth, counts = self.most_specific(targets)
        truth = truth.to(logits.dtype)
        cross_entropy = -((truth @ self.soft.to(logits.dtype)) * logits.log_softmax(dim=1)).sum(dim=1)
        return cross_entropy - truth @ self.offset.to(logits.dtype), counts
