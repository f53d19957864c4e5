"""Pascal VOC: an XML file for each image."""

import re
from pathlib import Path
from xml.etree import ElementTree

from vitdense.findings import Finding
from vitdense.names import counted, listed
from vitdense.untrusted.files import MOST_LABELS, read_regular

from . import rules
from .class_names import find_names
from .listing import WHOLE, Listing, Picture, Thing, add_sizes, files_below, lines_of
from .parts import by_folders

FOLDERS = ('JPEGImages', 'images', 'Images')
LISTS = {'train': 'train', 'val': 'val', 'valid': 'val', 'trainval': WHOLE, 'test': 'test'}
"""Parts by the names of their lists."""

CORNERS = ('xmin', 'ymin', 'xmax', 'ymax')


def read(root: Path) -> Listing:
    """Images with the objects of their XML files.

    The parts are the lists in ``ImageSets/Main``, else folders named train, val and test. Classes are those of
    ``classes.txt`` or ``labels.txt``, else the names of the objects in alphabetical order. A box reaches from
    (xmin, ymin) to (xmax, ymax); PASCAL's own files number pixels from 1, and there it begins a pixel before. Objects
    marked as difficult are crowds.

    Raises:
        ValueError: no object has a name, or the lists name no image.
    """
    home = next((root / name for name in FOLDERS if (root / name).is_dir()), root)
    images = files_below(home)
    xmls = files_below(root, ['.xml'])
    by_stem: dict[str, list[Path]] = {}
    for image in images:
        by_stem.setdefault(image.stem, []).append(image)
    found = find_names(root, root / 'ImageSets', root / 'Annotations')
    names = list(found[0].values()) if found else []
    listing = Listing((), {})
    pictures: dict[Path, Picture] = {}
    read_names: list[list[str]] = []
    for path in xmls:
        found_image = _image_of(path, by_stem)
        if found_image is None:
            listing.findings.append(Finding(rules.NO_IMAGE, str(path), f'no image {path.stem}', leave_out='image'))
            continue
        picture, labels = _read_file(path, found_image, listing)
        pictures[found_image] = picture
        read_names.append(labels)
    things = [thing for picture in pictures.values() for thing in picture.things]
    every = [name for labels in read_names for name in labels]
    listing.classes = tuple(names or sorted(set(every)))
    if not listing.classes:
        raise ValueError('\n'.join([f'{root}: no object has a name', *map(str, listing.findings[:3])]))
    number = {name: label for label, name in enumerate(listing.classes)}
    for thing, name in zip(things, every, strict=True):
        thing.label = number.get(name, -1)
        if thing.label < 0:
            expected = f'one of {found[1] if found else ""}: {listed(listing.classes, 8)}'
            finding = Finding(rules.CLASS_BEYOND, thing.source, repr(name), leave_out='annotation', expected=expected)
            listing.findings.append(finding)
    for picture in pictures.values():
        picture.things = [thing for thing in picture.things if thing.label >= 0]
    listing.parts = _parts(root, home, by_stem, listing)
    background = 0
    for part, entries in listing.parts.items():
        listing.parts[part] = [pictures.get(entry.path, entry) for entry in entries]
        background += sum(entry.path not in pictures for entry in entries)
        listing.findings += add_sizes(listing.parts[part])
    if background:
        listing.remarks.append(f'{counted(background, "image")} without an XML file: background')
    return listing


def _image_of(xml: Path, by_stem: dict[str, list[Path]]) -> Path | None:
    """The image with the name of an XML file; of several the one whose folders have the most names of its own."""
    near = by_stem.get(xml.stem, [])
    return max(near, key=lambda image: (image.parent == xml.parent, len({*image.parts} & {*xml.parts})), default=None)


def _read_file(path: Path, image: Path, listing: Listing) -> tuple[Picture, list[str]]:
    """The picture of an XML file, whose things have no label yet, and the names of these."""
    picture = Picture(image)
    names: list[str] = []
    try:
        content = read_regular(path, MOST_LABELS)
        tree = ElementTree.fromstring(content)
    except (ElementTree.ParseError, OSError, ValueError) as error:
        listing.findings.append(Finding(rules.UNREADABLE, str(path), str(error), leave_out='image'))
        return picture, names
    size = [_number(tree.findtext(f'size/{key}')) for key in ('width', 'height')]
    if all(size):
        picture.wh = (int(size[0] or 0), int(size[1] or 0))
    begin = 1.0 if 'VOC20' in (tree.findtext('source/database') or '').replace(' ', '') else 0.0
    nodes = list(tree.iter('object'))
    places = [content.count(b'\n', 0, found.start()) + 1 for found in re.finditer(rb'<object\b', content)]
    exact = len(places) == len(nodes)  # else they are in a comment, or written in 16 bits a letter
    for count, node in enumerate(nodes):
        name = ' '.join((node.findtext('name') or '').split())
        where = f'{path}:{places[count]}' if exact else f'{path}: object {count + 1}'
        if not name:
            listing.findings.append(Finding(rules.NO_NAME, where, 'no name', leave_out='annotation'))
            continue
        corners = [_number(node.findtext(f'bndbox/{key}')) for key in CORNERS]
        x1, y1, x2, y2 = (value if value is not None else float('nan') for value in corners)
        if not (x2 > x1 and y2 > y1):
            shown = ', '.join(f'{key} {node.findtext(f"bndbox/{key}")}' for key in CORNERS)
            listing.findings.append(Finding(rules.NO_CORNERS, f'{where} ({name})', shown, leave_out='annotation'))
            continue
        box = (x1 - begin, y1 - begin, x2 - x1 + begin, y2 - y1 + begin)
        difficult = (node.findtext('difficult') or '0').strip().lower() in ('1', 'true', 'yes')
        picture.things.append(Thing(-1, box, where, crowd=difficult))
        names.append(name)
    return picture, names


def _number(text: str | None) -> float | None:
    try:
        return float(text or '')
    except ValueError:
        return None


def _parts(root: Path, home: Path, by_stem: dict[str, list[Path]], listing: Listing) -> dict[str, list[Picture]]:
    """Images of each part, without their objects."""
    lists = {path.stem.lower(): path for path in sorted((root / 'ImageSets').rglob('*.txt'), reverse=True)}
    lists |= {path.stem.lower(): path for path in sorted((root / 'ImageSets' / 'Main').glob('*.txt'))}
    parts: dict[str, list[Picture]] = {}
    for name, part in LISTS.items():
        if name not in lists or (part == WHOLE and 'train' in parts):
            continue
        parts[part] = []
        for number, stem in enumerate(lines_of(lists[name]), 1):
            images = by_stem.get(stem) or by_stem.get(Path(stem).stem) or []
            if images:
                parts[part].append(Picture(images[0]))
            elif stem and part != 'test':  # that of the challenge is another download
                listing.findings.append(Finding(rules.LISTED, f'{lists[name]}:{number}', stem, leave_out='image'))
    if any(parts.values()):
        return {part: pictures for part, pictures in parts.items() if pictures}
    found, left_out = by_folders(
        sorted((image for near in by_stem.values() for image in near), key=Path.as_posix), home
    )
    listing.remarks += [left_out] if left_out else []
    return {part: [Picture(image) for image in images] for part, images in found.items()}
