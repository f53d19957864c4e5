"""Files that stand for the data of users, beside the cache of the scan; theirs are never touched."""

import hashlib
import json
from pathlib import Path
from typing import Any

from vitdense.files import cache_folder, replacing

MOST = 40
"""Letters of the name of a folder or of files, which is for people, in the name of a file of the cache."""


def keep(content: bytes, name: str) -> Path:
    """A file with this content, named after ``name`` and the content; it is written unless it is there.

    Raises:
        OSError: it cannot be written.
    """
    stem, dot, suffix = name.rpartition('.')
    path = cache_folder('data').absolute() / f'{stem[-MOST:]}-{hashlib.sha256(content).hexdigest()[:16]}{dot}{suffix}'
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part:
            part.write_bytes(content)
    return path


def keep_json(content: Any, name: str) -> Path:
    """A JSON file, see :func:`keep`."""
    return keep(json.dumps(content, separators=(',', ':')).encode('ascii'), name)
