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
from pycocotools import mask as mask_api
from support.scan import CLASSES, LOAD, CocoFolder, build_mmdet, coco_content, instances, kinds, load, only

from vitdense.datasets.scan import drop_findings, raise_findings, scan_data
from vitdense.datasets.scan.boxes import check_annotations
from vitdense.datasets.scan.coco_file import CocoFile, read_coco
from vitdense.datasets.scan.masks import decode, mask_fault
from vitdense.findings import RunError

nan, inf = math.nan, math.inf


@pytest.fixture
def coco(tmp_path, monkeypatch) -> CocoFolder:
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    return CocoFolder(tmp_path / 'data')


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
    assert str(box)[:8] in finding.found
    assert '80 x 60' in finding.found


def test_several_bad_boxes_are_counted_with_their_ids_and_dropped(coco):
    boxes = [box for kind in list(BAD_BOXES)[:5] for box in BAD_BOXES[kind]]
    for annotation, box in zip(coco.content['train']['annotations'], boxes, strict=False):
        annotation['bbox'] = box
    coco.write()
    before = coco.snapshot()
    cfg = coco.config()
    reports = scan_data(cfg, check='full')
    with pytest.raises(RunError) as error:
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


def as_release(coco: CocoFolder) -> dict:
    """The training file with names and ids as the files of the COCO release have them."""
    content = coco.content['train']
    content['info']['description'] = 'COCO 2017 Dataset'
    content['categories'] = [dict(id=k, name=name) for k, name in ((1, 'person'), (2, 'bicycle'), (3, 'car'))]
    for image in content['images']:
        name = f'{image["id"]:012}.jpg'
        (coco.root / 'train' / image['file_name']).rename(coco.root / 'train' / name)
        image['file_name'] = name
    return content


def test_copied_description_does_not_make_a_release(coco):
    """Files of users have COCO's info because they started from a copy; the content decides."""
    content = coco.content['train']
    content['info']['description'] = 'COCO 2017 Dataset'
    content['annotations'][0]['bbox'] = [900, 700, 30, 30]
    coco.write()
    assert [finding.kind for finding in coco.scan().fatal] == ['box outside the image']
    as_release(coco)
    content['annotations'][0]['bbox'] = [900, 700, 30, 30]
    coco.write()
    classes = dict(classes=('person', 'bicycle', 'car'))
    assert coco.scan(metainfo=classes).fatal == []
    content['categories'][0]['name'] = 'Person'
    coco.write()
    assert coco.scan(metainfo=dict(classes=('Person', 'bicycle', 'car'))).fatal


def test_official_coco_file_cannot_be_mended(coco):
    content = as_release(coco)
    classes = dict(classes=('person', 'bicycle', 'car'))
    content['annotations'][0]['bbox'] = [4, 3, 0, 5]
    content['annotations'][1]['area'] = 0
    coco.write()
    report = coco.scan(metainfo=classes)
    assert kinds(report) == {'empty box': 1, 'annotation without area': 1}
    assert report.fatal == []
    assert report.per_class['person'] == (5, 5)
    raise_findings([report])
    content['annotations'][2]['bbox'] = [0, 0, 1e9, 1e9]
    content['annotations'][3]['bbox'] = [nan, 0, 5, 5]
    content['annotations'][4]['bbox'] = [9, 9, -5, 5]
    coco.write()
    assert [finding.kind for finding in coco.scan(metainfo=classes).fatal] == [
        'box with NaN or infinity',
        'box of negative size',
    ]


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
    assert duplicate.found.startswith('annotations[0] (image 1, category 1, bbox [5, 11, 18, 30]) and annotations[4] (')
    assert 'image 2, category 2, bbox [25, 12, 18, 30])' in duplicate.found
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
    assert 'image 4' in file_name.found
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
    assert repr(value) in found[0].found


@pytest.mark.parametrize('share', ['all', 'of two images'])
def test_boxes_relative_to_the_image(coco, share):
    """mmdet drops them as thinner than a pixel, and trains on what is left."""
    annotations = coco.content['train']['annotations']
    for annotation in annotations if share == 'all' else annotations[:6]:
        x, y, w, h = annotation['bbox']
        annotation['bbox'] = [x / 80, y / 60, w / 80, h / 60]
    coco.write()
    found = [finding for finding in coco.scan().fatal if finding.kind != 'empty data set']
    assert {finding.kind for finding in found} == {'box relative to the image'}
    assert len(found) == (18 if share == 'all' else 6)
    with pytest.raises(RunError) as error:
        raise_findings([coco.scan()])
    assert 'empty data set' not in str(error.value), 'it follows from the boxes'


def test_thin_boxes_are_not_relative_ones(coco):
    coco.content['train']['annotations'][0]['bbox'] = [0.1, 0.2, 0.5, 0.5]
    coco.write()
    assert kinds(coco.scan()) == {'box thinner than a pixel': 1}


def test_faults_of_an_image_are_not_told_of_its_annotations(coco):
    coco.content['train']['images'][1]['height'] = None
    coco.write()
    assert kinds(coco.scan()) == {'image without needed fields': 1}


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
        ([10, 10, 20, 10, 20, 20], 'a flat list of 6 numbers, where a list of polygons'),
        ([[0.125, 0.2, 0.3, 0.2, 0.3, 0.5]], r'mask reaches from .* the box is .*, relative to the image'),
        ([[60, 10, 70, 10, 70, 20, 60, 20]], r'mask reaches from \(60.0, 10.0\) to \(70.0, 20.0\), the box is \[25'),
        ([[30, 20, 30, 20, 30, 20]], 'without a pixel'),
        (dict(size=[60, 80], counts=[4800]), 'without a pixel'),
        (dict(size=[80, 60], counts='abc'), r'RLE of size .* \[80, 60\]'),
        (dict(size=[60, 80], counts=[10, 5]), 'do not add up'),
        (dict(size=[60, 80]), 'without counts'),
        ([], 'no segmentation'),
        ('abc', 'segmentation is a str'),
    ],
)
def test_faulty_masks_matter_where_they_are_loaded(coco, mask, says):
    for annotation in coco.content['train']['annotations']:
        x, y, w, h = annotation['bbox']
        annotation['segmentation'] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
    coco.content['train']['annotations'][7]['segmentation'] = mask  # its box is 18 x 30 at (25, 13)
    coco.write()
    with_masks = [LOAD[0], dict(LOAD[1], with_mask=True)]
    finding = only(coco.scan(pipeline=with_masks))
    assert (finding.kind, finding.fatal) == ('faulty mask', True)
    assert finding.where == 'annotation 8 of image 3 (3.jpg)'
    assert re.search(says, finding.found)
    assert not coco.scan().fatal


def test_cut_off_rle_is_found_and_a_whole_one_is_decoded_as_pycocotools_does(coco):
    rng = np.random.default_rng(0)
    mask = np.zeros((60, 80), np.uint8, order='F')
    mask[13:43, 25:43] = rng.random((30, 18)) < 0.7
    rle = mask_api.encode(mask)
    text = rle['counts'].decode()
    runs = np.flatnonzero(np.diff(mask.ravel('F'), prepend=0))
    assert decode(text) == np.diff(np.r_[0, runs, mask.size]).tolist()
    with_masks = [LOAD[0], dict(LOAD[1], with_mask=True)]
    for annotation in coco.content['train']['annotations']:
        annotation['segmentation'] = [[0, 0, 80, 0, 80, 60, 0, 60]]  # loose, but around the box
        annotation['bbox'] = [5, 5, 60, 50]
    broken = coco.content['train']['annotations'][7]
    broken.update(bbox=[25, 13, 18, 30], segmentation=dict(size=[60, 80], counts=text))
    coco.write()
    assert {f.kind for f in coco.scan(pipeline=with_masks).findings} <= {'box given twice'}
    for cut in (text[:-1], text[:-3], text[: len(text) // 2], f'{text}~', f'{text}\x7f'):
        broken['segmentation']['counts'] = cut
        coco.write()
        (finding,) = coco.scan(pipeline=with_masks).fatal
        assert finding.where == 'annotation 8 of image 3 (3.jpg)'
        assert re.search('add up|cut off', finding.found)


@settings(deadline=None, max_examples=100)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 40))
def test_run_lengths_are_those_of_pycocotools(seed, height, width):
    rng = np.random.default_rng(seed)
    mask = np.asfortranarray(rng.random((height, width)) < rng.random(), np.uint8)
    rle = mask_api.encode(mask)
    lengths = decode(rle['counts'].decode())
    pixels = np.repeat(np.arange(len(lengths)) % 2, lengths)
    np.testing.assert_array_equal(pixels.reshape(width, height).T, mask)


def test_good_masks():
    image = dict(width=4, height=3)
    assert mask_fault(SQUARE, image) == ''
    assert mask_fault(dict(size=[3, 4], counts=[2, 4, 6]), image) == ''
    assert mask_fault([], image, needed=False) == ''


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


number = st.one_of(st.floats(width=32), st.integers(-100, 100), st.sampled_from([0.0, 1.0, 60.0, 80.0, 10**400]))


@pytest.mark.slow
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
            assert not (0 <= x <= 80 and 0 <= y <= 60 and 1 <= w <= 80 - x and 1 <= h <= 60 - y)
        else:
            raw = dict(raw_img_info=dict(content['images'][0], img_id=1), raw_ann_info=[content['annotations'][i]])
            (instance,) = dataset.parse_data_info(raw)['instances']
            corners = np.array(instance['bbox'], float)
            assert (corners >= -1).all()
            assert (corners <= [81, 61, 81, 61]).all()
