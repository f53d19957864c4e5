_base_ = './retinanet_pvtv2-b1_fpn_1x_coco.py'

model = dict(backbone=dict(arch='b2_li', init_cfg=dict(checkpoint='pvt_v2_b2_li')))
