# As adamw_scratch.py, but longer, with twice the rate, and in batches of 4.
_base_ = './adamw_scratch.py'

max_epochs = 80
train_cfg = dict(max_epochs=max_epochs, val_interval=10)
optim_wrapper = dict(optimizer=dict(lr=1e-3))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=200),
    dict(type='CosineAnnealingLR', T_max=max_epochs, eta_min_ratio=0.01, convert_to_iter_based=True),
]
auto_scale_lr = dict(base_batch_size=4)
