_base_ = './sem-fpn_pvtv2-b1_8xb4-40k_ade20k-512x512.py'

model = dict(
    backbone=dict(arch='b0', init_cfg=dict(checkpoint='pvt_v2_b0')),
    neck=dict(in_channels=[32, 64, 160, 256]),
)
