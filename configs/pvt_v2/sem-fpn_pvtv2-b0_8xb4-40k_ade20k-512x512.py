_base_ = '../pvt/sem-fpn_pvt-t_8xb4-40k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='vitdense.PVTv2',
        arch='b0',
        init_cfg=dict(type='vitdense.Pretrained', checkpoint='pvt_v2_b0'),
    ),
    neck=dict(in_channels=[32, 64, 160, 256]),
)
