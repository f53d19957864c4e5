"""Mistakes in COCO files: each is named with its ids, and left out in lenient mode."""

import json
import math
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

pytest.importorskip('mmdet')

from mmdet.datasets import CocoDataset as MMDetCocoDataset
from mmengine.config import Config
from scan_helpers import CLASSES, LOAD, CocoFolder, coco_content, kinds, only

from vitdense.datasets import ensure_shapes
from vitdense.datasets.scan import DataError, drop_findings, raise_findings, scan_data
from vitdense.datasets.scan.boxes import check_annotations, mask_fault
from vitdense.datasets.scan.coco_file import CocoFile, read_coco
from vitdense.registry import DATASETS

nan, inf = math.nan, math.inf


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))


@pytest.fixture
def coco(tmp_path) -> CocoFolder:
    return CocoFolder(tmp_path / 'data')


def load(node) -> MMDetCocoDataset:
    return DATASETS.build(dict(node, pipeline=[]))


def instances(dataset) -> list[tuple]:
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    return [(info['img_id'], one['bbox_label'], *one['bbox']) for info in infos for one in info['instances']]


def test_clean_data_has_no_finding(coco):
    train, val = scan_data(coco.config(), check='full')
    assert train.findings == val.findings == []
    assert (train.key, train.dataset, train.classes) == ('train_dataloader.dataset', 'CocoDataset', CLASSES)
    assert (train.images, train.opened, val.images, val.opened) == (6, 6, 2, 2)
    assert train.per_class == dict.fromkeys(CLASSES, (6, 6))
    raise_findings([train, val])


BAD_BOXES = {
    'box with NaN or infinity': [[nan, 1, 5, 5], [1, 1, inf, 5], [1, -inf, 5, 5]],
    'box of negative size': [[40, 30, -10, 5], [40, 30, 10, -5]],
    'empty box': [[4, 3, 0, 5], [4, 3, 5, 0]],
    'absurd box': [[0, 0, 1e9, 1e9], [1e9, 0, 10, 10], [0, 0, 161, 20]],
    'box outside the image': [[80, 5, 10, 10], [5, -20, 10, 20], [200, 5, 10, 10]],
    'box beyond the edge of the image': [[70, 5, 12, 10], [-2, 5, 10, 10], [5, 50, 10, 12]],
    'box that is no four numbers': [[1, 2, 3], [1, 2, 3, 4, 5], None, 'abcd', ['1', '2', '3', '4'], [1, 2, None, 4]],
}


@pytest.mark.parametrize(('kind', 'box'), [(kind, box) for kind, boxes in BAD_BOXES.items() for box in boxes])
def test_bad_box(coco, kind, box):
    coco.content['train']['annotations'][4]['bbox'] = box
    coco.write()
    finding = only(coco.scan())
    assert (finding.kind, finding.fatal) == (kind, True)
    assert finding.where == 'annotation 5 of image 2 (2.jpg)'
    assert str(box)[:8] in finding.message
    assert '80 x 60' in finding.message


def test_several_bad_boxes_are_counted_with_their_ids_and_dropped(coco):
    boxes = [box for kind in list(BAD_BOXES)[:6] for box in BAD_BOXES[kind]]
    for annotation, box in zip(coco.content['train']['annotations'], boxes, strict=False):
        annotation['bbox'] = box
    coco.write()
    before = coco.snapshot()
    cfg = coco.config()
    reports = scan_data(cfg, check='full')
    with pytest.raises(DataError) as error:
        raise_findings(reports)
    text = str(error.value)
    assert f'{len(boxes)} faults' in text
    assert f'train_dataloader.dataset (CocoDataset, {coco.root}/train.json)' in text
    assert 'box with NaN or infinity: 3' in text
    assert 'annotation 1 of image 1 (1.jpg)' in text
    assert '--lenient' in text
    lines = drop_findings(cfg, reports, coco.root.parent / 'clean')
    assert any('box of negative size: 2' in line for line in lines)
    assert any(f'{18 - len(boxes)} of 18 annotations' in line for line in lines)
    good = coco.content['train']['annotations'][len(boxes) :]
    expected = [(ann['image_id'], ann['category_id'] - 1, *ann['bbox'][:2]) for ann in good]
    assert [row[:4] for row in instances(load(cfg.train_dataloader.dataset))] == expected
    assert coco.snapshot() == before
    assert scan_data(cfg, check='full')[0].findings == []


def test_small_overshoot_of_real_tools_is_no_fault(coco):
    for annotation, box in zip(
        coco.content['train']['annotations'],
        ([-1, 0, 20, 20], [60, 40, 21, 21], [0.5, 59, 10, 1.99], [-0.4, -0.4, 81, 61]),
        strict=False,
    ):
        annotation['bbox'] = box
    coco.write()
    assert coco.scan().findings == []


def test_official_coco_file_cannot_be_mended(coco):
    content = coco.content['train']
    content['info']['description'] = 'COCO 2017 Dataset'
    content['annotations'][0]['bbox'] = [4, 3, 0, 5]
    content['annotations'][1]['area'] = 0
    coco.write()
    report = coco.scan()
    assert kinds(report) == {'empty box': 1, 'annotation without area': 1}
    assert report.fatal == []
    assert report.per_class['circle'] == (5, 5)
    raise_findings([report])
    content['annotations'][2]['bbox'] = [0, 0, 1e9, 1e9]
    content['annotations'][3]['bbox'] = [nan, 0, 5, 5]
    content['annotations'][4]['bbox'] = [9, 9, -5, 5]
    coco.write()
    assert [finding.kind for finding in coco.scan().fatal] == ['box with NaN or infinity', 'box of negative size']


def test_unknown_references(coco):
    content = coco.content['train']
    content['annotations'][0]['image_id'] = 99
    content['annotations'][1]['image_id'] = [1]
    content['annotations'][2]['category_id'] = 7
    del content['annotations'][3]['category_id']
    coco.write()
    cfg = coco.config()
    reports = scan_data(cfg, check='full')
    assert [(f.kind.split()[-1], f.where) for f in reports[0].fatal] == [
        ('image', 'annotation 1 of image 99'),
        ('image', 'annotation 2 of image [1]'),
        ('category', 'annotation 3 of image 1 (1.jpg)'),
        ('category', 'annotation 4 of image 2 (2.jpg)'),
    ]
    drop_findings(cfg, reports, coco.root.parent / 'clean')
    assert len(instances(load(cfg.train_dataloader.dataset))) == 14


def test_ids_are_made_unique_and_missing_areas_filled(coco):
    content = coco.content['train']
    content['annotations'][4]['id'] = 1
    del content['annotations'][5]['id']
    del content['annotations'][6]['area']
    content['annotations'][7]['area'] = 0
    coco.write()
    cfg = coco.config()
    reports = scan_data(cfg, ('train',))
    assert kinds(reports[0]) == {
        'duplicate annotation id': 1,
        'annotation without id': 1,
        'annotation without area': 2,
    }
    duplicate = next(f for f in reports[0].findings if f.kind == 'duplicate annotation id')
    assert duplicate.where == 'annotation 1 of image 2 (2.jpg)'
    assert 'annotation 1 of image 1 (1.jpg)' in duplicate.message
    with pytest.raises((AssertionError, KeyError)):
        load(dict(cfg.train_dataloader.dataset, type='mmdet.CocoDataset'))
    drop_findings(cfg, reports, coco.root.parent / 'clean')
    assert len(instances(load(cfg.train_dataloader.dataset))) == 18
    clean = json.loads((coco.root.parent / 'clean/train_dataloader_dataset.json').read_text())['annotations']
    assert len({ann['id'] for ann in clean}) == 18
    assert [ann['area'] for ann in clean] == [540] * 18


def test_duplicate_images(coco):
    images = coco.content['train']['images']
    images.append(dict(images[0]))  # the same entry again
    images[2]['id'] = 2  # another file with the id of 2.jpg: annotations of 2 are nobody's, those of 3 neither
    images[5]['file_name'] = '4.jpg'
    coco.write()
    cfg = coco.config()
    reports = scan_data(cfg, ('train',), 'full')
    assert [(f.kind, f.where) for f in reports[0].fatal if 'image id' in f.kind] == [
        ('duplicate image id', 'image 2 (2.jpg)'),
        ('duplicate image id', 'image 2 (3.jpg)'),
        ('duplicate image id', 'image 1 (1.jpg)'),
    ]
    (file_name,) = [f for f in reports[0].fatal if f.kind == 'duplicate file name']
    assert file_name.where == 'image 6 (4.jpg)'
    assert 'image 4' in file_name.message
    drop_findings(cfg, reports, coco.root.parent / 'clean')
    dataset = load(cfg.train_dataloader.dataset)
    assert [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))] == [1, 4, 5]
    assert len(instances(dataset)) == 9


@pytest.mark.parametrize(
    ('key', 'value'),
    [('id', None), ('file_name', ''), ('file_name', 3), ('width', '80'), ('height', 0), ('width', nan)],
)
def test_image_without_needed_fields(coco, key, value):
    coco.content['train']['images'][1][key] = value
    coco.write()
    found = [f for f in coco.scan().fatal if f.kind == 'image without needed fields']
    assert len(found) == 1
    assert repr(value) in found[0].message


def test_box_given_twice_is_a_remark(coco):
    annotations = coco.content['train']['annotations']
    annotations.append(dict(annotations[3], id=77))
    annotations.append(dict(annotations[3], id=78, category_id=2))
    coco.write()
    finding = only(coco.scan())
    assert (finding.kind, finding.fatal) == ('box given twice', False)
    assert finding.where == 'annotation 77 of image 2 (2.jpg)'


SQUARE = [[10, 10, 20, 10, 20, 20, 10, 20]]


@pytest.mark.parametrize(
    ('mask', 'says'),
    [
        ([[10, 10, 20, 10, 20]], 'polygon of 5 numbers'),
        ([[10, 10, 20, 10]], 'polygon of 4 numbers'),
        ([[10, 10, 20, nan, 20, 20]], 'NaN'),
        ([[10, 10, 20, '3', 20, 20]], 'no number'),
        ([10, 10, 20, 10, 20, 20], 'polygon of 10 numbers'),
        (dict(size=[80, 60], counts='abc'), r'RLE of size .* \[80, 60\]'),
        (dict(size=[60, 80], counts=[10, 5]), 'do not add up'),
        (dict(size=[60, 80]), 'without counts'),
        ([], 'no segmentation'),
        ('abc', 'segmentation is a str'),
    ],
)
def test_faulty_masks_matter_where_they_are_loaded(coco, mask, says):
    for annotation in coco.content['train']['annotations']:
        annotation['segmentation'] = SQUARE
    coco.content['train']['annotations'][7]['segmentation'] = mask
    coco.write()
    with_masks = [LOAD[0], dict(LOAD[1], with_mask=True)]
    finding = only(coco.scan(pipeline=with_masks))
    assert (finding.kind, finding.fatal) == ('faulty mask', True)
    assert finding.where == 'annotation 8 of image 3 (3.jpg)'
    assert re.search(says, finding.message)
    assert not coco.scan().fatal


def test_good_masks():
    image = dict(width=4, height=3)
    assert mask_fault(SQUARE, image) == ''
    assert mask_fault(dict(size=[3, 4], counts=[2, 4, 6]), image) == ''
    assert mask_fault([], image, needed=False) == ''


@pytest.mark.parametrize(
    ('classes', 'says'),
    [
        (('circle', 'squre', 'triangle'), ["'squre' (nearest: 'square')", "no class of the config: ['square']"]),
        (('circle', 'square'), ["no class of the config: ['triangle']"]),
        ((*CLASSES, 'star'), ["not in the file: 'star'"]),
        (('a', 'b', 'c'), ["'a'", "['circle', 'square', 'triangle']"]),
    ],
)
def test_class_names(coco, classes, says):
    report = coco.scan(metainfo=dict(classes=classes))
    finding = next(f for f in report.findings if f.kind == 'class names')
    assert finding.fatal
    assert finding.where == f'{coco.root}/train.json'
    for part in says:
        assert part in finding.message
    assert str(list(classes)) in finding.message
    assert str(list(CLASSES)) in finding.message


def test_forgotten_metainfo_is_said(coco):
    finding = coco.scan(metainfo=dict()).findings[0]
    assert finding.kind == 'class names'
    assert 'metainfo=dict(classes=' in finding.message
    assert "'person'" in finding.message
    assert 'and 60 more' in finding.message


def test_classes_that_are_no_list(coco):
    with pytest.raises(ValueError, match=r"the text 'circle', expected a list of names such as \('circle',\)"):
        coco.scan(metainfo=dict(classes='circle'))
    assert "('circle',)" in coco.scan(kind='CocoDataset', metainfo=dict(classes='circle')).findings[0].message
    twice = coco.scan(metainfo=dict(classes=('circle', 'circle'))).findings[0]
    assert 'more than once' in twice.message


@pytest.mark.parametrize('kind', ['vitdense.CocoDataset', 'CocoDataset'])
def test_lenient_classes(coco, kind):
    """Labels follow the config whatever was wrong with the names, also in mmdet's class."""
    classes = ('triangle', 'sqare', 'circle')
    cfg = coco.config(kind, metainfo=dict(classes=classes))
    before = coco.snapshot()
    reports = scan_data(cfg, check='full')
    assert 'class names' in kinds(reports[0])
    drop_findings(cfg, reports, coco.root.parent / 'clean')
    for split, images in (('train', 6), ('val', 2)):
        found = instances(load(dict(cfg[f'{split}_dataloader'].dataset)) if kind[0] == 'v' else build_mmdet(cfg, split))
        assert sorted(label for _, label, *_ in found) == [0] * images + [2] * images
        assert all(x == (45 if label == 0 else 5) for _, label, x, *_ in found)
        assert cfg[f'{split}_evaluator'].ann_file == cfg[f'{split}_dataloader'].dataset.ann_file
    assert coco.snapshot() == before


def build_mmdet(cfg: Config, split: str) -> MMDetCocoDataset:
    return DATASETS.build(dict(cfg[f'{split}_dataloader'].dataset, type='mmdet.CocoDataset', pipeline=[]))


def test_order_of_the_categories(coco):
    """Row "labels follow the category order of the json": mmdet's class is wrong in silence, ours is right."""
    classes = ('square', 'circle', 'triangle')
    cfg = coco.config('CocoDataset', metainfo=dict(classes=classes))
    assert {classes[label] for _, label, x, *_ in instances(build_mmdet(cfg, 'train')) if x == 5} == {'square'}, 'wrong'
    reports = scan_data(cfg, ('train',), 'full')
    finding = only(reports[0])
    assert (finding.kind, finding.fatal) == ('class order', True)
    assert str(list(classes)) in finding.message
    assert str(list(CLASSES)) in finding.message
    drop_findings(cfg, reports, coco.root.parent / 'clean')
    assert {classes[label] for _, label, x, *_ in instances(build_mmdet(cfg, 'train')) if x == 5} == {'circle'}

    ours = coco.config(metainfo=dict(classes=classes))
    report = scan_data(ours, ('train',), 'full')[0]
    assert report.findings == []
    assert report.per_class == dict.fromkeys(classes, (6, 6))
    found = instances(load(ours.train_dataloader.dataset))
    assert {classes[label] for _, label, x, *_ in found if x == 5} == {'circle'}


def test_mmdet_takes_what_the_scan_refuses(coco):
    """Row "NaN, infinite ... boxes": mmdet drops or trains on them without a word."""
    content = coco.content['train']
    for annotation, box in zip(
        content['annotations'],
        ([nan, 1, 5, 5], [0, 0, inf, 5], [9, 9, -5, 5], [500, 5, 9, 9], [0, 0, 1e9, 1e9]),
        strict=False,
    ):
        annotation['bbox'] = box
    content['images'][4]['width'] = 300
    content['images'].append(dict(content['images'][5], id=7))
    coco.write()
    cfg = coco.config('CocoDataset')
    dataset = build_mmdet(cfg, 'train')
    found = instances(dataset)
    assert len(dataset) == 7
    assert len(found) < 18
    assert max(row[4] for row in found) >= 1e9
    found_kinds = kinds(scan_data(cfg, ('train',), 'full')[0])
    assert found_kinds == {
        'box with NaN or infinity': 2,
        'box of negative size': 1,
        'box outside the image': 1,
        'absurd box': 1,
        'wrong image size': 1,
        'duplicate file name': 1,
    }


def test_wrong_class_names_in_mmdet(coco):
    """Row "wrong class names": numpy's complaint of the bare stack, and both lists of ours."""
    wrong = dict(metainfo=dict(classes=('kreis', 'quadrat')), filter_cfg=dict(filter_empty_gt=True))
    with pytest.raises(ValueError, match='need at least one array to concatenate'):
        build_mmdet(coco.config(**wrong), 'train')
    cfg = coco.config(**wrong)
    reports = scan_data(cfg)
    assert {'class names', 'empty data set'} <= set(kinds(reports[0]))
    with pytest.raises(DataError, match='empty data set'):
        drop_findings(cfg, reports, coco.root.parent / 'clean')
    assert not (coco.root.parent / 'clean').exists()


@pytest.mark.parametrize(
    ('content', 'says'),
    [
        (b'{"images": [', 'is no JSON file'),
        (b'\xff\xd8\xff\xe0', 'is no JSON file'),
        (b'[1, 2]', 'is no COCO file: .* found a list'),
        (b'{"a": 1}', r"is no COCO file: .* found the keys \['a'\]"),
        (b'{"images": {}, "annotations": [], "categories": []}', '"images" is something else'),
        (b'{"images": [], "annotations": [3], "categories": []}', '"annotations" is something else'),
        (b'{"images": [], "annotations": [], "categories": [{"id": 1}]}', 'a category needs an id and a name'),
        (
            b'{"images": [], "annotations": [], "categories": [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]}',
            'several',
        ),
    ],
)
def test_file_that_is_no_coco_file(coco, content, says):
    (coco.root / 'train.json').write_bytes(content)
    report = coco.scan()
    with pytest.raises(DataError, match=says) as error:
        raise_findings([report])
    assert 'by hand' in str(error.value)
    assert '--lenient' not in str(error.value)
    assert re.search(says, coco.scan('off').note)


def test_folder_instead_of_a_file(coco):
    assert f'the folder {coco.root}/train' in only(coco.scan(ann_file='train')).message
    assert 'not given' in only(coco.scan(ann_file='')).message


@pytest.mark.parametrize(
    ('spoil', 'changes', 'says'),
    [
        (lambda c: c.update(images=[], annotations=[]), {}, 'no image is left'),
        (lambda c: c.update(annotations=[]), {}, 'no annotation of the classes'),
        (
            lambda c: c.update(annotations=[]),
            dict(filter_cfg=dict(filter_empty_gt=True)),
            'no image is left.*filter_cfg',
        ),
        (lambda c: None, dict(filter_cfg=dict(min_size=61)), 'no image is left.*min_size'),
    ],
)
def test_empty_split(coco, spoil, changes, says):
    spoil(coco.content['train'])
    coco.write()
    finding = only(coco.scan(**changes))
    assert (finding.kind, finding.fatal) == ('empty data set', True)
    assert re.search(says, finding.message)


def test_counts_are_those_of_the_data_set(coco):
    content = coco.content['train']
    content['annotations'][0]['iscrowd'] = 1
    content['annotations'][1]['ignore'] = True
    content['annotations'] = [ann for ann in content['annotations'] if ann['image_id'] != 4]
    coco.write()
    changes = dict(filter_cfg=dict(filter_empty_gt=True, min_size=10), indices=3)
    report = coco.scan(**changes)
    dataset = load(coco.config(**changes).train_dataloader.dataset)
    infos = [dataset.get_data_info(i) for i in range(len(dataset))]
    labels = [one['bbox_label'] for info in infos for one in info['instances'] if not one['ignore_flag']]
    assert report.images == len(dataset) == 3
    assert [count for _, count in report.per_class.values()] == np.bincount(labels).tolist() == [2, 2, 3]


def test_wrappers_are_opened(coco):
    cfg = coco.config()
    inner = cfg.train_dataloader.dataset
    other = dict(inner, ann_file='val.json', data_prefix=dict(img='val'))
    cfg.train_dataloader.dataset = dict(
        type='RepeatDataset', times=2, dataset=dict(type='ConcatDataset', datasets=[inner, other])
    )
    reports = scan_data(cfg, ('train',))
    prefix = 'train_dataloader.dataset.dataset.datasets'
    assert [(report.key, report.images) for report in reports] == [(f'{prefix}.0', 6), (f'{prefix}.1', 2)]
    coco.content['val']['annotations'][0]['bbox'] = [0, 0, 0, 0]
    coco.write()
    reports = scan_data(cfg, ('train',))
    drop_findings(cfg, reports, coco.root.parent / 'clean')
    datasets = cfg.train_dataloader.dataset.dataset.datasets
    assert datasets[0].ann_file == 'train.json'
    assert len(instances(load(datasets[1]))) == 5


def test_other_types_are_named_and_left_alone(coco):
    report = coco.scan(kind='XMLDataset')
    assert (report.note, report.findings) == ('not scanned: type XMLDataset', [])
    assert 'not local' in coco.scan(backend_args=dict(backend='petrel')).note
    with pytest.raises(KeyError, match='CocoDatset'):
        coco.scan(kind='CocoDatset')
    with pytest.raises(ValueError, match="check is 'some'"):
        coco.scan('some')


def test_check_off_counts_only(coco):
    coco.content['train']['annotations'][0]['bbox'] = [0, 0, 0, 0]
    coco.write()
    report = coco.scan('off')
    assert (report.findings, report.opened, report.note) == ([], 0, 'not checked')
    assert (report.images, report.per_class['square']) == (6, (6, 6))


def test_generated_shapes_are_written_first(tmp_path):
    dataset = dict(type='vitdense.ShapesDataset', data_root=str(tmp_path / 's'), num_train=4, num_val=2, pipeline=LOAD)
    cfg = Config(
        dict(
            default_scope='mmdet',
            train_dataloader=dict(dataset=dict(dataset, split='train')),
            val_dataloader=dict(dataset=dict(dataset, split='val')),
        )
    )
    reports = scan_data(cfg)
    assert [(report.images, report.opened, report.findings) for report in reports] == [(4, 4, []), (2, 2, [])]
    root = ensure_shapes(tmp_path / 's', load(cfg.train_dataloader.dataset).spec)
    content = json.loads((root / 'annotations/instances_train.json').read_text())
    assert sum(count for _, count in reports[0].per_class.values()) == len(content['annotations'])
    content['annotations'][0]['bbox'][2] = 0
    (root / 'annotations/instances_train.json').write_text(json.dumps(content))
    reports = scan_data(cfg)
    drop_findings(cfg, reports, tmp_path / 'clean')
    assert len(instances(load(cfg.train_dataloader.dataset))) == len(content['annotations']) - 1


number = st.one_of(st.floats(width=32), st.integers(-100, 100), st.sampled_from([0.0, 1.0, 60.0, 80.0, 10**400]))


@settings(deadline=None, max_examples=200)
@given(st.lists(st.lists(number, min_size=4, max_size=4), min_size=1, max_size=6))
def test_boxes_without_finding_are_those_that_mmdet_keeps(boxes):
    """Against mmdet's own rules: a box without finding is loaded, and no kept box is wild."""
    content = coco_content(1)
    content['annotations'] = [dict(content['annotations'][0], id=i, bbox=box) for i, box in enumerate(boxes, 1)]
    file = read_coco('f.json', json.dumps(content).encode())
    assert isinstance(file, CocoFile)
    check_annotations(file, loads_masks=False)
    found = {finding.index for finding in file.findings if finding.kind != 'box given twice'}
    dataset = MMDetCocoDataset(lazy_init=True, data_prefix=dict(img=''))
    dataset.cat_ids, dataset.cat2label = [1], {1: 0}
    for i, box in enumerate(boxes):
        if i in found:
            x, y, w, h = box
            assert not (x >= 0 and y >= 0 and 1 <= w <= 80 and 1 <= h <= 60 and x + w <= 80 and y + h <= 60)
        else:
            raw = dict(raw_img_info=dict(content['images'][0], img_id=1), raw_ann_info=[content['annotations'][i]])
            (instance,) = dataset.parse_data_info(raw)['instances']
            corners = np.array(instance['bbox'], float)
            assert (corners >= -1).all()
            assert (corners <= [81, 61, 81, 61]).all()
