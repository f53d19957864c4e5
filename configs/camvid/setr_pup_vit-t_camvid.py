# The same pipeline with a small SETR: six blocks of ViT-Ti, progressive upsampling to full size, no auxiliary heads.
_base_ = [
    '../_base_/models/encoder_decoder.py',
    '../_base_/datasets/camvid.py',
    '../_base_/schedules/adamw_scratch_80e.py',
    '../_base_/runtime/segmentation.py',
]

xavier = dict(type='Xavier', layer='Linear', distribution='normal')
model = dict(
    data_preprocessor=dict(size_divisor=32),
    backbone=dict(type='vitdense.ViT', arch='tiny', depth=6, drop_path_rate=0.1, init_cfg=xavier),
    decode_head=dict(
        type='vitdense.SETRUPHead',
        num_classes=_base_.num_classes,
        in_channels=192,
        channels=64,
        in_index=0,
        num_convs=4,
        up_scale=2,
        norm_cfg=dict(type='BN'),
        align_corners=False,
    ),
)
