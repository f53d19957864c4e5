"""Which images train and which validate."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

from vitdense.names import counted

from .listing import WHOLE

T = TypeVar('T')

ALIASES = {
    'train': ('train', 'training', 'trn'),
    'val': ('val', 'valid', 'validation', 'dev'),
    'test': ('test', 'testing'),
}
"""Names of parts in files and folders, in small letters."""

SEED = 'vitdense'
AUGMENTED = '.rf.'
"""Roboflow's copies of a picture have this in their names, and the name of the picture before it."""


def part_of(name: str) -> str:
    """'train', 'val' or 'test' if one of the words in a name says so, as in 'instances_train2017', else ''."""
    words = re.findall('[a-z]+', name.lower())
    found = {part for part, aliases in ALIASES.items() if set(words) & set(aliases)}
    return found.pop() if len(found) == 1 else ''


def part_of_folder(name: str) -> str:
    """'train', 'val' or 'test' if a folder has this name, with a year or not, else ''."""
    word = re.fullmatch(r'([a-z]+)[-_ ]?\d*', name.lower())
    return next((part for part, aliases in ALIASES.items() if word and word[1] in aliases), '')


def by_folders(images: Iterable[Path], root: Path) -> tuple[dict[str, list[Path]], str]:
    """Images below ``root`` by the first folder on their way that is named as a part.

    Returns:
        Images of each part, or all of them as ``WHOLE`` where none trains; and what was left out, or ''.
    """
    parts: dict[str, list[Path]] = {}
    for image in images:
        above = image.relative_to(root).parts[:-1]
        parts.setdefault(next(filter(None, map(part_of_folder, above)), WHOLE), []).append(image)
    if 'train' not in parts:
        return {WHOLE: sorted((image for part in parts.values() for image in part), key=Path.as_posix)}, ''
    others = parts.pop(WHOLE, [])
    return parts, f'{counted(len(others), "image")} beside the folders of the parts: left out' if others else ''


def validates(names: Sequence[str], fraction: float) -> list[bool]:
    """Of each name, whether its picture is for validation.

    It hangs on the name alone, so that pictures that are added later move no other one. Where the fraction is below one
    picture, the first by this order validates.
    """
    ranks = [_rank(name) for name in names]
    chosen = [rank < fraction for rank in ranks]
    if len(names) > 1 and not any(chosen):
        chosen[ranks.index(min(ranks))] = True
    if len(names) > 1 and all(chosen) and fraction < 1:
        chosen[ranks.index(max(ranks))] = False
    return chosen


def divide(parts: dict[str, list[T]], names: dict[str, list[str]], fraction: float) -> tuple[dict[str, list[T]], str]:
    """Parts with a validation, which is taken from the whole or the training where there is none.

    Args:
        parts: what each part has.
        names: a name of each.

    Returns:
        The parts without empty ones, and what was done, or ''.
    """
    parts = {part: entries for part, entries in parts.items() if entries}
    source = WHOLE if WHOLE in parts else 'train'
    if source not in parts or 'val' in parts:
        return parts, ''
    chosen = validates(names[source], fraction)
    trained = [one for one, is_val in zip(parts[source], chosen, strict=True) if not is_val]
    validated = [one for one, is_val in zip(parts[source], chosen, strict=True) if is_val]
    others = {part: entries for part, entries in parts.items() if part not in (WHOLE, 'train')}
    note = f'{len(validated)} of {len(chosen)} images validate, chosen by their names (--val-fraction {fraction:g})'
    divided = {'train': trained, 'val': validated, **others}
    return {part: entries for part, entries in divided.items() if entries}, note


def _rank(name: str) -> float:
    """A number from 0 to below 1 that a name always gets."""
    picture = name.partition(AUGMENTED)[0]
    digest = hashlib.sha256(f'{SEED}:{picture}'.encode('utf-8', 'surrogateescape')).digest()
    return int.from_bytes(digest[:7], 'big') / 2**56
