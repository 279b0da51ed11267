"""Reading params.yaml: the shape it must have, and calls whose keyword arguments come from it."""

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from severity.core.errors import SeverityError, nearest

NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
Result = TypeVar("Result")

# What each section holds. A dict: exactly these keys. A type (or a tuple of types): a value of it. OPTIONS: keyword
# options of the function that the section is for, checked against its signature by `call`. NAMED: a mapping from
# names (lower case, digits, underscore: DVC and file names want no more) to values of the given shape.
OPTIONS = "options"


class Named:
    """A mapping whose keys are names and whose values all have one shape."""

    def __init__(self, shape: Any):
        self.shape = shape


class ListOf:
    """A list without repeats of one type."""

    def __init__(self, kind: type):
        self.kind = kind


SHAPE = {
    "data": {"name": str},
    "datasets": Named({"root": str, "hierarchy": str, "collect": OPTIONS, "read": OPTIONS, "labels": OPTIONS}),
    "decode": OPTIONS,
    "prepare": OPTIONS,
    "describe": OPTIONS,
    "cost": {"name": str, "file": str},
    "grid": {"backbone": ListOf(str), "loss": ListOf(str), "seed": ListOf(int)},
    "backbones": Named({"model": str, "pretrained": (bool, str)}),
    "losses": Named(OPTIONS),
    "train": OPTIONS,
    "predict": OPTIONS,
    "external": {
        "runs": ListOf(str),
        "truth": str,
        "kind": (str, dict),
        "missing_class": str,
        "unknown_ids": str,
        "incomplete": str,
        "validation_fraction": (float, int),
        "seed": int,
    },
    "evaluate": OPTIONS,
    "compare": OPTIONS,
    "plot": {"configuration": str, "configurations_shown": int, "mistakes": int, "labels": int, "classes": int},
    "explain": OPTIONS,
}


def load(path: Path | str = "params.yaml") -> dict[str, Any]:
    """Read and check params.yaml.

    Raises:
        SeverityError: the file is missing or no YAML, a key is unknown or absent, a value has the wrong type, `data`
            or `grid` names something that has no section, or there is no run. The message names the key and the nearest known one.
    """
    path = Path(path)
    try:
        params = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SeverityError(f"{path} is missing. Run from the top folder of the project.") from None
    except yaml.YAMLError as error:
        raise SeverityError(f"{path} is not YAML: {error}") from None
    _check(params, SHAPE, str(path))
    _check_names(params["data"]["name"], params["datasets"], f"{path}: data.name", "datasets")
    for axis, section in (("backbone", "backbones"), ("loss", "losses")):
        for name in params["grid"][axis]:
            _check_names(name, params[section], f"{path}: grid.{axis}", section)
    if not all(params["grid"].values()) and not params["external"]["runs"]:
        raise SeverityError(
            f"{path}: there is no run. Each list of the grid needs at least one entry, unless external.runs has one."
        )
    return params


def _check_names(name: str, known: dict[str, Any], where: str, section: str) -> None:
    if name not in known:
        raise SeverityError(f"{where}: {name!r} has no section under {section!r}. {nearest(name, known)}")


def _check(value: Any, shape: Any, where: str) -> None:
    if shape is OPTIONS or isinstance(shape, (dict, Named)):
        if not isinstance(value, dict):
            raise SeverityError(f"{where} must be a mapping of keys to values, but is {value!r}.")
    if isinstance(shape, dict):
        for key in value:
            if key not in shape:
                raise SeverityError(f"{where}: unknown key {key!r}. {nearest(key, shape)}")
        for key, inner in shape.items():
            if key not in value:
                raise SeverityError(f"{where}: the key {key!r} is missing. Keys: {', '.join(shape)}.")
            _check(value[key], inner, f"{where}: {key}")
    elif isinstance(shape, Named):
        for key, inner in value.items():
            if not isinstance(key, str) or not NAME.match(key):
                raise SeverityError(f"{where}: {key!r} is no name here: lower-case letters, digits and _ only.")
            _check(inner, shape.shape, f"{where}.{key}")
    elif isinstance(shape, ListOf):
        _check_list(value, shape.kind, where)
    elif shape is not OPTIONS and not _is_a(value, shape):
        kinds = shape if isinstance(shape, tuple) else (shape,)
        raise SeverityError(f"{where} is {value!r}; it must be of type {' or '.join(kind.__name__ for kind in kinds)}.")


def _check_list(value: Any, kind: type, where: str) -> None:
    if not isinstance(value, list):
        raise SeverityError(f"{where} must be a list, but is {value!r}.")
    for entry in value:
        if not _is_a(entry, kind):
            raise SeverityError(f"{where}: {entry!r} must be of type {kind.__name__}.")
    if len(set(value)) != len(value):
        raise SeverityError(f"{where}: {value!r} names an entry twice.")


def _is_a(value: Any, kind: Any) -> bool:
    # bool is a subclass of int in Python; `seed: true` is a mistake all the same.
    kinds = kind if isinstance(kind, tuple) else (kind,)
    return isinstance(value, kind) and (not isinstance(value, bool) or bool in kinds)


def call(function: Callable[..., Result], *args: Any, values: dict[str, Any], where: str, **given: Any) -> Result:
    """Call `function(*args, **given, **values)`, its keyword-only parameters being the schema of `values`.

    Args:
        function: a function or class whose annotated keyword-only parameters are what `values` may hold.
        args, given: what the caller supplies itself.
        values: one section of params.yaml.
        where: the section's name, for messages.

    Raises:
        SeverityError: a key that the function does not know (with the nearest known one), a missing one, or a number
            that YAML read as text (``1e-3`` wants a dot: ``1.0e-3``).
    """
    parameters = inspect.signature(function).parameters
    open_keys = {
        name
        for name, parameter in parameters.items()
        if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name not in given
    }
    for key, value in values.items():
        if key not in open_keys:
            raise SeverityError(f"params.yaml: {where}: unknown key {key!r}. {nearest(key, open_keys)}")
        if parameters[key].annotation in (int, float, bool) and isinstance(value, str):
            raise SeverityError(
                f"params.yaml: {where}.{key} is the text {value!r}; it must be a number "
                "(YAML reads 1e-3 as text: write 0.001 or 1.0e-3)."
            )
    for key in open_keys - values.keys():
        if parameters[key].default is inspect.Parameter.empty:
            raise SeverityError(f"params.yaml: {where}: the key {key!r} is missing.")
    return function(*args, **given, **values)
