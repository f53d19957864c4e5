"""A small model of every family without random layers, and runs of it on drawn images that are held in memory."""

from copy import deepcopy
from pathlib import Path
from typing import NamedTuple

import torch
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks
from mmengine.config import ConfigDict
from mmengine.hooks import Hook
from mmengine.registry import MODELS, init_default_scope
from mmengine.structures import InstanceData, PixelData
from mmseg.structures import SegDataSample
from torch import Tensor
from torch.utils.data import Dataset

from vitdense.engine import Runner

CLASSES = ('disc', 'slab', 'bar')
SIDE = 64

PVT_V2 = dict(type='vitdense.PVTv2', arch='b0', depths=(1, 1, 1, 1), drop_path_rate=0.0)
PVT = dict(type='vitdense.PVT', arch='tiny', depths=(1, 1, 1, 1), embed_dims=(32, 64, 160, 256), drop_path_rate=0.0)
SWIN = dict(type='vitdense.Swin', arch='tiny', embed_dims=48, depths=(1, 1, 1, 1), drop_path_rate=0.0)
VIT = dict(type='vitdense.ViT', arch='tiny', depth=2, patch_size=8, img_size=SIDE, drop_path_rate=0.0)
VITDET = dict(VIT, class_token=False, rel_pos='decomposed', window_size=4, global_blocks=(1,))
ADAPTER = dict(type='vitdense.ViTAdapter', arch='tiny', depth=4, img_size=SIDE, drop_path_rate=0.0)

BOXES = dict(type='DetDataPreprocessor', mean=[0] * 3, std=[255] * 3, pad_size_divisor=SIDE, pad_mask=True)
MAPS = dict(type='SegDataPreProcessor', mean=[0] * 3, std=[255] * 3, size=(SIDE, SIDE))
ALL = dict(type='RandomSampler', num=10**6, pos_fraction=1.0, neg_pos_ub=-1)  # leaves nothing to chance


def single_stage(backbone: dict, **parts) -> dict:
    return dict(type='SingleStageDetector', data_preprocessor=BOXES, backbone=backbone, **parts)


def fpn(channels: tuple[int, ...], outs: int = 4) -> dict:
    return dict(type='FPN', in_channels=list(channels), out_channels=32, num_outs=outs)


def retinanet(backbone: dict, channels: tuple[int, ...]) -> dict:
    head = dict(
        type='RetinaHead',
        num_classes=3,
        in_channels=32,
        stacked_convs=1,
        feat_channels=32,
        anchor_generator=dict(
            type='AnchorGenerator',
            scales=[4],
            ratios=[0.5, 1.0, 2.0],
            strides=[4, 8, 16, 32],
            base_sizes=[4, 8, 16, 32],
        ),
        bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
        loss_cls=dict(type='FocalLoss', use_sigmoid=True),
        loss_bbox=dict(type='L1Loss'),
    )
    assigner = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.4, min_pos_iou=0, ignore_iof_thr=-1)
    settings = dict(
        assigner=assigner, sampler=dict(type='PseudoSampler'), allowed_border=-1, pos_weight=-1, debug=False
    )
    return dict(single_stage(backbone, neck=fpn(channels), bbox_head=head, train_cfg=settings), type='RetinaNet')


def mask_rcnn(backbone: dict, neck: dict, strides: tuple[int, ...] = (4, 8, 16, 32)) -> dict:
    assigner = dict(type='MaxIoUAssigner', pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.3, ignore_iof_thr=-1)

    def roi_align(size: int) -> dict:
        layer = dict(type='RoIAlign', output_size=size, sampling_ratio=2)
        return dict(
            type='SingleRoIExtractor',
            roi_layer=layer,
            out_channels=32,
            featmap_strides=list(strides[:4]),
            finest_scale=16,
        )

    nms = dict(type='nms', iou_threshold=0.7)
    return dict(
        type='MaskRCNN',
        data_preprocessor=BOXES,
        backbone=backbone,
        neck=neck,
        rpn_head=dict(
            type='RPNHead',
            in_channels=32,
            feat_channels=32,
            anchor_generator=dict(
                type='AnchorGenerator', scales=[4], ratios=[1.0], strides=list(strides), base_sizes=list(strides)
            ),
            bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
            loss_cls=dict(type='CrossEntropyLoss', use_sigmoid=True),
            loss_bbox=dict(type='L1Loss'),
        ),
        roi_head=dict(
            type='StandardRoIHead',
            bbox_roi_extractor=roi_align(7),
            bbox_head=dict(
                type='Shared2FCBBoxHead',
                in_channels=32,
                fc_out_channels=64,
                roi_feat_size=7,
                num_classes=3,
                bbox_coder=dict(type='DeltaXYWHBBoxCoder'),
                loss_cls=dict(type='CrossEntropyLoss'),
                loss_bbox=dict(type='L1Loss'),
            ),
            mask_roi_extractor=roi_align(14),
            mask_head=dict(
                type='FCNMaskHead',
                num_convs=1,
                in_channels=32,
                conv_out_channels=32,
                num_classes=3,
                loss_mask=dict(type='CrossEntropyLoss', use_mask=True),
            ),
        ),
        train_cfg=dict(
            rpn=dict(assigner=assigner, sampler=dict(ALL, add_gt_as_proposals=False), allowed_border=0, pos_weight=-1),
            rpn_proposal=dict(nms_pre=200, max_per_img=40, nms=nms, min_bbox_size=0),
            rcnn=dict(assigner=assigner, sampler=dict(ALL, add_gt_as_proposals=True), mask_size=28, pos_weight=-1),
        ),
        test_cfg=dict(
            rpn=dict(nms_pre=200, max_per_img=40, nms=nms, min_bbox_size=0),
            rcnn=dict(score_thr=0.05, nms=dict(type='nms', iou_threshold=0.5), max_per_img=10, mask_thr_binary=0.5),
        ),
    )


def segmentor(backbone: dict, head: dict, **parts) -> dict:
    return dict(
        type='EncoderDecoder',
        data_preprocessor=MAPS,
        backbone=backbone,
        decode_head=dict(num_classes=3, dropout_ratio=0, align_corners=False, norm_cfg=dict(type='SyncBN'), **head),
        test_cfg=dict(mode='whole'),
        **parts,
    )


LOSS = dict(type='CrossEntropyLoss', avg_non_ignore=True, class_weight=None)
MAPPER = dict(
    type='ChannelMapper', in_channels=[64, 160], out_channels=32, kernel_size=1, norm_cfg=None, act_cfg=None, num_outs=3
)
QUERIES = dict(num_classes=3, num_queries=20, encoder_layers=1, decoder_layers=2, feedforward_channels=64, dropout=0.0)
PYRAMID = dict(type='vitdense.SimpleFeaturePyramid', in_channels=192, out_channels=32)
WIDE, NARROW = (32, 64, 160, 256), (48, 96, 192, 384)

FAMILIES = {
    'DETR': single_stage(
        dict(PVT_V2, out_indices=(2,)), bbox_head=dict(QUERIES, type='vitdense.DETRHead', in_channels=160, channels=32)
    ),
    'Deformable DETR': single_stage(
        dict(PVT_V2, out_indices=(1, 2)),
        neck=MAPPER,
        bbox_head=dict(QUERIES, type='vitdense.DeformableDETRHead', in_channels=32, num_levels=3, with_box_refine=True),
    ),
    'YOLOS': single_stage(
        dict(
            type='vitdense.YOLOS', arch='tiny', depth=2, patch_size=8, img_size=SIDE, det_tokens=20, drop_path_rate=0.0
        ),
        bbox_head=dict(type='vitdense.YOLOSHead', num_classes=3, in_channels=192),
    ),
    'RetinaNet': retinanet(PVT_V2, WIDE),
    'Mask R-CNN': mask_rcnn(PVT, fpn(WIDE)),
    'SETR': segmentor(
        dict(VIT, out_indices=(0, 1)),
        dict(type='vitdense.SETRUPHead', in_channels=192, channels=32, num_convs=2, up_scale=2, loss_decode=LOSS),
    ),
    'RetinaNet Swin': retinanet(SWIN, NARROW),
    'ViTDet': mask_rcnn(VITDET, PYRAMID, (2, 4, 8, 16, 32)),
    'UPerNet ViT-Adapter': segmentor(
        ADAPTER,
        dict(type='UPerHead', in_channels=[192] * 4, in_index=[0, 1, 2, 3], channels=32, pool_scales=(1, 2)),
    ),
    'Semantic FPN': segmentor(
        PVT_V2,
        dict(type='FPNHead', in_channels=[32] * 4, in_index=[0, 1, 2, 3], channels=32, feature_strides=[4, 8, 16, 32]),
        neck=fpn(WIDE),
    ),
}


class Drawn(Dataset):
    """Images with ``counts`` objects, rectangles of bright colours, as the pipelines of mmdet or mmseg pack them."""

    metainfo = dict(classes=CLASSES, palette=[(200, 0, 0), (0, 200, 0), (0, 0, 200)])

    def __init__(self, counts: list[int], maps: bool) -> None:
        self.counts, self.maps = counts, maps

    def __len__(self) -> int:
        return len(self.counts)

    def __getitem__(self, i: int) -> dict:
        generator = torch.Generator().manual_seed(i)

        def number(low: int, high: int) -> int:
            return int(torch.randint(low, high, (), generator=generator))

        height, width = (SIDE, SIDE) if self.maps else (SIDE - 8 * (i % 3), SIDE)
        image = torch.randint(0, 90, (3, height, width), generator=generator, dtype=torch.uint8)
        labels, boxes, masks = [], [], torch.zeros(self.counts[i], height, width, dtype=torch.uint8)
        classes = torch.zeros(1, height, width, dtype=torch.long)
        for mask in masks:
            x, y, label = number(0, width - 30), number(0, height - 30), number(0, 3)
            w, h = number(12, 30), number(12, 30)
            image[label, y : y + h, x : x + w] = 220
            classes[:, y : y + h, x : x + w] = label
            mask[y : y + h, x : x + w] = 1
            labels.append(label)
            boxes.append([x, y, x + w, y + h])
        meta = dict(img_id=i, img_path=f'{i}.jpg', ori_shape=(height, width), img_shape=(height, width))
        if self.maps:
            classes[:, : 7 * (i % 4)] = 255
            sample = SegDataSample(metainfo=meta, gt_sem_seg=PixelData(data=classes))
        else:
            truth = InstanceData(
                labels=torch.tensor(labels, dtype=torch.long),
                bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
                masks=BitmapMasks(masks.numpy(), height, width),
            )
            sample = DetDataSample(
                metainfo=dict(meta, scale_factor=(1.0, 1.0)), gt_instances=truth, ignored_instances=InstanceData()
            )
            sample.ignored_instances.bboxes = torch.zeros(0, 4)
        return dict(inputs=image, data_samples=sample)


class Steps(Hook):
    """Keeps what is logged of each step."""

    priority = 'VERY_LOW'

    def __init__(self) -> None:
        self.kept: list[dict[str, float]] = []

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch=None, outputs=None) -> None:
        scalars = runner.message_hub.log_scalars
        self.kept.append({k[6:]: v.current() for k, v in scalars.items() if 'loss' in k or k.endswith(('norm', 'acc'))})


class Trained(NamedTuple):
    """What is logged of each step, and the weights before and after."""

    steps: list[dict[str, float]]
    before: dict[str, Tensor]
    after: dict[str, Tensor]


COUNTS = [3, 0, 1, 0, 2, 5, 0, 1]


def train(
    family: str,
    folder: Path,
    *,
    batch_size: int = 4,
    steps: int = 8,
    optim_wrapper: dict | None = None,
    counts: list[int] = COUNTS,
    exact: bool = False,
    **settings,
) -> Trained:
    """Train a family for some ``steps`` with our runner, by SGD unless ``optim_wrapper`` says otherwise.

    Args:
        exact: in float64.
    """
    maps = FAMILIES[family]['type'] == 'EncoderDecoder'
    scope = 'mmseg' if maps else 'mmdet'
    init_default_scope(scope)
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(deepcopy(FAMILIES[family])))
    if exact:
        model.double().backbone.register_forward_pre_hook(lambda _, given: tuple(x.double() for x in given))
    wrapper = dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=0.05), clip_grad=dict(max_norm=2.0))
    recorder = Steps()
    runner = Runner(
        model=model,
        work_dir=str(folder),
        train_dataloader=dict(
            batch_size=batch_size,
            num_workers=0,
            dataset=Drawn(counts * 8, maps),
            sampler=dict(type='DefaultSampler', shuffle=False),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(by_epoch=False, max_iters=steps),
        optim_wrapper=optim_wrapper or wrapper,
        default_hooks=dict(
            logger=None, checkpoint=None, timer=None, convert_checkpoint=None, param_scheduler=None,
            global_loss=dict(type='vitdense.GlobalLossHook'),
        ),
        custom_hooks=[recorder],
        default_scope=scope,
        experiment_name=f'{folder.name}_{family}_{len(settings)}',
        randomness=dict(seed=0),
        log_level='ERROR',
        **settings,
    )  # fmt: skip
    before = {}

    def keep(*_: object) -> None:
        before.update(weights(runner.model))

    recorder.before_train = keep
    runner.train()
    return Trained(recorder.kept, before, weights(runner.model))


def weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of the state of a model, under the names that it has without a wrapper."""
    return {name.removeprefix('module.'): x.detach().clone() for name, x in model.state_dict().items()}
