"""Deprecated: :mod:`vitdense.config.load` has what was here."""

import warnings

from vitdense.config.load import config_path, import_vitdense, load_config

warnings.warn('vitdense.engine.config is vitdense.config.load; 0.3 does without the old name', DeprecationWarning, 2)

__all__ = ['config_path', 'import_vitdense', 'load_config']
