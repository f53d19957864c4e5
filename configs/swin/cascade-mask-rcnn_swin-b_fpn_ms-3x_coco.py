_base_ = './cascade-mask-rcnn_swin-t_fpn_ms-3x_coco.py'

model = dict(
    backbone=dict(arch='base', drop_path_rate=0.3, init_cfg=dict(checkpoint='swin_base')),
    neck=dict(in_channels=[128, 256, 512, 1024]),
)
