# Deformable DETR with ResNet-50, batch norm frozen; the neck is that of the official release, whose convolutions have biases.
model = dict(
    type='SingleStageDetector',
    data_preprocessor=dict(
        type='DetDataPreprocessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
    ),
    backbone=dict(
        type='ResNet',
        depth=50,
        out_indices=(1, 2, 3),
        frozen_stages=1,
        norm_cfg=dict(type='BN', requires_grad=False),
        norm_eval=True,
        init_cfg=dict(type='Pretrained', checkpoint='torchvision://resnet50'),
    ),
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
    bbox_head=dict(type='vitdense.DeformableDETRHead', num_classes=80),
)
