"""Where vitdense keeps files of its own, and how it writes any file: whole or not at all."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def cache_folder(part: str) -> Path:
    """``part`` in ``$VITDENSE_CACHE``, else in ``~/.cache/vitdense``; need not exist."""
    return Path(os.environ.get('VITDENSE_CACHE') or '~/.cache/vitdense').expanduser() / part


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, of the same suffix, which takes the place of ``path`` when all went well."""
    part = path.with_name(f'.{path.stem}.part{path.suffix}')
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
