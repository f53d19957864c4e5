_base_ = './mask-rcnn_vit-adapter-t_3x_coco.py'

model = dict(
    backbone=dict(arch='small', drop_path_rate=0.2, init_cfg=dict(checkpoint='deit_small')),
    neck=dict(in_channels=[384, 384, 384, 384]),
)
