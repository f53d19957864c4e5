_base_ = './mask-rcnn_swin-t_fpn_ms-3x_coco.py'

model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint='swin_small')))
