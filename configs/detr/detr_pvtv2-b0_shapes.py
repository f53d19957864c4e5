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
    ),
)
