"""Where vitdense keeps files of its own, and how it writes any file: whole or not at all."""

import errno
import hashlib
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
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
def replacing(path: Path, durable: bool = False) -> Iterator[Path]:
    """A path to write to, of the same suffix, which takes the place of ``path`` when all went well.

    Where nothing was written, ``path`` stays as it is: of several processes, only the main one may write.

    Args:
        path: the file.
        durable: wait until the disk has it, so that a loss of power leaves the old file or the new one.

    Raises:
        OSError: the disk does not take it; one line about ``path``, whatever a library makes of that.
    """
    part = part_of(path)
    try:
        yield part
        if part.exists():
            if durable:
                sync(part)
            os.replace(part, path)
            if durable:
                sync(path.parent)
    except Exception as error:
        if number := of_the_disk(error, path):
            raise OSError(number, f'{REASONS[number]}: {path} was not written{_free(path)}') from error
        raise
    finally:
        with suppress(OSError):  # a disk that fails; what went wrong is told by the error before
            part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until the disk has a file, or the names in a folder.

    Raises:
        OSError: the disk cannot take it; of some that is only known now.
    """
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot do it with folders
            raise
    finally:
        os.close(handle)


REASONS = {
    errno.ENOSPC: 'disk full',
    errno.EDQUOT: 'disk quota used up',
    errno.EFBIG: 'larger than a file may be (ulimit -f)',
    errno.EIO: 'the disk failed',
    errno.EROFS: 'the file system is read-only',
}


OF_PYTORCH = ('PytorchStreamWriter', 'unexpected pos')
"""What its writer of archives says of a disk that does not take them, without a number."""


def of_the_disk(error: BaseException, path: Path) -> int:
    """The number of the system's error behind one that came up while ``path`` was written; 0 for another kind."""
    one: BaseException | None = error
    while one is not None:
        number = one.errno if isinstance(one, OSError) else None
        if match := re.search(r'\(os error (\d+)\)', str(one)):  # of libraries in Rust
            number = int(match[1])
        if number in REASONS:
            return number
        one = one.__cause__ or one.__context__
    if isinstance(error, RuntimeError) and any(text in str(error) for text in OF_PYTORCH):
        with suppress(OSError):
            return errno.ENOSPC if shutil.disk_usage(path.parent).free < 2**20 else 0
    return 0


def _free(path: Path) -> str:
    """How much the disk of a file would take, for the end of a sentence."""
    with suppress(OSError):
        return f', {shutil.disk_usage(path.parent).free / 2**20:.0f} MB are free'
    return ''


@contextmanager
def telling_losses(path: Path) -> Iterator[None]:
    """Around the writing of a checkpoint: an error of the system says what is lost, and what is not.

    Raises:
        OSError: one line about ``path``.
    """
    try:
        yield
    except OSError as error:
        reason = REASONS.get(error.errno or 0, error.strerror or str(error))
        raise OSError(
            error.errno,
            f'{reason}: checkpoint {path} was not saved{_free(path)}. Earlier checkpoints are untouched; once that is '
            'mended, --resume goes on',
        ) from error
