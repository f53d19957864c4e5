_base_ = './deformable-detr_r50_8xb4-50e_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='vitdense.PVTv2',
        arch='b2',
        out_indices=(1, 2, 3),
        init_cfg=dict(type='vitdense.Pretrained', checkpoint='pvt_v2_b2'),
    ),
    neck=dict(in_channels=[128, 320, 512]),
)
