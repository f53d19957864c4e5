_base_ = './trans2seg_r50-d16_4xb4-40k_ade20k-512x512.py'

model = dict(
    backbone=dict(
        _delete_=True,
        type='vitdense.PVT',
        arch='small',
        init_cfg=dict(type='vitdense.Pretrained', checkpoint='pvt_small'),
    ),
    decode_head=dict(in_channels=(64, 512), map_size=16),
)
