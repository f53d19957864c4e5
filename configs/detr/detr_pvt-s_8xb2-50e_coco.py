_base_ = './detr_r50_8xb2-150e_coco.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='vitdense.PVT',
        arch='small',
        out_indices=(3,),
        init_cfg=dict(type='vitdense.Pretrained', checkpoint='pvt_small'),
    ),
    bbox_head=dict(in_channels=512),
)
train_cfg = dict(max_epochs=50)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=50, milestones=[33], gamma=0.1)]
