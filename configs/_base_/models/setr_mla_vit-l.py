# Multi-level aggregation of four maps of a ViT without class token; auxiliary heads on the maps of the neck.
_base_ = './setr_vit-l.py'

norm_cfg = dict(type='SyncBN')
head = dict(
    type='FCNHead',
    in_channels=256,
    channels=256,
    num_convs=0,
    kernel_size=1,
    concat_input=False,
    dropout_ratio=0,
    loss_decode=_base_.loss,
)
model = dict(
    backbone=dict(out_indices=(5, 11, 17, 23), class_token=False),
    neck=dict(type='vitdense.MLANeck', in_channels=[1024] * 4, norm_cfg=norm_cfg),
    decode_head=dict(
        type='vitdense.SETRMLAHead',
        in_channels=[256] * 4,
        in_index=[0, 1, 2, 3],
        channels=512,
        dropout_ratio=0,
        norm_cfg=norm_cfg,
        align_corners=False,
    ),
    auxiliary_head=[dict(head, in_index=i) for i in range(4)],
)
