"""Parameters of which a few are tried in every run, and all of them in the sweep."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def but_for_the_sweep(values: Iterable, tried: Collection) -> list[Any]:
    """``values`` as parameters; those that are not in ``tried`` are left to ``pytest -m sweep``.

    Raises:
        ValueError: something in ``tried`` is not one of the ``values``.
    """
    values = list(values)
    if lost := [value for value in tried if value not in values]:
        raise ValueError(f'{lost} are not among the values')
    return [
        value
        if value in tried
        else pytest.param(*(value if isinstance(value, tuple) else (value,)), marks=pytest.mark.sweep)
        for value in values
    ]
