# 150 epochs of YOLOS in batches of 8: AdamW and cosine decay; of vectors and tables, only those of the head and the
# positions between blocks have weight decay, as in the release.
max_epochs = 150
train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=max_epochs, val_interval=10)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(
    type='OptimWrapper',
    constructor='vitdense.LayerDecayOptimWrapperConstructor',
    optimizer=dict(type='AdamW', lr=2.5e-5, weight_decay=1e-4),
    paramwise_cfg=dict(custom_keys={'bbox_head': dict(decay_mult=1.0), 'mid_pos_embed': dict(decay_mult=1.0)}),
    clip_grad=dict(max_norm=0.1),
)
param_scheduler = [dict(type='CosineAnnealingLR', by_epoch=True, T_max=max_epochs, eta_min=1e-7)]
auto_scale_lr = dict(enable=False, base_batch_size=8)
