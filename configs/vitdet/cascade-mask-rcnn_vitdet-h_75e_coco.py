_base_ = './cascade-mask-rcnn_vitdet-b_100e_coco.py'

model = dict(
    backbone=dict(
        arch='huge',
        global_blocks=(7, 15, 23, 31),
        drop_path_rate=0.5,
        init_cfg=dict(checkpoint='mae_vit_huge_p14to16'),
    ),
    neck=dict(in_channels=1280),
)
max_iters = 138281
train_cfg = dict(max_iters=max_iters)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=250),
    dict(type='MultiStepLR', by_epoch=False, begin=0, end=max_iters, milestones=[122916, 133159], gamma=0.1),
]
optim_wrapper = dict(
    paramwise_cfg=dict(decay_rate=0.9, norm_decay_mult=1.0, custom_keys=dict(pos_embed=dict(decay_mult=1.0)))
)
