"""Names of classes in text, JSON and YAML files."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vitdense.untrusted.files import MOST_LABELS, read_regular
from vitdense.untrusted.yaml_text import read_yaml

from ..coco_fields import parse

FILES = (
    *('classes.txt', 'labels.txt', 'class_names.txt', 'obj.names', 'names.txt', 'label_names.txt', 'labelmap.txt'),
    *('classes.json', 'id2label.json', 'label2id.json', 'labels.json', 'names.json'),
    *('classes.yaml', 'classes.yml', 'data.yaml', 'data.yml', 'dataset.yaml', 'labels.yaml', 'objectInfo150.txt'),
)
"""Where they are looked for, in this order."""


COLOURED = re.compile(r'([^:]+):(\d+,\d+,\d+):.*')
"""A line of CVAT's ``labelmap.txt``."""


def names_file(*folders: Path) -> Path | None:
    """The first of ``FILES`` that one of the folders has."""
    for folder in folders:
        there = {path.name.lower(): path for path in folder.iterdir()} if folder.is_dir() else {}
        found = next((there[name.lower()] for name in FILES if name.lower() in there), None)
        if found:
            return found
    return None


def find_names(*folders: Path) -> tuple[dict[int, str], Path] | None:
    """Names by number in the first of ``FILES`` that one of the folders has, and the file.

    Raises:
        ValueError: the file is there, but holds something else.
    """
    path = names_file(*folders)
    return (read_names(path), path) if path else None


def read_names(path: Path) -> dict[int, str]:
    """Names by number.

    A text has a name in each line; CVAT's ``labelmap.txt`` has colours after it, ADE20K's ``objectInfo150.txt`` a table
    before it. JSON and YAML have a list, or names by number, or numbers by name; under ``names``, ``id2label``,
    ``classes`` or at the top.

    Raises:
        ValueError: there are no names, or one of them twice.
    """
    try:
        text = read_regular(path, MOST_LABELS).decode('utf-8-sig')
        if path.suffix.lower() == '.json':
            names = from_value(parse(text.encode()))
        elif path.suffix.lower() in ('.yaml', '.yml'):
            names = from_value(read_yaml(text))
        else:
            names = _from_lines(text.splitlines())
    except (ValueError, OSError) as error:
        raise ValueError(f'{path}: expected names of classes, found {" ".join(str(error).split())}') from None
    return names


def read_colours(path: Path) -> dict[tuple[int, int, int], int]:
    """Numbers of classes by red, green and blue, where a file of :func:`read_names` has colours, else nothing."""
    text = read_regular(path, MOST_LABELS).decode('utf-8-sig', 'replace')
    if path.suffix.lower() not in ('.json', '.yaml', '.yml'):
        found = [COLOURED.fullmatch(line.strip()) for line in text.splitlines() if line.strip() and line[0] != '#']
        return {_rgb(line[2].split(',')): number for number, line in enumerate(found) if line} if all(found) else {}
    value = read_yaml(text)  # it reads JSON as well
    entries = value if isinstance(value, list) else next((one for one in value.values() if isinstance(one, list)), [])
    if not all(isinstance(one, dict) and _is_rgb(one.get('color')) for one in entries):
        return {}
    return {_rgb(one['color']): int(one.get('id', number)) for number, one in enumerate(entries)}


def _is_rgb(value: Any) -> bool:
    return isinstance(value, list) and len(value) >= 3 and all(type(one) is int for one in value[:3])


def _rgb(values: Sequence[Any]) -> tuple[int, int, int]:
    red, green, blue = map(int, values[:3])
    return red, green, blue


def from_value(value: Any) -> dict[int, str]:
    """Names by number from a list or dict, see :func:`read_names`.

    Raises:
        ValueError: it is something else.
    """
    if isinstance(value, dict):
        for key in ('names', 'id2label', 'classes', 'label2id', 'labels', 'categories'):
            if isinstance(value.get(key), dict | list):
                return from_value(value[key])
        if value and all(_is_number(key) for key in value):
            return _checked({int(key): str(name) for key, name in value.items()})
        if value and all(_is_number(number) for number in value.values()):
            return _checked({int(number): str(name) for name, number in value.items()})
    if isinstance(value, list) and value and all(isinstance(one, str | int | float) for one in value):
        return _checked(dict(enumerate(map(str, value))))
    if isinstance(value, list) and value and all(isinstance(one, dict) and 'name' in one for one in value):
        return _checked({int(one.get('id', number)): str(one['name']) for number, one in enumerate(value)})
    raise ValueError(f'{str(value)[:60]!r}')


def _from_lines(lines: list[str]) -> dict[int, str]:
    lines = [line.strip() for line in lines if line.strip()]
    if lines and re.match(r'idx\b.*\bname$', lines[0], re.IGNORECASE):
        rows = [re.split(r'\s*\t\s*', line) for line in lines[1:]]
        return _checked({int(row[0]): re.split(r'[,;]', row[-1])[0].strip() for row in rows})
    if lines and lines[0].startswith('#'):
        lines = lines[1:]
    if all(map(COLOURED.fullmatch, lines)):
        lines = [line.partition(':')[0] for line in lines]
    return _checked(dict(enumerate(lines)))


def _checked(names: dict[int, str]) -> dict[int, str]:
    again = sorted({name for name in names.values() if list(names.values()).count(name) > 1})
    if again or not names or min(names) < 0:
        raise ValueError(f'{again} more than once' if again else f'{names}')
    return dict(sorted(names.items()))


def _is_number(value: Any) -> bool:
    return (isinstance(value, int) and not isinstance(value, bool)) or (isinstance(value, str) and value.isdigit())
