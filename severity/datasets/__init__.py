"""One file a kind of collection: raw files in, one tidy table out. Its name is that of its section in params.yaml."""

import importlib
import pkgutil
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from severity.core.errors import SeverityError, nearest


def find(name: str, section: Mapping[str, Any]) -> ModuleType:
    """The module of the collection `name`, whose section of params.yaml may say the `kind` of another name.

    It has collect(root, out, *, ...), which writes the folder `out` and returns the number of images, and read(root, *,
    ...), which returns a `severity.collections.collection.Collection`.

    Raises:
        SeverityError: no file of this folder has that name.
    """
    kind = section.get("kind", name)
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    if kind not in known:
        raise SeverityError(
            f"params.yaml: the data set {name!r} is of the kind {kind!r}, but there is no severity/datasets/{kind}.py. "
            f"{nearest(kind, known)}"
        )
    return importlib.import_module(f"{__name__}.{kind}")
