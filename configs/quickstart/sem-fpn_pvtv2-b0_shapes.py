# Semantic FPN on generated shapes, four minutes on two CPU cores; the backbone is that of the detector beside it.
_base_ = [
    '../_base_/models/sem-fpn_pvtv2-b0.py',
    '../_base_/datasets/shapes_segmentation.py',
    '../_base_/schedules/adamw_scratch.py',
    '../_base_/runtime/segmentation.py',
]

max_epochs = 10
detector = 'work_dirs/retinanet_pvtv2-b0_fpn_shapes/best.pth'
model = dict(
    backbone=dict(init_cfg=dict(type='vitdense.Pretrained', checkpoint=detector)),
    decode_head=dict(num_classes=_base_.num_classes, dropout_ratio=0),
)
train_cfg = dict(max_epochs=max_epochs, val_interval=5)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min_ratio=0.01, convert_to_iter_based=True),
]
custom_hooks = [dict(type='EMAHook', ema_type='mmdet.ExpMomentumEMA', momentum=0.005, update_buffers=True)]
randomness = dict(seed=0)
