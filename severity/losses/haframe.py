"""Hierarchy-aware frame: a fixed classifier whose class vectors stand to each other as the costs say."""

import math

import numpy
import torch

from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.links.embeddings import linear, normalized, unit_vectors
from severity.links.links import SoftmaxLink
from severity.links.targets import MostSpecific


class Loss(SoftmaxLink):
    """(1 - a) CE(W h) + a sum_c (cos(w_c, h) - S[y, c])^2, y the true class, w_c the rows of a fixed W with W W' = S.

    Liang and Davis, "Inducing neural collapse to a fixed hierarchy-aware frame for reducing mistake severity", ICCV
    2023. S[i, j] = (1 - s) exp(-gamma C[i, j] / max C) + s, s the most negative number from -1 on that keeps S positive
    semi-definite (see `similarity`). The network gives features f; h = A PReLU(f) + b, the one more layer, is learnt
    with the loss. For several most specific positives: the mean over them.

    Args:
        hierarchy: the label tree; it only decides which positives are most specific.
        cost: (K, K), symmetric.
        features: how many the network gives; null is one a class. With fewer h cannot reach every frame vector.
        gamma: how fast similarity falls with cost, above 0.
        alignment: the share a of the second term, from 0 to 1.

    Raises:
        SeverityError: no frame has these similarities.
    """

    def __init__(
        self,
        *,
        hierarchy: Hierarchy,
        cost: numpy.ndarray,
        features: int | None = None,
        gamma: float = 3.0,
        alignment: float = 0.5,
    ):
        super().__init__(hierarchy)
        where = "losses.haframe"
        classes = len(hierarchy.classes)
        self.outputs = features or classes
        self.alignment = alignment
        self.most_specific = MostSpecific(hierarchy)
        wanted = similarity(cost, gamma)
        self.register_buffer("similarity", torch.from_numpy(wanted), persistent=False)
        self.register_buffer("frame", torch.from_numpy(unit_vectors(wanted, where)), persistent=False)
        self.slope = torch.nn.Parameter(torch.tensor([0.25]))
        self.layer = torch.nn.Linear(self.outputs, classes)

    def _hidden(self, features: torch.Tensor) -> torch.Tensor:
        return linear(self.layer, torch.nn.functional.prelu(features, self.slope.to(features.dtype)))

    def class_logits(self, logits: torch.Tensor) -> torch.Tensor:
        return self._hidden(logits) @ self.frame.to(logits.dtype)

    def per_image(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        truth, counts = self.most_specific(targets)
        truth, similarity = truth.to(logits.dtype), self.similarity.to(logits.dtype)
        frame, hidden = self.frame.to(logits.dtype), self._hidden(logits)
        cross_entropy = -(truth * (hidden @ frame).log_softmax(dim=1)).sum(dim=1)
        # The mean of squared distances to several rows of S is the one to their mean, plus their spread about it.
        mean = truth @ similarity
        spread = truth @ similarity.square().sum(dim=1) - mean.square().sum(dim=1)
        distance = (normalized(hidden) @ frame - mean).square().sum(dim=1) + spread.clamp(min=0)
        return (1 - self.alignment) * cross_entropy + self.alignment * distance, counts


def similarity(cost: numpy.ndarray, gamma: float) -> numpy.ndarray:
    """(K, K) S = (1 - s) E + s with E = exp(-gamma cost / largest cost), s as negative as it may be, but not below -1.

    For negative s, S is positive semi-definite as long as 1' E^-1 1 <= (1 - s) / -s, so s is found without a search.
    With all costs equal and gamma large, E is the identity and s = -1 / (K - 1): the simplex.

    Raises:
        SeverityError: E is not positive definite, so that no s will do.
    """
    decay = numpy.exp(-gamma * cost / cost.max())
    if not numpy.allclose(decay, decay.T) or numpy.linalg.eigvalsh(decay)[0] <= 0:
        raise SeverityError(
            "losses.haframe: exp(-gamma C / max C) is not symmetric and positive definite, so no frame has these "
            "similarities. An ultrametric cost such as lca_height always works."
        )
    magnitude = math.fsum(numpy.linalg.solve(decay, numpy.ones(len(decay))))
    lowest = -1 / max(magnitude - 1, 1)
    return (1 - lowest) * decay + lowest
