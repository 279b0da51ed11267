"""Hierarchy-based semantic embeddings: features turned towards a fixed vector of their class."""

import numpy
import torch

from severity.core.hierarchy import Hierarchy
from severity.links.embeddings import linear, normalized, similarities, unit_vectors
from severity.links.links import SoftmaxLink
from severity.links.targets import MostSpecific


class Loss(SoftmaxLink):
    """1 - cos(f, phi_y) + ce_weight x cross-entropy of a linear classifier of f, y the true class.

    Barz and Denzler, "Hierarchy-based image embeddings for semantic image retrieval", WACV 2019, equations 3 (the unit
    embeddings, phi_i . phi_j = 1 - C[i, j] / max C), 5 and 6. What the network gives is the feature f, K numbers. The
    classifier is the loss's own, sees f without normalisation, and gives the posterior. It starts at the
    embeddings, as the rule of the nearest one, so that it need not catch up. For several most specific positives: the
    mean over them.

    Args:
        hierarchy: the label tree; it only decides which positives are most specific.
        cost: (K, K), symmetric, such that 1 - C / max C is positive semi-definite; every ultrametric cost is.
        ce_weight: above 0: without it nothing scales the posterior.

    Raises:
        SeverityError: ce_weight is not above 0, or no embeddings have these costs.
    """

    def __init__(self, *, hierarchy: Hierarchy, cost: numpy.ndarray, ce_weight: float = 0.1):
        super().__init__(hierarchy)
        self.ce_weight = ce_weight
        self.most_specific = MostSpecific(hierarchy)
        embeddings = torch.from_numpy(unit_vectors(similarities(cost), "losses.barz_denzler"))
        self.register_buffer("embeddings", embeddings, persistent=False)  # (K, K), row k: phi_k
        self.classifier = torch.nn.Linear(self.outputs, self.outputs)
        with torch.no_grad():
            self.classifier.weight.copy_(embeddings)
            self.classifier.bias.zero_()

    def class_logits(self, logits: torch.Tensor) -> torch.Tensor:
        return linear(self.classifier, logits)

    def per_image(self, logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        truth, counts = self.most_specific(targets)
        truth = truth.to(logits.dtype)
        cosine = (normalized(logits) * (truth @ self.embeddings.to(logits.dtype))).sum(dim=1)
        cross_entropy = -(truth * self.log_posterior(logits)).sum(dim=1)
        return 1 - cosine + self.ce_weight * cross_entropy, counts
