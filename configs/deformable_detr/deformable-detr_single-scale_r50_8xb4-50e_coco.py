_base_ = './deformable-detr_r50_8xb4-50e_coco.py'

model = dict(
    backbone=dict(out_indices=(3,)),
    neck=dict(in_channels=[2048], num_outs=1),
    bbox_head=dict(num_levels=1),
)
