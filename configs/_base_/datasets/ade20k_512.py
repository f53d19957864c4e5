# ADE20K as mmseg reads it: crops of 512 x 512, a short side of 512 pixels for tests, and with --tta that times six scales.
# PVT's release resizes test images to whole multiples of 32 pixels as well: aligned_pipeline.
_base_ = 'mmseg::_base_/datasets/ade20k.py'

num_classes = 150
slide = dict(mode='slide', crop_size=_base_.crop_size, stride=(341, 341))
aligned_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='ResizeToMultiple', size_divisor=32),
    dict(type='LoadAnnotations', reduce_zero_label=True),  # after the resizing: labels keep their size
    dict(type='PackSegInputs'),
]
tta_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(
        type='TestTimeAug',
        transforms=[
            [
                dict(type='Resize', scale=(int(2048 * ratio), int(512 * ratio)), keep_ratio=True)
                for ratio in (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)
            ],
            [dict(type='RandomFlip', prob=prob, direction='horizontal') for prob in (0.0, 1.0)],
            [dict(type='LoadAnnotations')],
            [dict(type='PackSegInputs')],
        ],
    ),
]
