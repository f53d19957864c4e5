_base_ = [
    'mmdet::cascade_rcnn/cascade-mask-rcnn_r50_fpn_1x_coco.py',
    '../_base_/models/cascade_giou_4conv1fc.py',
    '../_base_/datasets/detr_crop.py',
]

custom_imports = dict(imports=['vitdense'])
swin = dict(type='vitdense.Swin', arch='tiny', drop_path_rate=0.2)
model = dict(
    backbone=dict(_delete_=True, **swin, init_cfg=dict(type='vitdense.Pretrained', checkpoint='swin_tiny')),
    neck=dict(in_channels=[96, 192, 384, 768]),
    roi_head=dict(bbox_head=_base_.cascade_bbox_heads),
)
train_dataloader = dict(dataset=dict(pipeline=_base_.detr_crop_pipeline))
train_cfg = dict(max_epochs=36)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=36, milestones=[27, 33], gamma=0.1),
]
optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, betas=(0.9, 0.999), weight_decay=0.05),
    paramwise_cfg=dict(custom_keys={'relative_position_bias_table': dict(decay_mult=0), 'norm': dict(decay_mult=0)}),
)
