_base_ = './sem-fpn_pvt-t_8xb4-40k_ade20k-512x512.py'

model = dict(backbone=dict(arch='large', drop_path_rate=0.1, init_cfg=dict(checkpoint='pvt_large')))
