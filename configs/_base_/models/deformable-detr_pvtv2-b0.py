# A small Deformable DETR + PVTv2-b0: three refining decoder layers over maps of stride 8, 16 and 32.
_base_ = './detr_pvtv2-b0.py'

model = dict(
    backbone=dict(out_indices=(1, 2)),
    neck=dict(
        type='ChannelMapper',
        in_channels=[64, 160],
        out_channels=128,
        kernel_size=1,
        bias=True,
        norm_cfg=dict(type='GN', num_groups=32),
        act_cfg=None,
        num_outs=3,
    ),
    bbox_head=dict(
        _delete_=True,
        type='vitdense.DeformableDETRHead',
        num_classes=80,
        in_channels=128,
        num_levels=3,
        num_queries=50,
        encoder_layers=2,
        decoder_layers=3,
        feedforward_channels=512,
        dropout=0.0,
        with_box_refine=True,
    ),
)
