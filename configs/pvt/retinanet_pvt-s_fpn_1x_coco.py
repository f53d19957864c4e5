_base_ = './retinanet_pvt-t_fpn_1x_coco.py'

model = dict(backbone=dict(arch='small', init_cfg=dict(checkpoint='pvt_small')))
