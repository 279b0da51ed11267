"""What is known of the IRMA codes of a collection: its `read` gives it, tree, cost and score are made of it."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy

from severity.core import files
from severity.core.errors import SeverityError
from severity.core.hierarchy import Hierarchy
from severity.irma import codes as irma_codes

SUBJECT = "irma"  # among `Collection.facts`
CODE_TABLES, CODES = "code tables", "codes"  # what branching factors are counted in


@dataclass(frozen=True)
class IrmaFacts:
    """See the module. The classes of the collection are codes, whole ones or one axis of them."""

    axis: str  # all, or the one that the classes are
    branching: str  # CODE_TABLES, or CODES: those of the training images
    scheme: irma_codes.Scheme
    truth: dict[str, str]  # image -> code, of the test images whose code is not a class
    names: dict[str, dict[str, str]] = field(
        default_factory=dict
    )  # axis -> prefix -> what it means, where that is known

    @classmethod
    def find(cls, facts: Mapping[str, Any]) -> "IrmaFacts | None":
        """Those among the facts of a collection (`Collection.facts`); None for a collection without IRMA codes."""
        return cls.from_json(facts[SUBJECT]) if SUBJECT in facts else None

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "IrmaFacts":
        """What `to_json` gave."""
        return cls(**{**content, "scheme": irma_codes.Scheme.from_json(content["scheme"])})

    def to_json(self) -> dict[str, Any]:
        """JSON-like, the value of SUBJECT in `Collection.facts`."""
        return {
            "axis": self.axis,
            "branching": self.branching,
            "scheme": self.scheme.to_json(),
            "truth": self.truth,
            "names": self.names,
        }

    def write(self, path: Path | str) -> None:
        """Write them as JSON."""
        files.write_json(path, self.to_json())

    @classmethod
    def read(cls, path: Path | str) -> "IrmaFacts | None":
        """Read what `write` wrote; None where the file does not exist. Raises SeverityError where it is another file."""
        if not os.path.lexists(path):
            return None
        content = files.read_json(path, "scheme")
        try:
            return cls.from_json(content)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise SeverityError(
                f"{path} is not what `hierarchy` wrote ({error!r}). Delete it and run `dvc repro`."
            ) from None

    def cost(self, codes: Sequence[str]) -> numpy.ndarray:
        """(K, K) IRMA error of deciding one of the codes where another is true."""
        return self.scheme.cost(codes)

    def tree(self, codes: Sequence[str]) -> Hierarchy:
        """The tree whose classes are the codes: one axis after the other, a node for each beginning of an axis.

        An axis that ends early has one more node, its text filled up by ``0``, next to those that go on. A node is
        named by its path and, where the code tables name it, the meaning of its last step.

        Raises:
            SeverityError: a malformed code, a duplicated one, or fewer than two.
        """
        names, parents = ["IRMA"], [-1]
        nodes: dict[str, int] = {}
        for code in codes:
            parent, done = 0, ""
            for axis, text in zip(self.scheme.axes, irma_codes.parse(code, self.scheme.axes), strict=True):
                for step in _steps(text):
                    path = done + step
                    if path not in nodes:
                        nodes[path] = len(names)
                        names.append(f"{path} {self._meaning(axis, step)}".rstrip())
                        parents.append(parent)
                    parent = nodes[path]
                done += f"{text}-"
        leaves = [nodes["-".join(irma_codes.parse(code, self.scheme.axes))] for code in codes]
        return Hierarchy.from_parents(parents, leaves, codes, names)

    def _meaning(self, axis: str, step: str) -> str:
        """What a step means, '' where that is not known."""
        if axis not in self.names:
            return ""
        if irma_codes.is_clutter(step):
            return "clutter"
        end = step.find(irma_codes.UNSPECIFIED)
        if end < 0:
            return self.names[axis].get(step, "")
        return self.names[axis].get(step[: end + 1], "unspecified")


def _steps(text: str) -> list[str]:
    """The nodes on the way down one axis: each beginning that is specified, then the whole text if that ends early."""
    if irma_codes.is_clutter(text):
        return [text]
    specified = len(text.rstrip(irma_codes.UNSPECIFIED))
    beginnings = [text[:end] for end in range(1, specified + 1)]
    return beginnings if specified == len(text) else [*beginnings, text]


def tree(facts: Mapping[str, Any], labels: Sequence[str]) -> Hierarchy:
    """The tree that IRMA codes give to the labels of a collection with these facts.

    Raises:
        SeverityError: the collection has no IRMA codes.
    """
    irma = IrmaFacts.find(facts)
    if irma is None:
        raise SeverityError(
            "params.yaml: the hierarchy 'irma' is made of the IRMA codes that are a data set's classes, and this one "
            "has none. Name a file of data/hierarchies, or the data set irma or irma_phantom."
        )
    return irma.tree(labels)
