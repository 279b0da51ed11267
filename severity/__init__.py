"""Severity: how far off a classifier is in the label tree, not only how often.

    import severity

    tree = severity.read_tree("chexpert_pleural")
    cost = severity.cost("lca_height", tree)
    ranking = severity.rank("crm", posterior=posterior, cost=cost, hierarchy=tree)
    severity.single_decision(ranking=ranking, truth=truth, cost=cost, hierarchy=tree)

Importing it loads nothing; a name is looked up when it is first used, and torch is loaded only for a loss or a network.
docs/example.md shows all of it.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from severity.api.functions import cost, load, loss, rank, read_tree, sets, single_decision
    from severity.core.errors import SeverityError
    from severity.core.hierarchy import Hierarchy

__all__ = ["Hierarchy", "SeverityError", "cost", "load", "loss", "rank", "read_tree", "sets", "single_decision"]
_HOMES = {"Hierarchy": "severity.core.hierarchy", "SeverityError": "severity.core.errors"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES.get(name, "severity.api.functions")), name)


def __dir__() -> list[str]:
    return sorted(__all__)
