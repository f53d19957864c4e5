_base_ = './mask-rcnn_vitdet-b_100e_coco.py'

model = dict(
    backbone=dict(
        arch='large',
        global_blocks=(5, 11, 17, 23),
        drop_path_rate=0.4,
        init_cfg=dict(checkpoint='mae_vit_large'),
    ),
    neck=dict(in_channels=1024),
)
optim_wrapper = dict(paramwise_cfg=dict(decay_rate=0.8))
