_base_ = [
    'mmseg::_base_/models/fpn_r50.py',
    '../_base_/datasets/ade20k_512_aligned.py',
    '../_base_/schedules/adamw_poly_40k.py',
    '../_base_/runtime/segmentation_iters.py',
]

model = dict(
    data_preprocessor=dict(size=(512, 512)),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='vitdense.PVTv2',
        arch='b0',
        init_cfg=dict(type='vitdense.Pretrained', checkpoint='pvt_v2_b0'),
    ),
    neck=dict(in_channels=[32, 64, 160, 256]),
    decode_head=dict(num_classes={{_base_.num_classes}}),
)
