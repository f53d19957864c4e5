# 50 epochs of Deformable DETR in batches of 32: as DETR, and a tenth of the rate for what says where to look, too.
_base_ = './detr_150e.py'

max_epochs = 50
train_cfg = dict(max_epochs=max_epochs)
optim_wrapper = dict(
    optimizer=dict(lr=2e-4),
    paramwise_cfg=dict(
        custom_keys={'sampling_offsets': dict(lr_mult=0.1), 'reference_points': dict(lr_mult=0.1)},
    ),
)
param_scheduler = [dict(type='MultiStepLR', by_epoch=True, begin=0, end=max_epochs, milestones=[40], gamma=0.1)]
auto_scale_lr = dict(base_batch_size=32)
