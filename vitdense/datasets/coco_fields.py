"""Fields of COCO files that exporters write in other ways than the release: one reading for training and evaluation."""

import json
import math
from collections.abc import Collection, Hashable, Iterable
from pathlib import Path
from typing import Any

from vitdense.untrusted.files import read_regular

FLAGS = ('iscrowd', 'ignore')
IDS = ('id', 'image_id', 'category_id')
WORDS = {
    **dict.fromkeys(('', '0', '0.0', 'false', 'no', 'none', 'null', 'nan'), False),
    **dict.fromkeys(('1', '1.0', 'true', 'yes'), True),
}


def parse(content: bytes) -> Any:
    """The value of a JSON file in UTF-8, with or without a byte order mark.

    Raises:
        ValueError: it is no JSON, or too deep for Python.
    """
    try:
        return json.loads(content.decode('utf-8-sig'))
    except RecursionError as error:
        raise ValueError(f'lists or dicts too deep within each other: {error}') from None


def flag(value: Any) -> bool | None:
    """What a flag says, as a number, a truth value or a text; empty is no. ``None`` if it says neither yes nor no."""
    if isinstance(value, str):
        return WORDS.get(value.strip().lower())
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return False
    return bool(value) if isinstance(value, int | float) and value in (0, 1) else None


def is_id(value: Any) -> bool:
    """Whether this can be the id of something: a text or a whole number, also one that is written as 1.0."""
    return type(value) is int or isinstance(value, str) or (isinstance(value, float) and value.is_integer())


def normalise(content: dict) -> None:
    """Make flags 0 or 1, whole ids integers and names of categories texts, in the place of what a file has.

    Raises:
        ValueError: a flag is neither.
    """
    for key in ('images', 'annotations', 'categories'):
        for entry in content.get(key) or ():
            for name in IDS:
                value = entry.get(name)
                if type(value) is float and value.is_integer():
                    entry[name] = int(value)
    for annotation in content.get('annotations') or ():
        for name in FLAGS:
            if type(annotation.get(name, 0)) is not int:
                said = flag(annotation[name])
                if said is None:
                    raise ValueError(
                        f'annotation {annotation.get("id")!r}: {name} is {annotation[name]!r}, expected 0 or 1'
                    )
                annotation[name] = int(said)
    for category in content.get('categories') or ():
        if 'name' in category:
            category['name'] = str(category['name'])


def categories_by_name(categories: Iterable[dict], used: Collection[Hashable]) -> dict[str, dict]:
    """Categories by their names; of several with one name the first that annotations have, else the first."""
    found: dict[str, dict] = {}
    for category in categories:
        name = str(category.get('name'))
        if name not in found or (found[name]['id'] not in used and category['id'] in used):
            found[name] = category
    return found


def read_json(path: str | Path) -> Any:
    """The value of a JSON file, see :func:`parse`."""
    return parse(read_regular(path))
