# Some hundred images: from the official COCO detector, fetched by hand (README.md), at a tenth of its rates; only classes are new.
_base_ = [
    '../_base_/models/deformable-detr_r50.py',
    '../_base_/datasets/bccd_640.py',
    '../_base_/schedules/deformable_detr_50e.py',
    '../_base_/runtime/default.py',
]
load_from = 'checkpoints/r50_deformable_detr_plus_iterative_bbox_refinement-checkpoint.pth'
model = dict(backbone=dict(init_cfg=None), bbox_head=dict(num_classes=_base_.num_classes, with_box_refine=True))
train_cfg = dict(max_epochs=20, val_interval=2)
optim_wrapper = dict(optimizer=dict(lr=2e-5), paramwise_cfg=dict(custom_keys={'class_embed': dict(lr_mult=10.0)}))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='MultiStepLR', by_epoch=True, begin=0, end=20, milestones=[16], gamma=0.1),
]
auto_scale_lr = dict(base_batch_size=4)
