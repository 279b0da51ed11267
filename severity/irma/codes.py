"""The IRMA code and its error score: four axes, each a path down a tree, wrong and unsaid characters weighed by place.

A code is TTTT-DDD-AAA-BBB: technical, directional, anatomical, biological. Characters are 0-9 and a-z, each a step down
the axis's tree; ``0`` is "unspecified" and ends the path. An answer may hold ``*``, "don't know", after which it claims
nothing. All of this also works on only some of the axes: then a code is those axes' text.

Source of the code: Lehmann et al., "The IRMA code for unique classification of medical images", SPIE 5033, 2003. Source
of the score: Deselaers et al. and Tommasi et al., the medical annotation tasks of ImageCLEF 2007 to 2009. Where their
papers are silent, this is what the organisers' own program (evaluate_07_08.py) computes; docs/methods.md lists those
places.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy

from severity.arrays.probabilities import check_posterior
from severity.core.errors import SeverityError, nearest

AXES = {"technical": 4, "directional": 3, "anatomical": 3, "biological": 3}  # name and number of characters
ALL = "all"
UNSPECIFIED = "0"
UNSAID = "*"
CLUTTER = "C"
UNSAID_WEIGHT = 0.5


def axes_of(word: str) -> tuple[str, ...]:
    """The axes that a word names: all four for ``all``, or the one. Raises SeverityError for another word."""
    if word != ALL and word not in AXES:
        raise SeverityError(f"{word!r} is not an axis of the IRMA code. {nearest(word, [ALL, *AXES])}")
    return tuple(AXES) if word == ALL else (word,)


def parse(code: str, axes: Sequence[str] = tuple(AXES), *, answer: bool = False) -> tuple[str, ...]:
    """The axes of a code.

    An axis that starts with ``C`` (clutter: the collection does not say) is returned as ``C`` filled up by ``0``; a
    code that is nothing but ``C`` is clutter on every axis.

    Args:
        code: TTTT-DDD-AAA-BBB, or the text of only those `axes`.
        answer: allow ``*``; what is true is never unknown.

    Raises:
        SeverityError: another number of axes, an axis of another length, an unknown character, one that follows a
            ``0``, or a ``*`` in a true code.
    """
    parts = str(code).split("-")
    if parts == [CLUTTER]:
        parts *= len(axes)
    if len(parts) != len(axes):
        form = "-".join(axis[0].upper() * AXES[axis] for axis in axes)
        raise SeverityError(f"The IRMA code {code!r} has {len(parts)} axes; it must have {len(axes)}, as in {form}.")
    return tuple(_axis(part, axis, code, answer) for part, axis in zip(parts, axes, strict=True))


def _axis(text: str, axis: str, code: str, answer: bool) -> str:
    length = AXES[axis]
    where = f"The IRMA code {code!r}, {axis} axis {text!r}"
    if text == CLUTTER:
        return text.ljust(length, UNSPECIFIED)
    if len(text) != length:
        raise SeverityError(f"{where}: it has {len(text)} characters and must have {length}.")
    if text[0] == CLUTTER:
        return CLUTTER.ljust(length, UNSPECIFIED)
    odd = re.search(r"[^0-9a-z*]", text)
    if odd:
        raise SeverityError(
            f"{where}: the character {odd[0]!r} is not one of 0-9 and a-z" + (" and *." if answer else ".")
        )
    if not answer and UNSAID in text:
        raise SeverityError(f"{where}: '*' stands for \"don't know\" and belongs in answers, not in the truth.")
    if re.search(r"0.*[^0*]", text):
        raise SeverityError(f"{where}: a character follows '0', but '0' ends the path. Write 0 to the end.")
    return text


def is_clutter(text: str) -> bool:
    """Whether the true text of an axis says nothing, so that nothing about it can be wrong."""
    return text.startswith(CLUTTER)


def axis_error(answer: str, truth: str, branching: Sequence[float]) -> float:
    """Error of one axis for branching factors that are given.

    Args:
        answer: characters of the answer, as many as of the truth.
        truth: characters of the true path.
        branching: number of possible characters at each position along the true path; 1 behind its end.

    Returns:
        E = sum_i d_i / (b_i i) / sum_i 1 / (b_i i) in [0, 1], over all positions, those behind the end of the path
        included. d_i = 0 while the answer is right; 1 from its first wrong character on, whatever comes after; from its
        first ``*`` on 1/2, but 0 where ``*`` answers a ``0``.

    Raises:
        SeverityError: lengths differ, or a branching factor is below 1.
    """
    if not len(answer) == len(truth) == len(branching):
        raise SeverityError(
            f"answer {answer!r}, truth {truth!r} and {len(branching)} branching factors differ in length; give one of "
            "each a position."
        )
    if min(branching) < 1:
        raise SeverityError(
            f"The branching factors {list(branching)} hold one below 1: a position has its own character."
        )
    return float(_errors(_characters([answer]), _characters([truth]), _weights(branching))[0])


def _weights(branching: Sequence[float]) -> numpy.ndarray:
    """(I,) share of each position in the error of an axis: 1 / (b_i i), normalised."""
    weights = 1 / (numpy.asarray(branching, dtype=numpy.float64) * numpy.arange(1, len(branching) + 1))
    return weights / weights.sum()


def _characters(texts: Sequence[str]) -> numpy.ndarray:
    """(M,) texts of one length I -> (M, I) single characters."""
    return numpy.array([list(text) for text in texts])


def _errors(answers: numpy.ndarray, truths: numpy.ndarray, weights: numpy.ndarray) -> numpy.ndarray:
    """Errors of one axis: characters of answers and truths and weights of positions, summed over the last axis."""
    unsaid = answers == UNSAID
    fault = answers != truths
    spoilt = numpy.logical_or.accumulate(fault, axis=-1)
    # The kind of the first fault decides what all that follows costs.
    first = fault.argmax(axis=-1)[..., None]
    silent = numpy.take_along_axis(numpy.broadcast_to(unsaid, fault.shape), first, axis=-1)
    level = numpy.where(silent, UNSAID_WEIGHT * ~(unsaid & (truths == UNSPECIFIED)), 1.0)
    return (level * spoilt * weights).sum(axis=-1)


@dataclass(frozen=True, eq=False)
class Scheme:
    """What characters there are at each place of the axes; it gives the branching factors along a true path.

    Make one with `from_codes`, `from_tables` or `from_json`.
    """

    following: dict[str, dict[str, frozenset[str]]]  # axis -> prefix -> the characters that can follow it

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that codes have here."""
        return tuple(self.following)

    @classmethod
    def from_codes(cls, codes: Iterable[str], axes: Sequence[str] = tuple(AXES)) -> "Scheme":
        """From the known codes: a character is possible where one of them has it, the end of a path (``0``) included.

        Raises:
            SeverityError: no code, or one that is malformed.
        """
        parsed = [parse(code, axes) for code in codes]
        if not parsed:
            raise SeverityError("No IRMA code is known; give the codes of the collection.")
        return cls._from_paths(dict(zip(axes, zip(*parsed, strict=True), strict=True)))

    @classmethod
    def from_tables(cls, tables: Mapping[str, Iterable[str]]) -> "Scheme":
        """From the code tables of a collection: for each axis all prefixes that mean something ('3', '31', '318').

        Raises:
            SeverityError: a name that is not an axis, an empty table, or an entry longer than its axis or with an odd
                character.
        """
        paths = {}
        for axis, table in tables.items():
            axes_of(axis)
            paths[axis] = [str(entry) for entry in table]
            for entry in paths[axis]:
                if not re.fullmatch(rf"[0-9a-z]{{1,{AXES[axis]}}}", entry):
                    raise SeverityError(
                        f"The {axis} code table holds {entry!r}; an entry has 1 to {AXES[axis]} characters 0-9 or a-z."
                    )
            if not paths[axis]:
                raise SeverityError(f"The {axis} code table is empty; give the prefixes that the axis knows.")
        return cls._from_paths(paths)

    @classmethod
    def _from_paths(cls, axes: Mapping[str, Iterable[str]]) -> "Scheme":
        following = {}
        for axis, paths in axes.items():
            characters_after: dict[str, set[str]] = {}
            for path in paths:
                if is_clutter(path):
                    continue
                for place, character in enumerate(path):
                    characters_after.setdefault(path[:place], set()).add(character)
                    if character == UNSPECIFIED:
                        break
            following[axis] = {prefix: frozenset(characters) for prefix, characters in characters_after.items()}
        return cls(following)

    def to_json(self) -> dict[str, dict[str, str]]:
        """Axis -> prefix -> the characters that can follow it, as one text."""
        return {
            axis: {prefix: "".join(sorted(characters)) for prefix, characters in sorted(prefixes.items())}
            for axis, prefixes in self.following.items()
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Mapping[str, str]]) -> "Scheme":
        """What `to_json` gave."""
        return cls(
            {
                axis: {prefix: frozenset(characters) for prefix, characters in prefixes.items()}
                for axis, prefixes in content.items()
            }
        )

    def branching(self, axis: str, truth: str) -> list[int]:
        """Number of possible characters at each position along a true path.

        The true character always counts, so a path that leaves what is known can be scored all the same: it has 1 from
        there on. Behind the end of a path it is 1 as well.
        """
        factors = []
        for place, character in enumerate(truth):
            known = self.following[axis].get(truth[:place], frozenset())
            factors.append(len(known | {character}))
        return factors

    def axis_errors(self, answers: Sequence[str], truths: Sequence[str]) -> numpy.ndarray:
        """(N, axes) error of each image on each axis, in [0, 1]; NaN where the truth is clutter.

        Raises:
            SeverityError: another number of answers than of truths, or a malformed code.
        """
        if len(answers) != len(truths):
            raise SeverityError(f"There are {len(answers)} answers for {len(truths)} true codes; give one an image.")
        answered = self._texts(answers, answer=True)
        true = self._texts(truths)
        errors = numpy.full((len(truths), len(self.axes)), numpy.nan)
        for column, axis in enumerate(self.axes):
            counted = numpy.array([not is_clutter(text) for text in true[axis]], dtype=bool)
            if counted.any():
                counted_errors = _errors(
                    _characters(answered[axis]), _characters(true[axis]), self._weights_along(axis, true[axis])
                )
                errors[counted, column] = counted_errors[counted]
        return errors

    def errors(self, answers: Sequence[str], truths: Sequence[str]) -> numpy.ndarray:
        """(N,) error of each image: the sum over its axes by their number, an axis of clutter costing nothing.

        Raises:
            SeverityError: another number of answers than of truths, or a malformed code.
        """
        return numpy.nansum(self.axis_errors(answers, truths), axis=1) / len(self.axes)

    def score(self, answers: Sequence[str], truths: Sequence[str]) -> float:
        """The score of a run: the sum of `errors`. Lower is better; the worst is the number of images."""
        return float(self.errors(answers, truths).sum())

    def cost(self, codes: Sequence[str]) -> numpy.ndarray:
        """(K, K) error of deciding one code where another is true, for `decisions.rank`: CRM then minimises the score.

        Not symmetric: the branching factors are those along the true path.

        Raises:
            SeverityError: a malformed code, or a duplicated one.
        """
        codes = [str(code) for code in codes]
        for place, code in enumerate(codes):
            if code in codes[:place]:
                raise SeverityError(f"The IRMA code {code!r} is duplicated among the classes; each has one place.")
        texts = self._texts(codes)
        return sum(self._table(axis, texts[axis], texts[axis]) for axis in self.axes) / len(self.axes)

    def _texts(self, codes: Sequence[str], *, answer: bool = False) -> dict[str, tuple[str, ...]]:
        """For each axis the text of every code."""
        parsed = [parse(code, self.axes, answer=answer) for code in codes]
        return {axis: tuple(each[column] for each in parsed) for column, axis in enumerate(self.axes)}

    def _weights_along(self, axis: str, truths: Sequence[str]) -> numpy.ndarray:
        """(U, I) share of each position of the true texts in the error of their axis; all 0 where they are clutter."""
        known = {text: _weights(self.branching(axis, text)) * (not is_clutter(text)) for text in set(truths)}
        return numpy.array([known[text] for text in truths])

    def _table(self, axis: str, answers: Sequence[str], truths: Sequence[str]) -> numpy.ndarray:
        """(M, U) errors of answers against truths on one axis; 0 where the truth is clutter."""
        return _errors(
            _characters(answers)[:, None], _characters(truths)[None], self._weights_along(axis, truths)[None]
        )


def truncate(posterior: numpy.ndarray, codes: Sequence[str], scheme: Scheme) -> tuple[list[str], numpy.ndarray]:
    """The answer of least expected error of each image, where every axis may stop early with ``*``.

    The error of an image is a sum over axes, so each axis is chosen by itself, among all beginnings of the known codes'
    axes: a beginning that no code has is wrong everywhere, and ``*`` is better than that.

    Args:
        posterior: (N, K) distribution over `codes`.
        codes: K true codes.

    Returns:
        N answers, and their (N,) expected errors. Of equal ones the answer that says most, then the first in `codes`.

    Raises:
        SeverityError: a malformed code, or rows that are not distributions.
    """
    posterior = numpy.asarray(posterior, dtype=numpy.float64)
    check_posterior(posterior, len(codes))
    texts = scheme._texts(codes)
    expected = numpy.zeros(len(posterior))
    chosen = []
    for axis in scheme.axes:
        candidates = _beginnings(texts[axis], AXES[axis])
        costs = scheme._table(axis, candidates, texts[axis]) / len(scheme.axes)
        # Rounded so that sums that differ only in the order of their terms are ties.
        risks = numpy.round(posterior @ costs.T, 12)
        best = risks.argmin(axis=1)
        expected += (posterior * costs[best]).sum(axis=1)
        chosen.append([candidates[index] for index in best])
    return ["-".join(parts) for parts in zip(*chosen, strict=True)], expected


def _beginnings(texts: Sequence[str], length: int) -> list[str]:
    """All beginnings of the texts, filled up with ``*``, the longest first."""
    texts = [text for text in texts if not is_clutter(text)]
    beginnings = [text[:kept].ljust(length, UNSAID) for kept in range(length, -1, -1) for text in texts]
    return list(dict.fromkeys(beginnings)) or [UNSAID * length]
