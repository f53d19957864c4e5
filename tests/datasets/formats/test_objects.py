"""Objects that are more than a box in an upright image."""

import base64
import io
import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from support.own_data import DATA_YAML, DISC, YOLO, YOLO_LINES, content, shapes, write_tree
from support.scan import WH

from vitdense.datasets.formats import OwnData, read_data, rules


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))


def annotations(data: OwnData) -> list[dict]:
    files = [json.loads(Path(part.ann_file).read_text()) for part in data.parts.values()]
    return [one for file in files for one in file['annotations']]


def test_a_turned_image_has_the_size_that_opencv_loads(tmp_path):
    root = write_tree(tmp_path / 'data', YOLO)
    exif = Image.Exif()
    exif[0x0112] = 6
    with Image.open(root / 'images/train/a.jpg') as image:
        image.save(root / 'images/train/a.jpg', exif=exif)
    height, width = cv2.imread(str(root / 'images/train/a.jpg')).shape[:2]
    assert (width, height) == WH[::-1]
    data = read_data(root, 'detection')
    [image] = json.loads(Path(data.parts['train'].ann_file).read_text())['images']
    assert (image['width'], image['height']) == (width, height)
    [(_, box), _] = content(data)['train']['images/train/a.jpg']
    assert box == pytest.approx((8 / 80 * width, 6 / 60 * height, 40 / 80 * width, 30 / 60 * height), abs=0.01)


def test_keypoints_are_no_polygon(tmp_path):
    points = ' .5 .5 2 9 9 0\n'
    files = {name: YOLO_LINES.replace('\n', points) if name.startswith('labels') else '' for name in YOLO}
    root = write_tree(tmp_path / 'data', files | {'data.yaml': f'{DATA_YAML}kpt_shape: [2, 3]\n'})
    data = read_data(root, 'detection')
    assert not data.masks
    assert data.findings == []
    assert content(data)['train']['images/train/a.jpg'][0] == DISC


def test_masks_of_labelme(tmp_path):
    rng = np.random.default_rng(0)
    inside = rng.random((20, 30)) > 0.4
    png = io.BytesIO()
    Image.fromarray(inside).save(png, 'png')
    mask = dict(label='disc', shape_type='mask', points=[[12, 7], [41, 26]])
    mask['mask'] = base64.b64encode(png.getvalue()).decode()
    empty = io.BytesIO()
    Image.fromarray(np.zeros((3, 3), bool)).save(empty, 'png')
    nothing = dict(mask, mask=base64.b64encode(empty.getvalue()).decode())
    files = {'a.jpg': '', 'a.json': shapes('a.jpg', more=[mask, nothing]), 'b.jpg': ''}
    data = read_data(write_tree(tmp_path / 'data', files), 'detection', fraction=0.5)
    right = np.zeros((60, 80), bool)
    right[7:27, 12:42] = inside
    [one] = annotations(data)
    np.testing.assert_array_equal(coco_mask.decode(one['segmentation']).astype(bool), right)
    assert one['area'] == right.sum()
    assert one['bbox'] == [12, 7, 30, 20]
    assert data.masks
    [finding] = data.findings
    assert (finding.kind, finding.found) == (rules.NO_SHAPE, 'a mask without a pixel')


def test_rectangles_alone_are_no_masks(tmp_path):
    files = {'a.jpg': '', 'a.json': shapes('a.jpg', DISC), 'b.jpg': ''}
    data = read_data(write_tree(tmp_path / 'data', files), 'detection', fraction=0.5)
    assert not data.masks
    assert 'segmentation' not in annotations(data)[0]
