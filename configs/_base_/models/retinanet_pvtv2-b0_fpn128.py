# RetinaNet for small data and few cores: pyramid and head of 128 channels, trained from scratch.
_base_ = 'mmdet::_base_/models/retinanet_r50_fpn.py'

model = dict(
    backbone=dict(_delete_=True, type='vitdense.PVTv2', arch='b0'),
    neck=dict(in_channels=[32, 64, 160, 256], out_channels=128),
    bbox_head=dict(in_channels=128, feat_channels=128),
)
