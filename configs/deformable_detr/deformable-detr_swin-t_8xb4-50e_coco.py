_base_ = './deformable-detr_r50_8xb4-50e_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='vitdense.Swin',
        arch='tiny',
        out_indices=(1, 2, 3),
        init_cfg=dict(type='vitdense.Pretrained', checkpoint='swin_tiny'),
    ),
    neck=dict(in_channels=[192, 384, 768]),
)
