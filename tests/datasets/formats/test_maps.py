"""Images and semantic maps: folders, names of classes, what 0 stands for, and maps that are pictures."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from mmengine.registry import init_default_scope
from support.own_data import write_tree
from support.scan import load, write_picture

from vitdense.datasets.formats import OwnData, read_data, rules


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))


def write_map(path: Path, values: tuple[int, ...], channels: int = 1) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    bars = np.resize(np.repeat(np.array(values, np.uint8), 10), (60, 80))
    assert cv2.imwrite(str(path), bars if channels == 1 else np.stack([bars] * channels, 2))


def pairs(data: OwnData) -> dict[str, list[tuple[str, str]]]:
    """Names of image and map of each part, as the data set reads them."""
    init_default_scope('mmseg')
    found = {}
    for part, one in data.parts.items():
        node = dict(type='vitdense.PairedMapsDataset', data_root=one.folder, ann_file=one.ann_file)
        dataset = load(node | dict(data_prefix=dict(img_path='', seg_map_path=''), metainfo=dict(classes=('a', 'b'))))
        infos = [dataset.get_data_info(i) for i in range(len(dataset))]
        assert all(Path(info[key]).is_file() for info in infos for key in ('img_path', 'seg_map_path'))
        assert one.images == len(infos)
        found[part] = [(Path(info['img_path']).name, Path(info['seg_map_path']).name) for info in infos]
    return found


@pytest.mark.slow
@pytest.mark.parametrize(
    ('images', 'maps', 'found'),
    [
        (
            ['images/train/a b.JPG', 'images/train/ä[1].png', 'images/val/z.jpeg'],
            ['masks/train/a b.png', 'masks/train/ä[1]_mask.png', 'masks/val/z_mask.PNG'],
            {'train': [('a b.JPG', 'a b.png'), ('ä[1].png', 'ä[1]_mask.png')], 'val': [('z.jpeg', 'z_mask.PNG')]},
        ),
        (
            ['images/training/a.jpg', 'images/validation/b.jpg'],
            ['annotations/training/a.png', 'annotations/validation/b.png'],
            {'train': [('a.jpg', 'a.png')], 'val': [('b.jpg', 'b.png')]},
        ),
        (
            ['train/Images/a.jpg', 'val/Images/b.jpg', 'test/Images/c.jpg'],
            ['train/labels/a.png', 'val/labels/b.png', 'test/labels/c.png'],
            {'train': [('a.jpg', 'a.png')], 'val': [('b.jpg', 'b.png')], 'test': [('c.jpg', 'c.png')]},
        ),
        (
            ['train/a.png', 'val/b.png'],
            ['trainannot/a.png', 'valannot/b.png'],
            {'train': [('a.png', 'a.png')], 'val': [('b.png', 'b.png')]},
        ),
        (
            ['imgs/train/a.jpg', 'imgs/val/b.jpg'],
            ['mask/a_L.png', 'mask/b_L.png'],
            None,
        ),
    ],
)
def test_trees(tmp_path, images, maps, found):
    root = write_tree(tmp_path / 'my data', dict.fromkeys(images, '') | {'classes.txt': 'road\ncar\n'})
    for path in maps:
        write_map(root / path, (0, 1, 255))
    data = read_data(root, 'segmentation')
    assert data.format == 'maps'
    if found is None:  # maps without parts are of nobody
        assert {finding.kind for finding in data.findings} == {rules.NO_MAP, rules.NO_IMAGE}
        return
    assert data.findings == []
    assert pairs(data) == found
    assert data.classes == ('road', 'car')
    assert data.reduce_zero_label is False


def test_lists_of_voc(tmp_path):
    files = {'classes.txt': 'road\ncar\n', 'JPEGImages/a.jpg': '', 'JPEGImages/b.jpg': '', 'JPEGImages/c d.jpg': ''}
    files |= {f'ImageSets/Segmentation/{part}.txt': names for part, names in (('train', 'c d\na\n'), ('val', 'b'))}
    root = write_tree(tmp_path / 'data', files)
    for name in ('a', 'b', 'c d'):
        write_map(root / f'SegmentationClass/{name}.png', (0, 1))
    found = pairs(read_data(root, 'segmentation'))
    assert found == {'train': [('c d.jpg', 'c d.png'), ('a.jpg', 'a.png')], 'val': [('b.jpg', 'b.png')]}


CVAT = '# label:color_rgb:parts:actions\nroad:0,0,0::\ncar:9,9,9::\n'
ADE20K = 'Idx\tRatio\tTrain\tVal\tStuff\tName\n1\t0.1\t9\t1\t1\twall\n2\t0.1\t9\t1\t1\tcar, auto\n'
FLAT = {'images/a.jpg': '', 'images/b.jpg': ''}


def flat(root: Path, names: dict[str, str], values: tuple[int, ...], channels: int = 1) -> OwnData:
    write_tree(root, FLAT | names)
    for name in 'ab':
        write_map(root / f'masks/{name}.png', values, channels)
    return read_data(root, 'segmentation', fraction=0.5)


@pytest.mark.slow
@pytest.mark.parametrize(
    ('names', 'values', 'classes', 'reduced'),
    [
        ({'classes.txt': 'road\ncar\n'}, (0, 1), ('road', 'car'), False),
        ({'classes.txt': 'road\ncar\n'}, (0, 1, 2, 255), ('road', 'car'), True),
        (
            {'labelmap.txt': CVAT},
            (0, 1),
            ('road', 'car'),
            False,
        ),
        ({'id2label.json': '{"0": "road", "1": "car"}'}, (0, 1), ('road', 'car'), False),
        ({'id2label.json': '{"1": "road", "2": "car"}'}, (0, 1), ('road', 'car'), True),
        ({'classes.json': '["road", "car"]'}, (0, 1), ('road', 'car'), False),
        ({'label2id.json': '{"road": 0, "car": 1, "nothing": 255}'}, (0, 1), ('road', 'car'), False),
        ({'data.yaml': 'names: [road, car]'}, (0, 1), ('road', 'car'), False),
        ({'masks/classes.txt': 'road\ncar\n'}, (0, 1), ('road', 'car'), False),
        (
            {'objectInfo150.txt': ADE20K},
            (0, 1),
            ('wall', 'car'),
            True,
        ),
        ({'classes.json': '[{"name": "road", "color": [1]}, {"name": "car"}]'}, (0, 1), ('road', 'car'), False),
        ({}, (0, 1), (), None),
    ],
)
def test_classes_and_what_0_stands_for(tmp_path, names, values, classes, reduced):
    data = flat(tmp_path / 'data', names, values)
    assert (data.classes, data.reduce_zero_label) == (classes, reduced)
    assert {part: len(found) for part, found in pairs(data).items()} == {'train': 1, 'val': 1}


@pytest.mark.parametrize(
    ('names', 'message'),
    [
        ({'classes.txt': 'road\nroad\n'}, r"classes\.txt: expected names of classes, found \['road'\] more than once"),
        ({'id2label.json': '{"0": "road", "2": "car"}'}, r'expected classes numbered from 0, .* found 0: road, 2: car'),
        ({'classes.json': '{'}, r'classes\.json: expected names of classes, found Expecting property name'),
        ({'classes.yaml': 'names: three'}, r'classes\.yaml: expected names of classes'),
    ],
)
def test_names_that_are_none(tmp_path, names, message):
    with pytest.raises(ValueError, match=message):
        flat(tmp_path / 'data', names, (0, 1))


def loaded(data: OwnData) -> list[set[int]]:
    """Values of the maps of all parts, as mmseg loads them."""
    init_default_scope('mmseg')
    values = []
    for one in data.parts.values():
        for line in Path(one.ann_file).read_text().splitlines():
            path = Path(one.folder) / line.split('\t')[1]
            values.append(set(np.unique(cv2.imread(str(path), cv2.IMREAD_UNCHANGED)).tolist()))
            assert cv2.imread(str(path), cv2.IMREAD_UNCHANGED).ndim == 2
    return values


@pytest.mark.parametrize('names', ['crack\n', 'background\ncrack\n'])
@pytest.mark.parametrize('channels', [1, 3])
def test_black_and_white(tmp_path, names, channels):
    data = flat(tmp_path / 'data', {'classes.txt': names}, (0, 255), channels)
    assert data.classes == ('background', 'crack')
    assert loaded(data) == [{0, 1}, {0, 1}]
    assert data.remarks[-1] == 'the maps are black and white: white is class 1, in copies in the cache'
    assert read_data(tmp_path / 'data', 'segmentation', fraction=0.5) == data


def test_255_of_more_than_two_classes_is_ignored(tmp_path):
    data = flat(tmp_path / 'data', {'classes.txt': 'a\nb\nc\n'}, (0, 255))
    assert loaded(data) == [{0, 255}, {0, 255}]


def test_grey_in_three_channels(tmp_path):
    data = flat(tmp_path / 'data', {'classes.txt': 'a\nb\nc\n'}, (0, 1, 2, 255), 3)
    assert loaded(data) == [{0, 1, 2, 255}] * 2
    assert not list((tmp_path / 'data').rglob('*.png.png'))


CLASSES_AND_COLOURS = [
    ('labelmap.txt', '# label:color_rgb:parts:actions\nvoid:0,0,0::\nroad:200,10,9::\nroof:90,90,90::\n'),
    (
        'classes.json',
        '[{"name": "void", "color": [0, 0, 0]}, {"name": "road", "color": [200, 10, 9]}, '
        '{"name": "roof", "color": [90, 90, 90]}]',
    ),
]


@pytest.mark.parametrize(('file', 'text'), CLASSES_AND_COLOURS)
def test_colours(tmp_path, file, text):
    root = write_tree(tmp_path / 'data', FLAT | {'images/c.jpg': '', file: text})
    rng = np.random.default_rng(0)
    right = {name: rng.integers(0, 3, (60, 80)).astype(np.uint8) for name in 'ab'} | {'c': np.zeros((60, 80), np.uint8)}
    rgb = np.array([[0, 0, 0], [200, 10, 9], [90, 90, 90]], np.uint8)
    (root / 'masks').mkdir()
    for name, labels in right.items():
        assert cv2.imwrite(str(root / f'masks/{name}.png'), rgb[labels][..., ::-1])
    data = read_data(root, 'segmentation', fraction=0.5)
    assert (data.classes, data.reduce_zero_label, data.findings) == (('void', 'road', 'roof'), False, [])
    read = {}
    for one in data.parts.values():
        for line in Path(one.ann_file).read_text().splitlines():
            read[Path(line.split('\t')[0]).stem] = cv2.imread(line.split('\t')[1], cv2.IMREAD_UNCHANGED)
    assert read.keys() == right.keys()
    for name, labels in right.items():
        np.testing.assert_array_equal(read[name], labels)


def test_a_colour_of_no_class(tmp_path):
    root = write_tree(tmp_path / 'data', FLAT | dict(CLASSES_AND_COLOURS[:1]))
    for name in 'ab':
        write_map(root / f'masks/{name}.png', (0, 90), 3)
    picture = np.full((60, 80, 3), (9, 10, 201), np.uint8)
    assert cv2.imwrite(str(root / 'masks/b.png'), picture)
    data = read_data(root, 'segmentation', fraction=0.5)
    [finding] = data.findings
    assert (finding.kind, finding.where) == (rules.NO_COLOUR, f'{root}/masks/b.png')
    assert finding.found == 'red, green and blue 201, 10, 9'


def test_colours_without_a_list_are_left_to_the_scan(tmp_path):
    data = flat(tmp_path / 'data', {'classes.txt': 'a\nb\n'}, (0, 1))
    write_picture(tmp_path / 'data/masks/a.png', 1)
    again = read_data(tmp_path / 'data', 'segmentation', fraction=0.5)
    assert again.parts == data.parts


def test_images_and_maps_alone(tmp_path):
    root = write_tree(tmp_path / 'data', FLAT | {'images/lost.jpg': '', 'classes.txt': 'a\nb\n'})
    for name in ('a', 'b', 'spare'):
        write_map(root / f'masks/{name}.png', (0, 1))
    data = read_data(root, 'segmentation', fraction=0.5)
    assert {(finding.kind, finding.where) for finding in data.findings} == {
        (rules.NO_MAP, f'{root}/images/lost.jpg'),
        (rules.NO_IMAGE, f'{root}/masks/spare.png'),
    }
    assert sum(one.images for one in data.parts.values()) == 2


def test_a_line_without_a_tab(tmp_path):
    init_default_scope('mmseg')
    (tmp_path / 'list.txt').write_text('a.jpg\ta.png\nb.jpg\n')
    node = dict(type='vitdense.PairedMapsDataset', data_root=str(tmp_path), ann_file='list.txt')
    with pytest.raises(ValueError, match=r"list\.txt, line 2: expected IMAGE, a tab and MAP, found 'b\.jpg'"):
        load(node | dict(data_prefix=dict(img_path='', seg_map_path='')))
