_base_ = './deformable-detr_single-scale_r50_8xb4-50e_coco.py'

# As in torchvision, the first block of the last stage keeps dilation 1, which mmdet's ResNet cannot do.
model = dict(backbone=dict(type='mmseg.ResNet', strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), contract_dilation=True))
