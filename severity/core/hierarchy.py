"""The label tree: nodes, their parents, and which node is which class."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy

from severity.core import files
from severity.core.errors import SeverityError

UNSPECIFIED = ", not further specified"


@dataclass(frozen=True, eq=False)
class Hierarchy:
    """A rooted tree over n nodes whose K leaves are the classes. Class order everywhere is the order of `classes`.

    A class given at an inner node gets a leaf of its own under that node ("<class>, not further specified"), so that
    every class is a leaf, costs have a zero diagonal, and the tree that trains is the tree that scores.

    Make one with `from_parents` or `read`, which validate; the constructor does not.
    """

    names: tuple[str, ...]  # (n,) node names
    parents: numpy.ndarray  # (n,) index of each node's parent, -1 for the root
    class_nodes: numpy.ndarray  # (K,) leaf of each class
    classes: tuple[str, ...]  # (K,) label of each class in the data set
    stands_for: numpy.ndarray  # (K,) node each class was given at: its leaf, or the inner node above that leaf

    @classmethod
    def from_parents(
        cls,
        parents: Sequence[int],
        class_nodes: Sequence[int],
        classes: Sequence[str],
        names: Sequence[str] | None = None,
    ) -> "Hierarchy":
        """Build and validate a hierarchy.

        Args:
            parents: index of node i's parent, -1 for the root; nodes in any order.
            class_nodes: (K,) the node of class k; for an inner node a leaf is appended to the tree.
            classes: (K,) the name of class k.
            names: node names; without them a class's node is named after it, another node ``node <i>``.

        Raises:
            SeverityError: no root or several, a parent that does not exist, a cycle, fewer than two classes, a
                duplicated class or node name, two classes at one node, a leaf without a class.
        """
        parents = _integers(parents, "parents")
        class_nodes = _integers(class_nodes, "class_nodes")
        classes = tuple(str(each) for each in classes)
        _check_classes(class_nodes, classes, len(parents))
        if names is None:
            named = dict(zip(class_nodes.tolist(), classes, strict=True))
            names = [named.get(node, f"node {node}") for node in range(len(parents))]
        names = tuple(str(name) for name in names)
        if len(names) != len(parents):
            raise SeverityError(f"names has {len(names)} entries for {len(parents)} nodes; give one a node.")
        _check_tree(parents)
        _check_leaves(parents, class_nodes, classes, names)
        leaves, parents, names = _with_own_leaves(parents, class_nodes, classes, names)
        _check_names(names)
        for array in (parents, leaves, class_nodes):
            array.flags.writeable = False
        return cls(names, parents, leaves, classes, class_nodes)

    @cached_property
    def root(self) -> int:
        """Index of the root."""
        return int(numpy.flatnonzero(self.parents < 0)[0])

    @cached_property
    def children(self) -> tuple[tuple[int, ...], ...]:
        """The children of each node, in node order."""
        children: list[list[int]] = [[] for _ in self.parents]
        for node, parent in enumerate(self.parents.tolist()):
            if parent >= 0:
                children[parent].append(node)
        return tuple(tuple(each) for each in children)

    @cached_property
    def top_down(self) -> tuple[int, ...]:
        """All nodes, each after its parent (depth first, children in node order)."""
        order, stack = [], [self.root]
        while stack:
            node = stack.pop()
            order.append(node)
            stack.extend(reversed(self.children[node]))
        return tuple(order)

    @cached_property
    def depth(self) -> numpy.ndarray:
        """(n,) number of edges from the root."""
        depth = numpy.zeros(len(self.parents), dtype=numpy.int64)
        for node in self.top_down[1:]:
            depth[node] = depth[self.parents[node]] + 1
        return depth

    @cached_property
    def height(self) -> numpy.ndarray:
        """(n,) number of edges on the longest path down to a leaf; 0 at a leaf."""
        height = numpy.zeros(len(self.parents), dtype=numpy.int64)
        for node in reversed(self.top_down[1:]):
            parent = self.parents[node]
            height[parent] = max(height[parent], height[node] + 1)
        return height

    @cached_property
    def classes_below(self) -> tuple[numpy.ndarray, ...]:
        """For each node the indices (into `classes`) of the classes at or below it, ascending."""
        below: list[list[int]] = [[] for _ in self.parents]
        for index, node in enumerate(self.class_nodes.tolist()):
            below[node].append(index)
        for node in reversed(self.top_down[1:]):
            below[self.parents[node]].extend(below[node])
        return tuple(numpy.array(sorted(each), dtype=numpy.int64) for each in below)

    @cached_property
    def general_classes(self) -> dict[int, numpy.ndarray]:
        """For each class that stands for an inner node: the other classes below that node, ascending."""
        others = {}
        for index in numpy.flatnonzero(self.stands_for != self.class_nodes).tolist():
            below = self.classes_below[self.stands_for[index]]
            others[index] = below[below != index]
        return others

    @property
    def given_nodes(self) -> int:
        """Number of nodes that `from_parents` was given: the first ones, before the leaves it appended."""
        return len(self.parents) - len(self.general_classes)

    def ancestors(self, node: int) -> list[int]:
        """The path from `node` (included) up to the root (included)."""
        path = [int(node)]
        while self.parents[path[-1]] >= 0:
            path.append(int(self.parents[path[-1]]))
        return path

    @cached_property
    def class_hash(self) -> str:
        """16 hex digits that stand for the class names in order: what predictions, truth and costs must agree on."""
        return class_hash(self.classes)

    def write(self, path: Path | str) -> None:
        """Write the hierarchy as JSON: what `from_parents` was given, without the leaves it appended."""
        given = self.given_nodes
        content = {
            "classes": list(self.classes),
            "class_hash": self.class_hash,
            "class_nodes": self.stands_for.tolist(),
            "names": list(self.names[:given]),
            "parents": self.parents[:given].tolist(),
        }
        files.write_json(path, content)

    @classmethod
    def read(cls, path: Path | str) -> "Hierarchy":
        """Read what `write` wrote, and validate it again. Raises SeverityError."""
        content = files.read_json(path)
        try:
            return cls.from_parents(**{key: content[key] for key in ("parents", "class_nodes", "classes", "names")})
        except SeverityError as error:
            raise SeverityError(f"{path}: {error}") from None
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise SeverityError(f"{path} is not a hierarchy file ({error}). Delete it and run `dvc repro`.") from None


def class_hash(classes: Sequence[str]) -> str:
    """16 hex digits that stand for class names in their order."""
    return hashlib.sha256(json.dumps(list(classes)).encode()).hexdigest()[:16]


def _integers(values: Sequence[int], what: str) -> numpy.ndarray:
    array = numpy.array(values)
    if array.ndim != 1 or array.size == 0 or not numpy.issubdtype(array.dtype, numpy.integer):
        raise SeverityError(f"{what} must be a list of integers, one a node or class, but is {values!r}.")
    return array.astype(numpy.int64)


def _check_classes(class_nodes: numpy.ndarray, classes: tuple[str, ...], nodes: int) -> None:
    if len(classes) != len(class_nodes):
        raise SeverityError(f"There are {len(classes)} classes but {len(class_nodes)} class nodes; give one each.")
    if len(classes) < 2:
        raise SeverityError(f"A hierarchy needs at least two classes; it has {len(classes)}: {list(classes)}.")
    for index, name in enumerate(classes):
        if name in classes[:index]:
            raise SeverityError(f"The label {name!r} is duplicated among the classes; each label has one place.")
    for name, node in zip(classes, class_nodes.tolist(), strict=True):
        if not 0 <= node < nodes:
            raise SeverityError(f"Class {name!r} is at node {node}, but the nodes are 0 to {nodes - 1}.")


def _check_tree(parents: numpy.ndarray) -> None:
    nodes = len(parents)
    for node, parent in enumerate(parents.tolist()):
        if not -1 <= parent < nodes:
            raise SeverityError(f"Node {node} has the parent {parent}, but the nodes are 0 to {nodes - 1}.")
    reached: set[int] = set()
    for start in range(nodes):
        path: list[int] = []
        node = start
        while node >= 0 and node not in reached:
            if node in path:
                cycle = [*path[path.index(node) :], node]
                raise SeverityError(f"The tree has a cycle of nodes: {cycle}. Give one of them another parent.")
            path.append(node)
            node = int(parents[node])
        reached.update(path)
    roots = numpy.flatnonzero(parents == -1).tolist()
    if len(roots) > 1:
        raise SeverityError(f"A hierarchy has one root, but the nodes {roots} have the parent -1; put them under one.")


def _check_leaves(
    parents: numpy.ndarray, class_nodes: numpy.ndarray, classes: tuple[str, ...], names: tuple[str, ...]
) -> None:
    taken: dict[int, str] = {}
    for name, node in zip(classes, class_nodes.tolist(), strict=True):
        if node in taken:
            raise SeverityError(f"The classes {taken[node]!r} and {name!r} share the node {names[node]!r}.")
        taken[node] = name
    inner = set(parents.tolist())
    for node, name in enumerate(names):
        if node not in inner and node not in taken:
            raise SeverityError(f"The leaf {name!r} carries no class; name its class or remove it.")


def _with_own_leaves(
    parents: numpy.ndarray, class_nodes: numpy.ndarray, classes: tuple[str, ...], names: tuple[str, ...]
) -> tuple[numpy.ndarray, numpy.ndarray, tuple[str, ...]]:
    """Append a leaf under each inner node that is a class: (leaf of each class, all parents, all names)."""
    inner = set(parents.tolist())
    leaves, all_parents, all_names = class_nodes.copy(), parents.tolist(), list(names)
    for index, node in enumerate(class_nodes.tolist()):
        if node in inner:
            leaves[index] = len(all_parents)
            all_parents.append(node)
            all_names.append(classes[index] + UNSPECIFIED)
    return leaves, numpy.array(all_parents, dtype=numpy.int64), tuple(all_names)


def _check_names(names: tuple[str, ...]) -> None:
    if len(set(names)) < len(names):
        twice = sorted({name for name in names if names.count(name) > 1})
        raise SeverityError(f"Node names are duplicated: {twice}. A node has one parent and one place: rename one.")
