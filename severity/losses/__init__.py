"""One file a loss; the file's name is the loss's name in params.yaml, and each file has one class, `Loss`."""

import importlib
import pkgutil
from typing import Any

import numpy

from severity.core import params as parameters
from severity.core.errors import SeverityError, nearest
from severity.core.hierarchy import Hierarchy
from severity.links.links import Link


def names() -> list[str]:
    """The names of all losses: the files of this folder."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def build(name: str, *, hierarchy: Hierarchy, cost: numpy.ndarray, **params: Any) -> Link:
    """Build a loss by name.

    Args:
        name: a file of this folder, without ``.py``.
        hierarchy: the label tree of the K classes.
        cost: (K, K) cost[decision, truth], for the losses that aim at a cost.
        params: the loss's own numbers, ``losses.<name>`` in params.yaml.

    Returns:
        a module with ``outputs``, ``posterior(logits)``, ``marginal(logits)``, called as
        ``loss(logits=..., targets=...)``.

    Raises:
        SeverityError: an unknown loss, or a number that it does not know or lacks.
    """
    if name not in names():
        raise SeverityError(f"Unknown loss {name!r}: there is no severity/losses/{name}.py. {nearest(name, names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    return parameters.call(module.Loss, values=params, where=f"losses.{name}", hierarchy=hierarchy, cost=cost)
