# Fine-tuning on a small data set: the official COCO detector, fetched by hand (README.md); only the class head is new.
_base_ = [
    '../_base_/models/yolos-s.py',
    '../_base_/datasets/bccd_640.py',
    '../_base_/schedules/yolos_150e.py',
    '../_base_/runtime/default.py',
]
load_from = 'checkpoints/yolos_ti.pth'
model = dict(
    backbone=dict(arch='tiny', init_cfg=None),
    bbox_head=dict(num_classes=_base_.num_classes, in_channels=192),
)
train_cfg = dict(max_epochs=50)
optim_wrapper = dict(paramwise_cfg=dict(custom_keys={'bbox_head': dict(lr_mult=10.0)}))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, T_max=50, eta_min=1e-7)]
auto_scale_lr = dict(base_batch_size=4)
