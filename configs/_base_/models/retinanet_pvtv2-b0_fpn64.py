# The least RetinaNet: pyramid and head of 64 channels, two convolutions, anchors from 16 pixels.
_base_ = './retinanet_pvtv2-b0_fpn128.py'

model = dict(
    backbone=dict(drop_path_rate=0.0),
    neck=dict(out_channels=64),
    bbox_head=dict(in_channels=64, feat_channels=64, stacked_convs=2, anchor_generator=dict(octave_base_scale=2)),
)
