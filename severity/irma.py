"""The IRMA code and its error score: four axes, each a path down a tree, wrong and unsaid characters weighed by place.

A code is TTTT-DDD-AAA-BBB: technical, directional, anatomical, biological. Characters are 0-9 and a-z, each a step down the
axis's tree; ``0`` is "unspecified" and ends the path. An answer may hold ``*``, "don't know", from where on it claims nothing.

Source of the score: Deselaers et al. and Tommasi et al., the medical annotation tasks of ImageCLEF 2007 to 2009.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy

from severity.errors import SeverityError
from severity.probabilities import check_posterior

AXES = {"technical": 4, "directional": 3, "anatomical": 3, "biological": 3}  # name and number of characters
UNSPECIFIED = "0"
UNSAID = "*"
CLUTTER = "C"
FORM = "-".join(name[0].upper() * length for name, length in AXES.items())
UNSAID_WEIGHT = 0.5


def parse(code: str, *, answer: bool = False) -> tuple[str, str, str, str]:
    """The four axes of a code.

    An axis that starts with ``C`` (clutter: the collection does not say) is returned as it is filled up by ``0``.

    Args:
        code: TTTT-DDD-AAA-BBB.
        answer: allow ``*``; what is true is never unknown.

    Raises:
        SeverityError: not four axes, an axis of another length, a character that is none, one that follows a ``0``, or a
            ``*`` in a true code.
    """
    parts = str(code).split("-")
    if len(parts) != len(AXES):
        raise SeverityError(f"The IRMA code {code!r} has {len(parts)} axes; it must have four, as in {FORM}.")
    return tuple(_axis(part, name, code, answer) for part, name in zip(parts, AXES, strict=True))


def _axis(text: str, name: str, code: str, answer: bool) -> str:
    length = AXES[name]
    where = f"The IRMA code {code!r}, {name} axis {text!r}"
    if text == CLUTTER:
        return text.ljust(length, UNSPECIFIED)
    if len(text) != length:
        raise SeverityError(f"{where}: it has {len(text)} characters and must have {length}, as in {FORM}.")
    if text[0] == CLUTTER:
        return CLUTTER.ljust(length, UNSPECIFIED)
    odd = re.search(r"[^0-9a-z*]", text)
    if odd:
        raise SeverityError(
            f"{where}: the character {odd[0]!r} is none of 0-9 and a-z" + (" and *." if answer else ".")
        )
    if not answer and UNSAID in text:
        raise SeverityError(f"{where}: '*' stands for \"don't know\" and belongs in answers, not in the truth.")
    if re.search(r"0.*[^0*]", text):
        raise SeverityError(f"{where}: a character follows '0', but '0' ends the path. Write 0 to the end.")
    return text


def axis_error(answer: str, truth: str, branching: Sequence[float]) -> float:
    """Error of one axis for branching factors that are given.

    Args:
        answer: characters of the answer, as many as of the truth.
        truth: characters of the true path.
        branching: number of possible characters at each position along the true path.

    Returns:
        E = sum_i d_i / (b_i i) / sum_i 1 / (b_i i) in [0, 1], with d_i = 0 while the answer is right, 1/2 from the first
        ``*`` on, 1 from the first wrong character on; what comes after either redeems nothing and adds nothing. The sum runs
        to the first ``0`` of the truth, included: there ``0`` and ``*`` are right, and going on is wrong.

    Raises:
        SeverityError: lengths differ, or a branching factor is below 1.
    """
    if not len(answer) == len(truth) == len(branching):
        raise SeverityError(
            f"answer {answer!r}, truth {truth!r} and {len(branching)} branching factors differ in length; give one of each "
            "a position."
        )
    if min(branching) < 1:
        raise SeverityError(
            f"The branching factors {list(branching)} hold one below 1: a position has its own character."
        )
    weights = _weights(truth, branching)
    return float(_errors(_characters([answer]), _characters([truth]), weights[None])[0, 0])


def _weights(truth: str, branching: Sequence[float]) -> numpy.ndarray:
    """(I,) share of each position in the error of an axis: 1 / (b_i i), normalised; 0 behind the end of the path.

    The end itself counts where the tree could have gone on (b > 1). Where it could not, there was nothing to decide.
    """
    places = numpy.arange(1, len(truth) + 1)
    weights = 1 / (numpy.asarray(branching, dtype=numpy.float64) * places)
    end = truth.find(UNSPECIFIED)
    if end >= 0:
        weights[end + 1 :] = 0
        if branching[end] == 1:
            weights[end] = 0
    total = weights.sum()
    return weights / total if total > 0 else weights


def _characters(texts: Sequence[str]) -> numpy.ndarray:
    """(M,) texts of one length I -> (M, I) single characters."""
    return numpy.array([list(text) for text in texts])


def _errors(answers: numpy.ndarray, truths: numpy.ndarray, weights: numpy.ndarray) -> numpy.ndarray:
    """(M, U) error of answers (M, I) against truths (U, I) with weights (U, I) of their positions."""
    unsaid = (answers == UNSAID)[:, None]
    right = (answers[:, None] == truths[None]) | (unsaid & (truths == UNSPECIFIED)[None])
    # Up to the first position that is not right the answer costs nothing; from there on that position's kind decides.
    fine = numpy.logical_and.accumulate(right, axis=2)
    first = fine.sum(axis=2).clip(max=fine.shape[2] - 1)
    said_nothing = numpy.take_along_axis(unsaid, first[:, :, None], axis=2)
    level = numpy.where(said_nothing, UNSAID_WEIGHT, 1.0)
    return (level * ~fine * weights[None]).sum(axis=2)


@dataclass(frozen=True, eq=False)
class Scheme:
    """What characters there are at each place of the four axes; it gives the branching factors along a true path.

    Make one with `from_codes` or `from_tables`.
    """

    following: tuple[dict[str, frozenset[str]], ...]  # for each axis: prefix -> the characters that can follow it

    @classmethod
    def from_codes(cls, codes: Iterable[str]) -> "Scheme":
        """From the known codes: a character is possible where one of them has it, the end of a path (``0``) included.

        Raises:
            SeverityError: no code, or one that is malformed.
        """
        axes = [parse(code) for code in codes]
        if not axes:
            raise SeverityError("No IRMA code is known; give the codes of the collection.")
        return cls._from_paths(zip(*axes, strict=True))

    @classmethod
    def from_tables(cls, tables: Sequence[Iterable[str]]) -> "Scheme":
        """From the code tables of a collection: for each axis all prefixes that mean something ('3', '31', '318').

        Raises:
            SeverityError: not four tables, an empty one, or an entry longer than its axis or with an odd character.
        """
        if len(tables) != len(AXES):
            raise SeverityError(
                f"{len(tables)} code tables were given; there must be one for each of {', '.join(AXES)}."
            )
        paths = []
        for (name, length), table in zip(AXES.items(), tables, strict=True):
            entries = [str(entry) for entry in table]
            for entry in entries:
                if not re.fullmatch(rf"[0-9a-z]{{1,{length}}}", entry):
                    raise SeverityError(
                        f"The {name} code table holds {entry!r}; an entry has 1 to {length} characters 0-9 or a-z."
                    )
            if not entries:
                raise SeverityError(f"The {name} code table is empty; give the prefixes that the axis knows.")
            paths.append(entries)
        return cls._from_paths(paths)

    @classmethod
    def _from_paths(cls, axes: Iterable[Iterable[str]]) -> "Scheme":
        following = []
        for paths in axes:
            found: dict[str, set[str]] = {}
            for path in paths:
                if path.startswith(CLUTTER):
                    continue
                for place, character in enumerate(path):
                    found.setdefault(path[:place], set()).add(character)
                    if character == UNSPECIFIED:
                        break
            following.append({prefix: frozenset(characters) for prefix, characters in found.items()})
        return cls(tuple(following))

    def branching(self, axis: int, truth: str) -> list[int]:
        """Number of possible characters at each position along a true path; the true one always counts.

        Raises:
            SeverityError: the path leaves what is known.
        """
        factors = []
        for place, character in enumerate(truth):
            known = self.following[axis].get(truth[:place], frozenset())
            if character != UNSPECIFIED and character not in known:
                raise SeverityError(
                    f"The {list(AXES)[axis]} axis {truth!r} is not in the code table: {character!r} at position "
                    f"{place + 1} is none of {', '.join(sorted(known)) or 'nothing'}."
                )
            factors.append(len(known | {character}))
        return factors

    def weights(self, axis: int, truth: str) -> numpy.ndarray:
        """(I,) share of each position in the error of an axis; all 0 where the axis is skipped."""
        if truth.startswith(CLUTTER):
            return numpy.zeros(len(truth))
        return _weights(truth, self.branching(axis, truth))

    def errors(self, answers: Sequence[str], truths: Sequence[str]) -> numpy.ndarray:
        """(N,) error of each image, in [0, 1]: the mean over its axes, those whose truth starts with ``C`` left out.

        An image whose axes are all left out has the error 0. A run's score is the sum.

        Raises:
            SeverityError: another number of answers than of truths, a malformed or unknown code.
        """
        if len(answers) != len(truths):
            raise SeverityError(f"There are {len(answers)} answers for {len(truths)} true codes; give one an image.")
        pairs = sorted(set(zip(map(str, answers), map(str, truths), strict=True)))
        found = {pair: float(self._matrix([pair[0]], [pair[1]])[0, 0]) for pair in pairs}
        return numpy.array([found[str(answer), str(truth)] for answer, truth in zip(answers, truths, strict=True)])

    def score(self, answers: Sequence[str], truths: Sequence[str]) -> float:
        """The score of a run: the sum of `errors`. Lower is better; the worst is the number of images."""
        return float(self.errors(answers, truths).sum())

    def cost(self, codes: Sequence[str]) -> numpy.ndarray:
        """(K, K) error of deciding one code where another is true, for `decisions.rank`: CRM then minimises the score.

        Not symmetric: the branching factors are those along the true path.

        Raises:
            SeverityError: a malformed or unknown code, or one that stands twice.
        """
        codes = [str(code) for code in codes]
        for place, code in enumerate(codes):
            if code in codes[:place]:
                raise SeverityError(f"The IRMA code {code!r} stands twice among the classes; each has one place.")
        return self._matrix(codes, codes)

    def _matrix(self, answers: Sequence[str], truths: Sequence[str]) -> numpy.ndarray:
        """(M, U) errors of answers against truths."""
        said = [parse(code, answer=True) for code in answers]
        true = Truths(self, truths)
        return sum(
            true.axis_errors(axis, [each[axis] for each in said]) * true.share[axis] for axis in range(len(AXES))
        )


@dataclass(frozen=True, eq=False)
class Truths:
    """True codes, prepared: their characters, the weights of their positions, and the share of each axis."""

    scheme: Scheme
    codes: Sequence[str]

    @cached_property
    def axes(self) -> list[tuple[str, ...]]:
        """For each axis the text of every code."""
        return list(zip(*(parse(code) for code in self.codes), strict=True))

    @cached_property
    def share(self) -> numpy.ndarray:
        """(4, U) what an axis counts in the error of an image: one by the number of axes that are not skipped, or 0."""
        counted = numpy.array([[not text.startswith(CLUTTER) for text in axis] for axis in self.axes], dtype=float)
        return counted / counted.sum(axis=0).clip(min=1)

    def axis_errors(self, axis: int, answers: Sequence[str]) -> numpy.ndarray:
        """(M, U) errors of answers on one axis."""
        texts = self.axes[axis]
        weights = numpy.array([self.scheme.weights(axis, text) for text in texts])
        return _errors(_characters(answers), _characters(texts), weights)


def truncate(posterior: numpy.ndarray, codes: Sequence[str], scheme: Scheme) -> tuple[list[str], numpy.ndarray]:
    """The answer of least expected error of each image, where every axis may stop early with ``*``.

    The error of an image is a weighted sum over axes, so each axis is chosen by itself, among all beginnings of the known
    codes' axes: a beginning that no code has is wrong everywhere, and ``*`` is better than that.

    Args:
        posterior: (N, K) distribution over `codes`.
        codes: K true codes.

    Returns:
        N answers, and their (N,) expected errors. Of equal ones the answer that says most, then the first in `codes`.

    Raises:
        SeverityError: a malformed or unknown code, or rows that are no distributions.
    """
    posterior = numpy.asarray(posterior, dtype=numpy.float64)
    check_posterior(posterior, len(codes))
    truths = Truths(scheme, codes)
    expected = numpy.zeros(len(posterior))
    chosen = []
    for axis, length in enumerate(AXES.values()):
        candidates = _beginnings(truths.axes[axis], length)
        costs = truths.axis_errors(axis, candidates) * truths.share[axis]
        # Rounded so that sums which are equal but for the order of their terms are ties.
        risks = numpy.round(posterior @ costs.T, 12)
        best = risks.argmin(axis=1)
        expected += (posterior * costs[best]).sum(axis=1)
        chosen.append([candidates[index] for index in best])
    return ["-".join(parts) for parts in zip(*chosen, strict=True)], expected


def _beginnings(texts: Sequence[str], length: int) -> list[str]:
    """All beginnings of the texts, filled up with ``*``, the longest first."""
    texts = [text for text in texts if not text.startswith(CLUTTER)]
    found = [text[:said].ljust(length, UNSAID) for said in range(length, -1, -1) for text in texts]
    return list(dict.fromkeys(found)) or [UNSAID * length]
