"""Data in all formats and their usual trees: the same objects come out, and the files stay as they are."""

import json
from pathlib import Path

import pytest
from support.own_data import DISC, SLAB, YOLO_LINES, YOLO_RING, coco, content, shapes, write_tree, xml

from vitdense.datasets.formats import read_data

BOTH = [DISC, SLAB]
DATA = "names: ['disc', 'slab']\n"
NAMES = 'disc\nslab\n'
ROBOFLOW = 'train: ../train/images\nval: ../valid/images\ntest: ../test/images\nnames: {0: disc, 1: slab}\n'

TREES = {
    'YOLO, folders': (
        'yolo',
        {
            'data.yaml': f'path: .\ntrain: images/train\nval: images/val\n{DATA}nc: 2\n',
            'images/train/a [1].JPG': '',
            'images/val/Grün b.png': '',
            'labels/train/a [1].txt': YOLO_LINES,
            'labels/val/Grün b.txt': YOLO_LINES,
        },
        {'train': ['images/train/a [1].JPG'], 'val': ['images/val/Grün b.png']},
    ),
    'YOLO, of Roboflow, names by number': (
        'yolo',
        {
            'data.yaml': ROBOFLOW,
            'train/images/a.jpg': '',
            'train/labels/a.txt': YOLO_LINES,
            'valid/images/b.jpg': '',
            'valid/labels/b.txt': YOLO_LINES,
            'test/images/c.jpg': '',
            'test/labels/c.txt': YOLO_LINES,
        },
        {'train': ['train/images/a.jpg'], 'val': ['valid/images/b.jpg'], 'test': ['test/images/c.jpg']},
    ),
    'YOLO, lists': (
        'yolo',
        {
            'mine.yml': f'train: lists/train.txt\nval: [lists/val.txt]\n{DATA}',
            'lists/train.txt': '../images/b.jpg\n\n../images/a b.jpg\n',
            'lists/val.txt': '../images/c.jpg\n',
            'images/a b.jpg': '',
            'images/b.jpg': '',
            'images/c.jpg': '',
            'labels/a b.txt': YOLO_LINES,
            'labels/b.txt': YOLO_LINES,
            'labels/c.txt': YOLO_LINES,
        },
        {'train': ['images/b.jpg', 'images/a b.jpg'], 'val': ['images/c.jpg']},
    ),
    'YOLO, labels beside the images, no YAML': (
        'yolo',
        {
            'classes.txt': NAMES,
            'train/a.jpeg': '',
            'train/a.txt': YOLO_LINES,
            'val/b.jpeg': '',
            'val/b.txt': YOLO_LINES,
        },
        {'train': ['train/a.jpeg'], 'val': ['val/b.jpeg']},
    ),
    'VOC': (
        'voc',
        {
            'JPEGImages/b (2).jpg': '',
            'JPEGImages/a.JPEG': '',
            'JPEGImages/ö.jpg': '',
            'Annotations/b (2).xml': xml(DISC, SLAB),
            'Annotations/a.xml': xml(DISC, SLAB),
            'Annotations/ö.xml': xml(DISC, SLAB),
            'SegmentationClass/a.png': '',
            'ImageSets/Main/train.txt': 'b (2)\na\n',
            'ImageSets/Main/val.txt': 'ö\n',
            'ImageSets/Main/disc_train.txt': 'a 1\n',
        },
        {'train': ['JPEGImages/b (2).jpg', 'JPEGImages/a.JPEG'], 'val': ['JPEGImages/ö.jpg']},
    ),
    'VOC, beside the images': (
        'voc',
        {
            'train/a.PNG': '',
            'train/a.xml': xml(DISC, SLAB),
            'valid/a.png': '',
            'valid/a.xml': xml(DISC, SLAB),
        },
        {'train': ['train/a.PNG'], 'val': ['valid/a.png']},
    ),
    'VOC, numbered from 1': (
        'voc',
        {
            'VOCdevkit/VOC2007/JPEGImages/1.jpg': '',
            'VOCdevkit/VOC2007/JPEGImages/2.jpg': '',
            'VOCdevkit/VOC2007/Annotations/1.xml': xml(
                ('disc', (9, 7, 39, 29)), ('slab', (41, 13, 31, 23)), source='The VOC2007 Database'
            ),
            'VOCdevkit/VOC2007/Annotations/2.xml': xml(
                ('disc', (9, 7, 39, 29)), ('slab', (41, 13, 31, 23)), source='The VOC2007 Database'
            ),
            'VOCdevkit/VOC2007/ImageSets/Main/train.txt': '1',
            'VOCdevkit/VOC2007/ImageSets/Main/val.txt': '2',
        },
        {'train': ['JPEGImages/1.jpg'], 'val': ['JPEGImages/2.jpg']},
    ),
    'LabelMe, beside the images': (
        'labelme',
        {
            'train/a ß.jpg': '',
            'train/a ß.json': shapes('a ß.jpg', DISC, SLAB),
            'val/b.BMP': '',
            'val/b.json': shapes('..\\val\\b.BMP', DISC, SLAB),
        },
        {'train': ['train/a ß.jpg'], 'val': ['val/b.BMP']},
    ),
    'LabelMe, files in a folder of their own': (
        'labelme',
        {
            'images/train/a.jpg': '',
            'images/val/b.jpg': '',
            'json/a.json': shapes('C:\\photos\\a.jpg', DISC, SLAB),
            'json/b.json': shapes('../images/val/b.jpg', DISC, SLAB),
        },
        {'train': ['images/train/a.jpg'], 'val': ['images/val/b.jpg']},
    ),
    'COCO': (
        'coco',
        {
            'annotations/instances_train2017.json': coco('a [1].jpg', 'sub dir/ä.JPG'),
            'annotations/instances_val2017.json': coco('b.jpg'),
            'annotations/person_keypoints_train2017.json': coco('b.jpg'),
            'train2017/a [1].jpg': '',
            'train2017/sub dir/ä.JPG': '',
            'val2017/b.jpg': '',
        },
        {'train': ['a [1].jpg', 'sub dir/ä.JPG'], 'val': ['b.jpg']},
    ),
    'COCO, of Roboflow': (
        'coco',
        {
            'train/_annotations.coco.json': coco('a.jpg', categories=('shapes', 'disc', 'slab')),
            'valid/_annotations.coco.json': coco('b.jpg', categories=('shapes', 'disc', 'slab')),
            'test/_annotations.coco.json': coco('c.jpg', categories=('shapes', 'disc', 'slab')),
            'train/a.jpg': '',
            'valid/b.jpg': '',
            'test/c.jpg': '',
        },
        {'train': ['a.jpg'], 'val': ['b.jpg'], 'test': ['c.jpg']},
    ),
    'COCO, names from another machine': (
        'coco',
        {
            'annotations/train.json': coco('D:\\photos\\a.jpg', '/home/me/b.jpg'),
            'annotations/val.json': coco('images/c.jpg'),
            'images/train/a.jpg': '',
            'images/train/b.jpg': '',
            'images/val/c.jpg': '',
        },
        {'train': ['a.jpg', 'b.jpg'], 'val': ['c.jpg']},
    ),
}


@pytest.mark.parametrize('tree', TREES)
def test_the_same_objects(tree, tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    kind, files, parts = TREES[tree]
    root = write_tree(tmp_path / 'my data', files)
    before = {path: path.read_bytes() for path in root.rglob('*') if path.is_file()}
    data = read_data(root, 'detection')
    assert data.findings == []
    assert data.format == kind
    found = content(data)
    assert {part: list(images) for part, images in found.items()} == parts
    assert all(things == BOTH for images in found.values() for things in images.values())
    assert tuple(name for name in data.classes if name != 'shapes') == ('disc', 'slab')
    assert not data.masks
    assert {path: path.read_bytes() for path in root.rglob('*') if path.is_file()} == before
    again = read_data(root, 'detection')
    assert again == data


def test_right_coco_files_are_used_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    root = write_tree(tmp_path / 'data', TREES['COCO'][1])
    data = read_data(root, 'detection')
    assert data.parts['train'].ann_file == str(root / 'annotations/instances_train2017.json')
    assert data.parts['train'].folder == str(root / 'train2017')
    assert not (tmp_path / 'cache').exists()


def test_the_group_of_roboflow_is_no_class(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    whole = json.loads(coco('a.jpg', 'b.jpg', categories=('shapes', 'disc', 'slab')))
    for category in whole['categories']:
        category['supercategory'] = 'shapes' if category['id'] else 'none'
    files = {'_annotations.coco.json': json.dumps(whole), 'a.jpg': '', 'b.jpg': ''}
    data = read_data(write_tree(tmp_path / 'data', files), 'detection')
    assert data.classes == ('disc', 'slab')
    assert "the category 'shapes' is the group of the others: no class" in data.remarks
    whole['annotations'][0]['category_id'] = 0
    files['_annotations.coco.json'] = json.dumps(whole)
    assert read_data(write_tree(tmp_path / 'used', files), 'detection').classes == ('shapes', 'disc', 'slab')


def test_polygons(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    files = {'classes.txt': NAMES, 'images/a.jpg': '', 'images/b.jpg': '', 'labels/a.txt': YOLO_RING}
    data = read_data(write_tree(tmp_path / 'data', files), 'detection', fraction=0.5)
    files = [json.loads(Path(part.ann_file).read_text()) for part in data.parts.values()]
    [one] = [thing for file in files for thing in file['annotations']]
    assert one['segmentation'] == [[8, 6, 48, 6, 48, 36]]
    assert one['bbox'] == [8, 6, 40, 30]
    assert one['area'] == 40 * 30 / 2
    assert data.masks
    assert data.remarks[0] == '1 image without a label file: background'


@pytest.mark.parametrize('name', ['ü' * 120, '\'{{x}}\' "[a]" #1 50% %s $HOME *?', 'train', 'images', '-val set '])
@pytest.mark.parametrize('kind', ['yolo', 'voc', 'labelme', 'coco', 'maps'])
def test_any_name_of_the_folder(kind, name, tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    files = {
        'yolo': {'classes.txt': NAMES, 'a.txt': YOLO_LINES, 'b.txt': YOLO_LINES},
        'voc': {'a.xml': xml(DISC, SLAB), 'b.xml': xml(DISC, SLAB)},
        'labelme': {'a.json': shapes('a.jpg', DISC, SLAB), 'b.json': shapes('b.jpg', DISC, SLAB)},
        'coco': {'c.json': coco('a.jpg', 'b.jpg')},
        'maps': {'images/a.jpg': '', 'images/b.jpg': '', 'masks/a.png': '', 'masks/b.png': '', 'classes.txt': NAMES},
    }[kind]
    pictures = {} if kind == 'maps' else {'a.jpg': '', 'b.jpg': ''}
    root = write_tree(tmp_path / name, pictures | files)
    data = read_data(root, 'segmentation' if kind == 'maps' else 'detection')
    assert (data.format, data.classes, data.findings) == (kind, ('disc', 'slab'), [])
    assert {part: one.images for part, one in data.parts.items()} == {'train': 1, 'val': 1}
    assert all(Path(one.ann_file).is_file() for one in data.parts.values())
    if kind != 'maps':
        assert [things for part in content(data).values() for things in part.values()] == [BOTH, BOTH]
