"""Fifty steps of each family of models: narrow versions of the configs, drawn weights, drawn pictures."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from unittest.mock import patch
from uuid import uuid4

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import BitmapMasks
from mmengine.config import Config, ConfigDict
from mmengine.hooks import Hook
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch.utils.data import Dataset

from vitdense.config.load import load_config
from vitdense.engine.runner import Runner
from vitdense.models.layers.fast import products

from . import CONFIGS

STEPS = 50
SIZES = [(64, 96), (75, 50), (64, 64), (50, 90)]
CLASSES = 3

PYRAMID = dict(depths=(1, 1, 1, 1), embed_dims=(16, 32, 40, 64), num_heads=(1, 2, 5, 4))
SWIN = dict(depths=(2, 1, 1, 1), embed_dims=16, num_heads=(1, 2, 4, 8))
VIT = dict(arch='tiny', depth=4, embed_dims=48, num_heads=3, out_indices=(0, 1, 2, 3))
FPN = dict(in_channels=[16, 32, 40, 64], out_channels=32)
SWIN_FPN = dict(FPN, in_channels=[16, 32, 64, 128])
RETINA = dict(num_classes=CLASSES, in_channels=32, feat_channels=32, stacked_convs=1)
QUERY = dict(num_classes=CLASSES, num_queries=7, num_heads=4, feedforward_channels=32)


def roi(**box: int) -> dict:
    """Heads of two-stage detectors; ``box`` is what a head for boxes has beside it."""
    return dict(
        rpn_head=dict(in_channels=32, feat_channels=32),
        roi_head=dict(
            bbox_roi_extractor=dict(out_channels=32),
            mask_roi_extractor=dict(out_channels=32),
            bbox_head=dict(in_channels=32, fc_out_channels=32, num_classes=CLASSES, **box),
            mask_head=dict(in_channels=32, num_convs=1, conv_out_channels=32, num_classes=CLASSES),
        ),
        train_cfg=dict(rpn_proposal=dict(max_per_img=20), rcnn=dict(sampler=dict(num=32))),
    )


SEG = dict(num_classes=CLASSES)

FAMILIES: dict[str, tuple[str, dict]] = {
    'PVT, RetinaNet': (
        'pvt/retinanet_pvt-t_fpn_1x_coco.py',
        dict(backbone=PYRAMID, neck=FPN, bbox_head=RETINA),
    ),
    'PVTv2, RetinaNet': (
        'pvt_v2/retinanet_pvtv2-b0_fpn_1x_coco.py',
        dict(backbone=PYRAMID, neck=FPN, bbox_head=RETINA),
    ),
    'Swin, Mask R-CNN': (
        'swin/mask-rcnn_swin-t_fpn_1x_coco.py',
        dict(backbone=SWIN, neck=SWIN_FPN, **roi()),
    ),
    'ViTDet, Mask R-CNN': (
        'vitdet/mask-rcnn_vitdet-b_100e_coco.py',
        dict(
            backbone=dict(VIT, out_indices=(3,), global_blocks=(1, 3), window_size=3, rel_pos_size=96),
            neck=dict(in_channels=48, out_channels=32),
            data_preprocessor=dict(pad_size_divisor=32),
            **roi(conv_out_channels=32),
        ),
    ),
    'ViT-Adapter, Mask R-CNN': (
        'vit_adapter/mask-rcnn_vit-adapter-t_3x_coco.py',
        dict(
            backbone=dict(
                arch='tiny', depth=4, embed_dims=48, num_heads=3, conv_inplane=8, global_blocks=(1, 3), window_size=3,
                norm_cfg=dict(type='BN'),
            ),
            neck=dict(in_channels=[48] * 4, out_channels=32),
            **roi(),
        ),
    ),
    'DETR': (
        'detr/detr_pvt-s_8xb2-50e_coco.py',
        dict(backbone=PYRAMID, bbox_head=dict(QUERY, in_channels=64, channels=32, encoder_layers=1, decoder_layers=2)),
    ),
    'Deformable DETR': (
        'deformable_detr/deformable-detr_pvtv2-b2_8xb4-50e_coco.py',
        dict(
            backbone=PYRAMID,
            neck=dict(in_channels=[32, 40, 64], out_channels=32),
            bbox_head=dict(
                QUERY, in_channels=32, encoder_layers=1, decoder_layers=2, with_box_refine=True
            ),
        ),
    ),
    'YOLOS': (
        'yolos/yolos-ti_8xb2-300e_coco.py',
        dict(
            backbone=dict(depth=3, embed_dims=48, num_heads=3, img_size=(96, 128), det_tokens=7),
            bbox_head=dict(num_classes=CLASSES, in_channels=48),
        ),
    ),
    'PVTv2, Semantic FPN': (
        'pvt_v2/sem-fpn_pvtv2-b0_8xb4-40k_ade20k-512x512.py',
        dict(
            backbone=PYRAMID,
            neck=FPN,
            decode_head=dict(SEG, in_channels=[32] * 4, channels=32),
        ),
    ),
    'ViT, UPerNet': (
        'vit_upernet/upernet_vit-b_8xb2-160k_ade20k-512x512.py',
        dict(
            backbone=dict(VIT, img_size=96),
            neck=dict(in_channels=[48] * 4, out_channels=32),
            decode_head=dict(SEG, in_channels=[32] * 4, channels=32),
            auxiliary_head=dict(SEG, in_channels=32, channels=32),
        ),
    ),
    'SETR, naive': (
        'setr/setr_naive_deit-b_8xb1-80k_cityscapes-768x768.py',
        dict(backbone=dict(VIT, img_size=96), decode_head=dict(SEG, in_channels=48, channels=32), auxiliary_head=None),
    ),
    'SETR, PUP': (
        'setr/setr_pup_deit-b_8xb1-80k_cityscapes-768x768.py',
        dict(backbone=dict(VIT, img_size=96), decode_head=dict(SEG, in_channels=48, channels=32), auxiliary_head=None),
    ),
    'SETR, MLA': (
        'setr/setr_mla_deit-b_8xb1-80k_cityscapes-768x768.py',
        dict(
            backbone=dict(VIT, img_size=96),
            neck=dict(in_channels=[48] * 4, out_channels=16),
            decode_head=dict(SEG, in_channels=[16] * 4, channels=32),
            auxiliary_head=None,
        ),
    ),
    'PVT, Trans2Seg': (
        'trans2seg/trans2seg_pvt-s_4xb4-40k_ade20k-512x512.py',
        dict(
            backbone=PYRAMID,
            decode_head=dict(SEG, in_channels=(16, 64), channels=16, embed_dim=32, depth=2, map_size=4, num_heads=4),
        ),
    ),
    'TransUNet': (
        'transunet/transunet_r50-vit-b_8xb3-160k_ade20k-512x512.py',
        dict(
            backbone=dict(depth=1, embed_dims=48, num_heads=3, layers=(1, 1, 1), img_size=96, out_indices=(0, 1, 2, 3)),
            decode_head=dict(SEG, in_channels=[64, 256, 512, 48], hidden_channels=32, block_channels=(16, 16, 16, 8)),
        ),
    ),
}  # fmt: skip
"""A config of each family, and what is narrower."""


class Pictures(Dataset):
    """Eight pictures with two objects each.

    Args:
        semantic: for segmentation.
        mirrored: mirror half of them, as drawn where they are loaded.
    """

    metainfo = dict(classes=('a', 'b', 'c'), palette=[(200, 0, 0), (0, 200, 0), (0, 0, 200)])

    def __init__(self, semantic: bool, mirrored: bool = True) -> None:
        self.semantic, self.mirrored = semantic, mirrored

    def __len__(self) -> int:
        return 2 * len(SIZES)

    def __getitem__(self, index: int) -> dict:
        rng = np.random.default_rng(int(index))
        h, w = SIZES[index % len(SIZES)]
        image, labels = rng.integers(0, 80, (h, w, 3), np.uint8), np.zeros((h, w), np.uint8)
        masks, classes = np.zeros((2, h, w), np.uint8), rng.integers(0, CLASSES, 2)
        for k, mask in enumerate(masks):
            x, y = rng.integers(2, w // 3), rng.integers(2, h // 3)
            mask[y : y + h // 2, x : x + w // 3] = 1
            image[mask == 1], labels[mask == 1] = 100 + 50 * classes[k], classes[k]
        if self.mirrored and np.random.rand() < 0.5:
            image, labels, masks = image[:, ::-1], labels[:, ::-1], masks[:, :, ::-1]
        image = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
        meta = dict(img_id=int(index), img_shape=(h, w), ori_shape=(h, w), scale_factor=(1.0, 1.0))
        if self.semantic:
            truth = PixelData(data=torch.from_numpy(labels.astype(np.int64))[None])
            return dict(inputs=image, data_samples=SegDataSample(metainfo=meta, gt_sem_seg=truth))
        edges = [(*np.argwhere(mask).min(0)[::-1], *(np.argwhere(mask).max(0)[::-1] + 1)) for mask in masks]
        found = InstanceData(
            bboxes=HorizontalBoxes(torch.tensor(np.array(edges), dtype=torch.float32)),
            labels=torch.from_numpy(classes),
            masks=BitmapMasks(np.ascontiguousarray(masks), h, w),
        )
        return dict(inputs=image, data_samples=DetDataSample(metainfo=meta, gt_instances=found))


class Losses(Hook):
    """Keeps the loss of each step."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.values.append(outputs['loss'].item())


def config(family: str) -> Config:
    """The config of a family, narrower."""
    leaf, changes = FAMILIES[family]
    cfg = load_config(str(CONFIGS / leaf))
    cfg.model.backbone.pop('init_cfg', None)
    cfg.merge_from_dict(dict(model=deepcopy(changes)))
    if 'decode_head' in cfg.model:
        cfg.model.data_preprocessor.update(size=(80, 96))
    without_sync(cfg.model)
    if cfg.optim_wrapper.type == 'AmpOptimWrapper':
        cfg.optim_wrapper.type = 'OptimWrapper'
        cfg.optim_wrapper.pop('loss_scale', None)
    cfg.optim_wrapper.optimizer.lr /= 100  # what other processors round otherwise grows less from step to step
    return cfg


def without_sync(node: ConfigDict | list | tuple) -> None:
    """Put batch norms in the place of those that need GPUs."""
    if isinstance(node, dict) and node.get('type') == 'SyncBN':
        node['type'] = 'BN'
    for child in node.values() if isinstance(node, dict) else node:
        if isinstance(child, dict | list | tuple):
            without_sync(child)


def runner_of(cfg: Config, folder: Path, hooks: tuple = (), mirrored: bool = True, **settings) -> Runner:
    """A runner of a config of a family."""
    semantic = 'decode_head' in cfg.model
    loader = dict(
        batch_size=2,
        num_workers=0,
        sampler=dict(type='InfiniteSampler', shuffle=True),
        dataset=Pictures(semantic, mirrored),
        collate_fn=dict(type='pseudo_collate'),
    )
    return Runner(
        **{
            'model': cfg.model,
            'work_dir': str(folder),
            'train_dataloader': loader,
            'train_cfg': dict(type='IterBasedTrainLoop', max_iters=STEPS),
            'optim_wrapper': cfg.optim_wrapper,
            'default_hooks': dict(checkpoint=None, logger=None),
            'custom_hooks': list(hooks),
            'default_scope': 'mmseg' if semantic else 'mmdet',
            'randomness': dict(seed=0),
            'log_level': 'WARNING',
            'experiment_name': uuid4().hex,
            **settings,
        }
    )


@contextmanager
def one_thread() -> Iterator[None]:
    """Several threads, and another library than oneDNN, add up in another order."""
    threads, choice = torch.get_num_threads(), products._choice
    torch.set_num_threads(1)
    library = 'onednn' if products.has_avx512() else 'pytorch'
    try:
        with patch.dict(os.environ, {products.VARIABLE: library}):
            yield
    finally:
        torch.set_num_threads(threads)
        products.use(choice)


def losses_of(family: str, folder: Path) -> list[float]:
    """The loss of each step."""
    losses = Losses()
    with one_thread():
        runner_of(config(family), folder, (losses,)).train()
    return losses.values


KEPT_AT, RESUMED_UNTIL = 6, 12
RELEASED = {
    'YOLOS': dict(backbone=dict(depth=1, embed_dims=12), bbox_head=dict(in_channels=12)),
    'SETR, naive': dict(
        backbone=dict(depth=1, embed_dims=12, out_indices=(0,)),
        decode_head=dict(in_channels=12, channels=8, in_index=0, dropout_ratio=0),
    ),
}
"""Families of which a checkpoint of each release is kept, and what is narrower still."""


def released(family: str, folder: Path, losses: Losses, **settings) -> Runner:
    """A runner without anything drawn but the first weights and the order of the pictures; it keeps an average."""
    cfg = config(family)
    cfg.merge_from_dict(dict(model=deepcopy(RELEASED[family])))
    cfg.model.backbone.drop_path_rate = 0.0
    hooks = (losses, dict(type='EMAHook', momentum=0.1))
    length = dict(type='IterBasedTrainLoop', max_iters=RESUMED_UNTIL)
    return runner_of(cfg, folder, hooks, mirrored=False, train_cfg=length, **settings)


def processor() -> dict[str, str]:
    """What decides about the last bits of a loss: the processor, what is used of it, and the version of PyTorch."""
    info = Path('/proc/cpuinfo').read_text() if Path('/proc/cpuinfo').exists() else ''
    fields = dict(line.split(':', 1) for line in info.split('\n\n')[0].splitlines() if ':' in line)
    named = {key.strip(): value.strip() for key, value in fields.items()}
    return dict(
        family=f'{named.get("vendor_id", platform.machine())} {named.get("cpu family", "")}',
        capability=torch.backends.cpu.get_cpu_capability(),
        torch=torch.__version__.partition('+')[0],
    )
