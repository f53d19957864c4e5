# A small YOLOS from scratch on generated shapes, for CPUs: patches of 8 pixels, 6 blocks.
_base_ = [
    '../_base_/models/single_stage.py',
    '../_base_/datasets/shapes_detection.py',
    '../_base_/schedules/adamw_scratch.py',
    '../_base_/runtime/default.py',
]

model = dict(
    backbone=dict(type='vitdense.YOLOS', arch='tiny', depth=6, patch_size=8, img_size=128, det_tokens=50),
    bbox_head=dict(type='vitdense.YOLOSHead', num_classes=_base_.num_classes, in_channels=192),
)
