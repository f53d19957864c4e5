# 40k iterations of Semantic FPN in batches of 32: AdamW with weight decay on everything, polynomial decay of power 0.9.
max_iters = 40000
train_cfg = dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=4000)
val_cfg = dict(type='ValLoop')
test_cfg = dict(type='TestLoop')
optim_wrapper = dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=2e-4, weight_decay=1e-4))
param_scheduler = [dict(type='PolyLR', by_epoch=False, begin=0, end=max_iters, power=0.9, eta_min=0.0)]
auto_scale_lr = dict(enable=False, base_batch_size=32)
