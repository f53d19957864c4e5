"""Faulty data: each fault is told with file and line, all of them at once; and what is no fault."""

import json
import os
from pathlib import Path

import pytest
from support.own_data import DATA_YAML, DISC, SLAB, YOLO, YOLO_LINES, coco, content, shapes, write_tree, xml

from vitdense.datasets.formats import read_data, rules
from vitdense.findings import describe

VOC = {'a.jpg': '', 'b.jpg': '', 'a.xml': xml(DISC, SLAB), 'b.xml': xml(DISC, SLAB)}
LABELME = {'a.jpg': '', 'b.jpg': '', 'a.json': shapes('a.jpg', DISC, SLAB), 'b.json': shapes('b.jpg', DISC)}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))


@pytest.mark.parametrize(
    ('files', 'kind', 'where', 'found'),
    [
        (YOLO | {'labels/train/a.txt': f'{YOLO_LINES}7 .5 .5 .1 .1\n'}, rules.CLASS_BEYOND, 'train/a.txt:3', 'class 7'),
        (YOLO | {'labels/val/b.txt': '\n\n0 320 240 64 48'}, rules.COORDINATES, 'val/b.txt:3', '320, 240, 64, 48'),
        (YOLO | {'labels/val/b.txt': '0 .5 .5 .1'}, rules.LINE, 'val/b.txt:1', "'0 .5 .5 .1'"),
        (YOLO | {'labels/val/b.txt': 'disc .5 .5 .1 .1'}, rules.LINE, 'val/b.txt:1', "'disc .5 .5 .1 .1'"),
        (YOLO | {'labels/val/b.txt': '0.5 .5 .5 .1 .1'}, rules.LINE, 'val/b.txt:1', "'0.5 .5 .5 .1 .1'"),
        (YOLO | {'labels/val/b.txt': '0 nan .5 .1 .1'}, rules.LINE, 'val/b.txt:1', "'0 nan .5 .1 .1'"),
        (YOLO | {'labels/train/zebra.txt': YOLO_LINES}, rules.NO_IMAGE, 'labels/train/zebra.txt', 'no zebra'),
        (YOLO | {'images/train/c.jpg': 'text'}, rules.NO_SIZE, 'images/train/c.jpg', 'UnidentifiedImageError'),
        (
            YOLO
            | {
                'data.yaml': DATA_YAML.replace('images/train', 'list.txt'),
                'list.txt': 'images/train/a.jpg\nlost.jpg\n',
            },
            rules.LISTED,
            'list.txt:2',
            'lost.jpg',
        ),
        (VOC | {'b.xml': xml(DISC, ('', (1, 1, 5, 5)))}, rules.NO_NAME, 'b.xml:3', 'no name'),
        (VOC | {'b.xml': xml(DISC).replace('xmax', 'xmox')}, rules.NO_CORNERS, 'b.xml:2 (disc)', 'xmax None'),
        (VOC | {'b.xml': xml(('disc', (40, 12, -8, 9)))}, rules.NO_CORNERS, 'b.xml:2 (disc)', 'xmin 40'),
        (
            VOC | {'b.xml': '<!-- <object> -->' + xml(DISC, ('', (1, 1, 5, 5)))},
            rules.NO_NAME,
            'b.xml: object 2',
            'no name',
        ),
        (VOC | {'b.xml': xml(DISC)[:-20]}, rules.UNREADABLE, 'b.xml', ''),
        (VOC | {'c.xml': xml(DISC)}, rules.NO_IMAGE, 'c.xml', 'no image c'),
        (VOC | {'classes.txt': 'disc\nsalb\n', 'b.xml': xml(DISC)}, rules.CLASS_BEYOND, 'a.xml:3', "'slab'"),
        (VOC | {'ImageSets/Main/train.txt': 'a\nb\nc\n'}, rules.LISTED, 'train.txt:3', 'c'),
        (LABELME | {'b.json': shapes('b.jpg', ('', (1, 1, 5, 5)))}, rules.NO_NAME, 'b.json: shape 1', 'no label'),
        (
            LABELME | {'b.json': shapes('b.jpg', more=[dict(label='disc', shape_type='point', points=[[1, 2]])])},
            rules.NO_SHAPE,
            'b.json: shape 1 (disc)',
            'a point of 1 point',
        ),
        (LABELME | {'c.json': shapes('lost.jpg', DISC)}, rules.NO_IMAGE, 'c.json', "no image 'lost.jpg'"),
        (LABELME | {'c.json': '{"shapes": ['}, rules.UNREADABLE, 'c.json', 'Expecting value'),
        (LABELME | {'labels.txt': '__ignore__\ndisc\n'}, rules.CLASS_BEYOND, 'a.json: shape 2', "'slab'"),
    ],
)
def test_one_fault(tmp_path, files, kind, where, found):
    root = write_tree(tmp_path / 'data', files)
    data = read_data(root, 'detection')
    [finding] = data.findings
    assert finding.kind == kind
    assert finding.where.startswith(str(root))
    assert finding.where.endswith(where)
    assert found in finding.found
    assert finding.fatal
    assert finding.leave_out


def test_all_faults_are_told_and_counted_at_once(tmp_path):
    wrong = ''.join(f'{number} .5 .5 .1 .1\n' for number in range(2, 10))
    data = read_data(write_tree(tmp_path, YOLO | {'labels/train/a.txt': wrong, 'labels/val/b.txt': '0'}), 'detection')
    said = describe(data.findings)
    assert said[0] == f'{rules.CLASS_BEYOND}: 8, expected one of 0 to 1: disc, slab'
    assert said[1] == f'  {tmp_path}/labels/train/a.txt:1: class 2'
    assert said[6] == '  and 3 more'
    assert said[7].startswith(f'{rules.LINE}: 1, expected CLASS X Y WIDTH HEIGHT')
    assert content(data) == {'train': {'images/train/a.jpg': []}, 'val': {'images/val/b.jpg': []}}


@pytest.mark.parametrize(
    ('files', 'message'),
    [
        ({'readme.md': 'x', 'a.jpg': ''}, r'no format that is known: found 1 images, 1 \.md in a\.jpg, readme\.md'),
        ({'.keep': ''}, 'no format that is known: found an empty folder\n  known for detection: COCO'),
        (YOLO | {'a.xml': xml(DISC)}, 'has 2 formats: --format yolo or --format voc'),
        (YOLO | {'data.yaml': 'train: images/train\nval: images/val\nnames: 2\n'}, 'names: expected a list'),
        (YOLO | {'data.yaml': "train: imgs\nval: imgs/val\nnames: ['a']\n"}, r'not there: train: imgs; val: imgs/val'),
        (
            {name: text for name, text in YOLO.items() if 'labels' not in name},
            r'none of 2 images has labels, as .*/labels/train/a\.txt',
        ),
        (YOLO | {'data.yaml': "train: labels\nval: labels\nnames: ['a']\n"}, 'no image in labels'),
        ({'a.jpg': '', 'a.xml': '<annotation/>'}, 'no object has a name'),
        ({'a.json': coco('a.jpg'), 'b.json': coco('b.jpg'), 'a.jpg': ''}, r'several COCO files .*a\.json, b\.json'),
        ({'a.json': coco('a.jpg')}, r"none of 1 image looked for is there, as 'a\.jpg'"),
        ({'a.json': '{"images": [], "annotations": ['}, r'a\.json is no JSON'),
        ({'a.json': '{"images": [], "annotations": []}'}, r'expected lists images, annotations, categories, found'),
        ({'images/a.jpg': '', 'masks/a.png': ''}, 'for segmentation, but the config is for detection'),
    ],
)
def test_data_that_cannot_be_read(tmp_path, files, message):
    root = write_tree(tmp_path / 'data', files)
    with pytest.raises(ValueError, match=message):
        read_data(root, 'detection')
    assert not (tmp_path / 'cache').exists()


def test_nothing_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r'--data .*lost: no such file or folder'):
        read_data(tmp_path / 'lost', 'detection')
    with pytest.raises(ValueError, match='--format maps is for segmentation, the config is for detection'):
        read_data(write_tree(tmp_path, YOLO), 'detection', 'maps')
    with pytest.raises(ValueError, match='not of the format voc: expected Pascal VOC'):
        read_data(tmp_path, 'detection', 'voc')


def test_two_formats_and_a_choice(tmp_path):
    root = write_tree(tmp_path / 'data', YOLO | {'images/train/a.xml': xml(SLAB)})
    assert content(read_data(root, 'detection', 'yolo'))['train'] == {'images/train/a.jpg': [DISC, SLAB]}
    assert content(read_data(root, 'detection', 'voc'))['train'] == {'images/train/a.jpg': [SLAB]}


def test_an_image_without_a_label_file_is_background(tmp_path):
    data = read_data(write_tree(tmp_path / 'a', YOLO | {'images/train/c.jpg': ''}), 'detection')
    assert content(data)['train']['images/train/c.jpg'] == []
    assert data.remarks == ['1 image without a label file: background']
    data = read_data(write_tree(tmp_path / 'b', VOC | {'c.jpg': ''}), 'detection')
    assert data.remarks[0] == '1 image without an XML file: background'
    assert sum(one.images for one in data.parts.values()) == 3


def test_labels_are_found_below_a_folder_of_images_and_in_capitals(tmp_path):
    files = {'classes.txt': 'disc\nslab\n', 'a.jpg': '', 'a.txt': YOLO_LINES, 'b.jpg': '', 'b.txt': YOLO_LINES}
    data = read_data(write_tree(tmp_path / 'images/cells', files), 'detection')
    assert [things for part in content(data).values() for things in part.values()] == [[DISC, SLAB]] * 2
    assert data.remarks[1:] == []
    files = {name.replace('images', 'Images').replace('labels', 'Labels'): text for name, text in YOLO.items()}
    files['data.yaml'] = DATA_YAML.replace('images', 'Images')
    data = read_data(write_tree(tmp_path / 'capitals', files), 'detection')
    assert [things for part in content(data).values() for things in part.values()] == [[DISC, SLAB]] * 2


def test_names_in_another_encoding(tmp_path):
    root = write_tree(tmp_path / 'data', YOLO | {'data.yaml': DATA_YAML.replace('images/train', 'list.txt')})
    for folder, suffix in (('images', 'jpg'), ('labels', 'txt')):
        os.rename(
            root / f'{folder}/train/a.{suffix}', os.fsencode(root / f'{folder}/train') + f'/ä.{suffix}'.encode('latin1')
        )
    (root / 'list.txt').write_bytes('images/train/ä.jpg\nimages/train/ö.jpg\n'.encode('latin1'))
    data = read_data(root, 'detection')
    assert content(data)['train'] == {os.fsdecode('images/train/ä.jpg'.encode('latin1')): [DISC, SLAB]}
    [finding] = data.findings
    assert (finding.kind, finding.where) == (rules.LISTED, f'{root}/list.txt:2')


def test_a_link_to_a_folder_above(tmp_path):
    root = write_tree(tmp_path / 'data', VOC)
    (root / 'again').symlink_to(root)
    data = read_data(root, 'detection', fraction=0.5)
    assert {part: len(images) for part, images in content(data).items()} == {'train': 1, 'val': 1}


def test_images_of_any_size(tmp_path, monkeypatch):
    monkeypatch.setattr('PIL.Image.MAX_IMAGE_PIXELS', 100)
    assert read_data(write_tree(tmp_path / 'data', YOLO), 'detection').findings == []


def test_difficult_objects_are_crowds(tmp_path):
    files = VOC | {'a.xml': xml(DISC, more='<difficult>1</difficult>')}
    data = read_data(write_tree(tmp_path / 'data', files), 'detection', fraction=0.5)
    crowds = {}
    for part in data.parts.values():
        file = json.loads(Path(part.ann_file).read_text())
        names = {image['id']: image['file_name'] for image in file['images']}
        crowds |= {names[one['image_id']]: one['iscrowd'] for one in file['annotations']}
    assert crowds == {'a.jpg': 1, 'b.jpg': 0}


def test_shapes_of_one_group_are_one_object(tmp_path):
    left, right = [[0, 0], [10, 0], [10, 10]], [[20, 20], [30, 20], [30, 30]]
    two = [dict(label='disc', shape_type='polygon', group_id=1, points=points) for points in (left, right)]
    circle = dict(label='slab', shape_type='circle', points=[[40, 30], [40, 40]])
    files = {'a.jpg': '', 'a.json': shapes('a.jpg', more=[*two, circle]), 'b.jpg': ''}
    data = read_data(write_tree(tmp_path / 'data', files), 'detection', fraction=0.5)
    assert data.masks
    [disc, slab] = [
        one for part in data.parts.values() for one in json.loads(Path(part.ann_file).read_text())['annotations']
    ]
    assert disc['bbox'] == [0, 0, 30, 30]
    assert disc['area'] == 100
    assert len(disc['segmentation']) == 2
    assert slab['bbox'] == [30, 20, 20, 20]
    assert slab['area'] == pytest.approx(3.14159265 * 100, rel=2e-3)
