# A small DETR + PVTv2-b0 from scratch on generated shapes, for CPUs: three decoder layers over a map of stride 16.
_base_ = [
    '../_base_/datasets/shapes_detection.py',
    '../_base_/schedules/adamw_scratch.py',
    '../_base_/runtime/default.py',
]

model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor', mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375], bgr_to_rgb=True
    ),
    backbone=dict(type='vitdense.PVTv2', arch='b0', drop_path_rate=0.0, out_indices=(2,)),
    bbox_head=dict(
        type='vitdense.DETRHead',
        num_classes={{_base_.num_classes}},
        in_channels=160,
        channels=128,
        num_queries=50,
        encoder_layers=2,
        decoder_layers=3,
        feedforward_channels=512,
        dropout=0.0,
        temperature=20.0,
    ),
)
max_epochs = 150
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min_ratio=0.01, convert_to_iter_based=True),
]
randomness = dict(seed=0)
