_base_ = './detr_r50_8xb2-150e_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='vitdense.Swin',
        arch='tiny',
        out_indices=(3,),
        init_cfg=dict(type='vitdense.Pretrained', checkpoint='swin_tiny'),
    ),
    bbox_head=dict(in_channels=768),
)
