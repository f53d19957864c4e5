"""Pictures of a data set of semantic maps: depth, and what the pipeline resizes them to."""

import cv2
import numpy as np
import pytest

pytest.importorskip('mmseg')

from mmengine.config import Config
from support.scan import only

from vitdense.datasets.scan import drop_findings, scan_data
from vitdense.registry import DATASETS

LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
RESIZE = dict(type='RandomResize', scale=(96, 64), ratio_range=(0.5, 2.0), keep_ratio=True)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))


def config(root, pictures: list[np.ndarray], pipeline: list) -> Config:
    for i, picture in enumerate(pictures):
        for folder, values in (('images', picture), ('maps', np.arange(picture.size) % 2)):
            (root / folder).mkdir(parents=True, exist_ok=True)
            values = values.reshape(picture.shape).astype(picture.dtype if folder == 'images' else np.uint8)
            assert cv2.imwrite(str(root / folder / f'{i}.png'), values)
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(root),
        data_prefix=dict(img_path='images', seg_map_path='maps'),
        img_suffix='.png',
        metainfo=dict(classes=('even', 'odd')),
        pipeline=[*LOAD, *pipeline],
    )
    return Config(dict(default_scope='mmseg', train_dataloader=dict(dataset=dataset)))


def noise(height: int, width: int, high: int = 256, kind: type = np.uint8) -> np.ndarray:
    return np.random.default_rng(height).integers(0, high, (height, width)).astype(kind)


def test_image_that_is_resized_to_nothing(tmp_path):
    cfg = config(tmp_path / 'd', [noise(60, 80), noise(2, 1900)], [RESIZE])
    reports = scan_data(cfg, ('train',), 'full')
    finding = only(reports[0])
    assert (finding.kind, finding.where) == ('image that is resized to nothing', f'{tmp_path}/d/images/1.png')
    drop_findings(cfg, reports, tmp_path / 'clean')
    assert len(DATASETS.build(dict(cfg.train_dataloader.dataset, type='mmseg.BaseSegDataset', pipeline=[]))) == 1


def test_depth(tmp_path):
    cfg = config(tmp_path / 'd', [noise(60, 80, 4096, np.uint16), noise(61, 80, 4096, np.uint16)], [])
    finding = only(scan_data(cfg, ('train',), 'full')[0])
    assert (finding.kind, finding.fatal) == ('image of more than 8 bits', True)
    assert '2 of 2 opened images' in finding.found
