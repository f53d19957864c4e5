"""Semantic maps that are pictures of themselves: black and white, grey in three channels, or in colours."""

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
        values: all of them, without maps of several colours.
        grey: whether some have three channels that are the same.
        coloured: whether some have three channels that are not.
    """

    values: set[int]
    grey: bool
    coloured: bool

    @property
    def binary(self) -> bool:
        """Whether they are black and white: nobody ignores all that is no background."""
        return self.values == {0, WHITE}


def look(paths: Sequence[Path]) -> Look:
    """Look at some maps; those that cannot be read are left to the scan."""
    some = [paths[i * len(paths) // LOOKED_AT] for i in range(LOOKED_AT)] if len(paths) > LOOKED_AT else paths

    def one(path: Path) -> tuple[set[int], bool, bool]:
        try:
            values, grey = _read(path)
        except Exception:  # decoders raise whatever they like
            return set(), False, False
        coloured = values.ndim != 2
        return set() if coloured else set(np.unique(values).tolist()), grey, coloured

    with ThreadPoolExecutor() as threads:
        seen = list(threads.map(one, some))
    values = set().union(*(values for values, _, _ in seen))
    return Look(values, any(grey for _, grey, _ in seen), any(coloured for *_, coloured in seen))


Colours = dict[tuple[int, int, int], int]


def plain(
    paths: Sequence[Path], root: Path, binary: bool, colours: Colours
) -> tuple[dict[Path, Path], dict[Path, str]]:
    """Copies in the cache that have class numbers in one channel.

    Args:
        paths: maps below ``root``.
        binary: whether white is 1 in maps of one channel.
        colours: the numbers of red, green and blue in maps of three channels; nothing if these are grey.

    Returns:
        The copies of the maps, and what is wrong with those that have none. Maps that cannot be read are left to the
        scan.
    """
    stamps = [(path.as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    settings = (binary, sorted(colours.items()), stamps)
    digest = hashlib.sha256(repr(settings).encode('utf-8', 'surrogateescape')).hexdigest()[:16]
    folder = cache_folder('data').absolute() / f'{root.name}-{digest}'

    def convert(path: Path) -> Path | str:
        target = folder / os.path.relpath(path, root)
        target = target.with_name(f'{target.name}.png')
        if target.is_file():
            return target
        try:
            values, _ = _read(path, keep=bool(colours))
        except Exception:  # the scan tells it
            return path
        if values.ndim == 3 and colours:
            values, strange = _numbers(values, colours)
            if strange:
                return strange
        elif values.ndim == 2 and binary:
            values = (values == WHITE).astype(np.uint8)
        target.parent.mkdir(parents=True, exist_ok=True)
        with replacing(target) as part:
            Image.fromarray(values).save(part)
        return target

    with ThreadPoolExecutor() as threads:
        found = dict(zip(paths, list(threads.map(convert, paths)), strict=True))
    copies = {path: copy for path, copy in found.items() if isinstance(copy, Path)}
    return copies, {path: fault for path, fault in found.items() if isinstance(fault, str)}


def _numbers(values: np.ndarray, colours: Colours) -> tuple[np.ndarray, str]:
    """Class numbers (H, W) of colours (H, W, 3), and a colour that has none, or ''."""
    flat = values[..., 0].astype(np.int32) << 16 | values[..., 1].astype(np.int32) << 8 | values[..., 2]
    found, inverse = np.unique(flat, return_inverse=True)
    number = {red << 16 | green << 8 | blue: k for (red, green, blue), k in colours.items()}
    strange = [code for code in found.tolist() if code not in number]
    if strange:
        code = strange[0]
        return values, f'red, green and blue {code >> 16}, {code >> 8 & 255}, {code & 255}'
    table = np.array([number[code] for code in found.tolist()], np.uint8)
    return table[inverse].reshape(flat.shape), ''


def _read(path: Path, keep: bool = False) -> tuple[np.ndarray, bool]:
    """Values of a map, in one channel where all channels are the same, unless they are to be kept; and if so."""
    with Image.open(path) as image:
        values = np.asarray(image)
    if values.ndim == 3 and values.shape[2] >= 3 and keep:
        return values, False
    if values.ndim == 3:
        channels = values[..., : 1 if values.shape[2] == 2 else 3]
        if (channels == channels[..., :1]).all():
            return channels[..., 0], True
    return values, False
