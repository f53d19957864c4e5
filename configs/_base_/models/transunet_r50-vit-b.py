# TransUNet: R50+ViT-B/16 with the weights of ImageNet-21k, and the cascaded upsampler with its three skip maps.
_base_ = './encoder_decoder.py'

model = dict(
    data_preprocessor=dict(mean=[127.5] * 3, std=[127.5] * 3),
    backbone=dict(
        type='vitdense.HybridViT',
        arch='base',
        class_token=False,
        out_indices=(0, 1, 2, 14),
        final_norm=True,
        drop_rate=0.1,
        init_cfg=dict(type='vitdense.Pretrained', checkpoint='vit_base_r50_s16'),
    ),
    decode_head=dict(
        type='vitdense.CascadedUpsamplerHead',
        in_channels=[64, 256, 512, 768],
        in_index=[0, 1, 2, 3],
        dropout_ratio=0.0,
        norm_cfg=dict(type='SyncBN', requires_grad=True),
        align_corners=False,
        loss_decode=[
            dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.5),
            dict(type='DiceLoss', use_sigmoid=False, loss_weight=0.5),
        ],
    ),
)
