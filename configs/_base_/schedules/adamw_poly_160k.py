# 160k iterations of UPerNet in batches of 16: AdamW, warm-up, linear decay; of the backbone's norms, position tables and
# tokens none has weight decay, all else has it.
max_iters = 160000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=16000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='vitdense.LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=6e-5, betas=(0.9, 0.999), weight_decay=0.01),
    paramwise_cfg=dict(
        norm_decay_mult=1.0, bias_decay_mult=1.0, flat_decay_mult=1.0, custom_keys={'norm': dict(decay_mult=0.0)}
    ),
)
param_scheduler = [
    dict(type='LinearLR', by_epoch=False, begin=0, end=1500, start_factor=1e-6),
    dict(type='PolyLR', by_epoch=False, begin=1500, end=max_iters, power=1.0, eta_min=0.0),
]
auto_scale_lr = dict(enable=False, base_batch_size=16)
