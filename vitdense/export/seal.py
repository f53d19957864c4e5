"""A check sum over the whole of an exported file, in what the file says of itself.

ONNX and safetensors have none of their own, so a bit that flips would be another weight; a ``.pt2`` has those of a zip
archive. Neither PyTorch nor the OpenMMLab packages are needed.
"""

import hashlib
import mmap
import os
from pathlib import Path

from vitdense.untrusted.files import check_regular

KEY = 'vitdense_seal'
"""Of the metadata of a file."""

MARK = b'vitdense sha256 '
DIGITS = 64

OPEN = MARK.decode() + '0' * DIGITS
"""What a file is written with, which :func:`close` puts the check sum into."""


def close(path: Path) -> None:
    """Put the check sum into a file that was written with ``OPEN`` under ``KEY``."""
    with path.open('r+b') as file, mmap.mmap(file.fileno(), 0) as content:
        place = content.find(OPEN.encode()) + len(MARK)
        content[place : place + DIGITS] = _digest(content, place)


def check(path: str | os.PathLike) -> None:
    """Look whether a file is as it was when it was closed; one without a mark may be whatever it is.

    Raises:
        ValueError: it is not.
        OSError: it is no regular file, or cannot be read.
    """
    if not check_regular(path).st_size:
        return
    with open(path, 'rb') as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        place = content.find(MARK) + len(MARK)
        if place >= len(MARK) and content[place : place + DIGITS] != _digest(content, place):
            raise ValueError(
                f'{os.fspath(path)} is damaged: its content is not that of its check sum; copy it or export it again. '
                f'A tool that changes it on purpose has to take {KEY!r} out of its metadata'
            )


def _digest(content: mmap.mmap, place: int) -> bytes:
    """SHA-256 in hexadecimal digits of all but those that begin at ``place``."""
    digest = hashlib.sha256()
    with memoryview(content) as whole, whole[:place] as before, whole[place + DIGITS :] as after:
        digest.update(before)
        digest.update(after)
    return digest.hexdigest().encode()
