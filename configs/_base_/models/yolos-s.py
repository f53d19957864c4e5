# YOLOS-S on COCO, from the official ImageNet weights of DeiT-S, which have no positions between blocks.
_base_ = './single_stage.py'

model = dict(
    backbone=dict(
        type='vitdense.YOLOS',
        arch='small',
        init_cfg=dict(type='vitdense.Pretrained', checkpoint='deit_small'),
    ),
    bbox_head=dict(type='vitdense.YOLOSHead', num_classes=80, in_channels=384),
)
