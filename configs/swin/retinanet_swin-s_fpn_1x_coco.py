_base_ = './retinanet_swin-t_fpn_1x_coco.py'

model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint='swin_small')))
