# RetinaNet + PVTv2-b0 from scratch on generated shapes: less than five minutes on two CPU cores.
_base_ = [
    '../_base_/models/retinanet_pvtv2-b0_fpn64.py',
    '../_base_/datasets/shapes_detection.py',
    '../_base_/schedules/adamw_scratch.py',
    '../_base_/runtime/default.py',
]

max_epochs = 16
model = dict(bbox_head=dict(num_classes=_base_.num_classes))
train_cfg = dict(max_epochs=max_epochs, val_interval=4)
optim_wrapper = dict(optimizer=dict(lr=2e-3, betas=(0.9, 0.95)))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min_ratio=0.01, convert_to_iter_based=True),
]
custom_hooks = [dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.005, update_buffers=True)]
randomness = dict(seed=0)
