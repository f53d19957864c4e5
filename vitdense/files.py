"""Where vitdense keeps files of its own, and how it writes any file: whole or not at all."""

import hashlib
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vitdense.names import nearest

WEIGHTS = ('.pth', '.pt', '.bin', '.safetensors', '.npz', '.pkl')
"""Suffixes of checkpoints."""

REMOTE = re.compile(r'[a-z][\w+.-]*://|hf[-_]hub:')
"""How names of files begin that are not looked for on this machine."""

LONGEST = 200
"""Bytes of a name that another one can be made of; file systems take 255."""


def cache_folder(part: str) -> Path:
    """``part`` in ``$VITDENSE_CACHE``, else in ``~/.cache/vitdense``; need not exist."""
    return Path(os.environ.get('VITDENSE_CACHE') or '~/.cache/vitdense').expanduser() / part


def checkpoints_in(folder: Path, name: str) -> str:
    """For the end of a message about a checkpoint ``name`` that is not there: those in ``folder``, nearest first."""
    there = [file.name for file in folder.glob('*') if file.suffix in WEIGHTS]
    return f'; checkpoints in {folder}: {", ".join(nearest(name, there)[:5])}' if there else ''


def check_folder(option: str, folder: str | os.PathLike) -> None:
    """Look whether files can be written to a folder that an ``option`` names and that need not exist.

    Raises:
        NotADirectoryError: it, or a folder above it, is a file.
        PermissionError: nothing can be written there.
    """
    path = Path(folder).absolute()
    above = next(place for place in (path, *path.parents) if place.exists())
    if not above.is_dir():
        raise NotADirectoryError(f'{option} {folder}: {above} is a file, expected a folder')
    if not os.access(above, os.W_OK | os.X_OK):
        raise PermissionError(f'{option} {folder}: nothing can be written to {above}')


def part_of(path: Path) -> Path:
    """What a file is called while this process writes it."""
    name = os.fsencode(path.name)
    stem = path.stem if len(name) <= LONGEST else hashlib.sha256(name).hexdigest()[:16]
    return path.with_name(f'.{stem}.{os.getpid()}.part{path.suffix}')


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """A path to write to, of the same suffix, which takes the place of ``path`` when all went well.

    Where nothing was written, ``path`` stays as it is: of several processes, only the main one may write.
    """
    part = part_of(path)
    try:
        yield part
        if part.exists():
            os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
