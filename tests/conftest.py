"""Importing vitdense first makes mmcv importable where it has no compiled ops."""

import vitdense  # noqa: F401
