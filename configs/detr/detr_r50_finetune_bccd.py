# 205 images: from the official COCO detector, at a tenth of its rates so that they keep what it learned; only classes are new.
_base_ = [
    '../_base_/models/detr_r50.py',
    '../_base_/datasets/bccd_640.py',
    '../_base_/schedules/detr_150e.py',
    '../_base_/runtime/default.py',
]
load_from = 'https://dl.fbaipublicfiles.com/detr/detr-r50-e632da11.pth'
model = dict(backbone=dict(init_cfg=None), bbox_head=dict(num_classes=_base_.num_classes))
train_cfg = dict(max_epochs=50, val_interval=5)
optim_wrapper = dict(optimizer=dict(lr=1e-5), paramwise_cfg=dict(custom_keys={'class_embed': dict(lr_mult=10.0)}))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=50, milestones=[40], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=4)
