# DETR with ResNet-50, batch norm frozen; images are padded by the data preprocessor, which leaves img_shape alone.
_base_ = './single_stage.py'

model = dict(
    backbone=dict(
        type='ResNet',
        depth=50,
        out_indices=(3,),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
    bbox_head=dict(type='vitdense.DETRHead', num_classes=80, in_channels=2048),
)
