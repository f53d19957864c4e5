"""Folders of images and of semantic maps, as pairs of files."""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from vitdense.findings import Finding
from vitdense.names import counted, listed

from . import rules
from .class_names import find_names, read_colours
from .listing import SUFFIXES, WHOLE, files_below, lines_of
from .parts import divide, part_of_folder
from .plain_maps import Colours, Look, look, plain
from .store import keep

IMAGES = ('images', 'image', 'imgs', 'img', 'jpegimages')
MAPS = (
    *('masks', 'mask', 'labels', 'label', 'annotations', 'annotation', 'segmentationclass', 'segmentation', 'seg'),
    *('maps', 'gt', 'ground_truth'),
)
"""Names of folders, in small letters."""

BESIDE = ('annot', '_labels', '_masks', '_label', '_mask', '_annotations')
"""Ends of names of folders of maps beside those of images: ``train`` and ``trainannot``."""

ENDS = (
    '',
    *(f'{sign}{word}' for word in ('mask', 'seg', 'segmentation', 'label', 'labels', 'gt', 'L') for sign in '_-'),
)
"""Between the name of an image and the suffix of its map."""

PNG = ('.png', '.bmp', '.tif', '.tiff')
IGNORED = 255


@dataclass(frozen=True)
class Pair:
    """Image and map, relative to the root of the data; a map in the cache has its whole path."""

    image: str
    map: str


@dataclass
class MapParts:
    """Pairs of each part as lists in the cache.

    Attributes:
        root: the data.
        classes: names in the order of the labels; empty where no file has them.
        reduce_zero_label: whether 0 stands for no class; ``None`` where nothing says so.
        lists: list of pairs and number of pairs of each part.
        findings: what is wrong.
        remarks: what is worth to be said.
    """

    root: Path
    classes: tuple[str, ...]
    reduce_zero_label: bool | None
    lists: dict[str, tuple[Path, int]] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def folders(root: Path) -> list[tuple[str, Path, Path]]:
    """Part, folder of images and folder of maps of all pairs of folders; those that have images of both kinds."""
    found = []
    inner = [path for path in sorted(root.iterdir()) if path.is_dir() and not path.name.startswith('.')]
    for part, place in [(WHOLE, root), *((part_of_folder(path.name), path) for path in inner)]:
        below = {path.name.lower(): path for path in sorted(place.iterdir()) if path.is_dir()}
        images = next((below[name] for name in IMAGES if name in below), None)
        maps = next((below[name] for name in MAPS if name in below and _has_maps(below[name])), None)
        if images and maps and (part or place is root):
            found.append((part, images, maps))
    return found or list(_beside(inner))


def _beside(inner: list[Path]) -> Iterator[tuple[str, Path, Path]]:
    """Folders of parts with their maps in a folder beside each."""
    names = {path.name.lower(): path for path in inner}
    for path in inner:
        maps = next((names[path.name.lower() + end] for end in BESIDE if path.name.lower() + end in names), None)
        if part_of_folder(path.name) and maps:
            yield part_of_folder(path.name), path, maps


def _has_maps(folder: Path) -> bool:
    return any(name.lower().endswith(PNG) for _, _, names in os.walk(folder) for name in names)


def read(root: Path, fraction: float) -> MapParts:
    """The pairs of a folder; an image and its map have one name, or the map ends in ``_mask``, ``_label`` or so.

    Parts are folders named train, val and test, of images or around both; or the lists in ``ImageSets/Segmentation``.
    Names of classes are looked for in the root and beside the maps. Whether 0 stands for no class is told by numbers
    that come with the names and begin at 1, or by the maps: N is a value of them, where there are N names.

    Maps in black and white, in colours, or grey in three channels, get copies with class numbers in the cache.

    Raises:
        ValueError: a file of names holds something else.
    """
    pairs: dict[str, list[Pair]] = {}
    places = folders(root)
    found = MapParts(root, (), None)
    for part, images, maps in places:
        _pair(root, part, images, maps, pairs, found)
    _by_lists(root, pairs)
    if 'train' in pairs and pairs.get(WHOLE):
        found.remarks.append(f'{counted(len(pairs.pop(WHOLE)), "image")} beside the folders of the parts: left out')
    elif WHOLE in pairs and 'train' not in pairs:
        pairs = {WHOLE: [pair for entries in pairs.values() for pair in entries]}
    names = {part: [pair.image for pair in entries] for part, entries in pairs.items()}
    divided, note = divide(pairs, names, fraction)
    found.remarks += [note] if note else []
    seen = look([root / pair.map for entries in divided.values() for pair in entries])
    named = find_names(root, *(maps for _, _, maps in places), *(maps.parent for _, _, maps in places))
    if named:
        _classes(*named, seen, found)
    divided = _plain(root, divided, seen, read_colours(named[1]) if named else {}, found)
    for part, entries in divided.items():
        lines = ''.join(f'{pair.image}\t{pair.map}\n' for pair in entries)
        path = keep(lines.encode('utf-8', 'surrogateescape'), f'{root.name}_{part}.txt')
        found.lists[part] = (path, len(entries))
    return found


def _pair(root: Path, part: str, images: Path, maps: Path, pairs: dict[str, list[Pair]], found: MapParts) -> None:
    """Add the pairs of two folders."""
    by_key = {_key(path, maps): path for path in reversed(files_below(maps)) if path.suffix.lower() in SUFFIXES}
    by_key |= {_key(path, maps): path for path in by_key.values() if path.suffix.lower() in PNG}
    used, without = set(), []
    for image in files_below(images):
        if image.is_relative_to(maps):
            continue
        key = _key(image, images)
        semantic = next((by_key[key + end] for end in ENDS if key + end in by_key), None)
        inner = part or next(filter(None, map(part_of_folder, image.relative_to(images).parts[:-1])), WHOLE)
        if semantic is None:
            without.append((inner, image))
            continue
        used.add(semantic)
        pair = Pair(image.relative_to(root).as_posix(), semantic.relative_to(root).as_posix())
        pairs.setdefault(inner, []).append(pair)
    left = [image for inner, image in without if inner != 'test' or pairs.get('test')]
    found.findings += [Finding(rules.NO_MAP, str(image), f'none in {maps}', leave_out='image') for image in left]
    found.findings += [
        Finding(rules.NO_IMAGE, str(path), f'none in {images}', leave_out='image')
        for path in sorted(set(by_key.values()) - used)
    ]


def _key(path: Path, folder: Path) -> str:
    """The way below a folder without suffix, names of parts in one spelling."""
    *above, name = path.relative_to(folder).with_suffix('').parts
    return '/'.join([*(part_of_folder(one) or one for one in above), name])


def _by_lists(root: Path, pairs: dict[str, list[Pair]]) -> None:
    """Divide pairs as VOC's lists say."""
    lists = {part: root / 'ImageSets' / 'Segmentation' / f'{part}.txt' for part in ('train', 'val', 'test')}
    if not lists['train'].is_file() or WHOLE not in pairs:
        return
    by_stem = {Path(pair.image).stem: pair for pair in pairs.pop(WHOLE)}
    for part, path in lists.items():
        stems = lines_of(path) if path.is_file() else []
        chosen = [by_stem[stem] for stem in stems if stem in by_stem]
        if chosen:
            pairs[part] = chosen


def _classes(names: dict[int, str], path: Path, seen: Look, found: MapParts) -> None:
    """Put the names into ``found``, and what 0 stands for."""
    names = {number: name for number, name in names.items() if number != IGNORED or len(names) > IGNORED}
    if seen.binary and len(names) == 1:
        names = {0: 'background', 1: next(iter(names.values()))}
    first = min(names)
    if first > 1 or list(names) != list(range(first, first + len(names))):
        shown = listed([f'{number}: {name}' for number, name in names.items()], 8)
        raise ValueError(f'{path}: expected classes numbered from 0, or from 1 where 0 is no class, found {shown}')
    found.classes = tuple(names.values())
    found.reduce_zero_label = first == 1
    if first == 0:
        found.reduce_zero_label = max(seen.values - {IGNORED}, default=0) == len(names)
        if found.reduce_zero_label:
            found.remarks.append(f'the maps have values up to {len(names)}, of {len(names)} classes: 0 is no class')


def _plain(
    root: Path, pairs: dict[str, list[Pair]], seen: Look, colours: Colours, found: MapParts
) -> dict[str, list[Pair]]:
    """Pairs whose maps have class numbers."""
    binary = seen.binary and len(found.classes) in (0, 2) and not found.reduce_zero_label
    in_colours = bool(colours) and (seen.coloured or seen.grey)
    if not binary and not seen.grey and not in_colours:
        return pairs
    every = [root / pair.map for entries in pairs.values() for pair in entries]
    copies, faults = plain(every, root, binary, colours if in_colours else {})
    what = 'black and white: white is class 1' if binary else 'grey in three channels: the first counts'
    what = f'in the colours of {len(colours)} classes' if in_colours else what
    found.remarks.append(f'the maps are {what}, in copies in the cache')
    found.findings += [
        Finding(rules.NO_COLOUR, str(path), fault, leave_out='image') for path, fault in sorted(faults.items())
    ]
    return {
        part: [Pair(pair.image, copies[root / pair.map].as_posix()) for pair in entries if root / pair.map in copies]
        for part, entries in pairs.items()
    }
