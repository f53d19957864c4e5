# From scratch on 205 images of blood cells, for CPUs: what can be expected without any pretraining.
_base_ = [
    '../_base_/models/deformable-detr_pvtv2-b0.py',
    '../_base_/datasets/bccd_detection.py',
    '../_base_/schedules/adamw_scratch.py',
    '../_base_/runtime/default.py',
]

max_epochs = 40
model = dict(bbox_head=dict(num_classes=_base_.num_classes, num_queries=100))
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
# A new backbone has great gradients in the padding of a batch, and clipping would shrink all others with them.
optim_wrapper = dict(clip_grad=None, paramwise_cfg=dict(custom_keys={'sampling_offsets': dict(lr_mult=0.1)}))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min_ratio=0.01, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=4)
randomness = dict(seed=0)
