_base_ = './sem-fpn_pvtv2-b1_8xb4-40k_ade20k-512x512.py'

model = dict(backbone=dict(arch='b4', init_cfg=dict(checkpoint='pvt_v2_b4')))
