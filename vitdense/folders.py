"""Where vitdense keeps files of its own."""

import os
from pathlib import Path


def cache_folder(part: str) -> Path:
    """``part`` in ``$VITDENSE_CACHE``, else in ``~/.cache/vitdense``; need not exist."""
    return Path(os.environ.get('VITDENSE_CACHE') or '~/.cache/vitdense').expanduser() / part
