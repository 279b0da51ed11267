"""Hierarchy-aware features: one classifier a level on a shared feature, each told to agree with the one below."""

import math

import numpy
import torch

from severity.core.hierarchy import Hierarchy
from severity.links.embeddings import normalized
from severity.links.links import SoftmaxLink
from severity.links.nodes import segment_log_sum_exp
from severity.links.targets import MostSpecific


class Loss(SoftmaxLink):
    """CE on the classes + over the coarser levels l: JSD of p^l + misalignment of W^l + margin of p^l.

    Garg, Sani and Anand, "Learning hierarchy aware features for reducing mistake severity", ECCV 2022. The network
    gives a feature f. Level l has the nodes at depth l; a leaf above stands for itself further down, so that the finest
    level is the classes. Its classifier W^l, with rows of length one and no bias, gives p^l = softmax(W^l f).

    - JSD: Jensen-Shannon divergence between p^l and p^(l+1) summed over children.
    - misalignment: 1 - mean over rows of the cosine between W^l and the sum over children of W^(l+1). The paper
      minimises the cosine's negative; the one more for each level keeps the loss from falling below 0.
    - margin: for image i the mean, over the images j of the batch whose true nodes at this level are all others than those
      of i, of max(0, margin - KL(p_i^l, m)) + max(0, margin - KL(p_j^l, m)), halved, with m = (p_i^l + p_j^l) / 2; 0 where
      there is no such j. So an image's loss depends on its batch. The divergence to the mixture is the authors' code's; it
      is at most log 2, so a margin of 3 never closes and the term always pushes apart.

    The posterior is that of the finest level. For several most specific positives cross-entropy takes the
    mean over them.

    Args:
        hierarchy: the label tree.
        cost: not used.
        features: how many the network gives; null is one a class.
        margin: 0 or more; 0 leaves the term out.
    """

    mixes = False

    def __init__(
        self,
        *,
        hierarchy: Hierarchy,
        cost: numpy.ndarray | None = None,
        features: int | None = None,
        margin: float = 3.0,
    ):
        super().__init__(hierarchy)
        self.outputs = features or len(hierarchy.classes)
        self.margin = margin
        self.most_specific = MostSpecific(hierarchy)
        levels = _levels(hierarchy)
        self.sizes = [len(nodes) for nodes, _ in levels]
        for level, (_, above) in enumerate(levels[1:]):
            self.register_buffer(f"above_{level}", torch.tensor(above), persistent=False)
        self.rows = torch.nn.ParameterList(torch.randn(size, self.outputs) for size in self.sizes)

    def _log_p(self, features: torch.Tensor, level: int) -> torch.Tensor:
        return (features @ normalized(self.rows[level].to(features.dtype)).T).log_softmax(dim=1)

    def class_logits(self, logits: torch.Tensor) -> torch.Tensor:
        return self._log_p(logits, -1)

    def per_image(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        truth, counts = self.most_specific(targets)
        truth = truth.to(logits.dtype)
        finer = self._log_p(logits, -1)
        total = -(truth * finer).sum(dim=1)
        for level in range(len(self.sizes) - 2, -1, -1):
            above, log_p = getattr(self, f"above_{level}"), self._log_p(logits, level)
            truth = truth.new_zeros(len(truth), self.sizes[level]).index_add(1, above, truth)
            total = total + _jensen_shannon(log_p, segment_log_sum_exp(finer, above, self.sizes[level]))
            total = total + self._misalignment(level, above, logits.dtype)
            if self.margin:
                total = total + _separation(log_p, truth, counts, self.margin)
            finer = log_p
        return total, counts

    def _misalignment(self, level: int, above: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        own, finer = (normalized(self.rows[each].to(dtype)) for each in (level, level + 1))
        children = torch.zeros_like(own).index_add(0, above, finer)
        return 1 - (own * normalized(children)).sum(dim=1).mean()


def _levels(hierarchy: Hierarchy) -> list[tuple[list[int], list[int]]]:
    """From the coarsest: the nodes of each level, and for each its place in the level before (empty at the coarsest)."""
    nodes = hierarchy.class_nodes.tolist()  # the finest level, in class order
    levels = []
    for depth in range(int(hierarchy.depth.max()) - 1, 0, -1):
        coarser = [int(hierarchy.parents[node]) if hierarchy.depth[node] > depth else node for node in nodes]
        places = list(dict.fromkeys(coarser))
        levels.append((nodes, [places.index(node) for node in coarser]))
        nodes = places
    return [(nodes, []), *reversed(levels)]


def _jensen_shannon(log_p: torch.Tensor, log_q: torch.Tensor) -> torch.Tensor:
    """(B,) divergence between the rows of two (B, m) log distributions."""
    log_mean = torch.logaddexp(log_p, log_q) - math.log(2)
    each = log_p.exp() * (log_p - log_mean) + log_q.exp() * (log_q - log_mean)
    return 0.5 * each.sum(dim=1)


def _separation(log_p: torch.Tensor, truth: torch.Tensor, counts: torch.Tensor, margin: float) -> torch.Tensor:
    """(B,) mean, over the images j whose true nodes are all others than those of i, of the hinge of both directions."""
    log_mixture = torch.logaddexp(log_p[:, None], log_p[None]) - math.log(2)  # (B, B, m)
    divergence = (log_p.exp()[:, None] * (log_p[:, None] - log_mixture)).sum(dim=2)  # KL(p_i, mixture of i and j)
    hinge = ((margin - divergence).clamp(min=0) + (margin - divergence.T).clamp(min=0)) / 2
    other = (truth @ truth.T == 0) & counts
    return torch.where(other, hinge, 0.0).sum(dim=1) / other.sum(dim=1).clamp(min=1)
