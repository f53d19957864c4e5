"""COCO files in the usual trees, which are used where they lie."""

import os
import re
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from vitdense.names import counted, listed
from vitdense.untrusted.files import check_regular

from ..coco_fields import read_json
from .listing import WHOLE
from .parts import divide, part_of, part_of_folder
from .store import keep_json

OTHERS = ('person_keypoints', 'captions', 'panoptic', 'stuff', 'image_info')
"""Beginnings of files of the release that have no boxes, or the same ones again."""

HEAD = 2**14
"""Bytes of a file that are enough to tell what it is."""

MOST_FOLDERS = 1000
TRIED = 20
"""Images that are looked for in each folder."""


@dataclass
class CocoParts:
    """Annotation file, folder of images and number of images of each part.

    Attributes:
        root: the data.
        classes: names in the order of the file of the training.
        files: by part.
        masks: whether objects have them.
        remarks: what is worth to be said.
    """

    root: Path
    classes: tuple[str, ...]
    files: dict[str, tuple[Path, Path, int]]
    masks: bool
    remarks: list[str] = field(default_factory=list)


def keys_of(path: Path) -> set[str]:
    """Keys in the beginning of a JSON file that has a dict, whatever their depth."""
    try:
        check_regular(path)
        with path.open('rb') as file:
            head = file.read(HEAD).decode('utf-8-sig', 'replace').lstrip()
    except OSError:
        return set()
    return set(re.findall(r'"(\w+)"\s*:', head)) if head.startswith('{') else set()


def is_coco(path: Path) -> bool:
    """Whether the beginning of a JSON file looks like that of a COCO file."""
    keys = keys_of(path)
    return bool(keys & {'images', 'annotations', 'categories'}) and 'shapes' not in keys


def find(root: Path) -> list[Path]:
    """COCO files of a folder, in it, in ``annotations`` and in the folders beside that."""
    patterns = ('*.json', '*/*.json')
    found = [path for pattern in patterns for path in sorted(root.glob(pattern)) if is_coco(path)]
    boxes = [path for path in found if not path.name.startswith(OTHERS)]
    return boxes or found


def read(path: Path, fraction: float) -> CocoParts:
    """The parts of a COCO file or of a folder with some.

    Raises:
        ValueError: a file is no COCO file, several are of one part, or the images are not there.
    """
    if path.is_file():
        root = path.parent.parent if path.parent.name.lower() == 'annotations' else path.parent
        files = {WHOLE: path}
    else:
        root, files = path, _by_part(path)
    contents = {part: _content(file) for part, file in files.items()}
    folders = {part: _folder(root, files[part], part, content) for part, content in contents.items()}
    first = contents.get('train') or next(iter(contents.values()))
    classes, remarks = _classes(first)
    masks = any(one.get('segmentation') for content in contents.values() for one in content['annotations'])
    found = CocoParts(root, classes, {}, masks, remarks)
    source = WHOLE if WHOLE in contents else 'train'
    names = {part: [str(image.get('file_name')) for image in content['images']] for part, content in contents.items()}
    parts, note = divide({part: content['images'] for part, content in contents.items()}, names, fraction)
    found.remarks += [note] if note else []
    for part, images in parts.items():
        origin = part if part in contents and not (note and part == 'train') else source
        content, file = contents[origin], files[origin]
        if folders[origin][1] or images is not content['images']:
            file = keep_json(_subset(content, images, folders[origin][1]), f'{root.name}_{part}.json')
        found.files[part] = (file, folders[origin][0], len(images))
    return found


def _by_part(root: Path) -> dict[str, Path]:
    files: dict[str, list[Path]] = {}
    for path in find(root):
        inner = path.parent.relative_to(root).as_posix()
        files.setdefault(part_of(path.stem) or part_of_folder(inner) or WHOLE, []).append(path)
    if 'train' in files:
        files.pop(WHOLE, None)
    for part, paths in files.items():
        preferred = [path for path in paths if path.stem.startswith('instances')]
        if len(preferred or paths) > 1:
            shown = listed([path.relative_to(root).as_posix() for path in paths], 4)
            which = f'of the part {part}' if part else 'of all data'
            raise ValueError(f'{root}: several COCO files {which}: {shown}; name the one to use, --data FILE.json')
        files[part] = preferred or paths
    return {part: paths[0] for part, paths in files.items()}


def _content(path: Path) -> dict[str, Any]:
    """What the file has.

    Raises:
        ValueError: it is no COCO file.
    """
    try:
        content = read_json(path)
    except (ValueError, RecursionError, OSError) as error:
        raise ValueError(f'{path} is no JSON: {error}') from None
    keys = ('images', 'annotations', 'categories')
    if not isinstance(content, dict) or not all(isinstance(content.get(key), list) for key in keys):
        found = list(content) if isinstance(content, dict) else f'a {type(content).__name__}'
        raise ValueError(f'{path} is no COCO file: expected lists {", ".join(keys)}, found {found}')
    for key in keys:
        if not all(isinstance(one, dict) for one in content[key]):
            raise ValueError(f'{path}: {key} has entries that are no dicts')
    if not content['categories'] or not all('name' in one and 'id' in one for one in content['categories']):
        raise ValueError(f'{path}: expected categories with id and name, found {content["categories"][:2]}')
    if not content['images']:
        raise ValueError(f'{path} has no images')
    return content


def _classes(content: dict[str, Any]) -> tuple[tuple[str, ...], list[str]]:
    """Names of the categories, without the group that Roboflow puts before them."""
    categories = content['categories']
    groups = {one.get('supercategory') for one in categories}
    used = {one.get('category_id') for one in content['annotations']}
    first = categories[0]
    if len(categories) > 1 and first['name'] in groups and first['id'] not in used:
        return _names(categories[1:]), [f'the category {first["name"]!r} is the group of the others: no class']
    return _names(categories), []


def _names(categories: list[dict]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(one['name']) for one in categories))


def _folder(root: Path, file: Path, part: str, content: dict[str, Any]) -> tuple[Path, bool]:
    """Where the images of a file are, and whether only the last part of their names leads there.

    Raises:
        ValueError: nowhere.
    """
    images = content['images']
    names = [str(images[i * len(images) // TRIED].get('file_name')) for i in range(min(TRIED, len(images)))]
    names = names if len(images) > TRIED else [str(image.get('file_name')) for image in images]
    folders = [file.parent, root]
    for place, inner, _ in os.walk(root, followlinks=True):
        inner[:] = sorted(name for name in inner if not name.startswith('.'))
        folders.append(Path(place))
        if len(folders) > MOST_FOLDERS:
            break
    wanted = [folder for folder in dict.fromkeys(folders) if part and part_of_folder(folder.name) == part]
    folders = list(dict.fromkeys([file.parent, root, *wanted, *folders]))
    for shorten in (False, True):
        tried = [_last(name) for name in names] if shorten else names
        scores = [sum((folder / name).is_file() for name in tried) for folder in folders]
        if max(scores):
            return folders[scores.index(max(scores))].absolute(), shorten
    looked = listed([str(folder) for folder in folders], 4)
    raise ValueError(
        f'{file}: none of {counted(len(names), "image")} looked for is there, as {names[0]!r}; in {looked}'
    )


def _last(name: str) -> str:
    return PurePosixPath(name.replace('\\', '/')).name


def _subset(content: dict[str, Any], images: list[dict], shorten: bool) -> dict[str, Any]:
    """The content with some of its images."""
    ids = {image.get('id') for image in images}
    if shorten:
        images = [{**image, 'file_name': _last(str(image.get('file_name')))} for image in images]
    annotations = [one for one in content['annotations'] if one.get('image_id') in ids]
    return {**content, 'images': images, 'annotations': annotations}
