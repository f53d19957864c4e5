_base_ = './deformable-detr_r50_8xb4-50e_coco.py'

# As in torchvision, the first block of the last stage keeps dilation 1, which mmdet's ResNet cannot do.
dc5 = dict(type='mmseg.ResNet', strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), contract_dilation=True)
model = dict(
    backbone=dict(dc5, out_indices=(3,)),
    neck=dict(in_channels=[2048], num_outs=1),
    bbox_head=dict(num_levels=1),
)
