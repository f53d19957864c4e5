"""Deprecated: :mod:`vitdense.config.runtime` has what was here."""

import warnings

from vitdense.config.runtime import use_runtime

warnings.warn(
    'vitdense.engine.runtime is vitdense.config.runtime; 0.3 does without the old name', DeprecationWarning, 2
)

__all__ = ['use_runtime']
