# 80k iterations of SETR in batches of 16: SGD without weight decay, ten times the rate for the heads, polynomial decay of power 0.9.
max_iters = 80000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=8000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='vitdense.LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=0.0),
    paramwise_cfg=dict(custom_keys={'head': dict(lr_mult=10.0)}),
)
param_scheduler = [dict(type='PolyLR', by_epoch=False, begin=0, end=max_iters, power=0.9, eta_min=1e-4)]
auto_scale_lr = dict(enable=False, base_batch_size=16)
