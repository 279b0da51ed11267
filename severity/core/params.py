"""Reading params.yaml: YAML to a dict of plain values, checked against `severity.schema`."""

import importlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from severity.core import yaml_files
from severity.core.errors import SeverityError, nearest

# By name, so that no stage depends on it: a check that only refuses changes no result.
SCHEMA = "severity.schema"
PATH = "params.yaml"
SHOWN = 10  # problems that one message lists

Place = tuple[str | int, ...]  # keys and places in lists, from the top of the file


def load(path: Path | str = PATH) -> dict[str, Any]:
    """Read and check params.yaml.

    Raises:
        SeverityError: the file is missing or not YAML, a key is unknown, repeated or missing, a value has the wrong
            type or is out of its range, or two sections do not fit each other. Each key is named with what is right.
    """
    path = Path(path)
    content = _read(path)
    schema = importlib.import_module(SCHEMA)
    try:
        schema.Params.model_validate(content)
    except ValueError as error:  # pydantic's ValidationError, without importing pydantic here
        problems = list(_problems(error.errors(), content, schema.json_schema()))
        rest = [f"and {len(problems) - SHOWN} more"] if len(problems) > SHOWN else []
        raise SeverityError("\n".join([f"{path}: {problem}" for problem in problems[:SHOWN]] + rest)) from None
    return content


def check_loss(name: str, numbers: dict[str, Any]) -> None:
    """Check numbers of a loss that do not come from params.yaml; none of them has to be given.

    Raises:
        SeverityError: an unknown key, a value of another type or out of its range.
    """
    schema = importlib.import_module(SCHEMA)
    try:
        schema.losses.LOSSES[name].model_validate(numbers)
    except ValueError as error:
        section = ("losses", name)
        errors = [each | {"loc": (*section, *each["loc"])} for each in error.errors() if each["type"] != "missing"]
        problems = list(_problems(errors, {"losses": {name: numbers}}, schema.json_schema()))
        if problems:
            raise SeverityError("\n".join(problems)) from None


def _read(path: Path) -> Any:
    try:
        return yaml_files.read(path)
    except FileNotFoundError:
        raise SeverityError(f"{path} is missing. Run from the top folder of the project.") from None


def _problems(errors: Sequence[dict[str, Any]], content: Any, schema: dict[str, Any]) -> Iterator[str]:
    """A sentence for each key that is wrong."""
    placed: dict[Place, dict[str, Any]] = {}
    for error in errors:
        place = _place(error, content)
        # If a value may be of several kinds, each kind complains; the one that got furthest is what was meant.
        if place not in placed or error["type"] == "value_error":
            placed[place] = error
    above = {place[:end] for place in placed for end in range(1, len(place))}
    for place, error in placed.items():
        if place not in above:
            yield _sentence(place, error, schema)


def _place(error: dict[str, Any], content: Any) -> Place:
    """Where in the file an error is: pydantic's location without the names of the kinds that a value may be of."""
    place: list[str | int] = []
    for part in error["loc"]:
        if isinstance(content, list) and isinstance(part, int) and part < len(content):
            content = content[part]
        elif isinstance(content, dict) and part in content:
            content = content[part]
        elif error["type"] != "missing" or part != error["loc"][-1]:
            continue
        place.append(part)
    return tuple(place)


def _sentence(place: Place, error: dict[str, Any], schema: dict[str, Any]) -> str:
    key, value = _dotted(place), error["input"]
    if error["type"] == "extra_forbidden":
        known = _at(place[:-1], schema).get("properties", {})
        return f"unknown key {key!r}. {nearest(place[-1], known)}"
    if error["type"] == "missing":
        return f"the key {key!r} is missing."
    if error["type"] == "value_error":  # raised by a validator of ours, whose message is complete
        return f"{key} {error['ctx']['error']}".strip().removeprefix(f"{PATH}: ")
    right = _at(place, schema)
    if "[key]" in error["loc"]:
        value, right = place[-1], _keys(_at(place[:-1], schema))
        key = f"a key of {_dotted(place[:-1])}"
    if isinstance(value, str) and "enum" in right:
        return f"{key} is {value!r}. {nearest(value, right['enum'])}"
    words = "a finite number" if error["type"] == "finite_number" else _words(right)
    return f"{key} is {yaml_files.value_shown(value)}; it must be {words}."


def _dotted(place: Place) -> str:
    """``grid.seed[0]``"""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place).removeprefix(".")


def _at(place: Place, schema: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of a value of the file; empty where nothing is known of it."""
    definitions, current = schema.get("$defs", {}), [schema]
    for part in (*place, None):
        current = [each for one in current for each in _alternatives(one, definitions)]
        if part is None:
            break
        below = [
            one["items"] if isinstance(part, int) else _property(one, part) for one in current if _holds(one, part)
        ]
        current = [one for one in below if isinstance(one, dict)]
    current = current or [{}]
    return current[0] if len(current) == 1 else {"anyOf": current}


def _alternatives(schema: dict[str, Any], definitions: dict[str, Any]) -> list[dict[str, Any]]:
    if "$ref" in schema:
        return _alternatives(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return [each for one in schema["anyOf"] for each in _alternatives(one, definitions)]
    return [schema]


def _holds(schema: dict[str, Any], part: str | int) -> bool:
    return "items" in schema if isinstance(part, int) else "properties" in schema or "additionalProperties" in schema


def _property(schema: dict[str, Any], key: str) -> Any:
    named = schema.get("properties", {})
    return named[key] if key in named else schema.get("additionalProperties")


def _keys(schema: dict[str, Any]) -> dict[str, Any]:
    """The JSON Schema of the keys of a mapping."""
    named = [each["propertyNames"] for each in schema.get("anyOf", [schema]) if "propertyNames" in each]
    return named[0] if named else {"type": "string", "minLength": 1}


def _words(schema: dict[str, Any]) -> str:
    """What a JSON Schema asks for, in plain words: ``a whole number from 0 on``."""
    if "description" in schema and schema.get("type") == "string":
        return schema["description"]
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_words(each) for each in schema["anyOf"]))
    if "enum" in schema:
        *first, last = (str(each) for each in schema["enum"])
        return f"{', '.join(first)} or {last}"
    if "const" in schema:
        return str(schema["const"])
    kind = schema.get("type")
    if kind in ("integer", "number"):
        return ("a whole number" if kind == "integer" else "a number") + _range(schema)
    if kind == "array":
        least, most = schema.get("minItems"), schema.get("maxItems")
        size = "" if not least else f" of {least} entries" if least == most else f" of at least {least}"
        return f"a list{size}, each {_words(schema['items'])}"
    return {
        "boolean": "true or false",
        "null": "null",
        "string": "a text that is not empty" if "minLength" in schema else "a text",
        "object": "a mapping of keys to values",
    }.get(kind, "of another kind")


def _range(schema: dict[str, Any]) -> str:
    if "minimum" in schema and "maximum" not in schema and "exclusiveMaximum" not in schema:
        return f" from {schema['minimum']} on"
    bounds = [
        f"{words} {schema[bound]:,}"
        for bound, words in (
            ("minimum", "from"),
            ("exclusiveMinimum", "above"),
            ("maximum", "to" if "minimum" in schema else "and at most"),
            ("exclusiveMaximum", "to below" if "minimum" in schema else "and below"),
        )
        if bound in schema
    ]
    return f" {' '.join(bounds)}" if bounds else ""
