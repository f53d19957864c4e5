"""YOLO: a text file of numbers beside each image, and ``data.yaml`` or ``classes.txt`` with the names."""

import math
from pathlib import Path
from typing import Any

from vitdense.findings import Finding
from vitdense.names import counted, listed
from vitdense.untrusted.files import MOST_LABELS, read_regular
from vitdense.untrusted.yaml_text import read_yaml

from . import rules
from .class_names import find_names, from_value, names_file
from .listing import SUFFIXES, Listing, Picture, Thing, add_sizes, box_of, files_below, lines_of
from .parts import by_folders, part_of

TOLERANCE = 1e-4
"""Beyond 0 and 1, for numbers that were rounded."""

LABELS = {'images': ('labels', 'Labels'), 'Images': ('Labels', 'labels'), 'IMAGES': ('LABELS', 'labels')}
"""Folders of labels for folders of images."""

SPLITS = {'train': ('train',), 'val': ('val', 'valid', 'validation'), 'test': ('test',)}
NOT_LABELS = frozenset({'classes.txt', 'labels.txt', 'notes.txt', 'readme.txt', 'train.txt', 'val.txt', 'test.txt'})


def describes(path: Path) -> bool:
    """Whether a YAML file names classes and parts, as YOLO's do."""
    try:
        content = read_yaml(read_regular(path, MOST_LABELS))
    except (ValueError, OSError):
        return False
    return isinstance(content, dict) and 'names' in content and bool({'train', 'val', 'path'} & content.keys())


def read(path: Path) -> Listing:
    """The images and labels that a ``data.yaml`` describes, or of a folder with ``classes.txt``.

    A line of a label file is ``CLASS X Y WIDTH HEIGHT`` of a box, its centre and size in shares of the image, or
    ``CLASS`` and three points or more of a polygon. Where ``kpt_shape`` is set, what follows the box is left out.

    Raises:
        ValueError: the file has no names, folders that it names are not there, or no image has labels.
    """
    keypoints = False
    remarks: list[str] = []
    if path.is_file():
        content = read_yaml(read_regular(path, MOST_LABELS))
        try:
            names = from_value(content['names'])
        except ValueError as error:
            raise ValueError(f'{path}: names: expected a list, or names by number, found {error}') from None
        keypoints = 'kpt_shape' in content
        parts, findings = _parts(path, content)
        searched = path.parent
    else:
        found = find_names(path)
        if found is None:
            raise ValueError(f'{path}: labels as of YOLO, but no names of classes: expected data.yaml or classes.txt')
        names, _ = found
        findings, searched = [], path
        parts, left_out = by_folders(files_below(path), path)
        remarks += [left_out] if left_out else []
    listing = Listing(tuple(names.values()), {}, findings, remarks)
    number = {given: label for label, given in enumerate(names)}
    labels_read: set[Path] = set()
    background = 0
    for part, images in parts.items():
        pictures = [Picture(image) for image in images]
        listing.findings += add_sizes(pictures)
        for picture in pictures:
            labels = label_file(picture.path)
            labels_read.add(labels)
            if labels.is_file():
                _read_labels(labels, picture, listing, number, keypoints)
            else:
                background += 1
        listing.parts[part] = pictures
    if background == sum(map(len, parts.values())):
        raise ValueError(f'{path}: none of {counted(background, "image")} has labels, as {min(labels_read)}')
    if background:
        listing.remarks.append(f'{counted(background, "image")} without a label file: background')
    listing.findings += _without_image(labels_read, searched)
    return listing


def label_file(image: Path) -> Path:
    """Where the labels of an image are: ``labels/`` in the place of an ``images/``, the last first, else beside it.

    Where there are none, they belong to the first of these places.
    """
    parts, places = image.with_suffix('.txt').parts, []
    for i in reversed(range(len(parts) - 1)):
        for name in LABELS.get(parts[i], ()):
            places.append(Path(*parts[:i], name, *parts[i + 1 :]))
    places.append(image.with_suffix('.txt'))
    return next((place for place in places if place.is_file()), places[0])


def _parts(path: Path, content: dict[str, Any]) -> tuple[dict[str, list[Path]], list[Finding]]:
    """Images of each part."""
    root = Path(str(content.get('path') or '.'))
    roots = [root] if root.is_absolute() else [path.parent / root]
    roots.append(path.parent)  # where path is that of another machine
    parts: dict[str, list[Path]] = {}
    findings: list[Finding] = []
    missing = []
    for part, keys in SPLITS.items():
        given = next((content[key] for key in keys if content.get(key)), None)
        if given is None:
            continue
        images: list[Path] = []
        for entry in given if isinstance(given, list) else [given]:
            place = _find(str(entry), roots)
            if place is None:
                missing.append(f'{part}: {entry}')
            elif place.is_dir():
                images += files_below(place)
            else:
                images += _listed(place, roots, findings)
        parts[part] = images
    if not parts:
        raise ValueError(f'{path}: expected train and val, folders or lists of images, found {list(content)}')
    if missing and not any(parts.values()):
        looked = listed([str(one) for one in dict.fromkeys(roots)], 3)
        raise ValueError(f'{path}: not there: {"; ".join(missing)}; looked for in {looked}')
    findings += [
        Finding(rules.LISTED, str(path), one, leave_out='image') for one in missing if not one.startswith('test: ')
    ]
    if not any(parts.values()):
        raise ValueError(f'{path}: no image in {content.get("train")}')
    return parts, findings


def _find(entry: str, roots: list[Path]) -> Path | None:
    """A file or folder that the YAML names; Roboflow writes ``../train/images`` for what lies beside the YAML."""
    names = [entry, entry.removeprefix('../')]
    return next((root / name for root in roots for name in names if (root / name).exists()), None)


def _listed(file: Path, roots: list[Path], findings: list[Finding]) -> list[Path]:
    """Images of a text file."""
    images = []
    for number, line in enumerate(lines_of(file), 1):
        if not line:
            continue
        place = _find(line, [file.parent, *roots])
        if place is None:
            findings.append(Finding(rules.LISTED, f'{file}:{number}', line, leave_out='image'))
        else:
            images.append(place)
    return images


def _without_image(labels_read: set[Path], root: Path) -> list[Finding]:
    """Label files beside those that were read that have no image."""
    folders = {path.parent for path in labels_read if path.parent.is_dir()}
    images = {path.with_suffix('') for path in labels_read}
    spare = [path for folder in sorted(folders) for path in sorted(folder.iterdir()) if path.suffix.lower() == '.txt']
    return [
        Finding(rules.NO_IMAGE, str(path), f'no {path.stem}{{{",".join(sorted(SUFFIXES)[:3])},...}}', leave_out='image')
        for path in spare
        if path.with_suffix('') not in images and path.name.lower() not in NOT_LABELS and not _is_list(path, root)
    ]


def _is_list(path: Path, root: Path) -> bool:
    return path.parent == root and bool(part_of(path.stem))


def _read_labels(path: Path, picture: Picture, listing: Listing, number: dict[int, int], keypoints: bool) -> None:
    """Add the objects of a label file to a picture, and what is wrong with it to the listing."""
    try:
        lines = read_regular(path, MOST_LABELS).decode('utf-8-sig').splitlines()
    except (OSError, UnicodeDecodeError) as error:
        listing.findings.append(Finding(rules.UNREADABLE, str(path), str(error), leave_out='image'))
        return
    for count, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f'{path}:{count}'
        found = _thing(line, where, picture.wh, number, listing.classes, keypoints)
        if isinstance(found, Thing):
            picture.things.append(found)
        else:
            listing.findings.append(found)


def _thing(
    line: str, where: str, wh: tuple[int, int], number: dict[int, int], classes: tuple[str, ...], keypoints: bool
) -> Thing | Finding:
    """The object of a line, or what is wrong with it."""
    try:
        values = [float(text) for text in line.split()]
    except ValueError:
        values = []
    numbers = values[1:5] if keypoints else values[1:]
    if len(numbers) < 4 or len(numbers) % 2 or not all(map(math.isfinite, values)) or not values[0].is_integer():
        return Finding(rules.LINE, where, repr(line.strip()[:60]), leave_out='annotation')
    given = int(values[0])
    if given not in number:
        expected = f'one of {min(number)} to {max(number)}: {listed(classes, 6)}'
        return Finding(rules.CLASS_BEYOND, where, f'class {given}', leave_out='annotation', expected=expected)
    beyond = [value for value in numbers if not -TOLERANCE <= value <= 1 + TOLERANCE]
    if beyond:
        return Finding(rules.COORDINATES, where, listed([f'{v:g}' for v in beyond], 4), leave_out='annotation')
    width, height = wh
    if len(numbers) == 4:
        x, y, w, h = numbers
        box = ((x - w / 2) * width, (y - h / 2) * height, w * width, h * height)
        return Thing(number[given], box, where)
    polygon = [value * (width, height)[i % 2] for i, value in enumerate(numbers)]
    return Thing(number[given], box_of([polygon]), where, [polygon])


def has_labels(root: Path) -> bool:
    """Whether a folder without YAML has names of classes, and label files in ``labels`` or beside images."""
    return names_file(root) is not None and any(label_file(image).is_file() for image in files_below(root)[:200])
