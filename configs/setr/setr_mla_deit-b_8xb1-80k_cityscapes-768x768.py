_base_ = './setr_mla_vit-l_8xb1-80k_cityscapes-768x768.py'

model = dict(
    backbone=dict(arch='base', out_indices=(2, 5, 8, 11), init_cfg=dict(checkpoint='deit_base_distilled_384')),
    neck=dict(in_channels=[768] * 4),
)
