"""--lenient: boxes of the training are cut, a ground truth stays as it is."""

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip('mmdet')

from mmengine.registry import METRICS
from support.coco import perfect, run
from support.scan import CLASSES, CocoFolder, instances, load, write_picture

from vitdense.datasets.scan import drop_findings, scan_data
from vitdense.findings import RunError


@pytest.fixture
def coco(tmp_path, monkeypatch) -> CocoFolder:
    monkeypatch.setenv('VITDENSE_CACHE', str(tmp_path / 'cache'))
    return CocoFolder(tmp_path / 'data')


def drop(coco: CocoFolder, cfg) -> list[str]:
    coco.write()
    before = coco.snapshot()
    lines = drop_findings(cfg, scan_data(cfg, check='full'), coco.root.parent / 'clean')
    assert coco.snapshot() == before
    return lines


def test_boxes_of_the_training_are_cut_to_their_images(coco):
    cfg = coco.config()
    annotations = coco.content['train']['annotations']
    annotations[0]['bbox'], annotations[0]['area'] = [70, 20, 20, 10], 100  # a mask of half of the box
    annotations[1]['bbox'] = [-10, -5, 100, 70]
    annotations[2]['bbox'] = [90, 20, 10, 10]  # outside: nothing to cut
    lines = drop(coco, cfg)
    found = instances(load(cfg.train_dataloader.dataset))
    assert found[:2] == [(1, 0, 70, 20, 80, 30), (1, 1, 0, 0, 80, 60)]
    assert len(found) == 17
    assert any('box beyond the edge of the image: 2 left out or mended' in line for line in lines)
    clean = json.loads((coco.root.parent / 'clean/train_dataloader_dataset.json').read_text())
    assert clean['annotations'][0]['area'] == 50
    assert scan_data(cfg, ('train',))[0].fatal == []


def test_ground_truth_is_not_changed(coco):
    """Of the objects of a validation none is cut or left out, so the numbers can be compared."""
    cfg = coco.config()
    boxes = [70, 20, 20, 10], [-10, -5, 100, 70], [90, 20, 10, 10], [5, 5, 0, 10]
    for annotation, box in zip(coco.content['val']['annotations'], boxes, strict=False):
        annotation['bbox'] = box
    lines = drop(coco, cfg)
    assert cfg.val_dataloader.dataset.ann_file == 'val.json'
    assert cfg.val_evaluator.ann_file == f'{coco.root}/val.json'
    assert [line for line in lines if 'left out' in line] == []
    assert sum('kept' in line and 'a ground truth is not changed' in line for line in lines) == 3


def test_pictures_that_cannot_be_loaded_count_as_missed(coco):
    cfg = coco.config()
    (coco.root / 'val/1.jpg').write_text('no image')
    write_picture(coco.root / 'val/3.jpg', 7)
    coco.content['val']['images'].append(dict(id=3, file_name='3.jpg', width=80, height=60))
    drop(coco, cfg)
    dataset = load(cfg.val_dataloader.dataset)
    assert [dataset.get_data_info(i)['img_id'] for i in range(len(dataset))] == [2, 3]
    assert cfg.val_evaluator.ann_file == f'{coco.root}/val.json'
    metric = METRICS.build(dict(type='vitdense.CocoMetric', ann_file=cfg.val_evaluator.ann_file))
    samples = [sample for sample in perfect(coco.content['val'], list(CLASSES)) if sample['img_id'] != 1]
    assert run(metric, samples, CLASSES)['coco/bbox_mAP'] == pytest.approx(51 / 101, abs=1e-3)  # recall of a half


def test_ids_and_areas_of_a_ground_truth_are_mended(coco):
    cfg = coco.config()
    annotations = coco.content['val']['annotations']
    annotations[1]['id'] = annotations[0]['id']
    del annotations[2]['area']
    annotations[3]['bbox'] = [70, 20, 20, 10]
    (coco.root / 'val/1.jpg').unlink()
    drop(coco, cfg)
    truth = json.loads(Path(cfg.val_evaluator.ann_file).read_text())
    assert truth['images'] == coco.content['val']['images']
    assert [one['bbox'] for one in truth['annotations']] == [one['bbox'] for one in annotations]
    assert len({one['id'] for one in truth['annotations']}) == 6
    assert truth['annotations'][2]['area'] == 540
    seen = json.loads(Path(cfg.val_dataloader.dataset.ann_file).read_text())
    assert [image['id'] for image in seen['images']] == [2]


@pytest.mark.parametrize(
    'spoil', [dict(bbox=[1, 2, 3]), dict(bbox=[np.nan, 1, 2, 3]), dict(bbox=[9, 9, -4, 4]), dict(iscrowd='maybe')]
)
def test_ground_truth_that_no_evaluation_works_with(coco, spoil):
    coco.content['val']['annotations'][0].update(spoil)
    with pytest.raises(RunError, match='by hand'):
        drop(coco, coco.config())


def test_annotations_of_nothing_are_nobodys(coco):
    cfg = coco.config()
    coco.content['val']['annotations'][0]['image_id'] = 99
    del coco.content['val']['annotations'][1]['category_id']
    drop(coco, cfg)
    truth = json.loads(Path(cfg.val_evaluator.ann_file).read_text())
    assert truth['annotations'] == coco.content['val']['annotations'][2:]
    assert cfg.val_dataloader.dataset.ann_file == cfg.val_evaluator.ann_file


def test_a_test_without_annotations(coco):
    cfg = coco.config()
    cfg.test_dataloader = cfg.val_dataloader
    images = coco.content['val']['images']
    del coco.content['val']['annotations']
    coco.write()
    (coco.root / 'val' / images[0]['file_name']).unlink()
    lines = drop_findings(cfg, scan_data(cfg, ('test',), 'full'), coco.root.parent / 'clean')
    assert any(f'{len(images) - 1} of {len(images)} images' in line for line in lines)


def test_ids_that_are_no_numbers(coco):
    annotations = coco.content['train']['annotations']
    for annotation in annotations[:2]:
        annotation['id'] = float('nan')
    drop(coco, coco.config())
    clean = json.loads((coco.root.parent / 'clean/train_dataloader_dataset.json').read_text())
    ids = [annotation['id'] for annotation in clean['annotations']]
    assert len(set(ids)) == len(ids) == len(annotations)
    assert ids[2:] == [annotation['id'] for annotation in annotations[2:]]
