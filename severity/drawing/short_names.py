"""Names of classes that no figure can hold: drawn with their middle left out, written in full in the table beside it."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy
import pandas

LONGEST = 80  # characters of a name in a figure
BEGINNING, END = 50, 20  # how many of these are kept of a longer one


def drawn(draw: Callable[..., Any], *arguments: Any, names: Iterable[str], **options: Any) -> Any:
    """What `draw` gives, a picture or a mapping to pictures, with long names shortened in the figures alone.

    Args:
        arguments, options: of `draw`; names are replaced in whatever they hold.
        names: all that may be long.
    """
    short = shortened(names)
    if not short:
        return draw(*arguments, **options)
    given = [renamed(each, short) for each in arguments]
    pictures = draw(*given, **{key: renamed(each, short) for key, each in options.items()})
    full = {each: name for name, each in short.items()}
    if isinstance(pictures, Mapping):
        return {key: _with_full_table(each, full) for key, each in pictures.items()}
    return _with_full_table(pictures, full)


def shortened(names: Iterable[str]) -> dict[str, str]:
    """Each name that is too long -> what is drawn; different for different names."""
    names = list(dict.fromkeys(names))
    short: dict[str, str] = {}
    for name in names:
        if len(name) > LONGEST:
            middle, number = "…", 1
            while (drawn_as := name[:BEGINNING] + middle + name[-END:]) in short.values() or drawn_as in names:
                number += 1
                middle = f"…{number}…"
            short[name] = drawn_as
    return short


def renamed(value: Any, names: Mapping[str, str]) -> Any:
    """A value in which every text that is one of `names` is replaced, however deep in it."""
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, pandas.DataFrame):
        return value.rename(columns=names, index=names if value.index.dtype == object else None).replace(dict(names))
    if isinstance(value, pandas.Series):
        return value.rename(index=names).replace(dict(names))
    if isinstance(value, numpy.ndarray):
        return numpy.array([names.get(each, each) for each in value.tolist()]) if value.dtype.kind == "U" else value
    if isinstance(value, Mapping):
        return {renamed(key, names): renamed(each, names) for key, each in value.items()}
    if isinstance(value, list | tuple):
        items = [renamed(each, names) for each in value]
        return items if isinstance(value, list) else type(value)(*items) if hasattr(value, "_fields") else tuple(items)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [field.name for field in dataclasses.fields(value) if field.init]
        return dataclasses.replace(value, **{field: renamed(getattr(value, field), names) for field in fields})
    return value


def _with_full_table(picture: Any, full: Mapping[str, str]) -> Any:
    return dataclasses.replace(picture, table=renamed(picture.table, full))
