"""What a distribution over classes must be, and how many rows of a large table to take at a time."""

from collections.abc import Iterator

import numpy

from severity.core.errors import SeverityError

# Tables are worked through in chunks of about this many numbers, which bounds the memory beside the inputs.
CHUNK = 1 << 22


def check_posterior(posterior: numpy.ndarray, classes: int, tolerance: float = 1e-4) -> None:
    """Raise SeverityError unless `posterior` is (N, classes) with rows that are distributions."""
    if posterior.ndim != 2 or posterior.shape[1] != classes:
        raise SeverityError(f"The posterior has the shape {posterior.shape}; it must be (images, {classes} classes).")
    for rows in chunks(*posterior.shape):
        block = posterior[rows]
        # A NaN fails the comparison as well.
        wrong = ~((block >= 0).all(axis=1) & (numpy.abs(block.sum(axis=1, dtype=numpy.float64) - 1) <= tolerance))
        if wrong.any():
            row = int(numpy.flatnonzero(wrong)[0])
            raise SeverityError(
                f"The posterior of image {rows.start + row} is no distribution: smallest value {block[row].min()}, "
                f"sum {block[row].sum(dtype=numpy.float64)}. Give probabilities of 0 or more that sum to one."
            )


def chunks(rows: int, columns: int) -> Iterator[slice]:
    """Slices that cut `rows` into pieces of about CHUNK numbers, at least one row each."""
    step = max(1, CHUNK // max(1, columns))
    for start in range(0, rows, step):
        yield slice(start, min(start + step, rows))
