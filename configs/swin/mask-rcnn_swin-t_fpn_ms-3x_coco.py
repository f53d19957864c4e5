_base_ = ['./mask-rcnn_swin-t_fpn_1x_coco.py', '../_base_/datasets/detr_crop.py']

train_dataloader = dict(dataset=dict(pipeline=_base_.detr_crop_pipeline))
train_cfg = dict(max_epochs=36)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=500),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=36, milestones=[27, 33], gamma=0.1),
]
