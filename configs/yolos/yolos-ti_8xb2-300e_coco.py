_base_ = [
    '../_base_/models/yolos-s.py',
    '../_base_/datasets/coco_yolos_small.py',
    '../_base_/schedules/yolos_150e.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['vitdense'])
model = dict(
    backbone=dict(arch='tiny', init_cfg=dict(checkpoint='deit_tiny')),
    bbox_head=dict(in_channels=192),
)
train_cfg = dict(max_epochs=300)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, T_max=300, eta_min=1e-7)]
auto_scale_lr = dict(base_batch_size=16)
