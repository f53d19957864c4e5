# ADE20K whose test images are resized to whole multiples of 32 pixels, as PVT's release does.
_base_ = './ade20k_512.py'

aligned_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(2048, 512), keep_ratio=True),
    dict(type='ResizeToMultiple', size_divisor=32),
    dict(type='LoadAnnotations', reduce_zero_label=True),  # after the resizing: labels keep their size
    dict(type='PackSegInputs'),
]
val_dataloader = dict(dataset=dict(pipeline=aligned_pipeline))
test_dataloader = val_dataloader
