"""One file a loss; the file's name is the loss's name in params.yaml, and each file has one class, `Loss`."""

import importlib
import inspect
import pkgutil
from typing import Any

import numpy

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
        a module with ``outputs``, ``posterior(logits)``, ``nodes(logits)``, called as
        ``loss(logits=..., targets=...)``.

    Raises:
        SeverityError: an unknown loss, or a number that it does not know or lacks.
    """
    if name not in names():
        raise SeverityError(f"Unknown loss {name!r}: there is no severity/losses/{name}.py. {nearest(name, names())}")
    module = importlib.import_module(f"{__name__}.{name}")
    _check_names(name, module.Loss, params)
    return module.Loss(hierarchy=hierarchy, cost=cost, **params)


def _check_names(name: str, loss: type[Link], params: dict[str, Any]) -> None:
    own = {key: each for key, each in inspect.signature(loss).parameters.items() if key not in ("hierarchy", "cost")}
    for key in params:
        if key not in own:
            raise SeverityError(f"losses.{name}: unknown key {key!r}. {nearest(key, own)}")
    for key, parameter in own.items():
        if key not in params and parameter.default is inspect.Parameter.empty:
            raise SeverityError(f"losses.{name}: the key {key!r} is missing.")
