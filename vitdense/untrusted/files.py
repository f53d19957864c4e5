"""Reading files that may be none: devices and pipes have no end, or no beginning."""

import os
import stat
import zipfile
from collections.abc import Iterable
from pathlib import Path

SLACK = 2**28
"""Bytes that any file may make of itself, however small it is."""

TIMES = 50
"""How many times its own size a file may make of itself; weights that are packed have a quarter of theirs."""

MOST_LABELS = 2**26
"""Bytes of a file with the labels of one image, or with names."""

KINDS = (
    (stat.S_ISCHR, 'a device'),
    (stat.S_ISBLK, 'a device'),
    (stat.S_ISFIFO, 'a pipe'),
    (stat.S_ISSOCK, 'a socket'),
)


class NoFileError(OSError):
    """Something that is no regular file: it can have no end, and nobody need ever write to it.

    Attributes:
        what: it is, as the end of a sentence that begins with its path.
    """

    def __init__(self, path: str | os.PathLike, what: str) -> None:
        super().__init__(0, what, os.fspath(path))
        self.what = what

    def __reduce__(self) -> tuple:
        return type(self), (self.filename, self.what)

    def __str__(self) -> str:
        """Without the number that other errors of the system have."""
        return f'{self.filename} {self.what}'


def check_regular(path: str | os.PathLike) -> os.stat_result:
    """Look what is at a path, links followed, without opening it: that alone would wait for a pipe.

    Returns:
        Its state, of a regular file or of a folder.

    Raises:
        NoFileError: a device, a pipe or a socket.
        OSError: nothing is there, or nothing may be read.
    """
    found = os.stat(path)
    kind = next((name for is_kind, name in KINDS if is_kind(found.st_mode)), '')
    if kind:
        raise NoFileError(path, f'is {kind}, expected a regular file')
    return found


def read_regular(path: str | os.PathLike, most: int | None = None) -> bytes:
    """The content of a regular file of at most so many bytes.

    Raises:
        NoFileError: it has more; see also :func:`check_regular`.
        OSError: see there.
    """
    size = check_regular(path).st_size
    if most is not None and size > most:
        raise NoFileError(path, f'has {size} bytes, expected at most {most}')
    return Path(path).read_bytes()


def most_bytes(size: int, slack: int = SLACK) -> int:
    """Bytes that a file of ``size`` bytes may make of itself, ``slack`` at least: files that claim more are bombs."""
    return max(slack, TIMES * size)


def unpacked_size(archive: zipfile.ZipFile) -> int:
    """Bytes of all files in a zip archive, as its table says; reading gives no more of a file than that."""
    return sum(entry.file_size for entry in archive.infolist())


def check_zip(archive: zipfile.ZipFile, size: int) -> None:
    """Refuse an archive of ``size`` bytes that is a bomb.

    Raises:
        ValueError: it would unpack to more than :func:`most_bytes`; the end of a sentence that begins with its path.
    """
    unpacked = unpacked_size(archive)
    if unpacked > most_bytes(size):
        raise ValueError(f'unpacks to {unpacked} bytes and has {size} itself, expected at most {most_bytes(size)}')


def outside(path: str, roots: Iterable[str]) -> bool:
    """Whether a path leads out of all ``roots`` by its name; links within them may lead wherever they do."""
    absolute = os.path.abspath(path)
    return not any(
        absolute == root or absolute.startswith(root.rstrip('/') + '/') for root in map(os.path.abspath, roots)
    )
