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
    """A path to write to, of the same suffix, which takes the place of ``path`` when all went well.

    Where nothing was written, ``path`` stays as it is: of several processes, only the main one may write.
    """
    part = path.with_name(f'.{path.stem}.{os.getpid()}.part{path.suffix}')
    try:
        yield part
        if part.exists():
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
