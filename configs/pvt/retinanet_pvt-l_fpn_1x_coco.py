_base_ = './retinanet_pvt-t_fpn_1x_coco.py'

model = dict(backbone=dict(arch='large', init_cfg=dict(checkpoint='pvt_large')))
optim_wrapper = dict(type='AmpOptimWrapper')
