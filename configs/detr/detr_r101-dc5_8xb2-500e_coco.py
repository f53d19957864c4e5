_base_ = './detr_r50_8xb2-500e_coco.py'

# As in torchvision, the first block of the last stage keeps dilation 1, which mmdet's ResNet cannot do.
dc5 = dict(type='mmseg.ResNet', strides=(1, 2, 2, 1), dilations=(1, 1, 1, 2), contract_dilation=True)
model = dict(backbone=dict(dc5, depth=101, init_cfg=dict(checkpoint='torchvision://resnet101')))
