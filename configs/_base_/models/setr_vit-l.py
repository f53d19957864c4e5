# ViT-L/16 of SETR with the weights of ImageNet-21k fine-tuned at 384 pixels; what its upsampling heads share.
model = dict(
    type='EncoderDecoder',
    data_preprocessor=dict(
        type='SegDataPreProcessor',
        mean=[123.675, 116.28, 103.53],
        std=[58.395, 57.12, 57.375],
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
    ),
    backbone=dict(
        type='vitdense.ViT',
        arch='large',
        out_indices=(9, 14, 19, 23),
        pos_resize='bilinear',
        init_cfg=dict(type='vitdense.Pretrained', checkpoint='vit_large_orig_384'),
    ),
)
up_head = dict(
    type='vitdense.SETRUPHead',
    in_channels=1024,
    channels=256,
    dropout_ratio=0,
    norm_cfg=dict(type='SyncBN'),
    align_corners=False,
)
loss = dict(type='CrossEntropyLoss', loss_weight=0.4)
