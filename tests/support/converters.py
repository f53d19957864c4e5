"""COCO data rewritten as YOLO, Pascal VOC and LabelMe.

``python tests/support/converters.py FORMAT COCO_FOLDER TARGET`` writes the boxes of
``annotations/instances_{train,val}.json`` with all their digits, in the order of the file.
"""

import base64
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

SPLITS = ('train', 'val')


def read(source: Path) -> Iterator[tuple[str, dict, Path, list[dict], list[str]]]:
    """Split, image, its file, its annotations and the names of all classes, of each image."""
    for split in SPLITS:
        content = json.loads((source / f'annotations/instances_{split}.json').read_text())
        names = [category['name'] for category in content['categories']]
        number = {category['id']: k for k, category in enumerate(content['categories'])}
        for image in content['images']:
            mine = [dict(one, label=number[one['category_id']]) for one in content['annotations']]
            mine = [one for one in mine if one['image_id'] == image['id']]
            yield split, image, source / split / image['file_name'], mine, names


def to_yolo(source: Path, target: Path) -> None:
    """``images/``, ``labels/`` and ``data.yaml``; polygons where there are some."""
    for split, image, file, annotations, names in read(source):
        lines = []
        for one in annotations:
            x, y, w, h = one['bbox']
            numbers = [(x + w / 2) / image['width'], (y + h / 2) / image['height'], w / image['width']]
            numbers.append(h / image['height'])
            if one.get('segmentation'):
                sides = image['width'], image['height']
                numbers = [value / sides[i % 2] for i, value in enumerate(one['segmentation'][0])]
            lines.append(' '.join([str(one['label']), *(f'{value:.9f}' for value in numbers)]))
        copy(file, target / 'images' / split)
        label = target / 'labels' / split / f'{file.stem}.txt'
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text('\n'.join(lines))
        (target / 'data.yaml').write_text(
            json.dumps(dict(path='.', train='images/train', val='images/val', names=names))
        )


def to_voc(source: Path, target: Path) -> None:
    """``JPEGImages``, ``Annotations`` and lists; xmax is x + width, as LabelImg and CVAT write it."""
    (target / 'Annotations').mkdir(parents=True)
    (target / 'ImageSets/Main').mkdir(parents=True)
    for split, image, file, annotations, names in read(source):
        root = ElementTree.Element('annotation')
        add(root, 'filename', file.name)
        size = add(root, 'size')
        for key in ('width', 'height'):
            add(size, key, image[key])
        for one in annotations:
            thing = add(root, 'object')
            add(thing, 'name', names[one['label']])
            add(thing, 'difficult', int(one.get('iscrowd', 0)))
            box = add(thing, 'bndbox')
            x, y, w, h = one['bbox']
            for key, value in dict(xmin=x, ymin=y, xmax=x + w, ymax=y + h).items():
                add(box, key, f'{value:g}')
        copy(file, target / 'JPEGImages')
        ElementTree.ElementTree(root).write(target / f'Annotations/{file.stem}.xml', encoding='utf-8')
        with open(target / f'ImageSets/Main/{split}.txt', 'a', encoding='utf-8') as listed:
            listed.write(f'{file.stem}\n')
        (target / 'labels.txt').write_text('\n'.join(names), 'utf-8')


def to_labelme(source: Path, target: Path) -> None:
    """A JSON file beside each image, in folders ``train`` and ``val``."""
    for split, image, file, annotations, names in read(source):
        shapes = []
        for one in annotations:
            x, y, w, h = one['bbox']
            kind, points = 'rectangle', [[x, y], [x + w, y + h]]
            if one.get('segmentation'):
                ring = one['segmentation'][0]
                kind, points = 'polygon', [list(point) for point in zip(ring[::2], ring[1::2], strict=True)]
            shape = dict(label=names[one['label']], points=points, group_id=None, shape_type=kind, flags={})
            shapes.append(shape)
        copy(file, target / split)
        content = dict(version='5.4.1', flags={}, shapes=shapes, imagePath=file.name)
        content |= dict(imageHeight=image['height'], imageWidth=image['width'])
        content['imageData'] = base64.b64encode(file.read_bytes()).decode()
        (target / split / f'{file.stem}.json').write_text(json.dumps(content))
        (target / 'labels.txt').write_text('\n'.join(['__ignore__', '_background_', *names]), 'utf-8')


def copy(file: Path, folder: Path) -> None:
    """Copy a file to a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(file, folder)


def add(node: ElementTree.Element, name: str, text: object = '') -> ElementTree.Element:
    """A child of an XML node."""
    child = ElementTree.SubElement(node, name)
    child.text = str(text)
    return child


CONVERTERS: dict[str, Callable[[Path, Path], None]] = dict(yolo=to_yolo, voc=to_voc, labelme=to_labelme)

if __name__ == '__main__':
    CONVERTERS[sys.argv[1]](Path(sys.argv[2]), Path(sys.argv[3]))
