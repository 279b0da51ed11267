"""One file a kind of collection: raw files in, one tidy table out. Its name is that of its section in params.yaml."""

import importlib
import pkgutil
from types import ModuleType

from severity.core.errors import SeverityError, nearest


def find(name: str) -> ModuleType:
    """The module of the collection `name`.

    It has collect(root, out, *, ...), which writes the folder `out` and returns the number of images, and read(root, *,
    ...), which returns a `severity.collections.collection.Collection`.

    Raises:
        SeverityError: no file of this folder has that name.
    """
    known = [module.name for module in pkgutil.iter_modules(__path__)]
    if name not in known:
        raise SeverityError(
            f"params.yaml: data.name is {name!r}, but there is no severity/datasets/{name}.py. {nearest(name, known)}"
        )
    return importlib.import_module(f"{__name__}.{name}")
