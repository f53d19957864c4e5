_base_ = './upernet_vit-b_8xb2-160k_ade20k-512x512.py'

model = dict(
    data_preprocessor=dict(mean=[123.675, 116.28, 103.53], std=[58.395, 57.12, 57.375]),
    backbone=dict(arch='small', pos_resize='bicubic', final_norm=False, init_cfg=dict(checkpoint='deit_small')),
    neck=dict(in_channels=[384, 384, 384, 384], out_channels=384),
    decode_head=dict(in_channels=[384, 384, 384, 384]),
    auxiliary_head=dict(in_channels=384),
)
