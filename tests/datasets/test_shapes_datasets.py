import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from support import ROOT

from vitdense.datasets import ShapesSpec, ensure_shapes
from vitdense.registry import DATASETS

pytest.importorskip('mmdet')

SPEC = ShapesSpec(num_train=32, num_val=6)
COUNTS = {'num_train': 32, 'num_val': 6}
LOAD = [
    {'type': 'LoadImageFromFile'},
    {'type': 'mmdet.LoadAnnotations', 'with_bbox': True, 'with_mask': True, 'with_seg': True},
]


@pytest.fixture(scope='module')
def root(tmp_path_factory):
    return ensure_shapes(tmp_path_factory.mktemp('shapes') / 'shapes', SPEC)


def build(kind='ShapesDataset', **kwargs):
    return DATASETS.build({'type': f'vitdense.{kind}', **COUNTS, **kwargs})


def test_detection_samples_equal_the_files(root):
    dataset = build(data_root=str(root), split='train', pipeline=LOAD)
    content = json.loads((root / 'annotations/instances_train.json').read_text())
    assert len(dataset) == 32
    assert dataset.metainfo['classes'] == tuple(c['name'] for c in content['categories'])
    assert len(dataset.metainfo['palette']) == 5
    for sample, image in zip(dataset, content['images'], strict=True):
        anns = [ann for ann in content['annotations'] if ann['image_id'] == image['id']]
        x, y, w, h = np.array([ann['bbox'] for ann in anns], np.float32).reshape(-1, 4).T
        np.testing.assert_array_equal(sample['gt_bboxes'].tensor.numpy(), np.stack([x, y, x + w, y + h], 1))
        assert sample['gt_bboxes_labels'].tolist() == [ann['category_id'] - 1 for ann in anns]
        assert sample['gt_masks'].masks.sum((1, 2)).tolist() == [ann['area'] for ann in anns]
        assert sample['img'].shape == (image['height'], image['width'], 3)
        labels = (sample['gt_bboxes_labels'] + 1)[:, None, None]
        np.testing.assert_array_equal(sample['gt_seg_map'], (sample['gt_masks'].masks * labels).sum(0))
    assert len(sample['gt_bboxes_labels']) == 0  # the last image has no object


def test_explicit_paths_as_in_other_configs(root):
    dataset = build(
        data_root=str(root),
        ann_file='annotations/instances_val.json',
        data_prefix={'img': 'images/validation/'},
        pipeline=LOAD[:1],
        test_mode=True,
    )
    assert [sample['img_id'] for sample in dataset] == list(range(1, 7))


@pytest.mark.parametrize('kwargs', [{'split': 'test'}, {}, {'ann_file': 'annotations/instances_val.json'}])
def test_unknown_or_missing_split(kwargs, tmp_path):
    with pytest.raises(ValueError, match=r"unknown split .* expected one of \['train', 'val'\]"):
        build(data_root=str(tmp_path / 'shapes'), **kwargs)
    assert not any(tmp_path.iterdir())


def test_unknown_argument(tmp_path):
    with pytest.raises(TypeError, match='sed'):
        build(data_root=str(tmp_path / 'shapes'), split='train', sed=3)
    assert not any(tmp_path.iterdir())


def test_lazy_dataset_writes_nothing_before_it_is_used(tmp_path):
    dataset = build(data_root=str(tmp_path / 'shapes'), split='val', lazy_init=True)
    assert not any(tmp_path.iterdir())
    assert len(dataset) == 6
    assert (tmp_path / 'shapes').is_dir()


def test_runner_generates_before_the_evaluator_reads_and_perfect_predictions_score_one(root, tmp_path):
    from mmengine.model import BaseModel
    from mmengine.runner import Runner
    from mmengine.structures import InstanceData

    class Oracle(BaseModel):
        def forward(self, inputs, data_samples, mode):
            for sample in data_samples:
                gt = sample.gt_instances
                masks = torch.from_numpy(gt.masks.to_ndarray().astype(bool))
                sample.pred_instances = InstanceData(
                    bboxes=gt.bboxes.tensor, labels=gt.labels, masks=masks, scores=torch.ones(len(gt))
                )
            return data_samples

    data_root = tmp_path / 'shapes'
    pack = {'type': 'mmdet.PackDetInputs', 'meta_keys': ('img_id', 'ori_shape', 'img_shape')}
    load = {'type': 'mmdet.LoadAnnotations', 'with_bbox': True, 'with_mask': True}
    runner = Runner(
        model=Oracle(),
        work_dir=str(tmp_path / 'work'),
        test_dataloader={
            'batch_size': 2,
            'dataset': {
                'type': 'vitdense.ShapesDataset',
                'data_root': str(data_root),
                'split': 'val',
                'test_mode': True,
                'pipeline': [LOAD[0], load, pack],
                **COUNTS,
            },
            'sampler': {'type': 'DefaultSampler', 'shuffle': False},
        },
        test_cfg={},
        test_evaluator={
            'type': 'mmdet.CocoMetric',
            'ann_file': str(data_root / 'annotations/instances_val.json'),
            'metric': ['bbox', 'segm'],
        },
        default_scope='mmdet',
    )
    scores = runner.test()
    assert scores['coco/bbox_mAP'] == scores['coco/segm_mAP'] == 1.0


def test_segmentation_samples_equal_the_detection_masks(root):
    pytest.importorskip('mmseg')
    pipeline = [{'type': 'LoadImageFromFile'}, {'type': 'mmseg.LoadAnnotations'}]
    segmentation = build('ShapesSegDataset', data_root=str(root), split='train', pipeline=pipeline)
    detection = build(data_root=str(root), split='train', pipeline=LOAD)
    assert segmentation.metainfo['classes'] == ('background', *detection.metainfo['classes'])
    assert len(segmentation.metainfo['palette']) == 6
    assert segmentation.metainfo['reduce_zero_label'] is False
    for maps, instances in zip(segmentation, detection, strict=True):
        np.testing.assert_array_equal(maps['img'], instances['img'])
        labels = (instances['gt_bboxes_labels'] + 1)[:, None, None]
        np.testing.assert_array_equal(maps['gt_seg_map'], (instances['gt_masks'].masks * labels).sum(0))
    with pytest.raises(ValueError, match='unknown split'):
        build('ShapesSegDataset', data_root=str(root), split='training')


@pytest.mark.slow
@pytest.mark.parametrize(
    ('absent', 'left'), [('mmseg', {'ShapesDataset'}), ('mmdet', {'ShapesSegDataset'}), ('mmdet mmseg', set())]
)
def test_works_without_the_package_of_the_other_task(absent, left):
    script = (
        f'import sys\n'
        f'sys.modules.update(dict.fromkeys({absent.split()}))\n'
        f'from vitdense.registry import DATASETS\n'
        f'import vitdense.datasets.registered\n'
        f'assert set(DATASETS.module_dict) & {{"ShapesDataset", "ShapesSegDataset"}} == {left}\n'
    )
    subprocess.run([sys.executable, '-c', script], check=True, cwd=ROOT, timeout=60)
