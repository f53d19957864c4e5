# A small SETR, trained from scratch: six blocks of ViT-Ti, four doublings of 64 channels, no auxiliary heads.
_base_ = './setr_vit-l.py'

model = dict(
    data_preprocessor=dict(size_divisor=32),
    backbone=dict(
        _delete_=True,
        type='vitdense.ViT',
        arch='tiny',
        depth=6,
        drop_path_rate=0.1,
        init_cfg=dict(type='Xavier', layer='Linear', distribution='normal'),
    ),
    decode_head=dict(
        type='vitdense.SETRUPHead',
        in_channels=192,
        channels=64,
        in_index=0,
        num_convs=4,
        up_scale=2,
        norm_cfg=dict(type='BN'),
        align_corners=False,
    ),
)
