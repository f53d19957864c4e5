"""A detector, an instance segmentor and a semantic segmentor with generated data, of a size that trains in seconds."""

import json
from copy import deepcopy
from pathlib import Path

import cv2
import numpy as np
from mmengine.config import Config

from . import ROOT

CLASSES = ('disc', 'slab')
KINDS = ('detector', 'instances', 'maps')

MODELS = {
    'detector': (
        f'{ROOT}/configs/_base_/models/retinanet_pvtv2-b0_fpn128.py',
        dict(bbox_head=dict(num_classes=2, stacked_convs=1)),
    ),
    'instances': (
        'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
        dict(
            backbone=dict(_delete_=True, type='vitdense.PVTv2', arch='b0'),
            neck=dict(in_channels=[32, 64, 160, 256]),
            rpn_head=dict(feat_channels=32),
            roi_head=dict(
                bbox_head=dict(fc_out_channels=32, num_classes=2),
                mask_head=dict(num_convs=1, conv_out_channels=32, num_classes=2),
            ),
            train_cfg=dict(rpn_proposal=dict(max_per_img=20)),
            test_cfg=dict(rpn=dict(max_per_img=20), rcnn=dict(max_per_img=5)),
        ),
    ),
    'maps': (f'{ROOT}/configs/_base_/models/sem-fpn_pvtv2-b0.py', dict(decode_head=dict(num_classes=2))),
    'cascade': (
        'mmdet::_base_/models/cascade-mask-rcnn_r50_fpn.py',
        dict(
            backbone=dict(_delete_=True, type='vitdense.PVTv2', arch='b0'),
            neck=dict(in_channels=[32, 64, 160, 256]),
            roi_head=dict(mask_head=dict(num_convs=1, conv_out_channels=32, num_classes=2)),
            test_cfg=dict(rpn=dict(max_per_img=20), rcnn=dict(max_per_img=5)),
        ),
    ),
    'pooled maps': (
        'mmseg::_base_/models/upernet_r50.py',
        dict(
            backbone=dict(_delete_=True, type='vitdense.PVTv2', arch='b0'),
            decode_head=dict(
                in_channels=[32, 64, 160, 256], channels=32, num_classes=2, norm_cfg=dict(type='BN', requires_grad=True)
            ),
            auxiliary_head=None,
            pretrained=None,
        ),
    ),
}
"""Bases of the configs, and what differs from them."""

META = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')


def make_data(folder: Path, images: int = 4) -> None:
    """Images of 60 x 80 pixels with two objects each, as a COCO file with masks and as maps; two have the same name."""
    entries: list[dict] = []
    objects: list[dict] = []
    for i in range(images):
        rng = np.random.default_rng(i)
        picture, classes = rng.integers(0, 80, (60, 80, 3), np.uint8), np.zeros((60, 80), np.uint8)
        name = f'{"ab"[i % 2]}/{i // 2}.jpg'
        entries.append(dict(id=i, file_name=name, height=60, width=80))
        for k, (x, y, w, h) in enumerate(((4, 6, 30, 40), (44, 10, 30, 30))):
            picture[y : y + h, x : x + w] = (40 + 200 * k, 200, 255 - 200 * k)
            classes[y : y + h, x : x + w] = k
            ring = [x, y, x + w, y, x + w, y + h, x, y + h]
            found = dict(id=2 * i + k + 1, image_id=i, category_id=k + 1, bbox=[x, y, w, h], area=w * h, iscrowd=0)
            objects.append(found | dict(segmentation=[ring]))
        for kind, content in (('images', picture), ('maps', classes)):
            path = (folder / kind / name).with_suffix('.jpg' if kind == 'images' else '.png')
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), content)
    categories = [dict(id=k + 1, name=name) for k, name in enumerate(CLASSES)]
    content = dict(images=entries, annotations=objects, categories=categories)
    (folder / 'coco.json').write_text(json.dumps(content))


def write_config(kind: str, path: Path, data: Path) -> Path:
    """A config of one of ``KINDS`` at ``path``, for the data at ``data``."""
    base, changes = MODELS[kind]
    maps = kind.endswith('maps')
    runtime = 'segmentation' if maps else 'default'
    bases = [base, *(f'{ROOT}/configs/_base_/{name}.py' for name in ('schedules/adamw_scratch', f'runtime/{runtime}'))]
    path.write_text(f'_base_ = {bases!r}\n')
    cfg = Config.fromfile(path)
    cfg.merge_from_dict(dict(model=deepcopy(changes)))  # mmengine takes _delete_ out of what it is given
    if kind == 'cascade':
        for head in cfg.model.roi_head.bbox_head:
            head.update(num_classes=2, fc_out_channels=32)
    dataset, pipelines, evaluator = _maps(data) if maps else _objects(data, kind != 'detector')
    for split in ('train', 'val', 'test'):
        cfg[f'{split}_dataloader'] = dict(
            batch_size=2 if split == 'train' else 1,
            num_workers=0,
            persistent_workers=False,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(dataset, pipeline=pipelines[split == 'train'], test_mode=split != 'train'),
        )
    cfg.val_evaluator = cfg.test_evaluator = evaluator
    cfg.train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1, val_interval=1)
    cfg.param_scheduler = cfg.custom_hooks = []
    cfg.dump(path)
    return path


def _objects(data: Path, masks: bool) -> tuple[dict, tuple[list, list], dict]:
    """Data set, pipelines of test and training, and evaluator."""
    steps = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations', with_bbox=True, with_mask=masks),
        dict(type='Resize', scale=(96, 64), keep_ratio=True),
    ]
    tested, trained = dict(type='PackDetInputs', meta_keys=META), dict(type='PackDetInputs')
    trained['meta_keys'] = (*META, 'flip', 'flip_direction')
    dataset = dict(
        type='CocoDataset',
        data_root=str(data),
        ann_file='coco.json',
        data_prefix=dict(img='images'),
        metainfo=dict(classes=CLASSES),
    )
    metrics = ['bbox', 'segm'] if masks else 'bbox'
    evaluator = dict(type='CocoMetric', ann_file=f'{data}/coco.json', metric=metrics, classwise=True)
    flip = dict(type='RandomFlip', prob=0.5)
    return dataset, ([*steps, tested], [*steps, flip, trained]), evaluator


def _maps(data: Path) -> tuple[dict, tuple[list, list], dict]:
    load, labels = dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')
    resize, pack = dict(type='Resize', scale=(96, 64), keep_ratio=True), dict(type='PackSegInputs')
    dataset = dict(
        type='BaseSegDataset',
        data_root=str(data),
        img_suffix='.jpg',
        seg_map_suffix='.png',
        data_prefix=dict(img_path='images', seg_map_path='maps'),
        metainfo=dict(classes=CLASSES, palette=[[200, 0, 0], [0, 0, 200]]),
    )
    pipelines = [load, resize, labels, pack], [load, labels, resize, pack]
    return dataset, pipelines, dict(type='IoUMetric', iou_metrics=['mDice'])
