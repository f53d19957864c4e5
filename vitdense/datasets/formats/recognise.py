"""Which format a folder has."""

from collections import Counter
from pathlib import Path

from . import coco, labelme, maps, yolo
from .listing import SUFFIXES, files_below

KNOWN = {
    'coco': 'COCO (JSON with images, annotations and categories)',
    'yolo': 'YOLO (data.yaml or classes.txt, and labels/*.txt)',
    'voc': 'Pascal VOC (an XML file for each image)',
    'labelme': 'LabelMe (a JSON file of shapes for each image)',
    'maps': 'images/ and masks/, labels/ or annotations/ with a semantic map for each image',
}
"""Formats by the names that ``--format`` takes."""

TASKS = {'coco': 'detection', 'yolo': 'detection', 'voc': 'detection', 'labelme': 'detection', 'maps': 'segmentation'}
YAML = ('.yaml', '.yml')


def enter(root: Path) -> Path:
    """The folder itself, or the one within it that has everything, as archives make it."""
    while True:
        inner = [path for path in root.iterdir() if not path.name.startswith(('.', '__MACOSX'))]
        if len(inner) != 1 or not inner[0].is_dir():
            return root
        root = inner[0]


def formats_in(path: Path) -> dict[str, Path]:
    """The formats that a folder or file may be of, each with the file or folder to read."""
    if path.is_file():
        if path.suffix.lower() in YAML:
            return {'yolo': path} if yolo.describes(path) else {}
        return {'coco': path} if path.suffix.lower() == '.json' and coco.is_coco(path) else {}
    found = {}
    if coco.find(path):
        found['coco'] = path
    described = [file for file in sorted(path.iterdir()) if file.suffix.lower() in YAML and yolo.describes(file)]
    if described:
        preferred = [file for file in described if file.stem.lower() in ('data', 'dataset')]
        found['yolo'] = (preferred or described)[0]
    elif yolo.has_labels(path):
        found['yolo'] = path
    if next(iter(files_below(path, ['.xml'])), None):
        found['voc'] = path
    if any(map(labelme.is_labelme, files_below(path, ['.json'])[:20])):
        found['labelme'] = path
    if maps.folders(path):
        found['maps'] = path
    return found


def recognise(path: Path, task: str, name: str | None) -> tuple[str, Path]:
    """Format and what to read of it, for a ``task``: 'detection' or 'segmentation'.

    Raises:
        FileNotFoundError: there is no such file or folder.
        ValueError: it has no format that is known, one for another task, or several.
    """
    if not path.exists():
        raise FileNotFoundError(f'--data {path}: no such file or folder')
    root = enter(path) if path.is_dir() else path
    found = formats_in(root)
    suitable = {one: place for one, place in found.items() if TASKS[one] == task}
    if name and TASKS[name] != task:
        raise ValueError(f'--format {name} is for {TASKS[name]}, the config is for {task}')
    if name in found:
        return name, found[name]
    if name:
        raise ValueError(f'--data {path}: not of the format {name}: expected {KNOWN[name]}, found {_content(root)}')
    if len(suitable) > 1:
        options = ' or '.join(f'--format {one}' for one in suitable)
        raise ValueError(f'--data {path} has {len(suitable)} formats: {options}?')
    if suitable:
        return next(iter(suitable.items()))
    if found:
        there = ', '.join(KNOWN[one] for one in found)
        raise ValueError(f'--data {path} is {there}: for {TASKS[next(iter(found))]}, but the config is for {task}')
    known = '; '.join(text for one, text in KNOWN.items() if TASKS[one] == task)
    raise ValueError(f'--data {path}: no format that is known: found {_content(root)}\n  known for {task}: {known}')


def _content(path: Path) -> str:
    """What is there, for people."""
    if path.is_file():
        return f'a file {path.name}'
    suffixes = Counter(file.suffix.lower() or file.name for file in files_below(path, ['']))
    if not suffixes:
        return 'an empty folder'
    names = sorted(one.name + '/' * one.is_dir() for one in path.iterdir() if not one.name.startswith('.'))
    images = sum(number for suffix, number in suffixes.items() if suffix in SUFFIXES)
    others = [f'{number} {suffix}' for suffix, number in suffixes.most_common(5) if suffix not in SUFFIXES]
    more = ', ...' if len(names) > 8 else ''
    return ', '.join([f'{images} images', *others]) + f' in {", ".join(names[:8])}{more}'
