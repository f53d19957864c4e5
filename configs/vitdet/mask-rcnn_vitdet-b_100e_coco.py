# Mask R-CNN of ViTDet: simple feature pyramid, LayerNorm in the heads, two convolutions in the RPN.
_base_ = [
    'mmdet::_base_/models/mask-rcnn_r50_fpn.py',
    '../_base_/models/vitdet-b.py',
    '../_base_/datasets/coco_lsj1024.py',
    '../_base_/schedules/vitdet_100e.py',
    '../_base_/runtime/default.py',
]

norm_cfg = dict(type='vitdense.LayerNorm2d', eps=1e-6)
model = dict(
    data_preprocessor=dict(pad_size_divisor=1024),
    backbone=dict(_delete_=True, **_base_.vitdet),
    neck=dict(_delete_=True, type='vitdense.SimpleFeaturePyramid', in_channels=768),
    rpn_head=dict(num_convs=2),
    roi_head=dict(
        bbox_head=dict(type='Shared4Conv1FCBBoxHead', norm_cfg=norm_cfg),
        mask_head=dict(norm_cfg=norm_cfg),
    ),
)
log_processor = dict(by_epoch=False)
default_hooks = dict(checkpoint=dict(by_epoch=False, interval=5000))
