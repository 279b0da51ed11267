"""What losses with weights of their own share: unit vectors for classes, and layers in the precision of their input."""

import numpy
import torch

from severity.core.errors import SeverityError

# Eigenvalues above minus this count as zero: rounding makes them of zeros.
TOLERANCE = 1e-9
# Below this length a vector has no direction, and its gradient is bounded.
SHORTEST = 1e-6


def unit_vectors(similarity: numpy.ndarray, where: str) -> numpy.ndarray:
    """(K, K) rows whose inner products are `similarity`, which has ones on its diagonal.

    The symmetric square root, from the eigendecomposition: of all such sets of vectors, which differ by a rotation, the
    one that does not depend on the order or sign of eigenvectors, so that every machine finds the same.

    Raises:
        SeverityError: the matrix is not symmetric, or not positive semi-definite: no vectors have these products.
    """
    if not numpy.allclose(similarity, similarity.T):
        raise SeverityError(f"{where}: the costs are not symmetric, so no vectors have them as distances. {MEND}")
    values, vectors = numpy.linalg.eigh(similarity)
    if values[0] < -TOLERANCE * len(values):
        raise SeverityError(
            f"{where}: no vectors have these costs as distances: the matrix of their inner products has the negative "
            f"eigenvalue {values[0]:.3g}. {MEND}"
        )
    return (vectors * numpy.sqrt(values.clip(min=0))) @ vectors.T


MEND = "An ultrametric cost such as lca_height always works."


def similarities(cost: numpy.ndarray) -> numpy.ndarray:
    """(K, K) 1 - cost / largest cost: 1 on the diagonal, 0 for the worst confusion."""
    return 1 - cost / cost.max()


def normalized(vectors: torch.Tensor) -> torch.Tensor:
    """(..., D) vectors of length one in the same directions; a zero vector stays zero and has a finite gradient."""
    return vectors / (vectors.square().sum(dim=-1, keepdim=True) + SHORTEST**2).sqrt()


def linear(layer: torch.nn.Linear, features: torch.Tensor) -> torch.Tensor:
    """The layer's output in the precision of its input, whatever that of its weights."""
    return torch.nn.functional.linear(features, layer.weight.to(features.dtype), layer.bias.to(features.dtype))
