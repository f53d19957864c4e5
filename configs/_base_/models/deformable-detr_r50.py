# Deformable DETR with ResNet-50, batch norm frozen; the neck is that of the official release, whose convolutions have biases.
_base_ = './detr_r50.py'

model = dict(
    backbone=dict(out_indices=(1, 2, 3)),
    neck=dict(
        type='ChannelMapper',
        in_channels=[512, 1024, 2048],
        out_channels=256,
        kernel_size=1,
        bias=True,
        norm_cfg=dict(type='GN', num_groups=32),
        act_cfg=None,
        num_outs=4,
    ),
    bbox_head=dict(_delete_=True, type='vitdense.DeformableDETRHead', num_classes=80),
)
