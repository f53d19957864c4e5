# Images of 256 to 608 pixels for training and 512 for testing.
_base_ = [
    '../_base_/models/yolos-s.py',
    '../_base_/datasets/coco_yolos.py',
    '../_base_/schedules/yolos_150e.py',
    'mmdet::_base_/default_runtime.py',
]
custom_imports = dict(imports=['vitdense'])
model = dict(backbone=dict(arch='tiny', init_cfg=dict(checkpoint='deit_tiny')), bbox_head=dict(in_channels=192))
scales = [(side, 1013) for side in range(256, 609, 16)]
train_pipeline = _base_.train_pipeline
train_pipeline[4].update(scales=scales)
test_pipeline = _base_.test_pipeline
test_pipeline[1].update(scale=(853, 512))
train_dataloader = dict(batch_size=2, dataset=dict(pipeline=train_pipeline))
val_dataloader = dict(dataset=dict(pipeline=test_pipeline))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=300)
optim_wrapper = dict(optimizer=dict(lr=5e-5))
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, T_max=300, eta_min=1e-7)]
auto_scale_lr = dict(base_batch_size=16)
