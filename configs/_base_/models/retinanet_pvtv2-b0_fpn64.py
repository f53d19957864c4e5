# The least RetinaNet, for small images: three levels of 64 channels with group norm, anchors from 16 pixels.
_base_ = './retinanet_pvtv2-b0_fpn128.py'

norm_cfg = dict(type='GN', num_groups=16)
model = dict(
    backbone=dict(drop_path_rate=0.0),
    neck=dict(out_channels=64, num_outs=3, norm_cfg=norm_cfg),
    bbox_head=dict(
        in_channels=64,
        feat_channels=64,
        stacked_convs=2,
        norm_cfg=norm_cfg,
        anchor_generator=dict(octave_base_scale=2, strides=[8, 16, 32]),
    ),
)
