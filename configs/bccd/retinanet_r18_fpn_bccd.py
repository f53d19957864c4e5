# The same pipeline with ResNet-18, from scratch as well.
_base_ = './retinanet_pvtv2-b0_fpn_bccd.py'

model = dict(
    backbone=dict(
        _delete_=True, type='ResNet', depth=18, norm_cfg=dict(type='BN', requires_grad=True), norm_eval=False
    ),
    neck=dict(in_channels=[64, 128, 256, 512]),
)
