_base_ = 'mmdet::mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py'

custom_imports = dict(imports=['vitdense'])
model = dict(
    backbone=dict(
        _delete_=True,
        type='vitdense.PVTv2',
        arch='b1',
        init_cfg=dict(type='vitdense.Pretrained', checkpoint='pvt_v2_b1'),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=2e-4, weight_decay=1e-4))
