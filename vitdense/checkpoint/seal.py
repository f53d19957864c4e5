"""A check sum over the whole of a checkpoint, in the file itself.

``torch.save`` writes a zip archive, which may end in a comment. There it is, so that links, copies and other names of a
file keep it, and everything that reads checkpoints still does.
"""

import hashlib
import os
from pathlib import Path

MARK = b'vitdense sha256 '
END = b'PK\x05\x06'
"""Of a zip archive: the record of 22 bytes at its end, whose last two are the length of the comment after it."""


def seal(path: Path) -> None:
    """Append the check sum to what ``torch.save`` has just written; other files are left as they are."""
    with path.open('r+b') as file:
        size = file.seek(0, os.SEEK_END)
        if size < 22:
            return
        file.seek(-22, os.SEEK_END)
        record = file.read(22)
        if not record.startswith(END) or record[20:] != b'\0\0':
            return
        file.seek(size - 2)
        file.write((len(MARK) + 64).to_bytes(2, 'little'))
        file.flush()
        digest = _sha256(path, size)
        file.seek(size)
        file.write(MARK + digest)


def is_intact(path: Path) -> bool | None:
    """Whether a file is as it was when it was sealed; ``None`` if it has no seal."""
    length = len(MARK) + 64
    size = path.stat().st_size - length
    if size <= 0:
        return None
    with path.open('rb') as file:
        file.seek(size)
        comment = file.read(length)
    return _sha256(path, size) == comment[len(MARK) :] if comment.startswith(MARK) else None


def _sha256(path: Path, size: int) -> bytes:
    """Of the first ``size`` bytes of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with path.open('rb') as file:
        while size and (part := file.read(min(size, 2**20))):
            digest.update(part)
            size -= len(part)
    return digest.hexdigest().encode()
