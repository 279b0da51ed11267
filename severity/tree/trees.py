"""Label trees by name: hand-written, data/hierarchies/<name>.yaml, or made of the IRMA codes that are the labels.

A file holds ``source`` (where the tree comes from), ``tree`` (nested nodes: ``node``, optional ``label``, optional
``children``) and optionally ``excluded`` (labels of the data set that the tree leaves out on purpose). Whatever is no list
and no mapping is text as it is written: the names Yes, 01 and 2.50 need no quotes.

The name ``flat`` needs no file: all labels of the data set right under the root, so that any data set has a tree.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from severity.core import files, yaml_files
from severity.core.errors import SeverityError, nearest
from severity.core.hierarchy import Hierarchy
from severity.irma import facts as irma_facts
from severity.tree import nulls

FLAT = "flat"
IRMA = "irma"


def named(folder: Path | str, name: str, labels: Sequence[str], facts: Mapping[str, Any] | None = None) -> Hierarchy:
    """The tree that params name: a file of `folder` without its ending, or a null hierarchy derived from one.

    Args:
        name: ``<file>``, ``<file>@flat`` (all classes under the root) or ``<file>@shuffled_<seed>`` (classes permuted);
            ``irma`` is not a file but the tree of the labels' IRMA codes, and ``flat`` has all labels of the data set
            under the root.
        labels: as for `read`.
        facts: of the collection (`Collection.facts`).

    Raises:
        SeverityError: what `read` raises, an unknown derivation, ``irma`` for labels that are not IRMA codes, or a file
            that is called flat.
    """
    file, at, derivation = name.partition("@")
    path = Path(folder) / f"{file}.yaml"
    if file == IRMA:
        hierarchy = irma_facts.tree(facts or {}, labels)
    else:
        hierarchy = _flat(path, labels) if file == FLAT else read(path, labels)
    kind, _, seed = derivation.partition("_")
    if not at:
        return hierarchy
    if derivation == "flat":
        return nulls.flat(hierarchy)
    if kind == "shuffled" and seed.isdecimal():
        return nulls.shuffled(hierarchy, int(seed))
    raise SeverityError(
        f"params.yaml: the hierarchy {name!r} is derived from {file!r} by {derivation!r}; known are {file}@flat and "
        f"{file}@shuffled_<seed>, the seed a whole number."
    )


def read(path: Path | str, labels: Sequence[str] | None) -> Hierarchy:
    """Read and validate a hand-written tree for a data set with the given labels.

    Args:
        path: the YAML file.
        labels: the labels of the data set; each must be in the tree or in ``excluded``. None: any labels are accepted.

    Raises:
        SeverityError: naming file, node and fix: a missing or malformed file, a duplicated node (two parents), a cycle
            (by YAML aliases), a duplicated label, a label the data set does not have, a label of the data set that is
            missing.
    """
    path = Path(path)
    content = _load(path)
    nodes = _Nodes(path)
    nodes.add(content["tree"])
    excluded = content.get("excluded", [])
    _check_excluded(path, nodes.labels, excluded)
    if labels is not None:
        _check_labels(path, nodes.labels, excluded, labels)
    try:
        return Hierarchy.from_parents(
            parents=nodes.parents,
            class_nodes=list(nodes.labels.values()),
            classes=list(nodes.labels),
            names=nodes.names,
        )
    except SeverityError as error:
        raise SeverityError(f"{path}: {error}") from None


def _flat(path: Path, labels: Sequence[str]) -> Hierarchy:
    if path.is_file():
        raise SeverityError(
            f"{path}: the name {FLAT!r} stands for the tree without levels, which needs no file. Rename the file."
        )
    return Hierarchy.from_parents([-1] + [0] * len(labels), range(1, len(labels) + 1), labels)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = yaml_files.read(path, words=True)
    except FileNotFoundError:
        known = [FLAT, IRMA, *(each.stem for each in path.parent.glob("*.yaml"))]
        raise SeverityError(
            f"There is no hierarchy {path}. {nearest(path.stem, known)}{files.beside_copy(path)}"
        ) from None
    _check_keys(path, "the file", content, required={"source", "tree"}, optional={"excluded"})
    return content


def _check_keys(path: Path, where: str, mapping: Any, required: set[str], optional: set[str]) -> None:
    if not isinstance(mapping, dict):
        raise SeverityError(
            f"{path}: {where} must be a mapping with the keys {sorted(required)}, but is "
            f"{yaml_files.value_shown(mapping)}."
        )
    for key in mapping:
        if key not in required | optional:
            raise SeverityError(f"{path}: {where} has the unknown key {key!r}. {nearest(key, required | optional)}")
    for key in sorted(required - mapping.keys()):
        raise SeverityError(f"{path}: {where} does not have the key {key!r}.")


class _Nodes:
    """Collects nodes depth first; class order is the order in which labels occur."""

    def __init__(self, path: Path):
        self.path = path
        self.names: list[str] = []
        self.parents: list[int] = []
        self.labels: dict[str, int] = {}
        self._given: list[Any] = []  # of each node its mapping in the file
        self._index: dict[str, int] = {}  # of a name

    def add(self, tree: Any) -> None:
        """Add a node and all that are below it, however many levels."""
        waiting = [(tree, -1)]
        while waiting:
            node, parent = waiting.pop()
            children = self._add(node, parent)
            waiting += [(child, self._index[node["node"]]) for child in reversed(children)]

    def _add(self, node: Any, parent: int) -> list[Any]:
        """Add a node; returns its children."""
        under = f"under {self.names[parent]!r}" if parent >= 0 else "at the root"
        if any(node is self._given[each] for each in self._above(parent)):
            raise SeverityError(f"{self.path}: the tree has a cycle: {node['node']!r} is {under}, below itself.")
        _check_keys(self.path, f"the node {under}", node, required={"node"}, optional={"label", "children"})
        for key in ("node", "label"):
            if not isinstance(node.get(key, ""), str):
                raise SeverityError(
                    f"{self.path}: {key!r} of a node {under} must be a name, but is {yaml_files.value_shown(node[key])}."
                )
        name = node["node"]
        if name in self._index:
            first = self.parents[self._index[name]]
            raise SeverityError(
                f"{self.path}: the node {name!r} has two parents: it is {under} and "
                f"{f'under {self.names[first]!r}' if first >= 0 else 'at the root'}. Keep one of the two, or "
                "rename one if they are two nodes."
            )
        children = node.get("children")
        if children is not None and (not isinstance(children, list) or not children):
            raise SeverityError(
                f"{self.path}: 'children' of {name!r} must be a list of nodes; for a leaf, leave it out."
            )
        self._index[name] = len(self.names)
        self.names.append(name)
        self.parents.append(parent)
        self._given.append(node)
        if "label" in node:
            self._label(node["label"], name, self._index[name])
        elif not children:
            raise SeverityError(f"{self.path}: the leaf {name!r} has no label. Name its label or remove it.")
        return children or []

    def _above(self, node: int) -> Iterator[int]:
        """A node and all above it."""
        while node >= 0:
            yield node
            node = self.parents[node]

    def _label(self, label: str, name: str, index: int) -> None:
        if label in self.labels:
            first = self.names[self.labels[label]]
            raise SeverityError(f"{self.path}: the label {label!r} is duplicated: at {first!r} and {name!r}.")
        self.labels[label] = index


def _check_excluded(path: Path, in_tree: dict[str, int], excluded: Any) -> None:
    if not isinstance(excluded, list) or not all(isinstance(label, str) for label in excluded):
        raise SeverityError(f"{path}: 'excluded' must be a list of labels, but is {yaml_files.value_shown(excluded)}.")
    for label in excluded:
        if label in in_tree:
            raise SeverityError(f"{path}: the label {label!r} is both in the tree and in 'excluded'. Keep one.")


def _check_labels(path: Path, in_tree: dict[str, int], excluded: list[str], labels: Sequence[str]) -> None:
    for label in [*in_tree, *excluded]:
        if label not in labels:
            raise SeverityError(f"{path}: the label {label!r} is not one of the data set's. {nearest(label, labels)}")
    for label in labels:
        if label not in in_tree and label not in excluded:
            raise SeverityError(
                f"{path}: the data set's label {label!r} is not in the tree. Add a node with it, "
                f"or list it under 'excluded'. {nearest(label, in_tree)}"
            )
