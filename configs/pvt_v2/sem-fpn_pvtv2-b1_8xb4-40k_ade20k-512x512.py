_base_ = [
    'mmseg::_base_/models/fpn_r50.py',
    '../_base_/datasets/ade20k_512.py',
    '../_base_/schedules/adamw_poly_40k.py',
    '../_base_/runtime/segmentation_iters.py',
]

model = dict(
    data_preprocessor=dict(size=_base_.crop_size),
    pretrained=None,
    backbone=dict(
        _delete_=True,
        type='vitdense.PVTv2',
        arch='b1',
        init_cfg=dict(type='vitdense.Pretrained', checkpoint='pvt_v2_b1'),
    ),
    neck=dict(in_channels=[64, 128, 320, 512]),
    decode_head=dict(num_classes=_base_.num_classes),
)
val_dataloader = dict(dataset=dict(pipeline=_base_.aligned_pipeline))
test_dataloader = val_dataloader
