# A small DETR + PVTv2-b0: three decoder layers over a map of stride 16.
_base_ = './single_stage.py'

model = dict(
    backbone=dict(type='vitdense.PVTv2', arch='b0', drop_path_rate=0.0, out_indices=(2,)),
    bbox_head=dict(
        type='vitdense.DETRHead',
        num_classes=80,
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
