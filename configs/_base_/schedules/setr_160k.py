_base_ = './setr_80k.py'

max_iters = 160000
train_cfg = dict(max_iters=max_iters, val_interval=16000)
param_scheduler = [dict(type='PolyLR', by_epoch=False, begin=0, end=max_iters, power=0.9, eta_min=1e-4)]
