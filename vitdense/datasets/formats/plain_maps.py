"""Semantic maps that are pictures of themselves: black and white, or grey in three channels."""

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vitdense.files import cache_folder, replacing

WHITE = 255
LOOKED_AT = 200
"""Maps that are opened, evenly spread."""


@dataclass
class Look:
    """What some maps have.

    Attributes:
        values: all of them, without maps of several colours, which are left to the scan.
        grey: whether some have three channels that are the same.
    """

    values: set[int]
    grey: bool

    @property
    def binary(self) -> bool:
        """Whether they are black and white: nobody ignores all that is no background."""
        return self.values == {0, WHITE}


def look(paths: Sequence[Path]) -> Look:
    """Look at some maps; those that cannot be read are left to the scan."""
    some = [paths[i * len(paths) // LOOKED_AT] for i in range(LOOKED_AT)] if len(paths) > LOOKED_AT else paths

    def one(path: Path) -> tuple[set[int], bool]:
        try:
            values, grey = _read(path)
        except Exception:  # decoders raise whatever they like
            return set(), False
        return set(np.unique(values).tolist()) if values.ndim == 2 else set(), grey

    with ThreadPoolExecutor() as threads:
        seen = list(threads.map(one, some))
    return Look(set().union(*(values for values, _ in seen)), any(grey for _, grey in seen))


def plain(paths: Sequence[Path], root: Path, binary: bool) -> list[Path]:
    """Copies in the cache that have class numbers in one channel; white is 1 where maps are ``binary``."""
    stamps = [(path.as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    digest = hashlib.sha256(repr((binary, stamps)).encode('utf-8', 'surrogateescape')).hexdigest()[:16]
    folder = cache_folder('data').absolute() / f'{root.name}-{digest}'

    def convert(path: Path) -> Path:
        target = folder / os.path.relpath(path, root)
        target = target.with_name(f'{target.name}.png')
        if target.is_file():
            return target
        try:
            values, _ = _read(path)
        except Exception:  # the scan tells it
            return path
        if binary and values.ndim == 2:
            values = (values == WHITE).astype(np.uint8)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as part:
            Image.fromarray(values).save(part)
        return target

    with ThreadPoolExecutor() as threads:
        return list(threads.map(convert, paths))


def _read(path: Path) -> tuple[np.ndarray, bool]:
    """Values of a map, in one channel where all channels are the same; and whether there were several."""
    with Image.open(path) as image:
        values = np.asarray(image)
    if values.ndim == 3:
        colours = values[..., : 1 if values.shape[2] == 2 else 3]
        if (colours == colours[..., :1]).all():
            return colours[..., 0], True
    return values, False
