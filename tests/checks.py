"""Assertions that tests share."""

from collections.abc import Iterable


def every(conditions: Iterable[object]) -> bool:
    """`all` of at least one condition: what is said of nothing tests nothing.

    Raises:
        AssertionError: there is no condition.
    """
    held = [bool(condition) for condition in conditions]
    assert held, "there is nothing to check"
    return all(held)
