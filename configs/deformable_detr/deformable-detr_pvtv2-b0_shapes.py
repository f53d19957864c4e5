# From scratch on generated shapes, for CPUs; data and schedule are those of ../detr/detr_pvtv2-b0_shapes.py.
_base_ = [
    '../_base_/models/deformable-detr_pvtv2-b0.py',
    '../_base_/datasets/shapes_detection.py',
    '../_base_/schedules/adamw_scratch.py',
    '../_base_/runtime/default.py',
]

max_epochs = 150
model = dict(bbox_head=dict(num_classes={{_base_.num_classes}}))
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
optim_wrapper = dict(optimizer=dict(lr=2e-4))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min_ratio=0.01, convert_to_iter_based=True),
]
randomness = dict(seed=0)
