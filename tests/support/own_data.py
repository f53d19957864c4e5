"""Small trees of data in many formats, all of the same two objects."""

import json
from pathlib import Path

from vitdense.datasets.formats import OwnData

from .scan import WH, write_picture

DISC, SLAB = ('disc', (8.0, 6.0, 40.0, 30.0)), ('slab', (40.0, 12.0, 32.0, 24.0))
"""Class and box, as x, y, width and height in an image of 80 x 60 pixels."""

RING = [8.0, 6.0, 48.0, 6.0, 48.0, 36.0]
"""A triangle in the box of the disc."""

YOLO_LINES = f'0 {28 / 80} {21 / 60} {40 / 80} {30 / 60}\n1 {56 / 80} {24 / 60} {32 / 80} {24 / 60}\n'
YOLO_RING = '0 ' + ' '.join(str(value / WH[i % 2]) for i, value in enumerate(RING)) + '\n'

DATA_YAML = "train: images/train\nval: images/val\nnames: ['disc', 'slab']\n"
YOLO = {
    'data.yaml': DATA_YAML,
    'images/train/a.jpg': '',
    'images/val/b.jpg': '',
    'labels/train/a.txt': YOLO_LINES,
    'labels/val/b.txt': YOLO_LINES,
}


def write_tree(root: Path, files: dict[str, str]) -> Path:
    """Files by their paths; those that are empty and named as pictures are some."""
    for number, (name, text) in enumerate(files.items()):
        path = root / name
        if not text and path.suffix.lower() in ('.jpg', '.jpeg', '.png', '.bmp', '.tif', '.webp'):
            write_picture(path, number)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, 'utf-8')
    return root


def xml(*things: tuple[str, tuple[float, ...]], source: str = 'mine', more: str = '') -> str:
    """An XML file as of Pascal VOC."""
    objects = ''
    for name, (x, y, w, h) in things:
        corners = zip(('xmin', 'ymin', 'xmax', 'ymax'), (x, y, x + w, y + h), strict=True)
        box = ''.join(f'<{key}>{value:g}</{key}>' for key, value in corners)
        objects += f'\n<object><name>{name}</name>{more}<bndbox>{box}</bndbox></object>'
    size = f'<size><width>{WH[0]}</width><height>{WH[1]}</height><depth>3</depth></size>'
    return f'<annotation><source><database>{source}</database></source>{size}{objects}</annotation>'


def shapes(image: str, *things: tuple[str, tuple[float, ...]], more: list[dict] | None = None) -> str:
    """A LabelMe file."""
    found = [dict(label=name, shape_type='rectangle', points=[[x + w, y + h], [x, y]]) for name, (x, y, w, h) in things]
    return json.dumps(dict(version='5', flags={}, shapes=[*found, *(more or [])], imagePath=image, imageData=None))


def coco(*images: str, things: tuple = (DISC, SLAB), categories: tuple[str, ...] = ('disc', 'slab')) -> str:
    """A COCO file whose images all have the same objects."""
    entries = [dict(id=i, file_name=name, width=WH[0], height=WH[1]) for i, name in enumerate(images)]
    found = [
        dict(image_id=i, category_id=categories.index(name), bbox=list(box), area=box[2] * box[3], iscrowd=0)
        for i in range(len(images))
        for name, box in things
    ]
    found = [dict(id=number, **one) for number, one in enumerate(found)]
    named = [dict(id=k, name=name) for k, name in enumerate(categories)]
    return json.dumps(dict(images=entries, annotations=found, categories=named))


def content(data: OwnData) -> dict[str, dict[str, list]]:
    """Class and box of all objects by part and image."""
    found: dict[str, dict[str, list]] = {}
    for part, one in data.parts.items():
        file = json.loads(Path(one.ann_file).read_text('utf-8'))
        names = {category['id']: category['name'] for category in file['categories']}
        of_image = {image['id']: image['file_name'] for image in file['images']}
        assert all((Path(one.folder) / name).is_file() for name in of_image.values())
        found[part] = {name: [] for name in of_image.values()}
        for thing in file['annotations']:
            found[part][of_image[thing['image_id']]].append((names[thing['category_id']], tuple(thing['bbox'])))
    return found
